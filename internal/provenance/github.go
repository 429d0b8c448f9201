package provenance

import (
	"strconv"
	"strings"

	slsa "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v1"

	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

// gitHubExternal are what the tenant chose. JSON member order is field order.
type gitHubExternal struct {
	Workflow gitHubWorkflow `json:"workflow"`
}

type gitHubWorkflow struct {
	Ref        string `json:"ref"`
	Repository string `json:"repository"`
	Path       string `json:"path"`
}

// gitHubInternal are what the platform, not the tenant, decides or records.
type gitHubInternal struct {
	GitHub gitHubParameters `json:"github"`
	Assay  assayParameters  `json:"assay"`
}

// gitHubParameters: the first four are GitHub's. Ids are strings, as in the token:
// a JSON reader may round a large number.
type gitHubParameters struct {
	EventName         string `json:"event_name"`
	RepositoryID      string `json:"repository_id"`
	RepositoryOwnerID string `json:"repository_owner_id"`
	RunnerEnvironment string `json:"runner_environment"`
	WorkflowRef       string `json:"workflow_ref"`
	WorkflowSHA       string `json:"workflow_sha,omitempty"`
	JobWorkflowRef    string `json:"job_workflow_ref"`
	JobWorkflowSHA    string `json:"job_workflow_sha,omitempty"`
	RefProtected      string `json:"ref_protected,omitempty"`
	Environment       string `json:"environment,omitempty"`
	// HeadRepository is "same" or "fork": what the GitHub API said, not the token.
	HeadRepository string   `json:"head_repository,omitempty"`
	Properties     []string `json:"properties,omitempty"`
}

func defineGitHub(g *identity.GitHubActions, assay assayParameters) (*definition, error) {
	if err := checkGitHub(g); err != nil {
		return nil, err
	}
	path, err := workflowPath(g)
	if err != nil {
		return nil, err
	}
	repository := g.ServerURL + "/" + g.Repository
	source := "git+" + repository + "@" + g.Ref
	return &definition{
		buildType: BuildTypeGitHubActions,
		external:  gitHubExternal{Workflow: gitHubWorkflow{Ref: g.Ref, Repository: repository, Path: path}},
		internal: gitHubInternal{Assay: assay, GitHub: gitHubParameters{
			EventName:         g.EventName,
			RepositoryID:      strconv.FormatInt(g.RepositoryID, 10),
			RepositoryOwnerID: strconv.FormatInt(g.RepositoryOwnerID, 10),
			RunnerEnvironment: g.RunnerEnvironment,
			WorkflowRef:       g.WorkflowRef,
			WorkflowSHA:       g.WorkflowSHA,
			JobWorkflowRef:    g.JobWorkflowRef,
			JobWorkflowSHA:    g.JobWorkflowSHA,
			RefProtected:      g.RefProtected,
			Environment:       g.Environment,
			HeadRepository:    g.HeadRepository,
			Properties:        g.Properties,
		}},
		// For pull requests sha is the merge commit that was built, of which the
		// ref, refs/pull/N/merge, is the name.
		dependencies: []slsa.ResourceDescriptor{gitSource("", source, g.SHA)}, //nolint:staticcheck // SA1019: as definition
		// The token does not say when the run started, so neither do we. A re-run
		// has the same run id and is another build, hence the attempt.
		//nolint:staticcheck // SA1019: as definition
		metadata: slsa.BuildMetadata{InvocationID: repository + "/actions/runs/" + strconv.FormatInt(g.RunID, 10) +
			"/attempts/" + strconv.FormatInt(g.RunAttempt, 10)},
		sourceURI: source, sourceCommit: g.SHA,
	}, nil
}

// checkGitHub wants every fact that GitHub's own provenance has. A statement with
// an empty field would be true of many builds.
func checkGitHub(g *identity.GitHubActions) error {
	return checkFacts("credential", []fact{
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
	})
}

// fact is one that a statement cannot do without.
type fact struct {
	name    string
	present bool
}

func checkFacts(of string, facts []fact) error {
	for _, f := range facts {
		if !f.present {
			return refusal.New(CodeFactMissing, "the caller's %s has no %s", of, f.name)
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
