package server

import (
	"context"
	"errors"
	"time"

	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// auditService answers from the index. Nobody has to believe it: each
// attestation carries the bundle that proves it.
type auditService struct {
	assayv1.UnimplementedAuditServiceServer
	store      *store.Store
	ring       *keyring
	authorizer *authorizer
	writer     *provenance.Writer
}

func (a *auditService) ListAttestations(ctx context.Context, req *assayv1.ListAttestationsRequest) (*assayv1.ListAttestationsResponse, error) {
	step := pageStep
	if req.GetIncludeBundles() {
		step = pageStepBundles
	}
	rows, next, err := readPage(store.Query{
		PageSize:       int(req.GetPageSize()),
		PageToken:      req.GetPageToken(),
		Filter:         req.GetFilter(),
		OrderBy:        req.GetOrderBy(),
		IncludeBundles: req.GetIncludeBundles(),
	}, step, func(q store.Query) ([]*store.Attestation, string, error) { return a.store.ListAttestations(ctx, q) },
		func(row *store.Attestation) (*assayv1.Attestation, error) {
			on, made, err := attestationResource(row)
			if err != nil || !a.authorizer.mayRead(sessionFrom(ctx).caller, on) {
				return nil, err
			}
			return attestationOf(row, made, a.writer)
		})
	if err != nil {
		return nil, err
	}
	return &assayv1.ListAttestationsResponse{Attestations: rows, NextPageToken: next}, nil
}

const (
	defaultPageSize, maxPageSize = 50, 1000
	// pageBytes ends a page before its page_size. An attestation of 1024 subjects
	// is up to 3 MB, and a page of a thousand of them would not fit into memory.
	pageBytes = 3 << 20
	// maxRowsRead and maxListTime bound what one call looks at, most of which may
	// be other tenants'.
	maxRowsRead, maxListTime = 5000, 500 * time.Millisecond
	// maxAsksShown is how many of a decision's asks GetDecision names.
	maxAsksShown = 100
	// A page is read in steps of so many rows, with bundles and without.
	pageStepBundles, pageStep = 8, 32
)

// readPage reads rows until there are q.PageSize of them or they are pageBytes,
// and one step more at most. The token of the last step goes on from there. A row
// that convert makes nil of is left out; where most are, the page ends early, so
// that no call reads the whole register: a short page is not the last one, an empty
// token is.
func readPage[Row any, Out proto.Message](q store.Query, step int, read func(store.Query) ([]Row, string, error), convert func(Row) (Out, error)) (out []Out, next string, err error) {
	if q.PageSize == 0 {
		q.PageSize = defaultPageSize
	}
	var none Out
	want, size, seen, began := q.PageSize, 0, 0, time.Now()
	for {
		if want <= maxPageSize { // otherwise the store refuses it by its number
			q.PageSize = min(want-len(out), step)
		}
		rows, token, err := read(q)
		if err != nil {
			return nil, "", err
		}
		seen += len(rows)
		for _, row := range rows {
			o, err := convert(row)
			if err != nil {
				return nil, "", err
			}
			if any(o) == any(none) {
				continue
			}
			size += proto.Size(o)
			out = append(out, o)
		}
		if token == "" || len(out) >= want || size >= pageBytes || seen >= maxRowsRead || time.Since(began) > maxListTime {
			return out, token, nil
		}
		q.PageToken = token
	}
}

func (a *auditService) GetAttestation(ctx context.Context, req *assayv1.GetAttestationRequest) (*assayv1.GetAttestationResponse, error) {
	if err := checkID("attestation_id", req.GetAttestationId()); err != nil {
		return nil, err
	}
	missing := func() error {
		return refusal.New(store.CodeNotFound, "no attestation %s", req.GetAttestationId())
	}
	row, err := a.store.Attestation(ctx, req.GetAttestationId())
	if errors.Is(err, store.ErrNotFound) {
		return nil, missing()
	}
	if err != nil {
		return nil, err
	}
	on, made, err := attestationResource(row)
	if err != nil {
		return nil, err
	}
	if err := a.authorizer.authorizeRead(ctx, assayv1.AuditService_GetAttestation_FullMethodName, sessionFrom(ctx).caller, on, missing()); err != nil {
		return nil, err
	}
	p, err := attestationOf(row, made, a.writer)
	if err != nil {
		return nil, err
	}
	return &assayv1.GetAttestationResponse{Attestation: p}, nil
}

func (a *auditService) ListDecisions(ctx context.Context, req *assayv1.ListDecisionsRequest) (*assayv1.ListDecisionsResponse, error) {
	rows, next, err := readPage(store.Query{
		PageSize:  int(req.GetPageSize()),
		PageToken: req.GetPageToken(),
		Filter:    req.GetFilter(),
		OrderBy:   req.GetOrderBy(),
	}, pageStep, func(q store.Query) ([]*store.Decision, string, error) { return a.store.ListDecisions(ctx, q) },
		func(row *store.Decision) (*assayv1.Decision, error) {
			on, err := decisionResource(row)
			if err != nil || !a.authorizer.mayRead(sessionFrom(ctx).caller, on) {
				return nil, err
			}
			return decisionProto(row)
		})
	if err != nil {
		return nil, err
	}
	return &assayv1.ListDecisionsResponse{Decisions: rows, NextPageToken: next}, nil
}

func (a *auditService) GetDecision(ctx context.Context, req *assayv1.GetDecisionRequest) (*assayv1.GetDecisionResponse, error) {
	if req.GetDecisionId() == "" || len(req.GetDecisionId()) > 64 {
		return nil, refusal.New(CodeRequestInvalid, "must be 1 to 64 bytes, is %d", len(req.GetDecisionId())).InField("decision_id")
	}
	missing := func() error { return refusal.New(store.CodeNotFound, "no decision %.64q", req.GetDecisionId()) }
	row, err := a.store.Decision(ctx, req.GetDecisionId())
	if errors.Is(err, store.ErrNotFound) {
		return nil, missing()
	}
	if err != nil {
		return nil, err
	}
	on, err := decisionResource(row)
	if err != nil {
		return nil, err
	}
	if err := a.authorizer.authorizeRead(ctx, assayv1.AuditService_GetDecision_FullMethodName, sessionFrom(ctx).caller, on, missing()); err != nil {
		return nil, err
	}
	p, err := decisionProto(row)
	if err != nil {
		return nil, err
	}
	asks, err := a.store.Asks(ctx, row.ID, maxAsksShown)
	if err != nil {
		return nil, err
	}
	resp := &assayv1.GetDecisionResponse{Decision: p, AskCount: row.AskCount}
	for _, ask := range asks {
		resp.Asks = append(resp.Asks, &assayv1.Ask{Caller: ask.Caller, AskTime: timestamppb.New(ask.At)})
	}
	return resp, nil
}

func (a *auditService) GetTrustedRoot(ctx context.Context, _ *assayv1.GetTrustedRootRequest) (*assayv1.GetTrustedRootResponse, error) {
	k, err := a.ring.now(ctx)
	if err != nil {
		return nil, err
	}
	return &assayv1.GetTrustedRootResponse{TrustedRoot: k.trustedRoot, AttestationKeysPem: k.set.AttestationKeysPEM(), Keys: k.document}, nil
}

func decisionProto(row *store.Decision) (*assayv1.Decision, error) {
	d := new(assayv1.Decision)
	if err := proto.Unmarshal(row.Answer, d); err != nil {
		return nil, err
	}
	return d, nil
}

func checkID(field, id string) error {
	if len(id) != 64 {
		return refusal.New(CodeRequestInvalid, "must be 64 hex digits, is %d bytes", len(id)).InField(field)
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return refusal.New(CodeRequestInvalid, "must be lower-case hex").InField(field)
		}
	}
	return nil
}

