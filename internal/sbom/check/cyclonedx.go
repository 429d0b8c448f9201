package check

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
)

// cycloneDXCollector makes an inventory of the pieces of a CycloneDX document.
type cycloneDXCollector struct {
	want  Want
	inv   sbom.Inventory
	graph *graph
	// named are the references that components and services have: unlike others, which
	// documents do repeat, they must be unique for dependencies to have one reading.
	named map[int32]bool
	// subject is metadata.component.
	subject      int32
	binding      binding
	dependencies int32
	compositions []composition
}

type composition struct {
	aggregate string
	about     []int32 // nothing: the whole document
}

func newCycloneDXCollector(w Want) *cycloneDXCollector {
	return &cycloneDXCollector{want: w, graph: newGraph(), named: map[int32]bool{}, subject: none}
}

func (c *cycloneDXCollector) piece(kind string, v any, at *path) error {
	obj := object(v)
	switch kind {
	case "component":
		return c.component(obj, at)
	case "service":
		if err := c.name(obj, at); err != nil {
			return err
		}
	case "dependency":
		c.dependency(obj)
	case "compositions":
		c.composition(obj)
	case "":
		return c.document(obj, at)
	}
	return c.walk(v, at)
}

// document takes what is left when all lists are taken out of the document.
func (c *cycloneDXCollector) document(doc map[string]any, at *path) error {
	if subject, ok := object(doc["metadata"])["component"]; ok {
		at.push("metadata")
		at.push("component")
		if err := c.describe(object(subject), at); err != nil {
			return err
		}
		at.pop()
		at.pop()
	}
	return c.walk(doc, at)
}

// describe takes the component that the document is about.
func (c *cycloneDXCollector) describe(subject map[string]any, at *path) error {
	if err := c.name(subject, at); err != nil {
		return err
	}
	if ref := text(subject["bom-ref"]); ref != "" {
		c.subject = c.graph.id(ref)
	}
	for i, h := range array(subject["hashes"]) {
		alg, value := text(object(h)["alg"]), text(object(h)["content"])
		switch c.want.compare(alg, value) {
		case same:
			c.binding = same
		case different:
			at.push("hashes")
			at.pushIndex(i)
			return refusal.New(CodeSBOMSubjectMismatch, "the document is about %s %.140q, which the subject does not have", alg, value).
				InField(at.String())
		}
	}
	return nil
}

func (c *cycloneDXCollector) component(obj map[string]any, at *path) error {
	if err := c.name(obj, at); err != nil {
		return err
	}
	comp := sbom.Component{
		Type:     text(obj["type"]),
		Group:    text(obj["group"]),
		Name:     text(obj["name"]),
		Version:  text(obj["version"]),
		Scope:    text(obj["scope"]),
		Licenses: licenses(array(obj["licenses"])),
	}
	for _, h := range array(obj["hashes"]) {
		comp.Hashes = append(comp.Hashes, sbom.Hash{
			Algorithm: text(object(h)["alg"]), Value: strings.ToLower(text(object(h)["content"])),
		})
	}
	if purl, ok := obj["purl"]; ok {
		var err error
		if comp.PURL, err = canonicalPURL(text(purl)); err != nil {
			at.push("purl")
			return inField(err, at)
		}
	}
	if ref := text(obj["bom-ref"]); ref != "" {
		c.graph.nodes[c.graph.id(ref)].component = int32(len(c.inv.Components)) //nolint:gosec // at most Limits.Components
	}
	c.inv.Components = append(c.inv.Components, comp)
	return c.members(obj, at, "purl")
}

// name takes the reference of a component or service.
func (c *cycloneDXCollector) name(obj map[string]any, at *path) error {
	ref := text(obj["bom-ref"])
	if ref == "" {
		return nil
	}
	id := c.graph.id(ref)
	if c.named[id] {
		at.push("bom-ref")
		return refusal.New(CodeSBOMReferenceDuplicate, "another component or service has the bom-ref %.200q", ref).InField(at.String())
	}
	c.named[id] = true
	return nil
}

