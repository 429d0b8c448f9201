package archive

import (
	"os"

	"golang.org/x/sys/unix"
)

// unnamedFile never has a name, not even for a moment.
func unnamedFile(dir string) (*os.File, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|unix.O_EXCL, 0o600)
	if err != nil {
		return namedThenUnnamed(dir)
	}
	return os.NewFile(uintptr(fd), "unnamed"), nil
}
