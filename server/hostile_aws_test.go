package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/stsproof"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"google.golang.org/grpc/codes"
)

// stranger is an account that is nobody's here.
const stranger = "444455556666"

// trap leads the hosts of AWS to the stand-in and loopback to itself. Whoever goes
// anywhere else is noted, and given the answer that a dishonest STS would give.
type trap struct {
	aws http.RoundTripper

	mu     sync.Mutex
	strays []string
}

func newTrap(cloud *testenv.AWS) *trap { return &trap{aws: cloud.World.Transport()} }

func (p *trap) RoundTrip(r *http.Request) (*http.Response, error) {
	host := r.URL.Hostname()
	switch {
	case strings.HasSuffix(host, ".amazonaws.com"), strings.HasSuffix(host, ".amazonaws.com.cn"), strings.HasSuffix(host, ".api.aws"):
		return p.aws.RoundTrip(r)
	case host == "127.0.0.1":
		return http.DefaultTransport.RoundTrip(r)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.strays = append(p.strays, fmt.Sprintf("%s %s with %d headers", r.Method, r.URL.Host, len(r.Header)))
	return &http.Response{
		StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(identityAnswer(testenv.AWSAccount, "deploy", "x", "AROACKCEVSQ6C2EXAMPLE"))),
	}, nil
}

func (p *trap) sprung(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.strays) != 0 {
		t.Errorf("the service went where it has no business: %q", p.strays)
	}
}

// withTrap is withAWS through p, with retries that do not wait, and a second region.
func withTrap(cloud *testenv.AWS, p *trap) func(*server.Config) {
	return func(c *server.Config) {
		cloud.Configure(c)
		client := &http.Client{Transport: p}
		c.AWSClients.HTTPClient, c.AWSTransport, c.HTTPClient = client, p, client
		c.AWSClients.Retryer = func() aws.Retryer { return retry.AddWithMaxBackoffDelay(retry.NewStandard(), time.Millisecond) }
		c.AWS.Accounts[0].Regions = append(c.AWS.Accounts[0].Regions, "eu-west-1")
	}
}

// kept is what a refused call must not leave behind.
type kept struct{ Sessions, Consumed, Attestations, SBOMs, Pending int }

