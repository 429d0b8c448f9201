package stsproof

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	testAudience = "https://assay.example.com"
	testBuild    = "app:6e1f4a4c-1c4b-4a0a-9d51-0f7a1f6d2c11"
	testKeyID    = "ASIAIOSFODNN7EXAMPLE"
	canarySecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	canaryToken  = "IQoJb3JpZ2luX2VjEXAMPLEcanary+token/=="
)

var (
	testTime  = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	testNonce = bytes.Repeat([]byte{0xab, 0x01}, NonceBytes/2)
)

func testCredentials() aws.Credentials {
	return aws.Credentials{AccessKeyID: testKeyID, SecretAccessKey: canarySecret, SessionToken: canaryToken}
}

func sign(tb testing.TB) *Proof {
	tb.Helper()
	p, err := Sign(context.Background(), testCredentials(), "eu-west-1", testAudience, testNonce, testBuild, testTime)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// authentic does what STS does: signs what it received, as far as the
// Authorization header says that it is signed, and compares.
func authentic(tb testing.TB, req *http.Request) bool {
	tb.Helper()
	auth := regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([a-z0-9-]+)/sts/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$`).
		FindStringSubmatch(req.Header.Get("Authorization"))
	if auth == nil {
		tb.Fatalf("Authorization %q", req.Header.Get("Authorization"))
	}
	data, err := io.ReadAll(req.Body)
	if err != nil {
		tb.Fatal(err)
	}
	received, err := http.NewRequestWithContext(context.Background(), req.Method, req.URL.String(), bytes.NewReader(data))
	if err != nil {
		tb.Fatal(err)
	}
	for name := range strings.SplitSeq(auth[4], ";") {
		if v := req.Header.Values(name); len(v) > 0 {
			received.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	date, err := time.Parse(DateFormat, req.Header.Get("X-Amz-Date"))
	if err != nil || auth[2] != date.Format("20060102") || auth[1] != testKeyID {
		return false // of another key STS knows another secret, or none
	}
	creds := aws.Credentials{AccessKeyID: auth[1], SecretAccessKey: canarySecret, SessionToken: req.Header.Get("X-Amz-Security-Token")}
	hash := sha256.Sum256(data)
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, received, hex.EncodeToString(hash[:]), "sts", auth[3], date); err != nil {
		tb.Fatal(err)
	}
	return received.Header.Get("Authorization") == req.Header.Get("Authorization")
}

// TestRequestGolden freezes every byte: client and service of different versions
// must build the same request.
func TestRequestGolden(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ file, region, build string }{
		{"build.txt", "eu-west-1", testBuild},
		{"role.txt", "us-gov-west-1", ""},
		{"china.txt", "cn-northwest-1", "arn:aws-cn:codebuild:cn-northwest-1:111122223333:build/" + testBuild},
	} {
		p, err := Sign(t.Context(), testCredentials(), tt.region, testAudience, testNonce, tt.build, testTime)
		if err != nil {
			t.Fatal(err)
		}
		req, err := p.Request(t.Context(), testAudience)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := req.Write(&got); err != nil {
			t.Fatal(err)
		}
		file := "testdata/" + tt.file
		if *update {
			if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s differs; the request is now\n%s", file, got.Bytes())
		}
		again, err := p.Request(t.Context(), testAudience)
		if err != nil || !authentic(t, again) {
			t.Errorf("%s: the rebuilt request does not carry a right signature (%v)", tt.file, err)
		}
	}
}

// TestSignatureBindsEverything: nothing of a proof can be changed, and it is good
// for one audience only.
func TestSignatureBindsEverything(t *testing.T) {
	t.Parallel()
	other := func(p *Proof, n int) []byte { b := bytes.Clone(p.Nonce); b[n] ^= 1; return b }
	tests := []struct {
		name     string
		audience string
		change   func(*Proof)
		want     bool
	}{
		{"untouched", testAudience, func(*Proof) {}, true},
		{"audience", "https://assay.example.com.evil.example", func(*Proof) {}, false},
		{"audience of another case", "https://Assay.example.com", func(*Proof) {}, false},
		{"access key", testAudience, func(p *Proof) { p.AccessKeyID = "ASIAIOSFODNN7EXAMPLF" }, false},
		{"region", testAudience, func(p *Proof) { p.Region = "eu-west-2" }, false},
		{"partition", testAudience, func(p *Proof) { p.Region = "cn-north-1" }, false},
		{"date", testAudience, func(p *Proof) { p.Date = "20260304T050608Z" }, false},
		{"token", testAudience, func(p *Proof) { p.SessionToken = "A" + p.SessionToken[1:] }, false},
		{"nonce", testAudience, func(p *Proof) { p.Nonce = other(p, 31) }, false},
		{"build id", testAudience, func(p *Proof) { p.BuildID = "app:6e1f4a4c-1c4b-4a0a-9d51-0f7a1f6d2c12" }, false},
		{"no build id", testAudience, func(p *Proof) { p.BuildID = "" }, false},
		{"signature", testAudience, func(p *Proof) { p.Signature = bytes.Clone(p.Signature); p.Signature[0] ^= 1 }, false},
	}
	for _, tt := range tests {
		p := sign(t)
		tt.change(p)
		req, err := p.Request(t.Context(), tt.audience)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := authentic(t, req); got != tt.want {
			t.Errorf("%s: signature accepted: %t, want %t", tt.name, got, tt.want)
		}
	}
}

// TestRequestHashIsInjective: bytes cannot move from one field to the next.
func TestRequestHashIsInjective(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type triple struct{ audience, nonce, build string }
		draw := func(label string) triple {
			part := rapid.StringMatching(`[a:\x00]{0,3}`)
			return triple{part.Draw(t, label), part.Draw(t, label), part.Draw(t, label)}
		}
		a, b := draw("a"), draw("b")
		same := requestHash(a.audience, []byte(a.nonce), a.build) == requestHash(b.audience, []byte(b.nonce), b.build)
		if same != (a == b) {
			t.Fatalf("%q and %q: equal hashes: %t", a, b, same)
		}
	})
}

func TestMalformedFields(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*Proof)
		code   refusal.Code
		field  string
	}{
		{"no key", func(p *Proof) { p.AccessKeyID = "" }, CodeProofInvalid, "access_key_id"},
		{"a user's key", func(p *Proof) { p.AccessKeyID = "AKIAIOSFODNN7EXAMPLE" }, CodeCredentialsLongLived, "access_key_id"},
		{"a role's id", func(p *Proof) { p.AccessKeyID = "AROAIOSFODNN7EXAMPLE" }, CodeProofInvalid, "access_key_id"},
		{"key with a scope", func(p *Proof) { p.AccessKeyID = "ASIAIOSFODNN7EXAMPLE/20260304" }, CodeProofInvalid, "access_key_id"},
		{"key with a header", func(p *Proof) { p.AccessKeyID = "ASIAIOSFODNN7EXAMPLE\r\nX-Evil: 1" }, CodeProofInvalid, "access_key_id"},
		{"key with a line end", func(p *Proof) { p.AccessKeyID += "\n" }, CodeProofInvalid, "access_key_id"},
		{"key in lower case", func(p *Proof) { p.AccessKeyID = "asiaiosfodnn7example" }, CodeProofInvalid, "access_key_id"},
		{"long key", func(p *Proof) { p.AccessKeyID = "ASIA" + strings.Repeat("A", 61) }, CodeProofInvalid, "access_key_id"},
		{"no region", func(p *Proof) { p.Region = "" }, CodeRegionUnknown, "region"},
		{"region with a host", func(p *Proof) { p.Region = "evil.example/" }, CodeRegionUnknown, "region"},
		{"region with a port", func(p *Proof) { p.Region = "eu-west-1.amazonaws.com:8443#" }, CodeRegionUnknown, "region"},
		{"region with user information", func(p *Proof) { p.Region = "eu-west-1@evil.example" }, CodeRegionUnknown, "region"},
		{"the global endpoint", func(p *Proof) { p.Region = "aws-global" }, CodeRegionUnknown, "region"},
		{"region with a line end", func(p *Proof) { p.Region = "eu-west-1\n" }, CodeRegionUnknown, "region"},
		{"no date", func(p *Proof) { p.Date = "" }, CodeProofInvalid, "date"},
		{"short date", func(p *Proof) { p.Date = "20260304" }, CodeProofInvalid, "date"},
		{"date with a fraction", func(p *Proof) { p.Date = "20260304T050607.5Z" }, CodeProofInvalid, "date"},
		{"date with a zone", func(p *Proof) { p.Date = "20260304T050607+0100" }, CodeProofInvalid, "date"},
		{"date that is none", func(p *Proof) { p.Date = "20260230T050607Z" }, CodeProofInvalid, "date"},
		{"no token", func(p *Proof) { p.SessionToken = "" }, CodeProofInvalid, "session_token"},
		{"token with a header", func(p *Proof) { p.SessionToken += "\r\nX-Evil: 1" }, CodeProofInvalid, "session_token"},
		{"token with a line end", func(p *Proof) { p.SessionToken += "\n" }, CodeProofInvalid, "session_token"},
		{"token with a NUL", func(p *Proof) { p.SessionToken = "a\x00" + p.SessionToken }, CodeProofInvalid, "session_token"},
		{"token with a space", func(p *Proof) { p.SessionToken = canaryToken[:10] + " " + canaryToken[10:] }, CodeProofInvalid, "session_token"},
		{"long token", func(p *Proof) { p.SessionToken = strings.Repeat("A", maxTokenBytes+1) }, CodeProofInvalid, "session_token"},
		{"no signature", func(p *Proof) { p.Signature = nil }, CodeProofInvalid, "signature"},
		{"signature in hexadecimal", func(p *Proof) { p.Signature = []byte(hex.EncodeToString(p.Signature)) }, CodeProofInvalid, "signature"},
		{"no nonce", func(p *Proof) { p.Nonce = nil }, CodeProofInvalid, "nonce"},
		{"long nonce", func(p *Proof) { p.Nonce = make([]byte, NonceBytes+1) }, CodeProofInvalid, "nonce"},
		{"build with a path", func(p *Proof) { p.BuildID = "app/../other:6e1f4a4c" }, CodeProofInvalid, "build_id"},
		{"build with a wildcard", func(p *Proof) { p.BuildID = "app:*" }, CodeProofInvalid, "build_id"},
		{"build with an escape", func(p *Proof) { p.BuildID = "app%3A1" }, CodeProofInvalid, "build_id"},
		{"long build", func(p *Proof) { p.BuildID = strings.Repeat("a", 513) }, CodeProofInvalid, "build_id"},
	}
	for _, tt := range tests {
		p := sign(t)
		tt.change(p)
		_, err := p.Request(t.Context(), testAudience)
		wantRefusal(t, tt.name, err, tt.code, tt.field)
	}
	for _, audience := range []string{"", " ", "https://a b", "https://a\r\nX-Evil: 1", "https://ä", strings.Repeat("a", maxAudienceBytes+1)} {
		_, err := sign(t).Request(t.Context(), audience)
		wantRefusal(t, "audience "+audience, err, CodeProofInvalid, "audience")
	}
}

func wantRefusal(t *testing.T, name string, err error, code refusal.Code, field string) {
	t.Helper()
	r, ok := err.(*refusal.Error) //nolint:errorlint // nothing wraps it here, and the field is wanted
	if !ok || r.Code != code || r.Field != field {
		t.Errorf("%s: %v; want %s in %s", name, err, code, field)
		return
	}
	for _, secret := range []string{canaryToken[:20], canarySecret, "X-Evil"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error quotes what may be secret: %v", name, err)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	user := aws.Credentials{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: canarySecret}
	_, err := Sign(t.Context(), user, "eu-west-1", testAudience, testNonce, "", testTime)
	wantRefusal(t, "a user", err, CodeCredentialsLongLived, "access_key_id")
	_, err = Sign(t.Context(), testCredentials(), "mars-north-1", testAudience, testNonce, "", testTime)
	wantRefusal(t, "no region", err, CodeRegionUnknown, "region")
}

// TestProofPrintsNoSecret: a proof that ends up in a log by mistake tells nothing.
func TestProofPrintsNoSecret(t *testing.T) {
	t.Parallel()
	p := sign(t)
	var logged bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&logged, nil))
	log.InfoContext(t.Context(), "proof", "pointer", p, "value", *p)
	texts := []string{logged.String()}
	for _, format := range []string{"%v", "%+v", "%s", "%#v"} {
		texts = append(texts, fmt.Sprintf(format, p), fmt.Sprintf(format, *p))
	}
	signature := strings.Trim(fmt.Sprintf("%d", p.Signature[:4]), "[]")
	for _, text := range texts {
		if strings.Contains(text, canaryToken[:10]) || strings.Contains(text, signature) || !strings.Contains(text, "eu-west-1") {
			t.Errorf("printed: %s", text)
		}
	}
}

// FuzzRequest: whatever a client sends, what goes out is the fixed request, to a
// host of AWS, with one value for each header.
func FuzzRequest(f *testing.F) {
	p := sign(f)
	f.Add(p.AccessKeyID, p.Region, p.Date, p.SessionToken, p.Signature, p.Nonce, p.BuildID)
	f.Add("ASIAIOSFODNN7EXAMPLE\r\nHost: evil", "us-east-1", p.Date, "a\nb", p.Signature, p.Nonce, "")
	f.Add(p.AccessKeyID, "eusc-de-east-1", "20260304T050607Z", "A==", p.Signature, p.Nonce, "arn:aws:codebuild:x")
	hosts := regexp.MustCompile(`^sts\.[a-z0-9-]{8,24}\.(amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)
	f.Fuzz(func(t *testing.T, key, region, date, token string, signature, nonce []byte, build string) {
		p := &Proof{AccessKeyID: key, Region: region, Date: date, SessionToken: token, Signature: signature, Nonce: nonce, BuildID: build}
		req, err := p.Request(t.Context(), testAudience)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Errorf("a refusal without a code: %v", err)
			}
			return
		}
		var out bytes.Buffer
		if err := req.Write(&out); err != nil {
			t.Fatalf("accepted and not writable: %v", err)
		}
		head, data, _ := strings.Cut(out.String(), "\r\n\r\n")
		lines := strings.Split(head, "\r\n")
		if len(lines) != 13 || lines[0] != "POST / HTTP/1.1" || data != body || req.Method != http.MethodPost ||
			req.URL.String() != "https://"+req.URL.Host+"/" || !hosts.MatchString(req.URL.Host) || strings.ContainsAny(strings.Join(lines, ""), "\r\n\x00") {
			t.Errorf("unexpected request:\n%s", out.String())
		}
		for name, values := range req.Header {
			if len(values) != 1 {
				t.Errorf("header %s has %d values", name, len(values))
			}
		}
	})
}
