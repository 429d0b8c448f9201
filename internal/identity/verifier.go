package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeIdentityConfigInvalid: a configuration that would believe too much.
	CodeIdentityConfigInvalid refusal.Code = "IDENTITY_CONFIG_INVALID"
	// CodeIssuerUnknown: the token's iss is not, byte for byte, a configured issuer.
	CodeIssuerUnknown refusal.Code = "ISSUER_UNKNOWN"
)

const (
	defaultClockSkew = 60 * time.Second
	maxClockSkew     = 5 * time.Minute
	defaultLifetime  = time.Hour
	maxLifetime      = 24 * time.Hour
)

// Config configures a Verifier.
type Config struct {
	// Audience are the names of this deployment, normally its URL. A token names
	// exactly one of them. Required if there are issuers. Names shared with other
	// deployments let a token for one be used at another.
	Audience []string
	// Issuers may be empty: every token is then refused with ISSUER_UNKNOWN.
	Issuers []IssuerConfig
	// Builds reads the build that a web identity token names. Required if an
	// issuer has a BuildTag.
	Builds BuildReader
	// Consumed tells whether a replay key was consumed, in the store that Sessions
	// has. It is asked right before GitHub or CodeBuild is asked about a token; an
	// error is a refusal. nil: not asked, and what is consumed is refused by
	// Sessions.Open alone.
	Consumed func(ctx context.Context, replayKey string) (bool, error)
	// SandboxAWS marks an AWS that is a stand-in, and so all builds and roles of
	// issuers of type aws-web-identity. Their addresses do not tell: the stand-in
	// has those of AWS.
	SandboxAWS bool
	// ClockSkew is how far clocks may differ. Default 60 s, at most 5 min;
	// negative means none.
	ClockSkew time.Duration
	// MaxTokenLifetime bounds exp-iat, where the issuer has no bound of its own.
	// Default 1 h, at most 24 h.
	MaxTokenLifetime time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// HTTPClient fetches keys. Only its Transport is used: redirects, cookies and
	// timeouts are the Verifier's own. Default: the default transport.
	HTTPClient *http.Client
	// Logger default: slog.Default(). It is never given a token.
	Logger *slog.Logger
}

// Verifier believes credentials, or refuses them. It is safe for concurrent use.
type Verifier struct {
	audience []string
	issuers  map[string]*issuer
	skew     time.Duration
	lifetime time.Duration
	now      func() time.Time
	consumed func(context.Context, string) (bool, error)
}

// issuer is one configured issuer with its keys.
type issuer struct {
	IssuerConfig
	keys     *keyring
	lifetime time.Duration
	mapping  *mapping    // of a workload
	builds   BuildReader // of AWS, where a tag names the build
	reads    *slots      // to read them
	recheck  *runRecheck // of GitHub, where configured
	// read makes a Caller of claims whose signature, audience and times are right. It
	// asks no other service before fresh has returned nil.
	read func(ctx context.Context, c claims, fresh freshness) (*Caller, error)
}

// freshness refuses a token that has opened its session.
type freshness func(context.Context) error

// NewVerifier checks the configuration. It sends nothing: keys are fetched when
// the first token comes.
func NewVerifier(cfg Config) (*Verifier, error) {
	v := &Verifier{
		audience: slices.Clone(cfg.Audience),
		issuers:  make(map[string]*issuer, len(cfg.Issuers)),
		skew:     cfg.ClockSkew,
		lifetime: cfg.MaxTokenLifetime,
		now:      cfg.Now,
		consumed: cfg.Consumed,
	}
	if v.now == nil {
		v.now = time.Now
	}
	if v.skew == 0 {
		v.skew = defaultClockSkew
	}
	v.skew = max(v.skew, 0)
	if v.lifetime == 0 {
		v.lifetime = defaultLifetime
	}
	if err := v.checkConfig(cfg); err != nil {
		return nil, err
	}
	logger := cfg.Logger
	if logger == nil {
		logger = slog.Default()
	}
	client := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if cfg.HTTPClient != nil {
		client.Transport = cfg.HTTPClient.Transport
	}
	for i, ic := range cfg.Issuers {
		is, err := v.newIssuer(ic, cfg)
		if err != nil {
			return nil, refusal.New(CodeIdentityConfigInvalid, "%w", err).InField(fmt.Sprintf("issuers[%d]", i))
		}
		if _, ok := v.issuers[is.URL]; ok {
			return nil, refusal.New(CodeIdentityConfigInvalid, "issuer %s is there twice", is.URL).InField(fmt.Sprintf("issuers[%d]", i))
		}
		is.keys = &keyring{
			issuer: is.URL, jwksURI: is.JWKSURI, client: client, timeout: fetchTimeout, now: v.now, log: logger,
		}
		if is.recheck != nil {
			is.recheck.client, is.recheck.log, is.recheck.now = client, logger, v.now
		}
		v.issuers[is.URL] = is
	}
	return v, nil
}

