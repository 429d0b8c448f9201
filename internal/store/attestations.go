package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeAttestationExists: an attestation of the same statement is stored, or on its
// way. Its ID is the digest of the statement, so it says the same.
const CodeAttestationExists refusal.Code = "ATTESTATION_EXISTS"

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
	sbom     *sbomRow
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
//
// The components of an SBOM are numbered before the first step (see number), and the
// list of their numbers is part of the pending row: completing it needs nothing else.
func (s *Store) BeginAttestation(ctx context.Context, p *Pending) error {
	id, err := checkPending(p)
	if err != nil {
		return err
	}
	envelope, err := s.packer.pack(p.Envelope)
	if err != nil {
		return err
	}
	record := *p.Record
	record.Bundle, record.SBOM, record.ID, record.CreatedAt = nil, nil, p.ID, p.CreatedAt
	row := &pendingRow{record: &record, subjects: appendDetached(appendSubjects(nil, record.Subjects), record.Detached)}
	if row.sbom, err = s.number(ctx, p.Record.SBOM); err != nil {
		return err
	}
	packed := appendPending(appendSBOM(packRecord(&record, row.subjects), row.sbom), p)
	size := len(packed) + len(envelope) + len(p.LogBody) + len(p.Timestamp) + dirtyBytes
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
			VALUES (?,?,?,?,?,?,?,?)`, id[:], micros(p.CreatedAt), int64(p.LogSizeBefore), p.LeafHash, packed, p.LogBody, blob(p.Timestamp), envelope)
		if err != nil {
			return err
		}
		row.seq, err = res.LastInsertId()
		s.pending[id] = row
		c.undone = append(c.undone, func() { delete(s.pending, id) })
		return err
	})
}

// RenewAttestation puts another signature in the place of a pending one, by the same
// statement: an envelope whose key or certificate has run out while it was pending
// would not verify with what the log says of it now. Subjects and caller stay as they
// were begun; the SBOM stays indexed as it was. CodeNotFound where nothing is pending.
//
// It is one write: a crash leaves the old envelope or the new one. An entry that the log
// may have of the old one stays there, and is explained by nothing but this.
func (s *Store) RenewAttestation(ctx context.Context, p *Pending) error {
	id, err := checkPending(p)
	if err != nil {
		return err
	}
	envelope, err := s.packer.pack(p.Envelope)
	if err != nil {
		return err
	}
	size := 2*len(envelope) + len(p.LogBody) + len(p.Timestamp) + dirtyBytes
	return s.w.do(ctx, size, func(c *conn) error {
		old, ok := s.pending[id]
		if !ok {
			return refusal.New(CodeNotFound, "no attestation %s is pending", p.ID)
		}
		record := *old.record
		record.Detached = p.Record.Detached
		row := &pendingRow{seq: old.seq, record: &record, sbom: old.sbom,
			subjects: appendDetached(appendSubjects(nil, record.Subjects), record.Detached)}
		packed := appendPending(appendSBOM(packRecord(&record, row.subjects), row.sbom), p)
		_, err := c.exec("UPDATE pending SET log_size_before = ?, leaf_hash = ?, record = ?, log_body = ?, timestamp = ?, envelope = ? WHERE seq = ?",
			int64(p.LogSizeBefore), p.LeafHash, packed, p.LogBody, blob(p.Timestamp), envelope, row.seq)
		if err != nil {
			return err
		}
		s.pending[id] = row
		c.undone = append(c.undone, func() { s.pending[id] = old })
		return nil
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
	packed, err := s.packer.pack(bundle)
	if err != nil {
		return err
	}
	return s.w.do(ctx, len(packed)+dirtyBytes, func(c *conn) error {
		row, ok := s.pending[key]
		if !ok {
			return alreadyComplete(c, key, id, logIndex)
		}
		terms, err := s.roomFor(row.sbom)
		if err != nil {
			return err
		}
		seq, err := insertAttestation(c, key, row, logIndex, packed)
		if err != nil {
			return err
		}
		if row.sbom != nil {
			if err := s.index.add(c, seq, row.sbom, terms); err != nil {
				return err
			}
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

// roomFor returns the terms of an SBOM that the index can take.
func (s *Store) roomFor(r *sbomRow) ([]uint64, error) {
	if r == nil {
		return nil, nil
	}
	terms, err := termsOf(r.list)
	if err != nil {
		return nil, err
	}
	return terms, s.index.room(terms)
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

func insertAttestation(c *conn, id digest, row *pendingRow, logIndex int64, packed []byte) (seq int64, err error) {
	a := row.record
	res, err := c.exec(`INSERT INTO attestations (id, created_at, predicate_type, builder_id, build_type, invocation_id,
		slsa_build_level, source_uri, source_commit, log_index, subjects, principal) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)`,
		id[:], micros(a.CreatedAt), a.PredicateType, a.BuilderID, a.BuildType, a.InvocationID,
		int64(a.SLSABuildLevel), a.SourceURI, a.SourceCommit, logIndex, blob(row.subjects), a.Principal)
	if err != nil {
		return 0, err
	}
	if seq, err = res.LastInsertId(); err != nil {
		return 0, err
	}
	if _, err := c.exec("INSERT INTO bundles (attestation, caller, bundle) VALUES (?,?,?)", seq, a.Caller, packed); err != nil {
		return 0, err
	}
	principal := principalKey(a.Principal)
	for i := range a.Subjects {
		if sum, err := hex.DecodeString(a.Subjects[i].SHA256); err == nil && len(sum) > 0 {
			// Two subjects may have one digest: it was hashed if either was.
			_, err := c.exec(`INSERT INTO subjects (sha256, attestation, principal, hashed) VALUES (?,?,?,?)
				ON CONFLICT DO UPDATE SET hashed = max(hashed, excluded.hashed)`, sum, seq, principal, oneIf(a.Subjects[i].Origin == originHashed))
			if err != nil {
				return 0, err
			}
		}
		if _, err := c.exec("INSERT INTO subject_names (name, attestation) VALUES (?,?) ON CONFLICT DO NOTHING", a.Subjects[i].Name, seq); err != nil {
			return 0, err
		}
	}
	return seq, nil
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
		sbom, err := unpackSBOM(packed)
		s.pending[id] = &pendingRow{seq: dest[0].(int64), record: record, subjects: appendDetached(appendSubjects(nil, record.Subjects), record.Detached), sbom: sbom}
		return err
	})
}

// PendingAttestations returns what was begun and not completed, in the order in
// which it was begun.
func (s *Store) PendingAttestations(ctx context.Context) ([]*Pending, error) {
	rows, err := s.scans.QueryContext(ctx, "SELECT "+pendingColumns+" FROM pending ORDER BY seq")
	if err != nil {
		return nil, refused(err)
	}
	return collect(rows, s.scanPending)
}

// PendingAttestation returns one attestation that was begun and not completed,
// CodeNotFound if there is none.
func (s *Store) PendingAttestation(ctx context.Context, id string) (*Pending, error) {
	key, err := parseDigest("attestation_id", id)
	if err != nil {
		return nil, err
	}
	// No index serves this: a row is pending for milliseconds, so there are few.
	p, err := s.scanPending(s.points.QueryRowContext(ctx, "SELECT "+pendingColumns+" FROM pending WHERE id = ?", key[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refusal.New(CodeNotFound, "no attestation %s is pending", id)
	}
	return p, refused(err)
}

const pendingColumns = "id, created_at, log_size_before, leaf_hash, record, log_body, timestamp, envelope"

func (s *Store) scanPending(row rowScanner) (*Pending, error) {
	p := &Pending{}
	var id, packed []byte
	var created, size int64
	if err := row.Scan(&id, &created, &size, &p.LeafHash, &packed, &p.LogBody, &p.Timestamp, &p.Envelope); err != nil {
		return nil, err
	}
	var err error
	if p.Envelope, err = s.packer.unpack(p.Envelope); err != nil {
		return nil, err
	}
	p.ID, p.CreatedAt, p.LogSizeBefore = hex.EncodeToString(id), fromMicros(created), uint64(size)
	p.Record = &Attestation{ID: p.ID, CreatedAt: p.CreatedAt}
	return p, unpackPending(packed, p)
}

const attestationColumns = `a.seq, a.id, a.created_at, a.predicate_type, a.builder_id, a.build_type, a.invocation_id,
	a.slsa_build_level, a.source_uri, a.source_commit, a.log_index, a.subjects, a.principal, b.caller, `

// scanAttestation reads attestationColumns and the bundle. It returns the row's
// place in the order of registration too.
func (s *Store) scanAttestation(rows rowScanner) (*Attestation, int64, error) {
	a := &Attestation{}
	var seq, created int64
	var id, subjects []byte
	err := rows.Scan(&seq, &id, &created, &a.PredicateType, &a.BuilderID, &a.BuildType, &a.InvocationID,
		&a.SLSABuildLevel, &a.SourceURI, &a.SourceCommit, &a.LogIndex, &subjects, &a.Principal, &a.Caller, &a.Bundle)
	if err != nil {
		return nil, 0, err
	}
	if a.Bundle, err = s.packer.unpack(a.Bundle); err != nil {
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
	a, _, err := s.scanAttestation(s.get.attestation.QueryRowContext(ctx, key[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refusal.New(CodeNotFound, "no attestation %s", id)
	}
	return a, refused(err)
}

// pickedBySHA256 picks attestations of a digest where there are more than are read.
// Postings and the head of each row of the register only: subjects and bundles are
// read of those that were picked. A principal's key is a blob and what stands in for
// it is text, so they are never the same group.
const pickedBySHA256 = postedBySHA256 + rankedBySHA256

const (
	postedBySHA256 = `WITH posted AS (
		SELECT a.seq AS seq, a.slsa_build_level AS level, s.hashed AS hashed,
			CASE WHEN length(s.principal) > 0 THEN s.principal
				WHEN instr(a.invocation_id, '/actions/runs/') > 0
				THEN substr(a.invocation_id, 1, instr(a.invocation_id, '/actions/runs/') - 1)
				ELSE a.builder_id || char(10) || a.source_uri END AS origin
		FROM subjects s CROSS JOIN attestations a ON a.seq = s.attestation
		WHERE s.sha256 = ?1 AND (?2 = '' OR a.predicate_type = ?2)`
	ofOrigin       = ` AND (?4 IS NULL OR s.hashed = ?4)`
	rankedBySHA256 = `), ranked AS (
		SELECT seq, ROW_NUMBER() OVER (PARTITION BY origin ORDER BY hashed DESC, level DESC, seq DESC) AS place,
			MIN(seq) OVER (PARTITION BY origin) AS since FROM posted
	), picked AS (
		SELECT seq FROM ranked ORDER BY place, since LIMIT +?3
	)
	`
)

const (
	pickBySHA256 = pickedBySHA256 + `SELECT ` + attestationColumns + `b.bundle FROM picked p
	CROSS JOIN attestations a ON a.seq = p.seq CROSS JOIN bundles b ON b.attestation = p.seq ORDER BY p.seq DESC`
	pickIDsBySHA256 = postedBySHA256 + ofOrigin + rankedBySHA256 + `SELECT a.id FROM picked p CROSS JOIN attestations a ON a.seq = p.seq ORDER BY p.seq DESC`
)

// Origin is what the service knows of a digest in an attestation.
type Origin int

// Origins.
const (
	AnyOrigin Origin = iota
	// Hashed: the service saw the bytes. The SBOMs that it made are of such.
	Hashed
	// Claimed: somebody said so. What is attached to an artifact is so.
	Claimed
)

// posted is the origin as postings have it.
func (o Origin) posted() any {
	if o == AnyOrigin {
		return nil
	}
	return oneIf(o == Hashed)
}

// AttestationIDsBySHA256 returns the ids of what AttestationsBySHA256 would, of one
// origin or of any, without reading a bundle: those of SBOMs are large.
func (s *Store) AttestationIDsBySHA256(ctx context.Context, sha256, predicateType string, origin Origin, limit int) ([]string, error) {
	key, err := parseDigest("sha256", sha256)
	if err != nil {
		return nil, err
	}
	if limit <= 0 || limit > maxPageSize {
		limit = maxPageSize
	}
	rows, err := s.points.QueryContext(ctx, pickIDsBySHA256, key[:], predicateType, limit, origin.posted())
	if err != nil {
		return nil, refused(err)
	}
	return collect(rows, func(row rowScanner) (string, error) {
		var id []byte
		err := row.Scan(&id)
		return hex.EncodeToString(id), err
	})
}

// AttestationsBySHA256 returns the attestations of a digest with their bundles,
// the latest registered first, at most limit of them; more says that there are
// others. Only those of the predicate type take part, of every type where it is
// empty: no number of SBOMs displaces provenance.
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
func (s *Store) AttestationsBySHA256(ctx context.Context, sha256, predicateType string, limit int) (list []*Attestation, more bool, err error) {
	key, err := parseDigest("sha256", sha256)
	if err != nil {
		return nil, false, err
	}
	if limit <= 0 || limit > maxPageSize {
		limit = maxPageSize
	}
	list, err = s.readAttestations(s.get.bySHA256.QueryContext(ctx, key[:], predicateType, limit+1))
	if err != nil || len(list) <= limit {
		return list, false, err
	}
	list, err = s.readAttestations(s.points.QueryContext(ctx, pickBySHA256, key[:], predicateType, limit))
	return list, true, err
}

func (s *Store) readAttestations(rows *sql.Rows, err error) ([]*Attestation, error) {
	if err != nil {
		return nil, refused(err)
	}
	return collect(rows, func(row rowScanner) (*Attestation, error) {
		a, _, err := s.scanAttestation(row)
		return a, err
	})
}
