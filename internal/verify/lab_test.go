package verify

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/tlog"
)

// lab holds every private key of a small Sigstore world, so that a test can forge any
// part of a bundle and sign the rest properly. Its log has one entry, whose leaf hash is
// the root, and its clock stands still.
type lab struct {
	t                testing.TB
	at               time.Time
	att, log, tsa    testKey
	ca               testKey
	caCert           *x509.Certificate
	tsaRoot, tsaLeaf *x509.Certificate
}

// testKey is a signing.Signer in memory.
type testKey struct{ *ecdsa.PrivateKey }

func newTestKey(t testing.TB) testKey { return newCurveKey(t, elliptic.P256()) }

func newCurveKey(t testing.TB, curve elliptic.Curve) testKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return testKey{k}
}

func (k testKey) Sign(_ context.Context, digest []byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, k.PrivateKey, digest)
}

func (k testKey) Public() crypto.PublicKey { return &k.PublicKey }

func (k testKey) spki() []byte {
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		panic(err)
	}
	return der
}

func (k testKey) KeyID() string {
	sum := sha256.Sum256(k.spki())
	return hex.EncodeToString(sum[:])
}

func (k testKey) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.spki()})
}

func (k testKey) keyid() string {
	id, err := Fingerprint(&k.PublicKey)
	if err != nil {
		panic(err)
	}
	return id
}

func (k testKey) sign(t testing.TB, msg []byte) []byte {
	t.Helper()
	digest, err := attest.SignatureDigest(k.Public(), msg)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := k.Sign(context.Background(), digest)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		att: newTestKey(t), log: newTestKey(t), tsa: newTestKey(t), ca: newTestKey(t)}
	tsaRootKey := newTestKey(t)
	l.tsaRoot = l.certificate(caTemplate("tsa root"), nil, tsaRootKey, tsaRootKey)
	l.tsaLeaf = l.certificate(tsaTemplate(7), l.tsaRoot, l.tsa, tsaRootKey)
	l.caCert = l.certificate(caTemplate("code root"), nil, l.ca, l.ca)
	return l
}

var labStart, labEnd = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"lab"}},
		NotBefore: labStart, NotAfter: labEnd, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
}

func tsaTemplate(serial int64) *x509.Certificate {
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "tsa", Organization: []string{"lab"}},
		NotBefore: labStart, NotAfter: labEnd, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true}
	// 1.3.6.1.5.5.7.3.8, id-kp-timeStamping
	value := []byte{0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08}
	c.ExtraExtensions = []pkix.Extension{{Id: oidExtKeyUsage, Critical: true, Value: value}}
	return c
}

