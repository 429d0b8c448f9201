package identity

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
)

func hostileTimes(e *env) []hostile {
	now := e.clock.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	var cases []hostile
	for _, c := range []struct {
		name string
		over oidctest.Claims
		want refusal.Code
	}{
		{"exp missing", oidctest.Claims{"exp": nil}, CodeTokenClaimMissing},
		{"iat missing", oidctest.Claims{"iat": nil}, CodeTokenClaimMissing},
		{"exp a string", oidctest.Claims{"exp": "4102444800"}, CodeTokenClaimInvalid},
		{"exp a float", oidctest.Claims{"exp": json.RawMessage("4102444800.0")}, CodeTokenClaimInvalid},
		{"exp with an exponent", oidctest.Claims{"exp": json.RawMessage("4e9")}, CodeTokenClaimInvalid},
		{"exp negative", oidctest.Claims{"exp": -1}, CodeTokenClaimInvalid},
		{"exp minus zero", oidctest.Claims{"exp": json.RawMessage("-0")}, CodeTokenClaimInvalid},
		{"exp huge", oidctest.Claims{"exp": json.RawMessage("9223372036854775807")}, CodeTokenClaimInvalid},
		{"exp beyond 64 bits", oidctest.Claims{"exp": json.RawMessage("18446744073709551617")}, CodeTokenClaimInvalid},
		{"exp null", oidctest.Claims{"exp": json.RawMessage("null")}, CodeTokenClaimInvalid},
		{"exp true", oidctest.Claims{"exp": true}, CodeTokenClaimInvalid},
		{"exp a list", oidctest.Claims{"exp": []int64{at(time.Minute)}}, CodeTokenClaimInvalid},
		{"iat a string", oidctest.Claims{"iat": "0"}, CodeTokenClaimInvalid},
		{"nbf null", oidctest.Claims{"nbf": json.RawMessage("null")}, CodeTokenClaimInvalid},
		{"exp is iat", oidctest.Claims{"exp": at(0), "iat": at(0)}, CodeTokenClaimInvalid},
		{"exp before iat", oidctest.Claims{"exp": at(0), "iat": at(10)}, CodeTokenClaimInvalid},
		{"expired", oidctest.Claims{"exp": at(-time.Hour), "iat": at(-61 * time.Minute)}, CodeTokenExpired},
		{"expired to the second", oidctest.Claims{"exp": at(-60 * time.Second), "iat": at(-5 * time.Minute)}, CodeTokenExpired},
		{"issued in the future", oidctest.Claims{"iat": at(61 * time.Second)}, CodeTokenNotYetValid},
		{"valid in the future", oidctest.Claims{"nbf": at(61 * time.Second)}, CodeTokenNotYetValid},
		{"an hour and a second long", oidctest.Claims{"exp": at(time.Hour + time.Second)}, CodeTokenLifetimeTooLong},
		{"issued in 1970", oidctest.Claims{"iat": 0}, CodeTokenLifetimeTooLong},
		{"jti missing", oidctest.Claims{"jti": nil}, CodeTokenClaimMissing},
		{"jti empty", oidctest.Claims{"jti": ""}, CodeTokenClaimInvalid},
		{"jti a number", oidctest.Claims{"jti": 1}, CodeTokenClaimInvalid},
		{"jti null", oidctest.Claims{"jti": json.RawMessage("null")}, CodeTokenClaimInvalid},
		{"jti of 257 bytes", oidctest.Claims{"jti": strings.Repeat("j", 257)}, CodeTokenClaimInvalid},
		{"jti with a NUL", oidctest.Claims{"jti": "a\x00b"}, CodeTokenClaimInvalid},
	} {
		cases = append(cases, hostile{c.name, e.issuer.Mint(testAudience, c.over), c.want, true})
	}
	return cases
}

func hostileAudiences(e *env) []hostile {
	var cases []hostile
	for _, c := range []struct {
		name string
		aud  any
		want refusal.Code
	}{
		{"missing", nil, CodeTokenClaimMissing},
		{"null", json.RawMessage("null"), CodeTokenClaimInvalid},
		{"a number", 1, CodeTokenClaimInvalid},
		{"an object", map[string]string{"aud": testAudience}, CodeTokenClaimInvalid},
		{"a list in a list", [][]string{{testAudience}}, CodeTokenClaimInvalid},
		{"a list with null", []any{nil}, CodeTokenClaimInvalid},
		{"empty", "", CodeTokenAudienceMismatch},
		{"an empty list", []string{}, CodeTokenAudienceMismatch},
		{"another deployment", "https://assay.staging.example.com", CodeTokenAudienceMismatch},
		{"GitHub's default", "https://github.com/octo-org", CodeTokenAudienceMismatch},
		{"a prefix of ours", testAudience[:len(testAudience)-1], CodeTokenAudienceMismatch},
		{"ours and more", testAudience + ".evil.example", CodeTokenAudienceMismatch},
		{"ours with a slash", testAudience + "/", CodeTokenAudienceMismatch},
		{"ours in upper case", strings.ToUpper(testAudience), CodeTokenAudienceMismatch},
		{"ours and another", []string{testAudience, "https://other.example"}, CodeTokenAudienceMismatch},
		{"ours twice", []string{testAudience, testAudience}, CodeTokenAudienceMismatch},
		{"ours, separated by commas", testAudience + ",https://other.example", CodeTokenAudienceMismatch},
	} {
		cases = append(cases, hostile{"audience " + c.name, e.issuer.Mint(testAudience, oidctest.Claims{"aud": c.aud}), c.want, true})
	}
	return cases
}

