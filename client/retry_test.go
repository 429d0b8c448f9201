package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/assay-build/assay/client/clienttest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TestRetryOnlyUnavailable: of all statuses one is worth another try.
func TestRetryOnlyUnavailable(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			s := clienttest.New(t)
			calls := 0
			s.OnGetTrustedRoot = func(context.Context, *assayv1.GetTrustedRootRequest) (*assayv1.GetTrustedRootResponse, error) {
				calls++
				return nil, status.Error(code, "no")
			}
			c, slept := dial(t, s)
			_, err := c.GetTrustedRoot(t.Context())
			want := 1
			if code == codes.Unavailable {
				want = maxAttempts
			}
			if err == nil || calls != want || len(slept.waits) != want-1 {
				t.Errorf("%d calls, %d waits, error %v; want %d calls", calls, len(slept.waits), err, want)
			}
		})
	}
}

func TestRetrySucceeds(t *testing.T) {
	s := clienttest.New(t)
	calls := 0
	s.OnWhoAmI = func(context.Context, *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error) {
		if calls++; calls < 4 {
			return nil, status.Error(codes.Unavailable, "restarting")
		}
		return &assayv1.WhoAmIResponse{Caller: &assayv1.Caller{}}, nil
	}
	c, slept := dial(t, s)
	if _, err := c.WhoAmI(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Full jitter: any wait below a bound that doubles.
	want := []time.Duration{retryBase, 2 * retryBase, 4 * retryBase}
	if !slices.Equal(slept.bounds, want) {
		t.Errorf("waits below %v, want below %v", slept.bounds, want)
	}
	if s.Exchanges.Load() != 1 {
		t.Errorf("%d exchanges, want 1: the session was good all the while", s.Exchanges.Load())
	}
}

// TestRetryExchange: each attempt to open a session brings a new credential.
func TestRetryExchange(t *testing.T) {
	s := clienttest.New(t)
	s.OnExchange = func(context.Context, *assayv1.ExchangeRequest) (*assayv1.ExchangeResponse, error) {
		if s.Exchanges.Load() < 3 {
			return nil, status.Error(codes.Unavailable, "the answer was lost")
		}
		return &assayv1.ExchangeResponse{SessionToken: "s"}, nil
	}
	c, _ := dial(t, s)
	source := &countingSource{}
	c.sessions.source = source
	if _, err := c.WhoAmI(t.Context()); err != nil {
		t.Fatal(err)
	}
	if source.asked != 3 {
		t.Errorf("%d credentials for 3 exchanges", source.asked)
	}
}

type countingSource struct{ asked int }

func (c *countingSource) Credential(ctx context.Context, audience string) (*assayv1.ExchangeRequest, error) {
	c.asked++
	return clienttest.Credential{}.Credential(ctx, audience)
}

func TestRetryInfo(t *testing.T) {
	for _, tt := range []struct {
		name        string
		delay       time.Duration
		deadline    time.Duration
		calls       int
		waitAtLeast time.Duration
	}{
		{"honoured", 7 * time.Second, time.Hour, maxAttempts, 7 * time.Second},
		{"beyond the deadline", 2 * time.Hour, time.Hour, 1, 0},
		{"absurd", 1<<63 - 1, time.Hour, 1, 0},
		{"negative", -time.Hour, time.Hour, maxAttempts, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := clienttest.New(t)
			calls := 0
			s.OnWhoAmI = func(context.Context, *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error) {
				calls++
				return nil, clienttest.Refuse(codes.Unavailable, "OVERLOADED", "later",
					&errdetails.RetryInfo{RetryDelay: durationpb.New(tt.delay)})
			}
			c, slept := dial(t, s)
			ctx, cancel := context.WithTimeout(t.Context(), tt.deadline)
			defer cancel()
			_, err := c.WhoAmI(ctx)
			wantCode(t, err, "OVERLOADED")
			if calls != tt.calls {
				t.Errorf("%d calls, want %d", calls, tt.calls)
			}
			for _, w := range slept.waits {
				if w < tt.waitAtLeast {
					t.Errorf("waited %s, less than the %s asked for", w, tt.waitAtLeast)
				}
			}
		})
	}
}

