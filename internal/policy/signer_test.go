package policy_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/notary"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/internal/verify"
)

// A Notary signature is a fact of the provenance that it is over, where it verified; what
// is not valid, or belongs to other evidence, is as if it were not there.
func TestSignerFacts(t *testing.T) {
	s := newSigner(t)
	writer, err := provenance.New(provenance.Config{Instance: instance})
	must(t, err)
	st, err := writer.Statement(caller(false), []attest.Subject{{Name: "app", Digest: map[string]string{"sha256": digest}}})
	must(t, err)
	bundle := s.sign(t, st)
	built, err := s.verifier.VerifyOwn(bundle)
	must(t, err)
	parts, err := attest.ParseOwnBundle(bundle)
	must(t, err)
	envelope := parts.Envelope.Marshal()

	w, err := awstest.New(awstest.Config{})
	must(t, err)
	t.Cleanup(w.Close)
	account := w.Account("111122223333")
	profile := account.SigningProfile("eu-west-1", "release", 0)
	role := account.Role("assay").Allow("signer:SignPayload", "signer:GetRevocationStatus")
	aws := w.AWSConfig(role.Session("assay"), "eu-west-1")
	revocations, err := notary.NewRevocations(aws, notary.RevocationsConfig{})
	must(t, err)
	verifier, err := notary.NewVerifier(notary.Trust{Roots: []*x509.Certificate{w.SignerRoot()}, ProfileVersionARNs: []string{profile.VersionARN()}},
		revocations, notary.VerifierConfig{RevocationTTL: time.Nanosecond})
	must(t, err)
	signer, err := notary.NewSigner(notary.SignerConfig{AWS: aws, Ref: "signer:///release", Verifier: verifier})
	must(t, err)
	jws, err := signer.Sign(t.Context(), envelope, st.PredicateType)
	must(t, err)
	good, err := verifier.Verify(t.Context(), envelope, jws)
	must(t, err)
	profile.Revoke(time.Now().Add(-time.Hour))
	revoked, err := verifier.Verify(t.Context(), envelope, jws)
	must(t, err)
	if !revoked.Revoked() {
		t.Fatal("the stand-in has not revoked the profile")
	}

	for _, tt := range []struct {
		name, condition string
		signature       *notary.Evidence
		want            bool
	}{
		{"none", `resource has signer`, nil, false},
		{"zero", `resource has signer`, new(notary.Evidence), false},
		{"there", `resource has signer && !resource.signer.revoked`, good, true},
		{"profile", `resource has signer && resource.signer.profile == "` + profile.ARN() + `"`, good, true},
		{"another profile", `resource has signer && resource.signer.profile == "arn:aws:signer:eu-west-1:111122223333:/signing-profiles/other"`, good, false},
		{"version", `resource has signer && resource.signer.profileVersion == "` + profile.VersionARN() + `"`, good, true},
		{"signed by now", `resource has signer && resource.signer.signedAt <= context.now`, good, true},
		{"revoked", `resource has signer && !resource.signer.revoked`, revoked, false},
		{"revoked and accepted", `resource has signer && resource.signer.revoked`, revoked, true},
	} {
		set, err := policy.Compile([]byte(signerRule(tt.condition)))
		must(t, err)
		if !set.ReadsSigner() || set.ReadsSBOM() {
			t.Errorf("%s: reads signer %t, SBOM %t", tt.name, set.ReadsSigner(), set.ReadsSBOM())
		}
		q := ask("prod", built)
		q.Signatures = map[*verify.Evidence]*notary.Evidence{built: tt.signature}
		d := set.Decide(q)
		if d.Allowed != tt.want {
			t.Errorf("%s: allowed %t (%s)", tt.name, d.Allowed, d.Message)
		}
		if found := d.Facts["signer.profile"] != ""; found != tt.signature.Valid() {
			t.Errorf("%s: facts %v", tt.name, d.Facts)
		}
	}

	// Of other evidence it is no fact.
	other, err := s.verifier.VerifyOwn(bundle)
	must(t, err)
	set, err := policy.Compile([]byte(signerRule("resource has signer")))
	must(t, err)
	q := ask("prod", built)
	q.Signatures = map[*verify.Evidence]*notary.Evidence{other: good}
	if d := set.Decide(q); d.Allowed {
		t.Error("a signature over other evidence was counted")
	}
	plain, err := policy.Compile([]byte(policy.DefaultPolicy()))
	must(t, err)
	if plain.ReadsSigner() {
		t.Error("the default policy asks AWS Signer")
	}
}

func signerRule(condition string) string {
	return `@id("signed")
@message("signed twice")
permit (principal, action == Assay::Action::"deploy", resource)
when { context.environment == "prod" && resource has provenance && ` + condition + ` };
`
}
