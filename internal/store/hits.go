package store

import (
	"context"
	"encoding/json"
	"math/bits"
	"slices"
)

// sbomSet is a set of the SBOMs first to last.
type sbomSet struct {
	first int64
	words []uint64
}

func newSBOMSet(first, last int64) *sbomSet {
	return &sbomSet{first: first, words: make([]uint64, (last-first)/64+1)}
}

func (b *sbomSet) add(n int64) { b.words[(n-b.first)/64] |= 1 << ((n - b.first) % 64) }

func (b *sbomSet) and(other *sbomSet) {
	for i, w := range other.words {
		b.words[i] &= w
	}
}

func (b *sbomSet) empty() bool {
	return !slices.ContainsFunc(b.words, func(w uint64) bool { return w != 0 })
}

// newest appends the greatest numbers less than before, the greatest first, until ns
// has limit of them.
func (b *sbomSet) newest(ns []int64, before int64, limit int) []int64 {
	for i := len(b.words) - 1; i >= 0; i-- {
		for w := b.words[i]; w != 0; {
			bit := bits.Len64(w) - 1
			w &^= 1 << bit
			n := b.first + int64(i*64+bit)
			if n >= before {
				continue
			}
			if len(ns) == limit {
				return ns
			}
			ns = append(ns, n)
		}
	}
	return ns
}

// readHits reads the SBOMs that were found, in the order of ns, which is descending.
func (s *Store) readHits(ctx context.Context, ask *question, ns []int64) ([]ComponentHit, error) {
	in, err := jsonIDs(ns)
	if err != nil {
		return nil, err
	}
	rows, err := s.scans.QueryContext(ctx, "SELECT b.claimed, b.complete, b.components, "+hitColumns+` FROM sboms b
		CROSS JOIN attestations a ON a.seq = b.attestation CROSS JOIN bundles u ON u.attestation = a.seq
		WHERE b.n IN (SELECT value FROM json_each(?)) ORDER BY b.n DESC`, in)
	if err != nil {
		return nil, err
	}
	var hits []ComponentHit
	var matched [][]listed
	err = eachRow(rows, func(row rowScanner) error {
		var h ComponentHit
		var list []byte
		var err error
		h.Attestation, _, err = s.scanAttestation(scanBefore{row, []any{&h.Claimed, &h.Complete, &list}})
		if err != nil {
			return err
		}
		m, err := ask.matched(list)
		hits, matched = append(hits, h), append(matched, m)
		return err
	})
	if err == nil && len(hits) != len(ns) {
		err = errPostings // an SBOM is in the index and not in the table
	}
	if err != nil {
		return nil, err
	}
	return hits, s.nameMatched(ctx, hits, matched)
}

// hitColumns are attestationColumns of other aliases, without the bundle.
const hitColumns = `a.seq, a.id, a.created_at, a.predicate_type, a.builder_id, a.build_type, a.invocation_id,
	a.slsa_build_level, a.source_uri, a.source_commit, a.log_index, a.subjects, a.principal, u.caller, NULL`

// buildColumns are hitColumns without the subjects: of what a build made, and of the
// bundle, nothing is read.
const buildColumns = `a.seq, a.id, a.created_at, a.predicate_type, a.builder_id, a.build_type, a.invocation_id,
	a.slsa_build_level, a.source_uri, a.source_commit, a.log_index, x'', a.principal, u.caller, NULL`

const (
	buildsBySHA256 = `SELECT j.value, ` + buildColumns + ` FROM json_each(?1) j
	CROSS JOIN attestations a ON a.seq IN (SELECT s.attestation FROM subjects s CROSS JOIN attestations t ON t.seq = s.attestation
		WHERE s.sha256 = unhex(j.value) AND (?2 = '' OR t.predicate_type = ?2) ORDER BY s.attestation DESC LIMIT +?3)
	CROSS JOIN bundles u ON u.attestation = a.seq ORDER BY j.key, a.seq DESC`
	pickBuildsBySHA256 = pickedBySHA256 + `SELECT ` + buildColumns + ` FROM picked p
	CROSS JOIN attestations a ON a.seq = p.seq CROSS JOIN bundles u ON u.attestation = p.seq ORDER BY p.seq DESC`
)

