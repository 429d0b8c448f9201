package scan

import (
	"bytes"
	"cmp"
	"context"
	"io/fs"
	"path"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

const (
	dpkgStatus    = "var/lib/dpkg/status"
	dpkgStatusDir = "var/lib/dpkg/status.d/"
	debControl    = "DEBIAN/control"
)

// debianReaders read the database of dpkg, its form in distroless images (a file per
// package), and package files themselves.
func debianReaders() []reader {
	return []reader{
		{name: "debian/dpkg", wants: isDpkgStatus, read: readDpkg, resolve: resolveDebian},
		{name: "debian/package", wants: func(p string) bool { return p == debControl }, read: readDeb},
	}
}

func isDpkgStatus(p string) bool {
	if underRoot(p, dpkgStatus) {
		return true
	}
	root, ok := rootBefore(p, dpkgStatusDir)
	return ok && !strings.Contains(p[len(root)+len(dpkgStatusDir):], "/")
}

// debStanza is what is read of one paragraph of a control file (deb-control(5)).
type debStanza struct {
	name, version, arch, status string
	depends, provides           []string
}

// debNote is what resolveDebian needs of a package.
type debNote struct {
	root, name, arch string
	provides         []string
}

// readDpkg does not use osv-scalibr's extractor: that one keeps no dependencies, so all
// would be parsed twice.
func readDpkg(ctx context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	root, single := rootBefore(f.path, dpkgStatusDir)
	if !single {
		root = rootOf(f.path, dpkgStatus)
	}
	os := osOf(f.tree, root)
	copyrights := newCopyrightReader()
	var found []*pkg
	for s := range debStanzas(data) {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		if !s.installed(single) {
			continue
		}
		k, err := debPackage(s, os, root)
		if err != nil {
			return found, err
		}
		if k.Licenses, err = debLicenses(f.tree, root, s.name, copyrights); err != nil {
			return found, err
		}
		found = append(found, k)
	}
	return found, nil
}

// installed: a package that was removed leaves its paragraph, for its configuration.
// A file in status.d has no status and is there because the package is.
func (s *debStanza) installed(single bool) bool {
	if s.name == "" || s.version == "" {
		return false
	}
	if s.status == "" {
		return single
	}
	words := strings.Fields(s.status)
	// What is unpacked or half configured is on the disk (dpkg(1), package states).
	return len(words) == 3 && words[2] != "not-installed" && words[2] != "config-files"
}

func debPackage(s *debStanza, os osRelease, root string) (*pkg, error) {
	purl, err := osPURL("deb", os.namespace("debian"), s.name, s.version, "arch", s.arch, "distro", os.distro())
	if err != nil {
		return nil, err
	}
	return &pkg{
		Component: sbom.Component{PURL: purl, Name: s.name, Version: s.version},
		needs:     s.depends,
		note:      &debNote{root: root, name: s.name, arch: s.arch, provides: s.provides},
	}, nil
}

// readDeb reads a package file, which is a tree with its control file and its contents.
func readDeb(_ context.Context, f *file) ([]*pkg, error) {
	if f.from.format != "ar" {
		return nil, nil // a source tree from which a package is built
	}
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	for s := range debStanzas(data) {
		if s.name == "" || s.version == "" {
			continue
		}
		k, err := debPackage(s, osRelease{}, "")
		if err != nil {
			return nil, err
		}
		k.direct = true
		k.Licenses, err = debLicenses(f.tree, "", s.name, newCopyrightReader())
		return []*pkg{k}, err
	}
	return nil, nil
}

// debLicenses reads the copyright file. Only the licences are lost where there is none:
// slim images leave them out.
func debLicenses(tree fs.FS, root, name string, copyrights *copyrightReader) ([]string, error) {
	if name != path.Base(name) || name == ".." || name == "." {
		return nil, nil
	}
	text, err := readLicenseText(tree, root+"usr/share/doc/"+name+"/copyright", maxCopyright)
	if err != nil {
		return nil, err
	}
	return copyrights.licenses(text), nil
}

// debStanzas goes over the paragraphs of a control file.
func debStanzas(data []byte) func(yield func(*debStanza) bool) {
	return func(yield func(*debStanza) bool) {
		var s debStanza
		var field string
		empty := true
		for line := range bytes.Lines(data) {
			line = bytes.TrimRight(line, "\r\n")
			switch {
			case len(bytes.TrimSpace(line)) == 0:
				if !empty && !yield(&s) {
					return
				}
				s, field, empty = debStanza{}, "", true
			case line[0] == ' ' || line[0] == '\t':
				if field != "" {
					s.set(field, line)
				}
			default:
				key, value, _ := bytes.Cut(line, []byte(":"))
				field, empty = wantedField(key), false
				if field != "" {
					s.set(field, value)
				}
			}
		}
		if !empty {
			yield(&s)
		}
	}
}

// wantedField is the name of a field that is read, "" for others. Names are case-insensitive.
func wantedField(key []byte) string {
	for _, f := range [...]string{"package", "version", "architecture", "status", "depends", "pre-depends", "provides"} {
		if len(key) == len(f) && strings.EqualFold(string(key), f) {
			return f
		}
	}
	return ""
}

func (s *debStanza) set(field string, value []byte) {
	text := strings.TrimSpace(string(value))
	switch field {
	case "package":
		s.name = cmp.Or(s.name, text)
	case "version":
		s.version = cmp.Or(s.version, text)
	case "architecture":
		s.arch = cmp.Or(s.arch, text)
	case "status":
		s.status = cmp.Or(s.status, text)
	case "depends", "pre-depends":
		s.depends = append(s.depends, splitRelations(text)...)
	case "provides":
		s.provides = append(s.provides, splitRelations(text)...)
	}
}

// splitRelations splits at commas; alternatives stay together: "a (>= 1) | b:any".
func splitRelations(text string) []string {
	var out []string
	for r := range strings.SplitSeq(text, ",") {
		if r = strings.TrimSpace(r); r != "" {
			out = append(out, r)
		}
	}
	return out
}

// relationName is the package of one relation: "libc6:amd64 (>= 2.34) [amd64]" is libc6.
func relationName(r string) string {
	r = strings.TrimSpace(r)
	if i := strings.IndexAny(r, " \t(:[<"); i >= 0 {
		r = r[:i]
	}
	return r
}

// debIndex finds the packages of one root by name and by what they provide.
type debIndex struct {
	named, provided providers
}

// resolveDebian turns dependencies into edges to the packages that satisfy them: of each
// relation, the first alternative that is installed, or whatever provides it.
func resolveDebian(found []*pkg) {
	roots := map[string]*debIndex{}
	for _, k := range found {
		n, ok := k.note.(*debNote)
		if !ok {
			continue
		}
		x := roots[n.root]
		if x == nil {
			x = &debIndex{named: providers{}, provided: providers{}}
			roots[n.root] = x
		}
		x.named.add(n.name, k)
		for _, p := range n.provides {
			x.provided.add(relationName(p), k)
		}
	}
	for _, k := range found {
		n, ok := k.note.(*debNote)
		if !ok {
			continue
		}
		for _, relation := range k.needs {
			k.dependOnEach(roots[n.root].satisfy(relation, n.arch))
		}
	}
}

// satisfy are the installed packages that a relation means.
func (x *debIndex) satisfy(relation, arch string) []*pkg {
	for alternative := range strings.SplitSeq(relation, "|") {
		name := relationName(alternative)
		for _, candidates := range [...][]*pkg{x.named[name], x.provided[name]} {
			if len(candidates) > 0 {
				return preferArch(candidates, arch)
			}
		}
	}
	return nil
}

// preferArch keeps those of the architecture, where several are installed side by side.
func preferArch(candidates []*pkg, arch string) []*pkg {
	var same []*pkg
	for _, k := range candidates {
		if n, ok := k.note.(*debNote); ok && n.arch == arch {
			same = append(same, k)
		}
	}
	if len(same) > 0 {
		return same
	}
	return candidates
}
