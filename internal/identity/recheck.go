package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sync/singleflight"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeRunRecheckFailed: the GitHub API knows no such run, or says something
	// else of it than the token does.
	CodeRunRecheckFailed refusal.Code = "RUN_RECHECK_FAILED"
	// CodeRunRecheckUnavailable: the GitHub API could not be asked. Trying again
	// later may help; until then the token is not believed.
	CodeRunRecheckUnavailable refusal.Code = "RUN_RECHECK_UNAVAILABLE"
)

const (
	recheckTimeout = 5 * time.Second
	// maxRunBytes bounds the answer; a run with its two repositories has 20 KiB.
	maxRunBytes = 256 << 10
	// maxAPITokenBytes bounds the credential, which stands in a header.
	maxAPITokenBytes = 1024
	// rechecks are the questions to one API under way. GitHub limits them by the
	// hour, for all jobs of all repositories together.
	rechecks = 8
	// runKnown is how long an answer is believed for other tokens of the run: the jobs
	// of a matrix come within seconds. So long may a token outlive its run.
	runKnown = 30 * time.Second
	// maxKnownRuns bounds the memory of these, about 1 MiB.
	maxKnownRuns = 1 << 12
)

// RecheckConfig configures the question to the GitHub API whether a run is as its
// token says: that it exists, runs at this moment, and builds the commit. The
// answer also says whether the commit comes from a fork, which the token does not.
type RecheckConfig struct {
	// APIURL is the base of the REST API, https. Default: that of ServerURL,
	// https://api.github.com, https://api.SUBDOMAIN.ghe.com or
	// https://HOST/api/v3.
	APIURL string
	// Token returns the credential for one request: an installation token of a
	// GitHub App with read access to Actions. It is sent to APIURL's host and
	// nowhere else. nil: none is sent, which is enough for public repositories.
	Token func(context.Context) (string, error)
}

// runRecheck asks one GitHub about runs.
type runRecheck struct {
	api     string
	token   func(context.Context) (string, error)
	client  *http.Client // follows no redirect
	log     *slog.Logger
	timeout time.Duration
	now     func() time.Time

	flight singleflight.Group // by runKey
	slots  *slots
	mu     sync.Mutex
	known  map[runKey]knownRun
}

// runKey is what a question is about. The repository's name is in it because the
// question has it, though the answer is held against the id.
type runKey struct {
	repositoryID, runID, attempt int64
	repository                   string
}

// knownRun is an answer with which a token agreed.
type knownRun struct {
	run   *runRecord
	until time.Time
}

func newRunRecheck(cfg *RecheckConfig, serverURL string) (*runRecheck, error) {
	r := &runRecheck{api: cfg.APIURL, token: cfg.Token, timeout: recheckTimeout, slots: newSlots(rechecks, rechecks), known: make(map[runKey]knownRun)}
	if r.api == "" {
		var err error
		if r.api, err = apiURL(serverURL); err != nil {
			return nil, err
		}
	}
	if _, err := checkBaseURL(r.api); err != nil {
		return nil, fmt.Errorf("recheck: api_url: %w", err)
	}
	if strings.HasSuffix(r.api, "/") {
		return nil, fmt.Errorf("recheck: api_url %q ends in a slash", r.api)
	}
	return r, nil
}

// apiURL is where GitHub has its REST API, by the address of its pages.
func apiURL(serverURL string) (string, error) {
	u, err := url.Parse(serverURL)
	if err != nil {
		return "", fmt.Errorf("recheck: %w", err)
	}
	switch {
	case serverURL == "https://github.com":
		return "https://api.github.com", nil
	case strings.HasSuffix(u.Hostname(), ".ghe.com"):
		return u.Scheme + "://api." + u.Host, nil
	}
	return serverURL + "/api/v3", nil
}

// runRecord is what the API says of one attempt of a run.
type runRecord struct {
	ID         int64  `json:"id"`
	Attempt    int64  `json:"run_attempt"`
	HeadSHA    string `json:"head_sha"`
	Event      string `json:"event"`
	Status     string `json:"status"`
	Repository struct {
		ID int64 `json:"id"`
	} `json:"repository"`
	// HeadRepository is null where the fork was deleted.
	HeadRepository *struct {
		ID int64 `json:"id"`
	} `json:"head_repository"`
}

// check holds g against the API and sets HeadRepository. What the API said of the
// same attempt a moment ago is enough where g agrees with it; where it does not, the
// API is asked anew, and so it is after every refusal.
func (r *runRecheck) check(ctx context.Context, g *GitHubActions) error {
	key := runKey{g.RepositoryID, g.RunID, g.RunAttempt, g.Repository}
	if run := r.remembered(key); run != nil && run.compare(g) == nil {
		return nil
	}
	run, err := r.ask(ctx, key, g)
	if err != nil {
		if refusal.CodeOf(err) == "" {
			r.log.WarnContext(ctx, "run not rechecked", "repository_id", g.RepositoryID, "run_id", g.RunID, "error", err)
			e := refusal.New(CodeRunRecheckUnavailable, "run %d cannot be looked up at GitHub now", g.RunID)
			e.Err = err
			return e
		}
		return err
	}
	if err := run.compare(g); err != nil {
		return err
	}
	r.remember(key, run)
	return nil
}

