package policy

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/verify"
)

const (
	// CodeSBOMMalformed: a signed SBOM that cannot be read. The artifact has none, then.
	CodeSBOMMalformed refusal.Code = "SBOM_MALFORMED"
	// CodeTooManySBOMs: more than MaxSBOMs SBOMs of one artifact.
	CodeTooManySBOMs refusal.Code = "TOO_MANY_SBOMS"
)

const (
	// MaxSBOMs bounds the SBOMs that one question may hand in: as an SBOM counts for the
	// provenance that it came with, one that was made and one that was attached for each.
	MaxSBOMs = 2 * MaxEvidence
	// sbomEntryBytes is what an entry of a set takes beside its text.
	sbomEntryBytes = 160
)

// The annotations that say who made the predicate of a statement, with the value where
// the service did, out of the bytes; and which provenance it belongs to.
const (
	annotationPredicateOrigin = "assay.build/predicateOrigin"
	originGenerated           = "generated"
	annotationProvenance      = "assay.build/provenance"
)

// SBOM is the facts of one SBOM attestation. An SBOM is large and its facts are few,
// so they are read once, by ReadSBOM, and kept; the zero SBOM is refused.
type SBOM struct {
	valid     bool
	id        string
	of        string // the provenance attestation that it belongs to
	generated bool
	complete  bool
	item      item
	record    types.Record
	texts     map[string]string
	size      int
}

// ReadSBOM reads the facts of verified evidence. Only what the instance itself signed
// is read at all, and only what says that the service made it counts as generated.
func ReadSBOM(e *verify.Evidence) (*SBOM, error) {
	st := e.Statement()
	if !e.Valid() || !e.Own() || st == nil {
		return nil, refusal.New(CodeEvidenceUnverified, "the SBOM is not the result of a verification")
	}
	if st.PredicateType != attest.PredicateCycloneDX && st.PredicateType != attest.PredicateSPDX {
		return nil, refusal.New(CodeSBOMMalformed, "predicate type %.80q is not that of an SBOM", st.PredicateType)
	}
	f := newSBOMFacts()
	header, err := sbom.Read(bytes.NewReader(st.Predicate), f.add)
	if err != nil {
		return nil, refusal.New(CodeSBOMMalformed, "the signed SBOM cannot be read: %w", err)
	}
	sum := sha256.Sum256(e.Payload())
	s := &SBOM{
		valid: true, id: hex.EncodeToString(sum[:]), of: provenanceOf(st), generated: generated(st),
		complete: header.Aggregate == sbom.AggregateComplete,
		// The predicate is what makes an SBOM large; nothing needs it any more.
		item: item{
			statement: &attest.Statement{Type: st.Type, Subjects: st.Subjects, PredicateType: st.PredicateType},
			own:       true, logIndex: e.LogIndex(), signedAt: e.SigningTime(), index: -1,
		},
	}
	s.record = f.record(s, &header)
	s.texts = f.describe(s, &header)
	s.size = f.size
	return s, nil
}

// generated reports whether the statement says of every subject that the service made
// the predicate.
func generated(st *attest.Statement) bool {
	return !slices.ContainsFunc(st.Subjects, func(s attest.Subject) bool {
		return s.Annotations[annotationPredicateOrigin] != originGenerated
	})
}

// provenanceOf is the provenance attestation that all subjects name; "" where they name
// none, or not the same.
func provenanceOf(st *attest.Statement) string {
	of := st.Subjects[0].Annotations[annotationProvenance]
	for _, s := range st.Subjects[1:] {
		if s.Annotations[annotationProvenance] != of {
			return ""
		}
	}
	return of
}

// ID is the attestation's: the lower-case hex SHA-256 of the signed statement.
func (s *SBOM) ID() string { return s.id }

// Size is about how many bytes s keeps in memory.
func (s *SBOM) Size() int { return s.size }

// sbomFacts collects the sets. Each text is in a set once.
type sbomFacts struct {
	count, unlicensed, size               int
	packages, names, licenses, ecosystems map[string]struct{}
}

func newSBOMFacts() *sbomFacts {
	return &sbomFacts{
		packages: map[string]struct{}{}, names: map[string]struct{}{},
		licenses: map[string]struct{}{}, ecosystems: map[string]struct{}{},
	}
}

