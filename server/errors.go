package server

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing/awskms"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog/posix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// ErrorDomain is the domain of every google.rpc.ErrorInfo this service sends.
const ErrorDomain = "assay.build"

// Codes of refusals that this package makes itself.
const (
	CodeInternal         refusal.Code = "INTERNAL"
	CodeRequestInvalid   refusal.Code = "REQUEST_INVALID"
	CodeUnknownField     refusal.Code = "UNKNOWN_FIELD"
	CodeSessionMissing   refusal.Code = "SESSION_MISSING"
	CodeOverloaded       refusal.Code = "OVERLOADED"
	CodeShuttingDown     refusal.Code = "SHUTTING_DOWN"
	CodeDeadlineExceeded refusal.Code = "DEADLINE_EXCEEDED"
	CodeCanceled         refusal.Code = "CANCELED"
	CodeNotImplemented   refusal.Code = "NOT_IMPLEMENTED"
	CodeMethodUnknown    refusal.Code = "METHOD_UNKNOWN"
	CodeMessageTooLarge  refusal.Code = "MESSAGE_TOO_LARGE"
)

// statusOf turns an error of the inner packages into the status that leaves the
// service. A refusal keeps its code and, unless it carries the words of something
// that the service depends on, its text. Anything else is INTERNAL: its text stays
// in the log, since it may name files or hosts.
func statusOf(ctx context.Context, logger *slog.Logger, err error) error {
	if err == nil {
		return nil
	}
	var r *refusal.Error
	if errors.As(err, &r) {
		code := statusCode(r.Code)
		if code == codes.Internal {
			logger.ErrorContext(ctx, "internal error", "reason", string(r.Code), "error", r.Detail)
			r = refusal.New(r.Code, "internal error; the service's log has the details")
		}
		if text := dependencyText(r); code == codes.Unavailable && text != "" {
			logger.WarnContext(ctx, "unavailable", "reason", string(r.Code), "error", r.Detail)
			r = refusal.New(r.Code, "%s", text)
		}
		return withDetails(code, r)
	}
	if st, ok := status.FromError(err); ok && st.Code() != codes.Unknown {
		return withReason(st)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return withDetails(codes.DeadlineExceeded, refusal.New(CodeDeadlineExceeded, "the deadline passed"))
	case errors.Is(err, context.Canceled):
		return withDetails(codes.Canceled, refusal.New(CodeCanceled, "the call was cancelled"))
	}
	logger.ErrorContext(ctx, "internal error", "error", err.Error())
	return withDetails(codes.Internal, refusal.New(CodeInternal, "internal error; the service's log has the details"))
}

// dependencyText is what a caller is told of a refusal whose own text quotes a
// dependency, "" for others.
func dependencyText(r *refusal.Error) string {
	switch {
	case r.Code == identity.CodeIssuerUnavailable:
		return "the keys of the token's issuer cannot be had at the moment"
	case r.Code == posix.CodeSignFailed:
		return "the log's key cannot sign at the moment"
	case r.Code == ca.CodeNoIntermediate:
		return "no certificate can be issued at the moment"
	case strings.HasPrefix(string(r.Code), "KMS_"), r.Code == awskms.CodeKeyRefInvalid:
		return "the signing key in AWS KMS cannot be used at the moment"
	case strings.HasPrefix(string(r.Code), "SIGNER_"), strings.HasPrefix(string(r.Code), "NOTARY_"):
		return "AWS Signer does not sign at the moment"
	case strings.HasPrefix(string(r.Code), "TSA_"), strings.HasPrefix(string(r.Code), "TIMESTAMP_"):
		return "the timestamp authority cannot be used at the moment"
	case r.Err != nil:
		return "a part of the service is not available at the moment"
	}
	return ""
}

// withReason gives a status that grpc or generated code made its ErrorInfo, so
// that a client finds a reason in every error.
func withReason(st *status.Status) error {
	if len(st.Details()) > 0 {
		return st.Err()
	}
	reason := CodeInternal
	switch st.Code() {
	case codes.Unimplemented:
		reason = CodeNotImplemented
	case codes.ResourceExhausted:
		reason = CodeMessageTooLarge
	case codes.DeadlineExceeded:
		reason = CodeDeadlineExceeded
	case codes.Canceled:
		reason = CodeCanceled
	case codes.InvalidArgument:
		reason = CodeRequestInvalid
	case codes.NotFound:
		reason = store.CodeNotFound
	case codes.Unavailable:
		reason = CodeShuttingDown
	}
	return withDetails(st.Code(), refusal.New(reason, "%s", st.Message()))
}

func withDetails(code codes.Code, r *refusal.Error) error {
	st := status.New(code, r.Error())
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: string(r.Code), Domain: ErrorDomain}}
	if r.Field != "" {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: r.Field, Description: r.Detail, Reason: string(r.Code)},
		}})
	}
	if code == codes.Unavailable {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryDelay)})
	}
	if st2, err := st.WithDetails(details...); err == nil {
		st = st2
	}
	return st.Err()
}

func errUnknownMethod() error {
	return withDetails(codes.Unimplemented, refusal.New(CodeMethodUnknown, "no such method"))
}
