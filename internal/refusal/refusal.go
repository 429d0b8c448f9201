// Package refusal is how Assay says no: an error with a stable code.
//
// Every check that can refuse declares its code as a constant next to the check
//
//	const CodeTokenExpired refusal.Code = "TOKEN_EXPIRED"
//
// and returns
//
//	return refusal.New(CodeTokenExpired, "exp %s is %s in the past, skew allowed %s", exp, late, skew)
//
// Codes are upper-case ASCII words joined by underscores. They are a frozen part
// of the interface: clients, policies and dashboards match on them, and
// docs/errors.md lists each. The text beside a code is for people and may change.
// It names the field, the limit and the value, and never holds a token, a
// signature input or a secret.
//
// Inside the program callers test with errors.As or CodeOf; at the edge package
// server maps each code to one gRPC status, and package client maps it back.
package refusal

import (
	"errors"
	"fmt"
)

// Code is the stable name of one reason to refuse.
type Code string

// Error is a refusal. Two refusals are the same to errors.Is when their codes are.
type Error struct {
	Code Code
	// Field names the offending input, in the words of the wire contract
	// ("subjects[3].name"); empty where no single field is to blame.
	Field string
	// Detail is the text for people.
	Detail string
	// Err is the cause, if any.
	Err error
}

// New returns a refusal with a formatted text. A %w verb keeps its operand as the cause.
func New(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Detail: err.Error(), Err: errors.Unwrap(err)}
}

// InField returns a copy of e that blames the named input.
func (e *Error) InField(field string) *Error {
	c := *e
	c.Field = field
	return &c
}

func (e *Error) Error() string {
	if e.Field != "" {
		return fmt.Sprintf("%s: %s: %s", e.Code, e.Field, e.Detail)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Detail)
}

func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is a refusal with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// CodeOf returns the code of the first refusal in err's chain, "" where there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
