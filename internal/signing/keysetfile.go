package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing/mldsakey"
)

const (
	keysetName    = "keyset.json"
	keysetVersion = 2
	// maxKeysetFile holds some thousand keys.
	maxKeysetFile = 4 << 20

	fileScheme = "file:"
	kmsScheme  = "awskms:///"
	// maxRef is far above any key ARN.
	maxRef = 512
)

// keysetFile is keyset.json. Times are RFC 3339 in UTC and whole seconds, bytes
// are base64, and unknown members are refused. Version 1 is read too (see
// keysetFileV1); what is written is always of this version.
type keysetFile struct {
	Version int         `json:"version"`
	Host    string      `json:"host"`
	Keys    []keyRecord `json:"keys"`

	text []byte      // as it was read
	info os.FileInfo // of the file that it was read from
}

type keyRecord struct {
	Role      Role        `json:"role"`
	Tier      Tier        `json:"tier,omitzero"`
	KeyID     string      `json:"key_id"`
	PublicKey []byte      `json:"public_key"` // DER SubjectPublicKeyInfo
	State     State       `json:"state"`
	Ref       string      `json:"ref,omitzero"`   // file:NAME beside keyset.json, or awskms:///ARN
	Alias     string      `json:"alias,omitzero"` // awskms:///… that Ref was resolved from
	NotBefore time.Time   `json:"not_before"`
	NotAfter  time.Time   `json:"not_after,omitzero"`
	Revoked   *Revocation `json:"revoked,omitzero"`
	Chain     [][]byte    `json:"certificate_chain,omitempty"` // DER; timestamp: leaf first; ca: the root
	Shard     string      `json:"shard,omitzero"`              // log: folder of the log
}

// keysetFileV1 is keyset.json as the first versions of this program wrote it. They had
// three roles, keys in files only, and one log, in the folder log.
type keysetFileV1 struct {
	Version int    `json:"version"`
	Host    string `json:"host"`
	Keys    []struct {
		Role      Role      `json:"role"`
		KeyID     string    `json:"key_id"`
		PublicKey []byte    `json:"public_key"`
		State     State     `json:"state"`
		File      string    `json:"file,omitzero"` // active keys only
		NotBefore time.Time `json:"not_before"`
		NotAfter  time.Time `json:"not_after,omitzero"`
		Chain     [][]byte  `json:"certificate_chain,omitempty"`
	} `json:"keys"`
}

// upgrade returns v as version 2 would say it.
func (v *keysetFileV1) upgrade() (*keysetFile, error) {
	f := &keysetFile{Version: keysetVersion, Host: v.Host}
	for i, k := range v.Keys {
		r := keyRecord{Role: k.Role, KeyID: k.KeyID, PublicKey: k.PublicKey, State: k.State, NotBefore: k.NotBefore, NotAfter: k.NotAfter, Chain: k.Chain}
		field := fmt.Sprintf("keys[%d]", i)
		switch {
		case !slices.Contains([]Role{RoleAttestation, RoleLog, RoleTimestamp}, k.Role):
			return nil, refusal.New(CodeKeysetInvalid, "role %q is unknown to version 1", k.Role).InField(field)
		case k.State == StateActive:
			r.Ref = fileScheme + k.File
			if k.Role == RoleLog {
				r.Shard = firstShard
			}
		case k.State == StateNext:
			return nil, refusal.New(CodeKeysetInvalid, "state %q is unknown to version 1", k.State).InField(field)
		case k.File != "":
			return nil, refusal.New(CodeKeysetInvalid, "a key that is %s names no file", k.State).InField(field)
		case k.State == StateRevoked:
			// There was one reason: in other hands since not_after.
			r.Revoked = &Revocation{Since: k.NotAfter, Reason: ReasonKeyCompromise}
		}
		f.Keys = append(f.Keys, r)
	}
	return f, nil
}

