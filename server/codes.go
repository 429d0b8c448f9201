package server

import (
	"strings"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/notary"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/check"
	"github.com/assay-build/assay/internal/sbom/sandbox"
	"github.com/assay-build/assay/internal/sbom/versions"
	"github.com/assay-build/assay/internal/signing/awskms"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/stsproof"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
	"github.com/assay-build/assay/internal/tsaclient"
	"github.com/assay-build/assay/internal/verify"
	"google.golang.org/grpc/codes"
)

// signerAway reports whether a refusal says that something outside of the service, which
// signs or dates what it signs, cannot be had or lies.
func signerAway(c refusal.Code) bool {
	for _, prefix := range []string{"KMS_", "TSA_", "TIMESTAMP_", string(ca.CodeNoIntermediate), string(CodeAuthorityMissing), string(CodeSignatureMisdated), string(awskms.CodeKeyRefInvalid)} {
		if strings.HasPrefix(string(c), prefix) {
			return true
		}
	}
	return false
}

// statusCode is the one place where a refusal becomes a gRPC status. A code that
// is not named here is INTERNAL: its text stays in the log. Those are refusals
// that no caller can cause or mend, and codes of parts that answer in a Decision
// (policy, verify) rather than in an error.
func statusCode(c refusal.Code) codes.Code {
	switch c {
	case CodeRequestInvalid, CodeUnknownField,
		attest.CodeNoSubjects, attest.CodeTooManySubjects, CodeDuplicateSubject, attest.CodeSubjectNoDigest, CodeKindUnknown,
		CodeArtifactTooLarge, CodeArtifactSizeMismatch, CodeStreamProtocol, CodeChunkTooLarge,
		attest.CodeDigestInvalid, attest.CodeSubjectNameInvalid,
		CodePredicateTypeUnsupported, CodeEvidenceSizeMismatch,
		sbom.CodeQueryInvalid, sbom.CodePURLInvalid, versions.CodeRangeInvalid, versions.CodeVersionInvalid, versions.CodeVersionUnordered,
		check.CodeSBOMFormatUnsupported, check.CodeSBOMVersionUnsupported, check.CodeSBOMTooLarge, check.CodeSBOMTooManyComponents,
		check.CodeSBOMInvalid, check.CodeSBOMReferenceDuplicate, check.CodeSBOMReferenceUnknown, check.CodeSBOMSubjectMismatch, sandbox.CodeSBOMUncheckable,
		attest.CodeJSONInvalid, attest.CodeJSONDuplicate, attest.CodeJSONCaseVariant, attest.CodeJSONTooDeep, attest.CodeJSONTooLarge,
		codebuild.CodeBuildIDInvalid, stsproof.CodeProofInvalid, stsproof.CodeRegionUnknown, CodeCredentialNotConfigured,
		store.CodePageSizeInvalid, store.CodePageTokenInvalid, store.CodeFilterInvalid, store.CodeOrderInvalid:
		return codes.InvalidArgument

	case CodeSessionMissing, identity.CodeSessionInvalid, identity.CodeSessionExpired,
		identity.CodeTokenMalformed, identity.CodeTokenTooLarge, identity.CodeTokenAlgRefused, identity.CodeTokenHeaderRefused,
		identity.CodeTokenKIDMissing, identity.CodeTokenKeyUnknown, identity.CodeTokenSignatureInvalid,
		identity.CodeIssuerUnknown, identity.CodeTokenAudienceMismatch, identity.CodeTokenExpired,
		identity.CodeTokenNotYetValid, identity.CodeTokenLifetimeTooLong, identity.CodeTokenClaimMissing,
		identity.CodeTokenClaimInvalid, identity.CodeTokenReplayed, identity.CodeRunRecheckFailed,
		identity.CodeNonceInvalid, identity.CodeNonceExpired, identity.CodeNonceUsed, identity.CodeProofExpired, identity.CodeProofNotYetValid,
		identity.CodeSTSRefused, identity.CodeSTSAnswerInvalid, identity.CodeAWSPrincipalRefused, stsproof.CodeCredentialsLongLived,
		identity.CodeClientCertificateMissing, identity.CodeClientCertificateInvalid, identity.CodeClientCertificateIdentity,
		codebuild.CodeSessionMismatch, codebuild.CodeRoleMismatch, codebuild.CodeBuildAmbiguous,
		codebuild.CodeNotRunning, codebuild.CodePhaseNotAllowed, codebuild.CodeTimeMismatch, identity.CodeAWSBuildMismatch:
		return codes.Unauthenticated

	case identity.CodeCallerNotAllowed, provenance.CodeBuilderUnknown,
		provenance.CodeFactMissing, provenance.CodeFactInvalid, provenance.CodeSourceInvalid, provenance.CodeWorkflowRefInvalid,
		identity.CodeAWSAccountNotAllowed, identity.CodeAWSRegionNotAllowed, identity.CodeAWSRoleNotAllowed, identity.CodeCodeBuildNotConfigured,
		codebuild.CodeAccountNotAllowed, codebuild.CodeRegionNotAllowed, codebuild.CodeProjectNotAllowed, codebuild.CodeProjectNotFound,
		codebuild.CodeRoleTrustTooWide, codebuild.CodeRoleTrustInvalid,
		policy.CodeAccessDenied, policy.CodeAccessForbidden, policy.CodeAccessPolicyError, policy.CodePrincipalInvalid:
		return codes.PermissionDenied

	// The build is not one, or not yet one, that can be attested.
	case store.CodeCallerTooLarge, ca.CodeIdentityInvalid, tlog.CodeEntryKeyUnsupported, codebuild.CodeReaderDenied, codebuild.CodeNotFinished, codebuild.CodeNotSucceeded, codebuild.CodeRecordInvalid, codebuild.CodeRecordSecret,
		codebuild.CodeRecordTooLarge, codebuild.CodeNoArtifacts, codebuild.CodeArtifactDigestMismatch, codebuild.CodeArtifactTooLarge,
		codebuild.CodeArtifactChanged, codebuild.CodeArtifactInvalid, codebuild.CodeArtifactTooMany, codebuild.CodeArtifactUnversioned:
		return codes.FailedPrecondition

	case store.CodeNotFound, codebuild.CodeBuildNotFound, CodeSubjectUnknown:
		return codes.NotFound
	case CodeMethodUnknown, CodeNotImplemented:
		return codes.Unimplemented
	case CodeDigestMismatch:
		return codes.DataLoss
	case CodeDeadlineExceeded, CodeStreamIdle:
		return codes.DeadlineExceeded
	case CodeCanceled:
		return codes.Canceled

	// Room that is lacking; a repeat helps only after somebody made some.
	case store.CodeStorageFull, CodeSpoolFull, posix.CodeDiskFull, CodeMessageTooLarge, posix.CodeEntryTooLarge, attest.CodeStatementTooLarge:
		return codes.ResourceExhausted

	// Something else is slow or away; a repeat may help.
	case identity.CodeIssuerUnavailable, identity.CodeRunRecheckUnavailable, identity.CodeSTSBusy, identity.CodeSTSThrottled, identity.CodeSTSUnavailable,
		codebuild.CodeUnavailable, sandbox.CodeScannerBusy, sandbox.CodeScannerUnavailable, CodeOverloaded, CodeShuttingDown,
		store.CodeStoreBusy, store.CodeStoreClosed, CodeLogKeyChanged, CodeAuthorityMissing, CodeSignatureMisdated,
		awskms.CodeUnavailable, awskms.CodeThrottled, awskms.CodeCircuitOpen, awskms.CodeAccessDenied, awskms.CodeKeyUnusable, awskms.CodeKeyNotFound,
		awskms.CodeWrongKey, awskms.CodeWrongAlgorithm, awskms.CodeSignatureInvalid, awskms.CodeAnswerInvalid,
		awskms.CodeKeyUnsupported, awskms.CodeKeyRefInvalid, ca.CodeNoIntermediate,
		notary.CodeUnavailable, notary.CodeThrottled, notary.CodeAccessDenied, notary.CodeProfileNotFound,
		notary.CodeProfileUnusable, notary.CodeAnswerInvalid, notary.CodeRevoked, notary.CodeRevocationUnknown, notary.CodeExpired,
		notary.CodeUntrusted, notary.CodeDescriptorMismatch, notary.CodeSignatureInvalid, notary.CodeAlgorithm, notary.CodeAttributes,
		notary.CodeMalformed, notary.CodeMediaType, notary.CodeProfileNotAllowed, notary.CodeTimeInvalid, notary.CodePayloadTooLarge,
		tsaclient.CodeUnavailable, tsaclient.CodeRefused, tsaclient.CodeAnswerInvalid, tsaclient.CodeNonceMismatch, tsaclient.CodeImprintMismatch,
		tsaclient.CodeTimeInvalid, verify.CodeTimestampMalformed, verify.CodeTimestampMismatch, verify.CodeTimestampUntrusted, verify.CodeTimestampEKU,
		verify.CodeTimestampOutsideAuthority, verify.CodeTimestampOutsideCertificate, verify.CodeTimestampSignature,
		posix.CodeOverloaded, posix.CodeClosed, posix.CodeSignFailed:
		return codes.Unavailable
	}
	return codes.Internal
}
