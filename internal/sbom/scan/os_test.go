package scan

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
)

const (
	debApp  = "pkg:deb/debian/app@1:1.0%2Bdfsg-1?arch=amd64&distro=debian-12"
	debLibc = "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12"
	debMail = "pkg:deb/debian/mail-transport@2?arch=all&distro=debian-12"
	apkApp  = "pkg:apk/alpine/app@1.2.3-r0?arch=x86_64&distro=alpine-3.19.1"
	apkMusl = "pkg:apk/alpine/musl@1.2.4_git20230717-r4?arch=x86_64&distro=alpine-3.19.1"
	apkZlib = "pkg:apk/alpine/zlib@1.3.1-r0?arch=x86_64&distro=alpine-3.19.1"
	apkBusy = "pkg:apk/alpine/busybox@1.36.1-r15?arch=x86_64&distro=alpine-3.19.1"
)

// TestRootFileSystems looks at all that is told of packages, in a root file system with
// another one inside.
func TestRootFileSystems(t *testing.T) {
	t.Parallel()
	inv := scanned(t, "root.tar", tarOf(t, syntheticRoot()))
	if len(inv.Incomplete) > 0 {
		t.Errorf("incomplete: %v", inv.Incomplete)
	}
	want := []struct {
		purl            string
		licenses, needs []string
		location        string
	}{
		{debApp, []string{"Apache-2.0", "GPL-2.0-or-later", "MIT"}, []string{debLibc, debMail}, dpkgStatus},
		{debLibc, []string{"LGPL-2.1-only"}, nil, dpkgStatus},
		{strings.Replace(debLibc, "amd64", "i386", 1), []string{"LGPL-2.1-only"}, nil, dpkgStatus},
		{debMail, []string{"GPL-2.0-or-later"}, nil, dpkgStatus},
		{apkApp, []string{"GPL-2.0-only", "MIT"}, []string{apkBusy, apkMusl, apkZlib}, "srv/alpine/usr/lib/apk/db/installed"},
		{apkMusl, []string{"MIT"}, nil, "srv/alpine/usr/lib/apk/db/installed"},
		{apkZlib, []string{"Zlib"}, nil, "srv/alpine/usr/lib/apk/db/installed"},
		{apkBusy, []string{"GPL-2.0-only"}, []string{apkMusl}, "srv/alpine/usr/lib/apk/db/installed"},
		{"pkg:generic/alpine@3.19.1", nil, nil, "srv/alpine/etc/os-release"},
		{"pkg:generic/debian@12", nil, nil, "usr/lib/os-release"},
	}
	if len(inv.Components) != len(want) {
		t.Errorf("%d components, want %d", len(inv.Components), len(want))
	}
	for _, w := range want {
		c := component(t, inv, w.purl)
		if !slices.Equal(c.Licenses, w.licenses) {
			t.Errorf("%s: licences %q, want %q", w.purl, c.Licenses, w.licenses)
		}
		if !slices.Equal(c.DependsOn, w.needs) {
			t.Errorf("%s: depends on %q, want %q", w.purl, c.DependsOn, w.needs)
		}
		if !slices.Equal(c.Locations, []string{w.location}) {
			t.Errorf("%s: at %q, want %q", w.purl, c.Locations, w.location)
		}
	}
	if c := component(t, inv, "pkg:generic/debian@12"); c.Type != "operating-system" {
		t.Errorf("the operating system is a %q", c.Type)
	}
	for _, p := range []string{debLibc, debMail, apkMusl} {
		if slices.Contains(inv.Root, p) {
			t.Errorf("%s is in the root, and others bring it in", p)
		}
	}
}

// Distroless images have a file per package, and no status in it.
func TestDistroless(t *testing.T) {
	t.Parallel()
	inv := scanned(t, "root.tar", tarOf(t, inMemory{
		"etc/os-release":                         debianOS,
		"var/lib/dpkg/status.d/base":             "Package: base\nVersion: 12\nArchitecture: all\nDepends: tzdata\n",
		"var/lib/dpkg/status.d/base.md5sums":     "d41d8cd98f00b204e9800998ecf8427e  etc/x\n",
		"var/lib/dpkg/status.d/tzdata":           "Package: tzdata\nVersion: 2024a\nArchitecture: all\nStatus: install ok installed\n",
		"var/lib/dpkg/status.d/gone":             "Package: gone\nVersion: 1\nArchitecture: all\nStatus: purge ok not-installed\n",
		"var/lib/dpkg/status.d/sub/not-a-record": "Package: none\nVersion: 1\n",
	}))
	base, tz := "pkg:deb/debian/base@12?arch=all&distro=debian-12", "pkg:deb/debian/tzdata@2024a?arch=all&distro=debian-12"
	if got := purlsOf(inv, "deb"); !slices.Equal(got, []string{base, tz}) {
		t.Errorf("found %q", got)
	}
	if got := component(t, inv, base).DependsOn; !slices.Equal(got, []string{tz}) {
		t.Errorf("base depends on %q", got)
	}
}

