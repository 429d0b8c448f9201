package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// sbomMaker makes SBOMs as they are found: most components are in many of them, a few
// in no other. One maker is for one goroutine.
type sbomMaker struct {
	rng  *rand.Rand
	zipf *rand.Zipf
}

const sbomUniverse = 20_000

func newSBOMMaker(seed uint64) *sbomMaker {
	rng := rand.New(rand.NewPCG(seed, 4))
	return &sbomMaker{rng, rand.NewZipf(rng, 1.1, 20, sbomUniverse-1)}
}

// universal is the i-th component of the universe, the most popular first: of every
// name there are up to 40 versions, spread over it.
func universal(i int) Component {
	licenses := []string{"MIT", "Apache-2.0", "MIT", "ISC", "BSD-3-Clause", "MIT", "GPL-2.0-or-later", "LGPL-2.1-only"}
	name, version := fmt.Sprintf("library-%d", i%500), fmt.Sprintf("%d.%d.%d", i/500%7, i/500, i%11)
	return Component{
		PURL: "pkg:maven/org.example.group/" + name + "@" + version, Type: "maven", Namespace: "org.example.group",
		Name: name, Version: version, Licenses: []string{licenses[i%len(licenses)]},
	}
}

func (m *sbomMaker) make(n, unique int, id string) *SBOM {
	b := &SBOM{Complete: true, Format: "cyclonedx"}
	seen := make(map[uint64]bool, n)
	for len(b.Components) < n-unique {
		i := m.zipf.Uint64()
		if len(seen) > n/2 {
			i = m.rng.Uint64N(sbomUniverse) // a Zipf sample without repetition takes for ever
		}
		if !seen[i] {
			seen[i] = true
			b.Components = append(b.Components, universal(int(i)))
		}
	}
	for i := range unique {
		v := fmt.Sprintf("0.0.%d-%s", i, id[:12])
		b.Components = append(b.Components, Component{PURL: "pkg:npm/app@" + v, Type: "npm", Name: "app", Version: v, Licenses: []string{"MIT"}})
	}
	return b
}

// bundle is as large as the statement of such an SBOM makes it, and as compressible.
func (m *sbomMaker) bundle(b *SBOM) []byte {
	type hash struct{ Alg, Content string }
	type component struct {
		Type, Name, Version, PURL, Ref string
		Licenses                       []string
		Hashes                         []hash
	}
	var doc struct{ Components []component }
	for _, c := range b.Components {
		doc.Components = append(doc.Components, component{"library", c.Name, c.Version, c.PURL, c.PURL, c.Licenses, []hash{{"SHA-1", number(c.PURL, 0)[:40]}}})
	}
	payload, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payload":"` +
		base64.StdEncoding.EncodeToString(payload) + `","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"` +
		base64.StdEncoding.EncodeToString(benchBytes[:2400]) + `"}]}}`)
}

// BenchmarkIndexSBOM stores SBOMs of 280 components, each with its bundle.
func BenchmarkIndexSBOM(b *testing.B) {
	s := benchStore(b)
	ctx := context.Background()
	// Made before: what they cost is not the store's.
	const different = 512
	m := newSBOMMaker(1)
	var sboms [different]*SBOM
	var bundles [different][]byte
	for i := range sboms {
		sboms[i] = m.make(280, 0, "")
		bundles[i] = m.bundle(sboms[i])
	}
	inFlight(b, func(i int) error {
		p := benchPending(i)
		sbom := *sboms[i%different]
		sbom.Components = append(slices.Clone(sbom.Components[:277]), newSBOMMaker(uint64(i)).make(3, 3, p.ID).Components...)
		p.Record.SBOM, p.Envelope = &sbom, bundles[i%different]
		if err := s.BeginAttestation(ctx, p); err != nil {
			return err
		}
		return s.CompleteAttestation(ctx, p.ID, int64(i), bundles[i%different], LogHead{Size: uint64(i) + 1, Root: benchBytes[:32]})
	})
	b.ReportMetric(float64(len(bundles[0]))/1024, "bundle-KiB")
}

