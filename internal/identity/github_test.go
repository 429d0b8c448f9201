package identity

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
)

// GitHub has several issuers. Each is configured by its whole name, and believed
// for itself alone.
func TestGitHubIssuers(t *testing.T) {
	t.Parallel()
	issuers := []IssuerConfig{
		{URL: "https://token.actions.githubusercontent.com"},
		{URL: "https://token.actions.githubusercontent.com/octo-enterprise"},
		{URL: "https://token.actions.octocorp.ghe.com"},
		{URL: "https://git.example.com/_services/token", ServerURL: "https://git.example.com"},
	}
	servers := map[string]string{
		issuers[0].URL: "https://github.com", issuers[1].URL: "https://github.com",
		issuers[2].URL: "https://octocorp.ghe.com", issuers[3].URL: "https://git.example.com",
	}
	for i := range issuers {
		issuers[i].AllowedOwnerIDs = []int64{testOwnerID}
	}
	e := newEnv(t)
	v := e.verifier(t, func(c *Config) { c.Issuers = issuers })
	set := jwks(jwk(testKey().Public(), e.issuer.KeyID(), "RS256"))
	for _, ic := range issuers {
		// The keys are of each issuer; what is fetched is of keyring_test.go.
		keys, _, err := parseKeySet([]byte(set))
		if err != nil {
			t.Fatal(err)
		}
		ring := v.issuers[ic.URL].keys
		ring.set, ring.fetched = keys, e.clock.Now()
	}
	for _, ic := range issuers {
		got, err := e.verify(t, v, oidctest.Claims{"iss": ic.URL})
		if err != nil {
			t.Fatal(err)
		}
		server := servers[ic.URL]
		if got.Caller.Issuer != ic.URL || got.Caller.GitHub.ServerURL != server || !strings.HasPrefix(got.ReplayKey, ic.URL+"\x00") {
			t.Errorf("%s: %+v", ic.URL, got.Caller)
		}
	}
	for _, iss := range []string{
		"https://token.actions.githubusercontent.com/",
		"https://token.actions.githubusercontent.com/octo-enterprise/",
		"https://token.actions.githubusercontent.com/octo-enterprise2",
		"https://token.actions.githubusercontent.com/octo",
		"https://token.actions.githubusercontent.com/OCTO-ENTERPRISE",
		"https://token.actions.evil.ghe.com",
		"https://token.actions.octocorp.ghe.com.evil.example",
		"https://git.example.com/_services/token/",
		"https://git.example.com",
	} {
		_, err := e.verify(t, v, oidctest.Claims{"iss": iss})
		wantCode(t, err, CodeIssuerUnknown)
	}
}

// An issuer vouches for its own server's repositories: GHES's acme/app is never told
// as that of github.com, nor the other way round.
func TestGitHubServer(t *testing.T) {
	t.Parallel()
	const loopback = "http://127.0.0.1:8780"
	for _, c := range []struct {
		issuer, server string
		want           string // "": refused
	}{
		{"https://token.actions.githubusercontent.com", "", "https://github.com"},
		{"https://token.actions.githubusercontent.com", "https://github.com", "https://github.com"},
		{"https://token.actions.githubusercontent.com/octo-enterprise", "", "https://github.com"},
		{"https://token.actions.githubusercontent.com", "https://git.example.com", ""},
		{"https://token.actions.githubusercontent.com", "https://token.actions.githubusercontent.com", ""},
		{"https://token.actions.octocorp.ghe.com", "", "https://octocorp.ghe.com"},
		{"https://token.actions.octocorp.ghe.com", "https://octocorp.ghe.com", "https://octocorp.ghe.com"},
		{"https://token.actions.octocorp.ghe.com", "https://github.com", ""},
		{"https://token.actions.octocorp.ghe.com", "https://other.ghe.com", ""},
		{"https://token.actions.a.b.ghe.com", "", ""},
		{"https://token.actions.ghe.com", "", ""},
		{"https://token.actions.octocorp.ghe.com.evil.example", "", ""},
		{"https://token.actions.githubusercontent.com.evil.example", "", ""},
		{"https://token.actions.githubusercontent.com.evil.example", "https://github.com", ""},
		{"https://token.actions.githubusercontent.com:8443", "", ""},
		{"https://token.actions.GitHubUserContent.com", "", ""},
		{"https://git.example.com/_services/token", "", ""},
		{"https://git.example.com/_services/token", "https://github.com", ""},
		{"https://git.example.com/_services/token", "https://example.com", ""},
		{"https://git.example.com/_services/token", "https://git.example.com:8443", ""},
		{"https://git.example.com/_services/token", "https://git.example.com.evil.example", ""},
		{"https://git.example.com/_services/token", "http://git.example.com", ""},
		{"https://git.example.com/_services/token", "https://git.example.com", "https://git.example.com"},
		{"https://git.example.com:8443/_services/token", "https://git.example.com:8443", "https://git.example.com:8443"},
		{loopback, "", "https://github.com"},
		{loopback, "https://git.example.com", "https://git.example.com"},
	} {
		v, err := NewVerifier(Config{Audience: []string{testAudience}, Issuers: []IssuerConfig{{URL: c.issuer, ServerURL: c.server, AllowedOwnerIDs: []int64{1}}}})
		if c.want == "" {
			wantCode(t, err, CodeIdentityConfigInvalid)
			continue
		}
		if err != nil || v.issuers[c.issuer].ServerURL != c.want {
			t.Errorf("%s, %q: %v; want %s", c.issuer, c.server, err, c.want)
		}
	}
}

