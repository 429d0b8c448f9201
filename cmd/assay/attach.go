package main

import (
	"context"
	"os"

	"github.com/assay-build/assay/client"
	"github.com/spf13/cobra"
)

func (a *app) attachCommand() *cobra.Command {
	var kind, file string
	cmd := &cobra.Command{
		Use:   "attach SUBJECT --type cyclonedx|spdxjson --predicate FILE",
		Short: "Attach an SBOM that somebody else made to an attested artifact",
		Long: `Have the server check an SBOM, sign it as this caller's claim, byte for byte, and
put it into the log. The artifact must be attested already.

A SUBJECT is a path, sha256:HEX, or NAME@sha256:HEX. A file is hashed here and
not uploaded.`,
		Example: "  assay attach dist/app.war --type cyclonedx --predicate app.cdx.json",
	}
	flags := cmd.Flags()
	flags.StringVar(&kind, "type", "", "what it is: cyclonedx or spdxjson (required)")
	flags.StringVar(&file, "predicate", "", "the document, JSON (required)")
	format := formatFlag(cmd, "text", "json")
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("want one SUBJECT", subjectHint)
		}
		predicateType := map[string]string{"cyclonedx": client.PredicateCycloneDX, "spdxjson": client.PredicateSPDX}[kind]
		switch {
		case predicateType == "":
			return usage("--type "+kind, "want cyclonedx or spdxjson")
		case file == "":
			return usage("--predicate is required", "the CycloneDX or SPDX document, JSON")
		}
		if err := format.check(); err != nil {
			return err
		}
		return a.attach(cmd.Context(), args[0], predicateType, file, format.value)
	})
	return cmd
}

func (a *app) attach(ctx context.Context, arg, predicateType, file, format string) error {
	s, err := parseSubject(arg)
	if err != nil {
		return err
	}
	subject, err := s.resolve()
	if err != nil {
		return err
	}
	// What a file is called here says nothing of what it was attested as.
	subject.Name = s.name
	// Asked before the open, which on a named pipe would wait for ever.
	info, err := os.Stat(file)
	if err != nil {
		return usage("--predicate: "+err.Error(), "")
	}
	if !info.Mode().IsRegular() {
		return usage("--predicate: "+file+" is not a regular file", "")
	}
	f, err := os.Open(file)
	if err != nil {
		return usage("--predicate: "+err.Error(), "")
	}
	defer f.Close()
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	result, err := c.AttachEvidence(ctx, subject, predicateType, f, info.Size())
	if err != nil {
		return err
	}
	if format == "json" {
		return a.printJSON(attestOutput{
			Attestation: attestationOutput(result.Attestation), Repeated: result.Repeated, SBOMs: sbomsOutput(result.SBOMs),
		})
	}
	a.printAttached(result)
	return nil
}

func (a *app) printAttached(result *client.Attested) {
	at := result.Attestation
	verb := "attached"
	if result.Repeated {
		verb = "attached before, unchanged,"
	}
	for _, s := range at.GetSubjects() {
		a.print("%s to %s  sha256:%s\n", verb, clean(s.GetName()), clean(s.GetDigest()["sha256"]))
	}
	t := a.table()
	t.row("attestation", clean(at.GetAttestationId()))
	t.row("predicate", clean(at.GetPredicateType()))
	t.row("origin", "claimed")
	for _, s := range result.SBOMs {
		t.row("sbom", sbomLine(s))
	}
	t.row("log index", logIndex(at))
	t.flush()
}
