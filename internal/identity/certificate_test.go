package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	testSPIFFE = "spiffe://example.org/builders/linux"
	testHost   = "builder-1.example.org"
)

// certAuthority issues certificates for tests.
type certAuthority struct {
	cert *x509.Certificate
	key  crypto.Signer
	now  time.Time
}

func newCertAuthority(t *testing.T, now time.Time, name string) *certAuthority {
	t.Helper()
	ca := &certAuthority{key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), now: now}
	ca.cert = ca.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: now.Add(24 * time.Hour),
	}, ca.key.Public())
	return ca
}

func (ca *certAuthority) sign(t *testing.T, template *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotBefore.IsZero() {
		template.NotBefore = ca.now.Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = ca.now.Add(time.Hour)
	}
	parent := ca.cert
	if parent == nil {
		parent = template
	}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, parent, pub, ca.key))))
}

// leaf issues a client certificate for testSPIFFE, as edit changes it.
func (ca *certAuthority) leaf(t *testing.T, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		URIs: []*url.URL{must(url.Parse(testSPIFFE))}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if edit != nil {
		edit(template)
	}
	return ca.sign(t, template, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Public())
}

// intermediate is an authority under ca.
func (ca *certAuthority) intermediate(t *testing.T, edit func(*x509.Certificate)) *certAuthority {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "intermediate"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	if edit != nil {
		edit(template)
	}
	return &certAuthority{cert: ca.sign(t, template, key.Public()), key: key, now: ca.now}
}

func pemOf(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func connection(certs ...*x509.Certificate) *tls.ConnectionState {
	return &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: certs}
}

func (ca *certAuthority) config(name string) CertificateAuthority {
	return CertificateAuthority{
		Name: name, RootsPEM: pemOf(ca.cert), TrustDomain: "example.org",
		AllowedURIs: []string{testSPIFFE}, AllowedDNS: []string{testHost},
	}
}

func host(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{testHost} }

func TestCertificates(t *testing.T) {
	t.Parallel()
	now := newClock().Now()
	ca := newCertAuthority(t, now, "root")
	cs, err := NewCertificates([]CertificateAuthority{ca.config("on-prem")})
	if err != nil {
		t.Fatal(err)
	}
	inter := ca.intermediate(t, func(c *x509.Certificate) { c.NotAfter = now.Add(10 * time.Minute) })
	for name, c := range map[string]struct {
		chain   []*x509.Certificate
		subject string
		ends    time.Time
	}{
		"SPIFFE":                 {[]*x509.Certificate{ca.leaf(t, nil)}, testSPIFFE, now.Add(time.Hour)},
		"SPIFFE with DNS names":  {[]*x509.Certificate{ca.leaf(t, func(c *x509.Certificate) { c.DNSNames = []string{"a.example.org", "b.example.org"} })}, testSPIFFE, now.Add(time.Hour)},
		"DNS":                    {[]*x509.Certificate{ca.leaf(t, host)}, testHost, now.Add(time.Hour)},
		"through another":        {[]*x509.Certificate{inter.leaf(t, nil), inter.cert}, testSPIFFE, now.Add(10 * time.Minute)},
		"through one that sends": {[]*x509.Certificate{inter.leaf(t, nil), inter.cert, ca.cert}, testSPIFFE, now.Add(10 * time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := cs.Verify(connection(c.chain...), now)
			if err != nil {
				t.Fatal(err)
			}
			want := &Caller{Kind: KindWorkload, Issuer: "x509:on-prem", DisplayName: c.subject, Workload: &Workload{Platform: "x509", Subject: c.subject}}
			if diff := cmp.Diff(want, got.Caller); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if !got.NotAfter.Equal(c.ends) || got.Caller.IsBuild() {
				t.Errorf("ends %s; want %s", got.NotAfter, c.ends)
			}
			again, err := cs.Verify(connection(c.chain...), now)
			if err != nil || again.ReplayKey == got.ReplayKey {
				t.Errorf("the second exchange on a connection is taken for the first: %v", err)
			}
		})
	}
}

