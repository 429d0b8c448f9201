package awskms

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/hex"
	"fmt"
	"log/slog"

	"filippo.io/mldsa"
	mldsax509 "filippo.io/mldsa/x509"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeWrongKey: KMS answered for another key than it was asked for.
	CodeWrongKey refusal.Code = "KMS_WRONG_KEY"
	// CodeWrongAlgorithm: KMS signed by another algorithm than it was asked for.
	CodeWrongAlgorithm refusal.Code = "KMS_WRONG_ALGORITHM"
	// CodeSignatureInvalid: the signature does not verify under the public key.
	CodeSignatureInvalid refusal.Code = "KMS_SIGNATURE_INVALID"
	// CodeDigestLength refuses to sign anything but a digest of the key's hash.
	CodeDigestLength refusal.Code = "DIGEST_LENGTH_INVALID"
)

// identity is what a key is: one ARN, one public key, one algorithm.
type identity struct {
	s         *Service
	client    *kms.Client
	circuit   *circuit
	arn, id   string
	algorithm types.SigningAlgorithmSpec
}

// open asks nobody: that ARN and public key belong together shows with the first
// signature, and in every other.
func (s *Service) open(arn string, pub crypto.PublicKey) (*identity, error) {
	ref, err := parseARN(arn)
	if err != nil {
		return nil, err
	}
	_, algorithm, err := specOf(pub)
	if err != nil {
		return nil, err
	}
	spki, err := mldsax509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, refusal.New(CodeKeyUnsupported, "the public key of %s cannot be encoded: %w", arn, err)
	}
	sum := sha256.Sum256(spki)
	return &identity{
		s: s, client: s.client(ref.Region), circuit: s.circuit(arn),
		arn: arn, id: hex.EncodeToString(sum[:]), algorithm: algorithm,
	}, nil
}

// KeyID returns the lower-case hex SHA-256 of the DER SubjectPublicKeyInfo.
func (k *identity) KeyID() string { return k.id }

// ARN returns the key's name at KMS.
func (k *identity) ARN() string { return k.arn }

// String returns the key's id and ARN.
func (k *identity) String() string { return "KMS key " + k.id + " (" + k.arn + ")" }

// LogValue is what a log says of the key.
func (k *identity) LogValue() slog.Value {
	return slog.GroupValue(slog.String("key_id", k.id), slog.String("arn", k.arn), slog.String("algorithm", string(k.algorithm)))
}

