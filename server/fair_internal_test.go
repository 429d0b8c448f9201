package server

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom/sandbox"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"
)

func testFair(units int64) *fair {
	return newFair(units, 1000, time.Hour, sandbox.CodeScannerBusy, "the test")
}

// line has somebody wait, and writes down when it is served; it keeps what it was given
// until something is received from done.
type line struct {
	f      *fair
	served chan string
	done   chan struct{}
}

func newLine(f *fair) *line {
	return &line{f: f, served: make(chan string, 1000), done: make(chan struct{})}
}

func (l *line) join(t *testing.T, of party, units int64, name string) {
	t.Helper()
	go func() {
		release, err := l.f.acquire(context.Background(), of, units)
		if err != nil {
			l.served <- err.Error()
			return
		}
		l.served <- name
		<-l.done
		release()
	}()
	synctest.Wait()
}

// next ends one that was served, and says who is next.
func (l *line) next() string {
	l.done <- struct{}{}
	synctest.Wait()
	select {
	case name := <-l.served:
		return name
	default:
		return ""
	}
}

// forgotten: what nobody has or waits for any more is not kept.
func forgotten(t testing.TB, f *fair) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.free != f.units || len(f.tenants) != 0 {
		t.Errorf("%d of %d are free, %d tenants are remembered", f.free, f.units, len(f.tenants))
	}
}

// TestFairBetweenTenants: one behind two hundred of another tenant waits for the one
// that is under way, and for no other.
func TestFairBetweenTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := testFair(1)
		l := newLine(f)
		for i := range 200 {
			l.join(t, party{"crowd", fmt.Sprint("repository ", i%50)}, 1, "crowd")
		}
		if first := <-l.served; first != "crowd" || f.waiting() != 199 {
			t.Fatalf("%s, %d wait", first, f.waiting())
		}
		l.join(t, party{"single", "repository"}, 1, "single")
		if got := l.next(); got != "single" {
			t.Errorf("%s is served first", got)
		}
		// Nor does the crowd wait for one that always comes again.
		for range 5 {
			l.join(t, party{"single", "repository"}, 1, "single")
			l.join(t, party{"single", "another"}, 1, "single")
			crowd := 0
			for range 4 {
				if l.next() == "crowd" {
					crowd++
				}
			}
			if crowd < 2 {
				t.Fatalf("%d of 4 turns are the crowd's", crowd)
			}
		}
		for f.waiting() > 0 {
			l.next()
		}
		l.next()
		forgotten(t, f)
	})
}

// TestFairInside: the callers of a tenant take turns, and each is served in order.
func TestFairInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := testFair(1)
		l := newLine(f)
		for i := range 4 {
			l.join(t, party{"t", "many"}, 1, fmt.Sprint("many ", i))
		}
		for i := range 2 {
			l.join(t, party{"t", "few"}, 1, fmt.Sprint("few ", i))
		}
		got := []string{<-l.served}
		for range 5 {
			got = append(got, l.next())
		}
		if s := fmt.Sprint(got); s != "[many 0 few 0 many 1 few 1 many 2 many 3]" {
			t.Error(s)
		}
		l.next()
		forgotten(t, f)
	})
}

// TestFairLarge: what needs much is waited for, and not passed over for what needs
// little; what needs more than there is gets all.
func TestFairLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := testFair(10)
		l := newLine(f)
		l.join(t, party{"a", ""}, 6, "a")
		l.join(t, party{"b", ""}, 1000, "b")
		for range 3 {
			l.join(t, party{"c", ""}, 1, "c")
		}
		if a := <-l.served; a != "a" || len(l.served) != 0 {
			t.Fatalf("%s, and %d more", a, len(l.served))
		}
		if b := l.next(); b != "b" || len(l.served) != 0 {
			t.Fatalf("%s, and %d more", b, len(l.served))
		}
		if c := l.next(); c != "c" || len(l.served) != 2 {
			t.Fatalf("%s, and %d more", c, len(l.served))
		}
		for range 3 {
			l.next()
		}
		forgotten(t, f)
	})
}

// TestFairRefuses: a tenant has only so many waiting, nobody waits for ever, and who
// goes away is not in the way of the next.
func TestFairRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFair(1, 2, time.Minute, sandbox.CodeScannerBusy, "artifacts")
		holds, err := f.acquire(t.Context(), party{"t", "a"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		ends := make(chan error, 3)
		gone, cancel := context.WithCancel(t.Context())
		for _, ctx := range []context.Context{gone, t.Context()} {
			go func() {
				_, err := f.acquire(ctx, party{"t", "a"}, 1)
				ends <- err
			}()
		}
		synctest.Wait()
		if _, err := f.acquire(t.Context(), party{"t", "b"}, 1); refusal.CodeOf(err) != sandbox.CodeScannerBusy {
			t.Errorf("a third of one tenant: %v", err)
		}
		cancel()
		if err := <-ends; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-ends; refusal.CodeOf(err) != sandbox.CodeScannerBusy { // a minute later
			t.Error(err)
		}
		if f.waiting() != 0 {
			t.Errorf("%d wait", f.waiting())
		}
		holds()
		holds() // once is enough, twice does no harm
		forgotten(t, f)
	})
}

// TestFairCounts: whatever comes and goes, no more is given than there is, and in the
// end all of it is back.
func TestFairCounts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		units := rapid.Int64Range(1, 8).Draw(t, "units")
		f := testFair(units)
		var used atomic.Int64
		var group errgroup.Group
		for i := range rapid.IntRange(1, 40).Draw(t, "askers") {
			of := party{fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "tenant")), fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "caller"))}
			n := rapid.Int64Range(1, 10).Draw(t, "wants")
			leaves := rapid.Bool().Draw(t, "leaves")
			group.Go(func() error {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if leaves {
					go cancel()
				}
				release, err := f.acquire(ctx, of, n)
				if err != nil {
					if leaves && errors.Is(err, context.Canceled) {
						return nil
					}
					return fmt.Errorf("asker %d: %w", i, err)
				}
				defer release()
				if has := used.Add(min(n, units)); has > units {
					return fmt.Errorf("%d of %d are given", has, units)
				}
				used.Add(-min(n, units))
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.free != units || len(f.tenants) != 0 {
			t.Fatalf("%d of %d are free, %d tenants are remembered", f.free, units, len(f.tenants))
		}
	})
}