func TestCertificatesRefuse(t *testing.T) {
	t.Parallel()
	now := newClock().Now()
	ca, foreign, second := newCertAuthority(t, now, "root"), newCertAuthority(t, now, "root"), newCertAuthority(t, now, "second")
	two := second.config("second")
	two.TrustDomain, two.AllowedURIs, two.AllowedDNS = "other.example", []string{"spiffe://other.example/x"}, nil
	cs, err := NewCertificates([]CertificateAuthority{ca.config("on-prem"), two})
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(edit func(*x509.Certificate)) []*x509.Certificate { return []*x509.Certificate{ca.leaf(t, edit)} }
	uri := func(uris ...string) []*x509.Certificate {
		return leaf(func(c *x509.Certificate) {
			c.URIs = nil
			for _, u := range uris {
				c.URIs = append(c.URIs, must(url.Parse(u)))
			}
		})
	}
	dns := func(names ...string) []*x509.Certificate {
		return leaf(func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, names })
	}
	limited := ca.intermediate(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	ended := ca.intermediate(t, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
	// A workload that signs a certificate for another.
	impostor := ca.intermediate(t, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		want  refusal.Code
	}{
		"none":                        {nil, CodeClientCertificateMissing},
		"foreign root of our name":    {[]*x509.Certificate{foreign.leaf(t, nil), foreign.cert}, CodeClientCertificateInvalid},
		"self-signed root":            {[]*x509.Certificate{ca.cert}, CodeClientCertificateInvalid},
		"expired":                     {leaf(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), CodeClientCertificateInvalid},
		"not yet":                     {leaf(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), CodeClientCertificateInvalid},
		"for servers":                 {leaf(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), CodeClientCertificateInvalid},
		"for any purpose":             {leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), CodeClientCertificateInvalid},
		"for no purpose said":         {leaf(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), CodeClientCertificateInvalid},
		"for encryption":              {leaf(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), CodeClientCertificateInvalid},
		"of an authority":             {leaf(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), CodeClientCertificateInvalid},
		"that may sign certificates":  {leaf(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), CodeClientCertificateInvalid},
		"through one for servers":     {[]*x509.Certificate{limited.leaf(t, nil), limited.cert}, CodeClientCertificateInvalid},
		"through one that ended":      {[]*x509.Certificate{ended.leaf(t, nil), ended.cert}, CodeClientCertificateInvalid},
		"through one that is missing": {[]*x509.Certificate{limited.leaf(t, nil)}, CodeClientCertificateInvalid},
		"signed by a leaf":            {[]*x509.Certificate{impostor.leaf(t, nil), impostor.cert}, CodeClientCertificateInvalid},
		"nine":                        {append(leaf(nil), ca.cert, ca.cert, ca.cert, ca.cert, ca.cert, ca.cert, ca.cert, ca.cert), CodeClientCertificateInvalid},
		"two URIs":                    {uri(testSPIFFE, testSPIFFE+"/x"), CodeClientCertificateIdentity},
		"a web address":               {uri("https://example.org/builders/linux"), CodeClientCertificateIdentity},
		"a URI and a host": {leaf(func(c *x509.Certificate) {
			c.URIs, c.DNSNames = []*url.URL{must(url.Parse("https://a.example/"))}, []string{testHost}
		}), CodeClientCertificateIdentity},
		"a SPIFFE ID that walks":    {uri("spiffe://example.org/builders/x/../linux"), CodeClientCertificateIdentity},
		"a SPIFFE ID in escapes":    {uri("spiffe://example.org/builders%2Flinux"), CodeClientCertificateIdentity},
		"a SPIFFE ID with a query":  {uri(testSPIFFE + "?x"), CodeClientCertificateIdentity},
		"a SPIFFE ID with a port":   {uri("spiffe://example.org:1/builders/linux"), CodeClientCertificateIdentity},
		"a SPIFFE ID with a user":   {uri("spiffe://a@example.org/builders/linux"), CodeClientCertificateIdentity},
		"a SPIFFE ID with a slash":  {uri(testSPIFFE + "/"), CodeClientCertificateIdentity},
		"a SPIFFE ID in upper case": {uri("spiffe://EXAMPLE.ORG/builders/linux"), CodeClientCertificateIdentity},
		"a trust domain":            {uri("spiffe://example.org"), CodeClientCertificateIdentity},
		"another workload":          {uri("spiffe://example.org/builders/linux2"), CodeCallerNotAllowed},
		"a workload below":          {uri(testSPIFFE + "/x"), CodeCallerNotAllowed},
		"another trust domain":      {uri("spiffe://example.org.evil/builders/linux"), CodeCallerNotAllowed},
		"the other's workload":      {uri("spiffe://other.example/x"), CodeCallerNotAllowed},
		"our workload by the other": {[]*x509.Certificate{second.leaf(t, nil)}, CodeCallerNotAllowed},
		"no name":                   {dns(), CodeClientCertificateIdentity},
		"two hosts":                 {dns(testHost, "x.example.org"), CodeClientCertificateIdentity},
		"a wildcard":                {dns("*.example.org"), CodeClientCertificateIdentity},
		"a host in upper case":      {dns("BUILDER-1.example.org"), CodeClientCertificateIdentity},
		"a host with a dot":         {dns(testHost + "."), CodeClientCertificateIdentity},
		"another host":              {dns("builder-10.example.org"), CodeCallerNotAllowed},
		"a common name":             {leaf(func(c *x509.Certificate) { c.URIs, c.Subject = nil, pkix.Name{CommonName: testHost} }), CodeClientCertificateIdentity},
		"an address": {leaf(func(c *x509.Certificate) { c.URIs, c.IPAddresses = nil, []net.IP{net.IPv4(127, 0, 0, 1)} }),
			CodeClientCertificateIdentity},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := cs.Verify(connection(c.chain...), now)
			wantCode(t, err, c.want)
			if got != nil {
				t.Errorf("%+v", got.Caller)
			}
		})
	}
	_, err = cs.Verify(nil, now)
	wantCode(t, err, CodeClientCertificateMissing)
	_, err = cs.Verify(&tls.ConnectionState{PeerCertificates: leaf(nil)}, now)
	wantCode(t, err, CodeClientCertificateMissing)
	// A connection may outlive its certificate.
	_, err = cs.Verify(connection(leaf(nil)...), now.Add(time.Hour+time.Second))
	wantCode(t, err, CodeClientCertificateInvalid)
	none := must(NewCertificates(nil))
	_, err = none.Verify(connection(leaf(nil)...), now)
	wantCode(t, err, CodeClientCertificateInvalid)
}

