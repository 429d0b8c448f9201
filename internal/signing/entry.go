package signing

import (
	"cmp"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"time"
)

// Role is what a key is for. No key has two.
type Role string

const (
	RoleAttestation Role = "attestation"  // signs DSSE envelopes
	RoleLog         Role = "log"          // signs checkpoints and inclusion promises
	RoleTimestamp   Role = "timestamp"    // signs RFC 3161 timestamps
	RoleCA          Role = "ca"           // signs the intermediates that issue certificates
	RoleCoSignature Role = "co-signature" // signs envelopes a second time, with ML-DSA-65
)

// Roles returns all roles.
func Roles() []Role {
	return []Role{RoleAttestation, RoleLog, RoleTimestamp, RoleCA, RoleCoSignature}
}

// Tier separates what an attestation or ca key vouches for, so that one key can be
// guarded better, or be lost, without the others.
type Tier string

const (
	TierDefault Tier = ""        // whatever has no key of its own
	TierBuild   Tier = "build"   // what the service saw of a build
	TierRole    Tier = "role"    // what a role says
	TierClaimed Tier = "claimed" // what a caller claims
)

// Tiers returns all tiers, the default first.
func Tiers() []Tier { return []Tier{TierDefault, TierBuild, TierRole, TierClaimed} }

// State is what a key may still do.
type State string

const (
	// StateNext keys are published to verifiers and do not sign yet.
	StateNext State = "next"
	// StateActive keys sign.
	StateActive State = "active"
	// StateVerifyOnly keys no longer sign; what they signed up to NotAfter stands.
	StateVerifyOnly State = "verify-only"
	// StateRevoked keys are believed only as far as the reason of their revocation allows.
	StateRevoked State = "revoked"
)

// Reason is why a key was revoked, in the words of RFC 5280 section 5.3.1.
type Reason string

const (
	// ReasonKeyCompromise: in other hands since the revocation's moment.
	ReasonKeyCompromise Reason = "keyCompromise"
	// ReasonSuperseded and ReasonCessationOfOperation: no longer used since then.
	ReasonSuperseded           Reason = "superseded"
	ReasonCessationOfOperation Reason = "cessationOfOperation"
	// ReasonUnspecified: nothing that the key signed is to be believed.
	ReasonUnspecified Reason = "unspecified"
)

// Reasons returns all reasons.
func Reasons() []Reason {
	return []Reason{ReasonKeyCompromise, ReasonSuperseded, ReasonCessationOfOperation, ReasonUnspecified}
}

// grave orders reasons by how little they leave standing.
func (r Reason) grave() int {
	switch r {
	case ReasonSuperseded, ReasonCessationOfOperation:
		return 1
	case ReasonKeyCompromise:
		return 2
	}
	return 3
}

// Revocation says since when and why a key is not to be believed.
type Revocation struct {
	Since  time.Time `json:"since"` // whole seconds
	Reason Reason    `json:"reason"`
}

// KeyEntry is what the world may know about one key.
type KeyEntry struct {
	Role   Role
	Tier   Tier
	KeyID  string // lower-case hex SHA-256 of the DER SubjectPublicKeyInfo
	Public crypto.PublicKey
	State  State
	// Ref is where the private half is: file:NAME or awskms:///ARN. It may be known of
	// keys that no longer sign, so that the file or the key there can be destroyed.
	Ref string
	// Alias is the reference to an alias of AWS KMS that the key was found by, if any.
	Alias string
	// NotBefore is when the key was made or published, in whole seconds. NotAfter is
	// zero for next and active keys and set for every other. Both ends belong to the
	// validity.
	NotBefore, NotAfter time.Time
	// Revoked is set for revoked keys.
	Revoked *Revocation
	// Chain is the certificate chain of a timestamp key, leaf first, root last; and the
	// one root certificate of a ca key.
	Chain []*x509.Certificate
	// Shard is the folder of the log that a log key signs or signed, beside the keyset;
	// empty if it never signed one.
	Shard string

	spki []byte
}

// PEM returns the public key as one PUBLIC KEY block.
func (e *KeyEntry) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: e.spki})
}

// SPKI returns the DER SubjectPublicKeyInfo.
func (e *KeyEntry) SPKI() []byte { return slices.Clone(e.spki) }

