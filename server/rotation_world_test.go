package server_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/digitorus/timestamp"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	sgroot "github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/internal/verify"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
)

// Key specs of AWS KMS.
const p256, p384, rsa2048 = "ECC_NIST_P256", "ECC_NIST_P384", "RSA_2048"

// keyed is a world whose keys change. Its AWS outlives every life of the service.
type keyed struct {
	*world
	cloud *testenv.AWS
	edits []func(*server.Config)
}

func newKeyed(t testing.TB, edits ...func(*server.Config)) *keyed {
	t.Helper()
	w := newWorld(t, "https://assay.test")
	k := &keyed{world: w, cloud: newAWS(t, w)}
	k.edits = append([]func(*server.Config){k.reachAWS}, edits...)
	return k
}

// reachAWS configures AWS. Sessions are not cached: the cache knows another clock.
func (k *keyed) reachAWS(cfg *server.Config) {
	k.cloud.Configure(cfg)
	cfg.AWSClients.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return k.cloud.Service.Session("assayd"), nil
	})
}

func inCertificateMode(cfg *server.Config) {
	cfg.Keys.Mode, cfg.Keys.Organization = server.KeysModeCertificate, "Acme"
}

func (k *keyed) begin(t testing.TB) *life {
	t.Helper()
	return k.start(t, k.edits...).login(t)
}

func (k *keyed) dir() string { return filepath.Join(k.data, "keys") }

func (k *keyed) kms(spec string) *awstest.KMSKey { return k.cloud.KMSKey(spec) }

func refOf(key *awstest.KMSKey) string { return "awskms:///" + key.ARN() }

// alter makes a change of the keyset as `assayd keys` does, in another process than the
// service.
func (k *keyed) alter(ctx context.Context, change signing.Change) error {
	cfg := server.Config{Data: k.data, Now: k.now, Logger: slog.New(slog.DiscardHandler)}
	for _, e := range k.edits {
		e(&cfg)
	}
	plan, err := signing.Plan(ctx, k.dir(), signing.Config{
		Now: k.now, Openers: server.KeyOpeners(&cfg), CA: signing.CAConfig{Organization: cfg.Keys.Organization},
	}, change)
	if err != nil {
		return err
	}
	return plan.Apply(ctx)
}

func (k *keyed) change(t testing.TB, change signing.Change) {
	t.Helper()
	if err := k.alter(t.Context(), change); err != nil {
		t.Fatalf("%T: %v", change, err)
	}
}

// active is the record of the key that signs for a role and tier.
func (k *keyed) active(t testing.TB, role signing.Role, tier signing.Tier) signing.KeyEntry {
	t.Helper()
	_, entries, err := signing.Describe(k.dir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Role == role && e.Tier == tier && e.State == signing.StateActive {
			return e
		}
	}
	t.Fatalf("no active key of %s %q", role, tier)
	return signing.KeyEntry{}
}

// rotate has another key sign for a role, and returns the record of that key.
func (k *keyed) rotate(t testing.TB, role signing.Role, ref string) signing.KeyEntry {
	t.Helper()
	k.change(t, signing.RotateKey{Role: role, Ref: ref})
	return k.active(t, role, "")
}

// issued is an attestation as it was handed out.
type issued struct {
	subject *assayv1.Subject
	bundle  []byte
	at      time.Time         // what its timestamp says
	hint    string            // name of the key, in key mode
	leaf    *x509.Certificate // in certificate mode
	entry   attest.LogEntry
}

// attested makes one more attestation.
func (l *life) attested(t testing.TB, name string) issued {
	t.Helper()
	s := subject(name, name)
	return issuedOf(t, s, l.digests(t, l.ctx, s).GetAttestation().GetBundle())
}

func issuedOf(t testing.TB, s *assayv1.Subject, bundle []byte) issued {
	t.Helper()
	parts, err := attest.ParseOwnBundle(bundle)
	if err != nil {
		t.Fatal(err)
	}
	token, err := timestamp.ParseResponse(parts.Timestamps[0])
	if err != nil {
		t.Fatal(err)
	}
	i := issued{subject: s, bundle: bundle, at: token.Time, hint: parts.PublicKeyHint, entry: parts.LogEntry}
	if len(parts.Certificate) > 0 {
		if i.leaf, err = x509.ParseCertificate(parts.Certificate); err != nil {
			t.Fatal(err)
		}
	}
	return i
}

