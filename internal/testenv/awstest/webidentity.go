package awstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
)

// STSClaims is the claim under which STS puts what is not of the JWT standard.
const STSClaims = "https://sts.amazonaws.com/"

// tokenIssuer is an account's issuer of web identity tokens.
type tokenIssuer struct {
	host string
	keys map[string]issuerKey // by algorithm; those that sign
	jwks jose.JSONWebKeySet
}

type issuerKey struct {
	id     string
	signer crypto.Signer
}

// EnableWebIdentity turns outbound web identity federation on and returns the
// account's issuer, which serves its discovery document and keys. Repeating it
// changes nothing.
func (a *Account) EnableWebIdentity() string {
	a.w.mu.Lock()
	enabled := a.issuer != nil
	a.w.mu.Unlock()
	if !enabled {
		issuer := &tokenIssuer{host: uuid.NewString() + ".tokens.sts.global.api.aws"}
		issuer.addKeys()
		a.w.mu.Lock()
		if a.issuer == nil {
			a.issuer = issuer
			a.w.issuers[issuer.host] = a
		}
		a.w.mu.Unlock()
	}
	return a.issuerURL()
}

// RotateWebIdentityKeys makes the issuer sign with new keys; the old ones are
// published no more.
func (a *Account) RotateWebIdentityKeys() {
	a.EnableWebIdentity()
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.issuer.jwks.Keys = nil
	a.issuer.addKeys()
}

// WebIdentityKey is the key with which the issuer signs by RS256 or ES384, for
// tests that need a token no honest STS would make.
func (a *Account) WebIdentityKey(algorithm string) (keyID string, signer crypto.Signer) {
	a.EnableWebIdentity()
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	k := a.issuer.keys[algorithm]
	return k.id, k.signer
}

// PinRequestTag makes the account's organization forbid web identity tokens unless
// the request tag is the ARN of the caller's CodeBuild build: an SCP with
// aws:RequestTag/tag = ${codebuild:BuildArn}. Callers outside of a build cannot
// get a token that has the tag.
func (a *Account) PinRequestTag(tag string) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.pins = append(a.pins, tag)
}

func (a *Account) issuerURL() string {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	if a.issuer == nil {
		return ""
	}
	return "https://" + a.issuer.host
}

func (i *tokenIssuer) addKeys() {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(fmt.Sprintf("awstest: %v", err))
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		panic(fmt.Sprintf("awstest: %v", err))
	}
	i.keys = map[string]issuerKey{"RS256": {"RSA_" + uuid.NewString(), rsaKey}, "ES384": {"EC384_" + uuid.NewString(), ecKey}}
	for _, algorithm := range []string{"RS256", "ES384"} {
		k := i.keys[algorithm]
		i.jwks.Keys = append(i.jwks.Keys, jose.JSONWebKey{Key: k.signer.Public(), KeyID: k.id, Algorithm: algorithm, Use: "sig"})
	}
}

// serveIssuer is the host of a token issuer, which anybody may read.
func (w *World) serveIssuer(rw http.ResponseWriter, r *http.Request, host string) {
	w.mu.Lock()
	var keys jose.JSONWebKeySet
	a := w.issuers[host]
	if a != nil {
		keys.Keys = slices.Clone(a.issuer.jwks.Keys)
	}
	w.mu.Unlock()
	c := &call{w: w, service: "tokens", action: r.URL.Path, r: r, protocol: jsonRPC, requestID: uuid.NewString()}
	var out *reply
	switch {
	case a == nil || r.Method != http.MethodGet:
		out = c.fail(http.StatusNotFound, "NotFound", "")
	case r.URL.Path == "/.well-known/openid-configuration":
		out = jsonReply(http.StatusOK, map[string]any{
			"issuer":                                "https://" + host,
			"jwks_uri":                              "https://" + host + "/.well-known/jwks.json",
			"response_types_supported":              []string{"id_token"},
			"subject_types_supported":               []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256", "ES384"},
			"claims_supported":                      []string{"aud", "exp", "iat", "iss", "jti", "sub", STSClaims},
		})
	case r.URL.Path == "/.well-known/jwks.json":
		out = jsonReply(http.StatusOK, keys)
	default:
		out = c.fail(http.StatusNotFound, "NotFound", "")
	}
	out.header.Set("Content-Type", "application/json")
	if f := w.takeFault(c.service, c.action); f != nil && f.strike(rw, c) {
		return
	}
	c.record(out.status, out.header.Get("X-Awstest-Code"))
	c.send(rw, out)
}

