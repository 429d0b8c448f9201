package mldsakey

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"filippo.io/mldsa"
	"filippo.io/mldsa/x509"

	"github.com/assay-build/assay/internal/durable"
	"github.com/assay-build/assay/internal/refusal"
)

// The same codes as package signing has for its own key files: to whoever runs the
// service a key file is a key file.
const (
	// CodeKeyMissing refuses to go on without a key that should be there.
	CodeKeyMissing refusal.Code = "KEY_MISSING"
	// CodeKeyFileMode refuses a key file that others than its owner may touch.
	CodeKeyFileMode refusal.Code = "KEY_FILE_MODE"
	// CodeKeyFileInvalid refuses a key file that is not one PKCS #8 PEM block with the seed of an ML-DSA-65 key.
	CodeKeyFileInvalid refusal.Code = "KEY_FILE_INVALID"
)

// maxKeyFile is far above a seed in PEM (128 bytes), and above an expanded key, which
// gets a refusal that says what it is.
const maxKeyFile = 16 << 10

const pemPrivateKey = "PRIVATE KEY"

// Open reads the key at path. With create, it first generates one where there is none:
// the new file has mode 0600 and is durable before Open returns, and of several
// processes that create at once all get the key of the first.
func Open(path string, create bool) (*Key, error) {
	k, err := readKeyFile(path)
	if refusal.CodeOf(err) != CodeKeyMissing || !create {
		return k, err
	}
	private, err := mldsa.GenerateKey(mldsa.MLDSA65())
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	text, err := marshalPEM(private)
	if err != nil {
		return nil, err
	}
	if err := durable.Create(path, text, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create key: %w", err)
	}
	return readKeyFile(path)
}

func marshalPEM(private *mldsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

// readKeyFile judges the mode of the file it has open, not of a name that may by then
// mean another file.
func readKeyFile(path string) (*Key, error) {
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
func parseKey(path string, text []byte) (*Key, error) {
	if len(text) > maxKeyFile {
		return nil, refusal.New(CodeKeyFileInvalid, "key file %s is larger than %d bytes", path, maxKeyFile)
	}
	block, rest := pem.Decode(text)
	if block == nil || !bytes.HasPrefix(text, []byte("-----BEGIN")) || block.Type != pemPrivateKey || len(block.Headers) != 0 || len(rest) != 0 {
		return nil, refusal.New(CodeKeyFileInvalid, "key file %s is not exactly one PEM block of type %s", path, pemPrivateKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, refusal.New(CodeKeyFileInvalid, "key file %s does not hold a PKCS #8 key in seed form "+
			"(openssl pkey -provparam ml-dsa.output_formats=seed-only writes that)", path)
	}
	private, ok := parsed.(*mldsa.PrivateKey)
	if !ok || private.PublicKey().Parameters() != mldsa.MLDSA65() {
		return nil, refusal.New(CodeKeyFileInvalid, "key file %s does not hold an %s key", path, mldsa.MLDSA65())
	}
	// The parser ignores what it does not know. In a file of ours there is no such thing.
	again, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil || !bytes.Equal(again, block.Bytes) {
		return nil, refusal.New(CodeKeyFileInvalid, "key file %s holds more than the seed of its key", path)
	}
	id, err := KeyID(private.PublicKey())
	if err != nil {
		return nil, err
	}
	return &Key{private: private, id: id}, nil
}
