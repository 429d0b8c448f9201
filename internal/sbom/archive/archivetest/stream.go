package archivetest

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"hash/crc32"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/assay-build/assay/internal/sbom"
)

// gz compresses; the header has no time and no name.
func gz(data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(data) //nolint:errcheck // a buffer takes all
	w.Close()     //nolint:errcheck // a buffer takes all
	return out.Bytes()
}

// packedTar is a small tar, compressed by pack.
func packedTar(pack func([]byte) ([]byte, error), change func([]byte) []byte) writer {
	return content(func() ([]byte, error) {
		data, err := tarOf(reg("package.json", "{}"), reg("b", strings.Repeat("content ", 5000)))
		if err != nil {
			return nil, err
		}
		if data, err = pack(data); err != nil {
			return nil, err
		}
		return change(data), nil
	})
}

func packGzip(data []byte) ([]byte, error) { return gz(data), nil }

func packZstd(data []byte) ([]byte, error) {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		return nil, err
	}
	return w.EncodeAll(data, nil), nil
}

func packXZ(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := xz.WriterConfig{DictCap: 1 << 20}.NewWriter(&out)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

// repeated writes first, then piece n times.
func repeated(first []byte, n int, piece func() ([]byte, error)) writer {
	return func(f *os.File) error {
		p, err := piece()
		if err != nil {
			return err
		}
		if _, err := f.Write(first); err != nil {
			return err
		}
		_, err = f.Write(bytes.Repeat(p, n))
		return err
	}
}

// bzip2Zeros is 45,899,235 zeros as "bzip2 -9" packs them.
const bzip2Zeros = "425a68393141592653590e09e2df015f8e4000c0000008200030804d4642a025a90a80971772453850900e09e2df"

// streams are hostile compressed streams.
func streams() []recipe {
	malformed, ratio := codes(sbom.ReasonMalformed), codes(sbom.ReasonRatio)
	same := func(b []byte) []byte { return b }
	half := func(b []byte) []byte { return b[:len(b)/2] }
	flip := func(back int) func([]byte) []byte {
		return func(b []byte) []byte { b[len(b)-back] ^= 0xff; return b }
	}
	zeros := func(n int, pack func([]byte) ([]byte, error)) func() ([]byte, error) {
		return func() ([]byte, error) { return pack(make([]byte, n)) }
	}
	return []recipe{
		{name: "gzip-truncated", ext: ".tar.gz", want: malformed, write: packedTar(packGzip, half)},
		{name: "gzip-header", ext: ".tar.gz", want: malformed, write: content(func() ([]byte, error) { return []byte("\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\xff\xff"), nil })},
		{name: "gzip-wrong-crc", ext: ".tar.gz", want: malformed, write: packedTar(packGzip, flip(6))},
		{name: "gzip-trailing-zeros", ext: ".tar.gz", write: packedTar(packGzip, func(b []byte) []byte { return append(b, make([]byte, 999)...) })},
		{name: "gzip-trailing-data", ext: ".tar.gz", want: malformed, write: packedTar(packGzip, func(b []byte) []byte { return append(b, "#!/bin/sh evil"...) })},
		{name: "gzip-empty-members", ext: ".gz", large: true, write: repeated(nil, 300_000, zeros(0, packGzip))},
		{name: "gzip-bomb", ext: ".tar.gz", want: ratio, write: repeated(nil, 640, zeros(16<<20, packGzip))},
		{name: "gzip-bomb-tar", ext: ".tar.gz", want: codes(sbom.ReasonMalformed, sbom.ReasonRatio), write: gzipBombTar},
		{name: "gzip-20-deep", ext: ".gz", want: codes(sbom.ReasonDepth), write: content(func() ([]byte, error) {
			data := []byte(`{"lockfileVersion":3}`)
			for range 20 {
				data = gz(data)
			}
			return data, nil
		})},
		{name: "gzip-bomb-in-gzip", ext: ".gz", want: ratio, write: content(func() ([]byte, error) {
			return gz(gz(bytes.Repeat(gz(make([]byte, 16<<20)), 640))), nil
		})},
		{name: "zstd-truncated", ext: ".tar.zst", want: malformed, write: packedTar(packZstd, half)},
		{name: "zstd-wrong-sum", ext: ".tar.zst", want: malformed, write: packedTar(packZstd, flip(1))},
		{name: "zstd-bomb", ext: ".tar.zst", want: ratio, write: content(zstdBomb)},
		{name: "zstd-window", ext: ".tar.zst", want: codes(sbom.ReasonUnsupported), write: content(zstdWindow)},
		{name: "xz-plain", ext: ".tar.xz", write: packedTar(packXZ, same)},
		{name: "xz-truncated", ext: ".tar.xz", want: malformed, write: packedTar(packXZ, half)},
		{name: "xz-bomb", ext: ".tar.xz", want: ratio, write: repeated(nil, 2000, zeros(8<<20, packXZ))},
		{name: "xz-dictionary", ext: ".tar.xz", want: codes(sbom.ReasonUnsupported), write: content(xzDictionary)},
		{name: "bzip2-bomb", ext: ".bz2", want: ratio, write: repeated(nil, 500, func() ([]byte, error) { return hex.DecodeString(bzip2Zeros) })},
	}
}

// gzipBombTar is a tar whose one member is too large to read; unpacked it would be 10 GiB.
func gzipBombTar(f *os.File) error {
	if _, err := f.Write(gz(rawHeader('0', "zeros", 10<<30))); err != nil {
		return err
	}
	_, err := f.Write(bytes.Repeat(gz(make([]byte, 16<<20)), 640))
	return err
}

// zstdBomb has blocks of one repeated byte: 128 KiB from four bytes (RFC 8878 3.1.1.2.2).
func zstdBomb() ([]byte, error) {
	frame := []byte("\x28\xb5\x2f\xfd\x00\x50") // a window of 1 MiB, no size, no checksum
	header := uint32(1<<1 | (128<<10)<<3)       // 4.1: not the last, of type RLE, its size
	block := []byte{byte(header), byte(header >> 8), byte(header >> 16), 0}
	frame = append(frame, bytes.Repeat(block, 80_000)...) // 10 GiB
	return append(frame, 1, 0, 0), nil
}

// zstdWindow asks for a window of 2 TiB.
func zstdWindow() ([]byte, error) {
	return append([]byte("\x28\xb5\x2f\xfd\x00\xf8"), bytes.Repeat([]byte{0}, 100)...), nil
}

// xzDictionary asks for a dictionary of 4 GiB. It is long enough to need one.
func xzDictionary() ([]byte, error) {
	data := []byte("\xfd7zXZ\x00\x00\x01")
	data = le.AppendUint32(data, crc32.ChecksumIEEE(data[6:8]))
	block := []byte{2, 0, 0x21, 1, 40, 0, 0, 0} // LZMA2 with the largest dictionary
	data = append(data, block...)
	data = le.AppendUint32(data, crc32.ChecksumIEEE(block))
	chunk := append([]byte{1, 0xff, 0xff}, bytes.Repeat([]byte("zeros... "), 7282)[:1<<16]...)
	for range 8 {
		data = append(data, chunk...)
		chunk[0] = 2
	}
	return append(data, 0), nil
}
