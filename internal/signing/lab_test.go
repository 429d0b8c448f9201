package signing_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/awskms"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/signing/mldsakey"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/internal/verify"
)

const (
	host   = "assay.example.com"
	region = "eu-west-1"
)

// lab is a keyset with a clock of its own, the real openers, and AWS KMS as the
// stand-in plays it.
type lab struct {
	t       testing.TB
	dir     string // the keyset
	at      time.Time
	openers signing.Openers
	account *awstest.Account
	world   *awstest.World
}

// newLab makes the keyset. With KMS it also starts the stand-in.
func newLab(t testing.TB, kms bool) *lab {
	t.Helper()
	l := &lab{t: t, dir: filepath.Join(t.TempDir(), "keys"), at: time.Date(2031, 4, 5, 6, 7, 8, 900_000_000, time.UTC)}
	l.openers = signing.Openers{
		FileMessage: func(path string, create bool) (signing.MessageSigner, error) { return mldsakey.Open(path, create) },
		NewCARoot: func(ctx context.Context, s signing.Signer, organization, host string, start time.Time) ([]byte, error) {
			return ca.NewRoot(ctx, s, organization, host, start, 10)
		},
	}
	if kms {
		l.startKMS()
	}
	l.open(signing.Config{Create: true})
	return l
}

func (l *lab) startKMS() {
	l.t.Helper()
	var err error
	if l.world, err = awstest.New(awstest.Config{}); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(l.world.Close)
	l.account = l.world.AccountIn("aws", "111122223333")
	creds := l.account.Role("assay").Allow("kms:Sign", "kms:GetPublicKey", "kms:DescribeKey").Session("assayd")
	service, err := awskms.New(awskms.Config{
		AWS: l.world.AWSConfig(creds, region), Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.openers.KMS = func(arn string, pub crypto.PublicKey) (signing.Signer, error) { return service.Open(arn, pub) }
	l.openers.KMSMessage = func(arn string, spki []byte) (signing.MessageSigner, error) {
		pub, err := mldsakey.ParseSPKI(spki)
		if err != nil {
			return nil, err
		}
		return service.OpenMLDSA(arn, pub)
	}
	l.openers.Resolve = func(ctx context.Context, ref string) (signing.Resolved, error) {
		r, err := service.Resolve(ctx, ref)
		return signing.Resolved{ARN: r.ARN, Alias: r.Alias, SPKI: r.SPKI}, err
	}
}

func (l *lab) now() time.Time { return l.at }

// second is the clock in the whole seconds that keysets know.
func (l *lab) second() time.Time { return l.at.Truncate(time.Second) }

func (l *lab) config() signing.Config {
	return signing.Config{Host: host, Now: l.now, Openers: l.openers, CA: signing.CAConfig{}}
}

func (l *lab) open(cfg signing.Config) *signing.Keyset {
	l.t.Helper()
	ks, err := l.tryOpen(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	return ks
}

func (l *lab) tryOpen(cfg signing.Config) (*signing.Keyset, error) {
	cfg.Host, cfg.Now, cfg.Openers = host, l.now, l.openers
	return signing.OpenKeyset(l.t.Context(), l.dir, cfg)
}

// plan works a change out.
func (l *lab) plan(c signing.Change) (*signing.Planned, error) {
	return signing.Plan(l.t.Context(), l.dir, l.config(), c)
}

// try makes a change.
func (l *lab) try(c signing.Change) error {
	cfg := l.config()
	cfg.CA.Organization = "Example"
	plan, err := signing.Plan(l.t.Context(), l.dir, cfg, c)
	if err != nil {
		return err
	}
	return plan.Apply(l.t.Context())
}

// change makes a change that must succeed.
func (l *lab) change(c signing.Change) {
	l.t.Helper()
	if err := l.try(c); err != nil {
		l.t.Fatalf("%+v: %v", c, err)
	}
}

// refused makes sure that a change is refused for a reason and changes nothing.
func (l *lab) refused(c signing.Change, want refusal.Code) {
	l.t.Helper()
	before := l.text()
	if err := l.try(c); refusal.CodeOf(err) != want {
		l.t.Errorf("%+v: got %v, want code %q", c, err, want)
	}
	if l.text() != before {
		l.t.Errorf("%+v was refused and keyset.json is another", c)
	}
}

// text is keyset.json.
func (l *lab) text() string {
	l.t.Helper()
	text, err := os.ReadFile(filepath.Join(l.dir, "keyset.json"))
	if err != nil {
		l.t.Fatal(err)
	}
	return string(text)
}

// active returns the active key of a role and tier.
func (l *lab) active(role signing.Role, tier signing.Tier) *signing.KeyEntry {
	l.t.Helper()
	for _, e := range l.entries() {
		if e.Role == role && e.Tier == tier && e.State == signing.StateActive {
			return &e
		}
	}
	return nil
}

func (l *lab) entries() []signing.KeyEntry {
	l.t.Helper()
	_, entries, err := signing.Describe(l.dir)
	if err != nil {
		l.t.Fatal(err)
	}
	return entries
}

func (l *lab) entry(id string) signing.KeyEntry {
	l.t.Helper()
	entries := l.entries()
	i := slices.IndexFunc(entries, func(e signing.KeyEntry) bool { return e.KeyID == id })
	if i < 0 {
		l.t.Fatalf("no key %s", id)
	}
	return entries[i]
}

// root is what verifiers make of what the keyset publishes.
func (l *lab) root(ks *signing.Keyset) *verify.Root {
	l.t.Helper()
	text, err := ks.TrustedRoot()
	if err != nil {
		l.t.Fatal(err)
	}
	var keys []verify.PublicKey
	for _, k := range ks.VerifierKeys() {
		keys = append(keys, verify.PublicKey{PEM: k.PEM, PSS: k.PSS, NotBefore: k.NotBefore, NotAfter: k.NotAfter, RevokedSince: k.RevokedSince})
	}
	root, err := verify.NewRoot(text, keys...)
	if err != nil {
		l.t.Fatalf("%v\n%s", err, text)
	}
	return root
}

// kmsKey makes a key in KMS and a reference to it by ARN.
func (l *lab) kmsKey(spec awstest.KeySpec) (*awstest.KMSKey, string) {
	key := l.account.Key(region, spec)
	return key, "awskms:///" + key.ARN()
}

func verifierKey(ks *signing.Keyset, id string) signing.VerifierKey {
	for _, k := range ks.VerifierKeys() {
		if k.KeyID == id {
			return k
		}
	}
	return signing.VerifierKey{}
}

// mentions makes sure that one of the sentences has all the words.
func mentions(t testing.TB, effects []string, words ...string) {
	t.Helper()
	for _, e := range effects {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e, w) }) {
			return
		}
	}
	t.Errorf("no effect says %q:\n%s", words, strings.Join(effects, "\n"))
}

var (
	_ signing.MessageSigner = (*mldsakey.Key)(nil)
	_ signing.MessageSigner = (*awskms.MLDSAKey)(nil)
	_ signing.Signer        = (*awskms.Key)(nil)
)

func codeOf(err error) refusal.Code { return refusal.CodeOf(err) }

func fileNames(t testing.TB, dir string) string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	return strings.Join(names, " ")
}

// parsePEM reads the private key of a key file.
func parsePEM(t testing.TB, text []byte) *ecdsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PrivateKey)
}
