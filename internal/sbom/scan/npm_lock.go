package scan

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// maxLockKeyBytes bounds the paths in a lock; looking a name up visits each folder of one.
	maxLockKeyBytes = 4 << 10
	// maxLockDepth bounds entries in each other, for the same reason.
	maxLockDepth = 64
	// maxWorkspaces bounds the patterns of a project's members, which each folder is held against.
	maxWorkspaces = 1 << 8
)

var errLockDepth = errors.New("packages nested too deep")

// isNPMLock wants the locks of a project, and the one that npm keeps of what it
// installed.
func isNPMLock(p string) bool {
	switch path.Base(p) {
	case "package-lock.json", "npm-shrinkwrap.json":
		return true
	case ".package-lock.json":
		return path.Base(path.Dir(p)) == "node_modules"
	}
	return false
}

// publishedLock reports a lock inside an installed package, which was published by mistake:
// package managers look at their project's own. In a folder of node_modules that is no
// package, a lock counts as anywhere.
func publishedLock(f *file) bool {
	_, below, ok := cutNodeModules(path.Dir(f.path))
	if !ok {
		return false
	}
	top := strings.TrimSuffix(path.Dir(f.path), below)
	for dir := path.Dir(f.path); len(dir) > len(top); dir = path.Dir(dir) {
		if exists(f, dir+"/package.json") {
			return true
		}
	}
	return false
}

// projectLock is the reader.read of a lock of a project.
func projectLock(read func(context.Context, *file) ([]*pkg, error)) func(context.Context, *file) ([]*pkg, error) {
	return func(ctx context.Context, f *file) ([]*pkg, error) {
		if publishedLock(f) {
			return nil, nil
		}
		return read(ctx, f)
	}
}

// npmLock is package-lock.json: version 1 has Dependencies alone, version 3 Packages
// alone, version 2 both with the same content.
type npmLock struct {
	Packages     map[string]*npmLockEntry `json:"packages"`
	Dependencies map[string]*npmLockV1    `json:"dependencies"`
	// members are the patterns of the folders that are the project's own.
	members npmWorkspaces
}

// npmLockEntry is an entry of "packages"; its key is the folder it is installed in.
type npmLockEntry struct {
	Name                 looseString `json:"name"`
	Version              looseString `json:"version"`
	Resolved             looseString `json:"resolved"`
	Integrity            looseString `json:"integrity"`
	License              npmLicense  `json:"license"`
	Licenses             npmLicense  `json:"licenses"`
	Link                 looseBool   `json:"link"`
	Dev                  looseBool   `json:"dev"`
	DevOptional          looseBool   `json:"devOptional"`
	Optional             looseBool   `json:"optional"`
	Dependencies         looseMap    `json:"dependencies"`
	OptionalDependencies looseMap    `json:"optionalDependencies"`
	PeerDependencies     looseMap    `json:"peerDependencies"`
	DevDependencies      looseMap    `json:"devDependencies"`
	// Workspaces, of the project's own entry, says which folders are its members.
	Workspaces npmWorkspaces `json:"workspaces"`
}

// npmWorkspaces are patterns: a list, or, as yarn had it, a list in an object.
type npmWorkspaces []string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (w *npmWorkspaces) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*w = nil
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	var object struct {
		Packages jsontext.Value `json:"packages"`
	}
	if value.Kind() == '{' && decodeLoose(value, &object) == nil {
		value = object.Packages
	}
	var list []looseString
	if value.Kind() != '[' || decodeLoose(value, &list) != nil {
		return nil
	}
	for _, one := range list {
		*w = append(*w, string(one))
	}
	return nil
}

// npmLockV1 is an entry of "dependencies", nested as the folders are.
type npmLockV1 struct {
	Version      looseString           `json:"version"`
	Resolved     looseString           `json:"resolved"`
	Integrity    looseString           `json:"integrity"`
	Dev          looseBool             `json:"dev"`
	Optional     looseBool             `json:"optional"`
	Requires     looseMap              `json:"requires"`
	Dependencies map[string]*npmLockV1 `json:"dependencies"`
}

func readNPMLock(_ context.Context, f *file) ([]*pkg, error) {
	if path.Base(f.path) == "package-lock.json" && exists(f, path.Join(path.Dir(f.path), "npm-shrinkwrap.json")) {
		return nil, nil // npm does not look at it either
	}
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	var lock npmLock
	if err := decodeLoose(data, &lock); err != nil {
		return nil, err
	}
	g := &lockGraph{}
	if root := lock.Packages[""]; root != nil {
		lock.members = root.Workspaces
	} else if m := siblingManifest(f, path.Dir(path.Dir(f.path))); m != nil && path.Base(f.path) == ".package-lock.json" {
		lock.members = m.Workspaces
	}
	if len(lock.Packages) > 0 {
		lock.fill(g)
		err = lock.fillOther(g)
	} else {
		err = fillNPMv1(g, f, lock.Dependencies)
	}
	return g.packages(f.path), err
}

