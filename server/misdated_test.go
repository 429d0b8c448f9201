package server_test

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv/tsatest"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc/codes"
)

// misdating is a service whose timestamps are of somebody whose clock is off.
type misdating struct {
	*life
	certificates bool
	entries      int // that the log has to have, and no more
	acknowledged []issued
	verifiers    map[string]bool // certificates of summaries
}

// TestClockOfOthers: the authority that dates signatures is behind. Whatever is
// acknowledged verifies for everybody, at once and later; what would not is refused
// before anything is stored or logged. The keys are as young as they can be.
func TestClockOfOthers(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{server.KeysModeKey, server.KeysModeCertificate} {
		for _, behind := range []time.Duration{0, time.Second, 30 * time.Second, 2 * time.Minute} {
			t.Run(fmt.Sprintf("%s, %s behind", mode, behind), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, "https://assay.test")
				frozen := time.Now()
				w.now = func() time.Time { return frozen.Add(time.Duration(w.ahead.Load())) }
				tsa, err := tsatest.New(tsatest.Config{Now: func() time.Time { return w.now().Add(-behind) }})
				if err != nil {
					t.Fatal(err)
				}
				srv := httptest.NewServer(tsa)
				t.Cleanup(srv.Close)
				edits := []func(*server.Config){withTSA(srv.URL+"/tsa", chainFile(t, tsa.Chain()))}
				role := signing.RoleAttestation
				if mode == server.KeysModeCertificate {
					edits, role = append(edits, shortCertificates), signing.RoleCA
				}
				m := &misdating{life: w.start(t, edits...), certificates: mode == server.KeysModeCertificate, verifiers: make(map[string]bool)}
				all := func(c *server.Config) {
					for _, e := range edits {
						e(c)
					}
				}
				m.through(t, "first key", behind)
				w.rekey(t, all, signing.RotateKey{Role: role})
				m.through(t, "rotated", behind)
				w.rekey(t, all, signing.RevokeKey{KeyID: (&keyed{world: w}).active(t, role, "").KeyID, Reason: signing.ReasonSuperseded, Rotate: true})
				m.through(t, "revoked", behind)
				m.stands(t)
				if n := len(m.logEntries(t, m.entries)); n != m.entries {
					t.Errorf("%d entries, want %d: something that was refused is in the log", n, m.entries)
				}
			})
		}
	}
}

// through attests from the first moment of a key on until it is old.
func (m *misdating) through(t *testing.T, what string, behind time.Duration) {
	t.Helper()
	m.login(t)
	age := time.Duration(0)
	for _, step := range []time.Duration{0, time.Second, 28 * time.Second, 2 * time.Second, time.Minute, 10 * time.Minute} {
		m.world.advance(step)
		age += step
		// From here on the key, or the root, is older than what the clocks differ by.
		m.once(t, fmt.Sprint(what, " after ", age), behind <= time.Minute && age > behind)
	}
}

// once attests one artifact and asks about it. It has to succeed where it must.
func (m *misdating) once(t *testing.T, name string, must bool) {
	t.Helper()
	before, s := m.kept(t), subject("app", name)
	result, err := m.tryDigests(s)
	if err != nil {
		reason, _ := reasonOf(err)
		if must || !slices.Contains([]string{"SIGNATURE_MISDATED", "TSA_TIME_INVALID"}, reason) {
			t.Errorf("%s: %v", name, err)
		}
		wantReason(t, err, codes.Unavailable, reason)
		m.unchanged(t, before)
		m.unsigned(t, "dev", s, "NO_ATTESTATION", reason)
		return
	}
	m.acknowledged = append(m.acknowledged, issuedOf(t, s, result.GetAttestation().GetBundle()))
	m.entries++
	if m.certificates {
		m.entries++
	}
	m.snapshot(t, name).agreed(t, m.acknowledged[len(m.acknowledged)-1], "")
	d := m.decide(t, "dev", s, "ALLOWED")
	if d.GetSummaryMissing() != "" {
		t.Errorf("%s: attested, and no summary for %s", name, d.GetSummaryMissing())
		return
	}
	raw := d.GetVerificationSummary()
	if _, err := m.trust(t).VerifyOwn(raw); err != nil {
		t.Errorf("%s: the summary: %v", name, err)
	}
	m.entries++
	if parts, err := attest.ParseOwnBundle(raw); err != nil {
		t.Error(err)
	} else if c := string(parts.Certificate); m.certificates && !m.verifiers[c] {
		m.verifiers[c] = true
		m.entries++
	}
}

// stands has everybody verify all that was acknowledged, with the keys of now.
func (m *misdating) stands(t *testing.T) {
	t.Helper()
	now := m.snapshot(t, "now")
	for _, i := range m.acknowledged {
		now.agreed(t, i, "")
	}
}
