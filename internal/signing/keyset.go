package signing

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeKeysetInvalid refuses a keyset.json that is not well formed or contradicts itself.
	CodeKeysetInvalid refusal.Code = "KEYSET_INVALID"
	// CodeKeysetHostMismatch refuses a keyset made for another host.
	CodeKeysetHostMismatch refusal.Code = "KEYSET_HOST_MISMATCH"
	// CodeHostInvalid refuses a host name that verifiers could not match.
	CodeHostInvalid refusal.Code = "HOST_INVALID"
)

// Keyset is the identity of one instance as it was read. But for intermediates, which
// join it, it does not change while it is open; its methods may be used from many
// goroutines. Whoever holds one must not modify the entries.
type Keyset struct {
	// Host is the name under which verifiers know the log.
	Host string
	// Attestation, Log and Timestamp list the keys of each role, the active ones
	// first, then the next, then the others from newest to oldest.
	Attestation, Log, Timestamp []KeyEntry

	dir           string
	read          os.FileInfo // of keyset.json
	entries       map[Role][]KeyEntry
	signers       map[slot]Signer
	coSigner      MessageSigner
	timestamps    *TimestampAuthority
	intermediates *intermediates
}

// slot is what at most one key is active for.
type slot struct {
	role Role
	tier Tier
}

func (s slot) String() string {
	if s.tier == "" {
		return string(s.role)
	}
	return string(s.role) + "/" + string(s.tier)
}

// required says whether s must have an active key at all times.
func (s slot) required() bool {
	return s == slot{RoleAttestation, TierDefault} || s.role == RoleLog || s.role == RoleTimestamp
}

// Config says how to open a keyset.
type Config struct {
	// Host is the host name of the instance, without scheme, port or path: the
	// origin of its checkpoints and the host of the log in the trusted root.
	// Required to create; when the keyset exists it must be the same or empty.
	Host string
	// Now is the clock; timestamps tell its time. Required.
	Now func() time.Time
	// Create makes the keyset where the directory does not exist or is empty.
	Create bool
	// CA asks for a certificate authority, in certificate mode.
	CA CAConfig
	// Openers reach keys in AWS KMS and ML-DSA keys.
	Openers Openers
}

// CAConfig describes the certificate authority.
type CAConfig struct {
	// Organization is the one that certificates name. If it is set, Config.Create makes a
	// ca key of the default tier, in a file, where the keyset has never had one. Where one
	// was retired, or is next, that is left to its owner, and the keyset opens without.
	Organization string
}

// OpenKeyset opens the keyset in dir. With cfg.Create it is made first where
// nothing is there yet. A directory that holds something but no keyset.json is
// refused with KEY_MISSING, never filled up.
func OpenKeyset(ctx context.Context, dir string, cfg Config) (*Keyset, error) {
	if cfg.Now == nil {
		return nil, fmt.Errorf("signing: Config.Now is required")
	}
	if cfg.Host != "" || cfg.Create {
		if err := CheckHost(cfg.Host); err != nil {
			return nil, err
		}
	}
	file, err := readKeyset(dir)
	if refusal.CodeOf(err) == CodeKeyMissing && cfg.Create {
		if err := createKeyset(ctx, dir, cfg); err != nil {
			return nil, err
		}
		file, err = readKeyset(dir)
	}
	if err != nil {
		return nil, err
	}
	if err := file.checkHost(dir, cfg.Host); err != nil {
		return nil, err
	}
	if cfg.CA.Organization != "" && cfg.Create && !file.knows(slot{RoleCA, TierDefault}) {
		if file, err = addFirstCA(ctx, dir, cfg); err != nil {
			return nil, err
		}
	}
	return file.open(ctx, dir, cfg)
}

// Describe reads the keyset in dir without opening any key: its host and all its keys,
// in the order of roles and of Keyset.Attestation.
func Describe(dir string) (host string, entries []KeyEntry, err error) {
	file, err := readKeyset(dir)
	if err != nil {
		return "", nil, err
	}
	if entries, err = file.entries(); err != nil {
		return "", nil, err
	}
	slices.SortStableFunc(entries, func(a, b KeyEntry) int {
		return cmp.Or(cmp.Compare(slices.Index(Roles(), a.Role), slices.Index(Roles(), b.Role)), newestFirst(a, b))
	})
	return file.Host, entries, nil
}

