package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/assay-build/assay/internal/refusal"
)

// CodePolicyVacuous: the set might allow an artifact that nothing is known of.
const CodePolicyVacuous refusal.Code = "POLICY_VACUOUS"

// checkVacuity refuses a set that might allow an artifact without any evidence.
// It goes through every environment and kind of caller that the rules name, and
// one of each that they do not, and leaves everything else about the request
// open. A permit counts as soon as it may hold, a forbid only where it must: so
// "permit all, forbid unless attested" passes, and a forbid that hangs on who
// asks does not save a permit that does not.
func (s *Set) checkVacuity(v *vocabulary) error {
	kinds := s.kinds()
	if len(kinds) > maxKinds {
		return refusal.New(CodePolicyTooLarge, "the policy set names %d kinds of caller; at most %d are accepted", len(kinds), maxKinds)
	}
	// Most sets are sound without telling environments apart.
	open := openWorld()
	open.absent = v.isEvidence
	if s.mayAllow(&open) == nil {
		return nil
	}
	return s.eachSelection(kinds, func(w world, where string) error {
		w.absent = v.isEvidence
		if r := s.mayAllow(&w); r != nil {
			return refusal.New(CodePolicyVacuous,
				"rule %s (line %d) might allow an artifact without any attestation in %s; add a condition such as `resource has provenance && resource.provenance.trusted`",
				r.id, r.line, where)
		}
		return nil
	})
}

// isEvidence reports whether an attribute exists only where evidence does.
func (v *vocabulary) isEvidence(p path) bool {
	for p != "" {
		if v.evidence[p] {
			return true
		}
		p = p[:max(0, strings.LastIndexByte(string(p), 0))]
	}
	return false
}

// mayAllow returns a permit that may decide in w, nil where the answer is always deny.
func (s *Set) mayAllow(w *world) *rule {
	var permit *rule
	for _, r := range s.rules {
		t := w.judge(r.condition)
		if r.effect == Forbid && !t.no {
			return nil // it fires, or ends in an error, which denies as well
		}
		if r.effect == Permit && t.yes && permit == nil {
			permit = r
		}
	}
	return permit
}

// eachSelection calls f with a world for every combination of environment and
// kind of caller that the rules can tell apart. Index -1 is the one that no rule
// names.
func (s *Set) eachSelection(kinds []string, f func(world, string) error) error {
	for i := -1; i < len(s.names); i++ {
		for k := -1; k < len(kinds); k++ {
			w := openWorld()
			w.elsewhere = map[path]bool{}
			where := w.choose(environmentPath, s.names, i, "environment")
			if len(kinds) > 0 {
				where += " for " + w.choose(kindPath, kinds, k, "kind of caller")
			}
			if err := f(w, where); err != nil {
				return err
			}
		}
	}
	return nil
}

// choose fixes a selector to a value that the rules name, or to one they do not.
func (w *world) choose(p path, names []string, i int, what string) string {
	if i < 0 {
		w.elsewhere[p] = true
		return "an unnamed " + what
	}
	w.values[p] = types.String(names[i])
	return fmt.Sprintf("%s %q", what, names[i])
}

// kinds collects the kinds of caller that the rules name.
func (s *Set) kinds() []string {
	names := map[string]bool{}
	for _, r := range s.rules {
		ast.Inspect(ast.NewNode(r.condition), func(n ast.IsNode) bool {
			if found, ok := selectionOf(n); ok && found.on == kindPath {
				for _, name := range found.names {
					names[string(name)] = true
				}
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(names))
}

// lint flags what is probably not meant. None of it makes the set unsafe in the
// way Compile promises, and each may be intended.
func (s *Set) lint(v *vocabulary) []string {
	var out []string
	for _, r := range s.rules {
		out = append(out, r.lint(v)...)
	}
	untrusted := openWorld()
	untrusted.values["resource\x00provenance\x00trusted"] = types.Boolean(false)
	untrusted.values["resource\x00provenance\x00slsaBuildLevel"] = types.Long(0)
	if r := s.mayAllow(&untrusted); r != nil {
		out = append(out, fmt.Sprintf(
			"rule %s (line %d) may rest on provenance whose builder this service does not know; add `resource.provenance.trusted`", r.id, r.line))
	}
	return out
}

func (r *rule) lint(v *vocabulary) []string {
	open := openWorld()
	if !open.judge(r.condition).yes {
		return []string{fmt.Sprintf("rule %s (line %d) can never apply", r.id, r.line)}
	}
	var out []string
	for _, guard := range guards(nil, r.condition, true) {
		if !v.evidence[guard.on] {
			continue
		}
		without := openWorld()
		without.absent = func(p path) bool { return p.under(guard.on) }
		without.present = func(p path) bool { return p != guard.on && guard.on.under(p) }
		mayFire := without.judge(r.condition).yes
		switch {
		case r.effect == Forbid && !mayFire:
			out = append(out, fmt.Sprintf(
				"rule %s (line %d) goes quiet where %s is missing; if the evidence is required, write `forbid … unless { … }` with the opposite condition",
				r.id, r.line, guard.on))
		case r.effect == Permit && mayFire && !guard.positive:
			out = append(out, fmt.Sprintf(
				"rule %s (line %d) also permits where %s is missing; if the evidence is required, ask for it with `has`", r.id, r.line, guard.on))
		}
	}
	return slices.Compact(out)
}

// guard is one `has` of a condition. Under an odd number of negations it is not
// positive: then the attribute's absence makes the condition hold.
type guard struct {
	on       path
	positive bool
}

func guards(out []guard, n ast.IsNode, positive bool) []guard {
	switch v := n.(type) {
	case ast.NodeTypeHas:
		if p, ok := pathOf(v.Arg); ok {
			out = append(out, guard{on: p.child(v.Value), positive: positive})
		}
		return out
	case ast.NodeTypeNot:
		return guards(out, v.Arg, !positive)
	}
	for _, child := range children(n) {
		out = guards(out, child, positive)
	}
	return out
}
