package server

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"os"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"

	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
	"github.com/assay-build/assay/internal/verify"
	"github.com/assay-build/assay/internal/version"
	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// rememberedBuilds is how many finished builds are not fetched a second time.
const rememberedBuilds = 4096

// open opens the parts in the order of their dependence.
func (s *Server) open(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.Data, 0o700); err != nil {
		return err
	}
	var err error
	if err := s.openKeys(ctx); err != nil {
		return err
	}
	set := s.ring.current.Load().set
	s.store, err = store.Open(ctx, store.Config{Path: s.cfg.path("assay.db"), Now: s.cfg.Now, Logger: s.cfg.Logger})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.store.Close)
	s.log, err = posix.Open(ctx, posix.Config{
		Dir: s.cfg.path(activeShard(set)), Host: s.cfg.host(), Signer: set.LogSigner(),
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
	for _, shard := range set.LogShards() {
		if shard.Active {
			continue
		}
		key, err := tlog.NewKey(s.cfg.host(), shard.Public)
		if err != nil {
			return err
		}
		frozen, err := posix.OpenFrozen(ctx, s.cfg.path(shard.Name), key, s.cfg.Logger)
		if err != nil {
			return fmt.Errorf("retired log %s: %w", shard.Name, err)
		}
		if n, all := frozen.Published(), frozen.Size(); n < all {
			s.cfg.Logger.WarnContext(ctx, "a retired log has entries that no published checkpoint covers; they are not served", "log", shard.Name, "published", n, "entries", all)
		}
		s.retired = append(s.retired, frozen)
	}
	return nil
}

// activeShard is the directory of the log that takes entries.
func activeShard(set *signing.Keyset) string {
	shards := set.LogShards()
	return shards[len(shards)-1].Name
}

// openKeys opens the keyset, or makes it, and what follows it.
func (s *Server) openKeys(ctx context.Context) error {
	s.ring = &keyring{cfg: &s.cfg, logger: s.cfg.Logger, issuers: make(map[string]*ca.Authority)}
	var err error
	if s.ring.external, err = s.cfg.externalTSA(); err != nil {
		return err
	}
	if s.ring.tsa, err = s.cfg.timestampAuthority(func() *verify.Root { return s.ring.current.Load().root }); err != nil {
		return err
	}
	openers := s.metrics.counting(KeyOpeners(&s.cfg))
	s.trust = newDistributor(&s.cfg, s.ring, openers, s.metrics)
	s.ring.changed = s.trust.changed
	s.ring.open = func(ctx context.Context) (*signing.Keyset, error) {
		return signing.OpenKeyset(ctx, s.cfg.path("keys"), s.cfg.keysetConfig(false, openers))
	}
	set, err := signing.OpenKeyset(ctx, s.cfg.path("keys"), s.cfg.keysetConfig(true, openers))
	if err != nil {
		return err
	}
	s.ring.logKey = set.KeyOf(signing.RoleLog, "").KeyID
	if err := s.ring.adopt(set); err != nil {
		return err
	}
	// Intermediates are made when something is attested: so the service starts where the
	// certificate authority's key cannot be had, and verifies what was attested before.
	if err := s.ring.prepare(ctx); err != nil {
		s.cfg.Logger.ErrorContext(ctx, "make an intermediate certificate", "error", err.Error())
	}
	if err := s.trust.tend(ctx); err != nil {
		s.cfg.Logger.ErrorContext(ctx, "bring the TUF repository in step", "error", err.Error())
	}
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
	heads, err := s.store.LogHeads(ctx)
	if err != nil {
		return err
	}
	for _, head := range heads {
		if err := s.checkHead(ctx, head); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) checkHead(ctx context.Context, head store.LogHead) error {
	log, err := s.logOf(head)
	if err != nil {
		return err
	}
	if size := log.Size(); size < head.Size {
		return refusal.New(CodeLogBehind, "the log has %d entries, and the database knows a tree of %d: restore both from one moment", size, head.Size)
	}
	root, err := log.RootAt(ctx, head.Size)
	if err != nil {
		return err
	}
	if !bytes.Equal(root, head.Root) {
		return refusal.New(CodeLogBehind, "the first %d entries of the log have root %x, and the database knows %x: restore both from one moment", head.Size, root, head.Root)
	}
	return nil
}

// logOf is the log that a head is of: the one that takes entries, or one that did.
func (s *Server) logOf(head store.LogHead) (log interface {
	Size() uint64
	RootAt(ctx context.Context, size uint64) ([]byte, error)
}, err error) {
	if len(head.Log) == 0 && len(s.retired) > 0 {
		return s.retired[0], nil // written before a log was ever rotated
	}
	if len(head.Log) == 0 || bytes.Equal(head.Log, s.log.LogID()) {
		return s.log, nil
	}
	for _, r := range s.retired {
		if bytes.Equal(head.Log, r.Key().LogID) {
			return r, nil
		}
	}
	return nil, refusal.New(CodeLogBehind, "the database knows a tree of log %x, which is not in the keyset: restore keys, log and database from one moment", head.Log)
}

// assemble builds the services over the open parts and registers them.
func (s *Server) assemble(ctx context.Context) error {
	if err := s.checkLog(ctx); err != nil {
		return err
	}
	sealer := newSealer(s.ring, s.cfg.Instance, s.notary, s.log, s.store, s.cfg.Now, s.cfg.Logger)
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
	gate, err := newGate(s.cfg, s.store, sealer, s.notaries, s.set, s.writer.Levels(), authz, s.metrics)
	if err != nil {
		return err
	}
	spool, err := openSpool(s.cfg.path("spool"))
	if err != nil {
		return err
	}
	scanner, err := s.cfg.scanner()
	if err != nil {
		return err
	}
	s.closers = append(s.closers, scanner.Close)
	fetched, err := lru.New[string, string](rememberedBuilds)
	if err != nil {
		return err
	}
	s.grpc = s.newGRPC(sessions, authz)
	assayv1.RegisterIdentityServiceServer(s.grpc, ids)
	assayv1.RegisterAttestationServiceServer(s.grpc, &attestationService{
		writer: s.writer, sealer: sealer, builds: s.builds, sandboxAWS: s.cfg.SandboxAWS, authorizer: authz, metrics: s.metrics,
		fetched: fetched, store: s.store,
		scans: newScanService(scanner, s.cfg.Scan.Workers, spool, sbom.Tool{Name: "assay", Version: version.Module()}, s.metrics),
		uploads: &uploads{
			spool: spool, slots: make(chan struct{}, s.cfg.Limits.MaxConcurrentUploads),
			maxBytes: s.cfg.Limits.MaxArtifactBytes, idle: s.cfg.Limits.IdleTimeout, grace: time.Minute,
		},
	})
	assayv1.RegisterVerificationServiceServer(s.grpc, &verificationService{gate: gate, authorizer: authz})
	assayv1.RegisterAuditServiceServer(s.grpc, &auditService{store: s.store, ring: s.ring, authorizer: authz, writer: s.writer})
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
