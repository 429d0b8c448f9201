package store

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"sort"
)

// Postings say which SBOMs hold a term. They lie in segments: a segment is about the
// SBOMs first to last, and never changes. It is a sequence of entries in the order of
// their terms, cut into chunks of about a page, each a row:
//
//	entry = term less the one before it in the chunk (varint; the first whole)
//	        length of the list in bytes (varint)
//	        list: number of the first SBOM less the segment's first, then of each
//	        further one its distance from the one before (varints)
//
// A list that is longer than a chunk is cut into several entries of the same term. The
// directory of a segment, the first term of each chunk, is kept in memory, so that
// finding a term reads one row.
//
// A row for every term, or one for every posting, would be simpler; a write of 256
// SBOMs would then touch thousands of pages, and not twenty.
const (
	chunkBytes = 3800 // with the rest of a row less than a page of 4096 bytes
	// An entry begins a new chunk if it would not fit, and is cut at this length.
	maxEntryBytes = chunkBytes - 2*binary.MaxVarintLen64
)

// segment is the head of one: what is in memory of it.
type segment struct {
	first, last int64
	level       int
	bytes       int64
	firstChunk  int64
	directory   []uint64 // of each chunk, its first term
}

// chunks returns the ids of the first chunk and of the one after the last.
func (g *segment) chunks() (from, to int64) {
	return g.firstChunk, g.firstChunk + int64(len(g.directory))
}

// segmentWriter makes the chunks of a segment from lists that come in the order of terms.
type segmentWriter struct {
	segment
	emit  func(id int64, chunk []byte) error
	added uint64 // the last term
	buf   []byte
	term  uint64 // the last one in buf
	list  []byte
}

// add appends the list of a term: ns ascending, all from first to last; terms
// ascending. Nothing else is written: what damaged segments are merged to would read
// as if it were sound.
func (w *segmentWriter) add(term uint64, ns []int64) error {
	if len(w.directory) > 0 && term <= w.added {
		return errPostings
	}
	w.list = w.list[:0]
	last := w.first
	for i, n := range ns {
		if n < w.first || n > w.last || i > 0 && n <= ns[i-1] {
			return errPostings
		}
		if len(w.list)+binary.MaxVarintLen64 > maxEntryBytes {
			if err := w.entry(term); err != nil {
				return err
			}
			last = w.first
		}
		w.list = binary.AppendUvarint(w.list, uint64(n-last))
		last = n
	}
	w.added = term
	return w.entry(term)
}

func (w *segmentWriter) entry(term uint64) error {
	if len(w.buf)+len(w.list)+2*binary.MaxVarintLen64 > chunkBytes {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if len(w.buf) == 0 {
		w.directory = append(w.directory, term)
		w.term = 0
	}
	w.buf = binary.AppendUvarint(w.buf, term-w.term)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(w.list)))
	w.buf = append(w.buf, w.list...)
	w.term, w.list = term, w.list[:0]
	return nil
}

func (w *segmentWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, next := w.chunks()
	err := w.emit(next-1, w.buf)
	w.bytes += int64(len(w.buf))
	w.buf = w.buf[:0]
	return err
}

var errPostings = errors.New("store: postings: damaged")

// segmentReader walks through the entries of a segment, forward.
type segmentReader struct {
	*segment
	read func(id int64) ([]byte, error)

	next  int // chunk
	chunk []byte
	term  uint64
	list  []byte
	done  bool
}

// advance goes to the next entry; done is set after the last.
func (r *segmentReader) advance() error {
	fresh := false
	if len(r.chunk) == 0 {
		if r.next == len(r.directory) {
			r.done = true
			return nil
		}
		var err error
		if r.chunk, err = r.read(r.firstChunk + int64(r.next)); err != nil {
			return err
		}
		r.term, fresh = 0, true
		r.next++
	}
	delta, n := binary.Uvarint(r.chunk)
	if n <= 0 {
		return errPostings
	}
	size, m := binary.Uvarint(r.chunk[n:])
	if m <= 0 || size == 0 || size > uint64(len(r.chunk)-n-m) {
		return errPostings
	}
	term, carry := bits.Add64(r.term, delta, 0)
	if carry != 0 || fresh && term != r.directory[r.next-1] {
		return errPostings
	}
	r.term = term
	r.list, r.chunk = r.chunk[n+m:n+m+int(size)], r.chunk[n+m+int(size):]
	return nil
}

