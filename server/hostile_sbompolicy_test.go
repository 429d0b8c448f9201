package server_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// onlySBOM has a rule about SBOMs and none about anything that a test here varies.
const onlySBOM = `
@id("sbom") @message("prod needs a complete SBOM without left-pad") @remedy("upload the artifact")
permit (principal, action == Assay::Action::"deploy", resource)
when { context.environment == "prod" }
when { resource has provenance && resource.provenance.trusted }
when { resource has sbom && resource.sbom.complete && !resource.sbom.names.contains("pkg:npm/left-pad") };
`

// tamperedSBOM is a data directory with SBOMs worth forging.
type tamperedSBOM struct {
	*tampered
	goodArt, badArt       *assayv1.Subject
	goodID, badID, claims string // of their SBOMs, and of one about bad that somebody attached
	bundles               map[string][]byte
}

func newTamperedSBOM(t *testing.T, packages int) *tamperedSBOM {
	t.Helper()
	x := &tamperedSBOM{tampered: &tampered{world: newWorld(t, "https://assay.test")}, bundles: map[string][]byte{}}
	var many []string
	for i := range packages {
		many = append(many, fmt.Sprintf("package-%d@1.0.%d", i, i))
	}
	good := string(zipOf(t, "package-lock.json", string(packageLock(many...))))
	bad := string(zipOf(t, "package-lock.json", string(packageLock(append(many, "left-pad@1.3.0")...))))
	x.goodArt, x.badArt = subject("good.zip", good), subject("bad.zip", bad)
	l := x.world.start(t).login(t)
	id := func(r *assayv1.AttestResult) string {
		id := r.GetSboms()[0].GetAttestationId()
		x.bundles[id] = l.attestation(t, l.ctx, id).GetBundle()
		return id
	}
	x.goodID, x.badID = id(l.upload(t, l.ctx, "good.zip", good)), id(l.upload(t, l.ctx, "bad.zip", bad))
	x.claims = id(l.attach(t, x.badArt, cycloneDX("bad.zip", "pkg:npm/nice@1.0.0")))
	l.stop()
	var err error
	if x.clean, err = os.ReadFile(x.file()); err != nil {
		t.Fatal(err)
	}
	return x
}

// decide alters the database, starts the service with the policy, and verifies.
func (x *tamperedSBOM) decide(t *testing.T, s *assayv1.Subject, reason string, change func(exec func(rows int64, query string, args ...any))) *life {
	t.Helper()
	x.alter(t, change).stop()
	l := x.world.start(t, withPolicy(t, onlySBOM)).login(t)
	l.decide(t, "prod", s, reason)
	return l
}

