package oidctest

import (
	"fmt"
	"maps"
	"strings"
)

// Claims are claims of a token, or some of them. Ids are strings of digits, as
// GitHub writes them.
type Claims map[string]any

// With returns c with the claims of over laid over it. A nil value removes.
func (c Claims) With(over Claims) Claims {
	out := maps.Clone(c)
	if out == nil {
		out = make(Claims, len(over))
	}
	for name, value := range over {
		if value == nil {
			delete(out, name)
		} else {
			out[name] = value
		}
	}
	return out
}

func (c Claims) text(name string) string {
	if v, ok := c[name]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

// DefaultJob returns the claims of the job that an Issuer has at first: a push
// to main of octo-org/octo-app, on a runner of GitHub's, with every claim that
// GitHub documents. iss, aud, sub, jti and the dates are added to each token.
func DefaultJob() Claims {
	const (
		sha      = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
		workflow = "octo-org/octo-app/.github/workflows/release.yml@refs/heads/main"
	)
	return Claims{
		"actor":                     "octocat",
		"actor_id":                  "583231",
		"base_ref":                  "",
		"check_run_id":              "41827364511",
		"enterprise":                "octo-enterprise",
		"enterprise_id":             "12478",
		"environment":               "production",
		"environment_node_id":       "EN_kwDOHGzJqs5Gq1Zk",
		"event_name":                "push",
		"head_ref":                  "",
		"issuer_scope":              "repository",
		"job_workflow_ref":          workflow,
		"job_workflow_sha":          sha,
		"ref":                       "refs/heads/main",
		"ref_protected":             "true",
		"ref_type":                  "branch",
		"repo_property_environment": "release",
		"repository":                "octo-org/octo-app",
		"repository_id":             "476830123",
		"repository_owner":          "octo-org",
		"repository_owner_id":       "65438921",
		"repository_visibility":     "private",
		"run_attempt":               "1",
		"run_id":                    "14918273645",
		"run_number":                "87",
		"runner_environment":        "github-hosted",
		"sha":                       sha,
		"workflow":                  "release",
		"workflow_ref":              workflow,
		"workflow_sha":              sha,
	}
}

// subject is the sub of a job: what the claims say, else GitHub's default.
func (c Claims) subject() string {
	if sub := c.text("sub"); sub != "" {
		return sub
	}
	repo := "repo:" + c.text("repository")
	switch {
	case c.text("environment") != "":
		return repo + ":environment:" + strings.ReplaceAll(c.text("environment"), ":", "%3A")
	case strings.HasPrefix(c.text("event_name"), "pull_request"):
		return repo + ":pull_request"
	}
	return repo + ":ref:" + c.text("ref")
}

// Env is what the job's runner has in its environment, as "NAME=value": where
// to get a token, and what GitHub tells every job.
func (i *Issuer) Env() []string {
	job := i.Job()
	env := []string{
		"ACTIONS_ID_TOKEN_REQUEST_URL=" + i.RequestURL(),
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + i.RequestToken(),
		"CI=true",
		"GITHUB_ACTIONS=true",
		"GITHUB_SERVER_URL=" + i.cfg.ServerURL,
		"GITHUB_REF_NAME=" + refName(job.text("ref")),
	}
	for _, v := range [...][2]string{
		{"GITHUB_ACTOR", "actor"},
		{"GITHUB_ACTOR_ID", "actor_id"},
		{"GITHUB_BASE_REF", "base_ref"},
		{"GITHUB_EVENT_NAME", "event_name"},
		{"GITHUB_HEAD_REF", "head_ref"},
		{"GITHUB_REF", "ref"},
		{"GITHUB_REF_PROTECTED", "ref_protected"},
		{"GITHUB_REF_TYPE", "ref_type"},
		{"GITHUB_REPOSITORY", "repository"},
		{"GITHUB_REPOSITORY_ID", "repository_id"},
		{"GITHUB_REPOSITORY_OWNER", "repository_owner"},
		{"GITHUB_REPOSITORY_OWNER_ID", "repository_owner_id"},
		{"GITHUB_RUN_ATTEMPT", "run_attempt"},
		{"GITHUB_RUN_ID", "run_id"},
		{"GITHUB_RUN_NUMBER", "run_number"},
		{"GITHUB_SHA", "sha"},
		{"GITHUB_WORKFLOW", "workflow"},
		{"GITHUB_WORKFLOW_REF", "workflow_ref"},
		{"GITHUB_WORKFLOW_SHA", "workflow_sha"},
		{"RUNNER_ENVIRONMENT", "runner_environment"},
	} {
		env = append(env, v[0]+"="+job.text(v[1]))
	}
	return env
}

// refName is a ref as people write it: main, v1.2, 7/merge.
func refName(ref string) string {
	for _, prefix := range [...]string{"refs/heads/", "refs/tags/", "refs/pull/"} {
		if name, ok := strings.CutPrefix(ref, prefix); ok {
			return name
		}
	}
	return ref
}
