package policy

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/verify"
)

// ofAcme wants level 2 and the repository with id 1001, at once.
var ofAcme = rules(`permit: when { context.environment == "prod" && resource has provenance.repositoryId &&
	resource.provenance.trusted && resource.provenance.slsaBuildLevel >= 2 && resource.provenance.repositoryId == "1001" }`)

func TestFactsAreNeverMixed(t *testing.T) {
	set := mustCompile(t, ofAcme)
	highLevel := build{RepositoryID: "666", LogIndex: 1}
	rightRepository := build{Builder: selfHost, LogIndex: 2}
	for _, evidence := range [][]build{{highLevel, rightRepository}, {rightRepository, highLevel}} {
		if d := judge(t, set, ask("prod"), evidence...); d.Code != CodeRequirementUnmet {
			t.Errorf("level of one build, repository of another: %s", d.Code)
		}
	}
	d := judge(t, set, ask("prod"), highLevel, rightRepository, build{LogIndex: 3})
	if !d.Allowed || d.SLSABuildLevel != 2 || d.Facts["provenance.repositoryId"] != "1001" {
		t.Errorf("one attestation that has both: %s, level %d, %v", d.Code, d.SLSABuildLevel, d.Facts)
	}
}

// TestLookAlikes holds one repository against names that resemble it.
func TestLookAlikes(t *testing.T) {
	set := mustCompile(t, rules(`permit: when { context.environment == "prod" && resource has provenance.repository &&
		resource.provenance.trusted && resource.provenance.repository == "https://github.com/acme/app" }`))
	if d := judge(t, set, ask("prod"), build{}); !d.Allowed {
		t.Fatalf("the repository itself: %s", d.Message)
	}
	for _, repository := range []string{
		"https://github.com/acme/app-evil", "https://github.com/acme/app/", "https://github.com/acme/app/../other",
		"https://github.com/aacme/app", "https://github.com.evil/acme/app", "https://evil/https://github.com/acme/app",
		"http://github.com/acme/app", "https://github.com/acme/App", "https://github.com/acme/аpp", "-",
	} {
		if d := judge(t, set, ask("prod"), build{Repository: repository}); d.Allowed {
			t.Errorf("allowed for %q", repository)
		}
	}
	byID := mustCompile(t, ofAcme)
	for _, id := range []string{"10010", "11001", "01001", "1001 ", "1.001e3", "-"} {
		if d := judge(t, byID, ask("prod"), build{RepositoryID: id}); d.Allowed {
			t.Errorf("allowed for repository id %q", id)
		}
	}
}

// TestForbidOfAnotherKind: what does not hang on provenance holds for every alternative.
func TestForbidHoldsForAll(t *testing.T) {
	set := mustCompile(t, rules(
		`permit: when { context.environment == "prod" && `+guarded+` }`,
		`forbid: when { resource.sha256 == "`+digestA+`" }`))
	if d := judge(t, set, ask("prod"), build{}, build{LogIndex: 1}, build{Builder: selfHost}); d.Code != CodeDeniedByRule || d.unmet() != "r1" {
		t.Errorf("%s, unmet %q", d.Code, d.unmet())
	}
}

func TestOneGoodAlternativeIsEnough(t *testing.T) {
	set := defaultSet(t)
	bad := []build{{Event: "pull_request"}, {Builder: dev}, {Builder: stranger}, {PredicateType: attest.PredicateVSA}}
	d := judge(t, set, ask("prod"), append(bad, build{LogIndex: 9})...)
	if !d.Allowed || d.SLSABuildLevel != 2 {
		t.Fatalf("%s: %s", d.Code, d.Message)
	}
	if d := judge(t, set, ask("prod"), bad...); d.Allowed || d.unmet() != "prod-trigger" {
		t.Errorf("without the good one: %s, unmet %q; want what the closest lacks", d.Code, d.unmet())
	}
}

