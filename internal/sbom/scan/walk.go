package scan

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/archive"
)

// headBytes is how much of a file is read to recognise it: a tar says so at byte 257.
const headBytes = 512

// maxFindings bounds what one tree keeps until its names are resolved, as a multiple of
// the components that may be kept: one package is often named by several files.
const maxFindings = 4

// maxReasons bounds the reasons that are kept for Normalize, which keeps some of each code.
const maxReasons = 64 * sbom.MaxReasons

// maxDetail bounds what is kept of an error until Normalize makes a line of it.
const maxDetail = 1 << 10

// errStop ends a walk that has found as much as may be kept.
var errStop = errors.New("enough")

// walk is one scan.
type walk struct {
	ctx     context.Context
	limits  Limits
	budget  *archive.Budget
	readers []reader
	tempDir string
	merged  *merger
	reasons []sbom.Reason
	noted   map[sbom.Reason]bool
	gunzip  gunzipper
	headBuf [headBytes]byte
	// single is what an artifact that is one plain file turned out to be.
	single string
}

// grove is one tree while it is walked.
type grove struct {
	tree   *archive.Tree
	from   *container
	prefix string
	// found is by reader, in the order of readers.
	found [][]*pkg
	count int
	// nested are the members to open as archives, in the order of the walk, and names those
	// of links that say more of one than its own.
	nested []string
	names  map[string]string
}

// tree walks one tree, then the archives in it. prefix leads to the tree from the artifact.
func (w *walk) tree(t *archive.Tree, from *container, prefix string) error {
	g := &grove{tree: t, from: from, prefix: prefix, found: make([][]*pkg, len(w.readers))}
	if from.format != "file" {
		w.asArchive(g)
	}
	err := t.Walk(func(path string, info fs.FileInfo) error { return w.file(g, path, info) })
	if err == nil && from.format != "file" {
		err = w.aliases(g)
	}
	w.resolve(g)
	if errors.Is(err, errStop) {
		w.note(sbom.ReasonComponents, prefix, "more packages than are kept")
		err = nil
	}
	if err != nil {
		return err
	}
	nested, names := g.nested, g.names
	g = nil // its findings are merged; nested trees need the memory
	for _, p := range nested {
		if err := w.nested(t, p, cmp.Or(names[p], p), prefix); err != nil {
			return err
		}
	}
	return nil
}

// asArchive offers an archive as a whole to the readers that ask for it.
func (w *walk) asArchive(g *grove) {
	f := &file{tree: g.tree, path: g.from.name, maxRead: w.limits.MaxReadBytes, from: g.from, tempDir: w.tempDir}
	for i := range w.readers {
		if r := &w.readers[i]; r.archive != nil {
			w.take(g, i, w.guarded(r, r.archive, f, strings.TrimSuffix(g.prefix, "!/")), "")
		}
	}
}

// file offers one file to the readers.
func (w *walk) file(g *grove, p string, info fs.FileInfo) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	f := w.newFile(g, g.tree, p, info)
	head := w.head(f, info)
	if g.cached(p, head) {
		return nil
	}
	single := g.from.format == "file" && g.prefix == ""
	if wanted := w.offer(g, f, head, single); !wanted {
		if name := knownCase(p); name != "" && w.known(name) {
			other := w.newFile(g, otherCase{g.tree, name, p}, name, info)
			other.own = p
			w.offer(g, other, nil, single)
		}
	}
	if single && w.single == "" {
		w.single = nativeFormat(head)
	}
	switch {
	case (!single || isNative(head)) && w.toOpen(p, head, info.Size()):
		g.nested = append(g.nested, p)
	case single && w.budget.Noted() > 0: // what was tried and failed has its reason
	case unread(p, head):
		w.note(sbom.ReasonUnsupported, g.prefix+p, "an archive of a kind that is not read")
	}
	if g.count > maxFindings*w.limits.MaxComponents {
		return errStop
	}
	return nil
}

// offer gives a file to all readers that know it, and reports whether one did.
func (w *walk) offer(g *grove, f *file, head []byte, single bool) (wanted bool) {
	for i := range w.readers {
		r := &w.readers[i]
		if (r.magic == nil || len(head) == 0 || !r.magic(f.path, head)) && (r.magic != nil || r.wants == nil || !r.wants(f.path)) {
			continue
		}
		wanted = true
		own := cmp.Or(f.own, f.path)
		found := w.guarded(r, r.read, f, g.prefix+own)
		for _, k := range found {
			if k.path == f.path {
				k.path = own
			}
		}
		w.take(g, i, found, own)
		if single && len(found) > 0 && w.single == "" {
			w.single = strings.ReplaceAll(r.name, "/", "-")
		}
	}
	return wanted
}

