package awstest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

func stsClient(w *World, creds aws.Credentials, region string) *sts.Client {
	return sts.NewFromConfig(once(w.AWSConfig(creds, region)))
}

// TestCallerIdentity asks, as each kind of principal, who that is.
func TestCallerIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	role := acct.Role("app", Path("/service-role/")).Deny("*")
	china := w.AccountIn("aws-cn", otherAccount).Role("app")
	for _, tt := range []struct {
		name, region, arn, userID string
		creds                     aws.Credentials
	}{
		{"session", testRegion, "arn:aws:sts::111122223333:assumed-role/app/s1", role.UniqueID() + ":s1", role.Session("s1")},
		{"user", testRegion, "arn:aws:iam::111122223333:user/alice", acct.user("alice").id, acct.User("alice")},
		{"root", "us-east-1", "arn:aws:iam::111122223333:root", testAccount, acct.Root()},
		{"federated", testRegion, "arn:aws:sts::111122223333:federated-user/bob", testAccount + ":bob", acct.Federated("bob")},
		{"china", "cn-north-1", "arn:aws-cn:sts::444455556666:assumed-role/app/s1", china.UniqueID() + ":s1", china.Session("s1")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := stsClient(w, tt.creds, tt.region).GetCallerIdentity(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			arn := strings.Split(aws.ToString(out.Arn), ":")
			if aws.ToString(out.Arn) != tt.arn || aws.ToString(out.UserId) != tt.userID || aws.ToString(out.Account) != arn[4] {
				t.Errorf("%s %s %s, want %s %s", aws.ToString(out.Account), aws.ToString(out.Arn), aws.ToString(out.UserId), tt.arn, tt.userID)
			}
		})
	}
}

// post signs a request with the SDK's signer, lets the test change it, and sends
// it.
func post(t *testing.T, w *World, creds aws.Credentials, host, body string, at time.Time, change func(*http.Request)) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "https://"+host+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("X-Assay-Audience", "https://assay.example.com")
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hexSHA256([]byte(body)), "sts", testRegion, at); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	resp, err := w.HTTPClient().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

const (
	whoAmI  = "Action=GetCallerIdentity&Version=2011-06-15"
	stsHost = "sts.eu-west-1.amazonaws.com"
)

// TestCallerIdentityJSON sees the answer byte for byte as STS writes it.
func TestCallerIdentityJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	role := w.Account(testAccount).Role("app")
	status, header, body := post(t, w, role.Session("s1"), stsHost, whoAmI, time.Now(), nil)
	id := header.Get("X-Amzn-Requestid")
	want := `{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Account":"111122223333","Arn":"arn:aws:sts::111122223333:assumed-role/app/s1","UserId":"` +
		role.UniqueID() + `:s1"},"ResponseMetadata":{"RequestId":"` + id + `"}}}`
	if status != http.StatusOK || header.Get("Content-Type") != "application/json" || body != want || len(id) != 36 {
		t.Errorf("%d %v %s, want %s", status, header, body, want)
	}
}

