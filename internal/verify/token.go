package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/assay-build/assay/internal/refusal"
)

// The object identifiers of a timestamp token (RFC 3161, RFC 5652, RFC 5816), as the
// contents of their DER encoding, which is how they are compared.
var (
	oidSignedData    = derOID(1, 2, 840, 113549, 1, 7, 2)
	oidTSTInfo       = derOID(1, 2, 840, 113549, 1, 9, 16, 1, 4)
	oidContentType   = derOID(1, 2, 840, 113549, 1, 9, 3)
	oidMessageDigest = derOID(1, 2, 840, 113549, 1, 9, 4)
	oidSigningCertV2 = derOID(1, 2, 840, 113549, 1, 9, 16, 2, 47)
	oidSHA256        = derOID(2, 16, 840, 1, 101, 3, 4, 2, 1)
	oidSHA384        = derOID(2, 16, 840, 1, 101, 3, 4, 2, 2)
	oidSHA512        = derOID(2, 16, 840, 1, 101, 3, 4, 2, 3)
	oidECDSASHA256   = derOID(1, 2, 840, 10045, 4, 3, 2)
)

func derOID(arcs ...int) string {
	var b cryptobyte.Builder
	b.AddASN1ObjectIdentifier(arcs)
	return string(b.BytesOrPanic()[2:]) // all are short: one octet of length
}

// token is a TimeStampResp of our own authority, taken apart. The slices alias the input.
type token struct {
	tstInfo    []byte
	issuer     []byte
	serial     cryptobyte.String
	attributes []byte // signedAttrs, DER with its [0] tag
	signature  []byte
}

// parseToken reads a response of the one shape that our authority writes. Every byte
// is either held against what it must be or covered by the signature, so there is no
// byte that can be changed and not noticed.
func parseToken(der []byte) (*token, bool) {
	in := cryptobyte.String(der)
	var resp, status, info, wrapped, data cryptobyte.String
	var granted int64
	t := new(token)
	ok := in.ReadASN1(&resp, cbasn1.SEQUENCE) && in.Empty() &&
		resp.ReadASN1(&status, cbasn1.SEQUENCE) && status.ReadASN1Integer(&granted) && granted == 0 && status.Empty() &&
		resp.ReadASN1(&info, cbasn1.SEQUENCE) && resp.Empty() &&
		readOID(&info, oidSignedData) &&
		info.ReadASN1(&wrapped, cbasn1.Tag(0).ContextSpecific().Constructed()) && info.Empty() &&
		wrapped.ReadASN1(&data, cbasn1.SEQUENCE) && wrapped.Empty() &&
		t.readSignedData(&data)
	return t, ok
}

func (t *token) readSignedData(data *cryptobyte.String) bool {
	var version int64
	var digests, content, wrapped, infos, info cryptobyte.String
	ok := data.ReadASN1Integer(&version) && version == 3 &&
		data.ReadASN1(&digests, cbasn1.SET) && readAlgorithm(&digests, oidSHA256) && digests.Empty() &&
		data.ReadASN1(&content, cbasn1.SEQUENCE) && readOID(&content, oidTSTInfo) &&
		content.ReadASN1(&wrapped, cbasn1.Tag(0).ContextSpecific().Constructed()) && content.Empty() &&
		wrapped.ReadASN1Bytes(&t.tstInfo, cbasn1.OCTET_STRING) && wrapped.Empty() &&
		data.ReadASN1(&infos, cbasn1.SET) && data.Empty() &&
		infos.ReadASN1(&info, cbasn1.SEQUENCE) && infos.Empty()
	return ok && t.readSignerInfo(&info)
}

func (t *token) readSignerInfo(info *cryptobyte.String) bool {
	var version int64
	var sid, attrs cryptobyte.String
	ok := info.ReadASN1Integer(&version) && version == 1 &&
		info.ReadASN1(&sid, cbasn1.SEQUENCE) &&
		readElement(&sid, &t.issuer, cbasn1.SEQUENCE) && sid.ReadASN1(&t.serial, cbasn1.INTEGER) && sid.Empty() &&
		readAlgorithm(info, oidSHA256) &&
		info.ReadASN1Element(&attrs, cbasn1.Tag(0).ContextSpecific().Constructed()) &&
		readAlgorithm(info, oidECDSASHA256) &&
		info.ReadASN1Bytes(&t.signature, cbasn1.OCTET_STRING) && info.Empty()
	t.attributes = attrs
	return ok
}

func readElement(s *cryptobyte.String, out *[]byte, tag cbasn1.Tag) bool {
	var v cryptobyte.String
	ok := s.ReadASN1Element(&v, tag)
	*out = v
	return ok
}

func readOID(s *cryptobyte.String, want string) bool {
	var got cryptobyte.String
	return s.ReadASN1(&got, cbasn1.OBJECT_IDENTIFIER) && string(got) == want
}

// readAlgorithm takes an AlgorithmIdentifier with absent or NULL parameters.
func readAlgorithm(s *cryptobyte.String, want string) bool {
	var alg, null cryptobyte.String
	if !s.ReadASN1(&alg, cbasn1.SEQUENCE) || !readOID(&alg, want) {
		return false
	}
	return alg.Empty() || alg.ReadASN1(&null, cbasn1.NULL) && null.Empty() && alg.Empty()
}

// attributes are the three signed attributes that RFC 3161 needs. Each occurs once.
type attributes struct {
	messageDigest, certHash []byte
	seen                    int
}

