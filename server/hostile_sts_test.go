package server_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/stsproof"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc/codes"
)

// identityAnswer is what STS answers about a session of a role.
func identityAnswer(account, role, session, unique string) string {
	return fmt.Sprintf(`{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Account":%q,"Arn":"arn:aws:sts::%s:assumed-role/%s/%s","UserId":"%s:%s"},`+
		`"ResponseMetadata":{"RequestId":"c6104cbe-af31-11e0-8154-cbc7ccf896c7"}}}`, account, account, role, session, unique, session)
}

// TestSTSDishonest: CVE-2020-16250, CVE-2020-16251. Whatever stands in STS's place
// says, only its exact document about the session gives anybody an identity; and
// where there is no answer, nobody gets in.
func TestSTSDishonest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	p := newTrap(cloud)
	l := w.start(t, withTrap(cloud, p))
	b := cloud.RunningBuild()
	session := "AWSCodeBuild-" + b.UUID
	good := identityAnswer(testenv.AWSAccount, "codebuild-app", session, cloud.BuildRole.UniqueID())
	asJSON := http.Header{"Content-Type": {"application/json"}}
	says := func(body string) awstest.Fault { return awstest.Fault{Body: []byte(body), Header: asJSON} }
	typed := func(types ...string) awstest.Fault {
		return awstest.Fault{Body: []byte(good), Header: http.Header{"Content-Type": types}}
	}
	status := func(code int, body string) awstest.Fault {
		return awstest.Fault{Status: code, Body: []byte(body), Header: asJSON}
	}
	instead := func(old, with string) awstest.Fault { return says(strings.Replace(good, old, with, 1)) }
	xml := `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>arn:aws:sts::` +
		testenv.AWSAccount + `:assumed-role/codebuild-app/` + session + `</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>`

	const invalid, refused, throttled, away = "AWS_STS_ANSWER_INVALID", "AWS_STS_REFUSED", "AWS_STS_THROTTLED", "AWS_STS_UNAVAILABLE"
	for _, tt := range []struct {
		name   string
		fault  awstest.Fault
		reason string
	}{
		{"XML", awstest.Fault{Body: []byte(xml), Header: http.Header{"Content-Type": {"text/xml"}}}, invalid},
		{"XML called JSON", says(xml), invalid},
		{"XML reflected in the JSON of another action", says(`{"AssumeRoleWithWebIdentityResponse":{"SubjectFromWebIdentityToken":` + mustMarshal(t, xml) + `}}`), invalid},
		{"JSON called XML", typed("text/xml"), invalid},
		{"JSON in UTF-7", typed("application/json; charset=utf-7"), invalid},
		{"JSON of a profile", typed("application/json; charset=utf-8; profile=x"), invalid},
		{"JSON of a vendor", typed("application/x-amz-json-1.1"), invalid},
		{"two types", typed("application/json", "text/html"), invalid},
		{"encoded", awstest.Fault{Body: []byte(good), Header: http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"br"}}}, invalid},
		{"no result", says(`{"GetCallerIdentityResponse":{"ResponseMetadata":{"RequestId":"x"}}}`), invalid},
		{"two results", instead(`"ResponseMetadata"`, `"GetCallerIdentityResult":{"Account":"1"},"ResponseMetadata"`), invalid},
		{"a list of results", says(strings.NewReplacer(`Result":{`, `Result":[{`, `},"ResponseM`, `}],"ResponseM`).Replace(good)), invalid},
		{"an ARN twice", instead(`"UserId"`, `"Arn":"arn:aws:sts::111122223333:assumed-role/deploy/x","UserId"`), invalid},
		{"an ARN in two cases", instead(`"UserId"`, `"arn":"arn:aws:sts::111122223333:assumed-role/deploy/x","UserId"`), invalid},
		{"nested", says(`{"DecodeAuthorizationMessageResponse":` + good + `}`), invalid},
		{"something after", says(good + good), invalid},
		{"something before", says("//" + good), invalid},
		{"empty", says(""), invalid},
		{"65 KiB", says(good + strings.Repeat(" ", 65<<10)), invalid},
		{"16 MiB", awstest.Fault{Body: bytes.Repeat([]byte("{"), 16<<20), Header: asJSON}, invalid},
		{"account that is not the ARN's", instead(`"Account":"111122223333"`, `"Account":"444455556666"`), invalid},
		{"ARN of another account", instead(`sts::111122223333`, `sts::444455556666`), invalid},
		{"any account", instead(`sts::111122223333`, `sts::*`), invalid},
		{"ARN of another partition", instead(`arn:aws:`, `arn:aws-cn:`), invalid},
		{"user id of another session", instead(`:`+session+`"},`, `:AWSCodeBuild-00000000-0000-0000-0000-000000000000"},`), invalid},
		{"session that walks", instead(`/`+session+`"`, `/`+session+`/../admin"`), invalid},
		{"session with an escape", instead(`/`+session+`"`, `/%2e%2e%2fadmin"`), invalid},
		{"301", awstest.Fault{Status: 301, Redirect: "https://sts.amazonaws.com.evil.example/"}, invalid},
		{"302 elsewhere in AWS", awstest.Fault{Status: 302, Redirect: "https://sts.us-east-1.amazonaws.com/"}, invalid},
		{"307", awstest.Fault{Status: 307, Redirect: "https://evil.example/"}, invalid},
		{"308 with an identity", awstest.Fault{Status: 308, Redirect: "https://evil.example/", Body: []byte(good), Header: asJSON}, invalid},
		{"203 with an identity", status(203, good), invalid},
		{"403 with an identity", status(403, good), refused},
		{"500 with an identity", status(500, good), away},
		{"throttled", awstest.Fault{Status: 400, Code: "Throttling", Message: "Rate exceeded"}, throttled},
		{"429", status(429, good), throttled},
		{"outage", awstest.Fault{Status: 503, Code: "ServiceUnavailable"}, away},
		{"connection broken", awstest.Fault{CloseConnection: true}, away},
		{"answer broken off", awstest.Fault{Truncate: true}, away},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code := codes.Unauthenticated
			if tt.reason == throttled || tt.reason == away {
				code = codes.Unavailable
			}
			wire := l.signed(t, claim{creds: b.Credentials(), build: b.ID})
			before, asks, all := l.kept(t), asked(cloud, "sts", "GetCallerIdentity"), asked(cloud, "", "")
			tt.fault.Service, tt.fault.Action = "sts", "GetCallerIdentity"
			cloud.World.Fail(tt.fault)
			_, err := l.submit(t.Context(), wire)
			cloud.World.Heal()
			wantReason(t, err, code, tt.reason)
			l.unchanged(t, before)
			if n, m := asked(cloud, "sts", "GetCallerIdentity")-asks, asked(cloud, "", "")-all; n != 1 || m != 1 {
				t.Errorf("%d questions to STS, %d to AWS in all: a redirect was followed, or something asked again or went on", n, m)
			}
			if strings.Contains(err.Error(), wire.GetSessionToken()) || strings.Contains(err.Error(), "evil.example") {
				t.Errorf("the error tells too much: %v", err)
			}
			// A nonce is good for one question; the client comes again with another.
			_, err = l.submit(t.Context(), wire)
			wantReason(t, err, codes.Unauthenticated, "STS_NONCE_USED")
			if _, err := l.submit(t.Context(), l.signed(t, claim{creds: b.Credentials(), build: b.ID})); err != nil {
				t.Errorf("once STS is well again: %v", err)
			}
		})
	}
	p.sprung(t)
}

