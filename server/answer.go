package server

// How a judgement becomes a decision: shared, signed, registered and written down.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/verify"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/google/uuid"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"
)

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
	part(j.keys.signerID()) // who signed the summary must be who signs now
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
		if errors.Is(err, errUnsigned) {
			return decide(ctx)
		}
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

const (
	// summaryTimeout is how long a decision waits for its summary to be signed.
	summaryTimeout = 3 * time.Second
	// unsignedTTL is how long a decision without a summary is good: then signing is
	// tried again.
	unsignedTTL = 30 * time.Second
)

// errUnsigned says of a stored decision that its summary could not be signed at the time.
var errUnsigned = errors.New("it has no summary")

// signSummary signs and registers a summary. Where what signs is away, the decision does
// without: a deploy depends on what was attested, not on whether the instance can attest
// now. missing is then the code of what was away. The log is no such thing: what it does
// not take is an error, and no permission goes out unregistered because the disk is slow.
func (g *gate) signSummary(ctx context.Context, j *judgement, st *attest.Statement) (bundle []byte, head *store.LogHead, missing refusal.Code, err error) {
	signing, cancel := context.WithTimeout(ctx, summaryTimeout)
	defer cancel()
	what, err := g.sealer.summary(signing, j.keys, st)
	code := refusal.CodeOf(err)
	switch {
	case err == nil && j.Allowed: // a permission is also registered
		bundle, head, err = g.sealer.registered(ctx, j.keys, what)
		return bundle, head, "", err
	case err == nil:
		bundle, head, err = g.sealer.unregistered(ctx, what)
		return bundle, head, "", err
	case code == "" && signing.Err() != nil && ctx.Err() == nil:
		code = CodeDeadlineExceeded
	case !signerAway(code):
		return nil, nil, "", err
	}
	g.logger.WarnContext(ctx, "a decision goes out without a signed summary", "reason", string(code), "error", err.Error())
	return nil, nil, code, nil
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
	bundle, head, missing, err := g.signSummary(ctx, j, st)
	if err != nil {
		return nil, err
	}
	if missing != "" {
		expires = now.Add(unsignedTTL)
	}
	d := j.decision(id.String(), bundle, now, expires)
	d.SummaryMissing = string(missing)
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
	if old.GetSummaryMissing() != "" {
		return nil, errUnsigned
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
	_, err = j.keys.verifier.VerifyOwn(old.GetVerificationSummary())
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
