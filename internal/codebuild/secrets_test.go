package codebuild

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"
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

// secretParameters are texts that give c4n4ry to a parameter that holds a secret.
var secretParameters = []string{
	"https://git.example.com/r.git?private_token=c4n4ry", "https://git.example.com/r.git?a=b&oauth_token=c4n4ry",
	"https://h.example/x?client_secret=c4n4ry", "https://h.example/x?auth_token=c4n4ry", "https://h.example/x?key=c4n4ry",
	"https://acct.blob.core.windows.net/c/b?sv=2022&sig=c4n4ry%3D", "https://h.example/x;jsessionid=c4n4ry",
	"https://h.example/cb#access_token=c4n4ry", "https://s3.example/b/k?X-Amz-Credential=c4n4ry", "?x-amz-security-token=c4n4ry",
	"PRIVATE_TOKEN=c4n4ry", "Client_Secret = c4n4ry", "clientSecret=c4n4ry", "userPass=c4n4ry", "db_pass='c4n4ry'", "pgpass=c4n4ry",
	"user[password]=c4n4ry", "my.api.key=c4n4ry", "x=sas=c4n4ry", "sig+=c4n4ry", "token := \"c4n4ry\"", "pat2=c4n4ry", "a,jwt=c4n4ry",
	`{"private_token":"c4n4ry"}`, `{'pw' : 'c4n4ry'}`, `{\"otp\": 0c4n4ry}`, "api_key: c4n4ry", "PRIVATE-TOKEN: c4n4ry",
	"mysql --password c4n4ry", "x -db-pass c4n4ry", `["--a","--client-secret","c4n4ry"]`, "--oauth-token\tc4n4ry",
	"?private%5ftoken=c4n4ry", "?private_token%3Dc4n4ry", "%3Fclient%5Fsecret%3dc4n4ry", "?%73%69%67=c4n4ry", "?private%255Ftoken=c4n4ry",
	"%252525253Fx", // escaped too often
}

func TestSecretParameters(t *testing.T) {
	t.Parallel()
	for _, s := range secretParameters {
		for _, around := range []string{"", " ", "x=", "a?b=c&"} {
			if !knownSecret(around+s+around) || !secretValue(around+s+around) {
				t.Errorf("%q is not taken for a secret", around+s+around)
			}
			if got := tellable(around + s + around); got != "" {
				t.Errorf("%q is told as %q", around+s+around, got)
			}
		}
	}
	for _, s := range []string{
		"arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/db-AbCdEf:password::", "prod/db:password:AWSCURRENT:", "/app/token",
		"arn:aws:kms:eu-west-1:111122223333:key/1234abcd", "acme/auth:latest", "arn:aws:codebuild:eu-west-1:111122223333:fleet/session:1",
		"refs/heads/main^{" + strings.Repeat("0a", 20) + "}", "feature/secret-santa", "fix-#123", "what?", "bucket/dt=2026-03-04/a.zip", "bypath=1",
		"token=", "token=&x=1", "a=1;b=2", "signal=9", "path=/x", "100%", "a%2Fb", "%zz%2", "--token", "--tokens --verbose", "-X main.version=1",
		"pr/7", "sha256:" + strings.Repeat("0a", 32), "https://h.example:8443/a/b.git",
	} {
		if knownSecret(s) || tellable(s) != s {
			t.Errorf("%q is taken for a secret", s)
		}
	}
}

// TestQueryNotTold: whatever its parameters are called.
func TestQueryNotTold(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"https://h/x?a=1", "https://h?", "HTTPS://h/x#frag", "see https://h/x?a=1", "https%3A%2F%2Fh%2Fx%3Fa", "https://h/x%3Fa=1", "s3://b/k#x"} {
		if tellable(s) != "" || !secretValue(s) {
			t.Errorf("%q is told", s)
		}
	}
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
	for _, s := range []string{"API_TOKEN", "token", "MY_SECRET", "DbPassword", "SIGNING_KEY", "apikey", "AWS_REGION", "aws_profile", "GIT_CREDENTIALS", "NPM_AUTH", "DATABASE_DSN", "GH_PAT", "DB_PASS", "dbPass", "PGPASS", "BLOB_SAS", "x-sig", "JWT"} {
		if !secretName(s) {
			t.Errorf("%s is told", s)
		}
	}
	for _, s := range []string{"STAGE", "GOFLAGS", "VERSION", "NODE_ENV", "LAWS_OF_PHYSICS", "PATH", "SIGNAL", "PASSES", "SASS_STYLE"} {
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
		odd := rapid.StringMatching(`[a-z:@/?#%\\&=.;\t -]{0,4}`)
		s := rapid.SampledFrom([]string{"https", "http", "ssh", "HTTPS"}).Draw(t, "scheme") + "://" +
			rapid.StringMatching(`[a-z]{0,3}`).Draw(t, "user") + ":" + canary +
			rapid.StringMatching(`[a-z:@/?#%\\&=.;-]{0,4}`).Draw(t, "odd") + "@host.example" + odd.Draw(t, "tail")
		notTold(t, s)
	})
}

