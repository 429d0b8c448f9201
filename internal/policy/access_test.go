package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
)

var accessRoles = []string{"attestor", "deployer", "auditor", "security", "admin", "breakglass"}

func mustCompileAccess(tb testing.TB, text string) *Access {
	tb.Helper()
	a, err := CompileAccess([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// accessRules wraps conditions into rules, as rules does for deploy policies:
// "permit read: when {…}"; the action may be left out.
func accessRules(lines ...string) string {
	var b strings.Builder
	for i, line := range lines {
		head, conditions, _ := strings.Cut(line, ":")
		effect, action, _ := strings.Cut(head, " ")
		scope := "action"
		if action != "" {
			scope = fmt.Sprintf("action == Assay::Action::%q", action)
		}
		fmt.Fprintf(&b, "@id(\"x%d\") @message(\"rule %d\")\n%s (principal, %s, resource) %s;\n", i, i, effect, scope, conditions)
	}
	return b.String()
}

// callers are one of each sort, all of tenant "acme" and account 111122223333.
func callers() map[string]Principal {
	caller := func(kind string, build bool) Principal {
		return Principal{
			ID: kind + "#1", Kind: kind, Issuer: "https://issuer.example", Build: build,
			Attributes: map[string]string{"tenant": "acme", "account": "111122223333"},
		}
	}
	out := map[string]Principal{
		"github": caller("github-actions", true), "codebuild": caller("codebuild", true), "gitlab": caller("workload", true),
		"workload": caller("workload", false), "aws-role": caller("aws-role", false), "human": caller("human", false),
		"sandbox": caller("github-actions", true),
	}
	sandbox := out["sandbox"]
	sandbox.Sandbox = true
	out["sandbox"] = sandbox
	for _, role := range accessRoles {
		out["human:"+role] = withRoles(out["human"], role)
	}
	out["aws-role:attestor"] = withRoles(out["aws-role"], "attestor")
	return out
}

func withRoles(p Principal, roles ...string) Principal {
	p.Sets = map[string][]string{"roles": roles}
	return p
}

// resources are what an action may be about: of the callers' own tenant and
// account, of another, and of nobody known.
func resources(kind string) []Resource {
	out := make([]Resource, 0, 3)
	for _, tenant := range [][2]string{{"acme", "111122223333"}, {"evil", "444455556666"}, {"", ""}} {
		out = append(out, Resource{Kind: kind, ID: "r", Attributes: map[string]string{"tenant": tenant[0], "account": tenant[1]}})
	}
	return out
}

// TestDefaultAccessMatrix is every caller and role against every action, on what
// is theirs ("own"), on what is not ("any": all others too), or not at all.
func TestDefaultAccessMatrix(t *testing.T) {
	t.Parallel()
	a, sorts := mustCompileAccess(t, DefaultAccess()), callers()
	names := slices.Sorted(maps.Keys(sorts))
	alone := map[string]bool{}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "action\tresource\t"+strings.Join(names, "\t"))
	for _, action := range Actions() {
		for _, kind := range a.Kinds(action) {
			row := []string{action, kind}
			for _, name := range names {
				var allowed []bool
				for _, r := range resources(kind) {
					d := a.Authorize(AccessRequest{Principal: sorts[name], Action: action, Resource: r})
					checkAccess(t, a, d)
					allowed = append(allowed, d.Allowed)
					if len(d.Policies) == 1 {
						alone[d.Policies[0]] = true
					}
				}
				row = append(row, verdict(t, allowed))
			}
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/access/default.txt", b.String())
	for _, r := range a.rules {
		if !alone[r.id] {
			t.Errorf("no cell shows that rule %s alone lets something pass", r.id)
		}
		if r.effect != Permit {
			t.Errorf("the default policy has a forbid, %s: a role could take something away", r.id)
		}
	}
}

func verdict(t *testing.T, allowed []bool) string {
	switch {
	case !slices.Contains(allowed, true):
		return "-"
	case !slices.Contains(allowed, false):
		return "any"
	case !allowed[0] || allowed[1] || allowed[2]:
		t.Errorf("allowed on what is not theirs and not on what is: %v", allowed)
	}
	return "own"
}

// checkAccess holds what every decision has.
func checkAccess(t testing.TB, a *Access, d AccessDecision) {
	t.Helper()
	if d.Allowed != (d.Code == CodeAccessAllowed) || d.Code == "" || d.Message == "" || d.Version != a.Version() ||
		d.Allowed && len(d.Policies) == 0 {
		t.Fatalf("%+v", d)
	}
}

func TestAuthorizeDenies(t *testing.T) {
	t.Parallel()
	a := mustCompileAccess(t, DefaultAccess())
	admin := withRoles(callers()["human"], "admin")
	request := func(change func(*AccessRequest)) AccessRequest {
		r := AccessRequest{Principal: admin, Action: "read", Resource: Resource{Kind: "Attestation", ID: "r"}}
		if change != nil {
			change(&r)
		}
		return r
	}
	for name, tt := range map[string]struct {
		request AccessRequest
		code    refusal.Code
	}{
		"an admin reads":            {request(nil), CodeAccessAllowed},
		"no action":                 {request(func(r *AccessRequest) { r.Action = "" }), CodeAccessRequestInvalid},
		"unknown action":            {request(func(r *AccessRequest) { r.Action = "drop" }), CodeAccessRequestInvalid},
		"action in another case":    {request(func(r *AccessRequest) { r.Action = "Read" }), CodeAccessRequestInvalid},
		"the deploy action":         {request(func(r *AccessRequest) { r.Action = "deploy" }), CodeAccessRequestInvalid},
		"no kind":                   {request(func(r *AccessRequest) { r.Resource = Resource{} }), CodeAccessRequestInvalid},
		"unknown kind":              {request(func(r *AccessRequest) { r.Resource.Kind = "Key" }), CodeAccessRequestInvalid},
		"a caller as the resource":  {request(func(r *AccessRequest) { r.Resource.Kind = "Caller" }), CodeAccessRequestInvalid},
		"qualified kind":            {request(func(r *AccessRequest) { r.Resource.Kind = "Assay::Attestation" }), CodeAccessRequestInvalid},
		"kind it does not apply to": {request(func(r *AccessRequest) { r.Resource.Kind = "Policy" }), CodeAccessRequestInvalid},
		"unknown attribute": {request(func(r *AccessRequest) {
			r.Resource.Attributes = map[string]string{"owner": "me"}
		}), CodeAccessRequestInvalid},
		"huge attribute": {request(func(r *AccessRequest) {
			r.Resource.Attributes = map[string]string{"tenant": strings.Repeat("x", MaxFactBytes+1)}
		}), CodeFactTooLarge},
		"nobody":              {request(func(r *AccessRequest) { r.Principal = Principal{} }), CodePrincipalInvalid},
		"no issuer":           {request(func(r *AccessRequest) { r.Principal.Issuer = "" }), CodePrincipalInvalid},
		"unknown fact":        {request(func(r *AccessRequest) { r.Principal.Attributes = map[string]string{"admin": "true"} }), CodePrincipalInvalid},
		"role as attribute":   {request(func(r *AccessRequest) { r.Principal.Attributes = map[string]string{"roles": "admin"} }), CodePrincipalInvalid},
		"unknown set":         {request(func(r *AccessRequest) { r.Principal.Sets = map[string][]string{"role": {"admin"}} }), CodePrincipalInvalid},
		"role in upper case":  {request(func(r *AccessRequest) { r.Principal.Sets = map[string][]string{"roles": {"Admin"}} }), CodeAccessDenied},
		"role with a space":   {request(func(r *AccessRequest) { r.Principal.Sets = map[string][]string{"roles": {"admin "}} }), CodeAccessDenied},
		"role as a group":     {request(func(r *AccessRequest) { r.Principal.Sets = map[string][]string{"groups": {"admin"}} }), CodeAccessDenied},
		"kind human, by name": {request(func(r *AccessRequest) { r.Principal = callers()["human"]; r.Principal.DisplayName = "admin" }), CodeAccessDenied},
		"glass": {request(func(r *AccessRequest) {
			r.Action, r.Resource.Kind = "breakGlass", "Decision"
		}), CodeAccessDenied},
		// The namespace of a CI system may be called like an account of AWS.
		"a namespace called like an account": {AccessRequest{callers()["gitlab"], "attestBuild", resources("Build")[0]}, CodeAccessDenied},
	} {
		t.Run(name, func(t *testing.T) {
			d := a.Authorize(tt.request)
			checkAccess(t, a, d)
			if d.Code != tt.code {
				t.Errorf("%s (%s), want %s", d.Code, d.Message, tt.code)
			}
		})
	}
	for name, none := range map[string]*Access{"nil": nil, "zero": {}} {
		if d := none.Authorize(request(nil)); d.Code != CodeEmptyPolicy || d.Allowed {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if d := (AccessDecision{}); d.Allowed {
		t.Error("the zero decision allows")
	}
}

func TestAccessForbidAndErrors(t *testing.T) {
	t.Parallel()
	request := AccessRequest{
		Principal: withRoles(callers()["github"], "auditor"), Action: "read",
		Resource: Resource{Kind: "Attestation", ID: "secret-id", Attributes: map[string]string{"tenant": "secret-tenant"}},
	}
	const overflow = `when { 9223372036854775807 + 1 > 0 }`
	for name, tt := range map[string]struct {
		rules    string
		code     refusal.Code
		policies []string
	}{
		"permit":                    {accessRules(`permit read: `), CodeAccessAllowed, []string{"x0"}},
		"two permits":               {accessRules(`permit read: `, `permit: `, `permit list: `), CodeAccessAllowed, []string{"x0", "x1"}},
		"none of this action":       {accessRules(`permit list: `), CodeAccessDenied, nil},
		"none for this caller":      {accessRules(`permit: when { principal.kind == "human" }`), CodeAccessDenied, nil},
		"forbid over permit":        {accessRules(`permit: `, `forbid read: when { principal.kind == "github-actions" }`), CodeAccessForbidden, []string{"x1"}},
		"forbid alone":              {accessRules(`permit list: `, `forbid: `), CodeAccessForbidden, []string{"x1"}},
		"error in a permit":         {accessRules(`permit: `, `permit read: `+overflow), CodeAccessPolicyError, []string{"x1"}},
		"error in a forbid":         {accessRules(`permit: `, `forbid: `+overflow), CodeAccessPolicyError, []string{"x1"}},
		"error beside a forbid":     {accessRules(`permit: `, `forbid: `, `forbid: `+overflow), CodeAccessPolicyError, []string{"x2"}},
		"error for another action":  {accessRules(`permit: `, `forbid list: `+overflow), CodeAccessAllowed, []string{"x0"}},
		"error for another, inside": {accessRules(`permit: `, `forbid: `+strings.Replace(overflow, "}", `&& action == Assay::Action::"list" }`, 1)), CodeAccessPolicyError, []string{"x1"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := mustCompileAccess(t, tt.rules)
			d := a.Authorize(request)
			checkAccess(t, a, d)
			if d.Code != tt.code || !slices.Equal(d.Policies, tt.policies) {
				t.Errorf("%s by %q, want %s by %q", d.Code, d.Policies, tt.code, tt.policies)
			}
			if strings.Contains(d.Message, "secret") {
				t.Errorf("the message tells of the resource: %s", d.Message)
			}
		})
	}
}

func TestCompileAccessRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text string
		code refusal.Code
	}{
		"no text":             {"", CodeEmptyPolicy},
		"too large":           {"//" + strings.Repeat("x", MaxPolicyBytes), CodePolicyTooLarge},
		"too deep":            {accessRules("permit: when { " + strings.Repeat("(", 60) + "true" + strings.Repeat(")", 60) + " }"), CodePolicyTooDeep},
		"not Cedar":           {"allow everything", CodePolicyInvalid},
		"invisible":           {accessRules("permit: ") + "// \u202e", CodePolicyInvalid},
		"no permit":           {accessRules(`forbid: `), CodePolicyNoPermit},
		"no id":               {`@message("m") permit (principal, action, resource);`, CodePolicyIDMissing},
		"id twice":            {accessRules(`permit: `) + accessRules(`permit: `), CodePolicyIDDuplicate},
		"no message":          {`@id("a") permit (principal, action, resource);`, CodePolicyMessageMissing},
		"unknown annotation":  {`@id("a") @message("m") @rol("x") permit (principal, action, resource);`, CodePolicyAnnotationUnknown},
		"unguarded":           {accessRules(`permit read: when { resource.tenant == "acme" }`), CodePolicySchemaMismatch},
		"half guarded":        {accessRules(`permit read: when { resource has tenant && resource.tenant == principal.tenant }`), CodePolicySchemaMismatch},
		"unknown attribute":   {accessRules(`permit read: when { principal.admin }`), CodePolicySchemaMismatch},
		"unknown action":      {accessRules(`permit drop: `), CodePolicySchemaMismatch},
		"a role as text":      {accessRules(`permit: when { principal.roles == "admin" }`), CodePolicySchemaMismatch},
		"unknown entity":      {`@id("a") @message("m") permit (principal in Assay::Role::"admin", action, resource);`, CodePolicySchemaMismatch},
		"a deploy policy":     {DefaultPolicy(), CodePolicySchemaMismatch},
		"kind never met":      {`@id("a") @message("m") permit (principal, action == Assay::Action::"whoAmI", resource is Assay::Policy);`, CodePolicySchemaMismatch},
		"context of deploys":  {accessRules(`permit: when { context.environment == "prod" }`), CodePolicySchemaMismatch},
		"evidence of deploys": {accessRules(`forbid: when { resource has provenance }`, `permit: `), CodePolicySchemaMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := CompileAccess([]byte(tt.text))
			if got := refusal.CodeOf(err); got != tt.code || a != nil {
				t.Fatalf("got %s, want %s: %v", got, tt.code, err)
			}
		})
	}
	if _, err := Compile([]byte(DefaultAccess())); refusal.CodeOf(err) != CodePolicySchemaMismatch {
		t.Errorf("the access policy as a deploy policy: %v", err)
	}
}

func drawRequest(rt *rapid.T, a *Access) AccessRequest {
	names := slices.Sorted(maps.Keys(callers()))
	p := callers()[rapid.SampledFrom(names).Draw(rt, "caller")]
	p.Sets = map[string][]string{"roles": rapid.SliceOfDistinct(rapid.SampledFrom(accessRoles), rapid.ID).Draw(rt, "roles")}
	action := rapid.SampledFrom(Actions()).Draw(rt, "action")
	kind := rapid.SampledFrom(a.Kinds(action)).Draw(rt, "kind")
	return AccessRequest{Principal: p, Action: action, Resource: rapid.SampledFrom(resources(kind)).Draw(rt, "resource")}
}

// drawAccessCondition makes up a condition that validates.
func drawAccessCondition(rt *rapid.T, depth int) string {
	atoms := []string{
		`true`, `false`, `principal.isBuild`, `principal.sandbox`, `principal.kind == "human"`, `principal.roles.contains("auditor")`,
		`principal.roles.containsAny(["admin", "security"])`, `principal.groups.isEmpty()`, `principal has tenant`,
		`(principal has tenant && resource has tenant && principal.tenant == resource.tenant)`,
		`(resource has account && resource.account like "1*")`, `action == Assay::Action::"read"`, `9223372036854775807 + 1 > 0`,
	}
	if depth == 0 {
		return rapid.SampledFrom(atoms).Draw(rt, "atom")
	}
	sub := func() string { return drawAccessCondition(rt, depth-1) }
	switch rapid.IntRange(0, 3).Draw(rt, "form") {
	case 0:
		return "!(" + sub() + ")"
	case 1:
		return "(" + sub() + " && " + sub() + ")"
	case 2:
		return "(" + sub() + " || " + sub() + ")"
	}
	return rapid.SampledFrom(atoms).Draw(rt, "atom")
}

// TestForbidNeverHelps: adding a forbid to the default policy allows nothing more.
func TestForbidNeverHelps(t *testing.T) {
	t.Parallel()
	base := mustCompileAccess(t, DefaultAccess())
	compiled, forbidden := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		clause := rapid.SampledFrom([]string{"when", "unless"}).Draw(rt, "clause")
		a, err := CompileAccess([]byte(DefaultAccess() + accessRules("forbid: "+clause+" { "+drawAccessCondition(rt, 2)+" }")))
		if err != nil {
			return // a condition that the validator finds impossible
		}
		compiled++
		for range 20 {
			r := drawRequest(rt, base)
			before, after := base.Authorize(r), a.Authorize(r)
			if after.Allowed && !before.Allowed {
				rt.Fatalf("%s upon %s: %s became %s", r.Action, r.Resource.Kind, before.Code, after.Code)
			}
			if after.Code == CodeAccessForbidden {
				forbidden++
			}
		}
	})
	if compiled < 5 || forbidden == 0 {
		t.Errorf("%d made-up forbids compiled, %d requests were forbidden; the test shows little", compiled, forbidden)
	}
}

// TestRolesOnlyAdd: with one role more, a caller may do by default what it could do before.
func TestRolesOnlyAdd(t *testing.T) {
	t.Parallel()
	a := mustCompileAccess(t, DefaultAccess())
	rapid.Check(t, func(rt *rapid.T) {
		r := drawRequest(rt, a)
		before := a.Authorize(r)
		more := r
		more.Principal = withRoles(r.Principal, append(slices.Clone(r.Principal.Sets["roles"]), rapid.SampledFrom(append(accessRoles, "made-up")).Draw(rt, "more"))...)
		if after := a.Authorize(more); before.Allowed && !after.Allowed {
			rt.Fatalf("%s upon %s is taken away by a role: %s", r.Action, r.Resource.Kind, after.Message)
		}
	})
}

// TestRulesLeftOut: deciding over the rules of an action and the attributes that
// rules name gives the answer that all rules over all attributes give.
func TestRulesLeftOut(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var lines []string
		for range rapid.IntRange(1, 4).Draw(rt, "rules") {
			effect := rapid.SampledFrom([]string{"permit", "permit", "permit read", "permit list", "forbid read", "forbid list"}).Draw(rt, "effect")
			lines = append(lines, effect+": when { "+drawAccessCondition(rt, 2)+" }")
		}
		a, err := CompileAccess([]byte(accessRules(lines...)))
		if err != nil {
			return
		}
		whole := *a
		whole.named = nil
		r := drawRequest(rt, a)
		action, q, err := whole.read(&r)
		if err != nil {
			rt.Fatal(err)
		}
		decision, why := cedar.Authorize(a.rules, q, types.Request{Principal: q.principal.UID, Action: action.uid, Resource: q.resource.UID})
		want := a.conclude(&r, action, decision, why)
		if diff := cmp.Diff(want, a.Authorize(r)); diff != "" {
			rt.Fatalf("leaving rules out changed the answer:\n%s\n%s", diff, strings.Join(lines, "\n"))
		}
	})
}

