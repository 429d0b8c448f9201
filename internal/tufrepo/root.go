package tufrepo

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// RootChange is what the next root says otherwise than the present one.
type RootChange struct {
	// Keys are all the root keys from now on, present or not; nil leaves them.
	Keys []crypto.PublicKey
	// Threshold is how many of them have to sign; 0 leaves it.
	Threshold int
	// Targets is the new key of the targets role; nil leaves it.
	Targets crypto.PublicKey
	// KeepOnline leaves the keys of snapshot and timestamp. By default a new root has
	// new ones: then clients forget the versions that the old ones have signed, which is
	// how they get over a thief's version 9223372036854775807.
	KeepOnline bool
	Now        func() time.Time
	Expiry     Expiry
}

// DraftRoot returns the root that would follow, without signatures. It makes the new
// online keys, and changes nothing that clients see. [AddRootSignature] and
// [InstallRoot] do the rest, on other machines and days if need be.
func DraftRoot(ctx context.Context, dir string, c RootChange) ([]byte, error) {
	d := &disk{dir: dir}
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := d.recover(nil)
	if err != nil {
		return nil, err
	}
	return d.draft(s.root(), c)
}

func (d *disk) draft(present *metadata.RootType, c RootChange) ([]byte, error) {
	m := metadata.Root(expiry(c.Now, c.Expiry.orDefault().Root))
	root := &m.Signed
	root.Version = present.Version + 1
	for role, r := range present.Roles {
		root.Roles[role].KeyIDs, root.Roles[role].Threshold = append([]string{}, r.KeyIDs...), r.Threshold
		for _, id := range r.KeyIDs {
			root.Keys[id] = present.Keys[id]
		}
	}
	roles := map[string][]crypto.PublicKey{metadata.ROOT: c.Keys}
	if c.Targets != nil {
		roles[metadata.TARGETS] = []crypto.PublicKey{c.Targets}
	}
	if !c.KeepOnline {
		for _, role := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
			key, err := d.onlineKey(role, root.Version)
			if err != nil {
				return nil, err
			}
			roles[role] = []crypto.PublicKey{key.Public()}
		}
	}
	if err := setRoles(root, roles); err != nil {
		return nil, err
	}
	if c.Threshold != 0 {
		root.Roles[metadata.ROOT].Threshold = c.Threshold
	}
	if err := checkRoot(root); err != nil {
		return nil, err
	}
	return m.ToBytes(true)
}

// setRoles gives roles new keys and drops the keys that no role has any more.
func setRoles(root *metadata.RootType, roles map[string][]crypto.PublicKey) error {
	for role, publics := range roles {
		if len(publics) == 0 {
			continue
		}
		root.Roles[role].KeyIDs = []string{}
		for _, public := range publics {
			key, _, err := keyOf(public)
			if err != nil {
				return err
			}
			if err := root.AddKey(key, role); err != nil {
				return refusal.New(CodeRootInvalid, "%w", err)
			}
		}
	}
	used := map[string]bool{}
	for _, r := range root.Roles {
		for _, id := range r.KeyIDs {
			used[id] = true
		}
	}
	for id := range root.Keys {
		if !used[id] {
			delete(root.Keys, id)
		}
	}
	return nil
}

// checkRoot holds a root to what this package makes, which is narrower than what
// clients take.
func checkRoot(root *metadata.RootType) error {
	if !root.ConsistentSnapshot || len(root.Roles) != 4 {
		return refusal.New(CodeRootInvalid, "a root has consistent_snapshot true and 4 roles, not %t and %d", root.ConsistentSnapshot, len(root.Roles))
	}
	for id, key := range root.Keys {
		if key == nil {
			return refusal.New(CodeRootInvalid, "key %.80q is null", id)
		}
		public, err := key.ToPublicKey()
		if err != nil {
			return refusal.New(CodeRootInvalid, "key %.80q: %w", id, err)
		}
		// One key under two ids would count as two signers.
		if _, want, err := keyOf(public); err != nil || want != id {
			return refusal.New(CodeRootInvalid, "key %.80q is not an ECDSA P-256 key under its own id", id)
		}
	}
	for _, name := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		role := root.Roles[name]
		if role == nil {
			return refusal.New(CodeRootInvalid, "role %s is missing", name)
		}
		distinct := map[string]bool{}
		for _, id := range role.KeyIDs {
			if root.Keys[id] == nil {
				return refusal.New(CodeRootInvalid, "role %s names key %.80q, which is not there", name, id)
			}
			distinct[id] = true
		}
		if role.Threshold < 1 || role.Threshold > len(distinct) {
			return refusal.New(CodeThreshold, "role %s has a threshold of %d and %d distinct keys", name, role.Threshold, len(distinct))
		}
	}
	return nil
}

