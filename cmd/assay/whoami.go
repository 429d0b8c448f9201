package main

import (
	"context"
	"fmt"
	"strings"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/spf13/cobra"
)

func (a *app) whoamiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "whoami",
		Short: "Show who the server holds this job or person to be",
		Args:  cobra.NoArgs,
	}
	format := formatFlag(cmd, "text", "json")
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		if err := format.check(); err != nil {
			return err
		}
		return a.whoami(cmd.Context(), format.value)
	})
	return cmd
}

func (a *app) whoami(ctx context.Context, format string) error {
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	me, err := c.WhoAmI(ctx)
	if err != nil {
		return err
	}
	if format == "json" {
		return a.printJSON(whoamiOutput{Caller: callerOutput(me.GetCaller()), ExpireTime: stamp(me.GetExpireTime())})
	}
	caller := me.GetCaller()
	t := a.table()
	t.row("caller", clean(caller.GetDisplayName()))
	t.row("kind", callerKind(caller.GetKind()))
	t.row("issuer", clean(caller.GetIssuer()))
	if caller.GetBuilderId() != "" {
		t.row("builder", clean(caller.GetBuilderId()))
		t.row("level", level(caller.GetSlsaBuildLevel(), caller.GetDowngrades()))
	}
	t.row("roles", joined(caller.GetRoles()))
	callerRows(t, caller)
	t.row("session until", stamp(me.GetExpireTime()))
	t.flush()
	return nil
}

// callerRows shows the facts of the caller's kind.
func callerRows(t *table, c *assayv1.Caller) {
	gitHubRows(t, c.GetGithubActions())
	codeBuildRows(t, c.GetCodebuild())
	awsRoleRows(t, c.GetAwsRole())
	workloadRows(t, c.GetWorkload())
	humanRows(t, c.GetHuman())
}

func gitHubRows(t *table, gh *assayv1.GitHubActionsClaims) {
	if gh == nil {
		return
	}
	t.row("repository", clean(fmt.Sprintf("%s (id %d, owner id %d)", gh.GetRepository(), gh.GetRepositoryId(), gh.GetRepositoryOwnerId())))
	t.row("properties", joined(gh.GetRepositoryProperties()))
	t.row("workflow", clean(gh.GetJobWorkflowRef()))
	if gh.GetWorkflowRef() != gh.GetJobWorkflowRef() {
		t.row("called by", clean(gh.GetWorkflowRef()))
	}
	t.row("ref", clean(gh.GetRef()))
	t.row("commit", clean(gh.GetSha()))
	t.row("event", clean(gh.GetEventName()))
	t.row("pull request", pullRequest(gh.GetPullRequest(), gh.GetHeadRepository()))
	t.row("environment", clean(gh.GetEnvironment()))
	t.row("runner", clean(gh.GetRunnerEnvironment()))
	t.row("run", fmt.Sprintf("%d, attempt %d", gh.GetRunId(), gh.GetRunAttempt()))
}

// pullRequest says so where it is one, and where it comes from if that is known.
func pullRequest(is bool, head string) string {
	switch {
	case !is:
		return ""
	case head == "":
		return "yes"
	}
	return "yes, from " + clean(head)
}

func codeBuildRows(t *table, b *assayv1.CodeBuildFacts) {
	if b == nil {
		return
	}
	t.row("build", clean(b.GetBuildArn()))
	t.row("mode", clean(b.GetMode()))
	t.row("batch", clean(b.GetBuildBatchArn()))
	t.row("source", clean(strings.TrimSpace(b.GetSourceType()+" "+b.GetSourceLocation())))
	t.row("version", clean(b.GetSourceVersion()))
	t.row("commit", clean(b.GetResolvedSourceVersion()))
	t.row("image", clean(b.GetImage()))
	if b.GetPrivilegedMode() {
		t.row("privileged", "yes")
	}
	t.row("initiator", clean(b.GetInitiator()))
	t.row("service role", clean(b.GetServiceRole()))
	t.row("overrides", joined(b.GetOverrides()))
	t.row("started", stamp(b.GetStartTime()))
}

func awsRoleRows(t *table, r *assayv1.AWSRoleFacts) {
	if r == nil {
		return
	}
	t.row("role", clean(r.GetRoleArn()))
	t.row("account", clean(r.GetAccount()))
	t.row("session", clean(r.GetSessionName()))
	t.row("proven by", clean(r.GetVia()))
	t.row("organization", clean(r.GetOrganizationId()))
	t.row("principal tags", joined(r.GetPrincipalTags()))
	t.row("lambda", clean(r.GetLambdaFunctionArn()))
	t.row("instance", clean(r.GetEc2InstanceArn()))
}

func workloadRows(t *table, w *assayv1.WorkloadFacts) {
	if w == nil {
		return
	}
	t.row("platform", clean(w.GetPlatform()))
	t.row("subject", clean(w.GetSubject()))
	t.row("account", withID(w.GetAccount(), w.GetAccountId()))
	t.row("repository", withID(w.GetRepository(), w.GetRepositoryId()))
	t.row("ref", clean(w.GetRef()))
	t.row("commit", clean(w.GetCommit()))
	t.row("event", clean(w.GetEvent()))
	t.row("pull request", pullRequest(w.GetPullRequest(), ""))
	t.row("environment", clean(w.GetEnvironment()))
	t.row("runner", clean(w.GetRunner()))
	t.row("build config", clean(w.GetBuildConfigUri()))
	t.row("config commit", clean(w.GetBuildConfigDigest()))
	t.row("run", clean(w.GetInvocationId()))
	t.row("properties", joined(w.GetProperties()))
}

func withID(name, id string) string {
	switch {
	case id == "":
		return clean(name)
	case name == "":
		return "id " + clean(id)
	}
	return clean(fmt.Sprintf("%s (id %s)", name, id))
}

func humanRows(t *table, h *assayv1.HumanFacts) {
	if h == nil {
		return
	}
	t.row("subject", clean(h.GetSubject()))
	t.row("name", clean(h.GetName()))
	t.row("email", clean(h.GetEmail()))
	t.row("groups", joined(h.GetGroups()))
}
