package policy

import (
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
)

// This file answers questions about all requests at once: may this rule fire for
// an artifact without evidence, whoever asks, whenever, about whatever digest?
// It evaluates a condition in a world where some values are known, some
// attributes are known to be absent, and nothing is known of the rest. What it
// says may happen might not; what it says cannot happen, cannot. Every check
// built on it errs on the side of refusing.

// truth is what may come of evaluating a condition. Neither means that it can
// only end in an error.
type truth struct{ yes, no bool }

var (
	either = truth{yes: true, no: true}
	never  = truth{}
)

func exactly(b bool) truth { return truth{yes: b, no: !b} }

// world is what is known.
type world struct {
	// values holds attributes whose value is known.
	values map[path]types.Value
	// elsewhere holds selectors whose value is one that no rule names.
	elsewhere map[path]bool
	// absent reports whether an attribute does not exist, and present whether it
	// does. Neither: it is not known.
	absent, present func(path) bool
}

func nothing(path) bool { return false }

// openWorld is one in which nothing is known but what every question has in
// common: the action, and the types of principal and resource.
func openWorld() world {
	return world{
		values: map[path]types.Value{newPath("action"): deploy()},
		absent: nothing, present: nothing,
	}
}

func deploy() types.EntityUID { return types.NewEntityUID(actionType, deployID) }

// pathOf returns the path of an attribute access, and false for other nodes.
func pathOf(n ast.IsNode) (path, bool) {
	switch v := n.(type) {
	case ast.NodeTypeVariable:
		return newPath(v.Name), true
	case ast.NodeTypeAccess:
		if p, ok := pathOf(v.Arg); ok {
			return p.child(v.Value), true
		}
	}
	return "", false
}

// judge evaluates a condition in w.
func (w *world) judge(n ast.IsNode) truth {
	switch v := n.(type) {
	case ast.NodeTypeAnd:
		l, r := w.judge(v.Left), w.judge(v.Right)
		return truth{yes: l.yes && r.yes, no: l.no || l.yes && r.no}
	case ast.NodeTypeOr:
		l, r := w.judge(v.Left), w.judge(v.Right)
		return truth{yes: l.yes || l.no && r.yes, no: l.no && r.no}
	case ast.NodeTypeNot:
		t := w.judge(v.Arg)
		return truth{yes: t.no, no: t.yes}
	case ast.NodeTypeIfThenElse:
		c, a, b := w.judge(v.If), w.judge(v.Then), w.judge(v.Else)
		return truth{yes: c.yes && a.yes || c.no && b.yes, no: c.yes && a.no || c.no && b.no}
	case ast.NodeTypeHas:
		return w.judgeHas(v)
	}
	if w.fails(n) {
		return never
	}
	if s, ok := selectionOf(n); ok && w.elsewhere[s.on] {
		return exactly(s.negated)
	}
	if value, ok := w.resolve(n); ok {
		if b, ok := value.(types.Boolean); ok {
			return exactly(bool(b))
		}
	}
	return either
}

func (w *world) judgeHas(v ast.NodeTypeHas) truth {
	if w.fails(v.Arg) {
		return never
	}
	p, ok := pathOf(v.Arg)
	if !ok {
		return either
	}
	p = p.child(v.Value)
	switch {
	case w.absent(p):
		return exactly(false)
	case w.present(p):
		return exactly(true)
	}
	return either
}

// fails reports whether evaluating n can only end in an error, because it reads
// an attribute that does not exist.
func (w *world) fails(n ast.IsNode) bool {
	switch v := n.(type) {
	case ast.NodeTypeAccess:
		if p, ok := pathOf(v); ok && w.absent(p) {
			return true
		}
		return w.fails(v.Arg)
	case ast.NodeTypeAnd:
		return w.fails(v.Left)
	case ast.NodeTypeOr:
		return w.fails(v.Left)
	case ast.NodeTypeIfThenElse:
		return w.fails(v.If)
	}
	for _, child := range children(n) {
		if w.fails(child) {
			return true
		}
	}
	return false
}

