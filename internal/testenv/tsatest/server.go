package tsatest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Config configures a server.
type Config struct {
	// Key signs the tokens: ECDSA P-256 or RSA. Default: a new P-256 key.
	Key crypto.Signer
	// Now is the authority's clock. Default time.Now.
	Now func() time.Time
}

// Server is an http.Handler that answers timestamp queries on every path. It is safe
// for concurrent use.
type Server struct {
	now          func() time.Time
	honest, liar *authority

	mu       sync.Mutex
	fault    Fault
	times    int // 0: until further notice
	requests int
	first    []byte
}

// New returns a server.
func New(cfg Config) (*Server, error) {
	s := &Server{now: cfg.Now}
	if s.now == nil {
		s.now = time.Now
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if cfg.Key == nil {
		if cfg.Key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	if s.honest, err = newAuthority("Example Time", cfg.Key, s.now()); err != nil {
		return nil, err
	}
	// The liar bears the same names.
	s.liar, err = newAuthority("Example Time", other, s.now())
	return s, err
}

// Chain returns the certificates of the authority: leaf, intermediate, root.
func (s *Server) Chain() []*x509.Certificate { return s.ChainFor(None) }

// ChainFor returns the chain with the leaf that is used under a fault.
func (s *Server) ChainFor(f Fault) []*x509.Certificate {
	return []*x509.Certificate{s.honest.leaf(f), s.honest.intermediate, s.honest.root}
}

// Fail makes every answer from now on wrong in one way; None heals.
func (s *Server) Fail(f Fault) { s.FailTimes(f, 0) }

// FailTimes makes the next n answers wrong.
func (s *Server) FailTimes(f Fault, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.times = f, n
}

// Requests returns how many requests have come.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func (s *Server) take() Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	f := s.fault
	if s.times == 1 {
		s.fault = None
	}
	s.times = max(s.times-1, 0)
	return f
}

// replay remembers the first answer and gives it back.
func (s *Server) replay(answer []byte, again bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == nil {
		s.first = answer
	}
	if again {
		return s.first
	}
	return answer
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := s.take()
	body, err := io.ReadAll(io.LimitReader(r.Body, 4096))
	if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/timestamp-query" {
		http.Error(w, "not a timestamp query", http.StatusBadRequest)
		return
	}
	q, ok := parseQuery(body)
	if !ok {
		http.Error(w, "not a timestamp query", http.StatusBadRequest)
		return
	}
	if s.transportFault(w, r, f) {
		return
	}
	der, err := s.answer(f, q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	der = s.replay(der, f == Replay)
	w.Header().Set("Content-Type", "application/timestamp-reply")
	switch f {
	case Truncated:
		w.Header().Set("Content-Length", fmt.Sprint(len(der)))
		der = der[:len(der)/2]
	case Slow:
		drip(w, r, der)
		return
	}
	w.Write(der) //nolint:errcheck // the caller may have gone
}

// transportFault answers for the faults that are not of the protocol.
func (s *Server) transportFault(w http.ResponseWriter, r *http.Request, f Fault) bool {
	switch f {
	case Status500:
		http.Error(w, "broken", http.StatusInternalServerError)
	case Status429:
		http.Error(w, "too many", http.StatusTooManyRequests)
	case Status403:
		http.Error(w, "go away", http.StatusForbidden)
	case Redirect:
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	case HTML:
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<p>Please log in") //nolint:errcheck // the caller may have gone
	case Hang:
		<-r.Context().Done()
	case Reset:
		panic(http.ErrAbortHandler)
	case Huge:
		w.Header().Set("Content-Type", "application/timestamp-reply")
		for chunk := bytes.Repeat([]byte{0x30}, 4096); r.Context().Err() == nil; {
			if _, err := w.Write(chunk); err != nil {
				break
			}
		}
	default:
		return false
	}
	return true
}

// drip sends a byte every 100 ms.
func drip(w http.ResponseWriter, r *http.Request, der []byte) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := range der {
		if _, err := w.Write(der[i : i+1]); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// query is what a TimeStampReq asks for.
type query struct {
	imprint []byte
	nonce   *big.Int
}

// parseQuery takes what RFC 3161 section 2.4.1 asks of a request and what Assay needs
// of its own: SHA-256, a nonce, certificates.
func parseQuery(der []byte) (q query, ok bool) {
	in := cryptobyte.String(der)
	var req, mi, alg, null cryptobyte.String
	var version int64
	var oid asn1.ObjectIdentifier
	var certReq bool
	q.nonce = new(big.Int)
	ok = in.ReadASN1(&req, cbasn1.SEQUENCE) && in.Empty() && req.ReadASN1Integer(&version) && version == 1 &&
		req.ReadASN1(&mi, cbasn1.SEQUENCE) && mi.ReadASN1(&alg, cbasn1.SEQUENCE) && alg.ReadASN1ObjectIdentifier(&oid) &&
		oid.Equal(oidSHA256()) && (alg.Empty() || alg.ReadASN1(&null, cbasn1.NULL) && alg.Empty()) &&
		mi.ReadASN1Bytes(&q.imprint, cbasn1.OCTET_STRING) && mi.Empty() && len(q.imprint) == 32 &&
		req.ReadASN1Integer(q.nonce) && q.nonce.Sign() > 0 && req.ReadASN1Boolean(&certReq) && certReq && req.Empty()
	return q, ok
}

func (s *Server) answer(f Fault, q query) ([]byte, error) {
	switch f {
	case Rejected:
		return response(2, "the clock is broken", 14, nil)
	case NoToken:
		return response(0, "", -1, nil)
	case Garbage:
		junk := make([]byte, 600)
		rand.Read(junk)
		return junk, nil
	}
	token, err := s.token(f, q)
	if err != nil {
		return nil, err
	}
	switch f {
	case GrantedWithMods:
		return response(1, "", -1, token)
	case FreeText:
		return response(0, "Operation Okay", -1, token)
	}
	der, err := response(0, "", -1, token)
	switch f {
	case BER:
		der = indefinite(der)
	case TrailingBytes:
		der = append(der, 0)
	}
	return der, err
}

func (s *Server) token(f Fault, q query) ([]byte, error) {
	now := s.now()
	t := tstInfo{hash: oidSHA256(), imprint: q.imprint, at: generalized(now), nonce: q.nonce, extension: f == CriticalExtension}
	switch f {
	case WrongImprint:
		t.imprint = bytes.Clone(q.imprint)
		t.imprint[0] ^= 1
	case OtherHash:
		sum := sha512.Sum512(q.imprint)
		t.hash, t.imprint = oidSHA512(), sum[:]
	case WrongNonce:
		t.nonce = new(big.Int).Add(q.nonce, big.NewInt(1))
	case NoNonce:
		t.nonce = nil
	case TimeAhead:
		t.at = generalized(now.Add(time.Hour))
	case TimeBehind:
		t.at = generalized(now.Add(-time.Hour))
	case FractionalTime:
		t.at = now.UTC().Format("20060102150405") + ".123Z"
	}
	info, err := t.marshal()
	if err != nil {
		return nil, err
	}
	leaf := s.honest.leaf(f)
	switch f {
	case TwoLeaves:
		return signedToken(s.honest, leaf, info, s.liar.leaf(None), leaf, s.honest.intermediate)
	case ForgedTwoLeaves:
		return signedToken(s.liar, s.liar.leaf(None), info, leaf, s.liar.leaf(None), s.honest.intermediate)
	case OtherAuthority:
		return signedToken(s.liar, s.liar.leaf(None), info, s.liar.leaf(None), s.liar.intermediate)
	case OtherKey:
		return signedToken(s.liar, leaf, info, leaf, s.honest.intermediate)
	}
	token, err := signedToken(s.honest, leaf, info, leaf, s.honest.intermediate)
	if f == FlippedSignature && err == nil {
		token[len(token)-1] ^= 1
	}
	return token, err
}
