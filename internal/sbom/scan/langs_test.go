package scan

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
)

// outline tells a component in one line: what it is, and what was said of it.
//
//	pkg:cargo/a@1 excluded application {MIT} SHA-256 > pkg:cargo/b@2
func outline(inv *sbom.Inventory) []string {
	var lines []string
	for _, c := range inv.Components {
		words := []string{c.PURL}
		for _, w := range []string{c.Scope, c.Type} {
			if w != "" {
				words = append(words, w)
			}
		}
		for _, l := range c.Licenses {
			words = append(words, "{"+l+"}")
		}
		for _, h := range c.Hashes {
			words = append(words, h.Algorithm)
		}
		if len(c.DependsOn) > 0 {
			words = append(words, "> "+strings.Join(c.DependsOn, " "))
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return lines
}

// checkOutline compares a whole inventory. Want is text: a line for each component.
func checkOutline(t testing.TB, inv *sbom.Inventory, want string, root ...string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(want) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if got := outline(inv); !slices.Equal(got, lines) {
		t.Errorf("components:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
	if len(root) > 0 && !slices.Equal(inv.Root, root) {
		t.Errorf("root %q, want %q", inv.Root, root)
	}
}

// reasonsOf are the codes and paths of what is missing.
func reasonsOf(inv *sbom.Inventory) []string {
	var out []string
	for _, r := range inv.Incomplete {
		out = append(out, string(r.Code)+" "+r.Path)
	}
	return out
}

// languageData is a folder of the tests of osv-scalibr, which have real files of many
// package managers.
func languageData(t testing.TB, folder string) string {
	t.Helper()
	return moduleDir(t, "github.com/google/osv-scalibr", filepath.Join("extractor/filesystem/language", folder, "testdata"))
}

// moduleDir is a folder of a module's source in the module cache.
func moduleDir(t testing.TB, module, folder string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	dir := filepath.Join(strings.TrimSpace(string(out)), folder)
	if _, statErr := os.Stat(dir); err != nil || statErr != nil {
		t.Skipf("the source of %s is not here: %v", module, err)
	}
	return dir
}

func readTestFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// fuzzReaders feeds bytes to every reader of a language that wants a file of that name:
// whatever they are, the scan ends with a valid inventory, and twice with the same one.
func fuzzReaders(f *testing.F, name string, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		first, second := scanned(t, name, data), scanned(t, name, data)
		for _, r := range first.Incomplete {
			if r.Code == sbom.ReasonFailed {
				t.Errorf("a reader failed: %+v", r)
			}
		}
		if !slices.Equal(outline(first), outline(second)) || !slices.Equal(first.Root, second.Root) {
			t.Errorf("two scans of the same bytes differ:\n%s\n%s", outline(first), outline(second))
		}
	})
}
