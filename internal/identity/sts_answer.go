package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeSTSRefused: STS does not accept the signature or the credentials.
	CodeSTSRefused refusal.Code = "AWS_STS_REFUSED"
	// CodeSTSThrottled: STS answers fewer questions than are asked. Retryable.
	CodeSTSThrottled refusal.Code = "AWS_STS_THROTTLED"
	// CodeSTSUnavailable: STS could not be reached or failed. Retryable.
	CodeSTSUnavailable refusal.Code = "AWS_STS_UNAVAILABLE"
	// CodeSTSAnswerInvalid: what came back is not what STS answers.
	CodeSTSAnswerInvalid refusal.Code = "AWS_STS_ANSWER_INVALID"
	// CodeAWSPrincipalRefused: AWS vouched for a user, a federated user or an
	// account's root, and not for a role session.
	CodeAWSPrincipalRefused refusal.Code = "AWS_PRINCIPAL_REFUSED"
)

// maxSTSAnswer is a hundred times what STS answers.
const maxSTSAnswer = 64 << 10

// roleSession is what STS said of whoever signed.
type roleSession struct {
	partition, account, role, session string
	uniqueID                          string // AROA…
}

// stsClient asks STS. Whatever is not exactly the expected answer is a refusal:
// there is no outcome in between.
type stsClient struct {
	http    *http.Client
	timeout time.Duration
	log     *slog.Logger
}

func (s *stsClient) callerIdentity(req *http.Request, partition string) (*roleSession, error) {
	ctx, cancel := context.WithTimeout(req.Context(), s.timeout)
	defer cancel()
	who, err := s.roundTrip(req.WithContext(ctx), partition)
	switch code := refusal.CodeOf(err); code {
	case CodeSTSAnswerInvalid, CodeSTSThrottled, CodeSTSUnavailable:
		s.log.WarnContext(req.Context(), "no answer of STS", "host", req.URL.Host, "code", string(code), "error", err)
	}
	return who, err
}

func (s *stsClient) roundTrip(req *http.Request, partition string) (*roleSession, error) {
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, stsUnavailable(req, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSTSAnswer+1))
	if err != nil {
		return nil, stsUnavailable(req, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, stsError(resp, body)
	}
	// STS was told to answer in JSON. An answer of another type may be somebody's
	// text that happens to contain one (CVE-2020-16250).
	if !isJSON(resp.Header.Values("Content-Type")) {
		return nil, refusal.New(CodeSTSAnswerInvalid, "the answer is not of type application/json alone")
	}
	if encoding := resp.Header.Values("Content-Encoding"); len(encoding) > 0 {
		return nil, refusal.New(CodeSTSAnswerInvalid, "the answer is encoded, which was not asked for")
	}
	return parseCallerIdentity(body, partition)
}

// isJSON accepts application/json alone, in UTF-8 if it says: what JSON is in
// anyway (RFC 8259 section 8.1).
func isJSON(types []string) bool {
	if len(types) != 1 {
		return false
	}
	media, params, err := mime.ParseMediaType(types[0])
	charset, has := params["charset"]
	return err == nil && media == "application/json" && (len(params) == 0 || len(params) == 1 && has && strings.EqualFold(charset, "utf-8"))
}

// stsUnavailable tells of the network what is the network's. Other errors may quote
// what was received, and that the request.
func stsUnavailable(req *http.Request, err error) error {
	if ue := (*url.Error)(nil); errors.As(err, &ue) {
		err = ue.Err
	}
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	switch host := req.URL.Host; {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.As(err, &op), errors.As(err, &cert):
		return refusal.New(CodeSTSUnavailable, "%s: %w", host, err)
	default:
		return refusal.New(CodeSTSUnavailable, "%s: the exchange broke off", host)
	}
}

// callerIdentity is the whole answer to GetCallerIdentity.
type callerIdentity struct {
	Response struct {
		Result struct {
			Account string `json:"Account"`
			ARN     string `json:"Arn"`
			UserID  string `json:"UserId"`
		} `json:"GetCallerIdentityResult"`
		Metadata struct {
			RequestID string `json:"RequestId"`
		} `json:"ResponseMetadata"`
	} `json:"GetCallerIdentityResponse"`
}

