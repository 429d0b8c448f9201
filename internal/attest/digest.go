package attest

import (
	"strings"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeDigestInvalid refuses a digest whose algorithm or value is not well formed.
const CodeDigestInvalid refusal.Code = "DIGEST_INVALID"

// hexLengths returns the lengths a digest of a known algorithm may have, in hex
// digits; 0, 0 for an unknown algorithm. The names are those of the in-toto
// DigestSet. Git object ids are SHA-1 or, in newer repositories, SHA-256.
func hexLengths(alg string) (short, long int) {
	switch alg {
	case "md5":
		return 32, 32
	case "sha1", "ripemd160":
		return 40, 40
	case "sha224", "sha512_224", "sha3_224":
		return 56, 56
	case "sha256", "sha512_256", "sha3_256", "sm3":
		return 64, 64
	case "sha384", "sha3_384":
		return 96, 96
	case "sha512", "sha3_512":
		return 128, 128
	case "gitCommit", "gitTree", "gitBlob", "gitTag":
		return 40, 64
	}
	return 0, 0
}

// strongContentDigest reports whether alg names the content of an artifact and
// nobody can make two artifacts share a value. SHA-1 and MD5 collide; a git id
// names a commit or a tree, and through SHA-1 at that.
func strongContentDigest(alg string) bool {
	return alg == "sha256" || alg == "sha384" || alg == "sha512"
}

// CheckDigest reports whether value can be a digest by algorithm alg. For a known
// algorithm it is lower-case hex of exactly the right length; mixed case would
// give one artifact two spellings. An algorithm we do not know may use its own
// encoding (as the in-toto DigestSet allows), in printable ASCII.
func CheckDigest(alg, value string) error {
	short, long := hexLengths(alg)
	if short == 0 {
		return checkUnknownDigest(alg, value)
	}
	if len(value) != short && len(value) != long {
		return refusal.New(CodeDigestInvalid, "%s digest has %d characters, want %d", alg, len(value), short)
	}
	for i := 0; i < len(value); i++ {
		if c := value[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return refusal.New(CodeDigestInvalid, "%s digest has %q at position %d, want lower-case hex", alg, c, i)
		}
	}
	return nil
}

func checkUnknownDigest(alg, value string) error {
	if alg == "" || len(alg) > 64 {
		return refusal.New(CodeDigestInvalid, "digest algorithm name has %d characters, want 1 to 64", len(alg))
	}
	for i := 0; i < len(alg); i++ {
		switch c := alg[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_', c == '-', c == '.', c == '+':
		default:
			return refusal.New(CodeDigestInvalid, "digest algorithm name has %q at position %d", c, i)
		}
	}
	// "SHA256" or "sha-256" would be a second spelling of a known algorithm whose
	// value nobody checks.
	plain := strings.NewReplacer("-", "", "_", "", ".", "", "+", "").Replace(strings.ToLower(alg))
	for _, known := range [...]string{"md5", "sha1", "sha224", "sha256", "sha384", "sha512", "gitcommit", "gittree", "gitblob", "gittag"} {
		if plain == known {
			return refusal.New(CodeDigestInvalid, "digest algorithm %q is not how %s is spelled", alg, known)
		}
	}
	if value == "" || len(value) > 256 {
		return refusal.New(CodeDigestInvalid, "%s digest has %d characters, want 1 to 256", alg, len(value))
	}
	for i := 0; i < len(value); i++ {
		if c := value[i]; c <= ' ' || c > '~' {
			return refusal.New(CodeDigestInvalid, "%s digest has %q at position %d, want printable ASCII", alg, c, i)
		}
	}
	return nil
}

// ParseDigestRef splits "sha256:9f86d0…" into algorithm and value. Only the
// algorithms that safely name an artifact are accepted here: sha256, sha384 and
// sha512.
func ParseDigestRef(s string) (alg, hex string, err error) {
	alg, hex, found := strings.Cut(s, ":")
	if !found {
		return "", "", refusal.New(CodeDigestInvalid, "%.80q has no algorithm; write sha256:…", s)
	}
	if !strongContentDigest(alg) {
		return "", "", refusal.New(CodeDigestInvalid, "digest algorithm %.40q; want sha256, sha384 or sha512", alg)
	}
	if err := CheckDigest(alg, hex); err != nil {
		return "", "", err
	}
	return alg, hex, nil
}
