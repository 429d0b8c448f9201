package scan

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestGemLock(t *testing.T) {
	t.Parallel()
	inv := scanned(t, "Gemfile.lock", []byte(`GIT
  remote: https://github.com/hanami/utils.git
  revision: 5904fc9a70683b8749aa2861257d0c8c01eae4aa
  branch: main
  specs:
    hanami-utils (2.0.0.alpha1)
      concurrent-ruby (~> 1.0)

PATH
  remote: engines/own
  specs:
    own (0.1.0)
      rack

GEM
  remote: https://rubygems.org/
  specs:
    concurrent-ruby (1.1.7)
    nokogiri (1.15.0-arm64-darwin)
      racc (~> 1.4)
    nokogiri (1.15.0-x86_64-linux)
      racc (~> 1.4)
    racc (1.7.1)
    rack (2.2.3)

PLATFORMS
  x86_64-linux

DEPENDENCIES
  hanami-utils!
  nokogiri (~> 1.15)
  own!

CHECKSUMS
  rack (2.2.3) sha256=`+strings.Repeat("ab", 32)+`
  racc (1.7.1)
  nokogiri (1.15.0-x86_64-linux) sha256=`+strings.Repeat("cd", 32)+`

RUBY VERSION
   ruby 3.2.2p53

BUNDLED WITH
   2.4.10
`))
	git := "pkg:gem/hanami-utils@2.0.0.alpha1?vcs_url=git%2Bhttps:%2F%2Fgithub.com%2Fhanami%2Futils.git%405904fc9a70683b8749aa2861257d0c8c01eae4aa"
	checkOutline(t, inv, `
		pkg:gem/concurrent-ruby@1.1.7
		`+git+` > pkg:gem/concurrent-ruby@1.1.7
		pkg:gem/nokogiri@1.15.0 > pkg:gem/racc@1.7.1
		pkg:gem/own@0.1.0 application > pkg:gem/rack@2.2.3
		pkg:gem/racc@1.7.1
		pkg:gem/rack@2.2.3 SHA-256`, git, "pkg:gem/nokogiri@1.15.0", "pkg:gem/own@0.1.0")
}

// Locks of real projects, against a reading of their lines.
func TestTruthGemLock(t *testing.T) {
	t.Parallel()
	dir := languageData(t, "ruby/gemfilelock")
	entry := regexp.MustCompile(`(?m)^    ([^ ]+) \(([^-)]+)[^)]*\)$`)
	for _, name := range []string{"rails.lock", "rubocop.lock", "some-gems.lock", "multiple-gems.lock", "has-git-gem.lock", "source-section-at-end.lock"} {
		data := readTestFile(t, filepath.Join(dir, name))
		var truth []string
		for _, m := range entry.FindAllStringSubmatch(string(data), -1) {
			truth = append(truth, "pkg:gem/"+m[1]+"@"+m[2])
		}
		inv := scanned(t, "Gemfile.lock", data)
		found := purlsOf(inv, "gem")
		for i := range found {
			found[i], _, _ = strings.Cut(found[i], "?")
		}
		compareTruth(t, name, truth, found)
		if len(inv.Incomplete) > 0 {
			t.Errorf("%s: incomplete: %v", name, inv.Incomplete)
		}
	}
}

func TestInstalledGems(t *testing.T) {
	t.Parallel()
	const specs = "usr/local/lib/ruby/gems/3.2.0/specifications/"
	spec := func(name, version, rest string) string {
		return "# -*- encoding: utf-8 -*-\n# stub: " + name + " " + version + " ruby lib\n\nGem::Specification.new do |s|\n  s.name = \"" + name + "\".freeze\n  s.version = \"" + version + "\".freeze\n" + rest + "end\n"
	}
	inv := scanned(t, "rootfs.tar", tarOf(t, inMemory{
		specs + "faraday-2.12.2.gemspec": spec("faraday", "2.12.2", `  s.licenses = ["MIT".freeze]
  s.required_rubygems_version = Gem::Requirement.new(">= 0".freeze) if s.respond_to? :required_rubygems_version=
  s.add_runtime_dependency(%q<json>.freeze, [">= 0".freeze])
  s.add_dependency("logger", "~> 1.0")
  s.add_development_dependency(%q<rspec>.freeze, [">= 0".freeze])
`),
		specs + "default/json-2.6.3.gemspec": spec("json", "2.6.3", "  s.licenses = [\"Ruby\".freeze, \"BSD-2-Clause\".freeze]\n"),
		specs + "logger-1.5.gemspec":         spec("logger", "1.5", "  s.license = 'MIT'\n"),
		specs + "logger-1.6.gemspec":         spec("logger", "1.6", ""),
		specs + "broken.gemspec":             "Gem::Specification.new",
		"src/faraday.gemspec":                "Gem::Specification.new do |s|\n s.name = 'x'\n s.version = '1'\nend",
	}))
	checkOutline(t, inv, `
		pkg:gem/faraday@2.12.2 {MIT} > pkg:gem/json@2.6.3
		pkg:gem/json@2.6.3 {Ruby OR BSD-2-Clause}
		pkg:gem/logger@1.5 {MIT}
		pkg:gem/logger@1.6`)
	if want := []string{"malformed " + specs + "broken.gemspec"}; !slices.Equal(reasonsOf(inv), want) {
		t.Errorf("%q, want %q", reasonsOf(inv), want)
	}
}

// Gems of RubyGems, from the tests of osv-scalibr.
func TestGem(t *testing.T) {
	t.Parallel()
	dir := languageData(t, "ruby/gem")
	for name, want := range map[string]string{
		"faraday-2.12.2.gem":        "pkg:gem/faraday@2.12.2 {MIT} SHA-1 SHA-256",
		"rack-3.1.8.gem":            "pkg:gem/rack@3.1.8 {MIT} SHA-1 SHA-256",
		"aws-sdk-core-3.218.0.gem":  "pkg:gem/aws-sdk-core@3.218.0 {Apache-2.0} SHA-1 SHA-256",
		"synthetic_exact-1.0.0.gem": "pkg:gem/synthetic-gem@1.0.0 {MIT} SHA-1 SHA-256",
	} {
		inv := scanned(t, name, readTestFile(t, filepath.Join(dir, name)))
		checkOutline(t, inv, want)
	}
	for _, name := range []string{"corrupt.gem", "corrupt_metadata.gem"} {
		if inv := scanned(t, name, readTestFile(t, filepath.Join(dir, name))); len(inv.Components) > 0 || len(inv.Incomplete) == 0 {
			t.Errorf("%s: %q, %v", name, outline(inv), inv.Incomplete)
		}
	}
}

func FuzzGemLock(f *testing.F) {
	fuzzReaders(f, "Gemfile.lock", "GEM\n  remote: x\n  specs:\n    a (1-java)\n      b\n    b (2)\n\nDEPENDENCIES\n  a!\n\nCHECKSUMS\n  b (2) sha256="+strings.Repeat("0", 64)+"\n")
}

func FuzzGemspec(f *testing.F) {
	for _, s := range []string{"s.name = %q<a>\ns.version = \"1\"\ns.add_dependency('b'\n", "s.name = \"a\ns.version = ''"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		scanned(t, "r.tar", tarOf(t, inMemory{"specifications/a.gemspec": string(data)}))
	})
}
