package awstest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"
)

// phases are those of every build, in order.
var phases = [...]types.BuildPhaseType{
	types.BuildPhaseTypeSubmitted, types.BuildPhaseTypeQueued, types.BuildPhaseTypeProvisioning,
	types.BuildPhaseTypeDownloadSource, types.BuildPhaseTypeInstall, types.BuildPhaseTypePreBuild,
	types.BuildPhaseTypeBuild, types.BuildPhaseTypePostBuild, types.BuildPhaseTypeUploadArtifacts,
	types.BuildPhaseTypeFinalizing, types.BuildPhaseTypeCompleted,
}

// Build is a build of a project. Its record changes only when the test says so:
// no job runs. It is safe for concurrent use.
type Build struct {
	Project *BuildProject
	ARN     string
	ID      string // PROJECT:UUID
	UUID    string

	commit    string
	packaging map[string]types.ArtifactPackaging // by artifact identifier, "" for the first

	mu     sync.Mutex
	record types.Build
}

// newRecord is the record of a build that was just submitted. project is the
// build's own copy, with the overrides laid over it.
func (b *Build) newRecord(project types.Project, in StartBuild, number int64) types.Build {
	a, now := b.Project.account, recordTime(b.Project.account.w)
	initiator := in.Initiator
	if initiator == "" {
		initiator = "alice"
	}
	record := types.Build{
		Arn: &b.ARN, Id: &b.ID, ProjectName: &b.Project.Name, BuildNumber: &number, Initiator: &initiator,
		BuildStatus: types.StatusTypeInProgress, StartTime: now, ServiceRole: project.ServiceRole,
		Source: project.Source, SourceVersion: project.SourceVersion,
		SecondarySources: project.SecondarySources, SecondarySourceVersions: project.SecondarySourceVersions,
		Environment: project.Environment, Cache: project.Cache, FileSystemLocations: project.FileSystemLocations,
		VpcConfig: project.VpcConfig, EncryptionKey: project.EncryptionKey,
		TimeoutInMinutes: project.TimeoutInMinutes, QueuedTimeoutInMinutes: project.QueuedTimeoutInMinutes,
		Artifacts: b.artifacts(project.Artifacts), SecondaryArtifacts: []types.BuildArtifacts{},
		Logs: b.logs(project.LogsConfig, "null", "null"),
	}
	for i := range project.SecondaryArtifacts {
		record.SecondaryArtifacts = append(record.SecondaryArtifacts, *b.artifacts(&project.SecondaryArtifacts[i]))
	}
	if in.DebugSessionEnabled != nil {
		record.DebugSession = &types.DebugSession{SessionEnabled: in.DebugSessionEnabled}
	}
	if in.Batch != "" {
		record.BuildBatchArn = aws.String(a.arn("codebuild", b.Project.region, "build-batch/"+b.Project.Name+":"+in.Batch))
	}
	openPhase(&record, types.BuildPhaseTypeSubmitted, now)
	closePhase(&record, types.StatusTypeSucceeded, now)
	openPhase(&record, types.BuildPhaseTypeQueued, now)
	return deepCopy(record)
}

// logs is where the build's log is: nowhere, spelled "null", until a machine is
// there to write it.
func (b *Build) logs(config *types.LogsConfig, group, stream string) *types.LogsLocation {
	p := b.Project
	l := &types.LogsLocation{
		CloudWatchLogs: config.CloudWatchLogs, S3Logs: config.S3Logs,
		CloudWatchLogsArn: aws.String(p.account.arn("logs", p.region, "log-group:"+group+":log-stream:"+stream)),
		DeepLink:          aws.String("https://console.aws.amazon.com/cloudwatch/home?region=" + p.region + "#logEvent:group=" + group + ";stream=" + stream),
	}
	if group != "null" {
		l.GroupName, l.StreamName = &group, &stream
	}
	return l
}

// recordTime is the world's time as the API tells it, in milliseconds.
func recordTime(w *World) *time.Time {
	t := w.now().UTC().Truncate(time.Millisecond)
	return &t
}

func openPhase(r *types.Build, phase types.BuildPhaseType, now *time.Time) {
	r.CurrentPhase = aws.String(string(phase))
	r.Phases = append(r.Phases, types.BuildPhase{PhaseType: phase, StartTime: now})
}

func closePhase(r *types.Build, status types.StatusType, now *time.Time) {
	p := &r.Phases[len(r.Phases)-1]
	p.PhaseStatus, p.EndTime = status, now
	p.DurationInSeconds = aws.Int64(int64(now.Sub(*p.StartTime) / time.Second))
	if status != types.StatusTypeSucceeded {
		p.Contexts = []types.PhaseContext{{StatusCode: aws.String("COMMAND_EXECUTION_ERROR"), Message: aws.String("Error while executing command")}}
	}
}

// Record returns what BatchGetBuilds says of the build now.
func (b *Build) Record() types.Build {
	b.mu.Lock()
	defer b.mu.Unlock()
	return deepCopy(b.record)
}

// Edit changes the record as it likes, for records that CodeBuild would not make.
func (b *Build) Edit(change func(*types.Build)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	record := deepCopy(b.record)
	change(&record)
	b.record = deepCopy(record)
}

