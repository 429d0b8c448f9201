package awskms

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

// wire is a network on which anything may come back.
type wire func(req *http.Request) (status int, body []byte)

func (f wire) Do(req *http.Request) (*http.Response, error) {
	status, body := f(req)
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}}, Body: io.NopCloser(bytes.NewReader(body)),
	}, nil
}

func fuzzService(tb testing.TB, answer wire) *Service {
	tb.Helper()
	s, err := New(Config{
		AWS: aws.Config{
			Region: testRegion, HTTPClient: answer,
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: "AKIA", SecretAccessKey: "secret"}, nil
			}),
		},
		Logger: slog.New(slog.DiscardHandler), Timeout: patience,
	})
	if err != nil {
		tb.Fatal(err)
	}
	s.pause = 1
	return s
}

// fuzzKey is a fixed key pair: inputs that were found before mean the same.
func fuzzKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), big.NewInt(12345).FillBytes(make([]byte, 32)))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// FuzzSignAnswer holds what Sign makes of an answer to: a signature that verifies,
// or a refusal of ours.
func FuzzSignAnswer(f *testing.F) {
	private := fuzzKey(f)
	arn := "arn:aws:kms:eu-west-1:111122223333:key/" + testUUID
	sum := sha256.Sum256([]byte("message"))
	sig, err := ecdsa.SignASN1(rand.Reader, private, sum[:])
	if err != nil {
		f.Fatal(err)
	}
	good := fmt.Sprintf(`{"KeyId":"%s","SigningAlgorithm":"ECDSA_SHA_256","Signature":"%s"}`, arn, base64Of(sig))
	f.Add(200, []byte(good))
	f.Add(200, []byte(strings.Replace(good, "1111", "2222", 1)))
	f.Add(200, []byte(strings.Replace(good, "256", "384", 1)))
	f.Add(200, []byte(`{}`))
	f.Add(200, []byte(``))
	f.Add(400, []byte(`{"__type":"com.amazonaws.kms#AccessDeniedException","message":"no"}`))
	f.Add(400, []byte(`{"__type":"DisabledException:http://","Message":7}`))
	f.Add(429, []byte(`<html>`))
	f.Add(307, []byte(``))
	f.Add(500, []byte(`{"__type":"KMSInternalException"}`))
	f.Add(400, []byte(`{"__type":"ThrottlingException"}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 999 {
			return
		}
		calls := 0
		s := fuzzService(t, func(*http.Request) (int, []byte) { calls++; return status, body })
		k, err := s.Open(arn, &private.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.Sign(t.Context(), sum[:])
		if err == nil {
			if !attest.VerifySignature(&private.PublicKey, sum[:], got) || status/100 != 2 || calls != 1 {
				t.Fatalf("%d %q was believed", status, body)
			}
			return
		}
		if got != nil || refusal.CodeOf(err) == "" || len(err.Error()) > 500 {
			t.Fatalf("%d %q: %v", status, body, err)
		}
	})
}

// FuzzResolveAnswers does the same for Resolve.
func FuzzResolveAnswers(f *testing.F) {
	private := fuzzKey(f)
	arn := "arn:aws:kms:eu-west-1:111122223333:key/" + testUUID
	spki := spkiOf(f, &private.PublicKey)
	public := fmt.Sprintf(`{"KeyId":"%s","KeySpec":"ECC_NIST_P256","KeyUsage":"SIGN_VERIFY","PublicKey":"%s","SigningAlgorithms":["ECDSA_SHA_256"]}`, arn, base64Of(spki))
	f.Add(describe(testRegion, testUUID), []byte(public))
	f.Add(describe("us-east-1", testUUID), []byte(public))
	f.Add(describe(testRegion, testMRK), []byte(public))
	f.Add([]byte(`{}`), []byte(`{}`))
	f.Add(describe(testRegion, testUUID), []byte(strings.Replace(public, "M", "N", 1)))
	f.Fuzz(func(t *testing.T, described, key []byte) {
		s := fuzzService(t, func(req *http.Request) (int, []byte) {
			if strings.HasSuffix(req.Header.Get("X-Amz-Target"), ".DescribeKey") {
				return 200, described
			}
			return 200, key
		})
		found, err := s.Resolve(t.Context(), "awskms:///arn:aws:kms:eu-west-1:111122223333:alias/a")
		if err != nil {
			if refusal.CodeOf(err) == "" || found.ARN != "" || len(err.Error()) > 2000 {
				t.Fatalf("%q, %q: %+v, %v", described, key, found, err)
			}
			return
		}
		r, err := parseARN(found.ARN)
		if err != nil || r.Region != testRegion || r.Account != testAccount || r.Partition != "aws" || found.Alias == "" {
			t.Fatalf("%q, %q: %+v, %v", described, key, found, err)
		}
		if spec, _, err := specOf(found.Public); err != nil || string(spec) != found.Spec || !bytes.Equal(spkiOf(t, found.Public), found.SPKI) {
			t.Fatalf("%q, %q: %+v, %v", described, key, found, err)
		}
	})
}
