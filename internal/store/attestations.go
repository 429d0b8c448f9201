package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeAttestationExists: an attestation of the same statement is stored, or on its
// way. Its ID is the digest of the statement, so it says the same.
const CodeAttestationExists refusal.Code = "ATTESTATION_EXISTS"

// Limits of one attestation.
const (
	maxSubjects       = 1024
	maxTextBytes      = 8 << 10
	maxPrincipalBytes = 2 << 10
	maxBlobBytes      = 64 << 20
)

// originHashed is DIGEST_ORIGIN_HASHED of the wire contract: the service hashed the
// bytes itself.
const originHashed = 1

type digest = [sha256.Size]byte

// pendingRow is what the writer remembers of a pending attestation, so that
// completing it reads nothing. The table is what it is loaded from.
type pendingRow struct {
	seq      int64
	record   *Attestation
	subjects []byte
}

// BeginAttestation stores a signed envelope before the log sees its hash. This is
// the first of the three durable steps of an attest:
//
//	BeginAttestation     envelope, log body, timestamp and record are durable
//	(the log)            the entry is durable and integrated
//	CompleteAttestation  the row is visible; the pending one is gone
//
// A crash before the first leaves nothing: the client was told nothing and asks
// again. A crash after the first leaves a pending row, which PendingAttestations
// returns on the next start. Whoever recovers looks for the leaf hash in the log
// from LogSizeBefore on; if it is there, the crash came after the second step, and
// only the third is repeated; if not, the same log body is added and the third
// step follows. Either way the body is in the log once. A crash after the third
// leaves a complete attestation: the client, if it was not answered, repeats and is
// given that one.
func (s *Store) BeginAttestation(ctx context.Context, p *Pending) error {
	id, err := checkPending(p)
	if err != nil {
		return err
	}
	record := *p.Record
	record.Bundle, record.ID, record.CreatedAt = nil, p.ID, p.CreatedAt
	row := &pendingRow{record: &record, subjects: appendSubjects(nil, record.Subjects)}
	packed := packRecord(&record, row.subjects)
	size := len(packed) + len(p.Envelope) + len(p.LogBody) + len(p.Timestamp) + dirtyBytes
	return s.w.do(ctx, size, func(c *conn) error {
		if _, ok := s.pending[id]; ok {
			return refusal.New(CodeAttestationExists, "attestation %s is pending", p.ID)
		}
		var dest [1]driver.Value
		found, err := c.row("SELECT seq FROM attestations WHERE id = ?", dest[:], id[:])
		if err != nil {
			return err
		}
		if found {
			return refusal.New(CodeAttestationExists, "attestation %s is stored", p.ID)
		}
		res, err := c.exec(`INSERT INTO pending (id, created_at, log_size_before, leaf_hash, record, log_body, timestamp, envelope)
			VALUES (?,?,?,?,?,?,?,?)`, id[:], micros(p.CreatedAt), int64(p.LogSizeBefore), p.LeafHash, packed, p.LogBody, blob(p.Timestamp), p.Envelope)
		if err != nil {
			return err
		}
		row.seq, err = res.LastInsertId()
		s.pending[id] = row
		c.undone = append(c.undone, func() { delete(s.pending, id) })
		return err
	})
}

// CompleteAttestation makes a pending attestation visible, with its place in the
// log and its bundle, and raises LogHead to head, the tree that the bundle's proof leads
// to. Completing it again with the same log index changes nothing
// and succeeds; with another one it is refused with CodeAttestationExists. An ID
// that was never begun is refused with CodeNotFound.
func (s *Store) CompleteAttestation(ctx context.Context, id string, logIndex int64, bundle []byte, head LogHead) error {
	key, err := parseDigest("attestation_id", id)
	if err != nil {
		return err
	}
	if len(bundle) == 0 || len(bundle) > maxBlobBytes {
		return invalid("bundle", "is %d bytes, want 1 to %d", len(bundle), maxBlobBytes)
	}
	if err := headOver(head, logIndex); err != nil {
		return err
	}
	return s.w.do(ctx, len(bundle)+dirtyBytes, func(c *conn) error {
		row, ok := s.pending[key]
		if !ok {
			return alreadyComplete(c, key, id, logIndex)
		}
		if err := insertAttestation(c, key, row, logIndex, bundle); err != nil {
			return err
		}
		if _, err := c.exec("DELETE FROM pending WHERE seq = ?", row.seq); err != nil {
			return err
		}
		delete(s.pending, key)
		c.undone = append(c.undone, func() { s.pending[key] = row })
		c.committed = append(c.committed, func() { s.gen.bump(row.record.Subjects) })
		s.head.raise(head)
		return nil
	})
}

