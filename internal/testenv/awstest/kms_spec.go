package awstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha3"
	"fmt"
	"slices"
	"strings"

	"filippo.io/mldsa"
	"filippo.io/mldsa/mldsacrypto"
)

// KeySpec is a key spec of KMS: "ECC_NIST_P256", "RSA_3072", "ML_DSA_65".
type KeySpec string

// mlDSA is the one signing algorithm of ML-DSA keys.
const mlDSA = "ML_DSA_SHAKE_256"

// kmsSpec is what KMS knows of a key spec.
type kmsSpec struct {
	usage      string   // the usage a key has if nothing is said
	usages     []string // the usages it may have
	algorithms []string // for signing
	generate   func() (crypto.Signer, error)
}

// spec looks a key spec up. Specs whose keys nothing here can make are known, and
// refused by every operation that needs the key.
func (s KeySpec) spec() (kmsSpec, bool) {
	const sign, encrypt, agree = "SIGN_VERIFY", "ENCRYPT_DECRYPT", "KEY_AGREEMENT"
	curve := func(c elliptic.Curve) func() (crypto.Signer, error) {
		return func() (crypto.Signer, error) { return ecdsa.GenerateKey(c, rand.Reader) }
	}
	modulus := func(bits int) func() (crypto.Signer, error) {
		return func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, bits) }
	}
	lattice := func(p mldsa.Parameters) func() (crypto.Signer, error) {
		return func() (crypto.Signer, error) { return mldsa.GenerateKey(p) }
	}
	rsaAlgorithms := []string{
		"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512",
		"RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
	}
	switch s {
	case "ECC_NIST_P256":
		return kmsSpec{sign, []string{sign, agree}, []string{"ECDSA_SHA_256"}, curve(elliptic.P256())}, true
	case "ECC_NIST_P384":
		return kmsSpec{sign, []string{sign, agree}, []string{"ECDSA_SHA_384"}, curve(elliptic.P384())}, true
	case "ECC_NIST_P521":
		return kmsSpec{sign, []string{sign, agree}, []string{"ECDSA_SHA_512"}, curve(elliptic.P521())}, true
	case "RSA_2048":
		return kmsSpec{sign, []string{sign, encrypt}, rsaAlgorithms, modulus(2048)}, true
	case "RSA_3072":
		return kmsSpec{sign, []string{sign, encrypt}, rsaAlgorithms, modulus(3072)}, true
	case "RSA_4096":
		return kmsSpec{sign, []string{sign, encrypt}, rsaAlgorithms, modulus(4096)}, true
	case "ML_DSA_44":
		return kmsSpec{sign, []string{sign}, []string{mlDSA}, lattice(mldsa.MLDSA44())}, true
	case "ML_DSA_65":
		return kmsSpec{sign, []string{sign}, []string{mlDSA}, lattice(mldsa.MLDSA65())}, true
	case "ML_DSA_87":
		return kmsSpec{sign, []string{sign}, []string{mlDSA}, lattice(mldsa.MLDSA87())}, true
	case "ECC_SECG_P256K1":
		return kmsSpec{sign, []string{sign}, []string{"ECDSA_SHA_256"}, nil}, true
	case "ECC_NIST_EDWARDS25519":
		return kmsSpec{sign, []string{sign}, []string{"ED25519_SHA_512", "ED25519_PH_SHA_512"}, nil}, true
	case "SYMMETRIC_DEFAULT":
		return kmsSpec{encrypt, []string{encrypt}, nil, nil}, true
	case "HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512":
		return kmsSpec{"GENERATE_VERIFY_MAC", []string{"GENERATE_VERIFY_MAC"}, nil, nil}, true
	}
	return kmsSpec{}, false
}

// asymmetric tells whether keys of the spec have a public half.
func (s KeySpec) asymmetric() bool {
	return s != "SYMMETRIC_DEFAULT" && !strings.HasPrefix(string(s), "HMAC_")
}

