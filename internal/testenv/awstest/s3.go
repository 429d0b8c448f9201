package awstest

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Bucket makes a bucket of the account in a region. It keeps no versions unless
// told to.
func (a *Account) Bucket(region, name string, opts ...BucketOption) *Bucket {
	b := newBucket(a.partition, a.id, region, name, a.w.now, opts)
	a.w.data.s3.add(b)
	return b
}

const s3Namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

// s3Operations are what this stand-in does, with the permission each one needs.
// An operation that reads or removes a version by its id needs that of versions.
var s3Operations = map[string]struct{ permission, onVersion string }{
	"HeadBucket":          {permission: "s3:ListBucket"},
	"GetBucketLocation":   {permission: "s3:GetBucketLocation"},
	"GetBucketVersioning": {permission: "s3:GetBucketVersioning"},
	"ListObjectsV2":       {permission: "s3:ListBucket"},
	"ListObjectVersions":  {permission: "s3:ListBucketVersions"},
	"GetObject":           {permission: "s3:GetObject", onVersion: "s3:GetObjectVersion"},
	"HeadObject":          {permission: "s3:GetObject", onVersion: "s3:GetObjectVersion"},
	"PutObject":           {permission: "s3:PutObject"},
	"DeleteObject":        {permission: "s3:DeleteObject", onVersion: "s3:DeleteObjectVersion"},
}

// s3Target finds bucket and key, in the host (virtual-host style) or in the path.
func s3Target(e endpoint, r *http.Request) (bucket, key string) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	if e.bucket != "" {
		return e.bucket, path
	}
	bucket, key, _ = strings.Cut(path, "/")
	return bucket, key
}

// s3Action names the operation of a request; empty if this stand-in has none for
// it. Query parameters that would make it another operation are not overlooked.
func s3Action(e endpoint, r *http.Request) string {
	bucket, key := s3Target(e, r)
	q := r.URL.Query()
	sub := s3Subresource(q)
	switch {
	case bucket == "":
		return ""
	case key == "" && r.Method == http.MethodHead && sub == "":
		return "HeadBucket"
	case key == "" && r.Method == http.MethodGet:
		switch sub {
		case "location":
			return "GetBucketLocation"
		case "versioning":
			return "GetBucketVersioning"
		case "versions":
			return "ListObjectVersions"
		case "":
			if q.Get("list-type") == "2" {
				return "ListObjectsV2"
			}
		}
		return ""
	case key == "" || sub != "" || r.Header.Get("X-Amz-Copy-Source") != "":
		return ""
	}
	return map[string]string{
		http.MethodGet: "GetObject", http.MethodHead: "HeadObject",
		http.MethodPut: "PutObject", http.MethodDelete: "DeleteObject",
	}[r.Method]
}

// s3Subresource is the query parameter that chooses an operation, if there is one.
func s3Subresource(q url.Values) string {
	for name := range q {
		switch {
		case slices.Contains([]string{
			"versionId", "list-type", "prefix", "delimiter", "max-keys", "encoding-type", "continuation-token",
			"start-after", "fetch-owner", "key-marker", "version-id-marker", "x-id", "partNumber",
		}, name), strings.HasPrefix(name, "response-"), strings.HasPrefix(name, "X-Amz-"):
		default:
			return name
		}
	}
	return ""
}

// s3Call is a call whose bucket is known and whose permission was checked.
type s3Call struct {
	*call
	bucket *Bucket
	key    string
	query  url.Values
}

func (w *World) serveS3(c *call) *reply {
	operation, ok := s3Operations[c.action]
	if !ok {
		return c.fail(http.StatusNotImplemented, "NotImplemented", "A header or query you provided requested a function that is not implemented.")
	}
	name, key := s3Target(c.endpoint, c.r)
	b := w.data.s3.bucket(c.endpoint.partition, name)
	if b == nil {
		return c.fail(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist")
	}
	if out := wrongRegion(c, b); out != nil {
		return out
	}
	if owner := c.r.Header.Get("X-Amz-Expected-Bucket-Owner"); owner != "" && owner != b.owner {
		return c.fail(http.StatusForbidden, "AccessDenied", "Access Denied")
	}
	s := &s3Call{call: c, bucket: b, key: key, query: c.r.URL.Query()}
	permission := operation.permission
	if operation.onVersion != "" && s.query.Has("versionId") {
		permission = operation.onVersion
	}
	if out := s.authorize(permission); out != nil {
		return out
	}
	return s.serve()
}

func (s *s3Call) serve() *reply {
	switch s.action {
	case "GetObject", "HeadObject":
		return s.getObject()
	case "PutObject":
		return s.putObject()
	case "DeleteObject":
		return s.deleteObject()
	case "ListObjectsV2":
		return s.listObjects()
	case "ListObjectVersions":
		return s.listVersions()
	case "GetBucketVersioning":
		return xmlReply(http.StatusOK, struct {
			XMLName xml.Name
			Status  string `xml:",omitempty"`
		}{xml.Name{Space: s3Namespace, Local: "VersioningConfiguration"}, s.bucket.versioningState()})
	case "GetBucketLocation":
		region := s.bucket.region
		if region == "us-east-1" { // which predates the question
			region = ""
		}
		return xmlReply(http.StatusOK, struct {
			XMLName xml.Name
			Region  string `xml:",chardata"`
		}{xml.Name{Space: s3Namespace, Local: "LocationConstraint"}, region})
	}
	return &reply{status: http.StatusOK, header: http.Header{"X-Amz-Bucket-Region": {s.bucket.region}}} // HeadBucket
}

// wrongRegion sends a request to the region of its bucket, as S3 does.
func wrongRegion(c *call, b *Bucket) *reply {
	if c.region == b.region {
		return nil
	}
	out := c.fail(http.StatusMovedPermanently, "PermanentRedirect",
		"The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint.")
	out.header.Set("X-Amz-Bucket-Region", b.region)
	return out
}

// authorize wants the caller's own permission and, for a bucket of another
// account, that of the bucket.
func (s *s3Call) authorize(permission string) *reply {
	resource := s.bucket.ARN()
	if s.key != "" {
		resource += "/" + s.key
	}
	if !s.may(permission, resource) {
		return s.fail(http.StatusForbidden, "AccessDenied",
			fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %q", s.principal.arn, permission, resource))
	}
	return nil
}

func (s *s3Call) may(permission, resource string) bool {
	home := s.principal.account.id == s.bucket.owner || s.bucket.shared[s.principal.account.id]
	return home && s.principal.allowed(permission, resource)
}
