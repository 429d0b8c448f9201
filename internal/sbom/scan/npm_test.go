package scan

import (
	"fmt"
	"strings"
	"testing"
)

func TestIsNPMPackage(t *testing.T) {
	t.Parallel()
	for p, want := range map[string]bool{
		"package/package.json":                                        true,
		"node_modules/a/package.json":                                 true,
		"node_modules/@s/a/package.json":                              true,
		"srv/app/node_modules/a/node_modules/@s/b/package.json":       true,
		"node_modules/.pnpm/a@1.0.0/node_modules/a/package.json":      true,
		"node_modules/.store/a@1-x/node_modules/@s/a/package.json":    true,
		"usr/lib/node_modules/npm/node_modules/abbrev/package.json":   true,
		"node_modules/electron/resources/node_modules/x/package.json": true,
		"node_modules/a/test/node_modules/b/package.json":             true,
		"node_modules/a/test/fixtures/x/node_modules/b/package.json":  true,
		"node_modules/.a/package.json":                                true,
		"node_modules/@s/package.json":                                true,

		"package.json":                        false,
		"packages/a/package.json":             false,
		"node_modules/package.json":           false,
		"node_modules/a/esm/package.json":     false,
		"node_modules/@s/a/dist/package.json": false,
		"node_modules/a/package.json.bak":     false,
		"xnode_modules/a/package.json":        false,
	} {
		if got := isNPMPackage(p); got != want {
			t.Errorf("%s: %v", p, got)
		}
	}
}

func TestNodeModules(t *testing.T) {
	t.Parallel()
	readFiles(t, npmReaders(), map[string]string{
		"app/package.json":                                    `{"name":"app","version":"1.0.0","dependencies":{"a":"^1"},"devDependencies":{"@s/tool":"*"}}`,
		"app/node_modules/a/package.json":                     `{"name":"a","version":"1.2.3","license":"MIT","dependencies":{"b":"^2","absent":"1"}}`,
		"app/node_modules/a/esm/package.json":                 `{"type":"module"}`,
		"app/node_modules/a/node_modules/b/package.json":      `{"name":"b","version":"2.0.0","optionalDependencies":{"c":"*"},"_integrity":"sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="}`,
		"app/node_modules/b/package.json":                     `{"name":"b","version":"1.0.0","peerDependencies":{"a":"*"}}`,
		"app/node_modules/c/package.json":                     "\ufeff" + `{"name":"c","version":"v3.0.0-rc.1+build","licenses":[{"type":"MIT"},{"type":"Apache-2.0"}]}`,
		"app/node_modules/@s/tool/package.json":               `{"name":"@s/tool","version":"0.1.0","license":{"type":"ISC","url":"https://x"},"dependencies":{"b":"1"}}`,
		"app/node_modules/alias/package.json":                 `{"name":"real","version":"9.0.0","license":"SEE LICENSE IN LICENSE.md"}`,
		"app/node_modules/a/test/node_modules/f/package.json": `{"name":"fixture","version":"1.0.0"}`,
		"app/node_modules/nameless/package.json":              `{"version":"1.0.0"}`,
		"app/node_modules/odd/package.json":                   `{"name":["odd"],"version":1,"dependencies":[]}`,
		"app/node_modules/.cache/package.json":                `{"type":"module"}`,
		"app/node_modules/.dot/package.json":                  `{"name":"hidden","version":"1.0.0"}`,
		// Packages are called like folders of tests, too.
		"app/node_modules/test/package.json":                                 `{"name":"test","version":"3.3.0"}`,
		"app/node_modules/test/node_modules/minimist/package.json":           `{"name":"minimist","version":"0.0.8"}`,
		"app/node_modules/@fixtures/spec/node_modules/lodash/package.json":   `{"name":"lodash","version":"4.17.20"}`,
		"app/node_modules/a/spec/node_modules/g/node_modules/h/package.json": `{"name":"h","version":"1.0.0"}`,
	}).want(
		"a@1.2.3 required ! >b@2.0.0 (MIT)",
		"b@2.0.0 required >c@3.0.0-rc.1%2Bbuild SHA-1:da39a3ee",
		"b@1.0.0 required >a@1.2.3",
		"c@3.0.0-rc.1%2Bbuild required (Apache-2.0 OR MIT)",
		"%40s/tool@0.1.0 required ! >b@1.0.0 (ISC)",
		"real@9.0.0 required (SEE LICENSE IN LICENSE.md)",
		"fixture@1.0.0 excluded",
		"nameless@1.0.0 required",
		"odd required",
		"hidden@1.0.0 required",
		"test@3.3.0 required",
		"minimist@0.0.8 required",
		"lodash@4.17.20 required",
		"h@1.0.0 excluded",
	)
}