func hostileClaims(e *env) []hostile {
	var cases []hostile
	add := func(name string, over oidctest.Claims, want refusal.Code) {
		cases = append(cases, hostile{name, e.issuer.Mint(testAudience, over), want, true})
	}
	for _, claim := range []string{
		"repository", "repository_id", "repository_owner", "repository_owner_id", "workflow_ref", "job_workflow_ref",
		"ref", "sha", "event_name", "runner_environment", "run_id", "run_attempt",
	} {
		add("no "+claim, oidctest.Claims{claim: nil}, CodeTokenClaimMissing)
		add("empty "+claim, oidctest.Claims{claim: ""}, CodeTokenClaimInvalid)
		add("null "+claim, oidctest.Claims{claim: json.RawMessage("null")}, CodeTokenClaimInvalid)
		add("list "+claim, oidctest.Claims{claim: []string{"x"}}, CodeTokenClaimInvalid)
	}
	for _, claim := range []string{"repository_id", "repository_owner_id", "run_id", "run_attempt", "run_number", "actor_id"} {
		for _, value := range []any{
			"0", "-1", "+65438921", "065438921", " 65438921", "65438921 ", "65438921\n", "65_438_921", "65438921.0", "6.5438921e7",
			"0x3e6820c", "٦٥", "9223372036854775808", strings.Repeat("9", 255), testOwnerID, json.RawMessage("65438921.0"), true,
		} {
			add("id "+claim+" "+string(must(json.Marshal(value))), oidctest.Claims{claim: value}, CodeTokenClaimInvalid)
		}
	}
	sha := strings.Repeat("a", 40)
	for claim, values := range map[string][]string{
		"repository": {"octo-org", "octo-org/", "/octo-app", "octo-org/octo-app/", "octo-org/octo-app/../other", "octo-org/..", "octo-org/.",
			"octo-org//octo-app", "octo org/octo-app", "octo-org/octo-app\n", "octo-org/octo-app@x", "evil-org/octo-app", "octo-org-evil/octo-app", "Octo-Org/octo-app"},
		"repository_owner":      {"evil-org", "octo", "octo-org/", "OCTO-ORG"},
		"repository_visibility": {"Private", "secret"},
		"sha":                   {sha[1:], sha + "a", strings.ToUpper(sha), "HEAD", "g" + sha[1:], sha + "\n"},
		"workflow_sha":          {sha[1:]},
		"job_workflow_sha":      {"main"},
		"ref": {"main", "heads/main", "refs/", "refs/heads/", "refs//main", "refs/heads/../main", "refs/heads/a..b", "refs/heads/.hidden",
			"refs/heads/a.lock", "refs/heads/a b", "refs/heads/a~1", "refs/heads/a^", "refs/heads/a:b", "refs/heads/a?", "refs/heads/a*", "refs/heads/[a",
			`refs/heads/a\b`, "refs/heads/a@{1}", "refs/heads/a.", "refs/heads/a\x7f", "xrefs/heads/main", "refs/heads/" + strings.Repeat("a", 512)},
		"ref_type":      {"Branch", "commit"},
		"ref_protected": {"yes", "True"},
		"workflow_ref": {"release.yml", "octo-org/octo-app@refs/heads/main", "octo-org/octo-app/x.yml", "octo-org/octo-app/x.yml@", "octo-org/octo-app/../../x.yml@refs/heads/main",
			"octo-org/octo-app//x.yml@refs/heads/main", "/octo-app/x.yml@refs/heads/main", "octo-org/octo-app/dir/@refs/heads/main"},
		"job_workflow_ref":   {"x", "octo-org/octo-app/@refs/heads/main", "octo-org/octo-app/./x.yml@main"},
		"event_name":         {"Push", "push ", "pull-request", "push,release"},
		"runner_environment": {"github-hosted ", "GitHub-hosted", "githubhosted", "trusted"},
		"environment":        {"a\nb", "a\x00", "a\u0085", "prod\u202e", "prod\u2066", strings.Repeat("e", 257)},
		"actor":              {"a\tb", "a\u200fb", "a\u2028b"},
		"head_ref":           {"a\x1bb", strings.Repeat("h", 513)},
		"base_ref":           {"a\rb"},
	} {
		for _, value := range values {
			add(claim+" "+string(must(json.Marshal(value))), oidctest.Claims{claim: value}, CodeTokenClaimInvalid)
		}
	}
	return cases
}
