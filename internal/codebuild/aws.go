package codebuild

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/codebuild"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/assay-build/assay/internal/boundhttp"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeUnavailable: AWS could not be asked, or did not answer usably. Trying
	// again later may help.
	CodeUnavailable refusal.Code = "CODEBUILD_UNAVAILABLE"
	// CodeReaderDenied: AWS does not let the service read. Its reader role, or the
	// trust or permissions of that, must be mended by who runs the service.
	CodeReaderDenied refusal.Code = "CODEBUILD_READER_DENIED"
)

const (
	readerSession = "assay"
	// readTimeout bounds all that is asked of AWS about one build, retries included.
	readTimeout = 20 * time.Second
	// maxAnswerBytes bounds one answer that is read as a whole. A build and a
	// project have some 10 KiB, with a buildspec inline at most a few hundred.
	maxAnswerBytes = 4 << 20
)

// clients are those of one account and region, with the reader role's credentials.
type clients struct {
	builds *codebuild.Client
	roles  *iam.Client
	store  *s3.Client
}

// newClients shares one cache of the reader role's credentials between regions.
func newClients(base aws.Config, ac Account) map[string]*clients {
	home := base.Copy()
	home.Region = ac.Regions[0]
	reader := aws.NewCredentialsCache(
		stscreds.NewAssumeRoleProvider(sts.NewFromConfig(home), ac.ReaderRoleARN, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = readerSession
			o.ExternalID = aws.String(ac.ExternalID)
		}),
		func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = time.Minute })
	byRegion := make(map[string]*clients, len(ac.Regions))
	for _, region := range ac.Regions {
		cfg := base.Copy()
		cfg.Region, cfg.Credentials = region, reader
		byRegion[region] = &clients{
			builds: codebuild.NewFromConfig(cfg),
			roles:  iam.NewFromConfig(cfg),
			store:  s3.NewFromConfig(cfg),
		}
	}
	return byRegion
}

// failed turns an error of the SDK into a refusal. The error itself goes to the
// log's side only: it names the service's own role, and the caller may be anybody
// in the account.
func (r *Reader) failed(ctx context.Context, what string, err error) error {
	e := refusal.New(CodeUnavailable, "%s could not be read from AWS now", what)
	apiCode := apiErrorCode(err)
	switch {
	case errors.Is(err, boundhttp.ErrTooLong):
		e = refusal.New(CodeRecordTooLarge, "%s: AWS's answer has more than %d bytes", what, maxAnswerBytes)
	case deniedCode(apiCode):
		e = refusal.New(CodeReaderDenied, "AWS does not let this service read %s", what)
	}
	e.Err = err
	r.log.WarnContext(ctx, "codebuild read failed", "what", what, "aws_error", apiCode, "code", string(e.Code))
	return e
}

func apiErrorCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func deniedCode(code string) bool {
	switch code {
	case "AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AllAccessDisabled", "AccountProblem", "OptInRequired":
		return true
	}
	return false
}
