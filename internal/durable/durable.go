// Package durable writes files that a crash leaves whole or not at all.
//
//	err := durable.Create("keys/log.pem", text, 0o600)      // errors.Is(err, fs.ErrExist): another was first
//	err = durable.Replace("tuf/timestamp.json", text, 0o644)
//
// When a function returns nil, the file is there with all of its content and stays after
// a power cut. When it does not, or the machine stops before, the name has what it had,
// or the new content whole. A crash may also leave a temporary file beside it, whose name
// Strays knows, with any content: the next writer removes it, if nobody else writes.
//
// A file is written under its temporary name, synced, given its name, and its directory
// synced. Who wants to act between these steps takes them one at a time: Stage, os.Rename,
// SyncDir.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// infix stands in the names of files that are being written; a dot is before.
const infix = ".new-"

// Create makes the file path, and fails with fs.ErrExist where the name is taken. What
// took the name is then as durable as if it had been made by this call: whoever made it
// may have crashed before it was.
func Create(path string, content []byte, mode fs.FileMode) error {
	tmp, err := Stage(path, content, mode)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	// Link, unlike rename, does not replace: of two creators the second fails.
	linked := os.Link(tmp, path)
	if linked != nil && !errors.Is(linked, fs.ErrExist) {
		return linked
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return linked
}

// Replace makes the file path, or puts it in the place of the one that is there.
func Replace(path string, content []byte, mode fs.FileMode) error {
	tmp, err := Stage(path, content, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Stage writes and syncs a temporary file beside path, and returns its name.
func Stage(path string, content []byte, mode fs.FileMode) (string, error) {
	// CreateTemp opens with O_EXCL and mode 0600.
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+infix+"*")
	if err != nil {
		return "", err
	}
	if err := fill(tmp, content, mode); err != nil {
		os.Remove(tmp.Name())
		return "", err
	}
	return tmp.Name(), nil
}

// fill writes f and closes it. An fsync error is final: the kernel may have dropped the
// pages, so a second fsync that succeeds proves nothing.
func fill(f *os.File, content []byte, mode fs.FileMode) error {
	_, err := f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return nil
}

// Strays returns the temporary files in dir: those that crashes have left, and those of
// writers who are at it.
func Strays(dir string) ([]string, error) {
	return filepath.Glob(filepath.Join(dir, ".*"+infix+"*"))
}

// SyncDir makes durable which names dir has.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
