package tsatest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// authority is a key with its certificates. The same key has several leaves, so that
// a fault of the certificate is a fault of nothing else.
type authority struct {
	key          crypto.Signer
	root         *x509.Certificate
	intermediate *x509.Certificate
	leaves       map[Fault]*x509.Certificate // None: the good one
}

func newAuthority(name string, key crypto.Signer, now time.Time) (*authority, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	midKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &authority{key: key, leaves: make(map[Fault]*x509.Certificate)}
	start, end := now.Add(-24*time.Hour), now.AddDate(10, 0, 0)
	ca := func(cn string) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{Organization: []string{name}, CommonName: cn}, NotBefore: start, NotAfter: end,
			KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		}
	}
	if a.root, err = issue(ca("Root"), nil, &rootKey.PublicKey, rootKey); err != nil {
		return nil, err
	}
	if a.intermediate, err = issue(ca("Intermediate"), a.root, &midKey.PublicKey, rootKey); err != nil {
		return nil, err
	}
	for _, kind := range []Fault{None, NoEKU, NonCriticalEKU, CodeSigningEKU, ExpiredChain} {
		leaf := &x509.Certificate{
			Subject:   pkix.Name{Organization: []string{name}, CommonName: "Timestamps"},
			NotBefore: start, NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtraExtensions: extendedKeyUsage(kind),
		}
		if kind == ExpiredChain {
			leaf.NotAfter = now.Add(-time.Hour)
		}
		if a.leaves[kind], err = issue(leaf, a.intermediate, key.Public(), midKey); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// extendedKeyUsage is written as a raw extension because ExtKeyUsage would never be critical.
func extendedKeyUsage(kind Fault) []pkix.Extension {
	usages := []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}} // timeStamping
	switch kind {
	case NoEKU:
		return nil
	case CodeSigningEKU:
		usages = append(usages, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3})
	}
	value, err := asn1.Marshal(usages)
	if err != nil {
		panic(err) // constants
	}
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: kind != NonCriticalEKU, Value: value}}
}

func issue(template, parent *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, signer)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// leaf is the certificate that is used under a fault.
func (a *authority) leaf(f Fault) *x509.Certificate {
	if c, ok := a.leaves[f]; ok {
		return c
	}
	return a.leaves[None]
}

func (a *authority) sign(attrs []byte) ([]byte, error) {
	h := crypto.SHA256.New()
	h.Write(attrs)
	return a.key.Sign(rand.Reader, h.Sum(nil), crypto.SHA256)
}

// signatureAlgorithm is the DER AlgorithmIdentifier of a key.
func signatureAlgorithm(pub crypto.PublicKey) []byte {
	id := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}} // ecdsa-with-SHA256
	if _, ok := pub.(*rsa.PublicKey); ok {
		id = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}
	}
	der, err := asn1.Marshal(id)
	if err != nil {
		panic(err) // constants
	}
	return der
}

// PEM encodes a certificate.
func PEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
