package scan

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// isRequirements wants requirements.txt and what projects call its siblings:
// requirements-dev.txt, dev-requirements.txt, requirements/base.txt. Constraints
// (pip's -c) say what would be taken and not what is.
func isRequirements(p string) bool {
	base := path.Base(p)
	if !strings.HasSuffix(base, ".txt") || behindSitePackages(p) != "" {
		return false
	}
	return strings.HasPrefix(base, "requirements") || strings.HasSuffix(base, "requirements.txt") ||
		path.Base(path.Dir(p)) == "requirements"
}

// readRequirements gives what is required: with its version where one is named exactly, and
// without one where a range or an address is, which say what would be accepted and not
// what is there.
func readRequirements(_ context.Context, f *file) ([]*pkg, error) {
	r := &requirements{f: f, seen: map[string]bool{}}
	if err := r.file(f.path); err != nil {
		return nil, err
	}
	return r.found, r.err
}

// requirements is one file with those that it includes.
type requirements struct {
	f     *file
	seen  map[string]bool
	found []*pkg
	err   error
}

// file reads one of the files.
func (r *requirements) file(p string) error {
	r.seen[p] = true
	data, err := r.f.sibling(p)
	if err != nil {
		return err
	}
	scope := ""
	if forDevelopment(strings.TrimSuffix(path.Base(p), ".txt")) {
		scope = scopeExcluded
	}
	for _, line := range joinedLines(strings.TrimPrefix(string(data), byteOrderMark)) {
		k, err := r.line(path.Dir(p), line)
		if err != nil && r.err == nil {
			r.err = err
		}
		if k != nil {
			k.path, k.Scope, k.direct = p, scope, true
			r.found = append(r.found, k)
		}
	}
	return nil
}

// line reads one logical line of a file in dir.
func (r *requirements) line(dir, line string) (*pkg, error) {
	if at := strings.Index(line, " #"); at >= 0 {
		line = line[:at]
	}
	line = strings.TrimSpace(line)
	switch {
	case line == "":
		return nil, nil
	case line[0] != '-':
		return r.requirement(dir, line)
	}
	for _, option := range [...]string{"-r", "--requirement", "-e", "--editable"} {
		value, ok := strings.CutPrefix(line, option)
		if !ok || option[1] == '-' && (value == "" || value[0] != ' ' && value[0] != '=') {
			continue
		}
		value = strings.Trim(strings.TrimLeft(value, " ="), `"'`)
		if option == "-r" || option == "--requirement" {
			return nil, r.include(dir, value)
		}
		return r.address(dir, value)
	}
	return nil, nil
}

// include follows -r within the tree. Files that are known as requirements by their own name
// are read for themselves.
func (r *requirements) include(dir, name string) error {
	p := path.Join(dir, name)
	switch {
	case strings.Contains(name, "://"):
		return fmt.Errorf("%w: requirements at an address, %.80q", errUnsupported, name)
	case path.IsAbs(name) || !exists(r.f, p):
		return fmt.Errorf("%.80q is included and is not there", name)
	case isRequirements(p) || r.seen[p]:
		return nil
	case len(r.seen) > maxIncludes:
		return fmt.Errorf("%w: more than %d included files", errUnsupported, maxIncludes)
	}
	return r.file(p)
}

// maxIncludes bounds the files that one file of requirements includes.
const maxIncludes = 64

// requirement reads a requirement of PEP 508, or what pip takes in its place: the address or
// the path of a package.
func (r *requirements) requirement(dir, line string) (*pkg, error) {
	if k := pinned(line); k != nil {
		return k, nil
	}
	n := pythonNameLength(line)
	rest := strings.TrimSpace(line[n:])
	if _, after, ok := strings.Cut(rest, "]"); ok && rest[0] == '[' {
		rest = strings.TrimSpace(after)
	}
	version := ""
	if at, ok := strings.CutPrefix(rest, "@"); ok {
		_, version = publishedPython(at)
	}
	plain := rest == "" || strings.ContainsRune("<>=!~@(;", rune(rest[0])) || strings.HasPrefix(rest, "--")
	if plain && validPythonName(line[:n]) && !hasPackageExtension(line[:n]) {
		return pythonPkgAny(line[:n], version), nil
	}
	if word, _, _ := strings.Cut(line, " "); strings.Contains(word, "/") || word[0] == '.' || hasPackageExtension(word) {
		return r.address(dir, word)
	}
	return nil, fmt.Errorf("%.80q is no requirement", line)
}

