package verify

import (
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

func TestVerifyOwnCertificate(t *testing.T) {
	eachFormat(t, func(t *testing.T, format tlog.EntryFormat) {
		for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
			c := newCALab(t)
			c.leafKey = newCurveKey(t, curve)
			v := c.certVerifier()
			bundle := c.marshal(c.sealCertified(format, statement(t, "artifact"), c.leafKey, c.certify()))
			for _, round := range []string{"cold", "warm"} {
				ev, err := holdTogether(t, round, v, bundle)
				if err != nil {
					t.Fatalf("%s: %v", round, err)
				}
				root := sha256.Sum256(c.ca.spki())
				if !ev.Own() || ev.Identity() != labSAN || ev.Issuer() != labIssuer || ev.SignerKeyID() != c.leafKey.KeyID() ||
					ev.AuthorityKeyID() != hex.EncodeToString(root[:]) || len(ev.CoSignatures()) != 0 {
					t.Fatalf("%s: evidence %+v", round, ev)
				}
			}
		}
	})
}

// TestOwnCertificateRefusals: who issued the leaf, for what, for whom, and when.
func TestOwnCertificateRefusals(t *testing.T) {
	eachFormat(t, func(t *testing.T, format tlog.EntryFormat) {
		c := newCALab(t)
		v := c.certVerifier()
		payload := statement(t, "artifact")
		stranger, bystander := newCALab(t), newTestKey(t)
		// The stranger's names and key identifiers are ours.
		stranger.reissue(func(*x509.Certificate) {}, func(x *x509.Certificate) { x.SubjectKeyId = c.inter.SubjectKeyId })
		stranger.log, stranger.leafKey = c.log, c.leafKey
		critical := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}
		harmless := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}
		extra := func(e pkix.Extension) func(*x509.Certificate) {
			return func(x *x509.Certificate) { x.ExtraExtensions = append(slices.Clone(x.ExtraExtensions), e) }
		}
		eku := func(usages ...x509.ExtKeyUsage) func(*x509.Certificate) {
			return func(x *x509.Certificate) { x.ExtKeyUsage = usages }
		}
		good := c.certify()
		pre := c.issue()
		other := c.issue(func(x *x509.Certificate) { x.SerialNumber = big.NewInt(3) })
		ours := c.sct(pre.RawTBSCertificate, c.inter, c.log, c.at)
		strange := c.sct(pre.RawTBSCertificate, c.inter, bystander, c.at)
		rsaLeaf := newRSAKey(t, 2048)
		tests := []struct {
			name string
			cert *x509.Certificate
			want refusal.Code
		}{
			{"good", good, accepted},
			{"good, with an extension that nobody needs to know", c.certify(extra(harmless)), accepted},
			{"for an email address", c.certify(func(x *x509.Certificate) { x.URIs, x.EmailAddresses = nil, []string{"dev@example.test"} }), accepted},
			{"of a stranger with our names and key identifiers", stranger.certify(), CodeCertificateUntrusted},
			{"of an intermediate that is not listed", c.certifyBy(c.intermediate("2", bystander), bystander, &c.leafKey.PublicKey), CodeCertificateUntrusted},
			{"issued by the root itself", c.certifyBy(c.caCert, c.ca, &c.leafKey.PublicKey), CodeCertificateUntrusted},
			{"without authority key identifier", c.certifyBy(without(c.inter), c.interKey, &c.leafKey.PublicKey), CodeCertificateUntrusted},
			{"expired", c.certify(func(x *x509.Certificate) { x.NotAfter = c.at.Add(-time.Second) }), CodeCertificateOutsideValidity},
			{"not valid yet", c.certify(func(x *x509.Certificate) { x.NotBefore = c.at.Add(time.Second) }), CodeCertificateOutsideValidity},
			{"for servers", c.certify(eku(x509.ExtKeyUsageServerAuth)), CodeCertificateEKU},
			{"for servers too", c.certify(eku(x509.ExtKeyUsageCodeSigning, x509.ExtKeyUsageServerAuth)), CodeCertificateEKU},
			{"for everything", c.certify(eku(x509.ExtKeyUsageAny)), CodeCertificateEKU},
			{"for nothing in particular", c.certify(eku()), CodeCertificateEKU},
			{"for a purpose nobody knows too", c.certify(func(x *x509.Certificate) { x.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }), CodeCertificateEKU},
			{"no digital signature", c.certify(func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageKeyAgreement }), CodeCertificateEKU},
			{"no key usage", c.certify(func(x *x509.Certificate) { x.KeyUsage = 0 }), CodeCertificateEKU},
			{"certificate authority", c.certify(func(x *x509.Certificate) { x.IsCA, x.BasicConstraintsValid = true, true }), CodeCertificateEKU},
			{"an unknown critical extension", c.certify(extra(critical)), CodeCertificateExtension},
			{"two names", c.certify(func(x *x509.Certificate) {
				x.URIs = append(slices.Clone(x.URIs), &url.URL{Scheme: "https", Host: "evil.example"})
			}), CodeCertificateIdentity},
			{"a name and an address", c.certify(func(x *x509.Certificate) { x.EmailAddresses = []string{"dev@example.test"} }), CodeCertificateIdentity},
			{"a name and a host", c.certify(func(x *x509.Certificate) { x.DNSNames = []string{"evil.example"} }), CodeCertificateIdentity},
			{"a host alone", c.certify(func(x *x509.Certificate) { x.URIs, x.IPAddresses = nil, []net.IP{{127, 0, 0, 1}} }), CodeCertificateIdentity},
			{"no name", c.certify(func(x *x509.Certificate) { x.URIs = nil }), CodeCertificateIdentity},
			{"no provider", c.certify(func(x *x509.Certificate) { x.ExtraExtensions = nil }), CodeCertificateIdentity},
			{"a provider in no encoding", c.certify(func(x *x509.Certificate) {
				x.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: []byte("https://")}}
			}), CodeCertificateIdentity},
			{"no SCT", pre, CodeSCTInvalid},
			{"SCT of another certificate", c.issue(sctList(t, c.sct(other.RawTBSCertificate, c.inter, c.log, c.at))), CodeSCTInvalid},
			{"SCT for another issuer", c.issue(sctList(t, c.sct(pre.RawTBSCertificate, c.caCert, c.log, c.at))), CodeSCTInvalid},
			{"SCT of a log nobody knows", c.issue(sctList(t, strange)), CodeSCTInvalid},
			{"a good SCT and one of a log nobody knows", c.issue(sctList(t, ours, strange)), CodeSCTInvalid},
			{"a good SCT twice", c.issue(sctList(t, ours, ours)), CodeSCTInvalid},
			{"an empty list of SCTs", c.issue(sctList(t)), CodeSCTInvalid},
			{"SCT with a byte more", c.issue(sctList(t, append(slices.Clone(ours), 0))), CodeSCTInvalid},
			{"SCT of another version", c.issue(sctList(t, flipped(ours, 0, 1))), CodeSCTInvalid},
			{"SCT at another time", c.issue(sctList(t, flipped(ours, 40, 1))), CodeSCTInvalid},
			{"SCT in a thousand million years", c.issue(sctList(t, flipped(ours, 33, 0x80))), CodeSCTInvalid},
			{"SCT before its log", c.issue(sctList(t, c.sct(pre.RawTBSCertificate, c.inter, c.log, labStart.Add(-time.Millisecond)))), CodeSCTInvalid},
			{"SCT with its log", c.issue(sctList(t, c.sct(pre.RawTBSCertificate, c.inter, c.log, labStart))), accepted},
			{"SCT at the end of its log", c.issue(sctList(t, c.sct(pre.RawTBSCertificate, c.inter, c.log, labEnd))), accepted},
			{"SCT after its log", c.issue(sctList(t, c.sct(pre.RawTBSCertificate, c.inter, c.log, labEnd.Add(time.Millisecond)))), CodeSCTInvalid},
		}
		for _, tt := range tests {
			ev, err := holdTogether(t, tt.name, v, c.marshal(c.sealCertified(format, payload, c.leafKey, tt.cert)))
			check(t, tt.name, ev, err, tt.want)
		}
		seal := func(key testKey, cert *x509.Certificate) []byte {
			return c.marshal(c.sealCertified(format, payload, key, cert))
		}
		for name, tt := range map[string]struct {
			bundle []byte
			want   refusal.Code
		}{
			"another leaf of the same authority": {seal(c.leafKey, c.certifyBy(c.inter, c.interKey, &bystander.PublicKey)), CodeSignatureInvalid},
			"the intermediate as leaf":           {seal(c.interKey, c.inter), CodeCertificateUntrusted},
			"the root as leaf":                   {seal(c.ca, c.caCert), CodeCertificateUntrusted},
			"the log's key under our name":       {seal(c.log, c.certifyBy(c.inter, c.interKey, &c.log.PublicKey)), accepted},
			"not a certificate":                  {c.marshal(c.sealRaw(format, payload, []byte{1}, &c.leafKey.PublicKey, []byte("x"))), CodeCertificateMalformed},
			"a byte after the certificate":       {c.marshal(c.sealRaw(format, payload, []byte{1}, &c.leafKey.PublicKey, append(slices.Clone(good.Raw), 0))), CodeCertificateMalformed},
		} {
			ev, err := holdTogether(t, name, v, tt.bundle)
			check(t, name, ev, err, tt.want)
		}
		if format == tlog.RekorV1 {
			cert := c.certifyBy(c.inter, c.interKey, &rsaLeaf.PublicKey)
			sig := rsaLeaf.sign(t, attest.PAE(attest.PayloadTypeInToto, payload))
			ev, err := holdTogether(t, "RSA leaf", v, c.marshal(c.sealRaw(format, payload, sig, &rsaLeaf.PublicKey, cert.Raw)))
			check(t, "RSA leaf", ev, err, CodeKeyUnsupported)
		}
	})
}

