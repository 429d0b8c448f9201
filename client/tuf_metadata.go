package client

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/json"
	"strings"

	"github.com/assay-build/assay/internal/attest"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

const (
	// maxRoots is how many roots a client that was away for long may have missed.
	maxRoots = 256
	// maxTUFMetadata bounds one metadata file, maxTUFTarget a target: as much as a trusted
	// root may have for internal/verify. No more of a target is read than was signed.
	maxTUFMetadata = 512_000
	maxTUFTarget   = 64 << 20
)

// checkMetadata refuses, before go-tuf reads them, metadata that it would read in more
// ways than one or trip over: names twice or in two spellings, null where it expects an
// object, keys of other kinds than an Assay server has. Signatures are not its business.
func checkMetadata(role string, data []byte) error {
	code := CodeTUFMetadataInvalid
	if role == metadata.ROOT {
		code = CodeTUFRootInvalid
	}
	if err := attest.CheckJSON(data, maxTUFMetadata); err != nil {
		return untrusted(code, "%s: %w", role, err)
	}
	var doc struct {
		Signed *struct {
			Type        string                `json:"_type"`
			SpecVersion string                `json:"spec_version"`
			Version     int64                 `json:"version"`
			Meta        map[string]*metaEntry `json:"meta"`
			Targets     map[string]*struct {
				Hashes map[string]string `json:"hashes"`
			} `json:"targets"`
			Delegations json.RawMessage `json:"delegations"`
		} `json:"signed"`
		Signatures []*struct {
			KeyID string `json:"keyid"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(data, &doc); err != nil || doc.Signed == nil {
		return untrusted(code, "%s: not metadata of The Update Framework", role)
	}
	s := doc.Signed
	if s.Type != role || !strings.HasPrefix(s.SpecVersion, "1.") || s.Version < 1 {
		return untrusted(code, "%s: type %.40q, specification %.40q, version %d", role, s.Type, s.SpecVersion, s.Version)
	}
	if len(s.Delegations) > 0 {
		return untrusted(code, "%s: a server delegates to nobody", role)
	}
	for name, entry := range s.Meta {
		if entry == nil || entry.Version < 1 {
			return untrusted(code, "%s: no version of %.100q", role, name)
		}
	}
	for name, target := range s.Targets {
		if target == nil || target.Hashes["sha256"] == "" || len(target.Hashes) != 1 {
			return untrusted(code, "%s: %.100q has not exactly one hash, by SHA-256", role, name)
		}
	}
	need := map[string]string{metadata.TIMESTAMP: "snapshot.json", metadata.SNAPSHOT: "targets.json"}[role]
	if need != "" && s.Meta[need] == nil {
		return untrusted(code, "%s: names no %s", role, need)
	}
	signers := map[string]bool{}
	for _, sig := range doc.Signatures {
		if sig == nil || signers[sig.KeyID] {
			return untrusted(CodeTUFSignatureInvalid, "%s: two signatures under one key id", role)
		}
		signers[sig.KeyID] = true
	}
	if role == metadata.ROOT {
		return checkRoot(data)
	}
	return nil
}

type metaEntry struct {
	Version int64 `json:"version"`
}

// checkRoot holds the keys of a root to ECDSA P-256, and its thresholds to numbers
// that different keys can meet.
func checkRoot(data []byte) error {
	m, err := metadata.Root().FromBytes(data)
	if err != nil {
		return untrusted(CodeTUFRootInvalid, "root: %w", err)
	}
	root := &m.Signed
	if !root.ConsistentSnapshot {
		return untrusted(CodeTUFRootInvalid, "root: consistent_snapshot is not true")
	}
	points := map[string]string{}
	for id, key := range root.Keys {
		if key == nil || (key.Type != metadata.KeyTypeECDSA_SHA2_P256 && key.Type != metadata.KeyTypeECDSA_SHA2_P256_COMPAT) || key.Scheme != metadata.KeySchemeECDSA_SHA2_P256 {
			return untrusted(CodeTUFRootInvalid, "root: key %.80q is no ECDSA P-256 key", id)
		}
		public, err := key.ToPublicKey()
		ec, ok := public.(*ecdsa.PublicKey)
		if err != nil || !ok || ec.Curve != elliptic.P256() {
			return untrusted(CodeTUFRootInvalid, "root: key %.80q is no ECDSA P-256 key", id)
		}
		raw, err := ec.Bytes()
		if err != nil {
			return untrusted(CodeTUFRootInvalid, "root: key %.80q: %w", id, err)
		}
		points[id] = string(raw)
	}
	for _, name := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		role := root.Roles[name]
		if role == nil {
			return untrusted(CodeTUFRootInvalid, "root: there is no role %s", name)
		}
		different := map[string]bool{}
		for _, id := range role.KeyIDs {
			if points[id] == "" {
				return untrusted(CodeTUFRootInvalid, "root: role %s names key %.80q, which is not there", name, id)
			}
			different[points[id]] = true
		}
		// One key under two ids is one key.
		if role.Threshold < 1 || role.Threshold > len(different) {
			return untrusted(CodeTUFThreshold, "root: role %s has a threshold of %d and %d different keys", name, role.Threshold, len(different))
		}
	}
	return nil
}

// thresholdOf is how many keys have to sign for a role.
func thresholdOf(root []byte, role string) int {
	m, err := metadata.Root().FromBytes(root)
	if err != nil || m.Signed.Roles[role] == nil {
		return 1
	}
	return m.Signed.Roles[role].Threshold
}

// checkTrustedRoot is what GetTrustedRoot checks of an answer.
func checkTrustedRoot(document, keys []byte) (*TrustedRoot, error) {
	var root struct {
		MediaType string `json:"mediaType"`
	}
	err := attest.CheckJSON(document, maxTUFTarget)
	if err == nil {
		err = json.Unmarshal(document, &root)
	}
	if err != nil || !strings.HasPrefix(root.MediaType, trustedRootMediaType) {
		return nil, untrusted(CodeTUFTargetMismatch, "%s is no Sigstore trusted root", targetTrustedRoot)
	}
	pem, err := publicKeys(bytes.Clone(keys))
	if err != nil {
		return nil, untrusted(CodeTUFTargetMismatch, "%s: %w", targetPEM, err)
	}
	return &TrustedRoot{JSON: document, AttestationKeysPEM: pem}, nil
}
