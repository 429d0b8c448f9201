package tufrepo

import (
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// writer makes the next versions of metadata, on top of those that it was made with.
type writer struct {
	disk   *disk
	ctx    context.Context
	now    func() time.Time
	expiry Expiry

	root      *metadata.Metadata[metadata.RootType]
	targets   *metadata.Metadata[metadata.TargetsType]
	snapshot  int64
	timestamp int64
	highest   map[string]int64
}

// next is a version that no file has. Those of a crash are passed over: a client or a
// proxy may have seen them.
func (w *writer) next(role string, present int64) int64 {
	return max(present, w.highest[role]) + 1
}

// due reports whether half of a life is over.
func (w *writer) due(expires time.Time, life time.Duration) bool {
	return expires.Sub(w.now()) < life/2
}

// publish makes files the targets.
func (w *writer) publish(signer Signer, files map[string][]byte) error {
	infos := targetFiles(files)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.disk.create(targetPath(name, infos[name]), files[name]); err != nil {
			return err
		}
	}
	if err := w.signTargets(signer, infos); err != nil {
		return err
	}
	if err := w.commit(); err != nil {
		return err
	}
	return w.prune()
}

// refresh signs anew what half of its life is over.
func (w *writer) refresh(s *state) error {
	switch {
	case w.due(s.snap().Expires, w.expiry.Snapshot):
		if err := w.commit(); err != nil {
			return err
		}
		return w.prune()
	case w.due(s.stamp().Expires, w.expiry.Timestamp):
		stamp, err := w.stampOf(s.stamp().Meta[metadata.SNAPSHOT+".json"])
		if err != nil {
			return err
		}
		return w.disk.replace(timestampName, stamp)
	}
	return nil
}

// commit makes the targets that w holds the newest. Replacing the timestamp is the
// commit point.
func (w *writer) commit() error {
	if err := w.signSnapshot(); err != nil {
		return err
	}
	stamp, err := w.signTimestamp()
	if err != nil {
		return err
	}
	return w.disk.replace(timestampName, stamp)
}

func (w *writer) signTargets(signer Signer, files map[string]*metadata.TargetFiles) error {
	if signer == nil {
		return refusal.New(CodeTargetsOffline, "the key of the targets role is needed: --targets-key")
	}
	version := w.next(metadata.TARGETS, w.targetsVersion())
	m := metadata.Targets(expiry(w.now, w.expiry.Targets))
	m.Signed.Version, m.Signed.Targets = version, files
	data, err := signFor(w, metadata.TARGETS, m, signer)
	if err != nil {
		return err
	}
	w.targets = m
	return w.disk.create(versioned(version, metadata.TARGETS), data)
}

func (w *writer) targetsVersion() int64 {
	if w.targets == nil {
		return 0
	}
	return w.targets.Signed.Version
}

func (w *writer) signSnapshot() error {
	signer, err := w.disk.onlineSigner(&w.root.Signed, metadata.SNAPSHOT)
	if err != nil {
		return err
	}
	targets, err := w.disk.read(versioned(w.targets.Signed.Version, metadata.TARGETS), maxMetadata)
	if err != nil {
		return fmt.Errorf("tuf repository: %w", err)
	}
	w.snapshot = w.next(metadata.SNAPSHOT, w.snapshot)
	m := metadata.Snapshot(expiry(w.now, w.expiry.Snapshot))
	m.Signed.Version = w.snapshot
	m.Signed.Meta[metadata.TARGETS+".json"] = metaFile(w.targets.Signed.Version, targets)
	data, err := signFor(w, metadata.SNAPSHOT, m, signer)
	if err != nil {
		return err
	}
	return w.disk.create(versioned(w.snapshot, metadata.SNAPSHOT), data)
}

func (w *writer) signTimestamp() ([]byte, error) {
	snapshot, err := w.disk.read(versioned(w.snapshot, metadata.SNAPSHOT), maxMetadata)
	if err != nil {
		return nil, fmt.Errorf("tuf repository: %w", err)
	}
	return w.stampOf(metaFile(w.snapshot, snapshot))
}

func (w *writer) stampOf(snapshot *metadata.MetaFiles) ([]byte, error) {
	signer, err := w.disk.onlineSigner(&w.root.Signed, metadata.TIMESTAMP)
	if err != nil {
		return nil, err
	}
	m := metadata.Timestamp(expiry(w.now, w.expiry.Timestamp))
	m.Signed.Version = w.timestamp + 1
	m.Signed.Meta[metadata.SNAPSHOT+".json"] = snapshot
	return signFor(w, metadata.TIMESTAMP, m, signer)
}

