package awstest

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault is a way in which AWS fails. It strikes before the request is looked at,
// as the faults of the network and of load balancers do.
type Fault struct {
	Service string // "sts", "iam", "codebuild", "s3", "kms", "signer"; empty: every service
	Action  string // empty: every action
	Times   int    // how often it strikes; 0: until Heal

	// Status and Code make an error of the service's protocol; with Body, the
	// answer is that instead, with Status or else 200.
	Status  int
	Code    string
	Message string
	Body    []byte
	// Header is laid over the answer's, of an error or of Body.
	Header http.Header
	// Redirect sends the caller elsewhere, with Status or else 302.
	Redirect string
	// CloseConnection breaks the connection instead of an answer. Go's transport by
	// itself repeats a GET on a connection that was used before.
	CloseConnection bool
	// Delay is how long (in real time) an answer takes. Alone, the answer is the
	// honest one.
	Delay time.Duration
	// Truncate breaks the connection half way through the honest answer.
	Truncate bool
}

// Fail makes AWS fail. Of several faults that fit, the oldest strikes.
func (w *World) Fail(f Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.Times == 0 {
		f.Times = -1
	}
	w.faults = append(w.faults, &f)
}

// Heal ends all faults and limits.
func (w *World) Heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = nil
	clear(w.limits)
	clear(w.throttle)
}

func (w *World) takeFault(service, action string) *Fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, f := range w.faults {
		if f.Service != "" && f.Service != service || f.Action != "" && f.Action != action {
			continue
		}
		taken := *f
		if f.Times--; f.Times == 0 {
			w.faults = slices.Delete(w.faults, i, i+1)
		}
		return &taken
	}
	return nil
}

// strike answers in place of the service, or tells that the service shall answer.
func (f *Fault) strike(rw http.ResponseWriter, c *call) bool {
	if !c.wait(f.Delay) {
		c.record(f.Status, f.Code)
		return true
	}
	out := &reply{status: f.Status, header: http.Header{}, body: f.Body}
	switch {
	case f.CloseConnection:
		c.record(f.Status, f.Code)
		breakConnection(rw)
		return true
	case f.Redirect != "":
		out.header.Set("Location", f.Redirect)
		if out.status == 0 {
			out.status = http.StatusFound
		}
	case f.Body != nil:
		if out.status == 0 {
			out.status = http.StatusOK
		}
	case f.Status != 0:
		out = c.failure(f.Status, f.Code, f.Message)
	default:
		return false
	}
	for name, values := range f.Header {
		out.header[http.CanonicalHeaderKey(name)] = values
	}
	// On record before it is answered: whoever has the answer finds the record.
	c.record(f.Status, f.Code)
	c.send(rw, out)
	return true
}

// truncate announces all of an answer and sends half of it.
func (f *Fault) truncate(rw http.ResponseWriter, c *call, out *reply) {
	half := *out
	half.header = out.header.Clone()
	half.header.Set("Content-Length", strconv.Itoa(len(out.body)))
	half.body = out.body[:len(out.body)/2]
	half.stream = nil
	c.send(rw, &half)
	_ = http.NewResponseController(rw).Flush() // what is announced is not sent in full either way
	breakConnection(rw)
}

func breakConnection(rw http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(rw).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// Latency makes every answer of an action take d longer, in real time, as the way
// to a region does. Empty names mean any; what is said of an action counts before
// what is said of its service. Zero ends it; Heal does not.
func (w *World) Latency(service, action string, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latency[operation{service, action}] = d
}

func (w *World) latencyOf(service, action string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, op := range []operation{{service, action}, {service, ""}, {"", ""}} {
		if d, ok := w.latency[op]; ok {
			return d
		}
	}
	return 0
}

// wait tells whether the caller was still there after d.
func (c *call) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.r.Context().Done():
		return false
	}
}

type operation struct{ service, action string }

type bucketKey struct {
	operation
	account string
}

// bucket is a token bucket: full, it has perSecond tokens.
type bucket struct {
	tokens float64
	at     time.Time
}

// Throttle limits how often each account may call an action: perSecond times at
// once, and as many again for every second of the world's clock. Zero allows no
// call at all.
func (w *World) Throttle(service, action string, perSecond int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limits[operation{service, action}] = perSecond
}

// takeToken tells whether the call is within the limit.
func (w *World) takeToken(c *call) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	op := operation{c.service, c.action}
	limit, limited := w.limits[op]
	if !limited {
		return true
	}
	key, now := bucketKey{op, c.principal.account.id}, w.now()
	b := w.throttle[key]
	if b == nil {
		b = &bucket{tokens: float64(limit), at: now}
		w.throttle[key] = b
	}
	b.tokens = min(float64(limit), b.tokens+now.Sub(b.at).Seconds()*float64(limit))
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// RequestRecord is a request that reached the world, without anything secret.
type RequestRecord struct {
	Time      time.Time
	Service   string
	Action    string
	Region    string
	Host      string
	Method    string
	Path      string
	Principal string   // ARN; empty if nobody was authenticated
	Headers   []string // names of the headers, sorted, in lower case
	Signed    []string // names of the signed ones
	Status    int      // of the answer; 0: none was given
	Code      string   // of the error
}

// maxRecords is how many requests are remembered at least; of twice as many, the
// older half is forgotten.
const maxRecords = 1 << 15

// Count is how many requests there were so far, forgotten ones too; an empty
// service or action means any.
func (w *World) Count(service, action string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for op, count := range w.counts {
		if (service == "" || op.service == service) && (action == "" || op.action == action) {
			n += count
		}
	}
	return n
}

// Requests are the requests so far, oldest first; an empty service or action
// means any. Of very many, the oldest are forgotten.
func (w *World) Requests(service, action string) []RequestRecord {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []RequestRecord
	for _, r := range w.requests {
		if (service == "" || r.Service == service) && (action == "" || r.Action == action) {
			out = append(out, r)
		}
	}
	return out
}

func (c *call) record(status int, code string) {
	r := RequestRecord{
		Time: c.w.now(), Service: c.service, Action: c.action, Region: c.region, Host: c.r.Host,
		Method: c.r.Method, Path: c.r.URL.Path, Signed: c.signed, Status: status, Code: code,
	}
	if c.principal != nil {
		r.Principal = c.principal.arn
	}
	for name := range c.r.Header {
		r.Headers = append(r.Headers, strings.ToLower(name))
	}
	slices.Sort(r.Headers)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.counts[operation{c.service, c.action}]++
	if len(c.w.requests) == 2*maxRecords {
		c.w.requests = append(c.w.requests[:0], c.w.requests[maxRecords:]...)
	}
	c.w.requests = append(c.w.requests, r)
}
