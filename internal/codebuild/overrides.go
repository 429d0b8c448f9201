package codebuild

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"
)

// maxToldBytes bounds a value within an Override. Whoever needs longer ones asks
// CodeBuild.
const maxToldBytes = 256

// diff collects differences. A field that CodeBuild leaves out and one that has
// its default are the same.
type diff struct{ found []Override }

// str compares two values that may be told.
func (d *diff) str(field, project, build string) {
	if project == build {
		return
	}
	o := Override{Field: field, Project: tellable(project), Build: tellable(build)}
	if o.Project == o.Build {
		// They differ in what must not be told.
		o.Project, o.Build = "", ""
	}
	d.found = append(d.found, o)
}

// secret compares two values that are not told.
func (d *diff) secret(field, project, build string) {
	if project != build {
		d.found = append(d.found, Override{Field: field})
	}
}

func (d *diff) bool(field string, project, build *bool) {
	d.str(field, yes(project), yes(build))
}

func (d *diff) list(field string, project, build []string) {
	project, build = slices.Sorted(slices.Values(project)), slices.Sorted(slices.Values(build))
	if !slices.Equal(project, build) {
		d.str(field, strings.Join(project, " "), strings.Join(build, " "))
		if n := len(d.found); n == 0 || d.found[n-1].Field != field {
			d.found = append(d.found, Override{Field: field}) // joined alike, and yet not equal
		}
	}
}

// tellable returns what of s may be published, "" for nothing.
func tellable(s string) string {
	s = withoutUser(s)
	if len(s) > maxToldBytes || !plain(s) || knownSecret(s) || hasQuery(s) {
		return ""
	}
	return s
}

func yes(b *bool) string {
	if aws.ToBool(b) {
		return "true"
	}
	return "false"
}

// overrides compares every field of a build that its project has too. What
// StartBuild can override, a buildspec of a batch can too.
func (r *record) overrides(b *types.Build, p *types.Project) []Override {
	d := &diff{}
	source(d, "source", orZero(p.Source), orZero(b.Source))
	d.str("sourceVersion", aws.ToString(p.SourceVersion), aws.ToString(b.SourceVersion))
	secondarySources(d, p, b)
	r.compareEnvironment(d, orZero(p.Environment), orZero(b.Environment))
	r.compareArtifacts(d, b, p)

	role, ok := parseRole(aws.ToString(p.ServiceRole), r.arn)
	if !ok || role.name != r.service.name || role.path && r.service.path && role.arn != r.service.arn {
		d.str("serviceRole", aws.ToString(p.ServiceRole), r.service.arn)
	}
	pc, bc := orZero(p.Cache), orZero(b.Cache)
	d.str("cache.type", string(cmp.Or(pc.Type, types.CacheTypeNoCache)), string(cmp.Or(bc.Type, types.CacheTypeNoCache)))
	if pc.Type == types.CacheTypeS3 || bc.Type == types.CacheTypeS3 {
		d.str("cache.location", aws.ToString(pc.Location), aws.ToString(bc.Location))
	}
	d.str("cache.cacheNamespace", aws.ToString(pc.CacheNamespace), aws.ToString(bc.CacheNamespace))
	d.list("cache.modes", words(pc.Modes), words(bc.Modes))

	d.list("fileSystemLocations", fileSystems(p.FileSystemLocations), fileSystems(b.FileSystemLocations))
	pv, bv := orZero(p.VpcConfig), orZero(b.VpcConfig)
	d.str("vpcConfig.vpcId", aws.ToString(pv.VpcId), aws.ToString(bv.VpcId))
	d.list("vpcConfig.subnets", pv.Subnets, bv.Subnets)
	d.list("vpcConfig.securityGroupIds", pv.SecurityGroupIds, bv.SecurityGroupIds)
	d.str("encryptionKey", r.encryptionKey(p.EncryptionKey), r.encryptionKey(b.EncryptionKey))
	r.compareLogs(d, p.LogsConfig, b.Logs)
	d.str("timeoutInMinutes", itoa(cmp.Or(aws.ToInt32(p.TimeoutInMinutes), 60)), itoa(cmp.Or(aws.ToInt32(b.TimeoutInMinutes), 60)))
	d.str("queuedTimeoutInMinutes", itoa(cmp.Or(aws.ToInt32(p.QueuedTimeoutInMinutes), 480)), itoa(cmp.Or(aws.ToInt32(b.QueuedTimeoutInMinutes), 480)))
	if b.AutoRetryConfig != nil {
		d.str("autoRetryLimit", itoa(aws.ToInt32(p.AutoRetryLimit)), itoa(aws.ToInt32(b.AutoRetryConfig.AutoRetryLimit)))
	}
	// No project has debug sessions; who starts a build asks for one.
	if b.DebugSession != nil {
		d.bool("debugSession.sessionEnabled", nil, b.DebugSession.SessionEnabled)
	}
	slices.SortStableFunc(d.found, func(a, b Override) int { return cmp.Compare(a.Field, b.Field) })
	return d.found
}

