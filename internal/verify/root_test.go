package verify

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"testing"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

func TestNewRoot(t *testing.T) {
	l := newLab(t)
	good := PublicKey{PEM: l.att.pem()}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 4104)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	noStart := l.root(func(r *prototrustroot.TrustedRoot) { r.Tlogs[0].PublicKey.ValidFor.Start = nil })
	noWindow := l.root(func(r *prototrustroot.TrustedRoot) { r.Tlogs[0].PublicKey.ValidFor = nil })
	twice := l.root(func(r *prototrustroot.TrustedRoot) { r.Tlogs = append(r.Tlogs, r.Tlogs[0]) })
	ctNoStart := l.root(func(r *prototrustroot.TrustedRoot) {
		r.Ctlogs = []*prototrustroot.TransparencyLogInstance{{LogId: r.Tlogs[0].LogId, PublicKey: &protocommon.PublicKey{}}}
	})
	tests := []struct {
		name string
		root []byte
		keys []PublicKey
		want refusal.Code
	}{
		{"good", l.root(), []PublicKey{good}, accepted},
		{"no JSON", []byte("{"), nil, CodeTrustedRootInvalid},
		{"a key twice", []byte(`{"mediaType":"a","mediaType":"b"}`), nil, CodeTrustedRootInvalid},
		{"unknown key", []byte(`{"media":"a"}`), nil, CodeTrustedRootInvalid},
		{"unknown media type", []byte(`{"mediaType":"a"}`), nil, CodeTrustedRootInvalid},
		{"log listed twice", twice, nil, CodeTrustedRootInvalid},
		{"log without start", noStart, nil, CodeTrustedRootValidityMissing},
		{"log without window", noWindow, nil, CodeTrustedRootValidityMissing},
		{"certificate log without start", ctNoStart, nil, CodeTrustedRootValidityMissing},
		{"key listed twice", l.root(), []PublicKey{good, good}, CodeKeyInvalid},
		{"empty key", l.root(), []PublicKey{{}}, CodeKeyInvalid},
		{"private key block", l.root(), []PublicKey{{PEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: l.att.spki()})}}, CodeKeyInvalid},
		{"two keys in one", l.root(), []PublicKey{{PEM: append(l.att.pem(), l.log.pem()...)}}, CodeKeyInvalid},
		{"not a key", l.root(), []PublicKey{{PEM: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})}}, CodeKeyInvalid},
		{"large", l.root(), []PublicKey{{PEM: bytes.Repeat([]byte(" "), maxKeyPEMBytes+1)}}, CodeKeyInvalid},
		{"RSA of 4104 bits", l.root(), []PublicKey{{PEM: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})}}, CodeKeyUnsupported},
	}
	for _, tt := range tests {
		r, err := NewRoot(tt.root, tt.keys...)
		if refusal.CodeOf(err) != tt.want || (r == nil) != (err != nil) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// overArtifact is a bundle with a signature over an artifact instead of an envelope.
func (l *lab) overArtifact(artifact []byte, change func(*protobundle.Bundle)) []byte {
	l.t.Helper()
	digest := sha256.Sum256(artifact)
	sig := l.att.sign(l.t, artifact)
	p := l.seal(tlog.RekorV2, attest.PayloadTypeInToto, statement(l.t, "unused"))
	p.LogEntry = l.entry(tlog.RekorV2, tlog.EntryBodyHashedRekord002(digest, sig, l.att.spki()))
	p.Timestamps = [][]byte{l.stamp(sig)}
	return l.edit(l.marshal(p), func(b *protobundle.Bundle) {
		b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{Signature: sig,
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest[:]}}}
		change(b)
	})
}

func TestSignatureOverArtifact(t *testing.T) {
	l := newLab(t)
	v := l.verifier()
	artifact := []byte("artifact")
	bundle := l.overArtifact(artifact, func(*protobundle.Bundle) {})
	message := func(change func(*protocommon.MessageSignature)) []byte {
		return l.overArtifact(artifact, func(b *protobundle.Bundle) { change(b.GetMessageSignature()) })
	}
	right := Expectation{Artifact: sha256Of(artifact)}
	sha512 := []Digest{{"sha512", string(bytes.Repeat([]byte("ab"), 64))}}
	tests := []struct {
		name   string
		bundle []byte
		want   Expectation
		code   refusal.Code
	}{
		{"right", bundle, right, accepted},
		{"another artifact", bundle, Expectation{Artifact: sha256Of([]byte("other"))}, CodeArtifactMismatch},
		{"any artifact", bundle, Expectation{AnyArtifact: true}, CodeArtifactRequired},
		{"digest in another algorithm", bundle, Expectation{Artifact: sha512}, CodeArtifactRequired},
		{"a predicate is wanted", bundle, Expectation{Artifact: sha256Of(artifact), PredicateType: "https://p"}, CodePredicateTypeMismatch},
		{"false digest in the bundle", message(func(m *protocommon.MessageSignature) { m.MessageDigest.Digest[0] ^= 1 }), right, CodeMessageDigestMismatch},
		{"false signature", message(func(m *protocommon.MessageSignature) { m.Signature = l.att.sign(t, []byte("other")) }), right, CodeSignatureInvalid},
		{"no digest", message(func(m *protocommon.MessageSignature) { m.MessageDigest = nil }), right, CodeBundleContent},
		{"digest by nobody's algorithm", message(func(m *protocommon.MessageSignature) { m.MessageDigest.Algorithm = 0 }), right, CodeBundleContent},
		{"a statement's log entry", l.overArtifact(artifact, func(b *protobundle.Bundle) {
			other := l.seal(tlog.RekorV1, attest.PayloadTypeInToto, statement(t, "artifact"))
			b.VerificationMaterial.TlogEntries = l.tlogEntries(other)
		}), right, CodeLogEntryMismatch},
	}
	for _, tt := range tests {
		tt.want.RootKey = true
		ev, err := v.Verify(tt.bundle, tt.want)
		check(t, tt.name, ev, err, tt.code)
		if tt.code == accepted && (!ev.HasDigest("sha256", sha256Of(artifact)[0].Hex) || ev.HasDigest("sha256", sha256Of(nil)[0].Hex) || ev.Statement() != nil) {
			t.Errorf("%s: evidence %+v", tt.name, ev)
		}
	}
}