// BuildsBySHA256 returns, by digest, the attestations that AttestationsBySHA256 would,
// without their bundles and subjects.
func (s *Store) BuildsBySHA256(ctx context.Context, sha256 []string, predicateType string, limit int) (map[string][]*Attestation, error) {
	if limit <= 0 || limit > maxPageSize {
		limit = maxPageSize
	}
	for _, sum := range sha256 {
		if _, err := parseDigest("sha256", sum); err != nil {
			return nil, err
		}
	}
	in, err := json.Marshal(sha256)
	if err != nil {
		return nil, err
	}
	rows, err := s.get.builds.QueryContext(ctx, string(in), predicateType, limit+1)
	if err != nil {
		return nil, refused(err)
	}
	builds := make(map[string][]*Attestation, len(sha256))
	err = eachRow(rows, func(row rowScanner) error {
		var sum string
		a, _, err := s.scanAttestation(scanBefore{row, []any{&sum}})
		builds[sum] = append(builds[sum], a)
		return err
	})
	if err != nil {
		return nil, err
	}
	for sum, list := range builds {
		if len(list) <= limit {
			continue
		}
		key, err := parseDigest("sha256", sum)
		if err != nil {
			return nil, err
		}
		if builds[sum], err = s.readAttestations(s.points.QueryContext(ctx, pickBuildsBySHA256, key[:], predicateType, limit)); err != nil {
			return nil, err
		}
	}
	return builds, nil
}

// scanBefore reads columns before those that a scan function knows.
type scanBefore struct {
	row    rowScanner
	before []any
}

func (s scanBefore) Scan(dest ...any) error {
	return s.row.Scan(append(slices.Clone(s.before), dest...)...)
}

// matched returns the components of a list that the hit shows.
func (ask *question) matched(list []byte) ([]listed, error) {
	var m []listed
	var all []int64 // the licences of m, one after the other
	rest := ask.components
	err := eachListed(list, func(id int64, licenses []int64) bool {
		if len(ask.components) > 0 {
			i, ok := slices.BinarySearch(rest, componentTerm(id))
			if rest = rest[i:]; !ok {
				return len(rest) > 0
			}
		} else if !slices.Contains(licenses, ask.licenseID) {
			return true
		}
		from := len(all)
		all = append(all, licenses...)
		m = append(m, listed{id, all[from:len(all):len(all)]})
		return len(m) < maxHitComponents
	})
	return m, err
}

// nameMatched fills in the components of the hits from the dictionary.
func (s *Store) nameMatched(ctx context.Context, hits []ComponentHit, matched [][]listed) error {
	var ids, licenses []int64
	for _, m := range matched {
		for _, l := range m {
			ids = append(ids, l.id)
			licenses = append(licenses, l.licenses...)
		}
	}
	d := s.dictionary
	versions, err := lookUp(ctx, s, d.versions, ids, "SELECT "+versionColumns+" FROM components WHERE id IN (SELECT value FROM json_each(?))",
		func(row rowScanner) (int64, ComponentVersion, int, error) {
			v, err := scanVersion(row)
			return v.ID, v, len(v.PURL) + len(v.Type) + len(v.Namespace) + len(v.Name) + len(v.Version), err
		})
	if err != nil {
		return err
	}
	texts, err := lookUp(ctx, s, d.texts, licenses, "SELECT id, text FROM licenses WHERE id IN (SELECT value FROM json_each(?))",
		func(row rowScanner) (id int64, text string, size int, err error) {
			err = row.Scan(&id, &text)
			return id, text, len(text), err
		})
	if err != nil {
		return err
	}
	for i, m := range matched {
		hits[i].Components = make([]ComponentVersion, 0, len(m))
		for _, l := range m {
			v := versions[l.id]
			v.Licenses = make([]string, len(l.licenses))
			for j, id := range l.licenses {
				v.Licenses[j] = texts[id]
			}
			slices.Sort(v.Licenses)
			hits[i].Components = append(hits[i].Components, v)
		}
	}
	return nil
}

// lookUp returns rows of the dictionary by their ids: those that are remembered, and
// the others with one query. Small ones are remembered.
func lookUp[V any](ctx context.Context, s *Store, known *memo[int64, V], ids []int64, query string, scan func(rowScanner) (id int64, v V, size int, err error)) (map[int64]V, error) {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	found := make(map[int64]V, len(ids))
	var missing []int64
	known.each(ids, func(i int, v V, ok bool) {
		if ok {
			found[ids[i]] = v
		} else {
			missing = append(missing, ids[i])
		}
	})
	if len(missing) == 0 {
		return found, nil
	}
	in, err := jsonIDs(missing)
	if err != nil {
		return nil, err
	}
	rows, err := s.scans.QueryContext(ctx, query, in)
	if err != nil {
		return nil, err
	}
	err = eachRow(rows, func(row rowScanner) error {
		id, v, size, err := scan(row)
		if err != nil {
			return err
		}
		if found[id] = v; size <= maxKnownBytes {
			known.add(id, v)
		}
		return nil
	})
	if err == nil && len(found) != len(ids) {
		err = errPostings // an SBOM names what the dictionary does not have
	}
	return found, err
}
