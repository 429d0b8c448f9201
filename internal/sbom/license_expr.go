package sbom

import (
	"slices"
	"strings"
	"sync"
)

// license is a node of an expression: an operator over at least two others, or a leaf.
type license struct {
	op   string // opAnd, opOr; "" for a leaf
	kids []*license
	id   string // of a leaf: an identifier, with "+" where it has one
	with string // of a leaf: the exception, if any
}

const (
	opAnd  = "AND"
	opOr   = "OR"
	opWith = "WITH"
)

// String spells the expression with as few parentheses as it needs.
func (n *license) String() string {
	if n.op == "" {
		if n.with != "" {
			return n.id + " WITH " + n.with
		}
		return n.id
	}
	parts := make([]string, len(n.kids))
	for i, kid := range n.kids {
		parts[i] = kid.String()
		if n.op == opAnd && kid.op == opOr {
			parts[i] = "(" + parts[i] + ")"
		}
	}
	return strings.Join(parts, " "+n.op+" ")
}

func (n *license) ids(to []string) []string {
	if n.op == "" {
		return append(to, strings.TrimSuffix(n.id, "+"))
	}
	for _, kid := range n.kids {
		to = kid.ids(to)
	}
	return to
}

// combine joins nodes under one operator, flat and without repetition, in the order in
// which they were written.
func combine(op string, nodes []*license) *license {
	var kids []*license
	seen := map[string]bool{}
	for _, n := range nodes {
		flat := []*license{n}
		if n.op == op {
			flat = n.kids
		}
		for _, kid := range flat {
			if s := kid.String(); !seen[s] {
				seen[s] = true
				kids = append(kids, kid)
			}
		}
	}
	if len(kids) == 1 {
		return kids[0]
	}
	return &license{op: op, kids: kids}
}

// parseExpression reads an SPDX expression (SPDX 2.3, Annex D) of atoms that the given
// function knows; nil where it is none. Operators may be in any case, and an atom may
// be several words, so that "GPL v2 and MIT License" can be read too.
func parseExpression(s string, atom func(string) *license) *license {
	p := licenseParser{tokens: licenseTokens(s), atom: atom}
	n := p.or()
	if p.pos != len(p.tokens) {
		return nil
	}
	return n
}

type licenseParser struct {
	tokens []string
	pos    int
	atom   func(string) *license
}

func (p *licenseParser) or() *license  { return p.chain(opOr, p.and) }
func (p *licenseParser) and() *license { return p.chain(opAnd, p.term) }

func (p *licenseParser) chain(op string, operand func() *license) *license {
	var nodes []*license
	for {
		n := operand()
		if n == nil {
			return nil
		}
		nodes = append(nodes, n)
		if p.peek() != op {
			return combine(op, nodes)
		}
		p.pos++
	}
}

func (p *licenseParser) term() *license {
	if p.peek() == "(" {
		p.pos++
		n := p.or()
		if n == nil || p.peek() != ")" {
			return nil
		}
		p.pos++
		return n
	}
	n := p.atom(p.words())
	if n == nil || p.peek() != opWith {
		return n
	}
	p.pos++
	exception := findException(p.words())
	if exception == "" || n.op != "" || n.with != "" {
		return nil
	}
	return &license{id: n.id, with: exception}
}

// words reads on to the next operator or parenthesis.
func (p *licenseParser) words() string {
	start := p.pos
	for p.pos < len(p.tokens) && !isOperator(p.tokens[p.pos]) {
		p.pos++
	}
	return strings.Join(p.tokens[start:p.pos], " ")
}

// peek is the next token; "" at the end, which is no token.
func (p *licenseParser) peek() string {
	if p.pos < len(p.tokens) {
		return p.tokens[p.pos]
	}
	return ""
}

func isOperator(token string) bool {
	return token == "(" || token == ")" || token == opAnd || token == opOr || token == opWith
}

func licenseTokens(s string) []string {
	if strings.ContainsAny(s, "()|&") {
		s = spdx().operators.Replace(s)
	}
	tokens := strings.Fields(s)
	for i, token := range tokens {
		switch upper := strings.ToUpper(token); upper {
		case opAnd, opOr, opWith:
			tokens[i] = upper
		case "W/":
			tokens[i] = opWith
		}
	}
	return tokens
}

// exactAtom knows identifiers of the SPDX list in any case, with or without "+", and
// references to licences that the list does not have.
func exactAtom(s string) *license {
	if isLicenseRef(s) {
		return &license{id: s}
	}
	if id, ok := spdx().licenses[strings.ToLower(s)]; ok {
		return modern(id)
	}
	base, plus := strings.CutSuffix(s, "+")
	if id, ok := spdx().licenses[strings.ToLower(base)]; ok && plus {
		return orLater(id)
	}
	return nil
}

