package posix_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/tessera/fsck"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
)

var formats = []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2}

func TestAddGivesAProvenEntry(t *testing.T) {
	t.Parallel()
	for _, format := range formats {
		t.Run(string(format), func(t *testing.T) {
			cfg := config(t, newSigner(t))
			cfg.Format = format
			l := open(t, cfg)
			for i := range 5 {
				e := add(t, l, fmt.Sprintf("entry %d", i))
				mustVerify(t, l, e)
				if e.Index != uint64(i) || (len(e.SET) > 0) != (format == tlog.RekorV1) {
					t.Fatalf("entry %d: index %d, SET of %d bytes", i, e.Index, len(e.SET))
				}
			}
			if l.Size() != 5 {
				t.Errorf("size %d", l.Size())
			}
		})
	}
}

// Every entry verifies against its own checkpoint and against the final tree,
// entries of one batch share a checkpoint, and no index is given twice.
func TestManyWriters(t *testing.T) {
	const writers, each = 64, 200
	s := newSigner(t)
	cfg := config(t, s)
	cfg.Format = tlog.RekorV2
	l := open(t, cfg)
	entries := make([]*posix.Entry, writers*each)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				e, err := l.Add(t.Context(), []byte(strings.Repeat("x", (w+i)%700)+fmt.Sprintf("%d/%d", w, i)))
				if err == nil {
					err = verifyEntry(l, e)
				}
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				entries[w*each+i] = e
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	seen := make([]bool, writers*each)
	checkpoints := map[uint64]string{}
	for _, e := range entries {
		if seen[e.Index] {
			t.Fatalf("index %d was given twice", e.Index)
		}
		seen[e.Index] = true
		if cp, ok := checkpoints[e.TreeSize]; ok && cp != e.Checkpoint {
			t.Fatalf("two checkpoints of %d entries", e.TreeSize)
		}
		checkpoints[e.TreeSize] = e.Checkpoint
	}
	if l.Size() != writers*each {
		t.Fatalf("size %d", l.Size())
	}
	t.Logf("%d entries, %d checkpoints", len(entries), len(checkpoints))
	for _, e := range entries {
		again, err := l.Entry(t.Context(), e.Index)
		if err != nil {
			t.Fatal(err)
		}
		if again.TreeSize != writers*each || string(again.Body) != string(e.Body) {
			t.Fatalf("entry %d read back differs", e.Index)
		}
		if err := tlog.VerifyInclusion(e.Index, again.TreeSize, e.LeafHash, again.Hashes, again.RootHash); err != nil {
			t.Fatal(err)
		}
	}
	closeLog(t, l)
	checkDir(t, cfg.Dir, s)
}

