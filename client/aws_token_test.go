package client

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/assay-build/assay/internal/testenv/awstest"
)

// webOptions are those of a role in w that may ask for tokens.
func webOptions(w *awstest.World, role *awstest.Role, session string) AWSOptions {
	creds := role.Session(session)
	return AWSOptions{
		Region: testRegion, HTTPClient: w.HTTPClient(),
		Credentials: credentials.NewStaticCredentialsProvider(creds.AccessKeyID, creds.SecretAccessKey, creds.SessionToken),
	}
}

func TestAWSWebIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	issuer := w.Account(testAccount).EnableWebIdentity()
	role := w.Account(testAccount).Role("deploy", awstest.TrustService("lambda.amazonaws.com")).Allow("sts:GetWebIdentityToken")
	req, err := AWSWebIdentity(lookupIn(nil), webOptions(w, role, "release")).Credential(t.Context(), testServerURL)
	if err != nil {
		t.Fatal(err)
	}
	claims := claimsOf(t, req.GetOidcToken())
	if claims["iss"] != issuer || claims["sub"] != role.ARN() || !isAudience(claims["aud"], testServerURL) {
		t.Errorf("claims %v", claims)
	}
	iat, _ := claims["iat"].(float64)
	exp, _ := claims["exp"].(float64)
	if exp-iat != webIdentitySeconds || time.Since(time.Unix(int64(iat), 0)).Abs() > time.Minute {
		t.Errorf("good from %v to %v", iat, exp)
	}
	if own, _ := claims["https://sts.amazonaws.com/"].(map[string]any); own["request_tags"] != nil {
		t.Errorf("nobody asked for tags, and there are %v", own["request_tags"])
	}
}

// TestAWSWebIdentityOfBuild: in a job, and if asked, the token names the build, and
// the request is of the job's own session.
func TestAWSWebIdentityOfBuild(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Account(testAccount).EnableWebIdentity()
	role := buildRole(w).Allow("sts:GetWebIdentityToken", "sts:TagGetWebIdentityToken")
	source := AWSWebIdentity(lookupIn(jobEnv(w, role.Session(buildSession))), AWSOptions{BuildTag: webTag, HTTPClient: w.HTTPClient()})
	req, err := source.Credential(t.Context(), testServerURL)
	if err != nil {
		t.Fatal(err)
	}
	claims := claimsOf(t, req.GetOidcToken())
	own, _ := claims["https://sts.amazonaws.com/"].(map[string]any)
	tags, _ := own["request_tags"].(map[string]any)
	if claims["sub"] != role.ARN() || tags[webTag] != testBuildARN || len(tags) != 1 {
		t.Errorf("sub %v, tags %v", claims["sub"], tags)
	}
	_, err = AWSWebIdentity(lookupIn(nil), AWSOptions{BuildTag: webTag, HTTPClient: w.HTTPClient()}).Credential(t.Context(), testServerURL)
	wantCode(t, err, CodeCredentialMissing)
}

func claimsOf(t *testing.T, jwt string) map[string]any {
	t.Helper()
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts", len(parts))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// isAudience: AWS writes one audience as a string or as a list of one.
func isAudience(aud any, want string) bool {
	list, ok := aud.([]any)
	return aud == any(want) || ok && len(list) == 1 && list[0] == want
}

func TestAWSWebIdentityRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	trust := awstest.TrustService("lambda.amazonaws.com")
	disabled := w.Account("444455556666").Role("deploy", trust).Allow("sts:GetWebIdentityToken")
	w.Account(testAccount).EnableWebIdentity()
	powerless := w.Account(testAccount).Role("powerless", trust)
	able := w.Account(testAccount).Role("able", trust).Allow("sts:GetWebIdentityToken")
	asked := 0
	for _, tt := range []struct {
		name  string
		role  *awstest.Role
		fault *awstest.Fault
		code  string
		text  string
		retry bool
	}{
		{"not enabled", disabled, nil, CodeCredentialRefused, "EnableOutboundWebIdentityFederation", false},
		{"not allowed", powerless, nil, CodeCredentialRefused, "sts:GetWebIdentityToken", false},
		{"throttled", able, &awstest.Fault{Status: 400, Code: "Throttling"}, CodeCredentialUnavailable, "Throttling", true},
		{"down", able, &awstest.Fault{Status: 503, Code: "ServiceUnavailable"}, CodeCredentialUnavailable, "", true},
		{"gone", able, &awstest.Fault{CloseConnection: true}, CodeCredentialUnavailable, "", true},
		{"no token", able, webIdentityAnswer(""), CodeCredentialUnavailable, "no JWT", false},
		{"no JWT", able, webIdentityAnswer("opaque"), CodeCredentialUnavailable, "no JWT", false},
		{"too long", able, webIdentityAnswer("a.b." + strings.Repeat("c", maxOIDCTokenBytes)), CodeCredentialUnavailable, "no JWT", false},
	} {
		w.Heal()
		if tt.fault != nil {
			tt.fault.Service, tt.fault.Action = "sts", "GetWebIdentityToken"
			w.Fail(*tt.fault)
		}
		opts := webOptions(w, tt.role, "release")
		asked++
		_, err := AWSWebIdentity(lookupIn(nil), opts).Credential(t.Context(), testServerURL)
		wantCode(t, err, tt.code)
		creds, _ := opts.Credentials.Retrieve(t.Context())
		var e *Error
		if errors.As(err, &e); e.Retryable != tt.retry || !strings.Contains(e.Message, tt.text) || strings.Contains(e.Message, creds.SessionToken) {
			t.Errorf("%s: retryable %t: %v", tt.name, e.Retryable, err)
		}
	}
	if n := len(w.Requests("sts", "GetWebIdentityToken")); n != asked {
		t.Errorf("STS was asked %d times for %d credentials: the SDK retried by itself", n, asked)
	}
	_, err := AWSWebIdentity(lookupIn(nil), AWSOptions{Credentials: aws.AnonymousCredentials{}}).Credential(t.Context(), testServerURL)
	wantCode(t, err, CodeCredentialMissing)
}

func webIdentityAnswer(token string) *awstest.Fault {
	return &awstest.Fault{Status: 200, Header: http.Header{"Content-Type": {"text/xml"}}, Body: []byte(
		`<GetWebIdentityTokenResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetWebIdentityTokenResult><WebIdentityToken>` + token +
			`</WebIdentityToken><Expiration>2026-03-04T05:06:07Z</Expiration></GetWebIdentityTokenResult></GetWebIdentityTokenResponse>`)}
}
