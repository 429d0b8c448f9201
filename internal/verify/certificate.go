package verify

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	sgroot "github.com/sigstore/sigstore-go/pkg/root"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeCertificateExtension refuses a certificate with a critical extension that
	// nobody here understands. RFC 5280 section 4.2: it MUST be rejected.
	CodeCertificateExtension refusal.Code = "CERTIFICATE_EXTENSION_UNKNOWN"
	// CodeCertificateIdentity refuses a certificate of ours that does not name exactly
	// one identity and the provider that vouched for it.
	CodeCertificateIdentity refusal.Code = "CERTIFICATE_IDENTITY_INVALID"
)

// authority is an intermediate that issues leaf certificates, as one entry of the trusted
// root lists it. A service has many: it makes one every hour or so and forgets its key.
//
// Its certificate is verified up to the entry's root once, when the first leaf asks for
// it. What of that depends on time is kept as a window, so that for a leaf there remain
// one signature and comparisons. What the lean path does not want to judge leaf by leaf,
// constraints on names and policies, no authority of it may have.
type authority struct {
	cert, root           *x509.Certificate
	trustStart, trustEnd time.Time // the root's window for the entry

	verify    sync.Once
	err       error
	anchor    *x509.CertPool // the intermediate alone
	issuer    [32]byte       // SHA-256 of its SubjectPublicKeyInfo
	rootKeyID string         // likewise of the root's, in hex
	notBefore time.Time      // the later start of both certificates
	notAfter  time.Time      // the earlier end
}

// newAuthorities lists the intermediates by what a leaf says of its issuer.
func newAuthorities(entries []sgroot.CertificateAuthority) map[string][]*authority {
	table := make(map[string][]*authority)
	for _, e := range entries {
		ca, ok := e.(*sgroot.FulcioCertificateAuthority)
		if !ok || ca.Root == nil {
			continue
		}
		for _, c := range ca.Intermediates {
			if len(c.SubjectKeyId) == 0 {
				continue
			}
			key := issuerKey(c.RawSubject, c.SubjectKeyId)
			table[key] = append(table[key], &authority{cert: c, root: ca.Root, trustStart: ca.ValidityPeriodStart, trustEnd: ca.ValidityPeriodEnd})
		}
	}
	return table
}

// issuerKey joins a DER name, which knows its own length, with a key identifier.
func issuerKey(name, keyID []byte) string { return string(name) + string(keyID) }

// prepare verifies the intermediate against its root, once.
func (a *authority) prepare() error {
	a.verify.Do(func() {
		a.notBefore, a.notAfter = a.cert.NotBefore, a.cert.NotAfter
		if a.root.NotBefore.After(a.notBefore) {
			a.notBefore = a.root.NotBefore
		}
		if a.root.NotAfter.Before(a.notAfter) {
			a.notAfter = a.root.NotAfter
		}
		if a.err = a.check(); a.err != nil {
			return
		}
		a.anchor = x509.NewCertPool()
		a.anchor.AddCert(a.cert)
		a.issuer = sha256.Sum256(a.cert.RawSubjectPublicKeyInfo)
		rootKey := sha256.Sum256(a.root.RawSubjectPublicKeyInfo)
		a.rootKeyID = hex.EncodeToString(rootKey[:])
	})
	return a.err
}

func (a *authority) check() error {
	untrusted := func(text string, args ...any) error { return refusal.New(CodeCertificateUntrusted, text, args...) }
	for _, c := range []*x509.Certificate{a.cert, a.root} {
		if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
			return untrusted("%s is no authority over certificates", c.Subject)
		}
		for _, e := range c.Extensions {
			if !plainAuthorityExtension(e.Id) {
				return untrusted("%s has an extension %s, which is not judged here", c.Subject, e.Id)
			}
		}
	}
	// RFC 5280 section 4.2.1.9: below the root stands one intermediate, below that none.
	// crypto/x509 has -1 where there is no limit.
	if a.root.MaxPathLen == 0 {
		return untrusted("%s allows no intermediate", a.root.Subject)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.root)
	chains, err := a.cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: a.notBefore,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}})
	if err != nil {
		return untrusted("%s is not issued by its root: %w", a.cert.Subject, err)
	}
	if len(chains) == 0 || len(chains[0]) != 2 {
		return untrusted("%s is its own root", a.cert.Subject)
	}
	return nil
}

// plainAuthorityExtension lists what an authority may say of itself so that nothing but
// its windows, its key and its usage counts.
func plainAuthorityExtension(id asn1.ObjectIdentifier) bool {
	if len(id) != 4 || id[0] != 2 || id[1] != 5 || id[2] != 29 {
		return false
	}
	switch id[3] {
	case 14, 15, 19, 35, 37: // subjectKeyIdentifier, keyUsage, basicConstraints, authorityKeyIdentifier, extKeyUsage
		return true
	}
	return false
}

