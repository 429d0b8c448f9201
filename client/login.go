package client

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Codes of a login that came to nothing.
const (
	// CodeLoginConfigInvalid: an issuer or client id that cannot be logged in with.
	CodeLoginConfigInvalid = "LOGIN_CONFIG_INVALID"
	// CodeLoginUnavailable: the identity provider could not be reached.
	CodeLoginUnavailable = "LOGIN_UNAVAILABLE"
	// CodeLoginUnsupported: the provider does not offer what the login needs.
	CodeLoginUnsupported = "LOGIN_UNSUPPORTED"
	// CodeLoginAnswerInvalid: the provider, or who spoke for it, answered nonsense.
	CodeLoginAnswerInvalid = "LOGIN_ANSWER_INVALID"
	// CodeLoginStateMismatch: a browser came back from a login that we did not start.
	CodeLoginStateMismatch = "LOGIN_STATE_MISMATCH"
	// CodeLoginIssuerMismatch: the browser came back from another provider (RFC 9207).
	CodeLoginIssuerMismatch = "LOGIN_ISSUER_MISMATCH"
	// CodeLoginNonceMismatch: the ID token was issued for another login.
	CodeLoginNonceMismatch = "LOGIN_NONCE_MISMATCH"
	// CodeLoginTokenInvalid: the ID token is missing, not the provider's, or not for us.
	CodeLoginTokenInvalid = "LOGIN_TOKEN_INVALID"
	// CodeLoginDenied: the person, or the provider, said no.
	CodeLoginDenied = "LOGIN_DENIED"
	// CodeLoginTimeout: nobody logged in in time.
	CodeLoginTimeout = "LOGIN_TIMEOUT"
)

const (
	// loginTimeout bounds how long a person is waited for.
	loginTimeout = 10 * time.Minute
	// maxProviderAnswer bounds each answer of the provider, key set included.
	maxProviderAnswer = 1 << 20
	// maxPollInterval is the longest a provider may make the device flow wait, in seconds.
	maxPollInterval = 60
)

// LoginConfig says where a person logs in, and how.
type LoginConfig struct {
	// Issuer is the URL of the company's OpenID Connect provider. Required.
	Issuer string
	// ClientID is what Assay is registered as there: a public client, without a
	// secret, that may redirect to http://127.0.0.1/callback at any port. The ID
	// token names it and nothing else, so whoever accepts this client id accepts
	// the token: give each deployment of Assay its own. Required.
	ClientID string
	// Scopes to ask for besides openid; email and profile if nil.
	Scopes []string
	// Device uses the device flow (RFC 8628), for a machine without a browser. Whoever
	// has the user code confirmed gets the token, and nothing ties the two ends
	// together: it is the weaker of the two, so it is not the default.
	Device bool
	// Port of the redirect, for a provider that wants it registered; any free one if 0.
	Port int
	// Prompt is told where the person should go. Required.
	Prompt func(LoginPrompt)
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// LoginPrompt is what a person needs to know. All of it comes from the provider.
type LoginPrompt struct {
	// URL to open in a browser.
	URL string
	// UserCode to enter there, in the device flow.
	UserCode string
	// CompleteURL is URL with the code in it, where the provider offers that.
	CompleteURL string
}

// Login has a person log in at the company's identity provider, by the
// authorization code flow with PKCE on a loopback redirect (RFC 8252) or by the
// device flow, and returns the ID token as a credential. It works for one session:
// [Client.OpenSession] opens it, and [SaveLogin] keeps it for later processes.
//
// The provider's keys, aud, exp and nonce of the token are checked here already;
// access and refresh tokens, where the provider hands out any, are thrown away.
func Login(ctx context.Context, cfg LoginConfig) (CredentialSource, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	ctx, cancel := withDeadline(ctx, loginTimeout)
	defer cancel()
	l, err := discover(ctx, cfg)
	if err != nil {
		return nil, err
	}
	ctx = oidc.ClientContext(ctx, l.http)
	var token string
	if cfg.Device {
		token, err = l.device(ctx)
	} else {
		token, err = l.browser(ctx)
	}
	if err != nil {
		return nil, err
	}
	return loggedIn(token), nil
}

// loggedIn is the ID token of a login. Its audience is the client id and not the
// server: see LoginConfig.ClientID.
type loggedIn string

func (t loggedIn) Credential(context.Context, string) (*assayv1.ExchangeRequest, error) {
	return &assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_OidcToken{OidcToken: string(t)}}, nil
}

// login is one login under way.
type login struct {
	cfg      LoginConfig
	http     *http.Client
	provider *oidc.Provider
	oauth    oauth2.Config
	meta     providerMetadata
}

