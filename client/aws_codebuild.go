package client

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
)

// The variables by which CodeBuild tells a job who it is. They are hints: what the
// service believes comes from the signature and from CodeBuild itself.
const (
	envBuildARN    = "CODEBUILD_BUILD_ARN"
	envRelativeURI = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
	envFullURI     = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
)

const (
	// containerHost serves the credentials of AWS containers, at a relative URI.
	containerHost    = "169.254.170.2"
	containerTimeout = 10 * time.Second
)

func codeBuildIdentity(env func(string) string) (*awsIdentity, error) {
	arn := env(envBuildARN)
	if arn == "" {
		return nil, newError(ErrUnauthenticated, CodeCredentialMissing, "no credential: not in an AWS CodeBuild job (%s is not set)", envBuildARN)
	}
	region, ok := buildRegion(arn)
	if !ok {
		return nil, newError(ErrUnauthenticated, CodeCredentialMissing, "%s is not the ARN of a build: %.200q", envBuildARN, arn)
	}
	id := &awsIdentity{region: region, build: arn}
	var err error
	if id.provider, err = jobCredentials(env); err != nil {
		return nil, err
	}
	id.local = true
	return id, nil
}

// jobCredentials are those that CodeBuild itself gives a job: of the container
// endpoint or, where there is none (compute of AWS Lambda), in the environment.
func jobCredentials(env func(string) string) (aws.CredentialsProvider, error) {
	endpoint := env(envFullURI)
	if relative := env(envRelativeURI); relative != "" {
		endpoint = "http://" + containerHost + relative
		if !strings.HasPrefix(relative, "/") {
			return nil, newError(ErrUnauthenticated, CodeCredentialMissing, "%s is not a path", envRelativeURI)
		}
	}
	if endpoint == "" {
		if env("AWS_ACCESS_KEY_ID") == "" {
			return nil, newError(ErrUnauthenticated, CodeCredentialMissing,
				"this job has no AWS credentials (%s, %s and AWS_ACCESS_KEY_ID are not set); in a container of its own it needs them passed on", envRelativeURI, envFullURI)
		}
		return credentials.NewStaticCredentialsProvider(env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY"), env("AWS_SESSION_TOKEN")), nil
	}
	if err := checkContainerURL(endpoint); err != nil {
		return nil, err
	}
	return endpointcreds.New(endpoint, func(o *endpointcreds.Options) {
		o.Retryer = aws.NopRetryer{} // the session's own retries are enough
		o.HTTPClient = &http.Client{
			Timeout: containerTimeout,
			// What it answers is a secret of this machine: no proxy sees it, and it is
			// asked of nobody else.
			Transport:     &http.Transport{Proxy: nil, DialContext: (&net.Dialer{Timeout: containerTimeout}).DialContext},
			CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("redirect refused") },
		}
	}), nil
}

// checkContainerURL accepts what the AWS SDKs accept: https, or http to this
// machine and to the link-local addresses of containers.
func checkContainerURL(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" || u.User != nil {
		return newError(ErrUnauthenticated, CodeCredentialMissing, "the URI of the container's credentials is not a URL")
	}
	switch host := u.Hostname(); {
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && (isLoopback(host) || host == containerHost || host == "169.254.170.23" || host == "fd00:ec2::23"):
		return nil
	}
	return newError(ErrUnauthenticated, CodeCredentialMissing, "the URI of the container's credentials is neither https nor on this machine")
}
