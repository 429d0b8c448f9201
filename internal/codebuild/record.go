package codebuild

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeRecordInvalid: what AWS says of a build contradicts itself, or cannot be
	// written down faithfully.
	CodeRecordInvalid refusal.Code = "CODEBUILD_RECORD_INVALID"
	// CodeRecordSecret: a field that provenance must tell holds what looks like a
	// secret. It is refused, since neither telling nor leaving out would do.
	CodeRecordSecret refusal.Code = "CODEBUILD_RECORD_SECRET"
	// CodeRecordTooLarge: the facts of the build exceed MaxBuildBytes.
	CodeRecordTooLarge refusal.Code = "CODEBUILD_RECORD_TOO_LARGE"
)

const (
	maxFieldBytes = 2048
	// maxTextBytes bounds a buildspec, of which the digest is kept.
	maxTextBytes = 1 << 20
)

var (
	reImageDigest = lazy(`@sha256:([0-9a-f]{64})$`)
	// reBuildspecPath is what can be nothing but the path of a file or the ARN of an
	// object. A buildspec's own text has line breaks, or at least "version: 0.2".
	reBuildspecPath = lazy(`^(?:arn:[a-z-]+:s3:::)?[A-Za-z0-9_.@+=,/-]+$`)
)

// invalid blames a field of the record, in the spelling of the CodeBuild API. The
// value is not told: it may be the very thing that must not be.
func invalid(field, why string) *refusal.Error {
	return refusal.New(CodeRecordInvalid, "the record's %s %s", field, why)
}

// record makes a Build of what the API answered. The first field that cannot be
// written down is its err; what is made after that is never returned.
type record struct {
	arn       ARN
	service   role
	plaintext map[string]bool
	err       error
}

func newRecord(arn ARN, service role, plaintext map[string]bool) *record {
	return &record{arn: arn, service: service, plaintext: plaintext}
}

func (r *record) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// build normalises b and compares it with its project p. That they are the ones
// asked for was checked.
func (r *record) build(b *types.Build, p *types.Project) (*Build, error) {
	out := &Build{
		ARN: r.arn.String(), ProjectARN: r.arn.ProjectARN(),
		Partition: r.arn.Partition, Region: r.arn.Region, Account: r.arn.Account, Project: r.arn.Project, UUID: r.arn.UUID,
		Number:        aws.ToInt64(b.BuildNumber),
		BatchARN:      r.batch(aws.ToString(b.BuildBatchArn)),
		Initiator:     r.text("initiator", b.Initiator),
		ServiceRole:   r.service.arn,
		StartedAt:     b.StartTime.UTC(),
		Artifacts:     r.artifacts(b),
		Environment:   r.environment(b.Environment),
		EncryptionKey: r.text("encryptionKey", b.EncryptionKey),
		DebugSession:  b.DebugSession != nil && aws.ToBool(b.DebugSession.SessionEnabled),
	}
	if b.EndTime != nil {
		out.FinishedAt = b.EndTime.UTC()
	}
	for _, phase := range b.Phases {
		if phase.PhaseType == types.BuildPhaseTypeUploadArtifacts && phase.StartTime != nil && phase.EndTime != nil {
			out.UploadStartedAt, out.UploadEndedAt = phase.StartTime.UTC(), phase.EndTime.UTC()
		}
	}
	r.sources(b, out)
	if b.Environment != nil && b.Environment.Fleet != nil {
		out.Fleet = r.text("environment.fleet.fleetArn", b.Environment.Fleet.FleetArn)
	}
	if b.Cache != nil && b.Cache.Type != types.CacheTypeNoCache {
		out.CacheType = r.text("cache.type", ref(string(b.Cache.Type)))
	}
	for _, f := range b.FileSystemLocations {
		out.FileSystems = append(out.FileSystems, r.text("fileSystemLocations.location", f.Location))
	}
	if b.VpcConfig != nil {
		out.VPC = r.text("vpcConfig.vpcId", b.VpcConfig.VpcId)
	}
	if b.Logs != nil {
		out.LogARN = r.text("logs.cloudWatchLogsArn", b.Logs.CloudWatchLogsArn)
		if out.LogARN == "" || strings.HasSuffix(out.LogARN, ":log-stream:null") { // CodeBuild's word for none
			out.LogARN = r.text("logs.s3LogsArn", b.Logs.S3LogsArn)
		}
	}
	for _, arn := range b.ReportArns {
		out.ReportARNs = append(out.ReportARNs, r.text("reportArns", &arn))
	}
	slices.Sort(out.FileSystems)
	slices.Sort(out.ReportARNs)
	out.Overrides = r.overrides(b, p)
	// An unknown time of change may be any.
	out.ProjectChanged = p.LastModified == nil || !p.LastModified.Before(*b.StartTime)
	if out.Number < 0 {
		r.fail(invalid("buildNumber", "is negative"))
	}
	if r.err != nil {
		return nil, r.err
	}
	stored, err := json.Marshal(out)
	if err != nil {
		return nil, refusal.New(CodeRecordInvalid, "the build has no stored form")
	}
	if len(stored) > MaxBuildBytes {
		return nil, refusal.New(CodeRecordTooLarge, "the facts of the build have %d bytes; the limit is %d", len(stored), MaxBuildBytes)
	}
	return out, nil
}

