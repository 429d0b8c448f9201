package server

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/notary"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/verify"
	"github.com/assay-build/assay/internal/version"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
)

const (
	maxVerifySubjects  = 100
	maxEnvironment     = 64
	decisionCacheSize  = 8 << 10
	decisionCacheBytes = 128 << 20
	maxVerifyNameBytes = 512

	// A new decision costs a signature, a row for ever and, where it allows, a log
	// entry. One class of caller gets so many a second, and so many at once after a
	// pause; beyond that the answer is CodeOverloaded. Asks that share a decision
	// are not counted.
	newDecisionRate  = 200
	newDecisionBurst = 2000
	// limiterCacheSize bounds the classes that are counted at one time.
	limiterCacheSize = 4096
)

// CodeStoredEvidenceInvalid is the reason of a denial where attestations are
// stored for the artifact and none of them verifies any more.
const CodeStoredEvidenceInvalid refusal.Code = "STORED_EVIDENCE_INVALID"

type verificationService struct {
	assayv1.UnimplementedVerificationServiceServer
	gate       *gate
	authorizer *authorizer
}

// Verify answers for each subject. An error means that nothing was decided.
func (v *verificationService) Verify(ctx context.Context, req *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error) {
	switch n := len(req.GetSubjects()); {
	case n == 0:
		return nil, refusal.New(attest.CodeNoSubjects, "nothing to verify").InField("subjects")
	case n > maxVerifySubjects:
		return nil, refusal.New(attest.CodeTooManySubjects, "%d subjects; the limit is %d", n, maxVerifySubjects).InField("subjects")
	}
	if n := len(req.GetEnvironment()); n == 0 || n > maxEnvironment {
		return nil, refusal.New(CodeRequestInvalid, "must be 1 to %d bytes, is %d", maxEnvironment, n).InField("environment")
	}
	if !onlyText(req.GetEnvironment()) {
		return nil, refusal.New(CodeRequestInvalid, "has a character that does not show").InField("environment")
	}
	caller := sessionFrom(ctx).caller
	if err := v.authorizer.authorizeOwn(ctx, assayv1.VerificationService_Verify_FullMethodName, caller, "verify", "Decision", req.GetEnvironment()); err != nil {
		return nil, err
	}
	resp := &assayv1.VerifyResponse{Decisions: make([]*assayv1.Decision, len(req.GetSubjects()))}
	epochs := make([]uint64, len(req.GetSubjects()))
	// What is released is what the keys of the moment of release say: signing takes time,
	// and so do a hundred subjects, in which a key may be revoked. Such subjects are
	// judged again.
	for range maxJudgements {
		for i, s := range req.GetSubjects() {
			if d := resp.Decisions[i]; d != nil && (!passed(d) || v.gate.ring.isCurrent(epochs[i])) {
				continue
			}
			var err error
			if resp.Decisions[i], epochs[i], err = v.gate.ask(ctx, caller, s, req.GetEnvironment()); err != nil {
				return nil, inField(err, fmt.Sprintf("subjects[%d]", i))
			}
		}
		settled := true
		resp.VerificationResult = assayv1.VerificationResult_VERIFICATION_RESULT_PASSED
		for i, d := range resp.Decisions {
			if !passed(d) {
				resp.VerificationResult = assayv1.VerificationResult_VERIFICATION_RESULT_FAILED
			} else if !v.gate.ring.isCurrent(epochs[i]) {
				settled = false
			}
		}
		if settled {
			return resp, nil
		}
	}
	return nil, refusal.New(CodeOverloaded, "the keys changed %d times while this was being decided; ask again", maxJudgements)
}

// maxJudgements is how often a subject is judged where the keys change meanwhile.
const maxJudgements = 3

func passed(d *assayv1.Decision) bool {
	return d.GetVerificationResult() == assayv1.VerificationResult_VERIFICATION_RESULT_PASSED
}

