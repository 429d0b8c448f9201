package sbom

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeDocumentInvalid: a document is no CycloneDX or SPDX JSON that components can be
// read from.
const CodeDocumentInvalid refusal.Code = "SBOM_DOCUMENT_INVALID"

// Formats of documents.
const (
	FormatCycloneDX = "cyclonedx"
	FormatSPDX      = "spdx"
)

const (
	// maxDocumentBytes bounds what Read reads; documents are bounded before they are
	// kept, so this only ends an endless one.
	maxDocumentBytes = 256 << 20
	// maxNesting bounds components in components.
	maxNesting = 64
)

// Header is what a document says of itself.
type Header struct {
	// Format is FormatCycloneDX or FormatSPDX.
	Format      string
	SpecVersion string // "1.6", "2.3"
	// Serial is the serial number of CycloneDX, or the namespace of SPDX.
	Serial string
	// Name and Hashes are of what the document is about: metadata.component, or the one
	// package that the document describes.
	Name   string
	Hashes []Hash
	// Aggregate is what the document claims of its own completeness, in the words of
	// CycloneDX; AggregateUnknown where it claims nothing.
	Aggregate string
	// ArtifactFormat and Incomplete are what a scan of ours recorded: what the artifact
	// was recognised as, and the codes of why something may be missing.
	ArtifactFormat string
	Incomplete     []string
}

// Read calls f for each component of a document: CycloneDX JSON 1.4 to 1.7, or SPDX
// JSON 2.2 or 2.3. Components come in the form that Normalize gives, one after the
// other, with the same package as often as the document lists it, and without
// DependsOn. Memory does not grow with their number.
//
// It reads documents that were checked when they were accepted. Of what a document may
// hold beside the components it takes no notice, but a package URL that is none, or a
// component without a name, ends it. An error of f is returned as it is.
//
// SPDX names what it is about at its end, so an SPDX document is read twice: in is
// rewound where it can be, and kept in memory where it cannot.
func Read(in io.Reader, f func(Component) error) (Header, error) {
	var again func() (io.Reader, error)
	var kept *recorder
	if seeker, ok := in.(io.ReadSeeker); ok {
		start, err := seeker.Seek(0, io.SeekCurrent)
		if err != nil {
			return Header{}, err
		}
		again = func() (io.Reader, error) {
			_, err := seeker.Seek(start, io.SeekStart)
			return seeker, err
		}
	} else {
		kept = &recorder{in: in}
		in = kept
	}
	r := &cycloneDX{document: newDocument(in), component: func(_ string, c Component) error { return f(c) }, kept: kept}
	h, err := r.read()
	if !errors.Is(err, errIsSPDX) {
		return h, err
	}
	if kept != nil {
		data, err := kept.all()
		if err != nil {
			return Header{}, err
		}
		again = func() (io.Reader, error) { return bytes.NewReader(data), nil }
	}
	return readSPDX(again, f)
}

// recorder keeps what was read of an unknown document until its format is known.
type recorder struct {
	in   io.Reader
	kept bytes.Buffer
	off  bool
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	if !r.off {
		r.kept.Write(p[:n])
	}
	return n, err
}

func (r *recorder) stop() {
	if r != nil && !r.off {
		r.off, r.kept = true, bytes.Buffer{}
	}
}

// all is the whole document.
func (r *recorder) all() ([]byte, error) {
	_, err := io.Copy(&r.kept, &boundedReader{in: r.in, left: maxDocumentBytes})
	return r.kept.Bytes(), err
}

// document walks one JSON text.
type document struct {
	dec      *jsontext.Decoder
	licenses licenseMemo
}

func newDocument(in io.Reader) *document {
	return &document{
		dec:      jsontext.NewDecoder(&boundedReader{in: in, left: maxDocumentBytes}),
		licenses: licenseMemo{},
	}
}

// boundedReader fails where a LimitReader would pretend that the text ends.
type boundedReader struct {
	in   io.Reader
	left int64
}

func (r *boundedReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, refusal.New(CodeDocumentInvalid, "more than %d bytes", maxDocumentBytes)
	}
	n, err := r.in.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

// end checks that nothing follows.
func (d *document) end() error {
	if _, err := d.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return refusal.New(CodeDocumentInvalid, "data after the JSON value, at offset %d", d.dec.InputOffset())
	}
	return nil
}

// object calls f for each member, which must read the value. null has no members.
func (d *document) object(f func(name string) error) error {
	if opened, err := d.open('{'); !opened {
		return err
	}
	for d.dec.PeekKind() != '}' {
		name, err := d.dec.ReadToken()
		if err != nil {
			return d.broken(err)
		}
		if err := f(name.String()); err != nil {
			return err
		}
	}
	_, err := d.dec.ReadToken()
	return d.broken(err)
}

// array calls f for each element, which must read it. null has no elements.
func (d *document) array(f func() error) error {
	if opened, err := d.open('['); !opened {
		return err
	}
	for d.dec.PeekKind() != ']' {
		if err := d.broken(d.peekError()); err != nil {
			return err
		}
		if err := f(); err != nil {
			return err
		}
	}
	_, err := d.dec.ReadToken()
	return d.broken(err)
}

// peekError is the error that PeekKind saw, if any: without it a broken text would be
// an endless array.
func (d *document) peekError() error {
	if d.dec.PeekKind() == jsontext.KindInvalid {
		_, err := d.dec.ReadToken()
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

func (d *document) open(kind jsontext.Kind) (bool, error) {
	switch d.dec.PeekKind() {
	case 'n':
		return false, d.skip()
	case kind:
		_, err := d.dec.ReadToken()
		return err == nil, d.broken(err)
	}
	if err := d.peekError(); err != nil {
		return false, d.broken(err)
	}
	return false, refusal.New(CodeDocumentInvalid, "%.200q is not what the format says", string(d.dec.StackPointer()))
}

// text reads a string into to; null leaves it.
func (d *document) text(to *string) error {
	if d.dec.PeekKind() == 'n' {
		return d.skip()
	}
	token, err := d.dec.ReadToken()
	if err != nil {
		return d.broken(err)
	}
	if token.Kind() != '"' {
		return refusal.New(CodeDocumentInvalid, "%.200q is no string", string(d.dec.StackPointer()))
	}
	*to = token.String()
	return nil
}

func (d *document) skip() error { return d.broken(d.dec.SkipValue()) }

// broken makes a refusal of an error of the decoder.
func (d *document) broken(err error) error {
	var refused *refusal.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return refused
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return refusal.New(CodeDocumentInvalid, "the text ends inside the JSON value")
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return refusal.New(CodeDocumentInvalid, "%s", oneLine(err.Error(), maxDetailBytes))
	}
	return err // of the reader
}

// finish brings a component into its form, and refuses one that names nothing.
func (d *document) finish(c *Component) error {
	if c.PURL != "" {
		p, err := ParsePURL(c.PURL)
		if err != nil {
			return err
		}
		c.PURL = p.String()
	}
	c.Licenses = d.licenses.clean(c.Licenses)
	c.clean()
	if c.Name == "" {
		return refusal.New(CodeDocumentInvalid, "%.200q: a component without a name", string(d.dec.StackPointer()))
	}
	return nil
}

// incompleteCodes are the known codes among the properties, in order, each once.
func incompleteCodes(lines []string) []string {
	var codes []string
	for _, line := range lines {
		code := line
		if i := strings.IndexAny(line, " :"); i >= 0 {
			code = line[:i]
		}
		if ReasonCode(code).known() {
			codes = append(codes, code)
		}
	}
	return sortUnique(slices.Clip(codes))
}
