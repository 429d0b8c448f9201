package awskms

import (
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/assay-build/assay/internal/boundhttp"
	"github.com/assay-build/assay/internal/outage"
	"github.com/assay-build/assay/internal/refusal"
)

// CodeConfigInvalid refuses a Config.
const CodeConfigInvalid refusal.Code = "KMS_CONFIG_INVALID"

const (
	defaultConcurrent = 64
	maxConcurrent     = 1024
	defaultTimeout    = 5 * time.Second
	maxTimeout        = time.Minute
	// maxAnswerBytes bounds one answer. The longest, of DescribeKey, has a few KiB.
	maxAnswerBytes = 64 << 10
)

// Config configures a Service.
type Config struct {
	// AWS has the credentials that KMS is asked with, the region of references that
	// name none, and the HTTP client. Nothing else of it has an effect: what may
	// come from the environment or a profile shall not decide where requests go.
	AWS aws.Config
	// Now is the clock of circuits; time.Now if nil.
	Now func() time.Time
	// Logger is slog.Default if nil.
	Logger *slog.Logger
	// MaxConcurrent bounds the calls to KMS under way at one time; 64 if zero.
	MaxConcurrent int
	// Timeout bounds one signature or one Resolve with all attempts; 5s if zero.
	Timeout time.Duration
	// Endpoint is asked instead of the regional hosts of KMS. For tests, sandboxes
	// and VPC endpoints without private DNS: an https URL, or an http one of a
	// loopback address.
	Endpoint string
}

// Service is KMS. It is safe for concurrent use and starts nothing by itself.
type Service struct {
	credentials aws.CredentialsProvider
	region      string
	appID       string
	http        *boundhttp.Client
	endpoint    *string
	now         func() time.Time
	log         *slog.Logger
	timeout     time.Duration
	pause       time.Duration // before the first repeat, about
	slots       outage.Places

	mu       sync.Mutex
	clients  map[string]*kms.Client // by region
	circuits map[string]*circuit    // by key ARN: all who opened the key share what befell it
}

// New checks cfg. It sends nothing.
func New(cfg Config) (*Service, error) {
	s := &Service{
		credentials: cfg.AWS.Credentials, region: cfg.AWS.Region, appID: cfg.AWS.AppID,
		now: cfg.Now, log: cfg.Logger, timeout: cfg.Timeout,
		clients: make(map[string]*kms.Client), circuits: make(map[string]*circuit),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.appID == "" {
		s.appID = "assay"
	}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	n := cfg.MaxConcurrent
	if n == 0 {
		n = defaultConcurrent
	}
	switch {
	case s.credentials == nil:
		return nil, refusal.New(CodeConfigInvalid, "there are no AWS credentials to ask KMS with").InField("aws")
	case s.region != "" && !reRegion().MatchString(s.region):
		return nil, refusal.New(CodeConfigInvalid, "%.100q is not an AWS region", s.region).InField("aws.region")
	case s.timeout < 0 || s.timeout > maxTimeout:
		return nil, refusal.New(CodeConfigInvalid, "is %s; want more than 0 and at most %s", s.timeout, maxTimeout).InField("timeout")
	case n < 0 || n > maxConcurrent:
		return nil, refusal.New(CodeConfigInvalid, "is %d; want 1 to %d", n, maxConcurrent).InField("max_concurrent")
	}
	if cfg.Endpoint != "" {
		if err := checkEndpoint(cfg.Endpoint); err != nil {
			return nil, err
		}
		s.endpoint = aws.String(cfg.Endpoint)
	}
	s.pause = s.timeout / 50
	s.slots = make(outage.Places, n)
	s.http = boundhttp.New(cfg.AWS.HTTPClient, boundhttp.Limits{Answer: maxAnswerBytes, Attempt: s.timeout / 2, Calls: n})
	return s, nil
}

func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return refusal.New(CodeConfigInvalid, "%.300q is not the URL of a host", endpoint).InField("endpoint")
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return refusal.New(CodeConfigInvalid, "%.300q: only a loopback address may be asked over anything but https", endpoint).InField("endpoint")
	}
	return nil
}

// client returns the client of a region. Each has one budget of repeats for all
// calls, so that an outage is met with few more requests than there are signatures.
func (s *Service) client(region string) *kms.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[region]
	if c == nil {
		// Not kms.NewFromConfig: it reads AWS_ENDPOINT_URL_KMS and profiles.
		c = kms.New(kms.Options{
			Region: region, Credentials: s.credentials, HTTPClient: s.http, AppID: s.appID,
			BaseEndpoint: s.endpoint, Retryer: newRetryer(s.pause),
		})
		s.clients[region] = c
	}
	return c
}

// circuit is the breaker of one key.
type circuit struct {
	outage.Breaker
	arn string
}

func (s *Service) circuit(arn string) *circuit {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.circuits[arn]
	if c == nil {
		c = &circuit{arn: arn}
		s.circuits[arn] = c
	}
	return c
}