func (l *lab) tlogEntries(p *attest.BundleParts) (entries []*protorekor.TransparencyLogEntry) {
	l.edit(l.marshal(p), func(b *protobundle.Bundle) { entries = b.VerificationMaterial.TlogEntries })
	return entries
}

func (l *lab) verifierWithoutKeys() *Verifier {
	l.t.Helper()
	r, err := NewRoot(l.root())
	if err != nil {
		l.t.Fatal(err)
	}
	return New(r)
}

// TestExpectedKey: a key that the caller names, under any hint.
func TestExpectedKey(t *testing.T) {
	l := newLab(t)
	v := l.verifierWithoutKeys()
	good := l.marshal(l.seal(tlog.RekorV1, attest.PayloadTypeInToto, statement(t, "artifact")))
	other := newTestKey(t)
	hinted := func(hint string) []byte {
		return l.edit(good, func(b *protobundle.Bundle) { b.VerificationMaterial.GetPublicKey().Hint = hint })
	}
	ambiguous := bytes.Replace(good, []byte(`"publicKey":`), []byte(`"x509CertificateChain":{"certificates":[{"rawBytes":"AAAA"}]},"publicKey":`), 1)
	tests := []struct {
		name   string
		bundle []byte
		key    PublicKey
		want   refusal.Code
	}{
		{"right", good, PublicKey{PEM: l.att.pem()}, accepted},
		{"no hint", hinted(""), PublicKey{PEM: l.att.pem()}, accepted},
		{"hint in hex", hinted(l.att.KeyID()), PublicKey{PEM: l.att.pem()}, accepted},
		{"hint of another key", hinted(other.KeyID()), PublicKey{PEM: l.att.pem()}, CodeKeyMismatch},
		{"another key", good, PublicKey{PEM: other.pem()}, CodeKeyMismatch},
		{"another key, no hint, no keyid", l.edit(good, func(b *protobundle.Bundle) {
			b.VerificationMaterial.GetPublicKey().Hint = ""
			b.GetDsseEnvelope().Signatures[0].Keyid = ""
		}), PublicKey{PEM: other.pem()}, CodeSignatureInvalid},
		{"not a key", good, PublicKey{PEM: []byte("x")}, CodeKeyInvalid},
		{"two kinds of material", ambiguous, PublicKey{PEM: l.att.pem()}, CodeMaterialAmbiguous},
	}
	for _, tt := range tests {
		ev, err := v.Verify(tt.bundle, Expectation{AnyArtifact: true, Key: &tt.key})
		check(t, tt.name, ev, err, tt.want)
	}
	ev, err := v.Verify(good, Expectation{AnyArtifact: true, RootKey: true})
	check(t, "no key in the root", ev, err, CodeKeyUnknown)
}

// TestJudge: the judge alone refuses too, and a refusal of his is one of ours.
func TestJudge(t *testing.T) {
	l := newLab(t)
	v := l.verifier()
	good := l.marshal(l.seal(tlog.RekorV1, attest.PayloadTypeInToto, statement(t, "artifact")))
	x, err := Expectation{AnyArtifact: true, RootKey: true}.compile()
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{key: v.root.keys[l.att.keyid()]}
	if err := v.judge(good, s, x, nil); err != nil {
		t.Fatal(err)
	}
	strangerKey, err := PublicKey{PEM: newTestKey(t).pem()}.parse()
	if err != nil {
		t.Fatal(err)
	}
	stranger := &signer{key: strangerKey}
	for name, err := range map[string]error{
		"another key": v.judge(good, stranger, x, nil),
		"no bundle":   v.judge([]byte("{}"), s, x, nil),
		"no key":      v.judge(good, &signer{}, x, nil),
	} {
		if refusal.CodeOf(err) != CodeJudgeDisagrees {
			t.Errorf("%s: %v", name, err)
		}
	}
}
