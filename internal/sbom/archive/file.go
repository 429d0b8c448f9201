package archive

import (
	"errors"
	"io"
	"io/fs"
	"slices"
)

// openFile is an open regular file: its bytes are a range of a source, or come out of a
// decompressor as far as they are asked for.
type openFile struct {
	e   *entry
	r   io.ReaderAt
	off int64
	// closer lets go of a decompressor; nil for ranges.
	closer io.Closer
	closed bool
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.e, nil }

func (f *openFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.off)
	f.off += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *openFile) ReadAt(p []byte, off int64) (int, error) {
	if f.closed {
		return 0, fs.ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	return f.r.ReadAt(p, off)
}

func (f *openFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.off
	case io.SeekEnd:
		offset += f.e.size
	default:
		return 0, fs.ErrInvalid
	}
	if f.closed {
		return 0, fs.ErrClosed
	}
	if offset < 0 {
		return 0, fs.ErrInvalid
	}
	f.off = offset
	return offset, nil
}

func (f *openFile) Close() error {
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// openFolder is an open folder.
type openFolder struct {
	t       *Tree
	path    string
	name    string
	entries []fs.DirEntry
	listed  bool
}

func (d *openFolder) Stat() (fs.FileInfo, error) { return folder{d.name}, nil }
func (d *openFolder) Close() error               { return nil }

func (d *openFolder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.path, Err: errors.New("is a directory")}
}

func (d *openFolder) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.listed {
		d.entries, d.listed = d.t.list(d.path), true
	}
	if n <= 0 {
		all := d.entries
		d.entries = nil
		return all, nil
	}
	if len(d.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.entries))
	some := slices.Clip(d.entries[:n])
	d.entries = d.entries[n:]
	return some, nil
}