// providerMetadata is what we look at of the discovery document, besides what
// go-oidc does.
type providerMetadata struct {
	ChallengeMethods []string `json:"code_challenge_methods_supported"`
	// IssuerInAnswer promises the iss parameter of RFC 9207.
	IssuerInAnswer bool `json:"authorization_response_iss_parameter_supported"`
}

func discover(ctx context.Context, cfg LoginConfig) (*login, error) {
	issuer, err := url.Parse(cfg.Issuer)
	switch {
	case err != nil || !secureURL(cfg.Issuer, true) || issuer.RawQuery != "" || issuer.Fragment != "" || issuer.User != nil:
		return nil, badInput(CodeLoginConfigInvalid, "the issuer is not an https URL without user, query and fragment")
	case cfg.ClientID == "":
		return nil, badInput(CodeLoginConfigInvalid, "no client id given")
	case cfg.Prompt == nil:
		return nil, badInput(CodeLoginConfigInvalid, "nobody to tell where to log in")
	case cfg.Port < 0 || cfg.Port > 65535:
		return nil, badInput(CodeLoginConfigInvalid, "port %d of the redirect, want 0 to 65535", cfg.Port)
	}
	l := &login{cfg: cfg, http: providerClient()}
	if l.provider, err = oidc.NewProvider(oidc.ClientContext(ctx, l.http), cfg.Issuer); err != nil {
		return nil, l.failed(ctx, "discovery", err)
	}
	if err := l.provider.Claims(&l.meta); err != nil {
		return nil, newError(ErrUnavailable, CodeLoginAnswerInvalid, "the provider's discovery document is not usable")
	}
	endpoint := l.provider.Endpoint()
	// A public client names itself in the body. Left to itself, the library
	// would first try another way, and spend the code on it.
	endpoint.AuthStyle = oauth2.AuthStyleInParams
	used := []string{endpoint.TokenURL, endpoint.AuthURL}
	if cfg.Device {
		if endpoint.DeviceAuthURL == "" {
			return nil, newError(ErrUnavailable, CodeLoginUnsupported, "the provider offers no device flow")
		}
		used[1] = endpoint.DeviceAuthURL
	}
	for _, u := range used {
		if !secureURL(u, isLoopback(issuer.Hostname())) {
			return nil, newError(ErrUnavailable, CodeLoginAnswerInvalid, "the provider names an endpoint that is not https")
		}
	}
	scopes := cfg.Scopes
	if scopes == nil {
		scopes = []string{"email", "profile"}
	}
	l.oauth = oauth2.Config{ClientID: cfg.ClientID, Endpoint: endpoint, Scopes: append([]string{oidc.ScopeOpenID}, scopes...)}
	return l, nil
}

// browser is the authorization code flow.
func (l *login) browser(ctx context.Context) (string, error) {
	if m := l.meta.ChallengeMethods; len(m) > 0 && !slices.Contains(m, "S256") {
		return "", newError(ErrUnavailable, CodeLoginUnsupported, "the provider does not offer PKCE with S256")
	}
	// state ties the browser that comes back to this process, nonce ties the token
	// to this login, and the PKCE verifier ties the code to us: another program on
	// this machine that sees the redirect can do nothing with it.
	state, nonce, verifier := rand.Text(), rand.Text(), oauth2.GenerateVerifier()
	back, err := listenCallback(ctx, callbackConfig{
		port: l.cfg.Port, state: state, issuer: l.cfg.Issuer, issuerRequired: l.meta.IssuerInAnswer,
	})
	if err != nil {
		return "", err
	}
	defer back.close()
	conf := l.oauth
	conf.RedirectURL = back.url
	l.cfg.Prompt(LoginPrompt{URL: conf.AuthCodeURL(state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier))})
	code, err := back.wait(ctx)
	if err != nil {
		return "", err
	}
	token, err := conf.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		return "", l.failed(ctx, "token endpoint", err)
	}
	return l.idToken(ctx, token, nonce)
}

// device is the device flow.
func (l *login) device(ctx context.Context) (string, error) {
	auth, err := l.oauth.DeviceAuth(ctx)
	if err != nil {
		return "", l.failed(ctx, "device authorization endpoint", err)
	}
	loopback := isLoopback(hostOf(l.cfg.Issuer))
	switch {
	case auth.Interval < 0 || auth.Interval > maxPollInterval:
		return "", newError(ErrUnavailable, CodeLoginAnswerInvalid, "the provider asks for a poll every %d seconds; the limit is %d", auth.Interval, maxPollInterval)
	case auth.DeviceCode == "" || auth.UserCode == "" || len(auth.UserCode) > 64,
		!secureURL(auth.VerificationURI, loopback),
		auth.VerificationURIComplete != "" && !secureURL(auth.VerificationURIComplete, loopback):
		return "", newError(ErrUnavailable, CodeLoginAnswerInvalid, "the provider's answer names no code or no https URL to enter it at")
	}
	l.cfg.Prompt(LoginPrompt{URL: auth.VerificationURI, UserCode: auth.UserCode, CompleteURL: auth.VerificationURIComplete})
	token, err := l.oauth.DeviceAccessToken(ctx, auth)
	if err != nil {
		return "", l.failed(ctx, "token endpoint", err)
	}
	// The flow has no nonce: a token with one was issued for another login.
	return l.idToken(ctx, token, "")
}

