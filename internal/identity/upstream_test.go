package identity

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
)

// The tests of this file: what a token can make the service ask of others.

// consumption is what Config.Consumed answers, and notes what it was asked.
type consumption struct {
	used bool
	err  error
	keys []string
}

func (c *consumption) ask(_ context.Context, key string) (bool, error) {
	c.keys = append(c.keys, key)
	return c.used, c.err
}

// TestConsumedTokenAsksNothing: a token that has opened its session makes nobody ask
// GitHub or CodeBuild, nor does one of which that cannot be told.
func TestConsumedTokenAsksNothing(t *testing.T) {
	t.Parallel()
	const codeStore refusal.Code = "STORE_AWAY"
	github := func(t *testing.T) (*env, IssuerConfig, func() int) {
		e, api := newEnv(t), newGitHubAPI(t, nil)
		ic := e.issuerConfig()
		ic.Recheck = api.config()
		return e, ic, func() int { return int(api.hits.Load()) }
	}
	reader := new(tagReader)
	tag := func(t *testing.T) (*env, IssuerConfig, func() int) {
		ic := webIdentityConfig()
		ic.BuildTag = testBuildTag
		*reader = tagReader{}
		return newEnv(t, oidctest.WebIdentity(webAccount, "codebuild-app", map[string]string{testBuildTag: webBuildARN})), ic, func() int { return len(reader.asked) }
	}
	for name, setup := range map[string]func(*testing.T) (*env, IssuerConfig, func() int){"recheck": github, "tagged build": tag} {
		t.Run(name, func(t *testing.T) {
			e, ic, asked := setup(t)
			var store consumption
			v := e.verifierOf(t, ic, func(c *Config) { c.Builds, c.Consumed = reader, store.ask })
			token := e.issuer.Mint(testAudience)

			store.err = refusal.New(codeStore, "no")
			got, err := v.VerifyOIDC(t.Context(), token)
			if wantCode(t, err, codeStore); got != nil || !errors.Is(err, store.err) {
				t.Errorf("%v %v", got, err)
			}
			store.err, store.used = nil, true
			for range 3 {
				_, err := v.VerifyOIDC(t.Context(), token)
				wantCode(t, err, CodeTokenReplayed)
			}
			if n := asked(); n != 0 {
				t.Errorf("%d questions about a consumed token", n)
			}
			store.used = false
			got, err = v.VerifyOIDC(t.Context(), token)
			if err != nil || asked() != 1 || store.keys[len(store.keys)-1] != got.ReplayKey {
				t.Errorf("%v; %d questions; the store was asked for %q", err, asked(), store.keys)
			}
		})
	}
}

// Where nobody else is asked, the store is not asked twice either: Sessions.Open does.
func TestConsumedIsAskedBeforeOthersOnly(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	store := &consumption{used: true}
	if _, err := e.verify(t, e.verifier(t, func(c *Config) { c.Consumed = store.ask })); err != nil || len(store.keys) != 0 {
		t.Errorf("%v; asked for %q", err, store.keys)
	}
	e = newEnv(t, oidctest.WebIdentity(webAccount, "deploy", nil))
	if _, err := e.verify(t, e.verifierOf(t, webIdentityConfig(), func(c *Config) { c.Consumed = store.ask })); err != nil || len(store.keys) != 0 {
		t.Errorf("%v; asked for %q", err, store.keys)
	}
}

