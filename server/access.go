package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"

	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	lru "github.com/hashicorp/golang-lru/v2"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// access says what a method asks of its caller.
type access struct {
	// public methods need no session: they open one, or serve what verifiers start from.
	public bool
	// action is what the access policy is asked about, and kind on what.
	action, kind string
	// later: it depends on what the request names, so that the handler asks the
	// policy, once it has it. Before that a session is enough.
	later bool
}

// methodAccess is the one table of who may call what. A method that is not in it
// is refused, and a test compares it with the service descriptors.
func methodAccess() map[string]access {
	open := access{public: true}
	may := func(action, kind string) access { return access{action: action, kind: kind} }
	later := func(action, kind string) access { return access{action: action, kind: kind, later: true} }
	return map[string]access{
		assayv1.IdentityService_Challenge_FullMethodName: open,
		assayv1.IdentityService_Exchange_FullMethodName:  open,
		assayv1.IdentityService_WhoAmI_FullMethodName:    may("whoAmI", "Instance"),

		assayv1.AttestationService_Attest_FullMethodName:         may("attest", "Attestation"),
		assayv1.AttestationService_AttestDigests_FullMethodName:  may("attest", "Attestation"),
		assayv1.AttestationService_AttestBuild_FullMethodName:    later("attestBuild", "Build"),
		assayv1.AttestationService_AttachEvidence_FullMethodName: later("attachEvidence", "Attestation"),
		assayv1.AttestationService_UploadEvidence_FullMethodName: later("attachEvidence", "Attestation"),
		assayv1.AttestationService_ImportBundle_FullMethodName:   may("importBundle", "Attestation"),
		assayv1.AttestationService_Revoke_FullMethodName:         may("revoke", "Attestation"),

		assayv1.VerificationService_Verify_FullMethodName:           later("verify", "Decision"),
		assayv1.VerificationService_GrantException_FullMethodName:   may("grantException", "Decision"),
		assayv1.VerificationService_ApproveException_FullMethodName: may("approveException", "Decision"),
		assayv1.VerificationService_BreakGlass_FullMethodName:       may("breakGlass", "Decision"),

		assayv1.AuditService_ListAttestations_FullMethodName: may("list", "Instance"),
		assayv1.AuditService_GetAttestation_FullMethodName:   later("read", "Attestation"),
		assayv1.AuditService_ListDecisions_FullMethodName:    may("list", "Instance"),
		assayv1.AuditService_GetDecision_FullMethodName:      later("read", "Decision"),
		assayv1.AuditService_SearchComponents_FullMethodName: may("search", "Instance"),
		assayv1.AuditService_ListCoverage_FullMethodName:     may("search", "Instance"),
		assayv1.AuditService_ExportEvidence_FullMethodName:   may("export", "Instance"),
		assayv1.AuditService_GetTrustedRoot_FullMethodName:   open,

		assayv1.PolicyService_PutPolicy_FullMethodName:      may("managePolicy", "Policy"),
		assayv1.PolicyService_GetPolicy_FullMethodName:      may("readPolicy", "Policy"),
		assayv1.PolicyService_ListPolicies_FullMethodName:   may("readPolicy", "Policy"),
		assayv1.PolicyService_SimulatePolicy_FullMethodName: may("simulatePolicy", "Policy"),

		healthv1.Health_Check_FullMethodName: open,
		healthv1.Health_List_FullMethodName:  open,
		healthv1.Health_Watch_FullMethodName: open,
	}
}

// authorizer asks the access policy. It is the one place that does, and it writes
// down each answer, with the policies that made it, before the answer is used.
type authorizer struct {
	policy  *policy.Access
	callers *callers
	logger  *slog.Logger
	metrics *metrics
	// known are answers about what a caller would make, which follow from who it
	// is: the policy does not change, and has neither clock nor memory.
	known *lru.Cache[ownQuestion, policy.AccessDecision]
	// shown are answers about evidence, for Verify: who attested does not change.
	shown *lru.Cache[evidenceQuestion, bool]
}

// ownQuestion may depend on nothing that is not in it.
type ownQuestion struct {
	view                      *callerView
	action, kind, environment string
}

type evidenceQuestion struct {
	view *callerView
	id   string // of the attestation
}

// These bound them. An environment is the request's to choose, so one caller could
// ask about ever others; it then pays for its own.
const rememberedAnswers, rememberedEvidence = 8 << 10, 32 << 10

func newAuthorizer(p *policy.Access, c *callers, logger *slog.Logger, m *metrics) (*authorizer, error) {
	known, err := lru.New[ownQuestion, policy.AccessDecision](rememberedAnswers)
	if err != nil {
		return nil, err
	}
	shown, err := lru.New[evidenceQuestion, bool](rememberedEvidence)
	return &authorizer{policy: p, callers: c, logger: logger, metrics: m, known: known, shown: shown}, err
}

// accessPolicy reads the policy that cfg names.
func accessPolicy(cfg *AccessConfig) (*policy.Access, error) {
	text := []byte(policy.DefaultAccess())
	if cfg.PolicyFile != "" {
		var err error
		if text, err = os.ReadFile(cfg.PolicyFile); err != nil {
			return nil, configError("access.policy_file", "%v", err)
		}
	}
	return policy.CompileAccess(text)
}

