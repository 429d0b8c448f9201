package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/assay-build/assay/client"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// maxSummaryRows keeps a summary far below GitHub's limit of 1 MiB a step.
const maxSummaryRows = 200

// summarise appends Markdown to $GITHUB_STEP_SUMMARY, where that is set. It is an
// extra: a failure is told and changes nothing.
func (a *app) summarise(markdown string) {
	path := a.env("GITHUB_STEP_SUMMARY")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(markdown)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		a.message("no step summary: %v", err)
	}
}

func attestSummary(server string, result *client.Attested) string {
	at := result.Attestation
	var b strings.Builder
	b.WriteString("### Assay: attested\n\n| Artifact | SHA-256 |\n|---|---|\n")
	for i, s := range at.GetSubjects() {
		if i == maxSummaryRows {
			fmt.Fprintf(&b, "| and %d more | |\n", len(at.GetSubjects())-i)
			break
		}
		fmt.Fprintf(&b, "| %s | %s |\n", code(s.GetName()), code(s.GetDigest()["sha256"]))
	}
	b.WriteString(sbomMarkdown(result.SBOMs))
	lowered := ""
	if len(at.GetDowngrades()) > 0 {
		lowered = ", lowered by " + code(joined(at.GetDowngrades()))
	}
	fmt.Fprintf(&b, "\nBuilder %s, SLSA Build level %d%s. Source %s. Attestation %s, log index %d, on %s.\n\n",
		code(at.GetBuilderId()), at.GetSlsaBuildLevel(), lowered, code(at.GetSourceUri()), code(at.GetAttestationId()), at.GetLogIndex(), code(server))
	return b.String()
}

func verifySummary(server, environment string, labels []string, verdict *client.Verdict) string {
	word := "denied"
	if verdict.Allowed() {
		word = "allowed"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "### Assay: %s for %s\n\n| | Artifact | SHA-256 | Reason |\n|---|---|---|---|\n", word, code(environment))
	for i, d := range verdict.Decisions() {
		if i == maxSummaryRows {
			fmt.Fprintf(&b, "| | and %d more | | |\n", len(labels)-i)
			break
		}
		mark := "❌"
		if allowed(d) {
			mark = "✅"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", mark, code(labels[i]), code(d.GetSubject().GetDigest()["sha256"]), code(d.GetReason()))
	}
	unmet := 0
	for i, d := range verdict.Decisions() {
		for _, r := range d.GetRules() {
			if allowed(d) || r.GetSatisfied() || unmet == maxSummaryRows {
				continue
			}
			unmet++
			b.WriteString(unmetRule(labels[i], r))
		}
	}
	fmt.Fprintf(&b, "\nDecided by %s.\n\n", code(server))
	return b.String()
}

func unmetRule(label string, r *assayv1.RuleResult) string {
	var b strings.Builder
	if label != "" {
		label = code(label) + ": "
	}
	fmt.Fprintf(&b, "\n%srule %s: %s\n", label, code(r.GetRuleId()), text(r.GetMessage()))
	for _, line := range [][2]string{{"expected", r.GetExpected()}, {"found", r.GetFound()}, {"error", r.GetError()}} {
		if line[1] != "" {
			fmt.Fprintf(&b, "- %s: %s\n", line[0], code(line[1]))
		}
	}
	if r.GetRemedy() != "" {
		fmt.Fprintf(&b, "- remedy: %s\n", text(r.GetRemedy()))
	}
	return b.String()
}

// code sets text from outside as code.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "<code>" + text(s) + "</code>"
}

// text makes text from outside mean nothing to Markdown or HTML. Every ASCII
// character that could is written as a numeric reference, which CommonMark never
// reads as structure.
func text(s string) string {
	var b strings.Builder
	for _, r := range clean(s) {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == ' ', r > 0x7f:
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "&#%d;", r)
		}
	}
	return b.String()
}
