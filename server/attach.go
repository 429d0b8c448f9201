package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom/check"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc"
)

const (
	// CodePredicateTypeUnsupported: evidence of a kind that this version does not check.
	CodePredicateTypeUnsupported refusal.Code = "PREDICATE_TYPE_UNSUPPORTED"
	// CodeSubjectUnknown: nothing that the caller may read attests the subject.
	CodeSubjectUnknown refusal.Code = "SUBJECT_UNKNOWN"
	// CodeEvidenceSizeMismatch: other than the announced bytes were received.
	CodeEvidenceSizeMismatch refusal.Code = "EVIDENCE_SIZE_MISMATCH"
)

const (
	// maxKnown is how many attestations of a digest are looked at for one that the
	// caller may read.
	maxKnown = 64
)

// AttachEvidence attests what a caller says about an artifact.
func (a *attestationService) AttachEvidence(ctx context.Context, req *assayv1.AttachEvidenceRequest) (*assayv1.AttachEvidenceResponse, error) {
	e, err := a.beginEvidence(ctx, assayv1.AttestationService_AttachEvidence_FullMethodName, req.GetSubject(), req.GetPredicateType())
	if err != nil {
		return nil, err
	}
	if n := len(req.GetPredicate()); n == 0 || n > maxChunk {
		return nil, refusal.New(CodeRequestInvalid, "must be 1 to %d bytes, is %d; larger ones go through UploadEvidence", maxChunk, n).InField("predicate")
	}
	sent := false
	result, err := a.attachEvidence(ctx, e, func(context.Context) ([]byte, error) {
		if sent {
			return nil, io.EOF
		}
		sent = true
		return req.GetPredicate(), nil
	})
	if err != nil {
		return nil, inField(err, "predicate")
	}
	return &assayv1.AttachEvidenceResponse{Result: result}, nil
}

// UploadEvidence is AttachEvidence in pieces.
func (a *attestationService) UploadEvidence(stream grpc.ClientStreamingServer[assayv1.UploadEvidenceRequest, assayv1.UploadEvidenceResponse]) error {
	ctx := stream.Context()
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return refusal.New(CodeStreamProtocol, "the stream ended before the header")
	}
	if err != nil {
		return err
	}
	header := first.GetHeader()
	if header == nil {
		return refusal.New(CodeStreamProtocol, "the first message must be the header")
	}
	if header.GetSize() < -1 || header.GetSize() > check.MaxBytes {
		return refusal.New(check.CodeSBOMTooLarge, "%d bytes; the limit is %d", header.GetSize(), check.MaxBytes).InField("header.size")
	}
	e, err := a.beginEvidence(ctx, assayv1.AttestationService_UploadEvidence_FullMethodName, header.GetSubject(), header.GetPredicateType())
	if err != nil {
		return inField(err, "header")
	}
	e.announced = header.GetSize()
	result, err := a.attachEvidence(ctx, e, a.evidenceChunks(stream))
	if err != nil {
		return err
	}
	return stream.SendAndClose(&assayv1.UploadEvidenceResponse{Result: result})
}

