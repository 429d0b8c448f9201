package scan

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// maxPythonHeader bounds the fields of a METADATA file; the description behind them,
// which may be longer, is not read.
const maxPythonHeader = 1 << 20

// pythonReaders read installed packages, wheels and source distributions, and the locks
// of Python's package managers. The parsers are our own: those of scalibr leave out
// licences, extras and edges, for which the same files would have to be read again.
func pythonReaders() []reader {
	return []reader{
		{name: "python/metadata", wants: isPythonMetadata, read: fixtures(inPythonFixture, readPythonMetadata), resolve: resolvePython},
		{name: "python/requirements", wants: isRequirements, read: readRequirements},
		{name: "python/poetry.lock", wants: pythonLock("poetry.lock"), read: readPoetryLock},
		{name: "python/uv.lock", wants: pythonLock("uv.lock"), read: readUVLock},
		{name: "python/pdm.lock", wants: pythonLock("pdm.lock"), read: readPDMLock},
		{name: "python/Pipfile.lock", wants: pythonLock("Pipfile.lock"), read: readPipfileLock},
		{name: "python/pylock", wants: isPylock, read: readPylock},
	}
}

// isPythonMetadata finds the core metadata of a package: installed or in a wheel
// (.dist-info), installed by setuptools (.egg-info, a folder or a file), in an egg, and
// at the top of a source distribution.
func isPythonMetadata(p string) bool {
	switch path.Base(p) {
	case "METADATA":
		return strings.HasSuffix(p, ".dist-info/METADATA")
	case "PKG-INFO":
		dir := path.Dir(p)
		sdist := dir != "." && !strings.Contains(dir, "/")
		return sdist || strings.HasSuffix(dir, ".egg-info") || path.Base(dir) == "EGG-INFO"
	}
	return strings.HasSuffix(p, ".egg-info")
}

// inPythonFixture reports whether p is below a test folder of an installed package.
func inPythonFixture(p string) bool {
	installed := behindSitePackages(p)
	return installed != "" && slices.ContainsFunc(strings.Split(installed, "/"), isFixtureFolder)
}

// behindSitePackages gives the part of p inside a folder of installed packages, or "".
func behindSitePackages(p string) string {
	for _, folder := range []string{"/site-packages/", "/dist-packages/"} {
		if at := strings.LastIndex("/"+p, folder); at >= 0 {
			return p[at+len(folder)-1:]
		}
	}
	return ""
}

// pyMetadata is what is read of core metadata (PEP 566, 621, 639).
type pyMetadata struct {
	name, version     string
	licenseExpression string
	license           string
	classifiers       []string
	requires          []string // Requires-Dist, each a PEP 508 requirement
}

// pyRequirement is one requirement of an installed package.
type pyRequirement struct {
	name   string
	extras []string // of the required package, which are asked for with it
	// when names the extras of the requiring package that ask for this; none: always.
	when []string
}

func readPythonMetadata(_ context.Context, f *file) ([]*pkg, error) {
	m, err := readMetadataFields(f)
	if err != nil {
		return nil, err
	}
	if m.name == "" || m.version == "" {
		return nil, fmt.Errorf("metadata without a name or a version")
	}
	p := pythonPkg(m.name, m.version)
	if p == nil {
		return nil, fmt.Errorf("%.80q is no name of a package", m.name)
	}
	p.path = f.path
	p.Licenses = m.licenses()
	p.Scope = scopeRequired
	if len(m.requires) == 0 && path.Base(f.path) == "PKG-INFO" {
		m.requires = eggRequires(f)
	}
	var requirements []pyRequirement
	for _, text := range m.requires {
		if r, ok := parseRequirement(text); ok {
			requirements = append(requirements, r)
			p.needs = append(p.needs, r.name)
		}
	}
	p.note = requirements
	if dir := path.Dir(f.path); strings.HasSuffix(dir, ".dist-info") {
		p.direct = exists(f, dir+"/REQUESTED") // pip was asked for it by name
		p.Hashes = directURLHashes(f, dir)
	}
	return []*pkg{p}, nil
}

// pythonPkg makes a finding. Names are in the normal form of PEP 503: metadata, locks and
// requirements spell one name differently.
func pythonPkg(name, version string) *pkg {
	name, version = strings.TrimSpace(name), strings.TrimSpace(version)
	if !validPythonName(name) || version == "" || strings.ContainsFunc(version, isSpaceOrControl) {
		return nil
	}
	normal := normalPythonName(name)
	purl, err := sbom.NewPURL("pypi", "", normal, version)
	if err != nil {
		return nil
	}
	return &pkg{Component: sbom.Component{PURL: purl, Name: normal, Version: version}}
}

func normalPythonName(name string) string {
	words := strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '_' || r == '.' })
	return strings.ToLower(strings.Join(words, "-"))
}

// validPythonName is the rule of PEP 508.
func validPythonName(name string) bool {
	if name == "" || len(name) > 256 || pythonNameLength(name) != len(name) {
		return false
	}
	return isAlphanumeric(name[0]) && isAlphanumeric(name[len(name)-1])
}

