package main

import (
	"context"
	"maps"
	"slices"

	"github.com/assay-build/assay/client"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/spf13/cobra"
)

func (a *app) verifyCommand() *cobra.Command {
	var environment string
	cmd := &cobra.Command{
		Use:   "verify SUBJECT… --env ENV",
		Short: "Ask whether artifacts may be deployed to an environment",
		Long: `Ask the server whether this caller may deploy each SUBJECT to an environment.
Exits 0 only if all of them may be; 1 if the answer is no; 3 if there was none.

A SUBJECT is a path, sha256:HEX, or NAME@sha256:HEX. A file is hashed here and
not uploaded.`,
		Example: "  assay verify --env prod dist/app ghcr.io/acme/app@sha256:…",
	}
	cmd.Flags().StringVar(&environment, "env", "", "environment to deploy to (required)")
	format := formatFlag(cmd, "text", "json")
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return usage("nothing to verify", "a SUBJECT is a path, sha256:HEX or NAME@sha256:HEX")
		case environment == "":
			return usage("--env is required", "for example --env prod")
		}
		if err := format.check(); err != nil {
			return err
		}
		return a.verify(cmd.Context(), args, environment, format.value)
	})
	return cmd
}

func (a *app) verify(ctx context.Context, args []string, environment, format string) error {
	if len(args) > client.MaxSubjects {
		return usage("too many subjects", "")
	}
	labels := make([]string, len(args))
	subjects := make([]client.Subject, len(args))
	for i, arg := range args {
		s, err := parseSubject(arg)
		if err != nil {
			return err
		}
		if subjects[i], err = s.resolve(); err != nil {
			return err
		}
		labels[i] = clean(s.label())
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	verdict, err := c.Verify(ctx, subjects, environment)
	if err != nil {
		return err
	}
	a.summarise(verifySummary(c.Server(), environment, labels, verdict))
	if format == "json" {
		err = a.printJSON(verdictOutput(environment, verdict))
	} else {
		for i, d := range verdict.Decisions() {
			a.printDecision(labels[i], d)
		}
	}
	if err != nil {
		return err
	}
	if !verdict.Allowed() {
		return errDenied
	}
	return nil
}

// printDecision prints ALLOW or DENY and then every rule, for a denial with what
// was expected, what was found and how to mend it.
func (a *app) printDecision(label string, d *assayv1.Decision) {
	word := "DENY "
	if allowed(d) {
		word = "ALLOW"
	}
	if label != "" {
		label += "  "
	}
	a.print("%s  %ssha256:%s  to %s\n", word, label, clean(d.GetSubject().GetDigest()["sha256"]), clean(d.GetEnvironment()))
	if !allowed(d) {
		a.print("       %s: %s\n", clean(d.GetReason()), clean(d.GetMessage()))
	}
	if allowed(d) {
		// What there is beside the bundle's own signature; nothing in most places.
		for _, name := range slices.Sorted(maps.Keys(d.GetFacts())) {
			a.print("       %s: %s\n", clean(name), clean(d.GetFacts()[name]))
		}
	}
	if missing := d.GetSummaryMissing(); missing != "" {
		a.print("       no signed summary: %s\n", clean(missing))
	}
	for _, r := range d.GetRules() {
		mark := "✗"
		if r.GetSatisfied() {
			mark = "✓"
		}
		a.print("  %s %s  %s\n", mark, clean(r.GetRuleId()), clean(r.GetMessage()))
		if allowed(d) || r.GetSatisfied() {
			continue
		}
		for _, line := range [][2]string{
			{"expected", r.GetExpected()}, {"found", r.GetFound()}, {"remedy", r.GetRemedy()}, {"error", r.GetError()},
		} {
			if line[1] != "" {
				a.print("      %-9s %s\n", line[0], clean(line[1]))
			}
		}
	}
}

func allowed(d *assayv1.Decision) bool {
	return d.GetVerificationResult() == assayv1.VerificationResult_VERIFICATION_RESULT_PASSED
}
