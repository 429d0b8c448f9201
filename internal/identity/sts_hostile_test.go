package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/stsproof"
)

const (
	canaryToken  = "IQoJb3JpZ2luX2VjCANARY/session+token=="
	canarySecret = "CANARYsecretAccessKeyCANARYsecretAccess0"
)

// evilSTS answers every AWS host name, over TLS that is believed, with whatever a
// test wants.
type evilSTS struct {
	clock  *clock
	aws    *AWS
	log    bytes.Buffer
	answer http.HandlerFunc
	asked  atomic.Int64

	mu    sync.Mutex
	hosts []string // connected to
}

func newEvilSTS(tb testing.TB, edit ...func(*AWSConfig)) *evilSTS {
	tb.Helper()
	e := &evilSTS{clock: newClock()}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.asked.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // before that, a server does not notice that a client has gone
		e.answer(w, r)
	}))
	tb.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			e.mu.Lock()
			e.hosts = append(e.hosts, addr)
			e.mu.Unlock()
			return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
		},
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "example.com"},
		DisableKeepAlives: true,
	}
	cfg := awsConfig(e.clock)
	cfg.HTTPClient = &http.Client{Transport: transport}
	cfg.Logger = slog.New(slog.NewTextHandler(&e.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, f := range edit {
		f(&cfg)
	}
	var err error
	if e.aws, err = NewAWS(cfg); err != nil {
		tb.Fatal(err)
	}
	return e
}

func (e *evilSTS) proof(tb testing.TB) *stsproof.Proof {
	tb.Helper()
	nonce, _ := e.aws.Challenge()
	creds := aws.Credentials{AccessKeyID: "ASIAIOSFODNN7EXAMPLE", SecretAccessKey: canarySecret, SessionToken: canaryToken}
	p, err := stsproof.Sign(context.Background(), creds, testRegion, testAudience, nonce, "", e.clock.Now())
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func identityJSON(account, arn, userID string) string {
	quote := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	return `{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Account":` + quote(account) + `,"Arn":` + quote(arn) + `,"UserId":` + quote(userID) +
		`},"ResponseMetadata":{"RequestId":"c6104cbe-af31-11e0-8154-cbc7ccf896c7"}}}`
}

const (
	goodARN    = "arn:aws:sts::111122223333:assumed-role/deploy/release"
	goodUserID = "AROACKCEVSQ6C2EXAMPLE:release"
)

var goodAnswer = identityJSON(testAccount, goodARN, goodUserID)

// answering returns a handler with a body, and content types if not the right one.
func answering(body string, types ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if types == nil {
			types = []string{"application/json"}
		}
		w.Header()["Content-Type"] = types
		_, _ = w.Write([]byte(body))
	}
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

func redirectingSTS(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "https://sts.amazonaws.com.evil.example/")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(goodAnswer))
	}
}

func xmlIdentity(arn string) string {
	return `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>` + arn +
		`</Arn><UserId>` + goodUserID + `</UserId><Account>111122223333</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`
}

