package archive

import (
	"archive/tar"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// Types of members that some readers know and others take for files.
const (
	typeDumpDir   = 'D' // a folder in an incremental archive of GNU tar
	typeMulti     = 'M' // the rest of a file that another volume began
	typeOldName   = 'N' // names, as GNU tar once wrote them
	typeVolume    = 'V' // the label of a volume
	typeSolarisX  = 'X' // PAX records, as Solaris once wrote them
	starPrefixEnd = 345 + 131
)

// oddity says what in a header two readers take for two things, "" where it is plain. The
// window is behind the last block of the header.
func (ix *tarIndex) oddity(h *tar.Header) string {
	data := h.Size > 0
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return oddGlobal(h.PAXRecords)
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		if data {
			return "a member that has no data, with a size: some skip as much"
		}
	case typeDumpDir, typeVolume:
		if data {
			return "a folder or a label with content, which is a file to some"
		}
	case typeMulti, typeOldName, typeSolarisX:
		return "a member of a type that some take for a file, and others for more about the next one"
	}
	if p, ok := h.PAXRecords["path"]; ok && p != h.Name {
		return "a member with two names: " + p
	}
	if p, ok := h.PAXRecords["linkpath"]; ok && p != h.Linkname {
		return "a link with two targets: " + p
	}
	return ix.oddPrefix()
}

// oddGlobal looks for records that would be true of every member that follows. What is
// about times, owners and attributes changes nothing of what there is to read.
func oddGlobal(records map[string]string) string {
	for key := range records {
		switch key {
		case "comment", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "charset", "hdrcharset":
			continue
		}
		vendor, _, ok := strings.Cut(key, ".")
		if ok && vendor != "GNU" && key != "SCHILY.realsize" && key != "SCHILY.filetype" {
			continue
		}
		return "a global record of names or sizes, which some apply to all members"
	}
	return ""
}

// oddPrefix looks at the field that goes before a name in the form of POSIX: others keep
// times there, or read less of it, and some read it in headers of any form.
func (ix *tarIndex) oddPrefix() string {
	at := ix.w.off
	ix.w.off -= tarBlock
	block := ix.w.page(tarBlock)
	ix.w.off = at
	if block == nil || block[345] == 0 {
		return ""
	}
	switch magic := string(block[257:265]); {
	case strings.HasPrefix(magic, "ustar\x00"):
		if string(block[508:512]) == "tar\x00" && len(cString(block[345:starPrefixEnd])) == starPrefixEnd-345 {
			return "a name that is longer to some"
		}
	case magic == "ustar  \x00":
		if _, ok := octal(block[345:357]); !ok {
			return "a name with a beginning that some do not see"
		}
	default:
		return "a name with a beginning that some do not see"
	}
	return ""
}

// isSparse reports the forms of a file with holes: what it unpacks to has no relation to
// what is stored.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// addLink puts a symbolic link into the tree.
func (bd *builder) addLink(p, target string) {
	if bd.isTarget(p, target) {
		bd.add(p, kindLink, nil, target)
	}
}

// second makes a symbolic link of what is a file in the tree already.
func (bd *builder) second(p, target string) {
	if bd.isTarget(p, target) {
		bd.seconds = append(bd.seconds, link{p, target})
	}
}

// isTarget judges what a symbolic link says.
func (bd *builder) isTarget(p, target string) bool {
	if len(target) > bd.t.b.limits.MaxPathBytes || target == "" || strings.IndexByte(target, 0) >= 0 {
		bd.note(sbom.ReasonUnsafePath, p, "a symbolic link with a target that is no path")
		return false
	}
	if bd.names != namesImage && leadsOut(p, target) {
		bd.note(sbom.ReasonUnsafePath, p, "a symbolic link that leads out")
		return false
	}
	bd.charge(int64(len(target)))
	return true
}

// leadsOut reports a relative target that is above the root of the archive.
func leadsOut(p, target string) bool {
	if target[0] == '/' {
		return false // it stands for the root of the archive
	}
	depth := strings.Count(p, "/")
	for element := range strings.SplitSeq(target, "/") {
		switch element {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return true
			}
		default:
			depth++
		}
	}
	return false
}
