package awstest

import (
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"maps"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"github.com/google/uuid"
)

// Project says what a CodeBuild project is to be. Fields that are not given are
// those of a small Linux project that builds https://github.com/acme/NAME.git and
// keeps nothing; what has no field here is set with BuildProject.Edit.
type Project struct {
	Name string
	// ServiceRole is the role that builds run as. Required.
	ServiceRole *Role

	Source             types.ProjectSource
	SourceVersion      string
	SecondarySources   []types.ProjectSource
	Environment        types.ProjectEnvironment
	Artifacts          types.ProjectArtifacts
	SecondaryArtifacts []types.ProjectArtifacts
}

// BuildProject is a project of an account in a region. It is safe for concurrent
// use.
type BuildProject struct {
	ARN  string
	Name string

	account *Account
	region  string

	mu      sync.Mutex
	record  types.Project
	numbers int64 // of builds
}

// Project makes a project. It panics if the account has one of that name there.
func (a *Account) Project(region string, spec Project) *BuildProject {
	if spec.Name == "" || spec.ServiceRole == nil {
		panic("awstest: a project has a name and a service role")
	}
	now := recordTime(a.w)
	p := &BuildProject{
		ARN: a.arn("codebuild", region, "project/"+spec.Name), Name: spec.Name, account: a, region: region,
		record: deepCopy(types.Project{
			Name: &spec.Name, ServiceRole: aws.String(spec.ServiceRole.ARN()), Created: now, LastModified: now,
			Source: defaultSource(spec), SourceVersion: optional(spec.SourceVersion),
			SecondarySources: orEmpty(spec.SecondarySources), SecondarySourceVersions: []types.ProjectSourceVersion{},
			Environment: defaultEnvironment(spec.Environment),
			Artifacts:   defaultArtifacts(spec.Artifacts), SecondaryArtifacts: orEmpty(spec.SecondaryArtifacts),
			Cache:            &types.ProjectCache{Type: types.CacheTypeNoCache},
			TimeoutInMinutes: aws.Int32(60), QueuedTimeoutInMinutes: aws.Int32(480),
			EncryptionKey: aws.String(a.arn("kms", region, "alias/aws/s3")), Tags: []types.Tag{},
			Badge: &types.ProjectBadge{}, ProjectVisibility: types.ProjectVisibilityTypePrivate,
			LogsConfig: &types.LogsConfig{
				CloudWatchLogs: &types.CloudWatchLogsConfig{Status: types.LogsConfigStatusTypeEnabled},
				S3Logs:         &types.S3LogsConfig{Status: types.LogsConfigStatusTypeDisabled, EncryptionDisabled: aws.Bool(false)},
			},
		}),
	}
	p.record.Arn = &p.ARN
	s := a.w.data.builds
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.projects[p.ARN] != nil {
		panic("awstest: the project exists already: " + p.ARN)
	}
	s.projects[p.ARN] = p
	return p
}

func defaultSource(spec Project) *types.ProjectSource {
	s := spec.Source
	if s.Type == "" {
		s.Type = types.SourceTypeGithub
		s.Location = cmp.Or(s.Location, aws.String("https://github.com/acme/"+spec.Name+".git"))
	}
	s.InsecureSsl = cmp.Or(s.InsecureSsl, aws.Bool(false))
	return &s
}

func defaultEnvironment(e types.ProjectEnvironment) *types.ProjectEnvironment {
	e.Type = cmp.Or(e.Type, types.EnvironmentTypeLinuxContainer)
	e.ComputeType = cmp.Or(e.ComputeType, types.ComputeTypeBuildGeneral1Small)
	e.Image = cmp.Or(e.Image, aws.String("aws/codebuild/amazonlinux-x86_64-standard:5.0"))
	e.ImagePullCredentialsType = cmp.Or(e.ImagePullCredentialsType, types.ImagePullCredentialsTypeCodebuild)
	e.PrivilegedMode = cmp.Or(e.PrivilegedMode, aws.Bool(false))
	e.EnvironmentVariables = orEmpty(e.EnvironmentVariables)
	return &e
}

func defaultArtifacts(a types.ProjectArtifacts) *types.ProjectArtifacts {
	a.Type = cmp.Or(a.Type, types.ArtifactsTypeNoArtifacts)
	return &a
}

// Record returns what BatchGetProjects says of the project now.
func (p *BuildProject) Record() types.Project {
	p.mu.Lock()
	defer p.mu.Unlock()
	return deepCopy(p.record)
}

// Edit changes the record as it likes, without a trace.
func (p *BuildProject) Edit(change func(*types.Project)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	record := deepCopy(p.record)
	change(&record)
	p.record = deepCopy(record)
}

// Update changes the project as UpdateProject does: it tells when.
func (p *BuildProject) Update(change func(*types.Project)) {
	p.Edit(func(r *types.Project) {
		change(r)
		r.LastModified = recordTime(p.account.w)
	})
}

