package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

const (
	hashed  = int(assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED)
	claimed = int(assayv1.DigestOrigin_DIGEST_ORIGIN_CLAIMED)
)

func TestOriginIsThatOfTheWire(t *testing.T) {
	if originHashed != hashed {
		t.Fatalf("originHashed is %d, the wire contract says %d", originHashed, hashed)
	}
}

// crowd stores attestations of one digest.
type crowd struct {
	t      testing.TB
	s      *Store
	n      int
	sha256 string
}

func newCrowd(t testing.TB) *crowd {
	return &crowd{t: t, s: openNew(t), sha256: number("crowded", 0)}
}

// add stores what any build may attest: builder and source are the same for all.
func (c *crowd) add(principal string, origin int, change ...func(*Attestation)) string {
	c.t.Helper()
	c.n++
	p := testPending(c.n)
	p.Record.Principal, p.Record.InvocationID, p.Record.SLSABuildLevel = principal, "", 2
	p.Record.Subjects = []Subject{{Name: fmt.Sprintf("x%d", c.n), SHA256: c.sha256, Origin: origin}}
	for _, f := range change {
		f(p.Record)
	}
	put(c.t, c.s, p, int64(c.n))
	return p.ID
}

func (c *crowd) picked(limit int) []string {
	c.t.Helper()
	list, more, err := c.s.AttestationsBySHA256(context.Background(), c.sha256, "", limit)
	must(c.t, err)
	if more != (c.n > limit) || len(list) != min(limit, c.n) {
		c.t.Fatalf("%d of %d, more = %t", len(list), c.n, more)
	}
	var ids []string
	for _, a := range list {
		ids = append(ids, a.ID)
	}
	return ids
}

func (c *crowd) wantPicked(limit int, ids ...string) {
	c.t.Helper()
	got := c.picked(limit)
	for _, id := range ids {
		if !slices.Contains(got, id) {
			c.t.Errorf("%s is not among the %d that take part", id[:8], limit)
		}
	}
}

// Whoever starts a build chooses its source, and with it
// could join the group of another and, being later, take all its places.
func TestNobodyIsDisplacedByAnotherPrincipal(t *testing.T) {
	c := newCrowd(t)
	good := c.add("aws/111122223333/codebuild/app", hashed)
	for range 70 {
		c.add("aws/999988887777/codebuild/evil", hashed, func(a *Attestation) { a.SLSABuildLevel = 3 })
	}
	c.wantPicked(64, good)
	c.wantPicked(1, good)
}

// One build of a project can claim any digest, as often as it likes; it displaces
// nothing that another build of the project had the service hash.
func TestClaimsDisplaceNothingHashed(t *testing.T) {
	c := newCrowd(t)
	const principal = "aws/111122223333/codebuild/app"
	good := c.add(principal, hashed, func(a *Attestation) { a.SLSABuildLevel = 1 })
	for range 70 {
		c.add(principal, claimed, func(a *Attestation) { a.SLSABuildLevel = 3 })
	}
	c.wantPicked(1, good)
	// What was hashed beside the claim says nothing of the claim, and no unknown
	// number is taken for hashed.
	for range 70 {
		c.add(principal, claimed, func(a *Attestation) {
			a.Subjects = append(a.Subjects, Subject{Name: "own", SHA256: number("own", 1), Origin: hashed})
		})
		c.add(principal, 3)
	}
	c.wantPicked(1, good)
	// Of one digest under two names it counts that one was hashed, in either order.
	for i, origins := range [][2]int{{hashed, claimed}, {claimed, hashed}} {
		twice := c.add(principal, origins[0], func(a *Attestation) {
			a.SLSABuildLevel = 1
			a.Subjects = append(a.Subjects, Subject{Name: "again", SHA256: c.sha256, Origin: origins[1]})
		})
		c.wantPicked(2+i, good, twice)
	}
}

