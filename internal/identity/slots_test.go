package identity

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// Turns come in order of arrival.
func TestSlotsInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1, 1)
		release, ok := s.take(t.Context(), "a")
		if !ok {
			t.Fatal("a free slot is not to be had")
		}
		var order []int
		for i := range slotQueue {
			go func() {
				release, ok := s.take(t.Context(), "a")
				if !ok {
					t.Errorf("%d was sent away", i)
					return
				}
				order = append(order, i)
				release()
			}()
			synctest.Wait()
		}
		if _, ok := s.take(t.Context(), "a"); ok {
			t.Error("there was room in a full lane")
		}
		release()
		synctest.Wait()
		for i, n := range order {
			if i != n {
				t.Fatalf("served in the order %v", order)
			}
		}
		if len(order) != slotQueue || s.busy != 0 {
			t.Errorf("%d were served, %d are busy", len(order), s.busy)
		}
	})
}

// Nobody waits longer than the wait, or than they want; and who went keeps no place.
func TestSlotsWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1, 1)
		release, _ := s.take(t.Context(), "a")
		start := time.Now()
		if _, ok := s.take(t.Context(), "a"); ok || time.Since(start) != slotWait {
			t.Errorf("%t after %s", ok, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if _, ok := s.take(ctx, "a"); ok || time.Since(start) != time.Second {
			t.Errorf("%t after %s", ok, time.Since(start))
		}
		release()
		again, ok := s.take(t.Context(), "a")
		if !ok {
			t.Fatal("those who went are still waited for")
		}
		again()
		if s.busy != 0 || s.lanes["a"].busy != 0 || s.lanes["a"].waiting.Len() != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A lane that asks for all there is leaves the others their part of it.
func TestSlotsShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(4, 2)
		var turns atomic.Int64
		for range 64 {
			go func() {
				if _, ok := s.take(t.Context(), "flood"); ok {
					turns.Add(1)
				}
			}()
		}
		synctest.Wait()
		for range 2 {
			if _, ok := s.take(t.Context(), "honest"); !ok {
				t.Error("sent away, with slots free")
			}
		}
		synctest.Wait()
		if turns.Load() != 2 || s.lanes["flood"].waiting.Len() != 2*slotQueue {
			t.Errorf("the flood has %d slots, %d wait", turns.Load(), s.lanes["flood"].waiting.Len())
		}
	})
}

// Whatever comes and goes: no more are under way than may be, of all and of a lane;
// and nobody waits while a slot is free that they could have.
func TestSlotsProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 6).Draw(rt, "limit")
		s := newSlots(limit, rapid.IntRange(0, 7).Draw(rt, "share"))
		s.wait = time.Hour
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var running []func()
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			if len(running) > 0 && rapid.Bool().Draw(rt, "go") {
				i := rapid.IntRange(0, len(running)-1).Draw(rt, "who")
				running[i]()
				running = append(running[:i], running[i+1:]...)
			} else {
				name := fmt.Sprint(rapid.IntRange(0, 2).Draw(rt, "lane"))
				s.mu.Lock()
				free := s.busy < s.limit && (s.lanes[name] == nil || s.lanes[name].busy < s.share)
				s.mu.Unlock()
				if free {
					release, ok := s.take(ctx, name)
					if !ok {
						rt.Fatal("sent away, with slots free")
					}
					running = append(running, release)
				} else {
					over, stop := context.WithCancel(ctx)
					stop()
					if _, ok := s.take(over, name); ok {
						rt.Fatal("a slot that was not free")
					}
				}
			}
			busy := 0
			for _, l := range s.lanes {
				if busy += l.busy; l.busy > s.share || l.waiting.Len() > 0 {
					rt.Fatalf("%+v", l)
				}
			}
			if busy != s.busy || busy != len(running) || busy > limit {
				rt.Fatalf("%d, %d and %d are busy, of %d", busy, s.busy, len(running), limit)
			}
		}
	})
}
