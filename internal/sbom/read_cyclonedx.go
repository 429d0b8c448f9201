package sbom

import (
	"errors"
	"slices"

	"github.com/assay-build/assay/internal/refusal"
)

// errIsSPDX: the reader of CycloneDX met an SPDX document.
var errIsSPDX = errors.New("an SPDX document")

// maxAssemblies bounds what is remembered of compositions: they may stand before the
// component that they are about.
const maxAssemblies = 100_000

// cycloneDX reads one document.
type cycloneDX struct {
	*document
	header       Header
	component    func(ref string, c Component) error
	dependency   func(ref string, dependsOn []string) error // nil: not asked for
	kept         *recorder                                  // nil: nothing needs to be kept
	format       string                                     // bomFormat
	rootRef      string
	compositions []composition
	assemblies   int
	incomplete   []string
	depth, count int
	sure         bool // that it is no SPDX document
}

type composition struct {
	aggregate  string
	assemblies []string
}

// read reads the document in one pass. It returns errIsSPDX, with nothing handed out,
// as soon as it sees that it is one.
func (r *cycloneDX) read() (Header, error) {
	if err := r.object(r.member); err != nil {
		return Header{}, err
	}
	if err := r.end(); err != nil {
		return Header{}, err
	}
	if r.format != "CycloneDX" || !slices.Contains([]string{"1.4", "1.5", "1.6", "1.7"}, r.header.SpecVersion) {
		return Header{}, refusal.New(CodeDocumentInvalid, "bomFormat %.40q, specVersion %.40q: want CycloneDX 1.4 to 1.7, or SPDX 2.2 or 2.3",
			r.format, r.header.SpecVersion)
	}
	r.header.Format = FormatCycloneDX
	r.header.Aggregate = r.aggregate()
	r.header.Incomplete = incompleteCodes(r.incomplete)
	return r.header, nil
}

func (r *cycloneDX) member(name string) error {
	switch name {
	case "bomFormat", "specVersion", "metadata", "components", "dependencies", "compositions":
		r.kept.stop()
		r.sure = true
	}
	switch name {
	case "bomFormat":
		return r.text(&r.format)
	case "specVersion":
		return r.text(&r.header.SpecVersion)
	case "serialNumber":
		return r.text(&r.header.Serial)
	case "metadata":
		return r.object(r.metadata)
	case "components":
		return r.array(r.readComponent)
	case "dependencies":
		if r.dependency != nil {
			return r.array(r.readDependency)
		}
	case "compositions":
		return r.array(r.readComposition)
	case "spdxVersion", "SPDXID", "packages", "documentNamespace", "creationInfo", "documentDescribes":
		if !r.sure {
			return errIsSPDX
		}
	}
	return r.skip()
}

func (r *cycloneDX) metadata(name string) error {
	switch name {
	case "component":
		var about Component
		err := r.object(func(name string) error {
			if name == "bom-ref" {
				return r.text(&r.rootRef)
			}
			if name == "components" {
				return r.array(r.readComponent)
			}
			return r.componentMember(&about, name)
		})
		about.clean()
		r.header.Name, r.header.Hashes = about.Name, about.Hashes
		return err
	case "properties":
		return r.array(func() error {
			var key, value string
			err := r.object(func(name string) error {
				switch name {
				case "name":
					return r.text(&key)
				case "value":
					return r.text(&value)
				}
				return r.skip()
			})
			switch key {
			case propertyFormat:
				r.header.ArtifactFormat = oneLine(value, maxDetailBytes)
			case propertyIncomplete:
				if len(r.incomplete) < MaxReasons {
					r.incomplete = append(r.incomplete, value)
				}
			}
			return err
		})
	}
	return r.skip()
}

// readComponent reads one component, handing out first those inside it.
func (r *cycloneDX) readComponent() error {
	if r.depth++; r.depth > maxNesting {
		return refusal.New(CodeDocumentInvalid, "components nested deeper than %d", maxNesting)
	}
	defer func() { r.depth-- }()
	if r.count++; r.count > MaxComponents {
		return refusal.New(CodeDocumentInvalid, "more than %d components", MaxComponents)
	}
	var c Component
	var ref string
	if err := r.object(func(name string) error {
		switch name {
		case "bom-ref":
			return r.text(&ref)
		case "components":
			return r.array(r.readComponent)
		}
		return r.componentMember(&c, name)
	}); err != nil {
		return err
	}
	if err := r.finish(&c); err != nil {
		return err
	}
	return r.component(ref, c)
}

