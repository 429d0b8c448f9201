package client

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/assay-build/assay/client/clienttest"
	"github.com/assay-build/assay/internal/stsproof"
	"github.com/assay-build/assay/internal/testenv/awstest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

const (
	testRegion    = "eu-west-1"
	testBuildARN  = "arn:aws:codebuild:eu-west-1:111122223333:build/app:6e1f4a4c-1c4b-4a0a-9d51-0f7a1f6d2c11"
	buildSession  = "AWSCodeBuild-6e1f4a4c-1c4b-4a0a-9d51-0f7a1f6d2c11"
	testAccount   = "111122223333"
	webTag        = "codebuild-build-arn"
	webCanary     = "CANARYsession"
	testServerURL = "https://assay.example.com"
)

func newWorld(tb testing.TB) *awstest.World {
	tb.Helper()
	w, err := awstest.New(awstest.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.Close)
	return w
}

func buildRole(w *awstest.World) *awstest.Role {
	return w.Account(testAccount).Role("codebuild-app", awstest.TrustService("codebuild.amazonaws.com"))
}

// jobEnv is what a job of CodeBuild sees, credentials of another role in the
// environment included, as a buildspec that deploys may have left them.
func jobEnv(w *awstest.World, creds aws.Credentials) map[string]string {
	other := w.Account("444455556666").Role("deploy", awstest.TrustService("codebuild.amazonaws.com")).Session("deploying")
	return map[string]string{
		envBuildARN: testBuildARN, envFullURI: w.CredentialsURL(creds), "AWS_REGION": "us-east-1",
		"AWS_ACCESS_KEY_ID": other.AccessKeyID, "AWS_SECRET_ACCESS_KEY": other.SecretAccessKey, "AWS_SESSION_TOKEN": other.SessionToken,
	}
}

// challenging returns an honest challenge.
func challenging(nonce []byte) func(context.Context) (*assayv1.ChallengeResponse, error) {
	return func(context.Context) (*assayv1.ChallengeResponse, error) {
		return &assayv1.ChallengeResponse{Nonce: nonce, Audience: testServerURL}, nil
	}
}

// redeem does what the service does: rebuilds the request and sends it to STS.
func redeem(tb testing.TB, w *awstest.World, req *assayv1.ExchangeRequest, audience string) (principal string) {
	tb.Helper()
	in := req.GetStsProof()
	p := &stsproof.Proof{
		AccessKeyID: in.GetAccessKeyId(), Region: in.GetRegion(), Date: in.GetDate(), SessionToken: in.GetSessionToken(),
		Signature: in.GetSignature(), Nonce: in.GetNonce(), BuildID: in.GetBuildId(),
	}
	r, err := p.Request(tb.Context(), audience)
	if err != nil {
		tb.Fatal(err)
	}
	resp, err := w.HTTPClient().Do(r)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return ""
	}
	asked := w.Requests("sts", "GetCallerIdentity")
	return asked[len(asked)-1].Principal
}

// TestCodeBuildProof: in a job, the proof is of the job's own role session and
// names the build, whatever else is in the environment.
func TestCodeBuildProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	source := CodeBuild(lookupIn(jobEnv(w, buildRole(w).Session(buildSession)))).(challenged)
	nonce := bytes.Repeat([]byte{3}, stsproof.NonceBytes)
	req, err := source.CredentialWithChallenge(t.Context(), testServerURL, challenging(nonce))
	if err != nil {
		t.Fatal(err)
	}
	p := req.GetStsProof()
	if p.GetBuildId() != testBuildARN || p.GetRegion() != testRegion || !bytes.Equal(p.GetNonce(), nonce) {
		t.Errorf("proof for build %s, region %s", p.GetBuildId(), p.GetRegion())
	}
	if got, want := redeem(t, w, req, testServerURL), buildRole(w).SessionARN(buildSession); got != want {
		t.Errorf("STS says that it is %q, want %q", got, want)
	}
	if got := redeem(t, w, req, testServerURL+".evil.example"); got != "" {
		t.Errorf("at another service it is %q", got)
	}
}

