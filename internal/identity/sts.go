package identity

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/stsproof"
)

const (
	// CodeAWSAccountNotAllowed: AWS vouched for a role of an account that the
	// configuration does not name.
	CodeAWSAccountNotAllowed refusal.Code = "AWS_ACCOUNT_NOT_ALLOWED"
	// CodeAWSRegionNotAllowed: no account, or not this one, may use STS of the region.
	CodeAWSRegionNotAllowed refusal.Code = "AWS_REGION_NOT_ALLOWED"
	// CodeAWSRoleNotAllowed: a role that may not open a session without a build.
	CodeAWSRoleNotAllowed refusal.Code = "AWS_ROLE_NOT_ALLOWED"
	// CodeAWSBuildMismatch: the build that was read is not of the account and region
	// that AWS vouched for.
	CodeAWSBuildMismatch refusal.Code = "AWS_BUILD_MISMATCH"
	// CodeCodeBuildNotConfigured: a proof names a build, and this deployment reads none.
	CodeCodeBuildNotConfigured refusal.Code = "CODEBUILD_NOT_CONFIGURED"
	// CodeSTSBusy: as many proofs as allowed are being asked about, and no turn came
	// within two seconds. Retryable.
	CodeSTSBusy refusal.Code = "AWS_STS_BUSY"
)

const (
	defaultSTSConcurrency = 32
	maxSTSConcurrency     = 1024
	defaultSTSTimeout     = 10 * time.Second
	maxSTSTimeout         = time.Minute
)

// AWSConfig configures AWS.
type AWSConfig struct {
	// Audience is this deployment's name, and the only one a proof may be signed for.
	Audience string
	// NonceKey authenticates challenges: 32 bytes or more, the same on every machine
	// of the deployment.
	NonceKey []byte
	// Accounts are those whose roles are believed. At least one.
	Accounts []AWSAccount
	// Builds reads the build that a proof names. Without it such proofs are refused.
	Builds BuildReader
	// HTTPClient reaches STS. Only its Transport is used: redirects, cookies and
	// timeouts are AWS's own. Default: a transport without a proxy, since whoever
	// stands between us and STS says who everybody is.
	HTTPClient *http.Client
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// ClockSkew is how far clocks may differ. Default 60 s, at most 5 min; negative
	// means none.
	ClockSkew time.Duration
	// MaxConcurrent bounds the questions to STS under way about keys that seem to be
	// of a configured account. Default 32, at most 1024. STS throttles by account and
	// region, and the throttled account would be ours. Where several accounts are
	// configured, one has half of them at most. All other keys share two more.
	MaxConcurrent int
	// Timeout bounds one question, answer included. Default 10 s, at most 1 min.
	Timeout time.Duration
	// Consumed tells whether a replay key was consumed, in the store that Sessions
	// has. It is asked right before STS is; an error is a refusal. nil: not asked, and
	// what is consumed is refused by Sessions.Open alone.
	Consumed func(ctx context.Context, replayKey string) (bool, error)
	// Sandbox marks an STS that is a stand-in, and so every caller it vouches for.
	Sandbox bool
	// Logger default: slog.Default(). It is never given a proof.
	Logger *slog.Logger
}

// AWSAccount is an account whose roles may call.
type AWSAccount struct {
	ID string
	// Partition is "aws" if empty.
	Partition string
	// Regions whose STS a proof of this account may be signed for. At least one.
	Regions []string
	// AllowedRoles are the names, exactly, of roles whose sessions may call without
	// being a build. IAM role names are unique in an account whatever their path.
	AllowedRoles []string
}

// BuildReader reads builds of CodeBuild and holds them against what AWS vouched
// for. It fails closed: an error means that nothing is known of the build. It is
// safe for concurrent use.
type BuildReader interface {
	// InJob returns the running build that p names, if the role session of p is its own.
	InJob(ctx context.Context, p codebuild.Proof) (*codebuild.Build, error)
	// Tagged returns the running build that a pinned request tag names.
	Tagged(ctx context.Context, t codebuild.Tagged) (*codebuild.Build, error)
}

