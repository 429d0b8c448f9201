package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"
)

// searchWorld is an audit service over a store that tests fill themselves.
type searchWorld struct {
	*auditService
	n atomic.Int64
}

func newSearchWorld(t testing.TB) *searchWorld {
	t.Helper()
	st, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "assay.db"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	access, err := policy.CompileAccess([]byte(policy.DefaultAccess()))
	if err != nil {
		t.Fatal(err)
	}
	known, err := newCallers(nil)
	if err != nil {
		t.Fatal(err)
	}
	az, err := newAuthorizer(access, known, slog.New(slog.DiscardHandler), newMetrics(prometheus.NewRegistry()))
	if err != nil {
		t.Fatal(err)
	}
	return &searchWorld{auditService: &auditService{store: st, authorizer: az}}
}

// tenant is a build of some account.
func tenant(id int64) *identity.Caller {
	return &identity.Caller{
		Kind: identity.KindGitHubActions, Issuer: "https://token.actions.githubusercontent.com", DisplayName: fmt.Sprintf("t%d/app@refs/heads/main run 1/1", id),
		GitHub: &identity.GitHubActions{
			Repository: fmt.Sprintf("t%d/app", id), RepositoryID: id*10 + 1, RepositoryOwner: fmt.Sprintf("t%d", id), RepositoryOwnerID: id,
			WorkflowRef:    fmt.Sprintf("t%d/app/.github/workflows/w.yml@refs/heads/main", id),
			JobWorkflowRef: fmt.Sprintf("t%d/app/.github/workflows/w.yml@refs/heads/main", id),
			Ref:            "refs/heads/main", SHA: strings.Repeat("61", 20), EventName: "push", RunnerEnvironment: "github-hosted", RunID: 3, RunAttempt: 1, ServerURL: "https://github.com",
		},
	}
}

func (w *searchWorld) as(ctx context.Context, c *identity.Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, session{caller: c})
}

func digestOf(v ...any) string {
	sum := sha256.Sum256(fmt.Append(nil, v...))
	return hex.EncodeToString(sum[:])
}

// put stores an attestation of a digest, an SBOM where there is one, and returns its id.
func (w *searchWorld) put(ctx context.Context, c *identity.Caller, sha256Hex string, b *store.SBOM) (string, error) {
	caller, err := c.Marshal()
	if err != nil {
		return "", err
	}
	i := w.n.Add(1)
	record := &store.Attestation{
		ID: digestOf("statement", i), PredicateType: attest.PredicateSLSAProvenanceV1, BuilderID: "https://assay.example/builders/dev",
		InvocationID: fmt.Sprintf("https://github.com/%s/actions/runs/%d/attempts/1", c.GitHub.Repository, i), SourceURI: "git+https://github.com/" + c.GitHub.Repository,
		SourceCommit: strings.Repeat("61", 20), Caller: caller, CreatedAt: time.Unix(1700000000+i, 0), SBOM: b,
		Subjects: []store.Subject{{Name: "app", SHA256: sha256Hex, Kind: 1, Origin: 1, Size: 1}},
	}
	if b != nil {
		record.PredicateType = attest.PredicateCycloneDX
	}
	leaf := sha256.Sum256([]byte(record.ID))
	err = w.store.BeginAttestation(ctx, &store.Pending{
		ID: record.ID, Envelope: []byte("{}"), LogBody: leaf[:], LeafHash: leaf[:], Timestamp: leaf[:], Record: record, CreatedAt: record.CreatedAt,
	})
	if err != nil {
		return "", err
	}
	return record.ID, w.store.CompleteAttestation(ctx, record.ID, i, []byte("{}"), store.LogHead{})
}

func indexed(purls ...string) *store.SBOM {
	b := &store.SBOM{Format: "cyclonedx"}
	for _, text := range purls {
		p, err := sbom.ParsePURL(text)
		if err != nil {
			panic(err)
		}
		b.Components = append(b.Components, store.Component{PURL: p.String(), Type: p.Type, Namespace: p.Namespace, Name: p.Name, Version: p.Version})
	}
	return b
}

// answer is all pages of an answer.
type answer struct {
	ids, undecided []string
	environments   map[string][]string
	builds         map[string]int
	truncated      bool
}

