package signing

import (
	"fmt"
	"os"
	"path/filepath"
)

// createDurable makes the file path with the given content, whole or not at all,
// and fails with fs.ErrExist where the name is taken. A crash before the link
// leaves a stray temporary file and nothing under path; after the link the file is
// complete, and after the last fsync it stays.
func createDurable(path string, content []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if err := writeAndSync(tmp, content, mode); err != nil {
		return err
	}
	// Link, unlike rename, does not replace: of two creators the second fails.
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// writeAndSync fills f and closes it. An fsync error is final: the kernel may have
// dropped the pages, so a second fsync that succeeds proves nothing.
func writeAndSync(f *os.File, content []byte, mode os.FileMode) error {
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

func syncDir(dir string) error {
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