func (l *lab) certificate(template, parent *x509.Certificate, key, parentKey testKey) *x509.Certificate {
	l.t.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey.PrivateKey)
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// root is the lab's trusted root after the tweaks.
func (l *lab) root(tweaks ...func(*prototrustroot.TrustedRoot)) []byte {
	l.t.Helper()
	window := &protocommon.TimeRange{Start: timestamppb.New(labStart), End: timestamppb.New(labEnd)}
	id := sha256.Sum256(l.log.spki())
	authority := func(uri string, certs ...*x509.Certificate) *prototrustroot.CertificateAuthority {
		a := &prototrustroot.CertificateAuthority{Uri: uri, ValidFor: window, CertChain: &protocommon.X509CertificateChain{}}
		for _, c := range certs {
			a.CertChain.Certificates = append(a.CertChain.Certificates, &protocommon.X509Certificate{RawBytes: c.Raw})
		}
		return a
	}
	r := &prototrustroot.TrustedRoot{
		MediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		Tlogs: []*prototrustroot.TransparencyLogInstance{{
			BaseUrl: "https://" + testHost, HashAlgorithm: protocommon.HashAlgorithm_SHA2_256, LogId: &protocommon.LogId{KeyId: id[:]},
			PublicKey: &protocommon.PublicKey{RawBytes: l.log.spki(), KeyDetails: protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256, ValidFor: window},
		}},
		TimestampAuthorities:   []*prototrustroot.CertificateAuthority{authority("https://tsa", l.tsaLeaf, l.tsaRoot)},
		CertificateAuthorities: []*prototrustroot.CertificateAuthority{authority("https://ca", l.caCert)},
	}
	for _, tweak := range tweaks {
		tweak(r)
	}
	b, err := protojson.Marshal(r)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

func (l *lab) verifier(tweaks ...func(*prototrustroot.TrustedRoot)) *Verifier {
	l.t.Helper()
	return l.verifierWith(PublicKey{PEM: l.att.pem()}, tweaks...)
}

func (l *lab) verifierWith(key PublicKey, tweaks ...func(*prototrustroot.TrustedRoot)) *Verifier {
	l.t.Helper()
	r, err := NewRoot(l.root(tweaks...), key)
	if err != nil {
		l.t.Fatal(err)
	}
	return New(r)
}

// seal makes a good bundle of our own shape over payload.
func (l *lab) seal(format tlog.EntryFormat, payloadType string, payload []byte) *attest.BundleParts {
	l.t.Helper()
	sig := l.att.sign(l.t, attest.PAE(payloadType, payload))
	env := &attest.Envelope{PayloadType: payloadType, Payload: payload, Signatures: []attest.Signature{{KeyID: l.att.keyid(), Sig: sig}}}
	return &attest.BundleParts{PublicKeyHint: l.att.keyid(), Envelope: env, LogEntry: l.entry(format, l.body(format, env, l.att)), Timestamps: [][]byte{l.stamp(sig)}}
}

func (l *lab) body(format tlog.EntryFormat, env *attest.Envelope, key testKey) []byte {
	s := env.Signatures[0]
	if format == tlog.RekorV1 {
		return tlog.EntryBodyDSSE001(tlog.DSSE{PayloadType: env.PayloadType, Payload: env.Payload, KeyID: s.KeyID, Sig: s.Sig}, key.pem())
	}
	return tlog.EntryBodyHashedRekord002(sha256.Sum256(attest.PAE(env.PayloadType, env.Payload)), s.Sig, key.spki())
}

func (l *lab) entry(format tlog.EntryFormat, body []byte) attest.LogEntry {
	l.t.Helper()
	id := sha256.Sum256(l.log.spki())
	kind, version := format.KindVersion()
	leaf := tlog.LeafHash(body)
	e := attest.LogEntry{LogID: id[:], Kind: kind, Version: version, RootHash: leaf[:], TreeSize: 1,
		Checkpoint: l.checkpoint(originOf(format, id[:]), testHost, 1, leaf[:], l.log), CanonicalizedBody: body}
	if format == tlog.RekorV1 {
		e.IntegratedTime = l.at.Unix()
		e.SET = l.log.sign(l.t, tlog.SETPayload(body, e.IntegratedTime, 0, hex.EncodeToString(id[:])))
	}
	return e
}

func originOf(format tlog.EntryFormat, id []byte) string {
	if format == tlog.RekorV1 {
		return tlog.RekorV1Origin(testHost, id)
	}
	return testHost
}

func (l *lab) checkpoint(origin, name string, size uint64, root []byte, key testKey) string {
	l.t.Helper()
	cp, err := tlog.SignCheckpoint(context.Background(), origin, name, size, root, key)
	if err != nil {
		l.t.Fatal(err)
	}
	return cp
}

// unstamped is seal without timestamp, for a lab whose authority cannot make one.
func (l *lab) unstamped(payload []byte) *attest.BundleParts {
	l.t.Helper()
	sig := l.att.sign(l.t, attest.PAE(attest.PayloadTypeInToto, payload))
	env := &attest.Envelope{PayloadType: attest.PayloadTypeInToto, Payload: payload, Signatures: []attest.Signature{{KeyID: l.att.keyid(), Sig: sig}}}
	return &attest.BundleParts{PublicKeyHint: l.att.keyid(), Envelope: env, LogEntry: l.entry(tlog.RekorV2, l.body(tlog.RekorV2, env, l.att))}
}

// stamp is a timestamp over sig by the lab's authority at the lab's time.
func (l *lab) stamp(sig []byte) []byte {
	l.t.Helper()
	a, err := signing.NewTimestampAuthority(l.tsa, []*x509.Certificate{l.tsaLeaf, l.tsaRoot}, func() time.Time { return l.at })
	if err != nil {
		l.t.Fatal(err)
	}
	der, err := a.Timestamp(context.Background(), sig)
	if err != nil {
		l.t.Fatal(err)
	}
	return der
}

// withCertificates puts certificates into a timestamp that has none. They are not signed.
func (l *lab) withCertificates(der []byte, certs ...*x509.Certificate) []byte {
	l.t.Helper()
	const context0 = cbasn1.Tag(0x80 | 0x20)
	in := cryptobyte.String(der)
	var resp, status, info, oid, wrapped, data, version, digests, content cryptobyte.String
	if !in.ReadASN1(&resp, cbasn1.SEQUENCE) || !resp.ReadASN1Element(&status, cbasn1.SEQUENCE) || !resp.ReadASN1(&info, cbasn1.SEQUENCE) ||
		!info.ReadASN1Element(&oid, cbasn1.OBJECT_IDENTIFIER) || !info.ReadASN1(&wrapped, context0) || !wrapped.ReadASN1(&data, cbasn1.SEQUENCE) ||
		!data.ReadASN1Element(&version, cbasn1.INTEGER) || !data.ReadASN1Element(&digests, cbasn1.SET) || !data.ReadASN1Element(&content, cbasn1.SEQUENCE) ||
		!data.SkipOptionalASN1(context0) {
		l.t.Fatal("not a timestamp")
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(status)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(oid)
			b.AddASN1(context0, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddBytes(version)
					b.AddBytes(digests)
					b.AddBytes(content)
					b.AddASN1(context0, func(b *cryptobyte.Builder) {
						for _, c := range certs {
							b.AddBytes(c.Raw)
						}
					})
					b.AddBytes(data)
				})
			})
		})
	})
	return b.BytesOrPanic()
}

