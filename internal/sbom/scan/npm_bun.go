package scan

import (
	"context"
	"path"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

func isBunLock(p string) bool { return path.Base(p) == "bun.lock" }

// bunLock is the textual lock of bun, JSON with comments and trailing commas. The keys of
// Packages are the folders of node_modules: "a/b" is b below a.
type bunLock struct {
	Workspaces map[string]*npmManifest     `json:"workspaces"`
	Packages   map[string][]jsontext.Value `json:"packages"`
}

type bunNode struct {
	*lockNode
	info npmManifest
}

func readBunLock(_ context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	var lock bunLock
	if err := decodeLoose(plainJSON(data), &lock); err != nil {
		return nil, err
	}
	g := &lockGraph{}
	at := make(map[string]*bunNode, len(lock.Packages))
	folders := moduleFolders[lockNode]{}
	for _, key := range sortedKeys(lock.Packages) {
		if len(key) <= maxLockKeyBytes {
			n := newBunNode(g, lock.Packages[key])
			at[bunFolder(key)] = n
			folders.add(bunFolder(key), n.lockNode)
		}
	}
	for _, folder := range sortedKeys(at) {
		n, around := at[folder], folders.above(folder)
		for _, name := range n.info.runtime() {
			_, optional := n.info.OptionalDependencies[name]
			n.link(around.find(name), optional)
		}
	}
	roots := lock.roots(folders)
	roots.markDirect()
	g.mark(roots)
	return g.packages(f.path), nil
}

// newBunNode reads a tuple: "name@version", a registry perhaps, what is known of the
// package, and its integrity.
func newBunNode(g *lockGraph, tuple []jsontext.Value) *bunNode {
	n := &bunNode{}
	var id, integrity looseString
	for i, value := range tuple {
		switch {
		case value.Kind() == '{':
			_ = decodeLoose(value, &n.info) // each field is optional, and it is JSON already
		case i == 0:
			_ = decodeLoose(value, &id)
		case i == len(tuple)-1:
			_ = decodeLoose(value, &integrity)
		}
	}
	n.lockNode = g.add(bunPkg(string(id), string(integrity)))
	return n
}

// bunPkg is nil for members of the project and for folders. What came from a repository
// has its commit in the place of a version.
func bunPkg(id, integrity string) *pkg {
	name, version := splitDescriptor(id)
	switch {
	case strings.HasPrefix(version, "workspace:"), strings.HasPrefix(version, "link:"), strings.HasPrefix(version, "file:"):
		return nil
	case !startsWithDigit(version):
		_, version, _ = strings.Cut(version, "#")
	}
	p := npmPkg(name, version)
	if p != nil {
		p.Hashes = integrityHashes(integrity)
	}
	return p
}

// roots is what the members of the project ask for.
func (lock *bunLock) roots(folders moduleFolders[lockNode]) lockRoots {
	var r lockRoots
	for _, member := range sortedKeys(lock.Workspaces) {
		m := lock.Workspaces[member]
		if m == nil {
			continue
		}
		from := ""
		if member != "" && m.Name != "" {
			from = bunFolder(string(m.Name)) // where bun puts what only this member has
		}
		around := folders.above(from)
		for _, list := range []struct {
			names looseMap
			to    *[]*lockNode
		}{{m.Dependencies, &r.required}, {m.OptionalDependencies, &r.optional}, {m.PeerDependencies, &r.optional}, {m.DevDependencies, &r.dev}} {
			for _, name := range sortedKeys(list.names) {
				if n := around.find(name); n != nil {
					*list.to = append(*list.to, n)
				}
			}
		}
	}
	return r
}

// bunFolder spells a key as a folder: "a/@s/b" is node_modules/a/node_modules/@s/b.
func bunFolder(key string) string {
	var b strings.Builder
	inScope := false
	for segment := range strings.SplitSeq(key, "/") {
		if !inScope {
			b.WriteString("/node_modules")
		}
		b.WriteString("/" + segment)
		inScope = strings.HasPrefix(segment, "@")
	}
	return strings.TrimPrefix(b.String(), "/")
}

// plainJSON takes comments and trailing commas out, in place of which it leaves spaces.
func plainJSON(data []byte) []byte {
	out := make([]byte, len(data))
	copy(out, data)
	comma := -1 // the last one, while nothing but space and comments followed
	for i := 0; i < len(out); i++ {
		switch c := out[i]; {
		case c == '"':
			comma = -1
			for i++; i < len(out) && out[i] != '"'; i++ {
				if out[i] == '\\' {
					i++
				}
			}
		case c == '/' && i+1 < len(out) && (out[i+1] == '/' || out[i+1] == '*'):
			i = blankComment(out, i)
		case c == ',':
			comma = i
		case c == '}' || c == ']':
			if comma >= 0 {
				out[comma] = ' '
			}
			comma = -1
		case c > ' ':
			comma = -1
		}
	}
	return out
}

// blankComment overwrites the comment at i and gives the index of its last byte.
func blankComment(out []byte, i int) int {
	block := out[i+1] == '*'
	out[i], out[i+1] = ' ', ' '
	for i += 2; i < len(out); i++ {
		c := out[i]
		if !block && c == '\n' {
			return i
		}
		out[i] = ' '
		if block && c == '*' && i+1 < len(out) && out[i+1] == '/' {
			out[i+1] = ' '
			return i + 1
		}
	}
	return i
}
