package check

import (
	"strings"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
)

// spdxCollector makes an inventory of the pieces of an SPDX 2 document.
type spdxCollector struct {
	want  Want
	inv   sbom.Inventory
	graph *graph
	// uses are references that have to lead somewhere, with where they stand.
	uses []use
	// documents are the other documents that this one declares: "DocumentRef-x".
	documents map[string]bool
	// bindings are what the checksums of packages and files say of the subject, where
	// they say anything.
	bindings  map[int32]binding
	described []int32
	// names counts the components that a package became: one per package URL.
	names    map[int32]int
	limit    int
	counts   map[string]int32
	packages int
}

type use struct {
	id       int32
	position int32
	list     string
}

// The identifier of the document itself.
const spdxDocument = "SPDXRef-DOCUMENT"

func newSPDXCollector(w Want, l Limits) *spdxCollector {
	c := &spdxCollector{want: w, graph: newGraph(), documents: map[string]bool{},
		bindings: map[int32]binding{}, counts: map[string]int32{}, names: map[int32]int{}, limit: l.Components}
	c.graph.define(spdxDocument)
	return c
}

func (c *spdxCollector) piece(kind string, v any, at *path) error {
	obj := object(v)
	switch kind {
	case "package":
		return c.pkg(obj, at)
	case "file":
		return c.file(obj, at)
	case "snippet":
		return c.snippet(obj, at)
	case "relationship":
		c.relationship(obj)
	case "element": // of documentDescribes
		id := c.use("documentDescribes", text(v))
		c.described = append(c.described, id)
		c.counts["documentDescribes"]++
	case "externalDocumentRef":
		c.documents[text(obj["externalDocumentId"])] = true
	}
	return nil
}

func (c *spdxCollector) pkg(obj map[string]any, at *path) error {
	id, err := c.element(obj, at)
	if err != nil {
		return err
	}
	comp := sbom.Component{
		Type:    purpose(text(obj["primaryPackagePurpose"])),
		Name:    text(obj["name"]),
		Version: text(obj["versionInfo"]),
	}
	for _, field := range [...]string{"licenseConcluded", "licenseDeclared"} {
		if s := text(obj[field]); s != "" && s != "NOASSERTION" && s != "NONE" {
			expr, _ := sbom.NormalizeLicense(s)
			comp.Licenses = append(comp.Licenses, expr)
		}
	}
	for _, sum := range array(obj["checksums"]) {
		comp.Hashes = append(comp.Hashes, sbom.Hash{
			Algorithm: hashName(text(object(sum)["algorithm"])), Value: strings.ToLower(text(object(sum)["checksumValue"])),
		})
	}
	purls, err := packageURLs(array(obj["externalRefs"]), at)
	if err != nil {
		return err
	}
	for _, ref := range array(obj["hasFiles"]) {
		c.use("packages", text(ref))
	}
	c.counts["packages"]++
	c.packages++
	c.graph.nodes[id].component = int32(len(c.inv.Components)) //nolint:gosec // at most Limits.Components
	if len(purls) == 0 {
		purls = []string{""}
	}
	if len(c.inv.Components)+len(purls) > c.limit {
		return refusal.New(CodeSBOMTooManyComponents, "more than %d package URLs", c.limit).InField(at.String())
	}
	// A package of several names is found by each; edges lead to the first.
	c.names[id] = len(purls)
	for _, purl := range purls {
		comp.PURL = purl
		c.inv.Components = append(c.inv.Components, comp)
	}
	return nil
}

// packageURLs reads the external references of type purl (SPDX 2.3, annex F.3.5).
func packageURLs(refs []any, at *path) ([]string, error) {
	var purls []string
	for i, ref := range refs {
		if text(object(ref)["referenceType"]) != "purl" {
			continue
		}
		purl, err := canonicalPURL(text(object(ref)["referenceLocator"]))
		if err != nil {
			at.push("externalRefs")
			at.pushIndex(i)
			at.push("referenceLocator")
			return nil, inField(err, at)
		}
		purls = append(purls, purl)
	}
	return purls, nil
}

func (c *spdxCollector) file(obj map[string]any, at *path) error {
	for _, ref := range array(obj["fileDependencies"]) {
		c.use("files", text(ref))
	}
	c.counts["files"]++
	_, err := c.element(obj, at)
	return err
}

func (c *spdxCollector) snippet(obj map[string]any, at *path) error {
	c.use("snippets", text(obj["snippetFromFile"]))
	for _, r := range array(obj["ranges"]) {
		for _, end := range [...]string{"startPointer", "endPointer"} {
			c.use("snippets", text(object(object(r)[end])["reference"]))
		}
	}
	c.counts["snippets"]++
	_, err := c.element(obj, at)
	return err
}