// AWS believes proofs of package stsproof, or refuses them. It is safe for
// concurrent use.
//
// A proof is checked in this order, and STS is asked about none that fails before:
//
//  1. each part is of its form, and the request can be rebuilt from it;
//  2. the nonce is a challenge of this deployment, for this audience, and at most
//     five minutes old; a proof opens one session, since the nonce is its replay key;
//  3. it was signed within the last five minutes, although AWS would take fifteen;
//  4. its region is one that an account of the configuration may use, and so is the
//     build, as far as its id tells;
//  5. STS was not asked about this nonce before: whatever comes of a question, there
//     is one for each challenge;
//  6. there is room among the questions under way, within two seconds;
//  7. the nonce has not opened a session, on whichever machine;
//  8. STS, asked without following redirects, answers 200, application/json, and
//     exactly the document of GetCallerIdentity;
//  9. the answer is about a role session of an account that is allowed, and not a
//     user, a federated user or the account's root;
//  10. with a build id, CodeBuild and IAM agree that this session is that build;
//     without one, the role is on the account's list.
type AWS struct {
	audience string
	nonceKey []byte
	accounts map[awsAccountKey]AWSAccount
	builds   BuildReader
	sts      stsClient
	now      func() time.Time
	skew     time.Duration
	nonces   usedNonces
	consumed func(context.Context, string) (bool, error)
	sandbox  bool

	slots     *slots // to ask STS, by account
	strangers *slots // to ask STS about everybody else
	reads     *slots // to read builds, by account
}

// awsAccountKey has the partition in it: equal account ids of two partitions are
// two accounts.
type awsAccountKey struct{ partition, id string }

// NewAWS checks the configuration. It sends nothing.
func NewAWS(cfg AWSConfig) (*AWS, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	a := &AWS{
		audience: cfg.Audience,
		nonceKey: deriveNonceKey(cfg.NonceKey, cfg.Audience),
		accounts: make(map[awsAccountKey]AWSAccount, len(cfg.Accounts)),
		builds:   cfg.Builds,
		sts:      stsClient{http: stsHTTPClient(cfg), timeout: cfg.Timeout, log: cfg.Logger},
		now:      cfg.Now,
		skew:     max(cfg.ClockSkew, 0),
		consumed: cfg.Consumed,
		sandbox:  cfg.Sandbox,

		slots:     newSlots(cfg.MaxConcurrent, accountShare(cfg)),
		strangers: newSlots(strangerSlots, strangerSlots),
		reads:     newSlots(cfg.MaxConcurrent, buildReads),
	}
	// A clock of the deployment may be ahead by the skew, and another behind.
	a.nonces.life = challengeTTL + 2*a.skew
	for i, account := range cfg.Accounts {
		field := fmt.Sprintf("accounts[%d]", i)
		if err := account.complete(); err != nil {
			return nil, refusal.New(CodeIdentityConfigInvalid, "%w", err).InField(field)
		}
		key := awsAccountKey{account.Partition, account.ID}
		if _, ok := a.accounts[key]; ok {
			return nil, refusal.New(CodeIdentityConfigInvalid, "account %s is there twice", account.ID).InField(field)
		}
		a.accounts[key] = account
	}
	return a, nil
}

// accountShare is how many questions may be under way about one account: all, where
// there is no other that they could keep out.
func accountShare(cfg AWSConfig) int {
	if len(cfg.Accounts) > 1 {
		return cfg.MaxConcurrent / 2
	}
	return cfg.MaxConcurrent
}

