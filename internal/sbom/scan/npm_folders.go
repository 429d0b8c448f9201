package scan

import "strings"

// moduleFolders holds what lies in folders called node_modules: by the folder that one
// is in, then by name. require() looks into those of a package's own folder and of
// every one above.
type moduleFolders[T any] map[string]map[string]*T

// add notes what lies at a path that ends in node_modules/NAME or node_modules/@SCOPE/NAME.
func (m moduleFolders[T]) add(p string, v *T) {
	at := strings.LastIndex("/"+p, "/node_modules/")
	if at < 0 {
		return
	}
	in, name := p[:max(at-1, 0)], p[at+len("node_modules/"):]
	if m[in] == nil {
		m[in] = map[string]*T{}
	}
	m[in][name] = v
}

// above lists the folders that a file in dir looks into, in that order. Paths may have
// thousands of folders, and packages thousands of names to look for.
func (m moduleFolders[T]) above(dir string) modulePath[T] {
	var all modulePath[T]
	for {
		if names := m[dir]; names != nil && dir != "node_modules" && !strings.HasSuffix(dir, "/node_modules") {
			all = append(all, names)
		}
		if dir == "" {
			return all
		}
		dir = dir[:max(strings.LastIndexByte(dir, '/'), 0)]
	}
}

// modulePath is where one package looks for others.
type modulePath[T any] []map[string]*T

// find gives the first of a name; nil where there is none.
func (p modulePath[T]) find(name string) *T {
	for _, names := range p {
		if v := names[name]; v != nil {
			return v
		}
	}
	return nil
}
