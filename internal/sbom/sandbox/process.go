package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
)

// maxStderr is what is kept of a child's standard error: the first lines of a crash.
const maxStderr = 16 << 10

// probeTime bounds the first child, which has nothing to do, whatever others may take.
const probeTime = 10 * time.Second

// nobody is the child's user in its own namespace. It is not 0, so that executing the
// program leaves it without capabilities even there, but for the one it is given.
const nobody = 65534

// process is one child.
type process struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	stdout  io.ReadCloser
	stderr  head
	limits  Limits
	timeout time.Duration // after which it is killed

	mu    sync.Mutex
	ended bool  // it needs no killing any more
	cause cause // why it was killed
}

// cause is why the parent killed a child.
type cause int

const (
	causeNone cause = iota
	causeTimeout
	causeCaller // its caller went away
	causeAnswer // its answer is none
)

// run starts a child, has it do what req says, and makes sure that it is gone when it
// returns. A reason is what came of the artifact in place of an answer.
func (s *Sandbox) run(ctx context.Context, artifact *os.File, req request) (*answer, *sbom.Reason, error) {
	end := make(chan func() (*answer, *sbom.Reason, error), 1)
	go func() {
		// A child dies with the thread that started it, so nothing else may use this
		// thread, or end it, before the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		a, reason, err := s.attend(ctx, artifact, req)
		end <- func() (*answer, *sbom.Reason, error) { return a, reason, err }
	}()
	return (<-end)()
}

func (s *Sandbox) attend(ctx context.Context, artifact *os.File, req request) (*answer, *sbom.Reason, error) {
	begun := s.now()
	info, err := artifact.Stat()
	if err != nil {
		return nil, nil, refusal.New(CodeScannerUnavailable, "the artifact cannot be read: %w", err)
	}
	dir, err := s.dir.job()
	if err != nil {
		return nil, nil, refusal.New(CodeScannerUnavailable, "no temporary directory: %w", err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			s.log.Warn("scan: a temporary directory stays behind", "error", err)
		}
	}()
	req.Dir, req.Limits, req.Isolation = dir, s.limits, s.isolation
	if req.Task == taskProbe {
		req.Limits.Time, req.Limits.Grace = probeTime, probeTime
	}
	req.Limits.Time += time.Duration(float64(s.limits.TimePerGiB) * float64(info.Size()) / (1 << 30))
	p, err := s.start(artifact, req)
	if err != nil {
		return nil, nil, refusal.New(CodeScannerUnavailable, "the scanning process did not start: %w", err)
	}
	out := p.output(ctx, s.dir.path)
	defer out.close()
	a, answerErr := p.converse(ctx, out)
	state := p.wait()
	v := verdict{
		answer: a, answerErr: answerErr, cause: p.cause, state: state, stderr: p.stderr.text.String(), limits: p.limits,
	}
	u := Usage{Memory: v.memory(), CPU: v.cpu(), Wall: s.now().Sub(begun)}
	a, reason, err := v.judge(ctx, req.Task)
	if out.refused != nil && p.cause != causeTimeout && p.cause != causeCaller {
		a, reason, err = nil, nil, out.refused
	}
	u.Outcome = outcome(ctx, reason, err)
	s.observe(u)
	if reason != nil {
		s.log.Warn("scan: no answer", "task", req.Task, "outcome", u.Outcome, "detail", reason.Detail, "stderr", v.stderr[:min(len(v.stderr), maxStderr/8)])
	}
	return a, reason, err
}

// start executes the child and writes the request. The child has nothing of the
// parent's but what is named here.
func (s *Sandbox) start(artifact *os.File, req request) (*process, error) {
	p := &process{limits: req.Limits, timeout: req.Limits.Time + req.Limits.Grace}
	p.cmd = &exec.Cmd{
		Path:       s.command[0],
		Args:       append([]string{"assayd"}, s.command[1:]...),
		Env:        []string{}, // nil would be the parent's
		Dir:        req.Dir,
		ExtraFiles: []*os.File{artifact},
		Stderr:     &p.stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Setpgid:   true,
			Pdeathsig: syscall.SIGKILL,
		},
	}
	isolate(p.cmd.SysProcAttr, s.isolation)
	line, err := req.line()
	if err != nil {
		return nil, err
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	// It fits the pipe: a child that does not read it stops nobody. One that has died
	// is found out about by its missing answer.
	if _, err := p.stdin.Write(line); err != nil && !errors.Is(err, unix.EPIPE) {
		p.kill(causeAnswer)
		p.wait()
		return nil, err
	}
	return p, nil
}

