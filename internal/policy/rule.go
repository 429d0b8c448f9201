package policy

import (
	"regexp"
	"strings"
	"unicode/utf8"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"

	"github.com/assay-build/assay/internal/refusal"
)

// Codes of a rule whose annotations are refused.
const (
	CodePolicyIDMissing         refusal.Code = "POLICY_ID_MISSING"
	CodePolicyIDInvalid         refusal.Code = "POLICY_ID_INVALID"
	CodePolicyIDDuplicate       refusal.Code = "POLICY_ID_DUPLICATE"
	CodePolicyMessageMissing    refusal.Code = "POLICY_MESSAGE_MISSING"
	CodePolicyAnnotationInvalid refusal.Code = "POLICY_ANNOTATION_INVALID"
	CodePolicyAnnotationUnknown refusal.Code = "POLICY_ANNOTATION_UNKNOWN"
)

// Effect is what a rule does when its condition holds.
type Effect string

// The two effects of Cedar.
const (
	Permit Effect = "permit"
	Forbid Effect = "forbid"
)

// rule is one policy of the set, with what is worked out once.
type rule struct {
	id, message, remedy string
	effect              Effect
	line                int

	policy       *cedar.Policy
	tree         *ast.Policy
	condition    ast.IsNode // scope and conditions as one expression
	requirements []requirement
}

// newRule reads the annotations of a parsed policy. Unknown ones are refused:
// Cedar ignores them, and a misspelt @remedy would be lost without a word.
func newRule(p *cedar.Policy, ids *regexp.Regexp) (*rule, error) {
	r := &rule{policy: p, tree: (*ast.Policy)(p.AST()), line: p.Position().Line, effect: Permit}
	if p.Effect() == types.Forbid {
		r.effect = Forbid
	}
	for key, value := range p.Annotations() {
		text := string(value)
		switch key {
		case "id":
			r.id = text
		case "message":
			r.message = text
		case "remedy":
			r.remedy = text
		default:
			return nil, refusal.New(CodePolicyAnnotationUnknown, "line %d: @%s; known are @id, @message and @remedy", r.line, key)
		}
		if err := checkAnnotation(r.line, string(key), text); err != nil {
			return nil, err
		}
	}
	switch {
	case r.id == "":
		return nil, refusal.New(CodePolicyIDMissing, "line %d: the rule has no @id", r.line)
	case !ids.MatchString(r.id):
		return nil, refusal.New(CodePolicyIDInvalid, "line %d: @id(%q); want 1 to %d letters, digits, '.', '_', '/' or '-'", r.line, r.id, maxIDBytes)
	case r.message == "":
		return nil, refusal.New(CodePolicyMessageMissing, "line %d: rule %s has no @message", r.line, r.id)
	}
	return r, nil
}

// checkAnnotation holds texts to what a terminal, a log line and a web page show alike.
func checkAnnotation(line int, key, text string) error {
	switch {
	case len(text) > maxTextBytes:
		return refusal.New(CodePolicyAnnotationInvalid, "line %d: @%s has %d bytes; at most %d are accepted", line, key, len(text), maxTextBytes)
	case !utf8.ValidString(text) || strings.IndexFunc(text, func(r rune) bool { return !visible(r) }) >= 0:
		return refusal.New(CodePolicyAnnotationInvalid, "line %d: @%s has an invisible character", line, key)
	}
	return nil
}

// prepare works out what a rule asks for. It comes after validation, which makes
// sure of the types.
func (r *rule) prepare() {
	r.condition = eval.PolicyToNode(r.tree).AsIsNode()
	r.requirements = requirementsOf(r.tree)
}

// speaksIn reports whether the rule can fire in an environment.
func (r *rule) speaksIn(environment string) bool {
	w := openWorld()
	w.values[environmentPath] = types.String(environment)
	return w.judge(r.condition).yes
}
