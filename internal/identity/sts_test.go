package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/stsproof"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

const (
	testAccount  = "111122223333"
	otherAccount = "444455556666"
	testRegion   = "eu-west-1"
	testBuildID  = "app:6e1f4a4c-1c4b-4a0a-9d51-0f7a1f6d2c11"
	buildSession = "AWSCodeBuild-6e1f4a4c-1c4b-4a0a-9d51-0f7a1f6d2c11"
)

// builds is a BuildReader that believes what AWS vouched for, notes it, and says
// what a test wants.
type builds struct {
	mu    sync.Mutex
	asked []codebuild.Proof
	edit  func(*codebuild.Build)
	err   error
}

func (b *builds) InJob(_ context.Context, p codebuild.Proof) (*codebuild.Build, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, p)
	if b.err != nil {
		return nil, b.err
	}
	project, uuid, _ := strings.Cut(p.BuildID, ":")
	arn := func(kind, name string) string {
		return "arn:" + p.Partition + ":codebuild:" + p.Region + ":" + p.Account + ":" + kind + "/" + name
	}
	build := &codebuild.Build{
		ARN: arn("build", p.BuildID), ProjectARN: arn("project", project), Partition: p.Partition, Region: p.Region, Account: p.Account,
		Project: project, UUID: uuid, ServiceRole: "arn:" + p.Partition + ":iam::" + p.Account + ":role/" + p.RoleName, StartedAt: p.SignedAt,
	}
	if b.edit != nil {
		b.edit(build)
	}
	return build, nil
}

func (b *builds) Tagged(context.Context, codebuild.Tagged) (*codebuild.Build, error) {
	return nil, errors.New("not asked by a proof")
}

// awsEnv is an AWS, and what is needed to prove things to it.
type awsEnv struct {
	clock  *clock
	world  *awstest.World
	builds *builds
	log    bytes.Buffer
}

