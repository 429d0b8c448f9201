package oidctest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// serve runs an issuer, under a path if base has one.
func serve(t *testing.T, base string) *Issuer {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	i, err := New(Config{BaseURL: "http://" + srv.Listener.Addr().String() + base})
	if err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = i.Handler()
	srv.Start()
	t.Cleanup(srv.Close)
	return i
}

func get(t *testing.T, url, authorization string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, body
}

// A client that follows the standards, and not this repository, gets from the
// environment to a verified token.
func TestJobGetsItsToken(t *testing.T) {
	for _, base := range []string{"", "/oidc"} {
		i := serve(t, base)
		env := map[string]string{}
		for _, line := range i.Env() {
			name, value, ok := strings.Cut(line, "=")
			if _, twice := env[name]; !ok || twice {
				t.Errorf("environment line %q", line)
			}
			env[name] = value
		}
		status, header, body := get(t, env["ACTIONS_ID_TOKEN_REQUEST_URL"]+"&audience=https%3A%2F%2Fassay.example", "bearer "+env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"])
		if status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "application/json") {
			t.Fatalf("%d %v %s", status, header, body)
		}
		var answer struct {
			Count int
			Value string
		}
		if err := json.Unmarshal(body, &answer); err != nil || answer.Count != len(answer.Value) {
			t.Fatalf("%s: %v", body, err)
		}

		var doc struct {
			Issuer  string
			JWKSURI string `json:"jwks_uri"`
		}
		_, _, body = get(t, i.URL()+"/.well-known/openid-configuration", "")
		if err := json.Unmarshal(body, &doc); err != nil || doc.Issuer != i.URL() {
			t.Fatalf("%s: %v", body, err)
		}
		var keys jose.JSONWebKeySet
		_, _, body = get(t, doc.JWKSURI, "")
		if err := json.Unmarshal(body, &keys); err != nil || len(keys.Keys) != 1 {
			t.Fatalf("%s: %v", body, err)
		}
		tok, err := jwt.ParseSigned(answer.Value, []jose.SignatureAlgorithm{jose.RS256})
		if err != nil {
			t.Fatal(err)
		}
		var claims map[string]any
		if err := tok.Claims(keys, &claims); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]any{
			"iss": i.URL(), "aud": "https://assay.example", "repository_owner_id": "65438921",
			"sub": "repo:octo-org/octo-app:environment:production", "run_id": env["GITHUB_RUN_ID"], "sha": env["GITHUB_SHA"],
		} {
			if claims[name] != want {
				t.Errorf("claim %s is %v; want %v", name, claims[name], want)
			}
		}
		if i.Requests() != 2 {
			t.Errorf("%d requests counted; want 2", i.Requests())
		}
	}
}

func TestTokenEndpointRefuses(t *testing.T) {
	i := serve(t, "")
	for _, auth := range []string{"", "bearer ", "bearer x", "basic " + i.RequestToken(), i.RequestToken(), "bearer " + i.RequestToken() + "x"} {
		if status, _, body := get(t, i.RequestURL()+"&audience=x", auth); status != http.StatusUnauthorized {
			t.Errorf("%q: %d %s", auth, status, body)
		}
	}
	if status, _, _ := get(t, i.URL()+"/", ""); status != http.StatusNotFound {
		t.Errorf("/: %d", status)
	}
	resp, err := http.Post(i.RequestURL(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
}

func payload(t *testing.T, token string) (claims map[string]any) {
	t.Helper()
	tok, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.UnsafeClaimsWithoutVerification(&claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestSetJob(t *testing.T) {
	i := serve(t, "")
	i.SetJob(Claims{"event_name": "pull_request", "ref": "refs/pull/7/merge", "environment": nil})
	claims := payload(t, i.Mint("x"))
	if _, ok := claims["environment"]; ok || claims["sub"] != "repo:octo-org/octo-app:pull_request" {
		t.Errorf("claims %v", claims)
	}
	for _, line := range []string{"GITHUB_EVENT_NAME=pull_request", "GITHUB_REF=refs/pull/7/merge", "GITHUB_REF_NAME=7/merge"} {
		if !slices.Contains(i.Env(), line) {
			t.Errorf("the environment lacks %s", line)
		}
	}
	if claims := payload(t, i.Mint("x", Claims{"exp": nil, "sub": nil})); claims["exp"] != nil || claims["sub"] != nil {
		t.Errorf("claims %v; exp and sub were removed", claims)
	}
	status, _, body := get(t, i.RequestURL(), "Bearer "+i.RequestToken())
	var answer struct{ Value string }
	if err := json.Unmarshal(body, &answer); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	if claims := payload(t, answer.Value); claims["aud"] != "https://github.com/octo-org" {
		t.Errorf("default audience %v", claims["aud"])
	}
}

func TestNewRefuses(t *testing.T) {
	for _, base := range []string{"", "/oidc", "http://127.0.0.1:1/", "::"} {
		if _, err := New(Config{BaseURL: base}); err == nil {
			t.Errorf("base URL %q was taken", base)
		}
	}
}
