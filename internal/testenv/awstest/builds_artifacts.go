package awstest

import (
	"archive/zip"
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"
)

// artifacts is where the build will put what a project keeps, and notes how it is
// packed, which the record of a build does not say.
func (b *Build) artifacts(p *types.ProjectArtifacts) *types.BuildArtifacts {
	out := &types.BuildArtifacts{ArtifactIdentifier: p.ArtifactIdentifier, Location: aws.String("")}
	if p.Type == types.ArtifactsTypeNoArtifacts {
		return out
	}
	b.packaging[aws.ToString(p.ArtifactIdentifier)] = p.Packaging
	out.EncryptionDisabled, out.OverrideArtifactName = aws.Bool(aws.ToBool(p.EncryptionDisabled)), aws.Bool(aws.ToBool(p.OverrideArtifactName))
	out.BucketOwnerAccess = p.BucketOwnerAccess
	*out.Location = "arn:" + b.Project.account.partition + ":s3:::" + artifactPath(p, b.UUID, b.Project.Name)
	return out
}

// artifactPath is BUCKET/PATH/NAMESPACE/NAME. The name "/" is the folder itself.
func artifactPath(p *types.ProjectArtifacts, buildUUID, project string) string {
	name := aws.ToString(p.Name)
	if name == "" {
		name = project
	}
	parts := []string{aws.ToString(p.Location), strings.Trim(aws.ToString(p.Path), "/")}
	if p.NamespaceType == types.ArtifactNamespaceBuildId {
		parts = append(parts, buildUUID)
	}
	parts = append(parts, strings.Trim(name, "/"))
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "/")
}

// Uploaded is an object that a build uploaded.
type Uploaded struct{ Bucket, Key, VersionID, SHA256 string }

// Upload is UploadFiles of one file.
func (b *Build) Upload(name string, content []byte) []Uploaded {
	return b.UploadFiles(map[string][]byte{name: content})
}

// UploadFiles lets the build go on to UPLOAD_ARTIFACTS, if it is not there, and
// puts files where its artifacts go: as one ZIP, whose digests then stand in the
// record, or as an object each. It panics if the build keeps no artifacts or the
// bucket does not exist.
func (b *Build) UploadFiles(files map[string][]byte) []Uploaded { return b.UploadTo("", files) }

// UploadTo is UploadFiles for the secondary artifact of an identifier.
func (b *Build) UploadTo(identifier string, files map[string][]byte) []Uploaded {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.artifact(identifier)
	bucket, key := b.place(aws.ToString(a.Location))
	b.advance(types.BuildPhaseTypeUploadArtifacts)
	put := func(key string, data []byte) Uploaded {
		sum := sha256.Sum256(data)
		return Uploaded{bucket.name, key, bucket.Put(key, data), hex.EncodeToString(sum[:])}
	}
	if b.packaging[identifier] == types.ArtifactPackagingZip {
		data := packZIP(files)
		up, sum := put(key, data), md5.Sum(data)
		a.Sha256sum, a.Md5sum = aws.String(up.SHA256), aws.String(hex.EncodeToString(sum[:]))
		return []Uploaded{up}
	}
	var out []Uploaded
	for _, name := range slices.Sorted(maps.Keys(files)) {
		out = append(out, put(strings.TrimPrefix(key+"/"+name, "/"), files[name]))
	}
	return out
}

// artifact finds one of the record's.
func (b *Build) artifact(identifier string) *types.BuildArtifacts {
	if identifier == "" {
		return b.record.Artifacts
	}
	for i := range b.record.SecondaryArtifacts {
		if aws.ToString(b.record.SecondaryArtifacts[i].ArtifactIdentifier) == identifier {
			return &b.record.SecondaryArtifacts[i]
		}
	}
	panic("awstest: the build has no secondary artifact " + identifier)
}

// place reads arn:PARTITION:s3:::BUCKET/KEY.
func (b *Build) place(location string) (*Bucket, string) {
	partition := b.Project.account.partition
	path, ok := strings.CutPrefix(location, "arn:"+partition+":s3:::")
	name, key, _ := strings.Cut(path, "/")
	bucket := b.Project.account.w.data.s3.bucket(partition, name)
	if !ok || bucket == nil {
		panic("awstest: artifacts have no place to go to: " + location)
	}
	return bucket, key
}

// packZIP packs files in the order of their names, without dates.
func packZIP(files map[string][]byte) []byte {
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := z.Create(name)
		if err == nil {
			_, err = f.Write(files[name])
		}
		if err != nil {
			panic("awstest: " + err.Error())
		}
	}
	if err := z.Close(); err != nil {
		panic("awstest: " + err.Error())
	}
	return buf.Bytes()
}
