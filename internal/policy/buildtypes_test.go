package policy

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	inJob      = instance + "/builders/codebuild/in-job"
	postBuild  = instance + "/builders/codebuild/post-build"
	gitLab     = instance + "/builders/gitlab/hosted"
	buildkite  = instance + "/builders/buildkite/self-hosted"
	workload   = instance + "/builders/workload"
	awsRole    = instance + "/builders/aws-role"
	x509       = instance + "/builders/x509"
	imageHash  = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	buildARN   = "arn:aws:codebuild:eu-west-1:111122223333:build/app:0f2b5a2c-93a1-4b7e-9d3f-0b1f6e0a7c11"
	projectARN = "arn:aws:codebuild:eu-west-1:111122223333:project/app"
)

var commit = strings.Repeat("c", 40)

// Predicates as package provenance writes them, abridged to what is read.
var (
	codeBuildPredicate = `{"buildDefinition":{"buildType":"` + buildTypeCodeBuild + `","externalParameters":{
		"project":{"arn":"` + projectARN + `"},
		"source":{"type":"GITHUB","location":"https://github.com/acme/app.git","version":"refs/heads/main^{` + commit + `}"},
		"buildspec":{"location":"buildspec.yml"},
		"environment":{"type":"LINUX_CONTAINER","image":"registry.example/build@sha256:` + imageHash + `","privilegedMode":true},
		"environmentVariables":[],"artifacts":[],
		` + overridden + `},
		"internalParameters":{"codebuild":{"mode":"in-job","buildArn":"` + buildARN + `","account":"111122223333","region":"eu-west-1",
			"initiator":"GitHub-Hookshot/1","serviceRole":"arn:aws:iam::111122223333:role/codebuild-app"},
			"assay":{"slsaBuildLevel":2,"downgrades":["privileged-override"]}},
		"resolvedDependencies":[{"name":"image","uri":"oci://registry.example/build","digest":{"sha256":"` + imageHash + `"}},
			{"name":"source","uri":"git+https://github.com/acme/app@refs/heads/main","digest":{"gitCommit":"` + commit + `"}}]},
		"runDetails":{"builder":{"id":"` + inJob + `"},"metadata":{"invocationId":"` + buildARN + `"}}}`

	jobPredicate = `{"buildDefinition":{"buildType":"` + buildTypeCIJob + `","externalParameters":{
		"source":{"repository":"https://gitlab.com/acme/app","ref":"refs/heads/main"}},
		"internalParameters":{"ci":{"platform":"gitlab","issuer":"https://gitlab.com","subject":"project/278964","account":"acme","accountId":"77",
			"repositoryId":"278964","event":"push","runner":"hosted","environment":"production"},"assay":{"slsaBuildLevel":2}},
		"resolvedDependencies":[{"name":"source","uri":"git+https://gitlab.com/acme/app@refs/heads/main","digest":{"gitCommit":"` + commit + `"}}]},
		"runDetails":{"builder":{"id":"` + gitLab + `"},"metadata":{"invocationId":"https://gitlab.com/acme/app/-/jobs/12345678901234567"}}}`

	principalPredicate = `{"buildDefinition":{"buildType":"` + buildTypePrincipal + `","externalParameters":{"process":"unknown"},
		"internalParameters":{"principal":{"kind":"aws-role","issuer":"https://sts.amazonaws.com","account":"111122223333",
			"roleArn":"arn:aws:iam::111122223333:role/deploy","via":"sts"},"assay":{"slsaBuildLevel":0}}},
		"runDetails":{"builder":{"id":"` + awsRole + `"}}}`
)

// asConfigured is codeBuildPredicate of a build that overrides nothing.
var asConfigured = strings.Replace(codeBuildPredicate, overridden, `"overrides":[]`, 1)

const overridden = `"overrides":[{"field":"environment.image","project":"a","build":"b"},{"field":"source.buildspec"}]`

