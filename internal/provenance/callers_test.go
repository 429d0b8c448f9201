package provenance

import (
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/identity"
)

const (
	instance = "https://assay.example.com"
	sha      = "c27d339ee6075c1f744c5d4b200f7901aad2c369"
	otherSHA = "0123456789abcdef0123456789abcdef01234567"
)

func hex(digit string, n int) string { return strings.Repeat(digit, n) }

func subjects() []attest.Subject {
	return []attest.Subject{
		{Name: "dist/app.tar.gz", Digest: map[string]string{"sha256": hex("a", 64), "sha512": hex("b", 128)}},
		{Name: "app-image", Digest: map[string]string{"sha256": hex("c", 64)},
			Annotations: map[string]string{AnnotationDigestOrigin: OriginClaimed}},
	}
}

// subjectsOf are what c would attest: of a finished build, its object in S3.
func subjectsOf(c *identity.Caller) []attest.Subject {
	if c.CodeBuild != nil && c.CodeBuild.Mode == identity.ModePostBuild {
		return []attest.Subject{{Name: "artifacts/app/app.zip", Digest: subjects()[0].Digest}}
	}
	return subjects()
}

func writer(t testing.TB) *Writer {
	t.Helper()
	w, err := New(Config{Instance: instance})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// trustingWriter trusts the reusable workflow of caller at the commit it has there.
func trustingWriter(t testing.TB) *Writer {
	t.Helper()
	w, err := New(Config{Instance: instance, TrustedWorkflows: []TrustedWorkflow{
		{Workflow: "octo-org/builders/.github/workflows/build.yml", Ref: "refs/tags/v2", SHA: otherSHA},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func statement(t testing.TB, w *Writer, c *identity.Caller) []byte {
	t.Helper()
	st, err := w.Statement(c, subjectsOf(c))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := st.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// caller is a job of GitHub Actions that a reusable workflow defines.
func caller() *identity.Caller {
	return &identity.Caller{
		Kind:        identity.KindGitHubActions,
		Issuer:      "https://token.actions.githubusercontent.com",
		DisplayName: "octocat/hello-world@refs/heads/main run 1536140711/2",
		GitHub: &identity.GitHubActions{
			Repository: "octocat/hello-world", RepositoryID: 9007199254740993, RepositoryOwner: "octocat", RepositoryOwnerID: 583231,
			WorkflowRef:    "octocat/hello-world/.github/workflows/release.yml@refs/heads/main",
			WorkflowSHA:    sha,
			JobWorkflowRef: "octo-org/builders/.github/workflows/build.yml@refs/tags/v2",
			JobWorkflowSHA: otherSHA,
			Ref:            "refs/heads/main", RefType: "branch", SHA: sha, EventName: "push", RunnerEnvironment: "github-hosted",
			RunID: 1536140711, RunNumber: 12, RunAttempt: 2, Actor: "octocat", ActorID: 583231,
			ServerURL: "https://github.com",
		},
	}
}

// direct is a job that its own workflow defines, with every claim a rule may ask.
func direct() *identity.Caller {
	c := caller()
	c.GitHub.JobWorkflowRef, c.GitHub.JobWorkflowSHA = c.GitHub.WorkflowRef, c.GitHub.WorkflowSHA
	c.GitHub.RefProtected, c.GitHub.Environment, c.GitHub.HeadRepository = "true", "production", "same"
	c.GitHub.Properties = []string{"team=payments", "tier=1"}
	return c
}

func pullRequest() *identity.Caller {
	c := caller()
	c.GitHub.Ref, c.GitHub.EventName = "refs/pull/7/merge", "pull_request"
	c.GitHub.WorkflowRef = "octocat/hello-world/.github/workflows/release.yml@refs/pull/7/merge"
	c.GitHub.WorkflowSHA, c.GitHub.JobWorkflowSHA = "", ""
	c.GitHub.RunnerEnvironment, c.GitHub.HeadRepository = "self-hosted", "fork"
	return c
}

func sandboxed(c *identity.Caller) *identity.Caller {
	c.Sandbox = true
	return c
}

const (
	buildARN   = "arn:aws:codebuild:eu-west-1:111122223333:build/app:2ca46003-a831-4f0e-9d3e-0a1b2c3d4e5f"
	projectARN = "arn:aws:codebuild:eu-west-1:111122223333:project/app"
)

// inJob is a running build of a project on GitHub, without a fault.
func inJob() *identity.Caller {
	return &identity.Caller{
		Kind: identity.KindCodeBuild, Issuer: "https://sts.amazonaws.com", DisplayName: "app:2ca46003",
		CodeBuild: &identity.CodeBuild{Mode: identity.ModeInJob, Build: &codebuild.Build{
			ARN: buildARN, ProjectARN: projectARN, Partition: "aws", Region: "eu-west-1", Account: "111122223333",
			Project: "app", UUID: "2ca46003-a831-4f0e-9d3e-0a1b2c3d4e5f", Number: 41, Initiator: "GitHub-Hookshot/abc1234",
			ServiceRole: "arn:aws:iam::111122223333:role/service-role/codebuild-app",
			StartedAt:   time.Date(2026, 3, 1, 11, 0, 0, 250e6, time.FixedZone("", 3600)),
			Source: codebuild.Source{
				Type: "GITHUB", Location: "https://github.com/acme/app.git", Version: "refs/heads/main^{" + sha + "}", Commit: sha, GitCloneDepth: 1,
			},
			Environment: codebuild.Environment{
				Type: "LINUX_CONTAINER", ComputeType: "BUILD_GENERAL1_SMALL", ImagePullCredentialsType: "SERVICE_ROLE",
				Image:       "111122223333.dkr.ecr.eu-west-1.amazonaws.com/build@sha256:" + hex("d", 64),
				ImageDigest: hex("d", 64),
				Variables: []codebuild.Variable{
					{Name: "DB_PASSWORD", Type: "SECRETS_MANAGER", Value: "prod/db"},
					{Name: "STAGE", Type: "PLAINTEXT", Value: "prod"},
				},
			},
			Artifacts: []codebuild.Artifact{{Location: "arn:aws:s3:::artifacts/app/app.zip"}},
			LogARN:    "arn:aws:logs:eu-west-1:111122223333:log-group:/aws/codebuild/app:log-stream:2ca46003-a831-4f0e-9d3e-0a1b2c3d4e5f",
		}},
	}
}

// postBuild is the same build after its end, its artifact confirmed.
func postBuild() *identity.Caller {
	c := inJob()
	c.CodeBuild.Mode, c.CodeBuild.Confirmed = identity.ModePostBuild, true
	b := c.CodeBuild.Build
	b.FinishedAt = b.StartedAt.Add(93 * time.Second)
	b.Artifacts[0].SHA256, b.Artifacts[0].VersionID = hex("a", 64), "3sL4kqtJlcpXroDTDmJ"
	b.ReportARNs = []string{"arn:aws:codebuild:eu-west-1:111122223333:report/app-tests:2ca46003"}
	return c
}

func batch() *identity.Caller {
	c := postBuild()
	b := c.CodeBuild.Build
	b.BatchARN = "arn:aws:codebuild:eu-west-1:111122223333:build-batch/app:8d0c0e4e-8a0f-4f3f-9a1c-5b6c7d8e9f00"
	b.Initiator = "codebuild-app/AWSCodeBuild-8d0c0e4e-8a0f-4f3f-9a1c-5b6c7d8e9f00"
	b.Source = codebuild.Source{Type: "CODECOMMIT", Location: "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/app", Commit: sha,
		BuildspecSHA256: hex("e", 64)}
	b.SecondarySources = []codebuild.Source{
		{Identifier: "models", Type: "S3", Location: "acme-models/2026/model v1.zip", Version: "null+1"},
		{Identifier: "lib", Type: "BITBUCKET", Location: "https://bitbucket.org/acme/lib", Version: "v1.2.0", Commit: otherSHA, GitSubmodules: true},
	}
	b.Environment.Image, b.Environment.ImageDigest = "aws/codebuild/amazonlinux-x86_64-standard:5.0", ""
	b.Environment.ImagePullCredentialsType = "CODEBUILD"
	b.Artifacts = append(b.Artifacts, codebuild.Artifact{Identifier: "symbols", Location: "arn:aws:s3:::artifacts/app/symbols.zip", NameOverridden: true})
	return c
}

// everyOverride is a build in which StartBuild changed all that it can, and in
// which everything is wrong that lowers the level.
func everyOverride() *identity.Caller {
	c := postBuild()
	c.CodeBuild.Confirmed = false
	b := c.CodeBuild.Build
	b.Initiator = "mallory"
	b.ServiceRole = "arn:aws:iam::111122223333:role/other"
	b.Fleet = "arn:aws:codebuild:eu-west-1:111122223333:fleet/shared:1b2c3d4e"
	b.CacheType, b.FileSystems, b.VPC = "LOCAL", []string{"fs-1.efs.eu-west-1.amazonaws.com:/"}, "vpc-0a1b2c3d"
	b.DebugSession, b.ProjectChanged = true, true
	b.EncryptionKey = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	b.Source = codebuild.Source{Type: "GITHUB_ENTERPRISE", Location: "https://ghe.example.com/mallory/app", Version: "pr/7", Commit: otherSHA,
		BuildspecSHA256: hex("f", 64), InsecureSSL: true}
	b.Environment = codebuild.Environment{
		Type: "ARM_CONTAINER", ComputeType: "BUILD_GENERAL1_LARGE", ImagePullCredentialsType: "CODEBUILD", PrivilegedMode: true,
		Image: "ghcr.io/mallory/image:latest", Certificate: "arn:aws:s3:::mallory/ca.pem",
		DockerServer: &codebuild.DockerServer{ComputeType: "BUILD_GENERAL1_XLARGE"},
		Variables:    []codebuild.Variable{{Name: "stage", Type: "PLAINTEXT", Redacted: true}, {Name: "STAGE", Type: "PLAINTEXT"}},
	}
	b.Overrides = []codebuild.Override{
		{Field: "artifacts"}, {Field: "cache.type", Project: "NO_CACHE", Build: "LOCAL"}, {Field: "debugSession.sessionEnabled", Build: "true"},
		{Field: "environment.certificate", Build: "arn:aws:s3:::mallory/ca.pem"},
		{Field: "environment.computeType", Project: "BUILD_GENERAL1_SMALL", Build: "BUILD_GENERAL1_LARGE"},
		{Field: "environment.dockerServer.computeType", Build: "BUILD_GENERAL1_XLARGE"},
		{Field: "environment.environmentVariables.STAGE", Project: "prod"}, {Field: "environment.environmentVariables.stage"},
		{Field: "environment.fleet", Build: b.Fleet},
		{Field: "environment.image", Project: "aws/codebuild/standard:7.0", Build: "ghcr.io/mallory/image:latest"},
		{Field: "environment.privilegedMode", Project: "false", Build: "true"},
		{Field: "serviceRole", Project: "arn:aws:iam::111122223333:role/service-role/codebuild-app", Build: b.ServiceRole},
		{Field: "source.buildspec"}, {Field: "source.insecureSsl", Project: "false", Build: "true"},
		{Field: "source.location", Project: "https://github.com/acme/app.git", Build: "https://ghe.example.com/mallory/app"},
		{Field: "source.type", Project: "GITHUB", Build: "GITHUB_ENTERPRISE"},
		{Field: "sourceVersion", Project: "main", Build: "pr/7"},
	}
	return c
}

func gitLab() *identity.Caller {
	return &identity.Caller{
		Kind: identity.KindWorkload, Issuer: "https://gitlab.com", DisplayName: "acme/tools/app job 12345678901234567",
		Workload: &identity.Workload{
			Platform: "gitlab", Subject: "project/12345678901234567", Account: "acme/tools", AccountID: "72",
			Repository: "https://gitlab.com/acme/tools/app", RepositoryID: "12345678901234567", Ref: "refs/heads/main", RefProtected: "true",
			Commit: sha, Event: "push", Runner: "hosted", Environment: "production",
			BuildConfigURI: "https://gitlab.com/acme/tools/app//.gitlab-ci.yml@refs/heads/main", BuildConfigDigest: sha,
			InvocationID: "https://gitlab.com/acme/tools/app/-/jobs/12345678901234567", Properties: []string{"user_login=alice"},
		},
	}
}

func buildkite() *identity.Caller {
	return &identity.Caller{
		Kind: identity.KindWorkload, Issuer: "https://agent.buildkite.com", DisplayName: "acme/app build 12",
		Workload: &identity.Workload{
			Platform: "buildkite", Subject: "pipeline/0184990a-4782-42b5-afc1-16715b10b8ff", Account: "acme", AccountID: "0184990a-477b-4fa8-9968-496074483cee",
			Ref: "refs/heads/main", Commit: sha, Event: "webhook", Runner: "self-hosted", Proposed: true,
			InvocationID: "https://buildkite.com/acme/app/builds/12#0184990a-477b-4fa8-9968-496074483cef",
		},
	}
}

func workload() *identity.Caller {
	return &identity.Caller{
		Kind: identity.KindWorkload, Issuer: "https://ci.example.com", DisplayName: "app 7",
		Workload: &identity.Workload{
			Platform: "jenkins", Subject: "job/app", Repository: "https://git.example.com:8443/app.git/", Ref: "refs/tags/v1#2",
			InvocationID: "https://ci.example.com/job/app/7",
		},
	}
}

func awsRole() *identity.Caller {
	return &identity.Caller{
		Kind: identity.KindAWSRole, Issuer: "https://sts.amazonaws.com", DisplayName: "deployer",
		AWSRole: &identity.AWSRole{
			Partition: "aws", Account: "111122223333", RoleARN: "arn:aws:iam::111122223333:role/deployer", UniqueID: "AROA1234567890EXAMPLE",
			SessionName: "chosen-by-the-holder", Via: identity.ViaSTS,
		},
	}
}

func x509() *identity.Caller {
	return &identity.Caller{
		Kind: identity.KindWorkload, Issuer: "x509:plant", DisplayName: "spiffe://plant.example/builder",
		Workload: &identity.Workload{Platform: "x509", Subject: "spiffe://plant.example/builder"},
	}
}
