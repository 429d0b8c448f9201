package client

import (
	"errors"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// ErrTrust: what the server publishes about its keys cannot be believed.
var ErrTrust = errors.New("the trust metadata cannot be believed")

// Codes of trust metadata. Those that match ErrTrust are an attack or a broken mirror:
// what is kept stays, and nothing is verified with what came.
const (
	// CodeTUFNotInitialized: there is nothing to start from. assay trust init does that.
	CodeTUFNotInitialized = "TUF_NOT_INITIALIZED"
	// CodeTUFStoreInvalid: what is kept cannot be read, or others could change it.
	CodeTUFStoreInvalid = "TUF_STORE_INVALID"
	// CodeTUFUnavailable: the server has no such file, or was not there in time.
	CodeTUFUnavailable = "TUF_UNAVAILABLE"
	// CodeTUFRootInvalid: a root that is malformed, of keys that are not used here, or
	// not the next one.
	CodeTUFRootInvalid = "TUF_ROOT_INVALID"
	// CodeTUFMetadataInvalid: other metadata that are malformed or too large.
	CodeTUFMetadataInvalid = "TUF_METADATA_INVALID"
	// CodeTUFExpired: metadata past their end: somebody holds back what is new.
	CodeTUFExpired = "TUF_EXPIRED"
	// CodeTUFRollback: older metadata than those seen before.
	CodeTUFRollback = "TUF_ROLLBACK"
	// CodeTUFMixAndMatch: metadata that do not belong together.
	CodeTUFMixAndMatch = "TUF_MIX_AND_MATCH"
	// CodeTUFSignatureInvalid: metadata without the signature of the role's key.
	CodeTUFSignatureInvalid = "TUF_SIGNATURE_INVALID"
	// CodeTUFThreshold: metadata with the signatures of too few different keys.
	CodeTUFThreshold = "TUF_THRESHOLD"
	// CodeTUFTargetMismatch: a file that is not the one that was signed.
	CodeTUFTargetMismatch = "TUF_TARGET_MISMATCH"
)

func untrusted(code, format string, args ...any) *Error {
	return newError(ErrTrust, code, format, args...)
}

// refusalOf gives go-tuf's errors our codes. where is the role, or the name of the
// target, that was being read.
func refusalOf(err error, where string) error {
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	var (
		expired  *metadata.ErrExpiredMetadata
		unsigned *metadata.ErrUnsignedMetadata
		version  *metadata.ErrBadVersionNumber
		length   *metadata.ErrLengthOrHashMismatch
		status   *metadata.ErrDownloadHTTP
	)
	switch {
	case errors.As(err, &status):
		e := newError(ErrUnavailable, CodeTUFUnavailable, "%s: the server answered %d", where, status.StatusCode)
		e.Retryable = status.StatusCode >= 500
		return e
	case errors.As(err, &expired):
		return untrusted(CodeTUFExpired, "%s: %w", where, err)
	case errors.As(err, &unsigned):
		return untrusted(CodeTUFSignatureInvalid, "%s: %w", where, err)
	case errors.As(err, &version) && where == metadata.TIMESTAMP:
		return untrusted(CodeTUFRollback, "%s: %w", where, err)
	case where == metadata.ROOT:
		return untrusted(CodeTUFRootInvalid, "%s: %w", where, err)
	case errors.As(err, &version), errors.As(err, &length):
		return untrusted(CodeTUFMixAndMatch, "%s: %w", where, err)
	}
	return untrusted(CodeTUFMetadataInvalid, "%s: %w", where, err)
}
