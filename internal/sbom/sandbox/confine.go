package sandbox

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxStack and maxThreads end a child that recurses or blocks without end. Go's own
	// limits are beyond the memory that it may have.
	maxStack   = 64 << 20
	maxThreads = 256
)

// confine gives up what the child does not need. It tells what was possible; an error
// is a limit that could not be set, or a part of what j.Isolation asks for that is not
// to be had. Then nothing hostile must be read. Where the child gets a root of its own,
// j.Dir becomes that.
func confine(j *job) (Isolation, error) {
	if err := limit(j.Limits); err != nil {
		return Isolation{}, err
	}
	got := Isolation{Namespaces: j.Isolation.Namespaces, Mounts: j.Isolation.Mounts}
	dropped := true
	if j.Isolation.Mounts {
		if err := enterRoot(j.Dir); err != nil {
			return Isolation{}, err
		}
		j.Dir = "/"
		dropped = dropCapabilities() == nil
	}
	// What the program would have of the environment of the service.
	time.Local = time.UTC
	if err := os.Setenv("TMPDIR", j.Dir); err != nil {
		return Isolation{}, err
	}
	got.Landlock = restrictFiles(j.Dir) == nil
	got.Seccomp = filterSyscalls() == nil
	if !dropped && !got.Seccomp {
		return Isolation{}, errors.New("capabilities can be neither given up nor made worthless")
	}
	if !got.covers(j.Isolation) {
		return Isolation{}, fmt.Errorf("isolation %+v is less than there was at start: %+v", got, j.Isolation)
	}
	return got, nil
}

// limit bounds what the child takes of the machine.
func limit(l Limits) error {
	runtime.GOMAXPROCS(l.Processors)
	debug.SetMaxStack(maxStack)
	debug.SetMaxThreads(maxThreads)
	// Collecting becomes diligent before the limit is reached: what it counts is less
	// than what the kernel does, and memory comes from there in pieces of 4 MiB.
	debug.SetMemoryLimit(l.Memory / 4 * 3)
	// A file that becomes too large is then an error of the write, and not the end.
	signal.Ignore(syscall.SIGXFSZ)
	return setLimits(l)
}

// setLimits sets hard limits, so that nothing raises them again.
func setLimits(l Limits) error {
	limits := []struct {
		name     string
		resource int
		value    uint64
	}{
		{"core file size", unix.RLIMIT_CORE, 0},
		{"open files", unix.RLIMIT_NOFILE, uint64(l.OpenFiles)},
		{"file size", unix.RLIMIT_FSIZE, uint64(l.FileSize)},
		{"CPU time", unix.RLIMIT_CPU, uint64(l.cpu() / time.Second)},
		// Not RLIMIT_AS: Go reserves far more addresses than it uses. This one counts
		// private memory that can be written, which is all that Go allocates.
		{"memory", unix.RLIMIT_DATA, uint64(l.Memory)},
	}
	if raceDetector {
		limits = limits[:len(limits)-1] // its shadow memory alone is beyond any limit
	}
	for _, lim := range limits {
		var now unix.Rlimit
		if err := unix.Getrlimit(lim.resource, &now); err != nil {
			return fmt.Errorf("limit of %s: %w", lim.name, err)
		}
		value := min(lim.value, now.Max)
		if err := unix.Setrlimit(lim.resource, &unix.Rlimit{Cur: value, Max: value}); err != nil {
			return fmt.Errorf("limit of %s: %w", lim.name, err)
		}
	}
	return nil
}

// closeInherited closes the descriptors that the parent let through without meaning to:
// those beyond the artifact's that an exec did not close. Those that this process has
// opened since, as the Go runtime does, are marked to be closed by one.
func closeInherited() {
	for _, fd := range openFiles() {
		if fd <= artifactFD {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd) // it is gone then, whatever it says
		}
	}
	unix.CloseOnExec(artifactFD)
}

func openFiles() []int {
	var fds []int
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		for _, e := range entries {
			if fd, err := strconv.Atoi(e.Name()); err == nil {
				fds = append(fds, fd)
			}
		}
		return fds
	}
	// No /proc. Beyond the limit there are none that were opened under it.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		limit.Max = math.MaxUint16
	}
	for fd := range int(min(limit.Max, math.MaxUint16)) {
		fds = append(fds, fd)
	}
	return fds
}
