package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

// fenced returns the fenced block that follows heading in a Markdown text.
func fenced(t *testing.T, text, heading string) string {
	t.Helper()
	m := regexp.MustCompile("(?s)\n" + regexp.QuoteMeta(heading) + "\n+```[a-z]*\n(.*?)\n```").FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no block after %q", heading)
	}
	return m[1]
}

// The vector of the DSSE protocol document: its PAE, its signature over that PAE,
// and its envelope.
func TestDSSEVector(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(vectors.Dir(t, "dsse"), "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(data), "## Test Vectors")
	if !found {
		t.Fatal("no test vectors in protocol.md")
	}
	body := fenced(t, text, "SERIALIZED_BODY:")
	payloadType := fenced(t, text, "PAYLOAD_TYPE:")
	pae := PAE(payloadType, []byte(body))
	if diff := cmp.Diff(fenced(t, text, "PAE:"), string(pae)); diff != "" {
		t.Errorf("PAE (-want +got):\n%s", diff)
	}

	env, err := ParseEnvelope([]byte(fenced(t, text, "Result (using the recommended [JSON envelope](envelope.md)):")))
	if err != nil {
		t.Fatal(err)
	}
	if env.PayloadType != payloadType || string(env.Payload) != body || len(env.Signatures) != 1 {
		t.Fatalf("envelope read as %+v", env)
	}
	keys := fenced(t, text, "Cryptographic keys:")
	number := func(name string) *big.Int {
		m := regexp.MustCompile(name + `: ([0-9]+)`).FindStringSubmatch(keys)
		n, ok := new(big.Int).SetString(m[1], 10)
		if !ok {
			t.Fatalf("no number %s", name)
		}
		return n
	}
	point := append([]byte{4}, number("X").FillBytes(make([]byte, 32))...)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(point, number("Y").FillBytes(make([]byte, 32))...))
	if err != nil {
		t.Fatal(err)
	}
	sig := env.Signatures[0].Sig
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	if digest := sha256.Sum256(pae); !ecdsa.Verify(key, digest[:], r, s) {
		t.Error("the vector's signature does not verify over our PAE")
	}
	if digest := sha256.Sum256(PAE("application/json", []byte(body))); ecdsa.Verify(key, digest[:], r, s) {
		t.Error("the signature verifies under another payload type")
	}
}

func TestPAE(t *testing.T) {
	tests := []struct{ payloadType, payload, want string }{
		{"", "", "DSSEv1 0  0 "},
		// é is two bytes: lengths count bytes.
		{"application/é", "ü€", "DSSEv1 14 application/é 5 ü€"},
		{"a 1 b", " 2 ", "DSSEv1 5 a 1 b 3  2 "},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, string(PAE(tt.payloadType, []byte(tt.payload)))); diff != "" {
			t.Errorf("PAE(%q, %q) (-want +got):\n%s", tt.payloadType, tt.payload, diff)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		payloadType, payload := rapid.String().Draw(t, "type"), rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		if !bytes.Equal(dsse.PAE(payloadType, payload), PAE(payloadType, payload)) {
			t.Fatal("PAE differs from go-securesystemslib's")
		}
	})
}

func testEnvelope() *Envelope {
	return &Envelope{
		PayloadType: PayloadTypeInToto,
		Payload:     []byte(`{"_type":"x"}`),
		Signatures:  []Signature{{KeyID: hex256, Sig: []byte{0x30, 0x45, 0xff, 0xfe, 0}}},
	}
}

func TestEnvelopeMarshal(t *testing.T) {
	want := `{"payload":"eyJfdHlwZSI6IngifQ==","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"` + hex256 + `","sig":"MEX//gA="}]}`
	if diff := cmp.Diff(want, string(testEnvelope().Marshal())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfN(rapid.Byte(), 1, 40)
		env := &Envelope{
			PayloadType: rapid.StringN(1, 20, -1).Draw(t, "type"),
			Payload:     some.Draw(t, "payload"),
			Signatures: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Signature {
				return Signature{KeyID: rapid.String().Draw(t, "keyid"), Sig: some.Draw(t, "sig")}
			}), 1, 3).Draw(t, "signatures"),
		}
		got, err := ParseEnvelope(env.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(env, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		var theirs dsse.Envelope
		if err := json.Unmarshal(env.Marshal(), &theirs); err != nil {
			t.Fatal(err)
		}
		if payload, err := theirs.DecodeB64Payload(); err != nil || !bytes.Equal(payload, env.Payload) || theirs.PayloadType != env.PayloadType {
			t.Fatalf("go-securesystemslib reads %q, %v", payload, err)
		}
	})
}

