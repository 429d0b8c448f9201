package scan

import (
	"runtime/debug"
	"slices"
	"testing"
)

func TestGoModules(t *testing.T) {
	t.Parallel()
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8 X:nocoverageredesign",
		Main:      debug.Module{Path: "example.com/Main", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "github.com/Masterminds/semver/v3", Version: "v3.2.1", Sum: "h1:x"},
			{Path: "example.com/forked", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v1.0.1-0.20240101000000-abcdefabcdef"}},
			{Path: "example.com/local", Version: "v1.0.0", Replace: &debug.Module{Path: "../local", Version: "(devel)"}},
			{Path: "example.com/old", Version: "v2.0.0+incompatible"},
		},
	}
	found, err := goModules(info)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range found {
		got = append(got, k.PURL)
	}
	want := []string{
		"pkg:golang/github.com/masterminds/semver/v3@v3.2.1",
		"pkg:golang/example.com/fork@v1.0.1-0.20240101000000-abcdefabcdef",
		"pkg:golang/example.com/local",
		"pkg:golang/example.com/old@v2.0.0%2Bincompatible",
		"pkg:golang/stdlib@1.26.8",
		"pkg:golang/example.com/main",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q\nwant %q", got, want)
	}
	main := found[len(found)-1]
	if !main.direct || main.Type != "application" || !slices.Equal(main.DependsOn, want[:5]) || main.Name != "example.com/Main" {
		t.Errorf("the main module: %+v", main)
	}
	for _, k := range found {
		if len(k.Hashes) > 0 {
			t.Errorf("%s has hashes %v: its h1: sum is none", k.PURL, k.Hashes)
		}
	}

	// Built from files, nothing brings the modules in but the artifact itself.
	info.Main = debug.Module{}
	found, err = goModules(info)
	if err != nil || len(found) != 5 || slices.ContainsFunc(found, func(k *pkg) bool { return !k.direct }) {
		t.Errorf("without main module: %d found, %v", len(found), err)
	}
	// A name that is none does not hide the others.
	info.Deps[1].Replace.Path = ""
	if found, err = goModules(info); err == nil || len(found) != 4 {
		t.Errorf("with a broken name: %d found, %v", len(found), err)
	}
}

func TestGoVersion(t *testing.T) {
	t.Parallel()
	for v, want := range map[string]string{
		"go1.26.8": "1.26.8", "devel go1.27-5a56d88 Mon": "1.27-5a56d88", "go1.20-pre3 +a813be86df": "1.20-pre3", "": "", "devel +abc": "",
	} {
		if got := goVersion(v); got != want {
			t.Errorf("goVersion(%q) = %q, want %q", v, got, want)
		}
	}
}