// TestRecheckIsRemembered: the tokens of one attempt cost one question in half a
// minute, as long as they say the same; refusals are not remembered.
func TestRecheckIsRemembered(t *testing.T) {
	t.Parallel()
	e, run := newEnv(t), map[string]any{}
	api := newGitHubAPI(t, run)
	ic := e.issuerConfig()
	ic.Recheck = api.config()
	v := e.verifierOf(t, ic)
	asked := func(want int64, code refusal.Code, over ...oidctest.Claims) {
		t.Helper()
		before := api.hits.Load()
		got, err := e.verify(t, v, over...)
		wantCode(t, err, code)
		if n := api.hits.Load() - before; n != want {
			t.Errorf("%d questions; want %d", n, want)
		}
		if err == nil && got.Caller.GitHub.HeadRepository != "same" {
			t.Errorf("head repository %q", got.Caller.GitHub.HeadRepository)
		}
	}
	asked(1, "")
	asked(0, "")
	asked(0, "", oidctest.Claims{"environment": "staging"})
	// What is compared differs: GitHub is asked, and says no, each time.
	for range 2 {
		asked(1, CodeRunRecheckFailed, oidctest.Claims{"sha": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"})
		asked(1, CodeRunRecheckFailed, oidctest.Claims{"event_name": "schedule"})
	}
	asked(0, "")
	e.clock.Advance(runKnown)
	run["status"] = "completed"
	asked(1, CodeRunRecheckFailed)
	asked(1, CodeRunRecheckFailed)
	run["status"] = "in_progress"
	asked(1, "")
	asked(0, "")
	e.clock.Advance(-time.Hour) // a clock that was set back makes nothing known for longer
	asked(1, "")

	r := v.issuers[e.issuer.URL()].recheck
	for i := range 3 * maxKnownRuns {
		r.remember(runKey{runID: int64(i)}, new(runRecord))
		if len(r.known) > maxKnownRuns {
			t.Fatalf("%d runs are remembered", len(r.known))
		}
	}
}

// heldAPI answers as the GitHub API when it is let.
func heldAPI(t *testing.T) (api *gitHubAPI, arrived chan string, open chan struct{}) {
	api, arrived, open = newGitHubAPI(t, nil), make(chan string, 256), make(chan struct{})
	api.answer = func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.URL.Path
		<-open
		_, _ = w.Write(runJSON(nil))
	}
	return api, arrived, open
}

// TestRecheckIsShared: tokens of one attempt that come together cost one question,
// and each is compared for itself. Whoever goes does not take the answer along.
func TestRecheckIsShared(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	api, arrived, open := heldAPI(t)
	ic := e.issuerConfig()
	ic.Recheck = api.config()
	v := e.verifierOf(t, ic)
	first, leave := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { _, err := v.VerifyOIDC(first, e.issuer.Mint(testAudience)); gone <- err }()
	<-arrived
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			_, err := v.VerifyOIDC(context.Background(), e.issuer.Mint(testAudience))
			wantCode(t, err, "")
		})
		done.Go(func() {
			_, err := v.VerifyOIDC(context.Background(), e.issuer.Mint(testAudience, oidctest.Claims{"event_name": "schedule"}))
			if code := refusal.CodeOf(err); code != CodeRunRecheckFailed {
				t.Errorf("a token that says something else: %v", err)
			}
		})
	}
	leave()
	wantCode(t, <-gone, CodeRunRecheckUnavailable)
	close(open)
	done.Wait()
	// Those who disagreed with the first answer, and came too late to share it, ask again.
	if n := api.hits.Load(); n > 9 {
		t.Errorf("%d questions", n)
	}
}

// TestRechecksAreBounded: one issuer's jobs ask a few questions at a time, and are
// told to come again when the others take too long.
func TestRechecksAreBounded(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	api, arrived, open := heldAPI(t)
	ic := e.issuerConfig()
	ic.Recheck = api.config()
	v := e.verifierOf(t, ic)
	var done sync.WaitGroup
	run := func(n int64) oidctest.Claims { return oidctest.Claims{"run_attempt": string(rune('0' + n))} }
	for i := range int64(rechecks) {
		token := e.issuer.Mint(testAudience, run(i+1))
		done.Go(func() { _, _ = v.VerifyOIDC(context.Background(), token) })
	}
	for range rechecks {
		<-arrived
	}
	slots := v.issuers[e.issuer.URL()].recheck.slots
	slots.wait = 10 * time.Millisecond
	_, err := v.VerifyOIDC(t.Context(), e.issuer.Mint(testAudience, run(rechecks+1)))
	wantCode(t, err, CodeRunRecheckUnavailable)
	if n := api.hits.Load(); n != rechecks {
		t.Errorf("%d questions at a time", n)
	}
	close(open)
	done.Wait()
	if slots.busy != 0 {
		t.Errorf("%d slots are still taken", slots.busy)
	}
}

