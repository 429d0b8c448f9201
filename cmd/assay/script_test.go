package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/assay-build/assay/client/clienttest"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// TestScript runs the program as its users do, as a process. Most scripts have a
// real server of their own and the environment of a job; some commands are added:
//
//	code N assay …      run and check the exit code
//	id VAR NAME         set VAR to the id of the provenance whose subject is NAME
//	sbom VAR NAME       set VAR to the id of the SBOM of NAME that the server made
//	zip FILE DIR        make FILE of what is in DIR
//	digest VAR FILE     set VAR to the SHA-256 of FILE
//	mint VAR AUDIENCE   set VAR to a new token of the job, made out to AUDIENCE
//	aws build           be a job of the stand-in for AWS CodeBuild
//	aws finished VAR    set VAR to the ARN of a build that has finished
//	aws running VAR     set VAR to the ARN of a build that has not
//	aws role            have the credentials of the role deploy
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			t := e.T().(testing.TB)
			e.Setenv("XDG_STATE_HOME", e.WorkDir+"/state")
			switch _, name, _ := strings.Cut(e.WorkDir, "script-"); name {
			case "usage": // Misuse is found before any server is asked.
			case "certificate":
				certificateServer(t, e)
			case "attest_build":
				s := buildServer(t)
				e.Setenv("ASSAY_SERVER", s.URL)
				e.Setenv("TOKEN", "e30."+base64.RawURLEncoding.EncodeToString([]byte(`{"aud":"`+s.URL+`"}`))+".c2ln")
			case "login":
				loginServer(t, e)
			default:
				setEnv(e, testenv.New(t))
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": wantExit, "id": setID, "sbom": setSBOM, "zip": makeZip, "digest": setDigest, "mint": mint, "aws": standIn},
	})
}

func setEnv(e *testscript.Env, s *testenv.Env) {
	e.Values["server"] = s
	for _, kv := range s.Env() {
		name, value, _ := strings.Cut(kv, "=")
		e.Setenv(name, value)
	}
}

// loginServer is a real server that knows a company's identity provider.
func loginServer(t testing.TB, e *testscript.Env) {
	var idp *oidctest.IdP
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/device" { // the page behind verification_uri
			idp.ApproveDevice(r.URL.Query().Get("user_code"), true)
			return
		}
		idp.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	var err error
	if idp, err = oidctest.NewIdP(oidctest.IdPConfig{BaseURL: srv.URL, ClientID: "assay-prod", Device: true}); err != nil {
		t.Fatal(err)
	}
	setEnv(e, testenv.New(t, func(c *server.Config) {
		c.Identity.Issuers = append(c.Identity.Issuers, server.IssuerConf{
			URL: srv.URL, Type: "human", Sandbox: true, Audience: []string{"assay-prod"}, Allow: map[string][]string{"hd": {"example.com"}},
		})
		c.Access.Roles = append(c.Access.Roles, server.RoleConf{
			Role: "auditor", Members: []server.MemberConf{{Issuer: srv.URL, Email: "alice@example.com"}},
		})
	}))
	e.Setenv("ISSUER", srv.URL)
}

// certificateServer is a scripted one that wants to see a client certificate.
func certificateServer(t testing.TB, e *testscript.Env) {
	s, caFile := clienttest.NewTLS(t)
	s.OnExchange = func(ctx context.Context, req *assayv1.ExchangeRequest) (*assayv1.ExchangeResponse, error) {
		p, _ := peer.FromContext(ctx)
		info, _ := p.AuthInfo.(credentials.TLSInfo)
		if req.GetClientCertificate() == nil || len(info.State.PeerCertificates) != 1 {
			return nil, clienttest.Refuse(codes.Unauthenticated, "CERTIFICATE_MISSING", "no client certificate")
		}
		return &assayv1.ExchangeResponse{SessionToken: info.State.PeerCertificates[0].URIs[0].String()}, nil
	}
	s.OnWhoAmI = func(ctx context.Context, _ *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error) {
		return &assayv1.WhoAmIResponse{Caller: &assayv1.Caller{
			Kind: assayv1.CallerKind_CALLER_KIND_WORKLOAD, DisplayName: bearer(ctx),
			Workload: &assayv1.WorkloadFacts{Platform: "x509", Subject: bearer(ctx)},
		}}, nil
	}
	e.Setenv("ASSAY_SERVER", s.URL)
	e.Setenv("ASSAY_CA_FILE", caFile)
	issueCertificate(t, e.WorkDir, "spiffe://example.org/build")
}