// seek goes to the first entry of a term, or to the first after it. Terms are sought
// in ascending order.
func (r *segmentReader) seek(term uint64) error {
	if i := sort.Search(len(r.directory), func(i int) bool { return r.directory[i] >= term }) - 1; i >= r.next {
		r.next, r.chunk, r.list = i, nil, nil // what is between is of lesser terms
	}
	for !r.done && (r.list == nil || r.term < term) {
		if len(r.chunk) == 0 && r.next < len(r.directory) && r.directory[r.next] > term {
			// The next entry is of a greater term. Its chunk may never be wanted.
			return nil
		}
		if err := r.advance(); err != nil {
			return err
		}
	}
	return nil
}

// each calls f with the SBOMs of a term.
func (r *segmentReader) each(term uint64, f func(n int64)) error {
	for err := r.seek(term); ; err = r.seek(term) {
		if err != nil || r.done || r.list == nil || r.term != term {
			return err
		}
		if err := eachPosting(r.list, r.first, r.last, f); err != nil {
			return err
		}
		r.list = nil
	}
}

// eachPosting calls f with the SBOMs of one list.
func eachPosting(list []byte, first, last int64, f func(n int64)) error {
	n := uint64(first)
	for i := 0; len(list) > 0; i++ {
		delta, size := uint64(list[0]), 1
		if delta >= 0x80 {
			delta, size = binary.Uvarint(list)
		}
		if size <= 0 || delta > uint64(last)-n || i > 0 && delta == 0 {
			return errPostings
		}
		n += delta
		f(int64(n))
		list = list[size:]
	}
	return nil
}

// foldTail writes the postings of SBOMs that are in no segment yet.
func foldTail(w *segmentWriter, tail []tailEntry) error {
	type posting struct {
		term uint64
		n    int64
	}
	var all []posting
	for _, e := range tail {
		for _, t := range e.terms {
			all = append(all, posting{t, e.n})
		}
	}
	slices.SortFunc(all, func(a, b posting) int {
		if a.term != b.term {
			if a.term < b.term {
				return -1
			}
			return 1
		}
		return int(a.n - b.n)
	})
	var ns []int64
	for i, p := range all {
		ns = append(ns, p.n)
		if i+1 == len(all) || all[i+1].term != p.term {
			if err := w.add(p.term, ns); err != nil {
				return err
			}
			ns = ns[:0]
		}
	}
	return w.flush()
}

// mergeSegments writes the postings of segments that follow each other.
func mergeSegments(w *segmentWriter, from []*segment, read func(id int64) ([]byte, error)) error {
	readers := make([]*segmentReader, len(from))
	for i, g := range from {
		readers[i] = &segmentReader{segment: g, read: read}
		if err := readers[i].advance(); err != nil {
			return err
		}
	}
	var ns []int64
	for {
		least, left := uint64(0), false
		for _, r := range readers {
			if !r.done && (!left || r.term < least) {
				least, left = r.term, true
			}
		}
		if !left {
			return w.flush()
		}
		ns = ns[:0]
		for _, r := range readers { // in the order of SBOMs
			for !r.done && r.term == least {
				if err := eachPosting(r.list, r.first, r.last, func(n int64) { ns = append(ns, n) }); err != nil {
					return err
				}
				if err := r.advance(); err != nil {
					return err
				}
			}
		}
		if err := w.add(least, ns); err != nil {
			return err
		}
	}
}

// packDirectory packs the first terms of chunks: the first whole, then the differences.
func packDirectory(terms []uint64) []byte {
	b := make([]byte, 0, 3*len(terms))
	var last uint64
	for _, t := range terms {
		b = binary.AppendUvarint(b, t-last)
		last = t
	}
	return b
}

func unpackDirectory(b []byte) ([]uint64, error) {
	var terms []uint64
	var last uint64
	for len(b) > 0 {
		delta, n := binary.Uvarint(b)
		sum, carry := bits.Add64(last, delta, 0)
		if n <= 0 || carry != 0 {
			return nil, errPostings
		}
		last, b = sum, b[n:]
		terms = append(terms, last)
	}
	return terms, nil
}
