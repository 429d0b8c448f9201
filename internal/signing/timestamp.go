package signing

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeTimestampOutsideValidity refuses to stamp at a time at which the chain is not valid.
	CodeTimestampOutsideValidity refusal.Code = "TIMESTAMP_OUTSIDE_VALIDITY"
	// CodeTimestampEmpty refuses to stamp nothing.
	CodeTimestampEmpty refusal.Code = "TIMESTAMP_EMPTY"
)

// TimestampAuthority issues RFC 3161 timestamps over signatures. It may be used
// from many goroutines.
//
// The token is encoded here and not by a library: the usual one puts the wall
// clock into the signed attributes whatever time it is told, and most of its cost
// is encoding by reflection what is the same in every token of one authority.
// Tests hold the result against that library, sigstore-go and OpenSSL.
//
// The token does not embed the leaf certificate. Verifiers take it from the
// trusted root, which must name it anyway, and the token identifies it by hash.
type TimestampAuthority struct {
	signer              Signer
	now                 func() time.Time
	chain               []*x509.Certificate
	notBefore, notAfter time.Time

	// DER that is the same in every token of this authority.
	infoTail        []byte // TSTInfo behind genTime: accuracy, tsa
	sid             []byte // SignerInfo.sid
	attrCertificate []byte // signed attribute: which certificate signs
}

// NewTimestampAuthority returns an authority that signs with signer under chain
// (leaf first, root last) and tells the time of now.
func NewTimestampAuthority(signer Signer, chain []*x509.Certificate, now func() time.Time) (*TimestampAuthority, error) {
	pub, ok := signer.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, refusal.New(CodeTimestampChainInvalid, "the timestamp key is not ECDSA")
	}
	if len(chain) == 0 {
		return nil, refusal.New(CodeTimestampChainInvalid, "the chain is empty")
	}
	a := &TimestampAuthority{signer: signer, now: now, chain: slices.Clone(chain), notBefore: chain[0].NotBefore, notAfter: chain[0].NotAfter}
	for _, cert := range chain[1:] {
		if cert.NotBefore.After(a.notBefore) {
			a.notBefore = cert.NotBefore
		}
		if cert.NotAfter.Before(a.notAfter) {
			a.notAfter = cert.NotAfter
		}
	}
	if err := checkChain(chain, pub, a.notBefore); err != nil {
		return nil, err
	}
	leaf := chain[0]
	a.infoTail = slices.Concat(der(tagSequence, derInteger([]byte{1})), der(tagContext0, der(tagContext4, leaf.RawSubject)))
	a.sid = der(tagSequence, leaf.RawIssuer, derInteger(leaf.SerialNumber.Bytes()))
	a.attrCertificate = signingCertificateV2(leaf)
	return a, nil
}

// Chain returns the certificate chain, leaf first, root last.
func (a *TimestampAuthority) Chain() []*x509.Certificate { return slices.Clone(a.chain) }

// Timestamp returns a DER TimeStampResp that says when sig existed: its message
// imprint is the SHA-256 of sig, as Sigstore bundles want it. The time is cut to
// whole seconds and its accuracy stated as one second.
func (a *TimestampAuthority) Timestamp(ctx context.Context, sig []byte) ([]byte, error) {
	if len(sig) == 0 {
		return nil, refusal.New(CodeTimestampEmpty, "there is no signature to timestamp")
	}
	at := a.now().UTC().Truncate(time.Second)
	if at.Before(a.notBefore) || at.After(a.notAfter) {
		return nil, refusal.New(CodeTimestampOutsideValidity, "the clock says %s; the timestamp certificate is valid from %s to %s",
			at.Format(time.RFC3339), a.notBefore.Format(time.RFC3339), a.notAfter.Format(time.RFC3339))
	}
	imprint := sha256.Sum256(sig)
	serial := randomSerialBytes()
	info := der(tagSequence,
		derInteger([]byte{1}), []byte(oidAnyPolicy),
		der(tagSequence, der(tagSequence, []byte(oidSHA256), []byte(derNull)), der(tagOctetString, imprint[:])),
		derInteger(serial[:]),
		der(tagGeneralizedTime, []byte(at.Format("20060102150405Z"))),
		a.infoTail)
	infoDigest := sha256.Sum256(info)
	attrs := slices.Concat(
		derAttribute(oidContentType, []byte(oidTSTInfo)),
		derAttribute(oidMessageDigest, der(tagOctetString, infoDigest[:])),
		a.attrCertificate)
	// RFC 5652 section 5.4: what is signed is the DER of the attributes as a SET OF,
	// not the [0] that stands in the message.
	digest := sha256.Sum256(der(tagSet, attrs))
	signature, err := a.signer.Sign(ctx, digest[:])
	if err != nil {
		return nil, fmt.Errorf("sign timestamp: %w", err)
	}
	return a.response(info, attrs, signature), nil
}

// response wraps the signed TSTInfo into CMS SignedData and that into a
// TimeStampResp with status granted.
func (a *TimestampAuthority) response(info, attrs, signature []byte) []byte {
	sha := der(tagSequence, []byte(oidSHA256))
	signerInfo := der(tagSequence,
		derInteger([]byte{1}), a.sid, sha,
		der(tagContext0, attrs),
		der(tagSequence, []byte(oidECDSAWithSHA256)), der(tagOctetString, signature))
	// RFC 5652 section 5.1: version 3, because the content is not id-data.
	signedData := der(tagSequence,
		derInteger([]byte{3}), der(tagSet, sha),
		der(tagSequence, []byte(oidTSTInfo), der(tagContext0, der(tagOctetString, info))),
		der(tagSet, signerInfo))
	token := der(tagSequence, []byte(oidSignedData), der(tagContext0, signedData))
	return der(tagSequence, der(tagSequence, derInteger([]byte{0})), token)
}

// signingCertificateV2 is the attribute of RFC 5035 that RFC 3161 section 2.4.2
// requires: it names the signing certificate, so that no other certificate for
// the same key can be put in its place.
func signingCertificateV2(leaf *x509.Certificate) []byte {
	hash := sha256.Sum256(leaf.Raw)
	certID := der(tagSequence,
		der(tagOctetString, hash[:]),
		der(tagSequence,
			der(tagSequence, der(tagContext4, leaf.RawIssuer)),
			derInteger(leaf.SerialNumber.Bytes())))
	return derAttribute(oidSigningCertificateV2, der(tagSequence, der(tagSequence, certID)))
}
