package awskms

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/assay-build/assay/internal/outage"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

func TestSignRefusals(t *testing.T) {
	t.Parallel()
	const unauthorized = "UnrecognizedClientException"
	html := []byte("<html>not KMS</html>")
	for name, c := range map[string]struct {
		fault    awstest.Fault
		want     refusal.Code
		attempts int
	}{
		"500":                    {awstest.Fault{Status: 500, Code: "KMSInternalException"}, CodeUnavailable, 3},
		"500 without a code":     {awstest.Fault{Status: 500, Body: html}, CodeUnavailable, 3},
		"502 without a body":     {awstest.Fault{Status: 502, Body: []byte{}}, CodeUnavailable, 3},
		"503":                    {awstest.Fault{Status: 503, Code: "ServiceUnavailableException"}, CodeUnavailable, 3},
		"504":                    {awstest.Fault{Status: 504, Body: html}, CodeUnavailable, 3},
		"dependency":             {awstest.Fault{Status: 500, Code: "DependencyTimeoutException"}, CodeUnavailable, 3},
		"unavailable":            {awstest.Fault{Status: 500, Code: "KeyUnavailableException"}, CodeUnavailable, 3},
		"request timeout":        {awstest.Fault{Status: 408, Code: "RequestTimeout"}, CodeUnavailable, 3},
		"a broken connection":    {awstest.Fault{CloseConnection: true}, CodeUnavailable, 3},
		"half an answer":         {awstest.Fault{Truncate: true}, CodeUnavailable, 3},
		"silence":                {awstest.Fault{Delay: time.Hour}, CodeUnavailable, 2},
		"throttled":              {awstest.Fault{Status: 400, Code: "ThrottlingException"}, CodeThrottled, 3},
		"429":                    {awstest.Fault{Status: 429, Code: "TooManyRequestsException"}, CodeThrottled, 3},
		"429 without a code":     {awstest.Fault{Status: 429, Body: html}, CodeThrottled, 1},
		"503 for a throttle":     {awstest.Fault{Status: 503, Code: "SlowDown"}, CodeThrottled, 3},
		"denied":                 {awstest.Fault{Status: 400, Code: "AccessDeniedException"}, CodeAccessDenied, 1},
		"credentials":            {awstest.Fault{Status: 400, Code: unauthorized}, CodeAccessDenied, 1},
		"expired credentials":    {awstest.Fault{Status: 400, Code: "ExpiredTokenException"}, CodeAccessDenied, 1},
		"disabled":               {awstest.Fault{Status: 400, Code: "DisabledException"}, CodeKeyUnusable, 1},
		"state":                  {awstest.Fault{Status: 400, Code: "KMSInvalidStateException"}, CodeKeyUnusable, 1},
		"usage":                  {awstest.Fault{Status: 400, Code: "InvalidKeyUsageException"}, CodeKeyUnusable, 1},
		"not found":              {awstest.Fault{Status: 400, Code: "NotFoundException"}, CodeKeyNotFound, 1},
		"unsupported":            {awstest.Fault{Status: 400, Code: "UnsupportedOperationException"}, CodeKeyUnsupported, 1},
		"validation":             {awstest.Fault{Status: 400, Code: "ValidationException"}, CodeKeyUnsupported, 1},
		"ARN":                    {awstest.Fault{Status: 400, Code: "InvalidArnException"}, CodeKeyRefInvalid, 1},
		"an unknown code":        {awstest.Fault{Status: 400, Code: "MoonException"}, CodeAnswerInvalid, 1},
		"a code long as a novel": {awstest.Fault{Status: 400, Code: long('M', 9000)}, CodeAnswerInvalid, 1},
		"403 of a proxy":         {awstest.Fault{Status: 403, Body: html}, CodeAnswerInvalid, 1},
		"a redirect":             {awstest.Fault{Status: 307, Redirect: "https://kms.us-east-1.amazonaws.com/"}, CodeAnswerInvalid, 1},
		"a redirect of old":      {awstest.Fault{Redirect: "https://evil.example.com/"}, CodeAnswerInvalid, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			if c.fault.Delay > 0 {
				e.kms.timeout, e.kms.http.Attempt = haste, haste/2
			}
			_, k := e.key(t, "ECC_NIST_P256")
			c.fault.Service, c.fault.Action = "kms", "Sign"
			e.world.Fail(c.fault)
			err := sign(t, k)
			wantCode(t, err, c.want)
			if strings.Contains(err.Error(), "https://") || len(err.Error()) > 300 {
				t.Errorf("the refusal tells too much: %v", err)
			}
			if c.fault.Delay == 0 && e.world.Count("kms", "Sign") != c.attempts {
				t.Errorf("%d requests, want %d", e.world.Count("kms", "Sign"), c.attempts)
			}
			e.heal()
			if err := sign(t, k); err != nil {
				t.Errorf("after it was healed: %v", err)
			}
		})
	}
}