func TestParseEnvelopeRefusals(t *testing.T) {
	env := func(payload, signatures string) string {
		return `{"payload":` + payload + `,"payloadType":"x","signatures":` + signatures + `}`
	}
	sig := `[{"keyid":"k","sig":"MEX//gA="}]`
	tests := []struct {
		name, text string
		want       refusal.Code
	}{
		{"good", env(`"aGk="`, sig), ""},
		{"no keyid", env(`"aGk="`, `[{"sig":"MEX//gA="}]`), ""},
		{"32 signatures", env(`"aGk="`, "["+strings.Repeat(`{"sig":"AA=="},`, 31)+`{"sig":"AA=="}]`), ""},
		{"33 signatures", env(`"aGk="`, "["+strings.Repeat(`{"sig":"AA=="},`, 32)+`{"sig":"AA=="}]`), CodeEnvelopeInvalid},
		{"no signature", env(`"aGk="`, `[]`), CodeEnvelopeInvalid},
		{"null signatures", env(`"aGk="`, `null`), CodeEnvelopeInvalid},
		{"null signature", env(`"aGk="`, `[null]`), CodeEnvelopeInvalid},
		{"empty signature", env(`"aGk="`, `[{"keyid":"k","sig":""}]`), CodeEnvelopeInvalid},
		{"null payload", env(`null`, sig), CodeEnvelopeInvalid},
		{"empty payload", env(`""`, sig), CodeEnvelopeInvalid},
		{"no padding", env(`"aGk"`, sig), CodeEnvelopeInvalid},
		{"loose padding bits", env(`"aGl="`, sig), CodeEnvelopeInvalid},
		{"line break", env(`"aG\nk="`, sig), CodeEnvelopeInvalid},
		{"URL alphabet", env(`"aGk="`, `[{"sig":"MEX__gA="}]`), CodeEnvelopeInvalid},
		{"payload an object", env(`{}`, sig), CodeJSONWrongType},
		{"no payload type", `{"payload":"aGk=","signatures":` + sig + `}`, CodeEnvelopeInvalid},
		{"unknown key", `{"payload":"aGk=","payload_type":"x","signatures":` + sig + `}`, CodeJSONUnknownKey},
		{"unknown signature key", env(`"aGk="`, `[{"sig":"AA==","cert":"x"}]`), CodeJSONUnknownKey},
		{"payload twice", `{"payload":"aGk=",` + env(`"aGk="`, sig)[1:], CodeJSONDuplicate},
		{"payload in two cases", `{"Payload":"aGk=",` + env(`"aGk="`, sig)[1:], CodeJSONCaseVariant},
		{"trailing data", env(`"aGk="`, sig) + `{}`, CodeJSONInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseEnvelope([]byte(tt.text))
			wantCode(t, err, tt.want)
		})
	}
}

func FuzzParseEnvelope(f *testing.F) {
	seeds := [][]byte{testEnvelope().Marshal(), []byte(`{}`), []byte(`{"payload":"aGk=","payloadType":"é","signatures":[{"sig":"AA=="}]}`)}
	if len(seeds[0]) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := ParseEnvelope(data)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("a refusal without a code: %v", err)
			}
			return
		}
		again, err := ParseEnvelope(env.Marshal())
		if err != nil || !cmp.Equal(env, again) {
			t.Fatalf("%q reads differently when written again (%v)", data, err)
		}
	})
}

func TestDecodeBase64HasOneSpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[A-Za-z0-9+/=\n_-]{0,12}`).Draw(t, "text")
		data, ok := decodeBase64([]byte(text))
		if ok != (base64.StdEncoding.EncodeToString(data) == text) && text != "" {
			t.Fatalf("%q: ok = %v, decoded %x", text, ok, data)
		}
	})
}
