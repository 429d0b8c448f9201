package policy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

// rawAllows asks Cedar itself about an artifact without evidence, past every
// precaution of Decide.
func rawAllows(tb testing.TB, set *Set, q Question) bool {
	tb.Helper()
	in, err := set.memory.gather(&q, nil, nil)
	if err != nil {
		tb.Fatal(err)
	}
	r := in.request(q.Subject.Digest["sha256"], nil, nil)
	decision, why := cedar.Authorize(set.rules, r, r.cedar())
	return decision == types.Allow && len(why.Errors) == 0
}

// FuzzCompile starts from single rules, for the reason that FuzzCompileAccess gives.
func FuzzCompile(f *testing.F) {
	seeds := ruleTexts(DefaultPolicy() + ofAcme)
	for _, text := range vacuousSets {
		seeds = append(seeds, text)
	}
	for _, text := range soundSets {
		seeds = append(seeds, text)
	}
	if len(seeds) < 30 {
		f.Fatalf("%d seeds", len(seeds))
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		set, err := Compile([]byte(text))
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("refused without a code: %v", err)
			}
			return
		}
		for _, environment := range append(set.Environments(), "elsewhere") {
			if rawAllows(t, set, ask(environment)) {
				t.Fatalf("Cedar allows %q without evidence:\n%s", environment, text)
			}
			if d := judge(t, set, ask(environment)); d.Allowed {
				t.Fatalf("allowed without evidence in %q", environment)
			}
			judge(t, set, ask(environment), build{}, build{Builder: stranger, Event: "-"})
		}
	})
}

func FuzzDecide(f *testing.F) {
	set := defaultSet(f)
	seeds := []build{{}, {Builder: dev, Sandbox: true}, {Event: "pull_request"}, {Builder: stranger}, {BuildType: "x"}, {Ref: "-"}}
	for _, b := range seeds {
		for _, environment := range []string{"dev", "staging", "prod"} {
			f.Add([]byte(b.predicate(f)), environment, "github-actions", true)
		}
	}
	f.Fuzz(func(t *testing.T, predicate []byte, environment, kind string, own bool) {
		if attest.CheckJSON(predicate, attest.MaxStatementBytes) != nil {
			return // no statement has such a predicate
		}
		q := ask(environment)
		q.Principal.Kind = kind
		d := judge(t, set, q, build{Predicate: string(predicate), Foreign: !own})
		if d.Code == "" || d.Message == "" {
			t.Fatalf("no reason: %+v", d)
		}
		if !d.Allowed {
			return
		}
		// What is allowed rests on a builder we know, by our own signature.
		var p definition
		if err := json.Unmarshal(predicate, &p); err != nil {
			t.Fatalf("allowed a predicate that cannot be read: %v", err)
		}
		level, known := q.BuilderLevels[d.Facts["provenance.builderId"]]
		if !own || !known || level < d.SLSABuildLevel || d.SLSABuildLevel < 0 {
			t.Fatalf("allowed on %v", d.Facts)
		}
		if environment == "prod" && (d.SLSABuildLevel < 2 || d.Facts["provenance.sandbox"] != "false") {
			t.Fatalf("allowed in prod on %v", d.Facts)
		}
	})
}

// TestWorstCase bounds what the worst policy and the worst evidence cost together.
func TestWorstCase(t *testing.T) {
	pattern := `"*` + strings.Repeat("a", 780) + `b*"`
	var lines []string
	for i := range 10 {
		lines = append(lines, fmt.Sprintf(`forbid: when { resource has provenance.ref && resource.provenance.ref like %s && context.environment == "e%d" }`, pattern, i))
	}
	lines = append(lines, `permit: when { context.environment == "prod" && `+guarded+` }`)
	set := mustCompile(t, rules(lines...))
	evidence := make([]build, MaxEvidence)
	for i := range evidence {
		evidence[i] = build{Ref: strings.Repeat("a", MaxFactBytes-100), LogIndex: int64(i), Event: "-"}
	}
	started := time.Now()
	if d := judge(t, set, ask("prod"), evidence...); !d.Allowed {
		t.Fatalf("%s: %s", d.Code, d.Message)
	}
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("one question takes %s", took)
	}
	t.Logf("the worst question takes %s", time.Since(started).Round(time.Millisecond))
}

// TestLargestSets compiles the largest sets that the limits let through.
func TestLargestSets(t *testing.T) {
	var many, deep, ifs strings.Builder
	many.WriteString(rules("forbid: unless { " + guarded + " }"))
	for i := range MaxRules - 1 {
		fmt.Fprintf(&many, "@id(\"p%d\")@message(\"m\")permit(principal,action,resource)when{context.environment==\"e%d\"&&principal.kind==\"k%d\"};\n",
			i, i%MaxEnvironments, i%maxKinds)
	}
	deep.WriteString(rules(`permit: when { context.environment == "prod" && ` + guarded + ` && (` +
		strings.Repeat(`resource.provenance.builderId == "x" || `, maxExpression-16) + `false) }`))
	ifs.WriteString("permit: when { context.environment == \"prod\" && " + guarded + " && (")
	for range maxNesting - 6 {
		ifs.WriteString("if resource.provenance.sandbox then false else ")
	}
	for name, text := range map[string]string{"many rules": many.String(), "long alternation": deep.String(), "nested ifs": rules(ifs.String() + "true) }")} {
		t.Run(name, func(t *testing.T) {
			started := time.Now()
			mustCompile(t, text)
			if took := time.Since(started); took > 10*time.Second {
				t.Errorf("%d bytes take %s", len(text), took)
			}
			t.Logf("%d bytes compile in %s", len(text), time.Since(started).Round(time.Millisecond))
		})
	}
}
