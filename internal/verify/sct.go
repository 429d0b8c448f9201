package verify

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"math"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/assay-build/assay/internal/refusal"
)

// oidSCTList is the extension that holds SCTs (RFC 6962 section 3.3).
var oidSCTList = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}

// maxSCTs is more than any certificate has.
const maxSCTs = 8

// sct is a signed certificate timestamp (RFC 6962 section 3.2), taken apart. The slices
// alias the certificate.
type sct struct {
	logID      []byte
	timestamp  uint64
	extensions []byte
	signature  []byte
}

// checkSCTs verifies every SCT in the leaf: each is a promise of a log that the root
// lists, made in that log key's window. issuer is the SHA-256 of the issuer's
// SubjectPublicKeyInfo. sigstore-go is content if one of them is good.
func (r *Root) checkSCTs(leaf *x509.Certificate, issuer [32]byte) error {
	const field = "verificationMaterial.certificate"
	invalid := func(text string, args ...any) error {
		return refusal.New(CodeSCTInvalid, text, args...).InField(field)
	}
	if len(r.ctlogs) == 0 {
		return invalid("the trusted root lists no certificate log, and nobody else can vouch for the certificate's publication")
	}
	scts, ok := parseSCTs(leaf)
	tbs, okTBS := precertTBS(leaf)
	if !ok || !okTBS {
		return invalid("no list of SCTs, or one that is not well formed")
	}
	for i, s := range scts {
		for _, earlier := range scts[:i] {
			if string(earlier.logID) == string(s.logID) {
				return invalid("a second SCT of log %x", s.logID)
			}
		}
		log := r.ctlogs[string(s.logID)]
		if log == nil || log.ecdsa == nil {
			return invalid("certificate log %x is not in the trusted root", s.logID)
		}
		if s.timestamp > math.MaxInt64 {
			return invalid("a time of %d ms", s.timestamp)
		}
		if at := time.UnixMilli(int64(s.timestamp)); !log.validAt(at) {
			return invalid("promised %s by certificate log %s, whose key is trusted from %s to %s", stamp(at), log.idHex, stamp(log.start), stamp(log.end))
		}
		digest, ok := s.digest(issuer, tbs)
		if !ok || !ecdsa.VerifyASN1(log.ecdsa, digest[:], s.signature) {
			return invalid("not signed by certificate log %s", log.idHex)
		}
	}
	return nil
}

// digest is what the log signed: the certificate as it was without its SCTs.
func (s *sct) digest(issuer [32]byte, tbs []byte) ([32]byte, bool) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 64+len(tbs)))
	b.AddUint8(0) // version 1
	b.AddUint8(0) // certificate_timestamp
	b.AddUint64(s.timestamp)
	b.AddUint16(1) // precert_entry
	b.AddBytes(issuer[:])
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(tbs) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(s.extensions) })
	input, err := b.Bytes()
	return sha256.Sum256(input), err == nil
}

// parseSCTs reads the SCTs of a certificate. There is at least one, and nothing follows.
func parseSCTs(cert *x509.Certificate) ([]sct, bool) {
	var value cryptobyte.String
	for _, e := range cert.Extensions { // crypto/x509 refuses an extension that occurs twice
		if e.Id.Equal(oidSCTList) {
			value = e.Value
		}
	}
	var octets, list cryptobyte.String
	if !value.ReadASN1(&octets, cbasn1.OCTET_STRING) || !value.Empty() ||
		!octets.ReadUint16LengthPrefixed(&list) || !octets.Empty() || list.Empty() {
		return nil, false
	}
	var scts []sct
	for !list.Empty() {
		var one cryptobyte.String
		var s sct
		if len(scts) == maxSCTs || !list.ReadUint16LengthPrefixed(&one) || !s.read(one) {
			return nil, false
		}
		scts = append(scts, s)
	}
	return scts, true
}

func (s *sct) read(in cryptobyte.String) bool {
	const sha256WithECDSA = 4<<8 | 3 // RFC 5246 section 7.4.1.4.1
	var version uint8
	var algorithm uint16
	var extensions, signature cryptobyte.String
	ok := in.ReadUint8(&version) && version == 0 && in.ReadBytes(&s.logID, 32) && in.ReadUint64(&s.timestamp) &&
		in.ReadUint16LengthPrefixed(&extensions) && in.ReadUint16(&algorithm) && algorithm == sha256WithECDSA &&
		in.ReadUint16LengthPrefixed(&signature) && in.Empty()
	s.extensions, s.signature = extensions, signature
	return ok
}

// precertTBS is the certificate's TBSCertificate without its SCT list, which is what an
// SCT is over (RFC 6962 section 3.2). The extension is cut out and the rest stays as it
// is. Others take the structure apart and encode it anew, so whatever would come out
// differently is refused: times in a second spelling, and a default that is spelt out.
func precertTBS(cert *x509.Certificate) ([]byte, bool) {
	const explicit3, explicit0 = cbasn1.Tag(0x80|0x20) | 3, cbasn1.Tag(0x80 | 0x20)
	in := cryptobyte.String(cert.RawTBSCertificate)
	var tbs, validity, wrapped, extensions cryptobyte.String
	if !in.ReadASN1(&tbs, cbasn1.SEQUENCE) || !in.Empty() {
		return nil, false
	}
	head := tbs
	ok := tbs.SkipASN1(explicit0) && tbs.SkipASN1(cbasn1.INTEGER) && tbs.SkipASN1(cbasn1.SEQUENCE) && tbs.SkipASN1(cbasn1.SEQUENCE) &&
		tbs.ReadASN1(&validity, cbasn1.SEQUENCE) && tbs.SkipASN1(cbasn1.SEQUENCE) && tbs.SkipASN1(cbasn1.SEQUENCE)
	if !ok || !plainTime(&validity, cert.NotBefore) || !plainTime(&validity, cert.NotAfter) || !validity.Empty() {
		return nil, false
	}
	head = head[:len(head)-len(tbs)]
	if !tbs.ReadASN1(&wrapped, explicit3) || !tbs.Empty() || !wrapped.ReadASN1(&extensions, cbasn1.SEQUENCE) || !wrapped.Empty() {
		return nil, false
	}
	kept := make([]byte, 0, len(extensions))
	for !extensions.Empty() {
		var element, extension, critical cryptobyte.String
		var oid asn1.ObjectIdentifier
		var present bool
		if !extensions.ReadASN1Element(&element, cbasn1.SEQUENCE) {
			return nil, false
		}
		inner := element
		if !inner.ReadASN1(&extension, cbasn1.SEQUENCE) || !extension.ReadASN1ObjectIdentifier(&oid) ||
			!extension.ReadOptionalASN1(&critical, &present, cbasn1.BOOLEAN) || present && string(critical) != "\xff" {
			return nil, false
		}
		if !oid.Equal(oidSCTList) {
			kept = append(kept, element...)
		}
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(cert.RawTBSCertificate)))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(head)
		b.AddASN1(explicit3, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(kept) })
		})
	})
	out, err := b.Bytes()
	return out, err == nil && len(kept) > 0
}

// plainTime takes a time in the one spelling of RFC 5280 section 4.1.2.5: UTCTime to
// the second and in Z through 2049, GeneralizedTime after.
func plainTime(s *cryptobyte.String, t time.Time) bool {
	tag, layout := cbasn1.UTCTime, "060102150405Z"
	if t.Year() >= 2050 {
		tag, layout = cbasn1.GeneralizedTime, "20060102150405Z"
	}
	var text cryptobyte.String
	return s.ReadASN1(&text, tag) && string(text) == t.UTC().Format(layout)
}
