package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sync/singleflight"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeIssuerUnavailable: the keys of a known issuer could not be had, or are
	// too old to be believed. Trying again later may help.
	CodeIssuerUnavailable refusal.Code = "ISSUER_UNAVAILABLE"
	// CodeTokenKeyUnknown: the issuer publishes no usable key of that kid.
	CodeTokenKeyUnknown refusal.Code = "TOKEN_KEY_UNKNOWN"
)

const (
	// keysFresh is how long a key set is used without asking again. A key that
	// its issuer withdraws stops working here within this time.
	keysFresh = 10 * time.Minute
	// keysHard is how long a key set is used while its issuer cannot be reached.
	// After it every token of that issuer is refused.
	keysHard = time.Hour
	// refreshInterval is the least time between two fetches from one issuer, so
	// that tokens with invented kids cannot make us flood it.
	refreshInterval = 10 * time.Second
	fetchTimeout    = 5 * time.Second

	maxDiscoveryBytes = 64 << 10
)

// keyring holds the keys of one issuer and fetches them when needed. It is safe
// for concurrent use.
type keyring struct {
	issuer  string
	jwksURI string // configured; the only jwks_uri then accepted
	client  *http.Client
	timeout time.Duration // of one refresh
	now     func() time.Time
	log     *slog.Logger
	flight  singleflight.Group

	mu         sync.Mutex
	set        keySet
	fetched    time.Time // when set was fetched
	discovered string    // jwks_uri of the discovery document
	discoverAt time.Time
	lastTry    time.Time
	lastErr    error // of the last try
}

// key returns the issuer's key of that kid, or TOKEN_KEY_UNKNOWN, or
// ISSUER_UNAVAILABLE where the answer cannot be known.
func (r *keyring) key(ctx context.Context, kid string) (*key, error) {
	set, age := r.current()
	if k, ok := set[kid]; ok && age < keysFresh {
		return k, nil
	}
	err := r.refresh(ctx)
	set, age = r.current()
	if set == nil || age >= keysHard {
		if err == nil {
			err = errors.New("no keys yet")
		}
		return nil, r.unavailable(err)
	}
	if k, ok := set[kid]; ok {
		return k, nil
	}
	if err != nil {
		return nil, r.unavailable(err)
	}
	return nil, refusal.New(CodeTokenKeyUnknown, "%s publishes no usable key %.80q", r.issuer, kid)
}

// unavailable keeps the cause for the log: whoever holds the token has no session
// yet, and addresses of ours are none of their business.
func (r *keyring) unavailable(cause error) error {
	e := refusal.New(CodeIssuerUnavailable, "the keys of %s cannot be had now", r.issuer)
	e.Err = cause
	return e
}

// current returns the key set and its age. A clock that went backwards makes
// the set as old as can be: it is fetched again rather than trusted for longer.
func (r *keyring) current() (keySet, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	age := r.now().Sub(r.fetched)
	if age < 0 {
		age = keysHard
	}
	return r.set, age
}

// refresh fetches the key set, unless that was tried less than refreshInterval
// ago; then it returns what that try returned. Concurrent calls share one
// fetch. The fetch outlives the caller that began it, since others wait for it.
func (r *keyring) refresh(ctx context.Context) error {
	done := r.flight.DoChan("", func() (any, error) {
		r.mu.Lock()
		now := r.now()
		if since := now.Sub(r.lastTry); since >= 0 && since < refreshInterval {
			defer r.mu.Unlock()
			return nil, r.lastErr
		}
		r.lastTry = now
		r.mu.Unlock()

		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
		defer cancel()
		set, err := r.fetch(ctx, now)

		r.mu.Lock()
		defer r.mu.Unlock()
		r.lastErr = err
		if err != nil {
			r.discovered = "" // it may have moved: ask anew
			r.log.Warn("issuer keys not refreshed", "issuer", r.issuer, "error", err)
			return nil, err
		}
		// The new set replaces the old one whole. Adding to it instead would keep
		// withdrawn keys alive (CVE-2025-22149).
		r.set, r.fetched = set, now
		return nil, nil
	})
	select {
	case res := <-done:
		return res.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fetch gets the key set, and before it the discovery document where that is
// older than keysHard. Only one fetch runs at a time.
func (r *keyring) fetch(ctx context.Context, now time.Time) (keySet, error) {
	r.mu.Lock()
	uri, age := r.discovered, now.Sub(r.discoverAt)
	r.mu.Unlock()
	if uri == "" || age < 0 || age >= keysHard {
		var err error
		if uri, err = r.discover(ctx); err != nil {
			return nil, err
		}
		r.mu.Lock()
		r.discovered, r.discoverAt = uri, now
		r.mu.Unlock()
	}
	data, err := r.get(ctx, uri, maxKeySetBytes)
	if err != nil {
		return nil, err
	}
	set, skipped, err := parseKeySet(data)
	if err != nil {
		return nil, err
	}
	for _, err := range skipped {
		r.log.Warn("issuer key left out", "issuer", r.issuer, "error", err)
	}
	r.log.Info("issuer keys refreshed", "issuer", r.issuer, "keys", len(set))
	return set, nil
}

// discover reads the discovery document and returns its jwks_uri.
func (r *keyring) discover(ctx context.Context) (string, error) {
	data, err := r.get(ctx, strings.TrimSuffix(r.issuer, "/")+"/.well-known/openid-configuration", maxDiscoveryBytes)
	if err != nil {
		return "", err
	}
	if err := attest.CheckJSON(data, maxDiscoveryBytes); err != nil {
		return "", fmt.Errorf("discovery document: %w", err)
	}
	var doc struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return "", errors.New("discovery document: not a JSON object with issuer and jwks_uri")
	}
	// OpenID Connect Discovery 4.3: issuer MUST be exactly the issuer asked for.
	if doc.Issuer != r.issuer {
		return "", fmt.Errorf("discovery document is of issuer %.200q", doc.Issuer)
	}
	if r.jwksURI != "" {
		if doc.JWKSURI != r.jwksURI {
			return "", fmt.Errorf("discovery document names jwks_uri %.200q, configured is %q", doc.JWKSURI, r.jwksURI)
		}
		return r.jwksURI, nil
	}
	keys, err := url.Parse(doc.JWKSURI)
	if err != nil {
		return "", errors.New("discovery document: jwks_uri is not a URL")
	}
	own, err := url.Parse(r.issuer)
	if err != nil {
		return "", err
	}
	if keys.Scheme != own.Scheme || keys.Host != own.Host || keys.User != nil {
		return "", fmt.Errorf("discovery document: jwks_uri %.200q is not on the issuer's host; jwks_uri can be configured", doc.JWKSURI)
	}
	return doc.JWKSURI, nil
}

// get fetches one document. Nothing of any caller goes with the request.
// Redirects are answers other than 200, so they are refused and not followed.
func (r *keyring) get(ctx context.Context, uri string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", uri, err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "identity") // no decompression, so no bomb
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", uri, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", uri, err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("GET %s: more than %d bytes", uri, limit)
	}
	return body, nil
}