// evidenceChunks reads the chunks of a stream, each within the idle limit.
func (a *attestationService) evidenceChunks(stream grpc.ClientStreamingServer[assayv1.UploadEvidenceRequest, assayv1.UploadEvidenceResponse]) func(context.Context) ([]byte, error) {
	type message struct {
		req *assayv1.UploadEvidenceRequest
		err error
	}
	in := make(chan message)
	go func() {
		for {
			req, err := stream.Recv()
			select {
			case in <- message{req, err}:
			case <-stream.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	began, received := time.Now(), int64(0)
	return func(ctx context.Context) ([]byte, error) {
		idle := time.NewTimer(a.uploads.idle)
		defer idle.Stop()
		select {
		case m := <-in:
			if m.err != nil {
				return nil, m.err
			}
			chunk, ok := m.req.GetMessage().(*assayv1.UploadEvidenceRequest_Chunk)
			if !ok {
				return nil, refusal.New(CodeStreamProtocol, "expected chunk after the header")
			}
			received += int64(len(chunk.Chunk))
			if took := time.Since(began); took > a.uploads.grace && received < int64(took.Seconds())*leastPace {
				return nil, refusal.New(CodeStreamIdle, "%d bytes in %s; the least is %d a second", received, took.Round(time.Second), leastPace)
			}
			return chunk.Chunk, nil
		case <-idle.C:
			return nil, refusal.New(CodeStreamIdle, "nothing was received for %s", a.uploads.idle)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// evidence is what a caller is about to say of a known artifact.
type evidence struct {
	caller        *identity.Caller
	subject       store.Subject
	provenance    string // the attestation that names the subject
	predicateType string
	announced     int64 // bytes; -1 where nobody said
}

// beginEvidence checks what comes before the predicate.
func (a *attestationService) beginEvidence(ctx context.Context, method string, s *assayv1.Subject, predicateType string) (*evidence, error) {
	if predicateType != attest.PredicateCycloneDX && predicateType != attest.PredicateSPDX {
		return nil, refusal.New(CodePredicateTypeUnsupported, "%.200q; %s and %s are accepted", predicateType, attest.PredicateCycloneDX, attest.PredicateSPDX).InField("predicate_type")
	}
	caller := sessionFrom(ctx).caller
	subject, of, err := a.knownSubject(ctx, method, caller, s)
	if err != nil {
		return nil, inField(err, "subject")
	}
	return &evidence{caller: caller, subject: *subject, provenance: of, predicateType: predicateType, announced: -1}, nil
}

// knownSubject finds the artifact among what the caller may read. Everything but the
// sha256 digest is what an attestation says of it: who attaches evidence gives an
// artifact no new name. That attestation is what the access policy is asked about.
func (a *attestationService) knownSubject(ctx context.Context, method string, caller *identity.Caller, s *assayv1.Subject) (subject *store.Subject, provenanceID string, err error) {
	asked, err := verifySubject(s)
	if err != nil {
		return nil, "", err
	}
	rows, _, err := a.store.AttestationsBySHA256(ctx, asked.Digest["sha256"], attest.PredicateSLSAProvenanceV1, maxKnown)
	if err != nil {
		return nil, "", err
	}
	own, err := a.writer.Describe(caller)
	if err != nil && caller.IsBuild() {
		return nil, "", err
	}
	// What the same run attested comes first: the evidence is about that build.
	slices.SortStableFunc(rows, func(x, y *store.Attestation) int {
		return cmp.Compare(oneUnless(x.InvocationID == own.InvocationID), oneUnless(y.InvocationID == own.InvocationID))
	})
	var readable *policy.Resource
	for _, row := range rows {
		on, _, err := attestationResource(row)
		if err != nil {
			return nil, "", err
		}
		if !a.authorizer.mayRead(caller, on) {
			continue
		}
		i := slices.IndexFunc(row.Subjects, func(s store.Subject) bool { return agrees(&s, &asked) })
		if i < 0 {
			continue
		}
		if readable = &on; !a.authorizer.ask(caller, "attachEvidence", on).Allowed {
			continue
		}
		known := &row.Subjects[i]
		known.Origin, known.Size = int(assayv1.DigestOrigin_DIGEST_ORIGIN_CLAIMED), 0
		return known, row.ID, a.authorizer.authorize(ctx, method, caller, "attachEvidence", on)
	}
	if readable != nil {
		return nil, "", a.authorizer.authorize(ctx, method, caller, "attachEvidence", *readable)
	}
	return nil, "", refusal.New(CodeSubjectUnknown, "no attestation of sha256:%s that this caller may read%s; attest it first", asked.Digest["sha256"], named(asked.Name))
}

func oneUnless(b bool) int {
	if b {
		return 0
	}
	return 1
}

func named(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" calls it %.200q", name)
}

func agrees(known *store.Subject, asked *attest.Subject) bool {
	digests := digestMap(*known)
	for alg, value := range asked.Digest {
		if digests[alg] != value {
			return false
		}
	}
	return asked.Name == "" || asked.Name == known.Name
}

// attachEvidence receives the predicate, has it checked outside of this process, and
// attests it, byte for byte.
func (a *attestationService) attachEvidence(ctx context.Context, e *evidence, next func(context.Context) ([]byte, error)) (*assayv1.AttestResult, error) {
	release, err := a.uploads.acquire(ctx, shareOf(e.caller), tenantOf(e.caller))
	if err != nil {
		return nil, err
	}
	defer release()
	dir, err := a.uploads.spool.session()
	if err != nil {
		return nil, spoolError(err)
	}
	defer os.RemoveAll(dir)
	f, err := a.uploads.spool.file(dir, "evidence")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := e.receive(ctx, f, next)
	if err != nil {
		return nil, err
	}
	memory := a.scans.reserve(partyOf(e.caller))
	defer memory.drop()
	inv, report, err := a.scans.check(ctx, memory, f.Name(), size, check.Want{
		PredicateType: e.predicateType, SHA256: e.subject.SHA256, SHA512: e.subject.SHA512,
	})
	if err != nil {
		return nil, err
	}
	predicate := make([]byte, size)
	if _, err := f.ReadAt(predicate, 0); err != nil {
		return nil, spoolError(err)
	}
	st, record, err := a.evidenceStatement(e, predicate)
	if err != nil {
		return nil, err
	}
	record.SBOM = claimedIndex(inv, report)
	done, err := a.sealer.seal(ctx, e.caller, st, record)
	if err != nil {
		return nil, err
	}
	if !done.repeated {
		a.metrics.attestations.Inc()
	}
	out, err := attestationOf(done.Attestation, e.caller, a.writer)
	if err != nil {
		return nil, err
	}
	summary := summaryOf(done.ID, e.subject, assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED, inv, report.Format)
	summary.Complete = record.SBOM.Complete
	return &assayv1.AttestResult{Attestation: out, Repeated: done.repeated, Sboms: []*assayv1.SBOMSummary{summary}}, nil
}

func (e *evidence) receive(ctx context.Context, f *spoolFile, next func(context.Context) ([]byte, error)) (int64, error) {
	limit := int64(check.MaxBytes)
	if e.announced >= 0 {
		limit = e.announced
	}
	size := int64(0)
	for {
		chunk, err := next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if len(chunk) > maxChunk {
			return 0, refusal.New(CodeChunkTooLarge, "%d bytes; the limit is %d", len(chunk), maxChunk)
		}
		if size += int64(len(chunk)); size > limit {
			if e.announced >= 0 {
				return 0, refusal.New(CodeEvidenceSizeMismatch, "more than the announced %d bytes were received", limit).InField("header.size")
			}
			return 0, refusal.New(check.CodeSBOMTooLarge, "more than %d bytes, which is the limit", limit)
		}
		if _, err := f.Write(chunk); err != nil {
			return 0, err
		}
	}
	if e.announced >= 0 && size != e.announced {
		return 0, refusal.New(CodeEvidenceSizeMismatch, "%d bytes were announced and %d received", e.announced, size).InField("header.size")
	}
	return size, nil
}

// evidenceRecord is the index entry: that of an attest, or of a person, who builds
// nothing.
func (a *attestationService) evidenceRecord(e *evidence) (*store.Attestation, error) {
	if e.caller.Kind != identity.KindHuman {
		return newRecord(a.writer, e.caller, []store.Subject{e.subject})
	}
	raw, err := e.caller.Marshal()
	if err != nil {
		return nil, err
	}
	return &store.Attestation{Principal: shareOf(e.caller), Caller: raw, Subjects: []store.Subject{e.subject}}, nil
}

// evidenceStatement says who attached it, in words that identify a run or a principal,
// so that two who attach the same document make two attestations.
func (a *attestationService) evidenceStatement(e *evidence, predicate []byte) (*attest.Statement, *store.Attestation, error) {
	record, err := a.evidenceRecord(e)
	if err != nil {
		return nil, nil, err
	}
	record.PredicateType = e.predicateType
	by := record.InvocationID
	if by == "" {
		by = shareOf(e.caller)
	}
	return &attest.Statement{
		Type: attest.StatementTypeV1, PredicateType: e.predicateType, Predicate: predicate,
		Subjects: []attest.Subject{{Name: e.subject.Name, Digest: digestMap(e.subject), Annotations: map[string]string{
			provenance.AnnotationPredicateOrigin: provenance.OriginClaimed,
			provenance.AnnotationProvenance:      e.provenance,
			provenance.AnnotationAttachedBy:      by,
		}}},
	}, record, nil
}
