package archive

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/assay-build/assay/internal/sbom"
)

// method is how bytes are packed.
type method uint16

const (
	methodStored method = iota
	methodDeflate
	methodGzip
	methodZstd
	methodXZ
	methodBzip2
	methodUnknown
)

// zipMethod maps the numbers of APPNOTE.TXT 4.4.5.
func zipMethod(n uint16) method {
	switch n {
	case 0:
		return methodStored
	case 8:
		return methodDeflate
	case 12:
		return methodBzip2
	case 93:
		return methodZstd
	case 95:
		return methodXZ
	}
	return methodUnknown
}

func (m method) String() string {
	switch m {
	case methodStored:
		return "stored"
	case methodDeflate:
		return "deflate"
	case methodGzip:
		return "gzip"
	case methodZstd:
		return "zstd"
	case methodXZ:
		return "xz"
	case methodBzip2:
		return "bzip2"
	}
	return "unknown"
}

// maxWindow bounds what a decoder may be told to remember: the 128 MiB of "zstd --long"
// and twice what "xz -9" takes.
const maxWindow = 128 << 20

// input counts what a decoder has read. Decoders of deflate are given the Reader in it:
// they have a loop for that type, faster by a seventh than the one for any other.
type input struct {
	*bufio.Reader
	section *io.SectionReader
}

func newInput(section *io.SectionReader) *input {
	size := min(max(section.Size(), 16), 64<<10)
	return &input{Reader: bufio.NewReaderSize(section, int(size)), section: section}
}

func (in *input) packed() int64 {
	at, _ := in.section.Seek(0, io.SeekCurrent) // never fails
	return at
}

// left is how much of the section no decoder has taken.
func (in *input) left() int64 { return in.section.Size() - in.packed() + int64(in.Buffered()) }

// openDecoder starts to unpack a section.
func (b *Budget) openDecoder(m method, section *io.SectionReader) (decoder, error) {
	in := newInput(section)
	switch m {
	case methodStored:
		return &plainDecoder{in, in}, nil
	case methodDeflate:
		return b.inflate(in), nil
	case methodGzip:
		z, err := b.gunzip(in)
		if err != nil {
			return nil, err // not z: a nil of its type is a decoder
		}
		return z, nil
	case methodZstd:
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return &zstdDecoder{z, in}, nil
	case methodXZ:
		return &plainDecoder{newXZ(in), in}, nil
	case methodBzip2:
		return &plainDecoder{bzip2.NewReader(in), in}, nil
	}
	return nil, problemf(sbom.ReasonUnsupported, "a compression that is not read")
}

// plainDecoder has nothing to let go of.
type plainDecoder struct {
	io.Reader
	in *input
}

func (d *plainDecoder) packed() int64 { return d.in.packed() }
func (d *plainDecoder) close()        {}

type zstdDecoder struct {
	*zstd.Decoder
	in *input
}

func (d *zstdDecoder) packed() int64 { return d.in.packed() }
func (d *zstdDecoder) close()        { d.Close() }

func (d *zstdDecoder) Read(p []byte) (int, error) {
	n, err := d.Decoder.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = problemf(sbom.ReasonUnsupported, "zstd with a window of more than %d bytes", maxWindow)
	}
	return n, err
}

// inflater is a decoder of deflate that goes back to the budget when it is done: its
// tables are 40 KB, and a zip may have a hundred thousand members.
type inflater struct {
	b  *Budget
	r  io.ReadCloser
	in *input
}

func (b *Budget) inflate(in *input) *inflater {
	if n := len(b.inflaters); n > 0 {
		r := b.inflaters[n-1]
		b.inflaters = b.inflaters[:n-1]
		if err := r.(flate.Resetter).Reset(in.Reader, nil); err == nil {
			return &inflater{b, r, in}
		}
	}
	return &inflater{b, flate.NewReader(in.Reader), in}
}

func (d *inflater) Read(p []byte) (int, error) { return d.r.Read(p) }
func (d *inflater) packed() int64              { return d.in.packed() }

func (d *inflater) close() {
	if len(d.b.inflaters) < 4 {
		d.b.inflaters = append(d.b.inflaters, d.r)
	}
}

// gunzipper reads all members of a gzip one after the other, as RFC 1952 2.2 asks, and
// forgives zeros behind the last one, which tapes and block devices leave.
type gunzipper struct {
	b  *Budget
	z  *gzip.Reader
	in *input
}

func (b *Budget) gunzip(in *input) (*gunzipper, error) {
	d := &gunzipper{b: b, in: in}
	if n := len(b.gunzippers); n > 0 {
		d.z = b.gunzippers[n-1]
		b.gunzippers = b.gunzippers[:n-1]
	} else {
		d.z = new(gzip.Reader)
	}
	if err := d.z.Reset(in.Reader); err != nil {
		return nil, err
	}
	d.z.Multistream(false)
	return d, nil
}

func (d *gunzipper) packed() int64 { return d.in.packed() }

func (d *gunzipper) close() {
	if len(d.b.gunzippers) < 4 {
		d.b.gunzippers = append(d.b.gunzippers, d.z)
	}
}

func (d *gunzipper) Read(p []byte) (int, error) {
	n, err := d.z.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	head, err := d.in.Peek(2)
	if len(head) == 0 {
		return n, err // io.EOF, or what the disk said
	}
	if !bytes.Equal(head, gzipMagic) {
		return n, d.trailer()
	}
	if err := d.z.Reset(d.in.Reader); err != nil {
		return n, err
	}
	d.z.Multistream(false)
	return n, nil
}

// trailer judges what follows the last member.
func (d *gunzipper) trailer() error {
	for {
		c, err := d.in.ReadByte()
		if err != nil {
			return err
		}
		if c != 0 {
			return problemf(sbom.ReasonMalformed, "data behind the end of a gzip")
		}
	}
}

// openEntry opens a regular file of the tree.
func (t *Tree) openEntry(e *entry) *openFile {
	raw := t.raw(e)
	if e.method == methodStored {
		return &openFile{e: e, r: raw}
	}
	s := &spool{b: t.b, ctx: t.ctx, want: e.size, charged: &e.charged}
	where := t.prefix + e.path
	sum := &summer{}
	s.next = func() (decoder, error) {
		dec, err := t.b.openDecoder(e.method, raw)
		if err != nil {
			return nil, err
		}
		sum.decoder = dec
		return sum, nil
	}
	s.finish = func() error {
		if e.crc != 0 && sum.crc != e.crc {
			return problemf(sbom.ReasonMalformed, "a wrong checksum")
		}
		if d, ok := sum.decoder.(*inflater); ok && d.in.left() > 0 {
			// The content is right all the same.
			t.b.note(sbom.ReasonUnsafePath, where, "data behind the end of what is packed")
		}
		return nil
	}
	return &openFile{e: e, r: &noting{s: s, where: where}, closer: s}
}

// summer computes the CRC-32 of what passes.
type summer struct {
	decoder
	crc uint32
}

func (s *summer) Read(p []byte) (int, error) {
	n, err := s.decoder.Read(p)
	s.crc = crc32.Update(s.crc, crc32.IEEETable, p[:n])
	return n, err
}

// noting records what goes wrong with a member, once for each time it is open.
type noting struct {
	s     *spool
	where string
	done  bool
}

func (n *noting) ReadAt(p []byte, off int64) (int, error) {
	k, err := n.s.ReadAt(p, off)
	// What is wrong behind the bytes that were asked for counts too.
	if bad := n.s.err; bad != nil && !errors.Is(bad, io.EOF) && !n.done {
		n.done = true
		n.s.b.noteErr(n.where, bad)
	}
	return k, err
}
