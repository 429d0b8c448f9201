package awstest

import (
	"context"
	"slices"
	"strconv"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"pgregory.net/rapid"
)

func TestBucket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	b := acct.Bucket(testRegion, "artifacts", Versioned(true))
	s := s3Server{client: s3.NewFromConfig(w.AWSConfig(acct.Role("all").Allow("*").Session("s"), testRegion))}
	name, key := b.Name(), "app zip+1"

	first := b.Put(key, []byte("one"))
	b.SuspendVersioning()
	want(t, "version while suspended", b.Put(key, []byte("two")), nullVersion)
	want(t, "version while suspended", b.Put(key, []byte("three")), nullVersion)
	for version, body := range map[string]string{first: "one", nullVersion: "three"} {
		got, err := s.get(t, &s3.GetObjectInput{Bucket: &name, Key: &key, VersionId: &version})
		if err != nil || got != body {
			t.Errorf("version %s: %q, %v", version, got, err)
		}
	}
	b.Delete(key)
	_, err := s.get(t, &s3.GetObjectInput{Bucket: &name, Key: &key})
	wantCode(t, err, "NoSuchKey")

	state, err := s.client.GetBucketVersioning(t.Context(), &s3.GetBucketVersioningInput{Bucket: &name})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "versioning", state.Status, types.BucketVersioningStatusSuspended)
	place, err := s.client.GetBucketLocation(t.Context(), &s3.GetBucketLocationInput{Bucket: &name})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "location", place.LocationConstraint, types.BucketLocationConstraintEuWest1)
	head, err := s.client.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: &name})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "region", aws.ToString(head.BucketRegion), testRegion)

	versions, err := s.client.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &name, EncodingType: types.EncodingTypeUrl})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "encoded key", aws.ToString(versions.Versions[0].Key), "app+zip%2B1")

	plain := acct.Bucket(testRegion, "plain")
	plain.Put("x", nil)
	plain.Delete("x")
	want(t, "objects after the delete", len(plain.list("")), 0)
	mustPanic(t, "the same name", func() { w.Account(otherAccount).Bucket("us-west-2", "plain") })
	mustPanic(t, "a bad name", func() { acct.Bucket(testRegion, "Plain") })
	mustPanic(t, "no such version", func() { plain.Rewrite("x", nullVersion, nil) })
}

// TestPages: however long the pages are, together they are the whole list.
func TestPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	c := s3.NewFromConfig(w.AWSConfig(acct.Role("all").Allow("*").Session("s"), testRegion))
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		b := acct.Bucket(testRegion, "b-"+strconv.Itoa(n), Versioned(true))
		for range rapid.IntRange(0, 12).Draw(rt, "writes") {
			key := rapid.StringMatching(`[ab/]{1,3}`).Draw(rt, "key")
			if rapid.Bool().Draw(rt, "delete") {
				b.Delete(key)
			} else {
				b.Put(key, []byte(key))
			}
		}
		in := s3.ListObjectsV2Input{
			Bucket:    aws.String(b.Name()),
			Prefix:    aws.String(rapid.SampledFrom([]string{"", "a", "a/"}).Draw(rt, "prefix")),
			Delimiter: optional(rapid.SampledFrom([]string{"", "/"}).Draw(rt, "delimiter")),
		}
		size := rapid.Int32Range(1, 4).Draw(rt, "page")
		whole, paged := in, in
		paged.MaxKeys = &size
		if a, b := listAll(rt, c, &whole), listAll(rt, c, &paged); !slices.Equal(a, b) {
			rt.Errorf("whole %q, in pages of %d %q", a, size, b)
		}
	})
}

// listAll returns keys and common prefixes, sorted.
func listAll(t *rapid.T, c *s3.Client, in *s3.ListObjectsV2Input) []string {
	var out []string
	for p := s3.NewListObjectsV2Paginator(c, in); p.HasMorePages(); {
		page, err := p.NextPage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			out = append(out, *o.Key)
		}
		for _, c := range page.CommonPrefixes {
			out = append(out, *c.Prefix)
		}
	}
	slices.Sort(out)
	return out
}
