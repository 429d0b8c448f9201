package signing

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"github.com/assay-build/assay/internal/durable"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeKeyMissing refuses to go on without a key that should be there.
	CodeKeyMissing refusal.Code = "KEY_MISSING"
	// CodeKeyFileMode refuses a key file that others than its owner may touch.
	CodeKeyFileMode refusal.Code = "KEY_FILE_MODE"
	// CodeKeyFileInvalid refuses a key file that is not one PKCS #8 PEM block with a P-256 key.
	CodeKeyFileInvalid refusal.Code = "KEY_FILE_INVALID"
)

// maxKeyFile is far above any PKCS #8 P-256 key (241 bytes of PEM).
const maxKeyFile = 16 << 10

const pemPrivateKey = "PRIVATE KEY"

// FileKey is a P-256 key kept in a file. However it is printed, it shows its id
// and nothing else.
type FileKey struct {
	private *ecdsa.PrivateKey
	id      string
}

var _ Signer = (*FileKey)(nil)

// OpenFile reads the key at path. With create, it first generates one where there
// is none: the new file has mode 0600 and is durable before OpenFile returns, and
// of several processes that create at once all get the key of the first.
func OpenFile(path string, create bool) (*FileKey, error) {
	k, err := readKeyFile(path)
	if refusal.CodeOf(err) != CodeKeyMissing || !create {
		return k, err
	}
	k, err = newFileKey()
	if err != nil {
		return nil, err
	}
	text, err := k.marshalPEM()
	if err != nil {
		return nil, err
	}
	if err := durable.Create(path, text, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create key: %w", err)
	}
	return readKeyFile(path)
}

// Sign implements Signer.
func (k *FileKey) Sign(ctx context.Context, digest []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(digest) != sha256.Size {
		return nil, refusal.New(CodeDigestLength, "a SHA-256 digest has %d bytes, this has %d", sha256.Size, len(digest))
	}
	sig, err := ecdsa.SignASN1(rand.Reader, k.private, digest)
	if err != nil {
		return nil, fmt.Errorf("sign with key %s: %w", k.id, err)
	}
	return sig, nil
}

// Public implements Signer.
func (k *FileKey) Public() crypto.PublicKey { return &k.private.PublicKey }

// KeyID implements Signer.
func (k *FileKey) KeyID() string { return k.id }

// String names the key by its id.
func (k FileKey) String() string { return "key " + k.id }

// Format prints String for every verb: %#v and %x would otherwise walk into the key.
func (k FileKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// LogValue is what slog records.
func (k FileKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText is what JSON and other encoders write.
func (k FileKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func newFileKey() (*FileKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return fileKeyOf(private)
}

func fileKeyOf(private *ecdsa.PrivateKey) (*FileKey, error) {
	id, err := KeyID(&private.PublicKey)
	if err != nil {
		return nil, err
	}
	return &FileKey{private: private, id: id}, nil
}

func (k *FileKey) marshalPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("encode key %s: %w", k.id, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

// readKeyFile judges the mode of the file it has open, not of a name that may by
// then mean another file.
func readKeyFile(path string) (*FileKey, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal.New(CodeKeyMissing, "key file %s does not exist", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, refusal.New(CodeKeyFileInvalid, "%s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, refusal.New(CodeKeyFileMode, "key file %s has mode %04o, others than its owner may use it; run chmod 600 and consider the key known", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	return parseKey(path, text)
}

// parseKey drops the parsers' own errors: they may quote what they read.
func parseKey(path string, text []byte) (*FileKey, error) {
	if len(text) > maxKeyFile {
		return nil, refusal.New(CodeKeyFileInvalid, "key file %s is larger than %d bytes", path, maxKeyFile)
	}
	block, rest := pem.Decode(text)
	if block == nil || !bytes.HasPrefix(text, []byte("-----BEGIN")) || block.Type != pemPrivateKey || len(block.Headers) != 0 || len(rest) != 0 {
		return nil, refusal.New(CodeKeyFileInvalid, "key file %s is not exactly one PEM block of type %s", path, pemPrivateKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, refusal.New(CodeKeyFileInvalid, "key file %s does not hold a PKCS #8 key", path)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, refusal.New(CodeKeyFileInvalid, "key file %s does not hold an ECDSA P-256 key", path)
	}
	return fileKeyOf(private)
}
