package outage

import (
	"sync"
	"time"
)

const (
	// OpenAfter is how many outages in a row open a Breaker.
	OpenAfter = 5
	// FirstPause is how long it stays open at first; each probe that fails doubles it.
	FirstPause = time.Second
	// LongestPause bounds that.
	LongestPause = 30 * time.Second
)

// Result is what a call has shown about the service.
type Result int

const (
	// Abandoned is no verdict: the caller went away, or panicked, before anything was
	// known.
	Abandoned Result = iota
	// Answered says that the service works, even if what it said was a refusal or wrong.
	Answered
	// Failed is an outage.
	Failed
)

// Breaker remembers how calls went. The zero value is closed. It is safe for concurrent
// use; no lock is held during a call.
type Breaker struct {
	mu      sync.Mutex
	outages int           // in a row, while closed
	pause   time.Duration // zero while closed
	until   time.Time     // while open
	probing bool          // a call is under way to see whether it may close
}

// Pass is the leave to make one call. It is returned with Leave, whatever becomes of the
// call: the one that is the probe keeps all others away until then.
type Pass struct{ probe bool }

// Ready tells, without taking part, whether a call would be let through now. If not,
// wait is how long that stays so, or zero where a probe is finding out.
func (b *Breaker) Ready(now time.Time) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready(now)
}

func (b *Breaker) ready(now time.Time) (wait time.Duration, ok bool) {
	if b.pause == 0 {
		return 0, true
	}
	// A wait longer than the pause comes from a clock that was set back.
	if wait := b.until.Sub(now); wait > 0 && wait <= b.pause {
		return wait, false
	}
	return 0, !b.probing
}

// Enter lets a call through or, as Ready, does not.
func (b *Breaker) Enter(now time.Time) (p Pass, wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if wait, ok = b.ready(now); !ok {
		return Pass{}, wait, false
	}
	if b.pause > 0 {
		b.probing, p.probe = true, true
	}
	return p, 0, true
}

// Leave ends a call. It returns, for the log, how long the breaker is open if this call
// opened it or kept it open, and whether this call closed it.
func (b *Breaker) Leave(p Pass, now time.Time, r Result) (opened time.Duration, closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.probe {
		b.probing = false
	}
	switch {
	case r == Answered:
		closed = b.pause > 0
		b.outages, b.pause = 0, 0
	case r == Failed && b.pause == 0:
		if b.outages++; b.outages >= OpenAfter {
			opened = FirstPause
		}
	case r == Failed && p.probe:
		opened = min(2*b.pause, LongestPause)
	}
	// What fails while the breaker is open and is no probe was begun before, and tells
	// nothing new.
	if opened > 0 {
		b.outages, b.pause, b.until = 0, opened, now.Add(opened)
	}
	return opened, closed
}
