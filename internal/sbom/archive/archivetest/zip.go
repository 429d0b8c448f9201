package archivetest

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// zipFile is one member as the directory has it, and as the header before its data has it.
// A zero field is derived.
type zipFile struct {
	name  string
	local string // another name before the data
	data  string
	// packed is the stored form; deflate makes it of data.
	deflate bool
	packed  string
	// What is claimed, where it is not true.
	method     uint16
	flags      uint16
	size       uint32
	localSize  uint32
	crc        uint32
	extra      string
	mode       uint32
	headerAt   int64 // the offset in the directory, -1 for the true one
	headerTrue bool
	before     string // lies between the member before and this one
	nothing    bool   // it claims to have no content
	noDir      bool   // the directory does not list it
	noData     bool   // it is in the directory only
}

// file is a member that is as it should be.
func file(name, data string) zipFile { return zipFile{name: name, data: data} }

// zipOf writes an archive.
func zipOf(files ...zipFile) []byte { return zipWith(zipEnd{}, files...) }

// zipEnd is what the end record says, where that is not true.
type zipEnd struct {
	records  int
	offset   uint32
	comment  string
	zip64    bool
	records8 uint64
	offset8  uint64
	noEnd    bool
}

var le = binary.LittleEndian

func zipWith(end zipEnd, files ...zipFile) []byte {
	var out, dir []byte
	n := 0
	for _, f := range files {
		packed, method, crc := f.form()
		out = append(out, f.before...)
		at := int64(len(out))
		if f.headerAt != 0 || f.headerTrue {
			at = f.headerAt
		}
		if !f.noData {
			out = appendLocal(out, f, packed, method, crc)
		}
		if !f.noDir {
			dir = appendCentral(dir, f, packed, method, crc, at)
			n++
		}
	}
	offset := len(out)
	out = append(out, dir...)
	if end.noEnd {
		return out
	}
	return appendEnd(out, end, n, len(dir), offset)
}

// form is what is stored of a member.
func (f zipFile) form() (packed string, method uint16, crc uint32) {
	packed = f.data
	if f.packed != "" {
		packed = f.packed
	}
	if f.deflate && f.packed == "" {
		packed = deflate(f.data)
	}
	if method = f.method; f.deflate {
		method = 8
	}
	if crc = f.crc; crc == 0 {
		crc = crc32.ChecksumIEEE([]byte(f.data))
	}
	return packed, method, crc
}

func appendLocal(out []byte, f zipFile, packed string, method uint16, crc uint32) []byte {
	name, size := f.name, uint32(len(f.data))
	if f.local != "" {
		name = f.local
	}
	if f.size != 0 {
		size = f.size
	}
	if f.localSize != 0 {
		size = f.localSize
	}
	if f.nothing {
		size = 0
	}
	out = append(out, "PK\x03\x04\x14\x00"...)
	out = le.AppendUint16(out, f.flags)
	out = le.AppendUint16(out, method)
	out = le.AppendUint32(out, 0x3c640308) // a date, the same each time
	out = le.AppendUint32(out, crc)
	out = le.AppendUint32(out, uint32(len(packed)))
	out = le.AppendUint32(out, size)
	out = le.AppendUint16(out, uint16(len(name)))
	out = le.AppendUint16(out, 0)
	return append(append(out, name...), packed...)
}

func appendCentral(dir []byte, f zipFile, packed string, method uint16, crc uint32, at int64) []byte {
	size := uint32(len(f.data))
	if f.size != 0 {
		size = f.size
	}
	if f.nothing {
		size = 0
	}
	dir = append(dir, "PK\x01\x02\x14\x03\x14\x00"...)
	dir = le.AppendUint16(dir, f.flags)
	dir = le.AppendUint16(dir, method)
	dir = le.AppendUint32(dir, 0x3c640308)
	dir = le.AppendUint32(dir, crc)
	dir = le.AppendUint32(dir, uint32(len(packed)))
	dir = le.AppendUint32(dir, size)
	dir = le.AppendUint16(dir, uint16(len(f.name)))
	dir = le.AppendUint16(dir, uint16(len(f.extra)))
	dir = append(dir, make([]byte, 6)...) // no comment, first disk, no attributes
	dir = le.AppendUint32(dir, f.mode<<16)
	dir = le.AppendUint32(dir, uint32(at))
	return append(append(dir, f.name...), f.extra...)
}

