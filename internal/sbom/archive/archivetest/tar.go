package archivetest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// reg is a regular file of a tar.
func reg(name, data string) tarFile {
	return tarFile{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, data: data}
}

// tarFile is a member of a tar that the standard library agrees to write.
type tarFile struct {
	tar.Header
	data string
}

func linkTo(name, target string) tarFile {
	return tarFile{Header: tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}}
}

func hardlink(name, target string) tarFile {
	return tarFile{Header: tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}}
}

// tarOf writes an archive.
func tarOf(files ...tarFile) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := f.Header
		h.Size = int64(len(f.data))
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(f.data)); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// rawHeader is a header of GNU tar with what the standard library would not write. size is
// in base 256 where it has no room in octal.
func rawHeader(typ byte, name string, size int64) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	if size < 1<<33 {
		copy(h[124:], fmt.Sprintf("%011o\x00", size))
	} else {
		for i := range 8 {
			h[135-i] = byte(size >> (8 * i))
		}
		h[124] = 0x80
	}
	copy(h[136:], "00000000000\x00        ")
	h[156] = typ
	copy(h[257:], "ustar  \x00")
	seal(h)
	return h
}

// seal computes the checksum of a header.
func seal(h []byte) {
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
}

func aTar(name string, want []sbom.ReasonCode, files ...tarFile) recipe {
	return recipe{name: name, ext: ".tar", want: want, write: content(func() ([]byte, error) { return tarOf(files...) })}
}

func rawTar(name string, want []sbom.ReasonCode, parts ...[]byte) recipe {
	return recipe{name: name, ext: ".tar", want: want, write: content(func() ([]byte, error) { return bytes.Join(parts, nil), nil })}
}

// tars are hostile members of a tar.
func tars() []recipe {
	unsafe, malformed, unsupported := codes(sbom.ReasonUnsafePath), codes(sbom.ReasonMalformed), codes(sbom.ReasonUnsupported)
	ok := reg("package.json", "{}")
	okRaw := append(rawHeader('0', "package.json", 2), append([]byte("{}"), make([]byte, 510)...)...)
	end := make([]byte, 1024)
	device := func(name string, typ byte) tarFile {
		return tarFile{Header: tar.Header{Name: name, Typeflag: typ, Devmajor: 8}}
	}
	sparse := rawHeader('S', "sparse", 512)
	copy(sparse[386:], "00000000000\x0000000001000\x00") // one piece
	copy(sparse[483:], "77777777777\x00")                // 8 GiB when unpacked
	seal(sparse)
	return []recipe{
		aTar("tar-slip", unsafe, ok, reg("../../../../../../../../tmp/evil.txt", "evil")),
		aTar("tar-slip-windows", unsafe, ok, reg(`..\..\evil.txt`, "evil")),
		aTar("tar-slip-pax", unsafe, ok, reg(strings.Repeat("a/", 100)+strings.Repeat("../", 101)+"evil", "evil")),
		aTar("tar-backslash", nil, ok, reg(`usr/lib/systemd/system/system-systemd\x2dcryptsetup.slice`, "[Unit]")),
		aTar("tar-absolute", unsafe, ok, reg("/etc/passwd", "root")),
		aTar("tar-drive", unsafe, ok, reg("c:evil", "evil")),
		aTar("tar-invalid-utf8", unsafe, okFirst(rawName("evil\xff"))...),
		aTar("tar-long-name", unsafe, ok, reg(strings.Repeat("long/", 1000)+"x", "evil")),
		aTar("tar-deep-name", unsafe, ok, reg(strings.Repeat("d/", 300)+"x", "evil")),
		aTar("tar-link-out", unsafe, ok, linkTo("a/b", "../../etc/passwd")),
		aTar("tar-link-absolute", nil, ok, linkTo("passwd", "/etc/passwd")),
		aTar("tar-link-loop", nil, ok, linkTo("a", "b"), linkTo("b", "c"), linkTo("c", "a/d")),
		aTar("tar-link-loop-parent", unsafe, ok, linkTo("a", "b"), linkTo("b", "a"), reg("a/x", "1")),
		aTar("tar-link-parent", unsafe, linkTo("lib", "/etc"), reg("lib/passwd", "root")),
		aTar("tar-link-parent-later", unsafe, reg("lib/passwd", "root"), linkTo("lib", "/etc")),
		aTar("tar-hardlink-out", unsafe, ok, hardlink("passwd", "../../../etc/passwd")),
		aTar("tar-hardlink-absolute", unsafe, ok, hardlink("passwd", "/etc/passwd")),
		aTar("tar-hardlink-missing", malformed, ok, hardlink("passwd", "etc/passwd")),
		aTar("tar-hardlink-self", malformed, ok, hardlink("a", "a")),
		aTar("tar-hardlink-link", unsafe, ok, linkTo("l", "/etc"), hardlink("m", "l"), reg("m/passwd", "root")),
		aTar("tar-devices", nil, ok, device("sda", tar.TypeBlock), device("null", tar.TypeChar), device("pipe", tar.TypeFifo)),
		aTar("tar-duplicate", unsafe, reg("go.mod", "module a"), reg("go.mod", "module b")),
		aTar("tar-duplicate-kinds", unsafe, reg("a", "file"), linkTo("a", "package.json"), ok),
		aTar("tar-file-and-folder", unsafe, reg("a", "file"), reg("a/b", "file")),
		aTar("tar-case-conflict", nil, reg("A", "1"), reg("a", "2")),
		rawTar("tar-no-name", unsafe, okRaw, rawHeader('0', "", 0), end),
		rawTar("tar-size-8-EiB", malformed, okRaw, rawHeader('0', "huge", 1<<63-1), end),
		rawTar("tar-size-negative", malformed, okRaw, negative(rawHeader('0', "huge", 1<<62)), end),
		rawTar("tar-long-record", malformed, okRaw, rawHeader('L', "././@LongLink", 1<<40), end),
		rawTar("tar-pax-record", malformed, okRaw, rawHeader('x', "pax", 512), pad("99999999 path=x\n")),
		rawTar("tar-pax-size", malformed, okRaw, rawHeader('x', "pax", 28), pad("28 size=9223372036854775807\n"), rawHeader('0', "huge", 1), end),
		rawTar("tar-checksum", malformed, okRaw, bytes.Repeat([]byte{'x'}, 512), end),
		rawTar("tar-truncated", malformed, okRaw, rawHeader('0', "big", 1<<20), []byte("only this")),
		rawTar("tar-truncated-header", malformed, okRaw, rawHeader('0', "b", 0)[:300]),
		rawTar("tar-sparse-gnu", unsupported, okRaw, sparse, make([]byte, 512), end),
		{name: "tar-sparse-pax", ext: ".tar", want: unsupported, write: content(paxSparse)},
		{name: "tar-file-too-large", ext: ".tar", want: codes(sbom.ReasonFileSize), write: tarHole},
		{name: "tar-many", ext: ".tar", want: codes(sbom.ReasonEntries), large: true, write: tarMany(500_100)},
		{name: "tar-many-long-names", ext: ".tar", want: codes(sbom.ReasonMemory), large: true, write: tarLongNames(36_000)},
	}
}

