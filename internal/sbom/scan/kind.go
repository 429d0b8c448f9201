package scan

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/assay-build/assay/internal/sbom/archive"
)

// archiveName says by its name that a member is an archive to open.
func archiveName(p string) bool {
	name := strings.ToLower(path.Base(p))
	switch path.Ext(name) {
	case ".jar", ".war", ".ear", ".aar", ".rar", ".sar", ".par", ".kar", ".hpi", ".jpi", ".nbm", ".lpkg",
		".zip", ".whl", ".egg", ".pyz", ".pex", ".nupkg", ".snupkg", ".vsix", ".xpi", ".ipa", ".aab", ".appx", ".msix",
		".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".tlz", ".crate", ".gem", ".deb", ".udeb", ".ipk", ".apk":
		return true
	case ".gz", ".xz", ".bz2", ".zst", ".zstd", ".lzma", ".lz", ".lz4", ".br", ".z":
		return strings.HasSuffix(strings.TrimSuffix(name, path.Ext(name)), ".tar")
	}
	return false
}

// unread says that a member that was not opened is an archive all the same. archive.Unread
// does not know those that are, first of all, something else.
func unread(p string, head []byte) bool {
	switch ext := path.Ext(p); strings.ToLower(ext) {
	case "", ".js", ".mjs", ".cjs", ".ts", ".json", ".map", ".md", ".html", ".css", ".py", ".pyc", ".class", ".c", ".h", ".txt", ".xml", ".so":
		return false // the names of nearly all files
	case ".phar", ".flatpak", ".appimage", ".sqfs":
		return len(head) > 0
	case ".rpm":
		return len(head) > 0 && !bytes.HasPrefix(head, rpmLead()) // whose reader says so itself
	}
	return archive.Unread(head, path.Base(p)) || archiveName(p) && len(head) > 0
}

// packedName is the name of what one compressed file holds; "" for any other file.
func packedName(p string) string {
	switch ext := strings.ToLower(path.Ext(p)); ext {
	case ".gz", ".xz", ".bz2", ".zst", ".zstd":
		return strings.TrimSuffix(p, path.Ext(p))
	}
	return ""
}

// toOpen says whether a member is worth opening as an archive: for its name, for its
// content, or for an archive that may follow a program.
func (w *walk) toOpen(p string, head []byte, size int64) bool {
	if len(head) == 0 {
		return false
	}
	if archiveName(p) {
		return true
	}
	if !archive.IsArchive(head, path.Base(p)) {
		return false
	}
	return packedName(p) == "" || w.packedToOpen(p, head, size)
}

// packedToOpen judges one compressed file, of which a root file system has thousands:
// manual pages, change logs, kernel modules. It is opened for a name that a reader knows
// and for first bytes that are no text.
func (w *walk) packedToOpen(p string, head []byte, size int64) bool {
	name := packedName(p)
	for i := range w.readers {
		if wants := w.readers[i].wants; wants != nil && wants(name) {
			return true
		}
	}
	if path.Ext(name) == ".ko" {
		return false
	}
	if !bytes.HasPrefix(head, []byte("\x1f\x8b")) {
		return true
	}
	inside, ok := w.gunzip.head(head, size)
	return !ok || archive.IsArchive(inside, "")
}

// gunzipper reads the beginnings of many compressed files.
type gunzipper struct {
	r   *gzip.Reader
	in  bytes.Reader
	buf [headBytes]byte
}

// head is what a compressed file of size bytes begins with, of which packed is the beginning;
// false where that cannot be told.
func (z *gunzipper) head(packed []byte, size int64) ([]byte, bool) {
	z.in.Reset(packed)
	var err error
	if z.r == nil {
		z.r, err = gzip.NewReader(&z.in)
	} else {
		err = z.r.Reset(&z.in)
	}
	if err != nil {
		z.r = nil
		return nil, false
	}
	n, _ := io.ReadFull(z.r, z.buf[:])
	return z.buf[:n], n == len(z.buf) || int64(len(packed)) >= size
}

// cached reports a package in the folder where its manager keeps what it downloaded. What is
// there is installed, or is not: the database of the same root tells. Where there is none,
// or the file is of another kind, the folder is like any other.
func (g *grove) cached(p string, head []byte) bool {
	if !strings.Contains(p, "var/cache/") {
		return false
	}
	for _, c := range [...]struct {
		dir, magic string
		databases  []string
	}{
		{"var/cache/apt/archives/", "!<arch>\n", []string{dpkgStatus}},
		{"var/cache/apk/", "\x1f\x8b", []string{"lib/apk/db/installed", "usr/lib/apk/db/installed"}},
		{"var/cache/dnf/", string(rpmLead()), rpmDatabases()},
		{"var/cache/libdnf5/", string(rpmLead()), rpmDatabases()},
		{"var/cache/yum/", string(rpmLead()), rpmDatabases()},
		{"var/cache/zypp/", string(rpmLead()), rpmDatabases()},
	} {
		root, ok := rootBefore(p, c.dir)
		if ok && strings.HasPrefix(string(head), c.magic) && slices.ContainsFunc(c.databases, func(db string) bool {
			info, err := fs.Stat(g.tree, root+db)
			return err == nil && info.Mode().IsRegular()
		}) {
			return path.Ext(p) == ".deb" || path.Ext(p) == ".apk" || path.Ext(p) == ".rpm"
		}
	}
	return false
}

// rpmDatabases are all places of RPM's database.
func rpmDatabases() []string {
	var all []string
	for _, dir := range [...]string{"var/lib/rpm/", "usr/lib/sysimage/rpm/", "usr/share/rpm/"} {
		all = append(all, dir+"rpmdb.sqlite", dir+"Packages.db", dir+"Packages")
	}
	return all
}

// knownCase is the name that a lock has, for one that differs in case alone: where file
// systems do not tell them apart, package managers read it. "" for any other name.
func knownCase(p string) string {
	base := path.Base(p)
	lower := strings.ToLower(base)
	for _, name := range [...]string{
		"package-lock.json", "npm-shrinkwrap.json", "package.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock",
		"poetry.lock", "uv.lock", "pdm.lock", "Pipfile.lock", "pylock.toml", "requirements.txt",
		"pom.xml", "gradle.lockfile", "Cargo.lock", "packages.lock.json", "packages.config", "project.assets.json",
		"Gemfile.lock", "gems.locked", "composer.lock", "go.mod", "conan.lock", "pubspec.lock", "mix.lock",
		"cabal.project.freeze", "stack.yaml.lock", "renv.lock", "Package.resolved", "Podfile.lock",
	} {
		if len(lower) == len(name) && base != name && strings.EqualFold(lower, name) {
			return strings.TrimSuffix(p, base) + name
		}
	}
	return ""
}
