package policy

import (
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/notary"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/verify"
)

// Codes of a question that is denied before any rule is asked.
const (
	// CodeEnvironmentUnknown: no rule speaks about the environment.
	CodeEnvironmentUnknown refusal.Code = "ENVIRONMENT_UNKNOWN"
	// CodeEvidenceUnverified: a piece of evidence that no verification made.
	CodeEvidenceUnverified refusal.Code = "EVIDENCE_UNVERIFIED"
	// CodeTooManyAttestations: more than MaxEvidence pieces of evidence.
	CodeTooManyAttestations refusal.Code = "TOO_MANY_ATTESTATIONS"
	// CodeSubjectNoDigest: the artifact in question has no sha256 digest.
	CodeSubjectNoDigest = attest.CodeSubjectNoDigest
)

// Question is one question: may Principal deploy Subject to Environment?
type Question struct {
	Principal   Principal
	Environment string
	// Subject is the artifact. It needs a sha256 digest; each digest it has must
	// agree with the evidence. Its name decides nothing.
	Subject attest.Subject
	// Evidence is all there is about the subject, at most MaxEvidence pieces. The
	// order does not matter. Handing in a part would hide what speaks against it.
	Evidence []*verify.Evidence
	// SBOMs are those of the subject, at most MaxSBOMs; none are needed where
	// Set.ReadsSBOM says so. The order does not matter.
	SBOMs []*SBOM
	// Signatures are the Notary signatures beside pieces of Evidence, as far as they
	// verified; none are needed where Set.ReadsSigner says so. What is not valid is as if
	// it were not there.
	Signatures map[*verify.Evidence]*notary.Evidence
	// Now is the time of the decision.
	Now time.Time
	// BuilderLevels holds each builder the service knows by builder.id, with the
	// SLSA Build level of its provenance.
	BuilderLevels map[string]int
}

// input is a question that was found to be complete.
type input struct {
	principal types.Entity
	context   types.Record
	now       time.Time
	// alternatives holds the facts of each provenance attestation, the best first.
	alternatives []*provenance
	sboms        map[string]inventories // by provenance attestation
}

// items takes from the evidence what is needed. The zero Evidence, or none in
// its place, is refused: unverified data cannot reach a decision.
func (q *Question) items() ([]item, error) {
	if len(q.Evidence) > MaxEvidence {
		return nil, refusal.New(CodeTooManyAttestations, "%d attestations about one artifact; at most %d are looked at", len(q.Evidence), MaxEvidence)
	}
	items := make([]item, len(q.Evidence))
	for i, e := range q.Evidence {
		if !e.Valid() || e.Statement() == nil {
			return nil, refusal.New(CodeEvidenceUnverified, "evidence %d of %d is not the result of a verification", i+1, len(q.Evidence))
		}
		items[i] = item{statement: e.Statement(), payload: e.Payload(), own: e.Own(), logIndex: e.LogIndex(), signedAt: e.SigningTime(), index: i,
			coSignatures: e.CoSignatures()}
		if s := q.Signatures[e]; s.Valid() {
			items[i].signer = s
		}
	}
	return items, nil
}

