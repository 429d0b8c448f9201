package scan

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
)

// TestTruthGo compares with go version -m: of this test itself, of programs of this module,
// and of cosign where it is installed, which has some 250 modules; assayd has over 100.
func TestTruthGo(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binaries := []string{self}
	if installed, err := filepath.EvalSymlinks("../../../.tmp/bin/cosign"); err == nil {
		binaries = append(binaries, installed)
	} else if !testing.Short() {
		binaries = append(binaries, builtBinary(t, "assayd"))
	}
	if !testing.Short() {
		binaries = append(binaries, builtBinary(t, "assay"))
	}
	for _, path := range binaries {
		truth, main := goVersionM(t, path)
		inv := scannedFile(t, path)
		compareTruth(t, filepath.Base(path), truth, purlsOf(inv, "golang"))
		if inv.Format != "go-binary" || !inv.Complete() {
			t.Errorf("%s: format %q, incomplete %v", path, inv.Format, inv.Incomplete)
		}
		if len(inv.Root) != 1 || inv.Root[0] != main {
			t.Errorf("%s: the root is %q, not the main module %q", path, inv.Root, main)
		}
		if got := component(t, inv, main).DependsOn; len(got) != len(inv.Components)-1 {
			t.Errorf("%s: the main module depends on %d of %d", path, len(got), len(inv.Components)-1)
		}
	}
}

// goVersionM is what the go command says is in a binary, and its main module.
func goVersionM(t *testing.T, path string) (truth []string, main string) {
	t.Helper()
	out, err := exec.Command("go", "version", "-m", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	add := func(module, version string) string {
		if version == "(devel)" {
			version = ""
		}
		purl, err := sbom.NewPURL("golang", "", module, version)
		if err != nil {
			t.Fatal(err)
		}
		truth = append(truth, purl)
		return purl
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 2 && strings.HasSuffix(f[0], ":"):
			add("stdlib", strings.TrimPrefix(f[1], "go"))
		case len(f) >= 3 && f[0] == "mod":
			main = add(f[1], f[2])
		case len(f) >= 3 && f[0] == "dep":
			add(f[1], f[2])
		case len(f) >= 3 && f[0] == "=>":
			truth = truth[:len(truth)-1]
			add(f[1], f[2])
		}
	}
	return truth, main
}

// builtBinary builds a program of this module.
func builtBinary(t *testing.T, program string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), program)
	build := exec.Command("go", "build", "-o", path, "github.com/assay-build/assay/cmd/"+program)
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("go build: %v\n%s", err, out)
	}
	return path
}

// scannedFile scans a file of this machine.
func scannedFile(t testing.TB, path string) *sbom.Inventory {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	inv, err := Scan(context.Background(), Request{Artifact: file, Size: info.Size(), Name: filepath.Base(path), TempDir: dir}, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	checkScan(t, inv, dir)
	return inv
}

// smallProgram builds a program that needs nothing but the standard library.
func smallProgram(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/small\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", "small")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("go build: %v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "small"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
