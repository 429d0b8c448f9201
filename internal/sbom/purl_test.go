package sbom

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

type purlParts struct {
	Type       *string           `json:"type"`
	Namespace  *string           `json:"namespace"`
	Name       *string           `json:"name"`
	Version    *string           `json:"version"`
	Qualifiers map[string]string `json:"qualifiers"`
	Subpath    *string           `json:"subpath"`
}

type purlCase struct {
	Description string          `json:"description"`
	Group       string          `json:"test_group"`
	Type        string          `json:"test_type"`
	Input       json.RawMessage `json:"input"`
	Output      json.RawMessage `json:"expected_output"`
	Fails       bool            `json:"expected_failure"`
}

func TestPURLVectors(t *testing.T) {
	t.Parallel()
	dir := vectors.Dir(t, "purl-spec/tests")
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	if err != nil || len(files) < 40 {
		t.Fatalf("%d files of vectors, %v", len(files), err)
	}
	ran := map[string]int{}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var suite struct{ Tests []purlCase }
		if err := json.Unmarshal(data, &suite); err != nil {
			t.Fatal(name, err)
		}
		for _, c := range suite.Tests {
			if c.contradicted(suite.Tests) {
				ran["contradicted"]++
				continue
			}
			ran[c.Type]++
			got, err := c.run(t)
			switch {
			case c.Fails && err == nil:
				t.Errorf("%s: %s: %s %s: accepted as %s", filepath.Base(name), c.Description, c.Type, c.Input, got)
			case c.Fails:
				if refusal.CodeOf(err) != CodePURLInvalid {
					t.Errorf("%s: %s: refused without the code: %v", name, c.Input, err)
				}
			case err != nil:
				t.Errorf("%s: %s: %s %s: %v", filepath.Base(name), c.Description, c.Type, c.Input, err)
			case got != c.want(t):
				t.Errorf("%s: %s: %s %s:\n got %s\nwant %s", filepath.Base(name), c.Description, c.Type, c.Input, got, c.want(t))
			}
		}
	}
	// "Platform=java" of gem and "Arch=i386" of rpm: required to fail as "parse" and
	// required to be lower-cased as "validate". The same spelling must parse for maven.
	if ran["contradicted"] != 2 {
		t.Errorf("%d cases contradict others of their file; 2 are known", ran["contradicted"])
	}
	t.Logf("%d files: %v", len(files), ran)
}

// contradicted: the same file says that the input is good.
func (c *purlCase) contradicted(all []purlCase) bool {
	return c.Fails && slices.ContainsFunc(all, func(o purlCase) bool {
		return !o.Fails && o.Type == "validate" && string(o.Input) == string(c.Input)
	})
}

func TestPURLRefused(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "pkg:", "pkg:npm", "pkg:npm/", "npm/a@1", "pkg:npm/a b@1", "pkg:npm/a\tb", "pkg:npm/ä", "pkg:npm/a%0ab",
		"pkg:npm/a%00", "pkg:npm/a@%ff", "pkg:npm/a%2", "pkg:npm/a%zz", "pkg:golang/a%2fb/c", "pkg:golang/a%2Fb/c@1",
		"pkg:npm/a@1#../../etc/passwd", "pkg:npm/a@1#a/./b", "pkg:npm/a@1#%2e%2e/x", "pkg:npm/a?k%20=v", "pkg:npm/a?x=1&x=2",
		"pkg:npm/a?X=1&x=2", "pkg:git/host/%2f/a", "pkg:npm/a\u202eb", "pkg:npm/" + strings.Repeat("a", MaxPURLBytes),
		"pkg:npm/" + strings.Repeat("%20", MaxPURLBytes/3), "PKG%3anpm/a",
	} {
		if p, err := ParsePURL(s); refusal.CodeOf(err) != CodePURLInvalid {
			t.Errorf("%.60q: %v, %v", s, p, err)
		}
	}
}

func TestNewPURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ typ, namespace, name, version, want string }{
		{"npm", "", "@Scope/name", "1.0.0", "pkg:npm/%40Scope/name@1.0.0"},
		{"npm", "@scope", "name", "", "pkg:npm/%40scope/name"},
		{"golang", "", "github.com/BurntSushi/toml", "v1.6.0", "pkg:golang/github.com/burntsushi/toml@v1.6.0"},
		{"golang", "", "stdlib", "1.26.8", "pkg:golang/stdlib@1.26.8"},
		{"golang", "", "gopkg.in/yaml.v3", "v3.0.0+incompatible", "pkg:golang/gopkg.in/yaml.v3@v3.0.0%2Bincompatible"},
		{"pypi", "", "Zope.Interface_x", "1.0", "pkg:pypi/zope.interface-x@1.0"},
		{"maven", "", "org.apache.commons:io", "1", "pkg:maven/org.apache.commons/io@1"},
		{"deb", "debian", "libstdc++6", "1:12.2.0-14", "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14"},
		{"composer", "", "Symfony/Console", "v6", "pkg:composer/symfony/console@v6"},
		{"generic", "", "a/b", "", "pkg:generic/a%2Fb"},
	} {
		got, err := NewPURL(c.typ, c.namespace, c.name, c.version, "arch", "")
		if err != nil || got != c.want {
			t.Errorf("%s %s %s: %q, %v; want %q", c.typ, c.name, c.version, got, err, c.want)
		}
	}
	for _, c := range [][4]string{
		{"npm", "", "", "1"}, {"", "", "a", "1"}, {"n pm", "", "a", "1"}, {"npm", "a//b", "c", "1"}, {"npm", "/a", "c", "1"},
		{"npm", "", "a\xff", "1"}, {"npm", "", "a\nb", "1"}, {"npm", "", "a", strings.Repeat("1", MaxPURLBytes)},
	} {
		if got, err := NewPURL(c[0], c[1], c[2], c[3]); refusal.CodeOf(err) != CodePURLInvalid {
			t.Errorf("%q: %q, %v", c, got, err)
		}
	}
	if _, err := NewPURL("npm", "", "a", "1", "arch"); refusal.CodeOf(err) != CodePURLInvalid {
		t.Errorf("a qualifier without value: %v", err)
	}
}

