package store

import (
	"bufio"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

func fileSize(tb testing.TB, path string) int64 {
	tb.Helper()
	info, err := os.Stat(path)
	must(tb, err)
	return info.Size()
}

// TestFullDatabase lets a batch run out of room after a Begin, a Complete and an
// ask have changed the writer's memory: all are refused, nothing of them is left,
// and once there is room each of them succeeds.
func TestFullDatabase(t *testing.T) {
	s := openNew(t)
	ctx := context.Background()
	must(t, s.SaveDecision(ctx, &Decision{ID: "d", Key: "k"}))
	begun, fresh := testPending(1), testPending(2)
	begun.Record.SBOM = &SBOM{Components: []Component{component("a", "1", "MIT")}}
	fresh.Record.SBOM = begun.Record.SBOM
	must(t, s.BeginAttestation(ctx, begun))
	generation := s.Generation()
	setLimit := func(pages int64) {
		must(t, s.w.do(ctx, 0, func(c *conn) error {
			var dest [1]driver.Value
			if _, err := c.row("PRAGMA page_count", dest[:]); err != nil {
				return err
			}
			_, err := c.row(fmt.Sprintf("PRAGMA max_page_count = %d", dest[0].(int64)+pages), dest[:])
			return err
		}))
	}
	setLimit(3)

	release := hold(t, s)
	errs := make(chan error, 4)
	for i, f := range []func() error{
		func() error { return s.BeginAttestation(ctx, fresh) },
		func() error { return s.CompleteAttestation(ctx, begun.ID, 1, []byte("b"), LogHead{}) },
		func() error { return s.RecordAsk(ctx, Ask{DecisionID: "d", Caller: "new"}) },
		func() error { return s.SaveDecision(ctx, &Decision{ID: "big", Answer: make([]byte, 1<<20)}) },
	} {
		go func() { errs <- f() }()
		waitQueued(t, s, i+1)
	}
	release()
	for range 4 {
		wantCode(t, <-errs, CodeStorageFull)
	}
	must(t, s.Health())
	if s.Generation() != generation {
		t.Fatal("the generation moved")
	}
	_, err := s.Attestation(ctx, begun.ID)
	wantCode(t, err, CodeNotFound)
	search := ComponentSearch{Components: purlIDs(t, s, "pkg:npm/a@1")}
	diff(t, hitIDs(searchAll(t, s, search)), []string(nil))

	setLimit(1 << 20)
	must(t, s.RecordAsk(ctx, Ask{DecisionID: "d", Caller: "new"}))
	must(t, s.BeginAttestation(ctx, fresh))
	must(t, s.CompleteAttestation(ctx, begun.ID, 1, []byte("b"), LogHead{}))
	must(t, s.SaveDecision(ctx, &Decision{ID: "big", Answer: make([]byte, 1<<20)}))
	must(t, s.CompleteAttestation(ctx, fresh.ID, 2, []byte("b"), LogHead{}))
	diff(t, hitIDs(searchAll(t, s, search)), []string{fresh.ID, begun.ID})
	must(t, s.Check(ctx))
}

// TestFullDisk fills a small file system, and then makes room in it.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=6m,mode=0700"); err != nil {
		t.Skipf("no file system of a known size: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	ballast := filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 2<<20), 0o600))
	s := openAt(t, filepath.Join(dir, "assay.db"))
	ctx := context.Background()
	var stored []*Attestation
	bundle := make([]byte, 20<<10)
	put := func(i int) error {
		p := testPending(i)
		if err := s.BeginAttestation(ctx, p); err != nil {
			return err
		}
		if err := s.CompleteAttestation(ctx, p.ID, int64(i), bundle, LogHead{}); err != nil {
			return err
		}
		stored = append(stored, p.Record)
		return nil
	}
	i := 0
	var err error
	for ; err == nil && i < 10000; i++ {
		err = put(i)
	}
	wantCode(t, err, CodeStorageFull)
	wantCode(t, s.SaveDecision(ctx, &Decision{ID: "d", Answer: make([]byte, 1<<20)}), CodeStorageFull)
	must(t, s.Health())
	for _, a := range stored {
		_, err := s.Attestation(ctx, a.ID)
		must(t, err)
	}
	must(t, os.Remove(ballast))
	must(t, put(i+1))
	must(t, s.Check(ctx))
}

// TestFailedFlush makes the kernel refuse a flush, in a process of its own.
func TestFailedFlush(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	path := filepath.Join(t.TempDir(), "assay.db")
	cmd := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=60+",
		os.Args[0], "-test.run", "^TestChild$")
	cmd.Env = append(os.Environ(), "STORE_TEST_CHILD=fail:"+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "ptrace") {
			t.Skipf("strace may not trace here: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "failed as promised") {
		t.Fatalf("%s", out)
	}
	// What was acknowledged before is there.
	s := openAt(t, path)
	must(t, s.Check(context.Background()))
	for _, id := range acknowledged(string(out)) {
		must(t, checkAcknowledged(context.Background(), s, "complete", id))
	}
}

func acknowledged(out string) (ids []string) {
	for line := range strings.Lines(out) {
		if id, ok := strings.CutPrefix(line, "ack "); ok && strings.HasSuffix(id, "\n") {
			ids = append(ids, strings.TrimSpace(id))
		}
	}
	return ids
}

// TestKill kills a process that writes from several goroutines, at ten moments, and
// looks in its file each time: what it had acknowledged is there, and is found by its
// components. The index is folded at every other SBOM, so that folds and merges are
// killed too.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "assay.db")
	ctx := context.Background()
	total := 0
	for round := range 10 {
		acked := killedChild(t, path, round)
		total += len(acked)
		s := openAt(t, path)
		for _, line := range acked {
			kind, id, _ := strings.Cut(line, " ")
			if err := checkAcknowledged(ctx, s, kind, id); err != nil {
				t.Fatalf("round %d: %q was acknowledged: %v", round, line, err)
			}
		}
		pending, err := s.PendingAttestations(ctx)
		must(t, err)
		for _, p := range pending {
			must(t, s.CompleteAttestation(ctx, p.ID, 1, []byte(p.ID), LogHead{}))
			must(t, findByComponents(ctx, s, p.ID))
		}
		must(t, s.Check(ctx))
		all, more, err := s.ListAttestations(ctx, Query{PageSize: maxPageSize})
		must(t, err)
		hits := searchAll(t, s, ComponentSearch{License: "MIT", PageSize: maxPageSize})
		if more == "" && len(hits) != len(all) {
			t.Fatalf("round %d: %d SBOMs of %d", round, len(hits), len(all))
		}
		must(t, s.Close())
	}
	if total < 100 {
		t.Fatalf("only %d writes in all rounds", total)
	}
	t.Logf("%d acknowledged writes", total)
}

