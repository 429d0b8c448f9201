package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	gateway "github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string                  { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (rawCodec) Unmarshal([]byte, any) error   { return nil }

// TestUnauthenticatedBodies: what somebody without a session sends is not decoded.
// Each of these bodies would become half a million messages. Not parallel: it
// measures the memory of the process.
func TestUnauthenticatedBodies(t *testing.T) {
	s, _ := serveForTest(t, nil)
	conn := dialForTest(t, s)
	call := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		var out []byte
		return conn.Invoke(ctx, assayv1.VerificationService_Verify_FullMethodName, bytes.Repeat([]byte{0x0a, 0}, 1<<19), &out, grpc.ForceCodec(rawCodec{}))
	}
	body := `{"subjects":[` + strings.Repeat("{},", 300_000) + `{}]}`
	for name, one := range map[string]func() error{
		"gRPC": func() error {
			if err := call(20 * time.Second); status.Code(err) != codes.Unauthenticated || reason(err) != "SESSION_MISSING" {
				return errors.Join(errors.New("not refused as it should be"), err)
			}
			return nil
		},
		"gRPC, an endless deadline": func() error {
			if err := call(24 * time.Hour); status.Code(err) != codes.Canceled {
				return errors.Join(errors.New("not ended"), err)
			}
			return nil
		},
		"JSON": func() error {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Addr().String()+"/v1/verify", strings.NewReader(body))
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			answer, err := io.ReadAll(resp.Body)
			if got := jsonReason(answer); resp.StatusCode != http.StatusUnauthorized || got != "SESSION_MISSING" {
				return errors.Join(errors.New(resp.Status+" "+got), err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			var calls sync.WaitGroup
			for range 16 {
				calls.Go(func() {
					if err := one(); err != nil {
						t.Error(err)
					}
				})
			}
			calls.Wait()
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 128<<20 {
				t.Errorf("16 bodies of 1 MiB allocated %d MiB", grown>>20)
			}
		})
	}
}

func jsonReason(answer []byte) string {
	var st struct{ Details []struct{ Reason string } }
	if json.Unmarshal(answer, &st) != nil || len(st.Details) == 0 {
		return ""
	}
	return st.Details[0].Reason
}

// beginCall sends the headers of a call and the first byte of a message of two.
func beginCall(t *testing.T, conn net.Conn, method string) *http2.Framer {
	t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "assay.test"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err := io.WriteString(conn, http2.ClientPreface)
	err = errors.Join(err, framer.WriteSettings(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
		framer.WriteData(1, false, []byte{0, 0, 0, 0, 2, 0x0a}))
	if err != nil {
		t.Fatal(err)
	}
	return framer
}

// TestUnfinishedMessages: who never finishes a message loses the call, where no
// session is asked for soon.
func TestUnfinishedMessages(t *testing.T) {
	t.Parallel()
	s, _ := serveForTest(t, nil, func(s *Server) { s.guard.publicDeadline = 50 * time.Millisecond })
	for method, want := range map[string]string{
		assayv1.IdentityService_Exchange_FullMethodName: "4", // DEADLINE_EXCEEDED
		healthv1.Health_Watch_FullMethodName:            "1", // CANCELLED
	} {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(8 * time.Second)); err != nil {
			t.Fatal(err)
		}
		framer := beginCall(t, conn, method)
		for got := ""; got == ""; {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatalf("%s was not ended: %v", method, err)
			}
			if headers, ok := frame.(*http2.MetaHeadersFrame); ok {
				for _, f := range headers.Fields {
					if f.Name == "grpc-status" {
						got = f.Value
					}
				}
				if got != "" && got != want {
					t.Errorf("%s: status %s; want %s", method, got, want)
				}
			}
		}
	}
	// A watch whose message did arrive goes on past that time.
	watch, err := healthv1.NewHealthClient(dialForTest(t, s)).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(200*time.Millisecond, func() { s.health.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING) })
	}
}