func TestWithoutVersion(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"pkg:deb/debian/curl@7.50.3-1?arch=i386&distro=jessie": "pkg:deb/debian/curl",
		"pkg:npm/%40babel/core@7.0.0#lib":                      "pkg:npm/%40babel/core",
		"pkg:pypi/zope.interface@5.0":                          "pkg:pypi/zope-interface",
		"pkg:pypi/Zope_Interface@5.0":                          "pkg:pypi/zope-interface",
		"pkg:git/codeberg.org/forgejo/forgejo@abc":             "pkg:git/codeberg.org/forgejo/forgejo",
	} {
		if p, err := ParsePURL(in); err != nil || p.WithoutVersion() != want {
			t.Errorf("%s: %s, %v; want %s", in, p.WithoutVersion(), err, want)
		}
	}
}

// FuzzParsePURL: what is accepted has one canonical spelling, which says the same.
func FuzzParsePURL(f *testing.F) {
	for _, s := range []string{
		"pkg:npm/%40angular/animation@12.3.1", "pkg:Maven/org.apache/x@1?repositorY_url=https://a/b&type=pom", "pkg:git/a/b/c@1#x/y",
		"pkg:golang/github.com/a/b/v2@v2.0.0#cmd", "pkg://npm//a@1", "pkg:deb/debian/libstdc%2B%2B6@1:12?arch=amd64", "pkg:a/b@@@1",
		"pkg:huggingface/A/B@ABC", "pkg:cpan/A/B::C", "pkg:npm/@a/b@1@2", "pkg:git/%2f", "pkg:mlflow/A?repository_url=https://x.databricks.com",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePURL(s)
		if err != nil {
			if refusal.CodeOf(err) != CodePURLInvalid {
				t.Fatalf("%q: no code: %v", s, err)
			}
			return
		}
		canonical := p.String()
		again, err := ParsePURL(canonical)
		if err != nil || !reflect.DeepEqual(again, p) || again.String() != canonical {
			t.Fatalf("%q: %+v is spelt %q, which is %+v, %v", s, p, canonical, again, err)
		}
		if key, err := ParsePURL(p.WithoutVersion()); err != nil && p.Type != "julia" || err == nil && key.Version != "" {
			t.Fatalf("%q: key %q: %v", s, p.WithoutVersion(), err)
		}
	})
}

func (c *purlCase) run(t *testing.T) (string, error) {
	t.Helper()
	if c.Type == "build" {
		var in purlParts
		mustUnmarshal(t, c.Input, &in)
		return in.build()
	}
	var in string
	mustUnmarshal(t, c.Input, &in)
	p, err := ParsePURL(in)
	if err != nil || c.Type != "parse" {
		return p.String(), err
	}
	out := purlParts{Type: &p.Type, Namespace: orNil(p.Namespace), Name: orNil(p.Name), Version: orNil(p.Version), Subpath: orNil(p.Subpath)}
	for _, q := range p.Qualifiers {
		if out.Qualifiers == nil {
			out.Qualifiers = map[string]string{}
		}
		out.Qualifiers[q.Key] = q.Value
	}
	text, err := json.Marshal(out)
	return string(text), err
}

func (in *purlParts) build() (string, error) {
	var qualifiers []string
	for k, v := range in.Qualifiers {
		qualifiers = append(qualifiers, k, v)
	}
	s, err := NewPURL(value(in.Type), value(in.Namespace), value(in.Name), value(in.Version), qualifiers...)
	if err != nil || in.Subpath == nil {
		return s, err
	}
	// Nothing that Assay finds has a subpath, so NewPURL takes none.
	p, err := ParsePURL(s)
	p.Subpath = *in.Subpath
	return p.String(), err
}

// want is the expected output in the form that run gives.
func (c *purlCase) want(t *testing.T) string {
	t.Helper()
	if c.Type == "parse" {
		var out purlParts
		mustUnmarshal(t, c.Output, &out)
		text, _ := json.Marshal(out)
		return string(text)
	}
	var s string
	mustUnmarshal(t, c.Output, &s)
	return s
}

func mustUnmarshal(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
