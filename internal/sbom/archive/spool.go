package archive

import (
	"context"
	"errors"
	"io"

	"github.com/assay-build/assay/internal/sbom"
)

// memoryBytes is up to what size an unpacked member stays in memory.
const memoryBytes = 8 << 20

// chunkBytes is how much is unpacked at a time, once there is much.
const chunkBytes = 256 << 10

// spool makes a compressed stream readable at any place. It unpacks as far as was asked
// for and no further: a look at the first bytes of a large member costs little.
type spool struct {
	b   *Budget
	ctx context.Context //nolint:containedctx // fs.File has no place for it; the spool lives as long as one tree
	// next opens the decoder, when the first byte is asked for.
	next func() (decoder, error)
	dec  decoder
	// want is the size that the archive claims, -1 where it claims none.
	want int64
	// charged counts what earlier readings of the same member have paid for.
	charged *int64
	// finish is called at the end of the stream, where all came out well.
	finish func() error

	mem    []byte
	file   *temp
	filled int64
	err    error // io.EOF once all is there
}

// decoder is a decompressor that knows how much it has read.
type decoder interface {
	io.Reader
	packed() int64
	close()
}

// ReadAt unpacks up to the place and reads from there.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("archive: negative offset")
	}
	if s.b.err != nil {
		return 0, s.b.err
	}
	end := off + int64(len(p))
	if s.want >= 0 && end >= s.want {
		end = s.want + 1 // a stream that goes on behind the size it claims shows here
	}
	if s.filled < end {
		s.fill(end)
	}
	if off >= s.filled {
		if s.err == nil {
			return 0, nil
		}
		return 0, s.err
	}
	n := 0
	var err error
	if s.file != nil {
		n, err = s.file.ReadAt(p[:min(int64(len(p)), s.filled-off)], off)
	} else {
		n = copy(p, s.mem[off:])
	}
	if n < len(p) && (err == nil || errors.Is(err, io.EOF)) {
		err = s.err
	}
	return n, err
}

// all unpacks the whole. It reports what went wrong; what came before that is kept.
func (s *spool) all() error {
	s.fill(1<<63 - 1)
	if errors.Is(s.err, io.EOF) {
		return nil
	}
	return s.err
}

// fill unpacks until there are at least upTo bytes, or the stream ends.
func (s *spool) fill(upTo int64) {
	if s.err != nil {
		return
	}
	if s.dec == nil {
		dec, err := s.next()
		if err != nil {
			s.stop(err)
			return
		}
		s.dec = dec
	}
	for s.err == nil && s.filled < upTo {
		if err := s.b.alive(s.ctx); err != nil {
			s.stop(err)
			return
		}
		var err error
		if s.file == nil {
			err = s.fillMemory(upTo)
		} else {
			err = s.fillFile(upTo)
		}
		if err != nil {
			s.stop(err)
		}
	}
}

// fillMemory unpacks one step into memory, and moves on to a file where that is full.
func (s *spool) fillMemory(upTo int64) error {
	if s.filled >= memoryBytes || s.b.memory >= s.b.limits.MaxMemory {
		return s.toFile()
	}
	if len(s.mem) == cap(s.mem) {
		s.grow(upTo)
	}
	room := s.mem[len(s.mem):cap(s.mem)]
	n, err := s.dec.Read(room[:min(len(room), chunkBytes)])
	s.mem = s.mem[:len(s.mem)+n]
	return s.took(n, err)
}

// grow doubles, starting from what is asked for. What the archive claims bounds it and is
// never allocated on its word.
func (s *spool) grow(upTo int64) {
	room := max(int64(2*cap(s.mem)), 512, min(upTo, 64<<10))
	if s.want >= 0 {
		room = min(room, s.want+1) // one more: a stream that is longer than it claims shows
	}
	room = max(min(room, memoryBytes), int64(cap(s.mem)+1))
	grown := make([]byte, len(s.mem), room)
	copy(grown, s.mem)
	s.b.memory += room - int64(cap(s.mem))
	s.mem = grown
}

// toFile moves what is in memory to a file.
func (s *spool) toFile() error {
	f, err := s.b.newTemp()
	if err != nil {
		return err
	}
	s.file = f
	if _, err := f.Write(s.mem); err != nil {
		return err
	}
	s.b.memory -= int64(cap(s.mem))
	s.mem = nil
	return nil
}

// fillFile unpacks chunks into the file. The disk writes one while the next is unpacked,
// which takes about as long.
func (s *spool) fillFile(upTo int64) error {
	w := s.file.writer()
	var err error
	for err == nil && s.filled < upTo {
		if err = s.b.alive(s.ctx); err != nil {
			break
		}
		chunk := w.next()
		n := 0
		for n < len(chunk) && err == nil {
			var k int
			if k, err = s.dec.Read(chunk[n:]); k == 0 {
				break // a decoder between two streams; look at the clock
			}
			n += k
		}
		if werr := w.write(chunk[:n]); werr != nil {
			err = werr
			break
		}
		err = s.took(n, err)
	}
	if werr := w.finish(); werr != nil {
		return werr
	}
	return err
}

// took counts n bytes that were stored, and judges how the stream goes on.
func (s *spool) took(n int, err error) error {
	s.filled += int64(n)
	if more := s.filled - *s.charged; more > 0 {
		*s.charged = s.filled
		if err := s.b.takeUnpacked(more, s.filled, s.dec.packed()); err != nil {
			return err
		}
	}
	if s.want >= 0 && s.filled > s.want {
		return problemf(sbom.ReasonMalformed, "unpacks to more than the %d bytes it claims", s.want)
	}
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, io.EOF):
		return err
	case s.want >= 0 && s.filled < s.want:
		return problemf(sbom.ReasonMalformed, "unpacks to %d bytes and claims %d", s.filled, s.want)
	case s.finish != nil:
		if err := s.finish(); err != nil {
			return err
		}
	}
	return io.EOF
}

// stop ends the reading and lets go of the decoder.
func (s *spool) stop(err error) {
	switch {
	case s.b.err != nil:
		s.err = s.b.err
	case errors.Is(err, io.EOF):
		s.err = io.EOF
	default:
		s.err = asProblem(err)
	}
	if s.dec != nil {
		s.dec.close()
		s.dec = closedDecoder{}
	}
}

// asProblem makes one of a decoder's errors, which are all the artifact's.
func asProblem(err error) error {
	var p *problem
	if errors.As(err, &p) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return problemf(sbom.ReasonMalformed, "ends early")
	}
	return problemf(sbom.ReasonMalformed, "%s", err)
}

// Close gives up the memory and the file.
func (s *spool) Close() error {
	if s.err == nil {
		s.stop(io.ErrClosedPipe)
	}
	s.b.memory -= int64(cap(s.mem))
	s.mem, s.filled = nil, 0
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}

// closedDecoder stands where a decoder was.
type closedDecoder struct{}

func (closedDecoder) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (closedDecoder) packed() int64            { return 0 }
func (closedDecoder) close()                   {}
