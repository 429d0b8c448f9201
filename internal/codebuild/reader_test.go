package codebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	good := func() Config {
		return Config{Accounts: []Account{{
			ID: testAccount, Regions: []string{testRegion}, Projects: []string{"app"},
			ReaderRoleARN: "arn:aws:iam::111122223333:role/path/assay-reader", ExternalID: testExternalID,
		}}}
	}
	for name, c := range map[string]struct {
		edit func(*Config)
		want refusal.Code
	}{
		"good":          {func(*Config) {}, ""},
		"no accounts":   {func(c *Config) { c.Accounts = nil }, ""},
		"every project": {func(c *Config) { c.Accounts[0].Projects = []string{"*"} }, ""},
		"China": {func(c *Config) {
			c.Accounts[0].Partition, c.Accounts[0].Regions, c.Accounts[0].ReaderRoleARN = "aws-cn", []string{"cn-north-1"}, "arn:aws-cn:iam::111122223333:role/r"
		}, ""},
		"own session name":       {func(c *Config) { c.SessionName = "build-{uuid}" }, ""},
		"short account":          {func(c *Config) { c.Accounts[0].ID = "1" }, CodeConfigInvalid},
		"any account":            {func(c *Config) { c.Accounts[0].ID = "*" }, CodeConfigInvalid},
		"account twice":          {func(c *Config) { c.Accounts = append(c.Accounts, c.Accounts[0]) }, CodeConfigInvalid},
		"partition unknown":      {func(c *Config) { c.Accounts[0].Partition = "aws-evil" }, CodeConfigInvalid},
		"no regions":             {func(c *Config) { c.Accounts[0].Regions = nil }, CodeConfigInvalid},
		"any region":             {func(c *Config) { c.Accounts[0].Regions = []string{"*"} }, CodeConfigInvalid},
		"region elsewhere":       {func(c *Config) { c.Accounts[0].Regions = []string{"cn-north-1"} }, CodeConfigInvalid},
		"region a host":          {func(c *Config) { c.Accounts[0].Regions = []string{"eu-west-1.evil.example"} }, CodeConfigInvalid},
		"no reader":              {func(c *Config) { c.Accounts[0].ReaderRoleARN = "" }, CodeConfigInvalid},
		"reader elsewhere":       {func(c *Config) { c.Accounts[0].ReaderRoleARN = "arn:aws:iam::444455556666:role/r" }, CodeConfigInvalid},
		"no external id":         {func(c *Config) { c.Accounts[0].ExternalID = "" }, CodeConfigInvalid},
		"no projects":            {func(c *Config) { c.Accounts[0].Projects = nil }, CodeConfigInvalid},
		"project pattern":        {func(c *Config) { c.Accounts[0].Projects = []string{"app-*"} }, CodeConfigInvalid},
		"every project and more": {func(c *Config) { c.Accounts[0].Projects = []string{"app", "*"} }, CodeConfigInvalid},
		"session name fixed":     {func(c *Config) { c.SessionName = "AWSCodeBuild" }, CodeConfigInvalid},
		"uuid twice":             {func(c *Config) { c.SessionName = "{uuid}{uuid}" }, CodeConfigInvalid},
		"other placeholder":      {func(c *Config) { c.SessionName = "{project}-{uuid}" }, CodeConfigInvalid},
		"session name long":      {func(c *Config) { c.SessionName = strings.Repeat("a", 40) + "{uuid}" }, CodeConfigInvalid},
		"session name odd":       {func(c *Config) { c.SessionName = "a/{uuid}" }, CodeConfigInvalid},
		"variables pattern":      {func(c *Config) { c.PlaintextVariables = []string{"*"} }, CodeConfigInvalid},
		"trust for ever":         {func(c *Config) { c.TrustTTL = time.Hour }, CodeConfigInvalid},
		"trust negative":         {func(c *Config) { c.TrustTTL = -1 }, CodeConfigInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good()
			c.edit(&cfg)
			_, err := New(cfg)
			wantCode(t, err, c.want)
			quiet(t, "the refusal", fmt.Sprint(err), testExternalID)
		})
	}
}

