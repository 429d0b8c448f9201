// Package tsaclient gets RFC 3161 timestamps from an authority that somebody else
// runs, so that the time of a signature does not rest on our own clock and keys alone.
//
//	tsa, err := tsaclient.New(tsaclient.Config{
//		URL:   "https://tsa.example.com/api/v1/timestamp",
//		Check: root.CheckTimestamp, // of internal/verify
//	})
//	response, err := tsa.Timestamp(ctx, sig)
//
// # What is asked
//
// The request has the SHA-256 of the signature, a random nonce of 64 bits, and asks for
// certificates. It is posted over https, or over http to this machine, to one address:
// redirects are not followed.
//
// # What is believed
//
// Nothing of the answer counts before all of this holds, in this order:
//
//   - HTTP status 200, media type application/timestamp-reply, at most 64 KiB.
//   - DER of one TimeStampResp with status granted, not "granted with modifications".
//   - A token with one signer and at most one certificate that is not an authority's,
//     so that there is no choice of whose signature is being looked at.
//   - Imprint and nonce are those of the request. A nonce makes replays of old answers
//     useless even to somebody who holds genuine ones.
//   - The time lies between sending and receiving, give or take MaxSkew.
//   - Check, which verifies the signature, the certificates and their purposes against
//     the trusted root, agrees, and reads the same time.
//
// What Timestamp returns is the token it was given in a TimeStampResp that holds
// nothing else: the words that authorities may add are signed by nobody.
//
// # When it is away
//
// A call takes at most Timeout, waits at most that long for one of MaxConcurrent
// places, and tries once more where the connection broke before there was an answer.
// After five outages in a row calls are refused at once: for one second, then for twice
// as long after each trial that fails, up to 30 seconds. One call at a time is the
// trial. An answer that is wrong is no outage.
package tsaclient

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/outage"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeUnavailable says that the authority gives no answer now. The call may be repeated.
	CodeUnavailable refusal.Code = "TSA_UNAVAILABLE"
	// CodeRefused says that the authority understood the request and does not grant it.
	CodeRefused refusal.Code = "TSA_REFUSED"
	// CodeAnswerInvalid refuses an answer that is not a timestamp response.
	CodeAnswerInvalid refusal.Code = "TSA_ANSWER_INVALID"
	// CodeNonceMismatch refuses an answer to another request.
	CodeNonceMismatch refusal.Code = "TSA_NONCE_MISMATCH"
	// CodeImprintMismatch refuses a timestamp of something else.
	CodeImprintMismatch refusal.Code = "TSA_IMPRINT_MISMATCH"
	// CodeTimeInvalid refuses a time that is not now, or that verifiers cannot read.
	CodeTimeInvalid refusal.Code = "TSA_TIME_INVALID"
	// CodeURLInvalid refuses an address that is not https, or http on loopback.
	CodeURLInvalid refusal.Code = "TSA_URL_INVALID"
	// CodeConfigInvalid refuses settings beyond their limits.
	CodeConfigInvalid refusal.Code = "TSA_CONFIG_INVALID"
	// CodeEmpty refuses to stamp nothing, as our own authority does.
	CodeEmpty refusal.Code = "TIMESTAMP_EMPTY"
)

const (
	// defaultMaxSkew is far more than two clocks that follow NTP differ by.
	defaultMaxSkew = time.Minute
	minMaxSkew     = time.Second // times are whole seconds, cut
	// maxMaxSkew: a certificate of ten minutes must not outlive what the clocks may differ by.
	maxMaxSkew           = 5 * time.Minute
	defaultTimeout       = 5 * time.Second
	maxTimeout           = 30 * time.Second
	defaultMaxConcurrent = 32
	maxMaxConcurrent     = 1024
)

// Config configures a Client.
type Config struct {
	// URL is the authority's address: https, or http on loopback. Without user,
	// query and fragment, because errors and logs name it. Required.
	URL string
	// HTTPClient gives its Transport, nothing else. Default: as http.DefaultTransport,
	// with as many kept connections as may be in flight.
	HTTPClient *http.Client
	// Check verifies a response over sig against the trusted root and returns its
	// time. Its refusals are passed on as they are. Required.
	Check func(response, sig []byte) (time.Time, error)
	// Now is our clock. Default time.Now.
	Now func() time.Time
	// MaxSkew is how far the authority's clock may be from ours: 1 s to 5 min, default 1 min.
	MaxSkew time.Duration
	// Timeout is how long one Timestamp may take, at most 30 s, default 5 s.
	Timeout time.Duration
	// MaxConcurrent is how many requests may be in flight, at most 1024, default 32.
	MaxConcurrent int
	// Logger is told when the authority goes away and comes back. Default slog.Default().
	Logger *slog.Logger
}

// Client asks one timestamp authority. It may be used from many goroutines.
type Client struct {
	cfg     Config
	http    *http.Client
	places  outage.Places
	breaker outage.Breaker
}

// New returns a client. It does not talk to the authority.
func New(cfg Config) (*Client, error) {
	if err := checkURL(cfg.URL); err != nil {
		return nil, err
	}
	if cfg.Check == nil {
		return nil, refusal.New(CodeConfigInvalid, "Check is required: an answer that nobody verifies proves nothing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := errors.Join(
		setDefault("MaxSkew", &cfg.MaxSkew, defaultMaxSkew, minMaxSkew, maxMaxSkew),
		setDefault("Timeout", &cfg.Timeout, defaultTimeout, time.Millisecond, maxTimeout),
		setDefault("MaxConcurrent", &cfg.MaxConcurrent, defaultMaxConcurrent, 1, maxMaxConcurrent),
	); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, places: make(outage.Places, cfg.MaxConcurrent), http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if cfg.HTTPClient != nil {
		c.http.Transport = cfg.HTTPClient.Transport
	} else if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t = t.Clone()
		t.MaxIdleConnsPerHost, t.MaxResponseHeaderBytes = cfg.MaxConcurrent, maxAnswer
		c.http.Transport = t
	}
	return c, nil
}

