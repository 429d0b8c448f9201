package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// smallBounds makes folds and merges frequent.
func smallBounds(tb testing.TB, s *Store, b indexBounds) {
	tb.Helper()
	must(tb, s.w.do(context.Background(), 0, func(*conn) error { s.index.bounds = b; return nil }))
}

func testBounds() indexBounds {
	return indexBounds{foldSBOMs: 4, foldPostings: 1 << 20, tailPostings: 1 << 20, segmentBytes: 1 << 20}
}

// component is npm:NAME@VERSION as its scanner has it.
func component(name, version string, licenses ...string) Component {
	return Component{PURL: "pkg:npm/" + name + "@" + version, Type: "npm", Name: name, Version: version, Licenses: licenses}
}

// putSBOM stores the i-th attestation, with an SBOM.
func putSBOM(tb testing.TB, s *Store, i int, components ...Component) string {
	tb.Helper()
	p := testPending(i)
	p.Record.PredicateType = "https://cyclonedx.org/bom"
	p.Record.SBOM = &SBOM{Format: "cyclonedx", Complete: i%2 == 0, Claimed: i%3 == 0, Components: components}
	put(tb, s, p, int64(i))
	return p.ID
}

// purlIDs are the ids of package URLs.
func purlIDs(tb testing.TB, s *Store, purls ...string) []int64 {
	tb.Helper()
	ids := []int64{}
	for _, purl := range purls {
		v, found, err := s.ComponentByPURL(context.Background(), purl)
		must(tb, err)
		if found {
			ids = append(ids, v.ID)
		}
	}
	return ids
}

// searchAll reads every page.
func searchAll(tb testing.TB, s *Store, q ComponentSearch) (hits []ComponentHit) {
	tb.Helper()
	for {
		page, next, err := s.SearchComponents(context.Background(), q)
		must(tb, err)
		hits = append(hits, page...)
		if next == "" {
			return hits
		}
		if q.PageSize > 0 && len(page) != q.PageSize {
			tb.Fatalf("a page of %d, and there is another", len(page))
		}
		q.PageToken = next
	}
}

func hitIDs(hits []ComponentHit) (ids []string) {
	for _, h := range hits {
		ids = append(ids, h.Attestation.ID)
	}
	return ids
}

func TestSearchComponents(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	lodash, left, own := component("lodash", "4.17.21", "MIT"), component("left-pad", "1.3.0", "WTFPL", "MIT"), Component{Name: "libown", Version: "1", Licenses: []string{"our licence"}}
	first := putSBOM(t, s, 1, lodash, left)
	second := putSBOM(t, s, 2, lodash, own, lodash, component("lodash", "4.17.21", "0BSD"))
	third := putSBOM(t, s, 3)
	put(t, s, testPending(4), 4) // no SBOM

	lodashID := purlIDs(t, s, lodash.PURL)
	hits := searchAll(t, s, ComponentSearch{Components: lodashID})
	diff(t, hitIDs(hits), []string{second, first})
	want := *testPending(2).Record
	want.PredicateType, want.LogIndex = "https://cyclonedx.org/bom", 2
	diff(t, hits[0], ComponentHit{Attestation: &want, Complete: true, Components: []ComponentVersion{
		{ID: lodashID[0], PURL: lodash.PURL, Type: "npm", Name: "lodash", Version: "4.17.21", Licenses: []string{"0BSD", "MIT"}},
	}})
	if hits[1].Complete || hits[1].Claimed {
		t.Errorf("%+v", hits[1])
	}

	byLicense := searchAll(t, s, ComponentSearch{License: "MIT"})
	diff(t, hitIDs(byLicense), []string{second, first})
	if c := byLicense[1].Components; len(c) != 2 || c[1].Name != "left-pad" || !slices.Equal(c[1].Licenses, []string{"MIT", "WTFPL"}) {
		t.Errorf("%+v", c)
	}
	diff(t, hitIDs(searchAll(t, s, ComponentSearch{License: "0BSD"})), []string{second})
	diff(t, hitIDs(searchAll(t, s, ComponentSearch{License: "0BSD", Components: purlIDs(t, s, left.PURL)})), []string(nil))
	diff(t, hitIDs(searchAll(t, s, ComponentSearch{License: "0BSD", Components: lodashID})), []string{second})
	for name, q := range map[string]ComponentSearch{
		"nothing asked":         {},
		"unknown licence":       {License: "mit"},
		"no component is known": {Components: []int64{}, License: "MIT"},
		"unknown ids":           {Components: []int64{-1, 0, 1 << 40, 1<<63 - 1}},
	} {
		if hits := searchAll(t, s, q); len(hits) != 0 {
			t.Errorf("%s: %v, and %s is empty", name, hitIDs(hits), third)
		}
	}

	// What has no package URL is found by its name.
	list, more, err := s.ComponentVersions(context.Background(), "", "", "libown", 0)
	must(t, err)
	if more || len(list) != 1 || list[0].PURL != "" || list[0].Version != "1" {
		t.Fatalf("%+v", list)
	}
	hits = searchAll(t, s, ComponentSearch{Components: []int64{list[0].ID}})
	diff(t, hitIDs(hits), []string{second})
	diff(t, hits[0].Components[0].Licenses, []string{"our licence"})
	must(t, s.Check(context.Background()))
}

