package posix

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/transparency-dev/tessera/api/layout"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

// readPublished returns the checkpoint that stands in dir, verified, or nil.
//
// It runs before Tessera, which would publish the tree it finds over it: a
// directory whose tree was lost or restored from an old backup must be refused
// while the checkpoint that proves it is still there.
func readPublished(dir string, key *tlog.Key) (*tlog.Checkpoint, error) {
	raw, err := os.ReadFile(filepath.Join(dir, layout.CheckpointPath))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // new, or killed before the first was published
	}
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	cp, err := tlog.ParseCheckpoint(string(raw))
	if err != nil {
		return nil, refusal.New(CodeCorrupt, "log %s: published checkpoint: %w", dir, err)
	}
	if err := tlog.VerifyCheckpoint(cp, key.Host, key.Public, key.Hint); err != nil {
		return nil, refusal.New(CodeIdentityChanged, "log %s: published checkpoint: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(dir, stateDir, "treeState")); errors.Is(err, fs.ErrNotExist) && cp.Size > 0 {
		return nil, refusal.New(CodeRolledBack, "log %s published a checkpoint of %d entries but has no tree", dir, cp.Size)
	}
	return cp, nil
}

// noteSigner signs the checkpoints that Tessera publishes, and only those that
// extend the one before: it is the last line against a log that shows two faces.
// Published checkpoints carry the host as origin in both dialects, because a
// tlog-tiles client expects there the name of the key.
type noteSigner struct {
	key    *tlog.Key
	signer Signer
	ctx    context.Context // of Tessera's publisher; note.Signer has no other way to pass one

	mu       sync.Mutex
	last     *tlog.Checkpoint // the last published or signed, nil if none
	admitted bool             // the tree has been held against last
	closed   bool
}

// Name and KeyHash make noteSigner a note.Signer.
func (n *noteSigner) Name() string    { return n.key.Host }
func (n *noteSigner) KeyHash() uint32 { return n.key.Hint }

// Sign signs the text of a checkpoint.
func (n *noteSigner) Sign(msg []byte) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	// The parser wants a signature; any will do for reading the text.
	cp, err := tlog.ParseCheckpoint(string(msg) + "\n\u2014 unsigned AAAAAAA=\n")
	if err != nil {
		return nil, err
	}
	switch {
	case n.closed:
		return nil, refusal.New(CodeClosed, "log is closed")
	case !n.admitted && cp.Size > 0:
		return nil, refusal.New(CodeClosed, "log is not open yet")
	case n.last != nil && cp.Size < n.last.Size:
		return nil, refusal.New(CodeRolledBack, "tree of %d entries after a checkpoint of %d", cp.Size, n.last.Size)
	case n.last != nil && cp.Size == n.last.Size && !bytes.Equal(cp.RootHash, n.last.RootHash):
		return nil, refusal.New(CodeCorrupt, "second root for %d entries", cp.Size)
	}
	digest := sha256.Sum256(msg)
	sig, err := n.signer.Sign(n.ctx, digest[:])
	if err != nil {
		return nil, err
	}
	n.last = cp
	return sig, nil
}

// admit lets the publisher begin, if the tree extends the checkpoint that was
// published last.
func (n *noteSigner) admit(ctx context.Context, t *tree) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cp := n.last; cp != nil {
		if cp.Size > t.size() {
			return refusal.New(CodeRolledBack, "log has %d entries but published a checkpoint of %d", t.size(), cp.Size)
		}
		root, err := t.rootAt(ctx, cp.Size)
		if err != nil {
			return err
		}
		if !bytes.Equal(root, cp.RootHash) {
			return refusal.New(CodeCorrupt, "root of the first %d entries is %x, published was %x", cp.Size, root, cp.RootHash)
		}
	}
	n.admitted = true
	return nil
}

// close ends signing and returns the text signed last, "" if none was.
func (n *noteSigner) close() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if n.last == nil {
		return ""
	}
	return string(n.last.Signed)
}

// stopTessera ends Tessera's goroutines and returns when none can publish any
// more: a late one could put an old checkpoint over one of the next Log's.
func (l *Log) stopTessera(ctx context.Context) {
	l.cancel()
	last := l.notes.close()
	// A publisher that signed before close() may still be writing its file.
	// Once the file holds that text none is left, as nothing was signed since.
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		cp, err := l.reader.ReadCheckpoint(ctx)
		if last == "" || (err == nil && bytes.HasPrefix(cp, []byte(last))) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	l.cfg.Logger.WarnContext(ctx, "log: the checkpoint signed last was not published", "dir", l.cfg.Dir)
}
