package awstest

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

const stsVersion = "2011-06-15"

// serveSTS answers the operations of STS. Whoever signed may ask who they are,
// even if everything is denied to them.
func (w *World) serveSTS(c *call) *reply {
	if c.form.Get("Version") != stsVersion {
		return c.noOperation()
	}
	switch c.action {
	case "GetCallerIdentity":
		return c.result(struct{ Account, Arn, UserId string }{c.principal.account.id, c.principal.arn, c.principal.userID})
	case "AssumeRole":
		return c.assumeRole()
	case "GetWebIdentityToken":
		return c.getWebIdentityToken()
	}
	return c.noOperation()
}

func (c *call) noOperation() *reply {
	return c.fail(http.StatusBadRequest, "InvalidAction",
		fmt.Sprintf("Could not find operation %s for version %s", c.action, c.form.Get("Version")))
}

// result is the answer of a query operation: XML, or the JSON that STS writes
// where it is asked for it.
func (c *call) result(v any) *reply {
	if c.wantsJSON() {
		return &reply{
			status: http.StatusOK, header: http.Header{"Content-Type": {"application/json"}},
			body: mustJSON(map[string]any{c.action + "Response": map[string]any{
				c.action + "Result": v,
				"ResponseMetadata":  map[string]string{"RequestId": c.requestID},
			}}),
		}
	}
	return xmlReply(http.StatusOK, struct {
		XMLName  xml.Name
		Result   namedResult
		Metadata struct{ RequestId string } `xml:"ResponseMetadata"`
	}{
		XMLName:  xml.Name{Space: namespaces[c.service], Local: c.action + "Response"},
		Result:   namedResult{c.action + "Result", v},
		Metadata: struct{ RequestId string }{c.requestID},
	})
}

// namedResult is v as an element of another name than its type's.
type namedResult struct {
	name string
	v    any
}

func (n namedResult) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	return e.EncodeElement(n.v, xml.StartElement{Name: xml.Name{Local: n.name}})
}

// stamp is a time as STS writes it: text in XML, seconds in JSON.
type stamp time.Time

func (s stamp) MarshalText() ([]byte, error) {
	return []byte(time.Time(s).UTC().Format("2006-01-02T15:04:05Z")), nil
}

func (s stamp) MarshalJSON() ([]byte, error) { return json.Marshal(time.Time(s).Unix()) }

// invalid is the error of a parameter that breaks a constraint.
func (c *call) invalid(value, field, constraint string) *reply {
	return c.fail(http.StatusBadRequest, "ValidationError", fmt.Sprintf(
		"1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: %s", value, field, constraint))
}

// unsupported is an honest refusal of what AWS can do and the stand-in cannot.
func (c *call) unsupported(what string) *reply {
	return c.fail(http.StatusNotImplemented, "NotImplemented", "awstest does not know "+what)
}