func alreadyComplete(c *conn, key digest, id string, logIndex int64) error {
	var dest [1]driver.Value
	found, err := c.row("SELECT log_index FROM attestations WHERE id = ?", dest[:], key[:])
	switch {
	case err != nil:
		return err
	case !found:
		return refusal.New(CodeNotFound, "attestation %s was not begun", id)
	case dest[0].(int64) != logIndex:
		return refusal.New(CodeAttestationExists, "attestation %s is stored with log index %d, not %d", id, dest[0], logIndex)
	}
	return nil
}

func insertAttestation(c *conn, id digest, row *pendingRow, logIndex int64, bundle []byte) error {
	a := row.record
	res, err := c.exec(`INSERT INTO attestations (id, created_at, predicate_type, builder_id, build_type, invocation_id,
		slsa_build_level, source_uri, source_commit, log_index, subjects, principal) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)`,
		id[:], micros(a.CreatedAt), a.PredicateType, a.BuilderID, a.BuildType, a.InvocationID,
		int64(a.SLSABuildLevel), a.SourceURI, a.SourceCommit, logIndex, blob(row.subjects), a.Principal)
	if err != nil {
		return err
	}
	seq, err := res.LastInsertId()
	if err != nil {
		return err
	}
	if _, err := c.exec("INSERT INTO bundles (attestation, caller, bundle) VALUES (?,?,?)", seq, a.Caller, bundle); err != nil {
		return err
	}
	principal := principalKey(a.Principal)
	for i := range a.Subjects {
		if sum, err := hex.DecodeString(a.Subjects[i].SHA256); err == nil && len(sum) > 0 {
			// Two subjects may have one digest: it was hashed if either was.
			_, err := c.exec(`INSERT INTO subjects (sha256, attestation, principal, hashed) VALUES (?,?,?,?)
				ON CONFLICT DO UPDATE SET hashed = max(hashed, excluded.hashed)`, sum, seq, principal, oneIf(a.Subjects[i].Origin == originHashed))
			if err != nil {
				return err
			}
		}
		if _, err := c.exec("INSERT INTO subject_names (name, attestation) VALUES (?,?) ON CONFLICT DO NOTHING", a.Subjects[i].Name, seq); err != nil {
			return err
		}
	}
	return nil
}

// principalKey is what a posting holds of a principal: enough of a hash that no two
// share one, and of a size that no principal can swell.
func principalKey(principal string) []byte {
	if principal == "" {
		return []byte{}
	}
	sum := sha256.Sum256([]byte(principal))
	return sum[:sha256.Size/2]
}

// loadPending fills the writer's memory from the table. It runs before the writer.
func (s *Store) loadPending(c *conn) error {
	var dest [4]driver.Value
	return c.rows("SELECT seq, id, created_at, record FROM pending ORDER BY seq", dest[:], func() error {
		var id digest
		copy(id[:], dest[1].([]byte))
		record := &Attestation{ID: hex.EncodeToString(id[:]), CreatedAt: fromMicros(dest[2].(int64))}
		packed, _ := dest[3].([]byte)
		if err := unpackRecord(packed, record); err != nil {
			return err
		}
		s.pending[id] = &pendingRow{seq: dest[0].(int64), record: record, subjects: appendSubjects(nil, record.Subjects)}
		return nil
	})
}

// PendingAttestations returns what was begun and not completed, in the order in
// which it was begun.
func (s *Store) PendingAttestations(ctx context.Context) ([]*Pending, error) {
	rows, err := s.scans.QueryContext(ctx, "SELECT "+pendingColumns+" FROM pending ORDER BY seq")
	if err != nil {
		return nil, refused(err)
	}
	return collect(rows, scanPending)
}

