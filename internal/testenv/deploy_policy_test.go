package testenv_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/attest"
)

// iamPolicy is a policy document, in the forms that docs/deploy uses.
type iamPolicy struct {
	Version   string
	Statement []iamStatement
}

type iamStatement struct {
	Sid       string
	Effect    string
	Principal map[string]oneOrMore            `json:",omitempty"`
	Action    oneOrMore                       `json:",omitempty"`
	Resource  oneOrMore                       `json:",omitempty"`
	Condition map[string]map[string]oneOrMore `json:",omitempty"`
}

// oneOrMore is a string or a list of strings.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		*o = make([]string, 1)
		return json.Unmarshal(b, &(*o)[0])
	}
	return json.Unmarshal(b, (*[]string)(o))
}

func (p *iamPolicy) String() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// without takes an action out of every statement, or a resource.
func (p *iamPolicy) without(action, resource string) {
	for i := range p.Statement {
		s := &p.Statement[i]
		if resource == "" {
			s.Action = slices.DeleteFunc(s.Action, func(a string) bool { return a == action })
			continue
		}
		s.Resource = slices.DeleteFunc(s.Resource, func(r string) bool { return r == resource })
	}
	p.Statement = slices.DeleteFunc(p.Statement, func(s iamStatement) bool { return len(s.Action) == 0 || len(s.Resource) == 0 })
}

var placeholder = regexp.MustCompile(`\$?\$\{([^}]*)\}`)

// render fills in a template as Terraform's templatefile does. A list is written as
// jsonencode writes it. Variables that are not given or not used are mistakes.
func render(t testing.TB, template string, vars map[string]any) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployDir, "policies", template))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "%{") {
		t.Fatalf("%s has a directive, which is not rendered here", template)
	}
	used := map[string]bool{}
	out := placeholder.ReplaceAllStringFunc(string(text), func(m string) string {
		if strings.HasPrefix(m, "$$") {
			return m[1:] // a policy variable
		}
		name := strings.Trim(m, "${}")
		v, ok := vars[name]
		used[name] = true
		switch v := v.(type) {
		case string:
			return v
		case []string:
			b, _ := json.Marshal(v)
			return string(b)
		}
		t.Errorf("%s: nothing is given for %s (%v)", template, name, ok)
		return ""
	})
	for name := range vars {
		if !used[name] {
			t.Errorf("%s does not use %s", template, name)
		}
	}
	return []byte(out)
}

// parsePolicy renders a template and holds it to the grammar of IAM and to what is
// allowed here: no patterns of actions, and "*" as a resource only where AWS knows
// no other.
func parsePolicy(t testing.TB, template string, vars map[string]any) *iamPolicy {
	t.Helper()
	var p iamPolicy
	if err := attest.DecodeStrict(render(t, template, vars), 1<<16, &p); err != nil {
		t.Fatalf("%s: %v", template, err)
	}
	if p.Version != "2012-10-17" || len(p.Statement) == 0 {
		t.Fatalf("%s has version %q and %d statements", template, p.Version, len(p.Statement))
	}
	sids := map[string]bool{}
	for _, s := range p.Statement {
		if !regexp.MustCompile(`^[A-Za-z0-9]+$`).MatchString(s.Sid) || sids[s.Sid] {
			t.Errorf("%s: Sid %q", template, s.Sid)
		}
		sids[s.Sid] = true
		// A key policy names principals, and as a resource the key that it belongs to.
		trust, key := strings.Contains(template, "-trust"), strings.HasPrefix(template, "key-")
		if (trust || key) != (s.Principal != nil) || trust == (s.Resource != nil) || key && !slices.Equal(s.Resource, []string{"*"}) || len(s.Action) == 0 || s.Effect != "Allow" && !strings.HasPrefix(template, "scp-") {
			t.Errorf("%s: statement %s is neither of a trust policy nor of permissions", template, s.Sid)
		}
		for _, a := range s.Action {
			if !regexp.MustCompile(`^[a-z0-9]+:[A-Z][A-Za-z]+$`).MatchString(a) {
				t.Errorf("%s: action %q", template, a)
			}
		}
		for _, r := range s.Resource {
			if r == "*" && !key && !slices.Contains([]string{"sts:GetWebIdentityToken", "sts:TagGetWebIdentityToken", "signer:GetRevocationStatus"}, s.Action[0]) || !strings.HasPrefix(r, "arn:") && r != "*" {
				t.Errorf("%s: resource %q", template, r)
			}
		}
		for _, names := range s.Principal {
			if slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "*") }) {
				t.Errorf("%s trusts %v", template, names)
			}
		}
	}
	return &p
}

// question is the context of a request: keys, in lower case, and their values.
type question map[string][]string

// unresolved is what becomes of a statement with a policy variable that has no value.
// AWS documents both.
type unresolved int

const (
	asNull    unresolved = iota // it equals nothing: positive operators fail, negated ones hold
	asInvalid                   // the statement is not in effect
)

