package scan

import (
	"slices"
)

// lockGraph holds the packages of one lock file and what they depend on.
type lockGraph struct{ nodes []*lockNode }

// lockNode is one entry of a lock.
type lockNode struct {
	// pkg is nil for the project's own members, which a lock lists beside what they use.
	pkg   *pkg
	edges []lockEdge
	scope string
}

type lockEdge struct {
	to       *lockNode
	optional bool // the dependent runs without it
}

// add makes a node. It is kept even without a package, to lead on to others.
func (g *lockGraph) add(p *pkg) *lockNode {
	n := &lockNode{pkg: p}
	g.nodes = append(g.nodes, n)
	return n
}

// link adds an edge; to may be nil, for a dependency that the lock does not have.
func (n *lockNode) link(to *lockNode, optional bool) {
	if to != nil && to != n {
		n.edges = append(n.edges, lockEdge{to: to, optional: optional})
	}
}

// lockRoots is what the project itself asks for.
type lockRoots struct{ required, optional, dev []*lockNode }

// markDirect notes what the project asks for by name. A member of the project is not a
// package: what it asks for is asked for by the project.
func (r *lockRoots) markDirect() {
	for _, list := range [][]*lockNode{r.required, r.optional, r.dev} {
		for _, n := range list {
			if n.pkg != nil {
				n.pkg.direct = true
			}
		}
	}
}

// mark gives every node a scope by the best way that leads to it: required by required
// edges alone, optional where some edge of the way is, excluded where only development
// dependencies lead there. A node that nothing leads to keeps an empty scope.
func (g *lockGraph) mark(r lockRoots) {
	g.sweep(r.required, scopeRequired)
	optional := slices.Clone(r.optional)
	for _, n := range g.nodes {
		if n.scope != scopeRequired {
			continue
		}
		for _, e := range n.edges {
			if e.optional {
				optional = append(optional, e.to)
			}
		}
	}
	g.sweep(optional, scopeOptional)
	g.sweep(r.dev, scopeExcluded)
}

// sweep gives scope to all that can be reached and has none.
func (g *lockGraph) sweep(from []*lockNode, scope string) {
	todo := slices.Clone(from)
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if n.scope != "" {
			continue
		}
		n.scope = scope
		for _, e := range n.edges {
			if scope != scopeRequired || !e.optional {
				todo = append(todo, e.to)
			}
		}
	}
}

// packages turns the graph into findings at path.
func (g *lockGraph) packages(path string) []*pkg {
	var out []*pkg
	for _, n := range g.nodes {
		if n.pkg == nil {
			continue
		}
		n.pkg.path = path
		if n.pkg.Scope == "" {
			n.pkg.Scope = n.scope
		}
		for _, e := range n.edges {
			if e.to.pkg != nil && e.to.pkg.PURL != n.pkg.PURL {
				n.pkg.DependsOn = append(n.pkg.DependsOn, e.to.pkg.PURL)
			}
		}
		n.pkg.DependsOn = sortedUnique(n.pkg.DependsOn)
		out = append(out, n.pkg)
	}
	return out
}
