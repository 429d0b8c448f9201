package archive

import (
	"bytes"
	"errors"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// maxLinkHops bounds the symbolic links followed for one path, as Linux does.
const maxLinkHops = 40

// kind is what a member is.
type kind uint8

const (
	kindDir kind = iota
	kindFile
	kindLink
	// kindOther is what has no content: devices, pipes, and members that cannot be read.
	// It takes the place of what was there before.
	kindOther
)

// node is one path while a tree is made. Nodes name each other by their place in
// builder.nodes; the root is 0, which stands for none among children.
type node struct {
	path                      string
	parent, first, next, prev uint32
	data                      uint32 // into builder.entries or builder.links
	layer                     uint16
	kind                      kind
}

type childKey struct {
	parent uint32
	name   string
}

// builder makes a tree of members in the order in which they would be unpacked: it knows
// what each path is at that moment, as a file system would. Layers of an image come one
// upon the other; any other archive is one layer.
type builder struct {
	t      *Tree
	names  naming
	at     string // goes before paths in reasons
	root   string // goes before paths in the tree, with a slash at the end
	layer  uint16
	nodes  []node
	child  map[childKey]uint32
	places []entry
	links  []string
	// seconds are links that others take for files, and that are in the tree as such.
	seconds []link

	// lastDir saves looking up the same folder for each file in it.
	lastDir  string
	lastNode uint32
	charged  int64
}

func newBuilder(t *Tree, names naming) *builder {
	return &builder{t: t, names: names, nodes: make([]node, 1), child: map[childKey]uint32{}}
}

func (bd *builder) note(code sbom.ReasonCode, p, detail string) {
	bd.t.b.note(code, bd.t.prefix+bd.at+p, detail)
}

func (bd *builder) noteErr(p string, err error) { bd.t.b.noteErr(bd.t.prefix+bd.at+p, err) }

// add puts one member at its cleaned path. place is read for files, target for links.
func (bd *builder) add(p string, k kind, place *entry, target string) {
	parent, ok := bd.folder(p)
	if !ok {
		return
	}
	name := p[strings.LastIndexByte(p, '/')+1:]
	id, exists := bd.child[childKey{parent, name}]
	switch {
	case !exists:
		id = bd.insert(parent, name, p)
	case k == kindDir && bd.nodes[id].kind == kindDir:
		bd.nodes[id].layer = bd.layer
		return
	case bd.nodes[id].layer == bd.layer:
		bd.replaceSame(id, k, place, target)
	default:
		bd.clear(id)
	}
	n := &bd.nodes[id]
	n.kind, n.layer = k, bd.layer
	switch k {
	case kindFile:
		n.data = uint32(len(bd.places))
		bd.places = append(bd.places, *place)
	case kindLink:
		n.data = uint32(len(bd.links))
		bd.links = append(bd.links, target)
	}
}

// replaceSame is a path that one layer has twice. The later one wins, as it does where the
// archive is unpacked; what lay below a folder stays visible.
func (bd *builder) replaceSame(id uint32, k kind, place *entry, target string) {
	n := &bd.nodes[id]
	switch {
	case n.kind == kindOther && n.first == 0:
	case n.kind != k:
		bd.note(sbom.ReasonUnsafePath, n.path, "the same name for two kinds of things")
	case k == kindFile && !bd.sameBytes(&bd.places[n.data], place):
		bd.note(sbom.ReasonUnsafePath, n.path, "the same name twice, with different content")
	case k == kindLink && bd.links[n.data] != target:
		bd.note(sbom.ReasonUnsafePath, n.path, "the same name twice, with different targets")
	}
	bd.forget()
}

// sameBytes compares what two members store.
func (bd *builder) sameBytes(a, b *entry) bool {
	if a.packed != b.packed || a.size != b.size || a.method != b.method || a.crc != b.crc {
		return false
	}
	if a.src == b.src && a.off == b.off {
		return true
	}
	x, y := bd.t.raw(a), bd.t.raw(b)
	bufX, bufY := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, errX := io.ReadFull(x, bufX)
		m, errY := io.ReadFull(y, bufY)
		if !bytes.Equal(bufX[:n], bufY[:m]) {
			return false
		}
		if errX != nil || errY != nil {
			return n == m && isEnd(errX) && isEnd(errY)
		}
	}
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// hardlink gives a file a second name.
func (bd *builder) hardlink(p, target string) {
	id, ok := bd.find(target)
	switch {
	case !ok:
		bd.note(sbom.ReasonMalformed, p, "a hard link to what is not there")
	case bd.nodes[id].kind == kindDir:
		bd.note(sbom.ReasonMalformed, p, "a hard link to a folder")
	case bd.nodes[id].kind == kindFile:
		place := bd.places[bd.nodes[id].data]
		bd.add(p, kindFile, &place, "")
	case bd.nodes[id].kind == kindLink:
		bd.add(p, kindLink, nil, bd.links[bd.nodes[id].data])
	default:
		bd.add(p, kindOther, nil, "")
	}
}

// folder returns the node that the file p goes into, and makes what is missing of it.
func (bd *builder) folder(p string) (uint32, bool) {
	slash := strings.LastIndexByte(p, '/')
	if slash < 0 {
		return 0, true
	}
	dir := p[:slash]
	if dir == bd.lastDir {
		return bd.lastNode, true
	}
	id, ok := bd.resolve(p, dir, true)
	if ok {
		bd.lastDir, bd.lastNode = dir, id
	}
	return id, ok
}

// forget is called where a folder may have become something else.
func (bd *builder) forget() { bd.lastDir = "" }

// resolve follows dir from the root. With create it makes folders that are missing, and
// says where p, the member in question, is not where it seems.
func (bd *builder) resolve(p, dir string, create bool) (uint32, bool) {
	at, rest, hops, direct := uint32(0), dir, 0, true
	for rest != "" {
		name, after, _ := strings.Cut(rest, "/")
		switch name {
		case "", ".":
			rest = after
			continue
		case "..": // only in the target of a link; the root is its own parent
			at, rest = bd.nodes[at].parent, after
			continue
		}
		id, ok := bd.child[childKey{at, name}]
		if !ok {
			if !create {
				return 0, false
			}
			full := ""
			if direct {
				full = dir[:len(dir)-len(after)]
				full = strings.TrimSuffix(full, "/")
			}
			id = bd.insert(at, name, full)
			bd.nodes[id].layer = bd.layer
		}
		if bd.nodes[id].kind == kindLink {
			if hops++; hops > maxLinkHops {
				bd.complain(create, p, "below a symbolic link that leads nowhere")
				return 0, false
			}
			target := bd.links[bd.nodes[id].data]
			if bd.names != namesImage && direct {
				bd.complain(create, p, "below a symbolic link")
			}
			if direct = false; path.IsAbs(target) {
				at = 0
			}
			if rest = target; after != "" {
				rest = target + "/" + after
			}
			if len(rest) > 2*bd.t.b.limits.MaxPathBytes {
				bd.complain(create, p, "below a symbolic link that leads nowhere")
				return 0, false
			}
			continue
		}
		if create && bd.nodes[id].kind != kindDir {
			bd.complain(create, p, "below a path that is a file")
		}
		at, rest = id, after
	}
	return at, true
}

func (bd *builder) complain(create bool, p, detail string) {
	if create {
		bd.note(sbom.ReasonUnsafePath, p, detail)
	}
}

// find looks up a path whose folders may be links; the last element is not followed.
func (bd *builder) find(p string) (uint32, bool) {
	dir, name := path.Split(p)
	at, ok := bd.resolve(p, strings.TrimSuffix(dir, "/"), false)
	if !ok {
		return 0, false
	}
	id, ok := bd.child[childKey{at, name}]
	return id, ok
}

// insert adds a child that is not there yet. full is its path where the caller has it.
func (bd *builder) insert(parent uint32, name, full string) uint32 {
	above := bd.nodes[parent].path
	switch {
	case len(full) == len(above)+1+len(name) && strings.HasPrefix(full, above):
		name = full[len(full)-len(name):] // one string for both
	case above == "":
		full = name
	default:
		full = above + "/" + name
		bd.charge(int64(len(full)))
		name = full[len(full)-len(name):]
	}
	id := uint32(len(bd.nodes))
	first := bd.nodes[parent].first
	bd.nodes = append(bd.nodes, node{path: full, parent: parent, next: first})
	if first != 0 {
		bd.nodes[first].prev = id
	}
	bd.nodes[parent].first = id
	bd.child[childKey{parent, name}] = id
	return id
}

// charge counts names that the archive did not spell out.
func (bd *builder) charge(n int64) {
	bd.charged += n
	bd.t.indexed += n
	bd.t.b.index += n
}

// name is the last element of a node's path.
func (bd *builder) name(id uint32) string {
	p := bd.nodes[id].path
	return p[strings.LastIndexByte(p, '/')+1:]
}

// clear removes what is below a node, which stays to become something else.
func (bd *builder) clear(id uint32) {
	bd.forget()
	todo := []uint32{id}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for c := bd.nodes[at].first; c != 0; c = bd.nodes[c].next {
			delete(bd.child, childKey{at, bd.name(c)})
			todo = append(todo, c)
		}
		bd.nodes[at].first = 0
	}
}