// TestAWSFails: whatever fails, at whichever of the services, nothing passes.
func TestAWSFails(t *testing.T) {
	t.Parallel()
	builds := func(s string) awstest.Fault {
		return awstest.Fault{Service: "codebuild", Action: "BatchGetBuilds", Body: []byte(s), Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}}}
	}
	for name, c := range map[string]struct {
		fault awstest.Fault
		want  refusal.Code
	}{
		"STS throttles":        {awstest.Fault{Service: "sts", Status: 400, Code: "Throttling"}, CodeUnavailable},
		"STS is down":          {awstest.Fault{Service: "sts", Status: 503, Code: "ServiceUnavailable"}, CodeUnavailable},
		"STS denies":           {awstest.Fault{Service: "sts", Status: 403, Code: "AccessDenied"}, CodeReaderDenied},
		"CodeBuild throttles":  {awstest.Fault{Service: "codebuild", Status: 400, Code: "ThrottlingException"}, CodeUnavailable},
		"CodeBuild is down":    {awstest.Fault{Service: "codebuild", Status: 500, Code: "InternalFailure"}, CodeUnavailable},
		"CodeBuild denies":     {awstest.Fault{Service: "codebuild", Status: 400, Code: "AccessDeniedException"}, CodeReaderDenied},
		"projects denied":      {awstest.Fault{Service: "codebuild", Action: "BatchGetProjects", Status: 400, Code: "AccessDeniedException"}, CodeReaderDenied},
		"projects throttle":    {awstest.Fault{Service: "codebuild", Action: "BatchGetProjects", Status: 400, Code: "ThrottlingException"}, CodeUnavailable},
		"CodeBuild hangs up":   {awstest.Fault{Service: "codebuild", CloseConnection: true}, CodeUnavailable},
		"half an answer":       {awstest.Fault{Service: "codebuild", Truncate: true}, CodeUnavailable},
		"CodeBuild redirects":  {awstest.Fault{Service: "codebuild", Redirect: "https://codebuild.us-east-1.amazonaws.com/", Status: 307}, CodeUnavailable},
		"IAM throttles":        {awstest.Fault{Service: "iam", Status: 400, Code: "Throttling"}, CodeUnavailable},
		"IAM is down":          {awstest.Fault{Service: "iam", Status: 503, Code: "ServiceUnavailable"}, CodeUnavailable},
		"IAM denies":           {awstest.Fault{Service: "iam", Status: 403, Code: "AccessDenied"}, CodeReaderDenied},
		"IAM knows no role":    {awstest.Fault{Service: "iam", Status: 404, Code: "NoSuchEntity"}, CodeRoleMismatch},
		"IAM answers nothing":  {awstest.Fault{Service: "iam", Body: []byte("<GetRoleResponse/>"), Header: http.Header{"Content-Type": {"text/xml"}}}, CodeUnavailable},
		"not JSON":             {builds("<html>"), CodeUnavailable},
		"empty":                {builds("{}"), CodeBuildNotFound},
		"null":                 {builds(`{"builds":null}`), CodeBuildNotFound},
		"two builds":           {builds(`{"builds":[{},{}]}`), CodeBuildAmbiguous},
		"found and not":        {builds(`{"builds":[{}],"buildsNotFound":["app:x"]}`), CodeBuildAmbiguous},
		"a build of no fields": {builds(`{"builds":[{}]}`), CodeRecordInvalid},
		"another build":        {builds(`{"builds":[{"arn":"` + testARN.String() + `","id":"` + testARN.ID() + `","projectName":"app"}]}`), CodeRecordInvalid},
		"two projects":         {awstest.Fault{Service: "codebuild", Action: "BatchGetProjects", Body: []byte(`{"projects":[{},{}]}`)}, CodeBuildAmbiguous},
		"no project":           {awstest.Fault{Service: "codebuild", Action: "BatchGetProjects", Body: []byte(`{"projectsNotFound":["app"]}`)}, CodeProjectNotFound},
		"another project":      {awstest.Fault{Service: "codebuild", Action: "BatchGetProjects", Body: []byte(`{"projects":[{"arn":"` + strings.Replace(testARN.ProjectARN(), testAccount, otherAccount, 1) + `","name":"app"}]}`)}, CodeRecordInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			b := e.start()
			r := e.New(t)
			e.world.Fail(c.fault)
			got, err := r.InJob(ctx(t), e.proof(b))
			wantCode(t, err, c.want)
			if got != nil {
				t.Error("a refusal comes with a build")
			}
			quiet(t, "the refusal", fmt.Sprint(err), "assay-reader", testExternalID, "ASIA", serviceAccount)
			quiet(t, "the log", e.log.String(), testExternalID, "ASIA")
			if c.fault.Redirect != "" && len(e.world.Requests("codebuild", "")) != 1 {
				t.Errorf("the redirect was followed: %+v", e.world.Requests("codebuild", ""))
			}
			// Nothing of a failure is remembered.
			e.world.Heal()
			if _, err := r.InJob(ctx(t), e.proof(b)); err != nil {
				t.Errorf("healed, and yet %v", err)
			}
		})
	}
}

