package server

import (
	"context"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"

	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/refusal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	// maxMessageBytes is a chunk of the largest size and what is around it.
	maxMessageBytes  = maxChunk + 64<<10
	maxMetadataBytes = 16 << 10
	// Deadlines for clients that set none; a longer one is cut to it.
	unaryDeadline  = 30 * time.Second
	streamDeadline = 2 * time.Hour
	// buildDeadline is that of AttestBuild, which fetches what a build made.
	buildDeadline = 30 * time.Minute
	retryDelay    = 500 * time.Millisecond
)

type callerKey struct{}

// session is what a handler knows of its caller.
type session struct {
	caller  *identity.Caller
	expires time.Time
	// access is what the policy said about the method, where it was asked.
	access  policy.AccessDecision
	about   policy.Resource
	decided bool
}

// sessionFrom returns the session that the interceptor checked. The handler of a
// method that is not public always has one; the zero session belongs to nobody.
func sessionFrom(ctx context.Context) session {
	s, _ := ctx.Value(callerKey{}).(session)
	return s
}

// guard holds what the interceptors need; one guard serves unary and stream
// calls, so that there is one way in.
type guard struct {
	access     map[string]access
	sessions   *identity.Sessions
	authorizer *authorizer
	metrics    *metrics
	logger     *slog.Logger
	now        func() time.Time
	draining   func() bool
	stopping   context.Context

	// For tap.
	streams        map[string]bool
	receiving      pendingPeers
	publicDeadline time.Duration
}

func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	arrived(ctx)
	start := g.now()
	var caller *identity.Caller
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, g.panicked(ctx, info.FullMethod, p)
		}
		g.finish(ctx, info.FullMethod, start, caller, err)
	}()
	ctx, cancel := context.WithTimeout(ctx, deadlineOf(info.FullMethod))
	defer cancel()
	ctx, caller, err = g.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, statusOf(ctx, g.logger, err)
	}
	if m, ok := req.(proto.Message); ok {
		if err := refuseUnknownFields(m.ProtoReflect(), ""); err != nil {
			return nil, statusOf(ctx, g.logger, err)
		}
	}
	resp, err = handler(ctx, req)
	return resp, statusOf(ctx, g.logger, err)
}

func (g *guard) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	start := g.now()
	ctx, cancel := context.WithTimeout(ss.Context(), streamDeadline)
	defer cancel()
	if info.FullMethod == healthv1.Health_Watch_FullMethodName {
		defer context.AfterFunc(g.stopping, cancel)()
	}
	var caller *identity.Caller
	defer func() {
		if p := recover(); p != nil {
			err = g.panicked(ctx, info.FullMethod, p)
		}
		g.finish(ctx, info.FullMethod, start, caller, err)
	}()
	ctx, caller, err = g.admit(ctx, info.FullMethod)
	if err != nil {
		return statusOf(ctx, g.logger, err)
	}
	return statusOf(ctx, g.logger, handler(srv, &guardedStream{ServerStream: ss, ctx: ctx}))
}

// guardedStream checks each message of a stream as the unary interceptor checks its one.
type guardedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	arrived(s.ctx)
	if status.Code(err) == codes.Internal {
		// grpc's word for bytes that are no message: the client's fault, not ours.
		return refusal.New(CodeRequestInvalid, "a message of the stream is malformed or cut off")
	}
	if err != nil {
		return err
	}
	if m, ok := m.(proto.Message); ok {
		return refuseUnknownFields(m.ProtoReflect(), "")
	}
	return nil
}

func deadlineOf(method string) time.Duration {
	if method == assayv1.AttestationService_AttestBuild_FullMethodName {
		return buildDeadline
	}
	return unaryDeadline
}

// admit decides whether the call may start. It authenticates and authorises in
// one place, for gRPC and for JSON alike, and writes the decision down.
func (g *guard) admit(ctx context.Context, method string) (context.Context, *identity.Caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s, err := g.check(ctx, method, md.Get("authorization"))
	if s.decided {
		g.authorizer.record(ctx, method, s.caller, g.access[method].action, s.about, &s.access)
	}
	if err != nil || s.caller == nil {
		return ctx, s.caller, err
	}
	return context.WithValue(ctx, callerKey{}, s), s.caller, nil
}

