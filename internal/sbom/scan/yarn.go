package scan

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

func isYarnLock(p string) bool { return path.Base(p) == "yarn.lock" }

// yarnEntry is one block of a yarn.lock.
type yarnEntry struct {
	// descriptors are what the entry answers to: "lodash@^4.17.0", or, since version 2,
	// "lodash@npm:^4.17.0".
	descriptors []string
	fields      map[string]string
	// sections are the lists of an entry, such as "dependencies", by name.
	sections map[string]map[string]string
	// optionalMeta names the dependencies that dependenciesMeta calls optional.
	optionalMeta map[string]bool
}

// yarnFile is a yarn.lock.
type yarnFile struct {
	entries []*yarnEntry
	berry   bool // version 2 and later
	node    map[string]*lockNode
	byName  map[string][]*lockNode
}

func readYarnLock(_ context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	y, err := parseYarn(string(data))
	g := &lockGraph{}
	y.fill(g)
	roots := y.roots(g, siblingManifest(f, path.Dir(f.path)))
	roots.markDirect()
	g.mark(roots)
	return g.packages(f.path), err
}

// parseYarn reads both grammars. Version 1 has one of its own, later ones write a small
// part of YAML; both are blocks of indented pairs, and what differs is a colon. An
// error comes with what was understood up to it.
func parseYarn(text string) (*yarnFile, error) {
	y := &yarnFile{node: map[string]*lockNode{}, byName: map[string][]*lockNode{}}
	y.berry = strings.HasPrefix(text, "__metadata:") || strings.Contains(text, "\n__metadata:")
	var entry *yarnEntry
	var section, item string
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n \t")
		body := strings.TrimLeft(line, " ")
		if body == "" || body[0] == '#' || body == ":" {
			continue
		}
		switch indent := len(line) - len(body); {
		case indent == 0:
			header, ok := yarnHeader(body)
			if !ok {
				return y, fmt.Errorf("line %d: not a yarn.lock", number)
			}
			entry = &yarnEntry{descriptors: y.descriptors(header), fields: map[string]string{}}
			section = ""
			y.entries = append(y.entries, entry)
		case entry == nil:
			return y, fmt.Errorf("line %d: a field outside of an entry", number)
		case indent <= 2:
			key, value := yarnPair(body)
			entry.fields[key] = value
			section = ""
			if value == "" {
				section = key
			}
		case indent <= 4 && section != "":
			var value string
			item, value = yarnPair(body)
			entry.put(section, item, value)
		case section == "dependenciesMeta":
			if key, value := yarnPair(body); key == "optional" && value == "true" {
				entry.optional(item)
			}
		}
	}
	return y, nil
}

// yarnHeader gives what stands before the colon. A long key is written "? key".
func yarnHeader(body string) (string, bool) {
	if long, ok := strings.CutPrefix(body, "? "); ok {
		return long, true
	}
	return strings.CutSuffix(body, ":")
}

// descriptors splits the key of an entry. Version 1 quotes each descriptor, later ones
// quote all of them together.
func (y *yarnFile) descriptors(header string) []string {
	var out []string
	for header != "" {
		var one string
		if header[0] == '"' {
			one, header = yarnQuoted(header)
			if y.berry {
				out = append(out, strings.Split(one, ", ")...)
			} else {
				out = append(out, one)
			}
		} else {
			one, header, _ = strings.Cut(header, ",")
			out = append(out, strings.TrimSpace(one))
		}
		header = strings.TrimLeft(header, ", ")
	}
	return out
}

func (e *yarnEntry) put(section, name, value string) {
	if e.sections == nil {
		e.sections = map[string]map[string]string{}
	}
	if e.sections[section] == nil {
		e.sections[section] = map[string]string{}
	}
	e.sections[section][name] = value
}

func (e *yarnEntry) optional(name string) {
	if e.optionalMeta == nil {
		e.optionalMeta = map[string]bool{}
	}
	e.optionalMeta[name] = true
}

// yarnPair parts `key value`, `key: value` and `"key" "value"`.
func yarnPair(body string) (key, value string) {
	if body[0] == '"' {
		key, value = yarnQuoted(body)
		value = strings.TrimPrefix(value, ":")
	} else {
		key, value, _ = strings.Cut(body, " ")
		key = strings.TrimSuffix(key, ":")
	}
	value = strings.TrimSpace(value)
	if strings.HasPrefix(value, `"`) {
		value, _ = yarnQuoted(value)
	}
	return key, value
}

