package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
)

// guarded is a condition that asks for evidence, so that the set as a whole is sound.
const guarded = `resource has provenance && resource.provenance.trusted`

func TestCompileRefuses(t *testing.T) {
	const good = "permit: when { context.environment == \"prod\" && " + guarded
	annotated := func(annotations string) string {
		return annotations + ` permit (principal, action, resource) when { context.environment == "prod" && ` + guarded + ` };`
	}
	tests := []struct {
		name string
		text string
		code refusal.Code
	}{
		{"no text", "", CodeEmptyPolicy},
		{"comments only", "// permit (principal, action, resource);", CodeEmptyPolicy},
		{"too large", "//" + strings.Repeat("x", MaxPolicyBytes), CodePolicyTooLarge},
		{"too many rules", strings.Repeat("permit(principal,action,resource);", MaxRules+1), CodePolicyTooLarge},
		{"not UTF-8", "// \xff", CodePolicyInvalid},
		{"text direction", "// \u202e", CodePolicyInvalid},
		{"zero width", `@id("a` + "\u200b" + `") permit (principal, action, resource);`, CodePolicyInvalid},
		{"null byte", "permit\x00(principal, action, resource);", CodePolicyInvalid},
		{"not Cedar", "allow everything", CodePolicyInvalid},
		{"Cedar's JSON", `{"effect":"permit"}`, CodePolicyInvalid},
		{"half a rule", "permit (principal, action, resource", CodePolicyInvalid},
		{"template", annotated("@id(\"a\") @message(\"m\")") + ` permit (principal == ?principal, action, resource);`, CodePolicyInvalid},
		{"unknown function", rules(`permit: when { regex("a") }`), CodePolicyInvalid},
		{"brackets", rules("permit: when { " + strings.Repeat("(", 60) + "true" + strings.Repeat(")", 60) + " }"), CodePolicyTooDeep},
		{"a million brackets", strings.Repeat("(", MaxPolicyBytes), CodePolicyTooDeep},
		{"ifs", rules("permit: when { " + strings.Repeat("if true then ", 60) + "true" + strings.Repeat(" else false", 60) + " }"), CodePolicyTooDeep},
		{"prefixes", rules("permit: when { " + strings.Repeat("!", 60) + "true }"), CodePolicyTooDeep},
		{"spaced prefixes", rules("permit: when { " + strings.Repeat("- ", 60) + "1 == 1 }"), CodePolicyTooDeep},
		{"a chain of has", rules("permit: when { resource has a" + strings.Repeat(" . a", 60) + " }"), CodePolicyTooDeep},
		{"a long alternation", rules("permit: when { " + strings.Repeat("true || ", maxExpression) + "true }"), CodePolicyTooDeep},
		{"patterns", rules("permit: when { principal.kind like \"" + strings.Repeat("*a", maxPatternBytes/2) + "\" }"), CodePolicyTooLarge},
		{"no id", annotated(`@message("m")`), CodePolicyIDMissing},
		{"empty id", annotated(`@id("") @message("m")`), CodePolicyIDMissing},
		{"id with a space", annotated(`@id("a b") @message("m")`), CodePolicyIDInvalid},
		{"long id", annotated(`@id("` + strings.Repeat("a", 65) + `") @message("m")`), CodePolicyIDInvalid},
		{"id twice", annotated(`@id("a") @message("m")`) + annotated(`@id("a") @message("m")`), CodePolicyIDDuplicate},
		{"no message", annotated(`@id("a")`), CodePolicyMessageMissing},
		{"message that hides", annotated(`@id("a") @message("m\u{202e}")`), CodePolicyAnnotationInvalid},
		{"message with a line break", annotated(`@id("a") @message("m\n")`), CodePolicyAnnotationInvalid},
		{"long remedy", annotated(`@id("a") @message("m") @remedy("` + strings.Repeat("a", 1025) + `")`), CodePolicyAnnotationInvalid},
		{"misspelt remedy", annotated(`@id("a") @message("m") @remdy("r")`), CodePolicyAnnotationUnknown},
		{"annotation twice", annotated(`@id("a") @id("b") @message("m")`), CodePolicyInvalid},
		{"unguarded attribute", rules(`permit: when { context.environment == "prod" && resource.provenance.trusted }`), CodePolicySchemaMismatch},
		{"half guarded attribute", rules(`permit: when { context.environment == "prod" && resource has provenance && resource.provenance.ref == "x" }`), CodePolicySchemaMismatch},
		{"guard on the wrong side", rules(`permit: when { context.environment == "prod" && resource.provenance.trusted && resource has provenance }`), CodePolicySchemaMismatch},
		{"guard in the other branch", rules(`permit: when { context.environment == "prod" && (!(resource has provenance) && resource.provenance.trusted) }`), CodePolicySchemaMismatch},
		{"unknown attribute", rules(`permit: when { context.environment == "prod" && resource has provenance && resource.provenance.level >= 2 }`), CodePolicySchemaMismatch},
		{"misspelt guard", rules(good+" }", `forbid: when { resource has provenence }`), CodePolicySchemaMismatch},
		{"misspelt guard inside", rules(good+" }", `forbid: when { resource has provenance.sandbx && resource.provenance.sandbx }`), CodePolicySchemaMismatch},
		{"misspelt guard of the caller", rules(good+" }", `forbid: when { principal has reposytory }`), CodePolicySchemaMismatch},
		{"misspelt guard as text", rules(good+" }", `forbid: when { resource has "provenance " }`), CodePolicySchemaMismatch},
		{"guard of the context", rules(good+" }", `forbid: unless { context has user }`), CodePolicySchemaMismatch},
		{"unknown context", rules(`permit: when { context.env == "prod" && ` + guarded + ` }`), CodePolicySchemaMismatch},
		{"display name", rules(`permit: when { context.environment == "prod" && principal.displayName == "x" && ` + guarded + ` }`), CodePolicySchemaMismatch},
		{"wrong type", rules(`permit: when { context.environment == "prod" && resource has provenance && resource.provenance.slsaBuildLevel >= "2" }`), CodePolicySchemaMismatch},
		{"id as a number", rules(`permit: when { context.environment == "prod" && resource has provenance.repositoryId && resource.provenance.repositoryId == 1001 }`), CodePolicySchemaMismatch},
		{"condition is no truth", rules(`permit: when { context.environment }`), CodePolicySchemaMismatch},
		{"unknown action", `@id("a") @message("m") permit (principal, action == Assay::Action::"destroy", resource);`, CodePolicySchemaMismatch},
		{"unknown principal type", `@id("a") @message("m") permit (principal is Assay::User, action, resource);`, CodePolicySchemaMismatch},
		{"unqualified action", `@id("a") @message("m") permit (principal, action == Action::"deploy", resource);`, CodePolicySchemaMismatch},
		{"bad constant", rules(`permit: when { context.now < datetime("tomorrow") }`), CodePolicySchemaMismatch},
		{"no permit", rules(`forbid: unless { context.environment == "prod" && ` + guarded + ` }`), CodePolicyNoPermit},
		{"no environment", rules("permit: when { " + guarded + " }"), CodePolicyNoEnvironment},
		{"environment without a name", rules(`permit: when { context.environment == "" && ` + guarded + ` }`), CodePolicyInvalid},
		{"too many environments", rules("permit: when { " + environments(MaxEnvironments+1) + " && " + guarded + " }"), CodePolicyTooLarge},
		{"too many kinds", rules(good + " && " + strings.ReplaceAll(environments(maxKinds+1), "context.environment", "principal.kind") + " }"), CodePolicyTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, err := Compile([]byte(tt.text))
			if got := refusal.CodeOf(err); got != tt.code || set != nil {
				t.Fatalf("got %s, want %s: %v", got, tt.code, err)
			}
		})
	}
}

