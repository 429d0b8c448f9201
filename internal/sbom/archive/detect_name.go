package archive

import (
	"bytes"
	"encoding/binary"
	"path"
	"strings"
)

// IsArchive says whether a member is worth opening as an archive. head is its beginning, best
// the first 512 bytes. Nested looks again, and closer.
//
// A zip may have anything before it. What is said of a program here is that Nested may find
// one behind it, as in a launcher that carries its jar; HidesZip knows of any file.
func IsArchive(head []byte, name string) bool {
	s, _, _ := recognise(head)
	return s != shapeFile || mayHideZip(head, name) || isNative(head) || bytes.Contains(head, zipMagic)
}

// Unread says whether a member that Nested does not open is an archive all the same: one of
// a kind that is not read, or one by its name whose content nobody here knows. head is its
// beginning; an empty file is nothing.
func Unread(head []byte, name string) bool {
	if len(head) == 0 {
		return false
	}
	s, _, _ := recognise(head)
	return s == shapeUnknown || s == shapeFile && (unreadName(head, name) || zipName(name) || tarName(name))
}

// HidesZip says whether a file ends as a zip does, whatever it begins as. It costs a read of
// the last 64 KiB; a compressed member has to be unpacked for it.
func (t *Tree) HidesZip(name string) bool {
	p, err := t.follow("open", name)
	e := t.entry(p)
	if err != nil || e == nil || e.size < zipEndSize+zipCentralSize {
		return false
	}
	f := t.openEntry(e)
	defer f.Close() //nolint:errcheck // only read
	return t.b.endsAsZip(f.r, e.size)
}

// unread names the archives that are known by their first bytes and not read.
func unread(head []byte) string {
	for _, known := range []struct{ magic, name string }{
		{"7z\xbc\xaf\x27\x1c", "7z"},
		{"Rar!\x1a\x07", "rar"},
		{"MSCF\x00\x00\x00\x00", "cab"},
		{"MSWIM\x00\x00\x00", "wim"},
		{"xar!\x00", "xar"},
		{"hsqs", "squashfs"},
		{"\x04\x22\x4d\x18", "lz4"},
		{"\x89LZO\x00\r\n\x1a", "lzop"},
		{"LZIP\x01", "lzip"},
		{"070701", "cpio"},
		{"070702", "cpio"},
		{"070707", "cpio"},
	} {
		if strings.HasPrefix(string(head[:min(len(head), 8)]), known.magic) {
			return known.name
		}
	}
	if isASAR(head) {
		return "asar"
	}
	return ""
}

// isASAR recognises what Electron packs applications into: the sizes of a header of JSON,
// each in the next, then the header.
func isASAR(head []byte) bool {
	return len(head) >= 24 && binary.LittleEndian.Uint32(head) == 4 && bytes.HasPrefix(head[16:], []byte(`{"files"`))
}

// unreadName says by its name that a file is an archive of a kind that is not read. It is
// for those that nothing at their beginning tells from other files, or not for certain.
func unreadName(head []byte, name string) bool {
	if s, _, _ := recognise(head); s != shapeFile || len(head) == 0 {
		return false
	}
	name = strings.ToLower(name)
	switch path.Ext(name) {
	case ".7z", ".ace", ".alz", ".arc", ".arj", ".asar", ".cab", ".cpio", ".dmg", ".iso", ".jmod", ".lha", ".lzh",
		".lz", ".lz4", ".lzma", ".lzo", ".tlz", ".msi", ".msp", ".rar", ".sit", ".sitx", ".snap", ".squashfs", ".taz",
		".vhd", ".vhdx", ".vmdk", ".wim", ".xar", ".z", ".zoo", ".zpaq":
		return true
	}
	// Compressed in a way that only the name knows: "x.tar.br".
	return strings.HasSuffix(strings.TrimSuffix(name, path.Ext(name)), ".tar") && !readSuffix(path.Ext(name))
}

// readSuffix is for what is read where it is what it says, and for statements about a tar.
func readSuffix(ext string) bool {
	switch ext {
	case ".gz", ".xz", ".bz2", ".zst", ".zstd",
		".asc", ".sig", ".sign", ".sigstore", ".bundle", ".pem", ".crt", ".cert", ".pub", ".prov", ".att", ".intoto", ".jsonl",
		".md5", ".sha1", ".sha256", ".sha512", ".sha256sum", ".sha512sum", ".json", ".txt", ".html", ".torrent", ".part", ".tmp":
		return true
	}
	return false
}

// mayHideZip is for zips that often have something before them: an executable jar of Spring
// Boot, a zipped Python program.
func mayHideZip(head []byte, name string) bool {
	return bytes.HasPrefix(head, []byte("#!")) || zipName(name)
}

// zipName says by its name that a file is a zip.
func zipName(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".jar", ".war", ".ear", ".zip", ".whl", ".egg", ".nupkg", ".snupkg", ".pyz", ".pex", ".par", ".aar", ".sar", ".kar",
		".hpi", ".jpi", ".nbm", ".lpkg", ".jmod", ".vsix", ".xpi", ".crx", ".ipa", ".aab", ".appx", ".msix", ".apk":
		return true
	}
	return false
}

// tarName says by its name that a file is a tar, compressed or not.
func tarName(name string) bool {
	name = strings.ToLower(name)
	switch path.Ext(name) {
	case ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".crate", ".gem", ".deb", ".udeb", ".ipk":
		return true
	case ".gz", ".xz", ".bz2", ".zst", ".zstd":
		return strings.HasSuffix(strings.TrimSuffix(name, path.Ext(name)), ".tar")
	}
	return false
}

// isNative recognises programs and libraries: ELF, PE, Mach-O.
func isNative(head []byte) bool {
	if len(head) < 8 {
		return false
	}
	if bytes.HasPrefix(head, []byte("\x7fELF")) || bytes.HasPrefix(head, []byte("MZ")) {
		return true
	}
	switch binary.BigEndian.Uint32(head) {
	case 0xfeedface, 0xfeedfacf, 0xcefaedfe, 0xcffaedfe:
		return true
	case 0xcafebabe: // a universal binary, or a Java class, whose version follows and is 45 or more
		return binary.BigEndian.Uint32(head[4:]) < 45
	}
	return false
}
