package check

import (
	"bytes"
	"fmt"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// large is a document of n components with hashes, licences and edges, padded to about
// size bytes, as the scanners of large trees write them.
func large(n, size int) []byte {
	var buf bytes.Buffer
	buf.Grow(size + size/16)
	buf.WriteString(`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,` +
		`"metadata":{"component":{"type":"application","name":"app","bom-ref":"app",` +
		`"hashes":[{"alg":"SHA-256","content":"` + sha256Hex + `"}]}},"components":[`)
	// What a component and its edges take without padding, roughly.
	padding := strings.Repeat("x", max(0, size/n-500))
	for i := range n {
		if i > 0 {
			buf.WriteByte(',')
		}
		fmt.Fprintf(&buf, `{"type":"library","bom-ref":"pkg:npm/%%40scope/package-%[1]d@1.2.%[1]d","group":"@scope","name":"package-%[1]d",`+
			`"version":"1.2.%[1]d","purl":"pkg:npm/%%40scope/package-%[1]d@1.2.%[1]d","hashes":[{"alg":"SHA-256","content":"%064[1]x"}],`+
			`"licenses":[{"license":{"id":"MIT"}}],"description":"%[2]s"}`, i, padding)
	}
	buf.WriteString(`],"dependencies":[{"ref":"app","dependsOn":[`)
	for i := range n {
		if i > 0 {
			buf.WriteByte(',')
		}
		fmt.Fprintf(&buf, `"pkg:npm/%%40scope/package-%[1]d@1.2.%[1]d"`, i)
	}
	buf.WriteString(`]}`)
	for i := range n {
		fmt.Fprintf(&buf, `,{"ref":"pkg:npm/%%40scope/package-%[1]d@1.2.%[1]d","dependsOn":["pkg:npm/%%40scope/package-%[2]d@1.2.%[2]d"]}`,
			i, (i+1)%n)
	}
	buf.WriteString(`],"compositions":[{"aggregate":"complete","assemblies":["app"]}]}`)
	return buf.Bytes()
}

// peakHeap runs f and returns the most memory that the heap took meanwhile, live
// objects and garbage together.
func peakHeap(f func()) uint64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	read := func() uint64 { metrics.Read(sample); return sample[0].Value.Uint64() }
	base, peak := read(), uint64(0)
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			peak = max(peak, read())
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	f()
	close(done)
	<-stopped
	return peak - min(base, peak)
}

const (
	peakLimit = 300 << 20
	timeLimit = 10 * time.Second // of a machine shared with other tests; alone it is below 3 s
)

// TestLargest: a document at both limits is checked within memory and time. It is not
// parallel: the heap is that of the process.
func TestLargest(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("50 MB, for their time and memory")
	}
	doc := large(MaxComponents, 49<<20)
	if len(doc) > MaxBytes || len(doc) < 45<<20 {
		t.Fatalf("%d bytes", len(doc))
	}
	start := time.Now()
	var components, root int
	peak := peakHeap(func() {
		inv, report, err := Check(t.Context(), bytes.NewReader(doc), int64(len(doc)), cycloneDX(), DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		if !report.SelfBound || report.Aggregate != "complete" {
			t.Errorf("%+v", report)
		}
		components, root = len(inv.Components), len(inv.Root)
	})
	took := time.Since(start)
	t.Logf("%d MB, %d components: %s, heap at most %d MB", len(doc)>>20, components, took.Round(time.Millisecond), peak>>20)
	if components != MaxComponents || root != MaxComponents {
		t.Errorf("%d components, %d of them in the root", components, root)
	}
	if peak > peakLimit {
		t.Errorf("heap %d MB; at most %d MB", peak>>20, peakLimit>>20)
	}
	if took > timeLimit {
		t.Errorf("took %s; at most %s", took, timeLimit)
	}
}