// isolate gives the child namespaces in which there is nothing and nobody. For mounts it
// may do in its own what it then has to do there (enterRoot).
func isolate(a *syscall.SysProcAttr, i Isolation) {
	if !i.Namespaces {
		return
	}
	a.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Geteuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getegid(), Size: 1}}
	if i.Mounts {
		a.Cloneflags |= unix.CLONE_NEWNS
		a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
}

// converse reads the answer. When it returns the child has said all it will, or is
// being killed.
func (p *process) converse(ctx context.Context, out io.Reader) (*answer, error) {
	timer := time.AfterFunc(p.timeout, func() { p.kill(causeTimeout) })
	defer timer.Stop()
	stop := context.AfterFunc(ctx, func() { p.kill(causeCaller) })
	defer stop()
	a, err := readAnswer(out, p.limits.Output)
	if err != nil {
		// It may yet be about to die of what kept it from answering. Its end says why,
		// so it gets the rest of its time for that; but it is not read from any more.
		p.stdout.Close()
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			p.kill(causeAnswer)
		}
	}
	p.ending()
	return a, err
}

// ending waits for the child to end, and leaves it unreaped: until wait, its number
// stands for nobody else.
func (p *process) ending() {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// kill ends the child, for the first cause there is.
func (p *process) kill(c cause) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		if c == causeAnswer && p.cause == causeNone {
			p.cause = c // which shows only when the answer is read to its end
		}
		return
	}
	p.ended, p.cause = true, c
	p.signal()
}

// signal kills whatever is in the child's process group. It must not be reaped yet.
func (p *process) signal() {
	// It fails where all have ended, which is as well.
	_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
}

// wait reaps the child, together with whatever it left in its process group.
func (p *process) wait() *os.ProcessState {
	p.ending()
	p.mu.Lock()
	p.ended = true
	p.signal()
	p.mu.Unlock()
	p.stdin.Close()
	// How it ended is read from the state. Its standard error ended with it.
	_ = p.cmd.Wait()
	return p.cmd.ProcessState
}

// head keeps the beginning of what is written to it.
type head struct{ text bytes.Buffer }

func (h *head) Write(b []byte) (int, error) {
	h.text.Write(b[:min(len(b), maxStderr-h.text.Len())])
	return len(b), nil
}

// probe learns whether children can be started, and with what isolation. That is asked
// once: what a later child cannot have, it must do without reading anything.
func (s *Sandbox) probe() error {
	var a *answer
	var err error
	var refused []error
	for _, s.isolation = range []Isolation{{Namespaces: true, Mounts: true}, {Namespaces: true}, {}} {
		// A filter around the service may refuse by an error, or by killing the child.
		if a, err = s.tryStart(); err == nil {
			break
		}
		refused = append(refused, err)
	}
	if err != nil {
		return err
	}
	s.isolation.Landlock, s.isolation.Seccomp = a.Confined.Landlock, a.Confined.Seccomp
	s.tell(errors.Join(refused...))
	return nil
}

// tell logs what keeps children away, and what became of what does not.
func (s *Sandbox) tell(refused error) {
	i := s.isolation
	how := []any{"namespaces", i.Namespaces, "mounts", i.Mounts, "landlock", i.Landlock, "seccomp", i.Seccomp}
	if refused != nil {
		how = append(how, "error", refused)
	}
	switch {
	case !i.Mounts && !i.Landlock:
		s.log.Warn("scan: nothing but its limits keeps the scanning process from the files of the service", how...)
	case !i.full():
		s.log.Warn("scan: the scanning process is not fully isolated", how...)
	default:
		s.log.Info("scan: the scanning process is isolated", how...)
	}
}

func (s *Sandbox) tryStart() (*answer, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	a, reason, err := s.run(context.Background(), null, request{Task: taskProbe})
	if err == nil && reason != nil {
		err = fmt.Errorf("sandbox: %s %v does not answer as a scanning process: %s", s.command[0], s.command[1:], reason.Detail)
	}
	return a, err
}