// TestTamperedSBOM: whatever somebody does to a stored SBOM, nothing becomes deployable
// by it, and a decision says so, rather than an error.
func TestTamperedSBOM(t *testing.T) {
	t.Parallel()
	for size, packages := range map[string]int{"small": 1, "large, packed": 200} {
		t.Run(size, func(t *testing.T) {
			t.Parallel()
			x := newTamperedSBOM(t, packages)
			good, bad, claims := raw(t, x.goodID), raw(t, x.badID), raw(t, x.claims)
			const of = " WHERE attestation = " + seq
			const set = "UPDATE bundles SET bundle = ?" + of
			swap := "UPDATE bundles SET bundle = (SELECT b.bundle FROM bundles b JOIN attestations a ON a.seq = b.attestation WHERE a.id = ?)" + of
			flipped := bytes.Clone(x.bundles[x.goodID])
			flipped[len(flipped)/2] ^= 1
			type exec = func(rows int64, query string, args ...any)
			for _, tt := range []struct {
				name    string
				subject *assayv1.Subject
				reason  string
				change  func(exec)
			}{
				{"untouched", x.goodArt, "ALLOWED", func(exec) {}},
				{"untouched, bad", x.badArt, "REQUIREMENT_UNMET", func(exec) {}},
				{"one byte flipped", x.goodArt, "REQUIREMENT_UNMET", func(e exec) { e(1, set, flipped, good) }},
				{"cut short", x.goodArt, "REQUIREMENT_UNMET", func(e exec) {
					e(1, "UPDATE bundles SET bundle = substr(bundle, 1, length(bundle) - 9)"+of, good)
				}},
				{"its end zeroed", x.goodArt, "REQUIREMENT_UNMET", func(e exec) {
					e(1, "UPDATE bundles SET bundle = CAST(substr(bundle, 1, length(bundle) - 9) || zeroblob(9) AS BLOB)"+of, good)
				}},
				{"empty", x.goodArt, "REQUIREMENT_UNMET", func(e exec) { e(1, set, []byte{}, good) }},
				{"a packed nothing", x.goodArt, "REQUIREMENT_UNMET", func(e exec) { e(1, set, []byte{1}, good) }},
				{"a packed lie", x.goodArt, "REQUIREMENT_UNMET", func(e exec) {
					e(1, set, []byte("\x01\x00\x00\xff\xff\xff\xff\x7f\x28\xb5\x2f\xfd"), good)
				}},
				{"another artifact's", x.badArt, "REQUIREMENT_UNMET", func(e exec) { e(1, swap, good, bad) }},
				{"another artifact's, as if its own", x.badArt, "SUBJECT_MISMATCH", func(e exec) {
					e(1, swap, good, bad)
					e(1, "DELETE FROM subjects"+of, good)
					e(1, "UPDATE subjects SET attestation = "+seq+of, good, bad)
				}},
				{"good's posted under bad", x.badArt, "SUBJECT_MISMATCH", func(e exec) {
					e(1, "DELETE FROM subjects"+of, bad)
					e(1, "UPDATE subjects SET sha256 = ?"+of, raw(t, x.badArt.GetDigest()["sha256"]), good)
				}},
				{"the claim for the generated", x.badArt, "REQUIREMENT_UNMET", func(e exec) { e(1, swap, claims, bad) }},
				{"the claim said to be generated", x.badArt, "REQUIREMENT_UNMET", func(e exec) {
					e(1, "UPDATE sboms SET claimed = 0, complete = 1"+of, claims)
					e(1, "UPDATE subjects SET hashed = 1"+of, claims)
					e(1, "DELETE FROM subjects"+of, bad)
				}},
				{"the bundle deleted", x.goodArt, "REQUIREMENT_UNMET", func(e exec) { e(1, "DELETE FROM bundles"+of, good) }},
				{"the posting deleted", x.goodArt, "REQUIREMENT_UNMET", func(e exec) { e(1, "DELETE FROM subjects"+of, good) }},
				{"its type changed", x.goodArt, "REQUIREMENT_UNMET", func(e exec) {
					e(1, "UPDATE attestations SET predicate_type = 'https://example.com/p' WHERE id = ?", good)
				}},
				{"all of it deleted", x.goodArt, "REQUIREMENT_UNMET", func(e exec) {
					e(1, "DELETE FROM subjects"+of, good)
					e(1, "DELETE FROM subject_names"+of, good)
					e(1, "DELETE FROM bundles"+of, good)
					e(1, "DELETE FROM attestations WHERE id = ?", good)
				}},
			} {
				t.Run(tt.name, func(t *testing.T) {
					l := x.decide(t, tt.subject, tt.reason, tt.change)
					defer l.stop()
					if tt.subject == x.goodArt {
						l.decide(t, "prod", x.badArt, "REQUIREMENT_UNMET")
					}
				})
			}
		})
	}
}