// without is the issuer as it would be without key identifier.
func without(c *x509.Certificate) *x509.Certificate {
	copied := *c
	copied.SubjectKeyId = nil
	return &copied
}

// TestOwnCertificateWindows holds the lean path to each edge of each window: those of leaf,
// intermediate, root and root entry, at the log's time and at the timestamp's.
func TestOwnCertificateWindows(t *testing.T) {
	eachFormat(t, func(t *testing.T, format tlog.EntryFormat) {
		payload := statement(t, "artifact")
		at := newLab(t).at
		second := time.Second
		set := func(start, end time.Duration) func(*x509.Certificate) {
			return func(x *x509.Certificate) { x.NotBefore, x.NotAfter = at.Add(start), at.Add(end) }
		}
		same := func(*x509.Certificate) {}
		windows := []struct {
			name       string
			start, end time.Duration
			good       bool
		}{
			{"starts now", 0, time.Hour, true}, {"ends now", -time.Hour, 0, true}, {"is this second", 0, 0, true},
			{"starts in a second", second, time.Hour, false}, {"ended a second ago", -time.Hour, -second, false},
		}
		for _, w := range windows {
			for _, who := range []string{"leaf", "intermediate", "root", "entry", "certificate log"} {
				c := newCALab(t)
				root, inter, leaf, entry, ctlog := same, same, same, same2, same2
				code := CodeCertificateOutsideAuthority
				switch who {
				case "leaf":
					leaf, code = set(w.start, w.end), CodeCertificateOutsideValidity
				case "intermediate":
					inter = set(w.start, w.end)
				case "root":
					root = set(w.start, w.end)
				case "entry":
					entry = func(r *prototrustroot.TrustedRoot) {
						v := r.CertificateAuthorities[0].ValidFor
						v.Start, v.End = timestamppb.New(at.Add(w.start)), timestamppb.New(at.Add(w.end))
					}
				case "certificate log":
					code = CodeSCTInvalid
					ctlog = func(r *prototrustroot.TrustedRoot) {
						log := proto.CloneOf(r.Tlogs[0])
						v := log.PublicKey.ValidFor
						v.Start, v.End = timestamppb.New(at.Add(w.start)), timestamppb.New(at.Add(w.end))
						r.Ctlogs = []*prototrustroot.TransparencyLogInstance{log}
					}
				}
				if w.good {
					code = accepted
				}
				c.reissue(root, inter)
				name := who + " " + w.name
				bundle := c.marshal(c.sealCertified(format, payload, c.leafKey, c.certify(leaf)))
				v := c.certVerifier(entry, ctlog)
				ev, err := holdTogether(t, name, v, bundle)
				check(t, name, ev, err, code)
				if w.good != (sigstoreJudges(t, v.root, bundle) == nil) {
					t.Errorf("%s: sigstore-go disagrees", name)
				}
			}
		}
		// The times differ: the log's inside, the timestamp's outside, and the other way round.
		for _, outside := range []string{"timestamp", "log"} {
			c := newCALab(t)
			cert := c.certify(func(x *x509.Certificate) { x.NotBefore, x.NotAfter = c.at.Add(-second), c.at.Add(second) })
			p := c.sealCertified(format, payload, c.leafKey, cert)
			c.at = c.at.Add(2 * second)
			later := c.sealRaw(format, payload, p.Envelope.Signatures[0].Sig, c.leafKey.Public(), cert.Raw)
			want := CodeCertificateOutsideValidity
			if outside == "timestamp" {
				p.Timestamps = later.Timestamps
			} else if p.LogEntry = later.LogEntry; format == tlog.RekorV2 {
				want = accepted // no time is in the entry
			}
			ev, err := holdTogether(t, outside, c.certVerifier(), c.marshal(p))
			check(t, outside+" outside", ev, err, want)
		}
	})
}

