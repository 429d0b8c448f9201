package codebuild

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
)

var testStart = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// fullProject has something in every field that builds copy.
func fullProject() *types.Project {
	source := func(id string) types.ProjectSource {
		return types.ProjectSource{
			Type: types.SourceTypeGithub, Location: aws.String("https://github.com/acme/" + id + ".git"), SourceIdentifier: &id,
			Auth:      &types.SourceAuth{Type: types.SourceAuthTypeCodeconnections, Resource: aws.String("arn:aws:codeconnections:eu-west-1:111122223333:connection/x")},
			Buildspec: aws.String("ci/buildspec.yml"), GitCloneDepth: aws.Int32(1), InsecureSsl: aws.Bool(false), ReportBuildStatus: aws.Bool(true),
			GitSubmodulesConfig: &types.GitSubmodulesConfig{FetchSubmodules: aws.Bool(true)},
			BuildStatusConfig:   &types.BuildStatusConfig{Context: aws.String("ci"), TargetUrl: aws.String("https://ci.example.com/")},
		}
	}
	primary := source("")
	return &types.Project{
		Arn: aws.String(testARN.ProjectARN()), Name: aws.String("app"), LastModified: aws.Time(testStart.Add(-time.Hour)),
		Source: &primary, SourceVersion: aws.String("main"),
		SecondarySources:        []types.ProjectSource{source("tools"), source("data")},
		SecondarySourceVersions: []types.ProjectSourceVersion{{SourceIdentifier: aws.String("tools"), SourceVersion: aws.String("v1")}},
		ServiceRole:             aws.String("arn:aws:iam::111122223333:role/service-role/codebuild-app"),
		Environment: &types.ProjectEnvironment{
			Type: types.EnvironmentTypeLinuxContainer, ComputeType: types.ComputeTypeBuildGeneral1Small, PrivilegedMode: aws.Bool(false),
			Image:       aws.String("111122223333.dkr.ecr.eu-west-1.amazonaws.com/build:1@sha256:" + strings.Repeat("ab", 32)),
			Certificate: aws.String("ca-bucket/ca.pem"), ImagePullCredentialsType: types.ImagePullCredentialsTypeServiceRole,
			Fleet:                &types.ProjectFleet{FleetArn: aws.String("arn:aws:codebuild:eu-west-1:111122223333:fleet/x:y")},
			RegistryCredential:   &types.RegistryCredential{Credential: aws.String("dockerhub"), CredentialProvider: types.CredentialProviderTypeSecretsManager},
			ComputeConfiguration: &types.ComputeConfiguration{Disk: aws.Int64(64), Memory: aws.Int64(8), VCpu: aws.Int64(4), InstanceType: aws.String("c7i.large"), MachineType: types.MachineTypeGeneral},
			DockerServer:         &types.DockerServer{ComputeType: types.ComputeTypeBuildGeneral1Small, SecurityGroupIds: []string{"sg-1"}},
			EnvironmentVariables: []types.EnvironmentVariable{
				{Name: aws.String("STAGE"), Value: aws.String("prod"), Type: types.EnvironmentVariableTypePlaintext},
				{Name: aws.String("INTERNAL"), Value: aws.String("untold"), Type: types.EnvironmentVariableTypePlaintext},
				{Name: aws.String("DB"), Value: aws.String("/app/db"), Type: types.EnvironmentVariableTypeParameterStore},
			},
		},
		Artifacts: &types.ProjectArtifacts{
			Type: types.ArtifactsTypeS3, Location: aws.String("app-artifacts"), Path: aws.String("out/"), NamespaceType: types.ArtifactNamespaceBuildId,
			Name: aws.String("app.zip"), Packaging: types.ArtifactPackagingZip, EncryptionDisabled: aws.Bool(false), OverrideArtifactName: aws.Bool(false),
		},
		SecondaryArtifacts: []types.ProjectArtifacts{{
			Type: types.ArtifactsTypeS3, ArtifactIdentifier: aws.String("docs"), Location: aws.String("app-artifacts"), Name: aws.String("/"), Path: aws.String("docs"), NamespaceType: types.ArtifactNamespaceBuildId,
		}},
		Cache:               &types.ProjectCache{Type: types.CacheTypeS3, Location: aws.String("cache-bucket/app"), CacheNamespace: aws.String("n"), Modes: []types.CacheMode{types.CacheModeLocalSourceCache}},
		FileSystemLocations: []types.ProjectFileSystemLocation{{Type: types.FileSystemTypeEfs, Identifier: aws.String("efs"), Location: aws.String("fs-1.efs.eu-west-1.amazonaws.com:/"), MountPoint: aws.String("/mnt"), MountOptions: aws.String("hard")}},
		VpcConfig:           &types.VpcConfig{VpcId: aws.String("vpc-1"), Subnets: []string{"subnet-1", "subnet-2"}, SecurityGroupIds: []string{"sg-1"}},
		EncryptionKey:       aws.String("arn:aws:kms:eu-west-1:111122223333:alias/aws/s3"),
		LogsConfig: &types.LogsConfig{
			CloudWatchLogs: &types.CloudWatchLogsConfig{Status: types.LogsConfigStatusTypeEnabled, GroupName: aws.String("g"), StreamName: aws.String("s")},
			S3Logs:         &types.S3LogsConfig{Status: types.LogsConfigStatusTypeEnabled, Location: aws.String("log-bucket/app"), EncryptionDisabled: aws.Bool(false), BucketOwnerAccess: types.BucketOwnerAccessFull},
		},
		TimeoutInMinutes: aws.Int32(30), QueuedTimeoutInMinutes: aws.Int32(60), AutoRetryLimit: aws.Int32(2),
	}
}

