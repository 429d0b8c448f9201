package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
)

// TestConfined asks children what they can reach.
func TestConfined(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Limits.FileSize = 1 << 20 })
	i := w.Isolation()
	t.Logf("isolation here: %+v", i)
	how := fmt.Sprintf("namespaces=%v mounts=%v landlock=%v seccomp=%v", i.Namespaces, i.Mounts, i.Landlock, i.Seccomp)
	if log := w.log.String(); !strings.Contains(log, how) || strings.Contains(log, "level=INFO") != i.full() {
		t.Errorf("log: %s", log)
	}

	dir := w.dir.path + "/job-"
	if w.Isolation().Mounts {
		dir = "/"
	}
	if got := w.tell(t, "env", ""); !strings.HasPrefix(got, "TMPDIR="+dir) || strings.Contains(got, " ") {
		t.Errorf("environment: %q", got)
	}
	if got := w.tell(t, "dir", ""); !strings.HasPrefix(got, dir) || !strings.HasSuffix(got, "[] <nil>") {
		t.Errorf("directory: %q", got)
	}
	if got, want := w.tell(t, "files", ""), "true <nil> <nil> <nil> <nil> <nil> <nil> <nil>"; got != want {
		t.Errorf("files of its own: %q", got)
	}
	if got := w.tell(t, "fill", ""); !strings.Contains(got, "file too large") {
		t.Errorf("a file beyond the limit: %q", got)
	}
	const no = "operation not permitted"
	if w.Isolation().Seccomp {
		if got := w.tell(t, "start", ""); !strings.Contains(got, no) {
			t.Errorf("a process of its own: %q", got)
		}
		if got, want := w.tell(t, "memory", ""), fmt.Sprint(no, "<nil>", no, no); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
			t.Errorf("memory that is not counted: %q", got)
		}
		if got, want := w.tell(t, "escape", ""), strings.Repeat(no+" ", forbiddenTried); got != strings.TrimSpace(want) {
			t.Errorf("ways out: %q", got)
		}
		if got, want := w.tell(t, "signal", strconv.Itoa(os.Getpid())), strings.Repeat(no, 6); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
			t.Errorf("other processes: %q", got)
		}
	}
	if w.Isolation().Namespaces {
		if got := w.tell(t, "ids", ""); got != "65534 65534 1 0" {
			t.Errorf("user, group, process, parent: %q", got)
		}
	}
	if got, want := w.tell(t, "artifact", ""), "bad file descriptor invalid argument"; got != want {
		t.Errorf("writing to the artifact: %q", got)
	}
}

// TestMountsWhereAllowed sees to it that children have a root of their own wherever
// another program could give itself one.
func TestMountsWhereAllowed(t *testing.T) {
	t.Parallel()
	mount := exec.Command("mount", "--make-rprivate", "/")
	mount.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	if out, err := mount.CombinedOutput(); err != nil {
		t.Skipf("not here: %v %s", err, out)
	}
	w := newWorld(t, nil)
	if i := w.Isolation(); !i.Namespaces || !i.Mounts {
		t.Errorf("isolation %+v\n%s", i, w.log)
	}
}

// TestFilesOutOfReach has children look for what the service has: its data, and other
// tenants' artifacts among it.
func TestFilesOutOfReach(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.Isolation()
	if !i.Mounts && !i.Landlock {
		t.Skip("neither mounts nor Landlock here")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data := artifact(t, "another tenant's")
	for _, path := range []string{
		data, filepath.Dir(data), w.base, w.dir.path, self, "/etc/passwd", "/etc/localtime", "/dev/null", "/dev/shm", "/sys", "/tmp",
		"/proc", "/proc/self/environ", "/proc/self/fd/3", "/proc/self/root/etc/passwd", "/proc/1/status",
		fmt.Sprintf("/proc/%d/mem", os.Getpid()), "../etc/passwd", "../../../../../../../../etc/passwd", "../" + filepath.Base(w.dir.path),
	} {
		got := w.tell(t, "read", path)
		if i.Mounts && !strings.HasSuffix(got, "no such file or directory") || got == "<nil>" {
			t.Errorf("%s: %q", path, got)
		}
	}
	if !i.Mounts {
		return
	}
	if got := w.tell(t, "see", ""); got != "/ true true []" {
		t.Errorf("all files, and what is above them: %q", got)
	}
	if got, err := os.ReadFile(data); err != nil || string(got) != "another tenant's" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

// TestCapabilities looks for what the child needed to get its own root.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if !w.Isolation().Mounts || !w.Isolation().Seccomp {
		t.Skip("no mounts here, or no filter")
	}
	got := w.tell(t, "capabilities", "")
	t.Logf("capabilities of %s", got)
	if !strings.HasSuffix(got, ": none") && !strings.HasPrefix(got, "cgo") {
		t.Errorf("capabilities of %s", got)
	}
}

