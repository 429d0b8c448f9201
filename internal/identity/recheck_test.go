package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
)

const testAPIToken = "ghs_canaryOfTheInstallation"

// gitHubAPI answers for one run, the way api.github.com does.
type gitHubAPI struct {
	*httptest.Server
	hits   counter
	answer func(http.ResponseWriter, *http.Request)
}

// runJSON is the run of the default job, with members laid over it; a nil value
// becomes null.
func runJSON(over map[string]any) []byte {
	run := map[string]any{
		"id": 14918273645, "name": "release", "run_number": 87, "run_attempt": 1, "head_branch": "main",
		"head_sha": "6113728f27ae82c7b1a177c8d03f9e96e0adf246", "path": ".github/workflows/release.yml", "event": "push", "status": "in_progress",
		"conclusion": nil, "repository": map[string]any{"id": 476830123, "full_name": "octo-org/octo-app", "private": true},
		"head_repository": map[string]any{"id": 476830123, "full_name": "octo-org/octo-app"},
	}
	for k, v := range over {
		run[k] = v
	}
	return must(json.Marshal(run))
}

func newGitHubAPI(t *testing.T, over map[string]any) *gitHubAPI {
	t.Helper()
	api := new(gitHubAPI)
	api.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v3/repos/octo-org/octo-app/actions/runs/14918273645/attempts/1" || r.Method != http.MethodGet || r.URL.RawQuery != "" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		if r.Header.Get("Authorization") != "Bearer "+testAPIToken || r.Header.Get("Accept") != "application/vnd.github+json" {
			t.Errorf("header of the request for a run: accept %q", r.Header.Get("Accept"))
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = w.Write(runJSON(over))
	}
	api.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.hits.Add(1)
		api.answer(w, r)
	}))
	t.Cleanup(api.Close)
	return api
}

func (api *gitHubAPI) config() *RecheckConfig {
	return &RecheckConfig{APIURL: api.URL + "/api/v3", Token: func(context.Context) (string, error) { return testAPIToken, nil }}
}

func TestRecheck(t *testing.T) {
	t.Parallel()
	fork := map[string]any{"id": 99, "full_name": "mallory/octo-app"}
	proposal := oidctest.Claims{"event_name": "pull_request", "ref": "refs/pull/7/merge"}
	other := strings.Repeat("a", 40)
	for name, c := range map[string]struct {
		run   map[string]any
		token oidctest.Claims
		head  string
		want  refusal.Code
	}{
		"agrees":                     {nil, nil, "same", ""},
		"queued again":               {map[string]any{"status": "queued"}, nil, "same", ""},
		"pull request":               {map[string]any{"event": "pull_request", "head_sha": other}, proposal, "same", ""},
		"pull request of a fork":     {map[string]any{"event": "pull_request", "head_sha": other, "head_repository": fork}, proposal, "fork", ""},
		"pull request, fork deleted": {map[string]any{"event": "pull_request", "head_repository": nil}, proposal, "fork", ""},
		"another run":                {map[string]any{"id": 14918273646}, nil, "", CodeRunRecheckFailed},
		"another attempt":            {map[string]any{"run_attempt": 2}, nil, "", CodeRunRecheckFailed},
		"another commit":             {map[string]any{"head_sha": other}, nil, "", CodeRunRecheckFailed},
		"another repository":         {map[string]any{"repository": map[string]any{"id": 476830124}}, nil, "", CodeRunRecheckFailed},
		"another event":              {map[string]any{"event": "pull_request"}, nil, "", CodeRunRecheckFailed},
		"over":                       {map[string]any{"status": "completed", "conclusion": "success"}, nil, "", CodeRunRecheckFailed},
		"of a status not known":      {map[string]any{"status": "pondering"}, nil, "", CodeRunRecheckFailed},
		"says nothing":               {map[string]any{"id": 0, "run_attempt": 0, "repository": nil}, nil, "", CodeRunRecheckFailed},
		"a run id as text":           {map[string]any{"id": "14918273645"}, nil, "", CodeRunRecheckUnavailable},
		"a run id with an exponent":  {map[string]any{"id": json.RawMessage("1.4918273645e10")}, nil, "", CodeRunRecheckUnavailable},
		"larger than is read":        {map[string]any{"x": strings.Repeat("x", maxRunBytes)}, nil, "", CodeRunRecheckUnavailable},
		"an id twice, cased another": {map[string]any{"ID": 1}, nil, "", CodeRunRecheckUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, api := newEnv(t), newGitHubAPI(t, c.run)
			ic := e.issuerConfig()
			ic.Recheck = api.config()
			got, err := e.verify(t, e.verifierOf(t, ic), c.token)
			wantCode(t, err, c.want)
			if err == nil && got.Caller.GitHub.HeadRepository != c.head {
				t.Errorf("head repository %q; want %q", got.Caller.GitHub.HeadRepository, c.head)
			}
		})
	}
}