// TestRetry has KMS fail and recover within one signature.
func TestRetry(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]awstest.Fault{
		"two errors":      {Times: 2, Status: 500, Code: "KMSInternalException"},
		"two throttles":   {Times: 2, Status: 400, Code: "ThrottlingException"},
		"a broken answer": {Times: 1, Truncate: true},
		// A connection that went silent leaves time for another.
		"silence": {Times: 1, Delay: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.kms.http.Attempt = time.Second
			_, k := e.key(t, "ECC_NIST_P256")
			fault.Service, fault.Action = "kms", "Sign"
			e.world.Fail(fault)
			if err := sign(t, k); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRetryBudget counts the requests of an outage: soon there are no more than
// there are calls.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.world.Fail(awstest.Fault{Service: "kms", Action: "Sign", Status: 500, Code: "KMSInternalException"})
	var all sync.WaitGroup
	const keys, each = 30, 5 // each key's circuit opens after five
	for range keys {
		_, k := e.key(t, "ECC_NIST_P256")
		all.Go(func() {
			for range each {
				wantCode(t, sign(t, k), CodeUnavailable)
			}
		})
	}
	all.Wait()
	// A repeat takes five of 500 tokens.
	if n := e.world.Count("kms", "Sign"); n < keys*each || n > keys*each+100 {
		t.Errorf("%d requests for %d calls", n, keys*each)
	}
}

func TestCircuitOfKey(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]awstest.Fault{
		"outage":   {Status: 500, Code: "KMSInternalException"},
		"throttle": {Status: 400, Code: "ThrottlingException"},
		"silence":  {Delay: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			if fault.Delay > 0 {
				e.kms.timeout, e.kms.http.Attempt = haste, haste/2
			}
			at, k := e.key(t, "ECC_NIST_P256")
			_, other := e.key(t, "ECC_NIST_P256")
			same, err := e.kms.Open(at.ARN(), at.Public())
			if err != nil {
				t.Fatal(err)
			}
			fault.Service, fault.Action = "kms", "Sign"
			e.world.Fail(fault)
			var all sync.WaitGroup
			for range outage.OpenAfter {
				all.Go(func() {
					if c := refusal.CodeOf(sign(t, k)); c != CodeUnavailable && c != CodeThrottled {
						t.Errorf("refused with %s", c)
					}
				})
			}
			all.Wait()
			e.heal()
			before := e.world.Count("kms", "Sign")
			for _, k := range []*Key{k, same} {
				wantCode(t, sign(t, k), CodeCircuitOpen)
			}
			// What hung is counted late.
			if n := e.world.Count("kms", "Sign"); n != before && fault.Delay == 0 {
				t.Errorf("an open circuit let %d requests through", n-before)
			}
			if err := sign(t, other); err != nil {
				t.Errorf("another key: %v", err)
			}
			if _, err := e.kms.Resolve(t.Context(), "awskms:///"+at.ARN()); err != nil {
				t.Errorf("Resolve: %v", err)
			}
			// A probe that fails keeps it open for twice as long.
			e.clock.Advance(time.Second)
			e.world.Fail(awstest.Fault{Service: "kms", Action: "Sign", Status: 503, Code: "ServiceUnavailable"})
			wantCode(t, sign(t, k), CodeUnavailable)
			e.world.Heal()
			e.clock.Advance(2*time.Second - 1)
			wantCode(t, sign(t, k), CodeCircuitOpen)
			e.clock.Advance(1)
			if err := sign(t, k); err != nil {
				t.Errorf("the probe: %v", err)
			}
			if err := sign(t, same); err != nil {
				t.Errorf("after the probe: %v", err)
			}
			log := e.log.String()
			if strings.Count(log, "not asked for a while") != 2 || strings.Count(log, "asked again") != 1 || !strings.Contains(log, at.ARN()) {
				t.Errorf("log: %s", log)
			}
		})
	}
}

// TestCircuitStaysClosed has refusals that are no outage: KMS answers.
func TestCircuitStaysClosed(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	at, k := e.key(t, "ECC_NIST_P256")
	for _, state := range []string{"Disabled", "PendingDeletion"} {
		at.SetState(state)
		for range 2 * outage.OpenAfter {
			wantCode(t, sign(t, k), CodeKeyUnusable)
		}
	}
	at.SetState("Enabled")
	e.role.Deny("kms:Sign")
	for range 2 * outage.OpenAfter {
		wantCode(t, sign(t, k), CodeAccessDenied)
	}
	at.Fault(awstest.KMSFault{FlipBit: true})
	for range 2 * outage.OpenAfter {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := k.Sign(ctx, digest(t, k.Public())); !errors.Is(err, context.Canceled) || refusal.CodeOf(err) != "" {
			t.Errorf("canceled: %v", err)
		}
	}
}