func newAWSEnv(tb testing.TB) *awsEnv {
	tb.Helper()
	e := &awsEnv{clock: newClock(), builds: &builds{}}
	var err error
	if e.world, err = awstest.New(awstest.Config{Now: e.clock.Now}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(e.world.Close)
	return e
}

// verifier believes roles of testAccount, of which "deploy" may call without a build.
func (e *awsEnv) verifier(tb testing.TB, edit ...func(*AWSConfig)) *AWS {
	tb.Helper()
	cfg := awsConfig(e.clock)
	cfg.Builds = e.builds
	cfg.Logger = slog.New(slog.NewTextHandler(&e.log, nil))
	cfg.HTTPClient = e.world.HTTPClient()
	for _, f := range edit {
		f(&cfg)
	}
	a, err := NewAWS(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func awsConfig(c *clock) AWSConfig {
	return AWSConfig{
		Audience: testAudience,
		NonceKey: bytes.Repeat([]byte{7}, 32),
		Accounts: []AWSAccount{{ID: testAccount, Regions: []string{testRegion, "eu-central-1"}, AllowedRoles: []string{"deploy"}}},
		Now:      c.Now,
		Logger:   slog.New(slog.DiscardHandler),
	}
}

// session returns the credentials of a session of a role, as AWS itself gives them.
func (e *awsEnv) session(account, role, session string) aws.Credentials {
	return e.world.Account(account).Role(role, awstest.TrustService("codebuild.amazonaws.com")).Session(session)
}

// proof answers a challenge of a, now.
func (e *awsEnv) proof(tb testing.TB, a *AWS, creds aws.Credentials, buildID string) *stsproof.Proof {
	tb.Helper()
	nonce, _ := a.Challenge()
	p, err := stsproof.Sign(tb.Context(), creds, testRegion, testAudience, nonce, buildID, e.clock.Now())
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestVerifyProofRole(t *testing.T) {
	t.Parallel()
	e := newAWSEnv(t)
	a := e.verifier(t)
	role := e.world.Account(testAccount).Role("deploy", awstest.TrustService("lambda.amazonaws.com"))
	p := e.proof(t, a, role.Session("release-42"), "")
	got, err := a.VerifyProof(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	want := &Verified{
		Caller: &Caller{
			Kind: KindAWSRole, Issuer: "https://sts.amazonaws.com", DisplayName: "aws role deploy of 111122223333",
			AWSRole: &AWSRole{
				Partition: "aws", Account: testAccount, RoleARN: "arn:aws:iam::111122223333:role/deploy",
				UniqueID: role.UniqueID(), SessionName: "release-42", Via: ViaSTS,
			},
		},
		ReplayKey: "sts\x00" + base64.RawURLEncoding.EncodeToString(p.Nonce),
		ExpiresAt: e.clock.Now().Truncate(time.Second).Add(5*time.Minute + defaultClockSkew),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := got.Caller.check(); err != nil {
		t.Errorf("the caller is not complete: %v", err)
	}
	asked := e.world.Requests("sts", "GetCallerIdentity")
	if len(asked) != 1 || asked[0].Host != "sts.eu-west-1.amazonaws.com" || asked[0].Principal != role.SessionARN("release-42") {
		t.Errorf("STS was asked %+v", asked)
	}
	if len(e.builds.asked) != 0 {
		t.Errorf("a build was looked for")
	}
}

func TestVerifyProofBuild(t *testing.T) {
	t.Parallel()
	e := newAWSEnv(t)
	a := e.verifier(t, func(c *AWSConfig) { c.Sandbox = true })
	creds := e.session(testAccount, "codebuild-app", buildSession)
	got, err := a.VerifyProof(t.Context(), e.proof(t, a, creds, testBuildID))
	if err != nil {
		t.Fatal(err)
	}
	c := got.Caller
	if c.Kind != KindCodeBuild || c.CodeBuild.Mode != ModeInJob || c.CodeBuild.Confirmed || c.CodeBuild.Build.Project != "app" ||
		c.Issuer != "https://sts.amazonaws.com" || !c.Sandbox || c.check() != nil {
		t.Errorf("caller %+v", c)
	}
	want := []codebuild.Proof{{
		Partition: "aws", Account: testAccount, Region: testRegion, RoleName: "codebuild-app", SessionName: buildSession,
		UniqueID: e.world.Account(testAccount).Role("codebuild-app").UniqueID(), SignedAt: e.clock.Now(), BuildID: testBuildID,
	}}
	if diff := cmp.Diff(want, e.builds.asked); diff != "" {
		t.Errorf("what the reader was told (-want +got):\n%s", diff)
	}
}

// TestProofBinding: STS, asked for real, refuses whatever is not exactly what was
// signed.
func TestProofBinding(t *testing.T) {
	t.Parallel()
	e := newAWSEnv(t)
	a := e.verifier(t)
	creds := e.session(testAccount, "deploy", "release")
	flip := func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-1] ^= 1; return b }
	tests := []struct {
		name string
		edit func(*stsproof.Proof)
		code refusal.Code
	}{
		{"untouched", func(*stsproof.Proof) {}, ""},
		{"another challenge", func(p *stsproof.Proof) { p.Nonce, _ = a.Challenge() }, CodeSTSRefused},
		{"a build claimed afterwards", func(p *stsproof.Proof) { p.BuildID = testBuildID }, CodeSTSRefused},
		{"another region", func(p *stsproof.Proof) { p.Region = "eu-central-1" }, CodeSTSRefused},
		{"another second", func(p *stsproof.Proof) { p.Date = e.clock.Now().Add(time.Second).Format(stsproof.DateFormat) }, CodeSTSRefused},
		{"signature", func(p *stsproof.Proof) { p.Signature = flip(p.Signature) }, CodeSTSRefused},
		{"another session's token", func(p *stsproof.Proof) {
			p.SessionToken = e.session(testAccount, "deploy", "other").SessionToken
		}, CodeSTSRefused},
		{"another session's key", func(p *stsproof.Proof) {
			other := e.session(testAccount, "deploy", "other")
			p.AccessKeyID, p.SessionToken = other.AccessKeyID, other.SessionToken
		}, CodeSTSRefused},
		{"a key that is none", func(p *stsproof.Proof) { p.AccessKeyID = "ASIAIOSFODNN7EXAMPLE" }, CodeSTSRefused},
	}
	for _, tt := range tests {
		p := e.proof(t, a, creds, "")
		tt.edit(p)
		got, err := a.VerifyProof(t.Context(), p)
		if wantCode(t, err, tt.code); t.Failed() || (err == nil) != (got != nil) {
			t.Fatalf("%s: %v, %v", tt.name, got, err)
		}
	}
	if len(e.builds.asked) != 0 {
		t.Error("a build was looked for before AWS had vouched for anybody")
	}
}

// TestProofOfAnotherDeployment: a proof made for one service is of no use at
// another, even if the two were given the same key.
func TestProofOfAnotherDeployment(t *testing.T) {
	t.Parallel()
	e := newAWSEnv(t)
	ours := e.verifier(t)
	theirs := e.verifier(t, func(c *AWSConfig) { c.Audience = "https://assay.evil.example" })
	creds := e.session(testAccount, "deploy", "release")

	nonce, _ := ours.Challenge() // fetched by the evil service, and passed on
	p, err := stsproof.Sign(t.Context(), creds, testRegion, "https://assay.evil.example", nonce, "", e.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, err = ours.VerifyProof(t.Context(), p)
	wantCode(t, err, CodeSTSRefused)
	_, err = theirs.VerifyProof(t.Context(), p)
	wantCode(t, err, CodeNonceInvalid)
}

// TestProofReplay: a proof opens one session, on whichever machine.
func TestProofReplay(t *testing.T) {
	t.Parallel()
	e := newAWSEnv(t)
	store := newMemStore()
	key := bytes.Repeat([]byte{1}, SessionKeyBytes)
	asking := func(c *AWSConfig) {
		c.Consumed = func(_ context.Context, key string) (bool, error) { _, used := store.consumed[key]; return used, nil }
	}
	open := func(v *Verified) error {
		return second2(NewSessions(key, store, 0, e.clock.Now).Open(t.Context(), v))
	}
	machines := []*AWS{e.verifier(t), e.verifier(t), e.verifier(t, asking)}
	p := e.proof(t, machines[0], e.session(testAccount, "deploy", "release"), "")
	var verified []*Verified
	for _, a := range machines[:2] { // at the same time, so to say
		v, err := a.VerifyProof(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		verified = append(verified, v)
	}
	wantCode(t, open(verified[0]), "")
	wantCode(t, open(verified[1]), CodeTokenReplayed)
	wantCode(t, open(verified[0]), CodeTokenReplayed)
	asked := len(e.world.Requests("sts", ""))
	for i, want := range []refusal.Code{CodeNonceUsed, CodeNonceUsed, CodeTokenReplayed} {
		_, err := machines[i].VerifyProof(t.Context(), p)
		wantCode(t, err, want)
	}
	if got := len(e.world.Requests("sts", "")); got != asked {
		t.Errorf("STS was asked %d times about a proof that is used up", got-asked)
	}
	// By the time the store forgets the replay key, the verifier refuses by itself.
	for _, until := range store.consumed {
		e.clock.Advance(until.Sub(e.clock.Now()))
	}
	_, err := machines[0].VerifyProof(t.Context(), p)
	wantCode(t, err, CodeNonceExpired)
}

func second2[T, U any](_ T, _ U, err error) error { return err }

// TestWhoIsRefused: AWS vouches for all of these, truthfully.
func TestWhoIsRefused(t *testing.T) {
	t.Parallel()
	e := newAWSEnv(t)
	a := e.verifier(t)
	tests := []struct {
		name  string
		creds aws.Credentials
		build string
		code  refusal.Code
	}{
		// CVE-2025-11621, CVE-2025-59048: a role of the same name in another account.
		{"same role, another account", e.session(otherAccount, "deploy", "release"), "", CodeAWSAccountNotAllowed},
		{"same role, another account, as a build", e.session(otherAccount, "codebuild-app", buildSession), testBuildID, CodeAWSAccountNotAllowed},
		{"another role", e.session(testAccount, "deployer", "release"), "", CodeAWSRoleNotAllowed},
		{"role of another case", e.session(testAccount, "Deploy", "release"), "", CodeAWSRoleNotAllowed},
		{"session named like a role", e.session(testAccount, "nobody", "deploy"), "", CodeAWSRoleNotAllowed},
		{"federated user", e.world.Account(testAccount).Federated("deploy"), "", CodeAWSPrincipalRefused},
	}
	for _, tt := range tests {
		_, err := a.VerifyProof(t.Context(), e.proof(t, a, tt.creds, tt.build))
		wantCode(t, err, tt.code)
	}
	if len(e.builds.asked) != 0 {
		t.Error("a build of an account that is not configured was looked for")
	}

	asked := len(e.world.Requests("sts", ""))
	for _, creds := range []aws.Credentials{e.world.Account(testAccount).User("alice"), e.world.Account(testAccount).Root()} {
		p := e.proof(t, a, e.session(testAccount, "deploy", "release"), "")
		p.AccessKeyID = creds.AccessKeyID
		_, err := a.VerifyProof(t.Context(), p)
		wantCode(t, err, stsproof.CodeCredentialsLongLived)
	}
	if got := len(e.world.Requests("sts", "")); got != asked {
		t.Error("STS was asked about long-lived credentials")
	}
}

func TestExpiredCredentials(t *testing.T) {
	t.Parallel()
	e := newAWSEnv(t)
	a := e.verifier(t)
	creds := e.session(testAccount, "deploy", "release")
	e.clock.Advance(13 * time.Hour)
	_, err := a.VerifyProof(t.Context(), e.proof(t, a, creds, ""))
	wantCode(t, err, CodeSTSRefused)
}

// TestBuildRefused: what the reader says is final, and what it hands out must be of
// the account and region that AWS vouched for.
func TestBuildRefused(t *testing.T) {
	t.Parallel()
	e := newAWSEnv(t)
	a := e.verifier(t)
	creds := e.session(testAccount, "codebuild-app", buildSession)
	const codeOther refusal.Code = "CODEBUILD_SOMETHING"
	for _, tt := range []struct {
		name string
		edit func(*codebuild.Build)
		err  error
		code refusal.Code
	}{
		{"the reader refuses", nil, refusal.New(codeOther, "no"), codeOther},
		{"account", func(b *codebuild.Build) { b.Account = otherAccount }, nil, CodeAWSBuildMismatch},
		{"region", func(b *codebuild.Build) { b.Region = "eu-central-1" }, nil, CodeAWSBuildMismatch},
		{"partition", func(b *codebuild.Build) { b.Partition = "aws-cn" }, nil, CodeAWSBuildMismatch},
	} {
		e.builds.edit, e.builds.err = tt.edit, tt.err
		_, err := a.VerifyProof(t.Context(), e.proof(t, a, creds, testBuildID))
		if wantCode(t, err, tt.code); t.Failed() {
			t.Fatal(tt.name)
		}
	}
	e.builds.edit, e.builds.err = nil, nil
	none := e.verifier(t, func(c *AWSConfig) { c.Builds = nil })
	_, err := none.VerifyProof(t.Context(), e.proof(t, none, creds, testBuildID))
	wantCode(t, err, CodeCodeBuildNotConfigured)
	// A build's role is not a role that may call by itself.
	_, err = a.VerifyProof(t.Context(), e.proof(t, a, creds, ""))
	wantCode(t, err, CodeAWSRoleNotAllowed)
}

// TestSTSFaults: an outage and throttling are refusals that may be tried again.
func TestSTSFaults(t *testing.T) {
	t.Parallel()
	e := newAWSEnv(t)
	a := e.verifier(t)
	creds := e.session(testAccount, "deploy", "release")
	tests := []struct {
		name  string
		fault awstest.Fault
		code  refusal.Code
	}{
		{"throttling", awstest.Fault{Status: 400, Code: "Throttling"}, CodeSTSThrottled},
		{"429", awstest.Fault{Status: 429, Code: "TooManyRequestsException"}, CodeSTSThrottled},
		{"500", awstest.Fault{Status: 500, Code: "InternalFailure"}, CodeSTSUnavailable},
		{"503", awstest.Fault{Status: 503, Code: "ServiceUnavailable"}, CodeSTSUnavailable},
		{"no answer", awstest.Fault{CloseConnection: true}, CodeSTSUnavailable},
		{"half an answer", awstest.Fault{Truncate: true}, CodeSTSUnavailable},
		{"redirect", awstest.Fault{Redirect: "https://sts.eu-central-1.amazonaws.com/"}, CodeSTSAnswerInvalid},
		{"region disabled", awstest.Fault{Status: 403, Code: "RegionDisabledException"}, CodeSTSRefused},
	}
	for _, tt := range tests {
		tt.fault.Service, tt.fault.Action = "sts", "GetCallerIdentity"
		e.world.Fail(tt.fault)
		v, err := a.VerifyProof(t.Context(), e.proof(t, a, creds, ""))
		if wantCode(t, err, tt.code); t.Failed() || v != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		e.world.Heal()
	}
	if _, err := a.VerifyProof(t.Context(), e.proof(t, a, creds, "")); err != nil {
		t.Errorf("after the outage: %v", err)
	}
	for _, code := range []refusal.Code{CodeSTSThrottled, CodeSTSUnavailable, CodeSTSAnswerInvalid} {
		if !strings.Contains(e.log.String(), string(code)) {
			t.Errorf("the log does not tell of %s", code)
		}
	}
}

func TestAWSConfigRefused(t *testing.T) {
	t.Parallel()
	account := func(edit func(*AWSAccount)) func(*AWSConfig) {
		return func(c *AWSConfig) { edit(&c.Accounts[0]) }
	}
	for name, edit := range map[string]func(*AWSConfig){
		"no audience":           func(c *AWSConfig) { c.Audience = "" },
		"audience with a space": func(c *AWSConfig) { c.Audience = "https://a b" },
		"no key":                func(c *AWSConfig) { c.NonceKey = nil },
		"short key":             func(c *AWSConfig) { c.NonceKey = make([]byte, 31) },
		"no accounts":           func(c *AWSConfig) { c.Accounts = nil },
		"account twice":         func(c *AWSConfig) { c.Accounts = append(c.Accounts, c.Accounts[0]) },
		"skew":                  func(c *AWSConfig) { c.ClockSkew = maxClockSkew + 1 },
		"concurrency":           func(c *AWSConfig) { c.MaxConcurrent = -1 },
		"timeout":               func(c *AWSConfig) { c.Timeout = time.Hour },
		"any account":           account(func(a *AWSAccount) { a.ID = "*" }),
		"some accounts":         account(func(a *AWSAccount) { a.ID = "11112222*" }),
		"short account":         account(func(a *AWSAccount) { a.ID = "11112222333" }),
		"account as an ARN":     account(func(a *AWSAccount) { a.ID = "arn:aws:iam::111122223333:root" }),
		"no regions":            account(func(a *AWSAccount) { a.Regions = nil }),
		"any region":            account(func(a *AWSAccount) { a.Regions = []string{"*"} }),
		"region of another":     account(func(a *AWSAccount) { a.Regions = []string{"cn-north-1"} }),
		"partition":             account(func(a *AWSAccount) { a.Partition = "aws-mars" }),
		"any role":              account(func(a *AWSAccount) { a.AllowedRoles = []string{"*"} }),
		"role by pattern":       account(func(a *AWSAccount) { a.AllowedRoles = []string{"deploy*"} }),
		"role with a path":      account(func(a *AWSAccount) { a.AllowedRoles = []string{"ci/deploy"} }),
		"role as an ARN":        account(func(a *AWSAccount) { a.AllowedRoles = []string{"arn:aws:iam::111122223333:role/deploy"} }),
		"empty role":            account(func(a *AWSAccount) { a.AllowedRoles = []string{""} }),
	} {
		cfg := awsConfig(newClock())
		edit(&cfg)
		_, err := NewAWS(cfg)
		if wantCode(t, err, CodeIdentityConfigInvalid); t.Failed() {
			t.Fatal(name)
		}
	}
}
