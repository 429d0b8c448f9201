package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
)

type counter = atomic.Int64

// jwk is the JSON form of a public key.
func jwk(pub crypto.PublicKey, kid, alg string) map[string]any {
	data := must(json.Marshal(jose.JSONWebKey{Key: pub, KeyID: kid, Algorithm: alg}))
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		panic(err)
	}
	return m
}

func jwks(keys ...map[string]any) []byte {
	return must(json.Marshal(map[string]any{"keys": append([]map[string]any{}, keys...)}))
}

// serveKeys serves *set instead of the issuer's keys.
func serveKeys(set *[]byte) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/jwks") {
			return false
		}
		w.Write(*set)
		return true
	}
}

// A new key works as soon as a token by it comes.
func TestRotation(t *testing.T) {
	e := newEnv(t)
	v := e.verifier(t)
	old := e.issuer.Mint(testAudience)
	check := func(token string, want refusal.Code, requests int) {
		t.Helper()
		before := e.issuer.Requests()
		_, err := v.VerifyOIDC(t.Context(), token)
		wantCode(t, err, want)
		if got := e.issuer.Requests() - before; got != requests {
			t.Errorf("%d requests; want %d", got, requests)
		}
	}
	check(old, "", 2)
	e.clock.Advance(refreshInterval)
	if err := e.issuer.Rotate(); err != nil {
		t.Fatal(err)
	}
	check(e.issuer.Mint(testAudience), "", 1)
	check(old, "", 0)
}

// A withdrawn key works no longer than the key set is fresh, and not at all once
// the set was fetched again for another reason.
func TestWithdrawnKey(t *testing.T) {
	e := newEnv(t)
	v := e.verifier(t)
	old := func() string {
		return e.issuer.Forge(oidctest.Forgery{
			Key: testKey(), Header: map[string]any{"kid": "old"}, Claims: oidctest.Claims{"aud": testAudience}})
	}
	set := jwks(jwk(testKey().Public(), "old", "RS256"), jwk(otherKey().Public(), "new", "RS256"))
	e.intercept = serveKeys(&set)
	verify := func(token string, want refusal.Code) {
		t.Helper()
		_, err := v.VerifyOIDC(t.Context(), token)
		wantCode(t, err, want)
	}
	verify(old(), "")
	set = jwks(jwk(otherKey().Public(), "new", "RS256"))
	e.clock.Advance(keysFresh - time.Second)
	verify(old(), "") // the set of nine minutes ago still holds
	e.clock.Advance(time.Second)
	verify(old(), CodeTokenKeyUnknown)

	set = jwks(jwk(testKey().Public(), "old", "RS256"))
	e.clock.Advance(refreshInterval)
	verify(old(), "")
	set = jwks()
	e.clock.Advance(refreshInterval)
	verify(e.issuer.Forge(oidctest.Forgery{Header: map[string]any{"kid": "other"}}), CodeTokenKeyUnknown)
	verify(old(), CodeTokenKeyUnknown) // that fetch took it along
}

// Invented kids cause one fetch in ten seconds, however many come.
func TestUnknownKeyRateLimit(t *testing.T) {
	e := newEnv(t)
	v := e.verifier(t)
	if _, err := v.VerifyOIDC(t.Context(), e.issuer.Mint(testAudience)); err != nil {
		t.Fatal(err)
	}
	before := e.issuer.Requests()
	flood := func() {
		var wg sync.WaitGroup
		for i := range 50 {
			token := e.issuer.Forge(oidctest.Forgery{Header: map[string]any{"kid": fmt.Sprint(i)}})
			wg.Go(func() {
				_, err := v.VerifyOIDC(t.Context(), token)
				wantCode(t, err, CodeTokenKeyUnknown)
			})
		}
		wg.Wait()
	}
	flood()
	if n := e.issuer.Requests() - before; n != 0 {
		t.Errorf("%d requests within ten seconds of the first fetch; want 0", n)
	}
	e.clock.Advance(refreshInterval)
	flood()
	if n := e.issuer.Requests() - before; n != 1 {
		t.Errorf("%d requests; want 1", n)
	}
}

// Fifty first tokens at once share one fetch, and all are believed.
func TestConcurrentFirstTokens(t *testing.T) {
	e := newEnv(t)
	v := e.verifier(t)
	token := e.issuer.Mint(testAudience)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, err := v.VerifyOIDC(t.Context(), token)
			wantCode(t, err, "")
		})
	}
	wg.Wait()
	if n := e.issuer.Requests(); n != 2 {
		t.Errorf("%d requests; want 2", n)
	}
}

