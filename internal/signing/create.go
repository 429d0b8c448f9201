package signing

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/durable"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing/mldsakey"
)

// createKeyset makes a keyset beside dir and renames it into place.
//
// A crash before the rename leaves nothing under dir and a stray directory with
// keys that never signed anything, removed by the next creation. The rename is
// the commit: from then on the whole keyset is there, for all files in it were
// synced before. Of two processes that create at once the second finds dir taken,
// and opens the keyset of the first.
func createKeyset(ctx context.Context, dir string, cfg Config) error {
	parent, prefix := filepath.Dir(dir), "."+filepath.Base(dir)+".new-"
	if err := checkFree(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return fmt.Errorf("create keyset: %w", err)
	}
	strays, err := filepath.Glob(filepath.Join(parent, prefix+"*"))
	if err != nil {
		return fmt.Errorf("create keyset: %w", err)
	}
	for _, stray := range strays {
		if err := os.RemoveAll(stray); err != nil {
			return fmt.Errorf("create keyset: %w", err)
		}
	}
	staging, err := os.MkdirTemp(parent, prefix+"*") // mode 0700
	if err != nil {
		return fmt.Errorf("create keyset: %w", err)
	}
	defer os.RemoveAll(staging) // finds nothing after the rename
	if err := writeNewKeyset(ctx, staging, cfg); err != nil {
		return err
	}
	// An empty directory made by the operator gives way; Remove fails on any other.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create keyset: %w", err)
	}
	if err := os.Rename(staging, dir); err != nil {
		if _, statErr := os.Stat(filepath.Join(dir, keysetName)); statErr == nil {
			return nil // another process was first
		}
		return fmt.Errorf("create keyset: %w", err)
	}
	return durable.SyncDir(parent)
}

// checkFree refuses to create where anything is: what is left of a keyset may be
// all that remains of an identity, and is for people to look at.
func checkFree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create keyset: %w", err)
	}
	return refusal.New(CodeKeyMissing, "%s holds %s but no %s; restore it, a new keyset would be a new identity", dir, entries[0].Name(), keysetName)
}

// writeNewKeyset generates the keys and writes keyset.json.
func writeNewKeyset(ctx context.Context, dir string, cfg Config) error {
	file := &keysetFile{Version: keysetVersion, Host: cfg.Host}
	roles := []Role{RoleAttestation, RoleLog, RoleTimestamp}
	if cfg.CA.Organization != "" {
		roles = append(roles, RoleCA)
	}
	for _, role := range roles {
		n := newKey{slot: slot{role: role}, state: StateActive, start: wholeSecond(cfg.Now())}
		if err := n.possible(file, cfg); err != nil {
			return err
		}
		record, err := n.make(ctx, dir, file, cfg)
		if err != nil {
			return err
		}
		file.Keys = append(file.Keys, record)
	}
	text, err := file.marshal()
	if err != nil {
		return err
	}
	// Public, but 0600 like its neighbours: only the service writes here.
	if err := durable.Create(filepath.Join(dir, keysetName), text, 0o600); err != nil {
		return fmt.Errorf("create keyset: %w", err)
	}
	return nil
}

func wholeSecond(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// newKey describes a key that joins a keyset: one to be generated in a file, or one
// that was found elsewhere.
type newKey struct {
	slot
	state    State
	start    time.Time
	found    *Resolved // nil: generate
	untested bool      // no trial signature by a key that was found
}

// possible finds out before anything is written what make would refuse for want of
// means.
func (n newKey) possible(f *keysetFile, cfg Config) error {
	switch {
	case n.role == RoleCoSignature && n.found == nil && cfg.Openers.FileMessage == nil,
		n.role == RoleCoSignature && n.found != nil && cfg.Openers.KMSMessage == nil,
		n.role != RoleCoSignature && n.found != nil && cfg.Openers.KMS == nil,
		n.role == RoleCA && cfg.Openers.NewCARoot == nil:
		return refusal.New(CodeKeySchemeUnsupported, "this program was not set up for %s keys of this kind", n.role)
	case n.role == RoleCA && organization(f, cfg) == "":
		return refusal.New(CodeKeyChangeInvalid, "a certificate authority names an organization; say which")
	}
	return nil
}

// make makes or opens the key and returns its record. A file that it makes is durable;
// a crash after that leaves a key that never signed anything, under a name that no
// keyset mentions.
func (n newKey) make(ctx context.Context, dir string, f *keysetFile, cfg Config) (keyRecord, error) {
	r := keyRecord{Role: n.role, Tier: n.tier, State: n.state, NotBefore: n.start}
	var signer Signer
	var err error
	if n.role == RoleCoSignature {
		err = n.makeMessageKey(ctx, dir, f, cfg.Openers, &r)
	} else {
		signer, err = n.makeKey(ctx, dir, f, cfg.Openers, &r)
	}
	if err != nil {
		return r, err
	}
	if r.Role == RoleLog && r.State == StateActive {
		r.Shard = f.nextShard()
	}
	switch r.Role {
	case RoleTimestamp:
		r.Chain, err = newChain(f.Host, signer.Public(), n.start)
	case RoleCA:
		r.Chain, err = newCARoot(ctx, f, cfg, signer, n.start)
	}
	if err != nil {
		return r, err
	}
	if _, err := r.entry(); err != nil {
		return r, refusal.New(CodeKeysetInvalid, "the new %s key: %w", n.slot, err)
	}
	return r, nil
}

func (n newKey) makeKey(ctx context.Context, dir string, f *keysetFile, openers Openers, r *keyRecord) (Signer, error) {
	if n.found == nil {
		name, err := f.freeName(dir, n.slot)
		if err != nil {
			return nil, err
		}
		key, err := OpenFile(filepath.Join(dir, name), true)
		if err != nil {
			return nil, err
		}
		if r.PublicKey, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
			return nil, fmt.Errorf("encode public key: %w", err)
		}
		r.KeyID, r.Ref = key.KeyID(), fileScheme+name
		return key, nil
	}
	e, err := n.found.entry(n.slot)
	if err != nil {
		return nil, err
	}
	r.KeyID, r.PublicKey, r.Ref, r.Alias = e.KeyID, n.found.SPKI, e.Ref, e.Alias
	signer, err := openEntry(ctx, dir, openers, e)
	if err != nil || n.untested {
		return signer, err
	}
	return signer, checkSigner(ctx, signer)
}

