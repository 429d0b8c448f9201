package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeCallerNotAllowed: a true credential of somebody who is not to call here.
const CodeCallerNotAllowed refusal.Code = "CALLER_NOT_ALLOWED"

// The forms of GitHub's claims. Every pattern is anchored at both ends.
var (
	reRepository = lazy(`^[A-Za-z0-9_-]+/[A-Za-z0-9._-]+$`)
	reCommit     = lazy(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	reProperty   = lazy(`^[A-Za-z0-9_$#.-]{1,100}$`)
	reEventName  = lazy(`^[a-z][a-z0-9_]*$`)
	// git check-ref-format, as far as a regular expression can say it.
	reRef         = lazy(`^refs/[^ ~^:?*\[\\]+$`)
	reWorkflowRef = lazy(`^[A-Za-z0-9_-]+/[A-Za-z0-9._-]+/[^@].*[^/]@.+$`)
)

// gitHubCaller reads GitHub's claims into a Caller and asks whether that caller
// is allowed. Claims that are not named here are not read; sub is one of them.
func (is *issuer) gitHubCaller(ctx context.Context, c claims, fresh freshness) (*Caller, error) {
	g, err := readGitHub(c)
	if err != nil {
		return nil, err
	}
	g.ServerURL = is.ServerURL
	// Ids are compared as integers. A pattern over their digits would let an id
	// in that merely contains an allowed one.
	if !slices.Contains(is.AllowedOwnerIDs, g.RepositoryOwnerID) {
		return nil, refusal.New(CodeCallerNotAllowed, "owner %s (id %d) is not allowed", g.RepositoryOwner, g.RepositoryOwnerID)
	}
	if len(is.AllowedRepositoryIDs) > 0 && !slices.Contains(is.AllowedRepositoryIDs, g.RepositoryID) {
		return nil, refusal.New(CodeCallerNotAllowed, "repository %s (id %d) is not allowed", g.Repository, g.RepositoryID)
	}
	// The API is asked last, so that nobody who may not call makes us ask it, nor
	// anybody twice with one token.
	if is.recheck != nil {
		if err := fresh(ctx); err != nil {
			return nil, err
		}
		if err := is.recheck.check(ctx, g); err != nil {
			return nil, err
		}
	}
	return &Caller{
		Kind:        KindGitHubActions,
		Issuer:      is.URL,
		DisplayName: fmt.Sprintf("%s@%s run %d/%d", g.Repository, g.Ref, g.RunID, g.RunAttempt),
		GitHub:      g,
	}, nil
}

func readGitHub(c claims) (*GitHubActions, error) {
	g := new(GitHubActions)
	for _, f := range []struct {
		claim    string
		dst      *string
		required bool
		ok       func(string) bool // nil: any text
	}{
		{"repository", &g.Repository, true, isRepository},
		{"repository_owner", &g.RepositoryOwner, true, nil},
		{"repository_visibility", &g.RepositoryVisibility, false, oneOf("public", "private", "internal")},
		{"workflow_ref", &g.WorkflowRef, true, isWorkflowRef},
		{"workflow_sha", &g.WorkflowSHA, false, reCommit().MatchString},
		{"job_workflow_ref", &g.JobWorkflowRef, true, isWorkflowRef},
		{"job_workflow_sha", &g.JobWorkflowSHA, false, reCommit().MatchString},
		{"ref", &g.Ref, true, isRef},
		{"ref_type", &g.RefType, false, oneOf("branch", "tag")},
		{"ref_protected", &g.RefProtected, false, oneOf("true", "false")},
		{"sha", &g.SHA, true, reCommit().MatchString},
		{"head_ref", &g.HeadRef, false, nil},
		{"base_ref", &g.BaseRef, false, nil},
		{"event_name", &g.EventName, true, reEventName().MatchString},
		{"environment", &g.Environment, false, nil},
		{"runner_environment", &g.RunnerEnvironment, true, oneOf("github-hosted", "self-hosted")},
		{"actor", &g.Actor, false, nil},
	} {
		s, ok, err := c.optional(f.claim)
		if f.required {
			s, err = c.str(f.claim)
		}
		if err != nil {
			return nil, err
		}
		if ok && s != "" && f.ok != nil && !f.ok(s) {
			return nil, refusal.New(CodeTokenClaimInvalid, "claim %s is malformed: %.100q", f.claim, s)
		}
		*f.dst = s
	}
	for _, f := range []struct {
		claim string
		dst   *int64
		read  func(string) (int64, error)
	}{
		{"repository_id", &g.RepositoryID, c.id},
		{"repository_owner_id", &g.RepositoryOwnerID, c.id},
		{"run_id", &g.RunID, c.id},
		{"run_attempt", &g.RunAttempt, c.id},
		{"run_number", &g.RunNumber, c.optionalID},
		{"actor_id", &g.ActorID, c.optionalID},
	} {
		n, err := f.read(f.claim)
		if err != nil {
			return nil, err
		}
		*f.dst = n
	}
	if owner, _, _ := strings.Cut(g.Repository, "/"); owner != g.RepositoryOwner {
		return nil, refusal.New(CodeTokenClaimInvalid, "claim repository_owner %.100q is not the owner of repository %.100q", g.RepositoryOwner, g.Repository)
	}
	var err error
	g.Properties, err = readProperties(c)
	return g, err
}

// propertyPrefix begins the claims that hold the repository's custom properties.
// Which of them stand in a token is the organisation's choice, and their values
// are set by whoever the organisation lets: facts for rules, and no identity.
const propertyPrefix = "repo_property_"

func readProperties(c claims) ([]string, error) {
	names := make(map[string]string)
	for claim := range c {
		name, ok := strings.CutPrefix(claim, propertyPrefix)
		if !ok {
			continue
		}
		// "a=b" of value "c" would read as "a" of value "b=c".
		if !reProperty().MatchString(name) {
			return nil, refusal.New(CodeTokenClaimInvalid, "claim %.100q does not name a custom property", claim)
		}
		names[claim] = name
	}
	return c.properties(names)
}

func oneOf(allowed ...string) func(string) bool {
	return func(s string) bool { return slices.Contains(allowed, s) }
}

// isRepository accepts "owner/name". Names of dots alone would walk paths.
func isRepository(s string) bool {
	return reRepository().MatchString(s) && !hasDotSegment(s)
}

// isRef accepts a full ref name, as git check-ref-format does.
func isRef(s string) bool {
	if !reRef().MatchString(s) || strings.Contains(s, "..") || strings.Contains(s, "@{") || strings.HasSuffix(s, ".") {
		return false
	}
	for seg := range strings.SplitSeq(s, "/") {
		if seg == "" || seg[0] == '.' || strings.HasSuffix(seg, ".lock") {
			return false
		}
	}
	return true
}

// isWorkflowRef accepts "owner/name/path@ref". An @ may stand in the path and in
// the ref too; where the path ends is not decided here.
func isWorkflowRef(s string) bool {
	return reWorkflowRef().MatchString(s) && !hasDotSegment(s)
}

// hasDotSegment reports an empty, "." or ".." segment between slashes.
func hasDotSegment(s string) bool {
	for seg := range strings.SplitSeq(s, "/") {
		if seg == "" || seg == "." || seg == ".." {
			return true
		}
	}
	return false
}