// address is a package by where it is: the name is that of the file, or behind "#egg=".
func (r *requirements) address(dir, text string) (*pkg, error) {
	if name, version := publishedPython(text); name != "" {
		return pythonPkgAny(name, version), nil
	}
	_, egg, _ := strings.Cut(text, "#egg=")
	if egg = egg[:pythonNameLength(egg)]; validPythonName(egg) {
		return pythonPkgAny(egg, ""), nil
	}
	text, _, _ = strings.Cut(text, "[")
	switch local := path.Join(dir, strings.TrimPrefix(text, "file:")); {
	case strings.Contains(text, "://"):
		return nil, fmt.Errorf("%w: an address that does not say of which package, %.80q", errUnsupported, text)
	case path.IsAbs(text) || local != "." && !exists(r.f, local):
		return nil, fmt.Errorf("%.80q is required and is not there", text)
	}
	return nil, nil // a folder or a file of the tree, which is looked into for itself
}

func hasPackageExtension(name string) bool {
	for _, ext := range [...]string{".whl", ".tar.gz", ".tar.bz2", ".tgz", ".zip"} {
		if strings.HasSuffix(name, ext) {
			return true
		}
	}
	return false
}

// publishedPython reads name and version from the name of a wheel or of a source
// distribution; "" where it is neither.
func publishedPython(address string) (name, version string) {
	address, _, _ = strings.Cut(address, "#")
	address, _, _ = strings.Cut(address, "?")
	file := path.Base(strings.TrimSpace(address))
	if stem, ok := strings.CutSuffix(file, ".whl"); ok {
		parts := strings.Split(stem, "-")
		if len(parts) >= 5 && validPythonName(parts[0]) {
			return parts[0], parts[1]
		}
		return "", ""
	}
	for _, ext := range [...]string{".tar.gz", ".tar.bz2", ".tgz", ".zip"} {
		stem, ok := strings.CutSuffix(file, ext)
		if at := strings.LastIndexByte(stem, '-'); ok && at > 0 && startsWithDigit(stem[at+1:]) && validPythonName(stem[:at]) {
			return stem[:at], stem[at+1:]
		}
	}
	return "", ""
}

// pythonPkgAny is pythonPkg for what is certainly a package, whose version nothing names.
func pythonPkgAny(name, version string) *pkg {
	if k := pythonPkg(name, version); k != nil || !validPythonName(name) {
		return k
	}
	normal := normalPythonName(name)
	purl, err := sbom.NewPURL("pypi", "", normal, "")
	if err != nil {
		return nil
	}
	return &pkg{Component: sbom.Component{PURL: purl, Name: normal}}
}

// forDevelopment reports whether a file's name says that it is for developers.
func forDevelopment(name string) bool {
	for _, word := range strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '-' || r == '_' || r == '.' }) {
		switch word {
		case "dev", "develop", "development", "test", "tests", "testing", "lint", "doc", "docs", "ci", "typing":
			return true
		}
	}
	return false
}

// joinedLines takes comments out and joins lines that end with a backslash, in the order
// in which pip does it.
func joinedLines(text string) []string {
	var out []string
	var parts []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		comment := strings.HasPrefix(strings.TrimSpace(line), "#")
		if before, ok := strings.CutSuffix(line, `\`); ok && !comment {
			parts = append(parts, before)
			continue
		}
		if comment {
			line = ""
		}
		out = append(out, strings.Join(append(parts, line), " "))
		parts = nil
	}
	return append(out, strings.Join(parts, " "))
}

// pinned reads a requirement; nil where it is none of one exact version.
func pinned(line string) *pkg {
	n := pythonNameLength(line)
	rest, options, _ := strings.Cut(line[n:], " -")
	rest, _, _ = strings.Cut(rest, ";")
	rest = strings.TrimSpace(rest)
	if inner, ok := strings.CutPrefix(rest, "["); ok {
		if _, rest, ok = strings.Cut(inner, "]"); !ok {
			return nil
		}
		rest = strings.TrimSpace(rest)
	}
	rest = strings.TrimSuffix(strings.TrimPrefix(rest, "("), ")")
	version, ok := strings.CutPrefix(rest, "===")
	if !ok {
		if version, ok = strings.CutPrefix(rest, "=="); !ok {
			return nil
		}
	}
	version = strings.TrimSpace(version)
	if version == "" || !isAlphanumeric(version[0]) || strings.ContainsAny(version, "*,$={} ") {
		return nil
	}
	p := pythonPkg(line[:n], version)
	if p == nil {
		return nil
	}
	p.Hashes = onlyHash(optionHashes(" -" + options))
	return p
}

// optionHashes gives the values of --hash options.
func optionHashes(options string) []string {
	var out []string
	for _, word := range strings.Fields(options) {
		if value, ok := strings.CutPrefix(word, "--hash="); ok {
			out = append(out, value)
		}
	}
	return out
}

// onlyHash gives the digest, "sha256:HEX", of a package of which a lock names one file.
// Most packages are published as several files, one per platform and the source. The
// lock accepts any of them and does not say which was taken: then none is the
// component's hash.
func onlyHash(digests []string) []sbom.Hash {
	digests = sortedUnique(digests)
	if len(digests) != 1 {
		return nil
	}
	name, value, _ := strings.Cut(digests[0], ":")
	if h, ok := newHash(name, value); ok {
		return []sbom.Hash{h}
	}
	return nil
}