func source(d *diff, field string, p, b types.ProjectSource) {
	d.str(field+".type", string(p.Type), string(b.Type))
	d.str(field+".location", aws.ToString(p.Location), aws.ToString(b.Location))
	d.str(field+".buildspec", buildspec(p.Buildspec), buildspec(b.Buildspec))
	d.str(field+".gitCloneDepth", itoa(aws.ToInt32(p.GitCloneDepth)), itoa(aws.ToInt32(b.GitCloneDepth)))
	d.bool(field+".gitSubmodulesConfig.fetchSubmodules", orZero(p.GitSubmodulesConfig).FetchSubmodules, orZero(b.GitSubmodulesConfig).FetchSubmodules)
	d.bool(field+".insecureSsl", p.InsecureSsl, b.InsecureSsl)
	d.bool(field+".reportBuildStatus", p.ReportBuildStatus, b.ReportBuildStatus)
	d.str(field+".auth.type", string(orZero(p.Auth).Type), string(orZero(b.Auth).Type))
	d.secret(field+".auth.resource", aws.ToString(orZero(p.Auth).Resource), aws.ToString(orZero(b.Auth).Resource))
	ps, bs := orZero(p.BuildStatusConfig), orZero(b.BuildStatusConfig)
	d.str(field+".buildStatusConfig.context", aws.ToString(ps.Context), aws.ToString(bs.Context))
	// Where somebody is sent to says nothing of the build, and may open the door there.
	d.secret(field+".buildStatusConfig.targetUrl", aws.ToString(ps.TargetUrl), aws.ToString(bs.TargetUrl))
}

// buildspec is the path of one, or the digest of its text.
func buildspec(spec *string) string {
	s := aws.ToString(spec)
	if s == "" || isBuildspecPath(s) {
		return s
	}
	return "sha256:" + hexSHA256(s)
}

func secondarySources(d *diff, p *types.Project, b *types.Build) {
	byID := func(list []types.ProjectSource) map[string]types.ProjectSource {
		m := make(map[string]types.ProjectSource, len(list))
		for _, s := range list {
			m[aws.ToString(s.SourceIdentifier)] = s
		}
		return m
	}
	ps, bs := byID(p.SecondarySources), byID(b.SecondarySources)
	for _, id := range keysOf(ps, bs) {
		field := "secondarySources." + label(id)
		was, inProject := ps[id]
		is, inBuild := bs[id]
		if inProject != inBuild {
			d.str(field, presence(inProject), presence(inBuild))
			continue
		}
		source(d, field, was, is)
	}
	versions := func(list []types.ProjectSourceVersion) map[string]string {
		m := make(map[string]string, len(list))
		for _, v := range list {
			m[aws.ToString(v.SourceIdentifier)] = aws.ToString(v.SourceVersion)
		}
		return m
	}
	pv, bv := versions(p.SecondarySourceVersions), versions(b.SecondarySourceVersions)
	for _, id := range keysOf(pv, bv) {
		d.str("secondarySourceVersions."+label(id), pv[id], bv[id])
	}
}

