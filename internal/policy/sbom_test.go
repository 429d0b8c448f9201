package policy_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/verify"
)

// bom is a CycloneDX document with some packages.
func bom(aggregate string, components ...string) string {
	return fmt.Sprintf(`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,
		"metadata":{"component":{"type":"file","name":"app","bom-ref":"root"}},
		"components":[%s],"compositions":[{"aggregate":%q,"assemblies":["root"]}]}`, strings.Join(components, ","), aggregate)
}

func component(purl, license string) string {
	name, version, _ := strings.Cut(purl[strings.LastIndex(purl, "/")+1:], "@")
	out := fmt.Sprintf(`{"type":"library","bom-ref":%q,"name":%q,"version":%q,"purl":%q`, purl, name, version, purl)
	if license != "" {
		out += fmt.Sprintf(`,"licenses":[{"license":{"id":%q}}]`, license)
	}
	return out + "}"
}

type sbomOptions struct {
	document, predicateType string
	annotations             map[string]string
	digest, sha512          string
	edit                    func(*attest.Statement)
}

func (s *signer) sbom(t *testing.T, o sbomOptions) *verify.Evidence {
	t.Helper()
	if o.predicateType == "" {
		o.predicateType = attest.PredicateCycloneDX
	}
	if o.digest == "" {
		o.digest = digest
	}
	st := &attest.Statement{
		Type: attest.StatementTypeV1, PredicateType: o.predicateType, Predicate: json.RawMessage(o.document),
		Subjects: []attest.Subject{{Name: "app", Digest: map[string]string{"sha256": o.digest}, Annotations: o.annotations}},
	}
	if o.sha512 != "" {
		st.Subjects[0].Digest["sha512"] = o.sha512
	}
	if o.edit != nil {
		o.edit(st)
	}
	e, err := s.verifier.VerifyOwn(s.sign(t, st))
	must(t, err)
	return e
}

// made are the annotations of what the service makes itself for a build.
func made(of *verify.Evidence) map[string]string {
	return map[string]string{provenance.AnnotationPredicateOrigin: provenance.OriginGenerated, provenance.AnnotationProvenance: idOf(of)}
}

func claimed(of *verify.Evidence) map[string]string {
	return map[string]string{provenance.AnnotationPredicateOrigin: provenance.OriginClaimed, provenance.AnnotationProvenance: idOf(of)}
}

func idOf(e *verify.Evidence) string {
	sum := sha256.Sum256(e.Payload())
	return hex.EncodeToString(sum[:])
}

