package policy

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/x/exp/eval"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/verify"
)

// sameAnswer ignores which piece of evidence it was: the tests have none.
var sameAnswer = cmp.Options{cmpopts.IgnoreTypes([]*verify.Evidence{}), cmpopts.EquateEmpty()}

func drawBuild(rt *rapid.T, builders ...string) build {
	return build{
		Builder:       rapid.SampledFrom(builders).Draw(rt, "builder"),
		BuildType:     rapid.SampledFrom([]string{"", "", "", "https://example.com/other/v1"}).Draw(rt, "buildType"),
		Event:         rapid.SampledFrom([]string{"push", "release", "pull_request", "pull_request_target", "-"}).Draw(rt, "event"),
		Ref:           rapid.SampledFrom([]string{"refs/heads/main", "refs/tags/v1", "refs/pull/1/merge", "-"}).Draw(rt, "ref"),
		RepositoryID:  rapid.SampledFrom([]string{"1001", "10010", "666", "-"}).Draw(rt, "repositoryID"),
		Sandbox:       rapid.Bool().Draw(rt, "sandbox"),
		Foreign:       rapid.Bool().Draw(rt, "foreign"),
		LogIndex:      rapid.Int64Range(0, 3).Draw(rt, "logIndex"),
		SignedAt:      noon.Add(-time.Duration(rapid.IntRange(0, 3).Draw(rt, "age")) * time.Hour),
		PredicateType: rapid.SampledFrom([]string{"", "", "", attest.PredicateVSA}).Draw(rt, "predicateType"),
	}
}

func drawSet(rt *rapid.T) *Set {
	text := rapid.SampledFrom([]string{
		DefaultPolicy(), ofAcme,
		rules(`permit: when { ["dev", "staging", "prod"].contains(context.environment) }`, `forbid: unless { `+guarded+` && resource.provenance.ageSeconds < 7200 }`),
		rules(`permit: when { context.environment == "prod" && `+guarded+` && resource has provenance.repositoryId && resource.provenance.repositoryId == "1001" }`,
			`forbid: when { resource has provenance.eventName && resource.provenance.eventName like "pull*" }`),
	}).Draw(rt, "policy")
	set, err := Compile([]byte(text))
	if err != nil {
		rt.Fatal(err)
	}
	return set
}

func drawAll(rt *rapid.T) []build {
	return rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) build {
		return drawBuild(rt, hosted, selfHost, dev, stranger)
	}), 0, 5).Draw(rt, "evidence")
}

func drawEnvironment(rt *rapid.T) string {
	return rapid.SampledFrom([]string{"dev", "staging", "prod"}).Draw(rt, "environment")
}

func TestOrderDecidesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		set, evidence, environment := drawSet(rt), drawAll(rt), drawEnvironment(rt)
		shuffled := rapid.Permutation(evidence).Draw(rt, "shuffled")
		a, b := judge(t, set, ask(environment), evidence...), judge(t, set, ask(environment), shuffled...)
		if diff := cmp.Diff(a, b, sameAnswer); diff != "" {
			rt.Fatalf("the order of evidence changed the answer:\n%s", diff)
		}
	})
}

func TestUnknownBuildersNeverHelp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		set, evidence, environment := drawSet(rt), drawAll(rt), drawEnvironment(rt)
		more := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) build {
			b := drawBuild(rt, stranger, hosted+"/", "https://assay.example.evil/builders/github-actions/github-hosted")
			if rapid.Bool().Draw(rt, "impostor") {
				b.Builder, b.Foreign = hosted, true // the right name, and another's signature
			}
			return b
		}), 1, 4).Draw(rt, "more")
		if judge(t, set, ask(environment), evidence...).Allowed {
			return
		}
		if d := judge(t, set, ask(environment), append(evidence, more...)...); d.Allowed {
			rt.Fatalf("evidence of unknown builders turned a denial into %s", d.Code)
		}
	})
}

