package scan

import (
	"cmp"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// merger puts what several files say of one package together while a scan runs, so that
// memory follows the packages and not the findings. Inventory.Normalize has the last word.
type merger struct {
	max    int
	byPURL map[string]*entry
	// full: a package was left out, since there are as many as may be.
	full bool
}

type entry struct {
	sbom.Component
	direct bool
}

func newMerger(limit int) *merger { return &merger{max: limit, byPURL: make(map[string]*entry)} }

// add merges one finding. It reports whether the finding was a package at all.
func (m *merger) add(k *pkg) bool {
	c := &k.Component
	if c.PURL == "" || c.Name == "" || len(c.PURL) > sbom.MaxPURLBytes {
		return false
	}
	e := m.byPURL[c.PURL]
	if e == nil {
		if len(m.byPURL) >= m.max {
			m.full = true
			return true
		}
		e = &entry{Component: sbom.Component{PURL: c.PURL, Type: c.Type, Group: c.Group, Name: c.Name, Version: c.Version, Scope: c.Scope}}
		m.byPURL[c.PURL] = e
	} else {
		e.Scope = sbom.StrongerScope(e.Scope, c.Scope)
		e.Type = cmp.Or(e.Type, c.Type)
	}
	e.direct = e.direct || k.direct
	for _, l := range c.Licenses {
		e.Licenses = insert(e.Licenses, l, sbom.MaxLicenses, strings.Compare)
	}
	for _, h := range c.Hashes {
		e.Hashes = insert(e.Hashes, h, sbom.MaxHashes, compareHashes)
	}
	for _, l := range append(c.Locations, k.path) {
		if l != "" {
			e.Locations = insert(e.Locations, l, sbom.MaxLocations, strings.Compare)
		}
	}
	for _, purl := range c.DependsOn {
		e.DependsOn = addEdge(e.DependsOn, purl)
	}
	return true
}

// finish writes the components, their edges and the root's into the inventory.
func (m *merger) finish(inv *sbom.Inventory) {
	inv.Components = make([]sbom.Component, 0, len(m.byPURL))
	for _, e := range m.byPURL {
		inv.Components = append(inv.Components, e.Component)
	}
	inv.Normalize()
	inv.Root = m.root(inv.Components)
}

// root is what the artifact depends on: what it asks for itself, what nobody else
// brings in, and one of every circle that nothing else leads to. From it, every
// component can be reached.
func (m *merger) root(components []sbom.Component) []string {
	g := graph{at: make(map[string]int, len(components)), components: components, reached: make([]bool, len(components))}
	needed := make(map[string]bool, len(components))
	for i := range components {
		g.at[components[i].PURL] = i
		for _, p := range components[i].DependsOn {
			needed[p] = true
		}
	}
	var root []string
	for i := range components {
		p := components[i].PURL
		if e := m.byPURL[p]; (e != nil && e.direct) || !needed[p] {
			root = append(root, p)
			g.reach(i)
		}
	}
	for i := range components {
		if !g.reached[i] {
			root = append(root, components[i].PURL)
			g.reach(i)
		}
	}
	slices.Sort(root)
	return root
}

// graph is the components with their edges.
type graph struct {
	components []sbom.Component
	at         map[string]int
	reached    []bool
}

// reach marks all that a component leads to.
func (g *graph) reach(i int) {
	todo := []int{i}
	for len(todo) > 0 {
		i, todo = todo[len(todo)-1], todo[:len(todo)-1]
		if g.reached[i] {
			continue
		}
		g.reached[i] = true
		for _, p := range g.components[i].DependsOn {
			todo = append(todo, g.at[p])
		}
	}
}

// insert keeps a list in order, each once, and its first n.
func insert[T any](list []T, v T, n int, compare func(a, b T) int) []T {
	i, there := slices.BinarySearchFunc(list, v, compare)
	if there || i >= n {
		return list
	}
	list = slices.Insert(list, i, v)
	return list[:min(len(list), n)]
}

func compareHashes(a, b sbom.Hash) int {
	return cmp.Or(strings.Compare(a.Algorithm, b.Algorithm), strings.Compare(a.Value, b.Value))
}
