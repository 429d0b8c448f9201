package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
)

const codeDown refusal.Code = "TEST_KMS_DOWN"

func down(context.Context) error { return refusal.New(codeDown, "the key is out of reach") }

func (w *world) prepare() {
	w.t.Helper()
	if err := w.authority.Prepare(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// TestIntermediate is the profile of an intermediate.
func TestIntermediate(t *testing.T) {
	t.Parallel()
	for name, key := range rootKeys(t) {
		w := worldOf(t, key)
		w.issue(workflow())
		cert := w.intermediates()[0]
		checkCritical(t, name, cert, "2.5.29.15", "2.5.29.19")
		if !cert.IsCA || cert.MaxPathLen != 0 || !cert.MaxPathLenZero || cert.KeyUsage != x509.KeyUsageCertSign ||
			len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageCodeSigning {
			t.Errorf("%s: CA %t, path length %d, usage %#x %v", name, cert.IsCA, cert.MaxPathLen, cert.KeyUsage, cert.ExtKeyUsage)
		}
		if s := cert.Subject; len(s.Organization) != 1 || s.Organization[0] != testOrg || s.CommonName != "Assay intermediate assay.example.com" ||
			s.SerialNumber != strings.ToLower(cert.SerialNumber.Text(16)) {
			t.Errorf("%s: subject %s", name, s)
		}
		start := testStart.Truncate(time.Second)
		if !cert.NotBefore.Equal(start) || !cert.NotAfter.Equal(start.Add(2*time.Hour+10*time.Minute)) {
			t.Errorf("%s: valid from %s to %s", name, cert.NotBefore, cert.NotAfter)
		}
		if !bytes.Equal(cert.AuthorityKeyId, w.root.SubjectKeyId) || bytes.Equal(cert.SubjectKeyId, cert.AuthorityKeyId) {
			t.Errorf("%s: key ids %x under %x", name, cert.SubjectKeyId, cert.AuthorityKeyId)
		}
		if err := cert.CheckSignatureFrom(w.root); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRenewal: one call to the CA's key per intermediate, the next one at three
// quarters of the lifetime, each with a subject of its own.
func TestRenewal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 10 {
		w.issue(workflow())
		w.prepare()
	}
	w.clock.move(44 * time.Minute)
	w.prepare()
	if n := w.key.calls.Load(); n != 1 {
		t.Errorf("%d calls before three quarters, want 1", n)
	}
	w.clock.move(time.Minute)
	w.issue(workflow())
	if n := w.key.calls.Load(); n != 1 {
		t.Errorf("Issue renewed what still issues: %d calls", n)
	}
	w.prepare()
	w.prepare()
	if n := w.key.calls.Load(); n != 2 {
		t.Errorf("%d calls after three quarters, want 2", n)
	}
	made := w.intermediates()
	if len(made) != 2 || bytes.Equal(made[0].RawSubject, made[1].RawSubject) || bytes.Equal(made[0].SubjectKeyId, made[1].SubjectKeyId) {
		t.Errorf("%d intermediates, want two that differ", len(made))
	}
	if leaf := w.issue(workflow()); !leaf.Issuer.Equal(made[1]) {
		t.Error("the old intermediate goes on issuing")
	}
}

// TestNothingIssued: the clock alone makes no intermediate, however long it runs; nor
// does it succeed one that was used once.
func TestNothingIssued(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	days := func() {
		for range 2 * 24 * 60 {
			w.prepare()
			w.clock.move(time.Minute)
		}
	}
	days()
	if n := len(w.intermediates()); n != 0 || w.key.calls.Load() != 0 {
		t.Fatalf("%d intermediates, %d calls, for nothing", n, w.key.calls.Load())
	}
	first := w.issue(workflow())
	days()
	// The one that was made ahead, for the case that there would be more.
	if n := len(w.intermediates()); n != 2 || w.key.calls.Load() != 2 {
		t.Errorf("%d intermediates, %d calls, for one leaf", n, w.key.calls.Load())
	}
	if again := w.issue(workflow()); again.Issuer.Equal(first.Issuer) || len(w.intermediates()) != 3 {
		t.Errorf("%d intermediates after a leaf days later, want 3", len(w.intermediates()))
	}
}

// TestOnlyRefused: an intermediate under which every certificate was refused has issued
// nothing.
func TestOnlyRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.log.fail = down
	for range 200 {
		_, err := w.authority.Issue(t.Context(), person())
		wantCode(t, "Issue", err, codeDown)
		w.prepare()
		w.clock.move(time.Minute / 2)
	}
	if n := len(w.intermediates()); n != 1 {
		t.Errorf("%d intermediates, want 1", n)
	}
}

// TestIssueWithoutPrepare: a service that forgets to prepare is slow, not broken.
func TestIssueWithoutPrepare(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 5 {
		w.issue(person())
		w.clock.move(2 * time.Hour)
		w.issue(person())
		w.clock.move(time.Second)
	}
	if n := w.key.calls.Load(); n != 5 {
		t.Errorf("%d calls, want 5", n)
	}
}

// TestOutage: the CA's key is out of reach for hours.
func TestOutage(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	w := newWorld(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&text, nil)) })
	w.issue(workflow())
	w.key.fail = down
	for w.clock.now().Before(testStart.Add(2 * time.Hour)) {
		w.prepare() // logged, not refused
		w.issue(workflow())
		w.clock.move(time.Minute)
	}
	if got := strings.Count(text.String(), "intermediate not renewed"); got != 75 {
		t.Errorf("%d warnings, want one per minute from 45 to 119", got)
	}
	if !strings.Contains(text.String(), "TEST_KMS_DOWN") || !strings.Contains(text.String(), "issues_until=2026-03-01T14:00:00.000Z") {
		t.Errorf("the log lacks the reason or the end:\n%s", text.String())
	}
	w.issue(workflow()) // at 2h to the second a leaf just fits in
	w.clock.move(time.Second)
	_, err := w.authority.Issue(t.Context(), workflow())
	wantCode(t, "Issue after the end", err, codeDown)
	wantCode(t, "Prepare after the end", w.authority.Prepare(t.Context()), codeDown)

	// No storm: while it is out, requests do not become calls.
	before := w.key.calls.Load()
	for range 1000 {
		_, err := w.authority.Issue(t.Context(), workflow())
		wantCode(t, "Issue", err, codeDown)
	}
	if n := w.key.calls.Load() - before; n != 0 {
		t.Errorf("%d calls within a second of a failure", n)
	}
	w.clock.move(time.Second)
	_, err = w.authority.Issue(t.Context(), workflow())
	wantCode(t, "Issue a second later", err, codeDown)
	if n := w.key.calls.Load() - before; n != 1 {
		t.Errorf("%d calls after the pause, want 1", n)
	}
	w.key.fail = nil
	w.clock.move(time.Second)
	w.issue(workflow())
}

