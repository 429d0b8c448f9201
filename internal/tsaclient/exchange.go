package tsaclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"

	"github.com/assay-build/assay/internal/refusal"
)

// maxAnswer is many times a token with a long chain of certificates.
const maxAnswer = 64 << 10

// exchange posts a request and returns the body of a proper answer.
func (c *Client) exchange(ctx context.Context, request []byte) ([]byte, error) {
	resp, err := c.post(ctx, request)
	if err != nil && brokeOff(ctx, err) {
		// Most often a connection that was kept and has been closed meanwhile. Asking
		// twice does no harm: an authority keeps no account of what it stamped for us.
		resp, err = c.post(ctx, request)
	}
	if err != nil {
		return nil, refusal.New(CodeUnavailable, "ask the timestamp authority: %w", err)
	}
	defer resp.Body.Close()
	if err := c.checkStatus(resp.StatusCode); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, refusal.New(CodeUnavailable, "read the answer of the timestamp authority %s: %w", c.cfg.URL, err)
	}
	if len(body) > maxAnswer {
		return nil, refusal.New(CodeAnswerInvalid, "the answer is larger than %d bytes", maxAnswer)
	}
	// RFC 3161 section 3.4.
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || media != "application/timestamp-reply" {
		return nil, refusal.New(CodeAnswerInvalid, "the answer is of type %.64q, want application/timestamp-reply", resp.Header.Get("Content-Type"))
	}
	return body, nil
}

func (c *Client) post(ctx context.Context, request []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URL, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/timestamp-query")
	req.Header.Set("Accept", "application/timestamp-reply")
	// An answer is counted as it comes, not as it could be unpacked.
	req.Header.Set("Accept-Encoding", "identity")
	return c.http.Do(req)
}

// brokeOff says whether a connection failed, as against the time having run out.
func brokeOff(ctx context.Context, err error) bool {
	var network net.Error
	return ctx.Err() == nil && (!errors.As(err, &network) || !network.Timeout())
}

// checkStatus tells an authority that is away from one that does not want us, and both
// from something at its address that is no authority.
func (c *Client) checkStatus(status int) error {
	switch {
	case status == http.StatusOK:
		return nil
	case status == http.StatusTooManyRequests, status >= 500:
		return refusal.New(CodeUnavailable, "the timestamp authority %s answers with HTTP status %d", c.cfg.URL, status)
	case status >= 400:
		return refusal.New(CodeRefused, "the timestamp authority %s answers with HTTP status %d", c.cfg.URL, status)
	case status >= 300:
		return refusal.New(CodeAnswerInvalid, "the timestamp authority %s redirects (HTTP status %d); redirects are not followed", c.cfg.URL, status)
	default:
		return refusal.New(CodeAnswerInvalid, "the timestamp authority %s answers with HTTP status %d, want 200", c.cfg.URL, status)
	}
}
