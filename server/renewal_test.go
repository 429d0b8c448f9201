package server_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc/codes"
)

// asCaller has a row say that another workflow attested it.
func asCaller(t *testing.T, edit func(*identity.Caller)) func(*store.Pending) {
	return func(p *store.Pending) {
		c, err := identity.UnmarshalCaller(p.Record.Caller)
		if err != nil {
			t.Fatal(err)
		}
		edit(c)
		if p.Record.Caller, err = c.Marshal(); err != nil {
			t.Fatal(err)
		}
	}
}

func withOrigin(o assayv1.DigestOrigin) func(*store.Pending) {
	return func(p *store.Pending) {
		for i := range p.Record.Subjects {
			p.Record.Subjects[i].Origin = int(o)
		}
	}
}

// othersName is what the certificates of another job of octo-app say.
const othersName = "https://github.com/octo-org/octo-app/.github/workflows/other.yml@refs/heads/main"

// tampering is what a row is made to say.
type tampering struct {
	name string
	late time.Duration // more than ten minutes: it would have to be signed again
	edit func(*testing.T) func(*store.Pending)
	done bool // it is completed, as what it is
}

// tamperings are with parts of another attestation, of another job.
func tamperings(another *attest.BundleParts) []tampering {
	otherJob := func(c *identity.Caller) {
		c.GitHub.JobWorkflowRef = strings.TrimPrefix(othersName, "https://github.com/")
	}
	return []tampering{
		{"untouched", 0, nil, true},
		{"untouched, late", time.Hour, nil, true},
		{"another workflow", 0, func(t *testing.T) func(*store.Pending) { return asCaller(t, otherJob) }, true}, // its certificate still says whose it is
		{"another workflow, late", time.Hour, func(t *testing.T) func(*store.Pending) { return asCaller(t, otherJob) }, false},
		{"another run, late", time.Hour, func(t *testing.T) func(*store.Pending) {
			return asCaller(t, func(c *identity.Caller) { c.GitHub.RunID = 1 })
		}, false},
		{"another provider, late", time.Hour, func(t *testing.T) func(*store.Pending) {
			return asCaller(t, func(c *identity.Caller) { c.Issuer = "https://token.actions.githubusercontent.com" })
		}, false},
		{"a person, late", time.Hour, func(t *testing.T) func(*store.Pending) {
			return asCaller(t, func(c *identity.Caller) {
				*c = identity.Caller{Kind: identity.KindHuman, Issuer: c.Issuer, DisplayName: "root", Human: &identity.Human{Subject: "root", Email: "root@example.com"}}
			})
		}, false},
		{"nobody, late", time.Hour, func(*testing.T) func(*store.Pending) { return func(p *store.Pending) { p.Record.Caller = nil } }, false},
		{"a better tier", 0, func(*testing.T) func(*store.Pending) {
			return withOrigin(assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED)
		}, true},
		{"a better tier, late", time.Hour, func(*testing.T) func(*store.Pending) {
			return withOrigin(assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED)
		}, false},
		{"no subjects, late", time.Hour, func(*testing.T) func(*store.Pending) {
			return func(p *store.Pending) { p.Record.Subjects = nil }
		}, false},
		{"another's certificate", 0, func(*testing.T) func(*store.Pending) {
			return func(p *store.Pending) { p.Certificate = another.Certificate }
		}, false},
		{"another's certificate, late", time.Hour, func(t *testing.T) func(*store.Pending) {
			return func(p *store.Pending) { p.Certificate = another.Certificate; asCaller(t, otherJob)(p) }
		}, false},
		{"no certificate, late", time.Hour, func(*testing.T) func(*store.Pending) { return func(p *store.Pending) { p.Certificate = nil } }, false},
		{"another's envelope", 0, func(*testing.T) func(*store.Pending) {
			return func(p *store.Pending) { p.Envelope = another.Envelope.Marshal() }
		}, false},
		{"another's row, late", time.Hour, func(*testing.T) func(*store.Pending) {
			return func(p *store.Pending) {
				p.Envelope, p.Certificate, p.Timestamp = another.Envelope.Marshal(), another.Certificate, another.Timestamps[0]
			}
		}, false},
		{"another's timestamp", 0, func(*testing.T) func(*store.Pending) {
			return func(p *store.Pending) { p.Timestamp = another.Timestamps[0] }
		}, false},
		// It is signed again, because the log would be another; for the same name.
		{"another log", 0, func(*testing.T) func(*store.Pending) {
			return func(p *store.Pending) { p.Log = bytes.Repeat([]byte{7}, 32) }
		}, true},
		{"another log and workflow", 0, func(t *testing.T) func(*store.Pending) {
			return func(p *store.Pending) { p.Log = bytes.Repeat([]byte{7}, 32); asCaller(t, otherJob)(p) }
		}, false},
		{"another log and a better tier", 0, func(*testing.T) func(*store.Pending) {
			return func(p *store.Pending) {
				p.Log = bytes.Repeat([]byte{7}, 32)
				withOrigin(assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED)(p)
			}
		}, false},
	}
}

