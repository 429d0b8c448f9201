package provenance

import (
	"strings"
	"time"

	"github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/common"
	slsa "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v1"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

// codeBuildExternal and codeBuildInternal are the parameters of the build type
// codebuild/v1. docs/buildtypes/codebuild-v1.md defines them. Lists that are
// empty are written: they say that there is none, and not that nobody looked.
type codeBuildExternal struct {
	Project          codeBuildProject     `json:"project"`
	Source           codeBuildSource      `json:"source"`
	SecondarySources []codeBuildSource    `json:"secondarySources,omitempty"`
	Buildspec        codeBuildBuildspec   `json:"buildspec"`
	Environment      codeBuildEnvironment `json:"environment"`
	// Variables is a list and no object: two names may differ only by case, which
	// no object of ours may have.
	Variables    []codeBuildVariable `json:"environmentVariables"`
	Artifacts    []codeBuildArtifact `json:"artifacts"`
	Cache        *codeBuildCache     `json:"cache,omitempty"`
	FileSystems  []string            `json:"fileSystems,omitempty"`
	DebugSession bool                `json:"debugSession,omitzero"`
	Overrides    []codeBuildOverride `json:"overrides"`
}

type codeBuildProject struct {
	ARN string `json:"arn"`
}

type codeBuildSource struct {
	Identifier    string `json:"identifier,omitempty"`
	Type          string `json:"type"`
	Location      string `json:"location,omitempty"`
	Version       string `json:"version,omitempty"`
	GitCloneDepth int    `json:"gitCloneDepth,omitzero"`
	GitSubmodules bool   `json:"gitSubmodules,omitzero"`
	InsecureSSL   bool   `json:"insecureSsl,omitzero"`
}

// codeBuildBuildspec is a path in the source, an S3 ARN, or the digest of a text
// in project or build.
type codeBuildBuildspec struct {
	Location string `json:"location,omitempty"`
	SHA256   string `json:"sha256,omitempty"`
}

type codeBuildEnvironment struct {
	Type                     string `json:"type"`
	Image                    string `json:"image"`
	ComputeType              string `json:"computeType,omitempty"`
	PrivilegedMode           bool   `json:"privilegedMode"`
	ImagePullCredentialsType string `json:"imagePullCredentialsType,omitempty"`
	Certificate              string `json:"certificate,omitempty"`

	DockerServer *codeBuildDockerServer `json:"dockerServer,omitempty"`
}

type codeBuildDockerServer struct {
	ComputeType string `json:"computeType,omitempty"`
}

type codeBuildVariable struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Value    string `json:"value,omitempty"`
	Redacted bool   `json:"redacted,omitzero"`
}

type codeBuildArtifact struct {
	Identifier     string `json:"identifier,omitempty"`
	Location       string `json:"location,omitempty"`
	NameOverridden bool   `json:"overrideArtifactName,omitzero"`
}

type codeBuildCache struct {
	Type string `json:"type"`
}

type codeBuildOverride struct {
	Field   string `json:"field"`
	Project string `json:"project,omitempty"`
	Build   string `json:"build,omitempty"`
}

type codeBuildInternal struct {
	CodeBuild codeBuildParameters `json:"codebuild"`
	Assay     assayParameters     `json:"assay"`
}

type codeBuildParameters struct {
	Mode          string `json:"mode"`
	BuildARN      string `json:"buildArn"`
	BuildNumber   int64  `json:"buildNumber,omitzero"`
	BuildBatchARN string `json:"buildBatchArn,omitempty"`
	Account       string `json:"account"`
	Region        string `json:"region"`
	Initiator     string `json:"initiator,omitempty"`
	ServiceRole   string `json:"serviceRole"`
	Fleet         string `json:"fleet,omitempty"`
	VPC           string `json:"vpc,omitempty"`
	EncryptionKey string `json:"encryptionKey,omitempty"`
	// ArtifactDigestConfirmed, of a finished build: CodeBuild's own sha256 agrees.
	ArtifactDigestConfirmed bool `json:"artifactDigestConfirmed,omitzero"`
	ProjectChanged          bool `json:"projectChanged,omitzero"`
}

// defaultBuildspec is what CodeBuild reads where nothing else is named.
const defaultBuildspec = "buildspec.yml"

func defineCodeBuild(c *identity.CodeBuild, assay assayParameters) (*definition, error) {
	b := c.Build
	if err := checkCodeBuild(c); err != nil {
		return nil, err
	}
	d := &definition{
		buildType: BuildTypeCodeBuild,
		external:  codeBuildExternalOf(b),
		internal: codeBuildInternal{Assay: assay, CodeBuild: codeBuildParameters{
			Mode: c.Mode, BuildARN: b.ARN, BuildNumber: b.Number, BuildBatchARN: b.BatchARN,
			Account: b.Account, Region: b.Region, Initiator: b.Initiator, ServiceRole: b.ServiceRole,
			Fleet: b.Fleet, VPC: b.VPC, EncryptionKey: b.EncryptionKey,
			ArtifactDigestConfirmed: c.Confirmed, ProjectChanged: b.ProjectChanged,
		}},
		//nolint:staticcheck // SA1019: as definition
		metadata:     slsa.BuildMetadata{InvocationID: b.ARN, StartedOn: instant(b.StartedAt), FinishedOn: instant(b.FinishedAt)},
		sourceCommit: b.Source.Commit,
	}
	if err := d.codeBuildDependencies(b); err != nil {
		return nil, err
	}
	//nolint:staticcheck // SA1019: as definition
	if b.LogARN != "" {
		d.byproducts = append(d.byproducts, slsa.ResourceDescriptor{Name: "log", URI: b.LogARN})
	}
	for _, report := range b.ReportARNs {
		d.byproducts = append(d.byproducts, slsa.ResourceDescriptor{Name: "report", URI: report}) //nolint:staticcheck // SA1019: as definition
	}
	return d, nil
}

// checkCodeBuild wants what every build has, and digests that are digests.
func checkCodeBuild(c *identity.CodeBuild) error {
	b := c.Build
	if err := checkFacts("build", []fact{
		{"ARN", b.ARN != ""},
		{"project", b.ProjectARN != ""},
		{"account", b.Account != ""},
		{"region", b.Region != ""},
		{"service role", b.ServiceRole != ""},
		{"start", !b.StartedAt.IsZero()},
		{"end", !b.FinishedAt.IsZero() || c.Mode != identity.ModePostBuild},
		{"source type", b.Source.Type != ""},
		{"environment type", b.Environment.Type != ""},
		{"image", b.Environment.Image != ""},
	}); err != nil {
		return err
	}
	digests := [][3]string{
		{"image digest", "sha256", b.Environment.ImageDigest},
		{"buildspec digest", "sha256", b.Source.BuildspecSHA256},
		{"commit", "gitCommit", b.Source.Commit},
	}
	for _, s := range b.SecondarySources {
		digests = append(digests, [3]string{"commit of a secondary source", "gitCommit", s.Commit})
	}
	for _, d := range digests {
		if d[2] != "" && attest.CheckDigest(d[1], d[2]) != nil {
			return refusal.New(CodeFactInvalid, "the %s of the build is not %s in lower-case hex", d[0], d[1])
		}
	}
	return nil
}

