package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
)

const (
	webAccount   = "111122223333"
	testBuildTag = "codebuild-build-arn"
	webBuildARN  = "arn:aws:codebuild:eu-west-1:111122223333:build/app:0184990a-477b-4fa8-9968-496074483cee"
)

func webIdentityConfig() IssuerConfig {
	return IssuerConfig{Type: TypeAWSWebIdentity, Account: webAccount, AllowedRoles: []string{"deploy"}}
}

// tagReader is a BuildReader that knows one build and notes what it was asked.
type tagReader struct {
	asked []codebuild.Tagged
	err   error
}

func (r *tagReader) InJob(context.Context, codebuild.Proof) (*codebuild.Build, error) {
	return nil, errors.New("not of a token")
}

func (r *tagReader) Tagged(_ context.Context, t codebuild.Tagged) (*codebuild.Build, error) {
	r.asked = append(r.asked, t)
	if r.err != nil {
		return nil, r.err
	}
	return &codebuild.Build{
		ARN: t.BuildARN, ProjectARN: "arn:aws:codebuild:eu-west-1:111122223333:project/app", Partition: "aws", Region: "eu-west-1", Account: t.Account,
		Project: "app", UUID: "0184990a-477b-4fa8-9968-496074483cee", ServiceRole: "arn:aws:iam::111122223333:role/" + t.RoleName,
		StartedAt: time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC),
	}, nil
}

func TestWebIdentityRole(t *testing.T) {
	t.Parallel()
	e := newEnv(t, oidctest.WebIdentity(webAccount, "deploy", nil))
	got, err := e.verify(t, e.verifierOf(t, webIdentityConfig()))
	if err != nil {
		t.Fatal(err)
	}
	want := &Caller{
		Kind: KindAWSRole, Issuer: e.issuer.URL(), DisplayName: "aws 111122223333 role deploy",
		AWSRole: &AWSRole{
			Partition: "aws", Account: webAccount, RoleARN: "arn:aws:iam::111122223333:role/deploy", Via: ViaWebIdentity,
			OrganizationID: "o-on4r1a68tf", PrincipalTags: []string{"owners=M276304", "team=platform"},
			LambdaFunctionARN: "arn:aws:lambda:eu-west-1:111122223333:function:deploy",
		},
	}
	if diff := cmp.Diff(want, got.Caller); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got.Caller.IsBuild() || !cmp.Equal(must(UnmarshalCaller(must(got.Caller.Marshal()))), got.Caller) {
		t.Errorf("%+v", got.Caller)
	}

	// A role in a path is the same role: names are unique in an account.
	e = newEnv(t, oidctest.WebIdentity(webAccount, "service-role/ci/deploy", nil))
	got, err = e.verify(t, e.verifierOf(t, webIdentityConfig()))
	if err != nil || got.Caller.AWSRole.RoleARN != "arn:aws:iam::111122223333:role/deploy" {
		t.Errorf("%+v %v", got, err)
	}
}

// AWS signs with ES384 where it is asked to.
func TestWebIdentityES384(t *testing.T) {
	t.Parallel()
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	e := newEnv(t, oidctest.WebIdentity(webAccount, "deploy", nil))
	set := jwks(jwk(p384.Public(), "EC384_0", "ES384"))
	e.intercept = serveKeys(&set)
	v := e.verifierOf(t, webIdentityConfig())
	_, err := v.VerifyOIDC(t.Context(), e.issuer.Forge(oidctest.Forgery{
		Alg: "ES384", Key: p384, Header: map[string]any{"kid": "EC384_0"}, Claims: oidctest.Claims{"aud": testAudience},
	}))
	wantCode(t, err, "")
}

