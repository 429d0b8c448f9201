package scan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/archive"
)

// Request is one artifact to look into.
type Request struct {
	Artifact io.ReaderAt
	Size     int64
	// Name is what the artifact is called. Its base name decides for formats that are
	// known by name alone, such as lock files, and is no path of any file system.
	Name string
	// TempDir is a private, empty directory. Nothing is left in it.
	TempDir string
}

// Limits bound one scan.
type Limits struct {
	Archive archive.Limits
	// MaxComponents is how many components are kept.
	MaxComponents int
	// MaxReadBytes is the largest package file that is read into memory whole.
	MaxReadBytes int64
}

// DefaultLimits suit artifacts of up to some gigabytes in a process of 512 MiB.
func DefaultLimits() Limits {
	return Limits{
		Archive:       archive.DefaultLimits(),
		MaxComponents: sbom.MaxComponents,
		MaxReadBytes:  12 << 20,
	}
}

// Scan looks into an artifact. When ctx runs out of time, what was found so far is the
// result, with ReasonTime. Errors are those of the machine (a full disk) and of a caller
// that gave up; an artifact, whatever its bytes, is never one.
func Scan(ctx context.Context, req Request, l Limits) (*sbom.Inventory, error) {
	silenceScalibr()
	return newWalk(ctx, req, l, readers()).run(req)
}

func newWalk(ctx context.Context, req Request, l Limits, rs []reader) *walk {
	return &walk{
		ctx: ctx, limits: l, budget: archive.NewBudget(l.Archive, req.TempDir), readers: rs, tempDir: req.TempDir,
		merged: newMerger(l.MaxComponents), noted: map[sbom.Reason]bool{},
	}
}

func (w *walk) run(req Request) (*sbom.Inventory, error) {
	inv, err := w.artifact(req, baseName(req.Name))
	if err != nil && !w.outOfTime(err) {
		return nil, err
	}
	inv.Files, inv.Bytes = w.budget.Files(), w.budget.Bytes()
	w.conclude(inv)
	return inv, nil
}

// conclude puts the findings and what is missing of them into the inventory.
func (w *walk) conclude(inv *sbom.Inventory) {
	if w.merged.full {
		w.note(sbom.ReasonComponents, "", fmt.Sprintf("more than %d packages", w.limits.MaxComponents))
	}
	if len(w.merged.byPURL) == 0 {
		w.note(sbom.ReasonOpaque, "", "nothing was found that is known here")
	}
	inv.Incomplete = slices.Concat(w.budget.Reasons(), w.reasons)
	w.merged.finish(inv)
}

// artifact walks the whole of it.
func (w *walk) artifact(req Request, name string) (*sbom.Inventory, error) {
	inv := &sbom.Inventory{}
	tree, err := w.budget.Open(w.ctx, req.Artifact, req.Size, name)
	if err != nil {
		return inv, err
	}
	from := &container{name: name, path: name, format: tree.Format(), open: func() (io.Reader, func() error, error) {
		return io.NewSectionReader(req.Artifact, 0, req.Size), func() error { return nil }, nil
	}}
	inv.Format = from.format
	err = w.tree(tree, from, "")
	if inv.Format == "file" {
		inv.Format = w.single
	}
	return inv, errors.Join(err, tree.Close())
}

// baseName is the last element of a name, however its origin separates them.
func baseName(name string) string {
	name = path.Base(strings.ReplaceAll(name, `\`, "/"))
	if name == "." || name == "/" || name == ".." {
		return "artifact"
	}
	return name
}