func environments(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%q", fmt.Sprintf("e%d", i))
	}
	return "[" + strings.Join(names, ", ") + "].contains(context.environment)"
}

// vacuousSets allow, or cannot be shown never to allow, an artifact that nobody
// attested.
var vacuousSets = map[string]string{
	"no condition":              rules(`permit: `, `forbid: when { context.environment == "x" }`),
	"environment only":          rules(`permit: when { context.environment == "dev" }`),
	"true":                      rules(`permit: when { context.environment == "dev" || true }`),
	"not false":                 rules(`permit: when { !(context.environment == "dev" && false) }`),
	"every other environment":   rules(`permit: when { context.environment != "prod" }`),
	"unless one environment":    rules(`permit: unless { ["prod", "staging"].contains(context.environment) }`),
	"by caller":                 rules(`permit: when { context.environment == "prod" && principal.kind == "human" }`),
	"by optional caller fact":   rules(`permit: when { context.environment == "prod" && principal has repositoryId && principal.repositoryId == "1001" }`),
	"by digest":                 rules(`permit: when { context.environment == "prod" && resource.sha256 == "` + digestA + `" }`),
	"by artifact":               `@id("a") @message("m") permit (principal, action, resource == Assay::Artifact::"sha256:x") when { context.environment == "prod" };`,
	"by time":                   rules(`permit: when { context.environment == "prod" && context.now > datetime("2030-01-01") }`),
	"evidence or nothing":       rules(`permit: when { context.environment == "prod" && (` + guarded + ` || principal.kind == "human") }`),
	"absence of evidence":       rules(`permit: when { context.environment == "prod" && !(resource has provenance) }`),
	"unless bad evidence":       rules(`permit: when { context.environment == "prod" } unless { resource has provenance && resource.provenance.sandbox }`),
	"evidence implies":          rules(`permit: when { context.environment == "prod" && (!(resource has provenance) || resource has provenance && resource.provenance.trusted) }`),
	"if evidence then else":     rules(`permit: when { context.environment == "prod" && (if resource has provenance then resource.provenance.trusted else true) }`),
	"a set that has it all":     rules(`permit: when { context.environment == "prod" && [true, false].contains(true) }`),
	"hidden in a record":        rules(`permit: when { context.environment == "prod" && {"a": true}.a }`),
	"like anything":             rules(`permit: when { context.environment like "*" }`),
	"like some":                 rules(`permit: when { context.environment like "pr-*" }`),
	"a second permit":           rules(`permit: when { context.environment == "prod" && `+guarded+` }`, `permit: when { context.environment == "dev" }`),
	"forbid elsewhere":          rules(`permit: when { context.environment == "dev" }`, `forbid: when { context.environment == "prod" } unless { `+guarded+` }`),
	"forbid that goes quiet":    rules(`permit: when { context.environment == "prod" }`, `forbid: when { resource has provenance && !resource.provenance.trusted }`),
	"forbid by caller":          rules(`permit: when { context.environment == "prod" }`, `forbid: when { principal.kind == "human" } unless { `+guarded+` }`),
	"forbid for other callers":  rules(`permit: when { context.environment == "prod" && principal.kind == "human" }`, `forbid: when { principal.kind == "github-actions" } unless { `+guarded+` }`),
	"forbid by the caller's id": rules(`permit: when { context.environment == "prod" }`, `forbid: when { principal has repositoryId && principal.repositoryId == "1001" } unless { `+guarded+` }`),
	"forbid at times":           rules(`permit: when { context.environment == "prod" }`, `forbid: when { context.now > datetime("2026-01-01") } unless { `+guarded+` }`),
	"forbid one artifact":       rules(`permit: when { context.environment == "prod" }`, `forbid: when { resource.sha256 == "x" } unless { `+guarded+` }`),
	"forbid the named ones":     rules(`permit: `, `forbid: when { ["dev", "prod"].contains(context.environment) } unless { `+guarded+` }`),
	"environment equals kind":   rules(`permit: when { context.environment == principal.kind }`, `forbid: when { context.environment == "prod" }`),
	"turned equality":           rules(`permit: when { ["dev"] == [context.environment] }`, `forbid: when { context.environment == "prod" }`),
	"contains all":              rules(`permit: when { ["dev"].containsAll([context.environment]) }`, `forbid: when { context.environment == "prod" }`),
	"negated twice":             rules(`permit: unless { !(context.environment == "prod" && !(resource has provenance && resource.provenance.sandbox)) }`),
}

