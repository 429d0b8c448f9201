package testenv

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/server"
	"github.com/aws/aws-sdk-go-v2/aws"
	cbtypes "github.com/aws/aws-sdk-go-v2/service/codebuild/types"
)

// The account of the sandbox's AWS.
const (
	AWSAccount = "111122223333"
	// ServiceAccount is the one that the service itself runs in.
	ServiceAccount = "999988887777"
	AWSRegion      = "eu-central-1"
	AWSProject     = "app"
	AWSExternalID  = "sandbox-external-id-0001"
	AWSDeployRole  = "deploy"
)

// AWS is a stand-in for AWS with one account, as a company would set it up: a
// CodeBuild project with its role, a bucket for artifacts, a role for deploys, and
// the reader role that docs/deploy describes. Server is configured for it.
type AWS struct {
	World   *awstest.World
	Account *awstest.Account
	Project *awstest.BuildProject
	// BuildRole is the project's, Service the one that the server runs as.
	BuildRole, Reader, Service, Deploy *awstest.Role
	Bucket                             *awstest.Bucket
}

// NewAWS starts a stand-in.
func NewAWS(now func() time.Time) (*AWS, error) {
	w, err := awstest.New(awstest.Config{Now: now})
	if err != nil {
		return nil, err
	}
	a := &AWS{World: w, Account: w.Account(AWSAccount)}
	a.Service = w.Account(ServiceAccount).Role("assayd", awstest.TrustService("ecs-tasks.amazonaws.com"), awstest.MaxSession(12*time.Hour))
	a.Reader = a.Account.Role("assay-reader", awstest.TrustAWS(AWSExternalID, a.Service.ARN()))
	a.Service.AllowOn("sts:AssumeRole", a.Reader.ARN())
	a.BuildRole = a.Account.Role("codebuild-app", awstest.TrustService("codebuild.amazonaws.com"), awstest.MaxSession(12*time.Hour))
	a.BuildRole.Allow("sts:GetWebIdentityToken", "sts:TagGetWebIdentityToken")
	a.Deploy = a.Account.Role(AWSDeployRole, awstest.TrustService("lambda.amazonaws.com"), awstest.MaxSession(12*time.Hour))
	a.Deploy.Allow("sts:GetWebIdentityToken")
	a.Bucket = a.Account.Bucket(AWSRegion, "acme-artifacts", awstest.Versioned(true))
	a.Project = a.Account.Project(AWSRegion, awstest.Project{
		Name: AWSProject, ServiceRole: a.BuildRole,
		Artifacts: cbtypes.ProjectArtifacts{
			Type: cbtypes.ArtifactsTypeS3, Location: aws.String(a.Bucket.Name()), Name: aws.String("app.zip"),
			Packaging: cbtypes.ArtifactPackagingZip, NamespaceType: cbtypes.ArtifactNamespaceBuildId,
		},
	})
	a.Reader.AllowOn("codebuild:BatchGetBuilds", a.Project.ARN)
	a.Reader.AllowOn("codebuild:BatchGetProjects", a.Project.ARN)
	a.Reader.AllowOn("iam:GetRole", a.BuildRole.ARN())
	a.Reader.AllowOn("s3:GetObject", a.Bucket.ARN()+"/*")
	a.Reader.AllowOn("s3:GetObjectVersion", a.Bucket.ARN()+"/*")
	a.Reader.AllowOn("s3:ListBucket", a.Bucket.ARN())
	a.Reader.AllowOn("s3:ListBucketVersions", a.Bucket.ARN())
	return a, nil
}

// Close ends the stand-in.
func (a *AWS) Close() { a.World.Close() }

// Configure makes a server believe this AWS.
func (a *AWS) Configure(cfg *server.Config) {
	clients := a.World.AWSConfig(aws.Credentials{}, AWSRegion)
	clients.Credentials = aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return a.Service.Session("assayd"), nil
	}))
	cfg.AWSClients, cfg.AWSTransport = &clients, a.World.Transport()
	cfg.AWS.Accounts = append(cfg.AWS.Accounts, server.AWSAccountConf{
		ID: AWSAccount, Regions: []string{AWSRegion}, CodeBuildProjects: []string{AWSProject},
		ReaderRoleARN: a.Reader.ARN(), ExternalID: AWSExternalID, AllowedRoles: []string{AWSDeployRole},
	})
}

// RunningBuild starts a build and lets it go on to the phase BUILD.
func (a *AWS) RunningBuild() *awstest.Build {
	b := a.Project.StartBuild(awstest.StartBuild{})
	b.Advance(cbtypes.BuildPhaseTypeBuild)
	return b
}

// FinishedBuild is a build that has uploaded a ZIP of files and succeeded.
func (a *AWS) FinishedBuild(files map[string][]byte) *awstest.Build {
	b := a.RunningBuild()
	b.UploadFiles(files)
	b.Finish(cbtypes.StatusTypeSucceeded)
	return b
}

// EnvFile is a build's environment as a shell script that exports it.
func (a *AWS) EnvFile(serverURL string, b *awstest.Build) string {
	var text strings.Builder
	fmt.Fprintf(&text, "# Load with: . codebuild.env\n# A build of the stand-in for AWS CodeBuild. What it attests is SLSA level 0 and says so.\n")
	for _, kv := range append([]string{"ASSAY_SERVER=" + serverURL}, b.Env()...) {
		k, v, _ := strings.Cut(kv, "=")
		fmt.Fprintf(&text, "export %s='%s'\n", k, strings.ReplaceAll(v, "'", `'\''`))
	}
	return text.String()
}
