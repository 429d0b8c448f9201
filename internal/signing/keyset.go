package signing

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
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

// Role is what a key is for. No key has two.
type Role string

const (
	RoleAttestation Role = "attestation" // signs DSSE envelopes
	RoleLog         Role = "log"         // signs checkpoints and inclusion promises
	RoleTimestamp   Role = "timestamp"   // signs RFC 3161 timestamps
)

// State is what a key may still do.
type State string

const (
	// StateActive keys sign. Each role has exactly one.
	StateActive State = "active"
	// StateVerifyOnly keys no longer sign; what they signed up to NotAfter stands.
	StateVerifyOnly State = "verify-only"
	// StateRevoked keys are in other hands since NotAfter. An attestation key is
	// believed only for what provably was signed before. A log or timestamp key is
	// not believed at all: its thief can write any time he likes.
	StateRevoked State = "revoked"
)

// KeyEntry is what the world may know about one key.
type KeyEntry struct {
	Role   Role
	KeyID  string // lower-case hex SHA-256 of the DER SubjectPublicKeyInfo
	Public crypto.PublicKey
	State  State
	// NotBefore is when the key was made, in whole seconds. NotAfter is zero for an
	// active key and set for every other. Both ends belong to the validity.
	NotBefore, NotAfter time.Time
	// Chain is the certificate chain of a timestamp key, leaf first, root last.
	Chain []*x509.Certificate

	spki []byte
}

// Keyset is the identity of one instance. It does not change while it is open;
// its methods may be used from many goroutines. Whoever holds one must not modify
// the entries.
type Keyset struct {
	// Host is the name under which verifiers know the log.
	Host string
	// Attestation, Log and Timestamp list the keys of each role, the active one
	// first, then the others from newest to oldest.
	Attestation, Log, Timestamp []KeyEntry

	attestation, log Signer
	timestamps       *TimestampAuthority
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
		if err := createKeyset(dir, cfg.Host, cfg.Now()); err != nil {
			return nil, err
		}
		file, err = readKeyset(dir)
	}
	if err != nil {
		return nil, err
	}
	if cfg.Host != "" && cfg.Host != file.Host {
		return nil, refusal.New(CodeKeysetHostMismatch, "the keyset in %s was made for host %q and the instance is now called %q; what it signed names the old host", dir, file.Host, cfg.Host)
	}
	return file.open(ctx, dir, cfg.Now)
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

// open turns the file into a keyset: it opens the active key of each role and
// makes sure that it is the key the file names.
func (f *keysetFile) open(ctx context.Context, dir string, now func() time.Time) (*Keyset, error) {
	entries, err := f.entries()
	if err != nil {
		return nil, err
	}
	ks := &Keyset{Host: f.Host}
	for i, e := range entries {
		switch e.Role {
		case RoleAttestation:
			ks.Attestation = append(ks.Attestation, e)
		case RoleLog:
			ks.Log = append(ks.Log, e)
		case RoleTimestamp:
			ks.Timestamp = append(ks.Timestamp, e)
		}
		if e.State != StateActive {
			continue
		}
		signer, err := openEntry(ctx, dir, f.Keys[i].File, e)
		if err != nil {
			return nil, err
		}
		switch e.Role {
		case RoleAttestation:
			ks.attestation = signer
		case RoleLog:
			ks.log = signer
		case RoleTimestamp:
			if ks.timestamps, err = NewTimestampAuthority(signer, e.Chain, now); err != nil {
				return nil, err
			}
		}
	}
	for _, list := range [][]KeyEntry{ks.Attestation, ks.Log, ks.Timestamp} {
		slices.SortStableFunc(list, newestFirst)
	}
	return ks, nil
}

func openEntry(ctx context.Context, dir, file string, e KeyEntry) (Signer, error) {
	signer, err := OpenFile(filepath.Join(dir, file), false)
	if err != nil {
		return nil, fmt.Errorf("%s key: %w", e.Role, err)
	}
	if signer.KeyID() != e.KeyID {
		return nil, refusal.New(CodeKeyMismatch, "%s in %s is key %s; keyset.json names key %s", file, dir, signer.KeyID(), e.KeyID)
	}
	if err := checkSigner(ctx, signer); err != nil {
		return nil, err
	}
	return signer, nil
}

// newestFirst puts active keys before others, then later ones before earlier ones.
func newestFirst(a, b KeyEntry) int {
	if (a.State == StateActive) != (b.State == StateActive) {
		if a.State == StateActive {
			return -1
		}
		return 1
	}
	return cmp.Or(b.NotBefore.Compare(a.NotBefore), strings.Compare(a.KeyID, b.KeyID))
}

// AttestationSigner returns the key that signs envelopes.
func (k *Keyset) AttestationSigner() Signer { return k.attestation }

// LogSigner returns the key that signs for the transparency log.
func (k *Keyset) LogSigner() Signer { return k.log }

// TSA returns the authority that signs timestamps.
func (k *Keyset) TSA() *TimestampAuthority { return k.timestamps }

// PEM returns the public key as one PUBLIC KEY block.
func (e *KeyEntry) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: e.spki})
}

// AttestationKeysPEM returns the public keys of the attestation role that are not
// revoked, the active one first, for verifiers that take plain keys.
func (k *Keyset) AttestationKeysPEM() string {
	var b strings.Builder
	for _, e := range k.Attestation {
		if e.State == StateRevoked {
			continue
		}
		b.Write(e.PEM())
	}
	return b.String()
}
