package tlog

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeLogKeyUnsupported refuses a log key that is not ECDSA P-256.
	CodeLogKeyUnsupported refusal.Code = "LOG_KEY_UNSUPPORTED"
	// CodeLogHostInvalid refuses a log host that is not a bare lower-case host name.
	CodeLogHostInvalid refusal.Code = "LOG_HOST_INVALID"
)

// Signer is the log's private key.
//
// Sign returns an ASN.1 DER ECDSA signature over a SHA-256 digest. It must be
// safe for concurrent use, and does its own retries: an error is final for the
// operation that asked.
type Signer interface {
	Sign(ctx context.Context, digest []byte) ([]byte, error)
	Public() crypto.PublicKey
}

// Key is the public identity of a log: who it is and how its signatures are
// recognised. One host is one log, because verifiers find a log's origin from
// the host of its URL.
type Key struct {
	// Host is the origin of rekor-v2 checkpoints and the name on every signature.
	Host string
	// Public verifies checkpoints and SETs.
	Public *ecdsa.PublicKey
	// LogID is the SHA-256 of the key's SubjectPublicKeyInfo.
	LogID []byte
	// Hint is the start of LogID, as it stands in a signature line.
	Hint uint32
}

// A host name as it may stand in a URL without port: verifiers compare the
// origin with url.Hostname(), byte for byte.
var hostPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// NewKey returns the identity of the log at https://<host> with the given key.
// The key must be ECDSA P-256: sigstore-go and cosign cannot verify an Ed25519
// signature on a rekor-v1 checkpoint.
func NewKey(host string, public crypto.PublicKey) (*Key, error) {
	if len(host) > 253 || !hostPattern.MatchString(host) {
		return nil, refusal.New(CodeLogHostInvalid, "log host %q: want a lower-case host name without port or path", host)
	}
	pub, ok := public.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, refusal.New(CodeLogKeyUnsupported, "log key is %T: want ECDSA P-256", public)
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("tlog: encoding the log key: %w", err)
	}
	id := sha256.Sum256(spki)
	return &Key{Host: host, Public: pub, LogID: id[:], Hint: KeyHint(id[:])}, nil
}

// Origin returns the first line of the log's checkpoints.
func (k *Key) Origin(f EntryFormat) string {
	if f == RekorV1 {
		return RekorV1Origin(k.Host, k.LogID)
	}
	return k.Host
}

// BaseURL returns the log's URL as a Sigstore trusted root gives it.
func (k *Key) BaseURL() string { return "https://" + k.Host }

// KeyHint returns the four bytes of a log ID that stand in a signature line.
func KeyHint(logID []byte) uint32 { return binary.BigEndian.Uint32(logID) }

// RekorV1Origin returns "<host> - <tree number>". Rekor took the number from its
// database; ours is the first 63 bits of the log ID, so it follows from the key.
// Verifiers only look at the shape.
func RekorV1Origin(host string, logID []byte) string {
	return host + " - " + strconv.FormatUint(binary.BigEndian.Uint64(logID)>>1, 10)
}
