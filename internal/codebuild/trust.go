package codebuild

import (
	"encoding/json"
	"net/url"
	"strings"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeRoleTrustTooWide: somebody else than CodeBuild may assume the build's
	// role, and so choose the session name that makes a build of a caller.
	CodeRoleTrustTooWide refusal.Code = "CODEBUILD_ROLE_TRUST_TOO_WIDE"
	// CodeRoleTrustInvalid: the role's trust policy cannot be read, or does not let
	// CodeBuild assume the role at all.
	CodeRoleTrustInvalid refusal.Code = "CODEBUILD_ROLE_TRUST_INVALID"
)

const (
	codeBuildService = "codebuild.amazonaws.com"
	// maxTrustBytes is far above IAM's quota of 4096 characters, each of which may
	// be escaped.
	maxTrustBytes = 32 << 10
)

// trustPolicy is the part of the IAM policy grammar that a trust policy may use.
// Any other element is refused: what it would do is unknown.
type trustPolicy struct {
	Version   string          `json:"Version"`
	ID        string          `json:"Id"`
	Statement json.RawMessage `json:"Statement"`
}

type trustStatement struct {
	Sid          string                                `json:"Sid"`
	Effect       string                                `json:"Effect"`
	Principal    json.RawMessage                       `json:"Principal"`
	NotPrincipal json.RawMessage                       `json:"NotPrincipal"`
	Action       json.RawMessage                       `json:"Action"`
	NotAction    json.RawMessage                       `json:"NotAction"`
	Condition    map[string]map[string]json.RawMessage `json:"Condition"`
}

// checkTrust accepts a trust policy, as iam:GetRole returns it, if CodeBuild may
// assume the role and nobody else may. Conditions can only narrow that; they are
// read for their form and not required.
func checkTrust(escaped string) error {
	if len(escaped) > maxTrustBytes {
		return refusal.New(CodeRoleTrustInvalid, "the role's trust policy has %d bytes; the limit is %d", len(escaped), maxTrustBytes)
	}
	// IAM escapes as RFC 3986 does: a plus sign is a plus sign.
	text, err := url.PathUnescape(escaped)
	if err != nil {
		return refusal.New(CodeRoleTrustInvalid, "the role's trust policy is not URL-encoded")
	}
	var policy trustPolicy
	if err := attest.DecodeStrict([]byte(text), maxTrustBytes, &policy); err != nil {
		return refusal.New(CodeRoleTrustInvalid, "the role's trust policy is not a policy of known elements")
	}
	switch policy.Version {
	case "2012-10-17", "2008-10-17", "":
	default:
		return refusal.New(CodeRoleTrustInvalid, "the role's trust policy has an unknown version")
	}
	statements, err := readStatements(policy.Statement)
	if err != nil {
		return err
	}
	assumable := false
	for i := range statements {
		allows, err := statements[i].check()
		if err != nil {
			return err
		}
		assumable = assumable || allows
	}
	if !assumable {
		return refusal.New(CodeRoleTrustInvalid, "the role's trust policy does not let %s assume it", codeBuildService)
	}
	return nil
}

func readStatements(raw json.RawMessage) ([]trustStatement, error) {
	var list []trustStatement
	if isJSON(raw, '[') {
		if attest.DecodeStrict(raw, maxTrustBytes, &list) != nil {
			return nil, refusal.New(CodeRoleTrustInvalid, "a statement of the role's trust policy has unknown elements")
		}
		return list, nil
	}
	var one trustStatement
	if !isJSON(raw, '{') || attest.DecodeStrict(raw, maxTrustBytes, &one) != nil {
		return nil, refusal.New(CodeRoleTrustInvalid, "the statement of the role's trust policy has unknown elements")
	}
	return []trustStatement{one}, nil
}

// check refuses a statement that lets anybody but CodeBuild in, and reports
// whether it lets CodeBuild assume the role.
func (s *trustStatement) check() (assumable bool, err error) {
	if s.NotPrincipal != nil || s.NotAction != nil {
		return false, refusal.New(CodeRoleTrustTooWide, "the role's trust policy has a NotPrincipal or NotAction: it names whom it leaves out, not whom it lets in")
	}
	actions, ok := oneOrMore(s.Action)
	if !ok || s.Principal == nil || !s.conditionsReadable() {
		return false, refusal.New(CodeRoleTrustInvalid, "a statement of the role's trust policy has no readable Principal, Action or Condition")
	}
	switch s.Effect {
	case "Deny":
		// It takes away from what other statements give, whoever it is about.
		return false, nil
	case "Allow":
	default:
		return false, refusal.New(CodeRoleTrustInvalid, "a statement of the role's trust policy neither allows nor denies")
	}
	if err := s.onlyCodeBuild(); err != nil {
		return false, err
	}
	for _, action := range actions {
		switch strings.ToLower(action) {
		case "sts:assumerole":
			assumable = true
		case "sts:tagsession", "sts:setsourceidentity":
		default:
			return false, refusal.New(CodeRoleTrustTooWide, "the role's trust policy allows %.80q", action)
		}
	}
	return assumable, nil
}

func (s *trustStatement) onlyCodeBuild() error {
	var principals map[string]json.RawMessage
	if !isJSON(s.Principal, '{') || json.Unmarshal(s.Principal, &principals) != nil {
		// The string "*" is everybody.
		return refusal.New(CodeRoleTrustTooWide, "the role's trust policy names principals of no type")
	}
	if len(principals) == 0 {
		return refusal.New(CodeRoleTrustInvalid, "a statement of the role's trust policy has no principal")
	}
	for kind, raw := range principals {
		names, ok := oneOrMore(raw)
		if !ok {
			return refusal.New(CodeRoleTrustInvalid, "a principal of the role's trust policy cannot be read")
		}
		for _, name := range names {
			if kind != "Service" || name != codeBuildService {
				return refusal.New(CodeRoleTrustTooWide, "the role's trust policy lets %.40q %.200q assume it; only the service %s may", kind, name, codeBuildService)
			}
		}
	}
	return nil
}

// conditionsReadable wants operator → key → value or values, none of them empty.
func (s *trustStatement) conditionsReadable() bool {
	for _, keys := range s.Condition {
		if len(keys) == 0 {
			return false
		}
		for _, raw := range keys {
			if isJSON(raw, 't') || isJSON(raw, 'f') {
				continue
			}
			if _, ok := oneOrMore(raw); !ok {
				return false
			}
		}
	}
	return true
}

// oneOrMore reads a string or a list of at least one.
func oneOrMore(raw json.RawMessage) ([]string, bool) {
	if isJSON(raw, '"') {
		var one string
		err := json.Unmarshal(raw, &one)
		return []string{one}, err == nil && one != ""
	}
	var list []*string
	if !isJSON(raw, '[') || json.Unmarshal(raw, &list) != nil || len(list) == 0 {
		return nil, false
	}
	out := make([]string, 0, len(list))
	for _, s := range list {
		if s == nil || *s == "" { // null is no principal
			return nil, false
		}
		out = append(out, *s)
	}
	return out, true
}

// isJSON reports whether the value begins with first. Space before it was
// dropped by the decoder.
func isJSON(raw json.RawMessage, first byte) bool { return len(raw) > 0 && raw[0] == first }
