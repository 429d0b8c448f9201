package scan

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// maxDescriptors bounds the META-INF/maven folders of one jar. A jar of everything that
// a large product shades has some hundreds.
const maxDescriptors = 20_000

func javaReaders() []reader {
	return append([]reader{
		{name: "java/archive", archive: readJar, resolve: resolveMaven},
		{name: "java/exploded", wants: wantsExploded, read: readExploded, resolve: resolveMaven},
		{name: "java/repository", wants: wantsRepositoryPOM, read: readRepositoryPOM, resolve: resolveMaven},
		{name: "java/pom", wants: wantsPOM, read: readPOM, resolve: resolveMaven},
	}, gradleReaders()...)
}

// mavenID is what Maven calls the coordinates of a package.
type mavenID struct{ group, artifact, version string }

func (id mavenID) complete() bool { return id.group != "" && id.artifact != "" && id.version != "" }

// valid: every part is literal, as it is in published packages.
func (id mavenID) valid() bool {
	return id.complete() && !strings.ContainsAny(id.group+id.artifact+id.version, " \t${}<>:/\\")
}

// descriptor is one folder META-INF/maven/GROUP/ARTIFACT: Maven puts one into each jar,
// and shading carries those of the jars that went in along.
type descriptor struct {
	mavenID
	path string
	// licenses and needs are those of the pom beside, where it can be read.
	licenses, needs []string
}

// isJar says by its name that a zip is one of Java. Sources and documentation, which are
// published beside a package, have the same extension.
func isJar(name string) (jar, beside bool) {
	stem, ext := cutExtension(strings.ToLower(name))
	switch ext {
	case ".jar", ".war", ".ear", ".rar", ".aar", ".par", ".sar", ".kar", ".nar", ".hpi", ".jpi", ".lpkg", ".nbm":
		return true, strings.HasSuffix(stem, "-sources") || strings.HasSuffix(stem, "-javadoc")
	}
	return false, false
}

// holdsClasses reports whether there is compiled code in a tree, beside descriptions of it.
func holdsClasses(tree fs.FS) bool {
	t, ok := tree.(interface {
		Walk(fn func(path string, info fs.FileInfo) error) error
	})
	found := false
	if ok {
		_ = t.Walk(func(p string, _ fs.FileInfo) error {
			if !strings.HasSuffix(p, ".class") || path.Base(p) == "module-info.class" || path.Base(p) == "package-info.class" {
				return nil
			}
			found = true
			return fs.SkipAll
		})
	}
	return found
}

func cutExtension(name string) (stem, ext string) {
	ext = path.Ext(name)
	return strings.TrimSuffix(name, ext), ext
}

// readJar names a jar and what is shaded into it. Jars inside it are archives of their own.
//
// One package is the jar's own: it has the digests of the file, and depends on the others.
func readJar(ctx context.Context, f *file) ([]*pkg, error) {
	if f.from.format != "zip" {
		return nil, nil
	}
	jarName, beside := isJar(f.from.name)
	classes := holdsClasses(f.tree)
	if beside && !classes {
		return nil, nil
	}
	descriptors, err := jarDescriptors(ctx, f)
	out := findings{err: err}
	// What is called otherwise is a jar for what is in it; other packages may hold classes.
	otherPackage := !jarName && archiveName(f.from.name) && !strings.EqualFold(path.Ext(f.from.name), ".zip")
	if !jarName && len(descriptors) == 0 && (otherPackage || !classes) {
		return nil, err
	}
	j := jar{path: f.from.path, name: f.from.name, descriptors: descriptors, manifest: jarManifest(f)}
	own, id := j.identity()
	var self *pkg
	switch {
	case id.valid() && (jarName || own >= 0):
		self = out.add("maven", id.group, id.artifact, id.version)
	case f.from.nested && classes && !otherPackage:
		if self, err = unnamedJar(f, &out); err != nil {
			return nil, err
		}
	}
	if self != nil {
		if err := describeJar(f, self, &j, own); err != nil {
			return nil, err
		}
	}
	for i := range descriptors {
		if i == own {
			continue
		}
		d := &descriptors[i]
		shaded := out.add("maven", d.group, d.artifact, d.version)
		shaded.path = d.path
		d.describe(shaded)
		if self != nil {
			self.dependOn(shaded.PURL)
		}
	}
	return out.done()
}

// unnamedJar is for code that nothing names: it is called what its file is, and told from
// others of that name by its digest.
func unnamedJar(f *file, out *findings) (*pkg, error) {
	sums, err := f.from.sums()
	if err != nil {
		return nil, err
	}
	return out.add("generic", "", f.from.name, "", "checksum", "sha256:"+sums[1].Value), nil
}

// describeJar adds what is known of the jar's own package beside its name.
func describeJar(f *file, self *pkg, j *jar, own int) error {
	switch _, ext := cutExtension(strings.ToLower(j.name)); ext {
	case ".war", ".ear":
		self.Type = "application"
	}
	sums, err := f.from.sums()
	if err != nil {
		return err
	}
	self.Hashes = slices.Clone(sums)
	if own >= 0 {
		j.descriptors[own].describe(self)
	}
	if len(self.Licenses) == 0 {
		self.Licenses = j.manifest.licenses()
	}
	return nil
}

// describe adds licences and dependencies of the pom that a jar carries.
func (d *descriptor) describe(k *pkg) { k.Licenses, k.needs = d.licenses, d.needs }

