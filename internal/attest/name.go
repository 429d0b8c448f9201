package attest

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeSubjectNameInvalid refuses a subject name we will not put into a statement.
const CodeSubjectNameInvalid refusal.Code = "SUBJECT_NAME_INVALID"

// CheckSubjectName reports whether name may name a subject in a statement of
// ours. A name is data and never becomes a path on the server, but people and
// scripts will write files by it and read it on a screen. So it is a relative,
// slash-separated name that no system resolves to somewhere else, of characters
// that all show.
func CheckSubjectName(name string) error {
	switch {
	case name == "":
		return refusal.New(CodeSubjectNameInvalid, "the name is empty")
	case len(name) > MaxNameBytes:
		return refusal.New(CodeSubjectNameInvalid, "the name has %d bytes; at most %d are accepted", len(name), MaxNameBytes)
	case !utf8.ValidString(name):
		return refusal.New(CodeSubjectNameInvalid, "the name is not valid UTF-8")
	case strings.Contains(name, `\`):
		return refusal.New(CodeSubjectNameInvalid, "the name %+q has a backslash", name)
	case len(name) >= 2 && name[1] == ':' && unicode.IsLetter(rune(name[0])):
		return refusal.New(CodeSubjectNameInvalid, "the name %+q starts with a drive letter", name)
	}
	for _, r := range name {
		if !visible(r) {
			return refusal.New(CodeSubjectNameInvalid, "the name %+q has the character %U, which does not show", name, r)
		}
	}
	for segment := range strings.SplitSeq(name, "/") {
		if err := checkSegment(name, segment); err != nil {
			return err
		}
	}
	return nil
}

// checkSegment judges one part between slashes. An absolute name starts with an
// empty part.
func checkSegment(name, segment string) error {
	if segment == "" {
		return refusal.New(CodeSubjectNameInvalid, "the name %+q is absolute or has an empty part", name)
	}
	if onlyDots(segment) {
		return refusal.New(CodeSubjectNameInvalid, "the name %+q has the part %q", name, segment)
	}
	return nil
}

// onlyDots finds "." and "..", also as URL decoders see them (%2e%2e), and as
// Windows does, which drops trailing dots and spaces.
func onlyDots(segment string) bool {
	for segment != "" {
		switch {
		case segment[0] == '.' || segment[0] == ' ':
			segment = segment[1:]
		case len(segment) >= 3 && strings.EqualFold(segment[:3], "%2e"):
			segment = segment[3:]
		default:
			return false
		}
	}
	return true
}

// visible reports whether r shows as itself: not a control, not a bidirectional
// override, not of zero width, not a blank other than the ASCII space.
func visible(r rune) bool {
	return unicode.IsPrint(r) &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) &&
		r != '\u2800' // braille blank: a symbol by category, empty to the eye
}