// CVE-class of large ids in floating point: every id of a run stays itself.
func TestGitHubIDsBeyondFloat(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	v := e.verifier(t)
	for _, id := range []string{"9007199254740993", "12345678901234567", "9223372036854775807"} {
		got, err := e.verify(t, v, oidctest.Claims{"run_id": id, "repository_id": id, "actor_id": id})
		if err != nil {
			t.Fatal(err)
		}
		stored := string(must(got.Caller.Marshal()))
		for _, member := range []string{`"run_id":` + id, `"repository_id":` + id, `"actor_id":` + id} {
			if !strings.Contains(stored, member+",") {
				t.Errorf("%s is not in %s", member, stored)
			}
		}
	}
}

func TestGitHubProperties(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	v := e.verifier(t)
	for name, c := range map[string]struct {
		over oidctest.Claims
		want []string
		code refusal.Code
	}{
		"one":           {nil, []string{"environment=release"}, ""},
		"none":          {oidctest.Claims{"repo_property_environment": nil}, nil, ""},
		"null":          {oidctest.Claims{"repo_property_environment": json.RawMessage("null")}, nil, ""},
		"a list":        {oidctest.Claims{"repo_property_team": []string{"web", "api", "web"}}, []string{"environment=release", "team=api", "team=web"}, ""},
		"true or false": {oidctest.Claims{"repo_property_pci": true, "repo_property_pii": "false"}, []string{"environment=release", "pci=true", "pii=false"}, ""},
		"value with =":  {oidctest.Claims{"repo_property_environment": "a=b"}, []string{"environment=a=b"}, ""},
		"name with =":   {oidctest.Claims{"repo_property_a=b": "c"}, nil, CodeTokenClaimInvalid},
		"no name":       {oidctest.Claims{"repo_property_": "c"}, nil, CodeTokenClaimInvalid},
		"an object":     {oidctest.Claims{"repo_property_a": map[string]string{"b": "c"}}, nil, CodeTokenClaimInvalid},
		"two lines":     {oidctest.Claims{"repo_property_a": "b\nrole=admin"}, nil, CodeTokenClaimInvalid},
		"of 2 KiB":      {oidctest.Claims{"repo_property_a": strings.Repeat("b", 2<<10)}, nil, CodeTokenClaimInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := e.verify(t, v, c.over)
			wantCode(t, err, c.code)
			if err == nil {
				if diff := cmp.Diff(c.want, got.Caller.GitHub.Properties); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			}
		})
	}
}

func TestGitHubPullRequest(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	v := e.verifier(t)
	for _, c := range []struct {
		event, ref string
		want       bool
	}{
		{"push", "refs/heads/main", false},
		{"release", "refs/tags/v1", false},
		{"workflow_dispatch", "refs/heads/main", false},
		{"merge_group", "refs/heads/gh-readonly-queue/main/pr-7-abc", false},
		{"pull_request", "refs/pull/7/merge", true},
		{"pull_request_target", "refs/heads/main", true},
		{"pull_request_review", "refs/pull/7/merge", true},
		{"pull_request_review_comment", "refs/pull/7/merge", true},
		{"workflow_dispatch", "refs/pull/7/head", true},
	} {
		got, err := e.verify(t, v, oidctest.Claims{"event_name": c.event, "ref": c.ref})
		if err != nil || got.Caller.GitHub.PullRequest() != c.want {
			t.Errorf("%s of %s: %v, %v; want %v", c.event, c.ref, got.Caller.GitHub.PullRequest(), err, c.want)
		}
	}
}

// The workflow that started and the one that defines the job are two facts: who
// wrote the builder, and who is built.
func TestGitHubReusableWorkflow(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	sha := strings.Repeat("b", 40)
	got, err := e.verify(t, e.verifier(t), oidctest.Claims{
		"job_workflow_ref": "acme/builders/.github/workflows/build.yml@refs/tags/v2", "job_workflow_sha": sha,
	})
	if err != nil {
		t.Fatal(err)
	}
	g := got.Caller.GitHub
	if g.JobWorkflowRef != "acme/builders/.github/workflows/build.yml@refs/tags/v2" || g.JobWorkflowSHA != sha ||
		g.WorkflowRef != "octo-org/octo-app/.github/workflows/release.yml@refs/heads/main" || g.Repository != "octo-org/octo-app" || g.WorkflowSHA == sha || g.SHA == sha {
		t.Errorf("%+v", g)
	}
}
