package scan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxParsedLock bounds locks in YAML and TOML. Their parsers build a tree of twenty times
// the size; the largest of those seen in public are 3 MB.
const maxParsedLock = 8 << 20

// isPNPMLock wants the lock of a project and the one that pnpm keeps of what it installed.
func isPNPMLock(p string) bool {
	switch path.Base(p) {
	case "pnpm-lock.yaml":
		return true
	case "lock.yaml":
		return strings.HasSuffix("/"+p, "/node_modules/.pnpm/lock.yaml")
	}
	return false
}

// pnpmLock is a pnpm-lock.yaml, versions 5 to 9.
type pnpmLock struct {
	Version yaml.Node `yaml:"lockfileVersion"`
	// pnpmImporter is where a project of one member has its dependencies before version 9.
	pnpmImporter `yaml:",inline"`
	Importers    map[string]*pnpmImporter `yaml:"importers"`
	Packages     map[string]*pnpmPackage  `yaml:"packages"`
	// Snapshots are the edges since version 9: a package once for each set of peers.
	Snapshots map[string]*pnpmPackage `yaml:"snapshots"`
}

type pnpmImporter struct {
	Dependencies         map[string]pnpmRef `yaml:"dependencies"`
	DevDependencies      map[string]pnpmRef `yaml:"devDependencies"`
	OptionalDependencies map[string]pnpmRef `yaml:"optionalDependencies"`
}

type pnpmPackage struct {
	Name       string `yaml:"name"`
	Version    string `yaml:"version"`
	Resolution struct {
		Integrity string `yaml:"integrity"`
	} `yaml:"resolution"`
	Dev                  bool               `yaml:"dev"`
	Dependencies         map[string]pnpmRef `yaml:"dependencies"`
	OptionalDependencies map[string]pnpmRef `yaml:"optionalDependencies"`
}

// pnpmRef is what a dependency is resolved to: "1.0.0", or since version 6 in an importer
// an object with specifier and version.
type pnpmRef string

// UnmarshalYAML implements yaml.Unmarshaler.
func (r *pnpmRef) UnmarshalYAML(n *yaml.Node) error {
	*r = ""
	switch n.Kind {
	case yaml.ScalarNode:
		*r = pnpmRef(n.Value)
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "version" && n.Content[i+1].Kind == yaml.ScalarNode {
				*r = pnpmRef(n.Content[i+1].Value)
			}
		}
	}
	return nil
}

func readPNPMLock(_ context.Context, f *file) ([]*pkg, error) {
	data, err := readAll(f.tree, f.path, min(maxParsedLock, f.maxRead))
	if err != nil {
		return nil, err
	}
	var out []*pkg
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for { // the tools that manage pnpm itself have a document of their own in front
		var document yaml.Node
		err := dec.Decode(&document)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		var lock pnpmLock
		if err == nil {
			err = decodeYAML(&document, &lock)
		}
		if errors.Is(err, errYAMLWork) {
			return out, err
		}
		var partial *yaml.TypeError
		if err != nil && !errors.As(err, &partial) {
			return out, errors.New("not YAML")
		}
		out = append(out, lock.packages(f.path)...)
		if err != nil {
			return out, errors.New("not a pnpm lock: a field of the wrong type")
		}
	}
}

// packages reads one document.
func (lock *pnpmLock) packages(at string) []*pkg {
	g := &lockGraph{}
	major, _, _ := strings.Cut(lock.Version.Value, ".")
	version, _ := strconv.Atoi(major)
	nodes := make(map[string]*lockNode, len(lock.Packages))
	for _, key := range sortedKeys(lock.Packages) {
		if e := lock.Packages[key]; e != nil {
			nodes[key] = g.add(e.pkg(key, version))
		} else {
			nodes[key] = g.add((&pnpmPackage{}).pkg(key, version))
		}
	}
	for _, key := range sortedKeys(lock.Packages) {
		lock.Packages[key].link(nodes[key], nodes)
	}
	for _, key := range sortedKeys(lock.Snapshots) {
		if n := nodes[pnpmBare(key)]; n != nil {
			lock.Snapshots[key].link(n, nodes)
		}
	}
	roots := lock.roots(nodes)
	roots.markDirect()
	g.mark(roots)
	return g.packages(at)
}

func (e *pnpmPackage) link(n *lockNode, nodes map[string]*lockNode) {
	if e == nil {
		return
	}
	for _, name := range sortedKeys(e.Dependencies) {
		n.link(pnpmFind(nodes, name, e.Dependencies[name]), false)
	}
	for _, name := range sortedKeys(e.OptionalDependencies) {
		n.link(pnpmFind(nodes, name, e.OptionalDependencies[name]), true)
	}
}

func (lock *pnpmLock) roots(nodes map[string]*lockNode) lockRoots {
	var r lockRoots
	add := func(to *[]*lockNode, refs map[string]pnpmRef) {
		for _, name := range sortedKeys(refs) {
			if n := pnpmFind(nodes, name, refs[name]); n != nil {
				*to = append(*to, n)
			}
		}
	}
	importers := []*pnpmImporter{&lock.pnpmImporter}
	for _, key := range sortedKeys(lock.Importers) {
		importers = append(importers, lock.Importers[key])
	}
	for _, i := range importers {
		if i != nil {
			add(&r.required, i.Dependencies)
			add(&r.optional, i.OptionalDependencies)
			add(&r.dev, i.DevDependencies)
		}
	}
	return r
}

// pnpmFind gives the package that a reference means. It holds a version, or, for an alias
// and for what is not from the registry, the key itself.
func pnpmFind(nodes map[string]*lockNode, name string, ref pnpmRef) *lockNode {
	r := string(ref)
	for _, key := range []string{"/" + name + "/" + r, "/" + name + "@" + r, name + "@" + pnpmBare(r), r, pnpmBare(r)} {
		if n := nodes[key]; n != nil {
			return n
		}
	}
	return nil
}

// pnpmBare takes the peers off a key: "react-dom@18.2.0(react@18.2.0)".
func pnpmBare(key string) string {
	bare, _, _ := strings.Cut(key, "(")
	return bare
}

func (e *pnpmPackage) pkg(key string, version int) *pkg {
	name, v := pnpmKey(key, version)
	if e.Name != "" {
		name = e.Name
	}
	if e.Version != "" {
		v = e.Version
	}
	if !startsWithDigit(v) {
		return nil
	}
	p := npmPkg(name, v)
	if p == nil {
		return nil
	}
	p.Hashes = integrityHashes(e.Resolution.Integrity)
	if e.Dev {
		p.Scope = scopeExcluded
	}
	return p
}

// pnpmKey parts the key of a package: before version 6 "/@scope/name/1.0.0_peers", behind
// the name of a registry perhaps; then "/@scope/name@1.0.0(peers)"; without the first
// slash since version 9.
func pnpmKey(key string, version int) (name, v string) {
	if version >= 6 {
		return splitDescriptor(strings.TrimPrefix(pnpmBare(key), "/"))
	}
	segments := strings.Split(key, "/")
	last := len(segments) - 1
	if last < 1 {
		return "", ""
	}
	name = segments[last-1]
	if last >= 2 && strings.HasPrefix(segments[last-2], "@") {
		name = fmt.Sprintf("%s/%s", segments[last-2], name)
	}
	v, _, _ = strings.Cut(segments[last], "_")
	return name, v
}