// TestSBOMFacts goes the whole way: document, signature, log, verification, facts,
// decision.
func TestSBOMFacts(t *testing.T) {
	s := newSigner(t)
	writer, err := provenance.New(provenance.Config{Instance: instance})
	must(t, err)
	st, err := writer.Statement(caller(false), []attest.Subject{{Name: "app", Digest: map[string]string{"sha256": digest}}})
	must(t, err)
	built, err := s.verifier.VerifyOwn(s.sign(t, st))
	must(t, err)

	read := func(o sbomOptions) *policy.SBOM {
		t.Helper()
		facts, err := policy.ReadSBOM(s.sbom(t, o))
		must(t, err)
		return facts
	}
	whole := bom("complete", component("pkg:npm/lodash@4.17.20", "MIT"), component("pkg:npm/%40acme/x@1.0.0", ""), component("pkg:golang/github.com/a/b@v1.2.3", "AGPL-3.0-only"))
	generated := read(sbomOptions{document: whole, annotations: made(built)})
	partial := read(sbomOptions{document: bom("incomplete", component("pkg:npm/lodash@4.17.21", "MIT")), annotations: made(built)})
	unknown := read(sbomOptions{document: bom("unknown"), annotations: made(built)})
	attached := read(sbomOptions{document: bom("complete", component("pkg:pypi/requests@2.0.0", "Apache-2.0")), annotations: claimed(built)})
	bare := read(sbomOptions{document: bom("complete", component("pkg:pypi/bare@1.0.0", "")), annotations: map[string]string{provenance.AnnotationProvenance: idOf(built)}})
	homeless := read(sbomOptions{document: whole, annotations: map[string]string{provenance.AnnotationPredicateOrigin: provenance.OriginGenerated}})
	renamed := read(sbomOptions{document: bom("incomplete", component("pkg:npm/left-pad@1.3.0", "WTFPL")), annotations: made(built), edit: func(st *attest.Statement) { st.Subjects[0].Name = "zebra" }})
	// Somebody else built the same bytes.
	theirs, err := writer.Statement(caller(true), []attest.Subject{{Name: "app", Digest: map[string]string{"sha256": digest}}})
	must(t, err)
	foreign, err := s.verifier.VerifyOwn(s.sign(t, theirs))
	must(t, err)
	nice := read(sbomOptions{document: bom("complete", component("pkg:npm/nice@1.0.0", "MIT")), annotations: made(foreign)})
	mixed := read(sbomOptions{document: whole, annotations: made(built), edit: func(st *attest.Statement) {
		st.Subjects = append(st.Subjects, attest.Subject{Name: "other", Digest: map[string]string{"sha256": strings.Repeat("a", 64)}})
	}})
	contradicting := read(sbomOptions{document: whole, annotations: made(built), sha512: strings.Repeat("c", 128)})

	for _, tt := range []struct {
		name, condition string
		sboms           []*policy.SBOM
		want            bool
	}{
		{"none", `resource has sbom`, nil, false},
		{"there", `resource has sbom && !(resource has claimedSbom)`, []*policy.SBOM{generated}, true},
		{"complete", `resource has sbom && resource.sbom.complete`, []*policy.SBOM{generated}, true},
		{"not complete", `resource has sbom && resource.sbom.complete`, []*policy.SBOM{partial}, false},
		{"unknown is not complete", `resource has sbom && resource.sbom.complete`, []*policy.SBOM{unknown}, false},
		{"count", `resource has sbom && resource.sbom.components == 3 && resource.sbom.unlicensed == 1`, []*policy.SBOM{generated}, true},
		{"packages", `resource has sbom && resource.sbom.packages.containsAll(["pkg:npm/lodash@4.17.20", "pkg:npm/%40acme/x@1.0.0"])`, []*policy.SBOM{generated}, true},
		{"another version", `resource has sbom && resource.sbom.packages.contains("pkg:npm/lodash@4.17.21")`, []*policy.SBOM{generated}, false},
		{"names", `resource has sbom && resource.sbom.names.contains("pkg:npm/lodash")`, []*policy.SBOM{generated}, true},
		{"licences", `resource has sbom && resource.sbom.licenses == ["MIT", "AGPL-3.0-only"]`, []*policy.SBOM{generated}, true},
		{"ecosystems", `resource has sbom && resource.sbom.ecosystems == ["npm", "golang"]`, []*policy.SBOM{generated}, true},
		{"format", `resource has sbom && resource.sbom.format == "cyclonedx"`, []*policy.SBOM{generated}, true},
		{"signed", `resource has sbom && resource.sbom.signedAt <= context.now`, []*policy.SBOM{generated}, true},
		{"a whole one comes first", `resource has sbom && resource.sbom.components == 3`, []*policy.SBOM{partial, unknown, generated}, true},
		{"in any order", `resource has sbom && resource.sbom.components == 3`, []*policy.SBOM{generated, unknown, partial}, true},
		{"a claim is no SBOM of ours", `resource has sbom`, []*policy.SBOM{attached}, false},
		{"nor is one that does not say", `resource has sbom`, []*policy.SBOM{bare}, false},
		{"nor one that says it of one subject", `resource has sbom`, []*policy.SBOM{mixed}, false},
		{"a claim", `resource has claimedSbom && resource.claimedSbom.licenses.contains("Apache-2.0")`, []*policy.SBOM{attached, generated}, true},
		{"both", `resource has claimedSbom && resource has sbom && resource.sbom.components == 3`, []*policy.SBOM{attached, generated}, true},
		{"one that belongs to no build", `resource has sbom`, []*policy.SBOM{homeless}, false},
		{"one of another build", `resource has sbom`, []*policy.SBOM{nice}, false},
		{"another build closes nothing", `resource has sbom && !resource.sbom.names.contains("pkg:npm/nice")`, []*policy.SBOM{nice, generated}, true},
		{"under two names, the worse of both", `resource has sbom && resource.sbom.names.contains("pkg:npm/lodash") && resource.sbom.names.contains("pkg:npm/left-pad")`, []*policy.SBOM{renamed, generated}, true},
		{"and complete only if both are", `resource has sbom && resource.sbom.complete`, []*policy.SBOM{generated, renamed}, false},
		{"a claim adds nothing to ours", `resource has sbom && resource.sbom.packages.contains("pkg:pypi/requests@2.0.0")`, []*policy.SBOM{attached, generated}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := policy.Compile([]byte(`@id("r") @message("m") permit (principal, action == Assay::Action::"deploy", resource)
				when { context.environment == "prod" && resource has provenance && resource.provenance.trusted } when { ` + tt.condition + ` };`))
			must(t, err)
			if set.ReadsSBOM() != strings.Contains(tt.condition, "sbom") || set.ReadsClaimedSBOM() != strings.Contains(tt.condition, "claimedSbom") {
				t.Error("the set says otherwise which SBOMs it reads")
			}
			q := ask("prod", built)
			q.SBOMs = tt.sboms
			d := set.Decide(q)
			if d.Allowed != tt.want {
				t.Errorf("%s: %s (%+v)", d.Code, d.Message, d.Rules)
			}
			if tt.want && len(tt.sboms) > 0 && len(d.UsedSBOMs) == 0 {
				t.Error("no SBOM was used")
			}
		})
	}

	set, err := policy.Compile([]byte(`@id("r") @message("m") permit (principal, action == Assay::Action::"deploy", resource)
		when { context.environment == "prod" && resource has provenance && resource.provenance.trusted && resource has sbom };`))
	must(t, err)
	decide := func(edit func(*policy.Question)) policy.Decision {
		q := ask("prod", built)
		q.SBOMs = []*policy.SBOM{generated}
		edit(&q)
		return set.Decide(q)
	}
	many := make([]*policy.SBOM, policy.MaxSBOMs+1)
	for i := range many {
		many[i] = generated
	}
	for _, tt := range []struct {
		name string
		edit func(*policy.Question)
		code refusal.Code
	}{
		{"good", func(*policy.Question) {}, policy.CodeAllowed},
		{"zero", func(q *policy.Question) { q.SBOMs = append(q.SBOMs, &policy.SBOM{}) }, policy.CodeEvidenceUnverified},
		{"nil", func(q *policy.Question) { q.SBOMs = append(q.SBOMs, nil) }, policy.CodeEvidenceUnverified},
		{"too many", func(q *policy.Question) { q.SBOMs = many }, policy.CodeTooManySBOMs},
		{"of another artifact", func(q *policy.Question) {
			q.SBOMs = append(q.SBOMs, read(sbomOptions{document: whole, annotations: made(built), digest: strings.Repeat("b", 64)}))
		}, policy.CodeSubjectMismatch},
		{"contradicting is set aside", func(q *policy.Question) {
			q.Subject.Digest = map[string]string{"sha256": digest, "sha512": strings.Repeat("d", 128)}
			q.SBOMs = append(q.SBOMs, contradicting)
		}, policy.CodeAllowed},
		{"only contradicting", func(q *policy.Question) {
			q.Subject.Digest = map[string]string{"sha256": digest, "sha512": strings.Repeat("d", 128)}
			q.SBOMs = []*policy.SBOM{contradicting}
		}, policy.CodeRequirementUnmet},
		{"from the future", func(q *policy.Question) { q.Now = q.Now.Add(-24 * time.Hour) }, policy.CodeEvidenceFromFuture},
		{"without provenance", func(q *policy.Question) { q.Evidence = nil }, policy.CodeNoAttestation},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := decide(tt.edit); d.Code != tt.code {
				t.Errorf("%s: %s; want %s", d.Code, d.Message, tt.code)
			}
		})
	}
}

