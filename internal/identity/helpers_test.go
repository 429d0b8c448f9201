package identity

import (
	"crypto/rand"
	"crypto/rsa"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
)

const (
	testAudience = "https://assay.example.com"
	testOwnerID  = 65438921
)

// clock is an injected clock.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// testKey is made once: RSA keys take a while.
var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// otherKey is a key that no issuer publishes.
var otherKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// env is a running issuer and what is needed to verify its tokens.
type env struct {
	clock  *clock
	issuer *oidctest.Issuer
	// intercept, if set, answers a request instead of the issuer when it returns true.
	intercept func(http.ResponseWriter, *http.Request) bool
}

// newEnv runs an issuer of GitHub Actions or, given a job, of its platform.
func newEnv(tb testing.TB, job ...oidctest.Claims) *env {
	tb.Helper()
	e := &env{clock: newClock()}
	srv := httptest.NewUnstartedServer(nil)
	cfg := oidctest.Config{
		BaseURL: "http://" + srv.Listener.Addr().String(),
		Now:     e.clock.Now,
		Key:     testKey(),
	}
	if len(job) > 0 {
		cfg.Job = job[0]
	}
	var err error
	e.issuer, err = oidctest.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	honest := e.issuer.Handler()
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if e.intercept == nil || !e.intercept(w, r) {
			honest.ServeHTTP(w, r)
		}
	})
	srv.Start()
	tb.Cleanup(srv.Close)
	return e
}

func (e *env) issuerConfig() IssuerConfig {
	return IssuerConfig{URL: e.issuer.URL(), AllowedOwnerIDs: []int64{testOwnerID}}
}

// verifier returns a new Verifier, which has no keys yet.
func (e *env) verifier(tb testing.TB, edit ...func(*Config)) *Verifier {
	tb.Helper()
	cfg := Config{
		Audience: []string{testAudience},
		Issuers:  []IssuerConfig{e.issuerConfig()},
		Now:      e.clock.Now,
		Logger:   slog.New(slog.DiscardHandler),
	}
	for _, f := range edit {
		f(&cfg)
	}
	v, err := NewVerifier(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// verifierOf returns a Verifier of the one issuer that ic says, at e's address.
func (e *env) verifierOf(tb testing.TB, ic IssuerConfig, edit ...func(*Config)) *Verifier {
	tb.Helper()
	ic.URL = e.issuer.URL()
	return e.verifier(tb, append([]func(*Config){func(c *Config) { c.Issuers = []IssuerConfig{ic} }}, edit...)...)
}

// verify verifies a token of the job with claims laid over it.
func (e *env) verify(tb testing.TB, v *Verifier, over ...oidctest.Claims) (*Verified, error) {
	tb.Helper()
	return v.VerifyOIDC(tb.Context(), e.issuer.Mint(testAudience, over...))
}

func wantCode(tb testing.TB, err error, want refusal.Code) {
	tb.Helper()
	if got := refusal.CodeOf(err); got != want || (err != nil) != (want != "") {
		tb.Errorf("got %v; want code %q", err, want)
	}
}
