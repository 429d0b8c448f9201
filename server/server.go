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
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/notary"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog/posix"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"
)

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
	ring     *keyring
	trust    *distributor
	notary   *notary.Signer   // nil where AWS Signer signs nothing
	notaries *notary.Verifier // nil where no such signatures are believed
	store    *store.Store
	log      *posix.Log
	retired  []*posix.Frozen // logs of keys that were rotated
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
	if s.notary, s.notaries, err = s.cfg.notaries(ctx); err != nil {
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
	group.Go(func() error { return s.distribute(gctx) })
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
			if err := s.ring.prepare(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Logger.ErrorContext(ctx, "make the next intermediate certificate", "error", err.Error())
			}
			if err := s.recover(ctx, s.cfg.Now().Add(-retryAge)); err != nil && ctx.Err() == nil {
				s.cfg.Logger.ErrorContext(ctx, "finish pending attestations", "error", err.Error())
			}
		}
	}
}

// distribute keeps what verifiers can hear of the keys in step with them.
func (s *Server) distribute(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.trust.kick:
		}
		if err := s.trust.tend(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.ErrorContext(ctx, "bring the TUF repository in step", "error", err.Error())
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
