package awstest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/signer"
)

// goldenFiles is the directory of an SDK module, whose golden wire files say what
// its client sends and reads.
func goldenFiles(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skipf("the directory of %s is not known: %v", module, err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("%s is not here: %v", module, err)
	}
	return dir
}

const kmsModule = "github.com/aws/aws-sdk-go-v2/service/kms"

// kmsOperations are those that the stand-in speaks.
func kmsOperations() []string {
	return []string{"Sign", "Verify", "GetPublicKey", "DescribeKey", "ListAliases", "UpdateAlias", "CreateGrant", "ListGrants", "RevokeGrant"}
}

// readGolden reads a golden file: a line, headers, a blank line, a body.
func readGolden(t *testing.T, path string) (line string, header http.Header, body []byte) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("no golden file: %v", err)
	}
	head, body, _ := bytes.Cut(raw, []byte("\n\n{"))
	header = http.Header{}
	for i, l := range strings.Split(strings.TrimSpace(string(head)), "\n") {
		if name, value, ok := strings.Cut(l, ": "); ok {
			header.Add(name, value)
		} else if i == 0 {
			line = l
		}
	}
	return line, header, append([]byte("{"), body...)
}

// TestKMSGoldenRequests sends what the SDK's golden files have, signed for the
// world. Their contents name nothing that exists; they are refused for that, and
// not for their form.
func TestKMSGoldenRequests(t *testing.T) {
	t.Parallel()
	dir := goldenFiles(t, kmsModule)
	w := newWorld(t)
	creds := w.Account(testAccount).Role("all").Allow("*").Session("s")
	paths, err := filepath.Glob(filepath.Join(dir, "request_snapshot", "*.request.snap"))
	if err != nil || len(paths) == 0 {
		t.Skip("the module has no golden requests")
	}
	spoken := 0
	for _, path := range paths {
		operation := strings.TrimSuffix(filepath.Base(path), ".request.snap")
		_, header, body := readGolden(t, path)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://kms."+testRegion+".amazonaws.com/", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header
		if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hexSHA256(body), "kms", testRegion, time.Now()); err != nil {
			t.Fatal(err)
		}
		resp, err := w.HTTPClient().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		var failed struct {
			Type string `json:"__type"`
		}
		_ = json.Unmarshal(answer, &failed)
		want(t, "content type", resp.Header.Get("Content-Type"), "application/x-amz-json-1.1")
		if !slices.Contains(kmsOperations(), operation) {
			want(t, operation, failed.Type, "UnknownOperationException")
			continue
		}
		spoken++
		switch failed.Type {
		case "ValidationException", "NotFoundException", "InvalidGrantTokenException", "InvalidMarkerException":
		default:
			t.Errorf("%s: %s", operation, answer)
		}
		if strings.Contains(string(answer), "must not be null") {
			t.Errorf("%s: a member was not read: %s", operation, answer)
		}
	}
	// RevokeGrant, which the module has no golden file of, and no other.
	if missing := len(kmsOperations()) - spoken; missing > 1 {
		t.Errorf("%d operations without a golden request", missing)
	}
}

// tape remembers the last answer that a client got.
type tape struct {
	next http.RoundTripper
	mu   sync.Mutex
	body []byte
	head http.Header
}

func (p *tape) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := p.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.body, p.head = body, resp.Header
	return resp, err
}

// sameShape tells where an answer has a member that the golden one has not, or one
// of another kind.
func sameShape(at string, got, golden any) []string {
	switch g := got.(type) {
	case map[string]any:
		want, ok := golden.(map[string]any)
		if !ok {
			return []string{at + " is an object"}
		}
		var out []string
		for name, v := range g {
			if _, ok := want[name]; !ok {
				out = append(out, at+"."+name+" is not in the golden answer")
				continue
			}
			out = append(out, sameShape(at+"."+name, v, want[name])...)
		}
		return out
	case []any:
		want, ok := golden.([]any)
		if !ok || len(want) == 0 {
			return []string{at + " is a list"}
		}
		var out []string
		for _, v := range g {
			out = append(out, sameShape(at+"[]", v, want[0])...)
		}
		return out
	}
	if reflect.TypeOf(got) != reflect.TypeOf(golden) {
		return []string{fmt.Sprintf("%s is %T, not %T", at, got, golden)}
	}
	return nil
}

