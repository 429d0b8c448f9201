package check

import (
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// graph holds the elements of a document by the references that name them, and what
// depends on what. References are numbered: a large document repeats each many times.
type graph struct {
	ids   map[string]int32
	nodes []node
	edges []edge
}

type node struct {
	ref     string
	defined bool
	// component is the index of its component in the inventory, or none.
	component int32
}

const none = -1

// edge is one dependency. Its position in the document is kept for refusals.
type edge struct{ from, to, position int32 }

func newGraph() *graph { return &graph{ids: map[string]int32{}} }

// id numbers a reference.
func (g *graph) id(ref string) int32 {
	if id, ok := g.ids[ref]; ok {
		return id
	}
	id := int32(len(g.nodes)) //nolint:gosec // fewer references than the document has bytes
	g.ids[ref] = id
	g.nodes = append(g.nodes, node{ref: ref, component: none})
	return id
}

// define notes that an element with this reference is there, and reports whether it
// is the first.
func (g *graph) define(ref string) bool {
	n := &g.nodes[g.id(ref)]
	first := !n.defined
	n.defined = true
	return first
}

// connect puts the edges into the components, and finds the root: what the subject
// depends on, or, where nothing says that, what nobody depends on. Components without
// a package URL cannot be named, and are left out of both.
func (g *graph) connect(inv *sbom.Inventory, subject int32) {
	needed := make([]bool, len(g.nodes))
	for _, e := range g.edges {
		purl := g.purl(inv, e.to)
		if purl == "" || e.from == e.to {
			continue
		}
		if e.from == subject {
			inv.Root = append(inv.Root, purl)
		}
		if from := g.nodes[e.from].component; from != none {
			inv.Components[from].DependsOn = append(inv.Components[from].DependsOn, purl)
		}
		needed[e.to] = true
	}
	if len(inv.Root) > 0 {
		return
	}
	for id := range g.nodes {
		if purl := g.purl(inv, int32(id)); purl != "" && !needed[id] && int32(id) != subject { //nolint:gosec // see id
			inv.Root = append(inv.Root, purl)
		}
	}
}

func (g *graph) purl(inv *sbom.Inventory, id int32) string {
	if id == none || g.nodes[id].component == none {
		return ""
	}
	return inv.Components[g.nodes[id].component].PURL
}

// canonicalPURL is the form in which an inventory names a component: without subpath.
func canonicalPURL(s string) (string, error) {
	p, err := sbom.ParsePURL(s)
	if err != nil {
		return "", err
	}
	p.Subpath = ""
	return p.String(), nil
}

// binding is what the digests that a document states of its subject say.
type binding int

const (
	unstated binding = iota
	same
	different
)

// compare judges one stated digest. Algorithms that Want does not know say nothing.
func (w Want) compare(algorithm, value string) binding {
	var want string
	switch algorithm {
	case "SHA-256", "SHA256":
		want = w.SHA256
	case "SHA-512", "SHA512":
		want = w.SHA512
	}
	switch {
	case want == "":
		return unstated
	case strings.EqualFold(want, value):
		return same
	}
	return different
}

// The accessors below read values that a schema has accepted: a member of another type
// than expected cannot be, and counts as absent.

func object(v any) map[string]any {
	obj, _ := v.(map[string]any)
	return obj
}

func array(v any) []any {
	arr, _ := v.([]any)
	return arr
}

func text(v any) string {
	s, _ := v.(string)
	return s
}
