package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/refusal"
)

// awsClaims is the claim of a token of sts:GetWebIdentityToken that holds what
// AWS says, an object.
const awsClaims = "https://sts.amazonaws.com/"

// reRoleARN matches the ARN of a role, with whatever path it has.
var reRoleARN = lazy(`^arn:(aws|aws-cn|aws-us-gov|aws-eusc|aws-iso(?:-[bef])?):iam::([0-9]{12}):role/((?:[A-Za-z0-9_+=,.@-]+/)*)([A-Za-z0-9_+=,.@-]{1,64})$`)

// webIdentityCaller reads the token of an AWS role. It names the role and not the
// session, and of itself no build: a role of CodeBuild is shared by all builds of
// its project, and by whoever else may assume it.
func (is *issuer) webIdentityCaller(ctx context.Context, c claims, fresh freshness) (*Caller, error) {
	role, err := is.readRole(c)
	if err != nil {
		return nil, err
	}
	own, err := c.object(awsClaims)
	if err != nil {
		return nil, err
	}
	if err := is.checkAccount(own, role); err != nil {
		return nil, err
	}
	if is.BuildTag != "" {
		tags, err := own.tags("request_tags")
		if err != nil {
			return nil, err
		}
		if arn, ok := tags[is.BuildTag]; ok {
			return is.taggedBuild(ctx, role, arn, fresh)
		}
	}
	name := roleName(role.RoleARN)
	if !slices.Contains(is.AllowedRoles, name) {
		return nil, refusal.New(CodeCallerNotAllowed, "role %s of account %s is not allowed", name, role.Account)
	}
	if err := own.fillRole(role); err != nil {
		return nil, err
	}
	return &Caller{
		Kind:        KindAWSRole,
		Issuer:      is.URL,
		DisplayName: fmt.Sprintf("aws %s role %s", role.Account, name),
		AWSRole:     role,
	}, nil
}

// readRole reads sub. Users and the root of an account have long-lived keys, so
// they are not believed.
func (is *issuer) readRole(c claims) (*AWSRole, error) {
	sub, err := c.str("sub")
	if err != nil {
		return nil, err
	}
	m := reRoleARN().FindStringSubmatch(sub)
	if m == nil {
		return nil, refusal.New(CodeCallerNotAllowed, "%.200q is not a role of AWS; only roles may call", sub)
	}
	partition, account, name := m[1], m[2], m[4]
	if account != is.Account {
		return nil, refusal.New(CodeCallerNotAllowed, "issuer %s is of account %s, the role is of %s", is.URL, is.Account, account)
	}
	return &AWSRole{
		Partition: partition,
		Account:   account,
		// Names are unique in an account whatever their path, and STS does not tell
		// the path: one role has one ARN here, by whichever way it came.
		RoleARN: fmt.Sprintf("arn:%s:iam::%s:role/%s", partition, account, name),
		Via:     ViaWebIdentity,
	}, nil
}

// checkAccount wants what AWS says beside sub to agree with it.
func (is *issuer) checkAccount(own claims, role *AWSRole) error {
	account, err := own.str("aws_account")
	if err != nil {
		return err
	}
	if account != role.Account {
		return refusal.New(CodeTokenClaimInvalid, "claim aws_account is %.40q, sub is of account %s", account, role.Account)
	}
	principal, ok, err := own.text("principal_id")
	if err != nil {
		return err
	}
	if m := reRoleARN().FindStringSubmatch(principal); ok && strings.HasPrefix(principal, "arn:") &&
		(m == nil || m[2] != role.Account || m[4] != roleName(role.RoleARN)) {
		return refusal.New(CodeTokenClaimInvalid, "claim principal_id is not the role of sub")
	}
	return nil
}

// taggedBuild reads the build that the pinned tag names, and holds it against
// the role. A tag that names no build, or another role's, is refused: there is no
// falling back to the role, since a policy that lets such a tag through is broken.
func (is *issuer) taggedBuild(ctx context.Context, role *AWSRole, arn string, fresh freshness) (*Caller, error) {
	if _, err := codebuild.ParseBuildARN(arn); err != nil {
		return nil, err
	}
	release, ok := is.reads.take(ctx, role.Account)
	if !ok {
		return nil, readsBusy(role.Account)
	}
	defer release()
	if err := fresh(ctx); err != nil {
		return nil, err
	}
	b, err := is.builds.Tagged(ctx, codebuild.Tagged{
		Partition: role.Partition,
		Account:   role.Account,
		RoleName:  roleName(role.RoleARN),
		BuildARN:  arn,
	})
	if err != nil {
		return nil, err
	}
	return NewCodeBuildCaller(ModeInJob, b, false, is.Sandbox), nil
}

// fillRole copies the context of the role's session that AWS tells.
func (c claims) fillRole(r *AWSRole) error {
	for _, f := range [...]struct {
		claim string
		dst   *string
	}{
		{"org_id", &r.OrganizationID},
		{"lambda_source_function_arn", &r.LambdaFunctionARN},
		{"ec2_source_instance_arn", &r.EC2InstanceARN},
	} {
		s, _, err := c.text(f.claim)
		if err != nil {
			return err
		}
		*f.dst = s
	}
	tags, err := c.tags("principal_tags")
	if err != nil {
		return err
	}
	for key, value := range tags {
		r.PrincipalTags = append(r.PrincipalTags, key+"="+value)
	}
	slices.Sort(r.PrincipalTags)
	return nil
}

// object returns a claim that must be an object.
func (c claims) object(name string) (claims, error) {
	raw, ok := c[name]
	if !ok {
		return nil, refusal.New(CodeTokenClaimMissing, "claim %s is missing", name)
	}
	var out claims
	if raw.Kind() != '{' || json.Unmarshal(raw, &out) != nil {
		return nil, refusal.New(CodeTokenClaimInvalid, "claim %s is not an object", name)
	}
	return out, nil
}

// tags returns a claim that, if there, must be an object of strings. A key with
// "=" is refused: "a=b" of value "c" would read as "a" of value "b=c".
func (c claims) tags(name string) (map[string]string, error) {
	if raw, ok := c[name]; !ok || raw.Kind() == 'n' {
		return nil, nil
	}
	object, err := c.object(name)
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(object))
	for key, raw := range object {
		var value string
		switch {
		case strings.Contains(key, "=") || strings.ContainsFunc(key, hidden):
			return nil, refusal.New(CodeTokenClaimInvalid, "claim %s has a key that cannot be kept", name)
		case raw.Kind() != '"':
			return nil, refusal.New(CodeTokenClaimInvalid, "claim %s: %.40q is not a string", name, key)
		}
		if value, err = textOf(name, jsontext.Value(raw)); err != nil {
			return nil, err
		}
		out[key] = value
	}
	return out, nil
}

// roleName is the last part of a role's ARN.
func roleName(arn string) string {
	return arn[strings.LastIndexByte(arn, '/')+1:]
}
