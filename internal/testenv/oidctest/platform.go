package oidctest

import "maps"

// GitLabJob returns the claims of a job of GitLab CI: a push to main of
// octo-group/octo-app on a runner of GitLab's, with every claim that GitLab
// documents. Ids are strings, but for runner_id, as GitLab writes them.
func GitLabJob() Claims {
	const sha = "714a629c0b401fdce83e847fc9589983fc6f46bc"
	return Claims{
		"sub":                   "project_path:octo-group/octo-app:ref_type:branch:ref:main",
		"namespace_id":          "72",
		"namespace_path":        "octo-group",
		"project_id":            "20",
		"project_path":          "octo-group/octo-app",
		"project_visibility":    "private",
		"user_id":               "1",
		"user_login":            "sample-user",
		"user_email":            "sample-user@example.com",
		"user_access_level":     "developer",
		"user_identities":       []map[string]string{{"provider": "github", "extern_uid": "2435223452345"}},
		"pipeline_id":           "574",
		"pipeline_source":       "push",
		"job_id":                "302",
		"ref":                   "main",
		"ref_type":              "branch",
		"ref_path":              "refs/heads/main",
		"ref_protected":         "true",
		"groups_direct":         []string{"octo-group"},
		"environment":           "production",
		"environment_protected": "true",
		"deployment_tier":       "production",
		"environment_action":    "start",
		"runner_id":             12270840,
		"runner_environment":    "gitlab-hosted",
		"sha":                   sha,
		"ci_config_ref_uri":     "gitlab.example.com/octo-group/octo-app//.gitlab-ci.yml@refs/heads/main",
		"ci_config_sha":         sha,
		"job_source":            "pipeline",
	}
}

// BuildkiteJob returns the claims of a job of Buildkite on a hosted agent, with
// the optional claims organization_id and pipeline_id. Buildkite sets no jti:
// mint with Claims{"jti": nil}.
func BuildkiteJob() Claims {
	const sha = "9f3182061f1e2cca4702c368cbc039b7dc9d4485"
	return Claims{
		"sub":                "organization:acme-inc:pipeline:super-duper-app:ref:refs/heads/main:commit:" + sha + ":step:build",
		"organization_slug":  "acme-inc",
		"organization_id":    "0184990a-477b-4fa8-9968-496074483a77",
		"pipeline_slug":      "super-duper-app",
		"pipeline_id":        "0184990a-4782-42b5-afc1-16715b10b1a0",
		"build_number":       1209,
		"build_branch":       "main",
		"build_commit":       sha,
		"build_source":       "webhook",
		"step_key":           nil,
		"job_id":             "0184990a-477b-4fa8-9968-496074483cee",
		"agent_id":           "0184990a-4782-42b5-afc1-16715b10b8ff",
		"runner_environment": "buildkite-hosted",
	}
}

// WebIdentity returns the claims of a token of sts:GetWebIdentityToken, of a role
// that runs a Lambda function. tags are the request's.
func WebIdentity(account, role string, tags map[string]string) Claims {
	arn := "arn:aws:iam::" + account + ":role/" + role
	own := map[string]any{
		"aws_account":                account,
		"source_region":              "eu-west-1",
		"principal_id":               arn,
		"org_id":                     "o-on4r1a68tf",
		"ou_path":                    []string{"o-on4r1a68tf/r-6or0/ou-6or0-pbr8bs7r/"},
		"original_session_exp":       "2026-03-04T06:06:07Z",
		"principal_tags":             map[string]string{"team": "platform", "owners": "M276304"},
		"lambda_source_function_arn": "arn:aws:lambda:eu-west-1:" + account + ":function:deploy",
	}
	if len(tags) > 0 {
		own["request_tags"] = maps.Clone(tags)
	}
	return Claims{"sub": arn, "https://sts.amazonaws.com/": own}
}

// Person returns the claims of an ID token of a company's identity provider.
func Person() Claims {
	return Claims{
		"sub":            "00u1a2b3c4d5e6f7g8h9",
		"email":          "alice@example.com",
		"email_verified": true,
		"name":           "Alice Example",
		"hd":             "example.com",
		"groups":         []string{"security", "engineering"},
	}
}