// edited returns base after replacing each odd text with the even one behind it.
func edited(tb testing.TB, base string, pairs ...string) string {
	tb.Helper()
	for i := 0; i < len(pairs); i += 2 {
		after := strings.Replace(base, pairs[i], pairs[i+1], 1)
		if after == base {
			tb.Fatalf("nothing to replace: %s", pairs[i])
		}
		base = after
	}
	return base
}

// askAll is ask with every builder of an instance.
func askAll(environment string) Question {
	q := ask(environment)
	maps.Copy(q.BuilderLevels, map[string]int{inJob: 2, postBuild: 3, gitLab: 2, buildkite: 1, workload: 1, awsRole: 0, x509: 0})
	return q
}

func TestFactsOfBuildTypes(t *testing.T) {
	common := func(builder, level, platform string) map[string]string {
		return map[string]string{
			"builderId": builder, "slsaBuildLevel": level, "platform": platform, "pullRequest": "false", "trusted": "true",
			"sandbox": "false", "subjectOrigin": "hashed", "signedAt": "2026-03-01T11:00:00Z",
		}
	}
	codeBuild, job, principal := common(inJob, "2", "codebuild"), common(gitLab, "2", "gitlab"), common(awsRole, "0", "aws-role")
	maps.Copy(codeBuild, map[string]string{
		"buildType": buildTypeCodeBuild, "downgrades": "privileged-override", "overrides": "environment.image, source.buildspec",
		"account": "111122223333", "region": "eu-west-1", "projectArn": projectARN, "initiator": "GitHub-Hookshot/1",
		"serviceRole": "arn:aws:iam::111122223333:role/codebuild-app", "image": "registry.example/build@sha256:" + imageHash,
		"imageDigest": imageHash, "privileged": "true", "ref": "refs/heads/main", "sourceCommit": commit,
		"repository": "https://github.com/acme/app", "sourceUri": "git+https://github.com/acme/app@refs/heads/main", "invocationId": buildARN,
	})
	maps.Copy(job, map[string]string{
		"buildType": buildTypeCIJob, "repository": "https://gitlab.com/acme/app", "repositoryId": "gitlab:278964",
		"repositoryOwnerId": "gitlab:77", "ref": "refs/heads/main", "sourceCommit": commit, "eventName": "push", "runner": "hosted",
		"environment": "production", "sourceUri": "git+https://gitlab.com/acme/app@refs/heads/main",
		"invocationId": "https://gitlab.com/acme/app/-/jobs/12345678901234567",
	})
	maps.Copy(principal, map[string]string{
		"buildType": buildTypePrincipal, "account": "111122223333", "roleArn": "arn:aws:iam::111122223333:role/deploy", "pullRequest": "true",
	})
	set := defaultSet(t)
	for predicate, want := range map[string]map[string]string{codeBuildPredicate: codeBuild, jobPredicate: job, principalPredicate: principal} {
		got := map[string]string{}
		for name, value := range judge(t, set, askAll("dev"), build{Predicate: predicate}).Facts {
			got[strings.TrimPrefix(name, "provenance.")] = value
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want["platform"], diff)
		}
	}
}

