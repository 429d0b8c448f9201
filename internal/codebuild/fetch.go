package codebuild

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/boundhttp"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeNoArtifacts: the build uploaded nothing that is still there.
	CodeNoArtifacts refusal.Code = "CODEBUILD_NO_ARTIFACTS"
	// CodeArtifactInvalid: an artifact's location or key cannot be read, or not be
	// the name of a subject.
	CodeArtifactInvalid refusal.Code = "CODEBUILD_ARTIFACT_INVALID"
	// CodeArtifactDigestMismatch: no version of the object has the digest that
	// CodeBuild recorded.
	CodeArtifactDigestMismatch refusal.Code = "CODEBUILD_ARTIFACT_DIGEST_MISMATCH"
	// CodeArtifactTooLarge: the artifacts have more bytes than may be read.
	CodeArtifactTooLarge refusal.Code = "CODEBUILD_ARTIFACT_TOO_LARGE"
	// CodeArtifactTooMany: the artifacts are more objects than may be read.
	CodeArtifactTooMany refusal.Code = "CODEBUILD_ARTIFACT_TOO_MANY"
	// CodeArtifactChanged: what was uploaded was written twice during the upload,
	// or is not the object that was listed.
	CodeArtifactChanged refusal.Code = "CODEBUILD_ARTIFACT_CHANGED"
	// CodeArtifactUnversioned: the bucket keeps no versions, and CodeBuild recorded
	// no digest, so that nothing tells what was uploaded from what is there now.
	CodeArtifactUnversioned refusal.Code = "CODEBUILD_ARTIFACT_UNVERSIONED"
)

// uploadSkew is how far the clocks of CodeBuild and S3 may differ, which are both
// AWS's own.
const uploadSkew = 10 * time.Second

// noVersion is the version id of what was written while a bucket kept no versions.
const noVersion = "null"

var (
	reS3ARN = lazy(`^arn:` + partitionPattern + `:s3:::([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?$`)
	// reSpecialBucket are names that the SDK does not send to the bucket's S3 host.
	reSpecialBucket = lazy(`(?:--x-s3|--xa-s3|--ol-s3|--op-s3|--table-s3|-s3alias|\.mrap)$`)
)

// Object is one object that a build uploaded, hashed.
type Object struct {
	Name           string // "bucket/key"
	Bucket, Key    string
	VersionID      string // "" where the bucket keeps none
	SHA256, SHA512 string // lower-case hex
	Size           int64
	Confirmed      bool   // CodeBuild recorded the same SHA-256
	Path           string // where the bytes are kept, if they are
}

// Copy takes the bytes of one object while they are read and hashed. Name is where
// they are afterwards; what turns out not to be the build's is removed from there.
type Copy interface {
	io.WriteCloser
	Name() string
}

// version is one version of a key, as S3 lists it.
type version struct {
	key, id string
	size    int64
}

// fetch is one run of Fetch with what is left of its limits.
type fetch struct {
	r          *Reader
	store      *s3.Client
	build      *Build
	bytes      int64
	objects    int
	maxBytes   int64
	maxObjects int
	keep       func() (Copy, error)
}

