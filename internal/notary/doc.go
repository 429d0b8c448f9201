// Package notary makes and verifies the second signature of an attestation: a
// Notary Project signature by AWS Signer over the descriptor of the exact bytes of
// a DSSE envelope.
//
// AWS Signer cannot sign DSSE: the one thing it signs is a Notary payload, which
// names an artifact by media type, digest and size. So the signature stands beside
// the envelope, never in its "signatures", and nothing that reads DSSE takes it for
// one. The envelope must not change by a byte afterwards: a signature added to it
// makes other bytes, which this signature is not over.
//
//	verifier, err := notary.NewVerifier(
//		notary.Trust{
//			Roots:              []*x509.Certificate{awsSignerRoot},
//			ProfileVersionARNs: []string{"arn:aws:signer:eu-west-1:111122223333:/signing-profiles/release/Ab3De5Gh7J"},
//		},
//		revocations, // from NewRevocations
//		notary.VerifierConfig{})
//	signer, err := notary.NewSigner(notary.SignerConfig{AWS: awsConfig, Ref: "signer:///release", Verifier: verifier})
//	…
//	jws, err := signer.Sign(ctx, envelope, "https://slsa.dev/provenance/v1")
//	…
//	ev, err := verifier.Verify(ctx, envelope, jws)
//	if err != nil {
//		return refusal.CodeOf(err) // for example NOTARY_PROFILE_NOT_ALLOWED
//	}
//	fmt.Println(ev.ProfileVersion(), ev.SigningTime(), ev.Revoked())
//
// # What is signed
//
//	{"targetArtifact": {
//	  "mediaType": "application/vnd.dsse.envelope.v1+json",
//	  "digest":    "sha256:…",                              of the envelope's bytes
//	  "size":      1234,
//	  "annotations": {"build.assay.predicateType": "https://slsa.dev/provenance/v1"}}}
//
// The digest is SHA-256, as everywhere else in the service: what AWS Signer and
// notation-go 1.3 accept does not depend on it. SHA-384, which tools that derive the
// digest from the signature's algorithm ask for, verifies too.
//
// The media type keeps this signature and signatures of container images apart. A
// registry's client looks for a signature over an image's descriptor, and an image's
// media type is never that of an envelope; the verifier here refuses image media
// types with a code of their own, NOTARY_MEDIA_TYPE. Whoever may use the signing
// profile for images cannot thereby vouch for attestations, nor the other way round.
//
// # What is verified
//
// In this order; each step has its code:
//
//	shape        one strict reading of JWS, protected header and payload
//	algorithm    ES384 by a P-384 key, nothing else
//	attributes   scheme notary.x509.signingAuthority, Signer's plugin, profile version, job,
//	             signing time and expiry; every critical one known, no others
//	signature    over the protected header and payload as they came, by the first certificate
//	chain        to a configured root, each certificate valid at the signing time
//	profile      the signed profile version is one of those pinned, by its whole ARN
//	descriptor   media type, digest, size and predicate type are those of the envelope
//	judge        notation-go, from the raw bytes, under a strict policy, must accept too
//	             and must have read what was read here
//	now          signed not more than 5 minutes in the future; not expired
//	revocation   AWS Signer is asked about profile version, job and certificates
//
// A certificate that has expired since does not matter: the signing time is AWS's
// statement, made under the same signature. A profile name without version, or a wildcard,
// cannot be pinned: a profile that was cancelled and made again is another one.
//
// notation-go does no I/O here. Trust store, trust policy and plugin are objects in
// memory. Its policy skips revocation, so it calls neither OCSP nor a CRL; should it ever,
// it meets validators that refuse and have no client. Signer's certificates
// are revoked through AWS Signer alone, and that is asked by this package.
//
// # Revocation
//
// A revoked signature makes valid Evidence with Revoked true: policy decides what
// follows. Where AWS cannot be asked there is no evidence, but NOTARY_REVOCATION_UNKNOWN.
// An answer holds for VerifierConfig.RevocationTTL, a failure for 5 seconds at most, and
// one signature is asked about by one caller at a time. Sign releases nothing
// that is revoked.
//
// # Failure
//
// A service that fails five times in a row is left alone for a second, then for two, up
// to thirty; one call at a time finds out whether it is back. Until then, and when
// too many calls are under way, the answer is SIGNER_UNAVAILABLE, which a retry may mend. What
// AWS wrote stays in the error's cause, for the log: it names the service's own role.
package notary

