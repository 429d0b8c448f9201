package server

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/sigstore/fulcio/pkg/certificate"
)

// subjectOf is for whom something is signed: the name that a certificate gives, and the
// tier that chooses the key.
type subjectOf struct {
	tier     signing.Tier
	identity ca.Identity
}

// tierOf says which of the instance's keys signs: SLSA wants another signer for each way
// in which a builder comes to know what it says. What was claimed comes first: a build
// that only named a digest has not shown it.
func tierOf(caller *identity.Caller, record *store.Attestation) signing.Tier {
	for i := range record.Subjects {
		if assayv1.DigestOrigin(record.Subjects[i].Origin) == assayv1.DigestOrigin_DIGEST_ORIGIN_CLAIMED {
			return signing.TierClaimed
		}
	}
	if caller.IsBuild() {
		return signing.TierBuild
	}
	return signing.TierRole
}

// workloadIdentity is what a certificate says of a caller, in the terms of Fulcio: the
// workflow as subject alternative name, its identity provider as issuer, and the rest as
// extensions (docs/oid-info.md of Fulcio). All of it comes from the verified credential.
func workloadIdentity(c *identity.Caller) ca.Identity {
	id := ca.Identity{Issuer: c.Issuer}
	switch {
	case c.GitHub != nil:
		g := c.GitHub
		id.URI = uriOf(g.ServerURL, g.JobWorkflowRef)
		id.Extensions = gitHubExtensions(g)
	case c.CodeBuild != nil:
		b := c.CodeBuild.Build
		id.URI = b.ProjectARN
		id.Extensions = certificate.Extensions{
			BuildSignerURI: b.ProjectARN, BuildConfigURI: b.ProjectARN, RunInvocationURI: b.ARN, BuildTrigger: b.Initiator,
		}
	case c.AWSRole != nil:
		id.URI = c.AWSRole.RoleARN
	case c.Workload != nil:
		w := c.Workload
		switch {
		case w.BuildConfigURI != "":
			id.URI = nameOf(w.Platform, w.BuildConfigURI)
		case w.Platform == identity.PlatformX509: // its subject is the name in a certificate
			id.URI = nameOf(w.Platform, w.Subject)
		default:
			// Never as a URI: what one workload is called must not be what defines another.
			id.URI = urnOf(w.Platform, w.Subject)
		}
		id.Extensions = workloadExtensions(w)
	case c.Human != nil:
		if id.Email = c.Human.Email; id.Email == "" {
			id.URI = urnOf("subject", c.Human.Subject)
		}
	}
	return id
}

// uriOf escapes what a path of a URI cannot hold: names of branches can hold nearly
// anything.
func uriOf(server, path string) string {
	u, err := url.Parse(server)
	if err != nil {
		return server + "/" + path // refused where it is put into a certificate
	}
	u.Path = "/" + path
	return u.String()
}

// nameOf is the URI of what a platform calls its own. It is another for each name: what
// looks like a URL is text to whoever chose it, so that a branch called %C3%A9 is not é.
func nameOf(platform, name string) string {
	scheme, rest, hasHost := strings.Cut(name, "://")
	if host, path, found := strings.Cut(rest, "/"); hasHost && found {
		u := url.URL{Scheme: scheme, Host: host, Path: "/" + path}
		if p, err := url.Parse(u.String()); err == nil && p.Scheme == scheme && p.Host == host && p.Path == u.Path && p.User == nil {
			return u.String()
		}
	}
	u, err := url.Parse(name)
	if err != nil || !u.IsAbs() || u.String() != name || strings.Contains(name, "%") || strings.HasPrefix(name, "urn:assay:") {
		return urnOf(platform, name)
	}
	return name
}

// urnOf names what has no URI of its own. The certificate's issuer tells equal names of
// different platforms apart.
func urnOf(kind, name string) string { return "urn:assay:" + kind + ":" + url.PathEscape(name) }

// gitHubExtensions are those that Fulcio writes for a token of GitHub Actions, the
// deprecated ones too: flags of cosign ask for them.
func gitHubExtensions(g *identity.GitHubActions) certificate.Extensions {
	run := g.ServerURL + "/" + g.Repository + "/actions/runs/" + strconv.FormatInt(g.RunID, 10) + "/attempts/" + strconv.FormatInt(g.RunAttempt, 10)
	return certificate.Extensions{
		GithubWorkflowTrigger:               g.EventName,
		GithubWorkflowSHA:                   g.SHA,
		GithubWorkflowRepository:            g.Repository,
		GithubWorkflowRef:                   g.Ref,
		BuildSignerURI:                      g.ServerURL + "/" + g.JobWorkflowRef,
		BuildSignerDigest:                   g.JobWorkflowSHA,
		RunnerEnvironment:                   g.RunnerEnvironment,
		SourceRepositoryURI:                 g.ServerURL + "/" + g.Repository,
		SourceRepositoryDigest:              g.SHA,
		SourceRepositoryRef:                 g.Ref,
		SourceRepositoryIdentifier:          strconv.FormatInt(g.RepositoryID, 10),
		SourceRepositoryOwnerURI:            g.ServerURL + "/" + g.RepositoryOwner,
		SourceRepositoryOwnerIdentifier:     strconv.FormatInt(g.RepositoryOwnerID, 10),
		BuildConfigURI:                      g.ServerURL + "/" + g.WorkflowRef,
		BuildConfigDigest:                   g.WorkflowSHA,
		BuildTrigger:                        g.EventName,
		RunInvocationURI:                    run,
		SourceRepositoryVisibilityAtSigning: g.RepositoryVisibility,
		DeploymentEnvironment:               g.Environment,
	}
}

func workloadExtensions(w *identity.Workload) certificate.Extensions {
	return certificate.Extensions{
		BuildSignerURI:                  w.BuildConfigURI,
		BuildSignerDigest:               w.BuildConfigDigest,
		RunnerEnvironment:               w.Runner,
		SourceRepositoryURI:             w.Repository,
		SourceRepositoryDigest:          w.Commit,
		SourceRepositoryRef:             w.Ref,
		SourceRepositoryIdentifier:      w.RepositoryID,
		SourceRepositoryOwnerIdentifier: w.AccountID,
		BuildConfigURI:                  w.BuildConfigURI,
		BuildConfigDigest:               w.BuildConfigDigest,
		BuildTrigger:                    w.Event,
		RunInvocationURI:                w.InvocationID,
		DeploymentEnvironment:           w.Environment,
	}
}
