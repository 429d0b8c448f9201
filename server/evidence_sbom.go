package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
)

const (
	// maxSBOMs is how many SBOMs of an artifact take part in a decision: of those that
	// the service made, and as many that somebody attached. Each counts for the build it
	// came with, so there are as many as provenance attestations, picked alike.
	maxSBOMs                          = maxEvidence
	sbomCacheSize, sbomCacheBytes     = 4 << 10, 256 << 20
	sbomDigestSize, sbomDigestEntries = 8 << 10, 8 << 20
	// maxSBOMBundle is more than the bundle of the largest SBOM has, which holds it in
	// base64, and sbomReading how many bytes of bundles are read at a time: a few of the
	// largest, or one of the largest and any number that are small.
	maxSBOMBundle, sbomReading = maxSBOMBytes/3*4 + 8<<20, 4 * maxSBOMBundle
)

// sbomSource turns a digest into the facts of its SBOMs. An SBOM is verified and read
// once: what is kept of it is the facts, which are some tens of bytes for a package.
type sbomSource struct {
	evidence *evidenceSource
	wanted   []wantedSBOMs
	byID     *byteCache[*verifiedSBOM] // nil for one that counts for nothing
	byDigest *byteCache[knownSBOMs]
	flight   singleflight.Group
	reading  *semaphore.Weighted // bytes
	told     *lru.Cache[string, struct{}]
}

// wantedSBOMs are SBOMs that the policy looks at.
type wantedSBOMs struct {
	predicateType string
	origin        store.Origin
	limit         int
}

// verifiedSBOM is facts, the hash of the very bundle that gave them, and whose they are.
type verifiedSBOM struct {
	facts *policy.SBOM
	sum   string
	of    policy.Resource
}

// knownSBOMs is which SBOMs a digest had at some generation.
type knownSBOMs struct {
	generation uint64
	ids        []string
}

func newSBOMSource(e *evidenceSource, p *policy.Set) (*sbomSource, error) {
	s := &sbomSource{evidence: e, reading: semaphore.NewWeighted(sbomReading)}
	if p.ReadsSBOM() {
		s.wanted = append(s.wanted, wantedSBOMs{attest.PredicateCycloneDX, store.Hashed, maxSBOMs})
	}
	if p.ReadsClaimedSBOM() {
		s.wanted = append(s.wanted,
			wantedSBOMs{attest.PredicateCycloneDX, store.Claimed, maxSBOMs / 2},
			wantedSBOMs{attest.PredicateSPDX, store.Claimed, maxSBOMs / 2})
	}
	var err error
	if s.byID, err = newByteCache[*verifiedSBOM](sbomCacheSize, sbomCacheBytes); err != nil {
		return nil, err
	}
	if s.byDigest, err = newByteCache[knownSBOMs](sbomDigestSize, sbomDigestEntries); err != nil {
		return nil, err
	}
	s.told, err = lru.New[string, struct{}](sbomCacheSize)
	return s, err
}

// lookup returns the SBOMs of a digest that the policy looks at. One that does not verify
// counts for nothing and is loud, as with other evidence: a rule that needs it then denies.
func (s *sbomSource) lookup(ctx context.Context, sha256Hex string) ([]*verifiedSBOM, error) {
	if len(s.wanted) == 0 {
		return nil, nil
	}
	generation := s.evidence.store.GenerationOf(sha256Hex) // before the rows, as in evidenceSource
	known, ok := s.byDigest.get(sha256Hex)
	if !ok || known.generation != generation {
		known = knownSBOMs{generation: generation}
		for _, w := range s.wanted {
			ids, err := s.evidence.store.AttestationIDsBySHA256(ctx, sha256Hex, w.predicateType, w.origin, w.limit)
			if err != nil {
				return nil, err
			}
			known.ids = append(known.ids, ids...)
		}
		s.byDigest.add(sha256Hex, known, len(known.ids)*sha256.Size*2+entryOverhead)
	}
	var out []*verifiedSBOM
	for _, id := range known.ids {
		v, err := s.one(ctx, id)
		if err != nil {
			return nil, err
		}
		if v != nil {
			out = append(out, v)
		}
	}
	return out, nil
}

// one returns the facts of an attestation, nil where it does not verify. Of those who
// ask at the same time one reads it, and one that does not verify is not read again: its
// maker chooses how long that takes.
func (s *sbomSource) one(ctx context.Context, id string) (*verifiedSBOM, error) {
	if v, ok := s.byID.get(id); ok {
		return v, nil
	}
	v, err, _ := s.flight.Do(id, func() (any, error) {
		v, err := s.read(context.WithoutCancel(ctx), id)
		size := entryOverhead
		switch {
		case err == nil:
			size += v.facts.Size()
		case errors.Is(err, store.ErrNotFound):
			s.tell(ctx, id, err)
			return v, nil // there is nothing to be spared
		case errors.Is(err, errUnread):
			return nil, err
		default:
			s.tell(ctx, id, err)
		}
		s.byID.add(id, v, size)
		return v, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*verifiedSBOM), nil
}

// errUnread is in the chain of what says nothing about an SBOM: the store may answer the
// next time.
var errUnread = errors.New("the SBOM was not read")

func (s *sbomSource) read(ctx context.Context, id string) (*verifiedSBOM, error) {
	// How large it is shows when it has been read.
	if err := s.reading.Acquire(ctx, maxSBOMBundle); err != nil {
		return nil, err
	}
	held := int64(maxSBOMBundle)
	defer func() { s.reading.Release(held) }()
	row, err := s.evidence.store.Attestation(ctx, id)
	if err != nil && refusal.CodeOf(err) != "" && !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", errUnread, err)
	}
	if err != nil { // it is gone, or cannot be unpacked
		return nil, err
	}
	if over := held - int64(len(row.Bundle)); over > 0 {
		s.reading.Release(over)
		held -= over
	}
	return s.verify(row)
}

// tell logs what is wrong with an SBOM, once.
func (s *sbomSource) tell(ctx context.Context, id string, err error) {
	if before, _ := s.told.ContainsOrAdd(id, struct{}{}); before {
		return
	}
	s.evidence.logger.ErrorContext(ctx, "stored SBOM does not verify", "attestation_id", id,
		"reason", string(refusal.CodeOf(err)), "error", err.Error())
}

func (s *sbomSource) verify(row *store.Attestation) (*verifiedSBOM, error) {
	sum := sha256.Sum256(row.Bundle)
	e, err := s.evidence.verifier.VerifyOwn(row.Bundle, coSignatures(row.Detached)...)
	if err != nil {
		return nil, err
	}
	facts, err := policy.ReadSBOM(e)
	if err != nil {
		return nil, err
	}
	if facts.ID() != row.ID {
		return nil, refusal.New(CodeStoredEvidenceInvalid, "the bundle holds statement %s", facts.ID())
	}
	of, _, err := attestationResource(row)
	return &verifiedSBOM{facts: facts, sum: hex.EncodeToString(sum[:]), of: of}, err
}
