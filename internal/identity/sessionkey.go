package identity

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeSessionKeyInvalid: a session key file that others can read, or that is not
// one.
const CodeSessionKeyInvalid refusal.Code = "SESSION_KEY_INVALID"

// LoadSessionKey reads the key of Sessions from path, and makes it of random
// bytes, mode 0600, if there is none. The machines of one deployment need the
// same file.
//
// Crash story: the key is written and synced under another name and then linked
// to its own, so that path is either absent or whole. Of two processes that
// start together one links first, and both read that one's key.
func LoadSessionKey(path string) ([]byte, error) {
	key, err := readSessionKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createSessionKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("session key: %w", err)
	}
	return readSessionKey(path)
}

func readSessionKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("session key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("session key: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, refusal.New(CodeSessionKeyInvalid, "%s has mode %v; a regular file of mode 0600 is needed", path, info.Mode())
	}
	key, err := io.ReadAll(io.LimitReader(f, SessionKeyBytes+1))
	if err != nil {
		return nil, fmt.Errorf("session key: %w", err)
	}
	if len(key) != SessionKeyBytes {
		return nil, refusal.New(CodeSessionKeyInvalid, "%s does not hold exactly %d bytes", path, SessionKeyBytes)
	}
	return key, nil
}

func createSessionKey(path string) (err error) {
	key := make([]byte, SessionKeyBytes)
	rand.Read(key)
	suffix := make([]byte, 8)
	rand.Read(suffix)
	temp := path + ".new-" + hex.EncodeToString(suffix)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	_, err = f.Write(key)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Link(temp, path); err != nil { // unlike rename, it never replaces a key
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
