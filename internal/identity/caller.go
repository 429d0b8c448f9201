package identity

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/refusal"
)

// CodeCallerInvalid: stored caller facts that cannot be read back.
const CodeCallerInvalid refusal.Code = "CALLER_INVALID"

// maxCallerBytes bounds the stored form of a Caller. The facts of a token, of
// 8 KiB at most, fit many times over; the largest is a build of CodeBuild. It is
// what the store keeps, too: store.MaxCallerBytes.
const maxCallerBytes = codebuild.MaxBuildBytes + 16<<10

// Kind says which platform vouched for a caller, and so which of Caller's
// fact structs is set. The zero Kind is nobody and is refused everywhere.
type Kind int

const (
	// KindGitHubActions is a job of GitHub Actions, proven by its OIDC token.
	KindGitHubActions Kind = iota + 1
	// KindCodeBuild is a build of AWS CodeBuild, matched with the CodeBuild API.
	KindCodeBuild
	// KindAWSRole is an AWS role: a role, and not a build.
	KindAWSRole
	// KindWorkload is any other workload: GitLab CI, Buildkite, an issuer with a
	// claim mapping, or a client certificate.
	KindWorkload
	// KindHuman is a person, by the company's identity provider.
	KindHuman
)

var kindNames = [...]string{
	KindGitHubActions: "github-actions", KindCodeBuild: "codebuild", KindAWSRole: "aws-role",
	KindWorkload: "workload", KindHuman: "human",
}

// String returns the frozen name of k, "github-actions" for example.
func (k Kind) String() string {
	if k <= 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return kindNames[k]
}

// MarshalText refuses the zero Kind, so that nobody is never stored as somebody.
func (k Kind) MarshalText() ([]byte, error) {
	if k <= 0 || int(k) >= len(kindNames) {
		return nil, refusal.New(CodeCallerInvalid, "caller kind %d is unknown", int(k))
	}
	return []byte(kindNames[k]), nil
}

// UnmarshalText accepts exactly the names of String.
func (k *Kind) UnmarshalText(text []byte) error {
	for i, name := range kindNames {
		if name != "" && name == string(text) {
			*k = Kind(i)
			return nil
		}
	}
	return refusal.New(CodeCallerInvalid, "caller kind %.40q is unknown", text)
}

// Caller is who is calling, as far as a platform vouched for it: facts copied
// from one verified credential and nothing the caller said. A Caller is shared
// by concurrent requests and must not be changed after it was made.
type Caller struct {
	Kind Kind `json:"kind"`
	// Issuer is the configured issuer, exactly as in the token.
	Issuer string `json:"issuer"`
	// DisplayName is for people and never decides anything.
	DisplayName string `json:"display_name"`
	// Exactly the one that belongs to Kind is set.
	GitHub    *GitHubActions `json:"github,omitempty"`
	CodeBuild *CodeBuild     `json:"codebuild,omitempty"`
	AWSRole   *AWSRole       `json:"aws_role,omitempty"`
	Workload  *Workload      `json:"workload,omitempty"`
	Human     *Human         `json:"human,omitempty"`
	// Sandbox marks an issuer on loopback that vouches for nothing real: what
	// such a caller attests is of builder …/builders/dev and level 0.
	Sandbox bool `json:"sandbox,omitempty"`
}