func same2(*prototrustroot.TrustedRoot) {}

// TestOwnAuthorities: what an authority must be, and how it is found among others.
func TestOwnAuthorities(t *testing.T) {
	payload := statement(t, "artifact")
	same := func(*x509.Certificate) {}
	for _, tt := range []struct {
		name        string
		root, inter func(*x509.Certificate)
		want        refusal.Code
	}{
		{"as ours are", same, same, accepted},
		{"intermediate for servers", same, func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, CodeCertificateUntrusted},
		{"root for servers", func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, same, CodeCertificateUntrusted},
		{"root that allows no intermediate", func(x *x509.Certificate) { x.MaxPathLen, x.MaxPathLenZero = 0, true }, same, CodeCertificateUntrusted},
		{"intermediate that is no authority", same, func(x *x509.Certificate) {
			x.IsCA, x.MaxPathLenZero, x.KeyUsage = false, false, x509.KeyUsageDigitalSignature
		}, CodeCertificateUntrusted},
		{"intermediate that signs no certificates", same, func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageDigitalSignature }, CodeCertificateUntrusted},
		{"intermediate for other names", same, func(x *x509.Certificate) {
			x.PermittedURIDomains, x.PermittedDNSDomainsCritical = []string{"evil.example"}, true
		}, CodeCertificateUntrusted},
		{"root for other names", func(x *x509.Certificate) { x.PermittedURIDomains = []string{"evil.example"} }, same, CodeCertificateUntrusted},
		{"intermediate with a critical extension", same, func(x *x509.Certificate) {
			x.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}, CodeCertificateUntrusted},
		{"intermediate after its root's end", same, func(x *x509.Certificate) { x.NotBefore, x.NotAfter = labEnd.Add(time.Hour), labEnd.Add(2*time.Hour) }, CodeCertificateOutsideAuthority},
	} {
		c := newCALab(t)
		c.reissue(tt.root, tt.inter)
		bundle := c.marshal(c.sealCertified(tlog.RekorV2, payload, c.leafKey, c.certify()))
		v := c.certVerifier()
		ev, err := holdTogether(t, tt.name, v, bundle)
		if tt.want == CodeCertificateOutsideAuthority && refusal.CodeOf(err) == CodeCertificateUntrusted {
			err = refusal.New(tt.want, "never valid with its root: either reason will do")
		}
		check(t, tt.name, ev, err, tt.want)
	}
	c := newCALab(t)
	bundle := c.marshal(c.sealCertified(tlog.RekorV2, payload, c.leafKey, c.certify()))
	var crowd []*x509.Certificate
	for i := range 24 {
		crowd = append(crowd, c.intermediate("of the crowd"[:i%12+1], newTestKey(t)))
	}
	twin := c.intermediate("1", newTestKey(t)) // of the same name, with another key
	liar := c.intermediate("1", newTestKey(t), func(x *x509.Certificate) { x.SubjectKeyId = c.inter.SubjectKeyId })
	closed := func(r *prototrustroot.TrustedRoot) {
		r.CertificateAuthorities[0].ValidFor.End = timestamppb.New(c.at.Add(-time.Second))
	}
	for name, tt := range map[string]struct {
		root func(*prototrustroot.TrustedRoot)
		want refusal.Code
	}{
		"among many":                     {c.trust(append(crowd, twin, c.inter)...), accepted},
		"beside one of its name and key": {c.trust(liar, c.inter), accepted},
		"only one of its name":           {c.trust(twin), CodeCertificateUntrusted},
		"only one of its name and key":   {c.trust(liar), CodeCertificateUntrusted},
		"in two entries, one closed": {func(r *prototrustroot.TrustedRoot) {
			c.trust()(r)
			closed(r)
			r.CertificateAuthorities = append(r.CertificateAuthorities, c.entry509(c.inter))
		}, accepted},
		"in an entry that is closed": {func(r *prototrustroot.TrustedRoot) { c.trust()(r); closed(r) }, CodeCertificateOutsideAuthority},
		"under another root": {func(r *prototrustroot.TrustedRoot) {
			c.trust()(r)
			r.CertificateAuthorities[0] = newCALab(t).entry509(c.inter)
		}, CodeCertificateUntrusted},
		"as a root of its own": {func(r *prototrustroot.TrustedRoot) {
			c.trust()(r)
			r.CertificateAuthorities[0].CertChain.Certificates = r.CertificateAuthorities[0].CertChain.Certificates[:1]
		}, CodeCertificateUntrusted},
		"no certificate log": {func(r *prototrustroot.TrustedRoot) { c.trust()(r); r.Ctlogs = nil }, CodeSCTInvalid},
		"no authority":       {func(r *prototrustroot.TrustedRoot) { c.trust()(r); r.CertificateAuthorities = nil }, CodeCertificateUntrusted},
	} {
		ev, err := holdTogether(t, name, c.verifier(tt.root), bundle)
		check(t, name, ev, err, tt.want)
	}
}

