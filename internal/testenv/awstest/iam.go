package awstest

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

const iamVersion = "2010-05-08"

var roleName = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{1,64}$`)

// serveIAM answers the operations of IAM, which are about the caller's account.
func (w *World) serveIAM(c *call) *reply {
	if c.form.Get("Version") != iamVersion {
		return c.noOperation()
	}
	switch c.action {
	case "GetRole":
		return c.getRole()
	case "EnableOutboundWebIdentityFederation", "GetOutboundWebIdentityFederationInfo":
		return c.outboundFederation()
	}
	return c.noOperation()
}

// getRole tells of a role. Without RoleName it would be the caller's, which only
// users can ask for; that is not done here.
func (c *call) getRole() *reply {
	name := c.form.Get("RoleName")
	if !roleName.MatchString(name) {
		return c.invalid(name, "roleName", `Member must satisfy regular expression pattern: [\w+=,.@-]+`)
	}
	a := c.principal.account
	c.w.mu.Lock()
	r := a.roles[name]
	c.w.mu.Unlock()
	arn := a.arn("iam", "", "role/"+name)
	if r != nil {
		arn = r.ARN()
	}
	if refused := c.allow(arn); refused != nil {
		return refused
	}
	if r == nil {
		return c.fail(http.StatusNotFound, "NoSuchEntity", fmt.Sprintf("The role with name %s cannot be found.", name))
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	type role struct {
		Path, RoleName, RoleId, Arn string
		CreateDate                  stamp
		AssumeRolePolicyDocument    string
		MaxSessionDuration          int
	}
	return c.result(struct{ Role role }{role{
		r.path, r.name, r.id, r.ARN(), stamp(r.created), urlEncoded(r.trust), int(r.maxSession.Seconds()),
	}})
}

// urlEncoded encodes as RFC 3986 wants it, which IAM does to policies.
func urlEncoded(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// outboundFederation turns web identity tokens on for the account, or tells
// whether they are.
func (c *call) outboundFederation() *reply {
	if refused := c.allow("*"); refused != nil {
		return refused
	}
	a := c.principal.account
	issuer := a.issuerURL()
	switch {
	case c.action == "GetOutboundWebIdentityFederationInfo":
		if issuer == "" {
			return c.fail(http.StatusNotFound, "FeatureDisabled", "Outbound web identity federation is not enabled.")
		}
		return c.result(struct {
			IssuerIdentifier  string
			JwtVendingEnabled bool
		}{issuer, true})
	case issuer != "":
		return c.fail(http.StatusConflict, "FeatureEnabled", "Outbound web identity federation is already enabled.")
	}
	return c.result(struct{ IssuerIdentifier string }{a.EnableWebIdentity()})
}
