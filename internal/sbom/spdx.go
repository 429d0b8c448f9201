package sbom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	spdxDocumentID = "SPDXRef-DOCUMENT"
	spdxArtifactID = "SPDXRef-Artifact"
	noAssertion    = "NOASSERTION"
	// textRefPrefix is of references to licences that a package states in words.
	textRefPrefix = "LicenseRef-assay-text-"
	// spdxListVersion is the release of the licence list in spdxLicenses.
	spdxListVersion = "3.28"
)

// WriteSPDX renders a CycloneDX document of ours as SPDX 2.3 JSON. Given the same
// document and time it writes the same bytes. SPDX demands a time of creation; that of
// the signature over the document is a good one.
//
// What SPDX has no place for is left out: the scope of a component beside the kind of
// its relationship, and where it was found but as text.
func WriteSPDX(w io.Writer, doc []byte, created time.Time) error {
	s := &spdxWriter{
		enc:       jsontext.NewEncoder(w, jsontext.WithIndent("  ")),
		extracted: map[string]string{}, ids: map[string]bool{},
	}
	// The header of the source may stand anywhere in it, so it is read for itself.
	head := &cycloneDX{document: newDocument(bytes.NewReader(doc)), component: func(string, Component) error { return nil }}
	h, err := head.read()
	if err != nil {
		return err
	}
	// Ours have both; SPDX cannot do without.
	h.Name = cmp.Or(h.Name, "artifact")
	if h.Serial == "" {
		id := sha256.Sum256(doc)
		h.Serial = uuidURN(id)
	}
	if err := s.header(&h, created); err != nil {
		return err
	}
	if err := s.packages(doc, &h); err != nil {
		return err
	}
	if err := s.relationships(doc, head.rootRef); err != nil {
		return err
	}
	if err := s.licenses(); err != nil {
		return err
	}
	return s.enc.WriteToken(jsontext.EndObject)
}

type spdxWriter struct {
	enc       *jsontext.Encoder
	extracted map[string]string // LicenseRef → text
	ids       map[string]bool   // SPDXIDs written
	contained []string          // those of components that the artifact holds
}

type spdxCreation struct {
	Comment            string   `json:"comment,omitzero"`
	Created            string   `json:"created"`
	Creators           []string `json:"creators"`
	LicenseListVersion string   `json:"licenseListVersion"`
}

func (s *spdxWriter) header(h *Header, created time.Time) error {
	comment := "Rendered from the CycloneDX document " + h.Serial + "; composition: " + h.Aggregate
	if len(h.Incomplete) > 0 {
		comment += " (" + strings.Join(h.Incomplete, ", ") + ")"
	}
	if err := s.enc.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, member := range []struct {
		name  string
		value any
	}{
		{"spdxVersion", "SPDX-2.3"},
		{"dataLicense", "CC0-1.0"},
		{"SPDXID", spdxDocumentID},
		{"name", h.Name},
		{"documentNamespace", h.Serial},
		{"creationInfo", spdxCreation{
			Comment: comment, Created: created.UTC().Format("2006-01-02T15:04:05Z"),
			Creators: []string{"Tool: assay"}, LicenseListVersion: spdxListVersion,
		}},
	} {
		if err := s.member(member.name, member.value); err != nil {
			return err
		}
	}
	return nil
}

func (s *spdxWriter) member(name string, value any) error {
	if err := s.enc.WriteToken(jsontext.String(name)); err != nil {
		return err
	}
	return json.MarshalEncode(s.enc, value)
}

// list writes an array whose elements do not exist at one time.
func (s *spdxWriter) list(name string, elements func() error) error {
	if err := s.enc.WriteToken(jsontext.String(name)); err != nil {
		return err
	}
	if err := s.enc.WriteToken(jsontext.BeginArray); err != nil {
		return err
	}
	if err := elements(); err != nil {
		return err
	}
	return s.enc.WriteToken(jsontext.EndArray)
}

