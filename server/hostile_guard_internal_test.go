package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog/posix"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	publicMethod  = assayv1.AuditService_GetTrustedRoot_FullMethodName
	sessionMethod = assayv1.IdentityService_WhoAmI_FullMethodName
)

func testGuard(logs io.Writer) *guard {
	return &guard{
		access: methodAccess(), metrics: newMetrics(prometheus.NewRegistry()),
		logger: slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		now:    time.Now, draining: func() bool { return false }, stopping: context.Background(),
	}
}

func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func retryAfter(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// fakeStream is a server stream that nothing is sent over.
type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s fakeStream) Context() context.Context { return s.ctx }

// TestPanicIsInternal: a handler that panics has checked nothing, so its caller
// gets INTERNAL, never OK, and nothing of what it panicked with.
func TestPanicIsInternal(t *testing.T) {
	var nowhere *identity.Caller
	for name, panics := range map[string]func(){
		"text":    func() { panic("secret detail") },
		"error":   func() { panic(errors.New("secret detail")) },
		"status":  func() { panic(status.Error(codes.OK, "secret detail")) },
		"refusal": func() { panic(refusal.New("ALLOWED", "secret detail")) },
		"nil":     func() { panic(nil) },
		"pointer": func() { _ = nowhere.DisplayName },
		"index":   func() { _ = []int{}[len(name(""))] },
	} {
		t.Run(name, func(t *testing.T) {
			var logs bytes.Buffer
			g := testGuard(&logs)
			resp, err := g.unary(t.Context(), &assayv1.GetTrustedRootRequest{}, &grpc.UnaryServerInfo{FullMethod: publicMethod},
				func(context.Context, any) (any, error) { panics(); return "not reached", nil })
			if resp != nil || status.Code(err) != codes.Internal || reason(err) != "INTERNAL" {
				t.Errorf("unary: %v, %v", resp, err)
			}
			streamErr := g.stream(nil, fakeStream{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: publicMethod},
				func(any, grpc.ServerStream) error { panics(); return nil })
			if status.Code(streamErr) != codes.Internal || reason(streamErr) != "INTERNAL" {
				t.Errorf("stream: %v", streamErr)
			}
			for _, err := range []error{err, streamErr} {
				if strings.Contains(err.Error(), "secret detail") {
					t.Errorf("the answer repeats what the handler panicked with: %v", err)
				}
			}
			if n := testutil.ToFloat64(g.metrics.panics); n != 2 {
				t.Errorf("%v panics counted; want 2", n)
			}
			if got := strings.Count(logs.String(), `"msg":"panic"`); got != 2 || !strings.Contains(logs.String(), "hostile_guard_internal_test.go") {
				t.Errorf("the log lacks the stack:\n%s", logs.String())
			}
		})
	}
}

func name(s string) string { return s }

// TestSealPanic: sealing runs beside its caller and beside others that joined it;
// a panic there is everybody's error and not the end of the process.
func TestSealPanic(t *testing.T) {
	s := &sealer{now: time.Now} // and no store
	st := &attest.Statement{
		Type: attest.StatementTypeV1, PredicateType: attest.PredicateSLSAProvenanceV1, Predicate: json.RawMessage(`{}`),
		Subjects: []attest.Subject{{Name: "a", Digest: map[string]string{"sha256": strings.Repeat("ab", 32)}}},
	}
	_, err := s.seal(t.Context(), nil, st, &store.Attestation{})
	if err == nil {
		t.Fatal("sealed without a store")
	}
	if out := statusOf(t.Context(), slog.New(slog.DiscardHandler), err); status.Code(out) != codes.Internal || reason(out) != "INTERNAL" || strings.Contains(out.Error(), "goroutine") {
		t.Errorf("%v", out)
	}
}

