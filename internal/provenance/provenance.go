// Package provenance says what was built, how, and from what: it turns the facts
// of a verified caller into an in-toto statement with a SLSA v1 provenance
// predicate. It only writes; package policy reads.
//
// Every field comes from what a platform vouches for: the claims of a token that
// it signed, or its API, read by the service. What a client says of itself never
// enters; it chooses the names of the subjects, and digests the service could not
// compute are marked as claimed.
//
//	w, err := provenance.New(provenance.Config{Instance: "https://assay.example.com"})
//	st, err := w.Statement(caller, subjects)
//	payload, err := st.Marshal()
//
// A statement depends on the caller's facts and the subjects alone: no clock, no
// order. To attest the same again gives the same bytes.
//
// # Builders
//
// The builder.id is not the workflow or project but this instance and the way it
// came to know the facts, because Assay and not the job wrote the statement. Each
// way has an id of its own and a best level:
//
//	<instance>/builders/github-actions/trusted-workflow   3
//	<instance>/builders/github-actions/github-hosted      2
//	<instance>/builders/github-actions/self-hosted        1
//	<instance>/builders/codebuild/post-build              3
//	<instance>/builders/codebuild/in-job                  2
//	<instance>/builders/gitlab/hosted                     2
//	<instance>/builders/gitlab/self-hosted                1
//	<instance>/builders/buildkite/hosted                  2
//	<instance>/builders/buildkite/self-hosted             1
//	<instance>/builders/workload                          1
//	<instance>/builders/workload-principal                0   no build: no source, no process
//	<instance>/builders/aws-role                          0
//	<instance>/builders/x509                              0
//	<instance>/builders/dev                               0   the sandbox
//
// The level of one build is the builder's best, lowered by what was found in its
// facts (the Downgrade words). Level and downgrades are in
// internalParameters.assay of every statement. docs/slsa.md has the reasons.
//
// # Build types
//
// For GitHub Actions the predicate has the build type and the fields that GitHub's
// own attest action emits, so that tools made for those read ours. internalParameters
// .github holds more claims: the reusable workflow that defines the job
// (job_workflow_ref, job_workflow_sha) beside the workflow that was started
// (workflow_ref, workflow_sha), so that who builds and what is built are both on
// record and never taken for each other. The other build types are Assay's own,
// each with its page, schema and example in docs/buildtypes: codebuild/v1, ci-job/v1
// for every other CI system, and principal/v1 for who vouches without a build.
package provenance

