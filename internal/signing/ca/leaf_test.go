package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/ctutil"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/google/certificate-transparency-go/x509util"
	"github.com/google/go-cmp/cmp"
	"github.com/sigstore/fulcio/pkg/certificate"

	"github.com/assay-build/assay/internal/refusal"
)

// identities are of every shape that a certificate may bear.
func identities() []Identity {
	return []Identity{
		workflow(), person(),
		{URI: "spiffe://example.org/ns/prod", Issuer: "https://spiffe.example.org"},
		{URI: "arn:aws:sts::123456789012:assumed-role/build/AWSCodeBuild-1", Issuer: "https://sts.amazonaws.com"},
		{URI: "https://example.com/" + strings.Repeat("a", maxURI-20), Issuer: "https://" + strings.Repeat("i", maxURI-8),
			Extensions: certificate.Extensions{Subject: strings.Repeat("é", maxExtensions/2)}},
	}
}

// TestLeafProfile is Fulcio's, field by field.
func TestLeafProfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, id := range identities() {
		leaf := w.issue(id)
		cert, what := parsed(t, leaf), id.URI+id.Email
		if !bytes.Equal(cert.Raw, leaf.Raw) {
			t.Errorf("%s: Certificate is not Raw", what)
		}
		checkCritical(t, what, cert, "2.5.29.15", "2.5.29.17")
		if cert.Subject.String() != "" || !bytes.Equal(cert.RawIssuer, leaf.Issuer.RawSubject) {
			t.Errorf("%s: subject %q, issuer %q", what, cert.Subject, cert.Issuer)
		}
		if cert.KeyUsage != x509.KeyUsageDigitalSignature || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageCodeSigning ||
			len(cert.UnknownExtKeyUsage) != 0 || cert.BasicConstraintsValid || cert.IsCA {
			t.Errorf("%s: usage %#x %v %v, CA %t", what, cert.KeyUsage, cert.ExtKeyUsage, cert.UnknownExtKeyUsage, cert.IsCA)
		}
		start := testStart.Truncate(time.Second)
		if !cert.NotBefore.Equal(start) || !cert.NotAfter.Equal(start.Add(10*time.Minute)) {
			t.Errorf("%s: valid from %s to %s", what, cert.NotBefore, cert.NotAfter)
		}
		// Behind 26 octets of algorithm and headers is the point, which RFC 7093 hashes.
		if point := sha256.Sum256(cert.RawSubjectPublicKeyInfo[26:]); !bytes.Equal(cert.SubjectKeyId, point[:20]) {
			t.Errorf("%s: subject key id %x", what, cert.SubjectKeyId)
		}
		if !bytes.Equal(cert.AuthorityKeyId, leaf.Issuer.SubjectKeyId) {
			t.Errorf("%s: authority key id %x, issuer's %x", what, cert.AuthorityKeyId, leaf.Issuer.SubjectKeyId)
		}
		if id.URI != "" && (len(cert.URIs) != 1 || cert.URIs[0].String() != id.URI || cert.EmailAddresses != nil) ||
			id.Email != "" && (len(cert.EmailAddresses) != 1 || cert.EmailAddresses[0] != id.Email || cert.URIs != nil) {
			t.Errorf("%s: names %v %v", what, cert.URIs, cert.EmailAddresses)
		}
		want := id.Extensions
		want.Issuer = id.Issuer
		if got, err := certificate.ParseExtensions(cert.Extensions); err != nil || got != want {
			t.Errorf("%s: extensions (%v):\n%s", what, err, cmp.Diff(want, got))
		}
		if last := cert.Extensions[len(cert.Extensions)-1]; !last.Id.Equal(oidSCTList()) {
			t.Errorf("%s: the last extension is %s", what, last.Id)
		}
		if err := cert.CheckSignatureFrom(leaf.Issuer); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		digest := digestOf([]byte("message"))
		sig, err := leaf.Sign(t.Context(), digest)
		if err != nil || !ecdsa.VerifyASN1(cert.PublicKey.(*ecdsa.PublicKey), digest, sig) || !leaf.Public().(*ecdsa.PublicKey).Equal(cert.PublicKey) {
			t.Errorf("%s: the key is not the certificate's (%v)", what, err)
		}
		sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
		if leaf.KeyID() != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: key id %s", what, leaf.KeyID())
		}
	}
}

