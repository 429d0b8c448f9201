package signing_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

// authority is the real certificate authority of the keyset's active ca key.
func (l *lab) authority(ks *signing.Keyset) *ca.Authority {
	l.t.Helper()
	root, signer, ok := ks.CA("")
	if !ok {
		l.t.Fatal("no certificate authority")
	}
	a, err := ca.New(ca.Config{Root: root, Signer: signer, Organization: root.Subject.Organization[0], Host: host, Now: l.now,
		Publish: ks.AddIntermediate, Log: ks.LogSigner()})
	if err != nil {
		l.t.Fatal(err)
	}
	return a
}

// issue makes a, which is new, make its first intermediate.
func (l *lab) issue(a *ca.Authority) {
	l.t.Helper()
	if _, err := a.Issue(l.t.Context(), ca.Identity{URI: "https://example.com/w", Issuer: "https://issuer.example.com"}); err != nil {
		l.t.Fatal(err)
	}
}

// authorities is what sigstore-go reads of the certificate authorities.
func authorities(t testing.TB, ks *signing.Keyset) (*root.TrustedRoot, []*root.FulcioCertificateAuthority) {
	t.Helper()
	text, err := ks.TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	tr, err := root.NewTrustedRootFromJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	var out []*root.FulcioCertificateAuthority
	for _, a := range tr.FulcioCertificateAuthorities() {
		out = append(out, a.(*root.FulcioCertificateAuthority))
	}
	return tr, out
}

