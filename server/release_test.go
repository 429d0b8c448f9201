package server_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/verify"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/aws/aws-sdk-go-v2/aws"
)

// turnstile holds a service's requests to AWS back, one by one, while it is closed.
type turnstile struct {
	closed        atomic.Bool
	arrived, open chan struct{}
}

func newTurnstile() *turnstile {
	return &turnstile{arrived: make(chan struct{}), open: make(chan struct{})}
}

// before has a service pass the turnstile for the credentials of each request.
func (s *turnstile) before(cloud *testenv.AWS) func(*server.Config) {
	return func(c *server.Config) {
		withKMS(cloud)(c)
		c.Keys.KMSTimeout = 2500 * time.Millisecond // less than a decision waits for its summary
		c.AWSClients.Credentials = aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
			if s.closed.Load() {
				select {
				case s.arrived <- struct{}{}:
				case <-ctx.Done():
				}
				select {
				case <-s.open:
				case <-ctx.Done():
				}
			}
			return cloud.Service.Session("assayd"), nil
		})
	}
}

// nth lets n-1 requests pass and returns with the next one held.
func (s *turnstile) nth(t *testing.T, n int) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for i := range n {
		select {
		case <-s.arrived:
		case <-limit:
			t.Fatalf("AWS was asked %d times, want %d", i, n)
		}
		if i < n-1 {
			s.open <- struct{}{}
		}
	}
}

// release lets the one that is held pass, and all others.
func (s *turnstile) release() {
	s.closed.Store(false)
	s.open <- struct{}{}
}

// TestReleasedUnderKeysOfNow: nothing is released as allowed after a revocation was
// acknowledged, however long ago it was judged: while its own summary was being signed,
// or those of its neighbours in one call.
func TestReleasedUnderKeysOfNow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		role         signing.Role
		subjects, at int // the revocation comes while this request to KMS is on its way
	}{
		{signing.RoleAttestation, 1, 1},
		{signing.RoleAttestation, 12, 1}, {signing.RoleAttestation, 12, 7}, {signing.RoleAttestation, 12, 12},
		{signing.RoleCA, 1, 1}, {signing.RoleCA, 12, 1},
	} {
		t.Run(fmt.Sprintf("%s, %d of %d", tt.role, tt.at, tt.subjects), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "https://assay.test")
			cloud, kms := newAWS(t, w), newTurnstile()
			mode := func(c *server.Config) {
				if tt.role == signing.RoleCA {
					shortCertificates(c)
				}
			}
			outside := func(c *server.Config) { withKMS(cloud)(c); mode(c) }
			l := w.start(t, kms.before(cloud), mode).login(t)
			var all []*assayv1.Subject
			for i := range tt.subjects {
				all = append(all, subject("app", fmt.Sprint("artifact ", i)))
				l.digests(t, l.ctx, all[i])
			}
			first := (&keyed{world: w}).active(t, tt.role, "")
			w.rekey(t, outside, signing.RotateKey{Role: tt.role, Ref: refOf(cloud.KMSKey(p256))})
			l.snapshot(t, "before") // the service has seen it

			kms.closed.Store(true)
			type answer struct {
				*assayv1.VerifyResponse
				error
			}
			answered := make(chan answer, 1)
			go func() {
				resp, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: "dev", Subjects: all})
				answered <- answer{resp, err}
			}()
			kms.nth(t, tt.at)
			w.rekey(t, outside, signing.RevokeKey{KeyID: first.KeyID, Reason: signing.ReasonUnspecified})
			select {
			case <-answered:
				t.Fatal("it was answered before")
			default:
			}
			kms.release()
			got := <-answered
			if got.error != nil {
				t.Fatal(got.error)
			}
			if got.GetVerificationResult() != assayv1.VerificationResult_VERIFICATION_RESULT_FAILED || len(got.GetDecisions()) != len(all) {
				t.Errorf("%s, %d decisions", got.GetVerificationResult(), len(got.GetDecisions()))
			}
			v := l.trust(t)
			for i, d := range got.GetDecisions() {
				if d.GetReason() != string(server.CodeStoredEvidenceInvalid) || d.GetSubject().GetDigest()["sha256"] != all[i].GetDigest()["sha256"] {
					t.Errorf("%d: %s", i, d.GetReason())
				}
				if _, err := v.VerifyOwn(d.GetVerificationSummary()); refusal.CodeOf(err) != verify.CodeLogEntryMissing {
					t.Errorf("%d: the summary of the denial: %v", i, err)
				}
			}
			// What the keys of now vouch for is allowed again.
			again := subject("app", "again")
			l.digests(t, l.ctx, again)
			l.decide(t, "dev", again, "ALLOWED")
		})
	}
}

// TestSummaryAfterAuthorityRevoked: a summary that is asked for after the ca key was
// revoked is under a certificate of the next one, whatever was made under the old one
// before, and whatever is being made under it at the time.
func TestSummaryAfterAuthorityRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud, kms := newAWS(t, w), newTurnstile()
	outside := func(c *server.Config) { withKMS(cloud)(c); shortCertificates(c) }
	l := w.start(t, kms.before(cloud), shortCertificates).login(t)
	active := func() string { return (&keyed{world: w}).active(t, signing.RoleCA, "").KeyID }
	stands := func(content string) {
		t.Helper()
		good := subject("good", content)
		l.digests(t, l.ctx, good)
		raw := l.decide(t, "dev", good, "ALLOWED").GetVerificationSummary()
		l.named(t, raw, w.instance+"/verifier", w.instance)
	}
	stands("first")
	w.rekey(t, outside, signing.RevokeKey{KeyID: active(), Reason: signing.ReasonKeyCompromise, Rotate: true})
	stands("after one that was kept")

	w.rekey(t, outside, signing.RotateKey{Role: signing.RoleCA, Ref: refOf(cloud.KMSKey(p256))})
	stands("in KMS")
	w.rekey(t, outside, signing.AddKey{Role: signing.RoleCA, Next: true})
	w.advance(30 * time.Minute) // the intermediate and the verifier's certificate are over
	l.login(t)
	kms.closed.Store(true)
	done := make(chan error, 1)
	go func() {
		_, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: "dev", Subjects: []*assayv1.Subject{subject("", "nobody")}})
		done <- err
	}()
	kms.nth(t, 1)
	w.rekey(t, outside, signing.RevokeKey{KeyID: active(), Reason: signing.ReasonUnspecified})
	stands("while one is being made")
	kms.release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	stands("after that one")
}
