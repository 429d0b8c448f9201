package outage_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/assay-build/assay/internal/outage"
)

func TestPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		places := make(outage.Places, 3)
		var under, most atomic.Int32
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() {
				if err := places.Take(t.Context()); err != nil {
					t.Error(err)
					return
				}
				defer places.Release()
				if n := under.Add(1); n > most.Load() {
					most.Store(n)
				}
				<-time.After(time.Second)
				under.Add(-1)
			})
		}
		begun := time.Now()
		all.Wait()
		if took := time.Since(begun); most.Load() != 3 || took != 10*time.Second || len(places) != 0 {
			t.Errorf("%d at one time, %s, %d places still taken", most.Load(), took, len(places))
		}
	})
}

func TestPlacesTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		places := make(outage.Places, 1)
		if err := places.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begun := time.Now()
		if err := places.Take(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		// Those who left took nothing with them.
		places.Release()
		if err := places.Take(t.Context()); err != nil || len(places) != 1 {
			t.Errorf("%v, %d taken", err, len(places))
		}
	})
}

// A caller who is gone takes no place, though there are some.
func TestPlacesGone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	places := make(outage.Places, 1000)
	for range 1000 {
		if err := places.Take(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if len(places) != 0 {
		t.Errorf("%d taken", len(places))
	}
}