// signingAlgorithms are those of the API's enumeration.
func signingAlgorithms() []string {
	return []string{
		"RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
		"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512",
		"ECDSA_SHA_256", "ECDSA_SHA_384", "ECDSA_SHA_512", "SM2DSA", mlDSA,
		"ED25519_SHA_512", "ED25519_PH_SHA_512",
	}
}

// hashOf is the hash that an RSA or ECDSA algorithm is named after.
func hashOf(algorithm string) crypto.Hash {
	switch {
	case strings.HasSuffix(algorithm, "_SHA_256"):
		return crypto.SHA256
	case strings.HasSuffix(algorithm, "_SHA_384"):
		return crypto.SHA384
	case strings.HasSuffix(algorithm, "_SHA_512"):
		return crypto.SHA512
	}
	panic("awstest: no hash in " + algorithm)
}

// representative is what is signed of a message by RSA and ECDSA, its digest, and
// by ML-DSA: mu, of FIPS 204 section 6.2 with an empty context. It is refused, with
// a reason, if type and length do not fit the key.
func (k *KMSKey) representative(algorithm, messageType string, message []byte) ([]byte, string) {
	incompatible := fmt.Sprintf("Message type %s is incompatible with key spec %s.", messageType, k.spec)
	if algorithm == mlDSA {
		switch messageType {
		case "RAW":
			return externalMu(k.Public().(*mldsa.PublicKey), message), ""
		case "EXTERNAL_MU":
			if len(message) != 64 {
				return nil, "EXTERNAL_MU is invalid length for algorithm " + algorithm + "."
			}
			return message, ""
		}
		return nil, incompatible
	}
	hash := hashOf(algorithm)
	switch messageType {
	case "RAW":
		h := hash.New()
		h.Write(message)
		return h.Sum(nil), ""
	case "DIGEST":
		if len(message) != hash.Size() {
			return nil, "Digest is invalid length for algorithm " + algorithm + "."
		}
		return message, ""
	}
	return nil, incompatible
}

// externalMu is mu of a message: SHAKE256(SHAKE256(pk, 64) || 0 || 0 || M, 64).
func externalMu(pub *mldsa.PublicKey, message []byte) []byte {
	h, mu := sha3.NewSHAKE256(), make([]byte, 64)
	_, _ = h.Write(sha3.SumSHAKE256(pub.Bytes(), 64))
	_, _ = h.Write([]byte{0, 0})
	_, _ = h.Write(message)
	_, _ = h.Read(mu)
	return mu
}

// sign signs a representative.
func (k *KMSKey) sign(algorithm string, representative []byte) []byte {
	var opts crypto.SignerOpts = mldsacrypto.MLDSAMu
	switch {
	case strings.HasPrefix(algorithm, "RSASSA_PSS_"):
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hashOf(algorithm)}
	case algorithm != mlDSA:
		opts = hashOf(algorithm)
	}
	signature, err := k.signer().Sign(rand.Reader, representative, opts)
	if err != nil {
		panic(fmt.Sprintf("awstest: %v", err)) // everything was checked
	}
	return signature
}

// verify tells whether a signature of a representative is right. Of ML-DSA it can
// tell only with the message itself.
func (k *KMSKey) verify(algorithm, messageType string, message, representative, signature []byte) (ok, able bool) {
	switch pub := k.Public().(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, representative, signature), true
	case *rsa.PublicKey:
		hash := hashOf(algorithm)
		if strings.HasPrefix(algorithm, "RSASSA_PSS_") {
			return rsa.VerifyPSS(pub, hash, representative, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil, true
		}
		return rsa.VerifyPKCS1v15(pub, hash, representative, signature) == nil, true
	case *mldsa.PublicKey:
		return mldsa.Verify(pub, message, signature, nil) == nil, messageType == "RAW"
	}
	return false, false
}

// fits tells whether the key signs by an algorithm.
func (k *KMSKey) fits(algorithm string) bool {
	s, _ := k.spec.spec()
	return slices.Contains(s.algorithms, algorithm)
}
