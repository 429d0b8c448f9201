package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/assay-build/assay/internal/refusal"
)

// Parts of every leaf, DER; a test compares them with crypto/x509's.
const (
	versionV3       = "\xa0\x03\x02\x01\x02"
	ecdsaWithSHA256 = "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"
	emptyName       = "\x30\x00"
	// p256SPKI is a SubjectPublicKeyInfo up to the uncompressed point of 65 octets.
	p256SPKI = "\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00"
	// keyUsage is critical and says digitalSignature alone.
	keyUsage = "\x30\x0e\x06\x03\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02\x07\x80"
	// extKeyUsage says codeSigning alone.
	extKeyUsage = "\x30\x13\x06\x03\x55\x1d\x25\x04\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x03"
)

func oidSubjectKeyID() asn1.ObjectIdentifier   { return asn1.ObjectIdentifier{2, 5, 29, 14} }
func oidSubjectAltName() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 17} }
func oidAuthorityKeyID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 35} }

// Leaf is a certificate and the key it certifies. The key is in memory only and is
// meant for one attestation, within the validity of the certificate.
type Leaf struct {
	// Raw is the certificate, DER.
	Raw []byte
	// NotBefore and NotAfter are its validity.
	NotBefore, NotAfter time.Time
	// Issuer is the intermediate that issued it. It is part of the trusted root.
	Issuer *x509.Certificate

	key   *ecdsa.PrivateKey
	point []byte // the public key, uncompressed
	entry []byte
}

// Sign returns an ASN.1 DER ECDSA signature over a SHA-256 digest.
func (l *Leaf) Sign(ctx context.Context, digest []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(digest) != sha256.Size {
		return nil, fmt.Errorf("a SHA-256 digest has %d bytes, this has %d", sha256.Size, len(digest))
	}
	return ecdsa.SignASN1(rand.Reader, l.key, digest)
}

// Public returns the *ecdsa.PublicKey that the certificate certifies.
func (l *Leaf) Public() crypto.PublicKey { return &l.key.PublicKey }

// KeyID returns the lower-case hex SHA-256 of the DER SubjectPublicKeyInfo.
func (l *Leaf) KeyID() string {
	sum := sha256.Sum256(append([]byte(p256SPKI), l.point...))
	return hex.EncodeToString(sum[:])
}

// LogEntry returns the RFC 6962 MerkleTreeLeaf that the certificate's SCT promises to
// be in the log. It has to be appended before the leaf is released.
func (l *Leaf) LogEntry() []byte { return slices.Clone(l.entry) }

// String names the leaf by its key, whatever verb prints it.
func (l *Leaf) String() string { return "leaf of key " + l.KeyID() }

// issue makes a leaf under cur. The certificate is assembled here rather than by
// crypto/x509, which encodes by reflection, would have to do so twice (without and
// with the SCT), and verifies what it signed with a key that is known to be good:
// that is several times the cost of the two signatures. Tests hold every leaf
// against crypto/x509, certificate-transparency-go, sigstore-go and OpenSSL.
func (a *Authority) issue(ctx context.Context, cur *intermediate, id Identity, now time.Time) (*Leaf, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate leaf key: %w", err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode leaf key: %w", err)
	}
	start := now.UTC().Truncate(time.Second)
	head, err := a.leafHead(cur, point, start)
	if err != nil {
		return nil, err
	}
	exts, err := a.leafExtensions(&id, cur, point)
	if err != nil {
		return nil, err
	}
	precert, err := tbsCertificate(head, exts)
	if err != nil {
		return nil, err
	}
	// The promise and the entry bear the time as it is, not cut to seconds.
	entry, err := logEntry(now.UnixMilli(), cur.keyHash, precert)
	if err != nil {
		return nil, err
	}
	sct, err := a.signSCT(ctx, now.UnixMilli(), entry)
	if err != nil {
		return nil, err
	}
	tbs, err := tbsCertificate(head, slices.Concat(exts, sct))
	if err != nil {
		return nil, err
	}
	raw, err := cur.sign(tbs)
	if err != nil {
		return nil, err
	}
	if err := a.checkReadable(&id, raw); err != nil {
		return nil, err
	}
	if !cur.used.Load() { // many goroutines read it, one has to write it
		cur.used.Store(true)
	}
	return &Leaf{
		Raw: raw, NotBefore: a.leafStart(cur, start), NotAfter: start.Add(a.cfg.LeafLifetime), Issuer: cur.cert,
		key: key, point: point, entry: entry,
	}, nil
}

// leafStart is where the validity of a leaf of now begins.
func (a *Authority) leafStart(cur *intermediate, now time.Time) time.Time {
	return later(now.Add(-a.cfg.Backdate), cur.cert.NotBefore)
}

// checkReadable makes sure that crypto/x509 reads back a certificate: what it cannot read
// nobody else is asked to, and it has its own ideas of host names in URIs. Of an identity
// that was certified before it has read one that differs in numbers only. The promise has
// not left the authority yet.
func (a *Authority) checkReadable(id *Identity, raw []byte) error {
	if n, ok := a.named.Get(*id); ok && n.readable.Load() {
		return nil
	}
	if _, err := x509.ParseCertificate(raw); err != nil {
		return refusal.New(CodeIdentityInvalid, "a certificate with this identity cannot be read: %w", err)
	}
	if n, ok := a.named.Get(*id); ok {
		n.readable.Store(true)
	}
	return nil
}

