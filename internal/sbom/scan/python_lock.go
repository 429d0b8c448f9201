package scan

import (
	"context"
	"path"
	"slices"
	"strings"
)

// pythonLock wants files of one name that are not part of an installed package.
func pythonLock(name string) func(string) bool {
	return func(p string) bool { return path.Base(p) == name && behindSitePackages(p) == "" }
}

// isPylock wants pylock.toml and pylock.NAME.toml (PEP 751).
func isPylock(p string) bool {
	base := path.Base(p)
	rest, ok := strings.CutPrefix(base, "pylock.")
	return ok && strings.HasSuffix("."+rest, ".toml") && strings.Count(rest, ".") <= 1 && behindSitePackages(p) == ""
}

// pyLockGraph is a lockGraph whose nodes are found by name. A lock may hold one name in
// several versions, for different environments; an edge then leads to each.
type pyLockGraph struct {
	lockGraph
	byName    map[string][]*lockNode
	byVersion map[pyVersion][]*lockNode
}

type pyVersion struct{ name, version string }

// maxForks bounds how many packages one name leads to: a lock has one for each kind of
// environment, and a hostile one might have them all.
const maxForks = 16

func newPyLockGraph() *pyLockGraph {
	return &pyLockGraph{byName: map[string][]*lockNode{}, byVersion: map[pyVersion][]*lockNode{}}
}

// put adds a package; p is nil for the project itself.
func (g *pyLockGraph) put(name string, p *pkg) *lockNode {
	n := g.add(p)
	name = normalPythonName(name)
	if len(g.byName[name]) < maxForks {
		g.byName[name] = append(g.byName[name], n)
	}
	if p == nil {
		return n
	}
	if at := (pyVersion{name, p.Version}); len(g.byVersion[at]) < maxForks {
		g.byVersion[at] = append(g.byVersion[at], n)
	}
	return n
}

func (g *pyLockGraph) link(from *lockNode, name, version string, optional bool) {
	for _, to := range g.find(name, version) {
		from.link(to, optional)
	}
}

// find gives the nodes of a name, or the one of them that has the version.
func (g *pyLockGraph) find(name, version string) []*lockNode {
	name = normalPythonName(name)
	if all := g.byName[name]; version == "" || len(all) < 2 {
		return all
	}
	return g.byVersion[pyVersion{name, version}]
}

// lockFile is a published file as locks name it.
type lockFile struct {
	Hash string `toml:"hash"`
}

func fileHashes(files ...lockFile) []string {
	var out []string
	for _, f := range files {
		if f.Hash != "" {
			out = append(out, f.Hash)
		}
	}
	return out
}

type poetryLock struct {
	Package []struct {
		Name         string         `toml:"name"`
		Version      string         `toml:"version"`
		Optional     bool           `toml:"optional"`
		Category     string         `toml:"category"` // until version 1.4
		Groups       []string       `toml:"groups"`   // since version 2.0
		Files        []lockFile     `toml:"files"`
		Dependencies map[string]any `toml:"dependencies"`
		Source       struct {
			Type string `toml:"type"`
		} `toml:"source"`
	} `toml:"package"`
	Metadata struct {
		Files map[string][]lockFile `toml:"files"`
	} `toml:"metadata"`
}

func readPoetryLock(_ context.Context, f *file) ([]*pkg, error) {
	var lock poetryLock
	if err := decodeTOML(f, maxParsedLock, &lock); err != nil {
		return nil, err
	}
	g := newPyLockGraph()
	asked := pyprojectNames(f)
	for _, e := range lock.Package {
		var p *pkg
		if e.Source.Type != "directory" { // the project's own neighbour
			p = pythonPkg(e.Name, e.Version)
		}
		g.put(e.Name, p)
		if p == nil {
			continue
		}
		p.direct = asked[p.Name]
		p.Hashes = onlyHash(fileHashes(append(e.Files, lock.Metadata.Files[e.Name]...)...))
		switch {
		case e.Category == "dev" || (len(e.Groups) > 0 && !slices.Contains(e.Groups, "main")):
			p.Scope = scopeExcluded
		case e.Optional:
			p.Scope = scopeOptional
		case e.Category != "" || len(e.Groups) > 0:
			p.Scope = scopeRequired // versions between them do not say
		}
	}
	for i, e := range lock.Package {
		for _, name := range sortedKeys(e.Dependencies) {
			g.link(g.nodes[i], name, "", false)
		}
	}
	return g.packages(f.path), nil
}

