package sbom

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// cleanText makes text of an artifact fit to be stored and shown: one line of valid
// UTF-8 without control characters, which would act on a terminal, and without those
// that turn the direction of what follows, of at most MaxTextBytes.
func cleanText(s string) string { return oneLine(s, MaxTextBytes) }

// oneLine is cleanText with a limit of its own.
func oneLine(s string, limit int) string {
	if plainText(s) && len(s) <= limit {
		return s
	}
	// What is cut away need not be read: text may be megabytes.
	if len(s) > 4*limit {
		s = s[:4*limit]
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		if unsafeRune(r) {
			return utf8.RuneError
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strings.Clone(strings.TrimSpace(s[:cut])) // and let go of the rest
}

// plainText reports whether cleanText has nothing to do but cut.
func plainText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return plainUnicode(s)
		}
	}
	return s == "" || (s[0] != ' ' && s[len(s)-1] != ' ')
}

func plainUnicode(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unsafeRune) && strings.TrimSpace(s) == s
}

func unsafeRune(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }
