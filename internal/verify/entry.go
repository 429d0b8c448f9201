package verify

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	rekortilespb "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

const (
	// CodeLogEntryMalformed refuses an entry that lacks a part, or whose body is not
	// the strict JSON its kind prescribes.
	CodeLogEntryMalformed refusal.Code = "LOG_ENTRY_MALFORMED"
	// CodeLogIndexNegative refuses an entry before the first.
	CodeLogIndexNegative refusal.Code = "LOG_INDEX_NEGATIVE"
	// CodeLogEntryKindUnknown refuses an entry type we cannot bind to a signature.
	CodeLogEntryKindUnknown refusal.Code = "LOG_ENTRY_KIND_UNKNOWN"
	// CodeLogEntryDuplicate refuses two entries of one log: the second proves nothing.
	CodeLogEntryDuplicate refusal.Code = "LOG_ENTRY_DUPLICATE"
	// CodeLogEntryMismatch refuses a log entry, however genuine, that is about another
	// signature, another content or another key. The field says which.
	CodeLogEntryMismatch refusal.Code = "LOG_ENTRY_MISMATCH"
)

// checkEntryShapes refuses entries with missing parts before anything is computed.
func checkEntryShapes(entries []entry) error {
	logs := make(map[string]bool, len(entries))
	for i := range entries {
		e := &entries[i]
		switch {
		case e.logIndex < 0:
			return refusal.New(CodeLogIndexNegative, "%d", e.logIndex).InField(e.field + ".logIndex")
		case len(e.logID) == 0:
			return refusal.New(CodeLogEntryMalformed, "missing").InField(e.field + ".logId")
		case e.kind == "" || e.version == "":
			return refusal.New(CodeLogEntryMalformed, "missing").InField(e.field + ".kindVersion")
		case len(e.body) == 0:
			return refusal.New(CodeLogEntryMalformed, "missing").InField(e.field + ".canonicalizedBody")
		case e.integratedTime < 0, e.integratedTime != 0 && e.isV2(): // Rekor 2 gives no time
			return refusal.New(CodeLogEntryMalformed, "%d", e.integratedTime).InField(e.field + ".integratedTime")
		case e.proof != nil && (e.proof.logIndex < 0 || e.proof.treeSize < 0):
			return refusal.New(CodeLogIndexNegative, "in the inclusion proof").InField(e.field + ".inclusionProof")
		case logs[string(e.logID)]:
			return refusal.New(CodeLogEntryDuplicate, "a second entry of log %x", e.logID).InField(e.field)
		}
		logs[string(e.logID)] = true
	}
	return nil
}

// logged is what an entry's body says, in one form for every kind.
type logged struct {
	digestAlg string
	digest    []byte
	sig       string // base64, compared as text: a second spelling is another text
	verifier  []byte // DER of the certificate or SubjectPublicKeyInfo
}

// isV2 says whether the entry is of Rekor 2, from what the bundle declares. The body
// must agree, so a body can not choose the weaker of two sets of checks.
func (e *entry) isV2() bool { return e.kind == "hashedrekord" && e.version == "0.0.2" }

// bindEntry checks that the log entry is about this bundle: the same signature, made
// by the same certificate or key over the same content. An entry is public, so a
// genuine entry of someone's other signature costs an attacker nothing.
func bindEntry(e *entry, f *foreign, s *signer) error {
	if e.isV2() {
		return bindV2(e, f, s)
	}
	got, err := readBodyV1(e)
	if err != nil {
		return err
	}
	mismatch := func(what string) error {
		return refusal.New(CodeLogEntryMismatch, "the log entry is about another %s", what).InField(e.field + ".canonicalizedBody:" + what)
	}
	var wantSig, wantDigest []byte
	wantAlg := "sha256"
	if f.envelope != nil {
		sum := sha256.Sum256(f.envelope.payload)
		wantSig, wantDigest = f.envelope.sigs[0], sum[:]
	} else {
		wantSig, wantDigest, wantAlg = f.message.sig, f.message.digest, f.message.algorithm
	}
	if (e.kind == "hashedrekord") == (f.envelope != nil) {
		return refusal.New(CodeLogEntryMismatch, "a %s entry cannot be about this content", e.kind).InField(e.field + ".kindVersion")
	}
	switch {
	case !bytes.Equal(got.digest, wantDigest) || got.digestAlg != wantAlg:
		return mismatch("digest")
	case got.sig != base64.StdEncoding.EncodeToString(wantSig):
		return mismatch("signature")
	case !bytes.Equal(got.verifier, s.verifierDER()):
		return mismatch("key")
	}
	return nil
}

