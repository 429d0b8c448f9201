package posix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

// CodeEntryUnknown refuses an index that the log does not reach.
const CodeEntryUnknown refusal.Code = "LOG_ENTRY_UNKNOWN"

// Entry returns an entry that is in the log, with a proof against the tree of
// now. It is for those who missed the answer of Add.
//
// The log does not keep the time of integration. IntegratedTime is the time of
// this call, and the SET promises no more: that the log has the entry by then.
func (l *Log) Entry(ctx context.Context, index uint64) (*Entry, error) {
	h, err := l.currentHead(ctx)
	if err != nil {
		return nil, err
	}
	if index >= h.size {
		return nil, refusal.New(CodeEntryUnknown, "log entry %d of %d", index, h.size)
	}
	body, err := l.body(ctx, index, h.size)
	if err != nil {
		return nil, err
	}
	leaf := tlog.LeafHash(body)
	e, err := l.entry(ctx, body, index, leaf, l.now(), h)
	if err != nil {
		return nil, err
	}
	// Body and hashes came from disk, and could have changed there. Nothing
	// that does not lead to the signed root leaves the log.
	if err := tlog.VerifyInclusion(index, h.size, leaf, e.Hashes, h.root); err != nil {
		return nil, refusal.New(CodeCorrupt, "log: %w", err)
	}
	return e, nil
}

// body reads an entry from its bundle.
func (l *Log) body(ctx context.Context, index, size uint64) ([]byte, error) {
	n := index / layout.EntryBundleWidth
	raw, err := l.reader.ReadEntryBundle(ctx, n, layout.PartialTileSize(0, n, size))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal.New(CodeCorrupt, "log has no entry bundle %d: %w", n, err)
	}
	if err != nil {
		return nil, fmt.Errorf("log: reading entry bundle %d: %w", n, err)
	}
	var bundle api.EntryBundle
	if err := bundle.UnmarshalText(raw); err != nil {
		return nil, refusal.New(CodeCorrupt, "log: entry bundle %d: %w", n, err)
	}
	i := index % layout.EntryBundleWidth
	if i >= uint64(len(bundle.Entries)) {
		return nil, refusal.New(CodeCorrupt, "log: entry bundle %d has %d entries", n, len(bundle.Entries))
	}
	return bundle.Entries[i], nil
}

// currentHead returns a signed head of the whole tree, which is the last batch's
// but for a tree just opened or one whose signature failed.
func (l *Log) currentHead(ctx context.Context) (*head, error) {
	size, root, err := l.tree.root(ctx)
	if err != nil {
		return nil, err
	}
	l.headMu.Lock()
	h := l.head
	l.headMu.Unlock()
	if h != nil && h.size >= size {
		return h, nil
	}
	return l.sign(ctx, size, root)
}

// Find looks for a leaf hash among the entries from index from on, and returns
// the first that has it. It reads 8 KiB for each 256 entries. An entry that an Add
// has left on its way is waited for, so that what is not found will not come.
func (l *Log) Find(ctx context.Context, leaf [32]byte, from uint64) (index uint64, found bool, err error) {
	l.mu.Lock()
	w := l.inFlight[leaf]
	l.mu.Unlock()
	if w != nil {
		select {
		case <-w.done:
		case <-ctx.Done():
			return 0, false, fmt.Errorf("log: the entry is on its way: %w", ctx.Err())
		}
	}
	size := l.tree.size()
	if from >= size {
		return 0, false, nil
	}
	for ri := range layout.Range(from, size-from, size) {
		if err := ctx.Err(); err != nil {
			return 0, false, err
		}
		hs, err := readHashes(ctx, l.reader.ReadTile, 0, ri.Index, ri.Partial)
		if err != nil {
			return 0, false, err
		}
		for i, h := range hs[ri.First : ri.First+ri.N] {
			if h == leaf {
				return ri.Index*tileWidth + uint64(ri.First) + uint64(i), true, nil
			}
		}
	}
	return 0, false, nil
}
