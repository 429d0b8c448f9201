package archive

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/assay-build/assay/internal/sbom"
)

// TestFS holds trees to what every io/fs file system must do.
func TestFS(t *testing.T) {
	t.Parallel()
	big := string(noise(100_000))
	files := map[string]string{
		"a": "1", "a-b/c": "2", "a.d": "", "dir/sub/deep/file": "3", "dir/sub-x": "4", "dir/sub.y": "5", "z/big": big,
	}
	var members []member
	for name, data := range files {
		members = append(members, member{name: name, data: data})
	}
	data := tarOf(t, members...)
	for name, data := range map[string][]byte{"a.zip": zipOf(t, files), "a.tar": data, "a.tgz": gzipped(t, data)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree, b := open(t, data, name)
			if err := fstest.TestFS(tree, "a", "a-b/c", "dir/sub/deep/file", "z/big"); err != nil {
				t.Error(err)
			}
			checkContents(t, tree, files)
			checkReasons(t, b)
			if b.Files() != len(files) {
				t.Errorf("%d files", b.Files())
			}
		})
	}
}

// TestReadAnywhere reads a compressed member out of order, from memory and from a file.
func TestReadAnywhere(t *testing.T) {
	t.Parallel()
	data := strings.Repeat(string(noise(1000)), 20_000) // 20 MB
	tree, b := open(t, zipOf(t, map[string]string{"small": data[:5000], "large": data}), "a.zip")
	for name, size := range map[string]int{"small": 5000, "large": len(data)} {
		f, err := tree.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		at, ok := f.(io.ReaderAt)
		if !ok {
			t.Fatalf("%T is no io.ReaderAt", f)
		}
		head := make([]byte, 16)
		if _, err := at.ReadAt(head, 0); err != nil || string(head) != data[:16] {
			t.Errorf("%s: the first bytes are %q, %v", name, head, err)
		}
		if s := f.(*openFile).closer.(*spool); s.filled > 1<<20 {
			t.Errorf("%s: %d bytes unpacked for 16", name, s.filled)
		}
		if _, err := at.ReadAt(head, int64(size-16)); err != nil || string(head) != data[size-16:size] {
			t.Errorf("%s: the last bytes are %q, %v", name, head, err)
		}
		if _, err := at.ReadAt(head, int64(size-15)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: behind the end: %v", name, err)
		}
		if _, err := f.(io.Seeker).Seek(1000, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(f)
		if err != nil || string(rest) != data[1000:size] {
			t.Errorf("%s: %d bytes from 1000 on, %v", name, len(rest), err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if _, err := f.Read(head); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s: read after close: %v", name, err)
		}
	}
	if again := b.Bytes(); again != b.size+int64(len(data)+5000) {
		t.Errorf("%d bytes counted", again-b.size)
	}
	if _, err := fs.ReadFile(tree, "large"); err != nil || b.Bytes() != b.size+int64(len(data)+5000) {
		t.Errorf("a second reading counts again: %d, %v", b.Bytes()-b.size, err)
	}
}

// TestLinks: symbolic links lead to members and nowhere else.
func TestLinks(t *testing.T) {
	t.Parallel()
	tree, b := open(t, tarOf(t,
		member{name: "usr/lib/os-release", data: "ID=debian"},
		member{name: "etc/os-release", target: "../usr/lib/os-release"},
		member{name: "lib", target: "usr/lib"},
		member{name: "abs", target: "/usr/lib/os-release"},
		member{name: "etc/again", target: "./os-release"},
		member{name: "loop", target: "loop2"},
		member{name: "loop2", target: "loop"},
		member{name: "dangling", target: "/etc/passwd"},
		member{name: "root", target: "usr/.."},
		member{name: "hard", hard: "usr/lib/os-release"},
	), "a.tar")
	checkReasons(t, b)
	for _, p := range []string{"etc/os-release", "lib/os-release", "abs", "etc/again", "root/abs", "root/root/lib/os-release", "hard"} {
		data, err := fs.ReadFile(tree, p)
		if err != nil || string(data) != "ID=debian" {
			t.Errorf("%s: %q, %v", p, data, err)
		}
	}
	for _, p := range []string{"loop", "loop/x", "dangling", "abs/x", "lib/x", "root/x"} {
		if _, err := tree.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
	for _, p := range []string{"../etc", "/etc", "a/../b", "", "a//b"} {
		if _, err := tree.Open(p); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", p, err)
		}
	}
	if target, err := tree.ReadLink("etc/os-release"); err != nil || target != "../usr/lib/os-release" {
		t.Errorf("ReadLink: %q, %v", target, err)
	}
	if info, err := tree.Lstat("lib"); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("Lstat: %v, %v", info, err)
	}
	list, err := tree.ReadDir("etc")
	if err != nil || len(list) != 2 || list[0].Type() != fs.ModeSymlink {
		t.Errorf("ReadDir: %v, %v", list, err)
	}
	checkContents(t, tree, map[string]string{"usr/lib/os-release": "ID=debian", "hard": "ID=debian"})
}

// TestNested opens archives in archives, stored and compressed, and closes them again.
func TestNested(t *testing.T) {
	t.Parallel()
	jar := zipOf(t, map[string]string{"META-INF/MANIFEST.MF": "Name: x"})
	war := zipOf(t, map[string]string{"WEB-INF/lib/x.jar": string(jar), "web.xml": "<web/>"})
	outer := gzipped(t, tarOf(t, member{name: "app/app.war", data: string(war)}, member{name: "app/readme", data: "hi"}))
	tree, b := open(t, outer, "app.tar.gz")
	if tree.Format() != "tar+gzip" || tree.Prefix() != "" {
		t.Errorf("format %q, prefix %q", tree.Format(), tree.Prefix())
	}
	if _, ok, err := tree.Nested(t.Context(), "app/readme"); ok || err != nil {
		t.Errorf("a text is an archive: %v", err)
	}
	if _, _, err := tree.Nested(t.Context(), "app/gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	w, ok, err := tree.Nested(t.Context(), "app/app.war")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	j, ok, err := w.Nested(t.Context(), "WEB-INF/lib/x.jar")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if j.Prefix() != "app/app.war!/WEB-INF/lib/x.jar!/" || j.Format() != "zip" {
		t.Errorf("format %q, prefix %q", j.Format(), j.Prefix())
	}
	checkContents(t, j, map[string]string{"META-INF/MANIFEST.MF": "Name: x"})
	if err := errors.Join(j.Close(), w.Close()); err != nil {
		t.Error(err)
	}
	checkReasons(t, b)
	if b.Files() != 5 {
		t.Errorf("%d files", b.Files())
	}
}

// TestFormats: the content says what it is, whatever its name.
func TestFormats(t *testing.T) {
	t.Parallel()
	plain := tarOf(t, member{name: "a", data: "1"})
	pkg := func(name string) []byte { return gzipped(t, tarOf(t, member{name: name, data: "pkgname = a\n"})) }
	for _, c := range []struct {
		name, file, format string
		data               []byte
	}{
		{"zip under another name", "a.txt", "zip", zipOf(t, map[string]string{"a": "1"})},
		{"script before a zip", "app.jar", "zip", append([]byte("#!/bin/sh\nexec java -jar $0\n"), zipOf(t, map[string]string{"a": "1"})...)},
		{"tar under another name", "a.zip", "tar", plain},
		{"text that is called a jar", "a.jar", "file", []byte("no zip at all")},
		{"empty file", "a.tar.gz", "file", nil},
		{"one compressed file", "main.go.gz", "gzip", gzipped(t, []byte("package main"))},
		{"compressed tar", "a", "tar+gzip", gzipped(t, plain)},
		{"Alpine", "a.apk", "apk", pkg(".PKGINFO")},
		{"empty zip", "a.zip", "zip", zipOf(t, nil)},
		{"static library", "a.a", "file", []byte("!<arch>\nfoo.o/          0           0     0     644     2         `\nxx")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tree, b := open(t, c.data, c.file)
			if tree.Format() != c.format {
				t.Errorf("format %q, want %q", tree.Format(), c.format)
			}
			checkReasons(t, b)
		})
	}
	tree, _ := open(t, gzipped(t, []byte("package main")), "../x/main.go.gz")
	checkContents(t, tree, map[string]string{"main.go": "package main"})
	tree, _ = open(t, []byte("x"), `C:\build\go.mod`)
	checkContents(t, tree, map[string]string{"go.mod": "x"})
}

