package archive

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// maxLinked is how many names symbolic links may give, as a multiple of the members that
// all archives may have.
const maxLinked = 2

// Links calls fn for each name that the symbolic links of the tree give to a file in it:
// those of the links that lead to files, and of all files below the folders that links lead
// to. target is the path of the file itself. Links come in the order of their paths, and
// what is below a folder in the order of its paths.
//
// Before the files of a folder, fn is called with the folder; fs.SkipDir leaves them out.
// fs.SkipAll ends it all. Links that lead nowhere are passed over, and within a folder no
// link is followed that leads to a folder it is reached through. What is beyond a bound
// that all trees share is a reason.
func (t *Tree) Links(fn func(name, target string, info fs.FileInfo) error) error {
	l := &linked{t: t, fn: fn}
	for i := range t.links {
		if err := l.offer(t.links[i].path, &t.links[i]); err != nil {
			if errors.Is(err, fs.SkipAll) {
				return nil
			}
			return err
		}
	}
	return nil
}

// linked is one call of Links.
type linked struct {
	t  *Tree
	fn func(name, target string, info fs.FileInfo) error
	// through are the folders that lead to where it is.
	through []string
}

// offer gives what one link leads to under a name for it.
func (l *linked) offer(name string, at *link) error {
	target, ok := l.t.leads(at)
	if !ok || target == at.path {
		return nil
	}
	if e := l.t.entry(target); e != nil {
		return l.file(name, target, e)
	}
	if len(l.through) >= maxLinkHops || slices.Contains(l.through, target) {
		return nil
	}
	if err := l.call(name, target, folder{path.Base(name)}); err != nil {
		if errors.Is(err, fs.SkipDir) {
			return nil
		}
		return err
	}
	l.through = append(l.through, target)
	err := l.below(name, target)
	l.through = l.through[:len(l.through)-1]
	return err
}

// below gives the files and links of a folder.
func (l *linked) below(name, target string) error {
	t, head := l.t, target+"/"
	if target == "." {
		head = ""
	}
	i := sort.Search(len(t.entries), func(i int) bool { return t.entries[i].path >= head })
	for ; i < len(t.entries) && strings.HasPrefix(t.entries[i].path, head); i++ {
		e := &t.entries[i]
		if err := l.file(name+"/"+e.path[len(head):], e.path, e); err != nil {
			return err
		}
	}
	i = sort.Search(len(t.links), func(i int) bool { return t.links[i].path >= head })
	for ; i < len(t.links) && strings.HasPrefix(t.links[i].path, head); i++ {
		if err := l.offer(name+"/"+t.links[i].path[len(head):], &t.links[i]); err != nil {
			return err
		}
	}
	return nil
}

// file gives one file.
func (l *linked) file(name, target string, e *entry) error {
	if err := l.call(name, target, e); !errors.Is(err, fs.SkipDir) {
		return err
	}
	return nil // there is nothing in it to leave out
}

// call counts what it gives.
func (l *linked) call(name, target string, info fs.FileInfo) error {
	b := l.t.b
	if b.linked%1024 == 0 {
		if err := b.alive(l.t.ctx); err != nil {
			return err
		}
	}
	if b.linked >= maxLinked*b.limits.MaxEntries {
		b.note(sbom.ReasonEntries, l.t.where(), "symbolic links that give too many names")
		return fs.SkipAll
	}
	if len(name) > b.limits.MaxPathBytes {
		b.note(sbom.ReasonUnsafePath, l.t.prefix+target, "symbolic links that give a name that is too long")
		return fs.SkipDir
	}
	b.linked++
	return l.fn(name, target, info)
}

// leads returns the path of the file or folder that a link leads to. The link may be the
// second meaning of a file, which is what its own path leads to.
func (t *Tree) leads(at *link) (string, bool) {
	root, rest := t.root(at.path), at.target
	if !path.IsAbs(rest) {
		rest = strings.TrimPrefix(path.Dir(at.path), root) + "/" + rest
	}
	p, err := t.resolve("open", root, rest, at.path, true)
	return p, err == nil
}
