package verify

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"golang.org/x/crypto/cryptobyte"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/tlog"
)

// caLab is a lab whose attestations are signed with certificates: a root certifies an
// intermediate, the intermediate certifies leaves, and the log is the certificate log too.
type caLab struct {
	*lab
	inter    *x509.Certificate
	interKey testKey
	leafKey  testKey
}

func newCALab(t testing.TB) *caLab {
	t.Helper()
	c := &caLab{lab: newLab(t), interKey: newTestKey(t), leafKey: newTestKey(t)}
	c.reissue(func(*x509.Certificate) {}, func(*x509.Certificate) {})
	return c
}

// in is the lab in the hands of another test, such as one run of a fuzz target.
func (c *caLab) in(t testing.TB) *caLab {
	l := *c.lab
	l.t = t
	copied := *c
	copied.lab = &l
	return &copied
}

// reissue makes the root and the intermediate anew, with the same keys.
func (c *caLab) reissue(root, inter func(*x509.Certificate)) {
	c.t.Helper()
	template := caTemplate("Assay CA")
	template.MaxPathLen = 1
	root(template)
	c.caCert = c.certificate(template, nil, c.ca, c.ca)
	c.inter = c.intermediate("1", c.interKey, inter)
}

// intermediate is one that the root issued.
func (c *caLab) intermediate(name string, key testKey, tweaks ...func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	template := caTemplate("Assay intermediate " + name)
	template.SerialNumber = big.NewInt(100 + int64(len(name)))
	template.MaxPathLenZero = true
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	id := sha256.Sum256(key.spki())
	template.SubjectKeyId = id[:20]
	for _, tweak := range tweaks {
		tweak(template)
	}
	return c.certificate(template, c.caCert, key, c.ca)
}

// trust puts the intermediates and the certificate log into the lab's trusted root.
func (c *caLab) trust(intermediates ...*x509.Certificate) func(*prototrustroot.TrustedRoot) {
	if len(intermediates) == 0 {
		intermediates = []*x509.Certificate{c.inter}
	}
	return func(r *prototrustroot.TrustedRoot) {
		r.CertificateAuthorities = []*prototrustroot.CertificateAuthority{c.entry509(intermediates...)}
		r.Ctlogs = r.Tlogs
	}
}

func (c *caLab) entry509(intermediates ...*x509.Certificate) *prototrustroot.CertificateAuthority {
	window := &protocommon.TimeRange{Start: timestamppb.New(labStart), End: timestamppb.New(labEnd)}
	a := &prototrustroot.CertificateAuthority{Uri: "https://" + testHost, ValidFor: window, CertChain: &protocommon.X509CertificateChain{}}
	for _, cert := range append(slices.Clone(intermediates), c.caCert) {
		a.CertChain.Certificates = append(a.CertChain.Certificates, &protocommon.X509Certificate{RawBytes: cert.Raw})
	}
	return a
}

func (c *caLab) certVerifier(tweaks ...func(*prototrustroot.TrustedRoot)) *Verifier {
	c.t.Helper()
	return c.verifier(append([]func(*prototrustroot.TrustedRoot){c.trust()}, tweaks...)...)
}

func labLeaf(t testing.TB, at time.Time) *x509.Certificate {
	t.Helper()
	u, err := url.Parse(labSAN)
	if err != nil {
		t.Fatal(err)
	}
	value, err := asn1.MarshalWithParams(labIssuer, "utf8")
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{SerialNumber: big.NewInt(2), URIs: []*url.URL{u}, NotBefore: at.Add(-time.Minute), NotAfter: at.Add(9 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(labIssuer)},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: value},
		}}
}

// issue makes a leaf without SCT for the lab's leaf key.
func (c *caLab) issue(tweaks ...func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	return c.issueBy(c.inter, c.interKey, &c.leafKey.PublicKey, tweaks...)
}

func (c *caLab) issueBy(issuer *x509.Certificate, key testKey, public crypto.PublicKey, tweaks ...func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	return mustCertificate(c.t, c.template(tweaks...), issuer, public, key)
}

func (c *caLab) template(tweaks ...func(*x509.Certificate)) *x509.Certificate {
	template := labLeaf(c.t, c.at)
	for _, tweak := range tweaks {
		tweak(template)
	}
	return template
}

func mustCertificate(t testing.TB, template, issuer *x509.Certificate, public crypto.PublicKey, key testKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, key.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// certify is a whole leaf: issued, promised by the log, and issued again with the promise.
func (c *caLab) certify(tweaks ...func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	return c.certifyBy(c.inter, c.interKey, &c.leafKey.PublicKey, tweaks...)
}

func (c *caLab) certifyBy(issuer *x509.Certificate, key testKey, public crypto.PublicKey, tweaks ...func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	pre := c.issueBy(issuer, key, public, tweaks...)
	scts := sctList(c.t, c.sct(pre.RawTBSCertificate, issuer, c.log, c.at))
	return c.issueBy(issuer, key, public, append(tweaks, scts)...)
}

// sct is a log's promise of the certificate with that TBS. It is written here from the
// RFC, apart from what reads it.
func (c *caLab) sct(tbs []byte, issuer *x509.Certificate, log testKey, at time.Time) []byte {
	c.t.Helper()
	issuerKey := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	var b cryptobyte.Builder
	b.AddBytes([]byte{0, 0})
	b.AddUint64(uint64(at.UnixMilli()))
	b.AddUint16(1)
	b.AddBytes(issuerKey[:])
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(tbs) })
	b.AddUint16(0)
	sig := log.sign(c.t, b.BytesOrPanic())
	id := sha256.Sum256(log.spki())
	var s cryptobyte.Builder
	s.AddUint8(0)
	s.AddBytes(id[:])
	s.AddUint64(uint64(at.UnixMilli()))
	s.AddUint16(0)
	s.AddBytes([]byte{4, 3})
	s.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(sig) })
	return s.BytesOrPanic()
}

