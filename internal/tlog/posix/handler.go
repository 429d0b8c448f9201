package posix

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/transparency-dev/tessera/api/layout"
)

// Handler serves the log to the world, read only, in the layout of
// c2sp.org/tlog-tiles: /checkpoint, /tile/<level>/<index>, /tile/entries/<index>
// and their partial forms. Everything else is not found: names are parsed to
// numbers, never joined to a path.
//
// What is served never changes, so it may be cached for ever. For that a
// partial tile is cut from the one the tree stands on, and its own file is not
// read: a batch that was killed before its commit point may have left other
// hashes there.
func (l *Log) Handler() http.Handler {
	return (&site{files: l.reader, logger: l.cfg.Logger, size: func(ctx context.Context, least uint64) (uint64, error) {
		if size := l.Size(); size >= least {
			return size, nil
		}
		// Tessera publishes a tree a moment before we have read it back.
		return l.reader.IntegratedSize(ctx)
	}}).handler()
}

// files are those of a log, as Tessera reads them.
type files interface {
	ReadCheckpoint(ctx context.Context) ([]byte, error)
	ReadTile(ctx context.Context, level, index uint64, partial uint8) ([]byte, error)
	ReadEntryBundle(ctx context.Context, index uint64, partial uint8) ([]byte, error)
}

// site serves the files of a log.
type site struct {
	files  files
	logger *slog.Logger
	// size returns the size of the tree, read again where what is known is less than
	// least.
	size func(ctx context.Context, least uint64) (uint64, error)
}

func (l *site) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		if r.URL.Path == "/"+layout.CheckpointPath {
			data, err := l.files.ReadCheckpoint(r.Context())
			l.serve(w, r, data, err, "text/plain; charset=utf-8", "no-cache")
			return
		}
		res, ok := parseResource(r.URL.Path)
		if !ok {
			http.NotFound(w, r)
			return
		}
		data, err := l.resource(r.Context(), res)
		l.serve(w, r, data, err, "application/octet-stream", "public, max-age=31536000, immutable")
	})
}

func (l *site) serve(w http.ResponseWriter, r *http.Request, data []byte, err error, contentType, cache string) {
	if errors.Is(err, fs.ErrNotExist) {
		http.NotFound(w, r)
		return
	}
	if err != nil {
		l.logger.ErrorContext(r.Context(), "log: serving a file", "path", r.URL.Path, "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", cache)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// resource reads a tile or bundle; fs.ErrNotExist if the tree does not cover it.
func (l *site) resource(ctx context.Context, res resource) ([]byte, error) {
	size, err := l.size(ctx, res.end())
	if err != nil {
		return nil, err
	}
	if !res.within(size) {
		return nil, fs.ErrNotExist
	}
	standing := layout.PartialTileSize(res.level, res.index, size)
	if res.entries {
		data, err := l.files.ReadEntryBundle(ctx, res.index, standing)
		if err != nil {
			return nil, err
		}
		return cutBundle(data, res.width())
	}
	data, err := l.files.ReadTile(ctx, res.level, res.index, standing)
	if err != nil {
		return nil, err
	}
	if len(data) < res.width()*sha256.Size {
		return nil, errShort
	}
	return data[:res.width()*sha256.Size], nil
}

var errShort = errors.New("file is shorter than the tree says")

// cutBundle returns the first n entries of an entry bundle.
func cutBundle(data []byte, n int) ([]byte, error) {
	end := 0
	for range n {
		if len(data) < end+2 {
			return nil, errShort
		}
		end += 2 + int(binary.BigEndian.Uint16(data[end:]))
	}
	if len(data) < end {
		return nil, errShort
	}
	return data[:end], nil
}

// resource is a tile or an entry bundle.
type resource struct {
	entries bool
	level   uint64 // 0 for entries
	index   uint64
	partial uint8 // 0 for a full one
}

// SPEC (tlog-tiles): /tile/<L>/<N>[.p/<W>] with L in 0..63 without leading
// zeros and N in groups of three digits, all but the last prefixed with x.
// Eight levels of 256 hold 2^64 entries; seven groups hold 2^64 / 256 tiles.
var resourcePattern = regexp.MustCompile(`^/tile/(entries|[0-7])/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?$`)

// parseResource reads a URL path. It accepts exactly the spelling that path writes.
func parseResource(p string) (resource, bool) {
	m := resourcePattern.FindStringSubmatch(p)
	if m == nil {
		return resource{}, false
	}
	var r resource
	if r.entries = m[1] == "entries"; !r.entries {
		r.level = uint64(m[1][0] - '0')
	}
	for _, group := range strings.Split(m[2], "/") {
		n, err := strconv.ParseUint(strings.TrimPrefix(group, "x"), 10, 64)
		if err != nil || r.index > (1<<56)/1000 {
			return resource{}, false
		}
		r.index = r.index*1000 + n
	}
	if m[3] != "" {
		n, err := strconv.ParseUint(m[3], 10, 8)
		if err != nil {
			return resource{}, false
		}
		r.partial = uint8(n)
	}
	return r, "/"+r.path() == p
}

// path returns the name of the file, with slashes.
func (r resource) path() string {
	if r.entries {
		return layout.EntriesPath(r.index, r.partial)
	}
	return layout.TilePath(r.level, r.index, r.partial)
}

// width returns the number of hashes or entries.
func (r resource) width() int {
	if r.partial == 0 {
		return tileWidth
	}
	return int(r.partial)
}

// end returns the size of the smallest tree that covers the resource, as far as 64 bits
// can say it.
func (r resource) end() uint64 {
	nodes := r.index*tileWidth + uint64(r.width())
	if shift := tileHeight * r.level; nodes <= math.MaxUint64>>shift {
		return nodes << shift
	}
	return math.MaxUint64
}

// within reports whether a tree of the given size covers the whole resource.
func (r resource) within(size uint64) bool {
	nodes := size >> (tileHeight * r.level) // complete nodes at the bottom of the tile's level
	if r.partial > 0 {
		return r.index < nodes/tileWidth || r.index == nodes/tileWidth && uint64(r.partial) <= nodes%tileWidth
	}
	return r.index < nodes/tileWidth
}
