package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"math"

	"github.com/assay-build/assay/internal/refusal"
)

// LogHead is a tree of a log that somebody was given a proof against. The zero
// LogHead is none.
type LogHead struct {
	// Log is the id of the log, empty in what versions wrote that knew one log only.
	Log  []byte
	Size uint64
	Root []byte
}

// LogHeads returns, of each log, the largest tree that a write of this store was made
// with. It rises in the transaction of that write: a log that is shorter, or has another
// root at this size, is not the one that what was acknowledged here is in.
func (s *Store) LogHeads(ctx context.Context) ([]LogHead, error) {
	rows, err := s.points.QueryContext(ctx, "SELECT log, size, root FROM log_heads ORDER BY log")
	if err != nil {
		return nil, refused(err)
	}
	return collect(rows, func(row rowScanner) (LogHead, error) {
		var h LogHead
		var size int64
		err := row.Scan(&h.Log, &size, &h.Root)
		h.Size = uint64(size)
		return h, err
	})
}

func checkLogHead(h LogHead) error {
	switch {
	case h.Size == 0 && len(h.Root) == 0 && len(h.Log) == 0:
		return nil
	case h.Size == 0 || h.Size > math.MaxInt64:
		return invalid("log_head", "is of %d entries, want 1 to %d", h.Size, int64(math.MaxInt64))
	case len(h.Root) != sha256.Size:
		return invalid("log_head", "has a root of %d bytes, want %d", len(h.Root), sha256.Size)
	case len(h.Log) != 0 && len(h.Log) != sha256.Size:
		return invalid("log_head", "has a log id of %d bytes, want %d", len(h.Log), sha256.Size)
	}
	return nil
}

// headMark writes the largest head of each batch, once. It belongs to the writer's
// goroutine. A service writes to one log, so one is remembered: stored is the size that
// the table has of log.
type headMark struct {
	stored uint64
	log    []byte
	batch  LogHead
}

func loadHeadMark(c *conn) (*headMark, error) {
	m := &headMark{}
	return m, m.read(c)
}

// read looks up what the table has of m.log.
func (m *headMark) read(c *conn) error {
	var dest [1]driver.Value
	found, err := c.row("SELECT size FROM log_heads WHERE log = ?", dest[:], blob(m.log))
	if m.stored = 0; found && err == nil {
		m.stored = uint64(dest[0].(int64))
	}
	return err
}

// raise takes note of the head of an op that has written.
func (m *headMark) raise(h LogHead) {
	if h.Size > m.batch.Size || h.Size > 0 && !bytes.Equal(h.Log, m.batch.Log) {
		m.batch = h
	}
}

func (m *headMark) write(c *conn) error {
	if m.batch.Size == 0 {
		return nil
	}
	before, log := m.stored, m.log
	c.undone = append(c.undone, func() { m.stored, m.log = before, log })
	if !bytes.Equal(m.log, m.batch.Log) {
		m.log = bytes.Clone(m.batch.Log)
		if err := m.read(c); err != nil {
			return err
		}
	}
	if m.batch.Size <= m.stored {
		return nil
	}
	_, err := c.exec("INSERT INTO log_heads (log, size, root) VALUES (?, ?, ?) ON CONFLICT (log) DO UPDATE SET size = excluded.size, root = excluded.root",
		blob(m.log), int64(m.batch.Size), m.batch.Root)
	if err == nil {
		m.stored = m.batch.Size
	}
	return err
}

// headOver refuses a head that does not reach the entry it is said to cover.
func headOver(h LogHead, logIndex int64) error {
	if h.Size > 0 && (logIndex < 0 || uint64(logIndex) >= h.Size) {
		return refusal.New(CodeRecordInvalid, "has %d entries and cannot have one at index %d", h.Size, logIndex).InField("log_head")
	}
	return checkLogHead(h)
}
