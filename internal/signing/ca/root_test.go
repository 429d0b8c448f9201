package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// rootKeys are one of each kind.
func rootKeys(t testing.TB) map[string]*testKey {
	keys := map[string]*testKey{
		"P-256": p256(t), "P-384": ecKey(t, elliptic.P384(), crypto.SHA384), "RSA-2048": rsaKey(t, 2048),
	}
	if !testing.Short() {
		keys["RSA-3072"], keys["RSA-4096"] = rsaKey(t, 3072), rsaKey(t, 4096)
	}
	return keys
}

func TestRoot(t *testing.T) {
	t.Parallel()
	algorithms := map[string]x509.SignatureAlgorithm{"P-256": x509.ECDSAWithSHA256, "P-384": x509.ECDSAWithSHA384}
	for name, key := range rootKeys(t) {
		cert := makeRoot(t, key, testStart)
		if err := CheckRoot(cert, key.Public()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		want := algorithms[name]
		if strings.HasPrefix(name, "RSA") {
			want = x509.SHA256WithRSAPSS
		}
		if cert.SignatureAlgorithm != want {
			t.Errorf("%s: signed with %s, want %s", name, cert.SignatureAlgorithm, want)
		}
		if got := cert.Subject.String(); got != "CN=Assay CA of assay.example.com,O=Example Corp" {
			t.Errorf("%s: subject %s", name, got)
		}
		if !cert.IsCA || cert.MaxPathLen != 1 || cert.KeyUsage != x509.KeyUsageCertSign || len(cert.ExtKeyUsage) != 0 {
			t.Errorf("%s: CA %t, path length %d, usage %#x, extended usage %v", name, cert.IsCA, cert.MaxPathLen, cert.KeyUsage, cert.ExtKeyUsage)
		}
		start := testStart.Truncate(time.Second)
		if !cert.NotBefore.Equal(start) || !cert.NotAfter.Equal(start.AddDate(10, 0, 0)) {
			t.Errorf("%s: valid from %s to %s", name, cert.NotBefore, cert.NotAfter)
		}
		checkCritical(t, name, cert, "2.5.29.15", "2.5.29.19")
	}
}

// TestLongNames: what is for people is cut, what is compared is not.
func TestLongNames(t *testing.T) {
	t.Parallel()
	org, host := strings.Repeat("Ø", 64), strings.Repeat("a", 253)
	der, err := NewRoot(t.Context(), p256(t), org, host, testStart, 1)
	if err != nil {
		t.Fatal(err)
	}
	subject := parse(t, der).Subject
	if subject.Organization[0] != org || len(subject.CommonName) != 64 {
		t.Errorf("subject %s", subject)
	}
}

func TestRootRefused(t *testing.T) {
	t.Parallel()
	key := p256(t)
	tests := []struct {
		name      string
		key       *testKey
		org, host string
		years     int
		want      refusal.Code
	}{
		{"no organization", key, "", testHost, 10, CodeOrganizationInvalid},
		{"long organization", key, strings.Repeat("a", 65), testHost, 10, CodeOrganizationInvalid},
		{"sigstore's", key, "sigstore.dev", testHost, 10, CodeOrganizationInvalid},
		{"sigstore's in capitals", key, "Sigstore.dev", testHost, 10, CodeOrganizationInvalid},
		{"GitHub's", key, "GitHub, Inc.", testHost, 10, CodeOrganizationInvalid},
		{"space in front", key, " GitHub, Inc.", testHost, 10, CodeOrganizationInvalid},
		{"line break", key, "a\nb", testHost, 10, CodeOrganizationInvalid},
		{"not UTF-8", key, "a\xff", testHost, 10, CodeOrganizationInvalid},
		{"no host", key, testOrg, "", 10, CodeOrganizationInvalid},
		{"host with a space", key, testOrg, "a b", 10, CodeOrganizationInvalid},
		{"long host", key, testOrg, strings.Repeat("a", 254), 10, CodeOrganizationInvalid},
		{"no time", key, testOrg, testHost, 0, CodeLifetimeInvalid},
		{"all time", key, testOrg, testHost, 31, CodeLifetimeInvalid},
		{"P-521", ecKey(t, elliptic.P521(), crypto.SHA512), testOrg, testHost, 10, CodeCertificateInvalid},
		{"small RSA", rsaKey(t, 1024), testOrg, testHost, 10, CodeCertificateInvalid},
	}
	for _, tt := range tests {
		_, err := NewRoot(t.Context(), tt.key, tt.org, tt.host, testStart, tt.years)
		wantCode(t, tt.name, err, tt.want)
	}
	broken := p256(t)
	broken.fail = func(context.Context) error { return refusal.New("KMS_DOWN", "no") }
	_, err := NewRoot(t.Context(), broken, testOrg, testHost, testStart, 10)
	wantCode(t, "signer fails", err, "KMS_DOWN")
	// crypto/x509 verifies what it was given as a signature.
	liar := &testKey{Signer: impostor{p256(t).Signer, p256(t).Public()}, opts: crypto.SHA256}
	if _, err := NewRoot(t.Context(), liar, testOrg, testHost, testStart, 10); err == nil {
		t.Error("a certificate whose signature does not verify was returned")
	}
}

// impostor puts another public key in front of a signer's own.
type impostor struct {
	crypto.Signer
	key crypto.PublicKey
}

func (i impostor) Public() crypto.PublicKey { return i.key }

func TestCheckRootRefused(t *testing.T) {
	t.Parallel()
	key := p256(t)
	make := func(tweak func(*x509.Certificate)) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{testOrg}, CommonName: "root"},
			NotBefore: testStart, NotAfter: testStart.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
			BasicConstraintsValid: true, IsCA: true, MaxPathLen: -1,
		}
		tweak(template)
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key.Signer)
		if err != nil {
			t.Fatal(err)
		}
		return parse(t, der)
	}
	if err := CheckRoot(make(func(*x509.Certificate) {}), key.Public()); err != nil {
		t.Errorf("another's root that does as well: %v", err)
	}
	otherRoot := makeRoot(t, p256(t), testStart)
	forged := *makeRoot(t, key, testStart)
	forged.Signature = otherRoot.Signature
	issued := *makeRoot(t, key, testStart)
	issued.RawIssuer = make(func(c *x509.Certificate) { c.Subject.CommonName = "other" }).RawSubject
	pkcs1 := rsaKey(t, 2048)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{testOrg}}, NotAfter: testStart,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SignatureAlgorithm: x509.SHA256WithRSA}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pkcs1.Public(), pkcs1.Signer)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "PKCS #1 v1.5", CheckRoot(parse(t, der), pkcs1.Public()), CodeCertificateInvalid)

	tests := []struct {
		name string
		cert *x509.Certificate
		want refusal.Code
	}{
		{"another key's", otherRoot, CodeCertificateInvalid},
		{"signature of another", &forged, CodeCertificateInvalid},
		{"issued by another", &issued, CodeCertificateInvalid},
		{"not a CA", make(func(c *x509.Certificate) { c.IsCA = false }), CodeCertificateInvalid},
		{"may not sign certificates", make(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), CodeCertificateInvalid},
		{"no room below", make(func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }), CodeCertificateInvalid},
		{"for servers", make(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), CodeCertificateInvalid},
		{"critical and unknown", make(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), CodeCertificateInvalid},
		{"ends before it begins", make(func(c *x509.Certificate) { c.NotAfter = testStart.Add(-time.Hour) }), CodeCertificateInvalid},
		{"no organization", make(func(c *x509.Certificate) { c.Subject.Organization = nil }), CodeCertificateInvalid},
		{"two organizations", make(func(c *x509.Certificate) { c.Subject.Organization = []string{"a", "b"} }), CodeCertificateInvalid},
		{"GitHub's", make(func(c *x509.Certificate) { c.Subject.Organization = []string{"GitHub, Inc."} }), CodeOrganizationInvalid},
	}
	for _, tt := range tests {
		wantCode(t, tt.name, CheckRoot(tt.cert, key.Public()), tt.want)
	}
	wantCode(t, "no key", CheckRoot(otherRoot, nil), CodeCertificateInvalid)
	wantCode(t, "RSA exponent 3", CheckRoot(otherRoot, &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 3}), CodeCertificateInvalid)
}

