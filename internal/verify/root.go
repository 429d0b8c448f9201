package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	sgroot "github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeTrustedRootInvalid refuses a trusted root that cannot be read whole.
	CodeTrustedRootInvalid refusal.Code = "TRUSTED_ROOT_INVALID"
	// CodeTrustedRootValidityMissing refuses a trusted root with a log key whose
	// validity has no start: a missing bound is not an open one.
	CodeTrustedRootValidityMissing refusal.Code = "TRUSTED_ROOT_VALIDITY_MISSING"
	// CodeKeyInvalid refuses a trusted public key that is not one PEM block with a usable key.
	CodeKeyInvalid refusal.Code = "KEY_INVALID"

	maxTrustedRootBytes = 4 << 20
	maxKeyPEMBytes      = 64 << 10
	maxRSAKeyBits       = 4096
)

// PublicKey is a signing key that is trusted by name, with the time in which its
// signatures count. Both ends of the window are inclusive; a zero end is open.
type PublicKey struct {
	PEM       []byte // one PUBLIC KEY block
	NotBefore time.Time
	NotAfter  time.Time
	// RevokedSince, unless zero, refuses signatures made at or after it.
	// Signatures made before stay good, because their time was witnessed.
	RevokedSince time.Time
}

// trustedKey is a PublicKey that was read. Its id is the lower-case hex SHA-256 of
// the SubjectPublicKeyInfo.
type trustedKey struct {
	PublicKey
	id       string
	keyid    string // see Fingerprint
	spki     []byte
	pem      []byte // of spki, as log entries hold it
	key      crypto.PublicKey
	ecdsa    *ecdsa.PublicKey // set if P-256, the only kind the lean path knows
	verifier signature.Verifier
}

// Root is all that a Verifier believes before it sees a bundle: logs, certificate
// and timestamp authorities, and named keys. It does not change after NewRoot.
type Root struct {
	sigstore *sgroot.TrustedRoot
	keys     map[string]*trustedKey // by id and by Fingerprint
	logs     map[string]*logKey     // by raw log id
	tsas     []*ownTSA
}

// logKey is what the lean path keeps of one transparency log.
type logKey struct {
	id    []byte
	idHex string
	host  string
	key   crypto.PublicKey
	ecdsa *ecdsa.PublicKey // set if P-256
	start time.Time
	end   time.Time
}

// NewRoot reads a Sigstore TrustedRoot document and the keys trusted beside it.
func NewRoot(trustedRootJSON []byte, keys ...PublicKey) (*Root, error) {
	if err := attest.CheckJSON(trustedRootJSON, maxTrustedRootBytes); err != nil {
		return nil, refusal.New(CodeTrustedRootInvalid, "%v", err)
	}
	pb, err := sgroot.NewTrustedRootProtobuf(trustedRootJSON)
	if err != nil {
		return nil, refusal.New(CodeTrustedRootInvalid, "%w", err)
	}
	for _, logs := range [][]*prototrustroot.TransparencyLogInstance{pb.GetTlogs(), pb.GetCtlogs()} {
		if err := checkLogInstances(logs); err != nil {
			return nil, err
		}
	}
	tr, err := sgroot.NewTrustedRootFromProtobuf(pb)
	if err != nil {
		return nil, refusal.New(CodeTrustedRootInvalid, "%w", err)
	}
	r := &Root{sigstore: tr, keys: make(map[string]*trustedKey, len(keys)), logs: make(map[string]*logKey)}
	for _, l := range tr.RekorLogs() {
		k, err := newLogKey(l)
		if err != nil {
			return nil, err
		}
		r.logs[string(k.id)] = k
	}
	for _, ta := range tr.TimestampingAuthorities() {
		if own := newOwnTSA(ta); own != nil {
			r.tsas = append(r.tsas, own)
		}
	}
	for _, pk := range keys {
		k, err := pk.parse()
		if err != nil {
			return nil, err
		}
		if _, dup := r.keys[k.id]; dup {
			return nil, refusal.New(CodeKeyInvalid, "key %s is listed twice", k.id)
		}
		r.keys[k.id], r.keys[k.keyid] = k, k
	}
	return r, nil
}

// checkLogInstances refuses what a lenient reader would take as "always valid" or
// silently overwrite: no start of validity, or two logs with one id.
func checkLogInstances(logs []*prototrustroot.TransparencyLogInstance) error {
	seen := make(map[string]bool, len(logs))
	for _, l := range logs {
		if l.GetPublicKey().GetValidFor().GetStart() == nil {
			return refusal.New(CodeTrustedRootValidityMissing, "log %s has no start of validity", l.GetBaseUrl())
		}
		id := string(l.GetLogId().GetKeyId())
		if seen[id] {
			return refusal.New(CodeTrustedRootInvalid, "log id %x is listed twice", id)
		}
		seen[id] = true
	}
	return nil
}

