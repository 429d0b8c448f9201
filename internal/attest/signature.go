package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // linked for crypto.SHA256
	_ "crypto/sha512" // linked for crypto.SHA384

	"github.com/assay-build/assay/internal/refusal"
)

// CodeSignatureKeyUnsupported refuses a public key of a kind that signs nothing
// of ours.
const CodeSignatureKeyUnsupported refusal.Code = "SIGNATURE_KEY_UNSUPPORTED"

// The RSA keys that may sign. Smaller ones can be factored; what verifies larger
// ones is paid for by whoever reads.
const (
	minRSABits     = 2048
	maxRSABits     = 4096
	minRSAExponent = 65537
)

// SignatureHash is the hash that signatures of pub are made over. The key alone
// decides it, so that no signature can be read in two ways: SHA-256 for ECDSA
// P-256 and for RSA (RSASSA-PSS) of 2048 to 4096 bits, SHA-384 for ECDSA P-384.
// Any other key is refused.
func SignatureHash(pub crypto.PublicKey) (crypto.Hash, error) {
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		if key == nil {
			break
		}
		switch key.Curve {
		case elliptic.P256():
			return crypto.SHA256, nil
		case elliptic.P384():
			return crypto.SHA384, nil
		case nil:
			return 0, refusal.New(CodeSignatureKeyUnsupported, "an ECDSA key without a curve")
		}
		return 0, refusal.New(CodeSignatureKeyUnsupported, "an ECDSA key on %s, want P-256 or P-384", key.Curve.Params().Name)
	case *rsa.PublicKey:
		if key == nil || key.N == nil || key.N.Sign() <= 0 {
			break
		}
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return 0, refusal.New(CodeSignatureKeyUnsupported, "an RSA key of %d bits, want %d to %d", bits, minRSABits, maxRSABits)
		}
		// FIPS 186-5, 5.1: the exponent is odd and more than 2^16.
		if key.E < minRSAExponent || key.E%2 == 0 {
			return 0, refusal.New(CodeSignatureKeyUnsupported, "an RSA key with exponent %d, want an odd one of at least %d", key.E, minRSAExponent)
		}
		return crypto.SHA256, nil
	}
	return 0, refusal.New(CodeSignatureKeyUnsupported, "a public key of type %T, want ECDSA P-256 or P-384, or RSA", pub)
}

// SignatureDigest is the digest of message that pub's signatures are made over.
func SignatureDigest(pub crypto.PublicKey, message []byte) ([]byte, error) {
	hash, err := SignatureHash(pub)
	if err != nil {
		return nil, err
	}
	h := hash.New()
	h.Write(message)
	return h.Sum(nil), nil
}

// VerifySignature reports whether sig is pub's signature of digest, which has the
// length of SignatureHash. ECDSA signatures are DER, of one spelling and with
// nothing after them; RSA signatures are RSASSA-PSS whose salt is as long as the
// hash. Everything else is false.
func VerifySignature(pub crypto.PublicKey, digest, sig []byte) bool {
	hash, err := SignatureHash(pub)
	if err != nil || len(digest) != hash.Size() {
		return false
	}
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, digest, sig)
	case *rsa.PublicKey:
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		return rsa.VerifyPSS(key, hash, digest, sig, options) == nil
	}
	return false
}
