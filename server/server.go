// Package server is the Assay service: Config in, one port out.
//
//	s, err := server.New(ctx, server.Config{Data: "/var/lib/assay"})
//	if err != nil { … }
//	err = s.Serve(ctx) // until ctx ends, then gracefully
//
// A Server opens everything it needs in New and finishes what a crash
// interrupted before it serves anything. On its port, native gRPC and HTTP live
// side by side; every RPC, also one that arrives as JSON, passes the interceptors
// of guard, which are the only way in. The handlers say what is asked; the
// packages below decide: identity who is calling, provenance what was built,
// verify and policy what may be deployed.
//
// Refusals of those packages become gRPC statuses in one table, statusCode.
package server

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
	"github.com/assay-build/assay/internal/verify"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// rememberedBuilds is how many finished builds are not fetched a second time.
const rememberedBuilds = 4096

// shutdownGrace is how long calls under way may take to end.
const shutdownGrace = 20 * time.Second

// Server is a running service. Make one with New.
type Server struct {
	cfg      Config
	metrics  *metrics
	verifier *identity.Verifier
	certs    *identity.Certificates
	builds   *codebuild.Reader // nil where no project is configured
	writer   *provenance.Writer
	rules    *policy.Access
	callers  *callers
	set      *policy.Set
	cedar    []byte // the text of set
	keyset   *signing.Keyset
	store    *store.Store
	log      *posix.Log
	guard    *guard
	grpc     *grpc.Server
	http     *http.Server
	health   *health.Server
	inproc   *bufconn.Listener
	split    *split
	second   net.Listener // GRPCListen
	recover  func(ctx context.Context, begunBefore time.Time) error
	closers  []func() error
	draining atomic.Bool
	// stopping ends with endWatches: health watches have no end of their own and
	// would hold a stop for as long as it may take.
	stopping   context.Context
	endWatches context.CancelFunc
}

// New opens an instance and binds its addresses; Serve starts answering. On an
// error everything that was opened is closed again.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	s := &Server{cfg: cfg, health: health.NewServer()}
	s.stopping, s.endWatches = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	err = s.configure(ctx)
	if refusal.CodeOf(err) != "" {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if err != nil {
		return nil, err // an address in use, for example
	}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	return s, s.assemble(ctx)
}

// configure does all that depends on the configuration alone, and binds the
// addresses: what is wrong with it is known before a data directory is touched.
func (s *Server) configure(ctx context.Context) error {
	if err := s.cfg.complete(); err != nil {
		return err
	}
	s.metrics = newMetrics(s.cfg.Registry)
	for i, issuer := range s.cfg.Identity.Issuers {
		if issuer.Sandbox && !s.cfg.AllowSandboxIssuers {
			return configError(fmt.Sprintf("identity.issuers[%d]", i), "a sandbox issuer is for assay-dev only")
		}
	}
	if err := s.configureAWS(ctx); err != nil {
		return err
	}
	ids := s.cfg.identity()
	ids.Consumed = s.consumed
	if s.builds != nil {
		ids.Builds = s.builds
	}
	var err error
	if s.verifier, err = identity.NewVerifier(ids); err != nil {
		return err
	}
	if s.certs, err = s.cfg.certificates(); err != nil {
		return err
	}
	if s.writer, err = provenance.New(s.cfg.provenance()); err != nil {
		return err
	}
	if s.rules, err = accessPolicy(&s.cfg.Access); err != nil {
		return err
	}
	bindings, err := s.cfg.Access.bindings()
	if err != nil {
		return err
	}
	if s.callers, err = newCallers(bindings); err != nil {
		return err
	}
	if s.set, s.cedar, err = s.policy(); err != nil {
		return err
	}
	return s.listen(ctx)
}

// Addr is the address the service is bound to.
func (s *Server) Addr() net.Addr { return s.split.Addr() }

// Instance is the public URL of the service.
func (s *Server) Instance() string { return s.cfg.Instance }