func appendEnd(out []byte, end zipEnd, n, size, offset int) []byte {
	if end.zip64 {
		at := len(out)
		out = append(out, "PK\x06\x06\x2c\x00\x00\x00\x00\x00\x00\x00\x2d\x03\x2d\x00"...)
		out = append(out, make([]byte, 8)...)
		records, where := uint64(n), uint64(offset)
		if end.records8 != 0 {
			records = end.records8
		}
		if end.offset8 != 0 {
			where = end.offset8
		}
		out = le.AppendUint64(le.AppendUint64(out, records), records)
		out = le.AppendUint64(le.AppendUint64(out, uint64(size)), where)
		out = append(out, "PK\x06\x07\x00\x00\x00\x00"...)
		out = le.AppendUint32(le.AppendUint64(out, uint64(at)), 1)
		end.records, end.offset = 0xffff, 0xffffffff
	}
	if end.records != 0 {
		n = end.records
	}
	if end.offset != 0 {
		offset = int(end.offset)
	}
	out = append(out, "PK\x05\x06\x00\x00\x00\x00"...)
	out = le.AppendUint16(le.AppendUint16(out, uint16(n)), uint16(n))
	out = le.AppendUint32(le.AppendUint32(out, uint32(size)), uint32(offset))
	out = le.AppendUint16(out, uint16(len(end.comment)))
	return append(out, end.comment...)
}

func deflate(data string) string {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestCompression) // the level is a valid one
	w.Write([]byte(data))                                //nolint:errcheck // a buffer takes all
	w.Close()                                            //nolint:errcheck // a buffer takes all
	return out.String()
}

// extraField is one field of a member's extra data.
func extraField(tag uint16, data string) string {
	head := le.AppendUint16(le.AppendUint16(nil, tag), uint16(len(data)))
	return string(head) + data
}

func u64s(values ...uint64) string {
	var out []byte
	for _, v := range values {
		out = le.AppendUint64(out, v)
	}
	return string(out)
}

// aZip is a recipe of a zip that is at hand.
func aZip(name string, data []byte, want ...sbom.ReasonCode) recipe {
	return recipe{name: name, ext: ".zip", want: want, write: content(func() ([]byte, error) { return data, nil })}
}

// zipNames are members that are called what they should not be.
func zipNames() []recipe {
	const unsafe = sbom.ReasonUnsafePath
	ok := file("package.json", "{}")
	named := func(name string) []byte { return zipOf(ok, file(name, "evil")) }
	return []recipe{
		aZip("zip-slip", named("../../../../../../../../tmp/evil.txt"), unsafe),
		aZip("zip-slip-inside", named("a/../../b"), unsafe),
		aZip("zip-slip-windows", named(`..\..\..\windows\evil.txt`), unsafe),
		aZip("zip-backslash", named(`lib\evil.jar`), unsafe),
		aZip("zip-absolute", named("/etc/cron.d/evil"), unsafe),
		aZip("zip-drive", named("C:/windows/evil"), unsafe),
		aZip("zip-nul", named("evil.txt\x00.png"), unsafe),
		aZip("zip-invalid-utf8", named("evil\xff\xfe"), unsafe),
		aZip("zip-no-name", named(""), unsafe),
		aZip("zip-root", named("."), unsafe),
		aZip("zip-long-name", named(strings.Repeat("n", 65_000)), unsafe),
		aZip("zip-deep-name", named(strings.Repeat("d/", 300)+"x"), unsafe),
		aZip("zip-duplicate", zipOf(file("pom.xml", "<a/>"), file("pom.xml", "<b/>")), unsafe),
		aZip("zip-duplicate-spelled", zipOf(file("a/pom.xml", "<a/>"), file("a/./pom.xml", "<b/>")), unsafe),
		aZip("zip-duplicate-same", zipOf(file("pom.xml", "<a/>"), file("pom.xml", "<a/>"))),
		aZip("zip-file-and-folder", zipOf(file("a", "file"), file("a/b", "file")), unsafe),
		aZip("zip-folder-with-content", zipOf(ok, file("a/", "hidden")), unsafe),
		aZip("zip-case-conflict", zipOf(file("README", "1"), file("readme", "2"))),
		aZip("zip-two-names", zipOf(zipFile{name: "a.txt", data: "x", extra: extraField(0x7075, "\x01\x00\x00\x00\x00b.txt")}), unsafe),
		aZip("zip-local-name", zipOf(zipFile{name: "a.txt", local: "b.txt", data: "x"}), unsafe),
		aZip("zip-link-out", zipOf(ok, zipFile{name: "etc", data: "../../etc", mode: 0o120777}), unsafe),
		aZip("zip-link-parent", zipOf(zipFile{name: "a", data: "b", mode: 0o120777}, file("b/c", "1"), file("a/d", "2")), unsafe),
		aZip("zip-link-huge", zipOf(ok, zipFile{name: "l", data: strings.Repeat("x/", 5000), mode: 0o120777, deflate: true}), unsafe),
		aZip("zip-link-loop", zipOf(ok, zipFile{name: "a", data: "b", mode: 0o120777}, zipFile{name: "b", data: "a", mode: 0o120777})),
		aZip("zip-device", zipOf(ok, zipFile{name: "dev/sda", mode: 0o060666}, zipFile{name: "pipe", mode: 0o010666})),
	}
}