// TestOldestUnfinishedGivesWay: where too many messages are awaited, the oldest call
// is ended and a call in good order is not concerned.
func TestOldestUnfinishedGivesWay(t *testing.T) {
	t.Parallel()
	s, _ := serveForTest(t, nil, func(s *Server) { s.guard.receiving.max, s.guard.publicDeadline = 1, time.Hour })
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(8 * time.Second)); err != nil {
		t.Fatal(err)
	}
	framer := beginCall(t, conn, assayv1.IdentityService_Exchange_FullMethodName)
	if err := framer.WritePing(false, [8]byte{1}); err != nil {
		t.Fatal(err)
	}
	client := assayv1.NewAuditServiceClient(dialForTest(t, s))
	for got := ""; got == ""; {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("the unfinished call was not ended: %v", err)
		}
		switch f := frame.(type) {
		case *http2.PingFrame: // so the call before it is known
			if _, err := client.GetTrustedRoot(t.Context(), &assayv1.GetTrustedRootRequest{}); f.IsAck() && err != nil {
				t.Errorf("beside an unfinished call: %v", err)
			}
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				if field.Name == "grpc-status" {
					got = field.Value
				}
			}
			if got != "" && got != "1" {
				t.Errorf("status %s; want CANCELLED", got)
			}
		}
	}
	for range 3 { // and calls that have ended take no place
		if _, err := client.GetTrustedRoot(t.Context(), &assayv1.GetTrustedRootRequest{}); err != nil {
			t.Error(err)
		}
	}
}

// TestStreamMethods: the table of streams holds what the descriptors call so.
func TestStreamMethods(t *testing.T) {
	got := streamMethods(methodAccess())
	want := map[string]bool{healthv1.Health_Watch_FullMethodName: true}
	for _, d := range []grpc.ServiceDesc{
		assayv1.AttestationService_ServiceDesc, assayv1.AuditService_ServiceDesc, assayv1.IdentityService_ServiceDesc,
		assayv1.PolicyService_ServiceDesc, assayv1.VerificationService_ServiceDesc,
	} {
		for _, st := range d.Streams {
			want["/"+d.ServiceName+"/"+st.StreamName] = true
		}
	}
	for m := range methodAccess() {
		if got[m] != want[m] {
			t.Errorf("%s: stream %v; want %v", m, got[m], want[m])
		}
	}
}

