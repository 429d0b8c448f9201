package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"golang.org/x/sync/errgroup"
)

// sbomSize is how many components an SBOM has.
const sbomSize = 280

// searches measures how fast SBOMs are indexed, and how long it takes to find those
// that hold a component: in the store, and by the service over it.
func (c *config) searches(ctx context.Context, work string, l *limits) error {
	if err := c.indexing(ctx, filepath.Join(work, "index", "assay.db"), l); err != nil {
		return err
	}
	sizes := []struct {
		n    int
		goal string
	}{{10_000, "< 5 ms"}, {c.sboms, "< 50 ms"}}
	if c.sboms <= sizes[0].n {
		sizes = sizes[:1]
	}
	for _, size := range sizes {
		if err := c.search(ctx, filepath.Join(work, fmt.Sprintf("sboms-%d", size.n)), size.n, size.goal, l); err != nil {
			return err
		}
	}
	return nil
}

// indexing measures durable attestations of SBOMs, each with a bundle as large as one.
func (c *config) indexing(ctx context.Context, path string, l *limits) (err error) {
	st, err := store.Open(ctx, store.Config{Path: path})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	var salt [16]byte
	_, _ = rand.Read(salt[:])
	// Made before: what they cost is not the store's.
	made := make([]madeSBOM, 256)
	maker := newSBOMMaker(1)
	for i := range made {
		made[i].sbom = maker.make(sbomSize-3, 0, "")
		made[i].bundle = maker.bundle(made[i].sbom)
	}
	var n atomic.Int64
	r, err := c.median(ctx, 64, func(ctx context.Context, _ int) error {
		i := n.Add(1)
		id := digestOf(salt, uint64(i))
		one := made[i%int64(len(made))]
		sbom := *one.sbom
		sbom.Components = append(sbom.Components[:len(sbom.Components):len(sbom.Components)], unique(3, id)...)
		return putSBOM(ctx, st, i, id, nil, &sbom, one.bundle)
	})
	if err != nil {
		return err
	}
	row(fmt.Sprintf("index SBOMs of %d components, durable", sbomSize), rate(r), "≥ 500/s",
		fmt.Sprintf("%.1f signatures' time each on 2 processors; bundles of %d KiB; p50 %s", 2*float64(time.Second)/r.perSecond/float64(l.sign), len(made[0].bundle)>>10, ms(r.p50)))
	return nil
}

type madeSBOM struct {
	sbom   *store.SBOM
	bundle []byte
}

// asked is a question, and how many answers its first page has at least.
type asked struct {
	name string
	req  *assayv1.SearchComponentsRequest
	// Of which package the store is asked for all versions; none where it is the licence.
	namespace, component string
	matches              int
}

var questions = []asked{
	{"one version, in one SBOM", &assayv1.SearchComponentsRequest{Purl: "pkg:maven/org.example/rare@1.0.0"}, "org.example", "rare", 1},
	{"a range, in a few", &assayv1.SearchComponentsRequest{Purl: "pkg:maven/org.example/seldom@<20"}, "org.example", "seldom", 20},
	{"a range, in most", &assayv1.SearchComponentsRequest{Purl: "pkg:maven/org.example/library-0@<4"}, "org.example", "library-0", 50},
	{"a licence, in all", &assayv1.SearchComponentsRequest{License: "MIT"}, "", "", 50},
}

func (c *config) search(ctx context.Context, data string, n int, goal string, l *limits) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	start := time.Now()
	inStore, err := c.searchStore(ctx, data, n)
	if err != nil {
		return err
	}
	note("a store of %d SBOMs of %d components, each of one build, was filled in %s", n, sbomSize, time.Since(start).Round(time.Second))
	s, err := c.start(ctx, data)
	if err != nil {
		return err
	}
	defer s.stop()
	for i, q := range questions {
		audit := assayv1.NewAuditServiceClient(s.conn)
		r, err := c.median(s.ctx, 1, func(ctx context.Context, _ int) error {
			resp, err := audit.SearchComponents(ctx, q.req)
			if err == nil && len(resp.GetMatches()) < q.matches {
				err = fmt.Errorf("%s: %d matches", q.name, len(resp.GetMatches()))
			}
			return err
		})
		if err != nil {
			return err
		}
		row(fmt.Sprintf("search %d SBOMs: %s", n, q.name), ms(r.p50), goal,
			fmt.Sprintf("%.0f× gRPC echo; p99 %s; the store alone %s", ratio(r.p50, l.echo1.p50), ms(r.p99), ms(inStore[i].p50)))
	}
	return nil
}

// searchStore fills a store and measures it without the service.
func (c *config) searchStore(ctx context.Context, data string, n int) (all []result, err error) {
	st, err := store.Open(ctx, store.Config{Path: filepath.Join(data, "assay.db")})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := fillSBOMs(ctx, st, n); err != nil {
		return nil, err
	}
	for _, q := range questions {
		r, err := c.median(ctx, 1, func(ctx context.Context, _ int) error {
			search := store.ComponentSearch{License: q.req.GetLicense()}
			if q.component != "" {
				list, _, err := st.ComponentVersions(ctx, "maven", q.namespace, q.component, 0)
				if err != nil {
					return err
				}
				for _, v := range list {
					search.Components = append(search.Components, v.ID)
				}
			}
			hits, _, err := st.SearchComponents(ctx, search)
			if err == nil && len(hits) < q.matches {
				err = fmt.Errorf("%s: %d hits", q.name, len(hits))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// fillSBOMs stores n SBOMs the way the service does, many at a time, each beside the
// provenance of its artifact. Their bundles are small: searching does not read them.
func fillSBOMs(ctx context.Context, st *store.Store, n int) error {
	var salt [16]byte
	_, _ = rand.Read(salt[:])
	caller, err := builder().Marshal()
	if err != nil {
		return err
	}
	const workers = 64
	group, ctx := errgroup.WithContext(ctx)
	for w := range workers {
		group.Go(func() error {
			maker := newSBOMMaker(uint64(w))
			for i := w; i < n; i += workers {
				id := digestOf(salt, uint64(i))
				sbom := maker.make(sbomSize-3, 3, id)
				sbom.Components = append(sbom.Components, markers(i, n)...)
				err := putSBOM(ctx, st, int64(2*i), id, caller, sbom, []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`))
				if err == nil {
					err = putSBOM(ctx, st, int64(2*i+1), id, caller, nil, []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// markers are components that few SBOMs hold: one is in a single one, and one of 40
// versions of another in each hundredth.
func markers(i, n int) (out []store.Component) {
	add := func(name, version string) {
		out = append(out, store.Component{
			PURL: "pkg:maven/org.example/" + name + "@" + version, Type: "maven", Namespace: "org.example", Name: name, Version: version, Licenses: []string{"MIT"},
		})
	}
	if i == n/3 {
		add("rare", "1.0.0")
	}
	if i%100 == 7 {
		add("seldom", fmt.Sprint(i/100%40))
	}
	return out
}

// putSBOM makes an SBOM of an artifact durable and visible, or its provenance where
// there is none.
func putSBOM(ctx context.Context, st *store.Store, i int64, digest string, caller []byte, sbom *store.SBOM, bundle []byte) error {
	record := attestationOf(digest, i)
	if caller != nil {
		record.Caller = caller
	}
	if sbom != nil {
		record.PredicateType, record.SBOM = attest.PredicateCycloneDX, sbom
	}
	return complete(ctx, st, record, i, bundle, bundle)
}