// TestPendingTampered: who may write the database has nothing signed by it. Whatever a
// pending row is made to say, there is no certificate for another name than its envelope
// has one of, and no signature by a key of another tier; what does not fit stays pending,
// unseen, and is logged.
func TestPendingTampered(t *testing.T) {
	t.Parallel()
	const worlds = 4
	for part := range worlds {
		if testing.Short() && part > 0 {
			break
		}
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			another := new(attest.BundleParts)
			var some []tampering
			for i, tt := range tamperings(another) {
				if i%worlds == part {
					some = append(some, tt)
				}
			}
			tamperWith(t, another, some)
		})
	}
}

func tamperWith(t *testing.T, another *attest.BundleParts, tests []tampering) {
	t.Helper()
	w := newKeyed(t, inCertificateMode)
	w.begin(t).stop()
	for _, tier := range signing.Tiers()[1:] {
		w.change(t, signing.AddKey{Role: signing.RoleCA, Tier: tier, Ref: "file"})
	}
	claimed := w.active(t, signing.RoleCA, signing.TierClaimed)
	handed := make(map[string]bool) // what the certificates that were handed out promise
	given := func(t *testing.T, l *life, raw []byte) {
		t.Helper()
		handed[string(l.precertificate(t, raw))] = true
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := w.start(t, w.edits...).login(t, oidctest.Claims{"job_workflow_ref": strings.TrimPrefix(othersName, "https://github.com/")})
			of := l.attested(t, fmt.Sprint("another ", i))
			given(t, l, of.bundle)
			parts, err := attest.ParseOwnBundle(of.bundle)
			if err != nil {
				t.Fatal(err)
			}
			*another = *parts
			l.login(t)
			good := subject("good", fmt.Sprint("good ", i))
			old := l.digests(t, l.ctx, good).GetAttestation()
			given(t, l, old.GetBundle())
			l.stop()
			var edits []func(*store.Pending)
			if tt.edit != nil {
				edits = append(edits, tt.edit(t))
			}
			unfinished(t, l, old.GetAttestationId(), "", edits...)
			w.advance(tt.late)
			l = w.begin(t)
			defer func() {
				l.stop() // and the next one has no rows of this
				if _, err := database(t, w.data).ExecContext(t.Context(), "DELETE FROM pending"); err != nil {
					t.Fatal(err)
				}
			}()
			genuine := func(raw []byte) {
				given(t, l, raw)
				l.named(t, raw, releaseName, w.issuer.URL())
				if !w.madeBy(t, issuedOf(t, good, raw), claimed) {
					t.Error("it is signed as of another tier")
				}
			}
			k := l.kept(t)
			if tt.done {
				if k.Pending != 0 || k.Attestations != 1 {
					t.Fatalf("kept %+v:\n%s", k, l.logs)
				}
				genuine(l.attestation(t, l.ctx, old.GetAttestationId()).GetBundle())
				return
			}
			if k.Pending != 1 || k.Attestations != 0 {
				t.Errorf("kept %+v", k)
			}
			if !strings.Contains(l.logs.String(), "cannot be finished and stays pending") {
				t.Error("nothing in the log")
			}
			given(t, l, l.decide(t, "dev", good, "NO_ATTESTATION").GetVerificationSummary())
			_, err = assayv1.NewAuditServiceClient(l.conn).GetAttestation(l.ctx, &assayv1.GetAttestationRequest{AttestationId: old.GetAttestationId()})
			wantReason(t, err, codes.NotFound, "NOT_FOUND")
			// Nor is it another one for who may attest it.
			if result, err := l.tryDigests(good); err == nil {
				genuine(result.GetAttestation().GetBundle())
			}
		})
	}
	l := w.begin(t)
	last := l.attested(t, "last")
	given(t, l, last.bundle)
	l.exactly(t, int(last.entry.TreeSize), handed)
}

// exactly wants that the log has the promises of these certificates, each once, and of no
// others.
func (l *life) exactly(t *testing.T, size int, handed map[string]bool) {
	t.Helper()
	found := make(map[string]int)
	for _, entry := range l.logEntries(t, size) {
		if entry[0] != '{' {
			found[string(entry)]++
		}
	}
	for entry, n := range found {
		if n != 1 || !handed[entry] {
			t.Errorf("a certificate is in the log %d times; handed out: %t", n, handed[entry])
		}
	}
	if len(found) != len(handed) {
		t.Errorf("%d certificates are in the log, %d were handed out", len(found), len(handed))
	}
}