type spdxPackageOut struct {
	ID               string         `json:"SPDXID"`
	Name             string         `json:"name"`
	Version          string         `json:"versionInfo,omitzero"`
	DownloadLocation string         `json:"downloadLocation"`
	FilesAnalyzed    bool           `json:"filesAnalyzed"`
	LicenseConcluded string         `json:"licenseConcluded"`
	LicenseDeclared  string         `json:"licenseDeclared"`
	Copyright        string         `json:"copyrightText"`
	Purpose          string         `json:"primaryPackagePurpose,omitzero"`
	SourceInfo       string         `json:"sourceInfo,omitzero"`
	Checksums        []spdxChecksum `json:"checksums,omitzero"`
	ExternalRefs     []spdxRef      `json:"externalRefs,omitzero"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

func (s *spdxWriter) packages(doc []byte, h *Header) error {
	return s.list("packages", func() error {
		about := s.newPackage(spdxArtifactID, &Component{Name: h.Name, Hashes: h.Hashes, Type: "file"})
		if err := json.MarshalEncode(s.enc, about); err != nil {
			return err
		}
		r := &cycloneDX{document: newDocument(bytes.NewReader(doc))}
		r.component = func(ref string, c Component) error {
			if ref == "" {
				ref = c.ref()
			}
			id := spdxID(ref)
			if s.ids[id] {
				return nil // bom-refs are unique in what was checked; packages must be
			}
			s.ids[id] = true
			if c.Scope != "excluded" {
				s.contained = append(s.contained, id)
			}
			return json.MarshalEncode(s.enc, s.newPackage(id, &c))
		}
		_, err := r.read()
		return err
	})
}

// spdxID makes an identifier, of the few characters that SPDX allows, of any reference.
func spdxID(ref string) string {
	id := sha256.Sum256([]byte(ref))
	return "SPDXRef-Package-" + hex.EncodeToString(id[:16])
}

func (s *spdxWriter) newPackage(id string, c *Component) *spdxPackageOut {
	p := &spdxPackageOut{
		ID: id, Name: c.Name, Version: c.Version, DownloadLocation: noAssertion,
		LicenseConcluded: noAssertion, LicenseDeclared: s.declared(c.Licenses), Copyright: noAssertion,
		Purpose: spdxPurpose(c.Type),
	}
	for _, h := range c.Hashes {
		p.Checksums = append(p.Checksums, spdxChecksum{strings.ReplaceAll(h.Algorithm, "-", ""), h.Value})
	}
	if c.PURL != "" {
		p.ExternalRefs = []spdxRef{{"PACKAGE-MANAGER", "purl", c.PURL}}
	}
	if len(c.Locations) > 0 {
		p.SourceInfo = "found at " + strings.Join(c.Locations, ", ")
	}
	return p
}

func spdxPurpose(typ string) string {
	switch typ {
	case "":
		return "LIBRARY"
	case "application", "framework", "container", "operating-system", "device", "firmware", "file":
		return strings.ToUpper(typ)
	}
	return "OTHER"
}

// declared is one expression of all licences. What is none, and references, are defined
// in the document (SPDX 2.3, clause 10).
func (s *spdxWriter) declared(licenses []string) string {
	var nodes []*license
	for _, l := range licenses {
		n := parseExpression(l, exactAtom)
		if n == nil || strings.Contains(l, "DocumentRef-") {
			id := sha256.Sum256([]byte(l))
			n = &license{id: textRefPrefix + hex.EncodeToString(id[:8])}
			s.extracted[n.id] = l
		}
		for _, id := range n.ids(nil) {
			if _, ok := s.extracted[id]; !ok && strings.HasPrefix(id, "LicenseRef-") {
				s.extracted[id] = strings.TrimPrefix(id, "LicenseRef-")
			}
		}
		nodes = append(nodes, n)
	}
	if len(nodes) == 0 {
		return noAssertion
	}
	return combine(opAnd, nodes).String()
}

type spdxRelationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

func (s *spdxWriter) relationships(doc []byte, rootRef string) error {
	write := func(from, kind, to string) error {
		return json.MarshalEncode(s.enc, &spdxRelationship{from, kind, to})
	}
	return s.list("relationships", func() error {
		if err := write(spdxDocumentID, "DESCRIBES", spdxArtifactID); err != nil {
			return err
		}
		for _, id := range s.contained {
			if err := write(spdxArtifactID, "CONTAINS", id); err != nil {
				return err
			}
		}
		r := &cycloneDX{document: newDocument(bytes.NewReader(doc)), component: func(string, Component) error { return nil }}
		r.dependency = func(ref string, dependsOn []string) error {
			from := spdxID(ref)
			if ref == rootRef {
				from = spdxArtifactID
			} else if !s.ids[from] {
				return nil // a service, say
			}
			for _, to := range dependsOn {
				if id := spdxID(to); s.ids[id] {
					if err := write(from, "DEPENDS_ON", id); err != nil {
						return err
					}
				}
			}
			return nil
		}
		_, err := r.read()
		return err
	})
}

type spdxExtracted struct {
	ID   string `json:"licenseId"`
	Text string `json:"extractedText"`
	Name string `json:"name"`
}

func (s *spdxWriter) licenses() error {
	if len(s.extracted) == 0 {
		return nil
	}
	return s.list("hasExtractedLicensingInfos", func() error {
		for _, id := range slices.Sorted(maps.Keys(s.extracted)) {
			text := s.extracted[id]
			if err := json.MarshalEncode(s.enc, &spdxExtracted{id, text, oneLine(text, maxDetailBytes)}); err != nil {
				return err
			}
		}
		return nil
	})
}
