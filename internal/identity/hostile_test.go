package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
)

// hostile is one token that must be refused. fetched says whether the refusal
// comes after the keys were asked for; a token that names no issuer of ours,
// or is no token, must not make us send anything.
type hostile struct {
	name    string
	token   string
	want    refusal.Code
	fetched bool
}

func TestHostileTokens(t *testing.T) {
	e := newEnv(t)
	trap := newTrap(t)
	var cases []hostile
	cases = append(cases, malformedTokens(e)...)
	cases = append(cases, hostileHeaders(e, trap.URL)...)
	cases = append(cases, hostileIssuers(e, trap.URL)...)
	cases = append(cases, hostileSignatures(e)...)
	cases = append(cases, hostileTimes(e)...)
	cases = append(cases, hostileAudiences(e)...)
	cases = append(cases, hostileClaims(e)...)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v := e.verifier(t) // without keys: what it fetches is counted
			before := e.issuer.Requests()
			got, err := v.VerifyOIDC(t.Context(), c.token)
			wantCode(t, err, c.want)
			if got != nil {
				t.Errorf("got %+v beside the refusal", got)
			}
			if fetched := e.issuer.Requests() - before; (fetched > 0) != c.fetched {
				t.Errorf("%d requests at the issuer", fetched)
			}
			if err != nil && len(c.token) > 40 && strings.Contains(err.Error(), c.token[len(c.token)-40:]) {
				t.Error("the refusal's text holds the end of the token")
			}
		})
	}
	if n := trap.hits.Load(); n != 0 {
		t.Errorf("%d requests at an address that a token named", n)
	}
}

func malformedTokens(e *env) []hostile {
	good := e.issuer.Mint(testAudience)
	parts := strings.Split(good, ".")
	// The last character of a signature of 256 bytes carries 4 unused bits.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, good[len(good)-1])
	payload := func(s string) string { return e.issuer.Forge(oidctest.Forgery{RawPayload: []byte(s)}) }
	iss := `"iss":"` + e.issuer.URL() + `"`
	cases := []hostile{
		{"empty", "", CodeTokenMalformed, false},
		{"one dot", "a.b", CodeTokenMalformed, false},
		{"two dots and nothing else", "..", CodeTokenMalformed, false},
		{"three dots", good + ".", CodeTokenMalformed, false},
		{"JWE", parts[0] + "." + parts[1] + "." + parts[2] + ".AA.AA", CodeTokenMalformed, false},
		{"JSON serialization", `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`, CodeTokenMalformed, false},
		{"dots within the limit", strings.Repeat(".", maxTokenBytes), CodeTokenMalformed, false},
		{"8 KiB and a byte", good + strings.Repeat("A", maxTokenBytes+1-len(good)), CodeTokenTooLarge, false},
		{"space before", " " + good, CodeTokenMalformed, false},
		{"Bearer before", "Bearer " + good, CodeTokenMalformed, false},
		{"line break after", good + "\n", CodeTokenMalformed, false},
		{"line break inside", good[:20] + "\r\n" + good[20:], CodeTokenMalformed, false},
		{"padding", good + "==", CodeTokenMalformed, false},
		{"padded header", parts[0] + "=." + parts[1] + "." + parts[2], CodeTokenMalformed, false},
		{"unused bits set", good[:len(good)-1] + alphabet[last+1:last+2], CodeTokenMalformed, false},
		{"standard base64", parts[0] + "." + parts[1] + ".+/" + parts[2][2:], CodeTokenMalformed, false},
		{"NUL", good[:len(good)-1] + "\x00", CodeTokenMalformed, false},
		{"empty payload", parts[0] + ".." + parts[2], CodeTokenMalformed, false},
		{"payload null", payload(`null`), CodeTokenMalformed, false},
		{"payload list", payload(`[{` + iss + `}]`), CodeTokenMalformed, false},
		{"payload string", payload(`"x"`), CodeTokenMalformed, false},
		{"payload not UTF-8", payload("{" + iss + ",\"a\":\"\xff\"}"), CodeTokenMalformed, false},
		{"payload with a BOM", payload("\ufeff{" + iss + "}"), CodeTokenMalformed, false},
		{"payload with a second value", payload("{" + iss + "}{}"), CodeTokenMalformed, false},
		{"duplicate iss", payload(`{"iss":"https://evil.example",` + iss + `}`), CodeTokenMalformed, false},
		{"duplicate aud", payload(`{` + iss + `,"aud":"a","a\u0075d":"b"}`), CodeTokenMalformed, false},
		{"case variant aud", payload(`{` + iss + `,"aud":"a","Aud":"b"}`), CodeTokenMalformed, false},
		{"deep payload", payload(`{` + iss + `,"a":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`), CodeTokenMalformed, false},
		{"Iss instead of iss", payload(`{"Iss":"` + e.issuer.URL() + `"}`), CodeTokenClaimMissing, false},
	}
	return cases
}

