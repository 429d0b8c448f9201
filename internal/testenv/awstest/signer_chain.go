package awstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"
)

// signerChain is what Signer signs with: a key, and its certificate, the one that
// vouches for it and the root.
type signerChain struct {
	key          *ecdsa.PrivateKey
	certificates []*x509.Certificate // leaf first
}

// newSignerChain makes a chain on P-384, whose dates are wide, since the world's
// clock may be any. Chains have the same names and differ in their keys.
func newSignerChain() signerChain {
	out := signerChain{}
	var parent *x509.Certificate
	var parentKey *ecdsa.PrivateKey
	for level, name := range []string{"AWS Signer Code Signing Root CA G1", "AWS Signer Code Signing Int CA G1", "AWS Signer"} {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			panic(fmt.Sprintf("awstest: %v", err))
		}
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
		if err != nil {
			panic(fmt.Sprintf("awstest: %v", err))
		}
		template := &x509.Certificate{
			SerialNumber: serial, BasicConstraintsValid: true, SignatureAlgorithm: x509.ECDSAWithSHA384,
			Subject: pkix.Name{
				Country: []string{"US"}, Province: []string{"WA"}, Locality: []string{"Seattle"},
				Organization: []string{"AWS"}, OrganizationalUnit: []string{"AWS Cryptography"}, CommonName: name,
			},
			NotBefore: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC),
			IsCA: level < 2, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		switch level {
		case 0:
			parent, parentKey = template, key
		case 1:
			template.MaxPathLenZero = true
		case 2:
			template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
		if err != nil {
			panic(fmt.Sprintf("awstest: %v", err))
		}
		if parent, err = x509.ParseCertificate(der); err != nil {
			panic(fmt.Sprintf("awstest: %v", err))
		}
		parentKey = key
		out.certificates = append([]*x509.Certificate{parent}, out.certificates...)
	}
	out.key = parentKey
	return out
}

// chains are the honest chain and the one of nobody, made when first needed.
func (s *signerStore) chains() (honest, forged signerChain) {
	s.once.Do(func() { s.chain, s.forged = newSignerChain(), newSignerChain() })
	return s.chain, s.forged
}

// SignerChain is the chain that Signer signs with, leaf first.
func (w *World) SignerChain() []*x509.Certificate {
	honest, _ := w.data.signer.chains()
	return append([]*x509.Certificate{}, honest.certificates...)
}

// SignerRoot is the root certificate of Signer, which operators pin.
func (w *World) SignerRoot() *x509.Certificate { return w.SignerChain()[2] }

// RevokeSignerCertificate revokes a certificate of SignerChain: 0 is the leaf.
func (w *World) RevokeSignerCertificate(level int) {
	hash := chainHashes(w.SignerChain())[level]
	s := w.data.signer
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked[hash] = true
}

// chainHashes are what GetRevocationStatus calls certificates, leaf first: the
// SHA-384 of what was signed of each, and the same of its issuer. A root is its own.
func chainHashes(chain []*x509.Certificate) []string {
	tbs := func(c *x509.Certificate) string {
		sum := sha512.Sum384(c.RawTBSCertificate)
		return hex.EncodeToString(sum[:])
	}
	var out []string
	for i, c := range chain {
		out = append(out, tbs(c)+tbs(chain[min(i+1, len(chain)-1)]))
	}
	return out
}