func TestComponentVersions(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	ctx := context.Background()
	a, b := Component{PURL: "pkg:maven/org.a/core@2", Type: "maven", Namespace: "org.a", Name: "core", Version: "2"},
		Component{PURL: "pkg:maven/org.b/core@1", Type: "maven", Namespace: "org.b", Name: "core", Version: "1"}
	putSBOM(t, s, 1, a, b, component("core", "10"), component("core", "9"), component("Core", "1"), Component{Type: "npm", Name: "core", Version: "10"})
	for _, tc := range []struct {
		typ, namespace, name string
		limit                int
		want                 string
		more                 bool
	}{
		{"", "", "core", 0, "pkg:maven/org.a/core@2 pkg:maven/org.b/core@1 pkg:npm/core@10 pkg:npm/core@9 ", false},
		{"maven", "", "core", 2, "pkg:maven/org.a/core@2 pkg:maven/org.b/core@1", false},
		{"", "org.b", "core", 0, "pkg:maven/org.b/core@1", false},
		{"npm", "", "core", 1, "pkg:npm/core@10", true},
		{"", "", "Core", 0, "pkg:npm/Core@1", false},
		{"", "", "cor", 0, "", false},
		{"", "", "", 0, "", false},
	} {
		list, more, err := s.ComponentVersions(ctx, tc.typ, tc.namespace, tc.name, tc.limit)
		must(t, err)
		var purls []string
		for _, v := range list {
			purls = append(purls, v.PURL)
		}
		if got := strings.Join(purls, " "); got != tc.want || more != tc.more {
			t.Errorf("%+v: got %q, more = %t", tc, got, more)
		}
	}
	v, found, err := s.ComponentByPURL(ctx, a.PURL)
	must(t, err)
	diff(t, v, ComponentVersion{ID: v.ID, PURL: a.PURL, Type: "maven", Namespace: "org.a", Name: "core", Version: "2"})
	own := &Component{Type: "npm", Name: "core", Version: "10"}
	for _, purl := range []string{"", "pkg:maven/org.a/core", own.key()} {
		if _, found, err := s.ComponentByPURL(ctx, purl); found || err != nil {
			t.Errorf("%q: %t, %v", purl, found, err)
		}
	}
	if !found {
		t.Error("not found")
	}
}

func TestSearchPages(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	ctx := context.Background()
	smallBounds(t, s, testBounds())
	var want []string
	for i := range 23 {
		want = append([]string{putSBOM(t, s, i, component("a", "1"), component("b", fmt.Sprint(i)))}, want...)
	}
	q := ComponentSearch{Components: purlIDs(t, s, "pkg:npm/a@1"), Key: "a"}
	for _, size := range []int{1, 3, 22, 23, 24, 0} {
		q.PageSize = size
		diff(t, hitIDs(searchAll(t, s, q)), want)
	}
	q.PageSize = 2
	_, next, err := s.SearchComponents(ctx, q)
	must(t, err)
	other := q
	other.PageToken, other.Key = next, "b"
	_, _, err = s.SearchComponents(ctx, other)
	wantCode(t, err, CodePageTokenInvalid)
	other.Key, other.PageToken = "a", next[1:]
	_, _, err = s.SearchComponents(ctx, other)
	wantCode(t, err, CodePageTokenInvalid)
	_, of, err := s.ListAttestations(ctx, Query{PageSize: 1})
	must(t, err)
	other.PageToken = of
	_, _, err = s.SearchComponents(ctx, other)
	wantCode(t, err, CodePageTokenInvalid)
	_, _, err = s.SearchComponents(ctx, ComponentSearch{PageSize: maxPageSize + 1})
	wantCode(t, err, CodePageSizeInvalid)
	_, _, err = s.SearchComponents(ctx, ComponentSearch{PageSize: -1})
	wantCode(t, err, CodePageSizeInvalid)
	_, _, err = s.SearchComponents(ctx, ComponentSearch{Components: make([]int64, MaxSearchComponents+1)})
	wantCode(t, err, CodeRecordInvalid)
	_, _, err = s.SearchComponents(ctx, ComponentSearch{Key: string(make([]byte, maxSearchKey+1))})
	wantCode(t, err, CodeRecordInvalid)
}

