package attest

import (
	"encoding/base64"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeEnvelopeInvalid refuses an envelope that lacks a part or encodes one wrongly.
const CodeEnvelopeInvalid refusal.Code = "ENVELOPE_INVALID"

// Signature is one DSSE signature. KeyID is a hint and never evidence.
type Signature struct {
	KeyID string
	Sig   []byte
}

// Envelope is a DSSE envelope. The signatures are over PAE(PayloadType, Payload),
// never over the JSON text of the envelope, which has many spellings.
type Envelope struct {
	PayloadType string
	Payload     []byte
	Signatures  []Signature
}

// PAE is the DSSE v1 pre-authentication encoding:
//
//	"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body
//
// with lengths in bytes, not characters.
func PAE(payloadType string, payload []byte) []byte {
	out := make([]byte, 0, len("DSSEv1 ")+len(payloadType)+len(payload)+2*20+3)
	out = append(out, "DSSEv1 "...)
	out = strconv.AppendInt(out, int64(len(payloadType)), 10)
	out = append(out, ' ')
	out = append(out, payloadType...)
	out = append(out, ' ')
	out = strconv.AppendInt(out, int64(len(payload)), 10)
	out = append(out, ' ')
	return append(out, payload...)
}

// Marshal writes the envelope in its one canonical form:
//
//	{"payload":"…","payloadType":"…","signatures":[{"keyid":"…","sig":"…"}]}
//
// Text that is not UTF-8 comes out with replacement characters; ParseEnvelope and
// MarshalBundle never let such text in.
func (e *Envelope) Marshal() []byte {
	return e.append(make([]byte, 0, e.size()))
}

// size estimates the length of the envelope in JSON, from above in all ordinary cases.
func (e *Envelope) size() int {
	n := 64 + len(e.PayloadType) + base64.StdEncoding.EncodedLen(len(e.Payload))
	for _, s := range e.Signatures {
		n += 32 + len(s.KeyID) + base64.StdEncoding.EncodedLen(len(s.Sig))
	}
	return n
}

func (e *Envelope) append(out []byte) []byte {
	out = append(out, `{"payload":`...)
	out = appendBase64(out, e.Payload)
	out = append(out, `,"payloadType":`...)
	out = appendString(out, e.PayloadType)
	out = append(out, `,"signatures":[`...)
	for i, s := range e.Signatures {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"keyid":`...)
		out = appendString(out, s.KeyID)
		out = append(out, `,"sig":`...)
		out = appendBase64(out, s.Sig)
		out = append(out, '}')
	}
	return append(out, "]}"...)
}

// ParseEnvelope reads an envelope strictly. It wants a payload, a payload type
// and at least one signature; how many of them count, and for whom, is for the
// caller. DSSE lets verifiers meet both base64 alphabets; this reader takes the
// standard one only, which is all that Sigstore tools write.
func ParseEnvelope(data []byte) (*Envelope, error) {
	var wire struct {
		Payload     string `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if err := DecodeStrict(data, MaxBundleBytes, &wire); err != nil {
		return nil, err
	}
	switch {
	case wire.PayloadType == "":
		return nil, refusal.New(CodeEnvelopeInvalid, "no payload type").InField("payloadType")
	case len(wire.Signatures) == 0:
		return nil, refusal.New(CodeEnvelopeInvalid, "no signature").InField("signatures")
	case len(wire.Signatures) > MaxSignatures:
		return nil, refusal.New(CodeEnvelopeInvalid, "%d signatures; at most %d are accepted",
			len(wire.Signatures), MaxSignatures).InField("signatures")
	}
	env := &Envelope{PayloadType: wire.PayloadType}
	var ok bool
	if env.Payload, ok = decodeBase64([]byte(wire.Payload)); !ok || len(env.Payload) == 0 {
		return nil, refusal.New(CodeEnvelopeInvalid, "not base64, or empty").InField("payload")
	}
	for _, s := range wire.Signatures {
		sig, ok := decodeBase64([]byte(s.Sig))
		if !ok || len(sig) == 0 {
			return nil, refusal.New(CodeEnvelopeInvalid, "not base64, or empty").InField("signatures.sig")
		}
		env.Signatures = append(env.Signatures, Signature{KeyID: s.KeyID, Sig: sig})
	}
	return env, nil
}

// appendString appends s as a JSON string with the fewest escapes.
func appendString(out []byte, s string) []byte {
	// The only error is invalid UTF-8, and then the text is still well formed.
	out, _ = jsontext.AppendQuote(out, s)
	return out
}

func appendBase64(out, data []byte) []byte {
	out = append(out, '"')
	out = base64.StdEncoding.AppendEncode(out, data)
	return append(out, '"')
}

// decodeBase64 decodes canonical base64 only: standard alphabet, padded, zero
// bits in the padding, no line breaks (which encoding/base64 would skip). So each
// value has one spelling.
func decodeBase64(text []byte) ([]byte, bool) {
	out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(out, text)
	if err != nil || base64.StdEncoding.EncodedLen(n) != len(text) {
		return nil, false
	}
	return out[:n], true
}
