package awstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	amzDate    = "20060102T150405Z"
	terminator = "aws4_request"
)

// wireRequest is a request as it was on the wire, which is what is signed.
type wireRequest struct {
	method string
	path   string // as sent, before the question mark
	query  string // as sent, after it
	header map[string][]string
	host   string
}

func wireOf(r *http.Request) wireRequest {
	target, query, _ := strings.Cut(r.RequestURI, "?")
	w := wireRequest{method: r.Method, path: target, query: query, header: map[string][]string{}, host: r.Host}
	for name, values := range r.Header {
		w.header[strings.ToLower(name)] = values
	}
	return w
}

func (w wireRequest) headerValues(name string) []string {
	if name == "host" {
		return []string{w.host}
	}
	return w.header[name]
}

// canonical says how a service reads a request before it hashes it. S3 takes the
// path as it is; all others normalise it and encode it once more.
type canonical struct {
	rawPath  bool     // S3
	keepDots bool     // do not normalise
	leaveOut []string // query parameters that are not signed
	signed   []string // names of the signed headers, sorted
	payload  string   // hash of the body, or a word in its place
}

// request is the canonical request of the Signature Version 4 documentation.
func (c canonical) request(w wireRequest) (string, bool) {
	var b strings.Builder
	b.WriteString(w.method + "\n" + c.path(w.path) + "\n")
	q, ok := c.query(w.query)
	if !ok {
		return "", false
	}
	b.WriteString(q + "\n")
	for _, name := range c.signed {
		values := w.headerValues(name)
		if len(values) == 0 {
			return "", false
		}
		folded := make([]string, len(values))
		for i, v := range values {
			folded[i] = strings.Join(strings.Fields(v), " ")
		}
		b.WriteString(name + ":" + strings.Join(folded, ",") + "\n")
	}
	b.WriteString("\n" + strings.Join(c.signed, ";") + "\n" + c.payload)
	return b.String(), true
}

func (c canonical) path(p string) string {
	if p == "" {
		p = "/"
	}
	if c.rawPath {
		if decoded, err := url.PathUnescape(p); err == nil {
			p = decoded
		}
		return encode(p, true)
	}
	if !c.keepDots {
		clean := path.Clean(p)
		if strings.HasSuffix(p, "/") && clean != "/" {
			clean += "/"
		}
		p = clean
	}
	return encode(p, true)
}

func (c canonical) query(raw string) (string, bool) {
	var pairs [][2]string
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		n, err1 := url.PathUnescape(name)
		v, err2 := url.PathUnescape(value)
		if err1 != nil || err2 != nil {
			return "", false
		}
		if !slices.Contains(c.leaveOut, n) {
			pairs = append(pairs, [2]string{encode(n, false), encode(v, false)})
		}
	}
	slices.SortFunc(pairs, func(a, b [2]string) int {
		return strings.Compare(a[0]+"\x00"+a[1], b[0]+"\x00"+b[1])
	})
	out := make([]string, len(pairs))
	for i, p := range pairs {
		out[i] = p[0] + "=" + p[1]
	}
	return strings.Join(out, "&"), true
}

// encode is UriEncode of the documentation.
func encode(s string, keepSlash bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9',
			strings.IndexByte("-._~", c) >= 0, c == '/' && keepSlash:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// scope is the credential scope of a signature.
type scope struct{ date, region, service string }

func (s scope) String() string {
	return s.date + "/" + s.region + "/" + s.service + "/" + terminator
}

// stringToSign is what the signing key signs.
func stringToSign(date string, s scope, canonicalRequest string) string {
	return algorithm + "\n" + date + "\n" + s.String() + "\n" + hexSHA256([]byte(canonicalRequest))
}

// signatureOf signs with the key derived from secret for the scope.
func signatureOf(secret string, s scope, toSign string) string {
	key := []byte("AWS4" + secret)
	for _, part := range [...]string{s.date, s.region, s.service, terminator} {
		key = hmacSHA256(key, part)
	}
	return hex.EncodeToString(hmacSHA256(key, toSign))
}

func hmacSHA256(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
