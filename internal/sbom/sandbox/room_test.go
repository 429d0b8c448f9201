package sandbox

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/sbom"
)

// TestRoom: before a large answer is read into memory somebody is asked, once, and what
// they say counts. The child has ended by then: its time does not go on.
func TestRoom(t *testing.T) {
	t.Parallel()
	none := errors.New("no room")
	limit := 400 * time.Millisecond
	if raceDetector {
		limit *= 20
	}
	for name, tt := range map[string]struct {
		task   string
		room   func(cancel func()) error
		asked  int
		err    error
		reason sbom.ReasonCode
	}{
		"small":        {"probe", func(func()) error { return none }, 0, nil, ""},
		"room":         {"large", func(func()) error { return nil }, 1, nil, ""},
		"room at last": {"large", func(func()) error { <-time.After(limit + limit/2); return nil }, 1, nil, ""}, // longer than the child may take
		"no room":      {"large", func(func()) error { return none }, 1, none, ""},
		"gone":         {"large", func(cancel func()) error { cancel(); return context.Canceled }, 1, context.Canceled, ""},
		"cut":          {"large, cut", func(func()) error { return nil }, 1, nil, sbom.ReasonCrashed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *Config) { c.Limits.Time, c.Limits.Grace = limit, limit/4 })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			asked := 0
			a, reason, err := w.ask(WithRoom(ctx, func(_ context.Context, answer int64) error {
				asked++
				if answer <= 3*maxUnasked || answer > 4*maxUnasked {
					t.Errorf("asked for %d bytes", answer)
				}
				return tt.room(cancel)
			}), artifact(t, "x"), request{Task: tt.task})
			if asked != tt.asked || !errors.Is(err, tt.err) {
				t.Errorf("asked %d times; %v", asked, err)
			}
			if (a != nil) != (tt.err == nil && tt.reason == "") || reason != nil && reason.Code != tt.reason || reason == nil && tt.reason != "" {
				t.Errorf("answer %v, reason %v", a, reason)
			}
			w.empty(t)
		})
	}
}
