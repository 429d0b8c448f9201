package server_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"sync/atomic"
	"testing"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"golang.org/x/sync/errgroup"
)

// Benchmarks for profiling, with client and service in one process; make bench
// measures them apart.

func BenchmarkAttestDigests(b *testing.B) {
	for _, mode := range []string{server.KeysModeKey, server.KeysModeCertificate} {
		b.Run(mode, func(b *testing.B) { benchmarkAttest(b, func(c *server.Config) { c.Keys.Mode = mode }) })
	}
}

func benchmarkAttest(b *testing.B, edit func(*server.Config)) {
	r := newRig(b, edit)
	attestation := assayv1.NewAttestationServiceClient(r.conn)
	var salt [16]byte
	_, _ = rand.Read(salt[:])
	var n atomic.Uint64
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			sum := sha256.Sum256(binary.BigEndian.AppendUint64(salt[:], n.Add(1)))
			_, err := attestation.AttestDigests(r.ctx, &assayv1.AttestDigestsRequest{Subjects: digests("app", hex.EncodeToString(sum[:]))})
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "attests/s")
}

func BenchmarkVerifyWarm(b *testing.B) {
	r := newRig(b)
	verification := assayv1.NewVerificationServiceClient(r.conn)
	ask := func(digest string) error {
		_, err := verification.Verify(r.ctx, &assayv1.VerifyRequest{Environment: "dev", Subjects: digests("app", digest)})
		return err
	}
	var known []string
	for i := range 500 {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		known = append(known, hex.EncodeToString(sum[:]))
	}
	var group errgroup.Group
	group.SetLimit(64)
	for _, d := range known {
		group.Go(func() error {
			_, err := assayv1.NewAttestationServiceClient(r.conn).AttestDigests(r.ctx, &assayv1.AttestDigestsRequest{Subjects: digests("app", d)})
			return errors.Join(err, ask(d))
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	var n atomic.Uint64
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := ask(known[n.Add(7)%uint64(len(known))]); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "verifies/s")
}

func BenchmarkUpload(b *testing.B) {
	r := newRig(b)
	const size = 256 << 20
	chunk := make([]byte, 1<<20)
	_, _ = rand.Read(chunk)
	b.SetBytes(size)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		stream, err := assayv1.NewAttestationServiceClient(r.conn).Attest(r.ctx)
		if err != nil {
			b.Fatal(err)
		}
		send := func(m *assayv1.AttestRequest) {
			if err := stream.Send(m); err != nil {
				_, err = stream.Recv()
				b.Fatal(err)
			}
		}
		send(&assayv1.AttestRequest{Message: &assayv1.AttestRequest_Header{Header: &assayv1.AttestHeader{ArtifactCount: 1}}})
		send(&assayv1.AttestRequest{Message: &assayv1.AttestRequest_ArtifactStart{ArtifactStart: &assayv1.ArtifactStart{Name: "a", Size: size}}})
		binary.BigEndian.PutUint64(chunk, uint64(i))
		for range size >> 20 {
			send(&assayv1.AttestRequest{Message: &assayv1.AttestRequest_Chunk{Chunk: chunk}})
		}
		send(&assayv1.AttestRequest{Message: &assayv1.AttestRequest_ArtifactEnd{ArtifactEnd: &assayv1.ArtifactEnd{}}})
		if err := stream.CloseSend(); err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := stream.Recv(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}