func TestHitShowsAHundredComponents(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	var many []Component
	for i := range 150 {
		many = append(many, component("c", fmt.Sprint(i), "MIT"))
	}
	putSBOM(t, s, 1, many...)
	hits := searchAll(t, s, ComponentSearch{License: "MIT"})
	if len(hits) != 1 || len(hits[0].Components) != maxHitComponents {
		t.Fatalf("%d hits", len(hits))
	}
}

func TestSBOMsAreChecked(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	long := strings.Repeat("x", maxComponentText+1)
	for name, tc := range map[string]struct {
		field string
		sbom  SBOM
	}{
		"long format":         {"sbom.format", SBOM{Format: long[:maxFormatBytes+1]}},
		"format not UTF-8":    {"sbom.format", SBOM{Format: "\xff"}},
		"too many components": {"sbom.components", SBOM{Components: make([]Component, maxComponents+1)}},
		"long purl":           {"sbom.components[1].purl", SBOM{Components: []Component{{}, {PURL: long}}}},
		"purl is a key":       {"sbom.components[0].purl", SBOM{Components: []Component{{PURL: (&Component{Name: "n"}).key()}}}},
		"type not UTF-8":      {"sbom.components[0].type", SBOM{Components: []Component{{Type: "\xc3\x28"}}}},
		"long namespace":      {"sbom.components[0].namespace", SBOM{Components: []Component{{Namespace: long}}}},
		"long name":           {"sbom.components[0].name", SBOM{Components: []Component{{Name: long}}}},
		"long version":        {"sbom.components[0].version", SBOM{Components: []Component{{Version: long}}}},
		"long licence":        {"sbom.components[0].licenses", SBOM{Components: []Component{{Licenses: []string{long}}}}},
		"many licences":       {"sbom.components[0].licenses", SBOM{Components: []Component{{Licenses: make([]string, maxComponentLicenses+1)}}}},
		"many in all":         {"sbom.components", SBOM{Components: slices.Repeat([]Component{{Licenses: make([]string, maxComponentLicenses)}}, 1000)}},
	} {
		p := testPending(1)
		p.Record.SBOM = &tc.sbom
		err := s.BeginAttestation(context.Background(), p)
		wantCode(t, err, CodeRecordInvalid)
		if !strings.Contains(err.Error(), tc.field) {
			t.Errorf("%s: %v does not name %s", name, err, tc.field)
		}
	}
}

// TestPredicateTypesTakeTurnsApart: no number of SBOMs displaces provenance.
func TestPredicateTypesTakeTurnsApart(t *testing.T) {
	t.Parallel()
	c := newCrowd(t)
	good := c.add("p", hashed)
	const sbom = "https://cyclonedx.org/bom"
	var sboms []string
	for range 70 {
		sboms = append([]string{c.add("p", hashed, func(a *Attestation) { a.PredicateType = sbom })}, sboms...)
	}
	for predicateType, want := range map[string][]string{
		"https://slsa.dev/provenance/v1": {good},
		sbom:                             sboms[:64],
		"other":                          nil,
	} {
		list, more, err := c.s.AttestationsBySHA256(context.Background(), c.sha256, predicateType, 64)
		must(t, err)
		var got []string
		for _, a := range list {
			got = append(got, a.ID)
		}
		diff(t, got, want)
		if more != (predicateType == sbom) {
			t.Errorf("%s: more = %t", predicateType, more)
		}
	}
	c.wantPicked(64, sboms[0])
}