// holds evaluates the conditions of a statement.
func (s *iamStatement) holds(t testing.TB, q question, mode unresolved) bool {
	t.Helper()
	for operator, keys := range s.Condition {
		for key, values := range keys {
			want, resolved := resolve(values, q)
			if !resolved && mode == asInvalid || !compare(t, operator, q[strings.ToLower(key)], want) {
				return false
			}
		}
	}
	return true
}

// resolve puts the values of policy variables in; a variable without one makes its
// text nothing that could be compared.
func resolve(values []string, q question) (out []string, resolved bool) {
	resolved = true
	for _, v := range values {
		null := false
		v = placeholder.ReplaceAllStringFunc(v, func(m string) string {
			got := q[strings.ToLower(strings.Trim(m, "${}"))]
			if len(got) != 1 {
				null = true
				return ""
			}
			return got[0]
		})
		if null {
			resolved = false
			continue
		}
		out = append(out, v)
	}
	return out, resolved
}

func compare(t testing.TB, operator string, got, want []string) bool {
	t.Helper()
	if operator == "Null" {
		return (want[0] == "true") == (len(got) == 0)
	}
	set, base, ok := strings.Cut(operator, ":")
	if !ok {
		set, base = "", operator
	}
	equal := func(a, b string) bool { return a == b }
	base, negated := strings.CutSuffix(strings.Replace(base, "StringNot", "String", 1)+map[bool]string{true: "!"}[strings.Contains(base, "StringNot")], "!")
	switch base {
	case "StringEquals":
	case "StringEqualsIgnoreCase":
		equal = strings.EqualFold
	default:
		t.Fatalf("operator %s is not evaluated here", operator)
	}
	matches := func(v string) bool {
		return slices.ContainsFunc(want, func(w string) bool { return equal(v, w) }) != negated
	}
	switch {
	case set == "ForAnyValue":
		return slices.ContainsFunc(got, matches)
	case set == "ForAllValues":
		return !slices.ContainsFunc(got, func(v string) bool { return !matches(v) })
	case set != "" || len(got) > 1:
		t.Fatalf("%s compares %q with %q", operator, got, want)
	case len(got) == 0:
		return negated
	}
	return matches(got[0])
}

// tokenRequests are the contexts in which AWS may evaluate a request for a token
// with these tags. Condition keys are the same in capitals, tags are not: AWS
// documents that aws:RequestTag/k matches k or K, but not both, and so any of the
// values, and none, may stand under it.
func tokenRequests(build string, tags map[string]string) []question {
	q := question{"sts:identitytokenaudience": {"https://assay.example.com"}, "aws:tagkeys": slices.Sorted(maps.Keys(tags))}
	if build != "" {
		q["codebuild:buildarn"] = []string{build}
	}
	values := map[string][]string{}
	for k, v := range tags {
		key := "aws:requesttag/" + strings.ToLower(k)
		values[key] = append(values[key], v)
	}
	out := []question{q}
	for key, list := range values {
		var next []question
		for _, q := range out {
			for _, v := range list {
				with := maps.Clone(q)
				with[key] = []string{v}
				next = append(next, with)
			}
			if len(list) > 1 {
				next = append(next, q)
			}
		}
		out = next
	}
	return out
}

const (
	tag       = "codebuild-build-arn"
	ownBuild  = "arn:aws:codebuild:eu-central-1:111122223333:build/app:0d5c3c5e-1c1f-4f0e-9c52-3f1c63c1a6f5"
	elseBuild = "arn:aws:codebuild:eu-central-1:111122223333:build/app:11111111-1c1f-4f0e-9c52-3f1c63c1a6f5"
)