// TestGuardAdmits: nothing gets past the guard that is not on the list, on no
// spelling of a method and with no more than one credential.
func TestGuardAdmits(t *testing.T) {
	g := testGuard(io.Discard)
	g.sessions = identity.NewSessions(make([]byte, identity.SessionKeyBytes), nil, time.Minute, time.Now)
	reached := func(context.Context, any) (any, error) { t.Error("the handler was reached"); return nil, nil }
	with := func(values ...string) context.Context {
		md := metadata.MD{}
		for _, v := range values {
			md.Append("authorization", v)
		}
		return metadata.NewIncomingContext(t.Context(), md)
	}
	for name, tt := range map[string]struct {
		method string
		ctx    context.Context
		code   codes.Code
		reason string
	}{
		"no such method":  {"/assay.v1.IdentityService/Nope", with(), codes.Unimplemented, "METHOD_UNKNOWN"},
		"no slash":        {sessionMethod[1:], with(), codes.Unimplemented, "METHOD_UNKNOWN"},
		"two slashes":     {"/" + publicMethod, with(), codes.Unimplemented, "METHOD_UNKNOWN"},
		"another case":    {strings.ToLower(publicMethod), with(), codes.Unimplemented, "METHOD_UNKNOWN"},
		"a slash behind":  {publicMethod + "/", with(), codes.Unimplemented, "METHOD_UNKNOWN"},
		"empty":           {"", with(), codes.Unimplemented, "METHOD_UNKNOWN"},
		"nobody":          {sessionMethod, t.Context(), codes.Unauthenticated, "SESSION_MISSING"},
		"two credentials": {sessionMethod, with("Bearer a", "Bearer b"), codes.Unauthenticated, "SESSION_MISSING"},
		"no token":        {sessionMethod, with("Bearer "), codes.Unauthenticated, "SESSION_INVALID"},
		"only a scheme":   {sessionMethod, with("Bearer"), codes.Unauthenticated, "SESSION_MISSING"},
		"all zeros":       {sessionMethod, with("Bearer asy_" + strings.Repeat("A", 64)), codes.Unauthenticated, "SESSION_INVALID"},
		"a comma":         {sessionMethod, with("Bearer a, Bearer b"), codes.Unauthenticated, "SESSION_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := g.unary(tt.ctx, &assayv1.WhoAmIRequest{}, &grpc.UnaryServerInfo{FullMethod: tt.method}, reached)
			streamErr := g.stream(nil, fakeStream{ctx: tt.ctx}, &grpc.StreamServerInfo{FullMethod: tt.method},
				func(any, grpc.ServerStream) error { t.Error("the handler was reached"); return nil })
			for _, err := range []error{err, streamErr} {
				if status.Code(err) != tt.code || reason(err) != tt.reason {
					t.Errorf("%s %s; want %s %s", status.Code(err), reason(err), tt.code, tt.reason)
				}
			}
		})
	}
	if n := testutil.CollectAndCount(g.metrics.requests); n > 4 {
		t.Errorf("%d metric series for two methods and unknown ones", n)
	}
}

// TestStatusOf: what leaves the service for each kind of error. What is not a
// refusal stays in the log.
func TestStatusOf(t *testing.T) {
	const secret = "/var/lib/assay/keys/attestation.pem: permission denied"
	for name, tt := range map[string]struct {
		err    error
		code   codes.Code
		reason string
	}{
		"anything":           {errors.New(secret), codes.Internal, "INTERNAL"},
		"wrapped refusal":    {fmt.Errorf("%s: %w", secret, refusal.New(identity.CodeTokenReplayed, "used")), codes.Unauthenticated, "TOKEN_REPLAYED"},
		"unlisted refusal":   {refusal.New("KEY_FILE_MODE", "%s", secret), codes.Internal, "KEY_FILE_MODE"},
		"joined":             {errors.Join(errors.New(secret), refusal.New(store.CodeStorageFull, "full")), codes.ResourceExhausted, "STORAGE_FULL"},
		"database closed":    {refusal.New(store.CodeStoreClosed, "closed"), codes.Unavailable, "STORE_CLOSED"},
		"database broken":    {refusal.New(store.CodeStorageFailed, "I/O error: %s", secret), codes.Internal, "STORAGE_FAILED"},
		"issuer away":        {refusal.New(identity.CodeIssuerUnavailable, "keys: %w", errors.New(secret)), codes.Unavailable, "ISSUER_UNAVAILABLE"},
		"key away":           {refusal.New(posix.CodeSignFailed, "%w", errors.New(secret)), codes.Unavailable, "LOG_SIGN_FAILED"},
		"log broken":         {refusal.New(posix.CodeWriteFailed, "log: %s", secret), codes.Internal, "LOG_WRITE_FAILED"},
		"busy, quoting":      {refusal.New(store.CodeStoreBusy, "busy: %w", errors.New(secret)), codes.Unavailable, "STORE_BUSY"},
		"deadline":           {fmt.Errorf("%s: %w", secret, context.DeadlineExceeded), codes.DeadlineExceeded, "DEADLINE_EXCEEDED"},
		"cancelled":          {fmt.Errorf("%s: %w", secret, context.Canceled), codes.Canceled, "CANCELED"},
		"end of file":        {io.EOF, codes.Internal, "INTERNAL"},
		"status":             {status.Error(codes.Unavailable, "transport is closing"), codes.Unavailable, "SHUTTING_DOWN"},
		"status of nobody":   {status.Error(codes.Unknown, secret), codes.Internal, "INTERNAL"},
		"message too large":  {status.Error(codes.ResourceExhausted, "grpc: received message larger than max"), codes.ResourceExhausted, "MESSAGE_TOO_LARGE"},
		"generated handlers": {status.Error(codes.Unimplemented, "method X not implemented"), codes.Unimplemented, "NOT_IMPLEMENTED"},
	} {
		t.Run(name, func(t *testing.T) {
			var logs bytes.Buffer
			err := statusOf(t.Context(), slog.New(slog.NewJSONHandler(&logs, nil)), tt.err)
			if status.Code(err) != tt.code || reason(err) != tt.reason {
				t.Errorf("%s %s; want %s %s", status.Code(err), reason(err), tt.code, tt.reason)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the answer holds what belongs in the log: %v", err)
			}
			if internal := tt.code == codes.Internal; internal != strings.Contains(logs.String(), "internal error") {
				t.Errorf("log %q", logs.String())
			}
			if (tt.code == codes.Unavailable) != (retryAfter(err) > 0) {
				t.Errorf("retry after %s", retryAfter(err))
			}
		})
	}
}

