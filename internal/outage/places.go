package outage

import "context"

// Places bounds how many calls are under way at one time: as many as its capacity.
// Its length is how many are.
type Places chan struct{}

// Take waits for a place until ctx is done, and then returns the error of ctx. It takes
// none for a caller who is gone already. A place that was taken is given back with
// Release.
func (p Places) Take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err // a select would choose at random
	}
	select {
	case p <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Release gives a place back.
func (p Places) Release() { <-p }
