package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/notary"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/verify"
)

const (
	// maxEvidence is how many attestations of one artifact take part in a decision;
	// store.AttestationsBySHA256 says which. A reproducible artifact collects one
	// for every run that makes it.
	maxEvidence = 64
	// The caches are bounded in entries and in the bytes of the payloads they
	// keep; what is parsed out of a payload takes some three times as much.
	evidenceCacheSize, evidenceCacheBytes = 16 << 10, 64 << 20
	digestCacheSize, digestCacheBytes     = 8 << 10, 64 << 20
	// An Evidence with a larger payload is verified again each time, and a set
	// with a larger sum of them is put together again each time.
	maxCachedPayload, maxCachedSet = 16 << 10, 64 << 10
	// entryOverhead is what an entry takes beside its payload.
	entryOverhead = 1 << 10
)

// evidenceSource turns a digest into verified evidence. Verifying a bundle costs
// signature checks, and a bundle never changes, so its Evidence is kept by
// attestation id. Which attestations a digest has does change: that is read again
// whenever the store has written anything that could concern it, so a write
// that was acknowledged is never followed by a decision that has not seen it.
//
// It believes the keys of one moment. Where they change there is a new source.
type evidenceSource struct {
	store    *store.Store
	verifier *verify.Verifier
	logger   *slog.Logger
	byID     *byteCache[verifiedBundle]
	byDigest *byteCache[knownDigest]
}

// verifiedBundle is Evidence and the hash of the very bundle that gave it.
type verifiedBundle struct {
	evidence *verify.Evidence
	sum      string
	// beside is the hash of the signatures that stand beside the bundle.
	beside string
	// notarised is what a Notary signature is over, nil where there is none.
	notarised *notarised
	// of is the attestation as the access policy sees it. Its row is not proven as
	// the bundle is: it says who may be shown the evidence, never what it is worth.
	of policy.Resource
}

// notarised is an envelope with the Notary signature over it. Whether that holds is asked
// anew for each decision: it can be revoked.
type notarised struct{ envelope, signature []byte }

// knownDigest is which attestations a digest had at some generation.
type knownDigest struct {
	generation uint64
	set        *evidenceSet // nil where it is too large to keep
	rows       []string     // then the attestations that it is made of
	cut        bool
}

// evidenceSet is what is known of one digest. It is shared and never changed.
type evidenceSet struct {
	evidence []*verify.Evidence
	ids      []string // attestation ids of evidence, in the same order
	bundles  []string // SHA-256 of the bundles, likewise
	of       []policy.Resource
	signed   []*notarised // by evidence, nil where there is no Notary signature
	rejected int          // stored bundles that did not verify
	cut      bool         // there are other attestations, which were not looked at
}

func (s *evidenceSet) add(id string, v verifiedBundle) {
	s.evidence = append(s.evidence, v.evidence)
	s.ids = append(s.ids, id)
	s.bundles = append(s.bundles, v.sum)
	s.of = append(s.of, v.of)
	s.signed = append(s.signed, v.notarised)
}

// resourcesOf are the attestations that some of the set's evidence came from.
func (s *evidenceSet) resourcesOf(used []*verify.Evidence) []policy.Resource {
	var out []policy.Resource
	for _, u := range used {
		for i, e := range s.evidence {
			if e == u {
				out = append(out, s.of[i])
			}
		}
	}
	return out
}

// keepable returns the bytes of the set's payloads, and whether they are few.
func (s *evidenceSet) keepable() (size int, ok bool) {
	for _, e := range s.evidence {
		n := len(e.Payload())
		if n > maxCachedPayload {
			return 0, false
		}
		size += n + entryOverhead
	}
	return size, size <= maxCachedSet+len(s.evidence)*entryOverhead
}

// idsOf names the attestations that some of the set's evidence came from.
func (s *evidenceSet) idsOf(used []*verify.Evidence) []string {
	var ids []string
	for _, u := range used {
		for i, e := range s.evidence {
			if e == u {
				ids = append(ids, s.ids[i])
			}
		}
	}
	return ids
}

func newEvidenceSource(st *store.Store, v *verify.Verifier, logger *slog.Logger) (*evidenceSource, error) {
	byID, err := newByteCache[verifiedBundle](evidenceCacheSize, evidenceCacheBytes)
	if err != nil {
		return nil, err
	}
	byDigest, err := newByteCache[knownDigest](digestCacheSize, digestCacheBytes)
	if err != nil {
		return nil, err
	}
	return &evidenceSource{store: st, verifier: v, logger: logger, byID: byID, byDigest: byDigest}, nil
}

