package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	cbtypes "github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"google.golang.org/grpc/codes"
)

// TestReaderDenied: of what the reader role may do, each single permission that is
// lacking refuses, and says so; nothing is attested on what could be read.
func TestReaderDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	idp := people(t, w)
	permissions := []string{
		"sts:AssumeRole", "codebuild:BatchGetBuilds", "codebuild:BatchGetProjects", "iam:GetRole",
		"s3:GetObjectVersion", "s3:ListBucketVersions", "",
	}
	var companies []*company
	for i, without := range permissions {
		companies = append(companies, newCompany(cloud, fmt.Sprintf("2000000000%02d", i), without))
	}
	wrongID := newCompany(cloud, "300000000000", "")
	cloud.World.Account(wrongID.id).Role("assay-reader", awstest.TrustAWS("another-external-id", cloud.Service.ARN()))
	l := w.start(t, withAWS(cloud), withPeople(idp), withCompanies(append(companies, wrongID)...))
	attestor := l.session(t, person(idp, "a", "attestor"))
	attest := func(b *awstest.Build) error {
		_, err := assayv1.NewAttestationServiceClient(l.conn).AttestBuild(attestor, &assayv1.AttestBuildRequest{BuildArn: b.ARN})
		return err
	}
	try := func(t *testing.T, c *company, inJob, postBuild bool) {
		before := l.kept(t)
		finished := c.running()
		finished.Upload("app", []byte("the app"))
		finished.Finish(cbtypes.StatusTypeSucceeded)
		running := c.running()
		_, err := l.claims(t, claim{creds: running.Credentials(), build: running.ID})
		for _, call := range []struct {
			name string
			err  error
			ok   bool
		}{{"Exchange", err, inJob}, {"AttestBuild", attest(finished), postBuild}} {
			if !call.ok {
				wantReason(t, call.err, codes.FailedPrecondition, "CODEBUILD_READER_DENIED")
				if strings.Contains(call.err.Error(), "assay-reader") || strings.Contains(call.err.Error(), "assayd") {
					t.Errorf("the error names the service's own role: %v", call.err)
				}
			} else if call.err != nil {
				t.Errorf("%s: %v", call.name, call.err)
			}
		}
		after := l.kept(t)
		if grew := (kept{Sessions: after.Sessions - before.Sessions, Attestations: after.Attestations - before.Attestations}); grew.Sessions != oneIf(inJob) || grew.Attestations != oneIf(postBuild) {
			t.Errorf("%+v more are kept", grew)
		}
	}
	for i, without := range permissions {
		t.Run("without "+without, func(t *testing.T) {
			// A build in its job uploads nothing yet; a finished one has no session to name.
			try(t, companies[i], without == "" || strings.HasPrefix(without, "s3:"), without == "" || without == "iam:GetRole")
		})
	}
	t.Run("with another external id", func(t *testing.T) { try(t, wrongID, false, false) })
}

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestAWSAway: where CodeBuild, IAM, S3 or the reader's STS fail, throttle, lie or go
// elsewhere, nothing is believed; and what failed is not remembered.
func TestAWSAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	idp := people(t, w)
	p := newTrap(cloud)
	l := w.start(t, withTrap(cloud, p), withPeople(idp), func(c *server.Config) { c.AWS.TrustPolicyTTL = time.Nanosecond })
	attestor := l.session(t, person(idp, "a", "attestor"))
	service := assayv1.NewAttestationServiceClient(l.conn)
	inJob := func(b *awstest.Build) error {
		_, err := l.claims(t, claim{creds: b.Credentials(), build: b.ID})
		return err
	}
	postBuild := func(b *awstest.Build) error {
		_, err := service.AttestBuild(attestor, &assayv1.AttestBuildRequest{BuildArn: b.ARN})
		return err
	}
	const away, large = "CODEBUILD_UNAVAILABLE", "CODEBUILD_RECORD_TOO_LARGE"
	faults := map[string]awstest.Fault{
		"throttled":         {Status: 400, Code: "ThrottlingException", Message: "Rate exceeded"},
		"outage":            {Status: 503, Code: "ServiceUnavailable"},
		"internal error":    {Status: 500, Code: "InternalFailure"},
		"connection broken": {CloseConnection: true},
		"broken off":        {Truncate: true},
		"malformed":         {Body: []byte(`<html>{"builds":`), Header: http.Header{"Content-Type": {"text/html"}}},
		"oversized":         {Body: make([]byte, 5<<20), Header: http.Header{"Content-Type": {"application/json"}}},
		"redirect":          {Status: 307, Redirect: "https://evil.example/"},
		"redirect in AWS":   {Status: 308, Redirect: "https://codebuild.us-east-1.amazonaws.com/"},
	}
	for _, call := range []struct {
		service, action string
		try             func(*awstest.Build) error
	}{
		{"sts", "AssumeRole", inJob}, // first: once there are credentials, it is not asked
		{"codebuild", "BatchGetBuilds", inJob}, {"codebuild", "BatchGetProjects", inJob}, {"iam", "GetRole", inJob},
		{"s3", "ListObjectVersions", postBuild}, {"s3", "GetObject", postBuild},
	} {
		for name, fault := range faults {
			t.Run(call.action+" "+name, func(t *testing.T) {
				b := cloud.RunningBuild()
				if call.service == "s3" {
					b = cloud.FinishedBuild(map[string][]byte{"app": []byte("the app")})
				}
				before, hosts := l.kept(t), asked(cloud, "", "")
				fault.Service, fault.Action = call.service, call.action
				cloud.World.Fail(fault)
				err := call.try(b)
				cloud.World.Heal()
				if err == nil {
					t.Fatal("it passed")
				}
				if reason, _ := reasonOf(err); reason == large && name == "oversized" {
					wantReason(t, err, codes.FailedPrecondition, large)
				} else if call.service == "s3" && name == "redirect in AWS" { // S3 says by 308 that a bucket is in another region
					wantReason(t, err, codes.FailedPrecondition, "CODEBUILD_ARTIFACT_INVALID")
				} else if call.action == "GetObject" && (name == "malformed" || name == "oversized") {
					wantReason(t, err, codes.FailedPrecondition, "CODEBUILD_ARTIFACT_CHANGED")
				} else {
					wantReason(t, err, codes.Unavailable, away)
				}
				l.unchanged(t, before)
				for _, r := range cloud.World.Requests("", "")[hosts:] {
					if !strings.Contains(r.Host, testenv.AWSRegion) && !strings.HasPrefix(r.Host, "iam.") {
						t.Errorf("%s was asked", r.Host)
					}
				}
			})
		}
	}
	for name, err := range map[string]error{"in job": inJob(cloud.RunningBuild()), "after it": postBuild(cloud.FinishedBuild(map[string][]byte{"app": []byte("x")}))} {
		if err != nil {
			t.Errorf("%s, once AWS is well: %v", name, err)
		}
	}
	p.sprung(t)
}