// sctList puts the extension with the SCTs last.
func sctList(t testing.TB, scts ...[]byte) func(*x509.Certificate) {
	t.Helper()
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, s := range scts {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(s) })
		}
	})
	value, err := asn1.Marshal(b.BytesOrPanic())
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(slices.Clone(c.ExtraExtensions), pkix.Extension{Id: oidSCTList, Value: value})
	}
}

// sealCertified is a bundle of our own shape, signed by key under cert.
func (c *caLab) sealCertified(format tlog.EntryFormat, payload []byte, key testKey, cert *x509.Certificate) *attest.BundleParts {
	c.t.Helper()
	return c.sealRaw(format, payload, key.sign(c.t, attest.PAE(attest.PayloadTypeInToto, payload)), key.Public(), cert.Raw)
}

// sealRaw is a bundle around a signature and any bytes for the certificate.
func (c *caLab) sealRaw(format tlog.EntryFormat, payload, sig []byte, public crypto.PublicKey, cert []byte) *attest.BundleParts {
	c.t.Helper()
	env := &attest.Envelope{PayloadType: attest.PayloadTypeInToto, Payload: payload, Signatures: []attest.Signature{{Sig: sig}}}
	return &attest.BundleParts{Certificate: cert, Envelope: env, Timestamps: [][]byte{c.stamp(sig)},
		LogEntry: c.entry(format, entryBodyOf(c.t, format, env, public, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))}
}

// entryBodyOf is the log entry of an envelope; cert is nil for a key.
func entryBodyOf(t testing.TB, format tlog.EntryFormat, env *attest.Envelope, public crypto.PublicKey, cert, verifierPEM []byte) []byte {
	t.Helper()
	s := env.Signatures[0]
	if format == tlog.RekorV1 {
		return tlog.EntryBodyDSSE001(tlog.DSSE{PayloadType: env.PayloadType, Payload: env.Payload, KeyID: s.KeyID, Sig: s.Sig}, verifierPEM)
	}
	digest, err := attest.SignatureDigest(public, attest.PAE(env.PayloadType, env.Payload))
	if err != nil {
		t.Fatal(err)
	}
	body, err := tlog.EntryBodyHashedRekord(tlog.HashedRekord{Digest: digest, Sig: s.Sig, Public: public, Certificate: cert})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// sigstoreJudges is sigstore-go as it is shipped, with the root and nothing of ours.
func sigstoreJudges(t testing.TB, r *Root, bundle []byte) error {
	t.Helper()
	b := new(sgbundle.Bundle)
	if err := b.UnmarshalJSON(bundle); err != nil {
		return err
	}
	verifier, err := sgverify.NewVerifier(r.sigstore, sgverify.WithTransparencyLog(1), sgverify.WithObserverTimestamps(1), sgverify.WithSignedCertificateTimestamps(1))
	if err != nil {
		t.Fatal(err)
	}
	_, err = verifier.Verify(b, sgverify.NewPolicy(sgverify.WithoutArtifactUnsafe(), sgverify.WithoutIdentitiesUnsafe()))
	return err
}

// holdTogether verifies a certificate bundle in all three ways. What VerifyOwn accepts the
// other two must accept, with the same identity.
func holdTogether(t testing.TB, name string, v *Verifier, bundle []byte) (*Evidence, error) {
	t.Helper()
	own, ownErr := v.VerifyOwn(bundle)
	if ownErr != nil {
		if own.Valid() {
			t.Errorf("%s: evidence with an error", name)
		}
		return own, ownErr
	}
	if err := sigstoreJudges(t, v.root, bundle); err != nil {
		t.Errorf("%s: the lean path accepts, sigstore-go says %v", name, err)
	}
	foreign, err := v.Verify(bundle, Expectation{AnyArtifact: true, Identity: &Identity{SAN: own.Identity(), Issuer: own.Issuer()}})
	switch {
	case err != nil:
		t.Errorf("%s: the lean path accepts, Verify says %v", name, err)
	case !sameContent(own, foreign) || own.Identity() != foreign.Identity() || own.Issuer() != foreign.Issuer():
		t.Errorf("%s: the entrances differ:\n%+v\n%+v", name, own, foreign)
	}
	return own, nil
}

// rsaKey signs with RSASSA-PSS as our own RSA keys do.
type rsaKey struct{ *rsa.PrivateKey }

func newRSAKey(t testing.TB, bits int) rsaKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return rsaKey{k}
}

func (k rsaKey) sign(t testing.TB, msg []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(msg)
	sig, err := rsa.SignPSS(rand.Reader, k.PrivateKey, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func pemOf(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
}

// flipped is data with one bit changed.
func flipped(data []byte, i int, bit byte) []byte {
	mutant := bytes.Clone(data)
	mutant[i] ^= bit
	return mutant
}
