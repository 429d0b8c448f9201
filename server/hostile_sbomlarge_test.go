package server_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/sbom/check"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// largeDocument has as many components as there may be, and size bytes.
func largeDocument(name string, size int) []byte {
	var b bytes.Buffer
	b.Grow(size)
	b.WriteString(`{"bomFormat":"CycloneDX","specVersion":"1.5","version":1,"components":[`)
	pad := (size-b.Len())/check.MaxComponents - 150
	for i := range check.MaxComponents {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"type":"library","name":"%s-%d","version":"1.0.%[2]d","purl":"pkg:npm/%[1]s-%[2]d@1.0.%[2]d","description":"`, name, i)
		for j := range pad / 8 {
			fmt.Fprintf(&b, "%08x", uint32(i*31+j*2654435761)) //nolint:gosec // what does not compress to nothing
		}
		b.WriteString(`"}`)
	}
	b.WriteString("]}")
	b.WriteString(strings.Repeat(" ", max(0, size-b.Len())))
	return b.Bytes()
}

// watchHeap looks at the heap until the returned function is called, which tells the most
// that was in use.
func watchHeap() func() uint64 {
	stop, most := make(chan struct{}), make(chan uint64)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		var peak uint64
		for {
			metrics.Read(sample)
			peak = max(peak, sample[0].Value.Uint64())
			select {
			case <-tick.C:
			case <-stop:
				most <- peak
				return
			}
		}
	}()
	return func() uint64 {
		close(stop)
		return <-most
	}
}

// TestLargeEvidence attaches the largest documents there may be, two at once, and the
// memory of the service stays bounded. It runs
// alone: what else the process does would be counted in.
func TestLargeEvidence(t *testing.T) { //nolint:paralleltest // see above
	if testing.Short() || raced {
		t.Skip("documents of 49 MB; runs without -short and without the race detector")
	}
	const size, most = 49_000_000, 900 << 20
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	dial := func(options ...grpc.CallOption) *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:"+l.addr(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(append(options, grpc.MaxCallRecvMsgSize(128<<20))...))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	blind, conn := dial(grpc.ForceCodecV2(blindCodec{})), dial()
	names := []string{"first", "second"}
	files := map[string]string{}
	for _, name := range names {
		l.digests(t, l.ctx, subject(name, name))
		document := largeDocument(name, size)
		if n := len(document); n != size {
			t.Fatalf("%d bytes", n)
		}
		files[name] = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(files[name], document, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC() // what the test made
	end := l.beside(t)
	peak := watchHeap()
	began := time.Now()
	group, ctx := errgroup.WithContext(l.ctx)
	for _, name := range names {
		group.Go(func() error {
			return attachFile(ctx, blind, evidenceHeader(subject(name, name), size, nil), files[name])
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	attached := peak()
	t.Logf("two of %d MB attached in %s, at most %d MiB of heap", size/1_000_000, time.Since(began).Round(time.Millisecond), attached>>20)
	rounds, longest := end()
	t.Logf("beside them %d small ones, the longest took %s", rounds, longest)
	if attached > most {
		t.Errorf("%d MiB of heap", attached>>20)
	}
	for _, name := range names {
		document, err := os.ReadFile(files[name])
		if err != nil {
			t.Fatal(err)
		}
		again, err := uploadEvidence(l.ctx, conn, evidenceHeader(subject(name, name), -1, nil), document, 1<<20)
		if err != nil || !again.GetRepeated() || again.GetSboms()[0].GetComponentCount() != check.MaxComponents {
			t.Fatalf("%t, %v, %v", again.GetRepeated(), again.GetSboms(), err)
		}
		id := again.GetAttestation().GetAttestationId()
		fetchLarge(t, l.ctx, conn, id, document)
		n := check.MaxComponents / 2
		for _, req := range []*assayv1.SearchComponentsRequest{
			{Purl: fmt.Sprintf("pkg:npm/%s-%d@1.0.%[2]d", name, n)}, {Purl: fmt.Sprintf("pkg:npm/%s-%d@<2", name, check.MaxComponents-1)}, {Name: name + "-0"},
		} {
			found := l.search(t, l.ctx, req)
			if len(found) != 1 || found[0].GetAttestationId() != id || len(found[0].GetComponents()) != 1 {
				t.Errorf("%v found %v", req, found)
			}
		}
	}
	nothingLeft(t, w)
	l.stop()

	// A decision on one, of a service that has seen neither.
	runtime.GC()
	peak = watchHeap()
	l = w.start(t, withPolicy(t, sbomPolicy)).login(t)
	began = time.Now()
	l.decide(t, "strict", subject("first", "first"), "ALLOWED")
	decided := peak()
	t.Logf("decided in %s, at most %d MiB of heap", time.Since(began).Round(time.Millisecond), decided>>20)
	if decided > most {
		t.Errorf("%d MiB of heap", decided>>20)
	}
}

// blindCodec throws answers away: they would count as the service's memory.
type blindCodec struct{}

func (blindCodec) Marshal(v any) (mem.BufferSlice, error) {
	return encoding.GetCodecV2("proto").Marshal(v)
}
func (blindCodec) Unmarshal(_ mem.BufferSlice, _ any) error { return nil }
func (blindCodec) Name() string                             { return "proto" }

// attachFile is uploadEvidence of a file that is read piece by piece.
func attachFile(ctx context.Context, conn *grpc.ClientConn, h *assayv1.EvidenceHeader, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	stream, err := assayv1.NewAttestationServiceClient(conn).UploadEvidence(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(evidenceMessage(h))
	for b := make([]byte, 1<<20); err == nil; {
		n, end := f.Read(b)
		if end != nil {
			break
		}
		err = stream.Send(chunkMessage(b[:n]))
	}
	_, err = stream.CloseAndRecv() // the reason is in it
	return err
}

func fetchLarge(t *testing.T, ctx context.Context, conn *grpc.ClientConn, id string, document []byte) {
	t.Helper()
	resp, err := assayv1.NewAuditServiceClient(conn).GetAttestation(ctx, &assayv1.GetAttestationRequest{AttestationId: id})
	if err != nil {
		t.Fatal(err)
	}
	parts, err := attest.ParseOwnBundle(resp.GetAttestation().GetBundle())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := attest.RawPredicate(parts.Envelope.Payload); err != nil || !bytes.Equal(got, document) {
		t.Errorf("%v: %d bytes came back, other than the %d that were attached", err, len(got), len(document))
	}
}