// AddRootSignature signs a draft of DraftRoot. Each owner of a root key, of the present
// root and of the next, does that where the key is.
func AddRootSignature(ctx context.Context, draft []byte, s Signer) ([]byte, error) {
	m, err := parseRoot(draft)
	if err != nil {
		return nil, err
	}
	if err := sign(ctx, m, s); err != nil {
		return nil, err
	}
	return m.ToBytes(true)
}

// RootSummary says in a few words what a draft would put in force, for those who are
// asked to sign it.
func RootSummary(draft []byte) (RoleStatus, error) {
	m, err := parseRoot(draft)
	if err != nil {
		return RoleStatus{}, err
	}
	st := roleStatus(&m.Signed, metadata.ROOT, m.Signed.Version, m.Signed.Expires)
	for _, sig := range m.Signatures {
		st.Signatures = append(st.Signatures, sig.KeyID)
	}
	return st, nil
}

func parseRoot(data []byte) (*metadata.Metadata[metadata.RootType], error) {
	if len(data) > maxMetadata {
		return nil, refusal.New(CodeRootInvalid, "the root has more than %d bytes", maxMetadata)
	}
	if !json.Valid(data) {
		return nil, refusal.New(CodeRootInvalid, "the root is not JSON")
	}
	m, err := metadata.Root().FromBytes(data)
	if err != nil {
		return nil, refusal.New(CodeRootInvalid, "%w", err)
	}
	if err := checkRoot(&m.Signed); err != nil {
		return nil, err
	}
	return m, nil
}

// InstallRoot puts a signed draft in force, once enough owners of the present root's
// keys and of its own have signed it. Where it names another key for targets, that key
// signs them anew: cfg.TargetsSigner.
func InstallRoot(ctx context.Context, cfg Config, draft []byte) error {
	return (&disk{dir: cfg.Dir}).installRoot(ctx, cfg, draft)
}

func (d *disk) installRoot(ctx context.Context, cfg Config, draft []byte) error {
	m, err := parseRoot(draft)
	if err != nil {
		return err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := d.recover(nil)
	if err != nil {
		return err
	}
	if m.Signed.Version != s.root().Version+1 {
		return refusal.New(CodeRootInvalid, "the root has version %d; %d is in force, so %d is next", m.Signed.Version, s.root().Version, s.root().Version+1)
	}
	now := cfg.now()
	if m.Signed.IsExpired(now()) {
		return refusal.New(CodeRootInvalid, "the root expired at %s", m.Signed.Expires.Format(time.RFC3339))
	}
	if err := s.trusted.Root.VerifyDelegate(metadata.ROOT, m); err != nil {
		return refusal.New(CodeThreshold, "by the keys of root %d: %w", s.root().Version, err)
	}
	if err := m.VerifyDelegate(metadata.ROOT, m); err != nil {
		return refusal.New(CodeThreshold, "by the keys of root %d: %w", m.Signed.Version, err)
	}
	w := &writer{disk: d, ctx: ctx, now: now, expiry: cfg.Expiry.orDefault(), root: m, highest: s.highest,
		targets: s.trusted.Targets[metadata.TARGETS], snapshot: s.snap().Version, timestamp: s.stamp().Version}
	if m.VerifyDelegate(metadata.TARGETS, w.targets) != nil {
		if err := w.signTargets(cfg.TargetsSigner, s.targets().Targets); err != nil {
			return err
		}
	}
	if err := w.signSnapshot(); err != nil {
		return err
	}
	stamp, err := w.signTimestamp()
	if err != nil {
		return err
	}
	data, err := m.ToBytes(true)
	if err != nil {
		return err
	}
	if err := d.replace(nextName, stamp); err != nil {
		return err
	}
	// The commit point. From here on a crash is made good by recover.
	if err := d.create(versioned(m.Signed.Version, metadata.ROOT), data); err != nil {
		return err
	}
	if err := d.rename(nextName, timestampName); err != nil {
		return err
	}
	return d.pruneKeys(&m.Signed)
}

// RotateRoot is DraftRoot, AddRootSignature and InstallRoot at once, for who has all
// the keys at hand.
func RotateRoot(ctx context.Context, cfg Config, c RootChange, signers ...Signer) error {
	draft, err := DraftRoot(ctx, cfg.Dir, c)
	for i := 0; err == nil && i < len(signers); i++ {
		draft, err = AddRootSignature(ctx, draft, signers[i])
	}
	if err != nil {
		return err
	}
	return InstallRoot(ctx, cfg, draft)
}

// newestRoot returns the root in force, as it was signed.
func (s *state) newestRoot() []byte { return bytes.Clone(s.roots[len(s.roots)-1]) }

func expiry(now func() time.Time, life time.Duration) time.Time {
	if now == nil {
		now = time.Now
	}
	// The specification writes whole seconds.
	return now().UTC().Truncate(time.Second).Add(life)
}
