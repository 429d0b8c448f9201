package scan

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // recorded, not relied on
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
)

// inMemory is what a test puts into an archive: paths to contents. A content that starts
// with "-> " is a symbolic link.
type inMemory map[string]string

// tarOf packs files in the order of their paths, each executable.
func tarOf(t testing.TB, files inMemory) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name])), Format: tar.FormatPAX}
		target, link := strings.CutPrefix(files[name], "-> ")
		if link {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if link {
			continue
		}
		if _, err := w.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// scanned scans bytes as an artifact of that name, with everything that a scan promises:
// a valid inventory, and nothing left in the temporary directory.
func scanned(t testing.TB, name string, data []byte) *sbom.Inventory {
	t.Helper()
	dir := t.TempDir()
	inv, err := Scan(context.Background(), Request{Artifact: bytes.NewReader(data), Size: int64(len(data)), Name: name, TempDir: dir}, DefaultLimits())
	if err != nil {
		t.Fatalf("Scan(%s): %v", name, err)
	}
	checkScan(t, inv, dir)
	return inv
}

func checkScan(t testing.TB, inv *sbom.Inventory, dir string) {
	t.Helper()
	if err := inv.Validate(); err != nil {
		t.Errorf("the inventory is not valid: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v, %v", left, err)
	}
}

// purlsOf are the package URLs of a type.
func purlsOf(inv *sbom.Inventory, typ string) []string {
	var out []string
	for _, c := range inv.Components {
		if strings.HasPrefix(c.PURL, "pkg:"+typ+"/") {
			out = append(out, c.PURL)
		}
	}
	return out
}

// component finds one by its package URL.
func component(t testing.TB, inv *sbom.Inventory, purl string) sbom.Component {
	t.Helper()
	for _, c := range inv.Components {
		if c.PURL == purl {
			return c
		}
	}
	t.Fatalf("no component %s among %d", purl, len(inv.Components))
	return sbom.Component{}
}

// compareTruth asserts that nothing is missing and that at most one in a hundred is not
// there in truth. Both lists are sets.
func compareTruth(t testing.TB, what string, truth, found []string) {
	t.Helper()
	truth, found = slices.Compact(slices.Sorted(slices.Values(truth))), slices.Compact(slices.Sorted(slices.Values(found)))
	var missing, extra []string
	for _, p := range truth {
		if _, ok := slices.BinarySearch(found, p); !ok {
			missing = append(missing, p)
		}
	}
	for _, p := range found {
		if _, ok := slices.BinarySearch(truth, p); !ok {
			extra = append(extra, p)
		}
	}
	t.Logf("%s: %d in truth, %d found, %d missing, %d extra", what, len(truth), len(found), len(missing), len(extra))
	if len(truth) == 0 {
		t.Errorf("%s: there is no truth to compare with", what)
	}
	if len(missing) > 0 {
		t.Errorf("%s: missing %q", what, missing[:min(len(missing), 20)])
	}
	if len(extra)*100 > len(found) {
		t.Errorf("%s: not there in truth: %q", what, extra[:min(len(extra), 20)])
	}
}

// hashesOf are what a container's sums are.
func hashesOf(data []byte) []sbom.Hash {
	h1, h256 := sha1.Sum(data), sha256.Sum256(data) //nolint:gosec // recorded, not relied on
	return []sbom.Hash{{Algorithm: "SHA-1", Value: hex.EncodeToString(h1[:])}, {Algorithm: "SHA-256", Value: hex.EncodeToString(h256[:])}}
}

const (
	debianOS = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n"
	alpineOS = "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.19.1\n"
)

// syntheticRoot is a root file system of Debian that holds another of Alpine.
func syntheticRoot() inMemory {
	return inMemory{
		"usr/lib/os-release":  debianOS,
		"etc/os-release":      "-> ../usr/lib/os-release",
		"var/lib/dpkg/status": debianStatus,
		"usr/share/doc/app/copyright": "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nLicense: Apache-2.0\n\n" +
			"Files: *\nCopyright: X\nLicense: GPL-2+\n\nFiles: y\nLicense: Expat\n Permission is\n .\n License: no\n\nLicense: LGPL-3\n text\n",
		"usr/share/doc/mail-transport/copyright":       "It is under the GPL, version 2 or any later version: see /usr/share/common-licenses/GPL.\n",
		"usr/share/doc/libc6":                          "-> libc",
		"usr/share/doc/libc/copyright":                 "/usr/share/common-licenses/LGPL-2.1\n",
		"srv/alpine/etc/os-release":                    alpineOS,
		"srv/alpine/usr/lib/apk/db/installed":          alpineInstalled,
		"srv/alpine/usr/share/doc/app/copyright":       "not of Debian",
		"usr/share/doc/app/examples/not/.PKGINFO":      "pkgname = none\npkgver = 1\n",
		"usr/src/app/DEBIAN/control":                   "Package: none\nVersion: 1\n",
		"usr/share/doc/dpkg/var/lib/dpkg/status.d/x/y": "Package: none\nVersion: 1\n",
	}
}

const debianStatus = `Package: app
Status: install ok installed
Architecture: amd64
Version: 1:1.0+dfsg-1
Depends: libc6 (>= 2.36), missing | default-mta
 | mail-transport-agent,
 awk:any
Pre-Depends: dpkg
Description: an app
 Package: not a field

package: libc6
status: install ok installed
architecture: amd64
version: 2.36-9

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.36-9

Package: mail-transport
Status: hold ok half-configured
Architecture: all
Version: 2
Provides: mail-transport-agent (= 2), awk

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 3

Package: no-status
Architecture: amd64
Version: 4
`

const alpineInstalled = `C:Q1p78yvTLG094tHE1+dToJGbmYzQE=
P:app
V:1.2.3-r0
A:x86_64
S:1
L:MIT AND GPL-2.0-only
D:musl>=1.2 so:libz.so.1 !conflict cmd:sh
F:usr/bin
R:app
Z:Q1+LqG

P:musl
V:1.2.4_git20230717-r4
A:x86_64
L:MIT
p:so:libc.musl-x86_64.so.1=1

P:zlib
V:1.3.1-r0
A:x86_64
L:Zlib
p:so:libz.so.1=1.3.1

P:busybox
V:1.36.1-r15
A:x86_64
L:GPL-2.0-only
D:musl
p:/bin/sh cmd:sh=1.36.1-r15`