// TestEachComponentVersion: what was there first comes first, however many come later,
// and one version costs nothing of the others.
func TestEachComponentVersion(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	ctx := context.Background()
	mine := []Component{component("a", "zz"), component("a", "5"), {PURL: "pkg:npm/%40s/a@5", Type: "npm", Namespace: "@s", Name: "a", Version: "5"}}
	for i, c := range mine {
		putSBOM(t, s, i, c)
	}
	flood := make([]Component, 3*versionsRead)
	for i := range flood {
		flood[i] = component("a", fmt.Sprintf("0.%d", i))
	}
	flood[0] = Component{PURL: "pkg:npm/a@5?x=y", Type: "npm", Name: "a", Version: "5"}
	flood[1] = Component{PURL: "pkg:pypi/a@5", Type: "pypi", Name: "a", Version: "5"}
	putSBOM(t, s, 3, flood...)
	purls := func(f func(func(ComponentVersion) bool) error) (list []string) {
		must(t, f(func(v ComponentVersion) bool { list = append(list, v.PURL); return true }))
		return list
	}
	all := purls(func(f func(ComponentVersion) bool) error { return s.EachComponentVersion(ctx, "a", f) })
	if len(all) != len(mine)+len(flood) || len(slices.Compact(slices.Sorted(slices.Values(all)))) != len(all) {
		t.Errorf("%d of %d", len(all), len(mine)+len(flood))
	}
	diff(t, all[:5], []string{mine[0].PURL, mine[1].PURL, mine[2].PURL, flood[0].PURL, flood[1].PURL})
	diff(t, purls(func(f func(ComponentVersion) bool) error {
		return s.EachComponentOfVersion(ctx, "npm", "", "a", "5", f)
	}), []string{mine[1].PURL, flood[0].PURL})
	diff(t, purls(func(f func(ComponentVersion) bool) error {
		return s.EachComponentOfVersion(ctx, "npm", "@s", "a", "5", f)
	}), []string{mine[2].PURL})
	diff(t, purls(func(f func(ComponentVersion) bool) error {
		return s.EachComponentOfVersion(ctx, "npm", "", "a", "6", f)
	}), []string(nil))
	n := 0
	must(t, s.EachComponentVersion(ctx, "a", func(ComponentVersion) bool { n++; return n < versionsRead+1 }))
	if n != versionsRead+1 {
		t.Errorf("went on to %d", n)
	}
	for _, query := range []string{versionsByName, versionsByVersion} {
		if plan := planOf(t, s, query); strings.Contains(plan, "SCAN") || strings.Contains(plan, "B-TREE") {
			t.Errorf("%s: the plan is\n%s", query, plan)
		}
	}
}

func planOf(tb testing.TB, s *Store, query string) string {
	tb.Helper()
	var plan strings.Builder
	var args []any
	for i := 1; strings.Contains(query, fmt.Sprint("?", i)); i++ {
		args = append(args, i)
	}
	rows, err := s.points.Query("EXPLAIN QUERY PLAN "+query, args...)
	must(tb, err)
	must(tb, eachRow(rows, func(row rowScanner) error {
		var a, b, c int
		var detail string
		defer func() { fmt.Fprintln(&plan, detail) }()
		return row.Scan(&a, &b, &c, &detail)
	}))
	return plan.String()
}

// allowed are the environments whose decisions f likes.
func allowed(tb testing.TB, s *Store, sha256 string, f func(*Decision) bool) (list []string, read int, more bool) {
	tb.Helper()
	all, err := s.EachPassedDecision(context.Background(), []string{number("before", 1), sha256, number("after", 1)}, func(d *Decision) (bool, error) {
		if read++; d.SHA256 != sha256 || !d.Passed {
			tb.Errorf("%+v", d)
		}
		liked := f(d)
		if liked {
			list = append(list, d.Environment)
		}
		return liked, nil
	})
	must(tb, err)
	if len(all) > 1 || len(all) == 1 && !all[sha256] {
		tb.Errorf("more of %v", all)
	}
	return list, read, all[sha256]
}

