package signing

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a key.pem")
	for _, c := range []struct {
		ref    string
		create bool
		want   refusal.Code
	}{
		{"file://" + path, false, CodeKeyMissing},
		{"file://" + path, true, ""},
		{"file://" + path, false, ""},
		{"awskms:///alias/assay", true, CodeKeySchemeUnsupported},
		{"signer://profile", true, CodeKeySchemeUnsupported},
		{"gcpkms://x", true, CodeKeySchemeUnsupported},
		{path, true, CodeKeySchemeUnsupported},
		{"", true, CodeKeySchemeUnsupported},
		{"file://relative.pem", true, CodeKeyRefInvalid},
		{"file:relative.pem", true, CodeKeyRefInvalid},
		{"file://host" + path, true, CodeKeyRefInvalid},
		{"file://" + path + "?mode=0644", true, CodeKeyRefInvalid},
		{"file://%zz", true, CodeKeyRefInvalid},
	} {
		s, err := Open(t.Context(), c.ref, c.create)
		if refusal.CodeOf(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("Open(%q, %t): got %v, want code %q", c.ref, c.create, err, c.want)
			continue
		}
		if err == nil {
			if err := checkSigner(t.Context(), s); err != nil {
				t.Error(err)
			}
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("new key file: %v %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("stray files beside the key: %v", entries)
	}
}

func TestKeyFileRefused(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384DER, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newFileKey()
	if err != nil {
		t.Fatal(err)
	}
	good, err := key.marshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	sec1 := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: block.Bytes})
	encode := func(der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}))
	}
	for _, c := range []struct {
		name, content string
		mode          os.FileMode
		want          refusal.Code
	}{
		{"good", string(good), 0o600, ""},
		{"read only", string(good), 0o400, ""},
		{"group may read", string(good), 0o640, CodeKeyFileMode},
		{"others may read", string(good), 0o604, CodeKeyFileMode},
		{"others may write", string(good), 0o602, CodeKeyFileMode},
		{"empty", "", 0o600, CodeKeyFileInvalid},
		{"two keys", string(good) + string(good), 0o600, CodeKeyFileInvalid},
		{"text before", "x\n" + string(good), 0o600, CodeKeyFileInvalid},
		{"another block type", string(sec1), 0o600, CodeKeyFileInvalid},
		{"not PKCS #8", encode([]byte("secret bytes")), 0o600, CodeKeyFileInvalid},
		{"P-384", encode(p384DER), 0o600, CodeKeyFileInvalid},
		{"too large", strings.Repeat("A", maxKeyFile+1), 0o600, CodeKeyFileInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key.pem")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := OpenFile(path, true)
			if refusal.CodeOf(err) != c.want || (err == nil) != (c.want == "") {
				t.Errorf("got %v, want code %q", err, c.want)
			}
			if after, _ := os.ReadFile(path); string(after) != c.content {
				t.Error("the file was changed")
			}
		})
	}
	if _, err := OpenFile(t.TempDir(), true); refusal.CodeOf(err) != CodeKeyFileInvalid {
		t.Errorf("directory as key: %v", err)
	}
}

// Of many processes that create the same key, all must end up with one.
func TestOpenFileCreatesOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	ids := make(chan string, 16)
	for range cap(ids) {
		go func() {
			k, err := OpenFile(path, true)
			if err != nil {
				ids <- err.Error()
				return
			}
			ids <- k.KeyID()
		}()
	}
	first := <-ids
	for range cap(ids) - 1 {
		if id := <-ids; id != first {
			t.Errorf("got %s and %s", first, id)
		}
	}
	if len(first) != 64 {
		t.Errorf("key id %q", first)
	}
}