// gate decides whether an artifact may be deployed, and keeps the answer.
type gate struct {
	instance   string
	version    string
	ttl        time.Duration
	authorizer *authorizer
	callers    *callers
	store      *store.Store
	sealer     *sealer
	ring       *keyring
	notary     *notary.Verifier // nil where no Notary signatures are believed
	policy     *policy.Set
	levels     map[string]int
	metrics    *metrics
	logger     *slog.Logger
	now        func() time.Time

	// found is what evidence is known under the keys of now.
	found   atomic.Pointer[sources]
	finding sync.Mutex

	// answers holds decisions by what makes asks identical. It spares the
	// signature and the row, never the judgement: that is made anew each time.
	answers *byteCache[*assayv1.Decision]
	flight  singleflight.Group
	// limiters bounds new decisions, by class of caller.
	limiters *lru.Cache[string, *rate.Limiter]
}

// sources are what evidence comes from under one state of the keys.
type sources struct {
	keys     *keys
	evidence *evidenceSource
	sboms    *sbomSource
}

// sources returns those of the keys of this moment. Where the keys have changed all that
// was verified is forgotten, and is verified again when it is asked for.
func (g *gate) sources(ctx context.Context) (*sources, error) {
	k, err := g.ring.now(ctx)
	if err != nil {
		return nil, err
	}
	if s := g.found.Load(); s != nil && s.keys.epoch >= k.epoch {
		return s, nil
	}
	g.finding.Lock()
	defer g.finding.Unlock()
	if s := g.found.Load(); s != nil && s.keys.epoch >= k.epoch {
		return s, nil
	}
	s := &sources{keys: k}
	if s.evidence, err = newEvidenceSource(g.store, k.verifier, g.logger); err != nil {
		return nil, err
	}
	if s.sboms, err = newSBOMSource(s.evidence, g.policy); err != nil {
		return nil, err
	}
	g.found.Store(s)
	return s, nil
}

func newGate(cfg Config, st *store.Store, sl *sealer, n *notary.Verifier, set *policy.Set, levels map[string]int, authz *authorizer, m *metrics) (*gate, error) {
	answers, err := newByteCache[*assayv1.Decision](decisionCacheSize, decisionCacheBytes)
	if err != nil {
		return nil, err
	}
	limiters, err := lru.New[string, *rate.Limiter](limiterCacheSize)
	if err != nil {
		return nil, err
	}
	return &gate{
		instance: cfg.Instance, version: version.String(), ttl: cfg.Verify.SummaryTTL, store: st, sealer: sl, ring: sl.ring, notary: n,
		policy: set, levels: levels, authorizer: authz, callers: authz.callers, metrics: m, logger: cfg.Logger, now: cfg.Now, answers: answers, limiters: limiters,
	}, nil
}

// ask judges, finds or makes the shared answer, and records who asked. All of it
// is durable before it returns. It returns the epoch of the keys that the answer is
// under too.
func (g *gate) ask(ctx context.Context, caller *identity.Caller, s *assayv1.Subject, environment string) (*assayv1.Decision, uint64, error) {
	subject, err := verifySubject(s)
	if err != nil {
		return nil, 0, err
	}
	from, err := g.sources(ctx)
	if err != nil {
		return nil, 0, err
	}
	d, err := g.askFrom(ctx, from, caller, subject, environment)
	return d, from.keys.epoch, err
}

func (g *gate) askFrom(ctx context.Context, from *sources, caller *identity.Caller, subject attest.Subject, environment string) (*assayv1.Decision, error) {
	set, err := from.evidence.lookup(ctx, subject.Digest["sha256"])
	if err != nil {
		return nil, err
	}
	sboms, err := from.sboms.lookup(ctx, subject.Digest["sha256"])
	if err != nil {
		return nil, err
	}
	now := g.now()
	asker := g.callers.view(caller)
	j := &judgement{environment: environment, set: set, sboms: sboms, caller: caller, keys: from.keys}
	j.Decision = g.policy.Decide(policy.Question{
		Principal: asker.principal, Environment: environment, Subject: subject,
		Evidence: set.evidence, Signatures: g.notarised(ctx, set), SBOMs: j.sbomFacts(), BuilderLevels: g.levels, Now: now,
	})
	if set.rejected > 0 && len(set.evidence) == 0 {
		j.Allowed, j.Code = false, CodeStoredEvidenceInvalid
		j.Message = fmt.Sprintf("%d attestations are stored for this artifact and none of them verifies any more; the service's log says why", set.rejected)
	}
	if set.cut && !j.Allowed {
		j.Message += fmt.Sprintf(" (only %d of the attestations of this artifact were looked at)", maxEvidence)
	}
	j.resource = resourceOf(j.Used, subject)
	g.hide(caller, j)
	shared, err := g.answer(ctx, asker, j, now)
	if err != nil {
		return nil, err
	}
	if err := g.store.RecordAsk(ctx, store.Ask{DecisionID: shared.GetDecisionId(), Caller: caller.DisplayName, At: now}); err != nil {
		return nil, err
	}
	g.metrics.decisions.WithLabelValues(resultName(j.Allowed), string(j.Code)).Inc()
	d := withCaller(shared, callerProto(caller, provenance.Builder{}))
	d.Subject = &assayv1.Subject{Name: subject.Name, Digest: subject.Digest}
	d.Message = j.Message
	return withoutFacts(d), nil
}

