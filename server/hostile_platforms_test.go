package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc/codes"
)

// issuersOn are issuers on one host, by their path, that share a key: what tells
// them apart is the iss claim and nothing else.
func issuersOn(t testing.TB, w *world, jobs map[string]oidctest.Claims) map[string]*oidctest.Issuer {
	t.Helper()
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	key, err := issuerKey()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*oidctest.Issuer{}
	for path, job := range jobs {
		if out[path], err = oidctest.New(oidctest.Config{BaseURL: srv.URL + path, Key: key, Now: w.now, Job: job}); err != nil {
			t.Fatal(err)
		}
		mux.Handle(path+"/", out[path].Handler())
	}
	return out
}

// platform is an issuer of jobs whose claims a test chooses.
func platform(t testing.TB, w *world, job oidctest.Claims) *oidctest.Issuer {
	t.Helper()
	return issuersOn(t, w, map[string]oidctest.Claims{"": job})[""]
}

// refused exchanges tokens that must open nothing.
type refusedToken struct {
	token  string
	code   codes.Code
	reason string
}

func (l *life) refuses(t *testing.T, cases map[string]refusedToken) {
	t.Helper()
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			before := l.kept(t)
			_, err := l.exchange(t.Context(), tt.token)
			wantReason(t, err, tt.code, tt.reason)
			l.unchanged(t, before)
		})
	}
}

