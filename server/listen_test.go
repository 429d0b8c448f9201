package server

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// splitCA issues certificates for 127.0.0.1 and for clients.
type splitCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newSplitCA(tb testing.TB) *splitCA {
	tb.Helper()
	ca := &splitCA{pool: x509.NewCertPool()}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "test root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, key := ca.sign(tb, 1, template)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	ca.cert, ca.key = cert, key
	ca.pool.AddCert(cert)
	return ca
}

func (ca *splitCA) sign(tb testing.TB, serial int64, template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber = big.NewInt(serial)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := ca.cert, ca.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		tb.Fatal(err)
	}
	return der, key
}

// pair returns a certificate for 127.0.0.1 and for a client at once.
func (ca *splitCA) pair(tb testing.TB, serial int64) tls.Certificate {
	tb.Helper()
	der, key := ca.sign(tb, serial, &x509.Certificate{
		Subject: pkix.Name{CommonName: fmt.Sprintf("pair %d", serial)}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// splitServer is a split with a real gRPC server and a real HTTP server behind it.
type splitServer struct {
	*split
	addr string
	ca   *splitCA // nil on plaintext

	mu   sync.Mutex
	peer *peer.Peer // of the last RPC
}

// startSplit serves until the test ends. config may be nil for plaintext; adjust
// runs before serving.
func startSplit(t *testing.T, ca *splitCA, config *tls.Config, adjust func(*split)) *splitServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &splitServer{split: newSplit(l, config, slog.New(slog.DiscardHandler)), addr: l.Addr().String(), ca: ca}
	if adjust != nil {
		adjust(s.split)
	}
	rpc := grpc.NewServer(grpc.Creds(s.Credentials()), grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		s.mu.Lock()
		s.peer, _ = peer.FromContext(ctx)
		s.mu.Unlock()
		return next(ctx, req)
	}))
	healthv1.RegisterHealthServer(rpc, health.NewServer())
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s tls=%t", r.Method, r.Proto, r.TLS != nil)
	})}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	wg.Go(func() { rpc.Serve(s.GRPC()) })
	wg.Go(func() { web.Serve(s.HTTP()) })
	t.Cleanup(func() {
		rpc.Stop()
		web.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		wg.Wait()
	})
	return s
}

func (s *splitServer) clientTLS(protos ...string) *tls.Config {
	return &tls.Config{RootCAs: s.ca.pool, NextProtos: protos}
}

// checkHealth makes one RPC over a connection of its own.
func (s *splitServer) checkHealth(t *testing.T, creds credentials.TransportCredentials) {
	t.Helper()
	if creds == nil {
		creds = insecure.NewCredentials()
		if s.ca != nil {
			creds = credentials.NewTLS(s.clientTLS())
		}
	}
	conn, err := grpc.NewClient("passthrough:///"+s.addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v %v", got, err)
	}
}

