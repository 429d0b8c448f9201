package signing

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/timestamp-authority/v2/pkg/verification"

	"github.com/assay-build/assay/internal/refusal"
)

var testTime = time.Date(2031, 4, 5, 6, 7, 8, 900_000_000, time.UTC)

// clock returns a clock that stands still at t.
func clock(t time.Time) func() time.Time { return func() time.Time { return t } }

func newKeyset(tb testing.TB, now func() time.Time) *Keyset {
	tb.Helper()
	ks, err := OpenKeyset(tb.Context(), filepath.Join(tb.TempDir(), "keys"), Config{Host: "assay.example.com", Now: now, Create: true})
	if err != nil {
		tb.Fatal(err)
	}
	return ks
}

func trustedRoot(tb testing.TB, ks *Keyset) *root.TrustedRoot {
	tb.Helper()
	text, err := ks.TrustedRoot()
	if err != nil {
		tb.Fatal(err)
	}
	tr, err := root.NewTrustedRootFromJSON(text)
	if err != nil {
		tb.Fatal(err)
	}
	return tr
}

func mustTimestamp(tb testing.TB, ks *Keyset, sig []byte) []byte {
	tb.Helper()
	token, err := ks.TSA().Timestamp(tb.Context(), sig)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

// The library reads out of the token what RFC 3161 wants in it.
func TestTimestampSays(t *testing.T) {
	ks := newKeyset(t, clock(testTime))
	sig := []byte("a signature")
	token := mustTimestamp(t, ks, sig)
	got, err := timestamp.ParseResponse(token)
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(sig)
	if got.HashAlgorithm != crypto.SHA256 || !bytes.Equal(got.HashedMessage, want[:]) {
		t.Errorf("imprint is %v %x", got.HashAlgorithm, got.HashedMessage)
	}
	if !got.Time.Equal(testTime.Truncate(time.Second)) || got.Accuracy != time.Second {
		t.Errorf("time %s ± %s", got.Time, got.Accuracy)
	}
	if len(got.Certificates) != 0 || got.Nonce != nil || got.Ordering {
		t.Errorf("token holds more than it should: %+v", got)
	}
	if n := got.SerialNumber.BitLen(); n != 127 {
		t.Errorf("serial number has %d bits, want 127", n)
	}
	if other, _ := timestamp.ParseResponse(mustTimestamp(t, ks, sig)); other.SerialNumber.Cmp(got.SerialNumber) == 0 {
		t.Error("two tokens share a serial number")
	}
}

// Every structure re-encodes to the same bytes: the token is DER and nothing else.
func TestTimestampIsDER(t *testing.T) {
	ks := newKeyset(t, clock(testTime))
	token := mustTimestamp(t, ks, []byte("a signature"))
	var again func(in []byte) []byte
	again = func(in []byte) []byte {
		var out []byte
		for len(in) > 0 {
			var v asn1.RawValue
			rest, err := asn1.Unmarshal(in, &v)
			if err != nil {
				t.Fatal(err)
			}
			if v.IsCompound {
				v.Bytes, v.FullBytes = again(v.Bytes), nil
			}
			one, err := asn1.Marshal(asn1.RawValue{Class: v.Class, Tag: v.Tag, IsCompound: v.IsCompound, Bytes: v.Bytes})
			if err != nil {
				t.Fatal(err)
			}
			out, in = append(out, one...), rest
		}
		return out
	}
	if !bytes.Equal(again(token), token) {
		t.Error("the token is not DER")
	}
	for name, oid := range map[string]string{
		"1.2.840.113549.1.7.2": oidSignedData, "1.2.840.113549.1.9.3": oidContentType,
		"1.2.840.113549.1.9.4": oidMessageDigest, "1.2.840.113549.1.9.16.1.4": oidTSTInfo,
		"1.2.840.113549.1.9.16.2.47": oidSigningCertificateV2, "2.16.840.1.101.3.4.2.1": oidSHA256,
		"1.2.840.10045.4.3.2": oidECDSAWithSHA256, "2.5.29.32.0": oidAnyPolicy,
	} {
		var got asn1.ObjectIdentifier
		if rest, err := asn1.Unmarshal([]byte(oid), &got); err != nil || len(rest) != 0 || got.String() != name {
			t.Errorf("constant for %s decodes to %s, %v", name, got, err)
		}
	}
}

// sigBundle is a Sigstore bundle with a plain key, one message signature and the
// given timestamps.
func sigBundle(tb testing.TB, ks *Keyset, artifact []byte, timestampOver func(sig []byte) []byte) *bundle.Bundle {
	tb.Helper()
	digest := sha256.Sum256(artifact)
	sig, err := ks.AttestationSigner().Sign(tb.Context(), digest[:])
	if err != nil {
		tb.Fatal(err)
	}
	b, err := bundle.NewBundle(&bundlepb.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: &bundlepb.VerificationMaterial{
			Content: &bundlepb.VerificationMaterial_PublicKey{PublicKey: &commonpb.PublicKeyIdentifier{Hint: ks.AttestationSigner().KeyID()}},
			TimestampVerificationData: &bundlepb.TimestampVerificationData{
				Rfc3161Timestamps: []*commonpb.RFC3161SignedTimestamp{{SignedTimestamp: timestampOver(sig)}},
			},
		},
		Content: &bundlepb.Bundle_MessageSignature{MessageSignature: &commonpb.MessageSignature{
			MessageDigest: &commonpb.HashOutput{Algorithm: commonpb.HashAlgorithm_SHA2_256, Digest: digest[:]},
			Signature:     sig,
		}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// sigstoreVerify lets sigstore-go judge a bundle with the published trusted root
// and attestation key of ks.
func sigstoreVerify(tb testing.TB, ks *Keyset, b *bundle.Bundle, artifact []byte) error {
	tb.Helper()
	block, _ := pem.Decode([]byte(ks.AttestationKeysPEM()))
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		tb.Fatal(err)
	}
	verifier, err := signature.LoadVerifier(pub, crypto.SHA256)
	if err != nil {
		tb.Fatal(err)
	}
	material := root.TrustedMaterialCollection{trustedRoot(tb, ks), root.NewTrustedPublicKeyMaterial(
		func(string) (root.TimeConstrainedVerifier, error) {
			return root.NewExpiringKey(verifier, ks.Attestation[0].NotBefore, time.Time{}), nil
		})}
	v, err := verify.NewVerifier(material, verify.WithSignedTimestamps(1))
	if err != nil {
		tb.Fatal(err)
	}
	result, err := v.Verify(b, verify.NewPolicy(verify.WithArtifact(bytes.NewReader(artifact)), verify.WithKey()))
	if err == nil && len(result.VerifiedTimestamps) != 1 {
		tb.Fatalf("%d verified timestamps", len(result.VerifiedTimestamps))
	}
	return err
}

func TestTimestampVerifiesWithSigstore(t *testing.T) {
	ks, other := newKeyset(t, clock(testTime)), newKeyset(t, clock(testTime))
	artifact := []byte("an artifact")
	stamp := func(by *Keyset) func([]byte) []byte {
		return func(sig []byte) []byte { return mustTimestamp(t, by, sig) }
	}
	for _, c := range []struct {
		name    string
		token   func(sig []byte) []byte
		wantErr string // "" accepts
	}{
		{"honest", stamp(ks), ""},
		{"over another signature", func([]byte) []byte { return mustTimestamp(t, ks, []byte("another")) }, "hashed messages don't match"},
		{"by another authority of the same name", stamp(other), "error while verifying signature"},
		{"signature bit flipped", func(sig []byte) []byte {
			token := mustTimestamp(t, ks, sig)
			token[len(token)-1] ^= 1
			return token
		}, "error while verifying signature"},
		{"time changed", func(sig []byte) []byte {
			return bytes.Replace(mustTimestamp(t, ks, sig), []byte("20310405060708Z"), []byte("20310405060709Z"), 1)
		}, "Message digest mismatch"},
		{"nothing", func([]byte) []byte { return nil }, "error parsing response"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := sigstoreVerify(t, ks, sigBundle(t, ks, artifact, c.token), artifact)
			if c.wantErr == "" && err != nil || c.wantErr != "" && (err == nil || !strings.Contains(err.Error(), c.wantErr)) {
				t.Errorf("got %v, want %q", err, c.wantErr)
			}
		})
	}
}

// The timestamp library of Sigstore, and a token that embeds its leaf as other
// authorities' tokens do: both forms pass, the roots decide.
func TestTimestampVerificationLibrary(t *testing.T) {
	ks, other := newKeyset(t, clock(testTime)), newKeyset(t, clock(testTime))
	sig := []byte("a signature")
	chain, foreign := ks.TSA().Chain(), other.TSA().Chain()
	opts := func(leaf, root *x509.Certificate) verification.VerifyOpts {
		return verification.VerifyOpts{TSACertificate: leaf, Roots: []*x509.Certificate{root},
			OID: asn1.ObjectIdentifier{2, 5, 29, 32, 0}, CommonName: "Timestamps of assay.example.com"}
	}
	plain := mustTimestamp(t, ks, sig)
	for _, c := range []struct {
		name string
		opts verification.VerifyOpts
		ok   bool
	}{
		{"leaf from the trusted root", opts(chain[0], chain[1]), true},
		{"no leaf anywhere", opts(nil, chain[1]), false},
		{"leaf of another authority", opts(foreign[0], chain[1]), false},
		{"root of another authority", opts(chain[0], foreign[1]), false},
		{"root as leaf", opts(chain[1], chain[1]), false},
	} {
		_, err := verification.VerifyTimestampResponse(plain, bytes.NewReader(sig), c.opts)
		if (err == nil) != c.ok {
			t.Errorf("%s: got %v, want success %t", c.name, err, c.ok)
		}
	}
}

func TestTimestampVerifiesWithOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	ks := newKeyset(t, clock(testTime))
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert := func(c *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	sig := []byte("a signature")
	chain := ks.TSA().Chain()
	args := []string{"ts", "-verify", "-in", write("token.tsr", mustTimestamp(t, ks, sig)),
		"-CAfile", write("root.pem", cert(chain[1])), "-untrusted", write("leaf.pem", cert(chain[0])),
		"-attime", "1933135628"} // 2031-04-05
	out, err := exec.Command(openssl, append(args, "-data", write("sig", sig))...).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("Verification: OK")) {
		t.Errorf("openssl refuses: %v\n%s", err, out)
	}
	out, err = exec.Command(openssl, append(args, "-data", write("other", []byte("another")))...).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("message imprint mismatch")) {
		t.Errorf("openssl accepts a token over something else: %v\n%s", err, out)
	}
}