// readKeyset tells "nothing here yet" (KEY_MISSING with no cause besides) from "a
// directory that lost its keyset.json" by the directory's contents: only the
// first may be filled, and createKeyset checks that again.
func readKeyset(dir string) (*keysetFile, error) {
	path := filepath.Join(dir, keysetName)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal.New(CodeKeyMissing, "there is no keyset in %s", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read keyset: %w", err)
	}
	defer file.Close()
	// Of the file that is read, not of one that has its name a moment later.
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read keyset: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeysetFile+1))
	if err != nil {
		return nil, fmt.Errorf("read keyset: %w", err)
	}
	if len(text) > maxKeysetFile {
		return nil, refusal.New(CodeKeysetInvalid, "%s has %d bytes, the limit is %d", path, info.Size(), maxKeysetFile)
	}
	f, err := parseKeyset(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.text, f.info = text, info
	return f, nil
}

func parseKeyset(text []byte) (*keysetFile, error) {
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return nil, refusal.New(CodeKeysetInvalid, "%w", err)
	}
	f := new(keysetFile)
	switch version.Version {
	case 1:
		var v1 keysetFileV1
		if err := json.Unmarshal(text, &v1, json.RejectUnknownMembers(true)); err != nil {
			return nil, refusal.New(CodeKeysetInvalid, "%w", err)
		}
		var err error
		if f, err = v1.upgrade(); err != nil {
			return nil, err
		}
	case keysetVersion:
		if err := json.Unmarshal(text, f, json.RejectUnknownMembers(true)); err != nil {
			return nil, refusal.New(CodeKeysetInvalid, "%w", err)
		}
	default:
		return nil, refusal.New(CodeKeysetInvalid, "version %d is not known, this program reads versions 1 and %d", version.Version, keysetVersion)
	}
	if err := CheckHost(f.Host); err != nil {
		return nil, err
	}
	if _, err := f.entries(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *keysetFile) marshal() ([]byte, error) {
	text, err := json.Marshal(f, jsontext.WithIndent("  "), json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode keyset: %w", err)
	}
	return append(text, '\n'), nil
}

// clone returns a copy whose records can be changed one by one.
func (f *keysetFile) clone() *keysetFile {
	c := *f
	c.Keys = slices.Clone(f.Keys)
	return &c
}

// has says whether s has an active key.
func (f *keysetFile) has(s slot) bool { return f.index(s, StateActive) >= 0 }

// knows says whether s has or had a key, in whatever state.
func (f *keysetFile) knows(s slot) bool {
	return slices.ContainsFunc(f.Keys, func(r keyRecord) bool { return r.slot() == s })
}

// index finds the key of s that is in a state; -1 if there is none.
func (f *keysetFile) index(s slot, state State) int {
	return slices.IndexFunc(f.Keys, func(r keyRecord) bool { return r.slot() == s && r.State == state })
}

func (r *keyRecord) slot() slot { return slot{r.Role, r.Tier} }

// entries checks each record and the set as a whole: no key twice, no file or folder
// of two keys, one active key where there must be one, and never two.
func (f *keysetFile) entries() ([]KeyEntry, error) {
	count := map[slot]map[State]int{}
	seen := map[string]bool{}
	entries := make([]KeyEntry, 0, len(f.Keys))
	for i := range f.Keys {
		e, err := f.Keys[i].entry()
		if err != nil {
			return nil, refusal.New(CodeKeysetInvalid, "%w", err).InField(fmt.Sprintf("keys[%d]", i))
		}
		s := slot{e.Role, e.Tier}
		for what, value := range map[string]string{"key ": e.KeyID, "ref ": e.Ref, "shard ": e.Shard} {
			if value != "" && seen[what+value] {
				return nil, refusal.New(CodeKeysetInvalid, "%s%s is listed twice", what, value)
			}
			seen[what+value] = true
		}
		if count[s] == nil {
			count[s] = map[State]int{}
		}
		count[s][e.State]++
		if (e.State == StateActive || e.State == StateNext) && count[s][e.State] > 1 {
			return nil, refusal.New(CodeKeysetInvalid, "role %s has 2 keys that are %s, it can have 1", s, e.State)
		}
		entries = append(entries, e)
	}
	for _, role := range []Role{RoleAttestation, RoleLog, RoleTimestamp} {
		if count[slot{role, TierDefault}][StateActive] != 1 {
			return nil, refusal.New(CodeKeysetInvalid, "role %s has no active key, it needs exactly 1", role)
		}
	}
	return entries, checkShards(entries)
}

