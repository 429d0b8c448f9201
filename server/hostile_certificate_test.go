package server_test

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc/codes"
)

// releaseName is what a certificate says of oidctest's job.
const releaseName = "https://github.com/octo-org/octo-app/.github/workflows/release.yml@refs/heads/main"

// leafOf is the certificate of a bundle.
func leafOf(t testing.TB, raw []byte) *x509.Certificate {
	t.Helper()
	parts, err := attest.ParseOwnBundle(raw)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(parts.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// namesOf are all names of a certificate, and the provider that vouched for them.
func namesOf(t testing.TB, leaf *x509.Certificate) (names []string, provider string) {
	t.Helper()
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	names = append(append(names, leaf.EmailAddresses...), leaf.DNSNames...)
	for _, e := range leaf.Extensions {
		if e.Id.String() == "1.3.6.1.4.1.57264.1.8" {
			if _, err := asn1.Unmarshal(e.Value, &provider); err != nil {
				t.Fatal(err)
			}
		}
	}
	return names, provider
}

// named wants that a bundle is of exactly one name and provider, for us and for
// sigstore-go, and of no other.
func (l *life) named(t testing.TB, raw []byte, name, provider string) {
	t.Helper()
	names, by := namesOf(t, leafOf(t, raw))
	if len(names) != 1 || names[0] != name || by != provider {
		t.Errorf("the certificate names %q of %s, want %q of %s", names, by, name, provider)
	}
	if _, err := l.trust(t).VerifyOwn(raw); err != nil {
		t.Error(err)
	}
	if err := l.sigstoreGo(t, raw, name, provider); err != nil {
		t.Errorf("sigstore-go: %v", err)
	}
	if l.sigstoreGo(t, raw, name+"x", provider) == nil || l.sigstoreGo(t, raw, name, provider+"x") == nil {
		t.Error("sigstore-go takes another name for it")
	}
}

// escaped is the path of a URI that means s, by RFC 3986 and not by net/url.
func escaped(s string) string {
	var out strings.Builder
	for _, b := range []byte(s) {
		if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~$&+,/:;=@", b) >= 0 {
			out.WriteByte(b)
		} else {
			fmt.Fprintf(&out, "%%%02X", b)
		}
	}
	return out.String()
}

// oddBranches are names that git takes for branches, more or less.
func oddBranches() []string {
	return []string{
		"main", "é", "%C3%A9", "e\u0301", "%c3%a9", "%00", "a%2Fb", "a/b", "a%252Fb", `quo"te`, "quo'te", "back`tick", "a&b;c", "a,b=c+d", "a#b", "a%23b", "100%",
		"日本語", "a!b$c(d)", "<script>", "{a|b}", "@main", "a@refs/heads/main", "main\u00a0", "\u202emain", "main ", "a b", "a+b", "a%20b", "main%", "%", "%%", "a?b", "a%3Fb",
		strings.Repeat("x", 1024), strings.Repeat("é", 512), strings.Repeat("x", 1900), strings.Repeat("%", 800),
	}
}

// TestCertificateNames: whatever a branch is called, its certificate names it and no other
// branch, or there is none.
func TestCertificateNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	gitLab := platform(t, w, oidctest.GitLabJob())
	l := w.start(t, shortCertificates, withGitLab(gitLab))
	const gitHubFile, gitLabFile = "octo-org/octo-app/.github/workflows/release.yml@refs/heads/", "octo-group/octo-app//.gitlab-ci.yml@refs/heads/"
	seen := make(map[string]string)
	attested := 0
	for _, branch := range oddBranches() {
		for issuer, tt := range map[*oidctest.Issuer]struct {
			claims oidctest.Claims
			want   string
		}{
			w.issuer: {oidctest.Claims{"job_workflow_ref": gitHubFile + branch, "workflow_ref": gitHubFile + branch}, "https://github.com/" + escaped(gitHubFile+branch)},
			gitLab:   {oidctest.Claims{"ci_config_ref_uri": "gitlab.example.com/" + gitLabFile + branch}, "https://gitlab.example.com/" + escaped(gitLabFile+branch)},
		} {
			name := branch
			if len(name) > 20 {
				name = fmt.Sprintf("%.6s of %d", branch, len(branch))
			}
			t.Run(name, func(t *testing.T) {
				session, err := l.exchange(t.Context(), issuer.Mint(w.instance, tt.claims))
				if err != nil {
					wantReason(t, err, codes.Unauthenticated, "TOKEN_CLAIM_INVALID")
					return
				}
				l.ctx = bearing(t.Context(), session.GetSessionToken())
				before := l.kept(t)
				result, err := l.tryDigests(subject("app", branch+tt.want))
				if err != nil {
					reason, _ := reasonOf(err)
					if reason != "PROVENANCE_WORKFLOW_REF_INVALID" { // no ref in it that git would take
						wantReason(t, err, codes.FailedPrecondition, "CA_IDENTITY_INVALID")
						if len(tt.want) <= 2048 {
							t.Errorf("%q of %d bytes was refused: %v", branch, len(tt.want), err)
						}
					}
					l.unchanged(t, before)
					return
				}
				attested++
				l.named(t, result.GetAttestation().GetBundle(), tt.want, issuer.URL())
				if other, known := seen[tt.want]; known {
					t.Errorf("%q and %q are both %s", other, branch, tt.want)
				}
				seen[tt.want] = branch
			})
		}
	}
	if attested < 40 {
		t.Errorf("only %d names were certified", attested)
	}
}