// libraryStamp is a timestamp made by the digitorus library, by any certificate. It puts the wall clock into the signed attributes.
func (l *lab) libraryStamp(sig []byte, cert *x509.Certificate, key testKey, embed bool) []byte {
	l.t.Helper()
	sum := sha256.Sum256(sig)
	der, err := (&timestamp.Timestamp{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Time: l.at, Policy: asn1.ObjectIdentifier{1, 2, 3},
		AddTSACertificate: embed}).CreateResponseWithOpts(cert, key.PrivateKey, crypto.SHA256)
	if err != nil {
		l.t.Fatal(err)
	}
	return der
}

func (l *lab) marshal(p *attest.BundleParts) []byte {
	l.t.Helper()
	b, err := attest.MarshalBundle(p)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// edit changes a bundle as protobuf, which can hold what attest will not write.
func (l *lab) edit(bundle []byte, change func(*protobundle.Bundle)) []byte {
	l.t.Helper()
	b := new(protobundle.Bundle)
	if err := protojson.Unmarshal(bundle, b); err != nil {
		l.t.Fatal(err)
	}
	change(b)
	out, err := protojson.Marshal(b)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// leaf is a code-signing certificate as Fulcio makes them.
func (l *lab) leaf(key testKey, san, issuer string, tweaks ...func(*x509.Certificate)) *x509.Certificate {
	l.t.Helper()
	u, err := url.Parse(san)
	if err != nil {
		l.t.Fatal(err)
	}
	value, err := asn1.MarshalWithParams(issuer, "utf8")
	if err != nil {
		l.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(2), URIs: []*url.URL{u}, NotBefore: l.at.Add(-time.Minute), NotAfter: l.at.Add(9 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: value}}}
	for _, tweak := range tweaks {
		tweak(c)
	}
	return l.certificate(c, l.caCert, key, l.ca)
}

// certified turns a bundle over payload into one signed with a certificate, in the
// Rekor 1 shape.
func (l *lab) certified(payload []byte, key testKey, cert *x509.Certificate) []byte {
	l.t.Helper()
	sig := key.sign(l.t, attest.PAE(attest.PayloadTypeInToto, payload))
	pemCert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	body := tlog.EntryBodyDSSE001(tlog.DSSE{PayloadType: attest.PayloadTypeInToto, Payload: payload, Sig: sig}, pemCert)
	p := l.seal(tlog.RekorV1, attest.PayloadTypeInToto, payload)
	p.LogEntry, p.Timestamps, p.Envelope.Signatures[0].Sig = l.entry(tlog.RekorV1, body), [][]byte{l.stamp(sig)}, sig
	return l.edit(l.marshal(p), func(b *protobundle.Bundle) {
		b.GetDsseEnvelope().Signatures[0].Keyid = ""
		b.VerificationMaterial.Content = &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: cert.Raw}}
	})
}
