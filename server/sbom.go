package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/check"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"golang.org/x/sync/errgroup"
)

const (
	// sealAtOnce is how many SBOMs of one attest are signed and logged at a time, where
	// there is memory for so many.
	sealAtOnce = 8
	// maxSBOMBytes is the largest SBOM: what leaves room for the statement around it.
	maxSBOMBytes = check.MaxBytes
	// maxLicensesShown and maxLicenseBytes bound what a summary lists.
	maxLicensesShown, maxLicenseBytes = 100, 8 << 10
)

// attestSBOMs makes an attestation of what was found in each artifact. st is the
// provenance that they came with, and record its index entry.
func (a *attestationService) attestSBOMs(ctx context.Context, caller *identity.Caller, of party, st *attest.Statement, record *store.Attestation, found []*scanned) ([]*assayv1.SBOMSummary, error) {
	if len(found) == 0 {
		return nil, nil
	}
	payload, err := st.Marshal()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(payload)
	provenanceID := hex.EncodeToString(sum[:])
	out := make([]*assayv1.SBOMSummary, len(found))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(sealAtOnce)
	for i, one := range found {
		group.Go(func() error {
			memory := a.scans.reserve(of)
			defer memory.drop()
			if err := memory.takeLarge(ctx, one.bytes, sealFactor*one.bytes); err != nil {
				return err
			}
			var err error
			out[i], err = a.attestSBOM(ctx, caller, provenanceID, record, one)
			return err
		})
	}
	return out, group.Wait()
}

func (a *attestationService) attestSBOM(ctx context.Context, caller *identity.Caller, provenanceID string, of *store.Attestation, one *scanned) (*assayv1.SBOMSummary, error) {
	document, err := os.ReadFile(one.file)
	if err != nil {
		return nil, spoolError(err)
	}
	rows, err := readIndex(document)
	if err != nil {
		return nil, err
	}
	s := one.subject
	st := &attest.Statement{
		Type: attest.StatementTypeV1, PredicateType: attest.PredicateCycloneDX, Predicate: document,
		Subjects: []attest.Subject{{Name: s.Name, Digest: digestMap(s), Annotations: map[string]string{
			provenance.AnnotationPredicateOrigin: provenance.OriginGenerated,
			provenance.AnnotationProvenance:      provenanceID,
		}}},
	}
	record := *of
	record.PredicateType, record.Subjects, record.SBOM = attest.PredicateCycloneDX, []store.Subject{s}, rows
	done, err := a.sealer.seal(ctx, caller, st, &record)
	if err != nil {
		return nil, err
	}
	one.summary.AttestationId = done.ID
	return one.summary, nil
}

// readIndex is what the store keeps of a document of ours for searches.
func readIndex(document []byte) (*store.SBOM, error) {
	out := new(store.SBOM)
	header, err := sbom.Read(bytes.NewReader(document), func(c sbom.Component) error {
		out.Components = append(out.Components, componentRow(&c))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the document of a scan: %w", err)
	}
	out.Format, out.Complete = header.ArtifactFormat, header.Aggregate == sbom.AggregateComplete
	return out, nil
}

// claimedIndex is what the store keeps of an attached document for searches.
func claimedIndex(inv *sbom.Inventory, report *check.Report) *store.SBOM {
	out := &store.SBOM{
		Claimed: true, Complete: report.Aggregate == sbom.AggregateComplete, Format: report.Format, Components: make([]store.Component, len(inv.Components)),
	}
	for i := range inv.Components {
		out.Components[i] = componentRow(&inv.Components[i])
	}
	return out
}

func componentRow(c *sbom.Component) store.Component {
	row := store.Component{PURL: c.PURL, Namespace: c.Group, Name: c.Name, Version: c.Version, Licenses: sbom.LicenseIDs(c.Licenses)}
	if p, err := sbom.ParsePURL(c.PURL); err == nil {
		row.Type, row.Namespace, row.Name, row.Version = p.Type, p.Namespace, p.Name, p.Version
	}
	return row
}

func summaryOf(id string, s store.Subject, origin assayv1.SBOMOrigin, inv *sbom.Inventory, format string) *assayv1.SBOMSummary {
	sum := sbom.Summarize(inv)
	out := &assayv1.SBOMSummary{
		AttestationId: id, Subject: subjectProto(s), Origin: origin, ComponentCount: int32(sum.Components),
		ComponentsByType: make(map[string]int32, len(sum.ByType)), Licenses: shownLicenses(sum.Licenses),
		Complete: sum.Complete, IncompleteReasons: sum.Incomplete, Format: format,
	}
	for typ, n := range sum.ByType {
		out.ComponentsByType[typ] = int32(n)
	}
	return out
}

// shownLicenses is the beginning of a list. An artifact may have as many licences as its
// maker likes, each a kilobyte long, and the summaries of an upload are kept until its end.
func shownLicenses(list []string) []string {
	var out []string
	for size := 0; len(out) < min(len(list), maxLicensesShown); {
		l := list[len(out)]
		if size += len(l); size > maxLicenseBytes {
			break
		}
		out = append(out, strings.Clone(l))
	}
	return out
}