// TestClockJumpsBack: how long ago a failure was is then unknown, and does not matter.
func TestClockJumpsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.key.fail = down
	_, err := w.authority.Issue(t.Context(), person())
	wantCode(t, "Issue", err, codeDown)
	w.key.fail = nil
	w.clock.move(-30 * time.Minute)
	w.issue(person())
}

// TestLateComer: whoever joins when the work is done does not do it again.
func TestLateComer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.issue(workflow())
	if err := w.authority.renew(t.Context()); err != nil || w.key.calls.Load() != 1 {
		t.Errorf("%d calls, want 1 (%v)", w.key.calls.Load(), err)
	}
}

// TestPrepareCancelled: the end of the service is no outage.
func TestPrepareCancelled(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	w := newWorld(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&text, nil)) })
	w.issue(workflow())
	w.clock.move(time.Hour)
	release := make(chan struct{})
	defer close(release)
	w.key.fail = func(context.Context) error { <-release; return nil }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.authority.Prepare(ctx); !errors.Is(err, context.Canceled) || strings.Contains(text.String(), "not renewed") {
		t.Errorf("Prepare: %v, log:\n%s", err, text.String())
	}
}

// TestUncodedFailure: what has no code gets one, and keeps its cause.
func TestUncodedFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.key.fail = func(context.Context) error { return errPlain }
	_, err := w.authority.Issue(t.Context(), person())
	wantCode(t, "Issue", err, CodeNoIntermediate)
	if !errors.Is(err, errPlain) {
		t.Errorf("the cause is lost: %v", err)
	}
}

