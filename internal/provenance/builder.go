package provenance

import (
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

// CodeBuilderUnknown refuses a caller whose way of building has no builder.id.
const CodeBuilderUnknown refusal.Code = "BUILDER_UNKNOWN"

// Builder is who a statement says has built: this instance, by the way it came to
// know the facts. SLSA requires another id for each such way, since the id is what
// a verifier maps to a level.
type Builder struct {
	ID    string
	Level int    // SLSA Build level, the most that can be claimed
	Note  string // why that level, for people
}

// The paths of the builders under the instance's URL.
const (
	pathGitHubHosted = "/builders/github-actions/github-hosted"
	pathSelfHosted   = "/builders/github-actions/self-hosted"
	pathDev          = "/builders/dev"
)

// BuilderOf returns the builder for what the caller attests. instance is the URL
// of this service, without a slash at its end.
//
// A GitHub-hosted job is level 2 and not 3: any step of it can ask for the token
// and so speak for the whole job. A self-hosted runner may be anything that could
// be made to ask for the token, hence level 1.
func BuilderOf(instance string, c *identity.Caller) (Builder, error) {
	if c == nil || c.Kind != identity.KindGitHubActions || c.GitHub == nil {
		return Builder{}, refusal.New(CodeBuilderUnknown, "the caller is not a build that provenance can be written for")
	}
	if instance == "" || instance[len(instance)-1] == '/' {
		return Builder{}, refusal.New(CodeBuilderUnknown, "the instance URL %q is empty or ends with a slash", instance)
	}
	environment := c.GitHub.RunnerEnvironment
	switch {
	case environment != "github-hosted" && environment != "self-hosted":
		return Builder{}, refusal.New(CodeBuilderUnknown, "runner_environment %.40q is neither github-hosted nor self-hosted", environment)
	case c.Sandbox:
		return Builder{instance + pathDev, 0, "a sandbox issuer, which vouches for nothing real"}, nil
	case environment == "self-hosted":
		return Builder{instance + pathSelfHosted, 1, "a self-hosted runner, whose isolation nobody vouches for"}, nil
	}
	return Builder{instance + pathGitHubHosted, 2, "a GitHub-hosted runner; facts from GitHub's token"}, nil
}

// BuilderLevels returns the level of every builder of this instance, by id.
func BuilderLevels(instance string) map[string]int {
	return map[string]int{
		instance + pathGitHubHosted: 2,
		instance + pathSelfHosted:   1,
		instance + pathDev:          0,
	}
}
