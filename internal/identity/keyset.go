package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/attest"
)

const (
	maxKeySetBytes = 1 << 20
	maxKeys        = 128
	minRSABits     = 2048
	maxRSABits     = 4096
)

// key is one public key of an issuer, fit to verify with.
type key struct {
	kid    string
	alg    string // the only algorithm it is for; "" where the issuer does not say
	family string // RSA, P-256, P-384, Ed25519
	public any    // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// fits reports whether alg may be used with k.
func (k *key) fits(alg string) bool {
	a, ok := algorithms[alg]
	return ok && a.keyFamily == k.family && (k.alg == "" || k.alg == alg)
}

// keySet maps kid to key. It is never changed once made.
type keySet map[string]*key

// parseKeySet reads a JWK set. One key that cannot be used must not take the
// others with it (RFC 7517 section 5), so such keys are left out and named in
// skipped. Two keys with one kid are both left out: which one is meant is a guess.
func parseKeySet(data []byte) (set keySet, skipped []error, err error) {
	if err := attest.CheckJSON(data, maxKeySetBytes); err != nil {
		return nil, nil, fmt.Errorf("key set: %w", err)
	}
	var doc struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, nil, errors.New("key set: not a JSON object with a list of keys")
	}
	if doc.Keys == nil {
		return nil, nil, errors.New("key set: no keys member")
	}
	if len(doc.Keys) > maxKeys {
		return nil, nil, fmt.Errorf("key set: %d keys; the limit is %d", len(doc.Keys), maxKeys)
	}
	set = make(keySet, len(doc.Keys))
	seen := make(map[string]bool, len(doc.Keys))
	for i, raw := range doc.Keys {
		k, kid, err := parseKey(raw)
		if seen[kid] {
			delete(set, kid)
			skipped = append(skipped, fmt.Errorf("keys[%d]: kid %.80q is there more than once", i, kid))
			continue
		}
		seen[kid] = kid != ""
		if err != nil {
			skipped = append(skipped, fmt.Errorf("keys[%d] (kid %.80q): %w", i, kid, err))
			continue
		}
		set[kid] = k
	}
	return set, skipped, nil
}

// jwkMeta are the members of a JWK that say what the key is for, and those that
// only a private or symmetric key has.
type jwkMeta struct {
	Kid    string         `json:"kid"`
	Alg    string         `json:"alg"`
	Use    string         `json:"use"`
	KeyOps []string       `json:"key_ops"`
	D      jsontext.Value `json:"d"`
	K      jsontext.Value `json:"k"`
	Priv   jsontext.Value `json:"priv"`
}

// parseKey reads one JWK. kid is returned with an error too, where it is known.
func parseKey(raw []byte) (k *key, kid string, err error) {
	var meta jwkMeta
	if err := json.Unmarshal(raw, &meta); err != nil {
		return nil, "", errors.New("not a JWK")
	}
	_, known := algorithms[meta.Alg]
	switch {
	case meta.Kid == "" || len(meta.Kid) > maxKIDBytes:
		return nil, "", errors.New("no kid, or one that is too long")
	case meta.D != nil || meta.K != nil || meta.Priv != nil:
		return nil, meta.Kid, errors.New("holds secret key material")
	case meta.Use != "" && meta.Use != "sig":
		return nil, meta.Kid, fmt.Errorf("use is %.20q, not sig", meta.Use)
	case meta.KeyOps != nil && !slices.Contains(meta.KeyOps, "verify"):
		return nil, meta.Kid, errors.New("key_ops does not list verify")
	case meta.Alg != "" && !known:
		return nil, meta.Kid, fmt.Errorf("alg %.20q is not accepted", meta.Alg)
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil {
		return nil, meta.Kid, err
	}
	k = &key{kid: meta.Kid, alg: meta.Alg, public: jwk.Key}
	switch pub := jwk.Key.(type) {
	case *rsa.PublicKey:
		k.family = "RSA"
		err = checkRSA(pub)
	case *ecdsa.PublicKey: // go-jose has checked that the point is on the curve
		k.family = pub.Curve.Params().Name
	case ed25519.PublicKey:
		k.family = "Ed25519"
	default:
		err = errors.New("key type is not accepted")
	}
	if err == nil && k.alg != "" && !k.fits(k.alg) {
		err = fmt.Errorf("alg %s does not fit a key of type %s", k.alg, k.family)
	}
	if err != nil {
		return nil, meta.Kid, err
	}
	return k, meta.Kid, nil
}

// checkRSA refuses keys that are too weak to mean anything, and those that are
// so large that checking a signature becomes work (CVE-2023-29409).
func checkRSA(pub *rsa.PublicKey) error {
	bits := pub.N.BitLen()
	switch {
	case bits < minRSABits || bits > maxRSABits:
		return fmt.Errorf("RSA key of %d bits; %d to %d are accepted", bits, minRSABits, maxRSABits)
	case pub.E <= 1<<16 || pub.E > 1<<31-1 || pub.E&1 == 0: // FIPS 186-5 A.1.1
		return fmt.Errorf("RSA exponent %d is not accepted", pub.E)
	case pub.N.Bit(0) == 0:
		return errors.New("RSA modulus is even")
	case isROCA(pub.N):
		return errors.New("RSA key of the ROCA weakness (CVE-2017-15361)")
	}
	return nil
}

// rocaPrimes are the discriminating primes of the ROCA detector published with
// the paper. Keys of the flawed generator are powers of 65537 modulo each; a
// sound key is with a chance below 2^-25.
var rocaPrimes = [...]int64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157}

func isROCA(n *big.Int) bool {
	for _, p := range rocaPrimes {
		rest := new(big.Int).Mod(n, big.NewInt(p)).Int64()
		power, found := int64(1), false
		for range p {
			if power == rest {
				found = true
				break
			}
			power = power * 65537 % p
		}
		if !found {
			return false
		}
	}
	return true
}
