package store

import (
	"cmp"
	"context"
	"database/sql"
	"strings"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodePageSizeInvalid: the page size is negative or over the limit.
	CodePageSizeInvalid refusal.Code = "PAGE_SIZE_INVALID"
	// CodeOrderInvalid: the list cannot be ordered like that.
	CodeOrderInvalid refusal.Code = "ORDER_INVALID"
)

const (
	defaultPageSize = 50
	maxPageSize     = 1000
)

// page is a Query that was checked.
type page struct {
	listing
	terms      []term
	size       int
	descending bool
	after      *cursor
}

// parsePage checks a query. timeField is what the list is ordered by.
func parsePage(q Query, kind, timeField string, fields []field, key []byte) (*page, error) {
	p := &page{size: q.PageSize}
	switch {
	case p.size < 0 || p.size > maxPageSize:
		return nil, refusal.New(CodePageSizeInvalid, "%d is not from 0 to %d", p.size, maxPageSize).InField("page_size")
	case p.size == 0:
		p.size = defaultPageSize
	}
	switch strings.Join(strings.Fields(q.OrderBy), " ") {
	case "", timeField + " desc":
		p.descending = true
	case timeField, timeField + " asc":
	default:
		return nil, refusal.New(CodeOrderInvalid, "%q is neither %q nor %q", clip(q.OrderBy), timeField+" desc", timeField).InField("order_by")
	}
	var err error
	if p.terms, err = parseFilter(q.Filter, fields); err != nil {
		return nil, err
	}
	p.listing = listing{kind: kind, filter: q.Filter, order: "asc"}
	if p.descending {
		p.order = "desc"
	}
	if q.PageToken != "" {
		c, err := p.open(key, q.PageToken)
		if err != nil {
			return nil, err
		}
		p.after = &c
	}
	return p, nil
}

// sql returns the query and its arguments; from names the table and its alias t. It
// asks for one row more than the page holds, to know whether there is another page.
//
// Pages are cut by key, not by offset: a row that was there when the first page was
// read is on exactly one page, however many are added in the meantime.
func (p *page) sql(columns, from, t string) (string, []any) {
	var b strings.Builder
	var args []any
	created, seq, sep := t+".created_at", t+".seq", " WHERE "
	b.WriteString("SELECT " + columns + " FROM " + from)
	for _, term := range p.terms {
		if term.field.postings {
			// The posting list is to be read and its rows sorted; the unary plus
			// keeps SQLite from walking the index by time and testing each row.
			created, seq = "+"+t+".created_at", "+"+t+".seq"
		}
		b.WriteString(sep + term.sql)
		args = append(args, term.arg)
		sep = " AND "
	}
	compare, direction := " > ", " ASC"
	if p.descending {
		compare, direction = " < ", " DESC"
	}
	if p.after != nil {
		b.WriteString(sep + "(" + created + ", " + seq + ")" + compare + "(?, ?)")
		args = append(args, p.after.at, p.after.seq)
	}
	b.WriteString(" ORDER BY " + created + direction + ", " + seq + direction + " LIMIT +?")
	return b.String(), append(args, p.size+1)
}

// attestationFields are what ListAttestations filters by.
func attestationFields() []field {
	return []field{
		{name: "subject.digest", kind: kindDigest, postings: true, sql: "a.seq IN (SELECT attestation FROM subjects WHERE sha256 %s ?)"},
		{name: "subject.name", kind: kindMember, postings: true, sql: "a.seq IN (SELECT attestation FROM subject_names WHERE name %s ?)"},
		{name: "predicate_type", kind: kindText, sql: "a.predicate_type %s ?"},
		{name: "builder_id", kind: kindText, sql: "a.builder_id %s ?"},
		{name: "invocation_id", kind: kindText, sql: "a.invocation_id %s ?"},
		{name: "source_uri", kind: kindText, sql: "a.source_uri %s ?"},
		{name: "commit", kind: kindText, sql: "a.source_commit %s ?"},
		{name: "slsa_build_level", kind: kindInt, sql: "a.slsa_build_level %s ?"},
		{name: "create_time", kind: kindTime, sql: "a.created_at %s ?"},
	}
}