// TestLeafAsStandardLibrary has crypto/x509 encode the same certificate, with and
// without SCT, on both sides of the year in which the form of times changes.
func TestLeafAsStandardLibrary(t *testing.T) {
	t.Parallel()
	for _, year := range []int{2026, 2049, 2050, 2060} {
		w := newWorld(t)
		w.clock.at = time.Date(year, 12, 31, 23, 55, 0, 0, time.UTC)
		w.authority.cfg.Root = makeRoot(t, w.key, w.clock.at.AddDate(0, -1, 0))
		for _, id := range identities() {
			leaf := w.issue(id)
			cert := parsed(t, leaf)
			for _, withSCT := range []bool{true, false} {
				template := &x509.Certificate{
					SerialNumber: cert.SerialNumber, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
					KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
					SubjectKeyId: cert.SubjectKeyId,
				}
				if id.Email != "" {
					template.EmailAddresses = []string{id.Email}
				} else {
					u, err := url.Parse(id.URI)
					if err != nil {
						t.Fatal(err)
					}
					template.URIs = []*url.URL{u}
				}
				e := id.Extensions
				e.Issuer = id.Issuer
				extra, err := e.Render()
				if err != nil {
					t.Fatal(err)
				}
				if withSCT {
					extra = append(extra, cert.Extensions[len(cert.Extensions)-1])
				}
				template.ExtraExtensions = extra
				der, err := x509.CreateCertificate(rand.Reader, template, leaf.Issuer, leaf.Public(), w.authority.current.Load().key)
				if err != nil {
					t.Fatal(err)
				}
				want, got := parse(t, der).RawTBSCertificate, cert.RawTBSCertificate
				if !withSCT {
					if got, _, err = cutSCTList(cert.RawTBSCertificate); err != nil {
						t.Fatal(err)
					}
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%d, %s%s, SCT %t:\n got %x\nwant %x", year, id.URI, id.Email, withSCT, got, want)
				}
			}
		}
	}
}

// TestLogEntry: what the log gets is what every verifier rebuilds, and what the log
// has promised.
func TestLogEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, id := range identities() {
		leaf := w.issue(id)
		entry := leaf.LogEntry()
		rebuilt, err := LogEntryOf(parse(t, leaf.Raw), leaf.Issuer)
		if err != nil || !bytes.Equal(rebuilt, entry) {
			t.Errorf("%s: rebuilt (%v)\n %x, want\n %x", leaf, err, rebuilt, entry)
		}
		chain, err := ctx509.ParseCertificates(append(bytes.Clone(leaf.Raw), leaf.Issuer.Raw...))
		if err != nil {
			t.Fatal(err)
		}
		scts, err := x509util.ParseSCTsFromCertificate(leaf.Raw)
		if err != nil || len(scts) != 1 {
			t.Fatalf("SCTs %v (%v)", scts, err)
		}
		if at := ct.TimestampToTime(scts[0].Timestamp); !at.Equal(testStart) {
			t.Errorf("promised at %s, want %s", at, testStart)
		}
		if err := ctutil.VerifySCT(w.log.Public(), chain, scts[0], true); err != nil {
			t.Errorf("%s: %v", leaf, err)
		}
		if err := ctutil.VerifySCT(p256(t).Public(), chain, scts[0], true); err == nil {
			t.Errorf("%s: another log promised it too", leaf)
		}
		want, err := ctutil.LeafHash(chain, scts[0], true)
		if err != nil {
			t.Fatal(err)
		}
		if got := sha256.Sum256(append([]byte{0}, entry...)); got != want {
			t.Errorf("%s: leaf hash %x, want %x", leaf, got, want)
		}
		if len(entry) > 65535 {
			t.Errorf("%s: the entry has %d bytes, a log takes 65535", leaf, len(entry))
		}
		entry[0] ^= 1
		if bytes.Equal(leaf.LogEntry(), entry) {
			t.Error("LogEntry hands out its own copy")
		}
	}
}

func TestLogEntryOfRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leaf := w.issue(person())
	cur := w.authority.current.Load()
	other := newWorld(t)
	sct := parsed(t, leaf).Extensions[len(parsed(t, leaf).Extensions)-1]
	signed := func(extra ...pkix.Extension) *x509.Certificate {
		template := &x509.Certificate{SerialNumber: parsed(t, leaf).SerialNumber, NotBefore: testStart, NotAfter: testStart, ExtraExtensions: extra}
		der, err := x509.CreateCertificate(rand.Reader, template, leaf.Issuer, leaf.Public(), cur.key)
		if err != nil {
			t.Fatal(err)
		}
		return parse(t, der)
	}
	value := func(edit func([]byte) []byte) pkix.Extension {
		return pkix.Extension{Id: sct.Id, Value: edit(bytes.Clone(sct.Value))}
	}
	// 04 len | list length (2) | SCT length (2) | version | log id (32) | timestamp (8) | extensions (2) | hash | algorithm | signature
	const sctAt = 2 + 2 + 2
	set := func(at int, b byte) pkix.Extension {
		return value(func(v []byte) []byte { v[at] = b; return v })
	}
	scts := func(value []byte) []byte { return value[sctAt:] }
	wrapped := func(parts ...[]byte) pkix.Extension {
		one := slices.Concat(parts...)
		return pkix.Extension{Id: sct.Id, Value: octetString(slices.Concat([]byte{0, byte(2 + len(one)), 0, byte(len(one))}, one))}
	}
	if entry, err := LogEntryOf(signed(wrapped(scts(sct.Value))), leaf.Issuer); err != nil || len(entry) == 0 {
		t.Fatalf("what the test wraps itself is refused: %v", err)
	}
	tests := []struct {
		name         string
		leaf, issuer *x509.Certificate
	}{
		{"another issuer", parsed(t, leaf), other.issue(person()).Issuer},
		{"issued by a root", parsed(t, leaf), w.root},
		{"no SCT", signed(), leaf.Issuer},
		{"no extension at all", parse(t, w.root.Raw), w.root},
		{"empty list", signed(pkix.Extension{Id: sct.Id, Value: []byte{4, 2, 0, 0}}), leaf.Issuer},
		{"not an octet string", signed(value(func(v []byte) []byte { v[0] = 5; return v })), leaf.Issuer},
		{"trailing bytes", signed(value(func(v []byte) []byte { return append(v, 0) })), leaf.Issuer},
		{"list longer than it is", signed(set(3, 0xff)), leaf.Issuer},
		{"another version", signed(set(sctAt, 1)), leaf.Issuer},
		{"another hash", signed(set(sctAt+43, 5)), leaf.Issuer},
		{"another algorithm", signed(set(sctAt+44, 1)), leaf.Issuer},
		{"extensions cut short", signed(set(sctAt+42, 1)), leaf.Issuer},
		{"extensions", signed(wrapped(scts(sct.Value)[:41], []byte{0, 1, 7}, scts(sct.Value)[43:])), leaf.Issuer},
		{"bytes behind the signature", signed(wrapped(scts(sct.Value), []byte{0})), leaf.Issuer},
		{"two SCTs", signed(pkix.Extension{Id: sct.Id, Value: octetString(slices.Concat(
			[]byte{0, byte(2 * (2 + len(scts(sct.Value))))}, sct.Value[4:], sct.Value[4:]))}), leaf.Issuer},
	}
	for _, tt := range tests {
		_, err := LogEntryOf(tt.leaf, tt.issuer)
		wantCode(t, tt.name, err, CodeCertificateInvalid)
	}
	if entry, err := LogEntryOf(signed(sct), leaf.Issuer); err != nil || bytes.Equal(entry, leaf.LogEntry()) {
		t.Errorf("another certificate with the same SCT has entry %x (%v)", entry, err)
	}
	// crypto/x509 parses no certificate with an extension twice; what is not parsed by it is refused here.
	_, _, err := cutSCTList(doubled(t, parsed(t, leaf).RawTBSCertificate))
	wantCode(t, "two lists", err, CodeCertificateInvalid)
}

