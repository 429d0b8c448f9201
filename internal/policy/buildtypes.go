package policy

import (
	"strings"

	"github.com/assay-build/assay/internal/refusal"
)

// The build types whose parameters are understood, as package provenance writes
// them; docs/buildtypes defines all but GitHub's.
const (
	buildTypeGitHubActions = "https://actions.github.io/buildtypes/workflow/v1"
	buildTypeCodeBuild     = "https://assay.build/buildtypes/codebuild/v1"
	buildTypeCIJob         = "https://assay.build/buildtypes/ci-job/v1"
	buildTypePrincipal     = "https://assay.build/buildtypes/principal/v1"
)

// reader returns what reads the parameters of p's build type, nil if nothing does.
func (p *predicate) reader() func(*definition) error {
	switch p.buildType {
	case buildTypeGitHubActions:
		return p.readGitHub
	case buildTypeCodeBuild:
		return p.readCodeBuild
	case buildTypeCIJob:
		return p.readJob
	case buildTypePrincipal:
		return p.readPrincipal
	}
	return nil
}

func (d *definition) parameters(external, internal any) error {
	if err := part(d.BuildDefinition.ExternalParameters, external); err != nil {
		return err
	}
	return part(d.BuildDefinition.InternalParameters, internal)
}

func (p *predicate) readGitHub(d *definition) error {
	var external struct {
		Workflow struct {
			Ref        string `json:"ref"`
			Repository string `json:"repository"`
			Path       string `json:"path"`
		} `json:"workflow"`
	}
	var internal struct {
		GitHub struct {
			EventName         string `json:"event_name"`
			RepositoryID      string `json:"repository_id"`
			RepositoryOwnerID string `json:"repository_owner_id"`
			RunnerEnvironment string `json:"runner_environment"`
			JobWorkflowRef    string `json:"job_workflow_ref"`
			JobWorkflowSHA    string `json:"job_workflow_sha"`
			Environment       string `json:"environment"`
			HeadRepository    string `json:"head_repository"`
		} `json:"github"`
		Assay assayParameters `json:"assay"`
	}
	if err := d.parameters(&external, &internal); err != nil {
		return err
	}
	workflow, github := &external.Workflow, &internal.GitHub
	p.platform = "github-actions"
	p.ref, p.repository, p.workflowPath = workflow.Ref, workflow.Repository, workflow.Path
	p.eventName, p.runnerEnvironment = github.EventName, github.RunnerEnvironment
	server := serverOf(p.repository)
	p.repositoryID, p.repositoryOwnerID = GitHubID(server, github.RepositoryID), GitHubID(server, github.RepositoryOwnerID)
	p.jobWorkflowRef, p.jobWorkflowSHA = github.JobWorkflowRef, github.JobWorkflowSHA
	p.environment, p.headRepository = github.Environment, github.HeadRepository
	if p.runner = github.RunnerEnvironment; p.runner == "github-hosted" {
		p.runner = "hosted"
	}
	// A pull_request_target runs the base's workflow, within reach of what the
	// proposer wrote, so it counts.
	p.pullRequest = p.eventName == "" || strings.HasPrefix(p.eventName, "pull_request") || isPullRef(p.ref)
	if p.repository != "" && p.ref != "" {
		if err := p.readSource(d, func(s *dependency) bool { return s.URI == "git+"+p.repository+"@"+p.ref }); err != nil {
			return err
		}
	}
	// Statements of before levels were stated have the builder's.
	return p.readAssay(&internal.Assay, unlimited)
}

func (p *predicate) readCodeBuild(d *definition) error {
	type source struct {
		Version string `json:"version"`
	}
	var external struct {
		Project struct {
			ARN string `json:"arn"`
		} `json:"project"`
		Source           source   `json:"source"`
		SecondarySources []source `json:"secondarySources"`
		Environment      struct {
			Image          string `json:"image"`
			PrivilegedMode *bool  `json:"privilegedMode"`
		} `json:"environment"`
		Overrides []struct {
			Field string `json:"field"`
		} `json:"overrides"`
	}
	var internal struct {
		CodeBuild struct {
			Account     string `json:"account"`
			Region      string `json:"region"`
			Initiator   string `json:"initiator"`
			ServiceRole string `json:"serviceRole"`
		} `json:"codebuild"`
		Assay assayParameters `json:"assay"`
	}
	if err := d.parameters(&external, &internal); err != nil {
		return err
	}
	p.platform = "codebuild"
	p.account, p.region = accountOf(external.Project.ARN, internal.CodeBuild.Account), internal.CodeBuild.Region
	p.initiator, p.serviceRole = internal.CodeBuild.Initiator, internal.CodeBuild.ServiceRole
	p.projectARN, p.image, p.privileged = external.Project.ARN, external.Environment.Image, external.Environment.PrivilegedMode
	p.pullRequest = isPullVersion(external.Source.Version)
	for _, s := range external.SecondarySources {
		p.pullRequest = p.pullRequest || isPullVersion(s.Version)
	}
	for _, o := range external.Overrides {
		p.overrides = append(p.overrides, o.Field)
	}
	if err := checkSet("overrides", p.overrides); err != nil {
		return err
	}
	if _, digest, pinned := strings.Cut(p.image, "@sha256:"); pinned {
		p.imageDigest = digest
	}
	if err := p.readSource(d, isSource); err != nil {
		return err
	}
	p.ref = refOf(external.Source.Version, p.sourceCommit)
	return p.readAssay(&internal.Assay, 0)
}

