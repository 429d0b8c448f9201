package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// all reads every page of the register.
func all(tb testing.TB, s *Store, q Query) []*Attestation {
	tb.Helper()
	var list []*Attestation
	for {
		page, next, err := s.ListAttestations(context.Background(), q)
		must(tb, err)
		list = append(list, page...)
		if next == "" {
			return list
		}
		q.PageToken = next
	}
}

func TestListAttestations(t *testing.T) {
	s := openNew(t)
	const n = 25
	var want []*Attestation
	for i := range n {
		p := testPending(i)
		if i%5 == 4 { // the same instant as the one before
			p.CreatedAt, p.Record.CreatedAt = testPending(i-1).CreatedAt, testPending(i-1).CreatedAt
		}
		want = append(want, put(t, s, p, int64(i)))
	}
	for _, size := range []int{1, 2, 7, 25, 1000, 0} {
		diff(t, all(t, s, Query{PageSize: size, OrderBy: "create_time", IncludeBundles: true}), want)
	}
	slices.Reverse(want)
	diff(t, all(t, s, Query{PageSize: 3, IncludeBundles: true}), want)
	for _, a := range want {
		a.Bundle = nil
	}
	diff(t, all(t, s, Query{PageSize: 3, OrderBy: " create_time  desc "}), want)
}

