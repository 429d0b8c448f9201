package mldsakey_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/mldsa"
	"filippo.io/mldsa/mldsacrypto"
	"filippo.io/mldsa/x509"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing/mldsakey"
)

func fixedKey(t testing.TB, params mldsa.Parameters) *mldsa.PrivateKey {
	t.Helper()
	seed := make([]byte, mldsa.PrivateKeySize)
	for i := range seed {
		seed[i] = byte(i)
	}
	k, err := mldsa.NewPrivateKey(params, seed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func wantCode(t *testing.T, err error, code refusal.Code) {
	t.Helper()
	if got := refusal.CodeOf(err); got != code {
		t.Errorf("code %q (%v), want %q", got, err, code)
	}
}

func write(t *testing.T, text []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func pemOf(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// The digests were made with github.com/cloudflare/circl v1.6.3, which shares no code
// with filippo.io/mldsa: the key of seed 00 01 … 1f, and its deterministic signature
// over the message. The signature here is made from Mu alone.
func TestMuAgainstAnotherImplementation(t *testing.T) {
	t.Parallel()
	const publicKey = "d666806e11cee19a7c989f7445f90dd419cf4d2d51db8c0fdb4c0f0a542238c9"
	const signature = "39dd707f087ce6303b9472278fd07c052bee2bb0543f18964203a5d16c42e99d"
	msg := []byte("DSSEv1 28 application/vnd.in-toto+json 2 {}")
	key := fixedKey(t, mldsa.MLDSA65())
	sum := sha256.Sum256(key.PublicKey().Bytes())
	if got := hex.EncodeToString(sum[:]); got != publicKey {
		t.Errorf("public key %s, want %s", got, publicKey)
	}
	mu := mldsakey.Mu(key.PublicKey(), msg)
	sig, err := key.SignDeterministic(mu[:], mldsacrypto.MLDSAMu)
	if err != nil {
		t.Fatal(err)
	}
	sum = sha256.Sum256(sig)
	if got := hex.EncodeToString(sum[:]); got != signature {
		t.Errorf("signature %s, want %s", got, signature)
	}
	if err := mldsakey.Verify(key.PublicKey(), msg, sig); err != nil {
		t.Error(err)
	}
}

func TestMuOfManyLengths(t *testing.T) {
	t.Parallel()
	key := fixedKey(t, mldsa.MLDSA65())
	for _, n := range []int{0, 1, 64, 135, 136, 137, 5000} {
		msg := bytes.Repeat([]byte{byte(n)}, n)
		mu := mldsakey.Mu(key.PublicKey(), msg)
		external, err := key.SignDeterministic(mu[:], mldsacrypto.MLDSAMu)
		if err != nil {
			t.Fatal(err)
		}
		direct, err := key.SignDeterministic(msg, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(external, direct) {
			t.Errorf("%d bytes: the signature over mu is not the signature over the message", n)
		}
	}
}

func TestSignAndVerify(t *testing.T) {
	t.Parallel()
	key, err := mldsakey.Open(filepath.Join(t.TempDir(), "k.pem"), true)
	if err != nil {
		t.Fatal(err)
	}
	msg := []byte("message")
	sig, err := key.SignMessage(t.Context(), msg)
	if err != nil {
		t.Fatal(err)
	}
	if err := mldsakey.Verify(key.PublicKey(), msg, sig); err != nil {
		t.Error(err)
	}
	again, err := key.SignMessage(t.Context(), msg)
	if err != nil || bytes.Equal(sig, again) {
		t.Error("two signatures over one message are equal: signing is not hedged")
	}
	other := fixedKey(t, mldsa.MLDSA65())
	flipped := bytes.Clone(sig)
	flipped[len(sig)/2] ^= 1
	withContext, err := other.Sign(nil, msg, &mldsa.Options{Context: "x"})
	if err != nil {
		t.Fatal(err)
	}
	smaller := fixedKey(t, mldsa.MLDSA44())
	smallSig, err := smaller.Sign(nil, msg, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		pub      *mldsa.PublicKey
		msg, sig []byte
		code     refusal.Code
	}{
		"other message":  {key.PublicKey(), []byte("massage"), sig, mldsakey.CodeSignatureInvalid},
		"other key":      {other.PublicKey(), msg, sig, mldsakey.CodeSignatureInvalid},
		"flipped bit":    {key.PublicKey(), msg, flipped, mldsakey.CodeSignatureInvalid},
		"a byte less":    {key.PublicKey(), msg, sig[1:], mldsakey.CodeSignatureInvalid},
		"a byte more":    {key.PublicKey(), msg, append(bytes.Clone(sig), 0), mldsakey.CodeSignatureInvalid},
		"no signature":   {key.PublicKey(), msg, nil, mldsakey.CodeSignatureInvalid},
		"with a context": {other.PublicKey(), msg, withContext, mldsakey.CodeSignatureInvalid},
		"ML-DSA-44":      {smaller.PublicKey(), msg, smallSig, mldsakey.CodeKeyInvalid},
		"no key":         {nil, msg, sig, mldsakey.CodeKeyInvalid},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, mldsakey.Verify(test.pub, test.msg, test.sig), test.code) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := key.SignMessage(ctx, msg); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call signed: %v", err)
	}
}

func TestSPKI(t *testing.T) {
	t.Parallel()
	pub := fixedKey(t, mldsa.MLDSA65()).PublicKey()
	der, err := mldsakey.SPKI(pub)
	if err != nil {
		t.Fatal(err)
	}
	want, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil || !bytes.Equal(der, want) {
		t.Fatalf("not the encoding of filippo.io/mldsa/x509: %v", err)
	}
	got, err := mldsakey.ParseSPKI(der)
	if err != nil || !got.Equal(pub) {
		t.Fatalf("%v", err)
	}
	sum := sha256.Sum256(der)
	if id, err := mldsakey.KeyID(pub); err != nil || id != hex.EncodeToString(sum[:]) {
		t.Errorf("key id %s, %v", id, err)
	}
	if _, err := mldsakey.SPKI(nil); refusal.CodeOf(err) != mldsakey.CodeKeyInvalid {
		t.Error(err)
	}
	for name, der := range hostileSPKI(t) {
		t.Run(name, func(t *testing.T) {
			_, err := mldsakey.ParseSPKI(der)
			wantCode(t, err, mldsakey.CodeKeyInvalid)
		})
	}
}

func hostileSPKI(t testing.TB) map[string][]byte {
	t.Helper()
	marshal := func(pub any) []byte {
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	good := marshal(fixedKey(t, mldsa.MLDSA65()).PublicKey())
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// 2.16.840.1.101.3.4.3.19 names ML-DSA-87.
	otherOID := bytes.Replace(good, []byte{0x03, 0x04, 0x03, 0x12}, []byte{0x03, 0x04, 0x03, 0x13}, 1)
	unusedBits := bytes.Clone(good)
	unusedBits[21] = 1
	parameters := append([]byte{0x30, 0x82, 0x07, 0xb4, 0x30, 0x0d}, good[6:17]...)
	parameters = append(append(parameters, 0x05, 0x00), good[17:]...)
	indefinite := append([]byte{0x30, 0x80}, good[4:]...)
	return map[string][]byte{
		"empty": nil, "trailing byte": append(bytes.Clone(good), 0), "short": good[:len(good)-1],
		"ML-DSA-44": marshal(fixedKey(t, mldsa.MLDSA44()).PublicKey()), "ML-DSA-87": marshal(fixedKey(t, mldsa.MLDSA87()).PublicKey()),
		"other oid": otherOID, "unused bits": unusedBits, "NULL parameters": parameters,
		"ECDSA": marshal(&ec.PublicKey), "BER length": append(indefinite, 0, 0), "raw key": good[22:],
	}
}

func FuzzParseSPKI(f *testing.F) {
	good, err := mldsakey.SPKI(fixedKey(f, mldsa.MLDSA65()).PublicKey())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, der := range hostileSPKI(f) {
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		pub, err := mldsakey.ParseSPKI(der)
		if err != nil {
			if refusal.CodeOf(err) != mldsakey.CodeKeyInvalid {
				t.Fatal(err)
			}
			return
		}
		again, err := mldsakey.SPKI(pub)
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("not the one encoding: %v", err)
		}
	})
}

func TestOpenCreatesOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "k.pem")
	_, err := mldsakey.Open(path, false)
	wantCode(t, err, mldsakey.CodeKeyMissing)
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() {
			k, err := mldsakey.Open(path, true)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = k.KeyID()
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("two keys: %v", ids)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	again, err := mldsakey.Open(path, false)
	if err != nil || again.KeyID() != ids[0] {
		t.Errorf("opened again: %v, %v", again, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	key := fixedKey(t, mldsa.MLDSA65())
	good := pemOf(t, key)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	reencode := func(der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	type pkcs8 struct {
		Version    int
		Algo       struct{ Algorithm asn1.ObjectIdentifier }
		PrivateKey []byte
		Attributes []int `asn1:"optional,tag:0"`
	}
	var fields pkcs8
	if _, err := asn1.Unmarshal(block.Bytes, &fields); err != nil {
		t.Fatal(err)
	}
	edited := func(edit func(*pkcs8)) []byte {
		f := fields
		f.PrivateKey = bytes.Clone(fields.PrivateKey)
		edit(&f)
		der, err := asn1.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		return reencode(der)
	}
	for name, text := range map[string][]byte{
		"empty":           nil,
		"ECDSA":           pemOf(t, ec),
		"ML-DSA-44":       pemOf(t, fixedKey(t, mldsa.MLDSA44())),
		"public key":      pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: key.PublicKey().Bytes()}),
		"two blocks":      append(bytes.Clone(good), good...),
		"text in front":   append([]byte("key:\n"), good...),
		"text behind":     append(bytes.Clone(good), "x"...),
		"headers":         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"a": "b"}, Bytes: block.Bytes}),
		"trailing DER":    reencode(append(bytes.Clone(block.Bytes), 0)),
		"short seed":      edited(func(f *pkcs8) { f.PrivateKey = append([]byte{0x80, 31}, f.PrivateKey[3:]...) }),
		"expanded":        edited(func(f *pkcs8) { f.PrivateKey = append([]byte{0x04, 0x82, 0x0f, 0xc0}, make([]byte, 4032)...) }),
		"with attributes": edited(func(f *pkcs8) { f.Attributes = []int{1} }),
		"version":         edited(func(f *pkcs8) { f.Version = 1 }),
		"large":           append(bytes.Clone(good), bytes.Repeat([]byte("\n"), 16<<10)...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := mldsakey.Open(write(t, text, 0o600), true)
			wantCode(t, err, mldsakey.CodeKeyFileInvalid)
			if err != nil && secretIn(err.Error(), key) {
				t.Errorf("the error quotes the key: %v", err)
			}
		})
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o660} {
		path := write(t, good, 0o600)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := mldsakey.Open(path, true)
		wantCode(t, err, mldsakey.CodeKeyFileMode)
	}
	_, err = mldsakey.Open(t.TempDir(), true)
	wantCode(t, err, mldsakey.CodeKeyFileInvalid)
	if _, err := mldsakey.Open(filepath.Join(t.TempDir(), "none", "k.pem"), true); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("created in no directory: %v", err)
	}
}

