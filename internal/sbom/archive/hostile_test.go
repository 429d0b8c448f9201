package archive

import (
	"context"
	"errors"
	"go/build"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/archive/archivetest"
)

// readAll opens an artifact and reads every byte of it, archives in archives included, as
// the most thorough of scanners would.
func readAll(t testing.TB, b *Budget, p string) {
	t.Helper()
	f, err := os.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := b.Open(t.Context(), f, st.Size(), filepath.Base(p))
	if err != nil {
		t.Fatal(err)
	}
	readTree(t, tree)
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
	noRemains(t, b)
}

func readTree(t testing.TB, tree *Tree) {
	t.Helper()
	last := ""
	err := tree.Walk(func(p string, info fs.FileInfo) error {
		if !fs.ValidPath(p) || p <= last && last != "" {
			t.Errorf("%q after %q", p, last)
		}
		last = p
		if info.Size() > 64<<20 && tree.entry(p).method == methodStored {
			return nil // a hole on the disk
		}
		f, err := tree.Open(p)
		if err != nil {
			return err
		}
		io.Copy(io.Discard, f) // what goes wrong is a reason
		if err := f.Close(); err != nil {
			return err
		}
		in, ok, err := tree.Nested(t.Context(), p)
		if err != nil || !ok {
			return err
		}
		if want := tree.Prefix() + p + "!/"; in.Prefix() != want {
			t.Errorf("prefix %q, want %q", in.Prefix(), want)
		}
		readTree(t, in)
		return in.Close()
	})
	if err != nil {
		t.Error(err)
	}
	for i := range tree.links {
		tree.Stat(tree.links[i].path) // it must end
	}
}

// noRemains: all that was counted was given back, and the temporary folder is empty.
func noRemains(t testing.TB, b *Budget) {
	t.Helper()
	if b.memory != 0 || b.temp != 0 || b.index != 0 {
		t.Errorf("left behind: %d bytes in memory, %d in files, %d of index", b.memory, b.temp, b.index)
	}
	left, err := os.ReadDir(b.tempDir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("%d files in the temporary folder, such as %s", len(left), left[0].Name())
	}
}

func codesOf(reasons []sbom.Reason) []sbom.ReasonCode {
	var codes []sbom.ReasonCode
	for _, r := range reasons {
		codes = append(codes, r.Code)
	}
	return slices.Compact(codes)
}

// openFiles counts the descriptors of this process.
func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(list)
}

// TestHostile reads every hostile archive to its end: within a bound of time and memory,
// with exactly the reasons that it has, and without a trace afterwards. The cases run one
// at a time, since the memory of a process is what is measured.
func TestHostile(t *testing.T) { //nolint:paralleltest // see above
	const (
		maxTime       = 20 * time.Second // this machine has other things to do; see the log for the true figures
		maxAllocated  = 96 << 20
		maxAllocLarge = 800 << 20
	)
	set := archivetest.Hostile
	if testing.Short() || raced {
		set = archivetest.Small
	}
	cases, err := set(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 100 {
		t.Fatalf("%d cases", len(cases))
	}
	canary := t.TempDir()
	t.Chdir(canary)
	files := openFiles(t)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			var before, after runtime.MemStats
			b := NewBudget(DefaultLimits(), t.TempDir())
			runtime.ReadMemStats(&before)
			start := time.Now()
			readAll(t, b, c.Path)
			took := time.Since(start)
			runtime.ReadMemStats(&after)

			if got := codesOf(b.Reasons()); !slices.Equal(got, c.Want) {
				t.Errorf("reasons %q, want %q", b.Reasons(), c.Want)
			}
			allocated := after.TotalAlloc - before.TotalAlloc
			limit := uint64(maxAllocated)
			if c.Large {
				limit = maxAllocLarge
			}
			if took > maxTime || allocated > limit {
				t.Errorf("took %v and allocated %d MiB; at most %v and %d MiB", took, allocated>>20, maxTime, limit>>20)
			}
			if took > 200*time.Millisecond || allocated > 32<<20 {
				t.Logf("%v, %d MiB allocated, %d files", took, allocated>>20, b.Files())
			}
		})
	}
	if n := openFiles(t); n > files {
		t.Errorf("%d descriptors stay open", n-files)
	}
	if left, _ := os.ReadDir(canary); len(left) > 0 {
		t.Errorf("%s was written", left[0].Name())
	}
}

// TestHostileDeterministic: the same bytes give the same tree and the same reasons.
func TestHostileDeterministic(t *testing.T) {
	t.Parallel()
	if testing.Short() || raced {
		t.Skip("the whole set, twice")
	}
	cases, err := archivetest.Small(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	again, err := archivetest.Small(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		a, b := NewBudget(DefaultLimits(), t.TempDir()), NewBudget(DefaultLimits(), t.TempDir())
		readAll(t, a, c.Path)
		readAll(t, b, again[i].Path)
		if !slices.Equal(a.Reasons(), b.Reasons()) || a.Files() != b.Files() || a.Bytes() != b.Bytes() {
			t.Errorf("%s: %q, %d files, %d bytes; then %q, %d, %d", c.Name, a.Reasons(), a.Files(), a.Bytes(), b.Reasons(), b.Files(), b.Bytes())
		}
	}
}

// TestLibraryArchives reads those that the standard library is tested with: none is read
// for ever, and none ends the process.
func TestLibraryArchives(t *testing.T) {
	t.Parallel()
	n := 0
	for _, kind := range []string{"zip", "tar"} {
		paths, err := filepath.Glob(filepath.Join(build.Default.GOROOT, "src/archive", kind, "testdata/*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			b := NewBudget(DefaultLimits(), t.TempDir())
			readAll(t, b, p)
			if codes := codesOf(b.Reasons()); slices.Contains(codes, sbom.ReasonFailed) {
				t.Errorf("%s: %q", p, codes)
			}
			n++
		}
	}
	if n == 0 {
		t.Skip("this Go has no sources")
	}
	t.Logf("%d files", n)
}

// TestCancelled: the end of the context is an error and never a reason.
func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := NewBudget(DefaultLimits(), t.TempDir())
	data := strings.NewReader(string(zipOf(t, map[string]string{"a": "1"})))
	if _, err := b.Open(ctx, data, data.Size(), "a.zip"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got := b.Reasons(); len(got) > 0 {
		t.Errorf("reasons %q", got)
	}
	if !errors.Is(b.Err(), context.Canceled) {
		t.Errorf("Err is %v", b.Err())
	}
}

// TestFullDisk: a disk of our own that fails is an error, never the artifact's fault.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	missing := path.Join(t.TempDir(), "gone")
	b := NewBudget(DefaultLimits(), missing)
	data := gzipped(t, tarOf(t, member{name: "big", data: string(noise(9 << 20))}))
	_, err := b.Open(t.Context(), strings.NewReader(string(data)), int64(len(data)), "a.tar.gz")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if got := b.Reasons(); len(got) > 0 {
		t.Errorf("reasons %q", got)
	}
	b = NewBudget(DefaultLimits(), t.TempDir())
	_, err = b.Open(t.Context(), brokenDisk{strings.NewReader(string(data))}, int64(len(data)), "a.tar.gz")
	if !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	noRemains(t, b)
}

var errBroken = errors.New("input/output error")

// brokenDisk fails behind the first kilobytes.
type brokenDisk struct{ r io.ReaderAt }

func (d brokenDisk) ReadAt(p []byte, off int64) (int, error) {
	if off > 4096 || off+int64(len(p)) > 1<<20 {
		return 0, errBroken
	}
	return d.r.ReadAt(p, off)
}
