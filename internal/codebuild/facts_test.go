package codebuild

import (
	"fmt"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/codebuild"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"

	"github.com/assay-build/assay/internal/testenv/awstest"
)

// TestRecordTooLarge: facts that could not be stored are refused by each way to
// read a build, before anything of the build's is fetched.
func TestRecordTooLarge(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	r := e.New(t)
	b := e.start(awstest.StartBuild{StartBuildInput: sdk.StartBuildInput{EnvironmentVariablesOverride: manyVariables(600)}})
	_, err := r.InJob(ctx(t), e.proof(b))
	wantCode(t, err, CodeRecordTooLarge)
	_, err = r.Tagged(ctx(t), Tagged{Partition: "aws", Account: testAccount, RoleName: e.role.Name(), BuildARN: b.ARN})
	wantCode(t, err, CodeRecordTooLarge)
	b.Finish(types.StatusTypeSucceeded)
	_, err = r.Finished(ctx(t), b.ARN)
	wantCode(t, err, CodeRecordTooLarge)
	if n := len(e.world.Requests("s3", "")); n != 0 {
		t.Errorf("S3 was asked %d times", n)
	}
	fits := e.start(awstest.StartBuild{StartBuildInput: sdk.StartBuildInput{EnvironmentVariablesOverride: manyVariables(200)}})
	got, err := r.InJob(ctx(t), e.proof(fits))
	if err != nil || len(got.Environment.Variables) != 200 {
		t.Errorf("%v", err)
	}
}

func manyVariables(n int) []types.EnvironmentVariable {
	out := make([]types.EnvironmentVariable, n)
	for i := range out {
		out[i] = types.EnvironmentVariable{Name: aws.String(fmt.Sprintf("VARIABLE_%04d", i)), Value: aws.String("x"), Type: types.EnvironmentVariableTypePlaintext}
	}
	return out
}

// TestDockerServerRecorded: a docker server outlives builds, so that it is a fact
// of each of them, however they are read.
func TestDockerServerRecorded(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(p *awstest.Project) {
		p.Environment.DockerServer = &types.DockerServer{
			ComputeType: types.ComputeTypeBuildGeneral1Small, SecurityGroupIds: []string{"sg-1"},
			Status: &types.DockerServerStatus{Status: aws.String("ACTIVE"), Message: aws.String("canary")},
		}
	})
	r, b := e.New(t), e.start()
	check := func(got *Build, err error) {
		t.Helper()
		if err != nil || got.Environment.DockerServer == nil || got.Environment.DockerServer.ComputeType != "BUILD_GENERAL1_SMALL" || len(got.Overrides) != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	check(r.InJob(ctx(t), e.proof(b)))
	check(r.Tagged(ctx(t), Tagged{Partition: "aws", Account: testAccount, RoleName: e.role.Name(), BuildARN: b.ARN}))
	b.Finish(types.StatusTypeSucceeded)
	check(r.Finished(ctx(t), b.ARN))
}

// TestSecretOverrides: StartBuild is called with secrets where nobody expects any.
func TestSecretOverrides(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	r := e.New(t)
	b := e.start(awstest.StartBuild{StartBuildInput: sdk.StartBuildInput{SourceVersion: aws.String("x?private_token=c4n4ry")}})
	_, err := r.InJob(ctx(t), e.proof(b))
	wantCode(t, err, CodeRecordSecret)
	quiet(t, "the refusal", fmt.Sprint(err), canary)
	b = e.start(awstest.StartBuild{StartBuildInput: sdk.StartBuildInput{BuildStatusConfigOverride: &types.BuildStatusConfig{
		TargetUrl: aws.String("https://ci.example/hook/c4n4ry?private_token=c4n4ry&client_secret=c4n4ry"), Context: aws.String("key=c4n4ry"),
	}}})
	got, err := r.InJob(ctx(t), e.proof(b))
	want := []Override{{Field: "source.buildStatusConfig.context"}, {Field: "source.buildStatusConfig.targetUrl"}}
	if err != nil || !slices.Equal(got.Overrides, want) {
		t.Errorf("%+v, %v", got, err)
	}
	quiet(t, "the log", e.log.String(), canary)
}
