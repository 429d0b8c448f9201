package client

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

// TrustDir is where trust is kept: $XDG_STATE_HOME/assay/trust, or below
// ~/.local/state. lookup reads the environment.
func TrustDir(lookup func(string) (string, bool)) (string, error) {
	login, err := LoginFile(lookup)
	if err != nil {
		return "", badInput(CodeTUFStoreInvalid, "neither XDG_STATE_HOME nor HOME names a directory to keep trust in")
	}
	return filepath.Join(filepath.Dir(login), "trust"), nil
}

// storeName is the directory of a server: its origin for people, and a hash, since
// two origins must not share one.
func storeName(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	plain := strings.Map(func(r rune) rune {
		if (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9') || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, strings.TrimPrefix(strings.TrimPrefix(origin, "https://"), "http://"))
	return plain[:min(len(plain), 100)] + "-" + hex.EncodeToString(sum[:4])
}

// trustDir is what is kept of one server:
//
//	current           the name of the generation that counts
//	NAME/root.json    and timestamp.json, snapshot.json, targets.json
//	NAME/files/…      the targets
//
// A generation never changes once current names it, so replacing current changes
// everything at once.
type trustDir string

// generation is one whole state. Its name is "" where it is kept nowhere yet.
type generation struct {
	name                               string
	root, timestamp, snapshot, targets []byte
	files                              map[string][]byte
}

func (d trustDir) generation(name string) string {
	if name == "" {
		name = "none" // No such directory: go-tuf finds nothing there.
	}
	return filepath.Join(string(d), name)
}

// pointer reads which generation counts.
func (d trustDir) pointer() (string, error) {
	data, err := readOwn(filepath.Join(string(d), "current"), 128)
	if errors.Is(err, fs.ErrNotExist) {
		return "", badInput(CodeTUFNotInitialized, "no root of trust is kept for this server; begin with assay trust init --root root.json")
	}
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(data))
	if len(name) != len("g-")+26 || !strings.HasPrefix(name, "g-") || strings.ContainsAny(name, "/\\.") {
		return "", badInput(CodeTUFStoreInvalid, "%s names no generation", filepath.Join(string(d), "current"))
	}
	return name, nil
}

func (d trustDir) current() (*generation, error) {
	name, err := d.pointer()
	if err != nil {
		return nil, err
	}
	g := &generation{name: name, files: map[string][]byte{}}
	dir := d.generation(name)
	for file, to := range map[string]*[]byte{"root.json": &g.root, "timestamp.json": &g.timestamp, "snapshot.json": &g.snapshot, "targets.json": &g.targets} {
		if *to, err = readOwn(filepath.Join(dir, file), maxTUFMetadata); err != nil {
			return nil, storeError(err)
		}
	}
	for _, file := range []string{targetTrustedRoot, targetPEM, targetKeys} {
		data, err := readOwn(filepath.Join(dir, "files", file), maxTUFTarget)
		if errors.Is(err, fs.ErrNotExist) {
			continue // Whether it has to be there, verify asks the metadata.
		}
		if err != nil {
			return nil, storeError(err)
		}
		g.files[file] = data
	}
	return g, nil
}

// keep makes next the generation that counts, unless it is to follow what is kept and
// another process has kept something newer meanwhile.
func (d trustDir) keep(next *generation, follow bool) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return storeError(err)
	}
	before, err := d.pointer()
	if err == nil && follow {
		if there, err := d.current(); err == nil && next.olderThan(there) {
			return nil
		}
	}
	next.name = "g-" + rand.Text()
	dir := d.generation(next.name)
	if err := next.write(dir); err != nil {
		return storeError(errors.Join(err, os.RemoveAll(dir)))
	}
	if err := writeOwn(filepath.Join(string(d), "current"), []byte(next.name+"\n")); err != nil {
		return storeError(errors.Join(err, os.RemoveAll(dir)))
	}
	d.prune(before, next.name)
	return nil
}

// touch notes when the server was last followed.
func (d trustDir) touch(now time.Time) error {
	if err := os.Chtimes(filepath.Join(string(d), "current"), now, now); err != nil {
		return storeError(err)
	}
	return nil
}

// age is how long ago that was. A time to come is no answer.
func (d trustDir) age(now time.Time) time.Duration {
	info, err := os.Stat(filepath.Join(string(d), "current"))
	if err != nil || info.ModTime().After(now) {
		return math.MaxInt64
	}
	return now.Sub(info.ModTime())
}