// ListAttestations returns one page of the register and the token of the next,
// empty after the last. The order is by create_time, latest first unless OrderBy is
// "create_time". The filter compares subject.digest, subject.name, predicate_type,
// builder_id, invocation_id, source_uri, commit, slsa_build_level and create_time;
// see parseFilter for the grammar. Bundles are left out unless asked for.
func (s *Store) ListAttestations(ctx context.Context, q Query) (list []*Attestation, next string, err error) {
	p, err := parsePage(q, "attestations", "create_time", attestationFields(), s.tokenKey)
	if err != nil {
		return nil, "", err
	}
	bundle := "NULL"
	if q.IncludeBundles {
		bundle = "b.bundle"
	}
	query, args := p.sql(attestationColumns+bundle, "attestations a CROSS JOIN bundles b ON b.attestation = a.seq", "a")
	var last cursor
	more, err := s.readPage(ctx, p, query, args, func(rows rowScanner) error {
		a, seq, err := s.scanAttestation(rows)
		if err == nil {
			list, last = append(list, a), cursor{micros(a.CreatedAt), seq}
		}
		return err
	})
	if err != nil || !more {
		return list, "", err
	}
	return list, p.seal(s.tokenKey, last), nil
}

// decisionFields are what ListDecisions filters by.
func decisionFields() []field {
	return []field{
		{name: "subject.digest", kind: kindDigest, sql: "d.sha256 %s ?"},
		{name: "environment", kind: kindText, sql: "d.environment %s ?"},
		{name: "verification_result", kind: kindResult, sql: "d.passed %s ?"},
		{name: "reason", kind: kindText, sql: "d.reason %s ?"},
		{name: "decide_time", kind: kindTime, sql: "d.created_at %s ?"},
	}
}

// ListDecisions returns one page of the decisions and the token of the next, empty
// after the last. The order is by decide_time, latest first unless OrderBy is
// "decide_time". The filter compares subject.digest, environment,
// verification_result (PASSED or FAILED), reason and decide_time.
func (s *Store) ListDecisions(ctx context.Context, q Query) (list []*Decision, next string, err error) {
	p, err := parsePage(q, "decisions", "decide_time", decisionFields(), s.tokenKey)
	if err != nil {
		return nil, "", err
	}
	query, args := p.sql(decisionColumns, "decisions d", "d")
	var last cursor
	more, err := s.readPage(ctx, p, query, args, func(rows rowScanner) error {
		d, seq, err := scanDecision(rows)
		if err == nil {
			list, last = append(list, d), cursor{micros(d.CreatedAt), seq}
		}
		return err
	})
	if err != nil || !more {
		return list, "", err
	}
	return list, p.seal(s.tokenKey, last), nil
}

// rowScanner is a row, of one or of many.
type rowScanner interface{ Scan(dest ...any) error }

// readPage reads at most a page of rows and reports whether there is one more.
func (s *Store) readPage(ctx context.Context, p *page, query string, args []any, scan func(rowScanner) error) (bool, error) {
	rows, err := s.scans.QueryContext(ctx, query, args...)
	if err != nil {
		return false, refused(err)
	}
	n := 0
	err = eachRow(rows, func(row rowScanner) error {
		if n++; n > p.size {
			return nil // the query asks for one row more than the page holds
		}
		return scan(row)
	})
	return n > p.size, err
}

// collect returns what scan makes of each row. A list that an error cut short is
// an error, never a shorter list.
func collect[T any](rows *sql.Rows, scan func(rowScanner) (T, error)) ([]T, error) {
	var list []T
	err := eachRow(rows, func(row rowScanner) error {
		v, err := scan(row)
		list = append(list, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// eachRow calls f on every row, up to the first error, and closes rows.
func eachRow(rows *sql.Rows, f func(rowScanner) error) (err error) {
	defer func() { err = refused(cmp.Or(err, rows.Close())) }()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
