package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/assay-build/assay/client"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/spf13/cobra"
)

func (a *app) attestCommand() *cobra.Command {
	var bundleDir string
	var digests []string
	cmd := &cobra.Command{
		Use:   "attest PATH… | --digest NAME@sha256:HEX…",
		Short: "Attest artifacts that this CI job built",
		Long: `Upload artifacts to the server, which hashes them, states where they come from,
signs the statement and puts it into the transparency log. The server also looks
into them, and attests what it finds: see assay sbom.

A PATH is a file, or a directory whose regular files are all attested. All of
them share one attestation. With --digest nothing is uploaded, and the statement
says that the digest is the job's own word.`,
		Example: "  assay attest dist/* --bundle-dir dist",
	}
	flags := cmd.Flags()
	flags.StringVar(&bundleDir, "bundle-dir", "", "write the bundle as DIR/NAME.sigstore.json for each artifact")
	flags.StringArrayVar(&digests, "digest", nil, "attest a digest instead of a file; may be repeated")
	format := formatFlag(cmd, "text", "json")
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		if err := format.check(); err != nil {
			return err
		}
		job, err := a.planAttest(args, digests, bundleDir)
		if err != nil {
			return err
		}
		if job.bundles != nil {
			defer func() { _ = job.bundles.close() }() // only a directory
		}
		return a.attest(cmd.Context(), job, format.value)
	})
	return cmd
}

// attestJob is what an attest will do, checked before anything is sent.
type attestJob struct {
	artifacts []client.Artifact
	digests   []client.Subject
	bundles   *bundleWriter
}

func (a *app) planAttest(paths, digests []string, bundleDir string) (*attestJob, error) {
	job := &attestJob{}
	var skipped []string
	var err error
	switch {
	case len(paths) == 0 && len(digests) == 0:
		return nil, usage("nothing to attest", "name files or directories, or --digest NAME@sha256:HEX")
	case len(paths) > 0 && len(digests) > 0:
		return nil, usage("PATH and --digest do not go together", "they say different things about how the digest is known; run assay attest twice")
	}
	if job.artifacts, skipped, err = collectArtifacts(paths); err != nil {
		return nil, err
	}
	for _, s := range skipped {
		a.message("skipped %s: a link, a bundle or no regular file", s)
	}
	seen := make(map[string]bool)
	for _, d := range digests {
		s, err := parseDigestFlag(d)
		if err != nil {
			return nil, err
		}
		if seen[s.Name] {
			return nil, usage(fmt.Sprintf("--digest names %q twice", s.Name), "")
		}
		seen[s.Name] = true
		job.digests = append(job.digests, s)
	}
	if len(job.digests) > client.MaxSubjects {
		return nil, usage(fmt.Sprintf("%d digests; at most %d fit one attestation", len(digests), client.MaxSubjects), "")
	}
	if bundleDir != "" {
		job.bundles, err = planBundles(bundleDir, job)
	}
	return job, err
}

func (j *attestJob) names() []string {
	var names []string
	for i := range j.artifacts {
		names = append(names, j.artifacts[i].Name)
	}
	for _, d := range j.digests {
		names = append(names, d.Name)
	}
	return names
}

func (a *app) attest(ctx context.Context, job *attestJob, format string) error {
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	var result *client.Attested
	if len(job.digests) > 0 {
		result, err = c.AttestDigests(ctx, job.digests)
	} else {
		p := newProgress(a, len(job.artifacts))
		result, err = c.Attest(ctx, job.artifacts, p.event)
		p.end()
	}
	if err != nil {
		return err
	}
	return a.attested(c.Server(), result, job.bundles, format)
}

// attested tells the result. From here on the artifacts are attested: what fails
// now is reported, and a repeated attest returns the same answer.
func (a *app) attested(server string, result *client.Attested, bundles *bundleWriter, format string) error {
	var written []string
	var err error
	if bundles != nil {
		if written, err = bundles.write(result.Attestation); err != nil {
			return fmt.Errorf("attested as %s, but the bundle could not be written: %w", result.Attestation.GetAttestationId(), err)
		}
	}
	a.summarise(attestSummary(server, result))
	if format == "json" {
		return a.printJSON(attestOutput{
			Attestation: attestationOutput(result.Attestation), Repeated: result.Repeated, BundlePaths: written,
			SBOMs: sbomsOutput(result.SBOMs),
		})
	}
	a.printAttested(result, written)
	return nil
}

func (a *app) printAttested(result *client.Attested, written []string) {
	at := result.Attestation
	verb := "attested"
	if result.Repeated {
		verb = "attested before, unchanged:"
	}
	a.print("%s %s\n", verb, count(len(at.GetSubjects()), "artifact"))
	t := a.table()
	for _, s := range at.GetSubjects() {
		t.row("  "+clean(s.GetName()), "sha256:"+clean(s.GetDigest()["sha256"]), origin(s))
	}
	t.flush()
	t = a.table()
	sbomRows(t, result.SBOMs)
	t.row("attestation", clean(at.GetAttestationId()))
	t.row("builder", clean(at.GetBuilderId()))
	t.row("level", level(at.GetSlsaBuildLevel(), at.GetDowngrades()))
	t.row("source", clean(at.GetSourceUri()))
	t.row("log index", logIndex(at))
	for _, path := range written {
		t.row("bundle", clean(path))
	}
	t.flush()
}

func logIndex(at *assayv1.Attestation) string { return fmt.Sprint(at.GetLogIndex()) }

// origin says how a digest came to be known.
func origin(s *assayv1.Subject) string {
	switch s.GetOrigin() {
	case assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED:
		return "hashed by the server"
	case assayv1.DigestOrigin_DIGEST_ORIGIN_CLAIMED:
		return "claimed by the job"
	}
	return ""
}

// level shows an SLSA Build level and what lowered it, and says what a 0 is worth.
func level(n int32, downgrades []string) string {
	text := fmt.Sprint(n)
	if n == 0 {
		text += " (no guarantees about the build)"
	}
	if len(downgrades) > 0 {
		text += ", lowered by " + joined(downgrades)
	}
	return text
}

// joined lists words from outside.
func joined(words []string) string { return clean(strings.Join(words, ", ")) }
