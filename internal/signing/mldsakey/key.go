// Package mldsakey holds ML-DSA-65 keys (FIPS 204): the second, post-quantum signature
// that an instance may put beside the one every Sigstore verifier understands.
//
// # Signatures
//
// They are pure ML-DSA-65 with an empty context, over a whole message, which for an
// attestation is the DSSE pre-authentication encoding. They are 3309 bytes and hedged:
// signing the same message twice gives two signatures. Where the signer takes only a
// few bytes, as AWS KMS does, it is given the message representative instead
// (FIPS 204 algorithm 7, RFC 9881 appendix D), and the signature is the same:
//
//	mu = SHAKE256(SHAKE256(public key, 64) || 0x00 || 0x00 || message, 64)
//
// # Keys
//
// A public key travels as DER SubjectPublicKeyInfo (RFC 9881), 1974 bytes of which 1952
// are the key; its id is their lower-case hex SHA-256. A private key is a file of mode
// 0600 with one PKCS #8 PEM block that holds the 32-byte seed. The other two forms of
// RFC 9881, expanded keys, are refused: a seed is checked by what follows from it, an
// expanded key is not.
//
//	key, err := mldsakey.Open("/var/lib/assay/keys/cosign.pem", true)
//	sig, err := key.SignMessage(ctx, attest.PAE(payloadType, payload))
//	err = mldsakey.Verify(key.PublicKey(), attest.PAE(payloadType, payload), sig)
//
// No error, no formatted value and no log record holds a private key.
package mldsakey

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/hex"
	"fmt"
	"log/slog"

	"filippo.io/mldsa"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeKeyInvalid refuses a public key that is not ML-DSA-65 in the one encoding it has.
	CodeKeyInvalid refusal.Code = "MLDSA_KEY_INVALID"
	// CodeSignatureInvalid refuses a signature that the key did not make over the message.
	CodeSignatureInvalid refusal.Code = "MLDSA_SIGNATURE_INVALID"
)

// spkiPrefix is everything in front of the key in a SubjectPublicKeyInfo. RFC 9881
// section 2 fixes the algorithm, forbids parameters, and the key has one length, so DER
// leaves no choice: comparing these bytes is the whole parser.
const spkiPrefix = "\x30\x82\x07\xb2" + // SEQUENCE
	"\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x12" + // id-ml-dsa-65, no parameters
	"\x03\x82\x07\xa1\x00" // BIT STRING, no unused bits

// Key is an ML-DSA-65 key pair. However it is printed, it shows its id and nothing
// else. It may be used from many goroutines.
type Key struct {
	private *mldsa.PrivateKey
	id      string
}

// SignMessage signs msg itself, not a digest of it.
func (k *Key) SignMessage(ctx context.Context, msg []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sig, err := k.private.Sign(nil, msg, nil)
	if err != nil {
		return nil, fmt.Errorf("sign with key %s: %w", k.id, err)
	}
	return sig, nil
}

// PublicKey returns the public half.
func (k *Key) PublicKey() *mldsa.PublicKey { return k.private.PublicKey() }

// KeyID returns the lower-case hex SHA-256 of the DER SubjectPublicKeyInfo.
func (k *Key) KeyID() string { return k.id }

// String names the key by its id.
func (k Key) String() string { return "key " + k.id }

// Format prints String for every verb: %#v and %x would otherwise walk into the key.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// LogValue is what slog records.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText is what JSON and other encoders write.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// SPKI returns the DER SubjectPublicKeyInfo of an ML-DSA-65 key.
func SPKI(pub *mldsa.PublicKey) ([]byte, error) {
	if pub == nil || pub.Parameters() != mldsa.MLDSA65() {
		return nil, refusal.New(CodeKeyInvalid, "the public key is not %s", mldsa.MLDSA65())
	}
	return append([]byte(spkiPrefix), pub.Bytes()...), nil
}

// ParseSPKI reads what SPKI writes, and nothing else: no other parameter set, no BER,
// no bytes behind it.
func ParseSPKI(der []byte) (*mldsa.PublicKey, error) {
	if want := len(spkiPrefix) + mldsa.MLDSA65PublicKeySize; len(der) != want {
		return nil, refusal.New(CodeKeyInvalid, "an %s SubjectPublicKeyInfo has %d bytes, this has %d", mldsa.MLDSA65(), want, len(der))
	}
	encoded, ok := bytes.CutPrefix(der, []byte(spkiPrefix))
	if !ok {
		return nil, refusal.New(CodeKeyInvalid, "the public key is not the SubjectPublicKeyInfo of an %s key", mldsa.MLDSA65())
	}
	pub, err := mldsa.NewPublicKey(mldsa.MLDSA65(), encoded)
	if err != nil {
		return nil, refusal.New(CodeKeyInvalid, "the public key is not an %s key: %v", mldsa.MLDSA65(), err)
	}
	return pub, nil
}

// KeyID returns the id of a public key: the lower-case hex SHA-256 of its SPKI.
func KeyID(pub *mldsa.PublicKey) (string, error) {
	spki, err := SPKI(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:]), nil
}

// Verify returns nil where sig is a pure ML-DSA-65 signature with an empty context by
// pub over msg.
func Verify(pub *mldsa.PublicKey, msg, sig []byte) error {
	if pub == nil || pub.Parameters() != mldsa.MLDSA65() {
		return refusal.New(CodeKeyInvalid, "the public key is not %s", mldsa.MLDSA65())
	}
	if len(sig) != mldsa.MLDSA65SignatureSize {
		return refusal.New(CodeSignatureInvalid, "an %s signature has %d bytes, this has %d", mldsa.MLDSA65(), mldsa.MLDSA65SignatureSize, len(sig))
	}
	if err := mldsa.Verify(pub, msg, sig, nil); err != nil {
		return refusal.New(CodeSignatureInvalid, "the %s signature is not by this key over this message", mldsa.MLDSA65())
	}
	return nil
}

// Mu returns the message representative of pure ML-DSA with an empty context (FIPS 204
// algorithm 2 line 10 and algorithm 7 line 6). It depends on the public key, so that a
// signature over it belongs to that key alone.
func Mu(pub *mldsa.PublicKey, msg []byte) [64]byte {
	tr := sha3.SumSHAKE256(pub.Bytes(), 64)
	h := sha3.NewSHAKE256()
	h.Write(tr)
	h.Write([]byte{0, 0}) // pure, and a context of length zero
	h.Write(msg)
	var mu [64]byte
	h.Read(mu[:])
	return mu
}
