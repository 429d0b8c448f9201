package codebuild

import (
	"encoding/hex"
	"math"
	"strings"
)

// What is published is signed and kept for ever, so these rules err towards
// silence: a harmless value that is not told costs a question, a secret that is
// told costs the secret.

// maxEscapes is how many layers of percent escapes are looked through. Nobody has
// a reason for more.
const maxEscapes = 3

var (
	reSecretName = lazy(`(?i)TOKEN|SECRET|PASSW|PASSPHRASE|PASSCODE|PWD|PASS$|CREDENTIAL|PRIVATE|KEY|AUTH|COOKIE|SESSION|SIGNATURE|DSN|CONNECTION_?STRING|CONN_?STR|^AWS_`)
	// reSecretWord are too short to be looked for within words.
	reSecretWord = lazy(`(?i)(?:^|[^a-z0-9])(?:sig|sas|pat|pass|pw|jwt|otp|hmac|bearer)[0-9]*(?:$|[^a-z0-9])`)
	reCamel      = lazy(`([a-z0-9])([A-Z])`)

	// reKnownSecret are forms that hold nothing but secrets, so that they are found
	// within longer text as well.
	reKnownSecret = lazy(strings.Join([]string{
		`-----BEGIN`,
		`gh[pousr]_[A-Za-z0-9]{10,}`, `github_pat_`, `\bgl(?:pat|dt|rt|cbt|ptt|ft|soat|imt|agent|oas)-[A-Za-z0-9_-]{10,}`, `\bbkua_`,
		`\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}`,
		`\bxox[a-z]-`, `\bxapp-`, `hooks\.slack\.com/`,
		`\beyJ[A-Za-z0-9_-]{8,}`,
		`\b[sr]k_(?:live|test)_`, `\bwhsec_`, `\bsk-[A-Za-z0-9]{20,}`, `\bsk-(?:ant|proj)-`,
		`\bnpm_[A-Za-z0-9]{20,}`, `\bpypi-[A-Za-z0-9_-]{16,}`, `\bdckr_[op]at_`, `\bhf_[A-Za-z0-9]{20,}`,
		`\bAIza[A-Za-z0-9_-]{30,}`, `\bya29\.`, `\bSG\.[A-Za-z0-9_-]{16,}`, `\bhv[sb]\.[A-Za-z0-9_-]{16,}`, `AGE-SECRET-KEY-`,
		`(?i)\b(?:bearer|basic)\s+[A-Za-z0-9+/=_.-]{8,}`,
	}, "|"))

	// reUserInfo finds user:password@host where no URL parser would look.
	reUserInfo = lazy(`[^\s/:@]+:[^\s/@]+@[A-Za-z0-9\[]`)
	// rePinned is the end of an image's name that only looks like the former.
	rePinned = lazy(`@sha(?:256|512):[0-9a-f]+$`)
	// reUrlUser has a second form for a password with a slash that should have been
	// escaped: parsers take such a one for a port and a path.
	reUrlUser = lazy(`://(?:[^\s/?#]*@|[^\s/]*:\S*@)`)
	reQuery   = lazy(`(?s)://.*[?#]`)
	// reFlag is a flag of a command line, and the first byte of its value.
	reFlag = lazy(`(?:^|[^A-Za-z0-9])--?([A-Za-z][A-Za-z0-9_.-]*)["']?[\s,]+["']?[^\s"'-]`)

	reDense = lazy(`[A-Za-z0-9+/=_-]{20,}`)
)

// secretName reports whether a variable or parameter of that name is likely to
// hold a secret.
func secretName(name string) bool {
	return reSecretName().MatchString(name) || reSecretWord().MatchString(reCamel().ReplaceAllString(name, "${1}_${2}"))
}

// knownSecret reports whether s holds something that can only be a secret.
func knownSecret(s string) bool {
	return inAnyForm(s, func(s string) bool {
		return reKnownSecret().MatchString(s) || reUrlUser().MatchString(s) || reUserInfo().MatchString(rePinned().ReplaceAllString(s, "")) || secretParameter(s)
	})
}

// secretValue reports whether s looks like a secret in any way: a known form, a
// part of a URL that often is one, or a long run of letters and digits with little
// repetition, as random ones are.
func secretValue(s string) bool {
	return knownSecret(s) || hasQuery(s) || inAnyForm(s, func(s string) bool {
		for _, run := range reDense().FindAllString(s, -1) {
			if strings.ContainsAny(run, "0123456789") && strings.ContainsFunc(run, isLetter) && entropy(run) >= 3.2 {
				return true
			}
		}
		return false
	})
}

// hasQuery reports whether s holds a URL with a query or a fragment. Which of
// their parameters are secrets only who reads them knows.
func hasQuery(s string) bool { return inAnyForm(s, reQuery().MatchString) }

// inAnyForm reports whether found is true of s or of what its percent escapes
// stand for. What is escaped more often than maxEscapes is held to be hidden.
func inAnyForm(s string, found func(string) bool) bool {
	for range maxEscapes + 1 {
		if found(s) {
			return true
		}
		plain := unescape(s)
		if plain == s {
			return false
		}
		s = plain
	}
	return true
}

// unescape decodes the percent escapes of s and leaves alone what is none.
func unescape(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if b, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				out = append(out, b...)
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// secretParameter reports whether s gives a value to a parameter whose name says
// that it is a secret: name=value, "name": value, --name value. It looks at whole
// names, since a pattern that wants a word to begin misses private_token.
func secretParameter(s string) bool {
	const quotes, blanks = "\"'`", " \t\r\n"
	for i := range len(s) {
		if s[i] != '=' && s[i] != ':' {
			continue
		}
		before := strings.TrimRight(s[:i], blanks)
		value := strings.TrimLeft(s[i+1:], quotes+blanks)
		// Within ARNs and references to secrets a colon gives no value.
		if s[i] == ':' && value == s[i+1:] && !strings.ContainsAny(before[max(0, len(before)-1):], quotes) {
			continue
		}
		if value == "" || value[0] == '&' || value[0] == ';' {
			continue
		}
		// The operators +=, :=, ?= are no part of the name.
		before = strings.TrimRight(before, quotes+blanks+`+:?\`)
		if secretName(before[strings.LastIndexAny(before, quotes+blanks+"&?;,/#=:()<>|@{}!")+1:]) {
			return true
		}
	}
	for _, m := range reFlag().FindAllStringSubmatch(s, -1) {
		if secretName(m[1]) {
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