// text returns a field that provenance tells as it is, which must then be text of
// one line, of bounded length, and no secret. User information of a URL is
// removed first: it says who reads, and not what. A query may say what is read,
// and so is neither told nor left out.
func (r *record) text(field string, value *string) string {
	s := withoutUser(aws.ToString(value))
	switch {
	case len(s) > maxFieldBytes:
		r.fail(refusal.New(CodeRecordTooLarge, "the record's %s has %d bytes; the limit is %d", field, len(s), maxFieldBytes))
	case !plain(s):
		r.fail(invalid(field, "has characters that are not text of one line"))
	case knownSecret(s):
		r.fail(refusal.New(CodeRecordSecret, "the record's %s looks as if it held a secret; it would be published", field))
	case hasQuery(s):
		r.fail(invalid(field, "is a URL with a query or a fragment, which would be published"))
	}
	return s
}

// plain reports whether s is UTF-8 of printing characters and spaces.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool {
		return c == utf8.RuneError || c != ' ' && !unicode.IsPrint(c)
	})
}

func (r *record) batch(s string) string {
	if s == "" {
		return ""
	}
	m := reBatchARN().FindStringSubmatch(s)
	if m == nil || m[1] != r.arn.Partition || m[2] != r.arn.Region || m[3] != r.arn.Account || m[4] != r.arn.Project {
		r.fail(invalid("buildBatchArn", "is not a batch of the build's project"))
	}
	return s
}

func (r *record) sources(b *types.Build, out *Build) {
	if b.Source == nil {
		r.fail(invalid("source", "is missing"))
		return
	}
	out.Source = r.source("source", b.Source, b.SourceVersion)
	resolved := r.text("resolvedSourceVersion", b.ResolvedSourceVersion)
	switch {
	case !isGit(b.Source.Type):
		out.Source.Revision = resolved
	case attest.CheckDigest("gitCommit", resolved) == nil:
		out.Source.Commit = resolved
	}
	versions := make(map[string]*string, len(b.SecondarySourceVersions))
	for _, v := range b.SecondarySourceVersions {
		versions[aws.ToString(v.SourceIdentifier)] = v.SourceVersion
	}
	for i := range b.SecondarySources {
		s := &b.SecondarySources[i]
		id := r.text("secondarySources.sourceIdentifier", s.SourceIdentifier)
		out.SecondarySources = append(out.SecondarySources, r.source("secondarySources", s, versions[id]))
	}
	slices.SortStableFunc(out.SecondarySources, func(a, b Source) int { return cmp.Compare(a.Identifier, b.Identifier) })
	for i := 1; i < len(out.SecondarySources); i++ {
		if out.SecondarySources[i].Identifier == out.SecondarySources[i-1].Identifier {
			r.fail(invalid("secondarySources", "has an identifier twice"))
		}
	}
}

func (r *record) source(field string, s *types.ProjectSource, version *string) Source {
	if s.Type == "" {
		r.fail(invalid(field+".type", "is missing"))
	}
	location := r.text(field+".location", s.Location)
	if isGit(s.Type) && !isWebAddress(location) {
		r.fail(invalid(field+".location", "is not the address of a git repository"))
	}
	// Together they become one address, in which each byte may take three.
	if len(location)+len(aws.ToString(version)) > maxFieldBytes {
		r.fail(refusal.New(CodeRecordTooLarge, "the record's %s has a location and version of more than %d bytes, which is the limit", field, maxFieldBytes))
	}
	out := Source{
		Identifier:    r.text(field+".sourceIdentifier", s.SourceIdentifier),
		Type:          r.text(field+".type", ref(string(s.Type))),
		Location:      location,
		Version:       r.text(field+".sourceVersion", version),
		GitCloneDepth: int(aws.ToInt32(s.GitCloneDepth)),
		GitSubmodules: s.GitSubmodulesConfig != nil && aws.ToBool(s.GitSubmodulesConfig.FetchSubmodules),
		InsecureSSL:   aws.ToBool(s.InsecureSsl),
	}
	spec := aws.ToString(s.Buildspec)
	switch {
	case len(spec) > maxTextBytes:
		r.fail(refusal.New(CodeRecordTooLarge, "the buildspec has %d bytes; the limit is %d", len(spec), maxTextBytes))
	case spec == "":
	case isBuildspecPath(spec):
		out.Buildspec = spec
	default:
		out.BuildspecSHA256 = hexSHA256(spec)
	}
	return out
}

