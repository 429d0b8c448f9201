package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/assay-build/assay/internal/refusal"
)

// oidSCTList names the extension that carries SCTs (RFC 6962 section 3.3).
func oidSCTList() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}
}

// Values of RFC 6962 section 3.2 and RFC 5246 section 7.4.1.4.1.
const (
	sctVersion1      = 0
	timestampedEntry = 0
	precertEntry     = 1
	hashSHA256       = 4
	signatureECDSA   = 3
)

// logEntry returns the MerkleTreeLeaf of a precert entry (RFC 6962 section 3.4):
//
//	version, leaf_type, timestamp, entry_type, issuer_key_hash, tbs_certificate, extensions
//
// What an SCT signs (section 3.2) is laid out alike, with signature_type where
// leaf_type is; both are zero, so the two are the same octets.
func logEntry(millis int64, issuerKeyHash [sha256.Size]byte, tbs []byte) ([]byte, error) {
	b := builder(len(tbs) + 64)
	b.AddUint8(sctVersion1)
	b.AddUint8(timestampedEntry)
	b.AddUint64(uint64(millis))
	b.AddUint16(precertEntry)
	b.AddBytes(issuerKeyHash[:])
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(tbs) })
	b.AddUint16(0) // no extensions
	entry, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode log entry: %w", err)
	}
	return entry, nil
}

// signSCT has the log's key promise the entry, and returns the extension that says
// so: an OCTET STRING with a list of one SCT.
func (a *Authority) signSCT(ctx context.Context, millis int64, entry []byte) ([]byte, error) {
	digest := sha256.Sum256(entry)
	sig, err := a.cfg.Log.Sign(ctx, digest[:])
	if err != nil {
		return nil, err // as the log's signer put it
	}
	b := builder(160)
	b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				b.AddUint8(sctVersion1)
				b.AddBytes(a.logID[:])
				b.AddUint64(uint64(millis))
				b.AddUint16(0) // no extensions
				b.AddUint8(hashSHA256)
				b.AddUint8(signatureECDSA)
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(sig) })
			})
		})
	})
	value, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode certificate timestamp: %w", err)
	}
	ext := builder(192)
	addExtension(ext, oidSCTList(), false, value)
	return ext.Bytes()
}

// LogEntryOf rebuilds the log entry of a finished certificate with one embedded SCT,
// octet for octet what Leaf.LogEntry was when issuer issued leaf. It checks that
// issuer did, and not the SCT: whether the log has the entry says more than whether
// its key signed a promise.
func LogEntryOf(leaf, issuer *x509.Certificate) ([]byte, error) {
	if err := leaf.CheckSignatureFrom(issuer); err != nil {
		return nil, refusal.New(CodeCertificateInvalid, "the leaf was not issued by %q: %w", issuer.Subject, err)
	}
	tbs, list, err := cutSCTList(leaf.RawTBSCertificate)
	if err != nil {
		return nil, err
	}
	millis, err := soleTimestamp(list)
	if err != nil {
		return nil, err
	}
	return logEntry(millis, sha256.Sum256(issuer.RawSubjectPublicKeyInfo), tbs)
}

// cutSCTList returns a TBSCertificate without its one SCT list extension, and the
// value of that extension.
func cutSCTList(tbs []byte) (without, list []byte, err error) {
	invalid := func(what string) error {
		return refusal.New(CodeCertificateInvalid, "the certificate %s", what)
	}
	der := cryptobyte.String(tbs)
	var body, wrapped, exts cryptobyte.String
	if !der.ReadASN1(&body, cbasn1.SEQUENCE) || !der.Empty() {
		return nil, nil, invalid("is not DER")
	}
	all := []byte(body)
	tag3 := cbasn1.Tag(3).ContextSpecific().Constructed()
	var head []byte
	for !body.Empty() && !body.PeekASN1Tag(tag3) {
		var field cryptobyte.String
		if !body.ReadAnyASN1Element(&field, nil) {
			return nil, nil, invalid("is not DER")
		}
		head = all[:len(all)-len(body)]
	}
	if !body.ReadASN1(&wrapped, tag3) || !body.Empty() || !wrapped.ReadASN1(&exts, cbasn1.SEQUENCE) || !wrapped.Empty() {
		return nil, nil, invalid("has no extensions, or something behind them")
	}
	var kept []byte
	for !exts.Empty() {
		var element, fields cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !exts.ReadASN1Element(&element, cbasn1.SEQUENCE) {
			return nil, nil, invalid("has an extension that is not DER")
		}
		fields = element
		if !fields.ReadASN1(&fields, cbasn1.SEQUENCE) || !fields.ReadASN1ObjectIdentifier(&oid) {
			return nil, nil, invalid("has an extension that is not DER")
		}
		if !oid.Equal(oidSCTList()) {
			kept = append(kept, element...)
			continue
		}
		if list != nil {
			return nil, nil, invalid("has two lists of certificate timestamps")
		}
		var value cryptobyte.String
		if !fields.SkipOptionalASN1(cbasn1.BOOLEAN) || !fields.ReadASN1(&value, cbasn1.OCTET_STRING) || !fields.Empty() {
			return nil, nil, invalid("has an extension that is not DER")
		}
		list = value
	}
	if list == nil {
		return nil, nil, invalid("has no certificate timestamp")
	}
	without, err = tbsCertificate(head, kept)
	return without, list, err
}

// soleTimestamp reads the extension's value: one SCT of version 1 as signSCT makes
// them, whose timestamp it returns.
func soleTimestamp(value []byte) (millis int64, err error) {
	der := cryptobyte.String(value)
	var octets, list, sct, logID, extensions, sig cryptobyte.String
	var version, hash, algorithm uint8
	var at uint64
	if !der.ReadASN1(&octets, cbasn1.OCTET_STRING) || !der.Empty() ||
		!octets.ReadUint16LengthPrefixed(&list) || !octets.Empty() ||
		!list.ReadUint16LengthPrefixed(&sct) || !list.Empty() {
		return 0, refusal.New(CodeCertificateInvalid, "the certificate's timestamps are not a list of one")
	}
	if !sct.ReadUint8(&version) || version != sctVersion1 ||
		!sct.ReadBytes((*[]byte)(&logID), sha256.Size) || !sct.ReadUint64(&at) ||
		!sct.ReadUint16LengthPrefixed(&extensions) || !extensions.Empty() ||
		!sct.ReadUint8(&hash) || hash != hashSHA256 || !sct.ReadUint8(&algorithm) || algorithm != signatureECDSA ||
		!sct.ReadUint16LengthPrefixed(&sig) || !sct.Empty() {
		return 0, refusal.New(CodeCertificateInvalid, "the certificate's timestamp is not one of ours: version 1, no extensions, ECDSA with SHA-256")
	}
	return int64(at), nil
}