// While an issuer cannot be reached its keys are believed for an hour, and then
// not any more.
func TestIssuerOutage(t *testing.T) {
	e := newEnv(t)
	v := e.verifier(t)
	token := func() string { return e.issuer.Mint(testAudience) }
	verify := func(token string, want refusal.Code) {
		t.Helper()
		_, err := v.VerifyOIDC(t.Context(), token)
		wantCode(t, err, want)
	}
	verify(token(), "")
	down := true
	e.intercept = func(w http.ResponseWriter, _ *http.Request) bool {
		if down {
			http.Error(w, "down", http.StatusServiceUnavailable)
		}
		return down
	}
	e.clock.Advance(keysHard - time.Second)
	verify(token(), "")
	verify(e.issuer.Forge(oidctest.Forgery{Header: map[string]any{"kid": "unknown"}}), CodeIssuerUnavailable)
	e.clock.Advance(time.Second)
	verify(token(), CodeIssuerUnavailable)
	down = false
	verify(token(), CodeIssuerUnavailable) // not asked again yet
	e.clock.Advance(refreshInterval)
	verify(token(), "")

	e.clock.Advance(-2 * time.Hour) // a clock set back must not make keys last
	down = true
	verify(token(), CodeIssuerUnavailable)
}

// What an issuer, or somebody on the way to it, may answer.
func TestHostileIssuerAnswers(t *testing.T) {
	e := newEnv(t)
	target := newTrap(t)
	doc := func(issuer, uri string) string { return fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, uri) }
	own := e.issuer.URL()
	for name, c := range map[string]struct {
		path string // what is answered with body; everything else is honest
		body func(http.ResponseWriter)
	}{
		"discovery redirects":         {"openid-configuration", func(w http.ResponseWriter) { redirect(w, target.URL) }},
		"keys redirect":               {"jwks", func(w http.ResponseWriter) { redirect(w, target.URL) }},
		"keys redirect to a file":     {"jwks", func(w http.ResponseWriter) { redirect(w, "file:///etc/passwd") }},
		"discovery of another issuer": {"openid-configuration", text(doc("https://evil.example", own+"/.well-known/jwks"))},
		"discovery with a slash more": {"openid-configuration", text(doc(own+"/", own+"/.well-known/jwks"))},
		"keys on another host":        {"openid-configuration", text(doc(own, target.URL+"/jwks"))},
		"keys with a user":            {"openid-configuration", text(doc(own, strings.Replace(own, "://", "://a:b@", 1)+"/.well-known/jwks"))},
		"keys by another scheme":      {"openid-configuration", text(doc(own, strings.Replace(own, "http:", "https:", 1)+"/.well-known/jwks"))},
		"keys in a file":              {"openid-configuration", text(doc(own, "file:///etc/passwd"))},
		"no keys address":             {"openid-configuration", text(`{"issuer":"` + own + `"}`)},
		"issuer twice":                {"openid-configuration", text(`{"issuer":"x",` + doc(own, own)[1:])},
		"discovery not JSON":          {"openid-configuration", text(`<html>`)},
		"discovery a list":            {"openid-configuration", text(`[]`)},
		"discovery without end":       {"openid-configuration", endless},
		"discovery of 404":            {"openid-configuration", func(w http.ResponseWriter) { w.WriteHeader(404) }},
		"keys without end":            {"jwks", endless},
		"keys of 204":                 {"jwks", func(w http.ResponseWriter) { w.WriteHeader(204) }},
		"keys not JSON":               {"jwks", text(`-----BEGIN PUBLIC KEY-----`)},
		"keys null":                   {"jwks", text(`null`)},
		"keys without the member":     {"jwks", text(`{}`)},
		"keys of the wrong case":      {"jwks", text(`{"Keys":[]}`)},
		"keys null member":            {"jwks", text(`{"keys":null}`)},
		"keys an object":              {"jwks", text(`{"keys":{}}`)},
		"keys member twice":           {"jwks", text(`{"keys":[],"keys":[]}`)},
		"129 keys":                    {"jwks", text(`{"keys":[` + strings.Repeat(`{},`, 128) + `{}]}`)},
		"keys cut off":                {"jwks", func(w http.ResponseWriter) { w.Header().Set("Content-Length", "100"); io.WriteString(w, `{"keys":[]}`) }},
		"keys compressed, as if asked": {"jwks", func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write([]byte("\x1f\x8b\x08"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var authorized counter
			e.intercept = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
					authorized.Add(1)
				}
				if !strings.HasSuffix(r.URL.Path, c.path) {
					return false
				}
				c.body(w)
				return true
			}
			_, err := e.verifier(t).VerifyOIDC(t.Context(), e.issuer.Mint(testAudience))
			wantCode(t, err, CodeIssuerUnavailable)
			if authorized.Load() != 0 {
				t.Error("a credential went to the issuer")
			}
		})
	}
	if n := target.hits.Load(); n != 0 {
		t.Errorf("%d requests went to another host", n)
	}
}

func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusFound)
}

func text(s string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { io.WriteString(w, s) }
}

