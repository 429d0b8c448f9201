package testenv_test

import (
	"os"
	"testing"

	"github.com/assay-build/assay/internal/sbom/sandbox"
)

// TestMain is also where the processes start that look into artifacts: they are this
// program once more.
func TestMain(m *testing.M) {
	if code, ok := sandbox.Child(os.Args); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}
