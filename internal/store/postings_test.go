package store

import (
	"encoding/binary"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// memChunks holds chunks as the table does.
type memChunks map[int64][]byte

func (m memChunks) put(id int64, chunk []byte) error {
	if len(chunk) > chunkBytes || m[id] != nil {
		return errors.New("a chunk is too large, or written twice")
	}
	m[id] = slices.Clone(chunk)
	return nil
}

func (m memChunks) get(id int64) ([]byte, error) {
	if c, ok := m[id]; ok {
		return c, nil
	}
	return nil, errMerged
}

func (m memChunks) segment(first, last, firstChunk int64) *segmentWriter {
	return &segmentWriter{segment: segment{first: first, last: last, firstChunk: firstChunk}, emit: m.put}
}

// all reads every posting of a segment.
func (m memChunks) all(t interface{ Fatal(...any) }, g *segment) map[uint64][]int64 {
	found := make(map[uint64][]int64)
	r := &segmentReader{segment: g, read: m.get}
	for {
		if err := r.advance(); err != nil {
			t.Fatal(err)
		}
		if r.done {
			return found
		}
		if err := eachPosting(r.list, g.first, g.last, func(n int64) { found[r.term] = append(found[r.term], n) }); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPostingsModel folds tails into segments, merges these, and reads some terms of
// each, in comparison with a map.
func TestPostingsModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		chunks, next := memChunks{}, rapid.Int64Range(1, 1<<40).Draw(t, "chunk")
		first := rapid.Int64Range(1, 1<<40).Draw(t, "first")
		begin := first
		want := make(map[uint64][]int64)
		var run []*segment
		for range rapid.IntRange(1, 4).Draw(t, "folds") {
			tail := make([]tailEntry, rapid.SampledFrom([]int{1, 3, 300, 9000}).Draw(t, "SBOMs"))
			few := rapid.SliceOfNDistinct(rapid.Uint64Range(1, 1<<50), 1, 5, rapid.ID).Draw(t, "terms")
			many := rapid.Uint64Range(0, 2000).Draw(t, "many")
			for i := range tail {
				e := &tail[i]
				e.n = first + int64(i)
				e.terms = append(e.terms, few...)
				if i == len(tail)-1 {
					for j := range many {
						e.terms = append(e.terms, 1<<51+j*3)
					}
				}
				slices.Sort(e.terms)
				for _, term := range e.terms {
					want[term] = append(want[term], e.n)
				}
			}
			w := chunks.segment(first, first+int64(len(tail))-1, next)
			if err := foldTail(w, tail); err != nil {
				t.Fatal(err)
			}
			run, first = append(run, &w.segment), w.last+1
			_, next = w.chunks()
		}
		merged := chunks.segment(begin, first-1, next)
		if err := mergeSegments(merged, run, chunks.get); err != nil {
			t.Fatal(err)
		}
		if got := chunks.all(t, &merged.segment); !reflect.DeepEqual(got, want) {
			t.Fatalf("%d terms, want %d", len(got), len(want))
		}
		directory, err := unpackDirectory(packDirectory(merged.directory))
		if err != nil || !slices.Equal(directory, merged.directory) {
			t.Fatal("the directory came back otherwise", err)
		}
		// Some terms, and some that are not there.
		r := &segmentReader{segment: &merged.segment, read: chunks.get}
		asked := slices.Sorted(maps.Keys(want))
		for i, term := range asked {
			if rapid.IntRange(0, 1+len(asked)/20).Draw(t, "skip") > 1 && i > 0 {
				continue
			}
			for _, ask := range []uint64{term - 1, term} {
				var got []int64
				if err := r.each(ask, func(n int64) { got = append(got, n) }); err != nil {
					t.Fatal(err)
				}
				if _, there := want[term-1]; ask == term && !slices.Equal(got, want[term]) || ask != term && !there && got != nil {
					t.Fatalf("term %d: %d postings, want %d", ask, len(got), len(want[ask]))
				}
			}
		}
	})
}

