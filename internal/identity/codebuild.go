package identity

import (
	"fmt"

	"github.com/assay-build/assay/internal/codebuild"
)

// awsIssuer is the issuer of callers that AWS itself vouched for, be it by STS or
// by the CodeBuild API: one for each partition, since account ids of two partitions
// have nothing to do with each other.
func awsIssuer(partition string) string {
	switch partition {
	case "", "aws":
		return "https://sts.amazonaws.com"
	case "aws-cn":
		return "https://sts.amazonaws.com.cn"
	}
	return "https://sts.amazonaws.com/" + partition
}

// NewCodeBuildCaller is the caller that a build is. mode says how it came to be
// known; confirmed is as in CodeBuild.
func NewCodeBuildCaller(mode string, b *codebuild.Build, confirmed, sandbox bool) *Caller {
	return &Caller{
		Kind:        KindCodeBuild,
		Issuer:      awsIssuer(b.Partition),
		DisplayName: fmt.Sprintf("codebuild %s %s %s:%s", b.Account, b.Region, b.Project, b.UUID),
		CodeBuild:   &CodeBuild{Mode: mode, Build: b, Confirmed: confirmed},
		Sandbox:     sandbox,
	}
}
