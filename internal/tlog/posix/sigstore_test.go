package posix_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
)

const statement = `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a.bin","digest":{"sha256":"` +
	`2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{}}`

// attestation is a signed statement, its log entry and all a verifier needs.
type attestation struct {
	format  tlog.EntryFormat
	log     *posix.Log
	entry   *posix.Entry
	payload []byte
	sig     []byte
	public  *ecdsa.PublicKey
	hint    string
}

func attest(t *testing.T, format tlog.EntryFormat, entriesBefore int) *attestation {
	t.Helper()
	cfg := config(t, newSigner(t))
	cfg.Format = format
	l := open(t, cfg)
	for range entriesBefore {
		add(t, l, "an earlier entry")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &attestation{format: format, log: l, payload: []byte(statement), public: &key.PublicKey}
	spki, err := x509.MarshalPKIXPublicKey(a.public)
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(spki)
	a.hint = hex.EncodeToString(id[:])
	digest := sha256.Sum256(dsse.PAE("application/vnd.in-toto+json", a.payload))
	if a.sig, err = ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
		t.Fatal(err)
	}
	body := tlog.EntryBodyHashedRekord002(digest, a.sig, spki)
	if format == tlog.RekorV1 {
		pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
		body = tlog.EntryBodyDSSE001(tlog.DSSE{PayloadType: "application/vnd.in-toto+json", Payload: a.payload, Sig: a.sig}, pemKey)
	}
	if a.entry, err = l.Add(t.Context(), body); err != nil {
		t.Fatal(err)
	}
	return a
}

// proto assembles the Sigstore bundle.
func (a *attestation) proto() *protobundle.Bundle {
	kind, version := a.format.KindVersion()
	tle := &protorekor.TransparencyLogEntry{
		LogIndex: int64(a.entry.Index), LogId: &protocommon.LogId{KeyId: a.log.LogID()},
		KindVersion: &protorekor.KindVersion{Kind: kind, Version: version},
		InclusionProof: &protorekor.InclusionProof{
			LogIndex: int64(a.entry.Index), RootHash: a.entry.RootHash, TreeSize: int64(a.entry.TreeSize), Hashes: a.entry.Hashes,
			Checkpoint: &protorekor.Checkpoint{Envelope: a.entry.Checkpoint},
		},
		CanonicalizedBody: a.entry.Body,
	}
	if a.entry.SET != nil {
		tle.IntegratedTime = a.entry.IntegratedTime
		tle.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: a.entry.SET}
	}
	return &protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content:     &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: a.hint}},
			TlogEntries: []*protorekor.TransparencyLogEntry{tle},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: a.payload, PayloadType: "application/vnd.in-toto+json", Signatures: []*protodsse.Signature{{Sig: a.sig}},
		}},
	}
}