// TestUploadShares: one repository takes a quarter of the places, others find theirs.
func TestUploadShares(t *testing.T) {
	u := &uploads{slots: make(chan struct{}, 8), idle: time.Millisecond}
	var releases []func()
	for range 2 {
		release, err := u.acquire(t.Context(), "one", "a")
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	if _, err := u.acquire(t.Context(), "one", "a"); refusal.CodeOf(err) != CodeOverloaded || !strings.Contains(err.Error(), "2 uploads of this repository") {
		t.Errorf("a third upload of one repository: %v", err)
	}
	for repository := range int64(6) {
		release, err := u.acquire(t.Context(), strconv.FormatInt(2+repository, 10), []string{"a", "b"}[repository%2])
		if err != nil {
			t.Fatalf("repository %d: %v", repository, err)
		}
		releases = append(releases, release)
	}
	if _, err := u.acquire(t.Context(), "nine", "c"); refusal.CodeOf(err) != CodeOverloaded || !strings.Contains(err.Error(), "8 uploads are") {
		t.Errorf("a ninth upload: %v", err)
	}
	for _, release := range releases {
		release()
	}
	if len(u.shares) != 0 || len(u.slots) != 0 {
		t.Errorf("%d shares and %d places are left behind", len(u.shares), len(u.slots))
	}
	if release, err := (&uploads{slots: make(chan struct{}, 1), idle: time.Millisecond}).acquire(t.Context(), "one", "a"); err != nil {
		t.Errorf("the only place: %v", err)
	} else {
		release()
	}
}

// TestUploadTenantShare: an account with many repositories leaves a quarter of the
// places to others.
func TestUploadTenantShare(t *testing.T) {
	u := &uploads{slots: make(chan struct{}, 8), idle: time.Millisecond}
	for i := range 6 {
		if _, err := u.acquire(t.Context(), strconv.Itoa(i/2), "mallory"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := u.acquire(t.Context(), "one more", "mallory"); refusal.CodeOf(err) != CodeOverloaded || !strings.Contains(err.Error(), "6 uploads of this account") {
		t.Errorf("a seventh upload of one account: %v", err)
	}
	for _, of := range []string{"x", "y"} {
		if _, err := u.acquire(t.Context(), of, "alice"); err != nil {
			t.Errorf("another account: %v", err)
		}
	}
}

// TestUploadPace: an upload that brings next to nothing gives its place up.
func TestUploadPace(t *testing.T) {
	chunk := func(n int) incoming {
		return incoming{req: &assayv1.AttestRequest{Message: &assayv1.AttestRequest_Chunk{Chunk: make([]byte, n)}}}
	}
	for _, tt := range []struct {
		name  string
		bytes int
		ago   time.Duration
		code  refusal.Code
	}{
		{"a byte in a minute and more", 1, 61 * time.Second, CodeStreamIdle},
		{"a byte in the first minute", 1, 59 * time.Second, ""},
		{"as much as a modem", 62 * leastPace, 61 * time.Second, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := make(chan incoming, 1)
			in <- chunk(tt.bytes)
			r := &receiver{uploads: &uploads{idle: time.Minute, grace: time.Minute}, in: in, idle: time.NewTimer(time.Minute), began: time.Now().Add(-tt.ago)}
			if _, err := r.next(t.Context()); refusal.CodeOf(err) != tt.code {
				t.Errorf("got %v; want %q", err, tt.code)
			}
		})
	}
}

// TestSpool: a file stays for whoever looks into it, and none is begun where it would
// touch the reserve.
func TestSpool(t *testing.T) {
	s, err := openSpool(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.create(s.dir, "0")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if sum, _, err := w.close(); err != nil || sum != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Errorf("%s, %v", sum, err)
	}
	if kept, err := os.ReadFile(w.file.Name()); err != nil || string(kept) != "abc" {
		t.Errorf("the file holds %q (%v)", kept, err)
	}
	if err := s.room(math.MaxInt64 / 2); refusal.CodeOf(err) != CodeSpoolFull {
		t.Errorf("room for everything: %v", err)
	}
	if step := s.step.Load(); step <= 0 || step > maxStep {
		t.Errorf("a look at the free space every %d bytes", step)
	}
}

// brokenStream receives what is no message.
type brokenStream struct{ fakeStream }

func (brokenStream) RecvMsg(any) error {
	return status.Error(codes.Internal, "grpc: error unmarshalling request: proto: cannot parse")
}

// TestMalformedStreamMessage: bytes that are no message are the client's fault.
func TestMalformedStreamMessage(t *testing.T) {
	var logs bytes.Buffer
	err := testGuard(&logs).stream(nil, brokenStream{fakeStream{ctx: t.Context()}}, &grpc.StreamServerInfo{FullMethod: publicMethod},
		func(_ any, ss grpc.ServerStream) error { return ss.RecvMsg(&assayv1.AttestRequest{}) })
	if status.Code(err) != codes.InvalidArgument || reason(err) != "REQUEST_INVALID" || strings.Contains(logs.String(), "ERROR") {
		t.Errorf("%v\n%s", err, logs.String())
	}
}

// TestDigestMismatchIsNoAlarm: bytes that a client sent damaged are for its eyes.
func TestDigestMismatchIsNoAlarm(t *testing.T) {
	var logs bytes.Buffer
	_, err := testGuard(&logs).unary(t.Context(), &assayv1.GetTrustedRootRequest{}, &grpc.UnaryServerInfo{FullMethod: publicMethod},
		func(context.Context, any) (any, error) { return nil, refusal.New(CodeDigestMismatch, "x") })
	if status.Code(err) != codes.DataLoss || !strings.Contains(logs.String(), `"level":"INFO"`) || strings.Contains(logs.String(), "ERROR") {
		t.Errorf("%v\n%s", err, logs.String())
	}
}

// TestQueryReason: the gateway makes text of a refusal; its reason arrives all the same.
func TestQueryReason(t *testing.T) {
	mux := gateway.NewServeMux()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{status.Errorf(codes.InvalidArgument, "%v", strictQuery{}.Parse(&assayv1.ListAttestationsRequest{}, map[string][]string{"bogus": {"1"}}, nil)), "UNKNOWN_FIELD"},
		{status.Error(codes.InvalidArgument, "type mismatch"), "REQUEST_INVALID"},
	} {
		w := httptest.NewRecorder()
		jsonError(t.Context(), mux, &gateway.JSONPb{}, w, httptest.NewRequest(http.MethodGet, "/v1/attestations?bogus=1", nil), tt.err)
		if got := jsonReason(w.Body.Bytes()); w.Code != http.StatusBadRequest || got != tt.want || strings.Count(w.Body.String(), "UNKNOWN_FIELD: UNKNOWN_FIELD") != 0 {
			t.Errorf("%d %q; want %q\n%s", w.Code, got, tt.want, w.Body.String())
		}
	}
}

// TestConnectionLimit: the newest connection beyond the limit is refused, and a
// closed one makes room, once.
func TestConnectionLimit(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newSplit(l, nil, slog.New(slog.DiscardHandler))
	defer s.Close()
	s.maxConns = 1
	enter := func() (net.Conn, bool) {
		conn, other := net.Pipe()
		t.Cleanup(func() { other.Close() })
		return s.count(conn)
	}
	first, ok := enter()
	if !ok {
		t.Fatal("the first connection was refused")
	}
	if _, ok := enter(); ok {
		t.Error("a second connection was taken")
	}
	first.Close()
	first.Close()
	if _, ok := enter(); !ok {
		t.Error("no room after the first closed")
	}
	if _, ok := enter(); ok {
		t.Error("closing one connection twice made room for two")
	}
}
