package notary

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/signer"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/assay-build/assay/internal/boundhttp"
	"github.com/assay-build/assay/internal/outage"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	defaultTimeout       = 5 * time.Second
	defaultMaxConcurrent = 32
	attempts             = 3
	// retryBudget is what the retries of all calls may cost: 5 each, given back as calls
	// succeed. An outage uses it up, and then calls are made once.
	retryBudget = 100
	// maxAnswerBytes bounds an answer of AWS: a JWS in base64, and some metadata.
	maxAnswerBytes = 2*MaxSignatureBytes + 16<<10
)

type serviceConfig struct {
	region        string // "" is that of the aws.Config
	endpoint      string
	timeout       time.Duration
	maxConcurrent int
	now           func() time.Time
	log           *slog.Logger
}

// service is AWS Signer behind a bound on how much, how long and how often it is asked.
type service struct {
	client  *signer.Client
	timeout time.Duration
	slots   outage.Places
	breaker outage.Breaker
	now     func() time.Time
	log     *slog.Logger
}

func newService(cfg aws.Config, c serviceConfig) (*service, error) {
	if c.timeout < 0 || c.maxConcurrent < 0 {
		return nil, errors.New("notary: a negative timeout or bound")
	}
	if c.timeout == 0 {
		c.timeout = defaultTimeout
	}
	if c.maxConcurrent == 0 {
		c.maxConcurrent = defaultMaxConcurrent
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.Copy()
	cfg.HTTPClient = boundhttp.New(cfg.HTTPClient, boundhttp.Limits{Answer: maxAnswerBytes, Calls: c.maxConcurrent})
	cfg.Retryer = func() aws.Retryer { // one for the client's life, so that the budget is shared
		return retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = attempts
			o.MaxBackoff = time.Second
			o.RateLimiter = ratelimit.NewTokenRateLimit(retryBudget)
		})
	}
	client := signer.NewFromConfig(cfg, func(o *signer.Options) {
		o.RetryMaxAttempts = attempts
		if c.region != "" {
			o.Region = c.region
		}
		if c.endpoint != "" {
			o.BaseEndpoint = aws.String(c.endpoint)
			o.APIOptions = append(o.APIOptions, withoutHostPrefix)
		}
	})
	return &service{
		client: client, timeout: c.timeout, slots: make(outage.Places, c.maxConcurrent), now: c.now, log: c.log,
	}, nil
}

// withoutHostPrefix reaches GetRevocationStatus, whose host is data-signer.…, at an
// endpoint that has one host.
func withoutHostPrefix(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("WithoutHostPrefix",
		func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
			return next.HandleInitialize(smithyhttp.DisableEndpointHostPrefix(ctx, true), in)
		}), middleware.Before)
}

// call makes one call of the SDK, retries included. Its error is a refusal. ctx is the
// time that s.timeout leaves; that caller is done before it says nothing of the service.
func (s *service) call(caller, ctx context.Context, operation string, do func() error) error {
	// Asked before the wait for a slot, which may be long just because Signer fails.
	if wait, ok := s.breaker.Ready(s.now()); !ok {
		return isOpen(wait)
	}
	if err := s.slots.Take(ctx); err != nil {
		return refusal.New(CodeUnavailable, "%d calls of AWS Signer are under way: %w", cap(s.slots), err)
	}
	defer s.slots.Release()
	p, wait, ok := s.breaker.Enter(s.now())
	if !ok {
		return isOpen(wait)
	}
	r := outage.Abandoned
	defer func() { s.leave(ctx, operation, p, r) }()
	err := do()
	if err == nil {
		r = outage.Answered
		return nil
	}
	var e *refusal.Error
	if e, r = classify(operation, err); caller.Err() != nil && r == outage.Failed {
		r = outage.Abandoned
	}
	s.log.WarnContext(ctx, "aws signer", "operation", operation, "code", string(e.Code), "error", boundhttp.LogText(err))
	return e
}

// isOpen refuses without having asked. While a probe is under way nobody knows for how long.
func isOpen(wait time.Duration) error {
	wait = cmp.Or(wait, outage.FirstPause)
	return refusal.New(CodeUnavailable, "AWS Signer failed again and again; it is not asked for %s", wait.Round(time.Millisecond))
}

func (s *service) leave(ctx context.Context, operation string, p outage.Pass, r outage.Result) {
	opened, closed := s.breaker.Leave(p, s.now(), r)
	switch {
	case opened > 0:
		s.log.ErrorContext(ctx, "AWS Signer not asked for a while", "operation", operation, "wait", opened)
	case closed:
		s.log.InfoContext(ctx, "AWS Signer asked again", "operation", operation)
	}
}

// classify turns an error of the SDK into a refusal. The error itself goes to the log's side
// only: it names the service's own role.
func classify(operation string, err error) (*refusal.Error, outage.Result) {
	e, r := refusal.New(CodeUnavailable, "AWS Signer did not answer %s", operation), outage.Failed
	var api smithy.APIError
	var shape *smithy.DeserializationError
	var broken *boundhttp.ReadError
	switch {
	case errors.As(err, &broken): // there was no whole answer
	case errors.Is(err, boundhttp.ErrTooLong):
		e, r = refusal.New(CodeAnswerInvalid, "AWS Signer's answer to %s has more than %d bytes", operation, maxAnswerBytes), outage.Answered
	case errors.As(err, &api):
		e, r = classifyAPI(operation, api.ErrorCode())
	case errors.As(err, &shape) && !errors.Is(err, io.ErrUnexpectedEOF):
		e, r = refusal.New(CodeAnswerInvalid, "AWS Signer's answer to %s cannot be read", operation), outage.Answered
	}
	e.Err = err
	return e, r
}

func classifyAPI(operation, code string) (*refusal.Error, outage.Result) {
	switch code {
	case "ThrottlingException", "Throttling", "TooManyRequestsException", "ServiceLimitExceededException", "RequestLimitExceeded":
		return refusal.New(CodeThrottled, "AWS Signer limits how often it may be asked: %s", operation), outage.Failed
	case "AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "OptInRequired", "NotAuthorized",
		"UnrecognizedClientException", "InvalidSignatureException", "IncompleteSignatureException", "IncompleteSignature",
		"ExpiredTokenException", "ExpiredToken", "InvalidClientTokenId", "MissingAuthenticationTokenException", "MissingAuthenticationToken":
		return refusal.New(CodeAccessDenied, "AWS does not let this service call %s", operation), outage.Answered
	case "ResourceNotFoundException", "NotFoundException":
		return refusal.New(CodeProfileNotFound, "AWS Signer has no such signing profile"), outage.Answered
	case "ValidationException", "BadRequestException", "ConflictException":
		return refusal.New(CodeProfileUnusable, "AWS Signer refuses to use the signing profile: %s", code), outage.Answered
	}
	return refusal.New(CodeUnavailable, "AWS Signer failed at %s", operation), outage.Failed
}
