package codebuild

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

const (
	testAccount    = "111122223333"
	otherAccount   = "444455556666"
	serviceAccount = "999900001111"
	testRegion     = "eu-west-1"
	testExternalID = "external-id-canary-7f3a"
	testUUID       = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
)

var testARN = ARN{Partition: "aws", Region: testRegion, Account: testAccount, Project: "app", UUID: testUUID}

func wantCode(tb testing.TB, err error, want refusal.Code) {
	tb.Helper()
	if got := refusal.CodeOf(err); got != want || (err != nil) != (want != "") {
		tb.Errorf("got %v; want code %q", err, want)
	}
}

// clock is an injected clock. It starts at the real time, by which the SDK signs.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// env is an AWS with a project, its bucket, and a Reader that may read them.
type env struct {
	clock   *clock
	world   *awstest.World
	account *awstest.Account
	reader  *awstest.Role // in account
	service *awstest.Role // what the service runs as, in an account of its own
	role    *awstest.Role // what builds run as
	project *awstest.BuildProject
	bucket  *awstest.Bucket
	log     *logBuffer
	config  Config
}

func newEnv(tb testing.TB, edit ...func(*awstest.Project)) *env {
	tb.Helper()
	e := &env{clock: &clock{t: time.Now()}, log: &logBuffer{}}
	var err error
	e.world, err = awstest.New(awstest.Config{Now: e.clock.Now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(e.world.Close)
	e.account = e.world.Account(testAccount)
	e.service = e.world.Account(serviceAccount).Role("assayd", awstest.TrustService("ecs-tasks.amazonaws.com"))
	e.reader = e.newReader(e.account)
	e.service.AllowOn("sts:AssumeRole", e.reader.ARN())
	e.role = e.account.Role("codebuild-app", awstest.TrustService(codeBuildService), awstest.Path("/service-role/"))
	e.bucket = e.account.Bucket(testRegion, "app-artifacts", awstest.Versioned(true))
	spec := awstest.Project{Name: "app", ServiceRole: e.role, Artifacts: types.ProjectArtifacts{
		Type: types.ArtifactsTypeS3, Location: aws.String("app-artifacts"), Packaging: types.ArtifactPackagingZip,
		NamespaceType: types.ArtifactNamespaceBuildId, Name: aws.String("app.zip"),
	}}
	for _, f := range edit {
		f(&spec)
	}
	e.project = e.account.Project(testRegion, spec)
	e.clock.Advance(time.Second)
	e.config = Config{
		Accounts: []Account{{
			ID: testAccount, Regions: []string{testRegion, "us-east-1"}, Projects: []string{"app"},
			ReaderRoleARN: e.reader.ARN(), ExternalID: testExternalID,
		}},
		PlaintextVariables: []string{"STAGE", "API_TOKEN"},
		AWS:                e.world.AWSConfig(e.service.Session("assayd"), "eu-central-1"),
		Now:                e.clock.Now,
		Logger:             slog.New(slog.NewJSONHandler(e.log, nil)),
	}
	e.config.AWS.RetryMaxAttempts = 1
	return e
}

func (e *env) newReader(a *awstest.Account) *awstest.Role {
	return a.Role("assay-reader", awstest.TrustAWS(testExternalID, e.service.ARN())).Allow(
		"codebuild:BatchGetBuilds", "codebuild:BatchGetProjects", "iam:GetRole",
		"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucketVersions")
}

func (e *env) New(tb testing.TB, edit ...func(*Config)) *Reader {
	tb.Helper()
	cfg := e.config
	cfg.Accounts = slices.Clone(cfg.Accounts)
	for _, f := range edit {
		f(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// start starts a build and lets it run its commands.
func (e *env) start(in ...awstest.StartBuild) *awstest.Build {
	in = append(in, awstest.StartBuild{})
	b := e.project.StartBuild(in[0])
	e.clock.Advance(time.Second)
	b.Advance(types.BuildPhaseTypeBuild)
	return b
}

// proof is what STS says of the job of b, if it runs as e.role.
func (e *env) proof(b *awstest.Build) Proof {
	return Proof{
		Partition: "aws", Account: testAccount, Region: testRegion, RoleName: e.role.Name(), UniqueID: e.role.UniqueID(),
		SessionName: "AWSCodeBuild-" + b.UUID, SignedAt: e.clock.Now(), BuildID: b.ID,
	}
}

func fields(overrides []Override) []string {
	var out []string
	for _, o := range overrides {
		out = append(out, o.Field)
	}
	return out
}

// quiet fails if anything of the canaries is in the text.
func quiet(tb testing.TB, what, text string, canaries ...string) {
	tb.Helper()
	for _, c := range canaries {
		if strings.Contains(text, c) {
			tb.Errorf("%s tells %q: %s", what, c, text)
		}
	}
}

func ctx(tb testing.TB) context.Context {
	c, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	tb.Cleanup(cancel)
	return c
}
