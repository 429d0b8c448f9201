package server_test

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/mldsa"
	mldsax509 "filippo.io/mldsa/x509"
	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/signing"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
)

// quantumPolicy wants a co-signature for prod and nothing of it for dev.
const quantumPolicy = `
@id("dev-known-builder")
@message("dev needs provenance")
@remedy("attest")
permit (principal, action == Assay::Action::"deploy", resource)
when { context.environment == "dev" }
when { resource has provenance && resource.provenance.trusted };

@id("prod-quantum")
@message("prod needs a post-quantum co-signature")
@remedy("assayd keys add co-signature")
permit (principal, action == Assay::Action::"deploy", resource)
when { context.environment == "prod" }
when { resource has provenance && resource.provenance.trusted }
when { resource has provenance && resource.provenance.coSignatures.contains("ML_DSA_65") };
`

// coKey is the active co-signature key.
func (w *world) coKey(t testing.TB) *signing.KeyEntry {
	t.Helper()
	_, all, err := signing.Describe(filepath.Join(w.data, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if all[i].Role == signing.RoleCoSignature && all[i].State == signing.StateActive {
			return &all[i]
		}
	}
	t.Fatal("there is no co-signature key")
	return nil
}

// TestCoSignatures: with a key in a file or in KMS, each attestation has a co-signature
// that another library verifies, which is a fact; a changed or foreign one is worse than
// none, and a removed one is missed by who asks for it.
func TestCoSignatures(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"file", "KMS"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "https://assay.test")
			cloud := newAWS(t, w)
			all := func(c *server.Config) { withKMS(cloud)(c); withPolicy(t, quantumPolicy)(c) }
			l := w.start(t, all).login(t)
			plain := subject("plain", "plain")
			plainID := l.digests(t, l.ctx, plain).GetAttestation().GetAttestationId()
			add := signing.AddKey{Role: signing.RoleCoSignature}
			if mode == "KMS" {
				add.Ref = "awskms:///" + cloud.KMSKey("ML_DSA_65").ARN()
			}
			w.rekey(t, all, add)
			good, other := subject("good", "good"), subject("other", "other")
			a := l.digests(t, l.ctx, good).GetAttestation()
			goodID := a.GetAttestationId()
			otherID := l.digests(t, l.ctx, other).GetAttestation().GetAttestationId()

			key := w.coKey(t)
			public, err := mldsax509.ParsePKIXPublicKey(key.SPKI())
			if err != nil {
				t.Fatal(err)
			}
			parts, err := attest.ParseOwnBundle(a.GetBundle())
			if err != nil {
				t.Fatal(err)
			}
			d := a.GetDetachedSignatures()
			if len(d) != 1 || d[0].GetKind() != "ML_DSA_65" || d[0].GetKeyId() != key.KeyID {
				t.Fatalf("detached %v", d)
			}
			if err := mldsa.Verify(public.(*mldsa.PublicKey), attest.PAE(parts.Envelope.PayloadType, parts.Envelope.Payload), d[0].GetSignature(), nil); err != nil {
				t.Error(err)
			}
			decision := l.decide(t, "prod", good, "ALLOWED")
			kept, err := assayv1.NewAuditServiceClient(l.conn).GetDecision(l.ctx, &assayv1.GetDecisionRequest{DecisionId: decision.GetDecisionId()})
			if err != nil {
				t.Fatal(err)
			}
			if got := kept.GetDecision().GetFacts()["provenance.coSignatures"]; got != "ML_DSA_65" {
				t.Errorf("the fact is %q", got)
			}
			l.decide(t, "prod", plain, "REQUIREMENT_UNMET")
			l.stop()

			var own, others []byte
			l.alterDetached(t, goodID, func(d [][]byte) [][]byte { own = d[0]; return d })
			l.alterDetached(t, otherID, func(d [][]byte) [][]byte { others = d[0]; return d })
			flip := func(at int) []byte { out := bytes.Clone(own); out[at] ^= 1; return out }
			for _, tt := range []struct {
				name, id  string
				subject   *assayv1.Subject
				change    [][]byte
				dev, prod string
			}{
				{"untouched", goodID, good, [][]byte{own}, "ALLOWED", "ALLOWED"},
				{"a bit of the signature", goodID, good, [][]byte{flip(len(own) - 1)}, "STORED_EVIDENCE_INVALID", "STORED_EVIDENCE_INVALID"},
				{"a bit in its middle", goodID, good, [][]byte{flip(len(own) / 2)}, "STORED_EVIDENCE_INVALID", "STORED_EVIDENCE_INVALID"},
				{"another algorithm", goodID, good, [][]byte{flip(4)}, "STORED_EVIDENCE_INVALID", "STORED_EVIDENCE_INVALID"},
				{"another key", goodID, good, [][]byte{flip(2 + 9 + 2 + 5)}, "STORED_EVIDENCE_INVALID", "STORED_EVIDENCE_INVALID"},
				{"another attestation's", goodID, good, [][]byte{others}, "STORED_EVIDENCE_INVALID", "STORED_EVIDENCE_INVALID"},
				{"its own and another's", goodID, good, [][]byte{own, others}, "STORED_EVIDENCE_INVALID", "STORED_EVIDENCE_INVALID"},
				{"twice", goodID, good, [][]byte{own, own}, "STORED_EVIDENCE_INVALID", "STORED_EVIDENCE_INVALID"},
				{"cut short", goodID, good, [][]byte{own[:len(own)-2000]}, "", ""}, // unreadable
				{"moved to one that has none", plainID, plain, [][]byte{own}, "STORED_EVIDENCE_INVALID", "STORED_EVIDENCE_INVALID"},
				{"taken away there", plainID, plain, nil, "ALLOWED", "REQUIREMENT_UNMET"},
				{"removed", goodID, good, nil, "ALLOWED", "REQUIREMENT_UNMET"},
				{"put back", goodID, good, [][]byte{own}, "ALLOWED", "ALLOWED"},
			} {
				t.Run(tt.name, func(t *testing.T) {
					l.alterDetached(t, tt.id, func([][]byte) [][]byte { return tt.change })
					l := w.start(t, all).login(t)
					defer l.stop()
					if tt.dev == "" {
						resp, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: "dev", Subjects: []*assayv1.Subject{tt.subject}})
						if err == nil && resp.GetVerificationResult() == assayv1.VerificationResult_VERIFICATION_RESULT_PASSED {
							t.Error("ALLOWED")
						}
						return
					}
					l.decide(t, "dev", tt.subject, tt.dev)
					l.decide(t, "prod", tt.subject, tt.prod)
					l.decide(t, "prod", other, "ALLOWED")
				})
			}
		})
	}
}