func TestNewRefused(t *testing.T) {
	t.Parallel()
	key, log := p256(t), p256(t)
	root := makeRoot(t, key, testStart)
	tests := []struct {
		name  string
		tweak func(*Config)
		want  refusal.Code
	}{
		{"another key", func(c *Config) { c.Signer = p256(t) }, CodeCertificateInvalid},
		{"no organization", func(c *Config) { c.Organization = "" }, CodeOrganizationInvalid},
		{"another organization", func(c *Config) { c.Organization = "example corp" }, CodeOrganizationInvalid},
		{"no host", func(c *Config) { c.Host = "" }, CodeOrganizationInvalid},
		{"too short", func(c *Config) { c.Lifetime = 5*time.Minute - time.Second }, CodeLifetimeInvalid},
		{"too long", func(c *Config) { c.Lifetime = 30*24*time.Hour + time.Second }, CodeLifetimeInvalid},
		{"negative", func(c *Config) { c.Lifetime = -time.Hour }, CodeLifetimeInvalid},
		{"half a second", func(c *Config) { c.Lifetime = time.Hour + time.Second/2 }, CodeLifetimeInvalid},
		{"leaf too short", func(c *Config) { c.LeafLifetime = time.Second }, CodeLifetimeInvalid},
		{"leaf too long", func(c *Config) { c.LeafLifetime = 25 * time.Hour }, CodeLifetimeInvalid},
		{"log key of another kind", func(c *Config) { c.Log = rsaKey(t, 2048) }, CodeCertificateInvalid},
		{"log key on another curve", func(c *Config) { c.Log = ecKey(t, elliptic.P384(), crypto.SHA384) }, CodeCertificateInvalid},
	}
	config := func() Config {
		return Config{Root: root, Signer: key, Organization: testOrg, Host: testHost, Now: time.Now, Log: log,
			Publish: func(context.Context, *x509.Certificate) error { return nil }}
	}
	if _, err := New(config()); err != nil {
		t.Fatal(err)
	}
	key.calls.Store(0)
	for _, tt := range tests {
		cfg := config()
		tt.tweak(&cfg)
		_, err := New(cfg)
		wantCode(t, tt.name, err, tt.want)
	}
	for _, tweak := range []func(*Config){
		func(c *Config) { c.Root = nil }, func(c *Config) { c.Signer = nil }, func(c *Config) { c.Now = nil },
		func(c *Config) { c.Publish = nil }, func(c *Config) { c.Log = nil },
	} {
		cfg := config()
		tweak(&cfg)
		if _, err := New(cfg); err == nil {
			t.Error("New went on without something it needs")
		}
	}
	if n := key.calls.Load(); n != 0 {
		t.Errorf("New used the CA's key %d times", n)
	}
}

