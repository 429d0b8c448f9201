package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/assay-build/assay/internal/refusal"
)

// indexBounds are those of the component index. Tests have smaller ones.
type indexBounds struct {
	// The tail is folded at either number.
	foldSBOMs, foldPostings int
	// tailPostings is where the index takes no more SBOMs: folding has failed for
	// long, or one batch held very many.
	tailPostings int
	// segmentBytes is the size up to which segments are merged, so that a merge takes
	// tens of milliseconds.
	segmentBytes int64
}

func defaultBounds() indexBounds {
	return indexBounds{foldSBOMs: 256, foldPostings: 64 << 10, tailPostings: 4 << 20, segmentBytes: 8 << 20}
}

const (
	// mergeFan segments of a level become one of the next.
	mergeFan = 4
	// levelFull is the level of segments that are merged no more.
	levelFull = 100
)

// index is which SBOMs hold which components. The table sboms is the truth; what
// searches read is made from it in three forms, which never overlap:
//
//	tail      the newest SBOMs, as lists of terms in memory
//	segments  all others, as postings in rows; see postings.go
//	          small segments are merged into larger ones
//
// An SBOM goes through three transactions of the writer:
//
//	complete  the row in sboms, with the attestation. On commit it joins the tail,
//	          before anybody is told. A crash after it: Open loads the tail from the
//	          rows that are in no segment.
//	fold      the tail becomes a segment. Its row is what says up to where SBOMs are
//	          in segments, so a crash before the commit leaves the tail as it was,
//	          and after it no SBOM is in both. Nothing in sboms changes.
//	merge     segments become one: its rows are added and theirs are removed. A crash
//	          leaves either.
//
// Fold and merge stand between the commits of other writes. If one fails, nothing
// is lost and it is tried again.
//
// Searches take the state as it was when they began. A merge may remove rows that a
// search is about to read; ids of rows are not used again while the process lives, so
// such a search finds nothing under them, and begins again with the state of then; see
// moved.
type index struct {
	state atomic.Pointer[indexState]
	// swap is held from before a merge commits until the state says so.
	swap sync.RWMutex

	// These belong to the writer's goroutine. added are the SBOMs of the transaction
	// under way; retry is the length of the tail at which a failed fold is tried again.
	bounds indexBounds
	added  []tailEntry
	retry  int
}

// indexState never changes once it is published: what is appended to tail lies beyond
// the length that older states know.
type indexState struct {
	segments []*segment
	tail     []tailEntry
	postings int   // in the tail
	next     int64 // number of the next SBOM
	chunk    int64 // id of the next chunk
}

// tailEntry is an SBOM that is in no segment yet, with its terms ascending.
type tailEntry struct {
	n     int64
	terms []uint64
}

// begin forgets what a transaction before this one added.
func (x *index) begin() { x.added = nil }

// add stores the SBOM of an attestation. The op that calls it writes nothing after it
// that may be refused.
func (x *index) add(c *conn, attestation int64, r *sbomRow, terms []uint64) error {
	n := x.state.Load().next + int64(len(x.added))
	_, err := c.exec("INSERT INTO sboms (n, attestation, claimed, complete, format, components) VALUES (?,?,?,?,?,?)",
		n, attestation, oneIf(r.claimed), oneIf(r.complete), r.format, blob(r.list))
	x.added = append(x.added, tailEntry{n, terms})
	return err
}

// room refuses an SBOM that the tail cannot take, before anything of it is written.
func (x *index) room(terms []uint64) error {
	waiting := x.state.Load().postings
	for _, e := range x.added {
		waiting += len(e.terms)
	}
	if waiting > 0 && waiting+len(terms) > x.bounds.tailPostings {
		return refusal.New(CodeStoreBusy, "%d components wait to be indexed, at most %d may", waiting, x.bounds.tailPostings)
	}
	return nil
}

// publish lets searches see what the transaction added, once it is durable.
func (x *index) publish(c *conn) {
	if len(x.added) == 0 {
		return
	}
	c.committed = append(c.committed, func() {
		st := *x.state.Load()
		for _, e := range x.added {
			st.postings += len(e.terms)
		}
		st.tail = append(st.tail, x.added...)
		st.next += int64(len(x.added))
		x.state.Store(&st)
	})
}

// tend folds and merges what is due and returns about how many bytes it wrote.
func (x *index) tend(c *conn) (int, error) {
	before := x.state.Load()
	if len(before.tail) < x.retry || len(before.tail) == 0 || len(before.tail) < x.bounds.foldSBOMs && before.postings < x.bounds.foldPostings {
		return 0, nil
	}
	x.retry = len(before.tail) + x.bounds.foldSBOMs
	written, err := x.fold(c)
	if err != nil {
		return 0, fmt.Errorf("fold: %w", err)
	}
	x.retry = 0
	for {
		run := x.state.Load().mergeable()
		if run == nil {
			return written, nil
		}
		n, err := x.merge(c, run)
		if err != nil {
			return written, fmt.Errorf("merge: %w", err)
		}
		written += n
	}
}