// zipStructure are archives that say one thing here and another there.
func zipStructure() []recipe {
	const malformed = sbom.ReasonMalformed
	ok := file("package-lock.json", "{}")
	text := strings.Repeat("content ", 1000)
	good := zipOf(ok, file("b.txt", text))
	return []recipe{
		aZip("zip-no-end", zipWith(zipEnd{noEnd: true}, ok), malformed),
		aZip("zip-truncated", good[:len(good)/2], malformed),
		aZip("zip-end-in-comment", append(zipWith(zipEnd{comment: string(good)}, file("other.txt", "x")), ""...), sbom.ReasonUnsafePath),
		aZip("zip-count-too-few", zipWith(zipEnd{records: 1}, ok, file("b", "2")), malformed),
		aZip("zip-count-too-many", zipWith(zipEnd{records: 9}, ok), malformed),
		aZip("zip-directory-elsewhere", zipWith(zipEnd{offset: 0x7fffffff}, ok), malformed),
		aZip("zip64-count-lie", zipWith(zipEnd{zip64: true, records8: 1 << 63}, ok), sbom.ReasonEntries),
		aZip("zip64-offset-lie", zipWith(zipEnd{zip64: true, offset8: 1 << 62}, ok), malformed),
		aZip("zip64-size-lie", zipOf(ok, zipFile{name: "b", data: text, deflate: true, size: 0xffffffff, extra: extraField(1, u64s(1<<62))}), sbom.ReasonFileSize),
		aZip("zip64-size-negative", zipOf(ok, zipFile{name: "b", data: text, deflate: true, size: 0xffffffff, extra: extraField(1, u64s(1<<63))}), malformed),
		aZip("zip64-size-missing", zipOf(ok, zipFile{name: "b", data: text, deflate: true, size: 0xffffffff, extra: extraField(1, "")}), malformed),
		aZip("zip64-size-twice", zipOf(ok, zipFile{name: "b", data: text, deflate: true, size: 0xffffffff, extra: extraField(1, u64s(8000)) + extraField(1, u64s(9))}), malformed),
		aZip("zip-hidden-member", zipOf(ok, zipFile{name: "hidden", data: text, noDir: true}, file("c", "3")), sbom.ReasonUnsafePath),
		aZip("zip-hidden-first", zipOf(zipFile{name: "hidden", data: text, noDir: true}, ok), sbom.ReasonUnsafePath),
		aZip("zip-local-size", zipOf(ok, zipFile{name: "b", data: text, localSize: 7}), malformed),
		aZip("zip-no-data", zipOf(ok, zipFile{name: "b", data: text, noData: true, headerAt: 1}), malformed),
		aZip("zip-stored-sizes", zipOf(ok, zipFile{name: "b", data: text, size: 90_000}), malformed),
		aZip("zip-claims-less", zipOf(zipFile{name: "package-lock.json", data: text, deflate: true, size: 10}), malformed),
		aZip("zip-claims-more", zipOf(zipFile{name: "package-lock.json", data: text, deflate: true, size: 10_000}), malformed),
		aZip("zip-wrong-crc", zipOf(zipFile{name: "package-lock.json", data: text, deflate: true, crc: 1}), malformed),
		aZip("zip-not-deflate", zipOf(zipFile{name: "package-lock.json", data: text, packed: strings.Repeat("\xff", 99), deflate: true}), malformed),
		aZip("zip-encrypted", zipOf(ok, zipFile{name: "b", data: text, flags: 1}), sbom.ReasonEncrypted),
		aZip("zip-encrypted-aes", zipOf(ok, zipFile{name: "b", data: text, method: 99, extra: extraField(0x9901, "\x02\x00AE\x03\x08\x00")}), sbom.ReasonEncrypted),
		aZip("zip-unknown-method", zipOf(ok, zipFile{name: "b", data: text, method: 98}), sbom.ReasonUnsupported),
		aZip("zip-patch", zipOf(ok, zipFile{name: "b", data: text, flags: 1 << 5}), sbom.ReasonUnsupported),
	}
}

// rzip is "Zip Files All The Way Down" by Russ Cox (research.swtch.com/zip): it holds itself.
const rzip = "504b03041400000008000803643cf9f4896448010000b801000007000000722f722e7a6970002500daff504b03041400" +
	"000008000803643cf9f4896448010000b801000007000000722f722e7a6970002f00d0ff002500daff504b0304140000" +
	"0008000803643cf9f4896448010000b801000007000000722f722e7a6970002f00d0ffc2548e5739000500faffc2548e" +
	"5739000500faff000500faff001400ebffc2548e5739000500faff000500faff001400ebff428821c400001400ebff42" +
	"8821c400001400ebff428821c400001400ebff428821c400001400ebff428821c400000000ffff000000ffff003400cb" +
	"ff428821c400000000ffff000000ffff003400cbff42e8215e0f000000ffff0af066641261c015dce8a048bf48af2ab3" +
	"20c09b950dc46704425306060640000600f9ff6d010000000042e8215e0f000000ffff0af066641261c015dce8a048bf" +
	"48af2ab320c09b950dc46704425306060640000600f9ff6d0100000000504b010214001400000008000803643cf9f489" +
	"6448010000b8010000070000000000000000000000000000000000722f722e7a6970504b050600000000010001003500" +
	"00006d0100000000"

// quine decodes rzip.
func quine() ([]byte, error) { return hex.DecodeString(rzip) }
