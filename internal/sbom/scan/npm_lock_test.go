package scan

import (
	"strings"
	"testing"
)

const lockV3 = `{
  "name": "app", "version": "1.0.0", "lockfileVersion": 3, "requires": true,
  "packages": {
    "": {"name": "app", "version": "1.0.0", "workspaces": ["packages/*"], "dependencies": {"a": "^1.0.0"}, "devDependencies": {"tool": "^1"}, "optionalDependencies": {"opt": "1"}},
    "node_modules/a": {"version": "1.0.0", "resolved": "https://registry.npmjs.org/a/-/a-1.0.0.tgz", "integrity": "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==", "license": "MIT", "dependencies": {"b": "^2", "w": "*"}, "peerDependencies": {"p": "*"}},
    "node_modules/a/node_modules/b": {"version": "2.0.0", "license": "ISC"},
    "node_modules/b": {"version": "1.0.0", "dev": true, "dependencies": {"a": "1"}},
    "node_modules/opt": {"version": "1.0.0", "optional": true},
    "node_modules/both": {"version": "1.0.0", "devOptional": true},
    "node_modules/p": {"version": "3.0.0", "peer": true},
    "node_modules/short": {"name": "@s/long", "version": "4.0.0", "dev": true},
    "node_modules/tool": {"version": "1.1.0", "dev": true, "dependencies": {"b": "1", "short": "npm:@s/long@4"}},
    "node_modules/w": {"resolved": "packages/w", "link": true},
    "packages/w": {"name": "w", "version": "0.0.0", "dependencies": {"wd": "1"}},
    "packages/w/node_modules/wd": {"version": "1.0.0"},
    "node_modules/wd": {"version": "2.0.0", "dev": true}
  }
}`

func TestNPMLockV3(t *testing.T) {
	t.Parallel()
	want := []string{
		"a@1.0.0 required ! >b@2.0.0 >p@3.0.0 (MIT) SHA-512:cf83e135",
		"b@2.0.0 required (ISC)",
		"b@1.0.0 excluded >a@1.0.0",
		"opt@1.0.0 optional !",
		"both@1.0.0 optional",
		"p@3.0.0 required",
		"%40s/long@4.0.0 excluded",
		"tool@1.1.0 excluded ! >%40s/long@4.0.0 >b@1.0.0",
		"wd@1.0.0 required !",
		"wd@2.0.0 excluded",
	}
	readFiles(t, npmReaders(), map[string]string{"package-lock.json": lockV3}).want(want...)
	readFiles(t, npmReaders(), map[string]string{"x/npm-shrinkwrap.json": lockV3, "x/package-lock.json": "broken, but nobody looks"}).want(want...)
	// A package publishes its lock by mistake; what is no package has one of its own.
	readFiles(t, npmReaders(), map[string]string{
		"node_modules/.a/package.json": "{}", "node_modules/.a/package-lock.json": lockV3, "node_modules/.a/x/npm-shrinkwrap.json": lockV3,
	}).want()
	readFiles(t, npmReaders(), map[string]string{"node_modules/a/package-lock.json": lockV3}).want(want...)
}

func TestNPMHiddenLock(t *testing.T) {
	t.Parallel()
	readFiles(t, npmReaders(), map[string]string{"node_modules/.package-lock.json": `{"lockfileVersion":3,"packages":{
		"node_modules/a":{"version":"1.0.0","dependencies":{"b":"*"}},"node_modules/b":{"version":"1.0.0"}}}`}).want(
		"a@1.0.0 required >b@1.0.0",
		"b@1.0.0 required",
	)
}

func TestNPMLockV1(t *testing.T) {
	t.Parallel()
	lock := `{"lockfileVersion": 1, "requires": true, "dependencies": {
		"a": {"version": "1.0.0", "integrity": "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "requires": {"b": "^2", "c": "1"}, "dependencies": {
			"b": {"version": "2.0.0", "requires": {"c": "1"}}}},
		"b": {"version": "1.0.0", "dev": true},
		"c": {"version": "1.0.0", "optional": true, "requires": true},
		"alias": {"version": "npm:@s/real@3.0.0"},
		"git": {"version": "git+ssh://git@github.com/x/git.git#0123abc"},
		"tar": {"version": "https://example.com/tar-4.5.6.tgz"},
		"@s/tar": {"version": "file:vendor/tar-1.0.0.tgz"},
		"folder": {"version": "file:../folder"},
		"none": null
	}}`
	want := []string{
		"a@1.0.0 required ! >b@2.0.0 >c@1.0.0 SHA-1:da39a3ee",
		"b@2.0.0 required >c@1.0.0",
		"b@1.0.0 excluded !",
		"c@1.0.0 optional",
		"%40s/real@3.0.0 required",
		"git@0123abc required",
		"tar@4.5.6 required",
		"%40s/tar@1.0.0 required",
	}
	readFiles(t, npmReaders(), map[string]string{
		"package-lock.json": lock,
		"package.json":      `{"dependencies":{"a":"1"},"devDependencies":{"b":"1"}}`,
	}).want(want...)
	for i := range want {
		want[i] = strings.Replace(want[i], " !", "", 1)
	}
	readFiles(t, npmReaders(), map[string]string{"package-lock.json": lock}).want(want...)
}

