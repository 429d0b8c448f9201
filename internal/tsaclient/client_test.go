package tsaclient_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	sgroot "github.com/sigstore/sigstore-go/pkg/root"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/tsatest"
	"github.com/assay-build/assay/internal/tsaclient"
	"github.com/assay-build/assay/internal/verify"
)

// clock is moved by hand.
type clock struct{ atomic.Pointer[time.Time] }

func newClock() *clock {
	c := new(clock)
	now := time.Now()
	c.Store(&now)
	return c
}

func (c *clock) now() time.Time { return *c.Load() }

func (c *clock) add(d time.Duration) {
	t := c.now().Add(d)
	c.Store(&t)
}

// lab is an authority, a root that trusts it and a client.
type lab struct {
	tsa    *tsatest.Server
	url    string
	clock  *clock
	client *tsaclient.Client
}

func newLab(t *testing.T, change func(*tsaclient.Config)) *lab {
	t.Helper()
	return newLabOf(t, tsatest.Config{}, tsatest.None, change)
}

func newLabOf(t *testing.T, config tsatest.Config, chain tsatest.Fault, change func(*tsaclient.Config)) *lab {
	t.Helper()
	l := &lab{clock: newClock()}
	config.Now = l.clock.now
	var err error
	if l.tsa, err = tsatest.New(config); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(l.tsa)
	t.Cleanup(srv.Close)
	l.url = srv.URL
	cfg := tsaclient.Config{
		URL: srv.URL + "/tsa", Now: l.clock.now, Check: rootOf(t, l.tsa.ChainFor(chain), true).CheckTimestamp,
		Logger: slog.New(slog.DiscardHandler), HTTPClient: &http.Client{Transport: new(http.Transport)},
	}
	if change != nil {
		change(&cfg)
	}
	if l.client, err = tsaclient.New(cfg); err != nil {
		t.Fatal(err)
	}
	return l
}

func rootOf(t *testing.T, chain []*x509.Certificate, pinned bool) *verify.Root {
	t.Helper()
	authority := &sgroot.SigstoreTimestampingAuthority{
		URI: "https://tsa.example", Root: chain[2], Intermediates: chain[1:2],
		ValidityPeriodStart: chain[2].NotBefore, ValidityPeriodEnd: chain[2].NotAfter,
	}
	if pinned {
		authority.Leaf = chain[0]
	}
	tr, err := sgroot.NewTrustedRoot(sgroot.TrustedRootMediaType01, nil, nil, []sgroot.TimestampingAuthority{authority}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := tr.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	root, err := verify.NewRoot(text)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func wantCode(t *testing.T, err error, code refusal.Code) {
	t.Helper()
	if got := refusal.CodeOf(err); got != code || err == nil {
		t.Errorf("code %q (%v), want %q", got, err, code)
	}
}

func TestTimestamp(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]tsatest.Config{"ECDSA": {}, "RSA": {Key: rsaKey}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLabOf(t, config, tsatest.None, nil)
			sig := []byte("a signature")
			der, err := l.client.Timestamp(t.Context(), sig)
			if err != nil {
				t.Fatal(err)
			}
			ts, err := timestamp.ParseResponse(der)
			if err != nil {
				t.Fatal(err)
			}
			if want := sha256.Sum256(sig); !bytes.Equal(ts.HashedMessage, want[:]) || !ts.Time.Equal(l.clock.now().Truncate(time.Second)) {
				t.Errorf("stamped %x at %s", ts.HashedMessage, ts.Time)
			}
			again, err := l.client.Timestamp(t.Context(), sig)
			if err != nil {
				t.Fatal(err)
			}
			other, err := timestamp.ParseResponse(again)
			if err != nil || other.Nonce.Cmp(ts.Nonce) == 0 {
				t.Errorf("two requests had one nonce: %v", err)
			}
			// Verifiers that take the leaf from the token agree.
			if _, err := rootOf(t, l.tsa.Chain(), false).CheckTimestamp(der, sig); err != nil {
				t.Error(err)
			}
			checkWithOpenSSL(t, l.tsa.Chain(), der, sig)
		})
	}
}