// resolve returns the value of n where that is known.
func (w *world) resolve(n ast.IsNode) (types.Value, bool) {
	switch v := n.(type) {
	case ast.NodeValue:
		return v.Value, true
	case ast.NodeTypeVariable, ast.NodeTypeAccess:
		p, ok := pathOf(v)
		if !ok {
			return nil, false
		}
		value, ok := w.values[p]
		return value, ok
	case ast.NodeTypeIs:
		switch v.Left {
		case ast.NodeTypeVariable{Name: "principal"}:
			return types.Boolean(v.EntityType == callerType), true
		case ast.NodeTypeVariable{Name: "resource"}:
			return types.Boolean(v.EntityType == artifactType), true
		}
		return nil, false
	case ast.NodeTypeSet:
		values := make([]types.Value, len(v.Elements))
		for i, element := range v.Elements {
			value, ok := w.resolve(element)
			if !ok {
				return nil, false
			}
			values[i] = value
		}
		return types.NewSet(values...), true
	case ast.NodeTypeLike:
		return w.resolveLike(v)
	case ast.NodeTypeEquals:
		return w.apply(v.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeEquals{BinaryNode: b} })
	case ast.NodeTypeNotEquals:
		return w.apply(v.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeNotEquals{BinaryNode: b} })
	case ast.NodeTypeLessThan:
		return w.apply(v.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeLessThan{BinaryNode: b} })
	case ast.NodeTypeLessThanOrEqual:
		return w.apply(v.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeLessThanOrEqual{BinaryNode: b} })
	case ast.NodeTypeGreaterThan:
		return w.apply(v.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeGreaterThan{BinaryNode: b} })
	case ast.NodeTypeGreaterThanOrEqual:
		return w.apply(v.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeGreaterThanOrEqual{BinaryNode: b} })
	case ast.NodeTypeContains:
		return w.apply(v.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeContains{BinaryNode: b} })
	}
	return nil, false
}

func (w *world) resolveLike(v ast.NodeTypeLike) (types.Value, bool) {
	value, ok := w.resolve(v.Arg)
	if !ok {
		return nil, false
	}
	text, ok := value.(types.String)
	return types.Boolean(v.Value.Match(text)), ok
}

// apply evaluates an operator over two known values with Cedar's own evaluator.
func (w *world) apply(b ast.BinaryNode, wrap func(ast.BinaryNode) ast.IsNode) (types.Value, bool) {
	left, ok := w.resolve(b.Left)
	if !ok {
		return nil, false
	}
	right, ok := w.resolve(b.Right)
	if !ok {
		return nil, false
	}
	value, err := eval.Eval(wrap(ast.BinaryNode{Left: ast.NodeValue{Value: left}, Right: ast.NodeValue{Value: right}}), eval.Env{})
	return value, err == nil
}

// children returns the direct sub-expressions of n.
func children(n ast.IsNode) []ast.IsNode {
	var out []ast.IsNode
	top := true
	ast.Inspect(ast.NewNode(n), func(m ast.IsNode) bool {
		if top {
			top = false
			return true
		}
		out = append(out, m)
		return false
	})
	return out
}

// Paths that have a meaning of their own. environmentPath and kindPath are the selectors: attributes that a request
// always has and that rules compare with a few literals. The checks go through
// their values one by one.
const (
	environmentPath path = "context\x00environment"
	kindPath        path = "principal\x00kind"
	resourcePath    path = "resource"
	provenancePath  path = "resource\x00provenance"
	sbomPath        path = "resource\x00sbom"
	claimedSBOMPath path = "resource\x00claimedSbom"
	signerPath      path = "resource\x00signer"
)

// selection is a comparison of a selector with literals.
type selection struct {
	on      path
	names   []types.String
	negated bool
}

// selectionOf recognises context.environment == "a", != "a" and
// ["a", "b"].contains(context.environment). Of a value that is none of the names
// it knows the outcome; of every other form the checks assume nothing.
func selectionOf(n ast.IsNode) (selection, bool) {
	switch v := n.(type) {
	case ast.NodeTypeEquals:
		return equality(v.BinaryNode, false)
	case ast.NodeTypeNotEquals:
		return equality(v.BinaryNode, true)
	case ast.NodeTypeContains:
		set, ok := v.Left.(ast.NodeTypeSet)
		on, selects := selector(v.Right)
		if !ok || !selects {
			return selection{}, false
		}
		s := selection{on: on}
		for _, element := range set.Elements {
			name, ok := literal(element)
			if !ok {
				return selection{}, false
			}
			s.names = append(s.names, name)
		}
		return s, true
	}
	return selection{}, false
}

func equality(b ast.BinaryNode, negated bool) (selection, bool) {
	for _, sides := range [2][2]ast.IsNode{{b.Left, b.Right}, {b.Right, b.Left}} {
		on, selects := selector(sides[0])
		if name, ok := literal(sides[1]); ok && selects {
			return selection{on: on, names: []types.String{name}, negated: negated}, true
		}
	}
	return selection{}, false
}

func selector(n ast.IsNode) (path, bool) {
	p, ok := pathOf(n)
	return p, ok && (p == environmentPath || p == kindPath)
}

func literal(n ast.IsNode) (types.String, bool) {
	v, ok := n.(ast.NodeValue)
	if !ok {
		return "", false
	}
	name, ok := v.Value.(types.String)
	return name, ok
}