// TestClaimedSBOMFlood: however much somebody attaches, what the service found decides.
func TestClaimedSBOMFlood(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t, withPolicy(t, sbomPolicy)).login(t)
	good := string(zipOf(t, "package-lock.json", string(packageLock("lodash@4.17.21"))))
	bad := string(zipOf(t, "package-lock.json", string(packageLock("left-pad@1.3.0"))))
	goodIDs := l.upload(t, l.ctx, "good.zip", good).GetSboms()[0].GetAttestationId()
	badIDs := l.upload(t, l.ctx, "bad.zip", bad).GetSboms()[0].GetAttestationId()
	flood := l.session(t, l.Issuer.Mint(w.instance, runClaims(1)))
	n := 40
	if testing.Short() || raced {
		n = 20 // more than take part in a decision
	}
	for i := range n {
		for _, s := range []*assayv1.Subject{subject("good.zip", good), subject("bad.zip", bad)} {
			p := []string{"pkg:npm/left-pad@1.3.0", "pkg:npm/nice@1.0.0"}
			if s.GetName() == "bad.zip" {
				p = p[1:]
			}
			doc := cycloneDX(fmt.Sprintf("flood-%d", i), p...)
			ctx := flood
			if i%2 == 0 {
				ctx = l.ctx // and whoever uploaded it
			}
			if _, err := uploadEvidence(ctx, l.conn, evidenceHeader(s, -1, nil), doc, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		d := l.decisionOf(t, l.decide(t, "prod", subject("good.zip", good), "ALLOWED"))
		if !slices.Contains(d.GetAttestationIds(), goodIDs) {
			t.Errorf("it rests on %q, without the SBOM %s", d.GetAttestationIds(), goodIDs)
		}
		d = l.decisionOf(t, l.decide(t, "prod", subject("bad.zip", bad), "DENIED_BY_RULE"))
		if !slices.Contains(d.GetAttestationIds(), badIDs) {
			t.Errorf("it rests on %q, without the SBOM %s", d.GetAttestationIds(), badIDs)
		}
		l.stop() // and of a service that has seen nothing yet
		l = w.start(t, withPolicy(t, sbomPolicy)).login(t)
	}
}

// TestSBOMOrder: one that saw everything comes before one that did not, whichever came
// first; and a decision has seen what was acknowledged before it was asked for.
func TestSBOMOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t, withPolicy(t, sbomPolicy)).login(t)
	lock := string(packageLock("lodash@4.17.21"))
	run := func(i int) func(name string) string {
		ctx := l.session(t, l.Issuer.Mint(w.instance, runClaims(i)))
		return func(name string) string {
			return l.upload(t, ctx, name, lock).GetSboms()[0].GetAttestationId()
		}
	}
	s := subject("", lock)
	opaque := run(1)("lock.bin")
	denied := l.decide(t, "prod", s, "DENIED_BY_RULE")
	if got := l.decisionOf(t, denied).GetFacts()["sbom.complete"]; got != "false" {
		t.Errorf("complete: %q", got)
	}
	complete := run(2)("package-lock.json")
	allowed := l.decide(t, "prod", s, "ALLOWED")
	if allowed.GetDecisionId() == denied.GetDecisionId() {
		t.Error("one decision for both")
	}
	latest := run(3)("again.bin") // incomplete, and later
	ids := l.decisionOf(t, l.decide(t, "prod", s, "ALLOWED")).GetAttestationIds()
	if !slices.Contains(ids, complete) || slices.Contains(ids, opaque) || slices.Contains(ids, latest) {
		t.Errorf("it rests on %q; want %s", ids, complete)
	}
	newer := run(4)("package-lock.json") // complete, and later still
	d := l.decide(t, "prod", s, "ALLOWED")
	if ids := l.decisionOf(t, d).GetAttestationIds(); !slices.Contains(ids, newer) {
		t.Errorf("it rests on %q; want the latest complete one, %s", ids, newer)
	}

	// Of claims likewise, at once, and in no other environment than the one that asks.
	first := l.decide(t, "strict", s, "DENIED_BY_RULE")
	l.attach(t, s, cycloneDX("x", "pkg:npm/left-pad@1.3.0"))
	second := l.decide(t, "strict", s, "DENIED_BY_RULE")
	incomplete := bytes.Replace(cycloneDX("x", "pkg:npm/nice@1.0.0"), []byte(`"aggregate":"complete"`), []byte(`"aggregate":"incomplete"`), 1)
	l.attach(t, s, incomplete)
	l.decide(t, "strict", s, "DENIED_BY_RULE")
	l.attach(t, s, cycloneDX("x", "pkg:npm/nice@2.0.0"))
	third := l.decide(t, "strict", s, "ALLOWED")
	seen := map[string]bool{first.GetDecisionId(): true, second.GetDecisionId(): true, third.GetDecisionId(): true}
	if len(seen) != 3 {
		t.Errorf("decisions %q, %q, %q", first.GetDecisionId(), second.GetDecisionId(), third.GetDecisionId())
	}
	if again := l.decide(t, "strict", s, "ALLOWED"); again.GetDecisionId() != third.GetDecisionId() {
		t.Error("nothing came, and there is another decision")
	}
}

