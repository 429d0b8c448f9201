// Package signing holds the keys of one Assay instance and everything that is
// signed with them alone: signatures over digests, RFC 3161 timestamps, and the
// Sigstore trusted root that tells verifiers which keys to believe and when.
//
// # Keys
//
// Every key is ECDSA P-256 and signs SHA-256 digests; signatures are ASN.1 DER. A
// key is named by its id, the lower-case hex SHA-256 of its DER SubjectPublicKeyInfo.
// A key is opened by reference:
//
//	file:///var/lib/assay/keys/attestation.pem   PKCS #8 PEM, readable by its owner alone
//	awskms://…, signer://…                       reserved; refused with KEY_SCHEME_UNSUPPORTED
//
// # Keyset
//
// An instance has one keyset, a directory:
//
//	keyset.json       host, and for each key its role, id, public key, validity and state
//	attestation.pem   signs DSSE envelopes
//	log.pem           signs checkpoints and inclusion promises of the transparency log
//	tsa.pem           signs timestamps, under the certificate chain in keyset.json
//
// It is made on first start, whole or not at all, and from then on it is the
// identity of the instance: where a file is missing, readable by others, or not
// the key that keyset.json names, OpenKeyset refuses. It never makes a new key in
// the place of a lost one, because every verifier would go on believing the old.
//
//	keys, err := signing.OpenKeyset(ctx, "/var/lib/assay/keys", signing.Config{
//		Host: "assay.example.com", Now: time.Now, Create: true,
//	})
//	sig, err := keys.AttestationSigner().Sign(ctx, paeDigest)
//	token, err := keys.TSA().Timestamp(ctx, sig)
//	root, err := keys.TrustedRoot()
//
// Private keys never leave this package: no error, no formatted value and no log
// record holds one.
package signing

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeKeySchemeUnsupported refuses a key reference of a kind this build cannot open.
	CodeKeySchemeUnsupported refusal.Code = "KEY_SCHEME_UNSUPPORTED"
	// CodeKeyRefInvalid refuses a key reference that cannot be read.
	CodeKeyRefInvalid refusal.Code = "KEY_REF_INVALID"
	// CodeKeyMismatch refuses a key that is not the one it is said to be.
	CodeKeyMismatch refusal.Code = "KEY_MISMATCH"
	// CodeDigestLength refuses to sign anything but a SHA-256 digest.
	CodeDigestLength refusal.Code = "DIGEST_LENGTH_INVALID"
)

// Signer signs SHA-256 digests with one key. Implementations may be used from
// many goroutines at once, do not retry, and give up when ctx does. A signature
// that Sign returns verifies with VerifyECDSA under Public.
type Signer interface {
	// Sign returns an ASN.1 DER ECDSA signature over a SHA-256 digest.
	Sign(ctx context.Context, digest []byte) ([]byte, error)
	// Public returns the *ecdsa.PublicKey of the pair.
	Public() crypto.PublicKey
	// KeyID returns the lower-case hex SHA-256 of the DER SubjectPublicKeyInfo.
	KeyID() string
}

// Open opens the key that ref names. With create, a file key that does not exist
// is generated; keys elsewhere are never created.
func Open(ctx context.Context, ref string, create bool) (Signer, error) {
	u, err := url.Parse(ref)
	if err != nil {
		return nil, refusal.New(CodeKeyRefInvalid, "%q is not a key reference; write file:///absolute/path", ref)
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || !filepath.IsAbs(u.Path) {
			return nil, refusal.New(CodeKeyRefInvalid, "%q is not a file reference; write file:///absolute/path", ref)
		}
		return OpenFile(u.Path, create)
	case "awskms", "signer":
		return nil, refusal.New(CodeKeySchemeUnsupported, "this build cannot open %s:// keys; it opens file:// keys", u.Scheme)
	default:
		return nil, refusal.New(CodeKeySchemeUnsupported, "key scheme %q is unknown; this build opens file:// keys", u.Scheme)
	}
}

// KeyID returns the id of a public key: the lower-case hex SHA-256 of its DER
// SubjectPublicKeyInfo.
func KeyID(pub crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	return keyIDOf(spki), nil
}

func keyIDOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// VerifyECDSA reports whether sig is a strict DER signature over a SHA-256 digest
// by a P-256 key. Everything else is false: other curves, other digest lengths,
// BER, trailing bytes.
func VerifyECDSA(pub *ecdsa.PublicKey, digest, sig []byte) bool {
	if pub == nil || pub.Curve != elliptic.P256() || len(digest) != sha256.Size {
		return false
	}
	return ecdsa.VerifyASN1(pub, digest, sig)
}

// checkSigner signs a random digest and verifies the result, so that a key that
// does not answer to its public half is found at start and not in the log.
func checkSigner(ctx context.Context, s Signer) error {
	pub, ok := s.Public().(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return refusal.New(CodeKeyMismatch, "key %s is not ECDSA P-256", s.KeyID())
	}
	digest := make([]byte, sha256.Size)
	rand.Read(digest) // never fails: crypto/rand ends the program instead
	sig, err := s.Sign(ctx, digest)
	if err != nil {
		return fmt.Errorf("key %s: trial signature: %w", s.KeyID(), err)
	}
	if !VerifyECDSA(pub, digest, sig) {
		return refusal.New(CodeKeyMismatch, "key %s: its trial signature does not verify under its public key", s.KeyID())
	}
	return nil
}
