package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	buildinfo "github.com/assay-build/assay/internal/version"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/spf13/cobra"
)

func (a *app) trustedRootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trusted-root",
		Short: "Print what verifiers of this server's attestations start from",
		Long: `Print the server's Sigstore trusted root, or its attestation public keys. It is
only as good as the way it came: fetch it once, over TLS, and keep it.`,
		Example: `  assay trusted-root > trusted-root.json
  assay trusted-root --format pem > assay.pub`,
		Args: cobra.NoArgs,
	}
	format := formatFlag(cmd, "json", "pem")
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		if err := format.check(); err != nil {
			return err
		}
		ctx, c, done, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer done()
		root, err := c.GetTrustedRoot(ctx)
		if err != nil {
			return err
		}
		if format.value == "pem" {
			a.out.Write(root.AttestationKeysPEM)
			return nil
		}
		a.out.Write(escapeJSON(bytes.TrimSpace(root.JSON)))
		a.out.WriteByte('\n')
		return nil
	})
	return cmd
}

func (a *app) whoamiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "whoami",
		Short: "Show who the server holds this job to be",
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
		t.row("level", fmt.Sprint(caller.GetSlsaBuildLevel()))
	}
	if gh := caller.GetGithubActions(); gh != nil {
		gitHubRows(t, gh)
	}
	t.row("session until", stamp(me.GetExpireTime()))
	t.flush()
	return nil
}

func gitHubRows(t *table, gh *assayv1.GitHubActionsClaims) {
	t.row("repository", clean(fmt.Sprintf("%s (id %d, owner id %d)", gh.GetRepository(), gh.GetRepositoryId(), gh.GetRepositoryOwnerId())))
	t.row("workflow", clean(gh.GetJobWorkflowRef()))
	t.row("ref", clean(gh.GetRef()))
	t.row("commit", clean(gh.GetSha()))
	t.row("event", clean(gh.GetEventName()))
	t.row("runner", clean(gh.GetRunnerEnvironment()))
	t.row("run", fmt.Sprintf("%d, attempt %d", gh.GetRunId(), gh.GetRunAttempt()))
}

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs}
	format := formatFlag(cmd, "text", "json")
	cmd.RunE = runs(func(*cobra.Command, []string) error {
		if err := format.check(); err != nil {
			return err
		}
		if format.value == "json" {
			return a.printJSON(map[string]string{"version": versionLine()})
		}
		a.print("assay %s\n", versionLine())
		return nil
	})
	return cmd
}

// versionLine is what the go command recorded; a release build may name its
// version itself.
func versionLine() string {
	recorded := buildinfo.String()
	if version == "" {
		return recorded
	}
	_, rest, _ := strings.Cut(recorded, " ")
	return version + " " + rest
}

func userAgent() string {
	name, _, _ := strings.Cut(versionLine(), " ")
	return "assay/" + name
}
