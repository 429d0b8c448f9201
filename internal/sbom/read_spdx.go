package sbom

import (
	"io"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/refusal"
)

// maxExtracted bounds what is remembered of licences that a document defines itself.
const maxExtracted = 10_000

// spdxAbout is what must be known of an SPDX document before its packages can be read.
type spdxAbout struct {
	version   string
	namespace string
	name      string
	hashes    []Hash
	describes []string          // SPDXIDs
	extracted map[string]string // LicenseRef → what the package said
}

func (a *spdxAbout) header() Header {
	return Header{
		Format: FormatSPDX, SpecVersion: strings.TrimPrefix(a.version, "SPDX-"), Serial: a.namespace,
		Name: a.name, Hashes: a.hashes, Aggregate: AggregateUnknown,
	}
}

// subject is the one package that the document is about; "" where it names several,
// which are then its components.
func (a *spdxAbout) subject() string {
	if len(a.describes) == 1 {
		return a.describes[0]
	}
	return ""
}

// readSPDX reads a document in two passes.
func readSPDX(again func() (io.Reader, error), f func(Component) error) (Header, error) {
	reader, err := again()
	if err != nil {
		return Header{}, err
	}
	about, err := readSPDXHeader(reader)
	if err != nil {
		return Header{}, err
	}
	if reader, err = again(); err != nil {
		return Header{}, err
	}
	err = readSPDXPackages(reader, about, f)
	return about.header(), err
}

// readSPDXHeader is the first pass: everything but the packages.
func readSPDXHeader(reader io.Reader) (*spdxAbout, error) {
	d, a := newDocument(reader), &spdxAbout{extracted: map[string]string{}}
	err := d.object(func(name string) error {
		switch name {
		case "spdxVersion":
			return d.text(&a.version)
		case "documentNamespace":
			return d.text(&a.namespace)
		case "documentDescribes":
			return d.strings(&a.describes, MaxComponents)
		case "relationships":
			return d.array(func() error { return d.describes(a) })
		case "hasExtractedLicensingInfos":
			return d.array(func() error { return d.extracted(a) })
		}
		return d.skip()
	})
	if err == nil {
		err = d.end()
	}
	if err != nil {
		return nil, err
	}
	if a.version != "SPDX-2.2" && a.version != "SPDX-2.3" {
		return nil, refusal.New(CodeDocumentInvalid, "spdxVersion %.40q: want SPDX-2.2 or SPDX-2.3", a.version)
	}
	a.describes = sortUnique(a.describes)
	return a, nil
}

// describes notes a relationship by which the document says what it is about.
func (d *document) describes(a *spdxAbout) error {
	var from, kind, to string
	err := d.object(func(name string) error {
		switch name {
		case "spdxElementId":
			return d.text(&from)
		case "relationshipType":
			return d.text(&kind)
		case "relatedSpdxElement":
			return d.text(&to)
		}
		return d.skip()
	})
	if kind == "DESCRIBED_BY" {
		from, kind, to = to, "DESCRIBES", from
	}
	if kind == "DESCRIBES" && from == spdxDocumentID && len(a.describes) < 2*MaxComponents {
		a.describes = append(a.describes, to)
	}
	return err
}

// extracted notes the texts that WriteSPDX put behind references. References of others
// stay what they are: the name beside one is not what the package said.
func (d *document) extracted(a *spdxAbout) error {
	var id, text string
	err := d.object(func(member string) error {
		switch member {
		case "licenseId":
			return d.text(&id)
		case "extractedText":
			return d.text(&text)
		}
		return d.skip()
	})
	if strings.HasPrefix(id, textRefPrefix) && len(a.extracted) < maxExtracted {
		a.extracted[id] = cleanText(text)
	}
	return err
}

// readSPDXPackages is the second pass.
func readSPDXPackages(reader io.Reader, a *spdxAbout, f func(Component) error) error {
	d, count := newDocument(reader), 0
	return d.object(func(name string) error {
		if name != "packages" {
			return d.skip()
		}
		return d.array(func() error {
			if count++; count > MaxComponents+1 {
				return refusal.New(CodeDocumentInvalid, "more than %d packages", MaxComponents)
			}
			return d.readPackage(a, f)
		})
	})
}

// spdxPackage is what is read of a package before it is known to be a component.
type spdxPackage struct {
	Component
	id                  string
	declared, concluded string
}

func (d *document) readPackage(a *spdxAbout, f func(Component) error) error {
	var p spdxPackage
	if err := d.object(func(name string) error { return d.packageMember(&p, name) }); err != nil {
		return err
	}
	p.Licenses = a.licenses(p.declared)
	if len(p.Licenses) == 0 {
		p.Licenses = a.licenses(p.concluded)
	}
	if err := d.finish(&p.Component); err != nil {
		return err
	}
	if p.id != "" && p.id == a.subject() {
		a.name, a.hashes = p.Name, p.Hashes
		return nil
	}
	if u, err := ParsePURL(p.PURL); err == nil && p.Group == "" {
		p.Group = cleanText(u.Namespace)
	}
	return f(p.Component)
}

func (d *document) packageMember(p *spdxPackage, name string) error {
	switch name {
	case "SPDXID":
		return d.text(&p.id)
	case "name":
		return d.text(&p.Name)
	case "versionInfo":
		return d.text(&p.Version)
	case "licenseDeclared":
		return d.text(&p.declared)
	case "licenseConcluded":
		return d.text(&p.concluded)
	case "primaryPackagePurpose":
		err := d.text(&p.Type)
		p.Type = strings.ToLower(p.Type)
		return err
	case "checksums":
		return d.array(func() error { return d.checksum(&p.Component) })
	case "externalRefs":
		return d.array(func() error { return d.externalRef(&p.Component) })
	}
	return d.skip()
}

func (d *document) checksum(c *Component) error {
	var h Hash
	err := d.object(func(name string) error {
		switch name {
		case "algorithm":
			return d.text(&h.Algorithm)
		case "checksumValue":
			return d.text(&h.Value)
		}
		return d.skip()
	})
	// SPDX writes SHA256 where CycloneDX has SHA-256.
	if digits, ok := strings.CutPrefix(h.Algorithm, "SHA"); ok && !strings.HasPrefix(digits, "-") && !strings.HasPrefix(digits, "3-") {
		h.Algorithm = "SHA-" + digits
	}
	if len(c.Hashes) < MaxHashes {
		c.Hashes = append(c.Hashes, h)
	}
	return err
}

func (d *document) externalRef(c *Component) error {
	var kind, locator string
	err := d.object(func(name string) error {
		switch name {
		case "referenceType":
			return d.text(&kind)
		case "referenceLocator":
			return d.text(&locator)
		}
		return d.skip()
	})
	if kind == "purl" && c.PURL == "" {
		c.PURL = locator
	}
	return err
}

// licenses takes an expression apart as splitLicense does, and puts back the texts that
// have no place in one.
func (a *spdxAbout) licenses(expr string) []string {
	if saysNothing(expr) {
		return nil
	}
	normal, isSPDX := NormalizeLicense(expr)
	if !isSPDX {
		return []string{normal}
	}
	parts := splitLicense(normal)
	for i, part := range parts {
		if name := a.extracted[part]; name != "" {
			parts[i] = name
		}
	}
	return slices.DeleteFunc(parts, func(s string) bool { return s == "" })
}
