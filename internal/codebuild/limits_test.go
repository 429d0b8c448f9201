package codebuild_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/store"
)

// TestLargestBuildIsStored: what is not refused as too large must fit wherever the
// caller is kept, or it would fail there, after its artifacts were fetched.
func TestLargestBuildIsStored(t *testing.T) {
	t.Parallel()
	const maxStored = 64 << 10
	project := strings.Repeat("p", 255)
	b := &codebuild.Build{
		Partition: "aws-us-gov", Region: "us-gov-west-1", Account: "111122223333", Project: project, UUID: "2ca46003-a831-4f0e-9d3e-0a1b2c3d4e5f",
		ARN: "arn:aws-us-gov:codebuild:us-gov-west-1:111122223333:build/" + project + ":2ca46003-a831-4f0e-9d3e-0a1b2c3d4e5f", ProjectARN: project,
		ServiceRole: "arn:aws-us-gov:iam::111122223333:role/r", StartedAt: time.Unix(1_700_000_000, 1), FinishedAt: time.Unix(1_700_000_001, 1),
		Source: codebuild.Source{Type: "NO_SOURCE"}, Environment: codebuild.Environment{Type: "LINUX_CONTAINER", Image: "x"},
	}
	size := func() int {
		stored, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return len(stored)
	}
	// JSON escapes the worst characters alike within a build and within its caller.
	for i := 0; size() < codebuild.MaxBuildBytes-300; i++ {
		b.Environment.Variables = append(b.Environment.Variables, codebuild.Variable{Name: fmt.Sprint("V", i), Type: "PLAINTEXT", Value: "<&>\u2028\"\\"})
	}
	b.LogARN = strings.Repeat("l", codebuild.MaxBuildBytes-size()-len(`,"log_arn":""`))
	if size() != codebuild.MaxBuildBytes {
		t.Fatalf("%d bytes", size())
	}
	caller, err := json.Marshal(identity.NewCodeBuildCaller(identity.ModePostBuild, b, true, true))
	if err != nil || len(caller) > maxStored-8<<10 {
		t.Fatalf("the caller has %d bytes of %d: %v", len(caller), maxStored, err)
	}
	s, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "assay.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	expires := time.Now().Add(time.Hour)
	if err := s.CreateSession(t.Context(), [16]byte{1}, caller, expires, "key", expires); err != nil {
		t.Error(err)
	}
	if err := s.CreateSession(t.Context(), [16]byte{2}, make([]byte, maxStored+1), expires, "other", expires); err == nil {
		t.Errorf("the store keeps more than %d bytes, and so this test shows nothing", maxStored)
	}
}