// TestKMSGoldenAnswers compares answers, as they are on the wire, with golden ones.
func TestKMSGoldenAnswers(t *testing.T) {
	t.Parallel()
	dir := goldenFiles(t, kmsModule)
	w := newWorld(t)
	acct := w.Account(testAccount)
	record := &tape{next: w.Transport()}
	cfg := once(w.AWSConfig(acct.Role("all").Allow("*").Session("s"), testRegion))
	cfg.HTTPClient = &http.Client{Transport: record}
	c := kms.NewFromConfig(cfg)
	k := acct.Key(testRegion, "ECC_NIST_P256", MultiRegion())
	k.Replicate("us-west-2")
	acct.Alias(testRegion, "alias/a", k)
	acct.Alias(testRegion, "alias/b", k)
	k.Grant(acct.Role("all").ARN(), "Sign")
	id := aws.String(k.ID())
	var signature []byte
	for _, tt := range []struct {
		operation string
		call      func() error
	}{
		{"Sign", func() error {
			out, err := signDigest(t.Context(), c, k.ARN())
			if err == nil {
				signature = out.Signature
			}
			return err
		}},
		{"Verify", func() error {
			_, err := c.Verify(t.Context(), &kms.VerifyInput{KeyId: id, Message: digestOf(nil), MessageType: "DIGEST", SigningAlgorithm: "ECDSA_SHA_256", Signature: signature})
			return err
		}},
		{"GetPublicKey", func() error { _, err := c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: id}); return err }},
		{"DescribeKey", func() error { _, err := c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: id}); return err }},
		{"ListAliases", func() error {
			_, err := c.ListAliases(t.Context(), &kms.ListAliasesInput{KeyId: id, Limit: aws.Int32(1)})
			return err
		}},
		{"UpdateAlias", func() error {
			_, err := c.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: aws.String("alias/a"), TargetKeyId: id})
			return err
		}},
		{"CreateGrant", func() error {
			_, err := c.CreateGrant(t.Context(), &kms.CreateGrantInput{KeyId: id, GranteePrincipal: aws.String(acct.Role("x").ARN()), RetiringPrincipal: aws.String(acct.Role("x").ARN()),
				Name: aws.String("n"), Operations: []types.GrantOperation{"Sign"}})
			return err
		}},
		{"ListGrants", func() error { _, err := c.ListGrants(t.Context(), &kms.ListGrantsInput{KeyId: id}); return err }},
	} {
		t.Run(tt.operation, func(t *testing.T) {
			_, _, body := readGolden(t, filepath.Join(dir, "response_snapshot", tt.operation+".response.snap"))
			if err := tt.call(); err != nil {
				t.Fatal(err)
			}
			var got, golden any
			if err := errors.Join(json.Unmarshal(record.body, &got), json.Unmarshal(body, &golden)); err != nil {
				t.Fatal(err)
			}
			for _, why := range sameShape(tt.operation, got, golden) {
				t.Error(why)
			}
			want(t, "content type", record.head.Get("Content-Type"), "application/x-amz-json-1.1")
		})
	}
}

// TestGoldenErrors has the SDK read every error that its model of the two services
// has, and finds it to be of the type of that error.
func TestGoldenErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	creds := w.Account(testAccount).Root()
	record := &tape{next: w.Transport()}
	cfg := once(w.AWSConfig(creds, testRegion))
	cfg.HTTPClient = &http.Client{Transport: record}
	kmsClient, signerClient := kms.NewFromConfig(cfg), signer.NewFromConfig(cfg)
	dir := goldenFiles(t, kmsModule)
	check := func(service, code string, status int, call func() error) {
		t.Helper()
		w.Fail(Fault{Service: service, Times: 1, Status: status, Code: code, Message: "why"})
		err := call()
		kind := ""
		for e := err; e != nil; e = errors.Unwrap(e) {
			if name := reflect.TypeOf(e).String(); strings.HasPrefix(name, "*types.") {
				kind = name
			}
		}
		if kind != "*types."+code || codeOf(err) != code {
			t.Errorf("%s: the SDK reads %q: %v", code, kind, err)
		}
	}
	for _, code := range []string{
		"DependencyTimeoutException", "DisabledException", "DryRunOperationException", "InvalidGrantTokenException",
		"InvalidKeyUsageException", "KeyUnavailableException", "KMSInternalException", "KMSInvalidStateException", "NotFoundException",
	} {
		status := http.StatusBadRequest
		if code == "KeyUnavailableException" || strings.HasPrefix(code, "KMSInternal") || strings.HasPrefix(code, "Dependency") {
			status = http.StatusInternalServerError
		}
		check("kms", code, status, func() error {
			_, err := signDigest(t.Context(), kmsClient, "alias/a")
			return err
		})
		_, _, body := readGolden(t, filepath.Join(dir, "response_snapshot", code+".error.snap"))
		var got, golden map[string]any
		if err := errors.Join(json.Unmarshal(record.body, &got), json.Unmarshal(body, &golden)); err != nil {
			t.Fatal(err)
		}
		for _, why := range sameShape(code, got, golden) {
			t.Error(why)
		}
		want(t, "__type", got["__type"], golden["__type"])
	}
	for code, status := range map[string]int{
		"AccessDeniedException": 403, "InternalServiceErrorException": 500, "ResourceNotFoundException": 404,
		"TooManyRequestsException": 429, "ValidationException": 400,
	} {
		check("signer", code, status, func() error {
			_, err := signerClient.SignPayload(t.Context(), &signer.SignPayloadInput{Payload: []byte("{}"), PayloadFormat: aws.String(payloadFormat), ProfileName: aws.String("pp")})
			return err
		})
		want(t, "content type", record.head.Get("Content-Type"), "application/json")
	}
}
