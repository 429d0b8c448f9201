package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/assay-build/assay/client/clienttest"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

func lookupIn(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// TestGitHubActionsIssuer asks an issuer that behaves like GitHub's.
func TestGitHubActionsIssuer(t *testing.T) {
	var issuer *oidctest.Issuer
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { issuer.Handler().ServeHTTP(w, r) }))
	defer srv.Close()
	issuer, err := oidctest.New(oidctest.Config{BaseURL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	env := make(map[string]string)
	for _, kv := range issuer.Env() {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	const audience = "https://assay.example.com:8443"
	req, err := GitHubActions(lookupIn(env)).Credential(t.Context(), audience)
	if err != nil {
		t.Fatal(err)
	}
	if got := claim(t, req.GetOidcToken(), "aud"); got != audience {
		t.Errorf("aud %v, want %s", got, audience)
	}
	second, err := GitHubActions(lookupIn(env)).Credential(t.Context(), audience)
	if err != nil || claim(t, second.GetOidcToken(), "jti") == claim(t, req.GetOidcToken(), "jti") {
		t.Errorf("the second credential is the first one again (%v)", err)
	}

	env[envRequestToken] = "wrong"
	_, err = GitHubActions(lookupIn(env)).Credential(t.Context(), audience)
	wantCode(t, err, CodeCredentialRefused)
	if !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("%v does not match ErrUnauthenticated", err)
	}
}

func claim(t *testing.T, jwt, name string) any {
	t.Helper()
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		t.Fatalf("not a JWT: %d parts", len(parts))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	return claims[name]
}

func TestGitHubActionsEnvironment(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		text string
	}{
		{"nowhere", nil, "not in a GitHub Actions job"},
		{"no permission", map[string]string{"GITHUB_ACTIONS": "true"}, "id-token: write"},
		{"half", map[string]string{"GITHUB_ACTIONS": "true", envRequestURL: "https://x/"}, "id-token: write"},
		{"plaintext", map[string]string{envRequestURL: "http://example.com/", envRequestToken: "t"}, "not an https URL"},
		{"no URL", map[string]string{envRequestURL: "::", envRequestToken: "t"}, "not an https URL"},
		{"a file", map[string]string{envRequestURL: "file:///etc/passwd", envRequestToken: "t"}, "not an https URL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := GitHubActions(lookupIn(tt.env)).Credential(t.Context(), "aud")
			wantCode(t, err, CodeCredentialMissing)
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %q does not mention %q", err, tt.text)
			}
		})
	}
}

func TestGitHubActionsAnswers(t *testing.T) {
	const token = "aaa.bbb.ccc"
	tests := []struct {
		name    string
		handler http.HandlerFunc
		code    string
		retry   bool
	}{
		{"good", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"count":11,"value":"` + token + `"}`)) }, "", false},
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, CodeCredentialUnavailable, true},
		{"429", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, CodeCredentialUnavailable, true},
		{"403", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, CodeCredentialRefused, false},
		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, CodeCredentialRefused, false},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, CodeCredentialUnavailable, true},
		{"cut off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, CodeCredentialUnavailable, true},
		{"huge", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, maxTokenAnswer+1)) }, CodeCredentialUnavailable, false},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }, CodeCredentialUnavailable, false},
		{"no value", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}")) }, CodeCredentialUnavailable, false},
		{"no JWT", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"value":"opaque"}`)) }, CodeCredentialUnavailable, false},
		{"long token", func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"value":"a.b.` + strings.Repeat("c", maxOIDCTokenBytes) + `"}`))
		}, CodeCredentialUnavailable, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(tt.handler)
			defer srv.Close()
			env := map[string]string{envRequestURL: srv.URL + "/idtoken?api-version=2.0", envRequestToken: "secret-bearer"}
			req, err := GitHubActions(lookupIn(env)).Credential(t.Context(), "https://x")
			wantCode(t, err, tt.code)
			if err == nil {
				if req.GetOidcToken() != token {
					t.Errorf("token %q", req.GetOidcToken())
				}
				return
			}
			var e *Error
			if errors.As(err, &e); e.Retryable != tt.retry {
				t.Errorf("retryable %t, want %t", e.Retryable, tt.retry)
			}
			if strings.Contains(err.Error(), "secret-bearer") {
				t.Errorf("the error holds the bearer token: %v", err)
			}
		})
	}
}

// TestAudienceEncoding: an audience is one query value, whatever is in it, and
// replaces one that is in the URL already.
func TestAudienceEncoding(t *testing.T) {
	const audience = "https://x/?a=b&audience=evil#f +%20"
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.Query()["audience"]
		if r.Header.Get("Authorization") != "bearer t" || r.URL.Query().Get("api-version") != "2.0" {
			w.WriteHeader(401)
			return
		}
		w.Write([]byte(`{"value":"a.b.c"}`))
	}))
	defer srv.Close()
	env := map[string]string{envRequestURL: srv.URL + "/?api-version=2.0&audience=other", envRequestToken: "t"}
	if _, err := GitHubActions(lookupIn(env)).Credential(t.Context(), audience); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != audience {
		t.Errorf("audience %q, want %q once", got, audience)
	}
}

// TestAudienceIsOurs: the token is made out to the URL that the user configured,
// and goes there only.
func TestAudienceIsOurs(t *testing.T) {
	s := clienttest.New(t)
	var token string
	s.OnExchange = func(_ context.Context, req *assayv1.ExchangeRequest) (*assayv1.ExchangeResponse, error) {
		token = req.GetOidcToken()
		// Whatever a server names here has no bearing on later tokens.
		return &assayv1.ExchangeResponse{SessionToken: "s", Caller: &assayv1.Caller{Issuer: "https://victim.example"}}, nil
	}
	c, _ := dial(t, s)
	for range 2 {
		if _, err := c.WhoAmI(t.Context()); err != nil {
			t.Fatal(err)
		}
		if token != "token for "+s.URL {
			t.Errorf("the server was given %q", token)
		}
	}
}
