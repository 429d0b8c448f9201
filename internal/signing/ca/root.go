package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeCertificateInvalid refuses a certificate or key that cannot play its part in the chain.
	CodeCertificateInvalid refusal.Code = "CA_CERTIFICATE_INVALID"
	// CodeOrganizationInvalid refuses an organization or host that certificates cannot bear.
	CodeOrganizationInvalid refusal.Code = "CA_ORGANIZATION_INVALID"
)

const (
	maxOrganization = 64 // RFC 5280 appendix A: ub-organization-name
	maxCommonName   = 64 // RFC 5280 appendix A: ub-common-name
	maxHost         = 253
	maxRootYears    = 30
)

// NewRoot has s sign a certificate for itself, DER: the root of an Authority, valid
// from notBefore for the given number of years. Verifiers take it from the trusted
// root.
func NewRoot(ctx context.Context, s Signer, organization, host string, notBefore time.Time, years int) ([]byte, error) {
	if err := checkNames(organization, host); err != nil {
		return nil, err
	}
	if years < 1 || years > maxRootYears {
		return nil, refusal.New(CodeLifetimeInvalid, "a root certificate for %d years: it must be 1 to %d", years, maxRootYears)
	}
	alg, err := algorithmOf(s.Public())
	if err != nil {
		return nil, err
	}
	start := notBefore.UTC().Truncate(time.Second)
	serial := newSerial()
	template := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial[:]),
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: commonName("Assay CA of ", host)},
		NotBefore:             start,
		NotAfter:              start.AddDate(years, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1,
		SignatureAlgorithm:    alg,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.Public(), contextSigner{ctx, s})
	if err != nil {
		return nil, fmt.Errorf("sign root certificate: %w", err)
	}
	return der, nil
}

// CheckRoot makes sure that cert can be the root of an Authority whose key is pub:
// one that NewRoot made, or one that does as well.
func CheckRoot(cert *x509.Certificate, pub crypto.PublicKey) error {
	invalid := func(format string, args ...any) error {
		return refusal.New(CodeCertificateInvalid, "root certificate: "+format, args...)
	}
	alg, err := algorithmOf(pub)
	if err != nil {
		return err
	}
	if key, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(pub) {
		return invalid("it certifies another key than the CA's")
	}
	if cert.SignatureAlgorithm != alg {
		return invalid("it is signed with %s, a key of this kind signs with %s", cert.SignatureAlgorithm, alg)
	}
	if !bytes.Equal(cert.RawSubject, cert.RawIssuer) {
		return invalid("its issuer %q is not its subject %q", cert.Issuer, cert.Subject)
	}
	if !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return invalid("it is not a certificate authority's: CA %t, key usage %#x", cert.IsCA, cert.KeyUsage)
	}
	if cert.MaxPathLen == 0 {
		return invalid("its path length is 0, it must leave room for one intermediate")
	}
	// A usage that is named here would have to hold for everything below.
	if len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return invalid("its extended key usage excludes code signing")
	}
	if len(cert.UnhandledCriticalExtensions) > 0 {
		return invalid("its critical extension %s is unknown", cert.UnhandledCriticalExtensions[0])
	}
	if len(cert.SubjectKeyId) == 0 {
		return invalid("it has no subject key identifier")
	}
	if !cert.NotBefore.Before(cert.NotAfter) {
		return invalid("its validity ends %s, before it begins", stamp(cert.NotAfter))
	}
	if len(cert.Subject.Organization) != 1 {
		return invalid("its subject names %d organizations, it must be one", len(cert.Subject.Organization))
	}
	if err := checkOrganization(cert.Subject.Organization[0]); err != nil {
		return err
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return invalid("%w", err)
	}
	return nil
}

// algorithmOf returns the one way in which a CA's key signs certificates.
func algorithmOf(pub crypto.PublicKey) (x509.SignatureAlgorithm, error) {
	hash, err := attest.SignatureHash(pub)
	if err != nil {
		return 0, refusal.New(CodeCertificateInvalid, "the CA's key: %w", err)
	}
	_, isRSA := pub.(*rsa.PublicKey)
	switch {
	case isRSA && hash == crypto.SHA256:
		return x509.SHA256WithRSAPSS, nil
	case hash == crypto.SHA256:
		return x509.ECDSAWithSHA256, nil
	case hash == crypto.SHA384:
		return x509.ECDSAWithSHA384, nil
	}
	return 0, refusal.New(CodeCertificateInvalid, "the CA's key is a %T that signs with %s, for which there is no certificate signature", pub, hash)
}

func checkNames(organization, host string) error {
	if err := checkOrganization(organization); err != nil {
		return err
	}
	if host == "" || len(host) > maxHost || !printable(host) {
		return refusal.New(CodeOrganizationInvalid, "host %.300q must be 1 to %d printable ASCII characters", host, maxHost)
	}
	return nil
}

// checkOrganization keeps off the names of sigstore.dev and GitHub: gh applies the
// policies of those instances to whatever bears them.
func checkOrganization(o string) error {
	if o == "" || !utf8.ValidString(o) || utf8.RuneCountInString(o) > maxOrganization || strings.TrimSpace(o) != o || strings.ContainsFunc(o, notGraphic) {
		return refusal.New(CodeOrganizationInvalid, "organization %.300q must be 1 to %d printable characters without spaces around them", o, maxOrganization)
	}
	if strings.EqualFold(o, "sigstore.dev") || strings.EqualFold(o, "GitHub, Inc.") {
		return refusal.New(CodeOrganizationInvalid, "organization %q belongs to another authority, verifiers treat it specially", o)
	}
	return nil
}

func notGraphic(r rune) bool { return !unicode.IsGraphic(r) }

// printable reports whether s is ASCII without spaces and control characters.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func commonName(prefix, host string) string {
	return prefix + host[:min(len(host), maxCommonName-len(prefix))]
}

// newSerial returns the octets of a positive 128-bit number: RFC 5280 section
// 4.1.2.2 allows 20 octets at most. There are always 16, and the first is neither
// zero nor has its sign bit set, so they are the contents of a DER INTEGER.
func newSerial() (serial [16]byte) {
	rand.Read(serial[:]) // never fails: crypto/rand ends the program instead
	serial[0] = serial[0]&0x7f | 0x40
	return serial
}

// contextSigner lets crypto/x509, which knows no contexts, sign with a Signer.
// x509.CreateCertificate verifies the signature before it returns the certificate.
type contextSigner struct {
	ctx    context.Context
	signer Signer
}

func (s contextSigner) Public() crypto.PublicKey { return s.signer.Public() }

func (s contextSigner) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return s.signer.Sign(s.ctx, digest)
}
