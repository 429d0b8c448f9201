package oidctest

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// IdPConfig configures an identity provider.
type IdPConfig struct {
	// BaseURL is where Handler is reachable, and the issuer. Required.
	BaseURL string
	// ClientID is the one client, a public one: it has no secret. Required.
	ClientID string
	// User is whose tokens are issued. Default Person.
	User Claims
	// Device says whether the device flow is offered.
	Device bool
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Key signs the tokens. Default: a new RSA key of 2048 bits.
	Key *rsa.PrivateKey
}

// IdP is an OpenID provider for people that knows one person, who agrees to
// everything at once: the authorization endpoint redirects back without a page.
// It keeps to the standards where a client could get them wrong: a code works
// once, with its own redirect URI and the verifier of its S256 challenge (RFC
// 7636), redirects go to loopback only and with any port (RFC 8252 7.3), and the
// device flow answers authorization_pending until ApproveDevice (RFC 8628). It is
// safe for concurrent use.
type IdP struct {
	*Issuer
	cfg IdPConfig

	mu      sync.Mutex
	codes   map[string]grant
	devices map[string]*device // by device code
	tamper  func(Claims) Claims
	redir   func(url.Values)
}

// grant is what an authorization code stands for.
type grant struct {
	redirect, challenge, nonce string
}

type device struct {
	userCode string
	approved bool
	denied   bool
}

// NewIdP returns an identity provider.
func NewIdP(cfg IdPConfig) (*IdP, error) {
	user := cfg.User
	if user == nil {
		user = Person()
	}
	issuer, err := New(Config{BaseURL: cfg.BaseURL, Now: cfg.Now, Key: cfg.Key, TokenLifetime: time.Hour, Job: user})
	if err != nil {
		return nil, err
	}
	return &IdP{Issuer: issuer, cfg: cfg, codes: make(map[string]grant), devices: make(map[string]*device)}, nil
}

// Tamper makes f change the claims of every ID token from now on, and redirect the
// parameters of every redirect: what a dishonest provider, or somebody between,
// would do. Either may be nil.
func (p *IdP) Tamper(f func(Claims) Claims, redirect func(url.Values)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tamper, p.redir = f, redirect
}

// ApproveDevice lets the device of that user code have its token, or denies it.
// It reports whether the code is known.
func (p *IdP) ApproveDevice(userCode string, approve bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.devices {
		if d.userCode == userCode {
			d.approved, d.denied = approve, !approve
			return true
		}
	}
	return false
}

// Handler serves discovery, keys, /authorize, /token and /device_authorization.
func (p *IdP) Handler() http.Handler {
	mux := http.NewServeMux()
	path := p.path
	mux.HandleFunc("GET "+path+"/.well-known/openid-configuration", p.serveProvider)
	mux.HandleFunc("GET "+path+"/.well-known/jwks", p.serveKeys)
	mux.HandleFunc("GET "+path+"/authorize", p.serveAuthorize)
	mux.HandleFunc("POST "+path+"/token", p.serveExchange)
	if p.cfg.Device {
		mux.HandleFunc("POST "+path+"/device_authorization", p.serveDevice)
	}
	return mux
}

