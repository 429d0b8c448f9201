package archive

import (
	"bytes"
	"io"
	"strconv"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// arHeaderSize is the header of a member of ar (deb(5), ar(5)).
const arHeaderSize = 60

// maxArMembers bounds the members of a .deb; it has three.
const maxArMembers = 64

// loadDeb fills the tree from a Debian package: what it installs, and below DEBIAN/ what
// it says of itself, as "dpkg-deb -R" does.
func (t *Tree) loadDeb(r io.ReaderAt, size int64) {
	t.format = "ar"
	bd := newBuilder(t, namesTar)
	seen := map[string]bool{}
	off := int64(len(arMagic))
	for i := 0; ; i++ {
		var h [arHeaderSize]byte
		if n, _ := r.ReadAt(h[:min(arHeaderSize, max(size-off, 0))], off); n == 0 {
			break
		}
		if i == maxArMembers {
			bd.noteErr("", problemf(sbom.ReasonEntries, "a Debian package of more than %d parts", maxArMembers))
			break
		}
		name := strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
		n, err := strconv.ParseInt(strings.TrimRight(string(h[48:58]), " "), 10, 64)
		if off += arHeaderSize; err != nil || string(h[58:]) != "`\n" || n < 0 || n > size-off {
			bd.note(sbom.ReasonMalformed, "", "a Debian package that cannot be read to its end")
			break
		}
		if err := t.take(name); err != nil {
			bd.noteErr("", err)
			break
		}
		bd.at = printable(name, 64) + "!/"
		part, _, _ := strings.Cut(name, ".")
		if seen[part] && part != "_gpgorigin" {
			bd.note(sbom.ReasonUnsafePath, "", "a part of a Debian package that is there twice")
		}
		seen[part] = true
		t.addDebPart(bd, name, part, io.NewSectionReader(r, off, n))
		off += n + n&1
	}
	bd.at = ""
	if !seen["control"] || !seen["data"] {
		bd.note(sbom.ReasonMalformed, "", "a Debian package that lacks a part")
	}
	bd.finish()
}

func (t *Tree) addDebPart(bd *builder, name, part string, content *io.SectionReader) {
	below := ""
	switch part {
	case "control":
		below = "DEBIAN/"
	case "data":
	case "debian-binary":
		return
	default: // a signature; or what only who unpacks it as ar would see
		t.addDebOther(bd, name, content)
		return
	}
	tar, size, ok := t.unpackTar(content, t.prefix+strings.TrimSuffix(bd.at, "!/"))
	if !ok {
		bd.note(sbom.ReasonUnsupported, "", "a part of a Debian package that is no tar, or packed in a way that is not read")
		return
	}
	bd.addTar(tar, size, below)
}

// addDebOther keeps a part that dpkg does not know.
func (t *Tree) addDebOther(bd *builder, name string, content *io.SectionReader) {
	at := bd.at
	bd.at = ""
	if p, err := t.b.clean(name, bd.names); err != nil || p == "" {
		bd.note(sbom.ReasonUnsafePath, name, "a part of a Debian package without a proper name")
	} else {
		bd.add("DEBIAN/"+p, kindFile, &entry{size: content.Size(), packed: content.Size(), src: t.source(content), perm: 0o644}, "")
	}
	bd.at = at
}

// Parts of a gem.
const (
	gemData     = "data.tar.gz"
	gemMetadata = "metadata.gz"
)

// loadGem replaces the tree of a gem by what it installs; the parts of the gem itself stay
// where they are, but for the data.
func (t *Tree) loadGem() {
	outer := *t
	t.b.files -= len(t.entries)
	t.entries, t.links = nil, nil
	bd := newBuilder(t, namesTar)
	for i := range outer.entries {
		e := &outer.entries[i]
		if e.path != gemData {
			bd.add(e.path, kindFile, e, "")
			continue
		}
		bd.at = gemData + "!/"
		if data, size, ok := t.unpackTar(outer.raw(e), t.prefix+gemData); ok {
			bd.addTar(data, size, "")
		} else {
			bd.note(sbom.ReasonMalformed, "", "the data of a gem that are no tar")
		}
		bd.at = ""
	}
	bd.finish()
	t.format = "gem"
}

// special looks at a tar for what it is more than that.
func (t *Tree) special() {
	switch {
	case t.entry(gemMetadata) != nil && t.entry(gemData) != nil:
		t.loadGem()
	case t.format == "tar+gzip" && t.isAPK():
		t.format = "apk"
	default:
		t.loadImage()
	}
}

// isAPK recognises a package of Alpine: one gzip after the other, which are one tar.
func (t *Tree) isAPK() bool {
	e := t.entry(".PKGINFO")
	if e == nil || t.entry(".MTREE") != nil { // those of Arch Linux have one
		return false
	}
	head := readHead(t.raw(e), e.size)
	return bytes.Contains(head, []byte("pkgname = "))
}
