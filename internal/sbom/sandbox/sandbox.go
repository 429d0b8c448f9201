package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/check"
)

// Why nothing was scanned or checked.
const (
	// CodeScannerBusy: too many artifacts wait to be scanned, or the caller's time
	// ended while this one did. Try again later.
	CodeScannerBusy refusal.Code = "SCANNER_BUSY"
	// CodeScannerUnavailable: the scanning process could not be started, or the machine
	// failed it: no disk, no memory for a process. It is not about the artifact.
	CodeScannerUnavailable refusal.Code = "SCANNER_UNAVAILABLE"
	// CodeSBOMUncheckable: a document that a client made brought its checker to a limit
	// of time or memory, or to a crash.
	CodeSBOMUncheckable refusal.Code = "SBOM_UNCHECKABLE"
)

// What Config.Isolation asks for.
const (
	IsolationAuto     = "auto"     // what the kernel allows; the log says what
	IsolationRequired = "required" // namespaces, mounts and the filter, or New fails
)

// Config configures a Sandbox.
type Config struct {
	// Command starts the child: a program that calls Child, and the argument that makes
	// it one. Default: the running program, with `scan`.
	Command []string
	// TempDir holds the children's directories. It is made where it is not there. What
	// is on a tmpfs counts as memory, and nothing limits it.
	TempDir string
	// Workers is how many children run at once. Default: one for each processor.
	Workers int
	// Queue is how many may wait for a worker. Default 256; negative: none.
	Queue int
	// Limits default to DefaultLimits, each for itself.
	Limits Limits
	// Isolation is IsolationAuto, the default, or IsolationRequired.
	Isolation string
	// Observe, where it is set, is told of each child that has ended.
	Observe func(Usage)
	// Logger default: slog.Default().
	Logger *slog.Logger
}

// Limits bound one child.
type Limits struct {
	// Memory bounds what the child can allocate, in bytes. Its program's own pages come
	// on top, some tens of MiB that all children share.
	Memory int64 `json:"memory"`
	// Time is how long an artifact may take, and TimePerGiB what its size adds.
	Time       time.Duration `json:"time"`
	TimePerGiB time.Duration `json:"timePerGiB"`
	// Grace is how long after that the child may take to tell what it found.
	Grace time.Duration `json:"grace"`
	// FileSize bounds each temporary file.
	FileSize int64 `json:"fileSize"`
	// OpenFiles bounds descriptors.
	OpenFiles int `json:"openFiles"`
	// Processors bounds how many threads compute at once.
	Processors int `json:"processors"`
	// Output bounds the answer. Only the parent needs it.
	Output int64 `json:"-"`
}

// DefaultLimits are generous to artifacts that people make.
func DefaultLimits() Limits {
	return Limits{
		Memory:     448 << 20,
		Time:       2 * time.Minute,
		TimePerGiB: 30 * time.Second,
		Grace:      10 * time.Second,
		FileSize:   4<<30 + 1<<20, // a little more than what unpacking may write
		OpenFiles:  512,
		Processors: min(2, runtime.NumCPU()),
		Output:     128 << 20,
	}
}

