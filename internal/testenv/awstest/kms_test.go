package awstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"testing"
	"time"

	"filippo.io/mldsa"
	mldsax509 "filippo.io/mldsa/x509"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// kmsClient is a client of a role that may do everything IAM can let it, with one
// try.
func kmsClient(w *World, creds aws.Credentials, region string) *kms.Client {
	return kms.NewFromConfig(once(w.AWSConfig(creds, region)))
}

// signer is a client of a role of the account that may use KMS.
func signerOf(w *World, a *Account) *kms.Client {
	return kmsClient(w, a.Role("signer").Allow("kms:*").Session("assay"), testRegion)
}

func digestOf(b []byte) []byte { d := sha256.Sum256(b); return d[:] }

// TestKMSSignatures signs by every algorithm and checks it with the public key that
// GetPublicKey gives, by other code than that which signed.
func TestKMSSignatures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	c := signerOf(w, acct)
	message := []byte("DSSEv1 28 application/vnd.in-toto+json 2 {}")
	specs := []KeySpec{"ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "RSA_2048", "ML_DSA_44", "ML_DSA_65", "ML_DSA_87"}
	if !testing.Short() {
		specs = append(specs, "RSA_3072", "RSA_4096")
	}
	for _, spec := range specs {
		t.Run(string(spec), func(t *testing.T) {
			k := acct.Key(testRegion, spec)
			got, err := c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: aws.String(k.ID())})
			if err != nil {
				t.Fatal(err)
			}
			want(t, "key", aws.ToString(got.KeyId), k.ARN())
			want(t, "spec", got.KeySpec, types.KeySpec(spec))
			want(t, "usage", got.KeyUsage, types.KeyUsageTypeSignVerify)
			pub, err := mldsax509.ParsePKIXPublicKey(got.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			if !pub.(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Public()) {
				t.Error("GetPublicKey gives another key than Public")
			}
			for _, algorithm := range got.SigningAlgorithms {
				for _, kind := range []types.MessageType{"", types.MessageTypeRaw, types.MessageTypeDigest, types.MessageTypeExternalMu} {
					checkSignature(t, c, k, pub, algorithm, kind, message)
				}
			}
		})
	}
}

func checkSignature(t *testing.T, c *kms.Client, k *KMSKey, pub any, algorithm types.SigningAlgorithmSpec, kind types.MessageType, message []byte) {
	t.Helper()
	sent := message
	switch kind {
	case types.MessageTypeDigest:
		if algorithm == mlDSA {
			sent = make([]byte, 64)
			break
		}
		h := hashOf(string(algorithm)).New()
		h.Write(message)
		sent = h.Sum(nil)
	case types.MessageTypeExternalMu:
		sent = make([]byte, 64)
		if pub, ok := pub.(*mldsa.PublicKey); ok {
			sent = externalMu(pub, message)
		}
	}
	out, err := c.Sign(t.Context(), &kms.SignInput{KeyId: aws.String(k.ARN()), Message: sent, MessageType: kind, SigningAlgorithm: algorithm})
	if misfit := (kind == types.MessageTypeExternalMu) != (algorithm == mlDSA) && kind != "" && kind != types.MessageTypeRaw; misfit {
		wantCode(t, err, "ValidationException")
		return
	}
	if err != nil {
		t.Errorf("%s %s: %v", algorithm, kind, err)
		return
	}
	want(t, "key", aws.ToString(out.KeyId), k.ARN())
	want(t, "algorithm", out.SigningAlgorithm, algorithm)
	if !verifies(pub, algorithm, message, out.Signature) {
		t.Errorf("%s %s: the signature is wrong", algorithm, kind)
	}
	if kind == types.MessageTypeExternalMu {
		return
	}
	answer, err := c.Verify(t.Context(), &kms.VerifyInput{KeyId: aws.String(k.ARN()), Message: sent, MessageType: kind,
		SigningAlgorithm: algorithm, Signature: out.Signature})
	if err != nil || !answer.SignatureValid {
		t.Errorf("%s %s: Verify: %v", algorithm, kind, err)
	}
	out.Signature[len(out.Signature)-1] ^= 1
	_, err = c.Verify(t.Context(), &kms.VerifyInput{KeyId: aws.String(k.ARN()), Message: sent, MessageType: kind,
		SigningAlgorithm: algorithm, Signature: out.Signature})
	wantCode(t, err, "KMSInvalidSignatureException")
}

