package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	cbtypes "github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"google.golang.org/grpc/codes"
)

// byPartition leads the hosts of AWS in China to a stand-in of their own.
type byPartition struct{ global, china http.RoundTripper }

func (p byPartition) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Hostname(), ".amazonaws.com.cn") {
		return p.china.RoundTrip(r)
	}
	return p.global.RoundTrip(r)
}

// TestAccountsApart: what builds and roles of one account made, another account
// neither reads nor has attested, be the other one also allowed, and be it even of
// the same number in another partition, which is somebody else's.
func TestAccountsApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	twin := newCompany(cloud, "222233334444", "")
	auditor := cloud.World.Account(twin.id).Role("auditor", awstest.TrustService("lambda.amazonaws.com"))
	china, err := awstest.New(awstest.Config{Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(china.Close)
	chinese := china.AccountIn("aws-cn", testenv.AWSAccount).Role(testenv.AWSDeployRole, awstest.TrustService("lambda.amazonaws.com"))
	l := w.start(t, withAWS(cloud), withCompanies(twin), func(c *server.Config) {
		c.AWSTransport = byPartition{cloud.World.Transport(), china.Transport()}
		c.AWS.Accounts = append(c.AWS.Accounts, server.AWSAccountConf{
			ID: testenv.AWSAccount, Partition: "aws-cn", Regions: []string{"cn-north-1"}, AllowedRoles: []string{testenv.AWSDeployRole},
		})
	})
	a := l.digests(t, bearing(t.Context(), l.buildSession(t, cloud.RunningBuild())), subject("app", "app")).GetAttestation()
	resp, err := l.claims(t, claim{creds: chinese.Session("deploy-1"), region: "cn-north-1"})
	if err != nil {
		t.Fatal(err)
	}
	if r := resp.GetCaller().GetAwsRole(); r.GetRoleArn() != chinese.ARN() || resp.GetCaller().GetIssuer() != "https://sts.amazonaws.com.cn" {
		t.Errorf("the role of another partition is %v", resp.GetCaller())
	}
	for name, tt := range map[string]struct {
		session context.Context
		own     bool
	}{
		"another build of the account":    {bearing(t.Context(), l.buildSession(t, cloud.RunningBuild())), true},
		"a role of the account":           {bearing(t.Context(), l.roleSession(t, cloud.Deploy.Session("deploy-1"))), true},
		"a build of another account":      {bearing(t.Context(), l.buildSession(t, twin.running())), false},
		"a role of another account":       {bearing(t.Context(), l.roleSession(t, auditor.Session("deploy-1"))), false},
		"the number in another partition": {bearing(t.Context(), resp.GetSessionToken()), false},
	} {
		t.Run("read by "+name, func(t *testing.T) {
			audit := assayv1.NewAuditServiceClient(l.conn)
			_, err := audit.GetAttestation(tt.session, &assayv1.GetAttestationRequest{AttestationId: a.GetAttestationId()})
			list, listErr := audit.ListAttestations(tt.session, &assayv1.ListAttestationsRequest{Filter: `invocation_id = "` + a.GetInvocationId() + `"`})
			if listErr != nil || len(list.GetAttestations()) != oneIf(tt.own) {
				t.Errorf("the list shows %v, %v", list, listErr)
			}
			if !tt.own {
				wantReason(t, err, codes.NotFound, "NOT_FOUND")
			} else if err != nil {
				t.Error(err)
			}
		})
		t.Run("attested by "+name, func(t *testing.T) {
			b, before := cloud.FinishedBuild(map[string][]byte{"app": []byte(name)}), l.kept(t)
			_, err := assayv1.NewAttestationServiceClient(l.conn).AttestBuild(tt.session, &assayv1.AttestBuildRequest{BuildArn: b.ARN})
			if !tt.own {
				wantReason(t, err, codes.PermissionDenied, "ACCESS_DENIED")
				l.unchanged(t, before)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// gate holds every request until it is opened.
type gate struct {
	through http.RoundTripper
	arrived chan struct{}
	open    chan struct{}
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	g.arrived <- struct{}{}
	<-g.open
	return g.through.RoundTrip(r)
}

// TestProofsBusy: as many proofs as are allowed wait for STS; one more is refused at
// once, unseen, and is good later.
func TestProofsBusy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	g := &gate{through: cloud.World.Transport(), arrived: make(chan struct{}, 8), open: make(chan struct{})}
	l := w.start(t, withAWS(cloud), func(c *server.Config) { c.AWSTransport, c.AWS.MaxConcurrentProofs = g, 2 })
	waiting := make(chan error, 2)
	for range 2 {
		wire := l.signed(t, claim{creds: cloud.Deploy.Session("deploy-1")})
		go func() { _, err := l.submit(t.Context(), wire); waiting <- err }()
	}
	<-g.arrived
	<-g.arrived
	wire := l.signed(t, claim{creds: cloud.Deploy.Session("deploy-1")})
	_, err := l.submit(t.Context(), wire)
	wantReason(t, err, codes.Unavailable, "AWS_STS_BUSY")
	if k := l.kept(t); k != (kept{}) {
		t.Errorf("%+v is kept while nothing is known", k)
	}
	close(g.open)
	for range 2 {
		if err := <-waiting; err != nil {
			t.Error(err)
		}
	}
	if _, err := l.submit(t.Context(), wire); err != nil {
		t.Errorf("after the rush: %v", err)
	}
}

// TestAttestBuildHostile: a finished build is attested from what it uploaded, and
// from nothing that somebody else put in its place, and only if it succeeded.
func TestAttestBuildHostile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	ctx := bearing(t.Context(), l.roleSession(t, cloud.Deploy.Session("deploy-1")))
	ended := func(status cbtypes.StatusType) string {
		b := cloud.RunningBuild()
		if status == cbtypes.StatusTypeSucceeded {
			b.Upload("app", []byte("the app"))
		}
		b.Finish(status)
		return b.ARN
	}
	edited := func(change func(*cbtypes.Build)) string {
		b := cloud.FinishedBuild(map[string][]byte{"app": []byte("the app")})
		b.Edit(change)
		return b.ARN
	}
	twin := newCompany(cloud, "222233334444", "")
	theirs := twin.running()
	up := theirs.Upload("app", []byte("the app"))[0]
	for name, tt := range map[string]struct{ arn, reason string }{
		"running":                 {cloud.RunningBuild().ARN, "CODEBUILD_NOT_FINISHED"},
		"failed":                  {ended(cbtypes.StatusTypeFailed), "CODEBUILD_NOT_SUCCEEDED"},
		"stopped":                 {ended(cbtypes.StatusTypeStopped), "CODEBUILD_NOT_SUCCEEDED"},
		"timed out":               {ended(cbtypes.StatusTypeTimedOut), "CODEBUILD_NOT_SUCCEEDED"},
		"succeeded, not ended":    {edited(func(b *cbtypes.Build) { b.BuildComplete = false }), "CODEBUILD_NOT_FINISHED"},
		"without an end":          {edited(func(b *cbtypes.Build) { b.EndTime = nil }), "CODEBUILD_RECORD_INVALID"},
		"another digest":          {edited(func(b *cbtypes.Build) { b.Artifacts.Sha256sum = ptr(strings.Repeat("0", 64)) }), "CODEBUILD_ARTIFACT_DIGEST_MISMATCH"},
		"a digest that is none":   {edited(func(b *cbtypes.Build) { b.Artifacts.Sha256sum = ptr("x") }), "CODEBUILD_RECORD_INVALID"},
		"no artifacts":            {edited(func(b *cbtypes.Build) { b.Artifacts = nil }), "CODEBUILD_NO_ARTIFACTS"},
		"a location that is none": {edited(func(b *cbtypes.Build) { b.Artifacts.Location = ptr("https://evil.example/app.zip") }), "CODEBUILD_ARTIFACT_INVALID"},
		"of another project":      {edited(func(b *cbtypes.Build) { b.ProjectName = ptr("app2") }), "CODEBUILD_RECORD_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			before := l.kept(t)
			_, err := assayv1.NewAttestationServiceClient(l.conn).AttestBuild(ctx, &assayv1.AttestBuildRequest{BuildArn: tt.arn})
			wantReason(t, err, codes.FailedPrecondition, tt.reason)
			l.unchanged(t, before)
		})
	}
	// A bucket of another account is not read for this one's build, whoever may read it.
	cloud.Reader.AllowOn("s3:*", "arn:aws:s3:::"+up.Bucket, "arn:aws:s3:::"+up.Bucket+"/*")
	before := l.kept(t)
	_, err := assayv1.NewAttestationServiceClient(l.conn).AttestBuild(ctx, &assayv1.AttestBuildRequest{BuildArn: edited(func(b *cbtypes.Build) {
		b.Artifacts.Location, b.Artifacts.Sha256sum = ptr("arn:aws:s3:::"+up.Bucket+"/"+up.Key), &up.SHA256
	})})
	wantReason(t, err, codes.FailedPrecondition, "CODEBUILD_READER_DENIED")
	l.unchanged(t, before)
}

// TestAttestBuildRace: however many ask at a time for one finished build, there is one
// attestation of it.
func TestAttestBuildRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	b := cloud.FinishedBuild(map[string][]byte{"app": []byte("the app")})
	ids := make([]string, 12)
	var wg sync.WaitGroup
	for i := range ids {
		ctx := bearing(t.Context(), l.roleSession(t, cloud.Deploy.Session(fmt.Sprint("deploy-", i))))
		wg.Go(func() {
			resp, err := assayv1.NewAttestationServiceClient(l.conn).AttestBuild(ctx, &assayv1.AttestBuildRequest{BuildArn: b.ARN})
			if err != nil {
				t.Error(err)
			}
			ids[i] = resp.GetResult().GetAttestation().GetAttestationId()
		})
	}
	wg.Wait()
	if k := l.kept(t); len(slices.Compact(ids)) != 1 || k.Attestations != 1 || k.SBOMs != 1 || k.Pending != 0 {
		t.Errorf("%v, and %+v is kept", ids, k)
	}
}

func ptr[T any](v T) *T { return &v }

// TestAWSMisconfigured: CVE-2025-59048 began with a wildcard where an account stands.
// A configuration of AWS that would let in more than it names, or nobody, is refused
// as one, before anything is opened.
func TestAWSMisconfigured(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*server.AWSConf, *server.AWSAccountConf){
		"any account":                 func(_ *server.AWSConf, a *server.AWSAccountConf) { a.ID = "*" },
		"accounts that begin so":      func(_ *server.AWSConf, a *server.AWSAccountConf) { a.ID = "11112222333*" },
		"account of eleven digits":    func(_ *server.AWSConf, a *server.AWSAccountConf) { a.ID = "11112222333" },
		"account twice":               func(c *server.AWSConf, a *server.AWSAccountConf) { c.Accounts = append(c.Accounts, *a) },
		"unknown partition":           func(_ *server.AWSConf, a *server.AWSAccountConf) { a.Partition = "aws-*" },
		"region of another partition": func(_ *server.AWSConf, a *server.AWSAccountConf) { a.Regions = []string{"cn-north-1"} },
		"any region":                  func(_ *server.AWSConf, a *server.AWSAccountConf) { a.Regions = []string{"*"} },
		"no region":                   func(_ *server.AWSConf, a *server.AWSAccountConf) { a.Regions = nil },
		"any role":                    func(_ *server.AWSConf, a *server.AWSAccountConf) { a.AllowedRoles = []string{"*"} },
		"roles that begin so":         func(_ *server.AWSConf, a *server.AWSAccountConf) { a.AllowedRoles = []string{"deploy*"} },
		"role by its ARN": func(_ *server.AWSConf, a *server.AWSAccountConf) {
			a.AllowedRoles = []string{"arn:aws:iam::111122223333:role/deploy"}
		},
		"projects that begin so": func(_ *server.AWSConf, a *server.AWSAccountConf) { a.CodeBuildProjects = []string{"app*"} },
		"any project, and one":   func(_ *server.AWSConf, a *server.AWSAccountConf) { a.CodeBuildProjects = []string{"*", "app"} },
		"reader of another account": func(_ *server.AWSConf, a *server.AWSAccountConf) {
			a.ReaderRoleARN = "arn:aws:iam::444455556666:role/assay-reader"
		},
		"any reader": func(_ *server.AWSConf, a *server.AWSAccountConf) {
			a.ReaderRoleARN = "arn:aws:iam::111122223333:role/*"
		},
		"no external id":                 func(_ *server.AWSConf, a *server.AWSAccountConf) { a.ExternalID = "" },
		"session name of every build":    func(c *server.AWSConf, _ *server.AWSAccountConf) { c.CodeBuildSessionName = "AWSCodeBuild" },
		"session name with a pattern":    func(c *server.AWSConf, _ *server.AWSAccountConf) { c.CodeBuildSessionName = "*{uuid}" },
		"every variable in plain":        func(c *server.AWSConf, _ *server.AWSAccountConf) { c.PlaintextVariables = []string{"*"} },
		"trust that never ends":          func(c *server.AWSConf, _ *server.AWSAccountConf) { c.TrustPolicyTTL = 24 * time.Hour },
		"trust that ended before it was": func(c *server.AWSConf, _ *server.AWSAccountConf) { c.TrustPolicyTTL = -time.Second },
		"proofs without bound":           func(c *server.AWSConf, _ *server.AWSAccountConf) { c.MaxConcurrentProofs = 1 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "https://assay.test")
			cfg, _ := w.config(t, withAWS(newAWS(t, w)), func(c *server.Config) { edit(&c.AWS, &c.AWS.Accounts[0]) })
			if s, err := server.New(t.Context(), cfg); err == nil || s != nil || !errors.Is(err, server.ErrConfig) {
				t.Errorf("%v is not refused as a configuration", err)
			}
			if left, err := os.ReadDir(w.data); err != nil || len(left) != 0 {
				t.Errorf("%d files were made already (%v)", len(left), err)
			}
		})
	}
}

// TestTrustPolicyTTL: the longest time that docs/configuration.md allows is allowed.
func TestTrustPolicyTTL(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	w.start(t, withAWS(newAWS(t, w)), func(c *server.Config) { c.AWS.TrustPolicyTTL = 15 * time.Minute })
}
