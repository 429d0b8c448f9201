package tlog

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeEntryKeyUnsupported refuses a rekor-v2 entry for a key of a kind that verifiers
// cannot rebuild the entry for.
const CodeEntryKeyUnsupported refusal.Code = "ENTRY_KEY_UNSUPPORTED"

// CodeEntryDigestInvalid refuses a rekor-v2 entry whose digest is not of the key's hash.
const CodeEntryDigestInvalid refusal.Code = "ENTRY_DIGEST_INVALID"

// EntryFormat is the dialect of Sigstore's log that entries and checkpoints speak.
type EntryFormat string

const (
	// RekorV1 is dsse 0.0.1 with a SET. Every verifier measured accepts it.
	RekorV1 EntryFormat = "rekor-v1"
	// RekorV2 is hashedrekord 0.0.2 over the digest of the DSSE PAE.
	RekorV2 EntryFormat = "rekor-v2"
)

// Valid reports whether f is one of the known dialects.
func (f EntryFormat) Valid() bool { return f == RekorV1 || f == RekorV2 }

// KindVersion returns the entry kind and version that a bundle names.
func (f EntryFormat) KindVersion() (kind, version string) {
	if f == RekorV1 {
		return "dsse", "0.0.1"
	}
	return "hashedrekord", "0.0.2"
}

// DSSE is an envelope with its one signature, as a rekor-v1 entry digests it.
type DSSE struct {
	PayloadType string
	Payload     []byte
	// KeyID as it stands in the bundle's envelope; empty where it has none.
	KeyID string
	Sig   []byte
}

// EntryBodyDSSE001 returns the rekor-v1 body for an envelope signed by the key
// or certificate in verifierPEM. The bytes are canonical (RFC 8785).
func EntryBodyDSSE001(env DSSE, verifierPEM []byte) []byte {
	envelope, payload := envelopeHash(env), sha256.Sum256(env.Payload)
	b := make([]byte, 0, 320+(len(env.Sig)+len(verifierPEM))*4/3)
	b = append(b, `{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"`...)
	b = hex.AppendEncode(b, envelope[:])
	b = append(b, `"},"payloadHash":{"algorithm":"sha256","value":"`...)
	b = hex.AppendEncode(b, payload[:])
	b = append(b, `"},"signatures":[{"signature":"`...)
	b = base64.StdEncoding.AppendEncode(b, env.Sig)
	b = append(b, `","verifier":"`...)
	b = base64.StdEncoding.AppendEncode(b, verifierPEM)
	return append(b, `"}]}}`...)
}

// envelopeHash digests the envelope in protobuf's JSON order, the only form of
// it that a verifier (sigstore-rs) recomputes. It streams: a payload may have
// megabytes.
func envelopeHash(env DSSE) [32]byte {
	h := sha256.New()
	h.Write([]byte(`{"payload":"`))
	e := base64.NewEncoder(base64.StdEncoding, h)
	_, _ = e.Write(env.Payload) // a hash takes everything
	_ = e.Close()
	b := []byte(`","payloadType":` + jsonString(env.PayloadType) + `,"signatures":[{"sig":"`)
	b = base64.StdEncoding.AppendEncode(b, env.Sig)
	b = append(b, '"')
	if env.KeyID != "" {
		b = append(b, `,"keyid":`+jsonString(env.KeyID)...)
	}
	h.Write(append(b, `}]}`...))
	return [32]byte(h.Sum(nil))
}

