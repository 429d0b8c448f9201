package archive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"time"
)

// Tree is one archive as a read-only file system. It is not for concurrent use.
type Tree struct {
	b      *Budget
	ctx    context.Context //nolint:containedctx // fs.FS has no place for it; a tree lives within one scan
	format string
	prefix string
	depth  int

	entries []entry // regular files in order of path
	links   []link  // symbolic links in order of path
	sources []io.ReaderAt
	closers []io.Closer
	indexed int64 // of Budget.index
	images  []Image
}

// entry is a regular file: a range of a source, and how it is packed. It is its own
// fs.FileInfo, so that a walk allocates nothing.
type entry struct {
	path    string
	off     int64
	packed  int64
	size    int64
	charged int64 // of Budget.unpacked
	src     uint32
	crc     uint32
	method  method
	perm    uint16
}

type link struct{ path, target string }

func (e *entry) Name() string       { return path.Base(e.path) }
func (e *entry) Size() int64        { return e.size }
func (e *entry) Mode() fs.FileMode  { return fs.FileMode(e.perm).Perm() }
func (e *entry) ModTime() time.Time { return time.Time{} }
func (e *entry) IsDir() bool        { return false }
func (e *entry) Sys() any           { return nil }

// folder and symlink are the other things that a tree shows.
type (
	folder  struct{ name string }
	symlink struct{ *link }
)

func (f folder) Name() string       { return f.name }
func (f folder) Size() int64        { return 0 }
func (f folder) Mode() fs.FileMode  { return fs.ModeDir | 0o755 }
func (f folder) ModTime() time.Time { return time.Time{} }
func (f folder) IsDir() bool        { return true }
func (f folder) Sys() any           { return nil }

func (l symlink) Name() string       { return path.Base(l.path) }
func (l symlink) Size() int64        { return int64(len(l.target)) }
func (l symlink) Mode() fs.FileMode  { return fs.ModeSymlink | 0o777 }
func (l symlink) ModTime() time.Time { return time.Time{} }
func (l symlink) IsDir() bool        { return false }
func (l symlink) Sys() any           { return nil }

// Format names what the archive was recognised as; see the package comment.
func (t *Tree) Format() string { return t.format }

// Prefix is what goes before the paths of this tree to say where in the artifact they are:
// "" for the artifact itself, "app.war!/WEB-INF/lib/x.jar!/" for an archive in archives.
func (t *Tree) Prefix() string { return t.prefix }

// Close gives up the memory and the temporary files of the tree. Trees opened from it
// must be closed before.
func (t *Tree) Close() error {
	var errs []error
	for _, c := range slices.Backward(t.closers) {
		errs = append(errs, c.Close())
	}
	t.b.index -= t.indexed
	t.closers, t.sources, t.entries, t.links, t.indexed = nil, nil, nil, nil, 0
	return errors.Join(errs...)
}

// source makes r known to the entries of the tree.
func (t *Tree) source(r io.ReaderAt) uint32 {
	t.sources = append(t.sources, r)
	return uint32(len(t.sources) - 1)
}

// raw is what the archive stores for a file.
func (t *Tree) raw(e *entry) *io.SectionReader {
	return io.NewSectionReader(t.sources[e.src], e.off, e.packed)
}

// Walk calls fn for each regular file, in the order of the bytes of its path. Symbolic
// links are not followed and not reported: what they lead to is in the tree under its own
// name, and Links gives the other names. fs.SkipAll ends the walk.
func (t *Tree) Walk(fn func(path string, info fs.FileInfo) error) error {
	for i := range t.entries {
		if i%1024 == 0 {
			if err := t.b.alive(t.ctx); err != nil {
				return err
			}
		}
		if err := fn(t.entries[i].path, &t.entries[i]); err != nil {
			if errors.Is(err, fs.SkipAll) {
				return nil
			}
			return err
		}
	}
	return nil
}

// Open opens a file or folder, as fs.FS. Symbolic links are followed within the tree.
// What it returns for a regular file is an io.ReaderAt and an io.Seeker too.
func (t *Tree) Open(name string) (fs.File, error) {
	p, err := t.follow("open", name)
	if err != nil {
		return nil, err
	}
	if e := t.entry(p); e != nil {
		return t.openEntry(e), nil
	}
	return &openFolder{t: t, path: p, name: path.Base(name)}, nil
}

// Stat describes what name leads to.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	p, err := t.follow("stat", name)
	if err != nil {
		return nil, err
	}
	if e := t.entry(p); e != nil {
		return e, nil
	}
	return folder{path.Base(name)}, nil
}

// Lstat describes name itself, where it is a symbolic link.
func (t *Tree) Lstat(name string) (fs.FileInfo, error) {
	p, err := t.followParents("lstat", name)
	if err != nil {
		return nil, err
	}
	if l := t.link(p); l != nil && t.entry(p) == nil {
		return symlink{l}, nil
	}
	return t.Stat(p)
}