func setDefault[T int | time.Duration](name string, v *T, def, least, most T) error {
	if *v == 0 {
		*v = def
	}
	if *v < least || *v > most {
		return refusal.New(CodeConfigInvalid, "%s is %v, want %v to %v", name, *v, least, most)
	}
	return nil
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
		return refusal.New(CodeURLInvalid, "the timestamp authority's URL must be https://host/path without user, query and fragment")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return refusal.New(CodeURLInvalid, "the timestamp authority's URL is %s://%s; http is for loopback, all else is https", u.Scheme, u.Host)
	}
	return nil
}

// isLoopback never takes a name for this machine, other than localhost.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// Timestamp returns a DER TimeStampResp that says when sig existed: its message imprint
// is the SHA-256 of sig. It has been verified. Where ctx ends first, the error is ctx's.
func (c *Client) Timestamp(ctx context.Context, sig []byte) ([]byte, error) {
	if len(sig) == 0 {
		return nil, refusal.New(CodeEmpty, "there is no signature to timestamp")
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	if err := c.enter(ctx, caller); err != nil {
		return nil, err
	}
	defer c.places.Release()

	pass, wait, ok := c.breaker.Enter(c.cfg.Now())
	if !ok {
		return nil, c.isAway(wait)
	}
	result := outage.Abandoned
	defer func() { c.leave(pass, result) }()

	imprint, nonce := sha256.Sum256(sig), randomNonce()
	sent := c.cfg.Now()
	body, err := c.exchange(ctx, newRequest(imprint, nonce))
	switch {
	case err != nil && caller.Err() != nil:
		return nil, fmt.Errorf("timestamp authority %s: %w", c.cfg.URL, caller.Err())
	case refusal.CodeOf(err) == CodeUnavailable:
		result = outage.Failed
	default:
		result = outage.Answered
	}
	if err != nil {
		return nil, err
	}
	return c.judge(body, sig, imprint, nonce, sent)
}

// enter takes a place among those in flight.
func (c *Client) enter(ctx, caller context.Context) error {
	if err := caller.Err(); err != nil {
		return err
	}
	// Asked before the wait, which may be long just because the authority is away.
	if wait, ok := c.breaker.Ready(c.cfg.Now()); !ok {
		return c.isAway(wait)
	}
	if c.places.Take(ctx) == nil {
		return nil
	}
	if err := caller.Err(); err != nil {
		return err
	}
	return refusal.New(CodeUnavailable, "%d requests to the timestamp authority %s have been in flight for %s",
		c.cfg.MaxConcurrent, c.cfg.URL, c.cfg.Timeout)
}

// isAway refuses without having asked. While a probe is under way nobody knows for how long.
func (c *Client) isAway(wait time.Duration) error {
	return refusal.New(CodeUnavailable, "the timestamp authority %s was away %d times in a row; it is asked again in %s",
		c.cfg.URL, outage.OpenAfter, cmp.Or(wait, outage.FirstPause).Round(time.Millisecond))
}

// judge holds an answer against the request, our clock and the trusted root.
func (c *Client) judge(body, sig []byte, imprint [sha256.Size]byte, nonce uint64, sent time.Time) ([]byte, error) {
	a, err := readAnswer(body)
	if err != nil {
		return nil, err
	}
	if !a.isFor(imprint) {
		return nil, refusal.New(CodeImprintMismatch, "the timestamp is over other bytes than this signature, or over another digest than SHA-256")
	}
	if !a.hasNonce(nonce) {
		return nil, refusal.New(CodeNonceMismatch, "the answer does not repeat the request's nonce: it answers another one")
	}
	from, to := sent.Add(-c.cfg.MaxSkew), c.cfg.Now().Add(c.cfg.MaxSkew)
	if a.at.Before(from) || a.at.After(to) {
		return nil, refusal.New(CodeTimeInvalid, "the authority says %s, our clock %s, and they may differ by %s",
			a.at.Format(time.RFC3339), sent.UTC().Format(time.RFC3339), c.cfg.MaxSkew)
	}
	response := granted(a.token)
	at, err := c.cfg.Check(response, sig)
	if err != nil {
		return nil, err
	}
	if !at.Equal(a.at) {
		return nil, refusal.New(CodeTimeInvalid, "the token is read as %s and as %s", a.at.Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	}
	return response, nil
}

// leave tells the breaker how a call ended, and the log what changed by it.
func (c *Client) leave(pass outage.Pass, r outage.Result) {
	opened, closed := c.breaker.Leave(pass, c.cfg.Now(), r)
	switch {
	case opened == outage.FirstPause: // a longer one is that of a probe that failed: still away
		c.cfg.Logger.Warn("timestamp authority is away", "url", c.cfg.URL, "outages", outage.OpenAfter)
	case closed:
		c.cfg.Logger.Info("timestamp authority is back", "url", c.cfg.URL)
	}
}

func randomNonce() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return binary.BigEndian.Uint64(b[:])
}