// A lock of version 2 says everything twice. Of halves that differ both count: which of them
// is installed depends on the version of npm.
func TestNPMLockV2(t *testing.T) {
	t.Parallel()
	readFiles(t, npmReaders(), map[string]string{"package-lock.json": `{"lockfileVersion":2,
		"packages":{"":{"dependencies":{"a":"1"}},"node_modules/a":{"version":"1.0.0"}},
		"dependencies":{"a":{"version":"1.0.0"},"stale":{"version":"1.0.0"}}}`}).want("a@1.0.0 required !", "stale@1.0.0 required")
	readFiles(t, npmReaders(), map[string]string{"package-lock.json": `{"lockfileVersion":2,
		"packages":{"":{"workspaces":["w"]},"node_modules/a":{"version":"1.0.0"},"node_modules/a/node_modules/b":{"version":"1.0.0"},
			"node_modules/git":{"version":"3.0.0"},"node_modules/w":{"link":true,"resolved":"w"},"w":{"version":"0.0.0"},"w/node_modules/c":{"version":"1.0.0"}},
		"dependencies":{"a":{"version":"1.0.1","dependencies":{"b":{"version":"1.0.0"}}},"git":{"version":"git+ssh://git@x/git.git#0123abc"},
			"w":{"version":"file:w","dependencies":{"c":{"version":"1.0.0"},"d":{"version":"1.0.0"}}}}}`}).want(
		"a@1.0.0 required", "a@1.0.1 required", "b@1.0.0 required", "git@3.0.0 required", "c@1.0.0 required", "d@1.0.0 required")
}

// What a lock says little of is named by what it says.
func TestNPMLockPoor(t *testing.T) {
	t.Parallel()
	readFiles(t, npmReaders(), map[string]string{"package-lock.json": `{"lockfileVersion":3,"packages":{
		"":{"workspaces":{"packages":["apps/**","!apps/x","libs/*"]}},
		"apps/a/b":{"version":"1.0.0"},
		"libs/c":{"name":"@own/c","version":"1.0.0"},
		"libs/c/d":{"version":"1.0.0"},
		"vendored/@s/e":{"version":"3.0.0"},
		"vendored/f":{"name":"g"},
		"node_modules/tarball":{"resolved":"https://registry.npmjs.org/tarball/-/tarball-1.2.3.tgz"},
		"node_modules/nothing":{},
		"node_modules/linked":{"resolved":"libs/c","link":true},
		"node_modules/away":{"resolved":"../away","link":true}
	}}`}).want(
		"d@1.0.0 required", "%40s/e@3.0.0 required", "g required",
		"tarball@1.2.3 required", "nothing required", "away required",
	)
	readFiles(t, npmReaders(), map[string]string{"package-lock.json": `{"lockfileVersion":1,"dependencies":{
		"a":{"resolved":"https://registry.npmjs.org/a/-/a-1.2.3.tgz"},"b":{},"c":{"version":"file:../c"}}}`}).want("a@1.2.3 required", "b required")
}

func TestNPMLockHostile(t *testing.T) {
	t.Parallel()
	for name, lock := range map[string]string{
		"deep v1":       strings.Repeat(`{"dependencies":{"a":`, 20_000),
		"not an object": `[]`,
		"truncated":     lockV3[:400],
	} {
		got := readTree(t, mapTree(map[string]string{"package-lock.json": lock}), npmReaders())
		if len(got.errors) != 1 {
			t.Errorf("%s: errors %q", name, got.errors)
		}
	}
	long := `{"packages":{"` + strings.Repeat("a/", 5000) + `node_modules/a":{"version":"1.0.0"},"node_modules/../../b":{"version":"1.0.0"},"../../node_modules/c":{"version":"1.0.0","dependencies":{"c":"1"}}}}`
	readFiles(t, npmReaders(), map[string]string{"package-lock.json": long}).want("c@1.0.0 required")
}

func FuzzNPMLock(f *testing.F) {
	f.Add([]byte(lockV3))
	f.Add([]byte(`{"dependencies":{"a":{"version":"1.0.0","requires":{"b":"1"},"dependencies":{"b":{"version":"npm:c@1"}}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzFile(t, npmReaders(), "package-lock.json", data) })
}
