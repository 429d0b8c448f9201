package verify

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeBundleTooMany refuses a bundle with more log entries, timestamps,
	// certificates or hashes than any real one has. Counted before they are read.
	CodeBundleTooMany refusal.Code = "BUNDLE_TOO_MANY"
	// CodeBundleBase64 refuses a byte field that is not canonical standard base64.
	CodeBundleBase64 refusal.Code = "BUNDLE_BASE64_INVALID"
	// CodeBundleVersionUnknown refuses a media type other than bundle 0.1, 0.2 and 0.3.
	CodeBundleVersionUnknown refusal.Code = "BUNDLE_VERSION_UNKNOWN"
	// CodeBundleContent refuses a bundle with no signed content, or with two.
	CodeBundleContent refusal.Code = "BUNDLE_CONTENT_INVALID"

	maxTlogEntries  = 32
	maxTimestamps   = 32
	maxCertificates = 8
	maxProofHashes  = 64
	maxCertBytes    = 32 << 10
)

// wireBundle is the bundle as protobuf's JSON mapping spells it canonically. Other
// spellings that protojson takes too (snake_case names, numbers for enums, the URL
// alphabet of base64) are refused: no producer uses them, and each is a second way
// to say one thing.
type wireBundle struct {
	MediaType            string        `json:"mediaType"`
	VerificationMaterial *wireMaterial `json:"verificationMaterial"`
	DSSEEnvelope         *wireEnvelope `json:"dsseEnvelope"`
	MessageSignature     *wireMessage  `json:"messageSignature"`
}

type wireMaterial struct {
	PublicKey   *wireKeyHint    `json:"publicKey"`
	Certificate *wireCert       `json:"certificate"`
	Chain       *wireChain      `json:"x509CertificateChain"`
	TlogEntries []wireEntry     `json:"tlogEntries"`
	Timestamps  *wireTimestamps `json:"timestampVerificationData"`
}

type wireKeyHint struct {
	Hint string `json:"hint"`
}

type wireCert struct {
	RawBytes string `json:"rawBytes"`
}

type wireChain struct {
	Certificates []wireCert `json:"certificates"`
}

type wireTimestamps struct {
	RFC3161 []wireTimestamp `json:"rfc3161Timestamps"`
}

type wireTimestamp struct {
	SignedTimestamp string `json:"signedTimestamp"`
}

type wireEntry struct {
	LogIndex          wireInt      `json:"logIndex"`
	LogID             *wireLogID   `json:"logId"`
	KindVersion       *wireKind    `json:"kindVersion"`
	IntegratedTime    wireInt      `json:"integratedTime"`
	InclusionPromise  *wirePromise `json:"inclusionPromise"`
	InclusionProof    *wireProof   `json:"inclusionProof"`
	CanonicalizedBody string       `json:"canonicalizedBody"`
}

type wireLogID struct {
	KeyID string `json:"keyId"`
}

type wireKind struct {
	Kind    string `json:"kind"`
	Version string `json:"version"`
}

type wirePromise struct {
	SignedEntryTimestamp string `json:"signedEntryTimestamp"`
}

type wireProof struct {
	LogIndex   wireInt         `json:"logIndex"`
	RootHash   string          `json:"rootHash"`
	TreeSize   wireInt         `json:"treeSize"`
	Hashes     []string        `json:"hashes"`
	Checkpoint *wireCheckpoint `json:"checkpoint"`
}

type wireCheckpoint struct {
	Envelope string `json:"envelope"`
}

type wireEnvelope struct {
	Payload     string          `json:"payload"`
	PayloadType string          `json:"payloadType"`
	Signatures  []wireSignature `json:"signatures"`
}

type wireSignature struct {
	Sig   string `json:"sig"`
	KeyID string `json:"keyid"`
}

type wireMessage struct {
	MessageDigest *wireDigest `json:"messageDigest"`
	Signature     string      `json:"signature"`
}

type wireDigest struct {
	Algorithm string `json:"algorithm"`
	Digest    string `json:"digest"`
}

// wireInt is a 64-bit integer, which protobuf writes as a string and reads as a
// number too. "1e3" and "1.0" are numbers to protobuf and are refused here.
type wireInt int64

func (n *wireInt) UnmarshalJSON(b []byte) error {
	s := string(b)
	if len(s) > 1 && s[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return fmt.Errorf("want a 64-bit integer, got %.24q", s)
	}
	*n = wireInt(v)
	return nil
}

