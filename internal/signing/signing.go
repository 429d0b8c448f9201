// Package signing holds the keys of one Assay instance and everything that is
// signed with them alone: signatures over digests, RFC 3161 timestamps, and the
// Sigstore trusted root that tells verifiers which keys to believe and when.
//
// # Keys
//
// A key is ECDSA P-256, which signs SHA-256 digests, ECDSA P-384, which signs
// SHA-384 digests, or RSA, which makes RSASSA-PSS signatures over SHA-256 digests;
// attest.SignatureHash and attest.VerifySignature are the law. A co-signature key
// is ML-DSA-65 and signs whole messages. A key is named by its id, the lower-case
// hex SHA-256 of its DER SubjectPublicKeyInfo, and found by a reference:
//
//	file:attestation.pem            PKCS #8 PEM beside keyset.json, readable by its owner alone
//	awskms:///arn:aws:kms:…:key/…   in AWS KMS, reached through Config.Openers
//
// Keys that are made here are P-256, and ML-DSA-65 for co-signatures.
//
// # Keyset
//
// An instance has one keyset, a directory:
//
//	keyset.json       host, and for each key its role, tier, id, public key, state, validity
//	attestation.pem   signs DSSE envelopes
//	log.pem           signs checkpoints and inclusion promises of the transparency log
//	tsa.pem           signs timestamps, under the certificate chain in keyset.json
//	intermediates/    certificates that the CA key has signed, in certificate mode
//	.lock             held by who writes keyset.json
//
// It is made on first start, whole or not at all, and from then on it is the
// identity of the instance: where a file is missing, readable by others, or not
// the key that keyset.json names, OpenKeyset refuses. It never makes a new key in
// the place of a lost one, because every verifier would go on believing the old.
//
//	keys, err := signing.OpenKeyset(ctx, "/var/lib/assay/keys", signing.Config{
//		Host: "assay.example.com", Now: time.Now, Create: true,
//	})
//	sig, err := keys.Signer(signing.RoleAttestation, signing.TierBuild).Sign(ctx, paeDigest)
//	token, err := keys.TSA().Timestamp(ctx, sig)
//	root, err := keys.TrustedRoot()
//
// Opening makes no network call: keyset.json has the public half of every key, and
// what signs elsewhere has each signature verified before it is released.
//
// # States
//
//	next ──────► active ──────► verify-only ──────► revoked
//	 published    signs          what it signed      believed as the reason
//	 to verifiers                up to its end       of the revocation allows
//	                             stands
//
// No key goes back, and none comes back under another name. The attestation role
// (of the tier ""), the log and the timestamp role have exactly one active key at
// any time; other tiers, certificate authorities and co-signatures at most one.
//
// A revocation names one of four reasons of RFC 5280 section 5.3.1:
//
//	keyCompromise         attestation, ca, co-signature: what was witnessed before the moment named
//	                      stands, all else is refused. log, timestamp: nothing stands, for their
//	                      thief writes any time he likes.
//	superseded            what was signed up to the moment stands, for every role
//	cessationOfOperation  the same
//	unspecified           nothing the key ever signed is believed
//
// # Changes
//
// A keyset changes by a plan, which says what verifiers will see of it before
// anything is written:
//
//	plan, err := signing.Plan(ctx, dir, cfg, signing.RotateKey{Role: signing.RoleAttestation})
//	for _, effect := range plan.Effects() { fmt.Println(effect) }
//	err = plan.Apply(ctx)
//
// Keyset.Stale tells a running service that keyset.json is another file by now.
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
	"time"

	"filippo.io/mldsa"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing/mldsakey"
)