// doubled writes the SCT list of a TBSCertificate twice.
func doubled(t *testing.T, tbs []byte) []byte {
	t.Helper()
	without, _, err := cutSCTList(tbs)
	if err != nil {
		t.Fatal(err)
	}
	// Both begin alike but for the lengths of three wrappers, so what is cut is the end.
	start := bytes.Index(tbs, []byte(keyUsage))
	kept := without[bytes.Index(without, []byte(keyUsage)):]
	list := tbs[start+len(kept):]
	wrapper := bytes.LastIndexByte(tbs[:start], 0xa3)
	out, err := tbsCertificate(tbs[4:wrapper], slices.Concat(kept, list, list))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestIdentityRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const iss = "https://issuer.example.com"
	uri := func(s string) Identity { return Identity{URI: s, Issuer: iss} }
	email := func(s string) Identity { return Identity{Email: s, Issuer: iss} }
	tests := map[string]Identity{
		"nobody":                    {Issuer: iss},
		"two":                       {URI: "https://example.com/a", Email: "a@example.com", Issuer: iss},
		"relative":                  uri("/a"),
		"scheme alone":              uri("https:"),
		"scheme and slashes":        uri("https://"),
		"no scheme":                 uri("example.com/a"),
		"not a URI":                 uri("https://example.com/%zz"),
		"space":                     uri("https://example.com/a b"),
		"NUL":                       uri("https://example.com/a\x00"),
		"line break":                uri("https://example.com/a\n"),
		"not ASCII":                 uri("https://example.com/é"),
		"would be read as another":  uri("https://example.com/{a}"),
		"capital scheme":            uri("HTTPS://example.com/a"),
		"oversized":                 uri("https://example.com/" + strings.Repeat("a", maxURI)),
		"host that is none":         uri("https://exa_mple..com/a"),
		"no at":                     email("example.com"),
		"two ats":                   email("a@b@example.com"),
		"display name":              email("Ann<ann@example.com>"),
		"list":                      email("a@example.com,b@example.com"),
		"email not ASCII":           email("é@example.com"),
		"email with a NUL":          email("a\x00@example.com"),
		"email with a space":        email("a @example.com"),
		"oversized email":           email(strings.Repeat("a", 250) + "@example.com"),
		"no issuer":                 {URI: "https://example.com/a"},
		"issuer not ASCII":          {URI: "https://example.com/a", Issuer: "https://é"},
		"issuer with a line break":  {URI: "https://example.com/a", Issuer: iss + "\n"},
		"oversized issuer":          {URI: "https://example.com/a", Issuer: strings.Repeat("a", maxURI+1)},
		"two issuers":               {URI: "https://example.com/a", Issuer: iss, Extensions: certificate.Extensions{Issuer: iss + "/"}},
		"extension not UTF-8":       {URI: "https://example.com/a", Issuer: iss, Extensions: certificate.Extensions{Subject: "\xff"}},
		"extension with control":    {URI: "https://example.com/a", Issuer: iss, Extensions: certificate.Extensions{GithubWorkflowName: "a\x1bb"}},
		"extensions together large": {URI: "https://example.com/a", Issuer: iss, Extensions: certificate.Extensions{Subject: strings.Repeat("a", maxExtensions/2), BuildSignerURI: strings.Repeat("a", maxExtensions/2+1)}},
	}
	for name, id := range tests {
		_, err := w.authority.Issue(t.Context(), id)
		wantCode(t, name, err, CodeIdentityInvalid)
	}
	same := person()
	same.Extensions.Issuer = same.Issuer
	w.issue(same)
}

// TestExtensionFields: checkExtensions reads every field as a string.
func TestExtensionFields(t *testing.T) {
	t.Parallel()
	e := reflect.TypeFor[certificate.Extensions]()
	for i := range e.NumField() {
		if f := e.Field(i); f.Type.Kind() != reflect.String {
			t.Errorf("field %s is a %s", f.Name, f.Type)
		}
	}
}

func TestLeafSignRefused(t *testing.T) {
	t.Parallel()
	leaf := newWorld(t).issue(person())
	for _, n := range []int{0, 31, 33, 48} {
		if _, err := leaf.Sign(t.Context(), make([]byte, n)); err == nil {
			t.Errorf("a digest of %d bytes was signed", n)
		}
	}
}

