package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

const (
	// maxSBOMLines keeps the answer to an attest of many artifacts readable.
	maxSBOMLines = 20
	// shownLicenses is how many licences a line names before it only counts.
	shownLicenses = 5
	// reasonOpaque is the word for an artifact in which nothing was recognised.
	reasonOpaque = "opaque"
)

// sbomRows adds a line for each artifact that was looked into. Of those that there is no
// room for, at least what is wrong with them is counted.
func sbomRows(t *table, sboms []*assayv1.SBOMSummary) {
	for i, s := range sboms {
		if i == maxSBOMLines && len(sboms) > maxSBOMLines+1 {
			t.row("sbom", moreSBOMs(sboms[i:]))
			return
		}
		t.row("sbom", clip(clean(s.GetSubject().GetName()), 60)+": "+sbomLine(s))
	}
}

func moreSBOMs(rest []*assayv1.SBOMSummary) string {
	components, incomplete, opaque := 0, 0, 0
	for _, s := range rest {
		components += int(s.GetComponentCount())
		switch {
		case nothingRecognised(s):
			opaque++
		case !s.GetComplete():
			incomplete++
		}
	}
	text := fmt.Sprintf("and %d more artifacts with %s", len(rest), count(components, "component"))
	if opaque > 0 {
		text += fmt.Sprintf("; nothing was recognised in %d", opaque)
	}
	if incomplete > 0 {
		text += fmt.Sprintf("; INCOMPLETE: %d", incomplete)
	}
	return text
}

// sbomLine is what was found in one artifact. That it may not be all is never left out.
func sbomLine(s *assayv1.SBOMSummary) string {
	if nothingRecognised(s) {
		return "nothing was recognised"
	}
	text := count(int(s.GetComponentCount()), "component")
	if types := ecosystems(s.GetComponentsByType()); types != "" {
		text += " (" + types + ")"
	}
	if s.GetComponentCount() > 0 {
		text += ", " + licenseText(s.GetLicenses())
	}
	if c := completeness(s); c != "complete" {
		text += "; " + c
	}
	return text
}

func nothingRecognised(s *assayv1.SBOMSummary) bool {
	return s.GetComponentCount() == 0 && slices.Equal(s.GetIncompleteReasons(), []string{reasonOpaque})
}

// completeness is "complete", or why something may be missing.
func completeness(s *assayv1.SBOMSummary) string {
	switch {
	case s.GetComplete():
		return "complete"
	case len(s.GetIncompleteReasons()) == 0:
		return "not said to be complete"
	}
	return "INCOMPLETE: " + joined(s.GetIncompleteReasons())
}

// ecosystems counts by type of package URL, the most first.
func ecosystems(byType map[string]int32) string {
	types := slices.SortedFunc(maps.Keys(byType), func(a, b string) int {
		if c := cmp.Compare(byType[b], byType[a]); c != 0 {
			return c
		}
		return cmp.Compare(typeWord(a), typeWord(b))
	})
	words := make([]string, len(types))
	for i, typ := range types {
		words[i] = fmt.Sprintf("%d %s", byType[typ], typeWord(typ))
	}
	return joined(words)
}

func typeWord(typ string) string { return cmp.Or(typ, "without package URL") }

func licenseText(licenses []string) string {
	switch len(licenses) {
	case 0:
		return "no licence stated"
	case 1:
		return "licence " + few(licenses)
	}
	return "licences " + few(licenses)
}

// few names the first of a list, and counts the others.
func few(words []string) string {
	shown := make([]string, 0, shownLicenses)
	for _, w := range words[:min(len(words), shownLicenses)] {
		shown = append(shown, clip(clean(w), 40))
	}
	text := strings.Join(shown, ", ")
	if more := len(words) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// sbomMarkdown is the same as a table.
func sbomMarkdown(sboms []*assayv1.SBOMSummary) string {
	if len(sboms) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n| SBOM of | Components | Licences | Complete |\n|---|---|---|---|\n")
	for i, s := range sboms {
		if i == maxSummaryRows {
			fmt.Fprintf(&b, "| %s | | | |\n", text(moreSBOMs(sboms[i:])))
			break
		}
		components := fmt.Sprint(s.GetComponentCount())
		if types := ecosystems(s.GetComponentsByType()); types != "" {
			components += ": " + types
		}
		complete := completeness(s)
		if nothingRecognised(s) {
			complete = "nothing was recognised"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(s.GetSubject().GetName()), text(components), text(few(s.GetLicenses())), text(complete))
	}
	return b.String()
}

type sbomJSON struct {
	AttestationID     string           `json:"attestation_id"`
	Subject           subjectJSON      `json:"subject"`
	Origin            string           `json:"origin"`
	Format            string           `json:"format,omitempty"`
	ComponentCount    int32            `json:"component_count"`
	ComponentsByType  map[string]int32 `json:"components_by_type,omitempty"`
	Licenses          []string         `json:"licenses,omitempty"`
	Complete          bool             `json:"complete"`
	IncompleteReasons []string         `json:"incomplete_reasons,omitempty"`
}

func sbomsOutput(sboms []*assayv1.SBOMSummary) []sbomJSON {
	var out []sbomJSON
	for _, s := range sboms {
		out = append(out, sbomJSON{
			AttestationID: s.GetAttestationId(), Subject: subjectOutput(s.GetSubject()), Origin: sbomOrigin(s.GetOrigin()), Format: s.GetFormat(),
			ComponentCount: s.GetComponentCount(), ComponentsByType: s.GetComponentsByType(), Licenses: s.GetLicenses(),
			Complete: s.GetComplete(), IncompleteReasons: s.GetIncompleteReasons(),
		})
	}
	return out
}

// sbomOrigin is "generated" or "claimed".
func sbomOrigin(o assayv1.SBOMOrigin) string { return enumWord(o.String(), "SBOM_ORIGIN_") }