// TestCoSignatureKeyWindows: what a retired key signed stands; of a revoked key, what was
// signed before the moment named, and nothing where no reason is given.
func TestCoSignatureKeyWindows(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change        func(id string, now time.Time) signing.Change
		before, after string
	}{
		"retired": {func(id string, now time.Time) signing.Change { return signing.RetireKey{KeyID: id, At: now} }, "ALLOWED", "ALLOWED"},
		"keyCompromise": {func(id string, now time.Time) signing.Change {
			return signing.RevokeKey{KeyID: id, Since: now.Add(-30 * time.Minute), Rotate: true, Reason: "keyCompromise"}
		}, "ALLOWED", "STORED_EVIDENCE_INVALID"},
		"superseded": {func(id string, now time.Time) signing.Change {
			return signing.RevokeKey{KeyID: id, Since: now.Add(-30 * time.Minute), Rotate: true, Reason: "superseded"}
		}, "ALLOWED", "STORED_EVIDENCE_INVALID"},
		"unspecified": {func(id string, now time.Time) signing.Change {
			return signing.RevokeKey{KeyID: id, Since: now, Rotate: true, Reason: "unspecified"}
		}, "STORED_EVIDENCE_INVALID", "STORED_EVIDENCE_INVALID"},
		"revoked by now": {func(id string, now time.Time) signing.Change {
			return signing.RevokeKey{KeyID: id, Rotate: true, Reason: "keyCompromise"}
		}, "ALLOWED", "ALLOWED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "https://assay.test")
			frozen := time.Now()
			w.now = func() time.Time { return frozen.Add(time.Duration(w.ahead.Load())) }
			cloud := newAWS(t, w)
			all := func(c *server.Config) { withKMS(cloud)(c); withPolicy(t, quantumPolicy)(c) }
			l := w.start(t, all).login(t)
			w.rekey(t, all, signing.AddKey{Role: signing.RoleCoSignature})
			before, after, next := subject("before", "before"), subject("after", "after"), subject("next", "next")
			l.digests(t, l.ctx, before)
			w.advance(time.Hour)
			l.login(t)
			l.digests(t, l.ctx, after)
			l.decide(t, "prod", after, "ALLOWED")
			w.advance(time.Second)
			w.rekey(t, all, tt.change(w.coKey(t).KeyID, w.now()))
			w.advance(time.Second)
			// By the next call, and in the next life.
			for range 2 {
				l.decide(t, "prod", before, tt.before)
				l.decide(t, "prod", after, tt.after)
				l.stop()
				l = w.start(t, all).login(t)
			}
			// Where there is no key any more, attestations go on without a co-signature.
			d, want := l.digests(t, l.ctx, next).GetAttestation().GetDetachedSignatures(), "ALLOWED"
			if name == "retired" {
				want = "REQUIREMENT_UNMET"
			}
			if (len(d) == 0) != (name == "retired") {
				t.Errorf("detached %v", d)
			}
			l.decide(t, "prod", next, want)
		})
	}
}

