package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/notary"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
	"github.com/assay-build/assay/internal/verify"
	"golang.org/x/sync/singleflight"
)

// CodeSignatureMisdated refuses to attest with a timestamp at which the key or the
// certificate was not valid.
const CodeSignatureMisdated refusal.Code = "SIGNATURE_MISDATED"

// finishTimeout bounds the steps after an envelope is durable. They run on even
// where the caller has gone: what was begun is finished, here or on restart.
const finishTimeout = 30 * time.Second

// sealer signs a statement, registers it in the log and stores it:
//
//	sign ─ timestamp ─ [1] pending row ─ [2] log entry ─ [3] attestation row ─ answer
//
// The order is what makes an acknowledged attestation impossible to lose and the
// log free of entries that nobody can explain:
//
//   - A crash before [1] leaves nothing. The caller was not answered and repeats.
//   - A crash between [1] and [2] leaves a pending row. Restart does not find
//     its leaf in the log, and goes on with [2].
//   - A crash between [2] and [3] leaves a pending row whose leaf is in the log.
//     Restart finds it, by searching from the size the log had at [1], and goes on
//     with [3]. If the log has changed its entry format in between, the statement is
//     registered once more in the new one; the row explained the old entry, and the
//     bundle's envelope explains it still. The same happens where the log has been
//     rotated in between.
//   - A crash after [3] leaves a complete attestation. The caller repeats and gets it.
//
// What fails while the service runs leaves the same rows. They are finished when the
// statement is attested again, and by a retry every minute. All of it goes through
// finish, which verifies what it has made, and ends in complete, as every attest
// does. A pending row is invisible to every read; one that cannot be finished stays
// pending, is logged and counted, and stops nobody else.
//
// In certificate mode the log is handed two entries at [2], in one batch: that of the
// envelope, and that of the certificate which signed it, of which the certificate's SCT
// is the promise. A certificate lives for minutes; where it has run out by the time that
// a pending row is finished, what the log would say of it now is after its end, and the
// statement is signed anew under another.
//
// [3] also raises the database's log head to the tree of the bundle's proof, so that
// a log that lost it, or grew another way from before it, is refused at the next start.
type sealer struct {
	ring     *keyring
	instance string
	notary   *notary.Signer // nil where AWS Signer signs nothing
	log      *posix.Log
	format   tlog.EntryFormat
	store    *store.Store
	// check verifies a bundle of ours as evidence.
	check  func(k *keys, bundle []byte, detached []store.Detached) error
	now    func() time.Time
	logger *slog.Logger

	// verifierLeaf certifies summaries, in certificate mode: they are all signed for
	// the same name, so one serves until it is nearly over.
	verifierLeaf atomic.Pointer[certified]
	certifying   singleflight.Group

	// flight joins concurrent attests of one statement, so that the second
	// waits for the first's answer rather than for an error of the database.
	flight singleflight.Group
}

func newSealer(ring *keyring, instance string, n *notary.Signer, log *posix.Log, st *store.Store, now func() time.Time, logger *slog.Logger) *sealer {
	return &sealer{ring: ring, instance: instance, notary: n, log: log, format: log.Format(), store: st, check: (*keys).check, now: now, logger: logger}
}

// sealed is a stored attestation and whether it was there before.
type sealed struct {
	*store.Attestation
	repeated bool
}

// seal makes st an attestation of caller's. record holds what the index keeps of it; seal
// fills in the rest. The identity of an attestation is its statement: the same
// build attesting the same subjects gets the first answer again, since nothing
// in a statement depends on when it was asked for.
func (s *sealer) seal(ctx context.Context, caller *identity.Caller, st *attest.Statement, record *store.Attestation) (sealed, error) {
	payload, err := st.Marshal()
	if err != nil {
		return sealed{}, err
	}
	sum := sha256.Sum256(payload)
	id := hex.EncodeToString(sum[:])
	mine := false // whether it is this call that seals, and not one that it joined
	done, err := s.alone(ctx, id, func(ctx context.Context) (sealed, error) {
		mine = true
		return s.sealOnce(ctx, caller, id, payload, record)
	})
	if err != nil {
		return done, err // who gave up did not wait for mine to be written
	}
	done.repeated = done.repeated || !mine
	return done, nil
}

// alone runs what ends in an attestation, or joins who is at it already. It runs on
// where the caller has gone.
func (s *sealer) alone(ctx context.Context, id string, run func(context.Context) (sealed, error)) (sealed, error) {
	ch := s.flight.DoChan(id, func() (_ any, err error) {
		// singleflight ends the process where a call that others may have joined panics.
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
		defer cancel()
		return run(ctx)
	})
	select {
	case <-ctx.Done():
		return sealed{}, ctx.Err()
	case r := <-ch:
		if r.Err != nil {
			return sealed{}, r.Err
		}
		return r.Val.(sealed), nil
	}
}