func TestRetryEndsWithContext(t *testing.T) {
	r := newRetrier(time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := r.do(ctx, func(context.Context) error {
		calls++
		cancel() // sleep then returns at once
		return &Error{Code: "UNAVAILABLE", Retryable: true}
	})
	wantCode(t, err, "UNAVAILABLE")
	if calls != 1 {
		t.Errorf("%d calls after the context ended", calls)
	}
}

func TestUnreachable(t *testing.T) {
	c, err := Dial(t.Context(), Config{Server: "http://127.0.0.1:1", Credential: clienttest.Credential{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.retry.sleep = func(context.Context, time.Duration) error { return nil }
	_, err = c.WhoAmI(t.Context())
	wantCode(t, err, "UNAVAILABLE")
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v does not match ErrUnavailable", err)
	}
}

func TestDefaultDeadline(t *testing.T) {
	s := clienttest.New(t)
	var left time.Duration
	s.OnWhoAmI = func(ctx context.Context, _ *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error) {
		if deadline, ok := ctx.Deadline(); ok {
			left = time.Until(deadline)
		}
		return &assayv1.WhoAmIResponse{Caller: &assayv1.Caller{}}, nil
	}
	c, _ := dial(t, s)
	if _, err := c.WhoAmI(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left <= 0 || left > unaryTimeout {
		t.Errorf("the call had %s left, want a deadline within %s", left, unaryTimeout)
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		err     error
		code    string
		class   error
		message string
	}{
		{clienttest.Refuse(codes.PermissionDenied, "CALLER_NOT_ALLOWED", "no"), "CALLER_NOT_ALLOWED", ErrDenied, "CALLER_NOT_ALLOWED: no"},
		{clienttest.Refuse(codes.Unauthenticated, "TOKEN_REPLAYED", "again"), "TOKEN_REPLAYED", ErrUnauthenticated, "TOKEN_REPLAYED: again"},
		{clienttest.Refuse(codes.NotFound, "NOT_FOUND", "x"), "NOT_FOUND", ErrNotFound, "NOT_FOUND: x"},
		{clienttest.Refuse(codes.InvalidArgument, "SUBJECT_NAME_INVALID", "bad", &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "subjects[3].name", Description: "has a backslash"}},
		}), "SUBJECT_NAME_INVALID", ErrInvalid, "SUBJECT_NAME_INVALID: bad; subjects[3].name: has a backslash"},
		{status.Error(codes.ResourceExhausted, "full"), "RESOURCE_EXHAUSTED", ErrUnavailable, "RESOURCE_EXHAUSTED: full"},
		{status.Error(codes.Internal, "oops"), "INTERNAL", nil, "INTERNAL: oops"},
		{context.DeadlineExceeded, "DEADLINE_EXCEEDED", ErrUnavailable, "DEADLINE_EXCEEDED: context deadline exceeded"},
		{withDomain(t, "evil.example"), "UNAUTHENTICATED", ErrUnauthenticated, "UNAUTHENTICATED: x"},
	}
	for _, tt := range tests {
		err := fmt.Errorf("wrapped: %w", fromStatus(tt.err))
		wantCode(t, err, tt.code)
		if tt.class != nil && !errors.Is(err, tt.class) {
			t.Errorf("%v does not match %v", err, tt.class)
		}
		if got := errors.Unwrap(err).Error(); got != tt.message {
			t.Errorf("message %q, want %q", got, tt.message)
		}
		if errors.Is(err, ErrDishonest) || !errors.Is(err, &Error{Code: tt.code}) || errors.Is(err, &Error{Code: "OTHER"}) {
			t.Errorf("%v matches the wrong things", err)
		}
	}
	if !errors.Is(fromStatus(context.DeadlineExceeded), context.DeadlineExceeded) {
		t.Error("a deadline is no longer one")
	}
}

// withDomain is a refusal whose reason is not Assay's.
func withDomain(t *testing.T, domain string) error {
	t.Helper()
	st, err := status.New(codes.Unauthenticated, "x").WithDetails(&errdetails.ErrorInfo{Reason: "SESSION_EXPIRED", Domain: domain})
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}