func TestLevelIsNotTakenFromTheStatement(t *testing.T) {
	set := defaultSet(t)
	inflated := strings.Replace(build{Builder: selfHost}.predicate(t), `"runDetails":{`,
		`"runDetails":{"slsaBuildLevel":3,"level":3,`, 1)
	inflated = strings.Replace(inflated, `"id":"`+selfHost+`"`, `"id":"`+selfHost+`","slsaBuildLevel":3,"trusted":true`, 1)
	if d := judge(t, set, ask("prod"), build{Predicate: inflated}); d.Allowed || d.SLSABuildLevel != 1 {
		t.Errorf("%s at level %d", d.Code, d.SLSABuildLevel)
	}
}

func TestErrorsDeny(t *testing.T) {
	overflow := `resource has provenance && resource.provenance.slsaBuildLevel * 9223372036854775807 > 0`
	permit := `permit: when { context.environment == "prod" && ` + guarded + ` }`
	for name, text := range map[string]string{
		"forbid":              rules(permit, `forbid: when { `+overflow+` }`),
		"permit":              rules(permit, `permit: when { `+overflow+` }`),
		"rule for elsewhere":  rules(permit, `permit: when { `+overflow+` && context.environment == "dev" }`),
		"before and after it": rules(`forbid: when { `+overflow+` }`, permit, `forbid: when { context.environment == "dev" }`),
	} {
		set := mustCompile(t, text)
		d := judge(t, set, ask("prod"), build{})
		if d.Code != CodePolicyError || !strings.Contains(d.Message+d.rulesText(), "overflow") {
			t.Errorf("%s: %s %s", name, d.Code, d.Message)
		}
		// Level 1 does not overflow. One attestation that does is enough to deny.
		if d := judge(t, set, ask("prod"), build{Builder: selfHost, LogIndex: 5}, build{}); d.Code != CodePolicyError {
			t.Errorf("%s, in one of two alternatives: %s", name, d.Code)
		}
	}
}

func (d Decision) rulesText() string {
	var b strings.Builder
	for _, r := range d.Rules {
		b.WriteString(r.ID + " " + r.Expected + " " + r.Found + " " + r.Error + "\n")
	}
	return b.String()
}

