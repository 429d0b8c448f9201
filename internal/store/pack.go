package store

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Bundles and pending envelopes are JSON around one large value, the base64 of the
// signed statement, which compresses badly as it stands and well when it is decoded.
// The first byte of a stored one says its form:
//
//	0x00  the bytes that follow, as they are
//	0x01  head length, tail length, payload length (varints), head, tail, zstd frame of the payload
//	else  the whole row is the bytes: JSON begins with '{'. So versions before schema
//	      4 stored all, and what is small is still stored
const (
	packedPlain   = 0x00
	packedPayload = 0x01
)

// minPackedPayload is the length of base64 from which packing pays. The provenance of
// a build is shorter: what a deploy reads is never unpacked.
const minPackedPayload = 4 << 10

// packer compresses and decompresses. It may be used concurrently; it makes its
// tables at first use.
type packer struct {
	encoder func() (*zstd.Encoder, error)
	decoder func() (*zstd.Decoder, error)
}

func newPacker() packer {
	return packer{
		// Fastest: the next level takes twice the time for a tenth less.
		encoder: sync.OnceValues(func() (*zstd.Encoder, error) {
			return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
		}),
		decoder: sync.OnceValues(func() (*zstd.Decoder, error) {
			return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxBlobBytes), zstd.WithDecoderMaxWindow(8<<20),
				zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderConcurrency(0))
		}),
	}
}

// pack returns the form in which doc is stored; unpack gives back the same bytes.
func (p packer) pack(doc []byte) ([]byte, error) {
	if start, payload := findPayload(doc); payload != nil {
		end := start + base64.StdEncoding.EncodedLen(len(payload))
		enc, err := p.encoder()
		if err != nil {
			return nil, err
		}
		out := make([]byte, 0, len(doc)-end+start+len(payload)/4+64)
		out = append(out, packedPayload)
		out = binary.AppendUvarint(out, uint64(start))
		out = binary.AppendUvarint(out, uint64(len(doc)-end))
		out = binary.AppendUvarint(out, uint64(len(payload)))
		out = append(append(out, doc[:start]...), doc[end:]...)
		return enc.EncodeAll(payload, out), nil
	}
	if len(doc) > 0 && doc[0] <= packedPayload {
		return append([]byte{packedPlain}, doc...), nil
	}
	return doc, nil
}

// findPayload returns where the base64 of the first large "payload" of a JSON text
// begins, and what it decodes to; nil where none is. It is not a parser: whatever it
// finds, the text can be put together again.
func findPayload(doc []byte) (start int, payload []byte) {
	key := []byte(`"payload"`)
	for from := 0; ; {
		i := bytes.Index(doc[from:], key)
		if i < 0 {
			return 0, nil
		}
		from += i + len(key)
		rest := bytes.TrimLeft(doc[from:], " \t\r\n")
		if len(rest) == 0 || rest[0] != ':' {
			continue
		}
		rest = bytes.TrimLeft(rest[1:], " \t\r\n")
		if len(rest) == 0 || rest[0] != '"' {
			continue
		}
		text, _, ok := bytes.Cut(rest[1:], []byte{'"'})
		if !ok || len(text) < minPackedPayload {
			continue
		}
		raw := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Strict().Decode(raw, text)
		// Strict refuses stray bits at the end; the decoder still skips line ends, which
		// the length shows. What passes both has one spelling only, this one.
		if err == nil && base64.StdEncoding.EncodedLen(n) == len(text) {
			return len(doc) - len(rest) + 1, raw[:n]
		}
	}
}

var errPacked = errors.New("store: packed document: damaged")

// unpack undoes pack. What it allocates is bounded by maxBlobBytes, whatever a
// damaged row says.
func (p packer) unpack(b []byte) ([]byte, error) {
	switch {
	case len(b) == 0 || b[0] > packedPayload:
		return b, nil
	case b[0] == packedPlain:
		return b[1:], nil
	}
	rest := b[1:]
	var sizes [3]int
	for i := range sizes {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > maxBlobBytes {
			return nil, errPacked
		}
		sizes[i], rest = int(v), rest[n:]
	}
	head, tail, size := sizes[0], sizes[1], sizes[2]
	if head+tail > len(rest) {
		return nil, errPacked
	}
	payload, err := p.inflate(rest[head+tail:], size)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, head+base64.StdEncoding.EncodedLen(size)+tail)
	out = append(out, rest[:head]...)
	out = base64.StdEncoding.AppendEncode(out, payload)
	return append(out, rest[head:head+tail]...), nil
}

// inflate decompresses one frame that says that it holds size bytes, and does. The
// frame carries a checksum.
func (p packer) inflate(frame []byte, size int) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return nil, fmt.Errorf("%w: %w", errPacked, err)
	}
	// A block holds at most 128 KiB and takes at least 4 bytes.
	if h.Skippable || !h.HasFCS || h.FrameContentSize != uint64(size) || size > (len(frame)/4+1)<<17 {
		return nil, errPacked
	}
	dec, err := p.decoder()
	if err != nil {
		return nil, err
	}
	out, err := dec.DecodeAll(frame, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPacked, err)
	}
	if len(out) != size {
		return nil, errPacked
	}
	return out, nil
}
