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
// environment is evaluated on its own, and of each that stands in the way, each
// conjunct.
func (s *Set) conclude(q *Question, r *request, code refusal.Code) Decision {
	d := Decision{Code: code, PolicyVersion: s.version}
	d.use(q, r)
	env := r.env()
	permitted := false
	speaking := s.rulesFor(q.Environment)
	for i, rule := range s.rules {
		result := rule.explain(r, env)
		// A rule about another environment is left out, unless it is in error: that denies too.
		if result.Error == "" && !slices.Contains(speaking, i) {
			continue
		}
		permitted = permitted || result.Effect == Permit && result.Satisfied
		d.Rules = append(d.Rules, result)
	}
	d.Message = d.summary(q, permitted)
	return d
}

func (r *request) env() eval.Env {
	c := r.cedar()
	return eval.Env{Entities: r, Principal: c.Principal, Action: c.Action, Resource: c.Resource, Context: c.Context}
}

// explain evaluates one rule on its own.
func (r *rule) explain(req *request, env eval.Env) RuleResult {
	_, why := cedar.Authorize(ruleList{r}, req, req.cedar())
	applies := len(why.Reasons) > 0
	out := r.result(applies == (r.effect == Permit))
	switch {
	case len(why.Errors) > 0:
		out.Satisfied = false
		out.Error = clip(why.Errors[0].Message, maxFoundBytes)
	case out.Satisfied:
		return out
	}
	out.Expected, out.Found = r.unmet(env)
	return out
}

// unmet lists the requirements that do not hold, and the values they looked at.
// A requirement that cannot be evaluated because an earlier one, its guard, does
// not hold would repeat it and is left out.
func (r *rule) unmet(env eval.Env) (expected, found string) {
	if len(r.requirements) == 0 {
		return "nothing can satisfy this rule", ""
	}
	var failed []requirement
	var read []ast.IsNode
	for _, q := range r.requirements {
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
			values = append(values, describe(n, env))
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
func describe(n ast.IsNode, env eval.Env) string {
	p, _ := pathOf(n)
	value, err := eval.Eval(n, env)
	if err == nil {
		if _, ok := value.(types.Record); ok {
			return p.String() + " is present"
		}
		return p.String() + " = " + clip(string(value.MarshalCedar()), maxValueBytes)
	}
	if access, ok := n.(ast.NodeTypeAccess); ok {
		if _, err := eval.Eval(access.Arg, env); err != nil {
			return describe(access.Arg, env)
		}
	}
	return p.String() + " is absent"
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
