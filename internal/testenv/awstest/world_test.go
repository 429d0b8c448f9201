package awstest

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

const otherAccount = "444455556666"

// newWorld starts a world that stops with the test.
func newWorld(t *testing.T) *World {
	t.Helper()
	w, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// clock is a clock that only tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// newClockWorld starts a world with a clock that stands still. The SDK signs with
// the real time, so the clock begins there.
func newClockWorld(t *testing.T) (*World, *clock) {
	t.Helper()
	c := &clock{at: time.Now()}
	w, err := New(Config{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w, c
}

// once makes clients of the SDK try once.
func once(cfg aws.Config) aws.Config {
	cfg.RetryMaxAttempts = 1
	return cfg
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		host string
		want endpoint
		ok   bool
	}{
		{"sts.amazonaws.com", endpoint{partition: "aws", service: "sts", region: "us-east-1", global: true}, true},
		{"STS.eu-west-1.AMAZONAWS.com", endpoint{partition: "aws", service: "sts", region: "eu-west-1"}, true},
		{"sts-fips.us-east-1.amazonaws.com", endpoint{partition: "aws", service: "sts", region: "us-east-1"}, true},
		{"sts.eu-west-1.api.aws", endpoint{partition: "aws", service: "sts", region: "eu-west-1"}, true},
		{"sts.cn-north-1.amazonaws.com.cn", endpoint{partition: "aws-cn", service: "sts", region: "cn-north-1"}, true},
		{"sts.us-gov-west-1.amazonaws.com", endpoint{partition: "aws-us-gov", service: "sts", region: "us-gov-west-1"}, true},
		{"sts.eusc-de-east-1.amazonaws.eu", endpoint{partition: "aws-eusc", service: "sts", region: "eusc-de-east-1"}, true},
		{"sts.us-iso-east-1.c2s.ic.gov", endpoint{partition: "aws-iso", service: "sts", region: "us-iso-east-1"}, true},
		{"iam.amazonaws.com", endpoint{partition: "aws", service: "iam", region: "us-east-1", global: true}, true},
		{"iam.cn-north-1.amazonaws.com.cn", endpoint{partition: "aws-cn", service: "iam", region: "cn-north-1", global: true}, true},
		{"codebuild.eu-west-1.amazonaws.com", endpoint{partition: "aws", service: "codebuild", region: "eu-west-1"}, true},
		{"s3.eu-west-1.amazonaws.com", endpoint{partition: "aws", service: "s3", region: "eu-west-1"}, true},
		{"b.with.dots.s3.dualstack.eu-west-1.amazonaws.com", endpoint{partition: "aws", service: "s3", region: "eu-west-1", bucket: "b.with.dots"}, true},
		{"kms.eu-west-1.amazonaws.com", endpoint{partition: "aws", service: "kms", region: "eu-west-1"}, true},
		{"kms-fips.us-east-1.api.aws", endpoint{partition: "aws", service: "kms", region: "us-east-1"}, true},
		{"kms.amazonaws.com", endpoint{}, false},
		{"signer.us-gov-west-1.amazonaws.com", endpoint{partition: "aws-us-gov", service: "signer", region: "us-gov-west-1"}, true},
		{"data-signer.eu-west-1.amazonaws.com", endpoint{partition: "aws", service: "signer", region: "eu-west-1", data: true}, true},
		{"data-kms.eu-west-1.amazonaws.com", endpoint{}, false},
		{"bucket.s3.amazonaws.com", endpoint{partition: "aws", service: "s3", region: "us-east-1", bucket: "bucket"}, true},
		{"sts.eu-west-1.amazonaws.com.evil.example", endpoint{}, false},
		{"sts.eu-west-1.amazonaws.com.cn", endpoint{}, false},
		{"sts.cn-north-1.amazonaws.com", endpoint{}, false},
		{"sts.nowhere-1.amazonaws.com", endpoint{}, false},
		{"ststs.eu-west-1.amazonaws.com", endpoint{}, false},
		{"amazonaws.com", endpoint{}, false},
		{"eu-west-1.amazonaws.com", endpoint{}, false},
		{"169.254.169.254", endpoint{}, false},
		{"", endpoint{}, false},
	} {
		got, ok := parseHost(tt.host)
		if ok != tt.ok || got != tt.want {
			t.Errorf("parseHost(%q) = %+v, %v; want %+v, %v", tt.host, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzHost(f *testing.F) {
	for _, seed := range []string{"sts.amazonaws.com", "b.s3.eu-west-1.amazonaws.com", "a.tokens.sts.global.api.aws", ".amazonaws.com"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, host string) {
		e, ok := parseHost(host)
		if !ok {
			if e != (endpoint{}) {
				t.Fatalf("%q is not a host and yet %+v", host, e)
			}
			return
		}
		lower := strings.ToLower(host)
		if e.issuer != "" && e.issuer != lower {
			t.Fatalf("%q is the issuer %q", host, e.issuer)
		}
		if e.bucket != "" && !strings.HasPrefix(lower, e.bucket+".s3.") {
			t.Fatalf("%q has the bucket %q", host, e.bucket)
		}
		if e.issuer == "" && !e.global && !partitions[e.partition].regions.MatchString(e.region) && e.bucket == "" {
			t.Fatalf("%q has the region %q", host, e.region)
		}
	})
}

// TestTransport sees that nothing but AWS exists, and that only those who trust
// the world's authority reach it.
func TestTransport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	get := func(client *http.Client, url string) (int, string, error) {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	for _, url := range []string{
		"https://example.com/", "http://127.0.0.1:1/", "http://169.254.169.254/", "http://sts.eu-west-1.amazonaws.com/",
		"https://sts.eu-west-1.amazonaws.com:8443/", "https://sts.eu-west-1.amazonaws.com.evil.example/",
	} {
		if _, _, err := get(w.HTTPClient(), url); err == nil || !strings.Contains(err.Error(), "awstest: ") {
			t.Errorf("%s: %v, want it not to exist", url, err)
		}
	}
	status, body, err := get(w.HTTPClient(), "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15")
	if err != nil || status != http.StatusForbidden || !strings.Contains(body, "MissingAuthenticationToken") {
		t.Errorf("%d %s %v, want a missing token", status, body, err)
	}
	stranger := w.Transport()
	stranger.TLSClientConfig.RootCAs = nil
	if _, _, err := get(&http.Client{Transport: stranger}, "https://sts.eu-west-1.amazonaws.com/"); err == nil {
		t.Error("a client that does not trust the authority was answered")
	}
}

// TestProxy reaches the world as a program does that only has HTTPS_PROXY.
func TestProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.AWSConfig(w.Account(testAccount).User("alice"), testRegion)
	transport := &http.Transport{TLSClientConfig: w.Transport().TLSClientConfig, Proxy: proxyTo(t, w.ProxyURL())}
	defer transport.CloseIdleConnections()
	cfg.HTTPClient = &http.Client{Transport: transport}
	out, err := sts.NewFromConfig(cfg).GetCallerIdentity(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := "arn:aws:iam::111122223333:user/alice"; aws.ToString(out.Arn) != want {
		t.Errorf("ARN %s, want %s", aws.ToString(out.Arn), want)
	}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://example.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transport.RoundTrip(r); err == nil {
		t.Error("the proxy led to another host")
	}
}

// TestRequests sees that requests are recorded, refused ones too, without
// anything secret.
func TestRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	role := w.Account(testAccount).Role("app")
	creds := role.Session("s1")
	client := sts.NewFromConfig(once(w.AWSConfig(creds, testRegion)))
	if _, err := client.GetCallerIdentity(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	creds.SecretAccessKey += "x"
	_, err := sts.NewFromConfig(once(w.AWSConfig(creds, testRegion))).GetCallerIdentity(context.Background(), nil)
	wantCode(t, err, "SignatureDoesNotMatch")

	got := w.Requests("sts", "GetCallerIdentity")
	if len(got) != 2 || len(w.Requests("", "")) != 2 || len(w.Requests("iam", "")) != 0 {
		t.Fatalf("%d requests, want 2", len(got))
	}
	if r := got[0]; r.Principal != role.SessionARN("s1") || r.Host != "sts.eu-west-1.amazonaws.com" || r.Region != testRegion ||
		r.Status != 200 || r.Code != "" || !slices.Contains(r.Signed, "x-amz-security-token") {
		t.Errorf("record %+v", r)
	}
	if r := got[1]; r.Principal != "" || r.Status != 403 || r.Code != "SignatureDoesNotMatch" {
		t.Errorf("record of the refused one %+v", r)
	}
}

func proxyTo(t *testing.T, text string) func(*http.Request) (*url.URL, error) {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return http.ProxyURL(u)
}
