package scan

import (
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func sha512Base64() string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x5a", 64)))
}

func TestDepsJSON(t *testing.T) {
	t.Parallel()
	inv := scanned(t, "app.deps.json", []byte("\xEF\xBB\xBF"+`{
  "runtimeTarget": {"name": ".NETCoreApp,Version=v8.0/linux-x64"},
  "targets": {
    ".NETCoreApp,Version=v8.0": {},
    ".NETCoreApp,Version=v8.0/linux-x64": {
      "app/1.0.0": {"dependencies": {"Serilog": "3.1.1", "Lib": "1.0.0", "runtimepack.Microsoft.NETCore.App.Runtime.linux-x64": "8.0.0"}},
      "Lib/1.0.0": {"dependencies": {"Newtonsoft.Json": "13.0.3"}},
      "runtimepack.Microsoft.NETCore.App.Runtime.linux-x64/8.0.0": {},
      "Serilog/3.1.1": {"dependencies": {"system.memory": "4.5.0", "absent": "1"}},
      "Newtonsoft.Json/13.0.3": {},
      "System.Memory/4.5.5": {}
    }
  },
  "libraries": {
    "app/1.0.0": {"type": "project", "sha512": ""},
    "Lib/1.0.0": {"type": "project", "sha512": ""},
    "runtimepack.Microsoft.NETCore.App.Runtime.linux-x64/8.0.0": {"type": "runtimepack", "sha512": ""},
    "Serilog/3.1.1": {"type": "package", "sha512": "sha512-`+sha512Base64()+`"},
    "Newtonsoft.Json/13.0.3": {"type": "package", "sha512": "sha512-tooshort"},
    "System.Memory/4.5.5": {"type": "package"}
  }
}`))
	checkOutline(t, inv, `
		pkg:nuget/Microsoft.NETCore.App.Runtime.linux-x64@8.0.0
		pkg:nuget/Newtonsoft.Json@13.0.3
		pkg:nuget/Serilog@3.1.1 SHA-512 > pkg:nuget/System.Memory@4.5.5
		pkg:nuget/System.Memory@4.5.5`,
		"pkg:nuget/Microsoft.NETCore.App.Runtime.linux-x64@8.0.0", "pkg:nuget/Newtonsoft.Json@13.0.3", "pkg:nuget/Serilog@3.1.1")
	if got := component(t, inv, "pkg:nuget/Serilog@3.1.1").Hashes[0].Value; got != strings.Repeat("5a", 64) {
		t.Errorf("hash %s", got)
	}
}

// Files of other tools have the same name.
func TestDepsJSONOfOthers(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`[{"a":1}]`, `{"js/editor.js":{"dependencies":["wp"]}}`, `"x"`, `null`} {
		inv := scanned(t, "editor.deps.json", []byte(text))
		if want := []string{"opaque "}; !slices.Equal(reasonsOf(inv), want) {
			t.Errorf("%s: %q, want %q", text, reasonsOf(inv), want)
		}
	}
	for _, text := range []string{`{`, `{"libraries":{"noversion":{"type":"package"}}}`, `{"libraries":7}`} {
		inv := scanned(t, "x.deps.json", []byte(text))
		if !slices.Contains(reasonsOf(inv), "malformed x.deps.json") {
			t.Errorf("%s: %q", text, reasonsOf(inv))
		}
	}
}

func TestPackagesLock(t *testing.T) {
	t.Parallel()
	inv := scanned(t, "packages.lock.json", []byte(`{"version": 2, "dependencies": {
  "net8.0": {
    "A": {"type": "Direct", "requested": "[1.0, )", "resolved": "1.2.0", "contentHash": "`+sha512Base64()+`", "dependencies": {"B": "1.0.0"}},
    "B": {"type": "Transitive", "resolved": "1.1.0"},
    "C": {"type": "Transitive", "resolved": "2.0.0"},
    "lib": {"type": "Project", "dependencies": {"C": "[2.0.0, )"}}
  },
  "net8.0/linux-x64": {"N": {"type": "Direct", "resolved": "1.0.0", "dependencies": {"B": "1.0.0"}}},
  "net6.0": {"B": {"type": "Transitive"}}
}}`))
	checkOutline(t, inv, `
		pkg:nuget/A@1.2.0 SHA-512 > pkg:nuget/B@1.1.0
		pkg:nuget/B@1.1.0
		pkg:nuget/C@2.0.0
		pkg:nuget/N@1.0.0 > pkg:nuget/B@1.1.0`, "pkg:nuget/A@1.2.0", "pkg:nuget/C@2.0.0", "pkg:nuget/N@1.0.0")
	if want := []string{"malformed packages.lock.json"}; !slices.Equal(reasonsOf(inv), want) {
		t.Errorf("%q, want %q", reasonsOf(inv), want)
	}
}

func TestPackagesConfig(t *testing.T) {
	t.Parallel()
	inv := scanned(t, "packages.config", []byte("\xEF\xBB\xBF"+`<?xml version="1.0" encoding="utf-8"?>
<packages><package id="jQuery" version="3.6.0" targetFramework="net48"/><package id="StyleCop" version="6.0" developmentDependency="true"/><package id="x"/></packages>`))
	checkOutline(t, inv, `
		pkg:nuget/StyleCop@6.0 excluded
		pkg:nuget/jQuery@3.6.0`)
	if len(inv.Incomplete) != 1 {
		t.Errorf("incomplete: %v", inv.Incomplete)
	}
}

// The assets of a project of NuGet itself, from the tests of osv-scalibr.
func TestTruthProjectAssets(t *testing.T) {
	t.Parallel()
	data := readTestFile(t, filepath.Join(languageData(t, "dotnet/projectassetsjson"), "valid", "project.assets.json"))
	var doc struct {
		Libraries map[string]struct{ Type, SHA512 string }
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	var truth []string
	for key, l := range doc.Libraries {
		if name, version, _ := strings.Cut(key, "/"); l.Type == "package" {
			truth = append(truth, "pkg:nuget/"+name+"@"+version)
		}
	}
	inv := scanned(t, "project.assets.json", data)
	compareTruth(t, "project.assets.json", truth, purlsOf(inv, "nuget"))
	edges, hashed := 0, 0
	for _, c := range inv.Components {
		edges += len(c.DependsOn)
		hashed += len(c.Hashes)
	}
	t.Logf("project.assets.json: %d edges, %d hashes, %d in the root", edges, hashed, len(inv.Root))
	if hashed != len(truth) || edges < len(truth)/2 || len(inv.Root) == len(truth) {
		t.Errorf("%d packages have %d hashes and %d edges; %d in the root", len(truth), hashed, edges, len(inv.Root))
	}
}

func FuzzDepsJSON(f *testing.F) {
	fuzzReaders(f, "a.deps.json", `{"targets":{"x":{"a/1":{"dependencies":{"b":"1"}}}},"libraries":{"a/1":{"type":"package"},"b/1":{"type":"package"}}}`)
}

func FuzzPackagesLock(f *testing.F) {
	fuzzReaders(f, "packages.lock.json", `{"dependencies":{"n":{"a":{"type":"Direct","resolved":"1","dependencies":{"b":"1"}},"b":{"type":"Project"}},"n/x":{"B":{"resolved":"2"}}}}`)
}

func FuzzPackagesConfig(f *testing.F) {
	fuzzReaders(f, "packages.config", `<packages><package id="a" version="1"/></packages>`)
}