// serveForTest runs a server on loopback until stop is called.
func serveForTest(t *testing.T, edit func(*Config), before ...func(*Server)) (s *Server, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Data: t.TempDir(), Listener: l, Logger: slog.New(slog.DiscardHandler)}
	cfg.Log.CheckpointInterval = 100 * time.Millisecond
	if edit != nil {
		edit(&cfg)
	}
	if s, err = New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for _, f := range before {
		f(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	var stopped atomic.Bool
	stop = func() error {
		if stopped.Swap(true) {
			return nil
		}
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return s, stop
}

func dialForTest(t *testing.T, s *Server) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:"+s.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func readiness(t *testing.T, s *Server) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr().String()+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestDraining: a service that is stopping takes no new work, over gRPC or JSON,
// says so to load balancers, and still answers health checks.
func TestDraining(t *testing.T) {
	t.Parallel()
	s, _ := serveForTest(t, nil)
	conn := dialForTest(t, s)
	trustedRoot := func() error {
		_, err := assayv1.NewAuditServiceClient(conn).GetTrustedRoot(t.Context(), &assayv1.GetTrustedRootRequest{})
		return err
	}
	if err := trustedRoot(); err != nil {
		t.Fatal(err)
	}
	if code, body := readiness(t, s); code != http.StatusOK {
		t.Fatalf("readyz: %d %s", code, body)
	}
	s.draining.Store(true)
	if err := trustedRoot(); status.Code(err) != codes.Unavailable || reason(err) != "SHUTTING_DOWN" || retryAfter(err) <= 0 {
		t.Errorf("gRPC: %v", err)
	}
	stream, err := assayv1.NewAttestationServiceClient(conn).Attest(t.Context())
	if err == nil {
		_, err = stream.Recv()
	}
	if reason(err) != "SHUTTING_DOWN" {
		t.Errorf("stream: %v", err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr().String()+"/v1/trustedRoot", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || !bytes.Contains(body, []byte("SHUTTING_DOWN")) {
		t.Errorf("JSON: %d %s", resp.StatusCode, body)
	}
	if code, body := readiness(t, s); code != http.StatusServiceUnavailable || !strings.Contains(body, `"ready":false`) {
		t.Errorf("readyz: %d %s", code, body)
	}
	if _, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
}

// TestStopEndsWatches: a load balancer that watches the health of the service
// does not hold its stop.
func TestStopEndsWatches(t *testing.T) {
	t.Parallel()
	s, stop := serveForTest(t, nil)
	conn := dialForTest(t, s)
	watch, err := healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("%v, %v", m, err)
	}
	start := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	for err == nil {
		_, err = watch.Recv()
	}
	if took := time.Since(start); took > shutdownGrace/2 {
		t.Errorf("the stop took %s with an open watch", took)
	}
}