func (r *cycloneDX) componentMember(c *Component, name string) error {
	switch name {
	case "type":
		return r.text(&c.Type)
	case "group":
		return r.text(&c.Group)
	case "name":
		return r.text(&c.Name)
	case "version":
		return r.text(&c.Version)
	case "purl":
		return r.text(&c.PURL)
	case "scope":
		return r.text(&c.Scope)
	case "hashes":
		return r.array(func() error { return r.hash(c) })
	case "licenses":
		return r.array(func() error { return r.license(c) })
	case "evidence":
		return r.object(func(name string) error {
			if name != "occurrences" {
				return r.skip()
			}
			return r.array(func() error { return r.occurrence(c) })
		})
	}
	return r.skip()
}

func (r *cycloneDX) hash(c *Component) error {
	var h Hash
	err := r.object(func(name string) error {
		switch name {
		case "alg":
			return r.text(&h.Algorithm)
		case "content":
			return r.text(&h.Value)
		}
		return r.skip()
	})
	if len(c.Hashes) < MaxHashes {
		c.Hashes = append(c.Hashes, h)
	}
	return err
}

// license reads {"license": {"id" or "name"}} or {"expression"}.
func (r *cycloneDX) license(c *Component) error {
	var said string
	err := r.object(func(name string) error {
		switch name {
		case "expression":
			return r.text(&said)
		case "license":
			return r.object(func(name string) error {
				if name == "id" || name == "name" {
					return r.text(&said)
				}
				return r.skip()
			})
		}
		return r.skip()
	})
	if said != "" && len(c.Licenses) < MaxLicenses {
		c.Licenses = append(c.Licenses, said)
	}
	return err
}

func (r *cycloneDX) occurrence(c *Component) error {
	var location string
	err := r.object(func(name string) error {
		if name == "location" {
			return r.text(&location)
		}
		return r.skip()
	})
	if location != "" && len(c.Locations) < MaxLocations {
		c.Locations = append(c.Locations, location)
	}
	return err
}

func (r *cycloneDX) readDependency() error {
	var ref string
	var to []string
	if err := r.object(func(name string) error {
		switch name {
		case "ref":
			return r.text(&ref)
		case "dependsOn":
			return r.strings(&to, MaxComponents)
		}
		return r.skip()
	}); err != nil {
		return err
	}
	return r.dependency(ref, to)
}

func (r *cycloneDX) readComposition() error {
	var c composition
	err := r.object(func(name string) error {
		switch name {
		case "aggregate":
			return r.text(&c.aggregate)
		case "assemblies":
			return r.strings(&c.assemblies, maxAssemblies-r.assemblies)
		}
		return r.skip()
	})
	if r.assemblies += len(c.assemblies); len(c.assemblies) > 0 && r.assemblies < maxAssemblies {
		r.compositions = append(r.compositions, c)
	}
	return err
}

// strings reads an array of strings, of which it keeps as many as the limit says.
func (d *document) strings(to *[]string, limit int) error {
	return d.array(func() error {
		var s string
		err := d.text(&s)
		if len(*to) < limit {
			*to = append(*to, s)
		}
		return err
	})
}

// aggregate is what the compositions say of the thing that the document is about. Where
// they say several things the document claims nothing that can be relied upon.
func (r *cycloneDX) aggregate() string {
	claimed := ""
	for _, c := range r.compositions {
		if r.rootRef == "" || !slices.Contains(c.assemblies, r.rootRef) {
			continue
		}
		if claimed != "" && claimed != c.aggregate {
			return AggregateUnknown
		}
		claimed = c.aggregate
	}
	if claimed == "" || claimed == "not_specified" {
		return AggregateUnknown
	}
	return oneLine(claimed, maxDetailBytes)
}
