// Package provenance says what was built, how, and from what: it turns the facts
// of a verified caller into an in-toto statement with a SLSA v1 provenance
// predicate. It only writes; package policy reads.
//
// Every field comes from the claims of a token that the platform signed. What a
// client says of itself never enters; it chooses the names of the subjects, and
// digests the service could not compute are marked as claimed.
//
// For GitHub Actions the predicate has the build type and the fields that GitHub's
// own attest action emits, so that tools made for those read ours. Two things
// differ. The builder.id is not the workflow but this instance and the way it came
// to know the facts, because Assay and not the job wrote the statement:
//
//	<instance>/builders/github-actions/github-hosted   level 2
//	<instance>/builders/github-actions/self-hosted     level 1
//	<instance>/builders/dev                            level 0, the sandbox
//
// And internalParameters.github holds more claims: the reusable workflow that
// defines the job (job_workflow_ref, job_workflow_sha) beside the workflow that
// was started (workflow_ref, workflow_sha), so that who builds and what is built
// are both on record and never taken for each other.
//
//	st, err := provenance.GitHubActions("https://assay.example.com", caller, subjects)
//	payload, err := st.Marshal()
//
// The statement depends on the run and the subjects alone: no clock, no order. To
// attest the same again gives the same bytes.
package provenance

import (
	"cmp"
	stdjson "encoding/json"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/common"
	slsa "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v1"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

// BuildTypeGitHubActions is the build type GitHub's own provenance uses.
const BuildTypeGitHubActions = "https://actions.github.io/buildtypes/workflow/v1"

// A subject whose bytes the service has not hashed itself carries this annotation
// with this value.
const (
	AnnotationDigestOrigin = "assay.build/digestOrigin"
	OriginClaimed          = "claimed"
)

// Why no provenance can be written for a caller.
const (
	CodeFactMissing        refusal.Code = "PROVENANCE_FACT_MISSING"
	CodeWorkflowRefInvalid refusal.Code = "WORKFLOW_REF_INVALID"
)

// externalParameters are what the tenant chose. JSON member order is field order.
type externalParameters struct {
	Workflow workflow `json:"workflow"`
}

type workflow struct {
	Ref        string `json:"ref"`
	Repository string `json:"repository"`
	Path       string `json:"path"`
}

// internalParameters are what the platform, not the tenant, decides or records.
type internalParameters struct {
	GitHub gitHubParameters `json:"github"`
	Assay  *assayParameters `json:"assay,omitempty"`
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
}

// assayParameters is written only for the sandbox, so that its statements say so
// wherever they are carried.
type assayParameters struct {
	Sandbox bool `json:"sandbox"`
}

// GitHubActions returns the provenance of the subjects, built by the run that the
// caller's token speaks for. Subjects are sorted by name.
func GitHubActions(instance string, c *identity.Caller, subjects []attest.Subject) (*attest.Statement, error) {
	builder, err := BuilderOf(instance, c)
	if err != nil {
		return nil, err
	}
	if err := checkFacts(c.GitHub); err != nil {
		return nil, err
	}
	path, err := workflowPath(c.GitHub)
	if err != nil {
		return nil, err
	}
	predicate, err := json.Marshal(gitHubPredicate(builder, c, path), json.Deterministic(true))
	if err != nil {
		return nil, refusal.New(attest.CodeStatementPredicateInvalid, "the provenance cannot be written: %w", err)
	}
	return &attest.Statement{
		Type:          attest.StatementTypeV1,
		Subjects:      slices.SortedFunc(slices.Values(subjects), func(a, b attest.Subject) int { return cmp.Compare(a.Name, b.Name) }),
		PredicateType: attest.PredicateSLSAProvenanceV1,
		Predicate:     stdjson.RawMessage(predicate),
	}, nil
}

// gitHubPredicate fills the in-toto project's predicate types.
//
//nolint:staticcheck // SA1019: the protobuf types that follow these write no JSON of fixed order
func gitHubPredicate(builder Builder, c *identity.Caller, path string) *slsa.ProvenancePredicate {
	g := c.GitHub
	internal := internalParameters{GitHub: gitHubParameters{
		EventName:         g.EventName,
		RepositoryID:      strconv.FormatInt(g.RepositoryID, 10),
		RepositoryOwnerID: strconv.FormatInt(g.RepositoryOwnerID, 10),
		RunnerEnvironment: g.RunnerEnvironment,
		WorkflowRef:       g.WorkflowRef,
		WorkflowSHA:       g.WorkflowSHA,
		JobWorkflowRef:    g.JobWorkflowRef,
		JobWorkflowSHA:    g.JobWorkflowSHA,
	}}
	if c.Sandbox {
		internal.Assay = &assayParameters{Sandbox: true}
	}
	return &slsa.ProvenancePredicate{
		BuildDefinition: slsa.ProvenanceBuildDefinition{
			BuildType: BuildTypeGitHubActions,
			ExternalParameters: externalParameters{Workflow: workflow{
				Ref: g.Ref, Repository: repositoryURL(g), Path: path,
			}},
			InternalParameters: internal,
			// For pull requests sha is the merge commit that was built, of which the
			// ref, refs/pull/N/merge, is the name.
			ResolvedDependencies: []slsa.ResourceDescriptor{{
				URI:    SourceURI(c),
				Digest: common.DigestSet{"gitCommit": g.SHA},
			}},
		},
		RunDetails: slsa.ProvenanceRunDetails{
			Builder: slsa.Builder{ID: builder.ID},
			// The token does not say when the run started, so neither do we.
			BuildMetadata: slsa.BuildMetadata{InvocationID: InvocationID(c)},
		},
	}
}

func repositoryURL(g *identity.GitHubActions) string { return g.ServerURL + "/" + g.Repository }

// SourceURI names the source of the caller's run: git+<server>/<repository>@<ref>.
func SourceURI(c *identity.Caller) string {
	return "git+" + repositoryURL(c.GitHub) + "@" + c.GitHub.Ref
}

// InvocationID is the address of the caller's run, with its attempt: a re-run has
// the same run id and is another build.
func InvocationID(c *identity.Caller) string {
	g := c.GitHub
	return repositoryURL(g) + "/actions/runs/" + strconv.FormatInt(g.RunID, 10) +
		"/attempts/" + strconv.FormatInt(g.RunAttempt, 10)
}