// notarised verifies the Notary signatures of a set, where the policy looks at any. One
// that does not verify, or of which AWS does not say whether it is revoked, is as if it
// were not there: a rule that wants one then denies.
func (g *gate) notarised(ctx context.Context, set *evidenceSet) map[*verify.Evidence]*notary.Evidence {
	if g.notary == nil || !g.policy.ReadsSigner() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, summaryTimeout)
	defer cancel()
	found := make([]*notary.Evidence, len(set.signed))
	var group errgroup.Group
	group.SetLimit(8)
	for i, n := range set.signed {
		if n == nil {
			continue
		}
		group.Go(func() error {
			var err error
			if found[i], err = g.notary.Verify(ctx, n.envelope, n.signature); err != nil {
				g.logger.WarnContext(ctx, "a Notary signature does not count", "attestation_id", set.ids[i],
					"reason", string(refusal.CodeOf(err)), "error", err.Error())
			}
			return nil
		})
	}
	_ = group.Wait() // nobody returns an error
	out := make(map[*verify.Evidence]*notary.Evidence)
	for i, e := range found {
		if e.Valid() {
			out[set.evidence[i]] = e
		}
	}
	return out
}

// hide takes out of an answer what the caller could not read as an attestation:
// what was found in it, and its id. What the rules ask for, and how to mend it, is
// the policy's text and stays. All who share the answer are of one class, for whom
// the access policy answers alike.
func (g *gate) hide(caller *identity.Caller, j *judgement) {
	for _, of := range append(j.set.resourcesOf(j.Used), j.sbomResources()...) {
		if g.authorizer.mayBeShown(caller, of) {
			continue
		}
		j.hidden, j.Facts = true, nil
		for i := range j.Rules {
			j.Rules[i].Found = ""
		}
		if !j.Allowed {
			j.Message = string(j.Code) + ": what was found is in an attestation that this caller may not read; the role deployer or auditor would be shown it"
		}
		return
	}
}

// onlyText reports whether every character of s shows. Names and environments are
// kept in decisions, which auditors read on terminals.
func onlyText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// judgement is what policy said of one subject on the evidence of one moment.
type judgement struct {
	policy.Decision
	caller      *identity.Caller
	keys        *keys
	resource    attest.Subject // what was asked about, as far as it is vouched for
	environment string
	set         *evidenceSet
	sboms       []*verifiedSBOM
	hidden      bool // what was found is not the caller's to read
}

// verifySubject accepts what may be asked about: a name that is only text, and
// at least a SHA-256 digest.
func verifySubject(s *assayv1.Subject) (attest.Subject, error) {
	var none attest.Subject
	if len(s.GetName()) > maxVerifyNameBytes {
		return none, refusal.New(CodeRequestInvalid, "%d bytes; the limit is %d", len(s.GetName()), maxVerifyNameBytes).InField("name")
	}
	if !onlyText(s.GetName()) {
		return none, refusal.New(CodeRequestInvalid, "has a character that does not show").InField("name")
	}
	if len(s.GetDigest()) > 8 {
		return none, refusal.New(CodeRequestInvalid, "%d digests; the limit is 8", len(s.GetDigest())).InField("digest")
	}
	for alg, hex := range s.GetDigest() {
		if err := attest.CheckDigest(alg, hex); err != nil {
			return none, inField(err, "digest")
		}
	}
	if s.GetDigest()["sha256"] == "" {
		return none, refusal.New(attest.CodeSubjectNoDigest, "has no sha256 digest").InField("digest")
	}
	return attest.Subject{Name: s.GetName(), Digest: s.GetDigest()}, nil
}
