package identity

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// What an issuer may be, IssuerConfig.Type.
const (
	// TypeGitHubActions is GitHub Actions: github.com, with or without an
	// enterprise's slug in the issuer, a data residency host, or GitHub Enterprise
	// Server.
	TypeGitHubActions = "github-actions"
	// TypeGitLab is GitLab CI, of gitlab.com or of an instance of one's own.
	TypeGitLab = "gitlab"
	// TypeBuildkite is Buildkite.
	TypeBuildkite = "buildkite"
	// TypeAWSWebIdentity is one AWS account's issuer of sts:GetWebIdentityToken.
	TypeAWSWebIdentity = "aws-web-identity"
	// TypeWorkload is any other issuer of tokens for programs, read by Claims.
	TypeWorkload = "workload"
	// TypeHuman is an identity provider that vouches for people.
	TypeHuman = "human"
)

// IssuerConfig is one issuer whose tokens are believed. A field that does not
// belong to the issuer's type must not be set.
type IssuerConfig struct {
	// URL is the issuer, exactly as it stands in its tokens' iss claim. It is
	// compared byte for byte, never by prefix or pattern. https, or http on
	// loopback.
	URL string
	// Type says which claims to expect. Default "github-actions".
	Type string
	// Algorithms the issuer signs with. Default RS256, for AWS RS256 and ES384.
	// Possible: RS256, PS256, ES256, ES384, EdDSA.
	Algorithms []string
	// JWKSURI is where the issuer's keys are, if not on the issuer's own host.
	// The discovery document must name exactly this.
	JWKSURI string
	// MaxTokenLifetime bounds exp-iat for this issuer, 24 h at most. Default: the
	// Verifier's. A GitLab token lives as long as its job may.
	MaxTokenLifetime time.Duration
	// Sandbox marks an issuer that vouches for nothing real. Only an issuer on
	// loopback can be one.
	Sandbox bool

	// AllowedOwnerIDs are the numeric ids of the GitHub organisations and users
	// whose repositories may call. Required for github-actions: every GitHub user
	// in the world can get a token of GitHub's issuer, naming this service.
	AllowedOwnerIDs []int64
	// AllowedRepositoryIDs narrows the owners to some repositories. Empty: all.
	AllowedRepositoryIDs []int64
	// Recheck asks the GitHub API about each run. nil: the token is believed alone.
	Recheck *RecheckConfig

	// ServerURL is the server that repository names and run addresses are relative
	// to, for github-actions, gitlab, buildkite and workload. Default
	// https://buildkite.com, for gitlab and workload URL. GitHub's own issuers have
	// one each: https://github.com, https://SUBDOMAIN.ghe.com. That of an Enterprise
	// Server is required, and is of the issuer's host.
	ServerURL string

	// Allow says who may call: claim → values, one of which the claim must have,
	// whole; every claim listed must. Required for gitlab, with namespace_id or
	// project_id, for buildkite, with organization_id, for workload, and for human,
	// with any claim: the company (hd, tid) or its groups.
	Allow map[string][]string
	// Claims says how claims become facts. Required for workload; gitlab and
	// buildkite have theirs.
	Claims *ClaimMapping
	// Properties are further claims that are kept as "name=value", of gitlab,
	// buildkite and workload.
	Properties []string

	// Account is the AWS account, 12 digits, whose issuer this is. Required for
	// aws-web-identity.
	Account string
	// AllowedRoles are the names of the roles that may call as roles, whole and
	// without path. Empty: only builds may call.
	AllowedRoles []string
	// BuildTag is the request tag that holds the ARN of the CodeBuild build that
	// asked for the token. Any role that may call sts:TagGetWebIdentityToken can
	// choose its tags; configure this only where an SCP lets
	// aws:RequestTag/<BuildTag> be nothing but ${codebuild:BuildArn}. Empty: a token
	// is of a role and never of a build.
	BuildTag string

	// Audience replaces the deployment's, of human only, where it is required: the
	// client id, which is what an identity provider puts into aud.
	Audience []string
	// GroupsClaim holds the groups of a human. Default "groups".
	GroupsClaim string
}

