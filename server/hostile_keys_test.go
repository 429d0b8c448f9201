package server_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/internal/verify"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/aws/aws-sdk-go-v2/aws"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// kmsPatience is what these tests let KMS take: short, because they make it hang.
const kmsPatience = 400 * time.Millisecond

// withKMS has the service reach the stand-in's KMS as its own role.
func withKMS(cloud *testenv.AWS) func(*server.Config) {
	return func(c *server.Config) {
		cloud.Configure(c)
		c.Keys.KMSTimeout = kmsPatience
		// By the world's clock: a cache would go by the real one.
		c.AWSClients.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return cloud.Service.Session("assayd"), nil
		})
	}
}

// trust believes all that this service publishes of its keys.
func (l *life) trust(t testing.TB) *verify.Verifier {
	t.Helper()
	resp, err := assayv1.NewAuditServiceClient(l.conn).GetTrustedRoot(t.Context(), &assayv1.GetTrustedRootRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var keys []verify.PublicKey
	for block, rest := pem.Decode([]byte(resp.GetAttestationKeysPem())); block != nil; block, rest = pem.Decode(rest) {
		keys = append(keys, verify.PublicKey{PEM: pem.EncodeToMemory(block)})
	}
	root, err := verify.NewRoot(resp.GetTrustedRoot(), keys...)
	if err != nil {
		t.Fatal(err)
	}
	return verify.New(root)
}

// shortCertificates is certificate mode with intermediates that issue for five minutes.
func shortCertificates(c *server.Config) {
	c.Keys.Mode, c.Keys.IntermediateLifetime = server.KeysModeCertificate, 5*time.Minute
}

// rekey changes the keyset as `assayd keys` would, whether or not a service runs on it.
func (w *world) rekey(t testing.TB, edit func(*server.Config), changes ...signing.Change) {
	t.Helper()
	cfg, _ := w.config(t, edit)
	if err := cfg.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	as := signing.Config{Now: w.now, Openers: server.KeyOpeners(&cfg)}
	if cfg.Keys.Mode == server.KeysModeCertificate {
		as.CA.Organization = "Assay"
	}
	for _, change := range changes {
		plan, err := signing.Plan(t.Context(), filepath.Join(w.data, "keys"), as, change)
		if err != nil {
			t.Fatal(err)
		}
		if err := plan.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// tryDigests attests one artifact by its digest, and wants nothing of the outcome.
func (l *life) tryDigests(s *assayv1.Subject) (*assayv1.AttestResult, error) {
	resp, err := assayv1.NewAttestationServiceClient(l.conn).AttestDigests(l.ctx, &assayv1.AttestDigestsRequest{Subjects: []*assayv1.Subject{s}})
	return resp.GetResult(), err
}

// wantOutage wants an error that says: later, and nothing of whose fault it is or of how
// the service is set up.
func wantOutage(t testing.TB, err error, reason string) {
	t.Helper()
	wantReason(t, err, codes.Unavailable, reason)
	var retry time.Duration
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.RetryInfo:
			retry = d.GetRetryDelay().AsDuration()
		case *errdetails.ErrorInfo, *errdetails.BadRequest:
		default:
			t.Errorf("a %T", d)
		}
	}
	if retry <= 0 || retry > time.Minute {
		t.Errorf("retry after %s", retry)
	}
	said := fmt.Sprint(status.Convert(err).Proto())
	for _, inside := range []string{"arn:", "amazonaws", "127.0.0.1", "http:", "https:", "999988887777", "111122223333", "/tmp", ".pem", "assayd", "AKIA", "ASIA"} {
		if strings.Contains(said, inside) {
			t.Errorf("the error names %q: %s", inside, said)
		}
	}
}

// settle gives the stand-in time to notice that who hung on it went away: it counts a
// request when it ends.
func settle(f awstest.Fault) {
	if f.Delay > 0 {
		<-time.After(50 * time.Millisecond)
	}
}

// goesOn wants that what was decided is answered, and everything that is read, without
// the services named being asked and without waiting for them.
func (l *life) goesOn(t testing.TB, cloud *testenv.AWS, known *assayv1.Subject) {
	t.Helper()
	before, began := cloud.World.Count("", ""), time.Now()
	l.decide(t, "dev", known, "ALLOWED")
	audit := assayv1.NewAuditServiceClient(l.conn)
	list, err := audit.ListAttestations(l.ctx, &assayv1.ListAttestationsRequest{IncludeBundles: true})
	if err != nil || len(list.GetAttestations()) == 0 {
		t.Errorf("list: %d attestations, %v", len(list.GetAttestations()), err)
	}
	if _, err := audit.GetTrustedRoot(t.Context(), &assayv1.GetTrustedRootRequest{}); err != nil {
		t.Errorf("trusted root: %v", err)
	}
	if code, body := httpGet(t, l.Server+"/readyz"); code != http.StatusOK {
		t.Errorf("readyz: %d %s", code, body)
	}
	if n := cloud.World.Count("", "") - before; n != 0 {
		t.Errorf("AWS was asked %d times to answer what is known", n)
	}
	if took := time.Since(began); took > kmsPatience*5 {
		t.Errorf("it took %s", took)
	}
}

// unsigned wants a decision whose summary could not be signed: it says why, is good for
// less than a minute, and is not made up.
func (l *life) unsigned(t testing.TB, environment string, s *assayv1.Subject, reason, missing string) {
	t.Helper()
	d := l.decide(t, environment, s, reason)
	if len(d.GetVerificationSummary()) != 0 || d.GetSummaryMissing() != missing {
		t.Errorf("a summary of %d bytes, missing for %q; want none, for %s", len(d.GetVerificationSummary()), d.GetSummaryMissing(), missing)
	}
	if ttl := d.GetExpireTime().AsTime().Sub(d.GetDecideTime().AsTime()); ttl <= 0 || ttl > 30*time.Second {
		t.Errorf("it is good for %s", ttl)
	}
}

// kmsFaults are the ways in which KMS fails to sign, by what callers are told.
func kmsFaults(other *awstest.KMSKey) map[string]struct {
	reason string
	world  awstest.Fault
	key    awstest.KMSFault
	state  string
} {
	type fault = struct {
		reason string
		world  awstest.Fault
		key    awstest.KMSFault
		state  string
	}
	api := func(status int, code string) awstest.Fault {
		return awstest.Fault{Status: status, Code: code, Message: "arn:aws:kms:x"}
	}
	return map[string]fault{
		"throttled":           {reason: "KMS_THROTTLED", world: api(400, "ThrottlingException")},
		"bare 429":            {reason: "KMS_THROTTLED", world: awstest.Fault{Status: 429, Body: []byte("slow down")}},
		"internal error":      {reason: "KMS_UNAVAILABLE", world: api(500, "KMSInternalException")},
		"bare 503":            {reason: "KMS_UNAVAILABLE", world: awstest.Fault{Status: 503, Body: []byte("<html>")}},
		"hangs":               {reason: "KMS_UNAVAILABLE", world: awstest.Fault{Delay: time.Minute}},
		"connection broken":   {reason: "KMS_UNAVAILABLE", world: awstest.Fault{CloseConnection: true}},
		"broken off":          {reason: "KMS_UNAVAILABLE", world: awstest.Fault{Truncate: true}},
		"garbage":             {reason: "KMS_ANSWER_INVALID", world: awstest.Fault{Body: []byte("<html>"), Header: http.Header{"Content-Type": {"text/html"}}}},
		"empty answer":        {reason: "KMS_ANSWER_INVALID", world: awstest.Fault{Body: []byte("{}")}},
		"huge answer":         {reason: "KMS_ANSWER_INVALID", world: awstest.Fault{Body: make([]byte, 1<<20)}},
		"redirect":            {reason: "KMS_ANSWER_INVALID", world: awstest.Fault{Status: 307, Redirect: "https://evil.example/"}},
		"access denied":       {reason: "KMS_ACCESS_DENIED", world: api(400, "AccessDeniedException")},
		"expired credentials": {reason: "KMS_ACCESS_DENIED", world: api(400, "ExpiredTokenException")},
		"key is gone":         {reason: "KMS_KEY_NOT_FOUND", world: api(400, "NotFoundException")},
		"refused as invalid":  {reason: "KMS_KEY_UNSUPPORTED", world: api(400, "ValidationException")},
		"unknown arn":         {reason: "KEY_REF_INVALID", world: api(400, "InvalidArnException")},
		"unknown error":       {reason: "KMS_ANSWER_INVALID", world: api(400, "SomethingNewException")},
		"disabled":            {reason: "KMS_KEY_UNUSABLE", state: "Disabled"},
		"pending deletion":    {reason: "KMS_KEY_UNUSABLE", state: "PendingDeletion"},
		"key unavailable":     {reason: "KMS_UNAVAILABLE", state: "Unavailable"},
		"says another key":    {reason: "KMS_WRONG_KEY", key: awstest.KMSFault{WrongKeyID: other.ARN()}},
		"says no key":         {reason: "KMS_WRONG_KEY", key: awstest.KMSFault{WrongKeyID: "alias/assay"}},
		"another key signed":  {reason: "KMS_SIGNATURE_INVALID", key: awstest.KMSFault{WrongKey: other}},
		"another algorithm":   {reason: "KMS_WRONG_ALGORITHM", key: awstest.KMSFault{WrongAlgorithm: "ECDSA_SHA_384"}},
		"a bit flipped":       {reason: "KMS_SIGNATURE_INVALID", key: awstest.KMSFault{FlipBit: true}},
		"BER":                 {reason: "KMS_SIGNATURE_INVALID", key: awstest.KMSFault{BER: true}},
		"cut short":           {reason: "KMS_SIGNATURE_INVALID", key: awstest.KMSFault{Truncate: true}},
	}
}

// TestKMSFaults: however KMS fails, an attest is refused for that reason, leaves nothing,
// and what is known goes on being answered; once KMS is well, so is the service.
func TestKMSFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withKMS(cloud)).login(t)
	other := cloud.KMSKey("ECC_NIST_P256")
	faults := kmsFaults(other)
	for name, tt := range faults {
		t.Run(name, func(t *testing.T) {
			// A key of its own: a circuit is of one key.
			key := cloud.KMSKey("ECC_NIST_P256")
			w.rekey(t, withKMS(cloud), signing.RotateKey{Role: signing.RoleAttestation, Ref: "awskms:///" + key.ARN()})
			good := subject("good", "good "+name)
			first := l.digests(t, l.ctx, good).GetAttestation()
			l.decide(t, "dev", good, "ALLOWED")
			before := l.kept(t)
			decisions := l.count(t, "decisions")
			switch {
			case tt.state != "":
				key.SetState(tt.state)
			case tt.key != awstest.KMSFault{}:
				key.Fault(tt.key)
			default:
				tt.world.Service, tt.world.Action = "kms", "Sign"
				cloud.World.Fail(tt.world)
			}
			began := time.Now()
			_, err := l.tryDigests(subject("refused", "refused "+name))
			took := time.Since(began)
			wantOutage(t, err, tt.reason)
			if took > 3*kmsPatience {
				t.Errorf("the refusal took %s, and KMS is given %s", took, kmsPatience)
			}
			// The summary of a new decision is signed by the same key: it goes without one.
			l.unsigned(t, "staging", good, "ALLOWED", tt.reason)
			settle(tt.world)
			l.goesOn(t, cloud, good)
			l.unchanged(t, before)
			if n := l.count(t, "decisions"); n != decisions+1 {
				t.Errorf("%d decisions were %d", n, decisions)
			}
			cloud.World.Heal()
			key.ClearFaults()
			key.SetState("Enabled")
			a := l.digests(t, l.ctx, subject("refused", "refused "+name)).GetAttestation()
			if got, want := a.GetLogIndex(), first.GetLogIndex()+2; got != want { // a summary in between
				t.Errorf("log index %d, want %d: what was refused is in the log", got, want)
			}
			if _, err := l.trust(t).VerifyOwn(a.GetBundle()); err != nil {
				t.Error(err)
			}
		})
	}
}
