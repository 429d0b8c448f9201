package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// hold stops the writer inside an op until release is called. What a test left in
// the queue may still fill it.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	entered, leave := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for {
			err := s.w.do(context.Background(), 0, func(*conn) error { close(entered); <-leave; return nil })
			if refusal.CodeOf(err) != CodeStoreBusy {
				done <- err
				return
			}
			runtime.Gosched()
		}
	}()
	<-entered
	return func() { close(leave); must(t, <-done) }
}

// TestOneBadOpAmongMany puts good writes, refused writes and one that fails in an
// unforeseen way into one batch.
func TestOneBadOpAmongMany(t *testing.T) {
	s := openNew(t)
	ctx := context.Background()
	must(t, s.SaveDecision(ctx, &Decision{ID: "d", Key: "k"}))
	must(t, s.CreateSession(ctx, [16]byte{1}, nil, testClock(), "used", testClock()))
	release := hold(t, s)

	const n = 20
	errs := make(chan error, 4*n)
	send := func(want refusal.Code, f func() error) {
		go func() {
			if err := f(); refusal.CodeOf(err) != want || (want == "" && err != nil) {
				errs <- fmt.Errorf("got %w, want code %q", err, want)
				return
			}
			errs <- nil
		}()
	}
	for i := range n {
		send("", func() error { return s.BeginAttestation(ctx, testPending(i)) })
		send("", func() error { return s.RecordAsk(ctx, Ask{DecisionID: "d", Caller: "c", At: testClock()}) })
		send(CodeNotFound, func() error { return s.RecordAsk(ctx, Ask{DecisionID: "none", Caller: "c"}) })
		send(CodeTokenReplayed, func() error { return s.CreateSession(ctx, [16]byte{2}, nil, testClock(), "used", testClock()) })
	}
	clash := make(chan error, 1)
	go func() {
		// The session ID is taken: the credential must not be used up by this.
		clash <- s.CreateSession(ctx, [16]byte{1}, nil, testClock(), "unused", testClock())
	}()
	waitQueued(t, s, 4*n+1)
	release()
	for range 4 * n {
		must(t, <-errs)
	}
	if err := <-clash; err == nil || refusal.CodeOf(err) != "" {
		t.Fatalf("got %v, want an error that is no refusal", err)
	}
	must(t, s.CreateSession(ctx, [16]byte{3}, nil, testClock(), "unused", testClock()))
	pending, err := s.PendingAttestations(ctx)
	must(t, err)
	d, err := s.Decision(ctx, "d")
	must(t, err)
	if len(pending) != n || d.AskCount != n {
		t.Fatalf("%d pending and %d asks, want %d of each", len(pending), d.AskCount, n)
	}
	for _, p := range pending {
		must(t, s.CompleteAttestation(ctx, p.ID, 1, []byte("b"), LogHead{}))
	}
	must(t, s.Check(ctx))
}

// waitQueued waits until n ops are in the queue.
func waitQueued(t *testing.T, s *Store, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); len(s.w.queue) < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d queued", len(s.w.queue), n)
		}
		runtime.Gosched()
	}
}

func TestContextEndsInQueue(t *testing.T) {
	s := openNew(t)
	release := hold(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.BeginAttestation(ctx, testPending(1)) }()
	waitQueued(t, s, 1)
	cancel()
	err := <-done
	wantCode(t, err, CodeStoreBusy)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v does not say why", err)
	}
	wantCode(t, s.BeginAttestation(ctx, testPending(1)), CodeStoreBusy)
	release()
	pending, err := s.PendingAttestations(context.Background())
	must(t, err)
	if len(pending) != 0 {
		t.Fatal("what was refused was written")
	}
	must(t, s.BeginAttestation(context.Background(), testPending(1)))
}

