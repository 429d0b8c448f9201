package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// AttachEvidence has a document about an artifact attested, byte for byte: an SBOM that
// somebody else made, of the predicate type PredicateCycloneDX or PredicateSPDX. The
// artifact is one that is attested already; its Name may be empty, and otherwise is one
// that it was attested under. size is how many bytes document holds, less than 0 where
// that is unknown.
//
// The answer must be about that artifact, carry exactly the bytes sent, and be marked as
// somebody's claim. If the server becomes unavailable on the way the upload starts over,
// where document is an [io.Seeker].
func (c *Client) AttachEvidence(ctx context.Context, subject Subject, predicateType string, document io.Reader, size int64) (*Attested, error) {
	wire, err := wireSubjects([]Subject{subject})
	if err != nil {
		return nil, err
	}
	if subject.Name != "" {
		if err := attest.CheckSubjectName(subject.Name); err != nil {
			return nil, badInput(CodeSubjectInvalid, "%w", err)
		}
	}
	again, err := rewinder(document)
	if err != nil {
		return nil, badInput(CodeArtifactUnreadable, "%w", err)
	}
	header := &assayv1.EvidenceHeader{Subject: wire[0], PredicateType: predicateType, Size: max(size, -1)}
	var out *Attested
	var failed error
	err = c.authenticated(ctx, streamTimeout, func(ctx context.Context) error {
		if failed != nil {
			if err := again(failed); err != nil {
				return err
			}
		}
		out, failed = c.attachOnce(ctx, header, document)
		failed = fromStatus(failed)
		return failed
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// rewinder returns what makes a document readable from its start again. Where nothing
// can, that is the failure which made it necessary, for good.
func rewinder(document io.Reader) (func(failed error) error, error) {
	seeker, ok := document.(io.Seeker)
	if !ok {
		return func(failed error) error {
			var e *Error
			if errors.As(failed, &e) {
				final := *e
				final.Retryable = false
				return &final
			}
			return failed
		}, nil
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	return func(error) error {
		if _, err := seeker.Seek(start, io.SeekStart); err != nil {
			return badInput(CodeArtifactUnreadable, "%w", err)
		}
		return nil
	}, nil
}

func (c *Client) attachOnce(ctx context.Context, header *assayv1.EvidenceHeader, document io.Reader) (*Attested, error) {
	// Ends the stream on every way out.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.attestation.UploadEvidence(ctx)
	if err != nil {
		return nil, err
	}
	sent, n, err := sendEvidence(stream, header, document)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	complete := err == nil
	if complete && header.GetSize() >= 0 && n != header.GetSize() {
		return nil, badInput(CodeArtifactChanged, "the document changed while it was read: %d bytes, then %d", header.GetSize(), n)
	}
	// Where the server ended the stream, its status tells why.
	resp, err := stream.CloseAndRecv()
	switch {
	case err != nil:
		return nil, err
	case !complete:
		return nil, dishonest("the server ended the upload before it had everything")
	}
	if err := checkAttached(resp.GetResult(), header, sent); err != nil {
		return nil, err
	}
	return attestedOf(resp.GetResult()), nil
}

// sendEvidence sends the document in chunks, from one buffer, and returns its digest and
// size.
func sendEvidence(stream assayv1.AttestationService_UploadEvidenceClient, header *assayv1.EvidenceHeader, document io.Reader) (sum [sha256.Size]byte, n int64, err error) {
	first := &assayv1.UploadEvidenceRequest{Message: &assayv1.UploadEvidenceRequest_Header{Header: header}}
	if err := stream.Send(first); err != nil {
		return sum, 0, err
	}
	h := sha256.New()
	chunk := &assayv1.UploadEvidenceRequest_Chunk{}
	msg := &assayv1.UploadEvidenceRequest{Message: chunk}
	buf := make([]byte, chunkSize)
	for {
		read, err := io.ReadFull(document, buf)
		if read > 0 {
			h.Write(buf[:read])
			n += int64(read)
			// Send copies, see upload.sendBytes.
			chunk.Chunk = buf[:read]
			if err := stream.Send(msg); err != nil {
				return sum, n, err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return [sha256.Size]byte(h.Sum(nil)), n, nil
		case err != nil:
			return sum, n, badInput(CodeArtifactUnreadable, "read the document: %w", err)
		}
	}
}

// checkAttached refuses an answer that is not the document that was sent, as a claim
// about the artifact that was named.
func checkAttached(result *assayv1.AttestResult, header *assayv1.EvidenceHeader, sent [sha256.Size]byte) error {
	a := result.GetAttestation()
	if a == nil {
		return dishonest("the result holds no attestation")
	}
	parts, statement, err := openAttestation(a)
	if err != nil {
		return err
	}
	predicate, err := attest.RawPredicate(parts.Envelope.Payload)
	if err != nil {
		return dishonest("the bundle's statement: %w", err)
	}
	if len(statement.Subjects) != 1 {
		return dishonest("the statement has %d subjects, want 1", len(statement.Subjects))
	}
	subject, want := &statement.Subjects[0], header.GetSubject()
	got := sha256.Sum256(predicate)
	switch {
	case subject.Digest["sha256"] != want.GetDigest()["sha256"] || want.GetName() != "" && subject.Name != want.GetName():
		return dishonest("the statement is about %q, sha256:%s, want %q, sha256:%s", subject.Name, subject.Digest["sha256"], want.GetName(), want.GetDigest()["sha256"])
	case statement.PredicateType != header.GetPredicateType():
		return dishonest("the attestation is a %q, want a %q", statement.PredicateType, header.GetPredicateType())
	case !bytes.Equal(got[:], sent[:]):
		return dishonest("the attestation holds another document than the one that was sent: sha256:%s, want sha256:%s", hex.EncodeToString(got[:]), hex.EncodeToString(sent[:]))
	case subject.Annotations[annotationOrigin] == originGenerated:
		return dishonest("the server signed the document as its own work")
	}
	for _, s := range result.GetSboms() {
		if s.GetAttestationId() != a.GetAttestationId() || s.GetSubject().GetDigest()["sha256"] != want.GetDigest()["sha256"] {
			return dishonest("a summary of another SBOM, %.80q", s.GetAttestationId())
		}
		if err := checkSummary(s, assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED); err != nil {
			return err
		}
	}
	return nil
}
