package client

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/sbom"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// CodeSBOMNotFound: there is no SBOM of the artifact, or none of the kind asked for.
const CodeSBOMNotFound = "SBOM_NOT_FOUND"

// The predicate types of SBOMs.
const (
	PredicateCycloneDX = attest.PredicateCycloneDX
	PredicateSPDX      = attest.PredicateSPDX
)

// Annotations of the subject of evidence; their twins are declared in
// internal/provenance.
const (
	annotationOrigin     = "assay.build/predicateOrigin"
	annotationProvenance = "assay.build/provenance"
	annotationAttachedBy = "assay.build/attachedBy"
	originGenerated      = "generated"
)

const (
	// sbomTimeout bounds SBOM where the context has no deadline: an SBOM is 50 MiB at
	// most, and more than one may have to be looked at.
	sbomTimeout = 10 * time.Minute
	// maxSBOMs is how many SBOMs of one kind are looked at for a complete one.
	maxSBOMs = 16
)

// SBOMOptions narrows which SBOM of an artifact is meant.
type SBOMOptions struct {
	// Origin leaves only those that the server made from the artifact's bytes, or only
	// those that somebody attached.
	Origin assayv1.SBOMOrigin
	// Prefer is the predicate type that is taken where there is a choice among attached
	// ones; PredicateCycloneDX if empty.
	Prefer string
}

// SBOM is one SBOM of an artifact, verified.
type SBOM struct {
	Attestation *assayv1.Attestation
	// Document is the predicate, byte for byte as it was signed: CycloneDX or SPDX JSON.
	Document []byte
	// Origin says who made it. Only an SBOM that is signed as the server's own work is
	// SBOM_ORIGIN_GENERATED; any other is claimed.
	Origin assayv1.SBOMOrigin
	// Format is "cyclonedx" or "spdx", SpecVersion the version of that.
	Format, SpecVersion string
	// Aggregate is what the document says of its own completeness, in the words of
	// CycloneDX: "complete", "incomplete", "unknown" and finer ones.
	Aggregate string
	// Incomplete says why something may be missing, as stable words; docs/sbom.md.
	Incomplete []string
	// Provenance is the id of the provenance that the artifact's bytes came with, of an
	// SBOM that the server made; AttachedBy who attached it, of any other.
	Provenance, AttachedBy string
}

// Complete reports whether the document says that it is complete.
func (s *SBOM) Complete() bool { return s.Aggregate == sbom.AggregateComplete }

// SBOM returns the SBOM of an artifact. What the server made comes before what somebody
// attached, a complete one before one that is not, a later one before an earlier one.
//
// It must be signed by one of the instance's keys, registered in one of its logs, and
// about this digest, also by the word of the document itself where that carries a digest.
func (c *Client) SBOM(ctx context.Context, sha256 string, o SBOMOptions) (*SBOM, error) {
	if err := attest.CheckDigest("sha256", sha256); err != nil {
		return nil, badInput(CodeSubjectInvalid, "%w", err)
	}
	o.Prefer = cmp.Or(o.Prefer, PredicateCycloneDX)
	ctx, cancel := withDeadline(ctx, sbomTimeout)
	defer cancel()
	classes, err := c.sbomsOf(ctx, sha256, &o)
	if err != nil {
		return nil, err
	}
	var roots *trust
	for _, class := range classes {
		var best *SBOM
		for _, row := range class {
			if roots == nil {
				if roots, err = c.trusted(ctx); err != nil {
					return nil, err
				}
			}
			s, err := c.openSBOM(ctx, row, sha256, roots)
			if err != nil {
				return nil, err
			}
			if best == nil || s.Complete() {
				best = s // The newest, until there is a complete one.
			}
			if s.Complete() {
				break
			}
		}
		if best != nil {
			return best, nil
		}
	}
	return nil, newError(ErrNotFound, CodeSBOMNotFound, "no SBOM of sha256:%s%s", sha256, withOrigin(o.Origin))
}

func withOrigin(o assayv1.SBOMOrigin) string {
	switch o {
	case assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED:
		return " that the server made from its bytes"
	case assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED:
		return " that somebody attached"
	}
	return ""
}

// sbomsOf lists the SBOM attestations of a digest in classes, the better ones first, and
// in each the newest first. To which class one belongs is the word of the index, and
// openSBOM holds it to that.
func (c *Client) sbomsOf(ctx context.Context, sha256 string, o *SBOMOptions) ([][]*assayv1.Attestation, error) {
	var generated, preferred, others []*assayv1.Attestation
	for _, predicateType := range []string{PredicateCycloneDX, PredicateSPDX} {
		filter := fmt.Sprintf("subject.digest = %q AND predicate_type = %q", "sha256:"+sha256, predicateType)
		for row, err := range c.ListAttestations(ctx, ListOptions{Filter: filter, PageSize: 100}) {
			if err != nil {
				return nil, err
			}
			class := &generated
			switch {
			case listedOrigin(row) == assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED:
			case predicateType == o.Prefer:
				class = &preferred
			default:
				class = &others
			}
			wanted := o.Origin == assayv1.SBOMOrigin_SBOM_ORIGIN_UNSPECIFIED || o.Origin == listedOrigin(row)
			if wanted && len(*class) < maxSBOMs {
				*class = append(*class, row)
			}
		}
	}
	classes := [][]*assayv1.Attestation{generated, preferred, others}
	for _, class := range classes {
		slices.SortStableFunc(class, func(a, b *assayv1.Attestation) int {
			return b.GetCreateTime().AsTime().Compare(a.GetCreateTime().AsTime())
		})
	}
	return classes, nil
}

