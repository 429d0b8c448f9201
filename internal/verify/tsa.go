package verify

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"time"

	sgroot "github.com/sigstore/sigstore-go/pkg/root"

	"github.com/assay-build/assay/internal/refusal"
)

// ownTSA is what the lean path keeps of a timestamp authority: a chain that was
// verified once, and the time in which that stays true. Nothing else about a chain
// depends on time, because the root's certificates do not change under us.
type ownTSA struct {
	index      int // among the root's timestamp authorities
	uri        string
	leaf       *x509.Certificate
	key        *ecdsa.PublicKey
	leafHash   [32]byte
	serial     []byte    // contents of the leaf's serial number in DER
	notBefore  time.Time // the latest start of the chain's certificates
	notAfter   time.Time // the earliest end
	trustStart time.Time // the root's window for the authority
	trustEnd   time.Time
}

// newOwnTSA returns nil for an authority that the lean path cannot use: one whose leaf
// the root does not pin, or is not ECDSA P-256, or whose chain never verifies.
func newOwnTSA(ta sgroot.TimestampingAuthority, index int) *ownTSA {
	tsa, ok := ta.(*sgroot.SigstoreTimestampingAuthority)
	if !ok || tsa.Leaf == nil || tsa.Root == nil {
		return nil
	}
	key, ok := ecdsaP256(tsa.Leaf.PublicKey)
	if !ok || checkTSACertificate(tsa.Leaf) != nil {
		return nil
	}
	own := &ownTSA{index: index, uri: tsa.URI, leaf: tsa.Leaf, key: key, leafHash: sha256.Sum256(tsa.Leaf.Raw),
		trustStart: tsa.ValidityPeriodStart, trustEnd: tsa.ValidityPeriodEnd}
	serial, err := asn1.Marshal(tsa.Leaf.SerialNumber)
	if err != nil || len(serial) < 3 {
		return nil
	}
	own.serial = serial[2:] // a serial number is at most 20 octets: one octet of length
	own.notBefore, own.notAfter = chainWindow(tsa)
	if own.notAfter.Before(own.notBefore) || !chainVerifies(tsa, own.notBefore) {
		return nil
	}
	return own
}

// chainWindow is the time in which every certificate of the chain is valid.
func chainWindow(tsa *sgroot.SigstoreTimestampingAuthority) (notBefore, notAfter time.Time) {
	notBefore, notAfter = tsa.Leaf.NotBefore, tsa.Leaf.NotAfter
	for _, c := range append([]*x509.Certificate{tsa.Root}, tsa.Intermediates...) {
		if c.NotBefore.After(notBefore) {
			notBefore = c.NotBefore
		}
		if c.NotAfter.Before(notAfter) {
			notAfter = c.NotAfter
		}
	}
	return notBefore, notAfter
}

func chainVerifies(tsa *sgroot.SigstoreTimestampingAuthority, at time.Time) bool {
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(tsa.Root)
	for _, c := range tsa.Intermediates {
		intermediates.AddCert(c)
		if !allowsTimestamping(c) {
			return false
		}
	}
	_, err := tsa.Leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	})
	return err == nil
}

func allowsTimestamping(c *x509.Certificate) bool {
	for _, u := range c.ExtKeyUsage {
		if u == x509.ExtKeyUsageTimeStamping || u == x509.ExtKeyUsageAny {
			return true
		}
	}
	return len(c.ExtKeyUsage) == 0
}

var oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}

// checkTSACertificate: RFC 3161 section 2.3: the certificate MUST have exactly one
// extended key usage, timeStamping, and the extension MUST be critical. It signs
// timestamps, so it is no authority over certificates.
func checkTSACertificate(leaf *x509.Certificate) error {
	critical := false
	for _, e := range leaf.Extensions {
		if e.Id.Equal(oidExtKeyUsage) {
			critical = e.Critical
		}
	}
	if !critical || leaf.IsCA || len(leaf.ExtKeyUsage) != 1 || len(leaf.UnknownExtKeyUsage) != 0 ||
		leaf.ExtKeyUsage[0] != x509.ExtKeyUsageTimeStamping {
		return refusal.New(CodeTimestampEKU, "the authority's certificate is not for timestamping, critically and alone")
	}
	return nil
}
