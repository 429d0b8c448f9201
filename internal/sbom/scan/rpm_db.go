package scan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The database of RPM holds one header per package, in one of three kinds of file. Each
// is read here through io.ReaderAt, and only as far as needed to find the headers: the
// library for it (go-rpmdb, which the tests use as a second reader) wants a named
// file, reads in goroutines of its own, where a panic ends the process, and trusts
// the sizes and links in the file.

var errRPMDatabase = errors.New("malformed RPM database")

// rpmDatabase is a file with its size. All that is read is counted against a multiple of
// the size: pages of a sound database are read once or twice, those of a hostile one may
// be linked in circles.
type rpmDatabase struct {
	at   io.ReaderAt
	size int64
	left int64
}

func newRPMDatabase(at io.ReaderAt, size int64) *rpmDatabase {
	return &rpmDatabase{at: at, size: size, left: 4*size + 1<<16}
}

// headers calls f with the header of each package. f must not keep the bytes.
func (d *rpmDatabase) headers(f func(blob []byte) error) error {
	head, err := d.read(0, int(min(d.size, 100)))
	if err != nil {
		return err
	}
	switch {
	case len(head) >= 100 && bytes.HasPrefix(head, []byte("SQLite format 3\x00")):
		return d.sqlite(head, f)
	case len(head) >= 32 && bytes.HasPrefix(head, []byte("RpmP")):
		return d.ndb(head, f)
	case len(head) >= 72 && binary.LittleEndian.Uint32(head[12:]) == bdbHashMagic:
		return d.bdb(head, binary.LittleEndian, f)
	case len(head) >= 72 && binary.BigEndian.Uint32(head[12:]) == bdbHashMagic:
		return d.bdb(head, binary.BigEndian, f)
	}
	return fmt.Errorf("%w: neither SQLite nor NDB nor a hash of Berkeley DB", errRPMDatabase)
}

// read gives n bytes at an offset, all of them or an error.
func (d *rpmDatabase) read(offset int64, n int) ([]byte, error) {
	if offset < 0 || n < 0 || offset > d.size || int64(n) > d.size-offset {
		return nil, fmt.Errorf("%w: it points beyond its end", errRPMDatabase)
	}
	if d.left -= int64(n); d.left < 0 {
		return nil, fmt.Errorf("%w: its pages are linked in circles", errRPMDatabase)
	}
	buf := make([]byte, n)
	if _, err := d.at.ReadAt(buf, offset); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return buf, nil
}

// ndb reads the kind that SUSE uses: pages of slots, each pointing to a blob, in units
// of 16 bytes, little-endian (rpm, lib/backend/ndb/rpmpkg.c).
func (d *rpmDatabase) ndb(head []byte, f func([]byte) error) error {
	if v := binary.LittleEndian.Uint32(head[4:]); v != 0 {
		return fmt.Errorf("%w: NDB version %d", errRPMDatabase, v)
	}
	pages := int64(binary.LittleEndian.Uint32(head[12:]))
	if pages*4096 > d.size {
		return fmt.Errorf("%w: more slots than file", errRPMDatabase)
	}
	slots, err := d.read(0, int(pages*4096))
	if err != nil {
		return err
	}
	for at := 32; at+16 <= len(slots); at += 16 { // the header takes the place of two slots
		slot := slots[at:]
		index := binary.LittleEndian.Uint32(slot[4:])
		if !bytes.HasPrefix(slot, []byte("Slot")) {
			return fmt.Errorf("%w: no slot where one is due", errRPMDatabase)
		}
		if index == 0 {
			continue
		}
		if err := d.ndbBlob(16*int64(binary.LittleEndian.Uint32(slot[8:])), index, f); err != nil {
			return err
		}
	}
	return nil
}