func newLogKey(l *sgroot.TransparencyLog) (*logKey, error) {
	k := &logKey{
		id: l.ID, idHex: hex.EncodeToString(l.ID),
		key:   l.PublicKey,
		start: l.ValidityPeriodStart, end: l.ValidityPeriodEnd,
	}
	k.ecdsa, _ = ecdsaP256(l.PublicKey)
	if l.BaseURL != "" {
		u, err := url.Parse(l.BaseURL)
		if err != nil {
			return nil, refusal.New(CodeTrustedRootInvalid, "log base URL: %w", err)
		}
		k.host = u.Hostname()
	}
	return k, nil
}

// validAt says whether the log's key may sign at t. Both ends are inclusive.
func (k *logKey) validAt(t time.Time) bool {
	return !t.Before(k.start) && (k.end.IsZero() || !t.After(k.end))
}

// fingerprint reads the PEM block without looking at the key inside, so that a
// bundle of another key can be told apart from a key that is no key at all.
func (p PublicKey) fingerprint() (id string, spki []byte, err error) {
	if len(p.PEM) > maxKeyPEMBytes {
		return "", nil, refusal.New(CodeKeyInvalid, "PEM of %d bytes, limit %d", len(p.PEM), maxKeyPEMBytes)
	}
	block, rest := pem.Decode(p.PEM)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) != 0 {
		return "", nil, refusal.New(CodeKeyInvalid, "want exactly one PUBLIC KEY block")
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:]), block.Bytes, nil
}

func (p PublicKey) parse() (*trustedKey, error) {
	id, spki, err := p.fingerprint()
	if err != nil {
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, refusal.New(CodeKeyInvalid, "key %s: %w", id, err)
	}
	if err := checkKeySize(pub); err != nil {
		return nil, err
	}
	v, err := signature.LoadDefaultVerifier(pub)
	if err != nil {
		return nil, refusal.New(CodeKeyInvalid, "key %s: %w", id, err)
	}
	keyid, err := Fingerprint(pub)
	if err != nil {
		return nil, refusal.New(CodeKeyInvalid, "key %s: %w", id, err)
	}
	k := &trustedKey{PublicKey: p, id: id, keyid: keyid, spki: spki, key: pub, verifier: v}
	k.pem = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	k.ecdsa, _ = ecdsaP256(pub)
	return k, nil
}

// Fingerprint is the one keyid, besides none, that a DSSE signature can carry and
// verify under sigstore-go: it skips a signature whose keyid is not the key's OpenSSH
// fingerprint, "SHA256:" and base64. So do cosign and all that build on it. SPEC
// (bundle): the key hint MUST be exactly the same in both places, so it is our hint too.
func Fingerprint(pub crypto.PublicKey) (string, error) { return dsse.SHA256KeyID(pub) }

const (
	// CodeKeyOutsideValidity refuses a signature made before or after its key's window.
	CodeKeyOutsideValidity refusal.Code = "KEY_OUTSIDE_VALIDITY"
	// CodeKeyRevoked refuses a signature made at or after its key's revocation.
	CodeKeyRevoked refusal.Code = "KEY_REVOKED"
)

// checkTime says whether a signature that existed at t may count.
func (k *trustedKey) checkTime(t time.Time) error {
	switch {
	case !k.RevokedSince.IsZero() && !t.Before(k.RevokedSince):
		return refusal.New(CodeKeyRevoked, "key %s is revoked since %s, signed %s", k.id, stamp(k.RevokedSince), stamp(t))
	case !k.NotBefore.IsZero() && t.Before(k.NotBefore):
		return refusal.New(CodeKeyOutsideValidity, "key %s is valid from %s, signed %s", k.id, stamp(k.NotBefore), stamp(t))
	case !k.NotAfter.IsZero() && t.After(k.NotAfter):
		return refusal.New(CodeKeyOutsideValidity, "key %s was valid to %s, signed %s", k.id, stamp(k.NotAfter), stamp(t))
	}
	return nil
}

// spkiFingerprint is used for keys that come as values, such as a log's.
func spkiFingerprint(pub crypto.PublicKey) ([32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(der), nil
}

func ecdsaP256(pub crypto.PublicKey) (*ecdsa.PublicKey, bool) {
	k, ok := pub.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, false
	}
	return k, true
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
