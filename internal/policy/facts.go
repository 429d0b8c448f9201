package policy

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/notary"
	"github.com/assay-build/assay/internal/refusal"
)

// Codes of evidence that verified and cannot be used all the same.
const (
	// CodeSubjectMismatch: evidence that is not about the artifact in question, or
	// agrees with it in one digest and not in another.
	CodeSubjectMismatch refusal.Code = "SUBJECT_MISMATCH"
	// CodeProvenanceMalformed: a signed provenance statement that cannot be read.
	// It denies; ignoring it would let whoever can write one take evidence away.
	CodeProvenanceMalformed refusal.Code = "PROVENANCE_MALFORMED"
	// CodeFactTooLarge: a fact longer than MaxFactBytes.
	CodeFactTooLarge refusal.Code = "FACT_TOO_LARGE"
	// CodeEvidenceFromFuture: evidence signed later than now; one clock is wrong.
	CodeEvidenceFromFuture refusal.Code = "EVIDENCE_FROM_FUTURE"
)

// maxSkew is how far the clock that signed may be ahead of the one that decides.
const maxSkew = 5 * time.Minute

// annotationOrigin marks, among a subject's annotations, a digest that the
// service was told and did not compute.
const annotationOrigin = "assay.build/digestOrigin"

// item is what is read of one piece of verified evidence.
type item struct {
	statement *attest.Statement
	payload   []byte // that was signed
	own       bool   // signed by the instance itself, which alone speaks for its builders
	logIndex  int64
	signedAt  time.Time
	index     int // in Question.Evidence
	// Beside the bundle: algorithms of further signatures, and a Notary signature.
	coSignatures []string
	signer       *notary.Evidence
}

// id is the attestation's: the lower-case hex SHA-256 of the signed statement.
func (it *item) id() string {
	sum := sha256.Sum256(it.payload)
	return hex.EncodeToString(sum[:])
}

// provenance holds the facts of one provenance attestation. An empty text means
// that the fact does not exist.
type provenance struct {
	item    *item
	trusted bool
	level   int
	sandbox bool
	claimed bool
	names   []types.Value
	predicate
}

// readProvenance turns a statement into facts. levels says what the service
// knows of each builder. A statement can only take from that: one of the
// instance's own says where a build deserves less than its builder's best.
func (m *memory) readProvenance(it *item, asked *attest.Subject, levels map[string]int) (*provenance, error) {
	known, err := m.predicateOf(it.statement)
	if err != nil {
		return nil, err
	}
	p := &provenance{item: it, predicate: *known}
	if p.builderID == "" || p.buildType == "" {
		return nil, refusal.New(CodeProvenanceMalformed, "the provenance names no builder or no build type")
	}
	// A bundle that someone else signed may name any builder it likes. Only the
	// instance itself vouches for its builders.
	if level, known := levels[p.builderID]; known && it.own {
		p.trusted, p.level = true, min(level, p.stated)
	}
	p.sandbox = p.marked || strings.HasSuffix(p.builderID, "/builders/dev")
	p.readSubjects(asked)
	return p, p.check()
}

// readSubjects keeps what the statement calls the artifact, and who hashed it.
func (p *provenance) readSubjects(asked *attest.Subject) {
	p.claimed = !p.trusted // of another instance we do not know what it saw
	for i := range p.item.statement.Subjects {
		s := &p.item.statement.Subjects[i]
		if s.Digest["sha256"] != asked.Digest["sha256"] {
			continue
		}
		p.names = append(p.names, types.String(s.Name))
		p.claimed = p.claimed || s.Annotations[annotationOrigin] == "claimed"
	}
}

func (p *provenance) check() error {
	for name, text := range p.texts() {
		if len(text) > MaxFactBytes {
			return refusal.New(CodeFactTooLarge, "the provenance's %s has %d bytes; at most %d are accepted", name, len(text), MaxFactBytes)
		}
	}
	return nil
}

// checkSubject compares the artifact in question with what a statement is about.
// The sha256 digest must be there. Every other algorithm that both know must
// agree; where one does not, the statement is about another artifact than the one
// asked for, in spite of its sha256, and contradicts is true.
func checkSubject(asked *attest.Subject, statement *attest.Statement) (contradicts bool, err error) {
	found := false
	for i := range statement.Subjects {
		s := &statement.Subjects[i]
		if s.Digest["sha256"] != asked.Digest["sha256"] {
			continue
		}
		found = true
		for alg, value := range asked.Digest {
			if other, both := s.Digest[alg]; both && other != value {
				return true, refusal.New(CodeSubjectMismatch, "the attestation agrees in sha256 and not in %s", alg)
			}
		}
	}
	if !found {
		return false, refusal.New(CodeSubjectMismatch, "the attestation is not about sha256:%s", asked.Digest["sha256"])
	}
	return false, nil
}

