package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What went wrong, in classes. Test with [errors.Is]; for one particular refusal
// test against &Error{Code: "TOKEN_REPLAYED"}.
var (
	// ErrInvalid: the input is wrong; the same call can never succeed.
	ErrInvalid = errors.New("invalid input")
	// ErrNotFound: the thing asked for does not exist.
	ErrNotFound = errors.New("not found")
	// ErrDenied: the server knows the caller and says no.
	ErrDenied = errors.New("denied")
	// ErrUnauthenticated: the server does not accept who the caller says it is.
	ErrUnauthenticated = errors.New("not authenticated")
	// ErrUnavailable: the server or the network was not there, or not in time.
	ErrUnavailable = errors.New("unavailable")
	// ErrDishonest: the server's answer contradicts itself or what was asked.
	ErrDishonest = errors.New("the server's answer cannot be believed")
)

// CodeAnswerInvalid is the code of every error that matches [ErrDishonest].
const CodeAnswerInvalid = "SERVER_ANSWER_INVALID"

// codeSessionExpired is the server's word that a session is over; its twin is
// declared in internal/identity.
const codeSessionExpired = "SESSION_EXPIRED"

// errorDomain is the domain of the server's ErrorInfo. Reasons of other domains,
// which a proxy on the way may add, are not taken for Assay's.
const errorDomain = "assay.build"

// Error is a refusal, by the server or by this package's own checks.
type Error struct {
	// Code is the stable reason, docs/errors.md. Where the server gave none it is
	// the name of the gRPC status, for example "UNAVAILABLE".
	Code string
	// Message is for people. It may hold what a server sent: strip control
	// characters before printing it.
	Message string
	// Violations name the wrong inputs.
	Violations []FieldViolation
	// Metadata is what the server added, for example a limit.
	Metadata map[string]string
	// Retryable says that the same call may succeed later.
	Retryable bool
	// RetryAfter is how long the server asked to be left alone.
	RetryAfter time.Duration

	class error
	cause error
}

// FieldViolation says what is wrong with one input, named in the words of the
// wire contract ("subjects[3].name").
type FieldViolation struct{ Field, Description string }

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Code)
	b.WriteString(": ")
	b.WriteString(e.Message)
	for _, v := range e.Violations {
		if !strings.Contains(e.Message, v.Description) {
			fmt.Fprintf(&b, "; %s: %s", v.Field, v.Description)
		}
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.cause }

// Is matches the error's class and any *Error of the same code.
func (e *Error) Is(target error) bool {
	if t, ok := target.(*Error); ok {
		return t.Code == e.Code
	}
	return e.class != nil && target == e.class
}

// badInput is a refusal by this package of what its caller passed.
func badInput(code, format string, args ...any) *Error {
	return newError(ErrInvalid, code, format, args...)
}

// dishonest is a refusal by this package of what the server answered.
func dishonest(format string, args ...any) *Error {
	return newError(ErrDishonest, CodeAnswerInvalid, format, args...)
}

func newError(class error, code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), class: class, cause: errors.Unwrap(err)}
}

// fromStatus turns the error of a gRPC call into an *Error. Errors that are
// this package's already pass unchanged.
func fromStatus(err error) error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		if ctxErr := status.FromContextError(err); ctxErr.Code() != codes.Unknown {
			s = ctxErr
		} else {
			return err
		}
	}
	e := &Error{
		Code:      statusName(s.Code()),
		Message:   s.Message(),
		Retryable: s.Code() == codes.Unavailable,
		class:     classOf(s.Code()),
	}
	switch s.Code() {
	case codes.DeadlineExceeded:
		e.cause = context.DeadlineExceeded
	case codes.Canceled:
		e.cause = context.Canceled
	}
	e.readDetails(s)
	return e
}

func (e *Error) readDetails(s *status.Status) {
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == errorDomain && d.GetReason() != "" {
				e.Code, e.Metadata = d.GetReason(), d.GetMetadata()
				// The service's message begins with its code, for those who see only that.
				e.Message = strings.TrimPrefix(e.Message, e.Code+": ")
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Violations = append(e.Violations, FieldViolation{v.GetField(), v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = min(max(0, d.GetRetryDelay().AsDuration()), maxRetryAfter)
		}
	}
}

func classOf(c codes.Code) error {
	switch c {
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition, codes.AlreadyExists:
		return ErrInvalid
	case codes.NotFound:
		return ErrNotFound
	case codes.PermissionDenied:
		return ErrDenied
	case codes.Unauthenticated:
		return ErrUnauthenticated
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted:
		return ErrUnavailable
	}
	return nil
}

// statusName spells a status as google.rpc.Code does.
func statusName(c codes.Code) string {
	var b strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' && c != codes.OK {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}
