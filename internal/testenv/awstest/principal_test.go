package awstest

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestPermissionsProperty sees that nothing is allowed unless something allows it,
// that a deny never allows more and an allow never less.
func TestPermissionsProperty(t *testing.T) {
	t.Parallel()
	action := rapid.SampledFrom([]string{"s3:GetObject", "s3:Get*", "s3:*", "*", "iam:GetRole", "IAM:getrole", "sts:?*"})
	resource := rapid.SampledFrom([]string{"*", "arn:aws:s3:::a/*", "arn:aws:s3:::a/b", "arn:aws:s3:::?/b"})
	one := rapid.Custom(func(t *rapid.T) grant {
		return grant{action.Draw(t, "action"), []string{resource.Draw(t, "resource")}}
	})
	rapid.Check(t, func(t *rapid.T) {
		p := permissions{allow: rapid.SliceOfN(one, 0, 3).Draw(t, "allow"), deny: rapid.SliceOfN(one, 0, 2).Draw(t, "deny")}
		a, r := action.Draw(t, "asked"), resource.Draw(t, "of")
		before := p.allows(a, r)
		if before && len(p.allow) == 0 {
			t.Fatal("allowed by nothing")
		}
		if before && p.denies(a, r) {
			t.Fatal("allowed in spite of a deny")
		}
		extra := one.Draw(t, "extra")
		more := permissions{allow: append([]grant{extra}, p.allow...), deny: p.deny}
		if before && !more.allows(a, r) {
			t.Fatal("an allow takes away")
		}
		less := permissions{allow: p.allow, deny: append([]grant{extra}, p.deny...)}
		if !before && less.allows(a, r) {
			t.Fatal("a deny allows")
		}
	})
}

// TestLikeProperty compares patterns with regular expressions.
func TestLikeProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*?]{0,8}`).Draw(t, "pattern")
		text := rapid.StringMatching(`[ab.]{0,8}`).Draw(t, "text")
		expr := "^(?s:" + strings.NewReplacer("*", ".*", "?", ".").Replace(pattern) + ")$"
		if got, want := like(pattern, text), regexp.MustCompile(expr).MatchString(text); got != want {
			t.Fatalf("like(%q, %q) = %v", pattern, text, got)
		}
	})
}

// TestTrustProperty sees that a Deny statement never lets anybody more in, and that
// no condition does.
func TestTrustProperty(t *testing.T) {
	t.Parallel()
	acct := newWorld(t).Account(testAccount)
	caller := party{kind: "AWS", principal: &principal{account: acct, arn: acct.arn("iam", "", "user/alice"), kind: userOfAccount}}
	who := rapid.SampledFrom([]string{`"*"`, `{"AWS":"111122223333"}`, `{"AWS":["arn:aws:iam::111122223333:user/alice"]}`,
		`{"AWS":"444455556666"}`, `{"Service":"codebuild.amazonaws.com"}`, `{"Federated":"*"}`, `"x"`, `5`})
	condition := rapid.SampledFrom([]string{``, `,"Condition":{"StringEquals":{"sts:ExternalId":"id"}}`,
		`,"Condition":{"StringNotEquals":{"sts:ExternalId":"id"}}`, `,"Condition":{"What":{"x":"y"}}`,
		`,"Condition":{"Null":{"aws:SourceAccount":true}}`, `,"Condition":{"StringLikeIfExists":{"aws:SourceArn":"x"}}`})
	statement := func(t *rapid.T, effect, label string) (bare, whole string) {
		bare = `{"Effect":"` + effect + `","Action":"sts:AssumeRole","Principal":` + who.Draw(t, label)
		return bare + "}", bare + condition.Draw(t, label+" condition") + "}"
	}
	rapid.Check(t, func(t *rapid.T) {
		context := map[string]string{"sts:ExternalId": rapid.SampledFrom([]string{"", "id", "other"}).Draw(t, "external id")}
		judge := func(statements ...string) trust {
			r := &Role{account: acct, trust: `{"Statement":[` + strings.Join(statements, ",") + `]}`}
			return r.judge(caller, context)
		}
		bare, whole := statement(t, "Allow", "allow")
		_, deny := statement(t, "Deny", "deny")
		if judge(whole) > judge(bare) {
			t.Fatal("a condition lets more in")
		}
		if judge(whole, deny) > judge(whole) || judge(deny) != untrusted {
			t.Fatal("a deny lets in")
		}
	})
}
