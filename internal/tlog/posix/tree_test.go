package posix

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

// publicTiles builds the tiles of a log from its leaves, independently of tree.
type publicTiles struct {
	leaves []hash
	roots  []hash // roots[n] is the root of the first n leaves
	levels [][]hash
	reads  int
}

func newPublicTiles(t *testing.T, n int) *publicTiles {
	t.Helper()
	p := &publicTiles{levels: make([][]hash, 3)}
	r := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	visit := func(id compact.NodeID, h []byte) {
		if id.Level%layout.TileHeight == 0 && id.Level > 0 {
			p.levels[id.Level/layout.TileHeight] = append(p.levels[id.Level/layout.TileHeight], hash(h))
		}
	}
	p.roots = append(p.roots, hash(rfc6962.DefaultHasher.EmptyRoot()))
	for i := range n {
		leaf := tlog.LeafHash([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		p.leaves = append(p.leaves, leaf)
		if err := r.Append(leaf[:], visit); err != nil {
			t.Fatal(err)
		}
		root, err := r.GetRootHash(nil)
		if err != nil {
			t.Fatal(err)
		}
		p.roots = append(p.roots, hash(root))
	}
	p.levels[0] = p.leaves
	return p
}

// read serves tiles as the files of a log do.
func (p *publicTiles) read(_ context.Context, level, index uint64, partial uint8) ([]byte, error) {
	p.reads++
	n := tileWidth
	if partial > 0 {
		n = int(partial)
	}
	from := int(index) * tileWidth
	if level >= uint64(len(p.levels)) || from+n > len(p.levels[level]) {
		return nil, fs.ErrNotExist
	}
	var out []byte
	for _, h := range p.levels[level][from : from+n] {
		out = append(out, h[:]...)
	}
	return out, nil
}

// Grown leaf by leaf, the tree has the roots of an independent computation, and
// loading it at any size gives the same tree.
func TestTreeRoots(t *testing.T) {
	t.Parallel()
	p := newPublicTiles(t, 700)
	grown := newTree(p.read)
	for size := range len(p.leaves) + 1 {
		loaded, err := loadTree(t.Context(), uint64(size), p.read)
		if err != nil {
			t.Fatal(err)
		}
		for _, tr := range []*tree{grown, loaded} {
			n, root, err := tr.root(t.Context())
			if err != nil || n != uint64(size) || hash(root) != p.roots[size] {
				t.Fatalf("size %d: %d entries, root %x, %v", size, n, root, err)
			}
		}
		if size < len(p.leaves) {
			grown.append(p.leaves[size : size+1])
		}
	}
	if p.reads > 3*701 {
		t.Errorf("%d tile reads", p.reads)
	}
	if _, err := grown.rootAt(t.Context(), 701); err == nil {
		t.Error("root of more entries than there are")
	}
}

// Every proof in every tree of up to 300 entries, and a sample around 256².
func TestTreeProofs(t *testing.T) {
	t.Parallel()
	p := newPublicTiles(t, 300)
	tr := newTree(p.read)
	tr.append(p.leaves)
	for size := uint64(1); size <= 300; size++ {
		for index := range size {
			checkProof(t, tr, p, index, size)
		}
	}
	p = newPublicTiles(t, 66100)
	if tr, err := loadTree(t.Context(), 66100, p.read); err != nil {
		t.Fatal(err)
	} else {
		for range 3000 {
			size := 65500 + rand.Uint64N(601)
			checkProof(t, tr, p, rand.Uint64N(size), size)
		}
		if len(tr.cache) > cachedTiles || tr.recent.Len() != len(tr.cache) {
			t.Errorf("%d tiles cached, %d listed", len(tr.cache), tr.recent.Len())
		}
	}
	for _, bad := range [][2]uint64{{300, 300}, {0, 0}, {0, 301}, {1 << 63, 300}} {
		if _, err := tr.inclusion(t.Context(), bad[0], bad[1]); err == nil {
			t.Errorf("a proof for entry %d of %d", bad[0], bad[1])
		}
	}
}

func checkProof(t *testing.T, tr *tree, p *publicTiles, index, size uint64) {
	t.Helper()
	hashes, err := tr.inclusion(t.Context(), index, size)
	if err != nil {
		t.Fatal(err)
	}
	if err := tlog.VerifyInclusion(index, size, p.leaves[index], hashes, p.roots[size][:]); err != nil {
		t.Fatal(err)
	}
}

// The cache is bounded, and what fell out is read again.
func TestTreeCacheIsBounded(t *testing.T) {
	t.Parallel()
	const n = (cachedTiles + 40) * tileWidth
	p := newPublicTiles(t, n+1)
	tr := newTree(p.read)
	tr.append(p.leaves)
	if len(tr.cache) != cachedTiles {
		t.Fatalf("%d tiles cached", len(tr.cache))
	}
	for _, index := range []uint64{0, 255, 256, n / 2, n} {
		checkProof(t, tr, p, index, n+1)
		checkProof(t, tr, p, index%300, 300)
	}
	if len(tr.cache) != cachedTiles {
		t.Fatalf("%d tiles cached", len(tr.cache))
	}
	if p.reads == 0 {
		t.Error("nothing was read back")
	}
}

// A bit flipped in any hash of any tile must show: either the root of the tree
// is another one, or a proof that uses the hash does not verify. A proof that
// verifies in spite of it cannot depend on it.
func TestEveryFlippedHashShows(t *testing.T) {
	t.Parallel()
	const size = 300
	p := newPublicTiles(t, size)
	for level, hashes := range p.levels {
		for i := range hashes {
			hashes[i][i%32] ^= 1 << (i % 8)
			shown := false
			tr, err := loadTree(t.Context(), size, p.read)
			if err != nil {
				t.Fatal(err)
			}
			root, err := tr.rootAt(t.Context(), size)
			if err != nil {
				t.Fatal(err)
			}
			shown = hash(root) != p.roots[size]
			for index := uint64(0); index < size && !shown; index += 7 {
				leaf := tlog.LeafHash([]byte{byte(index), byte(index >> 8), 0})
				proof, err := tr.inclusion(t.Context(), index, size)
				if err != nil {
					t.Fatal(err)
				}
				shown = tlog.VerifyInclusion(index, size, leaf, proof, p.roots[size][:]) != nil
			}
			if !shown {
				t.Errorf("flipped hash %d of level %d was not noticed", i, level)
			}
			hashes[i][i%32] ^= 1 << (i % 8)
		}
	}
}

func TestTreeReadErrors(t *testing.T) {
	t.Parallel()
	p := newPublicTiles(t, 300)
	eio := errors.New("input/output error")
	tests := []struct {
		name string
		read readTileFunc
		code refusal.Code
	}{
		{"missing", func(context.Context, uint64, uint64, uint8) ([]byte, error) { return nil, fs.ErrNotExist }, CodeCorrupt},
		{"short", func(context.Context, uint64, uint64, uint8) ([]byte, error) { return make([]byte, 32), nil }, CodeCorrupt},
		{"ragged", func(context.Context, uint64, uint64, uint8) ([]byte, error) { return make([]byte, 32*44+1), nil }, CodeCorrupt},
		{"too long", func(context.Context, uint64, uint64, uint8) ([]byte, error) { return make([]byte, 32*257), nil }, CodeCorrupt},
		{"unreadable", func(context.Context, uint64, uint64, uint8) ([]byte, error) { return nil, eio }, ""},
	}
	for _, tt := range tests {
		_, err := loadTree(t.Context(), 300, tt.read)
		if err == nil || refusal.CodeOf(err) != tt.code {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.code)
		}
		tr := newTree(tt.read) // and while proving, when a tile fell out of the cache
		tr.append(p.leaves)
		clear(tr.cache)
		_, err = tr.inclusion(t.Context(), 0, 300)
		if tt.name != "ragged" && (err == nil || refusal.CodeOf(err) != tt.code) {
			t.Errorf("%s: proof gives %v, want %s", tt.name, err, tt.code)
		}
	}
}

// A full disk is told from a broken one even where the cause was cut to a text.
func TestWriteErrorCodes(t *testing.T) {
	t.Parallel()
	tests := map[string]refusal.Code{
		"failed to create temp file: write /x: no space left on device":    CodeDiskFull,
		"failed to create temp file: write /x: disk quota exceeded":        CodeDiskFull,
		`failed to sync "/x": sync /x: no space left on device`:            CodeWriteFailed,
		`failed to sync "/x": sync /x: input/output error`:                 CodeWriteFailed,
		"failed to rename temporary file to target: read-only file system": CodeWriteFailed,
	}
	for text, code := range tests {
		if got := refusal.CodeOf(writeError(errors.New(text))); got != code {
			t.Errorf("%q gets %s, want %s", text, got, code)
		}
	}
	if writeError(nil) != nil {
		t.Error("no error gets a code")
	}
}
