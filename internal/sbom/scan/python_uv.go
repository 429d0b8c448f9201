package scan

import (
	"context"
	"slices"
)

// uvDependency is one dependency in a uv.lock. Version is set where the lock holds
// several of the name.
type uvDependency struct {
	Name    string   `toml:"name"`
	Version string   `toml:"version"`
	Extra   []string `toml:"extra"`
}

type uvPackage struct {
	Name     string                    `toml:"name"`
	Version  string                    `toml:"version"`
	Source   map[string]any            `toml:"source"`
	Requires []uvDependency            `toml:"dependencies"`
	Optional map[string][]uvDependency `toml:"optional-dependencies"`
	Dev      map[string][]uvDependency `toml:"dev-dependencies"`
	Sdist    lockFile                  `toml:"sdist"`
	Wheels   []lockFile                `toml:"wheels"`
}

// own reports whether the package is a member of the project.
func (e *uvPackage) own() bool {
	for _, kind := range []string{"editable", "virtual", "directory"} {
		if _, ok := e.Source[kind]; ok {
			return true
		}
	}
	return false
}

func readUVLock(_ context.Context, f *file) ([]*pkg, error) {
	var lock struct {
		Package []uvPackage `toml:"package"`
	}
	if err := decodeTOML(f, maxParsedLock, &lock); err != nil {
		return nil, err
	}
	g := newPyLockGraph()
	for i := range lock.Package {
		e := &lock.Package[i]
		var p *pkg
		if !e.own() {
			if p = pythonPkg(e.Name, e.Version); p != nil {
				p.Hashes = onlyHash(fileHashes(append(e.Wheels, e.Sdist)...))
			}
		}
		g.put(e.Name, p)
	}
	linkUV(g, lock.Package)
	var roots lockRoots
	for i := range lock.Package {
		e := &lock.Package[i]
		if !e.own() {
			continue
		}
		roots.required = append(roots.required, g.all(e.Requires)...)
		for _, extra := range sortedKeys(e.Optional) {
			roots.optional = append(roots.optional, g.all(e.Optional[extra])...)
		}
		for _, group := range sortedKeys(e.Dev) {
			roots.dev = append(roots.dev, g.all(e.Dev[group])...)
		}
	}
	roots.markDirect()
	g.mark(roots)
	return g.packages(f.path), nil
}

func (g *pyLockGraph) all(list []uvDependency) []*lockNode {
	var out []*lockNode
	for _, d := range list {
		out = append(out, g.find(d.Name, d.Version)...)
	}
	return out
}

// linkUV draws the edges. What an extra of a package brings counts where some dependency
// asks for that extra.
func linkUV(g *pyLockGraph, packages []uvPackage) {
	asked := map[string]bool{}
	for i := range packages {
		lists := [][]uvDependency{packages[i].Requires}
		for _, m := range []map[string][]uvDependency{packages[i].Optional, packages[i].Dev} {
			for _, list := range m {
				lists = append(lists, list)
			}
		}
		for _, d := range slices.Concat(lists...) {
			for _, extra := range d.Extra {
				asked[d.Name+"["+extra+"]"] = true
			}
		}
	}
	for i := range packages {
		e := &packages[i]
		for _, d := range e.Requires {
			g.link(g.nodes[i], d.Name, d.Version, false)
		}
		for _, extra := range sortedKeys(e.Optional) {
			if !asked[e.Name+"["+extra+"]"] {
				continue
			}
			for _, d := range e.Optional[extra] {
				g.link(g.nodes[i], d.Name, d.Version, false)
			}
		}
	}
}
