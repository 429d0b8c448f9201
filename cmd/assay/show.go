package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func (a *app) showCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show an attestation: who built what, from which source",
		Args:  cobra.ExactArgs(1),
	}
	format := formatFlag(cmd, "text", "json")
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		if err := format.check(); err != nil {
			return err
		}
		return a.show(cmd.Context(), args[0], format.value)
	})
	return cmd
}

func (a *app) show(ctx context.Context, id, format string) error {
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	at, err := c.GetAttestation(ctx, id)
	if err != nil {
		return err
	}
	if format == "json" {
		return a.printJSON(attestationOutput(at))
	}
	return a.printAttestation(at)
}

func (a *app) printAttestation(at *assayv1.Attestation) error {
	// GetAttestation has parsed and compared both; this cannot fail for it.
	parts, err := attest.ParseOwnBundle(at.GetBundle())
	if err != nil {
		return err
	}
	statement, err := attest.ParseStatement(parts.Envelope.Payload)
	if err != nil {
		return err
	}
	var p provenance
	if statement.PredicateType == attest.PredicateSLSAProvenanceV1 {
		if err := json.Unmarshal(statement.Predicate, &p); err != nil {
			return fmt.Errorf("read the provenance: %w", err)
		}
	}
	t := a.table()
	t.row("attestation", clean(at.GetAttestationId()))
	t.row("predicate", clean(statement.PredicateType))
	switch statement.PredicateType {
	case attest.PredicateSLSAProvenanceV1:
		t.row("builder", clean(p.RunDetails.Builder.ID))
		t.row("level", level(at.GetSlsaBuildLevel(), p.BuildDefinition.InternalParameters.Assay.Downgrades))
		p.rows(t)
	case attest.PredicateCycloneDX, attest.PredicateSPDX:
		if err := sbomShown(t, at); err != nil {
			return err
		}
	}
	t.row("signed at", signedAt(at, &parts.LogEntry))
	t.row("log index", fmt.Sprint(parts.LogEntry.LogIndex))
	t.row("key id", clean(parts.PublicKeyHint))
	t.flush()
	a.print("subjects\n")
	origins := make(map[string]string)
	for _, s := range at.GetSubjects() {
		origins[s.GetName()] = origin(s)
	}
	t = a.table()
	for _, s := range statement.Subjects {
		t.row("  "+clean(s.Name), "sha256:"+clean(s.Digest["sha256"]), origins[s.Name])
	}
	t.flush()
	return nil
}

// sbomShown shows what an SBOM comes to.
func sbomShown(t *table, at *assayv1.Attestation) error {
	s, err := client.ReadSBOM(at)
	if err != nil {
		return err
	}
	c, err := readContents(s.Document)
	if err != nil {
		return err
	}
	if s.Complete() {
		t.row("complete", completeWord(s))
	} else {
		t.row("complete", clean("NO: "+missing(s)))
	}
	sbomFacts(t, s, c)
	return nil
}

func signedAt(at *assayv1.Attestation, e *attest.LogEntry) string {
	if e.IntegratedTime == 0 && at.GetCreateTime() == nil {
		return ""
	}
	return stamp(timestamppb.New(signingTime(at, e)))
}