// TestTampering changes a good request in one thing, after it was signed or
// before, and wants the code of STS.
func TestTampering(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	session := func() aws.Credentials { return acct.Role("app").Session("s1") }
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	inAuthorization := func(from, to string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), from, to, 1))
		}
	}
	newBody := func(text string) func(*http.Request) {
		return func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		}
	}
	for _, tt := range []struct {
		name   string
		creds  func(aws.Credentials) aws.Credentials
		host   string
		body   string
		at     time.Duration
		change func(*http.Request)
		code   string // empty: the request is good
	}{
		{name: "nothing"},
		{name: "unsigned header", change: set("X-Unsigned", "1")},
		{name: "signed ten minutes ago", at: -10 * time.Minute},
		{name: "signed sixteen minutes ago", at: -16 * time.Minute, code: "SignatureDoesNotMatch"},
		{name: "signed in sixteen minutes", at: 16 * time.Minute, code: "SignatureDoesNotMatch"},
		{name: "another audience", change: set("X-Assay-Audience", "https://evil.example.com"), code: "SignatureDoesNotMatch"},
		{name: "no audience", change: func(r *http.Request) { r.Header.Del("X-Assay-Audience") }, code: "SignatureDoesNotMatch"},
		{name: "a second audience", change: func(r *http.Request) { r.Header.Add("X-Assay-Audience", "x") }, code: "SignatureDoesNotMatch"},
		{name: "another token", change: set("X-Amz-Security-Token", "x"), code: "InvalidClientTokenId"},
		{name: "no token", change: func(r *http.Request) { r.Header.Del("X-Amz-Security-Token") }, code: "InvalidClientTokenId"},
		{name: "token not signed", change: inAuthorization("x-amz-security-token;", ""), code: "SignatureDoesNotMatch"},
		{name: "host not signed", change: inAuthorization(";host", ""), code: "SignatureDoesNotMatch"},
		{name: "header order", change: inAuthorization("accept;", "x;accept;"), code: "IncompleteSignature"},
		{name: "audience not signed", change: inAuthorization(";x-assay-audience", ""), code: "SignatureDoesNotMatch"},
		{name: "another date", change: set("X-Amz-Date", time.Now().Add(time.Minute).UTC().Format(amzDate)), code: "SignatureDoesNotMatch"},
		{name: "no date", change: func(r *http.Request) { r.Header.Del("X-Amz-Date") }, code: "IncompleteSignature"},
		{name: "two dates", change: func(r *http.Request) { r.Header.Add("X-Amz-Date", r.Header.Get("X-Amz-Date")) }, code: "IncompleteSignature"},
		{name: "another body", change: newBody(whoAmI + "&x=y"), code: "SignatureDoesNotMatch"},
		{name: "a parameter twice", body: whoAmI + "&action=AssumeRole", code: "MalformedQueryString"},
		{name: "an action in the query too", change: func(r *http.Request) { r.URL.RawQuery = "Action=AssumeRole" }, code: "MalformedQueryString"},
		{name: "a query", change: func(r *http.Request) { r.URL.RawQuery = "x=y" }, code: "SignatureDoesNotMatch"},
		{name: "another path", change: func(r *http.Request) { r.URL.Path = "/x" }, code: "UnknownOperationException"},
		{name: "another region's host", host: "sts.us-east-1.amazonaws.com", code: "SignatureDoesNotMatch"},
		{name: "the host of China", host: "sts.cn-north-1.amazonaws.com.cn", code: "InvalidClientTokenId"},
		{name: "another service", change: inAuthorization("/sts/", "/iam/"), code: "SignatureDoesNotMatch"},
		{name: "no authorization", change: func(r *http.Request) { r.Header.Del("Authorization") }, code: "MissingAuthenticationToken"},
		{name: "two authorizations", change: func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, code: "IncompleteSignature"},
		{name: "a presigned part", change: func(r *http.Request) { r.URL.RawQuery = "X-Amz-Signature=00" }, code: "IncompleteSignature"},
		{name: "another algorithm", change: inAuthorization(algorithm, "AWS4-HMAC-SHA1"), code: "IncompleteSignature"},
		{name: "an upper-case signature", change: func(r *http.Request) {
			r.Header.Set("Authorization", strings.ToUpper(r.Header.Get("Authorization")))
		}, code: "IncompleteSignature"},
		{name: "another key's secret", creds: func(c aws.Credentials) aws.Credentials {
			c.SecretAccessKey = acct.User("alice").SecretAccessKey
			return c
		}, code: "SignatureDoesNotMatch"},
		{name: "another session's token", creds: func(c aws.Credentials) aws.Credentials {
			c.SessionToken = session().SessionToken
			return c
		}, code: "InvalidClientTokenId"},
		{name: "an unknown key", creds: func(c aws.Credentials) aws.Credentials {
			c.AccessKeyID = "ASIAAAAAAAAAAAAAAAAA"
			return c
		}, code: "InvalidClientTokenId"},
		{name: "an unknown action", body: "Action=GetSecrets&Version=2011-06-15", code: "InvalidAction"},
		{name: "an unknown version", body: "Action=GetCallerIdentity&Version=2010-05-08", code: "InvalidAction"},
		{name: "no action", body: "Version=2011-06-15", code: "MissingAction"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			creds, host, body := session(), stsHost, whoAmI
			if tt.creds != nil {
				creds = tt.creds(creds)
			}
			if tt.host != "" {
				host = tt.host
			}
			if tt.body != "" {
				body = tt.body
			}
			status, _, answer := post(t, w, creds, host, body, time.Now().Add(tt.at), tt.change)
			if tt.code == "" {
				if status != http.StatusOK {
					t.Fatalf("%d %s", status, answer)
				}
				return
			}
			var e struct{ Error struct{ Code, Type string } }
			if err := json.Unmarshal([]byte(answer), &e); err != nil || e.Error.Code != tt.code || status < 400 || e.Error.Type != "Sender" {
				t.Errorf("%d %s, want %s", status, answer, tt.code)
			}
		})
	}
}

