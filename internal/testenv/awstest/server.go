package awstest

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// maxBody is the largest request body that any service reads.
const maxBody = 256 << 20

// protocol is how a service writes requests, answers and errors.
type protocol int

const (
	query    protocol = iota // awsQuery: a form, XML; JSON where STS is asked for it
	jsonRPC                  // awsJson1.1
	restXML                  // S3
	restJSON                 // restJson1: Signer
)

// service is one AWS service, registered under its name in credential scopes.
type service struct {
	protocol protocol
	target   string // jsonRPC: what stands before the dot of X-Amz-Target
	// action names the operation of a REST request, or is empty if there is no such
	// operation; other protocols say it.
	action func(e endpoint, r *http.Request) string
	serve  handler
}

// handler answers a call. It asks c.principal.allowed before it tells anything.
type handler func(c *call) *reply

// call is a request whose signature was verified.
type call struct {
	w         *World
	service   string
	region    string
	action    string
	endpoint  endpoint
	principal *principal
	signed    []string  // names of the signed headers
	expires   time.Time // of the principal's keys; zero: never
	r         *http.Request
	body      []byte
	form      url.Values // query protocol
	requestID string
	protocol  protocol
}

// reply is an answer. Stream, if set, is written after body.
type reply struct {
	status int
	header http.Header
	body   []byte
	stream io.Reader
}

// serveHTTP is every AWS host.
func (w *World) serveHTTP(rw http.ResponseWriter, r *http.Request) {
	defer func() { // a mistake of the stand-in shall not look like a network that failed
		if p := recover(); p != nil {
			http.Error(rw, fmt.Sprintf("awstest: panic: %v", p), http.StatusInternalServerError)
		}
	}()
	e, ok := parseHost(strings.TrimSuffix(r.Host, ":443"))
	if !ok {
		http.Error(rw, "awstest: no such host", http.StatusMisdirectedRequest)
		return
	}
	if e.service == "tokens" {
		w.serveIssuer(rw, r, e.issuer)
		return
	}
	s, ok := w.services[e.service]
	if !ok {
		http.Error(rw, "awstest: no such service", http.StatusMisdirectedRequest)
		return
	}
	c := &call{
		w: w, service: e.service, region: e.region, endpoint: e, r: r,
		protocol: s.protocol, requestID: uuid.NewString(),
	}
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxBody))
	if err != nil {
		c.send(rw, c.fail(http.StatusBadRequest, "RequestTimeout", "the body was not read"))
		return
	}
	c.body = body
	c.answer(rw, s)
}

func (c *call) answer(rw http.ResponseWriter, s service) {
	refused := c.readAction(s)
	f := c.w.takeFault(c.service, c.action)
	if f != nil && f.strike(rw, c) {
		return
	}
	if !c.wait(c.w.latencyOf(c.service, c.action)) {
		c.record(0, "")
		return
	}
	out := refused
	if out == nil {
		out = c.authenticate()
	}
	if out == nil && !c.w.takeToken(c) {
		out = c.throttled()
	}
	if out == nil {
		out = s.serve(c)
	}
	if f != nil && f.Truncate {
		c.record(out.status, "")
		f.truncate(rw, c, out)
		return
	}
	c.record(out.status, out.header.Get("X-Awstest-Code"))
	c.send(rw, out)
}

// readAction finds out which operation is called, before anybody is authenticated.
func (c *call) readAction(s service) *reply {
	switch s.protocol {
	case query:
		return c.readForm()
	case jsonRPC:
		target := c.r.Header.Values("X-Amz-Target")
		if len(target) == 1 {
			if action, ok := strings.CutPrefix(target[0], s.target+"."); ok {
				c.action = action
			}
		}
		if c.action == "" || c.r.Method != http.MethodPost || c.r.URL.Path != "/" {
			return c.fail(http.StatusBadRequest, "UnknownOperationException", "")
		}
		if t, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); err != nil || t != "application/x-amz-json-1.1" {
			return c.fail(http.StatusBadRequest, "SerializationException", "content type is not application/x-amz-json-1.1")
		}
	case restXML:
		c.action = s.action(c.endpoint, c.r)
	case restJSON:
		if c.action = s.action(c.endpoint, c.r); c.action == "" {
			return c.fail(http.StatusNotFound, "UnknownOperationException", "")
		}
		if t, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); len(c.body) > 0 && (err != nil || t != "application/json") {
			return c.fail(http.StatusUnsupportedMediaType, "UnsupportedMediaTypeException", "content type is not application/json")
		}
	}
	return nil
}

// readForm reads the parameters of a query request: those of the query string for
// GET, those of the body for POST. A parameter given twice is refused, whatever
// the case of its letters.
func (c *call) readForm() *reply {
	malformed := func(why string) *reply {
		return c.fail(http.StatusBadRequest, "MalformedQueryString", why)
	}
	if c.r.URL.Path != "/" {
		return c.fail(http.StatusNotFound, "UnknownOperationException", "")
	}
	values, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return malformed("the query string cannot be read")
	}
	switch c.r.Method {
	case http.MethodGet:
		if len(c.body) > 0 {
			return malformed("a GET request has a body")
		}
	case http.MethodPost:
		if t, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
			return malformed("content type is not application/x-www-form-urlencoded")
		}
		posted, err := url.ParseQuery(string(c.body))
		if err != nil {
			return malformed("the body cannot be read")
		}
		for name, v := range posted {
			values[name] = append(values[name], v...)
		}
	default:
		return c.fail(http.StatusMethodNotAllowed, "MethodNotAllowed", "")
	}
	seen := map[string]bool{}
	for name, v := range values {
		if folded := strings.ToLower(name); len(v) != 1 || seen[folded] {
			return malformed("a parameter is given twice")
		} else {
			seen[folded] = true
		}
	}
	c.form, c.action = values, values.Get("Action")
	if c.action == "" {
		return c.fail(http.StatusBadRequest, "MissingAction", "Could not find operation")
	}
	return nil
}

