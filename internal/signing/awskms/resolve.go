package awskms

import (
	"bytes"
	"context"
	"crypto"
	"slices"

	mldsax509 "filippo.io/mldsa/x509"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/assay-build/assay/internal/refusal"
)

// Resolved is what a reference means.
type Resolved struct {
	// ARN names the key for good.
	ARN string
	// Alias is the reference, if it is one to an alias.
	Alias string
	// Public is an *ecdsa.PublicKey, *rsa.PublicKey or *mldsa.PublicKey.
	Public crypto.PublicKey
	// SPKI is the DER SubjectPublicKeyInfo of Public.
	SPKI []byte
	// Spec is KMS's word for the kind of key: ECC_NIST_P256.
	Spec string
}

// Resolve asks KMS what ref means now: which key, with which public key. It refuses
// keys that cannot sign, or that this package would not sign with.
func (s *Service) Resolve(ctx context.Context, ref string) (Resolved, error) {
	r, err := ParseRef(ref)
	if err != nil {
		return Resolved{}, err
	}
	region := r.Region
	if region == "" {
		region = s.region
	}
	if region == "" {
		return Resolved{}, badRef(ref, "it names no region, and none is configured")
	}
	var found Resolved
	err = s.do(ctx, nil, ref, func(ctx context.Context) error {
		client := s.client(region)
		described, err := client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String(r.ID())})
		if err != nil {
			return err
		}
		arn, spec, err := r.checkDescribed(region, described.KeyMetadata)
		if err != nil {
			return err
		}
		// By ARN: an alias may be pointed elsewhere between the two calls.
		key, err := client.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String(arn)})
		if err != nil {
			return err
		}
		found, err = checkPublic(ref, arn, spec, key)
		return err
	})
	if err != nil {
		return Resolved{}, err
	}
	if r.Alias != "" {
		found.Alias = ref
	}
	return found, nil
}

// checkDescribed returns the ARN and spec of a key that may sign.
func (r Ref) checkDescribed(region string, key *types.KeyMetadata) (string, types.KeySpec, error) {
	if key == nil {
		return "", "", refusal.New(CodeAnswerInvalid, "%s: KMS describes no key", r)
	}
	arn := aws.ToString(key.Arn)
	got, err := parseARN(arn)
	if err != nil || got.Key != aws.ToString(key.KeyId) || key.AWSAccountId != nil && *key.AWSAccountId != got.Account {
		return "", "", refusal.New(CodeAnswerInvalid, "%s: KMS describes a key whose ARN is %.300q", r, arn)
	}
	// An alias and its key are in one account and region.
	if got.Region != region || r.Account != "" && got.Account != r.Account || r.Key != "" && got.Key != r.Key {
		return "", "", refusal.New(CodeWrongKey, "%s: KMS describes %s, which is another key", r, arn)
	}
	if key.KeyUsage != types.KeyUsageTypeSignVerify {
		return "", "", refusal.New(CodeKeyUnusable, "%s: the key's usage is %.64q, want %s", r, string(key.KeyUsage), types.KeyUsageTypeSignVerify)
	}
	if key.KeyState != types.KeyStateEnabled || !key.Enabled {
		return "", "", refusal.New(CodeKeyUnusable, "%s: the key's state is %.64q, want %s", r, string(key.KeyState), types.KeyStateEnabled)
	}
	return arn, key.KeySpec, checkSpec(r, key.KeySpec)
}

// checkSpec refuses early, and in KMS's own words, what specOf would refuse.
func checkSpec(r Ref, spec types.KeySpec) error {
	supported := []types.KeySpec{
		types.KeySpecEccNistP256, types.KeySpecEccNistP384,
		types.KeySpecRsa2048, types.KeySpecRsa3072, types.KeySpecRsa4096, types.KeySpecMlDsa65,
	}
	if !slices.Contains(supported, spec) {
		return refusal.New(CodeKeyUnsupported, "%s: the key's spec is %.64q, want one of %v", r, string(spec), supported)
	}
	return nil
}

// checkPublic returns the key whose ARN and spec are known, with its public half.
func checkPublic(ref, arn string, spec types.KeySpec, key *kms.GetPublicKeyOutput) (Resolved, error) {
	if got := aws.ToString(key.KeyId); got != arn {
		return Resolved{}, refusal.New(CodeWrongKey, "%s: KMS returned the public key of %.300q, want that of %s", ref, got, arn)
	}
	pub, err := mldsax509.ParsePKIXPublicKey(key.PublicKey)
	if err != nil {
		return Resolved{}, refusal.New(CodeAnswerInvalid, "%s: KMS returned a public key that cannot be read: %w", ref, err)
	}
	// The key's id is the hash of these bytes, so there must be no second spelling.
	if der, err := mldsax509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Equal(der, key.PublicKey) {
		return Resolved{}, refusal.New(CodeAnswerInvalid, "%s: KMS returned a public key in an unusual encoding", ref)
	}
	is, algorithm, err := specOf(pub)
	if err != nil || is != spec || key.KeySpec != spec || key.KeyUsage != types.KeyUsageTypeSignVerify {
		return Resolved{}, refusal.New(CodeAnswerInvalid, "%s: KMS describes a key of spec %s and returned the public key of another", ref, spec)
	}
	if !slices.Contains(key.SigningAlgorithms, algorithm) {
		return Resolved{}, refusal.New(CodeKeyUnsupported, "%s: the key signs by %.300q, want %s", ref, key.SigningAlgorithms, algorithm)
	}
	return Resolved{ARN: arn, Public: pub, SPKI: key.PublicKey, Spec: string(spec)}, nil
}