// get sends a request as curl would and returns the body.
func (s *splitServer) get(t *testing.T, protos ...string) string {
	t.Helper()
	var conn net.Conn
	var err error
	if s.ca != nil {
		conn, err = tls.Dial("tcp", s.addr, s.clientTLS(protos...))
	} else {
		conn, err = net.Dial("tcp", s.addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestSplitPlaintext(t *testing.T) {
	s := startSplit(t, nil, nil, nil)
	for range 3 {
		s.checkHealth(t, nil)
		if got := s.get(t); got != "GET HTTP/1.1 tls=false" {
			t.Errorf("HTTP answered %q", got)
		}
	}
	if info := s.peer.AuthInfo; info == nil || info.AuthType() != "insecure" {
		t.Errorf("auth info %v", info)
	}
}

func TestSplitTLS(t *testing.T) {
	ca := newSplitCA(t)
	s := startSplit(t, ca, &tls.Config{Certificates: []tls.Certificate{ca.pair(t, 2)}}, nil)
	for _, protos := range [][]string{nil, {"http/1.1"}, {"h2", "http/1.1"}, {"http/1.1", "h2"}} {
		s.checkHealth(t, nil)
		if got := s.get(t, protos...); got != "GET HTTP/1.1 tls=true" {
			t.Errorf("ALPN %v: HTTP answered %q", protos, got)
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: s.clientTLS(), ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	response, err := client.Get("https://" + s.addr)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK || response.ProtoMajor != 1 {
		t.Errorf("HTTP client that prefers h2: %s %s", response.Proto, response.Status)
	}
	if conn, err := tls.Dial("tcp", s.addr, s.clientTLS("smtp")); err == nil {
		conn.Close()
		t.Error("a peer that offers only another protocol was taken")
	}
	if conn, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: ca.pool, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		conn.Close()
		t.Error("TLS 1.1 was taken")
	}
}

// What interceptors see of the peer: the level of security and its certificate.
func TestSplitPeerCertificate(t *testing.T) {
	ca := newSplitCA(t)
	s := startSplit(t, ca, &tls.Config{Certificates: []tls.Certificate{ca.pair(t, 2)}, ClientCAs: ca.pool, ClientAuth: tls.VerifyClientCertIfGiven}, nil)
	config := s.clientTLS()
	config.Certificates = []tls.Certificate{ca.pair(t, 77)}
	s.checkHealth(t, credentials.NewTLS(config))
	info, ok := s.peer.AuthInfo.(credentials.TLSInfo)
	if !ok || info.SecurityLevel != credentials.PrivacyAndIntegrity {
		t.Fatalf("auth info %#v", s.peer.AuthInfo)
	}
	if chains := info.State.VerifiedChains; len(chains) != 1 || chains[0][0].SerialNumber.Int64() != 77 {
		t.Errorf("verified chains of the peer: %v", chains)
	}
	s.checkHealth(t, nil)
	if info := s.peer.AuthInfo.(credentials.TLSInfo); len(info.State.PeerCertificates) != 0 {
		t.Error("certificates of a peer that sent none")
	}
}

// The second gRPC address takes load balancers that offer both protocols.
func TestSplitGRPCOnly(t *testing.T) {
	ca := newSplitCA(t)
	main, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newSplit(main, &tls.Config{Certificates: []tls.Certificate{ca.pair(t, 2)}}, slog.New(slog.DiscardHandler))
	rpc := grpc.NewServer(grpc.Creds(s.Credentials()))
	healthv1.RegisterHealthServer(rpc, health.NewServer())
	done := make(chan error, 1)
	go func() { done <- rpc.Serve(s.GRPCOnly(second)) }()
	t.Cleanup(func() { rpc.Stop(); <-done; s.Close() })
	on := &splitServer{addr: second.Addr().String(), ca: ca}
	on.checkHealth(t, nil)
	conn, err := tls.Dial("tcp", on.addr, on.clientTLS("http/1.1", "h2"))
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != "h2" {
		t.Errorf("negotiated %q", got)
	}
	conn.Close()
	// A peer without ALPN is told so by gRPC, which closes.
	if conn, err = tls.Dial("tcp", on.addr, on.clientTLS()); err == nil {
		expectClosed(t, conn)
	}
	plain := newSplit(main, nil, slog.New(slog.DiscardHandler))
	if plain.GRPCOnly(second) != second {
		t.Error("plaintext listener was wrapped")
	}
}

// expectClosed fails unless the other side ends the connection without an answer.
func expectClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	if n != 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("connection is open: read %d bytes, %v", n, err)
	}
}

func dialSilent(t *testing.T, s *splitServer, say string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, say); err != nil {
		t.Fatal(err)
	}
	return conn
}

// Peers that connect and say nothing, or stop in the middle, hold up nobody: not
// when there are few, and not when there are more than the split waits for.
func TestSplitSilentPeers(t *testing.T) {
	ca := newSplitCA(t)
	for _, c := range []struct {
		name   string
		ca     *splitCA
		config *tls.Config
		say    string
	}{
		{"plaintext, nothing", nil, nil, ""},
		{"plaintext, two bytes", nil, nil, "PR"},
		{"TLS, nothing", ca, &tls.Config{Certificates: []tls.Certificate{ca.pair(t, 2)}}, ""},
		{"TLS, half a record header", ca, &tls.Config{Certificates: []tls.Certificate{ca.pair(t, 2)}}, "\x16\x03\x01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			const room, peers = 8, 50
			s := startSplit(t, c.ca, c.config, func(s *split) { s.timeout, s.pending.max = time.Hour, room })
			silent := make([]net.Conn, peers)
			for i := range silent {
				silent[i] = dialSilent(t, s, c.say)
				if i%10 == 0 {
					s.checkHealth(t, nil)
					s.get(t)
				}
			}
			s.checkHealth(t, nil)
			s.get(t)
			for _, conn := range silent[:peers-room-1] {
				expectClosed(t, conn) // evicted: the time limit is an hour
			}
		})
	}
}

