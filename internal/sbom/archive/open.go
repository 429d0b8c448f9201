package archive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// Open reads an artifact of size bytes. What it is is recognised by its content; name is
// what a plain file, or the content of a compressed one, is called in the tree.
//
// The error is one of the machine's own disk, or the end of ctx. Whatever is wrong with
// the artifact is a reason of the budget, and the tree has what could be read.
func (b *Budget) Open(ctx context.Context, r io.ReaderAt, size int64, name string) (*Tree, error) {
	b.size = max(size, 1)
	t := &Tree{b: b, ctx: ctx, depth: 1}
	name = baseName(name)
	if in := (guarded{r, b}); !t.load(in, size, name) {
		t.single(in, size, name)
		if head := readHead(in, size); unreadName(head, name) {
			b.note(sbom.ReasonUnsupported, "", "an archive of a kind that is not read")
		}
	}
	return t.opened()
}

// Nested opens a member that is itself an archive; false where it is none. A zip may have
// anything before it: a script, a program. The paths of the tree are relative to it. It must
// be closed before t is.
func (t *Tree) Nested(ctx context.Context, name string) (*Tree, bool, error) {
	e := t.entry(name)
	if e == nil {
		return nil, false, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if err := t.b.alive(ctx); err != nil {
		return nil, false, err
	}
	f := t.openEntry(e)
	if t.depth >= t.b.limits.MaxDepth {
		if s, _, _ := recognise(readHead(f, e.size)); s != shapeFile || t.b.endsAsZip(f.r, e.size) {
			t.b.note(sbom.ReasonDepth, t.prefix+name, "archives that lie too deep in each other")
		}
		return nil, false, errors.Join(f.Close(), t.b.err)
	}
	size := e.size
	if s, ok := f.closer.(*spool); ok {
		s.ctx = ctx
		if err := s.all(); err != nil {
			t.b.noteErr(t.prefix+name, err)
			if !isMalformed(err) { // beyond a limit; what came out is no archive
				return nil, false, errors.Join(f.Close(), t.b.err)
			}
		}
		size = s.filled
	}
	if s, _, _ := recognise(readHead(f, size)); s == shapeFile && !t.b.endsAsZip(f.r, size) {
		return nil, false, errors.Join(f.Close(), t.b.err)
	}
	in := &Tree{b: t.b, ctx: ctx, depth: t.depth + 1, prefix: t.prefix + name + "!/", closers: []io.Closer{f}}
	if !in.load(f.r, size, path.Base(name)) {
		return nil, false, errors.Join(in.Close(), t.b.err)
	}
	in, err := in.opened()
	return in, err == nil, err
}

// opened returns the tree, or closes it where the machine failed.
func (t *Tree) opened() (*Tree, error) {
	if err := t.b.alive(t.ctx); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// readHead returns the first bytes of r, fewer where there are no more.
func readHead(r io.ReaderAt, size int64) []byte {
	head := make([]byte, min(headBytes, max(size, 0)))
	n, _ := r.ReadAt(head, 0)
	return head[:n]
}

// load fills the tree from an archive; false where r is none.
func (t *Tree) load(r io.ReaderAt, size int64, name string) bool {
	head := readHead(r, size)
	s, m, format := recognise(head)
	t.format = format
	if s == shapeUnknown {
		t.b.note(sbom.ReasonUnsupported, t.where(), "an archive of the kind "+format+", which is not read")
		s = shapeFile
	}
	if other := t.second(r, size, head, s, name); other != s {
		s, t.format = other, "zip"
	}
	switch s {
	case shapeZip:
		bd := newBuilder(t, namesZip)
		bd.addZip(r, size)
		bd.finish()
	case shapeTar:
		t.loadTar(r, size)
	case shapeDeb:
		t.loadDeb(r, size)
	case shapePacked:
		t.loadPacked(m, r, size, name)
	default:
		return false
	}
	return true
}

// where is the archive itself, in reasons.
func (t *Tree) where() string { return strings.TrimSuffix(t.prefix, "!/") }

// second looks whether some bytes are a zip to who looks at their end, and something else
// to who looks at their beginning; it returns the form to read. Most readers of zip do not
// mind what is before it. Of what is two archives at once, one is missed.
func (t *Tree) second(r io.ReaderAt, size int64, head []byte, s shape, name string) shape {
	if s == shapeZip {
		if isTar(head) {
			t.b.note(sbom.ReasonUnsafePath, t.where(), "a zip that is a tar too")
		}
		return s
	}
	dir, err := t.b.findZipDir(r, size)
	switch {
	case err != nil, dir.size < zipCentralSize:
		return s
	case s != shapeFile && !dir.leads(r), s == shapeTar && t.withinMember(r, size, dir), s == shapeDeb && dir.base > 0:
		return s // of a Debian package all parts are read, and what is behind them is said
	case s != shapeFile:
		t.b.note(sbom.ReasonUnsafePath, t.where(), "an archive of another kind that is a zip too")
		if !mayHideZip(head, name) {
			return s
		}
	case t.depth == 1 && isNative(head):
		return s // a program first of all; Nested opens what is in it
	case t.depth == 1 && !mayHideZip(head, name):
		t.b.note(sbom.ReasonUnsafePath, t.where(), "a zip behind something else")
	}
	return shapeZip
}

// withinMember reports whether a zip is in one member of a tar, which lists it as what it
// is. Tars end with padding: those that end with a small zip look like one.
func (t *Tree) withinMember(r io.ReaderAt, size int64, dir zipDir) bool {
	ix := tarIndex{w: &window{r: r, size: size}}
	for range t.b.limits.MaxEntries {
		m, err := ix.next()
		if err != nil || m.off > dir.base {
			return false
		}
		if m.off+m.size >= dir.end {
			return true
		}
	}
	return false
}

// loadTar fills the tree from a tar.
func (t *Tree) loadTar(r io.ReaderAt, size int64) {
	bd := newBuilder(t, namesTar)
	bd.addTar(r, size, "")
	bd.finish()
	t.special()
}

// loadPacked fills the tree from a compressed stream: the members of the tar in it, or
// the one file that it is.
func (t *Tree) loadPacked(m method, r io.ReaderAt, size int64, name string) {
	s := t.spool(m, io.NewSectionReader(r, 0, size))
	if err := s.all(); err != nil {
		t.b.noteErr(t.where(), err)
	}
	if kind, _, _ := recognise(readHead(s, s.filled)); kind == shapeTar {
		t.format = "tar+" + m.String()
		t.loadTar(s, s.filled)
		return
	}
	t.format = m.String()
	t.only(s, s.filled, unpackedName(name))
}

// single makes a tree of one file.
func (t *Tree) single(r io.ReaderAt, size int64, name string) {
	t.format = "file"
	t.only(r, size, name)
}

func (t *Tree) only(r io.ReaderAt, size int64, name string) {
	t.entries = []entry{{path: name, packed: size, size: size, src: t.source(r), perm: 0o644}}
	t.b.files++
	t.b.entries++
}

// unpackedName is the name without what compression added to it.
func unpackedName(name string) string {
	for _, ext := range []string{".gz", ".zst", ".xz", ".bz2"} {
		if bare, ok := strings.CutSuffix(name, ext); ok && bare != "" {
			return bare
		}
	}
	return name
}

// baseName is the last element of a name, fit for a path of fs.FS.
func baseName(name string) string {
	name = path.Base(strings.ReplaceAll(printable(name, 255), `\`, "/"))
	if name == "." || name == "/" || name == ".." {
		return "artifact"
	}
	return name
}
