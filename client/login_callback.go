package client

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	callbackPath = "/callback"
	// maxCode bounds the authorization code, in bytes.
	maxCode = 4096
)

type callbackConfig struct {
	port   int
	state  string
	issuer string
	// issuerRequired: the provider promised the iss parameter of RFC 9207.
	issuerRequired bool
}

// callback is the loopback end of an authorization code flow (RFC 8252 section
// 7.3). Any web page can make a browser call it, so it believes a request only
// for its state, answers with fixed text, and takes one answer only.
type callback struct {
	cfg    callbackConfig
	url    string
	host   string
	server *http.Server
	result chan callbackResult
}

type callbackResult struct {
	code string
	err  error
}

func listenCallback(ctx context.Context, cfg callbackConfig) (*callback, error) {
	// By address, not by name: localhost may resolve to where others listen.
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.port)))
	if err != nil {
		return nil, badInput(CodeLoginConfigInvalid, "cannot listen for the redirect: %w", err)
	}
	c := &callback{cfg: cfg, host: l.Addr().String(), result: make(chan callbackResult, 1)}
	c.url = "http://" + c.host + callbackPath
	c.server = &http.Server{Handler: c, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 32 << 10}
	go func() {
		if err := c.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			c.end(callbackResult{err: newError(ErrUnavailable, CodeLoginUnavailable, "listening for the redirect: %w", err)})
		}
	}()
	return c, nil
}

// close lets the browser have its answer first.
func (c *callback) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c.server.Shutdown(ctx) != nil {
		_ = c.server.Close() // whoever is still connected is not waited for
	}
}

// wait returns the authorization code.
func (c *callback) wait(ctx context.Context) (string, error) {
	select {
	case r := <-c.result:
		return r.code, r.err
	case <-ctx.Done():
		return "", new(login).failed(ctx, "redirect", ctx.Err())
	}
}

// end gives the result; only the first one counts.
func (c *callback) end(r callbackResult) {
	select {
	case c.result <- r:
	default:
	}
}

func (c *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	// A page elsewhere that resolves its own name to this address would send that
	// name. Browsers also ask for icons; neither ends the login.
	if r.Host != c.host || r.URL.Path != callbackPath || r.Method != http.MethodGet {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	code, err := c.read(r.URL.RawQuery)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintln(w, "This login was refused. The terminal says why.")
	} else {
		fmt.Fprintln(w, "Back to the terminal: it says whether the login succeeded. You can close this window.")
	}
	c.end(callbackResult{code, err})
}

// read takes the code out of the redirect's query (RFC 6749 section 4.1.2). The
// state is looked at before anything else is believed, an error included.
func (c *callback) read(rawQuery string) (string, error) {
	q, err := url.ParseQuery(rawQuery)
	if err != nil {
		return "", newError(ErrUnauthenticated, CodeLoginAnswerInvalid, "the redirect's query cannot be parsed")
	}
	if got := q["state"]; len(got) != 1 || subtle.ConstantTimeCompare([]byte(got[0]), []byte(c.cfg.state)) != 1 {
		return "", newError(ErrUnauthenticated, CodeLoginStateMismatch, "a browser came back from a login that was not started here")
	}
	// RFC 6749 section 3.1: parameters must not come more than once.
	for _, name := range []string{"code", "iss", "error"} {
		if len(q[name]) > 1 {
			return "", newError(ErrUnauthenticated, CodeLoginAnswerInvalid, "the redirect has more than one %s", name)
		}
	}
	if iss := q["iss"]; (len(iss) == 0 && c.cfg.issuerRequired) || (len(iss) == 1 && iss[0] != c.cfg.issuer) {
		return "", newError(ErrUnauthenticated, CodeLoginIssuerMismatch, "the browser came back from another identity provider")
	}
	if q.Has("error") {
		return "", newError(ErrUnauthenticated, CodeLoginDenied, "the identity provider says %.100q", q.Get("error"))
	}
	if n := len(q.Get("code")); n == 0 || n > maxCode {
		return "", newError(ErrUnauthenticated, CodeLoginAnswerInvalid, "the redirect holds a code of %d bytes, want 1 to %d", n, maxCode)
	}
	return q.Get("code"), nil
}