func TestCopyright(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		want []string
	}{
		"dep5 with texts only": {"Format: http://dep.debian.net/deps/dep5\n\nLicense: GPL-3+\n text\n", []string{"GPL-3.0-or-later"}},
		"dep5 alternatives":    {"Format: https://x/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-2 or MIT\n\nLicense: GPL-2\n x\n", []string{"GPL-2.0-only OR MIT"}},
		"common licences":      {"see /usr/share/common-licenses/GPL-2 and /usr/share/common-licenses/Apache-2.0.\n", []string{"Apache-2.0", "GPL-2.0-only"}},
		"later versions":       {"either version 2, or (at your option) any\n later version; see /usr/share/common-licenses/LGPL", []string{"LGPL-2.0-or-later"}},
		"as Perl":              {"You may use it under the same terms as Perl itself; /usr/share/common-licenses/GPL-1", []string{"Artistic-1.0-Perl OR GPL-1.0-or-later"}},
		"in a comment":         {"/*\n * Permission is hereby granted, free of charge, to any person obtaining a\n * copy of this software", []string{"MIT"}},
		"BSD":                  {"Redistribution and use in source and binary forms ... endorse or promote products", []string{"BSD-3-Clause"}},
		"BSD of two clauses":   {"Redistribution and use in source and binary forms", []string{"BSD-2-Clause"}},
		"nothing":              {"All rights reserved.", nil},
		"empty":                {"", nil},
	}
	for name, tt := range tests {
		if got := newCopyrightReader().licenses([]byte(tt.text)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// Every relation that dpkg allows is one name to us.
func TestRelationName(t *testing.T) {
	t.Parallel()
	for r, want := range map[string]string{
		"libc6": "libc6", "libc6 (>= 2.34)": "libc6", "python3:any": "python3", " a(=1)": "a", "b [amd64] <!nocheck>": "b", "": "",
	} {
		if got := relationName(r); got != want {
			t.Errorf("relationName(%q) = %q, want %q", r, got, want)
		}
	}
	for d, want := range map[string]string{"musl>=1.2": "musl", "so:libz.so.1=1.3": "so:libz.so.1", "a~1": "a", "b@edge": "b", "/bin/sh": "/bin/sh"} {
		if got := apkName(d); got != want {
			t.Errorf("apkName(%q) = %q, want %q", d, got, want)
		}
	}
}

// rpmHeaderOf writes a header with the tags of a package.
func rpmHeaderOf(texts map[uint32]string, lists map[uint32][]string) []byte {
	var index, store []byte
	put := func(tag, typ, count uint32, value string) {
		for _, n := range []uint32{tag, typ, uint32(len(store)), count} {
			index = binary.BigEndian.AppendUint32(index, n)
		}
		store = append(store, value...)
	}
	for tag := uint32(1000); tag < 1200; tag++ {
		if s, ok := texts[tag]; ok {
			put(tag, rpmTypeString, 1, s+"\x00")
		}
		if l, ok := lists[tag]; ok {
			put(tag, rpmTypeStringArray, uint32(len(l)), strings.Join(l, "\x00")+"\x00")
		}
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(index)/16))
	head = binary.BigEndian.AppendUint32(head, uint32(len(store)))
	return slices.Concat(head, index, store)
}

// rpmFile is a package file: lead, signatures, header, and a payload that is not read.
func rpmFile() []byte {
	magic := []byte{0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0}
	lead := append(rpmLead(), make([]byte, 92)...)
	signatures := slices.Concat(magic, rpmHeaderOf(map[uint32]string{1004: "12345"}, nil))
	signatures = append(signatures, make([]byte, -len(signatures)&7)...)
	header := rpmHeaderOf(map[uint32]string{rpmTagName: "app", rpmTagVersion: "1.0", rpmTagRelease: "2.fc40", rpmTagArch: "x86_64", rpmTagLicense: "GPLv2+ and MIT"}, nil)
	return slices.Concat(lead, signatures, magic, header, []byte("payload"))
}

func TestRPMFile(t *testing.T) {
	t.Parallel()
	inv := scanned(t, "app.rpm", rpmFile())
	c := component(t, inv, "pkg:rpm/app@1.0-2.fc40?arch=x86_64")
	if !slices.Equal(c.Licenses, []string{"GPL-2.0-or-later", "MIT"}) {
		t.Errorf("licences %q", c.Licenses)
	}
	if inv.Format != "rpm-package" || len(inv.Incomplete) != 1 || inv.Incomplete[0].Code != sbom.ReasonUnsupported {
		t.Errorf("format %q, incomplete %v; its files were not looked into", inv.Format, inv.Incomplete)
	}
	inv = scanned(t, "app.rpm", rpmFile()[:150])
	if len(inv.Components) > 0 || !slices.ContainsFunc(inv.Incomplete, func(r sbom.Reason) bool { return r.Code == sbom.ReasonMalformed }) {
		t.Errorf("of a torn file: %d components, incomplete %v", len(inv.Components), inv.Incomplete)
	}
}

// A database with a journal beside it lacks what is in the journal.
func TestRPMJournal(t *testing.T) {
	t.Parallel()
	inv := scanned(t, "root.tar", tarOf(t, inMemory{"var/lib/rpm/rpmdb.sqlite": "SQLite format 3\x00", "var/lib/rpm/rpmdb.sqlite-wal": "x"}))
	if !slices.ContainsFunc(inv.Incomplete, func(r sbom.Reason) bool { return r.Code == sbom.ReasonUnsupported }) {
		t.Errorf("incomplete: %v", inv.Incomplete)
	}
}

// A database whose pages lead in circles ends.
func TestRPMCircles(t *testing.T) {
	t.Parallel()
	page := make([]byte, 512)
	copy(page, "SQLite format 3\x00")
	binary.BigEndian.PutUint16(page[16:], 512)
	page[100] = sqliteInterior
	binary.BigEndian.PutUint16(page[103:], 2)   // two cells,
	binary.BigEndian.PutUint32(page[108:], 1)   // the last child is this page,
	binary.BigEndian.PutUint16(page[112:], 200) // and so are those of the cells
	binary.BigEndian.PutUint16(page[114:], 200)
	binary.BigEndian.PutUint32(page[200:], 1)
	inv := scanned(t, "root.tar", tarOf(t, inMemory{"var/lib/rpm/rpmdb.sqlite": string(page)}))
	if !slices.ContainsFunc(inv.Incomplete, func(r sbom.Reason) bool {
		return r.Code == sbom.ReasonMalformed && strings.Contains(r.Detail, "end") || strings.Contains(r.Detail, "circles")
	}) {
		t.Errorf("incomplete: %v", inv.Incomplete)
	}
}

func FuzzRPMDatabase(f *testing.F) {
	dir := rpmTestdata(f)
	for _, name := range []string{"libuuid/Packages", "sle15-bci/Packages.db", "fedora35/rpmdb.sqlite"} {
		data, err := os.ReadFile(filepath.Join(dir, "testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[:min(len(data), 32<<10)])
	}
	f.Add([]byte("SQLite format 3\x00"))
	f.Add([]byte("RpmP"))
	f.Fuzz(func(t *testing.T, data []byte) {
		total := 0
		err := newRPMDatabase(bytes.NewReader(data), int64(len(data))).headers(func(blob []byte) error {
			if total += len(blob); total > 8*len(data)+1<<17 {
				t.Fatal("more comes out than goes in")
			}
			h, err := parseRPMHeader(blob)
			if err == nil {
				h.files(func(string) {})
				_, err = rpmFromHeader(h, osRelease{})
			}
			return err
		})
		_ = err // an error or not: no panic, and an end
	})
}

func FuzzRPMHeader(f *testing.F) {
	f.Add(rpmHeaderOf(map[uint32]string{rpmTagName: "a", rpmTagVersion: "1"}, map[uint32][]string{rpmTagProvides: {"a", "b"}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseRPMHeader(data)
		if err != nil {
			return
		}
		k, err := rpmFromHeader(h, osRelease{id: "fedora", version: "40"})
		if err == nil && k != nil {
			if p, err := sbom.ParsePURL(k.PURL); err != nil || p.String() != k.PURL {
				t.Errorf("%q: %v", k.PURL, err)
			}
		}
	})
}

func FuzzDebianStatus(f *testing.F) {
	f.Add([]byte(debianStatus))
	f.Fuzz(func(t *testing.T, data []byte) {
		var found []*pkg
		for s := range debStanzas(data) {
			if k, err := debPackage(s, osRelease{}, ""); err == nil {
				found = append(found, k)
			}
		}
		resolveDebian(found)
	})
}

func FuzzCopyright(f *testing.F) {
	f.Add([]byte("Format: https://x/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-2 or MIT\n"))
	f.Add([]byte("/usr/share/common-licenses/GPL or any later version"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := newCopyrightReader().licenses(data); len(got) > sbom.MaxLicenses || !slices.IsSorted(got) {
			t.Errorf("%d licences", len(got))
		}
	})
}
