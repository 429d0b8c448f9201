package scan

import (
	"bytes"
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"
)

// maxManifest bounds the main section of a manifest, which is all that is read of it: a
// signed jar has a section for each of its files after that.
const maxManifest = 1 << 20

// jar is what names a jar.
type jar struct {
	path, name  string
	descriptors []descriptor
	manifest    manifest
}

// identity finds the package that a jar is, and its descriptor among those inside (-1:
// it has none). Nothing in the format says which one it is, and a jar that was not built
// by Maven has none, so names are weighed, the surest first:
//
//  1. the folders of a Maven repository or of Gradle's cache around it;
//  2. a descriptor that has the name of the file, or that of the manifest;
//  3. a descriptor that is alone, unless the manifest or the file has another version;
//  4. the manifest together with the file's name.
func (j *jar) identity() (own int, id mavenID) {
	place := repositoryPlace(j.path)
	if i := slices.IndexFunc(j.descriptors, func(d descriptor) bool { return d.liesAt(j.path, place) }); i >= 0 {
		return i, j.descriptors[i].mavenID
	}
	if place.valid() {
		return -1, place
	}
	if i := j.ownDescriptor(); i >= 0 {
		return i, j.descriptors[i].mavenID
	}
	return -1, j.guess()
}

// liesAt: the folders around a jar are those of the descriptor, wherever the repository
// begins.
func (d *descriptor) liesAt(at string, place mavenID) bool {
	if place.artifact != d.artifact {
		return false
	}
	folders := strings.ReplaceAll(d.group, ".", "/") + "/" + d.artifact + "/" + place.version
	return place.group == d.group || strings.HasSuffix("/"+path.Dir(at), "/"+folders)
}

// ownDescriptor is the descriptor with the best evidence, or -1.
func (j *jar) ownDescriptor() int {
	stem, _ := cutExtension(j.name)
	names := j.names(stem)
	best, bestScore, tied, withEvidence := -1, 0, false, 0
	for i := range j.descriptors {
		score := j.score(&j.descriptors[i], names)
		if score > 0 {
			withEvidence++
		}
		switch {
		case score > bestScore:
			best, bestScore, tied = i, score, false
		case score == bestScore && best >= 0 && score > 0:
			// Of two that fit, the longer name says more: wagon-http and
			// wagon-http-shared in wagon-http-shared-3.5.jar.
			if a, b := len(j.descriptors[i].artifact), len(j.descriptors[best].artifact); a > b {
				best, tied = i, false
			} else if a == b {
				tied = true
			}
		}
	}
	if !tied && (bestScore >= minEvidence || withEvidence == 1) {
		return best
	}
	if len(j.descriptors) == 1 && !j.contradicts(&j.descriptors[0], stem) {
		return 0
	}
	return -1
}

// minEvidence is more than versions alone give, which shaded packages share by chance.
const minEvidence = 3

// jarNames are what a jar is called, by its file and by its manifest, in plain form.
type jarNames struct {
	stem, file, version string
	titles              [5]string
}

func (j *jar) names(stem string) *jarNames {
	artifact, version := splitJarName(stem)
	n := &jarNames{stem: plainName(stem), file: plainName(artifact), version: version}
	for i, key := range [...]string{"implementation-title", "bundle-name", "specification-title", "bundle-symbolicname", "automatic-module-name"} {
		n.titles[i] = plainName(j.manifest.value(key))
	}
	return n
}

func (j *jar) score(d *descriptor, n *jarNames) int {
	name := plainName(d.artifact)
	score := 0
	switch {
	case n.file == name || n.stem == name:
		score = 8
	case strings.HasPrefix(n.file, name+"-"):
		score = 5
	case strings.HasSuffix(name, "-"+n.file):
		score = 4
	}
	group, full := plainName(d.group), plainName(d.group+"."+d.artifact)
	for _, title := range n.titles {
		if title == name || title == full || (title == group && strings.HasPrefix(n.file, name)) {
			score += 3
			break
		}
	}
	if n.version == d.version {
		score++
	}
	if sameVersion(j.manifest.version(), d.version) {
		score++
	}
	// The version of the manifest, and a group that its names begin with.
	if score == 1 && strings.HasPrefix(j.manifest.value("bundle-symbolicname"), d.group) {
		score = minEvidence
	}
	return score
}

// contradicts: the file or the manifest is of another version than its only descriptor,
// which was shaded in.
func (j *jar) contradicts(d *descriptor, stem string) bool {
	_, fileVersion := splitJarName(stem)
	for _, v := range [...]string{fileVersion, j.manifest.version()} {
		if v != "" && !sameVersion(v, d.version) {
			return true
		}
	}
	return false
}

