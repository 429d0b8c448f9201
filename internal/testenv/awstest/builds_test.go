package awstest

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/google/go-cmp/cmp"
)

func TestPhases(t *testing.T) {
	t.Parallel()
	w, clk := newTurnedWorld(t)
	acct := w.Account(testAccount)
	b := acct.Project(testRegion, Project{Name: "app", ServiceRole: acct.Role("codebuild")}).StartBuild(StartBuild{})
	c := reader(w, acct)
	start := clk.now().UTC().Truncate(time.Millisecond)

	r := getBuild(t, c, b.ID)
	want(t, "phase", aws.ToString(r.CurrentPhase), "QUEUED")
	want(t, "status", r.BuildStatus, types.StatusTypeInProgress)
	want(t, "log", aws.ToString(r.Logs.CloudWatchLogsArn), "arn:aws:logs:eu-west-1:111122223333:log-group:null:log-stream:null")
	want(t, "commit", aws.ToString(r.ResolvedSourceVersion), "")

	clk.add(2500 * time.Millisecond)
	b.Advance(types.BuildPhaseTypeBuild)
	r = getBuild(t, c, b.ID)
	want(t, "phase", aws.ToString(r.CurrentPhase), "BUILD")
	want(t, "log", aws.ToString(r.Logs.CloudWatchLogsArn), "arn:aws:logs:eu-west-1:111122223333:log-group:/aws/codebuild/app:log-stream:"+b.UUID)
	want(t, "length of commit", len(aws.ToString(r.ResolvedSourceVersion)), 40)
	if r.EndTime != nil {
		t.Errorf("a running build ended at %v", r.EndTime)
	}
	last := r.Phases[len(r.Phases)-1]
	want(t, "open phase", last.PhaseType, types.BuildPhaseTypeBuild)
	want(t, "status of the open phase", last.PhaseStatus, "")
	want(t, "start of the open phase", *last.StartTime, start.Add(2500*time.Millisecond))
	want(t, "time in the queue", aws.ToInt64(r.Phases[1].DurationInSeconds), 2)

	clk.add(time.Minute)
	b.Finish(types.StatusTypeSucceeded)
	r = getBuild(t, c, b.ID)
	want(t, "phase", aws.ToString(r.CurrentPhase), "COMPLETED")
	want(t, "status", r.BuildStatus, types.StatusTypeSucceeded)
	want(t, "complete", r.BuildComplete, true)
	want(t, "end", *r.EndTime, start.Add(62500*time.Millisecond))
	var names []types.BuildPhaseType
	for _, p := range r.Phases {
		names = append(names, p.PhaseType)
	}
	want(t, "phases", names, phases[:])
	mustPanic(t, "going back", func() { b.Advance(types.BuildPhaseTypeBuild) })
	mustPanic(t, "ending twice", func() { b.Finish(types.StatusTypeFailed) })
}

func TestFinishFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	p := acct.Project(testRegion, Project{Name: "app", ServiceRole: acct.Role("codebuild")})
	for _, status := range []types.StatusType{
		types.StatusTypeFailed, types.StatusTypeFault, types.StatusTypeStopped, types.StatusTypeTimedOut,
	} {
		b := p.StartBuild(StartBuild{})
		b.Advance(types.BuildPhaseTypeBuild)
		b.Finish(status)
		r := getBuild(t, reader(w, acct), b.ARN)
		want(t, "status", r.BuildStatus, status)
		want(t, "complete", r.BuildComplete, true)
		n := len(r.Phases)
		want(t, "status of BUILD", r.Phases[n-3].PhaseStatus, status)
		want(t, "phase after", r.Phases[n-2].PhaseType, types.BuildPhaseTypeFinalizing)
		want(t, "last phase", r.Phases[n-1].PhaseType, types.BuildPhaseTypeCompleted)
	}
	mustPanic(t, "ending in progress", func() { p.StartBuild(StartBuild{}).Finish(types.StatusTypeInProgress) })
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	f()
}

