package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
)

// verdict is all that is known of a child that has ended.
type verdict struct {
	answer    *answer
	answerErr error
	cause     cause
	state     *os.ProcessState
	stderr    string
	limits    Limits
}

// judge says what became of the artifact: an answer, a reason why there is none, or an
// error where it is not the artifact's doing.
func (v *verdict) judge(ctx context.Context, task string) (*answer, *sbom.Reason, error) {
	if v.cause == causeCaller {
		return nil, nil, fmt.Errorf("while the artifact was scanned: %w", context.Cause(ctx))
	}
	if reason := v.died(); reason != nil {
		return nil, reason, nil
	}
	if err := v.answer.check(task); err != nil {
		return nil, crashed("the scanning process gave an answer that is none: %s", err), nil
	}
	switch a := v.answer; {
	case a.Failure != "":
		return nil, nil, refusal.New(CodeScannerUnavailable, "the scanning process: %s", a.Failure)
	case a.Refusal != nil:
		return nil, nil, &refusal.Error{Code: a.Refusal.Code, Field: a.Refusal.Field, Detail: a.Refusal.Detail}
	default:
		return a, nil, nil
	}
}

// died says how the child ended, if not well. Its details are the same each time: they
// become part of what is signed.
func (v *verdict) died() *sbom.Reason {
	status, _ := v.state.Sys().(syscall.WaitStatus)
	switch {
	case v.cause == causeTimeout, status.Signaled() && v.cpu() >= v.limits.cpu()/4*3: // the kernel counts in ticks
		return &sbom.Reason{Code: sbom.ReasonTime, Detail: "the scan took longer than it may, and was stopped"}
	case v.cause == causeAnswer:
		return crashed("the scanning process gave an answer that is none: %s", v.answerErr)
	case outOfMemory(v.stderr), status.Signaled() && status.Signal() == syscall.SIGKILL:
		// Nobody else kills it: this is the kernel, short of memory.
		return &sbom.Reason{Code: sbom.ReasonMemory, Detail: "the scan needed more memory than it may have, and was stopped"}
	case status.Signaled():
		return crashed("the scanning process ended without an answer: signal %s", unix.SignalName(status.Signal()))
	case !v.state.Success():
		return crashed("the scanning process ended without an answer: exit status %d", status.ExitStatus())
	case v.answerErr != nil:
		return crashed("the scanning process ended without an answer")
	}
	return nil
}

func crashed(format string, args ...any) *sbom.Reason {
	detail := strings.ToValidUTF8(fmt.Sprintf(format, args...), "?")
	if len(detail) > 160 {
		detail = strings.ToValidUTF8(detail[:160], "")
	}
	return &sbom.Reason{Code: sbom.ReasonCrashed, Detail: detail}
}

// outOfMemory reports whether standard error is that of a Go program which the kernel
// gave no more memory, or no thread, which takes memory.
func outOfMemory(stderr string) bool {
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "fatal error: ") && !strings.HasPrefix(line, "runtime: ") && !strings.HasPrefix(line, "runtime/cgo: ") {
			continue
		}
		for _, sign := range [...]string{"out of memory", "cannot allocate memory", "failed to create new OS thread", "pthread_create failed"} {
			if strings.Contains(line, sign) {
				return true
			}
		}
	}
	return false
}

// outcome is what Usage says of an ending.
func outcome(ctx context.Context, reason *sbom.Reason, err error) string {
	switch {
	case reason != nil:
		return string(reason.Code)
	case err == nil:
		return "ok"
	case refusal.CodeOf(err) == CodeScannerUnavailable:
		return "failed"
	case refusal.CodeOf(err) != "":
		return "refused"
	case ctx.Err() != nil:
		return "canceled"
	}
	return "failed"
}

func (v *verdict) cpu() time.Duration { return v.state.UserTime() + v.state.SystemTime() }

// memory is the child's own count where it gave one that can be true. The kernel's
// begins, for a forked process, at what its parent had.
func (v *verdict) memory() int64 {
	var most int64
	if usage, ok := v.state.SysUsage().(*syscall.Rusage); ok {
		most = usage.Maxrss << 10
	}
	if v.answer != nil && v.answer.Memory > 0 {
		most = min(most, v.answer.Memory)
	}
	return most
}

// cpu is the CPU time after which the kernel ends the child: all that it can use in
// its time, in whole seconds.
func (l *Limits) cpu() time.Duration {
	const second = time.Second
	return ((l.Time+l.Grace)*time.Duration(l.Processors) + second - 1).Truncate(second)
}

// memoryOf reads the most that was resident of a process, from its status.
func memoryOf(status []byte) int64 {
	_, rest, ok := bytes.Cut(status, []byte("\nVmHWM:"))
	if !ok {
		return 0
	}
	var kib int64
	if _, err := fmt.Sscanf(string(rest[:min(len(rest), 40)]), "%d kB", &kib); err != nil {
		return 0
	}
	return kib << 10
}