// TestLogRotatedWhilePending: an SCT is the promise of one log. Where that has been rotated
// since, the statement gets a certificate with the promise of the new one, which keeps it;
// whether the old one has the entry already or not.
func TestLogRotatedWhilePending(t *testing.T) {
	t.Parallel()
	for name, logged := range map[string]bool{"before [2]": false, "after [2]": true} {
		for _, late := range []time.Duration{0, time.Hour} {
			t.Run(fmt.Sprint(name, ", ", late, " late"), func(t *testing.T) {
				t.Parallel()
				k := newKeyed(t, inCertificateMode)
				k.begin(t).stop()
				before := ""
				if !logged {
					before = filepath.Join(t.TempDir(), "log")
					copyLog(t, filepath.Join(k.data, "log"), before)
				}
				l := k.begin(t)
				good := subject("good", "good")
				was := l.digests(t, l.ctx, good).GetAttestation()
				l.stop()
				unfinished(t, l, was.GetAttestationId(), before)
				k.advance(late)
				old, next := k.rotateLog(t)

				l = k.begin(t)
				if kept := l.kept(t); kept.Pending != 0 || kept.Attestations != 1 {
					t.Fatalf("kept %+v:\n%s", kept, l.logs)
				}
				done := issuedOf(t, good, l.attestation(t, l.ctx, was.GetAttestationId()).GetBundle())
				if id := hex.EncodeToString(done.entry.LogID); id != next.KeyID {
					t.Errorf("it is in log %s", id)
				}
				for id, want := range map[string]bool{old.KeyID: false, next.KeyID: true} {
					raw, err := hex.DecodeString(id)
					if err != nil {
						t.Fatal(err)
					}
					if bytes.Contains(done.leaf.Raw, raw) != want {
						t.Errorf("the SCT of log %s is in the certificate: %t", id, !want)
					}
				}
				l.named(t, done.bundle, releaseName, k.issuer.URL())
				l.snapshot(t, "now").agreed(t, done, "")
				l.exactly(t, 2, map[string]bool{string(l.precertificate(t, done.bundle)): true})
				l.decide(t, "dev", good, "ALLOWED")
				again := l.digests(t, l.ctx, good)
				if !again.GetRepeated() || !bytes.Equal(again.GetAttestation().GetBundle(), done.bundle) {
					t.Error("attested anew")
				}
			})
		}
	}
}

// TestRevokedWhilePending: what was signed by a key that was revoked before it was
// complete stays pending and unseen. It is completed under the keys of now by who may
// attest it, and by nobody else.
func TestRevokedWhilePending(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		role   signing.Role
		reason signing.Reason
		edits  []func(*server.Config)
	}{
		"attestation key":             {signing.RoleAttestation, signing.ReasonUnspecified, nil},
		"ca key":                      {signing.RoleCA, signing.ReasonUnspecified, []func(*server.Config){inCertificateMode}},
		"timestamp key":               {signing.RoleTimestamp, signing.ReasonKeyCompromise, nil},
		"timestamp key, certificates": {signing.RoleTimestamp, signing.ReasonKeyCompromise, []func(*server.Config){inCertificateMode}},
		"log key, certificates":       {signing.RoleLog, signing.ReasonKeyCompromise, []func(*server.Config){inCertificateMode}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKeyed(t, tt.edits...)
			l := k.begin(t)
			good := subject("good", "good")
			was := l.digests(t, l.ctx, good).GetAttestation()
			l.stop()
			unfinished(t, l, was.GetAttestationId(), "")
			key := k.active(t, tt.role, "")
			k.change(t, signing.RevokeKey{KeyID: key.KeyID, Reason: tt.reason, Rotate: true})

			l = k.begin(t)
			if kept := l.kept(t); kept.Pending != 1 || kept.Attestations != 0 || !strings.Contains(l.logs.String(), "cannot be finished and stays pending") {
				t.Fatalf("kept %+v:\n%s", kept, l.logs)
			}
			l.decide(t, "dev", good, "NO_ATTESTATION")
			// Another run says something else, and changes nothing about this.
			l.login(t, runClaims(1))
			if r := l.digests(t, l.ctx, good); r.GetRepeated() || r.GetAttestation().GetAttestationId() == was.GetAttestationId() {
				t.Error("another run's attestation is this one")
			}
			if n := l.count(t, "pending"); n != 1 {
				t.Errorf("%d pending", n)
			}
			l.login(t)
			result, err := l.tryDigests(good)
			if err != nil {
				t.Fatalf("%v\n%s", err, l.logs)
			}
			done := issuedOf(t, good, result.GetAttestation().GetBundle())
			if !result.GetRepeated() || result.GetAttestation().GetAttestationId() != was.GetAttestationId() {
				t.Error("it is another attestation")
			}
			l.snapshot(t, "now").agreed(t, done, "")
			if n := l.count(t, "pending"); n != 0 {
				t.Errorf("%d pending", n)
			}
			l.stop()
			l = k.begin(t)
			l.snapshot(t, "later").agreed(t, done, "")
			l.decide(t, "dev", good, "ALLOWED")
			if again := l.digests(t, l.ctx, good); !bytes.Equal(again.GetAttestation().GetBundle(), done.bundle) {
				t.Error("attested anew")
			}
		})
	}
}