// trustedMaterial goes through the JSON that the service publishes.
func (a *attestation) trustedMaterial(t *testing.T) root.TrustedMaterial {
	t.Helper()
	key := a.log.Key()
	tr, err := root.NewTrustedRoot(root.TrustedRootMediaType01, nil, nil, nil, map[string]*root.TransparencyLog{
		hex.EncodeToString(key.LogID): {BaseURL: key.BaseURL(), ID: key.LogID, ValidityPeriodStart: time.Unix(1, 0),
			HashFunc: crypto.SHA256, PublicKey: key.Public, SignatureHashFunc: crypto.SHA256},
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := tr.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if tr, err = root.NewTrustedRootFromJSON(raw); err != nil {
		t.Fatal(err)
	}
	sv, err := signature.LoadVerifier(a.public, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	keys := root.NewTrustedPublicKeyMaterialFromMapping(map[string]*root.ExpiringKey{a.hint: root.NewExpiringKey(sv, time.Time{}, time.Time{})})
	return root.TrustedMaterialCollection{tr, keys}
}

// judge lets sigstore-go verify a bundle.
func (a *attestation) judge(t *testing.T, pb *protobundle.Bundle, time verify.VerifierOption) error {
	t.Helper()
	raw, err := protojson.Marshal(pb)
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(raw); err != nil {
		return err
	}
	v, err := verify.NewVerifier(a.trustedMaterial(t), verify.WithTransparencyLog(1), time, verify.WithoutStatementPredicate())
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("hello"))
	_, err = v.Verify(b, verify.NewPolicy(verify.WithArtifactDigest("sha256", digest[:]), verify.WithKey()))
	return err
}

func TestSigstoreGoAcceptsOurEntries(t *testing.T) {
	t.Parallel()
	for _, format := range formats {
		for _, before := range []int{0, 1, 6} {
			a := attest(t, format, before)
			if err := a.judge(t, a.proto(), verify.WithNoObserverTimestamps()); err != nil {
				t.Errorf("%s after %d entries: %v", format, before, err)
			}
			// The SET makes the integration time a trusted one; rekor-v2 has none.
			err := a.judge(t, a.proto(), verify.WithIntegratedTimestamps(1))
			if (err == nil) != (format == tlog.RekorV1) {
				t.Errorf("%s with the integration time as timestamp: %v", format, err)
			}
			bare := a.proto()
			bare.VerificationMaterial.TlogEntries[0].InclusionPromise = nil
			if err := a.judge(t, bare, verify.WithNoObserverTimestamps()); err != nil {
				t.Errorf("%s without SET: %v", format, err)
			}
			if err := a.judge(t, bare, verify.WithIntegratedTimestamps(1)); err == nil {
				t.Errorf("%s: a time without SET was believed", format)
			}
			again, err := a.log.Entry(t.Context(), a.entry.Index) // the recovered entry is as good
			if err != nil {
				t.Fatal(err)
			}
			a.entry = again
			if err := a.judge(t, a.proto(), verify.WithNoObserverTimestamps()); err != nil {
				t.Errorf("%s, recovered: %v", format, err)
			}
		}
	}
}

// Each part of the proof, flipped, is refused by sigstore-go and by package tlog,
// which says by code what was wrong.
func TestFlippedBytesAreRefused(t *testing.T) {
	t.Parallel()
	for _, format := range formats {
		a := attest(t, format, 5)
		flips := []struct {
			name  string
			flip  func(e *posix.Entry)
			code  refusal.Code
			blind bool // sigstore-go does not look at it in rekor-v2
		}{
			{"body", func(e *posix.Entry) { e.Body = flipped(e.Body, len(e.Body)/2) }, tlog.CodeInclusionProofInvalid, true},
			{"index", func(e *posix.Entry) { e.Index ^= 1 }, tlog.CodeInclusionProofInvalid, false},
			{"index beyond", func(e *posix.Entry) { e.Index = e.TreeSize }, tlog.CodeInclusionProofInvalid, false},
			{"hash", func(e *posix.Entry) { e.Hashes = [][]byte{flipped(e.Hashes[0], 3), e.Hashes[1]} }, tlog.CodeInclusionProofInvalid, false},
			{"hash missing", func(e *posix.Entry) { e.Hashes = e.Hashes[:1] }, tlog.CodeInclusionProofInvalid, false},
			{"hash added", func(e *posix.Entry) { e.Hashes = append([][]byte{e.RootHash}, e.Hashes...) }, tlog.CodeInclusionProofInvalid, false},
			{"size line", func(e *posix.Entry) { e.Checkpoint = replaced(t, e.Checkpoint, "\n6\n", "\n7\n") }, tlog.CodeCheckpointSignatureInvalid, false},
			{"origin line", func(e *posix.Entry) { e.Checkpoint = replaced(t, e.Checkpoint, "log.", "lag.") }, tlog.CodeCheckpointSignatureInvalid, false},
			{"no newline", func(e *posix.Entry) { e.Checkpoint = e.Checkpoint[:len(e.Checkpoint)-1] }, tlog.CodeCheckpointInvalid, false},
			{"signature", func(e *posix.Entry) {
				b := []byte(e.Checkpoint)
				b[len(b)-20] = map[bool]byte{true: 'B', false: 'A'}[b[len(b)-20] == 'A']
				e.Checkpoint = string(b)
			}, tlog.CodeCheckpointSignatureInvalid, false},
		}
		good := *a.entry
		for _, f := range flips {
			e := good
			f.flip(&e)
			a.entry = &e
			if err := a.judge(t, a.proto(), verify.WithNoObserverTimestamps()); err == nil && (!f.blind || format != tlog.RekorV2) {
				t.Errorf("%s, %s flipped: sigstore-go accepts", format, f.name)
			}
			if got := refusal.CodeOf(verifyFlipped(a.log, &e)); got != f.code {
				t.Errorf("%s, %s flipped: %q, want %s", format, f.name, got, f.code)
			}
		}
	}
}

// verifyFlipped is verifyEntry with the size and root of the checkpoint alone.
func verifyFlipped(l *posix.Log, e *posix.Entry) error {
	cp, err := tlog.ParseCheckpoint(e.Checkpoint)
	if err != nil {
		return err
	}
	if err := tlog.VerifyCheckpoint(cp, l.Key().Host, l.Key().Public, l.Key().Hint); err != nil {
		return err
	}
	return tlog.VerifyInclusion(e.Index, cp.Size, tlog.LeafHash(e.Body), e.Hashes, cp.RootHash)
}

func TestSETCoversTimeIndexAndBody(t *testing.T) {
	t.Parallel()
	a := attest(t, tlog.RekorV1, 2)
	for name, change := range map[string]func(*protorekor.TransparencyLogEntry){
		"time": func(e *protorekor.TransparencyLogEntry) { e.IntegratedTime++ },
		"set": func(e *protorekor.TransparencyLogEntry) {
			s := e.InclusionPromise
			s.SignedEntryTimestamp = flipped(s.SignedEntryTimestamp, 9)
		},
		"log": func(e *protorekor.TransparencyLogEntry) { e.LogId.KeyId = flipped(e.LogId.KeyId, 0) },
	} {
		pb := proto.Clone(a.proto()).(*protobundle.Bundle)
		change(pb.VerificationMaterial.TlogEntries[0])
		if err := a.judge(t, pb, verify.WithIntegratedTimestamps(1)); err == nil {
			t.Errorf("%s changed: accepted", name)
		}
	}
	id := hex.EncodeToString(a.log.LogID())
	digest := sha256.Sum256(tlog.SETPayload(a.entry.Body, a.entry.IntegratedTime, int64(a.entry.Index), id))
	if !ecdsa.VerifyASN1(a.log.Key().Public, digest[:], a.entry.SET) {
		t.Error("the SET does not verify over its own payload")
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func replaced(t *testing.T, s, old, new string) string {
	t.Helper()
	out := bytes.Replace([]byte(s), []byte(old), []byte(new), 1)
	if string(out) == s {
		t.Fatalf("%q has no %q", s, old)
	}
	return string(out)
}