// TestKeysStayInside: however a leaf or an authority is printed, no key is.
func TestKeysStayInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leaf := w.issue(person())
	for _, key := range []*ecdsa.PrivateKey{leaf.key, w.authority.current.Load().key} {
		secret, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
			for _, v := range []any{leaf, *leaf, w.authority.current.Load()} {
				text := fmt.Sprintf(verb, v)
				if strings.Contains(text, hex.EncodeToString(secret)) || strings.Contains(text, new(big.Int).SetBytes(secret).String()) {
					t.Errorf("%s of %T prints a private key", verb, v)
				}
			}
		}
	}
}

// TestOpenSSL: a third implementation reads and verifies the chain.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	for name, key := range rootKeys(t) {
		w := worldOf(t, key)
		leaf := w.issue(workflow())
		dir := t.TempDir()
		file := func(name string, cert *x509.Certificate) string {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, pemOf(cert), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		root, inter, end := file("root", w.root), file("inter", leaf.Issuer), file("leaf", parsed(t, leaf))
		run := func(args ...string) string {
			out, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput()
			if err != nil {
				t.Errorf("%s: openssl %v: %v\n%s", name, args, err, out)
			}
			return string(out)
		}
		run("verify", "-x509_strict", "-check_ss_sig", "-purpose", "any", "-attime", fmt.Sprint(testStart.Unix()), "-CAfile", root, "-untrusted", inter, end)
		text := run("x509", "-in", end, "-noout", "-text")
		for _, want := range []string{
			"Subject: \n", "X509v3 Key Usage: critical\n                Digital Signature\n", "Code Signing\n", "X509v3 Subject Alternative Name: critical\n",
			"URI:https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main", "CT Precertificate SCTs", "Version   : v1 (0x0)", "ecdsa-with-SHA256",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: openssl's text lacks %q:\n%s", name, want, text)
			}
		}
	}
}

// FuzzSCTList: whatever is read as a certificate, nothing panics, and where
// certificate-transparency-go finds an SCT list too, both leave the same octets.
func FuzzSCTList(f *testing.F) {
	w := newWorld(f)
	for _, id := range []Identity{workflow(), person()} {
		leaf := w.issue(id)
		f.Add(parsed(f, leaf).RawTBSCertificate)
		f.Add(leaf.Issuer.RawTBSCertificate)
	}
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, tbs []byte) {
		without, list, err := cutSCTList(tbs)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Errorf("error without a code: %v", err)
			}
			return
		}
		if _, err := soleTimestamp(list); err != nil && refusal.CodeOf(err) != CodeCertificateInvalid {
			t.Errorf("error without a code: %v", err)
		}
		if want, err := ctx509.RemoveSCTList(tbs); err == nil && !bytes.Equal(without, want) {
			t.Errorf("cut  %x\nwant %x", without, want)
		}
	})
}

// FuzzIdentity: what is accepted comes back from the certificate as it went in.
func FuzzIdentity(f *testing.F) {
	w := newWorld(f)
	for _, id := range identities() {
		f.Add(id.URI, id.Email, id.Issuer, id.Extensions.Subject)
	}
	f.Fuzz(func(t *testing.T, uri, email, issuer, subject string) {
		id := Identity{URI: uri, Email: email, Issuer: issuer, Extensions: certificate.Extensions{Subject: subject}}
		leaf, err := w.authority.Issue(t.Context(), id)
		if err != nil {
			wantCode(t, "refused", err, CodeIdentityInvalid)
			return
		}
		got, err := certificate.ParseExtensions(parsed(t, leaf).Extensions)
		if err != nil || got.Issuer != issuer || got.Subject != subject {
			t.Errorf("issuer %q, subject %q (%v)", got.Issuer, got.Subject, err)
		}
		if uri != "" && (len(parsed(t, leaf).URIs) != 1 || parsed(t, leaf).URIs[0].String() != uri) || email != "" && parsed(t, leaf).EmailAddresses[0] != email {
			t.Errorf("names %v %v, want %q %q", parsed(t, leaf).URIs, parsed(t, leaf).EmailAddresses, uri, email)
		}
		if entry, err := LogEntryOf(parsed(t, leaf), leaf.Issuer); err != nil || !bytes.Equal(entry, leaf.LogEntry()) {
			t.Errorf("log entry %x (%v)", entry, err)
		}
	})
}
