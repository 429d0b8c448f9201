package verify

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"time"

	sgroot "github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeNoVerificationMaterial refuses a bundle with neither certificate nor key: a
	// timestamp or a log entry alone says nothing about who signed.
	CodeNoVerificationMaterial refusal.Code = "NO_VERIFICATION_MATERIAL"
	// CodeMaterialAmbiguous refuses a bundle that names its signer in two ways.
	CodeMaterialAmbiguous refusal.Code = "VERIFICATION_MATERIAL_AMBIGUOUS"
	// CodeChainEmpty refuses a certificate chain without a certificate.
	CodeChainEmpty refusal.Code = "CERTIFICATE_CHAIN_EMPTY"
	// CodeChainNotAllowed refuses a chain where bundle 0.3 wants the leaf alone.
	CodeChainNotAllowed refusal.Code = "CERTIFICATE_CHAIN_NOT_ALLOWED"
	// CodeChainHasRoot refuses a chain that brings its own root.
	CodeChainHasRoot refusal.Code = "CERTIFICATE_CHAIN_HAS_ROOT"
	// CodeCertificateMalformed refuses a certificate that is not one.
	CodeCertificateMalformed refusal.Code = "CERTIFICATE_MALFORMED"
	// CodeCertificateUnexpected refuses a certificate where a key had to sign.
	CodeCertificateUnexpected refusal.Code = "CERTIFICATE_UNEXPECTED"
	// CodeKeyUnknown refuses a bundle of a key that nobody vouched for.
	CodeKeyUnknown refusal.Code = "KEY_UNKNOWN"
	// CodeKeyMismatch refuses a bundle that names another key than the one expected.
	CodeKeyMismatch refusal.Code = "KEY_MISMATCH"
	// CodeKeyUnsupported refuses a key too large or of a kind we cannot use.
	CodeKeyUnsupported refusal.Code = "KEY_UNSUPPORTED"
)

// signer is who the bundle says signed it: a certificate that is not verified yet,
// or a key that is trusted by name. It is sigstore-go's VerificationContent too.
type signer struct {
	cert *x509.Certificate
	key  *trustedKey
	hint string
}

// findSigner reads the verification material and holds it against what was expected.
func (v *Verifier) findSigner(f *foreign, x *expected) (*signer, error) {
	m := &f.material
	switch {
	case m.isChain && len(m.certs) == 0:
		return nil, refusal.New(CodeChainEmpty, "no certificate").InField("verificationMaterial.x509CertificateChain")
	case m.hint == nil && len(m.certs) == 0:
		return nil, refusal.New(CodeNoVerificationMaterial, "neither certificate nor public key").InField("verificationMaterial")
	case m.hint != nil && len(m.certs) > 0:
		return nil, refusal.New(CodeMaterialAmbiguous, "certificate and public key").InField("verificationMaterial")
	case m.hint != nil:
		return v.findKey(*m.hint, x)
	}
	leaf, err := readChain(f)
	if err != nil {
		return nil, err
	}
	if x.Identity == nil {
		return nil, refusal.New(CodeCertificateUnexpected, "signed with a certificate, but a key is expected")
	}
	return &signer{cert: leaf}, nil
}

// findKey chooses the key. The hint only chooses; it proves nothing.
func (v *Verifier) findKey(hint string, x *expected) (*signer, error) {
	switch {
	case x.RootKey:
		if k := v.root.keys[hint]; k != nil {
			return &signer{key: k, hint: hint}, nil
		}
		return nil, refusal.New(CodeKeyUnknown, "no trusted key %.80q", hint).InField("verificationMaterial.publicKey.hint")
	case x.Key == nil:
		return nil, refusal.New(CodeKeyUnknown, "signed with key %.80q, but no key is trusted", hint).InField("verificationMaterial.publicKey.hint")
	}
	// A hint that is a fingerprint must be the expected key's, which is compared
	// before the key is read: a mistyped key is the wrong key first of all.
	id, _, err := x.Key.fingerprint()
	if err != nil {
		return nil, err
	}
	if named, ok := hintFingerprint(hint); ok && named != id {
		return nil, refusal.New(CodeKeyMismatch, "signed with key %s, expected %s", named, id).InField("verificationMaterial.publicKey.hint")
	}
	k, err := x.Key.parse()
	if err != nil {
		return nil, err
	}
	return &signer{key: k, hint: hint}, nil
}