func parseAttributes(der []byte) (*attributes, bool) {
	in := cryptobyte.String(der)
	var set cryptobyte.String
	if !in.ReadASN1(&set, cbasn1.Tag(0).ContextSpecific().Constructed()) {
		return nil, false
	}
	a := new(attributes)
	for !set.Empty() {
		var attr, oid, values cryptobyte.String
		if !set.ReadASN1(&attr, cbasn1.SEQUENCE) || !attr.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) ||
			!attr.ReadASN1(&values, cbasn1.SET) || !attr.Empty() || !a.read(string(oid), &values) || !values.Empty() {
			return nil, false
		}
	}
	return a, a.seen == 1|2|4
}

// read takes one attribute, once. An attribute that we would not check is refused.
func (a *attributes) read(oid string, values *cryptobyte.String) bool {
	once := func(bit int) bool {
		first := a.seen&bit == 0
		a.seen |= bit
		return first
	}
	switch oid {
	case oidContentType:
		return once(1) && readOID(values, oidTSTInfo)
	case oidMessageDigest:
		return once(2) && values.ReadASN1Bytes(&a.messageDigest, cbasn1.OCTET_STRING)
	case oidSigningCertV2:
		// SigningCertificateV2 { certs SEQ OF ESSCertIDv2 { certHash, issuerSerial } }, where
		// the digest algorithm is absent because it is the default, SHA-256.
		var v2, certs, id cryptobyte.String
		return once(4) && values.ReadASN1(&v2, cbasn1.SEQUENCE) && v2.ReadASN1(&certs, cbasn1.SEQUENCE) &&
			certs.ReadASN1(&id, cbasn1.SEQUENCE) && certs.Empty() &&
			id.ReadASN1Bytes(&a.certHash, cbasn1.OCTET_STRING)
	}
	return false
}

// readTSTInfo returns what was timestamped and when. What follows the time does not
// matter here: the authority signed it.
func readTSTInfo(der []byte) (hash crypto.Hash, imprint []byte, at time.Time, ok bool) {
	in := cryptobyte.String(der)
	var info, mi cryptobyte.String
	var version int64
	ok = in.ReadASN1(&info, cbasn1.SEQUENCE) && in.Empty() &&
		info.ReadASN1Integer(&version) && version == 1 && info.SkipASN1(cbasn1.OBJECT_IDENTIFIER) &&
		info.ReadASN1(&mi, cbasn1.SEQUENCE)
	hash = readDigestAlgorithm(&mi)
	ok = ok && mi.ReadASN1Bytes(&imprint, cbasn1.OCTET_STRING) && mi.Empty() &&
		info.SkipASN1(cbasn1.INTEGER) && info.ReadASN1GeneralizedTime(&at)
	return hash, imprint, at, ok
}

// readDigestAlgorithm reads an AlgorithmIdentifier and returns its SHA-2 digest, 0 for others.
func readDigestAlgorithm(s *cryptobyte.String) crypto.Hash {
	var alg, oid cryptobyte.String
	if !s.ReadASN1(&alg, cbasn1.SEQUENCE) || !alg.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) {
		return 0
	}
	switch string(oid) {
	case oidSHA256:
		return crypto.SHA256
	case oidSHA384:
		return crypto.SHA384
	case oidSHA512:
		return crypto.SHA512
	}
	return 0
}

// checkOwnTimestamp verifies a timestamp of a bundle of ours and says which of the root's
// authorities made it. Most are of our own authority; of another, in whose name a service
// may have its signatures timestamped, it is verified as anybody's is.
func (r *Root) checkOwnTimestamp(der, sig []byte) (at trustedTime, authority int, err error) {
	if t, ok := parseToken(der); ok {
		if tsa := r.findTSA(t); tsa != nil {
			at, err = tsa.check(t, sig)
			return at, tsa.index, err
		}
	}
	return r.checkTimestamp(der, sig)
}

// check verifies a token of this authority over sig. One signature verification; the
// chain was verified when the root was read.
func (tsa *ownTSA) check(t *token, sig []byte) (at trustedTime, err error) {
	hash, imprint, when, ok := readTSTInfo(t.tstInfo)
	attrs, okAttrs := parseAttributes(t.attributes)
	if !ok || !okAttrs || hash != crypto.SHA256 {
		return at, refusal.New(CodeTimestampMalformed, "not a token of our own shape")
	}
	if want := sha256.Sum256(sig); !bytes.Equal(imprint, want[:]) {
		return at, refusal.New(CodeTimestampMismatch, "the timestamp is over other bytes than this signature")
	}
	switch {
	case !within(when, tsa.trustStart, tsa.trustEnd):
		return at, refusal.New(CodeTimestampOutsideAuthority, "%s is outside the trust in %s", stamp(when), tsa.uri)
	case !within(when, tsa.notBefore, tsa.notAfter):
		return at, refusal.New(CodeTimestampOutsideCertificate, "%s is outside the chain of %s", stamp(when), tsa.uri)
	}
	content := sha256.Sum256(t.tstInfo)
	signed := bytes.Clone(t.attributes)
	signed[0] = 0x31 // RFC 5652 section 5.4: signed as a SET OF, whatever tag it travels under
	sum := sha256.Sum256(signed)
	if !bytes.Equal(attrs.messageDigest, content[:]) || !bytes.Equal(attrs.certHash, tsa.leafHash[:]) ||
		!ecdsa.VerifyASN1(tsa.key, sum[:], t.signature) {
		return at, refusal.New(CodeTimestampSignature, "authority %s did not sign this", tsa.uri)
	}
	return trustedTime{at: when, source: tsa.uri}, nil
}

// findTSA finds the authority by the issuer and serial of its leaf. That it is this very
// certificate is checked by its hash among the signed attributes.
func (r *Root) findTSA(t *token) *ownTSA {
	for _, tsa := range r.tsas {
		if bytes.Equal(t.issuer, tsa.leaf.RawIssuer) && bytes.Equal(t.serial, tsa.serial) {
			return tsa
		}
	}
	return nil
}
