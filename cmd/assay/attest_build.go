package main

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) attestBuildCommand() *cobra.Command {
	var bundleDir string
	cmd := &cobra.Command{
		Use:   "attest-build ARN",
		Short: "Have a finished AWS CodeBuild build attested",
		Long: `Have the server read a finished build from AWS CodeBuild, fetch what it left in S3,
hash it, and attest it. Nothing of the statement is the word of the build or of
whoever runs this command.

ARN is arn:aws:codebuild:REGION:ACCOUNT:build/PROJECT:UUID.`,
		Example: "  assay attest-build arn:aws:codebuild:eu-west-1:111122223333:build/app:…",
	}
	cmd.Flags().StringVar(&bundleDir, "bundle-dir", "", "write the bundle as DIR/NAME.sigstore.json for each artifact")
	format := formatFlag(cmd, "text", "json")
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("want one build", "ARN is arn:aws:codebuild:REGION:ACCOUNT:build/PROJECT:UUID")
		}
		if err := format.check(); err != nil {
			return err
		}
		var bundles *bundleWriter
		if bundleDir != "" {
			var err error
			if bundles, err = openBundles(bundleDir); err != nil {
				return err
			}
			defer func() { _ = bundles.close() }() // only a directory
		}
		return a.attestBuild(cmd.Context(), args[0], bundles, format.value)
	})
	return cmd
}

func (a *app) attestBuild(ctx context.Context, arn string, bundles *bundleWriter, format string) error {
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	result, err := c.AttestBuild(ctx, arn)
	if err != nil {
		return err
	}
	if bundles != nil {
		// The client has checked that these are the names in the signed statement,
		// which are relative and without "..".
		for _, s := range result.Attestation.GetSubjects() {
			bundles.names = append(bundles.names, s.GetName())
		}
	}
	return a.attested(c.Server(), result, bundles, format)
}
