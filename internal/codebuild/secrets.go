package codebuild

import (
	"math"
	"regexp"
	"strings"
)

// What is published is signed and kept for ever, so these rules err towards
// silence: a harmless value that is not told costs a question, a secret that is
// told costs the secret.

var (
	secretNameRE = regexp.MustCompile(`(?i)TOKEN|SECRET|PASSW|PASSPHRASE|PASSCODE|PWD|CREDENTIAL|PRIVATE|KEY|AUTH|COOKIE|SESSION|SIGNATURE|DSN|CONNECTION_?STRING|CONN_?STR|^AWS_`)

	// knownSecretRE are forms that hold nothing but secrets, so that they are found
	// within longer text as well.
	knownSecretRE = regexp.MustCompile(strings.Join([]string{
		`-----BEGIN`,
		`gh[pousr]_[A-Za-z0-9]{10,}`, `github_pat_`, `\bgl(?:pat|dt|rt|cbt|ptt|ft|soat|imt|agent|oas)-[A-Za-z0-9_-]{10,}`, `\bbkua_`,
		`\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}`, `X-Amz-Signature=`, `X-Amz-Security-Token=`,
		`\bxox[a-z]-`, `\bxapp-`, `hooks\.slack\.com/`,
		`\beyJ[A-Za-z0-9_-]{8,}`,
		`\b[sr]k_(?:live|test)_`, `\bwhsec_`, `\bsk-[A-Za-z0-9]{20,}`, `\bsk-(?:ant|proj)-`,
		`\bnpm_[A-Za-z0-9]{20,}`, `\bpypi-[A-Za-z0-9_-]{16,}`, `\bdckr_[op]at_`, `\bhf_[A-Za-z0-9]{20,}`,
		`\bAIza[A-Za-z0-9_-]{30,}`, `\bya29\.`, `\bSG\.[A-Za-z0-9_-]{16,}`, `\bhv[sb]\.[A-Za-z0-9_-]{16,}`, `AGE-SECRET-KEY-`,
		`(?i)\b(?:password|passwd|pwd|secret|token|api_?key|access_?token)=[^&\s;]+`,
		`(?i)\b(?:bearer|basic)\s+[A-Za-z0-9+/=_.-]{8,}`,
	}, "|"))

	// userInfoRE finds user:password@host where no URL parser would look.
	userInfoRE = regexp.MustCompile(`[^\s/:@]+:[^\s/@]+@[A-Za-z0-9\[]`)
	// pinnedRE is the end of an image's name that only looks like the former.
	pinnedRE  = regexp.MustCompile(`@sha(?:256|512):[0-9a-f]+$`)
	urlUserRE = regexp.MustCompile(`://[^\s/?#]*@`)

	denseRE = regexp.MustCompile(`[A-Za-z0-9+/=_-]{20,}`)
)

// secretName reports whether a variable of that name is likely to hold a secret.
func secretName(name string) bool { return secretNameRE.MatchString(name) }

// knownSecret reports whether s holds something that can only be a secret.
func knownSecret(s string) bool {
	return knownSecretRE.MatchString(s) || urlUserRE.MatchString(s) || userInfoRE.MatchString(pinnedRE.ReplaceAllString(s, ""))
}

// secretValue reports whether s looks like a secret in any way: a known form, or
// a long run of letters and digits with little repetition, as random ones are.
func secretValue(s string) bool {
	if knownSecret(s) {
		return true
	}
	for _, run := range denseRE.FindAllString(s, -1) {
		if strings.ContainsAny(run, "0123456789") && strings.ContainsFunc(run, isLetter) && entropy(run) >= 3.2 {
			return true
		}
	}
	return false
}

func isLetter(r rune) bool { return r|0x20 >= 'a' && r|0x20 <= 'z' }

// entropy is Shannon's, in bits for each byte of s.
func entropy(s string) float64 {
	var count [256]int
	for i := range len(s) {
		count[s[i]]++
	}
	var bits float64
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(s))
			bits -= p * math.Log2(p)
		}
	}
	return bits
}

// withoutUser removes the user information of a URL. It works on the text, since
// what one parser takes for a host another takes for a password.
func withoutUser(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return s
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
		rest = rest[at+1:]
	}
	return scheme + "://" + rest
}
