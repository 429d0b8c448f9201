package policy

import (
	"bytes"
	"cmp"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/assay-build/assay/internal/attest"
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

// buildTypeGitHubActions is the one build type whose parameters are understood.
// The parameters of another type may have the same names and mean something else.
const buildTypeGitHubActions = "https://actions.github.io/buildtypes/workflow/v1"

// annotationOrigin marks, among a subject's annotations, a digest that the
// service was told and did not compute.
const annotationOrigin = "assay.build/digestOrigin"

// item is what is read of one piece of verified evidence.
type item struct {
	statement *attest.Statement
	own       bool // signed by the instance itself, which alone speaks for its builders
	logIndex  int64
	signedAt  time.Time
	index     int // in Question.Evidence
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

// predicate is what the signed predicate says, whoever asks about which subject.
type predicate struct {
	marked bool // the predicate calls itself a sandbox's

	builderID, buildType, invocationID           string
	repository, repositoryID, repositoryOwnerID  string
	ref, sourceURI, sourceCommit                 string
	eventName, runnerEnvironment                 string
	workflowPath, jobWorkflowRef, jobWorkflowSHA string
}

// slsaPredicate is SLSA provenance v1, with parameters of type E and I and
// dependencies of type D. Fields unknown to us are allowed, as SLSA's parsing
// rules demand.
type slsaPredicate[E, I, D any] struct {
	BuildDefinition struct {
		BuildType            string `json:"buildType"`
		ExternalParameters   E      `json:"externalParameters"`
		InternalParameters   I      `json:"internalParameters"`
		ResolvedDependencies D      `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
		Metadata struct {
			InvocationID string `json:"invocationId"`
		} `json:"metadata"`
	} `json:"runDetails"`
}

type (
	// anyPredicate leaves unread what depends on the build type.
	anyPredicate = slsaPredicate[jsontext.Value, jsontext.Value, jsontext.Value]
	// gitHubPredicate is that of GitHub's build type; internalParameters.assay is ours.
	gitHubPredicate = slsaPredicate[gitHubExternal, gitHubInternal, []dependency]
)

type gitHubExternal struct {
	Workflow struct {
		Ref        string `json:"ref"`
		Repository string `json:"repository"`
		Path       string `json:"path"`
	} `json:"workflow"`
}

type gitHubInternal struct {
	GitHub struct {
		EventName         string `json:"event_name"`
		RepositoryID      string `json:"repository_id"`
		RepositoryOwnerID string `json:"repository_owner_id"`
		RunnerEnvironment string `json:"runner_environment"`
		JobWorkflowRef    string `json:"job_workflow_ref"`
		JobWorkflowSHA    string `json:"job_workflow_sha"`
	} `json:"github"`
	Assay struct {
		Sandbox bool `json:"sandbox"`
	} `json:"assay"`
}

type dependency struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
}

// readProvenance turns a statement into facts. levels says what the service
// knows of each builder; what the statement says of its own level, if anything,
// is not looked at.
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
		p.trusted, p.level = true, level
	}
	p.sandbox = p.marked || strings.HasSuffix(p.builderID, "/builders/dev")
	p.readSubjects(asked)
	return p, p.check()
}

// memory keeps predicates that were read: a statement does not change, and one
// that is asked about is asked about again. It is bounded in entries and in the
// size of each, since it keeps the statement alive too, and forgets the oldest.
type memory struct {
	predicates *lru.Cache[*attest.Statement, *predicate]
}

const (
	rememberedPredicates = 4096
	// A statement with more is read again each time.
	rememberedSubjects, rememberedBytes = 64, 16 << 10
)

func newMemory() (*memory, error) {
	c, err := lru.New[*attest.Statement, *predicate](rememberedPredicates)
	return &memory{c}, err
}

// predicateOf reads a predicate, or remembers it. A nil memory only reads.
func (m *memory) predicateOf(st *attest.Statement) (*predicate, error) {
	if m != nil {
		if p, ok := m.predicates.Get(st); ok {
			return p, nil
		}
	}
	p := new(predicate)
	if err := p.read(st.Predicate); err != nil {
		return nil, err
	}
	if m != nil && len(st.Subjects) <= rememberedSubjects && len(st.Predicate) <= rememberedBytes {
		m.predicates.Add(st, p)
	}
	return p, nil
}

// read reads the predicate as GitHub's build type first, which nearly
// all are, and again without its parameters where they are of another one.
func (p *predicate) read(raw []byte) error {
	var g gitHubPredicate
	failure := json.Unmarshal(raw, &g)
	if failure == nil && g.BuildDefinition.BuildType == buildTypeGitHubActions {
		p.builderID, p.buildType = g.RunDetails.Builder.ID, g.BuildDefinition.BuildType
		p.invocationID = g.RunDetails.Metadata.InvocationID
		p.readGitHub(&g)
		return nil
	}
	var a anyPredicate
	if err := json.Unmarshal(raw, &a); err != nil {
		return refusal.New(CodeProvenanceMalformed, "the provenance cannot be read: %w", err)
	}
	if a.BuildDefinition.BuildType == buildTypeGitHubActions {
		return refusal.New(CodeProvenanceMalformed, "the provenance cannot be read: %w", failure)
	}
	p.builderID, p.buildType = a.RunDetails.Builder.ID, a.BuildDefinition.BuildType
	p.invocationID = a.RunDetails.Metadata.InvocationID
	return nil
}

func (p *predicate) readGitHub(g *gitHubPredicate) {
	workflow, internal := &g.BuildDefinition.ExternalParameters.Workflow, &g.BuildDefinition.InternalParameters
	p.ref, p.repository, p.workflowPath = workflow.Ref, workflow.Repository, workflow.Path
	p.eventName, p.runnerEnvironment = internal.GitHub.EventName, internal.GitHub.RunnerEnvironment
	p.repositoryID, p.repositoryOwnerID = internal.GitHub.RepositoryID, internal.GitHub.RepositoryOwnerID
	p.jobWorkflowRef, p.jobWorkflowSHA = internal.GitHub.JobWorkflowRef, internal.GitHub.JobWorkflowSHA
	p.marked = internal.Assay.Sandbox
	// The source is the dependency that the external parameters name, not merely the first.
	for i := range g.BuildDefinition.ResolvedDependencies {
		d := &g.BuildDefinition.ResolvedDependencies[i]
		if p.repository != "" && p.ref != "" && d.URI == "git+"+p.repository+"@"+p.ref {
			p.sourceURI, p.sourceCommit = d.URI, d.Digest["gitCommit"]
			return
		}
	}
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
	for _, text := range [...]string{
		p.builderID, p.buildType, p.invocationID, p.repository, p.repositoryID, p.repositoryOwnerID, p.ref,
		p.sourceURI, p.sourceCommit, p.eventName, p.runnerEnvironment, p.workflowPath, p.jobWorkflowRef, p.jobWorkflowSHA,
	} {
		if len(text) > MaxFactBytes {
			return refusal.New(CodeFactTooLarge, "the provenance has a fact of %d bytes; at most %d are accepted", len(text), MaxFactBytes)
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
	put("builderId", func() types.Value { return types.String(p.builderID) })
	put("buildType", func() types.Value { return types.String(p.buildType) })
	put("sandbox", func() types.Value { return types.Boolean(p.sandbox) })
	put("subjectOrigin", func() types.Value { return types.String(p.origin()) })
	put("subjectNames", func() types.Value { return types.NewSet(p.names...) })
	put("signedAt", func() types.Value { return types.NewDatetime(p.item.signedAt) })
	put("ageSeconds", func() types.Value { return types.Long(max(0, int64(now.Sub(p.item.signedAt)/time.Second))) })
	for name, text := range p.optional() {
		if text != "" && wanted.includes(types.String(name)) {
			m[types.String(name)] = types.String(text)
		}
	}
	return types.NewRecord(m)
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

// optional yields the facts that need not exist.
func (p *provenance) optional() func(yield func(name, text string) bool) {
	return func(yield func(name, text string) bool) {
		for _, f := range [...][2]string{
			{"invocationId", p.invocationID}, {"repository", p.repository}, {"repositoryId", p.repositoryID},
			{"repositoryOwnerId", p.repositoryOwnerID}, {"ref", p.ref}, {"sourceUri", p.sourceURI},
			{"sourceCommit", p.sourceCommit}, {"eventName", p.eventName}, {"workflowPath", p.workflowPath},
			{"jobWorkflowRef", p.jobWorkflowRef}, {"jobWorkflowSha", p.jobWorkflowSHA},
			{"runnerEnvironment", p.runnerEnvironment},
		} {
			if !yield(f[0], f[1]) {
				return
			}
		}
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
