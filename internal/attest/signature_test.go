package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"testing"
)

// signed is a key with a signature of a message as we make them.
type signed struct {
	name   string
	signer crypto.Signer
	hash   crypto.Hash
	digest []byte
	sig    []byte
}

func signedByEach(t testing.TB) []signed {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	all := []signed{{name: "P-256", signer: p256, hash: crypto.SHA256}, {name: "P-384", signer: p384, hash: crypto.SHA384},
		{name: "RSA", signer: rsa2048, hash: crypto.SHA256}}
	for i := range all {
		s := &all[i]
		var opts crypto.SignerOpts = s.hash
		if s.name == "RSA" {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.hash}
		}
		if s.digest, err = SignatureDigest(s.signer.Public(), []byte("message")); err != nil {
			t.Fatal(err)
		}
		if s.sig, err = s.signer.Sign(rand.Reader, s.digest, opts); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestVerifySignature(t *testing.T) {
	t.Parallel()
	all := signedByEach(t)
	for _, s := range all {
		public := s.signer.Public()
		if hash, err := SignatureHash(public); err != nil || hash != s.hash {
			t.Errorf("%s: %v, %v", s.name, hash, err)
		}
		if !VerifySignature(public, s.digest, s.sig) {
			t.Errorf("%s: a good signature is refused", s.name)
		}
		for i := range s.sig {
			mutant := append([]byte(nil), s.sig...)
			mutant[i] ^= 1
			if VerifySignature(public, s.digest, mutant) {
				t.Errorf("%s: byte %d changed", s.name, i)
			}
		}
		for name, sig := range map[string][]byte{"none": nil, "a byte more": append(s.sig[:len(s.sig):len(s.sig)], 0), "a byte less": s.sig[:len(s.sig)-1]} {
			if VerifySignature(public, s.digest, sig) {
				t.Errorf("%s: %s", s.name, name)
			}
		}
		// A digest of another length is of another hash: ECDSA itself would cut it short.
		for name, digest := range map[string][]byte{"none": nil, "longer": append(s.digest[:len(s.digest):len(s.digest)], 0), "shorter": s.digest[:len(s.digest)-1]} {
			if VerifySignature(public, digest, s.sig) {
				t.Errorf("%s: digest %s", s.name, name)
			}
		}
		for _, other := range all {
			if other.name != s.name && VerifySignature(other.signer.Public(), s.digest, s.sig) {
				t.Errorf("%s verifies under %s", s.name, other.name)
			}
		}
	}
}

// TestVerifySignatureSpellings: a signature has one encoding, and RSA one padding.
func TestVerifySignatureSpellings(t *testing.T) {
	t.Parallel()
	all := signedByEach(t)
	ec, rsaKey := all[0], all[2].signer.(*rsa.PrivateKey)
	body := ec.sig[2:]
	for name, sig := range map[string][]byte{
		"long form of length": append([]byte{0x30, 0x81, byte(len(body))}, body...),
		"indefinite length":   append(append([]byte{0x30, 0x80}, body...), 0, 0),
		"zero before r":       append([]byte{0x30, byte(len(body) + 1), 0x02, body[1] + 1, 0}, body[2:]...),
		"a third integer":     append(append([]byte{0x30, byte(len(body) + 3)}, body...), 2, 1, 1),
		"zeros":               {0x30, 6, 2, 1, 0, 2, 1, 0},
	} {
		if VerifySignature(ec.signer.Public(), ec.digest, sig) {
			t.Errorf("ECDSA, %s", name)
		}
	}
	digest := all[2].digest
	v15, err := rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, digest)
	if err != nil {
		t.Fatal(err)
	}
	if VerifySignature(&rsaKey.PublicKey, digest, v15) {
		t.Error("PKCS #1 v1.5 verifies")
	}
	for _, salt := range []int{0, 20, 48, 222} {
		sig, err := rsa.SignPSS(rand.Reader, rsaKey, crypto.SHA256, digest, &rsa.PSSOptions{SaltLength: salt})
		if err != nil {
			t.Fatal(err)
		}
		if VerifySignature(&rsaKey.PublicKey, digest, sig) {
			t.Errorf("a salt of %d bytes verifies", salt)
		}
	}
}

func TestSignatureKeysRefused(t *testing.T) {
	t.Parallel()
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	modulus := func(bits uint) *big.Int {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return n.SetBit(n, 0, 1)
	}
	for name, public := range map[string]crypto.PublicKey{
		"none": nil, "P-224": &p224.PublicKey, "P-521": &p521.PublicKey, "Ed25519": ed,
		"nil ECDSA": (*ecdsa.PublicKey)(nil), "nil RSA": (*rsa.PublicKey)(nil), "empty ECDSA": &ecdsa.PublicKey{}, "empty RSA": &rsa.PublicKey{},
		"RSA 2047": &rsa.PublicKey{N: modulus(2047), E: 65537}, "RSA 4097": &rsa.PublicKey{N: modulus(4097), E: 65537},
		"RSA exponent 3": &rsa.PublicKey{N: modulus(2048), E: 3}, "RSA exponent even": &rsa.PublicKey{N: modulus(2048), E: 65538},
		"RSA negative": &rsa.PublicKey{N: new(big.Int).Neg(modulus(2048)), E: 65537},
	} {
		_, err := SignatureHash(public)
		wantCode(t, err, CodeSignatureKeyUnsupported)
		_, err = SignatureDigest(public, nil)
		wantCode(t, err, CodeSignatureKeyUnsupported)
		if VerifySignature(public, make([]byte, 32), make([]byte, 256)) || VerifySignature(public, nil, nil) {
			t.Errorf("%s verifies", name)
		}
	}
	// A point off the curve is a key of the right kind, and verifies nothing.
	off := &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)} //nolint:staticcheck // no parser gives such a key
	if VerifySignature(off, make([]byte, 32), signedByEach(t)[0].sig) {
		t.Error("a point off the curve verifies")
	}
}

// FuzzVerifySignature: of all encodings of a signature only the one that was made is
// good. The fuzzer holds no key, so what it finds would be a second spelling.
func FuzzVerifySignature(f *testing.F) {
	all := signedByEach(f)
	for _, s := range all {
		f.Add(s.sig)
	}
	f.Fuzz(func(t *testing.T, sig []byte) {
		for _, s := range all {
			if VerifySignature(s.signer.Public(), s.digest, sig) && string(sig) != string(s.sig) {
				t.Fatalf("%s: a second signature %x", s.name, sig)
			}
		}
	})
}
