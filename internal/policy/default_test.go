package policy

import (
	"testing"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

// TestDefaultPolicy goes through environments and evidence. Every rule of the
// default policy is, somewhere here, the only one that denies.
func TestDefaultPolicy(t *testing.T) {
	set := defaultSet(t)
	sandbox := build{Builder: dev, Sandbox: true}
	tests := []struct {
		name        string
		environment string
		evidence    []build
		code        refusal.Code
		unmet       string
	}{
		{"dev takes a hosted build", "dev", []build{{}}, CodeAllowed, ""},
		{"dev takes a pull request", "dev", []build{{Event: "pull_request", Ref: "refs/pull/7/merge"}}, CodeAllowed, ""},
		{"dev takes the sandbox", "dev", []build{sandbox}, CodeAllowed, ""},
		{"dev wants a known builder", "dev", []build{{Builder: stranger}}, CodeRequirementUnmet, "dev-known-builder"},
		{"dev wants our own signature", "dev", []build{{Foreign: true}}, CodeRequirementUnmet, "dev-known-builder"},
		{"dev wants evidence", "dev", nil, CodeNoAttestation, "dev-known-builder"},

		{"staging takes a hosted build", "staging", []build{{}}, CodeAllowed, ""},
		{"staging takes a self-hosted build", "staging", []build{{Builder: selfHost}}, CodeAllowed, ""},
		{"staging wants level 1", "staging", []build{{Builder: awsRole}}, CodeDeniedByRule, "staging-slsa-level"},
		{"staging takes no sandbox", "staging", []build{{Sandbox: true}}, CodeDeniedByRule, "staging-no-sandbox"},
		{"staging wants a known builder", "staging", []build{{Builder: stranger}}, CodeDeniedByRule, "staging-known-builder staging-slsa-level"},
		{"staging wants evidence", "staging", nil, CodeNoAttestation, "staging-known-builder staging-slsa-level staging-no-sandbox"},

		{"prod takes a push to a branch", "prod", []build{{}}, CodeAllowed, ""},
		{"prod takes a release of a tag", "prod", []build{{Event: "release", Ref: "refs/tags/v1.2.3"}}, CodeAllowed, ""},
		{"prod takes a schedule", "prod", []build{{Event: "schedule"}}, CodeAllowed, ""},
		{"prod takes a start by hand", "prod", []build{{Event: "workflow_dispatch"}}, CodeAllowed, ""},
		{"prod takes a repository_dispatch", "prod", []build{{Event: "repository_dispatch"}}, CodeAllowed, ""},
		{"prod wants level 2", "prod", []build{{Builder: selfHost}}, CodeDeniedByRule, "prod-slsa-level"},
		{"prod takes no sandbox", "prod", []build{{Sandbox: true}}, CodeDeniedByRule, "prod-no-sandbox"},
		{"prod takes no level-0 sandbox", "prod", []build{sandbox}, CodeDeniedByRule, "prod-slsa-level prod-no-sandbox"},
		{"prod knows the sandbox by its builder", "prod", []build{{Builder: dev}}, CodeDeniedByRule, "prod-slsa-level prod-no-sandbox"},
		{"prod takes no pull request", "prod", []build{{Event: "pull_request"}}, CodeDeniedByRule, "prod-trigger"},
		{"prod takes no pull_request_target", "prod", []build{{Event: "pull_request_target"}}, CodeDeniedByRule, "prod-trigger"},
		{"prod takes no pull_request_review", "prod", []build{{Event: "pull_request_review"}}, CodeDeniedByRule, "prod-trigger"},
		{"prod takes no workflow_run", "prod", []build{{Event: "workflow_run"}}, CodeDeniedByRule, "prod-trigger"},
		{"prod takes no issue_comment", "prod", []build{{Event: "issue_comment"}}, CodeDeniedByRule, "prod-trigger"},
		{"prod takes no look-alike event", "prod", []build{{Event: "Push"}}, CodeDeniedByRule, "prod-trigger"},
		{"prod wants an event", "prod", []build{{Event: "-"}}, CodeDeniedByRule, "prod-trigger"},
		{"prod takes no pull ref", "prod", []build{{Ref: "refs/pull/7/merge"}}, CodeDeniedByRule, "prod-trigger prod-source-ref"},
		{"prod takes no other ref", "prod", []build{{Ref: "x/refs/heads/main"}}, CodeDeniedByRule, "prod-source-ref"},
		{"prod wants a ref", "prod", []build{{Ref: "-"}}, CodeDeniedByRule, "prod-source-ref"},
		{"prod takes no overrides", "prod", []build{{Predicate: codeBuildPredicate}}, CodeDeniedByRule, "prod-no-overrides"},
		{"staging takes overrides", "staging", []build{{Predicate: codeBuildPredicate}}, CodeAllowed, ""},
		{"prod takes no claimed digest", "prod", []build{{Annotations: map[string]string{"assay.build/digestOrigin": "claimed"}}}, CodeDeniedByRule, "prod-subject-hashed"},
		{"staging takes a claimed digest", "staging", []build{{Annotations: map[string]string{"assay.build/digestOrigin": "claimed"}}}, CodeAllowed, ""},
		{"prod wants a known builder", "prod", []build{{Builder: stranger}}, CodeDeniedByRule, "prod-known-builder prod-slsa-level prod-subject-hashed"},
		{"prod wants our own signature", "prod", []build{{Foreign: true}}, CodeDeniedByRule, "prod-known-builder prod-slsa-level prod-subject-hashed"},
		{"prod wants evidence", "prod", nil, CodeNoAttestation, "prod-known-builder prod-slsa-level prod-no-sandbox prod-trigger prod-source-ref prod-no-overrides prod-subject-hashed"},
		{"a summary is not provenance", "prod", []build{{PredicateType: attest.PredicateVSA}}, CodeNoMatchingAttestation, "prod-known-builder prod-slsa-level prod-no-sandbox prod-trigger prod-source-ref prod-no-overrides prod-subject-hashed"},
		{"provenance v0.2 is not provenance v1", "dev", []build{{PredicateType: "https://slsa.dev/provenance/v0.2"}}, CodeNoMatchingAttestation, "dev-known-builder"},
		{"a bill of materials is not provenance", "dev", []build{{PredicateType: attest.PredicateCycloneDX}}, CodeNoMatchingAttestation, "dev-known-builder"},

		{"an environment nobody speaks of", "qa", []build{{}}, CodeEnvironmentUnknown, ""},
		{"another spelling of prod", "PROD", []build{{}}, CodeEnvironmentUnknown, ""},
		{"prod with a space", "prod ", []build{{}}, CodeEnvironmentUnknown, ""},
		{"no environment", "", []build{{}}, CodeEnvironmentUnknown, ""},
	}
	only := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := askAll(tt.environment)
			d := judge(t, set, q, tt.evidence...)
			if d.Code != tt.code || d.unmet() != tt.unmet {
				t.Fatalf("got %s, unmet %q; want %s, %q\n%s", d.Code, d.unmet(), tt.code, tt.unmet, d.Message)
			}
			if d.PolicyVersion != set.Version() || d.Message == "" {
				t.Errorf("policy version %q, message %q", d.PolicyVersion, d.Message)
			}
		})
		only[tt.unmet] = true
	}
	for _, r := range set.rules {
		if r.id != "staging-known-builder" && r.id != "prod-known-builder" && !only[r.id] {
			t.Errorf("no case shows that rule %s alone can deny", r.id)
		}
	}
}

// TestKnownBuilderAlone shows the two rules that the levels of the default
// policy imply: a stranger that somebody gave a level is still a stranger.
func TestKnownBuilderAlone(t *testing.T) {
	for environment, level := range map[string]string{"staging": "1", "prod": "2"} {
		set := mustCompile(t, DefaultPolicy())
		q := ask(environment)
		q.BuilderLevels = nil
		d := judge(t, set, q, build{})
		if r := d.rule(t, environment+"-known-builder"); d.Allowed || r.Satisfied || r.Found != "resource.provenance.trusted = false" {
			t.Errorf("%s at level %s: %s, %+v", environment, level, d.Code, r)
		}
	}
}

func TestDefaultPolicyIsClean(t *testing.T) {
	set := defaultSet(t)
	if w := set.Warnings(); len(w) != 0 {
		t.Errorf("warnings: %q", w)
	}
	for _, r := range set.rules {
		if r.remedy == "" {
			t.Errorf("rule %s has no @remedy", r.id)
		}
	}
}
