package tsaclient

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/assay-build/assay/internal/refusal"
)

func oidSHA256() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1} }
func oidSignedData() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
}
func oidTSTInfo() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
}

// tagged is the tag [n] of a constructed value.
func tagged(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

// newRequest encodes a TimeStampReq (RFC 3161 section 2.4.1).
func newRequest(imprint [sha256.Size]byte, nonce uint64) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidSHA256())
				b.AddASN1NULL()
			})
			b.AddASN1OctetString(imprint[:])
		})
		b.AddASN1Uint64(nonce)
		b.AddASN1Boolean(true) // certReq
	})
	return b.BytesOrPanic() // nothing here is of outside
}

// granted wraps a token into the TimeStampResp that says nothing but "granted".
func granted(token []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(0) })
		b.AddBytes(token)
	})
	return b.BytesOrPanic()
}

// answer is what a granted response says. Who says so is for Check.
type answer struct {
	token   []byte // ContentInfo
	sha256  bool   // the imprint's digest
	imprint []byte
	at      time.Time
	nonce   []byte // DER INTEGER, nil where there is none
}

func (a *answer) isFor(imprint [sha256.Size]byte) bool {
	return a.sha256 && bytes.Equal(a.imprint, imprint[:])
}

// hasNonce compares encodings, so that no other number and no other way to write this
// one is equal.
func (a *answer) hasNonce(nonce uint64) bool {
	var b cryptobyte.Builder
	b.AddASN1Uint64(nonce)
	return bytes.Equal(a.nonce, b.BytesOrPanic())
}

// readAnswer reads a TimeStampResp (RFC 3161 section 2.4.2).
func readAnswer(body []byte) (*answer, error) {
	in := cryptobyte.String(body)
	var resp, status, token cryptobyte.String
	var code int64
	if !in.ReadASN1(&resp, cbasn1.SEQUENCE) || !in.Empty() ||
		!resp.ReadASN1(&status, cbasn1.SEQUENCE) || !status.ReadASN1Integer(&code) {
		return nil, malformed("not one TimeStampResp in DER")
	}
	if code != 0 {
		return nil, refusal.New(CodeRefused, "the authority answers with status %d%s, want 0 (granted)", code, statusText(status))
	}
	if !status.SkipOptionalASN1(cbasn1.SEQUENCE) || !status.Empty() {
		return nil, malformed("the status is granted and something else")
	}
	if !resp.ReadASN1Element(&token, cbasn1.SEQUENCE) || !resp.Empty() {
		return nil, malformed("the status is granted, and there is no token")
	}
	a := &answer{token: token}
	info, err := readToken(token)
	if err != nil {
		return nil, err
	}
	return a, a.readTSTInfo(info)
}

func malformed(text string) error {
	return refusal.New(CodeAnswerInvalid, "the authority's answer: %s", text)
}

// statusText quotes the first of the authority's words, as far as they can be shown.
func statusText(status cryptobyte.String) string {
	var texts, text cryptobyte.String
	if !status.ReadASN1(&texts, cbasn1.SEQUENCE) || !texts.ReadASN1(&text, cbasn1.UTF8String) || !utf8.Valid(text) {
		return ""
	}
	shown := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, string(text))
	if len(shown) > 100 {
		shown = strings.ToValidUTF8(shown[:100], "") + "…"
	}
	return " (" + shown + ")"
}

// readToken returns the TSTInfo of a token: CMS SignedData (RFC 5652) with one signer.
func readToken(token cryptobyte.String) ([]byte, error) {
	var info, wrapped, data, content, octets, signers cryptobyte.String
	var kind, inner asn1.ObjectIdentifier
	var version int64
	var tst []byte
	var certificates cryptobyte.String
	var embedded bool
	ok := token.ReadASN1(&info, cbasn1.SEQUENCE) && info.ReadASN1ObjectIdentifier(&kind) && kind.Equal(oidSignedData()) &&
		info.ReadASN1(&wrapped, tagged(0)) && info.Empty() && wrapped.ReadASN1(&data, cbasn1.SEQUENCE) && wrapped.Empty() &&
		data.ReadASN1Integer(&version) && version == 3 && data.SkipASN1(cbasn1.SET) &&
		data.ReadASN1(&content, cbasn1.SEQUENCE) && content.ReadASN1ObjectIdentifier(&inner) && inner.Equal(oidTSTInfo()) &&
		content.ReadASN1(&octets, tagged(0)) && content.Empty() &&
		octets.ReadASN1Bytes(&tst, cbasn1.OCTET_STRING) && octets.Empty() &&
		data.ReadOptionalASN1(&certificates, &embedded, tagged(0)) && data.SkipOptionalASN1(tagged(1)) &&
		data.ReadASN1(&signers, cbasn1.SET) && data.Empty() && signers.SkipASN1(cbasn1.SEQUENCE) && signers.Empty()
	if !ok {
		return nil, malformed("the token is not CMS SignedData in DER over a TSTInfo with one signer")
	}
	return tst, checkCertificates(certificates)
}

