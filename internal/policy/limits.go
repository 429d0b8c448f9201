package policy

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/assay-build/assay/internal/refusal"
)

// Limits of a policy set and of a question. Cedar has no loops, so evaluation
// costs no more than the size of the policy times that of the longest fact;
// with these limits the worst set anybody can write and the worst evidence
// anybody can submit take a bounded time together (TestWorstCase).
const (
	// MaxPolicyBytes bounds the text of a policy set.
	MaxPolicyBytes = 256 << 10
	// MaxRules bounds the number of rules in it.
	MaxRules = 512
	// MaxEnvironments bounds how many environments it names.
	MaxEnvironments = 64
	// MaxEvidence bounds the pieces of evidence one question may hand in.
	MaxEvidence = 64
	// MaxFactBytes bounds each text among the facts.
	MaxFactBytes = 2 << 10

	maxKinds        = 8       // kinds of caller that a set names
	maxNesting      = 48      // brackets inside brackets, and ifs, of one rule
	maxPrefixes     = 8       // ! and - in a row
	maxChain        = 16      // a.b.c…
	maxExpression   = 4096    // depth of the syntax tree: || of that many terms
	maxPatternBytes = 8 << 10 // all right-hand sides of like together
	maxIDBytes      = 64
	maxTextBytes    = 1024 // @message, @remedy
)

// Codes of a policy text that is refused before its rules are looked at.
const (
	CodePolicyTooLarge refusal.Code = "POLICY_TOO_LARGE"
	CodePolicyTooDeep  refusal.Code = "POLICY_TOO_DEEP"
	CodePolicyInvalid  refusal.Code = "POLICY_INVALID"
)

// checkText refuses what the parser must not see. The parser is recursive and
// has no limits of its own, and a stack overflow cannot be recovered from.
func checkText(text []byte) error {
	if len(text) > MaxPolicyBytes {
		return refusal.New(CodePolicyTooLarge, "the policy set has %d bytes; at most %d are accepted", len(text), MaxPolicyBytes)
	}
	line := 1
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == '\n':
			line++
		case r == utf8.RuneError && size == 1:
			return refusal.New(CodePolicyInvalid, "line %d: not valid UTF-8", line)
		case r == '\t' || r == '\r':
		case !visible(r):
			// Whoever reviews a policy must see what Cedar sees.
			return refusal.New(CodePolicyInvalid, "line %d: the invisible character %U", line, r)
		}
		i += size
	}
	return checkNesting(string(text))
}

// visible reports whether a reader sees r: no control, format or bidirectional
// character, no exotic space.
func visible(r rune) bool {
	return unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// nesting counts, over the tokens of a policy text, what the parser recurses on.
type nesting struct {
	line, depth, ifs, prefixes, chain int
	dot                               bool // the last token was one
}

func checkNesting(text string) error {
	n := nesting{line: 1}
	for i := 0; i < len(text); {
		rest := text[i:]
		size := 1
		switch c := text[i]; {
		case c == '"':
			size = stringSize(rest)
			n.prefixes, n.chain = 0, 0
		case strings.HasPrefix(rest, "//"):
			if size = strings.IndexByte(rest, '\n'); size < 0 {
				size = len(rest)
			}
		case c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			size = wordSize(rest)
			n.word(rest[:size])
		default:
			n.punctuation(c)
		}
		n.line += strings.Count(rest[:size], "\n")
		if n.depth+n.ifs > maxNesting || n.prefixes > maxPrefixes || n.chain > maxChain {
			return refusal.New(CodePolicyTooDeep, "line %d: nested too deeply; %d brackets and ifs, %d prefixes or %d attributes in a row are accepted",
				n.line, maxNesting, maxPrefixes, maxChain)
		}
		i += size
	}
	return nil
}

func (n *nesting) word(w string) {
	if w == "if" {
		n.ifs++
	}
	if !n.dot {
		n.chain = 0
	}
	n.prefixes, n.dot = 0, false
}

func (n *nesting) punctuation(c byte) {
	switch c {
	case '(', '[', '{':
		n.depth++
	case ')', ']', '}':
		n.depth--
	case ';':
		n.ifs = 0
	case '!', '-':
		n.prefixes++
	case '.':
		n.chain, n.dot = n.chain+1, true
		return
	case ' ', '\t', '\r', '\n':
		return // may stand between the tokens of a chain
	default:
		n.prefixes = 0
	}
	n.chain, n.dot = 0, false
}

// stringSize returns the length of the string literal that s starts with.
func stringSize(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s)
}

func wordSize(s string) int {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return i
		}
	}
	return len(s)
}

// checkTree bounds the syntax tree of one rule, and adds up its patterns: like
// is the one operator whose cost is a product of two texts.
func checkTree(r *rule, patternBytes *int) error {
	for _, c := range r.tree.Conditions {
		if depth(c.Body) > maxExpression {
			return refusal.New(CodePolicyTooDeep, "rule %s: more than %d operators in a row; a set with .contains does the same", r.id, maxExpression)
		}
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			if like, ok := n.(ast.NodeTypeLike); ok {
				*patternBytes += len(like.Value.MarshalCedar())
			}
			return true
		})
	}
	if *patternBytes > maxPatternBytes {
		return refusal.New(CodePolicyTooLarge, "rule %s: the patterns of `like` have more than %d bytes together", r.id, maxPatternBytes)
	}
	return nil
}

func depth(n ast.IsNode) int {
	deepest := 0
	for _, child := range children(n) {
		deepest = max(deepest, depth(child))
	}
	return deepest + 1
}

// checkEnvironmentName says whether a name can be that of an environment at all.
func checkEnvironmentName(name string) bool {
	if name == "" || len(name) > maxIDBytes {
		return false
	}
	for _, r := range name {
		if !visible(r) {
			return false
		}
	}
	return utf8.ValidString(name)
}

func matches(patterns []types.Pattern, name string) bool {
	for _, p := range patterns {
		if p.Match(types.String(name)) {
			return true
		}
	}
	return false
}
