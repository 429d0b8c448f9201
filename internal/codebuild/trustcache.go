package codebuild

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// maxTrusts bounds what is remembered. There are as many entries as roles that
// build; an attacker cannot add any, for each is a role that STS vouched for and
// that is a configured project's.
const maxTrusts = 4096

// trustKey names a role for good. A name alone is any account's to give, and a
// name within an account can be given again to another role (CVE-2025-11621).
type trustKey struct{ partition, account, name, uniqueID string }

// trust is a role whose trust policy was accepted.
type trust struct {
	arn  string // with its path
	read time.Time
}

// trustedRole returns the ARN of the role that signed p, once its trust policy
// shows that only CodeBuild may assume it. Only acceptance is remembered.
func (r *Reader) trustedRole(ctx context.Context, c *clients, p *Proof) (string, error) {
	key := trustKey{p.Partition, p.Account, p.RoleName, p.UniqueID}
	now := r.now()
	r.mu.Lock()
	t, ok := r.trusts[key]
	r.mu.Unlock()
	if age := now.Sub(t.read); ok && age >= 0 && age < r.trustTTL {
		return t.arn, nil
	}
	out, err := c.roles.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String(p.RoleName)})
	var gone *types.NoSuchEntityException
	switch {
	case errors.As(err, &gone):
		return "", roleMismatch("the role that signed is no more")
	case err != nil:
		return "", r.failed(ctx, "the service role", err)
	case out.Role == nil:
		return "", r.failed(ctx, "the service role", errors.New("no role in the answer"))
	}
	role := out.Role
	m := reRoleARN().FindStringSubmatch(aws.ToString(role.Arn))
	if m == nil || m[1] != p.Partition || m[2] != p.Account || m[4] != p.RoleName || aws.ToString(role.RoleName) != p.RoleName {
		return "", roleMismatch("the role that signed is not the one IAM knows by its name")
	}
	if aws.ToString(role.RoleId) != p.UniqueID {
		return "", roleMismatch("the role that signed was deleted, and another has its name now")
	}
	if err := checkTrust(aws.ToString(role.AssumeRolePolicyDocument)); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.trusts) >= maxTrusts {
		clear(r.trusts)
	}
	// The age counts from before the question: the answer may be that old.
	r.trusts[key] = trust{arn: aws.ToString(role.Arn), read: now}
	return aws.ToString(role.Arn), nil
}
