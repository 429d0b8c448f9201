package server_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/verify"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
)

// history is what was attested and what verifiers were told, in the order of time.
type history struct {
	*keyed
	life  *life
	made  []issued
	known []*snapshot
}

// step lets hours pass, makes a change, attests, and has everything judged by everybody:
// by the service, and with what the keys were at each moment.
func (h *history) step(t *testing.T, name string, change func()) {
	t.Helper()
	h.advance(3 * time.Hour)
	change()
	h.life.login(t)
	h.made = append(h.made, h.life.attested(t, name))
	h.judge(t, name)
}

func (h *history) judge(t *testing.T, name string) {
	t.Helper()
	now := h.life.snapshot(t, name)
	h.known = append(h.known, now)
	for _, i := range h.made {
		for _, s := range h.known[:len(h.known)-1] {
			s.judged(t, i)
		}
		h.life.decide(t, "dev", i.subject, answerTo(now.judged(t, i)))
	}
}

// verdicts counts what everybody says of everything.
func (h *history) verdicts(t *testing.T) map[refusal.Code]int {
	t.Helper()
	out := make(map[refusal.Code]int)
	for _, s := range h.known {
		for _, i := range h.made {
			out[s.judged(t, i)]++
		}
	}
	return out
}

// TestRotationThroughTime: the attestation key goes through every kind of key, hours
// apart. Whoever has the keys of now verifies everything; whoever has those of then
// verifies what they cover and refuses the rest by its code; and a revocation divides what
// its key signed at the moment that it names.
func TestRotationThroughTime(t *testing.T) {
	t.Parallel()
	for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			if testing.Short() && format == tlog.RekorV2 {
				t.Skip("the same again; runs without -short")
			}
			throughTime(t, format)
		})
	}
}

func throughTime(t *testing.T, format tlog.EntryFormat) {
	t.Helper()
	k := newKeyed(t, func(c *server.Config) { c.Log.EntryFormat = string(format) })
	h := &history{keyed: k, life: k.begin(t)}
	service := k.cloud.World.Account(testenv.ServiceAccount)
	var stolen signing.KeyEntry
	h.step(t, "file", func() {})
	h.step(t, "file to file", func() { k.rotate(t, signing.RoleAttestation, "file") })
	h.step(t, "file to KMS", func() {
		service.Alias(testenv.AWSRegion, "alias/assay", k.kms(p256))
		stolen = k.rotate(t, signing.RoleAttestation, "awskms:///arn:aws:kms:"+testenv.AWSRegion+":"+testenv.ServiceAccount+":alias/assay")
	})
	h.step(t, "the same key later", func() {})
	h.step(t, "alias moved", func() {
		service.UpdateAlias(testenv.AWSRegion, "alias/assay", k.kms(p256))
		k.rotate(t, signing.RoleAttestation, "")
	})
	h.step(t, "P-384 published", func() {
		k.change(t, signing.AddKey{Role: signing.RoleAttestation, Ref: refOf(k.kms(p384)), Next: true})
	})
	h.step(t, "P-384 signs", func() { k.rotate(t, signing.RoleAttestation, "") })
	if format == tlog.RekorV1 {
		h.step(t, "RSA", func() { k.rotate(t, signing.RoleAttestation, refOf(k.kms(rsa2048))) })
	} else {
		h.refusesRSA(t)
	}
	if n := h.verdicts(t)[verify.CodeKeyUnknown]; n < 10 {
		t.Errorf("%d judgements of a verifier that does not know the key: the test tests nothing", n)
	}

	// One of the two that the key made first and last goes.
	since := h.made[3].at
	h.step(t, "stolen", func() {
		k.change(t, signing.RevokeKey{KeyID: stolen.KeyID, Since: since, Reason: signing.ReasonKeyCompromise})
	})
	now := h.known[len(h.known)-1]
	for i, want := range map[int]refusal.Code{2: "", 3: verify.CodeKeyRevoked, 4: "", 6: ""} {
		if got := now.judged(t, h.made[i]); got != want {
			t.Errorf("%s, after the revocation: %q, want %q", h.made[i].subject.GetName(), got, want)
		}
	}
	// A restart changes nothing.
	h.life.stop()
	h.life = k.begin(t)
	h.judge(t, "restarted")
	if n := len(now.keys); n != len(h.known[len(h.known)-1].keys) {
		t.Errorf("%d keys before the restart", n)
	}
}

// refusesRSA: entries of Rekor 2 have no name for RSASSA-PSS, so such a key signs nothing.
func (h *history) refusesRSA(t *testing.T) {
	t.Helper()
	h.rotate(t, signing.RoleAttestation, refOf(h.kms(rsa2048)))
	_, err := assayv1.NewAttestationServiceClient(h.life.conn).AttestDigests(h.life.ctx, &assayv1.AttestDigestsRequest{Subjects: []*assayv1.Subject{subject("rsa", "rsa")}})
	wantReason(t, err, codes.Internal, "ENTRY_KEY_UNSUPPORTED")
	if n := h.life.count(t, "pending"); n != 0 {
		t.Errorf("%d pending attestations that can never be finished", n)
	}
	h.rotate(t, signing.RoleAttestation, "file")
}

// TestAuthorityThroughTime is the same for the key of the certificate authority.
func TestAuthorityThroughTime(t *testing.T) {
	t.Parallel()
	k := newKeyed(t, inCertificateMode)
	h := &history{keyed: k, life: k.begin(t)}
	h.step(t, "file", func() {})
	var stolen signing.KeyEntry
	h.step(t, "KMS", func() { stolen = k.rotate(t, signing.RoleCA, refOf(k.kms(p256))) })
	h.step(t, "the same key later", func() {})
	h.step(t, "P-384", func() { k.rotate(t, signing.RoleCA, refOf(k.kms(p384))) })
	h.step(t, "RSA", func() { k.rotate(t, signing.RoleCA, refOf(k.kms(rsa2048))) })
	h.step(t, "stolen", func() {
		k.change(t, signing.RevokeKey{KeyID: stolen.KeyID, Since: h.made[2].at, Reason: signing.ReasonKeyCompromise})
	})
	now := h.known[len(h.known)-1]
	for i := range h.made {
		if got := now.judged(t, h.made[i]); (got == "") != (i != 2) {
			t.Errorf("%s, after the revocation: %q", h.made[i].subject.GetName(), got)
		}
	}
	if n := h.verdicts(t)[verify.CodeCertificateUntrusted]; n < 10 {
		t.Errorf("%d judgements of a verifier that does not know the intermediate: the test tests nothing", n)
	}
	h.life.stop()
	h.life = k.begin(t)
	h.judge(t, "restarted")
}