func (d *rpmDatabase) ndbBlob(offset int64, index uint32, f func([]byte) error) error {
	head, err := d.read(offset, 16)
	if err != nil {
		return err
	}
	size := binary.LittleEndian.Uint32(head[12:])
	if !bytes.HasPrefix(head, []byte("BlbS")) || binary.LittleEndian.Uint32(head[4:]) != index || size > maxRPMHeader {
		return fmt.Errorf("%w: package %d is not where its slot points", errRPMDatabase, index)
	}
	blob, err := d.read(offset+16, int(size))
	if err != nil {
		return err
	}
	return f(blob)
}

// Berkeley DB, a hash (libdb, src/dbinc/db_page.h): pages with the same header of 26
// bytes each. Values, being large, are chains of overflow pages.
const (
	bdbHashMagic    = 0x00061561
	bdbPageHeader   = 26
	bdbHashUnsorted = 2
	bdbOverflow     = 7
	bdbHash         = 13
	bdbOffPage      = 3
)

// bdbFile is a database with its page size and byte order, which is that of the machine
// that wrote it.
type bdbFile struct {
	*rpmDatabase
	order binary.ByteOrder
	page  int
}

func (d *rpmDatabase) bdb(head []byte, order binary.ByteOrder, f func([]byte) error) error {
	page := int(order.Uint32(head[20:]))
	if page < 512 || page > 64<<10 || page&(page-1) != 0 {
		return fmt.Errorf("%w: pages of %d bytes", errRPMDatabase, page)
	}
	if head[24] != 0 {
		return fmt.Errorf("%w: encrypted", errUnsupported)
	}
	b := bdbFile{rpmDatabase: d, order: order, page: page}
	for no, last := uint32(0), order.Uint32(head[32:]); no <= last; no++ {
		data, err := b.readPage(no)
		if err != nil {
			return err
		}
		if data[25] != bdbHash && data[25] != bdbHashUnsorted {
			continue
		}
		if err := b.entries(data, f); err != nil {
			return err
		}
		if no == last { // which may be the largest number
			break
		}
	}
	return nil
}

func (b *bdbFile) readPage(no uint32) ([]byte, error) {
	return b.read(int64(no)*int64(b.page), b.page)
}

// entries reads the values of one page. Keys and values take turns; a value that is
// kept on the page is no header, but the counter that the database starts with.
func (b *bdbFile) entries(data []byte, f func([]byte) error) error {
	n := int(b.order.Uint16(data[20:]))
	if n%2 != 0 || bdbPageHeader+2*n > len(data) {
		return fmt.Errorf("%w: a page of %d entries", errRPMDatabase, n)
	}
	for i := 1; i < n; i += 2 {
		at := int(b.order.Uint16(data[bdbPageHeader+2*i:]))
		if at >= len(data) || data[at] != bdbOffPage {
			continue
		}
		if at+12 > len(data) {
			return fmt.Errorf("%w: an entry across the end of its page", errRPMDatabase)
		}
		blob, err := b.chain(b.order.Uint32(data[at+4:]), b.order.Uint32(data[at+8:]))
		if err != nil {
			return err
		}
		if err := f(blob); err != nil {
			return err
		}
	}
	return nil
}

// chain puts a value together from its overflow pages.
func (b *bdbFile) chain(no, size uint32) ([]byte, error) {
	if size > maxRPMHeader || int64(size) > b.size {
		return nil, fmt.Errorf("%w: a value of %d bytes", errRPMDatabase, size)
	}
	blob := make([]byte, 0, size)
	for no != 0 && len(blob) < int(size) {
		data, err := b.readPage(no)
		if err != nil {
			return nil, err
		}
		used := int(b.order.Uint16(data[22:]))
		if data[25] != bdbOverflow || used > len(data)-bdbPageHeader {
			return nil, fmt.Errorf("%w: page %d is not the overflow page it is linked as", errRPMDatabase, no)
		}
		blob = append(blob, data[bdbPageHeader:][:used]...)
		no = b.order.Uint32(data[16:])
	}
	if len(blob) != int(size) {
		return nil, fmt.Errorf("%w: a value of %d bytes has %d", errRPMDatabase, size, len(blob))
	}
	return blob, nil
}
