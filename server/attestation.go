package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Codes of refusals of attest input.
const (
	CodeDuplicateSubject     refusal.Code = "DUPLICATE_SUBJECT"
	CodeArtifactTooLarge     refusal.Code = "ARTIFACT_TOO_LARGE"
	CodeArtifactSizeMismatch refusal.Code = "ARTIFACT_SIZE_MISMATCH"
	CodeDigestMismatch       refusal.Code = "DIGEST_MISMATCH"
	CodeStreamProtocol       refusal.Code = "STREAM_PROTOCOL"
	CodeStreamIdle           refusal.Code = "STREAM_IDLE"
	CodeChunkTooLarge        refusal.Code = "CHUNK_TOO_LARGE"
	CodeKindUnknown          refusal.Code = "ARTIFACT_KIND_UNKNOWN"
)

type attestationService struct {
	assayv1.UnimplementedAttestationServiceServer
	writer     *provenance.Writer
	sealer     *sealer
	uploads    *uploads
	scans      *scanService
	builds     *codebuild.Reader // nil where no account is configured
	sandboxAWS bool              // the accounts vouch for nothing real
	fetching   singleflight.Group
	fetched    *lru.Cache[string, string] // builds that were attested, with their attestations
	store      *store.Store
	authorizer *authorizer
	metrics    *metrics
}

// AttestDigests attests artifacts that do not travel.
func (a *attestationService) AttestDigests(ctx context.Context, req *assayv1.AttestDigestsRequest) (*assayv1.AttestDigestsResponse, error) {
	if err := checkCount(len(req.GetSubjects())); err != nil {
		return nil, err
	}
	subjects := make([]store.Subject, 0, len(req.GetSubjects()))
	for i, s := range req.GetSubjects() {
		sub, err := claimedSubject(s)
		if err != nil {
			return nil, inField(err, fmt.Sprintf("subjects[%d]", i))
		}
		subjects = append(subjects, sub)
	}
	result, err := a.attest(ctx, sessionFrom(ctx).caller, subjects, party{}, nil)
	if err != nil {
		return nil, err
	}
	return &assayv1.AttestDigestsResponse{Result: result}, nil
}

// attest is the one way to an attestation of a build, whatever the artifacts
// came by. Nothing in the statement is the caller's word but the names, and the
// digests that are marked as claimed. found is what is in those whose bytes were seen;
// asker is who waits for that to be sealed.
//
// The SBOMs are attested first, and name the provenance by the id that it is going to
// have: a build that is attested has all of its SBOMs. What fails in between leaves SBOMs
// that speak of a build nobody attested yet; the repeat finds them.
func (a *attestationService) attest(ctx context.Context, caller *identity.Caller, subjects []store.Subject, asker party, found []*scanned) (*assayv1.AttestResult, error) {
	if err := checkDuplicates(subjects); err != nil {
		return nil, err
	}
	st, err := a.writer.Statement(caller, statementSubjects(subjects))
	if err != nil {
		return nil, err
	}
	record, err := newRecord(a.writer, caller, subjects)
	if err != nil {
		return nil, err
	}
	sboms, err := a.attestSBOMs(ctx, caller, asker, st, record, found)
	if err != nil {
		return nil, err
	}
	done, err := a.sealer.seal(ctx, caller, st, record)
	if err != nil {
		return nil, err
	}
	if !done.repeated {
		a.metrics.attestations.Inc()
		a.metrics.subjects.Add(float64(len(subjects)))
	}
	if done.repeated {
		// The caller of the first time is the one that is recorded.
		if caller, err = identity.UnmarshalCaller(done.Caller); err != nil {
			return nil, fmt.Errorf("attestation %s: %w", done.ID, err)
		}
	}
	out, err := attestationOf(done.Attestation, caller, a.writer)
	return &assayv1.AttestResult{Attestation: out, Repeated: done.repeated, Sboms: sboms}, err
}

func statementSubjects(subjects []store.Subject) []attest.Subject {
	out := make([]attest.Subject, len(subjects))
	for i, s := range subjects {
		out[i] = attest.Subject{Name: s.Name, Digest: digestMap(s)}
		if assayv1.DigestOrigin(s.Origin) == assayv1.DigestOrigin_DIGEST_ORIGIN_CLAIMED {
			out[i].Annotations = map[string]string{provenance.AnnotationDigestOrigin: provenance.OriginClaimed}
		}
	}
	return out
}

// newRecord is the index entry of an attestation about to be made.
func newRecord(w *provenance.Writer, caller *identity.Caller, subjects []store.Subject) (*store.Attestation, error) {
	builder, err := w.Builder(caller)
	if err != nil {
		return nil, err
	}
	what, err := w.Describe(caller)
	if err != nil {
		return nil, err
	}
	raw, err := caller.Marshal()
	if err != nil {
		return nil, err
	}
	return &store.Attestation{
		PredicateType:  attest.PredicateSLSAProvenanceV1,
		BuilderID:      builder.ID,
		BuildType:      what.BuildType,
		InvocationID:   what.InvocationID,
		SLSABuildLevel: builder.Level,
		SourceURI:      what.SourceURI,
		SourceCommit:   what.SourceCommit,
		Principal:      shareOf(caller),
		Caller:         raw,
		Subjects:       subjects,
	}, nil
}

