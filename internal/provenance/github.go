package provenance

import (
	"strings"

	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

// checkFacts wants every fact that GitHub's own provenance has. A statement with
// an empty field would be true of many builds.
func checkFacts(g *identity.GitHubActions) error {
	for _, fact := range [...]struct {
		name    string
		present bool
	}{
		{"server_url", g.ServerURL != ""},
		{"repository", g.Repository != ""},
		{"repository_id", g.RepositoryID > 0},
		{"repository_owner_id", g.RepositoryOwnerID > 0},
		{"workflow_ref", g.WorkflowRef != ""},
		{"job_workflow_ref", g.JobWorkflowRef != ""},
		{"ref", g.Ref != ""},
		{"sha", g.SHA != ""},
		{"event_name", g.EventName != ""},
		{"run_id", g.RunID > 0},
		{"run_attempt", g.RunAttempt > 0},
	} {
		if !fact.present {
			return refusal.New(CodeFactMissing, "the caller's credential has no %s", fact.name)
		}
	}
	return nil
}

// workflowPath returns the path of the workflow file in
// "owner/name/.github/workflows/x.yml@refs/heads/main".
//
// The path may hold an "@", as may the ref, so neither the first nor the last one
// is sure to part them. The ref is known from its own claim. Where that names
// another ref, the first "@refs/" parts them: workflow files lie directly in
// .github/workflows, and a file name has no slash.
func workflowPath(g *identity.GitHubActions) (string, error) {
	rest, ours := strings.CutPrefix(g.WorkflowRef, g.Repository+"/")
	if !ours {
		// An organisation can require a workflow of another repository. Its path
		// must not be recorded as if it lay in this one.
		return "", refusal.New(CodeWorkflowRefInvalid, "workflow_ref %.200q is not of repository %.100q", g.WorkflowRef, g.Repository)
	}
	path, found := strings.CutSuffix(rest, "@"+g.Ref)
	if !found {
		path, _, found = strings.Cut(rest, "@refs/")
	}
	if !found || path == "" {
		return "", refusal.New(CodeWorkflowRefInvalid, "workflow_ref %.200q has no path and ref", g.WorkflowRef)
	}
	return path, nil
}
