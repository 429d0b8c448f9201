package attest

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeBundleInvalid refuses a bundle that is not of our own shape.
const CodeBundleInvalid refusal.Code = "BUNDLE_INVALID"

// BundleParts is what one bundle of ours holds: a DSSE envelope with exactly one
// signature, the hint that finds its key or the certificate that holds it, the log's
// receipt and timestamps.
type BundleParts struct {
	// PublicKeyHint is the key id, and equals the keyid of the signature. Exactly one of
	// it and Certificate is set.
	PublicKeyHint string
	// Certificate is the signer's leaf certificate alone, DER. The signature of such a
	// bundle has no keyid.
	Certificate []byte
	Envelope    *Envelope
	// LogEntry is the zero value where nothing was logged, as for the record of a
	// denied deploy.
	LogEntry LogEntry
	// Timestamps are RFC 3161 TimeStampResp messages, DER.
	Timestamps [][]byte
}

// LogEntry is a transparency log's receipt: the entry as it was logged and the
// proof that a signed tree holds it.
type LogEntry struct {
	LogIndex          int64
	LogID             []byte
	Kind, Version     string
	IntegratedTime    int64  // Unix seconds; 0 where the log does not vouch for a time
	SET               []byte // signed entry timestamp; empty where the log gives none
	RootHash          []byte
	TreeSize          int64
	Hashes            [][]byte
	Checkpoint        string
	CanonicalizedBody []byte
}

// Present reports whether there is a log entry at all.
func (e *LogEntry) Present() bool { return e.TreeSize != 0 || e.Checkpoint != "" }

// maxProofHashes is the height of the tallest tree whose size fits an int64.
const maxProofHashes = 63

// hashSize is the size of every hash in the log: SHA-256.
const hashSize = 32

// MarshalBundle writes a Sigstore bundle v0.3 in JSON, by appending and without
// reflection, for it is called once per attestation. Field order is fixed and
// 64-bit integers are strings, as protobuf's JSON mapping has it.
func MarshalBundle(p *BundleParts) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	out := make([]byte, 0, p.size())
	out = append(out, `{"mediaType":"`+BundleMediaTypeV03+`","verificationMaterial":{`...)
	if len(p.Certificate) > 0 {
		out = append(out, `"certificate":{"rawBytes":`...)
		out = appendBase64(out, p.Certificate)
	} else {
		out = append(out, `"publicKey":{"hint":`...)
		out = appendString(out, p.PublicKeyHint)
	}
	out = append(out, '}')
	if p.LogEntry.Present() {
		out = append(out, `,"tlogEntries":[`...)
		out = p.LogEntry.append(out)
		out = append(out, ']')
	}
	if len(p.Timestamps) > 0 {
		out = append(out, `,"timestampVerificationData":{"rfc3161Timestamps":[`...)
		for i, timestamp := range p.Timestamps {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(out, `{"signedTimestamp":`...)
			out = appendBase64(out, timestamp)
			out = append(out, '}')
		}
		out = append(out, "]}"...)
	}
	out = append(out, `},"dsseEnvelope":`...)
	out = p.Envelope.append(out)
	out = append(out, '}')
	if len(out) > MaxBundleBytes {
		return nil, refusal.New(CodeBundleInvalid, "%d bytes; at most %d are accepted", len(out), MaxBundleBytes)
	}
	return out, nil
}

func (e *LogEntry) append(out []byte) []byte {
	out = append(out, `{"logIndex":`...)
	out = appendInt(out, e.LogIndex)
	out = append(out, `,"logId":{"keyId":`...)
	out = appendBase64(out, e.LogID)
	out = append(out, `},"kindVersion":{"kind":`...)
	out = appendString(out, e.Kind)
	out = append(out, `,"version":`...)
	out = appendString(out, e.Version)
	out = append(out, `},"integratedTime":`...)
	out = appendInt(out, e.IntegratedTime)
	if len(e.SET) > 0 {
		out = append(out, `,"inclusionPromise":{"signedEntryTimestamp":`...)
		out = appendBase64(out, e.SET)
		out = append(out, '}')
	}
	out = append(out, `,"inclusionProof":{"logIndex":`...)
	out = appendInt(out, e.LogIndex)
	out = append(out, `,"rootHash":`...)
	out = appendBase64(out, e.RootHash)
	out = append(out, `,"treeSize":`...)
	out = appendInt(out, e.TreeSize)
	out = append(out, `,"hashes":[`...)
	for i, hash := range e.Hashes {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendBase64(out, hash)
	}
	out = append(out, `],"checkpoint":{"envelope":`...)
	out = appendString(out, e.Checkpoint)
	out = append(out, `}},"canonicalizedBody":`...)
	out = appendBase64(out, e.CanonicalizedBody)
	return append(out, '}')
}

