package identity

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
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

// TypeGitHubActions is the IssuerConfig.Type of GitHub Actions, whether
// github.com, a data residency host or GitHub Enterprise Server.
const TypeGitHubActions = "github-actions"

// IssuerConfig is one issuer whose tokens are believed.
type IssuerConfig struct {
	// URL is the issuer, exactly as it stands in its tokens' iss claim. It is
	// compared byte for byte, never by prefix or pattern. https, or http on
	// loopback.
	URL string
	// Type says which claims to expect. Default and only type: "github-actions".
	Type string
	// AllowedOwnerIDs are the numeric ids of the GitHub organisations and users
	// whose repositories may call. Required: every GitHub user in the world can
	// get a token of GitHub's issuer, naming this service.
	AllowedOwnerIDs []int64
	// AllowedRepositoryIDs narrows the owners to some repositories. Empty: all.
	AllowedRepositoryIDs []int64
	// Sandbox marks an issuer that vouches for nothing real. Only an issuer on
	// loopback can be one.
	Sandbox bool
	// Algorithms the issuer signs with. Default RS256. Possible: RS256, PS256,
	// ES256, ES384, EdDSA.
	Algorithms []string
	// JWKSURI is where the issuer's keys are, if not on the issuer's own host.
	// The discovery document must name exactly this.
	JWKSURI string
	// ServerURL is the GitHub server that repository names are relative to.
	// Default https://github.com.
	ServerURL string
}

// Config configures a Verifier.
type Config struct {
	// Audience are the names of this deployment, normally its URL. A token names
	// exactly one of them. Required if there are issuers. Names shared with other
	// deployments let a token for one be used at another.
	Audience []string
	// Issuers may be empty: every token is then refused with ISSUER_UNKNOWN.
	Issuers []IssuerConfig
	// ClockSkew is how far clocks may differ. Default 60 s, at most 5 min;
	// negative means none.
	ClockSkew time.Duration
	// MaxTokenLifetime bounds exp-iat. Default 1 h, at most 24 h.
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
}

// issuer is one configured issuer with its keys.
type issuer struct {
	IssuerConfig
	keys *keyring
}

// NewVerifier checks the configuration. It sends nothing: keys are fetched when
// the first token comes.
func NewVerifier(cfg Config) (*Verifier, error) {
	v := &Verifier{
		audience: slices.Clone(cfg.Audience),
		issuers:  make(map[string]*issuer, len(cfg.Issuers)),
		skew:     cfg.ClockSkew,
		lifetime: cfg.MaxTokenLifetime,
		now:      cfg.Now,
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
		ic.AllowedOwnerIDs, ic.AllowedRepositoryIDs = slices.Clone(ic.AllowedOwnerIDs), slices.Clone(ic.AllowedRepositoryIDs)
		ic.Algorithms = slices.Clone(ic.Algorithms)
		if err := ic.complete(); err != nil {
			return nil, refusal.New(CodeIdentityConfigInvalid, "%w", err).InField(fmt.Sprintf("issuers[%d]", i))
		}
		if _, ok := v.issuers[ic.URL]; ok {
			return nil, refusal.New(CodeIdentityConfigInvalid, "issuer %s is there twice", ic.URL).InField(fmt.Sprintf("issuers[%d]", i))
		}
		v.issuers[ic.URL] = &issuer{IssuerConfig: ic, keys: &keyring{
			issuer: ic.URL, jwksURI: ic.JWKSURI, client: client, timeout: fetchTimeout, now: v.now, log: logger,
		}}
	}
	return v, nil
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

// complete sets the defaults of c and checks the rest.
func (c *IssuerConfig) complete() error {
	if c.Type == "" {
		c.Type = TypeGitHubActions
	}
	if c.Type != TypeGitHubActions {
		return fmt.Errorf("type %q is unknown; %q is known", c.Type, TypeGitHubActions)
	}
	loopback, err := checkBaseURL(c.URL)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	if c.Sandbox && !loopback {
		return fmt.Errorf("sandbox: %s is not on loopback, so it cannot be a sandbox", c.URL)
	}
	if c.JWKSURI != "" {
		if _, err := checkBaseURL(c.JWKSURI); err != nil {
			return fmt.Errorf("jwks_uri: %w", err)
		}
	}
	if c.ServerURL == "" {
		c.ServerURL = "https://github.com"
	}
	if _, err := checkBaseURL(c.ServerURL); err != nil {
		return fmt.Errorf("server_url: %w", err)
	}
	if strings.HasSuffix(c.ServerURL, "/") {
		return fmt.Errorf("server_url %q ends in a slash", c.ServerURL)
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{"RS256"}
	}
	for _, alg := range c.Algorithms {
		if _, ok := algorithms[alg]; !ok {
			return fmt.Errorf("algorithm %q is not accepted", alg)
		}
	}
	if len(c.AllowedOwnerIDs) == 0 {
		return fmt.Errorf("allowed_owner_ids is empty: anybody on GitHub could call")
	}
	for _, id := range slices.Concat(c.AllowedOwnerIDs, c.AllowedRepositoryIDs) {
		if id <= 0 {
			return fmt.Errorf("allowed id %d is not positive", id)
		}
	}
	return nil
}

// checkBaseURL accepts an absolute URL that has only one spelling: https, or
// http on loopback; no user, query or fragment.
func checkBaseURL(s string) (loopback bool, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return false, fmt.Errorf("%q is not a URL", s)
	}
	if u.Hostname() == "" || u.User != nil || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.String() != s {
		return false, fmt.Errorf("%q is not a plain URL of scheme, host and path", s)
	}
	ip := net.ParseIP(u.Hostname())
	loopback = u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback) {
		return false, fmt.Errorf("%q is not https", s)
	}
	return loopback, nil
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
	if err := v.checkAudience(c); err != nil {
		return nil, err
	}
	expires, err := v.checkTimes(c)
	if err != nil {
		return nil, err
	}
	jti, err := c.str("jti")
	if err != nil {
		return nil, err
	}
	caller, err := is.gitHubCaller(c)
	if err != nil {
		return nil, err
	}
	return &Verified{Caller: caller, ReplayKey: iss + "\x00" + jti, ExpiresAt: expires.Add(v.skew)}, nil
}
