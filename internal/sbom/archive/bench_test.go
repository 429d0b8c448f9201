package archive

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// tarFile writes a tar of n members of size bytes, which are holes on the disk.
func tarFile(b *testing.B, n int, size int64) (*os.File, int64) {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "a.tar"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	off := int64(0)
	for i := range n {
		var head bytes.Buffer
		h := &tar.Header{Name: fmt.Sprintf("node_modules/package-%d/lib/file%d.js", i/40, i), Mode: 0o644, Size: size, Typeflag: tar.TypeReg}
		if err := tar.NewWriter(&head).WriteHeader(h); err != nil {
			b.Fatal(err)
		}
		if _, err := f.WriteAt(head.Bytes(), off); err != nil {
			b.Fatal(err)
		}
		off += int64(head.Len()) + (size+511)/512*512
	}
	off += 1024
	if err := f.Truncate(off); err != nil {
		b.Fatal(err)
	}
	return f, off
}

// BenchmarkTar opens and walks a tar of 40,000 members and 358 MB.
func BenchmarkTar(b *testing.B) {
	f, size := tarFile(b, 40_000, 8300)
	b.ReportAllocs()
	for b.Loop() {
		walkAll(b, f, size, "a.tar", 40_000)
	}
}

func walkAll(b *testing.B, r io.ReaderAt, size int64, name string, want int) {
	b.Helper()
	tree, err := NewBudget(Limits{}, b.TempDir()).Open(b.Context(), r, size, name)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	err = tree.Walk(func(string, fs.FileInfo) error { n++; return nil })
	if err != nil || n != want {
		b.Fatal(n, err)
	}
	if err := tree.Close(); err != nil {
		b.Fatal(err)
	}
}

// layerGzip is a compressed layer: a tar of members that compress about as programs do.
func layerGzip(b *testing.B, n int) (packed []byte, unpacked int64) {
	b.Helper()
	random := noise(64 << 10)
	piece := make([]byte, 0, 200<<10)
	for len(piece) < 200<<10 {
		piece = append(piece, random[len(piece)/3%60_000:][:1000]...)
		piece = fmt.Appendf(piece, "the text that is between, line %d\n", len(piece))
	}
	var members []member
	for i := range n {
		members = append(members, member{name: fmt.Sprintf("usr/lib/%d/file%d", i/30, i), data: string(piece[i%1000:])})
	}
	data := tarOf(b, members...)
	return gzipped(b, data), int64(len(data))
}

// BenchmarkGzipLayer opens a compressed tar; BenchmarkGzipAlone is the decompressor by
// itself, which is what it is to be compared with.
func BenchmarkGzipLayer(b *testing.B) {
	packed, unpacked := layerGzip(b, 500)
	b.SetBytes(unpacked)
	b.ReportAllocs()
	for b.Loop() {
		walkAll(b, bytes.NewReader(packed), int64(len(packed)), "a.tar.gz", 500)
	}
}

func BenchmarkGzipAlone(b *testing.B) {
	packed, unpacked := layerGzip(b, 500)
	b.SetBytes(unpacked)
	for b.Loop() {
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, z); err != nil || n != unpacked {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkImage merges the layers of an image of 20,000 files, digests included.
func BenchmarkImage(b *testing.B) {
	var layers [][]byte
	for l := range 4 {
		var members []member
		for i := range 5000 {
			members = append(members, member{name: fmt.Sprintf("usr/share/%d/%d/file%d", l, i/50, i), data: "content"})
		}
		layers = append(layers, gzipped(b, tarOf(b, members...)))
	}
	data := layoutOf(b, imageSpec{platform: "linux/amd64", layers: layers})
	b.ReportAllocs()
	for b.Loop() {
		walkAll(b, bytes.NewReader(data), int64(len(data)), "i.tar", 20_000)
	}
}

// BenchmarkZip opens a zip of 10,000 members, and reads the first bytes of each.
func BenchmarkZip(b *testing.B) {
	files := map[string]string{}
	text := string(noise(500)) + string(make([]byte, 4000))
	for i := range 10_000 {
		files[fmt.Sprintf("org/example/package%d/Class%d.class", i/100, i)] = text
	}
	data := zipOf(b, files)
	b.Run("Open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			walkAll(b, bytes.NewReader(data), int64(len(data)), "a.jar", len(files))
		}
	})
	b.Run("Heads", func(b *testing.B) {
		b.ReportAllocs()
		tree, err := NewBudget(Limits{}, b.TempDir()).Open(b.Context(), bytes.NewReader(data), int64(len(data)), "a.jar")
		if err != nil {
			b.Fatal(err)
		}
		defer tree.Close()
		head := make([]byte, 16)
		for b.Loop() {
			err := tree.Walk(func(p string, _ fs.FileInfo) error {
				f, err := tree.Open(p)
				if err != nil {
					return err
				}
				if _, err := io.ReadFull(f, head); err != nil {
					return err
				}
				return f.Close()
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkHidesZip looks at the ends of files of a tar.
func BenchmarkHidesZip(b *testing.B) {
	f, size := tarFile(b, 100, 200_000)
	tree, err := NewBudget(Limits{}, b.TempDir()).Open(b.Context(), f, size, "a.tar")
	if err != nil {
		b.Fatal(err)
	}
	defer tree.Close()
	p := tree.entries[0].path
	for b.Loop() {
		if tree.HidesZip(p) {
			b.Fatal(p)
		}
	}
}

// BenchmarkLinks gives the names below a link to a folder of 40,000 files.
func BenchmarkLinks(b *testing.B) {
	members := []member{{name: "lib", target: "usr/lib"}}
	for i := range 40_000 {
		members = append(members, member{name: fmt.Sprintf("usr/lib/package%d/file%d", i/40, i)})
	}
	data := tarOf(b, members...)
	budget := NewBudget(Limits{}, b.TempDir())
	tree, err := budget.Open(b.Context(), bytes.NewReader(data), int64(len(data)), "a.tar")
	if err != nil {
		b.Fatal(err)
	}
	defer tree.Close()
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		budget.linked = 0
		if err := tree.Links(func(string, string, fs.FileInfo) error { n++; return nil }); err != nil || n != 40_001 {
			b.Fatal(n, err)
		}
	}
}
