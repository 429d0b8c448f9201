// Package vectors finds the test vectors that others wrote. They are read where
// they lie and never copied into the project: $ASSAY_VECTORS, or the folder
// shared/vectors beside the checkout.
//
// A test that needs them is skipped, saying so, where the folder is absent. In
// CI (CI set in the environment) their absence is a failure.
package vectors

import (
	"os"
	"path/filepath"
	"testing"
)

// Dir returns the folder of one collection, for example "dsse" or
// "sigstore-conformance/test/assets/bundle-verify".
func Dir(tb testing.TB, name string) string {
	tb.Helper()
	root := os.Getenv("ASSAY_VECTORS")
	if root == "" {
		root = filepath.Join(filepath.Dir(moduleRoot(tb)), "shared", "vectors")
	}
	dir := filepath.Join(root, filepath.FromSlash(name))
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") != "" {
			tb.Fatalf("vectors: %s is absent; CI must have it", name)
		}
		tb.Skipf("vectors: %s is absent; set ASSAY_VECTORS to run this test", name)
	}
	return dir
}

// moduleRoot walks up from the working directory of the test to go.mod.
func moduleRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			tb.Fatal("vectors: no go.mod above the working directory")
		}
		dir = parent
	}
}
