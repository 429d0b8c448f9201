package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"github.com/digitorus/pkcs7"
	sgroot "github.com/sigstore/sigstore-go/pkg/root"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeTimestampMalformed refuses a timestamp that is not an RFC 3161 response.
	CodeTimestampMalformed refusal.Code = "TIMESTAMP_MALFORMED"
	// CodeTimestampDuplicate refuses a second timestamp of one authority.
	CodeTimestampDuplicate refusal.Code = "TIMESTAMP_DUPLICATE"
	// CodeTimestampMismatch refuses a genuine timestamp of something else.
	CodeTimestampMismatch refusal.Code = "TIMESTAMP_MISMATCH"
	// CodeTimestampUntrusted refuses a timestamp of an authority that the root does not list.
	CodeTimestampUntrusted refusal.Code = "TIMESTAMP_UNTRUSTED"
	// CodeTimestampEKU refuses a timestamp by a certificate that is not for
	// timestamping, critically and alone.
	CodeTimestampEKU refusal.Code = "TIMESTAMP_CERTIFICATE_EKU"
	// CodeTimestampOutsideAuthority refuses a time outside the root's window for the authority.
	CodeTimestampOutsideAuthority refusal.Code = "TIMESTAMP_OUTSIDE_AUTHORITY_VALIDITY"
	// CodeTimestampOutsideCertificate refuses a time at which the authority's chain was not valid.
	CodeTimestampOutsideCertificate refusal.Code = "TIMESTAMP_OUTSIDE_CERTIFICATE_VALIDITY"
	// CodeTimestampSignature refuses a timestamp that its authority did not sign.
	CodeTimestampSignature refusal.Code = "TIMESTAMP_SIGNATURE_INVALID"
	// CodeNoTrustedTime refuses a bundle that nobody trusted has dated. A log's
	// integratedTime without its promise is a number anyone can write.
	CodeNoTrustedTime refusal.Code = "NO_TRUSTED_TIME"
)

// checkTimestamps verifies every timestamp over sig. sigstore-go decides; where it
// refuses, classifyTimestamp finds out why.
func (v *Verifier) checkTimestamps(stamps [][]byte, sig []byte) ([]trustedTime, error) {
	var times []trustedTime
	seen := make(map[int]bool)
	for i, der := range stamps {
		field := fmt.Sprintf("verificationMaterial.timestampVerificationData.rfc3161Timestamps[%d]", i)
		at, authority, err := v.root.checkTimestamp(der, sig)
		if err != nil {
			var r *refusal.Error
			if errors.As(err, &r) {
				err = r.InField(field)
			}
			return nil, err
		}
		if seen[authority] {
			return nil, refusal.New(CodeTimestampDuplicate, "a second timestamp of %s", at.source).InField(field)
		}
		seen[authority] = true
		times = append(times, at)
	}
	return times, nil
}

// CheckTimestamp verifies an RFC 3161 response over sig, of any of the root's timestamp
// authorities and in any shape that its standard allows, as Verify does for the
// timestamps of foreign bundles. It returns the time that was signed. It is for those who
// take timestamps of an authority that they do not run: what it accepts, a bundle may hold.
func (r *Root) CheckTimestamp(der, sig []byte) (time.Time, error) {
	at, _, err := r.checkTimestamp(der, sig)
	if err != nil {
		return time.Time{}, err
	}
	return at.at, nil
}

// maxTimestampBytes is several times what a timestamp with a chain of certificates needs.
const maxTimestampBytes = 64 << 10

// checkTimestamp verifies one timestamp and says which authority made it. A panic in
// the ASN.1 libraries below, which are older than the attacks on them, is a refusal.
func (r *Root) checkTimestamp(der, sig []byte) (at trustedTime, authority int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = refusal.New(CodeTimestampMalformed, "%v", p)
		}
	}()
	if len(der) > maxTimestampBytes {
		return at, 0, refusal.New(CodeTimestampMalformed, "%d bytes, limit %d", len(der), maxTimestampBytes)
	}
	token, ok := grantedToken(der)
	if !ok || !strictDER(der, 0) || !wellFramed(token) {
		return at, 0, refusal.New(CodeTimestampMalformed, "not a granted RFC 3161 response in DER")
	}
	for i, tsa := range r.sigstore.TimestampingAuthorities() {
		if ts, err := tsa.Verify(der, sig); err == nil {
			return trustedTime{at: ts.Time, source: ts.URI}, i, nil
		}
	}
	return at, 0, r.classifyTimestamp(token, sig)
}

// grantedToken takes the token out of a TimeStampResp: one DER value, of a status that
// grants and a token. Whether the token is well made is for its verifiers.
func grantedToken(der []byte) ([]byte, bool) {
	var resp struct {
		Status struct{ Status int }
		Token  asn1.RawValue `asn1:"optional"`
	}
	rest, err := asn1.Unmarshal(der, &resp)
	return resp.Token.FullBytes, err == nil && len(rest) == 0 && resp.Status.Status == 0 && len(resp.Token.Bytes) > 0
}

// maxDERDepth is several times what a timestamp with certificates needs.
const maxDERDepth = 32