func hostileHeaders(e *env, trap string) []hostile {
	header := func(h map[string]any) string { return e.issuer.Forge(oidctest.Forgery{Header: h}) }
	raw := func(h string) string { return e.issuer.Forge(oidctest.Forgery{RawHeader: []byte(h)}) }
	kid := e.issuer.KeyID()
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(testKey().Public()))})
	cases := []hostile{
		{"header null", raw(`null`), CodeTokenMalformed, false},
		{"header list", raw(`[]`), CodeTokenMalformed, false},
		{"header text", raw(`alg=RS256`), CodeTokenMalformed, false},
		{"header empty", raw(`{}`), CodeTokenAlgRefused, false},
		{"header of 3 KiB", header(map[string]any{"x": strings.Repeat("x", 3<<10)}), CodeTokenMalformed, false},
		{"duplicate alg", raw(`{"alg":"RS256","kid":"` + kid + `","alg":"none"}`), CodeTokenMalformed, false},
		{"case variant alg", raw(`{"alg":"RS256","kid":"` + kid + `","Alg":"none"}`), CodeTokenMalformed, false},
		{"Alg instead of alg", raw(`{"Alg":"RS256","kid":"` + kid + `"}`), CodeTokenAlgRefused, false},
		{"alg a number", header(map[string]any{"alg": 256}), CodeTokenMalformed, false},
		{"alg a list", header(map[string]any{"alg": []string{"RS256"}}), CodeTokenMalformed, false},
		{"alg null", raw(`{"alg":null,"kid":"` + kid + `"}`), CodeTokenMalformed, false},
		{"alg empty", header(map[string]any{"alg": ""}), CodeTokenAlgRefused, false},
		{"alg with a space", header(map[string]any{"alg": "RS256 "}), CodeTokenAlgRefused, false},
		{"alg lower case", header(map[string]any{"alg": "rs256"}), CodeTokenAlgRefused, false},
		{"HS256 by the public key", e.issuer.Forge(oidctest.Forgery{Alg: "HS256", Key: publicPEM}), CodeTokenAlgRefused, false},
		{"HS256 by its modulus", e.issuer.Forge(oidctest.Forgery{Alg: "HS256", Key: testKey().N.Bytes()}), CodeTokenAlgRefused, false},
		{"RS512", e.issuer.Forge(oidctest.Forgery{Alg: "RS512"}), CodeTokenAlgRefused, false},
		{"PS256 not configured", e.issuer.Forge(oidctest.Forgery{Alg: "PS256"}), CodeTokenAlgRefused, false},
		{"kid missing", header(map[string]any{"kid": nil}), CodeTokenKIDMissing, false},
		{"kid empty", header(map[string]any{"kid": ""}), CodeTokenKIDMissing, false},
		{"kid of 257 bytes", header(map[string]any{"kid": strings.Repeat("k", 257)}), CodeTokenKIDMissing, false},
		{"kid a number", header(map[string]any{"kid": 1}), CodeTokenMalformed, false},
		{"kid a list", header(map[string]any{"kid": []string{kid}}), CodeTokenMalformed, false},
		{"typ of an access token", header(map[string]any{"typ": "at+jwt"}), CodeTokenHeaderRefused, false},
		{"typ empty", header(map[string]any{"typ": ""}), CodeTokenHeaderRefused, false},
		{"typ a number", header(map[string]any{"typ": 1}), CodeTokenMalformed, false},
	}
	for _, alg := range []string{"none", "None", "NONE", "nOnE"} {
		cases = append(cases, hostile{"alg " + alg, e.issuer.Forge(oidctest.Forgery{Alg: alg}), CodeTokenAlgRefused, false})
	}
	own := map[string]any{"kty": "RSA", "n": base64.RawURLEncoding.EncodeToString(otherKey().N.Bytes()), "e": "AQAB"}
	for name, value := range map[string]any{
		"jwk": own, "x5c": []string{"AAAA"}, "jku": trap + "/jwks", "x5u": trap + "/cert",
		"crit": []string{"exp"}, "b64": false, "enc": "A128GCM", "zip": "DEF", "cty": "JWT",
	} {
		cases = append(cases, hostile{"header " + name, e.issuer.Forge(oidctest.Forgery{
			Key: otherKey(), Header: map[string]any{name: value, "kid": "mine"},
		}), CodeTokenHeaderRefused, false})
	}
	return cases
}

