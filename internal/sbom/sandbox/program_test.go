package sandbox

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestProgram builds assayd as it is released, has it scan, and measures it.
func TestProgram(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("builds a program")
	}
	bin := filepath.Join(t.TempDir(), "assayd")
	build := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags=-s -w", "-o", bin, "../../../cmd/assayd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(bin, childArg).CombinedOutput(); err == nil || !strings.Contains(string(out), "assayd serve") {
		t.Errorf("typed by a person: %v, %s", err, out)
	}

	w := newWorld(t, func(c *Config) { c.Command = []string{bin, childArg} })
	t.Logf("isolation here: %+v", w.Isolation())
	required, err := New(Config{Command: []string{bin, childArg}, TempDir: t.TempDir(), Isolation: IsolationRequired, Logger: slog.New(slog.DiscardHandler)})
	if (err == nil) != w.Isolation().full() {
		t.Errorf("required: %v", err)
	}
	if err == nil {
		defer required.Close()
	}
	file := artifact(t, strings.Repeat("x", 1<<10))
	for range 25 {
		if _, err := w.Scan(t.Context(), file, "x"); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(w.usage, func(a, b Usage) int { return int(a.Wall - b.Wall) })
	mid := w.usage[len(w.usage)/2]
	t.Logf("1 KiB: median %v, CPU %v, %d MiB", mid.Wall, mid.CPU, mid.Memory>>20)
	if mid.Wall > 250*time.Millisecond {
		t.Errorf("a scan of 1 KiB takes %v", mid.Wall)
	}
}

// TestConfinedStatic repeats TestConfined without cgo, which is how the programs are
// built: only so does Landlock hold all threads on every kernel.
func TestConfinedStatic(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("builds a program")
	}
	bin := filepath.Join(t.TempDir(), "sandbox.test")
	build := exec.Command("go", "test", "-c", "-vet=off", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(bin, "-test.run=^(TestConfined|TestFilesOutOfReach|TestCapabilities|TestIsolationIsKept|TestEnds|TestDescriptors|TestNoNetwork|TestScan|TestHostile)$", "-test.v", "-test.short").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if line, _, ok := strings.Cut(string(out), "isolation here: "); ok {
		t.Logf("without cgo: isolation %.60s", strings.TrimPrefix(string(out), line))
	}
}