func TestTimestampRefuses(t *testing.T) {
	now := testTime
	ks := newKeyset(t, func() time.Time { return now })
	a := ks.TSA()
	leaf := a.Chain()[0]
	for _, c := range []struct {
		name string
		at   time.Time
		sig  string
		want refusal.Code
	}{
		{"second of creation", leaf.NotBefore, "sig", ""},
		{"before the chain", leaf.NotBefore.Add(-time.Second), "sig", CodeTimestampOutsideValidity},
		{"last second", leaf.NotAfter, "sig", ""},
		{"after the chain", leaf.NotAfter.Add(time.Second), "sig", CodeTimestampOutsideValidity},
		{"empty signature", testTime, "", CodeTimestampEmpty},
	} {
		now = c.at
		token, err := a.Timestamp(t.Context(), []byte(c.sig))
		if got := refusal.CodeOf(err); got != c.want || (err == nil) != (token != nil) {
			t.Errorf("%s: got %v, want code %q", c.name, err, c.want)
		}
		if c.want == "" && token != nil {
			if _, err := trustedRoot(t, ks).TimestampingAuthorities()[0].Verify(token, []byte(c.sig)); err != nil {
				t.Errorf("%s: sigstore-go refuses: %v", c.name, err)
			}
		}
	}
}

