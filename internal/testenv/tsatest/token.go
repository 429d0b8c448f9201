package tsatest

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// tstInfo is what a token says.
type tstInfo struct {
	hash      asn1.ObjectIdentifier
	imprint   []byte
	at        string
	nonce     *big.Int // nil: none
	extension bool     // a critical one that nobody knows
}

func oidSHA256() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1} }
func oidSHA512() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3} }
func oidSignedData() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
}
func oidTSTInfo() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
}

func context(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

func generalized(t time.Time) string { return t.UTC().Format("20060102150405Z") }

func addAlgorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1NULL()
	})
}

func (i *tstInfo) marshal() ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1})
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addAlgorithm(b, i.hash)
			b.AddASN1OctetString(i.imprint)
		})
		b.AddASN1BigInt(serial)
		b.AddASN1(cbasn1.GeneralizedTime, func(b *cryptobyte.Builder) { b.AddBytes([]byte(i.at)) })
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(1) }) // accuracy: a second
		if i.nonce != nil {
			b.AddASN1BigInt(i.nonce)
		}
		if i.extension {
			b.AddASN1(context(1), func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 2})
					b.AddASN1Boolean(true)
					b.AddASN1OctetString(nil)
				})
			})
		}
	})
	return b.Bytes()
}

// signedToken is a CMS SignedData over info, signed by a under leaf, with the
// certificates in the given order.
func signedToken(a *authority, leaf *x509.Certificate, info []byte, certificates ...*x509.Certificate) ([]byte, error) {
	attrs, err := signedAttributes(leaf, info)
	if err != nil {
		return nil, err
	}
	var set cryptobyte.Builder
	set.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(attrs) })
	tbs, err := set.Bytes()
	if err != nil {
		return nil, err
	}
	sig, err := a.sign(tbs)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSignedData())
		b.AddASN1(context(0), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(3)
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { addAlgorithm(b, oidSHA256()) })
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidTSTInfo())
					b.AddASN1(context(0), func(b *cryptobyte.Builder) { b.AddASN1OctetString(info) })
				})
				b.AddASN1(context(0), func(b *cryptobyte.Builder) {
					for _, c := range certificates {
						b.AddBytes(c.Raw)
					}
				})
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1Int64(1)
						b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddBytes(leaf.RawIssuer)
							b.AddASN1BigInt(leaf.SerialNumber)
						})
						addAlgorithm(b, oidSHA256())
						b.AddASN1(context(0), func(b *cryptobyte.Builder) { b.AddBytes(attrs) })
						b.AddBytes(signatureAlgorithm(a.key.Public()))
						b.AddASN1OctetString(sig)
					})
				})
			})
		})
	})
	return b.Bytes()
}

// signedAttributes are contentType, messageDigest and signingCertificateV2, in the
// order of their encodings, as DER wants a SET OF.
func signedAttributes(leaf *x509.Certificate, info []byte) ([]byte, error) {
	digest, certHash := sha256.Sum256(info), sha256.Sum256(leaf.Raw)
	var b cryptobyte.Builder
	attribute := func(oid asn1.ObjectIdentifier, value func(*cryptobyte.Builder)) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid)
			b.AddASN1(cbasn1.SET, value)
		})
	}
	attribute(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidTSTInfo())
	})
	attribute(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}, func(b *cryptobyte.Builder) {
		b.AddASN1OctetString(digest[:])
	})
	attribute(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1OctetString(certHash[:]) })
			})
		})
	})
	return b.Bytes()
}

// response is a TimeStampResp; text and failure are left out where empty or negative.
func response(status int64, text string, failure int, token []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(status)
			if text != "" {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
				})
			}
			if failure >= 0 {
				bits := make([]byte, failure/8+1)
				bits[failure/8] = 0x80 >> (failure % 8)
				b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) {
					b.AddUint8(uint8(7 - failure%8))
					b.AddBytes(bits)
				})
			}
		})
		b.AddBytes(token)
	})
	return b.Bytes()
}

// indefinite writes the outer element with an indefinite length, as BER may.
func indefinite(der []byte) []byte {
	in := cryptobyte.String(der)
	var content cryptobyte.String
	if !in.ReadASN1(&content, cbasn1.SEQUENCE) {
		panic("not a SEQUENCE") // written above
	}
	out := append([]byte{0x30, 0x80}, content...)
	return append(out, 0, 0)
}