// snapshot is what a verifier knows who asked for the keys at one moment.
type snapshot struct {
	name     string
	keys     map[string]documented // of attestations, by their name in bundles
	verifier *verify.Verifier
	sigstore *sgroot.TrustedRoot
	size     int // of the trusted root, in bytes
}

// documented is a key with the window in which it counts, as the keys document has it.
type documented struct {
	signing.DocumentKey
	public            crypto.PublicKey
	from, to, revoked time.Time
}

// snapshot asks the service, without a credential.
func (l *life) snapshot(t testing.TB, name string) *snapshot {
	t.Helper()
	resp, err := assayv1.NewAuditServiceClient(l.conn).GetTrustedRoot(t.Context(), &assayv1.GetTrustedRootRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Keys []signing.DocumentKey }
	if err := json.Unmarshal(resp.GetKeys(), &doc); err != nil {
		t.Fatal(err)
	}
	s := &snapshot{name: name, keys: map[string]documented{}, size: len(resp.GetTrustedRoot())}
	var trusted []verify.PublicKey
	for _, key := range doc.Keys {
		if key.Role != signing.RoleAttestation {
			continue
		}
		d, text := documentedOf(t, key)
		hint, err := verify.Fingerprint(d.public)
		if err != nil {
			t.Fatal(err)
		}
		s.keys[hint] = d
		trusted = append(trusted, verify.PublicKey{PEM: text, PSS: d.Algorithm == "RSA_PSS_SHA256", NotBefore: d.from, NotAfter: d.to, RevokedSince: d.revoked})
	}
	root, err := verify.NewRoot(resp.GetTrustedRoot(), trusted...)
	if err != nil {
		t.Fatal(err)
	}
	s.verifier = verify.New(root)
	if s.sigstore, err = sgroot.NewTrustedRootFromJSON(resp.GetTrustedRoot()); err != nil {
		t.Fatal(err)
	}
	return s
}

