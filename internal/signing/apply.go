package signing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/assay-build/assay/internal/durable"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeKeysetChanged refuses to apply a plan to a keyset that it was not made for.
	CodeKeysetChanged refusal.Code = "KEYSET_CHANGED"
	// CodeKeysetLocked refuses to wait longer for another program that changes the keyset.
	CodeKeysetLocked refusal.Code = "KEYSET_LOCKED"
	// CodeKeysetOwner refuses to write files that the service could not read.
	CodeKeysetOwner refusal.Code = "KEYSET_OWNER"
	// CodeServiceRunning refuses to change the log's key under a service that has the log open.
	CodeServiceRunning refusal.Code = "SERVICE_RUNNING"
)

const (
	lockName = ".lock"
	// keysetPatience is how long another writer is waited for: it may be having a key in
	// AWS KMS sign.
	keysetPatience = 10 * time.Second
	// logPatience outlasts what package posix explains of a lock that a child still holds.
	logPatience = time.Second
)

// Planned is a change that was worked out and not yet made.
type Planned struct {
	dir      string
	cfg      Config
	planner  *planner
	base     *keysetFile
	effects  []string
	finished *KeyEntry // the key that was added or promoted
}

// Plan works out a change of the keyset in dir: it reads, and where the change names a
// key in AWS KMS it asks which one that is. It writes nothing.
func Plan(ctx context.Context, dir string, cfg Config, change Change) (*Planned, error) {
	if cfg.Now == nil {
		return nil, fmt.Errorf("signing: Config.Now is required")
	}
	base, err := readKeyset(dir)
	if err != nil {
		return nil, err
	}
	if err := base.checkHost(dir, cfg.Host); err != nil {
		return nil, err
	}
	if err := base.checkOwner(dir); err != nil {
		return nil, err
	}
	p := &planner{ctx: ctx, dir: dir, cfg: cfg, now: wholeSecond(cfg.Now()), next: base.clone(), promoted: -1}
	p.next.Version = keysetVersion
	if err := change.plan(p); err != nil {
		return nil, err
	}
	if p.fresh != nil {
		if err := p.fresh.possible(p.next, cfg); err != nil {
			return nil, err
		}
	}
	return &Planned{dir: dir, cfg: cfg, planner: p, base: base, effects: effects(p, base)}, nil
}

// checkOwner refuses before anything is written, locks among it, what the service could
// not open afterwards.
func (f *keysetFile) checkOwner(dir string) error {
	stat, ok := f.info.Sys().(*syscall.Stat_t)
	if ok && int(stat.Uid) != os.Geteuid() {
		return refusal.New(CodeKeysetOwner, "the keyset in %s belongs to user %d, this program runs as %d; run it as the service does", dir, stat.Uid, os.Geteuid())
	}
	return nil
}

// Effects says in plain words what the change means to verifiers and to the service,
// one sentence each.
func (p *Planned) Effects() []string { return p.effects }

// LogFolder returns the folder, beside the keyset, of the log that must not be open
// while the change is made (see LockLog); empty where the change leaves the log alone.
func (p *Planned) LogFolder() string {
	s := slot{role: RoleLog}
	before, after := p.base.index(s, StateActive), p.planner.next.index(s, StateActive)
	if before == after {
		return ""
	}
	return p.base.Keys[before].Shard
}

// NewKey returns the key that Apply added or promoted, nil if there was none.
func (p *Planned) NewKey() *KeyEntry { return p.finished }

// Apply makes the change, whole or not at all, if the keyset is still the one that was
// planned on. It is done once.
//
//	lock ─ compare ─ [1] key file ─ [2] .keyset.json.new-… ─ [3] rename ─ [4] sync
//
// Each step leaves what a crash after it may leave, and that is either keyset:
//
//   - [1] A new key's file is durable, under a name that no keyset mentions. The key has
//     signed nothing but itself. It stays, because nothing but people should remove keys.
//   - [2] The new keyset is durable under a name that nobody reads. The next change
//     removes it.
//   - [3] is the commit. A crash before [4] may leave the old keyset or the new.
func (p *Planned) Apply(ctx context.Context) error {
	return p.apply(ctx, len(p.steps()))
}

