package awstest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// s3Server is a server of S3 that the tests below must find no fault with: the
// stand-in, or another one to see that the tests are right.
type s3Server struct {
	client    *s3.Client
	newBucket func(t *testing.T, versioned bool) string
	owner     string // of the buckets, as the server calls it
	// versionPages are the lengths of pages that ListObjectVersions can do.
	versionPages []int32
}

// s3Suite is what every S3 does.
func s3Suite(t *testing.T, s s3Server) {
	for name, test := range map[string]func(*testing.T, s3Server){
		"versions": testVersions, "without versions": testUnversioned, "ranges": testRanges, "absent": testAbsent,
		"delete": testDelete, "digests": testDigests, "list": testList, "list versions": testListVersions,
		"owner": testOwner, "conditions": testConditions, "stream": testStream,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

func (s s3Server) put(t *testing.T, bucket, key, body string) (version string) {
	t.Helper()
	out, err := s.client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(body)})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(out.VersionId)
}

func (s s3Server) get(t *testing.T, in *s3.GetObjectInput) (string, error) {
	t.Helper()
	out, err := s.client.GetObject(t.Context(), in)
	if err != nil {
		return "", err
	}
	defer out.Body.Close()
	data, err := io.ReadAll(out.Body)
	return string(data), err
}

func testVersions(t *testing.T, s s3Server) {
	bucket, key := s.newBucket(t, true), "a folder/app+1.zip"
	v1, v2 := s.put(t, bucket, key, "one"), s.put(t, bucket, key, "two!")
	if v1 == "" || v2 == "" || v1 == v2 || v1 == nullVersion {
		t.Fatalf("versions %q and %q", v1, v2)
	}
	for version, body := range map[string]string{v1: "one", v2: "two!", "": "two!"} {
		in := &s3.GetObjectInput{Bucket: &bucket, Key: &key}
		if version != "" {
			in.VersionId = &version
		}
		got, err := s.get(t, in)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "body of "+version, got, body)
	}
	head, err := s.client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: &key, VersionId: &v1})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "version of head", aws.ToString(head.VersionId), v1)
	want(t, "length of head", aws.ToInt64(head.ContentLength), 3)
	want(t, "ETag of head", aws.ToString(head.ETag), `"f97c5d29941bfb1b2fdab0874906ab82"`)
	if head.LastModified == nil || head.LastModified.Nanosecond() != 0 {
		t.Errorf("last modified %v", head.LastModified)
	}
	state, err := s.client.GetBucketVersioning(t.Context(), &s3.GetBucketVersioningInput{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "versioning", state.Status, types.BucketVersioningStatusEnabled)
}

func testUnversioned(t *testing.T, s s3Server) {
	bucket, key := s.newBucket(t, false), "app.zip"
	s.put(t, bucket, key, "one")
	want(t, "version", s.put(t, bucket, key, "two"), "")
	got, err := s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "body", got, "two")
	state, err := s.client.GetBucketVersioning(t.Context(), &s3.GetBucketVersioningInput{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "versioning", state.Status, "")
	list, err := s.client.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Versions) != 1 || aws.ToString(list.Versions[0].VersionId) != nullVersion {
		t.Errorf("versions: %+v", list.Versions)
	}
}

func testRanges(t *testing.T, s s3Server) {
	bucket, key := s.newBucket(t, false), "digits"
	s.put(t, bucket, key, "0123456789")
	for spec, body := range map[string]string{
		"bytes=2-4": "234", "bytes=7-": "789", "bytes=-3": "789", "bytes=8-99": "89", "bytes=0-0": "0", "bytes=-99": "0123456789",
	} {
		got, err := s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key, Range: &spec})
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		want(t, spec, got, body)
	}
	out, err := s.client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key, Range: aws.String("bytes=2-4")})
	if err != nil {
		t.Fatal(err)
	}
	out.Body.Close()
	want(t, "content range", aws.ToString(out.ContentRange), "bytes 2-4/10")
	_, err = s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key, Range: aws.String("bytes=10-")})
	wantCode(t, err, "InvalidRange")
}