// listedOrigin is who made an SBOM, by the index: who hashed the bytes has read them.
func listedOrigin(row *assayv1.Attestation) assayv1.SBOMOrigin {
	for _, s := range row.GetSubjects() {
		if s.GetOrigin() == assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED {
			return assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED
		}
	}
	return assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED
}

// openSBOM fetches an SBOM and refuses it unless it is what row says, about the digest,
// signed and logged.
func (c *Client) openSBOM(ctx context.Context, row *assayv1.Attestation, sha256 string, roots *trust) (*SBOM, error) {
	if err := attest.CheckDigest("sha256", row.GetAttestationId()); err != nil {
		return nil, dishonest("an SBOM is listed without an id: %w", err)
	}
	a, err := c.fetchAttestation(ctx, row.GetAttestationId())
	if err != nil {
		return nil, err
	}
	parts, statement, err := openAttestation(a)
	if err != nil {
		return nil, err
	}
	if err := roots.verify(parts); err != nil {
		return nil, err
	}
	s, err := readSBOM(a, parts, statement)
	if err != nil {
		return nil, err
	}
	about := len(statement.Subjects) == 1 && statement.Subjects[0].Digest["sha256"] == sha256
	switch {
	case !about:
		return nil, dishonest("the SBOM %s is not about sha256:%s", a.GetAttestationId(), sha256)
	case statement.PredicateType != row.GetPredicateType():
		return nil, dishonest("the SBOM %s is listed as %q and signed as %q", a.GetAttestationId(), row.GetPredicateType(), statement.PredicateType)
	case s.Origin != listedOrigin(row):
		return nil, dishonest("the SBOM %s is listed as %s and signed as %s", a.GetAttestationId(), listedOrigin(row), s.Origin)
	}
	return s, nil
}

// ReadSBOM reads the SBOM out of an attestation that GetAttestation returned. It does
// not verify the signature.
func ReadSBOM(a *assayv1.Attestation) (*SBOM, error) {
	parts, statement, err := openAttestation(a)
	if err != nil {
		return nil, err
	}
	return readSBOM(a, parts, statement)
}

func readSBOM(a *assayv1.Attestation, parts *attest.BundleParts, statement *attest.Statement) (*SBOM, error) {
	document, err := attest.RawPredicate(parts.Envelope.Payload)
	if err != nil {
		return nil, dishonest("the bundle's statement: %w", err)
	}
	header, err := sbom.Read(bytes.NewReader(document), func(sbom.Component) error { return nil })
	if err != nil {
		return nil, dishonest("the SBOM: %w", err)
	}
	want := map[string]string{PredicateCycloneDX: sbom.FormatCycloneDX, PredicateSPDX: sbom.FormatSPDX}[statement.PredicateType]
	if header.Format != want {
		return nil, dishonest("a %q holds %s", statement.PredicateType, header.Format)
	}
	s := &SBOM{
		Attestation: a, Document: document, Origin: assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED,
		Format: header.Format, SpecVersion: header.SpecVersion, Aggregate: header.Aggregate, Incomplete: header.Incomplete,
	}
	// ParseStatement has refused a statement without subjects.
	subject := &statement.Subjects[0]
	if subject.Annotations[annotationOrigin] == originGenerated {
		s.Origin, s.Provenance = assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED, subject.Annotations[annotationProvenance]
	} else {
		s.AttachedBy = subject.Annotations[annotationAttachedBy]
	}
	return s, s.checkBound(subject.Digest["sha256"], header.Hashes)
}

// checkBound refuses a document that says itself that it is about something else. The
// server's own always say what they are about.
func (s *SBOM) checkBound(sha256 string, hashes []sbom.Hash) error {
	bound := false
	for _, h := range hashes {
		if h.Algorithm != "SHA-256" {
			continue
		}
		if h.Value != sha256 {
			return dishonest("the SBOM says that it is about sha256:%s, and is signed for sha256:%s", h.Value, sha256)
		}
		bound = true
	}
	if !bound && s.Origin == assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED {
		return dishonest("the SBOM does not say what it is about")
	}
	return nil
}

// checkGenerated refuses summaries of other artifacts than those that were attested,
// and of SBOMs that the server did not make.
func checkGenerated(result *assayv1.AttestResult) error {
	about := make(map[string]string)
	for _, s := range result.GetAttestation().GetSubjects() {
		about[s.GetName()] = s.GetDigest()["sha256"]
	}
	for _, s := range result.GetSboms() {
		name, digest := s.GetSubject().GetName(), s.GetSubject().GetDigest()["sha256"]
		if want, ok := about[name]; !ok || digest != want {
			return dishonest("an SBOM of %.200q, sha256:%s, which was not attested or comes twice", name, digest)
		}
		delete(about, name)
		if err := checkSummary(s, assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED); err != nil {
			return err
		}
	}
	return nil
}

func checkSummary(s *assayv1.SBOMSummary, origin assayv1.SBOMOrigin) error {
	if err := attest.CheckDigest("sha256", s.GetAttestationId()); err != nil {
		return dishonest("the SBOM of %.200q has no attestation id: %w", s.GetSubject().GetName(), err)
	}
	switch {
	case s.GetOrigin() != origin:
		return dishonest("the SBOM of %.200q is %s, want %s", s.GetSubject().GetName(), s.GetOrigin(), origin)
	case origin == assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED && s.GetComplete() && (len(s.GetIncompleteReasons()) > 0 || s.GetComponentCount() == 0):
		return dishonest("the SBOM of %.200q is said to be complete, and not to be", s.GetSubject().GetName())
	}
	return nil
}
