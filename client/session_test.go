package client

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/client/clienttest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func bearer(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(md.Get("authorization"), ",")
}

func TestSessionIsReused(t *testing.T) {
	s := clienttest.New(t)
	start := time.Now()
	var clock atomic.Int64
	s.OnExchange = func(context.Context, *assayv1.ExchangeRequest) (*assayv1.ExchangeResponse, error) {
		expires := start.Add(time.Duration(clock.Load())).Add(15 * time.Minute)
		return &assayv1.ExchangeResponse{SessionToken: "s", ExpireTime: timestamppb.New(expires)}, nil
	}
	c, err := Dial(t.Context(), Config{
		Server: s.URL, Credential: clienttest.Credential{},
		Now: func() time.Time { return start.Add(time.Duration(clock.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// No deadline of ours, so that the clock under test does not end the calls.
	for _, step := range []struct {
		at   time.Duration
		want int64
	}{
		{0, 1},
		{time.Minute, 1},
		{14*time.Minute + 29*time.Second, 1},
		{14*time.Minute + 31*time.Second, 2}, // within the margin of the end
		{20 * time.Minute, 2},
	} {
		clock.Store(int64(step.at))
		if _, err := c.WhoAmI(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.Exchanges.Load(); got != step.want {
			t.Errorf("at %s: %d exchanges, want %d", step.at, got, step.want)
		}
	}
}

func TestSessionIsShared(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if _, err := c.WhoAmI(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := s.Exchanges.Load(); got != 1 {
		t.Errorf("%d exchanges for 32 concurrent calls, want 1", got)
	}
}

func TestSessionExpired(t *testing.T) {
	for _, tt := range []struct {
		name      string
		expired   int64 // sessions up to this one are refused
		reason    string
		code      string
		exchanges int64
	}{
		{"once", 1, codeSessionExpired, "", 2},
		{"always", 99, codeSessionExpired, codeSessionExpired, 2},
		{"another reason", 99, "SESSION_INVALID", "SESSION_INVALID", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := clienttest.New(t)
			s.OnWhoAmI = func(ctx context.Context, _ *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error) {
				if n := s.Exchanges.Load(); n <= tt.expired {
					return nil, clienttest.Refuse(codes.Unauthenticated, tt.reason, "over")
				}
				return &assayv1.WhoAmIResponse{Caller: &assayv1.Caller{DisplayName: bearer(ctx)}}, nil
			}
			c, slept := dial(t, s)
			me, err := c.WhoAmI(t.Context())
			wantCode(t, err, tt.code)
			if err == nil && me.GetCaller().GetDisplayName() != "Bearer session-2" {
				t.Errorf("the repeated call carried %q", me.GetCaller().GetDisplayName())
			}
			if got := s.Exchanges.Load(); got != tt.exchanges || len(slept.waits) != 0 {
				t.Errorf("%d exchanges and %d waits, want %d and 0", got, len(slept.waits), tt.exchanges)
			}
		})
	}
}

func TestSessionTokenRefused(t *testing.T) {
	for _, token := range []string{"", "two words", "line\nbreak", "ünïcode", strings.Repeat("x", maxSessionToken+1)} {
		s := clienttest.New(t)
		s.OnExchange = func(context.Context, *assayv1.ExchangeRequest) (*assayv1.ExchangeResponse, error) {
			return &assayv1.ExchangeResponse{SessionToken: token}, nil
		}
		c, _ := dial(t, s)
		_, err := c.WhoAmI(t.Context())
		wantDishonest(t, err, "session token")
	}
}

func TestNoCredential(t *testing.T) {
	s := clienttest.New(t)
	c, err := Dial(t.Context(), Config{Server: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.WhoAmI(t.Context())
	wantCode(t, err, CodeCredentialMissing)
	if _, err := c.GetTrustedRoot(t.Context()); err != nil {
		t.Errorf("the trusted root needs no credential, and yet: %v", err)
	}
	if s.Exchanges.Load() != 0 {
		t.Error("there was an exchange without a credential")
	}
}

// TestSessionWaitEndsWithContext: a caller that waits for another's exchange
// does not outlive its own deadline.
func TestSessionWaitEndsWithContext(t *testing.T) {
	s := clienttest.New(t)
	entered, release := make(chan struct{}), make(chan struct{})
	s.OnExchange = func(context.Context, *assayv1.ExchangeRequest) (*assayv1.ExchangeResponse, error) {
		close(entered)
		<-release
		return &assayv1.ExchangeResponse{SessionToken: "s"}, nil
	}
	c, _ := dial(t, s)
	first := make(chan error, 1)
	go func() { _, err := c.WhoAmI(t.Context()); first <- err }()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.WhoAmI(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
}