var (
	reAssumedRole = lazy(`^arn:(aws[a-z-]{0,12}):sts::([0-9]{12}):assumed-role/([A-Za-z0-9_+=,.@-]{1,64})/([A-Za-z0-9_+=,.@-]{2,64})$`)
	// What else GetCallerIdentity can say that somebody is.
	reOtherPrincipal = lazy(`^arn:aws[a-z-]{0,12}:(iam|sts)::[0-9]{12}:(root|user|federated-user)(/|$)`)
	reRoleUniqueID   = lazy(`^AROA[A-Z0-9]{12,124}$`)
)

func parseCallerIdentity(body []byte, partition string) (*roleSession, error) {
	var answer callerIdentity
	if err := attest.DecodeStrict(body, maxSTSAnswer, &answer); err != nil {
		// Not %w: the answer's JSON_… code is not the reason.
		return nil, refusal.New(CodeSTSAnswerInvalid, "the answer is not that of GetCallerIdentity: %v", refusal.CodeOf(err))
	}
	result := answer.Response.Result
	if answer.Response.Metadata.RequestID == "" {
		return nil, refusal.New(CodeSTSAnswerInvalid, "the answer has no request id")
	}
	m := reAssumedRole().FindStringSubmatch(result.ARN)
	if m == nil {
		if other := reOtherPrincipal().FindStringSubmatch(result.ARN); other != nil {
			return nil, refusal.New(CodeAWSPrincipalRefused, "the credentials are of a %s; those of a role session are needed", other[2])
		}
		return nil, refusal.New(CodeSTSAnswerInvalid, "Arn is not of a role session")
	}
	who := &roleSession{partition: m[1], account: m[2], role: m[3], session: m[4]}
	unique, session, _ := strings.Cut(result.UserID, ":")
	switch {
	case who.partition != partition:
		return nil, refusal.New(CodeSTSAnswerInvalid, "Arn is of partition %s, and STS of %s", who.partition, partition)
	case who.account != result.Account:
		return nil, refusal.New(CodeSTSAnswerInvalid, "Account is not that of Arn")
	case session != who.session || !reRoleUniqueID().MatchString(unique):
		return nil, refusal.New(CodeSTSAnswerInvalid, "UserId is not that of the session in Arn")
	}
	who.uniqueID = unique
	return who, nil
}

var (
	// reErrorCode finds the code in an error of STS, JSON or XML. It may be read
	// loosely: whatever it says, the answer is a refusal.
	reErrorCode = lazy(`(?:"Code"\s*:\s*"|<Code>)([A-Za-z.]{1,64})(?:"|</Code>)`)
	// stsErrorCodes are told to the caller. Other text of an answer is not.
	stsErrorCodes = map[string]string{
		"SignatureDoesNotMatch": "the proof was signed for another audience, challenge, build or request, or with other credentials",
		"InvalidClientTokenId":  "the credentials are not known", "UnrecognizedClientException": "the credentials are not known",
		"ExpiredToken": "the credentials have expired", "ExpiredTokenException": "the credentials have expired",
		"RequestExpired": "the signature has expired", "IncompleteSignature": "the signature is not complete",
		"InvalidSignatureException": "the signature is not right", "MissingAuthenticationToken": "the request is not signed",
		"AccessDenied": "access denied", "AccessDeniedException": "access denied",
		"RegionDisabledException": "STS is not enabled in the region", "OptInRequired": "the account may not use the region",
	}
	stsThrottleCodes = []string{"Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
		"RequestLimitExceeded", "TooManyRequestsException", "SlowDown"}
)

// stsError says why there is no identity. None of its outcomes is a pass, and the
// text of the answer, which may quote the request, goes nowhere.
func stsError(resp *http.Response, body []byte) error {
	code := ""
	if m := reErrorCode().FindSubmatch(body); m != nil {
		code = string(m[1])
	}
	switch status := resp.StatusCode; {
	case status == http.StatusTooManyRequests, slices.Contains(stsThrottleCodes, code):
		return refusal.New(CodeSTSThrottled, "STS answered %d: it is asked too often", status)
	case status >= 500, status == http.StatusRequestTimeout:
		return refusal.New(CodeSTSUnavailable, "STS answered %d", status)
	case status < 400:
		// A redirect is not followed: the host is the one of the table.
		return refusal.New(CodeSTSAnswerInvalid, "STS answered %d", status)
	default:
		reason := fmt.Sprintf("STS answered %d", status)
		if text, ok := stsErrorCodes[code]; ok {
			reason += ", " + code + ": " + text
		}
		return refusal.New(CodeSTSRefused, "%s", reason)
	}
}
