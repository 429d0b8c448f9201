package identity

import (
	"cmp"
	"maps"
	"slices"

	"github.com/assay-build/assay/internal/refusal"
)

// jobClaims are what the tokens of jobs and machines have. An issuer that serves
// both people and jobs, as gitlab.com does, lets a job choose any audience, the
// client id too: its token must not become a person.
var jobClaims = [...]string{"job_id", "job_workflow_ref", "pipeline_id", "project_id", "run_id", "build_number", awsClaims}

// tokenKinds are the claims by which identity providers tell ID tokens from access
// tokens that look alike (RFC 8725 3.11 and 3.12).
var tokenKinds = map[string]string{"typ": "ID", "token_use": "id"}

// humanCaller reads an ID token (OpenID Connect Core 2).
func (is *issuer) humanCaller(c claims) (*Caller, error) {
	if err := checkIDToken(c); err != nil {
		return nil, err
	}
	c, err := withoutUnverifiedEmail(c)
	if err != nil {
		return nil, err
	}
	if err := c.allowed(is.Allow); err != nil {
		return nil, err
	}
	h := new(Human)
	if h.Subject, err = c.str("sub"); err != nil {
		return nil, err
	}
	if h.Email, _, err = c.text("email"); err != nil {
		return nil, err
	}
	if h.Groups, err = c.texts(is.GroupsClaim); err != nil {
		return nil, err
	}
	slices.Sort(h.Groups)
	h.Groups = slices.Compact(h.Groups)
	// The name decides nothing, so one that cannot be shown is left out.
	if name, _, err := c.text("name"); err == nil {
		h.Name = name
	}
	return &Caller{
		Kind:        KindHuman,
		Issuer:      is.URL,
		DisplayName: cmp.Or(h.Email, h.Name, h.Subject),
		Human:       h,
	}, nil
}

// checkIDToken wants an ID token that was given to this service and to nobody
// else. Its nonce is the client's to check, which made it.
func checkIDToken(c claims) error {
	for _, name := range jobClaims {
		if _, ok := c[name]; ok {
			return refusal.New(CodeTokenClaimInvalid, "claim %s: a token of a job or a machine, not of a person", name)
		}
	}
	for name, want := range tokenKinds {
		if kind, ok, err := c.text(name); err != nil {
			return err
		} else if ok && kind != want {
			return refusal.New(CodeTokenClaimInvalid, "claim %s is %.40q: not an ID token", name, kind)
		}
	}
	// OpenID Connect Core 3.1.3.7 (5): azp, if there, should be the client id. A
	// token that another client obtained for this one was not asked for here.
	azp, ok, err := c.text("azp")
	if err != nil {
		return err
	}
	if !ok {
		return nil
	}
	return checkParty(c, azp)
}

// checkParty holds azp against the one audience of the token.
func checkParty(c claims, azp string) error {
	auds, err := c.texts("aud")
	if err != nil {
		return err
	}
	if len(auds) != 1 || auds[0] != azp {
		return refusal.New(CodeTokenAudienceMismatch, "token was given to another client (azp) than the one it is for")
	}
	return nil
}

// withoutUnverifiedEmail takes an address away that the provider does not vouch
// for: at many providers a person may write anybody's. What is not there neither
// becomes a fact nor matches what the configuration allows.
func withoutUnverifiedEmail(c claims) (claims, error) {
	verified, _, err := c.text("email_verified")
	if err != nil {
		return nil, err
	}
	if verified == "true" {
		return c, nil
	}
	c = maps.Clone(c)
	delete(c, "email")
	return c, nil
}
