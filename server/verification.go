package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/verify"
	"github.com/assay-build/assay/internal/version"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"
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
	resp := &assayv1.VerifyResponse{VerificationResult: assayv1.VerificationResult_VERIFICATION_RESULT_PASSED}
	for i, s := range req.GetSubjects() {
		d, err := v.gate.ask(ctx, caller, s, req.GetEnvironment())
		if err != nil {
			return nil, inField(err, fmt.Sprintf("subjects[%d]", i))
		}
		if d.GetVerificationResult() != assayv1.VerificationResult_VERIFICATION_RESULT_PASSED {
			resp.VerificationResult = assayv1.VerificationResult_VERIFICATION_RESULT_FAILED
		}
		resp.Decisions = append(resp.Decisions, d)
	}
	return resp, nil
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
	evidence   *evidenceSource
	sboms      *sbomSource
	policy     *policy.Set
	levels     map[string]int
	metrics    *metrics
	logger     *slog.Logger
	now        func() time.Time

	// answers holds decisions by what makes asks identical. It spares the
	// signature and the row, never the judgement: that is made anew each time.
	answers *byteCache[*assayv1.Decision]
	flight  singleflight.Group
	// limiters bounds new decisions, by class of caller.
	limiters *lru.Cache[string, *rate.Limiter]
}

func newGate(cfg Config, st *store.Store, sl *sealer, v *verify.Verifier, set *policy.Set, levels map[string]int, authz *authorizer, m *metrics) (*gate, error) {
	source, err := newEvidenceSource(st, v, cfg.Logger)
	if err != nil {
		return nil, err
	}
	sboms, err := newSBOMSource(source, set)
	if err != nil {
		return nil, err
	}
	answers, err := newByteCache[*assayv1.Decision](decisionCacheSize, decisionCacheBytes)
	if err != nil {
		return nil, err
	}
	limiters, err := lru.New[string, *rate.Limiter](limiterCacheSize)
	if err != nil {
		return nil, err
	}
	return &gate{
		instance: cfg.Instance, version: version.String(), ttl: cfg.Verify.SummaryTTL, store: st, sealer: sl, evidence: source, sboms: sboms,
		policy: set, levels: levels, authorizer: authz, callers: authz.callers, metrics: m, logger: cfg.Logger, now: cfg.Now, answers: answers, limiters: limiters,
	}, nil
}