// leafHead returns the fields of a TBSCertificate that stand before the extensions.
func (a *Authority) leafHead(cur *intermediate, point []byte, start time.Time) ([]byte, error) {
	serial := newSerial()
	b := builder(512)
	b.AddBytes([]byte(versionV3))
	b.AddASN1(cbasn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(serial[:]) })
	b.AddBytes([]byte(ecdsaWithSHA256))
	b.AddBytes(cur.cert.RawSubject)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addTime(b, a.leafStart(cur, start))
		addTime(b, start.Add(a.cfg.LeafLifetime))
	})
	b.AddBytes([]byte(emptyName))
	b.AddBytes([]byte(p256SPKI))
	b.AddBytes(point)
	head, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode leaf: %w", err)
	}
	return head, nil
}

// named is what certificates say of one identity.
type named struct {
	der      []byte // the extensions, one after the other
	readable atomic.Bool
}

// leafExtensions returns the extensions of a leaf, one after the other, but for the
// SCT list.
func (a *Authority) leafExtensions(id *Identity, cur *intermediate, point []byte) ([]byte, error) {
	n, ok := a.named.Get(*id)
	if !ok {
		der, err := id.extensions()
		if err != nil {
			return nil, err
		}
		n = &named{der: der}
		a.named.Add(*id, n)
	}
	b := builder(len(n.der) + 256)
	b.AddBytes([]byte(keyUsage))
	b.AddBytes([]byte(extKeyUsage))
	// Method 1 of RFC 7093: the first 160 bits of the SHA-256 of the point.
	keyID := sha256.Sum256(point)
	addExtension(b, oidSubjectKeyID(), false, octetString(keyID[:20]))
	b.AddBytes(cur.authorityKey)
	b.AddBytes(n.der)
	exts, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode leaf: %w", err)
	}
	return exts, nil
}

// extensions returns those that say who is certified: one after the other, and the same
// for every certificate of one identity.
func (id *Identity) extensions() ([]byte, error) {
	rendered, err := id.render()
	if err != nil {
		return nil, err
	}
	b := builder(2048)
	// RFC 5280 section 4.2.1.6: critical, because the subject is empty.
	addExtension(b, oidSubjectAltName(), true, id.subjectAltName())
	for _, ext := range rendered {
		addExtension(b, ext.Id, ext.Critical, ext.Value)
	}
	exts, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode leaf: %w", err)
	}
	return exts, nil
}

// sign returns the certificate of a TBSCertificate, DER.
func (i *intermediate) sign(tbs []byte) ([]byte, error) {
	digest := sha256.Sum256(tbs)
	sig, err := ecdsa.SignASN1(rand.Reader, i.key, digest[:])
	if err != nil {
		return nil, fmt.Errorf("sign leaf: %w", err)
	}
	b := builder(len(tbs) + 128)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes([]byte(ecdsaWithSHA256))
		b.AddASN1BitString(sig)
	})
	raw, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode leaf: %w", err)
	}
	return raw, nil
}

// tbsCertificate wraps the extensions and puts them behind the other fields.
func tbsCertificate(head, exts []byte) ([]byte, error) {
	b := builder(len(head) + len(exts) + 16)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(head)
		b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(exts) })
		})
	})
	tbs, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode certificate: %w", err)
	}
	return tbs, nil
}

// subjectAltName is a GeneralNames of one rfc822Name or uniformResourceIdentifier.
func (id *Identity) subjectAltName() []byte {
	tag, name := cbasn1.Tag(6).ContextSpecific(), id.URI
	if id.Email != "" {
		tag, name = cbasn1.Tag(1).ContextSpecific(), id.Email
	}
	b := builder(len(name) + 8)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) })
	})
	return b.BytesOrPanic() // lengths were checked, nothing else can fail
}

// authorityKeyExtension names the key of the issuer by the issuer's own identifier.
func authorityKeyExtension(id []byte) ([]byte, error) {
	value := builder(32)
	value.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(id) })
	})
	keyID, err := value.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode authority key identifier: %w", err)
	}
	b := builder(64)
	addExtension(b, oidAuthorityKeyID(), false, keyID)
	return b.Bytes()
}

func addExtension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, critical bool, value []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1OctetString(value)
	})
}

// addTime writes the kind of time that RFC 5280 section 4.1.2.5 wants for the year.
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t.Year() < 2050 {
		b.AddASN1UTCTime(t)
	} else {
		b.AddASN1GeneralizedTime(t)
	}
}

func octetString(value []byte) []byte {
	b := builder(len(value) + 4)
	b.AddASN1OctetString(value)
	return b.BytesOrPanic() // a constant length
}

func builder(room int) *cryptobyte.Builder { return cryptobyte.NewBuilder(make([]byte, 0, room)) }