func (r *keyRecord) entry() (KeyEntry, error) {
	e := KeyEntry{Role: r.Role, Tier: r.Tier, KeyID: r.KeyID, State: r.State, Ref: r.Ref, Alias: r.Alias,
		NotBefore: r.NotBefore, NotAfter: r.NotAfter, Revoked: r.Revoked, Shard: r.Shard, spki: r.PublicKey}
	if err := checkSlot(slot{r.Role, r.Tier}); err != nil {
		return e, err
	}
	var err error
	if e.Public, err = parsePublic(r.Role, r.PublicKey); err != nil {
		return e, fmt.Errorf("public_key: %w", err)
	}
	if got := keyIDOf(r.PublicKey); got != r.KeyID {
		return e, fmt.Errorf("key_id is %q but public_key has id %s", r.KeyID, got)
	}
	if err := r.checkValidity(); err != nil {
		return e, err
	}
	if err := r.checkRef(e.Public); err != nil {
		return e, err
	}
	e.Chain, err = r.parseChain(e.Public)
	return e, err
}

func checkSlot(s slot) error {
	if !slices.Contains(Roles(), s.role) {
		return fmt.Errorf("role %q is unknown", s.role)
	}
	if !slices.Contains(Tiers(), s.tier) {
		return fmt.Errorf("tier %q is unknown", s.tier)
	}
	if s.tier != "" && s.role != RoleAttestation && s.role != RoleCA {
		return fmt.Errorf("role %s has no tiers", s.role)
	}
	return nil
}

// ParsePublicKey reads a DER SubjectPublicKeyInfo of a key that a Signer can have, in the
// one encoding it has.
func ParsePublicKey(spki []byte) (crypto.PublicKey, error) {
	pub, err := parsePublic(RoleAttestation, spki)
	if err != nil {
		return nil, refusal.New(CodeKeyMismatch, "public key: %w", err)
	}
	return pub, nil
}

// parsePublic reads the public key of a role. What signs the time and the log is what
// every verifier knows, P-256.
func parsePublic(role Role, spki []byte) (crypto.PublicKey, error) {
	if role == RoleCoSignature {
		return mldsakey.ParseSPKI(spki)
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, err
	}
	if _, err := attest.SignatureHash(pub); err != nil {
		return nil, err
	}
	if role == RoleLog || role == RoleTimestamp {
		if ec, ok := pub.(*ecdsa.PublicKey); !ok || ec.Curve != elliptic.P256() {
			return nil, fmt.Errorf("a %s key is ECDSA P-256", role)
		}
	}
	// A key with two spellings would have two ids, and could come back under the second.
	if again, err := x509.MarshalPKIXPublicKey(pub); err != nil || !slices.Equal(again, spki) {
		return nil, errors.New("not in the one encoding it has")
	}
	return pub, nil
}

func (r *keyRecord) checkValidity() error {
	if r.NotBefore.IsZero() || r.NotBefore.Nanosecond() != 0 || r.NotAfter.Nanosecond() != 0 {
		return errors.New("not_before is required, and times are whole seconds")
	}
	if (r.State == StateRevoked) != (r.Revoked != nil) {
		return fmt.Errorf("a key that is %s and its member revoked contradict each other", r.State)
	}
	switch r.State {
	case StateActive, StateNext:
		if !r.NotAfter.IsZero() {
			return fmt.Errorf("a key that is %s has no not_after", r.State)
		}
	case StateVerifyOnly, StateRevoked:
		if r.NotAfter.Before(r.NotBefore) {
			return fmt.Errorf("a key that is %s needs a not_after at or after its not_before", r.State)
		}
	default:
		return fmt.Errorf("state %q is unknown", r.State)
	}
	if r.Revoked == nil {
		return nil
	}
	if !slices.Contains(Reasons(), r.Revoked.Reason) {
		return fmt.Errorf("revoked.reason %q is unknown", r.Revoked.Reason)
	}
	if r.Revoked.Since.IsZero() || r.Revoked.Since.Nanosecond() != 0 {
		return errors.New("revoked.since is required, in whole seconds")
	}
	if r.NotAfter.After(r.Revoked.Since) && !r.NotAfter.Equal(r.NotBefore) {
		return errors.New("not_after of a revoked key is at its revocation at the latest")
	}
	return nil
}

