package identity

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

// What a token with a right signature is refused for.
const (
	CodeTokenClaimMissing     refusal.Code = "TOKEN_CLAIM_MISSING"
	CodeTokenClaimInvalid     refusal.Code = "TOKEN_CLAIM_INVALID"
	CodeTokenAudienceMismatch refusal.Code = "TOKEN_AUDIENCE_MISMATCH"
	CodeTokenExpired          refusal.Code = "TOKEN_EXPIRED"
	CodeTokenNotYetValid      refusal.Code = "TOKEN_NOT_YET_VALID"
	CodeTokenLifetimeTooLong  refusal.Code = "TOKEN_LIFETIME_TOO_LONG"
)

// maxUnixTime is the last second of the year 9999.
const maxUnixTime = 253402300799

// claimLimits are the longest values in bytes of the claims that are read;
// defaultClaimLimit holds for the others.
var claimLimits = map[string]int{
	"iss": 512, "jti": 256, "aud": 512,
	"workflow_ref": 1024, "job_workflow_ref": 1024,
	"ref": 512, "head_ref": 512, "base_ref": 512,
}

const defaultClaimLimit = 256

// claims is a token's payload, each claim in its JSON form.
type claims map[string]jsontext.Value

func parseClaims(payload []byte) (claims, error) {
	if err := attest.CheckJSON(payload, maxTokenBytes); err != nil {
		return nil, refusal.New(CodeTokenMalformed, "token payload: %w", err)
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil || c == nil {
		return nil, refusal.New(CodeTokenMalformed, "token payload: not a JSON object")
	}
	return c, nil
}

// str returns a claim that must be a string of some length.
func (c claims) str(name string) (string, error) {
	s, ok, err := c.optional(name)
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", refusal.New(CodeTokenClaimMissing, "claim %s is missing", name)
	case s == "":
		return "", refusal.New(CodeTokenClaimInvalid, "claim %s is empty", name)
	}
	return s, nil
}

// optional returns a claim that, if there, must be a string without characters
// that hide or reorder text.
func (c claims) optional(name string) (s string, ok bool, err error) {
	raw, ok := c[name]
	if !ok {
		return "", false, nil
	}
	if raw.Kind() != '"' || json.Unmarshal(raw, &s) != nil {
		return "", true, refusal.New(CodeTokenClaimInvalid, "claim %s is not a string", name)
	}
	limit := defaultClaimLimit
	if n, ok := claimLimits[name]; ok {
		limit = n
	}
	if len(s) > limit {
		return "", true, refusal.New(CodeTokenClaimInvalid, "claim %s has %d bytes; the limit is %d", name, len(s), limit)
	}
	if strings.ContainsFunc(s, hidden) {
		return "", true, refusal.New(CodeTokenClaimInvalid, "claim %s has a control or bidirectional character", name)
	}
	return s, true, nil
}

// hidden reports control characters, line and paragraph separators, and the
// characters that change the direction of text.
func hidden(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// id returns a claim that is a positive integer, written as GitHub writes ids:
// a string of decimal digits. It is never a floating point number on the way,
// so 12345678901234567 stays what it is.
func (c claims) id(name string) (int64, error) {
	s, err := c.str(name)
	if err != nil {
		return 0, err
	}
	return parseID(name, s)
}

// optionalID is id for a claim that need not be there; 0 where it is not.
func (c claims) optionalID(name string) (int64, error) {
	s, ok, err := c.optional(name)
	if err != nil || !ok {
		return 0, err
	}
	return parseID(name, s)
}

func parseID(name, s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	// The round trip refuses signs, leading zeros and underscores.
	if err != nil || n <= 0 || strconv.FormatInt(n, 10) != s {
		return 0, refusal.New(CodeTokenClaimInvalid, "claim %s is not a positive decimal integer", name)
	}
	return n, nil
}

// date returns a claim of seconds since 1970. RFC 7519 lets these be fractions;
// no issuer here sends any, and exponents and fractions invite disagreement.
func (c claims) date(name string) (t time.Time, ok bool, err error) {
	raw, ok := c[name]
	if !ok {
		return time.Time{}, false, nil
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 0 || n > maxUnixTime || strconv.FormatInt(n, 10) != string(raw) {
		return time.Time{}, true, refusal.New(CodeTokenClaimInvalid, "claim %s is not a whole number of seconds", name)
	}
	return time.Unix(n, 0), true, nil
}

// checkTimes holds exp, iat and nbf against the clock and returns exp.
func (v *Verifier) checkTimes(c claims, lifetime time.Duration) (time.Time, error) {
	var dates [3]time.Time
	for i, name := range [...]string{"exp", "iat", "nbf"} {
		t, ok, err := c.date(name)
		if err != nil {
			return time.Time{}, err
		}
		if !ok && name != "nbf" {
			return time.Time{}, refusal.New(CodeTokenClaimMissing, "claim %s is missing", name)
		}
		dates[i] = t
	}
	exp, iat, nbf, now := dates[0], dates[1], dates[2], v.now()
	switch {
	case !exp.After(iat):
		return exp, refusal.New(CodeTokenClaimInvalid, "claim exp is not after iat")
	case exp.Sub(iat) > lifetime:
		return exp, refusal.New(CodeTokenLifetimeTooLong, "token lives %s; the limit is %s", exp.Sub(iat), lifetime)
	case !now.Before(exp.Add(v.skew)): // RFC 7519 4.1.4: on or after exp it MUST NOT be accepted
		return exp, refusal.New(CodeTokenExpired, "token expired %s ago; skew allowed is %s", now.Sub(exp).Round(time.Second), v.skew)
	case iat.After(now.Add(v.skew)):
		return exp, refusal.New(CodeTokenNotYetValid, "token was issued %s from now; skew allowed is %s", iat.Sub(now).Round(time.Second), v.skew)
	case nbf.After(now.Add(v.skew)):
		return exp, refusal.New(CodeTokenNotYetValid, "token is valid %s from now; skew allowed is %s", nbf.Sub(now).Round(time.Second), v.skew)
	}
	return exp, nil
}

// checkAudience wants exactly one audience, and that one ours. A token that is
// also for somebody else can be replayed here by them (CVE-2026-44428).
func checkAudience(c claims, ours []string) error {
	raw, ok := c["aud"]
	if !ok {
		return refusal.New(CodeTokenClaimMissing, "claim aud is missing")
	}
	var auds []string
	switch raw.Kind() {
	case '"':
		auds = make([]string, 1)
		if json.Unmarshal(raw, &auds[0]) != nil {
			return refusal.New(CodeTokenClaimInvalid, "claim aud is not a string")
		}
	case '[':
		var list []jsontext.Value
		if json.Unmarshal(raw, &list) != nil {
			return refusal.New(CodeTokenClaimInvalid, "claim aud is not a list")
		}
		for _, item := range list {
			var s string
			if item.Kind() != '"' || json.Unmarshal(item, &s) != nil {
				return refusal.New(CodeTokenClaimInvalid, "claim aud holds something else than strings")
			}
			auds = append(auds, s)
		}
	default:
		return refusal.New(CodeTokenClaimInvalid, "claim aud is neither a string nor a list")
	}
	if len(auds) != 1 {
		return refusal.New(CodeTokenAudienceMismatch, "token has %d audiences; exactly one is accepted", len(auds))
	}
	if !slices.Contains(ours, auds[0]) {
		return refusal.New(CodeTokenAudienceMismatch, "token is for audience %.200q, this service is %q", auds[0], ours)
	}
	return nil
}
