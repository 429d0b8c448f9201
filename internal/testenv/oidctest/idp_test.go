package oidctest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	clientID = "0oa1assay"
	redirect = "http://127.0.0.1:49152/callback"
)

// serveIdP runs an identity provider and returns what a standard client knows.
func serveIdP(t *testing.T) (*IdP, *oidc.Provider, oauth2.Config) {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	p, err := NewIdP(IdPConfig{BaseURL: "http://" + srv.Listener.Addr().String(), ClientID: clientID, Device: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = p.Handler()
	srv.Start()
	t.Cleanup(srv.Close)
	provider, err := oidc.NewProvider(t.Context(), p.URL())
	if err != nil {
		t.Fatal(err)
	}
	endpoint := provider.Endpoint()
	endpoint.AuthStyle = oauth2.AuthStyleInParams
	return p, provider, oauth2.Config{ClientID: clientID, Endpoint: endpoint, RedirectURL: redirect, Scopes: []string{"openid", "email"}}
}

// authorize asks for the address and returns what the provider redirects with.
func authorize(t *testing.T, address string) (int, url.Values) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	to, err := resp.Location()
	if err != nil {
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, url.Values{"body": {string(body)}}
	}
	if !strings.HasPrefix(to.String(), redirect) {
		t.Errorf("redirects to %s", to)
	}
	return resp.StatusCode, to.Query()
}

// A standard client logs in by code and PKCE, and the token is what it asked for.
func TestLoginByCode(t *testing.T) {
	p, provider, client := serveIdP(t)
	verifier := oauth2.GenerateVerifier()
	_, answer := authorize(t, client.AuthCodeURL("the-state", oauth2.S256ChallengeOption(verifier), oidc.Nonce("the-nonce")))
	if answer.Get("state") != "the-state" || answer.Get("code") == "" {
		t.Fatalf("redirected with %v", answer)
	}
	token, err := client.Exchange(t.Context(), answer.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := provider.Verifier(&oidc.Config{ClientID: clientID}).Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Email  string
		Groups []string
	}
	if err := id.Claims(&claims); err != nil || id.Nonce != "the-nonce" || claims.Email != "alice@example.com" || len(claims.Groups) != 2 {
		t.Errorf("%+v %+v %v", id, claims, err)
	}
	// A code works once.
	_, err = client.Exchange(t.Context(), answer.Get("code"), oauth2.VerifierOption(verifier))
	wantOAuth(t, err, "invalid_grant")

	p.Tamper(func(c Claims) Claims { return c.With(Claims{"nonce": "another"}) }, func(q url.Values) { q.Set("state", "another") })
	_, answer = authorize(t, client.AuthCodeURL("the-state", oauth2.S256ChallengeOption(verifier), oidc.Nonce("the-nonce")))
	token, err = client.Exchange(t.Context(), answer.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil || answer.Get("state") != "another" || payload(t, token.Extra("id_token").(string))["nonce"] != "another" {
		t.Errorf("%v %v: not tampered with", answer, err)
	}
}

func TestLoginRefuses(t *testing.T) {
	_, _, client := serveIdP(t)
	verifier := oauth2.GenerateVerifier()
	challenge := oauth2.S256ChallengeOption(verifier)
	for name, c := range map[string]struct {
		edit func(*oauth2.Config)
		opts []oauth2.AuthCodeOption
		want string
	}{
		"no challenge":        {func(*oauth2.Config) {}, nil, "invalid_request"},
		"plain challenge":     {func(*oauth2.Config) {}, []oauth2.AuthCodeOption{challenge, oauth2.SetAuthURLParam("code_challenge_method", "plain")}, "invalid_request"},
		"no openid":           {func(c *oauth2.Config) { c.Scopes = []string{"email"} }, []oauth2.AuthCodeOption{challenge}, "invalid_scope"},
		"implicit":            {func(*oauth2.Config) {}, []oauth2.AuthCodeOption{challenge, oauth2.SetAuthURLParam("response_type", "token")}, "unsupported_response_type"},
		"another client":      {func(c *oauth2.Config) { c.ClientID = "x" }, []oauth2.AuthCodeOption{challenge}, ""},
		"redirect elsewhere":  {func(c *oauth2.Config) { c.RedirectURL = "https://evil.example/" }, []oauth2.AuthCodeOption{challenge}, ""},
		"redirect by a name":  {func(c *oauth2.Config) { c.RedirectURL = "http://localhost:1/" }, []oauth2.AuthCodeOption{challenge}, ""},
		"redirect much alike": {func(c *oauth2.Config) { c.RedirectURL = "http://127.0.0.1.evil.example/" }, []oauth2.AuthCodeOption{challenge}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := client
			c.edit(&cfg)
			status, answer := authorize(t, cfg.AuthCodeURL("s", c.opts...))
			if answer.Get("code") != "" || answer.Get("error") != c.want || (status == http.StatusBadRequest) != (c.want == "") {
				t.Errorf("%d %v; want error %q", status, answer, c.want)
			}
		})
	}
	_, answer := authorize(t, client.AuthCodeURL("s", challenge))
	_, err := client.Exchange(t.Context(), answer.Get("code"), oauth2.VerifierOption(oauth2.GenerateVerifier()))
	wantOAuth(t, err, "invalid_grant")
}

func TestLoginByDevice(t *testing.T) {
	p, _, client := serveIdP(t)
	post := func(path string, form url.Values) (int, map[string]any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL()+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var answer map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, answer
	}
	poll := func(d *oauth2.DeviceAuthResponse) map[string]any {
		_, answer := post("/token", url.Values{"client_id": {clientID}, "device_code": {d.DeviceCode}, "grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}})
		return answer
	}
	client.Endpoint.DeviceAuthURL = p.URL() + "/device_authorization"
	begin := func() *oauth2.DeviceAuthResponse {
		d, err := client.DeviceAuth(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := begin()
	if got := poll(d); got["error"] != "authorization_pending" {
		t.Errorf("%v", got)
	}
	if p.ApproveDevice("unknown", true) || !p.ApproveDevice(d.UserCode, true) {
		t.Error("the device was not found by its code")
	}
	if got := poll(d); got["id_token"] == nil {
		t.Errorf("%v", got)
	}
	if got := poll(d); got["error"] != "expired_token" {
		t.Errorf("a device code works twice: %v", got)
	}
	d = begin()
	p.ApproveDevice(d.UserCode, false)
	if got := poll(d); got["error"] != "access_denied" {
		t.Errorf("%v", got)
	}
	if status, got := post("/device_authorization", url.Values{"client_id": {"x"}}); status != http.StatusBadRequest || got["error"] != "invalid_client" {
		t.Errorf("%d %v", status, got)
	}
}

// The jobs of other platforms are issued as they are given.
func TestOtherPlatforms(t *testing.T) {
	for name, job := range map[string]Claims{"gitlab": GitLabJob(), "buildkite": BuildkiteJob(), "aws": WebIdentity("111122223333", "deploy", map[string]string{"a": "b"})} {
		i, err := New(Config{BaseURL: "http://127.0.0.1:1", Job: job})
		if err != nil {
			t.Fatal(err)
		}
		claims := payload(t, i.Mint("x", Claims{"jti": nil}))
		if claims["sub"] != job["sub"] || claims["jti"] != nil || claims["repository"] != nil || claims["iss"] != i.URL() {
			t.Errorf("%s: %v", name, claims)
		}
	}
}

func wantOAuth(t *testing.T, err error, code string) {
	t.Helper()
	var e *oauth2.RetrieveError
	if !errors.As(err, &e) || e.ErrorCode != code || errors.Is(err, context.Canceled) {
		t.Errorf("%v; want %s", err, code)
	}
}
