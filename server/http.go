package server

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	maxHeaderBytes = 16 << 10
	maxJSONBody    = 1 << 20
	// maxPublicJSONBody bounds the bodies that are read from anybody: a token is
	// 8 KiB at most.
	maxPublicJSONBody = 16 << 10
)

// httpHandler is everything that is not native gRPC: probes, metrics, the log
// as tlog-tiles, the trusted root, and the JSON form of the RPCs.
func (s *Server) httpHandler(gateway *runtime.ServeMux) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{}))
	mux.Handle("GET /log/", http.StripPrefix("/log", s.log.Handler()))
	for _, r := range s.retired {
		at := "/log/retired/" + hex.EncodeToString(r.Key().LogID)
		mux.Handle("GET "+at+"/", http.StripPrefix(at, r.Handler()))
	}
	mux.Handle("GET /tuf/", s.trust)
	mux.HandleFunc("GET /trusted_root.json", s.trustDocument(func(k *keys) []byte { return k.trustedRoot }))
	mux.HandleFunc("GET /keys.json", s.trustDocument(func(k *keys) []byte { return k.document }))
	mux.HandleFunc("GET /builders/", s.builderPage)
	mux.Handle("/v1/", s.guard.jsonGate(gateway))
	return secureHeaders(mux)
}

// secureHeaders tells browsers to run nothing and embed nothing of what is
// served here, and refuses cross-origin writes.
func secureHeaders(next http.Handler) http.Handler {
	guarded := http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		guarded.ServeHTTP(w, r)
	})
}

// readyz says whether to send work here: the database and the log take writes,
// what a crash interrupted is finished, and no shutdown is under way.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	type check struct {
		Name  string `json:"name"`
		OK    bool   `json:"ok"`
		Error string `json:"error,omitempty"`
	}
	checks := []check{{Name: "serving", OK: !s.draining.Load()}, {Name: "store", OK: true}, {Name: "log", OK: true}}
	if err := s.store.Health(); err != nil {
		checks[1].OK, checks[1].Error = false, "the database does not take writes"
		s.cfg.Logger.ErrorContext(r.Context(), "not ready", "error", err.Error())
	}
	if err := s.log.Health(); err != nil {
		checks[2].OK, checks[2].Error = false, "the log does not take entries"
		s.cfg.Logger.ErrorContext(r.Context(), "not ready", "error", err.Error())
	}
	status := http.StatusOK
	for _, c := range checks {
		if !c.OK {
			status = http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"ready": status == http.StatusOK, "checks": checks})
}

// trustDocument serves what verifiers are to know of the keys of now.
func (s *Server) trustDocument(pick func(*keys) []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		k, err := s.ring.now(r.Context())
		if err != nil {
			s.cfg.Logger.ErrorContext(r.Context(), "trusted root", "error", err.Error())
			writeText(w, http.StatusInternalServerError, "internal error\n")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = w.Write(pick(k))
	}
}

// builderPage is what a builder.id resolves to: what stands behind it, and what its
// tenants control.
func (s *Server) builderPage(w http.ResponseWriter, r *http.Request) {
	for _, b := range s.writer.Builders() {
		if b.Path != r.URL.Path {
			continue
		}
		var text strings.Builder
		fmt.Fprintf(&text, "%s\n\n%s\nSLSA Build level %d at best: %s.\n", b.ID, b.Title, b.Level, b.Why)
		if b.BuildType != "" {
			fmt.Fprintf(&text, "buildType %s\n", b.BuildType)
		}
		text.WriteString("\nControlled by the tenant:\n")
		for _, t := range b.Tenant {
			fmt.Fprintf(&text, "- %s\n", t)
		}
		text.WriteString("\nRequirements of SLSA 1.2 for the build platform:\n")
		for _, q := range b.Requirements {
			standing := "met"
			if !q.Met {
				standing = "not met"
			}
			fmt.Fprintf(&text, "- %s (level %d), %s: %s\n", q.Name, q.Level, standing, q.How)
		}
		writeText(w, http.StatusOK, text.String())
		return
	}
	writeText(w, http.StatusNotFound, "no such builder\n")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// newGateway translates JSON to RPCs over an in-process connection to the same
// grpc.Server, so that JSON passes the same interceptors as everything else.
// The generated Register…HandlerServer functions would call the handlers
// directly, past authentication.
func newGateway(ctx context.Context, l *bufconn.Listener) (*runtime.ServeMux, func() error, error) {
	conn, err := grpc.NewClient("passthrough:in-process",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, nil, err
	}
	setQueryParser()
	mux := runtime.NewServeMux(
		// The gateway forwards Authorization by itself; no other header is let through.
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithErrorHandler(jsonError),
		runtime.WithMarshalerOption(runtime.MIMEWildcard, oneDocument{&runtime.JSONPb{
			MarshalOptions: protojson.MarshalOptions{UseProtoNames: true},
			// A field that this version does not know is refused here as it is over gRPC.
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
		}}),
	)
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		assayv1.RegisterIdentityServiceHandler,
		assayv1.RegisterAttestationServiceHandler,
		assayv1.RegisterVerificationServiceHandler,
		assayv1.RegisterAuditServiceHandler,
		assayv1.RegisterPolicyServiceHandler,
	} {
		if err := register(ctx, mux, conn); err != nil {
			return nil, nil, err
		}
	}
	return mux, conn.Close, nil
}

// oneDocument refuses what follows the first JSON document of a body, which the
// gateway would not read: two readers of it could believe two requests.
type oneDocument struct{ *runtime.JSONPb }

// NewDecoder implements runtime.Marshaler.
func (m oneDocument) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		body, err := io.ReadAll(r)
		if err != nil || len(body) == 0 {
			return cmp.Or(err, io.EOF)
		}
		if !json.Valid(body) {
			return errors.New("the body is not one JSON document")
		}
		return m.Unmarshal(body, v)
	})
}

// jsonError gives an error that the gateway made itself, before any RPC, a reason too.
func jsonError(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	st := status.Convert(err)
	var routed *runtime.HTTPStatusError
	if detail, ok := strings.CutPrefix(st.Message(), string(CodeUnknownField)+": "); ok && len(st.Details()) == 0 {
		// The gateway made text of the refusal of strictQuery.
		err = withDetails(st.Code(), refusal.New(CodeUnknownField, "%s", detail))
	} else if !errors.As(err, &routed) {
		err = withReason(st)
	}
	runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, err)
}

// setQueryParser: the gateway keeps the parser in a variable of its package, which
// two services in one process must not write at one time.
var setQueryParser = sync.OnceFunc(func() { runtime.SetQueryParameterParser(strictQuery{})(nil) })

// strictQuery refuses a query parameter that names no field: the gateway would
// drop it, and with it a filter somebody relied on.
type strictQuery struct{ runtime.DefaultQueryParser }

func (p strictQuery) Parse(m proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	fields := m.ProtoReflect().Descriptor().Fields()
	for name := range values {
		if fields.ByName(protoreflect.Name(name)) == nil {
			return refusal.New(CodeUnknownField, "query parameter %.64q is not a field of %s", name, m.ProtoReflect().Descriptor().Name())
		}
	}
	return p.DefaultQueryParser.Parse(m, values, filter)
}

func newHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    maxHeaderBytes,
	}
}
