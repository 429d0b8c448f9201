package server

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/assay-build/assay/internal/policy"
)

// AccessConfig says who may do what.
type AccessConfig struct {
	// PolicyFile holds the Cedar policies that decide every RPC; the built-in ones
	// if empty.
	PolicyFile string `yaml:"policy_file"`
	// Roles binds role names to callers. The built-in policies know auditor,
	// security, admin, deployer, attestor and breakglass.
	Roles []RoleConf `yaml:"roles"`
}

// RoleConf gives a role to every caller that one of Members describes.
type RoleConf struct {
	Role    string       `yaml:"role"`
	Members []MemberConf `yaml:"members"`
}

// MemberConf describes callers. Everything that is set must be equal; nothing is a
// pattern. Issuer is required, unless RoleARN or ProjectARN is there: names of one
// issuer mean nothing at another. Kind, Environment, Ref and Property narrow a
// member and are not enough for one.
type MemberConf struct {
	Issuer            string `yaml:"issuer"`
	Kind              string `yaml:"kind"`
	Account           string `yaml:"account"`
	RoleARN           string `yaml:"role_arn"`
	ProjectARN        string `yaml:"project_arn"`
	RepositoryID      string `yaml:"repository_id"`
	RepositoryOwnerID string `yaml:"repository_owner_id"`
	Subject           string `yaml:"subject"`
	Email             string `yaml:"email"`
	Environment       string `yaml:"environment"`
	Ref               string `yaml:"ref"`
	// Group and Property must be among those of the caller.
	Group    string `yaml:"group"`
	Property string `yaml:"property"`
}

// roleBinding is a MemberConf in the words of policies.
type roleBinding struct {
	role            string
	kind, issuer    string
	attributes      map[string]string
	group, property string
}

// bindings checks the configuration of roles.
func (c *AccessConfig) bindings() ([]roleBinding, error) {
	names := regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)
	var out []roleBinding
	for i, r := range c.Roles {
		at := fmt.Sprintf("access.roles[%d]", i)
		if !names.MatchString(r.Role) {
			return nil, configError(at+".role", "is %.80q; a lower-case word of at most 64 characters", r.Role)
		}
		if len(r.Members) == 0 {
			return nil, configError(at+".members", "is empty: nobody would have the role %s", r.Role)
		}
		for j, m := range r.Members {
			b := roleBinding{role: r.Role, kind: m.Kind, issuer: m.Issuer, group: m.Group, property: m.Property, attributes: map[string]string{}}
			for name, v := range map[string]string{
				"account": m.Account, "roleArn": m.RoleARN, "projectArn": m.ProjectARN, "repositoryId": m.RepositoryID,
				"repositoryOwnerId": m.RepositoryOwnerID, "subject": m.Subject, "email": m.Email,
				"environment": m.Environment, "ref": m.Ref,
			} {
				if v != "" {
					b.attributes[name] = v
				}
			}
			if err := m.check(); err != nil {
				return nil, configError(fmt.Sprintf("%s.members[%d]", at, j), "%v", err)
			}
			out = append(out, b)
		}
	}
	return out, nil
}

// check wants somebody in particular. A tenant chooses the environment of a job and
// the name of its branch, and GitHub makes an environment of any name that a
// workflow mentions: such words narrow a member, and are never one.
func (m *MemberConf) check() error {
	if m.Issuer == "" && m.RoleARN == "" && m.ProjectARN == "" {
		return errors.New("needs issuer, role_arn or project_arn: names of one issuer mean nothing at another")
	}
	for _, somebody := range []string{m.RoleARN, m.ProjectARN, m.Account, m.RepositoryID, m.RepositoryOwnerID, m.Subject, m.Email, m.Group} {
		if somebody != "" {
			return nil
		}
	}
	return errors.New("names nobody: needs role_arn, project_arn, account, repository_id, repository_owner_id, subject, email or group; kind, environment, ref and property only narrow it")
}

func (b *roleBinding) covers(p *policy.Principal) bool {
	if b.kind != "" && b.kind != p.Kind || b.issuer != "" && b.issuer != p.Issuer {
		return false
	}
	for name, want := range b.attributes {
		if p.Attributes[name] != want {
			return false
		}
	}
	return (b.group == "" || slices.Contains(p.Sets["groups"], b.group)) &&
		(b.property == "" || slices.Contains(p.Sets["properties"], b.property))
}

// rolesOf returns the roles of a principal, sorted, each once.
func rolesOf(bindings []roleBinding, p *policy.Principal) []string {
	var roles []string
	for i := range bindings {
		if bindings[i].covers(p) {
			roles = append(roles, bindings[i].role)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}
