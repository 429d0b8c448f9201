// Package awstest is AWS as far as Assay meets it: STS, IAM, CodeBuild, S3, KMS,
// Signer, the container-credentials endpoint and the issuers of web identity tokens.
// It is for tests and for the sandbox. It vouches for whatever it is told, so nothing
// but those may believe it.
//
//	w, err := awstest.New(awstest.Config{})
//	defer w.Close()
//	acct := w.Account("111122223333")
//	role := acct.Role("codebuild-app", awstest.TrustService("codebuild.amazonaws.com"))
//	role.Allow("codebuild:BatchGetBuilds").AllowOn("s3:GetObject", "arn:aws:s3:::artifacts/*")
//	client := sts.NewFromConfig(w.AWSConfig(role.Session("AWSCodeBuild-5cb5…"), "eu-west-1"))
//
//	key := acct.Key("eu-west-1", "ECC_NIST_P256")
//	acct.Alias("eu-west-1", "alias/assay", key)
//	key.Fault(awstest.KMSFault{FlipBit: true, Times: 1})
//	profile := acct.SigningProfile("eu-west-1", "release", 0)
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
//   - KMS signs with the key that is named, in its own region, if the key's state,
//     usage and spec, the algorithm, and the type and length of the message allow it;
//     the signature is DER for ECDSA, of salt as long as the hash for PSS, of FIPS 204
//     for ML-DSA. A key is used by whom its key policy or a grant names, or whom the
//     IAM of its account allows if the key policy leaves it to it; from another
//     account, only if that account's IAM allows it too. Aliases and grants change
//     after the delay of PropagateKMS.
//   - Signer signs descriptors of at most 4096 bytes, by profiles that are active, as
//     the JWS of the Notary Project's scheme for signing authorities; and tells on its
//     data- host what of a signature is revoked. What it does not know, it refuses to
//     vouch for, which is stricter than AWS is known to be.
//   - Answers and errors have the form and code of each protocol: XML, JSON of STS,
//     awsJson1.1, S3, restJson1. Those of KMS are held to the golden files of its SDK.
//
// Session and PinRequestTag are the exceptions that tests need: they do what AWS
// itself or an organization would. Fail, Throttle and Latency make AWS fail or slow;
// the Fault methods of keys and signing profiles make it lie.
//
// # What it does not know
//
// Session policies, session tags, source identities, MFA, federation into AWS,
// resource policies other than trust policies and lists of who may do what in key
// policies, their conditions, constraints and retiring of grants, signed chunks,
// SigV4a. A client that asks for these is refused. Keys of KMS that are neither RSA nor
// ML-DSA nor on a NIST curve are known by name only; EXTERNAL_MU is signed, not
// verified. Throttle limits KMS by action, where AWS limits it by kind of key. A deleted
// and remade role is another one to STS, but a trust policy that names its ARN still
// trusts it, and a grant still grants.
package awstest