// GitHubActions holds the claims of a GitHub Actions token that are kept, each
// under the name of its claim. GitHub sets them all, the job none; but names
// (repository, owner, refs, actor, environment) are chosen by the tenant and
// can be given up and taken again by somebody else. The ids cannot: decisions
// bind to RepositoryID and RepositoryOwnerID. The claim sub, whose form each
// organisation may customise, is not kept.
type GitHubActions struct {
	Repository           string `json:"repository"` // "owner/name"
	RepositoryID         int64  `json:"repository_id"`
	RepositoryOwner      string `json:"repository_owner"`
	RepositoryOwnerID    int64  `json:"repository_owner_id"`
	RepositoryVisibility string `json:"repository_visibility,omitempty"` // public, private, internal
	// WorkflowRef is "owner/name/path@ref" of the workflow that started;
	// JobWorkflowRef of the reusable workflow that defines the job, or the same.
	WorkflowRef    string `json:"workflow_ref"`
	WorkflowSHA    string `json:"workflow_sha,omitempty"`
	JobWorkflowRef string `json:"job_workflow_ref"`
	JobWorkflowSHA string `json:"job_workflow_sha,omitempty"`
	Ref            string `json:"ref"`
	RefType        string `json:"ref_type,omitempty"`      // branch, tag
	RefProtected   string `json:"ref_protected,omitempty"` // "true", "false", or "" where the token is silent
	// SHA is the commit; for pull_request events the merge commit.
	SHA         string `json:"sha"`
	HeadRef     string `json:"head_ref,omitempty"`
	BaseRef     string `json:"base_ref,omitempty"`
	EventName   string `json:"event_name"`
	Environment string `json:"environment,omitempty"`
	// RunnerEnvironment is "github-hosted" or "self-hosted".
	RunnerEnvironment string `json:"runner_environment"`
	RunID             int64  `json:"run_id"`
	RunNumber         int64  `json:"run_number,omitempty"`
	RunAttempt        int64  `json:"run_attempt"`
	Actor             string `json:"actor,omitempty"`
	ActorID           int64  `json:"actor_id,omitempty"`
	// ServerURL comes from the issuer's configuration: https://github.com, or
	// the address of a GitHub Enterprise Server.
	ServerURL string `json:"server_url"`
	// Properties are the repository's custom properties (claims repo_property_*),
	// "name=value", sorted; one entry for each value of a list.
	Properties []string `json:"properties,omitempty"`
	// HeadRepository is "same" or "fork" where the GitHub API was asked where the
	// commit comes from, and "" where it was not: the token does not say.
	HeadRepository string `json:"head_repository,omitempty"`
}

// PullRequest reports whether the run builds what a pull request proposes, or
// runs because of one. pull_request_target runs the base's workflow with what the
// proposer wrote within reach, so it counts; so does a run for a merge queue's
// source of refs/pull/.
func (g *GitHubActions) PullRequest() bool {
	return strings.HasPrefix(g.EventName, "pull_request") || strings.HasPrefix(g.Ref, "refs/pull/")
}

// How a build of CodeBuild came to be known. The modes are different builders.
const (
	ModeInJob     = "in-job"     // the build called, by the role it runs as
	ModePostBuild = "post-build" // the service read a finished build
)

// CodeBuild is a build of AWS CodeBuild: what its API says, read by the service.
type CodeBuild struct {
	Mode  string           `json:"mode"`
	Build *codebuild.Build `json:"build"`
	// Confirmed, of a finished build, says that CodeBuild's own sha256 agrees with
	// every artifact that is attested. It is false where CodeBuild had none.
	Confirmed bool `json:"confirmed,omitempty"`
}

// How an AWS role proved itself.
const (
	ViaSTS         = "sts"          // a signed GetCallerIdentity request
	ViaWebIdentity = "web-identity" // a token of GetWebIdentityToken
)

// AWSRole is a session of an AWS role.
type AWSRole struct {
	Partition string `json:"partition"`
	Account   string `json:"account"`
	// RoleARN is arn:PARTITION:iam::ACCOUNT:role/NAME without the role's path, which
	// STS does not tell.
	RoleARN string `json:"role_arn"`
	// UniqueID is AROA…, which is never given to another role; "" for a token,
	// which does not have it.
	UniqueID    string `json:"unique_id,omitempty"`
	SessionName string `json:"session_name,omitempty"`
	Via         string `json:"via"`
	// The following come with a token only.
	OrganizationID    string   `json:"organization_id,omitempty"`
	PrincipalTags     []string `json:"principal_tags,omitempty"` // "name=value", sorted
	LambdaFunctionARN string   `json:"lambda_function_arn,omitempty"`
	EC2InstanceARN    string   `json:"ec2_instance_arn,omitempty"`
}

// The values of Workload.Platform that no configuration can give: package
// provenance has builders for them.
const (
	PlatformGitLab    = "gitlab"
	PlatformBuildkite = "buildkite"
	PlatformX509      = "x509" // a client certificate
)

