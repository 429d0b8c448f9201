package tlog_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"testing"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	rekorpb "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	tilespb "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	sgtlog "github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

func testKeyDER(t *testing.T) (der, pemText []byte) {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(newSigner(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	return der, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// The template must give what Sigstore's own types and canonicaliser give, for each kind
// of key with the algorithm that Sigstore takes as the key's default.
func TestHashedRekordBodyIsSigstores(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		details, err := signature.GetDefaultAlgorithmDetails(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		h := details.GetHashType().New()
		h.Write([]byte("pae"))
		digest, sig, cert := h.Sum(nil), []byte("signature>?"), []byte("certificate>?")
		for name, verifier := range map[string]*tilespb.Verifier{
			"key":         {Verifier: &tilespb.Verifier_PublicKey{PublicKey: &tilespb.PublicKey{RawBytes: der}}},
			"certificate": {Verifier: &tilespb.Verifier_X509Certificate{X509Certificate: &protocommon.X509Certificate{RawBytes: cert}}},
		} {
			verifier.KeyDetails = details.GetSignatureAlgorithm()
			want, err := protojson.Marshal(&tilespb.Entry{
				Kind: "hashedrekord", ApiVersion: "0.0.2",
				Spec: &tilespb.Spec{Spec: &tilespb.Spec_HashedRekordV002{HashedRekordV002: &tilespb.HashedRekordLogEntryV002{
					Data:      &protocommon.HashOutput{Algorithm: details.GetProtoHashType(), Digest: digest},
					Signature: &tilespb.Signature{Content: sig, Verifier: verifier},
				}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if want, err = jsoncanonicalizer.Transform(want); err != nil {
				t.Fatal(err)
			}
			rekord := tlog.HashedRekord{Digest: digest, Sig: sig, Public: &key.PublicKey}
			if name == "certificate" {
				rekord.Certificate = cert
			}
			got, err := tlog.EntryBodyHashedRekord(rekord)
			if err != nil || string(got) != string(want) {
				t.Errorf("%s, %s: got %s, %v\nwant %s", curve.Params().Name, name, got, err, want)
			}
			if name == "key" && curve == elliptic.P256() {
				if got := tlog.EntryBodyHashedRekord002([32]byte(digest), sig, der); string(got) != string(want) {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			}
		}
	}
}

// TestHashedRekordRefusals: no entry is made that verifiers would rebuild differently.
func TestHashedRekordRefusals(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256 := newSigner(t).Public()
	for name, tt := range map[string]struct {
		public crypto.PublicKey
		digest int
		want   refusal.Code
	}{
		"RSA":               {&rsaKey.PublicKey, 32, tlog.CodeEntryKeyUnsupported},
		"P-521":             {&p521.PublicKey, 64, tlog.CodeEntryKeyUnsupported},
		"Ed25519":           {ed, 32, tlog.CodeEntryKeyUnsupported},
		"none":              {nil, 32, tlog.CodeEntryKeyUnsupported},
		"nil":               {(*ecdsa.PublicKey)(nil), 32, tlog.CodeEntryKeyUnsupported},
		"SHA-384 for P-256": {p256, 48, tlog.CodeEntryDigestInvalid},
		"no digest":         {p256, 0, tlog.CodeEntryDigestInvalid},
	} {
		body, err := tlog.EntryBodyHashedRekord(tlog.HashedRekord{Digest: make([]byte, tt.digest), Sig: []byte{1}, Public: tt.public})
		if body != nil || refusal.CodeOf(err) != tt.want {
			t.Errorf("%s: %q, %v", name, body, err)
		}
	}
}

func TestDSSEBody(t *testing.T) {
	_, pemText := testKeyDER(t)
	env := tlog.DSSE{PayloadType: "application/vnd.in-toto+json", Payload: []byte(`{"a":"<&>"}`), Sig: []byte{0xfb, 0xff, 1}}
	body := tlog.EntryBodyDSSE001(env, pemText)
	canonical, err := jsoncanonicalizer.Transform(body)
	if err != nil || string(canonical) != string(body) {
		t.Errorf("body is not canonical (%v): %s", err, body)
	}
	kind, version := tlog.RekorV1.KindVersion()
	entry, err := sgtlog.ParseTransparencyLogEntry(&rekorpb.TransparencyLogEntry{
		LogId: &protocommon.LogId{KeyId: []byte{1}}, KindVersion: &rekorpb.KindVersion{Kind: kind, Version: version}, CanonicalizedBody: body,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := sgtlog.ValidateEntry(entry); err != nil {
		t.Fatal(err)
	}
	payload := sha256.Sum256(env.Payload)
	if got, ok := entry.GetDssePayloadHash(); !ok || string(got) != string(payload[:]) {
		t.Errorf("payload hash %x", got)
	}
	if string(entry.Signature()) != string(env.Sig) || entry.PublicKey() == nil {
		t.Errorf("signature %x, key %v", entry.Signature(), entry.PublicKey())
	}
}

// The envelope hash is over protobuf's JSON of the envelope, with and without a key id.
func TestDSSEBodyEnvelopeHash(t *testing.T) {
	for _, keyID := range []string{"", "abc"} {
		env := tlog.DSSE{PayloadType: "application/vnd.in-toto+json", Payload: []byte("payload"), KeyID: keyID, Sig: []byte("sig")}
		pb, err := protojson.Marshal(&dsse.Envelope{Payload: env.Payload, PayloadType: env.PayloadType,
			Signatures: []*dsse.Signature{{Sig: env.Sig, Keyid: keyID}}})
		if err != nil {
			t.Fatal(err)
		}
		var compact map[string]any
		if err := json.Unmarshal(pb, &compact); err != nil { // protojson varies its spaces
			t.Fatal(err)
		}
		text := `{"payload":"cGF5bG9hZA==","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"c2ln"`
		if keyID != "" {
			text += `,"keyid":"abc"`
		}
		text += `}]}`
		var ours map[string]any
		if err := json.Unmarshal([]byte(text), &ours); err != nil {
			t.Fatal(err)
		}
		if a, b := mustJSON(t, compact), mustJSON(t, ours); a != b {
			t.Fatalf("fields differ: %s and %s", a, b)
		}
		var body struct {
			Spec struct{ EnvelopeHash struct{ Value string } }
		}
		if err := json.Unmarshal(tlog.EntryBodyDSSE001(env, []byte("k")), &body); err != nil {
			t.Fatal(err)
		}
		want := sha256.Sum256([]byte(text))
		if body.Spec.EnvelopeHash.Value != hex.EncodeToString(want[:]) {
			t.Errorf("key id %q: envelope hash %s, want %x", keyID, body.Spec.EnvelopeHash.Value, want)
		}
	}
}

func TestSETPayloadIsCanonical(t *testing.T) {
	body := []byte(`{"x":1}`)
	doc, err := json.Marshal(map[string]any{
		"body": base64.StdEncoding.EncodeToString(body), "integratedTime": int64(1767225600), "logIndex": int64(1<<40 + 1), "logID": "00ff",
	})
	if err != nil {
		t.Fatal(err)
	}
	want, err := jsoncanonicalizer.Transform(doc)
	if err != nil {
		t.Fatal(err)
	}
	if got := tlog.SETPayload(body, 1767225600, 1<<40+1, "00ff"); string(got) != string(want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEntryFormat(t *testing.T) {
	if !tlog.RekorV1.Valid() || !tlog.RekorV2.Valid() || tlog.EntryFormat("").Valid() || tlog.EntryFormat("rekor-v3").Valid() {
		t.Error("Valid is wrong")
	}
	if k, v := tlog.RekorV2.KindVersion(); k != "hashedrekord" || v != "0.0.2" {
		t.Errorf("rekor-v2 is %s %s", k, v)
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