// sign has KMS sign and returns what verifies.
func (k *identity) sign(ctx context.Context, kind types.MessageType, message []byte, verifies func(sig []byte) bool) ([]byte, error) {
	var out *kms.SignOutput
	err := k.s.do(ctx, k.circuit, "key "+k.id, func(ctx context.Context) (err error) {
		out, err = k.client.Sign(ctx, &kms.SignInput{
			KeyId: aws.String(k.arn), Message: message, MessageType: kind, SigningAlgorithm: k.algorithm,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := k.check(out, verifies); err != nil {
		k.s.log.ErrorContext(ctx, "signature of KMS refused", "key", k, "code", string(refusal.CodeOf(err)), "error", err.Error())
		return nil, err
	}
	return out.Signature, nil
}

// check believes nothing of what KMS, or whoever answers in its place, says.
func (k *identity) check(out *kms.SignOutput, verifies func(sig []byte) bool) error {
	switch arn := aws.ToString(out.KeyId); {
	case arn == "" || out.SigningAlgorithm == "" || len(out.Signature) == 0:
		return refusal.New(CodeAnswerInvalid, "key %s: KMS answered without key id, algorithm or signature", k.id)
	case arn != k.arn:
		return refusal.New(CodeWrongKey, "key %s: KMS says that another key signed", k.id)
	case out.SigningAlgorithm != k.algorithm:
		return refusal.New(CodeWrongAlgorithm, "key %s: KMS signed by %.64q, want %s", k.id, string(out.SigningAlgorithm), k.algorithm)
	case !verifies(out.Signature):
		return refusal.New(CodeSignatureInvalid, "key %s: the %d bytes that KMS returned are no signature by its public key", k.id, len(out.Signature))
	}
	return nil
}

// Key signs digests with one ECDSA or RSA key of KMS. It is safe for concurrent use.
type Key struct {
	*identity
	pub  crypto.PublicKey
	hash crypto.Hash
}

// Open makes a key of what Resolve returned, now or long ago. It asks KMS nothing.
func (s *Service) Open(arn string, pub crypto.PublicKey) (*Key, error) {
	if _, ok := pub.(*mldsa.PublicKey); ok {
		return nil, refusal.New(CodeKeyUnsupported, "an ML-DSA key signs messages and no digests: OpenMLDSA")
	}
	k, err := s.open(arn, pub)
	if err != nil {
		return nil, err
	}
	hash, err := attest.SignatureHash(pub)
	if err != nil {
		return nil, refusal.New(CodeKeyUnsupported, "%w", err)
	}
	return &Key{identity: k, pub: pub, hash: hash}, nil
}

// Public returns the *ecdsa.PublicKey or *rsa.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.pub }

// Sign returns a signature over a digest of attest.SignatureHash.
func (k *Key) Sign(ctx context.Context, digest []byte) ([]byte, error) {
	if len(digest) != k.hash.Size() {
		return nil, refusal.New(CodeDigestLength, "digest has %d bytes; key %s signs those of %s, of %d", len(digest), k.id, k.hash, k.hash.Size())
	}
	return k.sign(ctx, types.MessageTypeDigest, digest, func(sig []byte) bool {
		return attest.VerifySignature(k.pub, digest, sig)
	})
}

// MLDSAKey signs messages with one ML-DSA-65 key of KMS. It is safe for concurrent
// use.
type MLDSAKey struct {
	*identity
	pub *mldsa.PublicKey
	tr  []byte // FIPS 204: the hash of the public key, with which mu begins
}

const (
	trBytes = 64
	muBytes = 64
)

// OpenMLDSA is Open for ML-DSA-65.
func (s *Service) OpenMLDSA(arn string, pub *mldsa.PublicKey) (*MLDSAKey, error) {
	k, err := s.open(arn, pub)
	if err != nil {
		return nil, err
	}
	return &MLDSAKey{identity: k, pub: pub, tr: sha3.SumSHAKE256(pub.Bytes(), trBytes)}, nil
}

// PublicKey returns the public key.
func (k *MLDSAKey) PublicKey() *mldsa.PublicKey { return k.pub }

// SignMessage returns a pure ML-DSA-65 signature with the empty context over message.
// KMS is given the message representative mu, and so messages may be of any length.
func (k *MLDSAKey) SignMessage(ctx context.Context, message []byte) ([]byte, error) {
	return k.sign(ctx, types.MessageTypeExternalMu, k.mu(message), func(sig []byte) bool {
		return mldsa.Verify(k.pub, message, sig, nil) == nil
	})
}

// mu is FIPS 204, algorithm 2 line 10 and algorithm 7 line 6: SHAKE256(tr || 0 ||
// |ctx| || ctx || M, 64), with 0 for pure signatures and an empty context.
func (k *MLDSAKey) mu(message []byte) []byte {
	h := sha3.NewSHAKE256()
	for _, part := range [...][]byte{k.tr, {0, 0}, message} {
		_, _ = h.Write(part) // never fails
	}
	mu := make([]byte, muBytes)
	_, _ = h.Read(mu)
	return mu
}

// specOf returns KMS's word for keys like pub, and the one algorithm that we have
// such keys sign by.
func specOf(pub crypto.PublicKey) (types.KeySpec, types.SigningAlgorithmSpec, error) {
	if key, ok := pub.(*mldsa.PublicKey); ok {
		if key == nil || key.Parameters() != mldsa.MLDSA65() {
			return "", "", refusal.New(CodeKeyUnsupported, "an ML-DSA key must be ML-DSA-65")
		}
		return types.KeySpecMlDsa65, types.SigningAlgorithmSpecMlDsaShake256, nil
	}
	hash, err := attest.SignatureHash(pub)
	if err != nil {
		return "", "", refusal.New(CodeKeyUnsupported, "%w", err)
	}
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		if hash == crypto.SHA384 {
			return types.KeySpecEccNistP384, types.SigningAlgorithmSpecEcdsaSha384, nil
		}
		return types.KeySpecEccNistP256, types.SigningAlgorithmSpecEcdsaSha256, nil
	case *rsa.PublicKey:
		switch bits := key.N.BitLen(); bits {
		case 2048, 3072, 4096:
			return types.KeySpec(fmt.Sprintf("RSA_%d", bits)), types.SigningAlgorithmSpecRsassaPssSha256, nil
		}
	}
	return "", "", refusal.New(CodeKeyUnsupported, "KMS has no keys like this %T", pub)
}
