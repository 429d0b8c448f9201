package client

import (
	"context"
	"crypto/tls"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// CodeCertificateInvalid: the client certificate or its key cannot be used.
const CodeCertificateInvalid = "CLIENT_CERTIFICATE_INVALID"

// The variables that name a client certificate and its key, PEM files both.
const (
	envClientCert = "ASSAY_CLIENT_CERT"
	envClientKey  = "ASSAY_CLIENT_KEY"
)

// ClientCertificate returns the credential source of a workload that has an X.509
// certificate, with a SPIFFE URI or a DNS name in it: the certificate and key of
// the TLS connection to the server, from PEM files. They are read anew for each
// connection, so a short-lived certificate may be renewed in place.
//
// The connection is the proof: nothing secret is sent, and there is nothing that
// could be shown to another server. It must be https, all the way to the server.
func ClientCertificate(certFile, keyFile string) CredentialSource {
	return &clientCertificate{certFile, keyFile}
}

// certified is a source whose credential is the TLS connection itself. Dial
// consults it.
type certified interface {
	certificate() (*tls.Certificate, error)
}

type clientCertificate struct{ certFile, keyFile string }

func (c *clientCertificate) Credential(context.Context, string) (*assayv1.ExchangeRequest, error) {
	return &assayv1.ExchangeRequest{
		Credential: &assayv1.ExchangeRequest_ClientCertificate{ClientCertificate: &assayv1.ClientCertificate{}},
	}, nil
}

func (c *clientCertificate) certificate() (*tls.Certificate, error) {
	if c.certFile == "" || c.keyFile == "" {
		return nil, badInput(CodeCertificateInvalid, "a client certificate needs both a certificate file and a key file (%s, %s)", envClientCert, envClientKey)
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, badInput(CodeCertificateInvalid, "client certificate: %w", err)
	}
	return &pair, nil
}
