package archive

import (
	"bytes"
	"io"
	"path"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// Image is one root file system of an image.
type Image struct {
	// Prefix is the folder of the tree that it is in, with a slash at the end; "" where the
	// artifact has one image.
	Prefix string
	// Platform is "linux/amd64", with a variant after another slash; "" where nothing says.
	Platform string
	// Config is the image's configuration as it is, JSON.
	Config []byte
}

// Images lists the images of an OCI layout or of what "docker save" writes, in the order
// in which the archive lists them.
func (t *Tree) Images() []Image { return t.images }

// Limits of an image.
const (
	maxImages      = 64
	maxImageLayers = 512
	maxIndexDepth  = 4
	maxImageJSON   = 4 << 20
)

// imageReader turns the tree of an image archive into its root file systems.
type imageReader struct {
	outer  *Tree // the archive as it is
	t      *Tree // what becomes of it
	layers map[string]layer
	roots  []rootFS
	// used are the paths that make the image what it is.
	used map[string]bool
}

// rootFS is one image, before its layers are put upon each other.
type rootFS struct {
	image  Image
	layers []layerRef
}

// layerRef names a layer by its path in the archive.
type layerRef struct {
	path string
	// digest is of the blob, diffID of what it unpacks to; either may be "".
	digest, diffID string
}

// layer is one that was unpacked: a tar, or a file of another kind.
type layer struct {
	r    io.ReaderAt
	size int64
	tar  bool
}

// loadImage replaces the tree of a tar by the file systems of the images in it. A tree
// that has none stays as it is.
func (t *Tree) loadImage() {
	outer := *t
	outer.closers = nil
	ir := &imageReader{outer: &outer, t: t, layers: map[string]layer{}, used: map[string]bool{}}
	switch {
	case t.entry("oci-layout") != nil && t.entry("index.json") != nil:
		ir.oci()
		t.format = "oci-layout"
	case t.entry("manifest.json") != nil:
		if !ir.docker() {
			return
		}
		t.format = "docker-archive"
	default:
		return
	}
	if len(ir.roots) == 0 {
		return
	}
	t.b.files -= len(t.entries)
	t.entries, t.links = nil, nil
	ir.nameRoots()
	for i := range ir.roots {
		if t.b.alive(t.ctx) != nil {
			return
		}
		ir.merge(&ir.roots[i])
		t.images = append(t.images, ir.roots[i].image)
	}
	ir.beside()
}

// besideFolder is where what belongs to no image is.
const besideFolder = ".beside"

// beside keeps what the archive has beside its images. A runtime never looks at it; who
// unpacks the archive as the tar that it is does.
func (ir *imageReader) beside() {
	bd := newBuilder(ir.t, namesTar)
	folder := besideFolder
	for ir.t.isFolder(folder) || ir.t.entry(folder) != nil || ir.t.link(folder) != nil {
		folder += "_"
	}
	bd.root = folder + "/"
	for i := range ir.outer.entries {
		if e := &ir.outer.entries[i]; !ir.belongs(e.path) {
			bd.add(e.path, kindFile, e, "")
		}
	}
	for _, l := range ir.outer.links {
		if ir.belongs(l.path) {
			continue
		}
		if path.IsAbs(l.target) {
			l.target = "/" + folder + l.target
		}
		bd.add(l.path, kindLink, nil, l.target)
	}
	bd.finish()
}

// belongs reports whether a path is part of what OCI image-spec, image-layout.md, or "docker
// save" has in an archive: used for an image, or named for what it is and nothing else.
func (ir *imageReader) belongs(p string) bool {
	switch p {
	case "oci-layout", "index.json", "manifest.json", "repositories":
		return true
	}
	dir, base := path.Split(p)
	dir = strings.TrimSuffix(dir, "/")
	switch {
	case ir.used[p]:
		return true
	case strings.HasPrefix(dir, "blobs/"):
		return strings.Count(dir, "/") == 1 && len(base) >= 64 && isHex(base)
	case base == "json", base == "VERSION", base == "layer.tar":
		return len(dir) == 64 && isHex(dir) && (base != "layer.tar" || ir.outer.entry(p) == nil)
	}
	return false
}

// merge puts the layers of one image upon each other.
func (ir *imageReader) merge(root *rootFS) {
	bd := newBuilder(ir.t, namesImage)
	bd.root = root.image.Prefix
	for _, ref := range root.layers {
		l, ok := ir.layer(ref)
		if !ok {
			continue
		}
		bd.at = ref.path + "!/"
		bd.layer++
		if l.tar {
			bd.addTar(l.r, l.size, "")
		} else {
			bd.add(ref.path, kindFile, &entry{size: l.size, packed: l.size, src: ir.t.source(l.r), perm: 0o644}, "")
		}
	}
	bd.finish()
}

// layer opens and verifies a layer, once for all images that have it.
func (ir *imageReader) layer(ref layerRef) (layer, bool) {
	if l, ok := ir.layers[ref.path]; ok {
		return l, l.r != nil
	}
	l := ir.openLayer(ref)
	ir.layers[ref.path] = l
	return l, l.r != nil
}

func (ir *imageReader) openLayer(ref layerRef) layer {
	t := ir.t
	where := t.prefix + ref.path
	p, err := ir.outer.follow("open", ref.path)
	e := ir.outer.entry(p)
	ir.used[p], ir.used[ref.path] = true, true
	if err != nil || e == nil {
		t.b.note(sbom.ReasonMalformed, where, "a layer that is not in the archive")
		return layer{}
	}
	blob := ir.outer.raw(e) // members of a tar are stored
	if ref.digest != "" {
		t.verify(where, blob, ref.digest)
	}
	r, size, isTar := t.unpackTar(blob, where)
	if ref.digest == "" && ref.diffID != "" && isTar {
		t.verify(where, io.NewSectionReader(r, 0, size), ref.diffID)
	}
	return layer{r, size, isTar}
}

// unpackTar returns a tar that may be compressed, ready for any place to be read. Where
// it is no tar the bytes come back as they are.
func (t *Tree) unpackTar(blob *io.SectionReader, where string) (io.ReaderAt, int64, bool) {
	s, m, _ := recognise(readHead(blob, blob.Size()))
	switch s {
	case shapeTar:
		return blob, blob.Size(), true
	case shapePacked:
		sp := t.spool(m, blob)
		sp.fill(headBytes)
		if head := readHead(sp, sp.filled); !isTar(head) && !isZero(head) {
			return blob, blob.Size(), false
		}
		if err := sp.all(); err != nil {
			t.b.noteErr(where, err)
		}
		return sp, sp.filled, true
	}
	return blob, blob.Size(), isZero(readHead(blob, blob.Size()))
}

// isZero reports the beginning of an empty tar, which has no header: two blocks of zeros,
// or nothing.
func isZero(head []byte) bool {
	return len(bytes.Trim(head, "\x00")) == 0
}

// spool unpacks r as far as it is read; it is closed with the tree.
func (t *Tree) spool(m method, r *io.SectionReader) *spool {
	s := &spool{b: t.b, ctx: t.ctx, want: -1, charged: new(int64)}
	s.next = func() (decoder, error) { return t.b.openDecoder(m, io.NewSectionReader(r, 0, r.Size())) }
	t.closers = append(t.closers, s)
	return s
}

// Marks of a layer for what it takes away from the layers below (OCI image-spec, layer.md).
const (
	whiteoutMark   = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutAUFS   = ".wh..wh."
)

// whiteout applies a member that says what is gone, and reports whether p was one.
func (bd *builder) whiteout(p string) bool {
	dir, name := path.Split(p)
	dir = strings.TrimSuffix(dir, "/")
	if !strings.HasPrefix(name, whiteoutMark) {
		return false
	}
	gone := name[len(whiteoutMark):]
	switch {
	case name == whiteoutOpaque:
		if at, ok := bd.resolve(p, dir, false); ok {
			bd.removeBelow(at)
		}
	case strings.HasPrefix(name, whiteoutAUFS): // what AUFS keeps for itself
	case gone == "" || gone == "." || gone == "..":
		bd.note(sbom.ReasonUnsafePath, p, "a whiteout of no file")
	default:
		id, ok := bd.find(path.Join(dir, gone))
		if !ok {
			break
		}
		if bd.nodes[id].layer == bd.layer {
			bd.note(sbom.ReasonUnsafePath, p, "a whiteout of what the same layer brings")
		}
		bd.removeLower(id)
	}
	return true
}

// removeBelow takes away what earlier layers put into a folder. What this layer has put
// there stays, wherever in the layer the mark is.
func (bd *builder) removeBelow(at uint32) {
	for c := bd.nodes[at].first; c != 0; {
		next := bd.nodes[c].next
		bd.removeLower(c)
		c = next
	}
	bd.forget()
}

// removeLower takes away a path and what is below, but for what this layer has put there.
func (bd *builder) removeLower(id uint32) {
	todo := []uint32{id}
	var visited []uint32
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		visited = append(visited, at)
		for c := bd.nodes[at].first; c != 0; c = bd.nodes[c].next {
			todo = append(todo, c)
		}
	}
	// Children come after their parents: backwards, a folder is empty when its turn comes.
	for i := len(visited) - 1; i >= 0; i-- {
		n := &bd.nodes[visited[i]]
		switch {
		case n.layer == bd.layer:
		case n.first == 0:
			bd.remove(visited[i])
		default:
			n.kind, n.layer = kindDir, bd.layer
		}
	}
	bd.forget()
}
