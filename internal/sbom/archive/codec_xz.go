package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"

	"github.com/assay-build/assay/internal/sbom"
)

// xzReader reads the container of The .xz File Format 1.2.0; LZMA2 itself is the library's.
// The library's own container reader allocates whatever dictionary a block header asks for,
// up to 4 GiB; this one looks first.
type xzReader struct {
	in *countingReader
	// most is what the stream can unpack to at best: no dictionary needs to be larger.
	most   int64
	check  byte
	blocks uint64
	block  *xzBlock
	begun  bool
}

// xzBlock is the block that is being read.
type xzBlock struct {
	lzma   io.Reader
	start  int64 // of the compressed data
	packed int64 // as the header says, -1 where it does not
	size   int64
	got    int64
	sum    hash.Hash
}

// xzMaxRatio is above what LZMA can do at best, about 7000.
const xzMaxRatio = 1 << 14

var errXZ = problemf(sbom.ReasonMalformed, "a broken xz stream")

// newXZ reads a section of the given size.
func newXZ(in *input) *xzReader {
	return &xzReader{in: &countingReader{in: in}, most: min(in.section.Size(), maxWindow) * xzMaxRatio}
}

// countingReader knows how far it is: parts of a stream are aligned to four bytes.
type countingReader struct {
	in *input
	n  int64
	// crc is of what ReadByte gave since it was set to 0.
	crc uint32
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *countingReader) ReadByte() (byte, error) {
	b, err := c.in.ReadByte()
	if err == nil {
		c.n++
		c.crc = crc32.Update(c.crc, crc32.IEEETable, []byte{b})
	}
	return b, err
}

// Read unpacks the blocks of all streams one after the other.
func (x *xzReader) Read(p []byte) (int, error) {
	if x.block == nil {
		if err := x.open(); err != nil {
			return 0, err
		}
		if x.block == nil {
			return 0, nil // an empty stream; there may be another one
		}
	}
	k := x.block
	n, err := k.lzma.Read(p)
	k.got += int64(n)
	k.sum.Write(p[:n])
	if k.size >= 0 && k.got > k.size {
		return n, errXZ
	}
	if err == io.EOF { //nolint:errorlint // the library's own, as io.Reader says
		x.block = nil
		err = x.endBlock(k)
	}
	return n, err
}

// open moves to the next block, or behind the end of a stream.
func (x *xzReader) open() error {
	if !x.begun {
		if err := x.header(); err != nil {
			return err
		}
		x.begun, x.blocks = true, 0
	}
	size, err := x.in.ReadByte()
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	if size == 0 {
		x.begun = false
		return x.index()
	}
	return x.blockHeader(size)
}

// header reads the header of a stream, after the padding that may be before it. io.EOF
// where there is no further stream.
func (x *xzReader) header() error {
	var h [12]byte
	for {
		n, err := io.ReadFull(x.in, h[:4])
		if n == 0 && x.in.n > 0 {
			return io.EOF
		}
		if err != nil {
			return io.ErrUnexpectedEOF
		}
		if x.in.n == 4 || !bytes.Equal(h[:4], []byte{0, 0, 0, 0}) {
			break
		}
	}
	if _, err := io.ReadFull(x.in, h[4:]); err != nil {
		return io.ErrUnexpectedEOF
	}
	if !bytes.HasPrefix(h[:], xzMagic) || h[6] != 0 || binary.LittleEndian.Uint32(h[8:]) != crc32.ChecksumIEEE(h[6:8]) {
		return errXZ
	}
	x.check = h[7]
	return nil
}