// complete sets the defaults and checks everything but the accounts.
func (c *AWSConfig) complete() error {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.ClockSkew == 0 {
		c.ClockSkew = defaultClockSkew
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = defaultSTSConcurrency
	}
	if c.Timeout == 0 {
		c.Timeout = defaultSTSTimeout
	}
	invalid := func(field, format string, args ...any) error {
		return refusal.New(CodeIdentityConfigInvalid, format, args...).InField(field)
	}
	switch {
	case !stsproof.ValidAudience(c.Audience):
		return invalid("audience", "%.200q cannot stand in a header", c.Audience)
	case len(c.NonceKey) < minNonceKeyBytes:
		return invalid("nonce_key", "%d bytes; %d are needed", len(c.NonceKey), minNonceKeyBytes)
	case len(c.Accounts) == 0:
		return invalid("accounts", "there are none")
	case c.ClockSkew > maxClockSkew:
		return invalid("clock_skew", "%s; the limit is %s", c.ClockSkew, maxClockSkew)
	case c.MaxConcurrent < 0 || c.MaxConcurrent > maxSTSConcurrency:
		return invalid("max_concurrent", "%d; 1 to %d are accepted", c.MaxConcurrent, maxSTSConcurrency)
	case c.Timeout < 0 || c.Timeout > maxSTSTimeout:
		return invalid("timeout", "%s; the limit is %s", c.Timeout, maxSTSTimeout)
	}
	return nil
}

// complete sets the default partition and checks the rest. There are no patterns
// anywhere in an account: an id or role with a wildcard is not one (CVE-2025-59048).
func (a *AWSAccount) complete() error {
	if a.Partition == "" {
		a.Partition = "aws"
	}
	a.Regions, a.AllowedRoles = slices.Clone(a.Regions), slices.Clone(a.AllowedRoles)
	if !reAccountID().MatchString(a.ID) {
		return fmt.Errorf("id %.40q is not of twelve digits", a.ID)
	}
	if len(a.Regions) == 0 {
		return fmt.Errorf("account %s has no regions", a.ID)
	}
	for _, region := range a.Regions {
		if _, partition, ok := stsproof.Endpoint(region); !ok || partition != a.Partition {
			return fmt.Errorf("%.40q is not a region of partition %.40q", region, a.Partition)
		}
	}
	for _, role := range a.AllowedRoles {
		if !reRoleName().MatchString(role) {
			return fmt.Errorf("%.100q is not the name of a role: no path, no ARN, no pattern", role)
		}
	}
	return nil
}

func stsHTTPClient(cfg AWSConfig) *http.Client {
	client := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if cfg.HTTPClient != nil {
		client.Transport = cfg.HTTPClient.Transport
	}
	if client.Transport == nil {
		client.Transport = &http.Transport{
			Proxy:                  nil,
			ForceAttemptHTTP2:      true,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			MaxIdleConnsPerHost:    cfg.MaxConcurrent,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: maxSTSAnswer,
		}
	}
	return client
}

// VerifyProof checks a proof, in the order of the comment on AWS. It does not
// consume it: Sessions.Open does.
func (a *AWS) VerifyProof(ctx context.Context, p *stsproof.Proof) (*Verified, error) {
	if p == nil {
		return nil, refusal.New(stsproof.CodeProofInvalid, "there is none")
	}
	req, err := p.Request(ctx, a.audience)
	if err != nil {
		return nil, err
	}
	expires, err := a.checkNonce(p.Nonce)
	if err != nil {
		return nil, err
	}
	signed, err := a.checkDate(p)
	if err != nil {
		return nil, err
	}
	_, partition, _ := stsproof.Endpoint(p.Region)
	if !a.regionAllowed(partition, p.Region) {
		return nil, refusal.New(CodeAWSRegionNotAllowed, "no account may use region %s", p.Region).InField("region")
	}
	if err := a.checkBuildID(p, partition); err != nil {
		return nil, err
	}
	replayKey := "sts\x00" + base64.RawURLEncoding.EncodeToString(p.Nonce)
	who, err := a.ask(ctx, p, req, partition, replayKey)
	if err != nil {
		return nil, err
	}
	caller, err := a.caller(ctx, p, who, signed)
	if err != nil {
		return nil, err
	}
	return &Verified{
		Caller:    caller,
		ReplayKey: replayKey,
		ExpiresAt: expires,
	}, nil
}