// TestHostile: documents of the largest size that are made to cost as much as they can.
func TestHostile(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("50 MB each, for their time and memory")
	}
	fill := func(head, element, tail string) []byte {
		n := (MaxBytes - len(head) - len(tail)) / (len(element) + 1)
		return []byte(head + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + tail)
	}
	const head = `{"bomFormat":"CycloneDX","specVersion":"1.6",`
	tests := []struct {
		name string
		doc  func() []byte
		want refusal.Code
	}{
		{"empty objects", func() []byte { return fill(head+`"properties":[`, `{}`, `]}`) }, CodeSBOMTooLarge},
		{"the smallest external references", func() []byte { return fill(head+`"externalReferences":[`, `{"type":"vcs","url":""}`, `]}`) }, ""},
		{"one component of many properties", func() []byte {
			return fill(head+`"components":[{"type":"file","name":"x","properties":[`, `{"name":""}`, `]}]}`)
		}, CodeSBOMTooLarge},
		{"one component of many wrong licences", func() []byte { return fill(head+`"components":[{"type":"file","name":"x","licenses":[`, `1`, `]}]}`) }, CodeSBOMTooLarge},
		{"wrong licences up to the limit", func() []byte {
			return []byte(head + `"components":[{"type":"file","name":"x","licenses":[1` + strings.Repeat(",1", maxOpenValues-10) + `]}]}`)
		}, CodeSBOMInvalid},
		{"one long string", func() []byte { return []byte(head + `"serialNumber":"` + strings.Repeat("x", MaxBytes-100) + `"}`) }, CodeSBOMInvalid},
		{"one long name", func() []byte {
			return []byte(head + `"components":[{"type":"file","name":"` + strings.Repeat("x", MaxBytes-200) + `"}]}`)
		}, ""},
		{"one long member", func() []byte { return []byte(head + `"` + strings.Repeat("x", MaxBytes-100) + `":1}`) }, CodeSBOMInvalid},
		{"many members", func() []byte { return manyMembers(head) }, CodeSBOMTooLarge},
		{"a purl per kilobyte of purl", func() []byte {
			return []byte(head + `"components":[{"type":"file","name":"x","purl":"pkg:npm/` + strings.Repeat("x", 10<<20) + `"}]}`)
		}, "PURL_INVALID"},
	}
	for _, tt := range tests {
		doc := tt.doc()
		start := time.Now()
		var err error
		peak := peakHeap(func() {
			_, _, err = Check(t.Context(), bytes.NewReader(doc), int64(len(doc)), cycloneDX(), DefaultLimits())
		})
		took := time.Since(start)
		t.Logf("%s: %s, heap at most %d MB, %.120v", tt.name, took.Round(time.Millisecond), peak>>20, err)
		if got := refusal.CodeOf(err); got != tt.want {
			t.Errorf("%s: code %q, want %q (%.200v)", tt.name, got, tt.want, err)
		}
		if peak > peakLimit || took > timeLimit {
			t.Errorf("%s: heap %d MB, %s", tt.name, peak>>20, took)
		}
		if err != nil && len(err.Error()) > 600 {
			t.Errorf("%s: %d bytes of message", tt.name, len(err.Error()))
		}
	}
}

// manyMembers is one object of as many members as fit.
func manyMembers(head string) []byte {
	buf := bytes.NewBufferString(head)
	for i := 0; buf.Len() < MaxBytes-100; i++ {
		buf.WriteString(`"` + strconv.Itoa(i) + `":0,`)
	}
	buf.WriteString(`"version":1}`)
	return buf.Bytes()
}

// BenchmarkCheck: bytes per second and components per second, by size of the document.
func BenchmarkCheck(b *testing.B) {
	for _, n := range [...]int{280, 10_000, MaxComponents} {
		doc := large(n, n*510)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Check(b.Context(), bytes.NewReader(doc), int64(len(doc)), cycloneDX(), DefaultLimits()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "components/s")
		})
	}
}