// buildServer is a scripted one that reads CodeBuild; which builds there are and
// what each is refused for, their projects' names say.
func buildServer(t testing.TB) *clienttest.Server {
	s := clienttest.New(t)
	s.OnAttestBuild = func(_ context.Context, req *assayv1.AttestBuildRequest) (*assayv1.AttestBuildResponse, error) {
		arn := req.GetBuildArn()
		switch {
		case strings.Contains(arn, "/running:"):
			return nil, clienttest.Refuse(codes.FailedPrecondition, "CODEBUILD_NOT_FINISHED", "the build is still running")
		case strings.Contains(arn, "/foreign:"):
			return nil, clienttest.Refuse(codes.PermissionDenied, "ACCESS_DENIED", "no policy permits attestBuild")
		case strings.Contains(arn, "/liar:"):
			arn = strings.Replace(arn, "/liar:", "/app:", 1)
		}
		at := clienttest.BuildAttestation(arn, subject("artifacts/app.zip", "app"), subject("artifacts/lib.zip", "lib"))
		return &assayv1.AttestBuildResponse{Result: &assayv1.AttestResult{Attestation: at}}, nil
	}
	return s
}

func wantExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func setID(ts *testscript.TestScript, neg bool, args []string) {
	setListed(ts, neg, "provenance", args)
}

func setSBOM(ts *testscript.TestScript, neg bool, args []string) {
	setListed(ts, neg, "cyclonedx", args)
}

func setListed(ts *testscript.TestScript, neg bool, predicateType string, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: id|sbom VAR NAME")
	}
	ts.Check(ts.Exec("assay", "list", "--type", predicateType, "--filter", `subject.name = "`+args[1]+`"`, "--format", "json"))
	var out attestationsJSON
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &out))
	if len(out.Attestations) != 1 {
		ts.Fatalf("%d attestations of %s", len(out.Attestations), args[1])
	}
	ts.Setenv(args[0], out.Attestations[0].AttestationID)
}

func makeZip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: zip FILE DIR")
	}
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	ts.Check(w.AddFS(os.DirFS(ts.MkAbs(args[1]))))
	ts.Check(w.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), buf.Bytes(), 0o600))
}

func setDigest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: digest VAR FILE")
	}
	ts.Setenv(args[0], digestOf(ts.ReadFile(args[1])))
}

func mint(ts *testscript.TestScript, neg bool, args []string) {
	s, ok := ts.Value("server").(*testenv.Env)
	if neg || len(args) != 2 || !ok {
		ts.Fatalf("usage: mint VAR AUDIENCE, with a real server")
	}
	token := s.Issuer.Mint(args[1])
	ts.Setenv(args[0], token)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(token+"\n"), 0o600))
}

func standIn(ts *testscript.TestScript, neg bool, args []string) {
	s, ok := ts.Value("server").(*testenv.Env)
	if neg || !ok || len(args) == 0 {
		ts.Fatalf("usage: aws build|finished|running|role, with a real server")
	}
	switch args[0] {
	case "build":
		for _, kv := range s.AWS.RunningBuild().Env() {
			name, value, _ := strings.Cut(kv, "=")
			ts.Setenv(name, value)
		}
	case "finished":
		ts.Setenv(args[1], s.AWS.FinishedBuild(map[string][]byte{"app": []byte("the program")}).ARN)
	case "running":
		ts.Setenv(args[1], s.AWS.RunningBuild().ARN)
	case "role":
		creds := s.AWS.Deploy.Session("gate")
		ts.Setenv("AWS_ACCESS_KEY_ID", creds.AccessKeyID)
		ts.Setenv("AWS_SECRET_ACCESS_KEY", creds.SecretAccessKey)
		ts.Setenv("AWS_SESSION_TOKEN", creds.SessionToken)
		ts.Setenv("AWS_REGION", testenv.AWSRegion)
	default:
		ts.Fatalf("aws %s: no such thing", args[0])
	}
}