// FuzzCompileAccess starts from single rules, and from the corpus in testdata: the
// fuzzer shortens whatever shows it something new, by trying without each stretch of
// it, and would spend all its time on one text of the size of a whole policy.
func FuzzCompileAccess(f *testing.F) {
	for _, s := range slices.Concat(ruleTexts(DefaultAccess()), ruleTexts(DefaultPolicy())[:1],
		[]string{accessRules(`permit read: when { principal.isBuild }`, `forbid: unless { principal.roles.contains("x") }`)}) {
		f.Add(s)
	}
	asked, actions := callers(), Actions()
	f.Fuzz(func(t *testing.T, text string) {
		a, err := CompileAccess([]byte(text))
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("refused without a code: %v", err)
			}
			return
		}
		for _, action := range actions {
			for _, kind := range a.Kinds(action) {
				for _, p := range asked {
					checkAccess(t, a, a.Authorize(AccessRequest{Principal: p, Action: action, Resource: resources(kind)[0]}))
				}
			}
		}
	})
}

// ruleTexts cuts a policy into its rules.
func ruleTexts(policy string) []string {
	var out []string
	for text := range strings.SplitSeq(policy, ";\n") {
		if i := strings.Index(text, "@id("); i >= 0 {
			out = append(out, text[i:]+";")
		}
	}
	return out
}