// Advance lets the build go on until it is in a phase, each phase before it having
// succeeded at the world's time. It panics if the build is past that phase. A build
// that reaches COMPLETED has succeeded.
func (b *Build) Advance(to types.BuildPhaseType) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance(to)
}

// advance is Advance for those who hold b.mu.
func (b *Build) advance(to types.BuildPhaseType) {
	from := slices.Index(phases[:], types.BuildPhaseType(aws.ToString(b.record.CurrentPhase)))
	end := slices.Index(phases[:], to)
	if from < 0 || end < from {
		panic(fmt.Sprintf("awstest: a build in phase %s cannot be in %s next", aws.ToString(b.record.CurrentPhase), to))
	}
	for _, phase := range phases[from+1 : end+1] {
		now := recordTime(b.Project.account.w)
		closePhase(&b.record, types.StatusTypeSucceeded, now)
		openPhase(&b.record, phase, now)
		switch phase {
		case types.BuildPhaseTypeProvisioning:
			l := b.record.Logs
			b.record.Logs = b.logs(&types.LogsConfig{CloudWatchLogs: l.CloudWatchLogs, S3Logs: l.S3Logs}, "/aws/codebuild/"+b.Project.Name, b.UUID)
		case types.BuildPhaseTypeDownloadSource:
			b.record.ResolvedSourceVersion = optional(b.commit)
		case types.BuildPhaseTypeCompleted:
			b.complete(types.StatusTypeSucceeded, now)
		}
	}
}

func (b *Build) complete(status types.StatusType, now *time.Time) {
	b.record.BuildStatus, b.record.BuildComplete, b.record.EndTime = status, true, now
}

// Finish ends the build. If it succeeded it passes through all phases; else the
// phase that it is in ends with the status, and so does the build.
func (b *Build) Finish(status types.StatusType) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case status == types.StatusTypeInProgress || b.record.BuildComplete:
		panic("awstest: a build ends once, and not with status " + string(status))
	case status == types.StatusTypeSucceeded:
		b.advance(types.BuildPhaseTypeCompleted)
		return
	}
	now := recordTime(b.Project.account.w)
	current := aws.ToString(b.record.CurrentPhase)
	closePhase(&b.record, status, now)
	if current != string(types.BuildPhaseTypeFinalizing) {
		openPhase(&b.record, types.BuildPhaseTypeFinalizing, now)
		closePhase(&b.record, types.StatusTypeSucceeded, now)
	}
	openPhase(&b.record, types.BuildPhaseTypeCompleted, now)
	b.complete(status, now)
}

// Credentials are those of the job: a session of the build's service role, named
// AWSCodeBuild- and the build's UUID, whose requests CodeBuild marks with the
// build's ARN. They are new ones each time, as the container endpoint's are.
func (b *Build) Credentials() aws.Credentials {
	role := b.role()
	return role.session("AWSCodeBuild-"+b.UUID, time.Hour, map[string]string{
		"codebuild:BuildArn": b.ARN, "codebuild:ProjectArn": b.Project.ARN,
	})
}

// role finds the role that the record names, by ARN or by name.
func (b *Build) role() *Role {
	name := aws.ToString(b.Record().ServiceRole)
	name = name[strings.LastIndexByte(name, '/')+1:]
	a := b.Project.account
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	r := a.roles[name]
	if r == nil {
		panic("awstest: the account has no role " + name)
	}
	return r
}

// Env is what the job has in its environment, as "NAME=value": what CodeBuild
// sets, with the variables of project and build laid over it.
func (b *Build) Env() []string {
	p, r := b.Project, b.Record()
	env := []string{
		"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + p.account.w.CredentialsURL(b.Credentials()),
		"AWS_DEFAULT_REGION=" + p.region,
		"AWS_REGION=" + p.region,
		"CI=true",
		"CODEBUILD_BUILD_ARN=" + b.ARN,
		"CODEBUILD_BUILD_ID=" + b.ID,
		"CODEBUILD_BUILD_IMAGE=" + aws.ToString(r.Environment.Image),
		fmt.Sprintf("CODEBUILD_BUILD_NUMBER=%d", aws.ToInt64(r.BuildNumber)),
		"CODEBUILD_BUILD_SUCCEEDING=1",
		"CODEBUILD_INITIATOR=" + aws.ToString(r.Initiator),
		"CODEBUILD_KMS_KEY_ID=" + aws.ToString(r.EncryptionKey),
		"CODEBUILD_LOG_PATH=" + b.UUID,
		"CODEBUILD_PROJECT_ARN=" + p.ARN,
		"CODEBUILD_RESOLVED_SOURCE_VERSION=" + aws.ToString(r.ResolvedSourceVersion),
		"CODEBUILD_SOURCE_REPO_URL=" + aws.ToString(r.Source.Location),
		"CODEBUILD_SOURCE_VERSION=" + aws.ToString(r.SourceVersion),
		fmt.Sprintf("CODEBUILD_START_TIME=%d", r.StartTime.UnixMilli()),
	}
	for _, v := range r.Environment.EnvironmentVariables {
		if v.Type == types.EnvironmentVariableTypePlaintext {
			env = append(env, aws.ToString(v.Name)+"="+aws.ToString(v.Value))
		}
	}
	return env
}
