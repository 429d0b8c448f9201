package awstest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// trust is what a trust policy says of a party.
type trust int

const (
	untrusted        trust = iota
	trustedByAccount       // its account or everybody is trusted; the account must let it
	trustedByName
)

// party is somebody who wants to assume a role.
type party struct {
	kind      string     // "AWS" or "Service"
	principal *principal // of kind AWS
	service   string     // of kind Service
}

type policyDocument struct {
	Statement oneOrMany[policyStatement]
}

type policyStatement struct {
	Effect       string
	Principal    json.RawMessage
	NotPrincipal json.RawMessage
	Action       oneOrMany[string]
	NotAction    json.RawMessage
	Condition    map[string]map[string]oneOrMany[text]
}

// oneOrMany is a value or a list of values, as policies may write either.
type oneOrMany[T any] []T

func (o *oneOrMany[T]) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]T)(o))
	}
	*o = make([]T, 1)
	return json.Unmarshal(b, &(*o)[0])
}

// text is a string, or a Boolean or number that IAM reads as one.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	switch v := v.(type) {
	case string:
		*t = text(v)
	case bool:
		*t = text(strconv.FormatBool(v))
	case float64:
		*t = text(b)
	default:
		return fmt.Errorf("a condition has a value %s", b)
	}
	return nil
}

// judge evaluates the role's trust policy for sts:AssumeRole. What the stand-in
// cannot evaluate (NotPrincipal, NotAction, an unknown operator) never trusts
// anybody, and forbids where it stands in a Deny. A document that cannot be read
// trusts nobody.
func (r *Role) judge(p party, context map[string]string) trust {
	r.account.w.mu.Lock()
	document := r.trust
	r.account.w.mu.Unlock()

	var policy policyDocument
	if err := json.Unmarshal([]byte(document), &policy); err != nil {
		return untrusted
	}
	best := untrusted
	for _, s := range policy.Statement {
		t, known := s.judge(p, context)
		switch {
		case s.Effect == "Deny" && (t != untrusted || !known):
			return untrusted
		case s.Effect == "Allow" && known:
			best = max(best, t)
		}
	}
	return best
}

// judge tells how the statement matches a party; known is false if it cannot be
// evaluated.
func (s *policyStatement) judge(p party, context map[string]string) (t trust, known bool) {
	if s.NotPrincipal != nil || s.NotAction != nil {
		return untrusted, false
	}
	if !slices.ContainsFunc(s.Action, func(a string) bool {
		return like(strings.ToLower(a), "sts:assumerole")
	}) {
		return untrusted, true
	}
	for operator, keys := range s.Condition {
		for key, values := range keys {
			holds, known := condition(operator, key, values, context)
			if !known {
				return untrusted, false
			}
			if !holds {
				return untrusted, true
			}
		}
	}
	return matchPrincipal(s.Principal, p)
}

func matchPrincipal(raw json.RawMessage, p party) (trust, bool) {
	var everybody string
	if json.Unmarshal(raw, &everybody) == nil {
		if everybody != "*" {
			return untrusted, false
		}
		return trustedByAccount, true
	}
	var principals map[string]oneOrMany[string]
	if err := json.Unmarshal(raw, &principals); err != nil {
		return untrusted, false
	}
	best := untrusted
	for _, name := range principals[p.kind] {
		best = max(best, p.matches(name))
	}
	return best, true
}

func (p party) matches(name string) trust {
	if p.kind == "Service" {
		if name == p.service {
			return trustedByName
		}
		return untrusted
	}
	switch a := p.principal.account; name {
	case "*", a.id, a.arn("iam", "", "root"):
		return trustedByAccount
	case p.principal.arn, p.principal.iamARN():
		return trustedByName
	}
	return untrusted
}

// condition evaluates one key of a condition. A key that the request lacks (or
// has empty, which is the same here) fails, except for IfExists, for negated
// operators and for Null.
func condition(operator, key string, values []text, context map[string]string) (holds, known bool) {
	actual := ""
	for name, v := range context {
		if strings.EqualFold(name, key) {
			actual = v
		}
	}
	operator, ifExists := strings.CutSuffix(operator, "IfExists")
	if operator == "Null" {
		return len(values) == 1 && (values[0] == "true") == (actual == ""), true
	}
	base := strings.Replace(operator, "Not", "", 1)
	var match func(pattern, actual string) bool
	switch base {
	case "StringEquals":
		match = func(pattern, actual string) bool { return pattern == actual }
	case "StringEqualsIgnoreCase":
		match = strings.EqualFold
	case "StringLike", "ArnLike", "ArnEquals":
		match = like
	default:
		return false, false
	}
	negated := base != operator
	if actual == "" {
		return ifExists || negated, true
	}
	any := slices.ContainsFunc(values, func(v text) bool { return match(string(v), actual) })
	return any != negated, true
}
