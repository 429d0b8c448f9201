package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
)

// parentVar makes this program a parent that is to be killed. It names its directory.
const parentVar = "ASSAY_TEST_SANDBOX_PARENT"

// withoutVar makes this program a parent where one kind of namespace cannot be had. It
// names the sysctl of user_namespaces(7) that says so.
const withoutVar = "ASSAY_TEST_SANDBOX_WITHOUT"

// secretVar is in the environment of every parent, and of no child.
const secretVar = "ASSAY_TEST_SANDBOX_SECRET"

func TestMain(m *testing.M) {
	if isChild(os.Args) && startedByParent() {
		os.Exit(serve(os.Stdin, os.Stdout, os.Stderr, testTasks()))
	}
	if name := os.Getenv(withoutVar); name != "" {
		os.Exit(without(name, os.Getenv(parentVar)))
	}
	if dir := os.Getenv(parentVar); dir != "" {
		os.Exit(parent(dir))
	}
	os.Setenv(secretVar, "canary-7f3a")
	os.Exit(m.Run())
}

// parent runs a child that never ends.
func parent(dir string) int {
	s, err := New(Config{TempDir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		var self string
		if self, err = os.Executable(); err == nil {
			_, _, err = s.ask(context.Background(), self, request{Task: "hang"})
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// without tells what isolation there is without some namespaces, and whether that will do.
func without(name, dir string) int {
	if err := os.WriteFile("/proc/sys/user/"+name, []byte("0"), 0); err != nil {
		fmt.Println("not here:", err)
		return 0
	}
	_, err := New(Config{TempDir: dir, Isolation: IsolationRequired, Logger: slog.New(slog.DiscardHandler)})
	fmt.Println(err)
	s, err := New(Config{TempDir: dir, Logger: slog.New(slog.NewTextHandler(os.Stdout, nil))})
	if err == nil {
		_, err = s.Scan(context.Background(), dir+"/artifact", "x")
		err = errors.Join(err, s.Close())
	}
	fmt.Println(err)
	return 0
}

// say makes a task of one that has a word to say.
func saying(f func(j job) string) task {
	return func(_ context.Context, j job) (*answer, error) { return nil, errors.New(f(j)) }
}

// writing makes a task of one that does without the protocol.
func writing(parts ...string) task {
	return func(context.Context, job) (*answer, error) {
		for _, p := range parts {
			os.Stdout.WriteString(p)
		}
		os.Exit(0)
		return nil, nil
	}
}

func forever() { <-make(chan int) }

func testTasks() map[string]task {
	all := tasks()
	const answered = `{"inventory":{},"confined":{"namespaces":false,"mounts":false,"landlock":false,"seccomp":false},"memory":0}`
	for name, t := range map[string]task{
		"hang":         saying(func(job) string { forever(); return "" }),
		"litter":       saying(litter),
		"spin":         saying(func(job) string { return spin() }),
		"mute":         saying(func(job) string { os.Stdout.Close(); forever(); return "" }),
		"linger":       saying(func(job) string { os.Stdout.WriteString(answered); os.Stdout.Close(); forever(); return "" }),
		"allocate":     saying(allocate),
		"allocate-one": saying(func(job) string { return strconv.Itoa(len(make([]byte, 4<<30))) }),
		"recurse":      saying(func(job) string { return strconv.Itoa(recurse(0)) }),
		"threads":      saying(threads),
		"panic":        saying(func(job) string { panic("at the disco") }),
		"exit":         saying(func(job) string { os.Exit(7); return "" }),
		"exit-well":    saying(func(job) string { os.Exit(0); return "" }),
		"answer-fail":  saying(func(job) string { os.Stdout.WriteString(answered); os.Exit(7); return "" }),
		"garbage":      saying(func(job) string { os.Stdout.WriteString("PASS\nok\n"); forever(); return "" }),
		"flood":        saying(func(job) string { flood(`{"failure":"`, "x"); return "" }),
		"spaces":       saying(func(job) string { flood(answered, " "); return "" }),
		"twice":        writing(answered, answered),
		"nothing":      writing(`{}`),
		"everything":   writing(`{"inventory":{},"failure":"x"}`),
		"refuse":       writing(`{"refusal":{"code":"NO","detail":"x"}}`),
		"unsorted":     writing(`{"inventory":{"components":[{"purl":"pkg:npm/b@1","name":"b"},{"purl":"pkg:npm/a@1","name":"a"}]}}`),
		"tiny":         writing(`{"inventory":{"components":[`, strings.Repeat(`{},`, sbom.MaxComponents+1), `{}]}}`),
		"unknown":      writing(`{"inventory":{},"Inventory":{}}`),
		"duplicate":    writing(`{"inventory":{},"inventory":{}}`),
		"large":        writing(`{"inventory":{},`, strings.Repeat(" ", 3*maxUnasked), `"confined":{"namespaces":false,"mounts":false,"landlock":false,"seccomp":false},"memory":0}`),
		"large, cut":   writing(`{"inventory":{},`, strings.Repeat(" ", 3*maxUnasked)),
		"cut":          writing(`{"inventory":{"comp`),
		"shout":        saying(func(job) string { shout(); os.Exit(7); return "" }),
		"env":          saying(func(job) string { return strings.Join(os.Environ(), " ") }),
		"dir":          saying(func(job) string { wd, _ := os.Getwd(); list, err := os.ReadDir("."); return fmt.Sprint(wd, list, err) }),
		"files":        saying(files),
		"read":         saying(func(j job) string { _, err := os.ReadFile(j.Name); return fmt.Sprint(err) }),
		"see":          saying(see),
		"artifact":     saying(writeArtifact),
		"escape":       saying(escape),
		"capabilities": saying(capabilities),
		"fill":         saying(func(j job) string { return fmt.Sprint(fill()) }),
		"dial":         saying(dial),
		"start": saying(func(job) string {
			_, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
			return fmt.Sprint(err)
		}),
		"signal":      saying(signalOthers),
		"memory":      saying(sharedMemory),
		"limits":      saying(limits),
		"descriptors": saying(func(job) string { return inherited() }),
		"ids":         saying(func(job) string { return fmt.Sprint(os.Getuid(), os.Getgid(), os.Getpid(), os.Getppid()) }),
		"refuse-check": func(context.Context, job) (*answer, error) {
			return nil, refusal.New("SBOM_TEST", "line\none \xff %s", strings.Repeat("x", 5000)).InField("a\x1bb")
		},
	} {
		all[name] = t
	}
	return all
}

func litter(j job) string {
	deep := j.Dir
	for range 40 {
		deep = filepath.Join(deep, strings.Repeat("d", 60))
		if err := os.Mkdir(deep, 0o700); err != nil {
			return err.Error()
		}
		os.WriteFile(filepath.Join(deep, "f"), []byte("x"), 0o400)
	}
	forever()
	return ""
}

func allocate(job) string {
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = byte(i)
		}
		all = append(all, b)
		if len(all) > 4<<10 {
			return "4 GiB"
		}
	}
}

// spin never ends, but no linter can know.
func spin() string {
	for i := uint64(1); i != 0; i += 2 {
		continue
	}
	return "2⁶⁴"
}

func recurse(n int) int {
	var pad [64]int
	if n < 1<<40 {
		pad[n%64] = recurse(n + 1)
	}
	return pad[(n+1)%64]
}

func threads(job) string {
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		return err.Error()
	}
	for range 2000 {
		go unix.Read(p[0], make([]byte, 1)) // keeps its thread
	}
	forever()
	return ""
}

func flood(begin, more string) {
	os.Stdout.WriteString(begin)
	for more = strings.Repeat(more, 1<<16); ; {
		if _, err := os.Stdout.WriteString(more); err != nil {
			return
		}
	}
}

func shout() {
	for range 1000 {
		os.Stderr.WriteString(strings.Repeat("x", 1<<10))
	}
}

// files does with files all that a scan does.
func files(j job) string {
	f, err := os.CreateTemp("", "x")
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	_, err1 := f.WriteString("text")
	err2 := f.Truncate(1)
	fd, err3 := unix.Open(j.Dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err3 == nil {
		_, err3 = unix.Write(fd, []byte("x"))
	}
	return fmt.Sprint(filepath.Dir(f.Name()) == j.Dir, err1, err2, err3, os.Remove(f.Name()),
		os.Mkdir("sub", 0o700), os.WriteFile("sub/f", nil, 0o600), os.RemoveAll("sub"))
}

// see lists all files there are, whether there is anything above them, and descriptors
// that lead to other directories.
func see(job) string {
	var all []string
	err := filepath.WalkDir("/", func(path string, _ os.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		return err.Error()
	}
	root, err1 := os.Stat("/")
	above, err2 := os.Stat("../..")
	here, err3 := os.Stat(".")
	if err := errors.Join(err1, err2, err3); err != nil {
		return err.Error()
	}
	var out []int
	for fd := range 512 {
		if unix.Fchdir(fd) == nil {
			out = append(out, fd)
		}
	}
	return fmt.Sprint(strings.Join(all, " "), " ", os.SameFile(root, above), " ", os.SameFile(root, here), " ", out)
}

// writeArtifact tries to change what others will read.
func writeArtifact(j job) string {
	_, err := j.artifact.WriteAt([]byte("x"), 0)
	var e unix.Errno
	errors.As(err, &e)
	return fmt.Sprint(e.Error(), " ", unix.Ftruncate(artifactFD, 0))
}

// forbiddenTried is how many ways out escape tries.
const forbiddenTried = 26

func escape(job) string {
	var out []string
	try := func(number uintptr, args ...uintptr) {
		args = append(args, make([]uintptr, 6)...)
		_, _, errno := unix.RawSyscall6(number, args[0], args[1], args[2], args[3], args[4], args[5])
		out = append(out, errno.Error())
	}
	for _, number := range []uintptr{
		unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
		unix.SYS_PIDFD_GETFD, unix.SYS_KCMP, unix.SYS_USERFAULTFD, unix.SYS_BPF, unix.SYS_IO_URING_SETUP,
		unix.SYS_PERF_EVENT_OPEN, unix.SYS_KEYCTL, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_CAPSET,
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR,
		unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_MOUNT_SETATTR, unix.SYS_LISTMOUNT,
	} {
		try(number)
	}
	// As a thread, but with what is not one's own: neither may be had.
	try(unix.SYS_CLONE, unix.CLONE_NEWNET)
	try(unix.SYS_CLONE, unix.CLONE_THREAD|unix.CLONE_VM|unix.CLONE_SIGHAND|unix.CLONE_NEWNET|unix.CLONE_NEWUSER)
	return strings.Join(out, " ")
}

// capabilities tells those of threads, some of which are new.
func capabilities(job) string {
	var with atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			runtime.LockOSThread() // and never unlocked: the next one gets another
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			if err := unix.Capget(&header, &data[0]); err != nil || data != [2]unix.CapUserData{} {
				with.Add(1)
			}
		})
	}
	wg.Wait()
	build := "cgo"
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno == 0 {
		build = "no cgo"
	}
	if with.Load() > 0 {
		return build + ": some"
	}
	return build + ": none"
}

