package awskms

import (
	"regexp"
	"strings"
	"sync"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeKeyRefInvalid refuses a key reference or ARN that cannot be read.
const CodeKeyRefInvalid refusal.Code = "KEY_REF_INVALID"

const (
	scheme = "awskms://"
	// maxRefBytes is more than the longest: an alias has up to 256 characters.
	maxRefBytes = 512

	arnPattern = `arn:(aws|aws-cn|aws-us-gov|aws-eusc|aws-iso|aws-iso-b|aws-iso-e|aws-iso-f):kms:` +
		`([a-z]{2,4}(?:-[a-z]{2,10}){1,2}-[0-9]{1,2}):([0-9]{12}):`
	keyPattern   = `([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|mrk-[0-9a-f]{32})`
	aliasPattern = `(alias/[A-Za-z0-9/_-]{1,250})`
)

var (
	reRef    = lazy(`^(?:` + arnPattern + `)?(?:(key/)?` + keyPattern + `|` + aliasPattern + `)$`)
	reRegion = lazy(`^[a-z]{2,4}(?:-[a-z]{2,10}){1,2}-[0-9]{1,2}$`)
)

func lazy(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// Ref is a reference to a key of KMS, read. Either Key or Alias is set.
type Ref struct {
	// Partition, Region and Account are those of an ARN, and empty without one.
	Partition, Region, Account string
	// Key is a key's id: a UUID, or mrk- and 32 digits.
	Key string
	// Alias is a key's name with what marks it: alias/NAME.
	Alias string
}

// ParseRef reads a reference: awskms:/// and an id, an alias or the ARN of either.
// There is one spelling of each: what ParseRef reads, String writes.
func ParseRef(ref string) (Ref, error) {
	rest, ok := strings.CutPrefix(ref, scheme)
	if !ok {
		return Ref{}, badRef(ref, "write awskms:///KEY")
	}
	if len(ref) > maxRefBytes {
		return Ref{}, badRef(ref, "it is longer than any can be")
	}
	host, id, ok := strings.Cut(rest, "/")
	if !ok || host != "" {
		return Ref{}, badRef(ref, "no host may stand before the third slash; endpoints are configured, not named by references")
	}
	return parseID(ref, id)
}

// parseARN reads the ARN of a key; an alias is none.
func parseARN(arn string) (Ref, error) {
	r, err := parseID(arn, arn)
	if err != nil {
		return Ref{}, err
	}
	if r.Region == "" || r.Key == "" {
		return Ref{}, badRef(arn, "write the key's ARN, arn:PARTITION:kms:REGION:ACCOUNT:key/ID")
	}
	return r, nil
}

func parseID(ref, id string) (Ref, error) {
	if len(id) > maxRefBytes {
		return Ref{}, badRef(ref, "it is longer than any can be")
	}
	m := reRef().FindStringSubmatch(id)
	// An ARN says key/ID where a bare reference says ID.
	if m == nil || m[5] != "" && (m[1] != "") != (m[4] != "") {
		return Ref{}, badRef(ref, "want a key's id, alias/NAME or the ARN of one, all lower-case but the name")
	}
	r := Ref{Partition: m[1], Region: m[2], Account: m[3], Key: m[5], Alias: m[6]}
	if r.Region != "" && partitionOf(r.Region) != r.Partition {
		return Ref{}, badRef(ref, "its region is not of its partition")
	}
	return r, nil
}

func badRef(ref, hint string) error {
	return refusal.New(CodeKeyRefInvalid, "%.300q is not a reference to a KMS key: %s", ref, hint)
}

// ID is what KMS is asked for: the reference without its scheme.
func (r Ref) ID() string {
	id := r.Alias
	if r.Key != "" {
		id = r.Key
	}
	if r.Region == "" {
		return id
	}
	if r.Key != "" {
		id = "key/" + id
	}
	return "arn:" + r.Partition + ":kms:" + r.Region + ":" + r.Account + ":" + id
}

// String returns the reference.
func (r Ref) String() string { return scheme + "/" + r.ID() }

// partitionOf returns the partition a region is in. A region that is not known
// yet is in the commercial one, as AWS has added them so far.
func partitionOf(region string) string {
	for _, p := range [...]struct{ prefix, partition string }{
		{"cn-", "aws-cn"}, {"us-gov-", "aws-us-gov"}, {"eusc-", "aws-eusc"}, {"us-iso-", "aws-iso"},
		{"us-isob-", "aws-iso-b"}, {"eu-isoe-", "aws-iso-e"}, {"us-isof-", "aws-iso-f"},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p.partition
		}
	}
	return "aws"
}
