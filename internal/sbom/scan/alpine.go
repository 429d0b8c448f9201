package scan

import (
	"bytes"
	"context"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// alpineReaders read the database of apk and package files themselves.
func alpineReaders() []reader {
	return []reader{
		{name: "alpine/apk", wants: isAPKDatabase, read: readAPKDatabase, resolve: resolveAlpine},
		{name: "alpine/package", wants: func(p string) bool { return p == ".PKGINFO" }, read: readAPK},
	}
}

// apkDatabases are its places: the usual one, and the one since /lib is a link to /usr/lib.
func apkDatabases() [2]string { return [2]string{"lib/apk/db/installed", "usr/lib/apk/db/installed"} }

func isAPKDatabase(p string) bool { return underRoot(p, apkDatabases()[0]) }

// apkNote is what resolveAlpine needs of a package.
type apkNote struct {
	root, name string
	provides   []string
}

// apkRecord is one package, as both forms of metadata have it.
type apkRecord struct {
	name, version, arch, license string
	depends, provides            []string
}

// readAPKDatabase reads lines of a letter, a colon and a value; an empty line ends a
// package. osv-scalibr's scanner for it gives up on a line of 64 KiB, and lines that
// list what a package provides have no limit.
func readAPKDatabase(ctx context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	root := apkRoot(f.path)
	os := osOf(f.tree, root)
	var found []*pkg
	var r apkRecord
	flush := func() error {
		defer func() { r = apkRecord{} }()
		if r.name == "" || r.version == "" {
			return nil
		}
		k, err := r.pkg(os, root)
		if err == nil {
			found = append(found, k)
		}
		return err
	}
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			if err := flush(); err != nil {
				return found, err
			}
			if err := ctx.Err(); err != nil {
				return found, err
			}
			continue
		}
		if len(line) > 2 && line[1] == ':' {
			r.setLetter(line[0], line[2:])
		}
	}
	return found, flush()
}

// setLetter takes one line. Most lines list files, so only those kept become strings.
func (r *apkRecord) setLetter(letter byte, value []byte) {
	switch letter {
	case 'P':
		r.name = string(value)
	case 'V':
		r.version = string(value)
	case 'A':
		r.arch = string(value)
	case 'L':
		r.license = string(value)
	case 'D':
		r.depends = append(r.depends, strings.Fields(string(value))...)
	case 'p':
		r.provides = append(r.provides, strings.Fields(string(value))...)
	}
}

func (r *apkRecord) pkg(os osRelease, root string) (*pkg, error) {
	purl, err := osPURL("apk", os.namespace("alpine"), r.name, r.version, "arch", r.arch, "distro", os.distro())
	if err != nil {
		return nil, err
	}
	k := &pkg{
		Component: sbom.Component{PURL: purl, Name: r.name, Version: r.version},
		needs:     r.depends,
		note:      &apkNote{root: root, name: r.name, provides: r.provides},
	}
	if expr, _ := sbom.NormalizeLicense(r.license); expr != "" {
		k.Licenses = []string{expr}
	}
	return k, nil
}

// apkRoot is the folder of the root file system that a database is in.
func apkRoot(p string) string {
	where := apkDatabases()
	root := rootOf(p, where[0])
	if rest, ok := strings.CutSuffix(root, "usr/"); ok && underRoot(p, where[1]) {
		return rest
	}
	return root
}

// readAPK reads a package file. Its metadata has lines such as "depend = so:libc.musl-x86_64.so.1".
func readAPK(_ context.Context, f *file) ([]*pkg, error) {
	if f.from.format != "apk" {
		return nil, nil
	}
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	var r apkRecord
	for line := range bytes.Lines(data) {
		key, value, _ := strings.Cut(string(line), "=")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "pkgname":
			r.name = value
		case "pkgver":
			r.version = value
		case "arch":
			r.arch = value
		case "license":
			r.license = value
		}
	}
	if r.name == "" || r.version == "" {
		return nil, nil
	}
	k, err := r.pkg(osRelease{}, "")
	if err != nil {
		return nil, err
	}
	k.direct = true
	return []*pkg{k}, nil
}

// resolveAlpine turns dependencies, which name packages, libraries ("so:"), commands
// ("cmd:") and pkg-config files ("pc:"), into edges to the packages that provide them.
func resolveAlpine(found []*pkg) {
	roots := map[string]providers{}
	for _, k := range found {
		n, ok := k.note.(*apkNote)
		if !ok {
			continue
		}
		if roots[n.root] == nil {
			roots[n.root] = providers{}
		}
		provided := roots[n.root]
		provided.add(n.name, k)
		for _, p := range n.provides {
			provided.add(apkName(p), k)
		}
	}
	for _, k := range found {
		n, ok := k.note.(*apkNote)
		if !ok {
			continue
		}
		for _, d := range k.needs {
			if !strings.HasPrefix(d, "!") { // a conflict
				k.dependOnEach(roots[n.root][apkName(d)])
			}
		}
	}
}

// apkName is a dependency without the versions that it may have: "so:libz.so.1=1.3.1", "musl>=1.2".
func apkName(d string) string {
	if i := strings.IndexAny(d, "<>=~@"); i >= 0 {
		return d[:i]
	}
	return d
}