// TestOverrides sets each override of StartBuild and looks where it went.
func TestOverrides(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	other := acct.Role("other")
	p := acct.Project(testRegion, Project{
		Name: "app", ServiceRole: acct.Role("codebuild"), SourceVersion: "main",
		Environment: types.ProjectEnvironment{EnvironmentVariables: []types.EnvironmentVariable{
			{Name: aws.String("STAGE"), Value: aws.String("dev")}, {Name: aws.String("KEPT"), Value: aws.String("1")},
		}},
	})
	plain := p.StartBuild(StartBuild{}).Record()
	for _, tt := range []struct {
		name string
		in   codebuild.StartBuildInput
		get  func(types.Build) any
		want any
	}{
		{"source version", codebuild.StartBuildInput{SourceVersion: aws.String("pr/7")}, func(b types.Build) any { return *b.SourceVersion }, "pr/7"},
		{"source type", codebuild.StartBuildInput{SourceTypeOverride: types.SourceTypeNoSource}, func(b types.Build) any { return b.Source.Type }, types.SourceTypeNoSource},
		{"source location", codebuild.StartBuildInput{SourceLocationOverride: aws.String("https://github.com/evil/app")}, func(b types.Build) any { return *b.Source.Location }, "https://github.com/evil/app"},
		{"buildspec", codebuild.StartBuildInput{BuildspecOverride: aws.String("version: 0.2")}, func(b types.Build) any { return aws.ToString(b.Source.Buildspec) }, "version: 0.2"},
		{"clone depth", codebuild.StartBuildInput{GitCloneDepthOverride: aws.Int32(1)}, func(b types.Build) any { return aws.ToInt32(b.Source.GitCloneDepth) }, int32(1)},
		{"insecure SSL", codebuild.StartBuildInput{InsecureSslOverride: aws.Bool(true)}, func(b types.Build) any { return *b.Source.InsecureSsl }, true},
		{"image", codebuild.StartBuildInput{ImageOverride: aws.String("evil")}, func(b types.Build) any { return *b.Environment.Image }, "evil"},
		{"compute type", codebuild.StartBuildInput{ComputeTypeOverride: types.ComputeTypeBuildGeneral1Large}, func(b types.Build) any { return b.Environment.ComputeType }, types.ComputeTypeBuildGeneral1Large},
		{"environment type", codebuild.StartBuildInput{EnvironmentTypeOverride: types.EnvironmentTypeArmContainer}, func(b types.Build) any { return b.Environment.Type }, types.EnvironmentTypeArmContainer},
		{"pull credentials", codebuild.StartBuildInput{ImagePullCredentialsTypeOverride: types.ImagePullCredentialsTypeServiceRole}, func(b types.Build) any { return b.Environment.ImagePullCredentialsType }, types.ImagePullCredentialsTypeServiceRole},
		{"privileged", codebuild.StartBuildInput{PrivilegedModeOverride: aws.Bool(true)}, func(b types.Build) any { return *b.Environment.PrivilegedMode }, true},
		{"certificate", codebuild.StartBuildInput{CertificateOverride: aws.String("b/ca.pem")}, func(b types.Build) any { return aws.ToString(b.Environment.Certificate) }, "b/ca.pem"},
		{"fleet", codebuild.StartBuildInput{FleetOverride: &types.ProjectFleet{FleetArn: aws.String("arn:f")}}, func(b types.Build) any { return b.Environment.Fleet != nil && *b.Environment.Fleet.FleetArn == "arn:f" }, true},
		{"service role", codebuild.StartBuildInput{ServiceRoleOverride: aws.String(other.ARN())}, func(b types.Build) any { return *b.ServiceRole }, other.ARN()},
		{"cache", codebuild.StartBuildInput{CacheOverride: &types.ProjectCache{Type: types.CacheTypeLocal}}, func(b types.Build) any { return b.Cache.Type }, types.CacheTypeLocal},
		{"encryption key", codebuild.StartBuildInput{EncryptionKeyOverride: aws.String("arn:k")}, func(b types.Build) any { return *b.EncryptionKey }, "arn:k"},
		{"timeout", codebuild.StartBuildInput{TimeoutInMinutesOverride: aws.Int32(5)}, func(b types.Build) any { return *b.TimeoutInMinutes }, int32(5)},
		{"debug session", codebuild.StartBuildInput{DebugSessionEnabled: aws.Bool(true)}, func(b types.Build) any { return b.DebugSession != nil && *b.DebugSession.SessionEnabled }, true},
		{"artifacts", codebuild.StartBuildInput{ArtifactsOverride: &types.ProjectArtifacts{Type: types.ArtifactsTypeS3, Location: aws.String("b"), Name: aws.String("x")}}, func(b types.Build) any { return *b.Artifacts.Location }, "arn:aws:s3:::b/x"},
		{"secondary sources", codebuild.StartBuildInput{SecondarySourcesOverride: []types.ProjectSource{{Type: types.SourceTypeS3}}}, func(b types.Build) any { return len(b.SecondarySources) }, 1},
		{"variables", codebuild.StartBuildInput{EnvironmentVariablesOverride: []types.EnvironmentVariable{{Name: aws.String("STAGE"), Value: aws.String("prod")}, {Name: aws.String("NEW"), Value: aws.String("2")}}}, func(b types.Build) any {
			var out []string
			for _, v := range b.Environment.EnvironmentVariables {
				out = append(out, *v.Name+"="+*v.Value)
			}
			return strings.Join(out, " ")
		}, "KEPT=1 NEW=2 STAGE=prod"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.get(plain); cmp.Equal(got, tt.want) {
				t.Fatalf("the project has it already: %v", got)
			}
			b := p.StartBuild(StartBuild{StartBuildInput: tt.in})
			want(t, "build", tt.get(getBuild(t, reader(w, acct), b.ID)), tt.want)
		})
	}
	again := p.StartBuild(StartBuild{}).Record()
	if d := cmp.Diff(plain.Environment, again.Environment, sameRecord); d != "" {
		t.Errorf("an override changed the project:\n%s", d)
	}
	want(t, "number", *again.BuildNumber, *plain.BuildNumber+22)
}

