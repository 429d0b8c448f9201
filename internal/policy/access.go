package policy

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/assay-build/assay/internal/refusal"
)

// Codes of an access decision. A principal that is nobody in particular, or whose
// facts the schema does not have, is denied with the code of that.
const (
	// CodeAccessAllowed is the one code of an answer that lets a call pass.
	CodeAccessAllowed refusal.Code = "ACCESS_ALLOWED"
	// CodeAccessDenied: no permit applies.
	CodeAccessDenied refusal.Code = "ACCESS_DENIED"
	// CodeAccessForbidden: a forbid applies, whatever permits there are.
	CodeAccessForbidden refusal.Code = "ACCESS_FORBIDDEN"
	// CodeAccessPolicyError: evaluating a rule ended in an error. Cedar would skip
	// the rule; a forbid would silently not fire.
	CodeAccessPolicyError refusal.Code = "ACCESS_POLICY_ERROR"
	// CodeAccessRequestInvalid: an action, a kind of resource or an attribute that
	// the schema does not have, or an action upon something it does not apply to.
	// A fault of the service, which is no reason to let anybody pass.
	CodeAccessRequestInvalid refusal.Code = "ACCESS_REQUEST_INVALID"
)

//go:embed access.cedarschema
var accessSchemaText string

//go:embed access.cedar
var accessText string

// AccessSchema returns the Cedar schema that access policies are validated against.
func AccessSchema() string { return accessSchemaText }

// DefaultAccess returns the access policy a new deployment starts with.
func DefaultAccess() string { return accessText }

// AccessRequest is one question: may Principal do Action with Resource?
type AccessRequest struct {
	Principal Principal
	// Action is one of Actions.
	Action   string
	Resource Resource
}

// Resource is what a call is about.
type Resource struct {
	// Kind is "Instance", "Attestation", "Decision", "Build" or "Policy".
	Kind string
	// ID is that of the thing, and empty for one that is about to be made.
	ID string
	// Attributes are those of the schema, by name. Empty ones count as absent;
	// names that the schema lacks are refused.
	Attributes map[string]string
}

// AccessDecision is the answer to an AccessRequest. The zero AccessDecision denies.
type AccessDecision struct {
	Allowed bool
	Code    refusal.Code
	// Message is the reason in words. It holds no attribute of the resource: a
	// denial must not tell what the caller may not read.
	Message string
	// Policies holds the ids of the rules that decided: the permits that applied,
	// or the forbids, or the rules in error; none where no permit applied.
	Policies []string
	// Version identifies the policy, as Access.Version.
	Version string
}

// Access is a compiled access policy. It does not change and may be used by any
// number of goroutines at once. The zero Access denies everything: EMPTY_POLICY.
type Access struct {
	version string
	rules   ruleList
	named   names
	actions map[string]*accessAction
}

// accessAction is what is worked out once for an action.
type accessAction struct {
	uid       types.EntityUID
	resources map[types.EntityType]map[types.String]bool // attribute names, by kind
	rules     ruleList                                   // those whose scope has the action
}

// CompileAccess checks an access policy and makes it ready to decide. Its rules
// are held to what Compile holds deploy policies to: known attributes only, a
// guard before each optional one, @id and @message. What it does not check is
// whether the policy is wise: that depends on who has which role.
func CompileAccess(text []byte) (*Access, error) {
	vocabulary, err := loadSchema("access.cedarschema", accessSchemaText)
	if err != nil {
		return nil, err
	}
	rules, err := compileRules(text, vocabulary)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	a := &Access{
		version: hex.EncodeToString(sum[:]),
		rules:   rules,
		named:   namedBy(rules),
		actions: make(map[string]*accessAction, len(vocabulary.Actions)),
	}
	for uid, action := range vocabulary.Actions {
		a.actions[string(uid.ID)] = newAccessAction(uid, action, vocabulary, rules)
	}
	return a, nil
}

func newAccessAction(uid types.EntityUID, action resolved.Action, vocabulary *resolved.Schema, rules ruleList) *accessAction {
	out := &accessAction{uid: uid, resources: map[types.EntityType]map[types.String]bool{}}
	for _, kind := range action.AppliesTo.Resources {
		attributes := map[types.String]bool{}
		for name := range vocabulary.Entities[kind].Shape {
			attributes[name] = true
		}
		out.resources[kind] = attributes
	}
	for _, r := range rules {
		if inActionScope(r.tree.Action, uid) {
			out.rules = append(out.rules, r)
		}
	}
	return out
}

// inActionScope reports whether a rule may concern an action. A rule whose scope
// names others is not evaluated beyond its scope, so it can neither apply nor end
// in an error, and leaving it out changes nothing.
func inActionScope(scope ast.IsActionScopeNode, action types.EntityUID) bool {
	switch s := scope.(type) {
	case ast.ScopeTypeEq:
		return s.Entity == action
	case ast.ScopeTypeIn:
		return s.Entity == action // the schema has no groups of actions
	case ast.ScopeTypeInSet:
		return slices.Contains(s.Entities, action)
	}
	return true
}

