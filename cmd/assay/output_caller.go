package main

import assayv1 "github.com/assay-build/assay/proto/assay/v1"

// callerJSON is a caller as --format json shows it. At most one of the facts is set.
type callerJSON struct {
	Kind           string         `json:"kind"`
	Issuer         string         `json:"issuer"`
	DisplayName    string         `json:"display_name"`
	BuilderID      string         `json:"builder_id,omitempty"`
	SLSABuildLevel int32          `json:"slsa_build_level"`
	Downgrades     []string       `json:"downgrades,omitempty"`
	Roles          []string       `json:"roles,omitempty"`
	GitHubActions  *gitHubJSON    `json:"github_actions,omitempty"`
	CodeBuild      *codeBuildJSON `json:"codebuild,omitempty"`
	AWSRole        *awsRoleJSON   `json:"aws_role,omitempty"`
	Workload       *workloadJSON  `json:"workload,omitempty"`
	Human          *humanJSON     `json:"human,omitempty"`
}

type gitHubJSON struct {
	Repository           string   `json:"repository"`
	RepositoryID         int64    `json:"repository_id"`
	RepositoryOwnerID    int64    `json:"repository_owner_id"`
	RepositoryProperties []string `json:"repository_properties,omitempty"`
	WorkflowRef          string   `json:"workflow_ref,omitempty"`
	JobWorkflowRef       string   `json:"job_workflow_ref"`
	JobWorkflowSHA       string   `json:"job_workflow_sha"`
	Ref                  string   `json:"ref"`
	RefProtected         string   `json:"ref_protected,omitempty"`
	SHA                  string   `json:"sha"`
	EventName            string   `json:"event_name"`
	PullRequest          bool     `json:"pull_request,omitempty"`
	HeadRepository       string   `json:"head_repository,omitempty"`
	Environment          string   `json:"environment,omitempty"`
	RunnerEnvironment    string   `json:"runner_environment"`
	RunID                int64    `json:"run_id"`
	RunAttempt           int64    `json:"run_attempt"`
	ServerURL            string   `json:"server_url,omitempty"`
}

type codeBuildJSON struct {
	BuildARN              string   `json:"build_arn"`
	ProjectARN            string   `json:"project_arn"`
	BuildNumber           int64    `json:"build_number"`
	BuildBatchARN         string   `json:"build_batch_arn,omitempty"`
	Initiator             string   `json:"initiator,omitempty"`
	ServiceRole           string   `json:"service_role"`
	Mode                  string   `json:"mode"`
	SourceType            string   `json:"source_type,omitempty"`
	SourceLocation        string   `json:"source_location,omitempty"`
	SourceVersion         string   `json:"source_version,omitempty"`
	ResolvedSourceVersion string   `json:"resolved_source_version,omitempty"`
	Image                 string   `json:"image,omitempty"`
	PrivilegedMode        bool     `json:"privileged_mode"`
	Overrides             []string `json:"overrides,omitempty"`
	StartTime             string   `json:"start_time,omitempty"`
}

type awsRoleJSON struct {
	Account           string   `json:"account"`
	RoleARN           string   `json:"role_arn"`
	SessionName       string   `json:"session_name,omitempty"`
	Via               string   `json:"via"`
	OrganizationID    string   `json:"organization_id,omitempty"`
	PrincipalTags     []string `json:"principal_tags,omitempty"`
	LambdaFunctionARN string   `json:"lambda_function_arn,omitempty"`
	EC2InstanceARN    string   `json:"ec2_instance_arn,omitempty"`
}

type workloadJSON struct {
	Platform          string   `json:"platform"`
	Subject           string   `json:"subject"`
	Account           string   `json:"account,omitempty"`
	AccountID         string   `json:"account_id,omitempty"`
	Repository        string   `json:"repository,omitempty"`
	RepositoryID      string   `json:"repository_id,omitempty"`
	Ref               string   `json:"ref,omitempty"`
	Commit            string   `json:"commit,omitempty"`
	Event             string   `json:"event,omitempty"`
	Runner            string   `json:"runner,omitempty"`
	Environment       string   `json:"environment,omitempty"`
	BuildConfigURI    string   `json:"build_config_uri,omitempty"`
	BuildConfigDigest string   `json:"build_config_digest,omitempty"`
	InvocationID      string   `json:"invocation_id,omitempty"`
	Properties        []string `json:"properties,omitempty"`
	PullRequest       bool     `json:"pull_request,omitempty"`
}

type humanJSON struct {
	Subject string   `json:"subject"`
	Email   string   `json:"email,omitempty"`
	Name    string   `json:"name,omitempty"`
	Groups  []string `json:"groups,omitempty"`
}

