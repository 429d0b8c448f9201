package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// dirPrefix begins the names of what a Sandbox makes, and may remove.
const dirPrefix = "sandbox-"

// tempDir is the directory of one Sandbox. It is locked for as long as its process
// lives, so that what is left of others can be told from what is in use.
type tempDir struct {
	path string
	lock *os.File
}

func openTempDir(base string) (*tempDir, error) {
	if base == "" {
		return nil, errors.New("no directory is given")
	}
	base, err := filepath.Abs(base)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, err
	}
	// One at a time: nobody takes a directory for abandoned that is not locked yet.
	turn, err := os.Open(base)
	if err != nil {
		return nil, err
	}
	defer turn.Close()
	if err := unix.Flock(int(turn.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	if err := sweep(base); err != nil {
		return nil, err
	}
	d := new(tempDir)
	if d.path, err = os.MkdirTemp(base, dirPrefix); err != nil {
		return nil, err
	}
	if d.lock, err = lockDir(d.path); err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.path))
	}
	return d, nil
}

// sweep removes what processes left that are no more.
func sweep(base string) error {
	entries, err := os.ReadDir(base)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), dirPrefix) {
			continue
		}
		path := filepath.Join(base, e.Name())
		lock, err := lockDir(path)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = os.RemoveAll(path)
		lock.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func lockDir(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// job makes the directory of one child.
func (d *tempDir) job() (string, error) { return os.MkdirTemp(d.path, "job-") }

func (d *tempDir) close() error {
	defer d.lock.Close()
	return os.RemoveAll(d.path)
}

// openArtifact opens a regular file, and nothing that only looks like one.
func openArtifact(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
