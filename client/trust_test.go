package client

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/verify"
)

// trustLab is an instance below its RPCs: a log of one entry, a timestamp authority, and
// a certificate authority. Its clock stands still.
type trustLab struct {
	t                testing.TB
	at               time.Time
	log, tsa, ca     trustKey
	tsaRoot, tsaLeaf *x509.Certificate
	caRoot           *x509.Certificate
	intermediates    []*x509.Certificate
	authority        *ca.Authority
}

const trustHost = "assay.example.test"

// trustKey signs in memory, as what is in it does.
type trustKey struct{ crypto.Signer }

func newTrustKey(t testing.TB, curve elliptic.Curve) trustKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return trustKey{key}
}

func (k trustKey) Sign(_ context.Context, digest []byte) ([]byte, error) {
	hash, err := attest.SignatureHash(k.Public())
	if err != nil {
		return nil, err
	}
	var opts crypto.SignerOpts = hash
	if _, ok := k.Public().(*rsa.PublicKey); ok {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	return k.Signer.Sign(rand.Reader, digest, opts)
}

func (k trustKey) KeyID() string { return "" }

func (k trustKey) spki(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (k trustKey) pem(t testing.TB) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.spki(t)})
}

func newTrustLab(t testing.TB) *trustLab {
	t.Helper()
	p256 := elliptic.P256()
	l := &trustLab{t: t, at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), log: newTrustKey(t, p256), tsa: newTrustKey(t, p256), ca: newTrustKey(t, p256)}
	start, end := l.at.AddDate(0, -1, 0), l.at.AddDate(1, 0, 0)
	rootKey := newTrustKey(t, p256)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tsa root"}, NotBefore: start, NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	l.tsaRoot = l.certificate(root, root, rootKey, rootKey)
	l.tsaLeaf = l.certificate(&x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "tsa"}, NotBefore: start, NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true,
			Value: []byte{0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08}}}}, l.tsaRoot, l.tsa, rootKey)
	der, err := ca.NewRoot(t.Context(), l.ca, "lab", trustHost, start, 1)
	if err == nil {
		l.caRoot, err = x509.ParseCertificate(der)
	}
	if err == nil {
		l.authority, err = ca.New(ca.Config{Root: l.caRoot, Signer: l.ca, Organization: "lab", Host: trustHost, Now: func() time.Time { return l.at }, Log: l.log,
			Publish: func(_ context.Context, c *x509.Certificate) error {
				l.intermediates = append(l.intermediates, c)
				return nil
			}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *trustLab) certificate(template, parent *x509.Certificate, key, parentKey trustKey) *x509.Certificate {
	l.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey.Signer)
	if err != nil {
		l.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		l.t.Fatal(err)
	}
	return cert
}

func (l *trustLab) leaf() *ca.Leaf {
	l.t.Helper()
	leaf, err := l.authority.Issue(l.t.Context(), ca.Identity{URI: "https://ci.example.test/job", Issuer: "https://ci.example.test"})
	if err != nil {
		l.t.Fatal(err)
	}
	return leaf
}

// root is the trusted root; window is that of the certificate authorities.
func (l *trustLab) root(start, end time.Time, chain ...*x509.Certificate) []byte {
	l.t.Helper()
	id := sha256.Sum256(l.log.spki(l.t))
	window := map[string]any{"start": l.at.AddDate(0, -1, 0)}
	log := map[string]any{"baseUrl": "https://" + trustHost, "hashAlgorithm": "SHA2_256", "logId": map[string]any{"keyId": id[:]},
		"publicKey": map[string]any{"rawBytes": l.log.spki(l.t), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": window}}
	entry := func(window map[string]any, chain ...*x509.Certificate) map[string]any {
		var certs []any
		for _, c := range chain {
			certs = append(certs, map[string]any{"rawBytes": c.Raw})
		}
		return map[string]any{"uri": "https://" + trustHost, "certChain": map[string]any{"certificates": certs}, "validFor": window}
	}
	doc := map[string]any{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1", "tlogs": []any{log}, "ctlogs": []any{log},
		"timestampAuthorities": []any{entry(window, l.tsaLeaf, l.tsaRoot)}}
	if len(chain) > 0 {
		doc["certificateAuthorities"] = []any{entry(map[string]any{"start": start, "end": end}, chain...)}
	}
	out, err := json.Marshal(doc)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// attestSigner is a key or a leaf.
type attestSigner interface {
	Sign(ctx context.Context, digest []byte) ([]byte, error)
	Public() crypto.PublicKey
}

// seal is a bundle signed by s, under cert unless that is nil.
func (l *trustLab) seal(format tlog.EntryFormat, s attestSigner, cert []byte) *attest.BundleParts {
	l.t.Helper()
	payload := []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"` + digestOf("a") + `"}}],"predicateType":"https://p.example/v1","predicate":{}}`)
	digest, err := attest.SignatureDigest(s.Public(), attest.PAE(attest.PayloadTypeInToto, payload))
	if err != nil {
		l.t.Fatal(err)
	}
	sig, err := s.Sign(l.t.Context(), digest)
	if err != nil {
		l.t.Fatal(err)
	}
	p := &attest.BundleParts{Certificate: cert, Envelope: &attest.Envelope{PayloadType: attest.PayloadTypeInToto, Payload: payload, Signatures: []attest.Signature{{Sig: sig}}}}
	if cert == nil {
		if p.PublicKeyHint, err = verify.Fingerprint(s.Public()); err != nil {
			l.t.Fatal(err)
		}
		p.Envelope.Signatures[0].KeyID = p.PublicKeyHint
	}
	l.log1(format, p, s.Public(), digest)
	tsa, err := signing.NewTimestampAuthority(l.tsa, []*x509.Certificate{l.tsaLeaf, l.tsaRoot}, func() time.Time { return l.at })
	if err != nil {
		l.t.Fatal(err)
	}
	stamp, err := tsa.Timestamp(l.t.Context(), sig)
	if err != nil {
		l.t.Fatal(err)
	}
	p.Timestamps = [][]byte{stamp}
	return p
}

// log1 makes the envelope the only entry of the log.
func (l *trustLab) log1(format tlog.EntryFormat, p *attest.BundleParts, public crypto.PublicKey, digest []byte) {
	l.t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		l.t.Fatal(err)
	}
	block := &pem.Block{Type: "PUBLIC KEY", Bytes: spki}
	if p.Certificate != nil {
		block = &pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate}
	}
	sig := p.Envelope.Signatures[0]
	body := tlog.EntryBodyDSSE001(tlog.DSSE{PayloadType: p.Envelope.PayloadType, Payload: p.Envelope.Payload, KeyID: sig.KeyID, Sig: sig.Sig}, pem.EncodeToMemory(block))
	if format == tlog.RekorV2 {
		if body, err = tlog.EntryBodyHashedRekord(tlog.HashedRekord{Digest: digest, Sig: sig.Sig, Public: public, Certificate: p.Certificate}); err != nil {
			l.t.Fatal(err)
		}
	}
	key, err := tlog.NewKey(trustHost, l.log.Public())
	if err != nil {
		l.t.Fatal(err)
	}
	leaf := tlog.LeafHash(body)
	checkpoint, err := key.SignCheckpoint(l.t.Context(), format, 1, leaf[:], l.log)
	if err != nil {
		l.t.Fatal(err)
	}
	kind, version := format.KindVersion()
	p.LogEntry = attest.LogEntry{LogID: key.LogID, Kind: kind, Version: version, RootHash: leaf[:], TreeSize: 1, Checkpoint: checkpoint, CanonicalizedBody: body}
	if format == tlog.RekorV1 {
		p.LogEntry.IntegratedTime = l.at.Unix()
		sum := sha256.Sum256(tlog.SETPayload(body, p.LogEntry.IntegratedTime, 0, hexLogID(key.LogID)))
		if p.LogEntry.SET, err = l.log.Sign(l.t.Context(), sum[:]); err != nil {
			l.t.Fatal(err)
		}
	}
}

func hexLogID(b []byte) string { return new(big.Int).SetBytes(append([]byte{1}, b...)).Text(16)[1:] }

// both are the client's trust and the service's, in the same root.
type both struct {
	trust *trust
	judge *verify.Verifier
}

func (l *trustLab) both(root []byte, keys ...trustKey) both {
	l.t.Helper()
	var text []byte
	var named []verify.PublicKey
	for _, k := range keys {
		_, isRSA := k.Public().(*rsa.PublicKey)
		text = append(text, k.pem(l.t)...)
		named = append(named, verify.PublicKey{PEM: k.pem(l.t), PSS: isRSA})
	}
	trust, err := newTrust(&TrustedRoot{JSON: root, AttestationKeysPEM: text})
	if err != nil {
		l.t.Fatal(err)
	}
	r, err := verify.NewRoot(root, named...)
	if err != nil {
		l.t.Fatal(err)
	}
	return both{trust, verify.New(r)}
}

// verify asks the client. What it accepts the service must accept.
func (b both) verify(t testing.TB, name string, bundle []byte) error {
	t.Helper()
	parts, err := attest.ParseOwnBundle(bundle)
	if err == nil {
		err = b.trust.verify(parts)
	}
	if err == nil {
		if _, err := b.judge.VerifyOwn(bundle); err != nil {
			t.Errorf("%s: the client accepts, the service says %v", name, err)
		}
	}
	return err
}

func mustBundle(t testing.TB, p *attest.BundleParts) []byte {
	t.Helper()
	bundle, err := attest.MarshalBundle(p)
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

var trustFormats = []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2}

// TestTrustAgreesWithService: over every kind of signer, and every byte changed of every
// part that the client looks at, the client accepts nothing that the service does not.
func TestTrustAgreesWithService(t *testing.T) {
	t.Parallel()
	l := newTrustLab(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, p384, rsaPSS := newTrustKey(t, elliptic.P256()), newTrustKey(t, elliptic.P384()), trustKey{rsaKey}
	leaf := l.leaf()
	window := l.at.AddDate(0, 0, -1)
	b := l.both(l.root(window, l.at.AddDate(0, 0, 1), append(l.intermediates, l.caRoot)...), p256, p384, rsaPSS)
	for _, format := range trustFormats {
		for name, s := range map[string]attestSigner{"P-256": p256, "P-384": p384, "RSA": rsaPSS, "certificate": leaf} {
			if format == tlog.RekorV2 && name == "RSA" {
				continue // no such entry can be made
			}
			var cert []byte
			if name == "certificate" {
				cert = leaf.Raw
			}
			name += " " + string(format)
			p := l.seal(format, s, cert)
			if err := b.verify(t, name, mustBundle(t, p)); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			e := &p.LogEntry
			parts := map[string]*[]byte{"signature": &p.Envelope.Signatures[0].Sig, "payload": &p.Envelope.Payload, "entry": &e.CanonicalizedBody,
				"root": &e.RootHash, "log": &e.LogID, "promise": &e.SET, "certificate": &p.Certificate}
			for part, data := range parts {
				good := *data
				for i := range good {
					*data = bytes.Clone(good)
					(*data)[i] ^= 1 << (i % 8)
					if client := b.verify(t, name+" "+part, mustBundle(t, p)); client == nil {
						t.Errorf("%s: byte %d of the %s changed", name, i, part)
					}
				}
				*data = good
			}
			bundle := mustBundle(t, p)
			for _, part := range []string{e.Checkpoint[:8], "\n1\n"} {
				quoted, _ := json.Marshal(part)
				quoted = quoted[1 : len(quoted)-1]
				i := bytes.Index(bundle, quoted)
				mutant := bytes.Clone(bundle)
				mutant[i+len(quoted)/2] ^= 1
				if client := b.verify(t, name+" checkpoint", mutant); client == nil {
					t.Errorf("%s: %q changed in the checkpoint", name, part)
				}
			}
			// Timestamps are left to the service.
			from, to := bytes.Index(bundle, []byte(`"timestampV`)), bytes.Index(bundle, []byte(`,"dsseEnvelope"`))
			step := 1
			if testing.Short() {
				step = 9
			}
			for i := 0; i < len(bundle); i += step {
				if i < from || i > to {
					mutant := bytes.Clone(bundle)
					mutant[i] ^= 1
					if client := b.verify(t, name+" bundle", mutant); client == nil {
						t.Errorf("%s: byte %d of the bundle changed", name, i)
					}
				}
			}
		}
	}
}

