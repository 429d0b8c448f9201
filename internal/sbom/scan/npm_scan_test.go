package scan

import (
	"reflect"
	"slices"
	"testing"
)

// Artifacts as they are uploaded: what npm pack, pip wheel and sdist make, and an archive
// that holds such archives. What a lock says and what is installed become one component.
func TestScanPublished(t *testing.T) {
	t.Parallel()
	wheel := zipOf(t, inMemory{
		"a/__init__.py":            "",
		"a-1.0.dist-info/METADATA": "Name: A\nVersion: 1.0\nLicense-Expression: MIT\n",
	})
	tgz := gzipped(t, tarOf(t, inMemory{"package/package.json": `{"name":"@s/pub","version":"1.0.0"}`}))
	sdist := gzipped(t, tarOf(t, inMemory{"b-2.0/PKG-INFO": "Name: b\nVersion: 2.0\n", "b-2.0/setup.py": "# b"}))
	app := inMemory{
		"package.json":                                          `{"dependencies":{"x":"1"}}`,
		"package-lock.json":                                     `{"lockfileVersion":3,"packages":{"":{"dependencies":{"x":"1"}},"node_modules/x":{"version":"1.0.0","integrity":"sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=","dependencies":{"y":"1"}},"node_modules/y":{"version":"1.0.0","dev":true},"node_modules/z":{"version":"1.0.0","dev":true}}}`,
		"node_modules/x/package.json":                           `{"name":"x","version":"1.0.0","license":"MIT","dependencies":{"y":"1"}}`,
		"node_modules/y/package.json":                           `{"name":"y","version":"1.0.0"}`,
		"node_modules/.pnpm/link":                               "-> ../x",
		"wheels/a-1.0-py3-none-any.whl":                         string(wheel),
		"vendor/pub-1.0.0.tgz":                                  string(tgz),
		"vendor/broken/requirements.txt":                        "c==3.0\n",
		"lib/python3.11/site-packages/a-1.0.dist-info/METADATA": "Name: a\nVersion: 1.0\n",
	}
	tests := []struct {
		name string
		data []byte
		want []string
	}{
		{"a-1.0-py3-none-any.whl", wheel, []string{"pkg:pypi/a@1.0"}},
		{"pub-1.0.0.tgz", tgz, []string{"pkg:npm/%40s/pub@1.0.0"}},
		{"b-2.0.tar.gz", sdist, []string{"pkg:pypi/b@2.0"}},
		{"uv.lock", []byte(uvText), []string{"pkg:pypi/a@1.0", "pkg:pypi/b@1.0", "pkg:pypi/c@1", "pkg:pypi/c@2", "pkg:pypi/opt@1.0", "pkg:pypi/speed@1.0", "pkg:pypi/tool@1.0"}},
		{"yarn.lock", []byte("a@1:\n  version \"1.0.0\"\n"), []string{"pkg:npm/a@1.0.0"}},
		{"app.tar", tarOf(t, app), []string{
			"pkg:npm/%40s/pub@1.0.0", "pkg:npm/x@1.0.0", "pkg:npm/y@1.0.0", "pkg:npm/z@1.0.0", "pkg:pypi/a@1.0", "pkg:pypi/c@3.0",
		}},
	}
	for _, test := range tests {
		inv := scanned(t, test.name, test.data)
		if got := append(purlsOf(inv, "npm"), purlsOf(inv, "pypi")...); !slices.Equal(got, test.want) || !inv.Complete() {
			t.Errorf("%s: %q, incomplete %v", test.name, got, inv.Incomplete)
		}
		if again := scanned(t, test.name, test.data); !reflect.DeepEqual(inv, again) {
			t.Errorf("%s: two scans differ", test.name)
		}
	}

	inv := scanned(t, "app.tar", tarOf(t, app))
	x := component(t, inv, "pkg:npm/x@1.0.0")
	if !slices.Equal(x.DependsOn, []string{"pkg:npm/y@1.0.0"}) || !slices.Equal(x.Licenses, []string{"MIT"}) || len(x.Hashes) != 1 ||
		!slices.Equal(x.Locations, []string{"node_modules/x/package.json", "package-lock.json"}) || x.Scope != scopeRequired {
		t.Errorf("%+v", x)
	}
	// y is installed, whatever the lock calls it; z is not.
	if y, z := component(t, inv, "pkg:npm/y@1.0.0"), component(t, inv, "pkg:npm/z@1.0.0"); y.Scope != scopeRequired || z.Scope != scopeExcluded {
		t.Errorf("scopes %q and %q", y.Scope, z.Scope)
	}
	a := component(t, inv, "pkg:pypi/a@1.0")
	if !slices.Equal(a.Locations, []string{"lib/python3.11/site-packages/a-1.0.dist-info/METADATA", "wheels/a-1.0-py3-none-any.whl!/a-1.0.dist-info/METADATA"}) {
		t.Errorf("%+v", a)
	}
	if want := []string{"pkg:npm/%40s/pub@1.0.0", "pkg:npm/x@1.0.0", "pkg:npm/z@1.0.0", "pkg:pypi/a@1.0", "pkg:pypi/c@3.0"}; !slices.Equal(inv.Root, want) {
		t.Errorf("root %q", inv.Root)
	}
}

// One broken package file takes nothing else with it, and the inventory says so.
func TestScanBrokenManifest(t *testing.T) {
	t.Parallel()
	inv := scanned(t, "app.tar", tarOf(t, inMemory{
		"node_modules/x/package.json": `{"name":`,
		"node_modules/y/package.json": `{"name":"y","version":"1.0.0"}`,
		"uv.lock":                     "package = [[[[",
	}))
	if got := purlsOf(inv, "npm"); !slices.Equal(got, []string{"pkg:npm/y@1.0.0"}) {
		t.Errorf("%q", got)
	}
	if len(inv.Incomplete) != 2 || inv.Incomplete[0].Path != "node_modules/x/package.json" || inv.Incomplete[1].Path != "uv.lock" {
		t.Errorf("%+v", inv.Incomplete)
	}
}
