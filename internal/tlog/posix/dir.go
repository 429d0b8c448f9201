package posix

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/transparency-dev/tessera/api/layout"
	"golang.org/x/sys/unix"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

const (
	// CodeLocked refuses a directory that another Log has open.
	CodeLocked refusal.Code = "LOG_LOCKED"
	// CodeIdentityChanged refuses a directory that belongs to another host or key,
	// or a step back from rekor-v2 to rekor-v1.
	CodeIdentityChanged refusal.Code = "LOG_IDENTITY_CHANGED"
	// CodeRolledBack refuses a directory with fewer entries than it published.
	CodeRolledBack refusal.Code = "LOG_ROLLED_BACK"
	// CodeCorrupt refuses a directory whose files contradict each other.
	CodeCorrupt refusal.Code = "LOG_CORRUPT"
)

const (
	lockFile     = "lock"
	identityFile = "identity.json"
	stateDir     = ".state" // Tessera's
)

// dirLock is the right to write to a directory.
type dirLock struct{ f *os.File }

// lockDir creates dir if need be and locks it. flock belongs to the open file,
// not to the process, so it also excludes a second Log in this process. The
// kernel drops it when the process ends, however it ends.
func lockDir(dir string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	if err := flock(f); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, refusal.New(CodeLocked, "log %s is open elsewhere, in this process or another", dir)
		}
		return nil, fmt.Errorf("log: locking %s: %w", dir, err)
	}
	return &dirLock{f: f}, nil
}

// lockPatience is how long a lock that somebody holds is asked for.
const lockPatience = time.Second

// flock takes the lock. A process that ended while it was starting a child leaves the
// lock with the child until that executes its program, which is milliseconds; a holder
// that means it is still there after lockPatience.
func flock(f *os.File) error {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	enough := time.After(lockPatience)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-again.C:
		case <-enough:
			return err
		}
	}
}

// release gives up the lock. The file stays: removing it would let two Logs lock
// two files of one name.
func (d *dirLock) release() error { return d.f.Close() }

// identity is the content of identity.json.
type identity struct {
	Version int    `json:"version"`
	Host    string `json:"host"`
	LogID   string `json:"logID"`
	// Format is the newest dialect the log has spoken. A log may go from rekor-v1
	// to rekor-v2 and not back: sigstore-go 1.3 does not compare a rekor-v2 body
	// with its bundle where the checkpoint over it is of the rekor-v1 shape, so a
	// checkpoint of that shape over a tree with such bodies would let any of them
	// stand in for any other.
	Format tlog.EntryFormat `json:"format"`
}

// claimIdentity checks that dir belongs to key, or writes so if dir is new.
//
// The identity is durable before Tessera writes anything. A crash in between
// leaves an identity without a log, and the next Open begins the log.
func claimIdentity(dir string, key *tlog.Key, format tlog.EntryFormat) error {
	want := identity{Version: 1, Host: key.Host, LogID: hex.EncodeToString(key.LogID), Format: format}
	name := filepath.Join(dir, identityFile)
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(dir, stateDir)); err == nil {
			return refusal.New(CodeIdentityChanged, "log %s does not say whose it is: %s is missing", dir, identityFile)
		}
		return want.write(name)
	}
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	var got identity
	if err := json.Unmarshal(raw, &got); err != nil {
		return refusal.New(CodeCorrupt, "log %s: %s: %w", dir, identityFile, err)
	}
	if got.Format == tlog.RekorV1 && want.Format == tlog.RekorV2 {
		got.Format = want.Format
		if got == want {
			return want.write(name)
		}
	}
	if got.Format != want.Format {
		return refusal.New(CodeIdentityChanged, "log %s has written %s entries and cannot go back to %s: begin a new directory", dir, got.Format, want.Format)
	}
	if got != want {
		return refusal.New(CodeIdentityChanged, "log %s belongs to host %q and log ID %s, not to %q and %s: begin a new directory for a new host or key",
			dir, got.Host, got.LogID, want.Host, want.LogID)
	}
	return nil
}

func (i identity) write(name string) error {
	raw, err := json.Marshal(i)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return writeDurably(name, append(raw, '\n'))
}

// writeDurably puts a file in place so that a crash leaves all of it or none.
func writeDurably(name string, data []byte) error {
	tmp := name + ".tmp" // one writer only: we hold the lock, and a stale one is overwritten
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return fmt.Errorf("log: writing %s: %w", name, err)
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}

// Tessera writes a file by appending up to ten random digits to its name and
// renaming. These are the names only such a temporary file can have. A final
// name of a tile has three digits, and of a partial tile a number up to 255, so a
// temporary name that looks like a final one (a chance of 1 in 10^7) stays.
var (
	strayRoot    = regexp.MustCompile(`^checkpoint[0-9]{1,10}$`)
	strayState   = regexp.MustCompile(`^(treeState|gcState|version)[0-9]{1,10}$`)
	strayTile    = regexp.MustCompile(`^[0-9]{4,13}$`)
	strayPartial = regexp.MustCompile(`^[1-9][0-9]{0,2}[0-9]{1,10}$`)
)

// sweepState removes what killed processes left in the top directory and .state.
// It runs before Tessera, whose publisher makes such files from its first second.
func sweepState(dir string, log *slog.Logger) error {
	if err := sweep(dir, strayRoot.MatchString, log); err != nil {
		return err
	}
	return sweep(filepath.Join(dir, stateDir), strayState.MatchString, log)
}

// sweepTiles does the same for tiles and entry bundles. Only appends write there
// and they only write at the right edge, so the directories from the edge to one
// batch beyond are enough. It runs before the first append.
func sweepTiles(dir string, size uint64, log *slog.Logger) error {
	for level := range uint64(8) {
		first := size >> (layout.TileHeight * (level + 1))
		last := (size + maxBatchSize) >> (layout.TileHeight * (level + 1))
		seen := map[string]bool{}
		for i := first; i <= last; i++ {
			names := []string{layout.TilePath(level, i, 0)}
			if level == 0 {
				names = append(names, layout.EntriesPath(i, 0))
			}
			for _, n := range names {
				full := filepath.Join(dir, filepath.FromSlash(n))
				if parent := filepath.Dir(full); !seen[parent] {
					seen[parent] = true
					if err := sweep(parent, strayTile.MatchString, log); err != nil {
						return err
					}
				}
				if err := sweep(full+".p", isStrayPartial, log); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func isStrayPartial(name string) bool {
	n, err := strconv.ParseUint(name, 10, 64)
	return err == nil && n >= layout.TileWidth && strayPartial.MatchString(name)
}

// sweep removes the regular files of one directory that stray picks.
func sweep(dir string, stray func(string) bool, log *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("log: sweeping: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !stray(e.Name()) {
			continue
		}
		name := filepath.Join(dir, e.Name())
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("log: sweeping: %w", err)
		}
		log.Info("log: removed a temporary file of an earlier run", "file", name)
	}
	return nil
}
