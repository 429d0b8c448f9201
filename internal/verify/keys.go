package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeKeyInvalid refuses a trusted public key that is not one PEM block with a usable key.
	CodeKeyInvalid refusal.Code = "KEY_INVALID"

	maxKeyPEMBytes = 64 << 10
	maxRSAKeyBits  = 4096
)

// PublicKey is a signing key that is trusted by name, with the time in which its
// signatures count. Both ends of the window are inclusive; a zero end is open.
//
// An ML-DSA-65 key is for co-signatures (see Detached) and never signs a bundle.
type PublicKey struct {
	PEM []byte // one PUBLIC KEY block
	// PSS says that an RSA key signs with RSASSA-PSS, SHA-256 and a salt of 32 bytes, as
	// ours do. Others' keys sign with PKCS #1 v1.5.
	PSS       bool
	NotBefore time.Time
	NotAfter  time.Time
	// RevokedSince, unless zero, refuses signatures made at or after it.
	// Signatures made before stay good, because their time was witnessed.
	RevokedSince time.Time
}

// trustedKey is a PublicKey that was read. Its id is the lower-case hex SHA-256 of
// the SubjectPublicKeyInfo.
type trustedKey struct {
	PublicKey
	id       string
	keyid    string // see Fingerprint
	spki     []byte
	pem      []byte // of spki, as log entries hold it
	key      crypto.PublicKey
	own      bool // of a kind that the lean path knows: see attest.SignatureHash
	verifier signature.Verifier
}

// fingerprint reads the PEM block without looking at the key inside, so that a
// bundle of another key can be told apart from a key that is no key at all.
func (p PublicKey) fingerprint() (id string, spki []byte, err error) {
	if len(p.PEM) > maxKeyPEMBytes {
		return "", nil, refusal.New(CodeKeyInvalid, "PEM of %d bytes, limit %d", len(p.PEM), maxKeyPEMBytes)
	}
	block, rest := pem.Decode(p.PEM)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) != 0 {
		return "", nil, refusal.New(CodeKeyInvalid, "want exactly one PUBLIC KEY block")
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:]), block.Bytes, nil
}

func (p PublicKey) parse() (*trustedKey, error) {
	id, spki, err := p.fingerprint()
	if err != nil {
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, refusal.New(CodeKeyInvalid, "key %s: %w", id, err)
	}
	if err := checkKeySize(pub); err != nil {
		return nil, err
	}
	v, err := p.loadVerifier(pub)
	if err != nil {
		return nil, refusal.New(CodeKeyInvalid, "key %s: %w", id, err)
	}
	keyid, err := Fingerprint(pub)
	if err != nil {
		return nil, refusal.New(CodeKeyInvalid, "key %s: %w", id, err)
	}
	k := &trustedKey{PublicKey: p, id: id, keyid: keyid, spki: spki, key: pub, verifier: v}
	k.pem = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	_, isRSA := pub.(*rsa.PublicKey)
	_, unsupported := attest.SignatureHash(pub)
	k.own = unsupported == nil && (!isRSA || p.PSS)
	return k, nil
}

func (p PublicKey) loadVerifier(pub crypto.PublicKey) (signature.Verifier, error) {
	if !p.PSS {
		return signature.LoadDefaultVerifier(pub)
	}
	key, ok := pub.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("of type %T, which does not sign with RSASSA-PSS", pub)
	}
	hash, err := attest.SignatureHash(key)
	if err != nil {
		return nil, err
	}
	return signature.LoadRSAPSSVerifier(key, hash, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash})
}

// Fingerprint is the one keyid, besides none, that a DSSE signature can carry and
// verify under sigstore-go: it skips a signature whose keyid is not the key's OpenSSH
// fingerprint, "SHA256:" and base64. So do cosign and all that build on it. SPEC
// (bundle): the key hint MUST be exactly the same in both places, so it is our hint too.
func Fingerprint(pub crypto.PublicKey) (string, error) { return dsse.SHA256KeyID(pub) }

const (
	// CodeKeyOutsideValidity refuses a signature made before or after its key's window.
	CodeKeyOutsideValidity refusal.Code = "KEY_OUTSIDE_VALIDITY"
	// CodeKeyRevoked refuses a signature made at or after its key's revocation.
	CodeKeyRevoked refusal.Code = "KEY_REVOKED"
)

// checkTime says whether a signature that existed at t may count.
func (k *trustedKey) checkTime(t time.Time) error { return k.checkWindow(k.id, t) }

// checkWindow does so for the key with that id.
func (k *PublicKey) checkWindow(id string, t time.Time) error {
	switch {
	case !k.RevokedSince.IsZero() && !t.Before(k.RevokedSince):
		return refusal.New(CodeKeyRevoked, "key %s is revoked since %s, signed %s", id, stamp(k.RevokedSince), stamp(t))
	case !k.NotBefore.IsZero() && t.Before(k.NotBefore):
		return refusal.New(CodeKeyOutsideValidity, "key %s is valid from %s, signed %s", id, stamp(k.NotBefore), stamp(t))
	case !k.NotAfter.IsZero() && t.After(k.NotAfter):
		return refusal.New(CodeKeyOutsideValidity, "key %s was valid to %s, signed %s", id, stamp(k.NotAfter), stamp(t))
	}
	return nil
}

// spkiFingerprint is used for keys that come as values, such as a log's.
func spkiFingerprint(pub crypto.PublicKey) ([32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(der), nil
}

func ecdsaP256(pub crypto.PublicKey) (*ecdsa.PublicKey, bool) {
	k, ok := pub.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, false
	}
	return k, true
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