// checkWithOpenSSL asks a verifier of another family.
func checkWithOpenSSL(t *testing.T, chain []*x509.Certificate, der, sig []byte) {
	t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Log("openssl is not installed")
		return
	}
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	out, err := exec.CommandContext(t.Context(), openssl, "ts", "-verify", "-in", file("resp", der), "-data", file("sig", sig),
		"-CAfile", file("root.pem", tsatest.PEM(chain[2])), "-untrusted", file("mid.pem", tsatest.PEM(chain[1]))).CombinedOutput()
	if err != nil {
		t.Errorf("openssl: %v\n%s", err, out)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	want := map[tsatest.Fault]refusal.Code{
		tsatest.TwoLeaves:         tsaclient.CodeAnswerInvalid,
		tsatest.ForgedTwoLeaves:   tsaclient.CodeAnswerInvalid,
		tsatest.OtherKey:          verify.CodeTimestampSignature,
		tsatest.OtherAuthority:    verify.CodeTimestampUntrusted,
		tsatest.FlippedSignature:  verify.CodeTimestampSignature,
		tsatest.NoEKU:             verify.CodeTimestampEKU,
		tsatest.NonCriticalEKU:    verify.CodeTimestampEKU,
		tsatest.CodeSigningEKU:    verify.CodeTimestampEKU,
		tsatest.ExpiredChain:      verify.CodeTimestampOutsideCertificate,
		tsatest.WrongImprint:      tsaclient.CodeImprintMismatch,
		tsatest.OtherHash:         tsaclient.CodeImprintMismatch,
		tsatest.WrongNonce:        tsaclient.CodeNonceMismatch,
		tsatest.NoNonce:           tsaclient.CodeNonceMismatch,
		tsatest.Replay:            tsaclient.CodeNonceMismatch,
		tsatest.TimeAhead:         tsaclient.CodeTimeInvalid,
		tsatest.TimeBehind:        tsaclient.CodeTimeInvalid,
		tsatest.FractionalTime:    tsaclient.CodeTimeInvalid,
		tsatest.CriticalExtension: tsaclient.CodeAnswerInvalid,
		tsatest.Rejected:          tsaclient.CodeRefused,
		tsatest.GrantedWithMods:   tsaclient.CodeRefused,
		tsatest.NoToken:           tsaclient.CodeAnswerInvalid,
		tsatest.FreeText:          "",
		tsatest.Garbage:           tsaclient.CodeAnswerInvalid,
		tsatest.BER:               tsaclient.CodeAnswerInvalid,
		tsatest.TrailingBytes:     tsaclient.CodeAnswerInvalid,
		tsatest.Truncated:         tsaclient.CodeUnavailable,
		tsatest.Huge:              tsaclient.CodeAnswerInvalid,
		tsatest.HTML:              tsaclient.CodeAnswerInvalid,
		tsatest.Redirect:          tsaclient.CodeAnswerInvalid,
		tsatest.Status500:         tsaclient.CodeUnavailable,
		tsatest.Status429:         tsaclient.CodeUnavailable,
		tsatest.Status403:         tsaclient.CodeRefused,
		tsatest.Hang:              tsaclient.CodeUnavailable,
		tsatest.Slow:              tsaclient.CodeUnavailable,
		tsatest.Reset:             tsaclient.CodeUnavailable,
	}
	for _, fault := range tsatest.Faults() {
		t.Run(fault.String(), func(t *testing.T) {
			t.Parallel()
			code, known := want[fault]
			if !known {
				t.Fatal("no expectation")
			}
			// The root trusts the very certificate of the fault, as a careless operator would.
			l := newLabOf(t, tsatest.Config{}, fault, func(c *tsaclient.Config) {
				if fault == tsatest.Hang || fault == tsatest.Slow {
					c.Timeout = 300 * time.Millisecond
				}
			})
			if fault == tsatest.Replay {
				if _, err := l.client.Timestamp(t.Context(), []byte("sig")); err != nil {
					t.Fatal(err)
				}
			}
			l.tsa.Fail(fault)
			der, err := l.client.Timestamp(t.Context(), []byte("sig"))
			if code == "" {
				if err != nil || bytes.Contains(der, []byte("Okay")) {
					t.Errorf("want the token alone: %v", err)
				}
				return
			}
			wantCode(t, err, code)
			if der != nil {
				t.Error("an answer beside the refusal")
			}
			// Healed, the next answer counts: a wrong answer is no outage, and one outage is none yet.
			l.tsa.Fail(tsatest.None)
			if l.tsa.ChainFor(fault)[0].Equal(l.tsa.Chain()[0]) {
				if _, err := l.client.Timestamp(t.Context(), []byte("sig")); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// What this package refuses of certificates the root would refuse too, and it refuses
// what a root that pins no leaf has to find out from the token.
func TestFaultsUnderRoot(t *testing.T) {
	t.Parallel()
	for _, fault := range []tsatest.Fault{
		tsatest.ForgedTwoLeaves, tsatest.OtherKey, tsatest.OtherAuthority, tsatest.FlippedSignature,
		tsatest.NoEKU, tsatest.NonCriticalEKU, tsatest.CodeSigningEKU, tsatest.ExpiredChain,
	} {
		for _, pinned := range []bool{true, false} {
			var seen error
			l := newLab(t, nil)
			root := rootOf(t, l.tsa.Chain(), pinned)
			client, err := tsaclient.New(tsaclient.Config{URL: l.url, Now: l.clock.now, Check: func(der, sig []byte) (time.Time, error) {
				at, err := root.CheckTimestamp(der, sig)
				seen = err
				return at, err
			}})
			if err != nil {
				t.Fatal(err)
			}
			l.tsa.Fail(fault)
			if _, err := client.Timestamp(t.Context(), []byte("sig")); err == nil {
				t.Errorf("%s, leaf pinned %v: accepted", fault, pinned)
			}
			if fault != tsatest.ForgedTwoLeaves && seen == nil {
				t.Errorf("%s, leaf pinned %v: the root did not refuse", fault, pinned)
			}
		}
	}
}

func TestRetryOnceOnBrokenConnection(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	l.tsa.FailTimes(tsatest.Reset, 1)
	if _, err := l.client.Timestamp(t.Context(), []byte("sig")); err != nil {
		t.Fatal(err)
	}
	if n := l.tsa.Requests(); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
	l.tsa.Fail(tsatest.Reset)
	_, err := l.client.Timestamp(t.Context(), []byte("sig"))
	wantCode(t, err, tsaclient.CodeUnavailable)
	if n := l.tsa.Requests(); n != 4 {
		t.Errorf("%d requests, want 4: one retry, no more", n)
	}
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	l := newLab(t, func(c *tsaclient.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	stamp := func() error {
		_, err := l.client.Timestamp(t.Context(), []byte("sig"))
		return err
	}
	requests := func(want int) {
		t.Helper()
		if n := l.tsa.Requests(); n != want {
			t.Errorf("%d requests, want %d", n, want)
		}
	}
	l.tsa.Fail(tsatest.Status500)
	for range 4 {
		wantCode(t, stamp(), tsaclient.CodeUnavailable)
	}
	l.tsa.Fail(tsatest.Garbage) // an answer, if a wrong one: the count starts again
	wantCode(t, stamp(), tsaclient.CodeAnswerInvalid)
	l.tsa.Fail(tsatest.Status500)
	for range 100 {
		wantCode(t, stamp(), tsaclient.CodeUnavailable)
	}
	requests(10)
	// Each trial that fails doubles the wait, to 30 s.
	n := 10
	for _, wait := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		l.clock.add(wait*time.Second - time.Millisecond)
		wantCode(t, stamp(), tsaclient.CodeUnavailable)
		requests(n)
		l.clock.add(time.Millisecond)
		wantCode(t, stamp(), tsaclient.CodeUnavailable)
		n++
		requests(n)
	}
	l.tsa.Fail(tsatest.None)
	wantCode(t, stamp(), tsaclient.CodeUnavailable)
	l.clock.add(30 * time.Second)
	for range 3 {
		if err := stamp(); err != nil {
			t.Error(err)
		}
	}
	for _, line := range []string{"is away", "is back"} {
		if strings.Count(log.String(), line) != 1 {
			t.Errorf("the log does not say %q once: %s", line, log.String())
		}
	}
}

// When the authority may be back, one call finds out and the others do not queue up.
func TestOneTrial(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(c *tsaclient.Config) { c.Timeout = 2 * time.Second })
	l.tsa.Fail(tsatest.Status500)
	for range 5 {
		l.client.Timestamp(t.Context(), []byte("sig"))
	}
	l.clock.add(time.Second)
	l.tsa.Fail(tsatest.Hang)
	ctx, giveUp := context.WithCancel(t.Context())
	var trial sync.WaitGroup
	trial.Go(func() {
		if _, err := l.client.Timestamp(ctx, []byte("sig")); !errors.Is(err, context.Canceled) {
			t.Errorf("want the caller's own error: %v", err)
		}
	})
	for l.tsa.Requests() < 6 {
		<-time.After(time.Millisecond)
	}
	for range 20 {
		_, err := l.client.Timestamp(t.Context(), []byte("sig"))
		wantCode(t, err, tsaclient.CodeUnavailable)
	}
	if n := l.tsa.Requests(); n != 6 {
		t.Errorf("%d requests, want 6", n)
	}
	giveUp()
	trial.Wait()
	// A caller who gave up has found out nothing: the next one is the trial.
	l.tsa.Fail(tsatest.None)
	if _, err := l.client.Timestamp(t.Context(), []byte("sig")); err != nil {
		t.Error(err)
	}
}

func TestBoundedConcurrency(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(c *tsaclient.Config) { c.MaxConcurrent, c.Timeout = 2, 500*time.Millisecond })
	l.tsa.Fail(tsatest.Hang)
	var calls sync.WaitGroup
	for range 2 {
		calls.Go(func() { l.client.Timestamp(t.Context(), []byte("sig")) })
	}
	for l.tsa.Requests() < 2 {
		<-time.After(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := l.client.Timestamp(ctx, []byte("sig")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("want the caller's own error: %v", err)
	}
	if n := l.tsa.Requests(); n != 2 {
		t.Errorf("%d requests in flight, want 2", n)
	}
	calls.Wait()
	l.tsa.Fail(tsatest.None)
	if _, err := l.client.Timestamp(t.Context(), []byte("sig")); err != nil {
		t.Errorf("a place was not given back: %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	c, err := tsaclient.New(tsaclient.Config{URL: srv.URL, Check: func([]byte, []byte) (time.Time, error) { return time.Time{}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Timestamp(t.Context(), []byte("sig"))
	wantCode(t, err, tsaclient.CodeUnavailable)
	_, err = c.Timestamp(t.Context(), nil)
	wantCode(t, err, tsaclient.CodeEmpty)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Timestamp(ctx, []byte("sig")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A check that reads another time than the token says is a reader that can be led astray.
func TestCheckMustReadTheSameTime(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(c *tsaclient.Config) {
		c.Check = func([]byte, []byte) (time.Time, error) { return c.Now().Add(-time.Minute), nil }
	})
	_, err := l.client.Timestamp(t.Context(), []byte("sig"))
	wantCode(t, err, tsaclient.CodeTimeInvalid)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	check := func([]byte, []byte) (time.Time, error) { return time.Time{}, nil }
	for url, ok := range map[string]bool{
		"https://tsa.example.com": true, "https://tsa.example.com:8443/tsr": true,
		"http://127.0.0.1:8080/": true, "http://localhost/tsa": true, "http://[::1]:1/": true,
		"": false, "tsa.example.com": false, "http://tsa.example.com": false, "ftp://tsa.example.com": false,
		"https://user:pass@tsa.example.com": false, "https://tsa.example.com/?key=secret": false, "https://tsa.example.com/?": false,
		"https://tsa.example.com/#x": false, "https:///path": false, "http://127.0.0.1.example.com": false,
		"http://localhost.example.com": false, "http://0.0.0.0": false, "https:tsa.example.com": false, "https://[::1": false,
	} {
		_, err := tsaclient.New(tsaclient.Config{URL: url, Check: check})
		if ok && err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if !ok {
			if wantCode(t, err, tsaclient.CodeURLInvalid); err != nil && strings.Contains(err.Error(), "pass") || err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes a secret: %v", err)
			}
		}
	}
	for name, cfg := range map[string]tsaclient.Config{
		"no check": {}, "skew": {Check: check, MaxSkew: 6 * time.Minute}, "small skew": {Check: check, MaxSkew: 1},
		"timeout": {Check: check, Timeout: time.Minute}, "negative": {Check: check, Timeout: -1},
		"places": {Check: check, MaxConcurrent: 2000}, "negative places": {Check: check, MaxConcurrent: -1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.URL = "https://tsa.example.com"
			_, err := tsaclient.New(cfg)
			wantCode(t, err, tsaclient.CodeConfigInvalid)
		})
	}
}

// Cookies and the client's own idea of redirects are not taken over.
func TestOnlyTheTransportIsTaken(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(c *tsaclient.Config) {
		c.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return nil }
	})
	l.tsa.Fail(tsatest.Redirect)
	_, err := l.client.Timestamp(t.Context(), []byte("sig"))
	wantCode(t, err, tsaclient.CodeAnswerInvalid)
	if n := l.tsa.Requests(); n != 1 {
		t.Errorf("%d requests: the redirect was followed", n)
	}
}

func BenchmarkTimestamp(b *testing.B) {
	tsa, err := tsatest.New(tsatest.Config{})
	if err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(tsa)
	defer srv.Close()
	c, err := tsaclient.New(tsaclient.Config{URL: srv.URL, Check: func(der, _ []byte) (time.Time, error) {
		ts, err := timestamp.ParseResponse(der)
		if err != nil {
			return time.Time{}, err
		}
		return ts.Time, nil
	}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.Timestamp(b.Context(), []byte("sig")); err != nil {
			b.Fatal(err)
		}
	}
}
