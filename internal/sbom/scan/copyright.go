package scan

import (
	"bytes"
	"crypto/sha256"
	"regexp"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// maxCopyright bounds a copyright file. Those of browsers have some two million bytes.
const maxCopyright = 4 << 20

// commonLicense is how a copyright file points to a text that every Debian has.
var commonLicense = regexp.MustCompile(`/usr/share/common-licenses/([A-Za-z]+(?:-[0-9]+(?:\.[0-9]+)*)?)`)

// copyrightReader reads the copyright files of one database. Packages built from one source
// have the same, and nearly all share a few dozen names of licences.
type copyrightReader struct {
	names map[string]string
	texts map[[sha256.Size]byte][]string
}

func newCopyrightReader() *copyrightReader {
	return &copyrightReader{names: map[string]string{}, texts: map[[sha256.Size]byte][]string{}}
}

func (r *copyrightReader) normalize(name string) string {
	expr, ok := r.names[name]
	if !ok {
		expr, _ = sbom.NormalizeLicense(name)
		r.names[name] = expr
	}
	return expr
}

// licenses gives the licences of a Debian package by its copyright file: the short names of
// a machine-readable one (DEP-5), else what a text in prose points to or quotes. All of
// them apply to some part of the package.
func (r *copyrightReader) licenses(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	sum := sha256.Sum256(text)
	out, ok := r.texts[sum]
	if !ok {
		out = r.read(text)
		r.texts[sum] = out
	}
	return out
}

func (r *copyrightReader) read(text []byte) []string {
	var names []string
	if isDEP5(text) {
		names = dep5Licenses(text)
	} else {
		names = proseLicenses(text)
	}
	slices.Sort(names)
	var out []string
	for _, n := range slices.Compact(names) { // a file for a browser says "MPL-2.0" a thousand times
		if expr := r.normalize(n); expr != "" {
			out = append(out, expr)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), sbom.MaxLicenses)]
}

// isDEP5: the first field names the format.
func isDEP5(text []byte) bool {
	text = bytes.TrimLeft(text, "\ufeff \t\r\n")
	line, _, _ := bytes.Cut(text, []byte("\n"))
	line = bytes.ToLower(line)
	return (bytes.HasPrefix(line, []byte("format:")) || bytes.HasPrefix(line, []byte("format-specification:"))) &&
		(bytes.Contains(line, []byte("copyright-format")) || bytes.Contains(line, []byte("dep")))
}

// dep5Licenses are the License fields of the header and of the paragraphs about files.
// A paragraph that has the field alone only gives the text behind a short name, which
// may be one side of an "or". Where nothing else names a licence, those count.
func dep5Licenses(text []byte) []string {
	var used, texts []string
	license, aboutFiles := "", false
	flush := func() {
		if license != "" && aboutFiles {
			used = append(used, license)
		} else if license != "" {
			texts = append(texts, license)
		}
		license, aboutFiles = "", false
	}
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n \t")
		if len(line) == 0 {
			flush()
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		key, value, _ := bytes.Cut(line, []byte(":"))
		switch strings.ToLower(string(key)) {
		case "files", "format", "format-specification":
			aboutFiles = true
		case "license":
			license = strings.TrimSpace(string(value))
		}
		if len(used) > 1<<12 {
			break
		}
	}
	flush()
	if len(used) == 0 {
		return texts
	}
	return used
}

// quoted are texts that are given whole, by words that only they have. Of one list, the
// first that matches counts.
func quoted() [][]struct{ words, name string } {
	return [][]struct{ words, name string }{
		{{"permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"}},
		{
			{"permission to use, copy, modify, and/or distribute this software for any purpose", "ISC"},
			{"permission to use, copy, modify, and distribute this software for any purpose with or without fee", "ISC"},
		},
		{{"the origin of this software must not be misrepresented", "Zlib"}},
		{
			{"permission to use, copy, modify, distribute, and sell this software and its documentation for any purpose is hereby granted without fee", "HPND-sell-variant"},
			{"permission to use, copy, modify, and distribute this software and its documentation for any purpose and without fee", "HPND"},
		},
		{{"grant permission to use, copy, modify, distribute, and license this software and its documentation for any purpose", "TCL"}},
		{{"python software foundation license version 2", "PSF-2.0"}},
		{{"of the info-zip license", "Info-ZIP"}},
		{{"licensed under the apache license, version 2.0", "Apache-2.0"}},
		{{"boost software license - version 1.0", "BSL-1.0"}},
		{{"mozilla public license version 2.0", "MPL-2.0"}, {"mozilla public license, v. 2.0", "MPL-2.0"}},
	}
}

// proseLicenses reads a copyright file without structure.
func proseLicenses(text []byte) []string {
	plain := plainProse(text)
	later := strings.Contains(plain, "any later version") || strings.Contains(plain, "or later")
	if strings.Contains(plain, "under the same terms as perl") {
		return []string{"Artistic-1.0-Perl OR GPL-1.0-or-later"}
	}
	var names []string
	for _, m := range commonLicense.FindAllSubmatch(text, 1<<10) {
		name := string(m[1])
		if later && (strings.HasPrefix(name, "GPL") || strings.HasPrefix(name, "LGPL") || strings.HasPrefix(name, "GFDL")) {
			name = unversioned(name, plain) + "+"
		}
		names = append(names, name)
	}
	for _, alternatives := range quoted() {
		for _, q := range alternatives {
			if strings.Contains(plain, q.words) {
				names = append(names, q.name)
				break
			}
		}
	}
	if strings.Contains(plain, "redistribution and use in source and binary forms") {
		name := "BSD-2-Clause"
		if strings.Contains(plain, "endorse or promote products") {
			name = "BSD-3-Clause"
		}
		names = append(names, name)
	}
	if len(names) == 0 && strings.Contains(plain, "public domain") {
		names = append(names, "public-domain")
	}
	return names
}

// plainProse is a text in lower case with one space between words, as far as ASCII goes.
// The signs that comments start lines with count as space: many a file is one.
func plainProse(text []byte) string {
	var b strings.Builder
	b.Grow(len(text))
	space := false
	for _, c := range text {
		if c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '*' || c == '#' {
			space = true
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// unversioned gives a licence its version from the text, where the file points to the
// link without one, which leads to the newest.
func unversioned(name, plain string) string {
	if strings.Contains(name, "-") {
		return name
	}
	for _, v := range [...]string{"3", "2.1", "2"} {
		if strings.Contains(plain, "version "+v+" ") || strings.Contains(plain, "version "+v+",") || strings.Contains(plain, "version "+v+";") {
			return name + "-" + v
		}
	}
	return name
}
