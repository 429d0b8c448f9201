package awskms

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

// TestReplica tells a key from its replica of the same id in another region.
func TestReplica(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	primary := e.account.Key("us-east-1", "ECC_NIST_P256", awstest.MultiRegion())
	replica := primary.Replicate(testRegion)
	found, err := e.kms.Resolve(t.Context(), "awskms:///"+replica.ID())
	if err != nil || found.ARN != replica.ARN() {
		t.Fatalf("%+v, %v", found, err)
	}
	k, err := e.kms.Open(found.ARN, found.Public)
	if err != nil {
		t.Fatal(err)
	}
	if err := sign(t, k); err != nil {
		t.Error(err)
	}
	replica.Fault(awstest.KMSFault{Action: "Sign", WrongKeyID: primary.ARN()})
	wantCode(t, sign(t, k), CodeWrongKey)
}

// TestAliasFlip points an alias elsewhere behind the back of an open key.
func TestAliasFlip(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	old, next := e.account.Key(testRegion, "ECC_NIST_P256"), e.account.Key(testRegion, "ECC_NIST_P384")
	e.account.Alias(testRegion, "alias/assay", old)
	const ref = "awskms:///alias/assay"
	found, err := e.kms.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	k, err := e.kms.Open(found.ARN, found.Public)
	if err != nil {
		t.Fatal(err)
	}
	e.account.UpdateAlias(testRegion, "alias/assay", next)
	if err := sign(t, k); err != nil {
		t.Errorf("the open key: %v", err)
	}
	after, err := e.kms.Resolve(t.Context(), ref)
	if err != nil || after.ARN != next.ARN() || after.Alias != ref || after.Spec != "ECC_NIST_P384" {
		t.Errorf("%+v, %v", after, err)
	}
	old.SetState("Disabled")
	wantCode(t, sign(t, k), CodeKeyUnusable)
	// An alias to a key of elsewhere cannot be, so an answer that says so is a lie.
	e.world.Fail(awstest.Fault{Service: "kms", Action: "DescribeKey", Times: 1, Body: describe("us-east-1", testUUID)})
	_, err = e.kms.Resolve(t.Context(), ref)
	wantCode(t, err, CodeWrongKey)
}

func describe(region, id string) []byte {
	return fmt.Appendf(nil, `{"KeyMetadata":{"Arn":"arn:aws:kms:%s:%s:key/%s","KeyId":"%s","Enabled":true,"KeyState":"Enabled","KeyUsage":"SIGN_VERIFY","KeySpec":"ECC_NIST_P256"}}`, region, testAccount, id, id)
}

// TestResolveRefuses has keys that cannot sign, or not for us.
func TestResolveRefuses(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	resolve := func(name, ref string, want refusal.Code) {
		t.Helper()
		found, err := e.kms.Resolve(t.Context(), ref)
		if refusal.CodeOf(err) != want || found.ARN != "" || found.Public != nil {
			t.Errorf("%s: %+v, %v; want %s", name, found, err, want)
		}
	}
	for _, spec := range []awstest.KeySpec{"ECC_NIST_P521", "ECC_SECG_P256K1", "ECC_NIST_EDWARDS25519", "ML_DSA_44", "ML_DSA_87"} {
		resolve(string(spec), "awskms:///"+e.account.Key(testRegion, spec).ARN(), CodeKeyUnsupported)
	}
	resolve("encryption", "awskms:///"+e.account.Key(testRegion, "RSA_2048", awstest.Usage("ENCRYPT_DECRYPT")).ARN(), CodeKeyUnusable)
	resolve("agreement", "awskms:///"+e.account.Key(testRegion, "ECC_NIST_P256", awstest.Usage("KEY_AGREEMENT")).ARN(), CodeKeyUnusable)
	resolve("symmetric", "awskms:///"+e.account.Key(testRegion, "SYMMETRIC_DEFAULT").ARN(), CodeKeyUnusable)
	resolve("HMAC", "awskms:///"+e.account.Key(testRegion, "HMAC_256").ARN(), CodeKeyUnusable)
	for _, state := range []string{"Disabled", "PendingDeletion", "PendingReplicaDeletion", "PendingImport", "Unavailable", "Creating", "Updating"} {
		resolve(state, "awskms:///"+e.account.Key(testRegion, "ECC_NIST_P256").SetState(state).ARN(), CodeKeyUnusable)
	}
	resolve("a missing key", "awskms:///"+testUUID, CodeKeyNotFound)
	resolve("a missing alias", "awskms:///alias/nobody", CodeKeyNotFound)
	resolve("another account", "awskms:///arn:aws:kms:eu-west-1:444455556666:key/"+testUUID, CodeAccessDenied)
	resolve("no reference", "kms", CodeKeyRefInvalid)
	resolve("a host", "awskms://127.0.0.1/alias/a", CodeKeyRefInvalid)

	nowhere := newEnvIn(t, "aws", "")
	_, err := nowhere.kms.Resolve(t.Context(), "awskms:///alias/a")
	wantCode(t, err, CodeKeyRefInvalid)
}

