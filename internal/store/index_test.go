package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// sbomModel is the index in words: a list of SBOMs.
type sbomModel struct {
	ids   []string
	sboms []*SBOM
}

func (m *sbomModel) search(purls []string, license string) (ids []string) {
	for i, b := range slices.Backward(m.sboms) {
		holds := purls == nil || slices.ContainsFunc(b.Components, func(c Component) bool { return slices.Contains(purls, c.PURL) })
		licensed := license == "" || slices.ContainsFunc(b.Components, func(c Component) bool { return slices.Contains(c.Licenses, license) })
		if holds && licensed {
			ids = append(ids, m.ids[i])
		}
	}
	return ids
}

// indexMachine is a store and what it should answer.
type indexMachine struct {
	tb     testing.TB
	path   string
	bounds indexBounds
	s      *Store
	n      int
	space  string // in which the components and licences of this run are
	begun  []*Pending
	model  sbomModel
}

func (m *indexMachine) open() {
	m.s = openAt(m.tb, m.path)
	smallBounds(m.tb, m.s, m.bounds)
}

func (m *indexMachine) drawPURL(t *rapid.T) string {
	return m.space + rapid.SampledFrom([]string{"a@1", "a@2", "b@1", "c@1", "d@1"}).Draw(t, "component")
}

func (m *indexMachine) drawLicense(t *rapid.T) string {
	l := rapid.SampledFrom([]string{"", "MIT", "ISC", "Zlib"}).Draw(t, "license")
	if l != "" {
		l += m.space
	}
	return l
}

func (m *indexMachine) begin(t *rapid.T) {
	m.n++
	p := testPending(m.n)
	p.Record.SBOM = &SBOM{}
	for range rapid.IntRange(0, 4).Draw(t, "components") {
		c := Component{PURL: m.drawPURL(t)}
		if l := m.drawLicense(t); l != "" {
			c.Licenses = []string{l}
		}
		p.Record.SBOM.Components = append(p.Record.SBOM.Components, c)
	}
	must(m.tb, m.s.BeginAttestation(context.Background(), p))
	m.begun = append(m.begun, p)
}

func (m *indexMachine) complete(i int) {
	p := m.begun[i]
	m.begun = slices.Delete(m.begun, i, i+1)
	must(m.tb, m.s.CompleteAttestation(context.Background(), p.ID, 1, []byte("{}"), LogHead{}))
	m.model.ids, m.model.sboms = append(m.model.ids, p.ID), append(m.model.sboms, p.Record.SBOM)
}

