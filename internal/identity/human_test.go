package identity

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
)

const testClientID = "0oa1assay"

func humanConfig() IssuerConfig {
	return IssuerConfig{Type: TypeHuman, Audience: []string{testClientID}, Allow: map[string][]string{"hd": {"example.com"}}}
}

func TestHuman(t *testing.T) {
	t.Parallel()
	e := newEnv(t, oidctest.Person())
	v := e.verifierOf(t, humanConfig())
	alice := func() *Human {
		return &Human{Subject: "00u1a2b3c4d5e6f7g8h9", Email: "alice@example.com", Name: "Alice Example", Groups: []string{"engineering", "security"}}
	}
	for name, c := range map[string]struct {
		over    oidctest.Claims
		want    func(*Human)
		display string
	}{
		"alice":                     {nil, func(*Human) {}, "alice@example.com"},
		"no jti":                    {oidctest.Claims{"jti": nil}, func(*Human) {}, "alice@example.com"},
		"audience in a list of one": {oidctest.Claims{"aud": []string{testClientID}, "azp": testClientID}, func(*Human) {}, "alice@example.com"},
		"email not verified":        {oidctest.Claims{"email_verified": false}, func(h *Human) { h.Email = "" }, "Alice Example"},
		"email without a word":      {oidctest.Claims{"email_verified": nil}, func(h *Human) { h.Email = "" }, "Alice Example"},
		"verified as text":          {oidctest.Claims{"email_verified": "true"}, func(*Human) {}, "alice@example.com"},
		"name that reorders text":   {oidctest.Claims{"name": "Alice\u202e"}, func(h *Human) { h.Name = "" }, "alice@example.com"},
		"one group as text":         {oidctest.Claims{"groups": "security"}, func(h *Human) { h.Groups = []string{"security"} }, "alice@example.com"},
		"a group twice":             {oidctest.Claims{"groups": []string{"b", "a", "b"}}, func(h *Human) { h.Groups = []string{"a", "b"} }, "alice@example.com"},
		"groups elsewhere (overage)": {oidctest.Claims{"groups": nil, "_claim_names": map[string]string{"groups": "src1"}},
			func(h *Human) { h.Groups = nil }, "alice@example.com"},
		"ID token of Keycloak": {oidctest.Claims{"typ": "ID"}, func(*Human) {}, "alice@example.com"},
		"nothing but sub":      {oidctest.Claims{"email": nil, "name": nil, "groups": nil}, func(h *Human) { *h = Human{Subject: h.Subject} }, "00u1a2b3c4d5e6f7g8h9"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := v.VerifyOIDC(t.Context(), e.issuer.Mint(testClientID, c.over))
			if err != nil {
				t.Fatal(err)
			}
			want := alice()
			c.want(want)
			wantCaller := &Caller{Kind: KindHuman, Issuer: e.issuer.URL(), DisplayName: c.display, Human: want}
			if diff := cmp.Diff(wantCaller, got.Caller); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if got.Caller.IsBuild() {
				t.Error("a person is a build")
			}
		})
	}
}

