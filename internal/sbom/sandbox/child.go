package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/assay-build/assay/internal/refusal"
)

// childArg is the one argument of a child.
const childArg = "scan"

// artifactFD is where a child finds the artifact.
const artifactFD = 3

// Exit codes of a child.
const (
	exitAnswered = 0
	exitUnasked  = 1 // no request, or nobody left to answer
)

// Child is the first thing that a program calls which starts children of itself: main,
// or TestMain. In a child it does what the parent asks, and returns the exit code.
// Everywhere else it returns false at once.
func Child(args []string) (code int, ok bool) {
	if !isChild(args) || !startedByParent() {
		return 0, false
	}
	return Main(args, os.Stdin, os.Stdout, os.Stderr), true
}

func isChild(args []string) bool { return len(args) == 2 && args[1] == childArg }

// startedByParent tells a child from a person who types its command line.
func startedByParent() bool {
	var in, artifact unix.Stat_t
	return unix.Fstat(0, &in) == nil && in.Mode&unix.S_IFMT == unix.S_IFIFO &&
		unix.Fstat(artifactFD, &artifact) == nil
}

// Main is the child. It answers one request, and returns the exit code of its process,
// which must then end: what it gave up for the artifact's sake does not come back.
func Main(_ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return serve(stdin, stdout, stderr, tasks())
}

func serve(stdin io.Reader, stdout, stderr io.Writer, tasks map[string]task) int {
	closeInherited()
	in := bufio.NewReaderSize(stdin, maxRequestBytes)
	j, err := receive(in)
	if err != nil {
		fmt.Fprintf(stderr, "assayd scan: %v\n", err)
		return exitUnasked
	}
	gauge := openGauge()
	confined, err := confine(&j)
	if err != nil {
		return say(stdout, stderr, &answer{Failure: clip(err.Error(), maxFailureBytes)})
	}
	gone := make(chan struct{})
	go func() {
		// Whatever comes, its end is all that matters.
		_, _ = io.Copy(io.Discard, in)
		close(gone)
	}()
	done := make(chan *answer, 1)
	go func() { done <- do(j, tasks[j.Task]) }()
	select {
	case <-gone:
		return exitUnasked
	case a := <-done:
		a.Confined, a.Memory = confined, gauge.peak()
		return say(stdout, stderr, a)
	}
}

// receive reads the request, and looks at the artifact from outside.
func receive(in *bufio.Reader) (j job, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return j, fmt.Errorf("no request: %w", err)
	}
	if err := json.Unmarshal(line, &j.request); err != nil {
		return j, fmt.Errorf("no request: %w", err)
	}
	j.artifact = os.NewFile(artifactFD, "artifact")
	if j.artifact == nil {
		return j, errors.New("no artifact")
	}
	info, err := j.artifact.Stat()
	if err != nil {
		return j, fmt.Errorf("no artifact: %w", err)
	}
	j.size = info.Size()
	return j, nil
}

// do runs the task for as long as it may take. A panic ends the process, as it should:
// the parent makes a reason of it.
func do(j job, t task) *answer {
	if t == nil {
		return &answer{Failure: clip("no task "+j.Task, maxFailureBytes)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), j.Limits.Time)
	defer cancel()
	a, err := t(ctx, j)
	var r *refusal.Error
	switch {
	case err == nil:
		return a
	case errors.As(err, &r):
		return &answer{Refusal: &refused{Code: r.Code, Field: clip(r.Field, maxFailureBytes), Detail: clip(r.Detail, maxFailureBytes)}}
	}
	return &answer{Failure: clip(err.Error(), maxFailureBytes)}
}

func say(stdout, stderr io.Writer, a *answer) int {
	out := bufio.NewWriterSize(stdout, 64<<10)
	err := writeAnswer(out, a)
	if err = errors.Join(err, out.Flush()); err != nil {
		fmt.Fprintf(stderr, "assayd scan: %v\n", err)
		return exitUnasked
	}
	return exitAnswered
}

// gauge reads how much memory this process has used. It is opened while that is still
// possible.
type gauge struct{ status *os.File }

func openGauge() gauge {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return gauge{} // no /proc: it says 0, which is "not known"
	}
	return gauge{f}
}

func (g gauge) peak() int64 {
	if g.status == nil {
		return 0
	}
	buf := make([]byte, 8<<10)
	n, err := g.status.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0
	}
	return memoryOf(bytes.TrimSpace(buf[:n]))
}
