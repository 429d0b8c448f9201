package tufrepo

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Signer is a P-256 key that signs SHA-256 digests: a file key, or one in KMS.
type Signer interface {
	// Sign returns an ASN.1 DER signature of a SHA-256 digest.
	Sign(ctx context.Context, digest []byte) ([]byte, error)
	Public() crypto.PublicKey
}

// keyOf is a public key as metadata name it, with its id.
func keyOf(public crypto.PublicKey) (*metadata.Key, string, error) {
	ec, ok := public.(*ecdsa.PublicKey)
	if !ok || ec == nil || ec.Curve != elliptic.P256() {
		return nil, "", refusal.New(CodeKeyUnsupported, "keys of the TUF repository are ECDSA P-256, this is %T", public)
	}
	key, err := metadata.KeyFromPublicKey(ec)
	if err != nil {
		return nil, "", refusal.New(CodeKeyUnsupported, "%w", err)
	}
	id, err := key.ID()
	if err != nil {
		return nil, "", refusal.New(CodeKeyUnsupported, "%w", err)
	}
	return key, id, nil
}

// sign signs m with each signer in place of the signatures that these made before.
func sign[T metadata.Roles](ctx context.Context, m *metadata.Metadata[T], signers ...Signer) error {
	for _, s := range signers {
		_, id, err := keyOf(s.Public())
		if err != nil {
			return err
		}
		m.Signatures = slices.DeleteFunc(m.Signatures, func(sig metadata.Signature) bool { return sig.KeyID == id })
		a := &adapter{ctx: ctx, signer: s}
		if _, err := m.Sign(a); err != nil {
			if a.err != nil {
				err = a.err // Metadata.Sign drops it, and with it the code.
			}
			return fmt.Errorf("sign with TUF key %.16s: %w", id, err)
		}
	}
	return nil
}

// adapter makes a Signer what go-tuf signs with. It lives for one signature.
type adapter struct {
	ctx    context.Context
	signer Signer
	err    error
}

var _ signature.Signer = (*adapter)(nil)

func (a *adapter) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return a.signer.Public(), nil
}

func (a *adapter) SignMessage(message io.Reader, _ ...signature.SignOption) ([]byte, error) {
	h := sha256.New()
	if _, err := io.Copy(h, message); err != nil {
		return nil, err
	}
	var sig []byte
	sig, a.err = a.signer.Sign(a.ctx, h.Sum(nil))
	return sig, a.err
}

// onlineKey opens the key of a role that root version first names, making it where
// there is none. The name ties it to that version, so a draft of a root that is begun
// again finds the key of the first attempt.
func (d *disk) onlineKey(role string, version int64) (Signer, error) {
	key, err := signing.OpenFile(d.path(fmt.Sprintf("keys/%s-%d.pem", role, version)), true)
	if err != nil {
		return nil, err
	}
	return key, nil
}

// onlineSigner finds the key file of a role of root.
func (d *disk) onlineSigner(root *metadata.RootType, role string) (Signer, error) {
	names, err := filepath.Glob(d.path("keys/" + role + "-*.pem"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		key, err := signing.OpenFile(name, false)
		if err != nil {
			return nil, err
		}
		if _, id, err := keyOf(key.Public()); err == nil && slices.Contains(root.Roles[role].KeyIDs, id) {
			return key, nil
		}
	}
	return nil, refusal.New(CodeOnlineKeyMissing, "no file in %s holds the %s key %.16s of root %d",
		d.path("keys"), role, strings.Join(root.Roles[role].KeyIDs, " "), root.Version)
}

// pruneKeys removes the key files that root no longer names. Keys of later roots,
// which drafts have made, stay.
func (d *disk) pruneKeys(root *metadata.RootType) error {
	for _, role := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
		names, err := filepath.Glob(d.path("keys/" + role + "-*.pem"))
		if err != nil {
			return err
		}
		for _, name := range names {
			var version int64
			if _, err := fmt.Sscanf(filepath.Base(name), role+"-%d.pem", &version); err != nil || version > root.Version {
				continue
			}
			key, err := signing.OpenFile(name, false)
			if err != nil {
				continue // Not ours to judge now: who needs it says what is wrong with it.
			}
			if _, id, err := keyOf(key.Public()); err != nil || slices.Contains(root.Roles[role].KeyIDs, id) {
				continue
			}
			if err := os.Remove(name); err != nil {
				return fmt.Errorf("tuf repository: %w", err)
			}
		}
	}
	return nil
}
