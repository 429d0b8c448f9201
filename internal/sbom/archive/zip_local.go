package archive

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"io"
	"slices"

	"github.com/assay-build/assay/internal/sbom"
)

// checkLocal compares each member with the header before its data, and finds where the
// data are. Readers that unpack a stream see those headers alone: where the two disagree,
// the archive is one thing to them and another to who reads the directory. Members that
// share bytes are left out but for the first: sharing is how 10 MB of zip become 10 TB.
func (z *zipReader) checkLocal(members []zipMember, whole bool) {
	order := make([]int32, len(members))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(members[a].header, members[b].header), cmp.Compare(a, b))
	})
	w := &window{r: z.r, size: z.size}
	limit := z.dir.base + z.dir.offset
	last := int64(-1) // the header before this one
	end := z.dir.base // where the data before this one end
	var prev *zipMember
	for n, i := range order {
		if n%1024 == 0 && z.bd.t.b.alive(z.bd.t.ctx) != nil {
			return
		}
		m := &members[i]
		if m.bad {
			continue
		}
		if prev != nil && m.header == last && m.name == prev.name {
			if m.again = m.says(prev); !m.again {
				z.bad(m, sbom.ReasonUnsafePath, "the same name twice, with different content")
			}
			continue
		}
		if m.header < end {
			z.bad(m, sbom.ReasonMalformed, "a member that shares bytes with another")
			continue
		}
		if whole {
			z.hidden(w, end, m.header)
		}
		if z.readLocal(w, m, limit) {
			last, end, prev = m.header, m.off+m.packed, m
		}
		z.inside(m)
	}
	if whole && !slices.ContainsFunc(members, func(m zipMember) bool { return m.bad }) {
		z.hidden(w, end, limit)
	}
}

// says reports whether two records of the directory say the same of one member.
func (m *zipMember) says(of *zipMember) bool {
	return m.packed == of.packed && m.size == of.size && m.method == of.method && m.crc == of.crc &&
		m.flags == of.flags && m.mode == of.mode
}

// readLocal reads and compares one local header.
func (z *zipReader) readLocal(w *window, m *zipMember, limit int64) bool {
	le := binary.LittleEndian
	var rec [zipLocalSize]byte
	w.off = m.header
	if _, err := io.ReadFull(w, rec[:]); err != nil || le.Uint32(rec[:]) != zipLocal {
		z.bad(m, sbom.ReasonMalformed, "a member whose data are missing")
		return false
	}
	nameLen, extraLen := int64(le.Uint16(rec[26:])), int64(le.Uint16(rec[28:]))
	m.off = m.header + zipLocalSize + nameLen + extraLen
	if m.off > limit || m.packed > limit-m.off {
		z.bad(m, sbom.ReasonMalformed, "a member that reaches into the directory")
		return false
	}
	flags := le.Uint16(rec[6:])
	if (m.flags|flags)&(zipEncrypted|zipStrongCrypto|zipMaskedHeaders) != 0 {
		z.bad(m, sbom.ReasonEncrypted, "an encrypted member")
		return true // its bytes are taken
	}
	if !sameName(w, m.name, nameLen) {
		z.bd.note(sbom.ReasonUnsafePath, m.name, "a member with another name before its data")
	}
	if zipMethod(le.Uint16(rec[8:])) != m.method {
		z.bd.note(sbom.ReasonMalformed, m.name, "a member with another compression before its data")
	}
	z.sizes(rec[:], m, flags)
	m.descriptor = flags&zipDescriptor != 0
	if m.method == methodStored && m.packed != m.size {
		z.bad(m, sbom.ReasonMalformed, "a member that is stored, with two sizes")
	}
	if m.flags&zipPatched != 0 {
		z.bad(m, sbom.ReasonUnsupported, "a patch for a member")
	}
	return true
}

