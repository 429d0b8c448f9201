package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/sbom"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// contents is what the components of a document come to.
type contents struct {
	rows     [][3]string // package, version, licence; sorted, each once
	count    int
	byType   map[string]int32
	licenses []string
}

func readContents(document []byte) (*contents, error) {
	c := &contents{byType: make(map[string]int32)}
	seen := make(map[string]bool)
	var expressions []string
	_, err := sbom.Read(bytes.NewReader(document), func(component sbom.Component) error {
		c.count++
		name, typ := component.Name, ""
		if p, err := sbom.ParsePURL(component.PURL); err == nil {
			name, typ = p.WithoutVersion(), p.Type
		} else if component.Group != "" {
			name = component.Group + "/" + name
		}
		c.byType[typ]++
		for _, l := range component.Licenses {
			if !seen[l] {
				seen[l] = true
				expressions = append(expressions, l)
			}
		}
		c.rows = append(c.rows, [3]string{name, component.Version, strings.Join(component.Licenses, ", ")})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the SBOM: %w", err)
	}
	c.licenses = sbom.LicenseIDs(expressions)
	slices.SortFunc(c.rows, func(a, b [3]string) int {
		return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1]), cmp.Compare(a[2], b[2]))
	})
	c.rows = slices.Compact(c.rows)
	return c, nil
}

// sbomTable begins with what is missing: a list of packages looks complete.
func sbomTable(s *client.SBOM) ([]byte, error) {
	c, err := readContents(s.Document)
	if err != nil {
		return nil, err
	}
	// A page of its own: it may go to a file.
	a := &app{}
	if !s.Complete() {
		a.print("NOT COMPLETE: %s\n", clean(missing(s)))
		for _, line := range details(s) {
			a.print("  %s\n", clean(line))
		}
	}
	parts, err := attest.ParseOwnBundle(s.Attestation.GetBundle())
	if err != nil {
		return nil, err
	}
	t := a.table()
	for _, subject := range s.Attestation.GetSubjects() {
		t.row("artifact", clean(subject.GetName()+"  sha256:"+subject.GetDigest()["sha256"]))
	}
	if s.Complete() {
		t.row("complete", completeWord(s))
	}
	sbomFacts(t, s, c)
	t.row("attestation", clean(s.Attestation.GetAttestationId()))
	t.row("signed at", signedAt(s.Attestation, &parts.LogEntry))
	t.flush()
	if len(c.rows) > 0 {
		a.print("\n")
		t = a.table()
		t.row("PACKAGE", "VERSION", "LICENCE")
		for _, row := range c.rows {
			t.row(clean(row[0]), cmp.Or(clean(row[1]), "-"), cmp.Or(clip(clean(row[2]), 60), "-"))
		}
		t.flush()
	}
	return a.out.Bytes(), nil
}

// sbomFacts is what table and show have in common.
func sbomFacts(t *table, s *client.SBOM, c *contents) {
	t.row("format", clean(formatName(s)))
	if s.Origin == assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED {
		t.row("origin", "generated: made by the server from the bytes")
		t.row("provenance", clean(s.Provenance))
	} else {
		t.row("origin", "CLAIMED: attached, and not checked against the bytes")
		t.row("attached by", clean(s.AttachedBy))
	}
	text := fmt.Sprint(c.count)
	if types := ecosystems(c.byType); types != "" {
		text += ": " + types
	}
	t.row("components", text)
	t.row("licences", few(c.licenses))
}

func formatName(s *client.SBOM) string {
	if s.Format == sbom.FormatSPDX {
		return "SPDX " + s.SpecVersion
	}
	return "CycloneDX " + s.SpecVersion
}

func completeWord(s *client.SBOM) string {
	if s.Origin == assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED {
		return "yes"
	}
	return "yes, by its own word"
}

// maxDetails is how many places are listed that could not be read.
const maxDetails = 10

// details are the lines that the server wrote about what it could not read.
func details(s *client.SBOM) []string {
	if s.Format != sbom.FormatCycloneDX {
		return nil
	}
	var doc struct {
		Metadata struct {
			Properties []struct {
				Name  string `json:"name"`
				Value string `json:"value"`
			} `json:"properties"`
		} `json:"metadata"`
	}
	if json.Unmarshal(s.Document, &doc) != nil {
		return nil // It was read before; without the details then.
	}
	var lines []string
	for _, p := range doc.Metadata.Properties {
		if p.Name == "assay:scan:incomplete" && !strings.HasPrefix(p.Value, reasonOpaque+":") {
			lines = append(lines, clip(p.Value, 200))
		}
	}
	if more := len(lines) - maxDetails; more > 0 {
		lines = append(lines[:maxDetails], fmt.Sprintf("and %d more", more))
	}
	return lines
}
