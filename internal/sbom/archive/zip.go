package archive

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// Signatures and sizes of APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16.
const (
	zipLocal       = 0x04034b50
	zipCentral     = 0x02014b50
	zipEnd         = 0x06054b50
	zip64End       = 0x06064b50
	zip64Locator   = 0x07064b50
	zipLocalSize   = 30
	zipCentralSize = 46
	zipEndSize     = 22
	zip64EndSize   = 56
	zip64LocSize   = 20
	zipMaxComment  = 1<<16 - 1
)

// Flags of section 4.4.4.
const (
	zipEncrypted     = 1 << 0
	zipDescriptor    = 1 << 3
	zipPatched       = 1 << 5
	zipStrongCrypto  = 1 << 6
	zipMaskedHeaders = 1 << 13
)

// zipReader reads one zip.
type zipReader struct {
	bd   *builder
	r    io.ReaderAt
	size int64
	dir  zipDir
	src  uint32
	buf  []byte
}

// zipMember is one record of the central directory.
type zipMember struct {
	entry
	name   string
	header int64 // offset of the local header in the file
	flags  uint16
	mode   uint32 // of Unix, 0 where another system wrote it
	at     int    // its place in the directory
	bad    bool
	again  bool // an exact copy of the record before it
	// descriptor: who reads a stream learns its sizes behind the data.
	descriptor bool
}

// addZip puts the members of a zip into a tree.
func (bd *builder) addZip(r io.ReaderAt, size int64) {
	dir, err := bd.t.b.findZipDir(r, size)
	if err != nil {
		bd.noteErr("", err)
		return
	}
	z := &zipReader{bd: bd, r: r, size: size, dir: dir, src: bd.t.source(r)}
	if dir.twice {
		bd.note(sbom.ReasonUnsafePath, "", "a zip with two directories")
	}
	if dir.base > 0 && bytes.HasPrefix(readHead(r, size), zipMagic) {
		bd.note(sbom.ReasonUnsafePath, "", "a zip behind another one")
	}
	// The directory says how many members it has before any is read.
	if left := bd.t.b.limits.MaxEntries - bd.t.b.entries; dir.records > uint64(left) {
		bd.noteErr("", problemf(sbom.ReasonEntries, "more than %d members in all", bd.t.b.limits.MaxEntries))
		return
	}
	members, whole := z.readDir()
	z.checkLocal(members, whole)
	for i := range members {
		if m := &members[i]; !m.bad && !m.again {
			z.add(m)
		}
	}
}

// readDir reads the central directory up to its end, which whole says, or to the limits.
func (z *zipReader) readDir() (members []zipMember, whole bool) {
	b := z.bd.t.b
	in := bufio.NewReaderSize(io.NewSectionReader(z.r, z.dir.base+z.dir.offset, z.dir.size), 64<<10)
	var err error
	for i := 0; err == nil; i++ {
		if i%1024 == 0 && b.alive(z.bd.t.ctx) != nil {
			return nil, false
		}
		var m zipMember
		if m, err = z.readMember(in); err == nil {
			if err = z.bd.t.take(m.name); err == nil {
				m.at = i
				members = append(members, m)
			}
		}
	}
	switch {
	case err != io.EOF: //nolint:errorlint // readMember's own
		z.bd.noteErr("", err)
	case uint64(len(members)) != z.dir.records:
		z.bd.note(sbom.ReasonMalformed, "", "a zip that has more or fewer members than it says")
	}
	return members, err == io.EOF //nolint:errorlint // readMember's own
}

// readMember reads one record; io.EOF at the end of the directory.
func (z *zipReader) readMember(in *bufio.Reader) (m zipMember, err error) {
	broken := problemf(sbom.ReasonMalformed, "a zip directory that cannot be read to its end")
	rec, err := in.Peek(zipCentralSize)
	if err != nil {
		if len(rec) == 0 {
			return m, io.EOF
		}
		return m, broken
	}
	le := binary.LittleEndian
	if le.Uint32(rec) != zipCentral {
		return m, broken
	}
	m.flags = le.Uint16(rec[8:])
	m.method = zipMethod(le.Uint16(rec[10:]))
	m.crc = le.Uint32(rec[16:])
	m.packed, m.size = int64(le.Uint32(rec[20:])), int64(le.Uint32(rec[24:]))
	m.header = int64(le.Uint32(rec[42:]))
	m.src = z.src
	if creator := rec[5]; creator == 3 || creator == 19 { // Unix, macOS
		m.mode = le.Uint32(rec[38:]) >> 16
	}
	m.perm = uint16(m.mode & 0o777)
	if m.perm == 0 {
		m.perm = 0o644
	}
	name, extra, comment := int(le.Uint16(rec[28:])), int(le.Uint16(rec[30:])), int(le.Uint16(rec[32:]))
	if _, err := in.Discard(zipCentralSize); err != nil {
		return m, broken
	}
	text := make([]byte, name)
	if _, err := io.ReadFull(in, text); err != nil {
		return m, broken
	}
	m.name = string(text)
	fields, err := in.Peek(extra)
	if err != nil {
		return m, broken
	}
	z.readExtra(&m, fields)
	if _, err := in.Discard(extra + comment); err != nil {
		return m, broken
	}
	if m.header > z.size || m.header < 0 {
		z.bad(&m, sbom.ReasonMalformed, "a member that lies behind its archive")
		return m, nil
	}
	m.header += z.dir.base
	return m, nil
}

