package posix

import (
	"container/list"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	tileHeight = layout.TileHeight
	tileWidth  = layout.TileWidth
	// A cached tile is 16 KiB with its inner nodes; 512 of them are 8 MiB and
	// cover the 131,072 entries used last.
	cachedTiles = 512
)

type hash = [sha256.Size]byte

// tile is one tile of the public layout with its inner nodes, which the public
// file leaves to be recomputed: an inclusion proof then copies hashes and hashes
// next to nothing.
type tile struct {
	n     int                   // bottom nodes present
	nodes [2*tileWidth - 1]hash // level 0 first: 256 nodes, then 128, … then the tile's root
}

// at returns node i of a level within the tile, 0 at the bottom to 8 at the top.
func (t *tile) at(level uint, i int) *hash {
	return &t.nodes[2*tileWidth-(2*tileWidth)>>level+i]
}

// add appends a bottom node and completes the inner nodes it completes.
func (t *tile) add(h hash) {
	*t.at(0, t.n) = h
	i := t.n
	for level := uint(0); i%2 == 1; level++ {
		*t.at(level+1, i/2) = hashChildren(t.at(level, i-1), t.at(level, i))
		i /= 2
	}
	t.n++
}

// hashChildren is RFC 6962's SHA-256(0x01 || left || right), without allocating.
func hashChildren(l, r *hash) hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = rfc6962.RFC6962NodeHashPrefix
	copy(b[1:], l[:])
	copy(b[1+sha256.Size:], r[:])
	return sha256.Sum256(b[:])
}

// readTileFunc reads a tile's public file; fs.ErrNotExist if it is absent.
type readTileFunc func(ctx context.Context, level, index uint64, partial uint8) ([]byte, error)

type tileID struct{ level, index uint64 }

// tree is the log's Merkle tree as far as proofs need it: the tiles of the right
// edge, one for each tile level, and the full tiles used last. Its memory does not
// grow with the log. Appends are the sequencer's; everything else is concurrent.
type tree struct {
	read readTileFunc

	mu     sync.RWMutex // guards what follows; held for writing while a batch is appended
	leaves uint64
	edge   []*tile // edge[l] is the tile at level l that the next node goes to, possibly empty

	cacheMu sync.Mutex // guards the cache; taken while mu is held, never the other way round
	cache   map[tileID]*list.Element
	recent  *list.List // of cached, most recently used first
}

type cached struct {
	id   tileID
	tile *tile // full, so never written again
}

func newTree(read readTileFunc) *tree {
	return &tree{read: read, edge: []*tile{{}}, cache: map[tileID]*list.Element{}, recent: list.New()}
}

// loadTree reads the right edge of a tree of the given size.
func loadTree(ctx context.Context, size uint64, read readTileFunc) (*tree, error) {
	t := newTree(read)
	t.leaves = size
	for level := uint64(0); size>>(tileHeight*level) > 0; level++ {
		count := size >> (tileHeight * level)
		if level > 0 {
			t.edge = append(t.edge, &tile{})
		}
		if p := uint8(count % tileWidth); p > 0 {
			loaded, err := t.readTile(ctx, level, count/tileWidth, p)
			if err != nil {
				return nil, err
			}
			t.edge[level] = loaded
		}
	}
	return t, nil
}

// readTile reads a tile's public file and completes its inner nodes.
func (t *tree) readTile(ctx context.Context, level, index uint64, partial uint8) (*tile, error) {
	hashes, err := readHashes(ctx, t.read, level, index, partial)
	if err != nil {
		return nil, err
	}
	out := new(tile)
	for _, h := range hashes {
		out.add(h)
	}
	return out, nil
}

// readHashes reads the first partial hashes of a tile, or all 256 if partial is 0.
func readHashes(ctx context.Context, read readTileFunc, level, index uint64, partial uint8) ([]hash, error) {
	raw, err := read(ctx, level, index, partial)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal.New(CodeCorrupt, "log has no file for tile %s: %w", layout.TilePath(level, index, partial), err)
	}
	if err != nil {
		return nil, fmt.Errorf("log: reading tile %s: %w", layout.TilePath(level, index, partial), err)
	}
	want := int(partial)
	if want == 0 {
		want = tileWidth
	}
	// The reader gives the full tile where the partial one was garbage collected.
	if len(raw)%sha256.Size != 0 || len(raw) < want*sha256.Size || len(raw) > tileWidth*sha256.Size {
		return nil, refusal.New(CodeCorrupt, "log: tile %s has %d bytes", layout.TilePath(level, index, partial), len(raw))
	}
	hashes := make([]hash, want)
	for i := range hashes {
		hashes[i] = hash(raw[i*sha256.Size:])
	}
	return hashes, nil
}

