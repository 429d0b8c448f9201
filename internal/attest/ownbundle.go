package attest

import (
	"bytes"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/refusal"
)

// ParseOwnBundle reads a bundle exactly as MarshalBundle writes it, and nothing
// else: fixed field order, no white space, each value in its one spelling. A
// duplicate, unknown, missing or misspelled key cannot occur in such a text, and
// neither can two texts mean the same bundle. A bundle of ours that somebody has
// reformatted is refused here and is read, like anyone's, by package verify
// through sigstore-go.
func ParseOwnBundle(data []byte) (*BundleParts, error) {
	if len(data) > MaxBundleBytes {
		return nil, refusal.New(CodeBundleInvalid, "%d bytes; at most %d are accepted", len(data), MaxBundleBytes)
	}
	r := reader{data: data}
	p := &BundleParts{}
	r.literal(`{"mediaType":"` + BundleMediaTypeV03 + `","verificationMaterial":{`)
	if r.optional(`"certificate":{"rawBytes":`) {
		p.Certificate = r.base64()
	} else {
		r.literal(`"publicKey":{"hint":`)
		p.PublicKeyHint = r.string()
	}
	r.literal(`}`)
	if r.optional(`,"tlogEntries":[`) {
		r.logEntry(&p.LogEntry)
		r.literal(`]`)
		if r.err == nil && !p.LogEntry.Present() {
			r.fail("an empty log entry")
		}
	}
	if r.optional(`,"timestampVerificationData":{"rfc3161Timestamps":[`) {
		for more := true; more && r.err == nil && len(p.Timestamps) <= MaxTimestamps; more = r.optional(",") {
			r.literal(`{"signedTimestamp":`)
			p.Timestamps = append(p.Timestamps, r.base64())
			r.literal(`}`)
		}
		r.literal(`]}`)
	}
	r.literal(`},"dsseEnvelope":`)
	p.Envelope = r.envelope()
	r.literal(`}`)
	if r.err == nil && r.pos != len(data) {
		r.fail("data after the bundle")
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return p, nil
}

// reader reads a text whose shape is known. After the first failure every method
// does nothing and returns a zero value.
type reader struct {
	data []byte
	pos  int
	err  error
}

func (r *reader) envelope() *Envelope {
	env := &Envelope{Signatures: make([]Signature, 1)}
	r.literal(`{"payload":`)
	env.Payload = r.base64()
	r.literal(`,"payloadType":`)
	env.PayloadType = r.string()
	r.literal(`,"signatures":[{"keyid":`)
	env.Signatures[0].KeyID = r.string()
	r.literal(`,"sig":`)
	env.Signatures[0].Sig = r.base64()
	r.literal(`}]}`)
	return env
}

func (r *reader) logEntry(e *LogEntry) {
	r.literal(`{"logIndex":`)
	e.LogIndex = r.int()
	r.literal(`,"logId":{"keyId":`)
	e.LogID = r.base64()
	r.literal(`},"kindVersion":{"kind":`)
	e.Kind = r.string()
	r.literal(`,"version":`)
	e.Version = r.string()
	r.literal(`},"integratedTime":`)
	e.IntegratedTime = r.int()
	if r.optional(`,"inclusionPromise":{"signedEntryTimestamp":`) {
		if e.SET = r.base64(); len(e.SET) == 0 {
			r.fail("an empty inclusion promise")
		}
		r.literal(`}`)
	}
	r.literal(`,"inclusionProof":{"logIndex":`)
	if r.int() != e.LogIndex {
		r.fail("the inclusion proof is for another log index")
	}
	r.literal(`,"rootHash":`)
	e.RootHash = r.base64()
	r.literal(`,"treeSize":`)
	e.TreeSize = r.int()
	r.literal(`,"hashes":[`)
	if !r.at(']') {
		e.Hashes = make([][]byte, 0, 24)
		for more := true; more && r.err == nil && len(e.Hashes) <= maxProofHashes; more = r.optional(",") {
			e.Hashes = append(e.Hashes, r.base64())
		}
	}
	r.literal(`],"checkpoint":{"envelope":`)
	e.Checkpoint = r.string()
	r.literal(`}},"canonicalizedBody":`)
	e.CanonicalizedBody = r.base64()
	r.literal(`}`)
}

func (r *reader) fail(reason string) {
	if r.err == nil {
		r.err = refusal.New(CodeBundleInvalid, "%s, at offset %d", reason, r.pos)
	}
}

// optional consumes text if it comes next.
func (r *reader) optional(text string) bool {
	if r.err != nil || len(r.data)-r.pos < len(text) || string(r.data[r.pos:r.pos+len(text)]) != text {
		return false
	}
	r.pos += len(text)
	return true
}

func (r *reader) literal(text string) {
	if r.err == nil && !r.optional(text) {
		r.fail("not a bundle of our own shape: want " + text)
	}
}

func (r *reader) at(c byte) bool {
	return r.err == nil && r.pos < len(r.data) && r.data[r.pos] == c
}

// quoted consumes a JSON string and returns what stands between its quotes.
func (r *reader) quoted() (inner []byte, escaped bool) {
	if r.err != nil || !r.at('"') {
		r.fail("not a bundle of our own shape: want a string")
		return nil, false
	}
	start := r.pos + 1
	for i := start; ; {
		quote := bytes.IndexByte(r.data[i:], '"')
		if quote < 0 {
			r.fail("a string without end")
			return nil, false
		}
		i += quote
		// The quote ends the string unless an odd number of backslashes precedes it.
		backslashes := 0
		for r.data[i-1-backslashes] == '\\' {
			backslashes++
		}
		if backslashes%2 == 0 {
			r.pos = i + 1
			inner = r.data[start:i]
			return inner, bytes.IndexByte(inner, '\\') >= 0
		}
		i++
	}
}

func (r *reader) string() string {
	start := r.pos
	inner, escaped := r.quoted()
	if r.err != nil {
		return ""
	}
	if !escaped && plainASCII(inner) {
		return string(inner)
	}
	text, err := jsontext.AppendUnquote(nil, r.data[start:r.pos])
	if err != nil {
		r.fail("a string that is not valid JSON")
		return ""
	}
	// "\u0041" is a second spelling of "A".
	if again, err := jsontext.AppendQuote(nil, text); err != nil || !bytes.Equal(again, r.data[start:r.pos]) {
		r.fail("a string with needless escapes")
		return ""
	}
	return string(text)
}

// plainASCII reports whether text stands for itself inside a JSON string.
func plainASCII(text []byte) bool {
	for _, c := range text {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func (r *reader) base64() []byte {
	inner, _ := r.quoted()
	if r.err != nil {
		return nil
	}
	data, ok := decodeBase64(inner)
	if !ok {
		r.fail("not canonical base64")
		return nil
	}
	return data
}

// int reads a 64-bit integer in quotes, as protobuf's JSON mapping has them, in
// the one spelling strconv gives it: no sign, no leading zero.
func (r *reader) int() int64 {
	inner, _ := r.quoted()
	if r.err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(inner), 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != string(inner) {
		r.fail("not a canonical integer")
		return 0
	}
	return n
}