func (c *cycloneDXCollector) dependency(obj map[string]any) {
	from := c.graph.id(text(obj["ref"]))
	// An entry without dependencies is an edge to nowhere: it still names an element.
	c.graph.edges = append(c.graph.edges, edge{from, none, c.dependencies})
	for _, to := range array(obj["dependsOn"]) {
		c.graph.edges = append(c.graph.edges, edge{from, c.graph.id(text(to)), c.dependencies})
	}
	// What a component provides (the algorithms that a library implements) it contains,
	// and does not depend on.
	for _, to := range array(obj["provides"]) {
		c.graph.edges = append(c.graph.edges, edge{c.graph.id(text(to)), none, c.dependencies})
	}
	c.dependencies++
}

func (c *cycloneDXCollector) composition(obj map[string]any) {
	comp := composition{aggregate: text(obj["aggregate"])}
	for _, name := range [...]string{"assemblies", "dependencies"} {
		for _, ref := range array(obj[name]) {
			comp.about = append(comp.about, c.graph.id(text(ref)))
		}
	}
	c.compositions = append(c.compositions, comp)
}

// walk takes the references and checks the package URLs that occur anywhere in a piece.
func (c *cycloneDXCollector) walk(v any, at *path) error {
	switch v := v.(type) {
	case map[string]any:
		return c.members(v, at, "")
	case []any:
		for i, e := range v {
			at.pushIndex(i)
			if err := c.walk(e, at); err != nil {
				return err
			}
			at.pop()
		}
	}
	return nil
}

// members walks an object, except for the member done. Which of two bad package URLs
// is told must not depend on the order of a map.
func (c *cycloneDXCollector) members(obj map[string]any, at *path, done string) error {
	names := make([]string, 0, 16)
	for name, v := range obj {
		switch v.(type) {
		case map[string]any, []any:
			names = append(names, name)
		case string:
			if name == "bom-ref" || name == "purl" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if name == done {
			continue
		}
		at.push(name)
		if s, ok := obj[name].(string); ok {
			if name == "bom-ref" {
				c.graph.define(s)
			} else if _, err := canonicalPURL(s); err != nil {
				return inField(err, at)
			}
		} else if err := c.walk(obj[name], at); err != nil {
			return err
		}
		at.pop()
	}
	return nil
}

func (c *cycloneDXCollector) finish(report *Report) (*sbom.Inventory, error) {
	for _, e := range c.graph.edges {
		for _, id := range [...]int32{e.from, e.to} {
			if id == none || c.graph.nodes[id].defined {
				continue
			}
			at := path{}
			at.push("dependencies")
			at.pushIndex(int(e.position))
			return nil, refusal.New(CodeSBOMReferenceUnknown, "nothing in the document has the bom-ref %.200q", c.graph.nodes[id].ref).
				InField(at.String())
		}
	}
	c.graph.edges = slices.DeleteFunc(c.graph.edges, func(e edge) bool { return e.to == none })
	report.Components = len(c.inv.Components)
	report.SelfBound = c.binding == same
	report.Aggregate = c.aggregate()
	c.graph.connect(&c.inv, c.subject)
	return &c.inv, nil
}

// aggregate is what the compositions about the subject, or about no element in
// particular, say together. Where they differ the document is not complete.
func (c *cycloneDXCollector) aggregate() string {
	said := map[string]bool{}
	for _, comp := range c.compositions {
		if len(comp.about) == 0 || c.subject != none && slices.Contains(comp.about, c.subject) {
			said[comp.aggregate] = true
		}
	}
	all := slices.Sorted(maps.Keys(said))
	switch {
	case len(all) == 0:
		return ""
	case len(all) == 1:
		return all[0]
	case slices.ContainsFunc(all, func(s string) bool { return strings.HasPrefix(s, "incomplete") }):
		return "incomplete"
	}
	return "unknown"
}

// licenses reads a licenseChoice.
func licenses(choice []any) []string {
	var all []string
	for _, entry := range choice {
		license := object(object(entry)["license"])
		for _, s := range [...]string{text(license["id"]), text(license["name"]), text(object(entry)["expression"])} {
			if s != "" {
				expr, _ := sbom.NormalizeLicense(s)
				all = append(all, expr)
			}
		}
	}
	return all
}

// inField blames a place in the document for a refusal that knows of none.
func inField(err error, at *path) error {
	var r *refusal.Error
	if errors.As(err, &r) {
		return r.InField(at.String())
	}
	return err
}