func hostileIssuers(e *env, trap string) []hostile {
	url := e.issuer.URL()
	var cases []hostile
	for name, iss := range map[string]any{
		"another":              "https://evil.example",
		"a trap":               trap,
		"ours in the query":    trap + "/?" + url,
		"ours in the path":     trap + "/" + url,
		"ours as the user":     strings.Replace(trap, "http://", "http://127.0.0.1@", 1),
		"longer":               url + ".evil.example",
		"longer port":          url + "0",
		"shorter":              url[:len(url)-1],
		"a slash more":         url + "/",
		"an enterprise slug":   url + "/octo-enterprise",
		"upper case":           strings.ToUpper(url),
		"a space more":         url + " ",
		"GitHub's, not ours":   "https://token.actions.githubusercontent.com",
		"like GitHub's":        "https://token.actions.githubusercontent.com.evil.example",
		"GitHub's in brackets": "https://evil.example/?https://token.actions.githubusercontent.com",
	} {
		cases = append(cases, hostile{"issuer " + name, e.issuer.Mint(testAudience, oidctest.Claims{"iss": iss}), CodeIssuerUnknown, false})
	}
	mint := func(over oidctest.Claims) string { return e.issuer.Mint(testAudience, over) }
	return append(cases,
		hostile{"issuer missing", mint(oidctest.Claims{"iss": nil}), CodeTokenClaimMissing, false},
		hostile{"issuer empty", mint(oidctest.Claims{"iss": ""}), CodeTokenClaimInvalid, false},
		hostile{"issuer a list", mint(oidctest.Claims{"iss": []string{url}}), CodeTokenClaimInvalid, false},
		hostile{"issuer a NUL more", mint(oidctest.Claims{"iss": url + "\x00"}), CodeTokenClaimInvalid, false},
		hostile{"issuer of 2 KiB", mint(oidctest.Claims{"iss": url + strings.Repeat("a", 2<<10)}), CodeTokenClaimInvalid, false},
	)
}

