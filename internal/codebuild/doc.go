// Package codebuild reads from AWS itself what a build of CodeBuild is, and
// refuses whatever does not agree.
//
// A build's own environment says what the build wants it to say. So nothing here
// comes from the build but its name: the record comes from codebuild:BatchGetBuilds,
// the project from BatchGetProjects, the role from iam:GetRole and artifacts from
// S3, each asked with a role of the build's account that the service assumes with
// an external id.
//
//	r, err := codebuild.New(codebuild.Config{
//		AWS: awsConfig,
//		Accounts: []codebuild.Account{{
//			ID: "111122223333", Regions: []string{"eu-west-1"}, Projects: []string{"app"},
//			ReaderRoleARN: "arn:aws:iam::111122223333:role/assay-reader", ExternalID: externalID,
//		}},
//	})
//	build, err := r.InJob(ctx, proof) // a running build that called
//	build, err := r.Finished(ctx, "arn:aws:codebuild:eu-west-1:111122223333:build/app:UUID")
//	objects, err := r.Fetch(ctx, build, 1<<30, 1000)
//
// # A build that calls
//
// STS vouches for an account, a role and a session name. CodeBuild names the
// session of a job AWSCodeBuild-UUID, which AWS does not document: the form is
// configuration. InJob accepts a Proof only if, in this order,
//
//  1. account, partition, region and project are configured;
//  2. the session name is exactly that of the claimed build's UUID;
//  3. CodeBuild knows exactly one build of that id, under exactly that ARN;
//  4. it is IN_PROGRESS, in a phase that runs the build's commands, and was
//     started before the proof was signed;
//  5. its service role is the role that signed, by account, name and unique id;
//  6. the trust policy of that role lets nobody but CodeBuild assume it.
//
// The sixth carries the second: whoever else may assume the role can choose the
// session name. What it cannot show is
//
//   - that the policy was always so, or stays so: it is read once in Config.TrustTTL,
//     and a session that was opened while it let somebody else in outlives the
//     change. Who may change the role's trust policy is inside the boundary;
//   - which project CodeBuild assumed the role for: whoever may pass the role to
//     CodeBuild, or change a project that has it or what that builds, can make
//     builds. They are real builds, on record with their own source and overrides;
//   - which of a build's processes called: all of them hold the role's credentials.
//
// Tagged asks for no trust policy, since no session name is relied upon.
//
// # What a record keeps
//
// Values of environment variables stay out unless Config.PlaintextVariables names
// them, and stay out even then where name or value looks like a secret. A secret
// that stands where provenance must be complete (a source location, a branch, an
// image) refuses the record, except user information of a URL, which is removed.
// The build is compared with its project, field by field; each difference is an
// Override. A project changed since the build started makes that comparison
// unsure: Build.ProjectChanged.
//
// What looks like a secret is one of the known forms of tokens and keys, a URL
// with user information, or a value given to a parameter that by its whole name
// holds one (private_token=, sig=, --client-secret), percent-encoded or not. The
// query and fragment of a URL count as such wherever they are: they are not told,
// and refuse the record where it must be complete.
//
// # Artifacts
//
// Fetch reads S3 object versions that were written in the phase UPLOAD_ARTIFACTS,
// from a bucket of the build's own account. Where CodeBuild recorded a digest (packaging
// ZIP) the object must have it. Where it did not, the version is all there is to
// hold on to, so the bucket must keep versions, a key written twice in that time
// is refused, and the objects are not Confirmed: who else may write to the bucket
// could have put them there at the right moment.
//
// # Failure
//
// AWS denying the reader is CODEBUILD_READER_DENIED, and any other failure to ask
// is CODEBUILD_UNAVAILABLE, which a retry may mend. Neither is ever a pass. What
// AWS wrote about it is kept as the error's cause, for the log of the service.
package codebuild

// MaxBuildBytes bounds the stored form of a Build. A build whose facts are larger
// is refused by whatever reads it, before an artifact of it is fetched:
// CODEBUILD_RECORD_TOO_LARGE. A session and an attestation keep a caller of 64 KiB
// at most, which is this much and what a caller says beside it.
const MaxBuildBytes = 48 << 10