// checkCritical: exactly these extensions are critical, every extension occurs once,
// and the serial number keeps to RFC 5280.
func checkCritical(t testing.TB, what string, cert *x509.Certificate, want ...string) {
	t.Helper()
	var critical, all []string
	for _, ext := range cert.Extensions {
		if slices.Contains(all, ext.Id.String()) {
			t.Errorf("%s: extension %s twice", what, ext.Id)
		}
		all = append(all, ext.Id.String())
		if ext.Critical {
			critical = append(critical, ext.Id.String())
		}
	}
	slices.Sort(critical)
	if !slices.Equal(critical, want) {
		t.Errorf("%s: critical extensions %v, want %v", what, critical, want)
	}
	if n := len(cert.SerialNumber.Bytes()); cert.SerialNumber.Sign() <= 0 || n > 20 || n < 8 {
		t.Errorf("%s: serial number %x", what, cert.SerialNumber)
	}
	if cert.Version != 3 || len(cert.SubjectKeyId) != 20 {
		t.Errorf("%s: version %d, subject key id %x", what, cert.Version, cert.SubjectKeyId)
	}
}

func TestSerial(t *testing.T) {
	t.Parallel()
	seen := make(map[[16]byte]bool)
	for range 1000 {
		s := newSerial()
		if s[0]&0x80 != 0 || s[0] == 0 || seen[s] {
			t.Fatalf("serial %x", s)
		}
		seen[s] = true
	}
}

var errPlain = errors.New("broken")

// TestContextReachesSigner: crypto/x509 stands between, and knows no contexts.
func TestContextReachesSigner(t *testing.T) {
	t.Parallel()
	type tag struct{}
	key := p256(t)
	var got any
	key.fail = func(ctx context.Context) error { got = ctx.Value(tag{}); return errPlain }
	_, err := NewRoot(context.WithValue(t.Context(), tag{}, "x"), key, testOrg, testHost, testStart, 1)
	if got != "x" || !errors.Is(err, errPlain) || !bytes.Contains([]byte(err.Error()), []byte("broken")) {
		t.Errorf("value %v, error %v", got, err)
	}
}
