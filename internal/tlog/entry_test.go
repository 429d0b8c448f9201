package tlog_test

import (
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
	"google.golang.org/protobuf/encoding/protojson"

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

// The template must give what Sigstore's own types and canonicaliser give.
func TestHashedRekordBodyIsSigstores(t *testing.T) {
	der, _ := testKeyDER(t)
	digest, sig := sha256.Sum256([]byte("pae")), []byte("signature>?")
	want, err := protojson.Marshal(&tilespb.Entry{
		Kind: "hashedrekord", ApiVersion: "0.0.2",
		Spec: &tilespb.Spec{Spec: &tilespb.Spec_HashedRekordV002{HashedRekordV002: &tilespb.HashedRekordLogEntryV002{
			Data: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest[:]},
			Signature: &tilespb.Signature{Content: sig, Verifier: &tilespb.Verifier{
				KeyDetails: protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256,
				Verifier:   &tilespb.Verifier_PublicKey{PublicKey: &tilespb.PublicKey{RawBytes: der}},
			}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want, err = jsoncanonicalizer.Transform(want); err != nil {
		t.Fatal(err)
	}
	if got := tlog.EntryBodyHashedRekord002(digest, sig, der); string(got) != string(want) {
		t.Errorf("got  %s\nwant %s", got, want)
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
