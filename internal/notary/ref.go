package notary

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/assay-build/assay/internal/refusal"
)

// Ref names the signing profile to sign with. Region and Account are empty where the
// reference gave a bare name: then it is a profile of the caller's own account
// and region.
type Ref struct {
	Partition string
	Region    string
	Account   string
	Profile   string
}

const refScheme = "signer://"

// ParseRef reads signer:///NAME, signer://NAME or
// signer:///arn:aws:signer:REGION:ACCOUNT:/signing-profiles/NAME. A version is refused:
// AWS Signer always signs with the profile's current one, and which versions count is for
// Trust to say.
func ParseRef(ref string) (Ref, error) {
	name, ok := strings.CutPrefix(ref, refScheme)
	if !ok {
		return Ref{}, refusal.New(CodeRefInvalid, "%.80q does not begin with %s", ref, refScheme)
	}
	name, rooted := strings.CutPrefix(name, "/")
	if !strings.HasPrefix(name, "arn:") {
		if !isProfileName(name) {
			return Ref{}, refusal.New(CodeRefInvalid, "%.80q names no profile: 2 to 64 letters, digits or underscores", ref)
		}
		return Ref{Profile: name}, nil
	}
	if !rooted {
		return Ref{}, refusal.New(CodeRefInvalid, "%.160q: an ARN follows three slashes", ref)
	}
	p, ok := parseProfileARN(name)
	switch {
	case !ok:
		return Ref{}, refusal.New(CodeRefInvalid, "%.160q is not the ARN of a signing profile", ref)
	case p.version != "":
		return Ref{}, refusal.New(CodeRefInvalid, "%.160q names a version; a profile signs with its current one", ref)
	}
	return Ref{Partition: p.partition, Region: p.region, Account: p.account, Profile: p.name}, nil
}

// String is the reference in its canonical form.
func (r Ref) String() string {
	if r.Account == "" {
		return refScheme + "/" + r.Profile
	}
	return refScheme + "/" + profileARN{r.Partition, r.Region, r.Account, r.Profile, ""}.String()
}

// names reports whether p is a version of the profile that r names.
func (r Ref) names(p profileARN) bool {
	return p.name == r.Profile &&
		(r.Account == "" || p.account == r.Account) &&
		(r.Partition == "" || p.partition == r.Partition) &&
		(r.Region == "" || p.region == r.Region)
}

// profileARN is the ARN of a signing profile, or of one version of it.
type profileARN struct {
	partition, region, account, name, version string
}

// parseProfileARN reads ARNs of one spelling only: what it accepts, String writes again.
func parseProfileARN(s string) (profileARN, bool) {
	a, ok := parseSignerARN(s)
	resource, profile := strings.CutPrefix(a.Resource, "/signing-profiles/")
	name, version, versioned := strings.Cut(resource, "/")
	if !ok || !profile || !isProfileName(name) || versioned && !isProfileVersion(version) {
		return profileARN{}, false
	}
	return profileARN{a.Partition, a.Region, a.AccountID, name, version}, true
}

func (p profileARN) String() string {
	s := "arn:" + p.partition + ":signer:" + p.region + ":" + p.account + ":/signing-profiles/" + p.name
	if p.version != "" {
		s += "/" + p.version
	}
	return s
}

// jobARN is the ARN of a signing job.
type jobARN struct {
	partition, region, account, id string
}

func parseJobARN(s string) (jobARN, bool) {
	a, ok := parseSignerARN(s)
	id, job := strings.CutPrefix(a.Resource, "/signing-jobs/")
	if !ok || !job || !isJobID(id) {
		return jobARN{}, false
	}
	return jobARN{a.Partition, a.Region, a.AccountID, id}, true
}

const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyz"
	capital = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func parseSignerARN(s string) (arn.ARN, bool) {
	a, err := arn.Parse(s)
	ok := err == nil && a.Service == "signer" &&
		made(a.Partition, letters+"-", 3, 16) && (a.Partition == "aws" || strings.HasPrefix(a.Partition, "aws-")) &&
		isRegion(a.Region) && made(a.AccountID, digits, 12, 12)
	return a, ok
}

func isRegion(s string) bool {
	return made(s, letters+digits+"-", 5, 32) && s[0] != '-' && s[len(s)-1] != '-'
}
func isProfileName(s string) bool { return made(s, letters+capital+digits+"_", 2, 64) }

// isProfileVersion is AWS's own pattern.
func isProfileVersion(s string) bool { return made(s, letters+capital+digits, 10, 10) }
func isJobID(s string) bool          { return made(s, letters+capital+digits+"-", 1, 64) }

// made reports whether s is made of the characters of set and has a length within limits.
func made(s, set string, shortest, longest int) bool {
	return len(s) >= shortest && len(s) <= longest && strings.Trim(s, set) == ""
}
