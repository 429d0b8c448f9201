package notary

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	nsignature "github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/jws"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ev, err := l.verifier.Verify(t.Context(), l.envelope, l.jws(t))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(l.envelope)
	if !ev.Valid() || ev.Profile() != testProfile || ev.ProfileVersion() != testVersion || ev.Job() != testJob ||
		!ev.SigningTime().Equal(l.clock.Now().Add(-time.Minute)) || !ev.Expiry().Equal(ev.SigningTime().Add(24*time.Hour)) ||
		ev.Revoked() || len(ev.RevokedEntities()) != 0 || ev.PredicateType() != attest.PredicateSLSAProvenanceV1 ||
		ev.EnvelopeSHA256() != hex.EncodeToString(sum[:]) {
		t.Errorf("got %+v", ev)
	}
	q := l.word.asked[0]
	if q.Region != testRegion || q.Job != testJob || q.ProfileVersion != testVersion || !q.SigningTime.Equal(ev.SigningTime()) {
		t.Errorf("asked %+v", q)
	}
	var own []string
	for _, cert := range l.authority.chain {
		own = append(own, sum384(cert.RawTBSCertificate))
	}
	want := []string{own[0] + own[1], own[1] + own[2], own[2] + own[3], own[3] + own[3]}
	if !slices.Equal(q.CertificateHashes, want) {
		t.Errorf("certificate hashes %q", q.CertificateHashes)
	}
}

// What notation-core-go signs, as AWS Signer would have it sign, verifies too.
func TestVerifyNotationCore(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, digest := range []string{"sha256:" + l.digest256(), "sha384:" + sum384(l.envelope)} {
		signed := l.notation(t, map[string]any{
			"mediaType": MediaTypeEnvelope, "digest": digest, "size": len(l.envelope),
			"annotations": map[string]string{AnnotationPredicateType: attest.PredicateSLSAProvenanceV1},
		})
		if _, err := l.verifier.Verify(t.Context(), l.envelope, signed); err != nil {
			t.Error(digest, err)
		}
	}
}

func (l *lab) digest256() string {
	sum := sha256.Sum256(l.envelope)
	return hex.EncodeToString(sum[:])
}

