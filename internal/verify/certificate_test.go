package verify

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

const (
	labSAN    = "https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main"
	labIssuer = "https://token.actions.githubusercontent.com"
)

// TestIdentity: names are compared whole.
func TestIdentity(t *testing.T) {
	l := newLab(t)
	v := l.verifier()
	payload := statement(t, "artifact")
	tests := []struct {
		name, san, issuer string
		want              Identity
		code              refusal.Code
	}{
		{"exact", labSAN, labIssuer, Identity{SAN: labSAN, Issuer: labIssuer}, accepted},
		{"pattern", labSAN, labIssuer, Identity{SANRegexp: `https://github\.com/acme/app/.*`, Issuer: labIssuer}, accepted},
		{"name longer than expected", labSAN + "-evil", labIssuer, Identity{SAN: labSAN, Issuer: labIssuer}, CodeIdentityMismatch},
		{"pattern matches a part only", labSAN, labIssuer, Identity{SANRegexp: `https://github\.com/acme/app`, Issuer: labIssuer}, CodeIdentityMismatch},
		{"pattern within another name", "https://evil.example/?" + labSAN, labIssuer, Identity{SANRegexp: `https://github\.com/acme/app/.*`, Issuer: labIssuer}, CodeIdentityMismatch},
		{"alternative does not escape the anchors", labSAN, labIssuer, Identity{SANRegexp: `x|https://github\.com/acme`, Issuer: labIssuer}, CodeIdentityMismatch},
		{"multi-line mode does not either", "https://evil.example/%0A" + labSAN, labIssuer, Identity{SANRegexp: `(?m)^https://github\.com/acme/app/.*$`, Issuer: labIssuer}, CodeIdentityMismatch},
		{"repository whose name begins alike", "https://github.com/acme/app-evil/.github/workflows/release.yml@refs/heads/main", labIssuer, Identity{SAN: labSAN, Issuer: labIssuer}, CodeIdentityMismatch},
		{"another issuer (CVE-2026-22772)", labSAN, "https://evil.example/?" + labIssuer, Identity{SAN: labSAN, Issuer: labIssuer}, CodeIssuerMismatch},
	}
	for _, tt := range tests {
		key := newTestKey(t)
		bundle := l.certified(payload, key, l.leaf(key, tt.san, tt.issuer))
		ev, err := v.Verify(bundle, Expectation{Artifact: sha256Of([]byte("artifact")), Identity: &tt.want})
		check(t, tt.name, ev, err, tt.code)
		if tt.code == accepted && (ev.Identity() != tt.san || ev.Issuer() != tt.issuer || ev.SignerKeyID() != key.KeyID()) {
			t.Errorf("%s: evidence %+v", tt.name, ev)
		}
	}
}

// TestCertificates: who issued it, for what, and when.
func TestCertificates(t *testing.T) {
	l := newLab(t)
	v := l.verifier()
	payload := statement(t, "artifact")
	key := newTestKey(t)
	leaf := func(tweak func(*x509.Certificate)) []byte {
		return l.certified(payload, key, l.leaf(key, labSAN, labIssuer, tweak))
	}
	good := leaf(func(*x509.Certificate) {})
	withChain := func(version string, certs ...*x509.Certificate) []byte {
		return l.edit(good, func(b *protobundle.Bundle) {
			b.MediaType = "application/vnd.dev.sigstore.bundle+json;version=" + version
			c := &protocommon.X509CertificateChain{Certificates: []*protocommon.X509Certificate{b.VerificationMaterial.GetCertificate()}}
			for _, cert := range certs {
				c.Certificates = append(c.Certificates, &protocommon.X509Certificate{RawBytes: cert.Raw})
			}
			b.VerificationMaterial.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: c}
		})
	}
	stranger := newLab(t)
	tests := []struct {
		name   string
		bundle []byte
		want   refusal.Code
	}{
		{"good", good, accepted},
		{"expired when it signed", leaf(func(c *x509.Certificate) { c.NotAfter = l.at.Add(-time.Second) }), CodeCertificateOutsideValidity},
		{"not valid yet when it signed", leaf(func(c *x509.Certificate) { c.NotBefore = l.at.Add(time.Second) }), CodeCertificateOutsideValidity},
		{"issued after its authority ended", leaf(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = labEnd.Add(time.Hour), labEnd.Add(2*time.Hour) }), CodeCertificateOutsideAuthority},
		{"not for signing code", leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), CodeCertificateEKU},
		{"of an authority nobody knows, under a known name", l.certified(payload, key, stranger.leaf(key, labSAN, labIssuer)), CodeCertificateUntrusted},
		{"names nobody", leaf(func(c *x509.Certificate) { c.URIs = nil }), CodeIdentityMismatch},
		{"no certificate at all in the field", l.edit(good, func(b *protobundle.Bundle) { b.VerificationMaterial.GetCertificate().RawBytes = []byte("x") }), CodeCertificateMalformed},
		{"chain in 0.3", withChain("0.3", l.caCert), CodeChainNotAllowed},
		{"chain with its root in 0.2", withChain("0.2", l.caCert), CodeChainHasRoot},
		{"chain with its root in 0.1, as npm had it", withChain("0.1", l.caCert), accepted},
		{"signed by another key than the certificate's", l.certified(payload, newTestKey(t), l.leaf(key, labSAN, labIssuer)), CodeSignatureInvalid},
	}
	want := Expectation{Artifact: sha256Of([]byte("artifact")), Identity: &Identity{SAN: labSAN, Issuer: labIssuer}}
	for _, tt := range tests {
		ev, err := v.Verify(tt.bundle, want)
		check(t, tt.name, ev, err, tt.want)
	}
	ev, err := v.Verify(good, Expectation{AnyArtifact: true, Key: &PublicKey{PEM: key.pem()}})
	check(t, "a key is expected", ev, err, CodeCertificateUnexpected)
	ev, err = v.Verify(l.marshal(l.seal(tlog.RekorV1, attest.PayloadTypeInToto, payload)), want)
	check(t, "a certificate is expected", ev, err, CodeKeyUnknown)
	ev, err = v.Verify(l.marshal(l.seal(tlog.RekorV1, attest.PayloadTypeInToto, payload)), Expectation{AnyArtifact: true, Key: &PublicKey{PEM: key.pem()}})
	check(t, "another key is expected", ev, err, CodeKeyMismatch)
}

