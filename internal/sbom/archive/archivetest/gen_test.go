package archivetest

import (
	"bytes"
	"os"
	"slices"
	"testing"
)

// TestHostile: every case has a name of its own, reasons in order, and the same bytes each
// time.
func TestHostile(t *testing.T) {
	t.Parallel()
	set := Hostile
	if testing.Short() {
		set = Small
	}
	first, err := set(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	second, err := set(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for i, c := range first {
		if names[c.Name] {
			t.Errorf("%s is there twice", c.Name)
		}
		names[c.Name] = true
		if !slices.IsSorted(c.Want) {
			t.Errorf("%s: reasons out of order: %q", c.Name, c.Want)
		}
		st, err := os.Stat(c.Path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() > 64<<20 {
			continue
		}
		a, err := os.ReadFile(c.Path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(second[i].Path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s is not the same twice", c.Name)
		}
	}
}