func TestSign(t *testing.T) {
	k, err := newFileKey()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("x"))
	sig, err := k.Sign(t.Context(), digest[:])
	if err != nil || !VerifyECDSA(k.Public().(*ecdsa.PublicKey), digest[:], sig) {
		t.Errorf("signature does not verify: %v", err)
	}
	for _, n := range []int{0, 20, 31, 33, 64} {
		if _, err := k.Sign(t.Context(), make([]byte, n)); refusal.CodeOf(err) != CodeDigestLength {
			t.Errorf("digest of %d bytes: %v", n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Sign(ctx, digest[:]); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
}

// twoFaced signs with one key and shows another.
type twoFaced struct {
	Signer
	shows crypto.PublicKey
}

func (s twoFaced) Public() crypto.PublicKey { return s.shows }

func TestCheckSigner(t *testing.T) {
	k, err := newFileKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := newFileKey()
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		signer Signer
		want   refusal.Code
	}{
		{"honest", k, ""},
		{"another public key", twoFaced{k, other.Public()}, CodeKeyMismatch},
		{"another curve", twoFaced{k, &p384.PublicKey}, CodeDigestLength},
		{"another kind", twoFaced{k, ed25519.PublicKey(make([]byte, 32))}, CodeKeyMismatch},
	} {
		if err := checkSigner(t.Context(), c.signer); refusal.CodeOf(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%s: got %v, want code %q", c.name, err, c.want)
		}
	}
}

// TestWycheproofECDSA runs the P-256 SHA-256 DER vectors. No difference is known:
// crypto/ecdsa takes strict DER only, and the vectors call malleable but
// well-formed signatures (s and n-s) valid, as we do. We never use a signature as
// an identity, so its malleability does not matter.
func TestWycheproofECDSA(t *testing.T) {
	path := filepath.Join(vectors.Dir(t, "wycheproof/testvectors_v1"), "ecdsa_secp256r1_sha256_test.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		NumberOfTests int
		TestGroups    []struct {
			PublicKeyDER string `json:"publicKeyDer"`
			Tests        []struct {
				TcID                      int
				Comment, Msg, Sig, Result string
			}
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ran := 0
	for _, g := range file.TestGroups {
		pub, err := x509.ParsePKIXPublicKey(unhex(g.PublicKeyDER))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range g.Tests {
			ran++
			digest := sha256.Sum256(unhex(c.Msg))
			if got := VerifyECDSA(pub.(*ecdsa.PublicKey), digest[:], unhex(c.Sig)); got != (c.Result == "valid") {
				t.Errorf("case %d (%s): got %t, want %s", c.TcID, c.Comment, got, c.Result)
			}
		}
	}
	if ran < 400 || ran != file.NumberOfTests {
		t.Errorf("ran %d cases of %d", ran, file.NumberOfTests)
	}
}

func TestVerifyECDSARefuses(t *testing.T) {
	k, err := newFileKey()
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("x"))
	sig, err := k.Sign(t.Context(), digest[:])
	if err != nil {
		t.Fatal(err)
	}
	sig384, err := ecdsa.SignASN1(rand.Reader, p384, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	pub := k.Public().(*ecdsa.PublicKey)
	for _, c := range []struct {
		name        string
		pub         *ecdsa.PublicKey
		digest, sig []byte
		want        bool
	}{
		{"good", pub, digest[:], sig, true},
		{"no key", nil, digest[:], sig, false},
		{"zero key", &ecdsa.PublicKey{}, digest[:], sig, false},
		{"another curve", &p384.PublicKey, digest[:], sig384, false},
		{"no digest", pub, nil, sig, false},
		// crypto/ecdsa cuts a longer digest to the first 32 bytes and would say true.
		{"longer digest", pub, append(digest[:], 0), sig, false},
		{"no signature", pub, digest[:], nil, false},
		{"trailing byte", pub, digest[:], append(sig[:len(sig):len(sig)], 0), false},
	} {
		if got := VerifyECDSA(c.pub, c.digest, c.sig); got != c.want {
			t.Errorf("%s: got %t", c.name, got)
		}
	}
}