func (f *keysetFile) checkHost(dir, host string) error {
	if host != "" && host != f.Host {
		return refusal.New(CodeKeysetHostMismatch, "the keyset in %s was made for host %q and the instance is now called %q; what it signed names the old host", dir, f.Host, host)
	}
	return nil
}

// addFirstCA gives an existing keyset its first ca key. Where another process was
// quicker, its key is the one.
func addFirstCA(ctx context.Context, dir string, cfg Config) (*keysetFile, error) {
	plan, err := Plan(ctx, dir, cfg, AddKey{Role: RoleCA})
	if err == nil {
		err = plan.Apply(ctx)
	}
	if err != nil && refusal.CodeOf(err) != CodeKeysetChanged {
		return nil, err
	}
	file, readErr := readKeyset(dir)
	if readErr != nil {
		return nil, readErr
	}
	if !file.knows(slot{RoleCA, TierDefault}) {
		return nil, err
	}
	return file, nil
}

// CheckHost accepts what sigstore clients can compare with the origin of a
// checkpoint: a lower-case host name, or an IP address without brackets; no port.
func CheckHost(host string) error {
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" && ip.String() == host {
		return nil
	}
	if host == "" || len(host) > 253 {
		return refusal.New(CodeHostInvalid, "a host name has 1 to 253 characters, this has %d", len(host))
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return refusal.New(CodeHostInvalid, "%q is not a lower-case host name without port", host)
		}
	}
	return nil
}

// open turns the file into a keyset: it opens the active keys and makes sure that
// they are those that the file names.
func (f *keysetFile) open(ctx context.Context, dir string, cfg Config) (*Keyset, error) {
	entries, err := f.entries()
	if err != nil {
		return nil, err
	}
	ks := &Keyset{Host: f.Host, dir: dir, read: f.info, entries: map[Role][]KeyEntry{}, signers: map[slot]Signer{}}
	for _, e := range entries {
		ks.entries[e.Role] = append(ks.entries[e.Role], e)
		if e.State != StateActive {
			continue
		}
		if e.Role == RoleCoSignature {
			if ks.coSigner, err = openMessageEntry(ctx, dir, cfg.Openers, e); err != nil {
				return nil, err
			}
			continue
		}
		signer, err := openEntry(ctx, dir, cfg.Openers, e)
		if err != nil {
			return nil, err
		}
		ks.signers[slot{e.Role, e.Tier}] = signer
		if e.Role == RoleTimestamp {
			if ks.timestamps, err = NewTimestampAuthority(signer, e.Chain, cfg.Now); err != nil {
				return nil, err
			}
		}
	}
	for _, list := range ks.entries {
		slices.SortStableFunc(list, newestFirst)
	}
	ks.Attestation, ks.Log, ks.Timestamp = ks.entries[RoleAttestation], ks.entries[RoleLog], ks.entries[RoleTimestamp]
	if ks.intermediates, err = readIntermediates(dir, ks.entries[RoleCA]); err != nil {
		return nil, err
	}
	return ks, nil
}

// openEntry opens the private half of e. A key in a file makes a trial signature; one
// elsewhere is not asked, since opening must not depend on a network.
func openEntry(ctx context.Context, dir string, openers Openers, e KeyEntry) (Signer, error) {
	if arn, ok := strings.CutPrefix(e.Ref, kmsScheme); ok {
		if openers.KMS == nil {
			return nil, refusal.New(CodeKeySchemeUnsupported, "%s key %s is in AWS KMS, which this program was not set up to reach", e.Role, e.KeyID)
		}
		signer, err := openers.KMS(arn, e.Public)
		if err != nil {
			return nil, fmt.Errorf("%s key: %w", e.Role, err)
		}
		return signer, matches(signer, e)
	}
	signer, err := OpenFile(e.path(dir), false)
	if err != nil {
		return nil, fmt.Errorf("%s key: %w", e.Role, err)
	}
	if err := matches(signer, e); err != nil {
		return nil, err
	}
	return signer, checkSigner(ctx, signer)
}

