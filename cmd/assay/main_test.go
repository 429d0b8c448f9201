package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/client/clienttest"
	"github.com/assay-build/assay/internal/sbom/sandbox"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) {
	// The server of the scripts starts this program once more to look into artifacts.
	if code, ok := sandbox.Child(os.Args); ok {
		os.Exit(code)
	}
	testscript.Main(m, map[string]func(){"assay": main, "xdg-open": browser})
}

// browser is a desktop whose user agrees to everything.
func browser() {
	resp, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	resp.Body.Close()
}

// result is how a run ended.
type result struct {
	code           int
	stdout, stderr string
}

// runWith runs the program against a scripted server, as a job whose token
// endpoint answers.
func runWith(t testing.TB, s *clienttest.Server, env map[string]string, args ...string) result {
	t.Helper()
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"value":"aaa.bbb.ccc"}`)
	}))
	defer tokens.Close()
	all := map[string]string{
		"ASSAY_SERVER":                   s.URL,
		"ACTIONS_ID_TOKEN_REQUEST_URL":   tokens.URL + "/?api-version=2.0",
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t",
		"CI":                             "true",
	}
	for k, v := range env {
		all[k] = v
	}
	return runIn(t, all, args...)
}

func runIn(t testing.TB, env map[string]string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	code := run(t.Context(), args, lookup, strings.NewReader(""), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

func digestOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func subject(name, content string) *assayv1.Subject {
	return &assayv1.Subject{
		Name: name, Digest: map[string]string{"sha256": digestOf(content)}, Origin: assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED,
	}
}

// deny makes a server deny everything.
func deny(_ context.Context, req *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error) {
	resp := &assayv1.VerifyResponse{VerificationResult: assayv1.VerificationResult_VERIFICATION_RESULT_FAILED}
	for _, s := range req.GetSubjects() {
		resp.Decisions = append(resp.Decisions, clienttest.Failed(s, req.GetEnvironment()))
	}
	return resp, nil
}

// TestExitCodes is the frozen table, from every status a server may send.
func TestExitCodes(t *testing.T) {
	wants := map[codes.Code]int{
		codes.InvalidArgument: exitUsage, codes.OutOfRange: exitUsage, codes.FailedPrecondition: exitUsage,
		codes.AlreadyExists: exitUsage, codes.NotFound: exitUsage,
		codes.PermissionDenied: exitDenied,
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		if code == codes.Unavailable {
			continue // Retried with real waits; see TestUnavailable.
		}
		want, listed := wants[code]
		if !listed {
			want = exitUndecided
		}
		s := clienttest.New(t)
		s.OnVerify = func(context.Context, *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error) {
			return nil, status.Error(code, "no")
		}
		if r := runWith(t, s, nil, "verify", "sha256:"+digestOf("x"), "--env", "prod"); r.code != want || r.stdout != "" {
			t.Errorf("%s: exit %d, want %d (stdout %q)", code, r.code, want, r.stdout)
		}
	}
}

func TestVerifyExitCodes(t *testing.T) {
	s := clienttest.New(t)
	ref := "sha256:" + digestOf("x")
	if r := runWith(t, s, nil, "verify", ref, "--env", "prod"); r.code != exitDone || !strings.HasPrefix(r.stdout, "ALLOW  ") {
		t.Errorf("allowed: %+v", r)
	}
	s.OnVerify = deny
	if r := runWith(t, s, nil, "verify", ref, "--env", "prod"); r.code != exitDenied || !strings.HasPrefix(r.stdout, "DENY   ") {
		t.Errorf("denied: %+v", r)
	}
	s.OnVerify = func(context.Context, *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error) {
		return &assayv1.VerifyResponse{VerificationResult: assayv1.VerificationResult_VERIFICATION_RESULT_PASSED}, nil
	}
	if r := runWith(t, s, nil, "verify", ref, "--env", "prod"); r.code != exitUndecided || r.stdout != "" || !strings.Contains(r.stderr, "SERVER_ANSWER_INVALID") {
		t.Errorf("a lying server: %+v", r)
	}
}

func TestUnavailable(t *testing.T) {
	env := map[string]string{"ASSAY_SERVER": "http://127.0.0.1:1", "ACTIONS_ID_TOKEN_REQUEST_URL": "http://127.0.0.1:1/", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t"}
	for _, args := range [][]string{
		{"trusted-root", "--timeout", "50ms"},
		{"verify", "sha256:" + digestOf("x"), "--env", "prod", "--timeout", "50ms"},
		{"whoami", "--timeout", "50ms"},
	} {
		if r := runIn(t, env, args...); r.code != exitUndecided || r.stdout != "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

// TestUnknownErrors: what nobody foresaw is undecided, and never done.
func TestUnknownErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, exitDone},
		{commandError{errors.New("surprise")}, exitUndecided},
		{commandError{context.Canceled}, exitUndecided},
		{commandError{errDenied}, exitDenied},
		{commandError{usage("x", "")}, exitUsage},
		{commandError{&client.Error{Code: client.CodeCredentialMissing}}, exitUsage},
		{commandError{&client.Error{Code: client.CodeCredentialRefused}}, exitUndecided},
		{commandError{&client.Error{Code: client.CodeLoginExpired}}, exitUsage},
		{commandError{&client.Error{Code: client.CodeLoginStateMismatch}}, exitUndecided},
		{commandError{&client.Error{Code: client.CodeCredentialAudience}}, exitUndecided},
		{errors.New("unknown flag: --x"), exitUsage},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%v: exit %d, want %d", tt.err, got, tt.want)
		}
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// TestAnswerNotWritten: an ALLOW that nobody could read is none.
func TestAnswerNotWritten(t *testing.T) {
	var stderr bytes.Buffer
	none := func(string) (string, bool) { return "", false }
	if code := run(t.Context(), []string{"version"}, none, nil, failingWriter{}, &stderr); code != exitUndecided {
		t.Errorf("exit %d, stderr %s", code, &stderr)
	}
}

type panickingWriter struct{}

func (panickingWriter) Write([]byte) (int, error) { panic("boom") }

func TestPanicIsUndecided(t *testing.T) {
	var stderr bytes.Buffer
	none := func(string) (string, bool) { return "", false }
	if code := run(t.Context(), []string{"version"}, none, nil, panickingWriter{}, &stderr); code != exitUndecided || !strings.Contains(stderr.String(), "internal error") {
		t.Errorf("exit %d, stderr %s", code, &stderr)
	}
}

func TestInterrupted(t *testing.T) {
	s := clienttest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.OnGetTrustedRoot = func(rpc context.Context, _ *assayv1.GetTrustedRootRequest) (*assayv1.GetTrustedRootResponse, error) {
		cancel()
		<-rpc.Done()
		return nil, rpc.Err()
	}
	var stdout, stderr bytes.Buffer
	lookup := func(name string) (string, bool) { return map[string]string{"ASSAY_SERVER": s.URL}[name], true }
	if code := run(ctx, []string{"trusted-root"}, lookup, nil, &stdout, &stderr); code != exitUndecided || stderr.String() != "assay: interrupted\n" {
		t.Errorf("exit %d, stderr %q", code, &stderr)
	}
}