// buildOf is the record CodeBuild makes of a build without overrides.
func buildOf(p *types.Project) *types.Build {
	return &types.Build{
		Arn: aws.String(testARN.String()), Id: aws.String(testARN.ID()), ProjectName: p.Name, BuildNumber: aws.Int64(7), StartTime: &testStart,
		BuildStatus: types.StatusTypeInProgress, CurrentPhase: aws.String("BUILD"), Initiator: aws.String("alice"),
		Source: p.Source, SourceVersion: p.SourceVersion, SecondarySources: p.SecondarySources, SecondarySourceVersions: p.SecondarySourceVersions,
		ServiceRole: p.ServiceRole, Environment: p.Environment, Cache: p.Cache, FileSystemLocations: p.FileSystemLocations, VpcConfig: p.VpcConfig,
		EncryptionKey: p.EncryptionKey, TimeoutInMinutes: p.TimeoutInMinutes, QueuedTimeoutInMinutes: p.QueuedTimeoutInMinutes,
		AutoRetryConfig: &types.AutoRetryConfig{AutoRetryLimit: p.AutoRetryLimit},
		Artifacts: &types.BuildArtifacts{
			Location: aws.String("arn:aws:s3:::app-artifacts/out/" + testUUID + "/app.zip"), EncryptionDisabled: aws.Bool(false), OverrideArtifactName: aws.Bool(false),
		},
		SecondaryArtifacts: []types.BuildArtifacts{{ArtifactIdentifier: aws.String("docs"), Location: aws.String("arn:aws:s3:::app-artifacts/docs/" + testUUID)}},
		Logs:               &types.LogsLocation{CloudWatchLogs: p.LogsConfig.CloudWatchLogs, S3Logs: p.LogsConfig.S3Logs, CloudWatchLogsArn: aws.String("arn:aws:logs:eu-west-1:111122223333:log-group:g:log-stream:s")},
		ReportArns:         []string{"arn:aws:codebuild:eu-west-1:111122223333:report/unit:1"},
	}
}

// fullBuild is a record with something in every field that counts.
func fullBuild() *types.Build {
	b := buildOf(fullProject())
	b.EndTime, b.ResolvedSourceVersion = aws.Time(testStart.Add(time.Hour)), aws.String(strings.Repeat("0a", 20))
	b.BuildBatchArn = aws.String("arn:aws:codebuild:eu-west-1:111122223333:build-batch/app:" + testUUID)
	b.DebugSession = &types.DebugSession{SessionEnabled: aws.Bool(false)}
	b.Phases = []types.BuildPhase{{PhaseType: types.BuildPhaseTypeUploadArtifacts, StartTime: aws.Time(testStart.Add(time.Minute)), EndTime: b.EndTime}}
	b.Artifacts.Sha256sum, b.SecondaryArtifacts[0].Sha256sum = aws.String(strings.Repeat("0b", 32)), aws.String(strings.Repeat("0c", 32))
	return b
}