// PendingAttestation returns one attestation that was begun and not completed,
// CodeNotFound if there is none.
func (s *Store) PendingAttestation(ctx context.Context, id string) (*Pending, error) {
	key, err := parseDigest("attestation_id", id)
	if err != nil {
		return nil, err
	}
	// No index serves this: a row is pending for milliseconds, so there are few.
	p, err := scanPending(s.points.QueryRowContext(ctx, "SELECT "+pendingColumns+" FROM pending WHERE id = ?", key[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refusal.New(CodeNotFound, "no attestation %s is pending", id)
	}
	return p, refused(err)
}

const pendingColumns = "id, created_at, log_size_before, leaf_hash, record, log_body, timestamp, envelope"

func scanPending(row rowScanner) (*Pending, error) {
	p := &Pending{}
	var id, packed []byte
	var created, size int64
	if err := row.Scan(&id, &created, &size, &p.LeafHash, &packed, &p.LogBody, &p.Timestamp, &p.Envelope); err != nil {
		return nil, err
	}
	p.ID, p.CreatedAt, p.LogSizeBefore = hex.EncodeToString(id), fromMicros(created), uint64(size)
	p.Record = &Attestation{ID: p.ID, CreatedAt: p.CreatedAt}
	return p, unpackRecord(packed, p.Record)
}

const attestationColumns = `a.seq, a.id, a.created_at, a.predicate_type, a.builder_id, a.build_type, a.invocation_id,
	a.slsa_build_level, a.source_uri, a.source_commit, a.log_index, a.subjects, a.principal, b.caller, `

// scanAttestation reads attestationColumns and the bundle. It returns the row's
// place in the order of registration too.
func scanAttestation(rows rowScanner) (*Attestation, int64, error) {
	a := &Attestation{}
	var seq, created int64
	var id, subjects []byte
	err := rows.Scan(&seq, &id, &created, &a.PredicateType, &a.BuilderID, &a.BuildType, &a.InvocationID,
		&a.SLSABuildLevel, &a.SourceURI, &a.SourceCommit, &a.LogIndex, &subjects, &a.Principal, &a.Caller, &a.Bundle)
	if err != nil {
		return nil, 0, err
	}
	a.ID, a.CreatedAt = hex.EncodeToString(id), fromMicros(created)
	return a, seq, unpackRecord(subjects, a)
}

// Attestation returns one attestation with its bundle, CodeNotFound if there is
// none that is complete.
func (s *Store) Attestation(ctx context.Context, id string) (*Attestation, error) {
	key, err := parseDigest("attestation_id", id)
	if err != nil {
		return nil, err
	}
	a, _, err := scanAttestation(s.get.attestation.QueryRowContext(ctx, key[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refusal.New(CodeNotFound, "no attestation %s", id)
	}
	return a, refused(err)
}

// pickBySHA256 picks attestations of a digest where there are more than are read.
// Postings and the head of each row of the register only: subjects and bundles are
// read of those that were picked. A principal's key is a blob and what stands in for
// it is text, so they are never the same group.
const pickBySHA256 = `WITH posted AS (
		SELECT a.seq AS seq, a.slsa_build_level AS level, s.hashed AS hashed,
			CASE WHEN length(s.principal) > 0 THEN s.principal
				WHEN instr(a.invocation_id, '/actions/runs/') > 0
				THEN substr(a.invocation_id, 1, instr(a.invocation_id, '/actions/runs/') - 1)
				ELSE a.builder_id || char(10) || a.source_uri END AS origin
		FROM subjects s CROSS JOIN attestations a ON a.seq = s.attestation WHERE s.sha256 = ?
	), ranked AS (
		SELECT seq, ROW_NUMBER() OVER (PARTITION BY origin ORDER BY hashed DESC, level DESC, seq DESC) AS place,
			MIN(seq) OVER (PARTITION BY origin) AS since FROM posted
	), picked AS (
		SELECT seq FROM ranked ORDER BY place, since LIMIT ?
	)
	SELECT ` + attestationColumns + `b.bundle FROM picked p
	CROSS JOIN attestations a ON a.seq = p.seq CROSS JOIN bundles b ON b.attestation = p.seq ORDER BY p.seq DESC`

// AttestationsBySHA256 returns the attestations of a digest with their bundles,
// the latest registered first, at most limit of them; more says that there are
// others.
//
// Anybody who may attest can attest any digest, so where there are more, being the
// latest must not be what counts. They are picked in turns: of every principal one,
// then of every principal another. A principal's own are taken in this order: those
// for which the service hashed the digest before those that only claimed it, since
// a claim takes no bytes; then by build level; then the latest first. Among principals
// the one that attested the digest first comes first. So one principal can
// only displace attestations of its own, and with a mere claim none of them that was
// hashed; many can displace only those of principals that came later than they did.
//
// The turns must not go by what a statement says of its build, such as the source:
// outside GitHub whoever starts a build chooses that. Only rows without a principal
// are told apart so, by what comes before "/actions/runs/" in the invocation id, or
// else by the builder and the source.
func (s *Store) AttestationsBySHA256(ctx context.Context, sha256 string, limit int) (list []*Attestation, more bool, err error) {
	key, err := parseDigest("sha256", sha256)
	if err != nil {
		return nil, false, err
	}
	if limit <= 0 || limit > maxPageSize {
		limit = maxPageSize
	}
	read := func(rows *sql.Rows, err error) ([]*Attestation, error) {
		if err != nil {
			return nil, refused(err)
		}
		return collect(rows, func(row rowScanner) (*Attestation, error) {
			a, _, err := scanAttestation(row)
			return a, err
		})
	}
	list, err = read(s.get.bySHA256.QueryContext(ctx, key[:], limit+1))
	if err != nil || len(list) <= limit {
		return list, false, err
	}
	list, err = read(s.points.QueryContext(ctx, pickBySHA256, key[:], limit))
	return list, true, err
}

func checkPending(p *Pending) (digest, error) {
	id, err := parseDigest("attestation_id", p.ID)
	if err != nil {
		return id, err
	}
	if p.Record == nil {
		return id, invalid("record", "is missing")
	}
	if (p.Record.ID != "" && p.Record.ID != p.ID) || (!p.Record.CreatedAt.IsZero() && !p.Record.CreatedAt.Equal(p.CreatedAt)) {
		return id, invalid("record", "is not of the same attestation")
	}
	if p.LogSizeBefore > math.MaxInt64 {
		return id, invalid("log_size_before", "is %d, at most %d", p.LogSizeBefore, int64(math.MaxInt64))
	}
	for _, b := range []struct {
		name  string
		v     []byte
		least int
	}{{"envelope", p.Envelope, 1}, {"log_body", p.LogBody, 1}, {"leaf_hash", p.LeafHash, 1}, {"timestamp", p.Timestamp, 0}} {
		if len(b.v) < b.least || len(b.v) > maxBlobBytes {
			return id, invalid(b.name, "is %d bytes, want %d to %d", len(b.v), b.least, maxBlobBytes)
		}
	}
	return id, checkRecord(p.Record)
}

func checkRecord(a *Attestation) error {
	for _, f := range []struct{ name, v string }{
		{"predicate_type", a.PredicateType}, {"builder_id", a.BuilderID}, {"build_type", a.BuildType},
		{"invocation_id", a.InvocationID}, {"source_uri", a.SourceURI}, {"source_commit", a.SourceCommit},
	} {
		if err := checkText(f.name, f.v, maxTextBytes); err != nil {
			return err
		}
	}
	if err := checkText("principal", a.Principal, maxPrincipalBytes); err != nil {
		return err
	}
	if err := checkCaller(a.Caller); err != nil {
		return err
	}
	if len(a.Subjects) > maxSubjects {
		return invalid("subjects", "are %d, at most %d", len(a.Subjects), maxSubjects)
	}
	for i := range a.Subjects {
		s := &a.Subjects[i]
		if err := checkText(fmt.Sprintf("subjects[%d].name", i), s.Name, maxTextBytes); err != nil {
			return err
		}
		if !isHex(s.SHA256, 64) || !isHex(s.SHA512, 128) {
			return invalid(fmt.Sprintf("subjects[%d].digest", i), "is not lower-case hex of 64 (sha256) or 128 (sha512) digits")
		}
	}
	return nil
}

func checkText(field, v string, limit int) error {
	if len(v) > limit {
		return invalid(field, "is %d bytes, at most %d are kept", len(v), limit)
	}
	if !utf8.ValidString(v) {
		return invalid(field, "is not valid UTF-8")
	}
	return nil
}

// isHex reports whether s is empty or n lower-case hex digits.
func isHex(s string, n int) bool {
	if s == "" {
		return true
	}
	if len(s) != n {
		return false
	}
	for i := 0; i < n; i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func parseDigest(field, s string) (d digest, err error) {
	if s == "" || !isHex(s, 64) {
		return d, invalid(field, "%q is not a sha256: want 64 lower-case hex digits", clip(s))
	}
	_, err = hex.Decode(d[:], []byte(s))
	return d, err
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// blob makes an absent value an empty one, where the column wants a value.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
