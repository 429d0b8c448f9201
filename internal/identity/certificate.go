package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeClientCertificateMissing: the connection came without a certificate, or
	// its handshake is not complete.
	CodeClientCertificateMissing refusal.Code = "CLIENT_CERTIFICATE_MISSING"
	// CodeClientCertificateInvalid: no configured authority vouches for the
	// certificate, now and for a client.
	CodeClientCertificateInvalid refusal.Code = "CLIENT_CERTIFICATE_INVALID"
	// CodeClientCertificateIdentity: the certificate names no single workload.
	CodeClientCertificateIdentity refusal.Code = "CLIENT_CERTIFICATE_IDENTITY_INVALID"
)

const (
	maxChainCertificates = 8
	maxRoots             = 64
	maxSPIFFEBytes       = 2048 // SPIFFE-ID 2.3
	// certificateReplay is how long the replay key of a certificate is kept. It is
	// random, since a certificate is no token: the handshake was the proof.
	certificateReplay = time.Minute
)

// CertificateAuthority is an authority whose client certificates are believed, and
// the workloads it may name.
type CertificateAuthority struct {
	// Name is this deployment's name for it: lower-case letters, digits and
	// hyphens. The caller's issuer is "x509:" and this name.
	Name string
	// RootsPEM holds its root certificates, and nothing else. A root belongs to one
	// authority only.
	RootsPEM []byte
	// TrustDomain is the SPIFFE trust domain the authority may name workloads of,
	// "example.org". Required if there are AllowedURIs.
	TrustDomain string
	// AllowedURIs are the SPIFFE IDs, and AllowedDNS the host names, that may call:
	// whole, never patterns. One of the lists is required.
	AllowedURIs []string
	AllowedDNS  []string
}

// Certificates believes client certificates. It is safe for concurrent use.
//
// There is no asking whether a certificate was revoked; keep their lives short.
type Certificates struct {
	authorities []authority
}

type authority struct {
	name  string
	roots *x509.CertPool
	uris  []string
	dns   []string
}

