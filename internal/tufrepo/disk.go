package tufrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/assay-build/assay/internal/durable"
	"github.com/assay-build/assay/internal/refusal"
	"golang.org/x/sys/unix"
)

const (
	lockName     = ".lock"
	lockPatience = 5 * time.Second
	// fileMode is for all to read: what is in a repository is public.
	fileMode = 0o644
)

// disk is the directory of a repository.
type disk struct {
	dir string
	// before is called with the name of a file that is about to appear, change or go.
	// Tests let it fail, which leaves what a crash there would.
	before func(name string) error
}

func (d *disk) path(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

// create makes a file that must not change once it is there. The same content a second
// time is no change.
func (d *disk) create(name string, content []byte) error {
	return d.put(name, func(path string) error {
		err := durable.Create(path, content, fileMode)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		there, readErr := os.ReadFile(path)
		if readErr != nil || !bytes.Equal(there, content) {
			return refusal.New(CodeRepositoryInvalid, "%s is there with another content and never changes", name)
		}
		return nil
	})
}

// replace makes or replaces a file.
func (d *disk) replace(name string, content []byte) error {
	return d.put(name, func(path string) error { return durable.Replace(path, content, fileMode) })
}

func (d *disk) put(name string, write func(path string) error) error {
	if err := d.crash(name); err != nil {
		return err
	}
	if err := write(d.path(name)); err != nil {
		return fmt.Errorf("tuf repository: write %s: %w", name, err)
	}
	return nil
}

// rename moves a file to its final name.
func (d *disk) rename(from, to string) error {
	if err := d.crash(to); err != nil {
		return err
	}
	if err := os.Rename(d.path(from), d.path(to)); err != nil {
		return fmt.Errorf("tuf repository: %w", err)
	}
	return syncDir(d.dir)
}

func (d *disk) remove(name string) error {
	if err := d.crash(name); err != nil {
		return err
	}
	if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tuf repository: %w", err)
	}
	return nil
}

func (d *disk) crash(name string) error {
	if d.before == nil {
		return nil
	}
	return d.before(name)
}

// read returns a file of at most limit bytes. What is not there is fs.ErrNotExist.
func (d *disk) read(name string, limit int64) ([]byte, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, refusal.New(CodeRepositoryInvalid, "%s has more than %d bytes", name, limit)
	}
	return data, nil
}

// lock keeps other processes, and other repositories of this one, from changing the
// directory until the returned function is called.
func (d *disk) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(d.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal.New(CodeNotInitialized, "there is no TUF repository in %s; begin one with assayd tuf init", d.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("tuf repository: %w", err)
	}
	if err := flock(ctx, f); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, refusal.New(CodeLocked, "another process has been changing %s for %s", d.dir, lockPatience)
		}
		return nil, fmt.Errorf("tuf repository: lock: %w", err)
	}
	return func() { f.Close() }, nil
}

func flock(ctx context.Context, f *os.File) error {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	enough := time.After(lockPatience)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-enough:
			return err
		}
	}
}

func syncDir(dir string) error {
	if err := durable.SyncDir(dir); err != nil {
		return fmt.Errorf("tuf repository: %w", err)
	}
	return nil
}
