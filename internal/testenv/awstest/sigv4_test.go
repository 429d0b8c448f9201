package awstest

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/testenv/vectors"
)

// TestVectors holds canonical request, string to sign and signature to the cases
// of AWS's own C library, for signatures in headers and in query strings.
func TestVectors(t *testing.T) {
	t.Parallel()
	dir := vectors.Dir(t, "aws-sigv4/tests/aws-signing-test-suite/v4")
	cases, err := os.ReadDir(dir)
	if err != nil || len(cases) < 38 {
		t.Fatalf("%d cases, want 38 at least: %v", len(cases), err)
	}
	for _, c := range cases {
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			v := readVector(t, filepath.Join(dir, c.Name()))
			t.Run("header", func(t *testing.T) { v.check(t, "header") })
			t.Run("query", func(t *testing.T) { v.check(t, "query") })
		})
	}
}

type vector struct {
	dir         string
	Credentials struct {
		Secret string `json:"secret_access_key"`
	}
	Normalize bool
	OmitToken bool `json:"omit_session_token"`
	Region    string
	Service   string
	Timestamp time.Time
}

func readVector(t *testing.T, dir string) *vector {
	t.Helper()
	v := &vector{dir: dir}
	if err := json.Unmarshal([]byte(v.file(t, "context.json")), v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *vector) file(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(v.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// check verifies the signed request of the vector, from its own bytes.
func (v *vector) check(t *testing.T, kind string) {
	w, body := readWire(t, v.file(t, kind+"-signed-request.txt"))
	want := v.file(t, kind+"-canonical-request.txt")
	how := canonical{
		keepDots: !v.Normalize, leaveOut: []string{"X-Amz-Signature"}, payload: hexSHA256([]byte(body)),
		signed: signedIn(want),
	}
	if v.OmitToken {
		how.leaveOut = append(how.leaveOut, "X-Amz-Security-Token")
	}
	got, ok := how.request(w)
	if !ok || got != want {
		t.Errorf("canonical request %q, want %q", got, want)
	}
	date := v.Timestamp.Format(amzDate)
	s := scope{date[:8], v.Region, v.Service}
	toSign := stringToSign(date, s, got)
	if want := v.file(t, kind+"-string-to-sign.txt"); toSign != want {
		t.Errorf("string to sign %q, want %q", toSign, want)
	}
	signature := signatureOf(v.Credentials.Secret, s, toSign)
	if want := strings.TrimSpace(v.file(t, kind+"-signature.txt")); signature != want {
		t.Errorf("signature %s, want %s", signature, want)
	}
	if !strings.Contains(v.file(t, kind+"-signed-request.txt"), "Signature="+signature) {
		t.Error("the signed request has another signature")
	}
}

// signedIn reads the names of the signed headers from a canonical request.
func signedIn(canonicalRequest string) []string {
	lines := strings.Split(canonicalRequest, "\n")
	return strings.Split(lines[len(lines)-2], ";")
}

// readWire reads a request that net/http would refuse: with spaces and UTF-8 in
// its target and with header lines that continue.
func readWire(t *testing.T, text string) (wireRequest, string) {
	t.Helper()
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	method, target, _ := strings.Cut(strings.TrimSuffix(lines[0], " HTTP/1.1"), " ")
	w := wireRequest{method: method, header: map[string][]string{}}
	w.path, w.query, _ = strings.Cut(target, "?")
	last := ""
	for _, line := range lines[1:] {
		if strings.HasPrefix(line, " ") {
			values := w.header[last]
			values[len(values)-1] += " " + strings.TrimSpace(line)
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			if line == "" {
				continue
			}
			t.Fatalf("line %q", line)
		}
		last = strings.ToLower(name)
		w.header[last] = append(w.header[last], value)
		if last == "host" {
			w.host = value
		}
	}
	return w, body
}

// TestSignerAgrees signs requests with the SDK's signer and verifies them here,
// and sees that a change of anything that is signed is found out.
func TestSignerAgrees(t *testing.T) {
	t.Parallel()
	word := rapid.StringMatching(`[ -~é]{0,12}`)
	rapid.Check(t, func(t *rapid.T) {
		s3 := rapid.Bool().Draw(t, "s3")
		secret := rapid.StringMatching(`[A-Za-z0-9+/]{40}`).Draw(t, "secret")
		body := []byte(word.Draw(t, "body"))
		at := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "time"), 0).UTC()
		sc := scope{at.Format("20060102"), rapid.StringMatching(`[a-z]{2}-[a-z]{4}-[1-9]`).Draw(t, "region"), "sts"}
		if s3 {
			sc.service = "s3"
		}
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "https://example.amazonaws.com/", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Path = "/" + word.Draw(t, "path")
		r.URL.RawPath = encode(r.URL.Path, true) // as the SDK's clients send it
		q := r.URL.Query()
		for range rapid.IntRange(0, 3).Draw(t, "parameters") {
			q.Add(word.Draw(t, "name"), word.Draw(t, "value"))
		}
		r.URL.RawQuery = q.Encode()
		r.Header.Set("X-Assay-Nonce", word.Draw(t, "nonce"))
		hash := hexSHA256(body)
		creds := aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: secret}
		signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = s3 })
		if err := signer.SignHTTP(context.Background(), creds, r, hash, sc.service, sc.region, at); err != nil {
			t.Fatal(err)
		}
		m := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
		if m == nil {
			t.Fatalf("Authorization %q", r.Header.Get("Authorization"))
		}
		// keepDots, since the SDK leaves dots in paths to its callers.
		how := canonical{rawPath: s3, keepDots: true, signed: strings.Split(m[2], ";"), payload: hash}
		verify := func() bool {
			r.RequestURI, r.Host = r.URL.RequestURI(), r.URL.Host
			w := wireOf(r)
			w.header["content-length"] = []string{strconv.Itoa(len(body))}
			request, ok := how.request(w)
			return ok && signatureOf(secret, sc, stringToSign(at.Format(amzDate), sc, request)) == m[3]
		}
		if !verify() {
			t.Fatalf("the SDK's signature of %s does not verify", r.URL)
		}
		switch rapid.SampledFrom([]string{"path", "query", "header", "method", "host", "payload", "region", "secret"}).Draw(t, "change") {
		case "path":
			r.URL.Path += "x"
			r.URL.RawPath += "x"
		case "query":
			r.URL.RawQuery += "&x=y"
		case "header":
			r.Header.Set("X-Assay-Nonce", "x"+r.Header.Get("X-Assay-Nonce"))
		case "method":
			r.Method = http.MethodPut
		case "host":
			r.URL.Host = "evil.amazonaws.com"
		case "payload":
			how.payload = hexSHA256(append(body, 'x'))
		case "region":
			sc.region += "1"
		case "secret":
			secret += "x"
		}
		if verify() {
			t.Fatal("a changed request verifies")
		}
	})
}