func TestWebIdentityRefuses(t *testing.T) {
	t.Parallel()
	e := newEnv(t, oidctest.WebIdentity(webAccount, "deploy", nil))
	v := e.verifierOf(t, webIdentityConfig())
	own := func(over map[string]any) oidctest.Claims {
		object := map[string]any{"aws_account": webAccount}
		for k, x := range over {
			object[k] = x
		}
		return oidctest.Claims{awsClaims: object}
	}
	for name, c := range map[string]struct {
		over oidctest.Claims
		want refusal.Code
	}{
		"another role":               {oidctest.WebIdentity(webAccount, "admin", nil), CodeCallerNotAllowed},
		"a role in other case":       {oidctest.WebIdentity(webAccount, "Deploy", nil), CodeCallerNotAllowed},
		"the role as a path":         {oidctest.WebIdentity(webAccount, "deploy/admin", nil), CodeCallerNotAllowed},
		"same role, other account":   {oidctest.WebIdentity("222233334444", "deploy", nil), CodeCallerNotAllowed},
		"account only in the object": {own(map[string]any{"aws_account": "222233334444"}), CodeTokenClaimInvalid},
		"account a number":           {own(map[string]any{"aws_account": 111122223333}), CodeTokenClaimInvalid},
		"account missing":            {oidctest.Claims{awsClaims: map[string]any{}}, CodeTokenClaimMissing},
		"object missing":             {oidctest.Claims{awsClaims: nil}, CodeTokenClaimMissing},
		"object a list":              {oidctest.Claims{awsClaims: []string{}}, CodeTokenClaimInvalid},
		"object null":                {oidctest.Claims{awsClaims: json.RawMessage("null")}, CodeTokenClaimInvalid},
		"principal another role":     {own(map[string]any{"principal_id": "arn:aws:iam::111122223333:role/admin"}), CodeTokenClaimInvalid},
		"principal another account":  {own(map[string]any{"principal_id": "arn:aws:iam::222233334444:role/deploy"}), CodeTokenClaimInvalid},
		"principal no role":          {own(map[string]any{"principal_id": "arn:aws:iam::111122223333:user/deploy"}), CodeTokenClaimInvalid},
		"tags a list":                {own(map[string]any{"principal_tags": []string{"a"}}), CodeTokenClaimInvalid},
		"tag a number":               {own(map[string]any{"principal_tags": map[string]any{"a": 1}}), CodeTokenClaimInvalid},
		"tag with an equals sign":    {own(map[string]any{"principal_tags": map[string]any{"a=b": "c"}}), CodeTokenClaimInvalid},
		"tag hidden":                 {own(map[string]any{"principal_tags": map[string]any{"a": "b\x00"}}), CodeTokenClaimInvalid},
		"a user":                     {oidctest.Claims{"sub": "arn:aws:iam::111122223333:user/deploy"}, CodeCallerNotAllowed},
		"the root":                   {oidctest.Claims{"sub": "arn:aws:iam::111122223333:root"}, CodeCallerNotAllowed},
		"a session":                  {oidctest.Claims{"sub": "arn:aws:sts::111122223333:assumed-role/deploy/deploy"}, CodeCallerNotAllowed},
		"a federated user":           {oidctest.Claims{"sub": "arn:aws:sts::111122223333:federated-user/deploy"}, CodeCallerNotAllowed},
		"a partition of one's own":   {oidctest.Claims{"sub": "arn:aws-evil:iam::111122223333:role/deploy"}, CodeCallerNotAllowed},
		"two lines":                  {oidctest.Claims{"sub": "arn:aws:iam::111122223333:role/deploy\n"}, CodeTokenClaimInvalid},
		"a wildcard account":         {oidctest.Claims{"sub": "arn:aws:iam::*:role/deploy"}, CodeCallerNotAllowed},
		"no sub":                     {oidctest.Claims{"sub": 1}, CodeTokenClaimInvalid},
		"no jti":                     {oidctest.Claims{"jti": nil}, CodeTokenClaimMissing},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e.verify(t, v, c.over)
			wantCode(t, err, c.want)
		})
	}
}