// TestCoSignatureKMSFaults: a co-signature that cannot be had, or that is none, stops the
// attest like any other signature, and verifying not at all.
func TestCoSignatureKMSFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withKMS(cloud)).login(t)
	other := cloud.KMSKey("ML_DSA_65")
	w.rekey(t, withKMS(cloud), signing.AddKey{Role: signing.RoleCoSignature, Ref: "awskms:///" + cloud.KMSKey("ML_DSA_65").ARN()})
	for name, tt := range kmsFaults(other) {
		if name == "BER" || testing.Short() && tt.reason == "KMS_UNAVAILABLE" {
			continue // no ASN.1
		}
		t.Run(name, func(t *testing.T) {
			key := cloud.KMSKey("ML_DSA_65")
			w.rekey(t, withKMS(cloud), signing.RotateKey{Role: signing.RoleCoSignature, Ref: "awskms:///" + key.ARN()})
			good := subject("good", "good "+name)
			l.digests(t, l.ctx, good)
			l.decide(t, "dev", good, "ALLOWED")
			before := l.kept(t)
			switch {
			case tt.state != "":
				key.SetState(tt.state)
			case tt.key.WrongAlgorithm != "" || tt.key.WrongKey != nil || tt.key.WrongKeyID != "" || tt.key.FlipBit || tt.key.Truncate:
				key.Fault(tt.key)
			default:
				tt.world.Service, tt.world.Action = "kms", "Sign"
				cloud.World.Fail(tt.world)
			}
			_, err := l.tryDigests(subject("no", name))
			wantOutage(t, err, tt.reason)
			settle(tt.world)
			l.goesOn(t, cloud, good)
			// Summaries have no co-signature: what is new is decided and signed too.
			if d := l.decide(t, "staging", good, "ALLOWED"); len(d.GetVerificationSummary()) == 0 {
				t.Errorf("no summary: %s", d.GetSummaryMissing())
			}
			l.unchanged(t, before)
			cloud.World.Heal()
			key.ClearFaults()
			key.SetState("Enabled")
			l.digests(t, l.ctx, subject("no", name))
		})
	}
}
