package signing

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeTimestampChainInvalid refuses a certificate chain under which no verifier
// should accept a timestamp.
const CodeTimestampChainInvalid refusal.Code = "TIMESTAMP_CHAIN_INVALID"

// chainYears is how long a timestamp chain lasts. Verifiers judge the chain at
// the time the timestamp names, so old timestamps outlive it.
const chainYears = 10

func oidExtKeyUsage() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 37} }
func oidTimeStamping() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
}

// newChain makes the chain of a timestamp key, leaf first. The root's private key
// signs the leaf and is then forgotten: verifiers pin the leaf together with the
// root, so a kept root key could renew nothing without a new trusted root, and
// could only be stolen.
func newChain(host string, pub crypto.PublicKey, start time.Time) ([][]byte, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate timestamp root key: %w", err)
	}
	end := start.AddDate(chainYears, 0, 0)
	root := &x509.Certificate{
		SerialNumber:          randomSerial(),
		Subject:               pkix.Name{Organization: []string{"Assay"}, CommonName: "Timestamp root of " + shortName(host)},
		NotBefore:             start,
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &rootKey.PublicKey, rootKey)
	if err != nil {
		return nil, fmt.Errorf("sign timestamp root: %w", err)
	}
	if root, err = x509.ParseCertificate(rootDER); err != nil {
		return nil, fmt.Errorf("sign timestamp root: %w", err)
	}
	// RFC 3161 section 2.3: one extended key usage, timeStamping, and it MUST be
	// critical. ExtKeyUsage would write it as not critical, hence the raw extension.
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{oidTimeStamping()})
	if err != nil {
		return nil, fmt.Errorf("encode key usage: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber:          randomSerial(),
		Subject:               pkix.Name{Organization: []string{"Assay"}, CommonName: "Timestamps of " + shortName(host)},
		NotBefore:             start,
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{{Id: oidExtKeyUsage(), Critical: true, Value: usage}},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, pub, rootKey)
	if err != nil {
		return nil, fmt.Errorf("sign timestamp leaf: %w", err)
	}
	return [][]byte{leafDER, rootDER}, nil
}

// shortName keeps common names within the 64 characters of X.520.
func shortName(host string) string { return host[:min(len(host), 44)] }

// randomSerial returns a positive 128-bit number that always takes 16 octets.
func randomSerial() *big.Int {
	serial := randomSerialBytes()
	return new(big.Int).SetBytes(serial[:])
}

func randomSerialBytes() (serial [16]byte) {
	rand.Read(serial[:]) // never fails: crypto/rand ends the program instead
	serial[0] = serial[0]&0x7f | 0x40
	return serial
}

// checkChain makes sure that verifiers will accept what pub signs under chain from
// start on.
func checkChain(chain []*x509.Certificate, pub *ecdsa.PublicKey, start time.Time) error {
	if len(chain) > 0 {
		if leafKey, ok := chain[0].PublicKey.(*ecdsa.PublicKey); !ok || !leafKey.Equal(pub) {
			return refusal.New(CodeTimestampChainInvalid, "the leaf certifies another key")
		}
	}
	return checkAuthority(chain, start)
}

// checkAuthority makes sure that verifiers will accept timestamps under chain that
// tell the time at.
func checkAuthority(chain []*x509.Certificate, at time.Time) error {
	if len(chain) < 2 {
		return refusal.New(CodeTimestampChainInvalid, "the chain has %d certificates, it needs a leaf and a root", len(chain))
	}
	leaf, root := chain[0], chain[len(chain)-1]
	if leaf.IsCA {
		return refusal.New(CodeTimestampChainInvalid, "the leaf is a certificate authority")
	}
	if !solelyTimeStamping(leaf) {
		return refusal.New(CodeTimestampChainInvalid, "the leaf's extended key usage must be timeStamping alone, and critical")
	}
	if !bytes.Equal(root.RawSubject, root.RawIssuer) || !root.IsCA {
		return refusal.New(CodeTimestampChainInvalid, "the last certificate is not a root")
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, cert := range chain[1 : len(chain)-1] {
		intermediates.AddCert(cert)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	}); err != nil {
		return refusal.New(CodeTimestampChainInvalid, "%w", err)
	}
	return nil
}

func solelyTimeStamping(cert *x509.Certificate) bool {
	if len(cert.UnknownExtKeyUsage) != 0 || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageTimeStamping {
		return false
	}
	for _, ext := range cert.Extensions {
		if ext.Id.Equal(oidExtKeyUsage()) {
			return ext.Critical
		}
	}
	return false
}