import (
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// What is signed, and what the signature is.
const (
	MediaTypeEnvelope  = "application/vnd.dsse.envelope.v1+json"
	MediaTypeSignature = "application/jose+json"

	// AnnotationPredicateType names, in the signed descriptor, the predicate type
	// of the statement in the envelope.
	AnnotationPredicateType = "build.assay.predicateType"
)

// The limits. Each refusal names the limit and the value that broke it.
const (
	// MaxSignatureBytes bounds a JWS. A real one, with four certificates, has some 5 KiB.
	MaxSignatureBytes = 64 << 10
	// MaxPayloadBytes is AWS Signer's own limit on what it signs.
	MaxPayloadBytes = 4096

	maxChain = 8
	// maxClockSkew is how far AWS's clock may be ahead of ours.
	maxClockSkew = 5 * time.Minute
)

// Why a configuration is refused.
const (
	// CodeRefInvalid refuses a reference that names no signing profile, or a version of one.
	CodeRefInvalid refusal.Code = "NOTARY_REF_INVALID"
	// CodeTrustInvalid refuses roots or profile versions that nothing should be verified with.
	CodeTrustInvalid refusal.Code = "NOTARY_TRUST_INVALID"
)

// Why a signature is refused.
const (
	// CodeMalformed refuses what is not one strict JWS of the expected shape, or
	// an envelope that is none.
	CodeMalformed refusal.Code = "NOTARY_MALFORMED"
	// CodeAlgorithm refuses every algorithm but ES384.
	CodeAlgorithm refusal.Code = "NOTARY_ALGORITHM"
	// CodeAttributes refuses signed attributes that are missing, unknown or not those
	// of AWS Signer.
	CodeAttributes refusal.Code = "NOTARY_ATTRIBUTES"
	// CodeSignatureInvalid refuses a signature that does not verify, here or with notation-go.
	CodeSignatureInvalid refusal.Code = "NOTARY_SIGNATURE_INVALID"
	// CodeUntrusted refuses a chain that is not one, or does not end in a configured root.
	CodeUntrusted refusal.Code = "NOTARY_UNTRUSTED"
	// CodeTimeInvalid refuses a signing time in the future, or at which a certificate was not valid.
	CodeTimeInvalid refusal.Code = "NOTARY_TIME_INVALID"
	// CodeExpired refuses a signature after its signed expiry.
	CodeExpired refusal.Code = "NOTARY_EXPIRED"
	// CodeProfileNotAllowed refuses a signature of a profile version that is not pinned.
	CodeProfileNotAllowed refusal.Code = "NOTARY_PROFILE_NOT_ALLOWED"
	// CodeMediaType refuses the signature of an image, an index or a part of one.
	CodeMediaType refusal.Code = "NOTARY_MEDIA_TYPE"
	// CodeDescriptorMismatch refuses a signature over something other than this envelope.
	CodeDescriptorMismatch refusal.Code = "NOTARY_DESCRIPTOR_MISMATCH"
	// CodeRevoked refuses to release a signature that is revoked already.
	CodeRevoked refusal.Code = "NOTARY_REVOKED"
	// CodeRevocationUnknown: AWS could not be asked whether the signature is revoked.
	CodeRevocationUnknown refusal.Code = "NOTARY_REVOCATION_UNKNOWN"
)

// Why AWS Signer signs nothing.
const (
	// CodePayloadTooLarge refuses a descriptor that AWS Signer would not take.
	CodePayloadTooLarge refusal.Code = "NOTARY_PAYLOAD_TOO_LARGE"
	// CodeUnavailable: AWS Signer could not be asked, or did not answer usably. Trying
	// again later may help.
	CodeUnavailable refusal.Code = "SIGNER_UNAVAILABLE"
	// CodeThrottled: AWS Signer has too much to do for this account.
	CodeThrottled refusal.Code = "SIGNER_THROTTLED"
	// CodeAccessDenied: AWS does not let the service sign, or ask. Who runs the service
	// must mend its role.
	CodeAccessDenied refusal.Code = "SIGNER_ACCESS_DENIED"
	// CodeProfileNotFound: the account has no such signing profile.
	CodeProfileNotFound refusal.Code = "SIGNER_PROFILE_NOT_FOUND"
	// CodeProfileUnusable: AWS Signer does not sign with this profile: it is cancelled, revoked,
	// or for another platform.
	CodeProfileUnusable refusal.Code = "SIGNER_PROFILE_UNUSABLE"
	// CodeAnswerInvalid refuses what AWS Signer answered: it is not the signature that was
	// asked for.
	CodeAnswerInvalid refusal.Code = "SIGNER_ANSWER_INVALID"
)
