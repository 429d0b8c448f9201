package identity

import (
	"cmp"
	"net/url"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/refusal"
)

// gitLabMapping reads the ID tokens of GitLab CI, of gitlab.com and of an
// instance of one's own. The issuer is the instance's address.
//
// In a merge request pipeline from a fork the project_ claims name the fork and
// not the project in which the job runs. So a fork is another project here, and
// the configuration's namespace_id or project_id keeps it out.
//
// Of the sources that GitLab documents for CI_PIPELINE_SOURCE, those of which it is
// certain that somebody with rights in the project had a branch or tag of it run are
// not proposed: push, web, schedule, api, and trigger, which is api with a token of
// the project's. A parent_pipeline has the branch of the merge request that its
// parent is for, and no word of the merge request; what began a pipeline of another
// project is not told at all. These count as proposed, and so do sources that are
// rare or not known yet.
func gitLabMapping() ClaimMapping {
	return ClaimMapping{
		Platform: PlatformGitLab,
		// People's ID tokens of the same issuer have none of these.
		Required: []string{
			"project_id", "project_path", "namespace_id", "namespace_path", "pipeline_id", "pipeline_source",
			"job_id", "ref", "ref_type", "ref_protected", "runner_environment", "sha",
		},
		Subject:           "project/{project_id}",
		Account:           "{namespace_path}",
		AccountID:         "{namespace_id}",
		Repository:        "{server_url}/{project_path}",
		RepositoryID:      "{project_id}",
		Ref:               "{ref_type|branch=refs/heads/|tag=refs/tags/}{ref}",
		RefProtected:      "{ref_protected}",
		Commit:            "{sha}",
		Event:             "{pipeline_source}",
		Runner:            "{runner_environment|gitlab-hosted=hosted|*=self-hosted}",
		Environment:       "{environment}",
		BuildConfigURI:    "https://{ci_config_ref_uri}",
		BuildConfigDigest: "{ci_config_sha}",
		InvocationID:      "{server_url}/{project_path}/-/jobs/{job_id}",
		Proposed:          "{pipeline_source|push=false|web=false|schedule=false|api=false|trigger=false|*=true}",
	}
}

// buildkiteMapping reads the tokens of Buildkite. All its customers share one
// issuer, and slugs can be given up, so the ids must be asked for:
//
//	buildkite-agent oidc request-token --audience … --claim organization_id --claim pipeline_id
//
// A token does not say that a build is of a pull request. Buildkite writes the
// branch of a fork as "owner:branch" where the pipeline is set to; no git branch
// has a colon, so that is told, as proposed and without a ref.
func buildkiteMapping() ClaimMapping {
	return ClaimMapping{
		Platform: PlatformBuildkite,
		Required: []string{
			"organization_id", "organization_slug", "pipeline_id", "pipeline_slug", "build_number", "build_branch", "build_commit", "job_id",
		},
		Subject:   "pipeline/{pipeline_id}",
		Account:   "{organization_slug}",
		AccountID: "{organization_id}",
		Ref:       "refs/tags/{build_tag} ?? {build_branch|*:*=|*=refs/heads/*}",
		// A build of a branch's newest commit is told as HEAD: that names nothing.
		Commit:       "{build_commit|HEAD=|*=*}",
		Event:        "{build_source}",
		Runner:       "{runner_environment|buildkite-hosted=hosted|*=self-hosted}",
		InvocationID: "{server_url}/{organization_slug}/{pipeline_slug}/builds/{build_number}#{job_id}",
		Proposed:     "{build_branch|*:*=true|*=false}",
	}
}

// platformsTaken are the names that an issuer of type workload may not have: what
// is said of them would be believed of the real ones.
var platformsTaken = [...]string{"github-actions", "codebuild", PlatformGitLab, PlatformBuildkite, "aws-role", PlatformX509, "human", "other", "workload"}

// workloadCaller reads a token by the issuer's mapping. The caller is allowed, or
// not, before anything of the token becomes a fact.
func (is *issuer) workloadCaller(c claims) (*Caller, error) {
	if err := c.require(is.mapping.required); err != nil {
		return nil, err
	}
	if err := c.allowed(is.Allow); err != nil {
		return nil, err
	}
	w, err := is.readWorkload(c)
	if err != nil {
		return nil, err
	}
	return &Caller{
		Kind:        KindWorkload,
		Issuer:      is.URL,
		DisplayName: w.Platform + " " + cmp.Or(w.InvocationID, w.Repository, w.Subject),
		Workload:    w,
	}, nil
}

func (is *issuer) readWorkload(c claims) (*Workload, error) {
	w := &Workload{Platform: is.mapping.platform}
	var err error
	if w.Subject, err = is.mapping.readSubject(c); err != nil {
		return nil, err
	}
	for _, f := range is.mapping.facts {
		s, err := f.from.value(c, is.ServerURL)
		if err != nil {
			return nil, err
		}
		if s != "" && f.ok != nil && !f.ok(s) {
			return nil, refusal.New(CodeTokenClaimInvalid, "the claims of %s are malformed", f.name)
		}
		if f.dst == nil {
			w.Proposed = s == "true"
		} else {
			*f.dst(w) = s
		}
	}
	names := make(map[string]string, len(is.Properties))
	for _, name := range is.Properties {
		names[name] = name
	}
	if w.Properties, err = c.properties(names); err != nil {
		return nil, err
	}
	return w, nil
}

// isAddress accepts an https URL (or http, for an instance on loopback) with one
// spelling. A claim can add path segments to it, but none that walk: an
// organisation called ".." would otherwise be any other.
func isAddress(s string) bool {
	base, fragment, hasFragment := strings.Cut(s, "#")
	if _, err := checkBaseURL(base); err != nil {
		return false
	}
	if hasFragment && (fragment == "" || strings.ContainsAny(fragment, "#/?%")) {
		return false
	}
	u, err := url.Parse(base)
	if err != nil {
		return false
	}
	return u.Path == "" || !hasDotSegment(strings.TrimPrefix(u.Path, "/"))
}

// isLocator accepts what names a file in a repository, as GitLab writes it:
// host/group/project//path@ref. It has a scheme but is not a URL in every case,
// since a ref may hold # and %.
func isLocator(s string) bool {
	rest, ok := strings.CutPrefix(s, "https://")
	host, path, found := strings.Cut(rest, "/")
	if !ok || !found || host == "" || path == "" || strings.ContainsAny(host, "@#?%\\ ") {
		return false
	}
	segments := strings.Split(path, "/")
	return !slices.Contains(segments, "..") && !slices.Contains(segments, ".") && !strings.ContainsAny(path, " \\?")
}
