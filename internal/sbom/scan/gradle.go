package scan

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"path"
	"slices"
	"strings"
)

func gradleReaders() []reader {
	return []reader{
		{name: "java/gradle-lockfile", wants: named("gradle.lockfile", "buildscript-gradle.lockfile"), read: readGradleLock},
		{name: "java/gradle-verification", wants: wantsVerification, read: readVerification},
	}
}

// readGradleLock reads the locks of Gradle: a line "group:name:version=configuration,…"
// for each package. The lock has no edges.
func readGradleLock(_ context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	var out findings
	// The classpath of the build script is what builds, not what is built.
	buildOnly := path.Base(f.path) == "buildscript-gradle.lockfile"
	for raw := range bytes.Lines(data) {
		line := strings.TrimSpace(string(raw))
		if line == "" || line[0] == '#' || strings.HasPrefix(line, "empty=") {
			continue
		}
		coordinates, configurations, _ := strings.Cut(line, "=")
		parts := strings.Split(coordinates, ":")
		if len(parts) != 3 || slices.Contains(parts, "") {
			out.fail(errors.New("a line without group, name and version"))
			continue
		}
		k := out.add("maven", parts[0], parts[1], parts[2])
		k.Scope = gradleScope(configurations)
		if buildOnly {
			k.Scope = scopeExcluded
		}
	}
	return out.done()
}

// gradleScope looks at the configurations that a package is in: those of tests and of
// annotation processors are not part of what runs. Their names are conventions of
// Gradle's plugins; one that is not known says nothing.
func gradleScope(configurations string) string {
	if configurations == "" {
		return ""
	}
	known := true
	for c := range strings.SplitSeq(configurations, ",") {
		c = strings.ToLower(strings.TrimSpace(c))
		switch {
		case strings.HasPrefix(c, "test"), strings.HasSuffix(c, "annotationprocessor"), strings.Contains(c, "testcompileclasspath"),
			strings.Contains(c, "testruntimeclasspath"), c == "developmentonly", c == "kotlincompilerclasspath", c == "checkstyle", c == "jacocoagent", c == "jacocoant":
		case strings.HasSuffix(c, "runtimeclasspath"):
			return scopeRequired
		default:
			known = false
		}
	}
	if known {
		return scopeExcluded
	}
	return ""
}

func wantsVerification(p string) bool {
	return path.Base(p) == "verification-metadata.xml" || path.Base(p) == "verification-metadata.dryrun.xml"
}

// verificationXML is Gradle's dependency verification metadata 1.x.
type verificationXML struct {
	XMLName    xml.Name `xml:"verification-metadata"`
	Components []struct {
		Group     string `xml:"group,attr"`
		Name      string `xml:"name,attr"`
		Version   string `xml:"version,attr"`
		Artifacts []struct {
			Name   string      `xml:"name,attr"`
			SHA1   []valueAttr `xml:"sha1"`
			SHA256 []valueAttr `xml:"sha256"`
			SHA512 []valueAttr `xml:"sha512"`
		} `xml:"artifact"`
	} `xml:"components>component"`
}

type valueAttr struct {
	Value string `xml:"value,attr"`
}

// readVerification reads the digests that a build accepts. It names plugins of the build
// too, so what it lists has no scope; what it lists only the metadata of is no package.
func readVerification(_ context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	var doc verificationXML
	if err := newXMLDecoder(data).Decode(&doc); err != nil {
		return nil, err
	}
	var out findings
	for _, c := range doc.Components {
		if c.Group == "" || c.Name == "" || c.Version == "" {
			out.fail(errors.New("a component without group, name or version"))
			continue
		}
		var k *pkg
		for _, a := range c.Artifacts {
			switch path.Ext(a.Name) {
			case ".pom", ".module", ".xml", ".asc":
				continue
			}
			if k == nil {
				k = out.add("maven", c.Group, c.Name, c.Version)
			}
			// A component may have jars for several platforms. Only that without a
			// classifier is the package's own.
			if a.Name != c.Name+"-"+c.Version+path.Ext(a.Name) {
				continue
			}
			// Several values are alternatives, of which none is known to be the one.
			for _, h := range [...]struct {
				algorithm string
				values    []valueAttr
			}{{"sha1", a.SHA1}, {"sha256", a.SHA256}, {"sha512", a.SHA512}} {
				if len(h.values) == 1 {
					k.hash(h.algorithm, h.values[0].Value)
				}
			}
		}
	}
	return out.done()
}
