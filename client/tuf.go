package client

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

// The targets that a server publishes below /tuf/. keys.json may be missing.
const (
	targetTrustedRoot = "trusted_root.json"
	targetPEM         = "attestation_keys.pem"
	targetKeys        = "keys.json"
)

// TrustConfig says whose keys to believe, and where what is known of them is kept.
type TrustConfig struct {
	// Server, AllowPlaintext, CAFile and UserAgent are those of Config.
	Server         string
	AllowPlaintext bool
	CAFile         string
	UserAgent      string
	// Dir is a directory of TrustDir. Each server has one of its own in it.
	Dir string
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// TrustStore keeps what a server's attestations are verified with, and follows its
// changes by The Update Framework. It starts from a root.json that came another way
// than from the server, and then believes only what the keys named there have signed:
// neither the server nor who stands between can add a key, bring back a revoked one,
// or hide a change for longer than a signed timestamp is good for.
//
//	s, err := client.OpenTrustStore(client.TrustConfig{Server: url, Dir: dir})
//	if err != nil { … }
//	_, err = s.Init(ctx, root)     // once, with root.json from the operator
//	state, err := s.Update(ctx)    // asks the server what is new
//	state, err := s.Load()         // offline, from what is kept
//
// What is kept changes as a whole or not at all, and only to what has verified and is
// not expired. New roots are the exception: as specification 1.0.31 wants it (5.3.8),
// a root that its predecessor vouches for is kept even where the rest fails, so that
// keys which it has dropped are not believed again.
type TrustStore struct {
	cfg      TrustConfig
	endpoint *endpoint
	dir      trustDir
	http     *http.Client
	retry    retrier
}

// TrustState is what a TrustStore has verified.
type TrustState struct {
	TrustedRoot
	// Keys is the document of all keys that verifiers may need, with their states; nil
	// where the server publishes none.
	Keys []byte
	// Roles are the metadata that vouch for it: root, targets, snapshot, timestamp.
	Roles []TrustRole
}

// TrustRole is the metadata of one role.
type TrustRole struct {
	Role    string
	Version int64
	Expires time.Time
}

// Expires is when the first of the roles does.
func (s *TrustState) Expires() time.Time {
	return slices.MinFunc(s.Roles, func(a, b TrustRole) int { return a.Expires.Compare(b.Expires) }).Expires
}

// OpenTrustStore checks the configuration. It reads nothing yet.
func OpenTrustStore(cfg TrustConfig) (*TrustStore, error) {
	ep, err := parseServer(cfg.Server, cfg.AllowPlaintext)
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(cfg.Dir) {
		return nil, badInput(CodeTUFStoreInvalid, "the trust directory %q is not an absolute path", cfg.Dir)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	doer, err := trustHTTP(ep, cfg.CAFile)
	if err != nil {
		return nil, err
	}
	return &TrustStore{cfg: cfg, endpoint: ep, dir: trustDir(filepath.Join(cfg.Dir, storeName(ep.origin))), http: doer, retry: newRetrier(cfg.Now)}, nil
}

// Init begins with a root.json, in place of what is kept. It fetches the rest, so that
// a root which is not the server's is refused now.
func (s *TrustStore) Init(ctx context.Context, root []byte) (*TrustState, error) {
	if err := checkMetadata(metadata.ROOT, root); err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.class = ErrInvalid // The caller's file, and nothing that a server said.
		}
		return nil, err
	}
	return s.update(ctx, &generation{root: root})
}

// Update asks the server what is new.
func (s *TrustStore) Update(ctx context.Context) (*TrustState, error) {
	have, err := s.dir.current()
	if err != nil {
		return nil, err
	}
	return s.update(ctx, have)
}

// Load returns what is kept, verified again. What has expired is refused: Update it.
func (s *TrustStore) Load() (*TrustState, error) {
	have, err := s.dir.current()
	if err != nil {
		return nil, err
	}
	return s.verify(have)
}

// trustFresh is how long the answer of a server is good enough for a command that only
// verifies something: a change of keys gets to its users within that time.
const trustFresh = time.Hour