func TestNodeModulesMalformed(t *testing.T) {
	t.Parallel()
	got := readTree(t, mapTree(map[string]string{
		"node_modules/a/package.json":  `{"name":"a","version":"1.0.0"`,
		"node_modules/b/package.json":  `{"name":"b","version":"1.0.0"}`,
		"node_modules/.e/package.json": `{"name":".e","version":"1.0.0"}`,
	}), npmReaders())
	got.want("b@1.0.0 required")
	if len(got.errors) != 2 || !strings.HasPrefix(got.errors[1], "node_modules/a/package.json: not JSON") ||
		got.errors[0] != `node_modules/.e/package.json: ".e" is no name of a package` {
		t.Errorf("errors: %q", got.errors)
	}
}

// The store of pnpm: each package beside what it depends on. Links are files here, as
// they look through a tree that follows them.
func TestNodeModulesOfPNPM(t *testing.T) {
	t.Parallel()
	b := `{"name":"b","version":"2.0.0"}`
	a := `{"name":"a","version":"1.0.0","dependencies":{"b":"2"}}`
	got := readFiles(t, npmReaders(), map[string]string{
		"package.json":                `{"dependencies":{"b":"1","c":"1"}}`,
		"node_modules/b/package.json": `{"name":"b","version":"1.0.0"}`,
		"node_modules/.pnpm/a@1.0.0/node_modules/a/package.json": a,
		"node_modules/.pnpm/a@1.0.0/node_modules/b/package.json": b,
		"node_modules/.pnpm/b@2.0.0/node_modules/b/package.json": b,
		"node_modules/.pnpm/b@1.0.0/node_modules/b/package.json": `{"name":"b","version":"1.0.0"}`,
	})
	got.want(
		"a@1.0.0 required >b@2.0.0",
		"b@1.0.0 required !",
		"b@1.0.0 required !",
		"b@2.0.0 required",
		"b@2.0.0 required",
	)
}

func TestPublishedNPMPackage(t *testing.T) {
	t.Parallel()
	readFiles(t, npmReaders(), map[string]string{
		"package/package.json":                    `{"name":"@s/pub","version":"1.0.0","license":"(MIT OR Apache-2.0)","dependencies":{"inner":"1","outer":"1"},"devDependencies":{"x":"1"}}`,
		"package/node_modules/inner/package.json": `{"name":"inner","version":"1.0.1"}`,
		"package/test/package.json":               `{"name":"no","version":"1.0.0"}`,
	}).want(
		"%40s/pub@1.0.0 required ! >inner@1.0.1 (MIT OR Apache-2.0)",
		"inner@1.0.1 required !",
	)
}

func TestNPMNames(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", ".", ".bin", "@", "@s", "@s/", "@/x", "a/b", "@s/a/b", "a b", "a\x00", `a\b`, strings.Repeat("a", 215)} {
		if p := npmPkg(bad, "1.0.0"); p != nil {
			t.Errorf("%q is taken as a name: %s", bad, p.PURL)
		}
	}
	for _, bad := range []string{"", " ", "1 0", "1\n"} {
		if p := npmPkg("a", bad); p != nil && bad != "1\n" {
			t.Errorf("%q is taken as a version: %s", bad, p.PURL)
		}
	}
	if p := npmPkg("@babel/core", "7.0.0"); p.PURL != "pkg:npm/%40babel/core@7.0.0" || p.Group != "@babel" || p.Name != "core" {
		t.Errorf("%+v", p.Component)
	}
}

func TestIntegrityHashes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                  "[]",
		"sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=": "[{SHA-1 da39a3ee5e6b4b0d3255bfef95601890afd80709}]",
		"md5-1B2M2Y8AsgTpgAmY7PhCfg==?x  sha1-AAAA": "[{MD5 d41d8cd98f00b204e9800998ecf8427e}]",
		"sha512-!!! sha9-AAAA sha256":               "[]",
	} {
		if got := fmt.Sprint(integrityHashes(in)); got != want {
			t.Errorf("%q: %s", in, got)
		}
	}
}

func FuzzNPMPackage(f *testing.F) {
	f.Add([]byte(`{"name":"a","version":"1.0.0","license":[{"type":"MIT"},"ISC",{}],"dependencies":{"b":1}}`))
	f.Add([]byte(`{"name":"@s/a","version":"=1.0.0","licenses":{"url":"x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzFile(t, npmReaders(), "node_modules/a/package.json", data)
	})
}

// fuzzFile reads one file twice: it never panics, gives the same both times, and every
// finding can be named.
func fuzzFile(t *testing.T, all []reader, p string, data []byte) {
	t.Helper()
	files := map[string]string{p: string(data)}
	once, again := readTree(t, mapTree(files), all), readTree(t, mapTree(files), all)
	if a, b := once.lines(), again.lines(); fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("twice read, %q and %q", a, b)
	}
	if len(once.errors) == 0 {
		once.want(once.lines()...)
	}
}