// allow returns nil if the caller may do the call's action on resource, and the
// protocol's refusal otherwise.
func (c *call) allow(resource string) *reply {
	return c.allowAction(c.service+":"+c.action, resource)
}

func (c *call) allowAction(action, resource string) *reply {
	if c.principal.allowed(action, resource) {
		return nil
	}
	message := fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s", c.principal.arn, action, resource)
	switch c.protocol {
	case jsonRPC:
		return c.fail(http.StatusBadRequest, "AccessDeniedException", message)
	case restXML:
		return c.fail(http.StatusForbidden, "AccessDenied", "Access Denied")
	case restJSON:
		return c.fail(http.StatusForbidden, "AccessDeniedException", message)
	}
	return c.fail(http.StatusForbidden, "AccessDenied", message)
}

func (c *call) throttled() *reply {
	switch c.protocol {
	case jsonRPC:
		return c.fail(http.StatusBadRequest, "ThrottlingException", "Rate exceeded")
	case restXML:
		return c.fail(http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
	case restJSON:
		return c.fail(http.StatusTooManyRequests, "TooManyRequestsException", "Rate exceeded")
	}
	return c.fail(http.StatusBadRequest, "Throttling", "Rate exceeded")
}

// fail is an error as the service's protocol writes it.
func (c *call) fail(status int, code, message string) *reply {
	out := c.failure(status, code, message)
	out.header.Set("X-Awstest-Code", code) // for the record; send removes it
	return out
}

func (c *call) failure(status int, code, message string) *reply {
	kind := "Sender"
	if status >= 500 {
		kind = "Receiver"
	}
	switch {
	case c.protocol == jsonRPC:
		return jsonReply(status, map[string]string{"__type": code, "message": message})
	case c.protocol == restJSON:
		out := jsonReply(status, map[string]string{"message": message})
		out.header.Set("X-Amzn-Errortype", code)
		return out
	case c.protocol == restXML:
		return xmlReply(status, struct {
			XMLName xml.Name `xml:"Error"`
			Code    string
			Message string
			RequestId,
			HostId string
		}{Code: code, Message: message, RequestId: c.requestID, HostId: c.requestID})
	case c.wantsJSON():
		out := jsonReply(status, map[string]any{
			"Error":     map[string]string{"Code": code, "Message": message, "Type": kind},
			"RequestId": c.requestID,
		})
		out.header.Set("Content-Type", "application/json")
		return out
	}
	type detail struct{ Type, Code, Message string }
	return xmlReply(status, struct {
		XMLName   xml.Name
		Error     detail
		RequestId string
	}{xml.Name{Space: namespaces[c.service], Local: "ErrorResponse"}, detail{kind, code, message}, c.requestID})
}

// wantsJSON tells whether the caller of a query service asked for JSON, which STS
// answers though its model says XML.
func (c *call) wantsJSON() bool {
	return c.service == "sts" && slices.Contains(c.r.Header.Values("Accept"), "application/json")
}

var namespaces = map[string]string{
	"sts": "https://sts.amazonaws.com/doc/2011-06-15/",
	"iam": "https://iam.amazonaws.com/doc/2010-05-08/",
}

// send writes a reply with the headers that every AWS answer has.
func (c *call) send(rw http.ResponseWriter, out *reply) {
	h := rw.Header()
	for name, values := range out.header {
		h[name] = values
	}
	h.Del("X-Awstest-Code")
	if c.protocol == restJSON && h.Get("Content-Type") == "application/x-amz-json-1.1" { // of jsonReply
		h.Set("Content-Type", "application/json")
	}
	h.Set("Date", c.w.now().UTC().Format(http.TimeFormat)) // the SDK corrects its clock by it
	if c.protocol == restXML {
		h.Set("X-Amz-Request-Id", c.requestID)
	} else {
		h.Set("X-Amzn-Requestid", c.requestID)
	}
	if out.stream == nil && h.Get("Content-Length") == "" && out.status != http.StatusNoContent && out.status != http.StatusNotModified {
		h.Set("Content-Length", strconv.Itoa(len(out.body)))
	}
	rw.WriteHeader(out.status)
	if c.r.Method == http.MethodHead {
		return
	}
	_, _ = rw.Write(out.body) // the caller may be gone
	if out.stream != nil {
		_, _ = io.Copy(rw, out.stream)
	}
}

func jsonReply(status int, v any) *reply {
	return &reply{
		status: status,
		header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}},
		body:   mustJSON(v),
	}
}

func xmlReply(status int, v any) *reply {
	var b bytes.Buffer
	b.WriteString(xml.Header)
	if err := xml.NewEncoder(&b).Encode(v); err != nil {
		panic(fmt.Sprintf("awstest: %v", err))
	}
	return &reply{status: status, header: http.Header{"Content-Type": {"text/xml"}}, body: b.Bytes()}
}
