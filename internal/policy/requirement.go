package policy

import (
	"bytes"
	"slices"

	cedar "github.com/cedar-policy/cedar-go"
	publicast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
)

// requirement is one thing a rule asks of a request: a conjunct that must hold
// for the rule to be no obstacle.
type requirement struct {
	node ast.IsNode
	text string       // node in Cedar
	read []ast.IsNode // the attributes node looks at, each once
	// first is the attribute that evaluating node comes to before anything else, nil
	// where it starts with something else. If it does not exist, node has no value.
	first ast.IsNode
}

// requirementsOf turns a rule into what it asks for. For a permit that is its
// condition. For a forbid it is the opposite of its condition, without the part
// that selects the environment: the rule "forbid when prod unless level >= 2" asks
// for level >= 2. A forbid that asks for nothing, a closed environment, has none.
func requirementsOf(p *ast.Policy) []requirement {
	condition := conjuncts(nil, normal(eval.PolicyToNode(p).AsIsNode(), false))
	if p.Effect == ast.EffectForbid {
		condition = slices.DeleteFunc(condition, selectsEnvironment)
		if len(condition) == 0 {
			return nil
		}
		var opposites []ast.IsNode
		for _, c := range condition {
			opposites = append(opposites, normal(c, true))
		}
		condition = conjuncts(nil, anyOf(opposites))
		for i, c := range condition {
			condition[i] = withoutGuards(c)
		}
	}
	out := make([]requirement, len(condition))
	for i, c := range condition {
		out[i] = requirement{node: c, text: render(c), read: reads(nil, c), first: firstRead(c)}
	}
	return out
}

// firstRead descends to what every operator evaluates first: its first operand.
func firstRead(n ast.IsNode) ast.IsNode {
	for {
		if _, access := n.(ast.NodeTypeAccess); access {
			if _, ok := pathOf(n); ok {
				return n
			}
		}
		below := children(n)
		if len(below) == 0 {
			return nil
		}
		n = below[0]
	}
}

// normal pushes negations inwards, so that what a rule asks for reads straight:
// !(a && level < 2) becomes !a || level >= 2. The validator has made sure that
// comparisons are of ordered types.
func normal(n ast.IsNode, negate bool) ast.IsNode {
	switch v := n.(type) {
	case ast.NodeTypeNot:
		return normal(v.Arg, !negate)
	case ast.NodeTypeAnd:
		b := ast.BinaryNode{Left: normal(v.Left, negate), Right: normal(v.Right, negate)}
		if negate {
			return ast.NodeTypeOr{BinaryNode: b}
		}
		return ast.NodeTypeAnd{BinaryNode: b}
	case ast.NodeTypeOr:
		b := ast.BinaryNode{Left: normal(v.Left, negate), Right: normal(v.Right, negate)}
		if negate {
			return ast.NodeTypeAnd{BinaryNode: b}
		}
		return ast.NodeTypeOr{BinaryNode: b}
	}
	if !negate {
		return n
	}
	switch v := n.(type) {
	case ast.NodeTypeEquals:
		return ast.NodeTypeNotEquals(v)
	case ast.NodeTypeNotEquals:
		return ast.NodeTypeEquals(v)
	case ast.NodeTypeLessThan:
		return ast.NodeTypeGreaterThanOrEqual(v)
	case ast.NodeTypeLessThanOrEqual:
		return ast.NodeTypeGreaterThan(v)
	case ast.NodeTypeGreaterThan:
		return ast.NodeTypeLessThanOrEqual(v)
	case ast.NodeTypeGreaterThanOrEqual:
		return ast.NodeTypeLessThan(v)
	}
	return ast.NodeTypeNot{UnaryNode: ast.UnaryNode{Arg: n}}
}

func conjuncts(out []ast.IsNode, n ast.IsNode) []ast.IsNode {
	if and, ok := n.(ast.NodeTypeAnd); ok {
		return conjuncts(conjuncts(out, and.Left), and.Right)
	}
	return append(out, n)
}

func disjuncts(out []ast.IsNode, n ast.IsNode) []ast.IsNode {
	if or, ok := n.(ast.NodeTypeOr); ok {
		return disjuncts(disjuncts(out, or.Left), or.Right)
	}
	return append(out, n)
}

func anyOf(nodes []ast.IsNode) ast.IsNode {
	out := nodes[0]
	for _, n := range nodes[1:] {
		out = ast.NodeTypeOr{BinaryNode: ast.BinaryNode{Left: out, Right: n}}
	}
	return out
}

// withoutGuards drops `!(x has y) ||` from what a forbid asks for. Of a rule
// `forbid when resource has x && x > 5` it is true that an artifact without x
// passes, and useless to say: nobody mends a deploy by losing evidence.
func withoutGuards(n ast.IsNode) ast.IsNode {
	rest := slices.DeleteFunc(disjuncts(nil, n), func(d ast.IsNode) bool {
		not, ok := d.(ast.NodeTypeNot)
		if ok {
			_, ok = not.Arg.(ast.NodeTypeHas)
		}
		return ok
	})
	if len(rest) == 0 {
		return n
	}
	return anyOf(rest)
}

// selectsEnvironment reports whether n looks at the environment and the action
// and at nothing else.
func selectsEnvironment(n ast.IsNode) bool {
	for _, r := range reads(nil, n) {
		if p, ok := pathOf(r); !ok || p != environmentPath && p != newPath("action") {
			return false
		}
	}
	return true
}

// reads collects the attributes that n looks at or asks for, in order, each once.
func reads(out []ast.IsNode, n ast.IsNode) []ast.IsNode {
	if has, ok := n.(ast.NodeTypeHas); ok {
		n = ast.NodeTypeAccess(has)
	}
	if p, ok := pathOf(n); ok {
		for _, seen := range out {
			if q, _ := pathOf(seen); p == q {
				return out
			}
		}
		return append(out, n)
	}
	for _, child := range children(n) {
		out = reads(out, child)
	}
	return out
}

// render writes an expression in Cedar. cedar-go exports no printer for
// expressions, only one for policies.
func render(n ast.IsNode) string {
	p := ast.Permit().When(ast.NewNode(n))
	text := cedar.NewPolicyFromAST((*publicast.Policy)(p)).MarshalCedar()
	_, text, _ = bytes.Cut(text, []byte("when { "))
	return string(bytes.TrimSuffix(text, []byte(" };")))
}
