package scan

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// maxOSRelease bounds an os-release file, which has some hundred bytes.
const maxOSRelease = 64 << 10

// osRelease is what a root file system says of itself (os-release(5)).
type osRelease struct {
	id, version, codename, name string
}

// osReaders find the operating system of an image or of any root file system.
func osReaders() []reader {
	return []reader{{
		name:  "os/os-release",
		wants: func(p string) bool { return underRoot(p, "etc/os-release") || underRoot(p, "usr/lib/os-release") },
		read:  readOS,
	}}
}

// readOS makes the operating system a component. No package URL type exists for one, so
// its type is generic, as in pkg:generic/debian@12.
func readOS(_ context.Context, f *file) ([]*pkg, error) {
	os, err := readOSRelease(f.tree, f.path)
	if err != nil || os.id == "" {
		return nil, err
	}
	purl, err := sbom.NewPURL("generic", "", os.id, os.version)
	if err != nil {
		return nil, err
	}
	return []*pkg{{direct: true, Component: sbom.Component{
		PURL: purl, Type: "operating-system", Name: os.id, Version: os.version,
	}}}, nil
}

// osOf reads the os-release of a root file system; the zero value where there is none.
func osOf(tree fs.FS, root string) osRelease {
	for _, p := range [...]string{"etc/os-release", "usr/lib/os-release"} {
		if os, err := readOSRelease(tree, root+p); err == nil && os.id != "" {
			return os
		}
	}
	return osRelease{}
}

func readOSRelease(tree fs.FS, p string) (osRelease, error) {
	data, err := readAll(tree, p, maxOSRelease)
	if err != nil {
		return osRelease{}, err
	}
	var os osRelease
	for line := range bytes.Lines(data) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			os.id = strings.ToLower(value)
		case "VERSION_ID":
			os.version = value
		case "VERSION_CODENAME":
			os.codename = value
		case "NAME":
			os.name = value
		}
	}
	return os, nil
}

// namespace is the operating system's name as package URLs have it.
func (os osRelease) namespace(otherwise string) string { return cmp.Or(os.id, otherwise) }

// distro is the qualifier of package URLs that tells the release, as in "debian-12".
// Where there is no number, as in Debian's unstable, the code name stands for it.
func (os osRelease) distro() string {
	release := cmp.Or(os.version, os.codename)
	if os.id == "" || release == "" {
		return ""
	}
	return os.id + "-" + release
}

// osPURL names a package of a distribution; qualifiers without a value are left out.
func osPURL(typ, namespace, name, version string, qualifiers ...string) (string, error) {
	given := qualifiers[:0:0]
	for i := 0; i+1 < len(qualifiers); i += 2 {
		if qualifiers[i+1] != "" {
			given = append(given, qualifiers[i], qualifiers[i+1])
		}
	}
	return sbom.NewPURL(typ, namespace, name, version, given...)
}

// underRoot reports whether a path is want, in the root of the tree or in a root file
// system that is a folder of it.
func underRoot(p, want string) bool {
	at := len(p) - len(want)
	return strings.HasSuffix(p, want) && (at == 0 || p[at-1] == '/')
}

// rootOf is the folder, with its slash, in which want is p.
func rootOf(p, want string) string { return strings.TrimSuffix(p, want) }

// rootBefore is the folder, with its slash, in which dir is a folder that holds p.
func rootBefore(p, dir string) (string, bool) {
	for at := 0; ; at++ {
		i := strings.Index(p[at:], dir)
		if i < 0 {
			return "", false
		}
		if at += i; at == 0 || p[at-1] == '/' {
			return p[:at], true
		}
	}
}

// readLicenseText reads a small text beside a package, "" where there is none.
func readLicenseText(tree fs.FS, p string, limit int64) ([]byte, error) {
	data, err := readAll(tree, path.Clean(p), limit)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) || errors.Is(err, errTooLarge) {
		return nil, nil
	}
	return data, err
}