func hostileSignatures(e *env) []hostile {
	good := e.issuer.Mint(testAudience)
	parts := strings.Split(good, ".")
	flipped := []byte(good)
	if at := len(parts[0]) + len(parts[1]) + 10; flipped[at] == 'A' {
		flipped[at] = 'B'
	} else {
		flipped[at] = 'A'
	}
	swapped := strings.Split(e.issuer.Mint(testAudience, oidctest.Claims{"jti": "other"}), ".")
	past := oidctest.Claims{"aud": testAudience, "exp": 1, "iat": 0}
	return []hostile{
		{"kid unknown", e.issuer.Forge(oidctest.Forgery{Header: map[string]any{"kid": "nobody"}}), CodeTokenKeyUnknown, true},
		{"kid with a space more", e.issuer.Forge(oidctest.Forgery{Header: map[string]any{"kid": e.issuer.KeyID() + " "}}), CodeTokenKeyUnknown, true},
		{"kid a path", e.issuer.Forge(oidctest.Forgery{Header: map[string]any{"kid": "../../dev/null"}}), CodeTokenKeyUnknown, true},
		{"signed by another key", e.issuer.Forge(oidctest.Forgery{Key: otherKey(), Claims: oidctest.Claims{"aud": testAudience}}), CodeTokenSignatureInvalid, true},
		{"expired and signed by another key", e.issuer.Forge(oidctest.Forgery{Key: otherKey(), Claims: past}), CodeTokenSignatureInvalid, true},
		{"another's audience, signed by another key", e.issuer.Forge(oidctest.Forgery{Key: otherKey(), Claims: oidctest.Claims{"aud": "x"}}), CodeTokenSignatureInvalid, true},
		{"signature empty", parts[0] + "." + parts[1] + ".", CodeTokenSignatureInvalid, true},
		{"signature cut", parts[0] + "." + parts[1] + "." + parts[2][:336], CodeTokenSignatureInvalid, true},
		{"signature longer", parts[0] + "." + parts[1] + ".AAAA" + parts[2], CodeTokenSignatureInvalid, true},
		{"signature changed", string(flipped), CodeTokenSignatureInvalid, true},
		{"signature of another token", parts[0] + "." + parts[1] + "." + swapped[2], CodeTokenSignatureInvalid, true},
		{"payload of another token", parts[0] + "." + swapped[1] + "." + parts[2], CodeTokenSignatureInvalid, true},
		{"RS512 signature said to be RS256", e.issuer.Forge(oidctest.Forgery{Alg: "RS512", Header: map[string]any{"alg": "RS256"}}), CodeTokenSignatureInvalid, true},
		{"PS256 signature said to be RS256", e.issuer.Forge(oidctest.Forgery{Alg: "PS256", Header: map[string]any{"alg": "RS256"}}), CodeTokenSignatureInvalid, true},
	}
}

// The text of a refusal names the claim, so that whoever runs the job can mend it.
func TestMissingClaimIsNamed(t *testing.T) {
	e := newEnv(t)
	_, err := e.verifier(t).VerifyOIDC(t.Context(), e.issuer.Mint(testAudience, oidctest.Claims{"job_workflow_ref": nil}))
	if err == nil || !strings.Contains(err.Error(), "job_workflow_ref") {
		t.Errorf("got %v", err)
	}
}

// A megabyte of dots must not become a million strings.
func TestDotsCostNothing(t *testing.T) {
	v := newEnv(t).verifier(t)
	token := strings.Repeat(".", 1<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := v.VerifyOIDC(t.Context(), token)
	runtime.ReadMemStats(&after)
	wantCode(t, err, CodeTokenTooLarge)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
		t.Errorf("%d bytes allocated", n)
	}
}

