package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
)

const (
	maxEnvironments = 64
	// maxPassedDecisions bounds what one digest costs: everybody may ask about it.
	maxPassedDecisions  = 2000
	passedDecisionsRead = 100
)

// newestPassed goes, for each digest, from each environment to the next in the index,
// whatever the number of decisions, and takes the newest that passed.
const newestPassed = `WITH RECURSIVE e(sum, name, place) AS (
		SELECT unhex(value), (SELECT min(environment) FROM decisions INDEXED BY decisions_allowed WHERE sha256 = unhex(value) AND passed = 1), 0
		FROM json_each(?1)
		UNION ALL
		SELECT sum, (SELECT min(environment) FROM decisions INDEXED BY decisions_allowed WHERE sha256 = e.sum AND passed = 1 AND environment > e.name), place + 1
		FROM e WHERE name IS NOT NULL AND place < ?2
	), newest(seq) AS (
		SELECT (SELECT max(seq) FROM decisions INDEXED BY decisions_allowed WHERE sha256 = e.sum AND passed = 1 AND environment = e.name)
		FROM e WHERE name IS NOT NULL
	)
	SELECT d.seq, d.sha256, d.id, d.environment, d.caller FROM newest n CROSS JOIN decisions d ON d.seq = n.seq`

// olderPassed are those of one environment before some decision.
const olderPassed = `SELECT seq, sha256, id, environment, caller FROM decisions INDEXED BY decisions_allowed
	WHERE sha256 = ?1 AND passed = 1 AND environment = ?2 AND seq < ?3 ORDER BY seq DESC LIMIT +?4`

// EachPassedDecision calls f with the decisions about each digest that passed at any
// time: of each environment the newest first, until f says that it has seen enough of
// this one. Of a Decision id, digest, environment, caller and that it passed are set.
// More are the digests of which it was cut short: after 64 environments, or 2000 decisions.
func (s *Store) EachPassedDecision(ctx context.Context, sha256 []string, f func(*Decision) (enough bool, err error)) (more map[string]bool, err error) {
	for _, sum := range sha256 {
		if _, err := parseDigest("sha256", sum); err != nil {
			return nil, err
		}
	}
	in, err := json.Marshal(sha256)
	if err != nil {
		return nil, err
	}
	newest, err := s.passedDecisions(ctx, s.get.newestPassed, string(in), maxEnvironments)
	if err != nil {
		return nil, err
	}
	more = make(map[string]bool)
	read, environments := make(map[string]int), make(map[string]int)
	for _, first := range newest {
		if environments[first.SHA256]++; environments[first.SHA256] > maxEnvironments {
			more[first.SHA256] = true
			continue
		}
		n, short, err := s.untilEnough(ctx, first, maxPassedDecisions-read[first.SHA256], f)
		if err != nil {
			return nil, err
		}
		if read[first.SHA256] += n; short {
			more[first.SHA256] = true
		}
	}
	return more, nil
}

// untilEnough calls f with a decision and those of its environment before it, at most
// about limit of them.
func (s *Store) untilEnough(ctx context.Context, first passedDecision, limit int, f func(*Decision) (bool, error)) (read int, short bool, err error) {
	sum, err := parseDigest("sha256", first.SHA256)
	if err != nil {
		return 0, false, err
	}
	for batch := []passedDecision{first}; len(batch) > 0; {
		for i := range batch {
			if enough, err := f(&batch[i].Decision); err != nil || enough {
				return read, false, err
			}
		}
		if read += len(batch); read >= limit {
			return read, true, nil
		}
		last := &batch[len(batch)-1]
		if batch, err = s.passedDecisions(ctx, s.get.olderPassed, sum[:], last.Environment, last.seq, passedDecisionsRead); err != nil {
			return read, false, err
		}
	}
	return read, false, nil
}

type passedDecision struct {
	Decision
	seq int64
}

func (s *Store) passedDecisions(ctx context.Context, query *sql.Stmt, args ...any) ([]passedDecision, error) {
	rows, err := query.QueryContext(ctx, args...)
	if err != nil {
		return nil, refused(err)
	}
	return collect(rows, func(row rowScanner) (d passedDecision, err error) {
		var sum []byte
		err = row.Scan(&d.seq, &sum, &d.ID, &d.Environment, &d.Caller)
		d.SHA256, d.Passed = hex.EncodeToString(sum), true
		return d, err
	})
}
