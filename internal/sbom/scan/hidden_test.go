package scan

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
)

const (
	lockOfA = `{"lockfileVersion":3,"packages":{"node_modules/a":{"version":"1.0.0"}}}`
	lockOfB = `{"lockfileVersion":3,"packages":{"node_modules/b":{"version":"1.0.0"}}}`
)

// jarOf is a jar of one package.
func jarOf(t testing.TB, artifact string) string {
	t.Helper()
	return string(zipOf(t, inMemory{
		"META-INF/maven/g/" + artifact + "/pom.properties": properties("g", artifact, "1.0"), "g/A.class": "\xca\xfe\xba\xbe\x00\x00\x00\x34",
	}))
}

// found lists the components with their places, and the reasons.
func found(inv *sbom.Inventory) []string {
	var out []string
	for _, c := range inv.Components {
		purl, _, _ := strings.Cut(strings.TrimPrefix(c.PURL, "pkg:"), "?")
		out = append(out, purl+" "+strings.Join(c.Locations, " "))
	}
	for _, r := range inv.Incomplete {
		out = append(out, "! "+string(r.Code)+" "+r.Path)
	}
	return out
}

func wantFound(t *testing.T, name string, data []byte, want ...string) {
	t.Helper()
	if got := found(scanned(t, name, data)); !slices.Equal(got, want) {
		t.Errorf("%s: found\n\t%s\nwant\n\t%s", name, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// A file is read under the names that links give it, where its own says nothing.
func TestAliases(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files inMemory
		want  []string
	}{
		"a lock": {
			inMemory{"app/data.bin": lockOfA, "app/package-lock.json": "-> data.bin", "b/package-lock.json": lockOfB, "c/package-lock.json": "-> ../b/package-lock.json"},
			[]string{"npm/a@1.0.0 app/package-lock.json", "npm/b@1.0.0 b/package-lock.json"},
		},
		"a folder": {
			inMemory{"lib/apk/db": "-> ../../opt/db", "opt/db/installed": "P:a\nV:1-r0\nA:x\n\n"},
			[]string{"apk/alpine/a@1-r0 lib/apk/db/installed"},
		},
		"a status": {
			inMemory{"var/lib/dpkg/status": "-> /opt/st", "opt/st": "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: x\n"},
			[]string{"deb/debian/a@1 var/lib/dpkg/status"},
		},
		"through two": {
			inMemory{"root/var": "-> ../v", "v/lib/dpkg": "-> ../../x", "x/status": "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: x\n"},
			[]string{"deb/debian/a@1 root/var/lib/dpkg/status"},
		},
		"a merged root": {
			inMemory{"lib": "-> usr/lib", "usr/lib/apk/db/installed": "P:a\nV:1-r0\nA:x\n\n", "usr/lib/x.jar": jarOf(t, "x"), "usr/lib/y.jar": "-> x.jar", "usr/lib/X11": "-> ."},
			[]string{"apk/alpine/a@1-r0 usr/lib/apk/db/installed", "maven/g/x@1.0 usr/lib/x.jar"},
		},
		"a store": {
			inMemory{"node_modules/a": "-> .pnpm/a@1/node_modules/a", "node_modules/.pnpm/a@1/node_modules/a/package.json": `{"name":"a","version":"1.0.0"}`},
			[]string{"npm/a@1.0.0 node_modules/.pnpm/a@1/node_modules/a/package.json"},
		},
		"a jar": {
			inMemory{"lib/tool-2.0.jar": "-> ../blob", "blob": string(zipOf(t, inMemory{"A.class": "x"}))},
			[]string{"maven/tool/tool@2.0 lib/tool-2.0.jar"},
		},
		"circles": {
			inMemory{"a/b": "-> ..", "c/d": "-> ../a", "package-lock.json": "-> package-lock.json", "x/package-lock.json": lockOfA},
			[]string{"npm/a@1.0.0 x/package-lock.json"},
		},
	}
	for name, test := range tests {
		wantFound(t, name+".tar", tarOf(t, test.files), test.want...)
	}
	many := inMemory{"data.bin": lockOfA}
	for i := range maxAliases + 1 {
		many[string(rune('a'+i))+"/package-lock.json"] = "-> ../data.bin"
	}
	inv := scanned(t, "many.tar", tarOf(t, many))
	if len(inv.Components) != 1 || len(inv.Incomplete) != 1 || inv.Incomplete[0].Code != sbom.ReasonEntries || inv.Incomplete[0].Path != "data.bin" {
		t.Errorf("%q", found(inv))
	}
}

// What a file is called hides nothing.
func TestNamesThatHide(t *testing.T) {
	t.Parallel()
	tgz := string(gzipped(t, tarOf(t, inMemory{"package-lock.json": lockOfA})))
	for _, name := range []string{"x.txt", "x.class", "x.a", "app.gz", "x.js", "x.png", "x"} {
		wantFound(t, name+".tar", tarOf(t, inMemory{"p/" + name: jarOf(t, "x")}), "maven/g/x@1.0 p/"+name)
	}
	wantFound(t, "gz.tar", tarOf(t, inMemory{
		"rootfs.gz": tgz, "doc/changelog.gz": string(gzipped(t, []byte(strings.Repeat("a change\n", 200)))), "b/package-lock.json.gz": string(gzipped(t, []byte(lockOfB))),
	}), "npm/a@1.0.0 rootfs.gz!/package-lock.json", "npm/b@1.0.0 b/package-lock.json.gz!/package-lock.json")
	wantFound(t, "app.war", zipOf(t, inMemory{"WEB-INF/classes/a.class": jarOf(t, "x"), "META-INF/b.txt": tgz}),
		"maven/g/x@1.0 WEB-INF/classes/a.class", "npm/a@1.0.0 META-INF/b.txt!/package-lock.json")
	wantFound(t, "case.tar", tarOf(t, inMemory{"x/PACKAGE-LOCK.JSON": lockOfA, "y/cargo.LOCK": "[[package]]\nname = \"c\"\nversion = \"1.0.0\"\n"}),
		"cargo/c@1.0.0 y/cargo.LOCK", "npm/a@1.0.0 x/PACKAGE-LOCK.JSON")
	wantFound(t, "Package-Lock.JSON", []byte(lockOfA), "npm/a@1.0.0 Package-Lock.JSON")
	wantFound(t, "status.tar", tarOf(t, inMemory{"var/lib/dpkg/status.d/a.md5sums": "Package: a\nVersion: 1\nArchitecture: x\n"}),
		"deb/debian/a@1 var/lib/dpkg/status.d/a.md5sums")
}

// A program that carries a zip is both.
func TestProgramsWithZip(t *testing.T) {
	t.Parallel()
	jar := []byte(jarOf(t, "x"))
	windows := append([]byte("MZ\x90\x00"+strings.Repeat("\x00", 600)), jar...)
	wantFound(t, "setup.tar", tarOf(t, inMemory{"bin/setup.exe": string(windows)}), "maven/g/x@1.0 bin/setup.exe")
	wantFound(t, "setup.exe", windows, "maven/g/x@1.0 setup.exe")

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := buildinfo.Read(bytes.NewReader(program)); err != nil {
		t.Skipf("this test is no Go program with build information: %v", err)
	}
	program = append(program, jar...)
	for name, data := range map[string][]byte{"tool": program, "tool.tar": tarOf(t, inMemory{"bin/run.sh": string(program)})} {
		inv := scanned(t, name, data)
		component(t, inv, "pkg:maven/g/x@1.0")
		if len(purlsOf(inv, "golang")) < 2 || !inv.Complete() {
			t.Errorf("%s: %q", name, found(inv))
		}
	}
}

// What package managers downloaded is left to their database, where there is one.
func TestPackageCaches(t *testing.T) {
	t.Parallel()
	deb := "!<arch>\nno package that can be read"
	status := "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: x\n"
	wantFound(t, "root.tar", tarOf(t, inMemory{
		"r/var/lib/dpkg/status": status, "r/var/cache/apt/archives/b.deb": deb, "r/var/cache/apt/archives/x.jar": jarOf(t, "x"),
	}), "deb/debian/a@1 r/var/lib/dpkg/status", "maven/g/x@1.0 r/var/cache/apt/archives/x.jar")
	wantFound(t, "elsewhere.tar", tarOf(t, inMemory{"r/var/lib/dpkg/status": status, "var/cache/apt/archives/b.deb": deb}),
		"deb/debian/a@1 r/var/lib/dpkg/status", "! unsupported var/cache/apt/archives/b.deb")
}

// An archive that is not opened is said, whatever tells that it is one.
func TestUnreadArchives(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"x.7z", "x.rpm", "x.iso", "x.asar", "x.phar", "x.tar.br", "x.tar", "x.jar", "x.tgz", "X.WHL", "x.tar.lzma"} {
		wantFound(t, name+".tar", tarOf(t, inMemory{"package-lock.json": lockOfA, "lib/" + name: "what is this"}),
			"npm/a@1.0.0 package-lock.json", "! unsupported lib/"+name)
	}
	wantFound(t, "empty.tar", tarOf(t, inMemory{"package-lock.json": lockOfA, "x.zip": "", "x.iso": ""}), "npm/a@1.0.0 package-lock.json")
}

// A jar that nothing names is there all the same.
func TestJarsWithoutName(t *testing.T) {
	t.Parallel()
	classes := string(zipOf(t, inMemory{"org/x/A.class": "x"}))
	sum := hashesOf([]byte(classes))
	for _, name := range []string{"a.jar", "a.zip", "a", "a.txt", "a-sources.jar"} {
		inv := scanned(t, "app.war", zipOf(t, inMemory{"WEB-INF/lib/" + name: classes}))
		c := component(t, inv, "pkg:generic/"+name+"?checksum=sha256:"+sum[1].Value)
		if !slices.Equal(c.Hashes, sum) || !slices.Equal(c.Locations, []string{"WEB-INF/lib/" + name}) || !inv.Complete() {
			t.Errorf("%+v, %v", c, inv.Incomplete)
		}
	}
	wantFound(t, "s.war", zipOf(t, inMemory{"WEB-INF/lib/x-1.0-sources.jar": jarOf(t, "x")}), "maven/g/x@1.0 WEB-INF/lib/x-1.0-sources.jar")
	wantFound(t, "none.war", zipOf(t, inMemory{"WEB-INF/lib/a.jar": string(zipOf(t, inMemory{"module-info.class": "x", "a.xml": "x"}))}), "! opaque ")
}
