package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"

	"github.com/assay-build/assay/internal/refusal"
)

// Limits of a search.
const (
	// MaxSearchComponents is how many components one search may ask for.
	MaxSearchComponents = 100_000
	maxSearchKey        = 64 << 10
	maxHitComponents    = 100
)

// ComponentVersion is one component of the dictionary.
type ComponentVersion struct {
	ID int64
	// PURL is empty where the component has none.
	PURL                           string
	Type, Namespace, Name, Version string
	// Licenses are set in the answers of SearchComponents alone: what the SBOM says of
	// this component.
	Licenses []string
}

// ComponentSearch asks for SBOMs by what they hold.
type ComponentSearch struct {
	// Components are ids of ComponentVersion, at most MaxSearchComponents: an SBOM is found that
	// holds any of them. Nil asks for none in particular; an empty list that is not
	// nil finds nothing, as nothing is known of what was asked for.
	Components []int64
	// License is a licence: an SBOM is found that holds a component with it. Where
	// Components are given too, both must hold, of the same component or of two.
	License string
	// PageSize is 1 to 1000; 0 means 50.
	PageSize int
	// PageToken is what the page before returned, or empty for the first page.
	PageToken string
	// Key is the question as the caller spells it: a page token is good only for the
	// Key that it was made for.
	Key string
}

// ComponentHit is an SBOM that was found.
type ComponentHit struct {
	// Attestation comes without its bundle.
	Attestation       *Attestation
	Claimed, Complete bool
	// Components are those that were asked for or, where none were, those with the
	// licence; at most 100, in the order of their ids.
	Components []ComponentVersion
}

const versionColumns = "id, key, type, namespace, name, version"

func scanVersion(row rowScanner) (v ComponentVersion, err error) {
	var key string
	err = row.Scan(&v.ID, &key, &v.Type, &v.Namespace, &v.Name, &v.Version)
	v.PURL = purlOf(key)
	return v, err
}

// ComponentByPURL returns the component with exactly this package URL.
func (s *Store) ComponentByPURL(ctx context.Context, purl string) (v ComponentVersion, found bool, err error) {
	if purlOf(purl) == "" {
		return v, false, nil
	}
	v, err = scanVersion(s.get.byPURL.QueryRowContext(ctx, purl))
	if errors.Is(err, sql.ErrNoRows) {
		return ComponentVersion{}, false, nil
	}
	return v, err == nil, refused(err)
}

// question is a ComponentSearch that was checked.
type question struct {
	components []uint64 // terms, ascending
	license    uint64   // term, 0 where none is asked for
	licenseID  int64
	before     int64 // SBOMs from this number on were on earlier pages
	nothing    bool
}

// SearchComponents returns one page of SBOMs, the newest first, and the token of the
// next page, empty after the last. What was acknowledged before the call is found;
// pages are cut by the number of an SBOM, so what is added in the meantime moves
// nothing.
func (s *Store) SearchComponents(ctx context.Context, q ComponentSearch) (hits []ComponentHit, next string, err error) {
	size := q.PageSize
	switch {
	case size < 0 || size > maxPageSize:
		return nil, "", refusal.New(CodePageSizeInvalid, "%d is not from 0 to %d", size, maxPageSize).InField("page_size")
	case len(q.Components) > MaxSearchComponents:
		return nil, "", invalid("components", "are %d, at most %d", len(q.Components), MaxSearchComponents)
	case len(q.Key) > maxSearchKey:
		return nil, "", invalid("key", "is %d bytes, at most %d", len(q.Key), maxSearchKey)
	}
	if size == 0 {
		size = defaultPageSize
	}
	page := listing{kind: "components", filter: q.Key, order: "desc"}
	ask, err := s.question(ctx, q, page)
	if err != nil || ask.nothing {
		return nil, "", err
	}
	ns, err := s.findSBOMs(ctx, ask, size+1)
	if err != nil || len(ns) == 0 {
		return nil, "", refused(err)
	}
	if len(ns) > size {
		ns = ns[:size]
		next = page.seal(s.tokenKey, cursor{seq: ns[size-1]})
	}
	if hits, err = s.readHits(ctx, ask, ns); err != nil {
		return nil, "", refused(err)
	}
	return hits, next, nil
}

