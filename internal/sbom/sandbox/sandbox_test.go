package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/check"
)

// world is a Sandbox with what it was told and what it told.
type world struct {
	*Sandbox
	base string
	log  *bytes.Buffer

	mu    sync.Mutex
	usage []Usage
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := &world{base: t.TempDir(), log: new(bytes.Buffer)}
	cfg := Config{
		TempDir: w.base,
		Logger:  slog.New(slog.NewTextHandler(w.log, nil)),
		Observe: func(u Usage) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.usage = append(w.usage, u)
		},
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if w.Sandbox, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	w.usage = nil // of the probe
	t.Cleanup(func() {
		w.empty(t)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(w.base); err != nil || len(left) > 0 {
			t.Errorf("after Close: %v, %v", left, err)
		}
	})
	return w
}

// empty checks that no child left anything.
func (w *world) empty(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(w.dir.path); err != nil || len(left) > 0 {
		t.Errorf("the temporary directory holds %v, %v", left, err)
	}
}

func (w *world) last() Usage {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.usage) == 0 {
		return Usage{}
	}
	return w.usage[len(w.usage)-1]
}

func artifact(t *testing.T, data string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "artifact")
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tell has a child run a task of this test, and returns what it says.
func (w *world) tell(t *testing.T, task, with string) string {
	t.Helper()
	_, reason, err := w.ask(t.Context(), artifact(t, "some bytes"), request{Task: task, Name: with})
	var r *refusal.Error
	if reason != nil || !errors.As(err, &r) || r.Code != CodeScannerUnavailable {
		t.Fatalf("task %s: %v, %v", task, reason, err)
	}
	return strings.TrimPrefix(r.Detail, "the scanning process: ")
}

// short is for children that are to run into their time limit.
func short(c *Config) { c.Limits.Time, c.Limits.Grace = 150*time.Millisecond, 150*time.Millisecond }

// roomy leaves room for the stacks that threads have with cgo.
func roomy(c *Config) { c.Limits.Memory = 8 << 30 }

func small(c *Config) { c.Limits.Output = 64 << 10 }

// TestEnds has children end in every way they can, and asks for the right word for it,
// for a clean directory and for the next child to be none the worse.
func TestEnds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		task   string
		change func(*Config)
		reason sbom.ReasonCode
		detail string
	}{
		"hangs":                 {"hang", short, sbom.ReasonTime, "longer than it may"},
		"hangs with files":      {"litter", short, sbom.ReasonTime, "longer than it may"},
		"computes":              {"spin", short, sbom.ReasonTime, "longer than it may"},
		"closes its output":     {"mute", short, sbom.ReasonTime, "longer than it may"},
		"answers and stays":     {"linger", short, sbom.ReasonTime, "longer than it may"},
		"allocates":             {"allocate", nil, sbom.ReasonMemory, "more memory"},
		"allocates at once":     {"allocate-one", nil, sbom.ReasonMemory, "more memory"},
		"recurses":              {"recurse", nil, sbom.ReasonCrashed, "exit status 2"},
		"starts threads":        {"threads", roomy, sbom.ReasonCrashed, "exit status 2"},
		"panics":                {"panic", nil, sbom.ReasonCrashed, "exit status 2"},
		"exits":                 {"exit", nil, sbom.ReasonCrashed, "exit status 7"},
		"exits as if well":      {"exit-well", nil, sbom.ReasonCrashed, "without an answer"},
		"answers and fails":     {"answer-fail", nil, sbom.ReasonCrashed, "exit status 7"},
		"prints garbage":        {"garbage", nil, sbom.ReasonCrashed, "an answer that is none"},
		"prints without end":    {"flood", small, sbom.ReasonCrashed, "longer than an answer may be"},
		"spaces without end":    {"spaces", small, sbom.ReasonCrashed, "longer than an answer may be"},
		"answers twice":         {"twice", nil, sbom.ReasonCrashed, "data after the answer"},
		"answers nothing":       {"nothing", nil, sbom.ReasonCrashed, "must be an inventory"},
		"answers everything":    {"everything", nil, sbom.ReasonCrashed, "must be an inventory"},
		"refuses an artifact":   {"refuse", nil, sbom.ReasonCrashed, "nothing can be refused"},
		"breaks the model":      {"unsorted", nil, sbom.ReasonCrashed, "breaks a rule"},
		"many tiny components":  {"tiny", nil, sbom.ReasonCrashed, "list of more than"},
		"unknown member":        {"unknown", nil, sbom.ReasonCrashed, "an answer that is none"},
		"duplicate member":      {"duplicate", nil, sbom.ReasonCrashed, "an answer that is none"},
		"cuts its answer short": {"cut", nil, sbom.ReasonCrashed, "without an answer"},
		"shouts on stderr":      {"shout", nil, sbom.ReasonCrashed, "exit status 7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if raceDetector && tt.reason == sbom.ReasonMemory {
				t.Skip("memory is not limited under the race detector")
			}
			w := newWorld(t, tt.change)
			a, reason, err := w.ask(t.Context(), artifact(t, "x"), request{Task: tt.task})
			if err != nil || a != nil || reason == nil {
				t.Fatalf("answer %v, reason %v, error %v", a, reason, err)
			}
			if reason.Code != tt.reason || !strings.Contains(reason.Detail, tt.detail) {
				t.Errorf("reason %s %q, want %s … %q\n%s", reason.Code, reason.Detail, tt.reason, tt.detail, w.log)
			}
			u := w.last()
			if u.Outcome != string(tt.reason) || u.Memory <= 0 || u.Wall <= 0 {
				t.Errorf("usage %+v", u)
			}
			if u.Memory >= 512<<20 && !raceDetector {
				t.Errorf("%d MiB resident", u.Memory>>20)
			}
			w.empty(t)
			w.limits = DefaultLimits()
			if got := w.tell(t, "env", ""); !strings.HasPrefix(got, "TMPDIR=") {
				t.Errorf("the next child: %q", got)
			}
		})
	}
}