// TestPublishFails: nothing is issued under what verifiers cannot know, and trying
// again costs the CA's key nothing.
func TestPublishFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish = func() error { return refusal.New("TEST_DISK_FULL", "full") }
	for range 3 {
		w.prepare() // nothing has been issued
		_, err := w.authority.Issue(t.Context(), person())
		wantCode(t, "Issue", err, "TEST_DISK_FULL")
		w.clock.move(time.Minute)
	}
	if n := w.key.calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
	w.clock.move(time.Hour) // by now it would be old
	w.publish = nil
	w.issue(person())
	if n := w.key.calls.Load(); n != 2 || len(w.intermediates()) != 1 {
		t.Errorf("%d calls, want 2, and %d published", n, len(w.intermediates()))
	}
}

// TestRootEnds: nothing outlives the root.
func TestRootEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clock.at = w.root.NotAfter.Add(-30 * time.Minute)
	leaf := w.issue(person())
	if !leaf.Issuer.NotAfter.Equal(w.root.NotAfter) {
		t.Errorf("the intermediate ends %s, the root %s", leaf.Issuer.NotAfter, w.root.NotAfter)
	}
	w.clock.move(20 * time.Minute)
	w.issue(person())
	w.clock.move(time.Second)
	calls := w.key.calls.Load()
	_, err := w.authority.Issue(t.Context(), person())
	wantCode(t, "a leaf would outlive the root", err, CodeNoIntermediate)
	w.clock.at = w.root.NotBefore.Add(-time.Second)
	_, err = w.authority.Issue(t.Context(), person())
	wantCode(t, "before the root", err, CodeNoIntermediate)
	if w.key.calls.Load() != calls {
		t.Error("the CA's key was asked for what cannot be")
	}
}

// TestLogKeyFails: its own words, and no leaf.
func TestLogKeyFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.log.fail = down
	leaf, err := w.authority.Issue(t.Context(), person())
	wantCode(t, "Issue", err, codeDown)
	if leaf != nil {
		t.Error("a leaf without a certificate timestamp")
	}
}

// TestOthersGoOn: whoever can be served by the current intermediate does not wait
// for the next one, and whoever cannot shares one call.
func TestOthersGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	entered, release := make(chan struct{}, 100), make(chan struct{})
	w.key.fail = func(context.Context) error { entered <- struct{}{}; <-release; return nil }
	const n = 20
	issue := func() *sync.WaitGroup {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if _, err := w.authority.Issue(t.Context(), person()); err != nil {
					t.Error(err)
				}
			})
		}
		return &wg
	}
	first := issue()
	<-entered
	// A caller that gives up does not take the others' work along.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.authority.Issue(ctx, person()); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gave up got %v", err)
	}
	release <- struct{}{}
	first.Wait()
	if n := w.key.calls.Load(); n != 1 {
		t.Errorf("%d calls for the first intermediate", n)
	}

	w.clock.move(50 * time.Minute)
	prepared := make(chan error)
	go func() { prepared <- w.authority.Prepare(t.Context()) }()
	<-entered
	issue().Wait() // while the CA's key is thinking
	release <- struct{}{}
	if err := <-prepared; err != nil {
		t.Error(err)
	}
	if got := len(w.intermediates()); got != 2 {
		t.Errorf("%d intermediates, want 2", got)
	}
}

