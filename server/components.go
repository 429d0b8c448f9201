package server

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/versions"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// maxCompareTime bounds how long one call compares versions; another bound is
	// store.MaxSearchComponents.
	maxCompareTime = time.Second
	// compareStep is how many versions are compared before somebody looks at the clock.
	compareStep = 256
	// maxDecisionTime bounds how long one call reads decisions, for environments.
	maxDecisionTime = time.Second
	// maxUndecided bounds what is listed of versions that no order knows.
	maxUndecided = 100
	// maxComponentsShown is how many components of an SBOM a match names, and
	// maxBuildsShown how many builds of its artifact.
	maxComponentsShown, maxBuildsShown = 25, 20
	componentStep                      = 64
	// maxSearchText is how long the name or the licence of a question may be: twice what
	// the index keeps of one.
	maxSearchText = 2 << 10
)

// searchLimits bound what one call looks at. Everybody's versions and decisions stand
// beside the caller's, so whatever is cut short is told.
type searchLimits struct {
	packages        int
	compare, decide time.Duration
	// undecidedRows is how many SBOMs are read for versions that no order knows.
	undecidedRows int
}

func defaultSearchLimits() searchLimits {
	return searchLimits{packages: store.MaxSearchComponents, compare: maxCompareTime, decide: maxDecisionTime, undecidedRows: maxRowsRead}
}

// componentSearch is one call.
type componentSearch struct {
	*auditService
	caller *identity.Caller
	limits searchLimits
	// environments and builds are those that are known by the digest; deciding is how
	// long the first took.
	environments map[string][]string
	builds       map[string][]*assayv1.ComponentBuild
	deciding     time.Duration
	truncated    bool
}

// SearchComponents answers which artifacts hold a package, of which builds, and where
// they were allowed. Rows that the caller may not read are left out.
func (a *auditService) SearchComponents(ctx context.Context, req *assayv1.SearchComponentsRequest) (*assayv1.SearchComponentsResponse, error) {
	return a.searchComponents(ctx, req, defaultSearchLimits())
}

func (a *auditService) searchComponents(ctx context.Context, req *assayv1.SearchComponentsRequest, limits searchLimits) (*assayv1.SearchComponentsResponse, error) {
	for _, f := range [...]struct{ name, text string }{{"name", req.GetName()}, {"license", req.GetLicense()}} {
		if len(f.text) > maxSearchText { // the other two have limits of their own
			return nil, refusal.New(CodeRequestInvalid, "%d bytes; the limit is %d", len(f.text), maxSearchText).InField(f.name)
		}
	}
	q, err := sbom.ParseQuery(req.GetPurl(), req.GetName(), req.GetVersionRange(), req.GetLicense())
	if err != nil {
		return nil, err
	}
	s := &componentSearch{auditService: a, caller: sessionFrom(ctx).caller, limits: limits, environments: make(map[string][]string), builds: make(map[string][]*assayv1.ComponentBuild)}
	search := store.ComponentSearch{
		License: q.License, Key: fmt.Sprintf("%q %q %q %q", req.GetPurl(), req.GetName(), req.GetVersionRange(), req.GetLicense()),
	}
	resp := &assayv1.SearchComponentsResponse{}
	if q.Key != "" || q.Name != "" {
		var undecided []int64
		if search.Components, undecided, err = s.packagesOf(ctx, q); err != nil {
			return nil, err
		}
		if resp.UndecidedPurls, err = s.undecided(ctx, undecided); err != nil {
			return nil, err
		}
	}
	resp.Matches, resp.NextPageToken, err = readPage(store.Query{PageSize: int(req.GetPageSize()), PageToken: req.GetPageToken()}, componentStep,
		func(p store.Query) ([]*hit, string, error) {
			search.PageSize, search.PageToken = p.PageSize, p.PageToken
			found, next, err := a.store.SearchComponents(ctx, search)
			if err != nil {
				return nil, "", err
			}
			hits, err := s.readable(ctx, found)
			return hits, next, err
		}, s.match)
	if err != nil {
		return nil, err
	}
	resp.Truncated = s.truncated
	return resp, nil
}