// documentedOf reads a key as the documentation tells verifiers to.
func documentedOf(t testing.TB, key signing.DocumentKey) (documented, []byte) {
	t.Helper()
	spki, err := base64.StdEncoding.DecodeString(key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	d := documented{DocumentKey: key, from: key.NotBefore, to: key.NotAfter}
	if d.public, err = x509.ParsePKIXPublicKey(spki); err != nil {
		t.Fatal(err)
	}
	if r := key.Revoked; r != nil {
		switch r.Reason {
		case signing.ReasonKeyCompromise:
			d.revoked = r.Since
		case signing.ReasonUnspecified:
			d.revoked = key.NotBefore
		case signing.ReasonSuperseded, signing.ReasonCessationOfOperation: // the window has been cut
		}
	}
	return d, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
}

// expects is what the windows say of an attestation in key mode: "" where it stands.
func (s *snapshot) expects(i issued) refusal.Code {
	d, known := s.keys[i.hint]
	switch {
	case !known:
		return verify.CodeKeyUnknown
	case !d.revoked.IsZero() && !i.at.Before(d.revoked):
		return verify.CodeKeyRevoked
	case i.at.Before(d.from), !d.to.IsZero() && i.at.After(d.to):
		return verify.CodeKeyOutsideValidity
	}
	return ""
}

// expectsIssued is the same in certificate mode, from the trusted root alone.
func (s *snapshot) expectsIssued(i issued) refusal.Code {
	for _, a := range s.sigstore.FulcioCertificateAuthorities() {
		ca, ok := a.(*sgroot.FulcioCertificateAuthority)
		if !ok {
			continue
		}
		for _, c := range ca.Intermediates {
			if !bytes.Equal(c.SubjectKeyId, i.leaf.AuthorityKeyId) {
				continue
			}
			if i.at.Before(ca.ValidityPeriodStart) || i.at.After(ca.ValidityPeriodEnd) {
				return verify.CodeCertificateOutsideAuthority
			}
			return ""
		}
	}
	return verify.CodeCertificateUntrusted
}

// judged demands that everybody says of an attestation what the windows say.
func (s *snapshot) judged(t testing.TB, i issued) refusal.Code {
	t.Helper()
	want := refusal.Code("")
	if i.leaf == nil {
		want = s.expects(i)
	} else {
		want = s.expectsIssued(i)
	}
	s.agreed(t, i, want)
	return want
}

// agreed has both entrances of package verify and sigstore-go judge an attestation.
func (s *snapshot) agreed(t testing.TB, i issued, want refusal.Code) {
	t.Helper()
	expectation := verify.Expectation{AnyArtifact: true, RootKey: true}
	if i.leaf != nil {
		expectation = verify.Expectation{AnyArtifact: true, Identity: &verify.Identity{SANRegexp: ".*", Issuer: issuerOf(t, i.leaf)}}
	}
	if _, err := s.verifier.VerifyOwn(i.bundle); refusal.CodeOf(err) != want || (err == nil) != (want == "") {
		t.Errorf("%s, with the keys of %q: VerifyOwn says %v; want %q", i.subject.GetName(), s.name, err, want)
	}
	if _, err := s.verifier.Verify(i.bundle, expectation); refusal.CodeOf(err) != want || (err == nil) != (want == "") {
		t.Errorf("%s, with the keys of %q: Verify says %v; want %q", i.subject.GetName(), s.name, err, want)
	}
	if s.keys[i.hint].Algorithm == "RSA_PSS_SHA256" {
		return // which sigstore-go takes for PKCS #1 v1.5
	}
	if err := s.sigstoreJudges(t, i); (err == nil) != (want == "") {
		t.Errorf("%s, with the keys of %q: sigstore-go says %v; want %q", i.subject.GetName(), s.name, err, want)
	}
}

// sigstoreJudges is sigstore-go as it is shipped, with its own kinds of keys.
func (s *snapshot) sigstoreJudges(t testing.TB, i issued) error {
	t.Helper()
	b := new(sgbundle.Bundle)
	if err := b.UnmarshalJSON(i.bundle); err != nil {
		return err
	}
	material := sgroot.TrustedMaterialCollection{s.sigstore}
	// A timestamp is asked for by itself: the promise of the log would be one to it too.
	options := []sgverify.VerifierOption{sgverify.WithTransparencyLog(1), sgverify.WithObserverTimestamps(1), sgverify.WithSignedTimestamps(1)}
	policy := []sgverify.PolicyOption{sgverify.WithKey()}
	if i.leaf != nil {
		options = append(options, sgverify.WithSignedCertificateTimestamps(1))
		policy = []sgverify.PolicyOption{sgverify.WithoutIdentitiesUnsafe()}
	} else {
		keys := make(map[string]*sgroot.ExpiringKey)
		for hint, d := range s.keys {
			v, err := signature.LoadDefaultVerifier(d.public)
			if err != nil {
				t.Fatal(err)
			}
			end := d.to
			if last := d.revoked.Add(-time.Second); !d.revoked.IsZero() && (end.IsZero() || last.Before(end)) {
				end = last // its windows are inclusive
			}
			keys[hint] = sgroot.NewExpiringKey(v, d.from, end)
		}
		material = append(material, sgroot.NewTrustedPublicKeyMaterialFromMapping(keys))
	}
	verifier, err := sgverify.NewVerifier(material, options...)
	if err != nil {
		t.Fatal(err)
	}
	_, err = verifier.Verify(b, sgverify.NewPolicy(sgverify.WithoutArtifactUnsafe(), policy...))
	return err
}

// issuerOf is the identity provider that a leaf names (1.3.6.1.4.1.57264.1.8).
func issuerOf(t testing.TB, leaf *x509.Certificate) string {
	t.Helper()
	for _, e := range leaf.Extensions {
		if e.Id.String() == "1.3.6.1.4.1.57264.1.8" {
			var issuer string
			if _, err := asn1.Unmarshal(e.Value, &issuer); err != nil {
				t.Fatal(err)
			}
			return issuer
		}
	}
	t.Fatal("the certificate names no issuer")
	return ""
}

// answerTo is what the Verify RPC is to answer about an attestation that is judged so.
func answerTo(code refusal.Code) string {
	if code == "" {
		return "ALLOWED"
	}
	return string(server.CodeStoredEvidenceInvalid)
}
