package codebuild

import (
	"regexp"
	"strings"
	"sync"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeBuildIDInvalid: what should name a build does not, or names one of
	// another account, region or partition than the one that vouches for the caller.
	CodeBuildIDInvalid refusal.Code = "CODEBUILD_BUILD_ID_INVALID"
)

const (
	maxARNBytes = 512

	partitionPattern = `(aws|aws-cn|aws-us-gov|aws-eusc|aws-iso|aws-iso-b|aws-iso-e|aws-iso-f)`
	regionPattern    = `([a-z]{2,4}(?:-[a-z]{2,10}){1,2}-[0-9]{1,2})`
	accountPattern   = `([0-9]{12})`
	projectPattern   = `([A-Za-z0-9][A-Za-z0-9_-]{1,149})`
	uuidPattern      = `([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})`
	roleNamePattern  = `([A-Za-z0-9_+=,.@-]{1,64})`
)

var (
	rePartition = lazy(`^` + partitionPattern + `$`)
	reRegion    = lazy(`^` + regionPattern + `$`)
	reAccount   = lazy(`^` + accountPattern + `$`)
	reProject   = lazy(`^` + projectPattern + `$`)
	reBuildID   = lazy(`^` + projectPattern + `:` + uuidPattern + `$`)
	reBuildARN  = lazy(`^arn:` + partitionPattern + `:codebuild:` + regionPattern + `:` + accountPattern + `:build/` + projectPattern + `:` + uuidPattern + `$`)
	reBatchARN  = lazy(`^arn:` + partitionPattern + `:codebuild:` + regionPattern + `:` + accountPattern + `:build-batch/` + projectPattern + `:` + uuidPattern + `$`)
	reRoleName  = lazy(`^` + roleNamePattern + `$`)
	reRoleARN   = lazy(`^arn:` + partitionPattern + `:iam::` + accountPattern + `:role/((?:[A-Za-z0-9_+=,.@-]+/)*)` + roleNamePattern + `$`)
	reSession   = lazy(`^[A-Za-z0-9_+=,.@-]{2,64}$`)
	reUniqueID  = lazy(`^AROA[A-Z0-9]{12,124}$`)
)

// lazy is a pattern that is compiled when it is first needed: the processes that read
// artifacts need none of them, and are started often.
func lazy(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// ARN names one build.
type ARN struct{ Partition, Region, Account, Project, UUID string }

// ParseBuildARN reads arn:PARTITION:codebuild:REGION:ACCOUNT:build/PROJECT:UUID and
// no other spelling: equal builds have equal ARNs. A batch is not a build.
func ParseBuildARN(s string) (ARN, error) {
	if len(s) <= maxARNBytes {
		if m := reBuildARN().FindStringSubmatch(s); m != nil && partitionOf(m[2]) == m[1] {
			return ARN{Partition: m[1], Region: m[2], Account: m[3], Project: m[4], UUID: m[5]}, nil
		}
	}
	return ARN{}, refusal.New(CodeBuildIDInvalid, "%.300q is not the ARN of a build, arn:PARTITION:codebuild:REGION:ACCOUNT:build/PROJECT:UUID", s)
}

// String returns the one spelling that ParseBuildARN reads.
func (a ARN) String() string {
	return "arn:" + a.Partition + ":codebuild:" + a.Region + ":" + a.Account + ":build/" + a.ID()
}

// ID is PROJECT:UUID, by which CodeBuild finds the build within account and region.
func (a ARN) ID() string { return a.Project + ":" + a.UUID }

// ProjectARN names the build's project.
func (a ARN) ProjectARN() string {
	return "arn:" + a.Partition + ":codebuild:" + a.Region + ":" + a.Account + ":project/" + a.Project
}

// partitionOf returns the partition a region is in. A region that is not known
// yet is in the commercial one, as AWS has added them so far.
func partitionOf(region string) string {
	for _, p := range [...]struct{ prefix, partition string }{
		{"cn-", "aws-cn"}, {"us-gov-", "aws-us-gov"}, {"eusc-", "aws-eusc"}, {"us-iso-", "aws-iso"},
		{"us-isob-", "aws-iso-b"}, {"eu-isoe-", "aws-iso-e"}, {"us-isof-", "aws-iso-f"},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p.partition
		}
	}
	return "aws"
}

// role is an IAM role, by ARN with its path where that is known.
type role struct {
	arn  string
	name string
	path bool // the ARN was given in full
}

// parseRole reads what CodeBuild calls a service role: an ARN, or only the name of
// a role in the build's account. ok is false for a role of another account.
func parseRole(s string, in ARN) (r role, ok bool) {
	if m := reRoleARN().FindStringSubmatch(s); m != nil && len(s) <= maxARNBytes+512 {
		return role{arn: s, name: m[4], path: true}, m[1] == in.Partition && m[2] == in.Account
	}
	if reRoleName().MatchString(s) {
		return role{arn: "arn:" + in.Partition + ":iam::" + in.Account + ":role/" + s, name: s}, true
	}
	return role{}, false
}
