package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/client/clienttest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with testdata/golden/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; go test -update rewrites it.\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

// scriptedServer answers about app and a library, and knows one attestation.
func scriptedServer(t *testing.T) (*clienttest.Server, *assayv1.Attestation) {
	s := clienttest.New(t)
	at := clienttest.Attestation(subject("app", "app"), subject("lib/x.so", "lib"))
	s.OnGetAttestation = func(context.Context, *assayv1.GetAttestationRequest) (*assayv1.GetAttestationResponse, error) {
		return &assayv1.GetAttestationResponse{Attestation: at}, nil
	}
	s.OnListAttestations = func(context.Context, *assayv1.ListAttestationsRequest) (*assayv1.ListAttestationsResponse, error) {
		row := clienttest.Attestation(subject("app", "app"), subject("lib/x.so", "lib"))
		row.Bundle = nil
		return &assayv1.ListAttestationsResponse{Attestations: []*assayv1.Attestation{row}}, nil
	}
	s.OnVerify = deny
	return s, at
}

// TestGolden holds the text and the Markdown that people and their scripts read.
func TestGolden(t *testing.T) {
	s, at := scriptedServer(t)
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, dir, "dist/app", "app")
	write(t, dir, "dist/lib/x.so", "lib")
	write(t, dir, "dist/old.sigstore.json", "{}")
	summary := filepath.Join(dir, "summary.md")
	back := func(r result) string {
		text := "exit " + string(rune('0'+r.code)) + "\n--- stdout\n" + r.stdout + "--- stderr\n" + r.stderr
		return strings.ReplaceAll(text, s.URL, "SERVER")
	}
	env := map[string]string{"GITHUB_STEP_SUMMARY": summary}
	outputs := make(map[string]string)
	outputs["attest.txt"] = back(runWith(t, s, env, "attest", "dist", "--bundle-dir", "out"))
	outputs["show.txt"] = back(runWith(t, s, env, "show", at.GetAttestationId()))
	outputs["show.json"] = back(runWith(t, s, env, "show", at.GetAttestationId(), "--format", "json"))
	outputs["list.txt"] = back(runWith(t, s, env, "list"))
	outputs["deny.txt"] = back(runWith(t, s, env, "verify", "dist/app", "name@sha256:"+digestOf("x"), "--env", "prod"))
	outputs["deny.json"] = back(runWith(t, s, env, "verify", "dist/app", "--env", "prod", "--format", "json"))
	const build = "arn:aws:codebuild:eu-west-1:111122223333:build/app:0d5c3c5e-1c1f-4f0e-9c52-3f1c63c1a6f5"
	outputs["attest-build.txt"] = back(runWith(t, s, env, "attest-build", build, "--bundle-dir", "out"))
	outputs["attest-build.json"] = back(runWith(t, s, env, "attest-build", build, "--format", "json"))
	built := clienttest.BuildAttestation(build, subject("artifacts/app.zip", "app"))
	s.OnGetAttestation = func(context.Context, *assayv1.GetAttestationRequest) (*assayv1.GetAttestationResponse, error) {
		return &assayv1.GetAttestationResponse{Attestation: built}, nil
	}
	s.OnListAttestations = func(context.Context, *assayv1.ListAttestationsRequest) (*assayv1.ListAttestationsResponse, error) {
		return &assayv1.ListAttestationsResponse{Attestations: []*assayv1.Attestation{built}}, nil
	}
	outputs["show-build.txt"] = back(runWith(t, s, env, "show", built.GetAttestationId()))
	outputs["list-build.txt"] = back(runWith(t, s, env, "list"))
	for kind, caller := range callers() {
		if kind == "everything" {
			continue // TestHostileServer's
		}
		s.OnWhoAmI = func(context.Context, *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error) {
			return &assayv1.WhoAmIResponse{Caller: caller, ExpireTime: timestamppb.New(time.Unix(1760000900, 0))}, nil
		}
		outputs["whoami-"+kind+".txt"] = back(runWith(t, s, env, "whoami"))
		outputs["whoami-"+kind+".json"] = back(runWith(t, s, env, "whoami", "--format", "json"))
	}
	s.OnWhoAmI = nil
	s.OnVerify = nil
	outputs["allow.txt"] = back(runWith(t, s, env, "verify", "sha256:"+digestOf("x"), "--env", "dev"))
	outputs["whoami.txt"] = back(runWith(t, s, env, "whoami"))
	markdown, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	outputs["summary.md"] = strings.ReplaceAll(string(markdown), text(s.URL), "SERVER")
	if got, err := os.ReadFile("out/artifacts/app.zip.sigstore.json"); err != nil || len(got) == 0 {
		t.Errorf("no bundle of the build's artifact: %v", err)
	}
	for _, name := range []string{"out/app.sigstore.json", "out/lib/x.so.sigstore.json"} {
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, at.GetBundle()) {
			t.Errorf("%s is not the bundle (%v)", name, err)
		}
	}
	left, err := filepath.Glob("out/.assay-*")
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files remain: %q %v", left, err)
	}
	t.Chdir(packageDir)
	for name, got := range outputs {
		golden(t, name, got)
	}
}