func TestCompileRefusesVacuous(t *testing.T) {
	for name, text := range vacuousSets {
		t.Run(name, func(t *testing.T) {
			if _, err := Compile([]byte(text)); refusal.CodeOf(err) != CodePolicyVacuous {
				t.Fatalf("got %v\n%s", err, text)
			}
		})
	}
}

// soundSets look odd and are sound: none can allow without evidence.
var soundSets = map[string]string{
	"default":              DefaultPolicy(),
	"guard by forbid":      rules(`permit: `, `forbid: unless { `+guarded+` }`, `forbid: when { context.environment == "x" }`),
	"guard per place":      rules(`permit: when { context.environment == "prod" }`, `forbid: when { context.environment == "prod" } unless { `+guarded+` }`),
	"guard for others too": rules(`permit: when { context.environment == "prod" }`, `forbid: when { context.environment != "dev" } unless { `+guarded+` }`),
	"guard per caller":     rules(`permit: when { context.environment == "prod" && principal.kind == "human" }`, `forbid: when { principal.kind == "human" } unless { `+guarded+` }`),
	"pattern":              rules(`permit: when { context.environment like "pr-*" && ` + guarded + ` }`),
	"double negation":      rules(`permit: when { context.environment == "prod" } unless { !(` + guarded + `) }`),
	"if":                   rules(`permit: when { context.environment == "prod" && (if resource has provenance then resource.provenance.trusted else false) }`),
	"either evidence":      rules(`permit: when { context.environment == "prod" && (resource has provenance.ref && resource.provenance.ref == "refs/heads/main" || resource has provenance.eventName) }`),
	"no action":            `@id("a") @message("m") permit (principal, action, resource) when { context.environment == "prod" && ` + guarded + ` };`,
	"freeze":               rules(`permit: when { context.environment == "prod" && `+guarded+` }`, `forbid: when { context.environment == "prod" && context.now > datetime("2026-12-24") }`),
}

