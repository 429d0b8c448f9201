package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// maxList bounds --limit: the table is laid out in memory.
const maxList = 100_000

func (a *app) listCommand() *cobra.Command {
	var filter, predicateType string
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List attestations, newest first",
		Example: `  assay list --filter 'subject.name = "app" AND create_time > "2026-01-01T00:00:00Z"'`,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&filter, "filter", "", "AIP-160 filter: comparisons joined by AND")
	cmd.Flags().StringVar(&predicateType, "type", "", "only provenance, cyclonedx, spdx, or a predicate type as a URI")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many to list at most")
	format := formatFlag(cmd, "text", "json")
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		if limit < 1 || limit > maxList {
			return usage(fmt.Sprintf("--limit %d: want 1 to %d", limit, maxList), "")
		}
		if err := format.check(); err != nil {
			return err
		}
		filter, err := typeFilter(filter, predicateType)
		if err != nil {
			return err
		}
		return a.list(cmd.Context(), filter, limit, format.value)
	})
	return cmd
}

func (a *app) list(ctx context.Context, filter string, limit int, format string) error {
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	rows := []*assayv1.Attestation{}
	more := false
	// One more than is shown tells whether there are more.
	for at, err := range c.ListAttestations(ctx, client.ListOptions{Filter: filter, PageSize: min(limit+1, 1000)}) {
		if err != nil {
			return err
		}
		if more = len(rows) == limit; more {
			break
		}
		rows = append(rows, at)
	}
	if more {
		a.message("there are more than %d; --limit shows more", limit)
	}
	if format == "json" {
		return a.printJSON(listOutput(rows, more))
	}
	if len(rows) == 0 {
		a.message("no attestations")
		return nil
	}
	t := a.table()
	t.row("TIME", "TYPE", "SUBJECT", "LEVEL", "SOURCE", "COMMIT", "ID")
	for _, at := range rows {
		t.row(stamp(at.GetCreateTime()), typeName(at.GetPredicateType()), clip(subjectList(at), 40), shortLevel(at),
			clean(at.GetSourceUri()), clip(clean(at.GetSourceDigest()["gitCommit"]), 13), clean(at.GetAttestationId()))
	}
	t.flush()
	return nil
}

// predicateTypes are the short names of predicate types, for --type and in lists.
func predicateTypes() map[string]string {
	return map[string]string{
		"provenance": attest.PredicateSLSAProvenanceV1,
		"cyclonedx":  attest.PredicateCycloneDX,
		"spdx":       attest.PredicateSPDX,
	}
}

// typeFilter adds the predicate type to a filter, which is comparisons joined by AND.
func typeFilter(filter, name string) (string, error) {
	if name == "" {
		return filter, nil
	}
	uri, ok := predicateTypes()[name]
	switch {
	case ok:
	case strings.Contains(name, "://") && !strings.ContainsAny(name, "\"\\") && name == clean(name):
		uri = name
	default:
		return "", usage(fmt.Sprintf("--type %q", name), "want provenance, cyclonedx, spdx, or a predicate type as a URI")
	}
	typed := `predicate_type = "` + uri + `"`
	if strings.TrimSpace(filter) == "" {
		return typed, nil
	}
	return filter + " AND " + typed, nil
}

// typeName is the short name of a predicate type, or its last part that is no version.
func typeName(uri string) string {
	for name, known := range predicateTypes() {
		if uri == known {
			return name
		}
	}
	parts := strings.Split(strings.TrimRight(uri, "/"), "/")
	last := parts[len(parts)-1]
	if len(parts) > 1 && strings.HasPrefix(last, "v") && strings.Trim(last[1:], "0123456789.") == "" {
		last = parts[len(parts)-2]
	}
	return clip(clean(last), 20)
}

// shortLevel is the level, and in brackets what lowered it. Only builds have one.
func shortLevel(at *assayv1.Attestation) string {
	if at.GetPredicateType() != attest.PredicateSLSAProvenanceV1 {
		return "-"
	}
	if len(at.GetDowngrades()) == 0 {
		return fmt.Sprint(at.GetSlsaBuildLevel())
	}
	return fmt.Sprintf("%d (%s)", at.GetSlsaBuildLevel(), clip(joined(at.GetDowngrades()), 40))
}

// subjectList is the first subject and how many there are besides.
func subjectList(at *assayv1.Attestation) string {
	switch n := len(at.GetSubjects()); n {
	case 0:
		return ""
	case 1:
		return clean(at.GetSubjects()[0].GetName())
	default:
		return fmt.Sprintf("%s and %d more", clean(clip(at.GetSubjects()[0].GetName(), 28)), n-1)
	}
}

func stamp(t *timestamppb.Timestamp) string {
	if t.CheckValid() != nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}