var packageDir, _ = os.Getwd()

// hostile is text that moves the cursor, hides, reorders, and breaks out of
// Markdown, HTML and JSON.
const hostile = "a\x1b[31mb\x07c\u202Ed\u200Be\u2066f\r\ng\u0085h\u2028i\U000E0041j|k`l<script>m](n)*o*\xffp"

func TestClean(t *testing.T) {
	if got, want := clean(hostile), "a[31mbcdef  g h ij|k`l<script>m](n)*o*p"; got != want {
		t.Errorf("clean gives %q, want %q", got, want)
	}
	if got := clean("plain text, ünïcode – 日本語"); got != "plain text, ünïcode – 日本語" {
		t.Errorf("clean changed %q", got)
	}
}

func FuzzClean(f *testing.F) {
	f.Add(hostile)
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range clean(s) {
			if !unicode.IsPrint(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Fatalf("%q keeps %U", s, r)
			}
		}
		var back string
		raw, _ := json.Marshal(s)
		if err := json.Unmarshal(escapeJSON(raw), &back); err != nil || back != string([]rune(s)) {
			t.Fatalf("escapeJSON changed %q to %q (%v)", s, back, err)
		}
		for _, r := range text(s) {
			if r < 0x80 && strings.ContainsRune("<>|`*_[]()\\\n\"'!@", r) {
				t.Fatalf("text keeps %q of %q", r, s)
			}
		}
	})
}

// TestHostileServer: whatever a server puts into its answer, nothing but
// characters that show reaches the terminal or the summary.
func TestHostileServer(t *testing.T) {
	s := clienttest.New(t)
	at := clienttest.Attestation(subject("app", "app"))
	at.BuilderId, at.SourceUri, at.InvocationId = hostile, hostile, hostile
	at.SourceDigest = map[string]string{"gitCommit": hostile}
	at.Caller = &assayv1.Caller{DisplayName: hostile, Issuer: hostile}
	at.Downgrades = []string{hostile, hostile}
	s.OnGetAttestation = func(context.Context, *assayv1.GetAttestationRequest) (*assayv1.GetAttestationResponse, error) {
		return &assayv1.GetAttestationResponse{Attestation: valid(at)}, nil
	}
	s.OnListAttestations = func(context.Context, *assayv1.ListAttestationsRequest) (*assayv1.ListAttestationsResponse, error) {
		row := clienttest.Attestation(subject("app", "app"))
		row.AttestationId = hostile
		row.Subjects = []*assayv1.Subject{{Name: hostile}, {Name: hostile}}
		return &assayv1.ListAttestationsResponse{Attestations: []*assayv1.Attestation{valid(row), valid(at)}}, nil
	}
	s.OnAttest = func(stream assayv1.AttestationService_AttestServer) error {
		if _, err := clienttest.Receive(stream); err != nil {
			return err
		}
		return clienttest.SendResult(stream, valid(at))
	}
	s.OnVerify = func(ctx context.Context, req *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error) {
		resp, err := deny(ctx, req)
		d := resp.Decisions[0]
		h := strings.ToValidUTF8(hostile, "")
		d.Reason, d.Message, d.DecisionId, d.PolicyVersion = h, h, h, h
		d.Facts = map[string]string{h: h}
		d.Rules = []*assayv1.RuleResult{{RuleId: h, Message: h, Expected: h, Found: h, Remedy: h, Error: h}}
		return resp, err
	}
	s.OnWhoAmI = func(context.Context, *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error) {
		caller := callers()["everything"]
		scribble(caller.ProtoReflect(), strings.ToValidUTF8(hostile, ""))
		return &assayv1.WhoAmIResponse{Caller: caller}, nil
	}
	s.OnGetTrustedRoot = func(context.Context, *assayv1.GetTrustedRootRequest) (*assayv1.GetTrustedRootResponse, error) {
		root := `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","x":"` + "\u202E\u0085" + `"}`
		return &assayv1.GetTrustedRootResponse{TrustedRoot: []byte(root), AttestationKeysPem: "\x1b[2J" + string(clienttest.KeyPEM())}, nil
	}
	dir := t.TempDir()
	app := write(t, dir, "app", "app")
	summary := filepath.Join(dir, "summary.md")
	env := map[string]string{"GITHUB_STEP_SUMMARY": summary}
	for _, args := range [][]string{
		{"show", at.GetAttestationId()}, {"list"}, {"attest", app}, {"verify", app, "--env", "prod"},
		{"whoami"}, {"trusted-root"}, {"trusted-root", "--format", "pem"},
		{"verify", app, "--env", "prod\x1b[2J"}, {"show", "\x1b[2J"}, {"\x1b[2J"}, {"list", "--\x1b[2J"},
	} {
		formats := [][]string{args}
		if args[0] != "trusted-root" && len(args[0]) < 10 {
			formats = append(formats, append(append([]string{}, args...), "--format", "json"))
		}
		for _, args := range formats {
			r := runWith(t, s, env, args...)
			onlyShows(t, strings.Join(args, " "), r.stdout+r.stderr)
		}
	}
	markdown, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	onlyShows(t, "summary", string(markdown))
	if strings.Contains(string(markdown), "script>") || strings.Contains(string(markdown), "](n)") {
		t.Error("the summary holds live Markdown or HTML of the server's")
	}
}