// packagesOf returns the versions that the question is about, an empty list that is not
// nil where there are none, and those of which no order can tell. They are out of the
// dictionary, which is everybody's: nothing of them is the caller's to see yet. Whoever
// fills it hides nothing: the very version that was asked for is looked up by itself,
// and others are compared in the order in which they came.
func (s *componentSearch) packagesOf(ctx context.Context, q *sbom.Query) (ids, undecided []int64, err error) {
	typ, namespace, name := "", "", q.Name
	if q.Key != "" {
		p, err := sbom.ParsePURL(q.Key)
		if err != nil {
			return nil, nil, err
		}
		typ, namespace, name = p.Type, p.Namespace, p.Name
	}
	ids = []int64{}
	began, seen := time.Now(), 0
	take := func(v store.ComponentVersion, wanted bool) bool {
		if len(ids)+len(undecided) >= s.limits.packages || seen%compareStep == compareStep-1 && time.Since(began) >= s.limits.compare {
			s.truncated = true
			return false
		}
		if seen++; !wanted {
			return true
		}
		switch matches, err := askedFor(q, &v); {
		case err != nil:
			undecided = append(undecided, v.ID)
		case matches:
			ids = append(ids, v.ID)
		}
		return true
	}
	if q.Version != "" {
		err := s.store.EachComponentOfVersion(ctx, typ, namespace, name, q.Version, func(v store.ComponentVersion) bool { return take(v, true) })
		if err != nil || s.truncated || !versions.Ordered(typ) {
			return ids, undecided, err
		}
	}
	err = s.store.EachComponentVersion(ctx, name, func(v store.ComponentVersion) bool {
		isPackage := q.Key == "" || v.Type == typ && v.Namespace == namespace
		// With a version, what is left to find is other spellings of it.
		return take(v, isPackage && (q.Version == "" || v.Version != q.Version))
	})
	return ids, undecided, err
}

// undecided names those packages that some SBOM holds which the caller may read, within
// the bounds of a page: the newest SBOMs first.
func (s *componentSearch) undecided(ctx context.Context, ids []int64) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	found, began := make(map[string]struct{}), time.Now()
	search := store.ComponentSearch{Components: ids, PageSize: min(componentStep, s.limits.undecidedRows)}
	for seen := 0; ; {
		hits, next, err := s.store.SearchComponents(ctx, search)
		if err != nil {
			return nil, err
		}
		for _, hit := range hits {
			may, err := s.mayRead(hit.Attestation)
			if err != nil {
				return nil, err
			}
			if !may {
				continue
			}
			for _, c := range hit.Components {
				found[cmp.Or(c.PURL, c.Name+"@"+c.Version)] = struct{}{}
			}
			// An SBOM names only the first of very many.
			s.truncated = s.truncated || len(hit.Components) >= maxUndecided
		}
		if seen, search.PageToken = seen+len(hits), next; next == "" {
			break
		}
		if seen >= s.limits.undecidedRows || time.Since(began) >= maxListTime || len(found) > maxUndecided {
			s.truncated = true
			break
		}
	}
	list := slices.Sorted(maps.Keys(found))
	s.truncated = s.truncated || len(list) > maxUndecided
	return list[:min(len(list), maxUndecided)], nil
}

// askedFor reports whether a package is one that was asked for; an error says that
// nobody can tell.
func askedFor(q *sbom.Query, v *store.ComponentVersion) (bool, error) {
	if q.Name != "" && q.Name != v.Name {
		return false, nil
	}
	p, err := sbom.ParsePURL(v.PURL)
	if v.PURL == "" || err != nil {
		// An attached SBOM may name no package URL: such a component is of no ecosystem.
		if q.Key != "" {
			return false, nil
		}
		return q.MatchesVersion("", v.Version)
	}
	return q.Matches(p)
}

// mayRead decides about an attestation, and remembers what may be read as Verify does:
// a page of 50 asks a hundred times.
func (s *componentSearch) mayRead(row *store.Attestation) (bool, error) {
	q := evidenceQuestion{s.authorizer.callers.view(s.caller), row.ID}
	if may, ok := s.authorizer.shown.Get(q); ok {
		return may, nil
	}
	on, _, err := attestationResource(row)
	if err != nil || !s.authorizer.mayRead(s.caller, on) {
		return false, err // others' rows, of which there are many, displace nothing
	}
	s.authorizer.shown.Add(q, true)
	return true, nil
}

