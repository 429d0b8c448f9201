package awstest

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
)

const (
	testAccount = "111122223333"
	testRegion  = "eu-west-1"
)

func TestS3(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	creds := acct.Role("reader").Allow("s3:*").Session("test")
	for _, style := range []struct {
		name string
		path bool
	}{{"virtual host", false}, {"path", true}} {
		t.Run(style.name, func(t *testing.T) {
			s3Suite(t, s3Server{
				client: s3.NewFromConfig(w.AWSConfig(creds, testRegion), func(o *s3.Options) { o.UsePathStyle = style.path }),
				newBucket: func(_ *testing.T, versioned bool) string {
					return acct.Bucket(testRegion, "b-"+strings.ToLower(rand.Text()), Versioned(versioned)).Name()
				},
				owner: testAccount, versionPages: []int32{1, 2, 3, 4, 100},
			})
		})
	}
}

// wantCode holds an error of the SDK to a code of the API.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != code {
		t.Errorf("error %v, want code %s", err, code)
	}
}

func want[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// TestS3Permissions is about what only AWS has: identities, accounts, regions.
func TestS3Permissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home, away := w.Account(testAccount), w.Account(otherAccount)
	bucket := home.Bucket(testRegion, "artifacts", Versioned(true))
	shared := home.Bucket(testRegion, "shared", SharedWith(away.ID()))
	version := bucket.Put("app.zip", []byte("x"))
	shared.Put("app.zip", []byte("x"))
	get := func(r *Role, bucket, key, version string) error {
		s := s3Server{client: s3.NewFromConfig(w.AWSConfig(r.Session("s"), testRegion))}
		in := &s3.GetObjectInput{Bucket: &bucket, Key: &key}
		if version != "" {
			in.VersionId = &version
		}
		_, err := s.get(t, in)
		return err
	}
	one := home.Role("one").AllowOn("s3:GetObject", bucket.ARN()+"/app.zip")
	byVersion := home.Role("by-version").Allow("s3:GetObjectVersion")
	lister := home.Role("lister").Allow("s3:GetObject", "s3:ListBucket")
	other := away.Role("other").Allow("*")
	for _, tt := range []struct {
		name                 string
		role                 *Role
		bucket, key, version string
		code                 string
	}{
		{"allowed", one, "artifacts", "app.zip", "", ""},
		{"another key", one, "artifacts", "other.zip", "", "AccessDenied"},
		{"a version without its permission", one, "artifacts", "app.zip", version, "AccessDenied"},
		{"a version", byVersion, "artifacts", "app.zip", version, ""},
		{"no version without its permission", byVersion, "artifacts", "app.zip", "", "AccessDenied"},
		{"an absent key, for who may not list", home.Role("get").Allow("s3:GetObject"), "artifacts", "absent", "", "AccessDenied"},
		{"an absent key, for who may list", lister, "artifacts", "absent", "", "NoSuchKey"},
		{"nothing allowed", home.Role("nobody"), "artifacts", "app.zip", "", "AccessDenied"},
		{"another account", other, "artifacts", "app.zip", "", "AccessDenied"},
		{"another account, let in", other, "shared", "app.zip", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := get(tt.role, tt.bucket, tt.key, tt.version)
			if tt.code == "" && err != nil {
				t.Error(err)
			} else if tt.code != "" {
				wantCode(t, err, tt.code)
			}
		})
	}
}

func TestS3Refuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	bucket := acct.Bucket(testRegion, "artifacts", Versioned(true))
	version := bucket.Put("app.zip", []byte("content"))
	creds := acct.Role("all").Allow("*").Session("s")
	client := func(region string) *s3.Client { return s3.NewFromConfig(w.AWSConfig(creds, region)) }

	t.Run("another region", func(t *testing.T) {
		_, err := client("us-west-2").GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("artifacts"), Key: aws.String("app.zip")})
		wantCode(t, err, "PermanentRedirect")
	})
	t.Run("another operation", func(t *testing.T) {
		_, err := client(testRegion).GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: aws.String("artifacts"), Key: aws.String("app.zip")})
		wantCode(t, err, "NotImplemented")
		_, err = client(testRegion).CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("artifacts"), Key: aws.String("b"), CopySource: aws.String("artifacts/app.zip")})
		wantCode(t, err, "NotImplemented")
		_, err = client(testRegion).ListBuckets(t.Context(), &s3.ListBucketsInput{})
		wantCode(t, err, "NotImplemented")
	})
	t.Run("wrong secret", func(t *testing.T) {
		forged := creds
		forged.SecretAccessKey = "x" + forged.SecretAccessKey
		_, err := s3.NewFromConfig(w.AWSConfig(forged, testRegion)).GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("artifacts"), Key: aws.String("app.zip")})
		wantCode(t, err, "SignatureDoesNotMatch")
	})
	t.Run("rewritten", func(t *testing.T) {
		bucket.Rewrite("app.zip", version, []byte("c0ntent"))
		s := s3Server{client: client(testRegion)}
		_, err := s.get(t, &s3.GetObjectInput{Bucket: aws.String("artifacts"), Key: aws.String("app.zip"), VersionId: &version, ChecksumMode: types.ChecksumModeEnabled})
		if err == nil || !strings.Contains(err.Error(), "checksum") {
			t.Errorf("the SDK read a forged version: %v", err)
		}
	})
	t.Run("wire", func(t *testing.T) {
		resp, err := w.HTTPClient().Do(newRequest(t.Context(), "https://artifacts.s3.eu-west-1.amazonaws.com/app.zip"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden || resp.Header.Get("X-Amz-Request-Id") == "" {
			t.Errorf("an unsigned request: %s", resp.Status)
		}
	})
}

func newRequest(ctx context.Context, url string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		panic(err)
	}
	return r
}

func TestDecodeChunked(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, body, trailer, want, err string }{
		{"one chunk", "3\r\nabc\r\n0\r\n\r\n", "", "abc", ""},
		{"two chunks and a trailer", "3\r\nabc\r\n1\r\nd\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n", "x-amz-checksum-crc32", "abcd", ""},
		{"empty", "0\r\n\r\n", "", "", ""},
		{"trailer not announced", "0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n", "", "", "was not announced"},
		{"trailer missing", "0\r\n\r\n", "x-amz-checksum-crc32", "", "0 values"},
		{"trailer twice", "0\r\na:1\r\na:2\r\n\r\n", "a", "", "2 values"},
		{"cut in a chunk", "5\r\nabc", "", "", "unexpected EOF"},
		{"cut before the end", "3\r\nabc\r\n", "", "", "unexpected EOF"},
		{"no end of chunk", "3\r\nabcX0\r\n\r\n", "", "", "unexpected EOF"},
		{"no size", "zz\r\nabc\r\n", "", "", "size of a chunk"},
		{"huge", "ffffffff\r\nabc\r\n", "", "", "size of a chunk"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := decodeChunked([]byte(tt.body), tt.trailer)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || string(got) != tt.want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func FuzzDecodeChunked(f *testing.F) {
	f.Add([]byte("3\r\nabc\r\n0\r\nx:1\r\n\r\n"), "x")
	f.Add([]byte("0\r\n\r\n"), "")
	f.Add([]byte("7fffffff\r\n"), "")
	f.Fuzz(func(t *testing.T, body []byte, trailer string) {
		data, _, err := decodeChunked(body, trailer)
		if err == nil && len(data) > len(body) {
			t.Errorf("%d bytes out of %d", len(data), len(body))
		}
	})
}
