package server

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/provenance"
)

// IssuerConf is one OIDC issuer. A field that does not belong to the type is refused.
type IssuerConf struct {
	// URL equals the iss claim, byte for byte.
	URL string `yaml:"url"`
	// Type says which claims to expect: github-actions (the default), gitlab,
	// buildkite, aws-web-identity, workload or human.
	Type string `yaml:"type"`
	// Algorithms is the allow-list for the token's alg; [RS256] if empty, for
	// aws-web-identity [RS256, ES384].
	Algorithms []string `yaml:"algorithms"`
	// JWKSURI is where the issuer's keys are, if not on the issuer's own host.
	JWKSURI string `yaml:"jwks_uri"`
	// MaxTokenLifetime is the longest exp-iat that is accepted; 1h if zero, 24h at most.
	MaxTokenLifetime time.Duration `yaml:"max_token_lifetime"`
	// ServerURL is the forge that repositories of this issuer live on. github.com and
	// ghe.com know theirs; a GitHub Enterprise Server must say it. For other types the
	// issuer, if empty.
	ServerURL string `yaml:"server_url"`

	// AllowedOwnerIDs lists the repository_owner_id of every account whose jobs
	// may open a session. Required for github-actions: anybody on GitHub can get a
	// token with any audience.
	AllowedOwnerIDs []int64 `yaml:"allowed_owner_ids"`
	// AllowedRepositoryIDs narrows that further, where not empty.
	AllowedRepositoryIDs []int64 `yaml:"allowed_repository_ids"`
	// Recheck asks the GitHub API about every run.
	Recheck *RecheckConf `yaml:"recheck"`

	// Allow lists claims and the values that each may have, whole. Required for
	// gitlab (namespace_id or project_id), buildkite (organization_id), workload, human.
	Allow map[string][]string `yaml:"allow"`
	// Claims says how the claims of a workload become facts.
	Claims *ClaimsConf `yaml:"claims"`
	// Properties are further claims to keep, for policies to ask about.
	Properties []string `yaml:"properties"`

	// Account is the AWS account of an aws-web-identity issuer, in quotes.
	Account string `yaml:"account"`
	// AllowedRoles are the names of the AWS roles that may call.
	AllowedRoles []string `yaml:"allowed_roles"`
	// BuildTag is the request tag that holds the ARN of a CodeBuild build. Setting it
	// states that a service control policy lets nobody else use it.
	BuildTag string `yaml:"build_tag"`

	// Audience is the client id of a human issuer, instead of the deployment's audience.
	Audience []string `yaml:"audience"`
	// GroupsClaim holds a human's groups; "groups" if empty.
	GroupsClaim string `yaml:"groups_claim"`

	// Sandbox marks an issuer whose builds count for nothing.
	Sandbox bool `yaml:"-"`
}

// RecheckConf says which GitHub API confirms a run.
type RecheckConf struct {
	// APIURL is https://api.github.com, or https://HOST/api/v3.
	APIURL string `yaml:"api_url"`
	// TokenFile holds a token of the API, if the repositories are private. It is read
	// each time, so that something else can keep it fresh; a token that never changes
	// is what this service exists to spare you.
	TokenFile string `yaml:"token_file"`
}

// ClaimsConf maps claims to facts: each value is a template of text and {claim}.
// docs/configuration.md has the grammar.
type ClaimsConf struct {
	Platform          string   `yaml:"platform"`
	Required          []string `yaml:"required"`
	Subject           string   `yaml:"subject"`
	Account           string   `yaml:"account"`
	AccountID         string   `yaml:"account_id"`
	Repository        string   `yaml:"repository"`
	RepositoryID      string   `yaml:"repository_id"`
	Ref               string   `yaml:"ref"`
	RefProtected      string   `yaml:"ref_protected"`
	Commit            string   `yaml:"commit"`
	Event             string   `yaml:"event"`
	Runner            string   `yaml:"runner"`
	Environment       string   `yaml:"environment"`
	BuildConfigURI    string   `yaml:"build_config_uri"`
	BuildConfigDigest string   `yaml:"build_config_digest"`
	InvocationID      string   `yaml:"invocation_id"`
	Proposed          string   `yaml:"proposed"`
}

// TrustedWorkflowConf is one reusable workflow that counts as a builder.
type TrustedWorkflowConf struct {
	// Server is the forge; https://github.com if empty.
	Server string `yaml:"server"`
	// Workflow is OWNER/REPO/.github/workflows/FILE.
	Workflow string `yaml:"workflow"`
	// Ref is the ref that callers name, whole; any if empty.
	Ref string `yaml:"ref"`
	// SHA is the workflow's commit. Required: a tag can be moved, a commit cannot.
	SHA string `yaml:"sha"`
}

func (c *Config) identity() identity.Config {
	out := identity.Config{
		Audience:   c.Audience,
		ClockSkew:  c.Identity.ClockSkew,
		Now:        c.Now,
		HTTPClient: c.HTTPClient,
		Logger:     c.Logger,
		SandboxAWS: c.SandboxAWS,
	}
	for _, i := range c.Identity.Issuers {
		out.Issuers = append(out.Issuers, i.identity())
	}
	return out
}

func (i *IssuerConf) identity() identity.IssuerConfig {
	out := identity.IssuerConfig{
		URL: i.URL, Type: i.Type, Algorithms: i.Algorithms, JWKSURI: i.JWKSURI, MaxTokenLifetime: i.MaxTokenLifetime,
		ServerURL: i.ServerURL, Sandbox: i.Sandbox,
		AllowedOwnerIDs: i.AllowedOwnerIDs, AllowedRepositoryIDs: i.AllowedRepositoryIDs,
		Allow: i.Allow, Properties: i.Properties,
		Account: i.Account, AllowedRoles: i.AllowedRoles, BuildTag: i.BuildTag,
		Audience: i.Audience, GroupsClaim: i.GroupsClaim,
	}
	if m := i.Claims; m != nil {
		out.Claims = &identity.ClaimMapping{
			Platform: m.Platform, Required: m.Required, Subject: m.Subject, Account: m.Account, AccountID: m.AccountID,
			Repository: m.Repository, RepositoryID: m.RepositoryID, Ref: m.Ref, RefProtected: m.RefProtected, Commit: m.Commit,
			Event: m.Event, Runner: m.Runner, Environment: m.Environment,
			BuildConfigURI: m.BuildConfigURI, BuildConfigDigest: m.BuildConfigDigest,
			InvocationID: m.InvocationID, Proposed: m.Proposed,
		}
	}
	if r := i.Recheck; r != nil {
		out.Recheck = &identity.RecheckConfig{APIURL: r.APIURL}
		if r.TokenFile != "" {
			out.Recheck.Token = fileToken(r.TokenFile)
		}
	}
	return out
}

// maxTokenFile bounds a token that is read from a file.
const maxTokenFile = 8 << 10

// fileToken reads a token each time it is asked for.
func fileToken(path string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		data = bytes.TrimSpace(data)
		if len(data) == 0 || len(data) > maxTokenFile {
			return "", fmt.Errorf("%s holds %d bytes; 1 to %d", path, len(data), maxTokenFile)
		}
		return string(data), nil
	}
}

func (c *Config) provenance() provenance.Config {
	out := provenance.Config{Instance: c.Instance}
	for _, w := range c.Provenance.TrustedWorkflows {
		out.TrustedWorkflows = append(out.TrustedWorkflows, provenance.TrustedWorkflow{
			Server: w.Server, Workflow: w.Workflow, Ref: w.Ref, SHA: w.SHA,
		})
	}
	return out
}
