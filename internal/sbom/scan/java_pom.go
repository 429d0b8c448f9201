package scan

import (
	"cmp"
	"context"
	"encoding/xml"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// Bounds of one pom and of the chain of its parents.
const (
	maxPOM           = 8 << 20
	maxParents       = 8
	maxInterpolation = 16
)

// pomXML is what of a POM 4.0.0 matters here. Profiles are left out: which of them is
// active depends on the machine that builds.
type pomXML struct {
	GroupID    string          `xml:"groupId"`
	ArtifactID string          `xml:"artifactId"`
	Version    string          `xml:"version"`
	Parent     *pomParent      `xml:"parent"`
	Properties pomProperties   `xml:"properties"`
	Licenses   []pomLicense    `xml:"licenses>license"`
	Deps       []pomDependency `xml:"dependencies>dependency"`
	Managed    []pomDependency `xml:"dependencyManagement>dependencies>dependency"`

	// above is the parent's file, where it is in the tree.
	above *pomXML
}

// lineage is the pom, its parent, and so on.
func (p *pomXML) lineage() iter.Seq[*pomXML] {
	return func(yield func(*pomXML) bool) {
		for q, depth := p, 0; q != nil && depth <= maxParents; q, depth = q.above, depth+1 {
			if !yield(q) {
				return
			}
		}
	}
}

type pomParent struct {
	GroupID      string  `xml:"groupId"`
	ArtifactID   string  `xml:"artifactId"`
	Version      string  `xml:"version"`
	RelativePath *string `xml:"relativePath"`
}

type pomLicense struct {
	Name string `xml:"name"`
	URL  string `xml:"url"`
}

type pomDependency struct {
	GroupID    string `xml:"groupId"`
	ArtifactID string `xml:"artifactId"`
	Version    string `xml:"version"`
	Type       string `xml:"type"`
	Classifier string `xml:"classifier"`
	Scope      string `xml:"scope"`
	Optional   string `xml:"optional"`
}

// pomProperties are elements of any name.
type pomProperties map[string]string

func (p *pomProperties) UnmarshalXML(d *xml.Decoder, _ xml.StartElement) error {
	*p = pomProperties{}
	for {
		token, err := d.Token()
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.EndElement:
			return nil
		case xml.StartElement:
			var value struct {
				Text string `xml:",chardata"`
			}
			if err := d.DecodeElement(&value, &t); err != nil {
				return err
			}
			(*p)[t.Name.Local] = strings.TrimSpace(value.Text)
		}
	}
}

// parsePOM reads a pom as Maven does: with the entities of HTML, which old ones use.
func parsePOM(data []byte) (*pomXML, error) {
	if len(data) > maxPOM {
		return nil, errTooLarge
	}
	var p pomXML
	d := newXMLDecoder(data)
	d.Strict = false
	d.Entity = xml.HTMLEntity
	if err := d.Decode(&p); err != nil {
		return nil, err
	}
	return &p, nil
}

// id gives the coordinates, the parent's where the pom has none of its own.
func (p *pomXML) id() mavenID {
	id := mavenID{p.GroupID, p.ArtifactID, p.Version}
	if p.Parent != nil {
		id.group, id.version = cmp.Or(id.group, p.Parent.GroupID), cmp.Or(id.version, p.Parent.Version)
	}
	for _, s := range [...]*string{&id.group, &id.artifact, &id.version} {
		*s = p.expand(strings.TrimSpace(*s))
	}
	// Debian gives packages the version "debian" in its repository, and says here
	// what was built.
	if original := p.Properties["debian.originalVersion"]; original != "" {
		id.version = original
	}
	return id
}

// expand replaces ${…}. What cannot be replaced stays, which makes no valid coordinate.
func (p *pomXML) expand(s string) string {
	for range maxInterpolation {
		start := strings.Index(s, "${")
		if start < 0 {
			return s
		}
		length := strings.IndexByte(s[start:], '}')
		if length < 0 {
			return s
		}
		value, ok := p.property(s[start+2 : start+length])
		if !ok || len(s)+len(value) > sbom.MaxTextBytes {
			return s
		}
		s = s[:start] + value + s[start+length+1:]
	}
	return s
}

func (p *pomXML) property(name string) (string, bool) {
	field, isProject := strings.CutPrefix(name, "project.")
	if !isProject {
		field, isProject = strings.CutPrefix(name, "pom.")
	}
	if isProject || name == "version" || name == "groupId" || name == "artifactId" {
		if value := p.field(field); value != "" {
			return value, true
		}
	}
	for q := range p.lineage() {
		if value, ok := q.Properties[name]; ok {
			return value, true
		}
	}
	return "", false
}

func (p *pomXML) field(name string) string {
	parent := p.Parent
	if parent == nil {
		parent = &pomParent{}
	}
	switch name {
	case "groupId":
		return cmp.Or(p.GroupID, parent.GroupID)
	case "version":
		return cmp.Or(p.Version, parent.Version)
	case "artifactId":
		return p.ArtifactID
	case "parent.groupId":
		return parent.GroupID
	case "parent.version":
		return parent.Version
	case "parent.artifactId":
		return parent.ArtifactID
	}
	return ""
}

// licenses of the pom, or of the nearest parent that has some. Of several, Maven says,
// the user may choose.
func (p *pomXML) licenses() []string {
	for q := range p.lineage() {
		var names []string
		for _, l := range q.Licenses {
			names = append(names, l.name())
		}
		if len(names) > 0 {
			return anyLicense(names)
		}
	}
	return nil
}

