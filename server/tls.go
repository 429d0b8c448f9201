package server

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// CodePlaintextRefused refuses to serve without TLS where others could listen in.
const CodePlaintextRefused refusal.Code = "PLAINTEXT_REFUSED"

// checkPlaintext lets plaintext be served on loopback and unix sockets only,
// unless meant says that something in front does TLS.
func checkPlaintext(addr net.Addr, meant bool) error {
	if meant {
		return nil
	}
	switch a := addr.(type) {
	case *net.TCPAddr:
		if a.IP.IsLoopback() { // an empty or unspecified address is every interface
			return nil
		}
	case *net.UnixAddr:
		return nil
	}
	return refusal.New(CodePlaintextRefused, "%s can be reached from other machines and there is no TLS certificate; tokens would travel in the clear. Configure a certificate, listen on 127.0.0.1, or allow plaintext if a proxy in front does TLS", addr)
}

// certCheckInterval is how often the files are looked at, at most.
const certCheckInterval = time.Second

// certReloader serves a certificate that may be replaced on disk while it is in
// use. At a handshake, and at most once per certCheckInterval, it looks at both
// files and reads them again where one has changed. A pair that is broken, or
// half replaced, is reported once and tried again later; until it is whole the
// old pair stays.
type certReloader struct {
	certFile, keyFile string
	now               func() time.Time
	logger            *slog.Logger

	current   atomic.Pointer[tls.Certificate]
	nextCheck atomic.Int64 // Unix nanoseconds

	mu      sync.Mutex // guards what follows; held by the one handshake that checks
	seen    pairStamp  // of the files that gave current
	problem string     // last one logged; "" after a success
}

// pairStamp changes when a file is written or replaced. Symbolic links are
// followed, which is how Kubernetes replaces both files at once.
type pairStamp struct{ cert, key fs.FileInfo }

func (s pairStamp) equal(o pairStamp) bool {
	return sameFile(s.cert, o.cert) && sameFile(s.key, o.key)
}

func sameFile(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// newCertReloader reads the pair, which must be good to begin with.
func newCertReloader(certFile, keyFile string, now func() time.Time, logger *slog.Logger) (*certReloader, error) {
	r := &certReloader{certFile: certFile, keyFile: keyFile, now: now, logger: logger}
	stamp, err := r.stamp()
	if err != nil {
		return nil, err
	}
	if err := r.load(stamp); err != nil {
		return nil, err
	}
	r.nextCheck.Store(now().Add(certCheckInterval).UnixNano())
	return r, nil
}

// Config returns a TLS configuration that serves the pair. TLS 1.2 is the oldest
// version: its remaining suites have forward secrecy in Go's selection.
func (r *certReloader) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: r.GetCertificate}
}

// GetCertificate is for tls.Config. It never fails: there is always a good pair.
func (r *certReloader) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := r.now()
	// TryLock: while one handshake checks the files the others go on with what is there.
	if now.UnixNano() >= r.nextCheck.Load() && r.mu.TryLock() {
		r.check()
		r.nextCheck.Store(now.Add(certCheckInterval).UnixNano())
		r.mu.Unlock()
	}
	return r.current.Load(), nil
}

// check reloads if the files changed. The stamp is taken before the files are
// read: what is written in between differs from it and is read at the next check.
func (r *certReloader) check() {
	stamp, err := r.stamp()
	if err == nil && stamp.equal(r.seen) {
		r.problem = ""
		return
	}
	if err == nil {
		err = r.load(stamp)
	}
	if err != nil {
		if r.problem != err.Error() {
			r.problem = err.Error()
			r.logger.Error("the new TLS certificate is not usable, the old one stays", "cert_file", r.certFile, "key_file", r.keyFile, "error", r.problem)
		}
		return
	}
	r.problem = ""
	r.logger.Info("TLS certificate replaced", "cert_file", r.certFile, "not_after", r.current.Load().Leaf.NotAfter)
}

func (r *certReloader) stamp() (pairStamp, error) {
	cert, err := os.Stat(r.certFile)
	if err != nil {
		return pairStamp{}, fmt.Errorf("TLS certificate: %w", err)
	}
	key, err := os.Stat(r.keyFile)
	if err != nil {
		return pairStamp{}, fmt.Errorf("TLS key: %w", err)
	}
	return pairStamp{cert, key}, nil
}

// load reads the pair; LoadX509KeyPair refuses a key that is not the certificate's.
func (r *certReloader) load(stamp pairStamp) error {
	pair, err := tls.LoadX509KeyPair(r.certFile, r.keyFile)
	if err != nil {
		return fmt.Errorf("TLS certificate %s and key %s: %w", r.certFile, r.keyFile, err)
	}
	r.current.Store(&pair)
	r.seen = stamp
	return nil
}
