package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"google.golang.org/protobuf/encoding/protojson"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
)

func testLogEntry() LogEntry {
	fill := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	e := LogEntry{
		LogIndex: 1234567, LogID: fill(0xf3, 32), Kind: "dsse", Version: "0.0.1", IntegratedTime: 1790000000,
		SET: fill(0x30, 71), RootHash: fill(0xee, 32), TreeSize: 1234999,
		Checkpoint: "log.example.com - 1193050959916656506\n1234999\n7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u4=\n\n" +
			"— log.example.com 8w1amTBFAiEA7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u4CIQDu7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7g==\n",
		CanonicalizedBody: []byte(`{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"` + hex256 +
			`"},"payloadHash":{"algorithm":"sha256","value":"` + hex256 + `"},"signatures":[{"signature":"MEUCIQ==","verifier":"` +
			strings.Repeat("LS0t", 60) + `"}]}}`),
	}
	for i := range 20 {
		e.Hashes = append(e.Hashes, fill(byte(i), 32))
	}
	return e
}

func testParts() *BundleParts {
	return &BundleParts{
		PublicKeyHint: hex256,
		Envelope:      testEnvelope(),
		LogEntry:      testLogEntry(),
		Timestamps:    [][]byte{bytes.Repeat([]byte{0x30, 0x82}, 600)},
	}
}

