package server

import (
	"context"
	"errors"
	"os"
	"strconv"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom/sandbox"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"golang.org/x/sync/singleflight"
)

// AttestBuild attests a finished build of CodeBuild. Who asks decides nothing but
// whether it is done: the facts are CodeBuild's, and the bytes are those that
// CodeBuild uploaded, hashed here.
func (a *attestationService) AttestBuild(ctx context.Context, req *assayv1.AttestBuildRequest) (*assayv1.AttestBuildResponse, error) {
	if a.builds == nil {
		return nil, refusal.New(CodeCredentialNotConfigured, "this deployment reads the builds of no AWS account").InField("build_arn")
	}
	arn, err := codebuild.ParseBuildARN(req.GetBuildArn())
	if err != nil {
		return nil, inField(err, "build_arn")
	}
	asker := sessionFrom(ctx).caller
	on := policy.Resource{Kind: "Build", ID: req.GetBuildArn(), Attributes: map[string]string{
		"account": policy.AWSAccount(arn.Partition, arn.Account), "tenant": awsTenant(arn.Partition, arn.Account), "platform": "codebuild",
	}}
	if err := a.authorizer.authorize(ctx, assayv1.AttestationService_AttestBuild_FullMethodName, asker, "attestBuild", on); err != nil {
		return nil, err
	}
	if result, err := a.attestedBuild(ctx, req.GetBuildArn()); result != nil || err != nil {
		return &assayv1.AttestBuildResponse{Result: result}, err
	}
	result, err := together(ctx, &a.fetching, req.GetBuildArn(), func(ctx context.Context) (*assayv1.AttestResult, error) {
		return a.fetchBuild(ctx, asker, req.GetBuildArn())
	})
	if err != nil {
		return nil, err
	}
	return &assayv1.AttestBuildResponse{Result: result}, nil
}

// together has those who ask for a build at the same time share one fetch. It goes on
// when the first of them goes away, as long as it may take at most. Where there was no
// place for the first, each of the others has a share of its own and asks with that.
func together(ctx context.Context, group *singleflight.Group, arn string, fetch func(context.Context) (*assayv1.AttestResult, error)) (*assayv1.AttestResult, error) {
	for {
		own := false
		v, err, _ := group.Do(arn, func() (any, error) {
			own = true
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), buildDeadline)
			defer cancel()
			return fetch(ctx)
		})
		code := refusal.CodeOf(err)
		if !own && (code == CodeOverloaded || code == sandbox.CodeScannerBusy) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		return v.(*assayv1.AttestResult), nil
	}
}

// fetchBuild reads the build and what it uploaded, and attests it. A fetch takes a
// place among the uploads: both read and hash as fast as they can.
func (a *attestationService) fetchBuild(ctx context.Context, asker *identity.Caller, arn string) (*assayv1.AttestResult, error) {
	release, err := a.uploads.acquire(ctx, shareOf(asker), tenantOf(asker))
	if err != nil {
		return nil, err
	}
	defer release()
	build, err := a.builds.Finished(ctx, arn)
	if err != nil {
		return nil, err
	}
	dir, err := a.uploads.spool.session()
	if err != nil {
		return nil, spoolError(err)
	}
	defer os.RemoveAll(dir)
	kept := 0
	objects, err := a.builds.Fetch(ctx, build, a.uploads.maxBytes, attest.MaxSubjects, func() (codebuild.Copy, error) {
		kept++
		return a.uploads.spool.file(dir, strconv.Itoa(kept))
	})
	if err != nil {
		return nil, err
	}
	subjects := fetchedSubjects(objects)
	scans := a.scans.begin(ctx, partyOf(asker), dir)
	defer scans.abandon()
	for i, o := range objects {
		if err := scans.add(ctx, o.Path, subjects[i]); err != nil {
			return nil, err
		}
	}
	found, err := scans.wait()
	if err != nil {
		return nil, err
	}
	result, err := a.attest(ctx, a.postBuildCaller(build, objects), subjects, partyOf(asker), found)
	if err != nil {
		return nil, err
	}
	a.fetched.Add(arn, result.GetAttestation().GetAttestationId())
	return result, nil
}

// attestedBuild is the attestation of a build that was fetched before: a finished
// build does not change, and fetching it again could only cost. nil, nil where it
// is not remembered, or where its row is gone.
func (a *attestationService) attestedBuild(ctx context.Context, arn string) (*assayv1.AttestResult, error) {
	id, ok := a.fetched.Get(arn)
	if !ok {
		return nil, nil
	}
	row, err := a.store.Attestation(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, made, err := attestationResource(row)
	if err != nil {
		return nil, err
	}
	out, err := attestationOf(row, made, a.writer)
	return &assayv1.AttestResult{Attestation: out, Repeated: true}, err
}

// postBuildCaller is the build that speaks through its record.
func (a *attestationService) postBuildCaller(b *codebuild.Build, objects []codebuild.Object) *identity.Caller {
	confirmed := len(objects) > 0
	for _, o := range objects {
		confirmed = confirmed && o.Confirmed
	}
	return identity.NewCodeBuildCaller(identity.ModePostBuild, b, confirmed, a.sandboxAWS)
}

func fetchedSubjects(objects []codebuild.Object) []store.Subject {
	out := make([]store.Subject, len(objects))
	for i, o := range objects {
		out[i] = store.Subject{
			Name: o.Name, SHA256: o.SHA256, SHA512: o.SHA512, Size: o.Size,
			Kind: int(assayv1.ArtifactKind_ARTIFACT_KIND_FILE), Origin: int(assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED),
		}
	}
	return out
}