const (
	// CodeKeySchemeUnsupported refuses a key reference of a kind this build cannot open.
	CodeKeySchemeUnsupported refusal.Code = "KEY_SCHEME_UNSUPPORTED"
	// CodeKeyRefInvalid refuses a key reference that cannot be read.
	CodeKeyRefInvalid refusal.Code = "KEY_REF_INVALID"
	// CodeKeyMismatch refuses a key that is not the one it is said to be.
	CodeKeyMismatch refusal.Code = "KEY_MISMATCH"
	// CodeDigestLength refuses to sign anything but a digest of the length that the key signs.
	CodeDigestLength refusal.Code = "DIGEST_LENGTH_INVALID"
)

// Signer signs digests with one key. Implementations may be used from many
// goroutines at once and give up when ctx does. A signature that Sign returns
// verifies with attest.VerifySignature under Public.
type Signer interface {
	// Sign returns a signature over a digest of the key's hash (attest.SignatureHash):
	// ASN.1 DER for ECDSA, RSASSA-PSS for RSA.
	Sign(ctx context.Context, digest []byte) ([]byte, error)
	// Public returns the *ecdsa.PublicKey or *rsa.PublicKey of the pair.
	Public() crypto.PublicKey
	// KeyID returns the lower-case hex SHA-256 of the DER SubjectPublicKeyInfo.
	KeyID() string
}

// MessageSigner signs whole messages with an ML-DSA-65 key: pure, with an empty
// context (FIPS 204). Implementations are as those of Signer.
type MessageSigner interface {
	SignMessage(ctx context.Context, msg []byte) ([]byte, error)
	PublicKey() *mldsa.PublicKey
	KeyID() string
}

// Openers reach keys that this package does not hold. Where one is nil, keys of
// its kind are refused with KEY_SCHEME_UNSUPPORTED.
type Openers struct {
	// KMS returns the signer of a key in AWS KMS whose public half is pub, without
	// asking the network.
	KMS func(arn string, pub crypto.PublicKey) (Signer, error)
	// KMSMessage does the same for an ML-DSA-65 key; spki is its DER SubjectPublicKeyInfo.
	KMSMessage func(arn string, spki []byte) (MessageSigner, error)
	// FileMessage opens an ML-DSA-65 key in a file, or makes one where create is true.
	FileMessage func(path string, create bool) (MessageSigner, error)
	// Resolve asks AWS which key an awskms:// reference means now.
	Resolve func(ctx context.Context, ref string) (Resolved, error)
	// NewCARoot has a certificate authority's key sign its own root certificate, DER.
	NewCARoot func(ctx context.Context, s Signer, organization, host string, start time.Time) ([]byte, error)
}

// Resolved is what a reference to AWS KMS means.
type Resolved struct {
	ARN   string // of the key, never of an alias
	Alias string // the reference, if it went through an alias
	SPKI  []byte // DER SubjectPublicKeyInfo
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
	hash, err := attest.SignatureHash(s.Public())
	if err != nil {
		return refusal.New(CodeKeyMismatch, "key %s: %w", s.KeyID(), err)
	}
	digest := make([]byte, hash.Size())
	rand.Read(digest) // never fails: crypto/rand ends the program instead
	sig, err := s.Sign(ctx, digest)
	if err != nil {
		return fmt.Errorf("key %s: trial signature: %w", s.KeyID(), err)
	}
	if !attest.VerifySignature(s.Public(), digest, sig) {
		return refusal.New(CodeKeyMismatch, "key %s: its trial signature does not verify under its public key", s.KeyID())
	}
	return nil
}

// checkMessageSigner does the same for a key that signs messages.
func checkMessageSigner(ctx context.Context, s MessageSigner) error {
	msg := make([]byte, sha256.Size)
	rand.Read(msg) // never fails
	sig, err := s.SignMessage(ctx, msg)
	if err != nil {
		return fmt.Errorf("key %s: trial signature: %w", s.KeyID(), err)
	}
	if mldsakey.Verify(s.PublicKey(), msg, sig) != nil {
		return refusal.New(CodeKeyMismatch, "key %s: its trial signature does not verify under its public key", s.KeyID())
	}
	return nil
}
