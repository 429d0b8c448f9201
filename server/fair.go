package server

import (
	"context"
	"sync"
	"time"

	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

// fair shares out a number of units, of places or of bytes, among those who ask. Whoever
// was given nothing for the longest is next: among tenants, among the callers of one
// tenant, and at last in the order of asking. So one tenant with a thousand waiting is
// before another with a single one no more than once.
//
// What is next and does not fit yet is waited for, so that what is large is not passed
// over for ever.
type fair struct {
	units   int64
	queue   int           // how many of one tenant may wait
	longest time.Duration // for which one waits
	// full makes the refusal of one that cannot wait, or has waited for too long.
	full func(why string) error

	mu      sync.Mutex
	free    int64
	turn    uint64
	tenants map[string]*sharer // those who have something, or wait
}

// party is for whom something is asked.
type party struct{ tenant, caller string }

func partyOf(c *identity.Caller) party { return party{tenant: tenantOf(c), caller: shareOf(c)} }

// sharer is a tenant, or a caller of one.
type sharer struct {
	served, born uint64 // turns
	has, waiting int
	callers      map[string]*sharer // of a tenant
	line         []*waiter          // of a caller
}

type waiter struct {
	party
	units int64
	given chan struct{}
}

func newFair(units int64, queue int, longest time.Duration, code refusal.Code, what string) *fair {
	units = max(1, units)
	return &fair{
		units: units, free: units, queue: queue, longest: longest, tenants: make(map[string]*sharer),
		full: func(why string) error { return refusal.New(code, "%s: %s", what, why) },
	}
}

// acquire waits for units, of which nobody is given more than there are.
func (f *fair) acquire(ctx context.Context, of party, units int64) (release func(), err error) {
	w := &waiter{party: of, units: min(units, f.units), given: make(chan struct{})}
	if err := f.join(w); err != nil {
		return nil, err
	}
	limit := time.NewTimer(f.longest)
	defer limit.Stop()
	select {
	case <-w.given:
		if ctx.Err() == nil {
			return sync.OnceFunc(func() { f.giveBack(w) }), nil
		}
		err = ctx.Err()
	case <-ctx.Done():
		err = ctx.Err()
	case <-limit.C:
		err = f.full("nothing became free for " + f.longest.String())
	}
	f.leave(w)
	return nil, err
}

func (f *fair) join(w *waiter) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	tenant := f.sharer(f.tenants, w.tenant)
	if tenant.waiting >= f.queue {
		return f.full("too many of this account wait already")
	}
	if tenant.callers == nil {
		tenant.callers = make(map[string]*sharer)
	}
	caller := f.sharer(tenant.callers, w.caller)
	caller.line = append(caller.line, w)
	tenant.waiting++
	caller.waiting++
	f.give()
	return nil
}

func (f *fair) sharer(among map[string]*sharer, name string) *sharer {
	s := among[name]
	if s == nil {
		f.turn++
		s = &sharer{born: f.turn}
		among[name] = s
	}
	return s
}

// leave takes back what was asked for, whether or not it was given meanwhile.
func (f *fair) leave(w *waiter) {
	f.mu.Lock()
	tenant := f.tenants[w.tenant]
	caller := tenant.callers[w.caller]
	for i, other := range caller.line {
		if other == w {
			caller.line = append(caller.line[:i], caller.line[i+1:]...)
			tenant.waiting--
			caller.waiting--
			f.forget(w.party)
			f.give() // it may have been in the way
			f.mu.Unlock()
			return
		}
	}
	f.mu.Unlock()
	f.giveBack(w)
}

func (f *fair) giveBack(w *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free += w.units
	f.tenants[w.tenant].has--
	f.tenants[w.tenant].callers[w.caller].has--
	f.forget(w.party)
	f.give()
}

// forget drops those who neither have anything nor wait. Whoever does is remembered:
// otherwise one who leaves and comes again would always be new, and first.
func (f *fair) forget(of party) {
	tenant := f.tenants[of.tenant]
	if caller := tenant.callers[of.caller]; caller.has == 0 && caller.waiting == 0 {
		delete(tenant.callers, of.caller)
	}
	if len(tenant.callers) == 0 {
		delete(f.tenants, of.tenant)
	}
}

// give gives what is free to who is next.
func (f *fair) give() {
	for {
		tenant := next(f.tenants)
		if tenant == nil {
			return
		}
		caller := next(tenant.callers)
		w := caller.line[0]
		if w.units > f.free {
			return
		}
		f.free -= w.units
		f.turn++
		for _, s := range [...]*sharer{tenant, caller} {
			s.served = f.turn
			s.has++
			s.waiting--
		}
		caller.line = caller.line[1:]
		close(w.given)
	}
}

// next is who waits and was served the longest ago; of those who never were, who came
// first.
func next(among map[string]*sharer) *sharer {
	var first *sharer
	for _, s := range among {
		if s.waiting > 0 && (first == nil || s.served < first.served || s.served == first.served && s.born < first.born) {
			first = s
		}
	}
	return first
}

// waiting is how many wait.
func (f *fair) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, t := range f.tenants {
		n += t.waiting
	}
	return n
}

// reservation is memory for one piece of work. It is taken once: who had some and waited
// for more might wait for one who does the same.
type reservation struct {
	memory *fair
	of     party
	free   func()
}

func (r *reservation) take(ctx context.Context, bytes int64) error {
	if r.free != nil {
		return nil
	}
	var err error
	r.free, err = r.memory.acquire(ctx, r.of, bytes)
	return err
}

// takeLarge is take of what is too large to go uncounted.
func (r *reservation) takeLarge(ctx context.Context, document, bytes int64) error {
	if document <= uncounted {
		return nil
	}
	return r.take(ctx, bytes)
}

func (r *reservation) drop() {
	if r.free != nil {
		r.free()
	}
}
