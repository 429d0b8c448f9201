package main

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// result is one run of closed-loop callers.
type result struct {
	perSecond float64
	p50, p99  time.Duration
}

// load keeps n callers busy for d and measures each call. It stops at the first error.
func load(ctx context.Context, n int, d time.Duration, call func(ctx context.Context, worker int) error) (result, error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	start := time.Now()
	deadline := start.Add(d)
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() {
			var mine []time.Duration
			for {
				begin := time.Now()
				if begin.After(deadline) {
					break
				}
				if err := call(ctx, w); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				mine = append(mine, time.Since(begin))
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	if failed != nil {
		return result{}, failed
	}
	took := time.Since(start)
	return result{float64(len(all)) / took.Seconds(), quantile(all, .5), quantile(all, .99)}, nil
}

// median runs load several times and returns the run with the median rate.
func (c *config) median(ctx context.Context, n int, call func(ctx context.Context, worker int) error) (result, error) {
	var runs []result
	for range c.runs {
		r, err := load(ctx, n, c.seconds, call)
		if err != nil {
			return result{}, err
		}
		runs = append(runs, r)
	}
	return middle(runs), nil
}

// middle returns the run with the median rate.
func middle(runs []result) result {
	slices.SortFunc(runs, func(a, b result) int { return cmp.Compare(a.perSecond, b.perSecond) })
	return runs[len(runs)/2]
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Clone(d)
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}
