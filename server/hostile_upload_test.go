package server_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc/codes"
)

// TestAttestDisconnect: a client that goes away in the middle of an upload leaves
// nothing, neither in the spool nor in the register.
func TestAttestDisconnect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	const calls = 3
	for i := range calls {
		ctx, cancel := context.WithCancel(l.ctx)
		stream, err := assayv1.NewAttestationServiceClient(l.conn).Attest(ctx)
		if err != nil {
			t.Fatal(err)
		}
		messages := append([]*assayv1.AttestRequest{headerMessage(2)}, artifactMessages("first", make([]byte, 3<<20))...)
		messages = append(messages, artifactMessages("second", make([]byte, 2<<20))[:2]...) // no end
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := stream.Recv(); err != nil { // the first artifact is received
			t.Fatal(err)
		}
		if left, err := os.ReadDir(filepath.Join(w.data, "spool")); err != nil || len(left) != 1 {
			t.Fatalf("%d uploads in the spool (%v); the test tests nothing", len(left), err)
		}
		cancel()
		l.logs.ended(t, assayv1.AttestationService_Attest_FullMethodName, i+1)
		if left, err := os.ReadDir(filepath.Join(w.data, "spool")); err != nil || len(left) != 0 {
			t.Errorf("%d uploads in the spool after the client left (%v)", len(left), err)
		}
	}
	nothingStored(t, l.rig)
	if n := l.count(t, "pending"); n != 0 {
		t.Errorf("%d pending", n)
	}
}

// TestSpoolSweep: what a crash left in the spool is gone before anything is served.
func TestSpoolSweep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	leftover := filepath.Join(w.data, "spool", "attest-123")
	if err := os.MkdirAll(leftover, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(leftover, "0"), []byte("half an artifact"), 0o600); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(w.data, "spool", "link")); err != nil {
		t.Fatal(err)
	}
	w.start(t)
	if left, err := os.ReadDir(filepath.Join(w.data, "spool")); err != nil || len(left) != 0 {
		t.Errorf("%d entries in the spool (%v)", len(left), err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("the sweep followed a link: %v", err)
	}
	info, err := os.Stat(filepath.Join(w.data, "spool"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("spool %v, %v", info.Mode(), err)
	}
}

// TestUploadLimits: a client that says nothing loses its place, and one that finds
// none is told so. Nothing sleeps here: the limits themselves are what is waited for.
func TestUploadLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for two limits of a second each; runs without -short")
	}
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t, func(c *server.Config) {
		c.Limits.MaxConcurrentUploads, c.Limits.IdleTimeout = 1, time.Second
	}).login(t)
	stream, err := assayv1.NewAttestationServiceClient(l.conn).Attest(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	first := artifactMessages("busy", make([]byte, 1))
	first[0].GetArtifactStart().Size = -1
	for _, m := range append([]*assayv1.AttestRequest{headerMessage(2)}, append(artifactMessages("one", nil), first[:2]...)...) {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stream.Recv(); err != nil { // it has its place
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	go func() { refused <- upload(l.ctx, l.conn, []*assayv1.AttestRequest{headerMessage(1)}) }()
	keep := time.NewTicker(100 * time.Millisecond)
	defer keep.Stop()
	for busy := true; busy; {
		select {
		case err := <-refused:
			wantReason(t, err, codes.Unavailable, "OVERLOADED")
			if !hasRetryInfo(err) {
				t.Error("OVERLOADED without a word on when to come back")
			}
			busy = false
		case <-keep.C:
			if err := stream.Send(first[1]); err != nil {
				t.Fatalf("a busy upload was ended: %v", err)
			}
		}
	}
	_, err = stream.Recv() // and now it says nothing more
	wantReason(t, err, codes.DeadlineExceeded, "STREAM_IDLE")
	l.logs.ended(t, assayv1.AttestationService_Attest_FullMethodName, 2)
	if left, err := os.ReadDir(filepath.Join(w.data, "spool")); err != nil || len(left) != 0 {
		t.Errorf("%d uploads in the spool (%v)", len(left), err)
	}
	if _, err := uploadAll(l.ctx, l.conn, append([]*assayv1.AttestRequest{headerMessage(1)}, artifactMessages("a", nil)...)); err != nil {
		t.Errorf("the place is not free again: %v", err)
	}
}
