package awstest

import (
	"crypto/ecdsa"
	"slices"
)

// KMSFault is a dishonest answer of KMS: of a service that was broken into, or of
// somebody who answers in its place. What is refused stays refused.
type KMSFault struct {
	Action string // "Sign", "GetPublicKey"; empty: both
	Times  int    // how often it strikes; 0: until ClearFaults

	// WrongKey answers with the signature, or the public key, of another key of the
	// same spec.
	WrongKey *KMSKey
	// WrongKeyID is said to be the key.
	WrongKeyID string
	// WrongAlgorithm is said to be the signature's algorithm. Where the key has it,
	// as another of RSA, the signature is by it.
	WrongAlgorithm string
	// FlipBit changes a bit of the signature or public key, Truncate leaves its last
	// byte out.
	FlipBit  bool
	Truncate bool
	// BER writes the outer length in more bytes than DER allows, of an ECDSA
	// signature or a public key: ASN.1 that means the same.
	BER bool
}

// Fault makes KMS answer dishonestly about the key. Of several faults that fit, the
// oldest strikes.
func (k *KMSKey) Fault(f KMSFault) *KMSKey {
	if f.WrongKey != nil && f.WrongKey.spec != k.spec {
		panic("awstest: the wrong key is of another spec")
	}
	k.store().mu.Lock()
	defer k.store().mu.Unlock()
	if f.Times == 0 {
		f.Times = -1
	}
	k.faults = append(k.faults, &f)
	return k
}

// ClearFaults makes KMS honest about the key again.
func (k *KMSKey) ClearFaults() {
	k.store().mu.Lock()
	defer k.store().mu.Unlock()
	k.faults = nil
}

func (k *KMSKey) takeFault(action string) *KMSFault {
	k.store().mu.Lock()
	defer k.store().mu.Unlock()
	for i, f := range k.faults {
		if f.Action != "" && f.Action != action {
			continue
		}
		taken := *f
		if f.Times--; f.Times == 0 {
			k.faults = slices.Delete(k.faults, i, i+1)
		}
		return &taken
	}
	return nil
}

// sign is the answer to Sign.
func (f *KMSFault) sign(k *KMSKey, out signAnswer, representative []byte) signAnswer {
	signer, by := k, out.SigningAlgorithm
	if f.WrongKey != nil {
		signer = f.WrongKey
	}
	if f.WrongAlgorithm != "" {
		out.SigningAlgorithm = f.WrongAlgorithm
		if k.fits(f.WrongAlgorithm) && hashOf(f.WrongAlgorithm) == hashOf(by) {
			by = f.WrongAlgorithm
		}
	}
	if f.WrongKeyID != "" {
		out.KeyId = f.WrongKeyID
	}
	out.Signature = signer.sign(by, representative)
	if _, ok := k.Public().(*ecdsa.PublicKey); ok || !f.BER {
		out.Signature = f.spoil(out.Signature)
	} else {
		panic("awstest: only a signature of ECDSA is ASN.1")
	}
	return out
}

// publicKey changes the answer to GetPublicKey.
func (f *KMSFault) publicKey(out *publicKeyAnswer) {
	if f.WrongKey != nil {
		out.PublicKey = f.WrongKey.publicKeyAnswer().PublicKey
	}
	if f.WrongKeyID != "" {
		out.KeyId = f.WrongKeyID
	}
	if f.WrongAlgorithm != "" {
		out.SigningAlgorithms = []string{f.WrongAlgorithm}
	}
	out.PublicKey = f.spoil(out.PublicKey)
}

// spoil changes bytes as the fault says.
func (f *KMSFault) spoil(b []byte) []byte {
	b = slices.Clone(b)
	if f.FlipBit {
		b[len(b)-1] ^= 1
	}
	if f.Truncate {
		b = b[:len(b)-1]
	}
	if f.BER {
		b = longLength(b)
	}
	return b
}

// longLength writes the length of an ASN.1 value in one byte more than is needed.
func longLength(der []byte) []byte {
	if der[1] < 0x80 {
		return append([]byte{der[0], 0x81, der[1]}, der[2:]...)
	}
	n := der[1] & 0x7f
	return append([]byte{der[0], 0x80 | (n + 1), 0}, der[2:]...)
}