// TestOwnCertificateMutations changes each byte of a certificate bundle, and each byte of
// the certificate within a bundle that is sealed around the change. Nothing is harmless,
// and nothing divides the lean path from sigstore-go.
func TestOwnCertificateMutations(t *testing.T) {
	eachFormat(t, func(t *testing.T, format tlog.EntryFormat) {
		c := newCALab(t)
		v := c.certVerifier()
		payload := statement(t, "artifact")
		cert := c.certify()
		p := c.sealCertified(format, payload, c.leafKey, cert)
		bundle := c.marshal(p)
		if _, err := holdTogether(t, "good", v, bundle); err != nil {
			t.Fatal(err)
		}
		codes := make(map[string]int)
		bits := []byte{1, 2, 4, 8, 16, 32, 64, 128}
		if testing.Short() {
			bits = []byte{1, 32}
		}
		try := func(what string, i int, mutant []byte) {
			if _, err := holdTogether(t, what, v, mutant); err == nil {
				t.Errorf("%s, byte %d accepted", what, i)
			} else {
				codes[codeOf(err)]++
			}
		}
		for i := range bundle {
			for _, bit := range bits {
				try("bundle", i, flipped(bundle, i, bit))
			}
		}
		sig := p.Envelope.Signatures[0].Sig
		for i := range cert.Raw {
			for _, bit := range bits {
				try("certificate", i, c.marshal(c.sealRaw(format, payload, sig, c.leafKey.Public(), flipped(cert.Raw, i, bit))))
			}
		}
		t.Logf("%d bytes, %d of them certificate: %v", len(bundle), len(cert.Raw), codes)
	})
}

