package notary

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

func (l *lab) verify(ctx context.Context, jws []byte) (*Evidence, error) {
	return l.verifier.Verify(ctx, l.envelope, jws)
}

func TestRevoked(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	signed := l.jws(t)
	l.word.say([]string{testJob, testVersion}, nil)
	ev, err := l.verify(t.Context(), signed)
	if err != nil || !ev.Valid() || !ev.Revoked() || !slices.Equal(ev.RevokedEntities(), []string{testJob, testVersion}) {
		t.Fatalf("got %+v, %v", ev, err)
	}
	l.word.say(make([]string, 1000), nil)
	l.clock.Advance(defaultRevocationTTL)
	if ev, err = l.verify(t.Context(), signed); err != nil || !ev.Revoked() || len(ev.RevokedEntities()) > maxEntities {
		t.Fatalf("got %+v, %v", ev, err)
	}
}

func TestRevocationTTL(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	signed := l.jws(t)
	ask := func(want int, revoked bool) {
		t.Helper()
		ev, err := l.verify(t.Context(), signed)
		if err != nil || ev.Revoked() != revoked || l.word.times() != want {
			t.Errorf("revoked %v, %v; asked %d times, want %d", ev.Revoked(), err, l.word.times(), want)
		}
	}
	ask(1, false)
	l.word.say([]string{testJob}, nil)
	l.clock.Advance(defaultRevocationTTL - 1)
	ask(1, false)
	l.clock.Advance(1)
	ask(2, true)
	l.clock.Advance(-time.Second) // a clock that is set back makes no answer last
	ask(3, true)
}

func TestRevocationUnknown(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	signed := l.jws(t)
	refused := func(times int) {
		t.Helper()
		ev, err := l.verify(t.Context(), signed)
		wantCode(t, err, CodeRevocationUnknown)
		if ev != nil || l.word.times() != times {
			t.Errorf("evidence %v; asked %d times, want %d", ev, l.word.times(), times)
		}
	}
	l.word.say(nil, errors.New("no network"))
	refused(1)
	refused(1)
	l.clock.Advance(maxFailureTTL)
	refused(2)
	l.word.say(nil, refusal.New(CodeThrottled, "slow down"))
	l.clock.Advance(maxFailureTTL)
	refused(3)
	l.word.say(nil, nil)
	refused(3)
	l.clock.Advance(maxFailureTTL)
	ev, err := l.verify(t.Context(), signed)
	if err != nil || !ev.Valid() {
		t.Error(err)
	}
	// What was known once does not outlive its time either.
	l.word.say(nil, errors.New("no network"))
	l.clock.Advance(defaultRevocationTTL)
	refused(5)
}

// Many verify at once, and one asks.
func TestRevocationAskedOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	signed := l.jws(t)
	if _, err := l.verify(t.Context(), signed); err != nil { // so that P-384 is out of the way
		t.Fatal(err)
	}
	l.clock.Advance(defaultRevocationTTL)
	l.word.blocking = make(chan struct{})
	impatient, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { // who asks goes away; the answer comes to the others
		_, err := l.verify(impatient, signed)
		wantCode(t, err, CodeRevocationUnknown)
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	for l.word.times() != 2 {
		runtime.Gosched()
	}
	for range 100 {
		wg.Go(func() {
			if _, err := l.verify(t.Context(), signed); err != nil {
				t.Error(err)
			}
		})
	}
	cancel()
	close(l.word.blocking)
	wg.Wait()
	for range 10_000 {
		if _, err := l.verify(t.Context(), signed); err != nil {
			t.Fatal(err)
		}
	}
	if l.word.times() != 2 {
		t.Errorf("asked %d times", l.word.times())
	}
}

// A signature in other words of JSON is no other question to AWS.
func TestRevocationOtherSpelling(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	signed := l.jws(t)
	for range 5 {
		if _, err := l.verify(t.Context(), signed); err != nil {
			t.Fatal(err)
		}
		signed = append(signed, ' ')
	}
	if l.word.times() != 1 {
		t.Errorf("asked %d times", l.word.times())
	}
}
