// Package boundhttp is the HTTP client that AWS's SDK is given wherever this service asks
// AWS.
//
//	cfg.HTTPClient = boundhttp.New(cfg.HTTPClient, boundhttp.Limits{Answer: 64 << 10})
//
// It follows no redirect, so that credentials reach no host but the one they were signed
// for. An answer of more than Limits.Answer bytes fails with ErrTooLong, where
// io.LimitReader would make it look complete; only a successful answer to a request
// whose context is of Stream is as long as it is. An answer that breaks off fails with a
// ReadError, which the SDK takes for a reason to ask again. What was given to New is not
// changed.
package boundhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// Limits are those of a Client.
type Limits struct {
	// Answer bounds the bytes of one answer.
	Answer int
	// Attempt bounds the time of one request with its answer, so that a connection that
	// went silent leaves time for another. If zero, only the request's context does.
	Attempt time.Duration
	// Calls is how many calls there may be at one time. Connections are kept for as
	// many, where the client lets it: one that must be made anew may cost more than the
	// answer. If zero, as many are kept as the client would.
	Calls int
}

// Client is an HTTP client within limits, which stay as they are while it is used.
type Client struct {
	Limits
	client aws.HTTPClient
}

// New puts limits on client, or on the SDK's own client if that is nil. Of one that is
// neither *http.Client nor the SDK's, redirects are its own affair.
func New(client aws.HTTPClient, l Limits) *Client {
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	switch c := client.(type) {
	case nil:
		return New(awshttp.NewBuildableClient(), l)
	case *awshttp.BuildableClient:
		// It follows 307 and 308 of its own accord, with the session token.
		client = &http.Client{Transport: l.widen(c.GetTransport()), Timeout: c.GetTimeout(), CheckRedirect: stay}
	case *http.Client:
		mine := *c
		mine.CheckRedirect, mine.Jar = stay, nil
		if mine.Transport == nil {
			mine.Transport = http.DefaultTransport
		}
		if t, ok := mine.Transport.(*http.Transport); ok && l.Calls > 0 {
			mine.Transport = l.widen(t.Clone())
		}
		client = &mine
	}
	return &Client{client: client, Limits: l}
}

func (l Limits) widen(t *http.Transport) *http.Transport {
	t.MaxIdleConnsPerHost = max(t.MaxIdleConnsPerHost, l.Calls)
	if t.MaxIdleConns > 0 { // of all hosts; zero is no limit
		t.MaxIdleConns = max(t.MaxIdleConns, 2*l.Calls)
	}
	return t
}

type streamed struct{}

// Stream returns the context of a request whose successful answer its caller reads piece
// by piece, and bounds. Limits.Attempt does not apply to it.
func Stream(ctx context.Context) context.Context {
	return context.WithValue(ctx, streamed{}, true)
}

// Do makes one request.
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if ctx.Value(streamed{}) != nil {
		resp, err := c.client.Do(req)
		if err == nil && resp.StatusCode >= 300 {
			resp.Body = &body{ReadCloser: resp.Body, ctx: ctx, left: c.Answer, cancel: func() {}}
		}
		return resp, err
	}
	ctx, cancel := c.within(ctx)
	resp, err := c.client.Do(req.WithContext(ctx))
	if err != nil {
		cancel()
		return resp, err
	}
	resp.Body = &body{ReadCloser: resp.Body, ctx: ctx, left: c.Answer, cancel: cancel}
	if err := ctx.Err(); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

func (l Limits) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if l.Attempt == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, l.Attempt)
}

// ErrTooLong is an answer that has more bytes than it may.
var ErrTooLong = errors.New("the answer is longer than any should be")

// ReadError is a connection that broke within an answer, or an answer that did not end
// in time.
type ReadError struct{ err error }

func (e *ReadError) Error() string { return e.err.Error() }
func (e *ReadError) Unwrap() error { return e.err }

// ConnectionError is what the SDK asks errors for.
func (e *ReadError) ConnectionError() bool { return true }

// body also fails where an answer ends after its time: a server that sees us hang up may
// still get an empty answer through, which nobody should take for one of AWS.
type body struct {
	io.ReadCloser
	ctx    context.Context
	left   int
	cancel context.CancelFunc
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, ErrTooLong
	}
	switch late := b.ctx.Err(); {
	case err != nil && late != nil:
		err = &ReadError{late}
	case err != nil && !errors.Is(err, io.EOF):
		err = &ReadError{err}
	}
	return n, err
}

func (b *body) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}
