package tufrepo

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Expiry is how long metadata of each role are good for. Zero is the default.
type Expiry struct {
	Root      time.Duration // 365 days
	Targets   time.Duration // 90 days
	Snapshot  time.Duration // 7 days
	Timestamp time.Duration // 1 day
}

func (e Expiry) orDefault() Expiry {
	const day = 24 * time.Hour
	for p, d := range map[*time.Duration]time.Duration{&e.Root: 365 * day, &e.Targets: 90 * day, &e.Snapshot: 7 * day, &e.Timestamp: day} {
		if *p <= 0 {
			*p = d
		}
	}
	return e
}

// Config says where the repository is.
type Config struct {
	// Dir is <data>/tuf.
	Dir string
	// Now is the clock; time.Now if nil.
	Now    func() time.Time
	Logger *slog.Logger
	// TargetsSigner is the key of the targets role. Without it the role is offline:
	// Publish refuses what has changed, and a command with the key publishes.
	TargetsSigner Signer
	Expiry        Expiry
}

func (c *Config) now() func() time.Time {
	if c.Now == nil {
		return time.Now
	}
	return c.Now
}

// Repository is an open repository. Its methods may be called at the same time.
type Repository struct {
	cfg  Config
	disk *disk
	// mu lets one change at a time be made by this process; the file lock does so among
	// processes.
	mu sync.Mutex
	// served is what Handler hands out: the last state that was whole.
	served atomic.Pointer[state]
}

// Open reads and verifies the repository, and finds the keys that Refresh needs.
func Open(cfg Config) (*Repository, error) {
	r := &Repository{cfg: cfg, disk: &disk{dir: cfg.Dir}}
	if r.cfg.Logger == nil {
		r.cfg.Logger = slog.New(slog.DiscardHandler)
	}
	// Nobody calls off a start, and the lock has a limit of its own.
	err := r.change(context.Background(), func(s *state) error {
		for _, role := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
			if _, err := r.disk.onlineSigner(s.root(), role); err != nil {
				return err // Now, rather than when half of a life is over.
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// change runs fn under the lock with the state on disk, and serves what is there
// afterwards.
func (r *Repository) change(ctx context.Context, fn func(*state) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	unlock, err := r.disk.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := r.disk.recover(r.served.Load())
	if err != nil {
		return err
	}
	if s.behind(r.served.Load()) {
		return refusal.New(CodeRepositoryInvalid, "the versions in %s went back, as if from a backup: clients would refuse them", r.cfg.Dir)
	}
	r.served.Store(s)
	if err := fn(s); err != nil {
		return err
	}
	if s, err = r.disk.load(s); err != nil {
		return err
	}
	r.served.Store(s)
	return nil
}

// Publish makes files the targets, if they are not already, and reports whether that
// is a new version. The targets are also signed anew when half of their life is over.
func (r *Repository) Publish(ctx context.Context, files map[string][]byte) (changed bool, err error) {
	return r.PublishFrom(ctx, func(context.Context) (map[string][]byte, error) { return files, nil })
}

// PublishFrom is Publish of what read returns. It is called while nobody else can change
// the repository, so that of two who publish the one who comes later has read later.
func (r *Repository) PublishFrom(ctx context.Context, read func(context.Context) (map[string][]byte, error)) (changed bool, err error) {
	err = r.change(ctx, func(s *state) error {
		files, err := read(ctx)
		if err != nil {
			return err
		}
		if err := checkFiles(files); err != nil {
			return err
		}
		w := r.writer(ctx, s)
		differ := !maps.EqualFunc(s.files, files, bytes.Equal)
		switch {
		case differ && r.cfg.TargetsSigner == nil:
			return refusal.New(CodeTargetsOffline, "the files have changed and the key of the targets role is elsewhere; run assayd tuf publish with --targets-key")
		case differ, r.cfg.TargetsSigner != nil && w.due(s.targets().Expires, w.expiry.Targets):
			changed = true
			return w.publish(r.cfg.TargetsSigner, files)
		}
		return w.refresh(s)
	})
	return changed && err == nil, err
}

// Refresh signs snapshot and timestamp anew when half of their life is over, and takes
// up what another process has changed. The service calls it every minute.
func (r *Repository) Refresh(ctx context.Context) error {
	return r.change(ctx, func(s *state) error { return r.writer(ctx, s).refresh(s) })
}

// Reload takes up what another process has changed, and signs nothing.
func (r *Repository) Reload(ctx context.Context) error {
	return r.change(ctx, func(*state) error { return nil })
}

func (r *Repository) writer(ctx context.Context, s *state) *writer {
	return &writer{disk: r.disk, ctx: ctx, now: r.cfg.now(), expiry: r.cfg.Expiry.orDefault(), root: s.trusted.Root, highest: s.highest,
		targets: s.trusted.Targets[metadata.TARGETS], snapshot: s.snap().Version, timestamp: s.stamp().Version}
}

// Root returns the root in force: what verifiers are given by hand.
func (r *Repository) Root() []byte { return r.served.Load().newestRoot() }

// Same reports whether files are what is published.
func (r *Repository) Same(files map[string][]byte) bool {
	return maps.EqualFunc(r.served.Load().files, files, bytes.Equal)
}

// File returns a target file as it is published, nil where there is none. The caller
// must not change it.
func (r *Repository) File(name string) []byte { return r.served.Load().files[name] }

// InitOptions begin a repository.
type InitOptions struct {
	// RootSigners are the owners of root keys who are present and sign.
	RootSigners []Signer
	// RootKeys are root keys of owners who are not.
	RootKeys      []crypto.PublicKey
	RootThreshold int // 1 if zero
	// Targets signs the first targets, and is the key of that role.
	Targets Signer
	Files   map[string][]byte
	Now     func() time.Time
	Expiry  Expiry
}

// Init begins a repository in dir, whole or not at all.
func Init(ctx context.Context, dir string, o InitOptions) error {
	return (&disk{}).init(ctx, dir, o)
}

func (d *disk) init(ctx context.Context, dir string, o InitOptions) error {
	if err := checkFiles(o.Files); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, versioned(1, metadata.ROOT))); err == nil {
		return refusal.New(CodeExists, "%s is a TUF repository already", dir)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".init-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	d.dir = tmp
	if err := d.begin(ctx, o); err != nil {
		return err
	}
	if _, err := d.load(nil); err != nil {
		return err
	}
	if err := d.crash(dir); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return refusal.New(CodeExists, "%s is there and not empty", dir)
		}
		return err
	}
	return syncDir(filepath.Dir(dir))
}
