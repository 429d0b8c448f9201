package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
	"github.com/assay-build/assay/internal/verify"
	"golang.org/x/sync/singleflight"
)

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
//     bundle's envelope explains it still.
//   - A crash after [3] leaves a complete attestation. The caller repeats and gets it.
//
// What fails while the service runs leaves the same rows. They are finished when the
// statement is attested again, and by a retry every minute. All of it goes through
// finish, which verifies what it has made, and ends in complete, as every attest
// does. A pending row is invisible to every read; one that cannot be finished stays
// pending, is logged and counted, and stops nobody else.
//
// [3] also raises the database's log head to the tree of the bundle's proof, so that
// a log that lost it, or grew another way from before it, is refused at the next start.
type sealer struct {
	attestation signing.Signer
	// keys are the public keys that signed, by their name in a bundle.
	keys map[string]publicKey
	// hint is the key's name in a bundle: the publicKey hint and the keyid of the
	// signature, which must be the same. The form is go-securesystemslib's:
	// cosign and sigstore-go skip a signature whose keyid has any other.
	hint   string
	tsa    *signing.TimestampAuthority
	log    *posix.Log
	format tlog.EntryFormat
	store  *store.Store
	// check verifies a bundle of ours as evidence.
	check  func(bundle []byte) error
	now    func() time.Time
	logger *slog.Logger

	// flight joins concurrent attests of one statement, so that the second
	// waits for the first's answer rather than for an error of the database.
	flight singleflight.Group
}

// publicKey is an attestation key in the two forms that log entries carry it in.
type publicKey struct{ pem, spki []byte }

func newSealer(k *signing.Keyset, log *posix.Log, st *store.Store, check func([]byte) error, now func() time.Time, logger *slog.Logger) (*sealer, error) {
	s := &sealer{
		attestation: k.AttestationSigner(),
		keys:        make(map[string]publicKey),
		tsa:         k.TSA(),
		log:         log,
		format:      log.Format(),
		store:       st,
		check:       check,
		now:         now,
		logger:      logger,
	}
	for _, e := range k.Attestation {
		spki, err := x509.MarshalPKIXPublicKey(e.Public)
		if err != nil {
			return nil, err
		}
		hint, err := verify.Fingerprint(e.Public)
		if err != nil {
			return nil, err
		}
		s.keys[hint] = publicKey{pem: e.PEM(), spki: spki}
	}
	var err error
	s.hint, err = verify.Fingerprint(s.attestation.Public())
	return s, err
}

// sealed is a stored attestation and whether it was there before.
type sealed struct {
	*store.Attestation
	repeated bool
}