// apply runs the first n steps.
func (p *Planned) apply(ctx context.Context, n int) error {
	lock, err := lockFile(ctx, filepath.Join(p.dir, lockName), keysetPatience)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return refusal.New(CodeKeysetLocked, "another program has been changing the keyset in %s for %s", p.dir, keysetPatience)
	}
	if err != nil {
		return fmt.Errorf("lock keyset: %w", err)
	}
	defer lock.Close()
	for _, step := range p.steps()[:n] {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// steps are what Apply does under the lock.
func (p *Planned) steps() []func(context.Context) error {
	var tmp string
	var text []byte
	return []func(context.Context) error{
		func(context.Context) error { return p.compare() },
		func(ctx context.Context) (err error) { // [1]
			text, err = p.complete(ctx)
			return err
		},
		func(ctx context.Context) (err error) { // [2]
			if err := ctx.Err(); err != nil {
				return err // the last moment to give up
			}
			tmp, err = durable.Stage(filepath.Join(p.dir, keysetName), text, 0o600)
			return err
		},
		func(context.Context) error { // [3]
			if err := os.Rename(tmp, filepath.Join(p.dir, keysetName)); err != nil {
				os.Remove(tmp)
				return fmt.Errorf("change keyset: %w", err)
			}
			return nil
		},
		func(context.Context) error { return durable.SyncDir(p.dir) }, // [4]
	}
}

// compare makes sure that nothing has changed since the plan was made, and removes what
// crashes of earlier writers have left half written.
func (p *Planned) compare() error {
	now, err := readKeyset(p.dir)
	if err != nil {
		return err
	}
	if !bytes.Equal(now.text, p.base.text) {
		return refusal.New(CodeKeysetChanged, "the keyset in %s is not the one that was planned on; plan again", p.dir)
	}
	strays, err := durable.Strays(p.dir)
	if err != nil {
		return fmt.Errorf("change keyset: %w", err)
	}
	for _, stray := range strays {
		if err := os.Remove(stray); err != nil {
			return fmt.Errorf("change keyset: %w", err)
		}
	}
	return nil
}

// complete makes the new key, or tries the one that is promoted, and returns the text
// of the new keyset. It is read back as whoever opens it will, so that no keyset is
// written that does not open.
func (p *Planned) complete(ctx context.Context) ([]byte, error) {
	f, at := p.planner.next, p.planner.promoted
	if fresh := p.planner.fresh; fresh != nil {
		at = p.planner.freshAt
		without := f.clone()
		without.Keys = without.Keys[:at]
		record, err := fresh.make(ctx, p.dir, without, p.cfg)
		if err != nil {
			return nil, err
		}
		f.Keys[at] = record
	}
	text, err := f.marshal()
	if err != nil {
		return nil, err
	}
	if len(text) > maxKeysetFile {
		return nil, refusal.New(CodeKeysetInvalid, "the keyset would have %d bytes, the limit is %d", len(text), maxKeysetFile)
	}
	again, err := parseKeyset(text)
	if err != nil {
		return nil, fmt.Errorf("the changed keyset: %w", err)
	}
	if at < 0 {
		return text, nil
	}
	e, err := again.Keys[at].entry()
	if err != nil {
		return nil, err
	}
	p.finished = &e
	if at == p.planner.promoted {
		return text, p.try(ctx, e)
	}
	return text, nil
}

// try opens a key that is promoted and has it sign.
func (p *Planned) try(ctx context.Context, e KeyEntry) error {
	if e.Role == RoleCoSignature {
		signer, err := openMessageEntry(ctx, p.dir, p.cfg.Openers, e)
		if err != nil || p.planner.untested {
			return err
		}
		return checkMessageSigner(ctx, signer)
	}
	signer, err := openEntry(ctx, p.dir, p.cfg.Openers, e)
	if err != nil || p.planner.untested {
		return err
	}
	return checkSigner(ctx, signer)
}

// LockLog takes the lock of the log in dir, as package posix does, so that no service
// has the log open until release is called. Where one has, it refuses with
// SERVICE_RUNNING; where there is no log yet, there is nothing to lock.
func LockLog(ctx context.Context, dir string) (release func(), err error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	lock, err := lockFile(ctx, filepath.Join(dir, "lock"), logPatience)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, refusal.New(CodeServiceRunning, "the log in %s is open: stop the service, change the key, start it again", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock log: %w", err)
	}
	return func() { lock.Close() }, nil
}

// lockFile opens path, making it if need be, and locks it. The lock is the open file's:
// it excludes others in this process too, and ends with the process.
func lockFile(ctx context.Context, path string, patience time.Duration) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			f.Close()
			return nil, err
		}
	}
}
