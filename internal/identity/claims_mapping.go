package identity

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/refusal"
)

// ClaimMapping says how the claims of a token become the facts of a Workload. A
// field that is not listed below is a template, and the empty template is a fact
// that the platform does not tell.
//
// A template is text in which {claim} stands for the claim's value. Numbers and
// booleans are written as they were sent; a claim that is null, "" or missing
// leaves the whole template empty. {server_url} is the configuration's and no
// claim's. "??" separates alternatives, of which the first that is not empty
// counts:
//
//	refs/tags/{build_tag} ?? refs/heads/{build_branch}
//
// {claim|a=x|b=y} replaces the value a by x and b by y. On the left * stands for
// any text, on the right for the value itself; the first case that fits counts,
// and a value that none fits is refused with TOKEN_CLAIM_INVALID, so that an
// issuer's new words are never taken for something they are not:
//
//	{ref_type|branch=refs/heads/|tag=refs/tags/}{ref}
//	{runner|hosted=hosted|*=self-hosted}
//	{commit|HEAD=|*=*}
//
// The result has to have the form of the fact, else the token is refused:
// Repository, BuildConfigURI and InvocationID are https URLs, Ref a full ref,
// Commit and BuildConfigDigest full hashes, RefProtected and Proposed "true" or
// "false", Runner "hosted" or "self-hosted".
type ClaimMapping struct {
	// Platform is the platform's name, plain text: lower-case letters, digits and
	// hyphens. Required. The names of the platforms that Assay knows are taken.
	Platform string
	// Required are claims without which a token is refused, whether or not a
	// template uses them. They keep other tokens of the same issuer out.
	Required []string
	// Subject is required, and so is each claim in it. It has no cases and no
	// alternatives, and text between each two claims: so two workloads never get
	// the same subject, whatever characters their claims have.
	Subject           string
	Account           string
	AccountID         string
	Repository        string
	RepositoryID      string
	Ref               string
	RefProtected      string
	Commit            string
	Event             string
	Runner            string
	Environment       string
	BuildConfigURI    string
	BuildConfigDigest string
	InvocationID      string
	Proposed          string
}

// maxFactBytes bounds what one template gives.
const maxFactBytes = 2048

// serverURLClaim is a name in templates that the configuration answers.
const serverURLClaim = "server_url"

// reClaimName is what a claim may be called in a configuration. Claim names that
// are URLs are among them.
var reClaimName = lazy(`^[A-Za-z0-9_.:/@-]{1,200}$`)

// template is a parsed template: alternatives, each a sequence of parts.
type template [][]templatePart

// templatePart is literal text, or a claim with its cases.
type templatePart struct {
	text  string
	claim string
	cases []templateCase // none: the value itself
}

type templateCase struct {
	match  *regexp.Regexp // anchored at both ends
	result string
	self   bool // result holds * for the value
}

func parseTemplate(s string) (template, error) {
	if s == "" {
		return nil, nil
	}
	var t template
	for alternative := range strings.SplitSeq(s, "??") {
		var parts []templatePart
		rest := strings.TrimSpace(alternative)
		if rest == "" {
			return nil, fmt.Errorf("%q has an empty alternative", s)
		}
		for rest != "" {
			open := strings.IndexByte(rest, '{')
			text := rest
			if open >= 0 {
				text = rest[:open]
			}
			if strings.ContainsRune(text, '}') {
				return nil, fmt.Errorf("%q has a } without a {", s)
			}
			if text != "" {
				parts = append(parts, templatePart{text: text})
			}
			if open < 0 {
				break
			}
			inner, after, ok := strings.Cut(rest[open+1:], "}")
			if !ok || strings.ContainsRune(inner, '{') {
				return nil, fmt.Errorf("%q has a { without a }", s)
			}
			part, err := parsePlaceholder(inner)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", s, err)
			}
			parts, rest = append(parts, part), after
		}
		t = append(t, parts)
	}
	return t, nil
}