// ask asks the API. Callers who ask for one attempt at a time share one question,
// which outlives the caller that began it, and each compares the answer for itself.
func (r *runRecheck) ask(ctx context.Context, key runKey, g *GitHubActions) (*runRecord, error) {
	asked := *g // g is the caller's, who may be gone
	done := r.flight.DoChan(fmt.Sprintf("%+v", key), func() (any, error) {
		ctx := context.WithoutCancel(ctx)
		release, ok := r.slots.take(ctx, "")
		if !ok {
			return nil, errors.New("as many runs are being looked up as may be at a time")
		}
		defer release()
		ctx, cancel := context.WithTimeout(ctx, r.timeout)
		defer cancel()
		return r.get(ctx, &asked)
	})
	select {
	case res := <-done:
		if res.Err != nil {
			return nil, res.Err
		}
		return res.Val.(*runRecord), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *runRecheck) remembered(key runKey) *runRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.known[key]
	// A clock that went backwards makes nothing known for longer.
	if left := k.until.Sub(r.now()); !ok || left <= 0 || left > runKnown {
		return nil
	}
	return k.run
}

// remember keeps an answer. When there is no room it first drops what is over, then
// everything: the API is asked again.
func (r *runRecheck) remember(key runKey, run *runRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if len(r.known) >= maxKnownRuns {
		maps.DeleteFunc(r.known, func(_ runKey, k knownRun) bool { return !k.until.After(now) })
		if len(r.known) >= maxKnownRuns {
			clear(r.known)
		}
	}
	r.known[key] = knownRun{run, now.Add(runKnown)}
}

// compare refuses the first thing in which run and token differ.
func (run *runRecord) compare(g *GitHubActions) error {
	mismatch := func(what string, has, says any) error {
		return refusal.New(CodeRunRecheckFailed, "run %d: GitHub has %s %v, the token says %v", g.RunID, what, has, says)
	}
	switch {
	case run.ID != g.RunID:
		return mismatch("run id", run.ID, g.RunID)
	case run.Attempt != g.RunAttempt:
		return mismatch("attempt", run.Attempt, g.RunAttempt)
	case run.Repository.ID != g.RepositoryID:
		return mismatch("repository id", run.Repository.ID, g.RepositoryID)
	case run.Event != g.EventName:
		return mismatch("event", strconv.Quote(run.Event), g.EventName)
	// For pull_request events the token has the merge commit, or the base's, and
	// the API the head of the branch that is proposed.
	case run.HeadSHA != g.SHA && !strings.HasPrefix(g.EventName, "pull_request"):
		return mismatch("commit", strconv.Quote(run.HeadSHA), g.SHA)
	// A token is asked for by a step, so its run is not over. After it is, whoever
	// holds the token is not the run.
	case !oneOf("in_progress", "queued", "pending", "waiting")(run.Status):
		return mismatch("status", strconv.Quote(run.Status), "that it runs")
	}
	g.HeadRepository = "fork"
	if run.HeadRepository != nil && run.HeadRepository.ID == g.RepositoryID {
		g.HeadRepository = "same"
	}
	return nil
}

// get fetches the run. An error with a code is GitHub's answer; any other means
// that there was none.
func (r *runRecheck) get(ctx context.Context, g *GitHubActions) (*runRecord, error) {
	// isRepository has made sure that the name is two plain path segments.
	uri := fmt.Sprintf("%s/repos/%s/actions/runs/%d/attempts/%d", r.api, g.Repository, g.RunID, g.RunAttempt)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("Accept-Encoding", "identity") // no decompression, so no bomb
	req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	req.Header.Set("User-Agent", "assay")
	if r.token != nil {
		token, err := r.token(ctx)
		if err != nil {
			return nil, fmt.Errorf("credential for the GitHub API: %w", err)
		}
		if token == "" || len(token) > maxAPITokenBytes || strings.ContainsFunc(token, hidden) {
			return nil, errors.New("credential for the GitHub API: not a token")
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, refusal.New(CodeRunRecheckFailed, "GitHub has no run %d, attempt %d, in %s, or does not show it to this service", g.RunID, g.RunAttempt, g.Repository)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("GET %s: %s", uri, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRunBytes+1))
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", uri, err)
	}
	return parseRun(body)
}

func parseRun(body []byte) (*runRecord, error) {
	if err := attest.CheckJSON(body, maxRunBytes); err != nil {
		return nil, fmt.Errorf("run: %s", err) //nolint:errorlint // its code is of JSON and would pass for GitHub's answer
	}
	run := new(runRecord)
	if err := json.Unmarshal(body, run); err != nil {
		return nil, errors.New("run: not a JSON object with the members of a workflow run")
	}
	return run, nil
}