func TestHumanRefuses(t *testing.T) {
	t.Parallel()
	e := newEnv(t, oidctest.Person())
	byGroup, byMail := humanConfig(), humanConfig()
	byGroup.Allow, byGroup.GroupsClaim = map[string][]string{"roles": {"assay-users"}}, "roles"
	byMail.Allow = map[string][]string{"email": {"alice@example.com"}}
	for name, c := range map[string]struct {
		ic   IssuerConfig
		aud  string
		over oidctest.Claims
		want refusal.Code
	}{
		"for the deployment":       {humanConfig(), testAudience, nil, CodeTokenAudienceMismatch},
		"for another client":       {humanConfig(), "other", nil, CodeTokenAudienceMismatch},
		"for two clients":          {humanConfig(), "", oidctest.Claims{"aud": []string{testClientID, "other"}, "azp": testClientID}, CodeTokenAudienceMismatch},
		"of another client":        {humanConfig(), testClientID, oidctest.Claims{"azp": "other"}, CodeTokenAudienceMismatch},
		"azp a list":               {humanConfig(), testClientID, oidctest.Claims{"azp": []string{testClientID}}, CodeTokenClaimInvalid},
		"another company":          {humanConfig(), testClientID, oidctest.Claims{"hd": "example.org"}, CodeCallerNotAllowed},
		"a longer company":         {humanConfig(), testClientID, oidctest.Claims{"hd": "example.com.evil.example"}, CodeCallerNotAllowed},
		"no company":               {humanConfig(), testClientID, oidctest.Claims{"hd": nil}, CodeCallerNotAllowed},
		"no such group":            {byGroup, testClientID, nil, CodeCallerNotAllowed},
		"a group much like it":     {byGroup, testClientID, oidctest.Claims{"roles": []string{"assay-users-2", "Assay-Users"}}, CodeCallerNotAllowed},
		"mail not verified":        {byMail, testClientID, oidctest.Claims{"email_verified": false}, CodeCallerNotAllowed},
		"mail verified as yes":     {byMail, testClientID, oidctest.Claims{"email_verified": "yes"}, CodeCallerNotAllowed},
		"no subject":               {humanConfig(), testClientID, oidctest.Claims{"sub": json.RawMessage("null")}, CodeTokenClaimInvalid},
		"subject empty":            {humanConfig(), testClientID, oidctest.Claims{"sub": json.RawMessage(`""`)}, CodeTokenClaimInvalid},
		"mail hidden":              {humanConfig(), testClientID, oidctest.Claims{"email": "alice@example.com\x00"}, CodeTokenClaimInvalid},
		"group hidden":             {humanConfig(), testClientID, oidctest.Claims{"groups": []string{"a\u2066"}}, CodeTokenClaimInvalid},
		"257 groups":               {humanConfig(), testClientID, oidctest.Claims{"groups": strings.Split(strings.Repeat("a,", 256), ",")}, CodeTokenClaimInvalid},
		"groups an object":         {humanConfig(), testClientID, oidctest.Claims{"groups": map[string]bool{"a": true}}, CodeTokenClaimInvalid},
		"access token (Cognito)":   {humanConfig(), testClientID, oidctest.Claims{"token_use": "access"}, CodeTokenClaimInvalid},
		"access token (Keycloak)":  {humanConfig(), testClientID, oidctest.Claims{"typ": "Bearer"}, CodeTokenClaimInvalid},
		"refresh token (Keycloak)": {humanConfig(), testClientID, oidctest.Claims{"typ": "Refresh"}, CodeTokenClaimInvalid},
		"a GitLab job's": {humanConfig(), testClientID, oidctest.GitLabJob().With(oidctest.Claims{"hd": "example.com"}),
			CodeTokenClaimInvalid},
		"a GitHub job's": {humanConfig(), testClientID, oidctest.Claims{"job_workflow_ref": "a/b/c@d"}, CodeTokenClaimInvalid},
		"an AWS role's":  {humanConfig(), testClientID, oidctest.Claims{awsClaims: map[string]string{}}, CodeTokenClaimInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e.verifierOf(t, c.ic).VerifyOIDC(t.Context(), e.issuer.Mint(c.aud, c.over))
			wantCode(t, err, c.want)
			if err != nil && strings.Contains(err.Error(), "alice@") {
				t.Errorf("the refusal tells a person's address: %v", err)
			}
		})
	}
}

// The deployment's audience is not the client's: neither token works as the other.
func TestHumanAudienceIsItsOwn(t *testing.T) {
	t.Parallel()
	job, people := newEnv(t), newEnv(t, oidctest.Person())
	ic := humanConfig()
	ic.URL = people.issuer.URL()
	v := job.verifier(t, func(c *Config) { c.Issuers = append(c.Issuers, ic) })
	_, err := v.VerifyOIDC(t.Context(), job.issuer.Mint(testClientID))
	wantCode(t, err, CodeTokenAudienceMismatch)
	_, err = v.VerifyOIDC(t.Context(), people.issuer.Mint(testClientID))
	wantCode(t, err, "")
	_, err = v.VerifyOIDC(t.Context(), job.issuer.Mint(testAudience))
	wantCode(t, err, "")
}