func verifies(pub any, algorithm types.SigningAlgorithmSpec, message, signature []byte) bool {
	d256, d384, d512 := sha256.Sum256(message), sha512.Sum384(message), sha512.Sum512(message)
	digest := map[crypto.Hash][]byte{crypto.SHA256: d256[:], crypto.SHA384: d384[:], crypto.SHA512: d512[:]}
	pss := func(h crypto.Hash) bool {
		return rsa.VerifyPSS(pub.(*rsa.PublicKey), h, digest[h], signature, &rsa.PSSOptions{SaltLength: h.Size()}) == nil
	}
	pkcs := func(h crypto.Hash) bool {
		return rsa.VerifyPKCS1v15(pub.(*rsa.PublicKey), h, digest[h], signature) == nil
	}
	ec := func(h crypto.Hash) bool { return ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), digest[h], signature) }
	switch algorithm {
	case types.SigningAlgorithmSpecEcdsaSha256:
		return ec(crypto.SHA256)
	case types.SigningAlgorithmSpecEcdsaSha384:
		return ec(crypto.SHA384)
	case types.SigningAlgorithmSpecEcdsaSha512:
		return ec(crypto.SHA512)
	case types.SigningAlgorithmSpecRsassaPssSha256:
		return pss(crypto.SHA256)
	case types.SigningAlgorithmSpecRsassaPssSha384:
		return pss(crypto.SHA384)
	case types.SigningAlgorithmSpecRsassaPssSha512:
		return pss(crypto.SHA512)
	case types.SigningAlgorithmSpecRsassaPkcs1V15Sha256:
		return pkcs(crypto.SHA256)
	case types.SigningAlgorithmSpecRsassaPkcs1V15Sha384:
		return pkcs(crypto.SHA384)
	case types.SigningAlgorithmSpecRsassaPkcs1V15Sha512:
		return pkcs(crypto.SHA512)
	case types.SigningAlgorithmSpecMlDsaShake256:
		return mldsa.Verify(pub.(*mldsa.PublicKey), message, signature, nil) == nil
	}
	return false
}