// slowTags is a tagReader that answers when it is let.
type slowTags struct {
	tagReader
	arrived, open chan struct{}
}

func (r *slowTags) Tagged(ctx context.Context, t codebuild.Tagged) (*codebuild.Build, error) {
	r.arrived <- struct{}{}
	<-r.open
	return nil, refusal.New("CODEBUILD_NOT_RUNNING", "x")
}

// TestTaggedReadsAreBounded is TestBuildReadsAreBounded for tokens.
func TestTaggedReadsAreBounded(t *testing.T) {
	t.Parallel()
	e := newEnv(t, oidctest.WebIdentity(webAccount, "codebuild-app", map[string]string{testBuildTag: webBuildARN}))
	ic := webIdentityConfig()
	ic.BuildTag = testBuildTag
	reader := &slowTags{arrived: make(chan struct{}, 64), open: make(chan struct{})}
	v := e.verifierOf(t, ic, func(c *Config) { c.Builds = reader })
	var done sync.WaitGroup
	for range buildReads {
		token := e.issuer.Mint(testAudience)
		done.Go(func() { _, _ = v.VerifyOIDC(context.Background(), token) })
	}
	for range buildReads {
		<-reader.arrived
	}
	slots := v.issuers[e.issuer.URL()].reads
	slots.wait = 10 * time.Millisecond
	_, err := e.verify(t, v)
	wantCode(t, err, codebuild.CodeUnavailable)
	close(reader.open)
	done.Wait()
	if slots.busy != 0 {
		t.Errorf("%d slots are still taken", slots.busy)
	}
}

// TestSandboxAWS: where AWS is a stand-in, so is everybody its issuers vouch for,
// though their addresses look like AWS's; nobody else is.
func TestSandboxAWS(t *testing.T) {
	t.Parallel()
	pinned := webIdentityConfig()
	pinned.BuildTag = testBuildTag
	for name, c := range map[string]struct {
		over oidctest.Claims
		kind Kind
	}{
		"role":  {oidctest.WebIdentity(webAccount, "deploy", nil), KindAWSRole},
		"build": {oidctest.WebIdentity(webAccount, "codebuild-app", map[string]string{testBuildTag: webBuildARN}), KindCodeBuild},
	} {
		for _, sandbox := range []bool{true, false} {
			e := newEnv(t, c.over)
			got, err := e.verify(t, e.verifierOf(t, pinned, func(cfg *Config) { cfg.Builds, cfg.SandboxAWS = new(tagReader), sandbox }))
			if err != nil || got.Caller.Kind != c.kind || got.Caller.Sandbox != sandbox {
				t.Errorf("%s, sandbox %t: %+v %v", name, sandbox, got, err)
			}
		}
	}
	e := newEnv(t)
	got, err := e.verify(t, e.verifier(t, func(cfg *Config) { cfg.SandboxAWS = true }))
	if err != nil || got.Caller.Sandbox {
		t.Errorf("GitHub: %+v %v", got, err)
	}
	// What whoever reads the claims says of the caller stays said.
	v := e.verifier(t)
	is := v.issuers[e.issuer.URL()]
	read := is.read
	is.read = func(ctx context.Context, c claims, fresh freshness) (*Caller, error) {
		caller, err := read(ctx, c, fresh)
		caller.Sandbox = true
		return caller, err
	}
	if got, err := e.verify(t, v); err != nil || !got.Caller.Sandbox {
		t.Errorf("%+v %v", got, err)
	}
}