// window is the time in which signatures of a key count: from NotBefore to NotAfter,
// both inclusive, and before RevokedSince. A zero end is open.
type window struct {
	from, to, revoked time.Time
}

// believed returns the window of e, and false where nothing it signed counts.
func (e *KeyEntry) believed() (window, bool) {
	w := window{from: e.NotBefore, to: e.NotAfter}
	if e.State != StateRevoked {
		return w, true
	}
	switch e.Revoked.Reason {
	case ReasonSuperseded, ReasonCessationOfOperation:
		// NotAfter has been cut to the moment of the revocation, but not before NotBefore.
		return w, !e.Revoked.Since.Before(e.NotBefore)
	case ReasonKeyCompromise:
		w.revoked = e.Revoked.Since
		// A log or a timestamp authority is what tells the time: its thief backdates.
		return w, e.Role != RoleLog && e.Role != RoleTimestamp
	}
	return w, false
}

// lastSecond is the last whole second in which the window holds, zero if it has no
// end. Where the format of what is published has no exclusive end, a revocation ends
// the window a second earlier: times inside that second are few and refused.
func (w window) lastSecond() time.Time {
	if w.revoked.IsZero() {
		return w.to
	}
	last := w.revoked.Add(-time.Second)
	if !w.to.IsZero() && w.to.Before(last) {
		return w.to
	}
	return last
}

// VerifierKey is one key that verifies envelopes by itself, without a certificate.
type VerifierKey struct {
	PEM   []byte // one PUBLIC KEY block
	KeyID string
	Role  Role // RoleAttestation or RoleCoSignature
	Tier  Tier
	// PSS says that the key is RSA and its signatures RSASSA-PSS.
	PSS bool
	// Signatures count from NotBefore to NotAfter, both inclusive, and before
	// RevokedSince. A zero end is open.
	NotBefore, NotAfter, RevokedSince time.Time
}

// VerifierKeys returns all keys that ever signed envelopes or will: those of
// attestations, then those of co-signatures. A revoked key stays in the list, so that
// what it signed is refused for that reason.
func (k *Keyset) VerifierKeys() []VerifierKey {
	var out []VerifierKey
	for _, role := range []Role{RoleAttestation, RoleCoSignature} {
		for _, e := range k.entries[role] {
			w, ok := e.believed()
			if !ok {
				w.revoked = w.from
			}
			_, pss := e.Public.(*rsa.PublicKey)
			out = append(out, VerifierKey{PEM: e.PEM(), KeyID: e.KeyID, Role: e.Role, Tier: e.Tier, PSS: pss,
				NotBefore: w.from, NotAfter: w.to, RevokedSince: w.revoked})
		}
	}
	return out
}

// AttestationKeysPEM returns the public keys of the attestation role that may be
// believed without looking at the time: none that was revoked for being in other
// hands. The active ones are first.
func (k *Keyset) AttestationKeysPEM() string {
	var b strings.Builder
	for _, e := range k.Attestation {
		if e.plain() {
			b.Write(e.PEM())
		}
	}
	return b.String()
}

// plain says whether e may stand in a list of keys that has no times.
func (e *KeyEntry) plain() bool {
	w, ok := e.believed()
	return ok && w.revoked.IsZero()
}

// newestFirst puts active keys before others and next ones after them; the default
// tier before others; then later ones before earlier ones.
func newestFirst(a, b KeyEntry) int {
	rank := func(e KeyEntry) int { return slices.Index([]State{StateActive, StateNext}, e.State) & 3 }
	if ra, rb := rank(a), rank(b); ra != rb {
		return cmp.Compare(ra, rb)
	}
	if rank(a) < 2 && a.Tier != b.Tier {
		return cmp.Compare(slices.Index(Tiers(), a.Tier), slices.Index(Tiers(), b.Tier))
	}
	return cmp.Or(b.NotBefore.Compare(a.NotBefore), strings.Compare(a.KeyID, b.KeyID))
}

// oldestFirst is the order of trusted roots.
func oldestFirst(a, b KeyEntry) int {
	return cmp.Or(a.NotBefore.Compare(b.NotBefore), cmp.Compare(a.KeyID, b.KeyID))
}