// foreign is a bundle that was read, with its bytes decoded and nothing believed.
type foreign struct {
	version  int // the x of 0.x
	material material
	envelope *envelope // one of these two
	message  *message
	entries  []entry
	stamps   [][]byte

	// defect is the first fault that leaves the meaning plain, such as base64 broken
	// into lines. The bundle is refused whatever else is found, but if a check
	// finds out more, its reason is the one worth telling.
	defect error
}

type material struct {
	hint    *string  // of a key
	certs   [][]byte // leaf first
	isChain bool
}

type envelope struct {
	payload     []byte
	payloadType string
	sigs        [][]byte
	keyid       string // of the first signature
}

type message struct {
	algorithm string // in-toto's word: "sha256"
	digest    []byte
	sig       []byte
}

type entry struct {
	field          string // "verificationMaterial.tlogEntries[0]"
	logIndex       int64
	logID          []byte
	kind, version  string
	integratedTime int64
	set            []byte
	proof          *inclusion
	body           []byte
}

type inclusion struct {
	logIndex   int64
	treeSize   int64
	rootHash   []byte
	hashes     [][]byte
	checkpoint string
}

// parseBundle reads a bundle strictly. What it returns has at most the limits'
// count of everything, and every byte field decoded.
func parseBundle(data []byte) (*foreign, error) {
	var w wireBundle
	if err := attest.DecodeStrict(data, attest.MaxBundleBytes, &w); err != nil {
		return nil, err
	}
	f := &foreign{}
	var err error
	if f.version, err = bundleVersion(w.MediaType); err != nil {
		return nil, err
	}
	if w.VerificationMaterial == nil {
		w.VerificationMaterial = &wireMaterial{}
	}
	if err := checkCounts(w.VerificationMaterial); err != nil {
		return nil, err
	}
	d := decoder{}
	d.material(f, w.VerificationMaterial)
	d.content(f, &w)
	for i := range w.VerificationMaterial.TlogEntries {
		d.entry(f, i, &w.VerificationMaterial.TlogEntries[i])
	}
	if ts := w.VerificationMaterial.Timestamps; ts != nil {
		for i := range ts.RFC3161 {
			field := fmt.Sprintf("verificationMaterial.timestampVerificationData.rfc3161Timestamps[%d].signedTimestamp", i)
			f.stamps = append(f.stamps, d.bytes(field, ts.RFC3161[i].SignedTimestamp))
		}
	}
	f.defect = d.defect
	return f, d.err
}

// bundleVersion knows media types by their exact text. 0.3 has two.
func bundleVersion(mediaType string) (int, error) {
	switch mediaType {
	case "application/vnd.dev.sigstore.bundle+json;version=0.1":
		return 1, nil
	case "application/vnd.dev.sigstore.bundle+json;version=0.2":
		return 2, nil
	case "application/vnd.dev.sigstore.bundle+json;version=0.3", attest.BundleMediaTypeV03:
		return 3, nil
	}
	return 0, refusal.New(CodeBundleVersionUnknown, "media type %.80q", mediaType).InField("mediaType")
}

func checkCounts(m *wireMaterial) error {
	limit := func(field string, n, max int) error {
		if n <= max {
			return nil
		}
		return refusal.New(CodeBundleTooMany, "%d, limit %d", n, max).InField(field)
	}
	if err := limit("verificationMaterial.tlogEntries", len(m.TlogEntries), maxTlogEntries); err != nil {
		return err
	}
	for i := range m.TlogEntries {
		if p := m.TlogEntries[i].InclusionProof; p != nil {
			if err := limit("inclusionProof.hashes", len(p.Hashes), maxProofHashes); err != nil {
				return err
			}
		}
	}
	if m.Timestamps != nil {
		if err := limit("rfc3161Timestamps", len(m.Timestamps.RFC3161), maxTimestamps); err != nil {
			return err
		}
	}
	if m.Chain != nil {
		return limit("x509CertificateChain.certificates", len(m.Chain.Certificates), maxCertificates)
	}
	return nil
}

// decoder turns wire fields into bytes and keeps the first error and the first defect.
type decoder struct {
	err    error
	defect error
}

