package verify

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"testing"

	"filippo.io/mldsa"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

// FuzzSCTs: an authority certifies whatever list of SCTs the fuzzer makes. Only the log's
// own is taken, and sigstore-go takes it too.
func FuzzSCTs(f *testing.F) {
	c := newCALab(f)
	v := c.certVerifier()
	a := v.root.authorities[issuerKey(c.inter.RawSubject, c.inter.SubjectKeyId)][0]
	if err := a.prepare(); err != nil {
		f.Fatal(err)
	}
	pre := c.issue()
	listed := func(scts ...[]byte) []byte {
		x := &x509.Certificate{}
		sctList(f, scts...)(x)
		return x.ExtraExtensions[0].Value
	}
	s := c.sct(pre.RawTBSCertificate, c.inter, c.log, c.at)
	good := listed(s)
	f.Add(good)
	f.Add(listed())
	f.Add(listed(s, s))
	f.Add(listed(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, value []byte) {
		leaf := c.in(t).issue(func(x *x509.Certificate) {
			x.ExtraExtensions = append(slices.Clone(x.ExtraExtensions), pkix.Extension{Id: oidSCTList, Value: value})
		})
		err := v.root.checkSCTs(leaf, a.issuer)
		switch {
		case err != nil && refusal.CodeOf(err) != CodeSCTInvalid:
			t.Fatalf("refused without its code: %v", err)
		case err == nil && !bytes.Equal(value, good):
			t.Fatalf("accepted %x", value)
		case err == nil:
			if err := sgverify.VerifySignedCertificateTimestamp([][]*x509.Certificate{{leaf, c.inter}}, 1, v.root.sigstore); err != nil {
				t.Fatalf("sigstore-go says %v", err)
			}
		}
	})
}

// FuzzPrecertTBS: where both cut and re-encoding give a result, it is the same; where the
// library has none, neither has the cut.
func FuzzPrecertTBS(f *testing.F) {
	c := newCALab(f)
	f.Add(c.certify().Raw)
	f.Add(c.issue().Raw)
	f.Add(c.inter.Raw)
	f.Add(c.certify(func(x *x509.Certificate) { x.NotAfter = x.NotAfter.AddDate(60, 0, 0) }).Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		got, ok := precertTBS(cert)
		if _, found := parseSCTs(cert); !ok || !found {
			return
		}
		want, err := ctx509.RemoveSCTList(cert.RawTBSCertificate)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("cut to %x, the library %x, %v", got, want, err)
		}
	})
}

// FuzzOwnLeaf: whatever stands in the certificate's place, in a bundle that is otherwise
// well made around it, is refused with a code unless it is the one that was certified.
func FuzzOwnLeaf(f *testing.F) {
	c := newCALab(f)
	v := c.certVerifier()
	good := c.certify()
	payload := statement(f, "artifact")
	sig := c.leafKey.sign(f, attest.PAE(attest.PayloadTypeInToto, payload))
	f.Add(good.Raw)
	f.Add(c.issue().Raw)
	f.Add(c.inter.Raw)
	f.Add(newCALab(f).certify().Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		if len(der) == 0 || len(der) > attest.MaxCertificateBytes/2 {
			return
		}
		c := c.in(t)
		ev, err := v.VerifyOwn(c.marshal(c.sealRaw(tlog.RekorV1, payload, sig, c.leafKey.Public(), der)))
		if err == nil && !bytes.Equal(der, good.Raw) || err != nil && (ev.Valid() || refusal.CodeOf(err) == "") {
			t.Fatalf("%v for %x", err, der)
		}
	})
}

// BenchmarkVerifyOwnCertificate measures the lean path for certificate bundles: five ECDSA
// verifications for rekor-v1, four for rekor-v2, with the checkpoint known. "first" is the
// first leaf of an intermediate, whose own signature is verified too.
func BenchmarkVerifyOwnCertificate(b *testing.B) {
	for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		c := newCALab(b)
		crowd := []*x509.Certificate{c.inter}
		for i := range 23 {
			crowd = append(crowd, c.intermediate(fmt.Sprint("no ", i), newTestKey(b)))
		}
		trust := c.trust(crowd...)
		v := c.verifier(trust)
		bundle := c.marshal(c.sealCertified(format, statement(b, "artifact"), c.leafKey, c.certify()))
		run := func(name string, one func() error) {
			b.Run(string(format)+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := one(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("warm", func() error { _, err := v.VerifyOwn(bundle); return err })
		run("first", func() error {
			for key, as := range v.root.authorities {
				v.root.authorities[key] = []*authority{{cert: as[0].cert, root: as[0].root, trustStart: as[0].trustStart, trustEnd: as[0].trustEnd}}
			}
			_, err := v.VerifyOwn(bundle)
			return err
		})
		run("no checkpoint", func() error { _, err := New(v.root).VerifyOwn(bundle); return err })
		run("foreign", func() error {
			_, err := v.Verify(bundle, Expectation{AnyArtifact: true, Identity: &Identity{SAN: labSAN, Issuer: labIssuer}})
			return err
		})
	}
	b.Run("co-signature", func(b *testing.B) {
		l := newLab(b)
		k := newMLDSAKey(b, mldsa.MLDSA65())
		r, err := NewRoot(l.root(), PublicKey{PEM: l.att.pem()}, PublicKey{PEM: k.pem})
		if err != nil {
			b.Fatal(err)
		}
		payload := statement(b, "artifact")
		d := k.detached(b, attest.PAE(attest.PayloadTypeInToto, payload), nil)
		for b.Loop() {
			if err := r.checkCoSignatures([]Detached{d}, attest.PAE(attest.PayloadTypeInToto, payload), &Evidence{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkManyIntermediates measures a root that lists an intermediate for each hour of
// 90 days: reading it, and verifying under it.
func BenchmarkManyIntermediates(b *testing.B) {
	c := newCALab(b)
	key := newTestKey(b)
	json := c.root(c.trust(), func(r *prototrustroot.TrustedRoot) {
		r.CertificateAuthorities = nil
		for day := range 90 {
			var crowd []*x509.Certificate
			for hour := range 24 {
				crowd = append(crowd, c.intermediate(fmt.Sprint(day, " ", hour), key))
			}
			r.CertificateAuthorities = append(r.CertificateAuthorities, c.entry509(crowd...))
		}
		r.CertificateAuthorities = append(r.CertificateAuthorities, c.entry509(c.inter))
	})
	b.Logf("%d bytes", len(json))
	root, err := NewRoot(json)
	if err != nil {
		b.Fatal(err)
	}
	v := New(root)
	bundle := c.marshal(c.sealCertified(tlog.RekorV2, statement(b, "artifact"), c.leafKey, c.certify()))
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := NewRoot(json); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("own", func(b *testing.B) {
		for b.Loop() {
			if _, err := v.VerifyOwn(bundle); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("foreign", func(b *testing.B) {
		for b.Loop() {
			if _, err := v.Verify(bundle, Expectation{AnyArtifact: true, Identity: &Identity{SAN: labSAN, Issuer: labIssuer}}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