// TestAlpine reads the parts of a package of Alpine as one tar: only the last has an end.
func TestAlpine(t *testing.T) {
	t.Parallel()
	open3 := func(members ...member) []byte {
		data := tarOf(t, members...)
		return gzipped(t, data[:len(data)-1024])
	}
	data := append(open3(member{name: ".SIGN.RSA.a", data: "sig"}), open3(member{name: ".PKGINFO", data: "pkgname = a\n"})...)
	data = append(data, gzipped(t, tarOf(t, member{name: "usr/bin/a", data: "elf"}))...)
	tree, b := open(t, data, "a.apk")
	checkReasons(t, b)
	checkContents(t, tree, map[string]string{".SIGN.RSA.a": "sig", ".PKGINFO": "pkgname = a\n", "usr/bin/a": "elf"})
	if tree.Format() != "apk" {
		t.Errorf("format %q", tree.Format())
	}
}

// TestGem reads what a gem installs, and its metadata.
func TestGem(t *testing.T) {
	t.Parallel()
	inner := gzipped(t, tarOf(t, member{name: "lib/rake.rb", data: "module Rake"}))
	metadata := string(gzipped(t, []byte("name: rake")))
	tree, b := open(t, tarOf(t, member{name: "metadata.gz", data: metadata}, member{name: "data.tar.gz", data: string(inner)}), "rake.gem")
	checkReasons(t, b)
	checkContents(t, tree, map[string]string{"lib/rake.rb": "module Rake", "metadata.gz": metadata})
	if tree.Format() != "gem" || b.Files() != 2 {
		t.Errorf("format %q, %d files", tree.Format(), b.Files())
	}
}