// The forms of names: of an authority, of a SPIFFE ID (SPIFFE-ID 2.1 and 2.2) and
// of a host.
var (
	reAuthority = lazy(`^[a-z0-9][a-z0-9-]{0,62}$`)
	reTrust     = lazy(`^[a-z0-9._-]{1,255}$`)
	reSPIFFE    = lazy(`^spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)$`)
	reDNSName   = lazy(`^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)
)

// NewCertificates checks the configuration.
func NewCertificates(cas []CertificateAuthority) (*Certificates, error) {
	cs := new(Certificates)
	names, roots := make(map[string]bool), make(map[[sha256.Size]byte]bool)
	for i, ca := range cas {
		a, err := ca.compile(roots)
		if err == nil && names[ca.Name] {
			err = fmt.Errorf("authority %q is there twice", ca.Name)
		}
		if err != nil {
			return nil, refusal.New(CodeIdentityConfigInvalid, "%w", err).InField(fmt.Sprintf("certificates[%d]", i))
		}
		names[ca.Name] = true
		cs.authorities = append(cs.authorities, *a)
	}
	return cs, nil
}

// compile checks ca. seen holds the roots of all authorities: one root under two
// names would let either vouch for the other's workloads.
func (ca *CertificateAuthority) compile(seen map[[sha256.Size]byte]bool) (*authority, error) {
	if !reAuthority().MatchString(ca.Name) {
		return nil, fmt.Errorf("name %q is not of lower-case letters, digits and hyphens", ca.Name)
	}
	if len(ca.AllowedURIs) == 0 && len(ca.AllowedDNS) == 0 {
		return nil, errors.New("allowed_uris and allowed_dns are empty: nobody could call")
	}
	if ca.TrustDomain != "" && !reTrust().MatchString(ca.TrustDomain) {
		return nil, fmt.Errorf("trust_domain %q is not a SPIFFE trust domain", ca.TrustDomain)
	}
	for _, uri := range ca.AllowedURIs {
		domain, ok := spiffeDomain(uri)
		if !ok {
			return nil, fmt.Errorf("allowed_uris: %q is not a SPIFFE ID", uri)
		}
		// SPIFFE X509-SVID 5.2: a bundle vouches for its own trust domain only.
		if domain != ca.TrustDomain {
			return nil, fmt.Errorf("allowed_uris: %q is not of trust_domain %q", uri, ca.TrustDomain)
		}
	}
	for _, name := range ca.AllowedDNS {
		if !isDNSName(name) {
			return nil, fmt.Errorf("allowed_dns: %q is not a host name in lower case", name)
		}
	}
	certs, err := parseRoots(ca.RootsPEM)
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	a := &authority{name: ca.Name, roots: x509.NewCertPool(), uris: slices.Clone(ca.AllowedURIs), dns: slices.Clone(ca.AllowedDNS)}
	for _, cert := range certs {
		// The key decides and not the certificate: it may be in several.
		id := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
		if seen[id] {
			return nil, fmt.Errorf("roots: the key of %q is there twice", cert.Subject)
		}
		seen[id] = true
		a.roots.AddCert(cert)
	}
	return a, nil
}

// parseRoots reads certificates of authorities, and refuses whatever else is in
// the file: a key, for one.
func parseRoots(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	rest := bytes.TrimSpace(data)
	for len(rest) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("something else than PEM certificates is in it")
		}
		rest = bytes.TrimSpace(rest)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if !cert.BasicConstraintsValid || !cert.IsCA {
			return nil, fmt.Errorf("%q is not of an authority", cert.Subject)
		}
		if out = append(out, cert); len(out) > maxRoots {
			return nil, fmt.Errorf("more than %d certificates", maxRoots)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate")
	}
	return out, nil
}

// Verify believes the certificate of a TLS connection, or refuses it. The chain is
// verified here whatever the TLS configuration did, and again for each exchange: a
// connection may outlive its certificate, and so may a resumed session.
func (cs *Certificates) Verify(state *tls.ConnectionState, now time.Time) (*Verified, error) {
	if state == nil || !state.HandshakeComplete || len(state.PeerCertificates) == 0 {
		return nil, refusal.New(CodeClientCertificateMissing, "the connection has no client certificate")
	}
	if n := len(state.PeerCertificates); n > maxChainCertificates {
		return nil, refusal.New(CodeClientCertificateInvalid, "%d certificates; the limit is %d", n, maxChainCertificates)
	}
	leaf := state.PeerCertificates[0]
	if err := checkLeaf(leaf); err != nil {
		return nil, err
	}
	subject, spiffe, err := workloadName(leaf)
	if err != nil {
		return nil, err
	}
	var vouched bool
	for i := range cs.authorities {
		a := &cs.authorities[i]
		ends, ok := a.verify(state.PeerCertificates, now)
		if !ok {
			continue
		}
		vouched = true
		allowed := a.dns
		if spiffe {
			allowed = a.uris
		}
		if slices.Contains(allowed, subject) {
			return a.verified(subject, ends, now), nil
		}
	}
	if vouched {
		return nil, refusal.New(CodeCallerNotAllowed, "workload %.200q is not allowed", subject)
	}
	return nil, refusal.New(CodeClientCertificateInvalid, "no configured authority vouches for the certificate now, for a client")
}

// verify reports whether a vouches for the chain's first certificate, and until
// when: no certificate on the way may have ended.
func (a *authority) verify(chain []*x509.Certificate, now time.Time) (ends time.Time, ok bool) {
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         a.roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil || len(chains) == 0 {
		return time.Time{}, false
	}
	for _, chain := range chains {
		first := chain[0].NotAfter
		for _, cert := range chain[1:] {
			if cert.NotAfter.Before(first) {
				first = cert.NotAfter
			}
		}
		if first.After(ends) {
			ends = first
		}
	}
	return ends, true
}

func (a *authority) verified(subject string, ends, now time.Time) *Verified {
	var id [16]byte
	rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	issuer := "x509:" + a.name
	return &Verified{
		Caller: &Caller{
			Kind:        KindWorkload,
			Issuer:      issuer,
			DisplayName: subject,
			Workload:    &Workload{Platform: PlatformX509, Subject: subject},
		},
		ReplayKey: issuer + "\x00" + hex.EncodeToString(id[:]),
		ExpiresAt: now.Add(certificateReplay),
		NotAfter:  ends,
	}
}

// checkLeaf wants a certificate of a client, said in so many words: one without
// extended key usages would be good for everything.
func checkLeaf(leaf *x509.Certificate) error {
	switch {
	case leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0: // SPIFFE X509-SVID 4.1, 4.3
		return refusal.New(CodeClientCertificateInvalid, "the certificate is of an authority, not of a workload")
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return refusal.New(CodeClientCertificateInvalid, "the certificate is not for signatures")
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return refusal.New(CodeClientCertificateInvalid, "the certificate is not for clients: extended key usage clientAuth is missing")
	}
	return nil
}

// workloadName is the one SPIFFE ID of the certificate or, where it has no URI,
// its one DNS name. The subject's common name is not read.
func workloadName(leaf *x509.Certificate) (name string, spiffe bool, err error) {
	switch {
	case len(leaf.URIs) == 1: // SPIFFE X509-SVID 2: exactly one URI
		uri := leaf.URIs[0].String()
		if _, ok := spiffeDomain(uri); !ok {
			return "", false, refusal.New(CodeClientCertificateIdentity, "URI %.200q is not a SPIFFE ID", uri)
		}
		return uri, true, nil
	case len(leaf.URIs) > 1:
		return "", false, refusal.New(CodeClientCertificateIdentity, "%d URIs; exactly one is accepted", len(leaf.URIs))
	case len(leaf.DNSNames) != 1:
		return "", false, refusal.New(CodeClientCertificateIdentity, "no URI and %d DNS names; exactly one name is accepted", len(leaf.DNSNames))
	case !isDNSName(leaf.DNSNames[0]):
		return "", false, refusal.New(CodeClientCertificateIdentity, "DNS name %.200q is not one host in lower case", leaf.DNSNames[0])
	}
	return leaf.DNSNames[0], false, nil
}

// spiffeDomain returns the trust domain of a SPIFFE ID in its one spelling.
func spiffeDomain(uri string) (domain string, ok bool) {
	m := reSPIFFE().FindStringSubmatch(uri)
	if m == nil || len(uri) > maxSPIFFEBytes || hasDotSegment(strings.TrimPrefix(m[2], "/")) {
		return "", false
	}
	return m[1], true
}

func isDNSName(s string) bool { return len(s) <= 253 && reDNSName().MatchString(s) }
