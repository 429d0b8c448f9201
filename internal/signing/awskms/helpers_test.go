package awskms

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"log/slog"
	"sync"
	"testing"
	"time"

	"filippo.io/mldsa"
	mldsax509 "filippo.io/mldsa/x509"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

const (
	testAccount = "111122223333"
	testRegion  = "eu-west-1"
)

// clock is an injected clock.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

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

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// env is an AWS, a role that may sign, and a Service that has its credentials.
type env struct {
	world   *awstest.World
	account *awstest.Account
	role    *awstest.Role
	clock   *clock
	log     *logBuffer
	kms     *Service
	secrets []string
}

func newEnv(tb testing.TB, options ...func(*Config)) *env {
	tb.Helper()
	return newEnvIn(tb, "aws", testRegion, options...)
}

func newEnvIn(tb testing.TB, partition, region string, options ...func(*Config)) *env {
	tb.Helper()
	w, err := awstest.New(awstest.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.Close)
	e := &env{world: w, account: w.AccountIn(partition, testAccount), clock: &clock{t: time.Unix(1_700_000_000, 0)}, log: &logBuffer{}}
	e.role = e.account.Role("assay").Allow("kms:Sign", "kms:GetPublicKey", "kms:DescribeKey")
	creds := e.role.Session("assayd")
	e.secrets = []string{creds.SecretAccessKey, creds.SessionToken}
	cfg := Config{AWS: w.AWSConfig(creds, region), Now: e.clock.Now, Logger: slog.New(slog.NewTextHandler(e.log, nil)), Timeout: patience}
	for _, o := range options {
		o(&cfg)
	}
	if e.kms, err = New(cfg); err != nil {
		tb.Fatal(err)
	}
	e.kms.pause = time.Millisecond
	return e
}

const (
	// patience is what an answer may take on the busiest machine.
	patience = 30 * time.Second
	// haste is for those who wait in vain.
	haste = 400 * time.Millisecond
)

func hasty(c *Config) { c.Timeout = haste }

// heal makes AWS well, and gives it time.
func (e *env) heal() {
	e.world.Heal()
	e.kms.timeout, e.kms.http.Attempt = patience, patience/2
}

// key makes a key and opens it.
func (e *env) key(tb testing.TB, spec awstest.KeySpec, options ...awstest.KeyOption) (*awstest.KMSKey, *Key) {
	tb.Helper()
	at := e.account.Key(testRegion, spec, options...)
	k, err := e.kms.Open(at.ARN(), at.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return at, k
}

func digest(tb testing.TB, pub crypto.PublicKey) []byte {
	tb.Helper()
	message := make([]byte, 64)
	rand.Read(message)
	d, err := attest.SignatureDigest(pub, message)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// sign signs something with k and holds the signature to its public key.
func sign(tb testing.TB, k *Key) error {
	tb.Helper()
	d := digest(tb, k.Public())
	sig, err := k.Sign(tb.Context(), d)
	if (err == nil) != attest.VerifySignature(k.Public(), d, sig) || err != nil && sig != nil {
		tb.Errorf("a signature that is none, or none with %v", err)
	}
	return err
}

func signMessage(tb testing.TB, k *MLDSAKey, message []byte) error {
	tb.Helper()
	sig, err := k.SignMessage(tb.Context(), message)
	if (err == nil) != (mldsa.Verify(k.PublicKey(), message, sig, nil) == nil) || err != nil && sig != nil {
		tb.Errorf("a signature that is none, or none with %v", err)
	}
	return err
}

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func spkiOf(tb testing.TB, pub crypto.PublicKey) []byte {
	tb.Helper()
	der, err := mldsax509.MarshalPKIXPublicKey(pub)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}
