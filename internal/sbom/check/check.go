package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
)

// The predicate types. "/v1.6" or "/v2.3" may follow, and is then the document's version.
const (
	predicateCycloneDX = attest.PredicateCycloneDX
	predicateSPDX      = "https://spdx.dev/Document"
)

// Want is what the document is attached as.
type Want struct {
	PredicateType string `json:"predicateType"`
	// SHA256 and SHA512 are the subject's, in lower-case hex; "" where not known.
	SHA256 string `json:"sha256,omitempty"`
	SHA512 string `json:"sha512,omitempty"`
}

// Report says what the document is.
type Report struct {
	// Format is sbom.FormatCycloneDX or sbom.FormatSPDX.
	Format      string `json:"format"`
	SpecVersion string `json:"specVersion"`
	// Components counts the components or packages, nested ones and those without a
	// package URL included; services and the subject itself not.
	Components int `json:"components"`
	// SelfBound: the document states the subject's digest itself.
	SelfBound bool `json:"selfBound"`
	// Aggregate is what CycloneDX compositions say of the subject: "complete",
	// "incomplete", "unknown" and so on. "" where the document does not say how complete
	// it is, as SPDX cannot.
	Aggregate string `json:"aggregate,omitempty"`
}

// Check judges a document of size bytes by the rules of the package comment. The
// inventory is in the form of sbom.Inventory.Normalize. It is what the document claims:
// whether that is all is Report.Aggregate, not Inventory.Complete.
func Check(ctx context.Context, doc io.ReaderAt, size int64, w Want, l Limits) (*sbom.Inventory, *Report, error) {
	wantFormat, wantVersion, err := parsePredicateType(w.PredicateType)
	if err != nil {
		return nil, nil, err
	}
	if size > l.Bytes {
		return nil, nil, refusal.New(CodeSBOMTooLarge, "%d bytes; at most %d are accepted", size, l.Bytes)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(doc, 0, size), data); err != nil {
		return nil, nil, fmt.Errorf("read the document: %w", err)
	}
	if err := sniff(data); err != nil {
		return nil, nil, err
	}
	if err := measure(data, l); err != nil {
		return nil, nil, err
	}
	if err := attest.CheckJSON(data, len(data)); err != nil {
		return nil, nil, err
	}
	format, version, err := identify(data)
	if err != nil {
		return nil, nil, err
	}
	if format != wantFormat || wantVersion != "" && version != wantVersion {
		return nil, nil, refusal.New(CodeSBOMFormatUnsupported, "the document is %s %s; the predicate type is %.100q",
			format, version, w.PredicateType)
	}
	root, err := schemaOf(format, version)
	if err != nil {
		return nil, nil, err
	}
	return read(ctx, data, root, collectorFor(format, w, l), &Report{Format: format, SpecVersion: version}, l)
}

// collector makes an inventory of the pieces of a document.
type collector interface {
	// piece is given each piece once it is known to be valid, inner ones first.
	piece(kind string, v any, at *path) error
	// finish is called after the last piece.
	finish(report *Report) (*sbom.Inventory, error)
}

func collectorFor(format string, w Want, l Limits) collector {
	if format == sbom.FormatSPDX {
		return newSPDXCollector(w, l)
	}
	return newCycloneDXCollector(w)
}

func read(ctx context.Context, data []byte, root *piece, c collector, report *Report, l Limits) (*sbom.Inventory, *Report, error) {
	if err := newReader(ctx, data, l, c.piece).document(root); err != nil {
		return nil, nil, err
	}
	inv, err := c.finish(report)
	if err != nil {
		return nil, nil, err
	}
	if err := readable(ctx, data); err != nil {
		return nil, nil, err
	}
	inv.Format = report.Format + " " + report.SpecVersion
	inv.Bytes = int64(len(data))
	inv.Normalize()
	return inv, report, nil
}

// readable refuses a document that sbom.Read would not read: what is accepted is read by
// it at every later use, and one that it refuses would speak against its artifact for
// ever. A schema allows a name of a space, for instance, which names nothing.
func readable(ctx context.Context, data []byte) error {
	_, err := sbom.Read(bytes.NewReader(data), func(sbom.Component) error { return ctx.Err() })
	if r, ok := errors.AsType[*refusal.Error](err); ok {
		return refusal.New(CodeSBOMInvalid, "%s", r.Detail).InField(r.Field)
	}
	return err
}

