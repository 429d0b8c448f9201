package store

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
)

// Bounds of making segments anew: so many postings make one segment, which is then as
// large as merges make them; so many SBOMs are read at a time.
const (
	rebuiltPostings = 2 << 20
	rebuiltSBOMs    = 64
)

// openIndex reads the state. It runs before the writer. Segments that are not what the
// SBOMs make of them, as far as their heads tell, are made anew: that nothing is found
// is no reason for the service not to start, and what they say is in sboms too.
func openIndex(c *conn, log *slog.Logger) (*index, error) {
	st, err := loadIndex(c)
	if errors.Is(err, errPostings) {
		log.Warn("the component index is damaged, and is made anew from the SBOMs", "error", err)
		if err = c.transact(func() error { return rebuildIndex(c) }); err == nil {
			st, err = loadIndex(c)
		}
	}
	if err != nil {
		return nil, err
	}
	x := &index{bounds: defaultBounds()}
	x.state.Store(st)
	return x, nil
}

// loadIndex refuses segments that do not fit each other, the SBOMs or the postings
// with errPostings, and SBOMs that do not fit each other with another error.
func loadIndex(c *conn) (*indexState, error) {
	st := &indexState{next: 1, chunk: 1}
	var chunks int64
	var dest [7]driver.Value
	err := c.rows("SELECT first_n, last_n, level, bytes, first_chunk, directory, chunks FROM segments ORDER BY first_n", dest[:], func() error {
		g := &segment{first: dest[0].(int64), last: dest[1].(int64), level: int(dest[2].(int64)), bytes: dest[3].(int64), firstChunk: dest[4].(int64)}
		packed, _ := dest[5].([]byte)
		var err error
		if g.directory, err = unpackDirectory(packed); err != nil {
			return err
		}
		if g.first != st.next || g.last < g.first || g.last > maxID {
			return fmt.Errorf("%w: a segment of SBOMs %d to %d where %d is next", errPostings, g.first, g.last, st.next)
		}
		from, to := g.chunks()
		if dest[6].(int64) != to-from || from < 1 {
			return fmt.Errorf("%w: a segment of %d chunks, of which %d are in its directory", errPostings, dest[6], to-from)
		}
		chunks += to - from
		st.segments, st.next, st.chunk = append(st.segments, g), g.last+1, max(st.chunk, to)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := c.row("SELECT count(*), ifnull(max(id), 0), (SELECT ifnull(max(n), 0) FROM sboms) FROM postings", dest[:3]); err != nil {
		return nil, err
	}
	if dest[0] != chunks || dest[1].(int64) >= st.chunk || dest[2].(int64) < st.next-1 {
		return nil, fmt.Errorf("%w: segments of %d chunks and of SBOMs up to %d, where there are %d and %d", errPostings, chunks, st.next-1, dest[0], dest[2])
	}
	err = eachSBOM(c, st.next, maxID, func(e tailEntry) error {
		st.tail, st.postings, st.next = append(st.tail, e), st.postings+len(e.terms), st.next+1
		return nil
	})
	return st, err
}

// eachSBOM calls f with the SBOMs from a number on, in their order.
func eachSBOM(c *conn, from, limit int64, f func(tailEntry) error) error {
	var dest [2]driver.Value
	next := from
	return c.rows("SELECT n, components FROM sboms WHERE n >= ? ORDER BY n LIMIT +?", dest[:], func() error {
		if dest[0].(int64) != next {
			return fmt.Errorf("store: SBOM %d where %d is next", dest[0], next)
		}
		list, _ := dest[1].([]byte)
		terms, err := termsOf(list)
		if err != nil {
			return fmt.Errorf("store: SBOM %d: %w", next, err)
		}
		next++
		return f(tailEntry{next - 1, terms})
	}, from, limit)
}

// rebuildIndex makes the segments of all SBOMs.
func rebuildIndex(c *conn) error {
	for _, table := range []string{"segments", "postings"} {
		if _, err := c.exec("DELETE FROM " + table); err != nil {
			return err
		}
	}
	st := &indexState{next: 1, chunk: 1}
	for {
		before := st.next
		err := eachSBOM(c, st.next, rebuiltSBOMs, func(e tailEntry) error {
			st.tail, st.postings, st.next = append(st.tail, e), st.postings+len(e.terms), st.next+1
			return nil
		})
		if err != nil {
			return err
		}
		last := st.next == before
		if len(st.tail) > 0 && (last || st.postings >= rebuiltPostings) {
			if err := st.foldAnew(c); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

func (st *indexState) foldAnew(c *conn) error {
	w := st.newSegment(c, st.tail[0].n, st.next-1, levelFull)
	if err := foldTail(w, st.tail); err != nil {
		return err
	}
	_, st.chunk = w.chunks()
	st.tail, st.postings = nil, 0
	return insertSegment(c, &w.segment)
}