// guess names a jar without a descriptor by its manifest and the name of its file.
func (j *jar) guess() mavenID {
	stem, ext := cutExtension(j.name)
	if ext == ".hpi" || ext == ".jpi" { // plugins of Jenkins say it all
		return mavenID{j.manifest.value("group-id"), cmp.Or(j.manifest.value("short-name"), stem), j.manifest.value("plugin-version")}
	}
	artifact, version := splitJarName(stem)
	group := j.manifest.group(artifact)
	if version == "" {
		// A file without a version is named as somebody liked; only a manifest with a
		// name in the form of a group makes it a package.
		if version = j.manifest.version(); group == "" {
			return mavenID{}
		}
	}
	if !strings.EqualFold(ext, ".jar") && !strings.EqualFold(ext, ".aar") && group == "" {
		return mavenID{}
	}
	id := mavenID{group, artifact, version}
	if known := knownGroup(artifact); known != "" {
		id.group = known
	}
	if id.group == "" {
		id.group = groupOfName(artifact)
	}
	return id
}

// groupOfName: a name with dots begins with its group; one without has it for its group,
// as packages had before Maven asked for domain names (junit:junit).
func groupOfName(artifact string) string {
	if i := strings.LastIndexByte(artifact, '.'); i > 0 {
		if strings.Count(artifact, ".") == 1 {
			return artifact // javax.inject:javax.inject
		}
		return artifact[:i]
	}
	return artifact
}

// splitJarName parts "guava-31.1-jre" into artifact and version; "" where there is none.
// A name may hold digits (log4j-1.2-api-2.17.1), a version words (31.1-jre), and a
// classifier may follow (4.2.3-no_aop).
func splitJarName(stem string) (artifact, version string) {
	var cuts []int
	for i := 1; i+1 < len(stem); i++ {
		if stem[i] == '-' && isDigit(stem[i+1]) {
			cuts = append(cuts, i)
		}
	}
	for _, i := range cuts {
		if versionLike(stem[i+1:]) {
			return stem[:i], stem[i+1:]
		}
	}
	if len(cuts) == 0 {
		return stem, ""
	}
	last := cuts[len(cuts)-1]
	version, _, _ = strings.Cut(stem[last+1:], "-")
	return stem[:last], version
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// versionLike: each part between dashes is a number or a word of versions.
func versionLike(s string) bool {
	for part := range strings.SplitSeq(s, "-") {
		if part == "" || (!isDigit(part[0]) && !versionWord.MatchString(part)) {
			return false
		}
	}
	return true
}

var versionWord = regexp.MustCompile(`(?i)^(?:alpha|beta|b|m|milestone|rc|cr|pre|preview|ea|dev|build|rev|r|v|final|release|ga|sp|snapshot|jre|jdk|java|android|incubating|redhat|hadoop|scala|spark)[\d.+]*$`)

// plainName makes names comparable that differ by their separators.
func plainName(s string) string {
	s, _, _ = strings.Cut(s, ";") // directives of OSGi
	return strings.Map(func(r rune) rune {
		switch r {
		case '.', '_', ' ', ':':
			return '-'
		}
		return r
	}, strings.ToLower(strings.TrimSpace(s)))
}

// sameVersion compares the numbers that versions begin with: OSGi writes 31.1.0.jre for
// what Maven calls 31.1-jre.
func sameVersion(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	return a == b || leadingNumbers(a) == leadingNumbers(b)
}

func leadingNumbers(v string) string {
	end := strings.IndexFunc(v, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end >= 0 {
		v = v[:end]
	}
	v = strings.TrimRight(v, ".")
	for strings.HasSuffix(v, ".0") {
		v = strings.TrimSuffix(v, ".0")
	}
	return v
}

// repositoryPlace reads the coordinates from where a jar lies: GROUP/AS/FOLDERS/ARTIFACT/
// VERSION/ARTIFACT-VERSION.jar in a Maven repository, GROUP/ARTIFACT/VERSION/SHA1/file in
// Gradle's cache.
func repositoryPlace(p string) mavenID {
	dirs := strings.Split(path.Dir(p), "/")
	stem, _ := cutExtension(path.Base(p))
	if i := slices.Index(dirs, "files-2.1"); i >= 0 && len(dirs) == i+5 {
		return mavenID{dirs[i+1], dirs[i+2], dirs[i+3]}
	}
	n := len(dirs)
	if n < 3 {
		return mavenID{}
	}
	artifact, version := dirs[n-2], dirs[n-1]
	rest, ok := strings.CutPrefix(stem, artifact+"-")
	if !ok || !isDigitOrV(version) || !strings.HasPrefix(rest, strings.TrimSuffix(version, "-SNAPSHOT")) {
		return mavenID{}
	}
	return mavenID{repositoryGroup(dirs[:n-2]), artifact, version}
}

func isDigitOrV(s string) bool {
	return s != "" && (isDigit(s[0]) || (len(s) > 1 && (s[0] == 'v' || s[0] == 'r') && isDigit(s[1])))
}

// repositoryGroup takes the folders of a group from those of a path: what follows the
// name of a repository, or begins like a domain.
func repositoryGroup(dirs []string) string {
	isRepository := func(dir string) bool {
		switch dir {
		case "repository", "maven-repo", "m2", ".m2", "maven2", "maven-repository", "repo1":
			return true
		}
		return false
	}
	if i := slices.IndexFunc(dirs, isRepository); i >= 0 {
		for i < len(dirs) && isRepository(dirs[i]) {
			i++
		}
		return strings.Join(dirs[i:], ".")
	}
	for i, dir := range dirs {
		switch dir {
		case "com", "org", "net", "io", "dev", "edu", "gov", "de", "fr", "uk", "ch", "nl", "se", "javax", "jakarta":
			return strings.Join(dirs[i:], ".")
		}
	}
	return ""
}

// manifest is the main section of a META-INF/MANIFEST.MF, by lower-case name.
type manifest map[string]string

func jarManifest(f *file) manifest {
	data, err := f.sibling("META-INF/MANIFEST.MF")
	if err != nil {
		return nil
	}
	return parseManifest(data[:min(len(data), maxManifest)])
}

// parseManifest follows the JAR specification: lines are cut at 72 bytes and go on after
// one space; an empty line ends the section. Of a name that is there twice, the first counts.
func parseManifest(data []byte) manifest {
	m := manifest{}
	var name string
	var value []byte
	keep := func() {
		if name != "" && m[name] == "" {
			m[name] = strings.TrimSpace(string(value))
		}
		name, value = "", nil
	}
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			if len(m) > 0 || name != "" {
				break
			}
			continue
		}
		if line[0] == ' ' {
			value = append(value, line[1:]...)
			continue
		}
		keep()
		if key, rest, ok := bytes.Cut(line, []byte(":")); ok {
			name, value = strings.ToLower(string(bytes.TrimSpace(key))), bytes.Clone(rest)
		}
	}
	keep()
	return m
}