// signFor signs m and holds it against the root, as clients will: a key that the root
// does not name for the role must not get as far as a file.
func signFor[T metadata.Roles](w *writer, role string, m *metadata.Metadata[T], signer Signer) ([]byte, error) {
	_, id, err := keyOf(signer.Public())
	if err != nil {
		return nil, err
	}
	if !slices.Contains(w.root.Signed.Roles[role].KeyIDs, id) {
		return nil, refusal.New(CodeKeyMismatch, "key %.16s is not the %s key of root %d, which is %.16s",
			id, role, w.root.Signed.Version, w.root.Signed.Roles[role].KeyIDs[0])
	}
	if err := sign(w.ctx, m, signer); err != nil {
		return nil, err
	}
	if err := w.root.VerifyDelegate(role, m); err != nil {
		return nil, refusal.New(CodeThreshold, "the new %s metadata: %w", role, err)
	}
	return m.ToBytes(true)
}

// prune removes what clients in the middle of an update no longer need.
func (w *writer) prune() error {
	keep := map[string]bool{}
	entries, err := os.ReadDir(w.disk.dir)
	if err != nil {
		return fmt.Errorf("tuf repository: %w", err)
	}
	inForce := map[string]int64{metadata.SNAPSHOT: w.snapshot, metadata.TARGETS: w.targets.Signed.Version}
	for _, e := range entries {
		version, role, ok := parseVersioned(e.Name())
		if !ok || role == metadata.ROOT || version > inForce[role] {
			continue
		}
		if version < inForce[role]-keptVersions {
			if err := w.disk.remove(e.Name()); err != nil {
				return err
			}
			continue
		}
		if role == metadata.TARGETS {
			if err := w.disk.targetsOf(e.Name(), keep); err != nil {
				return err
			}
		}
	}
	files, err := os.ReadDir(w.disk.path("targets"))
	if err != nil {
		return fmt.Errorf("tuf repository: %w", err)
	}
	for _, f := range files {
		if name := "targets/" + f.Name(); !keep[name] {
			if err := w.disk.remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// targetsOf notes the paths of the files that targets metadata name.
func (d *disk) targetsOf(name string, keep map[string]bool) error {
	data, err := d.read(name, maxMetadata)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tuf repository: %w", err)
	}
	m, err := metadata.Targets().FromBytes(data)
	if err != nil {
		return refusal.New(CodeRepositoryInvalid, "%s: %w", name, err)
	}
	for name, info := range m.Signed.Targets {
		keep["targets/"+hex.EncodeToString(info.Hashes["sha256"])+"."+name] = true
	}
	return nil
}

// begin fills an empty directory.
func (d *disk) begin(ctx context.Context, o InitOptions) error {
	if o.Targets == nil {
		return refusal.New(CodeTargetsOffline, "the key of the targets role is needed to begin: --targets-key")
	}
	for _, sub := range []string{"keys", "targets"} {
		if err := os.Mkdir(d.path(sub), 0o700); err != nil {
			return fmt.Errorf("tuf repository: %w", err)
		}
	}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	life := o.Expiry.orDefault()
	m := metadata.Root(expiry(now, life.Root))
	roles := map[string][]crypto.PublicKey{metadata.ROOT: slices.Clone(o.RootKeys), metadata.TARGETS: {o.Targets.Public()}}
	for _, s := range o.RootSigners {
		roles[metadata.ROOT] = append(roles[metadata.ROOT], s.Public())
	}
	for _, role := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
		key, err := d.onlineKey(role, 1)
		if err != nil {
			return err
		}
		roles[role] = []crypto.PublicKey{key.Public()}
	}
	if err := setRoles(&m.Signed, roles); err != nil {
		return err
	}
	m.Signed.Roles[metadata.ROOT].Threshold = max(o.RootThreshold, 1)
	if err := checkRoot(&m.Signed); err != nil {
		return err
	}
	if err := sign(ctx, m, o.RootSigners...); err != nil {
		return err
	}
	if err := m.VerifyDelegate(metadata.ROOT, m); err != nil {
		return refusal.New(CodeThreshold, "the first root has to be signed by those present: %w", err)
	}
	root, err := m.ToBytes(true)
	if err != nil {
		return err
	}
	if err := d.create(versioned(1, metadata.ROOT), root); err != nil {
		return err
	}
	if err := d.replace(lockName, nil); err != nil {
		return err
	}
	w := &writer{disk: d, ctx: ctx, now: now, expiry: life, root: m, highest: map[string]int64{}}
	return w.publish(o.Targets, o.Files)
}