// clone copies what a caller of NewVerifier may later change.
func (c IssuerConfig) clone() IssuerConfig {
	c.Algorithms, c.Audience = slices.Clone(c.Algorithms), slices.Clone(c.Audience)
	c.AllowedOwnerIDs, c.AllowedRepositoryIDs = slices.Clone(c.AllowedOwnerIDs), slices.Clone(c.AllowedRepositoryIDs)
	c.AllowedRoles, c.Properties = slices.Clone(c.AllowedRoles), slices.Clone(c.Properties)
	c.Allow = maps.Clone(c.Allow)
	for claim, values := range c.Allow {
		c.Allow[claim] = slices.Clone(values)
	}
	return c
}

// complete sets the defaults of c and checks the rest.
func (c *IssuerConfig) complete() error {
	if c.Type == "" {
		c.Type = TypeGitHubActions
	}
	types := []string{TypeGitHubActions, TypeGitLab, TypeBuildkite, TypeAWSWebIdentity, TypeWorkload, TypeHuman}
	if !slices.Contains(types, c.Type) {
		return fmt.Errorf("type %q is unknown; known are %s", c.Type, strings.Join(types, ", "))
	}
	loopback, err := checkBaseURL(c.URL)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	if c.Sandbox && !loopback {
		return fmt.Errorf("sandbox: %s is not on loopback, so it cannot be a sandbox", c.URL)
	}
	if c.JWKSURI != "" {
		if _, err := checkBaseURL(c.JWKSURI); err != nil {
			return fmt.Errorf("jwks_uri: %w", err)
		}
	}
	if c.MaxTokenLifetime < 0 || c.MaxTokenLifetime > maxLifetime {
		return fmt.Errorf("max_token_lifetime %s; the limit is %s", c.MaxTokenLifetime, maxLifetime)
	}
	if err := c.checkForeignFields(); err != nil {
		return err
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{"RS256"}
		if c.Type == TypeAWSWebIdentity {
			c.Algorithms = []string{"RS256", "ES384"}
		}
	}
	for _, alg := range c.Algorithms {
		if _, ok := algorithms[alg]; !ok {
			return fmt.Errorf("algorithm %q is not accepted", alg)
		}
	}
	if err := c.completeServerURL(loopback); err != nil {
		return err
	}
	if err := c.checkAllow(); err != nil {
		return err
	}
	switch c.Type {
	case TypeGitHubActions:
		return c.checkGitHub()
	case TypeAWSWebIdentity:
		return c.checkWebIdentity()
	case TypeWorkload:
		return c.checkWorkload()
	case TypeHuman:
		return c.completeHuman()
	}
	return nil
}

// checkForeignFields refuses fields of other types. A list of allowed roles on an
// issuer that knows no roles would look like protection and be none.
func (c *IssuerConfig) checkForeignFields() error {
	for _, f := range [...]struct {
		name  string
		set   bool
		types []string
	}{
		{"allowed_owner_ids", len(c.AllowedOwnerIDs) > 0, []string{TypeGitHubActions}},
		{"allowed_repository_ids", len(c.AllowedRepositoryIDs) > 0, []string{TypeGitHubActions}},
		{"recheck", c.Recheck != nil, []string{TypeGitHubActions}},
		{"server_url", c.ServerURL != "", []string{TypeGitHubActions, TypeGitLab, TypeBuildkite, TypeWorkload}},
		{"allow", len(c.Allow) > 0, []string{TypeGitLab, TypeBuildkite, TypeWorkload, TypeHuman}},
		{"claims", c.Claims != nil, []string{TypeWorkload}},
		{"properties", len(c.Properties) > 0, []string{TypeGitLab, TypeBuildkite, TypeWorkload}},
		{"account", c.Account != "", []string{TypeAWSWebIdentity}},
		{"allowed_roles", len(c.AllowedRoles) > 0, []string{TypeAWSWebIdentity}},
		{"build_tag", c.BuildTag != "", []string{TypeAWSWebIdentity}},
		{"audience", len(c.Audience) > 0, []string{TypeHuman}},
		{"groups_claim", c.GroupsClaim != "", []string{TypeHuman}},
	} {
		if f.set && !slices.Contains(f.types, c.Type) {
			return fmt.Errorf("%s is not for type %s", f.name, c.Type)
		}
	}
	return nil
}

