package archive

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// Headers are small and mostly far apart: more than glimpseBytes is read only where they
// follow each other.
const glimpseBytes = 1 << 10

const windowBytes = 8 << 10

// window reads headers: it fetches little at a time and seeks for free, so that members
// which are skipped are never read.
type window struct {
	r    io.ReaderAt
	size int64
	off  int64
	buf  [windowBytes]byte
	at   int64 // where buf starts
	n    int   // how much of it is there
}

func (w *window) Read(p []byte) (int, error) {
	if w.off >= w.size {
		return 0, io.EOF
	}
	if w.off < w.at || w.off >= w.at+int64(w.n) {
		if err := w.load(); err != nil {
			return 0, err
		}
	}
	n := copy(p, w.buf[w.off-w.at:w.n])
	w.off += int64(n)
	return n, nil
}

// load fetches what is at the current offset.
func (w *window) load() error {
	n := int64(glimpseBytes)
	if d := w.off - w.at - int64(w.n); d <= 0 && d > -tarBlock && w.n > 0 {
		n = windowBytes
	}
	n, w.at = min(n, w.size-w.off), w.off
	var err error
	if w.n, err = w.r.ReadAt(w.buf[:n], w.off); w.n > 0 {
		return nil
	}
	return err
}

func (w *window) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += w.off
	case io.SeekEnd:
		offset += w.size
	}
	if offset < 0 {
		return 0, errors.New("archive: negative offset")
	}
	w.off = offset
	return offset, nil
}

// page returns the n bytes at the current offset, or nil near the end.
func (w *window) page(n int) []byte {
	if w.off < w.at || w.off+int64(n) > w.at+int64(w.n) {
		if w.off < 0 || w.off+int64(n) > w.size {
			return nil
		}
		if w.load() != nil || w.n < n {
			return nil
		}
	}
	return w.buf[w.off-w.at:][:n]
}

// tarMember is what a header says, and where the data are.
type tarMember struct {
	name, target string
	typ          byte
	mode         int64
	off, size    int64
	sparse       bool
	// odd says why other readers may see another member here, "" where none would.
	odd string
}

// tarIndex lists the members of a tar. Plain headers, which nearly all are, are read here;
// whatever is more than a name, a size and a sum that is right is left to the standard
// library: PAX records, long names, large numbers, and all that is broken.
type tarIndex struct {
	w *window
	// lib goes on after a sparse member, since it alone knows how long that is.
	lib *tar.Reader
}

// next reads the next member; io.EOF after the last one.
func (ix *tarIndex) next() (m tarMember, err error) {
	if ix.lib == nil {
		if block := ix.w.page(tarBlock); block != nil && plainHeader(block, &m) {
			m.off = ix.w.off + tarBlock
			ix.w.off = m.off + (m.size+tarBlock-1)/tarBlock*tarBlock
			return m, nil
		}
		ix.lib = tar.NewReader(ix.w)
	}
	h, err := ix.lib.Next()
	if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
		return m, err
	}
	m = tarMember{name: h.Name, target: h.Linkname, typ: h.Typeflag, mode: h.Mode, off: ix.w.off, size: h.Size}
	if m.sparse = isSparse(h); m.sparse {
		return m, nil
	}
	ix.lib = nil
	m.odd = ix.oddity(h)
	if m.typ >= tar.TypeLink && m.typ <= tar.TypeFifo {
		m.size = 0 // these have no data, whatever they say
	}
	ix.w.off = ix.w.size
	if m.size <= ix.w.size-m.off { // a size of 8 EiB would wrap around
		ix.w.off = (m.off + m.size + tarBlock - 1) / tarBlock * tarBlock
	}
	return m, nil
}

const tarBlock = 512

// plainHeader reads a header of POSIX, GNU or V7 that has no need of extensions. It says no
// where in doubt.
func plainHeader(block []byte, m *tarMember) bool {
	typ := block[156]
	switch typ {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
	default:
		return false
	}
	ustar := string(block[257:265]) == "ustar\x0000" && string(block[508:512]) != "tar\x00"
	gnu := string(block[257:265]) == "ustar  \x00" && block[345] == 0
	if block[0] == 0 || !ustar && !gnu && !isZero(block[257:]) { // the last is the form of Unix V7
		return false
	}
	sum, ok1 := checksum(block[148:156])
	size, ok2 := octal(block[124:136])
	mode, ok3 := octal(block[100:108])
	if !ok1 || !ok2 || !ok3 || sum != tarSum(block) || typ != tar.TypeReg && size != 0 {
		return false
	}
	name := cString(block[:100])
	if ustar && block[345] != 0 {
		m.name = string(cString(block[345:500])) + "/" + string(name)
	} else {
		m.name = string(name)
	}
	m.typ, m.mode = typ, mode
	if typ == tar.TypeReg {
		m.size = size
	}
	if typ == tar.TypeSymlink || typ == tar.TypeLink {
		m.target = string(cString(block[157:257]))
	}
	return true
}

// tarSum adds up the bytes of a header, its checksum read as spaces.
func tarSum(block []byte) int64 {
	const even = 0x00ff00ff00ff00ff
	var lanes uint64 // four sums of 16 bits: 128 bytes each are within them
	for i := 0; i < tarBlock; i += 8 {
		v := binary.LittleEndian.Uint64(block[i:])
		lanes += v&even + v>>8&even
	}
	sum := int64(lanes&0xffff + lanes>>16&0xffff + lanes>>32&0xffff + lanes>>48)
	for _, c := range block[148:156] {
		sum += ' ' - int64(c)
	}
	return sum
}