func (m *indexMachine) ask(t *rapid.T) {
	q := ComponentSearch{PageSize: rapid.IntRange(1, 8).Draw(t, "size"), License: m.drawLicense(t)}
	var asked []string
	if q.License == "" || rapid.Bool().Draw(t, "components") {
		asked = []string{}
		for range rapid.IntRange(0, 3).Draw(t, "asked") {
			asked = append(asked, m.drawPURL(t))
		}
		q.Components = purlIDs(m.tb, m.s, asked...)
	}
	want, got := m.model.search(asked, q.License), []string(nil)
	for {
		hits, next, err := m.s.SearchComponents(context.Background(), q)
		must(m.tb, err)
		got = append(got, hitIDs(hits)...)
		if q.PageToken = next; next == "" {
			break
		}
		if len(m.begun) > 0 && rapid.Bool().Draw(t, "in the meantime") {
			m.complete(0) // it is on no page that is still to come
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%v with %q: got %d, want %d", asked, q.License, len(got), len(want))
	}
}

// TestIndexModel begins and completes attestations in any order, opens the store
// again at any moment, and asks questions in between, page by page. Folds and merges
// come every few SBOMs, and some of them fail.
func TestIndexModel(t *testing.T) {
	t.Parallel()
	m := &indexMachine{tb: t, path: filepath.Join(t.TempDir(), "assay.db"), bounds: testBounds()}
	m.open()
	rapid.Check(t, func(t *rapid.T) {
		m.bounds.foldSBOMs = rapid.IntRange(1, 5).Draw(t, "fold")
		m.bounds.segmentBytes = rapid.SampledFrom([]int64{200, 1000, 1 << 20}).Draw(t, "largest segment")
		smallBounds(m.tb, m.s, m.bounds)
		m.space, m.begun, m.model = fmt.Sprintf("pkg:npm/%d-", m.n), nil, sbomModel{}
		m.n++
		t.Repeat(map[string]func(*rapid.T){
			"begin":       m.begin,
			"begin too":   m.begin,
			"begin three": func(t *rapid.T) { m.begin(t); m.begin(t); m.begin(t) },
			"complete": func(t *rapid.T) {
				for len(m.begun) > 0 {
					m.complete(rapid.IntRange(0, len(m.begun)-1).Draw(t, "which"))
				}
			},
			"open again": func(t *rapid.T) { must(m.tb, m.s.Close()); m.open() },
			"break":      func(t *rapid.T) { must(m.tb, breakFolds(m.s, true)) },
			"mend":       func(t *rapid.T) { must(m.tb, breakFolds(m.s, false)) },
			"ask":        m.ask,
		})
		m.ask(t)
	})
	must(t, m.s.Check(context.Background()))
	st := m.s.index.state.Load()
	t.Logf("%d SBOMs, %d in %d segments", st.next-1, st.next-1-int64(len(st.tail)), len(st.segments))
}

// breakFolds makes every fold and merge fail at its end, and mends it.
func breakFolds(s *Store, broken bool) error {
	return s.w.do(context.Background(), 0, func(c *conn) error {
		s.index.retry = 0
		if broken {
			return c.script("CREATE TEMP TRIGGER IF NOT EXISTS broken BEFORE INSERT ON segments BEGIN SELECT RAISE(ABORT, 'broken'); END")
		}
		return c.script("DROP TRIGGER IF EXISTS temp.broken")
	})
}

// nextBatch returns when the writer has done what it does between two commits.
func nextBatch(tb testing.TB, s *Store) {
	tb.Helper()
	must(tb, s.w.do(context.Background(), 0, func(*conn) error { return nil }))
}

// TestFoldThatFails rolls folds back when all of them is written: searches find all,
// and once nothing is in the way all is folded, once.
func TestFoldThatFails(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "assay.db")
	s := openAt(t, path)
	smallBounds(t, s, testBounds())
	must(t, breakFolds(s, true))
	var want []string
	for i := range 9 {
		want = append([]string{putSBOM(t, s, i, component("a", "1"), component("b", fmt.Sprint(i)))}, want...)
	}
	nextBatch(t, s)
	if st := s.index.state.Load(); len(st.segments) != 0 || len(st.tail) != 9 {
		t.Fatalf("%d segments, %d in the tail", len(st.segments), len(st.tail))
	}
	must(t, s.Health())
	q := ComponentSearch{Components: purlIDs(t, s, "pkg:npm/a@1")}
	diff(t, hitIDs(searchAll(t, s, q)), want)
	must(t, s.Check(context.Background()))
	must(t, breakFolds(s, false))
	nextBatch(t, s)
	if st := s.index.state.Load(); len(st.segments) != 1 || len(st.tail) != 0 {
		t.Fatalf("%d segments, %d in the tail", len(st.segments), len(st.tail))
	}
	diff(t, hitIDs(searchAll(t, s, q)), want)
	must(t, s.Check(context.Background()))
	must(t, s.Close())
	s = openAt(t, path)
	diff(t, hitIDs(searchAll(t, s, q)), want)
}

// TestIndexThatFellBehind refuses what the tail cannot take; it stays pending.
func TestIndexThatFellBehind(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	ctx := context.Background()
	bounds := testBounds()
	bounds.foldSBOMs, bounds.tailPostings = 1<<20, 2
	smallBounds(t, s, bounds)
	putSBOM(t, s, 1, component("a", "1"), component("a", "2"), component("a", "3")) // one always fits
	p := testPending(2)
	p.Record.SBOM = &SBOM{Components: []Component{component("b", "1")}}
	must(t, s.BeginAttestation(ctx, p))
	wantCode(t, s.CompleteAttestation(ctx, p.ID, 2, []byte("{}"), LogHead{}), CodeStoreBusy)
	must(t, s.w.do(ctx, 0, func(*conn) error { s.index.bounds = testBounds(); s.index.bounds.foldSBOMs = 1; return nil }))
	must(t, s.CompleteAttestation(ctx, p.ID, 2, []byte("{}"), LogHead{}))
	diff(t, hitIDs(searchAll(t, s, ComponentSearch{Components: purlIDs(t, s, "pkg:npm/b@1")})), []string{p.ID})
	must(t, s.Check(ctx))
}

