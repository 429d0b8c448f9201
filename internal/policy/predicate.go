package policy

import (
	"math"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

// predicate is what the signed predicate says, whoever asks about which subject.
// An empty text means that the fact does not exist.
type predicate struct {
	marked bool // the predicate calls itself a sandbox's
	// stated is the level that the statement claims for itself; unlimited where it
	// claims none, which lets the builder's stand.
	stated int
	// pullRequest is true too where the build type is not understood.
	pullRequest           bool
	privileged            *bool // nil where the platform has no such thing
	downgrades, overrides []string

	platform                                     string
	builderID, buildType, invocationID           string
	repository, repositoryID, repositoryOwnerID  string
	ref, sourceURI, sourceCommit, headRepository string
	eventName, runnerEnvironment, runner         string
	workflowPath, jobWorkflowRef, jobWorkflowSHA string
	environment                                  string
	account, region, projectARN                  string
	initiator, serviceRole, image, imageDigest   string
	roleARN, subject                             string
}

const unlimited = math.MaxInt

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

// definition is SLSA provenance v1 with the parts that depend on the build type
// unread. Fields unknown to us are allowed, as SLSA's parsing rules demand.
type definition struct {
	BuildDefinition struct {
		BuildType            string         `json:"buildType"`
		ExternalParameters   jsontext.Value `json:"externalParameters"`
		InternalParameters   jsontext.Value `json:"internalParameters"`
		ResolvedDependencies jsontext.Value `json:"resolvedDependencies"`
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

type dependency struct {
	Name   string            `json:"name"`
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
}

// assayParameters are internalParameters.assay: what the instance that signed
// concluded from the facts.
type assayParameters struct {
	Level      *int     `json:"slsaBuildLevel"`
	Downgrades []string `json:"downgrades"`
	Sandbox    bool     `json:"sandbox"`
}

// read reads the predicate, and its parameters where we were taught their
// meaning: those of another build type may have the same names and mean
// something else.
func (p *predicate) read(raw []byte) error {
	var d definition
	if err := json.Unmarshal(raw, &d); err != nil {
		return malformed(err)
	}
	p.builderID, p.buildType = d.RunDetails.Builder.ID, d.BuildDefinition.BuildType
	p.invocationID = d.RunDetails.Metadata.InvocationID
	p.stated, p.platform, p.pullRequest = unlimited, "other", true
	if read := p.reader(); read != nil {
		return read(&d)
	}
	// Of an unknown build type of our own, of a newer version maybe, at least the
	// conclusion is known.
	var internal struct {
		Assay assayParameters `json:"assay"`
	}
	if err := part(d.BuildDefinition.InternalParameters, &internal); err != nil {
		p.stated = 0
		return nil
	}
	return p.readAssay(&internal.Assay, unlimited)
}

// part reads a part of the predicate into v. A part that is not there reads as
// an empty one.
func part(raw jsontext.Value, v any) error {
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return malformed(err)
	}
	return nil
}

func malformed(err error) error {
	return refusal.New(CodeProvenanceMalformed, "the provenance cannot be read: %w", err)
}

// readAssay takes over what the signer concluded. absent is the level of a
// statement that does not say.
func (p *predicate) readAssay(a *assayParameters, absent int) error {
	p.marked, p.downgrades, p.stated = a.Sandbox, a.Downgrades, absent
	if a.Level != nil {
		if *a.Level < 0 {
			return refusal.New(CodeProvenanceMalformed, "the provenance says of itself that it has level %d", *a.Level)
		}
		p.stated = *a.Level
	}
	return checkSet("downgrades", p.downgrades)
}

func checkSet(name string, values []string) error {
	if len(values) > MaxSetValues {
		return refusal.New(CodeFactTooLarge, "the provenance has %d %s; at most %d are accepted", len(values), name, MaxSetValues)
	}
	for _, v := range values {
		if len(v) > MaxFactBytes {
			return refusal.New(CodeFactTooLarge, "one of the provenance's %s has %d bytes; at most %d are accepted", name, len(v), MaxFactBytes)
		}
	}
	return nil
}

// texts yields every text among the facts.
func (p *predicate) texts() func(yield func(name, text string) bool) {
	return func(yield func(name, text string) bool) {
		if !yield("builderId", p.builderID) || !yield("buildType", p.buildType) {
			return
		}
		p.optional()(yield)
	}
}

// optional yields the texts that need not exist.
func (p *predicate) optional() func(yield func(name, text string) bool) {
	return func(yield func(name, text string) bool) {
		for _, f := range [...][2]string{
			{"invocationId", p.invocationID}, {"repository", p.repository}, {"repositoryId", p.repositoryID},
			{"repositoryOwnerId", p.repositoryOwnerID}, {"ref", p.ref}, {"sourceUri", p.sourceURI},
			{"sourceCommit", p.sourceCommit}, {"headRepository", p.headRepository},
			{"eventName", p.eventName}, {"workflowPath", p.workflowPath},
			{"jobWorkflowRef", p.jobWorkflowRef}, {"jobWorkflowSha", p.jobWorkflowSHA},
			{"runnerEnvironment", p.runnerEnvironment}, {"runner", p.runner}, {"environment", p.environment},
			{"account", p.account}, {"region", p.region}, {"projectArn", p.projectARN},
			{"initiator", p.initiator}, {"serviceRole", p.serviceRole},
			{"image", p.image}, {"imageDigest", p.imageDigest},
			{"roleArn", p.roleARN}, {"subject", p.subject},
		} {
			if !yield(f[0], f[1]) {
				return
			}
		}
	}
}