func checkAcknowledged(ctx context.Context, s *Store, kind, id string) error {
	switch kind {
	case "complete":
		a, err := s.Attestation(ctx, id)
		if err != nil || string(a.Bundle) != id {
			return fmt.Errorf("bundle %q: %w", a.Bundle, err)
		}
		return findByComponents(ctx, s, id)
	case "begin":
		pending, err := s.PendingAttestations(ctx)
		if slices.ContainsFunc(pending, func(p *Pending) bool { return p.ID == id }) {
			return nil
		}
		if err == nil {
			_, err = s.Attestation(ctx, id)
		}
		return err
	case "asks":
		var decision string
		var n int64
		if _, err := fmt.Sscan(id, &decision, &n); err != nil {
			return err
		}
		d, err := s.Decision(ctx, decision)
		if err == nil && d.AskCount < n {
			return fmt.Errorf("only %d asks", d.AskCount)
		}
		return err
	case "session":
		if err := s.CreateSession(ctx, [16]byte{255}, nil, testClock(), id, testClock()); refusal.CodeOf(err) != CodeTokenReplayed {
			return fmt.Errorf("used again: %w", err)
		}
		return nil
	}
	return errors.New("unknown kind")
}

// childSBOM has a component that no other has, one that all have, and a licence.
func childSBOM(id string) *SBOM {
	return &SBOM{Components: []Component{component("own", id), component("common", "1", "MIT")}}
}