// TestEntryBodyIsRebuilt: the entry that tlog writes is, byte for byte, the one that
// verifiers build from the bundle.
func TestEntryBodyIsRebuilt(t *testing.T) {
	c := newCALab(t)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key := newCurveKey(t, curve)
		cert := c.certifyBy(c.inter, c.interKey, &key.PublicKey)
		named, err := PublicKey{PEM: key.pem()}.parse()
		if err != nil {
			t.Fatal(err)
		}
		for name, s := range map[string]*signer{"key": {key: named}, "certificate": {cert: cert}} {
			env := &attest.Envelope{PayloadType: attest.PayloadTypeInToto, Payload: []byte("{}"), Signatures: []attest.Signature{{Sig: []byte("sig>?")}}}
			want, err := buildBodyV2(&foreign{envelope: &envelope{payload: env.Payload, payloadType: env.PayloadType, sigs: [][]byte{env.Signatures[0].Sig}}}, s)
			if err != nil {
				t.Fatal(err)
			}
			var raw []byte
			if s.cert != nil {
				raw = cert.Raw
			}
			if got := entryBodyOf(t, tlog.RekorV2, env, key.Public(), raw, nil); string(got) != string(want) {
				t.Errorf("%s, %s:\n%s\n%s", curve.Params().Name, name, got, want)
			}
		}
	}
}