import (
	"cmp"
	stdjson "encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/common"
	slsa "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v1"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

// The build types. Each has a page in docs/buildtypes but GitHub's.
const (
	// BuildTypeGitHubActions is the build type GitHub's own provenance uses.
	BuildTypeGitHubActions = "https://actions.github.io/buildtypes/workflow/v1"
	// BuildTypeCodeBuild is a build of AWS CodeBuild.
	BuildTypeCodeBuild = "https://assay.build/buildtypes/codebuild/v1"
	// BuildTypeCIJob is a job of another CI system, by its OIDC token.
	BuildTypeCIJob = "https://assay.build/buildtypes/ci-job/v1"
	// BuildTypePrincipal is no build: a role or workload that vouches for an artifact.
	BuildTypePrincipal = "https://assay.build/buildtypes/principal/v1"
)

// A subject whose bytes the service has not hashed itself carries this annotation
// with this value.
const (
	AnnotationDigestOrigin = "assay.build/digestOrigin"
	OriginClaimed          = "claimed"
)

// The subject of a statement that is not provenance says who made the predicate:
// the service, out of the bytes, or a caller; which provenance it belongs to, by
// attestation id; and of a caller's, which run or principal attached it.
const (
	AnnotationPredicateOrigin = "assay.build/predicateOrigin"
	OriginGenerated           = "generated"
	AnnotationProvenance      = "assay.build/provenance"
	AnnotationAttachedBy      = "assay.build/attachedBy"
)

// Why no provenance can be written for a caller.
const (
	CodeFactMissing        refusal.Code = "PROVENANCE_FACT_MISSING"
	CodeWorkflowRefInvalid refusal.Code = "WORKFLOW_REF_INVALID"
	// CodeFactInvalid: a commit or digest that is none.
	CodeFactInvalid refusal.Code = "PROVENANCE_FACT_INVALID"
	// CodeSourceInvalid: a source whose location has no one reading.
	CodeSourceInvalid refusal.Code = "PROVENANCE_SOURCE_INVALID"
	// CodeConfigInvalid: a Config that New refuses.
	CodeConfigInvalid refusal.Code = "PROVENANCE_CONFIG_INVALID"
)

// Config is what New needs.
type Config struct {
	// Instance is the URL of this service, without a slash at its end. Required.
	Instance string
	// TrustedWorkflows are the reusable workflows of GitHub Actions that were
	// reviewed and whose jobs count as Build L3.
	TrustedWorkflows []TrustedWorkflow
}

// Writer writes provenance. It is safe for concurrent use.
type Writer struct {
	instance  string
	workflows []TrustedWorkflow
	pages     map[string]BuilderPage // by path
}

// New checks the configuration.
func New(cfg Config) (*Writer, error) {
	u, err := url.Parse(cfg.Instance)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || strings.HasSuffix(cfg.Instance, "/") {
		return nil, refusal.New(CodeConfigInvalid, "the instance %.200q is not a URL without a slash at its end", cfg.Instance).InField("instance")
	}
	for i, t := range cfg.TrustedWorkflows {
		if err := t.check(i); err != nil {
			return nil, err
		}
	}
	w := &Writer{instance: cfg.Instance, workflows: slices.Clone(cfg.TrustedWorkflows), pages: make(map[string]BuilderPage)}
	for _, p := range w.Builders() {
		w.pages[p.Path] = p
	}
	return w, nil
}

// Description is what the index keeps of a statement beside its subjects.
type Description struct {
	BuildType    string
	InvocationID string // "" for a principal, which has no run
	SourceURI    string // "" where the platform names no source
	SourceCommit string // the git commit, "" where it is not known
}

// Statement returns the provenance of the subjects, by what the platform vouches
// for of the caller. Subjects are sorted by name.
func (w *Writer) Statement(c *identity.Caller, subjects []attest.Subject) (*attest.Statement, error) {
	builder, err := w.Builder(c)
	if err != nil {
		return nil, err
	}
	d, err := define(c, builder)
	if err != nil {
		return nil, err
	}
	predicate, err := json.Marshal(d.predicate(builder), json.Deterministic(true))
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

// Describe returns what Statement's predicate says in the terms of the index.
func (w *Writer) Describe(c *identity.Caller) (Description, error) {
	builder, err := w.Builder(c)
	if err != nil {
		return Description{}, err
	}
	d, err := define(c, builder)
	if err != nil {
		return Description{}, err
	}
	return Description{BuildType: d.buildType, InvocationID: d.metadata.InvocationID, SourceURI: d.sourceURI, SourceCommit: d.sourceCommit}, nil
}

// definition is what differs from platform to platform.
//
//nolint:staticcheck // SA1019: the protobuf types that follow these write no JSON of fixed order
type definition struct {
	buildType          string
	external, internal any
	dependencies       []slsa.ResourceDescriptor
	metadata           slsa.BuildMetadata
	byproducts         []slsa.ResourceDescriptor
	// The first source, again, for Describe.
	sourceURI, sourceCommit string
}

// define turns the facts of a caller that has a builder into a definition.
func define(c *identity.Caller, b Builder) (*definition, error) {
	a := assayParameters{Level: b.Level, Downgrades: b.Downgrades, Sandbox: c.Sandbox}
	switch {
	case c.Kind == identity.KindGitHubActions:
		return defineGitHub(c.GitHub, a)
	case c.Kind == identity.KindCodeBuild:
		return defineCodeBuild(c.CodeBuild, a)
	case c.Kind == identity.KindWorkload && isJob(c):
		return defineJob(c, a)
	}
	return definePrincipal(c, a)
}

//nolint:staticcheck // SA1019: as definition
func (d *definition) predicate(b Builder) *slsa.ProvenancePredicate {
	return &slsa.ProvenancePredicate{
		BuildDefinition: slsa.ProvenanceBuildDefinition{
			BuildType:            d.buildType,
			ExternalParameters:   d.external,
			InternalParameters:   d.internal,
			ResolvedDependencies: d.dependencies,
		},
		RunDetails: slsa.ProvenanceRunDetails{
			Builder:       slsa.Builder{ID: b.ID},
			BuildMetadata: d.metadata,
			Byproducts:    d.byproducts,
		},
	}
}

// assayParameters is in internalParameters.assay of every statement: what this
// service concluded from the facts, so that it is known wherever a statement is
// carried, and so that a verifier can take the lower of this and of what it
// grants builder.id.
type assayParameters struct {
	Level      int      `json:"slsaBuildLevel"`
	Downgrades []string `json:"downgrades,omitempty"`
	Sandbox    bool     `json:"sandbox,omitzero"`
}

// gitSource is a dependency of a git repository. The commit may be unknown.
//
//nolint:staticcheck // SA1019: as definition
func gitSource(name, uri, commit string) slsa.ResourceDescriptor {
	d := slsa.ResourceDescriptor{Name: name, URI: uri}
	if commit != "" {
		d.Digest = common.DigestSet{"gitCommit": commit}
	}
	return d
}