func TestCompileAccepts(t *testing.T) {
	for name, text := range soundSets {
		t.Run(name, func(t *testing.T) {
			set := mustCompile(t, text)
			for _, environment := range append(set.Environments(), "elsewhere") {
				if d := judge(t, set, ask(environment)); d.Allowed {
					t.Errorf("allowed without evidence in %s", environment)
				}
			}
		})
	}
}

func TestEnvironments(t *testing.T) {
	set := mustCompile(t, rules(
		`permit: when { ["b", "a"].contains(context.environment) && `+guarded+` }`,
		`permit: when { "c" == context.environment && `+guarded+` }`,
		`permit: when { context.environment like "pr-*" && `+guarded+` }`,
		`forbid: when { context.environment != "d" && context.environment == "e" }`,
	))
	if got, want := strings.Join(set.Environments(), " "), "a b c d e"; got != want {
		t.Errorf("environments %q, want %q", got, want)
	}
	for environment, code := range map[string]refusal.Code{
		"a": CodeAllowed, "b": CodeAllowed, "c": CodeAllowed, "pr-7": CodeAllowed,
		"d": CodeRequirementUnmet, "e": CodeDeniedByRule,
		"pr": CodeEnvironmentUnknown, "xpr-7": CodeEnvironmentUnknown, "ab": CodeEnvironmentUnknown,
		"pr-\u202e": CodeEnvironmentUnknown, "pr-" + strings.Repeat("7", 64): CodeEnvironmentUnknown,
	} {
		if d := judge(t, set, ask(environment), build{}); d.Code != code {
			t.Errorf("%q: %s, want %s", environment, d.Code, code)
		}
	}
	if d := judge(t, set, ask("pr-7"), build{}); len(d.Rules) != 1 || d.Rules[0].ID != "r2" {
		t.Errorf("rules for pr-7: %+v", d.Rules)
	}
}

