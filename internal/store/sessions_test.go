package store

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
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
