package signing

// The little DER that a timestamp token needs. Everything written here is signed
// by us or constant, so there is no parser.

const (
	tagInteger         = 0x02
	tagOctetString     = 0x04
	tagGeneralizedTime = 0x18
	tagSequence        = 0x30
	tagSet             = 0x31
	tagContext0        = 0xa0 // [0], constructed
	tagContext4        = 0xa4 // [4], constructed
)

// Encoded object identifiers; a test compares them with encoding/asn1.
const (
	oidSignedData           = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"         // 1.2.840.113549.1.7.2
	oidContentType          = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03"         // 1.2.840.113549.1.9.3
	oidMessageDigest        = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04"         // 1.2.840.113549.1.9.4
	oidTSTInfo              = "\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01\x04" // 1.2.840.113549.1.9.16.1.4
	oidSigningCertificateV2 = "\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x02\x2f" // 1.2.840.113549.1.9.16.2.47
	oidSHA256               = "\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01"         // 2.16.840.1.101.3.4.2.1
	oidECDSAWithSHA256      = "\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"             // 1.2.840.10045.4.3.2
	// oidAnyPolicy stands where a TSA names its policy: no particular one is claimed.
	oidAnyPolicy = "\x06\x04\x55\x1d\x20\x00" // 2.5.29.32.0

	derNull = "\x05\x00"
)

// der returns one element: tag, length in the shortest form, and the parts one
// after the other. Contents stay below 64 KiB: certificates' names are the only
// part whose length is not fixed, and x509 limits those far lower.
func der(tag byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	out := make([]byte, 0, n+4)
	switch {
	case n < 0x80:
		out = append(out, tag, byte(n))
	case n < 0x100:
		out = append(out, tag, 0x81, byte(n))
	default:
		out = append(out, tag, 0x82, byte(n>>8), byte(n))
	}
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// derInteger encodes a non-negative number given in big-endian without leading zeros.
func derInteger(b []byte) []byte {
	if len(b) == 0 || b[0]&0x80 != 0 {
		return der(tagInteger, []byte{0}, b)
	}
	return der(tagInteger, b)
}

// derAttribute encodes a CMS attribute with one value.
func derAttribute(oid string, value []byte) []byte {
	return der(tagSequence, []byte(oid), der(tagSet, value))
}