func testAbsent(t *testing.T, s s3Server) {
	bucket, key := s.newBucket(t, true), "there"
	version := s.put(t, bucket, key, "x")
	_, err := s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("elsewhere")})
	wantCode(t, err, "NoSuchKey")
	_, err = s.get(t, &s3.GetObjectInput{Bucket: aws.String("no-bucket-of-that-name"), Key: &key})
	wantCode(t, err, "NoSuchBucket")
	_, err = s.client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String("elsewhere")})
	wantCode(t, err, "NotFound")
	_, err = s.client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key, VersionId: &version})
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, bucket, key, "y")
	_, err = s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key, VersionId: &version})
	wantCode(t, err, "NoSuchVersion")
}

func testDelete(t *testing.T, s s3Server) {
	bucket, key := s.newBucket(t, true), "app.zip"
	version := s.put(t, bucket, key, "x")
	deleted, err := s.client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	if !aws.ToBool(deleted.DeleteMarker) || deleted.VersionId == nil {
		t.Fatalf("no delete marker: %+v", deleted)
	}
	_, err = s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	wantCode(t, err, "NoSuchKey")
	_, err = s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key, VersionId: deleted.VersionId})
	wantCode(t, err, "MethodNotAllowed")
	got, err := s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key, VersionId: &version})
	if err != nil || got != "x" {
		t.Errorf("the version under the marker: %q, %v", got, err)
	}
	list, err := s.client.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Versions) != 1 || len(list.DeleteMarkers) != 1 ||
		aws.ToBool(list.Versions[0].IsLatest) || !aws.ToBool(list.DeleteMarkers[0].IsLatest) {
		t.Errorf("versions %+v, markers %+v", list.Versions, list.DeleteMarkers)
	}
	if _, err = s.client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key, VersionId: deleted.VersionId}); err != nil {
		t.Fatal(err)
	}
	if got, err = s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key}); err != nil || got != "x" {
		t.Errorf("after the marker went: %q, %v", got, err)
	}
}

func testDigests(t *testing.T, s s3Server) {
	bucket := s.newBucket(t, true)
	sum := sha256.Sum256([]byte("content"))
	digest := base64.StdEncoding.EncodeToString(sum[:])
	for _, algorithm := range []types.ChecksumAlgorithm{
		types.ChecksumAlgorithmSha256, types.ChecksumAlgorithmSha1, types.ChecksumAlgorithmCrc32, types.ChecksumAlgorithmCrc32c, types.ChecksumAlgorithmCrc64nvme,
	} {
		key := string(algorithm)
		_, err := s.client.PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: &bucket, Key: &key, Body: strings.NewReader("content"), ChecksumAlgorithm: algorithm,
		})
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		// The SDK compares what it reads with the checksum it is told.
		got, err := s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
		if err != nil || got != "content" {
			t.Errorf("%s: %q, %v", key, got, err)
		}
	}
	head, err := s.client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String("SHA256"), ChecksumMode: types.ChecksumModeEnabled})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "sha256", aws.ToString(head.ChecksumSHA256), digest)
	_, err = s.client.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &bucket, Key: aws.String("wrong"), Body: strings.NewReader("other content"), ChecksumSHA256: &digest,
	})
	wantCode(t, err, "BadDigest")
	_, err = s.client.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &bucket, Key: aws.String("wrong"), Body: strings.NewReader("content"), ContentMD5: aws.String("1B2M2Y8AsgTpgAmY7PhCfg=="),
	})
	wantCode(t, err, "BadDigest")
	_, err = s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("wrong")})
	wantCode(t, err, "NoSuchKey")
}