// No answer is not a pass, and the credential goes to no other host.
func TestRecheckUnavailable(t *testing.T) {
	t.Parallel()
	trap := newTrap(t)
	status := func(code int, header ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			_, _ = w.Write(runJSON(nil))
		}
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   refusal.Code
	}{
		"not found":     {status(http.StatusNotFound), CodeRunRecheckFailed},
		"not allowed":   {status(http.StatusUnauthorized), CodeRunRecheckUnavailable},
		"rate limit":    {status(http.StatusForbidden, "X-RateLimit-Remaining", "0"), CodeRunRecheckUnavailable},
		"too many":      {status(http.StatusTooManyRequests), CodeRunRecheckUnavailable},
		"broken":        {status(http.StatusBadGateway), CodeRunRecheckUnavailable},
		"no content":    {status(http.StatusNoContent), CodeRunRecheckUnavailable},
		"moved":         {status(http.StatusMovedPermanently, "Location", trap.URL), CodeRunRecheckUnavailable},
		"moved for now": {status(http.StatusTemporaryRedirect, "Location", trap.URL), CodeRunRecheckUnavailable},
		"not JSON":      {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, CodeRunRecheckUnavailable},
		"null":          {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "null") }, CodeRunRecheckFailed},
		"a list":        {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "[]") }, CodeRunRecheckUnavailable},
		"two values":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(append(runJSON(nil), '{', '}')) }, CodeRunRecheckUnavailable},
		"breaks off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9999")
			fmt.Fprint(w, "{")
		}, CodeRunRecheckUnavailable},
		"takes for ever": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, CodeRunRecheckUnavailable},
		"hangs up":       {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, CodeRunRecheckUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, api := newEnv(t), newGitHubAPI(t, nil)
			api.answer = c.answer
			ic := e.issuerConfig()
			ic.Recheck = api.config()
			v := e.verifierOf(t, ic)
			v.issuers[e.issuer.URL()].recheck.timeout = 200 * time.Millisecond
			got, err := e.verify(t, v)
			wantCode(t, err, c.want)
			if got != nil || strings.Contains(err.Error(), testAPIToken) || strings.Contains(err.Error(), api.URL) {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	t.Cleanup(func() {
		if n := trap.hits.Load(); n != 0 {
			t.Errorf("%d requests followed a redirect", n)
		}
	})
}

func TestRecheckCredential(t *testing.T) {
	t.Parallel()
	for name, token := range map[string]func(context.Context) (string, error){
		"cannot be had": func(context.Context) (string, error) { return "", errors.New("no key") },
		"empty":         func(context.Context) (string, error) { return "", nil },
		"two lines":     func(context.Context) (string, error) { return testAPIToken + "\r\nX: y", nil },
	} {
		t.Run(name, func(t *testing.T) {
			e, api := newEnv(t), newGitHubAPI(t, nil)
			ic := e.issuerConfig()
			ic.Recheck = &RecheckConfig{APIURL: api.URL, Token: token}
			var log strings.Builder
			v := e.verifierOf(t, ic, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			_, err := e.verify(t, v)
			wantCode(t, err, CodeRunRecheckUnavailable)
			if api.hits.Load() != 0 || strings.Contains(log.String(), testAPIToken) {
				t.Errorf("%d requests; log %s", api.hits.Load(), &log)
			}
		})
	}
}

// Who may not call does not make us ask GitHub.
func TestRecheckIsLast(t *testing.T) {
	t.Parallel()
	e, api := newEnv(t), newGitHubAPI(t, nil)
	ic := e.issuerConfig()
	ic.Recheck = api.config()
	_, err := e.verify(t, e.verifierOf(t, ic), oidctest.Claims{"repository_owner_id": "1"})
	wantCode(t, err, CodeCallerNotAllowed)
	if n := api.hits.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestAPIURL(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]string{
		"https://github.com":         "https://api.github.com",
		"https://octo.ghe.com":       "https://api.octo.ghe.com",
		"https://git.example.com":    "https://git.example.com/api/v3",
		"https://github.com.example": "https://github.com.example/api/v3",
	} {
		r, err := newRunRecheck(&RecheckConfig{}, server)
		if err != nil || r.api != want {
			t.Errorf("%s: %+v %v; want %s", server, r, err, want)
		}
	}
}

// FuzzRun: no answer makes the check panic, and none but the run's own passes.
func FuzzRun(f *testing.F) {
	f.Add(runJSON(nil))
	f.Add(runJSON(map[string]any{"head_repository": nil, "event": "pull_request"}))
	f.Add([]byte(`{"id":1e3}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		run, err := parseRun(body)
		if err != nil {
			return
		}
		g := &GitHubActions{RunID: 14918273645, RunAttempt: 1, RepositoryID: 476830123, EventName: "push", SHA: "6113728f27ae82c7b1a177c8d03f9e96e0adf246"}
		if err := run.compare(g); err == nil && (run.ID != g.RunID || run.HeadSHA != g.SHA || g.HeadRepository == "") {
			t.Fatalf("%+v passed", run)
		}
	})
}
