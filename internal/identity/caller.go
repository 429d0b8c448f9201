package identity

import (
	"encoding/json"
	"fmt"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

// CodeCallerInvalid: stored caller facts that cannot be read back.
const CodeCallerInvalid refusal.Code = "CALLER_INVALID"

// maxCallerBytes bounds the stored form of a Caller. The facts of one GitHub
// token fit four times over, since a token has 8 KiB at most.
const maxCallerBytes = 32 << 10

// Kind says which platform vouched for a caller, and so which of Caller's
// fact structs is set. The zero Kind is nobody and is refused everywhere.
type Kind int

const (
	// KindGitHubActions is a job of GitHub Actions, proven by its OIDC token.
	KindGitHubActions Kind = iota + 1
)

var kindNames = [...]string{KindGitHubActions: "github-actions"}

// String returns the frozen name of k: "github-actions".
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
	// GitHub is set for KindGitHubActions.
	GitHub *GitHubActions `json:"github,omitempty"`
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
	switch {
	case c == nil:
		return refusal.New(CodeCallerInvalid, "no caller")
	case c.Kind != KindGitHubActions:
		return refusal.New(CodeCallerInvalid, "caller kind %d is unknown", int(c.Kind))
	case c.Issuer == "":
		return refusal.New(CodeCallerInvalid, "caller has no issuer")
	case c.GitHub == nil:
		return refusal.New(CodeCallerInvalid, "caller of kind %s has no GitHub facts", c.Kind)
	}
	g := c.GitHub
	if g.Repository == "" || g.RepositoryID <= 0 || g.RepositoryOwnerID <= 0 || g.RunID <= 0 || g.RunAttempt <= 0 {
		return refusal.New(CodeCallerInvalid, "caller of kind %s lacks repository, owner or run", c.Kind)
	}
	return nil
}
