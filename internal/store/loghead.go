package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"math"

	"github.com/assay-build/assay/internal/refusal"
)

// LogHead is a tree of the log that somebody was given a proof against. The zero
// LogHead is none.
type LogHead struct {
	Size uint64
	Root []byte
}

// LogHead returns the largest tree of the log that a write of this store was made
// with, and false where there was none. It rises in the transaction of that write:
// a log that is shorter, or has another root at this size, is not the one that what
// was acknowledged here is in.
func (s *Store) LogHead(ctx context.Context) (LogHead, bool, error) {
	var h LogHead
	var size int64
	err := s.points.QueryRowContext(ctx, "SELECT size, root FROM log_head").Scan(&size, &h.Root)
	if errors.Is(err, sql.ErrNoRows) {
		return LogHead{}, false, nil
	}
	h.Size = uint64(size)
	return h, err == nil, refused(err)
}

func checkLogHead(h LogHead) error {
	switch {
	case h.Size == 0 && len(h.Root) == 0:
		return nil
	case h.Size == 0 || h.Size > math.MaxInt64:
		return invalid("log_head", "is of %d entries, want 1 to %d", h.Size, int64(math.MaxInt64))
	case len(h.Root) != sha256.Size:
		return invalid("log_head", "has a root of %d bytes, want %d", len(h.Root), sha256.Size)
	}
	return nil
}

// headMark writes the largest head of each batch, once. It belongs to the writer's
// goroutine. stored is the size that the table has.
type headMark struct {
	stored uint64
	batch  LogHead
}

func loadHeadMark(c *conn) (*headMark, error) {
	var dest [1]driver.Value
	found, err := c.row("SELECT size FROM log_head", dest[:])
	if !found || err != nil {
		return &headMark{}, err
	}
	return &headMark{stored: uint64(dest[0].(int64))}, nil
}

// raise takes note of the head of an op that has written.
func (m *headMark) raise(h LogHead) {
	if h.Size > m.batch.Size {
		m.batch = h
	}
}

func (m *headMark) write(c *conn) error {
	if m.batch.Size <= m.stored {
		return nil
	}
	_, err := c.exec("INSERT INTO log_head (one, size, root) VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET size = excluded.size, root = excluded.root",
		int64(m.batch.Size), m.batch.Root)
	if err != nil {
		return err
	}
	before := m.stored
	m.stored = m.batch.Size
	c.undone = append(c.undone, func() { m.stored = before })
	return nil
}

// headOver refuses a head that does not reach the entry it is said to cover.
func headOver(h LogHead, logIndex int64) error {
	if h.Size > 0 && (logIndex < 0 || uint64(logIndex) >= h.Size) {
		return refusal.New(CodeRecordInvalid, "has %d entries and cannot have one at index %d", h.Size, logIndex).InField("log_head")
	}
	return checkLogHead(h)
}
