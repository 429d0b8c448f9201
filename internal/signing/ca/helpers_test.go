package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigstore/fulcio/pkg/certificate"

	"github.com/assay-build/assay/internal/refusal"
)

// testKey is a Signer in memory that counts its signatures and fails on demand.
type testKey struct {
	crypto.Signer
	opts  crypto.SignerOpts
	calls atomic.Int64
	fail  func(ctx context.Context) error // nil where it works
}

func (k *testKey) Sign(ctx context.Context, digest []byte) ([]byte, error) {
	k.calls.Add(1)
	if k.fail != nil {
		if err := k.fail(ctx); err != nil {
			return nil, err
		}
	}
	return k.Signer.Sign(rand.Reader, digest, k.opts)
}

func ecKey(t testing.TB, curve elliptic.Curve, hash crypto.Hash) *testKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &testKey{Signer: key, opts: hash}
}

func p256(t testing.TB) *testKey { return ecKey(t, elliptic.P256(), crypto.SHA256) }

func rsaKey(t testing.TB, bits int) *testKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return &testKey{Signer: key, opts: &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}}
}

// clock stands still until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

const (
	testOrg  = "Example Corp"
	testHost = "assay.example.com"
)

var testStart = time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)

// world is an authority with everything around it.
type world struct {
	t         testing.TB
	clock     *clock
	key, log  *testKey
	root      *x509.Certificate
	authority *Authority

	mu        sync.Mutex
	published []*x509.Certificate
	publish   func() error // nil where it works
}

func newWorld(t testing.TB, tweaks ...func(*Config)) *world { return worldOf(t, p256(t), tweaks...) }

func worldOf(t testing.TB, key *testKey, tweaks ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{at: testStart}, key: key, log: p256(t)}
	w.root = makeRoot(t, key, testStart.Add(-time.Hour))
	key.calls.Store(0)
	cfg := Config{Root: w.root, Signer: key, Organization: testOrg, Host: testHost, Now: w.clock.now, Publish: w.accept, Log: w.log}
	for _, tweak := range tweaks {
		tweak(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.authority = a
	return w
}

func makeRoot(t testing.TB, key *testKey, notBefore time.Time) *x509.Certificate {
	t.Helper()
	der, err := NewRoot(t.Context(), key, testOrg, testHost, notBefore, 10)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der)
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (w *world) accept(_ context.Context, cert *x509.Certificate) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.publish != nil {
		if err := w.publish(); err != nil {
			return err
		}
	}
	w.published = append(w.published, cert)
	return nil
}

func (w *world) intermediates() []*x509.Certificate {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*x509.Certificate(nil), w.published...)
}

func (w *world) issue(id Identity) *Leaf {
	w.t.Helper()
	leaf, err := w.authority.Issue(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return leaf
}

func wantCode(t testing.TB, what string, err error, want refusal.Code) {
	t.Helper()
	if got := refusal.CodeOf(err); err == nil || got != want {
		t.Errorf("%s: code %q (%v), want %q", what, got, err, want)
	}
}

// workflow is an identity with everything that a GitHub token tells.
func workflow() Identity {
	const repo = "https://github.com/acme/app"
	return Identity{
		URI:    repo + "/.github/workflows/release.yml@refs/heads/main",
		Issuer: "https://token.actions.githubusercontent.com",
		Extensions: certificate.Extensions{
			GithubWorkflowTrigger: "push", GithubWorkflowSHA: "0123456789012345678901234567890123456789",
			GithubWorkflowName: "release", GithubWorkflowRepository: "acme/app", GithubWorkflowRef: "refs/heads/main",
			BuildSignerURI: repo + "/.github/workflows/release.yml@refs/heads/main", BuildSignerDigest: "0123456789012345678901234567890123456789",
			RunnerEnvironment: "github-hosted", SourceRepositoryURI: repo, SourceRepositoryDigest: "0123456789012345678901234567890123456789",
			SourceRepositoryRef: "refs/heads/main", SourceRepositoryIdentifier: "1", SourceRepositoryOwnerURI: "https://github.com/acme",
			SourceRepositoryOwnerIdentifier: "2", BuildConfigURI: repo + "/.github/workflows/release.yml@refs/heads/main",
			BuildConfigDigest: "0123456789012345678901234567890123456789", BuildTrigger: "push",
			RunInvocationURI: repo + "/actions/runs/3/attempts/1", SourceRepositoryVisibilityAtSigning: "private",
			DeploymentEnvironment: "produção", Subject: "repo:acme/app:ref:refs/heads/main",
		},
	}
}

func person() Identity {
	return Identity{Email: "ann@example.com", Issuer: "https://accounts.example.com"}
}

func digestOf(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

func pemOf(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// parsed is the certificate of a leaf.
func parsed(tb testing.TB, l *Leaf) *x509.Certificate {
	tb.Helper()
	c, err := x509.ParseCertificate(l.Raw)
	if err != nil {
		tb.Fatal(err)
	}
	if !c.NotBefore.Equal(l.NotBefore) || !c.NotAfter.Equal(l.NotAfter) {
		tb.Fatalf("the certificate is valid from %s to %s, the leaf says %s to %s", c.NotBefore, c.NotAfter, l.NotBefore, l.NotAfter)
	}
	return c
}