// A ca key joins a keyset that is there already, its intermediates the trusted root.
func TestCertificateAuthority(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	if _, _, ok := l.open(signing.Config{CA: signing.CAConfig{Organization: "Example"}}).CA(""); ok {
		t.Fatal("a ca key where none was to be created")
	}
	ks := l.open(signing.Config{Create: true, CA: signing.CAConfig{Organization: "Example"}})
	rootCert, _, ok := ks.CA(signing.TierBuild) // the default's
	if !ok || rootCert.Subject.Organization[0] != "Example" {
		t.Fatalf("root: %+v", rootCert)
	}
	if n := len(l.open(signing.Config{Create: true, CA: signing.CAConfig{Organization: "Example"}}).Entries(signing.RoleCA)); n != 1 {
		t.Errorf("%d ca keys", n)
	}
	tr, cas := authorities(t, ks)
	if len(cas) != 0 || len(tr.CTLogs()) != 1 {
		t.Errorf("before the first intermediate: %d authorities, %d ct logs", len(cas), len(tr.CTLogs()))
	}
	// Ten intermediates on three days.
	for range 10 {
		l.issue(l.authority(ks)) // as if the service had been restarted
		l.at = l.at.Add(6 * time.Hour)
	}
	tr, cas = authorities(t, ks)
	if len(cas) != 3 || len(cas[0].Intermediates) != 3 || len(cas[1].Intermediates) != 4 || len(cas[2].Intermediates) != 3 {
		t.Fatalf("%d entries", len(cas))
	}
	for _, c := range cas {
		first, last := c.Intermediates[0], c.Intermediates[len(c.Intermediates)-1]
		if !c.Root.Equal(rootCert) || !c.ValidityPeriodStart.Equal(first.NotBefore) || !c.ValidityPeriodEnd.Equal(last.NotAfter) {
			t.Errorf("entry from %s to %s", c.ValidityPeriodStart, c.ValidityPeriodEnd)
		}
	}
	log := ks.Log[0]
	if ct := tr.CTLogs()[log.KeyID]; ct == nil || !ct.ValidityPeriodStart.Equal(log.NotBefore) {
		t.Errorf("ct logs: %+v", tr.CTLogs())
	}
	again := l.open(signing.Config{})
	one, err := ks.TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	two, err := again.TrustedRoot()
	if err != nil || string(one) != string(two) || len(again.Intermediates()) != 10 {
		t.Errorf("another trusted root after opening again: %d intermediates, %v", len(again.Intermediates()), err)
	}
	l.root(again)
	for _, cert := range again.Intermediates() {
		if err := again.AddIntermediate(t.Context(), cert); err != nil {
			t.Errorf("added again: %v", err)
		}
	}
	if n := len(again.Intermediates()); n != 10 {
		t.Errorf("%d intermediates", n)
	}
	info, err := os.Stat(filepath.Join(l.dir, "intermediates"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A ca key that its owner took out of use, or has not put to use yet, is not replaced by
// one that nobody asked for.
func TestNoSecondFirstCA(t *testing.T) {
	t.Parallel()
	asked := signing.Config{Create: true, CA: signing.CAConfig{Organization: "Example"}}
	for name, c := range map[string]struct {
		inKMS, next bool
		keys        int
	}{"retired": {false, false, 1}, "retired, in KMS": {true, false, 1}, "retired, another is next": {false, true, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, c.inKMS)
			add := signing.AddKey{Role: signing.RoleCA}
			if c.inKMS {
				_, add.Ref = l.kmsKey("ECC_NIST_P256")
			}
			l.change(add)
			l.issue(l.authority(l.open(asked)))
			if c.next {
				l.change(signing.AddKey{Role: signing.RoleCA})
			}
			plan, err := signing.Plan(t.Context(), l.dir, l.config(), signing.RetireKey{KeyID: l.active(signing.RoleCA, "").KeyID})
			if err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(plan.Effects(), "\n"); !strings.Contains(text, "ca: key") || !strings.Contains(text, "nothing can be attested") {
				t.Errorf("the plan does not say what it does:\n%s", text)
			}
			if err := plan.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, create := range []bool{false, true} {
				cfg := asked
				cfg.Create = create
				ks := l.open(cfg)
				if root, signer, ok := ks.CA(""); ok || root != nil || signer != nil || len(ks.Entries(signing.RoleCA)) != c.keys {
					t.Errorf("create %t: a certificate authority out of nowhere: %+v", create, ks.Entries(signing.RoleCA))
				}
				// What it issued stands until its end.
				if _, cas := authorities(t, ks); len(cas) != 1 {
					t.Errorf("create %t: %d authorities in the trusted root", create, len(cas))
				}
			}
			if c.next {
				l.change(signing.RotateKey{Role: signing.RoleCA})
			} else {
				l.change(signing.AddKey{Role: signing.RoleCA})
			}
			if _, _, ok := l.open(asked).CA(""); !ok {
				t.Error("no certificate authority after one was put to use")
			}
		})
	}
	// One that waits from the beginning, and one of another tier.
	l := newLab(t, false)
	l.change(signing.AddKey{Role: signing.RoleCA, Next: true})
	if _, _, ok := l.open(asked).CA(""); ok {
		t.Error("a key that is next was passed over")
	}
	l = newLab(t, false)
	l.change(signing.AddKey{Role: signing.RoleCA, Tier: signing.TierBuild})
	ks := l.open(signing.Config{})
	if _, _, ok := ks.CA(""); ok {
		t.Error("a tier's authority is that of the default tier")
	}
	if _, _, ok := ks.CA(signing.TierBuild); !ok {
		t.Error("the tier has no authority")
	}
	if _, _, ok := l.open(asked).CA(""); !ok {
		t.Error("the default tier never had a key and got none")
	}
}

// What verifiers believe of certificates once the ca key is replaced or revoked.
func TestRevokedCertificateAuthority(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reason signing.Reason
		// how many of the two intermediates stay, and the end of the entry they are in
		stay int
		end  time.Duration
	}{
		{"", 2, 3*time.Hour + 10*time.Minute}, // rotated: signatures under way still count
		{signing.ReasonSuperseded, 2, 2 * time.Hour},
		{signing.ReasonKeyCompromise, 1, 2*time.Hour - time.Second},
		{signing.ReasonUnspecified, 0, 0},
	} {
		t.Run(string("reason "+c.reason), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, false)
			l.change(signing.AddKey{Role: signing.RoleCA})
			old := l.active(signing.RoleCA, "")
			begin := l.second()
			ks := l.open(signing.Config{})
			a := l.authority(ks)
			l.issue(a)
			l.at = l.at.Add(2 * time.Hour)
			since := l.second()
			a = l.authority(ks)
			l.issue(a) // begins at the very second of the revocation
			l.at = l.at.Add(time.Hour)
			if c.reason == "" {
				l.change(signing.RotateKey{Role: signing.RoleCA})
			} else {
				l.change(signing.RevokeKey{KeyID: old.KeyID, Reason: c.reason, Since: since, Rotate: true})
			}
			ks = l.open(signing.Config{})
			l.root(ks)
			_, cas := authorities(t, ks)
			if c.stay == 0 {
				if len(cas) != 0 {
					t.Errorf("%d entries", len(cas))
				}
				return
			}
			if len(cas) != 1 || len(cas[0].Intermediates) != c.stay || !cas[0].ValidityPeriodStart.Equal(begin) || !cas[0].ValidityPeriodEnd.Equal(begin.Add(c.end)) {
				t.Fatalf("%d entries: %+v to %s", len(cas), cas[0].Intermediates, cas[0].ValidityPeriodEnd)
			}
			if len(ks.Intermediates()) != 2 {
				t.Error("certificates were forgotten")
			}
			// The old key's certificates do not join any more, the new one's do.
			var late *x509.Certificate
			root, _, _ := ks.CA("")
			if root.Equal(old.Chain[0]) {
				t.Fatal("the old key certifies still")
			}
			l.at = l.at.Add(time.Hour)
			oldSigner, err := signing.OpenFile(filepath.Join(l.dir, "ca.pem"), false)
			if err != nil {
				t.Fatal(err)
			}
			forged, err := ca.New(ca.Config{Root: old.Chain[0], Signer: oldSigner, Organization: "Example", Host: host, Now: l.now,
				Publish: func(_ context.Context, cert *x509.Certificate) error { late = cert; return nil }, Log: ks.LogSigner()})
			if err != nil {
				t.Fatal(err)
			}
			l.issue(forged)
			if err := ks.AddIntermediate(t.Context(), late); codeOf(err) != signing.CodeIntermediateInvalid {
				t.Errorf("a late intermediate: %v", err)
			}
			l.issue(l.authority(ks))
			if _, cas := authorities(t, ks); len(cas) != 2 {
				t.Errorf("%d entries with the new key's", len(cas))
			}
		})
	}
}