// Fetch reads and hashes what a finished build uploaded, sorted by name. See the
// package comment for what counts as uploaded. It takes as long as the reading
// does: bound it by ctx. Where keep is not nil each object is copied into what it
// returns; the copies are the caller's to remove, also after an error.
func (r *Reader) Fetch(ctx context.Context, b *Build, maxBytes int64, maxObjects int, keep func() (Copy, error)) ([]Object, error) {
	arn, err := ParseBuildARN(b.ARN)
	if err != nil {
		return nil, err
	}
	c, err := r.allowed(arn)
	if err != nil {
		return nil, err
	}
	if b.FinishedAt.IsZero() {
		return nil, refusal.New(CodeNotFinished, "build %s still runs", arn.ID())
	}
	f := &fetch{r: r, store: c.store, build: b, bytes: maxBytes, objects: maxObjects, maxBytes: maxBytes, maxObjects: maxObjects, keep: keep}
	byName := make(map[string]Object)
	for i := range b.Artifacts {
		objects, err := f.artifact(ctx, &b.Artifacts[i])
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			// Two artifacts may share a prefix; an object is one object all the same.
			if was, ok := byName[o.Name]; ok {
				if was.SHA256 != o.SHA256 || was.VersionID != o.VersionID {
					return nil, refusal.New(CodeArtifactChanged, "%.300q is of two artifacts, and differs", o.Name)
				}
				o.Confirmed = o.Confirmed || was.Confirmed
			}
			byName[o.Name] = o
		}
	}
	if len(byName) == 0 {
		return nil, refusal.New(CodeNoArtifacts, "build %s uploaded nothing that is still there", arn.ID())
	}
	out := make([]Object, 0, len(byName))
	for _, o := range byName {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b Object) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func (f *fetch) artifact(ctx context.Context, a *Artifact) ([]Object, error) {
	m := reS3ARN().FindStringSubmatch(a.Location)
	if m == nil || m[1] != f.build.Partition || strings.Contains(m[2], "..") || reSpecialBucket().MatchString(m[2]) {
		return nil, refusal.New(CodeArtifactInvalid, "the artifact's location %.300q is not an object or prefix of an S3 bucket", a.Location)
	}
	bucket, key := m[2], strings.TrimSuffix(m[3], "/")
	versions, err := f.list(ctx, bucket, key, true)
	if err != nil {
		return nil, err
	}
	if a.SHA256 != "" {
		o, err := f.confirmed(ctx, bucket, key, versions, a.SHA256)
		if err != nil {
			return nil, err
		}
		return []Object{*o}, nil
	}
	// The slash matters: app/ has nothing to do with app-of-somebody-else/.
	below := key + "/"
	if key == "" {
		below = ""
	}
	more, err := f.list(ctx, bucket, below, false)
	if err != nil {
		return nil, err
	}
	versions = append(versions, more...)
	var out []Object
	for i, v := range versions {
		if v.id == noVersion {
			return nil, refusal.New(CodeArtifactUnversioned, "bucket %s keeps no versions, and CodeBuild recorded no digest of %.300q: use a versioned bucket, or packaging ZIP", bucket, v.key)
		}
		if i > 0 && versions[i-1].key == v.key {
			return nil, refusal.New(CodeArtifactChanged, "%.300q was written more than once while the build uploaded", v.key)
		}
		o, err := f.read(ctx, bucket, v)
		if err != nil {
			return nil, err
		}
		out = append(out, *o)
	}
	return out, nil
}

// confirmed returns the version that has the digest CodeBuild recorded. Builds
// may write one key in turn, so there may be others; only the digest counts.
func (f *fetch) confirmed(ctx context.Context, bucket, key string, versions []version, sum string) (*Object, error) {
	if len(versions) == 0 {
		return nil, refusal.New(CodeNoArtifacts, "bucket %s has no version of %.300q from the time of the upload", bucket, key)
	}
	for _, v := range versions {
		o, err := f.read(ctx, bucket, v)
		if err != nil {
			return nil, err
		}
		if o.SHA256 == sum {
			o.Confirmed = true
			return o, nil
		}
		if o.Path != "" {
			if err := os.Remove(o.Path); err != nil {
				return nil, err
			}
		}
	}
	return nil, refusal.New(CodeArtifactDigestMismatch, "no object at %.300q from the time of the upload has the SHA-256 %s that CodeBuild recorded", bucket+"/"+key, sum)
}

// uploaded returns the times between which CodeBuild uploaded. The commands of
// the build ran before: what they or others wrote meanwhile is nobody's artifact.
// S3 tells whole seconds.
func (b *Build) uploaded() (from, to time.Time) {
	from, to = b.UploadStartedAt, b.UploadEndedAt
	if from.Before(b.StartedAt) || to.After(b.FinishedAt) || to.Before(from) {
		from, to = b.StartedAt, b.FinishedAt
	}
	return from.Add(-uploadSkew).Truncate(time.Second), to.Add(uploadSkew)
}

