package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/sbom"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const subjectHint = "a SUBJECT is a path, sha256:HEX or NAME@sha256:HEX"

// sbomRequest is what assay sbom was asked for.
type sbomRequest struct {
	subject, output, file, origin string
}

func (a *app) sbomCommand() *cobra.Command {
	var r sbomRequest
	cmd := &cobra.Command{
		Use:   "sbom SUBJECT",
		Short: "Show what is inside of an artifact: its SBOM",
		Long: `Fetch the SBOM of an artifact, verify its signature and its entry in the log, and
print it: as a table, or as the document itself.

A SUBJECT is a path, sha256:HEX, or NAME@sha256:HEX. A file is hashed here and
not uploaded. What the server found itself comes before what somebody attached.`,
		Example: `  assay sbom dist/app.war
  assay sbom dist/app.war --output cyclonedx-json --file app.cdx.json`,
	}
	flags := cmd.Flags()
	flags.StringVar(&r.output, "output", "table", "what to print: table, cyclonedx-json or spdx-json")
	flags.StringVar(&r.file, "file", "", "write to PATH instead of the standard output")
	flags.StringVar(&r.origin, "origin", "", "generated: only what the server made; claimed: only what somebody attached")
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("want one SUBJECT", subjectHint)
		}
		r.subject = args[0]
		if err := r.check(); err != nil {
			return err
		}
		return a.sbom(cmd.Context(), &r)
	})
	return cmd
}

func (r *sbomRequest) check() error {
	if !slices.Contains([]string{"table", "cyclonedx-json", "spdx-json"}, r.output) {
		return usage(fmt.Sprintf("--output %q", r.output), "want table, cyclonedx-json or spdx-json")
	}
	if !slices.Contains([]string{"", "generated", "claimed"}, r.origin) {
		return usage(fmt.Sprintf("--origin %q", r.origin), "want generated or claimed")
	}
	if r.file == "" {
		return nil
	}
	// Renamed over, a device or a pipe would be gone.
	if info, err := os.Stat(r.file); err == nil && !info.Mode().IsRegular() {
		return usage(fmt.Sprintf("--file: %s is not a regular file", r.file), "")
	}
	if info, err := os.Stat(filepath.Dir(r.file)); err != nil || !info.IsDir() {
		return usage(fmt.Sprintf("--file: there is no directory %s", filepath.Dir(r.file)), "")
	}
	return nil
}

func (a *app) sbom(ctx context.Context, r *sbomRequest) error {
	arg, err := parseSubject(r.subject)
	if err != nil {
		return err
	}
	subject, err := arg.resolve()
	if err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	options := client.SBOMOptions{Prefer: client.PredicateCycloneDX}
	if r.output == "spdx-json" {
		options.Prefer = client.PredicateSPDX
	}
	switch r.origin {
	case "generated":
		options.Origin = assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED
	case "claimed":
		options.Origin = assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED
	}
	s, err := c.SBOM(ctx, subject.SHA256, options)
	if err != nil {
		return err
	}
	var out []byte
	switch r.output {
	case "table":
		if out, err = sbomTable(s); err != nil {
			return err
		}
	case "cyclonedx-json":
		if s.Format != sbom.FormatCycloneDX {
			return usage("the SBOM is an SPDX document that somebody attached; there is no CycloneDX one", "--output spdx-json prints it")
		}
		out = s.Document
	default:
		if out, err = spdxDocument(s); err != nil {
			return err
		}
	}
	return a.deliver(r, s, out)
}

// deliver writes what was asked for. Where a program is going to read it, a person is
// told on standard error that it is not all.
func (a *app) deliver(r *sbomRequest, s *client.SBOM, out []byte) error {
	if (r.output != "table" || r.file != "") && !s.Complete() {
		a.message("warning: the SBOM %s is not complete: %s", s.Attestation.GetAttestationId(), missing(s))
	}
	if r.file == "" {
		if r.output != "table" && a.onTerminal() {
			out = escapeJSON(out) // The same document, and none of it moves the cursor.
		}
		a.out.Write(out)
		return nil
	}
	root, err := os.OpenRoot(filepath.Dir(r.file))
	if err != nil {
		return usage("--file: "+err.Error(), "")
	}
	defer func() { _ = root.Close() }() // only a directory
	if err := writeAtomic(root, filepath.Base(r.file), out); err != nil {
		return fileError("--file", err)
	}
	a.message("wrote %s", r.file)
	return nil
}

// fileError tells what the user can mend from what nobody foresaw.
func fileError(flag string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return usage(flag+": "+err.Error(), "")
	}
	return fmt.Errorf("%s: %w", flag, err)
}

func (a *app) onTerminal() bool {
	f, ok := a.stdout.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// spdxDocument is the document as SPDX: rendered, or as it is where it is one.
func spdxDocument(s *client.SBOM) ([]byte, error) {
	if s.Format == sbom.FormatSPDX {
		return s.Document, nil
	}
	parts, err := attest.ParseOwnBundle(s.Attestation.GetBundle())
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if err := sbom.WriteSPDX(&buf, s.Document, signingTime(s.Attestation, &parts.LogEntry)); err != nil {
		return nil, fmt.Errorf("render as SPDX: %w", err)
	}
	if !bytes.HasSuffix(buf.Bytes(), []byte("\n")) {
		buf.WriteByte('\n')
	}
	return buf.Bytes(), nil
}

// signingTime prefers the time the log vouches for.
func signingTime(at *assayv1.Attestation, e *attest.LogEntry) time.Time {
	if e.IntegratedTime > 0 {
		return time.Unix(e.IntegratedTime, 0).UTC()
	}
	return at.GetCreateTime().AsTime()
}

// missing says why a document is not complete, in words where there are any.
func missing(s *client.SBOM) string {
	generated := s.Origin == assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED
	switch {
	case slices.Equal(s.Incomplete, []string{reasonOpaque}):
		return "nothing was recognised in the artifact (" + reasonOpaque + ")"
	case len(s.Incomplete) > 0:
		return strings.Join(s.Incomplete, ", ")
	case generated:
		return "it says " + s.Aggregate + " and not why"
	case s.Aggregate == sbom.AggregateUnknown:
		return "who made it does not say whether it is"
	}
	return "who made it says " + s.Aggregate
}
