package posix_test

import (
	"context"
	"sync"
	"testing"

	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
)

// waiting is a context that tells when somebody begins to wait for its end.
type waiting struct {
	context.Context
	once  sync.Once
	begun chan struct{}
}

func newWaiting(ctx context.Context) *waiting {
	return &waiting{Context: ctx, begun: make(chan struct{})}
}

func (w *waiting) Done() <-chan struct{} {
	w.once.Do(func() { close(w.begun) })
	return w.Context.Done()
}

// An Add that was abandoned and repeated while its entry was on the way gives one
// entry, and Find waits for it.
func TestAddJoins(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	l := open(t, config(t, s))
	body := []byte("asked for twice")
	s.gate.Lock() // nothing leaves the log before the gate opens

	ctx, cancel := context.WithCancel(t.Context())
	first, left := newWaiting(ctx), make(chan error, 1)
	go func() {
		_, err := l.Add(first, body)
		left <- err
	}()
	<-first.begun
	cancel()
	if err := <-left; err == nil {
		t.Fatal("an abandoned Add has an answer")
	}
	if _, _, err := l.Find(ctx, tlog.LeafHash(body), 0); err == nil {
		t.Error("Find answered for an entry whose outcome is open")
	}

	second, third := newWaiting(t.Context()), newWaiting(t.Context())
	entries := make(chan *posix.Entry, 1)
	go func() {
		e, err := l.Add(second, body)
		if err != nil {
			t.Error(err)
		}
		entries <- e
	}()
	found := make(chan bool, 1)
	go func() {
		index, ok, err := l.Find(third, tlog.LeafHash(body), 0)
		found <- ok && index == 0 && err == nil
	}()
	<-second.begun
	<-third.begun
	s.gate.Unlock()
	e := <-entries
	if e == nil || e.Index != 0 {
		t.Fatalf("entry %+v, want that of the first Add", e)
	}
	mustVerify(t, l, e)
	if !<-found {
		t.Error("Find did not find what it waited for")
	}
	if e := add(t, l, "another"); e.Index != 1 {
		t.Errorf("the next entry is %d: the body is in the log twice", e.Index)
	}
	if e := add(t, l, string(body)); e.Index != 2 {
		t.Errorf("entry %d: an Add joined one that had ended", e.Index)
	}
}

func TestRootAt(t *testing.T) {
	t.Parallel()
	cfg := config(t, newSigner(t))
	l := open(t, cfg)
	first := add(t, l, "a")
	add(t, l, "b")
	closeLog(t, l)
	l = open(t, cfg)
	root, err := l.RootAt(t.Context(), first.TreeSize)
	if err != nil || string(root) != string(first.RootHash) {
		t.Errorf("root %x, %v; want %x", root, err, first.RootHash)
	}
	if _, err := l.RootAt(t.Context(), 3); err == nil {
		t.Error("a root of more entries than there are")
	}
}
