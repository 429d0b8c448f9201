package scan

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
)

// TestTruthWheels reads the wheels that Debian ships for ensurepip; their names say what
// they are (PEP 427).
func TestTruthWheels(t *testing.T) {
	t.Parallel()
	wheels, _ := filepath.Glob("/usr/share/python-wheels/*.whl")
	if len(wheels) == 0 {
		if os.Getenv("ASSAY_TRUTH") == "1" {
			t.Fatal("no wheels; install Debian's python3-pip-whl and python3-setuptools-whl")
		}
		t.Skip("no wheels; install Debian's python3-pip-whl to run this test")
	}
	for _, wheel := range wheels {
		parts := strings.Split(filepath.Base(wheel), "-")
		want, err := sbom.NewPURL("pypi", "", parts[0], parts[1])
		if err != nil {
			t.Fatal(err)
		}
		inv := scanFile(t, wheel)
		compareTruth(t, filepath.Base(wheel), []string{want}, purlsOf(inv, "pypi"))
		if len(inv.Components) == 1 && len(inv.Components[0].Licenses) == 0 {
			t.Errorf("%s has no licence", want)
		}
	}
}

// TestTruthSitePackages compares with pip, on what is installed on this machine.
func TestTruthSitePackages(t *testing.T) {
	if os.Getenv("ASSAY_TRUTH") != "1" {
		t.Skip("set ASSAY_TRUTH=1 to compare with pip, which takes its time")
	}
	t.Parallel()
	folders, _ := filepath.Glob("/root/.pyenv/versions/*/lib/python3*/site-packages")
	debian, _ := filepath.Glob("/usr/lib/python3/dist-packages")
	compared := 0
	for _, dir := range append(folders, debian...) {
		out, err := exec.Command("python3", "-m", "pip", "list", "--format", "json", "--path", dir, "--disable-pip-version-check").Output()
		if err != nil {
			t.Logf("%s: no pip to ask: %v", dir, err)
			continue
		}
		var listed []struct{ Name, Version string }
		if err := json.Unmarshal(out, &listed); err != nil {
			t.Fatal(err)
		}
		if len(listed) == 0 {
			continue
		}
		var truth []string
		for _, p := range listed {
			purl, err := sbom.NewPURL("pypi", "", normalPythonName(p.Name), p.Version)
			if err != nil {
				t.Fatal(err)
			}
			truth = append(truth, purl)
		}
		inv := scanFile(t, tarOfDir(t, filepath.Dir(dir), func(p string) bool { return strings.HasPrefix(p, filepath.Base(dir)+"/") }))
		// What a package carries inside itself (setuptools/_vendor) is there, and pip does not list it.
		var found []string
		edges := 0
		for _, c := range inv.Components {
			edges += len(c.DependsOn)
			for _, at := range c.Locations {
				if strings.HasPrefix(c.PURL, "pkg:pypi/") && strings.Count(strings.TrimSuffix(strings.TrimSuffix(at, "/METADATA"), "/PKG-INFO"), "/") == 1 {
					found = append(found, c.PURL)
				}
			}
		}
		compareTruth(t, dir, truth, found)
		t.Logf("%s: %d components, %d edges", dir, len(inv.Components), edges)
		compared++
	}
	if compared == 0 {
		t.Skip("no installed Python packages here")
	}
}