// blockHeader reads section 3.1 of the format and starts LZMA2.
func (x *xzReader) blockHeader(size byte) error {
	h := make([]byte, (int(size)+1)*4)
	h[0] = size
	if _, err := io.ReadFull(x.in, h[1:]); err != nil {
		return io.ErrUnexpectedEOF
	}
	body := h[:len(h)-4]
	if binary.LittleEndian.Uint32(h[len(body):]) != crc32.ChecksumIEEE(body) {
		return errXZ
	}
	flags := body[1]
	if flags&0x3c != 0 {
		return errXZ
	}
	k := &xzBlock{packed: -1, size: -1}
	rest := body[2:]
	for _, field := range []struct {
		bit byte
		to  *int64
	}{{0x40, &k.packed}, {0x80, &k.size}} {
		if flags&field.bit == 0 {
			continue
		}
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > 1<<62 {
			return errXZ
		}
		*field.to, rest = int64(v), rest[n:]
	}
	// One filter, LZMA2, with one byte of properties. Filters for machine code are rare.
	if flags&3 != 0 || len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 {
		return problemf(sbom.ReasonUnsupported, "xz with a filter that is not read")
	}
	dict, err := lzma.DecodeDictCap(rest[2])
	if err != nil || rest[2] > 40 {
		return errXZ
	}
	if dict = min(dict, x.most); dict > maxWindow {
		return problemf(sbom.ReasonUnsupported, "xz with a dictionary of more than %d bytes", maxWindow)
	}
	if k.sum, err = xzSum(x.check); err != nil {
		return err
	}
	k.start = x.in.n
	k.lzma, err = lzma.Reader2Config{DictCap: int(max(dict, lzma.MinDictCap))}.NewReader2(x.in)
	if err != nil {
		return err
	}
	x.block = k
	x.blocks++
	return nil
}

// endBlock reads the padding and the check after a block.
func (x *xzReader) endBlock(k *xzBlock) error {
	if k.size >= 0 && k.got != k.size || k.packed >= 0 && x.in.n-k.start != k.packed {
		return errXZ
	}
	if err := x.padding(x.in.n - k.start); err != nil {
		return err
	}
	want := k.sum.Sum(nil)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(x.in, got); err != nil {
		return io.ErrUnexpectedEOF
	}
	if x.check != xzSHA256 { // the other two are little-endian
		for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
			got[i], got[j] = got[j], got[i]
		}
	}
	if !bytes.Equal(got, want) {
		return problemf(sbom.ReasonMalformed, "a wrong checksum")
	}
	return nil
}

// index reads past the index and the footer. Nothing is taken from them: the blocks were
// read in order, each with its own checksum.
func (x *xzReader) index() error {
	start := x.in.n - 1
	x.in.crc = crc32.ChecksumIEEE([]byte{0}) // of the byte that says it is the index
	records, err := binary.ReadUvarint(x.in)
	if err != nil || records != x.blocks {
		return errXZ
	}
	for range 2 * records {
		if _, err := binary.ReadUvarint(x.in); err != nil {
			return errXZ
		}
	}
	if err := x.padding(x.in.n - start); err != nil {
		return err
	}
	sum := x.in.crc
	var end [4 + 12]byte // the CRC-32 of the index and the footer
	if _, err := io.ReadFull(x.in, end[:]); err != nil {
		return io.ErrUnexpectedEOF
	}
	if binary.LittleEndian.Uint32(end[:]) != sum || string(end[14:]) != "YZ" || binary.LittleEndian.Uint32(end[4:]) != crc32.ChecksumIEEE(end[8:14]) {
		return errXZ
	}
	return nil
}

// padding skips zeros up to a multiple of four.
func (x *xzReader) padding(n int64) error {
	for ; n%4 != 0; n++ {
		if c, err := x.in.ReadByte(); err != nil || c != 0 {
			return errXZ
		}
	}
	return nil
}

// Checks of section 2.1.1.2.
const (
	xzNone   = 0
	xzCRC32  = 1
	xzCRC64  = 4
	xzSHA256 = 10
)

func xzSum(check byte) (hash.Hash, error) {
	switch check {
	case xzNone:
		return noSum{}, nil
	case xzCRC32:
		return crc32.NewIEEE(), nil
	case xzCRC64:
		return crc64.New(crc64.MakeTable(crc64.ECMA)), nil
	case xzSHA256:
		return sha256.New(), nil
	}
	return nil, problemf(sbom.ReasonUnsupported, "xz with a check that is not known")
}

// noSum stands for no check at all.
type noSum struct{}

func (noSum) Write(p []byte) (int, error) { return len(p), nil }
func (noSum) Sum(b []byte) []byte         { return b }
func (noSum) Reset()                      {}
func (noSum) Size() int                   { return 0 }
func (noSum) BlockSize() int              { return 1 }