// record returns the facts as Cedar has them, without those that
// no rule looks at.
func (p *provenance) record(now time.Time, wanted wanted) types.Record {
	m := make(types.RecordMap, 8)
	put := func(name types.String, value func() types.Value) {
		if wanted.includes(name) {
			m[name] = value()
		}
	}
	put("trusted", func() types.Value { return types.Boolean(p.trusted) })
	put("slsaBuildLevel", func() types.Value { return types.Long(p.level) })
	put("downgrades", func() types.Value { return setOf(p.downgrades) })
	put("overrides", func() types.Value { return setOf(p.overrides) })
	put("builderId", func() types.Value { return types.String(p.builderID) })
	put("buildType", func() types.Value { return types.String(p.buildType) })
	put("platform", func() types.Value { return types.String(p.platform) })
	put("pullRequest", func() types.Value { return types.Boolean(p.pullRequest) })
	put("sandbox", func() types.Value { return types.Boolean(p.sandbox) })
	put("subjectOrigin", func() types.Value { return types.String(p.origin()) })
	put("coSignatures", func() types.Value { return setOf(p.item.coSignatures) })
	put("subjectNames", func() types.Value { return types.NewSet(p.names...) })
	put("signedAt", func() types.Value { return types.NewDatetime(p.item.signedAt) })
	put("ageSeconds", func() types.Value { return types.Long(max(0, int64(now.Sub(p.item.signedAt)/time.Second))) })
	if p.privileged != nil {
		put("privileged", func() types.Value { return types.Boolean(*p.privileged) })
	}
	for name, text := range p.optional() {
		if text != "" && wanted.includes(types.String(name)) {
			m[types.String(name)] = types.String(text)
		}
	}
	return types.NewRecord(m)
}

// signerRecord is what is known of a Notary signature over the attestation's envelope.
func signerRecord(s *notary.Evidence) types.Record {
	return types.NewRecord(types.RecordMap{
		"profile":        types.String(s.Profile()),
		"profileVersion": types.String(s.ProfileVersion()),
		"revoked":        types.Boolean(s.Revoked()),
		"signedAt":       types.NewDatetime(s.SigningTime()),
	})
}

func setOf(texts []string) types.Set {
	values := make([]types.Value, len(texts))
	for i, text := range texts {
		values[i] = types.String(text)
	}
	return types.NewSet(values...)
}

func (p *provenance) origin() string {
	if p.claimed {
		return "claimed"
	}
	return "hashed"
}

// wanted names the facts of provenance that some rule looks at. Building the
// others would be half of the cost of a decision. nil wants everything.
type wanted map[types.String]bool

func (w wanted) includes(name types.String) bool { return w == nil || w[name] }

// wantedBy collects what the rules read.
func wantedBy(rules ruleList) wanted {
	w := wanted{}
	for _, r := range rules {
		if !w.collect(r.condition) {
			return nil
		}
	}
	return w
}

// collect adds the facts that n reads. It gives up, and everything is wanted,
// where n uses the artifact or its provenance as a value, to compare or to read
// from in a roundabout way.
func (w wanted) collect(n ast.IsNode) bool {
	switch v := n.(type) {
	case ast.NodeTypeHas:
		if p, ok := pathOf(v.Arg); ok {
			w.add(p.child(v.Value))
			return true
		}
	case ast.NodeTypeIs:
		if _, ok := v.Left.(ast.NodeTypeVariable); ok {
			return true
		}
	}
	if p, ok := pathOf(n); ok {
		w.add(p)
		return p != resourcePath && p != provenancePath
	}
	for _, child := range children(n) {
		if !w.collect(child) {
			return false
		}
	}
	return true
}

func (w wanted) add(p path) {
	if rest, inside := strings.CutPrefix(string(p), string(provenancePath)+"\x00"); inside {
		name, _, _ := strings.Cut(rest, "\x00")
		w[types.String(name)] = true
	}
}

// better orders provenance by how much it is worth, the best first. The order is
// total, so that the order in which evidence comes in decides nothing.
func better(a, b *provenance) int {
	trust := func(p *provenance) int {
		if p.trusted {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(trust(b), trust(a)),
		cmp.Compare(b.level, a.level),
		b.item.signedAt.Compare(a.item.signedAt),
		cmp.Compare(b.item.logIndex, a.item.logIndex),
		bytes.Compare(a.item.statement.Predicate, b.item.statement.Predicate),
	)
}
