package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"sync"

	"github.com/assay-build/assay/internal/refusal"
)

// maxCallerBytes is the limit of Ask.Caller.
const maxCallerBytes = 2 << 10

// askBits is how much of an ask's row id counts the asks of its decision.
const askBits = 32

const (
	// askRows is how many asks one INSERT carries.
	askRows = 32
	// maxRemembered bounds each of askBook's maps.
	maxRemembered = 1 << 16
)

// askBook numbers asks and writes them. It belongs to the writer's goroutine. What
// it remembers is a cache of the tables and is forgotten when a transaction fails.
type askBook struct {
	tails   map[string]*askTail
	callers map[string]int64
	args    []driver.Value
	// many and one insert askRows rows and a single one.
	many, one string
}

// askTail is a decision and the row id of its last ask.
type askTail struct{ last, limit int64 }

func newAskBook() *askBook {
	const insert, row = "INSERT INTO asks (seq, caller, at) VALUES ", "(?,?,?)"
	return &askBook{
		tails:   make(map[string]*askTail),
		callers: make(map[string]int64),
		many:    insert + row + strings.Repeat(","+row, askRows-1),
		one:     insert + row,
	}
}

// write stores the asks of one batch. An ask about an unknown decision is refused;
// the others are stored.
func (b *askBook) write(c *conn, asks []*op) error {
	if len(asks) == 0 {
		return nil
	}
	c.undone = append(c.undone, b.forget)
	if len(b.tails) > maxRemembered || len(b.callers) > maxRemembered {
		b.forget()
	}
	b.args = b.args[:0]
	for _, o := range asks {
		tail, err := b.tail(c, o.ask.DecisionID)
		if err != nil {
			return err
		}
		if tail == nil {
			o.err = refusal.New(CodeNotFound, "no decision %q", o.ask.DecisionID)
			continue
		}
		if tail.last == tail.limit {
			o.err = refusal.New(CodeRecordInvalid, "decision %q was asked for %d times, which is the limit", o.ask.DecisionID, 1<<askBits-1)
			continue
		}
		caller, err := b.caller(c, o.ask.Caller)
		if err != nil {
			return err
		}
		tail.last++
		o.err = nil
		b.args = append(b.args, tail.last, caller, micros(o.ask.At))
	}
	return b.insert(c)
}

func (b *askBook) insert(c *conn) error {
	const columns = 3
	args := b.args
	for len(args) > 0 {
		query, n := b.one, columns
		if len(args) >= askRows*columns {
			query, n = b.many, askRows*columns
		}
		if _, err := c.exec(query, args[:n]...); err != nil {
			return err
		}
		args = args[n:]
	}
	return nil
}

func (b *askBook) forget() {
	clear(b.tails)
	clear(b.callers)
}

// tail returns the tail of a decision, nil if there is no such decision.
func (b *askBook) tail(c *conn, decision string) (*askTail, error) {
	if t, ok := b.tails[decision]; ok {
		return t, nil
	}
	var dest [1]driver.Value
	found, err := c.row("SELECT seq FROM decisions WHERE id = ?", dest[:], decision)
	if !found || err != nil {
		return nil, err
	}
	first := dest[0].(int64) << askBits
	t := &askTail{last: first, limit: first + 1<<askBits - 1}
	found, err = c.row("SELECT seq FROM asks WHERE seq BETWEEN ? AND ? ORDER BY seq DESC LIMIT 1", dest[:], t.last, t.limit)
	if err != nil {
		return nil, err
	}
	if found {
		t.last = dest[0].(int64)
	}
	b.tails[decision] = t
	return t, nil
}

func (b *askBook) caller(c *conn, display string) (int64, error) {
	if seq, ok := b.callers[display]; ok {
		return seq, nil
	}
	var dest [1]driver.Value
	found, err := c.row("SELECT seq FROM callers WHERE display = ?", dest[:], display)
	if err != nil {
		return 0, err
	}
	if !found {
		res, err := c.exec("INSERT INTO callers (display) VALUES (?)", display)
		if err != nil {
			return 0, err
		}
		if dest[0], err = res.LastInsertId(); err != nil {
			return 0, err
		}
	}
	seq := dest[0].(int64)
	b.callers[display] = seq
	return seq, nil
}

// RecordAsk stores that somebody asked and was given a decision. It is durable
// when RecordAsk returns nil. Asks of one decision are kept in the order in which
// they were stored. An unknown decision is refused with CodeNotFound.
func (s *Store) RecordAsk(ctx context.Context, a Ask) error {
	if err := checkText("caller", a.Caller, maxCallerBytes); err != nil {
		return err
	}
	if len(a.DecisionID) > maxDecisionID {
		return refusal.New(CodeNotFound, "no decision %q", clip(a.DecisionID))
	}
	o := s.askOps.Get().(*op)
	o.ask = a
	o.state.Store(opQueued)
	err := s.w.submit(ctx, o)
	if o.state.Load() == opTaken {
		// Only an op that was answered can be used again: the writer still holds
		// one that was abandoned.
		s.askOps.Put(o)
	}
	return err
}

func newAskOps() sync.Pool {
	return sync.Pool{New: func() any { return &op{size: 64, done: make(chan error, 1)} }}
}

// Asks returns the latest asks of a decision, newest first.
func (s *Store) Asks(ctx context.Context, decisionID string, limit int) ([]Ask, error) {
	if limit <= 0 || limit > maxPageSize {
		limit = maxPageSize
	}
	var seq int64
	err := s.scans.QueryRowContext(ctx, "SELECT seq FROM decisions WHERE id = ?", decisionID).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refusal.New(CodeNotFound, "no decision %q", clip(decisionID))
	}
	if err != nil {
		return nil, refused(err)
	}
	rows, err := s.scans.QueryContext(ctx, `SELECT c.display, a.at FROM asks a JOIN callers c ON c.seq = a.caller
		WHERE a.seq BETWEEN ? AND ? ORDER BY a.seq DESC LIMIT +?`, seq<<askBits, seq<<askBits+1<<askBits-1, limit)
	if err != nil {
		return nil, refused(err)
	}
	return collect(rows, func(row rowScanner) (Ask, error) {
		a := Ask{DecisionID: decisionID}
		var at int64
		err := row.Scan(&a.Caller, &at)
		a.At = fromMicros(at)
		return a, err
	})
}