func rawName(name string) tarFile {
	return tarFile{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Format: tar.FormatGNU}, data: "x"}
}

func okFirst(f tarFile) []tarFile { return []tarFile{reg("package.json", "{}"), f} }

func pad(s string) []byte {
	block := make([]byte, (len(s)+511)/512*512)
	copy(block, s)
	return block
}

// negative turns a size in base 256 into one below zero.
func negative(h []byte) []byte {
	for i := 124; i < 136; i++ {
		h[i] = 0xff
	}
	seal(h)
	return h
}

// paxSparse is the form 1.0 of GNU tar: a map, then the data, under a made-up name.
func paxSparse() ([]byte, error) {
	records := paxRecord("GNU.sparse.major", "1") + paxRecord("GNU.sparse.minor", "0") +
		paxRecord("GNU.sparse.name", "sparse") + paxRecord("GNU.sparse.realsize", "99999999999")
	return bytes.Join([][]byte{
		rawHeader('x', "pax", int64(len(records))), pad(records),
		rawHeader('0', "GNUSparseFile.0/sparse", 1024), pad("1\n0\n512\n"), make([]byte, 512),
		make([]byte, 1024),
	}, nil), nil
}

// paxRecord is "LENGTH key=value\n", the length counting itself.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest) + 1
	if n >= 10 {
		n++
	}
	return fmt.Sprint(n) + rest
}

// tarHole has a member of 5 GiB, which is a hole on the disk.
func tarHole(f *os.File) error {
	const size = 5 << 30
	if _, err := f.Write(rawHeader('0', "large.bin", size)); err != nil {
		return err
	}
	return f.Truncate(512 + size + 1024)
}

// tarMany has n empty members.
func tarMany(n int) writer {
	return func(f *os.File) error {
		block := make([]byte, 0, 1<<20)
		for i := range n {
			block = append(block, rawHeader('0', fmt.Sprintf("d%03d/%06d", i/1000, i), 0)...)
			if len(block) == cap(block) || i == n-1 {
				if _, err := f.Write(block); err != nil {
					return err
				}
				block = block[:0]
			}
		}
		return f.Truncate(int64(n)*512 + 1024)
	}
}

// tarLongNames has members with names as long as they may be.
func tarLongNames(n int) writer {
	return func(f *os.File) error {
		name := make([]byte, 4096)
		for i := range name {
			if name[i] = 'n'; i%250 == 249 {
				name[i] = '/'
			}
		}
		long, short := rawHeader('L', "././@LongLink", int64(len(name))), rawHeader('0', "x", 0)
		for i := range n {
			copy(name, fmt.Sprintf("%08d", i))
			if _, err := f.Write(bytes.Join([][]byte{long, name[:4095], {0}, short}, nil)); err != nil {
				return err
			}
		}
		return nil
	}
}

// charDevice takes the place of a file. In a layer it is no whiteout, whatever overlayfs
// makes of it.
func charDevice(name string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeChar}
}
