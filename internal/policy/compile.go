package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"maps"
	"regexp"
	"slices"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"github.com/assay-build/assay/internal/refusal"
)

// Codes of a policy set that is well formed and refused.
const (
	// CodeEmptyPolicy: no rules; nothing would be checked and nothing allowed.
	CodeEmptyPolicy refusal.Code = "EMPTY_POLICY"
	// CodePolicyNoPermit: only forbids, so nothing could ever be allowed.
	CodePolicyNoPermit refusal.Code = "POLICY_NO_PERMIT"
	// CodePolicyNoEnvironment: no rule names an environment, so every question
	// would be about an unknown one.
	CodePolicyNoEnvironment refusal.Code = "POLICY_NO_ENVIRONMENT"
	// CodePolicySchemaMismatch: the validator found an attribute or action that
	// does not exist, a wrong type, or an optional attribute used without a guard.
	CodePolicySchemaMismatch refusal.Code = "POLICY_SCHEMA_MISMATCH"
)

// Set is a compiled policy set. It does not change, but for what it remembers, and may be used by any
// number of goroutines at once. The zero Set denies everything: EMPTY_POLICY.
type Set struct {
	version  string
	rules    ruleList
	byID     map[types.PolicyID]int
	warnings []string

	names    []string        // environments the rules name, sorted
	patterns []types.Pattern // and the patterns they compare environments with
	speaking map[string][]int
	wanted   wanted
	reads    map[path]bool // of sbomPath, claimedSBOMPath and signerPath: some rule looks at it
	named    names
	memory   *memory
}

// Compile checks a policy set and makes it ready to decide. A set that Compile
// accepts can be trusted in three ways: every attribute it reads exists or is
// guarded, so a rule does not end in an error because evidence is missing; each
// rule can explain itself; and an artifact without evidence is denied, whoever
// asks, for whatever environment.
func Compile(text []byte) (*Set, error) {
	vocabulary, err := loadVocabulary()
	if err != nil {
		return nil, err
	}
	rules, err := compileRules(text, vocabulary.resolved)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		r.prepare()
	}
	memory, err := newMemory()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	s := &Set{version: hex.EncodeToString(sum[:]), rules: rules, memory: memory, byID: make(map[types.PolicyID]int, len(rules))}
	for i, r := range rules {
		s.byID[types.PolicyID(r.id)] = i
	}
	s.wanted, s.named = wantedBy(rules), namedBy(rules)
	s.reads = readsBeside(rules, s.wanted)
	if err := s.findEnvironments(); err != nil {
		return nil, err
	}
	if err := s.checkVacuity(vocabulary); err != nil {
		return nil, err
	}
	s.warnings = s.lint(vocabulary)
	return s, nil
}

// compileRules reads the rules of a text and checks them one by one: what every
// set of policies is held to, whatever it decides.
func compileRules(text []byte, vocabulary *resolved.Schema) (ruleList, error) {
	if err := checkText(text); err != nil {
		return nil, err
	}
	rules, err := parse(text)
	if err != nil {
		return nil, err
	}
	validator, known := validate.New(vocabulary), attributesOf(vocabulary)
	for _, r := range rules {
		if err := validator.Policy(r.id, r.tree); err != nil {
			return nil, refusal.New(CodePolicySchemaMismatch, "line %d: %w", r.line, err)
		}
		if err := checkGuards(r, known); err != nil {
			return nil, err
		}
	}
	return rules, nil
}

// checkGuards refuses a `has` of what nothing in the schema has. The validator
// takes it for false, so a forbid with a misspelt guard would never fire.
func checkGuards(r *rule, known map[path]bool) error {
	var unknown path
	for _, c := range r.tree.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			if has, ok := n.(ast.NodeTypeHas); ok {
				if p, ok := pathOf(has.Arg); ok && !known[p.child(has.Value)] {
					unknown = p.child(has.Value)
				}
			}
			return true
		})
	}
	if unknown != "" {
		return refusal.New(CodePolicySchemaMismatch, "line %d: rule %s: the schema has no %s", r.line, r.id, clip(unknown.String(), 100))
	}
	return nil
}

