package store

import (
	"context"
	"fmt"
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
	} {
		var broken int64
		if err := s.scans.QueryRowContext(ctx, rule.counts).Scan(&broken); err != nil {
			return refused(err)
		}
		if broken != 0 {
			return fmt.Errorf("store: %d rows break the rule: %s", broken, rule.says)
		}
	}
	return nil
}