func (p *IdP) serveProvider(w http.ResponseWriter, _ *http.Request) {
	p.requests.Add(1)
	base := p.URL()
	doc := map[string]any{
		"issuer":                                base,
		"authorization_endpoint":                base + "/authorize",
		"token_endpoint":                        base + "/token",
		"jwks_uri":                              base + "/.well-known/jwks",
		"subject_types_supported":               []string{"public"},
		"response_types_supported":              []string{"code"},
		"grant_types_supported":                 []string{"authorization_code", "urn:ietf:params:oauth:grant-type:device_code"},
		"code_challenge_methods_supported":      []string{"S256"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"token_endpoint_auth_methods_supported": []string{"none"},
		"scopes_supported":                      []string{"openid", "email", "profile", "groups"},
	}
	if p.cfg.Device {
		doc["device_authorization_endpoint"] = base + "/device_authorization"
	}
	writeJSON(w, "application/json", doc)
}

// serveAuthorize redirects back with a code. What is wrong with client or
// redirect is told here and never redirected (RFC 6749 4.1.2.1).
func (p *IdP) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	redirect, err := url.Parse(q.Get("redirect_uri"))
	switch {
	case q.Get("client_id") != p.cfg.ClientID:
		http.Error(w, "unknown client", http.StatusBadRequest)
		return
	case err != nil || redirect.Scheme != "http" || !slices.Contains([]string{"127.0.0.1", "::1"}, redirect.Hostname()):
		http.Error(w, "redirect_uri is not on loopback", http.StatusBadRequest)
		return
	}
	answer := url.Values{"state": {q.Get("state")}, "iss": {p.URL()}}
	switch {
	case q.Get("response_type") != "code":
		answer.Set("error", "unsupported_response_type")
	case !slices.Contains(strings.Fields(q.Get("scope")), "openid"):
		answer.Set("error", "invalid_scope")
	case q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "":
		answer.Set("error", "invalid_request")
	default:
		code := randomHex(16)
		p.mu.Lock()
		p.codes[code] = grant{redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), nonce: q.Get("nonce")}
		p.mu.Unlock()
		answer.Set("code", code)
	}
	p.mu.Lock()
	if p.redir != nil {
		p.redir(answer)
	}
	p.mu.Unlock()
	redirect.RawQuery = answer.Encode()
	http.Redirect(w, r, redirect.String(), http.StatusFound)
}

func (p *IdP) serveExchange(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.PostForm.Get("client_id") != p.cfg.ClientID {
		oauthError(w, "invalid_client")
		return
	}
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		p.exchangeCode(w, r.PostForm)
	case "urn:ietf:params:oauth:grant-type:device_code":
		p.exchangeDevice(w, r.PostForm)
	default:
		oauthError(w, "unsupported_grant_type")
	}
}

func (p *IdP) exchangeCode(w http.ResponseWriter, form url.Values) {
	p.mu.Lock()
	g, ok := p.codes[form.Get("code")]
	delete(p.codes, form.Get("code"))
	p.mu.Unlock()
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	if !ok || g.redirect != form.Get("redirect_uri") || g.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) {
		oauthError(w, "invalid_grant")
		return
	}
	claims := Claims{"auth_time": p.Issuer.cfg.Now().Unix()}
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	p.answer(w, claims)
}

func (p *IdP) serveDevice(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.PostForm.Get("client_id") != p.cfg.ClientID {
		oauthError(w, "invalid_client")
		return
	}
	code, user := randomHex(16), strings.ToUpper(randomHex(4))
	p.mu.Lock()
	p.devices[code] = &device{userCode: user}
	p.mu.Unlock()
	writeJSON(w, "application/json", map[string]any{
		"device_code":               code,
		"user_code":                 user,
		"verification_uri":          p.URL() + "/device",
		"verification_uri_complete": p.URL() + "/device?user_code=" + user,
		"expires_in":                600,
		"interval":                  1,
	})
}

func (p *IdP) exchangeDevice(w http.ResponseWriter, form url.Values) {
	code := form.Get("device_code")
	p.mu.Lock()
	d, ok := p.devices[code]
	var approved, denied bool
	if ok {
		approved, denied = d.approved, d.denied
		if approved || denied {
			delete(p.devices, code)
		}
	}
	p.mu.Unlock()
	switch {
	case !ok:
		oauthError(w, "expired_token")
	case denied:
		oauthError(w, "access_denied")
	case !approved:
		oauthError(w, "authorization_pending")
	default:
		p.answer(w, Claims{})
	}
}

// answer is the token response. The access token is good for nothing.
func (p *IdP) answer(w http.ResponseWriter, claims Claims) {
	p.mu.Lock()
	tamper := p.tamper
	p.mu.Unlock()
	if tamper != nil {
		claims = tamper(claims)
	}
	writeJSON(w, "application/json", map[string]any{
		"access_token": randomHex(16),
		"token_type":   "Bearer",
		"expires_in":   3600,
		"id_token":     p.Mint(p.cfg.ClientID, claims),
	})
}

// oauthError answers as RFC 6749 5.2 says.
func oauthError(w http.ResponseWriter, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = w.Write([]byte(`{"error":"` + code + `"}`)) // a client that went away
}
