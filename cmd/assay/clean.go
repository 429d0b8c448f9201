package main

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean makes text from outside safe to print: one line, of characters that show
// and stay where they are. Line breaks and tabs become spaces. Other control
// characters (and with them every ANSI sequence), bidirectional overrides,
// characters of zero width and invalid UTF-8 go.
func clean(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !shows(r) }) {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case shows(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return -1
	}, s)
}

// shows reports whether r prints as itself and moves nothing else. RuneError is
// what invalid UTF-8 decodes to.
func shows(r rune) bool {
	return unicode.IsPrint(r) && r != utf8.RuneError &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) &&
		r != '\u2800' // braille blank: printable by category, empty to the eye
}

// clip shortens text to n characters.
func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