func codeBuildExternalOf(b *codebuild.Build) codeBuildExternal {
	out := codeBuildExternal{
		Project:   codeBuildProject{ARN: b.ProjectARN},
		Source:    codeBuildSourceOf(b.Source),
		Buildspec: codeBuildBuildspec{Location: b.Source.Buildspec, SHA256: b.Source.BuildspecSHA256},
		Environment: codeBuildEnvironment{
			Type: b.Environment.Type, Image: b.Environment.Image, ComputeType: b.Environment.ComputeType,
			PrivilegedMode: b.Environment.PrivilegedMode, ImagePullCredentialsType: b.Environment.ImagePullCredentialsType,
			Certificate: b.Environment.Certificate, DockerServer: (*codeBuildDockerServer)(b.Environment.DockerServer),
		},
		Variables:    make([]codeBuildVariable, 0, len(b.Environment.Variables)),
		Artifacts:    make([]codeBuildArtifact, 0, len(b.Artifacts)),
		FileSystems:  b.FileSystems,
		DebugSession: b.DebugSession,
		Overrides:    make([]codeBuildOverride, 0, len(b.Overrides)),
	}
	if out.Buildspec == (codeBuildBuildspec{}) {
		out.Buildspec.Location = defaultBuildspec
	}
	if cached(b) {
		out.Cache = &codeBuildCache{Type: b.CacheType}
	}
	for _, s := range b.SecondarySources {
		out.SecondarySources = append(out.SecondarySources, codeBuildSourceOf(s))
	}
	for _, v := range b.Environment.Variables {
		out.Variables = append(out.Variables, codeBuildVariable(v))
	}
	for _, a := range b.Artifacts {
		out.Artifacts = append(out.Artifacts, codeBuildArtifact{a.Identifier, a.Location, a.NameOverridden})
	}
	for _, o := range b.Overrides {
		out.Overrides = append(out.Overrides, codeBuildOverride(o))
	}
	return out
}

func codeBuildSourceOf(s codebuild.Source) codeBuildSource {
	return codeBuildSource{
		Identifier: s.Identifier, Type: s.Type, Location: s.Location, Version: s.Version,
		GitCloneDepth: s.GitCloneDepth, GitSubmodules: s.GitSubmodules, InsecureSSL: s.InsecureSSL,
	}
}

// codeBuildDependencies lists the sources, the image and the buildspec, as far as
// they were resolved. The first source is first.
func (d *definition) codeBuildDependencies(b *codebuild.Build) error {
	for i, s := range append([]codebuild.Source{b.Source}, b.SecondarySources...) {
		uri, err := codeBuildSourceURI(s)
		if err != nil {
			return err
		}
		name := "source"
		if i == 0 {
			d.sourceURI = uri
		} else {
			name = "source/" + s.Identifier
		}
		if uri == "" && s.Commit == "" && s.Revision == "" {
			continue
		}
		dependency := gitSource(name, uri, s.Commit)
		if s.Revision != "" {
			dependency.Annotations = map[string]any{"revision": s.Revision}
		}
		d.dependencies = append(d.dependencies, dependency)
	}
	if b.Environment.ImageDigest != "" {
		repository, _, _ := strings.Cut(b.Environment.Image, "@")
		//nolint:staticcheck // SA1019: as definition
		d.dependencies = append(d.dependencies, slsa.ResourceDescriptor{
			Name: "image", URI: "oci://" + repository, Digest: common.DigestSet{"sha256": b.Environment.ImageDigest},
		})
	}
	if b.Source.BuildspecSHA256 != "" {
		//nolint:staticcheck // SA1019: as definition
		d.dependencies = append(d.dependencies, slsa.ResourceDescriptor{
			Name: "buildspec", Digest: common.DigestSet{"sha256": b.Source.BuildspecSHA256},
		})
	}
	return nil
}

// codeBuildSourceURI returns "" for a source that CodeBuild names no place of.
func codeBuildSourceURI(s codebuild.Source) (string, error) {
	switch s.Type {
	case "GITHUB", "GITHUB_ENTERPRISE", "GITLAB", "GITLAB_SELF_MANAGED", "BITBUCKET", "CODECOMMIT":
		return gitURI(s.Location, plainVersion(s))
	case "S3":
		// What is asked for of S3 is a version id, which names one content.
		return s3URI(s.Location, s.Version)
	case "CODEPIPELINE", "NO_SOURCE":
		return "", nil
	}
	return "", refusal.New(CodeSourceInvalid, "the source type %.40q is not known", s.Type)
}

// plainVersion drops the commit that CodeBuild appends to a ref in git's notation,
// "refs/heads/main^{<commit>}": the dependency has it as its digest.
func plainVersion(s codebuild.Source) string {
	return strings.TrimSuffix(s.Version, "^{"+s.Commit+"}")
}

// instant is a time as predicates have it: absent if it is not known, in UTC.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
