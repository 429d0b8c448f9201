package provenance

import (
	"github.com/assay-build/assay/internal/identity"
)

// principalExternal and principalInternal are the parameters of the build type
// principal/v1. docs/buildtypes/principal-v1.md defines them.
type principalExternal struct {
	// Process is always "unknown": there is no build that is vouched for. The
	// in-toto project's validator refuses parameters without any member.
	Process string `json:"process"`
}

type principalInternal struct {
	Principal principalParameters `json:"principal"`
	Assay     assayParameters     `json:"assay"`
}

// principalParameters are who vouches. Names that a session's holder chooses, as
// the role session name is, do not enter.
type principalParameters struct {
	Kind     string `json:"kind"`
	Platform string `json:"platform,omitempty"`
	Issuer   string `json:"issuer"`
	Subject  string `json:"subject,omitempty"`
	Account  string `json:"account,omitempty"`
	// The following are of an AWS role.
	RoleARN           string   `json:"roleArn,omitempty"`
	UniqueID          string   `json:"uniqueId,omitempty"`
	Via               string   `json:"via,omitempty"`
	OrganizationID    string   `json:"organizationId,omitempty"`
	LambdaFunctionARN string   `json:"lambdaFunctionArn,omitempty"`
	EC2InstanceARN    string   `json:"ec2InstanceArn,omitempty"`
	Properties        []string `json:"properties,omitempty"`
}

func definePrincipal(c *identity.Caller, assay assayParameters) (*definition, error) {
	p := principalParameters{Kind: c.Kind.String(), Issuer: c.Issuer}
	if r := c.AWSRole; r != nil {
		if err := checkFacts("credential", []fact{{"account", r.Account != ""}, {"role ARN", r.RoleARN != ""}}); err != nil {
			return nil, err
		}
		p.Account, p.RoleARN, p.UniqueID, p.Via = r.Account, r.RoleARN, r.UniqueID, r.Via
		p.OrganizationID, p.LambdaFunctionARN, p.EC2InstanceARN = r.OrganizationID, r.LambdaFunctionARN, r.EC2InstanceARN
	}
	if w := c.Workload; w != nil {
		if err := checkFacts("credential", []fact{{"platform", w.Platform != ""}, {"subject", w.Subject != ""}}); err != nil {
			return nil, err
		}
		p.Platform, p.Subject, p.Account, p.Properties = w.Platform, w.Subject, w.Account, w.Properties
	}
	return &definition{
		buildType: BuildTypePrincipal,
		external:  principalExternal{Process: "unknown"},
		internal:  principalInternal{Principal: p, Assay: assay},
	}, nil
}