func TestSplitTimeLimit(t *testing.T) {
	ca := newSplitCA(t)
	for name, config := range map[string]*tls.Config{"plaintext": nil, "TLS": {Certificates: []tls.Certificate{ca.pair(t, 2)}}} {
		t.Run(name, func(t *testing.T) {
			s := startSplit(t, ca, config, func(s *split) { s.timeout = 20 * time.Millisecond })
			expectClosed(t, dialSilent(t, s, ""))
			expectClosed(t, dialSilent(t, s, "P"))
		})
	}
}

// A connection that was handed over is under no time limit of the split.
func TestSplitLimitEndsAtHandOver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newSplit(l, nil, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	io.WriteString(client, "GET / ")
	conn, err := s.HTTP().Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.Close() // ends every limit at once
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	io.WriteString(client, "later")
	got := make([]byte, 11)
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "GET / later" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestSplitClose(t *testing.T) {
	for _, closeBranch := range []bool{false, true} {
		s := startSplit(t, nil, nil, func(s *split) { s.timeout = time.Hour })
		waiting := dialSilent(t, s, "")
		if closeBranch {
			// The HTTP side alone: gRPC goes on, HTTP connections are dropped.
			s.HTTP().Close()
			expectClosed(t, dialSilent(t, s, "GET / HTTP/1.1\r\n\r\n"))
			s.checkHealth(t, nil)
			continue
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		expectClosed(t, waiting)
		for _, l := range []net.Listener{s.GRPC(), s.HTTP()} {
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept after Close: %v", err)
			}
			if l.Addr().String() != s.addr {
				t.Errorf("address %s", l.Addr())
			}
		}
	}
}

// faultyListener fails as told, then accepts.
type faultyListener struct {
	net.Listener
	faults chan error
}

func (l *faultyListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.faults:
		return nil, err
	default:
		return l.Listener.Accept()
	}
}

func TestSplitAcceptErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	faulty := &faultyListener{Listener: l, faults: make(chan error, 2)}
	tooMany := &net.OpError{Op: "accept", Err: syscall.EMFILE}
	faulty.faults <- tooMany
	faulty.faults <- tooMany
	s := newSplit(faulty, nil, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	io.WriteString(client, "GET ")
	conn, err := s.HTTP().Accept()
	if err != nil {
		t.Fatalf("after too many open files: %v", err)
	}
	conn.Close()
	broken := errors.New("broken")
	faulty.faults <- broken
	next, err := net.Dial("tcp", l.Addr().String()) // ends the Accept under way
	if err != nil {
		t.Fatal(err)
	}
	next.Close()
	if err := <-done; !errors.Is(err, broken) {
		t.Errorf("Serve returned %v", err)
	}
	if _, err := s.GRPC().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after a broken listener: %v", err)
	}
}
