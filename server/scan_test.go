package server_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// gzipped is a file in gzip.
func gzipped(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// lockOf is a lock file of n packages.
func lockOf(n int) []byte {
	packages := make([]string, n)
	for i := range packages {
		packages[i] = fmt.Sprintf("package-%d@1.0.%d", i, i)
	}
	return packageLock(packages...)
}

// TestManyLargeArtifacts uploads small files that each hold a hundred thousand packages,
// many in one call. The memory of the service stays bounded, the first of them have SBOMs
// that are whole, and the others say that there was too much. It runs alone: what else
// the process does would be counted in.
func TestManyLargeArtifacts(t *testing.T) { //nolint:paralleltest // see above
	if testing.Short() || raced {
		t.Skip("looks into millions of packages; runs without -short")
	}
	const artifacts, packages, most = 24, 100_000, 900 << 20
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	lock := gzipped(t, lockOf(packages))
	var paths []string
	dir := t.TempDir()
	for i := range artifacts {
		path := filepath.Join(dir, fmt.Sprint(i), "package-lock.json.gz")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, lock, 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	t.Logf("%d artifacts of %d bytes", artifacts, len(lock))
	runtime.GC() // what the test made
	peak := watchHeap()
	began := time.Now()
	messages := []*assayv1.AttestRequest{headerMessage(artifacts)}
	for i := range paths {
		messages = append(messages, artifactMessages(fmt.Sprintf("%d/package-lock.json.gz", i), lock)...)
	}
	result, err := uploadAll(l.ctx, l.conn, messages)
	heap := peak()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("attested in %s, at most %d MiB of heap", time.Since(began).Round(time.Millisecond), heap>>20)
	if heap > most && !raced {
		t.Errorf("%d MiB of heap", heap>>20)
	}
	whole := 0
	for i, s := range result.GetSboms() {
		cut := len(s.GetIncompleteReasons()) == 1 && s.GetIncompleteReasons()[0] == "components-limit"
		switch {
		case s.GetComponentCount() == packages && s.GetComplete() && whole == i:
			whole++
		case s.GetComponentCount() != 0 || s.GetComplete() || !cut:
			t.Errorf("artifact %d: %d components, %q", i, s.GetComponentCount(), s.GetIncompleteReasons())
		}
	}
	if whole != 4 || len(result.GetSboms()) != artifacts {
		t.Errorf("%d of %d SBOMs are whole", whole, len(result.GetSboms()))
	}
	emptied(t, w)
}

// TestAbandonedUploadLeavesNothing: a client that goes away while its artifacts are looked
// into, or wait for that, leaves no file behind.
func TestAbandonedUploadLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	lock := gzipped(t, lockOf(20_000))
	for _, scanned := range []int{0, 1, 3} { // how many were received when it goes
		ctx, cancel := context.WithCancel(l.ctx)
		stream, err := assayv1.NewAttestationServiceClient(l.conn).Attest(ctx)
		if err != nil {
			t.Fatal(err)
		}
		messages := []*assayv1.AttestRequest{headerMessage(8)}
		for i := range 8 {
			messages = append(messages, artifactMessages(fmt.Sprintf("%d/package-lock.json.gz", i), lock)...)
		}
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		for seen := 0; seen <= scanned; {
			m, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if m.GetProgress().GetStage() == assayv1.AttestStage_ATTEST_STAGE_RECEIVED {
				seen++
			}
		}
		cancel()
		emptied(t, w)
	}
	l.stop()
	nothingLeft(t, w)
}

// emptied waits until nothing is left of any upload.
func emptied(t *testing.T, w *world) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		spool, err := os.ReadDir(filepath.Join(w.data, "spool"))
		scans, globErr := filepath.Glob(filepath.Join(w.data, "scan", "*", "*"))
		if err != nil || globErr != nil {
			t.Fatal(err, globErr)
		}
		if len(spool)+len(scans) == 0 {
			return
		}
		select {
		case <-look.C:
		case <-limit.C:
			t.Fatalf("left behind: %v, %q", spool, scans)
		}
	}
}