// getWebIdentityToken mints a token for the caller, with the tags that it asks
// for. Roles' tokens do not tell the session.
func (c *call) getWebIdentityToken() *reply {
	q, refused := c.readTokenRequest()
	if refused != nil {
		return refused
	}
	if refused := c.mayHaveToken(q); refused != nil {
		return refused
	}
	if c.endpoint.global {
		return c.fail(http.StatusBadRequest, "InvalidAction", "GetWebIdentityToken is not available on the STS global endpoint")
	}
	now := c.w.now().Truncate(time.Second)
	expires := now.Add(q.lifetime)
	if !c.expires.IsZero() && expires.After(c.expires) {
		return c.fail(http.StatusForbidden, "SessionDurationEscalationException", "The requested token duration would extend the session beyond its original expiration time.")
	}
	a := c.principal.account
	c.w.mu.Lock()
	issuer := a.issuer
	c.w.mu.Unlock()
	if issuer == nil {
		return c.fail(http.StatusForbidden, "OutboundWebIdentityFederationDisabledException", "Outbound web identity federation is not enabled for this account.")
	}
	token, err := a.sign(q.algorithm, c.claims(q, now, expires))
	if err != nil {
		return c.fail(http.StatusInternalServerError, "InternalFailure", "awstest: the token was not signed")
	}
	return c.result(struct {
		WebIdentityToken string
		Expiration       stamp
	}{token, stamp(expires)})
}

type tokenRequest struct {
	audience  []string
	algorithm string
	lifetime  time.Duration
	tags      map[string]string
}

var tagText = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)

func (c *call) readTokenRequest() (*tokenRequest, *reply) {
	q := &tokenRequest{lifetime: 5 * time.Minute, algorithm: c.form.Get("SigningAlgorithm"), tags: map[string]string{}}
	var ok bool
	if q.audience, ok = members(c.form, "Audience", ""); !ok || len(q.audience) == 0 || len(q.audience) > 10 ||
		slices.ContainsFunc(q.audience, func(s string) bool { return s == "" || len(s) > 1000 }) {
		return nil, c.invalid(strings.Join(q.audience, ","), "audience", "Member must have length between 1 and 10")
	}
	if q.algorithm != "RS256" && q.algorithm != "ES384" {
		return nil, c.invalid(q.algorithm, "signingAlgorithm", "Member must satisfy enum value set: [RS256, ES384]")
	}
	if text := c.form.Get("DurationSeconds"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 60 || seconds > 3600 {
			return nil, c.invalid(text, "durationSeconds", "Member must have value between 60 and 3600")
		}
		q.lifetime = time.Duration(seconds) * time.Second
	}
	names, ok1 := members(c.form, "Tags", ".Key")
	values, ok2 := members(c.form, "Tags", ".Value")
	if !ok1 || !ok2 || len(names) != len(values) || len(names) > 50 {
		return nil, c.invalid("", "tags", "Member must have length less than or equal to 50")
	}
	for i, name := range names {
		if _, twice := q.tags[name]; twice {
			return nil, c.fail(http.StatusBadRequest, "InvalidParameterValue", "Duplicate tag keys found.")
		}
		if n := utf8.RuneCountInString(name); n < 1 || n > 128 || utf8.RuneCountInString(values[i]) > 256 ||
			!tagText.MatchString(name) || !tagText.MatchString(values[i]) {
			return nil, c.invalid(name, "tags", `Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]+`)
		}
		q.tags[name] = values[i]
	}
	return q, nil
}

// mayHaveToken asks the caller's permissions and the organization's pins.
func (c *call) mayHaveToken(q *tokenRequest) *reply {
	if refused := c.allow("*"); refused != nil {
		return refused
	}
	if c.principal.kind == rootOfAccount {
		return c.fail(http.StatusForbidden, "AccessDenied", "Root users have no web identity tokens.")
	}
	if len(q.tags) > 0 {
		if refused := c.allowAction("sts:TagGetWebIdentityToken", "*"); refused != nil {
			return refused
		}
	}
	a := c.principal.account
	c.w.mu.Lock()
	pins := slices.Clone(a.pins)
	c.w.mu.Unlock()
	for _, tag := range pins {
		for name, value := range q.tags {
			// Tag keys are compared without regard to case, as IAM compares them.
			build := c.principal.context["codebuild:BuildArn"]
			if strings.EqualFold(name, tag) && (name != tag || build == "" || value != build) {
				return c.fail(http.StatusForbidden, "AccessDenied", fmt.Sprintf(
					"User: %s is not authorized to perform: sts:GetWebIdentityToken with an explicit deny in a service control policy", c.principal.arn))
			}
		}
	}
	return nil
}

func (c *call) claims(q *tokenRequest, now, expires time.Time) map[string]any {
	about := map[string]any{
		"aws_account":   c.principal.account.id,
		"source_region": c.region,
		"principal_id":  c.principal.iamARN(),
	}
	if len(q.tags) > 0 {
		about["request_tags"] = q.tags
	}
	if !c.expires.IsZero() {
		about["original_session_exp"] = c.expires.UTC().Format(time.RFC3339)
	}
	claims := map[string]any{
		"iss": c.principal.account.issuerURL(), "sub": c.principal.iamARN(), "aud": any(q.audience),
		"iat": now.Unix(), "exp": expires.Unix(), "jti": uuid.NewString(), STSClaims: about,
	}
	if len(q.audience) == 1 {
		claims["aud"] = q.audience[0]
	}
	return claims
}

// sign makes a JWT of the account's issuer.
func (a *Account) sign(algorithm string, claims map[string]any) (string, error) {
	id, key := a.WebIdentityKey(algorithm)
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.SignatureAlgorithm(algorithm), Key: jose.JSONWebKey{Key: key, KeyID: id},
	}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(mustJSON(claims))
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
