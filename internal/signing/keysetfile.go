package signing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	keysetName    = "keyset.json"
	keysetVersion = 1
	// maxKeysetFile holds some thousand keys.
	maxKeysetFile = 4 << 20
)

// keysetFile is keyset.json. Times are RFC 3339 in UTC and whole seconds, bytes
// are base64, and unknown members are refused.
type keysetFile struct {
	Version int         `json:"version"`
	Host    string      `json:"host"`
	Keys    []keyRecord `json:"keys"`
}

type keyRecord struct {
	Role      Role      `json:"role"`
	KeyID     string    `json:"key_id"`
	PublicKey []byte    `json:"public_key"` // DER SubjectPublicKeyInfo
	State     State     `json:"state"`
	File      string    `json:"file,omitzero"` // beside keyset.json; active keys only
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	Chain     [][]byte  `json:"certificate_chain,omitempty"` // DER, leaf first; timestamp keys only
}

// readKeyset tells "nothing here yet" (KEY_MISSING with no cause besides) from "a
// directory that lost its keyset.json" by the directory's contents: only the
// first may be filled, and createKeyset checks that again.
func readKeyset(dir string) (*keysetFile, error) {
	path := filepath.Join(dir, keysetName)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal.New(CodeKeyMissing, "there is no keyset in %s", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read keyset: %w", err)
	}
	if info.Size() > maxKeysetFile {
		return nil, refusal.New(CodeKeysetInvalid, "%s has %d bytes, the limit is %d", path, info.Size(), maxKeysetFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read keyset: %w", err)
	}
	f, err := parseKeyset(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func parseKeyset(text []byte) (*keysetFile, error) {
	var f keysetFile
	if err := json.Unmarshal(text, &f, json.RejectUnknownMembers(true)); err != nil {
		return nil, refusal.New(CodeKeysetInvalid, "%w", err)
	}
	if f.Version != keysetVersion {
		return nil, refusal.New(CodeKeysetInvalid, "version %d is not known, this program reads version %d", f.Version, keysetVersion)
	}
	if err := CheckHost(f.Host); err != nil {
		return nil, err
	}
	if _, err := f.entries(); err != nil {
		return nil, err
	}
	return &f, nil
}

func (f *keysetFile) marshal() ([]byte, error) {
	text, err := json.Marshal(f, jsontext.WithIndent("  "), json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode keyset: %w", err)
	}
	return append(text, '\n'), nil
}

// entries checks each record and the set as a whole: no key twice, one active key
// per role.
func (f *keysetFile) entries() ([]KeyEntry, error) {
	active := map[Role]int{RoleAttestation: 0, RoleLog: 0, RoleTimestamp: 0}
	seen := map[string]bool{}
	entries := make([]KeyEntry, 0, len(f.Keys))
	for i := range f.Keys {
		e, err := f.Keys[i].entry()
		if err != nil {
			return nil, refusal.New(CodeKeysetInvalid, "%w", err).InField(fmt.Sprintf("keys[%d]", i))
		}
		if seen[e.KeyID] {
			return nil, refusal.New(CodeKeysetInvalid, "key %s is listed twice", e.KeyID)
		}
		seen[e.KeyID] = true
		if e.State == StateActive {
			active[e.Role]++
		}
		entries = append(entries, e)
	}
	for _, role := range []Role{RoleAttestation, RoleLog, RoleTimestamp} {
		if active[role] != 1 {
			return nil, refusal.New(CodeKeysetInvalid, "role %s has %d active keys, it needs exactly 1", role, active[role])
		}
	}
	return entries, nil
}

func (r *keyRecord) entry() (KeyEntry, error) {
	e := KeyEntry{Role: r.Role, KeyID: r.KeyID, State: r.State, NotBefore: r.NotBefore, NotAfter: r.NotAfter, spki: r.PublicKey}
	switch r.Role {
	case RoleAttestation, RoleLog, RoleTimestamp:
	default:
		return e, fmt.Errorf("role %q is unknown", r.Role)
	}
	pub, err := x509.ParsePKIXPublicKey(r.PublicKey)
	if err != nil {
		return e, fmt.Errorf("public_key: %w", err)
	}
	if ec, ok := pub.(*ecdsa.PublicKey); !ok || ec.Curve != elliptic.P256() {
		return e, errors.New("public_key is not ECDSA P-256")
	}
	if got := keyIDOf(r.PublicKey); got != r.KeyID {
		return e, fmt.Errorf("key_id is %q but public_key has id %s", r.KeyID, got)
	}
	e.Public = pub
	if err := r.checkValidity(); err != nil {
		return e, err
	}
	e.Chain, err = r.parseChain(pub.(*ecdsa.PublicKey))
	return e, err
}

func (r *keyRecord) checkValidity() error {
	if r.NotBefore.IsZero() || r.NotBefore.Nanosecond() != 0 || r.NotAfter.Nanosecond() != 0 {
		return errors.New("not_before is required, and times are whole seconds")
	}
	switch r.State {
	case StateActive:
		if r.File == "" || r.File != filepath.Base(r.File) || r.File == "." || r.File == ".." {
			return fmt.Errorf("an active key needs a file beside %s, not %q", keysetName, r.File)
		}
		if !r.NotAfter.IsZero() {
			return errors.New("an active key has no not_after")
		}
	case StateVerifyOnly, StateRevoked:
		if r.File != "" {
			return fmt.Errorf("a key that is %s names no file", r.State)
		}
		if r.NotAfter.Before(r.NotBefore) {
			return fmt.Errorf("a key that is %s needs a not_after at or after its not_before", r.State)
		}
	default:
		return fmt.Errorf("state %q is unknown", r.State)
	}
	return nil
}

func (r *keyRecord) parseChain(pub *ecdsa.PublicKey) ([]*x509.Certificate, error) {
	if r.Role != RoleTimestamp {
		if len(r.Chain) != 0 {
			return nil, fmt.Errorf("a key of role %s has no certificate_chain", r.Role)
		}
		return nil, nil
	}
	chain := make([]*x509.Certificate, 0, len(r.Chain))
	for i, der := range r.Chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate_chain[%d]: %w", i, err)
		}
		chain = append(chain, cert)
	}
	return chain, checkChain(chain, pub, r.NotBefore)
}

// createKeyset makes a keyset beside dir and renames it into place.
//
// A crash before the rename leaves nothing under dir and a stray directory with
// keys that never signed anything, removed by the next creation. The rename is
// the commit: from then on the whole keyset is there, for all files in it were
// synced before. Of two processes that create at once the second finds dir taken,
// and opens the keyset of the first.
func createKeyset(dir, host string, now time.Time) error {
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
	if err := writeNewKeyset(staging, host, now); err != nil {
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
	return syncDir(parent)
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

// writeNewKeyset generates the three keys and writes keyset.json.
func writeNewKeyset(dir, host string, now time.Time) error {
	start := now.UTC().Truncate(time.Second)
	file := keysetFile{Version: keysetVersion, Host: host}
	for _, k := range []struct {
		role Role
		name string
	}{{RoleAttestation, "attestation.pem"}, {RoleLog, "log.pem"}, {RoleTimestamp, "tsa.pem"}} {
		key, err := OpenFile(filepath.Join(dir, k.name), true)
		if err != nil {
			return err
		}
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return fmt.Errorf("encode public key: %w", err)
		}
		record := keyRecord{Role: k.role, KeyID: key.KeyID(), PublicKey: spki, State: StateActive, File: k.name, NotBefore: start}
		if k.role == RoleTimestamp {
			if record.Chain, err = newChain(host, key, start); err != nil {
				return err
			}
		}
		file.Keys = append(file.Keys, record)
	}
	text, err := file.marshal()
	if err != nil {
		return err
	}
	// Public, but 0600 like its neighbours: only the service writes here.
	if err := createDurable(filepath.Join(dir, keysetName), text, 0o600); err != nil {
		return fmt.Errorf("create keyset: %w", err)
	}
	return nil
}
