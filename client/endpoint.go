package client

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// Codes of configuration that cannot work.
const (
	CodeServerInvalid    = "SERVER_INVALID"
	CodePlaintextRefused = "PLAINTEXT_REFUSED"
	CodeCAFileInvalid    = "CA_FILE_INVALID"
)

// endpoint is a server URL, taken apart.
type endpoint struct {
	// origin is scheme://host[:port] as RFC 6454 writes it: lower case, without
	// the scheme's default port. It is also the audience of credentials.
	origin string
	// target is what gRPC dials.
	target    string
	plaintext bool
}

// parseServer accepts http(s)://HOST[:PORT] and nothing that could hide a second
// meaning: credentials, a path, a query or a fragment are refused, not dropped.
func parseServer(raw string, allowPlaintext bool) (*endpoint, error) {
	if raw == "" {
		return nil, badInput(CodeServerInvalid, "no server given")
	}
	u, err := url.Parse(raw)
	if err != nil {
		// The url package's error repeats the URL with any password in it.
		return nil, badInput(CodeServerInvalid, "server is not a URL; want https://HOST[:PORT]")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, badInput(CodeServerInvalid, "server %q: want https://HOST[:PORT]", u.Redacted())
	case u.User != nil:
		return nil, badInput(CodeServerInvalid, "server %q: user and password are not used", u.Redacted())
	case (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.ForceQuery || strings.Contains(raw, "#"):
		return nil, badInput(CodeServerInvalid, "server %q: want scheme, host and port only", u.Redacted())
	case !validHost(u.Hostname()):
		return nil, badInput(CodeServerInvalid, "server %q: the host is missing or not plain ASCII", u.Redacted())
	}
	plaintext := u.Scheme == "http"
	if plaintext && !allowPlaintext && !isLoopback(u.Hostname()) {
		return nil, badInput(CodePlaintextRefused,
			"server %s is plaintext on another machine: tokens would travel readable", u.Redacted())
	}
	return newEndpoint(u, plaintext), nil
}

func newEndpoint(u *url.URL, plaintext bool) *endpoint {
	defaultPort := "443"
	if plaintext {
		defaultPort = "80"
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" {
		port = defaultPort
	}
	authority := net.JoinHostPort(host, port)
	shown := authority
	if port == defaultPort {
		shown = strings.TrimSuffix(authority, ":"+port)
	}
	return &endpoint{origin: u.Scheme + "://" + shown, target: "dns:///" + authority, plaintext: plaintext}
}

// validHost refuses what would not be the same bytes in an audience and in a
// TLS certificate.
func validHost(host string) bool {
	if host == "" {
		return false
	}
	for _, r := range host {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case r == '.', r == '-', r == '_', r == ':':
		default:
			return false
		}
	}
	return true
}

// isLoopback reports whether host is this machine. A name other than localhost
// is never taken for it, whatever it resolves to today.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