// TestOneFact changes a predicate in one place and looks at one fact.
func TestOneFact(t *testing.T) {
	version := func(v string) []string { return []string{`"refs/heads/main^{` + commit + `}"`, fmt.Sprintf("%q", v)} }
	tests := []struct {
		name       string
		base       string
		edit       []string
		fact, want string // "" is for a fact that must not exist
	}{
		{"codebuild pull request", codeBuildPredicate, version("pr/7"), "pullRequest", "true"},
		{"codebuild resolved pull request", codeBuildPredicate, version("pr/7^{" + commit + "}"), "pullRequest", "true"},
		{"codebuild pull ref", codeBuildPredicate, version("refs/pull/7/head^{" + commit + "}"), "pullRequest", "true"},
		{"codebuild merge request", codeBuildPredicate, version("refs/merge-requests/7/head"), "pullRequest", "true"},
		{"codebuild branch that looks like one", codeBuildPredicate, version("refs/heads/pr/7"), "pullRequest", "false"},
		{"codebuild secondary pull request", codeBuildPredicate, []string{`"buildspec":{`, `"secondarySources":[{"version":"main"},{"version":"pr/7"}],"buildspec":{`}, "pullRequest", "true"},
		{"codebuild commit", codeBuildPredicate, version(commit), "ref", ""},
		{"codebuild short name", codeBuildPredicate, version("main"), "ref", ""},
		{"codebuild tag", codeBuildPredicate, version("refs/tags/v1"), "ref", "refs/tags/v1"},
		{"codebuild branch at its commit", codeBuildPredicate, nil, "ref", "refs/heads/main"},
		{"codebuild branch", codeBuildPredicate, version("refs/heads/main"), "ref", "refs/heads/main"},
		{"codebuild branch at another commit", codeBuildPredicate, version("refs/heads/main^{" + strings.Repeat("d", 40) + "}"), "ref", ""},
		{"codebuild branch at part of its commit", codeBuildPredicate, version("refs/heads/main^{" + commit[:12] + "}"), "ref", ""},
		{"codebuild branch at its commit, and more", codeBuildPredicate, version("refs/heads/main^{" + commit + "}^{x}"), "ref", ""},
		{"codebuild branch's parent", codeBuildPredicate, version("refs/heads/main^"), "ref", ""},
		{"codebuild branch at no commit", codeBuildPredicate, append(version("refs/heads/main^{}"), `,"digest":{"gitCommit":"`+commit+`"}`, ""), "ref", ""},
		{"codebuild branch at an unresolved commit", codeBuildPredicate, []string{`,"digest":{"gitCommit":"` + commit + `"}`, ""}, "ref", ""},
		{"codebuild default branch", codeBuildPredicate, []string{`,"version":"refs/heads/main^{` + commit + `}"`, ""}, "pullRequest", "false"},
		{"codebuild image by tag", codeBuildPredicate, []string{`"registry.example/build@sha256:` + imageHash + `"`, `"aws/codebuild/standard:7.0"`}, "imageDigest", ""},
		{"codebuild without privileges", codeBuildPredicate, []string{`"privilegedMode":true`, `"privilegedMode":false`}, "privileged", "false"},
		{"codebuild silent on privileges", codeBuildPredicate, []string{`,"privilegedMode":true`, ""}, "privileged", ""},
		{"codebuild from S3", codeBuildPredicate, []string{`git+https://github.com/acme/app@refs/heads/main`, `s3://bucket/key`}, "repository", ""},
		{"codebuild dependency of another name", codeBuildPredicate, []string{`"name":"source"`, `"name":"source/two"`}, "sourceCommit", ""},
		{"codebuild account", codeBuildPredicate, nil, "account", "111122223333"},
		{"codebuild account in China", codeBuildPredicate, []string{`"arn":"arn:aws:`, `"arn":"arn:aws-cn:`}, "account", "aws-cn:111122223333"},
		{"role's account for the government", principalPredicate, []string{`arn:aws:iam`, `arn:aws-us-gov:iam`}, "account", "aws-us-gov:111122223333"},
		{"role's account", principalPredicate, nil, "account", "111122223333"},
		{"job proposed", jobPredicate, []string{`"event":"push"`, `"event":"merge_request_event","proposed":true`}, "pullRequest", "true"},
		{"job of a merge ref", jobPredicate, []string{`"ref":"refs/heads/main"`, `"ref":"refs/merge-requests/3/head"`}, "pullRequest", "true"},
		{"job of a made-up platform", jobPredicate, []string{`"platform":"gitlab"`, `"platform":"github-actions"`}, "platform", "workload"},
		{"job's id beside GitHub's", jobPredicate, []string{`"repositoryId":"278964"`, `"repositoryId":"1001"`}, "repositoryId", "gitlab:1001"},
		{"job without ids", jobPredicate, []string{`"repositoryId":"278964",`, ""}, "repositoryId", ""},
		{"job by commit alone", jobPredicate, []string{`"uri":"git+https://gitlab.com/acme/app@refs/heads/main",`, ""}, "repository", ""},
		{"certificate", principalPredicate, []string{`"kind":"aws-role"`, `"kind":"workload","platform":"x509","subject":"spiffe://acme/ci"`}, "platform", "x509"},
		{"certificate's account", principalPredicate, []string{`"kind":"aws-role"`, `"kind":"workload","platform":"x509","subject":"spiffe://acme/ci"`}, "account", ""},
		{"certificate's subject", principalPredicate, []string{`"kind":"aws-role"`, `"kind":"workload","platform":"x509","subject":"spiffe://acme/ci"`}, "subject", "spiffe://acme/ci"},
		{"service of a made-up platform", principalPredicate, []string{`"kind":"aws-role"`, `"kind":"workload","platform":"aws-role"`}, "platform", "workload"},
		{"github environment", build{}.predicate(t), []string{`"event_name"`, `"environment":"production","event_name"`}, "environment", "production"},
		{"github.com's repository", build{}.predicate(t), nil, "repositoryId", "1001"},
		{"github.com's owner", build{}.predicate(t), nil, "repositoryOwnerId", "77"},
		{"repository of another GitHub", build{Repository: "https://ghes.example.com/acme/app"}.predicate(t), nil, "repositoryId", "ghes.example.com:1001"},
		{"owner of another GitHub", build{Repository: "https://ghes.example.com/acme/app"}.predicate(t), nil, "repositoryOwnerId", "ghes.example.com:77"},
		{"owner with data residency", build{Repository: "https://acme.ghe.com/acme/app"}.predicate(t), nil, "repositoryOwnerId", "acme.ghe.com:77"},
		{"a port", build{Repository: "https://github.com:8443/acme/app"}.predicate(t), nil, "repositoryId", "github.com:8443:1001"},
		{"a server below a path", build{Repository: "https://example.com/git/acme/app"}.predicate(t), nil, "repositoryId", "example.com/git:1001"},
		{"a server that looks like GitHub", build{Repository: "https://github.com.evil.example/acme/app"}.predicate(t), nil, "repositoryId", "github.com.evil.example:1001"},
		{"github.com without TLS", build{Repository: "http://github.com/acme/app"}.predicate(t), nil, "repositoryId", "github.com:1001"},
		{"no server", build{Repository: "acme/app"}.predicate(t), nil, "repositoryId", ""},
		{"no repository", build{Repository: "-"}.predicate(t), nil, "repositoryId", ""},
		{"no id on another GitHub", build{Repository: "https://ghes.example.com/acme/app", RepositoryID: "-"}.predicate(t), nil, "repositoryId", ""},
		{"github fork", build{}.predicate(t), []string{`"event_name"`, `"head_repository":"fork","event_name"`}, "headRepository", "fork"},
		{"github merge queue", build{}.predicate(t), []string{`"ref":"refs/heads/main"`, `"ref":"refs/pull/9/merge"`}, "pullRequest", "true"},
		{"github target", build{}.predicate(t), []string{`"event_name":"push"`, `"event_name":"pull_request_target"`}, "pullRequest", "true"},
		{"github silent on the event", build{}.predicate(t), []string{`"event_name":"push"`, `"event_name":""`}, "pullRequest", "true"},
		{"github self-hosted", build{}.predicate(t), []string{`"runner_environment":"github-hosted"`, `"runner_environment":"self-hosted"`}, "runner", "self-hosted"},
		{"an unknown type", build{}.predicate(t), []string{buildTypeGitHubActions, "https://example.com/other/v1"}, "pullRequest", "true"},
		{"parameters of another type", codeBuildPredicate, []string{buildTypeCodeBuild, "https://assay.build/buildtypes/codebuild/v2"}, "account", ""},
	}
	set := defaultSet(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := judge(t, set, askAll("dev"), build{Predicate: edited(t, tt.base, tt.edit...)})
			if got := d.Facts["provenance."+tt.fact]; d.Facts == nil || got != tt.want {
				t.Errorf("%s = %q, want %q (%s)", tt.fact, got, tt.want, d.Code)
			}
		})
	}
}