// pyprojectNames gives the names that the pyproject.toml beside a lock asks for.
func pyprojectNames(f *file) map[string]bool {
	names := map[string]bool{}
	data, err := readAll(f.tree, path.Join(path.Dir(f.path), "pyproject.toml"), min(maxManifestBytes, f.maxRead))
	if err != nil {
		return names
	}
	type table map[string]any
	var project struct {
		Project struct {
			Dependencies []string            `toml:"dependencies"`
			Optional     map[string][]string `toml:"optional-dependencies"`
		} `toml:"project"`
		Tool struct {
			Poetry struct {
				Dependencies    table `toml:"dependencies"`
				DevDependencies table `toml:"dev-dependencies"`
				Group           map[string]struct {
					Dependencies table `toml:"dependencies"`
				} `toml:"group"`
			} `toml:"poetry"`
			PDM struct {
				DevDependencies map[string][]string `toml:"dev-dependencies"`
			} `toml:"pdm"`
		} `toml:"tool"`
	}
	if parseTOML(string(data), &project) != nil {
		return names
	}
	lists := [][]string{project.Project.Dependencies}
	for _, m := range []map[string][]string{project.Project.Optional, project.Tool.PDM.DevDependencies} {
		for _, list := range m {
			lists = append(lists, list)
		}
	}
	for _, text := range slices.Concat(lists...) {
		if r, ok := parseRequirement(text); ok {
			names[r.name] = true
		}
	}
	tables := []table{project.Tool.Poetry.Dependencies, project.Tool.Poetry.DevDependencies}
	for _, group := range project.Tool.Poetry.Group {
		tables = append(tables, group.Dependencies)
	}
	for _, t := range tables {
		for name := range t {
			names[normalPythonName(name)] = true
		}
	}
	return names
}

type pdmLock struct {
	Package []struct {
		Name         string     `toml:"name"`
		Version      string     `toml:"version"`
		Groups       []string   `toml:"groups"`
		Dependencies []string   `toml:"dependencies"`
		Files        []lockFile `toml:"files"`
		Path         string     `toml:"path"`
	} `toml:"package"`
}

// readPDMLock reads a pdm.lock. Its groups mix extras of the project and development:
// what is in no other is optional, for neither is part of it always.
func readPDMLock(_ context.Context, f *file) ([]*pkg, error) {
	var lock pdmLock
	if err := decodeTOML(f, maxParsedLock, &lock); err != nil {
		return nil, err
	}
	g := newPyLockGraph()
	asked := pyprojectNames(f)
	for _, e := range lock.Package {
		var p *pkg
		if e.Path == "" || isPythonArchive(e.Path) {
			p = pythonPkg(e.Name, e.Version)
		}
		g.put(e.Name, p)
		if p == nil {
			continue
		}
		p.direct = asked[p.Name]
		p.Hashes = onlyHash(fileHashes(e.Files...))
		if len(e.Groups) > 0 {
			p.Scope = lockScope(false, !slices.Contains(e.Groups, "default"))
		}
	}
	for i, e := range lock.Package {
		for _, text := range e.Dependencies {
			if r, ok := parseRequirement(text); ok {
				g.link(g.nodes[i], r.name, "", false)
			}
		}
	}
	return g.packages(f.path), nil
}

func isPythonArchive(p string) bool {
	for _, end := range []string{".whl", ".tar.gz", ".zip", ".tar.bz2"} {
		if strings.HasSuffix(p, end) {
			return true
		}
	}
	return false
}

// pipfileEntry is a package of a Pipfile.lock. Version is absent for what comes from a
// repository or a folder.
type pipfileEntry struct {
	Version looseString `json:"version"`
	Hashes  []string    `json:"hashes"`
}

func readPipfileLock(_ context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	var lock struct {
		Default map[string]pipfileEntry `json:"default"`
		Develop map[string]pipfileEntry `json:"develop"`
	}
	if err := decodeLoose(data, &lock); err != nil {
		return nil, err
	}
	var out []*pkg
	add := func(entries map[string]pipfileEntry, scope string) {
		for _, name := range sortedKeys(entries) {
			e := entries[name]
			if p := pythonPkg(name, strings.TrimLeft(string(e.Version), "=")); p != nil {
				p.path, p.Scope, p.Hashes = f.path, scope, onlyHash(e.Hashes)
				out = append(out, p)
			}
		}
	}
	add(lock.Default, scopeRequired)
	add(lock.Develop, scopeExcluded)
	return out, nil
}

// pylockFile is a file in a pylock.toml, which names algorithms as keys.
type pylockFile struct {
	Hashes map[string]string `toml:"hashes"`
}

type pylockPackage struct {
	Name         string         `toml:"name"`
	Version      string         `toml:"version"`
	Directory    map[string]any `toml:"directory"`
	Dependencies []struct {
		Name    string `toml:"name"`
		Version string `toml:"version"`
	} `toml:"dependencies"`
	Archive pylockFile   `toml:"archive"`
	Sdist   pylockFile   `toml:"sdist"`
	Wheels  []pylockFile `toml:"wheels"`
}

func readPylock(_ context.Context, f *file) ([]*pkg, error) {
	var lock struct {
		Packages []pylockPackage `toml:"packages"`
	}
	if err := decodeTOML(f, maxParsedLock, &lock); err != nil {
		return nil, err
	}
	g := newPyLockGraph()
	for _, e := range lock.Packages {
		var p *pkg
		if e.Directory == nil {
			p = pythonPkg(e.Name, e.Version)
		}
		if p != nil {
			var digests []string
			for _, file := range append(e.Wheels, e.Sdist, e.Archive) {
				if value := file.Hashes["sha256"]; value != "" {
					digests = append(digests, "sha256:"+value)
				}
			}
			p.Hashes = onlyHash(digests)
		}
		g.put(e.Name, p)
	}
	for i, e := range lock.Packages {
		for _, d := range e.Dependencies {
			g.link(g.nodes[i], d.Name, d.Version, false)
		}
	}
	return g.packages(f.path), nil
}