// The kinds of keys that can be certificate authorities.
func TestKMSCertificateAuthority(t *testing.T) {
	t.Parallel()
	l := newLab(t, true)
	for _, spec := range []awstest.KeySpec{"ECC_NIST_P384", "RSA_2048", "ECC_NIST_P256"} {
		_, ref := l.kmsKey(spec)
		if l.active(signing.RoleCA, "") == nil {
			l.change(signing.AddKey{Role: signing.RoleCA, Ref: ref})
		} else {
			l.change(signing.RotateKey{Role: signing.RoleCA, Ref: ref})
		}
		ks := l.open(signing.Config{})
		l.issue(l.authority(ks))
		l.root(ks)
		l.at = l.at.Add(time.Hour)
	}
	if _, cas := authorities(t, l.open(signing.Config{})); len(cas) != 3 {
		t.Errorf("%d entries", len(cas))
	}
	_, ref := l.kmsKey("ECC_NIST_P521")
	if err := l.try(signing.RotateKey{Role: signing.RoleCA, Ref: ref}); codeOf(err) == "" {
		t.Errorf("P-521: %v", err)
	}
}

// forge makes a certificate that the holder of key signs under root.
func forge(t *testing.T, root *x509.Certificate, key *ecdsa.PrivateKey, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: pkix.Name{Organization: []string{"Example"}, CommonName: "Intermediate"},
		NotBefore: root.NotBefore, NotAfter: root.NotBefore.Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	edit(template)
	der, err := x509.CreateCertificate(rand.Reader, template, root, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestIntermediateRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	l.change(signing.AddKey{Role: signing.RoleCA})
	ks := l.open(signing.Config{})
	rootCert, _, _ := ks.CA("")
	text, err := os.ReadFile(filepath.Join(l.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key := parsePEM(t, text)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*x509.Certificate){
		"not a CA":             func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero = false, false },
		"room below":           func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 1, false },
		"no path length":       func(c *x509.Certificate) { c.MaxPathLenZero = false },
		"signs data":           func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature },
		"any usage":            func(c *x509.Certificate) { c.ExtKeyUsage = nil },
		"another usage too":    func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageTimeStamping) },
		"longer than the root": func(c *x509.Certificate) { c.NotAfter = rootCert.NotAfter.Add(time.Second) },
		"before the root":      func(c *x509.Certificate) { c.NotBefore = rootCert.NotBefore.Add(-time.Second) },
		"ends first":           func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Second) },
		"critical extension": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		},
		"large": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Value: make([]byte, 17<<10)}}
		},
	} {
		if err := ks.AddIntermediate(t.Context(), forge(t, rootCert, key, edit)); codeOf(err) != signing.CodeIntermediateInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	stranger := forge(t, selfSigned(t, rootCert, other), other, func(*x509.Certificate) {})
	if err := ks.AddIntermediate(t.Context(), stranger); codeOf(err) != signing.CodeIntermediateInvalid {
		t.Errorf("of another root with the same name: %v", err)
	}
	if _, err := os.Stat(filepath.Join(l.dir, "intermediates")); err == nil {
		t.Error("something was written")
	}
	good := forge(t, rootCert, key, func(*x509.Certificate) {})
	if err := ks.AddIntermediate(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	// What somebody puts into the folder is not believed.
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) + ".crt" }
	for name, file := range map[string]struct {
		name string
		der  []byte
		want string
	}{
		"of a stranger":        {sum(stranger.Raw), stranger.Raw, "INTERMEDIATE_INVALID"},
		"under another's name": {sum(stranger.Raw), good.Raw, "INTERMEDIATE_INVALID"},
		"not a certificate":    {sum([]byte("x")), []byte("x"), "INTERMEDIATE_INVALID"},
		"a note":               {"README", []byte("x"), "INTERMEDIATE_INVALID"},
		"endless":              {"x.crt", make([]byte, 1<<20), "INTERMEDIATE_INVALID"},
		"half written":         {"." + sum(good.Raw) + ".new-1", good.Raw[:100], ""},
	} {
		path := filepath.Join(l.dir, "intermediates", file.name)
		if err := os.WriteFile(path, file.der, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := l.tryOpen(signing.Config{}); string(codeOf(err)) != file.want {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	l.open(signing.Config{})
}

func selfSigned(t *testing.T, like *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: like.Subject, NotBefore: like.NotBefore, NotAfter: like.NotAfter,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLen: 1, SubjectKeyId: like.SubjectKeyId}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// Timestamp authorities beside the instance's own.
func TestExternalTimestampAuthority(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	other := newLab(t, false)
	chain := other.open(signing.Config{}).TSA().Chain()
	ks := l.open(signing.Config{})
	text, err := ks.TrustedRoot(signing.ExternalTSA{URI: "https://tsa.example.com/tsr", Chain: chain})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := root.NewTrustedRootFromJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(tr.TimestampingAuthorities()); n != 2 {
		t.Fatalf("%d timestamp authorities", n)
	}
	found := slices.ContainsFunc(tr.TimestampingAuthorities(), func(a root.TimestampingAuthority) bool {
		s := a.(*root.SigstoreTimestampingAuthority)
		return s.URI == "https://tsa.example.com/tsr" && s.Leaf.Equal(chain[0]) && s.ValidityPeriodStart.Equal(chain[0].NotBefore) && s.ValidityPeriodEnd.Equal(chain[0].NotAfter)
	})
	if !found {
		t.Errorf("%s", text)
	}
	if plain, err := ks.TrustedRoot(); err != nil || string(plain) == string(text) {
		t.Errorf("an authority stayed: %v", err)
	}
	for name, bad := range map[string][]*x509.Certificate{"none": nil, "no root": chain[:1], "reversed": {chain[1], chain[0]}} {
		if _, err := ks.TrustedRoot(signing.ExternalTSA{URI: "https://tsa.example.com", Chain: bad}); codeOf(err) != signing.CodeTimestampChainInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