// TestLevel: the level is the lower of what the service knows of the builder and
// what its own statement says.
func TestLevel(t *testing.T) {
	state := func(text string) []string { return []string{`"slsaBuildLevel":2,`, text} }
	github := build{}.predicate(t)
	stated := func(n string) []string {
		return []string{`"internalParameters":{`, `"internalParameters":{"assay":{"slsaBuildLevel":` + n + `},`}
	}
	post := []string{inJob, postBuild}
	tests := []struct {
		name    string
		base    string
		edit    []string
		foreign bool
		level   int
		code    refusal.Code
	}{
		{"as the builder's", codeBuildPredicate, nil, false, 2, CodeAllowed},
		{"post-build", codeBuildPredicate, append(post, state(`"slsaBuildLevel":3,`)...), false, 3, CodeAllowed},
		{"lowered", codeBuildPredicate, append(post, state(`"slsaBuildLevel":1,`)...), false, 1, CodeAllowed},
		{"to nothing", codeBuildPredicate, append(post, state(`"slsaBuildLevel":0,`)...), false, 0, CodeAllowed},
		{"boasting", codeBuildPredicate, state(`"slsaBuildLevel":9,`), false, 2, CodeAllowed},
		{"boasting of a builder of none", principalPredicate, []string{`"slsaBuildLevel":0`, `"slsaBuildLevel":3`}, false, 0, CodeAllowed},
		{"silent", codeBuildPredicate, state(""), false, 0, CodeAllowed},
		{"null", codeBuildPredicate, state(`"slsaBuildLevel":null,`), false, 0, CodeAllowed},
		{"no conclusion at all", jobPredicate, []string{`,"assay":{"slsaBuildLevel":2}`, ""}, false, 0, CodeAllowed},
		{"of somebody else", codeBuildPredicate, nil, true, 0, CodeRequirementUnmet},
		{"GitHub before levels were stated", github, nil, false, 2, CodeAllowed},
		{"GitHub lowered", github, stated("1"), false, 1, CodeAllowed},
		{"an unknown type, lowered", codeBuildPredicate, append([]string{buildTypeCodeBuild, "https://example.com/x"}, state(`"slsaBuildLevel":1,`)...), false, 1, CodeAllowed},
		{"an unknown type, unreadable", codeBuildPredicate, append([]string{buildTypeCodeBuild, "https://example.com/x"}, state(`"slsaBuildLevel":"2",`)...), false, 0, CodeAllowed},
		{"negative", codeBuildPredicate, state(`"slsaBuildLevel":-1,`), false, 0, CodeProvenanceMalformed},
		{"half", codeBuildPredicate, state(`"slsaBuildLevel":1.5,`), false, 0, CodeProvenanceMalformed},
		{"text", codeBuildPredicate, state(`"slsaBuildLevel":"2",`), false, 0, CodeProvenanceMalformed},
		{"beyond numbers", codeBuildPredicate, state(`"slsaBuildLevel":1e99,`), false, 0, CodeProvenanceMalformed},
		{"downgrades are a text", codeBuildPredicate, []string{`["privileged-override"]`, `"none"`}, false, 0, CodeProvenanceMalformed},
		{"overrides are an object", codeBuildPredicate, []string{`[{"field":"environment.image","project":"a","build":"b"},{"field":"source.buildspec"}]`, `{}`}, false, 0, CodeProvenanceMalformed},
		{"dependencies are a text", codeBuildPredicate, []string{`"resolvedDependencies":[`, `"resolvedDependencies":"x","y":[`}, false, 0, CodeProvenanceMalformed},
		{"job of no platform", jobPredicate, []string{`"platform":"gitlab"`, `"platform":""`}, false, 0, CodeProvenanceMalformed},
		{"too many downgrades", codeBuildPredicate, []string{`["privileged-override"]`, `["x"` + strings.Repeat(`,"x"`, MaxSetValues) + `]`}, false, 0, CodeFactTooLarge},
		{"a huge override", codeBuildPredicate, []string{`"field":"source.buildspec"`, `"field":"` + strings.Repeat("x", MaxFactBytes+1) + `"`}, false, 0, CodeFactTooLarge},
		{"a huge image", codeBuildPredicate, []string{`registry.example/build@`, strings.Repeat("x", MaxFactBytes) + `@`}, false, 0, CodeFactTooLarge},
	}
	set := defaultSet(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := judge(t, set, askAll("dev"), build{Predicate: edited(t, tt.base, tt.edit...), Foreign: tt.foreign})
			if d.Code != tt.code || d.SLSABuildLevel != tt.level {
				t.Errorf("%s at level %d, want %s at %d: %s", d.Code, d.SLSABuildLevel, tt.code, tt.level, d.Message)
			}
		})
	}
}

