package awstest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// servers are the world's listeners and its certificate authority.
type servers struct {
	aws, plain   *http.Server
	awsAddr      string
	plainAddr    string
	ca           *x509.Certificate
	caKey        *ecdsa.PrivateKey
	leafKey      *ecdsa.PrivateKey
	mu           sync.Mutex
	certificates map[string]*tls.Certificate // by host
}

func listen(w *World) (*servers, error) {
	s := &servers{certificates: map[string]*tls.Certificate{}}
	if err := s.newAuthority(); err != nil {
		return nil, err
	}
	quiet := log.New(io.Discard, "", 0) // clients that distrust us are part of the tests
	s.aws = &http.Server{Handler: http.HandlerFunc(w.serveHTTP), ErrorLog: quiet, ReadHeaderTimeout: time.Minute}
	s.plain = &http.Server{Handler: http.HandlerFunc(w.servePlain), ErrorLog: quiet, ReadHeaderTimeout: time.Minute}

	var lc net.ListenConfig
	secure, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	plain, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, secure.Close())
	}
	s.awsAddr, s.plainAddr = secure.Addr().String(), plain.Addr().String()
	go s.aws.Serve(tls.NewListener(secure, &tls.Config{ //nolint:errcheck // it returns when closed
		GetCertificate: s.certificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	}))
	go s.plain.Serve(plain) //nolint:errcheck // it returns when closed
	return s, nil
}

func (s *servers) close() {
	_ = s.aws.Close()
	_ = s.plain.Close()
}

func (s *servers) newAuthority() (err error) {
	if s.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	if s.leafKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	// The dates are wide, since the world's clock may be any.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "awstest"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.caKey.Public(), s.caKey)
	if err != nil {
		return err
	}
	s.ca, err = x509.ParseCertificate(der)
	return err
}

// certificate makes the certificate of an AWS host when it is first asked for.
func (s *servers) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if _, ok := parseHost(hello.ServerName); !ok {
		return nil, errors.New("awstest: no such host")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.certificates[hello.ServerName]; c != nil {
		return c, nil
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(s.certificates) + 2)), DNSNames: []string{hello.ServerName},
		NotBefore: s.ca.NotBefore, NotAfter: s.ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.ca, s.leafKey.Public(), s.caKey)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: s.leafKey}
	s.certificates[hello.ServerName] = c
	return c, nil
}

// CertPool has the one authority that vouches for the world's hosts.
func (w *World) CertPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(w.servers.ca)
	return pool
}

// CertPEM is the same authority, for AWS_CA_BUNDLE.
func (w *World) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.servers.ca.Raw})
}

// ProxyURL is a proxy that leads CONNECT requests for AWS hosts to the world. With
// HTTPS_PROXY=ProxyURL and AWS_CA_BUNDLE a program that cannot be given a
// transport is led here too.
func (w *World) ProxyURL() string { return "http://" + w.servers.plainAddr }

func (w *World) transport() *http.Transport {
	s := w.servers
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: w.CertPool(), MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			to := addr
			if addr != s.plainAddr {
				host, port, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, err
				}
				if _, ok := parseHost(host); !ok {
					return nil, fmt.Errorf("awstest: no such host: %s", host)
				}
				if port != "443" {
					return nil, fmt.Errorf("awstest: %s refuses connections to port %s", host, port)
				}
				to = s.awsAddr
			}
			return (&net.Dialer{}).DialContext(ctx, network, to)
		},
		// A test that leaves connections idle must not keep the world alive.
		IdleConnTimeout: 10 * time.Second,
		// As the SDK's own client, which callers of a world use this in place of.
		MaxIdleConnsPerHost: 256,
	}
}

// servePlain is the container-credentials endpoint, and the proxy.
func (w *World) servePlain(rw http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		w.connect(rw, r)
		return
	}
	w.serveCredentials(rw, r)
}

func (w *World) connect(rw http.ResponseWriter, r *http.Request) {
	host, port, err := net.SplitHostPort(r.Host)
	if _, ok := parseHost(host); err != nil || !ok || port != "443" {
		http.Error(rw, "awstest: no such host", http.StatusBadGateway)
		return
	}
	server, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", w.servers.awsAddr)
	if err != nil {
		http.Error(rw, "awstest: closed", http.StatusBadGateway)
		return
	}
	defer server.Close()
	client, buffered, err := rw.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(server, buffered)
		_ = server.Close()
		close(done)
	}()
	_, _ = io.Copy(client, server)
	_ = client.Close()
	<-done
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("awstest: %v", err))
	}
	return b
}
