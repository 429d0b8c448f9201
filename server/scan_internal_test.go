package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/check"
	"github.com/assay-build/assay/internal/sbom/sandbox"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/verify"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
	"pgregory.net/rapid"
)

// fakeScanner answers as a test says.
type fakeScanner struct {
	scan  func(ctx context.Context, name string) (*sbom.Inventory, error)
	check func(ctx context.Context) (*sbom.Inventory, *check.Report, error)
}

func (f fakeScanner) Scan(ctx context.Context, _, name string) (*sbom.Inventory, error) {
	return f.scan(ctx, name)
}

func (f fakeScanner) Check(ctx context.Context, _ string, _ check.Want) (*sbom.Inventory, *check.Report, error) {
	return f.check(ctx)
}

func testScans(t *testing.T, s scanner, workers int) *scanService {
	t.Helper()
	sp, err := openSpool(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	return newScanService(s, workers, sp, sbom.Tool{Name: "assay"}, newMetrics(prometheus.NewRegistry()))
}

// packages is an inventory of so many.
func packages(n int) *sbom.Inventory {
	inv := &sbom.Inventory{Format: "npm", Incomplete: []sbom.Reason{{Code: sbom.ReasonDepth, Path: "a/path"}}}
	for i := range n {
		inv.Components = append(inv.Components, sbom.Component{PURL: fmt.Sprintf("pkg:npm/p%d@1", i), Name: fmt.Sprint("p", i), Version: "1", Licenses: []string{"MIT"}})
	}
	inv.Normalize()
	return inv
}

// TestUploadIsBounded: beyond what the SBOMs of one upload may hold, the further ones
// say that there was too much. Which these are is decided by the order of the artifacts,
// in whichever order they are looked into.
func TestUploadIsBounded(t *testing.T) {
	t.Parallel()
	counts := []int{3, 3, 3, 1, 9, 0}
	whole := []int{3, 3, 0, 1, 0, 0}
	var first [][]byte
	for _, order := range [][]int{{0, 1, 2, 3, 4, 5}, {3, 2, 1, 0, 5, 4}, {2, 3, 0, 1, 4, 5}, {1, 3, 2, 4, 5, 0}} {
		ends := make([]chan struct{}, len(counts))
		for i := range ends {
			ends[i] = make(chan struct{})
		}
		service := testScans(t, fakeScanner{scan: func(_ context.Context, name string) (*sbom.Inventory, error) {
			i := int(name[0] - '0')
			<-ends[i]
			return packages(counts[i]), nil
		}}, 16)
		dir, err := service.spool.session()
		if err != nil {
			t.Fatal(err)
		}
		s := service.begin(t.Context(), party{"t", "c"}, dir)
		s.most.components = 7
		var waits sync.WaitGroup
		waits.Go(func() {
			for _, i := range order {
				close(ends[i])
			}
		})
		for i := range counts {
			name := fmt.Sprint(i)
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.add(t.Context(), file, store.Subject{Name: name, SHA256: strings.Repeat("ab", 32)}); err != nil {
				t.Fatal(err)
			}
		}
		waits.Wait()
		found, err := s.wait()
		if err != nil {
			t.Fatal(err)
		}
		var documents [][]byte
		for i, one := range found {
			document, err := os.ReadFile(one.file)
			if err != nil {
				t.Fatal(err)
			}
			documents = append(documents, document)
			n := 0
			h, err := sbom.Read(bytes.NewReader(document), func(sbom.Component) error { n++; return nil })
			if err != nil || n != whole[i] || one.components != n || one.bytes != int64(len(document)) || int(one.summary.GetComponentCount()) != n {
				t.Errorf("%v: artifact %d has %d components, %d in its summary (%v)", order, i, n, one.summary.GetComponentCount(), err)
			}
			cut := slices.Contains(h.Incomplete, string(sbom.ReasonComponents))
			if cut != (whole[i] < counts[i]) || !slices.Equal(h.Incomplete, one.summary.GetIncompleteReasons()) || !slices.Contains(h.Incomplete, string(sbom.ReasonDepth)) {
				t.Errorf("%v: artifact %d: %q, summary %q", order, i, h.Incomplete, one.summary.GetIncompleteReasons())
			}
			if one.outline != nil {
				t.Errorf("artifact %d is not settled", i)
			}
		}
		if first == nil {
			first = documents
		}
		if !reflect.DeepEqual(documents, first) {
			t.Errorf("%v: other documents than in order", order)
		}
		// The artifacts are gone, and nothing but the documents is there.
		if left, err := os.ReadDir(dir); err != nil || len(left) != len(counts) {
			t.Errorf("%d files (%v)", len(left), err)
		}
	}
}

// TestUploadBytesAreBounded is the same of bytes.
func TestUploadBytesAreBounded(t *testing.T) {
	t.Parallel()
	service := testScans(t, fakeScanner{scan: func(context.Context, string) (*sbom.Inventory, error) { return packages(50), nil }}, 1)
	dir, err := service.spool.session()
	if err != nil {
		t.Fatal(err)
	}
	s := service.begin(t.Context(), party{}, dir)
	s.most.bytes = 40 << 10
	for i := range 6 {
		if err := s.add(t.Context(), filepath.Join(dir, fmt.Sprint(i)), store.Subject{Name: "a", SHA256: strings.Repeat("ab", 32)}); err != nil {
			t.Fatal(err)
		}
	}
	found, err := s.wait()
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	whole := 0
	for _, one := range found {
		bytes += one.bytes
		if one.components > 0 {
			whole++
		}
	}
	if whole == 0 || whole == 6 || bytes > 50<<10 {
		t.Errorf("%d are whole, of %d bytes in all", whole, bytes)
	}
}

// TestReadIndex: what is indexed of a document is what was found.
func TestReadIndex(t *testing.T) {
	t.Parallel()
	licences := []string{"MIT", "MIT OR ISC", "GPL-2.0+", "Apache 2.0", "A licence of our own", "LicenseRef-x", "GPL-2.0-only WITH Classpath-exception-2.0", "(MIT AND BSD-3-Clause) OR ISC"}
	rapid.Check(t, func(t *rapid.T) {
		inv := &sbom.Inventory{Format: "oci-layout"}
		for i := range rapid.IntRange(0, 8).Draw(t, "components") {
			purl := fmt.Sprintf(rapid.SampledFrom([]string{"pkg:npm/%%40scope/p%d@1.0", "pkg:deb/debian/p%d@1:2~3?arch=amd64", "pkg:golang/example.com/p%d@v1", "pkg:generic/p%d"}).Draw(t, "purl"), i)
			inv.Components = append(inv.Components, sbom.Component{
				PURL: purl, Group: rapid.SampledFrom([]string{"", "g", "@scope"}).Draw(t, "group"), Name: "p", Version: "1",
				Licenses: rapid.SliceOfN(rapid.SampledFrom(licences), 0, 3).Draw(t, "licences"),
			})
		}
		if rapid.Bool().Draw(t, "incomplete") {
			inv.Incomplete = []sbom.Reason{{Code: sbom.ReasonMalformed, Path: "x"}}
		}
		inv.Normalize()
		document, err := sbom.Encode(sbom.Artifact{Name: "a", SHA256: strings.Repeat("ab", 32)}, inv, sbom.Tool{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := readIndex(document)
		if err != nil {
			t.Fatal(err)
		}
		want := claimedIndex(inv, new(check.Report))
		want.Claimed, want.Complete, want.Format = false, inv.Complete(), inv.Format
		if len(got.Components) == 0 && len(want.Components) == 0 {
			got.Components, want.Components = nil, nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v\nwant %+v", got, want)
		}
	})
}

// TestDocumentsHaveAPlace: a document is checked while any
// number of artifacts is looked into.
func TestDocumentsHaveAPlace(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 2, 4, 8} {
		scanning := workers
		began, end := make(chan struct{}, 16), make(chan struct{})
		service := testScans(t, fakeScanner{
			scan: func(context.Context, string) (*sbom.Inventory, error) {
				began <- struct{}{}
				<-end
				return packages(1), nil
			},
			check: func(context.Context) (*sbom.Inventory, *check.Report, error) {
				return packages(1), new(check.Report), nil
			},
		}, workers)
		dir, err := service.spool.session()
		if err != nil {
			t.Fatal(err)
		}
		uploads := make([]*scans, 4)
		for u := range uploads {
			uploads[u] = service.begin(t.Context(), party{"crowd", fmt.Sprint(u)}, dir)
			for i := range scanWindow {
				if err := uploads[u].add(t.Context(), filepath.Join(dir, fmt.Sprint(u, i)), store.Subject{Name: "a", SHA256: strings.Repeat("ab", 32)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range scanning {
			<-began
		}
		memory := service.reserve(party{"other", ""})
		if _, _, err := service.check(t.Context(), memory, "", 1<<20, check.Want{}); err != nil {
			t.Error(err)
		}
		if service.memory.free != scanMemory-sealFactor<<20 {
			t.Errorf("%d bytes are free of %d", service.memory.free, int64(scanMemory))
		}
		memory.drop()
		if len(began) != 0 {
			t.Errorf("%d workers: more than %d scans at once", workers, scanning)
		}
		close(end)
		for _, u := range uploads {
			if _, err := u.wait(); err != nil {
				t.Error(err)
			}
		}
		forgotten(t, service.scanning)
		forgotten(t, service.memory)
	}
}

// TestAbandon: an upload that goes away while its artifacts wait, or are looked into,
// leaves nothing waiting and gives back all it had.
func TestAbandon(t *testing.T) {
	t.Parallel()
	began := make(chan struct{}, 16)
	service := testScans(t, fakeScanner{scan: func(ctx context.Context, _ string) (*sbom.Inventory, error) {
		began <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}, 1)
	dir, err := service.spool.session()
	if err != nil {
		t.Fatal(err)
	}
	s := service.begin(t.Context(), party{"t", "c"}, dir)
	for i := range scanWindow {
		if err := s.add(t.Context(), filepath.Join(dir, fmt.Sprint(i)), store.Subject{Name: "a", SHA256: strings.Repeat("ab", 32)}); err != nil {
			t.Fatal(err)
		}
	}
	<-began
	s.abandon()
	if len(began) != 0 || service.scanning.waiting() != 0 {
		t.Errorf("%d more began, %d wait", len(began), service.scanning.waiting())
	}
	forgotten(t, service.scanning)
	forgotten(t, service.memory)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%d files (%v)", len(left), err)
	}
}

// TestSummariesAreSmall: what is kept of an artifact until the end of its upload does not
// grow with what its maker puts into it.
func TestSummariesAreSmall(t *testing.T) {
	t.Parallel()
	var long []string
	for i := range 1000 {
		long = append(long, fmt.Sprintf("%04d%s", i, strings.Repeat("x", 1000)))
	}
	if got := shownLicenses(long); len(got) != maxLicenseBytes/1004 {
		t.Errorf("%d licences", len(got))
	}
	short := make([]string, 1000)
	if got := shownLicenses(short); len(got) != maxLicensesShown {
		t.Errorf("%d licences", len(got))
	}
	if got := shownLicenses(nil); got != nil {
		t.Errorf("%q", got)
	}
}

// TestTogether: that there was no place for who asked first is said to them alone; who
// joined them has a share of their own.
func TestTogether(t *testing.T) {
	for _, code := range []refusal.Code{CodeOverloaded, sandbox.CodeScannerBusy} {
		synctest.Test(t, func(t *testing.T) {
			var group singleflight.Group
			full := make(chan struct{})
			first := make(chan error, 1)
			go func() {
				_, err := together(t.Context(), &group, "build", func(context.Context) (*assayv1.AttestResult, error) {
					<-full
					return nil, refusal.New(code, "of the first")
				})
				first <- err
			}()
			synctest.Wait()
			joined := make(chan error, 20)
			fetched := 0
			for range cap(joined) {
				go func() {
					result, err := together(t.Context(), &group, "build", func(context.Context) (*assayv1.AttestResult, error) {
						fetched++
						return &assayv1.AttestResult{Repeated: true}, nil
					})
					if err == nil && !result.GetRepeated() {
						err = errors.New("another result")
					}
					joined <- err
				}()
			}
			synctest.Wait()
			close(full)
			if err := <-first; refusal.CodeOf(err) != code {
				t.Errorf("the first: %v", err)
			}
			for range cap(joined) {
				if err := <-joined; err != nil {
					t.Errorf("one who joined: %v", err)
				}
			}
			if fetched == 0 {
				t.Error("nobody fetched")
			}
			// What is not about a share is everybody's.
			if _, err := together(t.Context(), &group, "build", func(context.Context) (*assayv1.AttestResult, error) {
				return nil, refusal.New(CodeInternal, "x")
			}); refusal.CodeOf(err) != CodeInternal {
				t.Error(err)
			}
		})
	}
}

// counting counts records, by attestation.
type counting struct {
	slog.Handler
	mu   sync.Mutex
	seen map[string]int
}

func (c *counting) Enabled(context.Context, slog.Level) bool { return true }

func (c *counting) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "attestation_id" {
			c.seen[a.Value.String()]++
		}
		return true
	})
	return nil
}

// badSBOM stores what is no bundle.
func badSBOM(t *testing.T, st *store.Store, artifact string, origin assayv1.DigestOrigin) string {
	t.Helper()
	sum := sha256.Sum256([]byte(origin.String()))
	record := &store.Attestation{
		ID: hex.EncodeToString(sum[:]), PredicateType: attest.PredicateCycloneDX, Principal: "p", Caller: []byte("{}"), CreatedAt: time.Unix(1700000000, 0),
		SBOM: &store.SBOM{}, Subjects: []store.Subject{{Name: "a", SHA256: artifact, Kind: 1, Origin: int(origin)}},
	}
	if err := st.BeginAttestation(t.Context(), &store.Pending{
		ID: record.ID, Envelope: []byte("{}"), LogBody: sum[:], LeafHash: sum[:], Timestamp: sum[:], Record: record, CreatedAt: record.CreatedAt,
	}); err != nil {
		t.Fatal(err)
	}
	if err := st.CompleteAttestation(t.Context(), record.ID, int64(origin), []byte("{}"), store.LogHead{}); err != nil {
		t.Fatal(err)
	}
	return record.ID
}

// TestBadSBOMIsReadOnce: an SBOM that does not verify is not read again at every
// decision, and is logged once. What the policy does not look at is not read at all.
func TestBadSBOMIsReadOnce(t *testing.T) {
	t.Parallel()
	st, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "assay.db"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	artifact := strings.Repeat("ab", 32)
	made := badSBOM(t, st, artifact, assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED)
	claimed := badSBOM(t, st, artifact, assayv1.DigestOrigin_DIGEST_ORIGIN_CLAIMED)
	for rule, want := range map[string][]string{
		`@id("r") @message("m") permit (principal, action, resource) when { context.environment == "prod" && resource has provenance && resource.provenance.trusted && resource has sbom };`:                             {made},
		`@id("r") @message("m") permit (principal, action, resource) when { context.environment == "prod" && resource has provenance && resource.provenance.trusted && resource has claimedSbom };`:                      {claimed},
		`@id("r") @message("m") permit (principal, action, resource) when { context.environment == "prod" && resource has provenance && resource.provenance.trusted && resource has sbom && resource has claimedSbom };`: {made, claimed},
		`@id("r") @message("m") permit (principal, action, resource) when { context.environment == "prod" && resource has provenance && resource.provenance.trusted };`:                                                  nil,
	} {
		set, err := policy.Compile([]byte(rule))
		if err != nil {
			t.Fatal(err)
		}
		log := &counting{Handler: slog.DiscardHandler, seen: map[string]int{}}
		e, err := newEvidenceSource(st, verify.New(nil), slog.New(log))
		if err != nil {
			t.Fatal(err)
		}
		s, err := newSBOMSource(e, set)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got, err := s.lookup(t.Context(), artifact); err != nil || len(got) != 0 {
				t.Fatalf("%d SBOMs (%v)", len(got), err)
			}
		}
		for _, id := range []string{made, claimed} {
			n := 0
			if slices.Contains(want, id) {
				n = 1
			}
			_, kept := s.byID.get(id)
			if log.seen[id] != n || kept != (n == 1) {
				t.Errorf("%s: %s was logged %d times, want %d; kept: %t", rule, id, log.seen[id], n, kept)
			}
		}
		if !s.reading.TryAcquire(sbomReading) {
			t.Error("memory is not given back")
		}
	}
}