// TestPrecertTBS: what an SCT is over is found by cutting, and what others would encode
// anew in another way is refused.
func TestPrecertTBS(t *testing.T) {
	c := newCALab(t)
	for _, tweak := range []func(*x509.Certificate){
		func(*x509.Certificate) {},
		func(x *x509.Certificate) { x.NotAfter = time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC) },
		func(x *x509.Certificate) { x.Subject = pkix.Name{CommonName: "x", Organization: []string{"é"}} },
	} {
		pre := c.issue(tweak)
		for name, order := range map[string]func(*x509.Certificate){
			"last": func(*x509.Certificate) {},
			"first": func(x *x509.Certificate) {
				n := len(x.ExtraExtensions) - 1
				x.ExtraExtensions = append([]pkix.Extension{x.ExtraExtensions[n]}, x.ExtraExtensions[:n]...)
			},
		} {
			got, ok := precertTBS(c.issue(tweak, sctList(t, []byte("an SCT")), order))
			if !ok || string(got) != string(pre.RawTBSCertificate) {
				t.Errorf("%s: %v, %x, want %x", name, ok, got, pre.RawTBSCertificate)
			}
		}
	}
	// crypto/x509 does not write these, so they are made of what it wrote.
	good := c.issue()
	for name, edit := range map[string]func(*x509.Certificate){
		"empty":             func(x *x509.Certificate) { x.RawTBSCertificate = nil },
		"a byte more":       func(x *x509.Certificate) { x.RawTBSCertificate = append(slices.Clone(x.RawTBSCertificate), 0) },
		"another time":      func(x *x509.Certificate) { x.NotAfter = x.NotAfter.Add(time.Second) },
		"another century":   func(x *x509.Certificate) { x.NotBefore = x.NotBefore.AddDate(100, 0, 0) },
		"critical as false": func(x *x509.Certificate) { x.RawTBSCertificate = explicitFalse(t, x.RawTBSCertificate) },
	} {
		x := *good
		edit(&x)
		if tbs, ok := precertTBS(&x); ok {
			t.Errorf("%s: %x", name, tbs)
		}
	}
}

// explicitFalse turns the first BOOLEAN TRUE of an extension into FALSE.
func explicitFalse(t testing.TB, tbs []byte) []byte {
	t.Helper()
	for i := range len(tbs) - 2 {
		if tbs[i] == 1 && tbs[i+1] == 1 && tbs[i+2] == 0xff {
			return flipped(tbs, i+2, 0xff)
		}
	}
	t.Fatal("no critical extension")
	return nil
}

// TestAuthorityOnce: many leaves may ask for one authority at once.
func TestAuthorityOnce(t *testing.T) {
	t.Parallel()
	c := newCALab(t)
	v := c.certVerifier()
	bundle := c.marshal(c.sealCertified(tlog.RekorV1, statement(t, "artifact"), c.leafKey, c.certify()))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := v.VerifyOwn(bundle); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
