package tlog_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
	"github.com/assay-build/assay/internal/tlog"
)

// readVectors decodes every JSON file below dir into a T and hands it to check.
func readVectors[T any](t *testing.T, dir string, atLeast int, check func(t *testing.T, v T)) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".json") {
			return err
		}
		n++
		t.Run(strings.TrimPrefix(path, dir+"/"), func(t *testing.T) {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var v T
			if err := json.Unmarshal(raw, &v); err != nil {
				t.Fatal(err)
			}
			check(t, v)
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < atLeast {
		t.Fatalf("%d vectors below %s, want at least %d", n, dir, atLeast)
	}
}

func TestInclusionVectors(t *testing.T) {
	type vector struct {
		LeafIdx, TreeSize uint64
		Root, LeafHash    []byte
		Proof             [][]byte
		WantErr           bool
	}
	readVectors(t, vectors.Dir(t, "transparency-dev-merkle/testdata/inclusion"), 98, func(t *testing.T, v vector) {
		if len(v.LeafHash) != 32 {
			// Our leaf hash is an array: the type refuses what this vector tries.
			if !v.WantErr {
				t.Fatalf("leaf hash of %d bytes in a valid vector", len(v.LeafHash))
			}
			return
		}
		err := tlog.VerifyInclusion(v.LeafIdx, v.TreeSize, [32]byte(v.LeafHash), v.Proof, v.Root)
		checkCode(t, err, v.WantErr, tlog.CodeInclusionProofInvalid)
	})
}

func TestConsistencyVectors(t *testing.T) {
	type vector struct {
		Size1, Size2 uint64
		Root1, Root2 []byte
		Proof        [][]byte
		WantErr      bool
	}
	readVectors(t, vectors.Dir(t, "transparency-dev-merkle/testdata/consistency"), 98, func(t *testing.T, v vector) {
		err := tlog.VerifyConsistency(v.Size1, v.Size2, v.Proof, v.Root1, v.Root2)
		checkCode(t, err, v.WantErr, tlog.CodeConsistencyProofInvalid)
	})
}

func checkCode(t *testing.T, err error, wantErr bool, code refusal.Code) {
	t.Helper()
	if !wantErr && err != nil {
		t.Fatalf("valid vector refused: %v", err)
	}
	if wantErr && refusal.CodeOf(err) != code {
		t.Fatalf("got %v, want %s", err, code)
	}
}
