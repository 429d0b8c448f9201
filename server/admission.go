package server

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

const (
	// publicDeadline is how long a call that needs no session may take, its
	// message's arrival included.
	publicDeadline = 10 * time.Second
	// maxReceiving bounds the calls without a session whose message is awaited: each
	// can hold memory of the largest size of one.
	maxReceiving = 512
	// longRefused: see tap.
	longRefused = time.Minute
)

// tap decides about a call before any of its message is received, and bounds how
// long receiving may take. grpc decodes a unary message before the interceptor
// sees the call, and a message of many empty parts decodes to fifty times its
// size: who has no session must not come that far. It repeats the decision of the
// interceptor, which remains the authority.
//
// Streams, and methods that do not exist, reach their interceptor undecoded and
// are refused there. That is cheaper: of a call that is refused here grpc keeps the
// timer of the client's deadline until it fires. Where that is further away than
// longRefused the call is therefore let in and ended at once, without its message
// and, alas, without its reason.
func (g *guard) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	need, listed := g.access[info.FullMethodName]
	if !listed {
		return within(ctx, publicDeadline), nil
	}
	if g.streams[info.FullMethodName] {
		ctx = within(ctx, streamDeadline)
		if need.public {
			ctx = g.arriveSoon(ctx)
		}
		return ctx, nil
	}
	start := g.now()
	s, err := g.check(ctx, info.FullMethodName, info.Header.Get("authorization"))
	switch {
	case err == nil && need.public:
		return g.arriveSoon(within(ctx, g.publicDeadline)), nil
	case err == nil:
		return within(ctx, deadlineOf(info.FullMethodName)), nil
	}
	if s.decided { // a call that is let in is written down by its interceptor
		g.authorizer.record(ctx, info.FullMethodName, s.caller, need.action, s.about, &s.access)
	}
	err = statusOf(ctx, g.logger, err)
	g.finish(ctx, info.FullMethodName, start, s.caller, err)
	if at, ok := ctx.Deadline(); ok && time.Until(at) > longRefused {
		return newEndedContext(ctx), nil
	}
	return nil, err
}

// within gives ctx a deadline that is released with the call.
func within(ctx context.Context, limit time.Duration) context.Context {
	limited, cancel := context.WithTimeout(ctx, limit)
	context.AfterFunc(ctx, cancel)
	return limited
}

// endedContext has ended for all but the first who asks: grpc asks once before it
// lets a stream in, and keeps the timer of one that has ended by then.
type endedContext struct {
	context.Context
	done  chan struct{}
	asked atomic.Bool
}

func newEndedContext(ctx context.Context) *endedContext {
	c := &endedContext{Context: ctx, done: make(chan struct{})}
	close(c.done)
	return c
}

// Done implements context.Context.
func (c *endedContext) Done() <-chan struct{} { return c.done }

// Err implements context.Context.
func (c *endedContext) Err() error {
	if !c.asked.Swap(true) {
		return nil
	}
	return context.Canceled
}

type arrivalKey struct{}

// arriveSoon ends a call that needs no session when its first message is not there
// in time, and the oldest of them where more than maxReceiving are waited for. An
// honest message comes with its headers and is never the oldest of many. Calls from
// this process are JSON, whose message is complete.
func (g *guard) arriveSoon(ctx context.Context) context.Context {
	if p, ok := peer.FromContext(ctx); ok && p.Addr.Network() == "bufconn" {
		return ctx
	}
	limited, cancel := context.WithCancel(ctx)
	stop := g.receiving.add(cancel)
	if at, ok := ctx.Deadline(); !ok || time.Until(at) > g.publicDeadline {
		remove, timer := stop, time.AfterFunc(g.publicDeadline, cancel)
		stop = func() { timer.Stop(); remove() }
	}
	context.AfterFunc(ctx, func() { stop(); cancel() })
	return context.WithValue(limited, arrivalKey{}, stop)
}

// arrived says that the first message of a call is there.
func arrived(ctx context.Context) {
	if stop, ok := ctx.Value(arrivalKey{}).(func()); ok {
		stop()
	}
}

// streamMethods says which of the methods are streams, by their descriptors.
func streamMethods(methods map[string]access) map[string]bool {
	out := make(map[string]bool)
	for method := range methods {
		name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if m, ok := d.(protoreflect.MethodDescriptor); err == nil && ok && (m.IsStreamingClient() || m.IsStreamingServer()) {
			out[method] = true
		}
	}
	return out
}

// jsonGate is to JSON what tap is to gRPC: no body is read, let alone decoded,
// for who has no session. What it lets in meets the interceptor behind the gateway.
func (g *guard) jsonGate(gateway *runtime.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit := int64(maxJSONBody)
		switch r.URL.Path {
		case "/v1/identity:exchange", "/v1/identity:challenge", "/v1/trustedRoot":
			limit = maxPublicJSONBody
		default:
			ctx, start := r.Context(), g.now()
			if _, err := g.session(ctx, r.Header["Authorization"]); err != nil {
				err = statusOf(ctx, g.logger, err)
				g.finish(ctx, "", start, nil, err)
				_, marshaler := runtime.MarshalerForRequest(gateway, r)
				runtime.HTTPError(ctx, gateway, marshaler, w, r, err)
				return
			}
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		gateway.ServeHTTP(w, r)
	})
}
