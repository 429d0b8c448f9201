package codebuild

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// canaries are secrets in the forms that people leave in parameters, cut in two
// so that no scanner takes this file for a leak.
var canaries = map[string]string{
	"github":        "gh" + "p_0123456789abcdefghijABCDEFGHIJ012345",
	"github app":    "gh" + "s_0123456789abcdefghijABCDEFGHIJ012345",
	"github fine":   "github" + "_pat_11ABCDEFG0abcdefghijkl_0123456789",
	"gitlab":        "glpat" + "-abcdefghij0123456789",
	"aws key id":    "AKIA" + "IOSFODNN7EXAMPLE",
	"aws session":   "ASIA" + "IOSFODNN7EXAMPLE",
	"aws secret":    "wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY",
	"slack":         "xox" + "b-1234-abcdefgh",
	"jwt":           "ey" + "JhbGciOiJSUzI1NiJ9.ey" + "JzdWIiOiJ4In0.c2ln",
	"pem":           "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
	"pem, one line": "-----BEGIN " + "PRIVATE KEY-----\\nMIIE",
	"user":          "https://user:hunter2@git.example.com/x.git",
	"token as user": "https://hunter2@git.example.com/x.git",
	"dsn":           "user:hunter2@tcp.example.com:3306",
	"hex":           "9f86d081884c7d659a2feaa0c55ad015",
	"uuid":          "6d1c9e0a-83f4-4c27-b95e-70f2a81dd346",
	"random":        "Zk3mQ9xR7pL2vB8nT5wY",
	"parameter":     "?password=hunter2",
	"bearer":        "Authorization: Bearer abcdefghijkl",
	"stripe":        "sk_" + "live_abcdefgh",
}

func TestSecretValue(t *testing.T) {
	t.Parallel()
	for name, s := range canaries {
		for _, around := range []string{"", " ", "x=", "\n"} {
			if !secretValue(around + s + around) {
				t.Errorf("%s: %q is not taken for a secret", name, around+s+around)
			}
		}
	}
	for _, s := range []string{
		"", "production", "eu-west-1", "1.24.3", "true", "main", "build,test,deploy", "info", "0 4 * * 1",
		"https://registry.npmjs.org/", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app", "-Xmx2g -XX:+UseG1GC",
		"global-service-configuration-for-europe", "task-runner-something-very-long", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa1",
		"app:1.0@sha256:" + strings.Repeat("0", 64),
	} {
		if secretValue(s) {
			t.Errorf("%q is taken for a secret", s)
		}
	}
}

func TestSecretName(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"API_TOKEN", "token", "MY_SECRET", "DbPassword", "SIGNING_KEY", "apikey", "AWS_REGION", "aws_profile", "GIT_CREDENTIALS", "NPM_AUTH", "DATABASE_DSN"} {
		if !secretName(s) {
			t.Errorf("%s is told", s)
		}
	}
	for _, s := range []string{"STAGE", "GOFLAGS", "VERSION", "NODE_ENV", "LAWS_OF_PHYSICS"} {
		if secretName(s) {
			t.Errorf("%s is not told", s)
		}
	}
}

func TestWithoutUser(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://github.com/a/b.git":                "https://github.com/a/b.git",
		"https://user@github.com/a/b":               "https://github.com/a/b",
		"https://user:pw@github.com/a/b":            "https://github.com/a/b",
		"https://user:p@w@github.com/a/b":           "https://github.com/a/b",
		`https://user:pw\@github.com/a`:             "https://github.com/a",
		"https://user:pw@github.com":                "https://github.com",
		"https://github.com/a/b@c":                  "https://github.com/a/b@c",
		"https://u:p@h?x@y":                         "https://h?x@y",
		"bucket/path@x":                             "bucket/path@x",
		"codecommit::eu-west-1://profile@my-repo":   "codecommit::eu-west-1://my-repo",
		"https://@github.com/":                      "https://github.com/",
		"https://user%3Apw@github.com/":             "https://github.com/",
		"ssh://git@github.com/acme/app.git#user@xy": "ssh://github.com/acme/app.git#user@xy",
	} {
		if got := withoutUser(in); got != want {
			t.Errorf("withoutUser(%s) = %s; want %s", in, got, want)
		}
	}
}

// TestPasswordNeverTold: a password within a URL is removed, or the text is
// refused; however it is spelled it is not told.
func TestPasswordNeverTold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const canary = "c4n4ry"
		odd := rapid.StringMatching(`[a-z:@/?#%\\&=.;\t -]{0,4}`)
		s := rapid.SampledFrom([]string{"https", "http", "ssh", "HTTPS"}).Draw(t, "scheme") + "://" +
			rapid.StringMatching(`[a-z]{0,3}`).Draw(t, "user") + ":" + canary +
			rapid.StringMatching(`[a-z:@%\\&=.;-]{0,4}`).Draw(t, "odd") + "@host.example" + odd.Draw(t, "tail")
		r := &record{}
		if got := r.text("f", &s); r.err == nil && strings.Contains(got, canary) {
			t.Fatalf("%q tells %q", s, got)
		}
		if strings.Contains(tellable(s), canary) {
			t.Fatalf("%q tells %q", s, tellable(s))
		}
	})
}

func FuzzWithoutUser(f *testing.F) {
	f.Add("https://user:pw@host/")
	f.Add("a://b://c@d")
	f.Fuzz(func(t *testing.T, s string) {
		got := withoutUser(s)
		if again := withoutUser(got); again != got {
			t.Fatalf("%q, then %q", got, again)
		}
		secretValue(s)
	})
}
