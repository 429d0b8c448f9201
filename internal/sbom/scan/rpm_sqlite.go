package scan

import (
	"encoding/binary"
	"fmt"
)

// A table of SQLite is a tree of pages (sqlite.org/fileformat2.html). RPM's has the
// header of each package in the last column of the table Packages; its other tables
// are indexes over the same.
const (
	sqliteInterior = 0x05
	sqliteLeaf     = 0x0d
	sqliteMaxDepth = 20 // enough for 2^63 rows
)

// sqliteFile is a database with what its first 100 bytes tell.
type sqliteFile struct {
	*rpmDatabase
	page   int
	usable int
}

func (d *rpmDatabase) sqlite(head []byte, f func([]byte) error) error {
	page := int(binary.BigEndian.Uint16(head[16:]))
	if page == 1 {
		page = 64 << 10
	}
	s := &sqliteFile{rpmDatabase: d, page: page, usable: page - int(head[20])}
	if page < 512 || page&(page-1) != 0 || s.usable < 480 {
		return fmt.Errorf("%w: pages of %d bytes", errRPMDatabase, page)
	}
	var root uint32
	err := s.rows(1, 0, func(record []byte) error {
		columns, err := sqliteColumns(record)
		if err != nil || len(columns) < 4 {
			return err
		}
		if string(columns[0]) == "table" && string(columns[1]) == "Packages" {
			root = uint32(sqliteInt(columns[3])) //nolint:gosec // a page number of 32 bits, checked when it is read
		}
		return nil
	})
	if err != nil {
		return err
	}
	if root == 0 {
		return fmt.Errorf("%w: no table Packages", errRPMDatabase)
	}
	return s.rows(root, 0, func(record []byte) error {
		columns, err := sqliteColumns(record)
		if err != nil || len(columns) < 2 {
			return err
		}
		return f(columns[len(columns)-1])
	})
}

// rows calls f with each row of the tree below a page.
func (s *sqliteFile) rows(no uint32, depth int, f func(record []byte) error) error {
	if no == 0 || depth > sqliteMaxDepth {
		return fmt.Errorf("%w: a tree without end", errRPMDatabase)
	}
	data, err := s.read((int64(no)-1)*int64(s.page), s.page)
	if err != nil {
		return err
	}
	header := data
	if no == 1 {
		header = data[100:] // the file's own header comes first
	}
	kind, cells := header[0], int(binary.BigEndian.Uint16(header[3:]))
	pointers := header[8:]
	if kind == sqliteInterior {
		pointers = header[12:]
	}
	if (kind != sqliteInterior && kind != sqliteLeaf) || 2*cells > len(pointers) {
		return fmt.Errorf("%w: page %d is none of a table", errRPMDatabase, no)
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(pointers[2*i:]))
		if at+4 > s.usable {
			return fmt.Errorf("%w: a cell beyond its page", errRPMDatabase)
		}
		if kind == sqliteInterior {
			err = s.rows(binary.BigEndian.Uint32(data[at:]), depth+1, f)
		} else {
			err = s.cell(data[at:s.usable], f)
		}
		if err != nil {
			return err
		}
	}
	if kind == sqliteInterior {
		return s.rows(binary.BigEndian.Uint32(header[8:]), depth+1, f)
	}
	return nil
}

// cell puts the record of one row together: its start is in the cell, the rest in a
// chain of overflow pages.
func (s *sqliteFile) cell(cell []byte, f func(record []byte) error) error {
	size, n := sqliteVarint(cell)
	_, m := sqliteVarint(cell[n:]) // the row's number
	cell = cell[n+m:]
	if n == 0 || m == 0 || size > maxRPMHeader || int64(size) > s.size { //nolint:gosec // bounded by the comparison before
		return fmt.Errorf("%w: a row of %d bytes", errRPMDatabase, size)
	}
	total := int(size)
	local := s.localBytes(total)
	if local > len(cell) {
		return fmt.Errorf("%w: a row beyond its page", errRPMDatabase)
	}
	record := make([]byte, 0, total)
	record = append(record, cell[:local]...)
	if local == total {
		return f(record)
	}
	if local+4 > len(cell) {
		return fmt.Errorf("%w: a row beyond its page", errRPMDatabase)
	}
	next := binary.BigEndian.Uint32(cell[local:])
	for next != 0 && len(record) < total {
		data, err := s.read((int64(next)-1)*int64(s.page), s.page)
		if err != nil {
			return err
		}
		next = binary.BigEndian.Uint32(data)
		record = append(record, data[4:4+min(s.usable-4, total-len(record))]...)
	}
	if len(record) < total {
		return fmt.Errorf("%w: a row of %d bytes has %d", errRPMDatabase, total, len(record))
	}
	return f(record)
}

// localBytes is how much of a row is in its cell, by the formula of the file format.
func (s *sqliteFile) localBytes(total int) int {
	if total <= s.usable-35 {
		return total
	}
	least := (s.usable-12)*32/255 - 23
	if k := least + (total-least)%(s.usable-4); k <= s.usable-35 {
		return k
	}
	return least
}

// sqliteColumns takes a record apart.
func sqliteColumns(record []byte) ([][]byte, error) {
	headerSize, n := sqliteVarint(record)
	if n == 0 || headerSize > uint64(len(record)) || uint64(n) > headerSize { //nolint:gosec // n is at most 9
		return nil, fmt.Errorf("%w: a row without header", errRPMDatabase)
	}
	types, body := record[n:headerSize], record[headerSize:]
	var columns [][]byte
	for len(types) > 0 {
		serial, n := sqliteVarint(types)
		if n == 0 {
			return nil, fmt.Errorf("%w: a row with half a header", errRPMDatabase)
		}
		types = types[n:]
		size := sqliteSize(serial)
		if size > uint64(len(body)) {
			return nil, fmt.Errorf("%w: a column beyond its row", errRPMDatabase)
		}
		columns, body = append(columns, body[:size]), body[size:]
	}
	return columns, nil
}

// sqliteSize is how many bytes a value of a serial type has.
func sqliteSize(serial uint64) uint64 {
	switch {
	case serial >= 12:
		return (serial - 12) / 2
	case serial == 5:
		return 6
	case serial == 6, serial == 7:
		return 8
	case serial >= 8: // the constants 0 and 1, and two that are reserved
		return 0
	}
	return serial
}

// sqliteInt is a big-endian integer of up to 8 bytes.
func sqliteInt(value []byte) uint64 {
	var n uint64
	for _, b := range value[:min(len(value), 8)] {
		n = n<<8 | uint64(b)
	}
	return n
}

// sqliteVarint reads a number of up to 9 bytes, 7 bits each and 8 of the last; the
// second result is its length, 0 where it does not end.
func sqliteVarint(data []byte) (uint64, int) {
	var n uint64
	for i := range min(len(data), 9) {
		if i == 8 {
			return n<<8 | uint64(data[i]), 9
		}
		n = n<<7 | uint64(data[i]&0x7f)
		if data[i] < 0x80 {
			return n, i + 1
		}
	}
	return 0, 0
}
