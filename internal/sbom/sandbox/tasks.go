package sandbox

import (
	"context"
	"errors"
	"os"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom/check"
	"github.com/assay-build/assay/internal/sbom/scan"
)

// job is what a task works on.
type job struct {
	request
	artifact *os.File
	size     int64
}

// task answers with an inventory. An error that is no refusal is the machine's.
type task func(context.Context, job) (*answer, error)

func tasks() map[string]task {
	return map[string]task{
		taskProbe: func(context.Context, job) (*answer, error) { return new(answer), nil },
		taskScan: func(ctx context.Context, j job) (*answer, error) {
			inv, err := scan.Scan(ctx, scan.Request{Artifact: j.artifact, Size: j.size, Name: j.Name, TempDir: j.Dir}, scan.DefaultLimits())
			return &answer{Inventory: inv}, err
		},
		taskCheck: func(ctx context.Context, j job) (*answer, error) {
			inv, report, err := check.Check(ctx, j.artifact, j.size, j.Want, check.DefaultLimits())
			if errors.Is(err, context.DeadlineExceeded) {
				err = refusal.New(CodeSBOMUncheckable, "checking takes longer than it may")
			}
			return &answer{Inventory: inv, Report: report}, err
		},
	}
}
