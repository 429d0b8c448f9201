package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/testenv/oidctest"
	"github.com/coreos/go-oidc/v3/oidc"
)

// logIn logs in with a browser that does what it is told. The pages it ended on
// come back too.
func logIn(t *testing.T, idp *fakeIdP, edit func(*LoginConfig)) (CredentialSource, string, error) {
	t.Helper()
	pages := make(chan string, 1)
	cfg := LoginConfig{Issuer: idp.URL, ClientID: idp.ClientID}
	cfg.Prompt = func(p LoginPrompt) {
		address := p.URL
		if p.CompleteURL != "" {
			address = p.CompleteURL
		}
		go func() {
			page, err := browse(context.WithoutCancel(t.Context()), address)
			if err != nil {
				page = err.Error()
			}
			pages <- page
		}()
	}
	if edit != nil {
		edit(&cfg)
	}
	source, err := Login(t.Context(), cfg)
	select {
	case page := <-pages:
		return source, page, err
	default: // never prompted, or the browser is still on its way
		return source, "", err
	}
}

func TestLoginBrowser(t *testing.T) {
	t.Parallel()
	idp := newFakeIdP(t)
	source, _, err := logIn(t, idp, nil)
	if err != nil {
		t.Fatal(err)
	}
	req, err := source.Credential(t.Context(), "https://assay.example.com")
	if err != nil {
		t.Fatal(err)
	}
	if got := claim(t, req.GetOidcToken(), "aud"); got != idp.ClientID {
		t.Errorf("aud %v", got)
	}
	if got := claim(t, req.GetOidcToken(), "sub"); got != "00u1a2b3c4d5e6f7g8h9" {
		t.Errorf("sub %v", got)
	}
}

// TestLoginRequest holds what is asked for: everything that ties the answer to us,
// anew each time, and no token that would outlive the login.
func TestLoginRequest(t *testing.T) {
	t.Parallel()
	idp := newFakeIdP(t)
	seen := make(map[string]bool)
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		var asked *url.URL
		_, err := Login(ctx, LoginConfig{Issuer: idp.URL, ClientID: idp.ClientID, Prompt: func(p LoginPrompt) {
			asked, _ = url.Parse(p.URL)
			cancel()
		}})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v, want the context's", err)
		}
		q := asked.Query()
		for name, want := range map[string]string{
			"response_type": "code", "client_id": idp.ClientID, "scope": "openid email profile", "code_challenge_method": "S256",
		} {
			if q.Get(name) != want {
				t.Errorf("%s is %q, want %q", name, q.Get(name), want)
			}
		}
		for _, name := range []string{"state", "nonce", "code_challenge", "redirect_uri"} {
			if len(q.Get(name)) < 24 || seen[q.Get(name)] {
				t.Errorf("%s is %q: short, or used before", name, q.Get(name))
			}
			seen[q.Get(name)] = true
		}
		if back, err := url.Parse(q.Get("redirect_uri")); err != nil || back.Scheme != "http" || back.Hostname() != "127.0.0.1" || back.Path != "/callback" {
			t.Errorf("redirect to %q", q.Get("redirect_uri"))
		}
	}
}

func TestLoginDevice(t *testing.T) {
	t.Parallel()
	idp := newFakeIdP(t)
	var told LoginPrompt
	source, _, err := logIn(t, idp, func(cfg *LoginConfig) {
		cfg.Device = true
		follow := cfg.Prompt
		cfg.Prompt = func(p LoginPrompt) { told = p; follow(p) }
	})
	if err != nil {
		t.Fatal(err)
	}
	if told.UserCode == "" || told.URL != idp.URL+"/device" || !strings.HasSuffix(told.CompleteURL, told.UserCode) {
		t.Errorf("prompt %+v", told)
	}
	if req, err := source.Credential(t.Context(), ""); err != nil || claim(t, req.GetOidcToken(), "sub") != "00u1a2b3c4d5e6f7g8h9" {
		t.Errorf("%v, %v", req, err)
	}
}

