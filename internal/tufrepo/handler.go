package tufrepo

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Handler serves the repository below /tuf/: metadata and targets, and nothing else
// that lies in the directory. What it says belongs together: a root that another
// process has installed appears with the next Refresh, in one step with the timestamp
// that goes with it.
func (r *Repository) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		content, final := r.lookup(req.URL.Path)
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		if content == nil {
			// The next root does not exist today, and may in a minute.
			h.Set("Cache-Control", "no-store")
			http.Error(w, "not found", http.StatusNotFound)
			return
		}
		defer content.Close()
		h.Set("Cache-Control", "no-cache")
		if final {
			h.Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		h.Set("Content-Type", "application/octet-stream")
		if strings.HasSuffix(req.URL.Path, ".json") {
			h.Set("Content-Type", "application/json")
		}
		http.ServeContent(w, req, "", time.Time{}, content)
	})
}

// lookup returns what is served under a path, nil for nothing, and whether it is final.
// No part of a path gets to the file system before it has been found to be of the form
// that the repository itself gives to names.
func (r *Repository) lookup(path string) (content io.ReadSeekCloser, final bool) {
	name, ok := strings.CutPrefix(path, "/tuf/")
	if !ok {
		return nil, false
	}
	s := r.served.Load()
	if name == timestampName {
		return inMemory(s.timestamp), false
	}
	if file, ok := strings.CutPrefix(name, "targets/"); ok {
		sum, rest, _ := strings.Cut(file, ".")
		if !validDigest(sum) || !validFileName(rest) {
			return nil, false
		}
		return r.disk.open(name), true
	}
	version, role, ok := parseVersioned(name)
	if !ok {
		return nil, false
	}
	// Not what is being written, nor what a crash left over: an answer is for good.
	inForce := map[string]int64{metadata.ROOT: s.root().Version, metadata.SNAPSHOT: s.snap().Version, metadata.TARGETS: s.targets().Version}
	if version > inForce[role] {
		return nil, false
	}
	if role == metadata.ROOT {
		return inMemory(s.roots[version-1]), true
	}
	return r.disk.open(name), true
}

// open opens a file to be served from where it lies: anybody may ask for it, as often as
// they like, and slowly. nil where there is none.
func (d *disk) open(name string) io.ReadSeekCloser {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxFile {
		f.Close()
		return nil
	}
	return f
}

// buffer is content that is in memory anyway.
type buffer struct{ *bytes.Reader }

func inMemory(data []byte) buffer { return buffer{bytes.NewReader(data)} }

// Close implements io.Closer.
func (buffer) Close() error { return nil }

func validDigest(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'a' || r > 'f') {
			return false
		}
	}
	return true
}