func TestNoEvidenceAlwaysDenies(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		set := drawSet(rt)
		q := ask(rapid.SampledFrom(set.Environments()).Draw(rt, "environment"))
		q.Principal.Kind = rapid.SampledFrom([]string{"github-actions", "human", "aws-role"}).Draw(rt, "kind")
		q.Principal.ID = rapid.StringN(1, 8, 16).Draw(rt, "id")
		if d := judge(t, set, q); d.Code != CodeNoAttestation {
			rt.Fatalf("%s", d.Code)
		}
	})
}

// TestAllowedAlone: whatever is allowed is allowed on the strength of a single
// attestation.
func TestAllowedAlone(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		set, evidence, environment := drawSet(rt), drawAll(rt), drawEnvironment(rt)
		together, alone := judge(t, set, ask(environment), evidence...).Allowed, false
		for _, b := range evidence {
			alone = alone || judge(t, set, ask(environment), b).Allowed
		}
		if together != alone {
			rt.Fatalf("together %t, one by one %t", together, alone)
		}
	})
}

// drawCondition makes up a condition of the grammar that rules are written in.
func drawCondition(rt *rapid.T, depth int) string {
	atoms := []string{
		`true`, `false`, `resource has provenance`, `resource has provenance.ref`, `principal has repositoryId`,
		`(resource has provenance && resource.provenance.trusted)`,
		`(resource has provenance && resource.provenance.slsaBuildLevel >= 1)`,
		`(resource has provenance.eventName && resource.provenance.eventName == "push")`,
		`context.environment == "dev"`, `context.environment != "prod"`, `["dev", "prod"].contains(context.environment)`,
		`context.environment like "p*"`, `principal.kind == "human"`, `"dev" == principal.kind`,
		`context.environment == principal.kind`, `[context.environment].contains("dev")`, `resource.sha256 == "x"`,
		`[context.environment] == ["prod"]`, `action == Assay::Action::"deploy"`, `principal is Assay::Caller`,
	}
	if depth == 0 {
		return rapid.SampledFrom(atoms).Draw(rt, "atom")
	}
	sub := func() string { return drawCondition(rt, depth-1) }
	switch rapid.IntRange(0, 4).Draw(rt, "form") {
	case 0:
		return "!(" + sub() + ")"
	case 1:
		return "(" + sub() + " && " + sub() + ")"
	case 2:
		return "(" + sub() + " || " + sub() + ")"
	case 3:
		return "(if " + sub() + " then " + sub() + " else " + sub() + ")"
	}
	return rapid.SampledFrom(atoms).Draw(rt, "atom")
}

// TestCompiledSetsNeedEvidence makes up policy sets. Of those that Compile takes,
// none allows an artifact without evidence, even when Cedar alone is asked.
func TestCompiledSetsNeedEvidence(t *testing.T) {
	compiled := 0
	rapid.Check(t, func(rt *rapid.T) {
		// Some rules ask for evidence and an environment, or hardly any set would compile.
		lines := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) string {
			effect := rapid.SampledFrom([]string{"permit", "forbid"}).Draw(rt, "effect")
			clause := rapid.SampledFrom([]string{"when", "unless"}).Draw(rt, "clause")
			also := rapid.SampledFrom([]string{"", "when { " + guarded + " }", "when { context.environment == \"prod\" }"}).Draw(rt, "also")
			return fmt.Sprintf("%s: %s { %s } %s", effect, clause, drawCondition(rt, 3), also)
		}), 1, 4).Draw(rt, "rules")
		set, err := Compile([]byte(rules(lines...)))
		if err != nil {
			return
		}
		compiled++
		for _, environment := range append(set.Environments(), "p", "q", "human") {
			for _, kind := range []string{"human", "dev", "github-actions"} {
				q := ask(environment)
				q.Principal.Kind = kind
				if rawAllows(t, set, q) {
					rt.Fatalf("Cedar allows %s for %s without evidence:\n%s", environment, kind, strings.Join(lines, "\n"))
				}
			}
		}
	})
	t.Logf("%d made-up sets compiled", compiled)
	if !testing.Short() && compiled < 5 { // of a hundred; a short run draws twenty
		t.Errorf("%d made-up sets compiled; the test shows nothing", compiled)
	}
}