func TestBatchAndInitiator(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	p := acct.Project(testRegion, Project{Name: "app", ServiceRole: acct.Role("codebuild")})
	b := p.StartBuild(StartBuild{Batch: "11c70fed-c53b-4e2a-8f5f-0a6b2f1f7f01", Initiator: "codepipeline/release", Commit: strings.Repeat("a", 40)})
	b.Advance(types.BuildPhaseTypeInstall)
	r := getBuild(t, reader(w, acct), b.ID)
	want(t, "batch", aws.ToString(r.BuildBatchArn), "arn:aws:codebuild:eu-west-1:111122223333:build-batch/app:11c70fed-c53b-4e2a-8f5f-0a6b2f1f7f01")
	want(t, "initiator", aws.ToString(r.Initiator), "codepipeline/release")
	want(t, "commit", aws.ToString(r.ResolvedSourceVersion), strings.Repeat("a", 40))
}

func TestProjectUpdate(t *testing.T) {
	t.Parallel()
	w, clk := newTurnedWorld(t)
	acct := w.Account(testAccount)
	p := acct.Project(testRegion, Project{Name: "app", ServiceRole: acct.Role("codebuild")})
	created := clk.now().UTC().Truncate(time.Millisecond)
	b := p.StartBuild(StartBuild{})
	clk.add(time.Minute)
	p.Update(func(r *types.Project) { r.Environment.Image = aws.String("new") })
	r := p.Record()
	want(t, "created", *r.Created, created)
	want(t, "modified", *r.LastModified, created.Add(time.Minute))
	if *b.Record().Environment.Image == "new" {
		t.Error("a build that runs changed with its project")
	}
}

func TestUpload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	acct.Bucket(testRegion, "artifacts", Versioned(true))
	role := acct.Role("reader").Allow("s3:*", "codebuild:*")
	objects := s3Server{client: s3.NewFromConfig(w.AWSConfig(role.Session("s"), testRegion))}
	for _, tt := range []struct {
		name      string
		artifacts types.ProjectArtifacts
		keys      []string // UUID stands for the build's
	}{
		{"zip", types.ProjectArtifacts{Packaging: types.ArtifactPackagingZip, Name: aws.String("app.zip")}, []string{"app.zip"}},
		{"zip in a folder of its own", types.ProjectArtifacts{Packaging: types.ArtifactPackagingZip, Name: aws.String("app.zip"), Path: aws.String("/out/"), NamespaceType: types.ArtifactNamespaceBuildId}, []string{"out/UUID/app.zip"}},
		{"zip without a name", types.ProjectArtifacts{Packaging: types.ArtifactPackagingZip}, []string{"zip-without-a-name"}},
		{"objects", types.ProjectArtifacts{Name: aws.String("dist"), Path: aws.String("out")}, []string{"out/dist/app", "out/dist/lib/x.so"}},
		{"objects in the root", types.ProjectArtifacts{Packaging: types.ArtifactPackagingNone, Name: aws.String("/"), NamespaceType: types.ArtifactNamespaceBuildId}, []string{"UUID/app", "UUID/lib/x.so"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.artifacts.Type, tt.artifacts.Location = types.ArtifactsTypeS3, aws.String("artifacts")
			project := strings.ReplaceAll(tt.name, " ", "-")
			b := acct.Project(testRegion, Project{Name: project, ServiceRole: role, Artifacts: tt.artifacts}).StartBuild(StartBuild{})
			b.Advance(types.BuildPhaseTypePostBuild)
			want(t, "digest before the upload", aws.ToString(b.Record().Artifacts.Sha256sum), "")
			uploaded := b.UploadFiles(map[string][]byte{"app": []byte("program"), "lib/x.so": []byte("library")})
			b.Finish(types.StatusTypeSucceeded)
			r := getBuild(t, reader(w, acct), b.ID)

			var keys []string
			for _, u := range uploaded {
				keys = append(keys, strings.Replace(u.Key, b.UUID, "UUID", 1))
				got, err := objects.get(t, &s3.GetObjectInput{Bucket: &u.Bucket, Key: &u.Key, VersionId: &u.VersionID})
				if err != nil {
					t.Fatal(err)
				}
				sum := sha256.Sum256([]byte(got))
				want(t, "digest", hex.EncodeToString(sum[:]), u.SHA256)
				if tt.artifacts.Packaging == types.ArtifactPackagingZip {
					want(t, "files", zipped(t, got), "app=program lib/x.so=library")
				}
			}
			want(t, "keys", keys, tt.keys)
			if tt.artifacts.Packaging == types.ArtifactPackagingZip {
				want(t, "location", *r.Artifacts.Location, "arn:aws:s3:::artifacts/"+uploaded[0].Key)
				want(t, "sha256sum", aws.ToString(r.Artifacts.Sha256sum), uploaded[0].SHA256)
				want(t, "length of md5sum", len(aws.ToString(r.Artifacts.Md5sum)), 32)
			} else {
				want(t, "sha256sum", aws.ToString(r.Artifacts.Sha256sum), "")
				want(t, "location", *r.Artifacts.Location, "arn:aws:s3:::artifacts/"+strings.TrimSuffix(uploaded[0].Key, "/app"))
			}
		})
	}
}

