package server_test

import (
	"context"
	"testing"

	cbtypes "github.com/aws/aws-sdk-go-v2/service/codebuild/types"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/verify"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
)

// TestTiers: with a key for each tier, what was only claimed, what a build was seen to make
// and what a role says are signed by different keys, whoever calls; and everything stands
// for whoever believes the keys.
func TestTiers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		role signing.Role
		edit func(*server.Config)
	}{
		{"keys", signing.RoleAttestation, func(*server.Config) {}},
		{"authorities", signing.RoleCA, inCertificateMode},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newKeyed(t, tt.edit)
			k.edits = append(k.edits, func(c *server.Config) {
				c.Access.Roles = []server.RoleConf{{Role: "attestor", Members: []server.MemberConf{{RoleARN: k.cloud.Deploy.ARN()}}}}
			})
			l := k.begin(t)
			for _, tier := range signing.Tiers()[1:] {
				k.change(t, signing.AddKey{Role: tt.role, Tier: tier, Ref: "file"})
			}
			job, role := l.ctx, bearing(t.Context(), l.roleSession(t, k.cloud.Deploy.Session("deploy")))
			build := k.cloud.RunningBuild()
			inJob := bearing(t.Context(), l.buildSession(t, build))
			finished := k.cloud.RunningBuild()
			finished.UploadFiles(map[string][]byte{"app": []byte("finished")})
			finished.Finish(cbtypes.StatusTypeSucceeded)
			made := func(name string, result *assayv1.AttestResult) issued {
				return issuedOf(t, subject(name, name), result.GetAttestation().GetBundle())
			}
			attestBuild := func(ctx context.Context) *assayv1.AttestResult {
				resp, err := assayv1.NewAttestationServiceClient(l.conn).AttestBuild(ctx, &assayv1.AttestBuildRequest{BuildArn: finished.ARN})
				if err != nil {
					t.Fatal(err)
				}
				return resp.GetResult()
			}
			cases := []struct {
				tier signing.Tier
				made issued
			}{
				{signing.TierClaimed, made("digests of a job", l.digests(t, job, subject("a", "a")))},
				{signing.TierBuild, made("upload of a job", l.upload(t, job, "b", "b"))},
				{signing.TierClaimed, made("digests of a build", l.digests(t, inJob, subject("c", "c")))},
				{signing.TierBuild, made("upload of a build", l.upload(t, inJob, "d", "d"))},
				{signing.TierBuild, made("a finished build", attestBuild(role))},
				{signing.TierRole, made("upload of a role", l.upload(t, role, "e", "e"))},
				{signing.TierClaimed, made("digests of a role", l.digests(t, role, subject("f", "f")))},
				{signing.TierClaimed, made("evidence of a role", attached(t, l, role, subject("e", "e")))},
			}
			now := l.snapshot(t, "now")
			for _, c := range cases {
				now.judged(t, c.made)
				if want := k.active(t, tt.role, c.tier); !k.madeBy(t, c.made, want) {
					t.Errorf("%s is not signed by the key of tier %q", c.made.subject.GetName(), c.tier)
				}
			}
			// A summary is the instance's own word.
			d := l.decide(t, "dev", subject("a", "a"), "ALLOWED")
			if !k.madeBy(t, issuedOf(t, subject("a", "a"), d.GetVerificationSummary()), k.active(t, tt.role, "")) {
				t.Error("a summary is not signed by the key of the default tier")
			}
			k.withoutTier(t, l, job, tt.role)
		})
	}
}

// withoutTier retires the key of a tier: the default's does its work again.
func (k *keyed) withoutTier(t *testing.T, l *life, job context.Context, role signing.Role) {
	t.Helper()
	k.change(t, signing.RetireKey{KeyID: k.active(t, role, signing.TierClaimed).KeyID})
	i := issuedOf(t, subject("later", "later"), l.digests(t, job, subject("later", "later")).GetAttestation().GetBundle())
	l.snapshot(t, "retired").judged(t, i)
	if !k.madeBy(t, i, k.active(t, role, "")) {
		t.Error("the default key does not take over from that of a tier")
	}
}

func attached(t *testing.T, l *life, ctx context.Context, s *assayv1.Subject) *assayv1.AttestResult {
	t.Helper()
	resp, err := assayv1.NewAttestationServiceClient(l.conn).AttachEvidence(ctx, &assayv1.AttachEvidenceRequest{
		Subject: s, PredicateType: attest.PredicateCycloneDX, Predicate: cycloneDX("b", "pkg:npm/left-pad@1.3.0"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetResult()
}

// madeBy says whether a key signed an attestation, or certified what certified the key
// that did.
func (k *keyed) madeBy(t testing.TB, i issued, key signing.KeyEntry) bool {
	t.Helper()
	if i.leaf == nil {
		hint, err := verify.Fingerprint(key.Public)
		if err != nil {
			t.Fatal(err)
		}
		return i.hint == hint
	}
	for _, c := range k.intermediates(t) {
		if i.leaf.CheckSignatureFrom(c) == nil {
			return c.CheckSignatureFrom(key.Chain[0]) == nil
		}
	}
	t.Errorf("%s: no intermediate has issued the certificate", i.subject.GetName())
	return false
}

// TestAliasMoved: an alias of AWS KMS that somebody leads to another key changes nothing
// until the operator rotates.
func TestAliasMoved(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	l := k.begin(t)
	service := k.cloud.World.Account(testenv.ServiceAccount)
	first, second := k.kms(p256), k.kms(p256)
	service.Alias(testenv.AWSRegion, "alias/assay", first)
	k.rotate(t, signing.RoleAttestation, "awskms:///arn:aws:kms:"+testenv.AWSRegion+":"+testenv.ServiceAccount+":alias/assay")
	made := []issued{l.attested(t, "before")}
	service.UpdateAlias(testenv.AWSRegion, "alias/assay", second)
	made = append(made, l.attested(t, "moved"))
	l.stop()
	l = k.begin(t)
	made = append(made, l.attested(t, "restarted"))
	old := k.active(t, signing.RoleAttestation, "")
	k.rotate(t, signing.RoleAttestation, "")
	made = append(made, l.attested(t, "rotated"))
	next := k.active(t, signing.RoleAttestation, "")
	if old.Ref != refOf(first) || next.Ref != refOf(second) || old.Alias == "" || next.Alias != old.Alias {
		t.Errorf("signed with %s, then with %s", old.Ref, next.Ref)
	}
	now := l.snapshot(t, "now")
	for n, i := range made {
		key := old
		if n == 3 {
			key = next
		}
		if !k.madeBy(t, i, key) {
			t.Errorf("%s is not signed by %s", i.subject.GetName(), key.Ref)
		}
		now.agreed(t, i, "")
		l.decide(t, "dev", i.subject, "ALLOWED")
	}
}