func normalise(b *types.Build, p *types.Project) (*Build, error) {
	service, _ := parseRole(aws.ToString(b.ServiceRole), testARN)
	return newRecord(testARN, service, map[string]bool{"STAGE": true, "API_TOKEN": true}).build(b, p)
}

func TestNoOverrides(t *testing.T) {
	t.Parallel()
	p := fullProject()
	b, err := normalise(buildOf(p), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Overrides) != 0 || b.ProjectChanged {
		t.Errorf("an unchanged build has overrides %+v, changed %t", b.Overrides, b.ProjectChanged)
	}
	// What CodeBuild leaves out is its default.
	p = fullProject()
	p.Source, p.Environment = &types.ProjectSource{Type: types.SourceTypeNoSource}, &types.ProjectEnvironment{Type: types.EnvironmentTypeLinuxContainer, Image: aws.String("x")}
	p.Artifacts, p.SecondaryArtifacts, p.Cache, p.VpcConfig, p.FileSystemLocations = nil, nil, nil, nil, nil
	p.LogsConfig, p.EncryptionKey, p.TimeoutInMinutes, p.QueuedTimeoutInMinutes, p.AutoRetryLimit = &types.LogsConfig{}, nil, nil, nil, nil
	bare := buildOf(p)
	bare.Artifacts, bare.SecondaryArtifacts = &types.BuildArtifacts{Location: aws.String("")}, nil
	bare.Cache, bare.VpcConfig = &types.ProjectCache{Type: types.CacheTypeNoCache}, &types.VpcConfig{}
	bare.EncryptionKey, bare.TimeoutInMinutes, bare.QueuedTimeoutInMinutes = aws.String("arn:aws:kms:eu-west-1:111122223333:alias/aws/s3"), aws.Int32(60), aws.Int32(480)
	bare.DebugSession = &types.DebugSession{SessionEnabled: aws.Bool(false)}
	bare.Environment = &types.ProjectEnvironment{Type: types.EnvironmentTypeLinuxContainer, Image: aws.String("x"), PrivilegedMode: aws.Bool(false), ImagePullCredentialsType: types.ImagePullCredentialsTypeCodebuild}
	if b, err = normalise(bare, p); err != nil || len(b.Overrides) != 0 {
		t.Errorf("defaults are overrides: %+v, %v", b, err)
	}
}

// projectSilent are the fields of a project, at any depth, that are compared with
// nothing, each with the reason.
var projectSilent = map[string]string{
	"Arn": "must be the one asked for", "Name": "must be the one asked for",
	"Created": "before any build", "LastModified": "Build.ProjectChanged is made of it", "Description": "for people", "Tags": "for people and access control",
	"Badge": "shows the status of builds", "ProjectVisibility": "who may see builds", "PublicProjectAlias": "who may see builds", "ResourceAccessRole": "who may see builds",
	"Webhook": "when a build starts; what it starts is on record", "ConcurrentBuildLimit": "when a build starts",
	"BuildBatchConfig":                "how a batch makes builds; each of them is on record",
	"Environment.DockerServer.Status": "what the server is doing",
	"Artifacts.Packaging":             "Fetch knows a ZIP by its digest",
	"SecondaryArtifacts.Packaging":    "Fetch knows a ZIP by its digest",
	"Source.SourceIdentifier":         "only secondary ones have one", "Artifacts.ArtifactIdentifier": "only secondary ones have one",
}

