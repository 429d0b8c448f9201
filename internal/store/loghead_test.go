package store

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"
)

func head(size uint64) LogHead {
	return LogHead{Size: size, Root: bytes.Repeat([]byte{byte(size)}, 32)}
}

func wantHead(t *testing.T, s *Store, want LogHead) {
	t.Helper()
	heads, err := s.LogHeads(context.Background())
	must(t, err)
	if want.Size == 0 {
		if len(heads) != 0 {
			t.Fatalf("%d heads", len(heads))
		}
		return
	}
	if want.Log == nil {
		want.Log = []byte{}
	}
	for _, h := range heads {
		if string(h.Log) == string(want.Log) {
			diff(t, h, want)
			return
		}
	}
	t.Fatalf("no head of log %x", want.Log)
}

// The head of the log rises with the writes that were made with it, and never falls.
func TestLogHead(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "assay.db")
	s := openAt(t, path)
	wantHead(t, s, LogHead{})
	for i := range 4 {
		must(t, s.BeginAttestation(ctx, testPending(i)))
	}
	complete := func(i int, h LogHead) error {
		return s.CompleteAttestation(ctx, testPending(i).ID, int64(i), []byte("bundle"), h)
	}
	must(t, complete(0, LogHead{}))
	wantHead(t, s, LogHead{})
	must(t, complete(1, head(5)))
	wantHead(t, s, head(5))
	must(t, complete(2, head(4)))
	wantHead(t, s, head(5))
	seven := head(7)
	must(t, s.SaveDecision(ctx, &Decision{ID: "registered", LogHead: &seven}))
	must(t, s.SaveDecision(ctx, &Decision{ID: "not registered"}))
	wantHead(t, s, head(7))

	// What is refused raises nothing.
	nine := head(9)
	wantCode(t, s.SaveDecision(ctx, &Decision{ID: "registered", LogHead: &nine}), CodeDecisionExists)
	wantCode(t, s.CompleteAttestation(ctx, testPending(9).ID, 1, []byte("b"), nine), CodeNotFound)
	for _, bad := range []LogHead{{Size: 9}, {Root: nine.Root}, {Size: 9, Root: nine.Root[1:]}, {Size: 1 << 63, Root: nine.Root}, head(3)} {
		wantCode(t, complete(3, bad), CodeRecordInvalid)
	}
	short := LogHead{Size: 9}
	wantCode(t, s.SaveDecision(ctx, &Decision{ID: "short", LogHead: &short}), CodeRecordInvalid)

	must(t, s.Close())
	s = openAt(t, path)
	wantHead(t, s, head(7))
	must(t, complete(3, head(6)))
	wantHead(t, s, head(7))
}

// A transaction that is rolled back takes its head with it.
func TestLogHeadRollback(t *testing.T) {
	s := openNew(t)
	fault := errors.New("fault")
	err := s.w.do(context.Background(), 0, func(c *conn) error {
		s.head.raise(head(3))
		must(t, s.head.write(c))
		return fault
	})
	if !errors.Is(err, fault) {
		t.Fatal(err)
	}
	wantHead(t, s, LogHead{})
	two := head(2)
	must(t, s.SaveDecision(context.Background(), &Decision{ID: "d", LogHead: &two}))
	wantHead(t, s, head(2))
}

func TestPendingAttestation(t *testing.T) {
	ctx := context.Background()
	s := openNew(t)
	first, second := testPending(1), testPending(2)
	must(t, s.BeginAttestation(ctx, first))
	must(t, s.BeginAttestation(ctx, second))
	got, err := s.PendingAttestation(ctx, second.ID)
	must(t, err)
	diff(t, got, second)
	must(t, s.CompleteAttestation(ctx, second.ID, 2, []byte("b"), head(3)))
	_, err = s.PendingAttestation(ctx, second.ID)
	wantCode(t, err, CodeNotFound)
	_, err = s.PendingAttestation(ctx, "x")
	wantCode(t, err, CodeRecordInvalid)
}
