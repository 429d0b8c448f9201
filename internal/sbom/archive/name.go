package archive

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/assay-build/assay/internal/sbom"
)

// maxDetailBytes bounds the text of a reason.
const maxDetailBytes = 200

// maxPathElements bounds how deep folders lie in each other. Linux opens no path deeper
// than 2048; nobody ships one deeper than this.
const maxPathElements = 256

// naming is how a kind of archive spells names.
type naming uint8

const (
	// namesTar: a backslash is an ordinary character, as in
	// "usr/lib/systemd/system/system-systemd\x2dcryptsetup.slice".
	namesTar naming = iota
	// namesZip: only the slash separates; some readers take the backslash for one too.
	namesZip
	// namesImage: layers are unpacked below a root, which "/" stands for.
	namesImage
)

// clean returns the name of a member as a path of fs.FS. "" stands for the root itself.
func (b *Budget) clean(name string, kind naming) (string, error) {
	switch {
	case name == "":
		return "", problemf(sbom.ReasonUnsafePath, "a member without a name")
	case len(name) > b.limits.MaxPathBytes:
		return "", problemf(sbom.ReasonUnsafePath, "a name of %d bytes; at most %d are read", len(name), b.limits.MaxPathBytes)
	case !utf8.ValidString(name):
		return "", problemf(sbom.ReasonUnsafePath, "a name that is not UTF-8")
	case strings.IndexByte(name, 0) >= 0:
		return "", problemf(sbom.ReasonUnsafePath, "a name with a NUL")
	case name[0] == '/' && kind != namesImage:
		return "", problemf(sbom.ReasonUnsafePath, "an absolute name")
	case leadsUp(name, "/"):
		return "", problemf(sbom.ReasonUnsafePath, `a name with ".."`)
	}
	if n := strings.Count(name, "/"); n >= maxPathElements {
		return "", problemf(sbom.ReasonUnsafePath, "a name of %d folders; at most %d are read", n, maxPathElements)
	}
	if !isClean(name) {
		if name = strings.TrimLeft(path.Clean(name), "/"); name == "." || name == "" {
			return "", nil
		}
	}
	if kind == namesImage {
		return name, nil
	}
	return name, windowsSafe(name, kind)
}

// windowsSafe refuses what is another path where a backslash separates folders.
func windowsSafe(name string, kind naming) error {
	switch {
	case hasDrive(name):
		return problemf(sbom.ReasonUnsafePath, "a name with a drive letter")
	case strings.IndexByte(name, '\\') < 0:
		return nil
	case kind == namesZip:
		return problemf(sbom.ReasonUnsafePath, "a name with a backslash, which separates folders for some")
	case name[0] == '\\' || leadsUp(name, `\/`):
		return problemf(sbom.ReasonUnsafePath, "a name that leads out where a backslash separates folders")
	}
	return nil
}

// hasDrive reports a name such as "C:x" or `C:\x`.
func hasDrive(name string) bool {
	if len(name) < 2 || name[1] != ':' {
		return false
	}
	c := name[0] | 0x20
	return c >= 'a' && c <= 'z'
}

// leadsUp reports an element ".." where any of the separators separates.
func leadsUp(name, separators string) bool {
	if !strings.Contains(name, "..") {
		return false
	}
	for _, element := range strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
		if element == ".." {
			return true
		}
	}
	return false
}

// isClean is a quick test for names that path.Clean would not change. It errs to false.
func isClean(name string) bool {
	prev := byte('/')
	for i := range len(name) {
		c := name[i]
		if prev == '/' && (c == '/' || c == '.') {
			return false
		}
		prev = c
	}
	return prev != '/'
}

// printable makes text from an archive fit for a message: UTF-8 without control
// characters, on one line, at most limit bytes.
func printable(s string, limit int) string {
	if fits := len(s) <= limit && utf8.ValidString(s); fits && strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	var out strings.Builder
	for i, r := range s {
		text := string(r)
		if r == utf8.RuneError && s[i] != "\ufffd"[0] || unprintable(r) && r < 0x80 {
			text = fmt.Sprintf(`\x%02x`, s[i])
		} else if unprintable(r) {
			text = fmt.Sprintf(`\u%04x`, r)
		}
		if out.Len()+len(text) > limit-len("…") {
			return out.String() + "…"
		}
		out.WriteString(text)
	}
	return out.String()
}

// unprintable are the control characters, and those that turn the direction of text.
func unprintable(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' ||
		r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' || r == '\ufeff'
}
