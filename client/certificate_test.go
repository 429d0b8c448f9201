package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/assay-build/assay/client/clienttest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// issue writes a certificate of a SPIFFE id and its key.
func issue(t *testing.T, certFile, keyFile, id string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "build"}, URIs: []*url.URL{uri},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestClientCertificate: the certificate of the connection is the credential, and
// one that was renewed in place is used from the next connection on.
func TestClientCertificate(t *testing.T) {
	s, caFile := clienttest.NewTLS(t)
	var seen string
	s.OnExchange = func(ctx context.Context, req *assayv1.ExchangeRequest) (*assayv1.ExchangeResponse, error) {
		p, _ := peer.FromContext(ctx)
		state := p.AuthInfo.(credentials.TLSInfo).State
		if req.GetClientCertificate() == nil || len(state.PeerCertificates) != 1 {
			return nil, clienttest.Refuse(codes.Unauthenticated, "CERTIFICATE_MISSING", "no certificate")
		}
		seen = state.PeerCertificates[0].URIs[0].String()
		return &assayv1.ExchangeResponse{SessionToken: "s"}, nil
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	source := ClientCertificate(cert, key)
	for _, id := range []string{"spiffe://example.org/build/1", "spiffe://example.org/build/2"} {
		issue(t, cert, key, id)
		c, err := Dial(t.Context(), Config{Server: s.URL, CAFile: caFile, Credential: source})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.WhoAmI(t.Context()); err != nil || seen != id {
			t.Errorf("the server saw %q, %v; want %q", seen, err, id)
		}
		c.Close()
	}
	// No other source shows a certificate.
	c, err := Dial(t.Context(), Config{Server: s.URL, CAFile: caFile, Credential: withoutConnection{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.WhoAmI(t.Context())
	wantCode(t, err, "CERTIFICATE_MISSING")
}

// withoutConnection claims a certificate that its connection does not have.
type withoutConnection struct{}

func (withoutConnection) Credential(ctx context.Context, audience string) (*assayv1.ExchangeRequest, error) {
	return ClientCertificate("", "").Credential(ctx, audience)
}

func TestClientCertificateRefused(t *testing.T) {
	dir := t.TempDir()
	cert, key, other := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "other.pem")
	issue(t, cert, other, "spiffe://example.org/a")
	issue(t, cert, key, "spiffe://example.org/a")
	for _, tt := range []struct{ name, server, cert, key, code string }{
		{"good", "https://assay.example.com", cert, key, ""},
		{"plaintext", "http://127.0.0.1:8780", cert, key, CodeCertificateInvalid},
		{"no key", "https://assay.example.com", cert, "", CodeCertificateInvalid},
		{"no certificate", "https://assay.example.com", "", key, CodeCertificateInvalid},
		{"another's key", "https://assay.example.com", cert, other, CodeCertificateInvalid},
		{"key for certificate", "https://assay.example.com", key, key, CodeCertificateInvalid},
		{"absent", "https://assay.example.com", filepath.Join(dir, "absent"), key, CodeCertificateInvalid},
	} {
		c, err := Dial(t.Context(), Config{Server: tt.server, Credential: ClientCertificate(tt.cert, tt.key)})
		t.Run(tt.name, func(t *testing.T) { wantCode(t, err, tt.code) })
		if err == nil {
			c.Close()
		}
	}
}