func TestTimestampChainRefused(t *testing.T) {
	key, err := newFileKey()
	if err != nil {
		t.Fatal(err)
	}
	caKey, err := newFileKey()
	if err != nil {
		t.Fatal(err)
	}
	start := testTime.Truncate(time.Second)
	issue := func(edit func(*x509.Certificate), parent *x509.Certificate, pub *FileKey) *x509.Certificate {
		usage, err := asn1.Marshal([]asn1.ObjectIdentifier{oidTimeStamping()})
		if err != nil {
			t.Fatal(err)
		}
		cert := &x509.Certificate{
			SerialNumber: randomSerial(), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: start, NotAfter: start.AddDate(1, 0, 0),
			BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtraExtensions: []pkix.Extension{{Id: oidExtKeyUsage(), Critical: true, Value: usage}},
		}
		edit(cert)
		if parent == nil {
			parent = cert
		}
		der, err := x509.CreateCertificate(nil, cert, parent, pub.Public(), caKey.private)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	ca := func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.KeyUsage, c.ExtraExtensions = "root", true, x509.KeyUsageCertSign, nil
	}
	top := issue(ca, nil, caKey)
	same := func(*x509.Certificate) {}
	leaf := func(edit func(*x509.Certificate)) []*x509.Certificate {
		return []*x509.Certificate{issue(edit, top, key), top}
	}
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		want  refusal.Code
	}{
		{"good", leaf(same), ""},
		{"empty", nil, CodeTimestampChainInvalid},
		{"leaf alone", leaf(same)[:1], CodeTimestampChainInvalid},
		{"another key", []*x509.Certificate{issue(same, top, caKey), top}, CodeTimestampChainInvalid},
		{"usage not critical", leaf(func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = false }), CodeTimestampChainInvalid},
		{"no usage", leaf(func(c *x509.Certificate) { c.ExtraExtensions = nil }), CodeTimestampChainInvalid},
		{"second usage", leaf(func(c *x509.Certificate) {
			c.ExtraExtensions = nil
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping, x509.ExtKeyUsageCodeSigning}
		}), CodeTimestampChainInvalid},
		{"second usage unknown", leaf(func(c *x509.Certificate) {
			c.ExtraExtensions = nil
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}
			c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}}
		}), CodeTimestampChainInvalid},
		{"leaf is a CA", leaf(func(c *x509.Certificate) { c.IsCA = true }), CodeTimestampChainInvalid},
		{"root is no CA", []*x509.Certificate{issue(same, top, key), issue(func(c *x509.Certificate) { c.Subject.CommonName = "root" }, nil, caKey)}, CodeTimestampChainInvalid},
		{"no root", []*x509.Certificate{issue(same, top, key), issue(same, top, caKey)}, CodeTimestampChainInvalid},
		{"root of another", []*x509.Certificate{issue(same, top, key), newKeyset(t, clock(testTime)).TSA().Chain()[1]}, CodeTimestampChainInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := NewTimestampAuthority(key, c.chain, clock(testTime)); refusal.CodeOf(err) != c.want {
				t.Errorf("got %v, want code %q", err, c.want)
			}
		})
	}
}

func BenchmarkTimestamp(b *testing.B) {
	ks := newKeyset(b, time.Now)
	sig := make([]byte, 71)
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		size = len(mustTimestamp(b, ks, sig))
	}
	b.ReportMetric(float64(size), "token-bytes")
}
