package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/stsproof"
)

const (
	// CodeNonceInvalid: not a challenge that this deployment made for its audience.
	CodeNonceInvalid refusal.Code = "STS_NONCE_INVALID"
	// CodeNonceExpired: a challenge that was answered too late.
	CodeNonceExpired refusal.Code = "STS_NONCE_EXPIRED"
	// CodeProofExpired: signed too long ago.
	CodeProofExpired refusal.Code = "STS_PROOF_EXPIRED"
	// CodeProofNotYetValid: signed in the future.
	CodeProofNotYetValid refusal.Code = "STS_PROOF_NOT_YET_VALID"
)

const (
	// challengeTTL is how long a challenge may be answered.
	challengeTTL = 5 * time.Minute
	// maxProofAge is how old a signature may be. AWS takes 15 minutes, and has no
	// memory of what it has seen.
	maxProofAge = 5 * time.Minute

	minNonceKeyBytes = 32
	nonceTimeBytes   = 8
	nonceMACBytes    = 16
	nonceBodyBytes   = stsproof.NonceBytes - nonceMACBytes
)

// A challenge is
//
//	unix time[8] || random[8] || HMAC-SHA256(key, unix time || random)[:16]
//
// so that a machine knows the challenges of all the others and nobody keeps any.
// The key is derived for the audience: two deployments that were given the same
// NonceKey do not take each other's challenges.
func deriveNonceKey(key []byte, audience string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("assay sts challenge v1\x00" + audience))
	return h.Sum(nil)
}

// Challenge returns a nonce that one proof may answer until expires.
func (a *AWS) Challenge() (nonce []byte, expires time.Time) {
	issued := a.now().Truncate(time.Second)
	nonce = make([]byte, nonceBodyBytes, stsproof.NonceBytes)
	binary.BigEndian.PutUint64(nonce, uint64(issued.Unix()))
	rand.Read(nonce[nonceTimeBytes:]) // never fails: crypto/rand ends the program instead
	return append(nonce, a.nonceMAC(nonce)...), issued.Add(challengeTTL)
}

func (a *AWS) nonceMAC(body []byte) []byte {
	h := hmac.New(sha256.New, a.nonceKey)
	h.Write(body)
	return h.Sum(nil)[:nonceMACBytes]
}

// checkNonce returns the time from which on it refuses the nonce by itself.
func (a *AWS) checkNonce(nonce []byte) (time.Time, error) {
	if len(nonce) != stsproof.NonceBytes || !hmac.Equal(a.nonceMAC(nonce[:nonceBodyBytes]), nonce[nonceBodyBytes:]) {
		return time.Time{}, refusal.New(CodeNonceInvalid, "not a challenge of this service").InField("nonce")
	}
	// The MAC is right, so the time is one that a clock of ours has shown.
	issued := time.Unix(int64(binary.BigEndian.Uint64(nonce)), 0)
	expires := issued.Add(challengeTTL + a.skew)
	switch now := a.now(); {
	case !now.Before(expires):
		return time.Time{}, refusal.New(CodeNonceExpired, "the challenge ended at %s, skew of %s included", expires.UTC().Format(time.RFC3339), a.skew).InField("nonce")
	case issued.After(now.Add(a.skew)):
		return time.Time{}, refusal.New(CodeNonceInvalid, "the challenge is of the future: do the clocks of the deployment differ?").InField("nonce")
	}
	return expires, nil
}

// checkDate returns when the proof was signed.
func (a *AWS) checkDate(p *stsproof.Proof) (time.Time, error) {
	signed, err := p.SignedAt()
	if err != nil {
		return time.Time{}, err
	}
	switch now := a.now(); {
	case now.Sub(signed) > maxProofAge+a.skew:
		return time.Time{}, refusal.New(CodeProofExpired, "signed at %s, more than %s ago, skew of %s allowed", p.Date, maxProofAge, a.skew).InField("date")
	case signed.Sub(now) > a.skew:
		return time.Time{}, refusal.New(CodeProofNotYetValid, "signed at %s, which is in the future, skew of %s allowed", p.Date, a.skew).InField("date")
	}
	return signed, nil
}