// readExtra takes the sizes of Zip64 (4.5.3), and looks for another name (4.6.9).
func (z *zipReader) readExtra(m *zipMember, extra []byte) {
	le := binary.LittleEndian
	seen := false
	need := m.size == 0xffffffff || m.packed == 0xffffffff || m.header == 0xffffffff
	for len(extra) >= 4 {
		tag, n := le.Uint16(extra), int(le.Uint16(extra[2:]))
		if extra = extra[4:]; n > len(extra) {
			break // old tools pad with what is no field
		}
		field := extra[:n]
		extra = extra[n:]
		switch tag {
		case 0x0001:
			if seen {
				z.bad(m, sbom.ReasonMalformed, "a member with two sizes")
				return
			}
			seen = true
			for _, v := range []*int64{&m.size, &m.packed, &m.header} {
				if *v != 0xffffffff {
					continue
				}
				if len(field) < 8 {
					z.bad(m, sbom.ReasonMalformed, "a member whose size is missing")
					return
				}
				*v = int64(le.Uint64(field))
				field = field[8:]
			}
		case 0x7075:
			if len(field) > 5 && string(field[5:]) != m.name {
				z.bd.note(sbom.ReasonUnsafePath, m.name, "a member with two names: "+string(field[5:]))
			}
		case 0x9901:
			m.flags |= zipEncrypted
		}
	}
	if need && !seen && m.header == 0xffffffff {
		z.bad(m, sbom.ReasonMalformed, "a member whose place is missing")
	}
	if m.size < 0 || m.packed < 0 || m.header < 0 {
		z.bad(m, sbom.ReasonMalformed, "a member of more than 8 EiB")
	}
}

// bad notes a member that is left out.
func (z *zipReader) bad(m *zipMember, code sbom.ReasonCode, detail string) {
	if !m.bad {
		z.bd.note(code, m.name, detail)
	}
	m.bad = true
}

// Kinds of files in the Unix mode of a member.
const (
	unixKind = 0o170000
	unixLink = 0o120000
	unixDir  = 0o040000
	unixFile = 0o100000
)

// add puts one member into the tree. Many readers know nothing of the modes of Unix and
// make a plain file of whatever has content: so does this one, whatever else it may be.
func (z *zipReader) add(m *zipMember) {
	bd := z.bd
	p, err := bd.t.b.clean(m.name, bd.names)
	if err != nil {
		bd.noteErr(m.name, err)
		return
	}
	m.path = p // for reasons
	kind, empty := m.mode&unixKind, z.empty(m)
	switch {
	case strings.HasSuffix(m.name, "/") && empty:
		if p != "" {
			bd.add(p, kindDir, nil, "")
		}
		return
	case p == "":
		bd.note(sbom.ReasonUnsafePath, m.name, "a file in the place of the root")
		return
	case strings.HasSuffix(m.name, "/"), kind == unixDir && !empty:
		bd.note(sbom.ReasonUnsafePath, p, "a folder with content")
	case kind == unixDir:
		bd.add(p, kindDir, nil, "")
		return
	case kind != 0 && kind != unixFile && kind != unixLink && !empty:
		bd.note(sbom.ReasonUnsafePath, p, "a device or a pipe with content")
	}
	switch {
	case m.size > bd.t.b.limits.MaxFileBytes:
		bd.note(sbom.ReasonFileSize, p, "a member that is too large to read")
	case m.method == methodUnknown:
		bd.unsupported(p, "a compression method")
	default:
		bd.add(p, kindFile, &m.entry, "")
		if kind == unixLink {
			z.addLink(m, p)
		}
	}
}

// headless is the size below which nobody looks at the first bytes of a file.
const headless = 4

// empty reports whether a member has no content. One that claims next to none is read to
// its end here: a walk has no reason to open it, and a lie would never show.
func (z *zipReader) empty(m *zipMember) bool {
	if m.size >= headless || m.packed == 0 || m.method == methodUnknown {
		return m.size == 0 && m.packed == 0
	}
	if m.method == methodStored {
		return false // it is as long as it says
	}
	f := z.bd.t.openEntry(&m.entry)
	defer f.Close() //nolint:errcheck // only read
	n, _ := f.ReadAt(make([]byte, headless), 0)
	return n == 0
}

// addLink gives a member that some unpack as a symbolic link its second meaning. The
// content of the file that it is for all others is the target.
func (z *zipReader) addLink(m *zipMember, p string) {
	bd := z.bd
	if m.size > int64(bd.t.b.limits.MaxPathBytes) {
		bd.note(sbom.ReasonUnsafePath, p, "a symbolic link with a target that is no path")
		return
	}
	f := bd.t.openEntry(&m.entry)
	target, err := io.ReadAll(io.LimitReader(f, int64(bd.t.b.limits.MaxPathBytes)+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return // noted by the read
	}
	bd.second(p, string(target))
}