// TestHostileAnswers: CVE-2020-16250 and its kin. Whoever answers, only exactly the
// document of GetCallerIdentity about a role session gives somebody an identity.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	session := func(arn string) string { return identityJSON(testAccount, arn, goodUserID) }
	tests := []struct {
		name   string
		answer http.HandlerFunc
		code   refusal.Code
	}{
		{"honest", answering(goodAnswer), ""},

		{"XML, as asked for by nobody", answering(xmlIdentity(goodARN), "text/xml"), CodeSTSAnswerInvalid},
		{"XML, called JSON", answering(xmlIdentity(goodARN)), CodeSTSAnswerInvalid},
		{"XML inside the JSON of another action", answering(`{"AssumeRoleWithWebIdentityResponse":{"SubjectFromWebIdentityToken":"` + strings.ReplaceAll(xmlIdentity(goodARN), `"`, `\"`) + `"}}`), CodeSTSAnswerInvalid},
		{"JSON called XML", answering(goodAnswer, "text/xml"), CodeSTSAnswerInvalid},
		{"JSON and something else", answering(goodAnswer, "application/json; charset=utf-8; profile=x"), CodeSTSAnswerInvalid},
		{"JSON in UTF-7", answering(goodAnswer, "application/json; charset=utf-7"), CodeSTSAnswerInvalid},
		{"JSON of a vendor", answering(goodAnswer, "application/x-amz-json-1.1"), CodeSTSAnswerInvalid},
		{"no type", answering(goodAnswer, ""), CodeSTSAnswerInvalid},
		{"two types", answering(goodAnswer, "application/json", "text/html"), CodeSTSAnswerInvalid},
		{"an encoding", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			answering(goodAnswer)(w, r)
		}, CodeSTSAnswerInvalid},

		{"nothing", answering(""), CodeSTSAnswerInvalid},
		{"null", answering("null"), CodeSTSAnswerInvalid},
		{"an empty object", answering("{}"), CodeSTSAnswerInvalid},
		{"no result", answering(`{"GetCallerIdentityResponse":{"ResponseMetadata":{"RequestId":"x"}}}`), CodeSTSAnswerInvalid},
		{"result null", answering(`{"GetCallerIdentityResponse":{"GetCallerIdentityResult":null,"ResponseMetadata":{"RequestId":"x"}}}`), CodeSTSAnswerInvalid},
		{"results in a list", answering(strings.Replace(strings.Replace(goodAnswer, `Result":{`, `Result":[{`, 1), `},"ResponseM`, `}],"ResponseM`, 1)), CodeSTSAnswerInvalid},
		{"two results", answering(strings.Replace(goodAnswer, `"ResponseMetadata"`, `"GetCallerIdentityResult":{"Account":"1"},"ResponseMetadata"`, 1)), CodeSTSAnswerInvalid},
		{"two Arns", answering(strings.Replace(goodAnswer, `"UserId"`, `"Arn":"arn:aws:sts::999999999999:assumed-role/deploy/release","UserId"`, 1)), CodeSTSAnswerInvalid},
		{"an ARN in another case", answering(strings.Replace(goodAnswer, `"UserId"`, `"arn":"arn:aws:sts::999999999999:assumed-role/deploy/release","UserId"`, 1)), CodeSTSAnswerInvalid},
		{"names in lower case", answering(strings.ToLower(goodAnswer)), CodeSTSAnswerInvalid},
		{"another field", answering(strings.Replace(goodAnswer, `"UserId"`, `"Extra":"x","UserId"`, 1)), CodeSTSAnswerInvalid},
		{"nested in another answer", answering(`{"DecodeAuthorizationMessageResponse":` + goodAnswer + `}`), CodeSTSAnswerInvalid},
		{"nested in itself", answering(`{"GetCallerIdentityResponse":` + goodAnswer + `}`), CodeSTSAnswerInvalid},
		{"something after", answering(goodAnswer + goodAnswer), CodeSTSAnswerInvalid},
		{"something before", answering("x" + goodAnswer), CodeSTSAnswerInvalid},
		{"a byte order mark", answering("\xef\xbb\xbf" + goodAnswer), CodeSTSAnswerInvalid},
		{"cut off", answering(goodAnswer[:len(goodAnswer)-1]), CodeSTSAnswerInvalid},
		{"no request id", answering(strings.Replace(goodAnswer, "c6104cbe-af31-11e0-8154-cbc7ccf896c7", "", 1)), CodeSTSAnswerInvalid},
		{"too large", answering(goodAnswer + strings.Repeat(" ", maxSTSAnswer)), CodeSTSAnswerInvalid},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for chunk := bytes.Repeat([]byte(" "), 1<<16); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, CodeSTSAnswerInvalid},

		{"a user", answering(session("arn:aws:iam::111122223333:user/deploy")), CodeAWSPrincipalRefused},
		{"a user with a path", answering(session("arn:aws:iam::111122223333:user/assumed-role/deploy/release")), CodeAWSPrincipalRefused},
		{"root", answering(session("arn:aws:iam::111122223333:root")), CodeAWSPrincipalRefused},
		{"a federated user", answering(session("arn:aws:sts::111122223333:federated-user/deploy")), CodeAWSPrincipalRefused},
		{"a role, and no session of it", answering(session("arn:aws:iam::111122223333:role/deploy")), CodeSTSAnswerInvalid},
		{"no ARN", answering(session("")), CodeSTSAnswerInvalid},
		{"an ARN with a path", answering(session("arn:aws:sts::111122223333:assumed-role/ci/deploy/release")), CodeSTSAnswerInvalid},
		{"an ARN with an escape", answering(session("arn:aws:sts::111122223333:assumed-role/deploy%2Frelease")), CodeSTSAnswerInvalid},
		{"an ARN with a wildcard", answering(session("arn:aws:sts::111122223333:assumed-role/*/release")), CodeSTSAnswerInvalid},
		{"an ARN with any account", answering(session("arn:aws:sts::*:assumed-role/deploy/release")), CodeSTSAnswerInvalid},
		{"an ARN with a line end", answering(session(goodARN + "\n")), CodeSTSAnswerInvalid},
		{"an ARN with a region", answering(session("arn:aws:sts:eu-west-1:111122223333:assumed-role/deploy/release")), CodeSTSAnswerInvalid},
		{"an ARN of another service", answering(session("arn:aws:s3::111122223333:assumed-role/deploy/release")), CodeSTSAnswerInvalid},
		{"an ARN of another partition", answering(session("arn:aws-cn:sts::111122223333:assumed-role/deploy/release")), CodeSTSAnswerInvalid},
		{"an ARN of another account", answering(session("arn:aws:sts::444455556666:assumed-role/deploy/release")), CodeSTSAnswerInvalid},
		{"a session name with a slash", answering(session(goodARN + "/../admin")), CodeSTSAnswerInvalid},
		{"a session name of dots and colons", answering(identityJSON(testAccount, goodARN+":x", goodUserID+":x")), CodeSTSAnswerInvalid},
		{"a long account", answering(identityJSON(testAccount+"4", goodARN, goodUserID)), CodeSTSAnswerInvalid},
		{"an account as a number", answering(strings.Replace(goodAnswer, `"111122223333"`, `111122223333`, 1)), CodeSTSAnswerInvalid},
		{"a user id of another session", answering(identityJSON(testAccount, goodARN, "AROACKCEVSQ6C2EXAMPLE:other")), CodeSTSAnswerInvalid},
		{"a user id of a user", answering(identityJSON(testAccount, goodARN, "AIDACKCEVSQ6C2EXAMPLE:release")), CodeSTSAnswerInvalid},
		{"a user id without session", answering(identityJSON(testAccount, goodARN, "AROACKCEVSQ6C2EXAMPLE")), CodeSTSAnswerInvalid},

		{"301", redirectingSTS(301), CodeSTSAnswerInvalid},
		{"302", redirectingSTS(302), CodeSTSAnswerInvalid},
		{"307", redirectingSTS(307), CodeSTSAnswerInvalid},
		{"308", redirectingSTS(308), CodeSTSAnswerInvalid},
		{"201 with an identity", status(201, goodAnswer), CodeSTSAnswerInvalid},
		{"204", status(204, ""), CodeSTSAnswerInvalid},
		{"400 with an identity", status(400, goodAnswer), CodeSTSRefused},
		{"403 with an identity", status(403, goodAnswer), CodeSTSRefused},
		{"500 with an identity", status(500, goodAnswer), CodeSTSUnavailable},
		{"408", status(408, ""), CodeSTSUnavailable},
		{"429", status(429, ""), CodeSTSThrottled},
		{"503 that throttles", status(503, `{"Error":{"Code":"SlowDown"}}`), CodeSTSThrottled},
		{"throttling, JSON", status(400, `{"Error":{"Code":"Throttling","Message":"Rate exceeded","Type":"Sender"},"RequestId":"x"}`), CodeSTSThrottled},
		{"throttling, XML", status(400, `<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code></Error></ErrorResponse>`), CodeSTSThrottled},
		{"signature, JSON", status(403, `{"Error":{"Code":"SignatureDoesNotMatch","Message":"`+canaryToken+`","Type":"Sender"},"RequestId":"x"}`), CodeSTSRefused},
		{"expired", status(403, `{"Error":{"Code":"ExpiredToken"}}`), CodeSTSRefused},
		{"an unknown code", status(418, `{"Error":{"Code":"`+canaryToken[:20]+`"}}`), CodeSTSRefused},

		{"broken off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, CodeSTSUnavailable},
		{"less than announced", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			answering(goodAnswer)(w, r)
		}, CodeSTSUnavailable},
		{"no HTTP, and what was sent", func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			fmt.Fprintf(conn, "%s\r\n\r\n", r.Header.Get("X-Amz-Security-Token"))
			conn.Close()
		}, CodeSTSUnavailable},
		{"everything sent, in every header", func(w http.ResponseWriter, r *http.Request) {
			echo := fmt.Sprint(r.Header)
			w.Header().Set("Content-Type", echo)
			_, _ = w.Write([]byte(identityJSON(echo, echo, echo)))
		}, CodeSTSAnswerInvalid},
		{"everything sent, in the identity", func(w http.ResponseWriter, r *http.Request) {
			echo := fmt.Sprint(r.Header)
			answering(identityJSON(echo, echo, echo))(w, r)
		}, CodeSTSAnswerInvalid},
		{"everything sent, as JSON names", func(w http.ResponseWriter, r *http.Request) {
			echo, _ := json.Marshal(map[string]any{r.Header.Get("X-Amz-Security-Token"): r.Header})
			answering(string(echo))(w, r)
		}, CodeSTSAnswerInvalid},
	}
	e := newEvilSTS(t)
	for _, tt := range tests {
		e.answer = tt.answer
		p := e.proof(t)
		v, err := e.aws.VerifyProof(t.Context(), p)
		if refusal.CodeOf(err) != tt.code || (err == nil) != (tt.code == "") || (v == nil) != (err != nil) {
			t.Errorf("%s: %v; want code %q", tt.name, err, tt.code)
		}
		noSecrets(t, tt.name, p, fmt.Sprint(err), e.log.String())
	}
	if got := e.asked.Load(); got != int64(len(tests)) {
		t.Errorf("%d requests for %d proofs: a redirect was followed, or something asked again", got, len(tests))
	}
	for _, host := range e.hosts {
		if host != "sts.eu-west-1.amazonaws.com:443" {
			t.Errorf("a connection to %s", host)
		}
	}
	if e.log.Len() == 0 {
		t.Error("nothing was logged, so that nothing was searched for secrets")
	}
}

