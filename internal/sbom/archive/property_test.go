package archive

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/archive/archivetest"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

// TestDamage: whatever byte of a compressed archive is damaged, it is said, or every file
// is what it was. Nothing is ever another file in silence.
func TestDamage(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a": "1", "dir/b": strings.Repeat("text ", 200), "dir/c": string(noise(300)), "package.json": "{}"}
	var members []member
	for _, name := range []string{"a", "dir/b", "dir/c", "package.json"} {
		members = append(members, member{name: name, data: files[name]})
	}
	zipped, tgz := zipOf(t, files), gzipped(t, tarOf(t, members...))
	rapid.Check(t, func(rt *rapid.T) {
		data, name := zipped, "a.zip"
		if rapid.Bool().Draw(rt, "tar") {
			data, name = tgz, "a.tar.gz"
		}
		data = bytes.Clone(data)
		if rapid.Bool().Draw(rt, "cut") {
			data = data[:rapid.IntRange(10, len(data)-1).Draw(rt, "length")]
		} else {
			at := rapid.IntRange(2, len(data)-1).Draw(rt, "at")
			data[at] ^= byte(rapid.IntRange(1, 255).Draw(rt, "bits"))
		}
		b := NewBudget(Limits{}, t.TempDir())
		tree, err := b.Open(t.Context(), bytes.NewReader(data), int64(len(data)), name)
		if err != nil {
			rt.Fatal(err)
		}
		defer tree.Close()
		got := map[string]string{}
		err = tree.Walk(func(p string, _ fs.FileInfo) error {
			content, err := fs.ReadFile(tree, p)
			if err == nil {
				got[p] = string(content)
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		if len(b.Reasons()) > 0 || tree.Format() == "file" {
			return
		}
		for p, content := range got {
			if want, ok := files[p]; !ok || content != want {
				rt.Fatalf("%s is %d bytes, and nothing is said", p, len(content))
			}
		}
		if len(got) < len(files)-1 { // a member may have become a folder or a device
			rt.Fatalf("%d files, and nothing is said", len(got))
		}
	})
}

// TestContained: no path of a tar, whatever its links, leads to anything but a member.
func TestContained(t *testing.T) {
	t.Parallel()
	element := rapid.SampledFrom([]string{"a", "b", "c", "..", ".", "", "etc", "a"})
	name := rapid.Custom(func(rt *rapid.T) string {
		return strings.Join(rapid.SliceOfN(element, 1, 6).Draw(rt, "elements"), "/")
	})
	rapid.Check(t, func(rt *rapid.T) {
		var members []member
		for i := range rapid.IntRange(1, 8).Draw(rt, "members") {
			m := member{name: name.Draw(rt, "name")}
			if m.name == "" {
				m.name = "a"
			}
			switch rapid.IntRange(0, 3).Draw(rt, "kind") {
			case 0:
				m.target = name.Draw(rt, "target") + "/x"
			case 1:
				m.hard = name.Draw(rt, "target") + fmt.Sprintf("/f%d", rapid.IntRange(0, 7).Draw(rt, "of"))
			default:
				m.name = strings.TrimRight(m.name, "/") + fmt.Sprintf("/f%d", i)
				m.data = fmt.Sprint("content ", i)
			}
			members = append(members, m)
		}
		data := tarOf(t, members...)
		if rapid.Bool().Draw(rt, "image") {
			data = layoutOf(t, imageSpec{platform: "linux/amd64", layers: [][]byte{data}})
		}
		tree, b := open(t, data, "a.tar")
		got := contents(t, tree)
		for range 5 {
			p := name.Draw(rt, "look")
			info, err := tree.Stat(p)
			if err != nil || info.IsDir() {
				continue
			}
			data, err := fs.ReadFile(tree, p)
			if err != nil {
				rt.Fatal(err)
			}
			if !fs.ValidPath(p) || !slices.ContainsFunc(members, func(m member) bool { return m.data == string(data) }) {
				rt.Fatalf("%q leads to %q; the tree has %q, %v", p, data, got, b.Reasons())
			}
		}
	})
}

// TestGoModuleZips: the refusals of golang.org/x/mod/zip that are about archives, and not
// about modules, are seen here.
func TestGoModuleZips(t *testing.T) {
	t.Parallel()
	dir := vectors.Dir(t, "golang-mod-zip/zip/testdata/unzip")
	want := map[string][]sbom.ReasonCode{
		"dup_file.txt":         {sbom.ReasonUnsafePath},
		"dup_file_and_dir.txt": {sbom.ReasonUnsafePath},
		"prefix_only.txt":      {sbom.ReasonUnsafePath},
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) == 0 {
		t.Fatal(err)
	}
	for _, f := range list {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w := zip.NewWriter(&out)
		// A txtar archive: "-- NAME --" before each content.
		for _, part := range strings.Split("\n"+string(text), "\n-- ")[1:] {
			name, content, _ := strings.Cut(part, " --\n")
			member, err := w.Create(strings.TrimSuffix(name, " --"))
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(member, content)
		}
		w.Close()
		_, b := open(t, out.Bytes(), "m.zip")
		if got := codesOf(b.Reasons()); !slices.Equal(got, want[f.Name()]) {
			t.Errorf("%s: %v, want %v", f.Name(), b.Reasons(), want[f.Name()])
		}
	}
}

// fuzzLimits keep one input within a moment.
var fuzzLimits = Limits{
	MaxEntries: 2000, MaxFileBytes: 4 << 20, MaxTotalBytes: 16 << 20, MaxTempBytes: 16 << 20, MaxIndexBytes: 1 << 20,
	RatioFrom: 1 << 20, MaxDepth: 4,
}

func fuzz(f *testing.F, name string, seeds ...[]byte) {
	f.Helper()
	cases, err := archivetest.Select(f.TempDir(), func(c archivetest.Case) bool {
		return strings.HasPrefix(c.Name, name) && !c.Large && !strings.Contains(c.Name, "bomb")
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range cases {
		if st, err := os.Stat(c.Path); err != nil || st.Size() > 16<<10 {
			continue
		}
		data, err := os.ReadFile(c.Path)
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, data)
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tree, b := openWith(t, fuzzLimits, data, "artifact")
		readTree(t, tree)
		if err := b.Err(); err != nil {
			t.Error(err)
		}
		if n := len(b.Reasons()); n > sbom.MaxReasons {
			t.Errorf("%d reasons", n)
		}
		for _, r := range b.Reasons() {
			if len(r.Path) > sbom.MaxTextBytes || len(r.Detail) > maxDetailBytes || printable(r.Path, 1<<20) != r.Path {
				t.Errorf("reason %q", r)
			}
		}
	})
}

func FuzzZip(f *testing.F) { fuzz(f, "zip", zipOf(f, map[string]string{"a": "1", "b/c": "2"})) }

func FuzzTar(f *testing.F) { fuzz(f, "tar", tarOf(f, member{name: "a", data: "1"})) }

func FuzzImage(f *testing.F) {
	fuzz(f, "image", layoutOf(f, imageSpec{platform: "linux/amd64", layers: [][]byte{tarOf(f, member{name: "a", data: "1"})}}))
}

func FuzzDeb(f *testing.F) { fuzz(f, "deb") }

func FuzzXZ(f *testing.F) { fuzz(f, "xz") }

func FuzzGzip(f *testing.F) { fuzz(f, "gzip", gzipped(f, tarOf(f, member{name: "a", data: "1"}))) }

// FuzzName: what is accepted as a name is a path of fs.FS, the same when read again.
func FuzzName(f *testing.F) {
	for _, s := range []string{"a/b", "./a//b/", "../a", "/a", `a\..\b`, "c:x", "a\x00", "\xff", ".", "a/../b", "..."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		b := NewBudget(Limits{}, "")
		for _, kind := range []naming{namesTar, namesZip, namesImage} {
			p, err := b.clean(name, kind)
			if err != nil || p == "" {
				continue
			}
			if !fs.ValidPath(p) || path.Clean(p) != p || strings.HasPrefix(p, "..") && (p == ".." || p[2] == '/') {
				t.Errorf("%q becomes %q", name, p)
			}
			if again, err := b.clean(p, kind); err != nil || again != p {
				t.Errorf("%q becomes %q, then %q, %v", name, p, again, err)
			}
		}
	})
}
