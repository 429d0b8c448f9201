package archive

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/archive/archivetest"
)

// everywhere collects all files of a tree by content, those of archives in it and those of
// symbolic links included.
func everywhere(t *testing.T, tree *Tree, found map[string]string) {
	t.Helper()
	keep := func(name, target string) {
		if data, err := fs.ReadFile(tree, target); err == nil {
			found[tree.Prefix()+name] = string(data)
		}
	}
	err := tree.Walk(func(p string, _ fs.FileInfo) error {
		keep(p, p)
		in, ok, err := tree.Nested(t.Context(), p)
		if err != nil || !ok {
			return err
		}
		everywhere(t, in, found)
		return in.Close()
	})
	if err != nil {
		t.Error(err)
	}
	err = tree.Links(func(name, target string, info fs.FileInfo) error {
		if !info.IsDir() {
			keep(name, target)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestNothingHidden: what any reader of these archives sees is in the tree, or in an
// archive in it, under the name that this reader gives it.
func TestNothingHidden(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"zip-pipe-content":        "",
		"zip-socket-content":      "",
		"zip-block-content":       "",
		"zip-no-kind-content":     "",
		"zip-folder-mode-content": "",
		"zip-link-content":        "",
		"zip-link-inside":         "",
		"zip-in-stored-block":     "inner.jar!/",
		"zip-record-again":        "",
		"tar-unknown-type":        "",
		"tar-unknown-type-digit":  "",
		"tar-other-volume":        "",
		"tar-checksum-256":        "",
		"tar-checksum-256-old":    "",
		"tar-then-zip-jar":        "",
		"text-then-zip":           "",
		"script-then-zip":         "",
		"program-then-zip":        "program-then-zip!/",
		"tar-zip-last":            "lib/x.bin!/",
		"tar-junk-zip":            "lib/x!/",
		"tar-junk-zip-far":        "lib/x!/",
		"tar-program-zip":         "bin/x!/",
		"image-beside":            ".beside/",
		"docker-beside":           ".beside/",
		"deb-other-part":          "DEBIAN/_x.jar!/",
	}
	cases, err := archivetest.Select(t.TempDir(), func(c archivetest.Case) bool { _, ok := want[c.Name]; return ok })
	if err != nil || len(cases) != len(want) {
		t.Fatal(len(cases), err)
	}
	for _, c := range cases {
		data, err := os.ReadFile(c.Path)
		if err != nil {
			t.Fatal(err)
		}
		tree, b := open(t, data, filepath.Base(c.Path))
		found := map[string]string{}
		everywhere(t, tree, found)
		if got := found[want[c.Name]+archivetest.Lockfile]; got != archivetest.Content {
			t.Errorf("%s: %q in %q, %v", c.Name, got, slices.Sorted(maps.Keys(found)), b.Reasons())
		}
		if c.Name == "image-beside" && found[".beside/app/npm-shrinkwrap.json"] != archivetest.Content {
			t.Errorf("%s: no link in %q", c.Name, slices.Sorted(maps.Keys(found)))
		}
	}
}

// TestLinkedNames: Links gives what links to files and folders lead to, and ends.
func TestLinkedNames(t *testing.T) {
	t.Parallel()
	data := tarOf(t,
		member{name: "usr/lib/a", data: "1"}, member{name: "usr/lib/sub/b", data: "2"},
		member{name: "lib", target: "usr/lib"}, member{name: "usr/lib/c", target: "sub/b"},
		member{name: "usr/lib/self", target: "."}, member{name: "file", target: "/usr/lib/a"},
		member{name: "loop", target: "loop"}, member{name: "gone", target: "nowhere"}, member{name: "usr/up", target: ".."},
	)
	tree, b := open(t, data, "a.tar")
	got := map[string]string{}
	if err := tree.Links(func(name, target string, info fs.FileInfo) error {
		if got[name] != "" {
			t.Errorf("%s is given twice", name)
		}
		if got[name] = target; info.IsDir() && name != "lib" {
			return fs.SkipDir
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"lib": "usr/lib", "lib/a": "usr/lib/a", "lib/sub/b": "usr/lib/sub/b", "lib/c": "usr/lib/sub/b",
		"usr/lib/c": "usr/lib/sub/b", "usr/lib/self": "usr/lib", "file": "usr/lib/a", "usr/up": ".",
	}
	if !maps.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	for name, target := range got {
		info, err := tree.Stat(name)
		direct, errDirect := tree.Stat(target)
		if err != nil || errDirect != nil || info.Size() != direct.Size() {
			t.Errorf("%s: %v, %v", name, err, errDirect)
		}
	}
	n := 0
	if err := tree.Links(func(string, string, fs.FileInfo) error { n++; return nil }); err != nil || n < 20 {
		t.Errorf("%d names, %v", n, err)
	}
	n = 0
	if err := tree.Links(func(string, string, fs.FileInfo) error { n++; return fs.SkipAll }); err != nil || n != 1 {
		t.Errorf("%d names, %v", n, err)
	}
	failed := errors.New("failed")
	if err := tree.Links(func(string, string, fs.FileInfo) error { return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	checkReasons(t, b)
}

// TestLinkedBound: links to folders of links multiply; that ends with a reason.
func TestLinkedBound(t *testing.T) {
	t.Parallel()
	members := []member{{name: "d0/f", data: "1"}}
	for i := range 12 {
		dir := "d" + string(rune('a'+i))
		before := "d0"
		if i > 0 {
			before = "d" + string(rune('a'+i-1))
		}
		for j := range 4 {
			members = append(members, member{name: dir + "/l" + string(rune('0'+j)), target: "../" + before})
		}
	}
	tree, b := openWith(t, Limits{MaxEntries: 1000}, tarOf(t, members...), "a.tar")
	n := 0
	if err := tree.Links(func(string, string, fs.FileInfo) error { n++; return nil }); err != nil || n != maxLinked*1000 {
		t.Errorf("%d names, %v", n, err)
	}
	checkReasons(t, b, sbom.ReasonEntries)
}

// TestImageLinks: a link leads to what is in its own image.
func TestImageLinks(t *testing.T) {
	t.Parallel()
	layer := func(text string) []byte {
		return tarOf(t, member{name: "opt/db/installed", data: text}, member{name: "lib/apk/db", target: "/opt/db"}, member{name: "up", target: "../../opt/db"})
	}
	tree, _ := open(t, layoutOf(t, imageSpec{platform: "linux/amd64", layers: [][]byte{layer("1")}}, imageSpec{platform: "linux/arm64", layers: [][]byte{layer("2")}}), "i.tar")
	got := map[string]string{}
	if err := tree.Links(func(name, target string, _ fs.FileInfo) error { got[name] = target; return nil }); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, p := range []string{"linux_amd64/", "linux_arm64/"} {
		want[p+"lib/apk/db"], want[p+"lib/apk/db/installed"] = p+"opt/db", p+"opt/db/installed"
		want[p+"up"], want[p+"up/installed"] = p+"opt/db", p+"opt/db/installed"
	}
	if !maps.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
}

// TestUnread: formats that nobody here reads are known by what they begin with, or by name.
func TestUnread(t *testing.T) {
	t.Parallel()
	tarHead := tarOf(t, member{name: "a", data: "1"})[:512]
	for _, c := range []struct {
		name, head string
		want       bool
	}{
		{"x.tar.lzma", "\x5d\x00\x00\x80\x00", true},
		{"x.tar.br", "\x8b\x02", true},
		{"x.tar.Z", "\x1f\x9d\x90", true},
		{"resources/app.asar", "\x04\x00\x00\x00\x20\x00\x00\x00", true},
		{"app", "\x04\x00\x00\x00\x20\x00\x00\x00\x1c\x00\x00\x00\x16\x00\x00\x00{\"files\":{}}", true},
		{"x.jmod", "JM\x01\x00", true},
		{"x.MSI", "\xd0\xcf\x11\xe0", true},
		{"x.dmg", "\x78\x01", true},
		{"data", "7z\xbc\xaf\x27\x1c", true},
		{"data", "Rar!\x1a\x07\x00", true},
		{"data", "MSCF\x00\x00\x00\x00", true},
		{"x.jar", "not a zip", true},
		{"x.tar", "not a tar", true},
		{"x.tar.gz", "not a gzip", true},
		{"x.tar.gz", "", false},
		{"x.tar.gz.asc", "-----BEGIN PGP", false},
		{"x.tar", string(tarHead), false},
		{"x.rar", "PK\x03\x04", false}, // a resource adapter
		{"x.txt", "text", false},
		{"x.docx", "PK\x03\x04", false},
		{"x", "\x7fELF\x02\x01\x01\x00", false},
	} {
		if got := Unread([]byte(c.head), c.name); got != c.want {
			t.Errorf("%s with %q: %v", c.name, c.head, got)
		}
	}
	_, b := open(t, []byte("\x5d\x00\x00\x80\x00\xff\xff\xff\xff"), "x.tar.lzma")
	checkReasons(t, b, sbom.ReasonUnsupported)
}

// TestHidesZip: a zip behind anything is found, and what only looks like one is not.
func TestHidesZip(t *testing.T) {
	t.Parallel()
	inner := zipOf(t, map[string]string{"a": "1"})
	behind := func(s string) string { return s + string(inner) }
	files := map[string]string{
		"zip": behind(""), "elf": behind("\x7fELF\x02\x01\x01\x00 and more"), "far": behind(strings.Repeat("junk", 40_000)),
		"text": "a PK\x05\x06 in a text " + strings.Repeat("x", 100), "small": "PK", "cut": string(inner[:len(inner)-1]),
	}
	var members []member
	for name, data := range files {
		members = append(members, member{name: name, data: data})
	}
	for _, data := range [][]byte{tarOf(t, members...), zipOf(t, files)} {
		tree, _ := open(t, data, "a")
		for name := range files {
			want := name == "zip" || name == "elf" || name == "far"
			if got := tree.HidesZip(name); got != want {
				t.Errorf("%s: %v", name, got)
			}
			in, ok, err := tree.Nested(t.Context(), name)
			if err != nil || ok != want && name != "cut" {
				t.Errorf("%s: opened %v, %v", name, ok, err)
			}
			if in != nil {
				in.Close()
			}
		}
	}
	for _, head := range []string{"\x7fELF\x02\x01\x01\x00", "MZ\x90\x00\x03\x00\x00\x00", "\xcf\xfa\xed\xfe\x0c\x00\x00\x01", "\nPK\x03\x04"} {
		if !IsArchive([]byte(head), "x") {
			t.Errorf("%q may hide none", head)
		}
	}
	if IsArchive([]byte("\xca\xfe\xba\xbe\x00\x00\x00\x34"), "X.class") {
		t.Error("a Java class is an archive")
	}
	if tree, _ := open(t, bytes.Clone([]byte(files["elf"])), "launcher"); tree.Format() != "file" {
		t.Errorf("a program is read as %q", tree.Format())
	}
}