// TestFirstCallerGivesUp: the flight it started lands all the same.
func TestFirstCallerGivesUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	entered, release := make(chan struct{}), make(chan struct{})
	w.key.fail = func(ctx context.Context) error {
		close(entered)
		<-release
		if _, limited := ctx.Deadline(); !limited {
			t.Error("the call to the CA's key has no limit of its own")
		}
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { _, err := w.authority.Issue(ctx, person()); gone <- err }()
	<-entered
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	second := make(chan error)
	go func() { _, err := w.authority.Issue(t.Context(), person()); second <- err }()
	close(release)
	if err := <-second; err != nil {
		t.Error(err)
	}
	if n := w.key.calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

// TestAnyClock: whatever the clock does, and whichever of the CA's key and the
// publisher fail when, a leaf's validity lies within those of its intermediate and
// the root, it is valid at the moment it is made, and its intermediate was published
// before; the only reasons to refuse are theirs and CodeNoIntermediate.
func TestAnyClock(t *testing.T) {
	t.Parallel()
	key := p256(t)
	rapid.Check(t, func(rt *rapid.T) {
		seconds := func(name string, least, most time.Duration) time.Duration {
			return time.Duration(rapid.Int64Range(int64(least/time.Second), int64(most/time.Second)).Draw(rt, name)) * time.Second
		}
		life, leafLife := seconds("lifetime", minLifetime, 3*time.Hour), seconds("leaf lifetime", minLeafLifetime, time.Hour)
		key.fail = nil
		w := worldOf(t, key, func(c *Config) { c.Lifetime, c.LeafLifetime = life, leafLife })
		broken := false // the publisher
		w.publish = func() error {
			if broken {
				return refusal.New("TEST_DISK_FULL", "full")
			}
			return nil
		}
		jump := func(rt *rapid.T) {
			d := time.Duration(rapid.Int64Range(-int64(4*time.Hour), int64(4*time.Hour)).Draw(rt, "jump"))
			switch rapid.IntRange(0, 9).Draw(rt, "where") {
			case 0:
				w.clock.at = w.root.NotAfter.Add(d / 8)
			case 1:
				w.clock.at = w.root.NotBefore.Add(d / 8)
			case 2, 3:
				w.clock.move(d)
			default:
				w.clock.move(d.Abs() / 16)
			}
		}
		allowed := func(rt *rapid.T, err error) {
			switch refusal.CodeOf(err) {
			case CodeNoIntermediate, codeDown, "TEST_DISK_FULL":
			default:
				rt.Fatalf("refused with %v", err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"clock": jump,
			"key": func(rt *rapid.T) {
				key.fail = rapid.SampledFrom([]func(context.Context) error{nil, nil, down}).Draw(rt, "fail")
			},
			"publisher": func(rt *rapid.T) { broken = rapid.IntRange(0, 2).Draw(rt, "broken") == 0 },
			"prepare": func(rt *rapid.T) {
				if err := w.authority.Prepare(context.Background()); err != nil {
					allowed(rt, err)
				}
			},
			"issue": func(rt *rapid.T) {
				leaf, err := w.authority.Issue(context.Background(), person())
				if err != nil {
					allowed(rt, err)
					return
				}
				known := false
				for _, cert := range w.intermediates() {
					known = known || cert.Equal(leaf.Issuer)
				}
				if !known {
					rt.Fatalf("issued under %s, which is not published", leaf.Issuer.Subject)
				}
				c, now := parsed(t, leaf), w.clock.now()
				if now.Before(c.NotBefore) || now.After(c.NotAfter) || c.NotAfter.Sub(c.NotBefore) != leafLife {
					rt.Fatalf("at %s a leaf from %s to %s", now, c.NotBefore, c.NotAfter)
				}
				for _, outer := range []*x509.Certificate{leaf.Issuer, w.root} {
					if c.NotBefore.Before(outer.NotBefore) || c.NotAfter.After(outer.NotAfter) {
						rt.Fatalf("a leaf from %s to %s within %s to %s", c.NotBefore, c.NotAfter, outer.NotBefore, outer.NotAfter)
					}
				}
				if leaf.Issuer.NotBefore.Before(w.root.NotBefore) || leaf.Issuer.NotAfter.After(w.root.NotAfter) {
					rt.Fatal("an intermediate outside its root")
				}
			},
		})
	})
}