// name prefers what makes an SPDX expression: the name is free text, and the address often
// says more.
func (l pomLicense) name() string {
	if _, ok := sbom.NormalizeLicense(l.Name); !ok {
		if _, ok := sbom.NormalizeLicense(l.URL); ok {
			return strings.TrimSpace(l.URL)
		}
	}
	return cmp.Or(strings.TrimSpace(l.Name), strings.TrimSpace(l.URL))
}

// wantsPOM is the pom of a project, but not that which a jar carries, nor a template.
func wantsPOM(p string) bool {
	if path.Base(p) != "pom.xml" {
		return false
	}
	return !strings.Contains("/"+p, "/META-INF/maven/") && !strings.Contains("/"+p, "/archetype-resources/")
}

// readPOM reads the pom of a project: the project, and its own dependencies. What they
// depend on in turn, and versions that come from poms elsewhere, are not in the file.
func readPOM(_ context.Context, f *file) ([]*pkg, error) {
	p, err := loadPOM(f, f.path)
	if err != nil {
		return nil, err
	}
	var out findings
	var project *pkg
	if id := p.id(); id.valid() {
		project = out.add("maven", id.group, id.artifact, id.version)
		project.Type, project.direct, project.Licenses = "application", true, p.licenses()
	}
	for _, d := range p.dependencies() {
		if !d.valid() {
			out.fail(fmt.Errorf("%w: the version of %.80s:%.80s is not in the tree", errUnsupported, d.group, d.artifact))
			continue
		}
		k := out.add("maven", d.group, d.artifact, d.version)
		k.Scope = d.scope
		if project == nil {
			k.direct = true
		} else {
			project.dependOn(k.PURL)
		}
	}
	return out.done()
}

// loadPOM reads a pom of the tree and, up to the limit, its parents.
func loadPOM(f *file, at string) (*pomXML, error) {
	child, err := readPOMFile(f, at)
	if err != nil {
		return nil, err
	}
	p := child
	for range maxParents {
		if p.Parent == nil {
			break
		}
		if p.above, at = p.findParent(f, at); p.above == nil {
			break
		}
		p = p.above
	}
	return child, nil
}

// findParent reads the parent of the pom at a path, and tells where it is; nil where it
// is not in the tree.
func (p *pomXML) findParent(f *file, at string) (*pomXML, string) {
	for _, candidate := range p.parentPaths(at) {
		if above, err := readPOMFile(f, candidate); err == nil && above.ArtifactID == p.Parent.ArtifactID {
			return above, candidate
		}
	}
	return nil, ""
}

func readPOMFile(f *file, at string) (*pomXML, error) {
	data, err := f.sibling(at)
	if err != nil {
		return nil, err
	}
	return parsePOM(data)
}

// parentPaths is where the parent may lie: where the pom says, ../pom.xml by default, and
// in a repository under its own coordinates.
func (p *pomXML) parentPaths(at string) []string {
	var candidates []string
	relative := "../pom.xml"
	if r := p.Parent.RelativePath; r != nil {
		relative = strings.TrimSpace(*r)
	}
	if relative != "" {
		if !strings.HasSuffix(relative, ".xml") {
			relative += "/pom.xml"
		}
		candidates = append(candidates, path.Join(path.Dir(at), relative))
	}
	if group := strings.ReplaceAll(p.GroupID, ".", "/"); group == "" || strings.Contains(at, group+"/") {
		parent := p.Parent
		root := at
		for range strings.Count(cmp.Or(group, strings.ReplaceAll(parent.GroupID, ".", "/")), "/") + 4 {
			root = path.Dir(root)
		}
		candidates = append(candidates, path.Join(root, strings.ReplaceAll(parent.GroupID, ".", "/"), parent.ArtifactID, parent.Version,
			parent.ArtifactID+"-"+parent.Version+".pom"))
	}
	return slices.DeleteFunc(candidates, func(c string) bool { return !fs.ValidPath(c) || c == at })
}

// wantsRepositoryPOM is a pom of a repository: ARTIFACT/VERSION/ARTIFACT-VERSION.pom.
func wantsRepositoryPOM(p string) bool {
	if path.Ext(p) != ".pom" {
		return false
	}
	version := path.Dir(p)
	return path.Base(p) == path.Base(path.Dir(version))+"-"+path.Base(version)+".pom"
}

// readRepositoryPOM describes a package of a repository whose jar is there too. A pom
// alone is only metadata: of a parent, or of what a build once looked at.
func readRepositoryPOM(_ context.Context, f *file) ([]*pkg, error) {
	stem := strings.TrimSuffix(f.path, ".pom")
	if !slices.ContainsFunc([]string{".jar", ".war", ".aar"}, func(ext string) bool { return isRegular(f.tree, stem+ext) }) {
		return nil, nil
	}
	p, err := loadPOM(f, f.path)
	if err != nil {
		return nil, err
	}
	id := p.id()
	if !id.valid() {
		return nil, nil
	}
	var out findings
	k := out.add("maven", id.group, id.artifact, id.version)
	k.Licenses, k.needs = p.licenses(), p.needs()
	return out.done()
}

func isRegular(tree fs.FS, p string) bool {
	info, err := fs.Stat(tree, p)
	return err == nil && info.Mode().IsRegular()
}
