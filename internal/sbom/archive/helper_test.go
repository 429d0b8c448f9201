package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"hash/crc32"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
)

// member is one of a tar. A name with a slash at the end is a folder, a target makes a
// symbolic link, and hard a hard link.
type member struct {
	name, data, target string
	hard               string
	typ                byte
}

func tarOf(tb testing.TB, members ...member) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Mode: 0o755, Size: int64(len(m.data)), Typeflag: tar.TypeReg}
		switch {
		case m.typ != 0:
			h.Typeflag = m.typ
		case m.target != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, m.target
		case m.hard != "":
			h.Typeflag, h.Linkname = tar.TypeLink, m.hard
		case m.name[len(m.name)-1] == '/':
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func zipOf(tb testing.TB, files map[string]string) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := w.Create(name)
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := f.Write([]byte(files[name])); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func gzipped(tb testing.TB, data []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// noise does not compress, and is the same each time.
func noise(n int) []byte {
	r := rand.New(rand.NewChaCha8([32]byte{1}))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

// open opens bytes with the default limits.
func open(tb testing.TB, data []byte, name string) (*Tree, *Budget) {
	tb.Helper()
	return openWith(tb, Limits{}, data, name)
}

func openWith(tb testing.TB, l Limits, data []byte, name string) (*Tree, *Budget) {
	tb.Helper()
	b := NewBudget(l, tb.TempDir())
	tree, err := b.Open(tb.Context(), bytes.NewReader(data), int64(len(data)), name)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := tree.Close(); err != nil {
			tb.Error(err)
		}
		noRemains(tb, b)
	})
	return tree, b
}

// contents is what the tree has, by path.
func contents(tb testing.TB, tree *Tree) map[string]string {
	tb.Helper()
	got := map[string]string{}
	err := tree.Walk(func(p string, info fs.FileInfo) error {
		data, err := fs.ReadFile(tree, p)
		if err != nil {
			return err
		}
		if int64(len(data)) != info.Size() {
			tb.Errorf("%s: %d bytes, and %d said", p, len(data), info.Size())
		}
		got[p] = string(data)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

func checkContents(tb testing.TB, tree *Tree, want map[string]string) {
	tb.Helper()
	if got := contents(tb, tree); !maps.Equal(got, want) {
		tb.Errorf("the tree has %q, want %q", got, want)
	}
}

func checkReasons(tb testing.TB, b *Budget, want ...sbom.ReasonCode) {
	tb.Helper()
	if got := codesOf(b.Reasons()); !slices.Equal(got, want) {
		tb.Errorf("reasons %v, want %v", b.Reasons(), want)
	}
}

// rawZip is a member that is packed already.
type rawZip struct {
	name   string
	method uint16
	packed []byte
	data   string
}

func zipRaw(tb testing.TB, files ...rawZip) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range files {
		h := &zip.FileHeader{
			Name: f.name, Method: f.method, CRC32: crc32.ChecksumIEEE([]byte(f.data)),
			CompressedSize64: uint64(len(f.packed)), UncompressedSize64: uint64(len(f.data)),
		}
		raw, err := w.CreateRaw(h)
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := raw.Write(f.packed); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}
