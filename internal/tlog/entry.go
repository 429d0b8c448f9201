package tlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"
)

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

// EntryBodyHashedRekord002 returns the rekor-v2 body for a signature by the
// ECDSA P-256 key with the given SubjectPublicKeyInfo over paeDigest, the
// SHA-256 of the DSSE PAE. The bytes are canonical (RFC 8785): verifiers rebuild
// them from the bundle and hash what they built.
func EntryBodyHashedRekord002(paeDigest [32]byte, sig, spkiDER []byte) []byte {
	b := make([]byte, 0, 320+(len(sig)+len(spkiDER))*4/3)
	b = append(b, `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"`...)
	b = base64.StdEncoding.AppendEncode(b, paeDigest[:])
	b = append(b, `"},"signature":{"content":"`...)
	b = base64.StdEncoding.AppendEncode(b, sig)
	b = append(b, `","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","publicKey":{"rawBytes":"`...)
	b = base64.StdEncoding.AppendEncode(b, spkiDER)
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