// TestDefaultPolicyOnPlatforms asks the built-in rules about builds that are not GitHub's.
func TestDefaultPolicyOnPlatforms(t *testing.T) {
	version := func(v string) []string { return []string{`"refs/heads/main^{` + commit + `}"`, fmt.Sprintf("%q", v)} }
	lower := []string{`"slsaBuildLevel":2`, `"slsaBuildLevel":1`}
	own := []string{gitLab, workload, `"platform":"gitlab"`, `"platform":"jenkins"`, `"slsaBuildLevel":2`, `"slsaBuildLevel":1`}
	tests := []struct {
		name, environment, base string
		edit                    []string
		code                    refusal.Code
		unmet                   string
	}{
		{"a branch in CodeBuild", "prod", asConfigured, nil, CodeAllowed, ""},
		{"a commit in CodeBuild", "prod", asConfigured, version(commit), CodeAllowed, ""},
		{"after the build", "prod", asConfigured, []string{inJob, postBuild, `"slsaBuildLevel":2`, `"slsaBuildLevel":3`}, CodeAllowed, ""},
		{"a debug session", "prod", asConfigured, lower, CodeDeniedByRule, "prod-slsa-level"},
		{"a debug session", "staging", asConfigured, lower, CodeAllowed, ""},
		{"a pull request in CodeBuild", "prod", asConfigured, version("pr/7"), CodeDeniedByRule, "prod-trigger"},
		{"a pull request in CodeBuild", "staging", asConfigured, version("pr/7"), CodeAllowed, ""},
		{"a pull ref in CodeBuild", "prod", asConfigured, version("refs/pull/7/head"), CodeDeniedByRule, "prod-trigger prod-source-ref"},
		{"no commit in CodeBuild", "prod", asConfigured, append(version("main"), `,"digest":{"gitCommit":"`+commit+`"}`, ""), CodeDeniedByRule, "prod-source-ref"},
		{"another commit than the branch's in CodeBuild", "prod", asConfigured, version("refs/heads/main^{" + strings.Repeat("d", 40) + "}"), CodeAllowed, ""},
		{"another ref in CodeBuild", "prod", asConfigured, version("refs/notes/x"), CodeDeniedByRule, "prod-source-ref"},
		{"a branch in GitLab", "prod", jobPredicate, nil, CodeAllowed, ""},
		{"an event of GitLab's", "prod", jobPredicate, []string{`"event":"push"`, `"event":"web"`}, CodeAllowed, ""},
		{"a merge request in GitLab", "prod", jobPredicate, []string{`"event":"push"`, `"event":"merge_request_event","proposed":true`}, CodeDeniedByRule, "prod-trigger"},
		{"no ref in GitLab", "prod", jobPredicate, []string{`,"ref":"refs/heads/main"`, ""}, CodeDeniedByRule, "prod-source-ref"},
		{"a self-hosted Buildkite agent", "prod", jobPredicate, []string{gitLab, buildkite, `"platform":"gitlab"`, `"platform":"buildkite"`}, CodeDeniedByRule, "prod-slsa-level"},
		{"a self-hosted Buildkite agent", "staging", jobPredicate, []string{gitLab, buildkite, `"platform":"gitlab"`, `"platform":"buildkite"`}, CodeAllowed, ""},
		{"another CI", "staging", jobPredicate, own, CodeAllowed, ""},
		{"another CI", "prod", jobPredicate, own, CodeDeniedByRule, "prod-slsa-level"},
		{"a role", "dev", principalPredicate, nil, CodeAllowed, ""},
		{"a role", "staging", principalPredicate, nil, CodeDeniedByRule, "staging-slsa-level"},
		{"a role", "prod", principalPredicate, nil, CodeDeniedByRule, "prod-slsa-level prod-trigger prod-source-ref"},
	}
	set := defaultSet(t)
	for _, tt := range tests {
		t.Run(tt.name+", "+tt.environment, func(t *testing.T) {
			d := judge(t, set, askAll(tt.environment), build{Predicate: edited(t, tt.base, tt.edit...)})
			if d.Code != tt.code || d.unmet() != tt.unmet {
				t.Errorf("%s, unmet %q; want %s, %q\n%s", d.Code, d.unmet(), tt.code, tt.unmet, d.Message)
			}
		})
	}
}

