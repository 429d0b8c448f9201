package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// inFlight runs f(i) for i < n on 64 goroutines and reports the CPU time of each.
func inFlight(b *testing.B, f func(i int) error) {
	b.Helper()
	const goroutines = 64
	var next atomic.Int64
	var wg sync.WaitGroup
	took := make([]time.Duration, b.N)
	before := cpuTime()
	b.ResetTimer()
	for range goroutines {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return
				}
				start := time.Now()
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
	slices.Sort(took)
	b.ReportMetric(float64(took[b.N/2])/1e6, "p50-ms")
	b.ReportMetric(float64(took[b.N*99/100])/1e6, "p99-ms")
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N)/1e3, "cpu-µs/op")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func number(kind string, i int) string {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(kind), uint64(i)))
	return hex.EncodeToString(sum[:])
}

// benchPending is an attestation of the size a GitHub Actions build has.
func benchPending(i int) *Pending {
	id := number("statement", i)
	return &Pending{
		ID: id, Envelope: benchBytes[:2600], LogBody: benchBytes[:800], LeafHash: benchBytes[:32], Timestamp: benchBytes[:1000],
		LogSizeBefore: uint64(i), CreatedAt: time.Now(),
		Record: &Attestation{
			PredicateType: "https://slsa.dev/provenance/v1", BuilderID: "https://assay.example/builders/github-actions/github-hosted",
			BuildType:      "https://actions.github.io/buildtypes/workflow/v1",
			InvocationID:   fmt.Sprintf("https://github.com/acme/app/actions/runs/%d/attempts/1", i),
			SLSABuildLevel: 2, SourceURI: "git+https://github.com/acme/app@refs/heads/main", SourceCommit: id[:40],
			Principal: fmt.Sprintf("github/1/%d", i%1000), Caller: benchBytes[:900],
			Subjects: []Subject{{Name: "app-" + id[:8] + ".tar.gz", SHA256: number("subject", i), SHA512: id + id, Kind: 1, Origin: 1, Size: 1 << 20}},
		},
	}
}

var benchBytes = func() []byte {
	b := make([]byte, 8<<10)
	rand.Read(b)
	b[0] = 0x7b // as JSON begins
	return b
}()

func benchStore(b *testing.B) *Store {
	b.Helper()
	s, err := Open(context.Background(), Config{Path: b.TempDir() + "/assay.db"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

func BenchmarkBeginComplete(b *testing.B) {
	s := benchStore(b)
	ctx := context.Background()
	inFlight(b, func(i int) error {
		p := benchPending(i)
		if err := s.BeginAttestation(ctx, p); err != nil {
			return err
		}
		return s.CompleteAttestation(ctx, p.ID, int64(i), benchBytes[:5000], LogHead{Size: uint64(i) + 1, Root: benchBytes[:32]})
	})
}

func BenchmarkRecordAsk(b *testing.B) {
	for _, decisions := range []int{1, 10000} {
		b.Run(fmt.Sprintf("decisions=%d", decisions), func(b *testing.B) {
			s := benchStore(b)
			ctx := context.Background()
			ids := make([]string, decisions)
			for i := range ids {
				ids[i] = number("decision", i)[:32]
				if err := s.SaveDecision(ctx, &Decision{ID: ids[i], Key: ids[i], CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour), Answer: benchBytes[:1500]}); err != nil {
					b.Fatal(err)
				}
			}
			callers := make([]string, 100)
			for i := range callers {
				callers[i] = fmt.Sprintf("github.com/acme/app%d/.github/workflows/release.yml@refs/heads/main", i)
			}
			inFlight(b, func(i int) error {
				return s.RecordAsk(ctx, Ask{DecisionID: ids[i%decisions], Caller: callers[i%100], At: time.Now()})
			})
		})
	}
}

// fill stores n attestations as they are stored one by one, many to a transaction.
func fill(b *testing.B, s *Store, n int, change func(i int, a *Attestation)) {
	b.Helper()
	const rows = 1000
	for from := 0; from < n; from += rows {
		err := s.w.do(context.Background(), 0, func(c *conn) error {
			for i := from; i < min(n, from+rows); i++ {
				p := benchPending(i)
				p.Record.CreatedAt = testClock().Add(time.Duration(i) * time.Second)
				change(i, p.Record)
				id, err := checkPending(&Pending{ID: p.ID, Envelope: p.Envelope, LogBody: p.LogBody, LeafHash: p.LeafHash, Record: p.Record, CreatedAt: p.Record.CreatedAt})
				if err != nil {
					return err
				}
				row := &pendingRow{record: p.Record, subjects: appendSubjects(nil, p.Record.Subjects)}
				if _, err := insertAttestation(c, id, row, int64(i), benchBytes[:5000]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReads reads from a register of 10,000 attestations, and from one of a
// million where ASSAY_BENCH_LARGE is set: the figures should be alike.
func BenchmarkReads(b *testing.B) {
	sizes := []int{10_000}
	if os.Getenv("ASSAY_BENCH_LARGE") != "" {
		sizes = append(sizes, 1_000_000)
	}
	for _, n := range sizes {
		b.Run(fmt.Sprintf("attestations=%d", n), func(b *testing.B) {
			s := benchStore(b)
			fill(b, s, n, func(int, *Attestation) {})
			ctx := context.Background()
			b.Run("BySHA256", func(b *testing.B) {
				for i := range b.N {
					list, _, err := s.AttestationsBySHA256(ctx, number("subject", i*7919%n), "https://slsa.dev/provenance/v1", 10)
					if err != nil || len(list) != 1 {
						b.Fatal(len(list), err)
					}
				}
			})
			b.Run("BySHA256/64", func(b *testing.B) {
				inFlight(b, func(i int) error {
					_, _, err := s.AttestationsBySHA256(ctx, number("subject", i*7919%n), "https://slsa.dev/provenance/v1", 10)
					return err
				})
			})
			for name, q := range map[string]Query{
				"newest":    {},
				"by digest": {Filter: "subject.digest = " + number("subject", n/2)},
				"by name":   {Filter: "subject.name = app-" + number("statement", n/2)[:8] + ".tar.gz"},
				"by commit": {Filter: "commit = " + number("statement", n/2)[:40]},
				"old month": {Filter: "create_time < 2026-03-01T13:00:00Z"},
			} {
				b.Run("List/"+name, func(b *testing.B) {
					for range b.N {
						if list, _, err := s.ListAttestations(ctx, q); err != nil || len(list) == 0 {
							b.Fatal(len(list), err)
						}
					}
				})
			}
			b.Run("Check", func(b *testing.B) {
				for range b.N {
					if err := s.Check(ctx); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkTurns picks from a digest that has many attestations, nearly all of them
// somebody's claims in large statements.
func BenchmarkTurns(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("attestations=%d", n), func(b *testing.B) {
			s := benchStore(b)
			fill(b, s, n, func(i int, a *Attestation) {
				a.Principal = fmt.Sprintf("aws/%d", i%10)
				for j := range 100 {
					a.Subjects = append(a.Subjects, Subject{Name: fmt.Sprintf("dist/a-file-with-a-name-%d", j), Origin: 2})
				}
				a.Subjects = append(a.Subjects, Subject{Name: "app", SHA256: number("crowded", 0), Origin: 1 + i%2})
			})
			b.ResetTimer()
			for range b.N {
				list, more, err := s.AttestationsBySHA256(context.Background(), number("crowded", 0), "https://slsa.dev/provenance/v1", 64)
				if err != nil || len(list) != 64 || !more {
					b.Fatal(len(list), more, err)
				}
			}
		})
	}
}
