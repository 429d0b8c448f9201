package server_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv/awstest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
)

// minted is the credential of the world's job.
type minted struct{ world *world }

func (m minted) Credential(_ context.Context, audience string) (*assayv1.ExchangeRequest, error) {
	return &assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_OidcToken{OidcToken: m.world.issuer.Mint(audience)}}, nil
}

// asClient asks about one subject as `assay verify` does.
func (l *life) asClient(t *testing.T, environment string, s *assayv1.Subject) *client.Verdict {
	t.Helper()
	c, err := client.Dial(t.Context(), client.Config{Server: l.Server, Audience: l.world.instance, Credential: minted{l.world}, Now: l.world.now})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v, err := c.Verify(t.Context(), []client.Subject{{Name: s.GetName(), SHA256: s.GetDigest()["sha256"]}}, environment)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestUnsignedUntilSigned: while what signs is away, decisions say so, are good for half
// a minute, and are believed by a client; the first ask after that has a summary again.
func TestUnsignedUntilSigned(t *testing.T) {
	t.Parallel()
	for mode, tt := range map[string]struct {
		edit func(*server.Config)
		role signing.Role
		late time.Duration // until what signs has to be asked
	}{
		"key":         {func(*server.Config) {}, signing.RoleAttestation, 0},
		"certificate": {shortCertificates, signing.RoleCA, 30 * time.Minute},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "https://assay.test")
			frozen := time.Now()
			w.now = func() time.Time { return frozen.Add(time.Duration(w.ahead.Load())) }
			cloud := newAWS(t, w)
			all := func(c *server.Config) { withKMS(cloud)(c); tt.edit(c) }
			l := w.start(t, all).login(t)
			w.rekey(t, all, signing.RotateKey{Role: tt.role, Ref: refOf(cloud.KMSKey(p256))})
			good := subject("good", "good")
			l.digests(t, l.ctx, good)
			w.advance(tt.late)
			l.login(t)
			cloud.World.Fail(awstest.Fault{Service: "kms", Action: "Sign", Status: 500, Code: "KMSInternalException"})
			l.unsigned(t, "dev", good, "ALLOWED", "KMS_UNAVAILABLE")
			l.unsigned(t, "dev", subject("", "nobody"), "NO_ATTESTATION", "KMS_UNAVAILABLE")
			if v := l.asClient(t, "dev", good); !v.Allowed() || v.Decisions()[0].GetSummaryMissing() != "KMS_UNAVAILABLE" {
				t.Errorf("a client: %v", v.Decisions())
			}
			if l.asClient(t, "dev", subject("", "nobody")).Allowed() {
				t.Error("a client takes a denial for a permission")
			}
			entries := l.logEntries(t, 1)
			cloud.World.Heal()
			w.advance(29 * time.Second)
			l.unsigned(t, "dev", good, "ALLOWED", "KMS_UNAVAILABLE") // the same one
			w.advance(time.Second)
			for range 2 {
				d := l.decide(t, "dev", good, "ALLOWED")
				if d.GetSummaryMissing() != "" || d.GetExpireTime().AsTime().Sub(d.GetDecideTime().AsTime()) < time.Minute {
					t.Errorf("missing %q, good until %s", d.GetSummaryMissing(), d.GetExpireTime().AsTime())
				}
				if _, err := l.trust(t).VerifyOwn(d.GetVerificationSummary()); err != nil {
					t.Error(err)
				}
			}
			if v := l.asClient(t, "dev", good); !v.Allowed() || v.Decisions()[0].GetSummaryMissing() != "" {
				t.Errorf("a client: %v", v.Decisions())
			}
			// The unsigned ones left nothing in the log.
			want := len(entries) + 1
			if mode == "certificate" {
				want++
			}
			if n := len(l.logEntries(t, want)); n != want {
				t.Errorf("%d entries, want %d", n, want)
			}
		})
	}
}

// TestNoPermissionOutsideTheLog: a log that takes nothing is no reason to do without it.
// What it does not hold is not allowed, signed or unsigned, and no row says that it was.
func TestNoPermissionOutsideTheLog(t *testing.T) {
	t.Parallel()
	for mode, edit := range map[string]func(*server.Config){"key": func(*server.Config) {}, "certificate": shortCertificates} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "https://assay.test")
			l := w.start(t, edit).login(t)
			good := subject("good", "good")
			l.digests(t, l.ctx, good)
			// The summaries' certificate is made anew below: its entry is refused as well.
			w.advance(6 * time.Minute)
			entries := filepath.Join(w.data, "log", "tile", "entries")
			if err := errors.Join(os.Rename(entries, entries+".away"), os.WriteFile(entries, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
			for _, environment := range []string{"dev", "dev", "staging"} {
				resp, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: environment, Subjects: []*assayv1.Subject{good}})
				if reason, _ := reasonOf(err); err == nil || !strings.HasPrefix(reason, "LOG_") {
					t.Errorf("%s: %v, %v", environment, resp, err)
				}
			}
			if n := l.count(t, "decisions"); n != 0 {
				t.Errorf("%d decisions are kept", n)
			}
			l.stop()
			if err := errors.Join(os.Remove(entries), os.Rename(entries+".away", entries)); err != nil {
				t.Fatal(err)
			}
			l = w.start(t, edit).login(t)
			d := l.decide(t, "dev", good, "ALLOWED")
			if _, err := l.trust(t).VerifyOwn(d.GetVerificationSummary()); err != nil {
				t.Error(err)
			}
		})
	}
}
