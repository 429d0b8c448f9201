package store

import (
	"context"
	"fmt"
	"slices"
)

// Check reads the whole database and returns an error that says what is wrong with
// it first. It takes about a second for every 100,000 attestations. Reads and
// writes go on meanwhile.
func (s *Store) Check(ctx context.Context) error {
	var found string
	if err := s.scans.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&found); err != nil {
		return refused(err)
	}
	if found != "ok" {
		return fmt.Errorf("store: integrity: %s", found)
	}
	for _, rule := range []struct{ says, counts string }{
		{"every reference is to a row", "SELECT count(*) FROM pragma_foreign_key_check"},
		{"an attestation has a bundle", "SELECT count(*) FROM attestations WHERE seq NOT IN (SELECT attestation FROM bundles)"},
		{"no attestation is both complete and pending", "SELECT count(*) FROM pending WHERE id IN (SELECT id FROM attestations)"},
		{"an attestation is pending once", "SELECT count(*) - count(DISTINCT id) FROM pending"},
		{"an ask is about a decision", "SELECT count(*) FROM asks WHERE seq >> 32 NOT IN (SELECT seq FROM decisions)"},
		{"the asks of a decision are numbered without gaps", `SELECT count(*) FROM
			(SELECT max(seq & 4294967295) <> count(*) AS gap FROM asks GROUP BY seq >> 32) WHERE gap`},
		{"SBOMs are numbered without gaps", "SELECT ifnull(max(n), 0) - count(*) FROM sboms"},
		{"a chunk of postings is in one segment", "SELECT (SELECT count(*) FROM postings) - (SELECT ifnull(sum(chunks), 0) FROM segments)"},
	} {
		var broken int64
		if err := s.scans.QueryRowContext(ctx, rule.counts).Scan(&broken); err != nil {
			return refused(err)
		}
		if broken != 0 {
			return fmt.Errorf("store: %d rows break the rule: %s", broken, rule.says)
		}
	}
	return s.checkIndex(ctx)
}

// checkIndex compares the postings of each segment with the SBOMs it is about.
func (s *Store) checkIndex(ctx context.Context) error {
	for n := int64(1); ; {
		st := s.index.state.Load()
		i := slices.IndexFunc(st.segments, func(g *segment) bool { return g.last >= n })
		if i < 0 {
			return nil // the rest is in memory, made from the rows
		}
		g := st.segments[i]
		indexed, err := s.sumOfPostings(ctx, g)
		if s.index.moved(err, st) {
			continue
		}
		if err != nil {
			return refused(err)
		}
		stored, err := s.sumOfLists(ctx, g)
		if err != nil {
			return refused(err)
		}
		if indexed != stored {
			return fmt.Errorf("store: the postings of the SBOMs %d to %d are not what these hold", g.first, g.last)
		}
		n = g.last + 1
	}
}

// postingSum is the same for the same postings in any order.
type postingSum struct{ count, sum uint64 }

func (p *postingSum) add(term uint64, n int64) {
	// The finaliser of SplitMix64: neighbouring postings do not cancel out.
	x := term*0x9e3779b97f4a7c15 ^ uint64(n)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	p.count++
	p.sum += x ^ x>>31
}

func (s *Store) sumOfPostings(ctx context.Context, g *segment) (p postingSum, err error) {
	r := &segmentReader{segment: g, read: func(id int64) ([]byte, error) { return s.chunk(ctx, id) }}
	for err = r.advance(); err == nil && !r.done; err = r.advance() {
		if err = eachPosting(r.list, g.first, g.last, func(n int64) { p.add(r.term, n) }); err != nil {
			return p, err
		}
	}
	return p, err
}

func (s *Store) sumOfLists(ctx context.Context, g *segment) (p postingSum, err error) {
	rows, err := s.scans.QueryContext(ctx, "SELECT n, components FROM sboms WHERE n BETWEEN ? AND ?", g.first, g.last)
	if err != nil {
		return p, err
	}
	err = eachRow(rows, func(row rowScanner) error {
		var n int64
		var list []byte
		if err := row.Scan(&n, &list); err != nil {
			return err
		}
		terms, err := termsOf(list)
		for _, t := range terms {
			p.add(t, n)
		}
		return err
	})
	return p, err
}