// seal makes st an attestation. record holds what the index keeps of it; seal
// fills in the rest. The identity of an attestation is its statement: the same
// build attesting the same subjects gets the first answer again, since nothing
// in a statement depends on when it was asked for.
func (s *sealer) seal(ctx context.Context, st *attest.Statement, record *store.Attestation) (sealed, error) {
	payload, err := st.Marshal()
	if err != nil {
		return sealed{}, err
	}
	sum := sha256.Sum256(payload)
	id := hex.EncodeToString(sum[:])
	mine := false // whether it is this call that seals, and not one that it joined
	done, err := s.alone(ctx, id, func(ctx context.Context) (sealed, error) {
		mine = true
		return s.sealOnce(ctx, id, payload, record)
	})
	done.repeated = done.repeated || !mine
	return done, err
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

func (s *sealer) sealOnce(ctx context.Context, id string, payload []byte, record *store.Attestation) (sealed, error) {
	p, env, err := s.sign(ctx, id, payload, record)
	if err != nil {
		return sealed{}, err
	}
	// [1] The envelope is durable before the log sees its hash. Whether the
	// statement was attested before is found out here, by the row's key: asking
	// first would cost every attest a read to spare a repeat a signature.
	err = s.store.BeginAttestation(ctx, p)
	if refusal.CodeOf(err) == store.CodeAttestationExists {
		return s.again(ctx, id)
	}
	if err != nil {
		return sealed{}, err
	}
	entry, err := s.log.Add(ctx, p.LogBody) // [2]
	if err != nil {
		return sealed{}, err
	}
	bundle, err := s.bundle(env, p.Timestamp, entry)
	if err != nil {
		return sealed{}, err
	}
	done, err := s.complete(ctx, p, entry, bundle)
	return sealed{done, false}, err
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

// sign makes everything that does not depend on the log.
func (s *sealer) sign(ctx context.Context, id string, payload []byte, record *store.Attestation) (*store.Pending, *attest.Envelope, error) {
	env, ts, err := s.envelope(ctx, payload)
	if err != nil {
		return nil, nil, err
	}
	body, err := s.entryBody(env)
	if err != nil {
		return nil, nil, err
	}
	leaf := tlog.LeafHash(body)
	record.ID = id
	record.CreatedAt = s.now()
	return &store.Pending{
		ID:            id,
		Envelope:      env.Marshal(),
		LogBody:       body,
		LeafHash:      leaf[:],
		Timestamp:     ts,
		LogSizeBefore: s.log.Size(),
		Record:        record,
		CreatedAt:     record.CreatedAt,
	}, env, nil
}

// envelope signs a payload and has the signature timestamped.
func (s *sealer) envelope(ctx context.Context, payload []byte) (*attest.Envelope, []byte, error) {
	pae := sha256.Sum256(attest.PAE(attest.PayloadTypeInToto, payload))
	sig, err := s.attestation.Sign(ctx, pae[:])
	if err != nil {
		return nil, nil, err
	}
	ts, err := s.tsa.Timestamp(ctx, sig)
	if err != nil {
		return nil, nil, err
	}
	return &attest.Envelope{
		PayloadType: attest.PayloadTypeInToto,
		Payload:     payload,
		Signatures:  []attest.Signature{{KeyID: s.hint, Sig: sig}},
	}, ts, nil
}

// entryBody is the log entry of an envelope, in the log's format of now and with the
// key that signed it.
func (s *sealer) entryBody(env *attest.Envelope) ([]byte, error) {
	sig := env.Signatures[0]
	key, ok := s.keys[sig.KeyID]
	if !ok {
		return nil, fmt.Errorf("the keyset has no attestation key %.80q", sig.KeyID)
	}
	if s.format == tlog.RekorV2 {
		pae := sha256.Sum256(attest.PAE(env.PayloadType, env.Payload))
		return tlog.EntryBodyHashedRekord002(pae, sig.Sig, key.spki), nil
	}
	return tlog.EntryBodyDSSE001(tlog.DSSE{
		PayloadType: env.PayloadType, Payload: env.Payload, KeyID: sig.KeyID, Sig: sig.Sig,
	}, key.pem), nil
}

// formatOf tells the format of a body that entryBody made, now or in another life.
func formatOf(body []byte) (tlog.EntryFormat, error) {
	for _, f := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		kind, version := f.KindVersion()
		if bytes.HasPrefix(body, []byte(`{"apiVersion":"`+version+`","kind":"`+kind+`",`)) {
			return f, nil
		}
	}
	return "", fmt.Errorf("log entry of no known format: %.60q", body)
}

// finish takes what was begun earlier through [2] and [3]. Its leaf may be in the
// log already, put there before a crash or by a try that failed later. What it
// starts from lay in the database, so nothing is registered that is not of our own
// signature, and nothing becomes visible that does not verify.
func (s *sealer) finish(ctx context.Context, p *store.Pending) (*store.Attestation, error) {
	env, err := s.pendingEnvelope(p)
	if err != nil {
		return nil, err
	}
	body, err := s.pendingBody(p, env)
	if err != nil {
		return nil, err
	}
	entry, err := s.register(ctx, body, p.LogSizeBefore)
	if err != nil {
		return nil, err
	}
	bundle, err := s.bundle(env, p.Timestamp, entry)
	if err != nil {
		return nil, err
	}
	if err := s.check(bundle); err != nil {
		return nil, fmt.Errorf("the finished bundle does not verify: %w", err)
	}
	return s.complete(ctx, p, entry, bundle)
}

// pendingEnvelope is the envelope of p, with its signature and timestamp verified.
func (s *sealer) pendingEnvelope(p *store.Pending) (*attest.Envelope, error) {
	env, err := attest.ParseEnvelope(p.Envelope)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(env.Payload); hex.EncodeToString(sum[:]) != p.ID {
		return nil, fmt.Errorf("the envelope is of statement %x", sum)
	}
	unregistered, err := s.bundle(env, p.Timestamp, nil)
	if err != nil {
		return nil, err
	}
	// That there is no log entry yet is found after all else was verified.
	if err := s.check(unregistered); refusal.CodeOf(err) != verify.CodeLogEntryMissing {
		return nil, fmt.Errorf("the envelope does not verify: %w", err)
	}
	return env, nil
}

// pendingBody is what p is registered as. A log that has gone to another entry
// format signs checkpoints of that format only, over which an entry of the old one
// does not verify: it is registered anew. The envelope decides the new body alone,
// so that a second crash finds it.
func (s *sealer) pendingBody(p *store.Pending, env *attest.Envelope) ([]byte, error) {
	begun, err := formatOf(p.LogBody)
	if err != nil {
		return nil, err
	}
	body, err := s.entryBody(env)
	if err != nil {
		return nil, err
	}
	if begun == s.format && !bytes.Equal(body, p.LogBody) {
		return nil, errors.New("the log entry is not that of the envelope")
	}
	return body, nil
}

// register finds the entry in the log or adds it. When it returns, the entry is
// durable and integrated, and a checkpoint over it is signed. Of one body there is
// one call at a time, and Find waits for an entry that an earlier one left on its
// way; so the log has it once.
func (s *sealer) register(ctx context.Context, body []byte, from uint64) (*posix.Entry, error) {
	index, found, err := s.log.Find(ctx, tlog.LeafHash(body), from)
	switch {
	case err != nil:
		return nil, err
	case found:
		return s.log.Entry(ctx, index)
	}
	return s.log.Add(ctx, body)
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
	return store.LogHead{Size: entry.TreeSize, Root: entry.RootHash}
}

// bundle assembles the Sigstore bundle; entry is nil for what is signed only. Whose
// key and which format it is, the envelope and the entry say: they may be of a life
// of the service that was configured in another way.
func (s *sealer) bundle(env *attest.Envelope, ts []byte, entry *posix.Entry) ([]byte, error) {
	parts := &attest.BundleParts{
		PublicKeyHint: env.Signatures[0].KeyID,
		Envelope:      env,
		Timestamps:    [][]byte{ts},
	}
	if entry != nil {
		format, err := formatOf(entry.Body)
		if err != nil {
			return nil, err
		}
		parts.LogEntry = attest.LogEntry{
			LogIndex:          int64(entry.Index),
			LogID:             s.log.LogID(),
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

// signOnly makes a bundle that is not registered: a summary of a denial. There is no
// head of the log to it.
func (s *sealer) signOnly(ctx context.Context, st *attest.Statement) ([]byte, *store.LogHead, error) {
	env, ts, err := s.marshalAndSign(ctx, st)
	if err != nil {
		return nil, nil, err
	}
	bundle, err := s.bundle(env, ts, nil)
	return bundle, nil, err
}

// signAndLog makes a registered bundle that is not an attestation of a build: a
// summary of a permission. It has no pending row: its decision row is written
// after it, with the head that is returned, so a crash between the two costs one
// log entry that nobody was told of.
func (s *sealer) signAndLog(ctx context.Context, st *attest.Statement) ([]byte, *store.LogHead, error) {
	env, ts, err := s.marshalAndSign(ctx, st)
	if err != nil {
		return nil, nil, err
	}
	body, err := s.entryBody(env)
	if err != nil {
		return nil, nil, err
	}
	entry, err := s.log.Add(ctx, body)
	if err != nil {
		return nil, nil, err
	}
	head := headOf(entry)
	bundle, err := s.bundle(env, ts, entry)
	return bundle, &head, err
}

func (s *sealer) marshalAndSign(ctx context.Context, st *attest.Statement) (*attest.Envelope, []byte, error) {
	payload, err := st.Marshal()
	if err != nil {
		return nil, nil, err
	}
	return s.envelope(ctx, payload)
}
