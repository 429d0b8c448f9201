package boundhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

const answer = 100

// serve returns the URL of a server that breaks off, hangs, redirects, or answers with
// the status and as many bytes as the path says.
func serve(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	for path, f := range map[string]struct{ status, bytes int }{"/fits": {200, answer}, "/long": {200, answer + 1}, "/error": {500, answer + 1}} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(f.status)
			_, _ = io.WriteString(w, strings.Repeat("x", f.bytes))
		})
	}
	mux.HandleFunc("/breaks", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "50")
		_, _ = io.WriteString(w, "x")
	})
	mux.HandleFunc("/hangs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "50")
		_, _ = io.WriteString(w, "x")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/redirects", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/fits", http.StatusTemporaryRedirect)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func get(ctx context.Context, t *testing.T, c *Client, url string) (status, n int, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, len(text), err
}

// TestClient: no kind of client follows a redirect, nor reads an answer without end; what
// is streamed may be long, unless it is an error.
func TestClient(t *testing.T) {
	t.Parallel()
	url := serve(t)
	for name, client := range map[string]aws.HTTPClient{
		"none": nil, "the SDK's": awshttp.NewBuildableClient(), "ours": &http.Client{Transport: new(http.Transport)},
	} {
		for _, l := range []Limits{{Answer: answer}, {Answer: answer, Attempt: time.Minute, Calls: 5}} {
			c := New(client, l)
			if status, n, err := get(t.Context(), t, c, url+"/fits"); status != 200 || n != answer || err != nil {
				t.Errorf("%s: %d, %d bytes, %v", name, status, n, err)
			}
			if status, _, err := get(t.Context(), t, c, url+"/redirects"); status != 307 || err != nil {
				t.Errorf("%s: redirected: %d, %v", name, status, err)
			}
			for _, path := range []string{"/long", "/error"} {
				if _, _, err := get(t.Context(), t, c, url+path); !errors.Is(err, ErrTooLong) {
					t.Errorf("%s: %s: %v", name, path, err)
				}
			}
			if _, n, err := get(Stream(t.Context()), t, c, url+"/long"); n != answer+1 || err != nil {
				t.Errorf("%s: stream: %d bytes, %v", name, n, err)
			}
			if _, _, err := get(Stream(t.Context()), t, c, url+"/error"); !errors.Is(err, ErrTooLong) {
				t.Errorf("%s: error instead of a stream: %v", name, err)
			}
			var broken *ReadError
			if _, _, err := get(t.Context(), t, c, url+"/breaks"); !errors.As(err, &broken) || !errors.Is(err, io.ErrUnexpectedEOF) || !broken.ConnectionError() {
				t.Errorf("%s: broken: %v", name, err)
			}
		}
	}
}

// An answer that does not end in time is no answer, though its head was.
func TestAttempt(t *testing.T) {
	t.Parallel()
	c := New(&http.Client{Transport: new(http.Transport)}, Limits{Answer: answer, Attempt: 50 * time.Millisecond})
	_, _, err := get(t.Context(), t, c, serve(t)+"/hangs")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// late answers, with nothing, when its caller has hung up.
type late struct{}

func (late) Do(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
}

func TestLateAnswer(t *testing.T) {
	t.Parallel()
	c := New(late{}, Limits{Answer: answer, Attempt: time.Millisecond})
	if _, _, err := get(t.Context(), t, c, "http://127.0.0.1/"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// TestConnections keeps connections for as many calls as there may be, and leaves what it
// was given alone.
func TestConnections(t *testing.T) {
	t.Parallel()
	const calls = 200
	mine := &http.Transport{MaxIdleConns: 10, MaxIdleConnsPerHost: 3}
	roomy := &http.Transport{MaxIdleConnsPerHost: 1000}
	for name, client := range map[string]aws.HTTPClient{
		"none": nil, "the SDK's": awshttp.NewBuildableClient(), "the default": &http.Client{}, "a small one": &http.Client{Transport: mine}, "a large one": &http.Client{Transport: roomy},
	} {
		c, ok := New(client, Limits{Calls: calls}).client.(*http.Client)
		if !ok || c.CheckRedirect == nil || c.Jar != nil {
			t.Fatalf("%s: %+v", name, c)
		}
		tr := c.Transport.(*http.Transport)
		if tr.MaxIdleConnsPerHost < calls || tr.MaxIdleConns > 0 && tr.MaxIdleConns < calls || tr == http.DefaultTransport || tr == mine || tr == roomy {
			t.Errorf("%s: %d idle connections of a host, %d in all", name, tr.MaxIdleConnsPerHost, tr.MaxIdleConns)
		}
	}
	if mine.MaxIdleConnsPerHost != 3 || roomy.MaxIdleConnsPerHost != 1000 {
		t.Error("a transport of somebody else was changed")
	}
	if c := New(&http.Client{Transport: mine}, Limits{}).client.(*http.Client); c.Transport != http.RoundTripper(mine) {
		t.Error("another transport for no reason")
	}
}
