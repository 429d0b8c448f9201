package verify

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"
	"time"

	"github.com/sigstore/fulcio/pkg/certificate"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/tlog"
)

// Sign makes rsaKey a key of a certificate authority.
func (k rsaKey) Sign(_ context.Context, digest []byte) ([]byte, error) {
	return rsa.SignPSS(rand.Reader, k.PrivateKey, crypto.SHA256, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
}

// TestVerifyOwnAuthority: what package ca issues is what this package verifies, over
// hours in which the authority makes one intermediate after another.
func TestVerifyOwnAuthority(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]ca.Signer{
		"P-256": newTestKey(t), "P-384": newCurveKey(t, elliptic.P384()), "RSA": newRSAKey(t, 2048),
	} {
		c := newCALab(t)
		der, err := ca.NewRoot(t.Context(), key, "lab", testHost, labStart, 10)
		if err != nil {
			t.Fatal(err)
		}
		if c.caCert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		var published []*x509.Certificate
		authority, err := ca.New(ca.Config{Root: c.caCert, Signer: key, Organization: "lab", Host: testHost, Now: func() time.Time { return c.at }, Log: c.log,
			Publish: func(_ context.Context, cert *x509.Certificate) error { published = append(published, cert); return nil }})
		if err != nil {
			t.Fatal(err)
		}
		var bundles [][]byte
		for hour := range 6 {
			c.at = c.at.Add(time.Hour)
			if err := authority.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			id := ca.Identity{URI: labSAN, Issuer: labIssuer, Extensions: certificate.Extensions{RunnerEnvironment: "self-hosted", SourceRepositoryURI: "https://github.com/acme/app"}}
			if hour == 3 {
				id = ca.Identity{Email: "dev@example.test", Issuer: labIssuer}
			}
			leaf, err := authority.Issue(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
				payload := statement(t, "artifact")
				digest, err := attest.SignatureDigest(leaf.Public(), attest.PAE(attest.PayloadTypeInToto, payload))
				if err != nil {
					t.Fatal(err)
				}
				sig, err := leaf.Sign(t.Context(), digest)
				if err != nil {
					t.Fatal(err)
				}
				bundles = append(bundles, c.marshal(c.sealRaw(format, payload, sig, leaf.Public(), leaf.Raw)))
			}
		}
		if len(published) < 3 {
			t.Errorf("%s: %d intermediates", name, len(published))
		}
		v := c.verifier(c.trust(published...))
		for i, bundle := range bundles {
			if _, err := holdTogether(t, name, v, bundle); err != nil {
				t.Errorf("%s, bundle %d: %v", name, i, err)
			}
		}
		// Without its intermediate a leaf is nobody's.
		v = c.verifier(c.trust(published[0]))
		ev, err := holdTogether(t, name, v, bundles[len(bundles)-1])
		check(t, name+", intermediate not listed", ev, err, CodeCertificateUntrusted)
	}
}
