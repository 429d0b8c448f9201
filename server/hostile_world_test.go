package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	"github.com/assay-build/assay/internal/verify"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	_ "modernc.org/sqlite" // to change a database behind the service's back
)

// issuerKey is shared by all issuers of this package's tests: an RSA key takes
// longer to make than a server to start.
var issuerKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

const ownerID = 65438921 // of oidctest's job

// world is what outlives one life of a service: its data, its public name, its
// clock, and the issuer that it believes.
type world struct {
	issuer   *oidctest.Issuer
	instance string
	data     string
	sandbox  bool // the issuer is a sandbox: builders/dev, level 0
	ahead    atomic.Int64
	broken   atomic.Pointer[http.HandlerFunc] // answers in the issuer's place, unless nil
	now      func() time.Time
}

func newWorld(t testing.TB, instance string) *world {
	t.Helper()
	w := &world{instance: instance, data: t.TempDir()}
	w.now = func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if h := w.broken.Load(); h != nil {
			(*h)(rw, r)
			return
		}
		w.issuer.Handler().ServeHTTP(rw, r)
	}))
	t.Cleanup(srv.Close)
	key, err := issuerKey()
	if err != nil {
		t.Fatal(err)
	}
	w.issuer, err = oidctest.New(oidctest.Config{BaseURL: srv.URL, Key: key, Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) advance(d time.Duration) { w.ahead.Add(int64(d)) }

// life is one run of the service over the world's data.
type life struct {
	*rig
	world *world
	logs  *logBook
	drain func() // begins to stop the service
	stop  func() // ends this life; the test's end does it too
}

// config is that of every life of this world.
func (w *world) config(t testing.TB, edit ...func(*server.Config)) (server.Config, *logBook) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	logs := newLogBook()
	cfg := server.Config{
		Data: w.data, Instance: w.instance, Listener: l, Now: w.now, AllowSandboxIssuers: w.sandbox,
		Logger: slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	cfg.Identity.Issuers = []server.IssuerConf{{
		URL: w.issuer.URL(), Type: "github-actions", Sandbox: w.sandbox, AllowedOwnerIDs: []int64{ownerID},
	}}
	cfg.Log.CheckpointInterval = 100 * time.Millisecond
	for _, e := range edit {
		e(&cfg)
	}
	return cfg, logs
}

// start begins a life. Nobody is logged in.
func (w *world) start(t testing.TB, edit ...func(*server.Config)) *life {
	t.Helper()
	cfg, logs := w.config(t, edit...)
	s, err := server.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	addr := s.Addr().String()
	conn, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	out := &life{world: w, logs: logs, drain: cancel, rig: &rig{
		Env:  &testenv.Env{Sandbox: &testenv.Sandbox{Server: s, Issuer: w.issuer}, Server: "http://" + addr, Data: w.data},
		conn: conn, ctx: t.Context(),
	}}
	out.stop = sync.OnceFunc(func() {
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the service stopped with: %v", err)
		}
	})
	t.Cleanup(out.stop)
	return out
}

func (l *life) addr() string { return l.Env.Sandbox.Server.Addr().String() }

// login opens a session for a job with these claims, and uses it from now on.
func (l *life) login(t testing.TB, claims ...oidctest.Claims) *life {
	t.Helper()
	l.ctx = l.session(t, l.Issuer.Mint(l.world.instance, claims...))
	return l
}

func (l *life) exchange(ctx context.Context, token string) (*assayv1.ExchangeResponse, error) {
	return assayv1.NewIdentityServiceClient(l.conn).Exchange(ctx, &assayv1.ExchangeRequest{
		Credential: &assayv1.ExchangeRequest_OidcToken{OidcToken: token},
	})
}

func (l *life) digests(t testing.TB, ctx context.Context, subjects ...*assayv1.Subject) *assayv1.AttestResult {
	t.Helper()
	resp, err := assayv1.NewAttestationServiceClient(l.conn).AttestDigests(ctx, &assayv1.AttestDigestsRequest{Subjects: subjects})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetResult()
}

func (l *life) verify(t testing.TB, environment string, subjects ...*assayv1.Subject) *assayv1.VerifyResponse {
	t.Helper()
	resp, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: environment, Subjects: subjects})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// decide verifies one subject and demands the outcome; only ALLOWED is a pass.
func (l *life) decide(t testing.TB, environment string, s *assayv1.Subject, reason string) *assayv1.Decision {
	t.Helper()
	resp := l.verify(t, environment, s)
	want := assayv1.VerificationResult_VERIFICATION_RESULT_FAILED
	if reason == "ALLOWED" {
		want = assayv1.VerificationResult_VERIFICATION_RESULT_PASSED
	}
	if len(resp.GetDecisions()) != 1 {
		t.Fatalf("%d decisions about one subject", len(resp.GetDecisions()))
	}
	d := resp.GetDecisions()[0]
	if resp.GetVerificationResult() != want || d.GetVerificationResult() != want || d.GetReason() != reason {
		t.Errorf("%s for %s: %s, decision %s %s (%s); want %s", s.GetDigest()["sha256"][:8], environment,
			resp.GetVerificationResult(), d.GetVerificationResult(), d.GetReason(), d.GetMessage(), reason)
	}
	return d
}