// variants gives each optional part both ways.
func variants() map[string]*BundleParts {
	all := map[string]*BundleParts{"full": testParts()}
	add := func(name string, change func(*BundleParts)) {
		p := testParts()
		change(p)
		all[name] = p
	}
	add("no log entry", func(p *BundleParts) { p.LogEntry = LogEntry{} })
	add("no timestamp", func(p *BundleParts) { p.Timestamps = nil })
	add("neither", func(p *BundleParts) { p.LogEntry, p.Timestamps = LogEntry{}, nil })
	add("two timestamps", func(p *BundleParts) { p.Timestamps = append(p.Timestamps, []byte{1, 2}) })
	add("first entry of a log", func(p *BundleParts) { p.LogEntry.LogIndex, p.LogEntry.TreeSize, p.LogEntry.Hashes = 0, 1, nil })
	add("rekor v2", func(p *BundleParts) {
		p.LogEntry.SET, p.LogEntry.IntegratedTime, p.LogEntry.Kind, p.LogEntry.Version = nil, 0, "hashedrekord", "0.0.2"
	})
	add("certificate", func(p *BundleParts) { certified(p, testCertificate()) })
	add("certificate, rekor v2, no timestamp", func(p *BundleParts) {
		certified(p, testCertificate())
		p.Timestamps, p.LogEntry.SET, p.LogEntry.IntegratedTime = nil, nil, 0
		p.LogEntry.Kind, p.LogEntry.Version = "hashedrekord", "0.0.2"
	})
	add("text that needs escapes", func(p *BundleParts) {
		p.PublicKeyHint = "a\"\\\x01\u2028é</"
		p.Envelope.Signatures[0].KeyID = p.PublicKeyHint
		p.Envelope.PayloadType = `\`
	})
	return all
}

// certified gives the bundle a certificate in place of the key hint.
func certified(p *BundleParts, der []byte) {
	p.PublicKeyHint, p.Certificate, p.Envelope.Signatures[0].KeyID = "", der, ""
}

func testCertificate() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(1790000000, 0), NotAfter: time.Unix(1790000600, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return der
}

func mustMarshal(t testing.TB, p *BundleParts) []byte {
	t.Helper()
	data, err := MarshalBundle(p)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestBundleGolden(t *testing.T) {
	golden(t, "bundle.json", mustMarshal(t, testParts()))
}

// sigstore-go must read the values we wrote.
func TestMarshalBundleForSigstore(t *testing.T) {
	for name, want := range variants() {
		t.Run(name, func(t *testing.T) {
			data := mustMarshal(t, want)
			wantCode(t, CheckJSON(data, MaxBundleBytes), "")
			var b bundle.Bundle
			if err := b.UnmarshalJSON(data); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, partsOf(t, &b), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("sigstore-go reads (-want +got):\n%s", diff)
			}
			if !b.MinVersion("v0.3") {
				t.Error("not a v0.3 bundle to sigstore-go")
			}
		})
	}
}

func partsOf(t *testing.T, b *bundle.Bundle) *BundleParts {
	t.Helper()
	material, env := b.GetVerificationMaterial(), b.GetDsseEnvelope()
	p := &BundleParts{
		PublicKeyHint: material.GetPublicKey().GetHint(),
		Certificate:   material.GetCertificate().GetRawBytes(),
		Envelope:      &Envelope{PayloadType: env.GetPayloadType(), Payload: env.GetPayload()},
	}
	for _, s := range env.GetSignatures() {
		p.Envelope.Signatures = append(p.Envelope.Signatures, Signature{KeyID: s.GetKeyid(), Sig: s.GetSig()})
	}
	for _, e := range material.GetTlogEntries() {
		proof := e.GetInclusionProof()
		if proof.GetLogIndex() != e.GetLogIndex() {
			t.Errorf("proof index %d, entry index %d", proof.GetLogIndex(), e.GetLogIndex())
		}
		p.LogEntry = LogEntry{
			LogIndex: e.GetLogIndex(), LogID: e.GetLogId().GetKeyId(),
			Kind: e.GetKindVersion().GetKind(), Version: e.GetKindVersion().GetVersion(),
			IntegratedTime: e.GetIntegratedTime(), SET: e.GetInclusionPromise().GetSignedEntryTimestamp(),
			RootHash: proof.GetRootHash(), TreeSize: proof.GetTreeSize(), Hashes: proof.GetHashes(),
			Checkpoint: proof.GetCheckpoint().GetEnvelope(), CanonicalizedBody: e.GetCanonicalizedBody(),
		}
	}
	for _, s := range material.GetTimestampVerificationData().GetRfc3161Timestamps() {
		p.Timestamps = append(p.Timestamps, s.GetSignedTimestamp())
	}
	return p
}

func TestParseOwnBundleInverts(t *testing.T) {
	for name, want := range variants() {
		t.Run(name, func(t *testing.T) {
			got, err := ParseOwnBundle(mustMarshal(t, want))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		want := drawParts(t)
		data, err := MarshalBundle(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseOwnBundle(data)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func drawParts(t *rapid.T) *BundleParts {
	text, some := rapid.StringN(1, 20, -1), rapid.SliceOfN(rapid.Byte(), 1, 80)
	hash := rapid.SliceOfN(rapid.Byte(), 32, 32)
	p := &BundleParts{PublicKeyHint: text.Draw(t, "hint")}
	p.Envelope = &Envelope{PayloadType: text.Draw(t, "type"), Payload: some.Draw(t, "payload"),
		Signatures: []Signature{{KeyID: p.PublicKeyHint, Sig: some.Draw(t, "sig")}}}
	if rapid.Bool().Draw(t, "certified") {
		certified(p, some.Draw(t, "certificate"))
	}
	if timestamps := rapid.SliceOfN(some, 0, 3).Draw(t, "timestamps"); len(timestamps) > 0 {
		p.Timestamps = timestamps
	}
	if rapid.Bool().Draw(t, "logged") {
		e := &p.LogEntry
		e.TreeSize = rapid.Int64Min(1).Draw(t, "size")
		e.LogIndex = rapid.Int64Range(0, e.TreeSize-1).Draw(t, "index")
		e.LogID, e.RootHash = some.Draw(t, "log id"), hash.Draw(t, "root")
		e.Kind, e.Version = text.Draw(t, "kind"), text.Draw(t, "version")
		e.IntegratedTime = rapid.Int64Min(0).Draw(t, "time")
		e.Checkpoint, e.CanonicalizedBody = text.Draw(t, "checkpoint"), some.Draw(t, "body")
		if rapid.Bool().Draw(t, "promise") {
			e.SET = some.Draw(t, "set")
		}
		if hashes := rapid.SliceOfN(hash, 0, 63).Draw(t, "hashes"); len(hashes) > 0 {
			e.Hashes = hashes
		}
	}
	return p
}

func TestMarshalBundleRefusals(t *testing.T) {
	tests := map[string]func(*BundleParts){
		"no hint":              func(p *BundleParts) { p.PublicKeyHint, p.Envelope.Signatures[0].KeyID = "", "" },
		"hint not UTF-8":       func(p *BundleParts) { p.PublicKeyHint, p.Envelope.Signatures[0].KeyID = "\xff", "\xff" },
		"hint and keyid":       func(p *BundleParts) { p.PublicKeyHint = "other" },
		"hint and certificate": func(p *BundleParts) { p.Certificate = []byte{0x30} },
		"certificate, keyid":   func(p *BundleParts) { p.PublicKeyHint, p.Certificate = "", []byte{0x30} },
		"large certificate":    func(p *BundleParts) { certified(p, make([]byte, MaxCertificateBytes+1)) },
		"no envelope":          func(p *BundleParts) { p.Envelope = nil },
		"no payload":           func(p *BundleParts) { p.Envelope.Payload = nil },
		"no payload type":      func(p *BundleParts) { p.Envelope.PayloadType = "" },
		"no signature":         func(p *BundleParts) { p.Envelope.Signatures = nil },
		"two signatures":       func(p *BundleParts) { p.Envelope.Signatures = append(p.Envelope.Signatures, p.Envelope.Signatures[0]) },
		"empty signature":      func(p *BundleParts) { p.Envelope.Signatures[0].Sig = nil },
		"empty timestamp":      func(p *BundleParts) { p.Timestamps = [][]byte{{}} },
		"33 timestamps":        func(p *BundleParts) { p.Timestamps = make([][]byte, 33) },
		"half a log entry":     func(p *BundleParts) { p.LogEntry = LogEntry{LogIndex: 3} },
		"proof without tree":   func(p *BundleParts) { p.LogEntry = LogEntry{Hashes: make([][]byte, 1)} },
		"no checkpoint":        func(p *BundleParts) { p.LogEntry.Checkpoint = "" },
		"no tree size":         func(p *BundleParts) { p.LogEntry.TreeSize = 0 },
		"index outside":        func(p *BundleParts) { p.LogEntry.LogIndex = p.LogEntry.TreeSize },
		"negative index":       func(p *BundleParts) { p.LogEntry.LogIndex = -1 },
		"negative time":        func(p *BundleParts) { p.LogEntry.IntegratedTime = -1 },
		"no log id":            func(p *BundleParts) { p.LogEntry.LogID = nil },
		"no kind":              func(p *BundleParts) { p.LogEntry.Kind = "" },
		"no version":           func(p *BundleParts) { p.LogEntry.Version = "" },
		"short root":           func(p *BundleParts) { p.LogEntry.RootHash = p.LogEntry.RootHash[1:] },
		"short proof hash":     func(p *BundleParts) { p.LogEntry.Hashes[3] = nil },
		"64 proof hashes":      func(p *BundleParts) { p.LogEntry.Hashes = make([][]byte, 64) },
		"no body":              func(p *BundleParts) { p.LogEntry.CanonicalizedBody = nil },
		"checkpoint not UTF-8": func(p *BundleParts) { p.LogEntry.Checkpoint += "\xff" },
		"too large":            func(p *BundleParts) { p.Envelope.Payload = make([]byte, MaxBundleBytes*3/4) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			p := testParts()
			change(p)
			_, err := MarshalBundle(p)
			wantCode(t, err, CodeBundleInvalid)
		})
	}
}

func TestParseOwnBundleRefusals(t *testing.T) {
	good := string(mustMarshal(t, testParts()))
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in the bundle", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, []byte(good), "", "  "); err != nil {
		t.Fatal(err)
	}
	hash0 := `"` + base64.StdEncoding.EncodeToString(make([]byte, 32)) + `"`
	tests := map[string]string{
		"empty":                      "",
		"null":                       "null",
		"indented":                   indented.String(),
		"leading blank":              " " + good,
		"trailing newline":           good + "\n",
		"trailing bundle":            good + good,
		"other media type":           replace("v0.3", "v0.2"),
		"unknown key":                replace(`{"mediaType"`, `{"x":1,"mediaType"`),
		"unknown key at the end":     good[:len(good)-1] + `,"x":1}`,
		"duplicate key":              replace(`{"mediaType"`, `{"mediaType":"","mediaType"`),
		"case variant":               replace(`"mediaType"`, `"MediaType"`),
		"long s":                     replace(`"dsseEnvelope"`, `"dſseEnvelope"`),
		"certificate for key":        replace(`"publicKey":{"hint":`, `"certificate":{"rawBytes":`),
		"empty certificate":          strings.NewReplacer(`"publicKey":{"hint":"`+hex256+`"`, `"certificate":{"rawBytes":""`, `"keyid":"`+hex256+`"`, `"keyid":""`).Replace(good),
		"certificate beside a keyid": replace(`"publicKey":{"hint":"`+hex256+`"`, `"certificate":{"rawBytes":"MAA="`),
		"hint and certificate":       replace(`"publicKey":{"hint":"`+hex256+`"`, `"certificate":{"rawBytes":"MAA="},"publicKey":{"hint":"`+hex256+`"`),
		"two log entries":            replace(`"tlogEntries":[`, `"tlogEntries":[{},`),
		"no log entries in the list": replace(good[strings.Index(good, `"tlogEntries":[`):strings.Index(good, `,"timestampV`)], `"tlogEntries":[]`),
		"no timestamps in the list":  replace(good[strings.Index(good, `[{"signedTimestamp"`):strings.Index(good, `},"dsseEnvelope"`)], `[]}`),
		"comma in the timestamps":    replace(`{"signedTimestamp"`, `,{"signedTimestamp"`),
		"empty timestamp":            replace(`[{"signedTimestamp"`, `[{"signedTimestamp":""},{"signedTimestamp"`),
		"two signatures":             replace(`"signatures":[`, `"signatures":[{"keyid":"","sig":""},`),
		"other keyid":                replace(`"keyid":"0`, `"keyid":"1`),
		"proof for another index":    replace(`"inclusionProof":{"logIndex":"1234567"`, `"inclusionProof":{"logIndex":"1234568"`),
		"integer as a number":        replace(`"logIndex":"1234567"`, `"logIndex":1234567`),
		"integer with a zero":        replace(`"integratedTime":"1`, `"integratedTime":"01`),
		"integer with a plus":        replace(`"integratedTime":"1`, `"integratedTime":"+1`),
		"integer beyond 64 bits":     replace(`"treeSize":"1234999"`, `"treeSize":"9223372036854775808"`),
		"empty integer":              replace(`"treeSize":"1234999"`, `"treeSize":""`),
		"needless escape":            replace(`"kind":"dsse"`, `"kind":"ds\u0073e"`),
		"escaped slash":              replace(`"payloadType":"application/`, `"payloadType":"application\/`),
		"empty promise":              replace(good[strings.Index(good, `"inclusionPromise":`):strings.Index(good, `,"inclusionProof"`)], `"inclusionPromise":{"signedEntryTimestamp":""}`),
		"base64 without padding":     replace(`MEX//gA="`, `MEX//gA"`),
		"base64 with loose bits":     replace(`MEX//gA="`, `MEX//gB="`),
		"base64 of the URL alphabet": replace(`MEX//gA="`, `MEX__gA="`),
		"base64 with an escape":      replace(`MEX//gA="`, `MEX\/\/gA="`),
		"short proof hash":           replace(hash0, `"AAAA"`),
		"64 proof hashes":            replace(hash0, hash0+strings.Repeat(","+hash0, 44)),
		"33 timestamps":              replace(`[{"signedTimestamp"`, `[`+strings.Repeat(`{"signedTimestamp":"AA=="},`, 32)+`{"signedTimestamp"`),
		"hint not UTF-8":             strings.ReplaceAll(good, hex256, "\xff"),
		"raw newline":                replace(`\n`, "\n"),
		"string without end":         good[:strings.LastIndexByte(good, '"')] + `\"}]}}`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseOwnBundle([]byte(text))
			wantCode(t, err, CodeBundleInvalid)
		})
	}
	_, err := ParseOwnBundle(make([]byte, MaxBundleBytes+1))
	wantCode(t, err, CodeBundleInvalid)
	// No prefix of a bundle is a bundle, and none makes the reader panic.
	for n := range good {
		if _, err := ParseOwnBundle([]byte(good[:n])); err == nil {
			t.Fatalf("the first %d bytes are accepted", n)
		}
	}
}

func FuzzParseOwnBundle(f *testing.F) {
	seeds := 0
	for _, p := range variants() {
		// Short seeds keep the fuzzer near the structure.
		if len(p.Timestamps) > 0 {
			p.Timestamps[0] = []byte{0x30}
		}
		if p.LogEntry.Present() {
			p.LogEntry.CanonicalizedBody = []byte("{}")
			p.LogEntry.Hashes = p.LogEntry.Hashes[:min(2, len(p.LogEntry.Hashes))]
		}
		f.Add(mustMarshal(f, p))
		seeds++
	}
	if seeds < 5 {
		f.Fatalf("%d seeds", seeds)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseOwnBundle(data)
		if err != nil {
			if refusal.CodeOf(err) != CodeBundleInvalid {
				t.Fatalf("code %q: %v", refusal.CodeOf(err), err)
			}
			return
		}
		again, err := MarshalBundle(p)
		if err != nil {
			t.Fatalf("parsed but not written: %v", err)
		}
		if !bytes.Equal(data, again) {
			t.Fatalf("written differently:\n%s\n%s", data, again)
		}
		if err := CheckJSON(data, MaxBundleBytes); err != nil {
			t.Fatalf("parsed but not strict JSON: %v", err)
		}
		// sigstore-go looks into the log entry too, which is not this parser's to do.
		if err := protojson.Unmarshal(data, &protobundle.Bundle{}); err != nil {
			t.Fatalf("parsed, but protojson says: %v", err)
		}
	})
}
