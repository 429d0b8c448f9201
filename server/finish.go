package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
	"github.com/assay-build/assay/internal/verify"
)

// finish takes what was begun earlier through [2] and [3]. Its leaf may be in the
// log already, put there before a crash or by a try that failed later. What it
// starts from lay in the database, so nothing is registered that is not of our own
// signature, and nothing becomes visible that does not verify.
func (s *sealer) finish(ctx context.Context, p *store.Pending) (*store.Attestation, error) {
	k, err := s.ring.now(ctx)
	if err != nil {
		return nil, err
	}
	what, err := s.pendingEnvelope(k, p)
	if err != nil {
		return nil, err
	}
	if p, what, err = s.renewed(ctx, k, p, what); err != nil {
		return nil, err
	}
	if k, err = s.ring.now(ctx); err != nil { // signing may have published an intermediate
		return nil, err
	}
	body, err := s.pendingBody(k, p, what)
	if err != nil {
		return nil, err
	}
	from := p.LogSizeBefore
	if len(p.Log) > 0 && !bytes.Equal(p.Log, s.log.LogID()) {
		from = 0 // of the log that was rotated since
	}
	entry, err := s.register(ctx, body, what.precertificate, from)
	if err != nil {
		return nil, err
	}
	bundle, err := s.bundle(what, entry)
	if err != nil {
		return nil, err
	}
	if err := s.check(k, bundle, what.detached); err != nil {
		return nil, fmt.Errorf("the finished bundle does not verify: %w", err)
	}
	return s.complete(ctx, p, entry, bundle)
}

// pendingEnvelope is the envelope of p and what belongs to it, verified.
func (s *sealer) pendingEnvelope(k *keys, p *store.Pending) (*signed, error) {
	env, err := attest.ParseEnvelope(p.Envelope)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(env.Payload); hex.EncodeToString(sum[:]) != p.ID {
		return nil, fmt.Errorf("the envelope is of statement %x", sum)
	}
	what := &signed{env: env, certificate: p.Certificate, timestamp: p.Timestamp, detached: p.Record.Detached}
	unregistered, err := s.bundle(what, nil)
	if err != nil {
		return nil, err
	}
	// That there is no log entry yet is found after all else was verified.
	if err := s.check(k, unregistered, what.detached); refusal.CodeOf(err) != verify.CodeLogEntryMissing {
		return nil, fmt.Errorf("the envelope does not verify: %w", err)
	}
	if p.Certificate == nil {
		return what, nil
	}
	// What the SCT promises follows from the certificate, which has been verified.
	leaf, issuer, _, err := k.certified(p.Certificate)
	if err != nil {
		return nil, err
	}
	what.precertificate, err = ca.LogEntryOf(leaf, issuer)
	return what, err
}

// renewed signs a pending statement again where its signature has run out: where the log
// promises a time, it is that of now, and must lie in the validity of certificate or key;
// and an SCT is the promise of one log, which may have been rotated.
//
// Nobody vouches for the caller that the row names. What the old signature vouched for is
// what the new one may: the same name, by a key of the same tier.
func (s *sealer) renewed(ctx context.Context, k *keys, p *store.Pending, what *signed) (*store.Pending, *signed, error) {
	lapsed, err := k.lapsed(what.env.Signatures[0].KeyID, what.certificate, s.now())
	rotated := what.certificate != nil && len(p.Log) > 0 && !bytes.Equal(p.Log, s.log.LogID())
	if err != nil || !rotated && (!lapsed || s.format != tlog.RekorV1) {
		return p, what, err
	}
	record := *p.Record
	caller, err := identity.UnmarshalCaller(record.Caller)
	if err != nil {
		return nil, nil, err
	}
	if err := k.sameSigner(what, caller, &record); err != nil {
		return nil, nil, fmt.Errorf("the statement cannot be signed again: %w", err)
	}
	next, signed, err := s.sign(ctx, k, caller, p.ID, what.env.Payload, &record)
	if err != nil {
		return nil, nil, err
	}
	return s.replace(ctx, p, next, signed)
}

// replace puts a new signature in the place of a pending one.
func (s *sealer) replace(ctx context.Context, old, next *store.Pending, what *signed) (*store.Pending, *signed, error) {
	next.Record.CreatedAt, next.CreatedAt = old.CreatedAt, old.CreatedAt
	if err := s.store.RenewAttestation(ctx, next); err != nil {
		return nil, nil, err
	}
	s.logger.InfoContext(ctx, "pending attestation was signed again", "attestation_id", old.ID)
	return next, what, nil
}

// pendingBody is what p is registered as. A log that has gone to another entry
// format signs checkpoints of that format only, over which an entry of the old one
// does not verify: it is registered anew. The envelope decides the new body alone,
// so that a second crash finds it.
func (s *sealer) pendingBody(k *keys, p *store.Pending, what *signed) ([]byte, error) {
	begun, err := formatOf(p.LogBody)
	if err != nil {
		return nil, err
	}
	body, err := s.entryBody(k, what)
	if err != nil {
		return nil, err
	}
	if begun == s.format && !bytes.Equal(body, p.LogBody) {
		return nil, errors.New("the log entry is not that of the envelope")
	}
	return body, nil
}

// register finds the entry in the log or adds it, and that of its certificate. When it
// returns, the entries are durable and integrated, and a checkpoint over them is signed.
// Of one body there is one call at a time, and Find waits for an entry that an earlier
// one left on its way; so the log has it once.
func (s *sealer) register(ctx context.Context, body, precertificate []byte, from uint64) (*posix.Entry, error) {
	if precertificate != nil {
		_, found, err := s.log.Find(ctx, tlog.LeafHash(precertificate), from)
		if err != nil {
			return nil, err
		}
		if found {
			precertificate = nil
		}
	}
	index, found, err := s.log.Find(ctx, tlog.LeafHash(body), from)
	switch {
	case err != nil:
		return nil, err
	case !found:
		return s.log.Add(ctx, body, beside(precertificate)...)
	case precertificate != nil:
		if _, err := s.log.Add(ctx, precertificate); err != nil {
			return nil, err
		}
	}
	return s.log.Entry(ctx, index)
}