// TestIsolationIsKept has children find less than the first one found.
func TestIsolationIsKept(t *testing.T) {
	t.Parallel()
	found := newWorld(t, nil).Isolation()
	for name, tt := range map[string]struct {
		started, must Isolation
		want          string
	}{
		"mounts":   {Isolation{Namespaces: found.Namespaces}, Isolation{Namespaces: found.Namespaces, Mounts: true}, "mounts: "},
		"Landlock": {found, Isolation{Landlock: true}, "less than there was at start"},
	} {
		if name == "Landlock" && found.Landlock || name == "mounts" && !found.Namespaces {
			continue
		}
		cmd, _ := child(t, request{Task: "env", Dir: t.TempDir(), Isolation: tt.must}, tt.started)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := fmt.Sprint(cmd.Stdout); !strings.Contains(got, `"failure":`) || !strings.Contains(got, tt.want) || strings.Contains(got, "TMPDIR") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if err := enterRoot(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no namespaces of its own") {
		t.Errorf("in this process: %v", err)
	}
}

// TestLessIsolation takes kinds of namespaces away from a whole service.
func TestLessIsolation(t *testing.T) {
	t.Parallel()
	if !newWorld(t, nil).Isolation().Mounts {
		t.Skip("there is no more here")
	}
	for name, want := range map[string]string{
		"max_mnt_namespaces":  "namespaces=true mounts=false",
		"max_user_namespaces": "namespaces=false mounts=false",
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), withoutVar+"="+name, parentVar+"="+filepath.Dir(artifact(t, "x")))
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		if strings.HasPrefix(string(out), "not here") {
			t.Skipf("%s", out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(lines) != 3 || !strings.Contains(lines[0], "isolation is required") || lines[2] != "<nil>" ||
			!strings.Contains(lines[1], "level=WARN") || !strings.Contains(lines[1], want) || !strings.Contains(lines[1], "error=") {
			t.Errorf("%s:\n%s", name, out)
		}
	}
}

func TestIsolationCovers(t *testing.T) {
	t.Parallel()
	none, all := Isolation{}, Isolation{Namespaces: true, Mounts: true, Landlock: true, Seccomp: true}
	for name, less := range map[string]Isolation{
		"namespaces": {Mounts: true, Landlock: true, Seccomp: true},
		"mounts":     {Namespaces: true, Landlock: true, Seccomp: true},
		"Landlock":   {Namespaces: true, Mounts: true, Seccomp: true},
		"seccomp":    {Namespaces: true, Mounts: true, Landlock: true},
	} {
		if less.covers(all) || !all.covers(less) || !less.covers(less) || !less.covers(none) {
			t.Errorf("without %s: covers", name)
		}
		if less.full() != (name == "Landlock") {
			t.Errorf("without %s: full %v", name, less.full())
		}
	}
}

func TestNoNetwork(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			conn.Close()
			t.Error("the child has connected")
		}
	}()
	w := newWorld(t, nil)
	if !w.Isolation().Namespaces && !w.Isolation().Seccomp {
		t.Skip("neither namespaces nor filters here")
	}
	got := w.tell(t, "dial", l.Addr().String())
	if !strings.HasPrefix(got, "true") || w.Isolation().Seccomp && strings.Count(got, "not permitted") != 3 {
		t.Errorf("sockets: %q", got)
	}
}

func TestLimitsAreHard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) {
		c.Limits.Time, c.Limits.Grace, c.Limits.Processors = 7400*time.Millisecond, time.Second, 2
		c.Limits.Memory, c.Limits.OpenFiles, c.Limits.FileSize = 300<<20, 300, 5<<30
	})
	if raceDetector {
		t.Skip("memory is not limited under the race detector")
	}
	got := w.tell(t, "limits", "")
	want := fmt.Sprintf("0 0 true 300 300 true %[1]d %[1]d true 17 17 true %[2]d %[2]d true", int64(5<<30), 300<<20)
	if got != want {
		t.Errorf("limits %s\nwant   %s", got, want)
	}
}

// TestDescriptors lets one through on purpose, as a program might that was started
// carelessly itself.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	leak, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD, 20) // without FD_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	w := newWorld(t, nil)
	if got := w.tell(t, "descriptors", ""); got != "0 1 2 3" {
		t.Errorf("open in the child: %s", got)
	}
}

// TestEnvironment looks at a child from outside.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _, _ = w.ask(t.Context(), artifact(t, "x"), request{Task: "hang"})
	}()
	pid := awaitChild(t, w)
	for _, file := range []string{"environ", "cmdline"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			t.Fatal(err)
		}
		if file == "environ" && len(data) > 0 || bytes.Contains(data, []byte("canary")) {
			t.Errorf("%s: %q", file, data)
		}
		if file == "cmdline" && string(data) != "assayd\x00scan\x00" {
			t.Errorf("%s: %q", file, data)
		}
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	<-done
	if u := w.last(); u.Outcome != string(sbom.ReasonMemory) {
		t.Errorf("killed by somebody else: %+v", u)
	}
}

