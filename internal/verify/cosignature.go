package verify

import (
	"slices"

	"filippo.io/mldsa"
	mldsax509 "filippo.io/mldsa/x509"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeCoSignatureInvalid refuses a bundle with a co-signature that its key did not
	// make over this very envelope.
	CodeCoSignatureInvalid refusal.Code = "COSIGNATURE_INVALID"
	// CodeCoSignatureKeyUnknown refuses a co-signature of a key that nobody vouched for.
	CodeCoSignatureKeyUnknown refusal.Code = "COSIGNATURE_KEY_UNKNOWN"
	// CodeCoSignatureAlgorithmUnknown refuses a co-signature of a kind not known here:
	// what cannot be checked is not ignored.
	CodeCoSignatureAlgorithmUnknown refusal.Code = "COSIGNATURE_ALGORITHM_UNKNOWN"
	// CodeCoSignatureDuplicate refuses a second co-signature by one key.
	CodeCoSignatureDuplicate refusal.Code = "COSIGNATURE_DUPLICATE"

	maxCoSignatures = 8
)

// AlgorithmMLDSA65 is FIPS 204's ML-DSA-65, pure and with an empty context.
const AlgorithmMLDSA65 = "ML_DSA_65"

// Detached is a co-signature: a second signature over what the bundle's envelope signs,
// its pre-authentication encoding, kept beside the bundle because bundles hold one.
type Detached struct {
	Algorithm string // AlgorithmMLDSA65
	KeyID     string // lower-case hex SHA-256 of the key's SubjectPublicKeyInfo
	Signature []byte
}

// coKey is a PublicKey of a kind that co-signs. It is in a table of its own, so that no
// hint of a bundle can find it.
type coKey struct {
	PublicKey
	id  string
	key *mldsa.PublicKey
}

// parseCoKey returns nil for a key of any kind that parse knows.
func (p PublicKey) parseCoKey() (*coKey, error) {
	id, spki, err := p.fingerprint()
	if err != nil {
		return nil, err
	}
	pub, err := mldsax509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, nil //nolint:nilerr // parse says what is wrong with it
	}
	key, ok := pub.(*mldsa.PublicKey)
	switch {
	case !ok:
		return nil, nil
	case key.Parameters() != mldsa.MLDSA65():
		return nil, refusal.New(CodeKeyInvalid, "key %s: %v, want ML-DSA-65", id, key.Parameters())
	case p.PSS:
		return nil, refusal.New(CodeKeyInvalid, "key %s: an ML-DSA key does not sign with RSASSA-PSS", id)
	}
	return &coKey{PublicKey: p, id: id, key: key}, nil
}

// checkCoSignatures verifies every co-signature over pae. They carry no time: they are
// held to the times at which the main signature is known to have existed, and so a key's
// window and revocation count as they do for the bundle.
func (r *Root) checkCoSignatures(detached []Detached, pae []byte, ev *Evidence) error {
	if len(detached) > maxCoSignatures {
		return refusal.New(CodeCoSignatureInvalid, "%d co-signatures, limit %d", len(detached), maxCoSignatures)
	}
	seen := make(map[string]bool, len(detached))
	for _, d := range detached {
		if d.Algorithm != AlgorithmMLDSA65 {
			return refusal.New(CodeCoSignatureAlgorithmUnknown, "algorithm %.40q, want %s", d.Algorithm, AlgorithmMLDSA65)
		}
		key := r.coKeys[d.KeyID]
		switch {
		case key == nil:
			return refusal.New(CodeCoSignatureKeyUnknown, "no trusted co-signature key %.80q", d.KeyID)
		case seen[key.id]:
			return refusal.New(CodeCoSignatureDuplicate, "a second co-signature by key %s", key.id)
		}
		seen[key.id] = true
		if err := mldsa.Verify(key.key, pae, d.Signature, nil); err != nil {
			return refusal.New(CodeCoSignatureInvalid, "not by key %s over this envelope", key.id)
		}
		for _, t := range ev.times {
			if err := key.checkWindow(key.id, t.at); err != nil {
				return err
			}
		}
		ev.coSignatures = append(ev.coSignatures, d.Algorithm)
	}
	slices.Sort(ev.coSignatures)
	ev.coSignatures = slices.Compact(ev.coSignatures)
	return nil
}
