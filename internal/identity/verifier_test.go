package identity

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
)

func TestVerifyOIDC(t *testing.T) {
	e := newEnv(t)
	v := e.verifier(t)
	token := e.issuer.Mint(testAudience, oidctest.Claims{
		"run_id": "12345678901234567", // not a float64
		"jti":    "one",
	})
	got, err := v.VerifyOIDC(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	const workflow = "octo-org/octo-app/.github/workflows/release.yml@refs/heads/main"
	const sha = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
	want := &Verified{
		Caller: &Caller{
			Kind:        KindGitHubActions,
			Issuer:      e.issuer.URL(),
			DisplayName: "octo-org/octo-app@refs/heads/main run 12345678901234567/1",
			GitHub: &GitHubActions{
				Repository: "octo-org/octo-app", RepositoryID: 476830123,
				RepositoryOwner: "octo-org", RepositoryOwnerID: testOwnerID, RepositoryVisibility: "private",
				WorkflowRef: workflow, WorkflowSHA: sha, JobWorkflowRef: workflow, JobWorkflowSHA: sha,
				Ref: "refs/heads/main", RefType: "branch", RefProtected: "true", SHA: sha,
				EventName: "push", Environment: "production", RunnerEnvironment: "github-hosted",
				RunID: 12345678901234567, RunNumber: 87, RunAttempt: 1,
				Actor: "octocat", ActorID: 583231, ServerURL: "https://github.com",
				Properties: []string{"environment=release"},
			},
		},
		ReplayKey: e.issuer.URL() + "\x00one",
		ExpiresAt: e.clock.Now().Add(5*time.Minute + defaultClockSkew),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if n := e.issuer.Requests(); n != 2 {
		t.Errorf("%d requests at the issuer; want 2, discovery and keys", n)
	}
	if _, err := v.VerifyOIDC(t.Context(), e.issuer.Mint(testAudience)); err != nil {
		t.Error(err)
	}
	if n := e.issuer.Requests(); n != 2 {
		t.Errorf("%d requests at the issuer after a second token; want 2: the keys are cached", n)
	}
}

// What GitHub really sends varies; all of this must go through.
func TestVerifyOIDCAccepts(t *testing.T) {
	e := newEnv(t)
	v := e.verifier(t)
	for name, over := range map[string]oidctest.Claims{
		"audience in a list of one": {"aud": []string{testAudience}},
		"no nbf":                    {"nbf": nil},
		"no environment":            {"environment": nil},
		"older server":              {"workflow_sha": nil, "job_workflow_sha": nil, "ref_type": nil, "ref_protected": nil, "run_number": nil, "actor_id": nil, "repository_visibility": nil},
		"pull request":              {"event_name": "pull_request", "ref": "refs/pull/7/merge", "head_ref": "fix/ünïcode-✓", "base_ref": "main"},
		"bot":                       {"actor": "dependabot[bot]"},
		"dynamic workflow":          {"job_workflow_ref": "octo-org/octo-app/dynamic/pages/pages-build-deployment@refs/heads/main"},
		"@ in path and branch":      {"workflow_ref": "octo-org/octo-app/.github/workflows/a@b.yml@refs/heads/x@y", "ref": "refs/heads/x@y"},
		"reusable at a commit":      {"job_workflow_ref": "other-org/flows/.github/workflows/build.yml@6113728f27ae82c7b1a177c8d03f9e96e0adf246"},
		"sha256 repository":         {"sha": strings.Repeat("0a", 32)},
		"expired within the skew":   {"exp": e.clock.Now().Add(-59 * time.Second).Unix(), "iat": e.clock.Now().Add(-6 * time.Minute).Unix()},
		"issued within the skew":    {"iat": e.clock.Now().Add(60 * time.Second).Unix(), "nbf": e.clock.Now().Add(60 * time.Second).Unix()},
		"an hour long":              {"exp": e.clock.Now().Add(time.Hour).Unix()},
		"sub of any form":           {"sub": "repo:octo-org@1/octo-app@2:evil"},
		"no sub":                    {"sub": nil},
		"unknown claims":            {"new_claim": map[string]any{"a": []int{1}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := v.VerifyOIDC(t.Context(), e.issuer.Mint(testAudience, over))
			if err != nil {
				t.Fatal(err)
			}
			data, err := got.Caller.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			back, err := UnmarshalCaller(data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got.Caller, back); diff != "" {
				t.Errorf("-verified +stored\n%s", diff)
			}
		})
	}
}

// A name is not an owner: a repository that somebody else registered under the
// same name has other ids.
func TestAllowedIDs(t *testing.T) {
	e := newEnv(t)
	repos := e.verifier(t, func(c *Config) { c.Issuers[0].AllowedRepositoryIDs = []int64{476830123} })
	for name, c := range map[string]struct {
		v    *Verifier
		over oidctest.Claims
		want refusal.Code
	}{
		"owner":                        {e.verifier(t), nil, ""},
		"owner and repository":         {repos, nil, ""},
		"same name, new owner":         {e.verifier(t), oidctest.Claims{"repository_owner_id": "65438922"}, CodeCallerNotAllowed},
		"same name, new repository":    {repos, oidctest.Claims{"repository_id": "476830124"}, CodeCallerNotAllowed},
		"id with the allowed inside":   {e.verifier(t), oidctest.Claims{"repository_owner_id": "654389210"}, CodeCallerNotAllowed},
		"id with the allowed at end":   {e.verifier(t), oidctest.Claims{"repository_owner_id": "165438921"}, CodeCallerNotAllowed},
		"sub of an allowed repository": {e.verifier(t), oidctest.Claims{"repository_owner_id": "1", "sub": "repo:octo-org/octo-app:ref:refs/heads/main"}, CodeCallerNotAllowed},
		"owner of an allowed id as repository": {e.verifier(t),
			oidctest.Claims{"repository_owner_id": "1", "repository_id": "65438921", "actor_id": "65438921"}, CodeCallerNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.v.VerifyOIDC(t.Context(), e.issuer.Mint(testAudience, c.over))
			wantCode(t, err, c.want)
		})
	}
}

func TestSandboxCallerSaysSo(t *testing.T) {
	e := newEnv(t)
	v := e.verifier(t, func(c *Config) { c.Issuers[0].Sandbox = true; c.Issuers[0].ServerURL = "https://git.example.com" })
	got, err := v.VerifyOIDC(t.Context(), e.issuer.Mint(testAudience))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Caller.Sandbox || got.Caller.GitHub.ServerURL != "https://git.example.com" {
		t.Errorf("caller %+v; want a sandbox caller of git.example.com", got.Caller)
	}
}

func TestNoIssuers(t *testing.T) {
	v, err := NewVerifier(Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.VerifyOIDC(t.Context(), newEnv(t).issuer.Mint(testAudience))
	wantCode(t, err, CodeIssuerUnknown)
}

// Two issuers with the same keys and jti are two: neither takes the other's
// tokens, and their replay keys differ.
func TestIssuersAreApart(t *testing.T) {
	a, b := newEnv(t), newEnv(t)
	v := a.verifier(t, func(c *Config) { c.Issuers = append(c.Issuers, b.issuerConfig()) })
	one, err := v.VerifyOIDC(t.Context(), a.issuer.Mint(testAudience, oidctest.Claims{"jti": "x"}))
	if err != nil {
		t.Fatal(err)
	}
	two, err := v.VerifyOIDC(t.Context(), b.issuer.Mint(testAudience, oidctest.Claims{"jti": "x"}))
	if err != nil {
		t.Fatal(err)
	}
	if one.ReplayKey == two.ReplayKey {
		t.Error("two issuers share a replay key")
	}
	// a signs, with its own key and kid, what claims to be of b.
	_, err = v.VerifyOIDC(t.Context(), a.issuer.Mint(testAudience, oidctest.Claims{"iss": b.issuer.URL()}))
	wantCode(t, err, CodeTokenKeyUnknown)
}

func TestNewVerifierRefuses(t *testing.T) {
	good := func() Config {
		return Config{Audience: []string{testAudience}, Issuers: []IssuerConfig{{
			URL: "https://token.actions.githubusercontent.com", AllowedOwnerIDs: []int64{1},
		}}}
	}
	if _, err := NewVerifier(good()); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*Config){
		"no audience":            func(c *Config) { c.Audience = nil },
		"empty audience":         func(c *Config) { c.Audience = []string{" "} },
		"no owners":              func(c *Config) { c.Issuers[0].AllowedOwnerIDs = nil },
		"owner zero":             func(c *Config) { c.Issuers[0].AllowedOwnerIDs = []int64{0} },
		"repository negative":    func(c *Config) { c.Issuers[0].AllowedRepositoryIDs = []int64{-1} },
		"http":                   func(c *Config) { c.Issuers[0].URL = "http://token.example.com" },
		"http, loopback in name": func(c *Config) { c.Issuers[0].URL = "http://127.0.0.1.example.com" },
		"no scheme":              func(c *Config) { c.Issuers[0].URL = "token.example.com" },
		"file":                   func(c *Config) { c.Issuers[0].URL = "file:///etc/passwd" },
		"empty":                  func(c *Config) { c.Issuers[0].URL = "" },
		"query":                  func(c *Config) { c.Issuers[0].URL += "?x" },
		"empty query":            func(c *Config) { c.Issuers[0].URL += "?" },
		"fragment":               func(c *Config) { c.Issuers[0].URL += "#x" },
		"user":                   func(c *Config) { c.Issuers[0].URL = "https://a@token.example.com" },
		"not canonical":          func(c *Config) { c.Issuers[0].URL = "HTTPS://token.example.com" },
		"pattern":                func(c *Config) { c.Issuers[0].URL = "https://*.example.com/ x" },
		"twice":                  func(c *Config) { c.Issuers = append(c.Issuers, c.Issuers[0]) },
		"sandbox not loopback":   func(c *Config) { c.Issuers[0].Sandbox = true },
		"type":                   func(c *Config) { c.Issuers[0].Type = "gitlab" },
		"alg none":               func(c *Config) { c.Issuers[0].Algorithms = []string{"RS256", "none"} },
		"alg HS256":              func(c *Config) { c.Issuers[0].Algorithms = []string{"HS256"} },
		"alg RS1":                func(c *Config) { c.Issuers[0].Algorithms = []string{"RS1"} },
		"jwks http":              func(c *Config) { c.Issuers[0].JWKSURI = "http://keys.example.com" },
		"server slash":           func(c *Config) { c.Issuers[0].ServerURL = "https://github.com/" },
		"server http":            func(c *Config) { c.Issuers[0].ServerURL = "http://github.com" },
		"skew":                   func(c *Config) { c.ClockSkew = 5*time.Minute + 1 },
		"lifetime":               func(c *Config) { c.MaxTokenLifetime = 25 * time.Hour },
		"lifetime negative":      func(c *Config) { c.MaxTokenLifetime = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good()
			edit(&cfg)
			_, err := NewVerifier(cfg)
			wantCode(t, err, CodeIdentityConfigInvalid)
		})
	}
	for _, url := range []string{"http://127.0.0.1:8780/oidc", "http://localhost:1", "http://[::1]:1"} {
		cfg := good()
		cfg.Issuers[0].URL, cfg.Issuers[0].Sandbox = url, true
		if _, err := NewVerifier(cfg); err != nil {
			t.Errorf("sandbox at %s: %v", url, err)
		}
	}
}