// buildSilent are those of a build's record that change nothing of a Build.
var buildSilent = map[string]string{
	"Arn": "must be the one asked for", "Id": "must be the one asked for", "ProjectName": "must be the one asked for",
	"BuildStatus": "asked for before", "BuildComplete": "asked for before", "CurrentPhase": "asked for before",
	"Phases.Contexts": "why a phase failed", "Phases.DurationInSeconds": "its ends say it", "Phases.PhaseStatus": "the build's says it",
	"ExportedEnvironmentVariables": "what the build made, and may be secrets", "NetworkInterface": "is gone with the build; the VPC is on record",
	"AutoRetryConfig.AutoRetryNumber": "which try", "AutoRetryConfig.NextAutoRetry": "is another build", "AutoRetryConfig.PreviousAutoRetry": "is another build",
	"DebugSession.SessionTarget": "that there is a session counts",
	"Logs.DeepLink":              "for people", "Logs.S3DeepLink": "for people", "Logs.S3LogsArn": "the other log is named",
	"Logs.GroupName": "part of the log's ARN", "Logs.StreamName": "part of the log's ARN",
	"Environment.DockerServer.Status": "what the server is doing",
	"Artifacts.Md5sum":                "no digest to rely on", "SecondaryArtifacts.Md5sum": "no digest to rely on",
}

// TestEveryProjectFieldDecided walks every field of a project, at any depth, and
// changes it alone: each change is an override under its own name. A field that a
// later SDK adds fails here until it is compared, or silent for a reason.
func TestEveryProjectFieldDecided(t *testing.T) {
	t.Parallel()
	walk(t, fullProject, projectSilent, func(t *testing.T, path string, project *types.Project) bool {
		b, err := normalise(buildOf(fullProject()), project)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(path, ".")
		for _, o := range b.Overrides {
			if field, _, _ := strings.Cut(o.Field, "."); !strings.EqualFold(field, first) {
				t.Errorf("found as %s", o.Field)
			}
		}
		return len(b.Overrides) > 0
	})
}

// TestEveryBuildFieldDecided does the same with the record of a build: each change
// changes the stored form, or is refused.
func TestEveryBuildFieldDecided(t *testing.T) {
	t.Parallel()
	stored := func(raw *types.Build) string {
		b, err := normalise(raw, fullProject())
		if err != nil {
			return string(refusal.CodeOf(err))
		}
		out, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	want := stored(fullBuild())
	if !strings.HasPrefix(want, "{") {
		t.Fatal(want)
	}
	walk(t, fullBuild, buildSilent, func(_ *testing.T, _ string, b *types.Build) bool { return stored(b) != want })
}

// walk changes each field of what full returns in turn, and wants counts to be
// true of it exactly if it is not silent.
func walk[T any](t *testing.T, full func() *T, silent map[string]string, counts func(t *testing.T, path string, changed *T) bool) {
	t.Helper()
	used := map[string]bool{}
	for _, path := range leaves(t, reflect.ValueOf(full()).Elem(), "", silent) {
		t.Run(path, func(t *testing.T) {
			changed := full()
			v := reflect.ValueOf(changed).Elem()
			for _, name := range strings.Split(path, ".") {
				for v.Kind() == reflect.Pointer || v.Kind() == reflect.Slice {
					if v.Kind() == reflect.Slice {
						v = v.Index(0)
					} else {
						v = v.Elem()
					}
				}
				v = v.FieldByName(name)
			}
			change(v)
			_, known := silent[path]
			used[path] = true
			if got := counts(t, path, changed); got == known {
				t.Errorf("a change of it counts: %v; it is silent: %v", got, known)
			}
		})
	}
	for path := range silent {
		if !used[path] {
			t.Errorf("there is no field %s", path)
		}
	}
}

// leaves returns the paths of the fields below v, down to those that are silent as
// a whole; a slice stands for its first. A field that has nothing in it could not
// be changed alone, so that there must not be any.
func leaves(t *testing.T, v reflect.Value, path string, silent map[string]string) []string {
	if _, whole := silent[path]; whole {
		return []string{path}
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice:
		if e := v.Type().Elem(); e.Kind() != reflect.Struct || e == reflect.TypeFor[time.Time]() {
			return []string{path}
		}
		if v.Kind() == reflect.Slice && v.Len() > 0 {
			return leaves(t, v.Index(0), path, silent)
		}
		if v.Kind() == reflect.Pointer && !v.IsNil() {
			return leaves(t, v.Elem(), path, silent)
		}
		t.Errorf("nobody has decided about %s: put something into it, or give a reason why it is silent", path)
		return nil
	case reflect.Struct:
		var out []string
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				out = append(out, leaves(t, v.Field(i), strings.TrimPrefix(path+"."+f.Name, "."), silent)...)
			}
		}
		return out
	}
	return []string{path}
}

