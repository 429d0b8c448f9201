package awstest

import (
	"crypto/hmac"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// claim is what a request says of its own signature.
type claim struct {
	accessKey string
	scope     scope
	date      string // x-amz-date
	token     string
	signed    []string
	signature string
	presigned bool
	expires   time.Duration // of a presigned request
}

var (
	authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 +Credential=([^ ,]+), *SignedHeaders=([^ ,]+), *Signature=([0-9a-f]{64})$`)
	credential    = regexp.MustCompile(`^([A-Z0-9]{16,128})/([0-9]{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request$`)
)

// authenticate finds out who signed the call, or refuses it as the service does.
// It is complete: a request that was changed in anything that is signed, that
// was signed for another time, region, service or partition, or with keys that
// are unknown or expired, does not pass.
func (c *call) authenticate() *reply {
	cl, refused := c.readClaim()
	if refused != nil {
		return refused
	}
	key := c.w.key(cl.accessKey)
	if key == nil || key.principal.account.partition != c.endpoint.partition {
		return c.deny(unknownKey)
	}
	if !hmac.Equal([]byte(key.token), []byte(cl.token)) {
		return c.deny(wrongToken)
	}
	for _, check := range []func(*claim) *reply{c.checkTime, c.checkScope, c.checkSigned} {
		if refused := check(cl); refused != nil {
			return refused
		}
	}
	payload, refused := c.payloadHash(cl)
	if refused != nil {
		return refused
	}
	how := canonical{
		rawPath: c.service == "s3", leaveOut: []string{"X-Amz-Signature"}, signed: cl.signed, payload: payload,
	}
	request, ok := how.request(wireOf(c.r))
	if !ok || !hmac.Equal([]byte(cl.signature), []byte(signatureOf(key.secret, cl.scope, stringToSign(cl.date, cl.scope, request)))) {
		return c.deny(mismatch)
	}
	if !key.expires.IsZero() && !c.w.now().Before(key.expires) {
		return c.deny(expiredToken)
	}
	c.principal, c.signed, c.expires = key.principal, cl.signed, key.expires
	return nil
}

func (w *World) key(id string) *accessKey {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.keys[id]
	if k == nil || k.principal.role != nil && k.principal.role.gone {
		return nil
	}
	return k
}

// readClaim reads the Authorization header or, of a presigned request, the query
// string. A request that has both has none.
func (c *call) readClaim() (*claim, *reply) {
	header := c.r.Header.Values("Authorization")
	parameters, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return nil, c.deny(incomplete)
	}
	presigned := parameters.Has("X-Amz-Algorithm") || parameters.Has("X-Amz-Signature") || parameters.Has("X-Amz-Credential")
	switch {
	case len(header) == 0 && !presigned:
		return nil, c.deny(anonymous)
	case len(header) > 1 || len(header) == 1 && presigned:
		return nil, c.deny(incomplete)
	case presigned:
		return c.readPresigned(parameters)
	}
	m := authorization.FindStringSubmatch(header[0])
	date, token := c.r.Header.Values("X-Amz-Date"), c.r.Header.Values("X-Amz-Security-Token")
	if m == nil || len(date) != 1 || len(token) > 1 {
		return nil, c.deny(incomplete)
	}
	cl := &claim{date: date[0], signature: m[3], signed: strings.Split(m[2], ";")}
	if len(token) == 1 {
		cl.token = token[0]
	}
	return c.readScope(cl, m[1])
}

func (c *call) readPresigned(parameters url.Values) (*claim, *reply) {
	for name, values := range parameters {
		if strings.HasPrefix(name, "X-Amz-") && len(values) != 1 {
			return nil, c.deny(incomplete)
		}
	}
	seconds, err := strconv.Atoi(parameters.Get("X-Amz-Expires"))
	if err != nil && c.service == "sts" && !parameters.Has("X-Amz-Expires") {
		err = nil // STS does without
	}
	if c.protocol == jsonRPC || c.protocol == restJSON || parameters.Get("X-Amz-Algorithm") != algorithm || err != nil || seconds < 0 || seconds > 7*24*3600 {
		return nil, c.deny(incomplete)
	}
	return c.readScope(&claim{
		date: parameters.Get("X-Amz-Date"), token: parameters.Get("X-Amz-Security-Token"),
		signed: strings.Split(parameters.Get("X-Amz-SignedHeaders"), ";"), signature: parameters.Get("X-Amz-Signature"),
		presigned: true, expires: time.Duration(seconds) * time.Second,
	}, parameters.Get("X-Amz-Credential"))
}

func (c *call) readScope(cl *claim, text string) (*claim, *reply) {
	m := credential.FindStringSubmatch(text)
	if m == nil {
		return nil, c.deny(incomplete)
	}
	cl.accessKey, cl.scope = m[1], scope{m[2], m[3], m[4]}
	return cl, nil
}

// checkTime holds a signature to the clock. STS lets it be used for 15 minutes,
// whatever X-Amz-Expires says; S3 honours X-Amz-Expires.
func (c *call) checkTime(cl *claim) *reply {
	at, err := time.Parse(amzDate, cl.date)
	if err != nil || !strings.HasPrefix(cl.date, cl.scope.date) {
		return c.deny(incomplete)
	}
	early, late := 5*time.Minute, 5*time.Minute
	if c.service == "sts" || c.service == "s3" {
		early, late = 15*time.Minute, 15*time.Minute
	}
	if cl.presigned && c.service == "s3" {
		late = cl.expires
	}
	now := c.w.now().UTC()
	switch {
	case now.Before(at.Add(-early)):
		return c.refuse(skewed, fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + %d min.)",
			cl.date, now.Add(early).Format(amzDate), now.Format(amzDate), int(early.Minutes())))
	case now.After(at.Add(late)):
		return c.refuse(skewed, fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - %d min.)",
			cl.date, now.Add(-late).Format(amzDate), now.Format(amzDate), int(late.Minutes())))
	}
	return nil
}

func (c *call) checkScope(cl *claim) *reply {
	switch {
	case cl.scope.service != c.service:
		return c.refuse(wrongScope, fmt.Sprintf("Credential should be scoped to correct service: '%s'.", c.service))
	case cl.scope.region != c.region:
		return c.refuse(wrongScope, "Credential should be scoped to a valid region.")
	}
	return nil
}

// checkSigned holds the list of signed headers to what the service wants in it.
func (c *call) checkSigned(cl *claim) *reply {
	if !slices.IsSorted(cl.signed) || len(slices.Compact(slices.Clone(cl.signed))) != len(cl.signed) {
		return c.deny(incomplete)
	}
	need := []string{"host"}
	if !cl.presigned {
		need = append(need, "x-amz-date")
		if cl.token != "" {
			need = append(need, "x-amz-security-token")
		}
	}
	if c.protocol == jsonRPC {
		need = append(need, "content-type", "x-amz-target")
	}
	if c.protocol == restJSON && c.r.Header.Get("Content-Type") != "" {
		need = append(need, "content-type")
	}
	if c.protocol == restXML {
		for name := range c.r.Header {
			if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") {
				need = append(need, name)
			}
		}
	}
	for _, name := range need {
		if !slices.Contains(cl.signed, name) {
			return c.refuse(unsignedHeader, fmt.Sprintf("'%s' must be a 'SignedHeader' in the AWS Authorization.", name))
		}
	}
	return nil
}

// payloadHash is what stands for the body in the canonical request. Only S3 takes
// the caller's word for it, and checks the word.
func (c *call) payloadHash(cl *claim) (string, *reply) {
	computed := hexSHA256(c.body)
	if c.service != "s3" {
		return computed, nil
	}
	said := c.r.Header.Values("X-Amz-Content-Sha256")
	if len(said) == 0 && cl.presigned {
		return "UNSIGNED-PAYLOAD", nil
	}
	if len(said) != 1 {
		return "", c.fail(http.StatusBadRequest, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
	}
	switch said[0] {
	case "UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", computed:
		return said[0], nil
	}
	if strings.HasPrefix(said[0], "STREAMING-") {
		return "", c.fail(http.StatusNotImplemented, "NotImplemented", "awstest does not read signed chunks")
	}
	return "", c.fail(http.StatusBadRequest, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
}

// authError is a reason why nobody was authenticated, in the words of each
// protocol.
type authError struct {
	query, json, s3 answer
	message         string
}

type answer struct {
	status int
	code   string
}

var (
	anonymous = authError{answer{403, "MissingAuthenticationToken"}, answer{400, "MissingAuthenticationTokenException"},
		answer{403, "AccessDenied"}, "Request is missing Authentication Token"}
	incomplete = authError{answer{400, "IncompleteSignature"}, answer{400, "IncompleteSignatureException"},
		answer{400, "AuthorizationHeaderMalformed"}, "The request signature does not conform to AWS standards."}
	unknownKey = authError{answer{403, "InvalidClientTokenId"}, answer{400, "UnrecognizedClientException"},
		answer{403, "InvalidAccessKeyId"}, "The security token included in the request is invalid."}
	wrongToken = authError{answer{403, "InvalidClientTokenId"}, answer{400, "UnrecognizedClientException"},
		answer{400, "InvalidToken"}, "The security token included in the request is invalid."}
	mismatch = authError{answer{403, "SignatureDoesNotMatch"}, answer{400, "InvalidSignatureException"},
		answer{403, "SignatureDoesNotMatch"}, "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."}
	skewed = authError{answer{403, "SignatureDoesNotMatch"}, answer{400, "InvalidSignatureException"},
		answer{403, "RequestTimeTooSkewed"}, ""}
	wrongScope = authError{answer{403, "SignatureDoesNotMatch"}, answer{400, "InvalidSignatureException"},
		answer{400, "AuthorizationHeaderMalformed"}, ""}
	unsignedHeader = authError{answer{403, "SignatureDoesNotMatch"}, answer{400, "InvalidSignatureException"},
		answer{403, "AccessDenied"}, ""}
	expiredToken = authError{answer{403, "ExpiredToken"}, answer{400, "ExpiredTokenException"},
		answer{400, "ExpiredToken"}, "The security token included in the request is expired"}
)

func (c *call) deny(e authError) *reply { return c.refuse(e, e.message) }

func (c *call) refuse(e authError, message string) *reply {
	a := e.query
	switch c.protocol {
	case jsonRPC:
		a = e.json
	case restJSON: // the codes of JSON, with the status that REST has for them
		a = answer{http.StatusForbidden, e.json.code}
	case restXML:
		a = e.s3
	}
	return c.fail(a.status, a.code, message)
}
