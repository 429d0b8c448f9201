package signing

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	trustrootpb "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const trustedRootMediaType = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"

// ExternalTSA is a timestamp authority beside the instance's own that verifiers are to
// believe.
type ExternalTSA struct {
	URI   string
	Chain []*x509.Certificate // leaf first, root last
}

// TrustedRoot returns the Sigstore trusted root of the instance: its logs, its
// timestamp chains, its certificate authorities, each with its validity, and the
// timestamp authorities given. Keys that sign envelopes without a certificate are not
// part of it (see VerifierKeys). Keys of which nothing is believed are left out.
//
// A certificate authority stands in it by its intermediates: one entry for each CA and
// each day on which intermediates begin, with the certificates of that day before the
// root. So the entries of past days never change, and a verifier that is handed one
// intermediate more replaces one entry. A CA without intermediates has no entry yet.
// The logs are listed a second time as certificate transparency logs once there is
// or was a ca key: they sign the timestamps that certificates carry.
//
// The same keyset always gives the same bytes: one line of JSON and a newline,
// as gh wants it.
func (k *Keyset) TrustedRoot(external ...ExternalTSA) ([]byte, error) {
	root := &trustrootpb.TrustedRoot{MediaType: trustedRootMediaType}
	base := k.baseURL()
	for _, e := range published(k.Log) {
		root.Tlogs = append(root.Tlogs, logInstance(base, e))
		if len(k.entries[RoleCA]) > 0 {
			root.Ctlogs = append(root.Ctlogs, logInstance(base, e))
		}
	}
	for _, e := range published(k.Timestamp) {
		w, _ := e.believed()
		root.TimestampAuthorities = append(root.TimestampAuthorities, authority(base, e.Chain, w.from, w.lastSecond()))
	}
	for _, tsa := range external {
		from, to := chainWindow(tsa.Chain)
		if err := checkAuthority(tsa.Chain, from); err != nil {
			return nil, fmt.Errorf("timestamp authority %s: %w", tsa.URI, err)
		}
		root.TimestampAuthorities = append(root.TimestampAuthorities, authority(tsa.URI, tsa.Chain, from, to))
	}
	for _, e := range published(k.entries[RoleCA]) {
		root.CertificateAuthorities = append(root.CertificateAuthorities, k.certificateAuthority(base, e)...)
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

// baseURL is the URL of the instance; sigstore clients take the origin of the log from
// its host.
func (k *Keyset) baseURL() string {
	if strings.Contains(k.Host, ":") { // IPv6
		return "https://[" + k.Host + "]"
	}
	return "https://" + k.Host
}

func logInstance(base string, e KeyEntry) *trustrootpb.TransparencyLogInstance {
	id := sha256.Sum256(e.spki)
	w, _ := e.believed()
	return &trustrootpb.TransparencyLogInstance{
		BaseUrl:       base,
		HashAlgorithm: commonpb.HashAlgorithm_SHA2_256,
		PublicKey: &commonpb.PublicKey{
			RawBytes:   e.spki,
			KeyDetails: commonpb.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256,
			ValidFor:   validFor(w.from, w.lastSecond()),
		},
		LogId: &commonpb.LogId{KeyId: id[:]},
	}
}

// authority is an entry for a chain whose last certificate is the root.
func authority(uri string, chain []*x509.Certificate, from, to time.Time) *trustrootpb.CertificateAuthority {
	top := chain[len(chain)-1].Subject
	a := &trustrootpb.CertificateAuthority{
		Subject:   &commonpb.DistinguishedName{Organization: firstOf(top.Organization), CommonName: top.CommonName},
		Uri:       uri,
		CertChain: &commonpb.X509CertificateChain{},
		ValidFor:  validFor(from, to),
	}
	for _, cert := range chain {
		a.CertChain.Certificates = append(a.CertChain.Certificates, &commonpb.X509Certificate{RawBytes: cert.Raw})
	}
	return a
}

// certificateAuthority returns the entries of one ca key, one a day. An entry ends with
// the last of its intermediates, or with the key where that was sooner.
func (k *Keyset) certificateAuthority(base string, e KeyEntry) []*trustrootpb.CertificateAuthority {
	w, _ := e.believed()
	last := w.lastSecond()
	var out []*trustrootpb.CertificateAuthority
	var chain []*x509.Certificate
	flush := func() {
		if len(chain) == 0 {
			return
		}
		from, to := chain[0].NotBefore, chain[0].NotAfter
		for _, cert := range chain {
			if cert.NotAfter.After(to) {
				to = cert.NotAfter
			}
		}
		if !last.IsZero() && last.Before(to) {
			to = last
		}
		out = append(out, authority(base, append(chain, e.Chain[0]), from, to))
		chain = nil
	}
	for _, i := range k.intermediates.all() {
		if i.ca != e.KeyID || !e.covers(i.cert) {
			continue
		}
		if len(chain) > 0 && !sameDay(chain[0].NotBefore, i.cert.NotBefore) {
			flush()
		}
		chain = append(chain, i.cert)
	}
	flush()
	return out
}

func sameDay(a, b time.Time) bool {
	return a.UTC().Truncate(24 * time.Hour).Equal(b.UTC().Truncate(24 * time.Hour))
}

// chainWindow is the time in which all certificates of a chain are valid.
func chainWindow(chain []*x509.Certificate) (from, to time.Time) {
	for i, cert := range chain {
		if i == 0 || cert.NotBefore.After(from) {
			from = cert.NotBefore
		}
		if i == 0 || cert.NotAfter.Before(to) {
			to = cert.NotAfter
		}
	}
	return from, to
}

// validFor always states a start: verifiers differ on what a missing one means.
func validFor(from, to time.Time) *commonpb.TimeRange {
	r := &commonpb.TimeRange{Start: timestamppb.New(from)}
	if !to.IsZero() {
		r.End = timestamppb.New(to)
	}
	return r
}

// published returns the keys of which something is believed, oldest first, which is
// the order of trusted roots.
func published(entries []KeyEntry) []KeyEntry {
	kept := slices.DeleteFunc(slices.Clone(entries), func(e KeyEntry) bool { _, ok := e.believed(); return !ok })
	slices.SortFunc(kept, oldestFirst)
	return kept
}

func firstOf(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}