// secretIn looks for the seed in the encodings that something could print it in.
func secretIn(text string, key *mldsa.PrivateKey) bool {
	seed := key.Bytes()
	decimal := strings.Trim(fmt.Sprintf("%d", seed), "[]")
	for _, s := range []string{string(seed), hex.EncodeToString(seed), base64.StdEncoding.EncodeToString(seed), decimal} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(s)) {
			return true
		}
	}
	return false
}

func TestKeyIsNotPrinted(t *testing.T) {
	t.Parallel()
	private := fixedKey(t, mldsa.MLDSA65())
	key, err := mldsakey.Open(write(t, pemOf(t, private), 0o600), false)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, v := range []any{key, *key, []any{key}, struct{ K *mldsakey.Key }{key}, struct{ K mldsakey.Key }{*key}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Fatal(err)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("key", "k", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("key", "k", v)
	}
	if secretIn(out.String(), private) {
		t.Error("a printed key holds the seed")
	}
	if !strings.Contains(out.String(), key.KeyID()) {
		t.Error("a printed key does not show its id")
	}
}

func FuzzOpen(f *testing.F) {
	der, err := x509.MarshalPKCS8PrivateKey(fixedKey(f, mldsa.MLDSA65()))
	if err != nil {
		f.Fatal(err)
	}
	good := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	f.Add(good)
	f.Add(append(good, good...))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	path := filepath.Join(f.TempDir(), "k.pem")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := mldsakey.Open(path, false)
		if err != nil {
			if refusal.CodeOf(err) != mldsakey.CodeKeyFileInvalid {
				t.Fatal(err)
			}
			return
		}
		if _, err := key.SignMessage(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkSignMessage(b *testing.B) {
	key, err := mldsakey.Open(filepath.Join(b.TempDir(), "k.pem"), true)
	if err != nil {
		b.Fatal(err)
	}
	msg := make([]byte, 2000)
	for b.Loop() {
		if _, err := key.SignMessage(b.Context(), msg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	key := fixedKey(b, mldsa.MLDSA65())
	msg := make([]byte, 2000)
	sig, err := key.Sign(nil, msg, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := mldsakey.Verify(key.PublicKey(), msg, sig); err != nil {
			b.Fatal(err)
		}
	}
}