func (w *searchWorld) ask(t rapid.TB, c *identity.Caller, req *assayv1.SearchComponentsRequest, l searchLimits) answer {
	t.Helper()
	out := answer{environments: map[string][]string{}, builds: map[string]int{}}
	for {
		resp, err := w.searchComponents(w.as(context.Background(), c), req, l)
		if err != nil {
			t.Fatal(err)
		}
		out.truncated = out.truncated || resp.GetTruncated()
		out.undecided = resp.GetUndecidedPurls()
		for _, m := range resp.GetMatches() {
			out.ids = append(out.ids, m.GetAttestationId())
			out.environments[m.GetAttestationId()] = m.GetEnvironments()
			out.builds[m.GetAttestationId()] = len(m.GetBuilds())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return out
		}
	}
}

// TestSearchIsWholeOrSaysSo: whatever others put beside it, what a caller has is found,
// or the answer says that it may lack something; and nothing of the others is in it.
func TestSearchIsWholeOrSaysSo(t *testing.T) {
	t.Parallel()
	w := newSearchWorld(t)
	var space, cut, whole int
	rapid.Check(t, func(t *rapid.T) {
		space++ // each run has packages of its own
		name := fmt.Sprintf("p%d", space)
		purl := func(version string) string { return "pkg:npm/" + name + "@" + version }
		mine := map[string][]string{} // version → SBOMs
		version := rapid.SampledFrom([]string{"1.0.0", "1.2.0", "1.2", "2.0.0", "3.1.4", "weird", "odd!"})
		var undecided []string
		for range rapid.IntRange(1, 12).Draw(t, "writes") {
			if rapid.Bool().Draw(t, "flood") {
				from := rapid.IntRange(0, 2000).Draw(t, "from")
				var purls []string
				for i := range rapid.IntRange(1, 700).Draw(t, "flooded") {
					switch rapid.IntRange(0, 20).Draw(t, "kind") {
					case 0:
						purls = append(purls, purl(fmt.Sprint("x", from+i)))
					case 1:
						purls = append(purls, purl("1.2.0")+fmt.Sprint("?q=", from+i))
					case 2:
						purls = append(purls, fmt.Sprintf("pkg:pypi/%s@1.%d", name, from+i))
					default:
						purls = append(purls, purl(fmt.Sprint("1.2.", from+i)))
					}
				}
				if _, err := w.put(t.Context(), tenant(2), digestOf("theirs", space), indexed(purls...)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			v := version.Draw(t, "version")
			id, err := w.put(t.Context(), tenant(1), digestOf("mine", space, v), indexed(purl(v)))
			if err != nil {
				t.Fatal(err)
			}
			mine[v] = append(mine[v], id)
			if v == "weird" || v == "odd!" {
				undecided = append(undecided, indexed(purl(v)).Components[0].PURL)
			}
		}
		slices.Sort(undecided)
		undecided = slices.Compact(undecided)
		limits := searchLimits{
			packages: rapid.SampledFrom([]int{1, 10, 500, store.MaxSearchComponents}).Draw(t, "packages"),
			compare:  rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(t, "compare"), decide: time.Hour,
			undecidedRows: rapid.SampledFrom([]int{1, maxRowsRead}).Draw(t, "rows"),
		}
		q := rapid.SampledFrom([]struct {
			req       *assayv1.SearchComponentsRequest
			versions  []string
			undecided bool
		}{
			{&assayv1.SearchComponentsRequest{Purl: "pkg:npm/" + name}, []string{"1.0.0", "1.2.0", "1.2", "2.0.0", "3.1.4", "weird", "odd!"}, false},
			{&assayv1.SearchComponentsRequest{Name: name}, []string{"1.0.0", "1.2.0", "1.2", "2.0.0", "3.1.4", "weird", "odd!"}, false},
			{&assayv1.SearchComponentsRequest{Purl: purl("2.0.0")}, []string{"2.0.0"}, false},
			{&assayv1.SearchComponentsRequest{Purl: purl("1.2.0")}, []string{"1.2.0", "1.2"}, false},
			{&assayv1.SearchComponentsRequest{Purl: purl("weird")}, []string{"weird"}, false},
			{&assayv1.SearchComponentsRequest{Purl: purl("<2")}, []string{"1.0.0", "1.2.0", "1.2"}, true},
			{&assayv1.SearchComponentsRequest{Name: name, VersionRange: ">=2"}, []string{"2.0.0", "3.1.4"}, true},
		}).Draw(t, "question")
		q.req.PageToken, q.req.PageSize = "", rapid.Int32Range(0, 9).Draw(t, "page size")
		got := w.ask(t, tenant(1), q.req, limits)
		var want []string
		for _, v := range q.versions {
			want = append(want, mine[v]...)
		}
		if !q.undecided {
			undecided = nil
		}
		slices.Sort(want)
		slices.Sort(got.ids)
		if len(slices.Compact(slices.Clone(got.ids))) != len(got.ids) {
			t.Fatalf("twice: %v", got.ids)
		}
		if !got.truncated {
			whole++
			if !slices.Equal(got.ids, want) || !slices.Equal(got.undecided, undecided) {
				t.Fatalf("%v: found %d and %q, not %d and %q", q.req, len(got.ids), got.undecided, len(want), undecided)
			}
		} else {
			cut++
		}
		for _, id := range got.ids {
			if !slices.Contains(want, id) {
				t.Fatalf("%v: %s is not the caller's, or not what was asked for", q.req, id)
			}
		}
		for _, p := range got.undecided {
			if !slices.Contains(undecided, p) {
				t.Fatalf("%v: %s is not the caller's, or not undecided", q.req, p)
			}
		}
		if limits.packages == store.MaxSearchComponents && limits.compare > 0 && limits.undecidedRows == maxRowsRead && got.truncated {
			t.Fatalf("%v: cut short for nothing", q.req)
		}
	})
	if cut == 0 || whole == 0 {
		t.Errorf("%d answers were cut short, %d were whole", cut, whole)
	}
}

// TestSearchPastAFlood: what one build invents of a package hides nothing of it from
// anybody: not the version that was asked for, not what was there before, and as long
// as there is time for all, nothing.
func TestSearchPastAFlood(t *testing.T) {
	t.Parallel()
	w := newSearchWorld(t)
	put := func(c *identity.Caller, name string, b *store.SBOM) string {
		t.Helper()
		id, err := w.put(t.Context(), c, digestOf(name), b)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	before := put(tenant(1), "before", indexed("pkg:npm/lodash@4.17.19", "pkg:npm/lodash@nobody-knows", "pkg:maven/g/m@1.0"))
	const flood = 10_001
	list := make([]string, 0, flood)
	for i := range flood {
		list = append(list, fmt.Sprintf("pkg:npm/lodash@4.17.20-%d", i))
	}
	for part := range slices.Chunk(list, sbom.MaxVersions) {
		put(tenant(2), "flood", indexed(part...))
	}
	after := put(tenant(1), "after", indexed("pkg:npm/lodash@4.17.20", "pkg:npm/lodash@4.17.20?arch=x", "pkg:npm/lodash@v4.17.20", "pkg:npm/lodash@5.0.0"))
	all := defaultSearchLimits()
	all.compare = time.Hour // of a machine that does other things too
	none := all
	none.compare = 0
	few := all
	few.packages = 3
	for _, tt := range []struct {
		name, purl string
		limits     searchLimits
		want       []string
		undecided  int
		truncated  bool
	}{
		{"that version", "pkg:npm/lodash@4.17.20", all, []string{after}, 0, false},
		{"that version and no time", "pkg:npm/lodash@4.17.20", none, []string{after}, 0, true},
		{"an older one", "pkg:npm/lodash@4.17.19", none, []string{before}, 0, true},
		{"another spelling", "pkg:npm/lodash@v4.17.20", all, []string{after}, 0, false},
		{"another spelling alone", "pkg:npm/lodash@v5.0.0", all, []string{after}, 0, false},
		{"qualifiers", "pkg:npm/lodash@4.17.20?arch=x", none, []string{after}, 0, true},
		{"no such version", "pkg:npm/lodash@4.17.21", all, nil, 0, false},
		{"a range", "pkg:npm/lodash@<6", all, []string{after, before}, 1, false},
		{"a range and no time", "pkg:npm/lodash@<6", none, []string{before}, 1, true},
		{"a range and no room", "pkg:npm/lodash@<6", few, []string{before}, 1, true},
		{"any version", "pkg:npm/lodash", all, []string{after, before}, 0, false},
		{"any version and no time", "pkg:npm/lodash", none, []string{before}, 0, true},
		{"another package", "pkg:maven/g/m@1.0.0", none, []string{before}, 0, false},
	} {
		got := w.ask(t, tenant(1), &assayv1.SearchComponentsRequest{Purl: tt.purl}, tt.limits)
		if !slices.Equal(got.ids, tt.want) || len(got.undecided) != tt.undecided || got.truncated != tt.truncated {
			t.Errorf("%s: %d found of %d, undecided %q, truncated = %t", tt.name, len(got.ids), len(tt.want), got.undecided, got.truncated)
		}
	}
	began := time.Now()
	if got := w.ask(t, tenant(1), &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash@<4.17.20"}, all); len(got.ids) != 1 {
		t.Errorf("%v", got)
	}
	t.Logf("a range of %d versions: %s", flood, time.Since(began))
}

// TestSearchTellsOfUndecided: there may be more of them than are listed.
func TestSearchTellsOfUndecided(t *testing.T) {
	t.Parallel()
	w := newSearchWorld(t)
	many := func(n int, at string) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("pkg:npm/a@%s-%d", at, i))
		}
		return list
	}
	put := func(c *identity.Caller, b *store.SBOM) {
		t.Helper()
		if _, err := w.put(t.Context(), c, digestOf("app"), b); err != nil {
			t.Fatal(err)
		}
	}
	question := func() *assayv1.SearchComponentsRequest { return &assayv1.SearchComponentsRequest{Purl: "pkg:npm/a@<2"} }
	put(tenant(1), indexed(many(40, "x")...))
	put(tenant(1), indexed(many(40, "y")...))
	if got := w.ask(t, tenant(1), question(), defaultSearchLimits()); len(got.undecided) != 80 || got.truncated {
		t.Errorf("%d, truncated = %t", len(got.undecided), got.truncated)
	}
	put(tenant(2), indexed(many(sbom.MaxVersions, "z")...))
	if got := w.ask(t, tenant(1), question(), defaultSearchLimits()); len(got.undecided) != 80 || got.truncated {
		t.Errorf("beside another's: %d, truncated = %t", len(got.undecided), got.truncated)
	}
	short := defaultSearchLimits()
	short.undecidedRows = 1
	if got := w.ask(t, tenant(1), question(), short); len(got.undecided) != 0 || !got.truncated {
		t.Errorf("behind another's: %d, truncated = %t", len(got.undecided), got.truncated)
	}
	put(tenant(1), indexed(many(40, "w")...))
	if got := w.ask(t, tenant(1), question(), defaultSearchLimits()); len(got.undecided) != maxUndecided || !got.truncated {
		t.Errorf("of 120: %d, truncated = %t", len(got.undecided), got.truncated)
	}
	if got := w.ask(t, tenant(2), question(), defaultSearchLimits()); len(got.undecided) != maxUndecided || !got.truncated {
		t.Errorf("of %d in one: %d, truncated = %t", sbom.MaxVersions, len(got.undecided), got.truncated)
	}
}

