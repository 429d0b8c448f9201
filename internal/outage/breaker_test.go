package outage_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/outage"
)

func begin() time.Time { return time.Unix(1_700_000_000, 0) }

// open returns a breaker that has just opened.
func open(t *testing.T, now time.Time) *outage.Breaker {
	t.Helper()
	b := new(outage.Breaker)
	for range outage.OpenAfter {
		call(t, b, now, outage.Failed)
	}
	if wait, ok := b.Ready(now); ok || wait != outage.FirstPause {
		t.Fatalf("ready %t, wait %s after %d outages", ok, wait, outage.OpenAfter)
	}
	return b
}

func call(t *testing.T, b *outage.Breaker, now time.Time, r outage.Result) (opened time.Duration, closed bool) {
	t.Helper()
	p, wait, ok := b.Enter(now)
	if !ok {
		t.Fatalf("not let through for %s", wait)
	}
	return b.Leave(p, now, r)
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	now := begin()
	b := new(outage.Breaker)
	// Four outages and an answer, or a caller who went away between, open nothing.
	for range outage.OpenAfter - 1 {
		call(t, b, now, outage.Failed)
	}
	if _, closed := call(t, b, now, outage.Answered); closed {
		t.Error("closed what was not open")
	}
	for range outage.OpenAfter - 1 {
		call(t, b, now, outage.Failed)
		call(t, b, now, outage.Abandoned)
	}
	if opened, _ := call(t, b, now, outage.Failed); opened != outage.FirstPause {
		t.Fatalf("the fifth outage opened it for %s", opened)
	}
	for _, want := range []time.Duration{2, 4, 8, 16, 30, 30} {
		left, ok := b.Ready(now)
		if ok || left <= 0 {
			t.Fatal("not open")
		}
		if _, wait, ok := b.Enter(now.Add(left - 1)); ok || wait != 1 {
			t.Fatalf("let through early, or told to wait for %s", wait)
		}
		now = now.Add(left)
		if _, ok := b.Ready(now); !ok {
			t.Fatal("not ready for a probe")
		}
		probe, _, ok := b.Enter(now)
		if !ok {
			t.Fatal("no probe was let through")
		}
		if _, wait, ok := b.Enter(now); ok || wait != 0 {
			t.Fatalf("two probes at one time, or told to wait for %s", wait)
		}
		if opened, _ := b.Leave(probe, now, outage.Failed); opened != want*time.Second {
			t.Fatalf("opened again for %s, want %ds", opened, want)
		}
	}
	now = now.Add(outage.LongestPause)
	if _, closed := call(t, b, now, outage.Answered); !closed {
		t.Fatal("an answer did not close it")
	}
	for range outage.OpenAfter - 1 {
		call(t, b, now, outage.Failed)
	}
	if opened, _ := call(t, b, now, outage.Failed); opened != outage.FirstPause {
		t.Fatalf("after it was closed it opened for %s", opened)
	}
}

// A probe whose caller goes away leaves its turn to the next, and the pause as it was.
func TestBreakerAbandonedProbe(t *testing.T) {
	t.Parallel()
	now := begin()
	b := open(t, now)
	now = now.Add(outage.FirstPause)
	for range 3 {
		if opened, closed := call(t, b, now, outage.Abandoned); opened != 0 || closed {
			t.Fatal("no verdict changed something")
		}
	}
	if opened, _ := call(t, b, now, outage.Failed); opened != 2*outage.FirstPause {
		t.Errorf("open for %s", opened)
	}
}

// Calls that were under way when the breaker opened do not lengthen the pause, and one of
// them that is answered ends it.
func TestBreakerStragglers(t *testing.T) {
	t.Parallel()
	now := begin()
	b := new(outage.Breaker)
	var under []outage.Pass
	for range 32 {
		p, _, _ := b.Enter(now)
		under = append(under, p)
	}
	for _, p := range under[:outage.OpenAfter] {
		b.Leave(p, now, outage.Failed)
	}
	for _, p := range under[outage.OpenAfter:31] {
		if opened, _ := b.Leave(p, now.Add(time.Hour), outage.Failed); opened != 0 {
			t.Fatal("a call of before made the pause longer")
		}
	}
	if wait, ok := b.Ready(now); ok || wait != outage.FirstPause {
		t.Errorf("open for %s", wait)
	}
	now = now.Add(outage.FirstPause)
	probe, _, _ := b.Enter(now)
	if _, closed := b.Leave(under[31], now, outage.Answered); !closed {
		t.Error("it answers, and is not asked")
	}
	// The probe that fails now is one outage of a closed breaker.
	if opened, _ := b.Leave(probe, now, outage.Failed); opened != 0 {
		t.Error("one outage opened a closed breaker")
	}
	for range outage.OpenAfter - 2 {
		call(t, b, now, outage.Failed)
	}
	if opened, _ := call(t, b, now, outage.Failed); opened != outage.FirstPause {
		t.Error("the outage that the probe met was not counted")
	}
}

func TestBreakerClockSetBack(t *testing.T) {
	t.Parallel()
	now := begin()
	b := open(t, now)
	if _, ok := b.Ready(now.Add(-time.Hour)); !ok {
		t.Error("it waits for an hour")
	}
	if opened, _ := call(t, b, now.Add(-time.Hour), outage.Failed); opened != 2*outage.FirstPause {
		t.Errorf("that was no probe: open for %s", opened)
	}
}

func TestBreakerOneProbe(t *testing.T) {
	t.Parallel()
	b := open(t, begin())
	now := begin().Add(outage.FirstPause)
	var probes atomic.Int32
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			if _, _, ok := b.Enter(now); ok {
				probes.Add(1)
			}
		})
	}
	all.Wait()
	if n := probes.Load(); n != 1 {
		t.Errorf("%d probes", n)
	}
}