func TestNewCertificatesRefuses(t *testing.T) {
	t.Parallel()
	now := newClock().Now()
	ca, other := newCertAuthority(t, now, "root"), newCertAuthority(t, now, "other")
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(ca.key))})
	for name, edit := range map[string]func(*CertificateAuthority){
		"no name":             func(c *CertificateAuthority) { c.Name = "" },
		"name with a colon":   func(c *CertificateAuthority) { c.Name = "a:b" },
		"nobody allowed":      func(c *CertificateAuthority) { c.AllowedURIs, c.AllowedDNS = nil, nil },
		"URI a pattern":       func(c *CertificateAuthority) { c.AllowedURIs = []string{"spiffe://example.org/*"} },
		"URI the domain":      func(c *CertificateAuthority) { c.AllowedURIs = []string{"spiffe://example.org"} },
		"URI of another":      func(c *CertificateAuthority) { c.AllowedURIs = []string{"spiffe://example.com/x"} },
		"no trust domain":     func(c *CertificateAuthority) { c.TrustDomain = "" },
		"trust domain a URI":  func(c *CertificateAuthority) { c.TrustDomain = "spiffe://example.org" },
		"host a wildcard":     func(c *CertificateAuthority) { c.AllowedDNS = []string{"*.example.org"} },
		"host in upper case":  func(c *CertificateAuthority) { c.AllowedDNS = []string{"Builder.example.org"} },
		"no roots":            func(c *CertificateAuthority) { c.RootsPEM = nil },
		"roots no PEM":        func(c *CertificateAuthority) { c.RootsPEM = ca.cert.Raw },
		"roots and a key":     func(c *CertificateAuthority) { c.RootsPEM = append(key, c.RootsPEM...) },
		"roots and text":      func(c *CertificateAuthority) { c.RootsPEM = append(c.RootsPEM, "x"...) },
		"a root twice":        func(c *CertificateAuthority) { c.RootsPEM = append(c.RootsPEM, c.RootsPEM...) },
		"a root of another":   func(c *CertificateAuthority) { c.RootsPEM = pemOf(other.cert) },
		"a root no authority": func(c *CertificateAuthority) { c.RootsPEM = pemOf(ca.leaf(t, nil)) },
		"the name of another": func(c *CertificateAuthority) { c.Name = "other" },
		"a root that is no DER": func(c *CertificateAuthority) {
			c.RootsPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := ca.config("on-prem")
			edit(&c)
			_, err := NewCertificates([]CertificateAuthority{other.config("other"), c})
			wantCode(t, err, CodeIdentityConfigInvalid)
			if err != nil && strings.Contains(err.Error(), "PRIVATE") {
				t.Error("the refusal shows the file")
			}
		})
	}
}

// Over a real handshake: the server asks for any certificate, and Verify decides.
func TestCertificatesOverTLS(t *testing.T) {
	t.Parallel()
	ca := newCertAuthority(t, time.Now(), "root")
	cs := must(NewCertificates([]CertificateAuthority{ca.config("on-prem")}))
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := cs.Verify(r.TLS, time.Now())
		if err != nil {
			http.Error(w, string(refusal.CodeOf(err)), http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(v.Caller.Workload.Subject))
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)

	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leaf := ca.sign(t, &x509.Certificate{
		URIs: []*url.URL{must(url.Parse(testSPIFFE))}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key.Public())
	for want, certs := range map[string][]tls.Certificate{
		testSPIFFE: {{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}},
		string(CodeClientCertificateMissing) + "\n": nil,
	} {
		transport := srv.Client().Transport.(*http.Transport).Clone()
		transport.TLSClientConfig.Certificates = certs
		resp, err := (&http.Client{Transport: transport}).Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 100)
		n, _ := resp.Body.Read(body)
		resp.Body.Close()
		transport.CloseIdleConnections()
		if string(body[:n]) != want {
			t.Errorf("%q; want %q", body[:n], want)
		}
	}
}

func FuzzSPIFFE(f *testing.F) {
	for _, s := range []string{testSPIFFE, "spiffe://a/..", "spiffe://a//b", "spiffe://a/%2e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, ok := spiffeDomain(s); !ok {
			return
		}
		u, err := url.Parse(s)
		if err != nil || u.String() != s || u.Scheme != "spiffe" || u.User != nil || u.Port() != "" || strings.Contains(u.Path, "..") && hasDotSegment(u.Path[1:]) {
			t.Fatalf("%q passed", s)
		}
	})
}
