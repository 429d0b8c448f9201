package scan

import (
	"path"
	"slices"
	"strings"
)

// parseRequirement reads a PEP 508 requirement: name, extras, and of the marker only
// which extras of the requiring package ask for it. Markers on the environment are not
// evaluated: what is not for this environment is not installed.
func parseRequirement(text string) (pyRequirement, bool) {
	text = strings.TrimSpace(text)
	n := pythonNameLength(text)
	r := pyRequirement{name: normalPythonName(text[:n])}
	if r.name == "" || !validPythonName(text[:n]) {
		return r, false
	}
	rest := strings.TrimSpace(text[n:])
	if inner, ok := strings.CutPrefix(rest, "["); ok {
		inner, rest, _ = strings.Cut(inner, "]")
		for extra := range strings.SplitSeq(inner, ",") {
			if extra = normalPythonName(strings.TrimSpace(extra)); extra != "" {
				r.extras = append(r.extras, extra)
			}
		}
	}
	if _, marker, ok := strings.Cut(rest, ";"); ok {
		r.when = markerExtras(marker)
	}
	return r, true
}

// markerExtras gives every name that a marker compares extra with.
func markerExtras(marker string) []string {
	var out []string
	for {
		_, after, ok := strings.Cut(marker, "extra")
		if !ok {
			return out
		}
		marker = strings.TrimLeft(after, " ")
		value, ok := strings.CutPrefix(marker, "==")
		if !ok {
			continue
		}
		if value = strings.TrimLeft(value, " "); value == "" || (value[0] != '\'' && value[0] != '"') {
			continue
		}
		if extra, _, ok := strings.Cut(value[1:], value[:1]); ok {
			out = append(out, normalPythonName(extra))
		}
	}
}

// pyTree resolves requirements among what is installed.
type pyTree struct {
	byName map[string][]*pkg
	beside map[pyPlace]*pkg // the first of a name in a folder
	// asked holds the extras that somebody asks for; waiting, the requirements of a
	// package that count once its extra is asked for.
	asked   map[pyExtra]bool
	waiting map[pyExtra][]pyRequirement
}

type pyPlace struct{ folder, name string }

type pyExtra struct{ name, extra string }

// resolvePython turns requirements into edges. What an extra requires counts where some
// installed package asks for that extra; otherwise every package would depend on its
// test tools as soon as they are there.
func resolvePython(found []*pkg) {
	t := newPyTree(found)
	for _, p := range found {
		for _, r := range requirementsOf(p) {
			if t.applies(p, r) {
				t.ask(r)
			}
		}
	}
	for _, p := range found {
		for _, r := range requirementsOf(p) {
			if !t.applies(p, r) {
				continue
			}
			if target := t.find(p, r.name); target != nil {
				p.dependOn(target.PURL)
			}
		}
		p.DependsOn = sortedUnique(p.DependsOn)
	}
}

func newPyTree(found []*pkg) *pyTree {
	t := &pyTree{
		byName: map[string][]*pkg{}, beside: map[pyPlace]*pkg{},
		asked: map[pyExtra]bool{}, waiting: map[pyExtra][]pyRequirement{},
	}
	for _, p := range found {
		t.byName[p.Name] = append(t.byName[p.Name], p)
		if at := (pyPlace{pythonFolder(p.path), p.Name}); t.beside[at] == nil {
			t.beside[at] = p
		}
		for _, r := range requirementsOf(p) {
			for _, extra := range r.when {
				if len(r.extras) > 0 {
					t.waiting[pyExtra{p.Name, extra}] = append(t.waiting[pyExtra{p.Name, extra}], r)
				}
			}
		}
	}
	return t
}

func requirementsOf(p *pkg) []pyRequirement {
	list, _ := p.note.([]pyRequirement)
	return list
}

// ask notes the extras that a requirement asks for, and those that they ask for in turn.
func (t *pyTree) ask(r pyRequirement) {
	for todo := []pyRequirement{r}; len(todo) > 0; {
		r, todo = todo[len(todo)-1], todo[:len(todo)-1]
		if len(t.byName[r.name]) == 0 {
			continue
		}
		for _, extra := range r.extras {
			if key := (pyExtra{r.name, extra}); !t.asked[key] {
				t.asked[key] = true
				todo = append(todo, t.waiting[key]...)
			}
		}
	}
}

func (t *pyTree) applies(p *pkg, r pyRequirement) bool {
	return len(r.when) == 0 || slices.ContainsFunc(r.when, func(extra string) bool { return t.asked[pyExtra{p.Name, extra}] })
}

// find gives the package of that name beside p, or else the only one of the tree: an
// interpreter has several folders of packages, and an image may have several interpreters.
func (t *pyTree) find(p *pkg, name string) *pkg {
	if near := t.beside[pyPlace{pythonFolder(p.path), name}]; near != nil {
		return near
	}
	if all := t.byName[name]; len(all) == 1 {
		return all[0]
	}
	return nil
}

// pythonFolder is the folder that holds the package's own.
func pythonFolder(p string) string {
	if strings.HasSuffix(p, ".egg-info") {
		return path.Dir(p)
	}
	return path.Dir(path.Dir(p))
}
