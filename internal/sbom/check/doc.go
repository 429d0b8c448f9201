// Package check judges SBOMs that clients made: is this document what it says it is,
// is it about the artifact it is attached to, and which packages does it name?
//
// The document is kept elsewhere, byte for byte. What Check returns is for the index
// and for policies:
//
//	inv, report, err := check.Check(ctx, file, size, check.Want{
//		PredicateType: "https://cyclonedx.org/bom",
//		SHA256:        "e3b0c442…",
//	}, check.DefaultLimits())
//
// # What is accepted
//
// CycloneDX 1.4 to 1.7 and SPDX 2.2 and 2.3, as JSON, of the format that the predicate
// type names. XML is not read, and so has no entities to expand. In order:
//
//  1. The text is one JSON object by the rules of package attest: UTF-8 without byte
//     order mark, no key twice or in two cases, at most 64 levels, at most MaxBytes.
//  2. It is valid by the schema of its version, formats asserted. For CycloneDX that is
//     the official schema; for SPDX one of our own, after the specification.
//  3. Each package URL is valid.
//  4. References lead somewhere. CycloneDX: no two components or services have the same
//     bom-ref, and dependencies name bom-refs of the document. SPDX: no SPDXID occurs
//     twice, and relationships name elements of the document or of one that it declares.
//  5. It is about its subject. Where the document states a SHA-256 or SHA-512 of what it
//     describes (metadata.component, the packages and files that it DESCRIBES), that is
//     the subject's. Where it states none, the statement around it binds it alone, and
//     Report.SelfBound is false.
//
// The first violation in the order of the document ends the check: a refusal with a
// code, the path in Field, and the limit where one is broken.
//
// # Piece by piece
//
// A schema validator wants the whole document as maps and slices, which for 50 MB of
// JSON are some 700 MB. Here a document is a tree of pieces: the elements of the arrays
// at the top, and components within components, services within services. Each is
// decoded and validated alone, against the part of the same schema that the validator
// would apply to it, and dropped. What stays of it in its parent is that there was an
// array: the parent is validated with an empty one in its place. Arrays whose elements
// have to be unique keep a digest of each.
//
// That judges as the whole schema does because those arrays say nothing of their
// elements together but uniqueItems; compilation fails where a schema does otherwise.
package check

import "github.com/assay-build/assay/internal/refusal"

// Why a document is refused, besides the JSON_ codes of package attest and PURL_INVALID.
const (
	// CodeSBOMFormatUnsupported: not JSON, neither CycloneDX nor SPDX, or not what the
	// predicate type says.
	CodeSBOMFormatUnsupported refusal.Code = "SBOM_FORMAT_UNSUPPORTED"
	// CodeSBOMVersionUnsupported: a version of CycloneDX or SPDX that is not accepted.
	CodeSBOMVersionUnsupported refusal.Code = "SBOM_VERSION_UNSUPPORTED"
	// CodeSBOMTooLarge: more bytes, or more JSON values, than the limit.
	CodeSBOMTooLarge refusal.Code = "SBOM_TOO_LARGE"
	// CodeSBOMTooManyComponents: more components, services and packages than the limit.
	CodeSBOMTooManyComponents refusal.Code = "SBOM_TOO_MANY_COMPONENTS"
	// CodeSBOMInvalid: the schema of the format and version does not allow it.
	CodeSBOMInvalid refusal.Code = "SBOM_INVALID"
	// CodeSBOMReferenceDuplicate: two elements have the same bom-ref or SPDXID.
	CodeSBOMReferenceDuplicate refusal.Code = "SBOM_REFERENCE_DUPLICATE"
	// CodeSBOMReferenceUnknown: a reference to an element that is not there.
	CodeSBOMReferenceUnknown refusal.Code = "SBOM_REFERENCE_UNKNOWN"
	// CodeSBOMSubjectMismatch: the document states another digest of what it describes
	// than the subject has.
	CodeSBOMSubjectMismatch refusal.Code = "SBOM_SUBJECT_MISMATCH"
)

// The limits of one document.
const (
	MaxBytes      = 50 << 20
	MaxComponents = 100_000
	// maxValues bounds the time: how many JSON values there are in all.
	maxValues = 8_000_000
	// maxOpenValues bounds the memory: how many JSON values the pieces that are read at
	// one time hold. A dependency on every component of a large document has 100 002.
	maxOpenValues = 300_000
	// maxMembers bounds the members of one object. No object of either format has a
	// tenth of it, and to find duplicate names among millions takes long.
	maxMembers = 4096
)

// Limits bound what a document may make Check do.
type Limits struct {
	// Bytes is the size of the document.
	Bytes int64
	// Components counts components, services and packages, nested ones included.
	Components int
	// Values counts the JSON values of the document; OpenValues those of one element of
	// it (a component with all that is in it but the components), with those of its
	// parents.
	Values, OpenValues int
}

// DefaultLimits are those that the service states.
func DefaultLimits() Limits {
	return Limits{Bytes: MaxBytes, Components: MaxComponents, Values: maxValues, OpenValues: maxOpenValues}
}
