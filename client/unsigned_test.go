package client

import (
	"context"
	"testing"
	"time"

	"github.com/assay-build/assay/client/clienttest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// TestVerifyUnsigned: a permission without a summary counts only where what signs it is
// away, and for a few minutes.
func TestVerifyUnsigned(t *testing.T) {
	t.Parallel()
	const good = 30 * time.Second
	for _, tt := range []struct {
		name    string
		missing string
		good    time.Duration
		edit    func(*assayv1.Decision)
		text    string // "" where it is taken
	}{
		{"KMS", "KMS_UNAVAILABLE", good, nil, ""},
		{"timestamp authority", "TSA_TIME_INVALID", good, nil, ""},
		{"timestamp", "TIMESTAMP_UNTRUSTED", good, nil, ""},
		{"misdated", "SIGNATURE_MISDATED", good, nil, ""},
		{"no intermediate", "CA_NO_INTERMEDIATE", good, nil, ""},
		{"no authority", "CA_MISSING", good, nil, ""},
		{"slow", "DEADLINE_EXCEEDED", good, nil, ""},
		{"key reference", "KEY_REF_INVALID", good, nil, ""},
		{"longest", "KMS_UNAVAILABLE", 5 * time.Minute, nil, ""},
		{"too long", "KMS_UNAVAILABLE", 5*time.Minute + 1, nil, "the limit is"},
		{"for years", "KMS_UNAVAILABLE", 100 * 365 * 24 * time.Hour, nil, "the limit is"},
		{"for no time", "KMS_UNAVAILABLE", 0, nil, "the limit is"},
		{"over before it began", "KMS_UNAVAILABLE", -good, nil, "the limit is"},
		{"no end", "KMS_UNAVAILABLE", good, func(d *assayv1.Decision) { d.ExpireTime = nil }, "for how long"},
		{"no beginning", "KMS_UNAVAILABLE", good, func(d *assayv1.Decision) { d.DecideTime = nil }, "for how long"},
		{"no times", "KMS_UNAVAILABLE", good, func(d *assayv1.Decision) { d.DecideTime, d.ExpireTime = nil, nil }, "for how long"},
		{"no reason", "", good, nil, "verification summary"},
		{"the log", "LOG_DISK_FULL", good, nil, "which is none"},
		{"anything", "BECAUSE", good, nil, "which is none"},
		{"a prefix alone", "KMS_", good, nil, "which is none"},
		{"in small letters", "kms_unavailable", good, nil, "which is none"},
		{"not at the beginning", "X_KMS_UNAVAILABLE", good, nil, "which is none"},
		{"more than a name", "CA_MISSING_OR_NOT", good, nil, "which is none"},
		{"a denial's reason", "KMS_UNAVAILABLE", good, func(d *assayv1.Decision) { d.Reason = "NO_ATTESTATION" }, "reason"},
		{"against a rule", "KMS_UNAVAILABLE", good, func(d *assayv1.Decision) { d.Rules[0].Error = "x" }, "against the rule"},
		{"nonsense in its place", "KMS_UNAVAILABLE", good, func(d *assayv1.Decision) { d.VerificationSummary = []byte("{}") }, "verification summary"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := clienttest.New(t)
			s.OnVerify = func(_ context.Context, req *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error) {
				resp := clienttest.Allow(req)
				d, now := resp.Decisions[0], time.Unix(1760000000, 0)
				d.VerificationSummary, d.SummaryMissing = nil, tt.missing
				d.DecideTime, d.ExpireTime = timestamppb.New(now), timestamppb.New(now.Add(tt.good))
				if tt.edit != nil {
					tt.edit(d)
				}
				return resp, nil
			}
			c, _ := dial(t, s)
			v, err := c.Verify(t.Context(), []Subject{{"a", digestOf("A")}}, "prod")
			if tt.text != "" {
				wantDishonest(t, err, tt.text)
			} else if err != nil {
				t.Fatal(err)
			}
			if v.Allowed() != (tt.text == "") {
				t.Errorf("allowed: %t", v.Allowed())
			}
			if tt.text == "" && v.Decisions()[0].GetSummaryMissing() != tt.missing {
				t.Error("what is missing is not handed on")
			}
		})
	}
}
