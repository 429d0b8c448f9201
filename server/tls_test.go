package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

func TestCheckPlaintext(t *testing.T) {
	for _, c := range []struct {
		addr  net.Addr
		meant bool
		want  refusal.Code
	}{
		{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, false, ""},
		{&net.TCPAddr{IP: net.IPv4(127, 9, 9, 9)}, false, ""},
		{&net.TCPAddr{IP: net.IPv6loopback}, false, ""},
		{&net.UnixAddr{Name: "/run/assay.sock", Net: "unix"}, false, ""},
		{&net.TCPAddr{IP: net.IPv4zero}, false, CodePlaintextRefused},
		{&net.TCPAddr{IP: net.IPv6zero}, false, CodePlaintextRefused},
		{&net.TCPAddr{}, false, CodePlaintextRefused},
		{&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, false, CodePlaintextRefused},
		{&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, true, ""},
		{&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, false, CodePlaintextRefused},
		{nil, false, CodePlaintextRefused},
	} {
		if err := checkPlaintext(c.addr, c.meant); refusal.CodeOf(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%v meant=%t: got %v, want code %q", c.addr, c.meant, err, c.want)
		}
	}
}

// certFiles is a pair on disk and the clock and log of its reloader.
type certFiles struct {
	t         *testing.T
	ca        *splitCA
	cert, key string

	mu  sync.Mutex
	now time.Time
	log bytes.Buffer
}

func newCertFiles(t *testing.T) *certFiles {
	dir := t.TempDir()
	return &certFiles{t: t, ca: newSplitCA(t), cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key"), now: time.Unix(1e9, 0)}
}

func (f *certFiles) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *certFiles) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

// encode returns a new pair as PEM.
func (f *certFiles) encode(serial int64) (cert, key []byte) {
	f.t.Helper()
	pair := f.ca.pair(f.t, serial)
	der, err := x509.MarshalECPrivateKey(pair.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		f.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// put replaces one file by renaming a new one over it, as certificate tools do.
func (f *certFiles) put(path string, content []byte) {
	f.t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		f.t.Fatal(err)
	}
}

func (f *certFiles) putPair(serial int64) {
	f.t.Helper()
	cert, key := f.encode(serial)
	f.put(f.cert, cert)
	f.put(f.key, key)
}

func (f *certFiles) reloader() *certReloader {
	f.t.Helper()
	r, err := newCertReloader(f.cert, f.key, f.clock, slog.New(slog.NewTextHandler(&f.log, nil)))
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func TestCertReloader(t *testing.T) {
	f := newCertFiles(t)
	f.putPair(1)
	r := f.reloader()
	serves := func(want int64) {
		t.Helper()
		pair, err := r.GetCertificate(nil)
		if err != nil || pair.Leaf.SerialNumber.Int64() != want {
			t.Errorf("serves %v, %v; want %d", pair.Leaf.SerialNumber, err, want)
		}
	}
	serves(1)

	f.putPair(2)
	f.pass(certCheckInterval - 1)
	serves(1) // not looked at yet
	f.pass(1)
	serves(2)

	// Half replaced: the certificate is new, the key is not.
	cert, key := f.encode(3)
	f.put(f.cert, cert)
	for range 3 {
		f.pass(certCheckInterval)
		serves(2)
	}
	if n := strings.Count(f.log.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors logged, want 1:\n%s", n, f.log.String())
	}
	f.put(f.key, key)
	f.pass(certCheckInterval)
	serves(3)

	for _, broken := range []func(){
		func() { f.put(f.cert, []byte("not PEM")) },
		func() { f.put(f.key, nil) },
		func() { os.Remove(f.cert) },
	} {
		broken()
		f.pass(certCheckInterval)
		serves(3)
	}
	if n := strings.Count(f.log.String(), "level=ERROR"); n < 3 {
		t.Errorf("%d errors logged:\n%s", n, f.log.String())
	}
	f.putPair(4)
	f.pass(certCheckInterval)
	serves(4)
	if strings.Contains(f.log.String(), "PRIVATE KEY") {
		t.Error("a key was logged")
	}
}

func TestCertReloaderNeedsAGoodPair(t *testing.T) {
	f := newCertFiles(t)
	cert, _ := f.encode(1)
	_, key := f.encode(2)
	check := func(why string) {
		t.Helper()
		if _, err := newCertReloader(f.cert, f.key, f.clock, slog.New(slog.DiscardHandler)); err == nil {
			t.Error(why)
		}
	}
	check("took a missing certificate")
	f.put(f.cert, cert)
	check("took a missing key")
	f.put(f.key, key)
	check("took a key of another certificate")
}

// Over a real socket, while clients keep coming.
func TestCertRotationServed(t *testing.T) {
	f := newCertFiles(t)
	f.putPair(1)
	s := startSplit(t, f.ca, f.reloader().Config(), nil)
	served := func() int64 {
		conn, err := tls.Dial("tcp", s.addr, s.clientTLS("http/1.1"))
		if err != nil {
			t.Error(err)
			return 0
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := served(); got != 1 {
		t.Fatalf("served certificate %d", got)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					served()
				}
			}
		})
	}
	for serial := int64(2); serial < 6; serial++ {
		f.putPair(serial)
		f.pass(certCheckInterval)
		// One handshake finds the change; the others may still be given the old
		// certificate while it reads.
		for got := served(); got != serial; got = served() {
			f.pass(certCheckInterval)
		}
		s.checkHealth(t, nil)
	}
	close(stop)
	wg.Wait()
}