func TestFilters(t *testing.T) {
	s := openNew(t)
	const n = 12
	for i := range n {
		p := testPending(i)
		if i == 3 {
			p.Record.PredicateType = `https://cyclonedx.org/bom?"a"\`
		}
		put(t, s, p, int64(i))
	}
	third := testPending(3)
	for filter, want := range map[string][]int{
		"":    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11},
		" \n": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11},
		"subject.digest = sha256:" + number("subject", 3):                                                                                 {3},
		"subject.digest=" + number("subject", 3):                                                                                          {3},
		`subject.digest = "sha256:` + number("shared", 0) + `" AND slsa_build_level>=2`:                                                   {2, 3, 6, 7, 10, 11},
		"subject.digest = " + number("nobody", 0):                                                                                         nil,
		"subject.name = dist/app AND slsa_build_level = 0":                                                                                {0, 4, 8},
		"subject.name = dist/app AND subject.name='dist/app.sum' AND slsa_build_level != +0":                                              {1, 2, 3, 5, 6, 7, 9, 10, 11},
		"subject.name = dist/ap":                                                                                                          nil,
		"predicate_type = " + QuoteFilter(`https://cyclonedx.org/bom?"a"\`):                                                               {3},
		"predicate_type != https://slsa.dev/provenance/v1":                                                                                {3},
		"builder_id = https://assay.example/builders/dev AND commit = " + third.Record.SourceCommit:                                       {3},
		"invocation_id = " + third.Record.InvocationID:                                                                                    {3},
		"source_uri = git+https://github.com/acme/app@refs/heads/main AND slsa_build_level < 1":                                           {0, 4, 8},
		`create_time > "` + third.CreatedAt.Format(time.RFC3339Nano) + `" AND create_time <= "2026-03-01T13:00:08.123456+01:00"`:          {4, 5, 6, 7, 8},
		`create_time = "` + third.CreatedAt.Format(time.RFC3339Nano) + `"`:                                                                {3},
		`create_time >= "` + third.CreatedAt.Format(time.RFC3339Nano) + `" AND create_time < 9999-12-31T00:00:00Z AND slsa_build_level=3`: {3, 7, 11},
	} {
		for _, size := range []int{2, 100} {
			var got []int
			for _, a := range all(t, s, Query{PageSize: size, Filter: filter, OrderBy: "create_time"}) {
				got = append(got, int(a.LogIndex))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", filter, got, want)
			}
		}
	}
}

func TestFiltersAreRefused(t *testing.T) {
	s := openNew(t)
	for name, tc := range map[string]struct{ filter, says string }{
		"unknown field":        {"colour = red", "subject.digest, subject.name, predicate_type"},
		"a column":             {"seq = 1", `no field "seq"`},
		"no field":             {`= "x"`, `no field "="`},
		"case":                 {"Commit = x", `no field "Commit"`},
		"no operator":          {"commit", "commit takes = !="},
		"has operator":         {"commit:x", `no field "commit:x"`},
		"order of text":        {"commit < x", "commit takes = !="},
		"double equals":        {"commit == x", `found "=="`},
		"not of a digest":      {"subject.digest != " + number("x", 1), "subject.digest takes ="},
		"no value":             {"commit =", "want a value"},
		"no value but AND":     {"commit = AND commit = x", "joined by AND"},
		"unfinished string":    {`commit = "x`, "does not end"},
		"unknown escape":       {`commit = "\n"`, "backslash"},
		"escape at the end":    {`commit = "\`, "backslash"},
		"OR":                   {"commit = a OR commit = b", `found "OR"`},
		"and":                  {"commit = a and commit = b", `found "and"`},
		"nothing between":      {"commit = a commit = b", `found "commit"`},
		"NOT":                  {"NOT commit = a", `no field "NOT"`},
		"parentheses":          {"(commit = a)", `no field "("`},
		"trailing AND":         {"commit = a AND", `no field ""`},
		"digest of wrong size": {"subject.digest = sha256:ab", "64 lower-case hex digits"},
		"upper-case digest":    {"subject.digest = " + strings.ToUpper(number("x", 1)), "64 lower-case hex digits"},
		"sha512":               {"subject.digest = sha512:" + number("x", 1) + number("x", 1), "64 lower-case hex digits"},
		"level not a number":   {"slsa_build_level = two", "whole number"},
		"level too large":      {"slsa_build_level = 9223372036854775808", "whole number"},
		"time":                 {"create_time > yesterday", "RFC 3339"},
		"date":                 {"create_time > 2026-01-01", "RFC 3339"},
		"fine time":            {"create_time = 2026-01-01T00:00:00.0000001Z", "microsecond"},
		"too long":             {"commit = " + strings.Repeat("a", maxFilterBytes), "2048"},
		"too many":             {strings.Repeat("commit = a AND ", maxFilterTerms) + "commit = a", "16"},
		"not UTF-8":            {"commit = \xff", "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := s.ListAttestations(context.Background(), Query{Filter: tc.filter})
			wantCode(t, err, CodeFilterInvalid)
			if !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("%q does not say %q", err, tc.says)
			}
		})
	}
	_, _, err := s.ListDecisions(context.Background(), Query{Filter: "verification_result = MAYBE"})
	wantCode(t, err, CodeFilterInvalid)
	_, _, err = s.ListDecisions(context.Background(), Query{Filter: "create_time = x"})
	wantCode(t, err, CodeFilterInvalid)
	_, _, err = s.ListAttestations(context.Background(), Query{Filter: strings.Repeat("commit = a AND ", maxFilterTerms-1) + "commit = a"})
	must(t, err)
}

func TestListDecisions(t *testing.T) {
	s := openNew(t)
	ctx := context.Background()
	for i := range 10 {
		d := &Decision{ID: fmt.Sprint(i), Key: "k", SHA256: number("subject", i%2), Environment: []string{"prod", "dev"}[i%2],
			Passed: i%3 == 0, Reason: []string{"ALLOWED", "NO_PERMIT"}[i%2], CreatedAt: testClock().Add(time.Duration(i) * time.Hour)}
		must(t, s.SaveDecision(ctx, d))
		for range i {
			must(t, s.RecordAsk(ctx, Ask{DecisionID: d.ID, Caller: "c", At: testClock()}))
		}
	}
	for filter, want := range map[string]string{
		"": "9876543210", "environment = prod": "86420", "verification_result = PASSED": "9630",
		"verification_result != VERIFICATION_RESULT_PASSED": "875421", "reason = NO_PERMIT AND verification_result = FAILED": "751",
		"subject.digest = sha256:" + number("subject", 1) + ` AND decide_time >= "2026-03-01T17:00:00Z"`: "975",
	} {
		got, q := "", Query{PageSize: 2, Filter: filter}
		for {
			list, next, err := s.ListDecisions(ctx, q)
			must(t, err)
			for _, d := range list {
				got += d.ID
				if fmt.Sprint(d.AskCount) != d.ID {
					t.Errorf("decision %s has %d asks", d.ID, d.AskCount)
				}
			}
			if q.PageToken = next; next == "" {
				break
			}
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", filter, got, want)
		}
	}
	list, _, err := s.ListDecisions(ctx, Query{OrderBy: "decide_time", PageSize: 1})
	must(t, err)
	if list[0].ID != "0" {
		t.Fatalf("got %s first", list[0].ID)
	}
}

func TestQueriesAreRefused(t *testing.T) {
	s := openNew(t)
	ctx := context.Background()
	for i := range 3 {
		put(t, s, testPending(i), int64(i))
		must(t, s.SaveDecision(ctx, &Decision{ID: fmt.Sprint(i)}))
	}
	_, good, err := s.ListAttestations(ctx, Query{PageSize: 1, Filter: "slsa_build_level < 9"})
	must(t, err)
	_, foreign, err := s.ListDecisions(ctx, Query{PageSize: 1})
	must(t, err)
	other := openNew(t)
	other.tokenKey = []byte(strings.Repeat("k", 32))
	altered := []byte(good)
	altered[0] ^= 1
	for name, tc := range map[string]struct {
		q    Query
		code refusal.Code
	}{
		"negative size":     {Query{PageSize: -1}, CodePageSizeInvalid},
		"large size":        {Query{PageSize: 1001}, CodePageSizeInvalid},
		"order by a field":  {Query{OrderBy: "builder_id"}, CodeOrderInvalid},
		"order injection":   {Query{OrderBy: "create_time; DROP TABLE attestations"}, CodeOrderInvalid},
		"order of the rest": {Query{OrderBy: "decide_time"}, CodeOrderInvalid},
		"garbage token":     {Query{PageToken: "x"}, CodePageTokenInvalid},
		"altered token":     {Query{PageToken: string(altered), Filter: "slsa_build_level < 9"}, CodePageTokenInvalid},
		"padded token":      {Query{PageToken: good + "=", Filter: "slsa_build_level < 9"}, CodePageTokenInvalid},
		"other filter":      {Query{PageToken: good, Filter: "slsa_build_level < 8"}, CodePageTokenInvalid},
		"other order":       {Query{PageToken: good, Filter: "slsa_build_level < 9", OrderBy: "create_time"}, CodePageTokenInvalid},
		"other list":        {Query{PageToken: foreign}, CodePageTokenInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := s.ListAttestations(ctx, tc.q)
			wantCode(t, err, tc.code)
		})
	}
	_, _, err = other.ListAttestations(ctx, Query{PageToken: good, Filter: "slsa_build_level < 9"})
	wantCode(t, err, CodePageTokenInvalid)
	// The size is not bound.
	list, next, err := s.ListAttestations(ctx, Query{PageToken: good, Filter: "slsa_build_level < 9", PageSize: 2})
	must(t, err)
	if len(list) != 2 || next != "" {
		t.Fatalf("%d rows, then %q", len(list), next)
	}
}

// TestPagesWhileWriting pages through the register while others write, before,
// between and after what is there: each row of before is on one page, once.
func TestPagesWhileWriting(t *testing.T) {
	s := openNew(t)
	ctx := context.Background()
	const n = 60
	before := map[string]int{}
	for i := range n {
		p := testPending(i)
		put(t, s, p, int64(i))
		before[p.ID] = 0
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				p := testPending(1000 + g*100000 + i)
				p.CreatedAt = testClock().Add(time.Duration(i%100-20) * time.Second)
				p.Record.CreatedAt = p.CreatedAt
				if s.BeginAttestation(ctx, p) != nil || s.CompleteAttestation(ctx, p.ID, 1, []byte("b"), LogHead{}) != nil {
					t.Error("a write failed")
					return
				}
			}
		})
	}
	for _, order := range []string{"create_time", "create_time desc"} {
		clear(before)
		for i := range n {
			before[number("statement", i)] = 0
		}
		for q := (Query{PageSize: 7, OrderBy: order, Filter: `create_time < "2026-03-01T12:01:30Z"`}); ; {
			list, next, err := s.ListAttestations(ctx, q)
			must(t, err)
			for _, a := range list {
				if _, ok := before[a.ID]; ok {
					before[a.ID]++
				}
			}
			if q.PageToken = next; next == "" {
				break
			}
		}
		for id, times := range before {
			if times != 1 {
				t.Errorf("%s: %s was listed %d times", order, id, times)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// TestNaughtyStrings sends each string of a known list through every text that is
// stored and every field of every filter.
func TestNaughtyStrings(t *testing.T) {
	s := openNew(t)
	ctx := context.Background()
	var wg sync.WaitGroup
	for i, naughty := range naughtyStrings(t) {
		wg.Go(func() { roundTrip(t, s, i, naughty) })
	}
	wg.Wait()
	must(t, s.Check(ctx))
}

func roundTrip(t *testing.T, s *Store, i int, naughty string) {
	ctx := context.Background()
	p := testPending(i)
	r := p.Record
	r.PredicateType, r.BuilderID, r.BuildType, r.InvocationID, r.SourceURI, r.SourceCommit = naughty, naughty, naughty, naughty, naughty, naughty
	r.Caller, r.Subjects[0].Name = []byte(naughty), naughty
	want := *r
	want.LogIndex, want.Bundle = int64(i), []byte("b"+naughty)
	if err := s.BeginAttestation(ctx, p); err != nil {
		t.Errorf("%q: %v", naughty, err)
		return
	}
	if err := s.CompleteAttestation(ctx, p.ID, int64(i), want.Bundle, LogHead{}); err != nil {
		t.Errorf("%q: %v", naughty, err)
		return
	}
	got, err := s.Attestation(ctx, p.ID)
	if err != nil || got.SourceCommit != naughty || string(got.Bundle) != "b"+naughty || string(got.Caller) != naughty || got.Subjects[0].Name != naughty {
		t.Errorf("%q: %v %v", naughty, got, err)
		return
	}
	d := &Decision{ID: fmt.Sprint(i, naughty), Key: naughty, SubjectName: naughty, Environment: naughty, Reason: naughty, PolicyVersion: naughty, ExpiresAt: testClock()}
	if len(d.ID) > maxDecisionID {
		d.ID = number(naughty, i)
	}
	if err := s.SaveDecision(ctx, d); err != nil {
		t.Errorf("%q: %v", naughty, err)
		return
	}
	if err := s.RecordAsk(ctx, Ask{DecisionID: d.ID, Caller: naughty}); err != nil {
		t.Errorf("%q: %v", naughty, err)
	}
	asks, err := s.Asks(ctx, d.ID, 1)
	if err != nil || len(asks) != 1 || asks[0].Caller != naughty {
		t.Errorf("%q: asks %v %v", naughty, asks, err)
	}
	if kept, err := s.DecisionByKey(ctx, naughty, time.Time{}); err != nil || kept.Key != naughty {
		t.Errorf("%q: decision %v %v", naughty, kept, err)
	}
	filterBy(t, s, p.ID, naughty)
}

// filterBy looks for the attestation by each field, and sees that what is no value
// of a field is refused with the right code.
func filterBy(t *testing.T, s *Store, id, naughty string) {
	ctx := context.Background()
	for _, f := range attestationFields() {
		list, _, err := s.ListAttestations(ctx, Query{PageSize: 1000, Filter: f.name + " = " + QuoteFilter(naughty)})
		if f.kind == kindText || f.kind == kindMember {
			if err != nil || !slices.ContainsFunc(list, func(a *Attestation) bool { return a.ID == id }) {
				t.Errorf("%s = %q: %d rows, %v", f.name, naughty, len(list), err)
			}
			for _, a := range list {
				if f.kind == kindText && a.SourceCommit != naughty {
					t.Errorf("%s = %q also found %q", f.name, naughty, a.SourceCommit)
				}
			}
		} else if err != nil && refusal.CodeOf(err) != CodeFilterInvalid {
			t.Errorf("%s = %q: %v", f.name, naughty, err)
		}
		// As it stands, it is a filter or it is refused.
		if _, _, err := s.ListAttestations(ctx, Query{PageSize: 1, Filter: f.name + " = " + naughty}); err != nil && refusal.CodeOf(err) != CodeFilterInvalid {
			t.Errorf("%s = %s: %v", f.name, naughty, err)
		}
	}
	for _, f := range decisionFields() {
		list, _, err := s.ListDecisions(ctx, Query{PageSize: 1000, Filter: f.name + " = " + QuoteFilter(naughty)})
		if f.kind == kindText && (err != nil || len(list) == 0 || list[0].Environment != naughty) {
			t.Errorf("%s = %q: %d rows, %v", f.name, naughty, len(list), err)
		}
		if err != nil && refusal.CodeOf(err) != CodeFilterInvalid {
			t.Errorf("%s = %q: %v", f.name, naughty, err)
		}
	}
	for _, q := range []Query{{PageToken: naughty}, {OrderBy: naughty}} {
		if _, _, err := s.ListAttestations(ctx, q); err != nil && refusal.CodeOf(err) != CodePageTokenInvalid && refusal.CodeOf(err) != CodeOrderInvalid {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// TestPlans holds the queries to their indexes.
func TestPlans(t *testing.T) {
	s := openNew(t)
	key := s.tokenKey
	plan := func(query string, args []any) string {
		rows, err := s.scans.Query("EXPLAIN QUERY PLAN "+query, args...)
		must(t, err)
		defer rows.Close()
		var lines []string
		for rows.Next() {
			var a, b, c any
			var line string
			must(t, rows.Scan(&a, &b, &c, &line))
			lines = append(lines, line)
		}
		must(t, rows.Err())
		return strings.Join(lines, "; ")
	}
	after := listing{kind: "attestations", order: "desc"}.seal(key, cursor{1, 1})
	for name, tc := range map[string]struct {
		q          Query
		wants, not string
	}{
		"first page": {Query{}, "SCAN a USING INDEX attestations_created", "TEMP B-TREE"},
		"next page":  {Query{PageToken: after}, "SEARCH a USING INDEX attestations_created (created_at<?)", "TEMP B-TREE"},
		"since":      {Query{Filter: "create_time > 2026-01-01T00:00:00Z"}, "SEARCH a USING INDEX attestations_created (created_at>?)", "TEMP B-TREE"},
		"digest":     {Query{Filter: "subject.digest = " + number("x", 1)}, "SEARCH a USING INTEGER PRIMARY KEY (rowid=?)", "attestations_created"},
		"name":       {Query{Filter: "subject.name = x AND create_time > 2026-01-01T00:00:00Z"}, "SEARCH a USING INTEGER PRIMARY KEY (rowid=?)", "attestations_created"},
	} {
		p, err := parsePage(tc.q, "attestations", "create_time", attestationFields(), key)
		must(t, err)
		query, args := p.sql(attestationColumns+"NULL", "attestations a CROSS JOIN bundles b ON b.attestation = a.seq", "a")
		if got := plan(query, args); !strings.Contains(got, tc.wants) || strings.Contains(got, tc.not) {
			t.Errorf("%s: %s", name, got)
		}
	}
	p, err := parsePage(Query{Filter: "subject.digest = " + number("x", 1)}, "decisions", "decide_time", decisionFields(), key)
	must(t, err)
	query, args := p.sql(decisionColumns, "decisions d", "d")
	if got := plan(query, args); !strings.Contains(got, "USING INDEX decisions_sha256") || strings.Contains(got, "TEMP B-TREE") {
		t.Errorf("decisions: %s", got)
	}
}
