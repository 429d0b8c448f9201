package awskms

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/mldsa"
	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

func TestSignWithEverySpec(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	specs := []awstest.KeySpec{"ECC_NIST_P256", "ECC_NIST_P384", "RSA_2048", "ML_DSA_65"}
	if !testing.Short() {
		specs = append(specs, "RSA_3072", "RSA_4096")
	}
	for _, spec := range specs {
		t.Run(string(spec), func(t *testing.T) {
			t.Parallel()
			at := e.account.Key(testRegion, spec)
			alias := "alias/assay/" + string(spec)
			at.Public() // made now: RSA takes long
			e.account.Alias(testRegion, alias, at)
			arn := strings.TrimSuffix(at.ARN(), "key/"+at.ID())
			var found Resolved
			for id, isAlias := range map[string]bool{at.ID(): false, at.ARN(): false, alias: true, arn + alias: true} {
				ref := "awskms:///" + id
				var err error
				if found, err = e.kms.Resolve(t.Context(), ref); err != nil {
					t.Fatal(err)
				}
				want := ""
				if isAlias {
					want = ref
				}
				if found.ARN != at.ARN() || found.Spec != string(spec) || found.Alias != want {
					t.Errorf("%s means %+v", ref, found)
				}
				if !at.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(found.Public) {
					t.Errorf("%s has another public key", ref)
				}
			}
			sum := sha256.Sum256(found.SPKI)
			if pub, ok := found.Public.(*mldsa.PublicKey); ok {
				k, err := e.kms.OpenMLDSA(found.ARN, pub)
				if err != nil {
					t.Fatal(err)
				}
				for _, message := range [][]byte{nil, []byte("DSSEv1"), make([]byte, 1<<20)} {
					if err := signMessage(t, k, message); err != nil {
						t.Error(err)
					}
				}
				if k.KeyID() != hex.EncodeToString(sum[:]) || k.ARN() != at.ARN() {
					t.Errorf("%s", k)
				}
				_, err = e.kms.Open(found.ARN, pub)
				wantCode(t, err, CodeKeyUnsupported)
				return
			}
			k, err := e.kms.Open(found.ARN, found.Public)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := sign(t, k); err != nil {
					t.Error(err)
				}
			}
			if k.KeyID() != hex.EncodeToString(sum[:]) || k.ARN() != at.ARN() {
				t.Errorf("%s", k)
			}
			for _, n := range []int{0, 20, 31, 33, 47, 49, 64, 4096} {
				_, err := k.Sign(t.Context(), make([]byte, n))
				wantCode(t, err, CodeDigestLength)
			}
			wrong := 32
			if k.hash.Size() == 32 {
				wrong = 48
			}
			_, err = k.Sign(t.Context(), make([]byte, wrong))
			wantCode(t, err, CodeDigestLength)
		})
	}
}