// parsePlaceholder reads what stands between braces: claim, or claim|a=x|b=y.
func parsePlaceholder(s string) (templatePart, error) {
	words := strings.Split(s, "|")
	p := templatePart{claim: words[0]}
	if !reClaimName().MatchString(p.claim) {
		return p, fmt.Errorf("%q is not the name of a claim", p.claim)
	}
	for _, word := range words[1:] {
		pattern, result, ok := strings.Cut(word, "=")
		if !ok || pattern == "" {
			return p, fmt.Errorf("case %q is not value=result", word)
		}
		pieces := strings.Split(pattern, "*")
		for i := range pieces {
			pieces[i] = regexp.QuoteMeta(pieces[i])
		}
		match, err := regexp.Compile(`^(?s:` + strings.Join(pieces, `.*`) + `)$`)
		if err != nil {
			return p, fmt.Errorf("case %q: %w", word, err)
		}
		p.cases = append(p.cases, templateCase{match: match, result: result, self: strings.Contains(result, "*")})
	}
	return p, nil
}

// value returns what t makes of c, "" where nothing.
func (t template) value(c claims, serverURL string) (string, error) {
	for _, parts := range t {
		s, err := fill(parts, c, serverURL)
		if err != nil {
			return "", err
		}
		if len(s) > maxFactBytes {
			return "", refusal.New(CodeTokenClaimInvalid, "claims make a fact of %d bytes; the limit is %d", len(s), maxFactBytes)
		}
		if s != "" {
			return s, nil
		}
	}
	return "", nil
}

// fill writes one alternative. A claim that is not there, or that a case takes
// away, empties it whole: half an address would be somebody else's.
func fill(parts []templatePart, c claims, serverURL string) (string, error) {
	var b strings.Builder
	for _, p := range parts {
		if p.claim == "" {
			b.WriteString(p.text)
			continue
		}
		v, err := p.value(c, serverURL)
		if err != nil || v == "" {
			return "", err
		}
		b.WriteString(v)
	}
	return b.String(), nil
}

func (p *templatePart) value(c claims, serverURL string) (string, error) {
	if p.claim == serverURLClaim {
		return serverURL, nil
	}
	v, ok, err := c.text(p.claim)
	if err != nil || !ok || len(p.cases) == 0 {
		return v, err
	}
	for _, k := range p.cases {
		if !k.match.MatchString(v) {
			continue
		}
		if k.self {
			return strings.ReplaceAll(k.result, "*", v), nil
		}
		return k.result, nil
	}
	return "", refusal.New(CodeTokenClaimInvalid, "claim %s has the value %.100q, which the mapping does not know", p.claim, v)
}

// mapping is a parsed ClaimMapping.
type mapping struct {
	platform string
	required []string
	subject  []templatePart
	facts    []mappedFact
}

// mappedFact is one fact of a Workload: where it comes from, where it goes, and
// what form it has.
type mappedFact struct {
	name string
	from template
	dst  func(*Workload) *string
	ok   func(string) bool // nil: any text
}

// rePlatform bounds what a platform may be called.
var rePlatform = lazy(`^[a-z][a-z0-9-]{0,39}$`)

