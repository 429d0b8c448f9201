package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/policy"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// exchanges measures how many GitHub tokens a second become sessions, the
// issuer's keys being known. The tokens are made before the clock starts: making
// one costs the issuer far more than checking it.
func (c *config) exchanges(ctx context.Context, s *sandbox, l *limits) error {
	const each = 3000
	source := client.GitHubActions(func(k string) (string, bool) { v, ok := s.env[k]; return v, ok })
	ids := assayv1.NewIdentityServiceClient(s.conn)
	var runs []result
	for range c.runs {
		tokens := make(chan *assayv1.ExchangeRequest, each)
		if err := inParallel(each, func() error {
			req, err := source.Credential(ctx, s.env["ASSAY_SERVER"])
			tokens <- req
			return err
		}); err != nil {
			return err
		}
		close(tokens)
		var mu sync.Mutex
		var took []time.Duration
		start := time.Now()
		if err := inParallel(each, func() error {
			begin := time.Now()
			_, err := ids.Exchange(ctx, <-tokens)
			mu.Lock()
			took = append(took, time.Since(begin))
			mu.Unlock()
			return err
		}); err != nil {
			return err
		}
		runs = append(runs, result{float64(each) / time.Since(start).Seconds(), quantile(took, .5), quantile(took, .99)})
	}
	r := middle(runs)
	row("exchange of a GitHub token, 64 in flight", rate(r), "≥ 2000/s", fmt.Sprintf("%.1f%% of gRPC echo; p50 %s p99 %s", 100*r.perSecond/l.echo64.perSecond, ms(r.p50), ms(r.p99)))
	return nil
}

// inParallel calls f n times, 64 at a time.
func inParallel(n int, f func() error) error {
	work := make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	close(work)
	errs := make(chan error, 64)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range work {
				if err := f(); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// heldSession is a store with one session, as the cache in front of the database has it.
type heldSession struct {
	caller  []byte
	expires time.Time
}

func (h *heldSession) CreateSession(_ context.Context, _ [16]byte, caller []byte, expires time.Time, _ string, _ time.Time) error {
	h.caller, h.expires = caller, expires
	return nil
}

func (h *heldSession) Session(context.Context, [16]byte) ([]byte, time.Time, error) {
	return h.caller, h.expires, nil
}

// builder is a caller as a job of GitHub Actions makes it.
func builder() *identity.Caller {
	return &identity.Caller{
		Kind: identity.KindGitHubActions, Issuer: "https://token.actions.githubusercontent.com", DisplayName: "acme/app@refs/heads/main run 1/1",
		GitHub: &identity.GitHubActions{
			Repository: "acme/app", RepositoryID: 1, RepositoryOwner: "acme", RepositoryOwnerID: 2, WorkflowRef: "acme/app/.github/workflows/w.yml@refs/heads/main",
			JobWorkflowRef: "acme/app/.github/workflows/w.yml@refs/heads/main", Ref: "refs/heads/main", SHA: "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
			EventName: "push", RunnerEnvironment: "github-hosted", RunID: 3, RunAttempt: 1, ServerURL: "https://github.com",
		},
	}
}

// decisions measures what every call pays before it does anything: the check of
// its session, and the access policy's answer.
func (c *config) decisions(l *limits) error {
	caller := builder()
	sessions := identity.NewSessions(make([]byte, identity.SessionKeyBytes), &heldSession{}, 0, nil)
	token, _, err := sessions.Open(context.Background(), &identity.Verified{Caller: caller, ReplayKey: "k", ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		return err
	}
	access, err := policy.CompileAccess([]byte(policy.DefaultAccess()))
	if err != nil {
		return err
	}
	read := policy.AccessRequest{
		Principal: policy.Principal{ID: "a", Kind: "github-actions", Issuer: caller.Issuer, Build: true, Attributes: map[string]string{
			"tenant": "t", "repositoryId": "1", "repositoryOwnerId": "2", "repository": "acme/app", "ref": "refs/heads/main", "platform": "github-actions",
		}},
		Action:   "read",
		Resource: policy.Resource{Kind: "Attestation", ID: "x", Attributes: map[string]string{"tenant": "t", "repositoryId": "1", "platform": "github-actions"}},
	}
	other := read
	other.Resource.Attributes = map[string]string{"tenant": "u", "repositoryId": "7", "platform": "github-actions"}
	if !access.Authorize(read).Allowed || access.Authorize(other).Allowed {
		return errors.New("the access policy does not decide what is measured")
	}
	for _, f := range []struct {
		name, goal string
		call       func() error
	}{
		{"session check", "≤ 5 µs", func() error { _, _, err := sessions.Check(context.Background(), token); return err }},
		{"access decision, allowed", "≤ 10 µs", func() error { access.Authorize(read); return nil }},
		{"access decision, denied", "≤ 10 µs", func() error { access.Authorize(other); return nil }},
	} {
		var runs []result
		for range c.runs {
			var failed error
			b := testing.Benchmark(func(b *testing.B) {
				for b.Loop() {
					if err := f.call(); err != nil {
						failed = err
					}
				}
			})
			if failed != nil {
				return failed
			}
			runs = append(runs, result{perSecond: float64(b.N) / b.T.Seconds()})
			runtime.GC()
		}
		took := float64(time.Second) / middle(runs).perSecond
		row(f.name, fmt.Sprintf("%.2f µs", took/1000), f.goal, fmt.Sprintf("%.2f ECDSA signatures", took/float64(l.sign)))
	}
	return nil
}