func parsePredicateType(s string) (format, version string, err error) {
	for _, known := range [...][2]string{{predicateCycloneDX, sbom.FormatCycloneDX}, {predicateSPDX, sbom.FormatSPDX}} {
		rest, ok := strings.CutPrefix(s, known[0])
		if !ok {
			continue
		}
		if rest == "" {
			return known[1], "", nil
		}
		if version, ok := strings.CutPrefix(rest, "/v"); ok && version != "" {
			return known[1], version, nil
		}
	}
	return "", "", refusal.New(CodeSBOMFormatUnsupported, "predicate type %.200q; an SBOM has %s or %s",
		s, predicateCycloneDX, predicateSPDX)
}

// sniff refuses other formats by name, before a JSON parser calls them broken JSON.
func sniff(data []byte) error {
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return refusal.New(attest.CodeJSONInvalid, "the text starts with a byte order mark")
	}
	start := bytes.TrimLeft(data, " \t\r\n")
	switch {
	case bytes.HasPrefix(start, []byte("{")):
		return nil
	case bytes.HasPrefix(start, []byte("<")):
		return refusal.New(CodeSBOMFormatUnsupported, "the document is XML; SBOMs are accepted as JSON")
	}
	return refusal.New(CodeSBOMFormatUnsupported, "the document is no JSON object; SBOMs are accepted as JSON")
}

// measure refuses what would cost the JSON parser too much: more values than the limit,
// or objects of very many members. It looks at punctuation alone, which up to the first
// error in the text is what the parser sees.
func measure(data []byte, l Limits) error {
	var members [attest.MaxDepth + 1]int // of each object or array that is open
	depth, values := 0, 1
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			if depth++; depth == len(members) {
				return nil // too deep for the parser
			}
			members[depth] = 0
		case '}', ']':
			if depth--; depth < 0 {
				return nil
			}
		case ',':
			values++
		case ':':
			if members[depth]++; members[depth] > maxMembers {
				return refusal.New(CodeSBOMTooLarge, "more than %d members in one object, at offset %d", maxMembers, i)
			}
		}
	}
	if values > l.Values {
		return refusal.New(CodeSBOMTooLarge, "more than %d JSON values in the document", l.Values)
	}
	return nil
}

// identify reads which format and version an object says it has, and nothing else.
func identify(data []byte) (format, version string, err error) {
	top, err := topStrings(data, "bomFormat", "specVersion", "spdxVersion", "@context")
	if err != nil {
		return "", "", err
	}
	_, isBOM := top["bomFormat"]
	spdx, isSPDX := top["spdxVersion"]
	_, isGraph := top["@context"]
	switch {
	case isBOM:
		return sbom.FormatCycloneDX, top["specVersion"], known(sbom.FormatCycloneDX, top["specVersion"])
	case isSPDX:
		version := strings.TrimPrefix(spdx, "SPDX-")
		return sbom.FormatSPDX, version, known(sbom.FormatSPDX, version)
	case isGraph:
		return "", "", refusal.New(CodeSBOMVersionUnsupported, "the document is JSON-LD, as SPDX 3 is; %s", accepted)
	}
	return "", "", refusal.New(CodeSBOMFormatUnsupported, "the document has neither bomFormat nor spdxVersion; %s", accepted)
}

const accepted = "CycloneDX 1.4 to 1.7 and SPDX 2.2 and 2.3 are accepted"

func known(format, version string) error {
	if _, ok := schemas[format+" "+version]; !ok {
		return refusal.New(CodeSBOMVersionUnsupported, "%s version %.40q; %s", format, version, accepted)
	}
	return nil
}

// topStrings returns those of the named members of an object that are there: their
// text, or "" where they are no strings.
func topStrings(data []byte, names ...string) (map[string]string, error) {
	dec := newDecoder(data)
	if _, err := dec.ReadToken(); err != nil {
		return nil, broken(err)
	}
	found := map[string]string{}
	for dec.PeekKind() != '}' && len(found) < len(names) {
		tok, err := dec.ReadToken()
		if err != nil {
			return nil, broken(err)
		}
		name := tok.String()
		wanted := false
		for _, n := range names {
			wanted = wanted || n == name
		}
		if !wanted || dec.PeekKind() != '"' {
			if wanted {
				found[name] = ""
			}
			if err := dec.SkipValue(); err != nil {
				return nil, broken(err)
			}
			continue
		}
		if tok, err = dec.ReadToken(); err != nil {
			return nil, broken(err)
		}
		found[name] = tok.String()
	}
	return found, nil
}

// newDecoder reads a text that attest.CheckJSON has accepted, and so need not look for
// duplicate names again. A *bytes.Buffer is read in place.
func newDecoder(data []byte) *jsontext.Decoder {
	return jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true))
}

// broken wraps what cannot be after attest.CheckJSON.
func broken(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return refusal.New(attest.CodeJSONInvalid, "%w", err)
}