func noSecrets(t *testing.T, name string, p *stsproof.Proof, texts ...string) {
	t.Helper()
	for _, text := range texts {
		for _, secret := range []string{canaryToken[:20], canarySecret, fmt.Sprintf("%x", p.Signature), "CANARY"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: a secret is in %q", name, text)
			}
		}
	}
}

// TestSTSTimeout: an answer that drips does not hold a slot for ever.
func TestSTSTimeout(t *testing.T) {
	t.Parallel()
	for name, sendHeader := range map[string]bool{"no answer": false, "half an answer": true} {
		e := newEvilSTS(t, func(c *AWSConfig) { c.Timeout = 30 * time.Millisecond })
		e.answer = func(w http.ResponseWriter, r *http.Request) {
			if sendHeader {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(goodAnswer[:10]))
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
		}
		_, err := e.aws.VerifyProof(t.Context(), e.proof(t))
		if wantCode(t, err, CodeSTSUnavailable); t.Failed() {
			t.Fatal(name)
		}
		if e.aws.slots.busy+e.aws.strangers.busy != 0 {
			t.Errorf("%s: a slot is still taken", name)
		}
	}
}

// TestRefusedBeforeSTS: what can be refused here costs AWS nothing.
func TestRefusedBeforeSTS(t *testing.T) {
	t.Parallel()
	e := newEvilSTS(t)
	e.answer = answering(goodAnswer)
	for _, tt := range []struct {
		name string
		edit func(*stsproof.Proof)
		code refusal.Code
	}{
		{"shape", func(p *stsproof.Proof) { p.Signature = p.Signature[1:] }, stsproof.CodeProofInvalid},
		{"header in the token", func(p *stsproof.Proof) { p.SessionToken += "\r\nHost: evil.example" }, stsproof.CodeProofInvalid},
		{"host in the region", func(p *stsproof.Proof) { p.Region = "evil.example/eu-west-1" }, stsproof.CodeRegionUnknown},
		{"a region nobody may use", func(p *stsproof.Proof) { p.Region = "us-east-1" }, CodeAWSRegionNotAllowed},
		{"another partition", func(p *stsproof.Proof) { p.Region = "cn-north-1" }, CodeAWSRegionNotAllowed},
		{"nonce", func(p *stsproof.Proof) { p.Nonce = make([]byte, 32) }, CodeNonceInvalid},
		{"old", func(p *stsproof.Proof) { p.Date = e.clock.Now().Add(-7 * time.Minute).Format(stsproof.DateFormat) }, CodeProofExpired},
		{"of the future", func(p *stsproof.Proof) { p.Date = e.clock.Now().Add(2 * time.Minute).Format(stsproof.DateFormat) }, CodeProofNotYetValid},
	} {
		p := e.proof(t)
		tt.edit(p)
		_, err := e.aws.VerifyProof(t.Context(), p)
		if wantCode(t, err, tt.code); t.Failed() {
			t.Fatal(tt.name)
		}
	}
	_, err := e.aws.VerifyProof(t.Context(), nil)
	wantCode(t, err, stsproof.CodeProofInvalid)
	if got := e.asked.Load(); got != 0 {
		t.Errorf("STS was asked %d times", got)
	}
}

