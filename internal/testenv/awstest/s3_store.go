package awstest

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// nullVersion is the version id of what was written while versioning was off.
const nullVersion = "null"

// States of a bucket's versioning, in S3's spelling. The third is never having
// been asked for, which S3 says by saying nothing.
const (
	versioningEnabled   = "Enabled"
	versioningSuspended = "Suspended"
)

// s3Store holds the buckets of all accounts: their names are one name space per
// partition, as S3's are.
type s3Store struct {
	mu      sync.Mutex
	buckets map[[2]string]*Bucket // by partition and name
}

func newS3Store() *s3Store { return &s3Store{buckets: make(map[[2]string]*Bucket)} }

func (s *s3Store) bucket(partition, name string) *Bucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buckets[[2]string{partition, name}]
}

// bucketName is S3's grammar, without the rules that need more than a pattern.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// add is atomic, so that two accounts cannot both own a name.
func (s *s3Store) add(b *Bucket) {
	if !bucketName.MatchString(b.name) || strings.Contains(b.name, "..") {
		panic(fmt.Sprintf("awstest: %q is no name of a bucket", b.name))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := [2]string{b.partition, b.name}
	if s.buckets[at] != nil {
		panic("awstest: the bucket exists already: " + b.name)
	}
	s.buckets[at] = b
}

// Bucket is an S3 bucket. Its own methods are what its owner does behind the
// service's back: they need no permission. It is safe for concurrent use.
type Bucket struct {
	name, region     string
	partition, owner string
	now              func() time.Time

	mu         sync.Mutex
	versioning string
	keys       map[string][]*object // versions of a key, oldest first
	shared     map[string]bool      // accounts that the bucket policy lets in
}

// BucketOption is one property of a new bucket.
type BucketOption func(*Bucket)

// Versioned says whether the bucket keeps versions. The default is not to.
func Versioned(on bool) BucketOption {
	return func(b *Bucket) {
		if on {
			b.versioning = versioningEnabled
		}
	}
}

// SharedWith adds a bucket policy that lets the principals of other accounts in,
// as far as their own permissions go.
func SharedWith(accounts ...string) BucketOption {
	return func(b *Bucket) {
		for _, id := range accounts {
			b.shared[id] = true
		}
	}
}

func newBucket(partition, owner, region, name string, now func() time.Time, opts []BucketOption) *Bucket {
	b := &Bucket{
		name: name, region: region, partition: partition, owner: owner, now: now,
		keys: make(map[string][]*object), shared: make(map[string]bool),
	}
	for _, o := range opts {
		o(b)
	}
	return b
}

// ownerID is the canonical id of the owner: 64 digits that only S3 understands.
func (b *Bucket) ownerID() string {
	sum := sha256.Sum256([]byte(b.owner))
	return hex.EncodeToString(sum[:])
}

// Name is the bucket's name.
func (b *Bucket) Name() string { return b.name }

// ARN is arn:PARTITION:s3:::NAME.
func (b *Bucket) ARN() string { return "arn:" + b.partition + ":s3:::" + b.name }

// object is one version of a key, or a delete marker. It does not change.
type object struct {
	key, versionID string
	data           []byte
	etag           string // quoted
	contentType    string
	metadata       map[string]string // x-amz-meta-*, by header name
	checksum       checksum
	modified       time.Time
	deleteMarker   bool
}

// Put writes an object and returns its version id: "null" where the bucket
// keeps no versions. It carries the checksum that S3 adds by itself.
func (b *Bucket) Put(key string, data []byte) string {
	return b.put(&object{key: key, data: slices.Clone(data), checksum: newChecksum(checksumDefault, data)}).versionID
}

// Delete does what DeleteObject does without a version: it puts a delete marker
// where there are versions, and removes the object where there are none.
func (b *Bucket) Delete(key string) { b.delete(key) }

// Rewrite replaces the content of a version and nothing else, which S3 never
// does: not the version id, not the date, not the checksum that was stored. It
// is for tests of what a reader believes.
func (b *Bucket) Rewrite(key, versionID string, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.indexOf(key, versionID)
	if i < 0 {
		panic("awstest: no such version: " + b.name + "/" + key + " " + versionID)
	}
	forged := *b.keys[key][i]
	forged.data = slices.Clone(data)
	b.keys[key] = slices.Clone(b.keys[key])
	b.keys[key][i] = &forged
}

// SuspendVersioning stops versions from being kept. Those there are stay.
func (b *Bucket) SuspendVersioning() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.versioning = versioningSuspended
}

// put completes o and stores it as the newest version of its key.
func (b *Bucket) put(o *object) *object {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.putLocked(o)
}

func (b *Bucket) putLocked(o *object) *object {
	o.versionID = nullVersion
	if b.versioning == versioningEnabled {
		o.versionID = rand.Text()
	}
	o.modified = b.now().UTC().Truncate(time.Second) // S3 dates have no fractions
	if o.contentType == "" {
		o.contentType = "binary/octet-stream"
	}
	if !o.deleteMarker {
		sum := md5.Sum(o.data)
		o.etag = `"` + hex.EncodeToString(sum[:]) + `"`
	}
	if o.versionID == nullVersion {
		b.removeLocked(o.key, nullVersion) // there is at most one null version
	}
	b.keys[o.key] = append(slices.Clone(b.keys[o.key]), o)
	return o
}

// delete returns the delete marker it put, or nil where there are no versions.
func (b *Bucket) delete(key string) *object {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.versioning == "" {
		b.removeLocked(key, nullVersion)
		return nil
	}
	return b.putLocked(&object{key: key, deleteMarker: true})
}

// deleteVersion returns what it removed, or nil.
func (b *Bucket) deleteVersion(key, versionID string) *object {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.removeLocked(key, versionID)
}

func (b *Bucket) removeLocked(key, versionID string) *object {
	i := b.indexOf(key, versionID)
	if i < 0 {
		return nil
	}
	removed := b.keys[key][i]
	if b.keys[key] = slices.Delete(slices.Clone(b.keys[key]), i, i+1); len(b.keys[key]) == 0 {
		delete(b.keys, key)
	}
	return removed
}

func (b *Bucket) indexOf(key, versionID string) int {
	return slices.IndexFunc(b.keys[key], func(o *object) bool { return o.versionID == versionID })
}

// get returns a version, or the newest if versionID is empty; nil for none. What
// it returns may be a delete marker.
func (b *Bucket) get(key, versionID string) *object {
	b.mu.Lock()
	defer b.mu.Unlock()
	versions := b.keys[key]
	if versionID == "" && len(versions) > 0 {
		return versions[len(versions)-1]
	}
	if i := b.indexOf(key, versionID); i >= 0 {
		return versions[i]
	}
	return nil
}

// putIfAbsent puts o unless its key has a current object.
func (b *Bucket) putIfAbsent(o *object) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v := b.keys[o.key]; len(v) > 0 && !v[len(v)-1].deleteMarker {
		return false
	}
	b.putLocked(o)
	return true
}

// version is an entry of a listing.
type version struct {
	*object
	latest bool
}

// list returns the versions of all keys with a prefix: keys in order, the newest
// version of a key first, as ListObjectVersions has them.
func (b *Bucket) list(prefix string) []version {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []version
	for _, key := range slices.Sorted(maps.Keys(b.keys)) {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		for i, o := range slices.Backward(b.keys[key]) {
			out = append(out, version{object: o, latest: i == len(b.keys[key])-1})
		}
	}
	return out
}

func (b *Bucket) versioningState() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.versioning
}
