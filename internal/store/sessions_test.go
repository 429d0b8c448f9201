package store

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

func TestCredentialOpensOneSession(t *testing.T) {
	path := filepath.Join(t.TempDir(), "assay.db")
	s := openAt(t, path)
	ctx := context.Background()
	expires := testClock().Add(15 * time.Minute)
	const n = 50
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			errs[i] = s.CreateSession(ctx, [16]byte{byte(i)}, []byte(fmt.Sprint(i)), expires, "iss\x00jti", expires)
		})
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner < 0:
			winner = i
		case refusal.CodeOf(err) != CodeTokenReplayed:
			t.Fatalf("call %d got %v; %d had succeeded", i, err, winner)
		}
	}
	if winner < 0 {
		t.Fatal("none succeeded")
	}

	must(t, s.Close())
	s = openAt(t, path)
	wantCode(t, s.CreateSession(ctx, [16]byte{99}, nil, expires, "iss\x00jti", expires), CodeTokenReplayed)
	for i := range n {
		caller, at, err := s.Session(ctx, [16]byte{byte(i)})
		if i != winner {
			wantCode(t, err, CodeNotFound)
			continue
		}
		must(t, err)
		if string(caller) != fmt.Sprint(winner) || !at.Equal(expires) {
			t.Fatalf("got %q until %s", caller, at)
		}
	}
}

func TestDeleteExpired(t *testing.T) {
	s := openNew(t)
	ctx := context.Background()
	const n = purgeRows + 50
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			past := testClock().Add(-time.Duration(i+1) * time.Second)
			if err := s.CreateSession(ctx, [16]byte{1, byte(i), byte(i >> 8)}, nil, past, fmt.Sprint("old", i), past); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	must(t, s.CreateSession(ctx, [16]byte{2}, []byte("c"), testClock(), "now", testClock()))
	must(t, s.CreateSession(ctx, [16]byte{3}, []byte("c"), testClock().Add(-time.Second), "remembered", testClock().Add(time.Hour)))
	must(t, s.DeleteExpired(ctx))
	for table, want := range map[string]int{"sessions": 1, "consumed": 2} {
		var got int
		must(t, s.scans.QueryRow("SELECT count(*) FROM "+table).Scan(&got))
		if got != want {
			t.Errorf("%d rows in %s, want %d", got, table, want)
		}
	}
	_, _, err := s.Session(ctx, [16]byte{2})
	must(t, err)
	_, _, err = s.Session(ctx, [16]byte{3})
	wantCode(t, err, CodeNotFound)
	wantCode(t, s.CreateSession(ctx, [16]byte{4}, nil, testClock(), "remembered", testClock()), CodeTokenReplayed)
	must(t, s.CreateSession(ctx, [16]byte{5}, nil, testClock(), "old1", testClock()))
}

// TestConsumed asks while fifty calls use up one credential: whoever was answered,
// either way, finds it used up from then on.
func TestConsumed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "assay.db")
	s := openAt(t, path)
	ctx := context.Background()
	wantConsumed := func(key string, want bool) {
		t.Helper()
		got, err := s.Consumed(ctx, key)
		must(t, err)
		if got != want {
			t.Errorf("%q: consumed = %t", key, got)
		}
	}
	expires := testClock().Add(time.Minute)
	for round := range 5 {
		key := fmt.Sprintf("sts\x00%d", round)
		wantConsumed(key, false)
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				switch err := s.CreateSession(ctx, [16]byte{byte(round), byte(i)}, nil, expires, key, expires); {
				case err == nil:
					won.Add(1)
				case refusal.CodeOf(err) != CodeTokenReplayed:
					t.Error(err)
				}
				if found, err := s.Consumed(ctx, key); err != nil || !found {
					t.Errorf("answered, and then consumed = %t, %v", found, err)
				}
			})
			wg.Go(func() { // once it is so it stays so
				before, err := s.Consumed(ctx, key)
				after, err2 := s.Consumed(ctx, key)
				if err != nil || err2 != nil || before && !after {
					t.Errorf("%t, then %t: %v, %v", before, after, err, err2)
				}
			})
		}
		wg.Wait()
		if n := won.Load(); n != 1 {
			t.Fatalf("%d opened a session", n)
		}
		wantConsumed(key+"x", false)
	}
	must(t, s.Close())
	s = openAt(t, path)
	wantConsumed("sts\x000", true)

	// It is remembered as long as CreateSession does, expired or not.
	past := testClock().Add(-time.Second)
	must(t, s.CreateSession(ctx, [16]byte{200}, nil, past, "old", past))
	wantConsumed("old", true)
	must(t, s.DeleteExpired(ctx))
	wantConsumed("old", false)
	wantConsumed("sts\x000", true)

	// Where it is not known there is an error.
	_, err := s.Consumed(ctx, "")
	wantCode(t, err, CodeRecordInvalid)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if found, err := s.Consumed(gone, "sts\x000"); err == nil || found {
		t.Errorf("%t, %v", found, err)
	}
	must(t, s.Close())
	if found, err := s.Consumed(ctx, "sts\x000"); err == nil || found {
		t.Errorf("%t, %v", found, err)
	}
}

// A caller that is too large to keep is told so, wherever its facts would be kept,
// and does not lose the credential by it.
func TestCallerTooLarge(t *testing.T) {
	s := openNew(t)
	ctx := context.Background()
	most, over := make([]byte, MaxCallerBytes), make([]byte, MaxCallerBytes+1)
	expires := testClock().Add(time.Minute)
	wantCode(t, s.CreateSession(ctx, [16]byte{1}, over, expires, "key", expires), CodeCallerTooLarge)
	must(t, s.CreateSession(ctx, [16]byte{1}, most, expires, "key", expires))
	p := testPending(1)
	p.Record.Caller = over
	wantCode(t, s.BeginAttestation(ctx, p), CodeCallerTooLarge)
	p.Record.Caller = most
	put(t, s, p, 1)
	wantCode(t, s.SaveDecision(ctx, &Decision{ID: "d", Caller: over}), CodeCallerTooLarge)
	must(t, s.SaveDecision(ctx, &Decision{ID: "d", Caller: most}))
}
