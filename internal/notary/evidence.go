package notary

import (
	"encoding/hex"
	"time"
)

// Evidence is proof that a signature passed every check. Only this package can make
// a valid one. It does not change; what its methods return must not be changed either.
// Valid evidence of a signature that AWS Signer has revoked says so: see Revoked.
type Evidence struct {
	signature *signature // nil: not valid
	revoked   []string
}

// Valid reports whether e was made by a successful verification. It is false for nil
// and for the zero value.
func (e *Evidence) Valid() bool { return e != nil && e.signature != nil }

// Profile is the ARN of the signing profile, without version.
func (e *Evidence) Profile() string {
	if !e.Valid() {
		return ""
	}
	p := e.signature.profile
	p.version = ""
	return p.String()
}

// ProfileVersion is the ARN of the profile version that signed. It is one of those that
// Trust pins.
func (e *Evidence) ProfileVersion() string {
	if !e.Valid() {
		return ""
	}
	return e.signature.profile.String()
}

// Job is the ARN of the signing job.
func (e *Evidence) Job() string {
	if !e.Valid() {
		return ""
	}
	return e.signature.job
}

// SigningTime is when AWS Signer says it signed.
func (e *Evidence) SigningTime() time.Time {
	if !e.Valid() {
		return time.Time{}
	}
	return e.signature.signed
}

// Expiry is when the signature ceases to verify.
func (e *Evidence) Expiry() time.Time {
	if !e.Valid() {
		return time.Time{}
	}
	return e.signature.expiry
}

// EnvelopeSHA256 is the digest, in lower-case hex, of the envelope that was verified.
func (e *Evidence) EnvelopeSHA256() string {
	if !e.Valid() {
		return ""
	}
	return hex.EncodeToString(e.signature.envelope[:])
}

// PredicateType is the one that the signature names, which is that of the statement in the
// envelope.
func (e *Evidence) PredicateType() string {
	if !e.Valid() {
		return ""
	}
	return e.signature.predicateType
}

// Revoked reports whether AWS Signer has revoked the job, the profile version or a
// certificate as of the signing time. Where that could not be found out there is no evidence.
func (e *Evidence) Revoked() bool { return e.Valid() && len(e.revoked) > 0 }

// RevokedEntities are the ARNs and certificate hashes that are revoked.
func (e *Evidence) RevokedEntities() []string {
	if !e.Valid() {
		return nil
	}
	return e.revoked
}
