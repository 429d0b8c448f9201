// Package awstest is AWS as far as Assay meets it: STS, IAM, CodeBuild, S3, the
// container-credentials endpoint and the issuers of web identity tokens. It is for
// tests and for the sandbox. It vouches for whatever it is told, so nothing but
// those may believe it.
//
//	w, err := awstest.New(awstest.Config{})
//	defer w.Close()
//	acct := w.Account("111122223333")
//	role := acct.Role("codebuild-app", awstest.TrustService("codebuild.amazonaws.com"))
//	role.Allow("codebuild:BatchGetBuilds").AllowOn("s3:GetObject", "arn:aws:s3:::artifacts/*")
//	client := sts.NewFromConfig(w.AWSConfig(role.Session("AWSCodeBuild-5cb5…"), "eu-west-1"))
//
// # How it is reached
//
// Nothing is told another endpoint. Transport dials every host name of AWS, and
// no other, to one TLS listener on the loopback interface, whose certificates it
// trusts; the SDK, unmodified, signs for the real host. A program that takes no
// transport is led here by HTTPS_PROXY (ProxyURL) and AWS_CA_BUNDLE (CertPEM).
//
// # What it is honest about
//
// Security properties are proved against this package, so it refuses what AWS
// refuses:
//
//   - A request counts for the principal whose keys signed it by Signature Version
//     4, and for nobody if anything signed was changed: method, path, query, signed
//     headers, body. Host, x-amz-date, the session token and, for JSON services,
//     the operation must be signed; for S3, every x-amz header.
//   - Keys are good in their own partition, for the scope's date, region and
//     service, until they expire or their role is deleted. Signatures are good for 5
//     minutes, at STS and S3 for 15, whatever X-Amz-Expires says to STS.
//   - Nothing is allowed to a role or user but what Allow and AllowUser say, except
//     to ask who they are. Accounts, regions and partitions do not see each other.
//   - sts:AssumeRole asks the role's trust policy and the caller's permissions. What
//     it cannot evaluate of a policy trusts nobody.
//   - Answers and errors have the form and code of each protocol: XML, JSON of STS,
//     awsJson1.1, S3.
//
// Session and PinRequestTag are the exceptions that tests need: they do what AWS
// itself or an organization would. Fail and Throttle make AWS fail.
//
// # What it does not know
//
// Session policies, session tags, source identities, MFA, federation into AWS,
// resource policies other than trust policies, signed chunks, SigV4a. A client that
// asks for these is refused. A deleted and remade role
// is another one to STS, but a trust policy that names its ARN still trusts it.
package awstest