// TestAWSProof: outside a build, the SDK's own chain finds the role.
func TestAWSProof(t *testing.T) {
	w := newWorld(t)
	role := w.Account(testAccount).Role("deploy", awstest.TrustService("lambda.amazonaws.com"))
	creds := role.Session("release")
	t.Setenv("AWS_ACCESS_KEY_ID", creds.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", creds.SecretAccessKey)
	t.Setenv("AWS_SESSION_TOKEN", creds.SessionToken)
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	nonce := make([]byte, stsproof.NonceBytes)
	now := time.Now().Add(-time.Minute)
	for name, opts := range map[string]AWSOptions{
		"option": {Region: testRegion}, "environment": {}, "clock": {Now: func() time.Time { return now }},
	} {
		source := AWS(lookupIn(map[string]string{"AWS_DEFAULT_REGION": testRegion}), opts).(challenged)
		req, err := source.CredentialWithChallenge(t.Context(), testServerURL, challenging(nonce))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p := req.GetStsProof(); p.GetBuildId() != "" || p.GetRegion() != testRegion || name == "clock" && p.GetDate() != now.UTC().Format(stsproof.DateFormat) {
			t.Errorf("%s: proof of %s for build %q, region %s", name, p.GetDate(), p.GetBuildId(), p.GetRegion())
		}
		if got, want := redeem(t, w, req, testServerURL), role.SessionARN("release"); got != want {
			t.Errorf("%s: STS says that it is %q, want %q", name, got, want)
		}
	}
}

func TestAWSRefused(t *testing.T) {
	t.Parallel()
	static := func(id, token string) aws.CredentialsProvider {
		return credentials.NewStaticCredentialsProvider(id, "secretsecret", token)
	}
	failing := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, errors.New("no role is attached")
	})
	for _, tt := range []struct {
		name string
		opts AWSOptions
		code string
	}{
		{"a user's key", AWSOptions{Region: testRegion, Credentials: static("AKIAIOSFODNN7EXAMPLE", "")}, string(stsproof.CodeCredentialsLongLived)},
		{"no session", AWSOptions{Region: testRegion, Credentials: static("ASIAIOSFODNN7EXAMPLE", "")}, string(stsproof.CodeProofInvalid)},
		{"no region", AWSOptions{Credentials: static("ASIAIOSFODNN7EXAMPLE", webCanary)}, CodeCredentialMissing},
		{"a region that is none", AWSOptions{Region: "mars-north-1", Credentials: static("ASIAIOSFODNN7EXAMPLE", webCanary)}, string(stsproof.CodeRegionUnknown)},
		{"no credentials", AWSOptions{Region: testRegion, Credentials: failing}, CodeCredentialMissing},
		{"empty credentials", AWSOptions{Region: testRegion, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, nil })}, CodeCredentialMissing},
	} {
		_, err := AWS(lookupIn(nil), tt.opts).(challenged).CredentialWithChallenge(t.Context(), testServerURL, challenging(make([]byte, stsproof.NonceBytes)))
		if wantCode(t, err, tt.code); !errors.Is(err, ErrUnauthenticated) || strings.Contains(err.Error(), webCanary) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	_, err := CodeBuild(lookupIn(nil)).Credential(t.Context(), testServerURL)
	wantCode(t, err, CodeCredentialRefused)
}

func TestCodeBuildEnvironment(t *testing.T) {
	t.Parallel()
	with := func(kv ...string) map[string]string {
		env := map[string]string{envBuildARN: testBuildARN}
		for i := 0; i < len(kv); i += 2 {
			env[kv[i]] = kv[i+1]
		}
		return env
	}
	for _, tt := range []struct {
		name string
		env  map[string]string
		text string
	}{
		{"nowhere", nil, "not in an AWS CodeBuild job"},
		{"another service's ARN", with(envBuildARN, "arn:aws:s3:eu-west-1:111122223333:build/app:1"), "not the ARN of a build"},
		{"no ARN", with(envBuildARN, "app:6e1f4a4c"), "not the ARN of a build"},
		{"a region that is none", with(envBuildARN, "arn:aws:codebuild:evil.example:111122223333:build/app:1"), "not the ARN of a build"},
		{"region of another partition", with(envBuildARN, "arn:aws-cn:codebuild:eu-west-1:111122223333:build/app:1"), "not the ARN of a build"},
		{"a container of its own", with(), "passed on"},
		{"relative URI with a host", with(envRelativeURI, "@evil.example/"), "not a path"},
		{"plain http elsewhere", with(envFullURI, "http://evil.example/v2/credentials"), "neither https nor on this machine"},
		{"loopback look-alike", with(envFullURI, "http://127.0.0.1.evil.example/"), "neither https nor on this machine"},
		{"user information", with(envFullURI, "http://127.0.0.1@evil.example/"), "not a URL"},
		{"a file", with(envFullURI, "file:///etc/passwd"), "not a URL"},
	} {
		_, err := CodeBuild(lookupIn(tt.env)).(challenged).CredentialWithChallenge(t.Context(), testServerURL, challenging(nil))
		if wantCode(t, err, CodeCredentialMissing); !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %q does not mention %q", tt.name, err, tt.text)
		}
	}
	for _, good := range []string{"http://169.254.170.2/v2/credentials/x", "http://169.254.170.23/v1/credentials", "http://[fd00:ec2::23]/v1", "https://credentials.example/", "http://localhost:1/"} {
		if err := checkContainerURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	// On compute of AWS Lambda there is no container endpoint.
	env := with("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY", "s", "AWS_SESSION_TOKEN", "t0ken")
	req, err := CodeBuild(lookupIn(env)).(challenged).CredentialWithChallenge(t.Context(), testServerURL, challenging(make([]byte, stsproof.NonceBytes)))
	if err != nil || req.GetStsProof().GetAccessKeyId() != "ASIAIOSFODNN7EXAMPLE" {
		t.Errorf("credentials in the environment only: %v", err)
	}
}