// TestLoginRefused: whatever of the login is not ours, or not the provider's, ends
// it with its own code, and nothing secret is in the error.
func TestLoginRefused(t *testing.T) {
	t.Parallel()
	stranger, err := oidctest.New(oidctest.Config{BaseURL: "https://idp.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		idp    func(*fakeIdP)
		config func(*LoginConfig)
		code   string
	}{
		{"state missing", redirect("state"), nil, CodeLoginStateMismatch},
		{"state foreign", redirect("state", "foreign"), nil, CodeLoginStateMismatch},
		{"state twice", func(p *fakeIdP) {
			p.idp.Tamper(nil, func(q url.Values) { q.Add("state", q.Get("state")) })
		}, nil, CodeLoginStateMismatch},
		{"an error without state", func(p *fakeIdP) {
			p.idp.Tamper(nil, func(q url.Values) { q.Del("state"); q.Set("error", "access_denied") })
		}, nil, CodeLoginStateMismatch},
		{"issuer foreign", redirect("iss", "https://evil.example"), nil, CodeLoginIssuerMismatch},
		{"issuer promised and missing", redirect("iss"), nil, CodeLoginIssuerMismatch},
		{"code missing", redirect("code"), nil, CodeLoginAnswerInvalid},
		{"code twice", redirect("code", "a", "b"), nil, CodeLoginAnswerInvalid},
		{"code long", redirect("code", strings.Repeat("c", maxCode+1)), nil, CodeLoginAnswerInvalid},
		{"code of another login", redirect("code", "SECRET-foreign"), nil, CodeLoginDenied},
		{"denied", redirect("error", "access_denied"), nil, CodeLoginDenied},

		{"nonce foreign", claimed("nonce", "foreign"), nil, CodeLoginNonceMismatch},
		{"nonce missing", claimed("nonce", nil), nil, CodeLoginNonceMismatch},
		{"audience foreign", claimed("aud", "another-client"), nil, CodeLoginTokenInvalid},
		{"audience and another", claimed("aud", []string{"assay-cli", "another"}), nil, CodeLoginTokenInvalid},
		{"audience missing", claimed("aud", nil), nil, CodeLoginTokenInvalid},
		{"issuer of the token foreign", claimed("iss", "https://evil.example"), nil, CodeLoginTokenInvalid},
		{"expired", claimed("exp", time.Now().Add(-time.Hour).Unix()), nil, CodeLoginTokenInvalid},
		{"not yet valid", claimed("nbf", time.Now().Add(time.Hour).Unix()), nil, CodeLoginTokenInvalid},
		{"another key", func(p *fakeIdP) {
			p.Token = func(a map[string]any) { a["id_token"] = stranger.Mint(p.ClientID, oidctest.Claims{"iss": p.URL}) }
		}, nil, CodeLoginTokenInvalid},
		{"no ID token", func(p *fakeIdP) { p.Token = func(a map[string]any) { delete(a, "id_token") } }, nil, CodeLoginTokenInvalid},
		{"no JWT", func(p *fakeIdP) { p.Token = func(a map[string]any) { a["id_token"] = "SECRET" } }, nil, CodeLoginTokenInvalid},
		{"none", func(p *fakeIdP) {
			p.Token = func(a map[string]any) {
				a["id_token"] = "eyJhbGciOiJub25lIn0." + strings.Split(a["id_token"].(string), ".")[1] + "."
			}
		}, nil, CodeLoginTokenInvalid},
		{"token endpoint away", tokenAnswers(503, "SECRET"), nil, CodeLoginUnavailable},
		{"token endpoint refuses", tokenAnswers(400, `{"error":"invalid_grant","error_description":"SECRET"}`), nil, CodeLoginDenied},
		{"token endpoint talks nonsense", tokenAnswers(200, "<html>SECRET"), nil, CodeLoginAnswerInvalid},
		{"token endpoint talks for ever", tokenAnswers(200, strings.Repeat(" ", maxProviderAnswer+1)), nil, CodeLoginAnswerInvalid},
		{"token endpoint redirects", func(p *fakeIdP) {
			p.OnToken = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			}
		}, nil, CodeLoginUnavailable},

		{"discovery of another issuer", discovered("issuer", "https://evil.example"), nil, CodeLoginAnswerInvalid},
		{"plaintext token endpoint", discovered("token_endpoint", "http://idp.example.com/token"), nil, CodeLoginAnswerInvalid},
		{"plaintext authorization endpoint", discovered("authorization_endpoint", "javascript:alert(1)"), nil, CodeLoginAnswerInvalid},
		{"no PKCE", discovered("code_challenge_methods_supported", []string{"plain"}), nil, CodeLoginUnsupported},
		{"no device flow", discovered("device_authorization_endpoint", nil), device, CodeLoginUnsupported},
		{"device: negative interval", answered("interval", -1), device, CodeLoginAnswerInvalid},
		{"device: endless interval", answered("interval", 1<<40), device, CodeLoginAnswerInvalid},
		{"device: plaintext address", answered("verification_uri", "http://idp.example.com/"), device, CodeLoginAnswerInvalid},
		{"device: odd complete address", answered("verification_uri_complete", "file:///etc/passwd"), device, CodeLoginAnswerInvalid},
		{"device: no code", answered("user_code", ""), device, CodeLoginAnswerInvalid},
		{"device: a nonce that nobody sent", claimed("nonce", "foreign"), device, CodeLoginNonceMismatch},
		{"device: denied", tokenAnswers(400, `{"error":"access_denied"}`), device, CodeLoginDenied},
		{"device: code expired", tokenAnswers(400, `{"error":"expired_token"}`), device, CodeLoginTimeout},

		{"no issuer", nil, func(c *LoginConfig) { c.Issuer = "" }, CodeLoginConfigInvalid},
		{"plaintext issuer", nil, func(c *LoginConfig) { c.Issuer = "http://idp.example.com" }, CodeLoginConfigInvalid},
		{"issuer with a password", nil, func(c *LoginConfig) { c.Issuer = "https://u:SECRET@idp.example.com" }, CodeLoginConfigInvalid},
		{"no client id", nil, func(c *LoginConfig) { c.ClientID = "" }, CodeLoginConfigInvalid},
		{"no prompt", nil, func(c *LoginConfig) { c.Prompt = nil }, CodeLoginConfigInvalid},
		{"bad port", nil, func(c *LoginConfig) { c.Port = 65536 }, CodeLoginConfigInvalid},
		{"nobody there", nil, func(c *LoginConfig) { c.Issuer = "http://127.0.0.1:1" }, CodeLoginUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			idp := newFakeIdP(t)
			if tt.idp != nil {
				tt.idp(idp)
			}
			source, _, err := logIn(t, idp, tt.config)
			wantCode(t, err, tt.code)
			if source != nil {
				t.Error("there is a credential all the same")
			}
			if strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the error repeats the answer: %v", err)
			}
		})
	}
}