func TestEachPassedDecision(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	ctx := context.Background()
	n := 0
	save := func(sha256, environment, caller string, passed bool) {
		n++
		must(t, s.SaveDecision(ctx, &Decision{ID: fmt.Sprint(n), SHA256: sha256, Environment: environment, Passed: passed, Caller: []byte(caller), CreatedAt: testClock(), ExpiresAt: testClock()}))
	}
	mine := func(d *Decision) bool { return string(d.Caller) == "me" }
	anybody := func(*Decision) bool { return true }
	one, many, flooded := number("one", 1), number("many", 1), number("flooded", 1)
	for _, e := range []string{"staging", "prod", "", "staging"} {
		save(one, e, "me", true)
	}
	save(one, "refused", "me", false)
	save(one, "theirs", "other", true)
	for range 2*passedDecisionsRead + 1 {
		save(one, "prod", "other", true)
	}
	got, read, more := allowed(t, s, one, anybody)
	diff(t, got, []string{"", "prod", "staging", "theirs"})
	if read != 4 || more {
		t.Errorf("%d read, more = %t", read, more)
	}
	got, _, more = allowed(t, s, one, mine)
	diff(t, got, []string{"", "prod", "staging"})
	if more {
		t.Error("there are no more")
	}

	for i := range maxEnvironments + 1 {
		save(many, fmt.Sprintf("e%03d", i), "me", true)
	}
	save("", "nobody", "me", true)
	if got, _, more = allowed(t, s, many, mine); len(got) != maxEnvironments || got[63] != "e063" || !more {
		t.Errorf("%d, more = %t: %v", len(got), more, got)
	}
	save(flooded, "prod", "me", true)
	must(t, s.w.do(ctx, 0, func(c *conn) error {
		return c.script(fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < %d)
			INSERT INTO decisions (id, key, ask_key, created_at, expires_at, subject_name, sha256, environment, passed, reason, policy_version, answer, caller)
			SELECT 'f' || n, key, ask_key, created_at, expires_at, subject_name, sha256, environment, passed, reason, policy_version, answer, x'00'
			FROM i CROSS JOIN decisions WHERE sha256 = x'%s' AND id NOT LIKE 'f%%'`, maxPassedDecisions+100, flooded))
	}))
	if got, read, more = allowed(t, s, flooded, mine); len(got) != 0 || !more || read > maxPassedDecisions+passedDecisionsRead {
		t.Errorf("%v after %d, more = %t", got, read, more)
	}
	var several []string
	cut, err := s.EachPassedDecision(ctx, []string{flooded, many, one}, func(d *Decision) (bool, error) {
		if mine(d) {
			several = append(several, d.SHA256)
		}
		return mine(d), nil
	})
	must(t, err)
	diff(t, cut, map[string]bool{flooded: true, many: true})
	diff(t, len(several), maxEnvironments+3)
	got, read, more = allowed(t, s, number("none", 1), mine)
	diff(t, got, []string(nil))
	if read != 0 || more {
		t.Errorf("%d read", read)
	}
	_, err = s.EachPassedDecision(ctx, []string{one, ""}, nil)
	wantCode(t, err, CodeRecordInvalid)
	broken := errors.New("broken")
	if _, err := s.EachPassedDecision(ctx, []string{one}, func(*Decision) (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	for _, query := range []string{newestPassed, olderPassed} {
		if plan := planOf(t, s, query); strings.Contains(plan, "SCAN decisions") || strings.Contains(plan, "B-TREE") || strings.Contains(plan, "decisions_sha256") {
			t.Errorf("the plan is\n%s", plan)
		}
	}
}

// TestBuildsBySHA256: the same as with bundles, few or many.
func TestBuildsBySHA256(t *testing.T) {
	t.Parallel()
	c := newCrowd(t)
	for i := range 40 {
		c.add(fmt.Sprint("p", i%5), hashed)
	}
	for _, limit := range []int{0, 7, 64} {
		want, _, err := c.s.AttestationsBySHA256(context.Background(), c.sha256, "", limit)
		must(t, err)
		for _, a := range want {
			a.Bundle, a.Subjects = nil, nil
		}
		got, err := c.s.BuildsBySHA256(context.Background(), []string{number("nobody's", 1), c.sha256}, "", limit)
		must(t, err)
		diff(t, got, map[string][]*Attestation{c.sha256: want})
	}
	got, err := c.s.BuildsBySHA256(context.Background(), []string{c.sha256}, "other", 7)
	must(t, err)
	diff(t, len(got), 0)
	_, err = c.s.BuildsBySHA256(context.Background(), []string{c.sha256, "x"}, "", 7)
	wantCode(t, err, CodeRecordInvalid)
	if plan := planOf(t, c.s, buildsBySHA256); strings.Contains(plan, "SCAN a\n") || strings.Contains(plan, "SCAN s\n") {
		t.Errorf("the plan is\n%s", plan)
	}
}
