package scan

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
)

// mavenRepo is where Debian puts the packages of Maven. The folders there are what Maven
// itself resolves coordinates by, and so are the truth of which jar is what.
const mavenRepo = "/usr/share/maven-repo"

// truthJar is one jar of the machine and what it is.
type truthJar struct {
	data []byte
	// real is the path of the file, inRepo that of its place in the repository.
	real, inRepo string
	// id is what the folders of inRepo say; also are further names of the same file.
	id   mavenID
	also []mavenID
	// shaded are the descriptors of other packages inside.
	shaded []mavenID
	// described: one of the descriptors is the jar's own.
	described bool
}

func (j *truthJar) fileName() string { return j.id.artifact + "-" + j.id.version + ".jar" }

func truthJars(t testing.TB) []*truthJar {
	t.Helper()
	if _, err := os.Stat(mavenRepo); err != nil {
		if os.Getenv("ASSAY_TRUTH") == "1" {
			t.Fatalf("%s is absent; install Debian's package maven", mavenRepo)
		}
		t.Skipf("%s is absent; install Debian's package maven to run this test", mavenRepo)
	}
	byFile := map[string]*truthJar{}
	err := filepath.WalkDir(mavenRepo, func(p string, e fs.DirEntry, err error) error {
		if err != nil || path.Ext(p) != ".jar" {
			return err
		}
		id, ok := repositoryID(p)
		if !ok {
			return nil
		}
		real, err := filepath.EvalSymlinks(p)
		if err != nil {
			return err
		}
		if j := byFile[real]; j != nil {
			j.also = append(j.also, id)
			return nil
		}
		data, err := os.ReadFile(real)
		if err != nil {
			return err
		}
		j := &truthJar{data: data, real: real, inRepo: strings.TrimPrefix(p, mavenRepo+"/"), id: id}
		for _, d := range propertiesIn(t, data) {
			if d == id {
				j.described = true
			} else {
				j.shaded = append(j.shaded, d)
			}
		}
		byFile[real] = j
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var jars []*truthJar
	for _, real := range slices.Sorted(maps.Keys(byFile)) {
		jars = append(jars, byFile[real])
	}
	return jars
}

// repositoryID takes coordinates from the folders. Debian links each jar a second time
// under the version "debian" or "3.x", which are no versions of anything.
func repositoryID(p string) (mavenID, bool) {
	parts := strings.Split(strings.TrimPrefix(p, mavenRepo+"/"), "/")
	n := len(parts)
	if n < 4 {
		return mavenID{}, false
	}
	id := mavenID{strings.Join(parts[:n-3], "."), parts[n-3], parts[n-2]}
	return id, id.version != "debian" && !strings.HasSuffix(id.version, ".x")
}

// propertiesIn reads the descriptors of a jar by other means than the scan.
func propertiesIn(t testing.TB, data []byte) []mavenID {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var ids []mavenID
	for _, member := range z.File {
		if ok, _ := path.Match("META-INF/maven/*/*/pom.properties", member.Name); !ok {
			continue
		}
		in, err := member.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		var id mavenID
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if v, ok := strings.CutPrefix(line, "groupId="); ok {
				id.group = v
			}
			if v, ok := strings.CutPrefix(line, "artifactId="); ok {
				id.artifact = v
			}
			if v, ok := strings.CutPrefix(line, "version="); ok {
				id.version = v
			}
		}
		ids = append(ids, id)
	}
	return ids
}

func mavenPURL(t testing.TB, id mavenID) string {
	t.Helper()
	purl, err := sbom.NewPURL("maven", id.group, id.artifact, id.version)
	if err != nil {
		t.Fatal(err)
	}
	return purl
}

// zipOf packs files in the order of their paths, stored when they are archives.
func zipOf(t testing.TB, files inMemory) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		if path.Ext(name) == ".jar" {
			h.Method = zip.Store // as Spring Boot does, to load from within
		}
		member, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(member, files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// The same jars as Maven lays them out: every coordinate is there to be read.
func TestTruthMavenRepository(t *testing.T) {
	t.Parallel()
	files := inMemory{}
	var truth []string
	for _, j := range truthJars(t) {
		at := "root/.m2/repository/" + j.inRepo
		files[at] = string(j.data)
		pom, err := os.ReadFile(mavenRepo + "/" + strings.TrimSuffix(j.inRepo, ".jar") + ".pom")
		if err == nil {
			files[strings.TrimSuffix(at, ".jar")+".pom"] = string(pom)
		}
		truth = append(truth, mavenPURL(t, j.id))
		for _, id := range j.shaded {
			truth = append(truth, mavenPURL(t, id))
		}
	}
	inv := scanned(t, "repository.tar", tarOf(t, files))
	if len(inv.Incomplete) > 0 {
		t.Errorf("incomplete: %+v", inv.Incomplete)
	}
	compareTruth(t, "maven repository", truth, purlsOf(inv, "maven"))
	licensed, edges, hashed := 0, 0, 0
	for _, c := range inv.Components {
		edges += len(c.DependsOn)
		licensed += min(len(c.Licenses), 1)
		hashed += min(len(c.Hashes), 1)
	}
	t.Logf("maven repository: %d of %d components with licences, %d with hashes, %d edges", licensed, len(inv.Components), hashed, edges)
	if edges < 40 {
		t.Errorf("only %d edges", edges)
	}
}

// A war of them, with nothing around them but their names. The group of a jar that Maven
// did not describe is written nowhere in it; those count by name and version.
func TestTruthWar(t *testing.T) {
	t.Parallel()
	files := inMemory{"WEB-INF/web.xml": "<web-app/>"}
	var truth, bare []string
	for _, j := range truthJars(t) {
		files["WEB-INF/lib/"+j.fileName()] = string(j.data)
		if j.described {
			truth = append(truth, mavenPURL(t, j.id))
		} else {
			bare = append(bare, j.id.artifact+"@"+j.id.version)
		}
		for _, id := range j.shaded {
			truth = append(truth, mavenPURL(t, id))
		}
	}
	inv := scanned(t, "shop.war", zipOf(t, files))
	if len(inv.Incomplete) > 0 {
		t.Errorf("incomplete: %+v", inv.Incomplete)
	}
	var found, foundBare []string
	for _, c := range inv.Components {
		if name := c.Name + "@" + c.Version; slices.Contains(bare, name) && !slices.Contains(truth, c.PURL) {
			foundBare = append(foundBare, name)
		} else {
			found = append(found, c.PURL)
		}
	}
	compareTruth(t, "war, described jars", truth, found)
	compareTruth(t, "war, jars without a descriptor", bare, foundBare)
}

// The jars as Debian names them, which is often not as Maven does: only what they say
// themselves counts.
func TestTruthRenamedJars(t *testing.T) {
	t.Parallel()
	files := inMemory{}
	var truth []string
	for _, j := range truthJars(t) {
		if !j.described {
			continue
		}
		files[strings.TrimPrefix(j.real, "/")] = string(j.data)
		truth = append(truth, mavenPURL(t, j.id))
		for _, id := range j.shaded {
			truth = append(truth, mavenPURL(t, id))
		}
	}
	inv := scanned(t, "java.tar", tarOf(t, files))
	compareTruth(t, "renamed jars", truth, purlsOf(inv, "maven"))

	// Which package has the digest of the file shows which one the jar was taken for.
	wrong := 0
	for _, j := range truthJars(t) {
		if !j.described {
			continue
		}
		sum := sha256.Sum256(j.data)
		want := sbom.Hash{Algorithm: "SHA-256", Value: hex.EncodeToString(sum[:])}
		if c := component(t, inv, mavenPURL(t, j.id)); !slices.Contains(c.Hashes, want) {
			wrong++
			t.Logf("%s is not taken for %s", j.real, c.PURL)
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d jars were taken for another package", wrong, len(truth))
	}
}

// Three deep: an ear with a war with a jar, and an uber-jar that has jars in it beside
// what was shaded into it.
func TestTruthNestedJars(t *testing.T) {
	t.Parallel()
	jars := truthJars(t)
	lib := inMemory{}
	var truth []string
	for _, j := range jars {
		if j.described && len(lib) < 12 {
			lib["BOOT-INF/lib/"+j.fileName()] = string(j.data)
			truth = append(truth, mavenPURL(t, j.id))
			for _, id := range j.shaded {
				truth = append(truth, mavenPURL(t, id))
			}
		}
	}
	lib["META-INF/MANIFEST.MF"] = "Manifest-Version: 1.0\r\nImplementation-Title: shop\r\nImplementation-Version: 1.2.0\r\nMain-Class: org.example.Launcher\r\n\r\n"
	lib["META-INF/maven/org.example/shop/pom.properties"] = "groupId=org.example\nartifactId=shop\nversion=1.2.0\n"
	lib["META-INF/maven/com.google.code.gson/gson/pom.properties"] = "groupId=com.google.code.gson\nartifactId=gson\nversion=2.10.1\n"
	truth = append(truth, "pkg:maven/org.example/shop@1.2.0", "pkg:maven/com.google.code.gson/gson@2.10.1")
	uber := zipOf(t, lib)

	war := zipOf(t, inMemory{"WEB-INF/lib/app.jar": string(uber)})
	ear := zipOf(t, inMemory{"web/shop.war": string(war), "META-INF/application.xml": "<application/>"})
	inv := scanned(t, "shop.ear", ear)
	compareTruth(t, "nested three deep", truth, purlsOf(inv, "maven"))

	shop := component(t, inv, "pkg:maven/org.example/shop@1.2.0")
	if want := "web/shop.war!/WEB-INF/lib/app.jar"; !slices.Contains(shop.Locations, want) {
		t.Errorf("shop is at %q, want %q", shop.Locations, want)
	}
	if !slices.Contains(shop.DependsOn, "pkg:maven/com.google.code.gson/gson@2.10.1") {
		t.Errorf("shop depends on %q, not on what is shaded into it", shop.DependsOn)
	}
	sum := sha256.Sum256(uber)
	if want := (sbom.Hash{Algorithm: "SHA-256", Value: hex.EncodeToString(sum[:])}); !slices.Contains(shop.Hashes, want) {
		t.Errorf("shop has hashes %v, want %v", shop.Hashes, want)
	}
}

// An uber-jar as the shade plugin makes it, which Debian ships one of.
func TestTruthShadedJar(t *testing.T) {
	t.Parallel()
	for _, j := range truthJars(t) {
		if len(j.shaded) < 2 {
			continue
		}
		inv := scanned(t, filepath.Base(j.real), j.data)
		truth := []string{mavenPURL(t, j.id)}
		for _, id := range j.shaded {
			truth = append(truth, mavenPURL(t, id))
		}
		compareTruth(t, filepath.Base(j.real), truth, purlsOf(inv, "maven"))
		own := component(t, inv, truth[0])
		if len(own.DependsOn) < len(j.shaded) || !slices.Equal(inv.Root, truth[:1]) {
			t.Errorf("%s depends on %q, the artifact on %q", own.PURL, own.DependsOn, inv.Root)
		}
	}
}
