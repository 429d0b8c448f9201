package sandbox

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/assay-build/assay/internal/refusal"
)

// maxUnasked is how much of an answer is read before anybody is asked for room.
const maxUnasked = 64 << 10

type roomKey struct{}

// Room waits until there is memory for what becomes of an answer of so many bytes. Its
// error is that of the Scan or Check.
type Room func(ctx context.Context, answer int64) error

// WithRoom has room asked, once, before an answer of more than some kilobytes is read
// into memory. Until then it lies on disk, and its child has ended.
func WithRoom(ctx context.Context, room Room) context.Context {
	return context.WithValue(ctx, roomKey{}, room)
}

// large reads an answer: its beginning as it comes, so that what is none is seen at
// once, and the rest when there is room.
type large struct {
	process *process
	room    Room
	ctx     context.Context
	dir     string
	left    int64    // of the beginning
	rest    *os.File // nil until it is there
	refused error    // why it is not
}

// output is what the answer is read from.
func (p *process) output(ctx context.Context, dir string) *large {
	room, ok := ctx.Value(roomKey{}).(Room)
	if !ok {
		room = func(context.Context, int64) error { return nil }
	}
	return &large{process: p, room: room, ctx: ctx, dir: dir, left: maxUnasked}
}

func (l *large) Read(b []byte) (int, error) {
	if l.left > 0 {
		n, err := l.process.stdout.Read(b[:min(int64(len(b)), l.left)])
		l.left -= int64(n)
		return n, err
	}
	if l.refused != nil {
		return 0, l.refused
	}
	if l.rest == nil {
		if err := l.keep(); err != nil {
			if !errors.Is(err, errAnswerTooLong) && !errors.Is(err, io.ErrUnexpectedEOF) {
				l.refused = err
			}
			return 0, err
		}
	}
	return l.rest.Read(b)
}

// keep puts the rest on disk, sees the child end, and asks for room.
func (l *large) keep() error {
	f, err := os.CreateTemp(l.dir, "answer-")
	if err != nil {
		return refusal.New(CodeScannerUnavailable, "no temporary file: %w", err)
	}
	l.rest = f
	if err := os.Remove(f.Name()); err != nil {
		return refusal.New(CodeScannerUnavailable, "no temporary file: %w", err)
	}
	n, err := io.Copy(f, &limited{r: l.process.stdout, left: l.process.limits.Output - maxUnasked})
	switch {
	case errors.Is(err, errAnswerTooLong):
		return err
	case err != nil:
		return refusal.New(CodeScannerUnavailable, "the answer cannot be kept: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return refusal.New(CodeScannerUnavailable, "the answer cannot be kept: %w", err)
	}
	// How long it waits for room is not the child's time.
	l.process.ending()
	if l.process.killed() {
		return io.ErrUnexpectedEOF
	}
	return l.room(l.ctx, maxUnasked+n)
}

func (l *large) close() {
	if l.rest != nil {
		l.rest.Close()
	}
}

// killed reports of a child that has ended whether it was killed. From here on it is not
// any more.
func (p *process) killed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	return p.cause != causeNone
}