func (l *Limits) complete() {
	d := DefaultLimits()
	orDefault(&l.Memory, d.Memory)
	orDefault(&l.Time, d.Time)
	orDefault(&l.TimePerGiB, d.TimePerGiB)
	orDefault(&l.Grace, d.Grace)
	orDefault(&l.FileSize, d.FileSize)
	orDefault(&l.OpenFiles, d.OpenFiles)
	orDefault(&l.Processors, d.Processors)
	orDefault(&l.Output, d.Output)
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Usage is what one child took.
type Usage struct {
	// Outcome is "ok", "refused", "failed", "canceled" or the code of a reason.
	Outcome string
	// Memory is the most that was resident at once, in bytes. Of a child that did not
	// answer it is an upper bound: the kernel counts in what the service had when it
	// started the child.
	Memory int64
	// CPU and Wall are the time it took. Wall does not include waiting for a worker.
	CPU, Wall time.Duration
}

// Isolation says what keeps a child away from everything else, besides its limits.
type Isolation struct {
	// Namespaces: it sees no network and no other process.
	Namespaces bool `json:"namespaces"`
	// Mounts: its directory is all that it sees of any file system.
	Mounts bool `json:"mounts"`
	// Landlock: it may open nothing else.
	Landlock bool `json:"landlock"`
	// Seccomp: it may not make the system calls that a scan has no use for.
	Seccomp bool `json:"seccomp"`
}

// full is what IsolationRequired asks for. Landlock and mounts both keep files away;
// one of them must, and since namespaces are needed anyhow it is the one that hides them.
func (i Isolation) full() bool { return i.Namespaces && i.Mounts && i.Seccomp }

// covers reports whether all of other is in i.
func (i Isolation) covers(other Isolation) bool {
	return (i.Namespaces || !other.Namespaces) && (i.Mounts || !other.Mounts) &&
		(i.Landlock || !other.Landlock) && (i.Seccomp || !other.Seccomp)
}

// Sandbox starts children. It is safe for concurrent use.
type Sandbox struct {
	command   []string
	limits    Limits
	workers   chan struct{} // holds one for each child that runs
	queue     int64
	waiting   atomic.Int64
	dir       *tempDir
	isolation Isolation
	observe   func(Usage)
	log       *slog.Logger
	now       func() time.Time
}

// New makes the temporary directory, removes what an earlier process left in it, and
// starts one child to learn what the machine allows.
func New(cfg Config) (*Sandbox, error) {
	if isChild(os.Args) {
		// Without this, a program whose main does not call Child would, as a child of
		// itself, start children of its own, and so on.
		return nil, errors.New("sandbox: this process was started to scan; its main must begin with sandbox.Child")
	}
	s := &Sandbox{
		command: cfg.Command,
		limits:  cfg.Limits,
		queue:   int64(cfg.Queue),
		observe: cfg.Observe,
		log:     cfg.Logger,
		now:     time.Now,
	}
	if len(s.command) == 0 {
		s.command = []string{"/proc/self/exe", childArg}
	}
	orDefault(&s.queue, 256)
	orDefault(&cfg.Workers, runtime.GOMAXPROCS(0))
	orDefault(&cfg.Isolation, IsolationAuto)
	if cfg.Isolation != IsolationAuto && cfg.Isolation != IsolationRequired {
		return nil, fmt.Errorf("sandbox: isolation %q: %s or %s", cfg.Isolation, IsolationAuto, IsolationRequired)
	}
	s.limits.complete()
	s.workers = make(chan struct{}, max(1, cfg.Workers))
	if s.observe == nil {
		s.observe = func(Usage) {}
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	var err error
	if s.dir, err = openTempDir(cfg.TempDir); err != nil {
		return nil, fmt.Errorf("sandbox: temporary directory: %w", err)
	}
	if err := s.probe(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if cfg.Isolation == IsolationRequired && !s.isolation.full() {
		return nil, errors.Join(fmt.Errorf("sandbox: isolation is required, and not all of it is possible here: %+v", s.isolation), s.Close())
	}
	return s, nil
}

// Isolation tells what New found possible.
func (s *Sandbox) Isolation() Isolation { return s.isolation }

// Close removes the temporary directory. No child may be running.
func (s *Sandbox) Close() error { return s.dir.close() }

// Scan makes an inventory of the file at path. name is what the artifact is called;
// it may decide how a file is read, and is never a path.
func (s *Sandbox) Scan(ctx context.Context, path, name string) (*sbom.Inventory, error) {
	a, reason, err := s.ask(ctx, path, request{Task: taskScan, Name: name})
	switch {
	case err != nil:
		return nil, err
	case reason != nil:
		return &sbom.Inventory{Incomplete: []sbom.Reason{*reason}}, nil
	}
	return a.Inventory, nil
}

// Check reads the SBOM that a client made, in the file at path. A refusal of package
// check comes back as it was made there.
func (s *Sandbox) Check(ctx context.Context, path string, want check.Want) (*sbom.Inventory, *check.Report, error) {
	a, reason, err := s.ask(ctx, path, request{Task: taskCheck, Want: want})
	switch {
	case err != nil:
		return nil, nil, err
	case reason != nil:
		return nil, nil, refusal.New(CodeSBOMUncheckable, "%s: %s", reason.Code, reason.Detail)
	}
	return a.Inventory, a.Report, nil
}

// ask waits for a worker and has a child do what req says. A reason is what came of
// the artifact in place of an answer.
func (s *Sandbox) ask(ctx context.Context, path string, req request) (*answer, *sbom.Reason, error) {
	release, err := s.turn(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	artifact, err := openArtifact(path)
	if err != nil {
		return nil, nil, refusal.New(CodeScannerUnavailable, "the artifact cannot be read: %w", err)
	}
	defer artifact.Close()
	return s.run(ctx, artifact, req)
}

// turn waits until a worker is free.
func (s *Sandbox) turn(ctx context.Context) (release func(), err error) {
	release = func() { <-s.workers }
	select {
	case s.workers <- struct{}{}:
		return release, nil
	default:
	}
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > s.queue {
		return nil, refusal.New(CodeScannerBusy, "%d artifacts wait to be scanned already", max(s.queue, 0))
	}
	select {
	case s.workers <- struct{}{}:
		return release, nil
	case <-ctx.Done():
		return nil, refusal.New(CodeScannerBusy, "while waiting to be scanned: %w", context.Cause(ctx))
	}
}