// gather checks the question and turns items into facts. Whatever is wrong with
// one of them refuses the question: evidence that cannot be read might be the
// piece that speaks against the artifact.
//
// With one exception: a piece that contradicts the question in another digest than
// sha256 is set aside, and refuses the question only where nothing else is left.
// A digest may be the word of whoever attested; were it to refuse the question,
// anybody who may attest could veto any artifact with a made-up sha512.
func (m *memory) gather(q *Question, items []item, named names) (*input, error) {
	if q.Subject.Digest["sha256"] == "" {
		return nil, refusal.New(CodeSubjectNoDigest, "the artifact in question has no sha256 digest")
	}
	for alg, value := range q.Subject.Digest {
		if err := attest.CheckDigest(alg, value); err != nil {
			return nil, err
		}
	}
	principal, err := q.Principal.entity(named)
	if err != nil {
		return nil, err
	}
	in := &input{
		principal: principal,
		now:       q.Now,
		context: types.NewRecord(types.RecordMap{
			"environment": types.String(q.Environment),
			"now":         types.NewDatetime(q.Now),
		}),
	}
	var aside error
	for i := range items {
		it := &items[i]
		contradicts, err := checkSubject(&q.Subject, it.statement)
		if contradicts {
			aside = err
			continue
		}
		if err != nil {
			return nil, err
		}
		if ahead := it.signedAt.Sub(q.Now); ahead > maxSkew {
			return nil, refusal.New(CodeEvidenceFromFuture, "an attestation was signed %s from now; one of the two clocks is wrong", ahead.Round(time.Second))
		}
		if it.statement.PredicateType != attest.PredicateSLSAProvenanceV1 {
			continue // of an SBOM the facts are in q.SBOMs, of others there are none yet
		}
		p, err := m.readProvenance(it, &q.Subject, q.BuilderLevels)
		if err != nil {
			return nil, err
		}
		in.alternatives = append(in.alternatives, p)
	}
	if aside != nil && len(in.alternatives) == 0 {
		return nil, aside
	}
	in.sboms, err = q.pickSBOMs()
	return in, err
}

// request is one evaluation: a question with the facts of one provenance
// attestation, or of none.
type request struct {
	principal, artifact types.Entity
	context             types.Record
	provenance          *provenance
	sboms               inventories
}

func (in *input) request(sha256 string, p *provenance, wanted wanted) *request {
	m := types.RecordMap{"sha256": types.String(sha256)}
	if p != nil {
		m["provenance"] = p.record(in.now, wanted)
		if s := p.item.signer; s != nil {
			m["signer"] = signerRecord(s)
		}
	}
	var sboms inventories
	if p != nil && len(in.sboms) > 0 {
		sboms = in.sboms[p.item.id()]
	}
	sboms.put(m)
	return &request{
		principal:  in.principal,
		context:    in.context,
		provenance: p,
		sboms:      sboms,
		artifact: types.Entity{
			UID:        types.NewEntityUID(artifactType, types.String("sha256:"+sha256)),
			Attributes: types.NewRecord(m),
		},
	}
}

// Get makes request the entity store of its own evaluation.
func (r *request) Get(uid types.EntityUID) (types.Entity, bool) {
	switch uid {
	case r.artifact.UID:
		return r.artifact, true
	case r.principal.UID:
		return r.principal, true
	}
	return types.Entity{}, false
}

// facts lists what the evidence says, for people.
func (p *provenance) facts() map[string]string {
	out := make(map[string]string, 20)
	out["provenance.trusted"] = strconv.FormatBool(p.trusted)
	out["provenance.slsaBuildLevel"] = strconv.Itoa(p.level)
	out["provenance.builderId"] = p.builderID
	out["provenance.buildType"] = p.buildType
	out["provenance.platform"] = p.platform
	out["provenance.pullRequest"] = strconv.FormatBool(p.pullRequest)
	out["provenance.sandbox"] = strconv.FormatBool(p.sandbox)
	out["provenance.subjectOrigin"] = p.origin()
	out["provenance.signedAt"] = p.item.signedAt.UTC().Format(time.RFC3339)
	if p.privileged != nil {
		out["provenance.privileged"] = strconv.FormatBool(*p.privileged)
	}
	if s := p.item.signer; s != nil {
		out["signer.profile"] = s.Profile()
		out["signer.profileVersion"] = s.ProfileVersion()
		out["signer.revoked"] = strconv.FormatBool(s.Revoked())
		out["signer.signedAt"] = s.SigningTime().UTC().Format(time.RFC3339)
	}
	for name, values := range map[string][]string{"downgrades": p.downgrades, "overrides": p.overrides, "coSignatures": p.item.coSignatures} {
		if len(values) > 0 {
			out["provenance."+name] = clip(strings.Join(values, ", "), maxFoundBytes)
		}
	}
	for name, text := range p.optional() {
		if text != "" {
			out["provenance."+name] = text
		}
	}
	return out
}