func (e *evidenceSource) lookup(ctx context.Context, sha256Hex string) (*evidenceSet, error) {
	// The generation is read before the rows: a write in between makes the set
	// look older than it is, and it is read once more. The other order would
	// make it look newer.
	generation := e.store.GenerationOf(sha256Hex)
	if known, ok := e.byDigest.get(sha256Hex); ok && known.generation == generation {
		if known.set != nil {
			return known.set, nil
		}
		return e.again(ctx, known)
	}
	rows, more, err := e.store.AttestationsBySHA256(ctx, sha256Hex, attest.PredicateSLSAProvenanceV1, maxEvidence)
	if err != nil {
		return nil, err
	}
	set := &evidenceSet{cut: more}
	known := knownDigest{generation: generation, cut: more}
	for _, row := range rows {
		known.rows = append(known.rows, row.ID)
		e.admit(ctx, set, row)
	}
	size, ok := set.keepable()
	if ok {
		known.set, known.rows = set, nil
	} else {
		size = len(known.rows) * sha256.Size * 2
	}
	e.byDigest.add(sha256Hex, known, size+entryOverhead)
	return set, nil
}

// again puts together a set that was too large to keep. Which attestations it is
// made of is known, so that nothing is searched for and picked.
func (e *evidenceSource) again(ctx context.Context, known knownDigest) (*evidenceSet, error) {
	set := &evidenceSet{cut: known.cut}
	for _, id := range known.rows {
		if v, ok := e.byID.get(id); ok {
			set.add(id, v)
			continue
		}
		row, err := e.store.Attestation(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			e.logger.ErrorContext(ctx, "stored attestation is gone", "attestation_id", id)
			set.rejected++
			continue
		}
		if err != nil {
			return nil, err
		}
		e.admit(ctx, set, row)
	}
	return set, nil
}

// admit adds what a row holds to the set, if it verifies.
func (e *evidenceSource) admit(ctx context.Context, set *evidenceSet, row *store.Attestation) {
	v, err := e.verify(row)
	if err != nil {
		// A row that does not verify was damaged or forged on disk. It counts
		// for nothing and is loud.
		e.logger.ErrorContext(ctx, "stored attestation does not verify", "attestation_id", row.ID,
			"reason", string(refusal.CodeOf(err)), "error", err.Error())
		set.rejected++
		return
	}
	set.add(row.ID, v)
}

func (e *evidenceSource) verify(row *store.Attestation) (verifiedBundle, error) {
	sum := sha256.Sum256(row.Bundle)
	// What was verified is a bundle, not a row: one that has another bundle now
	// is verified again.
	v := verifiedBundle{sum: hex.EncodeToString(sum[:]), beside: sumOfDetached(row.Detached)}
	if known, ok := e.byID.get(row.ID); ok && known.sum == v.sum && known.beside == v.beside {
		return known, nil
	}
	var err error
	if v.evidence, err = e.verifier.VerifyOwn(row.Bundle, coSignatures(row.Detached)...); err != nil {
		return v, err
	}
	if v.of, _, err = attestationResource(row); err != nil {
		return v, err
	}
	// A good bundle in another's row would speak in the other's name.
	payload := v.evidence.Payload()
	if sum := sha256.Sum256(payload); hex.EncodeToString(sum[:]) != row.ID {
		return v, refusal.New(CodeStoredEvidenceInvalid, "the bundle holds statement %x", sum)
	}
	if v.notarised, err = notarisedOf(row); err != nil {
		return v, err
	}
	if len(payload) <= maxCachedPayload {
		e.byID.add(row.ID, v, len(payload)+v.notarised.size()+entryOverhead)
	}
	return v, nil
}

// notarisedOf finds the Notary signature of a row.
func notarisedOf(row *store.Attestation) (*notarised, error) {
	for _, d := range row.Detached {
		if d.Kind != notary.MediaTypeSignature {
			continue
		}
		parts, err := attest.ParseOwnBundle(row.Bundle)
		if err != nil {
			return nil, err
		}
		return &notarised{envelope: parts.Envelope.Marshal(), signature: d.Signature}, nil
	}
	return nil, nil
}

func (n *notarised) size() int {
	if n == nil {
		return 0
	}
	return len(n.envelope) + len(n.signature)
}

// sumOfDetached is "" where there is nothing beside the bundle.
func sumOfDetached(detached []store.Detached) string {
	if len(detached) == 0 {
		return ""
	}
	h := sha256.New()
	for _, d := range detached {
		for _, part := range []string{d.Kind, d.KeyID, string(d.Signature)} {
			fmt.Fprintf(h, "%d:%s", len(part), part)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
