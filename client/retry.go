package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	maxAttempts = 5
	retryBase   = 200 * time.Millisecond
	retryCap    = 5 * time.Second
	// maxRetryAfter bounds a server's RetryInfo; every deadline comes sooner.
	maxRetryAfter = 24 * time.Hour
)

// retrier repeats calls that failed as UNAVAILABLE. Its clock, its sleep and its
// dice are fields so that tests need not wait.
type retrier struct {
	attempts int
	now      func() time.Time
	// sleep waits for d, or less if ctx ends first; it then returns ctx's error.
	sleep func(ctx context.Context, d time.Duration) error
	// below returns a random duration in [0, d).
	below func(d time.Duration) time.Duration
}

func newRetrier(now func() time.Time) retrier {
	return retrier{attempts: maxAttempts, now: now, sleep: sleep, below: rand.N[time.Duration]}
}

// do calls fn until it succeeds, fails for good, or no attempt is left that
// could start before the deadline of ctx. The error is always fn's last one: that
// a deadline made us stop is of less use than what kept failing.
func (r *retrier) do(ctx context.Context, fn func(context.Context) error) error {
	for attempt := 1; ; attempt++ {
		err := fn(ctx)
		var e *Error
		if err == nil || !errors.As(err, &e) || !e.Retryable {
			return err
		}
		if attempt >= r.attempts {
			return fmt.Errorf("gave up after %d attempts: %w", attempt, err)
		}
		wait := r.backoff(attempt) + e.RetryAfter
		if deadline, ok := ctx.Deadline(); ok && r.now().Add(wait).After(deadline) {
			return fmt.Errorf("gave up after %d attempts, no time left for another: %w", attempt, err)
		}
		if r.sleep(ctx, wait) != nil {
			return err
		}
	}
}

// backoff is full jitter: uniformly random below a bound that doubles, so that
// clients which failed together do not come back together.
func (r *retrier) backoff(attempt int) time.Duration {
	return r.below(min(retryCap, retryBase<<(attempt-1)))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