// Version identifies the policy: the lower-case hex SHA-256 of its text.
func (a *Access) Version() string { return a.version }

// Actions lists every action of the schema, sorted.
func Actions() []string {
	vocabulary, err := loadSchema("access.cedarschema", accessSchemaText)
	if err != nil {
		return nil // CompileAccess says what is wrong; the schema is part of the program
	}
	var out []string
	for uid := range vocabulary.Actions {
		out = append(out, string(uid.ID))
	}
	slices.Sort(out)
	return out
}

// Kinds lists the kinds of resource an action applies to, sorted; none for an
// action that does not exist.
func (a *Access) Kinds(action string) []string {
	known := a.actions[action]
	if known == nil {
		return nil
	}
	var out []string
	for kind := range maps.Keys(known.resources) {
		out = append(out, strings.TrimPrefix(string(kind), "Assay::"))
	}
	slices.Sort(out)
	return out
}

// Authorize answers a request. Deny is the answer to whatever it does not understand.
func (a *Access) Authorize(r AccessRequest) AccessDecision {
	if a == nil || len(a.rules) == 0 {
		return AccessDecision{Code: CodeEmptyPolicy, Message: "there is no access policy, so nothing is allowed"}
	}
	action, question, err := a.read(&r)
	if err != nil {
		return AccessDecision{Code: refusal.CodeOf(err), Message: detail(err), Version: a.version}
	}
	decision, why := cedar.Authorize(action.rules, question, types.Request{
		Principal: question.principal.UID,
		Action:    action.uid,
		Resource:  question.resource.UID,
	})
	return a.conclude(&r, action, decision, why)
}

// conclude is the only place that sets Allowed.
func (a *Access) conclude(r *AccessRequest, action *accessAction, decision types.Decision, why cedar.Diagnostic) AccessDecision {
	d := AccessDecision{Code: CodeAccessDenied, Version: a.version}
	switch {
	case len(why.Errors) > 0:
		d.Code = CodeAccessPolicyError
		for _, e := range why.Errors {
			d.Policies = append(d.Policies, string(e.PolicyID))
		}
		d.Message = fmt.Sprintf("access rule %s cannot be evaluated", d.Policies[0])
		return d
	case len(why.Reasons) == 0:
		d.Message = fmt.Sprintf("no rule of the access policy permits %s upon %s to this caller", r.Action, r.Resource.Kind)
		return d
	}
	for _, reason := range why.Reasons {
		d.Policies = append(d.Policies, string(reason.PolicyID))
	}
	for _, rule := range action.rules {
		if rule.id == d.Policies[0] {
			d.Message = rule.message
		}
	}
	d.Code = CodeAccessForbidden
	if decision == types.Allow {
		d.Allowed, d.Code = true, CodeAccessAllowed
	}
	return d
}

// accessQuestion is a request as Cedar sees it, and the entity store of its own evaluation.
type accessQuestion struct{ principal, resource types.Entity }

// Get implements types.EntityGetter.
func (q *accessQuestion) Get(uid types.EntityUID) (types.Entity, bool) {
	switch uid {
	case q.principal.UID:
		return q.principal, true
	case q.resource.UID:
		return q.resource, true
	}
	return types.Entity{}, false
}

// read checks that the schema has what the request speaks of: a request outside
// of it was not what the rules were validated for.
func (a *Access) read(r *AccessRequest) (*accessAction, *accessQuestion, error) {
	action := a.actions[r.Action]
	if action == nil {
		return nil, nil, refusal.New(CodeAccessRequestInvalid, "there is no action %.40q", r.Action)
	}
	kind := types.EntityType("Assay::" + r.Resource.Kind)
	attributes, applies := action.resources[kind]
	if !applies {
		return nil, nil, refusal.New(CodeAccessRequestInvalid, "the action %s does not apply to a resource of kind %.40q", r.Action, r.Resource.Kind)
	}
	principal, err := r.Principal.entity(a.named)
	if err != nil {
		return nil, nil, err
	}
	m := make(types.RecordMap, len(r.Resource.Attributes))
	for name, text := range r.Resource.Attributes {
		switch {
		case !attributes[types.String(name)]:
			return nil, nil, refusal.New(CodeAccessRequestInvalid, "a resource of kind %s has no attribute %.40q", r.Resource.Kind, name)
		case len(text) > MaxFactBytes:
			return nil, nil, refusal.New(CodeFactTooLarge, "the resource's %s has %d bytes; at most %d are accepted", name, len(text), MaxFactBytes)
		case text != "" && a.named.include(types.String(name)):
			m[types.String(name)] = types.String(text)
		}
	}
	return action, &accessQuestion{
		principal: principal,
		resource:  types.Entity{UID: types.NewEntityUID(kind, types.String(r.Resource.ID)), Attributes: types.NewRecord(m)},
	}, nil
}
