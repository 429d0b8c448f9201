package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/client/clienttest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// TestUnsignedDecision: a permission that nothing signed passes, and says that and why,
// in text and in JSON; one without a good excuse is no permission.
func TestUnsignedDecision(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		missing string
		good    time.Duration
		code    int
	}{
		{"KMS_UNAVAILABLE", 30 * time.Second, exitDone},
		{"TSA_TIME_INVALID", 30 * time.Second, exitDone},
		{"KMS_UNAVAILABLE", time.Hour, exitUndecided},
		{"LOG_DISK_FULL", 30 * time.Second, exitUndecided},
	} {
		s := clienttest.New(t)
		s.OnVerify = func(_ context.Context, req *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error) {
			resp := clienttest.Allow(req)
			d, now := resp.GetDecisions()[0], time.Unix(1760000000, 0)
			d.VerificationSummary, d.SummaryMissing = nil, tt.missing
			d.DecideTime, d.ExpireTime = timestamppb.New(now), timestamppb.New(now.Add(tt.good))
			return resp, nil
		}
		for _, format := range []string{"text", "json"} {
			r := runWith(t, s, nil, "verify", "sha256:"+digestOf("x"), "--env", "dev", "--format", format)
			if r.code != tt.code {
				t.Errorf("%s for %s, %s: exit %d\n%s%s", tt.missing, tt.good, format, r.code, r.stdout, r.stderr)
			}
			want := map[string]string{"text": "no signed summary: " + tt.missing, "json": `"summary_missing": "` + tt.missing + `"`}[format]
			if strings.Contains(r.stdout, want) != (tt.code == exitDone) || tt.code != exitDone && strings.Contains(r.stdout, "ALLOW") {
				t.Errorf("%s for %s, %s prints\n%s", tt.missing, tt.good, format, r.stdout)
			}
		}
	}
}