// Current is Load, after an Update where the last one was an hour ago. Where the server
// is away, what is kept does until it expires; where its answer is refused, nothing does.
func (s *TrustStore) Current(ctx context.Context) (*TrustState, error) {
	kept, loadErr := s.Load()
	if loadErr == nil && s.dir.age(s.cfg.Now()) < trustFresh {
		return kept, nil
	}
	if errors.Is(loadErr, &Error{Code: CodeTUFNotInitialized}) {
		return nil, loadErr
	}
	state, err := s.Update(ctx)
	if loadErr == nil && errors.Is(err, ErrUnavailable) {
		return kept, nil
	}
	return state, err
}

// Initialized reports whether there is something to Load.
func (s *TrustStore) Initialized() bool {
	_, err := s.dir.pointer()
	return !errors.Is(err, &Error{Code: CodeTUFNotInitialized})
}

// update follows the server from have, and keeps what it gets to.
func (s *TrustStore) update(ctx context.Context, have *generation) (*TrustState, error) {
	ctx, cancel := withDeadline(ctx, unaryTimeout)
	defer cancel()
	f := &trustFetcher{ctx: ctx, store: s, have: have.root, roots: map[int64][]byte{}, got: map[string][]byte{}}
	up, err := s.updater(have, f)
	if err != nil {
		return nil, signatureRefusal(err, metadata.ROOT, have.root)
	}
	if err := up.Refresh(); err != nil {
		return nil, errors.Join(f.refusal(err, up), s.keepRoot(have, f, up))
	}
	next, err := f.next(have, up)
	if err != nil {
		return nil, errors.Join(err, s.keepRoot(have, f, up))
	}
	// What is kept has to load: go-tuf compares a snapshot that it has with the
	// timestamp by version only, and not by hash.
	state, err := s.verify(next)
	if err != nil {
		return nil, err
	}
	if have.same(next) {
		return state, s.dir.touch(s.cfg.Now())
	}
	return state, errors.Join(s.dir.keep(next, have.name != ""), s.dir.touch(s.cfg.Now()))
}

// keepRoot keeps a newer root where the rest could not be believed.
func (s *TrustStore) keepRoot(have *generation, f *trustFetcher, up *updater.Updater) error {
	set := up.GetTrustedMetadataSet()
	root := f.roots[set.Root.Signed.Version]
	// A store that is being begun has nothing yet that an old key could speak for.
	if root == nil || have.name == "" {
		return nil
	}
	next := *have
	next.root = root
	return s.dir.keep(&next, true)
}

func (s *TrustStore) updater(g *generation, f *trustFetcher) (*updater.Updater, error) {
	cfg, err := config.New(s.endpoint.origin+"/tuf", g.root)
	if err != nil {
		return nil, err
	}
	cfg.Fetcher = f
	// go-tuf reads what is kept and writes nothing: what it would write changes file by
	// file, and with another mode than that of a file nobody else may change.
	cfg.DisableLocalCache = true
	cfg.LocalMetadataDir = s.dir.generation(g.name)
	cfg.MaxRootRotations, cfg.MaxDelegations = maxRoots, 0
	up, err := updater.New(cfg)
	if err != nil {
		return nil, err
	}
	up.UnsafeSetRefTime(s.cfg.Now())
	return up, nil
}

// verify checks everything that is in g, from its root up.
func (s *TrustStore) verify(g *generation) (*TrustState, error) {
	set, err := g.verify(s.cfg.Now())
	if err != nil {
		return nil, err
	}
	root, err := checkTrustedRoot(g.files[targetTrustedRoot], g.files[targetPEM])
	if err != nil {
		return nil, err
	}
	return &TrustState{TrustedRoot: *root, Keys: g.files[targetKeys], Roles: []TrustRole{
		{metadata.ROOT, set.Root.Signed.Version, set.Root.Signed.Expires},
		{metadata.TARGETS, set.Targets[metadata.TARGETS].Signed.Version, set.Targets[metadata.TARGETS].Signed.Expires},
		{metadata.SNAPSHOT, set.Snapshot.Signed.Version, set.Snapshot.Signed.Expires},
		{metadata.TIMESTAMP, set.Timestamp.Signed.Version, set.Timestamp.Signed.Expires},
	}}, nil
}