// listen binds both addresses and refuses to be readable for others by accident.
func (s *Server) listen(ctx context.Context) error {
	var lc net.ListenConfig
	l := s.cfg.Listener
	if l == nil {
		var err error
		if l, err = lc.Listen(ctx, "tcp", s.cfg.Listen); err != nil {
			return err
		}
	}
	tlsConfig, err := s.cfg.tlsConfig()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	s.split = newSplit(l, tlsConfig, s.cfg.Logger)
	s.closers = append(s.closers, s.split.Close)
	if tlsConfig == nil {
		if err := checkPlaintext(l.Addr(), s.cfg.AllowPlaintext); err != nil {
			return err
		}
	}
	if s.cfg.GRPCListen == "" {
		return nil
	}
	second, err := lc.Listen(ctx, "tcp", s.cfg.GRPCListen)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, second.Close)
	if s.cfg.TLS.CertFile == "" {
		if err := checkPlaintext(second.Addr(), s.cfg.AllowPlaintext); err != nil {
			return err
		}
	}
	s.second = s.split.GRPCOnly(second)
	return nil
}

// open opens the parts in the order of their dependence.
func (s *Server) open(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.Data, 0o700); err != nil {
		return err
	}
	var err error
	s.keyset, err = signing.OpenKeyset(ctx, s.cfg.path("keys"), signing.Config{Host: s.cfg.host(), Now: s.cfg.Now, Create: true})
	if err != nil {
		return err
	}
	s.store, err = store.Open(ctx, store.Config{Path: s.cfg.path("assay.db"), Now: s.cfg.Now, Logger: s.cfg.Logger})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.store.Close)
	s.log, err = posix.Open(ctx, posix.Config{
		Dir: s.cfg.path("log"), Host: s.cfg.host(), Signer: s.keyset.LogSigner(),
		Format: tlog.EntryFormat(s.cfg.Log.EntryFormat), CheckpointInterval: s.cfg.Log.CheckpointInterval,
		Now: s.cfg.Now, Logger: s.cfg.Logger,
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
		defer cancel()
		return s.log.Close(ctx)
	})
	return nil
}

// CodeLogBehind refuses to start with a log that does not contain the largest tree
// that the database knows was given out: one of the two was restored without the
// other. Going on would sign a second, different tree of sizes that verifiers have
// seen already.
const CodeLogBehind refusal.Code = "LOG_BEHIND_DATABASE"

// checkLog holds the log against the database. That the log is as long is not enough:
// restored from an old copy it may have grown again, by other entries.
func (s *Server) checkLog(ctx context.Context) error {
	head, known, err := s.store.LogHead(ctx)
	if err != nil || !known {
		return err
	}
	if size := s.log.Size(); size < head.Size {
		return refusal.New(CodeLogBehind, "the log has %d entries, and the database knows a tree of %d: restore both from one moment", size, head.Size)
	}
	root, err := s.log.RootAt(ctx, head.Size)
	if err != nil {
		return err
	}
	if !bytes.Equal(root, head.Root) {
		return refusal.New(CodeLogBehind, "the first %d entries of the log have root %x, and the database knows %x: restore both from one moment", head.Size, root, head.Root)
	}
	return nil
}