// awaitChild waits until the one job of w has a process which has executed the program.
func awaitChild(t *testing.T, w *world) int {
	t.Helper()
	return awaitJob(t, w.dir.path)
}

func awaitJob(t *testing.T, dir string) int {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		procs, err := filepath.Glob("/proc/[0-9]*/cwd")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range procs {
			if !worksIn(p, dir) {
				continue
			}
			line, err := os.ReadFile(filepath.Dir(p) + "/cmdline")
			if err == nil && string(line) == "assayd\x00scan\x00" {
				pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
				if err != nil {
					t.Fatal(err)
				}
				return pid
			}
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 5e6}, nil)
	}
	t.Fatal("no child")
	return 0
}

// worksIn reports whether a process works below dir, or has something there as its root.
func worksIn(cwd, dir string) bool {
	if wd, err := os.Readlink(cwd); err == nil && strings.HasPrefix(wd, dir+"/") {
		return true
	}
	mounts, err := os.ReadFile(filepath.Dir(cwd) + "/mountinfo")
	if err != nil {
		return false
	}
	fields := strings.Fields(string(mounts)) // the fourth is the root within its disk
	return len(fields) > 4 && fields[4] == "/" && strings.Contains(fields[3],
		filepath.Join(filepath.Base(filepath.Dir(dir)), filepath.Base(dir))+"/")
}

// awaitEnd waits for a process that is not ours to end.
func awaitEnd(t *testing.T, pidfd int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 1000)
		if n == 1 {
			return
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
	t.Error("it still runs")
}

// TestParentKilled kills a service while it scans. What it leaves goes with the next.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), parentVar+"="+base)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	pid := awaitJob(t, base)
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, pidfd)
	_ = cmd.Wait() // it is killed; its lock goes with it
	d, err := openTempDir(base)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(base + "/*"); len(left) != 1 || left[0] != d.path {
		t.Errorf("left: %v", left)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

// child starts one by hand, without a parent that would end it.
func child(t *testing.T, req request, isolation Isolation) (*exec.Cmd, func()) {
	t.Helper()
	file, err := os.Open(artifact(t, "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{"assayd", childArg}, Env: []string{}, ExtraFiles: []*os.File{file}, SysProcAttr: &syscall.SysProcAttr{}, Stdout: new(bytes.Buffer)}
	isolate(cmd.SysProcAttr, isolation)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	req.Limits.complete()
	line, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	in.Write(append(line, '\n'))
	return cmd, func() { in.Close() }
}

// TestStdinEnds: the end of its input is the end of a child, without any signal.
func TestStdinEnds(t *testing.T) {
	t.Parallel()
	cmd, hangUp := child(t, request{Task: "hang", Dir: t.TempDir()}, Isolation{})
	hangUp()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitUnasked {
		t.Errorf("%v", err)
	}
}

// TestCPULimit leaves ending the child to the kernel.
func TestCPULimit(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("computes for a second")
	}
	for _, isolation := range []Isolation{{}, newWorld(t, nil).Isolation()} {
		l := Limits{Time: time.Second, Grace: -1, Processors: 1} // one second in all
		cmd, _ := child(t, request{Task: "spin", Dir: t.TempDir(), Limits: l, Isolation: isolation}, isolation)
		_ = cmd.Wait()
		v := verdict{state: cmd.ProcessState, limits: l}
		if reason := v.died(); reason == nil || reason.Code != sbom.ReasonTime {
			t.Errorf("%+v: %v, %v after %v", isolation, cmd.ProcessState, reason, v.cpu())
		}
	}
}

// TestDiskFull gives children a disk that is soon full.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := unix.Mount("none", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no disk to fill: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	w := newWorld(t, func(c *Config) { c.TempDir = filepath.Join(disk, "scan") })
	w.base = filepath.Join(disk, "scan")
	if got := w.tell(t, "fill", ""); !strings.Contains(got, "no space left") {
		t.Errorf("in the child: %q", got)
	}
	w.empty(t)
	full := filepath.Join(disk, "full")
	f, err := os.Create(full)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()
	for i := 0; err != nil && i < 1e5; i++ { // and no more names
		if err = os.WriteFile(fmt.Sprintf("%s%d", full, i), nil, 0o600); err != nil {
			break
		}
	}
	_, err = w.Scan(t.Context(), artifact(t, "x"), "x")
	if err != nil && refusal.CodeOf(err) != CodeScannerUnavailable {
		t.Errorf("in the parent: %v", err)
	}
}