// TestSearchDuringMerges searches while SBOMs are added, folded and merged: every
// search finds all that was acknowledged before it began, once.
func TestSearchDuringMerges(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	bounds := testBounds()
	bounds.foldSBOMs = 2
	smallBounds(t, s, bounds)
	const n = 60
	var acked atomic.Int64
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for last := false; !last; {
				select {
				case <-done:
					last = true
				default:
				}
				before := acked.Load()
				ids := purlIDs(t, s, "pkg:npm/a@1")
				hits, _, err := s.SearchComponents(context.Background(), ComponentSearch{Components: ids, PageSize: maxPageSize})
				if err != nil || int64(len(hits)) < before {
					t.Errorf("%d hits of %d (%v)", len(hits), before, err)
					return
				}
				for i, h := range hits {
					if want := testPending(len(hits) - 1 - i).ID; h.Attestation.ID != want {
						t.Errorf("hit %d is %s, want %s", i, h.Attestation.ID, want)
						return
					}
				}
			}
		})
	}
	for i := range n {
		putSBOM(t, s, i, component("a", "1"), component("b", fmt.Sprint(i)))
		acked.Add(1)
	}
	close(done)
	wg.Wait()
	must(t, s.Check(context.Background()))
}

// TestDamagedIndexIsNoShorterList: what is missing from the index is an error.
func TestDamagedIndexIsNoShorterList(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, tc := range map[string]struct {
		damage string
		search bool // a search notices
	}{
		"no chunk":          {"DELETE FROM postings", true},
		"chunk cut":         {"UPDATE postings SET chunk = substr(chunk, 1, length(chunk) - 1)", true},
		"other postings":    {"UPDATE postings SET chunk = CAST(chunk || x'0a0101' AS BLOB)", false},
		"no SBOM":           {"UPDATE sboms SET attestation = 99 WHERE n = 2", true},
		"other components":  {"UPDATE sboms SET components = x'0700' WHERE n = 2", false},
		"damaged SBOM":      {"UPDATE sboms SET components = x'0000' WHERE n = 2", true},
		"unknown component": {"UPDATE sboms SET components = CAST(components || x'6400' AS BLOB) WHERE n = 2", false},
	} {
		s := openNew(t)
		smallBounds(t, s, testBounds())
		for i := range 4 {
			putSBOM(t, s, i, component("a", "1", "MIT"))
		}
		q := ComponentSearch{Components: purlIDs(t, s, "pkg:npm/a@1")}
		must(t, s.Check(ctx))
		must(t, s.w.do(ctx, 0, func(c *conn) error {
			return errors.Join(c.script("PRAGMA defer_foreign_keys = 1"), c.script(tc.damage), c.script("PRAGMA defer_foreign_keys = 0"))
		}))
		if _, _, err := s.SearchComponents(ctx, q); tc.search && err == nil {
			t.Errorf("%s: the search found nothing wrong", name)
		}
		if s.Check(ctx) == nil {
			t.Errorf("%s: Check found nothing wrong", name)
		}
	}
}

