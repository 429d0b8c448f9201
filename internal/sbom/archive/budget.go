package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/assay-build/assay/internal/sbom"
)

// Budget is what one artifact may cost, and what was missed of it. It is shared by all
// trees that come from the artifact, and not for concurrent use.
type Budget struct {
	limits  Limits
	tempDir string

	size     int64 // of the artifact
	entries  int   // members seen
	files    int   // regular files presented
	linked   int   // names that symbolic links gave
	unpacked int64 // bytes that decoders gave
	temp     int64 // bytes on the temporary disk now
	memory   int64 // bytes of members in memory now
	index    int64 // bytes of names and places now

	// Decoders that wait for their next stream.
	inflaters  []io.ReadCloser
	gunzippers []*gzip.Reader
	tail       []byte // for the ends of files

	reasons map[sbom.ReasonCode]*tally
	noted   int // how often a reason was given
	err     error
}

// tally is what is kept of one code: the first few reasons and how many there were.
type tally struct {
	first []sbom.Reason
	more  int
}

// maxOfCode bounds the reasons of one code, so that many of one kind never hide another:
// the codes of this package times it are within sbom.MaxReasons.
const maxOfCode = 6

// NewBudget returns the budget of one artifact. Temporary files go to tempDir and have no
// name there.
func NewBudget(l Limits, tempDir string) *Budget {
	return &Budget{limits: l.orDefaults(), tempDir: tempDir, reasons: map[sbom.ReasonCode]*tally{}}
}

// Noted counts the reasons that were given so far, the same one twice included: whether
// something was said of what was done in between.
func (b *Budget) Noted() int { return b.noted }

// Reasons says what was left out and why, in order of code and path, each once. Of each
// code the first few met are named and the others counted.
func (b *Budget) Reasons() []sbom.Reason {
	var all []sbom.Reason
	for code, t := range b.reasons {
		all = append(all, t.first...)
		if t.more > 0 {
			all = append(all, sbom.Reason{Code: code, Detail: fmt.Sprintf("and %d more", t.more)})
		}
	}
	slices.SortFunc(all, func(x, y sbom.Reason) int {
		return cmp.Or(cmp.Compare(x.Code, y.Code), cmp.Compare(x.Path, y.Path), cmp.Compare(x.Detail, y.Detail))
	})
	return slices.Compact(all)
}

// Files is how many regular files all trees presented.
func (b *Budget) Files() int { return b.files }

// Bytes is the size of the artifact and of all that was unpacked from it.
func (b *Budget) Bytes() int64 { return b.size + b.unpacked }

// Err is the first failure of this machine's own disks, or the end of the context, since
// the budget was made. Reads of members fail with it too; it is never the artifact's fault.
func (b *Budget) Err() error { return b.err }

// note records that something is missing.
func (b *Budget) note(code sbom.ReasonCode, path, detail string) {
	b.noted++
	if b.err != nil {
		return // what fails from now on fails for that
	}
	t := b.reasons[code]
	if t == nil {
		t = &tally{}
		b.reasons[code] = t
	}
	r := sbom.Reason{Code: code, Path: printable(strings.TrimSuffix(path, "!/"), sbom.MaxTextBytes), Detail: printable(detail, maxDetailBytes)}
	switch {
	case slices.Contains(t.first, r):
	case len(t.first) < maxOfCode:
		t.first = append(t.first, r)
	default:
		t.more++
	}
}

// noteErr records a problem of the artifact, found at path. Failures of the machine, which
// Err has, are no reasons.
func (b *Budget) noteErr(path string, err error) {
	var p *problem
	switch {
	case err == nil:
	case errors.As(err, &p):
		b.note(p.code, path, p.detail)
	default:
		b.note(sbom.ReasonMalformed, path, err.Error())
	}
}

// fail keeps the first failure that is not the artifact's.
func (b *Budget) fail(err error) error {
	if b.err == nil {
		b.err = err
	}
	return err
}

// alive reports whether reading may go on.
func (b *Budget) alive(ctx context.Context) error {
	if b.err != nil {
		return b.err
	}
	if err := ctx.Err(); err != nil {
		return b.fail(err)
	}
	return nil
}

// entryOverhead is about what the place of one member takes beside its name, while a tree
// is made.
const entryOverhead = 160

// takeEntry counts one member of an archive.
func (b *Budget) takeEntry(name string) error {
	if b.entries >= b.limits.MaxEntries {
		return problemf(sbom.ReasonEntries, "more than %d members in all", b.limits.MaxEntries)
	}
	n := int64(len(name)) + entryOverhead
	if b.index+n > b.limits.MaxIndexBytes {
		return problemf(sbom.ReasonMemory, "the names of all members take more than %d bytes", b.limits.MaxIndexBytes)
	}
	b.entries++
	b.index += n
	return nil
}

// takeUnpacked counts what a decoder gave: n bytes more, out in all from packed bytes.
func (b *Budget) takeUnpacked(n, out, packed int64) error {
	b.unpacked += n
	l := &b.limits
	switch {
	case out > l.MaxFileBytes:
		return problemf(sbom.ReasonFileSize, "unpacks to more than %d bytes", l.MaxFileBytes)
	case b.unpacked > l.MaxTotalBytes:
		return problemf(sbom.ReasonTotalSize, "more than %d bytes unpacked in all", l.MaxTotalBytes)
	case out > l.RatioFrom && out/l.MaxRatio > packed:
		return problemf(sbom.ReasonRatio, "unpacks to more than %d times its size", l.MaxRatio)
	case b.unpacked > l.RatioFrom && b.unpacked/l.MaxRatio > b.size:
		return problemf(sbom.ReasonRatio, "all unpacks to more than %d times the artifact", l.MaxRatio)
	}
	return nil
}

// problem is what is wrong with an artifact, or beyond a limit.
type problem struct {
	code   sbom.ReasonCode
	detail string
}

func (p *problem) Error() string { return string(p.code) + ": " + p.detail }

func problemf(code sbom.ReasonCode, format string, args ...any) error {
	return &problem{code: code, detail: fmt.Sprintf(format, args...)}
}

// isMalformed reports a problem that leaves what came before it worth reading.
func isMalformed(err error) bool {
	var p *problem
	return errors.As(err, &p) && p.code == sbom.ReasonMalformed
}

// guarded is the artifact on our own disk: an error of it is the machine's.
type guarded struct {
	r io.ReaderAt
	b *Budget
}

func (g guarded) ReadAt(p []byte, off int64) (int, error) {
	n, err := g.r.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		_ = g.b.fail(err)
	}
	return n, err
}
