package codebuild

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeSessionMismatch: the session name is not the claimed build's.
	CodeSessionMismatch refusal.Code = "CODEBUILD_SESSION_MISMATCH"
	// CodeBuildNotFound: CodeBuild knows no such build.
	CodeBuildNotFound refusal.Code = "CODEBUILD_BUILD_NOT_FOUND"
	// CodeProjectNotFound: the build's project was deleted, so that nothing can be
	// compared with it.
	CodeProjectNotFound refusal.Code = "CODEBUILD_PROJECT_NOT_FOUND"
	// CodeBuildAmbiguous: AWS answered with more than what was asked for.
	CodeBuildAmbiguous refusal.Code = "CODEBUILD_BUILD_AMBIGUOUS"
	// CodeRoleMismatch: the role that signed is not the build's service role.
	CodeRoleMismatch refusal.Code = "CODEBUILD_ROLE_MISMATCH"
	// CodeNotRunning: the build that should be calling is over, or not begun.
	CodeNotRunning refusal.Code = "CODEBUILD_NOT_RUNNING"
	// CodePhaseNotAllowed: the build runs none of its own commands now.
	CodePhaseNotAllowed refusal.Code = "CODEBUILD_PHASE_NOT_ALLOWED"
	// CodeTimeMismatch: the proof was signed while the build did not run.
	CodeTimeMismatch refusal.Code = "CODEBUILD_TIME_MISMATCH"
	// CodeNotFinished: the build still runs.
	CodeNotFinished refusal.Code = "CODEBUILD_NOT_FINISHED"
	// CodeNotSucceeded: the build ended otherwise than by success.
	CodeNotSucceeded refusal.Code = "CODEBUILD_NOT_SUCCEEDED"
)

// maxBuildTime is above CodeBuild's limits for a build, 36 h, and its queue, 8 h.
const maxBuildTime = 48 * time.Hour

// Proof is what STS vouched for, and the build the caller says it is.
type Proof struct {
	Partition, Account, Region string
	RoleName                   string // without path: STS does not tell it
	SessionName                string
	UniqueID                   string // AROA…
	SignedAt                   time.Time
	BuildID                    string // PROJECT:UUID, or the build's ARN
}

// Tagged is a build named by a tag that only CodeBuild's own context key can have
// set, in a token that AWS signed.
type Tagged struct{ Partition, Account, RoleName, BuildARN string }