// TestParameterNeverTold: nor is what a parameter is given whose name has a secret
// word in it, whatever is around it, and in any case and any escapes.
func TestParameterNeverTold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.SampledFrom([]string{"token", "secret", "password", "pwd", "key", "auth", "credential", "signature", "sig", "sas", "pat", "pass", "pw", "jwt", "otp"}).Draw(t, "word")
		name := rapid.SampledFrom([]string{"", "private_", "client-", "x.", "OAuth2_", "a["}).Draw(t, "before") + word + rapid.SampledFrom([]string{"", "_v2", "-id", ".x", "]"}).Draw(t, "after")
		name = rapid.SampledFrom([]func(string) string{strings.ToLower, strings.ToUpper, strings.Clone}).Draw(t, "case")(name)
		s := rapid.SampledFrom([]string{"", "https://h.example/x?", "https://h.example/x?a=1&", "main?", "x;", "curl -d '", "a=b=", "https://h.example/#"}).Draw(t, "left") +
			name + rapid.SampledFrom([]string{"=", " = ", "='", `": "`, ": "}).Draw(t, "sign") + canary + rapid.SampledFrom([]string{"", "&b=2", "'", " more"}).Draw(t, "right")
		for range rapid.IntRange(0, maxEscapes+2).Draw(t, "layers") {
			s = escape(t, s)
		}
		notTold(t, s)
	})
}

// escape writes some bytes of s as percent escapes, and every percent sign.
func escape(t *rapid.T, s string) string {
	which := rapid.SliceOfN(rapid.Bool(), len(s), len(s)).Draw(t, "escaped")
	var out strings.Builder
	for i := range len(s) {
		if which[i] || s[i] == '%' {
			fmt.Fprintf(&out, rapid.SampledFrom([]string{"%%%02x", "%%%02X"}).Draw(t, "digits"), s[i])
		} else {
			out.WriteByte(s[i])
		}
	}
	return out.String()
}

const canary = "c4n4ry"

// notTold fails if s is told by a field, an override or a variable.
func notTold(t *rapid.T, s string) {
	r := &record{plaintext: map[string]bool{"STAGE": true}}
	told := r.text("f", &s)
	if r.err != nil {
		told = strings.ReplaceAll(r.err.Error(), s, canary)
	}
	value, _ := r.value(&types.EnvironmentVariable{Name: aws.String("STAGE"), Value: &s})
	for _, told := range []string{told, tellable(s), value} {
		for range maxEscapes + 3 {
			if strings.Contains(told, canary) {
				t.Fatalf("%q tells %q", s, told)
			}
			told = unescape(told)
		}
	}
}

// FuzzTellable: what is told once is told again, as it is, and has no query.
func FuzzTellable(f *testing.F) {
	for _, s := range secretParameters {
		f.Add(s)
	}
	for _, s := range canaries {
		f.Add(s)
	}
	f.Add("https://user:pw@h/a?b#c")
	f.Fuzz(func(t *testing.T, s string) {
		got := tellable(s)
		if again := tellable(got); again != got {
			t.Fatalf("%q, then %q", got, again)
		}
		if knownSecret(got) || hasQuery(got) || len(got) > maxToldBytes {
			t.Fatalf("%q is told as %q", s, got)
		}
		// A layer of escapes hides nothing.
		var escaped strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&escaped, "%%%02x", s[i])
		}
		if knownSecret(s) && !knownSecret(escaped.String()) {
			t.Fatalf("%q is a secret, and not when it is escaped", s)
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