// TestPartitions signs in every partition, where only its own hosts exist.
func TestPartitions(t *testing.T) {
	t.Parallel()
	for partition, region := range regions {
		t.Run(partition, func(t *testing.T) {
			t.Parallel()
			// The region of the configuration is another: that of the ARN counts.
			other := map[string]string{"aws": "us-east-1", "aws-cn": "cn-northwest-1", "aws-us-gov": "us-gov-east-1"}[partition]
			if other == "" {
				other = region
			}
			e := newEnvIn(t, partition, other)
			at := e.account.Key(region, "ECC_NIST_P256", awstest.MultiRegion())
			found, err := e.kms.Resolve(t.Context(), "awskms:///"+at.ARN())
			if err != nil {
				t.Fatal(err)
			}
			k, err := e.kms.Open(found.ARN, found.Public)
			if err != nil {
				t.Fatal(err)
			}
			if err := sign(t, k); err != nil {
				t.Error(err)
			}
			for _, r := range e.world.Requests("kms", "") {
				if r.Region != region || !strings.HasPrefix(r.Host, "kms."+region+".") {
					t.Errorf("%s was asked", r.Host)
				}
			}
			if other == region {
				return
			}
			_, err = e.kms.Resolve(t.Context(), "awskms:///"+at.ID()) // not in the region of the configuration
			if c := refusal.CodeOf(err); c != CodeKeyNotFound {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	at := e.account.Key(testRegion, "ECC_NIST_P256")
	for name, arn := range map[string]string{
		"nothing": "", "an id": testUUID, "a reference": "awskms:///" + at.ARN(), "an alias": "alias/a",
		"an alias's ARN": "arn:aws:kms:eu-west-1:111122223333:alias/a", "another partition": strings.Replace(at.ARN(), "aws", "aws-cn", 1),
		"very long": long('a', 1<<16),
	} {
		if _, err := e.kms.Open(arn, at.Public()); refusal.CodeOf(err) != CodeKeyRefInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	generate := func(curve elliptic.Curve) *ecdsa.PublicKey {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return &k.PublicKey
	}
	odd, err := rsa.GenerateKey(rand.Reader, 2056)
	if err != nil {
		t.Fatal(err)
	}
	small, err := mldsa.GenerateKey(mldsa.MLDSA44())
	if err != nil {
		t.Fatal(err)
	}
	for name, pub := range map[string]crypto.PublicKey{
		"nothing": nil, "P-521": generate(elliptic.P521()), "P-224": generate(elliptic.P224()), "a private key's type": 7,
		"an ECDSA key that is nil": (*ecdsa.PublicKey)(nil), "RSA of 2056 bits": &odd.PublicKey, "ML-DSA-44": small.PublicKey(),
	} {
		if _, err := e.kms.Open(at.ARN(), pub); refusal.CodeOf(err) != CodeKeyUnsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, pub := range map[string]*mldsa.PublicKey{"nothing": nil, "ML-DSA-44": small.PublicKey()} {
		if _, err := e.kms.OpenMLDSA(at.ARN(), pub); refusal.CodeOf(err) != CodeKeyUnsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := e.world.Count("kms", ""); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}

// TestSignLies has KMS, or who answers in its place, return what is no signature.
func TestSignLies(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	ec, ecKey := e.key(t, "ECC_NIST_P256")
	p384, p384Key := e.key(t, "ECC_NIST_P384")
	rsaAt, rsaKey := e.key(t, "RSA_2048")
	mlAt := e.account.Key(testRegion, "ML_DSA_65")
	mlKey, err := e.kms.OpenMLDSA(mlAt.ARN(), mlAt.Public().(*mldsa.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		at   *awstest.KMSKey
		sign func() error
	}{
		{ec, func() error { return sign(t, ecKey) }},
		{p384, func() error { return sign(t, p384Key) }},
		{rsaAt, func() error { return sign(t, rsaKey) }},
		{mlAt, func() error { return signMessage(t, mlKey, []byte("message")) }},
	} {
		other := e.account.Key(testRegion, k.at.Spec())
		other.Public()
		faults := []struct {
			name  string
			fault awstest.KMSFault
			want  refusal.Code
		}{
			{"another key, openly", awstest.KMSFault{WrongKey: other, WrongKeyID: other.ARN()}, CodeWrongKey},
			{"another key, hidden", awstest.KMSFault{WrongKey: other}, CodeSignatureInvalid},
			{"another name", awstest.KMSFault{WrongKeyID: other.ARN()}, CodeWrongKey},
			{"an id for the ARN", awstest.KMSFault{WrongKeyID: k.at.ID()}, CodeWrongKey},
			{"another algorithm", awstest.KMSFault{WrongAlgorithm: "RSASSA_PKCS1_V1_5_SHA_256"}, CodeWrongAlgorithm},
			{"a bit", awstest.KMSFault{FlipBit: true}, CodeSignatureInvalid},
			{"a byte less", awstest.KMSFault{Truncate: true}, CodeSignatureInvalid},
		}
		if k.at == ec || k.at == p384 {
			faults = append(faults, struct {
				name  string
				fault awstest.KMSFault
				want  refusal.Code
			}{"BER", awstest.KMSFault{BER: true}, CodeSignatureInvalid})
		}
		for _, f := range faults {
			f.fault.Action = "Sign"
			k.at.Fault(f.fault)
			if err := k.sign(); refusal.CodeOf(err) != f.want {
				t.Errorf("%s, %s: %v; want %s", k.at.Spec(), f.name, err, f.want)
			}
			k.at.ClearFaults()
			if err := k.sign(); err != nil {
				t.Errorf("%s after %s: %v", k.at.Spec(), f.name, err)
			}
		}
	}
	if s := e.log.String(); !strings.Contains(s, "level=ERROR") || !strings.Contains(s, ec.ARN()) {
		t.Error("a lie is not in the log with the key's ARN")
	}
	for body, want := range map[string]refusal.Code{
		`{}`: CodeAnswerInvalid, ``: CodeAnswerInvalid, `null`: CodeAnswerInvalid, `[]`: CodeAnswerInvalid, `{"KeyId":7}`: CodeAnswerInvalid,
		`{"KeyId":"` + ec.ARN() + `","SigningAlgorithm":"ECDSA_SHA_256"}`:                    CodeAnswerInvalid,
		`{"KeyId":"` + ec.ARN() + `","Signature":"MAA="}`:                                    CodeAnswerInvalid,
		`{"SigningAlgorithm":"ECDSA_SHA_256","Signature":"MAA="}`:                            CodeAnswerInvalid,
		`{"KeyId":"` + ec.ARN() + `","SigningAlgorithm":"ECDSA_SHA_256","Signature":"AA"}`:   CodeAnswerInvalid,
		`{"KeyId":"` + ec.ARN() + `","SigningAlgorithm":"ECDSA_SHA_256","Signature":"MAA="}`: CodeSignatureInvalid,
		`<html>login</html>`:                   CodeAnswerInvalid,
		`{"KeyId":"` + long('a', 1<<17) + `"}`: CodeAnswerInvalid,
	} {
		e.world.Heal()
		e.world.Fail(awstest.Fault{Service: "kms", Action: "Sign", Body: []byte(body)})
		if err := sign(t, ecKey); refusal.CodeOf(err) != want {
			t.Errorf("%.80s: %v; want %s", body, err, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	creds := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, nil })
	for field, cfg := range map[string]Config{
		"aws":            {},
		"aws.region":     {AWS: aws.Config{Credentials: creds, Region: "evil.example.com/"}},
		"timeout":        {AWS: aws.Config{Credentials: creds}, Timeout: -1},
		"max_concurrent": {AWS: aws.Config{Credentials: creds}, MaxConcurrent: -1},
		"endpoint":       {AWS: aws.Config{Credentials: creds}, Endpoint: "http://kms.example.com"},
	} {
		_, err := New(cfg)
		wantCode(t, err, CodeConfigInvalid)
		if !strings.Contains(err.Error(), ": "+field+": ") {
			t.Errorf("%v does not blame %s", err, field)
		}
	}
	s, err := New(Config{AWS: aws.Config{Credentials: creds}})
	if err != nil || s.timeout != 5*time.Second || cap(s.slots) != 64 {
		t.Errorf("other defaults than documented, or %v", err)
	}
	for endpoint, ok := range map[string]bool{
		"https://vpce-1.kms.eu-west-1.vpce.amazonaws.com": true, "http://127.0.0.1:4566": true, "http://[::1]:4566/": true, "http://localhost:1": true,
		"http://10.0.0.1": false, "http://localhost.example.com": false, "ftp://127.0.0.1": false, "127.0.0.1:4566": false, "https://": false,
		"https://user:secret@kms.example.com": false, "https://kms.example.com/?a": false, "https://kms.example.com/path": false, "https://kms.example.com#a": false, "\x7f": false,
	} {
		_, err := New(Config{AWS: aws.Config{Credentials: creds}, Endpoint: endpoint})
		if (err == nil) != ok || err != nil && refusal.CodeOf(err) != CodeConfigInvalid {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

// TestEnvironment leads the SDK elsewhere by every means it knows. The transport
// of the stand-in knows no host but AWS's.
func TestEnvironment(t *testing.T) {
	e := newEnv(t)
	at := e.account.Key(testRegion, "ECC_NIST_P256")
	file := filepath.Join(t.TempDir(), "config")
	profile := "[default]\nregion = eu-west-1\nendpoint_url = https://evil.example.com\nservices = s\nuse_fips_endpoint = true\n[services s]\nkms =\n  endpoint_url = https://evil.example.com\n"
	if err := os.WriteFile(file, []byte(profile), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CONFIG_FILE", file)
	for _, set := range [][]string{{}, {"AWS_ENDPOINT_URL"}, {"AWS_ENDPOINT_URL_KMS"}, {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"}} {
		for _, name := range set {
			t.Setenv(name, "https://evil.example.com")
		}
		cfg, err := awsconfig.LoadDefaultConfig(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cfg.BaseEndpoint = aws.String("https://evil.example.com")
		mine := e.world.AWSConfig(e.role.Session("assayd"), testRegion)
		cfg.HTTPClient, cfg.Credentials = mine.HTTPClient, mine.Credentials
		s, err := New(Config{AWS: cfg, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Resolve(t.Context(), "awskms:///"+at.ARN()); err != nil {
			t.Errorf("%v: %v", set, err)
		}
	}
	for _, r := range e.world.Requests("kms", "") {
		if r.Host != "kms.eu-west-1.amazonaws.com" {
			t.Errorf("%s was asked", r.Host)
		}
	}
}

// TestNothingTold looks for what callers and logs must not see.
func TestNothingTold(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	at, k := e.key(t, "ECC_NIST_P256")
	e.role.Deny("kms:Sign")
	err := sign(t, k)
	wantCode(t, err, CodeAccessDenied)
	if strings.Contains(err.Error(), testAccount) || !strings.Contains(err.Error(), k.KeyID()) {
		t.Errorf("%v", err)
	}
	if cause := err.(*refusal.Error).Err; cause == nil || !strings.Contains(cause.Error(), e.role.SessionARN("assayd")) { //nolint:errorlint // the refusal itself
		t.Errorf("the cause is %v", cause)
	}
	log := e.log.String()
	for _, secret := range e.secrets {
		if strings.Contains(log, secret) || strings.Contains(fmt.Sprintf("%+v %#v", err, k), secret) {
			t.Error("a secret was told")
		}
	}
	if !strings.Contains(log, "AccessDeniedException") || !strings.Contains(log, k.KeyID()) {
		t.Errorf("the log does not say what failed: %s", log)
	}
	if s := fmt.Sprint(k); !strings.Contains(s, at.ARN()) || strings.Contains(s, "{") {
		t.Errorf("%s", s)
	}
}
