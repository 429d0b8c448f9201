package server_test

import (
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/verify"
)

// TestReasons: what each reason of a revocation leaves standing of an attestation key.
func TestReasons(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		reason        signing.Reason
		before, after refusal.Code
	}{
		{signing.ReasonKeyCompromise, "", verify.CodeKeyRevoked},
		{signing.ReasonSuperseded, "", verify.CodeKeyOutsideValidity},
		{signing.ReasonCessationOfOperation, "", verify.CodeKeyOutsideValidity},
		{signing.ReasonUnspecified, verify.CodeKeyRevoked, verify.CodeKeyRevoked},
	} {
		t.Run(string(tt.reason), func(t *testing.T) {
			t.Parallel()
			h, since := twoHours(t)
			key := h.active(t, signing.RoleAttestation, "")
			// The key is in use: it goes, and another comes, in one change. The session of
			// the step before goes on, and the very next call has seen it.
			h.change(t, signing.RevokeKey{KeyID: key.KeyID, Since: since, Reason: tt.reason, Rotate: true})
			h.divided(t, tt.before, tt.after)
			now := h.life.snapshot(t, "revoked")
			for n, want := range []refusal.Code{tt.before, tt.after} {
				if got := now.judged(t, h.made[n]); got != want {
					t.Errorf("%s: %q, want %q", h.made[n].subject.GetName(), got, want)
				}
			}
			h.step(t, "the successor", func() {})
		})
	}
}

// twoHours is a history of two attestations, and a moment between them. Both may be
// deployed, and have been.
func twoHours(t *testing.T) (h *history, since time.Time) {
	t.Helper()
	k := newKeyed(t)
	h = &history{keyed: k, life: k.begin(t)}
	h.step(t, "before", func() {})
	h.step(t, "after", func() {})
	for _, i := range h.made {
		h.life.decide(t, "dev", i.subject, "ALLOWED")
	}
	return h, h.made[0].at.Add(time.Hour)
}

// divided asks the service about both, and verifies the summaries of its answers as
// strangers do, with the keys of now.
func (h *history) divided(t *testing.T, codes ...refusal.Code) {
	t.Helper()
	now := h.life.snapshot(t, "divided")
	for n, code := range codes {
		d := h.life.decide(t, "dev", h.made[n].subject, answerTo(code))
		_, err := now.verifier.VerifyOwn(d.GetVerificationSummary())
		if code == "" && err != nil || code != "" && refusal.CodeOf(err) != verify.CodeLogEntryMissing {
			t.Errorf("%s: the summary of the answer, with the keys of now: %v", h.made[n].subject.GetName(), err)
		}
	}
	d := h.life.decide(t, "dev", subject("nobody", "nobody"), "NO_ATTESTATION")
	if _, err := now.verifier.VerifyOwn(d.GetVerificationSummary()); refusal.CodeOf(err) != verify.CodeLogEntryMissing {
		t.Errorf("the summary of a denial, with the keys of now: %v", err)
	}
}

// TestTimestampKeyRevoked: a thief of the key that tells the time tells any, so nothing
// that it vouched for stands. Where it was only replaced, the past does.
func TestTimestampKeyRevoked(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		reason        signing.Reason
		before, after refusal.Code
	}{
		{signing.ReasonKeyCompromise, verify.CodeTimestampUntrusted, verify.CodeTimestampUntrusted},
		{signing.ReasonSuperseded, "", verify.CodeTimestampOutsideAuthority},
	} {
		t.Run(string(tt.reason), func(t *testing.T) {
			t.Parallel()
			h, since := twoHours(t)
			h.life.decide(t, "dev", subject("nobody", "nobody"), "NO_ATTESTATION")
			key := h.active(t, signing.RoleTimestamp, "")
			h.change(t, signing.RevokeKey{KeyID: key.KeyID, Since: since, Reason: tt.reason, Rotate: true})
			h.divided(t, tt.before, tt.after)
			h.revoked(t, tt.before, tt.after)
		})
	}
}

// revoked has everybody judge both, and sees that service goes on.
func (h *history) revoked(t *testing.T, codes ...refusal.Code) {
	t.Helper()
	now := h.life.snapshot(t, "revoked")
	for n, want := range codes {
		now.agreed(t, h.made[n], want)
	}
	// Who has not heard of it believes what he believed.
	for n := range codes {
		h.known[1].agreed(t, h.made[n], "")
	}
	next := h.life.attested(t, "the successor")
	now.agreed(t, next, "")
	h.life.decide(t, "dev", next.subject, "ALLOWED")
}

// TestLogKeyRevoked: the same for the key of the log, while the service stands still.
func TestLogKeyRevoked(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		reason        signing.Reason
		before, after refusal.Code
	}{
		{signing.ReasonKeyCompromise, verify.CodeLogUnknown, verify.CodeLogUnknown},
		{signing.ReasonSuperseded, "", verify.CodeLogKeyOutsideValidity},
	} {
		t.Run(string(tt.reason), func(t *testing.T) {
			t.Parallel()
			h, since := twoHours(t)
			key := h.active(t, signing.RoleLog, "")
			h.life.stop()
			h.change(t, signing.RevokeKey{KeyID: key.KeyID, Since: since, Reason: tt.reason, Rotate: true})
			h.life = h.begin(t)
			h.divided(t, tt.before, tt.after)
			h.revoked(t, tt.before, tt.after)
		})
	}
}