// TestOnlyExactMatchesPass: of all identities that STS could vouch for, those pass
// whose account, region and role are on one entry of the configuration together.
func TestOnlyExactMatchesPass(t *testing.T) {
	t.Parallel()
	accounts := []AWSAccount{
		{ID: testAccount, Regions: []string{"eu-west-1", "us-east-1"}, AllowedRoles: []string{"deploy", "ops"}},
		{ID: otherAccount, Regions: []string{"eu-west-1"}, AllowedRoles: []string{"reader"}},
		{ID: otherAccount, Partition: "aws-cn", Regions: []string{"cn-north-1"}, AllowedRoles: []string{"deploy"}},
	}
	e := newEvilSTS(t, func(c *AWSConfig) { c.Accounts = accounts })
	rapid.Check(t, func(rt *rapid.T) {
		id := rapid.SampledFrom([]string{testAccount, otherAccount, "999999999999", "11112222333"}).Draw(rt, "account")
		region := rapid.SampledFrom([]string{"eu-west-1", "us-east-1", "cn-north-1", "us-gov-west-1"}).Draw(rt, "region")
		role := rapid.SampledFrom([]string{"deploy", "ops", "reader", "Deploy", "deploy2", "eploy"}).Draw(rt, "role")
		partition := rapid.SampledFrom([]string{"aws", "aws-cn", "aws-us-gov"}).Draw(rt, "partition")
		e.answer = answering(identityJSON(id, "arn:"+partition+":sts::"+id+":assumed-role/"+role+"/release", goodUserID))

		want := false
		for _, a := range accounts {
			_, of, _ := stsproof.Endpoint(region)
			if p := max(a.Partition, "aws"); p == partition && p == of && a.ID == id {
				want = want || slices.Contains(a.Regions, region) && slices.Contains(a.AllowedRoles, role)
			}
		}
		nonce, _ := e.aws.Challenge()
		creds := aws.Credentials{AccessKeyID: "ASIAIOSFODNN7EXAMPLE", SecretAccessKey: canarySecret, SessionToken: canaryToken}
		p, err := stsproof.Sign(context.Background(), creds, region, testAudience, nonce, "", e.clock.Now())
		if err != nil {
			rt.Fatal(err)
		}
		v, err := e.aws.VerifyProof(context.Background(), p)
		if (err == nil) != want {
			rt.Fatalf("%s %s %s %s: %v; want a pass: %t", partition, id, region, role, err, want)
		}
		if err == nil && (v.Caller.AWSRole.Account != id || v.Caller.AWSRole.Partition != partition || !strings.HasSuffix(v.Caller.AWSRole.RoleARN, ":role/"+role)) {
			rt.Fatalf("vouched for %s %s %s, and it became %+v", partition, id, role, v.Caller.AWSRole)
		}
	})
}