// checkCertificates allows the certificate of the signer and those of authorities. RFC
// 3161 section 2.4.1 lets others be there; a verifier that then looks at the wrong one
// is CVE-2026-39984, and verifiers will read this token for as long as it counts.
func checkCertificates(set cryptobyte.String) error {
	leaves := 0
	for !set.Empty() {
		var der cryptobyte.String
		if !set.ReadASN1Element(&der, cbasn1.SEQUENCE) {
			return malformed("among the certificates is something else")
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return malformed("a certificate in the token cannot be read")
		}
		if !cert.IsCA {
			leaves++
		}
	}
	if leaves > 1 {
		return refusal.New(CodeAnswerInvalid, "the token brings %d certificates that are not of authorities, want at most the signer's", leaves)
	}
	return nil
}

// readTSTInfo reads what is signed (RFC 3161 section 2.4.2).
func (a *answer) readTSTInfo(der []byte) error {
	in := cryptobyte.String(der)
	var info, imprint, algorithm, when, extensions cryptobyte.String
	var version int64
	var hash asn1.ObjectIdentifier
	if !in.ReadASN1(&info, cbasn1.SEQUENCE) || !in.Empty() || !info.ReadASN1Integer(&version) || version != 1 ||
		!info.SkipASN1(cbasn1.OBJECT_IDENTIFIER) ||
		!info.ReadASN1(&imprint, cbasn1.SEQUENCE) || !imprint.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&hash) || !noParameters(algorithm) ||
		!imprint.ReadASN1Bytes(&a.imprint, cbasn1.OCTET_STRING) || !imprint.Empty() ||
		!info.SkipASN1(cbasn1.INTEGER) || !info.ReadASN1(&when, cbasn1.GeneralizedTime) {
		return malformed("what is signed is not a TSTInfo in DER")
	}
	a.sha256 = hash.Equal(oidSHA256())
	if err := a.readTime(string(when)); err != nil {
		return err
	}
	var nonce cryptobyte.String
	if info.PeekASN1Tag(cbasn1.SEQUENCE) && !info.SkipASN1(cbasn1.SEQUENCE) || // accuracy
		info.PeekASN1Tag(cbasn1.BOOLEAN) && !info.SkipASN1(cbasn1.BOOLEAN) || // ordering
		info.PeekASN1Tag(cbasn1.INTEGER) && !info.ReadASN1Element(&nonce, cbasn1.INTEGER) ||
		!info.SkipOptionalASN1(tagged(0)) || // tsa
		!info.ReadOptionalASN1(&extensions, nil, tagged(1)) || !info.Empty() {
		return malformed("the TSTInfo is not whole behind its time")
	}
	a.nonce = nonce
	return checkExtensions(extensions)
}

// readTime takes one form of time. RFC 3161 allows fractions of a second, but Go's
// verifiers do not read them, so such a token would count for nobody.
func (a *answer) readTime(text string) error {
	const layout = "20060102150405Z"
	at, err := time.Parse(layout, text)
	if err != nil || at.Format(layout) != text {
		return refusal.New(CodeTimeInvalid, "the time %.40q is not in whole seconds of UTC, which is all that verifiers read", text)
	}
	a.at = at
	return nil
}

// noParameters takes absent parameters and NULL for the same (RFC 5754 section 2).
func noParameters(rest cryptobyte.String) bool {
	var null cryptobyte.String
	return rest.Empty() || rest.ReadASN1(&null, cbasn1.NULL) && null.Empty() && rest.Empty()
}

// checkExtensions refuses critical extensions: they change what the token means.
func checkExtensions(extensions cryptobyte.String) error {
	for !extensions.Empty() {
		var ext cryptobyte.String
		var critical bool
		var id asn1.ObjectIdentifier
		if !extensions.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1ObjectIdentifier(&id) ||
			ext.PeekASN1Tag(cbasn1.BOOLEAN) && !ext.ReadASN1Boolean(&critical) || !ext.SkipASN1(cbasn1.OCTET_STRING) || !ext.Empty() {
			return malformed("an extension of the TSTInfo is malformed")
		}
		if critical {
			return refusal.New(CodeAnswerInvalid, "the token has the critical extension %s, which is unknown here", id)
		}
	}
	return nil
}
