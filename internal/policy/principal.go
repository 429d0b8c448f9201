package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/assay-build/assay/internal/refusal"
)

// CodePrincipalInvalid: nobody in particular asks, or with facts the schema does not have.
const CodePrincipalInvalid refusal.Code = "PRINCIPAL_INVALID"

// MaxSetValues bounds each set of a Principal. Identity providers hand out a few
// hundred groups at most.
const MaxSetValues = 512

// Principal is who asks: the facts of a verified credential. Deploy policies and
// access policies see the same ones, as Assay::Caller.
type Principal struct {
	// ID is unique among callers and never reused for somebody else.
	ID string
	// Kind is the platform that vouched, for example "github-actions".
	Kind string
	// Issuer is the issuer of the credential, as configured.
	Issuer string
	// DisplayName is for people. It is not in the schema: nothing is decided on it.
	DisplayName string
	// Build says that the caller is a run that provenance can be written for, and
	// not merely a role, a service or a person.
	Build bool
	// Sandbox says that the issuer is on loopback and vouches for nothing real.
	Sandbox bool
	// Attributes are the optional attributes of Assay::Caller in the schema, by
	// name. Empty ones count as absent; names that the schema lacks are refused.
	Attributes map[string]string
	// Sets are the attributes that hold many values: "roles", "groups" and
	// "properties". One that is missing is empty; other names are refused.
	Sets map[string][]string
}

// Fingerprint is equal for principals that no policy can tell apart, and for no
// others. DisplayName is not in it.
func (p *Principal) Fingerprint() string {
	// Each part is length-prefixed, so that no two lists of parts look alike.
	var b []byte
	part := func(text string) {
		b = append(strconv.AppendInt(b, int64(len(text)), 10), ':')
		b = append(b, text...)
	}
	part(p.ID)
	part(p.Kind)
	part(p.Issuer)
	part(strconv.FormatBool(p.Build))
	part(strconv.FormatBool(p.Sandbox))
	list := func(values []string) {
		part(strconv.Itoa(len(values)))
		for _, v := range values {
			part(v)
		}
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(p.Attributes)) {
		if text := p.Attributes[name]; text != "" {
			pairs = append(pairs, name, text)
		}
	}
	list(pairs)
	for _, name := range slices.Sorted(maps.Keys(p.Sets)) {
		values := slices.DeleteFunc(slices.Sorted(slices.Values(p.Sets[name])), func(v string) bool { return v == "" })
		if len(values) > 0 {
			part(name)
			list(slices.Compact(values))
		}
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// entity returns the caller as Cedar sees it, without attributes that no rule names.
func (p *Principal) entity(named names) (types.Entity, error) {
	if p.ID == "" || p.Kind == "" || p.Issuer == "" {
		return types.Entity{}, refusal.New(CodePrincipalInvalid, "the caller has no id, no kind or no issuer")
	}
	m := make(types.RecordMap, 8)
	put := func(name types.String, value types.Value) {
		if named.include(name) {
			m[name] = value
		}
	}
	put("kind", types.String(p.Kind))
	put("issuer", types.String(p.Issuer))
	put("isBuild", types.Boolean(p.Build))
	put("sandbox", types.Boolean(p.Sandbox))
	for name, text := range p.Attributes {
		if !isCallerText(name) {
			return types.Entity{}, refusal.New(CodePrincipalInvalid, "the schema has no Assay::Caller attribute %q", name)
		}
		if len(text) > MaxFactBytes {
			return types.Entity{}, refusal.New(CodeFactTooLarge, "the caller's %s has %d bytes; at most %d are accepted", name, len(text), MaxFactBytes)
		}
		if text != "" {
			put(types.String(name), types.String(text))
		}
	}
	for _, name := range [...]string{"roles", "groups", "properties"} {
		set, err := p.set(name, named)
		if err != nil {
			return types.Entity{}, err
		}
		put(types.String(name), set)
	}
	for name := range p.Sets {
		if name != "roles" && name != "groups" && name != "properties" {
			return types.Entity{}, refusal.New(CodePrincipalInvalid, "the schema has no set %q of Assay::Caller", name)
		}
	}
	return types.Entity{
		UID:        types.NewEntityUID(callerType, types.String(p.ID)),
		Attributes: types.NewRecord(m),
	}, nil
}

// isCallerText reports whether the schema has the optional text (TestCallerAttributes).
func isCallerText(name string) bool {
	switch name {
	case "repository", "repositoryId", "repositoryOwnerId", "workflowRef", "jobWorkflowRef",
		"ref", "refProtected", "eventName", "environment", "runnerEnvironment",
		"platform", "subject", "tenant", "email",
		"account", "region", "roleArn", "projectArn":
		return true
	}
	return false
}

// set checks one set, and builds it where a rule names it.
func (p *Principal) set(name string, named names) (types.Set, error) {
	values := p.Sets[name]
	if len(values) > MaxSetValues {
		return types.Set{}, refusal.New(CodeFactTooLarge, "the caller has %d %s; at most %d are accepted", len(values), name, MaxSetValues)
	}
	wanted := named.include(types.String(name))
	var list []types.Value
	for _, v := range values {
		if len(v) > MaxFactBytes {
			return types.Set{}, refusal.New(CodeFactTooLarge, "one of the caller's %s has %d bytes; at most %d are accepted", name, len(v), MaxFactBytes)
		}
		if v != "" && wanted {
			list = append(list, types.String(v))
		}
	}
	if !wanted {
		return types.Set{}, nil // which put leaves out
	}
	return types.NewSet(list...), nil
}

// names holds the attribute names that the rules of a set mention, of whatever
// entity. Cedar has no way to read an attribute without its name, and compares
// entities by id alone, so the others need not be built. nil stands for all.
type names map[types.String]bool

func (n names) include(name types.String) bool { return n == nil || n[name] }

func namedBy(rules ruleList) names {
	out := names{}
	for _, r := range rules {
		for _, c := range r.tree.Conditions {
			ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
				switch v := n.(type) {
				case ast.NodeTypeAccess:
					out[v.Value] = true
				case ast.NodeTypeHas:
					out[v.Value] = true
				}
				return true
			})
		}
	}
	return out
}