// modern replaces identifiers that SPDX deprecated for ones that say the same: those of
// the GNU licences, which said "this version only" without saying it.
func modern(id string) *license {
	if base, exception, ok := strings.Cut(id, "-with-"); ok && strings.HasPrefix(id, "GPL-") {
		return &license{id: base + "-only", with: map[string]string{
			"GPL-2.0-with-autoconf-exception":  "Autoconf-exception-2.0",
			"GPL-2.0-with-bison-exception":     "Bison-exception-2.2",
			"GPL-2.0-with-classpath-exception": "Classpath-exception-2.0",
			"GPL-2.0-with-font-exception":      "Font-exception-2.0",
			"GPL-2.0-with-GCC-exception":       "GCC-exception-2.0",
			"GPL-3.0-with-autoconf-exception":  "Autoconf-exception-3.0",
			"GPL-3.0-with-GCC-exception":       "GCC-exception-3.1",
		}[base+"-with-"+exception]}
	}
	if base, ok := strings.CutSuffix(id, "+"); ok {
		return &license{id: base + "-or-later"}
	}
	if spdx().licenses[strings.ToLower(id+"-only")] != "" {
		return &license{id: id + "-only"}
	}
	return &license{id: id}
}

// orLater is the licence with a plus behind it.
func orLater(id string) *license {
	n := modern(id)
	if n.with != "" {
		return nil
	}
	base, gnu := strings.CutSuffix(n.id, "-only")
	switch {
	case gnu:
		return &license{id: base + "-or-later"}
	case strings.HasSuffix(n.id, "-or-later"):
		return n
	}
	return &license{id: n.id + "+"}
}

// isLicenseRef: [DocumentRef-x:]LicenseRef-y, of letters, digits, "-" and ".".
func isLicenseRef(s string) bool {
	if doc, ref, ok := strings.Cut(s, ":"); ok {
		name, isDoc := strings.CutPrefix(doc, "DocumentRef-")
		if !isDoc || !isIDString(name) {
			return false
		}
		s = ref
	}
	name, ok := strings.CutPrefix(s, "LicenseRef-")
	return ok && isIDString(name)
}

func isIDString(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '.'
	})
}

// spdxTables are the lists by lower-case identifier, and by folded name.
type spdxTables struct {
	licenses, exceptions map[string]string
	names                map[string]string // fold → expression
	exceptionNames       map[string]string
	operators            *strings.Replacer
}

// spdx builds the tables when the first licence is looked at.
var spdx = sync.OnceValue(func() *spdxTables {
	t := &spdxTables{
		licenses: map[string]string{}, exceptions: map[string]string{},
		operators: strings.NewReplacer("(", " ( ", ")", " ) ", "||", " OR ", "|", " OR ", "&&", " AND ", "&", " AND "),
	}
	licenses, exceptions := strings.Fields(spdxLicenses), strings.Fields(spdxExceptions)
	for _, id := range licenses {
		t.licenses[strings.ToLower(id)] = id
	}
	for _, id := range exceptions {
		t.exceptions[strings.ToLower(id)] = id
	}
	t.names = foldedNames(licenses, licenseNames)
	t.exceptionNames = foldedNames(exceptions, exceptionNames)
	return t
})

// foldedNames maps the folded form of identifiers and names. Where two identifiers fold
// to one, neither is meant. Names, which people chose, win over both.
func foldedNames(ids []string, names string) map[string]string {
	folded := map[string]string{}
	var ambiguous []string
	for _, id := range ids {
		key := foldLicense(id)
		if _, twice := folded[key]; twice {
			ambiguous = append(ambiguous, key)
		}
		folded[key] = id
	}
	for _, key := range ambiguous {
		delete(folded, key)
	}
	for line := range strings.Lines(names) {
		if expr, spellings, ok := strings.Cut(strings.TrimSpace(line), " = "); ok {
			for spelling := range strings.SplitSeq(spellings, " | ") {
				folded[foldLicense(spelling)] = expr
			}
		}
	}
	return folded
}

func findException(s string) string {
	t := spdx()
	if id, ok := t.exceptions[strings.ToLower(s)]; ok {
		return id
	}
	if strings.HasPrefix(s, "AdditionRef-") && isIDString(strings.TrimPrefix(s, "AdditionRef-")) {
		return s
	}
	return t.exceptionNames[foldLicense(s)]
}

// gnuFamilies are the licences that exist "only" and "or later".
func gnuFamilies() []string { return []string{"AGPL", "GFDL", "GPL", "LGPL"} }

func isGNU(id string) bool {
	family, _, _ := strings.Cut(id, "-")
	return slices.Contains(gnuFamilies(), family)
}