// parseOwnLeaf reads the certificate of a bundle of ours.
func parseOwnLeaf(der []byte) (*x509.Certificate, error) {
	const field = "verificationMaterial.certificate.rawBytes"
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refusal.New(CodeCertificateMalformed, "%w", err).InField(field)
	}
	// sigstore-go takes every RSA key of a certificate for one of PKCS #1 v1.5.
	if _, err := attest.SignatureHash(leaf.PublicKey); err != nil || leaf.PublicKeyAlgorithm != x509.ECDSA {
		return nil, refusal.New(CodeKeyUnsupported, "the certificate's key is %s, want ECDSA P-256 or P-384", leaf.PublicKeyAlgorithm).InField(field)
	}
	return leaf, nil
}

// checkOwnCertificate is checkSigner for certificates that an authority of ours issued.
// It accepts less than sigstore-go, and nothing that sigstore-go refuses.
func (r *Root) checkOwnCertificate(leaf *x509.Certificate, ev *Evidence) error {
	candidates := r.authorities[issuerKey(leaf.RawIssuer, leaf.AuthorityKeyId)]
	if len(leaf.AuthorityKeyId) == 0 || len(candidates) == 0 {
		return refusal.New(CodeCertificateUntrusted, "issuer %s is not a trusted authority", leaf.Issuer)
	}
	if err := checkLeafUsage(leaf); err != nil {
		return err
	}
	// One intermediate may be in two entries, with a window each; one that holds suffices.
	var a *authority
	var err error
	for _, a = range candidates {
		if err = a.vouches(leaf, ev.times); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	if err := r.checkSCTs(leaf, a.issuer); err != nil {
		return err
	}
	summary, err := certificate.SummarizeCertificate(leaf)
	if err != nil || !oneName(leaf) || summary.Issuer == "" {
		return refusal.New(CodeCertificateIdentity, "the certificate does not name one identity and its provider").InField("verificationMaterial.certificate")
	}
	ev.identity, ev.issuer, ev.authorityID = summary.SubjectAlternativeName, summary.Issuer, a.rootKeyID
	return nil
}

// checkLeafUsage: a leaf of ours signs code, does nothing else and issues nothing.
func checkLeafUsage(leaf *x509.Certificate) error {
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.UnknownExtKeyUsage) != 0 ||
		!slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}) {
		return refusal.New(CodeCertificateEKU, "the certificate is not for signing code, and that alone").InField("verificationMaterial.certificate")
	}
	if len(leaf.UnhandledCriticalExtensions) != 0 {
		return refusal.New(CodeCertificateExtension, "critical extension %s", leaf.UnhandledCriticalExtensions[0]).InField("verificationMaterial.certificate")
	}
	return nil
}

// vouches says whether the authority issued the leaf and all of them were valid at
// every trusted time.
func (a *authority) vouches(leaf *x509.Certificate, times []trustedTime) error {
	if err := a.prepare(); err != nil {
		return err
	}
	for _, t := range times {
		switch {
		case !within(t.at, leaf.NotBefore, leaf.NotAfter):
			return refusal.New(CodeCertificateOutsideValidity, "signed %s by %s, the certificate is valid from %s to %s",
				stamp(t.at), t.source, stamp(leaf.NotBefore), stamp(leaf.NotAfter))
		case !within(t.at, a.notBefore, a.notAfter):
			return refusal.New(CodeCertificateOutsideAuthority, "signed %s, the chain of %s is valid from %s to %s",
				stamp(t.at), a.cert.Subject, stamp(a.notBefore), stamp(a.notAfter))
		case !within(t.at, a.trustStart, a.trustEnd):
			return refusal.New(CodeCertificateOutsideAuthority, "signed %s, the root trusts %s from %s to %s",
				stamp(t.at), a.cert.Subject, stamp(a.trustStart), stamp(a.trustEnd))
		}
	}
	if len(times) == 0 {
		return refusal.New(CodeNoTrustedTime, "no time at which the certificate was used")
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: a.anchor, Intermediates: x509.NewCertPool(), CurrentTime: times[0].at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}})
	if err != nil {
		return refusal.New(CodeCertificateUntrusted, "not issued by %s: %w", a.cert.Subject, err)
	}
	return nil
}

// oneName reports whether the subject alternative name is one name of whatever kind.
// crypto/x509 drops the kinds that it does not know.
func oneName(leaf *x509.Certificate) bool {
	for _, e := range leaf.Extensions {
		if e.Id.Equal(oidSubjectAltName) {
			var names, name cryptobyte.String
			var tag cbasn1.Tag
			value := cryptobyte.String(e.Value)
			return value.ReadASN1(&names, cbasn1.SEQUENCE) && value.Empty() && names.ReadAnyASN1(&name, &tag) && names.Empty()
		}
	}
	return false
}
