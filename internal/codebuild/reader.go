package codebuild

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/assay-build/assay/internal/boundhttp"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeConfigInvalid: a configuration that would read nothing, or believe too much.
	CodeConfigInvalid refusal.Code = "CODEBUILD_CONFIG_INVALID"
	// CodeAccountNotAllowed: the build's account is not configured.
	CodeAccountNotAllowed refusal.Code = "CODEBUILD_ACCOUNT_NOT_ALLOWED"
	// CodeRegionNotAllowed: the build's region is not configured for its account.
	CodeRegionNotAllowed refusal.Code = "CODEBUILD_REGION_NOT_ALLOWED"
	// CodeProjectNotAllowed: the build's project is not configured for its account.
	CodeProjectNotAllowed refusal.Code = "CODEBUILD_PROJECT_NOT_ALLOWED"
)

// MaxTrustTTL is the longest that a role's trust policy is believed.
const MaxTrustTTL = 15 * time.Minute

const (
	defaultSessionName = "AWSCodeBuild-{uuid}"
	uuidPlaceholder    = "{uuid}"
	defaultTrustTTL    = 5 * time.Minute
	// clockSkew is how far the clocks of AWS's services, of a job and of this
	// machine may differ.
	clockSkew = 60 * time.Second
	// anyProject, alone, allows every project of an account.
	anyProject = "*"
	// The limits of sts:AssumeRole.
	minExternalID, maxExternalID = 2, 1224
)

// Account is one AWS account whose builds are read.
type Account struct {
	ID        string
	Partition string // default "aws"
	// Regions in which builds may run. Required.
	Regions []string
	// ReaderRoleARN is a role of this account that the service assumes to read
	// builds, projects, roles and artifacts; ExternalID is what its trust policy
	// asks for, so that nobody can make another customer of this service read
	// here. Both are required.
	ReaderRoleARN string
	ExternalID    string // 2 to 1224 bytes
	// Projects are exact names, or the one entry "*". Required.
	Projects []string
}

// Config configures a Reader.
type Config struct {
	Accounts []Account
	// SessionName is how CodeBuild names the session of a job's role, with {uuid}
	// once. Default "AWSCodeBuild-{uuid}", which AWS does not document.
	SessionName string
	// PlaintextVariables names the environment variables whose values may be told,
	// exactly. Those that look like secrets are not told even so.
	PlaintextVariables []string
	// AWS holds the service's own credentials and HTTP client. Its region counts
	// for nothing. Redirects are not followed, if the client is the SDK's or an
	// *http.Client; one of another type must not follow any by itself.
	AWS aws.Config
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// TrustTTL is how long a role's trust policy is believed. Default 5 min, at
	// most 15.
	TrustTTL time.Duration
	// Logger default: slog.Default().
	Logger *slog.Logger
}

// Reader reads builds. It is safe for concurrent use.
type Reader struct {
	accounts    map[accountKey]*account
	sessionName string
	plaintext   map[string]bool
	now         func() time.Time
	trustTTL    time.Duration
	log         *slog.Logger

	mu     sync.Mutex
	trusts map[trustKey]trust
}

type accountKey struct{ partition, id string }

// account is a configured account with a client for each of its regions.
type account struct {
	Account
	clients map[string]*clients
}