// FuzzCallerIdentity: whatever is accepted as an answer says the same thing in all
// three of its fields, and nothing in it can leave an ARN or a path.
func FuzzCallerIdentity(f *testing.F) {
	f.Add([]byte(goodAnswer))
	f.Add([]byte(identityJSON(testAccount, "arn:aws:iam::111122223333:root", testAccount)))
	f.Add([]byte(strings.Replace(goodAnswer, "aws:", "aws-cn:", 1)))
	f.Add([]byte(xmlIdentity(goodARN)))
	f.Fuzz(func(t *testing.T, body []byte) {
		who, err := parseCallerIdentity(body, "aws")
		if err != nil {
			if code := refusal.CodeOf(err); code != CodeSTSAnswerInvalid && code != CodeAWSPrincipalRefused {
				t.Errorf("code %q", code)
			}
			return
		}
		again, err := parseCallerIdentity([]byte(identityJSON(who.account, "arn:aws:sts::"+who.account+":assumed-role/"+who.role+"/"+who.session, who.uniqueID+":"+who.session)), "aws")
		if err != nil || *again != *who || strings.ContainsAny(who.role+who.session+who.uniqueID, "/:%* \n\x00") {
			t.Errorf("%q became %+v (%v)", body, who, err)
		}
	})
}