// TestSearchHidesDecisionsOfOthers: an artifact that two tenants have was allowed where
// the caller may read that it was, whoever asked later or more often.
func TestSearchHidesDecisionsOfOthers(t *testing.T) {
	t.Parallel()
	w := newSearchWorld(t)
	shared := digestOf("shared")
	n := 0
	decide := func(c *identity.Caller, environment string, passed bool) {
		t.Helper()
		n++
		d := &store.Decision{ID: fmt.Sprint("d", n), SHA256: shared, Environment: environment, Passed: passed, CreatedAt: time.Unix(int64(n), 0)}
		if c != nil {
			caller, err := c.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			d.Caller = caller
		}
		if err := w.store.SaveDecision(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []*identity.Caller{tenant(1), tenant(2)} {
		if _, err := w.put(t.Context(), c, shared, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := w.put(t.Context(), c, shared, indexed("pkg:npm/a@1.0.0")); err != nil {
			t.Fatal(err)
		}
	}
	decide(tenant(1), "staging", true)
	decide(tenant(1), "prod", true)
	decide(tenant(1), "refused", false)
	decide(tenant(2), "their-secret-project", true)
	decide(nil, "whose-nobody-knows", true)
	for range 150 {
		decide(tenant(2), "prod", true)
	}
	decide(tenant(2), "staging", false)
	ask := func(c *identity.Caller, l searchLimits) ([]string, bool) {
		t.Helper()
		got := w.ask(t, c, &assayv1.SearchComponentsRequest{Purl: "pkg:npm/a"}, l)
		if len(got.ids) != 1 || got.builds[got.ids[0]] != 1 {
			t.Fatalf("%+v", got)
		}
		return got.environments[got.ids[0]], got.truncated
	}
	for id, want := range map[int64][]string{1: {"prod", "staging"}, 2: {"prod", "their-secret-project"}} {
		if got, cut := ask(tenant(id), defaultSearchLimits()); !slices.Equal(got, want) || cut {
			t.Errorf("tenant %d: %q, truncated = %t", id, got, cut)
		}
	}
	late := defaultSearchLimits()
	late.decide = 0
	if got, cut := ask(tenant(1), late); len(got) != 0 || !cut {
		t.Errorf("no time: %q, truncated = %t", got, cut)
	}
}

// BenchmarkSearchComponents is the first page of 50, of 10,000 SBOMs of 280 components
// with a build and two decisions each, all of them the caller's.
func BenchmarkSearchComponents(b *testing.B) {
	w := newSearchWorld(b)
	const n = 10_000
	caller, err := tenant(1).Marshal()
	if err != nil {
		b.Fatal(err)
	}
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(64)
	for i := range n {
		group.Go(func() error {
			rng := rand.New(rand.NewPCG(uint64(i), 4))
			list := make([]store.Component, 0, 280)
			add := func(name, version string) {
				list = append(list, store.Component{
					PURL: "pkg:maven/org.example/" + name + "@" + version, Type: "maven", Namespace: "org.example", Name: name, Version: version, Licenses: []string{"MIT"},
				})
			}
			for j := range 276 {
				add(fmt.Sprintf("library-%d", j), fmt.Sprintf("%d.%d", rng.IntN(7), rng.IntN(6)))
			}
			add("own", fmt.Sprint(i))
			if i == n/3 {
				add("rare", "1.0.0")
			}
			digest := digestOf("artifact", i)
			for _, s := range []*store.SBOM{nil, {Complete: true, Format: "cyclonedx", Components: list}} {
				if _, err := w.put(ctx, tenant(1), digest, s); err != nil {
					return err
				}
			}
			for j, e := range []string{"prod", "staging"} {
				err := w.store.SaveDecision(ctx, &store.Decision{ID: fmt.Sprint(i, j), SHA256: digest, Environment: e, Passed: true, Caller: caller, Answer: make([]byte, 2000), CreatedAt: time.Unix(1, 0)})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	for _, q := range []struct {
		name string
		req  *assayv1.SearchComponentsRequest
	}{
		{"one version", &assayv1.SearchComponentsRequest{Purl: "pkg:maven/org.example/rare@1.0.0"}},
		{"a range", &assayv1.SearchComponentsRequest{Purl: "pkg:maven/org.example/library-0@<4"}},
		{"a range of 10,000", &assayv1.SearchComponentsRequest{Purl: "pkg:maven/org.example/own@<9000"}},
		{"any of 10,000", &assayv1.SearchComponentsRequest{Purl: "pkg:maven/org.example/own"}},
		{"a licence", &assayv1.SearchComponentsRequest{License: "MIT"}},
	} {
		b.Run(q.name, func(b *testing.B) {
			as := w.as(b.Context(), tenant(1))
			for range b.N {
				resp, err := w.SearchComponents(as, q.req)
				if err != nil || len(resp.GetMatches()) == 0 || resp.GetTruncated() || len(resp.GetMatches()[0].GetEnvironments()) != 2 || len(resp.GetMatches()[0].GetBuilds()) != 1 {
					b.Fatal(resp, err)
				}
			}
		})
	}
}