// StartBuild is how a build is started: the overrides of the API, and what no
// caller of it chooses.
type StartBuild struct {
	codebuild.StartBuildInput

	// Initiator is who CodeBuild says started it. Default "alice".
	Initiator string
	// Commit is what the source version turns out to be, once the source was
	// fetched. Default: made up from location and version, for a source in git.
	Commit string
	// Batch is the UUID of the batch that the build is part of, if it is.
	Batch string
}

// StartBuild starts a build: its record is the project's with the overrides laid
// over it. The build waits in the phase QUEUED.
func (p *BuildProject) StartBuild(in StartBuild) *Build {
	p.mu.Lock()
	project := deepCopy(p.record)
	p.numbers++
	number := p.numbers
	p.mu.Unlock()

	overrideProject(&project, in.StartBuildInput)
	id := uuid.NewString()
	b := &Build{
		Project: p, UUID: id, ID: p.Name + ":" + id,
		ARN:       p.account.arn("codebuild", p.region, "build/"+p.Name+":"+id),
		commit:    in.Commit,
		packaging: map[string]types.ArtifactPackaging{},
	}
	b.record = b.newRecord(project, in, number)
	if b.commit == "" && inGit(b.record.Source.Type) {
		sum := sha1.Sum([]byte(aws.ToString(b.record.Source.Location) + "@" + aws.ToString(b.record.SourceVersion)))
		b.commit = hex.EncodeToString(sum[:])
	}
	s := p.account.w.data.builds
	s.mu.Lock()
	defer s.mu.Unlock()
	s.builds[b.ARN] = b
	return b
}

// overrideProject lays the overrides over a copy of the project's record.
func overrideProject(p *types.Project, in codebuild.StartBuildInput) {
	set(&p.SourceVersion, in.SourceVersion)
	set(&p.Artifacts, in.ArtifactsOverride)
	set(&p.Cache, in.CacheOverride)
	set(&p.LogsConfig, in.LogsConfigOverride)
	set(&p.ServiceRole, in.ServiceRoleOverride)
	set(&p.EncryptionKey, in.EncryptionKeyOverride)
	set(&p.TimeoutInMinutes, in.TimeoutInMinutesOverride)
	set(&p.QueuedTimeoutInMinutes, in.QueuedTimeoutInMinutesOverride)
	setAll(&p.SecondaryArtifacts, in.SecondaryArtifactsOverride)
	setAll(&p.SecondarySources, in.SecondarySourcesOverride)
	setAll(&p.SecondarySourceVersions, in.SecondarySourcesVersionOverride)

	src := p.Source
	src.Type = cmp.Or(in.SourceTypeOverride, src.Type)
	set(&src.Location, in.SourceLocationOverride)
	set(&src.Auth, in.SourceAuthOverride)
	set(&src.Buildspec, in.BuildspecOverride)
	set(&src.GitCloneDepth, in.GitCloneDepthOverride)
	set(&src.GitSubmodulesConfig, in.GitSubmodulesConfigOverride)
	set(&src.InsecureSsl, in.InsecureSslOverride)
	set(&src.ReportBuildStatus, in.ReportBuildStatusOverride)
	set(&src.BuildStatusConfig, in.BuildStatusConfigOverride)

	env := p.Environment
	env.Type = cmp.Or(in.EnvironmentTypeOverride, env.Type)
	env.ComputeType = cmp.Or(in.ComputeTypeOverride, env.ComputeType)
	env.ImagePullCredentialsType = cmp.Or(in.ImagePullCredentialsTypeOverride, env.ImagePullCredentialsType)
	set(&env.Image, in.ImageOverride)
	set(&env.Certificate, in.CertificateOverride)
	set(&env.Fleet, in.FleetOverride)
	set(&env.PrivilegedMode, in.PrivilegedModeOverride)
	set(&env.RegistryCredential, in.RegistryCredentialOverride)
	env.EnvironmentVariables = overrideVariables(env.EnvironmentVariables, in.EnvironmentVariablesOverride)
}

// overrideVariables replaces variables by name and adds the others.
func overrideVariables(vars, over []types.EnvironmentVariable) []types.EnvironmentVariable {
	byName := map[string]types.EnvironmentVariable{}
	for _, v := range slices.Concat(vars, over) {
		v.Type = cmp.Or(v.Type, types.EnvironmentVariableTypePlaintext)
		byName[aws.ToString(v.Name)] = v
	}
	out := []types.EnvironmentVariable{}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}

func set[T any](field **T, over *T) {
	if over != nil {
		*field = over
	}
}

func setAll[T any](field *[]T, over []T) {
	if over != nil {
		*field = over
	}
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func inGit(t types.SourceType) bool {
	switch t {
	case types.SourceTypeCodepipeline, types.SourceTypeS3, types.SourceTypeNoSource:
		return false
	}
	return true
}