// refOf returns the ref that a source version of CodeBuild names, "" for none. A
// short name may be a branch, a tag or a commit: only CodeBuild knows. A webhook asks
// for refs/heads/main^{COMMIT}, and where another commit was built than the one in
// the suffix, it was not the ref that led to it.
func refOf(version, commit string) string {
	if commit != "" {
		version = strings.TrimSuffix(version, "^{"+commit+"}")
	}
	if !strings.HasPrefix(version, "refs/") || strings.Contains(version, "^") { // which no ref has
		return ""
	}
	return version
}

// isPullVersion reports whether a source version of CodeBuild names a proposed
// change: "pr/7", or the ref that the platform keeps it under.
func isPullVersion(version string) bool {
	return strings.HasPrefix(version, "pr/") || strings.HasPrefix(version, "mr/") || isPullRef(version)
}

func (p *predicate) readJob(d *definition) error {
	var external struct {
		Source struct {
			Ref string `json:"ref"`
		} `json:"source"`
	}
	var internal struct {
		CI struct {
			Platform     string `json:"platform"`
			AccountID    string `json:"accountId"`
			RepositoryID string `json:"repositoryId"`
			Event        string `json:"event"`
			Proposed     bool   `json:"proposed"`
			Runner       string `json:"runner"`
			Environment  string `json:"environment"`
		} `json:"ci"`
		Assay assayParameters `json:"assay"`
	}
	if err := d.parameters(&external, &internal); err != nil {
		return err
	}
	ci := &internal.CI
	if ci.Platform == "" {
		return refusal.New(CodeProvenanceMalformed, "the provenance of a CI job names no platform")
	}
	p.platform = platformOf(ci.Platform)
	p.ref, p.eventName, p.runner, p.environment = external.Source.Ref, ci.Event, ci.Runner, ci.Environment
	p.repositoryID, p.repositoryOwnerID = QualifiedID(ci.Platform, ci.RepositoryID), QualifiedID(ci.Platform, ci.AccountID)
	p.pullRequest = ci.Proposed || isPullRef(p.ref)
	if err := p.readSource(d, isSource); err != nil {
		return err
	}
	return p.readAssay(&internal.Assay, 0)
}

// platformOf keeps what the configuration calls a platform from passing for one
// of those that have builders and rules of their own.
func platformOf(name string) string {
	switch name {
	case "gitlab", "buildkite", "x509":
		return name
	}
	return "workload"
}

// QualifiedID names the platform in an id, as facts and principals have it: project 1001 of GitLab is not repository
// 1001 of GitHub, and a rule that compares ids was written for one of them.
func QualifiedID(platform, id string) string {
	if id == "" {
		return ""
	}
	return platform + ":" + id
}

// gitHubURL is the server whose ids are plain numbers.
const gitHubURL = "https://github.com"

// GitHubID is a repository's or an owner's id as policies have it: the plain number
// of github.com, and "ghes.example.com:123" of any other server, which counts from one
// as well. server is its address, as the configuration of an issuer has it; what has
// none has no id. The facts of callers must be made with it too, so that a rule may
// compare the two.
func GitHubID(server, id string) string {
	if server == gitHubURL {
		return id
	}
	_, host, found := strings.Cut(server, "://")
	if !found || host == "" {
		return ""
	}
	return QualifiedID(host, id)
}

// serverOf is the address of the server that a GitHub repository is on, "" where the
// text is not the address of one.
func serverOf(repository string) string {
	for range 2 { // the owner, and the name
		i := strings.LastIndexByte(repository, '/')
		if i < 0 {
			return ""
		}
		repository = repository[:i]
	}
	return repository
}

func (p *predicate) readPrincipal(d *definition) error {
	var internal struct {
		Principal struct {
			Kind     string `json:"kind"`
			Platform string `json:"platform"`
			Subject  string `json:"subject"`
			Account  string `json:"account"`
			RoleARN  string `json:"roleArn"`
		} `json:"principal"`
		Assay assayParameters `json:"assay"`
	}
	if err := d.parameters(new(struct{}), &internal); err != nil {
		return err
	}
	who := &internal.Principal
	p.platform, p.subject = platformOf(who.Platform), who.Subject
	if who.Kind == "aws-role" {
		// Elsewhere an account is what the issuer calls so.
		p.platform, p.account, p.roleARN = "aws-role", accountOf(who.RoleARN, who.Account), who.RoleARN
	}
	return p.readAssay(&internal.Assay, 0)
}

// AWSAccount names the partition in an account outside of the commercial one, as
// facts and principals have it: two partitions give the same number to different
// accounts.
func AWSAccount(partition, account string) string {
	if partition == "" || partition == "aws" {
		return account
	}
	return QualifiedID(partition, account)
}

// accountOf is AWSAccount, where arn is of something in the account.
func accountOf(arn, account string) string {
	if parts := strings.SplitN(arn, ":", 3); len(parts) == 3 {
		return AWSAccount(parts[1], account)
	}
	return account
}

// isSource recognises the dependency that package provenance calls the source.
func isSource(d *dependency) bool { return d.Name == "source" }

// readSource finds the source among the dependencies, which need not be the first.
func (p *predicate) readSource(d *definition, is func(*dependency) bool) error {
	var list []dependency
	if err := part(d.BuildDefinition.ResolvedDependencies, &list); err != nil {
		return err
	}
	for i := range list {
		if s := &list[i]; is(s) {
			p.sourceURI, p.sourceCommit = s.URI, s.Digest["gitCommit"]
			if address, git := strings.CutPrefix(s.URI, "git+"); git && p.repository == "" {
				p.repository, _, _ = strings.Cut(address, "@")
			}
			return nil
		}
	}
	return nil
}

// isPullRef reports whether a ref is what a platform keeps a proposed change under.
func isPullRef(ref string) bool {
	return strings.HasPrefix(ref, "refs/pull/") || strings.HasPrefix(ref, "refs/pull-requests/") || strings.HasPrefix(ref, "refs/merge-requests/")
}