// fold makes a segment of the tail.
func (x *index) fold(c *conn) (int, error) {
	old := x.state.Load()
	w := old.newSegment(c, old.tail[0].n, old.next-1, 0)
	err := c.transact(func() error {
		if err := foldTail(w, old.tail); err != nil {
			return err
		}
		return insertSegment(c, &w.segment)
	})
	if err != nil {
		return 0, err
	}
	st := &indexState{segments: append(old.segments[:len(old.segments):len(old.segments)], &w.segment), next: old.next}
	_, st.chunk = w.chunks()
	x.state.Store(st)
	return int(w.bytes) + dirtyBytes, nil
}

// mergeable returns the last segments if they are of one level and enough to be merged.
func (st *indexState) mergeable() []*segment {
	from := len(st.segments)
	for from > 0 && st.segments[from-1].level == st.segments[len(st.segments)-1].level {
		from--
	}
	if run := st.segments[from:]; len(run) >= mergeFan && run[0].level < levelFull {
		return run
	}
	return nil
}

// merge makes one segment of several or, where it would be too large, leaves them as
// they are for good.
func (x *index) merge(c *conn, run []*segment) (int, error) {
	old := x.state.Load()
	st := *old
	st.segments = append([]*segment(nil), old.segments[:len(old.segments)-len(run)]...)
	var bytes int64
	for _, g := range run {
		bytes += g.bytes
	}
	if bytes > x.bounds.segmentBytes {
		for _, g := range run {
			full := *g
			full.level = levelFull
			st.segments = append(st.segments, &full)
		}
		err := c.transact(func() error {
			_, err := c.exec("UPDATE segments SET level = ? WHERE first_n >= ?", int64(levelFull), run[0].first)
			return err
		})
		if err == nil {
			x.state.Store(&st)
		}
		return dirtyBytes, err
	}
	x.swap.Lock()
	defer x.swap.Unlock()
	w := old.newSegment(c, run[0].first, run[len(run)-1].last, run[0].level+1)
	err := c.transact(func() error {
		if err := mergeSegments(w, run, c.chunk); err != nil {
			return err
		}
		for _, g := range run {
			from, to := g.chunks()
			if _, err := c.exec("DELETE FROM postings WHERE id >= ? AND id < ?", from, to); err != nil {
				return err
			}
			if _, err := c.exec("DELETE FROM segments WHERE first_n = ?", g.first); err != nil {
				return err
			}
		}
		return insertSegment(c, &w.segment)
	})
	if err != nil {
		return 0, err
	}
	st.segments = append(st.segments, &w.segment)
	_, st.chunk = w.chunks()
	x.state.Store(&st)
	return int(w.bytes) + dirtyBytes, nil
}

func (st *indexState) newSegment(c *conn, first, last int64, level int) *segmentWriter {
	w := &segmentWriter{segment: segment{first: first, last: last, level: level, firstChunk: st.chunk}}
	w.emit = func(id int64, chunk []byte) error {
		_, err := c.exec("INSERT INTO postings (id, chunk) VALUES (?,?)", id, chunk)
		return err
	}
	return w
}

func insertSegment(c *conn, g *segment) error {
	_, err := c.exec("INSERT INTO segments (first_n, last_n, level, bytes, first_chunk, chunks, directory) VALUES (?,?,?,?,?,?,?)",
		g.first, g.last, int64(g.level), g.bytes, g.firstChunk, int64(len(g.directory)), packDirectory(g.directory))
	return err
}

// chunk reads a chunk on the writer's connection.
func (c *conn) chunk(id int64) ([]byte, error) {
	var dest [1]driver.Value
	found, err := c.row("SELECT chunk FROM postings WHERE id = ?", dest[:], id)
	if err == nil && !found {
		err = fmt.Errorf("%w: no chunk %d", errPostings, id)
	}
	chunk, _ := dest[0].([]byte)
	return chunk, err
}

// errMerged: a chunk is gone, since a merge has put its postings elsewhere.
var errMerged = errors.New("store: the segment was merged")

// moved reports whether what a search did not find in st is elsewhere now. Otherwise it
// is lost.
func (x *index) moved(err error, st *indexState) bool {
	if !errors.Is(err, errMerged) {
		return false
	}
	x.swap.RLock()
	defer x.swap.RUnlock()
	return x.state.Load() != st
}

// chunk reads a chunk for a search.
func (s *Store) chunk(ctx context.Context, id int64) ([]byte, error) {
	var chunk []byte
	err := s.get.chunk.QueryRowContext(ctx, id).Scan(&chunk)
	if errors.Is(err, sql.ErrNoRows) {
		err = errMerged
	}
	return chunk, err
}
