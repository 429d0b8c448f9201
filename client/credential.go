package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// Codes of credentials that could not be had.
const (
	// CodeCredentialMissing: the environment offers no credential at all.
	CodeCredentialMissing = "CREDENTIAL_MISSING"
	// CodeCredentialRefused: the platform would not issue one.
	CodeCredentialRefused = "CREDENTIAL_REFUSED"
	// CodeCredentialUnavailable: the platform could not be reached, or answered nonsense.
	CodeCredentialUnavailable = "CREDENTIAL_UNAVAILABLE"
	// CodeCredentialInvalid: what the environment holds is no token that could be sent.
	CodeCredentialInvalid = "CREDENTIAL_INVALID"
	// CodeCredentialAudience: the token at hand is made out to somebody else, so it
	// is not shown to this server.
	CodeCredentialAudience = "CREDENTIAL_AUDIENCE_MISMATCH"
)

// CredentialSource yields platform credentials. Each credential works once, so a
// source is asked again for every session.
type CredentialSource interface {
	// Credential returns an exchange request whose credential is made out to
	// audience and to nobody else. It may be called by several goroutines.
	// An *Error with Retryable set may be asked for again.
	Credential(ctx context.Context, audience string) (*assayv1.ExchangeRequest, error)
}

// The variables that GitHub sets for a job which may ask for a token.
const (
	envRequestURL   = "ACTIONS_ID_TOKEN_REQUEST_URL"
	envRequestToken = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
)

const (
	tokenTimeout      = 15 * time.Second
	maxTokenAnswer    = 64 << 10
	maxOIDCTokenBytes = 8 << 10 // The contract's limit on ExchangeRequest.oidc_token.
)

// GitHubActions returns the credential source of a GitHub Actions job: the OIDC
// token of its runner. lookup reads the environment, as os.LookupEnv does, each
// time a credential is asked for.
func GitHubActions(lookup func(string) (string, bool)) CredentialSource {
	return &githubActions{lookup: lookup, http: &http.Client{
		Timeout: tokenTimeout,
		// The request carries the runner's bearer token: it goes where the
		// environment says and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("redirect refused") },
	}}
}

type githubActions struct {
	lookup func(string) (string, bool)
	http   *http.Client
}

func (g *githubActions) Credential(ctx context.Context, audience string) (*assayv1.ExchangeRequest, error) {
	req, err := g.request(ctx, audience)
	if err != nil {
		return nil, err
	}
	resp, err := g.http.Do(req)
	if err != nil {
		// The error of http.Client quotes the URL; what failed is enough.
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, unavailable(ctx, fmt.Errorf("GitHub's token endpoint: %w", err))
	}
	defer resp.Body.Close()
	token, err := readToken(ctx, resp)
	if err != nil {
		return nil, err
	}
	return &assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_OidcToken{OidcToken: token}}, nil
}

// request builds what actions/toolkit's oidc-utils sends. The URL in the
// environment carries a query of its own already.
func (g *githubActions) request(ctx context.Context, audience string) (*http.Request, error) {
	raw, bearer := g.env(envRequestURL), g.env(envRequestToken)
	if raw == "" || bearer == "" {
		if g.env("GITHUB_ACTIONS") == "true" {
			return nil, newError(ErrUnauthenticated, CodeCredentialMissing,
				"this job may not ask GitHub for a token: give it `permissions: id-token: write`")
		}
		return nil, newError(ErrUnauthenticated, CodeCredentialMissing,
			"no credential: not in a GitHub Actions job (%s and %s are not set)", envRequestURL, envRequestToken)
	}
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname()))) {
		return nil, newError(ErrUnauthenticated, CodeCredentialMissing, "%s is not an https URL", envRequestURL)
	}
	q := u.Query()
	q.Set("audience", audience)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, newError(ErrUnauthenticated, CodeCredentialMissing, "%s is not usable", envRequestURL)
	}
	req.Header.Set("Authorization", "bearer "+bearer)
	req.Header.Set("Accept", "application/json")
	return req, nil
}

func (g *githubActions) env(name string) string {
	v, _ := g.lookup(name)
	return v
}

