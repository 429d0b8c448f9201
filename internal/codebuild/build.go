package codebuild

import "time"

// Build is what the CodeBuild API says of one build, and how it differs from its
// project: the facts that provenance is written from. The service read each of
// them itself. Nothing in it is a secret: values of environment variables are
// there only where the configuration allows it, and locations have lost their
// user information. A Build is shared and must not be changed after it was made.
//
// It has a stored form, JSON, of at most MaxBuildBytes.
type Build struct {
	// ARN is arn:PARTITION:codebuild:REGION:ACCOUNT:build/PROJECT:UUID.
	ARN        string `json:"arn"`
	ProjectARN string `json:"project_arn"`
	Partition  string `json:"partition"`
	Region     string `json:"region"`
	Account    string `json:"account"`
	Project    string `json:"project"`
	UUID       string `json:"uuid"`
	Number     int64  `json:"number,omitempty"`
	BatchARN   string `json:"batch_arn,omitempty"`
	// Initiator is who or what started the build, as CodeBuild names it.
	Initiator string `json:"initiator,omitempty"`
	// ServiceRole is arn:PARTITION:iam::ACCOUNT:role/NAME, path included where
	// CodeBuild names it.
	ServiceRole string    `json:"service_role"`
	StartedAt   time.Time `json:"started_at"`
	// FinishedAt is zero for a build that still runs.
	FinishedAt time.Time `json:"finished_at,omitzero"`
	// UploadStartedAt and UploadEndedAt bound the phase in which CodeBuild itself
	// uploads artifacts; zero until then.
	UploadStartedAt time.Time `json:"upload_started_at,omitzero"`
	UploadEndedAt   time.Time `json:"upload_ended_at,omitzero"`

	Source           Source   `json:"source"`
	SecondarySources []Source `json:"secondary_sources,omitempty"`

	Environment Environment `json:"environment"`
	// Artifacts are where the build puts what it made.
	Artifacts []Artifact `json:"artifacts,omitempty"`

	// Fleet is the ARN of the reserved capacity the build runs on, if any.
	Fleet         string   `json:"fleet,omitempty"`
	CacheType     string   `json:"cache_type,omitempty"` // S3, LOCAL; empty for none
	FileSystems   []string `json:"file_systems,omitempty"`
	VPC           string   `json:"vpc,omitempty"`
	DebugSession  bool     `json:"debug_session,omitempty"`
	EncryptionKey string   `json:"encryption_key,omitempty"`
	LogARN        string   `json:"log_arn,omitempty"`
	ReportARNs    []string `json:"report_arns,omitempty"`

	// Overrides are the differences between the build and its project, sorted by Field.
	Overrides []Override `json:"overrides,omitempty"`
	// ProjectChanged says that the project was changed after the build started, so
	// that differences may be the project's and not the build's.
	ProjectChanged bool `json:"project_changed,omitempty"`
}

// Source is one source of a build.
type Source struct {
	Identifier string `json:"identifier,omitempty"` // of a secondary source
	Type       string `json:"type"`                 // GITHUB, CODECOMMIT, S3, CODEPIPELINE, NO_SOURCE, …
	// Location is as CodeBuild has it, without user information.
	Location string `json:"location,omitempty"`
	// Version is what was asked for: a branch, tag, commit or "pr/7"; empty for the
	// default branch.
	Version string `json:"version,omitempty"`
	// Commit is the full git commit it was resolved to; empty where the source is
	// not git, or where CodeBuild does not say.
	Commit string `json:"commit,omitempty"`
	// Revision is the resolved version of a source that is not git.
	Revision string `json:"revision,omitempty"`
	// Buildspec is the path or S3 ARN; empty for buildspec.yml in the source.
	Buildspec string `json:"buildspec,omitempty"`
	// BuildspecSHA256 is the digest of a buildspec written into project or build,
	// lower-case hex. Its text is not kept: it may hold secrets.
	BuildspecSHA256 string `json:"buildspec_sha256,omitempty"`
	GitCloneDepth   int    `json:"git_clone_depth,omitempty"`
	GitSubmodules   bool   `json:"git_submodules,omitempty"`
	InsecureSSL     bool   `json:"insecure_ssl,omitempty"`
}

// Environment is where a build runs.
type Environment struct {
	Type                     string `json:"type"` // LINUX_CONTAINER, …
	ComputeType              string `json:"compute_type,omitempty"`
	Image                    string `json:"image"`
	ImageDigest              string `json:"image_digest,omitempty"` // sha256 hex, where the image is named by it
	ImagePullCredentialsType string `json:"image_pull_credentials_type,omitempty"`
	PrivilegedMode           bool   `json:"privileged_mode,omitempty"`
	// Certificate is the S3 location of an extra CA certificate.
	Certificate string `json:"certificate,omitempty"`
	// DockerServer is set where the build talks to a docker server of its project.
	DockerServer *DockerServer `json:"docker_server,omitempty"`
	Variables    []Variable    `json:"variables,omitempty"` // sorted by name
}

// DockerServer is a machine of its own with a Docker daemon that all builds of a
// project share and that outlives them. What it is doing is not recorded: that
// changes after the build, and facts of one build must not.
type DockerServer struct {
	ComputeType string `json:"compute_type,omitempty"`
}

// Variable is one environment variable that project or StartBuild set.
type Variable struct {
	Name string `json:"name"`
	Type string `json:"type"` // PLAINTEXT, PARAMETER_STORE, SECRETS_MANAGER
	// Value is set for PLAINTEXT variables that the configuration allows and that
	// look like no secret; for the other types it is the name of the parameter or
	// secret. Redacted says that there is one and that it is not told.
	Value    string `json:"value,omitempty"`
	Redacted bool   `json:"redacted,omitempty"`
}

// Artifact is one place a build uploads to.
type Artifact struct {
	Identifier string `json:"identifier,omitempty"` // of a secondary artifact
	// Location is the ARN arn:aws:s3:::BUCKET/KEY: an object where packaging is
	// ZIP, else a prefix.
	Location string `json:"location,omitempty"`
	// VersionID is the S3 version that was read and hashed; only where the service
	// did so, and the artifact is one object.
	VersionID string `json:"version_id,omitempty"`
	// SHA256 is CodeBuild's own, lower-case hex; only after the upload of a ZIP.
	SHA256 string `json:"sha256,omitempty"`
	// NameOverridden says that the buildspec chose the name.
	NameOverridden bool `json:"name_overridden,omitempty"`
}

// Override is one difference between a build and its project.
type Override struct {
	// Field is the path of what differs, in the spelling of the CodeBuild API:
	// "environment.image", "source.buildspec",
	// "environment.environmentVariables.STAGE".
	Field string `json:"field"`
	// Project and Build are the two values, where they may be told.
	Project string `json:"project,omitempty"`
	Build   string `json:"build,omitempty"`
}
