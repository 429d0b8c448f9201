package policy

import (
	"fmt"
	"slices"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"

	"github.com/assay-build/assay/internal/refusal"
)

// Bounds of what an explanation quotes.
const (
	maxValueBytes = 256
	maxFoundBytes = 2 << 10
)

// conclude makes a denial with its explanation: each rule that can fire in the
// environment, and of each that stands in the way, each conjunct that does not hold.
// why is what came of evaluating all rules.
func (s *Set) conclude(q *Question, r *request, why cedar.Diagnostic, code refusal.Code) Decision {
	d := Decision{Code: code, PolicyVersion: s.version}
	d.use(q, r)
	permitted := false
	speaking := s.rulesFor(q.Environment)
	failed := errorsOf(why)
	for i, rule := range s.rules {
		message, inError := failed[rule.id]
		// A rule about another environment is left out, unless it is in error: that denies too.
		if !inError && !slices.Contains(speaking, i) {
			continue
		}
		result := rule.result(!inError && rule.satisfied(r, why))
		if inError {
			result.Error = clip(message, maxFoundBytes)
		}
		if !result.Satisfied {
			result.Expected, result.Found = rule.unmet(r)
		}
		permitted = permitted || result.Effect == Permit && result.Satisfied
		d.Rules = append(d.Rules, result)
	}
	d.Message = d.summary(q, permitted)
	return d
}

// errorsOf returns the messages of the rules that could not be evaluated, by id.
func errorsOf(why cedar.Diagnostic) map[string]string {
	var out map[string]string
	for _, e := range why.Errors {
		if out == nil {
			out = make(map[string]string, len(why.Errors))
		}
		out[string(e.PolicyID)] = e.Message
	}
	return out
}

// satisfied reports whether a rule without error is no obstacle to r. Of the rules
// that apply Cedar names the forbids, and the permits only where no forbid applies.
func (r *rule) satisfied(req *request, why cedar.Diagnostic) bool {
	applies := slices.ContainsFunc(why.Reasons, func(reason types.DiagnosticReason) bool { return string(reason.PolicyID) == r.id })
	if r.effect == Forbid {
		return !applies
	}
	if applies || len(why.Reasons) == 0 {
		return applies
	}
	decision, _ := cedar.Authorize(ruleList{r}, req, req.cedar())
	return decision == types.Allow
}

func (r *request) env() eval.Env {
	c := r.cedar()
	return eval.Env{Entities: r, Principal: c.Principal, Action: c.Action, Resource: c.Resource, Context: c.Context}
}

// unmet lists the requirements that do not hold, and the values they looked at.
// A requirement that cannot be evaluated because an earlier one, its guard, does
// not hold would repeat it and is left out.
func (r *rule) unmet(req *request) (expected, found string) {
	if len(r.requirements) == 0 {
		return "nothing can satisfy this rule", ""
	}
	env := req.env()
	var failed []requirement
	var read []ast.IsNode
	for _, q := range r.requirements {
		if len(failed) > 0 && q.first != nil {
			if _, found := req.at(q.first); !found {
				continue // as below, without the error
			}
		}
		value, err := eval.Eval(q.node, env)
		if holds, ok := value.(types.Boolean); err == nil && ok && bool(holds) {
			continue
		}
		if err != nil && len(failed) > 0 {
			continue
		}
		failed = append(failed, q)
		for _, n := range q.read {
			read = reads(read, n)
		}
	}
	values := make([]string, 0, len(read))
	for i, n := range read {
		if !looksInside(read, i) {
			values = append(values, req.describe(n))
		}
	}
	return allOf(failed), clip(strings.Join(values, ", "), maxFoundBytes)
}

// looksInside reports whether another attribute of the list is part of the i-th.
// What that is says that the i-th is there, too.
func looksInside(read []ast.IsNode, i int) bool {
	p, _ := pathOf(read[i])
	return slices.ContainsFunc(read, func(n ast.IsNode) bool {
		q, _ := pathOf(n)
		return q != p && q.under(p)
	})
}

// allOf writes requirements as one expression.
func allOf(list []requirement) string {
	if len(list) == 1 {
		return list[0].text
	}
	var b strings.Builder
	for i, q := range list {
		if i > 0 {
			b.WriteString(" && ")
		}
		switch q.node.(type) {
		case ast.NodeTypeOr, ast.NodeTypeIfThenElse:
			b.WriteString("(" + q.text + ")")
		default:
			b.WriteString(q.text)
		}
	}
	return b.String()
}

// describe says what an attribute is: its value, or that it, or what it would be
// part of, does not exist.
func (r *request) describe(n ast.IsNode) string {
	p, _ := pathOf(n)
	value, found := r.at(n)
	switch _, record := value.(types.Record); {
	case found && record:
		return p.String() + " is present"
	case found:
		return p.String() + " = " + clip(string(value.MarshalCedar()), maxValueBytes)
	}
	if access, ok := n.(ast.NodeTypeAccess); ok {
		if _, found := r.at(access.Arg); !found {
			return r.describe(access.Arg)
		}
	}
	return p.String() + " is absent"
}

// at returns the value of a variable or an attribute. Cedar's evaluator would do, but
// it writes an error for each that does not exist, at many times the cost.
func (r *request) at(n ast.IsNode) (types.Value, bool) {
	switch v := n.(type) {
	case ast.NodeTypeVariable:
		switch v.Name {
		case "principal":
			return r.principal.UID, true
		case "action":
			return deploy(), true
		case "resource":
			return r.artifact.UID, true
		case "context":
			return r.context, true
		}
	case ast.NodeTypeAccess:
		of, _ := r.at(v.Arg)
		switch of := of.(type) {
		case types.EntityUID:
			entity, _ := r.Get(of)
			return entity.Attributes.Get(v.Value)
		case types.Record:
			return of.Get(v.Value)
		}
	}
	return nil, false
}

// summary is the reason in words: the first rule that stands in the way, what
// was found, how to mend it, and how many more there are.
func (d *Decision) summary(q *Question, permitted bool) string {
	var first *RuleResult
	others := []string{}
	for i := range d.Rules {
		rule := &d.Rules[i]
		// Where one permit applies, the others are alternatives nobody needs.
		if rule.Satisfied || rule.Effect == Permit && permitted && rule.Error == "" {
			continue
		}
		if first == nil || first.Error == "" && rule.Error != "" {
			if first != nil {
				others = append(others, first.ID)
			}
			first = rule
			continue
		}
		others = append(others, rule.ID)
	}
	var b strings.Builder
	switch {
	case d.Code == CodeNoAttestation:
		fmt.Fprintf(&b, "nobody attested sha256:%s", q.Subject.Digest["sha256"])
	case d.Code == CodeNoMatchingAttestation:
		fmt.Fprintf(&b, "none of the attestations of sha256:%s is build provenance", q.Subject.Digest["sha256"])
	case first == nil:
		return "no rule permits it in " + q.Environment
	case first.Error != "":
		fmt.Fprintf(&b, "rule %s cannot be evaluated: %s", first.ID, first.Error)
	default:
		b.WriteString(first.Message)
		if first.Found != "" {
			b.WriteString("; found " + first.Found)
		}
	}
	if first != nil && first.Remedy != "" {
		b.WriteString("; to mend it: " + first.Remedy)
	}
	if len(others) > 0 && first.Error == "" && d.Code != CodeNoAttestation {
		fmt.Fprintf(&b, " (also unmet: %s)", strings.Join(others, ", "))
	}
	return b.String()
}

// clip shortens text to at most n bytes, at a character, and says so.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + "…"
}