// newIssuer checks one issuer's configuration and says how its claims are read.
func (v *Verifier) newIssuer(ic IssuerConfig, cfg Config) (*issuer, error) {
	ic = ic.clone()
	if err := ic.complete(); err != nil {
		return nil, err
	}
	is := &issuer{IssuerConfig: ic, lifetime: v.lifetime, builds: cfg.Builds}
	if ic.MaxTokenLifetime != 0 {
		is.lifetime = ic.MaxTokenLifetime
	}
	if len(ic.Audience) == 0 {
		is.Audience = v.audience
	}
	var err error
	switch ic.Type {
	case TypeGitHubActions:
		is.read = is.gitHubCaller
		if ic.Recheck != nil {
			is.recheck, err = newRunRecheck(ic.Recheck, ic.ServerURL)
		}
	case TypeGitLab, TypeBuildkite, TypeWorkload:
		is.read = func(_ context.Context, c claims, _ freshness) (*Caller, error) { return is.workloadCaller(c) }
		is.mapping, err = ic.claimMapping().compile()
	case TypeAWSWebIdentity:
		is.read = is.webIdentityCaller
		is.reads = newSlots(buildReads, buildReads)
		is.Sandbox = is.Sandbox || cfg.SandboxAWS
		if ic.BuildTag != "" && cfg.Builds == nil {
			err = errors.New("build_tag: there is nothing that reads builds")
		}
	case TypeHuman:
		is.read = func(_ context.Context, c claims, _ freshness) (*Caller, error) { return is.humanCaller(c) }
	}
	return is, err
}

func (v *Verifier) checkConfig(cfg Config) error {
	switch {
	case v.skew > maxClockSkew:
		return refusal.New(CodeIdentityConfigInvalid, "clock skew %s; the limit is %s", v.skew, maxClockSkew)
	case v.lifetime < 0 || v.lifetime > maxLifetime:
		return refusal.New(CodeIdentityConfigInvalid, "token lifetime %s; the limit is %s", v.lifetime, maxLifetime)
	case len(cfg.Issuers) > 0 && len(cfg.Audience) == 0:
		return refusal.New(CodeIdentityConfigInvalid, "there are issuers but no audience").InField("audience")
	}
	for i, aud := range cfg.Audience {
		if strings.TrimSpace(aud) == "" {
			return refusal.New(CodeIdentityConfigInvalid, "empty").InField(fmt.Sprintf("audience[%d]", i))
		}
	}
	return nil
}

// VerifyOIDC checks a token, in the order of the package comment. It does not
// consume it: Sessions.Open does.
func (v *Verifier) VerifyOIDC(ctx context.Context, token string) (*Verified, error) {
	t, err := parseJWS(token)
	if err != nil {
		return nil, err
	}
	c, err := parseClaims(t.payload)
	if err != nil {
		return nil, err
	}
	iss, err := c.str("iss")
	if err != nil {
		return nil, err
	}
	is, ok := v.issuers[iss]
	if !ok {
		return nil, refusal.New(CodeIssuerUnknown, "issuer %.200q is not configured", iss)
	}
	if !slices.Contains(is.Algorithms, t.alg) {
		return nil, refusal.New(CodeTokenAlgRefused, "alg %s is not accepted of issuer %s", t.alg, iss)
	}
	k, err := is.keys.key(ctx, t.kid)
	if err != nil {
		return nil, err
	}
	if err := t.verify(k); err != nil {
		return nil, err
	}

	// From here on the claims are the issuer's word.
	if err := checkAudience(c, is.Audience); err != nil {
		return nil, err
	}
	expires, err := v.checkTimes(c, is.lifetime)
	if err != nil {
		return nil, err
	}
	replay, err := is.replayKey(c, t)
	if err != nil {
		return nil, err
	}
	caller, err := is.read(ctx, c, func(ctx context.Context) error { return notConsumed(ctx, v.consumed, replay) })
	if err != nil {
		return nil, err
	}
	// Or: what whoever read the facts says of them stays said.
	caller.Sandbox = caller.Sandbox || is.Sandbox
	return &Verified{Caller: caller, ReplayKey: replay, ExpiresAt: expires.Add(v.skew)}, nil
}

// replayKey names the token among all tokens. Buildkite and many identity
// providers set no jti; their token is named by the hash of what is signed, which
// has one spelling: a signature can have several, and is not in it.
func (is *issuer) replayKey(c claims, t *jws) (string, error) {
	if _, ok := c["jti"]; !ok && is.jtiOptional() {
		sum := sha256.Sum256([]byte(t.signed))
		return is.URL + "\x00\x00" + hex.EncodeToString(sum[:]), nil
	}
	jti, err := c.str("jti")
	if err != nil {
		return "", err
	}
	return is.URL + "\x00" + jti, nil
}