func zipped(t *testing.T, data string) string {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader([]byte(data)), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f.Name+"="+string(content))
	}
	return strings.Join(out, " ")
}

func TestUploadSecondary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	acct.Bucket(testRegion, "artifacts", Versioned(true))
	b := acct.Project(testRegion, Project{
		Name: "app", ServiceRole: acct.Role("codebuild"),
		SecondaryArtifacts: []types.ProjectArtifacts{{
			Type: types.ArtifactsTypeS3, ArtifactIdentifier: aws.String("sbom"), Packaging: types.ArtifactPackagingZip,
			Location: aws.String("artifacts"), Name: aws.String("sbom.zip"),
		}},
	}).StartBuild(StartBuild{})
	up := b.UploadTo("sbom", map[string][]byte{"sbom.json": []byte("{}")})
	r := getBuild(t, reader(w, acct), b.ID)
	want(t, "phase", *r.CurrentPhase, "UPLOAD_ARTIFACTS")
	want(t, "identifier", *r.SecondaryArtifacts[0].ArtifactIdentifier, "sbom")
	want(t, "sha256sum", aws.ToString(r.SecondaryArtifacts[0].Sha256sum), up[0].SHA256)
	mustPanic(t, "no primary artifact", func() { b.Upload("x", nil) })
	mustPanic(t, "no such artifact", func() { b.UploadTo("other", nil) })
}

// TestJob is what a job has: an identity that names its build.
func TestJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	other := acct.Role("other", Path("/service-role/"))
	p := acct.Project(testRegion, Project{
		Name: "app", ServiceRole: acct.Role("codebuild"),
		Environment: types.ProjectEnvironment{EnvironmentVariables: []types.EnvironmentVariable{
			{Name: aws.String("STAGE"), Value: aws.String("dev")},
			{Name: aws.String("TOKEN"), Value: aws.String("app/token"), Type: types.EnvironmentVariableTypeSecretsManager},
		}},
	})
	for _, tt := range []struct {
		in   StartBuild
		role string
	}{
		{StartBuild{}, "codebuild"},
		{StartBuild{StartBuildInput: codebuild.StartBuildInput{ServiceRoleOverride: aws.String(other.ARN())}}, "other"},
		{StartBuild{StartBuildInput: codebuild.StartBuildInput{ServiceRoleOverride: aws.String("other")}}, "other"},
	} {
		b := p.StartBuild(tt.in)
		b.Advance(types.BuildPhaseTypeBuild)
		out, err := sts.NewFromConfig(w.AWSConfig(b.Credentials(), testRegion)).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
		if err != nil {
			t.Fatal(err)
		}
		want(t, "identity", aws.ToString(out.Arn), "arn:aws:sts::111122223333:assumed-role/"+tt.role+"/AWSCodeBuild-"+b.UUID)

		env := map[string]string{}
		for _, kv := range b.Env() {
			name, value, _ := strings.Cut(kv, "=")
			env[name] = value
		}
		want(t, "CODEBUILD_BUILD_ID", env["CODEBUILD_BUILD_ID"], "app:"+b.UUID)
		want(t, "CODEBUILD_BUILD_ARN", env["CODEBUILD_BUILD_ARN"], b.ARN)
		want(t, "AWS_REGION", env["AWS_REGION"], testRegion)
		want(t, "STAGE", env["STAGE"], "dev")
		if _, ok := env["TOKEN"]; ok {
			t.Error("a secret is in the environment")
		}
		resp, err := http.DefaultClient.Do(newRequest(t.Context(), env["AWS_CONTAINER_CREDENTIALS_FULL_URI"]))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(`"AccessKeyId"`)) {
			t.Errorf("container credentials: %s, %v", resp.Status, err)
		}
	}
}