func (s *sealer) sealOnce(ctx context.Context, caller *identity.Caller, id string, payload []byte, record *store.Attestation) (sealed, error) {
	k, err := s.ring.now(ctx)
	if err != nil {
		return sealed{}, err
	}
	p, what, err := s.sign(ctx, k, caller, id, payload, record)
	if err != nil {
		return sealed{}, err
	}
	if err := s.checkDated(what); err != nil {
		return sealed{}, err
	}
	// [1] The envelope is durable before the log sees its hash. Whether the
	// statement was attested before is found out here, by the row's key: asking
	// first would cost every attest a read to spare a repeat a signature.
	err = s.store.BeginAttestation(ctx, p)
	if refusal.CodeOf(err) == store.CodeAttestationExists {
		return s.againSigned(ctx, id, p, what)
	}
	if err != nil {
		return sealed{}, err
	}
	entry, err := s.log.Add(ctx, p.LogBody, beside(what.precertificate)...) // [2]
	if err != nil {
		return sealed{}, err
	}
	bundle, err := s.bundle(what, entry)
	if err != nil {
		return sealed{}, err
	}
	done, err := s.complete(ctx, p, entry, bundle)
	return sealed{done, false}, err
}

// checkDated verifies what was signed before anything is durable, where somebody else
// dates it: their clock may be behind, and then the time that they name is before the
// certificate or the key was there, for every verifier and for ever.
func (s *sealer) checkDated(what *signed) error {
	if s.ring.tsa == nil {
		return nil // our own clock has named all the times, in order
	}
	unregistered, err := s.bundle(what, nil)
	if err != nil {
		return err
	}
	// The keys of now: signing may have published an intermediate.
	if err := s.check(s.ring.current.Load(), unregistered, what.detached); refusal.CodeOf(err) != verify.CodeLogEntryMissing {
		return refusal.New(CodeSignatureMisdated, "what was signed would not verify: %w", err)
	}
	return nil
}

// againSigned is again for who has signed the statement anew. Where what was signed
// earlier is not believed any more, because a key was revoked, this is what is finished.
func (s *sealer) againSigned(ctx context.Context, id string, p *store.Pending, what *signed) (sealed, error) {
	done, err := s.again(ctx, id)
	switch refusal.CodeOf(err) {
	case verify.CodeKeyRevoked, verify.CodeKeyUnknown, verify.CodeKeyOutsideValidity, verify.CodeCertificateUntrusted,
		verify.CodeCertificateOutsideValidity, verify.CodeCertificateOutsideAuthority, verify.CodeSCTInvalid,
		verify.CodeTimestampUntrusted, verify.CodeTimestampOutsideAuthority:
	default:
		return done, err
	}
	old, pendingErr := s.store.PendingAttestation(ctx, id)
	if pendingErr != nil {
		return done, err
	}
	if p, _, err = s.replace(ctx, old, p, what); err != nil {
		return sealed{}, err
	}
	a, err := s.finish(ctx, p)
	return sealed{a, true}, err
}

// again answers a statement that was begun before with what became of it.
func (s *sealer) again(ctx context.Context, id string) (sealed, error) {
	done, err := s.store.Attestation(ctx, id)
	if !errors.Is(err, store.ErrNotFound) {
		return sealed{done, true}, err
	}
	// An earlier try failed between [1] and [3], for example on a full disk.
	p, err := s.store.PendingAttestation(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		// Completed between the two reads; the caller's repeat finds it.
		return sealed{}, refusal.New(CodeOverloaded, "attestation %s is being completed; repeat the call", id)
	}
	if err != nil {
		return sealed{}, err
	}
	done, err = s.finish(ctx, p)
	return sealed{done, true}, err
}

// complete is [3]: from here on the attestation exists for everybody.
func (s *sealer) complete(ctx context.Context, p *store.Pending, entry *posix.Entry, bundle []byte) (*store.Attestation, error) {
	if err := s.store.CompleteAttestation(ctx, p.ID, int64(entry.Index), bundle, headOf(entry)); err != nil {
		return nil, err
	}
	done := *p.Record
	done.LogIndex, done.Bundle = int64(entry.Index), bundle
	return &done, nil
}

// headOf is the tree that an entry's proof leads to.
func headOf(entry *posix.Entry) store.LogHead {
	return store.LogHead{Log: entry.LogID, Size: entry.TreeSize, Root: entry.RootHash}
}

// bundle assembles the Sigstore bundle; entry is nil for what is signed only. Whose
// key and which format it is, the envelope and the entry say: they may be of a life
// of the service that was configured in another way.
func (s *sealer) bundle(what *signed, entry *posix.Entry) ([]byte, error) {
	parts := &attest.BundleParts{
		PublicKeyHint: what.env.Signatures[0].KeyID,
		Certificate:   what.certificate,
		Envelope:      what.env,
		Timestamps:    [][]byte{what.timestamp},
	}
	if entry != nil {
		format, err := formatOf(entry.Body)
		if err != nil {
			return nil, err
		}
		parts.LogEntry = attest.LogEntry{
			LogIndex:          int64(entry.Index),
			LogID:             entry.LogID,
			IntegratedTime:    entry.IntegratedTime,
			SET:               entry.SET,
			RootHash:          entry.RootHash,
			TreeSize:          int64(entry.TreeSize),
			Hashes:            entry.Hashes,
			Checkpoint:        entry.Checkpoint,
			CanonicalizedBody: entry.Body,
		}
		parts.LogEntry.Kind, parts.LogEntry.Version = format.KindVersion()
		if format == tlog.RekorV2 {
			// Rekor v2 has no integrated time; the timestamp is the time.
			parts.LogEntry.IntegratedTime = 0
		}
	}
	return attest.MarshalBundle(parts)
}
