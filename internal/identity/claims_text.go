package identity

import (
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/refusal"
)

// What issuers other than GitHub put into a claim is less regular: GitLab sends
// ids as strings and as numbers, Buildkite sends null for what is not there. The
// readers of this file accept these and give each value one spelling.

const (
	// maxTextBytes bounds one claim that is read as text.
	maxTextBytes = 1024
	// maxTexts bounds the values of one claim that is a list: the groups of a
	// person, the values of a custom property.
	maxTexts = 256
	// maxNumberBytes bounds the digits of a claim that is a number.
	maxNumberBytes = 32
)

// text returns a claim that is one value. null, and the empty string, count as
// not there.
func (c claims) text(name string) (s string, ok bool, err error) {
	raw, there := c[name]
	if !there {
		return "", false, nil
	}
	s, err = textOf(name, raw)
	return s, s != "", err
}

// texts returns a claim that is one value or a list of values.
func (c claims) texts(name string) ([]string, error) {
	raw, ok := c[name]
	if !ok {
		return nil, nil
	}
	items := []jsontext.Value{raw}
	if raw.Kind() == '[' {
		items = nil
		if json.Unmarshal(raw, &items) != nil {
			return nil, refusal.New(CodeTokenClaimInvalid, "claim %s is not a list", name)
		}
		if len(items) > maxTexts {
			return nil, refusal.New(CodeTokenClaimInvalid, "claim %s has %d values; the limit is %d", name, len(items), maxTexts)
		}
	}
	var out []string
	for _, item := range items {
		s, err := textOf(name, item)
		if err != nil {
			return nil, err
		}
		if s != "" {
			out = append(out, s)
		}
	}
	return out, nil
}

// textOf gives a value its one spelling. A number stays the digits it was sent
// as, never a floating point number on the way: 12345678901234567 is not
// 12345678901234568, nor 1.2345678901234567e16.
func textOf(name string, raw jsontext.Value) (string, error) {
	switch raw.Kind() {
	case 'n':
		return "", nil
	case 't', 'f':
		return string(raw), nil
	case '0':
		digits := strings.TrimPrefix(string(raw), "-")
		if len(digits) > maxNumberBytes || strings.ContainsAny(digits, ".eE") || string(raw) == "-0" {
			return "", refusal.New(CodeTokenClaimInvalid, "claim %s is not a whole number of at most %d digits", name, maxNumberBytes)
		}
		return string(raw), nil
	case '"':
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return "", refusal.New(CodeTokenClaimInvalid, "claim %s is not a string", name)
		}
		if len(s) > maxTextBytes {
			return "", refusal.New(CodeTokenClaimInvalid, "claim %s has %d bytes; the limit is %d", name, len(s), maxTextBytes)
		}
		if strings.ContainsFunc(s, hidden) {
			return "", refusal.New(CodeTokenClaimInvalid, "claim %s has a control or bidirectional character", name)
		}
		return s, nil
	}
	return "", refusal.New(CodeTokenClaimInvalid, "claim %s is neither text nor a number", name)
}

// require refuses a token without one of the named claims.
func (c claims) require(names []string) error {
	for _, name := range names {
		values, err := c.texts(name)
		if err != nil {
			return err
		}
		if len(values) == 0 {
			return refusal.New(CodeTokenClaimMissing, "claim %s is missing", name)
		}
	}
	return nil
}

// allowed holds the claims against the configuration's list: every claim that is
// listed must have one of the values listed for it. Values are compared whole;
// no pattern over an id lets in one that merely contains it. The refusal does not
// tell the value: it may be a person's group or address.
func (c claims) allowed(allow map[string][]string) error {
	for _, name := range slices.Sorted(maps.Keys(allow)) {
		values, err := c.texts(name)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(values, func(v string) bool { return slices.Contains(allow[name], v) }) {
			return refusal.New(CodeCallerNotAllowed, "claim %s has none of the values that are allowed", name)
		}
	}
	return nil
}

// properties returns claims as "name=value", sorted, one for each value. names
// maps the claim to the name it gets.
func (c claims) properties(names map[string]string) ([]string, error) {
	var out []string
	for claim, name := range names {
		values, err := c.texts(claim)
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			out = append(out, name+"="+v)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