// New checks the configuration. It sends nothing.
func New(cfg Config) (*Reader, error) {
	r := &Reader{
		accounts:    make(map[accountKey]*account, len(cfg.Accounts)),
		sessionName: cfg.SessionName,
		plaintext:   make(map[string]bool, len(cfg.PlaintextVariables)),
		now:         cfg.Now,
		trustTTL:    cfg.TrustTTL,
		log:         cfg.Logger,
		trusts:      make(map[trustKey]trust),
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.log == nil {
		r.log = slog.Default()
	}
	if r.sessionName == "" {
		r.sessionName = defaultSessionName
	}
	if r.trustTTL == 0 {
		r.trustTTL = defaultTrustTTL
	}
	if r.trustTTL < 0 || r.trustTTL > MaxTrustTTL {
		return nil, refusal.New(CodeConfigInvalid, "%s; the limit is %s", r.trustTTL, MaxTrustTTL).InField("trust_ttl")
	}
	if err := checkSessionName(r.sessionName); err != nil {
		return nil, err
	}
	for i, name := range cfg.PlaintextVariables {
		if name == "" || strings.ContainsAny(name, "*?") {
			return nil, refusal.New(CodeConfigInvalid, "%q is not the name of a variable; patterns are not known", name).InField(fmt.Sprintf("plaintext_variables[%d]", i))
		}
		r.plaintext[name] = true
	}
	base := cfg.AWS.Copy()
	base.HTTPClient = boundhttp.New(base.HTTPClient, boundhttp.Limits{Answer: maxAnswerBytes})
	for i, ac := range cfg.Accounts {
		ac.Regions, ac.Projects = slices.Clone(ac.Regions), slices.Clone(ac.Projects)
		if err := ac.complete(); err != nil {
			return nil, refusal.New(CodeConfigInvalid, "%w", err).InField(fmt.Sprintf("accounts[%d]", i))
		}
		key := accountKey{ac.Partition, ac.ID}
		if _, ok := r.accounts[key]; ok {
			return nil, refusal.New(CodeConfigInvalid, "account %s is there twice", ac.ID).InField(fmt.Sprintf("accounts[%d]", i))
		}
		r.accounts[key] = &account{Account: ac, clients: newClients(base, ac)}
	}
	return r, nil
}

// checkSessionName wants a template that makes another session name of every
// build: only then does the name tell builds apart.
func checkSessionName(template string) error {
	const sample = "00000000-0000-0000-0000-000000000000"
	rest := strings.Replace(template, uuidPlaceholder, "", 1)
	if len(rest)+len(uuidPlaceholder) != len(template) || strings.ContainsAny(rest, "{}") ||
		!reSession().MatchString(strings.Replace(template, uuidPlaceholder, sample, 1)) {
		return refusal.New(CodeConfigInvalid, "%.100q is not a role session name with %s once", template, uuidPlaceholder).InField("session_name")
	}
	return nil
}

// complete sets the defaults of a and checks the rest.
func (a *Account) complete() error {
	if a.Partition == "" {
		a.Partition = "aws"
	}
	if !reAccount().MatchString(a.ID) {
		return fmt.Errorf("id %.40q is not 12 digits", a.ID)
	}
	if !rePartition().MatchString(a.Partition) {
		return fmt.Errorf("partition %.40q is unknown", a.Partition)
	}
	if len(a.Regions) == 0 {
		return fmt.Errorf("regions is empty: no build could be read")
	}
	for _, region := range a.Regions {
		if !reRegion().MatchString(region) || partitionOf(region) != a.Partition {
			return fmt.Errorf("region %.40q is not one of partition %s", region, a.Partition)
		}
	}
	m := reRoleARN().FindStringSubmatch(a.ReaderRoleARN)
	if m == nil || m[1] != a.Partition || m[2] != a.ID {
		return fmt.Errorf("reader_role_arn %.200q is not a role of account %s", a.ReaderRoleARN, a.ID)
	}
	if n := len(a.ExternalID); n < minExternalID || n > maxExternalID {
		return fmt.Errorf("external_id has %d bytes, want %d to %d: without one, whoever knows the role's ARN could have it read", n, minExternalID, maxExternalID)
	}
	if len(a.Projects) == 0 {
		return fmt.Errorf("projects is empty: name them, or say %q", anyProject)
	}
	for _, project := range a.Projects {
		if project == anyProject && len(a.Projects) == 1 {
			continue
		}
		if !reProject().MatchString(project) {
			return fmt.Errorf("project %.160q is not the name of a project", project)
		}
	}
	return nil
}

// allowed returns the clients for a build that the configuration allows.
func (r *Reader) allowed(arn ARN) (*clients, error) {
	ac, ok := r.accounts[accountKey{arn.Partition, arn.Account}]
	if !ok {
		return nil, refusal.New(CodeAccountNotAllowed, "account %s of partition %s is not configured", arn.Account, arn.Partition)
	}
	c, ok := ac.clients[arn.Region]
	if !ok {
		return nil, refusal.New(CodeRegionNotAllowed, "region %s is not configured for account %s", arn.Region, arn.Account)
	}
	if ac.Projects[0] != anyProject && !slices.Contains(ac.Projects, arn.Project) {
		return nil, refusal.New(CodeProjectNotAllowed, "project %s is not configured for account %s", arn.Project, arn.Account)
	}
	return c, nil
}