// TestStatementsOnlyTake: what a statement says of its own level and downgrades
// never helps it, under whatever set.
func TestStatementsOnlyTake(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		set, environment := drawSet(rt), drawEnvironment(rt)
		base := rapid.SampledFrom([]string{codeBuildPredicate, jobPredicate, strings.Replace(codeBuildPredicate, inJob, postBuild, 1)}).Draw(rt, "base")
		high := rapid.IntRange(0, 5).Draw(rt, "high")
		low := rapid.IntRange(0, high).Draw(rt, "low")
		at := func(n int) Decision {
			return judge(t, set, askAll(environment), build{Predicate: strings.Replace(base, `"slsaBuildLevel":2`, fmt.Sprintf(`"slsaBuildLevel":%d`, n), 1)})
		}
		a, b := at(high), at(low)
		if b.Allowed && !a.Allowed || b.SLSABuildLevel > a.SLSABuildLevel || a.SLSABuildLevel > high || a.SLSABuildLevel > 3 {
			rt.Fatalf("stated %d: %s at %d; stated %d: %s at %d", high, a.Code, a.SLSABuildLevel, low, b.Code, b.SLSABuildLevel)
		}
	})
}

// FuzzPredicate reads parameters of every build type as somebody else may write them.
// Its seeds are short, for the reason that FuzzCompileAccess gives.
func FuzzPredicate(f *testing.F) {
	f.Add([]byte(`{}`))
	for buildType, parameters := range map[string]string{
		buildTypeGitHubActions: `"externalParameters":{"workflow":{"ref":"refs/heads/x","repository":"https://h/a/b"}},"internalParameters":{"github":{"event_name":"push","repository_id":"1"}}`,
		buildTypeCodeBuild:     `"externalParameters":{"source":{"version":"refs/heads/x^{c}"},"overrides":[{"field":"x"}]},"resolvedDependencies":[{"name":"source","digest":{"gitCommit":"c"}}]`,
		buildTypeCIJob:         `"internalParameters":{"ci":{"platform":"gitlab","repositoryId":"1"},"assay":{"slsaBuildLevel":2,"downgrades":["x"]}}`,
		buildTypePrincipal:     `"internalParameters":{"principal":{"kind":"aws-role","account":"1"},"assay":{"slsaBuildLevel":0}}`,
		"x":                    `"internalParameters":{"assay":{"sandbox":true}}`,
	} {
		f.Add([]byte(`{"buildDefinition":{"buildType":"` + buildType + `",` + parameters + `}}`))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p predicate
		if err := p.read(raw); err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("refused without a code: %v", err)
			}
			return
		}
		if p.stated < 0 || p.platform == "" || len(p.downgrades) > MaxSetValues || len(p.overrides) > MaxSetValues {
			t.Fatalf("%+v", p)
		}
		if p.platform == "github-actions" && p.buildType != buildTypeGitHubActions || p.platform == "codebuild" && p.buildType != buildTypeCodeBuild {
			t.Fatalf("build type %q passes for %s", p.buildType, p.platform)
		}
		if p.platform == "codebuild" && p.ref != "" && (!strings.HasPrefix(p.ref, "refs/") || strings.Contains(p.ref, "^")) {
			t.Fatalf("%q passes for a ref", p.ref)
		}
	})
}