func TestWarnings(t *testing.T) {
	const base = `permit: when { context.environment == "prod" && ` + guarded + ` }`
	tests := []struct {
		name string
		text string
		want string // in one of the warnings; empty: no warning
	}{
		{"clean", rules(base, `forbid: unless { resource has provenance && !resource.provenance.sandbox }`), ""},
		{"quiet", rules(base, `forbid: when { resource has provenance && resource.provenance.sandbox }`), "rule r1 (line 3) goes quiet where resource.provenance is missing"},
		{"quiet inside", rules(base, `forbid: when { resource has provenance.eventName && resource.provenance.eventName like "pull_request*" }`), "goes quiet where resource.provenance.eventName is missing"},
		{"quiet where half is asked for", rules(base, `forbid: when { !(resource has provenance) || (resource has provenance.eventName && resource.provenance.eventName == "pull_request") }`), "goes quiet where resource.provenance.eventName is missing"},
		{"absent is forbidden", rules(base, `forbid: when { !(resource has provenance) || !(resource has provenance.eventName) || (resource has provenance.eventName && resource.provenance.eventName == "pull_request") }`), ""},
		{"permits what is missing", rules(`permit: when { context.environment == "prod" && ` + guarded + ` } unless { resource has provenance.eventName && resource.provenance.eventName == "pull_request" }`), "also permits where resource.provenance.eventName is missing"},
		{"any builder", rules(`permit: when { context.environment == "prod" && resource has provenance && !resource.provenance.sandbox }`), "rule r0 (line 1) may rest on provenance whose builder this service does not know"},
		{"level says known", rules(`permit: when { context.environment == "prod" && resource has provenance && resource.provenance.slsaBuildLevel >= 1 }`), ""},
		{"never", rules(base, `permit: when { context.environment == "prod" && `+guarded+` && false }`), "rule r1 (line 3) can never apply"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := mustCompile(t, tt.text).Warnings()
			if tt.want == "" && len(w) > 0 || tt.want != "" && !slices.ContainsFunc(w, func(s string) bool { return strings.Contains(s, tt.want) }) {
				t.Errorf("warnings %q, want %q", w, tt.want)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	a, b := defaultSet(t), mustCompile(t, DefaultPolicy()+"\n")
	if a.Version() == b.Version() || len(a.Version()) != 64 || a.Version() != defaultSet(t).Version() {
		t.Errorf("versions %s and %s", a.Version(), b.Version())
	}
}

// TestDocumentedRules compiles every rule that docs/policy.md shows.
func TestDocumentedRules(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "policy.md"))
	if err != nil {
		t.Fatal(err)
	}
	deploy, access, found := strings.Cut(string(data), "\n# Access policies\n")
	if !found {
		t.Fatal("the page has no part about access policies")
	}
	set := mustCompile(t, rules(`permit: when { context.environment == "prod" && `+guarded+` }`)+cedarBlocks(deploy))
	if len(set.rules) != 11 {
		t.Errorf("%d rules", len(set.rules))
	}
	if w := set.Warnings(); len(w) != 0 {
		t.Errorf("warnings: %q", w)
	}
	if a := mustCompileAccess(t, DefaultAccess()+cedarBlocks(access)); len(a.rules) != len(mustCompileAccess(t, DefaultAccess()).rules)+2 {
		t.Errorf("%d access rules", len(a.rules))
	}
	for _, action := range Actions() {
		if !strings.Contains(access, "`"+action+"`") {
			t.Errorf("the page does not name the action %s", action)
		}
	}
}

func cedarBlocks(page string) string {
	var out strings.Builder
	for _, b := range strings.Split(page, "```cedar\n")[1:] {
		code, _, _ := strings.Cut(b, "```")
		out.WriteString(code)
	}
	return out.String()
}