// notation has notation-core-go sign the descriptor.
func (l *lab) notation(tb testing.TB, target map[string]any) []byte {
	tb.Helper()
	key, err := nsignature.NewLocalSigner(l.authority.chain, l.authority.key)
	if err != nil {
		tb.Fatal(err)
	}
	critical := func(k, v string) nsignature.Attribute {
		return nsignature.Attribute{Key: k, Critical: true, Value: v}
	}
	signed, err := jws.NewEnvelope().Sign(&nsignature.SignRequest{
		Payload: nsignature.Payload{ContentType: contentType, Content: mustJSON(tb, map[string]any{"targetArtifact": target})},
		Signer:  key, SigningTime: l.clock.Now().Add(-time.Minute), Expiry: l.clock.Now().Add(time.Hour),
		SigningScheme: nsignature.SigningSchemeX509SigningAuthority, SigningAgent: "test/1",
		ExtendedSignedAttributes: []nsignature.Attribute{
			critical(headerPlugin, pluginName), critical(headerProfile, testVersion), critical(headerJob, testJob),
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return signed
}

func TestEvidenceZero(t *testing.T) {
	t.Parallel()
	for _, ev := range []*Evidence{nil, {}, {revoked: []string{"x"}}} {
		if ev.Valid() || ev.Revoked() || ev.Profile() != "" || ev.ProfileVersion() != "" || ev.Job() != "" || !ev.SigningTime().IsZero() ||
			!ev.Expiry().IsZero() || ev.RevokedEntities() != nil || ev.EnvelopeSHA256() != "" || ev.PredicateType() != "" {
			t.Errorf("%+v says something", ev)
		}
	}
}

// A signature that was accepted is refused once it has expired, or the clock is set back to
// before it was made, though its bytes are remembered.
func TestNowIsAskedEachTime(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	signed := l.jws(t)
	verify := func() error { _, err := l.verifier.Verify(t.Context(), l.envelope, signed); return err }
	wantCode(t, verify(), "")
	l.clock.Advance(-10 * time.Minute)
	wantCode(t, verify(), CodeTimeInvalid)
	l.clock.Advance(10*time.Minute + 23*time.Hour + 58*time.Minute)
	wantCode(t, verify(), "")
	l.clock.Advance(time.Minute)
	wantCode(t, verify(), CodeExpired)
	if n := l.verifier.known.Len(); n != 1 {
		t.Errorf("%d remembered", n)
	}
}

// A certificate that expires after signing does not take the signature with it.
func TestCertificateExpiresLater(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	d := l.draft(t)
	d.header[headerExpiry] = l.clock.Now().Add(10 * 365 * 24 * time.Hour).Format(time.RFC3339)
	signed := d.sign(t)
	l.clock.Advance(5 * 365 * 24 * time.Hour)
	if _, err := l.verifier.Verify(t.Context(), l.envelope, signed); err != nil {
		t.Error(err)
	}
}

func TestRootOfAnotherPartition(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	other := newAuthority(t, l.clock.Now(), changes{})
	v, err := NewVerifier(Trust{Roots: []*x509.Certificate{other.root, l.authority.root}, ProfileVersionARNs: []string{testProfile + "/0000000000", testVersion}},
		l.word, VerifierConfig{Now: l.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), l.envelope, l.jws(t)); err != nil {
		t.Error(err)
	}
}

func TestTrust(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	root, leaf, between := l.authority.root, l.authority.chain[0], l.authority.chain[1]
	roots := func(r ...*x509.Certificate) Trust { return Trust{r, []string{testVersion}} }
	versions := func(v ...string) Trust { return Trust{[]*x509.Certificate{root}, v} }
	for name, trust := range map[string]Trust{
		"nothing":             {},
		"no roots":            roots(),
		"a nil root":          roots(nil),
		"a leaf":              roots(leaf),
		"an intermediate":     roots(between),
		"a root twice":        roots(root, root),
		"no versions":         versions(),
		"a profile":           versions(testProfile),
		"a trailing slash":    versions(testProfile + "/"),
		"a wildcard":          versions("*"),
		"a wildcard version":  versions(testProfile + "/*"),
		"a wildcard name":     versions("arn:aws:signer:eu-west-1:111122223333:/signing-profiles/*/Ab3De5Gh7J"),
		"a short version":     versions(testProfile + "/Ab3"),
		"another service":     versions("arn:aws:kms:eu-west-1:111122223333:/signing-profiles/release/Ab3De5Gh7J"),
		"no account":          versions("arn:aws:signer:eu-west-1::/signing-profiles/release/Ab3De5Gh7J"),
		"a job":               versions(testJob),
		"a version twice":     versions(testVersion, testVersion),
		"one bad among good":  versions(testVersion, testProfile),
		"an unclean ARN":      versions(testVersion + " "),
		"a partition by half": versions("arn:awsx:signer:eu-west-1:111122223333:/signing-profiles/release/Ab3De5Gh7J"),
	} {
		_, err := NewVerifier(trust, l.word, VerifierConfig{})
		if refusal.CodeOf(err) != CodeTrustInvalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := NewVerifier(roots(root), nil, VerifierConfig{})
	wantCode(t, err, CodeTrustInvalid)
	for _, ttl := range []time.Duration{-1, 6 * time.Minute} {
		_, err := NewVerifier(roots(root), l.word, VerifierConfig{RevocationTTL: ttl})
		wantCode(t, err, CodeTrustInvalid)
	}
	if _, err := NewVerifier(roots(root), l.word, VerifierConfig{}); err != nil {
		t.Error(err)
	}
}

func BenchmarkVerifyWarm(b *testing.B) {
	l := newLab(b)
	signed := l.jws(b)
	b.ReportMetric(float64(len(signed)), "jws-bytes")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.verifier.Verify(b.Context(), l.envelope, signed); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyCold(b *testing.B) {
	l := newLab(b)
	signed := l.jws(b)
	b.ReportAllocs()
	for b.Loop() {
		l.verifier.known.Purge()
		if _, err := l.verifier.Verify(b.Context(), l.envelope, signed); err != nil {
			b.Fatal(err)
		}
	}
}