func TestReadSBOMRefuses(t *testing.T) {
	s := newSigner(t)
	for name, tt := range map[string]struct {
		evidence *verify.Evidence
		code     refusal.Code
	}{
		"nil":            {nil, policy.CodeEvidenceUnverified},
		"zero":           {&verify.Evidence{}, policy.CodeEvidenceUnverified},
		"provenance":     {s.sbom(t, sbomOptions{document: `{}`, predicateType: attest.PredicateSLSAProvenanceV1}), policy.CodeSBOMMalformed},
		"not a document": {s.sbom(t, sbomOptions{document: `{"a":1}`, annotations: map[string]string{provenance.AnnotationPredicateOrigin: provenance.OriginGenerated}}), policy.CodeSBOMMalformed},
		"a bad purl":     {s.sbom(t, sbomOptions{document: bom("complete", component("pkg:npm", "MIT")), annotations: map[string]string{provenance.AnnotationPredicateOrigin: provenance.OriginGenerated}}), policy.CodeSBOMMalformed},
	} {
		if _, err := policy.ReadSBOM(tt.evidence); refusal.CodeOf(err) != tt.code {
			t.Errorf("%s: %v; want %s", name, err, tt.code)
		}
	}
	bundle := s.sign(t, &attest.Statement{
		Type: attest.StatementTypeV1, PredicateType: attest.PredicateCycloneDX, Predicate: json.RawMessage(bom("complete")),
		Subjects: []attest.Subject{{Name: "app", Digest: map[string]string{"sha256": digest}, Annotations: map[string]string{provenance.AnnotationPredicateOrigin: provenance.OriginGenerated}}},
	})
	foreign, err := s.verifier.Verify(bundle, verify.Expectation{AnyArtifact: true, RootKey: true})
	must(t, err)
	if _, err := policy.ReadSBOM(foreign); refusal.CodeOf(err) != policy.CodeEvidenceUnverified {
		t.Errorf("somebody else's: %v", err)
	}
}

func TestReadsSBOM(t *testing.T) {
	for condition, want := range map[string]bool{
		`resource has provenance && resource.provenance.trusted`: false,
		`resource has sbom`:                                     true,
		`!(resource has claimedSbom)`:                           true,
		`resource has sbom && resource.sbom.components > 3`:     true,
		`resource == resource`:                                  true,
		`resource.sha256 == "a"`:                                false,
		`principal.roles.contains("a")`:                         false,
		`if resource has sbom then true else resource has sbom`: true,
	} {
		set, err := policy.Compile([]byte(`@id("r") @message("m") permit (principal, action == Assay::Action::"deploy", resource)
			when { context.environment == "prod" && resource has provenance && resource.provenance.trusted } when { ` + condition + ` };`))
		must(t, err)
		if got := set.ReadsSBOM() || set.ReadsClaimedSBOM(); got != want {
			t.Errorf("%s: %t", condition, got)
		}
	}
	if set, err := policy.Compile([]byte(policy.DefaultPolicy())); err != nil || set.ReadsSBOM() || set.ReadsClaimedSBOM() {
		t.Errorf("the default policy: %v", err)
	}
}