func (c *IssuerConfig) completeServerURL(loopback bool) error {
	switch {
	case c.Type == TypeGitHubActions:
		if err := c.completeGitHubServer(loopback); err != nil {
			return fmt.Errorf("server_url: %w", err)
		}
	case c.ServerURL != "":
	case c.Type == TypeBuildkite:
		c.ServerURL = "https://buildkite.com"
	case c.Type == TypeGitLab || c.Type == TypeWorkload:
		c.ServerURL = strings.TrimSuffix(c.URL, "/")
	default:
		return nil
	}
	if _, err := checkBaseURL(c.ServerURL); err != nil {
		return fmt.Errorf("server_url: %w", err)
	}
	if strings.HasSuffix(c.ServerURL, "/") {
		return fmt.Errorf("server_url %q ends in a slash", c.ServerURL)
	}
	return nil
}

// completeGitHubServer lets an issuer vouch for the repositories of its own server
// and of no other. Were one server's acme/app told as another's, whoever can make
// organisations on the first would have provenance of the second.
func (c *IssuerConfig) completeGitHubServer(loopback bool) error {
	issuer, err := url.Parse(c.URL)
	if err != nil {
		return err
	}
	own := ""
	if issuer.Host == "token.actions.githubusercontent.com" {
		own = "https://github.com"
	} else if m := reGHEIssuer().FindStringSubmatch(issuer.Host); m != nil {
		own = "https://" + m[1] + ".ghe.com"
	}
	switch {
	case loopback: // a stand-in, which may be for any server
		c.ServerURL = cmp.Or(c.ServerURL, "https://github.com")
		return nil
	case own != "":
		c.ServerURL = cmp.Or(c.ServerURL, own)
		if c.ServerURL != own {
			return fmt.Errorf("%q; the issuer is that of %s", c.ServerURL, own)
		}
		return nil
	case c.ServerURL == "":
		return fmt.Errorf("is missing, and only the issuers of github.com and ghe.com tell theirs; is it https://%s?", issuer.Host)
	}
	if server, err := url.Parse(c.ServerURL); err != nil || server.Host != issuer.Host {
		return fmt.Errorf("%q is not on the issuer's host, %s", c.ServerURL, issuer.Host)
	}
	return nil
}

// reGHEIssuer matches the host of the issuer of an enterprise with data residency.
var reGHEIssuer = lazy(`^token\.actions\.([a-z0-9-]+)\.ghe\.com$`)

func (c *IssuerConfig) checkGitHub() error {
	if len(c.AllowedOwnerIDs) == 0 {
		return errors.New("allowed_owner_ids is empty: anybody on GitHub could call")
	}
	for _, id := range slices.Concat(c.AllowedOwnerIDs, c.AllowedRepositoryIDs) {
		if id <= 0 {
			return fmt.Errorf("allowed id %d is not positive", id)
		}
	}
	return nil
}

// checkAllow wants the claims that tell one's own callers from the world's.
func (c *IssuerConfig) checkAllow() error {
	needed := map[string][]string{
		TypeGitLab:    {"namespace_id", "project_id"},
		TypeBuildkite: {"organization_id"},
		TypeWorkload:  nil,
		TypeHuman:     nil,
	}
	any, ok := needed[c.Type]
	if !ok {
		return nil
	}
	if len(c.Allow) == 0 {
		return errors.New("allow is empty: everybody to whom the issuer gives a token could call")
	}
	for claim, values := range c.Allow {
		if !reClaimName().MatchString(claim) || slices.Contains([]string{"iss", "aud", "exp", "iat", "nbf", "jti"}, claim) {
			return fmt.Errorf("allow: %q is not a claim that tells callers apart", claim)
		}
		if len(values) == 0 || slices.Contains(values, "") {
			return fmt.Errorf("allow: claim %s has no value, or an empty one", claim)
		}
	}
	if any != nil && !slices.ContainsFunc(any, func(claim string) bool { return len(c.Allow[claim]) > 0 }) {
		return fmt.Errorf("allow names none of %s: names can be taken by others", strings.Join(any, ", "))
	}
	for _, name := range c.Properties {
		if !reClaimName().MatchString(name) {
			return fmt.Errorf("properties: %q is not the name of a claim", name)
		}
	}
	return nil
}

