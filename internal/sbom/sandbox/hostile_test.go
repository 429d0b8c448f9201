package sandbox

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/archive/archivetest"
)

// TestHostile sends through real children what is made to make them large. Package
// archive judges the formats; here it is about the process: it stays within its memory,
// leaves nothing behind, and says that something is missing.
func TestHostile(t *testing.T) {
	t.Parallel()
	if testing.Short() || raceDetector {
		t.Skip("takes a while")
	}
	for name, tt := range map[string]struct {
		name  string
		write func(io.Writer)
	}{
		"2 GiB of zeros, gzip":       {"a.tar.gz", func(out io.Writer) { zipped(out, strings.NewReader(""), 2<<30) }},
		"2 GiB of zeros, zip":        {"a.zip", func(out io.Writer) { oneZip(out, "zeros", zeros(2<<30)) }},
		"gzip of gzip, 20 deep":      {"a.gz", gzipOfGzip},
		"zip in zip, 40 deep":        {"a.zip", zipInZip},
		"600000 entries":             {"a.tar", manyEntries},
		"a lock of 60 MiB, packages": {"a.zip", func(out io.Writer) { oneZip(out, "package-lock.json", lockOf(60<<20)) }},
		"a lock of 60 MiB, brackets": {"a.zip", func(out io.Writer) {
			oneZip(out, "package-lock.json", strings.NewReader(`{"packages":`+strings.Repeat("[", 60<<20)))
		}},
		"a lock of 60 MiB, text": {"a.zip", func(out io.Writer) {
			oneZip(out, "yarn.lock", strings.NewReader(strings.Repeat("a@1:\n  version 1\n", 4<<20)))
		}},
		"a status of 60 MiB":   {"a.zip", func(out io.Writer) { oneZip(out, "var/lib/dpkg/status", statusOf(60<<20)) }},
		"yaml that multiplies": {"pnpm-lock.yaml", yamlBomb},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "artifact")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			tt.write(f)
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			var mine Usage
			w := newWorld(t, func(c *Config) { c.Observe = func(u Usage) { mine = u } })
			inv, err := w.Scan(t.Context(), path, tt.name)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d components, %v, %d MiB, %v", len(inv.Components), codes(inv), mine.Memory>>20, mine.Wall)
			if inv.Complete() && !strings.HasPrefix(name, "a lock of 60 MiB, packages") && !strings.HasPrefix(name, "a status") {
				t.Error("it is said to be complete")
			}
			if mine.Memory >= 512<<20 || mine.Wall > w.limits.Time+w.limits.Grace {
				t.Errorf("usage %+v", mine)
			}
		})
	}
}

// TestHostileArchives sends the whole set of archivetest through real children.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	if testing.Short() || raceDetector {
		t.Skip("takes a while")
	}
	cases, err := archivetest.Hostile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var used []Usage
	w := newWorld(t, func(c *Config) { c.Observe = func(u Usage) { used = append(used, u) } })
	used = nil
	for _, tt := range cases {
		inv, err := w.Scan(t.Context(), tt.Path, filepath.Base(tt.Path))
		if err != nil {
			t.Errorf("%s: %v", tt.Name, err)
			continue
		}
		got := codes(inv)
		// A scan does not read all of it: what no reader would read is declined by its
		// size before it is unpacked, and what it stopped in is malformed to its reader.
		declined := slices.Contains(got, sbom.ReasonFileSize)
		for _, want := range tt.Want {
			if !slices.Contains(got, want) && !declined {
				t.Errorf("%s: %v, want %v", tt.Name, inv.Incomplete, want)
			}
		}
		for _, code := range got {
			ofReader := len(tt.Want) > 0 && (code == sbom.ReasonMalformed || code == sbom.ReasonFileSize)
			if !slices.Contains(tt.Want, code) && code != sbom.ReasonOpaque && !ofReader {
				t.Errorf("%s: %v, want only %v", tt.Name, inv.Incomplete, tt.Want)
			}
		}
		w.empty(t)
	}
	most := func(what func(Usage) int64) int64 {
		return what(slices.MaxFunc(used, func(a, b Usage) int { return cmp.Compare(what(a), what(b)) }))
	}
	memory, wall := most(func(u Usage) int64 { return u.Memory }), most(func(u Usage) int64 { return int64(u.Wall) })
	t.Logf("%d archives: at most %d MiB, at most %v", len(cases), memory>>20, time.Duration(wall))
	if memory >= 512<<20 || time.Duration(wall) > w.limits.Time {
		t.Errorf("%d MiB, %v", memory>>20, time.Duration(wall))
	}
	if len(used) != len(cases) || len(cases) < 40 {
		t.Errorf("%d children for %d archives", len(used), len(cases))
	}
	if got := w.tell(t, "env", ""); !strings.HasPrefix(got, "TMPDIR=") {
		t.Errorf("afterwards: %q", got)
	}
}

func codes(inv *sbom.Inventory) (codes []sbom.ReasonCode) {
	for _, r := range inv.Incomplete {
		codes = append(codes, r.Code)
	}
	return codes
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func zeros(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

func zipped(out io.Writer, head io.Reader, n int64) {
	z := gzip.NewWriter(out)
	io.Copy(z, io.MultiReader(head, zeros(n)))
	z.Close()
}

func oneZip(out io.Writer, name string, data io.Reader) {
	z := zip.NewWriter(out)
	member, _ := z.Create(name)
	io.Copy(member, data)
	z.Close()
}

func gzipOfGzip(out io.Writer) {
	data := []byte("in the middle")
	for range 20 {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(data)
		z.Close()
		data = b.Bytes()
	}
	out.Write(data)
}

func zipInZip(out io.Writer) {
	data := []byte("in the middle")
	for range 40 {
		var b bytes.Buffer
		oneZip(&b, "a.zip", bytes.NewReader(data))
		data = b.Bytes()
	}
	out.Write(data)
}

func manyEntries(out io.Writer) {
	t := tar.NewWriter(out)
	for i := range 600_000 {
		t.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/package.json", i), Mode: 0o644, Typeflag: tar.TypeReg})
	}
	t.Close()
}

func lockOf(n int) io.Reader {
	var b bytes.Buffer
	b.WriteString(`{"lockfileVersion":3,"packages":{`)
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, `"node_modules/p%d":{"version":"1.0.%d","dependencies":{"p%d":"1"}},`, i, i, i+1)
	}
	b.WriteString(`"":{}}}`)
	return &b
}

func statusOf(n int) io.Reader {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "Package: p%d\nStatus: install ok installed\nVersion: 1.%d\nArchitecture: amd64\nDepends: p%d, p%d\n\n", i, i, i+1, i+2)
	}
	return &b
}

func yamlBomb(out io.Writer) {
	fmt.Fprintln(out, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]")
	for i := range 12 {
		fmt.Fprintf(out, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	fmt.Fprintln(out, "lockfileVersion: '9.0'\npackages: {x: *a12}")
}