// TestRecordsOfMany: an answer that holds more, less or something else than what was
// asked for is not searched for what fits.
func TestRecordsOfMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	l.buildSession(t, cloud.RunningBuild())
	b := cloud.RunningBuild()
	record := func(edit ...string) string {
		r := b.Record()
		text := fmt.Sprintf(`{"arn":%q,"id":%q,"projectName":"app","buildStatus":"IN_PROGRESS","buildComplete":false,"currentPhase":"BUILD","startTime":%d,"serviceRole":%q,`+
			`"source":{"type":"GITHUB","location":"https://github.com/acme/app.git"},"environment":{"type":"LINUX_CONTAINER","image":"x","computeType":"BUILD_GENERAL1_SMALL"}}`,
			b.ARN, b.ID, r.StartTime.Unix(), *r.ServiceRole)
		return strings.NewReplacer(edit...).Replace(text)
	}
	for name, tt := range map[string]struct {
		body   string
		code   codes.Code
		reason string
	}{
		"none":            {`{"builds":[],"buildsNotFound":["` + b.ID + `"]}`, codes.NotFound, "CODEBUILD_BUILD_NOT_FOUND"},
		"nothing":         {`{}`, codes.NotFound, "CODEBUILD_BUILD_NOT_FOUND"},
		"twice":           {`{"builds":[` + record() + `,` + record() + `]}`, codes.Unauthenticated, "CODEBUILD_BUILD_AMBIGUOUS"},
		"found and not":   {`{"builds":[` + record() + `],"buildsNotFound":["x"]}`, codes.Unauthenticated, "CODEBUILD_BUILD_AMBIGUOUS"},
		"null":            {`{"builds":[null]}`, codes.FailedPrecondition, "CODEBUILD_RECORD_INVALID"},
		"another's":       {`{"builds":[` + record(b.UUID, "00000000-0000-4000-8000-000000000000") + `]}`, codes.FailedPrecondition, "CODEBUILD_RECORD_INVALID"},
		"other account's": {`{"builds":[` + record(":111122223333:build", ":222233334444:build") + `]}`, codes.FailedPrecondition, "CODEBUILD_RECORD_INVALID"},
		"no environment":  {`{"builds":[` + record(`,"environment":{"type"`, `,"unknown":{"type"`) + `]}`, codes.FailedPrecondition, "CODEBUILD_RECORD_INVALID"},
		"no source":       {`{"builds":[` + record(`"source":`, `"unknown":`) + `]}`, codes.FailedPrecondition, "CODEBUILD_RECORD_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			before := l.kept(t)
			cloud.World.Fail(awstest.Fault{Service: "codebuild", Action: "BatchGetBuilds", Body: []byte(tt.body), Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}}})
			_, err := l.claims(t, claim{creds: b.Credentials(), build: b.ID})
			cloud.World.Heal()
			wantReason(t, err, tt.code, tt.reason)
			l.unchanged(t, before)
		})
	}
	if _, err := l.claims(t, claim{creds: b.Credentials(), build: b.ID}); err != nil {
		t.Errorf("the honest record: %v", err)
	}
}