// policyService shows the policies; they are written in configuration for now.
type policyService struct {
	assayv1.UnimplementedPolicyServiceServer
	set    *policy.Set
	source []byte
	since  *timestamppb.Timestamp
}

func (p *policyService) GetPolicy(_ context.Context, req *assayv1.GetPolicyRequest) (*assayv1.GetPolicyResponse, error) {
	if v := req.GetPolicyVersion(); v != "" && v != "active" && v != p.set.Version() {
		return nil, refusal.New(store.CodeNotFound, "policy version %.64q is not known", v)
	}
	return &assayv1.GetPolicyResponse{Policy: p.active(), CedarSchema: policy.Schema()}, nil
}

func (p *policyService) ListPolicies(_ context.Context, req *assayv1.ListPoliciesRequest) (*assayv1.ListPoliciesResponse, error) {
	if req.GetPageToken() != "" {
		return nil, refusal.New(store.CodePageTokenInvalid, "there is one page").InField("page_token")
	}
	return &assayv1.ListPoliciesResponse{Policies: []*assayv1.Policy{p.active()}}, nil
}

func (p *policyService) active() *assayv1.Policy {
	return &assayv1.Policy{
		PolicyVersion: p.set.Version(), Cedar: string(p.source), Active: true,
		CreateTime: p.since, Warnings: p.set.Warnings(),
	}
}
