package archivetest

import (
	"bytes"
	"compress/flate"
	"fmt"
	"hash/crc32"
	"os"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// zipBombs are archives whose size, or what comes out of them, is the attack.
func zipBombs() []recipe {
	return []recipe{
		{name: "zip-bomb", ext: ".zip", want: codes(sbom.ReasonRatio), write: content(zipBomb)},
		{name: "zip-bomb-nested", ext: ".zip", want: codes(sbom.ReasonRatio), write: content(zipBombNested)},
		{name: "zip-overlap", ext: ".zip", want: codes(sbom.ReasonMalformed, sbom.ReasonUnsafePath), write: content(zipOverlap)},
		{name: "zip-overlap-quoted", ext: ".zip", want: codes(sbom.ReasonMalformed), write: content(zipQuoted)},
		{name: "zip-quine", ext: ".zip", want: codes(sbom.ReasonDepth), write: content(quine)},
		{name: "zip-nested-16", ext: ".zip", write: content(func() ([]byte, error) { return zipNested(15), nil })},
		{name: "zip-nested-17", ext: ".zip", want: codes(sbom.ReasonDepth), write: content(func() ([]byte, error) { return zipNested(16), nil })},
		{name: "zip-nested-100", ext: ".zip", want: codes(sbom.ReasonDepth), write: content(func() ([]byte, error) { return zipNested(100), nil })},
		{name: "zip-million", ext: ".zip", want: codes(sbom.ReasonEntries), large: true, write: zipMany(1_000_000, 1_000_000)},
		{name: "zip-million-denied", ext: ".zip", want: codes(sbom.ReasonEntries, sbom.ReasonMalformed), large: true, write: zipMany(1_000_000, 1_000_000&0xffff)},
	}
}

// deflatedZeros is a stream of deflate of n times 16 MiB of zeros: about 1000 to 1.
func deflatedZeros(n int) (packed string, size int64, crc uint32) {
	const piece = 16 << 20
	zeros := make([]byte, piece)
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestSpeed)
	w.Write(zeros) //nolint:errcheck // a buffer takes all
	w.Flush()      //nolint:errcheck // a buffer takes all
	one := out.String()
	for range n {
		crc = crc32.Update(crc, crc32.IEEETable, zeros)
	}
	return strings.Repeat(one, n) + "\x03\x00", int64(n) * piece, crc
}

// zipBomb is 3 GiB in one member.
func zipBomb() ([]byte, error) {
	// The checksum would take seconds; nobody gets to it.
	packed, _, _ := deflatedZeros(1)
	packed = strings.Repeat(packed[:len(packed)-2], 192) + "\x03\x00"
	return zipOf(zipFile{name: "package-lock.json", packed: packed, deflate: true, size: 192 * 16 << 20, crc: 1}), nil
}

// zipBombNested is like 42.zip: 16 zips of 16 zips of a member of zeros, 16 GiB in all.
func zipBombNested() ([]byte, error) {
	packed, size, crc := deflatedZeros(4)
	inner := string(zipOf(zipFile{name: "package-lock.json", packed: packed, deflate: true, size: uint32(size), crc: crc}))
	for range 2 {
		var files []zipFile
		for i := range 16 {
			files = append(files, zipFile{name: fmt.Sprintf("%02d.zip", i), data: inner, deflate: true})
		}
		inner = string(zipOf(files...))
	}
	return []byte(inner), nil
}

// zipOverlap has ten thousand names for the bytes of one member.
func zipOverlap() ([]byte, error) {
	zeros := strings.Repeat("\x00", 1<<20)
	files := []zipFile{{name: "00000", packed: deflate(zeros), deflate: true, size: 1 << 20, crc: crc32.ChecksumIEEE([]byte(zeros))}}
	for i := range 10_000 {
		f := files[0]
		f.name, f.noData, f.headerTrue = fmt.Sprintf("%05d", i+1), true, true
		files = append(files, f)
	}
	// The first header cannot have all names: one of the others lies at its very place.
	files[0].local = "other"
	return zipOf(files...), nil
}

// zipQuoted is the construction of David Fifield (bamsoftware.com/hacks/zipbomb): each
// member is a stored block that quotes the header of the next one, and so on to a kernel
// of zeros that all share.
func zipQuoted() ([]byte, error) {
	const n = 250
	kernel := deflate(strings.Repeat("\x00", 1<<20))
	body, size := kernel, uint32(1<<20)
	var files []zipFile
	var out string
	for i := n; i > 0; i-- {
		f := zipFile{name: fmt.Sprintf("%03d", i), packed: body, deflate: true, size: size, crc: 1}
		f.packed = body
		files = append([]zipFile{f}, files...)
		packed, method, crc := f.form()
		header := string(appendLocal(nil, zipFile{name: f.name, size: size}, packed, method, crc))
		header = header[:len(header)-len(packed)]
		out = header + body
		block := string(le.AppendUint16(le.AppendUint16([]byte{0}, uint16(len(header))), ^uint16(len(header))))
		body, size = block+header+body, size+uint32(len(header))
	}
	// Where each header is: one after the other, with the five bytes of a block between.
	at, dir := 0, []byte(nil)
	for _, f := range files {
		packed, method, crc := f.form()
		dir = appendCentral(dir, f, packed, method, crc, int64(at))
		at += 30 + len(f.name) + 5
	}
	return appendEnd([]byte(out+string(dir)), zipEnd{}, n, len(dir), len(out)), nil
}

// zipNested is depth zips around the innermost one.
func zipNested(depth int) []byte {
	data := zipOf(file("package-lock.json", `{"lockfileVersion":3}`))
	for range depth {
		data = zipOf(file("in.zip", string(data)))
	}
	return data
}

// zipMany is a directory of n members, and an end record that says how many in 16 or 64 bits.
func zipMany(n, says int) writer {
	return func(f *os.File) error {
		body := zipOf(file("0000000", "x"))
		local := body[:30+7+1]
		if _, err := f.Write(local); err != nil {
			return err
		}
		record := appendCentral(nil, file("0000000", "x"), "x", 0, crc32.ChecksumIEEE([]byte("x")), 0)
		var dir []byte
		for i := range n {
			copy(record[46:], fmt.Sprintf("%07d", i))
			dir = append(dir, record...)
		}
		if says == n {
			dir = appendEnd(dir, zipEnd{zip64: true, offset8: uint64(len(local))}, n, len(dir), len(local))
			// The Zip64 record lies behind the local header too.
			le.PutUint64(dir[len(dir)-22-20+8:], uint64(len(local)+len(dir)-22-20-56))
		} else {
			dir = appendEnd(dir, zipEnd{records: says}, n, len(dir), len(local))
		}
		_, err := f.Write(dir)
		return err
	}
}