// jarDescriptors reads META-INF/maven. A descriptor without literal coordinates is left
// out: what it describes is then named by the rest of the jar, or by nothing.
func jarDescriptors(ctx context.Context, f *file) ([]descriptor, error) {
	const dir = "META-INF/maven"
	var found []descriptor
	groups, err := fs.ReadDir(f.tree, dir)
	if err != nil {
		return nil, nil //nolint:nilerr // there is none
	}
	for _, group := range groups {
		artifacts, err := fs.ReadDir(f.tree, path.Join(dir, group.Name()))
		if err != nil {
			continue // a file where a folder is expected
		}
		for _, artifact := range artifacts {
			if err := ctx.Err(); err != nil {
				return found, err
			}
			if len(found) == maxDescriptors {
				return found, errTooLarge
			}
			d, err := readDescriptor(f, path.Join(dir, group.Name(), artifact.Name()))
			if err != nil {
				return found, err
			}
			if d.valid() {
				found = append(found, d)
			}
		}
	}
	return found, nil
}

// readDescriptor reads one folder: pom.properties first, which has the coordinates as they
// were built, then pom.xml, then the names of the folders.
func readDescriptor(f *file, dir string) (descriptor, error) {
	d := descriptor{path: path.Join(dir, "pom.properties")}
	data, err := f.sibling(d.path)
	switch {
	case err == nil:
		d.mavenID = propertiesID(data)
	case errors.Is(err, fs.ErrNotExist):
		d.path = path.Join(dir, "pom.xml")
	default:
		return d, err
	}
	if data, err := f.sibling(path.Join(dir, "pom.xml")); err == nil {
		// A pom that cannot be read costs its licences, not the coordinates beside it.
		if pom, err := parsePOM(data); err == nil {
			d.licenses, d.needs = pom.licenses(), pom.needs()
			if !d.valid() {
				d.mavenID = pom.id()
			}
		}
	}
	if !d.valid() && d.version != "" {
		d.group, d.artifact = path.Base(path.Dir(dir)), path.Base(dir)
	}
	return d, nil
}

// propertiesID reads a pom.properties.
func propertiesID(data []byte) mavenID {
	var id mavenID
	for line := range bytes.Lines(data) {
		key, value, ok := strings.Cut(string(bytes.TrimSpace(line)), "=")
		if !ok {
			continue
		}
		value = strings.ReplaceAll(strings.TrimSpace(value), `\`, "") // \: and \= of the format
		switch strings.TrimSpace(key) {
		case "groupId":
			id.group = value
		case "artifactId":
			id.artifact = value
		case "version":
			id.version = value
		}
	}
	return id
}

// wantsExploded is the descriptor of a jar that was unpacked.
func wantsExploded(p string) bool {
	if path.Base(p) != "pom.properties" {
		return false
	}
	parts := strings.Split(p, "/")
	n := len(parts)
	return n >= 5 && parts[n-5] == "META-INF" && parts[n-4] == "maven"
}

// readExploded reads one descriptor outside of a jar, or deep inside of it.
func readExploded(_ context.Context, f *file) ([]*pkg, error) {
	if f.from.format == "zip" && strings.HasPrefix(f.path, "META-INF/") {
		return nil, nil // readJar has it, or has left it out
	}
	d, err := readDescriptor(f, path.Dir(f.path))
	if err != nil || !d.valid() {
		return nil, err
	}
	var out findings
	d.describe(out.add("maven", d.group, d.artifact, d.version))
	return out.done()
}

// resolveMaven turns "group:artifact:version" into edges among what one tree holds. Maven
// decides for one version of each package, not always the one a pom asks for, so another
// does: the one beside the package that asks, or the only one.
func resolveMaven(found []*pkg) {
	index := newMavenIndex(found)
	for _, k := range found {
		for _, need := range k.needs {
			k.dependOn(index.choose(k, need))
		}
		k.needs = nil
	}
}

// mavenIndex finds packages by "group:artifact".
type mavenIndex struct {
	exact  map[string]string // with ":version"
	only   map[string]string // "" where there are several
	beside map[string]string // after a folder and ":"
}

func newMavenIndex(found []*pkg) *mavenIndex {
	x := &mavenIndex{exact: map[string]string{}, only: map[string]string{}, beside: map[string]string{}}
	for _, k := range found {
		name := k.Group + ":" + k.Name
		x.exact[name+":"+k.Version] = k.PURL
		if other, there := x.only[name]; there && other != k.PURL {
			x.only[name] = ""
		} else {
			x.only[name] = k.PURL
		}
		if at := path.Dir(k.path) + ":" + name; x.beside[at] == "" {
			x.beside[at] = k.PURL
		}
	}
	return x
}

func (x *mavenIndex) choose(k *pkg, need string) string {
	if purl := x.exact[need]; purl != "" {
		return purl
	}
	parts := strings.SplitN(need, ":", 3)
	if len(parts) < 2 {
		return ""
	}
	name := parts[0] + ":" + parts[1]
	if purl := x.beside[path.Dir(k.path)+":"+name]; purl != "" {
		return purl
	}
	if purl, there := x.only[name]; there || len(parts) < 3 {
		return purl
	}
	// It may be in another tree, such as the next jar of a war. Where it is in none, the
	// merger drops the edge.
	purl, err := sbom.NewPURL("maven", parts[0], parts[1], parts[2])
	if err != nil {
		return ""
	}
	return purl
}
