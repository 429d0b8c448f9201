package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"slices"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	sgroot "github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeCertificateUntrusted refuses a certificate that no trusted authority issued.
	CodeCertificateUntrusted refusal.Code = "CERTIFICATE_UNTRUSTED"
	// CodeCertificateOutsideValidity refuses a signature made when its certificate was not valid.
	CodeCertificateOutsideValidity refusal.Code = "CERTIFICATE_OUTSIDE_VALIDITY"
	// CodeCertificateOutsideAuthority refuses a certificate dated outside the validity of
	// the authority that issued it, or of the root's trust in that authority.
	CodeCertificateOutsideAuthority refusal.Code = "CERTIFICATE_OUTSIDE_AUTHORITY_VALIDITY"
	// CodeCertificateEKU refuses a certificate that is not for signing code.
	CodeCertificateEKU refusal.Code = "CERTIFICATE_EKU"
	// CodeSCTInvalid refuses a certificate that no trusted certificate log promised to publish.
	CodeSCTInvalid refusal.Code = "SCT_INVALID"
)

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// checkSigner holds the signer against every trusted time. SPEC (client): if both a
// log and a timestamp authority give a time, path validation MUST pass at each.
func (v *Verifier) checkSigner(s *signer, x *expected, times []trustedTime) (san, issuer string, err error) {
	if s.key != nil {
		for _, t := range times {
			if err := s.key.checkTime(t.at); err != nil {
				return "", "", err
			}
		}
		return "", "", nil
	}
	leaf := verifiable(s.cert)
	var chains [][]*x509.Certificate
	for _, t := range times {
		if chains, err = sgverify.VerifyLeafCertificate(t.at, leaf, v.root.sigstore); err != nil {
			return "", "", v.classifyChain(leaf, t)
		}
	}
	if len(v.root.sigstore.CTLogs()) > 0 {
		if err := sgverify.VerifySignedCertificateTimestamp(chains, 1, v.root.sigstore); err != nil {
			return "", "", refusal.New(CodeSCTInvalid, "%w", err)
		}
	}
	summary, err := certificate.SummarizeCertificate(s.cert)
	if err != nil {
		return "", "", refusal.New(CodeIdentityMismatch, "the certificate names nobody: %v", err)
	}
	if err := x.checkIdentity(summary.SubjectAlternativeName, summary.Issuer); err != nil {
		return "", "", err
	}
	return summary.SubjectAlternativeName, summary.Issuer, nil
}

// verifiable returns a copy of the leaf that crypto/x509 can verify. Go leaves a
// subject alternative name of kind OtherName unhandled; it is read by
// SummarizeCertificate instead, and compared with the expected identity.
func verifiable(leaf *x509.Certificate) *x509.Certificate {
	c := *leaf
	c.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(leaf.UnhandledCriticalExtensions),
		func(oid asn1.ObjectIdentifier) bool { return oid.Equal(oidSubjectAltName) })
	return &c
}

// classifyChain says why no authority vouches for the leaf at that time. It can only
// choose between refusals.
func (v *Verifier) classifyChain(leaf *x509.Certificate, t trustedTime) error {
	for _, a := range v.root.sigstore.FulcioCertificateAuthorities() {
		ca, ok := a.(*sgroot.FulcioCertificateAuthority)
		if !ok {
			continue
		}
		parents := append(slices.Clone(ca.Intermediates), ca.Root)
		i := slices.IndexFunc(parents, func(p *x509.Certificate) bool {
			return p != nil && bytes.Equal(p.RawSubject, leaf.RawIssuer) && leaf.CheckSignatureFrom(p) == nil
		})
		if i < 0 {
			continue
		}
		if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) {
			return refusal.New(CodeCertificateEKU, "the certificate is not for code signing")
		}
		if len(leaf.UnhandledCriticalExtensions) != 0 {
			return refusal.New(CodeCertificateExtension, "critical extension %s", leaf.UnhandledCriticalExtensions[0])
		}
		for _, parent := range append([]*x509.Certificate{ca.Root}, parents[i]) {
			if !within(leaf.NotBefore, parent.NotBefore, parent.NotAfter) || !within(leaf.NotBefore, ca.ValidityPeriodStart, ca.ValidityPeriodEnd) {
				return refusal.New(CodeCertificateOutsideAuthority, "issued for %s, its authority %s ends %s",
					stamp(leaf.NotBefore), parent.Subject, stamp(parent.NotAfter))
			}
		}
		if !within(t.at, leaf.NotBefore, leaf.NotAfter) {
			return refusal.New(CodeCertificateOutsideValidity, "signed %s by %s, the certificate is valid from %s to %s",
				stamp(t.at), t.source, stamp(leaf.NotBefore), stamp(leaf.NotAfter))
		}
		return refusal.New(CodeCertificateOutsideAuthority, "the chain of %s was not valid at %s", parents[i].Subject, stamp(t.at))
	}
	return refusal.New(CodeCertificateUntrusted, "issuer %s is not a trusted authority", leaf.Issuer)
}