// TestScan takes the way that the service takes, to the end.
func TestScan(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	path := artifact(t, strings.Repeat("nothing that anybody knows\n", 40))
	inv, err := w.Scan(t.Context(), path, "notes.txt")
	if err != nil {
		t.Fatal(err)
	}
	if inv.Complete() || len(inv.Components) != 0 || len(inv.Incomplete) != 1 || inv.Incomplete[0].Code != sbom.ReasonOpaque {
		t.Errorf("inventory %+v", inv)
	}
	if u := w.last(); u.Outcome != "ok" || u.Memory <= 0 || u.Memory >= 512<<20 && !raceDetector || u.CPU <= 0 {
		t.Errorf("usage %+v", u)
	}

	lock := artifact(t, `{"name":"app","version":"1.0.0","lockfileVersion":3,"packages":{"":{"name":"app","version":"1.0.0","dependencies":{"left-pad":"^1.3.0"}},"node_modules/left-pad":{"version":"1.3.0","license":"WTFPL"}}}`)
	if inv, err = w.Scan(t.Context(), lock, "package-lock.json"); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(inv.Components, func(c sbom.Component) bool { return c.PURL == "pkg:npm/left-pad@1.3.0" }) {
		t.Errorf("inventory %+v", inv)
	}
	if inv, err := w.Scan(t.Context(), path, strings.Repeat("n", 1<<20)+"\xff"); err != nil || inv.Complete() {
		t.Errorf("a name of 1 MiB: %+v, %v", inv, err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	want := check.Want{PredicateType: "https://cyclonedx.org/bom"}
	inv, report, err := w.Check(t.Context(),
		artifact(t, `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"library","name":"a","version":"1","purl":"pkg:npm/a@1"}]}`), want)
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.Components) != 1 || inv.Components[0].PURL != "pkg:npm/a@1" || report.SpecVersion != "1.6" || report.Components != 1 {
		t.Errorf("%+v, %+v", inv, report)
	}
	_, _, err = w.Check(t.Context(), artifact(t, `<bom/>`), want)
	if got := refusal.CodeOf(err); got != check.CodeSBOMFormatUnsupported {
		t.Errorf("XML: %v", err)
	}
	if u := w.last(); u.Outcome != "refused" {
		t.Errorf("usage %+v", u)
	}
	w.limits.Time, w.limits.Grace = time.Nanosecond, time.Nanosecond
	if _, _, err = w.Check(t.Context(), artifact(t, `{}`), want); refusal.CodeOf(err) != CodeSBOMUncheckable {
		t.Errorf("no time: %v", err)
	}
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	file := artifact(t, "x")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"none": filepath.Join(t.TempDir(), "none"), "symlink": link, "fifo": fifo, "directory": t.TempDir()} {
		if _, err := w.Scan(t.Context(), path, "x"); refusal.CodeOf(err) != CodeScannerUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.command = []string{filepath.Join(t.TempDir(), "no-program"), childArg}
	if _, err := w.Scan(t.Context(), file, "x"); refusal.CodeOf(err) != CodeScannerUnavailable || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
	if got := outcome(t.Context(), nil, refusal.New(CodeScannerUnavailable, "x")); got != "failed" {
		t.Errorf("outcome %q", got)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cfg  Config
		want string
	}{
		"no directory":        {Config{}, "no directory"},
		"isolation":           {Config{TempDir: t.TempDir(), Isolation: "some"}, `"some"`},
		"no program":          {Config{TempDir: t.TempDir(), Command: []string{"/nonexistent", "scan"}}, "did not start"},
		"another program":     {Config{TempDir: t.TempDir(), Command: []string{"/bin/echo", "scan"}}, "does not answer as a scanning process"},
		"a program that ends": {Config{TempDir: t.TempDir(), Command: []string{"/bin/false", "scan"}}, "exit status 1"},
		"a program that waits": {Config{TempDir: t.TempDir(), Command: []string{"/bin/cat"}},
			"answer that is none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.cfg.Logger = slog.New(slog.DiscardHandler)
			s, err := New(tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v; want %q", s, err, tt.want)
			}
			if tt.cfg.TempDir == "" {
				return
			}
			if left, err := os.ReadDir(tt.cfg.TempDir); err != nil || len(left) > 0 {
				t.Errorf("it left %v, %v", left, err)
			}
		})
	}
}

