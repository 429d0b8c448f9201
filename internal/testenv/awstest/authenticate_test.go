package awstest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/codebuild"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// TestAuthenticationCodes fails authentication at each service in each way, with
// the SDK's own clients, and wants the code of the service's protocol.
func TestAuthenticationCodes(t *testing.T) {
	t.Parallel()
	w, clock := newClockWorld(t)
	acct := w.Account(testAccount)
	acct.Bucket(testRegion, "bucket")
	role := acct.Role("app").Allow("*")
	type ask func(cfg aws.Config) error
	services := []struct {
		name string
		ask  ask
	}{
		{"sts", func(cfg aws.Config) error {
			_, err := sts.NewFromConfig(cfg).GetCallerIdentity(context.Background(), nil)
			return err
		}},
		{"iam", func(cfg aws.Config) error {
			_, err := iam.NewFromConfig(cfg).GetRole(context.Background(), &iam.GetRoleInput{RoleName: aws.String("app")})
			return err
		}},
		{"codebuild", func(cfg aws.Config) error {
			_, err := codebuild.NewFromConfig(cfg).BatchGetBuilds(context.Background(), &codebuild.BatchGetBuildsInput{Ids: []string{"app:5cb5d0a4-7be6-4a5b-8a0e-2b8d8c4f0a11"}})
			return err
		}},
		{"s3", func(cfg aws.Config) error {
			_, err := s3.NewFromConfig(cfg).ListObjectsV2(context.Background(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket")})
			return err
		}},
	}
	for _, tt := range []struct {
		name   string
		change func(*aws.Credentials)
		at     time.Duration // of the clock, after the signature
		codes  [4]string     // sts, iam, codebuild, s3
	}{
		{"good", func(*aws.Credentials) {}, 0, [4]string{}},
		{"secret", func(c *aws.Credentials) { c.SecretAccessKey += "x" }, 0,
			[4]string{"SignatureDoesNotMatch", "SignatureDoesNotMatch", "InvalidSignatureException", "SignatureDoesNotMatch"}},
		{"token", func(c *aws.Credentials) { c.SessionToken += "x" }, 0,
			[4]string{"InvalidClientTokenId", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidToken"}},
		{"no token", func(c *aws.Credentials) { c.SessionToken = "" }, 0,
			[4]string{"InvalidClientTokenId", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidToken"}},
		{"key", func(c *aws.Credentials) { c.AccessKeyID = "ASIAAAAAAAAAAAAAAAAA" }, 0,
			[4]string{"InvalidClientTokenId", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"}},
		{"another partition", func(c *aws.Credentials) { *c = w.AccountIn("aws-cn", otherAccount).Role("app").Session("s") }, 0,
			[4]string{"InvalidClientTokenId", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"}},
		{"malformed key", func(c *aws.Credentials) { c.AccessKeyID = "x" }, 0,
			[4]string{"IncompleteSignature", "IncompleteSignature", "IncompleteSignatureException", "AuthorizationHeaderMalformed"}},
		{"six minutes old", func(*aws.Credentials) {}, 6 * time.Minute,
			[4]string{"", "SignatureDoesNotMatch", "InvalidSignatureException", ""}},
		{"six minutes early", func(*aws.Credentials) {}, -6 * time.Minute,
			[4]string{"", "SignatureDoesNotMatch", "InvalidSignatureException", ""}},
		{"sixteen minutes old", func(*aws.Credentials) {}, 16 * time.Minute,
			[4]string{"SignatureDoesNotMatch", "SignatureDoesNotMatch", "InvalidSignatureException", "RequestTimeTooSkewed"}},
	} {
		for i, service := range services {
			t.Run(tt.name+"/"+service.name, func(t *testing.T) {
				creds := role.Session("s1")
				tt.change(&creds)
				clock.add(tt.at)
				defer clock.add(-tt.at)
				err := service.ask(once(w.AWSConfig(creds, testRegion)))
				if tt.codes[i] == "" {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				wantCode(t, err, tt.codes[i])
			})
		}
	}
	t.Run("expired", func(t *testing.T) {
		for i, service := range services {
			creds := role.SessionFor("s1", -time.Second)
			creds.CanExpire = false // the client shall try
			wantCode(t, service.ask(once(w.AWSConfig(creds, testRegion))),
				[]string{"ExpiredToken", "ExpiredToken", "ExpiredTokenException", "ExpiredToken"}[i])
		}
	})
	t.Run("anonymous", func(t *testing.T) {
		for i, service := range services {
			cfg := once(w.AWSConfig(aws.Credentials{}, testRegion))
			cfg.Credentials = aws.AnonymousCredentials{}
			wantCode(t, service.ask(cfg),
				[]string{"MissingAuthenticationToken", "MissingAuthenticationToken", "MissingAuthenticationTokenException", "AccessDenied"}[i])
		}
	})
}

// TestSkewedClock sees that the SDK finds the world's clock by its answers.
func TestSkewedClock(t *testing.T) {
	t.Parallel()
	w, err := New(Config{Now: func() time.Time { return time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	creds := w.Account(testAccount).User("alice")
	if _, err := sts.NewFromConfig(w.AWSConfig(creds, testRegion)).GetCallerIdentity(context.Background(), nil); err != nil {
		t.Error(err)
	}
	if _, err := stsClient(w, creds, testRegion).GetCallerIdentity(context.Background(), nil); err == nil {
		t.Error("a request of another year was answered")
	}
}

// TestTargetHeader changes what only JSON services have: the operation is a
// header, which must be signed.
func TestTargetHeader(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	creds := w.Account(testAccount).Role("app").Allow("*").Session("s1")
	send := func(change func(*http.Request), after func(*http.Request)) string {
		r := newCodeBuildRequest(t, `{"ids":["app:5cb5d0a4-7be6-4a5b-8a0e-2b8d8c4f0a11"]}`)
		change(r)
		hash := hexSHA256([]byte(`{"ids":["app:5cb5d0a4-7be6-4a5b-8a0e-2b8d8c4f0a11"]}`))
		if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hash, "codebuild", testRegion, time.Now()); err != nil {
			t.Fatal(err)
		}
		after(r)
		resp, err := w.HTTPClient().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if resp.Header.Get("X-Amzn-Requestid") == "" {
			t.Error("no request id")
		}
		return string(b)
	}
	nothing := func(*http.Request) {}
	for _, tt := range []struct {
		name          string
		change, after func(*http.Request)
		want          string
	}{
		{"good", nothing, nothing, `"buildsNotFound":["app:5cb5d0a4`},
		{"target not signed", func(r *http.Request) { r.Header.Del("X-Amz-Target") },
			func(r *http.Request) { r.Header.Set("X-Amz-Target", "CodeBuild_20161006.BatchGetBuilds") }, "InvalidSignatureException"},
		{"another target", nothing, func(r *http.Request) { r.Header.Set("X-Amz-Target", "CodeBuild_20161006.BatchGetProjects") }, "InvalidSignatureException"},
		{"two targets", nothing, func(r *http.Request) { r.Header.Add("X-Amz-Target", "CodeBuild_20161006.BatchGetProjects") }, "UnknownOperationException"},
		{"another service's target", func(r *http.Request) { r.Header.Set("X-Amz-Target", "TrentService.Sign") }, nothing, "UnknownOperationException"},
		{"no target", func(r *http.Request) { r.Header.Del("X-Amz-Target") }, nothing, "UnknownOperationException"},
		{"another type", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, nothing, "SerializationException"},
	} {
		if got := send(tt.change, tt.after); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func newCodeBuildRequest(t *testing.T, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "https://codebuild.eu-west-1.amazonaws.com/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "CodeBuild_20161006.BatchGetBuilds")
	return r
}

// FuzzRequest sends what anybody may send. Nobody is authenticated by it, nothing
// breaks, and the answer is an error.
func FuzzRequest(f *testing.F) {
	const auth = "AWS4-HMAC-SHA256 Credential=AKIAAAAAAAAAAAAAAAAA/20260101/us-east-1/sts/aws4_request, SignedHeaders=host;x-amz-date, Signature=0000000000000000000000000000000000000000000000000000000000000000"
	f.Add("sts.us-east-1.amazonaws.com", "POST", "/", auth, "20260101T000000Z", whoAmI)
	f.Add("sts.amazonaws.com", "GET", "/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=-1", "", "", "")
	f.Add("bucket.s3.eu-west-1.amazonaws.com", "GET", "/key%2F?versionId=1", auth, "", "")
	f.Add("codebuild.eu-west-1.amazonaws.com", "POST", "/", auth, "20260101T000000Z", `{"ids":[]}`)
	f.Add("iam.amazonaws.com", "PUT", "/%zz", auth, "x", "")
	w, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(w.Close)
	known := w.Account(testAccount).User("alice").AccessKeyID
	f.Fuzz(func(t *testing.T, host, method, target, auth, date, body string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Host, r.Method, r.RequestURI = host, method, target
		u, err := r.URL.Parse(target)
		if err != nil {
			return
		}
		r.URL = u
		r.Header.Set("Authorization", strings.Replace(auth, "AKIAAAAAAAAAAAAAAAAA", known, 1))
		r.Header.Set("X-Amz-Date", date)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("X-Amz-Target", "CodeBuild_20161006.BatchGetBuilds")
		rec := httptest.NewRecorder()
		w.serveHTTP(rec, r)
		if rec.Code < 400 {
			t.Fatalf("%s %s%s was answered: %d %s", method, host, target, rec.Code, rec.Body)
		}
		for _, record := range w.Requests("", "") {
			if record.Principal != "" {
				t.Fatalf("%s was authenticated", record.Principal)
			}
		}
		w.mu.Lock()
		w.requests = nil
		w.mu.Unlock()
	})
}

// TestNoSecrets looks for keys and tokens in refusals.
func TestNoSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	creds := w.Account(testAccount).Role("app").Session("s1")
	for _, change := range []func(*aws.Credentials){
		func(c *aws.Credentials) { c.SecretAccessKey = strings.Repeat("x", 40) },
		func(c *aws.Credentials) { c.SessionToken += "x" },
	} {
		wrong := creds
		change(&wrong)
		_, err := stsClient(w, wrong, testRegion).GetCallerIdentity(context.Background(), nil)
		var api smithy.APIError
		if !errors.As(err, &api) {
			t.Fatal(err)
		}
		for _, secret := range []string{creds.SecretAccessKey, creds.SessionToken, creds.AccessKeyID} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error tells a secret: %v", api.ErrorCode())
			}
		}
	}
}