func exists(f *file, p string) bool {
	_, err := fs.Stat(f.tree, p)
	return err == nil
}

// fill reads "packages".
func (lock *npmLock) fill(g *lockGraph) {
	keys := sortedKeys(lock.Packages)
	keys = slices.DeleteFunc(keys, func(key string) bool { return lock.Packages[key] == nil || len(key) > maxLockKeyBytes })
	at := make(map[string]*lockNode, len(keys))
	for _, key := range keys {
		at[key] = g.add(lock.pkg(key))
	}
	for _, key := range keys { // a link stands for the member it leads to
		if e := lock.Packages[key]; e.Link {
			if target := at[string(e.Resolved)]; target != nil {
				at[key] = target
			}
		}
	}
	folders := moduleFolders[lockNode]{}
	for _, key := range keys {
		folders.add(key, at[key])
	}
	for _, key := range keys {
		e, n := lock.Packages[key], at[key]
		if e.Link {
			continue
		}
		around := folders.above(key)
		for _, name := range unionKeys(e.Dependencies, e.OptionalDependencies, e.PeerDependencies) {
			_, optional := e.OptionalDependencies[name]
			n.link(around.find(name), optional)
		}
		if key == "" || !strings.Contains("/"+key, "/node_modules/") {
			var roots lockRoots
			for _, name := range unionKeys(e.Dependencies, e.OptionalDependencies, e.PeerDependencies, e.DevDependencies) {
				if to := around.find(name); to != nil {
					roots.required = append(roots.required, to)
				}
			}
			roots.markDirect()
		}
	}
}

// pkg is nil for the project and its members, and for links to other entries. A folder
// that is no member is a package that was put beside the project.
func (lock *npmLock) pkg(key string) *pkg {
	e := lock.Packages[key]
	_, name, installed := cutNodeModules(key)
	switch {
	case key == "", bool(e.Link) && lock.Packages[string(e.Resolved)] != nil:
		return nil
	case !installed && lock.member(key):
		return nil
	case !installed:
		if name = path.Base(key); strings.HasPrefix(path.Base(path.Dir(key)), "@") {
			name = path.Base(path.Dir(key)) + "/" + name
		}
	}
	if e.Name != "" {
		name = string(e.Name) // installed under an alias
	}
	version := string(e.Version)
	if version == "" {
		_, version = npmV1Version(name, string(e.Resolved)) // of the tarball's name
	}
	p := npmPkgAny(name, version)
	if p == nil {
		return nil
	}
	p.Hashes = integrityHashes(string(e.Integrity))
	p.Licenses = npmLicenses(e.License, e.Licenses)
	p.Scope = lockScope(bool(e.Dev), bool(e.Optional || e.DevOptional))
	return p
}

// member reports whether a folder is a workspace of the project.
func (lock *npmLock) member(key string) bool {
	return slices.ContainsFunc(lock.members[:min(len(lock.members), maxWorkspaces)], func(pattern string) bool {
		pattern = path.Clean(strings.TrimPrefix(pattern, "/"))
		return pattern != "." && strings.Count(pattern, "**") < 3 && globMatch(strings.Split(pattern, "/"), strings.Split(key, "/"))
	})
}

// globMatch matches folders; "**" stands for any number of them.
func globMatch(pattern, folders []string) bool {
	for i, p := range pattern {
		if p == "**" {
			for n := range len(folders) - i + 1 {
				if globMatch(pattern[i+1:], folders[i+n:]) {
					return true
				}
			}
			return false
		}
		if i >= len(folders) {
			return false
		}
		if ok, err := path.Match(p, folders[i]); err != nil || !ok {
			return false
		}
	}
	return len(pattern) == len(folders)
}

// fillOther reads of "dependencies", beside "packages", what that does not have. npm writes
// the same into both, and of two that differ its versions before 7 follow the one and later
// ones the other.
func (lock *npmLock) fillOther(g *lockGraph) error {
	return lock.other(g, "", lock.Dependencies, 0)
}

func (lock *npmLock) other(g *lockGraph, in string, entries map[string]*npmLockV1, depth int) error {
	if depth > maxLockDepth && len(entries) > 0 {
		return errLockDepth
	}
	var failed error
	for _, name := range sortedKeys(entries) {
		e := entries[name]
		if e == nil {
			continue
		}
		key := path.Join(in, "node_modules", name)
		there := lock.Packages[key]
		if !e.sameAs(there) {
			g.add(e.pkg(name))
		}
		if there != nil && bool(there.Link) {
			key = string(there.Resolved) // what a member has is in its own folder
		}
		if err := lock.other(g, key, e.Dependencies, depth+1); err != nil {
			failed = err
		}
	}
	return failed
}