// assemble builds the services over the open parts and registers them.
func (s *Server) assemble(ctx context.Context) error {
	if err := s.checkLog(ctx); err != nil {
		return err
	}
	verifier, err := s.ownVerifier()
	if err != nil {
		return err
	}
	sealer, err := newSealer(s.keyset, s.log, s.store, func(bundle []byte) error {
		_, err := verifier.VerifyOwn(bundle)
		return err
	}, s.cfg.Now, s.cfg.Logger)
	if err != nil {
		return err
	}
	s.recover = func(ctx context.Context, begunBefore time.Time) error {
		r, err := sealer.recover(ctx, begunBefore)
		s.metrics.recovered.Add(float64(r.finished))
		s.metrics.pending.Set(float64(r.left))
		return err
	}
	if err := s.recover(ctx, time.Time{}); err != nil {
		return fmt.Errorf("finish what was begun: %w", err)
	}
	key, err := identity.LoadSessionKey(s.cfg.path("session.key"))
	if err != nil {
		return err
	}
	sessions := identity.NewSessions(key, s.store, s.cfg.Identity.SessionTTL, s.cfg.Now)
	ids, err := s.identityService(key, sessions)
	if err != nil {
		return err
	}
	authz, err := newAuthorizer(s.rules, s.callers, s.cfg.Logger, s.metrics)
	if err != nil {
		return err
	}
	gate, err := newGate(s.cfg, s.store, sealer, verifier, s.set, s.writer.Levels(), authz, s.metrics)
	if err != nil {
		return err
	}
	spool, err := openSpool(s.cfg.path("spool"))
	if err != nil {
		return err
	}
	fetched, err := lru.New[string, string](rememberedBuilds)
	if err != nil {
		return err
	}
	s.grpc = s.newGRPC(sessions, authz)
	assayv1.RegisterIdentityServiceServer(s.grpc, ids)
	assayv1.RegisterAttestationServiceServer(s.grpc, &attestationService{
		writer: s.writer, sealer: sealer, builds: s.builds, sandboxAWS: s.cfg.SandboxAWS, authorizer: authz, metrics: s.metrics,
		fetched: fetched, store: s.store,
		uploads: &uploads{
			spool: spool, slots: make(chan struct{}, s.cfg.Limits.MaxConcurrentUploads),
			maxBytes: s.cfg.Limits.MaxArtifactBytes, idle: s.cfg.Limits.IdleTimeout, grace: time.Minute,
		},
	})
	assayv1.RegisterVerificationServiceServer(s.grpc, &verificationService{gate: gate, authorizer: authz})
	assayv1.RegisterAuditServiceServer(s.grpc, &auditService{store: s.store, keyset: s.keyset, authorizer: authz, writer: s.writer})
	assayv1.RegisterPolicyServiceServer(s.grpc, &policyService{set: s.set, source: s.cedar, since: timestamppb.New(s.cfg.Now())})
	healthv1.RegisterHealthServer(s.grpc, s.health)
	return s.assembleHTTP(ctx)
}

// consumed asks the database, once it is open: before that nobody is served.
func (s *Server) consumed(ctx context.Context, replayKey string) (bool, error) {
	return s.store.Consumed(ctx, replayKey)
}

// identityService makes what opens sessions.
func (s *Server) identityService(key []byte, sessions *identity.Sessions) (*identityService, error) {
	// The nonces of STS proofs have a key of their own, which every machine of the
	// deployment derives from the one they share.
	nonces, err := hkdf.Expand(sha256.New, key, "assay sts challenge v1", identity.SessionKeyBytes)
	if err != nil {
		return nil, err
	}
	proofs, err := s.proofs(nonces)
	if err != nil {
		return nil, err
	}
	return &identityService{
		verifier: s.verifier, aws: proofs, certificates: s.certs, sessions: sessions, callers: s.callers,
		writer: s.writer, audience: s.cfg.Audience[0], now: s.cfg.Now,
	}, nil
}

func (s *Server) assembleHTTP(ctx context.Context) error {
	s.inproc = bufconn.Listen(1 << 20)
	gateway, closeGateway, err := newGateway(ctx, s.inproc)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, closeGateway)
	s.http = newHTTPServer(s.httpHandler(gateway))
	return nil
}

func (s *Server) policy() (*policy.Set, []byte, error) {
	source := []byte(policy.DefaultPolicy())
	if s.cfg.Policy.File != "" {
		var err error
		if source, err = os.ReadFile(s.cfg.Policy.File); err != nil {
			return nil, nil, configError("policy.file", "%v", err)
		}
	}
	set, err := policy.Compile(source)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range set.Warnings() {
		s.cfg.Logger.Warn("policy", "warning", w)
	}
	return set, source, nil
}

