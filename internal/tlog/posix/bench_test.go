package posix_test

import (
	"encoding/binary"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/tlog"
)

// BenchmarkAdd measures a closed loop of callers: the rate, the latency, and the
// CPU time of the whole process for one entry (a rekor-v2 entry costs a share of
// one signature; a rekor-v1 entry costs a SET of its own, about 27 µs).
func BenchmarkAdd(b *testing.B) {
	for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		for _, workers := range []int{1, 64, 512} {
			b.Run(string(format)+"/inflight="+strconv.Itoa(workers), func(b *testing.B) { benchAdd(b, format, workers) })
		}
	}
}

func benchAdd(b *testing.B, format tlog.EntryFormat, workers int) {
	cfg := config(b, newSigner(b))
	cfg.Format = format
	cfg.CheckpointInterval = time.Second
	l := open(b, cfg)
	var next atomic.Int64
	latencies := make([][]time.Duration, workers)
	cpu := cpuTime(b)
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				body := make([]byte, 652) // as large as a rekor-v1 entry
				binary.BigEndian.PutUint64(body, uint64(n))
				start := time.Now()
				if _, err := l.Add(b.Context(), body); err != nil {
					b.Error(err)
					return
				}
				latencies[w] = append(latencies[w], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	used := cpuTime(b) - cpu
	all := slices.Concat(latencies...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "entries/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/op")
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
