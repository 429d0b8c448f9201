package client

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/assay-build/assay/client/clienttest"
)

func TestParseServer(t *testing.T) {
	tests := []struct {
		raw, origin, target, code string
		allow                     bool
	}{
		{raw: "https://assay.example.com", origin: "https://assay.example.com", target: "dns:///assay.example.com:443"},
		{raw: "https://assay.example.com/", origin: "https://assay.example.com", target: "dns:///assay.example.com:443"},
		{raw: "HTTPS://Assay.Example.COM:443", origin: "https://assay.example.com", target: "dns:///assay.example.com:443"},
		{raw: "https://assay.example.com:8443", origin: "https://assay.example.com:8443", target: "dns:///assay.example.com:8443"},
		{raw: "http://127.0.0.1:8780", origin: "http://127.0.0.1:8780", target: "dns:///127.0.0.1:8780"},
		{raw: "http://localhost:8780", origin: "http://localhost:8780", target: "dns:///localhost:8780"},
		{raw: "http://[::1]:8780", origin: "http://[::1]:8780", target: "dns:///[::1]:8780"},
		{raw: "http://[::ffff:127.0.0.1]:80", origin: "http://[::ffff:127.0.0.1]", target: "dns:///[::ffff:127.0.0.1]:80"},
		{raw: "http://10.0.0.1:8780", allow: true, origin: "http://10.0.0.1:8780", target: "dns:///10.0.0.1:8780"},
		{raw: "http://10.0.0.1:8780", code: CodePlaintextRefused},
		{raw: "http://assay.example.com", code: CodePlaintextRefused},
		{raw: "http://localhost.example.com", code: CodePlaintextRefused},
		{raw: "http://127.0.0.1.example.com", code: CodePlaintextRefused},
		{raw: "http://0.0.0.0:8780", code: CodePlaintextRefused},
		{raw: "", code: CodeServerInvalid},
		{raw: "assay.example.com", code: CodeServerInvalid},
		{raw: "assay.example.com:443", code: CodeServerInvalid},
		{raw: "ftp://assay.example.com", code: CodeServerInvalid},
		{raw: "https://", code: CodeServerInvalid},
		{raw: "https:/assay.example.com", code: CodeServerInvalid},
		{raw: "https://user:pw@assay.example.com", code: CodeServerInvalid},
		{raw: "https://assay.example.com/path", code: CodeServerInvalid},
		{raw: "https://assay.example.com?q=1", code: CodeServerInvalid},
		{raw: "https://assay.example.com?", code: CodeServerInvalid},
		{raw: "https://assay.example.com#f", code: CodeServerInvalid},
		{raw: "https://ässay.example.com", code: CodeServerInvalid},
		{raw: "https://assay.example.com:port", code: CodeServerInvalid},
		{raw: "https://a%20b", code: CodeServerInvalid},
	}
	for _, tt := range tests {
		ep, err := parseServer(tt.raw, tt.allow)
		wantCode(t, err, tt.code)
		if err == nil && (ep.origin != tt.origin || ep.target != tt.target) {
			t.Errorf("%q: origin %q, target %q; want %q, %q", tt.raw, ep.origin, ep.target, tt.origin, tt.target)
		}
	}
}

// FuzzParseServer: what is accepted has an origin that parses to itself, so that
// the audience of a token cannot depend on how the URL was written.
func FuzzParseServer(f *testing.F) {
	for _, s := range []string{"https://a.b:443/", "http://[::1]:80", "https://u@h", "https://h:0443", "http://LOCALHOST"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		ep, err := parseServer(raw, true)
		if err != nil {
			return
		}
		again, err := parseServer(ep.origin, true)
		if err != nil || again.origin != ep.origin || again.target != ep.target {
			t.Fatalf("%q gives origin %q, which gives %+v, %v", raw, ep.origin, again, err)
		}
	})
}

func TestCAFile(t *testing.T) {
	s, good := clienttest.NewTLS(t)
	dir := t.TempDir()
	for _, tt := range []struct{ server, file, code string }{
		{s.URL, good, ""},
		{s.URL, write(t, dir, "empty.pem", ""), CodeCAFileInvalid},
		{s.URL, filepath.Join(dir, "absent.pem"), CodeCAFileInvalid},
		{"http://127.0.0.1:1", good, CodeServerInvalid},
	} {
		c, err := Dial(t.Context(), Config{Server: tt.server, CAFile: tt.file, Credential: clienttest.Credential{}})
		wantCode(t, err, tt.code)
		if err != nil {
			continue
		}
		if _, err := c.WhoAmI(t.Context()); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

// TestUntrustedServer: a server that cannot prove its name gets no token.
func TestUntrustedServer(t *testing.T) {
	s, caFile := clienttest.NewTLS(t)
	for _, cfg := range []Config{
		{Server: s.URL}, // trusted by nobody
		{Server: strings.Replace(s.URL, "127.0.0.1", "localhost", 1), CAFile: caFile}, // another name
		{Server: strings.Replace(s.URL, "https", "http", 1)},                          // TLS expected
	} {
		cfg.Credential = clienttest.Credential{}
		c, err := Dial(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.retry.attempts = 1
		_, err = c.WhoAmI(t.Context())
		wantCode(t, err, "UNAVAILABLE")
		c.Close()
	}
	if s.Exchanges.Load() != 0 {
		t.Error("a credential was sent")
	}
}
