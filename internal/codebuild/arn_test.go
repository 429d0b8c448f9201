package codebuild

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseBuildARN(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		testARN.String(),
		"arn:aws-cn:codebuild:cn-north-1:111122223333:build/a-b_C9:" + testUUID,
		"arn:aws-us-gov:codebuild:us-gov-west-1:111122223333:build/app:" + testUUID,
		"arn:aws-eusc:codebuild:eusc-de-east-1:111122223333:build/app:" + testUUID,
		"arn:aws-iso-b:codebuild:us-isob-east-1:111122223333:build/app:" + testUUID,
	} {
		arn, err := ParseBuildARN(s)
		if err != nil || arn.String() != s {
			t.Errorf("ParseBuildARN(%s) = %s, %v", s, arn, err)
		}
	}
	good := testARN.String()
	for name, s := range map[string]string{
		"empty":                  "",
		"batch":                  strings.Replace(good, ":build/", ":build-batch/", 1),
		"project":                testARN.ProjectARN(),
		"id only":                testARN.ID(),
		"upper-case uuid":        strings.Replace(good, "0f1e", "0F1E", 1),
		"upper-case arn":         strings.Replace(good, "arn:", "ARN:", 1),
		"short account":          strings.Replace(good, testAccount, "11112222333", 1),
		"account of other digit": strings.Replace(good, testAccount, "11112222333٣", 1),
		"wildcard project":       strings.Replace(good, "/app:", "/*:", 1),
		"path in project":        strings.Replace(good, "/app:", "/../app:", 1),
		"slash in project":       strings.Replace(good, "/app:", "/a/app:", 1),
		"percent in project":     strings.Replace(good, "/app:", "/a%2fpp:", 1),
		"colon in project":       strings.Replace(good, "/app:", "/a:pp:", 1),
		"region of a host":       strings.Replace(good, testRegion, "eu-west-1.evil.example", 1),
		"region empty":           strings.Replace(good, testRegion, "", 1),
		"region elsewhere":       strings.Replace(good, testRegion, "cn-north-1", 1),
		"partition unknown":      strings.Replace(good, "arn:aws:", "arn:aws-evil:", 1),
		"partition elsewhere":    strings.Replace(good, "arn:aws:", "arn:aws-cn:", 1),
		"line end":               good + "\n",
		"space":                  " " + good,
		"NUL":                    good + "\x00",
		"two":                    good + good,
		"long":                   strings.Replace(good, "/app:", "/"+strings.Repeat("a", 600)+":", 1),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseBuildARN(s)
			wantCode(t, err, CodeBuildIDInvalid)
		})
	}
}

// TestARNRoundTrip: every ARN has one spelling.
func TestARNRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`^arn:`+partitionPattern+`:codebuild:`+regionPattern+`:`+accountPattern+`:build/[A-Za-z0-9][A-Za-z0-9_-]{1,20}:`+uuidPattern+`$`).Draw(t, "arn")
		arn, err := ParseBuildARN(s)
		if err == nil && arn.String() != s {
			t.Fatalf("%s became %s", s, arn)
		}
	})
}

func FuzzParseBuildARN(f *testing.F) {
	f.Add(testARN.String())
	f.Add("arn:aws:codebuild:eu-west-1:111122223333:build-batch/app:" + testUUID)
	f.Add("arn:::::/:")
	f.Fuzz(func(t *testing.T, s string) {
		if arn, err := ParseBuildARN(s); err == nil && arn.String() != s {
			t.Fatalf("%q became %q", s, arn)
		}
		parseRole(s, testARN)
	})
}

func TestParseRole(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"codebuild-app": "codebuild-app",
		"arn:aws:iam::111122223333:role/codebuild-app":              "codebuild-app",
		"arn:aws:iam::111122223333:role/service-role/codebuild-app": "codebuild-app",
		"arn:aws:iam::111122223333:role/a/b/c@d.e":                  "c@d.e",
	} {
		r, ok := parseRole(s, testARN)
		if !ok || r.name != want {
			t.Errorf("parseRole(%s) = %+v, %t", s, r, ok)
		}
	}
	for _, s := range []string{
		"", "*", "arn:aws:iam::444455556666:role/codebuild-app", "arn:aws-cn:iam::111122223333:role/codebuild-app",
		"arn:aws:iam::111122223333:user/codebuild-app", "arn:aws:sts::111122223333:assumed-role/codebuild-app/x",
		"arn:aws:iam::111122223333:role/", "arn:aws:iam::111122223333:role//x", "arn:aws:iam::*:role/codebuild-app",
		"service-role/codebuild-app", "arn:aws:iam::111122223333:role/x\n",
	} {
		if r, ok := parseRole(s, testARN); ok {
			t.Errorf("parseRole(%q) = %+v", s, r)
		}
	}
}