// octal reads digits that end with a space, a NUL or the field.
func octal(field []byte) (n int64, ok bool) {
	i := 0
	for i < len(field) && field[i] == ' ' {
		i++
	}
	start := i
	for ; i < len(field) && field[i] >= '0' && field[i] <= '7'; i++ {
		n = n<<3 | int64(field[i]-'0')
	}
	ok = i > start
	for ; i < len(field); i++ {
		ok = ok && (field[i] == ' ' || field[i] == 0)
	}
	return n, ok
}

// checksum reads the sum of a header, which GNU tar and others accept in base 256 too.
func checksum(field []byte) (int64, bool) {
	if field[0] != 0x80 {
		return octal(field)
	}
	n := int64(0)
	for _, c := range field[1:] {
		n = n<<8 | int64(c)
	}
	return n, true
}

func cString(field []byte) []byte {
	if i := bytes.IndexByte(field, 0); i >= 0 {
		return field[:i]
	}
	return field
}

// addTar puts the members of a tar into a tree. below is the folder they go to, "" or with
// a slash at the end.
func (bd *builder) addTar(r io.ReaderAt, size int64, below string) {
	t := bd.t
	src := t.source(r)
	ix := tarIndex{w: &window{r: r, size: size}}
	for i := 0; ; i++ {
		if i%256 == 0 && t.b.alive(t.ctx) != nil {
			return
		}
		m, err := ix.next()
		if err != nil {
			bd.endTar(r, ix.w.off, size, err)
			return
		}
		if err := t.take(m.name); err != nil {
			bd.noteErr("", err)
			return
		}
		bd.addTarMember(&m, src, size, below)
	}
}

// endTar judges how a tar ends.
func (bd *builder) endTar(r io.ReaderAt, at, size int64, err error) {
	switch {
	case bd.t.b.err != nil:
	case !errors.Is(err, io.EOF):
		bd.note(sbom.ReasonMalformed, "", "a tar that cannot be read to its end")
	case !bd.zeros(r, at, size):
		bd.note(sbom.ReasonUnsafePath, "", "data behind the end of a tar, where some read on")
	}
}

// zeros reports whether nothing but padding is between two places.
func (bd *builder) zeros(r io.ReaderAt, from, to int64) bool {
	if from >= to {
		return true
	}
	buf := make([]byte, min(to-from, 64<<10))
	padding := make([]byte, len(buf))
	for from < to && bd.t.b.alive(bd.t.ctx) == nil {
		n, err := r.ReadAt(buf[:min(to-from, int64(len(buf)))], from)
		if !bytes.Equal(buf[:n], padding[:n]) {
			return false
		}
		if from += int64(n); err != nil {
			break
		}
	}
	return true
}

// addTarMember puts one member into the tree.
func (bd *builder) addTarMember(m *tarMember, src uint32, size int64, below string) {
	if m.odd != "" {
		bd.note(sbom.ReasonUnsafePath, m.name, m.odd)
	}
	if m.typ == tar.TypeXGlobalHeader || m.typ == typeVolume {
		return
	}
	p, err := bd.t.b.clean(m.name, bd.names)
	if err != nil {
		bd.noteErr(m.name, err)
		return
	}
	if p == "" {
		return // the root itself
	}
	p = below + p
	if bd.names == namesImage && bd.whiteout(p) {
		return
	}
	switch m.typ {
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		bd.add(p, kindOther, nil, "")
	case tar.TypeDir, typeDumpDir:
		bd.add(p, kindDir, nil, "")
	case tar.TypeSymlink:
		bd.addLink(p, m.target)
	case tar.TypeLink:
		target, err := bd.t.b.clean(m.target, bd.names)
		if err != nil {
			bd.note(sbom.ReasonUnsafePath, p, "a hard link that leads out")
			return
		}
		bd.hardlink(p, below+target)
	default: // POSIX has it that what is of no known type is a regular file
		bd.addTarFile(m, &entry{off: m.off, packed: m.size, size: m.size, src: src, perm: uint16(m.mode & 0o777)}, p, size)
	}
}

func (bd *builder) addTarFile(m *tarMember, e *entry, p string, size int64) {
	switch {
	case m.sparse:
		bd.unsupported(p, "a sparse file")
	case e.size < 0 || e.size > size-e.off:
		bd.note(sbom.ReasonMalformed, p, "a member that ends behind its archive")
	case e.size > bd.t.b.limits.MaxFileBytes:
		bd.note(sbom.ReasonFileSize, p, "a member that is too large to read")
	case strings.HasSuffix(m.name, "/"):
		if e.size > 0 {
			bd.note(sbom.ReasonUnsafePath, p, "a folder with content")
		}
		bd.add(p, kindDir, nil, "")
	default:
		bd.add(p, kindFile, e, "")
	}
}

// unsupported notes a member that cannot be read, and keeps its place.
func (bd *builder) unsupported(p, what string) {
	bd.note(sbom.ReasonUnsupported, p, what+", which is not read")
	bd.add(p, kindOther, nil, "")
}

// take counts a member against the budget, for as long as the tree is open.
func (t *Tree) take(name string) error {
	before := t.b.index
	err := t.b.takeEntry(name)
	t.indexed += t.b.index - before
	return err
}