// openMessageEntry does the same for a key that signs messages.
func openMessageEntry(ctx context.Context, dir string, openers Openers, e KeyEntry) (MessageSigner, error) {
	arn, remote := strings.CutPrefix(e.Ref, kmsScheme)
	if remote && openers.KMSMessage == nil || !remote && openers.FileMessage == nil {
		return nil, refusal.New(CodeKeySchemeUnsupported, "this program was not set up to open %s key %s", e.Role, e.KeyID)
	}
	var signer MessageSigner
	var err error
	if remote {
		signer, err = openers.KMSMessage(arn, e.SPKI())
	} else {
		signer, err = openers.FileMessage(e.path(dir), false)
	}
	if err != nil {
		return nil, fmt.Errorf("%s key: %w", e.Role, err)
	}
	if err := matches(signer, e); err != nil || remote {
		return signer, err
	}
	return signer, checkMessageSigner(ctx, signer)
}

// matches makes sure that what was opened is the key that keyset.json names.
func matches(signer interface{ KeyID() string }, e KeyEntry) error {
	if signer.KeyID() != e.KeyID {
		return refusal.New(CodeKeyMismatch, "%s is key %s; keyset.json names key %s", e.Ref, signer.KeyID(), e.KeyID)
	}
	return nil
}

// path is the file of a key in a file.
func (e *KeyEntry) path(dir string) string {
	return filepath.Join(dir, strings.TrimPrefix(e.Ref, fileScheme))
}

// Signer returns the active key of a role and tier, or where the tier has none that of
// the default tier; nil where that has none either, as for a ca key in key mode.
func (k *Keyset) Signer(role Role, tier Tier) Signer {
	if s, ok := k.signers[slot{role, tier}]; ok {
		return s
	}
	return k.signers[slot{role, TierDefault}]
}

// KeyOf returns the record of the key that Signer or CoSigner returns; nil where there
// is none.
func (k *Keyset) KeyOf(role Role, tier Tier) *KeyEntry {
	list := k.entries[role]
	for _, want := range []Tier{tier, TierDefault} {
		for i := range list {
			if list[i].State == StateActive && list[i].Tier == want {
				return &list[i]
			}
		}
	}
	return nil
}

// CA returns the root certificate and the signer of the certificate authority of a
// tier, or of the default tier where the tier has none; ok is false where that has none
// either, and then nothing can be certified.
func (k *Keyset) CA(tier Tier) (root *x509.Certificate, s Signer, ok bool) {
	e := k.KeyOf(RoleCA, tier)
	if e == nil {
		return nil, nil, false
	}
	return e.Chain[0], k.signers[slot{RoleCA, e.Tier}], true
}

// CoSigner returns the key that signs envelopes a second time, nil if there is none.
func (k *Keyset) CoSigner() MessageSigner { return k.coSigner }

// Entries returns the keys of a role, in the order of Keyset.Attestation.
func (k *Keyset) Entries(role Role) []KeyEntry { return slices.Clone(k.entries[role]) }

// LogShard is the folder of one log: the active one, or one whose key has been retired.
type LogShard struct {
	Name string // of the folder, beside the keyset
	KeyEntry
	Active bool
}

// LogShards returns the logs that the instance has written, oldest first; the active
// one is the last.
func (k *Keyset) LogShards() []LogShard {
	var out []LogShard
	for _, e := range k.Log {
		if e.Shard != "" {
			out = append(out, LogShard{Name: e.Shard, KeyEntry: e, Active: e.State == StateActive})
		}
	}
	slices.SortFunc(out, func(a, b LogShard) int { return shardNumber(a.Name) - shardNumber(b.Name) })
	return out
}

// Stale says whether keyset.json is another file by now than the one that was opened.
// It costs one stat. Writers replace the file and never write into it, so that an
// equal inode, size and time of change mean equal content.
func (k *Keyset) Stale() (bool, error) {
	info, err := os.Stat(filepath.Join(k.dir, keysetName))
	if err != nil {
		return false, fmt.Errorf("look at keyset: %w", err)
	}
	return !os.SameFile(info, k.read) || !info.ModTime().Equal(k.read.ModTime()) || info.Size() != k.read.Size(), nil
}

// AttestationSigner returns the key that signs envelopes of the default tier.
func (k *Keyset) AttestationSigner() Signer { return k.Signer(RoleAttestation, TierDefault) }

// LogSigner returns the key that signs for the transparency log.
func (k *Keyset) LogSigner() Signer { return k.Signer(RoleLog, TierDefault) }

// TSA returns the authority that signs timestamps.
func (k *Keyset) TSA() *TimestampAuthority { return k.timestamps }