// TestOneProbe has many callers come when the circuit may be tried again.
func TestOneProbe(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	_, k := e.key(t, "ECC_NIST_P256")
	e.world.Fail(awstest.Fault{Service: "kms", Action: "Sign", Status: 400, Code: "ThrottlingException"})
	for range outage.OpenAfter {
		wantCode(t, sign(t, k), CodeThrottled)
	}
	e.world.Heal()
	before := e.world.Count("kms", "Sign")
	e.clock.Advance(time.Second)
	e.world.Latency("kms", "Sign", 200*time.Millisecond)
	var all sync.WaitGroup
	start := make(chan struct{})
	results := make(chan error, 64)
	for range cap(results) {
		all.Go(func() {
			<-start
			results <- sign(t, k)
		})
	}
	close(start)
	all.Wait()
	close(results)
	signed := 0
	for err := range results {
		if err == nil {
			signed++
		} else {
			wantCode(t, err, CodeCircuitOpen)
		}
	}
	if n := e.world.Count("kms", "Sign") - before; signed != n || n < 1 || n > 8 {
		// More than one only if callers came after the probe had ended.
		t.Errorf("%d signatures by %d requests", signed, n)
	}
}

func TestCanceled(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	_, k := e.key(t, "ECC_NIST_P256")
	e.world.Fail(awstest.Fault{Service: "kms", Delay: time.Hour})
	for range 2 * outage.OpenAfter {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := k.Sign(ctx, digest(t, k.Public()))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || refusal.CodeOf(err) != "" {
			t.Errorf("%v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := e.kms.Resolve(ctx, "awskms:///"+k.ARN())
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || refusal.CodeOf(err) != "" {
		t.Errorf("%v", err)
	}
	e.world.Heal()
	if err := sign(t, k); err != nil { // those who left early opened no circuit
		t.Error(err)
	}
}

// TestPatientCallers counts callers whose deadline comes before the Service's own:
// otherwise an outage that is silence would go unnoticed.
func TestPatientCallers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes two seconds")
	}
	e := newEnv(t, func(c *Config) { c.Timeout = 2 * time.Second })
	_, k := e.key(t, "ECC_NIST_P256")
	e.world.Fail(awstest.Fault{Service: "kms", Delay: time.Hour})
	var all sync.WaitGroup
	for range outage.OpenAfter {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 1800*time.Millisecond)
			defer cancel()
			if _, err := k.Sign(ctx, digest(t, k.Public())); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
	wantCode(t, sign(t, k), CodeCircuitOpen)
}

// TestSlots has more callers than calls that may be under way.
func TestSlots(t *testing.T) {
	t.Parallel()
	e := newEnv(t, hasty, func(c *Config) { c.MaxConcurrent = 1 })
	_, k := e.key(t, "ECC_NIST_P256")
	e.kms.slots <- struct{}{} // a call that takes long
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := k.Sign(ctx, digest(t, k.Public()))
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	all := make(chan error, 2*outage.OpenAfter) // which say nothing about KMS, and open no circuit
	for range cap(all) {
		go func() { all <- sign(t, k) }()
	}
	for range cap(all) {
		wantCode(t, <-all, CodeUnavailable)
	}
	if n := e.world.Count("kms", ""); n != 0 {
		t.Errorf("%d requests without a slot", n)
	}
	e.heal()
	go func() { done <- sign(t, k) }()
	<-e.kms.slots
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(e.kms.slots) != 0 {
		t.Error("a slot was not given back")
	}
}

// TestCredentials has the service without credentials to sign requests with.
func TestCredentials(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(c *Config) {
		c.AWS.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, errors.New("the metadata service is away")
		})
	})
	_, k := e.key(t, "ECC_NIST_P256")
	err := sign(t, k)
	wantCode(t, err, CodeUnavailable)
	if strings.Contains(err.Error(), "metadata") {
		t.Errorf("%v", err)
	}
}

// TestEndpoint leads requests where the configuration says.
func TestEndpoint(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 8)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Host + " " + r.Header.Get("X-Amz-Target")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"__type":"NotFoundException"}`))
	}))
	t.Cleanup(server.Close)
	e := newEnv(t, func(c *Config) { c.Endpoint, c.AWS.HTTPClient = server.URL, nil })
	_, err := e.kms.Resolve(t.Context(), "awskms:///alias/a")
	wantCode(t, err, CodeKeyNotFound)
	if got, want := <-asked, strings.TrimPrefix(server.URL, "http://")+" TrentService.DescribeKey"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}
