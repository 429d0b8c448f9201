// Package ca lets an Assay instance be its own certificate authority: every
// attestation is signed with a key of its own, whose certificate names the
// workload that was attested the way Fulcio names it.
//
// # Chain
//
//	root          self-signed by the CA's key (a file or KMS); ten years or so; pathlen 1
//	intermediate  P-256, the key in the memory of one process; an hour; pathlen 0, code signing
//	leaf          P-256, one attestation; ten minutes; SAN, Fulcio's extensions, an SCT
//
// The CA's key is asked once per intermediate and not once per attestation. An
// intermediate is published (made durable, and part of the trusted root that
// verifiers download) before it issues anything, so no leaf exists whose chain a
// verifier could not have known.
//
// # Renewal, outages, crashes
//
// Intermediates are made when they are needed and not by the clock, because verifiers
// keep each of them for ever: the first Issue makes the first one. It issues for
// Config.Lifetime. When three quarters of that have passed, Prepare makes the next
// one, if the present one has issued anything; one that has not is left to lapse.
//
// Each intermediate is valid for twice as long as it is meant to issue: while the CA's
// key cannot be reached the old one goes on, and only when it can no longer cover a
// leaf does Issue refuse, with the words of the CA's signer. A failure to renew is
// remembered for a second, so that a stream of requests does not become a stream of
// calls to a service that is down.
//
// Intermediate keys are never written anywhere. After a crash they are gone and the
// next process makes its own intermediate; the certificates of the lost ones stay
// in the trusted root, where what they issued is still verified, and can issue
// nothing more. A crash between signing and publishing leaves a certificate that
// nobody has seen, for a key that nobody has.
//
// # Certificate Transparency
//
// The instance's own log plays the CT log: an SCT signed with the log's key is
// embedded in each leaf, and the entry it promises (Leaf.LogEntry) is for the caller
// to append. No separate precertificate is signed (RFC 6962 section 3.1): its only
// use is to be submitted to a log of others, and here the issuer and the log are one
// program. What is logged and what the SCT signs is the TBSCertificate of section
// 3.2, which is the final one without the SCT list, and which every verifier rebuilds
// from the final certificate.
//
// # Example
//
//	root, err := ca.NewRoot(ctx, key, "Example Corp", "assay.example.com", time.Now(), 10)
//	cert, err := x509.ParseCertificate(root)
//	authority, err := ca.New(ca.Config{
//		Root: cert, Signer: key, Organization: "Example Corp", Host: "assay.example.com",
//		Now: time.Now, Publish: addToTrustedRoot, Log: logKey,
//	})
//	err = authority.Prepare(ctx) // every minute
//	leaf, err := authority.Issue(ctx, ca.Identity{
//		URI:    "https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main",
//		Issuer: "https://token.actions.githubusercontent.com",
//	})
//	sig, err := leaf.Sign(ctx, paeDigest)
package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeNoIntermediate refuses to issue while no intermediate can cover a leaf and none can be made.
	CodeNoIntermediate refusal.Code = "CA_NO_INTERMEDIATE"
	// CodeLifetimeInvalid refuses a lifetime outside its limits.
	CodeLifetimeInvalid refusal.Code = "CA_LIFETIME_INVALID"
)

const (
	defaultLifetime, minLifetime, maxLifetime             = time.Hour, 5 * time.Minute, 30 * 24 * time.Hour
	defaultLeafLifetime, minLeafLifetime, maxLeafLifetime = 10 * time.Minute, time.Minute, 24 * time.Hour

	// makeTimeout bounds the making of one intermediate, publication included.
	makeTimeout = 30 * time.Second
	// rememberedIdentities bounds Authority.named: about 2 KiB each.
	rememberedIdentities = 1024
	// retryPause is how long Issue repeats a failure before it asks the CA's key again.
	retryPause = time.Second
)

// Signer signs digests with one key: ECDSA in ASN.1 DER, RSA as RSASSA-PSS with
// SHA-256 and a salt as long. It may be used from many goroutines at once and gives
// up when ctx does.
type Signer interface {
	Sign(ctx context.Context, digest []byte) ([]byte, error)
	Public() crypto.PublicKey
}

