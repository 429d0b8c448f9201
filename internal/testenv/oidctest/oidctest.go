// Package oidctest is an OpenID Connect issuer that behaves like the one of
// GitHub Actions, for tests and for the sandbox. It vouches for whatever it is
// told, so nothing but a test or a sandbox may believe it.
//
// It serves, under the path of its base URL,
//
//	/.well-known/openid-configuration   discovery
//	/.well-known/jwks                   the public keys
//	/_apis/…/idtoken?api-version=2.0    the runner's token endpoint
//
// The last answers as GitHub's does: with "Authorization: bearer REQUEST_TOKEN"
// and &audience=AUD it returns {"count":N,"value":"JWT"}, N being the length of
// the JWT. The tokens are those of one job, which SetJob changes; Env is what a
// runner would have in its environment.
//
//	var issuer *oidctest.Issuer
//	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//		issuer.Handler().ServeHTTP(w, r)
//	}))
//	issuer, err := oidctest.New(oidctest.Config{BaseURL: srv.URL})
//	token := issuer.Mint("https://assay.example.com", oidctest.Claims{"event_name": "release"})
//
// Tests that need a token no honest issuer would make use Forge. With Config.Job
// the tokens are those of another platform, which hands them out in another way.
// NewIdP returns an identity provider for people.
package oidctest

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
)

// Config configures an Issuer.
type Config struct {
	// BaseURL is where Handler is reachable, and the issuer of the tokens.
	// Required. It may have a path; Handler then expects it in requests.
	BaseURL string
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Key signs the tokens. Default: a new RSA key of 2048 bits.
	Key *rsa.PrivateKey
	// RequestToken is the bearer that the token endpoint wants. Default: random.
	RequestToken string
	// TokenLifetime is exp-iat. Default 5 minutes.
	TokenLifetime time.Duration
	// ServerURL is GITHUB_SERVER_URL. Default https://github.com.
	ServerURL string
	// Job is what every token says beside iss, aud, jti and the dates. Default
	// DefaultJob; see GitLabJob, BuildkiteJob and WebIdentity for other platforms.
	Job Claims
}

// Issuer issues tokens for one job. It is safe for concurrent use.
type Issuer struct {
	cfg      Config
	path     string // path of BaseURL, without trailing slash
	idToken  string // path of the token endpoint under path
	requests atomic.Int64

	mu   sync.Mutex
	job  Claims
	keys []signingKey // the last one signs; all are published
}

type signingKey struct {
	kid  string
	priv *rsa.PrivateKey
}

// New returns an issuer with the default job.
func New(cfg Config) (*Issuer, error) {
	base, err := url.Parse(cfg.BaseURL)
	if err != nil || base.Host == "" || strings.HasSuffix(cfg.BaseURL, "/") {
		return nil, fmt.Errorf("oidctest: base URL %q is not an absolute URL without trailing slash", cfg.BaseURL)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.TokenLifetime == 0 {
		cfg.TokenLifetime = 5 * time.Minute
	}
	if cfg.ServerURL == "" {
		cfg.ServerURL = "https://github.com"
	}
	if cfg.RequestToken == "" {
		cfg.RequestToken = randomHex(32)
	}
	i := &Issuer{
		cfg:  cfg,
		path: base.Path,
		idToken: fmt.Sprintf("/_apis/distributedtask/hubs/Actions/plans/%s/jobs/%s/idtoken",
			uuid.NewString(), uuid.NewString()),
		job: cfg.Job.With(nil),
	}
	if cfg.Job == nil {
		i.job = DefaultJob()
	}
	return i, i.addKey(cfg.Key)
}

func (i *Issuer) addKey(priv *rsa.PrivateKey) error {
	if priv == nil {
		var err error
		if priv, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return fmt.Errorf("oidctest: %w", err)
		}
	}
	i.keys = append(i.keys, signingKey{uuid.NewString(), priv})
	return nil
}

// URL is the issuer, as in the iss claim.
func (i *Issuer) URL() string { return i.cfg.BaseURL }

// RequestURL is ACTIONS_ID_TOKEN_REQUEST_URL.
func (i *Issuer) RequestURL() string { return i.cfg.BaseURL + i.idToken + "?api-version=2.0" }

// RequestToken is ACTIONS_ID_TOKEN_REQUEST_TOKEN.
func (i *Issuer) RequestToken() string { return i.cfg.RequestToken }

// Requests counts the requests for discovery and keys so far.
func (i *Issuer) Requests() int { return int(i.requests.Load()) }

// KeyID is the kid of the key that signs now.
func (i *Issuer) KeyID() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[len(i.keys)-1].kid
}

// Rotate makes a new key and signs with it from now on. The old keys stay
// published until DropOldKeys.
func (i *Issuer) Rotate() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.addKey(nil)
}

// DropOldKeys withdraws all keys but the one that signs.
func (i *Issuer) DropOldKeys() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = slices.Clone(i.keys[len(i.keys)-1:])
}

// SetJob lays claims over those of the job. A nil value removes a claim.
func (i *Issuer) SetJob(c Claims) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.job = i.job.With(c)
}

// Job returns a copy of the job's claims.
func (i *Issuer) Job() Claims {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.job)
}

// Handler serves the issuer's three addresses and 404 for everything else.
func (i *Issuer) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+i.path+"/.well-known/openid-configuration", i.serveDiscovery)
	mux.HandleFunc("GET "+i.path+"/.well-known/jwks", i.serveKeys)
	mux.HandleFunc("GET "+i.path+i.idToken, i.serveToken)
	return mux
}

func (i *Issuer) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	i.requests.Add(1)
	claims := slices.Sorted(maps.Keys(i.Job()))
	writeJSON(w, "application/json", map[string]any{
		"issuer":                                i.cfg.BaseURL,
		"jwks_uri":                              i.cfg.BaseURL + "/.well-known/jwks",
		"subject_types_supported":               []string{"public", "pairwise"},
		"response_types_supported":              []string{"id_token"},
		"claims_supported":                      append([]string{"sub", "aud", "exp", "iat", "iss", "jti", "nbf"}, claims...),
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"scopes_supported":                      []string{"openid"},
	})
}

func (i *Issuer) serveKeys(w http.ResponseWriter, _ *http.Request) {
	i.requests.Add(1)
	var set jose.JSONWebKeySet
	i.mu.Lock()
	for _, k := range i.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.priv.Public(), KeyID: k.kid, Algorithm: "RS256", Use: "sig"})
	}
	i.mu.Unlock()
	writeJSON(w, "application/json", set)
}

// serveToken is what a job asks for its token.
func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") || bearer != i.cfg.RequestToken {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	audience := r.URL.Query().Get("audience")
	if audience == "" { // GitHub's default: the owner's page, the same for every service
		audience = fmt.Sprintf("%s/%s", i.cfg.ServerURL, i.Job()["repository_owner"])
	}
	token := i.Mint(audience)
	writeJSON(w, "application/json; charset=utf-8; api-version=2.0", struct {
		Count int    `json:"count"`
		Value string `json:"value"`
	}{len(token), token})
}

func writeJSON(w http.ResponseWriter, contentType string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(data) // a client that went away
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
