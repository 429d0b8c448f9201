package awstest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzKMSBody gives every operation of KMS a body, as a caller who may do anything.
// The answer is one of the API's, and none of the stand-in's own mistakes.
func FuzzKMSBody(f *testing.F) {
	w, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(w.Close)
	acct := w.Account(testAccount)
	k := acct.Key(testRegion, "ECC_NIST_P256")
	acct.Alias(testRegion, "alias/release", k)
	caller := w.key(acct.Root().AccessKeyID).principal
	for i, seed := range []string{
		`{"KeyId":"alias/release","Message":"","MessageType":"RAW","SigningAlgorithm":"ECDSA_SHA_256"}`,
		`{"KeyId":"` + k.ID() + `","Message":"AA==","Signature":"AA==","MessageType":"DIGEST","SigningAlgorithm":"ML_DSA_SHAKE_256"}`,
		`{"KeyId":"` + k.ARN() + `","GrantTokens":["x"]}`,
		`{"AliasName":"alias/release","TargetKeyId":"` + k.ID() + `"}`,
		`{"KeyId":"arn:aws:kms:::"}`, `{"Limit":-1,"Marker":"alias/release"}`, `null`, `[]`, ``,
	} {
		f.Add(uint8(i), seed)
	}
	f.Fuzz(func(t *testing.T, operation uint8, body string) {
		all := kmsOperations()
		c := &call{
			w: w, service: "kms", region: testRegion, action: all[int(operation)%len(all)], endpoint: endpoint{partition: "aws", service: "kms", region: testRegion},
			principal: caller, r: httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil), body: []byte(body), protocol: jsonRPC,
		}
		out := w.serveKMS(c)
		if code := out.header.Get("X-Awstest-Code"); (code == "") != (out.status == http.StatusOK) || code == "UnknownOperationException" {
			t.Fatalf("%s: %d %s", c.action, out.status, code)
		}
	})
}

// FuzzSignerPayload signs whatever readPayload takes.
func FuzzSignerPayload(f *testing.F) {
	w, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(w.Close)
	acct := w.Account(testAccount)
	job := &signerJob{arn: acct.arn("signer", testRegion, "/signing-jobs/x"), owner: acct, profile: acct.SigningProfile(testRegion, "release", 0)}
	for _, seed := range []string{testPayload, `{}`, `null`, strings.Replace(testPayload, `"size":0`, `"size":-1`, 1)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readPayload(b)
		if err != nil {
			return
		}
		if len(w.envelope(job, p, SignerFault{})) == 0 {
			t.Fatal("no envelope")
		}
	})
}

// BenchmarkKMSSign is the cost of the stand-in: a signature through the SDK.
func BenchmarkKMSSign(b *testing.B) {
	w, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(w.Close)
	acct := w.Account(testAccount)
	k := acct.Key(testRegion, "ECC_NIST_P256")
	c := signerOf(w, acct)
	for b.Loop() {
		if _, err := signDigest(b.Context(), c, k.ARN()); err != nil {
			b.Fatal(err)
		}
	}
}