// TestKMSConstraints holds requests to the model and to the key.
func TestKMSConstraints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	c := signerOf(w, acct)
	ec, p384, pq := acct.Key(testRegion, "ECC_NIST_P256"), acct.Key(testRegion, "ECC_NIST_P384"), acct.Key(testRegion, "ML_DSA_65")
	oneRSA, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := acct.Key(testRegion, "RSA_2048", Material(oneRSA))
	const ecdsa256, ml = types.SigningAlgorithmSpecEcdsaSha256, types.SigningAlgorithmSpecMlDsaShake256
	long := make([]byte, 4097)
	for _, tt := range []struct {
		name    string
		key     string
		message []byte
		kind    types.MessageType
		alg     types.SigningAlgorithmSpec
		dry     bool
		code    string
	}{
		{"whole message", ec.ID(), long[:4096], "", ecdsa256, false, ""},
		{"empty message", ec.ID(), []byte{}, "", ecdsa256, false, ""},
		{"long message", ec.ID(), long, "", ecdsa256, false, "ValidationException"},
		{"digest", ec.ID(), long[:32], "DIGEST", ecdsa256, false, ""},
		{"short digest", ec.ID(), long[:31], "DIGEST", ecdsa256, false, "ValidationException"},
		{"long digest", ec.ID(), long[:48], "DIGEST", ecdsa256, false, "ValidationException"},
		{"digest of another algorithm", p384.ID(), long[:32], "DIGEST", types.SigningAlgorithmSpecEcdsaSha384, false, "ValidationException"},
		{"digest for RSA", rsaKey.ID(), long[:48], "DIGEST", types.SigningAlgorithmSpecRsassaPssSha256, false, "ValidationException"},
		{"mu for ECDSA", ec.ID(), long[:64], "EXTERNAL_MU", ecdsa256, false, "ValidationException"},
		{"digest for ML-DSA", pq.ID(), long[:64], "DIGEST", ml, false, "ValidationException"},
		{"mu", pq.ID(), long[:64], "EXTERNAL_MU", ml, false, ""},
		{"short mu", pq.ID(), long[:63], "EXTERNAL_MU", ml, false, "ValidationException"},
		{"long mu", pq.ID(), long[:65], "EXTERNAL_MU", ml, false, "ValidationException"},
		{"unknown type", ec.ID(), long[:32], "HASH", ecdsa256, false, "ValidationException"},
		{"unknown algorithm", ec.ID(), long[:32], "", "ECDSA_SHA_1", false, "ValidationException"},
		{"algorithm of another key", ec.ID(), long[:32], "", ml, false, "InvalidKeyUsageException"},
		{"hash of another curve", ec.ID(), long[:48], "DIGEST", types.SigningAlgorithmSpecEcdsaSha384, false, "InvalidKeyUsageException"},
		{"dry run", ec.ID(), long[:32], "DIGEST", ecdsa256, true, "DryRunOperationException"},
		{"dry run of what fails", ec.ID(), long[:31], "DIGEST", ecdsa256, true, "ValidationException"},
		{"encryption key", acct.Key(testRegion, "RSA_2048", Material(oneRSA), Usage("ENCRYPT_DECRYPT")).ID(), long[:32], "", "RSASSA_PSS_SHA_256", false, "InvalidKeyUsageException"},
		{"MAC key", acct.Key(testRegion, "HMAC_256").ID(), long[:32], "", ecdsa256, false, "InvalidKeyUsageException"},
		{"symmetric key", acct.Key(testRegion, "SYMMETRIC_DEFAULT").ID(), long[:32], "", ecdsa256, false, "InvalidKeyUsageException"},
		{"curve that is known by name", acct.Key(testRegion, "ECC_SECG_P256K1").ID(), long[:32], "", ecdsa256, false, "UnsupportedOperationException"},
		{"no key id", "key", long[:32], "", ecdsa256, false, "NotFoundException"},
		{"empty key id", "", long[:32], "", ecdsa256, false, "ValidationException"},
		{"unknown key", "1234abcd-12ab-34cd-56ef-1234567890ab", long[:32], "", ecdsa256, false, "NotFoundException"},
		{"unknown alias", "alias/none", long[:32], "", ecdsa256, false, "NotFoundException"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := c.Sign(t.Context(), &kms.SignInput{KeyId: aws.String(tt.key), Message: tt.message, MessageType: tt.kind, SigningAlgorithm: tt.alg, DryRun: aws.Bool(tt.dry)})
			if tt.code == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantCode(t, err, tt.code)
		})
	}
}

// TestKMSKeyStates uses keys in every state.
func TestKMSKeyStates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	c := signerOf(w, acct)
	k := acct.Key(testRegion, "ECC_NIST_P256")
	for state, code := range map[string]string{
		"Enabled": "", "Updating": "", "Disabled": "DisabledException", "PendingDeletion": "KMSInvalidStateException",
		"PendingReplicaDeletion": "KMSInvalidStateException", "PendingImport": "KMSInvalidStateException",
		"Creating": "KMSInvalidStateException", "Unavailable": "KeyUnavailableException",
	} {
		k.SetState(state)
		_, err := c.Sign(t.Context(), &kms.SignInput{KeyId: aws.String(k.ID()), Message: digestOf(nil), MessageType: "DIGEST", SigningAlgorithm: "ECDSA_SHA_256"})
		_, getErr := c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: aws.String(k.ID())})
		if code == "" {
			if err != nil || getErr != nil {
				t.Errorf("%s: %v, %v", state, err, getErr)
			}
		} else {
			wantCode(t, err, code)
			wantCode(t, getErr, code)
		}
		out, err := c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String(k.ID())})
		if err != nil {
			t.Fatal(err)
		}
		want(t, "state", string(out.KeyMetadata.KeyState), state)
		want(t, "enabled", out.KeyMetadata.Enabled, state == "Enabled")
	}
}

