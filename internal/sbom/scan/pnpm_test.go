package scan

import (
	"testing"
)

const pnpmV5 = `lockfileVersion: 5.4
specifiers:
  a: ^1.0.0
dependencies:
  a: 1.0.0_c@3.0.0
  git: github.com/x/git/0123
optionalDependencies:
  opt: 1.0.0
devDependencies:
  '@s/tool': 1.10.0
  alias: /real/4.0.0
  own: link:../own
packages:
  /a/1.0.0_c@3.0.0:
    resolution: {integrity: sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=}
    peerDependencies: {c: '3'}
    dependencies:
      '@s/b': 2.0.0
      c: 3.0.0
    dev: false
  /@s/b/2.0.0:
    resolution: {integrity: sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=}
    dev: false
  registry.example.com/c/3.0.0:
    dev: false
  /c/3.0.0:
    resolution: {}
  /opt/1.0.0:
    optional: true
  /@s/tool/1.10.0:
    dev: true
    dependencies:
      c: 3.0.0
  /real/4.0.0:
    dev: true
  github.com/x/git/0123:
    resolution: {tarball: https://x}
    name: git
    version: 1.10
  /foo/bar:
    dev: true
`

func TestPNPMv5(t *testing.T) {
	t.Parallel()
	readFiles(t, npmReaders(), map[string]string{"pnpm-lock.yaml": pnpmV5}).want(
		"a@1.0.0 required ! >%40s/b@2.0.0 >c@3.0.0 SHA-1:da39a3ee",
		"%40s/b@2.0.0 required SHA-1:da39a3ee",
		"c@3.0.0 required",
		"c@3.0.0",
		"opt@1.0.0 optional !",
		"%40s/tool@1.10.0 excluded ! >c@3.0.0",
		"real@4.0.0 excluded !",
		"git@1.10 required !",
	)
}

const pnpmV6 = `lockfileVersion: '6.0'
importers:
  .:
    dependencies:
      a: {specifier: ^1.0.0, version: 1.0.0(c@3.0.0)}
  packages/x:
    devDependencies:
      '@s/tool': {specifier: '*', version: 1.0.0}
packages:
  /a@1.0.0(c@3.0.0):
    resolution: {integrity: sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=}
    dependencies:
      c: 3.0.0
    optionalDependencies:
      '@s/b': 2.0.0
  /c@3.0.0: {}
  /@s/b@2.0.0: {optional: true}
  /@s/tool@1.0.0:
    dev: true
    dependencies: {alias: /c@3.0.0}
`

func TestPNPMv6(t *testing.T) {
	t.Parallel()
	readFiles(t, npmReaders(), map[string]string{"pnpm-lock.yaml": pnpmV6}).want(
		"a@1.0.0 required ! >%40s/b@2.0.0 >c@3.0.0 SHA-1:da39a3ee",
		"c@3.0.0 required",
		"%40s/b@2.0.0 optional",
		"%40s/tool@1.0.0 excluded ! >c@3.0.0",
	)
}

const pnpmV9 = `lockfileVersion: '9.0'
importers:
  .:
    packageManagerDependencies:
      pnpm: {specifier: 11.0.0, version: 11.0.0}
packages:
  pnpm@11.0.0:
    resolution: {integrity: sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=}
---
lockfileVersion: '9.0'
importers:
  .:
    dependencies:
      a: {specifier: ^1.0.0, version: 1.0.0(c@3.0.0)}
      git: {specifier: 'github:x/git', version: https://codeload.github.com/x/git/tar.gz/0123}
    devDependencies:
      alias: {specifier: 'npm:@s/b@2', version: '@s/b@2.0.0'}
packages:
  a@1.0.0:
    resolution: {integrity: sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=}
  c@3.0.0:
    resolution: {integrity: sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=}
  '@s/b@2.0.0':
    resolution: {integrity: sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=}
  git@https://codeload.github.com/x/git/tar.gz/0123:
    resolution: {tarball: https://codeload.github.com/x/git/tar.gz/0123}
    version: 6.0.1
snapshots:
  a@1.0.0(c@3.0.0):
    dependencies:
      c: 3.0.0
  c@3.0.0: {}
  '@s/b@2.0.0':
    dependencies:
      a: 1.0.0(c@3.0.0)
  git@https://codeload.github.com/x/git/tar.gz/0123: {}
`

func TestPNPMv9(t *testing.T) {
	t.Parallel()
	want := []string{
		"pnpm@11.0.0 SHA-1:da39a3ee",
		"a@1.0.0 required ! >c@3.0.0 SHA-1:da39a3ee",
		"c@3.0.0 required SHA-1:da39a3ee",
		"%40s/b@2.0.0 excluded ! >a@1.0.0 SHA-1:da39a3ee",
		"git@6.0.1 required !",
	}
	readFiles(t, npmReaders(), map[string]string{"pnpm-lock.yaml": pnpmV9}).want(want...)
	readFiles(t, npmReaders(), map[string]string{"node_modules/.pnpm/lock.yaml": pnpmV9}).want(want...)
	readFiles(t, npmReaders(), map[string]string{"node_modules/.x/pnpm-lock.yaml": pnpmV9, "node_modules/.x/package.json": "{}", "lock.yaml": pnpmV9}).want()
}

func TestPNPMMalformed(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"not YAML":   "packages: [",
		"wrong type": "packages: 7",
		"aliases":    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\npackages: *d\n",
	} {
		got := readTree(t, mapTree(map[string]string{"pnpm-lock.yaml": text}), npmReaders())
		if got.want(); len(got.errors) != 1 {
			t.Errorf("%s: errors %q", name, got.errors)
		}
	}
}

func FuzzPNPMLock(f *testing.F) {
	f.Add([]byte(pnpmV5))
	f.Add([]byte(pnpmV6))
	f.Add([]byte(pnpmV9))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzFile(t, npmReaders(), "pnpm-lock.yaml", data) })
}