// TestSBOMOfOthers: what is in an artifact is told to those who may read some SBOM of it
// that decided; the rules and their remedies to everybody who may ask.
func TestSBOMOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	idp := people(t, w)
	l := w.start(t, withPeople(idp), withPolicy(t, sbomPolicy), bothTenants).login(t)
	bad := string(zipOf(t, "package-lock.json", string(packageLock("left-pad@1.3.0", "unannounced@7.7.7"))))
	s := subject("bad.zip", bad)
	l.digests(t, l.ctx, s)
	l.decide(t, "prod", s, "DENIED_BY_RULE")
	theirs := l.upload(t, l.otherTenant(t), "theirs.zip", bad).GetSboms()[0].GetAttestationId()
	d := l.decide(t, "prod", s, "DENIED_BY_RULE")
	full := l.decisionOf(t, d)
	if strings.Contains(full.String(), theirs) || strings.Contains(full.String(), "unannounced") || len(full.GetFacts()) != 0 || len(full.GetAttestationIds()) != 0 {
		t.Errorf("another tenant's SBOM in %v", full)
	}
	remedies := 0
	for _, r := range d.GetRules() {
		if r.GetFound() != "" {
			t.Errorf("rule %s found %q", r.GetRuleId(), r.GetFound())
		}
		if !r.GetSatisfied() && r.GetRemedy() != "" {
			remedies++
		}
	}
	if remedies == 0 || !strings.Contains(d.GetMessage(), "may not read") {
		t.Errorf("nothing says what to do: %v", d)
	}
	_, err := assayv1.NewAuditServiceClient(l.conn).GetAttestation(l.ctx, &assayv1.GetAttestationRequest{AttestationId: theirs})
	if reason, _ := reasonOf(err); reason != "NOT_FOUND" {
		t.Errorf("the SBOM itself: %v", err)
	}
	deployer := *l
	rig := *l.rig
	deployer.rig, rig.ctx = &rig, l.session(t, person(idp, "d", "deployer"))
	if shown := deployer.decisionOf(t, deployer.decide(t, "prod", s, "DENIED_BY_RULE")); len(shown.GetFacts()) == 0 || !slices.Contains(shown.GetAttestationIds(), theirs) {
		t.Errorf("a deployer is shown %v, %q", shown.GetFacts(), shown.GetAttestationIds())
	}
	// With an SBOM of its own it is shown that one, if it is the later.
	own := l.upload(t, l.session(t, l.Issuer.Mint(w.instance, runClaims(3))), "bad.zip", bad).GetSboms()[0].GetAttestationId()
	full = l.decisionOf(t, l.decide(t, "prod", s, "DENIED_BY_RULE"))
	if !slices.Contains(full.GetAttestationIds(), own) || strings.Contains(full.String(), theirs) || full.GetFacts()["sbom.components"] == "" {
		t.Errorf("its own SBOM: %v", full)
	}
	// Nor does what another tenant attaches show here.
	name := "their-name"
	other := l.otherTenant(t, oidctest.Claims{"run_id": "77"})
	l.digests(t, other, subject(name, bad))
	if _, err := uploadEvidence(other, l.conn, evidenceHeader(subject(name, bad), -1, nil), cycloneDX("mallory", "pkg:npm/unannounced-2@1.0.0"), 1<<20); err != nil {
		t.Fatal(err)
	}
	full = l.decisionOf(t, l.decide(t, "strict", s, "ALLOWED")) // whoever may attach may claim
	if strings.Contains(full.String(), "mallory") || strings.Contains(full.String(), "unannounced-2") || len(full.GetFacts()) != 0 {
		t.Errorf("another tenant's claim in %v", full)
	}
}