// fill writes until it cannot.
func fill() error {
	f, err := os.CreateTemp("", "x")
	if err != nil {
		return err
	}
	block := bytes.Repeat([]byte("x"), 1<<16)
	for {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
}

func dial(j job) string {
	conn, err := (&net.Dialer{Timeout: time.Second}).Dial("tcp", j.Name)
	if err == nil {
		conn.Close()
	}
	_, raw := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	_, local := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	_, ring := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0)
	return fmt.Sprint(err != nil, raw, local, ring)
}

func signalOthers(j job) string {
	pid, _ := strconv.Atoi(j.Name)
	_, err := unix.PidfdOpen(pid, 0)
	return fmt.Sprint(unix.Kill(pid, 0), unix.Tgkill(pid, pid, 0), unix.PtraceAttach(pid), err, unix.Setpgid(0, 0),
		unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, new(unix.Rlimit)))
}

func sharedMemory(job) string {
	_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	_, private := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	_, fd := unix.MemfdCreate("x", 0)
	return fmt.Sprint(err, private, fd, unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0))
}

func limits(job) string {
	var out []string
	for _, r := range []int{unix.RLIMIT_CORE, unix.RLIMIT_NOFILE, unix.RLIMIT_FSIZE, unix.RLIMIT_CPU, unix.RLIMIT_DATA} {
		var lim unix.Rlimit
		unix.Getrlimit(r, &lim)
		raise := unix.Setrlimit(r, &unix.Rlimit{Cur: lim.Max + 1, Max: lim.Max + 1})
		out = append(out, fmt.Sprint(lim.Cur, lim.Max, raise != nil))
	}
	return strings.Join(out, " ")
}

// inherited lists the descriptors that an exec would leave open, and counts the others.
func inherited() string {
	var out []string
	for fd := range 512 {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && (flags&unix.FD_CLOEXEC == 0 || fd <= artifactFD) {
			out = append(out, strconv.Itoa(fd))
		}
	}
	return strings.Join(out, " ")
}