func benchmarkAuthorize(b *testing.B, r AccessRequest, code refusal.Code) {
	a := mustCompileAccess(b, DefaultAccess())
	b.ReportAllocs()
	for b.Loop() {
		if d := a.Authorize(r); d.Code != code {
			b.Fatal(d)
		}
	}
}

func BenchmarkAuthorizeRow(b *testing.B) {
	benchmarkAuthorize(b, AccessRequest{callers()["github"], "read", resources("Attestation")[0]}, CodeAccessAllowed)
}

func BenchmarkAuthorizeDeny(b *testing.B) {
	benchmarkAuthorize(b, AccessRequest{callers()["github"], "read", resources("Attestation")[1]}, CodeAccessDenied)
}

func BenchmarkAuthorizeManyFacts(b *testing.B) {
	p := callers()["codebuild"]
	p.Attributes = maps.Clone(p.Attributes)
	for _, name := range []string{"region", "roleArn", "projectArn", "platform", "subject", "repository", "ref"} {
		p.Attributes[name] = "arn:aws:codebuild:eu-west-1:111122223333:project/app"
	}
	groups := make([]string, 200)
	for i := range groups {
		groups[i] = fmt.Sprintf("group-%d", i)
	}
	p.Sets = map[string][]string{"roles": {"auditor", "deployer"}, "groups": groups}
	benchmarkAuthorize(b, AccessRequest{p, "export", resources("Instance")[0]}, CodeAccessAllowed)
}