// hit is an SBOM that was found. The subject is nil where the caller may not read it.
type hit struct {
	store.ComponentHit
	subject *store.Subject
}

// readable tells which hits the caller may read, and looks up what is told beside those.
func (s *componentSearch) readable(ctx context.Context, found []store.ComponentHit) ([]*hit, error) {
	hits, digests := make([]*hit, len(found)), []string(nil)
	for i := range found {
		hits[i] = &hit{ComponentHit: found[i]}
		row := found[i].Attestation
		may, err := s.mayRead(row)
		if err != nil {
			return nil, err
		}
		if !may {
			continue
		}
		if len(row.Subjects) == 0 {
			return nil, fmt.Errorf("attestation %s of an SBOM has no subject", row.ID)
		}
		hits[i].subject = &row.Subjects[0]
		sum := row.Subjects[0].SHA256
		if _, known := s.builds[sum]; !known && sum != "" {
			s.builds[sum] = nil
			digests = append(digests, sum)
		}
	}
	if len(digests) == 0 {
		return hits, nil
	}
	if err := s.lookUpEnvironments(ctx, digests); err != nil {
		return nil, err
	}
	return hits, s.lookUpBuilds(ctx, digests)
}

// lookUpEnvironments remembers where decisions about digests passed, of those that the
// caller may read: that somebody else asked about the same bytes is not theirs to know.
func (s *componentSearch) lookUpEnvironments(ctx context.Context, digests []string) error {
	if s.deciding >= s.limits.decide {
		s.truncated = true
		return nil
	}
	began := time.Now()
	more, err := s.store.EachPassedDecision(ctx, digests, func(d *store.Decision) (bool, error) {
		on, err := decisionResource(d)
		if err != nil || !s.authorizer.mayRead(s.caller, on) {
			return false, err
		}
		s.environments[d.SHA256] = append(s.environments[d.SHA256], d.Environment)
		return true, nil
	})
	for _, list := range s.environments {
		slices.Sort(list)
	}
	s.deciding += time.Since(began)
	s.truncated = s.truncated || len(more) > 0
	return err
}

// lookUpBuilds remembers the builds that attested digests, the newest first, of those
// that the store picks: others who attest the same digest displace none of the caller's.
func (s *componentSearch) lookUpBuilds(ctx context.Context, digests []string) error {
	builds, err := s.store.BuildsBySHA256(ctx, digests, attest.PredicateSLSAProvenanceV1, maxKnown)
	if err != nil {
		return err
	}
	for sum, rows := range builds {
		for _, row := range rows {
			if len(s.builds[sum]) == maxBuildsShown {
				break
			}
			may, err := s.mayRead(row)
			if err != nil {
				return err
			}
			if !may {
				continue
			}
			b := &assayv1.ComponentBuild{
				AttestationId: row.ID, BuilderId: row.BuilderID, InvocationId: row.InvocationID, SourceUri: row.SourceURI, CreateTime: timestamppb.New(row.CreatedAt),
			}
			if row.SourceCommit != "" {
				b.SourceDigest = map[string]string{"gitCommit": row.SourceCommit}
			}
			s.builds[sum] = append(s.builds[sum], b)
		}
	}
	return nil
}

// match is a hit as the caller sees it, nil where the caller may not read it.
func (s *componentSearch) match(h *hit) (*assayv1.ComponentMatch, error) {
	if h.subject == nil {
		return nil, nil
	}
	m := &assayv1.ComponentMatch{
		Subject: subjectProto(*h.subject), AttestationId: h.Attestation.ID, Complete: h.Complete,
		Environments: s.environments[h.subject.SHA256], Builds: s.builds[h.subject.SHA256],
		Origin: assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED, CreateTime: timestamppb.New(h.Attestation.CreatedAt),
	}
	if h.Claimed {
		m.Origin = assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED
	}
	for _, c := range h.Components[:min(len(h.Components), maxComponentsShown)] {
		if m.Purl == "" {
			m.Purl = c.PURL
		}
		m.Components = append(m.Components, &assayv1.MatchedComponent{Purl: c.PURL, Name: c.Name, Version: c.Version, Licenses: c.Licenses})
	}
	return m, nil
}
