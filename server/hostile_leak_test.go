package server_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// secrets are byte strings that must not be found outside, by what they are.
type secrets map[string][]byte

// jwt adds each part of a token by which it could be used or told.
func (s secrets) jwt(name, token string) string {
	parts := strings.Split(token, ".")
	s[name+" signature"] = []byte(parts[len(parts)-1])
	if len(parts) > 1 {
		s[name+" payload"] = []byte(parts[1])
	}
	return token
}

// session adds a session token and the part of it that is the secret.
func (s secrets) session(t *testing.T, name, bearer string) {
	t.Helper()
	token := strings.TrimPrefix(bearer, "Bearer ")
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "asy_"))
	if err != nil || len(raw) != 48 {
		t.Fatalf("session token of %d bytes: %v", len(raw), err)
	}
	s[name] = []byte(token)
	s[name+" MAC"] = raw[16:]
	s[name+" MAC, hex"] = []byte(hex.EncodeToString(raw[16:]))
}

// keyFiles adds the private part of every key in a data directory, and returns the
// names of the files that are there to hold them.
func (s secrets) keyFiles(t *testing.T, data string) map[string]bool {
	t.Helper()
	holders := map[string]bool{"session.key": true}
	key, err := os.ReadFile(filepath.Join(data, "session.key"))
	if err != nil {
		t.Fatal(err)
	}
	s["session key"], s["session key, hex"] = key, []byte(hex.EncodeToString(key))
	files, err := filepath.Glob(filepath.Join(data, "keys", "*.pem"))
	if err != nil {
		t.Fatal(err)
	}
	private := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(raw)
		if block == nil || block.Type != "PRIVATE KEY" {
			continue
		}
		private++
		if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		holders[filepath.Join("keys", name)] = true
		s[name] = bytes.SplitN(raw, []byte("\n"), 3)[1] // the first line of base64
		s[name+", DER"] = block.Bytes[:64]
	}
	if private < 3 {
		t.Fatalf("%d private keys were found; the test tests nothing", private)
	}
	return holders
}

func (s secrets) absent(t *testing.T, where string, text []byte) {
	t.Helper()
	for name, secret := range s {
		if len(secret) < 16 {
			t.Fatalf("%s is too short to look for", name)
		}
		if at := bytes.Index(text, secret); at >= 0 {
			t.Errorf("%s holds the %s: …%q…", where, name, text[max(0, at-60):at])
		}
	}
}

// TestNoLeaks: through good calls and bad ones, with everything logged that can be,
// no token, session or key is found in logs, errors, metrics or at rest, and no
// claim that nobody asked for.
func TestNoLeaks(t *testing.T) {
	t.Parallel()
	const canary = "canary-d41d8cd98f00b204"
	w := newWorld(t, "https://assay.test")
	l := w.start(t)
	hidden := secrets{"unread claim": []byte(canary + "-claim"), "metadata": []byte(canary + "-metadata"), "other authorization": []byte(canary + "-basic")}
	claims := oidctest.Claims{"enterprise": canary + "-claim", "sub": "repo:" + canary + "-claim", "actor": canary + "-actor"}
	var said []string // every error message
	fails := func(err error) {
		t.Helper()
		if err == nil {
			t.Fatal("a bad call was accepted")
		}
		said = append(said, err.Error())
	}

	good := hidden.jwt("exchanged token", w.issuer.Mint(w.instance, claims))
	l.ctx = l.session(t, good)
	hidden.session(t, "session", bearerOf(l.ctx))
	for name, bad := range map[string]oidctest.Forgery{
		"expired token":       {Claims: claims.With(oidctest.Claims{"aud": w.instance, "exp": 1, "iat": 0})},
		"token of another":    {Claims: claims.With(oidctest.Claims{"aud": "https://elsewhere.example"})},
		"forged token":        {Claims: claims.With(oidctest.Claims{"aud": w.instance}), Alg: "HS256", Key: []byte("k")},
		"stranger's token":    {Claims: claims.With(oidctest.Claims{"aud": w.instance, "repository_owner_id": "1"})},
		"token with a bad id": {Claims: claims.With(oidctest.Claims{"aud": w.instance, "run_id": canary + "-claim"})},
	} {
		_, err := l.exchange(t.Context(), hidden.jwt(name, w.issuer.Forge(bad)))
		fails(err)
	}
	_, err := l.exchange(t.Context(), good)
	fails(err)

	ctx := metadata.AppendToOutgoingContext(l.ctx, "x-secret", canary+"-metadata", "x-amz-security-token", canary+"-metadata")
	l.digests(t, ctx, subject("app", "app"))
	if _, err := uploadAll(ctx, l.conn, append([]*assayv1.AttestRequest{headerMessage(1)}, artifactMessages("up", []byte("up"))...)); err != nil {
		t.Fatal(err)
	}
	l.decide(t, "prod", subject("up", "up"), "ALLOWED")
	l.decide(t, "dev", subject("nobody", "nobody"), "NO_ATTESTATION")
	bearer := bearerOf(l.ctx)
	for _, value := range []string{bearer + "x", bearer[:len(bearer)-1], "Bearer " + good, "Basic " + canary + "-basic", strings.TrimPrefix(bearer, "Bearer "), bearer + ", " + bearer} {
		_, err := assayv1.NewIdentityServiceClient(l.conn).WhoAmI(metadata.AppendToOutgoingContext(t.Context(), "authorization", value), &assayv1.WhoAmIRequest{})
		fails(err)
		code, body := overJSON(t, l, value, "POST", "/v1/verify", `{}`)
		said = append(said, body)
		if code < 400 {
			t.Errorf("JSON with a bad session: %d", code)
		}
	}
	code, body := overJSON(t, l, bearer, "GET", "/v1/attestations?token="+canary+"-claim", "") // its name may be repeated, its value not
	if said = append(said, body); code != http.StatusBadRequest {
		t.Errorf("an unknown parameter: %d", code)
	}
	_, metrics := httpGet(t, l.Server+"/metrics")
	l.stop()

	atRest(t, w.data, hidden)
	hidden.absent(t, "an error", []byte(strings.Join(said, "\n")))
	hidden.absent(t, "/metrics", []byte(metrics))
	hidden.absent(t, "the log", []byte(l.logs.String()))
	if strings.Contains(metrics, canary) || strings.Contains(l.logs.String(), canary+"-actor") {
		t.Error("a claim is in the metrics or the log")
	}
	if len(said) < 15 || !strings.Contains(l.logs.String(), "TOKEN_REPLAYED") {
		t.Error("the errors were not logged; the test tests nothing")
	}
}