func (t *tree) size() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.leaves
}

// append adds leaves at the right edge.
func (t *tree) append(leaves []hash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range leaves {
		t.appendLeaf(h)
	}
}

func (t *tree) appendLeaf(h hash) {
	t.leaves++
	for level := 0; ; level++ {
		if level == len(t.edge) {
			t.edge = append(t.edge, &tile{})
		}
		e := t.edge[level]
		e.add(h)
		if e.n < tileWidth {
			return
		}
		// The tile is full: it moves to the cache, and its root up a level.
		index := t.leaves>>(tileHeight*uint(level+1)) - 1
		t.remember(tileID{uint64(level), index}, e)
		t.edge[level] = &tile{}
		h = *e.at(tileHeight, 0)
	}
}

// root returns the root of the whole tree and its size.
func (t *tree) root(ctx context.Context) (uint64, []byte, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	root, err := t.rootLocked(ctx, t.leaves)
	return t.leaves, root, err
}

// rootAt returns the root of the first size entries.
func (t *tree) rootAt(ctx context.Context, size uint64) ([]byte, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.rootLocked(ctx, size)
}

func (t *tree) rootLocked(ctx context.Context, size uint64) ([]byte, error) {
	if size > t.leaves {
		return nil, fmt.Errorf("log: no root of %d entries in a tree of %d", size, t.leaves)
	}
	ids := compact.RangeNodes(0, size, nil) // the perfect subtrees, largest first
	if len(ids) == 0 {
		return rfc6962.DefaultHasher.EmptyRoot(), nil
	}
	acc, err := t.node(ctx, ids[len(ids)-1])
	if err != nil {
		return nil, err
	}
	for i := len(ids) - 2; i >= 0; i-- {
		left, err := t.node(ctx, ids[i])
		if err != nil {
			return nil, err
		}
		acc = hashChildren(&left, &acc)
	}
	return acc[:], nil
}

// inclusion returns the proof that entry index is in the tree of the first size entries.
func (t *tree) inclusion(ctx context.Context, index, size uint64) ([][]byte, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if size > t.leaves {
		return nil, fmt.Errorf("log: no proof for %d entries in a tree of %d", size, t.leaves)
	}
	need, err := proof.Inclusion(index, size)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	hashes := make([][]byte, len(need.IDs))
	buf := make([]hash, len(need.IDs))
	for i, id := range need.IDs {
		if buf[i], err = t.node(ctx, id); err != nil {
			return nil, err
		}
		hashes[i] = buf[i][:]
	}
	return need.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
}

// node returns the hash of a complete subtree. The caller holds mu.
func (t *tree) node(ctx context.Context, id compact.NodeID) (hash, error) {
	level, inner := uint64(id.Level/tileHeight), id.Level%tileHeight
	index := id.Index >> (tileHeight - inner)
	pos := int(id.Index & (1<<(tileHeight-inner) - 1))
	if level < uint64(len(t.edge)) && index == t.leaves>>(tileHeight*(level+1)) {
		if e := t.edge[level]; (pos+1)<<inner <= e.n {
			return *e.at(inner, pos), nil
		}
		return hash{}, fmt.Errorf("log: node %d of level %d is beyond the tree", id.Index, id.Level)
	}
	full, err := t.fullTile(ctx, tileID{level, index})
	if err != nil {
		return hash{}, err
	}
	return *full.at(inner, pos), nil
}

// fullTile returns a full tile from the cache, or from disk.
func (t *tree) fullTile(ctx context.Context, id tileID) (*tile, error) {
	t.cacheMu.Lock()
	if e, ok := t.cache[id]; ok {
		t.recent.MoveToFront(e)
		t.cacheMu.Unlock()
		return e.Value.(*cached).tile, nil
	}
	t.cacheMu.Unlock()
	loaded, err := t.readTile(ctx, id.level, id.index, 0)
	if err != nil {
		return nil, err
	}
	t.remember(id, loaded)
	return loaded, nil
}

func (t *tree) remember(id tileID, full *tile) {
	t.cacheMu.Lock()
	defer t.cacheMu.Unlock()
	if _, ok := t.cache[id]; ok {
		return // another reader was faster
	}
	t.cache[id] = t.recent.PushFront(&cached{id, full})
	for len(t.cache) > cachedTiles {
		oldest := t.recent.Back()
		t.recent.Remove(oldest)
		delete(t.cache, oldest.Value.(*cached).id)
	}
}