// verifierDER is how log entries name the signer.
func (s *signer) verifierDER() []byte {
	if s.cert != nil {
		return s.cert.Raw
	}
	return s.key.spki
}

type bodyHash struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"value"`
}

type bodyHashedRekord struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Data struct {
			Hash bodyHash `json:"hash"`
		} `json:"data"`
		Signature struct {
			Content   string `json:"content"`
			PublicKey struct {
				Content string `json:"content"`
			} `json:"publicKey"`
		} `json:"signature"`
	} `json:"spec"`
}

type bodyDSSE struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		EnvelopeHash bodyHash `json:"envelopeHash"`
		PayloadHash  bodyHash `json:"payloadHash"`
		Signatures   []struct {
			Signature string `json:"signature"`
			Verifier  string `json:"verifier"`
		} `json:"signatures"`
	} `json:"spec"`
}

type bodyIntoto struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Content struct {
			Envelope struct {
				Payload     string `json:"payload"` // some logs keep it; the hash below is what binds
				PayloadType string `json:"payloadType"`
				Signatures  []struct {
					KeyID     string `json:"keyid"`
					PublicKey string `json:"publicKey"`
					Sig       string `json:"sig"`
				} `json:"signatures"`
			} `json:"envelope"`
			Hash        bodyHash `json:"hash"`
			PayloadHash bodyHash `json:"payloadHash"`
		} `json:"content"`
	} `json:"spec"`
}

// readBodyV1 reads the three Rekor 1 kinds. Unknown members are refused: what we do
// not understand we cannot compare.
func readBodyV1(e *entry) (*logged, error) {
	b := bodyReader{field: e.field + ".canonicalizedBody"}
	var got logged
	switch e.kind + " " + e.version {
	case "hashedrekord 0.0.1":
		var w bodyHashedRekord
		b.decode(e.body, &w)
		b.kind(e, w.Kind, w.APIVersion)
		got = logged{digestAlg: w.Spec.Data.Hash.Algorithm, digest: b.hex(w.Spec.Data.Hash.Value),
			sig: w.Spec.Signature.Content, verifier: b.pem(w.Spec.Signature.PublicKey.Content)}
	case "dsse 0.0.1":
		var w bodyDSSE
		b.decode(e.body, &w)
		b.kind(e, w.Kind, w.APIVersion)
		if b.one(len(w.Spec.Signatures)) {
			got = logged{digestAlg: w.Spec.PayloadHash.Algorithm, digest: b.hex(w.Spec.PayloadHash.Value),
				sig: w.Spec.Signatures[0].Signature, verifier: b.pem(w.Spec.Signatures[0].Verifier)}
		}
	case "intoto 0.0.2":
		var w bodyIntoto
		b.decode(e.body, &w)
		b.kind(e, w.Kind, w.APIVersion)
		c := &w.Spec.Content
		if b.one(len(c.Envelope.Signatures)) {
			// This kind stores base64 text as bytes, so the signature is encoded twice.
			sig := &c.Envelope.Signatures[0]
			got = logged{digestAlg: c.PayloadHash.Algorithm, digest: b.hex(c.PayloadHash.Value),
				sig: string(b.base64(sig.Sig)), verifier: b.pem(sig.PublicKey)}
		}
	default:
		return nil, refusal.New(CodeLogEntryKindUnknown, "%.40q %.40q", e.kind, e.version).InField(e.field + ".kindVersion")
	}
	return &got, b.err
}

// bodyReader decodes the parts of an entry body and keeps the first error.
type bodyReader struct {
	field string
	err   error
}

func (b *bodyReader) fail(format string, args ...any) {
	if b.err == nil {
		b.err = refusal.New(CodeLogEntryMalformed, format, args...).InField(b.field)
	}
}

func (b *bodyReader) decode(body []byte, into any) {
	if err := attest.DecodeStrict(body, attest.MaxBundleBytes, into); err != nil {
		b.fail("%v", err)
	}
}

func (b *bodyReader) kind(e *entry, kind, version string) {
	if b.err == nil && (kind != e.kind || version != e.version) {
		b.err = refusal.New(CodeLogEntryMismatch, "the bundle says %s %s, the entry %.40q %.40q", e.kind, e.version, kind, version).
			InField(e.field + ".kindVersion")
	}
}

func (b *bodyReader) one(n int) bool {
	if n != 1 {
		b.fail("%d signatures, want 1", n)
	}
	return b.err == nil
}

func (b *bodyReader) hex(s string) []byte {
	v, err := hex.DecodeString(s)
	if err != nil {
		b.fail("digest: %v", err)
	}
	return v
}

func (b *bodyReader) base64(s string) []byte {
	v, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		b.fail("base64: %v", err)
	}
	return v
}

func (b *bodyReader) pem(s string) []byte {
	block, rest := pem.Decode(b.base64(s))
	if block == nil || len(bytes.TrimSpace(rest)) != 0 {
		b.fail("verifier is not one PEM block")
		return nil
	}
	return block.Bytes
}

// bindV2 builds the Rekor 2 body anew from the bundle. It must be the body in the
// bundle byte for byte; the leaf hash is then taken from what was built.
func bindV2(e *entry, f *foreign, s *signer) error {
	built, err := buildBodyV2(f, s)
	if err != nil {
		return err
	}
	if !bytes.Equal(built, e.body) {
		return refusal.New(CodeLogEntryMismatch, "the log entry is about another %s", differenceV2(built, e.body)).
			InField(e.field + ".canonicalizedBody:" + differenceV2(built, e.body))
	}
	return nil
}

func buildBodyV2(f *foreign, s *signer) ([]byte, error) {
	details, err := signature.GetDefaultAlgorithmDetails(s.publicKey(), options.WithED25519ph())
	if err != nil {
		return nil, refusal.New(CodeKeyUnsupported, "%w", err)
	}
	hash := details.GetHashType()
	if hash == crypto.Hash(0) || !hash.Available() {
		return nil, refusal.New(CodeKeyUnsupported, "the key signs without a digest, which a hashedrekord needs")
	}
	verifier := &rekortilespb.Verifier{KeyDetails: details.GetSignatureAlgorithm()}
	if s.cert != nil {
		verifier.Verifier = &rekortilespb.Verifier_X509Certificate{X509Certificate: &protocommon.X509Certificate{RawBytes: s.cert.Raw}}
	} else {
		verifier.Verifier = &rekortilespb.Verifier_PublicKey{PublicKey: &rekortilespb.PublicKey{RawBytes: s.key.spki}}
	}
	digest, sig := []byte(nil), []byte(nil)
	if f.envelope != nil {
		h := hash.New()
		h.Write(attest.PAE(f.envelope.payloadType, f.envelope.payload))
		digest, sig = h.Sum(nil), f.envelope.sigs[0]
	} else {
		digest, sig = f.message.digest, f.message.sig
	}
	text, err := protojson.Marshal(&rekortilespb.Entry{
		Kind: "hashedrekord", ApiVersion: "0.0.2",
		Spec: &rekortilespb.Spec{Spec: &rekortilespb.Spec_HashedRekordV002{
			HashedRekordV002: &rekortilespb.HashedRekordLogEntryV002{
				Data:      &protocommon.HashOutput{Digest: digest, Algorithm: details.GetProtoHashType()},
				Signature: &rekortilespb.Signature{Content: sig, Verifier: verifier},
			}}},
	})
	if err != nil {
		return nil, refusal.New(CodeLogEntryMalformed, "%w", err)
	}
	// protojson varies its white space on purpose; the log stores RFC 8785.
	canonical, err := jsoncanonicalizer.Transform(text)
	if err != nil {
		return nil, refusal.New(CodeLogEntryMalformed, "%w", err)
	}
	return canonical, nil
}

// differenceV2 names the part in which two bodies differ, for the message only.
func differenceV2(built, got []byte) string {
	var a, b rekortilespb.Entry
	if protojson.Unmarshal(built, &a) != nil || protojson.Unmarshal(got, &b) != nil {
		return "content"
	}
	x, y := a.GetSpec().GetHashedRekordV002(), b.GetSpec().GetHashedRekordV002()
	switch {
	case !bytes.Equal(x.GetData().GetDigest(), y.GetData().GetDigest()):
		return "digest"
	case !bytes.Equal(x.GetSignature().GetContent(), y.GetSignature().GetContent()):
		return "signature"
	}
	return "key"
}

// leafHash is of the body that bindEntry tied to the bundle.
func (e *entry) leafHash() [32]byte { return tlog.LeafHash(e.body) }
