package notary

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	testRegion  = "eu-west-1"
	testAccount = "111122223333"
	testProfile = "arn:aws:signer:eu-west-1:111122223333:/signing-profiles/release"
	testVersion = testProfile + "/Ab3De5Gh7J"
	testJobID   = "e218ee67-5dd3-4dc4-8caf-224898b12493"
	testJob     = "arn:aws:signer:eu-west-1:111122223333:/signing-jobs/" + testJobID
)

func wantCode(tb testing.TB, err error, want refusal.Code) {
	tb.Helper()
	if got := refusal.CodeOf(err); got != want || (err != nil) != (want != "") {
		tb.Errorf("got %v; want code %q", err, want)
	}
}

// clock is an injected clock. It starts at the real time, by which the SDK signs.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Now().UTC().Truncate(time.Second)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// authority is a signing authority with a chain like AWS Signer's: leaf, region, intermediate, root.
type authority struct {
	chain []*x509.Certificate // leaf first
	key   *ecdsa.PrivateKey   // of the leaf
	root  *x509.Certificate
}

// changes are what a hostile authority does to its leaf.
type changes struct {
	curve  elliptic.Curve
	leaf   func(*x509.Certificate)
	region func(*x509.Certificate) // the certificate that issues the leaf
}

func newAuthority(tb testing.TB, now time.Time, c changes) *authority {
	tb.Helper()
	if c.curve == nil {
		c.curve = elliptic.P384()
	}
	var parent *x509.Certificate
	var parentKey crypto.Signer
	a := &authority{}
	for i, name := range []string{"Code Signing Root CA G1", "Code Signing Int CA G1", "eu-west-1 Code Signing CA G1", "AWS Signer"} {
		leaf := i == 3
		template := &x509.Certificate{
			SerialNumber:          big.NewInt(int64(i + 1)),
			Subject:               pkix.Name{CommonName: name, Organization: []string{"Test"}},
			NotBefore:             now.Add(-24 * time.Hour),
			NotAfter:              now.Add(time.Duration(4-i) * 48 * time.Hour),
			BasicConstraintsValid: true,
			IsCA:                  !leaf,
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
			MaxPathLen:            2 - i, MaxPathLenZero: i == 2,
		}
		curve := elliptic.P384()
		if leaf {
			template.MaxPathLen, template.MaxPathLenZero = 0, false
			template.KeyUsage = x509.KeyUsageDigitalSignature
			template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
			curve = c.curve
			if c.leaf != nil {
				c.leaf(template)
			}
		}
		if i == 2 && c.region != nil {
			c.region(template)
		}
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			tb.Fatal(err)
		}
		if parent == nil {
			parent, parentKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
		if err != nil {
			tb.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			tb.Fatal(err)
		}
		parent, parentKey = cert, key
		a.chain = append([]*x509.Certificate{cert}, a.chain...)
		a.key = key
	}
	a.root = a.chain[3]
	return a
}

// envelopeOf is a DSSE envelope whose signature nobody here looks at.
func envelopeOf(tb testing.TB, predicateType string) []byte {
	tb.Helper()
	st := &attest.Statement{
		Type:          attest.StatementTypeV1,
		Subjects:      []attest.Subject{{Name: "app.tar.gz", Digest: map[string]string{"sha256": hex.EncodeToString(make([]byte, 32))}}},
		PredicateType: predicateType,
		Predicate:     json.RawMessage(`{"buildDefinition":{"buildType":"https://example.com/x"}}`),
	}
	payload, err := st.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	env := &attest.Envelope{
		PayloadType: attest.PayloadTypeInToto, Payload: payload,
		Signatures: []attest.Signature{{KeyID: "k", Sig: []byte("not looked at")}},
	}
	return env.Marshal()
}

// draft is a signature before it is made. What a test changes is signed as changed.
type draft struct {
	header  map[string]any
	target  map[string]any
	chain   []*x509.Certificate
	key     *ecdsa.PrivateKey
	payload []byte           // in place of target
	raw     []byte           // of the protected header, in place of header
	after   func(wire) error // changes what is not signed
	sig     func([]byte) []byte
}

type wire map[string]any