// Workload is a caller of a platform that Assay knows by a claim mapping only, or
// the holder of a client certificate.
type Workload struct {
	// Platform is "gitlab", "buildkite", "x509", or what the configuration calls it.
	Platform string `json:"platform"`
	// Subject tells workloads of one issuer apart and is never reused.
	Subject      string `json:"subject"`
	Account      string `json:"account,omitempty"`    // namespace, organisation
	AccountID    string `json:"account_id,omitempty"` // its id, which is never reused
	Repository   string `json:"repository,omitempty"` // URL
	RepositoryID string `json:"repository_id,omitempty"`
	Ref          string `json:"ref,omitempty"`           // refs/heads/main where the platform tells
	RefProtected string `json:"ref_protected,omitempty"` // "true", "false", ""
	Commit       string `json:"commit,omitempty"`        // full, lower-case hex
	Event        string `json:"event,omitempty"`         // what started it, in the platform's words
	Runner       string `json:"runner,omitempty"`        // "hosted", "self-hosted", ""
	Environment  string `json:"environment,omitempty"`
	// BuildConfigURI and BuildConfigDigest name what defines the build.
	BuildConfigURI    string `json:"build_config_uri,omitempty"`
	BuildConfigDigest string `json:"build_config_digest,omitempty"` // git commit
	// InvocationID is the address of the run. A workload that has one is a build.
	InvocationID string `json:"invocation_id,omitempty"`
	// Proposed says that the run builds a merge or pull request, or may: it is false
	// only where the platform rules that out.
	Proposed bool `json:"proposed,omitempty"`
	// Properties are further claims that the configuration keeps, "name=value", sorted.
	Properties []string `json:"properties,omitempty"`
}

// Human is a person.
type Human struct {
	Subject string   `json:"subject"`         // the provider's, never reused
	Email   string   `json:"email,omitempty"` // only where the provider says it is verified
	Name    string   `json:"name,omitempty"`
	Groups  []string `json:"groups,omitempty"` // sorted
}

// IsBuild reports whether provenance can be written for what c attests.
func (c *Caller) IsBuild() bool {
	switch c.Kind {
	case KindGitHubActions, KindCodeBuild:
		return true
	case KindWorkload:
		return c.Workload.InvocationID != ""
	}
	return false
}

// Marshal returns the stored form: JSON with fixed field order, equal bytes for
// equal callers. UnmarshalCaller reads it back.
func (c *Caller) Marshal() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(c)
	if err != nil {
		return nil, refusal.New(CodeCallerInvalid, "caller: %w", err)
	}
	return data, nil
}

// UnmarshalCaller reads the form of Marshal, strictly: unknown, duplicate or
// differently cased names and a caller without its facts are CALLER_INVALID.
func UnmarshalCaller(data []byte) (*Caller, error) {
	var c Caller
	if err := attest.DecodeStrict(data, maxCallerBytes, &c); err != nil {
		return nil, refusal.New(CodeCallerInvalid, "stored caller: %w", err)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return &c, nil
}

// check holds what every Caller satisfies, however it was made.
func (c *Caller) check() error {
	if c == nil {
		return refusal.New(CodeCallerInvalid, "no caller")
	}
	if c.Issuer == "" {
		return refusal.New(CodeCallerInvalid, "caller has no issuer")
	}
	facts := 0
	for _, set := range [...]bool{c.GitHub != nil, c.CodeBuild != nil, c.AWSRole != nil, c.Workload != nil, c.Human != nil} {
		if set {
			facts++
		}
	}
	if facts != 1 {
		return refusal.New(CodeCallerInvalid, "caller of kind %s has the facts of %d kinds", c.Kind, facts)
	}
	complete := false
	switch c.Kind {
	case KindGitHubActions:
		g := c.GitHub
		complete = g != nil && g.Repository != "" && g.RepositoryID > 0 && g.RepositoryOwnerID > 0 && g.RunID > 0 && g.RunAttempt > 0
	case KindCodeBuild:
		b := c.CodeBuild
		complete = b != nil && (b.Mode == ModeInJob || b.Mode == ModePostBuild) && b.Build != nil &&
			b.Build.ARN != "" && b.Build.ProjectARN != "" && b.Build.Account != "" && b.Build.ServiceRole != "" && !b.Build.StartedAt.IsZero()
	case KindAWSRole:
		r := c.AWSRole
		complete = r != nil && r.Account != "" && r.RoleARN != "" && (r.Via == ViaSTS || r.Via == ViaWebIdentity)
	case KindWorkload:
		w := c.Workload
		complete = w != nil && w.Platform != "" && w.Subject != ""
	case KindHuman:
		complete = c.Human != nil && c.Human.Subject != ""
	default:
		return refusal.New(CodeCallerInvalid, "caller kind %d is unknown", int(c.Kind))
	}
	if !complete {
		return refusal.New(CodeCallerInvalid, "caller of kind %s lacks facts that every such caller has", c.Kind)
	}
	return nil
}
