package server

import (
	"context"
	"errors"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog/posix"
)

// retryAge is how old a pending row is before it counts as left behind: nothing that
// runs is at it any more, finishTimeout being shorter.
const retryAge = time.Minute

// recovered says what became of the pending rows that were looked at.
type recovered struct{ finished, left int }

// recover finishes what was begun before a time, or all where that is zero, through
// the normal path. The
// service is not ready until it has done so for all that a crash interrupted, and
// does it every minute for what failed while it ran.
//
// A row that cannot be finished is logged, and left for the next time: it is one
// attestation that nobody was given, and no reason to refuse all others. An error is
// returned only where the log or the database itself is at fault.
func (s *sealer) recover(ctx context.Context, begunBefore time.Time) (recovered, error) {
	var out recovered
	all, err := s.store.PendingAttestations(ctx)
	if err != nil {
		return out, err
	}
	for _, p := range all {
		if !begunBefore.IsZero() && !p.CreatedAt.Before(begunBefore) {
			continue
		}
		_, err := s.alone(ctx, p.ID, func(ctx context.Context) (sealed, error) { return s.again(ctx, p.ID) })
		if err == nil {
			out.finished++
			continue
		}
		if err := s.broken(ctx, err); err != nil {
			return out, err
		}
		out.left++
		s.logger.ErrorContext(ctx, "pending attestation cannot be finished and stays pending",
			"attestation_id", p.ID, "begun", p.CreatedAt, "error", err.Error())
	}
	return out, nil
}

// broken returns an error where it is not one row that failed, but what all need.
func (s *sealer) broken(ctx context.Context, err error) error {
	switch refusal.CodeOf(err) {
	case posix.CodeCorrupt, posix.CodeRolledBack:
		return err
	}
	return errors.Join(ctx.Err(), s.log.Health(), s.store.Health())
}