// TestSTSThrottlesHonestly: beyond what STS answers, proofs are refused as worth a
// repeat, and none is believed unseen.
func TestSTSThrottlesHonestly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	cloud.World.Throttle("sts", "GetCallerIdentity", 2)
	var in, out int
	for range 6 {
		if _, err := l.claims(t, claim{creds: cloud.Deploy.Session("deploy-1")}); err != nil {
			wantReason(t, err, codes.Unavailable, "AWS_STS_THROTTLED")
			out++
			continue
		}
		in++
	}
	if k := l.kept(t); k.Sessions != in || k.Consumed != in || out == 0 || in == 0 {
		t.Errorf("%d were let in, %d refused, %+v kept", in, out, k)
	}
}

// TestProofReplayed: a challenge is answered once, whoever answers it, in this life
// of the service and the next, and no longer than it is good for.
func TestProofReplayed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	b := cloud.RunningBuild()
	old := l.challenge(t).GetNonce()
	used := l.signed(t, claim{creds: b.Credentials(), build: b.ID})
	unused := l.signed(t, claim{creds: b.Credentials(), build: b.ID})
	if _, err := l.submit(t.Context(), used); err != nil {
		t.Fatal(err)
	}
	// A life remembers which challenges it asked AWS about; the database, which were
	// answered by a session.
	replayed := func(when, first string) {
		t.Helper()
		before := l.kept(t)
		_, err := l.submit(t.Context(), used)
		wantReason(t, err, codes.Unauthenticated, first)
		// The challenge is what is used up, and not the signature on it.
		_, err = l.claims(t, claim{creds: b.Credentials(), build: b.ID, nonce: used.GetNonce(), off: 3 * time.Second})
		wantReason(t, err, codes.Unauthenticated, "STS_NONCE_USED")
		_, err = l.claims(t, claim{creds: cloud.Deploy.Session("deploy-1"), nonce: used.GetNonce()})
		wantReason(t, err, codes.Unauthenticated, "STS_NONCE_USED")
		if l.unchanged(t, before); t.Failed() {
			t.Fatal(when)
		}
	}
	replayed("in the same life", "STS_NONCE_USED")
	l.stop()
	l = w.start(t, withAWS(cloud))
	replayed("after a restart", "TOKEN_REPLAYED")
	// A proof that the last life did not see is good in this one: the nonces are the deployment's.
	if _, err := l.submit(t.Context(), unused); err != nil {
		t.Errorf("a proof for a challenge of the last life: %v", err)
	}
	w.advance(4 * time.Minute)
	replayed("just before the challenge ends", "STS_NONCE_USED")
	w.advance(2*time.Minute + time.Second) // five of the challenge and one of skew
	before := l.kept(t)
	for _, nonce := range [][]byte{old, used.GetNonce()} {
		_, err := l.claims(t, claim{creds: b.Credentials(), build: b.ID, nonce: nonce})
		wantReason(t, err, codes.Unauthenticated, "STS_NONCE_EXPIRED")
	}
	_, err := l.submit(t.Context(), used)
	wantReason(t, err, codes.Unauthenticated, "STS_NONCE_EXPIRED")
	l.unchanged(t, before)
}

