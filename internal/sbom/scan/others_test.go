package scan

import (
	"slices"
	"testing"
)

// TestOthers gives each extractor of osv-scalibr a file as its ecosystem writes it.
func TestOthers(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ path, text, purl string }{
		"conan":     {"conan.lock", `{"version":"0.5","requires":["zlib/1.2.11#ffa77daf83a57094149707928bdce823%1667396813.184"],"build_requires":[],"python_requires":[]}`, "pkg:conan/zlib@1.2.11"},
		"pub":       {"pubspec.lock", "packages:\n  shelf:\n    dependency: transitive\n    description:\n      name: shelf\n    source: hosted\n    version: \"1.3.2\"\n", "pkg:pub/shelf@1.3.2"},
		"mix":       {"mix.lock", `%{` + "\n" + `  "bunt": {:hex, :bunt, "1.0.0", "081c2c665f086849e6d57900292b3a161727ab40431219529f13c4ddcf3e7a44", [:mix], [], "hexpm", "dc5f86aa08a5f6fa6b8096f0735c4e76d54ae5c9fa2c143e5a1fc7c1cd9bb6b5"},` + "\n}\n", "pkg:hex/bunt@1.0.0"},
		"cabal":     {"cabal.project.freeze", "constraints: any.ALUT ==2.4.0.3,\n             any.ANum ==0.2.0.2\n", "pkg:hackage/ALUT@2.4.0.3"},
		"stack":     {"stack.yaml.lock", "packages:\n- completed:\n    hackage: fuzzyset-0.2.4@sha256:f1b6de8bf33277bf6255207541d65028f1f1ea93af5541b654c86b5674995485,1618\n  original:\n    hackage: fuzzyset-0.2.4\n", "pkg:hackage/fuzzyset@0.2.4"},
		"renv":      {"renv.lock", `{"R":{"Version":"2.15.2"},"Packages":{"morning":{"Package":"morning","Version":"0.1.0","Repository":"CRAN"}}}`, "pkg:cran/morning@0.1.0"},
		"swift":     {"Package.resolved", `{"pins":[{"identity":"swift-atomics","location":"https://github.com/apple/swift-atomics.git","state":{"version":"1.1.0"}}],"version":2}`, "pkg:swift/github.com/apple/swift-atomics@1.1.0"},
		"cocoapods": {"Podfile.lock", "PODS:\n  - PINCache (3.0.3):\n    - PINCache/Core (= 3.0.3)\n", "pkg:cocoapods/PINCache@3.0.3"},
		"pacman":    {"var/lib/pacman/local/filesystem-1/desc", "%NAME%\nfilesystem\n\n%VERSION%\n2024.11.21-1\n\n%ARCH%\nany\n", "pkg:alpm/arch/filesystem@2024.11.21-1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inv := scanned(t, "tree.tar", tarOf(t, inMemory{tt.path: tt.text}))
			var found []string
			for _, c := range inv.Components {
				found = append(found, c.PURL)
			}
			if !slices.Contains(found, tt.purl) || len(inv.Incomplete) > 0 {
				t.Errorf("found %q, incomplete %v; want %s", found, inv.Incomplete, tt.purl)
			}
		})
	}
}

// A go.mod tells the modules of a build; what only its tests have is none of
// it.
func TestGoMod(t *testing.T) {
	t.Parallel()
	mod := "module example.com/m\n\ngo 1.26\n\nrequire (\n\texample.com/a v1.2.3\n\texample.com/b v0.1.0 // indirect\n\texample.com/c v1.0.0\n)\n\n" +
		"replace example.com/c => ../c\n\nreplace example.com/b v0.1.0 => example.com/fork v0.2.0\n"
	inv := scanned(t, "src.tar", tarOf(t, inMemory{
		"m/go.mod": mod, "m/testdata/x/go.mod": "module x\nrequire example.com/none v1.0.0\n", "m/vendor/y/go.mod": "module y\nrequire example.com/vendored v1.0.0\n",
	}))
	want := []string{"pkg:golang/example.com/a@v1.2.3", "pkg:golang/example.com/c", "pkg:golang/example.com/fork@v0.2.0", "pkg:golang/example.com/vendored@v1.0.0"}
	if got := purlsOf(inv, "golang"); !slices.Equal(got, want) || !inv.Complete() {
		t.Errorf("found %q, incomplete %v; want %q", got, inv.Incomplete, want)
	}
}