func (a *authority) draft(tb testing.TB, envelope []byte, now time.Time) *draft {
	tb.Helper()
	sum := sha256.Sum256(envelope)
	return &draft{
		header: map[string]any{
			"alg": "ES384", "cty": contentType,
			"crit":       []string{headerScheme, headerTime, headerExpiry, headerPlugin, headerProfile, headerJob},
			headerScheme: signingScheme, headerPlugin: pluginName,
			headerTime: now.Format(time.RFC3339), headerExpiry: now.Add(24 * time.Hour).Format(time.RFC3339),
			headerProfile: testVersion, headerJob: testJob,
		},
		target: map[string]any{
			"mediaType": MediaTypeEnvelope, "digest": "sha256:" + hex.EncodeToString(sum[:]), "size": len(envelope),
			"annotations": map[string]string{AnnotationPredicateType: attest.PredicateSLSAProvenanceV1},
		},
		chain: a.chain, key: a.key,
	}
}

func (d *draft) sign(tb testing.TB) []byte {
	tb.Helper()
	protected, payload := d.raw, d.payload
	if protected == nil {
		protected = mustJSON(tb, d.header)
	}
	if payload == nil {
		payload = mustJSON(tb, map[string]any{"targetArtifact": d.target})
	}
	b64 := base64.RawURLEncoding.EncodeToString
	input := b64(protected) + "." + b64(payload)
	size := (d.key.Curve.Params().BitSize + 7) / 8
	var digest []byte
	switch size {
	case 32:
		h := sha256.Sum256([]byte(input))
		digest = h[:]
	default:
		h := sha512.Sum384([]byte(input))
		digest = h[:]
	}
	r, s, err := ecdsa.Sign(rand.Reader, d.key, digest)
	if err != nil {
		tb.Fatal(err)
	}
	sig := make([]byte, 2*size)
	r.FillBytes(sig[:size])
	s.FillBytes(sig[size:])
	if d.sig != nil {
		sig = d.sig(sig)
	}
	var x5c []string
	for _, cert := range d.chain {
		x5c = append(x5c, base64.StdEncoding.EncodeToString(cert.Raw))
	}
	w := wire{"payload": b64(payload), "protected": b64(protected), "header": map[string]any{"x5c": x5c}, "signature": b64(sig)}
	if d.after != nil {
		if err := d.after(w); err != nil {
			tb.Fatal(err)
		}
	}
	return mustJSON(tb, w)
}

func mustJSON(tb testing.TB, v any) []byte {
	tb.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// word is what a test has AWS say about revocation.
type word struct {
	mu       sync.Mutex
	revoked  []string
	err      error
	asked    []RevocationQuery
	blocking chan struct{} // if set, an answer waits for it
}

func (w *word) Revoked(ctx context.Context, q RevocationQuery) ([]string, error) {
	w.mu.Lock()
	w.asked = append(w.asked, q)
	revoked, err, blocking := w.revoked, w.err, w.blocking
	w.mu.Unlock()
	if blocking != nil {
		select {
		case <-blocking:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return revoked, err
}

func (w *word) say(revoked []string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revoked, w.err = revoked, err
}

func (w *word) times() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asked)
}

// lab is an authority and a verifier that trusts it.
type lab struct {
	clock     *clock
	authority *authority
	word      *word
	verifier  *Verifier
	envelope  []byte
}

func newLab(tb testing.TB) *lab {
	tb.Helper()
	l := &lab{clock: newClock(), word: &word{}}
	l.authority = newAuthority(tb, l.clock.Now(), changes{})
	l.envelope = envelopeOf(tb, attest.PredicateSLSAProvenanceV1)
	l.verifier = l.trusting(tb, l.authority)
	return l
}

func (l *lab) trusting(tb testing.TB, a *authority) *Verifier {
	tb.Helper()
	v, err := NewVerifier(Trust{Roots: []*x509.Certificate{a.root}, ProfileVersionARNs: []string{testVersion}},
		l.word, VerifierConfig{Now: l.clock.Now})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func (l *lab) draft(tb testing.TB) *draft {
	return l.authority.draft(tb, l.envelope, l.clock.Now().Add(-time.Minute))
}

func (l *lab) jws(tb testing.TB) []byte { return l.draft(tb).sign(tb) }

func sum384(b []byte) string { s := sha512.Sum384(b); return fmt.Sprintf("%x", s) }