func checkCount(n int) error {
	switch {
	case n <= 0:
		return refusal.New(attest.CodeNoSubjects, "an attest needs at least one artifact, not %d", n)
	case n > attest.MaxSubjects:
		return refusal.New(attest.CodeTooManySubjects, "%d artifacts; the limit is %d", n, attest.MaxSubjects)
	}
	return nil
}

// checkDuplicates refuses two artifacts of one name: which of them a policy meant
// would depend on the order.
func checkDuplicates(subjects []store.Subject) error {
	seen := make(map[string]int, len(subjects))
	for i, s := range subjects {
		if j, dup := seen[s.Name]; dup {
			return refusal.New(CodeDuplicateSubject, "has the name %q of subjects[%d]", s.Name, j).InField(fmt.Sprintf("subjects[%d].name", i))
		}
		seen[s.Name] = i
	}
	return nil
}

func claimedSubject(s *assayv1.Subject) (store.Subject, error) {
	var out store.Subject
	if s == nil {
		return out, refusal.New(attest.CodeSubjectNoDigest, "is empty")
	}
	if err := attest.CheckSubjectName(s.GetName()); err != nil {
		return out, err
	}
	kind, err := checkKind(s.GetKind())
	if err != nil {
		return out, err
	}
	for alg, hex := range s.GetDigest() {
		if err := attest.CheckDigest(alg, hex); err != nil {
			return out, err
		}
		if alg != "sha256" && alg != "sha512" {
			return out, refusal.New(CodeRequestInvalid, "digest algorithm %q; sha256 or sha512", alg)
		}
	}
	if s.GetDigest()["sha256"] == "" {
		return out, refusal.New(attest.CodeSubjectNoDigest, "has no sha256 digest")
	}
	return store.Subject{
		Name:   s.GetName(),
		SHA256: s.GetDigest()["sha256"],
		SHA512: s.GetDigest()["sha512"],
		Kind:   kind,
		Origin: int(assayv1.DigestOrigin_DIGEST_ORIGIN_CLAIMED),
	}, nil
}

func checkKind(k assayv1.ArtifactKind) (int, error) {
	if _, known := assayv1.ArtifactKind_name[int32(k)]; !known {
		return 0, refusal.New(CodeKindUnknown, "kind %d is not an ArtifactKind", k)
	}
	if k == assayv1.ArtifactKind_ARTIFACT_KIND_UNSPECIFIED {
		k = assayv1.ArtifactKind_ARTIFACT_KIND_FILE
	}
	return int(k), nil
}

func digestMap(s store.Subject) map[string]string {
	d := map[string]string{"sha256": s.SHA256}
	if s.SHA512 != "" {
		d["sha512"] = s.SHA512
	}
	return d
}

// inField puts the path of the enclosing message before the field of a refusal.
func inField(err error, at string) error {
	r, ok := errors.AsType[*refusal.Error](err)
	if !ok {
		return err
	}
	if r.Field != "" {
		at += "." + r.Field
	}
	return r.InField(at)
}

// attestationOf is a stored attestation on the wire; caller is who made it.
func attestationOf(a *store.Attestation, caller *identity.Caller, w *provenance.Writer) (*assayv1.Attestation, error) {
	// Which downgrades there were follows from the caller's facts.
	var b provenance.Builder
	if caller.Kind != identity.KindHuman { // who attaches evidence and builds nothing
		var err error
		if b, err = w.Builder(caller); err != nil {
			return nil, fmt.Errorf("attestation %s: %w", a.ID, err)
		}
	}
	b.ID, b.Level = a.BuilderID, a.SLSABuildLevel
	out := &assayv1.Attestation{
		AttestationId:  a.ID,
		PredicateType:  a.PredicateType,
		BuilderId:      a.BuilderID,
		BuildType:      a.BuildType,
		InvocationId:   a.InvocationID,
		SlsaBuildLevel: int32(a.SLSABuildLevel),
		SourceUri:      a.SourceURI,
		CreateTime:     timestamppb.New(a.CreatedAt),
		LogIndex:       a.LogIndex,
		Bundle:         a.Bundle,
		Caller:         callerProto(caller, b),
		Downgrades:     b.Downgrades,
	}
	if a.Bundle != nil { // left out of lists that leave bundles out
		for _, d := range a.Detached {
			out.DetachedSignatures = append(out.DetachedSignatures, &assayv1.DetachedSignature{Kind: d.Kind, KeyId: d.KeyID, Signature: d.Signature})
		}
	}
	if a.SourceCommit != "" {
		out.SourceDigest = map[string]string{"gitCommit": a.SourceCommit}
	}
	for _, s := range a.Subjects {
		out.Subjects = append(out.Subjects, subjectProto(s))
	}
	return out, nil
}

func subjectProto(s store.Subject) *assayv1.Subject {
	return &assayv1.Subject{
		Name:   s.Name,
		Digest: digestMap(s),
		Kind:   assayv1.ArtifactKind(s.Kind),
		Origin: assayv1.DigestOrigin(s.Origin),
		Size:   s.Size,
	}
}