// checkRef makes sure that what still has to be opened can be, and by one way only.
func (r *keyRecord) checkRef(pub crypto.PublicKey) error {
	if len(r.Ref) > maxRef || len(r.Alias) > maxRef {
		return fmt.Errorf("ref and alias have %d and %d bytes, the limit is %d", len(r.Ref), len(r.Alias), maxRef)
	}
	if r.Ref == "" {
		if r.State == StateActive || r.State == StateNext || r.Alias != "" {
			return fmt.Errorf("a key that is %s needs a ref", r.State)
		}
		return nil
	}
	if name, ok := strings.CutPrefix(r.Ref, fileScheme); ok {
		// A dot begins the names of locks and of what is being written.
		if name == "" || name != filepath.Base(name) || name[0] == '.' || name == keysetName || name == intermediatesDir || !printable(name) {
			return fmt.Errorf("ref %q does not name a file beside %s", r.Ref, keysetName)
		}
		if ec, ok := pub.(*ecdsa.PublicKey); r.Role != RoleCoSignature && (!ok || ec.Curve != elliptic.P256()) {
			return errors.New("a key in a file is ECDSA P-256")
		}
		if r.Alias != "" {
			return errors.New("a key in a file has no alias")
		}
		return nil
	}
	if !strings.HasPrefix(r.Ref, kmsScheme+"arn:") || !printable(r.Ref) {
		return fmt.Errorf("ref %q is neither file:NAME nor awskms:///ARN", r.Ref)
	}
	if r.Alias != "" && (!strings.HasPrefix(r.Alias, kmsScheme) || !strings.Contains(r.Alias, "alias/") || !printable(r.Alias)) {
		return fmt.Errorf("alias %q is not awskms:///alias/NAME or the ARN of an alias", r.Alias)
	}
	return nil
}

// printable says whether s is ASCII without white space.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// parseChain reads the certificates of a record: a timestamp key has those that make
// verifiers accept it, a ca key its root, and no other key has any.
func (r *keyRecord) parseChain(pub crypto.PublicKey) ([]*x509.Certificate, error) {
	if r.Role != RoleTimestamp && r.Role != RoleCA {
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
	if r.Role == RoleCA {
		return chain, checkCARoot(chain, pub, r.NotBefore)
	}
	return chain, checkChain(chain, pub.(*ecdsa.PublicKey), r.NotBefore)
}

// Folders of logs: log, then log-2, log-3 and so on.
const firstShard = "log"

// shardNumber returns which log a folder is of, 0 if it is not named as one.
func shardNumber(name string) int {
	if name == firstShard {
		return 1
	}
	digits, ok := strings.CutPrefix(name, firstShard+"-")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 2 || n > 1<<30 || strconv.Itoa(n) != digits {
		return 0
	}
	return n
}

func shardName(n int) string {
	if n == 1 {
		return firstShard
	}
	return firstShard + "-" + strconv.Itoa(n)
}

// checkShards makes sure that the active log key, and none but log keys, has a folder,
// and that it is the newest.
func checkShards(entries []KeyEntry) error {
	active, newest := 0, 0
	for _, e := range entries {
		n := shardNumber(e.Shard)
		switch {
		case e.Role != RoleLog || e.State == StateNext:
			if e.Shard != "" {
				return refusal.New(CodeKeysetInvalid, "key %s of role %s that is %s has a shard", e.KeyID, e.Role, e.State)
			}
			continue
		case n == 0 && (e.Shard != "" || e.State == StateActive):
			return refusal.New(CodeKeysetInvalid, "shard %q of log key %s is not log, log-2, …", e.Shard, e.KeyID)
		case e.State == StateActive:
			active = n
		}
		newest = max(newest, n)
	}
	if active != newest {
		return refusal.New(CodeKeysetInvalid, "the active log key is of shard %s, and there is a shard %s", shardName(active), shardName(newest))
	}
	return nil
}