// atRest adds the keys to what is hidden and looks for all of it in every file but
// those that hold the keys, which nobody else may read.
func atRest(t *testing.T, data string, hidden secrets) {
	t.Helper()
	holders, files := hidden.keyFiles(t, data), 0
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(data, path)
		if files++; !holders[rel] {
			hidden.absent(t, rel, raw)
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v)", rel, info.Mode(), err)
		}
		return err
	})
	if err != nil || files < 8 {
		t.Errorf("%d files were read (%v)", files, err)
	}
}

func overJSON(t *testing.T, l *life, authorization, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, l.Server+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", authorization)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// TestLogLines: nothing a client says breaks a line of the log or colours a
// terminal; each record is one line of JSON.
func TestLogLines(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	const evil = "x\n{\"level\":\"ERROR\",\"msg\":\"forged\"}\r\n\x1b[31mred\u2028\u202e\x00"
	_, err := assayv1.NewAttestationServiceClient(l.conn).AttestDigests(l.ctx, &assayv1.AttestDigestsRequest{Subjects: digests(evil, okDigest)})
	wantReason(t, err, codes.InvalidArgument, "SUBJECT_NAME_INVALID")
	wantReason(t, upload(l.ctx, l.conn, append([]*assayv1.AttestRequest{headerMessage(1)}, artifactMessages(evil, nil)...)), codes.InvalidArgument, "SUBJECT_NAME_INVALID")
	for environment, name := range map[string]string{evil[:50]: "a", "dev": evil} {
		_, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: environment, Subjects: digests(name, okDigest)})
		wantReason(t, err, codes.InvalidArgument, "REQUEST_INVALID")
	}
	_, err = l.exchange(t.Context(), w.issuer.Mint(w.instance, oidctest.Claims{"iss": evil}))
	wantReason(t, err, codes.Unauthenticated, "TOKEN_CLAIM_INVALID")
	_, err = l.exchange(t.Context(), w.issuer.Forge(oidctest.Forgery{Claims: oidctest.Claims{"aud": w.instance}, Header: map[string]any{"kid": evil}}))
	wantReason(t, err, codes.Unauthenticated, "TOKEN_KEY_UNKNOWN")
	audit := assayv1.NewAuditServiceClient(l.conn)
	_, err = audit.ListAttestations(l.ctx, &assayv1.ListAttestationsRequest{Filter: evil})
	wantReason(t, err, codes.InvalidArgument, "FILTER_INVALID")
	_, err = audit.ListDecisions(l.ctx, &assayv1.ListDecisionsRequest{OrderBy: evil})
	wantReason(t, err, codes.InvalidArgument, "ORDER_INVALID")
	_, err = audit.GetDecision(l.ctx, &assayv1.GetDecisionRequest{DecisionId: evil[:50]})
	wantReason(t, err, codes.NotFound, "NOT_FOUND")
	_ = invoke(l.ctx, l.conn, "/evil/"+"%0a%1b[31m")
	code, _ := overJSON(t, l, bearerOf(l.ctx), "GET", "/v1/attestations?a%0ab%1b=1", "")
	if code != http.StatusBadRequest {
		t.Errorf("an odd parameter: %d", code)
	}
	l.stop()
	lines := strings.Split(strings.TrimSuffix(l.logs.String(), "\n"), "\n")
	for _, line := range lines {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil || record["msg"] == "forged" || record["time"] == nil {
			t.Errorf("not a record of ours: %q", line)
		}
		if strings.ContainsAny(line, "\x1b\x00\r\u2028\u202e") {
			t.Errorf("a raw control character: %q", line)
		}
	}
	if len(lines) < 12 {
		t.Errorf("%d lines for a dozen refusals", len(lines))
	}
}