// check makes the decision of admit; the session of a public method is zero. It
// returns the session together with a denial of the access policy.
func (g *guard) check(ctx context.Context, method string, authorization []string) (session, error) {
	need, listed := g.access[method]
	if !listed {
		return session{}, refusal.New(CodeMethodUnknown, "%s is not served", method)
	}
	if g.draining() && !strings.HasPrefix(method, "/grpc.health.v1.") {
		return session{}, refusal.New(CodeShuttingDown, "the service is shutting down")
	}
	if need.public {
		return session{}, nil
	}
	s, err := g.session(ctx, authorization)
	if err != nil || need.later {
		return s, err
	}
	s.about, s.access = g.authorizer.askOwn(s.caller, need.action, need.kind, "")
	s.decided = true
	return s, refused(&s.access)
}

// session checks the session that the authorization values name.
func (g *guard) session(ctx context.Context, authorization []string) (session, error) {
	token, err := bearer(authorization)
	if err != nil {
		return session{}, err
	}
	caller, expires, err := g.sessions.Check(ctx, token)
	if err != nil {
		return session{}, err
	}
	return session{caller: caller, expires: expires}, nil
}

// bearer reads the one authorization value. Two values are refused: which of
// them counts must not depend on who reads first.
func bearer(values []string) (string, error) {
	switch len(values) {
	case 0:
		return "", refusal.New(CodeSessionMissing, "no session: send the token of Exchange as \"authorization: Bearer …\"")
	case 1:
	default:
		return "", refusal.New(CodeSessionMissing, "%d authorization values; one is allowed", len(values))
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return "", refusal.New(CodeSessionMissing, "the authorization value is not a Bearer token")
	}
	return token, nil
}

// panicked answers INTERNAL, never OK: a panic has checked nothing.
func (g *guard) panicked(ctx context.Context, method string, p any) error {
	g.metrics.panics.Inc()
	g.logger.ErrorContext(ctx, "panic", "method", method, "panic", p, "stack", string(debug.Stack()))
	return withDetails(codes.Internal, refusal.New(CodeInternal, "internal error; the service's log has the details"))
}

// finish writes the one log line and the metrics of a call. Neither holds a
// token or a request body. Method names come from the access table, so the
// number of series is bounded whatever a client sends.
func (g *guard) finish(ctx context.Context, method string, start time.Time, caller *identity.Caller, err error) {
	took := g.now().Sub(start)
	code := status.Code(err)
	if _, listed := g.access[method]; !listed {
		method = "unknown"
	}
	g.metrics.observe(method, code, took)
	level := slog.LevelInfo
	switch code {
	case codes.OK:
		level = slog.LevelDebug
	case codes.Internal, codes.Unknown: // not DataLoss: those bytes changed on their way here
		level = slog.LevelError
	}
	if !g.logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", method),
		slog.String("code", code.String()),
		slog.Duration("took", took),
	}
	if p, ok := peer.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("peer", p.Addr.String()))
	}
	if caller != nil {
		attrs = append(attrs, slog.String("caller", caller.DisplayName))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", status.Convert(err).Message()))
	}
	g.logger.LogAttrs(ctx, level, "rpc", attrs...)
}

// refuseUnknownFields refuses a message that says something this version does
// not understand: a constraint that is silently dropped is a check that passes
// because it was never made.
func refuseUnknownFields(m protoreflect.Message, at string) error {
	if len(m.GetUnknown()) > 0 {
		return refusal.New(CodeUnknownField, "%s holds a field that this version does not know; is the client newer than the service?",
			m.Descriptor().FullName()).InField(at)
	}
	var err error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() == nil || fd.IsMap() {
			return true
		}
		name := string(fd.Name())
		if at != "" {
			name = at + "." + name
		}
		if !fd.IsList() {
			err = refuseUnknownFields(v.Message(), name)
			return err == nil
		}
		for i := 0; i < v.List().Len() && err == nil; i++ {
			err = refuseUnknownFields(v.List().Get(i).Message(), name)
		}
		return err == nil
	})
	return err
}