// verifier believes what this service publishes of its keys, and nothing else.
func (l *life) verifier(t testing.TB) *verify.Verifier {
	t.Helper()
	resp, err := assayv1.NewAuditServiceClient(l.conn).GetTrustedRoot(t.Context(), &assayv1.GetTrustedRootRequest{})
	if err != nil {
		t.Fatal(err)
	}
	root, err := verify.NewRoot(resp.GetTrustedRoot(), verify.PublicKey{PEM: []byte(resp.GetAttestationKeysPem())})
	if err != nil {
		t.Fatal(err)
	}
	return verify.New(root)
}

// statementOf is what a bundle signs. It does not verify the bundle.
func statementOf(t testing.TB, bundle []byte) *attest.Statement {
	t.Helper()
	parts, err := attest.ParseOwnBundle(bundle)
	if err != nil {
		t.Fatal(err)
	}
	st, err := attest.ParseStatement(parts.Envelope.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// runClaims are the claims that tell run i from the others.
func runClaims(i int) oidctest.Claims {
	return oidctest.Claims{"run_id": strconv.Itoa(12345678901234000 + i), "run_number": strconv.Itoa(i + 1)}
}

func sha256Hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func subject(name, content string) *assayv1.Subject {
	return &assayv1.Subject{Name: name, Digest: map[string]string{"sha256": sha256Hex([]byte(content))}}
}

// artifactMessages is the upload of one artifact.
func artifactMessages(name string, data []byte) []*assayv1.AttestRequest {
	out := []*assayv1.AttestRequest{{Message: &assayv1.AttestRequest_ArtifactStart{ArtifactStart: &assayv1.ArtifactStart{Name: name, Size: int64(len(data))}}}}
	for len(data) > 0 {
		n := min(len(data), 1<<20)
		out = append(out, &assayv1.AttestRequest{Message: &assayv1.AttestRequest_Chunk{Chunk: data[:n]}})
		data = data[n:]
	}
	return append(out, &assayv1.AttestRequest{Message: &assayv1.AttestRequest_ArtifactEnd{ArtifactEnd: &assayv1.ArtifactEnd{}}})
}

func headerMessage(n int) *assayv1.AttestRequest {
	return &assayv1.AttestRequest{Message: &assayv1.AttestRequest_Header{Header: &assayv1.AttestHeader{ArtifactCount: int32(n)}}}
}

// uploadAll uploads artifacts and returns the result.
func uploadAll(ctx context.Context, conn *grpc.ClientConn, messages []*assayv1.AttestRequest) (*assayv1.AttestResult, error) {
	stream, err := assayv1.NewAttestationServiceClient(conn).Attest(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			break // the reason is in Recv
		}
	}
	_ = stream.CloseSend()
	for {
		resp, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if resp.GetResult() != nil {
			return resp.GetResult(), nil
		}
	}
}

// database opens the service's database behind its back.
func database(t testing.TB, data string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: filepath.Join(data, "assay.db"), RawQuery: "_pragma=busy_timeout(5000)"}).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func (l *life) count(t testing.TB, table string) int {
	t.Helper()
	db := database(t, l.world.data)
	defer db.Close()
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func wantReason(t testing.TB, err error, code codes.Code, reason string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted; want %s", reason)
	}
	if got, _ := reasonOf(err); status.Code(err) != code || got != reason {
		t.Errorf("got %s %s; want %s %s\n%v", status.Code(err), got, code, reason, err)
	}
}

func httpGet(t testing.TB, address string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
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

func bearerOf(ctx context.Context) string {
	md, _ := metadata.FromOutgoingContext(ctx)
	if v := md.Get("authorization"); len(v) > 0 {
		return v[0]
	}
	return ""
}

// logBook keeps the service's log: JSON, one record a line.
type logBook struct {
	mu   sync.Mutex
	more *sync.Cond
	text bytes.Buffer
}

func newLogBook() *logBook {
	b := &logBook{}
	b.more = sync.NewCond(&b.mu)
	return b
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.more.Broadcast()
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// ended waits until n calls of the method have ended, which the service logs
// after the handler has returned.
func (b *logBook) ended(t testing.TB, method string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	defer context.AfterFunc(ctx, b.more.Broadcast)()
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		seen := 0
		for line := range bytes.Lines(b.text.Bytes()) {
			var r struct{ Msg, Method string }
			if json.Unmarshal(line, &r) == nil && r.Msg == "rpc" && r.Method == method {
				seen++
			}
		}
		if seen >= n {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%d of %d calls of %s ended:\n%s", seen, n, method, b.text.String())
		}
		b.more.Wait()
	}
}