// TestExpiredCredentials: a session that AWS has ended signs nothing.
func TestExpiredCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	creds := cloud.Deploy.SessionFor("deploy-1", 15*time.Minute)
	w.advance(16 * time.Minute)
	before := l.kept(t)
	_, err := l.claims(t, claim{creds: creds})
	wantReason(t, err, codes.Unauthenticated, "AWS_STS_REFUSED")
	l.unchanged(t, before)
}

// TestOneDatabaseOneService: two processes cannot share a data directory, so that
// there is no second memory of what was used up.
func TestOneDatabaseOneService(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	cfg, _ := w.config(t, withAWS(cloud))
	if s, err := server.New(t.Context(), cfg); err == nil || refusal.CodeOf(err) != store.CodeStoreLocked {
		t.Errorf("a second service on %s: %v, %v", filepath.Base(w.data), s, err)
	}
	if _, err := l.claims(t, claim{creds: cloud.Deploy.Session("deploy-1")}); err != nil {
		t.Errorf("the first service, afterwards: %v", err)
	}
}

// TestProofRace: of 50 exchanges of one proof at a time, at two stacks of the
// identity layer that share key and database as two processes would, one opens a
// session. The databases are two connections to one file: the lock that keeps a
// second process away is got around, as by somebody who links the file.
func TestProofRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud)) // makes database and session key
	if _, err := l.claims(t, claim{creds: cloud.Deploy.Session("deploy-1")}); err != nil {
		t.Fatal(err)
	}
	wire := l.signed(t, claim{creds: cloud.Deploy.Session("deploy-1")})
	l.stop()
	key, err := identity.LoadSessionKey(filepath.Join(w.data, "session.key"))
	if err != nil {
		t.Fatal(err)
	}
	type stack struct {
		proofs   *identity.AWS
		sessions *identity.Sessions
	}
	var stacks []stack
	for i := range 2 {
		path := filepath.Join(w.data, "assay.db")
		if i > 0 {
			link := filepath.Join(t.TempDir(), "assay.db")
			if err := os.Symlink(path, link); err != nil {
				t.Fatal(err)
			}
			path = link
		}
		db, err := store.Open(t.Context(), store.Config{Path: path, Now: w.now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		proofs, err := identity.NewAWS(identity.AWSConfig{
			Audience: w.instance, NonceKey: serviceNonceKey(t, key), Now: w.now, HTTPClient: cloud.World.HTTPClient(), MaxConcurrent: 64,
			Accounts: []identity.AWSAccount{{ID: testenv.AWSAccount, Regions: []string{testenv.AWSRegion}, AllowedRoles: []string{"deploy"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		stacks = append(stacks, stack{proofs, identity.NewSessions(key, db, 0, w.now)})
	}
	before := l.kept(t)
	var opened, replayed, used atomic.Int64
	var token atomic.Value
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			s := stacks[i%2]
			<-start
			v, err := s.proofs.VerifyProof(t.Context(), proofOf(wire))
			if refusal.CodeOf(err) == identity.CodeNonceUsed { // each machine asks AWS once
				used.Add(1)
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			switch got, _, err := s.sessions.Open(t.Context(), v); {
			case err == nil:
				opened.Add(1)
				token.Store(got)
			case refusal.CodeOf(err) == identity.CodeTokenReplayed:
				replayed.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	if opened.Load() != 1 || replayed.Load() != 1 || used.Load() != 48 {
		t.Fatalf("%d opened, %d replayed, %d not asked about; want 1, 1 and 48", opened.Load(), replayed.Load(), used.Load())
	}
	if after := l.kept(t); after.Sessions != before.Sessions+1 || after.Consumed != before.Consumed+1 {
		t.Errorf("%+v became %+v", before, after)
	}
	for i, s := range stacks { // and both know the one session
		if c, _, err := s.sessions.Check(t.Context(), token.Load().(string)); err != nil || c.AWSRole == nil || c.AWSRole.SessionName != "deploy-1" {
			t.Errorf("stack %d: %v, %v", i, c, err)
		}
	}
}

func proofOf(p *assayv1.StsProof) *stsproof.Proof {
	return &stsproof.Proof{
		AccessKeyID: p.GetAccessKeyId(), Region: p.GetRegion(), Date: p.GetDate(), SessionToken: p.GetSessionToken(),
		Signature: p.GetSignature(), Nonce: p.GetNonce(), BuildID: p.GetBuildId(),
	}
}

// serviceNonceKey is how the service derives the key of its challenges.
func serviceNonceKey(t testing.TB, key []byte) []byte {
	t.Helper()
	nonces, err := hkdf.Expand(sha256.New, key, "assay sts challenge v1", identity.SessionKeyBytes)
	if err != nil {
		t.Fatal(err)
	}
	return nonces
}