// strictDER says whether der is whole elements with minimal lengths, all the way down.
// The libraries below convert BER first, which gives one token many encodings.
func strictDER(der cryptobyte.String, depth int) bool {
	for !der.Empty() {
		var inner cryptobyte.String
		var tag cbasn1.Tag
		if !der.ReadAnyASN1(&inner, &tag) {
			return false
		}
		if constructed := tag&0x20 != 0; constructed && (depth == maxDERDepth || !strictDER(inner, depth+1)) {
			return false
		}
	}
	return true
}

// wellFramed checks the parts of a token that neither its signature covers nor the
// libraries below look at. RFC 3161 section 2.4.2: the content type MUST be
// id-ct-TSTInfo; RFC 5652 sections 5.1 and 5.3: the versions that follow from it.
func wellFramed(token []byte) bool {
	const context0 = cbasn1.Tag(0x80 | 0x20)
	in := cryptobyte.String(token)
	var info, wrapped, data, digests, content, octets, infos, signer cryptobyte.String
	var version int64
	ok := in.ReadASN1(&info, cbasn1.SEQUENCE) && in.Empty() && readOID(&info, oidSignedData) &&
		info.ReadASN1(&wrapped, context0) && info.Empty() && wrapped.ReadASN1(&data, cbasn1.SEQUENCE) && wrapped.Empty() &&
		data.ReadASN1Integer(&version) && version == 3 && data.ReadASN1(&digests, cbasn1.SET) &&
		data.ReadASN1(&content, cbasn1.SEQUENCE) && readOID(&content, oidTSTInfo) &&
		content.ReadASN1(&octets, context0) && content.Empty() &&
		octets.SkipASN1(cbasn1.OCTET_STRING) && octets.Empty() &&
		data.SkipOptionalASN1(context0) && data.SkipOptionalASN1(context0|1) &&
		data.ReadASN1(&infos, cbasn1.SET) && data.Empty() && infos.ReadASN1(&signer, cbasn1.SEQUENCE) && infos.Empty()
	if !ok || !signer.ReadASN1Integer(&version) || version != 1 || !signer.SkipASN1(cbasn1.SEQUENCE) {
		return false
	}
	// The one signer's digest algorithm is announced outside, and nothing else is.
	announced := readDigestAlgorithm(&digests)
	return announced != 0 && digests.Empty() && announced == readDigestAlgorithm(&signer)
}

// classifyTimestamp says why no authority accepted a timestamp: it walks the same
// steps and names the first that fails. It can only choose between refusals.
func (r *Root) classifyTimestamp(token, sig []byte) error {
	p7, err := pkcs7.Parse(token)
	if err != nil || len(p7.Signers) != 1 {
		return refusal.New(CodeTimestampMalformed, "not a token with one signer")
	}
	h, imprint, when, ok := readTSTInfo(p7.Content)
	switch {
	case !ok:
		return refusal.New(CodeTimestampMalformed, "what is signed is not a TSTInfo")
	case h == 0:
		return refusal.New(CodeTimestampMismatch, "not over a SHA-2 digest")
	}
	sum := h.New()
	sum.Write(sig)
	if !bytes.Equal(sum.Sum(nil), imprint) {
		return refusal.New(CodeTimestampMismatch, "the timestamp is over other bytes than this signature")
	}
	id := p7.Signers[0].IssuerAndSerialNumber
	for _, ta := range r.sigstore.TimestampingAuthorities() {
		tsa, ok := ta.(*sgroot.SigstoreTimestampingAuthority)
		if ok && tsa.Leaf != nil && bytes.Equal(tsa.Leaf.RawIssuer, id.IssuerName.FullBytes) && tsa.Leaf.SerialNumber.Cmp(id.SerialNumber) == 0 {
			return classifyKnownAuthority(tsa, when, p7.Certificates)
		}
	}
	return refusal.New(CodeTimestampUntrusted, "the timestamp authority is not in the trusted root")
}

func classifyKnownAuthority(tsa *sgroot.SigstoreTimestampingAuthority, at time.Time, embedded []*x509.Certificate) error {
	for _, c := range embedded {
		if c.SerialNumber.Cmp(tsa.Leaf.SerialNumber) == 0 && bytes.Equal(c.RawIssuer, tsa.Leaf.RawIssuer) && !c.Equal(tsa.Leaf) {
			return refusal.New(CodeTimestampUntrusted, "the timestamp brings another certificate of the authority's name")
		}
	}
	if err := checkTSACertificate(tsa.Leaf); err != nil {
		return err
	}
	if !within(at, tsa.ValidityPeriodStart, tsa.ValidityPeriodEnd) {
		return refusal.New(CodeTimestampOutsideAuthority, "%s, authority %s is trusted from %s to %s",
			stamp(at), tsa.URI, stamp(tsa.ValidityPeriodStart), stamp(tsa.ValidityPeriodEnd))
	}
	if from, to := chainWindow(tsa); !within(at, from, to) {
		return refusal.New(CodeTimestampOutsideCertificate, "%s, the chain of %s is valid from %s to %s",
			stamp(at), tsa.URI, stamp(from), stamp(to))
	}
	return refusal.New(CodeTimestampSignature, "authority %s did not sign this", tsa.URI)
}

// within takes both ends as inside and a zero end as open.
func within(t, start, end time.Time) bool {
	return (start.IsZero() || !t.Before(start)) && (end.IsZero() || !t.After(end))
}