func (l *life) admit(t testing.TB, token string) (*assayv1.Caller, *assayv1.Attestation) {
	t.Helper()
	resp, err := l.exchange(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetCaller(), l.digests(t, bearing(t.Context(), resp.GetSessionToken()), subject("app", token)).GetAttestation()
}

// TestGitHubIssuers: a server of one's own, an enterprise's slug and github.com are
// three issuers with three sets of ids; nothing but the exact issuer is one of them.
func TestGitHubIssuers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	on := issuersOn(t, w, map[string]oidctest.Claims{
		"": nil, "/_services/token": nil, "/octo-enterprise": nil, "/octo-enterprise2": nil, "/_services/token/octo": nil,
	})
	ghes, slug := on["/_services/token"], on["/octo-enterprise"]
	l := w.start(t, func(c *server.Config) {
		c.Identity.Issuers = append(c.Identity.Issuers,
			server.IssuerConf{URL: ghes.URL(), Type: "github-actions", AllowedOwnerIDs: []int64{ownerID}, AllowedRepositoryIDs: []int64{476830123}, ServerURL: "https://github.acme.example"},
			server.IssuerConf{URL: slug.URL(), Type: "github-actions", AllowedOwnerIDs: []int64{ownerID}})
	})
	const maxID = "9223372036854775807"
	var seen []string
	for name, tt := range map[string]struct {
		issuer *oidctest.Issuer
		server string
	}{"github.com": {w.issuer, "https://github.com"}, "GHES": {ghes, "https://github.acme.example"}, "slug": {slug, "https://github.com"}} {
		for _, run := range []string{"12345678901234567", "9007199254740993", maxID} {
			c, a := l.admit(t, tt.issuer.Mint(w.instance, oidctest.Claims{"run_id": run}))
			invocation := tt.server + "/octo-org/octo-app/actions/runs/" + run + "/attempts/1"
			if c.GetIssuer() != tt.issuer.URL() || fmt.Sprint(c.GetGithubActions().GetRunId()) != run || c.GetGithubActions().GetServerUrl() != tt.server {
				t.Errorf("%s: caller %v", name, c)
			}
			st := statementOf(t, a.GetBundle())
			if a.GetInvocationId() != invocation || a.GetSourceUri() != "git+"+tt.server+"/octo-org/octo-app@refs/heads/main" || !strings.Contains(string(st.Predicate), `"`+invocation+`"`) {
				t.Errorf("%s: attestation of %s, source %s\n%s", name, a.GetInvocationId(), a.GetSourceUri(), st.Predicate)
			}
			seen = append(seen, a.GetAttestationId())
		}
	}
	// Equal ids of two issuers are two owners: neither reads what the other made.
	audit := assayv1.NewAuditServiceClient(l.conn)
	for _, issuer := range []*oidctest.Issuer{w.issuer, ghes, slug} {
		var mine int
		ctx := l.session(t, issuer.Mint(w.instance))
		for _, id := range seen {
			switch resp, err := audit.GetAttestation(ctx, &assayv1.GetAttestationRequest{AttestationId: id}); {
			case err != nil:
				wantReason(t, err, codes.NotFound, "NOT_FOUND")
			case resp.GetAttestation().GetCaller().GetIssuer() == issuer.URL():
				mine++
			default:
				t.Errorf("%s reads what %s made", issuer.URL(), resp.GetAttestation().GetCaller().GetIssuer())
			}
		}
		if mine != 3 {
			t.Errorf("%s reads %d of its own", issuer.URL(), mine)
		}
	}

	const unauthenticated, denied = codes.Unauthenticated, codes.PermissionDenied
	mint := func(i *oidctest.Issuer, c oidctest.Claims) string { return i.Mint(w.instance, c) }
	cases := map[string]refusedToken{
		"the host alone":               {mint(on[""], nil), unauthenticated, "ISSUER_UNKNOWN"},
		"a longer slug":                {mint(on["/octo-enterprise2"], nil), unauthenticated, "ISSUER_UNKNOWN"},
		"below the issuer":             {mint(on["/_services/token/octo"], nil), unauthenticated, "ISSUER_UNKNOWN"},
		"slug with a slash":            {mint(slug, oidctest.Claims{"iss": slug.URL() + "/"}), unauthenticated, "ISSUER_UNKNOWN"},
		"slug in capitals":             {mint(slug, oidctest.Claims{"iss": strings.Replace(slug.URL(), "octo", "OCTO", 1)}), unauthenticated, "ISSUER_UNKNOWN"},
		"slug with an escape":          {mint(slug, oidctest.Claims{"iss": strings.Replace(slug.URL(), "octo", "%6fcto", 1)}), unauthenticated, "ISSUER_UNKNOWN"},
		"slug by a detour":             {mint(slug, oidctest.Claims{"iss": slug.URL() + "2/../octo-enterprise"}), unauthenticated, "ISSUER_UNKNOWN"},
		"ours after a query":           {mint(slug, oidctest.Claims{"iss": "https://evil.example/?" + slug.URL()}), unauthenticated, "ISSUER_UNKNOWN"},
		"ours as user":                 {mint(slug, oidctest.Claims{"iss": "https://token.actions.githubusercontent.com@evil.example"}), unauthenticated, "ISSUER_UNKNOWN"},
		"repository id with a digit":   {mint(ghes, oidctest.Claims{"repository_id": "4768301234"}), denied, "CALLER_NOT_ALLOWED"},
		"repository id inside":         {mint(ghes, oidctest.Claims{"repository_id": "1476830123"}), denied, "CALLER_NOT_ALLOWED"},
		"repository made anew":         {mint(ghes, oidctest.Claims{"repository_id": "999"}), denied, "CALLER_NOT_ALLOWED"}, // the same name, another id
		"owner id in front of ours":    {mint(slug, oidctest.Claims{"repository_owner_id": "1654389210"}), denied, "CALLER_NOT_ALLOWED"},
		"owner id that contains ours":  {mint(slug, oidctest.Claims{"repository_owner_id": "654389210"}), denied, "CALLER_NOT_ALLOWED"},
		"run id above 64 bits":         {mint(slug, oidctest.Claims{"run_id": "9223372036854775808"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"run id in scientific writing": {mint(slug, oidctest.Claims{"run_id": "1.2345678901234567e+16"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"run id as a number":           {mint(slug, oidctest.Claims{"run_id": json.Number("12345678901234567")}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		// Another kind of token of the same issuer.
		"no job": {mint(slug, oidctest.Claims{"job_workflow_ref": nil, "run_id": nil, "workflow_ref": nil}), unauthenticated, "TOKEN_CLAIM_MISSING"},
	}
	l.refuses(t, cases)
}

// TestGitHubBuilders: which builder a job is follows from its runner and from the
// exact reusable workflow, and pull requests are told as what they are.
func TestGitHubBuilders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	const sha, workflow = "1111111111111111111111111111111111111111", "octo-org/builders/.github/workflows/build.yml"
	idp := people(t, w)
	l := w.start(t, withPeople(idp), func(c *server.Config) {
		c.Provenance.TrustedWorkflows = []server.TrustedWorkflowConf{{Workflow: workflow, Ref: "refs/tags/v2", SHA: sha}}
		c.Access.Roles = append(c.Access.Roles, server.RoleConf{Role: "auditor", Members: []server.MemberConf{{Issuer: w.issuer.URL(), RepositoryOwnerID: fmt.Sprint(ownerID), Property: "environment=release"}}})
	})
	reusable := func(ref, at string) oidctest.Claims {
		return oidctest.Claims{"job_workflow_ref": ref, "job_workflow_sha": at}
	}
	for name, tt := range map[string]struct {
		claims oidctest.Claims
		path   string
		level  int32
	}{
		"direct":                 {nil, "github-hosted", 2},
		"trusted":                {reusable(workflow+"@refs/tags/v2", sha), "trusted-workflow", 3},
		"trusted, self-hosted":   {reusable(workflow+"@refs/tags/v2", sha).With(oidctest.Claims{"runner_environment": "self-hosted"}), "self-hosted", 1},
		"self-hosted":            {oidctest.Claims{"runner_environment": "self-hosted"}, "self-hosted", 1},
		"the tag moved":          {reusable(workflow+"@refs/tags/v2", strings.Repeat("2", 40)), "github-hosted", 2},
		"another tag":            {reusable(workflow+"@refs/tags/v22", sha), "github-hosted", 2},
		"a branch of the name":   {reusable(workflow+"@refs/heads/v2", sha), "github-hosted", 2},
		"another owner":          {reusable("evil-"+workflow+"@refs/tags/v2", sha), "github-hosted", 2},
		"a longer repository":    {reusable(strings.Replace(workflow, "builders", "builders-evil", 1)+"@refs/tags/v2", sha), "github-hosted", 2},
		"the name in the ref":    {reusable("evil/x/.github/workflows/a.yml@refs/heads/"+workflow+"@refs/tags/v2", sha), "github-hosted", 2},
		"started, not reusable":  {oidctest.Claims{"workflow_sha": sha}, "github-hosted", 2},
		"in its own repository":  {reusable(workflow+"@refs/tags/v2", sha).With(oidctest.Claims{"repository": "octo-org/builders", "workflow_ref": "octo-org/builders/.github/workflows/r.yml@refs/heads/main"}), "github-hosted", 2},
		"of a fork's own owner":  {reusable("OCTO-ORG/builders/.github/workflows/build.yml@refs/tags/v2", sha), "github-hosted", 2},
		"sha told of the caller": {oidctest.Claims{"sha": sha, "workflow_sha": sha, "job_workflow_sha": sha}, "github-hosted", 2},
	} {
		t.Run(name, func(t *testing.T) {
			c, a := l.admit(t, w.issuer.Mint(w.instance, tt.claims))
			if c.GetBuilderId() != w.instance+"/builders/github-actions/"+tt.path || c.GetSlsaBuildLevel() != tt.level || a.GetBuilderId() != c.GetBuilderId() || a.GetSlsaBuildLevel() != tt.level {
				t.Errorf("caller %s level %d, attestation %s level %d", c.GetBuilderId(), c.GetSlsaBuildLevel(), a.GetBuilderId(), a.GetSlsaBuildLevel())
			}
			// Builder and source are both on record, each as itself.
			predicate := string(statementOf(t, a.GetBundle()).Predicate)
			if ref, ok := tt.claims["job_workflow_ref"].(string); ok && (!strings.Contains(predicate, `"job_workflow_ref":"`+ref+`"`) || !strings.Contains(a.GetSourceUri(), "octo-org/")) {
				t.Errorf("source %s, predicate %s", a.GetSourceUri(), predicate)
			}
		})
	}
	for i, event := range []string{"pull_request", "pull_request_target", "pull_request_review"} {
		ref := "refs/heads/main" // as pull_request_target says, though a stranger started it
		if event == "pull_request" {
			ref = "refs/pull/7/merge"
		}
		job := l.session(t, w.issuer.Mint(w.instance, oidctest.Claims{"event_name": event, "ref": ref, "head_ref": "patch-1", "base_ref": "main"}))
		resp, err := assayv1.NewIdentityServiceClient(l.conn).WhoAmI(job, &assayv1.WhoAmIRequest{})
		if err != nil || !resp.GetCaller().GetGithubActions().GetPullRequest() {
			t.Errorf("%s is not told as a pull request: %v, %v", event, resp, err)
		}
		l.ctx = job
		l.upload(t, job, "app", fmt.Sprint("app ", i))
		d := l.decide(t, "prod", subject("app", fmt.Sprint("app ", i)), "DENIED_BY_RULE")
		if !slices.Contains(unmet(d), "prod-trigger") {
			t.Errorf("%s: unmet %v", event, unmet(d))
		}
	}
	// A custom property gives a role where it is exactly the one that was bound.
	for value, want := range map[string]bool{"release": true, "release2": false, "Release": false, "a,environment=release": false, "": false} {
		claims := oidctest.Claims{"repo_property_environment": value}
		if value == "" {
			claims = oidctest.Claims{"repo_property_environment": nil, "repo_property_x": "environment=release", "environment": "release"}
		}
		resp, err := l.exchange(t.Context(), w.issuer.Mint(w.instance, claims))
		if err != nil || slices.Contains(resp.GetCaller().GetRoles(), "auditor") != want {
			t.Errorf("property %q: roles %v, %v", value, resp.GetCaller().GetRoles(), err)
		}
	}
	l.refuses(t, map[string]refusedToken{
		"a property with = in its name": {w.issuer.Mint(w.instance, oidctest.Claims{"repo_property_environment=release": "x"}), codes.Unauthenticated, "TOKEN_CLAIM_INVALID"},
	})
}

// TestGitHubRecheck: where GitHub is asked about the run, a token that it contradicts
// or does not confirm opens nothing, and its credential goes to GitHub only.
func TestGitHubRecheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	away, hits := canary(t)
	var answer atomic.Value
	api := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		answer.Load().(func(http.ResponseWriter, *http.Request))(rw, r)
	}))
	t.Cleanup(api.Close)
	l := w.start(t, func(c *server.Config) { c.Identity.Issuers[0].Recheck = &server.RecheckConf{APIURL: api.URL} })
	run := func(over map[string]any) func(http.ResponseWriter, *http.Request) {
		record := map[string]any{
			"id": json.Number("12345678901234567"), "run_attempt": 1, "head_sha": "6113728f27ae82c7b1a177c8d03f9e96e0adf246", "event": "push",
			"status": "in_progress", "repository": map[string]any{"id": 476830123}, "head_repository": map[string]any{"id": 476830123},
		}
		maps.Copy(record, over)
		return func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/repos/octo-org/octo-app/actions/runs/12345678901234567/attempts/1" {
				http.NotFound(rw, r)
				return
			}
			_, _ = rw.Write([]byte(mustMarshal(t, record)))
		}
	}
	says := func(code int, body string) func(http.ResponseWriter, *http.Request) {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Location", away+"/repos")
			rw.WriteHeader(code)
			_, _ = rw.Write([]byte(body))
		}
	}
	mint := func(c ...oidctest.Claims) string {
		return w.issuer.Mint(w.instance, append(c, oidctest.Claims{"run_id": "12345678901234567"})...)
	}
	for head, want := range map[int64]string{476830123: "same", 666: "fork"} {
		w.advance(2 * time.Minute) // what GitHub said is good for a minute
		answer.Store(run(map[string]any{"head_repository": map[string]any{"id": head}}))
		resp, err := l.exchange(t.Context(), mint())
		if err != nil || resp.GetCaller().GetGithubActions().GetHeadRepository() != want {
			t.Errorf("head repository %d: %v, %v", head, resp.GetCaller(), err)
		}
	}
	w.advance(2 * time.Minute)
	const failed, unavailable = "RUN_RECHECK_FAILED", "RUN_RECHECK_UNAVAILABLE"
	for name, tt := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		reason string
	}{
		"no such run":             {says(404, ""), failed},
		"a neighbouring id":       {run(map[string]any{"id": json.Number("12345678901234568")}), failed},
		"another attempt":         {run(map[string]any{"run_attempt": 2}), failed},
		"another repository":      {run(map[string]any{"repository": map[string]any{"id": 4768301234}}), failed},
		"another commit":          {run(map[string]any{"head_sha": strings.Repeat("0", 40)}), failed},
		"another event":           {run(map[string]any{"event": "pull_request"}), failed},
		"a run that is over":      {run(map[string]any{"status": "completed"}), failed},
		"nothing":                 {says(200, "{}"), failed},
		"an id in floating point": {run(map[string]any{"id": json.RawMessage("1.2345678901234567e16")}), unavailable},
		"fields twice":            {says(200, `{"id":12345678901234567,"id":1}`), unavailable},
		"HTML":                    {says(200, "<html>"), unavailable},
		"a list":                  {says(200, "[]"), unavailable},
		"oversized":               {says(200, `{"x":"`+strings.Repeat("x", 300<<10)+`"}`), unavailable},
		"forbidden":               {says(403, "{}"), unavailable},
		"throttled":               {says(429, "{}"), unavailable},
		"outage":                  {says(503, "{}"), unavailable},
		"redirect":                {says(302, ""), unavailable},
		"redirect for good":       {says(308, ""), unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			answer.Store(tt.answer)
			before := l.kept(t)
			_, err := l.exchange(t.Context(), mint())
			code := codes.Unauthenticated
			if tt.reason == unavailable {
				code = codes.Unavailable
			}
			wantReason(t, err, code, tt.reason)
			l.unchanged(t, before)
		})
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("%d requests went where a redirect led", n)
	}
}