// sizes compares what the local header says of sizes and checksum, where it says it: with
// a descriptor after the data, the header may leave them out.
func (z *zipReader) sizes(rec []byte, m *zipMember, flags uint16) {
	le := binary.LittleEndian
	differs := func(local, central uint32) bool {
		return local != central && local != 0xffffffff && (local != 0 || flags&zipDescriptor == 0)
	}
	packed, size := uint32(min(m.packed, 0xffffffff)), uint32(min(m.size, 0xffffffff))
	if differs(le.Uint32(rec[14:]), m.crc) || differs(le.Uint32(rec[18:]), packed) || differs(le.Uint32(rec[22:]), size) {
		z.bd.note(sbom.ReasonMalformed, m.name, "a member with another size or checksum before its data")
	}
}

func sameName(w *window, name string, n int64) bool {
	if n != int64(len(name)) {
		return false
	}
	var buf [256]byte
	for len(name) > 0 {
		k := min(len(name), len(buf))
		if _, err := io.ReadFull(w, buf[:k]); err != nil || string(buf[:k]) != name[:k] {
			return false
		}
		name = name[k:]
	}
	return true
}

// hidden looks at the bytes between two members for a member that the directory does not
// list. What is there in good faith is the descriptor of the one before, padding, or a
// signature. Before the first member there may be a program, which may hold anything; it is
// no archive to who reads a stream unless it begins as one.
func (z *zipReader) hidden(w *window, from, to int64) {
	if to-from < zipLocalSize {
		return
	}
	first := from == z.dir.base
	if first {
		to = from + zipLocalSize
	}
	if z.find(from, to, zipMagic, func(at int64) bool { return !first || at == from }) {
		z.bd.note(sbom.ReasonUnsafePath, "", "a member that the directory does not list")
	}
}

// inside looks for members within the data of one whose size is said behind them. Who
// reads a stream finds the end of such data by unpacking them, and goes on right there:
// what is between that end and the one that the directory says is hidden from all others.
func (z *zipReader) inside(m *zipMember) {
	if !m.descriptor || m.bad {
		return
	}
	end := m.off + m.packed
	if m.method != methodStored {
		// A jar in a war may be packed as it is: what counts is where the data end.
		if z.find(m.off, end, zipMagic, func(int64) bool { return true }) {
			z.unpackToEnd(m)
		}
		return
	}
	le := binary.LittleEndian
	descriptor := func(at int64) bool {
		var rec [12]byte
		n, _ := z.r.ReadAt(rec[:], at)
		return n == len(rec) && int64(le.Uint32(rec[8:])) == at-m.off && at+16 < end
	}
	if z.find(m.off, end, zipDescriptorMagic, descriptor) {
		z.bd.note(sbom.ReasonUnsafePath, m.name, "a stored member that ends before its end")
	}
}

var zipDescriptorMagic = []byte("PK\x07\x08")

// unpackToEnd reads a member for nothing but its end, where openEntry compares.
func (z *zipReader) unpackToEnd(m *zipMember) {
	t := z.bd.t
	if m.method == methodUnknown || m.size > t.b.limits.MaxFileBytes {
		return // noted where it is added
	}
	m.path = m.name
	f := t.openEntry(&m.entry)
	defer f.Close() //nolint:errcheck // only read
	if s, ok := f.closer.(*spool); ok && s.all() != nil {
		t.b.noteErr(t.prefix+m.name, s.err)
	}
}

// find looks for a signature between two places, until one is meant.
func (z *zipReader) find(from, to int64, magic []byte, meant func(at int64) bool) bool {
	if z.buf == nil {
		z.buf = make([]byte, 64<<10)
	}
	for from < to {
		chunk := z.buf[:min(int64(len(z.buf)), to-from)]
		n, _ := z.r.ReadAt(chunk, from)
		chunk = chunk[:n]
		for at := 0; ; at++ {
			i := bytes.Index(chunk[at:], magic)
			if i < 0 {
				break
			}
			if at += i; meant(from + int64(at)) {
				return true
			}
		}
		if n < len(magic) || z.bd.t.b.alive(z.bd.t.ctx) != nil {
			return false
		}
		if from+int64(n) >= to {
			return false
		}
		from += int64(n - len(magic) + 1) // one may lie across
	}
	return false
}
