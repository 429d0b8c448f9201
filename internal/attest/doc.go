// Package attest defines the bytes Assay signs and hands out: strict JSON,
// in-toto statements, DSSE envelopes and Sigstore bundles of our own shape.
// It does no I/O and holds no keys.
//
// # Strict JSON
//
// One parser serves everything that is signed. CheckJSON accepts RFC 8259 texts
// that are valid UTF-8, that no two readers could understand differently, and
// that are bounded: no name twice in one object, no two names that differ only
// by case (simple Unicode folding, so "ſubject" beside "subject" is refused),
// at most 64 levels, nothing after the value. DecodeStrict adds exact-case keys,
// refuses unknown ones and never rounds a number. encoding/json takes the last
// duplicate and folds case, and is never used on signed bytes.
//
// # Statement, envelope, bundle
//
// A Statement says which artifacts (subjects, by digest) a predicate is about.
// An Envelope carries its bytes and the signatures over PAE(type, bytes). A
// bundle joins one envelope to the proof that it was logged and to RFC 3161
// timestamps, and stands alone: cosign and the sigstore libraries verify it.
//
//	st := &attest.Statement{
//		Type:          attest.StatementTypeV1,
//		Subjects:      []attest.Subject{{Name: "app.tar.gz", Digest: map[string]string{"sha256": hex}}},
//		PredicateType: attest.PredicateSLSAProvenanceV1,
//		Predicate:     predicate,
//	}
//	payload, err := st.Marshal()
//	…
//	digest := sha256.Sum256(attest.PAE(attest.PayloadTypeInToto, payload))
//	sig, err := signer.Sign(ctx, digest[:])
//	…
//	env := &attest.Envelope{PayloadType: attest.PayloadTypeInToto, Payload: payload,
//		Signatures: []attest.Signature{{KeyID: signer.KeyID(), Sig: sig}}}
//	bundle, err := attest.MarshalBundle(&attest.BundleParts{PublicKeyHint: signer.KeyID(),
//		Envelope: env, LogEntry: entry, Timestamps: [][]byte{response}})
//
// The digest is of the hash that the key decides (SignatureHash): SHA-256 for ECDSA
// P-256 and RSA, SHA-384 for P-384. VerifySignature knows those keys and no others.
// In place of the hint a bundle may hold the certificate of its key.
//
// Every writer is deterministic: equal values give equal bytes. The reader of our
// own bundles is the exact inverse of their writer: what ParseOwnBundle accepts,
// MarshalBundle writes again byte for byte.
package attest

// The media types, statement types and predicate types Assay writes or reads.
const (
	PayloadTypeInToto = "application/vnd.in-toto+json"

	StatementTypeV1  = "https://in-toto.io/Statement/v1"
	StatementTypeV01 = "https://in-toto.io/Statement/v0.1"

	PredicateSLSAProvenanceV1 = "https://slsa.dev/provenance/v1"
	PredicateVSA              = "https://slsa.dev/verification_summary/v1"
	PredicateCycloneDX        = "https://cyclonedx.org/bom"
	PredicateSPDX             = "https://spdx.dev/Document"

	BundleMediaTypeV03 = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

// The limits. Each refusal names the limit and the value that broke it. The
// counts are those of sigstore-go, so that what we sign others will read. The sizes
// leave room for an SBOM of 50 MiB.
const (
	MaxDepth             = 64
	MaxSubjects          = 1024
	MaxDigestsPerSubject = 32
	MaxAnnotations       = 32
	MaxSignatures        = 32
	MaxTimestamps        = 32
	MaxCertificateBytes  = 32 << 10
	MaxNameBytes         = 512
	MaxStatementBytes    = 64 << 20
	MaxBundleBytes       = 96 << 20
)
