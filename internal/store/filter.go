package store

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeFilterInvalid: the filter breaks the grammar, names a field that the list
// does not have, or gives a field an operator or value that it does not take.
const CodeFilterInvalid refusal.Code = "FILTER_INVALID"

// Limits of a filter.
const (
	maxFilterBytes = 2 << 10
	maxFilterTerms = 16
)

// kind is what a field's values are.
type kind int

const (
	kindText   kind = iota // = and !=, exact
	kindInt                // every operator
	kindTime               // every operator; RFC 3339
	kindDigest             // = only; a sha256
	kindMember             // = only; text that is one of several
	kindResult             // = and !=; PASSED or FAILED
)

// field is one name that a filter may compare. sql has one %s, for the operator,
// and one parameter, for the value. postings says that it reads a posting list.
type field struct {
	name     string
	kind     kind
	sql      string
	postings bool
}

func (f field) operators() []string {
	switch f.kind {
	case kindText, kindResult:
		return []string{"=", "!="}
	case kindDigest, kindMember:
		return []string{"="}
	}
	return []string{"=", "!=", "<", "<=", ">", ">="}
}

// term is one comparison of a filter, ready for SQL: the text of it comes from the
// fields, the value is bound.
type term struct {
	field field
	sql   string
	arg   any
}

// parseFilter reads the subset of AIP-160 that lists take:
//
//	filter = [ term { "AND" term } ]
//	term   = field ("=" | "!=" | "<" | "<=" | ">" | ">=") value
//	value  = a string in "…" or '…', or a bare word
//
// In a string a backslash stands before a quote or another backslash, and nowhere
// else. A bare word is any run of characters without white space, quotes,
// parentheses and < > = !. There are no wildcards: * is a character like others.
func parseFilter(filter string, fields []field) ([]term, error) {
	if len(filter) > maxFilterBytes {
		return nil, filterErr("is %d bytes long, at most %d are read", len(filter), maxFilterBytes)
	}
	if !utf8.ValidString(filter) {
		return nil, filterErr("is not valid UTF-8")
	}
	p := &filterParser{in: filter, fields: fields}
	var terms []term
	for p.space(); p.pos < len(p.in); p.space() {
		if len(terms) > 0 {
			if word := p.word(); word != "AND" {
				return nil, p.err("want AND, found %q: comparisons are joined by AND, and nothing else is understood", p.found(word))
			}
			p.space()
		}
		if len(terms) == maxFilterTerms {
			return nil, filterErr("has more than %d comparisons", maxFilterTerms)
		}
		t, err := p.term()
		if err != nil {
			return nil, err
		}
		terms = append(terms, t)
	}
	return terms, nil
}

// QuoteFilter makes a filter value of any string.
func QuoteFilter(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

type filterParser struct {
	in     string
	pos    int
	fields []field
}

func filterErr(format string, args ...any) error {
	return refusal.New(CodeFilterInvalid, format, args...).InField("filter")
}

func (p *filterParser) err(format string, args ...any) error {
	return filterErr("at byte %d: %s", p.pos, fmt.Sprintf(format, args...))
}

// found names, for an error, what was read or the character at which reading stopped.
func (p *filterParser) found(word string) string {
	if word != "" || p.pos >= len(p.in) {
		return clip(word)
	}
	_, n := utf8.DecodeRuneInString(p.in[p.pos:])
	return p.in[p.pos : p.pos+n]
}

func (p *filterParser) space() {
	for p.pos < len(p.in) && strings.IndexByte(" \t\r\n", p.in[p.pos]) >= 0 {
		p.pos++
	}
}

// word reads a bare word, which may be empty.
func (p *filterParser) word() string {
	rest := p.in[p.pos:]
	n := strings.IndexAny(rest, " \t\r\n\"'()<>=!")
	if n < 0 {
		n = len(rest)
	}
	p.pos += n
	return rest[:n]
}

func (p *filterParser) term() (term, error) {
	start := p.pos
	name := p.word()
	f, ok := p.field(name)
	if !ok {
		name = p.found(name)
		p.pos = start
		return term{}, p.err("no field %q; the fields are %s", name, p.names())
	}
	p.space()
	op, err := p.operator(f)
	if err != nil {
		return term{}, err
	}
	p.space()
	at := p.pos
	text, err := p.value()
	if err != nil {
		return term{}, err
	}
	arg, err := f.parse(text)
	if err != nil {
		p.pos = at
		return term{}, p.err("%s: %v", f.name, err)
	}
	return term{field: f, sql: fmt.Sprintf(f.sql, op), arg: arg}, nil
}

func (p *filterParser) field(name string) (field, bool) {
	for _, f := range p.fields {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

func (p *filterParser) names() string {
	names := make([]string, len(p.fields))
	for i, f := range p.fields {
		names[i] = f.name
	}
	return strings.Join(names, ", ")
}

func (p *filterParser) operator(f field) (string, error) {
	rest := p.in[p.pos:]
	n := len(rest) - len(strings.TrimLeft(rest, "<>=!"))
	for _, op := range f.operators() {
		if op == rest[:n] {
			p.pos += n
			return op, nil
		}
	}
	found := rest[:n]
	if n == 0 {
		found = p.found("")
	}
	return "", p.err("%s takes %s, found %q", f.name, strings.Join(f.operators(), " "), clip(found))
}

func (p *filterParser) value() (string, error) {
	if p.pos < len(p.in) && (p.in[p.pos] == '"' || p.in[p.pos] == '\'') {
		return p.quoted(p.in[p.pos])
	}
	word := p.word()
	if word == "" {
		return "", p.err("want a value, found %q; an empty value is written \"\"", p.found(""))
	}
	return word, nil
}

func (p *filterParser) quoted(quote byte) (string, error) {
	start := p.pos
	var b strings.Builder
	for p.pos++; p.pos < len(p.in); p.pos++ {
		c := p.in[p.pos]
		if c == quote {
			p.pos++
			return b.String(), nil
		}
		if c == '\\' {
			p.pos++
			if p.pos == len(p.in) || strings.IndexByte(`\"'`, p.in[p.pos]) < 0 {
				return "", p.err(`a backslash stands before \ " or ' only`)
			}
			c = p.in[p.pos]
		}
		b.WriteByte(c)
	}
	p.pos = start
	return "", p.err("the string that begins here does not end")
}

// parse turns the text of a value into what is bound.
func (f field) parse(text string) (any, error) {
	switch f.kind {
	case kindInt:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", clip(text))
		}
		return n, nil
	case kindTime:
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, fmt.Errorf("%q is not an RFC 3339 time like \"2026-01-31T23:59:59Z\"", clip(text))
		}
		if t.Nanosecond()%1000 != 0 {
			return nil, fmt.Errorf("%q is finer than a microsecond, to which times are kept", clip(text))
		}
		return micros(t), nil
	case kindDigest:
		sum, err := hex.DecodeString(strings.TrimPrefix(text, "sha256:"))
		if err != nil || len(sum) != 32 || strings.ToLower(text) != text {
			return nil, fmt.Errorf("%q is not \"sha256:\" and 64 lower-case hex digits", clip(text))
		}
		return sum, nil
	case kindResult:
		switch strings.TrimPrefix(text, "VERIFICATION_RESULT_") {
		case "PASSED":
			return int64(1), nil
		case "FAILED":
			return int64(0), nil
		}
		return nil, fmt.Errorf("%q is neither PASSED nor FAILED", clip(text))
	}
	return text, nil
}