// TestTrustCertificates: which certificates the client takes, and for what time.
func TestTrustCertificates(t *testing.T) {
	t.Parallel()
	l := newTrustLab(t)
	leaf := l.leaf()
	inter := l.intermediates[0]
	stranger := newTrustLab(t)
	strange := stranger.leaf()
	day := 24 * time.Hour
	root := func(start, end time.Duration, chain ...*x509.Certificate) both {
		return l.both(l.root(l.at.Add(start), l.at.Add(end), chain...))
	}
	good := root(-day, day, inter, l.caRoot)
	later := *l
	later.at = l.at.Add(11 * time.Minute)
	tests := []struct {
		name     string
		both     both
		seal     *trustLab
		by       attestSigner
		cert     []byte
		accepted bool
	}{
		{"good", good, l, leaf, leaf.Raw, true},
		{"among others", root(-day, day, stranger.intermediates[0], inter, l.caRoot), l, leaf, leaf.Raw, true},
		{"of another authority", good, l, strange, strange.Raw, false},
		{"of another authority of the same names, without its intermediate", root(-day, day, inter, stranger.caRoot), l, leaf, leaf.Raw, false},
		{"another leaf's", good, l, l.leaf(), leaf.Raw, false},
		{"no authority in the root", root(0, 0), l, leaf, leaf.Raw, false},
		{"a root alone", root(-day, day, l.caRoot), l, leaf, leaf.Raw, false},
		{"intermediate not listed", root(-day, day, stranger.intermediates[0], l.caRoot), l, leaf, leaf.Raw, false},
		{"authority not trusted yet", root(time.Second, day, inter, l.caRoot), l, leaf, leaf.Raw, false},
		{"authority not trusted any more", root(-day, -time.Second, inter, l.caRoot), l, leaf, leaf.Raw, false},
		{"authority as leaf", good, l, l.ca, l.caRoot.Raw, false},
		{"not a certificate", good, l, leaf, []byte("x"), false},
	}
	for _, tt := range tests {
		for _, format := range trustFormats {
			bundle := mustBundle(t, tt.seal.seal(format, tt.by, tt.cert))
			client := tt.both.verify(t, tt.name, bundle)
			_, service := tt.both.judge.VerifyOwn(bundle)
			if (client == nil) != tt.accepted || (service == nil) != tt.accepted {
				t.Errorf("%s, %s: %v, %v", tt.name, format, client, service)
			}
		}
	}
	// The log says when a rekor-v1 entry came. Of rekor-v2 only the timestamp says it, which
	// the client does not read.
	for _, format := range trustFormats {
		bundle := mustBundle(t, later.seal(format, leaf, leaf.Raw))
		parts, err := attest.ParseOwnBundle(bundle)
		if err != nil {
			t.Fatal(err)
		}
		if err := good.trust.verify(parts); (err == nil) != (format == tlog.RekorV2) {
			t.Errorf("%s, after the leaf's end: %v", format, err)
		}
		if _, err := good.judge.VerifyOwn(bundle); err == nil {
			t.Errorf("%s, after the leaf's end: the service accepts", format)
		}
	}
}

// TestTrustIgnoresOtherKeys: keys that sign no attestations stand beside those that do.
func TestTrustIgnoresOtherKeys(t *testing.T) {
	t.Parallel()
	l := newTrustLab(t)
	key := newTrustKey(t, elliptic.P256())
	other := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("of a kind that is not known here")})
	p521 := newTrustKey(t, elliptic.P521())
	trust, err := newTrust(&TrustedRoot{JSON: l.root(l.at, l.at), AttestationKeysPEM: bytes.Join([][]byte{other, p521.pem(t), key.pem(t)}, nil)})
	if err != nil || len(trust.keys) != 1 {
		t.Fatalf("%d keys, %v", len(trust.keys), err)
	}
	if err := trust.verify(l.seal(tlog.RekorV1, key, nil)); err != nil {
		t.Error(err)
	}
}