func (n newKey) makeMessageKey(ctx context.Context, dir string, f *keysetFile, openers Openers, r *keyRecord) error {
	if n.found == nil {
		name, err := f.freeName(dir, n.slot)
		if err != nil {
			return err
		}
		key, err := openers.FileMessage(filepath.Join(dir, name), true)
		if err != nil {
			return err
		}
		if r.PublicKey, err = mldsakey.SPKI(key.PublicKey()); err != nil {
			return err
		}
		r.KeyID, r.Ref = key.KeyID(), fileScheme+name
		return checkMessageSigner(ctx, key)
	}
	e, err := n.found.entry(n.slot)
	if err != nil {
		return err
	}
	r.KeyID, r.PublicKey, r.Ref, r.Alias = e.KeyID, n.found.SPKI, e.Ref, e.Alias
	signer, err := openMessageEntry(ctx, dir, openers, e)
	if err != nil || n.untested {
		return err
	}
	return checkMessageSigner(ctx, signer)
}

// entry is the record of a key that was found, as far as it is known.
func (r *Resolved) entry(s slot) (KeyEntry, error) {
	e := KeyEntry{Role: s.role, Tier: s.tier, KeyID: keyIDOf(r.SPKI), Ref: kmsScheme + r.ARN, Alias: r.Alias, spki: r.SPKI}
	var err error
	if e.Public, err = parsePublic(s.role, r.SPKI); err != nil {
		return e, refusal.New(CodeKeyChangeInvalid, "key %s cannot be a %s key: %w", r.ARN, s.role, err)
	}
	return e, nil
}

// newCARoot has a ca key sign its root certificate.
func newCARoot(ctx context.Context, f *keysetFile, cfg Config, signer Signer, start time.Time) ([][]byte, error) {
	root, err := cfg.Openers.NewCARoot(ctx, signer, organization(f, cfg), f.Host, start)
	if err != nil {
		return nil, fmt.Errorf("root certificate: %w", err)
	}
	return [][]byte{root}, nil
}

// organization is the one that a certificate authority names: that of the
// configuration, or else that of the newest ca key; empty if neither says.
func organization(f *keysetFile, cfg Config) string {
	if cfg.CA.Organization != "" {
		return cfg.CA.Organization
	}
	for i := len(f.Keys) - 1; i >= 0; i-- {
		if e, err := f.Keys[i].entry(); err == nil && e.Role == RoleCA {
			return e.Chain[0].Subject.Organization[0]
		}
	}
	return ""
}

// freeName returns a name for the file of a new key that neither the keyset nor the
// directory has: attestation.pem, attestation-2.pem, attestation-build.pem, …
func (f *keysetFile) freeName(dir string, s slot) (string, error) {
	base := string(s.role)
	switch s.role {
	case RoleTimestamp:
		base = "tsa"
	case RoleCoSignature:
		base = "cosignature"
	}
	if s.tier != "" {
		base += "-" + string(s.tier)
	}
	for n := 1; ; n++ {
		name := base
		if n > 1 {
			name += "-" + strconv.Itoa(n)
		}
		name += ".pem"
		if slices.ContainsFunc(f.Keys, func(r keyRecord) bool { return r.Ref == fileScheme+name }) {
			continue
		}
		_, err := os.Lstat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", fmt.Errorf("new key: %w", err)
		}
	}
}

// nextShard is the folder of the log that a new log key begins.
func (f *keysetFile) nextShard() string {
	newest := 0
	for _, r := range f.Keys {
		newest = max(newest, shardNumber(r.Shard))
	}
	return shardName(newest + 1)
}

// isKMS says whether ref is one to AWS KMS.
func isKMS(ref string) bool { return strings.HasPrefix(ref, kmsScheme) }
