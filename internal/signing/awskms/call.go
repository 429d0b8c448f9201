package awskms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"github.com/assay-build/assay/internal/boundhttp"
	"github.com/assay-build/assay/internal/outage"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeUnavailable: KMS could not be asked or did not answer in time. Retryable.
	CodeUnavailable refusal.Code = "KMS_UNAVAILABLE"
	// CodeThrottled: AWS lets the account call KMS no more often. Retryable.
	CodeThrottled refusal.Code = "KMS_THROTTLED"
	// CodeCircuitOpen: KMS failed so often that it is not asked now. Retryable.
	CodeCircuitOpen refusal.Code = "KMS_CIRCUIT_OPEN"
	// CodeAccessDenied: AWS does not let the service use the key, or does not accept
	// its credentials.
	CodeAccessDenied refusal.Code = "KMS_ACCESS_DENIED"
	// CodeKeyUnusable: the key is disabled, will be deleted, is not ready, or is not
	// for signatures.
	CodeKeyUnusable refusal.Code = "KMS_KEY_UNUSABLE"
	// CodeKeyNotFound: there is no such key or alias.
	CodeKeyNotFound refusal.Code = "KMS_KEY_NOT_FOUND"
	// CodeKeyUnsupported: the key is of a kind that this service does not sign with.
	CodeKeyUnsupported refusal.Code = "KMS_KEY_UNSUPPORTED"
	// CodeAnswerInvalid: what came back is no answer of KMS to what was asked.
	CodeAnswerInvalid refusal.Code = "KMS_ANSWER_INVALID"
)

const maxAttempts = 3

// newRetryer is the SDK's own with shorter pauses, of which first is the first one:
// somebody waits for the signature.
func newRetryer(first time.Duration) aws.Retryer {
	throttle := retry.IsErrorThrottles(retry.DefaultThrottles)
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = maxAttempts
		o.Backoff = retry.BackoffDelayerFunc(func(attempt int, err error) (time.Duration, error) {
			pause := first
			if throttle.IsErrorThrottle(err).Bool() { // quotas are per second
				pause *= 5
			}
			pause <<= max(attempt-1, 0)
			return pause/2 + rand.N(pause/2+1), nil
		})
	})
}

// do calls f in one of the slots, with the service's timeout, unless c is open. What
// names the key to people. A circuit of nil never opens.
func (s *Service) do(ctx context.Context, c *circuit, what string, f func(context.Context) error) (err error) {
	if err := gone(ctx, what); err != nil {
		return err
	}
	if c != nil {
		// Asked before the wait for a slot, which may be long just because KMS fails.
		if wait, ok := c.Ready(s.now()); !ok {
			return isOpen(what, wait)
		}
	}
	if err := s.takeSlot(ctx, what); err != nil {
		return err
	}
	defer s.slots.Release()

	o := outage.Abandoned
	if c != nil {
		pass, wait, ok := c.Enter(s.now())
		if !ok {
			return isOpen(what, wait)
		}
		defer func() { s.leave(ctx, c, pass, o) }() // also of a panic, or the probe would never end
	}
	// A caller who leaves no time proves nothing about KMS.
	deadline, ok := ctx.Deadline()
	patient := !ok || time.Until(deadline) >= s.timeout/2

	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err = f(bounded)
	if err == nil {
		o = outage.Answered
		return nil
	}
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		if patient && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			o = outage.Failed
		}
		return gone(ctx, what)
	}
	var r *refusal.Error
	if errors.As(err, &r) { // a check of the answer
		o = outage.Answered
		s.log.ErrorContext(ctx, "answer of KMS refused", "key", what, "code", string(r.Code), "error", r.Detail)
		return err
	}
	r, o = s.refused(ctx, what, err)
	return r
}

func (s *Service) takeSlot(ctx context.Context, what string) error {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := s.slots.Take(bounded)
	if err == nil {
		return nil
	}
	if err := gone(ctx, what); err != nil {
		return err
	}
	return refusal.New(CodeUnavailable, "%s: %d calls to KMS are under way, and none ended for %s", what, cap(s.slots), s.timeout)
}

func (s *Service) leave(ctx context.Context, c *circuit, pass outage.Pass, o outage.Result) {
	opened, closed := c.Leave(pass, s.now(), o)
	switch {
	case opened > 0:
		s.log.ErrorContext(ctx, "KMS key not asked for a while", "arn", c.arn, "wait", opened)
	case closed:
		s.log.InfoContext(ctx, "KMS key asked again", "arn", c.arn)
	}
}