// TestTimestampCertificates: the authority's certificate is for timestamping, critically
// and alone, and the certificate that is checked is the one that verified.
func TestTimestampCertificates(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second) // the library stamps the wall clock
	eku := func(critical bool, oids ...asn1.ObjectIdentifier) []pkix.Extension {
		value, err := asn1.Marshal(oids)
		if err != nil {
			t.Fatal(err)
		}
		return []pkix.Extension{{Id: oidExtKeyUsage, Critical: critical, Value: value}}
	}
	timeStamping, codeSigning := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}
	tests := []struct {
		name string
		ext  []pkix.Extension
		want refusal.Code
	}{
		{"critical and alone", eku(true, timeStamping), accepted},
		{"no usage", nil, CodeTimestampEKU},
		{"not critical", eku(false, timeStamping), CodeTimestampEKU},
		{"for code too", eku(true, timeStamping, codeSigning), CodeTimestampEKU},
		{"for something nobody knows too", eku(true, timeStamping, asn1.ObjectIdentifier{1, 2, 3}), CodeTimestampEKU},
		{"for code only", eku(true, codeSigning), CodeTimestampEKU},
	}
	for _, tt := range tests {
		l := newLab(t)
		l.at = now
		rootKey := newTestKey(t)
		l.tsaRoot = l.certificate(aroundTime(now, caTemplate("tsa root")), nil, rootKey, rootKey)
		template := aroundTime(now, tsaTemplate(7))
		template.ExtraExtensions = tt.ext
		l.tsaLeaf = l.certificate(template, l.tsaRoot, l.tsa, rootKey)
		p := l.unstamped(statement(t, "artifact"))
		sig := p.Envelope.Signatures[0].Sig
		for _, embed := range []bool{false, true} {
			p.Timestamps = [][]byte{l.libraryStamp(sig, l.tsaLeaf, l.tsa, embed)}
			ev, err := l.verifier(openEnded).Verify(l.marshal(p), Expectation{AnyArtifact: true, RootKey: true})
			check(t, tt.name, ev, err, tt.want)
		}
		if tt.want != accepted {
			continue
		}
		// CVE-2026-39984: a stranger's certificate of the same name and serial, first,
		// signs; the trusted one only comes along.
		strangerKey, strangerRootKey := newTestKey(t), newTestKey(t)
		strangerRoot := l.certificate(aroundTime(now, caTemplate("tsa root")), nil, strangerRootKey, strangerRootKey)
		stranger := l.certificate(aroundTime(now, tsaTemplate(7)), strangerRoot, strangerKey, strangerRootKey)
		p.Timestamps = [][]byte{l.withCertificates(l.libraryStamp(sig, stranger, strangerKey, false), stranger, l.tsaLeaf)}
		ev, err := l.verifier(openEnded).Verify(l.marshal(p), Expectation{AnyArtifact: true, RootKey: true})
		check(t, "two certificates of one name", ev, err, CodeTimestampUntrusted)
	}
}

// aroundTime puts a certificate's validity around t.
func aroundTime(t time.Time, c *x509.Certificate) *x509.Certificate {
	c.NotBefore, c.NotAfter = t.Add(-time.Hour), t.Add(time.Hour)
	return c
}

// openEnded lets the root trust its authorities at any time: these tests run now.
func openEnded(r *prototrustroot.TrustedRoot) {
	for _, a := range r.TimestampAuthorities {
		a.ValidFor = &protocommon.TimeRange{Start: timestamppb.New(labStart)}
	}
}