// ReadLink returns the target of a symbolic link as the archive spells it.
func (t *Tree) ReadLink(name string) (string, error) {
	p, err := t.followParents("readlink", name)
	if err != nil {
		return "", err
	}
	l := t.link(p)
	if l == nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return l.target, nil
}

// ReadDir lists a folder by name.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	p, err := t.follow("readdir", name)
	if err != nil {
		return nil, err
	}
	if t.entry(p) != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	return t.list(p), nil
}

// list makes the entries of a folder from the paths that start with it.
func (t *Tree) list(dir string) []fs.DirEntry {
	head := dir + "/"
	if dir == "." {
		head = ""
	}
	var out []fs.DirEntry
	each := func(n int, at func(int) string, leaf func(int) fs.FileInfo) {
		i := sort.Search(n, func(i int) bool { return at(i) >= head })
		for i < n && strings.HasPrefix(at(i), head) {
			name, _, below := strings.Cut(at(i)[len(head):], "/")
			if !below {
				out = append(out, fs.FileInfoToDirEntry(leaf(i)))
				i++
				continue
			}
			out = append(out, fs.FileInfoToDirEntry(folder{name}))
			after := head + name + "0" // '0' follows '/'
			i += sort.Search(n-i, func(k int) bool { return at(i+k) >= after })
		}
	}
	each(len(t.entries), func(i int) string { return t.entries[i].path }, func(i int) fs.FileInfo { return &t.entries[i] })
	each(len(t.links), func(i int) string { return t.links[i].path }, func(i int) fs.FileInfo { return symlink{&t.links[i]} })
	slices.SortStableFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	// A folder shows once though files and links are below it; where an archive has a file
	// of its name too, the file shows.
	return slices.CompactFunc(out, func(a, b fs.DirEntry) bool { return a.Name() == b.Name() })
}

func (t *Tree) entry(p string) *entry {
	i := sort.Search(len(t.entries), func(i int) bool { return t.entries[i].path >= p })
	if i < len(t.entries) && t.entries[i].path == p {
		return &t.entries[i]
	}
	return nil
}

func (t *Tree) link(p string) *link {
	i := sort.Search(len(t.links), func(i int) bool { return t.links[i].path >= p })
	if i < len(t.links) && t.links[i].path == p {
		return &t.links[i]
	}
	return nil
}

// isFolder reports whether anything is below p.
func (t *Tree) isFolder(p string) bool {
	if p == "." {
		return true
	}
	head := p + "/"
	i := sort.Search(len(t.entries), func(i int) bool { return t.entries[i].path >= head })
	if i < len(t.entries) && strings.HasPrefix(t.entries[i].path, head) {
		return true
	}
	i = sort.Search(len(t.links), func(i int) bool { return t.links[i].path >= head })
	return i < len(t.links) && strings.HasPrefix(t.links[i].path, head)
}

// follow returns the path of the file or folder that name leads to.
func (t *Tree) follow(op, name string) (string, error) {
	return t.walkLinks(op, name, true)
}

// followParents follows the links in the folders of name, and leaves its last element.
func (t *Tree) followParents(op, name string) (string, error) {
	return t.walkLinks(op, name, false)
}

func (t *Tree) walkLinks(op, name string, last bool) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	missing := &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	if t.entry(name) != nil || name == "." {
		return name, nil
	}
	if len(t.links) == 0 {
		if t.isFolder(name) {
			return name, nil
		}
		return "", missing
	}
	root := t.root(name)
	return t.resolve(op, root, strings.TrimPrefix(name[len(root):], "/"), name, last)
}

// resolve follows rest from the root of an image or of the tree. name is what was asked for.
func (t *Tree) resolve(op, root, rest, name string, last bool) (string, error) {
	missing := &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	at := root
	for hops := 0; rest != ""; {
		element, after, _ := strings.Cut(rest, "/")
		var next string
		switch element {
		case "", ".":
			rest = after
			continue
		case "..":
			if at == root {
				if len(t.images) == 0 {
					return "", missing // it leads out
				}
				rest = after // the root of a container is its own parent
				continue
			}
			if next = path.Dir(at); next == "." {
				next = ""
			}
			at, rest = next, after
			continue
		default:
			next = path.Join(at, element)
		}
		l := t.link(next)
		if l == nil || after == "" && !last {
			at, rest = next, after
			continue
		}
		if hops++; hops > maxLinkHops || len(l.target)+len(after) > 2*t.b.limits.MaxPathBytes {
			return "", missing
		}
		if rest = l.target; path.IsAbs(rest) {
			at = root
		}
		if after != "" {
			rest += "/" + after
		}
	}
	if at == "" {
		return ".", nil
	}
	if t.entry(at) != nil || !last && t.link(at) != nil || t.isFolder(at) {
		return at, nil
	}
	return "", missing
}

// root is the folder that "/" stands for where name is: the image that it is in.
func (t *Tree) root(name string) string {
	for i := range t.images {
		if p := t.images[i].Prefix; p != "" && strings.HasPrefix(name, p) {
			return strings.TrimSuffix(p, "/")
		}
	}
	return ""
}