func pythonNameLength(s string) int {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && s[i] != '-' && s[i] != '_' && s[i] != '.' {
			return i
		}
	}
	return len(s)
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// readMetadataFields reads the header of a metadata file: fields as in mail, one per
// line, longer ones continued by indented lines, up to the first empty one.
func readMetadataFields(f *file) (*pyMetadata, error) {
	in, err := f.open()
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(in, min(maxPythonHeader, f.maxRead)))
	if err != nil {
		return nil, err
	}
	return parseMetadata(data), nil
}

func parseMetadata(data []byte) *pyMetadata {
	m := &pyMetadata{}
	var key string
	var value []string
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	for line := range bytes.Lines(data) {
		text := strings.TrimRight(string(line), "\r\n")
		if strings.TrimSpace(text) == "" {
			break
		}
		if text[0] == ' ' || text[0] == '\t' {
			// Distutils set a bar before continued lines.
			value = append(value, strings.TrimPrefix(strings.TrimSpace(text), "|"))
			continue
		}
		m.set(key, value)
		name, rest, ok := strings.Cut(text, ":")
		if !ok {
			key = "" // old metadata with raw newlines in a field: the rest of it is lost
			continue
		}
		key, value = strings.ToLower(strings.TrimSpace(name)), []string{strings.TrimSpace(rest)}
	}
	m.set(key, value)
	return m
}

// set stores a field. Of a field that may stand once, the first counts, as for pip.
func (m *pyMetadata) set(key string, lines []string) {
	if len(lines) == 0 || (len(lines) == 1 && (lines[0] == "" || lines[0] == "UNKNOWN")) {
		return
	}
	text := lines[0]
	once := func(field *string) {
		if *field == "" {
			*field = text
		}
	}
	switch key {
	case "name":
		once(&m.name)
	case "version":
		once(&m.version)
	case "license-expression":
		text = strings.Join(lines, " ")
		once(&m.licenseExpression)
	case "license":
		text = licenseTitle(lines)
		once(&m.license)
	case "classifier":
		if strings.HasPrefix(text, "License ::") {
			m.classifiers = append(m.classifiers, text)
		}
	case "requires-dist":
		m.requires = append(m.requires, strings.Join(lines, " "))
	}
}

// licenseTitle gives the first line of a licence field, which may hold the whole text.
func licenseTitle(lines []string) string {
	for _, line := range lines {
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return ""
}

// licenses says what the metadata says. An expression (PEP 639) is exact. Otherwise the
// licence field counts where it is understood, then the classifiers, which know families
// of licences more than licences, and at last the field as text.
func (m *pyMetadata) licenses() []string {
	if m.licenseExpression != "" {
		expr, _ := sbom.NormalizeLicense(m.licenseExpression)
		return nonEmpty(expr)
	}
	text, spdx := sbom.NormalizeLicense(m.license)
	if spdx {
		return nonEmpty(text)
	}
	var out []string
	for _, c := range m.classifiers {
		if c == "License :: OSI Approved" || c == "License :: Other/Proprietary License" && text != "" {
			continue // says less than the field
		}
		expr, _ := sbom.NormalizeLicense(c)
		out = append(out, nonEmpty(expr)...)
	}
	if len(out) == 0 {
		return nonEmpty(text)
	}
	return sortedUnique(out)
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// directURLHashes reads direct_url.json (PEP 610): where a package was installed from an
// archive by its address, that archive's digests.
func directURLHashes(f *file, dir string) []sbom.Hash {
	data, err := readAll(f.tree, dir+"/direct_url.json", min(maxManifestBytes, f.maxRead))
	if err != nil {
		return nil
	}
	var direct struct {
		ArchiveInfo struct {
			Hashes looseMap `json:"hashes"`
		} `json:"archive_info"`
	}
	if decodeLoose(data, &direct) != nil {
		return nil
	}
	var hashes []sbom.Hash
	for _, name := range sortedKeys(direct.ArchiveInfo.Hashes) {
		if h, ok := newHash(name, direct.ArchiveInfo.Hashes[name]); ok {
			hashes = append(hashes, h)
		}
	}
	return hashes
}

// eggRequires reads requires.txt of setuptools: requirements, in sections "[extra]" or
// "[extra:marker]".
func eggRequires(f *file) []string {
	data, err := readAll(f.tree, path.Join(path.Dir(f.path), "requires.txt"), min(maxManifestBytes, f.maxRead))
	if err != nil {
		return nil
	}
	var out []string
	marker := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if inner, ok := strings.CutPrefix(line, "["); ok {
			extra, _, _ := strings.Cut(strings.TrimSuffix(inner, "]"), ":")
			marker = ""
			if extra != "" {
				marker = "; extra == '" + extra + "'"
			}
			continue
		}
		if line != "" {
			out = append(out, line+marker)
		}
	}
	return out
}