func (w *walk) newFile(g *grove, tree fs.FS, p string, info fs.FileInfo) *file {
	return &file{tree: tree, path: p, info: info, maxRead: w.limits.MaxReadBytes, from: g.from, tempDir: w.tempDir}
}

// take keeps findings until the tree's names are resolved.
func (w *walk) take(g *grove, i int, found []*pkg, p string) {
	for _, k := range found {
		k.reader = w.readers[i].name
		if k.path == "" {
			k.path = p
		}
	}
	g.found[i] = append(g.found[i], found...)
	g.count += len(found)
}

// resolve turns names into edges and merges the findings of a tree into the whole.
func (w *walk) resolve(g *grove) {
	for i, found := range g.found {
		r := &w.readers[i]
		if len(found) == 0 {
			continue
		}
		if r.resolve != nil {
			w.guarded(r, func(context.Context, *file) ([]*pkg, error) { r.resolve(found); return nil, nil }, nil, g.prefix)
		}
		for _, k := range found {
			k.path = g.location(k.path)
			if !w.merged.add(k) {
				w.note(sbom.ReasonMalformed, k.path, r.name+": a package that cannot be named")
			}
		}
		g.found[i] = nil
	}
}

// location is a path of the tree as seen from the artifact.
func (g *grove) location(p string) string {
	if p == "" {
		return strings.TrimSuffix(g.prefix, "!/")
	}
	return g.prefix + p
}

// nested opens a member that may be an archive, and walks it. name is what it is called,
// where a link calls it something else.
func (w *walk) nested(t *archive.Tree, p, name, prefix string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	noted := w.budget.Noted()
	inner, ok, err := t.Nested(w.ctx, p)
	if err != nil {
		return err
	}
	if !ok {
		// What was tried and failed has its reason: here, or where one compressed file was
		// opened whose content this is.
		failed := w.budget.Noted() > noted || noted > 0 && slices.Contains([]string{"gzip", "zstd", "xz", "bzip2"}, t.Format())
		if !failed && unread(name, w.headOf(t, p)) {
			w.note(sbom.ReasonUnsupported, prefix+name, "an archive of a kind that is not read")
		}
		return nil
	}
	from := &container{name: path.Base(name), path: name, format: inner.Format(), nested: true, open: func() (io.Reader, func() error, error) {
		in, err := t.Open(p)
		if err != nil {
			return nil, nil, err
		}
		return in, in.Close, nil
	}}
	err = w.tree(inner, from, prefix+name+"!/")
	return errors.Join(err, inner.Close())
}

// guarded runs a reader. What goes wrong becomes a reason at the place.
func (w *walk) guarded(r *reader, read func(context.Context, *file) ([]*pkg, error), f *file, at string) (found []*pkg) {
	defer func() {
		if p := recover(); p != nil {
			// The text of a panic may hold addresses; the same bytes give the same result.
			w.note(sbom.ReasonFailed, at, r.name+" failed")
		}
	}()
	found, err := read(w.ctx, f)
	switch {
	case err == nil, w.ctx.Err() != nil:
	case errors.Is(err, errTooLarge):
		w.note(sbom.ReasonFileSize, at, r.name+": "+err.Error())
	case errors.Is(err, errUnsupported):
		w.note(sbom.ReasonUnsupported, at, r.name+": "+err.Error())
	default:
		w.note(sbom.ReasonMalformed, at, r.name+": "+err.Error())
	}
	return found
}

// head reads a file's first bytes; none where it cannot be read, which its readers will notice.
func (w *walk) head(f *file, info fs.FileInfo) []byte {
	if info.Size() < 4 {
		return nil
	}
	return w.headOf(f.tree, f.path)
}

// headOf is overwritten by the next one.
func (w *walk) headOf(tree fs.FS, p string) []byte {
	in, err := tree.Open(p)
	if err != nil {
		return nil
	}
	defer in.Close() //nolint:errcheck // only read
	n, _ := io.ReadFull(in, w.headBuf[:])
	return w.headBuf[:n]
}

// note records why something is missing.
func (w *walk) note(code sbom.ReasonCode, p, detail string) {
	// Parsers put what they read into their errors, which may be all of a large file.
	reason := sbom.Reason{Code: code, Path: p, Detail: strings.Clone(detail[:min(len(detail), maxDetail)])}
	if len(w.reasons) < maxReasons && !w.noted[reason] {
		w.noted[reason] = true
		w.reasons = append(w.reasons, reason)
	}
}

// outOfTime turns a deadline into a reason.
func (w *walk) outOfTime(err error) bool {
	if !errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	w.note(sbom.ReasonTime, "", "the scan took longer than it may")
	return true
}