func (s *Store) question(ctx context.Context, q ComponentSearch, page listing) (*question, error) {
	ask := &question{before: maxID}
	if q.PageToken != "" {
		c, err := page.open(s.tokenKey, q.PageToken)
		if err != nil {
			return nil, err
		}
		ask.before = c.seq
	}
	for _, id := range q.Components {
		if id > 0 && id <= maxID {
			ask.components = append(ask.components, componentTerm(id))
		}
	}
	slices.Sort(ask.components)
	ask.components = slices.Compact(ask.components)
	ask.nothing = q.License == "" && len(ask.components) == 0 || q.Components != nil && len(ask.components) == 0
	if q.License == "" || ask.nothing {
		return ask, nil
	}
	err := s.scans.QueryRowContext(ctx, "SELECT id FROM licenses WHERE text = ?", q.License).Scan(&ask.licenseID)
	if errors.Is(err, sql.ErrNoRows) {
		ask.nothing = true
		return ask, nil
	}
	ask.license = licenseTerm(ask.licenseID)
	return ask, refused(err)
}

// findSBOMs returns the numbers of the newest SBOMs that answer the question.
func (s *Store) findSBOMs(ctx context.Context, ask *question, limit int) ([]int64, error) {
	for {
		st := s.index.state.Load()
		ns, err := st.find(ctx, ask, limit, func(id int64) ([]byte, error) { return s.chunk(ctx, id) })
		if s.index.moved(err, st) {
			continue // begin again where its postings are now; merges are seconds apart
		}
		return ns, err
	}
}

func (st *indexState) find(ctx context.Context, ask *question, limit int, read func(id int64) ([]byte, error)) ([]int64, error) {
	var ns []int64
	for i := len(st.tail) - 1; i >= 0 && len(ns) < limit; i-- {
		if e := &st.tail[i]; e.n < ask.before && ask.matches(e.terms) {
			ns = append(ns, e.n)
		}
	}
	for i := len(st.segments) - 1; i >= 0 && len(ns) < limit; i-- {
		g := st.segments[i]
		if g.first >= ask.before {
			continue
		}
		found, err := ask.inSegment(ctx, g, read)
		if err != nil {
			return nil, err
		}
		ns = found.newest(ns, ask.before, limit)
	}
	return ns, nil
}

func (ask *question) matches(terms []uint64) bool {
	if ask.license != 0 {
		if _, ok := slices.BinarySearch(terms, ask.license); !ok {
			return false
		}
		if len(ask.components) == 0 {
			return true
		}
	}
	few, many := ask.components, terms
	if len(few) > len(many) {
		few, many = many, few
	}
	for _, t := range few {
		i, ok := slices.BinarySearch(many, t)
		if ok {
			return true
		}
		many = many[i:]
	}
	return false
}

// inSegment returns which SBOMs of a segment answer the question.
func (ask *question) inSegment(ctx context.Context, g *segment, read func(id int64) ([]byte, error)) (*sbomSet, error) {
	union := func(terms ...uint64) (*sbomSet, error) {
		set := newSBOMSet(g.first, g.last)
		r := &segmentReader{segment: g, read: read}
		for _, t := range terms {
			if err := r.each(t, set.add); err != nil {
				return nil, err
			}
		}
		return set, ctx.Err()
	}
	if ask.license == 0 {
		return union(ask.components...)
	}
	set, err := union(ask.license)
	if err != nil || len(ask.components) == 0 || set.empty() {
		return set, err
	}
	holds, err := union(ask.components...)
	if err == nil {
		set.and(holds)
	}
	return set, err
}

// jsonIDs is a list of ids as one parameter, for json_each.
func jsonIDs(ids []int64) (string, error) {
	b, err := json.Marshal(ids)
	return string(b), err
}
