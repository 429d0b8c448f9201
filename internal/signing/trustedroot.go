package signing

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	trustrootpb "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const trustedRootMediaType = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"

// TrustedRoot returns the Sigstore trusted root of the instance: its log keys and
// its timestamp chains, each with its validity. There are no certificate
// authorities; the keys that sign envelopes are plain (see AttestationKeysPEM).
// Revoked keys are left out (see StateRevoked).
//
// The same keyset always gives the same bytes: one line of JSON and a newline,
// as gh wants it.
func (k *Keyset) TrustedRoot() ([]byte, error) {
	root := &trustrootpb.TrustedRoot{MediaType: trustedRootMediaType}
	// sigstore clients take the origin of the log from the host of this URL.
	base := "https://" + k.Host
	if strings.Contains(k.Host, ":") { // IPv6
		base = "https://[" + k.Host + "]"
	}
	for _, e := range believed(k.Log) {
		id := sha256.Sum256(e.spki)
		root.Tlogs = append(root.Tlogs, &trustrootpb.TransparencyLogInstance{
			BaseUrl:       base,
			HashAlgorithm: commonpb.HashAlgorithm_SHA2_256,
			PublicKey: &commonpb.PublicKey{
				RawBytes:   e.spki,
				KeyDetails: commonpb.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256,
				ValidFor:   validFor(e),
			},
			LogId: &commonpb.LogId{KeyId: id[:]},
		})
	}
	for _, e := range believed(k.Timestamp) {
		top := e.Chain[len(e.Chain)-1].Subject
		tsa := &trustrootpb.CertificateAuthority{
			Subject:   &commonpb.DistinguishedName{Organization: firstOf(top.Organization), CommonName: top.CommonName},
			Uri:       base,
			CertChain: &commonpb.X509CertificateChain{},
			ValidFor:  validFor(e),
		}
		for _, cert := range e.Chain {
			tsa.CertChain.Certificates = append(tsa.CertChain.Certificates, &commonpb.X509Certificate{RawBytes: cert.Raw})
		}
		root.TimestampAuthorities = append(root.TimestampAuthorities, tsa)
	}
	loose, err := protojson.Marshal(root)
	if err != nil {
		return nil, fmt.Errorf("encode trusted root: %w", err)
	}
	// protojson varies its white space on purpose, and only that; Compact takes it out.
	var line bytes.Buffer
	if err := json.Compact(&line, loose); err != nil {
		return nil, fmt.Errorf("encode trusted root: %w", err)
	}
	line.WriteByte('\n')
	return line.Bytes(), nil
}

// validFor always states a start: verifiers differ on what a missing one means.
func validFor(e KeyEntry) *commonpb.TimeRange {
	r := &commonpb.TimeRange{Start: timestamppb.New(e.NotBefore)}
	if !e.NotAfter.IsZero() {
		r.End = timestamppb.New(e.NotAfter)
	}
	return r
}

// believed returns the keys that are not revoked, oldest first, which is the order
// of trusted roots.
func believed(entries []KeyEntry) []KeyEntry {
	kept := slices.DeleteFunc(slices.Clone(entries), func(e KeyEntry) bool { return e.State == StateRevoked })
	slices.SortFunc(kept, func(a, b KeyEntry) int {
		return cmp.Or(a.NotBefore.Compare(b.NotBefore), cmp.Compare(a.KeyID, b.KeyID))
	})
	return kept
}

func firstOf(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}