func (r *record) compareEnvironment(d *diff, p, b types.ProjectEnvironment) {
	d.str("environment.type", string(p.Type), string(b.Type))
	d.str("environment.image", aws.ToString(p.Image), aws.ToString(b.Image))
	d.str("environment.computeType", string(p.ComputeType), string(b.ComputeType))
	pc, bc := orZero(p.ComputeConfiguration), orZero(b.ComputeConfiguration)
	d.str("environment.computeConfiguration.instanceType", aws.ToString(pc.InstanceType), aws.ToString(bc.InstanceType))
	d.str("environment.computeConfiguration.machineType", string(pc.MachineType), string(bc.MachineType))
	d.str("environment.computeConfiguration.vCpu", itoa(aws.ToInt64(pc.VCpu)), itoa(aws.ToInt64(bc.VCpu)))
	d.str("environment.computeConfiguration.memory", itoa(aws.ToInt64(pc.Memory)), itoa(aws.ToInt64(bc.Memory)))
	d.str("environment.computeConfiguration.disk", itoa(aws.ToInt64(pc.Disk)), itoa(aws.ToInt64(bc.Disk)))
	d.bool("environment.privilegedMode", p.PrivilegedMode, b.PrivilegedMode)
	d.str("environment.certificate", aws.ToString(p.Certificate), aws.ToString(b.Certificate))
	d.str("environment.fleet.fleetArn", aws.ToString(orZero(p.Fleet).FleetArn), aws.ToString(orZero(b.Fleet).FleetArn))
	d.str("environment.imagePullCredentialsType",
		string(cmp.Or(p.ImagePullCredentialsType, types.ImagePullCredentialsTypeCodebuild)),
		string(cmp.Or(b.ImagePullCredentialsType, types.ImagePullCredentialsTypeCodebuild)))
	pr, br := orZero(p.RegistryCredential), orZero(b.RegistryCredential)
	d.str("environment.registryCredential.credentialProvider", string(pr.CredentialProvider), string(br.CredentialProvider))
	d.secret("environment.registryCredential.credential", aws.ToString(pr.Credential), aws.ToString(br.Credential))
	pd, bd := orZero(p.DockerServer), orZero(b.DockerServer)
	d.str("environment.dockerServer.computeType", string(pd.ComputeType), string(bd.ComputeType))
	d.list("environment.dockerServer.securityGroupIds", pd.SecurityGroupIds, bd.SecurityGroupIds)
	r.compareVariables(d, p.EnvironmentVariables, b.EnvironmentVariables)
}

// compareVariables names each variable that differs. Its values are told only
// where both may be: one of them alone would say what the other is not.
func (r *record) compareVariables(d *diff, project, build []types.EnvironmentVariable) {
	byName := func(list []types.EnvironmentVariable) map[string]types.EnvironmentVariable {
		m := make(map[string]types.EnvironmentVariable, len(list))
		for _, v := range list {
			v.Type = cmp.Or(v.Type, types.EnvironmentVariableTypePlaintext)
			m[aws.ToString(v.Name)] = v
		}
		return m
	}
	ps, bs := byName(project), byName(build)
	for _, name := range keysOf(ps, bs) {
		field := "environment.environmentVariables." + label(name)
		was, inProject := ps[name]
		is, inBuild := bs[name]
		if inProject && inBuild && was.Type == is.Type && aws.ToString(was.Value) == aws.ToString(is.Value) {
			continue
		}
		o := Override{Field: field}
		pv, hidden := r.value(&was)
		bv, alsoHidden := r.value(&is)
		if (!hidden || !inProject) && (!alsoHidden || !inBuild) && len(pv) <= maxToldBytes && len(bv) <= maxToldBytes {
			if inProject {
				o.Project = pv
			}
			if inBuild {
				o.Build = bv
			}
		}
		d.found = append(d.found, o)
	}
}

// compareArtifacts compares where a build puts its artifacts with where its
// project would. A build's record has only the outcome.
func (r *record) compareArtifacts(d *diff, b *types.Build, p *types.Project) {
	r.compareArtifact(d, "artifacts", b, orZero(p.Artifacts), orZero(b.Artifacts))
	ps, bs := map[string]types.ProjectArtifacts{}, map[string]types.BuildArtifacts{}
	for _, a := range p.SecondaryArtifacts {
		ps[aws.ToString(a.ArtifactIdentifier)] = a
	}
	for _, a := range b.SecondaryArtifacts {
		bs[aws.ToString(a.ArtifactIdentifier)] = a
	}
	for _, id := range keysOf(ps, bs) {
		field := "secondaryArtifacts." + label(id)
		was, inProject := ps[id]
		is, inBuild := bs[id]
		if inProject != inBuild {
			d.str(field, presence(inProject), presence(inBuild))
			continue
		}
		r.compareArtifact(d, field, b, was, is)
	}
}

