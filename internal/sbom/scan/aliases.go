package scan

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/archive"
)

// maxAliases is how many names beside its own one file is read under by one reader.
const maxAliases = 8

// aliases offers the files of one tree under the names that symbolic links give them.
// Readers know files by name, and a program that opens one does not see that a link led
// it there. A reader that knows a file by its own name has read it.
type aliases struct {
	w *walk
	g *grove
	// top is the link that the walk over links is below.
	top  string
	read map[aliasRead]int
}

type aliasRead struct {
	reader int
	own    string
}

func (w *walk) aliases(g *grove) error {
	a := &aliases{w: w, g: g, read: map[aliasRead]int{}}
	return g.tree.Links(a.name)
}

// name is called for each name that links give, folders before what is in them.
func (a *aliases) name(p, own string, info fs.FileInfo) error {
	below, nested := strings.CutPrefix(p, a.top+"/")
	if !nested {
		a.top = p
	}
	if info.IsDir() {
		// What is in a folder of node_modules is known by the path from there on, which
		// the link in it has by itself; a workspace has as many as it has members.
		if _, _, module := cutNodeModules(below); nested && module {
			return fs.SkipDir
		}
		return nil
	}
	for i := range a.w.readers {
		r := &a.w.readers[i]
		if r.magic != nil || r.wants == nil || !r.wants(p) || r.wants(own) {
			continue
		}
		key := aliasRead{i, own}
		if a.read[key]++; a.read[key] > maxAliases {
			a.w.note(sbom.ReasonEntries, a.g.prefix+own, fmt.Sprintf("more than %d symbolic links to one package file", maxAliases))
			continue
		}
		found := a.w.guarded(r, r.read, a.w.newFile(a.g, a.g.tree, p, info), a.g.prefix+p)
		a.w.take(a.g, i, found, p)
	}
	if archiveName(p) && !archiveName(own) && info.Size() > 0 {
		a.g.openAs(own, p)
	}
	if a.g.count > maxFindings*a.w.limits.MaxComponents {
		return errStop
	}
	return a.w.ctx.Err()
}

// openAs says that a member is an archive by the name of a link. Jars are known by name.
func (g *grove) openAs(own, p string) {
	if g.names == nil {
		g.names = map[string]string{}
	}
	if g.names[own] != "" {
		return
	}
	g.names[own] = p
	if !slices.Contains(g.nested, own) {
		g.nested = append(g.nested, own)
	}
}

// known reports whether a reader knows a file by this name.
func (w *walk) known(p string) bool {
	for i := range w.readers {
		if r := &w.readers[i]; r.magic == nil && r.wants != nil && r.wants(p) {
			return true
		}
	}
	return false
}

// otherCase is a tree in which one file has another name.
type otherCase struct {
	*archive.Tree
	name, own string
}

func (t otherCase) Open(name string) (fs.File, error) { return t.Tree.Open(t.real(name)) }

func (t otherCase) Stat(name string) (fs.FileInfo, error) { return t.Tree.Stat(t.real(name)) }

func (t otherCase) real(name string) string {
	if name == t.name {
		return t.own
	}
	return name
}
