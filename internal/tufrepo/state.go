package tufrepo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

const (
	timestampName = "timestamp.json"
	nextName      = "timestamp.next.json"
)

// state is one consistent state of a repository, verified as a client verifies it.
// It does not change.
type state struct {
	roots     [][]byte // roots[i] is version i+1
	timestamp []byte
	trusted   *trustedmetadata.TrustedMetadata
	files     map[string][]byte
	// highest is the highest version of a role on disk, which is above the one in
	// force where a crash left something over.
	highest map[string]int64
}

func (s *state) root() *metadata.RootType       { return &s.trusted.Root.Signed }
func (s *state) stamp() *metadata.TimestampType { return &s.trusted.Timestamp.Signed }
func (s *state) snap() *metadata.SnapshotType   { return &s.trusted.Snapshot.Signed }
func (s *state) targets() *metadata.TargetsType { return &s.trusted.Targets[metadata.TARGETS].Signed }

// behind reports whether s is an older state than t in any role.
func (s *state) behind(t *state) bool {
	return t != nil && (s.root().Version < t.root().Version || s.stamp().Version < t.stamp().Version ||
		s.snap().Version < t.snap().Version || s.targets().Version < t.targets().Version)
}

// load reads what is on disk. Target files that known holds, which may be nil, are
// verified and not read into memory once more.
func (d *disk) load(known *state) (*state, error) { return d.loadWith(timestampName, known) }

func (d *disk) loadWith(timestamp string, known *state) (*state, error) {
	s := &state{files: map[string][]byte{}}
	if err := d.loadRoots(s); err != nil {
		return nil, err
	}
	if err := d.loadOnline(s, timestamp); err != nil {
		return nil, err
	}
	for name, info := range s.targets().Targets {
		data, err := d.target(name, info, known)
		if err != nil {
			return nil, refusal.New(CodeRepositoryInvalid, "target %.100q: %w", name, err)
		}
		s.files[name] = data
	}
	return s, nil
}

