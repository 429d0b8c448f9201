package identity

import (
	"container/list"
	"context"
	"sync"
	"time"
)

const (
	// slotWait is how long a question waits for its turn. A job can wait that long
	// for its session; what it asks with does not grow old by it.
	slotWait = 2 * time.Second
	// slotQueue is how many may wait for one slot: as many as answers of an eighth of
	// a second let through in slotWait. Who would come later is told so at once.
	slotQueue = 16
)

// slots bounds the questions under way to somebody else's service. They are asked
// for callers who are not known yet, so each waits in the lane of whoever it seems
// to be for, and a full lane keeps nobody out of another. Turns are given in order of
// arrival, but for those of a lane that has its share already.
type slots struct {
	limit int           // under way
	share int           // of these, of one lane
	queue int           // waiting, in one lane
	wait  time.Duration // for a turn

	mu      sync.Mutex
	busy    int
	arrived uint64
	// lanes are never removed: their names are of the configuration.
	lanes map[string]*lane
}

type lane struct {
	busy    int
	waiting list.List // of *turn, in order of arrival
}

type turn struct {
	number uint64
	come   chan struct{} // closed when it has
}

func newSlots(limit, share int) *slots {
	share = max(1, min(share, limit))
	return &slots{limit: limit, share: share, queue: slotQueue * share, wait: slotWait, lanes: make(map[string]*lane)}
}

// take waits for a turn. ok is false if the lane is full, or the turn did not come
// before the wait or ctx was over; otherwise release must be called once.
func (s *slots) take(ctx context.Context, name string) (release func(), ok bool) {
	s.mu.Lock()
	l := s.lanes[name]
	if l == nil {
		l = new(lane)
		s.lanes[name] = l
	}
	s.arrived++
	t := &turn{number: s.arrived, come: make(chan struct{})}
	place := l.waiting.PushBack(t)
	s.advance()
	full := l.waiting.Len() > s.queue
	if full {
		l.waiting.Remove(place) // the last one, so that it is t that has to go
	}
	s.mu.Unlock()
	if full {
		return nil, false
	}
	release = func() { s.release(l) }

	timer := time.NewTimer(s.wait)
	defer timer.Stop()
	select {
	case <-t.come:
		return release, true
	case <-timer.C:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-t.come: // at this moment
		return release, true
	default:
		l.waiting.Remove(place)
		return nil, false
	}
}

func (s *slots) release(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	l.busy--
	s.advance()
}

// advance gives what is free to whoever came first. The caller holds s.mu.
func (s *slots) advance() {
	for s.busy < s.limit {
		var next *lane
		for _, l := range s.lanes {
			if l.waiting.Len() > 0 && l.busy < s.share && (next == nil || l.first().number < next.first().number) {
				next = l
			}
		}
		if next == nil {
			return
		}
		close(next.first().come)
		next.waiting.Remove(next.waiting.Front())
		next.busy++
		s.busy++
	}
}

func (l *lane) first() *turn { return l.waiting.Front().Value.(*turn) }