// TestFactsLeftOut: a set decides over the facts its rules read as it does over
// all of them.
func TestFactsLeftOut(t *testing.T) {
	for _, line := range []string{
		`permit: when { context.environment == "prod" && ` + guarded + ` && resource.provenance == resource.provenance }`,
		`permit: when { context.environment == "prod" && ` + guarded + ` && (if resource.provenance.sandbox then resource else resource) has provenance.ref }`,
		`permit: when { context.environment == "prod" && ` + guarded + ` && {"a": resource.provenance}.a has ref && {"a": resource.provenance}.a.ref == "refs/heads/main" }`,
		`permit: when { context.environment == "prod" && ` + guarded + ` && [resource].contains(resource) && resource is Assay::Artifact }`,
		`permit: when { context.environment == "prod" && resource has "provenance" && resource["provenance"]["trusted"] && resource.provenance["sandbox"] == false }`,
	} {
		set := mustCompile(t, rules(line))
		if d := judge(t, set, ask("prod"), build{}); !d.Allowed {
			t.Errorf("%s: %s %s", line, d.Code, d.Message)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		set, evidence, environment := drawSet(rt), drawAll(rt), drawEnvironment(rt)
		all := *set
		all.wanted, all.named = nil, nil
		a, b := judge(t, set, ask(environment), evidence...), judge(t, &all, ask(environment), evidence...)
		if diff := cmp.Diff(a, b, sameAnswer); diff != "" {
			rt.Fatalf("leaving facts out changed the answer:\n%s", diff)
		}
	})
}

// TestEveryObstacleIsExplained: a rule that stands in the way says what it asks
// for, and one that does not says nothing.
func TestEveryObstacleIsExplained(t *testing.T) {
	explained := 0
	rapid.Check(t, func(rt *rapid.T) {
		lines := []string{`permit: when { context.environment == "prod" && ` + guarded + ` }`}
		for range rapid.IntRange(1, 3).Draw(rt, "rules") {
			effect := rapid.SampledFrom([]string{"permit: when { " + guarded + " } when", "forbid: when", "forbid: unless"}).Draw(rt, "effect")
			lines = append(lines, effect+" { "+drawCondition(rt, 3)+" }")
		}
		set, err := Compile([]byte(rules(lines...)))
		if err != nil {
			return
		}
		d := judge(t, set, ask("prod"), drawAll(rt)...)
		if d.Allowed {
			return // a permit that nobody needed is not explained
		}
		for _, r := range d.Rules {
			if r.Satisfied != (r.Expected == "") || r.Error != "" {
				rt.Fatalf("satisfied = %t, expected %q, found %q\n%s", r.Satisfied, r.Expected, r.Found, strings.Join(lines, "\n"))
			}
			if !r.Satisfied {
				explained++
			}
		}
	})
	if explained == 0 {
		t.Error("nothing was explained; the test shows nothing")
	}
}

func TestSetIsSafeForConcurrentUse(t *testing.T) {
	set := defaultSet(t)
	want := map[string]Decision{}
	for _, environment := range set.Environments() {
		want[environment] = judge(t, set, ask(environment), build{Builder: selfHost})
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				for environment, d := range want {
					if got := judge(t, set, ask(environment), build{Builder: selfHost}); !cmp.Equal(got, d, sameAnswer) {
						t.Errorf("%s: %s, want %s", environment, got.Code, d.Code)
					}
				}
			}
		})
	}
	group.Wait()
}

// TestCallerAttributes holds the names that Principal takes to those of both schemas.
func TestCallerAttributes(t *testing.T) {
	v, err := loadVocabulary()
	if err != nil {
		t.Fatal(err)
	}
	access, err := loadSchema("access.cedarschema", AccessSchema())
	if err != nil {
		t.Fatal(err)
	}
	shape := v.resolved.Entities[callerType].Shape
	if diff := cmp.Diff(shape, access.Entities[callerType].Shape); diff != "" {
		t.Errorf("a caller of the access schema differs from one of the deploy schema:\n%s", diff)
	}
	for name, attribute := range shape {
		p := Principal{ID: "x", Kind: "k", Issuer: "i", Attributes: map[string]string{string(name): "value"}}
		if _, err := p.entity(nil); (err == nil) != attribute.Optional {
			t.Errorf("%s, optional = %t: %v", name, attribute.Optional, err)
		}
		_, isSet := attribute.Type.(resolved.SetType)
		p.Attributes, p.Sets = nil, map[string][]string{string(name): {"value"}}
		if _, err := p.entity(nil); (err == nil) != isSet {
			t.Errorf("%s, a set = %t: %v", name, isSet, err)
		}
	}
}

