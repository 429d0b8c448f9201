package verify

import (
	"time"

	"github.com/assay-build/assay/internal/attest"
)

// Evidence is proof that a bundle passed every check of one entrance. Only this
// package can make a valid one. It does not change; what its methods return must
// not be changed either.
type Evidence struct {
	valid     bool
	own       bool
	statement *attest.Statement // nil for a signature over an artifact
	payload   []byte
	artifact  Digest // of a signature over an artifact

	keyID        string
	identity     string
	issuer       string
	authorityID  string
	coSignatures []string

	logID          []byte
	logIndex       int64
	integratedTime time.Time
	times          []trustedTime
}

// trustedTime is a time at which the signature is known to have existed, and who said so.
type trustedTime struct {
	at     time.Time
	source string
}

// Valid reports whether e was made by a successful verification. It is false for
// nil and for the zero value.
func (e *Evidence) Valid() bool { return e != nil && e.valid }

// Own reports whether the bundle came through VerifyOwn.
func (e *Evidence) Own() bool { return e.Valid() && e.own }

// Statement is the signed in-toto statement; nil for a signature over an artifact.
func (e *Evidence) Statement() *attest.Statement {
	if !e.Valid() {
		return nil
	}
	return e.statement
}

// Payload is the exact bytes that were signed inside the envelope.
func (e *Evidence) Payload() []byte {
	if !e.Valid() {
		return nil
	}
	return e.payload
}

// PredicateType is that of the signed statement, "" where there is none. Nothing
// outside the signature can set it.
func (e *Evidence) PredicateType() string {
	if s := e.Statement(); s != nil {
		return s.PredicateType
	}
	return ""
}

// HasDigest reports whether the signed content names this digest. alg is as in
// in-toto ("sha256"), hexDigest in lower case.
func (e *Evidence) HasDigest(alg, hexDigest string) bool {
	if !e.Valid() || alg == "" || hexDigest == "" {
		return false
	}
	if e.statement == nil {
		return e.artifact == Digest{Algorithm: alg, Hex: hexDigest}
	}
	for i := range e.statement.Subjects {
		if e.statement.Subjects[i].Digest[alg] == hexDigest {
			return true
		}
	}
	return false
}

// SignerKeyID is the lower-case hex SHA-256 of the signer's SubjectPublicKeyInfo.
func (e *Evidence) SignerKeyID() string { return e.text(func() string { return e.keyID }) }

// Identity is the subject alternative name of the signing certificate, "" for a key.
func (e *Evidence) Identity() string { return e.text(func() string { return e.identity }) }

// Issuer is the identity provider named in the signing certificate, "" for a key.
func (e *Evidence) Issuer() string { return e.text(func() string { return e.issuer }) }

// AuthorityKeyID is the lower-case hex SHA-256 of the SubjectPublicKeyInfo of the root
// certificate above the signing certificate. It is "" for a key, and for evidence of
// Verify, which knows the authorities of others by their chains only.
func (e *Evidence) AuthorityKeyID() string { return e.text(func() string { return e.authorityID }) }

// CoSignatures lists the algorithms of the co-signatures that were verified with the
// bundle, sorted and each once. Only VerifyOwn is given any.
func (e *Evidence) CoSignatures() []string {
	if !e.Valid() {
		return nil
	}
	return e.coSignatures
}

// LogID is the id of the transparency log that holds the entry.
func (e *Evidence) LogID() []byte {
	if !e.Valid() {
		return nil
	}
	return e.logID
}

// LogIndex is the entry's index in that log, -1 for invalid evidence.
func (e *Evidence) LogIndex() int64 {
	if !e.Valid() {
		return -1
	}
	return e.logIndex
}

// IntegratedTime is when the log says it took the entry. It is zero where the log
// did not sign that time, as Rekor 2 never does.
func (e *Evidence) IntegratedTime() time.Time {
	if !e.Valid() {
		return time.Time{}
	}
	return e.integratedTime
}

// SigningTime is the earliest trusted time at which the signature existed.
func (e *Evidence) SigningTime() time.Time {
	if !e.Valid() || len(e.times) == 0 {
		return time.Time{}
	}
	first := e.times[0].at
	for _, t := range e.times[1:] {
		if t.at.Before(first) {
			first = t.at
		}
	}
	return first
}

func (e *Evidence) text(get func() string) string {
	if !e.Valid() {
		return ""
	}
	return get()
}