// Config says what an Authority issues and with which keys.
type Config struct {
	// Root is the certificate that NewRoot made for Signer's key.
	Root *x509.Certificate
	// Signer is the CA's key: P-256, P-384, or RSA of 2048 to 4096 bits. Required.
	Signer Signer
	// Organization is the O of the root; intermediates bear it too. gh compares the two.
	Organization string
	// Host is the name of the instance, for people.
	Host string
	// Lifetime is how long one intermediate is meant to issue: one hour where it is
	// zero, otherwise 5 minutes to 30 days in whole seconds.
	Lifetime time.Duration
	// LeafLifetime is the validity of a leaf: ten minutes where it is zero, otherwise
	// one minute to one day in whole seconds. The time of signing, as the timestamp
	// authority states it, has to fall within.
	LeafLifetime time.Duration
	// Backdate is how long before now validities begin, at most a minute and in whole
	// seconds, where the clock that dates signatures is not this one and may be behind.
	// No certificate begins before its issuer does.
	Backdate time.Duration
	// Now tells the time. Required.
	Now func() time.Time
	// Logger hears of renewals; nothing is logged where it is nil.
	Logger *slog.Logger
	// Publish makes an intermediate durable and part of the trusted root. It returns
	// before the intermediate issues anything, is called again with the same
	// certificate after it failed, and is never called twice at once. Required.
	Publish func(ctx context.Context, cert *x509.Certificate) error
	// Log is the P-256 key of the instance's log, for SCTs. Required.
	Log Signer
}

// Authority issues leaf certificates. It may be used from many goroutines.
type Authority struct {
	cfg   Config
	logID [sha256.Size]byte // RFC 6962 section 3.2: SHA-256 of the log's SubjectPublicKeyInfo

	// current issues. It only ever holds intermediates that Publish has accepted.
	current atomic.Pointer[intermediate]

	// named keeps what certificates say of the identities that were certified last: a
	// run attests many artifacts, and so do its neighbours.
	named *lru.Cache[Identity, *named]

	making  singleflight.Group
	pending *intermediate // certified, not yet published; only a flight of making touches it

	mu       sync.Mutex
	failure  error // of the last attempt to make an intermediate, nil where it succeeded
	failedAt time.Time
}

