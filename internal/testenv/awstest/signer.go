package awstest

import (
	"regexp"
	"slices"
	"sync"
	"time"
)

// signerPlatform is the one platform whose profiles sign payloads.
const signerPlatform = "Notation-OCI-SHA384-ECDSA"

// signerStore holds the profiles and jobs of every account and region.
type signerStore struct {
	mu       sync.Mutex
	profiles map[string]*SigningProfile // by ARN: the version that is current
	versions map[string]*SigningProfile // by version ARN
	jobs     map[string]*signerJob      // by ARN
	revoked  map[string]bool            // certificate hashes

	once          sync.Once
	chain, forged signerChain
}

func newSignerStore() *signerStore {
	return &signerStore{
		profiles: map[string]*SigningProfile{}, versions: map[string]*SigningProfile{},
		jobs: map[string]*signerJob{}, revoked: map[string]bool{},
	}
}

// SigningProfile is a version of a signing profile of AWS Signer. Its methods
// change what Signer answers from then on.
type SigningProfile struct {
	account  *Account
	region   string
	name     string
	version  string // ten letters and digits
	validity time.Duration

	// Guarded by the store's mutex.
	status string    // "Active", "Canceled", "Revoked"
	since  time.Time // from when signatures are revoked
	shared []string  // accounts
	faults []*SignerFault
}

// signerJob is a signature that was made.
type signerJob struct {
	arn     string
	owner   *Account
	profile *SigningProfile
	revoked bool
}

var profileName = regexp.MustCompile(`^[a-zA-Z0-9_]{2,64}$`)

// SigningProfile returns a profile of the platform Notation-OCI-SHA384-ECDSA, which
// is made on first use. Its signatures expire after validity; zero is what AWS takes
// if nothing is said, 135 months. Of a profile that was cancelled or revoked, a new
// version is made.
func (a *Account) SigningProfile(region, name string, validity time.Duration) *SigningProfile {
	if !profileName.MatchString(name) || !partitions[a.partition].regions.MatchString(region) || validity < 0 {
		panic("awstest: " + name + " is no signing profile")
	}
	store := a.w.data.signer
	store.mu.Lock()
	defer store.mu.Unlock()
	arn := a.arn("signer", region, "/signing-profiles/"+name)
	if p := store.profiles[arn]; p != nil && p.status == "Active" {
		return p
	}
	p := &SigningProfile{
		account: a, region: region, name: name, version: randomText(10, alphanumeric{}), validity: validity, status: "Active",
	}
	store.profiles[arn] = p
	store.versions[p.VersionARN()] = p
	return p
}

// alphanumeric encodes bytes as letters and digits, one each.
type alphanumeric struct{}

func (alphanumeric) EncodeToString(b []byte) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	out := make([]byte, len(b))
	for i := range b {
		out[i] = letters[int(b[i])%len(letters)]
	}
	return string(out)
}

func (p *SigningProfile) store() *signerStore { return p.account.w.data.signer }

// Name is the profile's name.
func (p *SigningProfile) Name() string { return p.name }

// Version is the profile's version.
func (p *SigningProfile) Version() string { return p.version }

// ARN is the profile's, without its version.
func (p *SigningProfile) ARN() string {
	return p.account.arn("signer", p.region, "/signing-profiles/"+p.name)
}

// VersionARN is the profile's with its version, which signatures name.
func (p *SigningProfile) VersionARN() string { return p.ARN() + "/" + p.version }

// Share lets other accounts sign by the profile and ask for it, as far as their own
// IAM allows.
func (p *SigningProfile) Share(accounts ...string) *SigningProfile {
	p.store().mu.Lock()
	defer p.store().mu.Unlock()
	p.shared = append(p.shared, accounts...)
	return p
}

// Cancel ends the profile. It makes no signatures any more; those it made stay.
func (p *SigningProfile) Cancel() {
	p.store().mu.Lock()
	defer p.store().mu.Unlock()
	p.status = "Canceled"
}

// Revoke ends the profile and revokes the signatures that it made since a time.
func (p *SigningProfile) Revoke(effective time.Time) {
	p.store().mu.Lock()
	defer p.store().mu.Unlock()
	p.status, p.since = "Revoked", effective
}

// sharedWith tells whether an account may use the profile.
func (p *SigningProfile) sharedWith(a *Account) bool {
	p.store().mu.Lock()
	defer p.store().mu.Unlock()
	return p.account == a || slices.Contains(p.shared, a.id)
}

// state is the profile's status, and from when its signatures are revoked.
func (p *SigningProfile) state() (string, time.Time) {
	p.store().mu.Lock()
	defer p.store().mu.Unlock()
	return p.status, p.since
}

// expiry is when a signature of a time expires.
func (p *SigningProfile) expiry(at time.Time) time.Time {
	if p.validity == 0 {
		return at.AddDate(0, 135, 0)
	}
	return at.Add(p.validity)
}

// RevokeSignature revokes the signature of a job, which is named by its ARN.
func (w *World) RevokeSignature(jobARN string) {
	s := w.data.signer
	s.mu.Lock()
	defer s.mu.Unlock()
	job := s.jobs[jobARN]
	if job == nil {
		panic("awstest: no such signing job: " + jobARN)
	}
	job.revoked = true
}

// SigningJobs are the ARNs of the jobs of an account's region, in no order.
func (a *Account) SigningJobs(region string) []string {
	s := a.w.data.signer
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for arn, job := range s.jobs {
		if job.owner == a && job.profile.region == region {
			out = append(out, arn)
		}
	}
	return out
}

// SignerFault is a dishonest answer of Signer: of a service that was broken into, or
// of somebody who answers in its place. What is refused stays refused.
type SignerFault struct {
	Times int // how often it strikes; 0: until ClearFaults

	WrongDescriptor bool // the digest signed is another one
	WrongSize       bool // the size signed is another one
	WrongMediaType  bool // the media type signed is that of an OCI manifest
	WrongProfile    bool // the profile version named is of another profile
	WrongJob        bool // the job named is another one than answered
	Expired         bool // the signature expired a minute ago
	Future          bool // it will be made tomorrow
	NoExpiry        bool // it never expires
	OtherChain      bool // by a chain of the same names whose root is nobody's
	ShortChain      bool // without the root
	FlipBit         bool // of the signature
	Truncate        bool // half an envelope
	NoCritical      bool // the attributes of Signer are there, none critical
	NoPlugin        bool // no plugin is named
	NoProfile       bool // no profile version is named
	NoJob           bool // no job is named
	UnknownCritical bool // a critical attribute that nobody knows
	WrongPlugin     bool // another plugin is named
	WrongScheme     bool // notary.x509, by which anybody signs for himself
}

// Fault makes Signer answer dishonestly for the profile. Of several faults, the
// oldest strikes.
func (p *SigningProfile) Fault(f SignerFault) *SigningProfile {
	p.store().mu.Lock()
	defer p.store().mu.Unlock()
	if f.Times == 0 {
		f.Times = -1
	}
	p.faults = append(p.faults, &f)
	return p
}

// ClearFaults makes Signer honest again.
func (p *SigningProfile) ClearFaults() {
	p.store().mu.Lock()
	defer p.store().mu.Unlock()
	p.faults = nil
}

func (p *SigningProfile) takeFault() SignerFault {
	p.store().mu.Lock()
	defer p.store().mu.Unlock()
	if len(p.faults) == 0 {
		return SignerFault{}
	}
	f := p.faults[0]
	if f.Times--; f.Times == 0 {
		p.faults = p.faults[1:]
	}
	return *f
}