// isWebAddress wants a URL that every parser understands alike, so that no part
// of a password can be taken for a path.
func isWebAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && u.User == nil &&
		!strings.ContainsAny(u.Host, `\%`) && !strings.Contains(u.Path, `\`)
}

// isBuildspecPath reports whether a buildspec is elsewhere. In doubt it is text,
// of which only a digest is told.
func isBuildspecPath(spec string) bool {
	return len(spec) <= maxFieldBytes && reBuildspecPath().MatchString(spec) && !knownSecret(spec)
}

func isGit(t types.SourceType) bool {
	switch t {
	case types.SourceTypeCodepipeline, types.SourceTypeS3, types.SourceTypeNoSource, "":
		return false
	}
	return true
}

func (r *record) environment(e *types.ProjectEnvironment) Environment {
	if e == nil || aws.ToString(e.Image) == "" || e.Type == "" {
		r.fail(invalid("environment", "has no image or no type"))
		return Environment{}
	}
	out := Environment{
		Type:                     r.text("environment.type", ref(string(e.Type))),
		ComputeType:              r.text("environment.computeType", ref(string(e.ComputeType))),
		Image:                    r.text("environment.image", e.Image),
		ImagePullCredentialsType: r.text("environment.imagePullCredentialsType", ref(string(e.ImagePullCredentialsType))),
		PrivilegedMode:           aws.ToBool(e.PrivilegedMode),
		Certificate:              r.text("environment.certificate", e.Certificate),
	}
	if e.DockerServer != nil {
		out.DockerServer = &DockerServer{ComputeType: r.text("environment.dockerServer.computeType", ref(string(e.DockerServer.ComputeType)))}
	}
	if m := reImageDigest().FindStringSubmatch(out.Image); m != nil {
		out.ImageDigest = m[1]
	}
	for i := range e.EnvironmentVariables {
		out.Variables = append(out.Variables, r.variable(&e.EnvironmentVariables[i]))
	}
	slices.SortStableFunc(out.Variables, func(a, b Variable) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(out.Variables); i++ {
		if out.Variables[i].Name == out.Variables[i-1].Name {
			r.fail(invalid("environment.environmentVariables", "has a name twice"))
		}
	}
	return out
}

func (r *record) variable(v *types.EnvironmentVariable) Variable {
	out := Variable{
		Name: r.text("environment.environmentVariables.name", v.Name),
		Type: r.text("environment.environmentVariables.type", ref(string(cmp.Or(v.Type, types.EnvironmentVariableTypePlaintext)))),
	}
	if out.Name == "" {
		r.fail(invalid("environment.environmentVariables.name", "is empty"))
	}
	out.Value, out.Redacted = r.value(v)
	return out
}

// value returns the value of a variable where it may be told.
func (r *record) value(v *types.EnvironmentVariable) (value string, redacted bool) {
	name, value := aws.ToString(v.Name), aws.ToString(v.Value)
	if len(value) > maxFieldBytes || !plain(value) {
		return "", true
	}
	tell := false
	switch v.Type {
	case types.EnvironmentVariableTypePlaintext, "":
		tell = r.plaintext[name] && !secretName(name) && !secretValue(value)
	case types.EnvironmentVariableTypeParameterStore, types.EnvironmentVariableTypeSecretsManager:
		// The value is the name of the secret, which may well look like one.
		tell = !knownSecret(value)
	}
	if !tell {
		return "", true
	}
	return value, false
}

func (r *record) artifacts(b *types.Build) []Artifact {
	var out []Artifact
	add := func(a *types.BuildArtifacts) {
		sum := aws.ToString(a.Sha256sum)
		if sum != "" && attest.CheckDigest("sha256", sum) != nil {
			r.fail(invalid("artifacts.sha256sum", "is not a SHA-256 digest in lower-case hex"))
		}
		if location := r.text("artifacts.location", a.Location); location != "" {
			out = append(out, Artifact{
				Identifier: r.text("artifacts.artifactIdentifier", a.ArtifactIdentifier), Location: location, SHA256: sum,
				NameOverridden: aws.ToBool(a.OverrideArtifactName),
			})
		} else if sum != "" {
			r.fail(invalid("artifacts", "have a digest and no location"))
		}
	}
	if b.Artifacts != nil {
		add(b.Artifacts)
	}
	for i := range b.SecondaryArtifacts {
		add(&b.SecondaryArtifacts[i])
	}
	slices.SortStableFunc(out, func(a, b Artifact) int {
		return cmp.Or(cmp.Compare(a.Identifier, b.Identifier), cmp.Compare(a.Location, b.Location))
	})
	return out
}

func hexSHA256(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func ref(s string) *string { return &s }

func itoa[T ~int32 | ~int64](n T) string { return fmt.Sprint(int64(n)) }
