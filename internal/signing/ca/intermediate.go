package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"sync/atomic"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// intermediate is a certified key that issues leaves. A nil one can issue nothing.
type intermediate struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate

	keyHash      [sha256.Size]byte // of the SubjectPublicKeyInfo, for log entries
	authorityKey []byte            // the authority key identifier extension of its leaves

	used atomic.Bool // it has issued a leaf
}

// covers reports whether a leaf issued now lies within the validity of i.
func (i *intermediate) covers(now time.Time, cfg *Config) bool {
	if i == nil {
		return false
	}
	start := now.Truncate(time.Second)
	return !start.Before(i.cert.NotBefore) && !start.Add(cfg.LeafLifetime).After(i.cert.NotAfter)
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// due reports whether it is time to make the successor of i.
func (i *intermediate) due(now time.Time, cfg *Config) bool {
	return !i.covers(now, cfg) || now.Sub(i.cert.NotBefore) >= cfg.Lifetime/4*3
}

// certify makes a key and has the CA certify it. The certificate outlasts the time
// in which it should be replaced by as much again, for the case that the CA's key
// cannot be reached then, and by one leaf, whose validity must lie within its own.
func certify(ctx context.Context, cfg *Config, now time.Time) (*intermediate, error) {
	start := now.UTC().Truncate(time.Second)
	end := start.Add(2*cfg.Lifetime + cfg.LeafLifetime)
	if end.After(cfg.Root.NotAfter) {
		end = cfg.Root.NotAfter
	}
	if start.Before(cfg.Root.NotBefore) || start.Add(cfg.LeafLifetime).After(end) {
		return nil, refusal.New(CodeNoIntermediate, "the clock says %s, the root certificate is valid from %s to %s and a leaf for %s",
			stamp(now), stamp(cfg.Root.NotBefore), stamp(cfg.Root.NotAfter), cfg.LeafLifetime)
	}
	alg, err := algorithmOf(cfg.Signer.Public())
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate intermediate key: %w", err)
	}
	serial := newSerial()
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial[:]),
		// The serial number is in the subject too: intermediates that differ in nothing
		// but their keys would send verifiers down wrong paths.
		Subject: pkix.Name{
			Organization: []string{cfg.Organization},
			CommonName:   commonName("Assay intermediate ", cfg.Host),
			SerialNumber: hex.EncodeToString(serial[:]),
		},
		NotBefore:             later(start.Add(-cfg.Backdate), cfg.Root.NotBefore),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SignatureAlgorithm:    alg,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, cfg.Root, &key.PublicKey, contextSigner{ctx, cfg.Signer})
	if err != nil {
		return nil, err // as the CA's signer put it
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certify intermediate: %w", err)
	}
	authorityKey, err := authorityKeyExtension(cert.SubjectKeyId)
	if err != nil {
		return nil, err
	}
	return &intermediate{
		key: key, cert: cert,
		keyHash: sha256.Sum256(cert.RawSubjectPublicKeyInfo), authorityKey: authorityKey,
	}, nil
}