func appendInt(out []byte, n int64) []byte {
	out = append(out, '"')
	out = strconv.AppendInt(out, n, 10)
	return append(out, '"')
}

// size estimates the length of the bundle in JSON.
func (p *BundleParts) size() int {
	encoded := base64.StdEncoding.EncodedLen
	n := 1024 + len(p.PublicKeyHint) + encoded(len(p.Certificate)) + p.Envelope.size() + len(p.LogEntry.Checkpoint) +
		encoded(len(p.LogEntry.SET)) + encoded(len(p.LogEntry.CanonicalizedBody)) + 48*len(p.LogEntry.Hashes)
	for _, timestamp := range p.Timestamps {
		n += 32 + encoded(len(timestamp))
	}
	return n
}

// check holds for every bundle we write and every one ParseOwnBundle accepts.
func (p *BundleParts) check() error {
	invalid := func(field, text string, args ...any) error {
		return refusal.New(CodeBundleInvalid, text, args...).InField(field)
	}
	env := p.Envelope
	switch {
	case p.PublicKeyHint != "" && len(p.Certificate) > 0:
		// Sigstore bundle: the material is one of public key and certificate.
		return invalid("verificationMaterial", "a key hint and a certificate")
	case len(p.Certificate) > MaxCertificateBytes:
		return invalid("certificate.rawBytes", "%d bytes; at most %d are accepted", len(p.Certificate), MaxCertificateBytes)
	case len(p.Certificate) == 0 && (p.PublicKeyHint == "" || !utf8.ValidString(p.PublicKeyHint)):
		return invalid("publicKey.hint", "no certificate, and no key hint or one that is not UTF-8")
	case env == nil || len(env.Payload) == 0:
		return invalid("dsseEnvelope", "no payload")
	case env.PayloadType == "" || !utf8.ValidString(env.PayloadType):
		return invalid("dsseEnvelope.payloadType", "no payload type, or one that is not UTF-8")
	case len(env.Signatures) != 1:
		// Sigstore bundle: "MUST have exactly one signature".
		return invalid("dsseEnvelope.signatures", "%d signatures, want exactly 1", len(env.Signatures))
	case env.Signatures[0].KeyID != p.PublicKeyHint:
		// Sigstore bundle: "the key hints MUST be exactly the same". Beside a certificate
		// neither is there.
		return invalid("dsseEnvelope.signatures", "the signature's keyid differs from the key hint")
	case len(env.Signatures[0].Sig) == 0:
		return invalid("dsseEnvelope.signatures", "the signature is empty")
	case len(p.Timestamps) > MaxTimestamps:
		return invalid("timestampVerificationData", "%d timestamps; at most %d are accepted", len(p.Timestamps), MaxTimestamps)
	}
	for _, timestamp := range p.Timestamps {
		if len(timestamp) == 0 {
			return invalid("timestampVerificationData", "a timestamp is empty")
		}
	}
	return p.LogEntry.check()
}

func (e *LogEntry) check() error {
	invalid := func(text string, args ...any) error {
		return refusal.New(CodeBundleInvalid, text, args...).InField("tlogEntries")
	}
	if !e.Present() {
		// Half an entry is a mistake of the caller's; leaving it out would hide that.
		if e.LogIndex != 0 || e.IntegratedTime != 0 || len(e.LogID)+len(e.Kind)+len(e.Version)+len(e.SET)+
			len(e.RootHash)+len(e.Hashes)+len(e.CanonicalizedBody) != 0 {
			return invalid("a log entry without tree size and checkpoint")
		}
		return nil
	}
	switch {
	case e.LogIndex < 0 || e.LogIndex >= e.TreeSize:
		return invalid("log index %d is not in a tree of %d entries", e.LogIndex, e.TreeSize)
	case e.IntegratedTime < 0:
		return invalid("integrated time %d is negative", e.IntegratedTime)
	case len(e.LogID) == 0:
		return invalid("no log id")
	case e.Kind == "" || e.Version == "" || !utf8.ValidString(e.Kind) || !utf8.ValidString(e.Version):
		return invalid("no entry kind or version, or one that is not UTF-8")
	case len(e.RootHash) != hashSize:
		return invalid("the root hash has %d bytes, want %d", len(e.RootHash), hashSize)
	case len(e.Hashes) > maxProofHashes:
		return invalid("%d proof hashes; at most %d are possible", len(e.Hashes), maxProofHashes)
	case e.Checkpoint == "" || !utf8.ValidString(e.Checkpoint):
		return invalid("no checkpoint, or one that is not UTF-8")
	case len(e.CanonicalizedBody) == 0:
		return invalid("no canonicalized body")
	}
	for _, hash := range e.Hashes {
		if len(hash) != hashSize {
			return invalid("a proof hash has %d bytes, want %d", len(hash), hashSize)
		}
	}
	return nil
}