// list returns the versions that were written while the build uploaded, of keys
// that begin with prefix or, if exact, are it. What is older is another build's,
// and what is newer cannot be this one's. Sorted by key.
func (f *fetch) list(ctx context.Context, bucket, prefix string, exact bool) ([]version, error) {
	if exact && prefix == "" {
		return nil, nil // the whole bucket: there is no object of that name
	}
	from, to := f.build.uploaded()
	in := &s3.ListObjectVersionsInput{
		Bucket: aws.String(bucket), Prefix: aws.String(prefix), ExpectedBucketOwner: aws.String(f.build.Account),
	}
	// A page has up to 1000 versions; a prefix that other builds share may have
	// many that are not this one's.
	maxPages := f.maxObjects/100 + 10
	var out []version
list:
	for page := 0; ; page++ {
		if page == maxPages {
			return nil, refusal.New(CodeArtifactTooMany, "bucket %s lists more than %d pages of versions under %.300q, which is the limit", bucket, maxPages, prefix)
		}
		listed, err := f.store.ListObjectVersions(ctx, in)
		if err != nil {
			return nil, f.failed(ctx, bucket, err)
		}
		for i := range listed.Versions {
			v := &listed.Versions[i]
			k := aws.ToString(v.Key)
			if exact && k > prefix {
				break list // keys come sorted
			}
			if !strings.HasPrefix(k, prefix) || v.LastModified == nil || v.LastModified.Before(from) || v.LastModified.After(to) {
				continue
			}
			if strings.HasSuffix(k, "/") && aws.ToInt64(v.Size) == 0 {
				continue // what consoles make to show a folder
			}
			out = append(out, version{key: k, id: aws.ToString(v.VersionId), size: aws.ToInt64(v.Size)})
			if len(out) > f.objects {
				return nil, refusal.New(CodeArtifactTooMany, "the build uploaded more than %d objects, which is the limit", f.maxObjects)
			}
		}
		if !aws.ToBool(listed.IsTruncated) {
			break
		}
		if aws.ToString(listed.NextKeyMarker) == aws.ToString(in.KeyMarker) && aws.ToString(listed.NextVersionIdMarker) == aws.ToString(in.VersionIdMarker) {
			return nil, f.failed(ctx, bucket, errors.New("the list does not go on"))
		}
		in.KeyMarker, in.VersionIdMarker = listed.NextKeyMarker, listed.NextVersionIdMarker
	}
	f.objects -= len(out)
	slices.SortStableFunc(out, func(a, b version) int { return cmp.Compare(a.key, b.key) })
	return out, nil
}

// read hashes one version.
func (f *fetch) read(ctx context.Context, bucket string, v version) (*Object, error) {
	name := bucket + "/" + v.key
	if err := attest.CheckSubjectName(name); err != nil {
		return nil, refusal.New(CodeArtifactInvalid, "%.300q cannot be the name of a subject: %w", name, err)
	}
	if v.size < 0 || v.size > f.bytes {
		return nil, f.tooLarge()
	}
	in := &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(v.key), ExpectedBucketOwner: aws.String(f.build.Account)}
	if v.id != "" {
		in.VersionId = aws.String(v.id)
	}
	out, err := f.store.GetObject(boundhttp.Stream(ctx), in)
	if err != nil {
		return nil, f.failed(ctx, bucket, err)
	}
	defer out.Body.Close()
	// A bucket that never kept versions answers with none.
	if got := aws.ToString(out.VersionId); cmp.Or(got, noVersion) != cmp.Or(v.id, noVersion) {
		return nil, refusal.New(CodeArtifactChanged, "S3 answered with another version of %.300q than was asked for", name)
	}
	h256, h512 := sha256.New(), sha512.New()
	to, kept := []io.Writer{h256, h512}, ""
	if f.keep != nil {
		c, err := f.keep()
		if err != nil {
			return nil, err
		}
		defer c.Close()
		to, kept = append(to, c), c.Name()
	}
	// One byte more than listed shows an object that is not the listed one.
	n, err := io.Copy(io.MultiWriter(to...), io.LimitReader(out.Body, v.size+1))
	if refusal.CodeOf(err) != "" {
		return nil, err // of the copy
	}
	if err != nil {
		return nil, f.r.failed(ctx, "the artifact", err)
	}
	if n != v.size {
		return nil, refusal.New(CodeArtifactChanged, "%.300q has other than the %d bytes that were listed", name, v.size)
	}
	f.bytes -= n
	o := &Object{
		Name: name, Bucket: bucket, Key: v.key, VersionID: v.id, Size: n,
		SHA256: hex.EncodeToString(h256.Sum(nil)), SHA512: hex.EncodeToString(h512.Sum(nil)), Path: kept,
	}
	if o.VersionID == noVersion {
		o.VersionID = ""
	}
	return o, nil
}

func (f *fetch) tooLarge() error {
	return refusal.New(CodeArtifactTooLarge, "the build's artifacts have more than %d bytes, which is the limit", f.maxBytes)
}

// failed is Reader.failed for what only S3 says.
func (f *fetch) failed(ctx context.Context, bucket string, err error) error {
	switch apiErrorCode(err) {
	case "NoSuchBucket":
		return refusal.New(CodeNoArtifacts, "there is no bucket %s any more", bucket)
	case "NoSuchKey", "NoSuchVersion", "MethodNotAllowed": // the last is a delete marker's
		return refusal.New(CodeArtifactChanged, "an object of bucket %s was deleted while it was read", bucket)
	case "PermanentRedirect", "AuthorizationHeaderMalformed":
		return refusal.New(CodeArtifactInvalid, "bucket %s is not in region %s, where the build ran", bucket, f.build.Region)
	}
	return f.r.failed(ctx, "bucket "+bucket, err)
}