// redirect sets a parameter of the way back to values, none meaning away with it.
func redirect(name string, values ...string) func(*fakeIdP) {
	return func(p *fakeIdP) { p.idp.Tamper(nil, func(q url.Values) { q[name] = values }) }
}

func claimed(name string, value any) func(*fakeIdP) {
	return func(p *fakeIdP) {
		p.idp.Tamper(func(c oidctest.Claims) oidctest.Claims { c[name] = value; return c }, nil)
	}
}

func discovered(name string, value any) func(*fakeIdP) {
	return func(p *fakeIdP) { p.Discovery = set(name, value) }
}

func answered(name string, value any) func(*fakeIdP) {
	return func(p *fakeIdP) { p.Device = set(name, value) }
}

func set(name string, value any) func(map[string]any) {
	return func(m map[string]any) {
		if m[name] = value; value == nil {
			delete(m, name)
		}
	}
}

func tokenAnswers(status int, body string) func(*fakeIdP) {
	return func(p *fakeIdP) {
		p.OnToken = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
}

func device(c *LoginConfig) { c.Device = true }

func TestLoginTimeout(t *testing.T) {
	t.Parallel()
	idp := newFakeIdP(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Login(ctx, LoginConfig{Issuer: idp.URL, ClientID: idp.ClientID, Prompt: func(LoginPrompt) {}})
	wantCode(t, err, CodeLoginTimeout)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v does not match DeadlineExceeded", err)
	}
}

// TestLoginClock: the ID token is judged by the clock that was given.
func TestLoginClock(t *testing.T) {
	t.Parallel()
	idp := newFakeIdP(t)
	_, _, err := logIn(t, idp, func(c *LoginConfig) { c.Now = func() time.Time { return time.Now().Add(time.Hour) } })
	wantCode(t, err, CodeLoginTokenInvalid)
}

// TestCallbackIgnores: what is not the redirect does not end the login, whoever
// sends it.
func TestCallbackIgnores(t *testing.T) {
	t.Parallel()
	back, err := listenCallback(t.Context(), callbackConfig{state: "s", issuer: "https://idp.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer back.close()
	for _, tt := range []struct{ method, path, host string }{
		{"GET", "/favicon.ico", ""},
		{"GET", "/callback/", ""},
		{"POST", "/callback?state=s&code=stolen", ""},
		{"HEAD", "/callback?state=s&code=stolen", ""},
		{"GET", "/callback?state=s&code=stolen", "rebound.example"},
		{"GET", "/callback?state=s&code=stolen", "localhost:" + strings.Split(back.host, ":")[1]},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+back.host+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = tt.host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s %s of %q: %d", tt.method, tt.path, tt.host, resp.StatusCode)
		}
	}
	// The first redirect counts, and a later one changes nothing.
	for _, q := range []string{"?state=s&code=first", "?state=s&code=second", "?state=x"} {
		if _, err := browse(t.Context(), back.url+q); err != nil {
			t.Fatal(err)
		}
	}
	if code, err := back.wait(t.Context()); code != "first" || err != nil {
		t.Errorf("code %q, %v", code, err)
	}
}

// TestCallbackPage: the page shows nothing of the request and may run nothing.
func TestCallbackPage(t *testing.T) {
	t.Parallel()
	back, err := listenCallback(t.Context(), callbackConfig{state: "s"})
	if err != nil {
		t.Fatal(err)
	}
	defer back.close()
	resp, err := http.Get(back.url + "?state=%3Cscript%3E&error=%3Cscript%3E")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", resp.Header)
	}
	_, err = back.wait(t.Context())
	wantCode(t, err, CodeLoginStateMismatch)
}

// FuzzCallback: no query without our state gives a code, and none panics.
func FuzzCallback(f *testing.F) {
	for _, q := range []string{"", "state=s&code=c", "state=s&code=c&iss=https://idp", "state=s&error=x", "state=s;code=c", "%zz", "state=s&state=s&code=c"} {
		f.Add(q)
	}
	c := &callback{cfg: callbackConfig{state: "s", issuer: "https://idp"}}
	f.Fuzz(func(t *testing.T, raw string) {
		code, err := c.read(raw)
		if (code == "") != (err != nil) {
			t.Fatalf("%q: code %q and %v", raw, code, err)
		}
		if q, perr := url.ParseQuery(raw); err == nil && (perr != nil || q.Get("state") != "s" || q.Get("code") != code || q.Has("error")) {
			t.Fatalf("%q: took %q", raw, code)
		}
	})
}

// TestProviderEndpoint keeps the library's default from trying two ways, the
// first of which spends the code.
func TestProviderEndpoint(t *testing.T) {
	t.Parallel()
	idp := newFakeIdP(t)
	l, err := discover(t.Context(), LoginConfig{Issuer: idp.URL, ClientID: "c", Prompt: func(LoginPrompt) {}})
	if err != nil {
		t.Fatal(err)
	}
	if l.oauth.Endpoint.AuthStyle == l.provider.Endpoint().AuthStyle || l.oauth.Scopes[0] != oidc.ScopeOpenID || l.oauth.ClientSecret != "" {
		t.Errorf("%+v", l.oauth)
	}
}