func (r *record) compareArtifact(d *diff, field string, build *types.Build, p types.ProjectArtifacts, b types.BuildArtifacts) {
	location := strings.TrimSuffix(aws.ToString(b.Location), "/")
	switch p.Type {
	case types.ArtifactsTypeCodepipeline:
		// The pipeline says where. Without one the project's type was overridden.
		if !strings.HasPrefix(aws.ToString(build.Initiator), "codepipeline/") {
			d.str(field+".location", "", location)
		}
		return
	case types.ArtifactsTypeS3:
		// A name that the buildspec computes cannot be foretold.
		want, named := r.artifactLocation(&p, aws.ToBool(b.OverrideArtifactName))
		if named && location != want || !named && location != want && !strings.HasPrefix(location, want+"/") {
			d.str(field+".location", want, location)
		}
	default:
		d.str(field+".location", "", location)
	}
	d.bool(field+".overrideArtifactName", p.OverrideArtifactName, b.OverrideArtifactName)
	d.bool(field+".encryptionDisabled", p.EncryptionDisabled, b.EncryptionDisabled)
	d.str(field+".bucketOwnerAccess",
		string(cmp.Or(p.BucketOwnerAccess, types.BucketOwnerAccessNone)), string(cmp.Or(b.BucketOwnerAccess, types.BucketOwnerAccessNone)))
}

// artifactLocation is where a project's artifact goes: bucket, path, the build's
// id where asked for, and name.
func (r *record) artifactLocation(p *types.ProjectArtifacts, nameless bool) (arn string, named bool) {
	parts := []string{"arn:" + r.arn.Partition + ":s3:::" + aws.ToString(p.Location), strings.Trim(aws.ToString(p.Path), "/")}
	if p.NamespaceType == types.ArtifactNamespaceBuildId {
		parts = append(parts, r.arn.UUID)
	}
	if !nameless {
		parts = append(parts, strings.Trim(cmp.Or(aws.ToString(p.Name), r.arn.Project), "/"))
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "/"), !nameless
}

// encryptionKey is the key's ARN; no key is the one that AWS keeps for S3.
func (r *record) encryptionKey(key *string) string {
	prefix := "arn:" + r.arn.Partition + ":kms:" + r.arn.Region + ":" + r.arn.Account + ":"
	s := cmp.Or(aws.ToString(key), "alias/aws/s3")
	if strings.HasPrefix(s, "alias/") {
		return prefix + s
	}
	return s
}

func (r *record) compareLogs(d *diff, p *types.LogsConfig, b *types.LogsLocation) {
	pc, ps := orZero(orZero(p).CloudWatchLogs), orZero(orZero(p).S3Logs)
	bc, bs := orZero(orZero(b).CloudWatchLogs), orZero(orZero(b).S3Logs)
	on, off := types.LogsConfigStatusTypeEnabled, types.LogsConfigStatusTypeDisabled
	d.str("logsConfig.cloudWatchLogs.status", string(cmp.Or(pc.Status, on)), string(cmp.Or(bc.Status, on)))
	d.str("logsConfig.cloudWatchLogs.groupName", aws.ToString(pc.GroupName), aws.ToString(bc.GroupName))
	d.str("logsConfig.cloudWatchLogs.streamName", aws.ToString(pc.StreamName), aws.ToString(bc.StreamName))
	d.str("logsConfig.s3Logs.status", string(cmp.Or(ps.Status, off)), string(cmp.Or(bs.Status, off)))
	d.str("logsConfig.s3Logs.location", aws.ToString(ps.Location), aws.ToString(bs.Location))
	d.bool("logsConfig.s3Logs.encryptionDisabled", ps.EncryptionDisabled, bs.EncryptionDisabled)
	d.str("logsConfig.s3Logs.bucketOwnerAccess",
		string(cmp.Or(ps.BucketOwnerAccess, types.BucketOwnerAccessNone)), string(cmp.Or(bs.BucketOwnerAccess, types.BucketOwnerAccessNone)))
}

func fileSystems(list []types.ProjectFileSystemLocation) []string {
	out := make([]string, len(list))
	for i, f := range list {
		out[i] = strings.Join([]string{string(f.Type), aws.ToString(f.Identifier), aws.ToString(f.Location), aws.ToString(f.MountPoint), aws.ToString(f.MountOptions)}, ",")
	}
	return out
}

func words[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}

// keysOf returns the keys of either map, sorted.
func keysOf[P, B any](p map[string]P, b map[string]B) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(p)), maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}

// label is a name that becomes part of a field's path.
func label(name string) string { return cmp.Or(tellable(name), "?") }

func presence(there bool) string {
	if there {
		return "present"
	}
	return "absent"
}

func orZero[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
