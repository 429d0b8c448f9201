package check

import (
	"bytes"
	"embed"
	"fmt"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:embed schema
var schemaFiles embed.FS

const (
	cycloneDXSchemas = "http://cyclonedx.org/schema/"
	ownSchemas       = "https://github.com/assay-build/assay/internal/sbom/check/schema/"
)

// schemas holds a compiler for each format and version. Each runs once, when the first
// such document comes: a compiled schema does not change and serves all goroutines.
var schemas = map[string]func() (*piece, error){
	"cyclonedx 1.4": lazily(cycloneDXSchemas + "bom-1.4.schema.json"),
	"cyclonedx 1.5": lazily(cycloneDXSchemas + "bom-1.5.schema.json"),
	"cyclonedx 1.6": lazily(cycloneDXSchemas + "bom-1.6.schema.json"),
	"cyclonedx 1.7": lazily(cycloneDXSchemas + "bom-1.7.schema.json"),
	"spdx 2.2":      lazily(ownSchemas + "spdx-2.2.schema.json"),
	"spdx 2.3":      lazily(ownSchemas + "spdx-2.3.schema.json"),
}

func lazily(url string) func() (*piece, error) {
	return sync.OnceValues(func() (*piece, error) {
		root, err := compile(url)
		if err != nil {
			return nil, err
		}
		return cut(root)
	})
}

func schemaOf(format, version string) (*piece, error) { return schemas[format+" "+version]() }

// compile reads an embedded schema and those it refers to. Nothing is fetched.
func compile(url string) (*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	c.UseLoader(embedded{})
	c.AssertFormat()
	c.RegisterFormat(&jsonschema.Format{Name: "idn-email", Validate: idnEmail})
	s, err := c.Compile(url)
	if err != nil {
		return nil, fmt.Errorf("schema %s: %w", url, err)
	}
	return s, nil
}

// embedded loads schemas by the last segment of their URL.
type embedded struct{}

func (embedded) Load(url string) (any, error) {
	at := strings.LastIndexByte(url, '/') + 1
	base, name := url[:at], url[at:]
	if base != cycloneDXSchemas && base != ownSchemas {
		return nil, fmt.Errorf("no schema %s is embedded", url)
	}
	data, err := schemaFiles.ReadFile("schema/" + name)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(data))
}

// idnEmail asserts what RFC 6531 requires at the least, which the validator leaves
// undone: a local part, "@" and a domain, without blanks.
func idnEmail(v any) error {
	s, ok := v.(string)
	if !ok {
		return nil
	}
	at := strings.LastIndexByte(s, '@')
	if at <= 0 || at == len(s)-1 || strings.ContainsAny(s, " \t\r\n\x00") {
		return jsonschema.LocalizableError("no mail address")
	}
	return nil
}

// piece is a part of a document that is validated alone.
type piece struct {
	// kind is the name of its definition in the schema ("component"), or of the array
	// that holds it where it has none; "" for the whole document.
	kind   string
	schema *jsonschema.Schema
	// lists are the members that are arrays of pieces.
	lists map[string]list
	// parts are members that belong to this piece, and hold lists further down.
	parts map[string]*piece
}

type list struct {
	of     *piece
	unique bool
}

// cut divides the documents of a schema into pieces.
func cut(root *jsonschema.Schema) (*piece, error) {
	c := cutter{done: map[*jsonschema.Schema]*piece{}}
	doc := &piece{schema: root}
	if err := c.lists(doc, func(string) bool { return true }); err != nil {
		return nil, err
	}
	// A document may hold all its components within the one that it describes.
	if s, ok := root.Properties["metadata"]; ok {
		metadata := &piece{schema: target(s)}
		component, err := c.piece("component", metadata.schema.Properties["component"])
		if err != nil {
			return nil, err
		}
		metadata.parts = map[string]*piece{"component": component}
		doc.parts = map[string]*piece{"metadata": metadata}
	}
	return doc, nil
}

type cutter struct{ done map[*jsonschema.Schema]*piece }

// piece makes the piece of a schema, once.
func (c *cutter) piece(name string, s *jsonschema.Schema) (*piece, error) {
	s = target(s)
	if p, ok := c.done[s]; ok {
		return p, nil
	}
	if at := strings.LastIndex(s.Location, "/definitions/"); at >= 0 && !strings.Contains(s.Location[at+13:], "/") {
		name = s.Location[at+13:]
	}
	p := &piece{kind: name, schema: s}
	c.done[s] = p
	return p, c.lists(p, func(member string) bool {
		return name == "component" && member == "components" || name == "service" && member == "services"
	})
}

// lists finds the arrays of a piece that are taken out of it.
func (c *cutter) lists(p *piece, want func(member string) bool) error {
	for name, s := range p.schema.Properties {
		items, isList := s.Items.(*jsonschema.Schema)
		if !isList || !want(name) {
			continue
		}
		if err := elementwise(s); err != nil {
			return err
		}
		of, err := c.piece(name, items)
		if err != nil {
			return err
		}
		if p.lists == nil {
			p.lists = map[string]list{}
		}
		p.lists[name] = list{of: of, unique: s.UniqueItems}
	}
	return nil
}

// target follows references. In draft-07 what stands beside a $ref does not count.
func target(s *jsonschema.Schema) *jsonschema.Schema {
	for s.Ref != nil {
		s = s.Ref
	}
	return s
}

// elementwise fails where an array is more than its elements and their uniqueness: it
// could not be judged with them taken out.
func elementwise(s *jsonschema.Schema) error {
	if s.Types == nil || len(s.Types.ToStrings()) != 1 || s.Types.ToStrings()[0] != "array" ||
		s.MinItems != nil || s.MaxItems != nil || s.Contains != nil || s.AdditionalItems != nil ||
		s.Enum != nil || s.Const != nil || s.Not != nil || s.If != nil || s.Ref != nil ||
		len(s.AllOf)+len(s.AnyOf)+len(s.OneOf)+len(s.Extensions) > 0 {
		return fmt.Errorf("schema %s cannot be divided", s.Location)
	}
	return nil
}