// jsonString quotes s without escaping the characters HTML minds.
func jsonString(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // a string always encodes, into a buffer that always takes it
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// HashedRekord is what a rekor-v2 entry says: who signed which digest.
type HashedRekord struct {
	// Digest is that of the DSSE PAE, by the hash of the key: SHA-256 for P-256, SHA-384
	// for P-384.
	Digest []byte
	Sig    []byte
	// Public is the key that signed. It decides the algorithms that the entry names.
	Public crypto.PublicKey
	// Certificate, DER, stands in the entry in place of the key if it is set. It must be
	// Public's; nobody looks here.
	Certificate []byte
}

// EntryBodyHashedRekord returns the rekor-v2 body for a signature. The bytes are
// canonical (RFC 8785): verifiers rebuild them from the bundle and hash what they built.
//
// They rebuild them with the default algorithm of the key, whatever the entry says. For
// RSA that is PKCS #1 v1.5, which we never sign with, so an RSA key is refused: its
// entries would be of a signature that nobody made.
func EntryBodyHashedRekord(h HashedRekord) ([]byte, error) {
	key, ok := h.Public.(*ecdsa.PublicKey)
	if !ok || key == nil {
		return nil, refusal.New(CodeEntryKeyUnsupported, "a rekor-v2 entry for a key of type %T, want ECDSA P-256 or P-384", h.Public)
	}
	var algorithm, details string
	var size int
	switch key.Curve {
	case elliptic.P256():
		algorithm, details, size = "SHA2_256", "PKIX_ECDSA_P256_SHA_256", sha256.Size
	case elliptic.P384():
		algorithm, details, size = "SHA2_384", "PKIX_ECDSA_P384_SHA_384", sha512.Size384
	default:
		return nil, refusal.New(CodeEntryKeyUnsupported, "a rekor-v2 entry for an ECDSA key, want one on P-256 or P-384")
	}
	if len(h.Digest) != size {
		return nil, refusal.New(CodeEntryDigestInvalid, "a digest of %d bytes, want the %d of %s", len(h.Digest), size, algorithm)
	}
	verifier, raw := "x509Certificate", h.Certificate
	if len(raw) == 0 {
		spki, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return nil, refusal.New(CodeEntryKeyUnsupported, "%w", err)
		}
		verifier, raw = "publicKey", spki
	}
	return hashedRekord(algorithm, details, verifier, h.Digest, h.Sig, raw), nil
}

// EntryBodyHashedRekord002 is EntryBodyHashedRekord for the ECDSA P-256 key with the
// given SubjectPublicKeyInfo.
func EntryBodyHashedRekord002(paeDigest [32]byte, sig, spkiDER []byte) []byte {
	return hashedRekord("SHA2_256", "PKIX_ECDSA_P256_SHA_256", "publicKey", paeDigest[:], sig, spkiDER)
}

func hashedRekord(algorithm, details, verifier string, digest, sig, raw []byte) []byte {
	b := make([]byte, 0, 320+(len(sig)+len(raw)+len(digest))*4/3)
	b = append(b, `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"`...)
	b = append(b, algorithm...)
	b = append(b, `","digest":"`...)
	b = base64.StdEncoding.AppendEncode(b, digest)
	b = append(b, `"},"signature":{"content":"`...)
	b = base64.StdEncoding.AppendEncode(b, sig)
	b = append(b, `","verifier":{"keyDetails":"`...)
	b = append(b, details...)
	b = append(b, `","`...)
	b = append(b, verifier...)
	b = append(b, `":{"rawBytes":"`...)
	b = base64.StdEncoding.AppendEncode(b, raw)
	return append(b, `"}}}}}}`...)
}

// SETPayload returns the bytes a signed entry timestamp signs: the canonical
// JSON (RFC 8785) of body, time, index and log.
func SETPayload(body []byte, integratedTime, logIndex int64, logIDHex string) []byte {
	b := make([]byte, 0, 160+len(body)*4/3)
	b = append(b, `{"body":"`...)
	b = base64.StdEncoding.AppendEncode(b, body)
	b = append(b, `","integratedTime":`...)
	b = strconv.AppendInt(b, integratedTime, 10)
	b = append(b, `,"logID":"`...)
	b = append(b, logIDHex...)
	b = append(b, `","logIndex":`...)
	b = strconv.AppendInt(b, logIndex, 10)
	return append(b, '}')
}