// InJob returns the running build that made p. See the package comment for what
// is checked, and in which order.
func (r *Reader) InJob(ctx context.Context, p Proof) (*Build, error) {
	arn, err := p.build()
	if err != nil {
		return nil, err
	}
	c, err := r.allowed(arn)
	if err != nil {
		return nil, err
	}
	if p.SessionName != strings.Replace(r.sessionName, uuidPlaceholder, arn.UUID, 1) {
		return nil, refusal.New(CodeSessionMismatch, "the role session is not that of build %s", arn.ID())
	}
	if !reRoleName().MatchString(p.RoleName) || !reUniqueID().MatchString(p.UniqueID) {
		return nil, roleMismatch("what signed is not a role")
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	build, err := r.readBuild(ctx, c, arn)
	if err != nil {
		return nil, err
	}
	if err := r.running(build); err != nil {
		return nil, err
	}
	if p.SignedAt.Before(build.StartTime.Add(-clockSkew)) || p.SignedAt.After(r.now().Add(clockSkew)) {
		return nil, refusal.New(CodeTimeMismatch, "the proof was signed at %s, the build started at %s", stamp(p.SignedAt), stamp(*build.StartTime))
	}
	service, err := serviceRole(build, arn, p.RoleName)
	if err != nil {
		return nil, err
	}
	trusted, err := r.trustedRole(ctx, c, &p)
	if err != nil {
		return nil, err
	}
	if service.path && service.arn != trusted {
		return nil, roleMismatch("the build's service role and the role that signed have different paths")
	}
	service.arn = trusted
	return r.facts(ctx, c, arn, build, service)
}

// Tagged returns the running build that a pinned tag names. A token does not have
// the name of a session; the tag stands in for it, and so the role's trust policy
// does not matter.
func (r *Reader) Tagged(ctx context.Context, t Tagged) (*Build, error) {
	arn, err := ParseBuildARN(t.BuildARN)
	if err != nil {
		return nil, err
	}
	if arn.Partition != t.Partition || arn.Account != t.Account {
		return nil, refusal.New(CodeBuildIDInvalid, "the token is of account %s, the build of account %s", clip(t.Account), arn.Account)
	}
	c, err := r.allowed(arn)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	build, err := r.readBuild(ctx, c, arn)
	if err != nil {
		return nil, err
	}
	if err := r.running(build); err != nil {
		return nil, err
	}
	service, err := serviceRole(build, arn, t.RoleName)
	if err != nil {
		return nil, err
	}
	return r.facts(ctx, c, arn, build, service)
}

// Finished returns a build that is over and succeeded.
func (r *Reader) Finished(ctx context.Context, buildARN string) (*Build, error) {
	arn, err := ParseBuildARN(buildARN)
	if err != nil {
		return nil, err
	}
	c, err := r.allowed(arn)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	build, err := r.readBuild(ctx, c, arn)
	if err != nil {
		return nil, err
	}
	if build.BuildStatus == types.StatusTypeInProgress || !build.BuildComplete {
		return nil, refusal.New(CodeNotFinished, "build %s still runs", arn.ID())
	}
	if build.BuildStatus != types.StatusTypeSucceeded {
		return nil, refusal.New(CodeNotSucceeded, "build %s ended as %.40q", arn.ID(), string(build.BuildStatus))
	}
	if build.EndTime == nil || build.EndTime.Before(*build.StartTime) || build.EndTime.After(r.now().Add(clockSkew)) {
		return nil, invalid("endTime", "is not after the start and before now")
	}
	service, ok := parseRole(aws.ToString(build.ServiceRole), arn)
	if !ok {
		return nil, invalid("serviceRole", "is not a role of the build's account")
	}
	return r.facts(ctx, c, arn, build, service)
}

// build reads the claimed build, which must be where the caller is.
func (p *Proof) build() (ARN, error) {
	if strings.HasPrefix(p.BuildID, "arn:") {
		arn, err := ParseBuildARN(p.BuildID)
		if err != nil {
			return ARN{}, err
		}
		if arn.Partition != p.Partition || arn.Account != p.Account || arn.Region != p.Region {
			return ARN{}, refusal.New(CodeBuildIDInvalid, "the build is of account %s in %s, the caller of account %s in %s", arn.Account, arn.Region, clip(p.Account), clip(p.Region))
		}
		return arn, nil
	}
	m := reBuildID().FindStringSubmatch(p.BuildID)
	if m == nil {
		return ARN{}, refusal.New(CodeBuildIDInvalid, "%.200q is not the id of a build, PROJECT:UUID", p.BuildID)
	}
	return ARN{Partition: p.Partition, Region: p.Region, Account: p.Account, Project: m[1], UUID: m[2]}, nil
}

// readBuild returns the one record of that build, which has a start.
func (r *Reader) readBuild(ctx context.Context, c *clients, arn ARN) (*types.Build, error) {
	out, err := c.builds.BatchGetBuilds(ctx, &codebuild.BatchGetBuildsInput{Ids: []string{arn.ID()}})
	if err != nil {
		return nil, r.failed(ctx, "the build", err)
	}
	switch {
	case len(out.Builds) == 0:
		return nil, refusal.New(CodeBuildNotFound, "CodeBuild knows no build %s", arn)
	case len(out.Builds) > 1 || len(out.BuildsNotFound) > 0:
		return nil, refusal.New(CodeBuildAmbiguous, "CodeBuild answered with %d builds, and %d not found, where one was asked for", len(out.Builds), len(out.BuildsNotFound))
	}
	b := &out.Builds[0]
	switch {
	case aws.ToString(b.Arn) != arn.String():
		return nil, invalid("arn", "is not that of the build asked for")
	case aws.ToString(b.Id) != arn.ID():
		return nil, invalid("id", "is not that of the build asked for")
	case aws.ToString(b.ProjectName) != arn.Project:
		return nil, invalid("projectName", "is not the project of the build's id")
	case b.StartTime == nil || b.StartTime.After(r.now().Add(clockSkew)):
		return nil, invalid("startTime", "is missing or yet to come")
	}
	return b, nil
}

// running refuses a build whose own commands do not run now. What is only an
// inconsistency of the record is refused as well: a build that is over must not
// be told from one that runs by a single field.
func (r *Reader) running(b *types.Build) error {
	if b.BuildStatus != types.StatusTypeInProgress || b.BuildComplete || b.EndTime != nil {
		return refusal.New(CodeNotRunning, "the build is not running; its status is %.40q", string(b.BuildStatus))
	}
	if age := r.now().Sub(*b.StartTime); age > maxBuildTime {
		return refusal.New(CodeTimeMismatch, "the build started %s ago; none runs longer than %s", age.Truncate(time.Second), maxBuildTime)
	}
	// In INSTALL to POST_BUILD the buildspec's commands run. Before them nothing of
	// the build's own does, and after them there is nothing left to attest.
	own := []types.BuildPhaseType{types.BuildPhaseTypeInstall, types.BuildPhaseTypePreBuild, types.BuildPhaseTypeBuild, types.BuildPhaseTypePostBuild}
	if !slices.Contains(own, types.BuildPhaseType(aws.ToString(b.CurrentPhase))) {
		return refusal.New(CodePhaseNotAllowed, "the build is in phase %.40q, where none of its commands run", aws.ToString(b.CurrentPhase))
	}
	for _, phase := range b.Phases {
		switch phase.PhaseType {
		case types.BuildPhaseTypeUploadArtifacts, types.BuildPhaseTypeFinalizing, types.BuildPhaseTypeCompleted:
			return refusal.New(CodePhaseNotAllowed, "the build has already reached phase %s", phase.PhaseType)
		}
	}
	return nil
}

// serviceRole returns the role of the build, which must be the one named.
func serviceRole(b *types.Build, arn ARN, name string) (role, error) {
	service, ok := parseRole(aws.ToString(b.ServiceRole), arn)
	if !ok {
		return role{}, roleMismatch("the build's service role is not one of its account")
	}
	if service.name != name {
		return role{}, roleMismatch("the role that signed is not the build's service role")
	}
	return service, nil
}

// facts reads the project and makes a Build of both records.
func (r *Reader) facts(ctx context.Context, c *clients, arn ARN, b *types.Build, service role) (*Build, error) {
	out, err := c.builds.BatchGetProjects(ctx, &codebuild.BatchGetProjectsInput{Names: []string{arn.Project}})
	if err != nil {
		return nil, r.failed(ctx, "the project", err)
	}
	switch {
	case len(out.Projects) == 0:
		return nil, refusal.New(CodeProjectNotFound, "CodeBuild knows no project %s", arn.ProjectARN())
	case len(out.Projects) > 1 || len(out.ProjectsNotFound) > 0:
		return nil, refusal.New(CodeBuildAmbiguous, "CodeBuild answered with %d projects, and %d not found, where one was asked for", len(out.Projects), len(out.ProjectsNotFound))
	}
	project := &out.Projects[0]
	if aws.ToString(project.Arn) != arn.ProjectARN() || aws.ToString(project.Name) != arn.Project {
		return nil, invalid("project", "is not the one asked for")
	}
	return newRecord(arn, service, r.plaintext).build(b, project)
}

func roleMismatch(text string) error {
	return refusal.New(CodeRoleMismatch, "%w", errors.New(text))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// clip bounds what a caller said in what is said to the caller.
func clip(s string) string { return s[:min(len(s), 40)] }