// bytes decodes standard base64 with padding and zero trailing bits. Go's decoder
// would skip line breaks; sigstore-go's refuses most of them. They are a defect.
func (d *decoder) bytes(field, text string) []byte {
	if strings.ContainsAny(text, "\r\n") {
		if d.defect == nil {
			d.defect = refusal.New(CodeBundleBase64, "base64 is broken into lines").InField(field)
		}
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil && d.err == nil {
		d.err = refusal.New(CodeBundleBase64, "%w", err).InField(field)
	}
	return b
}

func (d *decoder) material(f *foreign, m *wireMaterial) {
	if m.PublicKey != nil {
		f.material.hint = &m.PublicKey.Hint
	}
	if m.Certificate != nil {
		f.material.certs = append(f.material.certs, d.bytes("verificationMaterial.certificate.rawBytes", m.Certificate.RawBytes))
	}
	if m.Chain == nil {
		return
	}
	f.material.isChain = true
	for i, c := range m.Chain.Certificates {
		field := fmt.Sprintf("verificationMaterial.x509CertificateChain.certificates[%d].rawBytes", i)
		f.material.certs = append(f.material.certs, d.bytes(field, c.RawBytes))
	}
	if m.Certificate != nil || m.PublicKey != nil {
		d.fail(CodeMaterialAmbiguous, "verificationMaterial", "more than one of certificate, chain and public key")
	}
}

func (d *decoder) content(f *foreign, w *wireBundle) {
	if (w.DSSEEnvelope == nil) == (w.MessageSignature == nil) {
		d.fail(CodeBundleContent, "", "want either dsseEnvelope or messageSignature")
		return
	}
	if e := w.DSSEEnvelope; e != nil {
		f.envelope = &envelope{payload: d.bytes("dsseEnvelope.payload", e.Payload), payloadType: e.PayloadType}
		for i, s := range e.Signatures {
			if i == 0 {
				f.envelope.keyid = s.KeyID
			}
			f.envelope.sigs = append(f.envelope.sigs, d.bytes(fmt.Sprintf("dsseEnvelope.signatures[%d].sig", i), s.Sig))
		}
		return
	}
	m := w.MessageSignature
	if m.MessageDigest == nil {
		d.fail(CodeBundleContent, "messageSignature.messageDigest", "missing")
		return
	}
	alg := map[string]string{"SHA2_256": "sha256", "SHA2_384": "sha384", "SHA2_512": "sha512"}[m.MessageDigest.Algorithm]
	if alg == "" {
		d.fail(CodeBundleContent, "messageSignature.messageDigest.algorithm", "not a digest algorithm we know")
	}
	f.message = &message{
		algorithm: alg,
		digest:    d.bytes("messageSignature.messageDigest.digest", m.MessageDigest.Digest),
		sig:       d.bytes("messageSignature.signature", m.Signature),
	}
}

func (d *decoder) fail(code refusal.Code, field, text string) {
	if d.err == nil {
		d.err = refusal.New(code, "%s", text).InField(field)
	}
}

func (d *decoder) entry(f *foreign, i int, w *wireEntry) {
	e := entry{
		field:          fmt.Sprintf("verificationMaterial.tlogEntries[%d]", i),
		logIndex:       int64(w.LogIndex),
		integratedTime: int64(w.IntegratedTime),
	}
	e.body = d.bytes(e.field+".canonicalizedBody", w.CanonicalizedBody)
	if w.LogID != nil {
		e.logID = d.bytes(e.field+".logId.keyId", w.LogID.KeyID)
	}
	if w.KindVersion != nil {
		e.kind, e.version = w.KindVersion.Kind, w.KindVersion.Version
	}
	if w.InclusionPromise != nil {
		e.set = d.bytes(e.field+".inclusionPromise.signedEntryTimestamp", w.InclusionPromise.SignedEntryTimestamp)
	}
	if p := w.InclusionProof; p != nil {
		e.proof = &inclusion{
			logIndex: int64(p.LogIndex), treeSize: int64(p.TreeSize),
			rootHash: d.bytes(e.field+".inclusionProof.rootHash", p.RootHash),
		}
		for _, h := range p.Hashes {
			e.proof.hashes = append(e.proof.hashes, d.bytes(e.field+".inclusionProof.hashes", h))
		}
		if p.Checkpoint != nil {
			e.proof.checkpoint = p.Checkpoint.Envelope
		}
	}
	f.entries = append(f.entries, e)
}