// TestServiceControlPolicy: a token names the build that asked for it, in the one
// spelling, or no build at all; however AWS treats a variable without a value.
func TestServiceControlPolicy(t *testing.T) {
	t.Parallel()
	scp := parsePolicy(t, "scp-pin-build-tag.json", map[string]any{"build_tag": tag})
	for _, s := range scp.Statement {
		if s.Effect != "Deny" || !slices.Equal(s.Action, []string{"sts:GetWebIdentityToken", "sts:TagGetWebIdentityToken"}) || !slices.Equal(s.Resource, []string{"*"}) {
			t.Errorf("%+v", s)
		}
	}
	upper := strings.ToUpper(tag)
	cases := map[string]struct {
		build  string
		tags   map[string]string
		denied bool
		by     string // the one statement without which it would pass, in some reading
	}{
		"a role":                      {"", nil, false, ""},
		"a role, other tags":          {"", map[string]string{"team": "a", "env": "b"}, false, ""},
		"a build":                     {ownBuild, nil, false, ""},
		"a build, other tags":         {ownBuild, map[string]string{"team": "a"}, false, ""},
		"a build names itself":        {ownBuild, map[string]string{tag: ownBuild}, false, ""},
		"a role names a build":        {"", map[string]string{tag: elseBuild}, true, "OnlyABuildNamesABuild"},
		"a role, an empty name":       {"", map[string]string{tag: ""}, true, "OnlyABuildNamesABuild"},
		"a role, the variable's text": {"", map[string]string{tag: "${codebuild:BuildArn}"}, true, "OnlyABuildNamesABuild"},
		"a build names another":       {ownBuild, map[string]string{tag: elseBuild}, true, "ABuildNamesOnlyItself"},
		"a build names no build":      {ownBuild, map[string]string{tag: ""}, true, "ABuildNamesOnlyItself"},
		"a build, in capitals":        {ownBuild, map[string]string{tag: strings.ToUpper(ownBuild)}, true, "ABuildNamesOnlyItself"},
		"a build, a pattern":          {ownBuild, map[string]string{tag: "*"}, true, "ABuildNamesOnlyItself"},
		"another spelling":            {ownBuild, map[string]string{upper: ownBuild}, true, "ThatTagInOneSpellingAndAlone"},
		"both spellings":              {ownBuild, map[string]string{tag: elseBuild, upper: ownBuild}, true, "ThatTagInOneSpellingAndAlone"},
		"a role, both spellings":      {"", map[string]string{tag: elseBuild, upper: elseBuild}, true, ""},
		"with another tag":            {ownBuild, map[string]string{tag: ownBuild, "team": "a"}, true, "ThatTagInOneSpellingAndAlone"},
	}
	missed := map[string]bool{}
	for name, c := range cases {
		for _, q := range tokenRequests(c.build, c.tags) {
			for _, mode := range []unresolved{asNull, asInvalid} {
				var by []string
				for _, s := range scp.Statement {
					if s.holds(t, q, mode) {
						by = append(by, s.Sid)
					}
				}
				if (len(by) > 0) != c.denied {
					t.Errorf("%s: denied by %q, want denied %v; in the context %v, mode %d", name, by, c.denied, q, mode)
				}
				if len(by) == 1 {
					missed[name+by[0]] = true
				}
			}
		}
		if c.by != "" && !missed[name+c.by] {
			t.Errorf("%s: not for want of %s", name, c.by)
		}
	}
}

// TestWebIdentityPolicies: a role gets tokens for Assay alone, and a build may put
// its own name into them and nothing else.
func TestWebIdentityPolicies(t *testing.T) {
	t.Parallel()
	const audience = "https://assay.example.com"
	token := parsePolicy(t, "web-identity.json", map[string]any{"audience": audience}).Statement[0]
	tagged := parsePolicy(t, "web-identity-tag.json", map[string]any{"build_tag": tag}).Statement[0]
	if fmt.Sprint(token.Action, tagged.Action) != "[sts:GetWebIdentityToken] [sts:TagGetWebIdentityToken]" {
		t.Errorf("%v %v", token.Action, tagged.Action)
	}
	for name, c := range map[string]struct {
		audience []string
		want     bool
	}{
		"Assay":            {[]string{audience}, true},
		"none":             {nil, false},
		"another":          {[]string{"https://evil.example"}, false},
		"both":             {[]string{audience, "https://evil.example"}, false},
		"one in capitals":  {[]string{strings.ToUpper(audience)}, false},
		"one that is more": {[]string{audience + ".evil.example"}, false},
	} {
		if got := token.holds(t, question{"sts:identitytokenaudience": c.audience}, asNull); got != c.want {
			t.Errorf("audience %s: %v", name, got)
		}
	}
	for name, c := range map[string]struct {
		build string
		tags  map[string]string
		want  bool
	}{
		"itself":           {ownBuild, map[string]string{tag: ownBuild}, true},
		"another":          {ownBuild, map[string]string{tag: elseBuild}, false},
		"nothing":          {ownBuild, map[string]string{"team": "a"}, false},
		"itself and more":  {ownBuild, map[string]string{tag: ownBuild, "team": "a"}, false},
		"another spelling": {ownBuild, map[string]string{strings.ToUpper(tag): ownBuild}, false},
		"no build":         {"", map[string]string{tag: ownBuild}, false},
		"no build, empty":  {"", map[string]string{tag: ""}, false},
	} {
		for _, q := range tokenRequests(c.build, c.tags) {
			for _, mode := range []unresolved{asNull, asInvalid} {
				if got := tagged.holds(t, q, mode); got != c.want {
					t.Errorf("tag %s: %v", name, got)
				}
			}
		}
	}
}

// TestDecrypt: the reader decrypts through S3 of the regions of its projects only.
func TestDecrypt(t *testing.T) {
	t.Parallel()
	key := []string{"arn:aws:kms:eu-central-1:111122223333:key/0d5c3c5e-1c1f-4f0e-9c52-3f1c63c1a6f5"}
	s := parsePolicy(t, "reader-kms.json", map[string]any{"key_arns": key, "s3_services": []string{"s3.eu-central-1.amazonaws.com"}}).Statement[0]
	if !slices.Equal(s.Action, []string{"kms:Decrypt"}) || !slices.Equal(s.Resource, key) {
		t.Errorf("%+v", s)
	}
	for via, want := range map[string]bool{
		"s3.eu-central-1.amazonaws.com": true, "s3.us-east-1.amazonaws.com": false,
		"secretsmanager.eu-central-1.amazonaws.com": false, "": false,
	} {
		q := question{}
		if via != "" {
			q["kms:viaservice"] = []string{via}
		}
		if got := s.holds(t, q, asNull); got != want {
			t.Errorf("by way of %q: %v", via, got)
		}
	}
}