// valid makes strings that gRPC will carry.
func valid(at *assayv1.Attestation) *assayv1.Attestation {
	v := func(s *string) { *s = strings.ToValidUTF8(*s, "") }
	v(&at.AttestationId)
	v(&at.BuilderId)
	v(&at.SourceUri)
	v(&at.InvocationId)
	for k, d := range at.SourceDigest {
		at.SourceDigest[k] = strings.ToValidUTF8(d, "")
	}
	if at.Caller != nil {
		v(&at.Caller.DisplayName)
		v(&at.Caller.Issuer)
	}
	for _, s := range at.Subjects {
		v(&s.Name)
	}
	return at
}

func onlyShows(t *testing.T, what, s string) {
	t.Helper()
	for i, r := range s {
		if r != '\n' && (!shows(r) || unicode.Is(unicode.Bidi_Control, r)) {
			t.Errorf("%q prints %U: %q", what, r, s[max(0, i-20):min(len(s), i+20)])
			return
		}
	}
}

func TestProgressLines(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{lookup: func(string) (string, bool) { return "", false }, stderr: &stderr}
	var clock fakeClock
	a.now = clock.now
	p := newProgress(a, 1)
	for i := range int64(25) {
		clock.advance()
		p.event(client.Event{Stage: client.StageSending, Name: "app", Sent: i * 1_000_000, Total: 25_000_000})
	}
	p.event(client.Event{Stage: client.StageReceived, Name: "a\x1b[31mpp"})
	p.event(client.Event{Stage: client.StageRetrying, Err: &client.Error{Code: "UNAVAILABLE", Message: "gone"}})
	p.end()
	want := "assay: sent 9.0 MB of 25.0 MB\nassay: sent 19.0 MB of 25.0 MB\nassay: received a[31mpp (1 of 1)\nassay: starting over: UNAVAILABLE: gone\n"
	if stderr.String() != want {
		t.Errorf("got %q, want %q", stderr.String(), want)
	}
}

func TestProgressBar(t *testing.T) {
	var stderr bytes.Buffer
	var clock fakeClock
	a := &app{stderr: &stderr, now: clock.now}
	p := newProgress(&app{lookup: func(string) (string, bool) { return "", false }, stderr: &stderr, now: clock.now}, 1)
	p.app, p.bar = a, true
	clock.advance()
	p.event(client.Event{Stage: client.StageSending, Name: "app", Sent: 500, Total: 1000})
	p.end()
	want := "\r[###############...............] 500 B of 1.0 kB  app\x1b[K\r\x1b[K"
	if stderr.String() != want {
		t.Errorf("got %q, want %q", stderr.String(), want)
	}
}