func readToken(ctx context.Context, resp *http.Response) (string, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	switch {
	case err != nil:
		return "", unavailable(ctx, fmt.Errorf("GitHub's token endpoint: %w", err))
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return "", unavailable(ctx, fmt.Errorf("GitHub's token endpoint answered %d", resp.StatusCode))
	case resp.StatusCode != http.StatusOK:
		return "", newError(ErrUnauthenticated, CodeCredentialRefused,
			"GitHub's token endpoint answered %d; has the job ended, or may it not ask for a token?", resp.StatusCode)
	case len(body) > maxTokenAnswer:
		return "", nonsense("more than %d bytes", maxTokenAnswer)
	}
	var answer struct {
		Value string `json:"value"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", nonsense("no JSON")
	}
	if err := checkTokenShape(answer.Value); err != nil {
		return "", nonsense("%w", err)
	}
	return answer.Value, nil
}

// checkTokenShape refuses what no server of the contract takes.
func checkTokenShape(token string) error {
	if n := len(token); n == 0 || n > maxOIDCTokenBytes {
		return fmt.Errorf("a token of %d bytes, limit %d", n, maxOIDCTokenBytes)
	}
	if strings.Count(token, ".") != 2 || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("a value that is no JWT")
	}
	return nil
}

// unavailable is retryable, unless it was the caller who lost patience.
func unavailable(ctx context.Context, err error) *Error {
	e := newError(ErrUnavailable, CodeCredentialUnavailable, "%w", err)
	e.Retryable = ctx.Err() == nil
	return e
}

func nonsense(format string, args ...any) *Error {
	return newError(ErrUnavailable, CodeCredentialUnavailable, "GitHub's token endpoint answered "+format, args...)
}

// The variables that hold a token somebody else asked for.
const (
	envIDToken     = "ASSAY_ID_TOKEN"
	envIDTokenFile = "ASSAY_ID_TOKEN_FILE"
)

// IDToken returns the credential source of an environment that holds an OIDC
// token already: in ASSAY_ID_TOKEN, as GitLab's id_tokens puts it there, or else in
// the file that ASSAY_ID_TOKEN_FILE names, which is read anew for each session.
//
// Such a token was made out by somebody else, perhaps to another service, so its
// aud is compared before it is sent: it must be the audience and nothing besides.
// The server verifies the token; this only keeps it from who should not see it.
func IDToken(lookup func(string) (string, bool)) CredentialSource { return &idToken{lookup} }

type idToken struct{ lookup func(string) (string, bool) }

func (s *idToken) Credential(_ context.Context, audience string) (*assayv1.ExchangeRequest, error) {
	token, from, err := s.read()
	if err != nil {
		return nil, err
	}
	if err := checkTokenShape(token); err != nil {
		return nil, newError(ErrUnauthenticated, CodeCredentialInvalid, "%s holds %w", from, err)
	}
	if err := checkTokenAudience(token, audience); err != nil {
		return nil, err
	}
	return &assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_OidcToken{OidcToken: token}}, nil
}

func (s *idToken) read() (token, from string, err error) {
	if token, _ := s.lookup(envIDToken); token != "" {
		return token, envIDToken, nil
	}
	path, _ := s.lookup(envIDTokenFile)
	if path == "" {
		return "", "", newError(ErrUnauthenticated, CodeCredentialMissing, "neither %s nor %s is set", envIDToken, envIDTokenFile)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", "", newError(ErrUnauthenticated, CodeCredentialMissing, "%s: %w", envIDTokenFile, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTokenAnswer))
	if err != nil {
		return "", "", newError(ErrUnauthenticated, CodeCredentialMissing, "%s: %w", envIDTokenFile, err)
	}
	return strings.TrimSpace(string(data)), envIDTokenFile, nil
}

// checkTokenAudience reads the aud of a token without believing anything in it.
func checkTokenAudience(token, audience string) error {
	payload, err := base64.RawURLEncoding.Strict().DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		return newError(ErrUnauthenticated, CodeCredentialInvalid, "the token's payload is not base64url")
	}
	if err := attest.CheckJSON(payload, maxOIDCTokenBytes); err != nil {
		return newError(ErrUnauthenticated, CodeCredentialInvalid, "the token's payload is not strict JSON")
	}
	var claims struct {
		Audience json.RawMessage `json:"aud"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return newError(ErrUnauthenticated, CodeCredentialInvalid, "the token's payload is not an object")
	}
	var one string
	var many []string
	if json.Unmarshal(claims.Audience, &one) == nil {
		many = []string{one}
	} else if json.Unmarshal(claims.Audience, &many) != nil {
		return newError(ErrUnauthenticated, CodeCredentialInvalid, "the token's aud is neither a string nor a list of them")
	}
	if len(many) != 1 || many[0] != audience {
		return newError(ErrUnauthenticated, CodeCredentialAudience, "the token is made out to %.300q, want exactly %q", many, audience)
	}
	return nil
}
