package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // RS256, PS256, ES256
	_ "crypto/sha512" // ES384
	"encoding/base64"
	"math/big"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

// What a token is refused for before its signature is known to be right.
const (
	CodeTokenTooLarge         refusal.Code = "TOKEN_TOO_LARGE"
	CodeTokenMalformed        refusal.Code = "TOKEN_MALFORMED"
	CodeTokenHeaderRefused    refusal.Code = "TOKEN_HEADER_REFUSED"
	CodeTokenAlgRefused       refusal.Code = "TOKEN_ALG_REFUSED"
	CodeTokenKIDMissing       refusal.Code = "TOKEN_KID_MISSING"
	CodeTokenSignatureInvalid refusal.Code = "TOKEN_SIGNATURE_INVALID"
)

const (
	maxTokenBytes  = 8 << 10
	maxHeaderBytes = 2 << 10
	maxKIDBytes    = 256
)

// algorithms are those that can be configured. All are asymmetric: with none or
// HS* on the list a public key would become a shared secret.
var algorithms = map[string]struct {
	hash      crypto.Hash
	sigBytes  int // of ECDSA's fixed-width r||s and of Ed25519; 0 where the key decides
	keyFamily string
}{
	"RS256": {crypto.SHA256, 0, "RSA"},
	"PS256": {crypto.SHA256, 0, "RSA"},
	"ES256": {crypto.SHA256, 64, "P-256"},
	"ES384": {crypto.SHA384, 96, "P-384"},
	"EdDSA": {0, ed25519.SignatureSize, "Ed25519"},
}

// jws is a compact JWS taken apart. Nothing in it is verified.
type jws struct {
	alg, kid string
	payload  []byte
	signed   string // the signing input: header "." payload, as received
	sig      []byte
}

// parseJWS takes a token apart. It bounds the length and counts the dots before
// it allocates anything that depends on them: a megabyte of dots must not become
// a million strings (CVE-2025-30204).
func parseJWS(token string) (*jws, error) {
	if len(token) > maxTokenBytes {
		return nil, refusal.New(CodeTokenTooLarge, "token of %d bytes; the limit is %d", len(token), maxTokenBytes)
	}
	switch dots := strings.Count(token, "."); dots {
	case 2:
	case 4:
		return nil, refusal.New(CodeTokenMalformed, "encrypted tokens (JWE) are not accepted")
	default:
		return nil, refusal.New(CodeTokenMalformed, "a compact JWS has 2 dots, this token has %d", dots)
	}
	last := strings.LastIndexByte(token, '.')
	head, body, _ := strings.Cut(token[:last], ".")

	header, err := decodePart("header", head)
	if err != nil {
		return nil, err
	}
	t := &jws{signed: token[:last]}
	if t.payload, err = decodePart("payload", body); err != nil {
		return nil, err
	}
	if t.sig, err = decodePart("signature", token[last+1:]); err != nil {
		return nil, err
	}
	if err := t.readHeader(header); err != nil {
		return nil, err
	}
	return t, nil
}

// decodePart decodes unpadded base64url. encoding/base64 skips line breaks
// wherever they stand, and without Strict ignores the unused bits of the last
// character; either would give one token many spellings.
func decodePart(name, part string) ([]byte, error) {
	if strings.ContainsAny(part, "\r\n") {
		return nil, refusal.New(CodeTokenMalformed, "token %s: line break in base64url", name)
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, refusal.New(CodeTokenMalformed, "token %s: not canonical base64url", name)
	}
	return data, nil
}

// refusedHeaders would let the token choose the key it is checked with (jwk,
// x5c, jku, x5u), change what is signed (b64, crit), or make it something else
// than a signed token (enc, zip, cty).
//
// RFC 7515 4.1.11: a recipient MUST refuse critical extensions that it does not
// understand. This one understands none.
var refusedHeaders = [...]string{"jwk", "x5c", "jku", "x5u", "crit", "b64", "enc", "zip", "cty"}

func (t *jws) readHeader(data []byte) error {
	if err := attest.CheckJSON(data, maxHeaderBytes); err != nil {
		return refusal.New(CodeTokenMalformed, "token header: %w", err)
	}
	var h map[string]jsontext.Value
	if err := json.Unmarshal(data, &h); err != nil || h == nil {
		return refusal.New(CodeTokenMalformed, "token header: not a JSON object")
	}
	for _, name := range refusedHeaders {
		if _, ok := h[name]; ok {
			return refusal.New(CodeTokenHeaderRefused, "token header has %q, which is not accepted", name)
		}
	}
	var typ string
	for _, m := range []struct {
		name string
		dst  *string
	}{{"alg", &t.alg}, {"kid", &t.kid}, {"typ", &typ}} {
		raw, ok := h[m.name]
		if ok && (raw.Kind() != '"' || json.Unmarshal(raw, m.dst) != nil) {
			return refusal.New(CodeTokenMalformed, "token header: %q is not a string", m.name)
		}
	}
	// RFC 8725 3.11: a typ that names another kind of token is not one of ours.
	if _, ok := h["typ"]; ok && !strings.EqualFold(typ, "JWT") {
		return refusal.New(CodeTokenHeaderRefused, "token header has typ %.40q; JWT is expected", typ)
	}
	if _, ok := algorithms[t.alg]; !ok {
		return refusal.New(CodeTokenAlgRefused, "alg %.40q is not accepted", t.alg)
	}
	if t.kid == "" || len(t.kid) > maxKIDBytes {
		return refusal.New(CodeTokenKIDMissing, "kid of %d bytes; 1 to %d are needed", len(t.kid), maxKIDBytes)
	}
	return nil
}

// verify checks the signature with k and nothing else.
func (t *jws) verify(k *key) error {
	// RFC 8725 3.1: the algorithm is the one the key is for, not the one the
	// token would like.
	if !k.fits(t.alg) {
		return refusal.New(CodeTokenAlgRefused, "alg %s does not fit key %q", t.alg, k.kid)
	}
	alg := algorithms[t.alg]
	if alg.sigBytes != 0 && len(t.sig) != alg.sigBytes {
		return refusal.New(CodeTokenSignatureInvalid, "%s signature of %d bytes; %d are needed", t.alg, len(t.sig), alg.sigBytes)
	}
	signed := []byte(t.signed)
	var digest []byte
	if alg.hash != 0 {
		h := alg.hash.New()
		h.Write(signed)
		digest = h.Sum(nil)
	}
	var ok bool
	switch pub := k.public.(type) {
	case *rsa.PublicKey:
		if t.alg == "PS256" {
			// RFC 7518 3.5: the salt is as long as the hash.
			opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
			ok = rsa.VerifyPSS(pub, alg.hash, digest, t.sig, opts) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(pub, alg.hash, digest, t.sig) == nil
		}
	case *ecdsa.PublicKey:
		r := new(big.Int).SetBytes(t.sig[:len(t.sig)/2])
		s := new(big.Int).SetBytes(t.sig[len(t.sig)/2:])
		ok = ecdsa.Verify(pub, digest, r, s)
	case ed25519.PublicKey:
		ok = ed25519.Verify(pub, signed, t.sig)
	}
	if !ok {
		return refusal.New(CodeTokenSignatureInvalid, "the signature is not that of key %q", k.kid)
	}
	return nil
}