// New returns an Authority that has no intermediate yet. The CA's key is not used.
func New(cfg Config) (*Authority, error) {
	if cfg.Root == nil || cfg.Signer == nil || cfg.Now == nil || cfg.Publish == nil || cfg.Log == nil {
		return nil, errors.New("a certificate authority needs a root, its signer, a clock, a publisher and a log key")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := checkNames(cfg.Organization, cfg.Host); err != nil {
		return nil, err
	}
	if err := CheckRoot(cfg.Root, cfg.Signer.Public()); err != nil {
		return nil, err
	}
	if root := cfg.Root.Subject.Organization[0]; root != cfg.Organization {
		return nil, refusal.New(CodeOrganizationInvalid, "organization is %q, the root certificate says %q", cfg.Organization, root)
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = defaultLifetime
	}
	if cfg.LeafLifetime == 0 {
		cfg.LeafLifetime = defaultLeafLifetime
	}
	if err := checkLifetime("lifetime of an intermediate", cfg.Lifetime, minLifetime, maxLifetime); err != nil {
		return nil, err
	}
	if err := checkLifetime("lifetime of a leaf", cfg.LeafLifetime, minLeafLifetime, maxLeafLifetime); err != nil {
		return nil, err
	}
	if cfg.Backdate < 0 || cfg.Backdate > time.Minute || cfg.Backdate%time.Second != 0 {
		return nil, refusal.New(CodeLifetimeInvalid, "validities begin %s before now, it must be 0s to 1m in whole seconds", cfg.Backdate)
	}
	// RFC 6962 section 2.1.4: a log signs with NIST P-256 or RSA; ours with P-256.
	pub, ok := cfg.Log.Public().(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, refusal.New(CodeCertificateInvalid, "the log key is a %T, certificate timestamps are signed with ECDSA P-256", cfg.Log.Public())
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, refusal.New(CodeCertificateInvalid, "log key: %w", err)
	}
	remembered, err := lru.New[Identity, *named](rememberedIdentities)
	if err != nil {
		return nil, err
	}
	return &Authority{cfg: cfg, logID: sha256.Sum256(spki), named: remembered}, nil
}

// checkLifetime wants whole seconds because certificates know no others.
func checkLifetime(what string, d, least, most time.Duration) error {
	if d < least || d > most || d%time.Second != 0 {
		return refusal.New(CodeLifetimeInvalid, "the %s is %s, it must be %s to %s in whole seconds", what, d, least, most)
	}
	return nil
}

// Prepare makes the next intermediate ahead of time, where the present one is in use.
// It is called every minute. A failure is an error only where there is no intermediate
// left that can issue; before that it is logged.
func (a *Authority) Prepare(ctx context.Context) error {
	cur := a.current.Load()
	if cur == nil || !cur.used.Load() || !cur.due(a.cfg.Now(), &a.cfg) {
		return nil
	}
	err := a.renew(ctx)
	if err == nil || ctx.Err() != nil || !cur.covers(a.cfg.Now(), &a.cfg) {
		return err
	}
	a.cfg.Logger.WarnContext(ctx, "intermediate not renewed, the old one goes on",
		slog.Any("error", err), slog.Time("issues_until", cur.cert.NotAfter.Add(-a.cfg.LeafLifetime)))
	return nil
}

// Issue makes a key and certifies that id holds it. It waits for the CA's key only
// where no intermediate can cover the leaf.
func (a *Authority) Issue(ctx context.Context, id Identity) (*Leaf, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	// The clock is read after the intermediate is taken: otherwise one that was made
	// in between would seem to lie in the future.
	cur := a.current.Load()
	now := a.cfg.Now()
	if !cur.covers(now, &a.cfg) {
		if err := a.lastFailure(now); err != nil {
			return nil, err
		}
		if err := a.renew(ctx); err != nil {
			return nil, err
		}
		cur = a.current.Load()
		if now = a.cfg.Now(); !cur.covers(now, &a.cfg) {
			return nil, refusal.New(CodeNoIntermediate, "the clock jumps: it says %s, the new intermediate issues from %s to %s",
				stamp(now), stamp(cur.cert.NotBefore), stamp(cur.cert.NotAfter.Add(-a.cfg.LeafLifetime)))
		}
	}
	return a.issue(ctx, cur, id, now)
}

// renew makes an intermediate, or waits for the one that is being made. The work is
// cut loose from the caller that started it, because others wait for it too.
func (a *Authority) renew(ctx context.Context) error {
	done := a.making.DoChan("", func() (any, error) {
		// Whoever comes when a flight has just landed finds the work done.
		now := a.cfg.Now()
		if !a.current.Load().due(now, &a.cfg) {
			return nil, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), makeTimeout)
		defer cancel()
		err := a.replace(ctx, now)
		// A refusal of the CA's signer or of the publisher says more than ours would.
		if err != nil && refusal.CodeOf(err) == "" {
			err = refusal.New(CodeNoIntermediate, "make an intermediate: %w", err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.failure, a.failedAt = err, a.cfg.Now() // it may have taken a while
		return nil, err
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// replace makes and publishes an intermediate and lets it issue. One whose
// publication failed is published again rather than made anew, so that a full disk
// does not cost the CA's key a signature per attempt.
func (a *Authority) replace(ctx context.Context, now time.Time) error {
	if a.pending.due(now, &a.cfg) {
		made, err := certify(ctx, &a.cfg, now)
		if err != nil {
			return err
		}
		a.pending = made
	}
	if err := a.cfg.Publish(ctx, a.pending.cert); err != nil {
		return err
	}
	a.current.Store(a.pending)
	a.cfg.Logger.InfoContext(ctx, "intermediate certified",
		slog.String("subject", a.pending.cert.Subject.String()), slog.Time("not_after", a.pending.cert.NotAfter))
	a.pending = nil
	return nil
}

// lastFailure returns what stopped the last attempt, as long as it is too early for
// another one.
func (a *Authority) lastFailure(now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	// After a jump back of the clock the age is negative and says nothing.
	if age := now.Sub(a.failedAt); age < 0 || age >= retryPause {
		return nil
	}
	return a.failure
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