// ask judges, finds or makes the shared answer, and records who asked. All of it
// is durable before it returns.
func (g *gate) ask(ctx context.Context, caller *identity.Caller, s *assayv1.Subject, environment string) (*assayv1.Decision, error) {
	subject, err := verifySubject(s)
	if err != nil {
		return nil, err
	}
	set, err := g.evidence.lookup(ctx, subject.Digest["sha256"])
	if err != nil {
		return nil, err
	}
	sboms, err := g.sbomsOf(ctx, subject)
	if err != nil {
		return nil, err
	}
	now := g.now()
	asker := g.callers.view(caller)
	j := &judgement{environment: environment, set: set, sboms: sboms, caller: caller}
	j.Decision = g.policy.Decide(policy.Question{
		Principal: asker.principal, Environment: environment, Subject: subject,
		Evidence: set.evidence, SBOMs: j.sbomFacts(), BuilderLevels: g.levels, Now: now,
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

// sbomsOf are the SBOMs of an artifact, where the policy looks at any.
func (g *gate) sbomsOf(ctx context.Context, subject attest.Subject) ([]*verifiedSBOM, error) {
	return g.sboms.lookup(ctx, subject.Digest["sha256"])
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

// key is equal for identical asks: same policy version, environment, class of
// caller and evidence, the same outcome, and the same resource. That is what is
// signed, no more: what a caller can vary and no evidence knows must not make a
// decision of its own, or one session could fill the log. Each part is
// length-prefixed, so that no two lists of parts look alike.
func (g *gate) key(asker *callerView, j *judgement) string {
	h := sha256.New()
	var b []byte
	part := func(v string) {
		b = append(strconv.AppendInt(b[:0], int64(len(v)), 10), ':')
		b = append(b, v...)
		h.Write(b)
	}
	list := func(values []string) {
		part(strconv.Itoa(len(values)))
		for _, v := range values {
			part(v)
		}
	}
	part(g.policy.Version())
	part(j.environment)
	part(j.resource.Name)
	part(strconv.Itoa(len(j.resource.Digest)))
	for _, alg := range slices.Sorted(maps.Keys(j.resource.Digest)) {
		part(alg)
		part(j.resource.Digest[alg])
	}
	part(asker.class)
	part(resultName(j.Allowed))
	part(string(j.Code))
	// A further digest can set evidence aside, so that other evidence decides.
	list(j.set.idsOf(j.Used))
	list(j.set.ids)
	list(j.usedSBOMs())
	return hex.EncodeToString(h.Sum(nil))
}

// mayDecide takes one new decision from what a class of caller may cause.
func (g *gate) mayDecide(class string, now time.Time) error {
	l, ok := g.limiters.Get(class)
	if !ok {
		l = rate.NewLimiter(newDecisionRate, newDecisionBurst)
		if before, ok, _ := g.limiters.PeekOrAdd(class, l); ok {
			l = before
		}
	}
	if !l.AllowN(now, 1) {
		return refusal.New(CodeOverloaded, "more than %d new decisions a second; asks that were answered before are answered all the same", newDecisionRate)
	}
	return nil
}

// answer returns the decision that identical asks share, making it if there is
// none that is still good.
func (g *gate) answer(ctx context.Context, asker *callerView, j *judgement, now time.Time) (*assayv1.Decision, error) {
	key := g.key(asker, j)
	if d, ok := g.answers.get(key); ok && now.Before(d.GetExpireTime().AsTime()) {
		return d, nil
	}
	decide := func(ctx context.Context) (*assayv1.Decision, error) {
		if err := g.mayDecide(asker.principal.ID, now); err != nil {
			return nil, err
		}
		return g.decide(ctx, key, j, now)
	}
	v, err, _ := g.flight.Do(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
		defer cancel()
		row, err := g.store.DecisionByKey(ctx, key, now)
		if errors.Is(err, store.ErrNotFound) {
			return decide(ctx)
		}
		if err != nil {
			return nil, err
		}
		d, err := g.restore(row, j, now)
		if err != nil {
			g.logger.ErrorContext(ctx, "stored decision is not what was decided", "decision_id", row.ID, "error", err.Error())
			return decide(ctx)
		}
		return d, nil
	})
	if err != nil {
		return nil, err
	}
	d := v.(*assayv1.Decision)
	g.answers.add(key, d, proto.Size(d)+entryOverhead)
	return d, nil
}

// decide writes a judgement down: a signed summary and a row.
func (g *gate) decide(ctx context.Context, key string, j *judgement, now time.Time) (*assayv1.Decision, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	expires := now.Add(g.ttl)
	st, err := g.summary(j, now, expires)
	if err != nil {
		return nil, err
	}
	sign := g.sealer.signOnly
	if j.Allowed { // a permission is also registered
		sign = g.sealer.signAndLog
	}
	bundle, head, err := sign(ctx, st)
	if err != nil {
		return nil, err
	}
	d := j.decision(id.String(), bundle, now, expires)
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(d)
	if err != nil {
		return nil, err
	}
	whose, err := j.caller.Marshal()
	if err != nil {
		return nil, err
	}
	return d, g.store.SaveDecision(ctx, &store.Decision{
		ID: d.GetDecisionId(), Key: key, SubjectName: j.resource.Name, SHA256: j.resource.Digest["sha256"], Environment: j.environment,
		Passed: j.Allowed, Reason: string(j.Code), Answer: raw, PolicyVersion: j.PolicyVersion, Caller: whose,
		CreatedAt: now, ExpiresAt: expires, LogHead: head,
	})
}

// restore takes up a decision that was written down before. The row is not
// believed: what it decided is what is judged now, and its summary is handed out
// again only if it verifies and signs, byte for byte, what would be signed now.
func (g *gate) restore(row *store.Decision, j *judgement, now time.Time) (*assayv1.Decision, error) {
	old, err := decisionProto(row)
	if err != nil {
		return nil, err
	}
	made, expires := old.GetDecideTime().AsTime(), old.GetExpireTime().AsTime()
	if made.After(now) || !now.Before(expires) {
		return nil, fmt.Errorf("it is good from %s to %s", made, expires)
	}
	st, err := g.summary(j, made, expires)
	if err != nil {
		return nil, err
	}
	payload, err := st.Marshal()
	if err != nil {
		return nil, err
	}
	// The summary of a denial is not registered; that it lacks an entry is found
	// after everything else about it was verified.
	_, err = g.evidence.verifier.VerifyOwn(old.GetVerificationSummary())
	if err != nil && (j.Allowed || refusal.CodeOf(err) != verify.CodeLogEntryMissing) {
		return nil, err
	}
	parts, err := attest.ParseOwnBundle(old.GetVerificationSummary())
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(parts.Envelope.Payload, payload) {
		return nil, errors.New("its summary says something else")
	}
	return j.decision(row.ID, old.GetVerificationSummary(), made, expires), nil
}