// sameAs compares an entry with that of the other half. What did not come from a registry
// is spelt in two ways.
func (e *npmLockV1) sameAs(other *npmLockEntry) bool {
	return other != nil && (e.Version == other.Version || e.Version == "" || strings.ContainsAny(string(e.Version), ":/#"))
}

func lockScope(dev, optional bool) string {
	switch {
	case dev:
		return scopeExcluded
	case optional:
		return scopeOptional
	}
	return scopeRequired
}

// npmV1Node is an entry of version 1 with the folder it is in.
type npmV1Node struct {
	*lockNode
	parent   *npmV1Node
	depth    int
	children map[string]*npmV1Node
	requires looseMap
}

// fillNPMv1 reads "dependencies". What the project asks for is in its package.json only.
func fillNPMv1(g *lockGraph, f *file, entries map[string]*npmLockV1) error {
	root := &npmV1Node{lockNode: g.add(nil)}
	all, err := root.grow(g, entries, nil)
	for _, n := range all {
		for _, name := range sortedKeys(n.requires) {
			for up := n; up != nil; up = up.parent {
				if to := up.children[name]; to != nil {
					n.link(to.lockNode, false)
					break
				}
			}
		}
	}
	m := siblingManifest(f, path.Dir(f.path))
	if m == nil {
		return err
	}
	for _, name := range unionKeys(m.Dependencies, m.OptionalDependencies, m.PeerDependencies, m.DevDependencies) {
		if n := root.children[name]; n != nil && n.pkg != nil {
			n.pkg.direct = true
		}
	}
	return err
}

// grow adds entries below n and gives all nodes so far.
func (n *npmV1Node) grow(g *lockGraph, entries map[string]*npmLockV1, all []*npmV1Node) (_ []*npmV1Node, failed error) {
	if n.depth > maxLockDepth && len(entries) > 0 {
		return all, errLockDepth
	}
	n.children = make(map[string]*npmV1Node, len(entries))
	for _, name := range sortedKeys(entries) {
		e := entries[name]
		if e == nil {
			continue
		}
		child := &npmV1Node{lockNode: g.add(e.pkg(name)), parent: n, depth: n.depth + 1, requires: e.Requires}
		n.children[name] = child
		var err error
		if all, err = child.grow(g, e.Dependencies, append(all, child)); err != nil {
			failed = err
		}
	}
	return all, failed
}

func (e *npmLockV1) pkg(name string) *pkg {
	if e.isFolder() {
		return nil
	}
	name, version := npmV1Version(name, string(e.Version))
	if version == "" {
		_, version = npmV1Version(name, string(e.Resolved))
	}
	p := npmPkgAny(name, version)
	if p == nil {
		return nil
	}
	p.Hashes = integrityHashes(string(e.Integrity))
	p.Scope = lockScope(bool(e.Dev), bool(e.Optional))
	return p
}

// isFolder: what stands there is a folder of the project, and described in it.
func (e *npmLockV1) isFolder() bool {
	v := string(e.Version)
	return (strings.HasPrefix(v, "file:") || strings.HasPrefix(v, "link:")) && !strings.HasSuffix(v, "gz")
}

// npmV1Version reads the field "version", which holds one, or where the package came
// from: an alias, a tarball, which carries the version in its name, a commit, which
// stands for the version that nobody wrote down, or a folder, which is no package.
func npmV1Version(name, version string) (string, string) {
	if alias, ok := strings.CutPrefix(version, "npm:"); ok {
		return splitDescriptor(alias)
	}
	if !strings.ContainsAny(version, ":/#") {
		return name, version
	}
	address, fragment, _ := strings.Cut(version, "#")
	if file := path.Base(address); strings.HasSuffix(file, ".tgz") || strings.HasSuffix(file, ".tar.gz") {
		file = strings.TrimSuffix(strings.TrimSuffix(file, ".tgz"), ".tar.gz")
		if v, ok := strings.CutPrefix(file, path.Base(name)+"-"); ok && startsWithDigit(v) {
			return name, v
		}
	}
	if strings.HasPrefix(version, "file:") || strings.HasPrefix(version, "link:") {
		return name, ""
	}
	return name, fragment
}

// splitDescriptor parts "name@range" or "@scope/name@range"; the range may be absent.
func splitDescriptor(s string) (name, rest string) {
	if len(s) < 2 {
		return s, ""
	}
	if at := strings.IndexByte(s[1:], '@'); at >= 0 {
		return s[:at+1], s[at+2:]
	}
	return s, ""
}