// TestPresigned sees that STS takes presigned requests for 15 minutes whatever
// X-Amz-Expires says, and only as they were signed.
func TestPresigned(t *testing.T) {
	t.Parallel()
	w, clock := newClockWorld(t)
	role := w.Account(testAccount).Role("app")
	client := sts.NewPresignClient(stsClient(w, role.SessionFor("s1", 12*time.Hour), testRegion), func(o *sts.PresignOptions) {
		o.ClientOptions = append(o.ClientOptions, sts.WithAPIOptions(smithyhttp.SetHeaderValue("X-K8s-Aws-Id", "cluster")))
	})
	signed, err := client.PresignGetCallerIdentity(context.Background(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	get := func(rawURL, cluster string) int {
		r, err := http.NewRequestWithContext(context.Background(), signed.Method, rawURL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-K8s-Aws-Id", cluster)
		resp, err := w.HTTPClient().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if got := get(signed.URL, "cluster"); got != http.StatusOK {
		t.Errorf("%d, want 200", got)
	}
	for name, rawURL := range map[string]string{
		"expires":      strings.Replace(signed.URL, "X-Amz-Date", "X-Amz-Expires=900&X-Amz-Date", 1),
		"duplicate":    signed.URL + "&x-amz-credential=" + url.QueryEscape("AKIA"),
		"action":       strings.Replace(signed.URL, "GetCallerIdentity", "AssumeRole", 1),
		"no signature": strings.Replace(signed.URL, "X-Amz-Signature", "X-Amz-Sig", 1),
	} {
		if got := get(rawURL, "cluster"); got != http.StatusForbidden && got != http.StatusBadRequest {
			t.Errorf("%s: %d, want a refusal", name, got)
		}
	}
	if got := get(signed.URL, "other"); got != http.StatusForbidden {
		t.Errorf("another header: %d, want 403", got)
	}
	clock.add(14 * time.Minute)
	if got := get(signed.URL, "cluster"); got != http.StatusOK {
		t.Errorf("after 14 minutes: %d, want 200", got)
	}
	clock.add(2 * time.Minute)
	if got := get(signed.URL, "cluster"); got != http.StatusForbidden {
		t.Errorf("after 16 minutes: %d, want 403", got)
	}
}

// TestExpiry ends sessions by time, and by the deletion of their role.
func TestExpiry(t *testing.T) {
	t.Parallel()
	w, clock := newClockWorld(t)
	acct := w.Account(testAccount)
	old := acct.Role("app")
	creds := old.SessionFor("s1", 10*time.Minute)
	ask := func() error {
		_, err := stsClient(w, creds, testRegion).GetCallerIdentity(context.Background(), nil)
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	clock.add(10 * time.Minute)
	creds.CanExpire = false // the client shall try
	wantCode(t, ask(), "ExpiredToken")

	creds = old.Session("s2")
	acct.DeleteRole("app")
	wantCode(t, ask(), "InvalidClientTokenId")
	if again := acct.Role("app"); again.UniqueID() == old.UniqueID() {
		t.Error("a role made anew has the old unique id")
	}
	wantCode(t, ask(), "InvalidClientTokenId")
}

// TestAssumeRole holds the trust policy and the caller's permissions to the rules
// of IAM.
func TestAssumeRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Account(testAccount), w.Account(otherAccount)
	caller := a.Role("caller").Allow("sts:AssumeRole")
	powerless := a.Role("powerless")
	a.AllowUser("alice", "sts:*")
	policy := func(statements string) RoleOption {
		return TrustPolicy(`{"Version":"2012-10-17","Statement":[` + statements + `]}`)
	}
	const allow = `{"Effect":"Allow","Action":"sts:AssumeRole","Principal":`
	for i, tt := range []struct {
		name     string
		caller   aws.Credentials
		in       *Account
		trust    RoleOption
		external string
		ok       bool
	}{
		{"account trusted", caller.Session("s1"), b, TrustAWS("", testAccount), "", true},
		{"account's root trusted", caller.Session("s1"), b, TrustAWS("", "arn:aws:iam::111122223333:root"), "", true},
		{"role trusted", caller.Session("s1"), b, TrustAWS("", caller.ARN()), "", true},
		{"session trusted", caller.Session("s1"), b, TrustAWS("", caller.SessionARN("s1")), "", true},
		{"another session trusted", caller.Session("s2"), b, TrustAWS("", caller.SessionARN("s1")), "", false},
		{"another account trusted", caller.Session("s1"), b, TrustAWS("", "777788889999"), "", false},
		{"user", a.User("alice"), b, TrustAWS("", testAccount), "", true},
		{"root user", a.Root(), a, TrustAWS("", testAccount), "", false},
		{"federated user", a.Federated("bob"), a, TrustAWS("", testAccount), "", false},
		{"not permitted", powerless.Session("s1"), a, TrustAWS("", testAccount), "", false},
		{"not permitted, named in the same account", powerless.Session("s1"), a, TrustAWS("", powerless.ARN()), "", true},
		{"not permitted, named in another account", powerless.Session("s1"), b, TrustAWS("", powerless.ARN()), "", false},
		{"only CodeBuild trusted", caller.Session("s1"), a, TrustService("codebuild.amazonaws.com"), "", false},
		{"everybody trusted", caller.Session("s1"), b, policy(allow + `"*"}`), "", true},
		{"everybody of AWS trusted", caller.Session("s1"), b, policy(allow + `{"AWS":"*"}}`), "", true},
		{"external id", caller.Session("s1"), b, TrustAWS("secret-id", testAccount), "secret-id", true},
		{"no external id", caller.Session("s1"), b, TrustAWS("secret-id", testAccount), "", false},
		{"another external id", caller.Session("s1"), b, TrustAWS("secret-id", testAccount), "secret-i", false},
		{"denied", caller.Session("s1"), b, policy(allow + `"*"},{"Effect":"Deny","Action":"sts:*","Principal":{"AWS":"` + testAccount + `"}}`), "", false},
		{"another action", caller.Session("s1"), b, policy(`{"Effect":"Allow","Action":"sts:TagSession","Principal":"*"}`), "", false},
		{"NotPrincipal", caller.Session("s1"), b, policy(`{"Effect":"Allow","Action":"sts:AssumeRole","NotPrincipal":{"AWS":"777788889999"}}`), "", false},
		{"unknown operator", caller.Session("s1"), b, policy(allow + `"*","Condition":{"Unknown":{"aws:PrincipalArn":"*"}}}`), "", false},
		{"unknown operator in a deny", caller.Session("s1"), b, policy(allow + `"*"},{"Effect":"Deny","Action":"sts:AssumeRole","Principal":"*","Condition":{"Unknown":{"x":"y"}}}`), "", false},
		{"ArnLike", caller.Session("s1"), b, policy(allow + `"*","Condition":{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::111122223333:role/call*"}}}`), "", true},
		{"StringNotEquals", caller.Session("s1"), b, policy(allow + `"*","Condition":{"StringNotEquals":{"aws:PrincipalAccount":["111122223333"]}}}`), "", false},
		{"Null", caller.Session("s1"), b, policy(allow + `"*","Condition":{"Null":{"sts:ExternalId":"false"}}}`), "", false},
		{"SourceAccount", caller.Session("s1"), b, policy(allow + `"*","Condition":{"StringEquals":{"aws:SourceAccount":"111122223333"}}}`), "", false},
		{"not a policy", caller.Session("s1"), b, TrustPolicy(`{`), "", false},
		{"another partition", caller.Session("s1"), w.AccountIn("aws-cn", "777788889999"), TrustAWS("", testAccount), "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			role := tt.in.Role("target-"+string(rune('A'+i)), Path("/deep/"), tt.trust)
			in := &sts.AssumeRoleInput{RoleArn: aws.String(role.ARN()), RoleSessionName: aws.String("assay")}
			if tt.external != "" {
				in.ExternalId = aws.String(tt.external)
			}
			out, err := stsClient(w, tt.caller, testRegion).AssumeRole(context.Background(), in)
			if !tt.ok {
				wantCode(t, err, "AccessDenied")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := aws.ToString(out.AssumedRoleUser.Arn); got != role.SessionARN("assay") || strings.Contains(got, "deep") {
				t.Errorf("assumed %s", got)
			}
			if left := time.Until(aws.ToTime(out.Credentials.Expiration)); left < 59*time.Minute || left > time.Hour {
				t.Errorf("expires in %v", left)
			}
			who, err := stsClient(w, credentialsOf(out.Credentials), testRegion).GetCallerIdentity(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if aws.ToString(who.UserId) != role.UniqueID()+":assay" {
				t.Errorf("the session is %s", aws.ToString(who.UserId))
			}
		})
	}
}

func credentialsOf(c *types.Credentials) aws.Credentials {
	return aws.Credentials{
		AccessKeyID: aws.ToString(c.AccessKeyId), SecretAccessKey: aws.ToString(c.SecretAccessKey), SessionToken: aws.ToString(c.SessionToken),
	}
}

// TestAssumeRoleInput holds parameters to their constraints, which the SDK does
// not check.
func TestAssumeRoleInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	caller := acct.Role("caller").Allow("*")
	target := acct.Role("target", MaxSession(2*time.Hour)).ARN()
	acct.AllowUser("alice", "*")
	for _, tt := range []struct {
		name  string
		creds aws.Credentials
		in    sts.AssumeRoleInput
		code  string
	}{
		{"role name", acct.User("alice"), sts.AssumeRoleInput{RoleArn: aws.String("target")}, "ValidationError"},
		{"no such role", acct.User("alice"), sts.AssumeRoleInput{RoleArn: aws.String(target + "x")}, "AccessDenied"},
		{"another path", acct.User("alice"), sts.AssumeRoleInput{RoleArn: aws.String(strings.Replace(target, "role/", "role/x/", 1))}, "AccessDenied"},
		{"session name", acct.User("alice"), sts.AssumeRoleInput{RoleSessionName: aws.String("a/b")}, "ValidationError"},
		{"short session name", acct.User("alice"), sts.AssumeRoleInput{RoleSessionName: aws.String("a")}, "ValidationError"},
		{"external id", acct.User("alice"), sts.AssumeRoleInput{ExternalId: aws.String("a b")}, "ValidationError"},
		{"short duration", acct.User("alice"), sts.AssumeRoleInput{DurationSeconds: aws.Int32(899)}, "ValidationError"},
		{"more than the role allows", acct.User("alice"), sts.AssumeRoleInput{DurationSeconds: aws.Int32(7201)}, "ValidationError"},
		{"more than chained roles get", caller.Session("s1"), sts.AssumeRoleInput{DurationSeconds: aws.Int32(3601)}, "ValidationError"},
		{"a session policy", acct.User("alice"), sts.AssumeRoleInput{Policy: aws.String("{}")}, "NotImplemented"},
		{"two hours", acct.User("alice"), sts.AssumeRoleInput{DurationSeconds: aws.Int32(7200)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.in.RoleArn == nil {
				tt.in.RoleArn = aws.String(target)
			}
			if tt.in.RoleSessionName == nil {
				tt.in.RoleSessionName = aws.String("assay")
			}
			_, err := stsClient(w, tt.creds, testRegion).AssumeRole(context.Background(), &tt.in)
			if tt.code != "" {
				wantCode(t, err, tt.code)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAssumeByService starts sessions as a service does.
func TestAssumeByService(t *testing.T) {
	t.Parallel()
	acct := newWorld(t).Account(testAccount)
	const service = "codebuild.amazonaws.com"
	guarded := TrustPolicy(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["sts:AssumeRole"],
		"Principal":{"Service":"codebuild.amazonaws.com"},"Condition":{"StringEquals":{"aws:SourceAccount":"111122223333"}}}}`)
	for _, tt := range []struct {
		name    string
		trust   RoleOption
		service string
		account string
		ok      bool
	}{
		{"trusted", TrustService(service), service, "", true},
		{"another service", TrustService(service), "ec2.amazonaws.com", "", false},
		{"an account", TrustAWS("", testAccount), service, "", false},
		{"everybody of AWS", TrustAWS("", "*"), service, "", false},
		{"its account", guarded, service, testAccount, true},
		{"another account", guarded, service, otherAccount, false},
		{"no account", guarded, service, "", false},
	} {
		_, err := acct.Role("app", tt.trust).AssumeByService(tt.service, "AWSCodeBuild-1", ServiceContext{SourceAccount: tt.account})
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v, want ok %v", tt.name, err, tt.ok)
		}
	}
}