// TestLimits: each limit has its reason, and what was read before it stays.
func TestLimits(t *testing.T) {
	t.Parallel()
	three := tarOf(t, member{name: "a", data: "1"}, member{name: "b", data: "2"}, member{name: "c", data: "3"})
	large := tarOf(t, member{name: "a", data: "1"}, member{name: "b", data: string(noise(20 << 20))})
	for _, c := range []struct {
		name   string
		limits Limits
		data   []byte
		code   sbom.ReasonCode
		files  int
	}{
		{"entries", Limits{MaxEntries: 2}, three, sbom.ReasonEntries, 2},
		{"index", Limits{MaxIndexBytes: 2*entryOverhead + 10}, three, sbom.ReasonMemory, 2},
		{"path", Limits{MaxPathBytes: 3}, tarOf(t, member{name: "abc"}, member{name: "abcd"}), sbom.ReasonUnsafePath, 1},
		{"file", Limits{MaxFileBytes: 10 << 20}, large, sbom.ReasonFileSize, 1},
		{"depth", Limits{MaxDepth: 1}, tarOf(t, member{name: "a.tar", data: string(three)}), sbom.ReasonDepth, 1},
		{"temporary files", Limits{MaxTempBytes: 10 << 20}, gzipped(t, large), sbom.ReasonTotalSize, 1},
		{"all files", Limits{MaxTotalBytes: 15 << 20}, gzipped(t, large), sbom.ReasonTotalSize, 1},
		{"ratio", Limits{RatioFrom: 1 << 20, MaxRatio: 50}, gzipped(t, make([]byte, 4<<20)), sbom.ReasonRatio, 1},
		{"ratio of all", Limits{RatioFrom: 1 << 20, MaxRatio: 50}, zipOf(t, map[string]string{
			"a": string(make([]byte, 600<<10)), "b": string(make([]byte, 600<<10)), "c": string(noise(10)),
		}), sbom.ReasonRatio, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tree, b := openWith(t, c.limits, c.data, "a")
			readTree(t, tree)
			got := b.Reasons()
			if len(got) == 0 || got[0].Code != c.code && got[len(got)-1].Code != c.code {
				t.Errorf("reasons %v, want %q", got, c.code)
			}
			if b.Files() != c.files {
				t.Errorf("%d files, want %d", b.Files(), c.files)
			}
		})
	}
}

// TestManyReasons: a flood of one kind neither grows without bound nor hides another.
func TestManyReasons(t *testing.T) {
	t.Parallel()
	var members []member
	for range 1000 {
		members = append(members, member{name: "../" + strings.Repeat("x", len(members)%90+1)})
	}
	members = append(members, member{name: "s", typ: tar.TypeReg}, member{name: "h", hard: "gone"})
	_, b := open(t, tarOf(t, members...), "a.tar")
	got := b.Reasons()
	if len(got) != maxOfCode+2 {
		t.Errorf("%d reasons: %v", len(got), got)
	}
	checkReasons(t, b, sbom.ReasonMalformed, sbom.ReasonUnsafePath)
}

// TestPrintable: text from an archive is harmless in a message.
func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"usr/bin/ä":            "usr/bin/ä",
		"a\x00b\x1b[31m\n":     `a\x00b\x1b[31m\x0a`,
		"evil\xff":             `evil\xff`,
		"rtl\u202egnp.exe":     `rtl\u202egnp.exe`,
		strings.Repeat("é", 9): "ééé…",
		"\ufffd":               "\ufffd",
	} {
		limit := 100
		if len(in) == 18 {
			limit = 10
		}
		if got := printable(in, limit); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