// idToken takes the ID token out of an answer and checks it (OpenID Connect Core
// 3.1.3.7). The server checks it again; here it is about whose login this is.
func (l *login) idToken(ctx context.Context, answer *oauth2.Token, nonce string) (string, error) {
	raw, _ := answer.Extra("id_token").(string)
	if err := checkTokenShape(raw); err != nil {
		return "", newError(ErrUnauthenticated, CodeLoginTokenInvalid, "the ID token: %w", err)
	}
	token, err := l.provider.VerifierContext(ctx, &oidc.Config{ClientID: l.cfg.ClientID, Now: l.cfg.Now}).Verify(ctx, raw)
	switch {
	case ctx.Err() != nil:
		return "", l.failed(ctx, "key set", ctx.Err())
	case err != nil:
		return "", newError(ErrUnauthenticated, CodeLoginTokenInvalid, "the ID token: %v", err)
	case len(token.Audience) != 1:
		return "", newError(ErrUnauthenticated, CodeLoginTokenInvalid, "the ID token is made out to %d audiences, want this client alone", len(token.Audience))
	case subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(nonce)) != 1:
		return "", newError(ErrUnauthenticated, CodeLoginNonceMismatch, "the ID token was issued for another login")
	}
	return raw, nil
}

// failed says what went wrong at the provider, without repeating its answer: the
// libraries' errors quote whole bodies and URLs, which may hold codes and tokens.
func (l *login) failed(ctx context.Context, where string, err error) error {
	var refused *oauth2.RetrieveError
	var mismatch *oidc.IssuerMismatchError
	var ue *url.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return newError(nil, CodeLoginTimeout, "login: %w", context.Canceled)
	case ctx.Err() != nil:
		return newError(ErrUnavailable, CodeLoginTimeout, "nobody logged in in time: %w", context.DeadlineExceeded)
	case errors.As(err, &refused):
		return refusedBy(where, refused)
	case errors.As(err, &mismatch):
		return newError(ErrUnavailable, CodeLoginAnswerInvalid, "%s: the provider calls itself by another issuer", where)
	case errors.As(err, &ue):
		return newError(ErrUnavailable, CodeLoginUnavailable, "the provider's %s: %w", where, ue.Err)
	case errors.Is(err, context.DeadlineExceeded): // of the user code
		return newError(ErrUnavailable, CodeLoginTimeout, "nobody logged in in time: %w", err)
	}
	return newError(ErrUnavailable, CodeLoginAnswerInvalid, "the provider's %s gave no usable answer", where)
}

func refusedBy(where string, e *oauth2.RetrieveError) error {
	switch e.ErrorCode {
	case "access_denied":
		return newError(ErrUnauthenticated, CodeLoginDenied, "the login was refused")
	case "expired_token":
		return newError(ErrUnavailable, CodeLoginTimeout, "nobody logged in in time: the user code has expired")
	}
	status := 0
	if e.Response != nil {
		status = e.Response.StatusCode
	}
	if status >= 500 || status == http.StatusTooManyRequests {
		return newError(ErrUnavailable, CodeLoginUnavailable, "the provider's %s answered %d", where, status)
	}
	return newError(ErrUnauthenticated, CodeLoginDenied, "the provider's %s answered %d, %.100q", where, status, e.ErrorCode)
}

// providerClient is for requests to the provider. Codes go where its discovery
// document says and nowhere else, so redirects are refused; answers are bounded.
func providerClient() *http.Client {
	return &http.Client{
		Timeout:       tokenTimeout,
		Transport:     boundedTransport{http.DefaultTransport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("redirect refused") },
	}
}

type boundedTransport struct{ base http.RoundTripper }

func (t boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxProviderAnswer}
	return resp, nil
}

// boundedBody fails, where io.LimitReader would end as if all had been read.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("more than %d bytes", maxProviderAnswer)
	}
	return n, err
}

// secureURL reports whether raw is https, or http to this machine where that is
// allowed.
func secureURL(raw string, loopback bool) bool {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" {
		return false
	}
	return u.Scheme == "https" || (loopback && u.Scheme == "http" && isLoopback(u.Hostname()))
}

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