// TestResolveLies has KMS answer what cannot be.
func TestResolveLies(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	at, other := e.account.Key(testRegion, "ECC_NIST_P256"), e.account.Key(testRegion, "ECC_NIST_P256")
	p384, rsaKey := e.account.Key(testRegion, "ECC_NIST_P384"), e.account.Key(testRegion, "RSA_2048")
	der := func(k *awstest.KMSKey) string { return base64Of(spkiOf(t, k.Public())) }
	public := func(arn, spec, usage, key string) []byte {
		return fmt.Appendf(nil, `{"KeyId":"%s","KeySpec":"%s","KeyUsage":"%s","PublicKey":"%s","SigningAlgorithms":["ECDSA_SHA_256"]}`, arn, spec, usage, key)
	}
	for name, c := range map[string]struct {
		fault    awstest.KMSFault
		from     *awstest.KMSKey
		describe []byte
		public   []byte
		want     refusal.Code
	}{
		"another key id":       {from: at, fault: awstest.KMSFault{WrongKeyID: other.ARN()}, want: CodeWrongKey},
		"no key id":            {from: at, public: public("", "ECC_NIST_P256", "SIGN_VERIFY", der(at)), want: CodeWrongKey},
		"a bit of a point":     {from: at, fault: awstest.KMSFault{FlipBit: true}, want: CodeAnswerInvalid},
		"a truncated key":      {from: at, fault: awstest.KMSFault{Truncate: true}, want: CodeAnswerInvalid},
		"a truncated RSA key":  {from: rsaKey, fault: awstest.KMSFault{Truncate: true}, want: CodeAnswerInvalid},
		"BER":                  {from: at, fault: awstest.KMSFault{BER: true}, want: CodeAnswerInvalid},
		"another algorithm":    {from: rsaKey, fault: awstest.KMSFault{WrongAlgorithm: "RSASSA_PKCS1_V1_5_SHA_256"}, want: CodeKeyUnsupported},
		"a key of P-384":       {from: at, public: public(at.ARN(), "ECC_NIST_P256", "SIGN_VERIFY", der(p384)), want: CodeAnswerInvalid},
		"a key of RSA":         {from: at, public: public(at.ARN(), "ECC_NIST_P256", "SIGN_VERIFY", der(rsaKey)), want: CodeAnswerInvalid},
		"another spec":         {from: at, public: public(at.ARN(), "ECC_NIST_P384", "SIGN_VERIFY", der(at)), want: CodeAnswerInvalid},
		"another usage":        {from: at, public: public(at.ARN(), "ECC_NIST_P256", "ENCRYPT_DECRYPT", der(at)), want: CodeAnswerInvalid},
		"no public key":        {from: at, public: public(at.ARN(), "ECC_NIST_P256", "SIGN_VERIFY", ""), want: CodeAnswerInvalid},
		"nothing":              {from: at, public: []byte(`{}`), want: CodeWrongKey},
		"no metadata":          {from: at, describe: []byte(`{}`), want: CodeAnswerInvalid},
		"no ARN":               {from: at, describe: []byte(`{"KeyMetadata":{"KeyId":"` + at.ID() + `"}}`), want: CodeAnswerInvalid},
		"an alias as ARN":      {from: at, describe: []byte(`{"KeyMetadata":{"Arn":"arn:aws:kms:eu-west-1:111122223333:alias/a","KeyId":""}}`), want: CodeAnswerInvalid},
		"an id of another ARN": {from: at, describe: bytes.Replace(describe(testRegion, at.ID()), []byte(`"KeyId":"`), []byte(`"KeyId":"x`), 1), want: CodeAnswerInvalid},
		"another account": {from: at, describe: bytes.Replace(describe(testRegion, at.ID()), []byte(`"KeyState"`),
			[]byte(`"AWSAccountId":"444455556666","KeyState"`), 1), want: CodeAnswerInvalid},
		"a key of elsewhere":   {from: at, describe: describe("us-east-1", at.ID()), want: CodeWrongKey},
		"another key":          {from: at, describe: describe(testRegion, other.ID()), want: CodeWrongKey},
		"enabled, or not":      {from: at, describe: bytes.Replace(describe(testRegion, at.ID()), []byte("true"), []byte("false"), 1), want: CodeKeyUnusable},
		"a spec in small type": {from: at, describe: bytes.Replace(describe(testRegion, at.ID()), []byte("ECC"), []byte("ecc"), 1), want: CodeKeyUnsupported},
	} {
		e.world.Heal()
		c.from.ClearFaults()
		if c.fault != (awstest.KMSFault{}) {
			c.fault.Action = "GetPublicKey"
			c.from.Fault(c.fault)
		}
		if c.describe != nil {
			e.world.Fail(awstest.Fault{Service: "kms", Action: "DescribeKey", Body: c.describe})
		}
		if c.public != nil {
			e.world.Fail(awstest.Fault{Service: "kms", Action: "GetPublicKey", Body: c.public})
		}
		found, err := e.kms.Resolve(t.Context(), "awskms:///"+c.from.ARN())
		if refusal.CodeOf(err) != c.want || found.ARN != "" || found.Public != nil {
			t.Errorf("%s: %+v, %v; want %s", name, found, err, c.want)
		}
	}
}