// TestCertificateCallers: a build of CodeBuild, a role, a person and the service itself
// are named as what they are.
func TestCertificateCallers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud, idp := newAWS(t, w), people(t, w)
	l := w.start(t, shortCertificates, withAWS(cloud), withPeople(idp), func(c *server.Config) {
		c.Access.Roles = append(c.Access.Roles, server.RoleConf{Role: "attestor", Members: []server.MemberConf{{RoleARN: cloud.Deploy.ARN()}}})
	})
	admin := l.session(t, person(idp, "root", "admin"))
	b := cloud.RunningBuild()
	const sts = "https://sts.amazonaws.com"
	l.ctx = bearing(t.Context(), l.buildSession(t, b))
	good := subject("app", "the app")
	l.named(t, l.upload(t, l.ctx, "app", "the app").GetAttestation().GetBundle(), cloud.Project.ARN, sts)
	if d := l.decide(t, "dev", good, "ALLOWED"); d.GetVerificationSummary() == nil {
		t.Error("no summary")
	} else {
		l.named(t, d.GetVerificationSummary(), w.instance+"/verifier", w.instance)
	}
	attach := func(session string) []byte {
		t.Helper()
		l.ctx = bearing(t.Context(), session)
		id := l.attach(t, good, cycloneDX("app", "pkg:npm/"+rand8(t)+"@1.0.0")).GetSboms()[0].GetAttestationId()
		return l.attestation(t, admin, id).GetBundle()
	}
	l.named(t, attach(l.roleSession(t, cloud.Deploy.Session("deploy-1"))), cloud.Deploy.ARN(), sts)
	for name, tt := range map[string]struct {
		claims oidctest.Claims
		want   string // "" where there is no certificate
	}{
		"address":           {oidctest.Claims{"email": "alice@example.com", "email_verified": true}, "alice@example.com"},
		"address with plus": {oidctest.Claims{"email": "alice+ci@example.com", "email_verified": true}, "alice+ci@example.com"},
		"not verified":      {oidctest.Claims{"email": "admin@example.com", "email_verified": false}, "urn:assay:subject:u-1"},
		"none":              {oidctest.Claims{}, "urn:assay:subject:u-1"},
		"odd subject":       {oidctest.Claims{"sub": "a/b c%é"}, "urn:assay:subject:a%2Fb%20c%25%C3%A9"},
		"with a name":       {oidctest.Claims{"email": "Alice <alice@example.com>", "email_verified": true}, ""},
		"quoted":            {oidctest.Claims{"email": `"alice\" "@example.com`, "email_verified": true}, ""},
		"two":               {oidctest.Claims{"email": "a@example.com, b@example.com", "email_verified": true}, ""},
		"unicode":           {oidctest.Claims{"email": "älice@example.com", "email_verified": true}, ""},
		"line break":        {oidctest.Claims{"email": "a@example.com\nb@example.com", "email_verified": true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			claims := oidctest.Claims{"aud": clientID, "sub": "u-1", "hd": "example.com", "groups": []string{"attestor", "security", "admin"}}
			session, err := l.exchange(t.Context(), idp.Forge(oidctest.Forgery{Claims: claims.With(tt.claims)}))
			if err != nil {
				wantReason(t, err, codes.Unauthenticated, "TOKEN_CLAIM_INVALID")
				if tt.want != "" {
					t.Error("no session")
				}
				return
			}
			if tt.want != "" {
				l.named(t, attach(session.GetSessionToken()), tt.want, idp.URL())
				return
			}
			before := l.kept(t)
			_, err = assayv1.NewAttestationServiceClient(l.conn).AttachEvidence(bearing(t.Context(), session.GetSessionToken()), &assayv1.AttachEvidenceRequest{
				Subject: good, PredicateType: attest.PredicateCycloneDX, Predicate: cycloneDX("app", "pkg:npm/"+rand8(t)+"@1.0.0"),
			})
			wantReason(t, err, codes.FailedPrecondition, "CA_IDENTITY_INVALID")
			l.unchanged(t, before)
		})
	}
}