func (f *sbomFacts) add(c sbom.Component) error {
	f.count++
	put := func(set map[string]struct{}, text string) {
		if _, there := set[text]; !there && text != "" {
			set[text] = struct{}{}
			f.size += len(text) + sbomEntryBytes
		}
	}
	if len(c.Licenses) == 0 {
		f.unlicensed++
	}
	for _, id := range sbom.LicenseIDs(c.Licenses) {
		put(f.licenses, id)
	}
	if c.PURL == "" {
		return nil
	}
	p, err := sbom.ParsePURL(c.PURL)
	if err != nil {
		return err
	}
	put(f.packages, p.String())
	put(f.names, p.WithoutVersion())
	put(f.ecosystems, p.Type)
	return nil
}

// record is the facts as Cedar has them; schema.cedarschema says what each means.
func (f *sbomFacts) record(s *SBOM, h *sbom.Header) types.Record {
	return types.NewRecord(types.RecordMap{
		"complete":   types.Boolean(s.complete),
		"incomplete": setOf(h.Incomplete),
		"format":     types.String(h.Format),
		"components": types.Long(f.count),
		"unlicensed": types.Long(f.unlicensed),
		"packages":   f.set(f.packages),
		"names":      f.set(f.names),
		"licenses":   f.set(f.licenses),
		"ecosystems": f.set(f.ecosystems),
		"signedAt":   types.NewDatetime(s.item.signedAt),
	})
}

func (f *sbomFacts) set(texts map[string]struct{}) types.Set {
	return setOf(slices.Sorted(maps.Keys(texts)))
}

// describe is the facts for people.
func (f *sbomFacts) describe(s *SBOM, h *sbom.Header) map[string]string {
	out := map[string]string{
		"complete":   strconv.FormatBool(s.complete),
		"components": strconv.Itoa(f.count),
		"format":     h.Format,
		"signedAt":   s.item.signedAt.UTC().Format(time.RFC3339),
	}
	for name, texts := range map[string][]string{
		"incomplete": h.Incomplete,
		"licenses":   slices.Sorted(maps.Keys(f.licenses)),
		"ecosystems": slices.Sorted(maps.Keys(f.ecosystems)),
	} {
		if len(texts) > 0 {
			out[name] = clip(strings.Join(texts, ", "), maxFoundBytes)
		}
	}
	return out
}

// inventories are the SBOMs of one provenance attestation, those that the service made
// and those that somebody attached: of each the best for every name of the artifact.
type inventories struct{ generated, claimed []*SBOM }

// pickSBOMs checks what was handed in and picks, for each provenance attestation. What a
// scan finds depends on what the artifact is called, too, so the SBOM of one who
// uploaded the same bytes under another name says nothing about the build of another: it
// neither opens what their own SBOM closes nor the other way round. One that contradicts
// the question in another digest than sha256 is set aside, as provenance is.
func (q *Question) pickSBOMs() (map[string]inventories, error) {
	if len(q.SBOMs) == 0 {
		return nil, nil
	}
	if len(q.SBOMs) > MaxSBOMs {
		return nil, refusal.New(CodeTooManySBOMs, "%d SBOMs of one artifact; at most %d are looked at", len(q.SBOMs), MaxSBOMs)
	}
	picked := make(map[string]inventories)
	for i, s := range q.SBOMs {
		if s == nil || !s.valid {
			return nil, refusal.New(CodeEvidenceUnverified, "SBOM %d of %d is not the result of a verification", i+1, len(q.SBOMs))
		}
		contradicts, err := checkSubject(&q.Subject, s.item.statement)
		if contradicts {
			continue
		}
		if err != nil {
			return nil, err
		}
		if ahead := s.item.signedAt.Sub(q.Now); ahead > maxSkew {
			return nil, refusal.New(CodeEvidenceFromFuture, "an SBOM was signed %s from now; one of the two clocks is wrong", ahead.Round(time.Second))
		}
		in := picked[s.of]
		if s.generated {
			in.generated = withBest(in.generated, s)
		} else {
			in.claimed = withBest(in.claimed, s)
		}
		picked[s.of] = in
	}
	delete(picked, "")
	return picked, nil
}

