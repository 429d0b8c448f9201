package main

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
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
	if parts.Certificate != nil {
		if err := certificateRows(t, parts.Certificate); err != nil {
			return err
		}
	} else {
		t.row("key id", clean(parts.PublicKeyHint))
	}
	for _, d := range at.GetDetachedSignatures() {
		t.row("signed beside", clean(d.GetKind()), clean(d.GetKeyId()))
	}
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

// certificateRows show for whom a certificate speaks: what `cosign
// --certificate-identity` and `--certificate-oidc-issuer` want.
func certificateRows(t *table, der []byte) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	for _, u := range cert.URIs {
		t.row("identity", clean(u.String()))
	}
	for _, e := range cert.EmailAddresses {
		t.row("identity", clean(e))
	}
	for _, e := range cert.Extensions {
		// Fulcio's issuer, 1.3.6.1.4.1.57264.1.8: a UTF8String.
		if !e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}) {
			continue
		}
		var issuer string
		if _, err := asn1.UnmarshalWithParams(e.Value, &issuer, "utf8"); err == nil {
			t.row("issuer", clean(issuer))
		}
	}
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
