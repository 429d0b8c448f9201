package store

import (
	"fmt"
	"slices"
	"testing"
)

// TestIDsByOrigin: no number of claims displaces what the service made, and the other
// way round, where either is asked for.
func TestIDsByOrigin(t *testing.T) {
	t.Parallel()
	c := newCrowd(t)
	var made, said []string
	for i := range 3 {
		made = append([]string{c.add("p", hashed)}, made...)
		for j := range 4 {
			said = append([]string{c.add(fmt.Sprint("q", i, j), claimed)}, said...)
		}
	}
	for _, tt := range []struct {
		origin Origin
		limit  int
		want   []string
	}{
		{Hashed, 3, made}, {Hashed, 100, made}, {Claimed, 12, said}, {Claimed, 100, said},
	} {
		got, err := c.s.AttestationIDsBySHA256(t.Context(), c.sha256, "", tt.origin, tt.limit)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("origin %d, at most %d: %d ids, want %d (%v)", tt.origin, tt.limit, len(got), len(tt.want), err)
		}
	}
	if got, err := c.s.AttestationIDsBySHA256(t.Context(), c.sha256, "", AnyOrigin, 100); err != nil || len(got) != len(made)+len(said) {
		t.Errorf("%d ids of any origin (%v)", len(got), err)
	}
}