func TestVerifyOIDCWithoutIssuerReachable(t *testing.T) {
	e := newEnv(t)
	token := e.issuer.Mint(testAudience)
	v := e.verifier(t, func(c *Config) { c.HTTPClient = &http.Client{Transport: refusingTransport{}} })
	_, err := v.VerifyOIDC(t.Context(), token)
	wantCode(t, err, CodeIssuerUnavailable)
}

// A caller who goes away is let go; the fetch goes on for the others.
func TestVerifyOIDCCancelled(t *testing.T) {
	e := newEnv(t)
	answer := make(chan struct{})
	e.intercept = func(http.ResponseWriter, *http.Request) bool { <-answer; return false }
	v, token := e.verifier(t), e.issuer.Mint(testAudience)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := v.VerifyOIDC(ctx, token)
	wantCode(t, err, CodeIssuerUnavailable)
	close(answer)
	_, err = v.VerifyOIDC(t.Context(), token)
	wantCode(t, err, "")
	if n := e.issuer.Requests(); n != 2 {
		t.Errorf("%d requests; want 2", n)
	}
}

type refusingTransport struct{}

func (refusingTransport) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, context.DeadlineExceeded
}

func BenchmarkVerifyOIDC(b *testing.B) {
	e := newEnv(b)
	v := e.verifier(b)
	token := e.issuer.Mint(testAudience)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.VerifyOIDC(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
