package sbom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeArtifactInvalid: an SBOM is asked for of something that its digest does not name.
const CodeArtifactInvalid refusal.Code = "SBOM_ARTIFACT_INVALID"

// Artifact is what was scanned. The document names it by its digests, which is what
// binds it to the bytes.
type Artifact struct {
	Name   string // the base name is what the document says
	SHA256 string // lower-case hex
	SHA512 string // lower-case hex, or ""
	Size   int64
}

// Tool is the program that made the document.
type Tool struct{ Name, Version string }

// The composition of a document, in the words of CycloneDX.
const (
	AggregateComplete   = "complete"
	AggregateIncomplete = "incomplete"
	AggregateUnknown    = "unknown"
)

// Names of the properties of a document's metadata.
const (
	propertyFormat     = "assay:scan:format"
	propertyFiles      = "assay:scan:files"
	propertyIncomplete = "assay:scan:incomplete"
)

const (
	// scalibrModule is the library whose extractors find most packages.
	scalibrModule = "github.com/google/osv-scalibr"
	// blankSerial stands in the document while its serial number is computed.
	blankSerial = "urn:uuid:00000000-0000-8000-8000-000000000000"
)

// Encode makes the CycloneDX 1.6 document of an inventory. The same arguments give the
// same bytes.
//
// There is no timestamp for that reason, though CycloneDX recommends one: an SBOM says
// what is in the bytes, and that does not change. The time is in the signature over it,
// from an authority and not from whoever wrote the document. The serial number is a
// UUID (version 8) of the SHA-256 of the document with that number blank.
func Encode(a Artifact, inv *Inventory, tool Tool) ([]byte, error) {
	if !(Hash{"SHA-256", a.SHA256}).valid() || a.SHA512 != "" && !(Hash{"SHA-512", a.SHA512}).valid() {
		return nil, refusal.New(CodeArtifactInvalid, "sha256 %.80q or sha512 %.140q is no lower-case hex digest", a.SHA256, a.SHA512)
	}
	if err := inv.Validate(); err != nil {
		return nil, err
	}
	root := "artifact:sha256:" + a.SHA256
	bom := &cdx.BOM{
		BOMFormat: cdx.BOMFormat, SpecVersion: cdx.SpecVersion1_6, SerialNumber: blankSerial, Version: 1,
		Metadata:     metadata(a, inv, tool, root),
		Components:   encodeComponents(inv),
		Dependencies: encodeDependencies(inv, root),
		Compositions: &[]cdx.Composition{{
			Aggregate:  cdx.CompositionAggregate(inv.aggregate()),
			Assemblies: &[]cdx.BOMReference{cdx.BOMReference(root)},
		}},
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // package URLs and licences hold "&" and ">"
	if err := enc.Encode(bom); err != nil {
		return nil, err
	}
	doc := bytes.TrimSuffix(out.Bytes(), []byte("\n"))
	setSerial(doc)
	return doc, nil
}

// setSerial replaces the blank serial number, in place. The first occurrence is the
// right one: only the format and its version stand before it.
func setSerial(doc []byte) {
	serial := uuidURN(sha256.Sum256(doc))
	if at := bytes.Index(doc, []byte(blankSerial)); at >= 0 {
		copy(doc[at:], serial)
	}
}

// uuidURN makes a UUID of version 8 (RFC 9562) of a digest.
func uuidURN(id [sha256.Size]byte) string {
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	h := hex.EncodeToString(id[:16])
	return "urn:uuid:" + strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// aggregate: unknown where nothing was found, since nobody can tell that from nothing
// being there.
func (inv *Inventory) aggregate() string {
	switch {
	case len(inv.Components) == 0:
		return AggregateUnknown
	case inv.Complete():
		return AggregateComplete
	}
	return AggregateIncomplete
}

func metadata(a Artifact, inv *Inventory, tool Tool, root string) *cdx.Metadata {
	hashes := []cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: a.SHA256}}
	if a.SHA512 != "" {
		hashes = append(hashes, cdx.Hash{Algorithm: cdx.HashAlgoSHA512, Value: a.SHA512})
	}
	properties := []cdx.Property{{Name: propertyFiles, Value: strconv.Itoa(inv.Files)}}
	if inv.Format != "" {
		properties = append(properties, cdx.Property{Name: propertyFormat, Value: inv.Format})
	}
	for _, r := range inv.Incomplete {
		properties = append(properties, cdx.Property{Name: propertyIncomplete, Value: r.String()})
	}
	return &cdx.Metadata{
		Lifecycles: &[]cdx.Lifecycle{{Phase: cdx.LifecyclePhasePostBuild}},
		Tools: &cdx.ToolsChoice{Components: &[]cdx.Component{
			{Type: cdx.ComponentTypeApplication, Name: cmp.Or(cleanText(tool.Name), "assay"), Version: cleanText(tool.Version)},
			{Type: cdx.ComponentTypeLibrary, Name: "osv-scalibr", Version: scalibrVersion(), PackageURL: scalibrPURL()},
		}},
		Component: &cdx.Component{
			BOMRef: root, Type: artifactType(inv.Format), Name: artifactName(a.Name), Hashes: &hashes,
		},
		Properties: &properties,
	}
}