// gone returns the caller's own reason to stop, which is no refusal of ours.
func gone(ctx context.Context, what string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func isOpen(what string, wait time.Duration) error {
	if wait <= 0 {
		return refusal.New(CodeCircuitOpen, "%s: KMS failed %d times in a row or more, and another call is finding out whether it works again", what, outage.OpenAfter)
	}
	return refusal.New(CodeCircuitOpen, "%s: KMS failed %d times in a row or more; it is asked again in %s", what, outage.OpenAfter, wait.Round(time.Millisecond))
}

// refused turns an error of the SDK into a refusal. AWS's words are its cause and
// not its text.
func (s *Service) refused(ctx context.Context, what string, err error) (*refusal.Error, outage.Result) {
	code := classify(err)
	r := refusal.New(code, "%s: %s", what, texts(code))
	r.Err = err
	s.log.LogAttrs(ctx, slog.LevelWarn, "KMS call failed",
		slog.String("key", what), slog.String("code", string(code)),
		slog.String("aws_error", fmt.Sprintf("%.100s", apiCode(err))), slog.String("error", boundhttp.LogText(err)))
	if code == CodeUnavailable || code == CodeThrottled {
		return r, outage.Failed
	}
	return r, outage.Answered
}

func texts(code refusal.Code) string {
	switch code {
	case CodeThrottled:
		return "AWS lets this account call KMS no more often at the moment"
	case CodeAccessDenied:
		return "AWS does not let this service use the key, or does not accept its credentials"
	case CodeKeyUnusable:
		return "KMS does not sign with the key: it is disabled, will be deleted, is not ready, or is not for signatures"
	case CodeKeyNotFound:
		return "KMS has no such key"
	case CodeKeyUnsupported:
		return "KMS says that the key, or what was asked of it, is not supported"
	case CodeKeyRefInvalid:
		return "KMS says that this does not name a key"
	case CodeAnswerInvalid:
		return "what came back is no answer of KMS"
	}
	return "KMS could not be asked, or did not answer in time"
}

// classify finds the code of an error of the SDK.
func classify(err error) refusal.Code {
	var broken *boundhttp.ReadError
	var garbled *smithy.DeserializationError
	var status interface{ HTTPStatusCode() int }
	switch {
	case errors.Is(err, boundhttp.ErrTooLong):
		return CodeAnswerInvalid
	case errors.As(err, &broken):
		return CodeUnavailable
	}
	code := apiCode(err)
	if of := knownCode(code); of != "" {
		// Of the service that gives us credentials, only a denial is as telling.
		if of == CodeAccessDenied || !ofCredentials(err) {
			return of
		}
		return CodeUnavailable
	}
	if errors.As(err, &status) {
		switch n := status.HTTPStatusCode(); {
		case n == http.StatusTooManyRequests:
			return CodeThrottled
		case n >= 500 || n == http.StatusRequestTimeout:
			return CodeUnavailable
		}
	}
	if errors.As(err, &garbled) || code != "" {
		return CodeAnswerInvalid
	}
	return CodeUnavailable
}

// knownCode returns what AWS's own code of an error means, "" if it is not known.
func knownCode(code string) refusal.Code {
	if _, ok := retry.DefaultThrottleErrorCodes[code]; ok {
		return CodeThrottled
	}
	switch code {
	case "KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException",
		"InternalFailure", "InternalServerError", "ServiceUnavailable", "ServiceUnavailableException", "RequestTimeout", "RequestTimeoutException":
		return CodeUnavailable
	case "AccessDeniedException", "AccessDenied", "NotAuthorized", "UnauthorizedOperation", "OptInRequired", "InvalidGrantTokenException",
		"UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch",
		"IncompleteSignature", "IncompleteSignatureException", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
		"ExpiredToken", "ExpiredTokenException", "RequestExpired":
		return CodeAccessDenied
	case "DisabledException", "KMSInvalidStateException", "InvalidKeyUsageException":
		return CodeKeyUnusable
	case "NotFoundException":
		return CodeKeyNotFound
	case "UnsupportedOperationException", "ValidationException":
		return CodeKeyUnsupported
	case "InvalidArnException":
		return CodeKeyRefInvalid
	}
	return ""
}

func apiCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// ofCredentials tells whether the error is that of another service, which was asked
// for credentials to sign the request to KMS with.
func ofCredentials(err error) bool {
	var outer, inner *smithy.OperationError
	return errors.As(err, &outer) && errors.As(outer.Err, &inner)
}