func (m manifest) value(key string) string { return m[key] }

// version of what is in the jar. Specification-Version is of the interface it implements.
func (m manifest) version() string {
	for _, key := range [...]string{"implementation-version", "bundle-version", "plugin-version"} {
		// Some add a build number or a date.
		if v, _, _ := strings.Cut(m.value(key), " "); v != "" && !strings.ContainsAny(v, "${}") {
			return v
		}
	}
	return ""
}

// group is the first name in the form of a group, without the end that is the artifact's.
func (m manifest) group(artifact string) string {
	for _, key := range [...]string{"implementation-vendor-id", "bundle-symbolicname", "automatic-module-name", "extension-name", "implementation-title"} {
		name, _, _ := strings.Cut(m.value(key), ";")
		name, _, _ = strings.Cut(name, "#") // org.elasticsearch#server
		if groupForm.MatchString(name) {
			return groupOfSymbolic(name, plainName(artifact))
		}
	}
	return ""
}

// groupOfSymbolic undoes what the bundle plugin of Maven makes of coordinates: group and
// artifact joined by a dot, without what both have (io.netty and netty-buffer become
// io.netty.buffer, com.google.guava and guava com.google.guava).
func groupOfSymbolic(name, artifact string) string {
	if plainName(name) == artifact {
		return groupOfName(name)
	}
	i := strings.LastIndexByte(name, '.')
	head, last := name[:i], plainName(name[i+1:])
	depth := strings.Count(head, ".") + 1
	shared := plainName(head[strings.LastIndexByte(head, '.')+1:])
	switch {
	case artifact == last && depth < 3:
		return name
	case artifact == last, artifact == shared+"-"+last, strings.HasSuffix(artifact, "-"+last) && depth > 1:
		return head
	}
	return name
}

var groupForm = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-zA-Z0-9_-]+)+$`)

// licenses of an OSGi Bundle-License: names or addresses with attributes, separated by commas.
func (m manifest) licenses() []string {
	var names []string
	for part := range strings.SplitSeq(m.value("bundle-license"), ",") {
		name, attributes, _ := strings.Cut(part, ";")
		name = strings.Trim(strings.TrimSpace(name), `"`)
		if name == "" || strings.EqualFold(name, "<<EXTERNAL>>") {
			_, link, _ := strings.Cut(attributes, "link=")
			name = strings.Trim(strings.TrimSpace(link), `"`)
		}
		names = append(names, name)
	}
	return anyLicense(names)
}
