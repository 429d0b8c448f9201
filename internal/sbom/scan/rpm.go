package scan

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// rpmReaders read the databases of RPM and package files themselves.
func rpmReaders() []reader {
	return []reader{
		{name: "rpm/database", wants: isRPMDatabase, read: readRPMDatabase},
		{name: "rpm/package", magic: func(_ string, head []byte) bool { return bytes.HasPrefix(head, rpmLead()) }, read: readRPM},
	}
}

func rpmLead() []byte { return []byte{0xed, 0xab, 0xee, 0xdb} }

// isRPMDatabase knows the places of the database and the names of its kinds.
func isRPMDatabase(p string) bool {
	switch path.Base(p) {
	case "Packages", "Packages.db", "rpmdb.sqlite":
		_, ok := rpmRoot(p)
		return ok
	}
	return false
}

// rpmRoot is the folder of the root file system that a database is in.
func rpmRoot(p string) (string, bool) {
	dir := path.Dir(p) + "/"
	for _, d := range [...]string{"var/lib/rpm/", "usr/lib/sysimage/rpm/", "usr/share/rpm/"} {
		if underRoot(dir, d) {
			return rootOf(dir, d), true
		}
	}
	return "", false
}

// rpmPackage is one package while its database is read.
type rpmPackage struct {
	*pkg
	provides []string
}

func readRPMDatabase(ctx context.Context, f *file) ([]*pkg, error) {
	in, at, err := f.openAt()
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	root, _ := rpmRoot(f.path)
	if info, err := fs.Stat(f.tree, f.path+"-wal"); err == nil && info.Size() > 0 {
		return nil, fmt.Errorf("%w: a database with changes that were not written to it yet", errUnsupported)
	}
	os := osOf(f.tree, root)
	var all []rpmPackage
	err = newRPMDatabase(at, f.info.Size()).headers(func(blob []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := parseRPMHeader(blob)
		if err != nil {
			return err
		}
		k, err := rpmFromHeader(h, os)
		if err == nil && k != nil {
			all = append(all, rpmPackage{pkg: k, provides: h.texts(rpmTagProvides)})
		}
		return err
	})
	found := make([]*pkg, len(all))
	for i := range all {
		found[i] = all[i].pkg
	}
	if err != nil {
		return found, err
	}
	return found, resolveRPM(all, newRPMDatabase(at, f.info.Size()))
}

// rpmFromHeader names a package; none where the header names none.
func rpmFromHeader(h *rpmHeader, os osRelease) (*pkg, error) {
	name, version := h.text(rpmTagName), h.text(rpmTagVersion)
	if name == "" || version == "" {
		return nil, nil
	}
	if release := h.text(rpmTagRelease); release != "" {
		version += "-" + release
	}
	arch, epoch := h.text(rpmTagArch), ""
	if e := h.numbers(rpmTagEpoch); len(e) > 0 && e[0] != 0 {
		epoch = strconv.FormatUint(uint64(e[0]), 10)
	}
	purl, err := osPURL("rpm", os.namespace(""), name, version, "arch", arch, "distro", os.distro(), "epoch", epoch)
	if err != nil {
		return nil, err
	}
	k := &pkg{Component: sbom.Component{PURL: purl, Name: name, Version: version}, needs: h.texts(rpmTagRequires)}
	if expr, _ := sbom.NormalizeLicense(h.text(rpmTagLicense)); expr != "" {
		k.Licenses = []string{expr}
	}
	return k, nil
}

// resolveRPM turns what packages require into edges: to packages by name, to what they
// provide, and to those that hold a file. Files are looked for in a second pass over
// the database, since nearly all of what it holds are their names.
func resolveRPM(all []rpmPackage, db *rpmDatabase) error {
	provided, paths := providers{}, providers{}
	for _, k := range all {
		provided.add(k.Name, k.pkg)
		for _, p := range k.provides {
			if p != k.Name {
				provided.add(p, k.pkg)
			}
		}
		for _, n := range k.needs {
			if strings.HasPrefix(n, "/") {
				paths[n] = nil
			}
		}
	}
	if len(paths) > 0 {
		if err := ownersOf(paths, all, db); err != nil {
			return err
		}
	}
	for _, k := range all {
		for _, n := range k.needs {
			owners := provided[n]
			if len(owners) == 0 {
				owners = paths[n]
			}
			k.dependOnEach(owners)
		}
	}
	return nil
}

// ownersOf finds the packages that hold the paths.
func ownersOf(paths providers, all []rpmPackage, db *rpmDatabase) error {
	i := 0
	return db.headers(func(blob []byte) error {
		h, err := parseRPMHeader(blob)
		if err != nil {
			return err
		}
		if h.text(rpmTagName) == "" || h.text(rpmTagVersion) == "" || i >= len(all) {
			return nil // as in the first pass
		}
		h.files(func(p string) {
			if _, wanted := paths[p]; wanted {
				paths.add(p, all[i].pkg)
			}
		})
		i++
		return nil
	})
}

// readRPM reads a package file: a lead of 96 bytes, a header with signatures, and the
// header of the package. What the package installs is a compressed cpio archive, which
// is not looked into, and the inventory says so.
func readRPM(_ context.Context, f *file) ([]*pkg, error) {
	in, at, err := f.openAt()
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	_, next, err := rpmFileHeader(at, 96, f.info.Size())
	if err != nil {
		return nil, err
	}
	blob, _, err := rpmFileHeader(at, (next+7)&^7, f.info.Size())
	if err != nil {
		return nil, err
	}
	h, err := parseRPMHeader(blob)
	if err != nil {
		return nil, err
	}
	k, err := rpmFromHeader(h, osRelease{})
	if err != nil || k == nil {
		return nil, err
	}
	k.direct = true
	return []*pkg{k}, fmt.Errorf("%w: the files in an RPM package", errUnsupported)
}

// rpmFileHeader reads a header of a package file, which starts with a magic number of 8
// bytes, and tells where it ends.
func rpmFileHeader(at io.ReaderAt, offset, end int64) ([]byte, int64, error) {
	var intro [16]byte
	if _, err := at.ReadAt(intro[:], offset); err != nil || !bytes.HasPrefix(intro[:], []byte{0x8e, 0xad, 0xe8, 1}) {
		return nil, 0, errRPMHeader
	}
	tags, size := binary.BigEndian.Uint32(intro[8:]), binary.BigEndian.Uint32(intro[12:])
	if tags > maxRPMTags || size > maxRPMHeader || offset+16+16*int64(tags)+int64(size) > end {
		return nil, 0, errRPMHeader
	}
	blob := make([]byte, 8+16*int(tags)+int(size))
	if n, err := at.ReadAt(blob, offset+8); n < len(blob) {
		if err == io.EOF || err == nil {
			err = errRPMHeader
		}
		return nil, 0, err
	}
	return blob, offset + 8 + int64(len(blob)), nil
}
