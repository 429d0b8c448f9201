package awstest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// TestFaults lets AWS fail in every way, and heals it.
func TestFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	creds := w.Account(testAccount).User("alice")
	ask := func(ctx context.Context) error {
		_, err := stsClient(w, creds, testRegion).GetCallerIdentity(ctx, nil)
		return err
	}
	for _, tt := range []struct {
		name  string
		fault Fault
		check func(t *testing.T, err error)
	}{
		{"error", Fault{Status: 503, Code: "ServiceUnavailable"}, func(t *testing.T, err error) { wantCode(t, err, "ServiceUnavailable") }},
		{"connection", Fault{CloseConnection: true}, func(t *testing.T, err error) {
			if !errors.Is(err, io.EOF) {
				t.Errorf("%v, want EOF", err)
			}
		}},
		{"truncated", Fault{Truncate: true}, func(t *testing.T, err error) {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v, want an unexpected EOF", err)
			}
		}},
		{"body", Fault{Body: []byte("<html>"), Header: http.Header{"content-type": {"text/html"}}}, func(t *testing.T, err error) {
			if err == nil {
				t.Error("HTML was taken for an answer")
			}
		}},
		{"redirect", Fault{Redirect: "https://evil.example.com/"}, func(t *testing.T, err error) {
			var status *awshttp.ResponseError
			if !errors.As(err, &status) && !strings.Contains(err.Error(), "no such host: evil.example.com") {
				t.Errorf("%v, want the redirect", err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.fault.Service, tt.fault.Action, tt.fault.Times = "sts", "GetCallerIdentity", 1
			w.Fail(tt.fault)
			err := ask(context.Background())
			if err == nil {
				t.Fatal("no fault struck")
			}
			tt.check(t, err)
			if err := ask(context.Background()); err != nil {
				t.Errorf("the fault struck twice: %v", err)
			}
		})
	}
	t.Run("delay", func(t *testing.T) {
		w.Fail(Fault{Service: "sts", Delay: time.Hour})
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := ask(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want a deadline", err)
		}
		w.Heal()
		if err := ask(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Run("elsewhere", func(t *testing.T) {
		w.Fail(Fault{Service: "iam", Status: 500, Code: "InternalFailure"})
		w.Fail(Fault{Service: "sts", Action: "AssumeRole", Status: 500, Code: "InternalFailure"})
		if err := ask(context.Background()); err != nil {
			t.Error(err)
		}
		_, err := iamClient(w, creds, testRegion).GetRole(context.Background(), &iam.GetRoleInput{RoleName: aws.String("x")})
		wantCode(t, err, "InternalFailure")
	})
}

// TestThrottle limits by account and action, and by the world's clock.
func TestThrottle(t *testing.T) {
	t.Parallel()
	w, clock := newClockWorld(t)
	a, b := w.Account(testAccount).User("alice"), w.Account(otherAccount).User("bob")
	ask := func(creds aws.Credentials) error {
		_, err := stsClient(w, creds, testRegion).GetCallerIdentity(context.Background(), nil)
		return err
	}
	w.Throttle("sts", "GetCallerIdentity", 2)
	for range 2 {
		if err := ask(a); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, ask(a), "Throttling")
	if err := ask(b); err != nil {
		t.Errorf("another account: %v", err)
	}
	clock.add(500 * time.Millisecond)
	if err := ask(a); err != nil {
		t.Errorf("half a second later: %v", err)
	}
	wantCode(t, ask(a), "Throttling")

	// The SDK knows it for a throttling error and tries again.
	cfg := w.AWSConfig(a, testRegion)
	tries := len(w.Requests("sts", ""))
	_, err := sts.NewFromConfig(cfg, func(o *sts.Options) { o.RetryMaxAttempts = 2 }).GetCallerIdentity(context.Background(), nil)
	wantCode(t, err, "Throttling")
	if got := len(w.Requests("sts", "")) - tries; got != 2 {
		t.Errorf("%d tries, want 2", got)
	}
	w.Heal()
	if err := ask(a); err != nil {
		t.Error(err)
	}
}

// TestContainerCredentials gets credentials as the SDK does in a CodeBuild job.
func TestContainerCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	role := w.Account(testAccount).Role("app")
	want := role.Session("AWSCodeBuild-1")
	location := w.CredentialsURL(want)
	got, err := endpointcreds.New(location).Retrieve(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got.AccessKeyID != want.AccessKeyID || got.SecretAccessKey != want.SecretAccessKey || got.SessionToken != want.SessionToken || !got.Expires.Equal(want.Expires) {
		t.Error("the endpoint gave other credentials")
	}
	get := func(url string) (int, string) {
		resp, err := w.HTTPClient().Get(url) // the transport reaches the endpoint too
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	var answer map[string]string
	if status, body := get(location); status != http.StatusOK || json.Unmarshal([]byte(body), &answer) != nil || answer["RoleArn"] != role.ARN() {
		t.Errorf("%d %s", status, body)
	}
	for _, other := range []string{location + "x", strings.TrimSuffix(location, location[len(location)-36:]), w.ProxyURL() + "/"} {
		if status, _ := get(other); status != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", other, status)
		}
	}
}