// hintFingerprint recognises the two common spellings of a key's SHA-256.
func hintFingerprint(hint string) (string, bool) {
	if b, err := hex.DecodeString(hint); err == nil && len(b) == 32 {
		return hex.EncodeToString(b), true
	}
	if b, err := base64.StdEncoding.Strict().DecodeString(hint); err == nil && len(b) == 32 {
		return hex.EncodeToString(b), true
	}
	return "", false
}

// readChain returns the leaf. Whatever else the bundle brings is looked at and then
// left aside: trust is built from the root's own certificates only.
func readChain(f *foreign) (*x509.Certificate, error) {
	const field = "verificationMaterial.x509CertificateChain"
	if f.material.isChain && f.version >= 3 {
		return nil, refusal.New(CodeChainNotAllowed, "bundle 0.3 holds the leaf certificate alone").InField(field)
	}
	certs := make([]*x509.Certificate, len(f.material.certs))
	for i, der := range f.material.certs {
		if len(der) > maxCertBytes {
			return nil, refusal.New(CodeCertificateMalformed, "certificate %d has %d bytes, limit %d", i, len(der), maxCertBytes)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, refusal.New(CodeCertificateMalformed, "certificate %d: %w", i, err)
		}
		if err := checkKeySize(c.PublicKey); err != nil {
			return nil, err
		}
		certs[i] = c
	}
	// SPEC: signers MUST NOT include root certificates; verifiers should bear with old
	// bundles that do. One generation did: npm's first provenance, bundle 0.1 over
	// envelopes, leaf to root. Those are let through, the root in them unused.
	legacy := f.version == 1 && f.envelope != nil
	for i, c := range certs[1:] {
		if !legacy && bytes.Equal(c.RawIssuer, c.RawSubject) {
			return nil, refusal.New(CodeChainHasRoot, "certificate %d is its own issuer", i+1).InField(field)
		}
	}
	return certs[0], nil
}

// checkKeySize bounds what a hostile certificate can make us compute.
func checkKeySize(pub crypto.PublicKey) error {
	if k, ok := pub.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSAKeyBits {
		return refusal.New(CodeKeyUnsupported, "RSA key of %d bits, limit %d", k.N.BitLen(), maxRSAKeyBits)
	}
	return nil
}

// publicKey is the key that must have made the signature.
func (s *signer) publicKey() crypto.PublicKey {
	if s.cert != nil {
		return s.cert.PublicKey
	}
	return s.key.key
}

// The methods below make signer a sigstore-go VerificationContent, so that its
// exported checks can be called one by one.

// Certificate returns the leaf, nil for a key.
func (s *signer) Certificate() *x509.Certificate { return s.cert }

// Intermediates returns none: the bundle's own are never used.
func (s *signer) Intermediates() []*x509.Certificate { return nil }

// PublicKey returns the hint, nil for a certificate.
func (s *signer) PublicKey() sgverify.PublicKeyProvider {
	if s.cert != nil {
		return nil
	}
	return keyHint(s.hint)
}

// CompareKey is not used: log entries are compared byte for byte in entry.go.
func (s *signer) CompareKey(any, sgroot.TrustedMaterial) bool { return false }

// ValidAtTime says whether the signer could sign at t.
func (s *signer) ValidAtTime(t time.Time, _ sgroot.TrustedMaterial) bool {
	if s.cert != nil {
		return !t.Before(s.cert.NotBefore) && !t.After(s.cert.NotAfter)
	}
	return s.key.checkTime(t) == nil
}

type keyHint string

// Hint completes sigstore-go's PublicKeyProvider.
func (h keyHint) Hint() string { return string(h) }