func change(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			fresh.Elem().Set(v.Elem())
		}
		change(fresh.Elem())
		v.Set(fresh)
	case reflect.String:
		v.SetString(v.String() + "-changed")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Slice:
		fresh := reflect.MakeSlice(v.Type(), v.Len(), v.Len()+1)
		reflect.Copy(fresh, v)
		one := reflect.New(v.Type().Elem()).Elem()
		change(one)
		v.Set(reflect.Append(fresh, one))
	case reflect.Struct:
		if at, ok := v.Interface().(time.Time); ok {
			v.Set(reflect.ValueOf(at.Add(time.Second)))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				change(v.Field(i))
			}
		}
	}
}

func TestOverrideValues(t *testing.T) {
	t.Parallel()
	vars := func(list ...types.EnvironmentVariable) func(*types.Build) {
		return func(b *types.Build) { b.Environment.EnvironmentVariables = list }
	}
	v := func(name, value string, kind types.EnvironmentVariableType) types.EnvironmentVariable {
		return types.EnvironmentVariable{Name: &name, Value: &value, Type: kind}
	}
	inherited := []types.EnvironmentVariable{v("INTERNAL", "untold", "PLAINTEXT"), v("DB", "/app/db", "PARAMETER_STORE")}
	const env = "environment.environmentVariables."
	for name, c := range map[string]struct {
		edit func(*types.Build)
		want []Override
	}{
		"image":              {func(b *types.Build) { b.Environment.Image = aws.String("evil:latest") }, []Override{{"environment.image", *fullProject().Environment.Image, "evil:latest"}}},
		"inline buildspec":   {func(b *types.Build) { b.Source.Buildspec = aws.String("version: 0.2\n# canary") }, []Override{{"source.buildspec", "ci/buildspec.yml", "sha256:" + hexSHA256("version: 0.2\n# canary")}}},
		"location with user": {func(b *types.Build) { b.Source.Location = aws.String("https://u:canary@github.com/acme/x.git") }, []Override{{"source.location", "https://github.com/acme/.git", "https://github.com/acme/x.git"}}},
		"only the user":      {func(b *types.Build) { b.Source.Location = aws.String("https://u:canary@github.com/acme/.git") }, []Override{{Field: "source.location"}}},
		"debug session":      {func(b *types.Build) { b.DebugSession = &types.DebugSession{SessionEnabled: aws.Bool(true)} }, []Override{{"debugSession.sessionEnabled", "false", "true"}}},
		"role":               {func(b *types.Build) { b.ServiceRole = aws.String("arn:aws:iam::111122223333:role/admin") }, []Override{{"serviceRole", *fullProject().ServiceRole, "arn:aws:iam::111122223333:role/admin"}}},
		"role, other path":   {func(b *types.Build) { b.ServiceRole = aws.String("arn:aws:iam::111122223333:role/codebuild-app") }, []Override{{"serviceRole", *fullProject().ServiceRole, "arn:aws:iam::111122223333:role/codebuild-app"}}},
		"role, by name":      {func(b *types.Build) { b.ServiceRole = aws.String("codebuild-app") }, nil},
		"told variable":      {vars(append(inherited, v("STAGE", "dev", "PLAINTEXT"))...), []Override{{env + "STAGE", "prod", "dev"}}},
		"secret variable":    {vars(append(inherited, v("STAGE", canaries["random"], "PLAINTEXT"))...), []Override{{Field: env + "STAGE"}}},
		"untold variable":    {vars(v("INTERNAL", "canary", "PLAINTEXT"), inherited[1], v("STAGE", "prod", "PLAINTEXT")), []Override{{Field: env + "INTERNAL"}}},
		"new, secret name":   {vars(append(inherited, v("STAGE", "prod", ""), v("API_TOKEN", "canary", "PLAINTEXT"))...), []Override{{Field: env + "API_TOKEN"}}},
		"variable removed":   {vars(inherited...), []Override{{env + "STAGE", "prod", ""}}},
		"became plain":       {vars(inherited[0], v("DB", "canary", "PLAINTEXT"), v("STAGE", "prod", "PLAINTEXT")), []Override{{Field: env + "DB"}}},
		"other parameter":    {vars(inherited[0], v("DB", "/evil", "PARAMETER_STORE"), v("STAGE", "prod", "PLAINTEXT")), []Override{{env + "DB", "/app/db", "/evil"}}},
		"secondary source":   {func(b *types.Build) { b.SecondarySources = b.SecondarySources[:1] }, []Override{{"secondarySources.data", "present", "absent"}}},
		"artifact elsewhere": {func(b *types.Build) { b.Artifacts.Location = aws.String("arn:aws:s3:::evil/app.zip") }, []Override{{"artifacts.location", "arn:aws:s3:::app-artifacts/out/" + testUUID + "/app.zip", "arn:aws:s3:::evil/app.zip"}}},
		"name by buildspec": {func(b *types.Build) {
			b.Artifacts.Location, b.Artifacts.OverrideArtifactName = aws.String("arn:aws:s3:::app-artifacts/out/"+testUUID+"/x-1"), aws.Bool(true)
		}, []Override{{"artifacts.overrideArtifactName", "false", "true"}}},
		"no artifacts": {func(b *types.Build) { b.Artifacts = nil }, []Override{{"artifacts.location", "arn:aws:s3:::app-artifacts/out/" + testUUID + "/app.zip", ""}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := buildOf(fullProject())
			c.edit(b)
			got, err := normalise(b, fullProject())
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Overrides, c.want) {
				t.Errorf("overrides %+v; want %+v", got.Overrides, c.want)
			}
		})
	}
}