// withBest keeps the best SBOM for each name, the names in order.
func withBest(list []*SBOM, s *SBOM) []*SBOM {
	i, found := slices.BinarySearchFunc(list, s, func(a, b *SBOM) int { return cmp.Compare(a.name(), b.name()) })
	switch {
	case !found:
		return slices.Insert(list, i, s)
	case betterSBOM(s, list[i]) < 0:
		list[i] = s
	}
	return list
}

// name is what the artifact is called.
func (s *SBOM) name() string { return s.item.statement.Subjects[0].Name }

// betterSBOM orders SBOMs, the best first: one that saw everything, then the latest. Of
// the same bytes and name the service makes the same SBOM, until it learns to see more.
func betterSBOM(a, b *SBOM) int {
	whole := func(s *SBOM) int {
		if s.complete {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(whole(a), whole(b)),
		b.item.signedAt.Compare(a.item.signedAt),
		cmp.Compare(b.item.logIndex, a.item.logIndex),
		cmp.Compare(a.id, b.id),
	)
}

// put adds what there is to the attributes of the artifact.
func (in inventories) put(m types.RecordMap) {
	if len(in.generated) > 0 {
		m["sbom"] = together(in.generated)
	}
	if len(in.claimed) > 0 {
		m["claimedSbom"] = together(in.claimed)
	}
}

// together is the facts of all: a build that uploads the same bytes under two names is
// held to what was found under either.
func together(list []*SBOM) types.Record {
	if len(list) == 1 {
		return list[0].record
	}
	m := list[0].record.Map()
	for _, s := range list[1:] {
		for name, value := range s.record.All() {
			m[name] = worse(m[name], value)
		}
	}
	return types.NewRecord(m)
}

// worse puts two values of one fact together: what is in either set, complete only if
// both are, of two counts the greater, of two times the earlier.
func worse(a, b types.Value) types.Value {
	switch a := a.(type) {
	case types.Set:
		b, _ := b.(types.Set)
		return types.NewSet(append(a.Slice(), b.Slice()...)...)
	case types.Boolean:
		b, _ := b.(types.Boolean)
		return a && b
	case types.Long:
		b, _ := b.(types.Long)
		return max(a, b)
	case types.Datetime:
		if b, ok := b.(types.Datetime); ok && b.Milliseconds() < a.Milliseconds() {
			return b
		}
	}
	return a
}

// used lists what there is.
func (in inventories) used() []*SBOM { return slices.Concat(in.generated, in.claimed) }

func (in inventories) describe(facts map[string]string) {
	for prefix, list := range map[string][]*SBOM{"sbom.": in.generated, "claimedSbom.": in.claimed} {
		for i := len(list) - 1; i >= 0; i-- {
			for name, text := range list[i].texts {
				facts[prefix+name] = text
			}
		}
	}
}

// ReadsSBOM reports whether some rule looks at SBOMs that the service made. Where none
// does, a question needs none of them.
func (s *Set) ReadsSBOM() bool { return s != nil && s.reads[sbomPath] }

// ReadsClaimedSBOM is ReadsSBOM for SBOMs that somebody attached.
func (s *Set) ReadsClaimedSBOM() bool { return s != nil && s.reads[claimedSBOMPath] }

// ReadsSigner is ReadsSBOM for Notary signatures: asking whether one is revoked is asking
// AWS.
func (s *Set) ReadsSigner() bool { return s != nil && s.reads[signerPath] }

// readsBeside looks for the attributes that stand beside the provenance, and for a
// resource that is used as a whole.
func readsBeside(rules ruleList, all wanted) map[path]bool {
	if all == nil {
		return map[path]bool{sbomPath: true, claimedSBOMPath: true, signerPath: true}
	}
	found := make(map[path]bool)
	look := func(p path) {
		for _, attribute := range []path{sbomPath, claimedSBOMPath, signerPath} {
			if p.under(attribute) {
				found[attribute] = true
			}
		}
	}
	for _, r := range rules {
		ast.Inspect(ast.NewNode(r.condition), func(n ast.IsNode) bool {
			if p, ok := pathOf(n); ok {
				look(p)
			}
			if has, ok := n.(ast.NodeTypeHas); ok {
				if p, ok := pathOf(has.Arg); ok {
					look(p.child(has.Value))
				}
			}
			return true
		})
	}
	return found
}
