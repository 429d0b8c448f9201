package posix

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/transparency-dev/tessera/client"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

// CodeNotSettled refuses to say that a log may lose its key while its published
// checkpoint does not cover all of its entries: nobody else can sign one that does.
const CodeNotSettled refusal.Code = "LOG_NOT_SETTLED"

// Settle waits until the published checkpoint covers every entry that the log has now, as
// it must before the log's key is retired. Close waits for what was added since Open, and
// not for what a crash before that left without a checkpoint.
func (l *Log) Settle(ctx context.Context) error {
	size, published := l.Size(), uint64(0)
	tick := time.NewTicker(minCheckpointInterval / 4)
	defer tick.Stop()
	for {
		// Tessera has not written the first one yet, or is about to write the next.
		if text, err := l.reader.ReadCheckpoint(ctx); err == nil {
			cp, err := tlog.ParseCheckpoint(string(text))
			if err != nil {
				return refusal.New(CodeCorrupt, "log %s: published checkpoint: %w", l.cfg.Dir, err)
			}
			if published = cp.Size; published >= size {
				return nil
			}
		}
		if err := l.Health(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return refusal.New(CodeNotSettled, "the published checkpoint of log %s covers %d entries of %d: %w", l.cfg.Dir, published, size, ctx.Err())
		}
	}
}

// Frozen is a log whose key has been retired. It takes no entries and signs nothing; what
// the checkpoint that it published last covers is served for as long as the directory is
// there. What it proved stays proved: bundles carry their proofs.
//
// The log of a stolen key may have been frozen as it was, with entries that no published
// checkpoint covers. They count as entries, since somebody may have been given their
// proofs, and are not served.
type Frozen struct {
	key       *tlog.Key
	published uint64
	tree      *tree
	files     client.FileFetcher
	logger    *slog.Logger
}

// OpenFrozen opens the log in dir for reading, and holds its tree against the checkpoint
// that key signed. It takes no lock and writes nothing. A directory that another Log has
// open may be read; what is added later is not seen.
func OpenFrozen(ctx context.Context, dir string, key *tlog.Key, logger *slog.Logger) (*Frozen, error) {
	// In this order: what is published is never larger than the tree of a moment later.
	published, err := readPublished(dir, key)
	if err != nil {
		return nil, err
	}
	state, err := readTreeState(dir)
	if err != nil {
		return nil, err
	}
	f := &Frozen{key: key, files: client.FileFetcher{Root: dir}, logger: logger}
	if state.Size == 0 && (published == nil || published.Size == 0) {
		f.tree = newTree(f.files.ReadTile) // retired before it had an entry
		return f, nil
	}
	if f.tree, err = loadTree(ctx, state.Size, f.files.ReadTile); err != nil {
		return nil, err
	}
	if err := f.contains(ctx, dir, "the tree", state.Size, state.Root); err != nil {
		return nil, err
	}
	if published == nil {
		return f, nil
	}
	if err := f.contains(ctx, dir, "the published checkpoint", published.Size, published.RootHash); err != nil {
		return nil, err
	}
	f.published = published.Size
	return f, nil
}

// contains makes sure that the first size entries have the root that what says.
func (f *Frozen) contains(ctx context.Context, dir, what string, size uint64, want []byte) error {
	if have := f.Size(); size > have {
		return refusal.New(CodeRolledBack, "log %s has %d entries, %s is of %d", dir, have, what, size)
	}
	root, err := f.tree.rootAt(ctx, size)
	if err != nil {
		return err
	}
	if !bytes.Equal(root, want) {
		return refusal.New(CodeCorrupt, "log %s: the tiles have root %x, and %s of %d entries has %x", dir, root, what, size, want)
	}
	return nil
}

// treeState is what Tessera keeps of the tree that all tiles on disk make up.
type treeState struct {
	Size uint64 `json:"size"`
	Root []byte `json:"root"`
}

func readTreeState(dir string) (treeState, error) {
	var state treeState
	raw, err := os.ReadFile(filepath.Join(dir, stateDir, "treeState"))
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, fmt.Errorf("log: %w", err)
	}
	if err := json.Unmarshal(raw, &state); err != nil {
		return state, refusal.New(CodeCorrupt, "log %s: the state of the tree: %w", dir, err)
	}
	return state, nil
}

// Key returns the log's public identity.
func (f *Frozen) Key() *tlog.Key { return f.key }

// Size returns the number of entries, Published that of the entries which the published
// checkpoint covers.
func (f *Frozen) Size() uint64      { return f.tree.size() }
func (f *Frozen) Published() uint64 { return f.published }

// RootAt returns the root of the first size entries, of which there must be as many.
func (f *Frozen) RootAt(ctx context.Context, size uint64) ([]byte, error) {
	return f.tree.rootAt(ctx, size)
}

// Handler serves the log as Log.Handler does.
func (f *Frozen) Handler() http.Handler {
	return (&site{files: f.files, logger: f.logger, size: func(context.Context, uint64) (uint64, error) { return f.published, nil }}).handler()
}