func findByComponents(ctx context.Context, s *Store, id string) error {
	own, found, err := s.ComponentByPURL(ctx, component("own", id).PURL)
	if err != nil || !found {
		return fmt.Errorf("its component is not known: %w", err)
	}
	for _, q := range []ComponentSearch{{Components: []int64{own.ID}}, {Components: []int64{own.ID}, License: "MIT"}} {
		hits, _, err := s.SearchComponents(ctx, q)
		if err != nil || len(hits) != 1 || hits[0].Attestation.ID != id {
			return fmt.Errorf("%d hits: %w", len(hits), err)
		}
	}
	return nil
}

// killedChild starts the child, kills it at some moment after its first writes and
// returns what it printed.
func killedChild(t *testing.T, path string, round int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestChild$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("STORE_TEST_CHILD=write%d:%s", round, path))
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var lines []string
	sc := bufio.NewScanner(stdout)
	killAfter := 20 + rand.IntN(400)
	for sc.Scan() {
		lines = append(lines, sc.Text())
		if len(lines) == killAfter {
			must(t, cmd.Process.Kill())
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatalf("the child ended by itself: %q", lines)
	}
	return lines
}

// TestChild is what the tests above run in a process of its own.
func TestChild(t *testing.T) {
	mode, path, ok := strings.Cut(os.Getenv("STORE_TEST_CHILD"), ":")
	if !ok {
		t.Skip("not a child")
	}
	s, err := Open(context.Background(), Config{Path: path, Now: testClock})
	must(t, err)
	bounds := testBounds()
	bounds.foldSBOMs = 2
	smallBounds(t, s, bounds)
	if mode == "fail" {
		childFails(t, s)
		return
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() { childWrites(s, mode, g) })
	}
	wg.Wait()
}

// say prints a line in one write.
func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, format+"\n", args...) }

// childWrites writes until it is killed.
func childWrites(s *Store, mode string, g int) {
	ctx := context.Background()
	decision := fmt.Sprintf("%s-%d", mode, g)
	if err := s.SaveDecision(ctx, &Decision{ID: decision, Key: decision}); err != nil {
		say("error %v", err)
		return
	}
	for i := 1; ; i++ {
		p := testPending(0)
		p.ID = number(decision, i)
		p.Record.ID, p.Record.SBOM = "", childSBOM(p.ID)
		if err := s.BeginAttestation(ctx, p); err != nil {
			say("error %v", err)
			return
		}
		say("begin %s", p.ID)
		if err := s.CompleteAttestation(ctx, p.ID, 1, []byte(p.ID), LogHead{}); err != nil {
			say("error %v", err)
			return
		}
		say("complete %s", p.ID)
		if err := s.RecordAsk(ctx, Ask{DecisionID: decision, Caller: decision, At: time.Now()}); err != nil {
			say("error %v", err)
			return
		}
		say("asks %s %d", decision, i)
		key := fmt.Sprintf("%s-%d", decision, i)
		if err := s.CreateSession(ctx, [16]byte([]byte(p.ID)), nil, testClock(), key, testClock()); err != nil {
			say("error %v", err)
			return
		}
		say("session %s", key)
	}
}

// childFails writes until a flush fails, and checks what is promised from then on.
func childFails(t *testing.T, s *Store) {
	ctx := context.Background()
	var err error
	var last string
	for i := 0; err == nil && i < 1000; i++ {
		p := testPending(i)
		p.Record.SBOM = childSBOM(p.ID)
		if err = s.BeginAttestation(ctx, p); err != nil {
			break
		}
		if err = s.CompleteAttestation(ctx, p.ID, 1, []byte(p.ID), LogHead{}); err == nil {
			last = p.ID
			say("ack %s", last)
		}
	}
	wantCode(t, err, CodeStorageFailed)
	wantCode(t, s.Health(), CodeStorageFailed)
	wantCode(t, s.SaveDecision(ctx, &Decision{ID: "d"}), CodeStorageFailed)
	wantCode(t, s.RecordAsk(ctx, Ask{DecisionID: "d"}), CodeStorageFailed)
	_, err = s.Attestation(ctx, last)
	must(t, err)
	say("failed as promised")
}
