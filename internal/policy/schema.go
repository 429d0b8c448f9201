package policy

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

//go:embed schema.cedarschema
var schemaText string

//go:embed default.cedar
var defaultText string

// Schema returns the Cedar schema that policies are validated against, in
// Cedar's human-readable form. Its comments are the reference for authors.
func Schema() string { return schemaText }

// DefaultPolicy returns the policy set a new deployment starts with.
func DefaultPolicy() string { return defaultText }

const (
	callerType   types.EntityType = "Assay::Caller"
	artifactType types.EntityType = "Assay::Artifact"
	actionType   types.EntityType = "Assay::Action"
	deployID     types.String     = "deploy"
)

// vocabulary is the schema in the form the checks ask it.
type vocabulary struct {
	resolved *resolved.Schema
	// evidence holds the path of every attribute of an Artifact that exists only
	// where evidence does: "resource.provenance", "resource.provenance.ref".
	evidence map[path]bool
}

func loadVocabulary() (*vocabulary, error) {
	r, err := loadSchema("schema.cedarschema", schemaText)
	if err != nil {
		return nil, err
	}
	v := &vocabulary{resolved: r, evidence: map[path]bool{}}
	v.collect(newPath("resource"), r.Entities[artifactType].Shape)
	return v, nil
}

func loadSchema(name, text string) (*resolved.Schema, error) {
	var s schema.Schema
	s.SetFilename(name)
	if err := s.UnmarshalCedar([]byte(text)); err != nil {
		return nil, fmt.Errorf("policy: %s: %w", name, err)
	}
	r, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("policy: %s: %w", name, err)
	}
	return r, nil
}

// collect adds the optional attributes of a record, and those inside of them.
func (v *vocabulary) collect(at path, record resolved.RecordType) {
	for name, attribute := range record {
		p := at.child(name)
		if attribute.Optional {
			v.evidence[p] = true
		}
		if inner, ok := attribute.Type.(resolved.RecordType); ok {
			v.collect(p, inner)
		}
	}
}

// attributesOf returns the path of every attribute that some request of the
// schema may have.
func attributesOf(s *resolved.Schema) map[path]bool {
	out := map[path]bool{}
	var collect func(at path, record resolved.RecordType)
	collect = func(at path, record resolved.RecordType) {
		for name, attribute := range record {
			p := at.child(name)
			out[p] = true
			if inner, ok := attribute.Type.(resolved.RecordType); ok {
				collect(p, inner)
			}
		}
	}
	for _, action := range s.Actions {
		collect(newPath("context"), action.AppliesTo.Context)
		for _, kind := range action.AppliesTo.Principals {
			collect(newPath("principal"), s.Entities[kind].Shape)
		}
		for _, kind := range action.AppliesTo.Resources {
			collect(newPath("resource"), s.Entities[kind].Shape)
		}
	}
	return out
}

// path names an attribute by the way to it from a variable. The separator
// cannot be typed in an identifier, so the attribute "a.b" is not "a" then "b".
type path string

func newPath(variable types.String) path { return path(variable) }

func (p path) child(name types.String) path { return p + "\x00" + path(name) }

// under reports whether p is q or lies inside of it.
func (p path) under(q path) bool {
	return p == q || strings.HasPrefix(string(p), string(q)+"\x00")
}

// String renders p as Cedar does.
func (p path) String() string { return strings.ReplaceAll(string(p), "\x00", ".") }
