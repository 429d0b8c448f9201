package archive

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"slices"

	"github.com/assay-build/assay/internal/sbom"
)

// zipDir is where the central directory is. Offsets in it are relative to base: an archive
// may have a program before it.
type zipDir struct {
	offset, size int64
	records      uint64
	base         int64
	end          int64 // of the end record, its comment included
	// twice: another reader may find another directory.
	twice bool
}

var zipEndMagic = binary.LittleEndian.AppendUint32(nil, zipEnd)

// findZipDir finds the end record, which is the last thing in a zip but for a comment.
func (b *Budget) findZipDir(r io.ReaderAt, size int64) (zipDir, error) {
	malformed := problemf(sbom.ReasonMalformed, "a zip without a directory at its end")
	if b.tail == nil {
		b.tail = make([]byte, zipEndSize+zipMaxComment)
	}
	tail := b.tail[:min(max(size, 0), int64(len(b.tail)))]
	if n, _ := r.ReadAt(tail, size-int64(len(tail))); n < len(tail) {
		return zipDir{}, malformed
	}
	start := size - int64(len(tail))
	var found *zipDir
	for i := range backwards(tail) {
		comment := int(binary.LittleEndian.Uint16(tail[i+20:]))
		if i+zipEndSize+comment > len(tail) {
			continue
		}
		d, ok := readZipEnd(r, size, start+int64(i), tail[i:])
		d.end = start + int64(i+zipEndSize+comment)
		switch {
		case !ok:
		case found == nil:
			found = &d
		case d.end == size && (d.offset != found.offset || d.size != found.size):
			found.twice = true // both are well-formed, and readers differ in where they look first
		}
	}
	if found == nil {
		return zipDir{}, malformed
	}
	return *found, nil
}

// backwards gives the places of end records, the last one first.
func backwards(tail []byte) func(func(int) bool) {
	return func(yield func(int) bool) {
		var places []int
		for at := 0; ; at++ {
			i := bytes.Index(tail[at:], zipEndMagic)
			if i < 0 {
				break
			}
			if at += i; at+zipEndSize <= len(tail) {
				places = append(places, at)
			}
		}
		for _, at := range slices.Backward(places) {
			if !yield(at) {
				return
			}
		}
	}
}

// endsAsZip reports whether some bytes end with the directory of a zip that has members.
func (b *Budget) endsAsZip(r io.ReaderAt, size int64) bool {
	dir, err := b.findZipDir(r, size)
	return err == nil && dir.size >= zipCentralSize
}

// leads reports whether any record leads to a member. A directory that lies in compressed
// data as it was leads nowhere: its members were compressed.
func (d *zipDir) leads(r io.ReaderAt) bool {
	le := binary.LittleEndian
	in := bufio.NewReader(io.NewSectionReader(r, d.base+d.offset, d.size))
	for {
		rec, err := in.Peek(zipCentralSize)
		if err != nil || le.Uint32(rec) != zipCentral {
			return false
		}
		at := int64(le.Uint32(rec[42:]))
		if at == 0xffffffff || starts(r, d.base+at, zipLocal) {
			return true
		}
		more := int(le.Uint16(rec[28:])) + int(le.Uint16(rec[30:])) + int(le.Uint16(rec[32:]))
		if _, err := in.Discard(zipCentralSize + more); err != nil {
			return false
		}
	}
}

// readZipEnd reads an end record at offset at, and the one of Zip64 before it.
func readZipEnd(r io.ReaderAt, size, at int64, rec []byte) (zipDir, bool) {
	le := binary.LittleEndian
	d := zipDir{
		records: uint64(le.Uint16(rec[10:])),
		size:    int64(le.Uint32(rec[12:])),
		offset:  int64(le.Uint32(rec[16:])),
	}
	end := at
	if e := readZip64End(r, size, at); e.ok {
		d64 := zipDir{records: le.Uint64(e.rec[32:]), size: int64(le.Uint64(e.rec[40:])), offset: int64(le.Uint64(e.rec[48:]))}
		// Some follow the locator in any case, and some only where a field has no room for
		// its value: that must make no difference.
		twice := e.twice || d.records != 0xffff && d.records != d64.records || d.size != 0xffffffff && d.size != d64.size ||
			d.offset != 0xffffffff && d.offset != d64.offset
		if d.records == 0xffff || d.size == 0xffffffff || d.offset == 0xffffffff {
			d, end = d64, e.at
		}
		d.twice = twice
	}
	if d.size < 0 || d.offset < 0 || d.size > end || d.offset > end || end-d.size-d.offset < 0 {
		return d, false
	}
	if d.base = end - d.size - d.offset; d.base > 0 && starts(r, d.offset, zipCentral) {
		// Both places look like a directory: what is before the archive may be another one.
		d.twice = d.twice || starts(r, d.base+d.offset, zipCentral)
		d.base = 0
	}
	if d.size > 0 && !starts(r, d.base+d.offset, zipCentral) {
		return d, false
	}
	return d, true
}

// starts reports whether a signature is at a place.
func starts(r io.ReaderAt, at int64, want uint32) bool {
	var sig [4]byte
	n, _ := r.ReadAt(sig[:], at)
	return n == 4 && binary.LittleEndian.Uint32(sig[:]) == want
}

// zip64Record is an end record of Zip64 and where it is. twice: there are two.
type zip64Record struct {
	rec       [zip64EndSize]byte
	at        int64
	ok, twice bool
}

// readZip64End follows the locator that lies right before the end record.
func readZip64End(r io.ReaderAt, size, at int64) (e zip64Record) {
	le := binary.LittleEndian
	var loc [zip64LocSize]byte
	if at < zip64LocSize {
		return e
	}
	if n, _ := r.ReadAt(loc[:], at-zip64LocSize); n < len(loc) || le.Uint32(loc[:]) != zip64Locator {
		return e
	}
	// Where a program was put before the archive the offset is off by its size, and some
	// look right before the locator alone.
	for _, place := range []int64{int64(le.Uint64(loc[8:])), at - zip64LocSize - zip64EndSize} {
		var got [zip64EndSize]byte
		if place < 0 || place > size-zip64EndSize {
			continue
		}
		if n, _ := r.ReadAt(got[:], place); n < len(got) || le.Uint32(got[:]) != zip64End {
			continue
		}
		if e.ok {
			e.twice = got != e.rec
			continue
		}
		e.rec, e.at, e.ok = got, place, true
	}
	return e
}