func TestRestartContinues(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	cfg := config(t, s)
	n := 0
	var roots []*posix.Entry
	// Past one full tile, so that the right edge is reloaded on two levels.
	for _, batch := range []int{1, 2, 253, 1, 60} {
		l := open(t, cfg)
		if l.Size() != uint64(n) {
			t.Fatalf("reopened with %d entries, want %d", l.Size(), n)
		}
		var wg sync.WaitGroup
		for i := range batch - 1 {
			wg.Go(func() {
				if _, err := l.Add(t.Context(), fmt.Appendf(nil, "%d/%d", n, i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		e := add(t, l, "the last of this run")
		if n += batch; e.Index != uint64(n-1) {
			t.Fatalf("index %d after a restart, want %d", e.Index, n-1)
		}
		mustVerify(t, l, e)
		roots = append(roots, e)
		for _, old := range roots { // earlier entries are still there, in the same place
			again, err := l.Entry(t.Context(), old.Index)
			if err != nil {
				t.Fatal(err)
			}
			mustVerify(t, l, again)
			if again.LeafHash != old.LeafHash {
				t.Fatalf("entry %d changed", old.Index)
			}
		}
		closeLog(t, l)
		checkDir(t, cfg.Dir, s)
	}
}

func TestEntryAndFind(t *testing.T) {
	t.Parallel()
	l := open(t, config(t, newSigner(t)))
	var entries []*posix.Entry
	for _, body := range []string{"a", "b", "a", "c"} {
		entries = append(entries, add(t, l, body))
	}
	tests := []struct {
		body  string
		from  uint64
		index uint64
		found bool
	}{
		{"a", 0, 0, true}, {"a", 1, 2, true}, {"b", 0, 1, true}, {"c", 3, 3, true},
		{"b", 2, 0, false}, {"a", 3, 0, false}, {"a", 4, 0, false}, {"a", 1 << 60, 0, false}, {"absent", 0, 0, false},
	}
	for _, tt := range tests {
		index, found, err := l.Find(t.Context(), tlog.LeafHash([]byte(tt.body)), tt.from)
		if err != nil || index != tt.index || found != tt.found {
			t.Errorf("Find(%q, %d) = %d, %v, %v", tt.body, tt.from, index, found, err)
		}
	}
	for _, e := range entries {
		got, err := l.Entry(t.Context(), e.Index)
		if err != nil {
			t.Fatal(err)
		}
		mustVerify(t, l, got)
		if string(got.Body) != string(e.Body) || len(got.SET) == 0 {
			t.Errorf("entry %d: body %q, SET of %d bytes", e.Index, got.Body, len(got.SET))
		}
	}
	_, err := l.Entry(t.Context(), 4)
	wantCode(t, err, posix.CodeEntryUnknown)
	_, err = l.Entry(t.Context(), 1<<63)
	wantCode(t, err, posix.CodeEntryUnknown)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := l.Find(ctx, tlog.LeafHash([]byte("a")), 0); err == nil {
		t.Error("Find went on after its context ended")
	}
}

func TestEntryLimits(t *testing.T) {
	t.Parallel()
	l := open(t, config(t, newSigner(t)))
	_, err := l.Add(t.Context(), make([]byte, tlog.MaxEntryBytes+1))
	wantCode(t, err, posix.CodeEntryTooLarge)
	_, err = l.Add(t.Context(), nil)
	wantCode(t, err, posix.CodeEntryEmpty)
	if l.Size() != 0 {
		t.Errorf("size %d after refusals", l.Size())
	}
	e := add(t, l, strings.Repeat("x", tlog.MaxEntryBytes))
	mustVerify(t, l, e)
	if e, err = l.Entry(t.Context(), e.Index); err != nil || len(e.Body) != tlog.MaxEntryBytes {
		t.Errorf("largest entry read back: %v", err)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	t.Parallel()
	cfg := config(t, newSigner(t))
	l := open(t, cfg)
	_, err := posix.Open(t.Context(), cfg)
	wantCode(t, err, posix.CodeLocked)
	add(t, l, "the first is unharmed")
	closeLog(t, l)
	add(t, open(t, cfg), "and gives up the directory when closed")
}

func TestIdentityIsForEver(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	cfg := config(t, s)
	l := open(t, cfg)
	add(t, l, "entry")
	closeLog(t, l)

	other := cfg
	other.Signer = newSigner(t)
	_, err := posix.Open(t.Context(), other)
	wantCode(t, err, posix.CodeIdentityChanged)
	other = cfg
	other.Host = "other.example.com"
	_, err = posix.Open(t.Context(), other)
	wantCode(t, err, posix.CodeIdentityChanged)

	// The newer dialect is one setting away, and there is no way back.
	other = cfg
	other.Format = tlog.RekorV2
	l = open(t, other)
	mustVerify(t, l, add(t, l, "in the other dialect"))
	closeLog(t, l)
	_, err = posix.Open(t.Context(), cfg)
	wantCode(t, err, posix.CodeIdentityChanged)
	l = open(t, other)
	mustVerify(t, l, add(t, l, "and goes on"))
}

func TestConfigRefusals(t *testing.T) {
	t.Parallel()
	good := config(t, newSigner(t))
	tests := []struct {
		name   string
		change func(*posix.Config)
		code   refusal.Code
	}{
		{"no directory", func(c *posix.Config) { c.Dir = "" }, posix.CodeConfigInvalid},
		{"no signer", func(c *posix.Config) { c.Signer = nil }, posix.CodeConfigInvalid},
		{"unknown format", func(c *posix.Config) { c.Format = "rekor-v3" }, posix.CodeConfigInvalid},
		{"huge batches", func(c *posix.Config) { c.BatchMaxSize = 1 << 20 }, posix.CodeConfigInvalid},
		{"negative age", func(c *posix.Config) { c.BatchMaxAge = -1 }, posix.CodeConfigInvalid},
		{"hasty checkpoints", func(c *posix.Config) { c.CheckpointInterval = time.Millisecond }, posix.CodeConfigInvalid},
		{"no host", func(c *posix.Config) { c.Host = "" }, tlog.CodeLogHostInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			_, err := posix.Open(t.Context(), cfg)
			wantCode(t, err, tt.code)
		})
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	t.Parallel()
	cfg := config(t, newSigner(t))
	c := &clock{}
	cfg.Now = c.now
	l := open(t, cfg)
	for _, step := range []struct{ clock, want int64 }{{1000, 1000}, {1007, 1007}, {900, 1007}, {1007, 1007}, {1008, 1008}} {
		c.unix.Store(step.clock)
		if e := add(t, l, "entry"); e.IntegratedTime != step.want {
			t.Errorf("clock at %d: integrated at %d, want %d", step.clock, e.IntegratedTime, step.want)
		}
	}
	c.unix.Store(5)
	if e, err := l.Entry(t.Context(), 0); err != nil || e.IntegratedTime != 1008 {
		t.Errorf("entry read back: %v, %v", e, err)
	}
}

// An entry whose signature failed is in the log, and recovery finds it.
func TestKeyUnavailable(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	l := open(t, config(t, s))
	add(t, l, "before")
	s.broken.Store(true)
	_, err := l.Add(t.Context(), []byte("while the key is away"))
	wantCode(t, err, posix.CodeSignFailed)
	_, err = l.Entry(t.Context(), 1)
	wantCode(t, err, posix.CodeSignFailed)
	s.broken.Store(false)

	index, found, err := l.Find(t.Context(), tlog.LeafHash([]byte("while the key is away")), 0)
	if err != nil || !found || index != 1 {
		t.Fatalf("Find = %d, %v, %v", index, found, err)
	}
	e, err := l.Entry(t.Context(), index)
	if err != nil {
		t.Fatal(err)
	}
	mustVerify(t, l, e)
	if e := add(t, l, "after"); e.Index != 2 {
		t.Errorf("index %d", e.Index)
	}
	if l.Health() != nil {
		t.Errorf("health: %v", l.Health())
	}
}

// When the key is slow entries wait, and when too many wait they are refused:
// memory is bounded, and what was accepted is finished.
func TestOverload(t *testing.T) {
	t.Parallel()
	const callers = 4096 + 10*512 + 500 // more than wait, are being signed, and are being written
	s := newSigner(t)
	cfg := config(t, s)
	cfg.Format = tlog.RekorV2
	l := open(t, cfg)
	s.gate.Lock()
	errs := make(chan error)
	for i := range callers {
		go func() {
			_, err := l.Add(t.Context(), fmt.Appendf(nil, "%d", i))
			errs <- err
		}()
	}
	wantCode(t, <-errs, posix.CodeOverloaded) // nothing else can end before the gate opens
	s.gate.Unlock()
	accepted := 0
	for range callers - 1 {
		if err := <-errs; err == nil {
			accepted++
		} else {
			wantCode(t, err, posix.CodeOverloaded)
		}
	}
	if l.Size() != uint64(accepted) {
		t.Errorf("%d accepted, %d in the log", accepted, l.Size())
	}
}

func TestCloseAndContexts(t *testing.T) {
	t.Parallel()
	cfg := config(t, newSigner(t))
	l := open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Add(ctx, []byte("x")); err == nil {
		t.Error("Add with an ended context succeeded")
	}
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs { // close under load: each Add either succeeds for good or is refused
		wg.Go(func() { _, errs[i] = l.Add(t.Context(), []byte{1, byte(i)}) })
	}
	closeLog(t, l)
	wg.Wait()
	acked := 0
	for _, err := range errs {
		if err == nil {
			acked++
		} else {
			wantCode(t, err, posix.CodeClosed)
		}
	}
	_, err := l.Add(t.Context(), []byte("late"))
	wantCode(t, err, posix.CodeClosed)
	wantCode(t, l.Close(t.Context()), posix.CodeClosed)
	if l = open(t, cfg); l.Size() != uint64(acked) {
		t.Errorf("%d entries after %d were acknowledged", l.Size(), acked)
	}
}

// An auditor with nothing but the URL and the key checks the whole log, while it grows.
func TestAuditOverHTTP(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	l := open(t, config(t, s))
	fetcher, _ := serve(t, l.Handler())
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := l.Add(t.Context(), fmt.Appendf(nil, "%d/%d", w, i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var last uint64
	for last < 600 && !t.Failed() {
		if err := fsck.New(testHost, noteVerifier(t, s), fetcher, bundleHashes, fsck.Opts{N: 2}).Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		raw, err := fetcher.ReadCheckpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cp, err := tlog.ParseCheckpoint(string(raw))
		if err != nil {
			t.Fatal(err)
		}
		if cp.Size < last {
			t.Fatalf("the checkpoint went from %d to %d entries", last, cp.Size)
		}
		last = cp.Size
	}
	close(stop)
	wg.Wait()
}