func (l *life) kept(t testing.TB) kept {
	t.Helper()
	db := database(t, l.world.data)
	defer db.Close()
	var k kept
	row := db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM consumed),
		(SELECT count(*) FROM attestations WHERE predicate_type = 'https://slsa.dev/provenance/v1'),
		(SELECT count(*) FROM attestations WHERE predicate_type = 'https://cyclonedx.org/bom'), (SELECT count(*) FROM pending)`)
	if err := row.Scan(&k.Sessions, &k.Consumed, &k.Attestations, &k.SBOMs, &k.Pending); err != nil {
		t.Fatal(err)
	}
	return k
}

// unchanged fails unless the service keeps what it kept before.
func (l *life) unchanged(t testing.TB, before kept) {
	t.Helper()
	if after := l.kept(t); after != before {
		t.Errorf("a refusal left something behind: %+v was %+v", after, before)
	}
}

// claim is a proof that is signed as its fields say, where a client would take what
// the service told it; the zero value of a field is what an honest client has.
type claim struct {
	creds            aws.Credentials
	region, audience string
	nonce            []byte
	build            string
	off              time.Duration // of the clock that signs
	edit             func(*assayv1.StsProof)
}

func (l *life) challenge(t testing.TB) *assayv1.ChallengeResponse {
	t.Helper()
	ch, err := assayv1.NewIdentityServiceClient(l.conn).Challenge(t.Context(), &assayv1.ChallengeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func (l *life) signed(t testing.TB, c claim) *assayv1.StsProof {
	t.Helper()
	ch := l.challenge(t)
	if c.region == "" {
		c.region = testenv.AWSRegion
	}
	if c.audience == "" {
		c.audience = ch.GetAudience()
	}
	if c.nonce == nil {
		c.nonce = ch.GetNonce()
	}
	p, err := stsproof.Sign(t.Context(), c.creds, c.region, c.audience, c.nonce, c.build, l.world.now().Add(c.off))
	if err != nil {
		t.Fatal(err)
	}
	wire := &assayv1.StsProof{
		AccessKeyId: p.AccessKeyID, Region: p.Region, Date: p.Date, SessionToken: p.SessionToken,
		Signature: p.Signature, Nonce: p.Nonce, BuildId: p.BuildID,
	}
	if c.edit != nil {
		c.edit(wire)
	}
	return wire
}

func (l *life) submit(ctx context.Context, wire *assayv1.StsProof) (*assayv1.ExchangeResponse, error) {
	return assayv1.NewIdentityServiceClient(l.conn).Exchange(ctx, &assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_StsProof{StsProof: wire}})
}

func (l *life) claims(t testing.TB, c claim) (*assayv1.ExchangeResponse, error) {
	t.Helper()
	return l.submit(t.Context(), l.signed(t, c))
}

// asked counts what the stand-in was asked of a kind.
func asked(cloud *testenv.AWS, service, action string) int {
	return len(cloud.World.Requests(service, action))
}

// TestProofHostile: whatever is not a fresh proof of an allowed role session, made
// for this deployment and this challenge, opens nothing; and what can be told
// without AWS costs AWS nothing.
func TestProofHostile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	p := newTrap(cloud)
	l := w.start(t, withTrap(cloud, p))
	elsewhere := newWorld(t, "https://assay.elsewhere.test").start(t, withAWS(cloud))
	b := cloud.RunningBuild()
	deploy := cloud.Deploy.Session("deploy-1")
	other := cloud.Deploy.Session("deploy-2")
	spare := l.challenge(t).GetNonce()
	roleIn := func(account, name string) aws.Credentials {
		return cloud.World.Account(account).Role(name, awstest.TrustService("lambda.amazonaws.com")).Session("deploy-1")
	}
	if _, err := l.claims(t, claim{creds: deploy}); err != nil {
		t.Fatalf("an honest proof: %v", err)
	}
	if _, err := l.claims(t, claim{creds: deploy, region: "eu-west-1"}); err != nil {
		t.Fatalf("an honest proof of another region that is allowed: %v", err)
	}

	const none, once = 0, 1 // questions to STS
	edit := func(f func(*assayv1.StsProof)) claim { return claim{creds: deploy, build: b.ID, edit: f} }
	for name, tt := range map[string]struct {
		claim  claim
		code   codes.Code
		reason string
		asks   int
	}{
		// The server-id header of Vault and Kubernetes, and what it is for.
		"audience of another deployment":   {claim{creds: deploy, audience: "https://assay.elsewhere.test"}, codes.Unauthenticated, "AWS_STS_REFUSED", once},
		"audience with a slash":            {claim{creds: deploy, audience: "https://assay.test/"}, codes.Unauthenticated, "AWS_STS_REFUSED", once},
		"nonce of another deployment":      {claim{creds: deploy, nonce: elsewhere.challenge(t).GetNonce()}, codes.Unauthenticated, "STS_NONCE_INVALID", none},
		"nonce of nobody":                  {claim{creds: deploy, nonce: make([]byte, 32)}, codes.Unauthenticated, "STS_NONCE_INVALID", none},
		"nonce altered after signing":      {edit(func(p *assayv1.StsProof) { p.Nonce[9] ^= 1 }), codes.Unauthenticated, "STS_NONCE_INVALID", none},
		"nonce made young after signing":   {edit(func(p *assayv1.StsProof) { p.Nonce[7]++ }), codes.Unauthenticated, "STS_NONCE_INVALID", none},
		"another nonce put in":             {edit(func(p *assayv1.StsProof) { p.Nonce = spare }), codes.Unauthenticated, "AWS_STS_REFUSED", once},
		"no nonce":                         {edit(func(p *assayv1.StsProof) { p.Nonce = nil }), codes.InvalidArgument, "STS_PROOF_INVALID", none},
		"build id altered after signing":   {edit(func(p *assayv1.StsProof) { p.BuildId = cloud.RunningBuild().ID }), codes.Unauthenticated, "AWS_STS_REFUSED", once},
		"build id taken away":              {edit(func(p *assayv1.StsProof) { p.BuildId = "" }), codes.Unauthenticated, "AWS_STS_REFUSED", once},
		"build id put in":                  {claim{creds: deploy, edit: func(p *assayv1.StsProof) { p.BuildId = b.ID }}, codes.Unauthenticated, "AWS_STS_REFUSED", once},
		"region altered after signing":     {edit(func(p *assayv1.StsProof) { p.Region = "eu-west-1" }), codes.Unauthenticated, "AWS_STS_REFUSED", once},
		"region that is nobody's":          {claim{creds: deploy, region: "us-east-1"}, codes.PermissionDenied, "AWS_REGION_NOT_ALLOWED", none},
		"region of another partition":      {claim{creds: deploy, region: "cn-north-1"}, codes.PermissionDenied, "AWS_REGION_NOT_ALLOWED", none},
		"host in the region":               {edit(func(p *assayv1.StsProof) { p.Region = "evil.example/" }), codes.InvalidArgument, "AWS_REGION_UNKNOWN", none},
		"user info in the region":          {edit(func(p *assayv1.StsProof) { p.Region = "eu-west-1@evil.example" }), codes.InvalidArgument, "AWS_REGION_UNKNOWN", none},
		"the global endpoint":              {edit(func(p *assayv1.StsProof) { p.Region = "aws-global" }), codes.InvalidArgument, "AWS_REGION_UNKNOWN", none},
		"date altered after signing":       {edit(func(p *assayv1.StsProof) { p.Date = w.now().UTC().Add(-20 * time.Second).Format(stsproof.DateFormat) }), codes.Unauthenticated, "AWS_STS_REFUSED", once},
		"signed seven minutes ago":         {claim{creds: deploy, off: -7 * time.Minute}, codes.Unauthenticated, "STS_PROOF_EXPIRED", none},
		"signed two minutes in the future": {claim{creds: deploy, off: 2 * time.Minute}, codes.Unauthenticated, "STS_PROOF_NOT_YET_VALID", none},
		"date of another form":             {edit(func(p *assayv1.StsProof) { p.Date = "20260304" }), codes.InvalidArgument, "STS_PROOF_INVALID", none},
		"token of another session":         {edit(func(p *assayv1.StsProof) { p.SessionToken = other.SessionToken }), codes.Unauthenticated, "AWS_STS_REFUSED", once},
		"key of another session":           {edit(func(p *assayv1.StsProof) { p.AccessKeyId = other.AccessKeyID }), codes.Unauthenticated, "AWS_STS_REFUSED", once},
		"key and token of another":         {edit(func(p *assayv1.StsProof) { p.AccessKeyId, p.SessionToken = other.AccessKeyID, other.SessionToken }), codes.Unauthenticated, "AWS_STS_REFUSED", once},
		"signature altered":                {edit(func(p *assayv1.StsProof) { p.Signature[31] ^= 1 }), codes.Unauthenticated, "AWS_STS_REFUSED", once},
		"signature cut":                    {edit(func(p *assayv1.StsProof) { p.Signature = p.Signature[:31] }), codes.InvalidArgument, "STS_PROOF_INVALID", none},
		"no signature":                     {edit(func(p *assayv1.StsProof) { p.Signature = nil }), codes.InvalidArgument, "STS_PROOF_INVALID", none},
		"nothing":                          {edit(func(p *assayv1.StsProof) { p.Reset() }), codes.InvalidArgument, "AWS_REGION_UNKNOWN", none},

		// CVE-2022-2385: there is no parameter to give twice; nor can a field become one.
		"action in the token":    {edit(func(p *assayv1.StsProof) { p.SessionToken += "&Action=AssumeRole" }), codes.InvalidArgument, "STS_PROOF_INVALID", none},
		"header in the token":    {edit(func(p *assayv1.StsProof) { p.SessionToken += "\r\nX-Amz-Credential: x" }), codes.InvalidArgument, "STS_PROOF_INVALID", none},
		"scope in the key id":    {edit(func(p *assayv1.StsProof) { p.AccessKeyId += "/20260304/us-east-1/sts" }), codes.InvalidArgument, "STS_PROOF_INVALID", none},
		"second key id":          {edit(func(p *assayv1.StsProof) { p.AccessKeyId += ", Credential=" + other.AccessKeyID }), codes.InvalidArgument, "STS_PROOF_INVALID", none},
		"header in the build id": {edit(func(p *assayv1.StsProof) { p.BuildId += "\r\nx-assay-audience: y" }), codes.InvalidArgument, "STS_PROOF_INVALID", none},
		"wildcard as build id":   {edit(func(p *assayv1.StsProof) { p.BuildId = "app:*" }), codes.InvalidArgument, "STS_PROOF_INVALID", none},
		"path as build id":       {edit(func(p *assayv1.StsProof) { p.BuildId = "app/../" + b.ID }), codes.InvalidArgument, "STS_PROOF_INVALID", none},

		// Who is not a role session.
		"a user's key":       {edit(func(p *assayv1.StsProof) { p.AccessKeyId = cloud.Account.User("alice").AccessKeyID }), codes.Unauthenticated, "AWS_CREDENTIALS_LONG_LIVED", none},
		"the root's key":     {edit(func(p *assayv1.StsProof) { p.AccessKeyId = cloud.Account.Root().AccessKeyID }), codes.Unauthenticated, "AWS_CREDENTIALS_LONG_LIVED", none},
		"a federated user":   {claim{creds: cloud.Account.Federated("deploy")}, codes.Unauthenticated, "AWS_PRINCIPAL_REFUSED", once},
		"federated as build": {claim{creds: cloud.Account.Federated("AWSCodeBuild-" + b.UUID), build: b.ID}, codes.Unauthenticated, "AWS_PRINCIPAL_REFUSED", once},

		// CVE-2025-11621, CVE-2025-59048: the same name elsewhere is another role.
		"same role of another account":   {claim{creds: roleIn(stranger, "deploy")}, codes.PermissionDenied, "AWS_ACCOUNT_NOT_ALLOWED", once},
		"account with a digit more":      {claim{creds: roleIn("111122223334", "deploy")}, codes.PermissionDenied, "AWS_ACCOUNT_NOT_ALLOWED", once},
		"role with a letter more":        {claim{creds: roleIn(testenv.AWSAccount, "deploy2")}, codes.PermissionDenied, "AWS_ROLE_NOT_ALLOWED", once},
		"role with a letter before":      {claim{creds: roleIn(testenv.AWSAccount, "xdeploy")}, codes.PermissionDenied, "AWS_ROLE_NOT_ALLOWED", once},
		"role in capitals":               {claim{creds: roleIn(testenv.AWSAccount, "Deploy")}, codes.PermissionDenied, "AWS_ROLE_NOT_ALLOWED", once},
		"role with a letter less":        {claim{creds: roleIn(testenv.AWSAccount, "deplo")}, codes.PermissionDenied, "AWS_ROLE_NOT_ALLOWED", once},
		"role named in the session":      {claim{creds: cloud.Account.Role("ops").Session("deploy")}, codes.PermissionDenied, "AWS_ROLE_NOT_ALLOWED", once},
		"a build as its role":            {claim{creds: b.Credentials()}, codes.PermissionDenied, "AWS_ROLE_NOT_ALLOWED", once},
		"role that claims to be a build": {claim{creds: deploy, build: b.ID}, codes.Unauthenticated, "CODEBUILD_SESSION_MISMATCH", once},
	} {
		t.Run(name, func(t *testing.T) {
			wire := l.signed(t, tt.claim)
			before, asks := l.kept(t), asked(cloud, "sts", "GetCallerIdentity")
			_, err := l.submit(t.Context(), wire)
			wantReason(t, err, tt.code, tt.reason)
			l.unchanged(t, before)
			if n := asked(cloud, "sts", "GetCallerIdentity") - asks; n != tt.asks {
				t.Errorf("STS was asked %d times; want %d", n, tt.asks)
			}
			for _, secret := range []string{wire.GetSessionToken(), string(wire.GetSignature()), fmt.Sprintf("%x", wire.GetSignature())} {
				if len(secret) > 16 && strings.Contains(err.Error(), secret) {
					t.Error("the error repeats what was sent in confidence")
				}
			}
		})
	}
	p.sprung(t)
}

// TestProofSpelledTwice: the JSON form of an Exchange has one reading
// (CVE-2022-2385 was a key in two spellings).
func TestProofSpelledTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	field := func(name string, v any) string { return fmt.Sprintf("%q:%s", name, mustMarshal(t, v)) }
	fields := func(p *assayv1.StsProof) []string {
		return []string{
			field("access_key_id", p.GetAccessKeyId()), field("region", p.GetRegion()), field("date", p.GetDate()), field("session_token", p.GetSessionToken()),
			field("signature", p.GetSignature()), field("nonce", p.GetNonce()), field("build_id", p.GetBuildId()),
		}
	}
	send := func(more string, outer string) (int, string) {
		p := fields(l.signed(t, claim{creds: cloud.Deploy.Session("deploy-1")}))
		return overJSON(t, l, "", http.MethodPost, "/v1/identity:exchange", `{"sts_proof":{`+strings.Join(p, ",")+more+`}`+outer+`}`)
	}
	if code, body := send("", ""); code != http.StatusOK {
		t.Fatalf("an honest proof over JSON: %d %s", code, body)
	}
	before := l.kept(t)
	for name, tt := range map[string][2]string{
		"a field twice":               {`,"region":"eu-central-1"`, ""},
		"a field in another case":     {`,"Region":"eu-central-1"`, ""},
		"a field in the other style":  {`,"accessKeyId":"ASIAIOSFODNN7EXAMPLE"`, ""},
		"a field by its number":       {`,"2":"eu-central-1"`, ""},
		"an unknown field":            {`,"host":"sts.evil.example"`, ""},
		"the proof in the other case": {"", `,"stsProof":{"region":"eu-west-1"}`},
		"another credential too":      {"", `,"oidc_token":"x.y.z"`},
		"a second document":           {"", `} {"sts_proof":{}`},
	} {
		t.Run(name, func(t *testing.T) {
			code, body := send(tt[0], tt[1])
			var answer struct {
				Details []struct{ Reason string }
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusBadRequest || len(answer.Details) == 0 || answer.Details[0].Reason != "REQUEST_INVALID" {
				t.Errorf("%d %s (%v)", code, body, err)
			}
		})
	}
	l.unchanged(t, before)
}

func mustMarshal(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