func testList(t *testing.T, s s3Server) {
	bucket := s.newBucket(t, true)
	keys := []string{"a", "out/1", "out/2", "out/3", "out/sub/x", "out/sub/y", "out/z", "z"}
	for _, key := range slices.Backward(keys) {
		s.put(t, bucket, key, key)
	}
	list := func(in *s3.ListObjectsV2Input) (found, prefixes []string, pages int) {
		t.Helper()
		in.Bucket = &bucket
		for p := s3.NewListObjectsV2Paginator(s.client, in); p.HasMorePages(); pages++ {
			page, err := p.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if pages > len(keys) {
				t.Fatalf("pages never end: %v", found)
			}
			for _, o := range page.Contents {
				found = append(found, *o.Key)
				want(t, "size of "+*o.Key, aws.ToInt64(o.Size), int64(len(*o.Key)))
			}
			for _, c := range page.CommonPrefixes {
				prefixes = append(prefixes, *c.Prefix)
			}
		}
		return found, prefixes, pages
	}
	found, _, pages := list(&s3.ListObjectsV2Input{})
	want(t, "all", found, keys)
	want(t, "pages", pages, 1)
	found, _, pages = list(&s3.ListObjectsV2Input{Prefix: aws.String("out/"), MaxKeys: aws.Int32(2)})
	want(t, "prefix", found, keys[1:7])
	want(t, "pages of two", pages, 3)
	found, prefixes, _ := list(&s3.ListObjectsV2Input{Prefix: aws.String("out/"), Delimiter: aws.String("/"), MaxKeys: aws.Int32(2)})
	want(t, "folder", found, []string{"out/1", "out/2", "out/3", "out/z"})
	want(t, "folders in it", prefixes, []string{"out/sub/"})
	found, _, _ = list(&s3.ListObjectsV2Input{StartAfter: aws.String("out/sub/x")})
	want(t, "start after", found, keys[5:])
	_, prefixes, _ = list(&s3.ListObjectsV2Input{Delimiter: aws.String("/"), MaxKeys: aws.Int32(1)})
	want(t, "top folders", prefixes, []string{"out/"})
}

func testListVersions(t *testing.T, s s3Server) {
	bucket := s.newBucket(t, true)
	var newestFirst []string
	for _, key := range []string{"a", "b", "c"} {
		var versions []string
		for range 3 {
			versions = append(versions, s.put(t, bucket, key, key))
		}
		slices.Reverse(versions)
		newestFirst = append(newestFirst, versions...)
	}
	for _, max := range s.versionPages {
		var found []string
		for p := s3.NewListObjectVersionsPaginator(s.client, &s3.ListObjectVersionsInput{Bucket: &bucket, MaxKeys: &max}); p.HasMorePages(); {
			page, err := p.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(found) > len(newestFirst) {
				t.Fatalf("pages of %d never end: %v", max, found)
			}
			for _, v := range page.Versions {
				found = append(found, *v.VersionId)
				want(t, "latest", aws.ToBool(v.IsLatest), slices.Index(newestFirst, *v.VersionId)%3 == 0)
			}
		}
		want(t, "versions", found, newestFirst)
	}
	page, err := s.client.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &bucket, Prefix: aws.String("b")})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "versions of b", len(page.Versions), 3)
}

func testOwner(t *testing.T, s s3Server) {
	bucket, key := s.newBucket(t, true), "app.zip"
	s.put(t, bucket, key, "x")
	if _, err := s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key, ExpectedBucketOwner: &s.owner}); err != nil {
		t.Error(err)
	}
	_, err := s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key, ExpectedBucketOwner: aws.String("999999999999")})
	wantCode(t, err, "AccessDenied")
}

func testConditions(t *testing.T, s s3Server) {
	bucket, key := s.newBucket(t, true), "once"
	in := func() *s3.PutObjectInput {
		return &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader("x"), IfNoneMatch: aws.String("*")}
	}
	put, err := s.client.PutObject(t.Context(), in())
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.client.PutObject(t.Context(), in())
	wantCode(t, err, "PreconditionFailed")
	if _, err = s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key, IfMatch: put.ETag}); err != nil {
		t.Error(err)
	}
	_, err = s.get(t, &s3.GetObjectInput{Bucket: &bucket, Key: &key, IfMatch: aws.String(`"00000000000000000000000000000000"`)})
	wantCode(t, err, "PreconditionFailed")
}

// testStream uploads something of more than one chunk, with metadata.
func testStream(t *testing.T, s s3Server) {
	bucket, key := s.newBucket(t, true), "large"
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<13+1)
	_, err := s.client.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: bytes.NewReader(data), ContentType: aws.String("application/zip"),
		Metadata: map[string]string{"origin": "a build"},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	got, err := io.ReadAll(out.Body)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d, %v", len(got), len(data), err)
	}
	want(t, "content type", aws.ToString(out.ContentType), "application/zip")
	want(t, "metadata", out.Metadata, map[string]string{"origin": "a build"})
}