func endless(w http.ResponseWriter) {
	chunk := []byte(strings.Repeat(" ", 64<<10))
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// An answer that drips is given up after the timeout, for all who wait for it.
func TestSlowIssuer(t *testing.T) {
	e := newEnv(t)
	e.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		io.WriteString(w, "{")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	v := e.verifier(t)
	v.issuers[e.issuer.URL()].keys.timeout = 20 * time.Millisecond
	_, err := v.VerifyOIDC(t.Context(), e.issuer.Mint(testAudience))
	wantCode(t, err, CodeIssuerUnavailable)
}

// Keys on another host are taken if configured, and only from there.
func TestConfiguredJWKSURI(t *testing.T) {
	e, keys := newEnv(t), newEnv(t)
	e.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, e.issuer.URL(), keys.issuer.URL()+"/.well-known/jwks")
		return true
	}
	token := keys.issuer.Mint(testAudience, oidctest.Claims{"iss": e.issuer.URL()})
	v := e.verifier(t, func(c *Config) { c.Issuers[0].JWKSURI = keys.issuer.URL() + "/.well-known/jwks" })
	_, err := v.VerifyOIDC(t.Context(), token)
	wantCode(t, err, "")
	v = e.verifier(t, func(c *Config) { c.Issuers[0].JWKSURI = keys.issuer.URL() + "/jwks" })
	_, err = v.VerifyOIDC(t.Context(), token)
	wantCode(t, err, CodeIssuerUnavailable)
}

// Keys that cannot be used are left out and do not take the others with them.
func TestParseKeySet(t *testing.T) {
	good := jwk(testKey().Public(), "good", "RS256")
	with := func(name string, value any) map[string]any {
		k := jwk(testKey().Public(), "bad", "")
		k[name] = value
		return k
	}
	exponent := func(e int) map[string]any { return jwk(&rsa.PublicKey{N: testKey().N, E: e}, "bad", "") }
	modulus := func(n *big.Int) map[string]any { return jwk(&rsa.PublicKey{N: n, E: 65537}, "bad", "") }
	offCurve := jwk(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Public(), "bad", "")
	offCurve["y"] = offCurve["x"]
	private := jwk(testKey().Public(), "bad", "")
	private["d"] = "AQAB"
	for name, bad := range map[string]map[string]any{
		"use enc":                with("use", "enc"),
		"use empty-ish":          with("use", "Sig"),
		"key_ops without verify": with("key_ops", []string{"encrypt", "wrapKey"}),
		"key_ops empty":          with("key_ops", []string{}),
		"alg of encryption":      with("alg", "RSA-OAEP"),
		"alg HS256":              with("alg", "HS256"),
		"alg none":               with("alg", "none"),
		"alg ES256 on RSA":       with("alg", "ES256"),
		"alg a number":           with("alg", 1),
		"kty EC":                 with("kty", "EC"),
		"kty missing":            with("kty", nil),
		"kty unknown":            with("kty", "XYZ"),
		"kid missing":            with("kid", nil),
		"kid empty":              with("kid", ""),
		"kid too long":           with("kid", strings.Repeat("k", 257)),
		"secret part":            private,
		"symmetric":              {"kty": "oct", "kid": "bad", "alg": "HS256", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
		"n missing":              with("n", nil),
		"n empty":                with("n", ""),
		"x5c of another key":     with("x5c", []string{"AAAA"}),
		"RSA of 2047 bits":       modulus(new(big.Int).SetBit(new(big.Int).Rsh(testKey().N, 1), 0, 1)),
		"RSA of 4104 bits":       modulus(new(big.Int).SetBit(new(big.Int).Lsh(testKey().N, 2056), 0, 1)),
		"RSA even":               modulus(new(big.Int).SetBit(testKey().N, 0, 0)),
		"exponent 1":             exponent(1),
		"exponent 3":             exponent(3),
		"exponent even":          exponent(65538),
		"exponent huge":          exponent(1<<40 + 1),
		"not on the curve":       offCurve,
		"P-224":                  with("kty", "P-224"),
	} {
		t.Run(name, func(t *testing.T) {
			set, skipped, err := parseKeySet(jwks(bad, good))
			if err != nil {
				t.Fatal(err)
			}
			if len(set) != 1 || set["good"] == nil || len(skipped) != 1 {
				t.Errorf("kept %v, left out %v; want one and one", set, skipped)
			}
		})
	}
	for name, keys := range map[string][]byte{
		"twice":                    jwks(good, good),
		"three times":              jwks(good, good, good),
		"second cannot be used":    jwks(good, jwk(testKey().Public(), "good", "HS256")),
		"first cannot be used":     jwks(jwk(testKey().Public(), "good", "HS256"), good),
		"another key, the same id": jwks(good, jwk(otherKey().Public(), "good", "RS256")),
	} {
		set, _, err := parseKeySet(keys)
		if err != nil || len(set) != 0 {
			t.Errorf("kid %s: kept %v (%v); want nothing, since which is meant is a guess", name, set, err)
		}
	}
}

func FuzzParseKeySet(f *testing.F) {
	f.Add(jwks(jwk(testKey().Public(), "a", "RS256"), jwk(otherKey().Public(), "b", "")))
	f.Add(jwks(jwk(must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)).Public(), "c", "ES384")))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"d","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, _, err := parseKeySet(data)
		for kid, k := range set {
			if err != nil || kid == "" || k.kid != kid || k.public == nil {
				t.Fatalf("kid %q: %+v, %v", kid, k, err)
			}
			_ = (&jws{alg: "RS256", sig: make([]byte, 256)}).verify(k)
		}
	})
}