// String is one line: the code, where, and what.
func (r Reason) String() string {
	s := string(r.Code)
	if r.Path != "" {
		s += " " + r.Path
	}
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	return s
}

func artifactName(name string) string {
	base := cleanText(path.Base(strings.TrimSuffix(name, "/")))
	if base == "" || base == "." || base == "/" {
		return "artifact"
	}
	return base
}

func artifactType(format string) cdx.ComponentType {
	switch {
	case format == "oci-layout", format == "docker-archive":
		return cdx.ComponentTypeContainer
	case strings.HasSuffix(format, "-binary"), format == "elf", format == "pe", format == "mach-o":
		return cdx.ComponentTypeApplication
	}
	return cdx.ComponentTypeFile
}

// scalibrVersion is that of the library in this program.
var scalibrVersion = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == scalibrModule {
			return m.Version
		}
	}
	return ""
})

func scalibrPURL() string {
	purl, err := NewPURL("golang", "", scalibrModule, scalibrVersion())
	if err != nil {
		return ""
	}
	return purl
}

func encodeComponents(inv *Inventory) *[]cdx.Component {
	out := make([]cdx.Component, len(inv.Components))
	for i := range inv.Components {
		c := &inv.Components[i]
		out[i] = cdx.Component{
			BOMRef: c.ref(), Type: cdx.ComponentType(cmp.Or(c.Type, "library")), Group: c.Group, Name: c.Name,
			Version: c.Version, Scope: cdx.Scope(c.Scope), PackageURL: c.PURL,
			Hashes: encodeHashes(c.Hashes), Licenses: encodeLicenses(c.Licenses), Evidence: encodeLocations(c.Locations),
		}
	}
	return &out
}

// ref names a component in the document: by its package URL, or where it has none, by
// what tells it from others.
func (c *Component) ref() string {
	if c.PURL != "" {
		return c.PURL
	}
	id := sha256.Sum256([]byte(strings.Join([]string{c.Type, c.Group, c.Name, c.Version}, "\x00")))
	return "component:" + hex.EncodeToString(id[:16])
}

func encodeHashes(hashes []Hash) *[]cdx.Hash {
	if len(hashes) == 0 {
		return nil
	}
	out := make([]cdx.Hash, len(hashes))
	for i, h := range hashes {
		out[i] = cdx.Hash{Algorithm: cdx.HashAlgorithm(h.Algorithm), Value: h.Value}
	}
	return &out
}

func encodeLocations(locations []string) *cdx.Evidence {
	if len(locations) == 0 {
		return nil
	}
	out := make([]cdx.EvidenceOccurrence, len(locations))
	for i, l := range locations {
		out[i].Location = l
	}
	return &cdx.Evidence{Occurrences: &out}
}

// encodeLicenses: CycloneDX allows a list of licences or one expression, and never both
// (licenseChoice of bom-1.6.schema.json). So expressions are joined where all are, and
// otherwise stand as names.
func encodeLicenses(licenses []string) *cdx.Licenses {
	if len(licenses) == 0 {
		return nil
	}
	if joined, ok := joinLicenses(licenses); ok {
		declared := cdx.LicenseAcknowledgementDeclared
		return &cdx.Licenses{{Expression: joined, Acknowledgement: &declared}}
	}
	out := make(cdx.Licenses, len(licenses))
	for i, l := range licenses {
		one := &cdx.License{Name: l, Acknowledgement: cdx.LicenseAcknowledgementDeclared}
		if isLicenseID(l) {
			one.ID, one.Name = l, ""
		}
		out[i].License = one
	}
	return &out
}

// joinLicenses makes one expression of several that all apply; false where a list of
// plain identifiers says it better, or some are no expressions.
func joinLicenses(licenses []string) (string, bool) {
	compound := false
	parts := make([]string, len(licenses))
	for i, l := range licenses {
		parts[i] = l
		if isLicenseID(l) {
			continue
		}
		n := parseExpression(l, exactAtom)
		if n == nil {
			return "", false
		}
		compound = true
		if n.op == opOr && len(licenses) > 1 {
			parts[i] = "(" + l + ")"
		}
	}
	return strings.Join(parts, " AND "), compound
}

func encodeDependencies(inv *Inventory, root string) *[]cdx.Dependency {
	out := make([]cdx.Dependency, 0, len(inv.Components)+1)
	add := func(ref string, to []string) {
		d := cdx.Dependency{Ref: ref}
		if len(to) > 0 {
			d.Dependencies = &to
		}
		out = append(out, d)
	}
	add(root, inv.Root)
	for i := range inv.Components {
		c := &inv.Components[i]
		add(c.ref(), c.DependsOn)
	}
	return &out
}