// TestNeitherValueTold: where the project's value must not be told, the build's is
// not either.
func TestNeitherValueTold(t *testing.T) {
	t.Parallel()
	p := fullProject()
	p.Environment.EnvironmentVariables[0].Value = aws.String(canaries["random"])
	b, err := normalise(buildOf(fullProject()), p)
	if want := []Override{{Field: "environment.environmentVariables.STAGE"}}; err != nil || !slices.Equal(b.Overrides, want) {
		t.Errorf("%+v, %v", b, err)
	}
}

// TestPipelineArtifacts: a pipeline says where artifacts go. Without one, whoever
// started the build did.
func TestPipelineArtifacts(t *testing.T) {
	t.Parallel()
	for initiator, want := range map[string][]string{"codepipeline/app": nil, "alice": {"artifacts.location"}} {
		p := fullProject()
		p.Artifacts = &types.ProjectArtifacts{Type: types.ArtifactsTypeCodepipeline, Name: aws.String("app")}
		raw := buildOf(p)
		raw.Initiator, raw.Artifacts.Location = &initiator, aws.String("arn:aws:s3:::codepipeline-eu-west-1-1/app/out/x")
		if b, err := normalise(raw, p); err != nil || !slices.Equal(fields(b.Overrides), want) {
			t.Errorf("%s: %+v, %v", initiator, b, err)
		}
	}
}

// TestListsJoined: lists that look alike when joined are not alike.
func TestListsJoined(t *testing.T) {
	t.Parallel()
	p, raw := fullProject(), buildOf(fullProject())
	raw.VpcConfig = &types.VpcConfig{VpcId: aws.String("vpc-1"), Subnets: []string{"subnet-1 subnet-2"}, SecurityGroupIds: []string{"sg-1"}}
	if b, err := normalise(raw, p); err != nil || !slices.Equal(fields(b.Overrides), []string{"vpcConfig.subnets"}) {
		t.Errorf("%+v, %v", b, err)
	}
}

// TestSameAgain: whatever subset of the fields is left out of both records, a
// build of its project has no override.
func TestSameAgain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := fullProject()
		v := reflect.ValueOf(p).Elem()
		for _, name := range []string{"SourceVersion", "Cache", "VpcConfig", "EncryptionKey", "TimeoutInMinutes", "QueuedTimeoutInMinutes", "AutoRetryLimit", "FileSystemLocations", "SecondarySources", "SecondarySourceVersions"} {
			if rapid.Bool().Draw(t, "without "+name) {
				v.FieldByName(name).SetZero()
			}
		}
		b, err := normalise(buildOf(p), p)
		if err != nil || len(b.Overrides) != 0 {
			t.Fatalf("%+v, %v", b, refusal.CodeOf(err))
		}
	})
}