// remove takes a node and all below it away.
func (bd *builder) remove(id uint32) {
	bd.clear(id)
	n := bd.nodes[id]
	delete(bd.child, childKey{n.parent, bd.name(id)})
	if n.prev != 0 {
		bd.nodes[n.prev].next = n.next
	} else {
		bd.nodes[n.parent].first = n.next
	}
	if n.next != 0 {
		bd.nodes[n.next].prev = n.prev
	}
}

// finish hands files and links over to the tree, in order.
func (bd *builder) finish() {
	t := bd.t
	t.entries = slices.Grow(t.entries, len(bd.places))
	before := len(t.entries)
	todo := []uint32{0}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		n := &bd.nodes[id]
		switch n.kind {
		case kindFile:
			e := bd.places[n.data]
			e.path = bd.root + n.path
			t.entries = append(t.entries, e)
		case kindLink:
			t.links = append(t.links, link{bd.root + n.path, bd.links[n.data]})
		}
		for c := n.first; c != 0; c = bd.nodes[c].next {
			todo = append(todo, c)
		}
	}
	for _, l := range bd.seconds {
		t.links = append(t.links, link{bd.root + l.path, l.target})
	}
	t.b.files += len(t.entries) - before
	t.sort()
}

// sort puts files and links into the order of their paths.
func (t *Tree) sort() {
	slices.SortFunc(t.entries, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	slices.SortFunc(t.links, func(a, b link) int { return strings.Compare(a.path, b.path) })
}
