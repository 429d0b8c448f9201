package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeDecisionExists: a decision with this ID is stored.
const CodeDecisionExists refusal.Code = "DECISION_EXISTS"

const (
	maxDecisionID  = 256
	maxDecisionKey = 64 << 10
)

// SaveDecision stores an answer, so that later asks with its key can share it
// until it expires. It is durable when SaveDecision returns nil.
func (s *Store) SaveDecision(ctx context.Context, d *Decision) error {
	if err := checkDecision(d); err != nil {
		return err
	}
	key := sha256.Sum256([]byte(d.Key))
	var sum []byte
	if d.SHA256 != "" {
		sum, _ = hex.DecodeString(d.SHA256)
	}
	v := *d
	var head LogHead
	if d.LogHead != nil {
		head = *d.LogHead
		if err := checkLogHead(head); err != nil {
			return err
		}
	}
	return s.w.do(ctx, len(v.Answer)+len(v.Key)+len(v.Caller)+dirtyBytes, func(c *conn) error {
		res, err := c.exec(`INSERT INTO decisions (id, key, ask_key, created_at, expires_at, subject_name, sha256, environment,
			passed, reason, policy_version, answer, caller) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO NOTHING`,
			v.ID, key[:], v.Key, micros(v.CreatedAt), micros(v.ExpiresAt), v.SubjectName, sum, v.Environment,
			oneIf(v.Passed), v.Reason, v.PolicyVersion, blob(v.Answer), v.Caller)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return orErr(err, refusal.New(CodeDecisionExists, "decision %q is stored", v.ID))
		}
		s.head.raise(head)
		return nil
	})
}

func checkDecision(d *Decision) error {
	if d.ID == "" {
		return invalid("decision_id", "is empty")
	}
	for _, f := range []struct {
		name, v string
		limit   int
	}{
		{"decision_id", d.ID, maxDecisionID}, {"key", d.Key, maxDecisionKey}, {"subject_name", d.SubjectName, maxTextBytes},
		{"environment", d.Environment, maxTextBytes}, {"reason", d.Reason, maxTextBytes}, {"policy_version", d.PolicyVersion, maxTextBytes},
	} {
		if err := checkText(f.name, f.v, f.limit); err != nil {
			return err
		}
	}
	if !isHex(d.SHA256, 64) {
		return invalid("sha256", "%q is not 64 lower-case hex digits", clip(d.SHA256))
	}
	if len(d.Answer) > maxBlobBytes {
		return invalid("answer", "is %d bytes, at most %d are kept", len(d.Answer), maxBlobBytes)
	}
	return checkCaller(d.Caller)
}

// The number of asks of a decision is that of the last one: see the asks table.
const decisionColumns = `d.seq, d.id, d.ask_key, d.created_at, d.expires_at, d.subject_name, d.sha256, d.environment,
	d.passed, d.reason, d.policy_version, d.answer, d.caller,
	(SELECT seq FROM asks WHERE seq BETWEEN d.seq << 32 AND (d.seq << 32) + 4294967295 ORDER BY seq DESC LIMIT 1) AS last_ask,
	(SELECT at  FROM asks WHERE seq BETWEEN d.seq << 32 AND (d.seq << 32) + 4294967295 ORDER BY seq DESC LIMIT 1) AS last_asked_at`

// scanDecision reads decisionColumns. It returns the row's number too.
func scanDecision(rows rowScanner) (*Decision, int64, error) {
	d := &Decision{}
	var seq, created, expires int64
	var sum []byte
	var lastAsk, lastAt sql.NullInt64
	err := rows.Scan(&seq, &d.ID, &d.Key, &created, &expires, &d.SubjectName, &sum, &d.Environment,
		&d.Passed, &d.Reason, &d.PolicyVersion, &d.Answer, &d.Caller, &lastAsk, &lastAt)
	if err != nil {
		return nil, 0, err
	}
	d.SHA256, d.CreatedAt, d.ExpiresAt = hex.EncodeToString(sum), fromMicros(created), fromMicros(expires)
	if lastAsk.Valid {
		d.AskCount, d.LastAskedAt = lastAsk.Int64-seq<<askBits, fromMicros(lastAt.Int64)
	}
	return d, seq, nil
}

// Decision returns one decision, CodeNotFound if there is none.
func (s *Store) Decision(ctx context.Context, id string) (*Decision, error) {
	d, _, err := scanDecision(s.get.decision.QueryRowContext(ctx, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refusal.New(CodeNotFound, "no decision %q", clip(id))
	}
	return d, refused(err)
}

// DecisionByKey returns the decision with this key that expires last, if that is
// after notExpiredAt; CodeNotFound if there is none.
func (s *Store) DecisionByKey(ctx context.Context, key string, notExpiredAt time.Time) (*Decision, error) {
	sum := sha256.Sum256([]byte(key))
	d, _, err := scanDecision(s.get.decisionByKey.QueryRowContext(ctx, sum[:], micros(notExpiredAt), key))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refusal.New(CodeNotFound, "no decision with this key is good at %s", notExpiredAt.UTC().Format(time.RFC3339))
	}
	return d, refused(err)
}

func oneIf(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
