package scan

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/assay-build/assay/internal/sbom"
)

// errTooLarge is a file that a reader wants whole in memory and that is larger than it may be.
var errTooLarge = errors.New("larger than what is read into memory")

// reader finds packages in one kind of file.
type reader struct {
	// name is for messages, for example "npm/package-lock".
	name string
	// wants says by the path alone, slash-separated and relative to the tree, whether
	// the file is for this reader. It is asked for every file, so it must be cheap.
	wants func(path string) bool
	// magic, where it is set, is asked instead of wants: for regular files that are
	// executable or have no known extension, with their first bytes (up to headBytes).
	magic func(path string, head []byte) bool
	// read returns what the file says. An error is a file that is broken or unreadable:
	// it becomes a Reason, and what was found before it is kept.
	read func(ctx context.Context, f *file) ([]*pkg, error)
	// archive, where it is set, is called once for each archive that was opened (never
	// for an artifact that is one plain file), before its members: for what only the
	// archive as a whole tells, such as a jar without a manifest. f is the archive: its
	// path is the archive's own name without folders, and its tree what is in it, so
	// that open and bytes are not for it; sibling reads members. Both wants and magic
	// may be absent beside it.
	archive func(ctx context.Context, f *file) ([]*pkg, error)
	// resolve, where it is set, is called once after all files of a tree were read,
	// with all packages that this reader found in it: to turn names into dependsOn.
	resolve func(found []*pkg)
}

// pkg is one finding: a package at a place.
type pkg struct {
	sbom.Component
	// path is where it was found, relative to the tree. The walk sets it to the file's
	// where it is empty, and to none for a finding of archive.
	path string
	// needs are names that resolve turns into DependsOn, in the ecosystem's own form.
	needs []string
	// reader is whose finding it is. The walk sets it.
	reader string
	// direct: the artifact itself asks for it (named by a manifest's own dependency
	// list or by nobody else).
	direct bool
	// note is for the reader alone, from read to resolve.
	note any
}

// file is one regular file of a tree.
type file struct {
	tree fs.FS // the tree it is in, for siblings; never the machine's own file system
	path string
	// own is the file's own name, where path is one that tree lends it.
	own  string
	info fs.FileInfo
	// maxRead bounds what is read into memory.
	maxRead int64
	// from is the archive that the tree is of, and never nil.
	from *container
	// tempDir is the scan's private directory, for the few libraries that insist on a
	// named file. Whoever makes one there removes it.
	tempDir string
}

// open gives the content. The result implements io.ReaderAt and io.Seeker too.
func (f *file) open() (fs.File, error) { return f.tree.Open(f.path) }

// bytes reads the whole file, up to maxRead bytes; a larger one is an errTooLarge.
func (f *file) bytes() ([]byte, error) { return readAll(f.tree, f.path, f.maxRead) }

// sibling reads another file of the same tree by its path; fs.ErrNotExist where there is none.
func (f *file) sibling(path string) ([]byte, error) { return readAll(f.tree, path, f.maxRead) }

func readAll(tree fs.FS, path string, limit int64) ([]byte, error) {
	in, err := tree.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	if info, err := in.Stat(); err == nil && info.Mode().IsRegular() && info.Size() <= limit {
		return readSized(in, info.Size())
	}
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, errTooLarge
	}
	return data, err
}

// readSized reads a file whose tree knows its size, without growing the buffer on the way.
func readSized(in io.Reader, size int64) ([]byte, error) {
	data := make([]byte, size)
	n, err := io.ReadFull(in, data)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
		if int64(n) < size {
			err = io.ErrUnexpectedEOF
		}
	}
	return data[:n], err
}