// TestContainerAnswers: the container's endpoint stumbles; whether asking again may
// help is told, and where it points to is not followed.
func TestContainerAnswers(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"404": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/", http.StatusFound)
		},
		"broken off": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"no JSON":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
	} {
		srv := httptest.NewServer(handler)
		env := map[string]string{envBuildARN: testBuildARN, envFullURI: srv.URL}
		_, err := CodeBuild(lookupIn(env)).(challenged).CredentialWithChallenge(t.Context(), testServerURL, challenging(nil))
		srv.Close()
		wantCode(t, err, CodeCredentialUnavailable)
		if e := (*Error)(nil); !errors.As(err, &e) || !e.Retryable {
			t.Errorf("%s: %v may not be tried again", name, err)
		}
	}
}

// TestChallengedSession: the whole way, with a server over gRPC.
func TestChallengedSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := clienttest.New(t)
	var got *assayv1.ExchangeRequest
	s.OnExchange = func(_ context.Context, req *assayv1.ExchangeRequest) (*assayv1.ExchangeResponse, error) {
		got = req
		return &assayv1.ExchangeResponse{SessionToken: "s"}, nil
	}
	c, err := Dial(t.Context(), Config{Server: s.URL, Credential: CodeBuild(lookupIn(jobEnv(w, buildRole(w).Session(buildSession))))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WhoAmI(t.Context()); err != nil {
		t.Fatal(err)
	}
	if who, want := redeem(t, w, got, s.URL), buildRole(w).SessionARN(buildSession); who != want {
		t.Errorf("STS says that it is %q, want %q", who, want)
	}
	first := got.GetStsProof().GetNonce()
	if _, err := c.WhoAmI(t.Context()); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first, got.GetStsProof().GetNonce()) {
		t.Error("the second proof answers the first one's challenge")
	}
}

// TestDishonestChallenge: a server that asks for a proof for somebody else gets none.
func TestDishonestChallenge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, resp := range map[string]*assayv1.ChallengeResponse{
		"another audience":  {Nonce: make([]byte, 32), Audience: "https://assay.victim.example"},
		"no audience":       {Nonce: make([]byte, 32)},
		"no nonce":          {Audience: "ours"},
		"a nonce too short": {Nonce: make([]byte, 31), Audience: "ours"},
		"a nonce too long":  {Nonce: make([]byte, 33), Audience: "ours"},
	} {
		s := clienttest.New(t)
		if resp.GetAudience() == "ours" {
			resp.Audience = s.URL
		}
		s.OnChallenge = func(context.Context, *assayv1.ChallengeRequest) (*assayv1.ChallengeResponse, error) { return resp, nil }
		c, err := Dial(t.Context(), Config{Server: s.URL, Credential: CodeBuild(lookupIn(jobEnv(w, buildRole(w).Session(buildSession))))})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.WhoAmI(t.Context())
		c.Close()
		if wantDishonest(t, err, "Challenge"); s.Exchanges.Load() != 0 {
			t.Errorf("%s: a proof was sent", name)
		}
	}
}