// parse reads the rules and checks what does not need the schema.
func parse(text []byte) (ruleList, error) {
	policies, err := cedar.NewPolicyListFromBytes("policy", text)
	if err != nil {
		return nil, refusal.New(CodePolicyInvalid, "%w", err)
	}
	if len(policies) == 0 {
		return nil, refusal.New(CodeEmptyPolicy, "the policy set has no rules")
	}
	if len(policies) > MaxRules {
		return nil, refusal.New(CodePolicyTooLarge, "the policy set has %d rules; at most %d are accepted", len(policies), MaxRules)
	}
	ids := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$`)
	rules := make(ruleList, 0, len(policies))
	seen := map[string]bool{}
	permits, patternBytes := 0, 0
	for _, p := range policies {
		r, err := newRule(p, ids)
		if err != nil {
			return nil, err
		}
		if seen[r.id] {
			return nil, refusal.New(CodePolicyIDDuplicate, "line %d: @id(%q) is taken by an earlier rule", r.line, r.id)
		}
		seen[r.id] = true
		if err := checkTree(r, &patternBytes); err != nil {
			return nil, err
		}
		if r.effect == Permit {
			permits++
		}
		rules = append(rules, r)
	}
	if permits == 0 {
		return nil, refusal.New(CodePolicyNoPermit, "the policy set has no permit; Cedar denies what nothing permits, so it would deny everything")
	}
	return rules, nil
}

// findEnvironments collects the environments that the rules name, and for each
// the rules that can fire there.
func (s *Set) findEnvironments() error {
	names := map[string]bool{}
	for _, r := range s.rules {
		ast.Inspect(ast.NewNode(r.condition), func(n ast.IsNode) bool {
			if found, ok := selectionOf(n); ok && found.on == environmentPath {
				for _, name := range found.names {
					names[string(name)] = true
				}
			}
			if like, ok := n.(ast.NodeTypeLike); ok {
				if p, _ := pathOf(like.Arg); p == environmentPath {
					s.patterns = append(s.patterns, like.Value)
				}
			}
			return true
		})
	}
	s.names = slices.Sorted(maps.Keys(names))
	switch {
	case len(s.names) == 0 && len(s.patterns) == 0:
		return refusal.New(CodePolicyNoEnvironment, `no rule names an environment; write for example: context.environment == "prod"`)
	case len(s.names) > MaxEnvironments:
		return refusal.New(CodePolicyTooLarge, "the policy set names %d environments; at most %d are accepted", len(s.names), MaxEnvironments)
	}
	s.speaking = make(map[string][]int, len(s.names))
	for _, name := range s.names {
		if !checkEnvironmentName(name) {
			return refusal.New(CodePolicyInvalid, "%q cannot be the name of an environment: want 1 to %d visible characters", name, maxIDBytes)
		}
		s.speaking[name] = s.rulesIn(name)
	}
	return nil
}

func (s *Set) rulesIn(environment string) []int {
	var out []int
	for i, r := range s.rules {
		if r.speaksIn(environment) {
			out = append(out, i)
		}
	}
	return out
}

// Version identifies the policy set: the lower-case hex SHA-256 of its text.
func (s *Set) Version() string { return s.version }

// Warnings lists what the checks flagged without refusing.
func (s *Set) Warnings() []string { return slices.Clone(s.warnings) }

// Environments lists the environments the rules name, sorted. Environments that
// only match a pattern (`like "prod-*"`) are known too and not listed.
func (s *Set) Environments() []string { return slices.Clone(s.names) }

// knows reports whether a rule speaks about the environment by name or by pattern.
func (s *Set) knows(environment string) bool {
	if !checkEnvironmentName(environment) {
		return false
	}
	_, named := s.speaking[environment]
	return named || matches(s.patterns, environment)
}

// ruleList lets cedar.Authorize go through the rules in the order of the text.
type ruleList []*rule

func (l ruleList) All() iter.Seq2[types.PolicyID, *cedar.Policy] {
	return func(yield func(types.PolicyID, *cedar.Policy) bool) {
		for _, r := range l {
			if !yield(types.PolicyID(r.id), r.policy) {
				return
			}
		}
	}
}
