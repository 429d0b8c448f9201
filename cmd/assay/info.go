package main

import (
	"bytes"
	"strings"

	buildinfo "github.com/assay-build/assay/internal/version"
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
		ctx, c, done, err := a.dial(cmd.Context(), nil)
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
