package versions

import (
	"net/url"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeRangeInvalid: a text is no version range.
const CodeRangeInvalid refusal.Code = "VERSION_RANGE_INVALID"

const (
	maxRangeBytes  = 4 << 10
	maxComparisons = 64
)

// Range is a set of versions.
type Range struct {
	text string
	typ  string // a version range specifier names the type; "" for any
	// intervals: the comparisons are those of a version range specifier, whose
	// neighbours make intervals, instead of conditions that must all hold.
	intervals   bool
	comparisons []comparison // none: every version
}

type comparison struct{ op, version string }

// ParseRange reads a range in either syntax. Whether its versions are some of an
// ecosystem turns out in Check.
func ParseRange(s string) (*Range, error) {
	s = strings.TrimSpace(s)
	if s == "" || len(s) > maxRangeBytes {
		return nil, refusal.New(CodeRangeInvalid, "a range has 1 to %d bytes, not %d", maxRangeBytes, len(s))
	}
	r := &Range{text: s}
	list, separator := s, ","
	if specifier, ok := strings.CutPrefix(s, "vers:"); ok {
		r.typ, list, ok = strings.Cut(specifier, "/")
		if !ok || r.typ == "" || r.typ != strings.ToLower(r.typ) {
			return nil, refusal.New(CodeRangeInvalid, "%.200q: want vers:TYPE/COMPARISONS with a lower-case type", s)
		}
		separator, r.intervals = "|", true
	}
	if strings.TrimSpace(list) == "*" {
		return r, nil
	}
	for text := range strings.SplitSeq(list, separator) {
		c, err := parseComparison(text, r.intervals)
		if err != nil {
			return nil, err
		}
		r.comparisons = append(r.comparisons, c)
	}
	if len(r.comparisons) > maxComparisons {
		return nil, refusal.New(CodeRangeInvalid, "%d comparisons; at most %d", len(r.comparisons), maxComparisons)
	}
	if r.intervals {
		return r, r.checkIntervals()
	}
	return r, nil
}

// Exactly is the range of one version.
func Exactly(version string) *Range {
	return &Range{text: "=" + version, comparisons: []comparison{{"=", version}}}
}

func parseComparison(text string, encoded bool) (comparison, error) {
	text = strings.TrimSpace(text)
	c := comparison{op: "=", version: text}
	for _, op := range [...]string{"<=", ">=", "!=", "==", "<", ">", "="} {
		if version, ok := strings.CutPrefix(text, op); ok {
			c = comparison{op: op, version: strings.TrimSpace(version)}
			break
		}
	}
	if c.op == "==" {
		c.op = "="
	}
	if encoded {
		decoded, err := url.PathUnescape(c.version)
		if err != nil {
			return c, refusal.New(CodeRangeInvalid, "%.100q: %w", text, err)
		}
		c.version = decoded
	}
	if c.version == "" || strings.ContainsAny(c.version, "<>=!*|, \t") {
		return c, refusal.New(CodeRangeInvalid, "%.100q is no comparison with a version", text)
	}
	return c, nil
}

// checkIntervals sorts the comparisons of a specifier and checks what VERS demands:
// versions once each, and bounds that alternate.
func (r *Range) checkIntervals() error {
	var failed error
	slices.SortStableFunc(r.comparisons, func(a, b comparison) int {
		n, err := Compare(r.typ, a.version, b.version)
		if err != nil && failed == nil {
			failed = err
		}
		return n
	})
	if failed == nil && len(r.comparisons) == 1 {
		failed = r.Check(r.typ)
	}
	if failed != nil {
		return failed
	}
	bounds := r.bounds()
	for i := range len(r.comparisons) - 1 {
		if n, err := Compare(r.typ, r.comparisons[i].version, r.comparisons[i+1].version); err != nil || n == 0 {
			return refusal.New(CodeRangeInvalid, "%.100q is named twice", r.comparisons[i].version)
		}
	}
	for i := range len(bounds) - 1 {
		if isLower(bounds[i]) == isLower(bounds[i+1]) {
			return refusal.New(CodeRangeInvalid, "bounds %s%.80s and %s%.80s follow each other", bounds[i].op, bounds[i].version,
				bounds[i+1].op, bounds[i+1].version)
		}
	}
	return nil
}

// bounds are the comparisons that begin or end an interval.
func (r *Range) bounds() []comparison {
	var bounds []comparison
	for _, c := range r.comparisons {
		if c.op != "=" && c.op != "!=" {
			bounds = append(bounds, c)
		}
	}
	return bounds
}

func isLower(c comparison) bool { return c.op[0] == '>' }

// String is the range as it was written.
func (r *Range) String() string { return r.text }

// Type is the package URL type that a version range specifier names; "" where the range
// can be of any.
func (r *Range) Type() string { return r.typ }

// Check reports why the range cannot be of versions of a package URL type.
func (r *Range) Check(typ string) error {
	if r.typ != "" && r.typ != typ {
		return refusal.New(CodeRangeInvalid, "a range of %s has no versions of %s", r.typ, typ)
	}
	if r.exact() {
		return nil
	}
	for _, c := range r.comparisons {
		if _, err := parse(typ, c.version); err != nil {
			return err
		}
	}
	return nil
}

// exact: one version is asked for, by its very spelling if need be. That needs no order.
func (r *Range) exact() bool {
	return len(r.comparisons) == 1 && r.comparisons[0].op == "=" && !r.intervals
}

// Matches reports whether a version of a package URL type is in the range. An error
// says that it cannot be decided.
func (r *Range) Matches(typ, version string) (bool, error) {
	switch {
	case r.typ != "" && r.typ != typ:
		return false, nil // versions of one ecosystem are none of another
	case len(r.comparisons) == 0:
		return true, nil
	case r.exact():
		return r.matchesExactly(typ, version), nil
	}
	if r.intervals {
		return r.within(typ, version)
	}
	for _, c := range r.comparisons {
		holds, err := c.holds(typ, version)
		if err != nil || !holds {
			return false, err
		}
	}
	return true, nil
}

// matchesExactly takes other spellings of the version too, where the ecosystem has an
// order that says so.
func (r *Range) matchesExactly(typ, version string) bool {
	want := r.comparisons[0].version
	if version == want {
		return true
	}
	n, err := Compare(typ, version, want)
	return err == nil && n == 0
}

func (c comparison) holds(typ, version string) (bool, error) {
	n, err := Compare(typ, version, c.version)
	if err != nil {
		return false, err
	}
	switch c.op {
	case "<":
		return n < 0, nil
	case "<=":
		return n <= 0, nil
	case ">":
		return n > 0, nil
	case ">=":
		return n >= 0, nil
	case "!=":
		return n != 0, nil
	}
	return n == 0, nil
}

// within is the containment test of VERS: a version that is named is in or out by what
// its comparison says; any other is in where the nearest bounds on either side enclose it.
func (r *Range) within(typ, version string) (bool, error) {
	below, above := "", "" // the nearest bounds
	for _, c := range r.comparisons {
		n, err := Compare(typ, version, c.version)
		if err != nil {
			return false, err
		}
		switch isBound := c.op != "=" && c.op != "!="; {
		case n == 0:
			return c.op == "=" || c.op == "<=" || c.op == ">=", nil
		case isBound && n > 0:
			below = c.op
		case isBound && above == "":
			above = c.op
		}
	}
	if below == "" && above == "" {
		return r.onlyExcludes(), nil
	}
	return (below == "" || below[0] == '>') && (above == "" || above[0] == '<'), nil
}

func (r *Range) onlyExcludes() bool {
	return !slices.ContainsFunc(r.comparisons, func(c comparison) bool { return c.op != "!=" })
}