// target reads and verifies a target file.
func (d *disk) target(name string, info *metadata.TargetFiles, known *state) ([]byte, error) {
	if info.Length < 0 || info.Length > maxFile {
		return nil, fmt.Errorf("%d bytes are more than the %d that one may have", info.Length, maxFile)
	}
	f, err := os.Open(d.path(targetPath(name, info)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if held, ok := known.holds(name, info); ok {
		sum := sha256.New()
		n, err := io.Copy(sum, io.LimitReader(f, info.Length+1))
		if err == nil && (n != info.Length || !bytes.Equal(sum.Sum(nil), info.Hashes["sha256"])) {
			err = errors.New("it is not what was published")
		}
		return held, err
	}
	// No more than the metadata say, and one byte to see whether there is more.
	data := make([]byte, info.Length+1)
	n, err := io.ReadFull(f, data)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	data = data[:n]
	return data, info.VerifyLengthHashes(data)
}

// holds returns a target file that s was verified with, if it is the one that info means.
func (s *state) holds(name string, info *metadata.TargetFiles) ([]byte, bool) {
	if s == nil || len(info.Hashes) != 1 {
		return nil, false
	}
	mine := s.targets().Targets[name]
	if mine == nil || mine.Length != info.Length || !bytes.Equal(mine.Hashes["sha256"], info.Hashes["sha256"]) {
		return nil, false
	}
	return s.files[name], true
}

// loadRoots verifies the chain from 1.root.json to the newest.
func (d *disk) loadRoots(s *state) error {
	var err error
	if s.highest, err = d.highestVersions(); err != nil {
		return err
	}
	newest := s.highest[metadata.ROOT]
	if newest == 0 {
		return refusal.New(CodeNotInitialized, "there is no TUF repository in %s; begin one with assayd tuf init", d.dir)
	}
	for v := int64(1); v <= newest; v++ {
		name := versioned(v, metadata.ROOT)
		data, err := d.read(name, maxMetadata)
		switch {
		case err != nil:
		case v == 1:
			if s.trusted, err = trustedmetadata.New(data); err == nil {
				// The beginning of time: whether something has expired is asked elsewhere.
				s.trusted.RefTime = time.Time{}
			}
		default:
			_, err = s.trusted.UpdateRoot(data)
		}
		if err == nil {
			err = checkRoot(s.root())
		}
		if err == nil && s.root().Version != v {
			err = fmt.Errorf("it has version %d", s.root().Version)
		}
		if err != nil {
			return refusal.New(CodeRepositoryInvalid, "%s: %w", name, err)
		}
		s.roots = append(s.roots, data)
	}
	return nil
}

// loadOnline verifies timestamp, snapshot and targets.
func (d *disk) loadOnline(s *state, timestamp string) (err error) {
	if s.timestamp, err = d.read(timestamp, maxMetadata); err == nil {
		_, err = s.trusted.UpdateTimestamp(s.timestamp)
	}
	if err != nil {
		return refusal.New(CodeRepositoryInvalid, "%s: %w", timestamp, err)
	}
	info := s.stamp().Meta[metadata.SNAPSHOT+".json"]
	if info == nil {
		return refusal.New(CodeRepositoryInvalid, "%s names no snapshot", timestamp)
	}
	name := versioned(info.Version, metadata.SNAPSHOT)
	data, err := d.read(name, maxMetadata)
	if err == nil {
		_, err = s.trusted.UpdateSnapshot(data, false)
	}
	if err != nil {
		return refusal.New(CodeRepositoryInvalid, "%s: %w", name, err)
	}
	info = s.snap().Meta[metadata.TARGETS+".json"]
	if info == nil {
		return refusal.New(CodeRepositoryInvalid, "%s names no targets", name)
	}
	name = versioned(info.Version, metadata.TARGETS)
	if data, err = d.read(name, maxMetadata); err == nil {
		_, err = s.trusted.UpdateTargets(data)
	}
	if err != nil {
		return refusal.New(CodeRepositoryInvalid, "%s: %w", name, err)
	}
	return nil
}

// recover finishes a change of root that a crash interrupted, or drops what one left
// over from before its commit point. The caller holds the lock.
func (d *disk) recover(known *state) (*state, error) {
	s, err := d.load(known)
	if _, statErr := os.Stat(d.path(nextName)); errors.Is(statErr, fs.ErrNotExist) {
		return s, err
	}
	if err == nil {
		return s, d.remove(nextName)
	}
	// Between N.root.json and its timestamp: what stands belongs to the root before.
	next, nextErr := d.loadWith(nextName, known)
	if nextErr != nil {
		return nil, err
	}
	return next, d.rename(nextName, timestampName)
}

// highestVersions is the highest version on disk of each role that has versions in
// file names.
func (d *disk) highestVersions() (map[string]int64, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("tuf repository: %w", err)
	}
	highest := map[string]int64{}
	for _, e := range entries {
		if version, role, ok := parseVersioned(e.Name()); ok {
			highest[role] = max(highest[role], version)
		}
	}
	return highest, nil
}

// parseVersioned takes N.root.json apart.
func parseVersioned(name string) (version int64, role string, ok bool) {
	number, rest, _ := strings.Cut(name, ".")
	role, ok = strings.CutSuffix(rest, ".json")
	if !ok || (role != metadata.ROOT && role != metadata.SNAPSHOT && role != metadata.TARGETS) {
		return 0, "", false
	}
	version, err := strconv.ParseInt(number, 10, 64)
	// One spelling only: no sign, no leading zero.
	if err != nil || version < 1 || strconv.FormatInt(version, 10) != number {
		return 0, "", false
	}
	return version, role, true
}

func versioned(version int64, role string) string { return fmt.Sprintf("%d.%s.json", version, role) }

func targetPath(name string, info *metadata.TargetFiles) string {
	return "targets/" + hex.EncodeToString(info.Hashes["sha256"]) + "." + name
}

// checkFiles refuses what is not served.
func checkFiles(files map[string][]byte) error {
	if len(files) == 0 || len(files) > maxFiles {
		return refusal.New(CodeFilesInvalid, "%d target files; 1 to %d are published", len(files), maxFiles)
	}
	for name, data := range files {
		if !validFileName(name) {
			return refusal.New(CodeFilesInvalid, "the name %.100q of a target file: want 1 to 64 of a-z, 0-9, dot, dash and underscore, with a letter or digit first", name)
		}
		if len(data) == 0 || len(data) > maxFile {
			return refusal.New(CodeFilesInvalid, "target %s has %d bytes; 1 to %d are published", name, len(data), maxFile)
		}
	}
	return nil
}

func validFileName(name string) bool {
	for i, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
		case i > 0 && (r == '.' || r == '-' || r == '_'):
		default:
			return false
		}
	}
	return name != "" && len(name) <= 64
}

// targetFiles describes files as targets metadata do.
func targetFiles(files map[string][]byte) map[string]*metadata.TargetFiles {
	infos := make(map[string]*metadata.TargetFiles, len(files))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		sum := sha256.Sum256(files[name])
		infos[name] = &metadata.TargetFiles{Length: int64(len(files[name])), Hashes: metadata.Hashes{"sha256": sum[:]}, Path: name}
	}
	return infos
}

// metaFile describes metadata in other metadata. With length and hash, not only the
// version, nothing signed by the same key can stand in for it.
func metaFile(version int64, data []byte) *metadata.MetaFiles {
	sum := sha256.Sum256(data)
	return &metadata.MetaFiles{Version: version, Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}