// Other algorithms work where they are configured, and only with keys that are
// for them.
func TestAlgorithms(t *testing.T) {
	p256 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t)
	set := jwks(
		jwk(testKey().Public(), "rsa", ""), jwk(testKey().Public(), "rsa-rs", "RS256"), jwk(testKey().Public(), "rsa-ps", "PS256"),
		jwk(p256.Public(), "p256", ""), jwk(p384.Public(), "p384", "ES384"), jwk(ed.Public(), "ed", "EdDSA"),
	)
	e.intercept = serveKeys(&set)
	v := e.verifier(t, func(c *Config) { c.Issuers[0].Algorithms = []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} })
	for _, c := range []struct {
		alg, kid string
		key      any
		want     refusal.Code
	}{
		{"RS256", "rsa", testKey(), ""},
		{"PS256", "rsa", testKey(), ""},
		{"RS256", "rsa-rs", testKey(), ""},
		{"PS256", "rsa-ps", testKey(), ""},
		{"ES256", "p256", p256, ""},
		{"ES384", "p384", p384, ""},
		{"EdDSA", "ed", ed, ""},
		{"PS256", "rsa-rs", testKey(), CodeTokenAlgRefused},
		{"RS256", "rsa-ps", testKey(), CodeTokenAlgRefused},
		{"ES256", "p384", p384, CodeTokenAlgRefused},
		{"ES384", "p256", p256, CodeTokenAlgRefused},
		{"ES256", "rsa", p256, CodeTokenAlgRefused},
		{"EdDSA", "p256", ed, CodeTokenAlgRefused},
		{"RS256", "ed", testKey(), CodeTokenAlgRefused},
		{"ES256", "p256", p384, CodeTokenSignatureInvalid}, // 96 bytes instead of 64
		{"HS256", "ed", []byte(ed.Public().(ed25519.PublicKey)), CodeTokenAlgRefused},
	} {
		t.Run(c.alg+" by "+c.kid, func(t *testing.T) {
			_, err := v.VerifyOIDC(t.Context(), e.issuer.Forge(oidctest.Forgery{
				Alg: c.alg, Key: c.key, Header: map[string]any{"kid": c.kid}, Claims: oidctest.Claims{"aud": testAudience},
			}))
			wantCode(t, err, c.want)
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// FuzzVerifyOIDC: no token but those the issuer signed is believed, and none
// makes the verifier panic.
func FuzzVerifyOIDC(f *testing.F) {
	e := newEnv(f)
	seeds := append(malformedTokens(e), hostileHeaders(e, "http://127.0.0.1:1")...)
	seeds = append(seeds, hostileSignatures(e)...)
	seeds = append(seeds, hostileAudiences(e)...)
	if len(seeds) < 50 {
		f.Fatalf("only %d seeds", len(seeds))
	}
	for _, s := range seeds {
		f.Add(s.token)
	}
	good := e.issuer.Mint(testAudience)
	f.Add(good)
	v := e.verifier(f)
	if _, err := v.VerifyOIDC(f.Context(), good); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		got, err := v.VerifyOIDC(t.Context(), token)
		switch {
		case err == nil && token != good:
			t.Fatalf("believed %+v", got.Caller)
		case err != nil && refusal.CodeOf(err) == "":
			t.Fatalf("an error without a code: %v", err)
		}
	})
}

// FuzzParseClaims puts the claims behind a right signature.
func FuzzParseClaims(f *testing.F) {
	e := newEnv(f)
	job := e.issuer.Job()
	job["aud"], job["iat"], job["exp"], job["jti"] = testAudience, 1, 2, "j"
	seeds := [][]byte{must(json.Marshal(job)), []byte(`{"aud":["x"],"exp":1e3,"run_id":12345678901234567}`), []byte(`{"repository":"a/b","ref":"refs/heads/\u202e"}`)}
	for _, s := range seeds {
		f.Add(s)
	}
	v := e.verifier(f)
	is := v.issuers[e.issuer.URL()]
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := parseClaims(payload)
		if err != nil {
			wantCode(t, err, CodeTokenMalformed)
			return
		}
		_ = checkAudience(c, v.audience)
		_, _ = v.checkTimes(c, v.lifetime)
		caller, err := is.gitHubCaller(t.Context(), c, nil)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		// What was read as a caller is stored and read back the same.
		data := must(caller.Marshal())
		if again := must(must(UnmarshalCaller(data)).Marshal()); !bytes.Equal(data, again) {
			t.Fatalf("%s became %s", data, again)
		}
	})
}

// trap is a server that nothing may ever ask.
type trap struct {
	*httptest.Server
	hits counter
}

func newTrap(tb testing.TB) *trap {
	tr := new(trap)
	tr.Server = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { tr.hits.Add(1) }))
	tb.Cleanup(tr.Close)
	return tr
}