// TestOpenMendsIndex: what sboms say is found again after a damage to what was made of
// them, as far as heads of segments show it, and goes on from there.
func TestOpenMendsIndex(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const n = 10
	for name, damage := range map[string]string{
		"nothing":                "",
		"no segments":            "DELETE FROM segments",
		"no postings":            "DELETE FROM postings",
		"a chunk less":           "DELETE FROM postings WHERE id = (SELECT max(id) FROM postings)",
		"a chunk more":           "INSERT INTO postings VALUES (1000, x'00')",
		"a gap":                  "UPDATE segments SET last_n = last_n - 1 WHERE first_n = 1",
		"twice":                  "UPDATE segments SET last_n = last_n + 1 WHERE first_n = 1",
		"more than there is":     "UPDATE segments SET last_n = 1000 WHERE first_n = (SELECT max(first_n) FROM segments)",
		"backwards":              "UPDATE segments SET last_n = 0",
		"not from the start":     "DELETE FROM segments WHERE first_n = 1",
		"a directory cut":        "UPDATE segments SET directory = x'ff'",
		"no directory":           "UPDATE segments SET directory = x''",
		"negative chunks":        "UPDATE segments SET first_chunk = -5",
		"other number of chunks": "UPDATE segments SET chunks = chunks + 1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "assay.db")
			s := openAt(t, path)
			bounds := testBounds()
			smallBounds(t, s, bounds)
			var want []string
			for i := range n {
				want = append([]string{putSBOM(t, s, i, component("a", "1", "MIT"), component("b", fmt.Sprint(i)))}, want...)
			}
			nextBatch(t, s)
			if st := s.index.state.Load(); len(st.segments) != 2 || len(st.tail) != 2 {
				t.Fatalf("%d segments, %d in the tail", len(st.segments), len(st.tail))
			}
			must(t, s.w.do(ctx, 0, func(c *conn) error { return c.script(damage) }))
			must(t, s.Close())
			for range 2 { // it is mended for good
				var log bytes.Buffer
				s, err := Open(ctx, Config{Path: path, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				must(t, err)
				if told := strings.Contains(log.String(), "level=WARN"); told != (damage != "") {
					t.Errorf("the log is %q", log.String())
				}
				diff(t, hitIDs(searchAll(t, s, ComponentSearch{Components: purlIDs(t, s, "pkg:npm/a@1"), PageSize: 3})), want)
				diff(t, hitIDs(searchAll(t, s, ComponentSearch{License: "MIT"})), want)
				must(t, s.Check(ctx))
				smallBounds(t, s, bounds)
				for range 5 {
					i := len(want)
					want = append([]string{putSBOM(t, s, i, component("a", "1", "MIT"), component("b", fmt.Sprint(i)))}, want...)
				}
				nextBatch(t, s)
				diff(t, hitIDs(searchAll(t, s, ComponentSearch{Components: purlIDs(t, s, "pkg:npm/a@1")})), want)
				must(t, s.Check(ctx))
				must(t, s.Close())
				damage = ""
			}
		})
	}
}

// TestOpenRefusesDamagedSBOMs: what the index is made from cannot be made again.
func TestOpenRefusesDamagedSBOMs(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"a gap":              "DELETE FROM sboms WHERE n = 6",
		"cut, in a segment":  "UPDATE sboms SET components = x'07' WHERE n = 2; DELETE FROM postings",
		"cut, after them":    "UPDATE sboms SET components = x'07' WHERE n = 6",
		"a gap in a segment": "DELETE FROM sboms WHERE n = 2; DELETE FROM postings",
	} {
		path := filepath.Join(t.TempDir(), "assay.db")
		s := openAt(t, path)
		smallBounds(t, s, testBounds())
		for i := range 7 {
			putSBOM(t, s, i, component("a", "1"))
		}
		nextBatch(t, s)
		must(t, s.w.do(context.Background(), 0, func(c *conn) error { return c.script(damage) }))
		must(t, s.Close())
		if s, err := Open(context.Background(), Config{Path: path}); err == nil || errors.Is(err, errPostings) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				must(t, s.Close())
			}
		}
	}
}

// TestLargeSBOM indexes the largest SBOM there may be, of components that are all new.
// Other writes go on meanwhile.
func TestLargeSBOM(t *testing.T) {
	if testing.Short() {
		t.Skip("indexes 200,000 components")
	}
	s := openNew(t)
	ctx := context.Background()
	components := make([]Component, maxComponents)
	for i := range components {
		components[i] = component(fmt.Sprintf("large-%d", i), "1.0.0", "MIT")
	}
	var slowest time.Duration
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 10; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			start := time.Now()
			must(t, s.SaveDecision(ctx, &Decision{ID: fmt.Sprint(i)}))
			slowest = max(slowest, time.Since(start))
			runtime.Gosched()
		}
	}()
	start := time.Now()
	id := putSBOM(t, s, 1, components...)
	took := time.Since(start)
	close(stop)
	<-stopped
	t.Logf("took %s; the slowest other write %s", took, slowest)
	for _, i := range []int{0, maxComponents / 2, maxComponents - 1} {
		diff(t, hitIDs(searchAll(t, s, ComponentSearch{Components: purlIDs(t, s, components[i].PURL)})), []string{id})
	}
	must(t, s.Check(ctx))
}