// TestKMSAliases changes where an alias leads, and asks before and after it is seen.
func TestKMSAliases(t *testing.T) {
	t.Parallel()
	w, clk := newTurnedWorld(t)
	acct := w.Account(testAccount)
	c := signerOf(w, acct)
	one, two := acct.Key(testRegion, "ECC_NIST_P256"), acct.Key(testRegion, "ECC_NIST_P256")
	acct.Alias(testRegion, "alias/assay/attestation", one)
	target := func() string {
		t.Helper()
		out, err := c.Sign(t.Context(), &kms.SignInput{KeyId: aws.String("alias/assay/attestation"), Message: digestOf(nil), MessageType: "DIGEST", SigningAlgorithm: "ECDSA_SHA_256"})
		if err != nil {
			t.Fatal(err)
		}
		pub, err := c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: aws.String(acct.arn("kms", testRegion, "alias/assay/attestation"))})
		if err != nil {
			t.Fatal(err)
		}
		list, err := c.ListAliases(t.Context(), &kms.ListAliasesInput{})
		if err != nil || len(list.Aliases) != 1 {
			t.Fatal(list, err)
		}
		want(t, "GetPublicKey", aws.ToString(pub.KeyId), aws.ToString(out.KeyId))
		want(t, "ListAliases", acct.arn("kms", testRegion, "key/"+aws.ToString(list.Aliases[0].TargetKeyId)), aws.ToString(out.KeyId))
		return aws.ToString(out.KeyId)
	}
	want(t, "at first", target(), one.ARN())
	w.PropagateKMS(10 * time.Second)
	if _, err := c.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: aws.String("alias/assay/attestation"), TargetKeyId: aws.String(two.ID())}); err != nil {
		t.Fatal(err)
	}
	want(t, "at once", target(), one.ARN())
	clk.add(9 * time.Second)
	want(t, "still", target(), one.ARN())
	clk.add(time.Second)
	want(t, "at last", target(), two.ARN())
	w.PropagateKMS(0)
	acct.UpdateAlias(testRegion, "alias/assay/attestation", one)
	want(t, "back", target(), one.ARN())

	for _, tt := range []struct{ alias, key, code string }{
		{"alias/none", two.ID(), "NotFoundException"},
		{"assay", two.ID(), "ValidationException"},
		{"alias/aws/s3", two.ID(), "ValidationException"},
		{"alias/assay/attestation", "alias/assay/attestation", "NotFoundException"},
		{"alias/assay/attestation", acct.Key(testRegion, "HMAC_256").ID(), "ValidationException"},
		{"alias/assay/attestation", acct.Key(testRegion, "ECC_NIST_P256").SetState("PendingDeletion").ID(), "KMSInvalidStateException"},
		{"alias/assay/attestation", w.Account(otherAccount).Key(testRegion, "ECC_NIST_P256").AllowPolicy("*", "kms:*").ARN(), "AccessDeniedException"},
	} {
		_, err := c.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: aws.String(tt.alias), TargetKeyId: aws.String(tt.key)})
		wantCode(t, err, tt.code)
	}
	nobody := kmsClient(w, acct.Role("nobody").AllowOn("kms:UpdateAlias", acct.arn("kms", testRegion, "alias/*"), one.ARN()).Session("s"), testRegion)
	_, err := nobody.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: aws.String("alias/assay/attestation"), TargetKeyId: aws.String(two.ID())})
	wantCode(t, err, "AccessDeniedException")
}