// FuzzSegment reads damaged chunks: an error, or postings of the segment's SBOMs in
// order, and never without end.
func FuzzSegment(f *testing.F) {
	chunks := memChunks{}
	w := chunks.segment(5, 900, 1)
	must(f, w.add(7, []int64{5, 6, 900}))
	must(f, w.add(9, []int64{80}))
	must(f, w.flush())
	f.Add(chunks[1], packDirectory(w.directory), uint64(9))
	f.Add([]byte{7, 1, 0, 0, 1, 1}, []byte{7}, uint64(7))
	f.Add(binary.AppendUvarint(nil, 1<<63), []byte{1, 1}, uint64(2))
	f.Fuzz(func(t *testing.T, chunk, directory []byte, term uint64) {
		terms, err := unpackDirectory(directory)
		if err != nil {
			return
		}
		if again, err := unpackDirectory(packDirectory(terms)); err != nil || !slices.Equal(again, terms) {
			t.Fatalf("%v became %v (%v)", terms, again, err)
		}
		g := &segment{first: 5, last: 900, firstChunk: 1, directory: terms[:min(len(terms), 4)]}
		read := func(int64) ([]byte, error) { return chunk, nil }
		r := &segmentReader{segment: g, read: read}
		set := newSBOMSet(g.first, g.last)
		for _, ask := range []uint64{term / 2, term} {
			if err := r.each(ask, set.add); err != nil {
				return
			}
		}
		again := memChunks{}
		if err := mergeSegments(again.segment(1, 1000, 9), []*segment{g}, read); err != nil && !errors.Is(err, errPostings) {
			t.Fatal(err)
		}
	})
}

// FuzzList reads damaged lists: what is taken is what appendList makes.
func FuzzList(f *testing.F) {
	f.Add(appendList(nil, []listed{{1, nil}, {3, []int64{4, 1}}, {300, []int64{70_000}}, {3, []int64{9}}}))
	f.Add([]byte{1, 0, 1})
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var list []listed
		if eachListed(b, func(id int64, ls []int64) bool {
			list = append(list, listed{id, slices.Clone(ls)})
			return true
		}) != nil {
			if _, err := termsOf(b); err == nil {
				t.Fatal("taken once")
			}
			return
		}
		terms, err := termsOf(b)
		if err != nil || !slices.IsSorted(terms) || len(slices.Compact(slices.Clone(terms))) != len(terms) {
			t.Fatalf("terms %v (%v)", terms, err)
		}
		// A varint may be longer than it need be, so the bytes may differ once.
		packed := appendList(nil, slices.Clone(list))
		var again []listed
		must(t, eachListed(packed, func(id int64, ls []int64) bool {
			again = append(again, listed{id, slices.Clone(ls)})
			return true
		}))
		if !reflect.DeepEqual(again, list) || !slices.Equal(appendList(nil, again), packed) {
			t.Fatalf("%v became %v", list, again)
		}
	})
}

// FuzzUnpackSBOM reads damaged pending rows.
func FuzzUnpackSBOM(f *testing.F) {
	r := testPending(1).Record
	row := &sbomRow{claimed: true, complete: true, format: "spdx", list: appendList(nil, []listed{{1, []int64{2}}})}
	packed := appendSBOM(packRecord(r, appendSubjects(nil, r.Subjects)), row)
	back, err := unpackSBOM(packed)
	if err != nil || !reflect.DeepEqual(back, row) {
		f.Fatalf("%+v (%v)", back, err)
	}
	f.Add(packed)
	f.Add([]byte{0x5a, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		row, err := unpackSBOM(b)
		if err != nil || row == nil {
			return
		}
		again, err := unpackSBOM(appendSBOM(nil, row))
		if err != nil || again.claimed != row.claimed || again.complete != row.complete || again.format != row.format || !slices.Equal(again.list, row.list) {
			t.Fatalf("%+v became %+v (%v)", row, again, err)
		}
	})
}