// compile parses m. Platforms are not checked here: the presets have theirs.
func (m *ClaimMapping) compile() (*mapping, error) {
	out := &mapping{platform: m.Platform, required: slices.Clone(m.Required)}
	if !rePlatform().MatchString(m.Platform) {
		return nil, fmt.Errorf("platform %q is not a name of lower-case letters, digits and hyphens", m.Platform)
	}
	for _, name := range m.Required {
		if !reClaimName().MatchString(name) {
			return nil, fmt.Errorf("required: %q is not the name of a claim", name)
		}
	}
	var err error
	if out.subject, err = parseSubject(m.Subject); err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	for _, f := range [...]struct {
		name, template string
		dst            func(*Workload) *string
		ok             func(string) bool
	}{
		{"account", m.Account, func(w *Workload) *string { return &w.Account }, nil},
		{"account_id", m.AccountID, func(w *Workload) *string { return &w.AccountID }, nil},
		{"repository", m.Repository, func(w *Workload) *string { return &w.Repository }, isAddress},
		{"repository_id", m.RepositoryID, func(w *Workload) *string { return &w.RepositoryID }, nil},
		{"ref", m.Ref, func(w *Workload) *string { return &w.Ref }, isRef},
		{"ref_protected", m.RefProtected, func(w *Workload) *string { return &w.RefProtected }, oneOf("true", "false")},
		{"commit", m.Commit, func(w *Workload) *string { return &w.Commit }, reCommit().MatchString},
		{"event", m.Event, func(w *Workload) *string { return &w.Event }, nil},
		{"runner", m.Runner, func(w *Workload) *string { return &w.Runner }, oneOf("hosted", "self-hosted")},
		{"environment", m.Environment, func(w *Workload) *string { return &w.Environment }, nil},
		{"build_config_uri", m.BuildConfigURI, func(w *Workload) *string { return &w.BuildConfigURI }, isLocator},
		{"build_config_digest", m.BuildConfigDigest, func(w *Workload) *string { return &w.BuildConfigDigest }, reCommit().MatchString},
		{"invocation_id", m.InvocationID, func(w *Workload) *string { return &w.InvocationID }, isAddress},
	} {
		t, err := parseTemplate(f.template)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		if t != nil {
			out.facts = append(out.facts, mappedFact{f.name, t, f.dst, f.ok})
		}
	}
	proposed, err := parseTemplate(m.Proposed)
	if err != nil {
		return nil, fmt.Errorf("proposed: %w", err)
	}
	if proposed != nil {
		out.facts = append(out.facts, mappedFact{"proposed", proposed, nil, oneOf("true", "false")})
	}
	return out, nil
}

// parseSubject reads the template of a subject, which is narrower than others.
func parseSubject(s string) ([]templatePart, error) {
	t, err := parseTemplate(s)
	if err != nil {
		return nil, err
	}
	if len(t) != 1 {
		return nil, errors.New("one template without alternatives is needed")
	}
	claims := 0
	for i, p := range t[0] {
		if p.claim == "" {
			continue
		}
		claims++
		switch {
		case p.claim == serverURLClaim:
			return nil, fmt.Errorf("{%s} tells no workloads apart", serverURLClaim)
		case len(p.cases) > 0:
			return nil, fmt.Errorf("{%s} has cases, which may make two values one", p.claim)
		case i > 0 && t[0][i-1].claim != "":
			return nil, fmt.Errorf("no text between {%s} and {%s}", t[0][i-1].claim, p.claim)
		}
	}
	if claims == 0 {
		return nil, errors.New("there is no claim in it: all callers would be one")
	}
	return t[0], nil
}

// readSubject writes the subject. A value in which the text after it occurs is
// refused, since "a/b" and "c" would read as "a" and "b/c".
func (m *mapping) readSubject(c claims) (string, error) {
	var b strings.Builder
	for i, p := range m.subject {
		if p.claim == "" {
			b.WriteString(p.text)
			continue
		}
		v, ok, err := c.text(p.claim)
		switch {
		case err != nil:
			return "", err
		case !ok:
			return "", refusal.New(CodeTokenClaimMissing, "claim %s is missing", p.claim)
		case i+1 < len(m.subject) && strings.Contains(v, m.subject[i+1].text):
			return "", refusal.New(CodeTokenClaimInvalid, "claim %s holds %q, which ends it in the subject", p.claim, m.subject[i+1].text)
		}
		b.WriteString(v)
	}
	if b.Len() > maxFactBytes {
		return "", refusal.New(CodeTokenClaimInvalid, "the subject has %d bytes; the limit is %d", b.Len(), maxFactBytes)
	}
	return b.String(), nil
}
