package server_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/stsproof"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild"
	cbtypes "github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
)

// prove exchanges a proof that creds sign, with a nonce of this service.
func (l *life) prove(t testing.TB, creds aws.Credentials, region, buildID string, edit ...func(*assayv1.StsProof)) (*assayv1.ExchangeResponse, error) {
	t.Helper()
	ids := assayv1.NewIdentityServiceClient(l.conn)
	ch, err := ids.Challenge(t.Context(), &assayv1.ChallengeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := stsproof.Sign(t.Context(), creds, region, ch.GetAudience(), ch.GetNonce(), buildID, l.world.now())
	if err != nil {
		t.Fatal(err)
	}
	wire := &assayv1.StsProof{
		AccessKeyId: p.AccessKeyID, Region: p.Region, Date: p.Date, SessionToken: p.SessionToken,
		Signature: p.Signature, Nonce: p.Nonce, BuildId: p.BuildID,
	}
	for _, e := range edit {
		e(wire)
	}
	return ids.Exchange(t.Context(), &assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_StsProof{StsProof: wire}})
}

func (l *life) buildSession(t testing.TB, b *awstest.Build) string {
	t.Helper()
	resp, err := l.prove(t, b.Credentials(), testenv.AWSRegion, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetSessionToken()
}

func (l *life) roleSession(t testing.TB, creds aws.Credentials) string {
	t.Helper()
	resp, err := l.prove(t, creds, testenv.AWSRegion, "")
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetSessionToken()
}

// TestCodeBuildInJob: a running build opens a session by its role alone, attests,
// and what it attested passes the rules for prod.
func TestCodeBuildInJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	b := cloud.RunningBuild()
	resp, err := l.prove(t, b.Credentials(), testenv.AWSRegion, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	c := resp.GetCaller()
	if c.GetKind() != assayv1.CallerKind_CALLER_KIND_CODEBUILD || c.GetCodebuild().GetBuildArn() != b.ARN || c.GetCodebuild().GetMode() != "in-job" ||
		c.GetBuilderId() != w.instance+"/builders/codebuild/in-job" || c.GetSlsaBuildLevel() != 2 || len(c.GetDowngrades()) != 0 {
		t.Errorf("caller %v", c)
	}
	l.ctx = bearing(t.Context(), resp.GetSessionToken())
	a := l.upload(t, l.ctx, "app", "the app").GetAttestation()
	if a.GetInvocationId() != b.ARN || a.GetBuilderId() != c.GetBuilderId() || a.GetSlsaBuildLevel() != 2 ||
		a.GetBuildType() != "https://assay.build/buildtypes/codebuild/v1" {
		t.Errorf("attestation %v", a)
	}
	st := statementOf(t, a.GetBundle())
	if !strings.Contains(string(st.Predicate), b.ARN) || strings.Contains(string(st.Predicate), b.Credentials().SessionToken) {
		t.Errorf("predicate %s", st.Predicate)
	}
	sum := sha256.Sum256([]byte("the app"))
	l.decide(t, "prod", digests("app", hex.EncodeToString(sum[:]))[0], "ALLOWED")
}

// TestAttestBuild: a finished build is attested from its record and its bytes in
// S3, whoever of its account asks.
func TestAttestBuild(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	l.ctx = bearing(t.Context(), l.roleSession(t, cloud.Deploy.Session("deploy-1")))
	b := cloud.RunningBuild()
	uploaded := b.UploadFiles(map[string][]byte{"app": []byte("the app")})
	service := assayv1.NewAttestationServiceClient(l.conn)
	_, err := service.AttestBuild(l.ctx, &assayv1.AttestBuildRequest{BuildArn: b.ARN})
	wantReason(t, err, codes.FailedPrecondition, "CODEBUILD_NOT_FINISHED")
	b.Finish(cbtypes.StatusTypeSucceeded)
	resp, err := service.AttestBuild(l.ctx, &assayv1.AttestBuildRequest{BuildArn: b.ARN})
	if err != nil {
		t.Fatal(err)
	}
	a := resp.GetResult().GetAttestation()
	if a.GetBuilderId() != w.instance+"/builders/codebuild/post-build" || a.GetSlsaBuildLevel() != 3 || len(a.GetDowngrades()) != 0 ||
		len(a.GetSubjects()) != 1 || a.GetSubjects()[0].GetDigest()["sha256"] != uploaded[0].SHA256 ||
		a.GetSubjects()[0].GetName() != uploaded[0].Bucket+"/"+uploaded[0].Key ||
		a.GetSubjects()[0].GetOrigin() != assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED {
		t.Errorf("attestation %v", a)
	}
	again, err := service.AttestBuild(l.ctx, &assayv1.AttestBuildRequest{BuildArn: b.ARN})
	if err != nil || !again.GetResult().GetRepeated() || again.GetResult().GetAttestation().GetAttestationId() != a.GetAttestationId() {
		t.Errorf("the second time: %v, %v", again, err)
	}
	l.decide(t, "prod", digests("app", uploaded[0].SHA256)[0], "ALLOWED")

	// The object is replaced after the build: the version that was written by it is gone.
	other := cloud.RunningBuild()
	replaced := other.UploadFiles(map[string][]byte{"app": []byte("another")})
	other.Finish(cbtypes.StatusTypeSucceeded)
	cloud.Bucket.Put(replaced[0].Key, []byte("evil"))
	_, err = service.AttestBuild(l.ctx, &assayv1.AttestBuildRequest{BuildArn: other.ARN})
	if err == nil { // the build's own version may still be read; then it must be that one
		return
	}
	wantReason(t, err, codes.FailedPrecondition, "CODEBUILD_ARTIFACT_DIGEST_MISMATCH")
}

// TestAttestBuildOnce: a finished build does not change, so it is fetched once,
// however often and by however many it is asked for.
func TestAttestBuildOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	l.ctx = bearing(t.Context(), l.roleSession(t, cloud.Deploy.Session("deploy-1")))
	b := cloud.FinishedBuild(map[string][]byte{"app": []byte("the app")})
	ids := make(chan string, 20)
	var group errgroup.Group
	for range cap(ids) {
		group.Go(func() error {
			resp, err := assayv1.NewAttestationServiceClient(l.conn).AttestBuild(l.ctx, &assayv1.AttestBuildRequest{BuildArn: b.ARN})
			ids <- resp.GetResult().GetAttestation().GetAttestationId()
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	first := <-ids
	for range cap(ids) - 1 {
		if id := <-ids; id != first {
			t.Errorf("two attestations of one build: %s and %s", first, id)
		}
	}
	if n := len(cloud.World.Requests("s3", "GetObject")); n != 1 {
		t.Errorf("the artifact was fetched %d times", n)
	}
}

// TestOverriddenBuildInProd: who may start a build of an allowed project does not
// thereby choose what prod runs.
func TestOverriddenBuildInProd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	b := cloud.Project.StartBuild(awstest.StartBuild{StartBuildInput: codebuild.StartBuildInput{
		SourceLocationOverride: aws.String("https://github.com/mallory/evil.git"),
		BuildspecOverride:      aws.String("version: 0.2"),
		ImageOverride:          aws.String("mallory/image:latest"),
	}})
	b.Advance(cbtypes.BuildPhaseTypeBuild)
	l.ctx = bearing(t.Context(), l.buildSession(t, b))
	a := l.upload(t, l.ctx, "app", "evil").GetAttestation()
	subject := digests("app", a.GetSubjects()[0].GetDigest()["sha256"])[0]
	d := l.decide(t, "prod", subject, "DENIED_BY_RULE")
	if got := unmet(d); !slices.Equal(got, []string{"prod-no-overrides"}) {
		t.Errorf("unmet %v", got)
	}
	if !strings.Contains(d.GetFacts()["provenance.overrides"], "source.location") {
		t.Errorf("facts %v", d.GetFacts())
	}
}

// TestAttestBuildOfOthers: a build of an account is no business of another's.
func TestAttestBuildOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	idp := people(t, w)
	l := w.start(t, withAWS(cloud), withPeople(idp)).login(t)
	b := cloud.FinishedBuild(map[string][]byte{"app": []byte("the app")})
	service := assayv1.NewAttestationServiceClient(l.conn)
	for name, ctx := range map[string]context.Context{"GitHub job": l.ctx, "person": l.session(t, person(idp, "p"))} {
		t.Run(name, func(t *testing.T) {
			_, err := service.AttestBuild(ctx, &assayv1.AttestBuildRequest{BuildArn: b.ARN})
			wantReason(t, err, codes.PermissionDenied, "ACCESS_DENIED")
		})
	}
	if _, err := service.AttestBuild(l.session(t, person(idp, "q", "attestor")), &assayv1.AttestBuildRequest{BuildArn: b.ARN}); err != nil {
		t.Errorf("an attestor: %v", err)
	}
	for name, arn := range map[string]string{
		"account": strings.Replace(b.ARN, testenv.AWSAccount, "222233334444", 1),
		"region":  strings.Replace(b.ARN, testenv.AWSRegion, "us-east-1", 1),
		"project": strings.Replace(b.ARN, "build/app:", "build/other:", 1),
		"none":    "arn:aws:codebuild:eu-central-1:111122223333:build/app",
		"text":    "app",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := service.AttestBuild(l.session(t, person(idp, "q", "attestor")), &assayv1.AttestBuildRequest{BuildArn: arn})
			want := map[string]string{"account": "CODEBUILD_ACCOUNT_NOT_ALLOWED", "region": "CODEBUILD_REGION_NOT_ALLOWED", "project": "CODEBUILD_PROJECT_NOT_ALLOWED"}[name]
			code := codes.PermissionDenied
			if want == "" {
				want, code = "CODEBUILD_BUILD_ID_INVALID", codes.InvalidArgument
			}
			wantReason(t, err, code, want)
		})
	}
	if k := l.kept(t); k.Attestations != 1 || k.SBOMs != 1 {
		t.Errorf("%+v is kept; want the attestor's", k)
	}
}