// A principal is never taken for the repository of a row without one.
func TestPrincipalIsNoFallbackGroup(t *testing.T) {
	c := newCrowd(t)
	old := c.add("", claimed, func(a *Attestation) { a.BuilderID, a.SourceURI = "b", "s" })
	run := c.add("", claimed, func(a *Attestation) { a.InvocationID = "https://github.com/a/b/actions/runs/1" })
	for range 10 {
		c.add("b\ns", hashed)
		c.add("https://github.com/a/b", hashed)
	}
	c.wantPicked(4, old, run)
}

// modelRow is an attestation as the rule in words sees it.
type modelRow struct {
	record                    *Attestation
	id, group                 string
	hashed, level, seq, place int
}

func drawRow(t *rapid.T, n, seq int, sha256 string) modelRow {
	r := modelRow{id: number("statement", n), level: rapid.IntRange(0, 3).Draw(t, "level"), seq: seq}
	a := &Attestation{
		SLSABuildLevel: r.level,
		Principal:      rapid.SampledFrom([]string{"", "p", "q", "r"}).Draw(t, "principal"),
		SourceURI:      rapid.SampledFrom([]string{"", "p", "s"}).Draw(t, "source"),
		Subjects:       []Subject{{Name: "x", SHA256: sha256, Origin: rapid.IntRange(0, 2).Draw(t, "origin")}},
	}
	if a.Subjects[0].Origin == hashed {
		r.hashed = 1
	}
	if r.group = "principal " + a.Principal; a.Principal == "" {
		r.group = "source " + a.SourceURI
	}
	r.record = a
	return r
}

// inTurns picks by the rule in words, and returns them the latest first.
func inTurns(rows []modelRow, limit int) []modelRow {
	rows = slices.Clone(rows)
	since, places := map[string]int{}, map[string]int{}
	for i, r := range slices.Backward(rows) {
		since[r.group] = i
	}
	slices.SortFunc(rows, func(a, b modelRow) int {
		return cmp.Or(b.hashed-a.hashed, b.level-a.level, b.seq-a.seq)
	})
	for i := range rows {
		rows[i].place = places[rows[i].group]
		places[rows[i].group]++
	}
	slices.SortFunc(rows, func(a, b modelRow) int {
		return cmp.Or(a.place-b.place, since[a.group]-since[b.group])
	})
	rows = rows[:min(limit, len(rows))]
	slices.SortFunc(rows, func(a, b modelRow) int { return b.seq - a.seq })
	return rows
}

// TestTurnsModel compares the query with the rule in words, on any mixture.
func TestTurnsModel(t *testing.T) {
	s := openNew(t)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		sha256 := number("model", n)
		rows := make([]modelRow, rapid.IntRange(1, 40).Draw(t, "rows"))
		for i := range rows {
			n++
			rows[i] = drawRow(t, n, i, sha256)
		}
		limit := rapid.IntRange(1, 40).Draw(t, "limit")
		err := s.w.do(context.Background(), 0, func(c *conn) error {
			for _, r := range rows {
				id, err := parseDigest("id", r.id)
				if err != nil {
					return err
				}
				row := &pendingRow{record: r.record, subjects: appendSubjects(nil, r.record.Subjects)}
				if _, err := insertAttestation(c, id, row, 1, []byte("b")); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got, more, err := s.AttestationsBySHA256(context.Background(), sha256, "", limit)
		if err != nil {
			t.Fatal(err)
		}
		want := inTurns(rows, limit)
		ids, err := s.AttestationIDsBySHA256(context.Background(), sha256, "", AnyOrigin, limit)
		if err != nil || len(ids) != len(got) {
			t.Fatalf("%d ids, want %d (%v)", len(ids), len(got), err)
		}
		if len(got) != len(want) || more != (len(rows) > limit) {
			t.Fatalf("%d rows, more = %t; want %d", len(got), more, len(want))
		}
		for i := range got {
			if got[i].ID != want[i].id || ids[i] != want[i].id || got[i].Principal != want[i].record.Principal {
				t.Fatalf("row %d is %s, want %+v", i, got[i].ID, want[i])
			}
		}
	})
}