// askOwn asks about something that the caller would make, or about the instance.
// environment is that of a decision, where it is known. The resource is returned
// without attributes, for the record.
func (a *authorizer) askOwn(caller *identity.Caller, action, kind, environment string) (policy.Resource, policy.AccessDecision) {
	q := ownQuestion{a.callers.view(caller), action, kind, environment}
	on := policy.Resource{Kind: kind}
	if d, ok := a.known.Get(q); ok {
		return on, d
	}
	full := on
	if kind == "Attestation" || kind == "Decision" {
		full.Attributes = maps.Clone(q.view.owns)
	}
	if environment != "" { // of a decision
		full.Attributes["environment"] = environment
	}
	d := a.policy.Authorize(policy.AccessRequest{Principal: q.view.principal, Action: action, Resource: full})
	a.known.Add(q, d)
	return on, d
}

// ask asks about something that is there.
func (a *authorizer) ask(caller *identity.Caller, action string, on policy.Resource) policy.AccessDecision {
	return a.policy.Authorize(policy.AccessRequest{Principal: a.callers.view(caller).principal, Action: action, Resource: on})
}

// authorize refuses what the policy does not allow.
func (a *authorizer) authorize(ctx context.Context, method string, caller *identity.Caller, action string, on policy.Resource) error {
	d := a.ask(caller, action, on)
	a.record(ctx, method, caller, action, on, &d)
	return refused(&d)
}

// authorizeOwn is authorize for what the caller would make.
func (a *authorizer) authorizeOwn(ctx context.Context, method string, caller *identity.Caller, action, kind, environment string) error {
	on, d := a.askOwn(caller, action, kind, environment)
	a.record(ctx, method, caller, action, on, &d)
	return refused(&d)
}

func refused(d *policy.AccessDecision) error {
	if d.Allowed {
		return nil
	}
	return refusal.New(d.Code, "%s", d.Message)
}

// record writes the line that an access review reads.
func (a *authorizer) record(ctx context.Context, method string, caller *identity.Caller, action string, on policy.Resource, d *policy.AccessDecision) {
	a.metrics.access.WithLabelValues(action, string(d.Code)).Inc()
	if !a.logger.Enabled(ctx, slog.LevelInfo) {
		return
	}
	a.logger.LogAttrs(ctx, slog.LevelInfo, "access",
		slog.String("method", method), slog.String("action", action), slog.Bool("allowed", d.Allowed), slog.String("reason", string(d.Code)),
		slog.String("resource", on.Kind), slog.String("resource_id", on.ID), slog.Any("policies", d.Policies), slog.String("policy_version", d.Version),
		slog.String("principal", a.callers.view(caller).principal.ID), slog.String("caller", caller.DisplayName))
}

// mayRead decides about one row of a list. Rows that are left out are not logged
// one by one: the list's own line names the policy version that left them out.
func (a *authorizer) mayRead(caller *identity.Caller, on policy.Resource) bool {
	return a.ask(caller, "read", on).Allowed
}

// mayBeShown is mayRead for evidence, which is asked about with every Verify.
func (a *authorizer) mayBeShown(caller *identity.Caller, on policy.Resource) bool {
	q := evidenceQuestion{a.callers.view(caller), on.ID}
	may, ok := a.shown.Get(q)
	if !ok {
		may = a.mayRead(caller, on)
		a.shown.Add(q, may)
	}
	return may
}

// authorizeRead refuses a row that is not the caller's to see in the words of one
// that is not there: that it exists is not the caller's to know either.
func (a *authorizer) authorizeRead(ctx context.Context, method string, caller *identity.Caller, on policy.Resource, missing error) error {
	if err := a.authorize(ctx, method, caller, "read", on); err != nil {
		return missing
	}
	return nil
}

// attestationResource is a stored attestation as the access policy sees it.
func attestationResource(row *store.Attestation) (policy.Resource, *identity.Caller, error) {
	made, err := identity.UnmarshalCaller(row.Caller)
	if err != nil {
		return policy.Resource{}, nil, fmt.Errorf("attestation %s: %w", row.ID, err)
	}
	on := policy.Resource{Kind: "Attestation", ID: row.ID, Attributes: resourceAttributes(made)}
	on.Attributes["builderId"], on.Attributes["predicateType"] = row.BuilderID, row.PredicateType
	return on, made, nil
}

// decisionResource is a stored decision: it belongs to whoever asked first, and
// all who share it are of one class. One whose caller is not known belongs to nobody.
func decisionResource(row *store.Decision) (policy.Resource, error) {
	on := policy.Resource{Kind: "Decision", ID: row.ID, Attributes: map[string]string{"environment": row.Environment}}
	if row.Caller == nil {
		return on, nil
	}
	asked, err := identity.UnmarshalCaller(row.Caller)
	if err != nil {
		return on, fmt.Errorf("decision %s: %w", row.ID, err)
	}
	maps.Copy(on.Attributes, resourceAttributes(asked))
	return on, nil
}