func (a *AWS) regionAllowed(partition, region string) bool {
	for key, account := range a.accounts {
		if key.partition == partition && slices.Contains(account.Regions, region) {
			return true
		}
	}
	return false
}

// ask asks STS, once for each nonce. The nonce is used before p waits for its turn,
// so that copies of p do not wait for one each, and is given back where STS was not
// asked after all: then p may come again.
func (a *AWS) ask(ctx context.Context, p *stsproof.Proof, req *http.Request, partition, replayKey string) (*roleSession, error) {
	if !a.nonces.use(p.Nonce, a.now()) {
		return nil, refusal.New(CodeNonceUsed, "AWS was asked about this challenge already; a new one is needed").InField("nonce")
	}
	release, ok := a.turn(ctx, p, partition)
	if !ok {
		a.nonces.giveBack(p.Nonce)
		return nil, refusal.New(CodeSTSBusy, "as many proofs are being checked as may be at a time")
	}
	defer release()
	if err := notConsumed(ctx, a.consumed, replayKey); err != nil {
		if refusal.CodeOf(err) != CodeTokenReplayed {
			a.nonces.giveBack(p.Nonce)
		}
		return nil, err
	}
	return a.sts.callerIdentity(req, partition)
}

// caller decides who the session is here.
func (a *AWS) caller(ctx context.Context, p *stsproof.Proof, who *roleSession, signed time.Time) (*Caller, error) {
	account, ok := a.accounts[awsAccountKey{who.partition, who.account}]
	if !ok {
		return nil, refusal.New(CodeAWSAccountNotAllowed, "account %s of partition %s is not configured", who.account, who.partition)
	}
	if !slices.Contains(account.Regions, p.Region) {
		return nil, refusal.New(CodeAWSRegionNotAllowed, "account %s may not use region %s", who.account, p.Region).InField("region")
	}
	if p.BuildID != "" {
		return a.buildCaller(ctx, p, who, signed)
	}
	if !slices.Contains(account.AllowedRoles, who.role) {
		return nil, refusal.New(CodeAWSRoleNotAllowed, "role %s of account %s may not call without being a build", who.role, who.account)
	}
	return &Caller{
		Kind:        KindAWSRole,
		Issuer:      awsIssuer(who.partition),
		DisplayName: fmt.Sprintf("aws role %s of %s", who.role, who.account),
		AWSRole: &AWSRole{
			Partition: who.partition, Account: who.account,
			RoleARN:  fmt.Sprintf("arn:%s:iam::%s:role/%s", who.partition, who.account, who.role),
			UniqueID: who.uniqueID, SessionName: who.session, Via: ViaSTS,
		},
		Sandbox: a.sandbox,
	}, nil
}

func (a *AWS) buildCaller(ctx context.Context, p *stsproof.Proof, who *roleSession, signed time.Time) (*Caller, error) {
	release, ok := a.reads.take(ctx, awsAccountKey{who.partition, who.account}.lane())
	if !ok {
		return nil, readsBusy(who.account)
	}
	defer release()
	b, err := a.builds.InJob(ctx, codebuild.Proof{
		Partition: who.partition, Account: who.account, Region: p.Region,
		RoleName: who.role, SessionName: who.session, UniqueID: who.uniqueID,
		SignedAt: signed, BuildID: p.BuildID,
	})
	if err != nil {
		return nil, err
	}
	// The reader has compared this and much more; what would cross over accounts is
	// compared where both are at hand.
	if b == nil || b.Partition != who.partition || b.Account != who.account || b.Region != p.Region {
		return nil, refusal.New(CodeAWSBuildMismatch, "the build is not of account %s and region %s", who.account, p.Region).InField("build_id")
	}
	return NewCodeBuildCaller(ModeInJob, b, false, a.sandbox), nil
}

// readsBusy is what a build is refused for that cannot be read yet.
func readsBusy(account string) error {
	return refusal.New(codebuild.CodeUnavailable, "as many builds of account %s are being read as may be at a time", account)
}
