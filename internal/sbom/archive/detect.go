package archive

import "bytes"

// First bytes that tell formats apart.
var (
	zipMagic      = []byte("PK\x03\x04")
	emptyZipMagic = []byte("PK\x05\x06")
	gzipMagic     = []byte("\x1f\x8b")
	zstdMagic     = []byte("\x28\xb5\x2f\xfd")
	xzMagic       = []byte("\xfd7zXZ\x00")
	bzip2Magic    = []byte("BZh")
	bzip2Block    = []byte("\x31\x41\x59\x26\x53\x59")
	bzip2Empty    = []byte("\x17\x72\x45\x38\x50\x90")
	arMagic       = []byte("!<arch>\n")
	debMember     = []byte("debian-binary")
)

// headBytes is what recognising a format takes.
const headBytes = 512

// shape is the outer form of some bytes.
type shape uint8

const (
	shapeFile shape = iota
	shapeZip
	shapeTar
	shapeDeb
	shapePacked  // a compressed stream
	shapeUnknown // an archive of a kind that is not read
)

// recognise judges by the first bytes.
func recognise(head []byte) (shape, method, string) {
	switch {
	case bytes.HasPrefix(head, zipMagic), bytes.HasPrefix(head, emptyZipMagic):
		return shapeZip, methodStored, "zip"
	case bytes.HasPrefix(head, gzipMagic) && len(head) > 3 && head[2] == 8 && head[3]&0xe0 == 0:
		return shapePacked, methodGzip, "gzip"
	case bytes.HasPrefix(head, zstdMagic), isSkippable(head):
		return shapePacked, methodZstd, "zstd"
	case bytes.HasPrefix(head, xzMagic):
		return shapePacked, methodXZ, "xz"
	case isBzip2(head):
		return shapePacked, methodBzip2, "bzip2"
	case bytes.HasPrefix(head, arMagic) && bytes.HasPrefix(head[len(arMagic):], debMember):
		return shapeDeb, methodStored, "ar"
	case isTar(head):
		return shapeTar, methodStored, "tar"
	}
	if name := unread(head); name != "" {
		return shapeUnknown, methodStored, name
	}
	return shapeFile, methodStored, "file"
}

// isSkippable recognises the frames that may come before the first one of zstd (RFC 8878 3.1.2).
func isSkippable(head []byte) bool {
	if len(head) < 12 || head[0]&0xf0 != 0x50 || !bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}) {
		return false
	}
	n := int(head[4]) | int(head[5])<<8 | int(head[6])<<16 | int(head[7])<<24
	return len(head) < 12+n || bytes.HasPrefix(head[8+n:], zstdMagic)
}

func isBzip2(head []byte) bool {
	return len(head) >= 10 && bytes.HasPrefix(head, bzip2Magic) && head[3] >= '1' && head[3] <= '9' &&
		(bytes.HasPrefix(head[4:], bzip2Block) || bytes.HasPrefix(head[4:], bzip2Empty))
}

// isTar asks for the mark of POSIX and GNU, or for a block with a name and with the sum of
// its bytes, which even the oldest form has. Readers differ in how they spell numbers: with
// the mark the sum need not be right.
func isTar(head []byte) bool {
	if len(head) >= 262 && string(head[257:262]) == "ustar" {
		return true
	}
	if len(head) < headBytes || head[0] == 0 {
		return false
	}
	want, ok := checksum(head[148:156])
	if !ok {
		return false
	}
	var unsigned, signed int64
	for i, c := range head[:headBytes] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}