// A request tag names a build only where configuration says that it is pinned;
// everywhere else its maker chose it.
func TestWebIdentityTag(t *testing.T) {
	t.Parallel()
	tagged := func(value string) oidctest.Claims {
		return oidctest.WebIdentity(webAccount, "service-role/codebuild-app", map[string]string{testBuildTag: value})
	}
	pinned := webIdentityConfig()
	pinned.BuildTag = testBuildTag
	loose := webIdentityConfig()
	loose.AllowedRoles = []string{"codebuild-app"}
	denied := &tagReader{err: refusal.New("CODEBUILD_ROLE_MISMATCH", "x")}
	for name, c := range map[string]struct {
		ic     IssuerConfig
		reader *tagReader
		over   oidctest.Claims
		kind   Kind
		want   refusal.Code
		asked  int
	}{
		"pinned":                    {pinned, &tagReader{}, tagged(webBuildARN), KindCodeBuild, "", 1},
		"not pinned":                {loose, &tagReader{}, tagged(webBuildARN), KindAWSRole, "", 0},
		"pinned, the build differs": {pinned, denied, tagged(webBuildARN), 0, "CODEBUILD_ROLE_MISMATCH", 1},
		"pinned, no build":          {pinned, &tagReader{}, tagged("app"), 0, codebuild.CodeBuildIDInvalid, 0},
		"pinned, empty":             {pinned, &tagReader{}, tagged(""), 0, codebuild.CodeBuildIDInvalid, 0},
		"pinned, a batch": {pinned, &tagReader{}, tagged("arn:aws:codebuild:eu-west-1:111122223333:build-batch/app:0184990a-477b-4fa8-9968-496074483cee"), 0,
			codebuild.CodeBuildIDInvalid, 0},
		"pinned, another tag": {pinned, &tagReader{}, oidctest.WebIdentity(webAccount, "codebuild-app", map[string]string{"Codebuild-Build-Arn": webBuildARN}), 0,
			CodeCallerNotAllowed, 0},
		"pinned, a role without": {pinned, &tagReader{}, oidctest.WebIdentity(webAccount, "deploy", nil), KindAWSRole, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, c.over)
			got, err := e.verify(t, e.verifierOf(t, c.ic, func(cfg *Config) { cfg.Builds = c.reader }))
			wantCode(t, err, c.want)
			if err == nil && got.Caller.Kind != c.kind {
				t.Errorf("kind %s; want %s", got.Caller.Kind, c.kind)
			}
			if len(c.reader.asked) != c.asked && c.reader != denied {
				t.Errorf("asked %v", c.reader.asked)
			}
			if err == nil && c.kind == KindCodeBuild {
				want := codebuild.Tagged{Partition: "aws", Account: webAccount, RoleName: "codebuild-app", BuildARN: webBuildARN}
				if diff := cmp.Diff(want, c.reader.asked[0]); diff != "" {
					t.Errorf("-want +asked\n%s", diff)
				}
				if got.Caller.CodeBuild.Mode != ModeInJob || !got.Caller.IsBuild() {
					t.Errorf("%+v", got.Caller)
				}
				must(got.Caller.Marshal())
			}
		})
	}
}

// FuzzWebIdentity: whatever claims an account's issuer signs, the caller is of
// that account and of an allowed role.
func FuzzWebIdentity(f *testing.F) {
	f.Add(must(json.Marshal(oidctest.WebIdentity(webAccount, "deploy", map[string]string{"a": "b"}))))
	f.Add([]byte(`{"sub":"arn:aws:iam::111122223333:role/deploy","https://sts.amazonaws.com/":{"aws_account":"111122223333","principal_tags":null}}`))
	e := newEnv(f)
	is := e.verifierOf(f, webIdentityConfig()).issuers[e.issuer.URL()]
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := parseClaims(payload)
		if err != nil {
			return
		}
		caller, err := is.read(t.Context(), c, nil)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		if caller.AWSRole.Account != webAccount || roleName(caller.AWSRole.RoleARN) != "deploy" {
			t.Fatalf("%+v", caller.AWSRole)
		}
	})
}