// yarnQuoted reads the quoted string that s begins with, and gives what follows it.
func yarnQuoted(s string) (text, rest string) {
	quoted, err := strconv.QuotedPrefix(s)
	if err != nil {
		return strings.Trim(s, `"`), ""
	}
	text, err = strconv.Unquote(quoted)
	if err != nil {
		text = strings.Trim(quoted, `"`)
	}
	return text, s[len(quoted):]
}

// fill makes nodes and edges.
func (y *yarnFile) fill(g *lockGraph) {
	nodes := make([]*lockNode, len(y.entries))
	for i, e := range y.entries {
		n := g.add(y.pkg(e))
		nodes[i] = n
		for _, d := range e.descriptors {
			y.node[d] = n
		}
		if n.pkg != nil {
			for _, name := range descriptorNames(e.descriptors) {
				y.byName[name] = append(y.byName[name], n)
			}
		}
	}
	for i, e := range y.entries {
		for _, section := range []string{"dependencies", "optionalDependencies"} {
			for _, name := range sortedKeys(e.sections[section]) {
				optional := section == "optionalDependencies" || e.optionalMeta[name]
				nodes[i].link(y.find(name, e.sections[section][name]), optional)
			}
		}
	}
}

func descriptorNames(descriptors []string) []string {
	var names []string
	for _, d := range descriptors {
		name, _ := splitDescriptor(d)
		names = append(names, name)
	}
	return sortedUnique(names)
}

// find gives the entry for a dependency. A "resolutions" field replaces ranges behind the
// back of the lock's own descriptors: then the only entry of that name is meant.
func (y *yarnFile) find(name, wanted string) *lockNode {
	for _, d := range []string{name + "@" + wanted, name + "@npm:" + wanted} {
		if n := y.node[d]; n != nil {
			return n
		}
	}
	if list := y.byName[name]; len(list) == 1 {
		return list[0]
	}
	return nil
}

// pkg is nil for members of the project and for what is linked from elsewhere.
func (y *yarnFile) pkg(e *yarnEntry) *pkg {
	if len(e.descriptors) == 0 || e.descriptors[0] == "__metadata" {
		return nil
	}
	name, from := splitDescriptor(e.descriptors[0])
	if y.berry {
		if resolution := e.fields["resolution"]; resolution != "" {
			name, from = splitDescriptor(resolution)
		}
	} else if alias, ok := strings.CutPrefix(from, "npm:"); ok {
		name, _ = splitDescriptor(alias)
	}
	for _, own := range []string{"workspace:", "link:", "portal:"} {
		if strings.HasPrefix(from, own) {
			return nil
		}
	}
	p := npmPkg(name, e.fields["version"])
	if p != nil {
		p.Hashes = e.hashes()
	}
	return p
}

// hashes are those of the published tarball. The "checksum" of later versions is left
// out: it is that of the zip that yarn makes of it.
func (e *yarnEntry) hashes() []sbom.Hash {
	if h := integrityHashes(e.fields["integrity"]); len(h) > 0 {
		return h
	}
	address, fragment, _ := strings.Cut(e.fields["resolved"], "#")
	if h, ok := newHash("sha1", fragment); ok && strings.HasSuffix(address, ".tgz") {
		return []sbom.Hash{h}
	}
	return nil
}

// roots asks the package.json beside the lock what is for development only; the lock
// itself does not say. In a project of several members that one file does not tell it
// all: nothing is left out then.
func (y *yarnFile) roots(g *lockGraph, m *npmManifest) lockRoots {
	var r lockRoots
	several := m == nil || len(m.Workspaces) > 0
	if y.berry && several {
		for i, e := range y.entries {
			if e.fields["linkType"] == "soft" {
				r.required = append(r.required, targets(g.nodes[i])...)
			}
		}
	}
	if m == nil {
		return r
	}
	for _, list := range []struct {
		names looseMap
		to    *[]*lockNode
	}{{m.Dependencies, &r.required}, {m.OptionalDependencies, &r.optional}, {m.DevDependencies, &r.dev}} {
		for _, name := range sortedKeys(list.names) {
			if n := y.find(name, list.names[name]); n != nil {
				*list.to = append(*list.to, n)
			}
		}
	}
	if several {
		r.required = append(r.required, r.dev...)
		r.dev = nil
	}
	return r
}

func targets(n *lockNode) []*lockNode {
	var out []*lockNode
	for _, e := range n.edges {
		out = append(out, e.to)
	}
	return out
}
