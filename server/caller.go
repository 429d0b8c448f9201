package server

// A caller, in the words of policies, of lists and of the wire.

import (
	"fmt"
	"strconv"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/refusal"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// callerView is what policies see of a caller. It is made once for a session's
// caller and shared; nothing of it may be changed.
type callerView struct {
	principal policy.Principal
	roles     []string
	// class is the principal's fingerprint: equal for callers that no policy can
	// tell apart.
	class string
	// owns are the attributes of what the caller makes.
	owns map[string]string
}

// callers makes views, and remembers them: the caller of a session is one object
// for as long as the session is remembered.
type callers struct {
	bindings []roleBinding
	views    *lru.Cache[*identity.Caller, *callerView]
}

const rememberedCallers = 4096

func newCallers(bindings []roleBinding) (*callers, error) {
	views, err := lru.New[*identity.Caller, *callerView](rememberedCallers)
	return &callers{bindings, views}, err
}

func (c *callers) view(caller *identity.Caller) *callerView {
	if v, ok := c.views.Get(caller); ok {
		return v
	}
	v := &callerView{principal: principalOf(caller)}
	v.roles = rolesOf(c.bindings, &v.principal)
	v.principal.Sets["roles"] = v.roles
	v.class, v.owns = v.principal.Fingerprint(), resourceAttributes(caller)
	c.views.Add(caller, v)
	return v
}

// principalOf is the caller as policies see it: a workflow of a repository, a
// project, a role or a person, told apart by what is never given to another. Two
// runs of one workflow are the same principal.
func principalOf(c *identity.Caller) policy.Principal {
	p := policy.Principal{
		Kind: c.Kind.String(), Issuer: c.Issuer, DisplayName: c.DisplayName, Build: c.IsBuild(), Sandbox: c.Sandbox,
		Attributes: map[string]string{"tenant": tenantOf(c)},
		Sets:       map[string][]string{"roles": nil, "groups": nil, "properties": nil},
	}
	switch {
	case c.GitHub != nil:
		gitHubPrincipal(&p, c.GitHub)
	case c.CodeBuild != nil:
		b := c.CodeBuild.Build
		p.ID = c.Issuer + "#" + b.ProjectARN
		set(&p, map[string]string{
			"platform": "codebuild", "account": policy.AWSAccount(b.Partition, b.Account), "region": b.Region, "roleArn": b.ServiceRole,
			"projectArn": b.ProjectARN, "ref": b.Source.Version, "repository": b.Source.Location,
		})
	case c.AWSRole != nil:
		r := c.AWSRole
		// The unique id tells a role from a later one of the same name, where STS gave it.
		p.ID = c.Issuer + "#" + r.RoleARN + "#" + r.UniqueID
		set(&p, map[string]string{"platform": "aws-role", "account": policy.AWSAccount(r.Partition, r.Account), "roleArn": r.RoleARN})
		p.Sets["properties"] = r.PrincipalTags
	case c.Workload != nil:
		w := c.Workload
		p.ID = c.Issuer + "#" + w.Subject
		set(&p, map[string]string{
			"platform": w.Platform, "subject": w.Subject, "repository": w.Repository, "repositoryId": policy.QualifiedID(w.Platform, w.RepositoryID),
			"repositoryOwnerId": policy.QualifiedID(w.Platform, w.AccountID), "ref": w.Ref, "refProtected": w.RefProtected, "eventName": w.Event,
			"environment": w.Environment, "runnerEnvironment": w.Runner, "workflowRef": w.BuildConfigURI,
		})
		p.Sets["properties"] = w.Properties
	case c.Human != nil:
		p.ID = c.Issuer + "#" + c.Human.Subject
		set(&p, map[string]string{"subject": c.Human.Subject, "email": c.Human.Email})
		p.Sets["groups"] = c.Human.Groups
	}
	return p
}

func gitHubPrincipal(p *policy.Principal, g *identity.GitHubActions) {
	p.ID = fmt.Sprintf("%s#%d/%s", p.Issuer, g.RepositoryID, g.WorkflowRef)
	set(p, map[string]string{
		"platform":          "github-actions",
		"repository":        g.Repository,
		"repositoryId":      policy.GitHubID(g.ServerURL, strconv.FormatInt(g.RepositoryID, 10)),
		"repositoryOwnerId": policy.GitHubID(g.ServerURL, strconv.FormatInt(g.RepositoryOwnerID, 10)),
		"workflowRef":       g.WorkflowRef,
		"jobWorkflowRef":    g.JobWorkflowRef,
		"ref":               g.Ref,
		"refProtected":      g.RefProtected,
		"eventName":         g.EventName,
		"environment":       g.Environment,
		"runnerEnvironment": g.RunnerEnvironment,
	})
	p.Sets["properties"] = g.Properties
}

func set(p *policy.Principal, values map[string]string) {
	for name, v := range values {
		if v != "" {
			p.Attributes[name] = v
		}
	}
}

// tenantOf names whom a caller belongs to: the account that answers for it. What
// one tenant attested, another does not read unless the access policy says so. It is
// made of ids that are never given to somebody else.
func tenantOf(c *identity.Caller) string {
	switch {
	case c.GitHub != nil:
		return c.Issuer + "#owner/" + strconv.FormatInt(c.GitHub.RepositoryOwnerID, 10)
	case c.CodeBuild != nil:
		return awsTenant(c.CodeBuild.Build.Partition, c.CodeBuild.Build.Account)
	case c.AWSRole != nil:
		return awsTenant(c.AWSRole.Partition, c.AWSRole.Account)
	case c.Workload != nil && c.Workload.AccountID != "":
		return c.Issuer + "#account/" + c.Workload.AccountID
	case c.Workload != nil:
		return c.Issuer + "#subject/" + c.Workload.Subject
	}
	return c.Issuer
}

// awsTenant: account ids of two partitions have nothing to do with each other.
func awsTenant(partition, account string) string { return partition + "#account/" + account }

// shareOf names among whom places are shared out, those for uploads and those of
// evidence in a decision: repositories, projects, roles and other workloads, by ids.
func shareOf(c *identity.Caller) string {
	switch {
	case c.GitHub != nil:
		return c.Issuer + "#" + strconv.FormatInt(c.GitHub.RepositoryID, 10)
	case c.CodeBuild != nil:
		return c.CodeBuild.Build.ProjectARN
	case c.AWSRole != nil:
		return c.AWSRole.RoleARN
	case c.Workload != nil:
		return c.Issuer + "#" + c.Workload.Subject
	}
	return c.Issuer
}

// resourceAttributes are what the access policy knows of something that a caller made.
func resourceAttributes(c *identity.Caller) map[string]string {
	out := map[string]string{"tenant": tenantOf(c)}
	p := principalOf(c)
	for _, name := range [...]string{"repositoryId", "repositoryOwnerId", "account", "platform"} {
		if v := p.Attributes[name]; v != "" {
			out[name] = v
		}
	}
	return out
}

// describeCaller is a caller on the wire, with the builder that its attestations carry.
func describeCaller(w *provenance.Writer, c *identity.Caller) (*assayv1.Caller, error) {
	b, err := w.Builder(c)
	if err != nil && refusal.CodeOf(err) != provenance.CodeBuilderUnknown {
		return nil, err
	}
	// Whoever builds nothing has no builder.
	return callerProto(c, b), nil
}

func callerProto(c *identity.Caller, b provenance.Builder) *assayv1.Caller {
	out := &assayv1.Caller{
		Kind:           callerKind(c.Kind),
		Issuer:         c.Issuer,
		DisplayName:    c.DisplayName,
		BuilderId:      b.ID,
		SlsaBuildLevel: int32(b.Level),
		Downgrades:     b.Downgrades,
	}
	switch {
	case c.GitHub != nil:
		out.GithubActions = gitHubProto(c.GitHub)
	case c.CodeBuild != nil:
		out.Codebuild = codeBuildProto(c.CodeBuild)
	case c.AWSRole != nil:
		r := c.AWSRole
		out.AwsRole = &assayv1.AWSRoleFacts{
			Account: r.Account, RoleArn: r.RoleARN, SessionName: r.SessionName, Via: r.Via, OrganizationId: r.OrganizationID,
			PrincipalTags: r.PrincipalTags, LambdaFunctionArn: r.LambdaFunctionARN, Ec2InstanceArn: r.EC2InstanceARN,
		}
	case c.Workload != nil:
		w := c.Workload
		out.Workload = &assayv1.WorkloadFacts{
			Platform: w.Platform, Subject: w.Subject, Account: w.Account, AccountId: w.AccountID, Repository: w.Repository,
			RepositoryId: w.RepositoryID, Ref: w.Ref, Commit: w.Commit, Event: w.Event, Runner: w.Runner, Environment: w.Environment,
			BuildConfigUri: w.BuildConfigURI, BuildConfigDigest: w.BuildConfigDigest, InvocationId: w.InvocationID,
			Properties: w.Properties, PullRequest: w.Proposed,
		}
	case c.Human != nil:
		out.Human = &assayv1.HumanFacts{Subject: c.Human.Subject, Email: c.Human.Email, Name: c.Human.Name, Groups: c.Human.Groups}
	}
	return out
}

func callerKind(k identity.Kind) assayv1.CallerKind {
	switch k {
	case identity.KindGitHubActions:
		return assayv1.CallerKind_CALLER_KIND_GITHUB_ACTIONS
	case identity.KindCodeBuild:
		return assayv1.CallerKind_CALLER_KIND_CODEBUILD
	case identity.KindAWSRole:
		return assayv1.CallerKind_CALLER_KIND_AWS_ROLE
	case identity.KindWorkload:
		return assayv1.CallerKind_CALLER_KIND_WORKLOAD
	case identity.KindHuman:
		return assayv1.CallerKind_CALLER_KIND_HUMAN
	}
	return assayv1.CallerKind_CALLER_KIND_UNSPECIFIED
}

func gitHubProto(g *identity.GitHubActions) *assayv1.GitHubActionsClaims {
	return &assayv1.GitHubActionsClaims{
		Repository: g.Repository, RepositoryId: g.RepositoryID,
		RepositoryOwner: g.RepositoryOwner, RepositoryOwnerId: g.RepositoryOwnerID,
		RepositoryVisibility: g.RepositoryVisibility,
		WorkflowRef:          g.WorkflowRef, WorkflowSha: g.WorkflowSHA,
		JobWorkflowRef: g.JobWorkflowRef, JobWorkflowSha: g.JobWorkflowSHA,
		Ref: g.Ref, RefType: g.RefType, Sha: g.SHA, HeadRef: g.HeadRef, BaseRef: g.BaseRef,
		EventName: g.EventName, Environment: g.Environment, RunnerEnvironment: g.RunnerEnvironment,
		RunId: g.RunID, RunNumber: g.RunNumber, RunAttempt: g.RunAttempt,
		Actor: g.Actor, ActorId: g.ActorID, ServerUrl: g.ServerURL,
		RefProtected: g.RefProtected, RepositoryProperties: g.Properties,
		PullRequest: g.PullRequest(), HeadRepository: g.HeadRepository,
	}
}

func codeBuildProto(c *identity.CodeBuild) *assayv1.CodeBuildFacts {
	b := c.Build
	return &assayv1.CodeBuildFacts{
		BuildArn: b.ARN, ProjectArn: b.ProjectARN, BuildNumber: b.Number, BuildBatchArn: b.BatchARN,
		Initiator: b.Initiator, ServiceRole: b.ServiceRole, Mode: c.Mode,
		SourceType: b.Source.Type, SourceLocation: b.Source.Location, SourceVersion: b.Source.Version,
		ResolvedSourceVersion: resolved(b.Source),
		Image:                 b.Environment.Image, PrivilegedMode: b.Environment.PrivilegedMode,
		Overrides: overrideFields(b), StartTime: timestamppb.New(b.StartedAt),
	}
}

func resolved(s codebuild.Source) string {
	if s.Commit != "" {
		return s.Commit
	}
	return s.Revision
}

func overrideFields(b *codebuild.Build) []string {
	out := make([]string, len(b.Overrides))
	for i, o := range b.Overrides {
		out[i] = o.Field
	}
	return out
}