// fillSBOMs indexes n SBOMs, through the writer and its folds, with small bundles.
func fillSBOMs(b *testing.B, s *Store, n int) {
	b.Helper()
	var wg sync.WaitGroup
	const goroutines = 64
	for g := range goroutines {
		wg.Go(func() {
			m := newSBOMMaker(uint64(g))
			for i := g; i < n; i += goroutines {
				p := benchPending(i)
				p.Record.PredicateType = "https://cyclonedx.org/bom"
				p.Record.SBOM = m.make(280, 3, p.ID)
				if i == n/3 {
					p.Record.SBOM.Components = append(p.Record.SBOM.Components, Component{PURL: "pkg:npm/rare@1", Type: "npm", Name: "rare", Version: "1"})
				}
				if i%(n/100) == 7 { // one in a hundred, by turns one of 40 versions
					v := fmt.Sprint(i / (n / 100) % 40)
					p.Record.SBOM.Components = append(p.Record.SBOM.Components, Component{PURL: "pkg:maven/g/seldom@" + v, Type: "maven", Namespace: "g", Name: "seldom", Version: v})
				}
				if err := s.BeginAttestation(context.Background(), p); err != nil {
					b.Error(err)
					return
				}
				if err := s.CompleteAttestation(context.Background(), p.ID, int64(i), benchBytes[:100], LogHead{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkSearchComponents searches 10,000 SBOMs of 280 components, and 100,000 where
// ASSAY_BENCH_LARGE is set.
func BenchmarkSearchComponents(b *testing.B) {
	sizes := []int{10_000}
	if os.Getenv("ASSAY_BENCH_LARGE") != "" {
		sizes = append(sizes, 100_000)
	}
	for _, n := range sizes {
		b.Run(fmt.Sprintf("sboms=%d", n), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "assay.db")
			s, err := Open(context.Background(), Config{Path: path})
			must(b, err)
			b.Cleanup(func() { s.Close() })
			start := time.Now()
			fillSBOMs(b, s, n)
			b.Logf("filled in %s, %d MiB", time.Since(start), fileSize(b, path)>>20)
			ctx := context.Background()
			ids := func(typ, name string) (ids []int64) {
				list, _, err := s.ComponentVersions(ctx, typ, "", name, 0)
				must(b, err)
				for _, v := range list {
					ids = append(ids, v.ID)
				}
				return ids
			}
			popular, _, err := s.ComponentByPURL(ctx, universal(0).PURL)
			must(b, err)
			var mem runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&mem)
			b.Logf("heap %d MiB, %d segments", mem.HeapAlloc>>20, len(s.index.state.Load().segments))
			// All of the dictionary is asked for, and beyond it: each of the rarest is looked up.
			most := make([]int64, MaxSearchComponents)
			for i := range most {
				most[i] = int64(i + 1)
			}
			var rarest []int64
			must(b, s.EachComponentVersion(ctx, "app", func(v ComponentVersion) bool { rarest = append(rarest, v.ID); return len(rarest) < MaxSearchComponents }))
			b.Logf("%d components that are in one SBOM each", len(rarest))
			for _, q := range []struct {
				name string
				ComponentSearch
			}{
				{"popular", ComponentSearch{Components: []int64{popular.ID}}},
				{"rare", ComponentSearch{Components: ids("npm", "rare")}},
				{"MIT", ComponentSearch{License: "MIT"}},
				{"40 popular versions", ComponentSearch{Components: ids("maven", "library-0")}},
				{"40 versions", ComponentSearch{Components: ids("maven", "library-499")}},
				{"40 seldom versions", ComponentSearch{Components: ids("maven", "seldom")}},
				{"100,000 components", ComponentSearch{Components: most}},
				{"the rarest", ComponentSearch{Components: rarest}},
				{"rare and MIT", ComponentSearch{Components: ids("npm", "rare"), License: "MIT"}},
			} {
				b.Run(q.name, func(b *testing.B) {
					for range b.N {
						hits, _, err := s.SearchComponents(ctx, q.ComponentSearch)
						if err != nil || len(hits) == 0 || len(hits[0].Components) == 0 {
							b.Fatal(len(hits), err)
						}
					}
				})
			}
			// The most that a page can cost: no segment holds what fills it.
			b.Run("100,000 components in all segments", func(b *testing.B) {
				ask, err := s.question(ctx, ComponentSearch{Components: most}, listing{})
				must(b, err)
				for range b.N {
					if ns, err := s.findSBOMs(ctx, ask, n+1); err != nil || len(ns) != n {
						b.Fatal(len(ns), err)
					}
				}
			})
		})
	}
}