// ownVerifier believes what this instance publishes of its keys.
func (s *Server) ownVerifier() (*verify.Verifier, error) {
	root, err := s.keyset.TrustedRoot()
	if err != nil {
		return nil, err
	}
	trust, err := verify.NewRoot(root, trustedKeys(s.keyset)...)
	if err != nil {
		return nil, err
	}
	return verify.New(trust), nil
}

func (s *Server) newGRPC(sessions *identity.Sessions, authz *authorizer) *grpc.Server {
	access := methodAccess()
	g := &guard{
		access: access, sessions: sessions, authorizer: authz, metrics: s.metrics, logger: s.cfg.Logger,
		now: s.cfg.Now, draining: s.draining.Load, stopping: s.stopping,
		streams: streamMethods(access), receiving: pendingPeers{max: maxReceiving}, publicDeadline: publicDeadline,
	}
	s.guard = g
	return grpc.NewServer(
		grpc.Creds(s.split.Credentials()),
		grpc.InTapHandle(g.tap),
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.stream),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxHeaderListSize(maxMetadataBytes),
		grpc.MaxConcurrentStreams(128),
		grpc.ConnectionTimeout(10*time.Second),
		// Windows wide enough that one upload fills a fast network.
		grpc.InitialWindowSize(4<<20),
		grpc.InitialConnWindowSize(16<<20),
		grpc.ReadBufferSize(128<<10),
		grpc.WriteBufferSize(64<<10),
		// Kept goroutines have grown their stacks already: a signature needs a deep one.
		grpc.NumStreamWorkers(128),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 15 * time.Minute, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return errUnknownMethod() }),
	)
}

// Serve answers until ctx ends, then lets the calls under way finish, for
// shutdownGrace at most, and closes everything. It returns nil after a clean stop.
func (s *Server) Serve(ctx context.Context) error {
	s.health.SetServingStatus("", healthv1.HealthCheckResponse_SERVING)
	for name := range s.grpc.GetServiceInfo() {
		s.health.SetServingStatus(name, healthv1.HealthCheckResponse_SERVING)
	}
	s.cfg.Logger.InfoContext(ctx, "serving", "address", s.Addr().String(), "instance", s.cfg.Instance,
		"log_size", s.log.Size(), "entry_format", s.cfg.Log.EntryFormat)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ignoreClosed(s.split.Serve()) })
	group.Go(func() error { return ignoreClosed(s.grpc.Serve(s.split.GRPC())) })
	group.Go(func() error { return ignoreClosed(s.grpc.Serve(s.inproc)) })
	group.Go(func() error { return ignoreClosed(s.http.Serve(s.split.HTTP())) })
	if s.second != nil {
		group.Go(func() error { return ignoreClosed(s.grpc.Serve(s.second)) })
	}
	group.Go(func() error { return s.purge(gctx) })
	group.Go(func() error {
		<-gctx.Done()
		s.stop()
		return nil
	})
	return errors.Join(group.Wait(), s.close())
}

// stop drains: readiness goes first, so that load balancers look elsewhere.
func (s *Server) stop() {
	s.draining.Store(true)
	s.health.Shutdown()
	s.endWatches()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	done := make(chan struct{})
	go func() { s.grpc.GracefulStop(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		s.grpc.Stop()
	}
	// HTTP goes last, so that /readyz can say 503 for as long as calls run.
	_ = s.http.Shutdown(ctx)
	_ = s.split.Close()
}

// purge forgets expired sessions and consumed tokens, and finishes what failures left
// behind.
func (s *Server) purge(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.store.DeleteExpired(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Logger.ErrorContext(ctx, "delete expired sessions", "error", err.Error())
			}
			if err := s.recover(ctx, s.cfg.Now().Add(-retryAge)); err != nil && ctx.Err() == nil {
				s.cfg.Logger.ErrorContext(ctx, "finish pending attestations", "error", err.Error())
			}
		}
	}
}

// close closes what New opened, last first.
func (s *Server) close() error {
	s.endWatches()
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, ignoreClosed(s.closers[i]()))
	}
	s.closers = nil
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}
