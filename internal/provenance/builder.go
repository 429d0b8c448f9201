package provenance

import (
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

// CodeBuilderUnknown refuses a caller whose way of building has no builder.id.
const CodeBuilderUnknown refusal.Code = "BUILDER_UNKNOWN"

// Builder is who a statement says has built: this instance, by the way it came to
// know the facts. SLSA requires another id for each such way, since the id is what
// a verifier maps to a level.
type Builder struct {
	ID string
	// Level is the SLSA Build level that may be claimed for this caller: the
	// builder's best, or less where Downgrades say why.
	Level int
	Note  string // why the builder's best is what it is, for people
	// Downgrades are why Level may be below the builder's best: Downgrade words, sorted.
	Downgrades []string
}

// The paths of the builders under the instance's URL. They are frozen.
const (
	pathGitHubHosted        = "/builders/github-actions/github-hosted"
	pathGitHubTrusted       = "/builders/github-actions/trusted-workflow"
	pathGitHubSelfHosted    = "/builders/github-actions/self-hosted"
	pathCodeBuildInJob      = "/builders/codebuild/in-job"
	pathCodeBuildPostBuild  = "/builders/codebuild/post-build"
	pathGitLabHosted        = "/builders/gitlab/hosted"
	pathGitLabSelfHosted    = "/builders/gitlab/self-hosted"
	pathBuildkiteHosted     = "/builders/buildkite/hosted"
	pathBuildkiteSelfHosted = "/builders/buildkite/self-hosted"
	pathWorkload            = "/builders/workload"
	pathWorkloadPrincipal   = "/builders/workload-principal"
	pathAWSRole             = "/builders/aws-role"
	pathX509                = "/builders/x509"
	pathDev                 = "/builders/dev"
)

// Why a level is lower than the builder's best. The words are frozen: policies
// name them.
const (
	// DowngradeDebugSession: a person may have had a shell in the build.
	DowngradeDebugSession = "debug-session"
	// DowngradeInsecureSSL: the source came over TLS that was not checked.
	DowngradeInsecureSSL = "insecure-ssl"
	// DowngradeServiceRoleOverride: who started the build chose its role.
	DowngradeServiceRoleOverride = "service-role-override"
	// DowngradeFileSystems: a file system outlives the build and is shared.
	DowngradeFileSystems = "file-systems"
	// DowngradeCache: a cache outlives the build and is shared.
	DowngradeCache = "cache"
	// DowngradeDockerServer: a Docker daemon outlives the build and is shared.
	DowngradeDockerServer = "docker-server"
	// DowngradeReservedCapacity: the machine outlives the build.
	DowngradeReservedCapacity = "reserved-capacity"
	// DowngradePrivilegedOverride: who started the build made it privileged.
	DowngradePrivilegedOverride = "privileged-override"
	// DowngradeDigestUnconfirmed: the platform does not vouch for the artifact's digest.
	DowngradeDigestUnconfirmed = "artifact-digest-unconfirmed"
	// DowngradeProjectChanged: the project was changed after the build started, so
	// that what differs cannot be told.
	DowngradeProjectChanged = "project-changed"
	// DowngradeVariablesRedacted: a plain variable's value is withheld, so that the
	// external parameters are not complete.
	DowngradeVariablesRedacted = "variables-redacted"
	// DowngradeSourceUnknown: neither the source nor what defines the build is known.
	DowngradeSourceUnknown = "source-unknown"
)

// levelCap is the most that a build with a downgrade may claim.
func levelCap(downgrade string) int {
	switch downgrade {
	case DowngradeReservedCapacity, DowngradePrivilegedOverride, DowngradeDigestUnconfirmed,
		DowngradeProjectChanged, DowngradeVariablesRedacted:
		return 2
	case DowngradeDebugSession, DowngradeInsecureSSL, DowngradeServiceRoleOverride,
		DowngradeFileSystems, DowngradeCache, DowngradeDockerServer:
		return 1
	}
	return 0
}

// Builder returns the builder for what the caller attests, with the level that may
// be claimed for it.
func (w *Writer) Builder(c *identity.Caller) (Builder, error) {
	path, err := w.builderPath(c)
	if err != nil {
		return Builder{}, err
	}
	page := w.pages[path]
	b := Builder{ID: w.instance + path, Level: page.Level, Note: page.Why, Downgrades: downgrades(c)}
	for _, d := range b.Downgrades {
		b.Level = min(b.Level, levelCap(d))
	}
	return b, nil
}

func (w *Writer) builderPath(c *identity.Caller) (string, error) {
	path, err := w.platformPath(c)
	if err != nil {
		return "", err
	}
	if c.Sandbox {
		return pathDev, nil
	}
	return path, nil
}

// platformPath is builderPath without regard to the sandbox: what is refused
// elsewhere is refused there too.
func (w *Writer) platformPath(c *identity.Caller) (string, error) {
	switch {
	case c == nil:
	case c.Kind == identity.KindGitHubActions && c.GitHub != nil:
		return w.gitHubPath(c.GitHub)
	case c.Kind == identity.KindCodeBuild && c.CodeBuild != nil && c.CodeBuild.Build != nil:
		return codeBuildPath(c.CodeBuild)
	case c.Kind == identity.KindWorkload && c.Workload != nil:
		return workloadPath(c)
	case c.Kind == identity.KindAWSRole && c.AWSRole != nil:
		return pathAWSRole, nil
	}
	return "", refusal.New(CodeBuilderUnknown, "the caller is nobody that provenance can be written for")
}

func (w *Writer) gitHubPath(g *identity.GitHubActions) (string, error) {
	switch g.RunnerEnvironment {
	case "self-hosted":
		return pathGitHubSelfHosted, nil
	case "github-hosted":
		if w.trusted(g) {
			return pathGitHubTrusted, nil
		}
		return pathGitHubHosted, nil
	}
	return "", refusal.New(CodeBuilderUnknown, "runner_environment %.40q is neither github-hosted nor self-hosted", g.RunnerEnvironment)
}

func codeBuildPath(b *identity.CodeBuild) (string, error) {
	switch b.Mode {
	case identity.ModeInJob:
		return pathCodeBuildInJob, nil
	case identity.ModePostBuild:
		return pathCodeBuildPostBuild, nil
	}
	return "", refusal.New(CodeBuilderUnknown, "the mode %.40q is neither in-job nor post-build", b.Mode)
}

func workloadPath(c *identity.Caller) (string, error) {
	switch c.Workload.Platform {
	case identity.PlatformGitLab, identity.PlatformBuildkite:
		// Every token of theirs is a job's.
		if !c.IsBuild() {
			return "", refusal.New(CodeFactMissing, "the caller's credential names no run")
		}
	case identity.PlatformX509:
		return pathX509, nil
	}
	switch c.Workload.Platform {
	case identity.PlatformGitLab:
		return runnerPath(c.Workload, pathGitLabHosted, pathGitLabSelfHosted)
	case identity.PlatformBuildkite:
		return runnerPath(c.Workload, pathBuildkiteHosted, pathBuildkiteSelfHosted)
	}
	if !c.IsBuild() {
		return pathWorkloadPrincipal, nil
	}
	return pathWorkload, nil
}

// runnerPath refuses a silent platform as it refuses an unknown word: to take it
// for either kind would be a guess.
func runnerPath(w *identity.Workload, hosted, selfHosted string) (string, error) {
	switch w.Runner {
	case "hosted":
		return hosted, nil
	case "self-hosted":
		return selfHosted, nil
	}
	return "", refusal.New(CodeBuilderUnknown, "the runner of platform %.40q is %.40q, neither hosted nor self-hosted", w.Platform, w.Runner)
}

// downgrades returns the words, sorted, each once.
func downgrades(c *identity.Caller) []string {
	var out []string
	switch c.Kind {
	case identity.KindCodeBuild:
		out = codeBuildDowngrades(c.CodeBuild)
	case identity.KindWorkload:
		if sourceUnknown(c) {
			out = append(out, DowngradeSourceUnknown)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func codeBuildDowngrades(c *identity.CodeBuild) []string {
	b := c.Build
	var out []string
	for _, d := range [...]struct {
		word    string
		applies bool
	}{
		{DowngradeDebugSession, b.DebugSession},
		{DowngradeInsecureSSL, insecureSource(b)},
		{DowngradeServiceRoleOverride, overridden(b, "serviceRole")},
		{DowngradeFileSystems, len(b.FileSystems) > 0},
		{DowngradeCache, cached(b)},
		// Nothing that starts a build can change it: where build and project differ,
		// one of the two records does not say which the build used.
		{DowngradeDockerServer, b.Environment.DockerServer != nil || overridden(b, "environment.dockerServer")},
		{DowngradeReservedCapacity, b.Fleet != ""},
		{DowngradePrivilegedOverride, b.Environment.PrivilegedMode && overridden(b, "environment.privilegedMode")},
		{DowngradeDigestUnconfirmed, c.Mode == identity.ModePostBuild && !c.Confirmed},
		{DowngradeProjectChanged, b.ProjectChanged},
		{DowngradeVariablesRedacted, redacted(b)},
	} {
		if d.applies {
			out = append(out, d.word)
		}
	}
	return out
}

// sourceUnknown reports a run of which neither the input nor the process is named,
// without which there is no Build L1. Buildkite's tokens name no repository, but
// the pipeline, which defines the build and its repository.
func sourceUnknown(c *identity.Caller) bool {
	w := c.Workload
	return isJob(c) && w.Platform != identity.PlatformBuildkite && w.Repository == "" && w.BuildConfigURI == ""
}

func insecureSource(b *codebuild.Build) bool {
	return b.Source.InsecureSSL || slices.ContainsFunc(b.SecondarySources, func(s codebuild.Source) bool { return s.InsecureSSL })
}

func overridden(b *codebuild.Build, field string) bool {
	return slices.ContainsFunc(b.Overrides, func(o codebuild.Override) bool {
		return o.Field == field || strings.HasPrefix(o.Field, field+".")
	})
}

func cached(b *codebuild.Build) bool { return b.CacheType != "" && b.CacheType != "NO_CACHE" }

// redacted reports a variable that is not told in full. One that comes from the
// parameter or secret store is usually told: the tenant chose its name there, and
// no more.
func redacted(b *codebuild.Build) bool {
	return slices.ContainsFunc(b.Environment.Variables, func(v codebuild.Variable) bool { return v.Redacted })
}