// unchecked builds a set past the validator and the vacuity check, as if a bug
// or a changed database had let it through.
func unchecked(tb testing.TB, text string) *Set {
	tb.Helper()
	rules, err := parse([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	for _, r := range rules {
		r.prepare()
	}
	s := &Set{rules: rules}
	if err := s.findEnvironments(); err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestUncheckedSetsDeny(t *testing.T) {
	t.Run("forbid over a missing fact", func(t *testing.T) {
		set := unchecked(t, rules(
			`permit: when { context.environment == "prod" && `+guarded+` }`,
			`forbid: when { resource.provenance.eventName == "pull_request" }`))
		if d := judge(t, set, ask("prod"), build{Event: "-"}); d.Code != CodePolicyError || !strings.Contains(d.Message, "r1") {
			t.Errorf("%s: %s", d.Code, d.Message)
		}
		if d := judge(t, set, ask("prod"), build{}); d.Code != CodeAllowed {
			t.Errorf("with the fact: %s", d.Code)
		}
	})
	t.Run("vacuous", func(t *testing.T) {
		for name, text := range vacuousSets {
			set := unchecked(t, text)
			for _, environment := range []string{"dev", "prod", "pr-1", "x"} {
				if d := judge(t, set, ask(environment)); d.Allowed {
					t.Errorf("%s: allowed without evidence in %s", name, environment)
				}
				if d := judge(t, set, ask(environment), build{PredicateType: attest.PredicateVSA}); d.Allowed {
					t.Errorf("%s: allowed without provenance in %s", name, environment)
				}
			}
		}
	})
	t.Run("empty", func(t *testing.T) {
		for _, set := range []*Set{nil, {}} {
			if d := set.Decide(ask("prod")); d.Code != CodeEmptyPolicy || d.Allowed {
				t.Errorf("%s", d.Code)
			}
			if d := judge(t, set, ask("prod"), build{}); d.Code != CodeEmptyPolicy {
				t.Errorf("%s", d.Code)
			}
		}
	})
}

func TestQuestionRefusals(t *testing.T) {
	set := defaultSet(t)
	sha512 := strings.Repeat("d", 128)
	tests := []struct {
		name     string
		change   func(*Question)
		evidence []build
		code     refusal.Code
	}{
		{"no digest", func(q *Question) { q.Subject.Digest = nil }, nil, CodeSubjectNoDigest},
		{"empty digest", func(q *Question) { q.Subject.Digest["sha256"] = "" }, nil, CodeSubjectNoDigest},
		{"only a weak digest", func(q *Question) { q.Subject.Digest = map[string]string{"sha1": strings.Repeat("a", 40)} }, nil, CodeSubjectNoDigest},
		{"digest in upper case", func(q *Question) { q.Subject.Digest["sha256"] = strings.ToUpper(digestA) }, []build{{}}, attest.CodeDigestInvalid},
		{"evidence of another artifact", nil, []build{{SHA256: digestB}}, CodeSubjectMismatch},
		{"one of two of another artifact", nil, []build{{}, {SHA256: digestB}}, CodeSubjectMismatch},
		{"sha512 disagrees", func(q *Question) { q.Subject.Digest["sha512"] = sha512 }, []build{{SHA512: strings.Repeat("e", 128)}}, CodeSubjectMismatch},
		{"sha512 disagrees in one of two", func(q *Question) { q.Subject.Digest["sha512"] = sha512 }, []build{{SHA512: strings.Repeat("e", 128)}, {SHA512: sha512}}, CodeAllowed},
		{"sha512 disagrees in both", func(q *Question) { q.Subject.Digest["sha512"] = sha512 }, []build{{SHA512: strings.Repeat("e", 128)}, {SHA512: strings.Repeat("f", 128)}}, CodeSubjectMismatch},
		{"a summary about another artifact", nil, []build{{}, {SHA256: digestB, PredicateType: attest.PredicateVSA}}, CodeSubjectMismatch},
		{"sha512 agrees", func(q *Question) { q.Subject.Digest["sha512"] = sha512 }, []build{{SHA512: sha512}}, CodeAllowed},
		{"sha512 unknown to the evidence", func(q *Question) { q.Subject.Digest["sha512"] = sha512 }, []build{{}}, CodeAllowed},
		{"nobody asks", func(q *Question) { q.Principal = Principal{} }, []build{{}}, CodePrincipalInvalid},
		{"no kind", func(q *Question) { q.Principal.Kind = "" }, []build{{}}, CodePrincipalInvalid},
		{"attribute the schema lacks", func(q *Question) { q.Principal.Attributes = map[string]string{"admin": "true"} }, []build{{}}, CodePrincipalInvalid},
		{"kind given twice", func(q *Question) { q.Principal.Attributes = map[string]string{"kind": "human"} }, []build{{}}, CodePrincipalInvalid},
		{"huge attribute", func(q *Question) {
			q.Principal.Attributes = map[string]string{"ref": strings.Repeat("x", MaxFactBytes+1)}
		}, []build{{}}, CodeFactTooLarge},
		{"set the schema lacks", func(q *Question) { q.Principal.Sets = map[string][]string{"kind": {"human"}} }, []build{{}}, CodePrincipalInvalid},
		{"too many roles", func(q *Question) {
			q.Principal.Sets = map[string][]string{"roles": slices.Repeat([]string{"x"}, MaxSetValues+1)}
		}, []build{{}}, CodeFactTooLarge},
		{"huge group", func(q *Question) {
			q.Principal.Sets = map[string][]string{"groups": {strings.Repeat("x", MaxFactBytes+1)}}
		}, []build{{}}, CodeFactTooLarge},
		{"signed tomorrow", nil, []build{{SignedAt: noon.Add(maxSkew + time.Second)}}, CodeEvidenceFromFuture},
		{"signed a moment ahead", nil, []build{{SignedAt: noon.Add(maxSkew)}}, CodeAllowed},
		{"no clock", func(q *Question) { q.Now = time.Time{} }, []build{{}}, CodeEvidenceFromFuture},
		{"predicate is a list", nil, []build{{Predicate: `[]`}}, CodeProvenanceMalformed},
		{"predicate is empty", nil, []build{{Predicate: `{}`}}, CodeProvenanceMalformed},
		{"no builder", nil, []build{{Builder: "-"}}, CodeProvenanceMalformed},
		{"no build type", nil, []build{{BuildType: "-"}}, CodeProvenanceMalformed},
		{"builder is a list", nil, []build{{Predicate: `{"buildDefinition":{"buildType":"x"},"runDetails":{"builder":["x"]}}`}}, CodeProvenanceMalformed},
		{"builder twice", nil, []build{{Predicate: `{"buildDefinition":{"buildType":"x"},"runDetails":{"builder":{"id":"a","id":"b"}}}`}}, CodeProvenanceMalformed},
		{"malformed beside good", nil, []build{{}, {Predicate: `{}`}}, CodeProvenanceMalformed},
		{"repository id is a number", nil, []build{{Predicate: strings.Replace(build{}.predicate(t), `"1001"`, `1001`, 1)}}, CodeProvenanceMalformed},
		{"workflow is text", nil, []build{{Predicate: `{"buildDefinition":{"buildType":"` + buildTypeGitHubActions + `","externalParameters":{"workflow":"x"}},"runDetails":{"builder":{"id":"x"}}}`}}, CodeProvenanceMalformed},
		{"huge ref", nil, []build{{Ref: "refs/heads/" + strings.Repeat("x", MaxFactBytes)}}, CodeFactTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := ask("prod")
			if tt.change != nil {
				tt.change(&q)
			}
			if d := judge(t, set, q, tt.evidence...); d.Code != tt.code {
				t.Errorf("%s (%s), want %s", d.Code, d.Message, tt.code)
			}
		})
	}
}

func TestUnverifiedEvidenceDenies(t *testing.T) {
	set := defaultSet(t)
	for name, evidence := range map[string][]*verify.Evidence{
		"zero value": {{}},
		"nil":        {nil},
		"among many": append(slices.Repeat([]*verify.Evidence{{}}, MaxEvidence-1), nil),
	} {
		q := ask("dev")
		q.Evidence = evidence
		if d := set.Decide(q); d.Code != CodeEvidenceUnverified || d.Allowed {
			t.Errorf("%s: %s", name, d.Code)
		}
	}
	q := ask("dev")
	q.Evidence = make([]*verify.Evidence, MaxEvidence+1)
	if d := set.Decide(q); d.Code != CodeTooManyAttestations || d.Allowed {
		t.Errorf("too many: %s", d.Code)
	}
	if d := set.Decide(ask("dev")); d.Code != CodeNoAttestation || d.Allowed {
		t.Errorf("none: %s", d.Code)
	}
}

func TestFacts(t *testing.T) {
	set := defaultSet(t)
	d := judge(t, set, ask("prod"), build{Annotations: map[string]string{annotationOrigin: "claimed"}})
	want := map[string]string{
		"provenance.trusted": "true", "provenance.slsaBuildLevel": "2", "provenance.builderId": hosted,
		"provenance.buildType": buildTypeGitHubActions, "provenance.sandbox": "false",
		"provenance.subjectOrigin": "claimed", "provenance.signedAt": "2026-03-01T11:00:00Z",
		"provenance.invocationId": "https://github.com/acme/app/actions/runs/9007199254740993/attempts/1",
		"provenance.repository":   "https://github.com/acme/app", "provenance.repositoryId": "1001",
		"provenance.repositoryOwnerId": "77", "provenance.ref": "refs/heads/main",
		"provenance.sourceUri":    "git+https://github.com/acme/app@refs/heads/main",
		"provenance.sourceCommit": strings.Repeat("c", 40), "provenance.eventName": "push",
		"provenance.workflowPath": ".github/workflows/release.yml", "provenance.runnerEnvironment": "github-hosted",
		"provenance.runner": "hosted", "provenance.platform": "github-actions", "provenance.pullRequest": "false",
	}
	for name, value := range want {
		if d.Facts[name] != value {
			t.Errorf("%s = %q, want %q", name, d.Facts[name], value)
		}
	}
	if len(d.Facts) != len(want) {
		t.Errorf("facts: %v", d.Facts)
	}
	// Parameters of a build type that nobody taught us mean nothing to us.
	other := judge(t, set, ask("dev"), build{BuildType: "https://example.com/other/v1"})
	for _, name := range []string{"ref", "repository", "eventName", "sourceUri", "repositoryId"} {
		if value, ok := other.Facts["provenance."+name]; ok {
			t.Errorf("%s = %q of an unknown build type", name, value)
		}
	}
	// Of a bundle that somebody else signed we do not know that they saw the bytes.
	if f := judge(t, set, ask("dev"), build{Foreign: true}).Facts; f["provenance.subjectOrigin"] != "claimed" || f["provenance.trusted"] != "false" {
		t.Errorf("foreign: %v", f)
	}
}

// TestEveryFactReachesCedar asks each attribute of the schema in a rule of its own.
func TestEveryFactReachesCedar(t *testing.T) {
	v, err := loadVocabulary()
	if err != nil {
		t.Fatal(err)
	}
	// One build of each type has all facts between them.
	everything := []build{
		{Predicate: edited(t, build{}.predicate(t), `"event_name"`, `"job_workflow_ref":"acme/w/.github/workflows/b.yml@refs/tags/v1","job_workflow_sha":"c0ffee","head_repository":"same","event_name"`)},
		{Predicate: codeBuildPredicate, LogIndex: 1}, {Predicate: jobPredicate, LogIndex: 2}, {Predicate: principalPredicate, LogIndex: 3},
		{Predicate: edited(t, principalPredicate, `"aws-role"`, `"workload","subject":"spiffe://acme/ci"`), LogIndex: 4},
	}
	for p := range v.evidence {
		if p == sbomPath || p == claimedSBOMPath || p == signerPath {
			continue // TestSBOMFacts and TestSignerFacts have those
		}
		set := mustCompile(t, rules(`permit: when { context.environment == "prod" && resource has `+strings.TrimPrefix(p.String(), "resource.")+` && `+guarded+` }`))
		if d := judge(t, set, askAll("prod"), everything...); !d.Allowed {
			t.Errorf("%s does not exist: %s", p, d.Message)
		}
	}
	for _, condition := range []string{
		`resource.provenance.downgrades.contains("privileged-override")`, `resource.provenance.overrides == ["source.buildspec", "environment.image"]`,
		`resource.provenance.downgrades.isEmpty() && resource.provenance.overrides.isEmpty()`, `resource.provenance.platform == "codebuild"`,
		`!resource.provenance.pullRequest`, `resource.provenance has privileged && resource.provenance.privileged`,
	} {
		set := mustCompile(t, rules(`permit: when { context.environment == "prod" && `+guarded+` && `+condition+` }`))
		if d := judge(t, set, askAll("prod"), everything...); !d.Allowed {
			t.Errorf("%s: %s", condition, d.Message)
		}
	}
	for _, condition := range []string{
		`resource.provenance.ageSeconds == 3600`, `resource.provenance.subjectNames.contains("app")`, `resource.provenance.subjectNames == ["app", "app2"]`,
		`resource.provenance.subjectOrigin == "hashed"`, `resource.provenance.signedAt == datetime("2026-03-01T11:00:00Z")`,
		`context.now.durationSince(resource.provenance.signedAt) == duration("1h")`, `resource.sha256 == "` + digestA + `"`,
		`principal.kind == "github-actions"`, `principal has repositoryId && principal.repositoryId == "1001"`, `!(principal has ref)`,
		`principal == Assay::Caller::"github-actions:1001"`, `principal.roles.contains("deployer") && principal.groups.isEmpty()`,
		`principal.isBuild && !principal.sandbox`,
	} {
		set := mustCompile(t, rules(`permit: when { context.environment == "prod" && `+guarded+` && `+condition+` }`))
		q := ask("prod")
		q.Principal.Attributes = map[string]string{"repositoryId": "1001", "ref": ""}
		q.Principal.Sets, q.Principal.Build = map[string][]string{"roles": {"deployer", ""}, "groups": {""}}, true
		if d := judge(t, set, q, build{Names: []string{"app", "app2"}}); !d.Allowed {
			t.Errorf("%s: %s", condition, d.Message)
		}
	}
}

func TestExplanationGolden(t *testing.T) {
	sandbox := build{Builder: dev, Sandbox: true}
	tests := []struct {
		file        string
		policy      string
		environment string
		evidence    []build
	}{
		{"prod-sandbox", DefaultPolicy(), "prod", []build{sandbox}},
		{"prod-unattested", DefaultPolicy(), "prod", nil},
		{"prod-pull-request", DefaultPolicy(), "prod", []build{{Event: "pull_request", Ref: "refs/pull/7/merge"}, sandbox}},
		{"prod-missing-facts", DefaultPolicy(), "prod", []build{{BuildType: "https://example.com/other/v1"}}},
		{"permit-conjuncts", ofAcme, "prod", []build{{Builder: selfHost, RepositoryID: "666"}}},
		{"forbid-forms", rules(
			`permit: when { context.environment == "prod" && `+guarded+` }`,
			`forbid: when { context.environment == "prod" }`,
			`forbid: when { context.environment == "prod" && principal.kind == "github-actions" && resource has provenance && resource.provenance.ageSeconds > 600 }`,
			`forbid: when { !(resource has provenance.ref) || (resource has provenance.ref && resource.provenance.ref != "refs/heads/release") }`,
			`forbid: unless { principal has environment && principal.environment == "prod" }`,
			`forbid: when { resource has provenance && resource.provenance.subjectNames.contains("app") }`,
		), "prod", []build{{}}},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			d := judge(t, mustCompile(t, tt.policy), ask(tt.environment), tt.evidence...)
			var b strings.Builder
			b.WriteString(string(d.Code) + "\n" + d.Message + "\n")
			for _, r := range d.Rules {
				mark := "ok  "
				if !r.Satisfied {
					mark = "deny"
				}
				b.WriteString("\n" + mark + " " + string(r.Effect) + " " + r.ID + ": " + r.Message + "\n")
				for _, line := range [][2]string{{"expected", r.Expected}, {"found", r.Found}, {"error", r.Error}} {
					if line[1] != "" {
						b.WriteString("     " + line[0] + ": " + line[1] + "\n")
					}
				}
				if !r.Satisfied && r.Remedy != "" {
					b.WriteString("     remedy: " + r.Remedy + "\n")
				}
			}
			golden(t, "testdata/explain/"+tt.file+".txt", b.String())
		})
	}
}

// golden compares with a file, and writes it where ASSAY_UPDATE_GOLDEN is set.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("ASSAY_UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got\n%s\nwant\n%s", file, got, want)
	}
}

// TestMemoryIsBounded: what is remembered keeps its statement alive, so no large
// one is.
func TestMemoryIsBounded(t *testing.T) {
	m, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	kept := func(subjects, extra int) bool {
		t.Helper()
		predicate := `{"buildDefinition":{"buildType":"t"},"x":"` + strings.Repeat("x", extra) + `"}`
		st := &attest.Statement{Subjects: make([]attest.Subject, subjects), Predicate: []byte(predicate)}
		p, err := m.predicateOf(st)
		if err != nil || p.buildType != "t" {
			t.Fatal(p, err)
		}
		return m.predicates.Contains(st)
	}
	if !kept(64, 0) || kept(65, 0) || kept(1, 16<<10) {
		t.Error("the limits are not 64 subjects and 16 KiB")
	}
	for range 5000 {
		kept(1, 0)
	}
	if n := m.predicates.Len(); n != 4096 {
		t.Errorf("%d predicates are remembered", n)
	}
}