// TestQueue fills a Sandbox of one worker.
func TestQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Workers, c.Queue = 1, 1 })
	file := artifact(t, "x")
	ctx, cancel := context.WithCancel(t.Context())
	ends := make(chan error, 2)
	ask := func(ctx context.Context) {
		_, reason, err := w.ask(ctx, file, request{Task: "hang"})
		if err == nil {
			err = fmt.Errorf("reason %v", reason)
		}
		ends <- err
	}
	w.workers <- struct{}{} // one that runs
	go ask(ctx)
	for w.waiting.Load() == 0 {
		unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	if _, err := w.Scan(t.Context(), file, "x"); refusal.CodeOf(err) != CodeScannerBusy || !strings.Contains(err.Error(), "1 artifacts wait") {
		t.Errorf("beyond the queue: %v", err)
	}
	cancel()
	if err := <-ends; refusal.CodeOf(err) != CodeScannerBusy || !errors.Is(err, context.Canceled) {
		t.Errorf("in the queue: %v", err)
	}

	// And one that runs when its caller goes away.
	<-w.workers
	ctx, cancel = context.WithCancel(t.Context())
	go ask(ctx)
	awaitChild(t, w)
	cancel()
	if err := <-ends; !errors.Is(err, context.Canceled) || refusal.CodeOf(err) != "" {
		t.Errorf("while running: %v", err)
	}
	if u := w.last(); u.Outcome != "canceled" {
		t.Errorf("usage %+v", u)
	}
	if got := w.tell(t, "env", ""); got == "" {
		t.Error("nothing works afterwards")
	}
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Workers, c.Queue = 3, 100 })
	file := artifact(t, strings.Repeat("x", 1<<10))
	n := 100
	if raceDetector {
		n = 20 // each starts for a second
	}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			inv, err := w.Scan(t.Context(), file, "x")
			if err != nil || len(inv.Incomplete) != 1 || inv.Incomplete[0].Code != sbom.ReasonOpaque {
				t.Errorf("%+v, %v", inv, err)
			}
		})
	}
	wg.Wait()
	if len(w.usage) != n {
		t.Fatalf("%d children", len(w.usage))
	}
	slices.SortFunc(w.usage, func(a, b Usage) int { return int(a.Wall - b.Wall) })
	t.Logf("%d scans of 1 KiB, 3 at a time: median %v, last %v", n, w.usage[n/2].Wall, w.usage[n-1].Wall)
}

// TestSweep finds the directory of a process that is no more, and that of one that is.
func TestSweep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	dead := filepath.Join(w.base, dirPrefix+"dead")
	foreign := filepath.Join(w.base, "foreign")
	for _, dir := range []string{filepath.Join(dead, "job-1", "a", "b"), foreign} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d, err := openTempDir(w.base)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a crash left is still there: %v", err)
	}
	for _, dir := range []string{foreign, w.dir.path} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	if err := errors.Join(d.close(), os.Remove(foreign)); err != nil {
		t.Error(err)
	}
}
