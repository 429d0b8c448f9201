package sandbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// enterRoot makes dir all that there is of a file system, for all threads
// (pivot_root(2)). It is for a process that was started with a mount namespace of its
// own. After an error nothing may be said of where a path leads.
func enterRoot(dir string) error {
	// Here, and with the right to do it, this would take the machine's root away. The
	// namespaces are made together, and in a PID namespace the first process is 1.
	if os.Getpid() != 1 {
		return errors.New("mounts: the process has no namespaces of its own")
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		// Nothing that is mounted here is to be seen elsewhere, nor the other way round.
		{"private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"bind", func() error { return unix.Mount(dir, dir, "", unix.MS_BIND, "") }},
		{"chdir", func() error { return unix.Chdir(dir) }},
		// The old root comes to lie on top of the new one, where it can be unmounted
		// without a directory of its own (pivot_root(2), NOTES).
		{"pivot_root", func() error { return unix.PivotRoot(".", ".") }},
		{"unmount", func() error { return unix.Unmount(".", unix.MNT_DETACH) }},
		{"chdir to the root", func() error { return unix.Chdir("/") }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("mounts: %s: %w", step.name, err)
		}
	}
	// The filter forbids programs and devices as well; kernels before 5.12 leave it at that.
	_ = unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
	})
	return nil
}

// dropCapabilities gives up, for all threads, what enterRoot needs. With cgo it cannot:
// then the filter must make them worthless.
func dropCapabilities() error {
	// Its length is that of version 3, which has 64 capabilities.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	return asError(errno)
}