// element takes the identifier and the checksums of a package, file or snippet.
func (c *spdxCollector) element(obj map[string]any, at *path) (int32, error) {
	ref := text(obj["SPDXID"])
	if !c.graph.define(ref) {
		at.push("SPDXID")
		return 0, refusal.New(CodeSBOMReferenceDuplicate, "another element has the SPDXID %.200q", ref).InField(at.String())
	}
	id := c.graph.id(ref)
	for _, sum := range array(obj["checksums"]) {
		b := c.want.compare(text(object(sum)["algorithm"]), text(object(sum)["checksumValue"]))
		if b > c.bindings[id] { // one that differs counts, whatever the others say
			c.bindings[id] = b
		}
	}
	return id, nil
}

func (c *spdxCollector) relationship(obj map[string]any) {
	from, to := c.use("relationships", text(obj["spdxElementId"])), c.use("relationships", text(obj["relatedSpdxElement"]))
	position := c.counts["relationships"]
	c.counts["relationships"]++
	switch typ := text(obj["relationshipType"]); {
	case typ == "DESCRIBES" && c.graph.nodes[from].ref == spdxDocument:
		c.described = append(c.described, to)
	case typ == "DESCRIBED_BY" && c.graph.nodes[to].ref == spdxDocument:
		c.described = append(c.described, from)
	case typ == "DEPENDS_ON":
		c.graph.edges = append(c.graph.edges, edge{from, to, position})
	case strings.HasSuffix(typ, "DEPENDENCY_OF"):
		c.graph.edges = append(c.graph.edges, edge{to, from, position})
	}
}

// use notes a reference that stands in the element of a list which is read just now.
func (c *spdxCollector) use(list, ref string) int32 {
	id := c.graph.id(ref)
	if !c.graph.nodes[id].defined {
		c.uses = append(c.uses, use{id, c.counts[list], list})
	}
	return id
}

func (c *spdxCollector) finish(report *Report) (*sbom.Inventory, error) {
	if err := c.resolve(); err != nil {
		return nil, err
	}
	if err := c.bind(report); err != nil {
		return nil, err
	}
	report.Components = c.packages
	subject := int32(none)
	if subjects := c.subjects(); len(subjects) == 1 {
		subject = subjects[0]
	}
	c.graph.connect(&c.inv, subject)
	if subject != none && c.graph.nodes[subject].component != none {
		c.withdraw(subject)
		report.Components--
	}
	return &c.inv, nil
}

// resolve refuses references that lead nowhere.
func (c *spdxCollector) resolve() error {
	for _, u := range c.uses {
		n := c.graph.nodes[u.id]
		if n.defined || n.ref == "NONE" || n.ref == "NOASSERTION" {
			continue
		}
		if document, _, ok := strings.Cut(n.ref, ":"); ok && c.documents[document] {
			continue
		}
		at := path{}
		at.push(u.list)
		at.pushIndex(int(u.position))
		return refusal.New(CodeSBOMReferenceUnknown, "no element of the document has the SPDXID %.200q", n.ref).InField(at.String())
	}
	return nil
}

// bind checks the digests of what the document describes: of several things one has to
// be the subject.
func (c *spdxCollector) bind(report *Report) error {
	differs := int32(none)
	for _, id := range c.subjects() {
		switch c.bindings[id] {
		case same:
			report.SelfBound = true
			return nil
		case different:
			if differs == none {
				differs = id
			}
		}
	}
	if differs == none {
		return nil
	}
	return refusal.New(CodeSBOMSubjectMismatch, "the document describes %.200q, whose checksums are not the subject's",
		c.graph.nodes[differs].ref)
}

// subjects are the elements that the document describes, each once.
func (c *spdxCollector) subjects() []int32 {
	seen := map[int32]bool{}
	var ids []int32
	for _, id := range c.described {
		if !seen[id] && c.graph.nodes[id].ref != spdxDocument {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}

// withdraw takes the package that is the subject out of its own inventory.
func (c *spdxCollector) withdraw(subject int32) {
	at := int(c.graph.nodes[subject].component)
	end := at + c.names[subject]
	c.inv.Components = append(c.inv.Components[:at], c.inv.Components[end:]...)
}

// purpose translates a primaryPackagePurpose into a component type of CycloneDX.
func purpose(s string) string {
	switch s {
	case "APPLICATION", "CONTAINER", "DEVICE", "FILE", "FIRMWARE", "FRAMEWORK":
		return strings.ToLower(s)
	case "OPERATING_SYSTEM", "OPERATING-SYSTEM":
		return "operating-system"
	}
	return "library"
}

// hashName translates an algorithm's name into that of CycloneDX, where it has one.
func hashName(s string) string {
	switch s {
	case "SHA1", "SHA256", "SHA384", "SHA512":
		return "SHA-" + s[3:]
	}
	return s
}