// TestAnswerTooLong: an answer without end is given up, as one of the SDK's own
// errors, and told apart from an outage. It is made in this process: how a
// connection ends that nobody reads to its end is the network's affair.
func TestAnswerTooLong(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	b := e.start()
	honest := e.world.HTTPClient()
	r := e.New(t, func(c *Config) {
		c.AWS.HTTPClient = clientFunc(func(req *http.Request) (*http.Response, error) {
			if !strings.HasPrefix(req.URL.Host, "codebuild.") {
				return honest.Do(req)
			}
			body := io.MultiReader(strings.NewReader(`{"builds":[],"x":"`), io.LimitReader(repeat('x'), maxAnswerBytes), strings.NewReader(`"}`))
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(body)}, nil
		})
	})
	_, err := r.InJob(ctx(t), e.proof(b))
	wantCode(t, err, CodeRecordTooLarge)
}

// TestReaderRole: permissions and trust of the reader role are AWS's to check.
func TestReaderRole(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	b := e.start()
	_, err := e.New(t, func(c *Config) { c.Accounts[0].ExternalID = "another" }).InJob(ctx(t), e.proof(b))
	wantCode(t, err, CodeReaderDenied)
	bare := e.account.Role("bare-reader", awstest.TrustAWS(testExternalID, e.service.ARN())).Allow("codebuild:BatchGetBuilds", "codebuild:BatchGetProjects")
	e.service.AllowOn("sts:AssumeRole", bare.ARN())
	r := e.New(t, func(c *Config) { c.Accounts[0].ReaderRoleARN = bare.ARN() })
	_, err = r.InJob(ctx(t), e.proof(b)) // no iam:GetRole
	wantCode(t, err, CodeReaderDenied)
	b.Upload("x", []byte("x"))
	b.Finish(types.StatusTypeSucceeded)
	finished, err := r.Finished(ctx(t), b.ARN)
	wantCode(t, err, "")
	_, err = r.Fetch(ctx(t), finished, 1<<20, 10, nil)
	wantCode(t, err, CodeReaderDenied)
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	b := e.start()
	c, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := e.New(t).InJob(c, e.proof(b))
	wantCode(t, err, CodeUnavailable)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not say that it was cancelled", err)
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	b := e.start()
	e.world.Fail(awstest.Fault{Service: "codebuild", Status: 500, Code: "InternalFailure", Times: 1})
	r := e.New(t, func(c *Config) { c.AWS.RetryMaxAttempts = 3 })
	if _, err := r.InJob(ctx(t), e.proof(b)); err != nil {
		t.Error(err)
	}
}

// TestInterleaved: of many builds at once each is told as itself.
func TestInterleaved(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	r := e.New(t)
	builds := make([]*awstest.Build, 30)
	for i := range builds {
		builds[i] = e.start(awstest.StartBuild{Commit: fmt.Sprintf("%040x", i)})
	}
	var wg sync.WaitGroup
	for i, b := range builds {
		wg.Go(func() {
			got, err := r.InJob(ctx(t), e.proof(b))
			if err != nil || got.ARN != b.ARN || got.UUID != b.UUID || got.Source.Commit != fmt.Sprintf("%040x", i) || got.Number != int64(i+1) {
				t.Errorf("%+v, %v", got, err)
			}
			p := e.proof(b)
			p.BuildID = builds[(i+1)%len(builds)].ID
			_, err = r.InJob(ctx(t), p)
			wantCode(t, err, CodeSessionMismatch)
		})
	}
	wg.Wait()
}

type clientFunc func(*http.Request) (*http.Response, error)

func (f clientFunc) Do(req *http.Request) (*http.Response, error) { return f(req) }

// repeat reads as one byte, for ever.
type repeat byte

func (r repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r)
	}
	return len(p), nil
}

func TestTrustsBounded(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	r := e.New(t)
	for i := range maxTrusts {
		r.trusts[trustKey{name: fmt.Sprint(i)}] = trust{}
	}
	if _, err := r.InJob(ctx(t), e.proof(e.start())); err != nil || len(r.trusts) != 1 {
		t.Errorf("%d trusts, %v", len(r.trusts), err)
	}
}