var (
	roleARN     = regexp.MustCompile(`^arn:([a-z-]+):iam::([0-9]{12}):role(/(?:[!-.0-~]+/)*)([A-Za-z0-9_+=,.@-]{1,64})$`)
	sessionName = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{2,64}$`)
	externalID  = regexp.MustCompile(`^[A-Za-z0-9_+=,.@:/-]+$`) // and 2 to 1224 of them
)

// assumeRole gives the credentials of a role to a caller whom the role trusts and
// whose account lets them.
func (c *call) assumeRole() *reply {
	for name := range c.form {
		switch name {
		case "Action", "Version", "RoleArn", "RoleSessionName", "ExternalId", "DurationSeconds":
		default:
			return c.unsupported("AssumeRole's " + name)
		}
	}
	arn, session := c.form.Get("RoleArn"), c.form.Get("RoleSessionName")
	if len(arn) < 20 || len(arn) > 2048 {
		return c.invalid(arn, "roleArn", "Member must have length between 20 and 2048")
	}
	if !sessionName.MatchString(session) {
		return c.invalid(session, "roleSessionName", `Member must satisfy regular expression pattern: [\w+=,.@-]*`)
	}
	if id := c.form.Get("ExternalId"); c.form.Has("ExternalId") && (len(id) < 2 || len(id) > 1224 || !externalID.MatchString(id)) {
		return c.invalid(id, "externalId", `Member must satisfy regular expression pattern: [\w+=,.@:\/-]*`)
	}
	if c.principal.kind == rootOfAccount {
		return c.fail(http.StatusForbidden, "AccessDenied", "Roles may not be assumed by root accounts.")
	}
	role := c.w.role(arn)
	if role == nil || !c.mayAssume(role) {
		return c.fail(http.StatusForbidden, "AccessDenied", fmt.Sprintf(
			"User: %s is not authorized to perform: sts:AssumeRole on resource: %s", c.principal.arn, arn))
	}
	lifetime, refused := c.sessionLifetime(role)
	if refused != nil {
		return refused
	}
	creds := role.session(session, lifetime, nil)
	type credentials struct {
		AccessKeyId, SecretAccessKey, SessionToken string
		Expiration                                 stamp
	}
	type assumedRoleUser struct{ AssumedRoleId, Arn string }
	return c.result(struct {
		AssumedRoleUser assumedRoleUser
		Credentials     credentials
	}{
		assumedRoleUser{role.id + ":" + session, role.SessionARN(session)},
		credentials{creds.AccessKeyID, creds.SecretAccessKey, creds.SessionToken, stamp(creds.Expires)},
	})
}

// role finds a role by its ARN, or is nil.
func (w *World) role(arn string) *Role {
	m := roleARN.FindStringSubmatch(arn)
	if m == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.accounts[m[2]]
	if a == nil || a.partition != m[1] {
		return nil
	}
	if r := a.roles[m[4]]; r != nil && r.path == m[3] {
		return r
	}
	return nil
}

// mayAssume asks the role's trust policy and the caller's permissions. A trust
// policy that names the caller itself is enough within one account.
func (c *call) mayAssume(role *Role) bool {
	p := c.principal
	trust := role.judge(party{kind: "AWS", principal: p}, map[string]string{
		"sts:ExternalId":       c.form.Get("ExternalId"),
		"sts:RoleSessionName":  c.form.Get("RoleSessionName"),
		"aws:PrincipalAccount": p.account.id,
		"aws:PrincipalArn":     p.iamARN(),
		"aws:userid":           p.userID,
	})
	switch {
	case p.account.partition != role.account.partition, trust == untrusted, p.denied("sts:AssumeRole", role.ARN()):
		return false
	case trust == trustedByName && p.account == role.account:
		return true
	}
	return p.allowed("sts:AssumeRole", role.ARN())
}

func (c *call) sessionLifetime(role *Role) (time.Duration, *reply) {
	text := c.form.Get("DurationSeconds")
	if text == "" {
		return time.Hour, nil
	}
	seconds, err := strconv.Atoi(text)
	if err != nil || seconds < 900 || seconds > 43200 {
		return 0, c.invalid(text, "durationSeconds", "Member must have value between 900 and 43200")
	}
	lifetime := time.Duration(seconds) * time.Second
	switch {
	case c.principal.kind == sessionOfRole && lifetime > time.Hour:
		return 0, c.fail(http.StatusBadRequest, "ValidationError",
			"The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	case lifetime > role.maxLifetime():
		return 0, c.fail(http.StatusBadRequest, "ValidationError",
			"The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	return lifetime, nil
}

// ServiceContext is what an AWS service says of the resource for which it assumes
// a role.
type ServiceContext struct {
	SourceAccount string // aws:SourceAccount
	SourceARN     string // aws:SourceArn
	// Context is what AWS adds to the calls of the session, as codebuild:BuildArn.
	Context map[string]string
}

// AssumeByService returns credentials of a session that a service, for example
// codebuild.amazonaws.com, starts. The trust policy must let it.
func (r *Role) AssumeByService(service, session string, about ServiceContext) (aws.Credentials, error) {
	asked := map[string]string{"aws:SourceAccount": about.SourceAccount, "aws:SourceArn": about.SourceARN}
	if r.judge(party{kind: "Service", service: service}, asked) == untrusted {
		return aws.Credentials{}, fmt.Errorf("awstest: %s may not assume %s", service, r.ARN())
	}
	return r.session(session, time.Hour, about.Context), nil
}

// members reads a list of a query request: prefix.member.1, prefix.member.2, …
// with nothing left out and nothing beside.
func members(form url.Values, prefix, suffix string) ([]string, bool) {
	var out []string
	for form.Has(fmt.Sprintf("%s.member.%d%s", prefix, len(out)+1, suffix)) {
		out = append(out, form.Get(fmt.Sprintf("%s.member.%d%s", prefix, len(out)+1, suffix)))
	}
	count := 0
	for name := range form {
		if strings.HasPrefix(name, prefix+".member.") && strings.HasSuffix(name, suffix) {
			count++
		}
	}
	return out, count == len(out)
}
