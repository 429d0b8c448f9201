package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

// verifyJWS is what VerifyOIDC does before it looks at claims, over keys at hand
// and with every algorithm configured.
func verifyJWS(token string, keys keySet) error {
	t, err := parseJWS(token)
	if err != nil {
		return err
	}
	k, ok := keys[t.kid]
	if !ok {
		return refusal.New(CodeTokenKeyUnknown, "key %q", t.kid)
	}
	return t.verify(k)
}

// wycheproofGroup is a group of json_web_signature_test.json, whose keys are one
// JWK, or of json_web_key_test.json, whose keys are a set.
type wycheproofGroup struct {
	Comment         string
	Private, Public json.RawMessage
	Tests           []struct {
		TcID    int
		Comment string
		JWS     any
		Result  string
	}
}

func readWycheproof(t *testing.T, name string) []wycheproofGroup {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectors.Dir(t, "wycheproof/testvectors_v1"), name))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		NumberOfTests int
		TestGroups    []wycheproofGroup
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range file.TestGroups {
		n += len(g.Tests)
	}
	if n == 0 || n != file.NumberOfTests {
		t.Fatalf("%d tests in %s; %d are announced", n, name, file.NumberOfTests)
	}
	return file.TestGroups
}

// keys returns what the group's verifier would know: the public keys, or the
// private ones where it has no others, as for symmetric keys.
func (g wycheproofGroup) keys(t *testing.T) keySet {
	t.Helper()
	raw := g.Public
	if raw == nil {
		raw = g.Private
	}
	if !bytes.Contains(raw, []byte(`"keys"`)) {
		raw = must(json.Marshal(map[string]any{"keys": []json.RawMessage{raw}}))
	}
	set, _, err := parseKeySet(raw)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// Valid tokens of Wycheproof that are refused here, all on purpose.
const (
	whySymmetric = "symmetric algorithms (HS*) are never accepted: a public key would become a shared secret"
	whyNotListed = "the algorithm is not among those that can be configured"
	whyBase64    = "a character outside base64url, which the vector wants skipped"
)

var wycheproofSignatureDiffs = map[int]string{
	1: whySymmetric, 348: whySymmetric, 352: whySymmetric, 357: whySymmetric, 358: whySymmetric, 359: whySymmetric,
	376: whySymmetric, 377: whySymmetric,
	372: whyBase64, 373: whyBase64,
	264: whyNotListed, 265: whyNotListed, 266: whyNotListed, 267: whyNotListed, // RS384
	268: whyNotListed, 269: whyNotListed, 270: whyNotListed, 271: whyNotListed, // RS512
	320: whyNotListed, 321: whyNotListed, 322: whyNotListed, 323: whyNotListed, // PS384
	325: whyNotListed, 326: whyNotListed, 327: whyNotListed, 328: whyNotListed, // PS512
	346: whyNotListed, 350: whyNotListed, // PS384, by a key for PS256
	347: whyNotListed, 351: whyNotListed, // ES512
}

var wycheproofKeyDiffs = map[int]string{2: whySymmetric, 13: whySymmetric, 14: whySymmetric, 15: whySymmetric}

func TestWycheproofSignatures(t *testing.T) {
	runWycheproof(t, "json_web_signature_test.json", wycheproofSignatureDiffs)
}

func TestWycheproofKeys(t *testing.T) {
	runWycheproof(t, "json_web_key_test.json", wycheproofKeyDiffs)
}

func runWycheproof(t *testing.T, file string, diffs map[int]string) {
	accepted, refused, different := 0, 0, 0
	for _, g := range readWycheproof(t, file) {
		keys := g.keys(t)
		for _, c := range g.Tests {
			token, ok := c.JWS.(string)
			if !ok { // the JSON serialization
				token = string(must(json.Marshal(c.JWS)))
			}
			err := verifyJWS(token, keys)
			if err != nil && refusal.CodeOf(err) == "" {
				t.Errorf("%d %s: an error without a code: %v", c.TcID, c.Comment, err)
			}
			why, listed := diffs[c.TcID]
			switch {
			case c.Result == "invalid" && err == nil:
				t.Errorf("%d %s (%s): accepted; it is invalid", c.TcID, c.Comment, g.Comment)
			case c.Result == "invalid":
				refused++
			case err == nil && listed:
				t.Errorf("%d %s (%s): accepted; listed as refused, because %s", c.TcID, c.Comment, g.Comment, why)
			case err == nil:
				accepted++
			case listed:
				different++
			default:
				t.Errorf("%d %s (%s): refused: %v", c.TcID, c.Comment, g.Comment, err)
			}
		}
	}
	if different != len(diffs) {
		t.Errorf("%d differences, %d listed", different, len(diffs))
	}
	t.Logf("%d accepted, %d refused, %d valid ones refused on purpose", accepted, refused, different)
}

// go-jose judges with us: what is accepted here it accepts too.
func TestAgreesWithGoJose(t *testing.T) {
	algs := []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.ES384, jose.EdDSA}
	n := 0
	for _, g := range readWycheproof(t, "json_web_signature_test.json") {
		keys := g.keys(t)
		for _, c := range g.Tests {
			token, ok := c.JWS.(string)
			if !ok || verifyJWS(token, keys) != nil {
				continue
			}
			sig, err := jose.ParseSignedCompact(token, algs)
			if err == nil {
				_, err = sig.Verify(keys[sig.Signatures[0].Header.KeyID].public)
			}
			if err != nil {
				t.Errorf("%d %s: accepted here, refused by go-jose: %v", c.TcID, c.Comment, err)
			}
			n++
		}
	}
	if n == 0 {
		t.Error("nothing was compared")
	}
}

// FuzzParseJWS: a token that parses has one spelling, so it can be put together
// again.
func FuzzParseJWS(f *testing.F) {
	e := newEnv(f)
	good := e.issuer.Mint(testAudience)
	f.Add(good)
	f.Add(strings.Repeat(".", 5))
	f.Add("eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ..")
	f.Add("eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.e30.AB")
	f.Fuzz(func(t *testing.T, token string) {
		j, err := parseJWS(token)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		if j.kid == "" || j.alg == "" {
			t.Fatalf("no kid or alg: %+v", j)
		}
		enc := base64.RawURLEncoding
		head, _, _ := strings.Cut(token, ".")
		if again := head + "." + enc.EncodeToString(j.payload) + "." + enc.EncodeToString(j.sig); again != token {
			t.Fatalf("%q is another spelling of %q", token, again)
		}
		var h map[string]any
		if err := json.Unmarshal(must(enc.DecodeString(head)), &h); err != nil || h["alg"] != j.alg || h["kid"] != j.kid {
			t.Fatalf("encoding/json reads the header as %v (%v), we as alg %q kid %q", h, err, j.alg, j.kid)
		}
	})
}

// FuzzDecodePart holds the base64url decoder against the standard library.
func FuzzDecodePart(f *testing.F) {
	for _, s := range []string{"", "AA", "AB", "AAA", "A", "AA==", "A A", "-_", "+/", "AA\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		data, err := decodePart("part", s)
		if (err == nil) != (base64.RawURLEncoding.EncodeToString(data) == s) {
			t.Fatalf("%q decodes to %x, %v", s, data, err)
		}
		if err != nil && !errors.Is(err, refusal.New(CodeTokenMalformed, "")) {
			t.Fatal(err)
		}
	})
}