func TestQueueIsBounded(t *testing.T) {
	s := openNew(t)
	release := hold(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	var busy atomic.Int64
	for range maxQueuedOps + 10 {
		wg.Go(func() {
			err := s.RecordAsk(ctx, Ask{DecisionID: "d"})
			if refusal.CodeOf(err) == CodeStoreBusy && !errors.Is(err, context.Canceled) {
				if busy.Add(1) == 10 {
					cancel()
				}
			}
		})
	}
	wg.Wait()
	release()
	if busy.Load() != 10 {
		t.Fatalf("%d refused, want 10", busy.Load())
	}
	// Bytes are bounded too; a single write is always taken.
	release = hold(t, s)
	first := make(chan error, 1)
	go func() { first <- s.w.do(context.Background(), maxQueuedBytes+1, func(*conn) error { return nil }) }()
	for s.w.bytes.Load() < maxQueuedBytes {
		runtime.Gosched()
	}
	wantCode(t, s.w.do(context.Background(), 1, nil), CodeStoreBusy)
	release()
	must(t, <-first)
	if n := s.w.bytes.Load(); n != 0 {
		t.Fatalf("%d bytes are still counted", n)
	}
}

func TestClosedStoreRefuses(t *testing.T) {
	s := openNew(t)
	must(t, s.Close())
	wantCode(t, s.BeginAttestation(context.Background(), testPending(1)), CodeStoreClosed)
	must(t, s.Close())
}

// TestCloseFinishesTheQueue closes while writes wait: each is answered, and what
// was acknowledged is there.
func TestCloseFinishesTheQueue(t *testing.T) {
	path := t.TempDir() + "/assay.db"
	s := openAt(t, path)
	var acked atomic.Int64
	var wg sync.WaitGroup
	release := hold(t, s)
	for i := range 50 {
		wg.Go(func() {
			if s.BeginAttestation(context.Background(), testPending(i)) == nil {
				acked.Add(1)
			}
		})
	}
	waitQueued(t, s, 50)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	release()
	wg.Wait()
	must(t, <-closed)
	pending, err := openAt(t, path).PendingAttestations(context.Background())
	must(t, err)
	if int64(len(pending)) != acked.Load() || acked.Load() != 50 {
		t.Fatalf("%d acknowledged, %d stored", acked.Load(), len(pending))
	}
}

func TestConcurrentWritesAndReads(t *testing.T) {
	s := openNew(t)
	ctx := context.Background()
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 30 {
				p := testPending(g*1000 + i)
				generation := s.GenerationOf(p.Record.Subjects[0].SHA256)
				if err := errors.Join(s.BeginAttestation(ctx, p), s.CompleteAttestation(ctx, p.ID, int64(i), []byte(p.ID), LogHead{})); err != nil {
					t.Error(err)
					return
				}
				// Acknowledged, so visible, and no cache of before is good.
				a, err := s.Attestation(ctx, p.ID)
				if err != nil || string(a.Bundle) != p.ID || s.GenerationOf(p.Record.Subjects[0].SHA256) == generation {
					t.Errorf("after its write: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	must(t, s.Check(ctx))
	if err := s.Health(); err != nil {
		t.Fatal(err)
	}
}

// TestCheckpoints writes more than the write-ahead log is let to grow to, and sees
// that it was written over from its start.
func TestCheckpoints(t *testing.T) {
	if testing.Short() {
		t.Skip("writes some hundred MiB")
	}
	path := t.TempDir() + "/assay.db"
	s := openAt(t, path)
	bundle := make([]byte, 512<<10)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 100 {
				p := testPending(g*1000 + i)
				if err := errors.Join(s.BeginAttestation(context.Background(), p), s.CompleteAttestation(context.Background(), p.ID, 1, bundle, LogHead{})); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if size := fileSize(t, path+"-wal"); size > 2*backstopPages*4096 {
		t.Fatalf("the write-ahead log is %d MiB long", size>>20)
	}
	must(t, s.Check(context.Background()))
}

// TestCancelledReads cancels reads at any moment while others read: no row may
// reach a reader that did not ask for it (as in CVE-2025-47907).
func TestCancelledReads(t *testing.T) {
	s := openNew(t)
	const n = 8
	for i := range n {
		put(t, s, testPending(i), int64(i))
	}
	var wg sync.WaitGroup
	for g := range n {
		wg.Go(func() {
			want := testPending(g)
			for i := range 500 {
				ctx, cancel := context.WithCancel(context.Background())
				if i%2 == 0 {
					go cancel()
				}
				a, err := s.Attestation(ctx, want.ID)
				if err == nil && (a.ID != want.ID || string(a.Bundle) != "bundle "+want.ID) {
					t.Errorf("asked for %s, got %s", want.ID, a.ID)
				}
				if refusal.CodeOf(err) == CodeNotFound {
					t.Error("a cancelled read said that there is no such row")
				}
				list, _, err := s.AttestationsBySHA256(ctx, want.Record.Subjects[0].SHA256, "", 10)
				if err == nil && (len(list) != 1 || list[0].ID != want.ID) {
					t.Errorf("asked for the digest of %s, got %d rows", want.ID, len(list))
				}
				cancel()
			}
		})
	}
	wg.Wait()
}