func (c *IssuerConfig) checkWorkload() error {
	if c.Claims == nil {
		return errors.New("claims is missing")
	}
	if slices.Contains(platformsTaken[:], c.Claims.Platform) {
		return fmt.Errorf("claims: platform %q is one that Assay knows; such an issuer has its own type", c.Claims.Platform)
	}
	return nil
}

func (c *IssuerConfig) checkWebIdentity() error {
	if !reAccountID().MatchString(c.Account) {
		return fmt.Errorf("account %q is not 12 digits", c.Account)
	}
	if len(c.AllowedRoles) == 0 && c.BuildTag == "" {
		return errors.New("allowed_roles and build_tag are empty: nobody could call")
	}
	for _, name := range c.AllowedRoles {
		if !reRoleName().MatchString(name) {
			return fmt.Errorf("allowed_roles: %q is not the name of a role", name)
		}
	}
	if c.BuildTag != "" && !reTagKey().MatchString(c.BuildTag) {
		return fmt.Errorf("build_tag: %q is not the key of a tag", c.BuildTag)
	}
	return nil
}

func (c *IssuerConfig) completeHuman() error {
	if len(c.Audience) == 0 {
		return errors.New("audience is empty: it is the client id that the identity provider gave to this service")
	}
	for _, aud := range c.Audience {
		if strings.TrimSpace(aud) == "" {
			return errors.New("audience has an empty entry")
		}
	}
	if c.GroupsClaim == "" {
		c.GroupsClaim = "groups"
	}
	if !reClaimName().MatchString(c.GroupsClaim) {
		return fmt.Errorf("groups_claim: %q is not the name of a claim", c.GroupsClaim)
	}
	return nil
}

// claimMapping is how the claims of c become the facts of a workload.
func (c *IssuerConfig) claimMapping() *ClaimMapping {
	switch c.Type {
	case TypeGitLab:
		m := gitLabMapping()
		return &m
	case TypeBuildkite:
		m := buildkiteMapping()
		return &m
	}
	return c.Claims
}

// jtiOptional reports whether tokens of c may have no jti. GitHub, GitLab and AWS
// always set it, so a token of theirs without is not what it seems.
func (c *IssuerConfig) jtiOptional() bool {
	return c.Type == TypeBuildkite || c.Type == TypeWorkload || c.Type == TypeHuman
}

// The forms of AWS names in configuration and claims.
var (
	reAccountID = lazy(`^[0-9]{12}$`)
	reRoleName  = lazy(`^[A-Za-z0-9_+=,.@-]{1,64}$`)
	reTagKey    = lazy(`^[A-Za-z0-9_.:/=+@-]{1,128}$`)
)

// lazy is a pattern that is compiled when it is first needed: the processes that read
// artifacts need none of them, and are started often.
func lazy(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// checkBaseURL accepts an absolute URL that has only one spelling: https, or
// http on loopback; no user, query or fragment.
func checkBaseURL(s string) (loopback bool, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return false, fmt.Errorf("%q is not a URL", s)
	}
	if u.Hostname() == "" || u.User != nil || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.String() != s {
		return false, fmt.Errorf("%q is not a plain URL of scheme, host and path", s)
	}
	ip := net.ParseIP(u.Hostname())
	loopback = u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback) {
		return false, fmt.Errorf("%q is not https", s)
	}
	return loopback, nil
}
