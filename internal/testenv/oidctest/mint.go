package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // of the algorithms below
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/google/uuid"
)

// Mint returns a good token of the job for audience, with overrides laid over
// its claims. It panics if the overrides cannot be written as JSON.
func (i *Issuer) Mint(audience string, overrides ...Claims) string {
	claims := Claims{"aud": audience}
	for _, o := range overrides {
		claims = claims.With(o)
		for name, v := range o { // a removal must reach Forge
			if v == nil {
				claims[name] = nil
			}
		}
	}
	return i.Forge(Forgery{Claims: claims})
}

// Forgery says how a token differs from a good one. The zero Forgery is a good
// token but for its audience, which is missing.
type Forgery struct {
	// Claims are laid over those of a good token; a nil value removes one.
	Claims Claims
	// Header is laid over {"typ":"JWT","alg":"RS256","kid":…}; nil removes.
	Header map[string]any
	// RawHeader and RawPayload, if set, are the bytes themselves.
	RawHeader, RawPayload []byte
	// Alg is how the token is signed: RS256 (default), RS384, RS512, PS256,
	// ES256, ES384, EdDSA, HS256, or none. The header says the same unless Header
	// says otherwise.
	Alg string
	// Key signs: *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey or, for
	// HS256, []byte. Default: the issuer's key.
	Key any
}

// Forge returns the token that f describes, rightly signed as f says. It panics
// if f cannot be made, since that is a mistake in a test.
func (i *Issuer) Forge(f Forgery) string {
	i.mu.Lock()
	current := i.keys[len(i.keys)-1]
	claims := i.job.With(nil)
	i.mu.Unlock()

	if f.Alg == "" {
		f.Alg = "RS256"
	}
	if f.Key == nil {
		f.Key = current.priv
	}
	header := map[string]any{"typ": "JWT", "alg": f.Alg, "kid": current.kid}
	maps.Copy(header, f.Header)
	maps.DeleteFunc(header, func(_ string, v any) bool { return v == nil })

	now := i.cfg.Now()
	claims = claims.With(Claims{
		"iss": i.cfg.BaseURL,
		"jti": uuid.NewString(),
		"iat": now.Unix(),
		"nbf": now.Unix(),
		"exp": now.Add(i.cfg.TokenLifetime).Unix(),
	}).With(f.Claims)
	if _, ok := f.Claims["sub"]; !ok {
		claims["sub"] = claims.subject()
	}
	head, body := f.RawHeader, f.RawPayload
	if head == nil {
		head = mustJSON(header)
	}
	if body == nil {
		body = mustJSON(claims)
	}
	signed := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body)
	sig, err := sign(f.Alg, f.Key, []byte(signed))
	if err != nil {
		panic(fmt.Sprintf("oidctest: %v", err))
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("oidctest: %v", err))
	}
	return data
}

// sign makes a JWS signature (RFC 7518 section 3, RFC 8037 section 3.1).
func sign(alg string, key any, data []byte) ([]byte, error) {
	if strings.EqualFold(alg, "none") {
		return nil, nil
	}
	if alg == "EdDSA" {
		return key.(ed25519.PrivateKey).Sign(nil, data, crypto.Hash(0))
	}
	hash, ok := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[strings.TrimLeft(alg, "RSPEH")]
	if !ok {
		return nil, fmt.Errorf("algorithm %q is unknown", alg)
	}
	h := hash.New()
	h.Write(data)
	digest := h.Sum(nil)
	switch key := key.(type) {
	case []byte:
		mac := hmac.New(hash.New, key)
		mac.Write(data)
		return mac.Sum(nil), nil
	case *rsa.PrivateKey:
		if alg[0] == 'P' {
			return rsa.SignPSS(rand.Reader, key, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
		return rsa.SignPKCS1v15(nil, key, hash, digest)
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			return nil, err
		}
		size := (key.Curve.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...), nil
	}
	return nil, fmt.Errorf("key %T cannot sign", key)
}