// TestFingerprint: principals that differ in anything that policies see differ in
// their fingerprint, and in nothing else.
func TestFingerprint(t *testing.T) {
	base := func() Principal {
		return Principal{
			ID: "i", Kind: "k", Issuer: "s", DisplayName: "d", Attributes: map[string]string{"ref": "a", "account": "b"},
			Sets: map[string][]string{"roles": {"x", "y"}, "groups": {"z"}},
		}
	}
	p := base()
	want := p.Fingerprint()
	for name, change := range map[string]func(*Principal){
		"display name":    func(p *Principal) { p.DisplayName = "other" },
		"empty attribute": func(p *Principal) { p.Attributes["region"] = "" },
		"order":           func(p *Principal) { p.Sets["roles"] = []string{"y", "", "x", "x"} },
		"empty set":       func(p *Principal) { p.Sets["properties"] = []string{""} },
	} {
		p := base()
		if change(&p); p.Fingerprint() != want {
			t.Errorf("%s changes the fingerprint", name)
		}
	}
	seen := map[string]string{want: "itself"}
	for name, change := range map[string]func(*Principal){
		"id": func(p *Principal) { p.ID = "j" }, "kind": func(p *Principal) { p.Kind = "l" }, "issuer": func(p *Principal) { p.Issuer = "t" },
		"build": func(p *Principal) { p.Build = true }, "sandbox": func(p *Principal) { p.Sandbox = true },
		"attribute":          func(p *Principal) { p.Attributes["ref"] = "ab" },
		"attribute gone":     func(p *Principal) { delete(p.Attributes, "ref") },
		"attributes moved":   func(p *Principal) { p.Attributes = map[string]string{"ref": "b", "account": "a"} },
		"role added":         func(p *Principal) { p.Sets["roles"] = []string{"x", "y", "admin"} },
		"roles run together": func(p *Principal) { p.Sets["roles"] = []string{"x1:y"} },
		"sets moved":         func(p *Principal) { p.Sets = map[string][]string{"groups": {"x", "y"}, "roles": {"z"}} },
		"role is attribute":  func(p *Principal) { p.Sets["roles"] = nil; p.Attributes["roles"] = "x" },
	} {
		p := base()
		change(&p)
		if other, taken := seen[p.Fingerprint()]; taken {
			t.Errorf("%s has the fingerprint of %s", name, other)
		}
		seen[p.Fingerprint()] = name
	}
}

// TestExplanationReads: what an explanation looks up instead of evaluating it is what
// Cedar would have found.
func TestExplanationReads(t *testing.T) {
	without := 0
	rapid.Check(t, func(rt *rapid.T) {
		set, q := drawSet(rt), ask(drawEnvironment(rt))
		b := drawBuild(rt, hosted, selfHost, dev, stranger).item(t)
		in, err := set.memory.gather(&q, []item{b}, nil)
		if err != nil {
			rt.Fatal(err)
		}
		var p *provenance
		if len(in.alternatives) > 0 && rapid.Bool().Draw(rt, "attested") {
			p = in.alternatives[0]
		}
		r := in.request(digestA, p, nil)
		for _, rule := range set.rules {
			for _, req := range rule.requirements {
				for _, n := range req.read {
					want, err := eval.Eval(n, r.env())
					if got, found := r.at(n); found != (err == nil) || found && !got.Equal(want) {
						rt.Fatalf("%s: got %v, %t; Cedar has %v, %v", render(n), got, found, want, err)
					}
				}
				if req.first == nil {
					continue
				}
				if _, found := r.at(req.first); !found {
					without++
					if value, err := eval.Eval(req.node, r.env()); err == nil {
						rt.Fatalf("%s is %v without %s", req.text, value, render(req.first))
					}
				}
			}
		}
	})
	if without == 0 {
		t.Error("no requirement lacked what it reads first; the test shows little")
	}
}