// prune removes all generations but the two last: somebody may be reading the one
// before. What cannot be removed is in nobody's way.
func (d trustDir) prune(keep ...string) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "g-") && e.Name() != keep[0] && e.Name() != keep[1] {
			_ = os.RemoveAll(filepath.Join(string(d), e.Name()))
		}
	}
}

func (g *generation) write(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "files"), 0o700); err != nil {
		return err
	}
	for name, data := range map[string][]byte{"root.json": g.root, "timestamp.json": g.timestamp, "snapshot.json": g.snapshot, "targets.json": g.targets} {
		if err := writeOwn(filepath.Join(dir, name), data); err != nil {
			return err
		}
	}
	for name, data := range g.files {
		if err := writeOwn(filepath.Join(dir, "files", name), data); err != nil {
			return err
		}
	}
	return nil
}

// same reports whether other is just what is kept.
func (g *generation) same(other *generation) bool {
	return g.name != "" && bytes.Equal(g.root, other.root) && bytes.Equal(g.timestamp, other.timestamp) &&
		bytes.Equal(g.snapshot, other.snapshot) && bytes.Equal(g.targets, other.targets) && maps.EqualFunc(g.files, other.files, bytes.Equal)
}

// olderThan compares by the versions of root and timestamp, of which one goes up with
// each change.
func (g *generation) olderThan(other *generation) bool {
	mine, err := metadata.Root().FromBytes(g.root)
	theirs, otherErr := metadata.Root().FromBytes(other.root)
	if err != nil || otherErr != nil || mine.Signed.Version != theirs.Signed.Version {
		return err == nil && otherErr == nil && mine.Signed.Version < theirs.Signed.Version
	}
	my, err := metadata.Timestamp().FromBytes(g.timestamp)
	their, otherErr := metadata.Timestamp().FromBytes(other.timestamp)
	return err == nil && otherErr == nil && my.Signed.Version < their.Signed.Version
}

// verify checks the generation as a client that has just fetched it would.
func (g *generation) verify(now time.Time) (*trustedmetadata.TrustedMetadata, error) {
	for role, data := range map[string][]byte{metadata.ROOT: g.root, metadata.TIMESTAMP: g.timestamp, metadata.SNAPSHOT: g.snapshot, metadata.TARGETS: g.targets} {
		if err := checkMetadata(role, data); err != nil {
			return nil, err
		}
	}
	set, err := trustedmetadata.New(g.root)
	if err != nil {
		return nil, signatureRefusal(err, metadata.ROOT, g.root)
	}
	set.RefTime = now
	if _, err := set.UpdateTimestamp(g.timestamp); err != nil {
		return nil, signatureRefusal(err, metadata.TIMESTAMP, g.root)
	}
	if _, err := set.UpdateSnapshot(g.snapshot, false); err != nil {
		return nil, signatureRefusal(err, metadata.SNAPSHOT, g.root)
	}
	if _, err := set.UpdateTargets(g.targets); err != nil {
		return nil, signatureRefusal(err, metadata.TARGETS, g.root)
	}
	files := set.Targets[metadata.TARGETS].Signed.Targets
	for _, name := range []string{targetTrustedRoot, targetPEM, targetKeys} {
		info := files[name]
		switch {
		case info == nil && name == targetKeys:
		case info == nil:
			return nil, untrusted(CodeTUFTargetMismatch, "the targets do not name %s", name)
		default:
			if err := info.VerifyLengthHashes(g.files[name]); err != nil {
				return nil, untrusted(CodeTUFTargetMismatch, "%s: %w", name, err)
			}
		}
	}
	return set, nil
}

func storeError(err error) error {
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	return badInput(CodeTUFStoreInvalid, "the kept trust: %w; begin again with assay trust init", err)
}

// readOwn reads a file that nobody but its owner can change.
func readOwn(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, badInput(CodeTUFStoreInvalid, "%s is not a regular file", path)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		return nil, badInput(CodeTUFStoreInvalid, "%s has mode %o: others could change it", path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = badInput(CodeTUFStoreInvalid, "%s has more than %d bytes", path, limit)
	}
	return data, err
}

// writeOwn makes or replaces a file of mode 0600, whole or not at all.
func writeOwn(path string, data []byte) error {
	tmp := filepath.Join(filepath.Dir(path), ".new-"+rand.Text())
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}