func callerKind(k assayv1.CallerKind) string { return enumWord(k.String(), "CALLER_KIND_") }

func callerOutput(c *assayv1.Caller) *callerJSON {
	if c == nil {
		return nil
	}
	return &callerJSON{
		Kind: callerKind(c.GetKind()), Issuer: c.GetIssuer(), DisplayName: c.GetDisplayName(),
		BuilderID: c.GetBuilderId(), SLSABuildLevel: c.GetSlsaBuildLevel(), Downgrades: c.GetDowngrades(), Roles: c.GetRoles(),
		GitHubActions: gitHubOutput(c.GetGithubActions()),
		CodeBuild:     codeBuildOutput(c.GetCodebuild()),
		AWSRole:       awsRoleOutput(c.GetAwsRole()),
		Workload:      workloadOutput(c.GetWorkload()),
		Human:         humanOutput(c.GetHuman()),
	}
}

func gitHubOutput(gh *assayv1.GitHubActionsClaims) *gitHubJSON {
	if gh == nil {
		return nil
	}
	return &gitHubJSON{
		Repository: gh.GetRepository(), RepositoryID: gh.GetRepositoryId(), RepositoryOwnerID: gh.GetRepositoryOwnerId(),
		RepositoryProperties: gh.GetRepositoryProperties(),
		WorkflowRef:          gh.GetWorkflowRef(), JobWorkflowRef: gh.GetJobWorkflowRef(), JobWorkflowSHA: gh.GetJobWorkflowSha(),
		Ref: gh.GetRef(), RefProtected: gh.GetRefProtected(), SHA: gh.GetSha(), EventName: gh.GetEventName(),
		PullRequest: gh.GetPullRequest(), HeadRepository: gh.GetHeadRepository(),
		Environment: gh.GetEnvironment(), RunnerEnvironment: gh.GetRunnerEnvironment(),
		RunID: gh.GetRunId(), RunAttempt: gh.GetRunAttempt(), ServerURL: gh.GetServerUrl(),
	}
}

func codeBuildOutput(b *assayv1.CodeBuildFacts) *codeBuildJSON {
	if b == nil {
		return nil
	}
	return &codeBuildJSON{
		BuildARN: b.GetBuildArn(), ProjectARN: b.GetProjectArn(), BuildNumber: b.GetBuildNumber(), BuildBatchARN: b.GetBuildBatchArn(),
		Initiator: b.GetInitiator(), ServiceRole: b.GetServiceRole(), Mode: b.GetMode(),
		SourceType: b.GetSourceType(), SourceLocation: b.GetSourceLocation(),
		SourceVersion: b.GetSourceVersion(), ResolvedSourceVersion: b.GetResolvedSourceVersion(),
		Image: b.GetImage(), PrivilegedMode: b.GetPrivilegedMode(), Overrides: b.GetOverrides(), StartTime: stamp(b.GetStartTime()),
	}
}

func awsRoleOutput(r *assayv1.AWSRoleFacts) *awsRoleJSON {
	if r == nil {
		return nil
	}
	return &awsRoleJSON{
		Account: r.GetAccount(), RoleARN: r.GetRoleArn(), SessionName: r.GetSessionName(), Via: r.GetVia(),
		OrganizationID: r.GetOrganizationId(), PrincipalTags: r.GetPrincipalTags(),
		LambdaFunctionARN: r.GetLambdaFunctionArn(), EC2InstanceARN: r.GetEc2InstanceArn(),
	}
}

func workloadOutput(w *assayv1.WorkloadFacts) *workloadJSON {
	if w == nil {
		return nil
	}
	return &workloadJSON{
		Platform: w.GetPlatform(), Subject: w.GetSubject(), Account: w.GetAccount(), AccountID: w.GetAccountId(),
		Repository: w.GetRepository(), RepositoryID: w.GetRepositoryId(), Ref: w.GetRef(), Commit: w.GetCommit(), Event: w.GetEvent(),
		Runner: w.GetRunner(), Environment: w.GetEnvironment(),
		BuildConfigURI: w.GetBuildConfigUri(), BuildConfigDigest: w.GetBuildConfigDigest(),
		InvocationID: w.GetInvocationId(), Properties: w.GetProperties(), PullRequest: w.GetPullRequest(),
	}
}

func humanOutput(h *assayv1.HumanFacts) *humanJSON {
	if h == nil {
		return nil
	}
	return &humanJSON{Subject: h.GetSubject(), Email: h.GetEmail(), Name: h.GetName(), Groups: h.GetGroups()}
}
