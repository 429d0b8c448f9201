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
	"github.com/aws/aws-sdk-go-v2/aws"
	cbtypes "github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"google.golang.org/grpc/codes"
)

// company is an account with a project, a bucket and a reader role. without leaves
// one permission of the reader away, "sts:AssumeRole" the service's own.
type company struct {
	id                string
	reader, buildRole *awstest.Role
	project           *awstest.BuildProject
}

func newCompany(cloud *testenv.AWS, id, without string) *company {
	a := cloud.World.Account(id)
	c := &company{id: id, buildRole: a.Role("codebuild-app", awstest.TrustService("codebuild.amazonaws.com"))}
	c.reader = a.Role("assay-reader", awstest.TrustAWS("external-id-"+id, cloud.Service.ARN()))
	bucket := a.Bucket(testenv.AWSRegion, "artifacts-"+id, awstest.Versioned(true))
	c.project = a.Project(testenv.AWSRegion, awstest.Project{
		Name: testenv.AWSProject, ServiceRole: c.buildRole,
		Artifacts: cbtypes.ProjectArtifacts{
			Type: cbtypes.ArtifactsTypeS3, Location: aws.String(bucket.Name()), Name: aws.String("app.zip"),
			Packaging: cbtypes.ArtifactPackagingZip, NamespaceType: cbtypes.ArtifactNamespaceBuildId,
		},
	})
	for action, on := range map[string]string{
		"codebuild:BatchGetBuilds": c.project.ARN, "codebuild:BatchGetProjects": c.project.ARN, "iam:GetRole": c.buildRole.ARN(),
		"s3:GetObject": bucket.ARN() + "/*", "s3:GetObjectVersion": bucket.ARN() + "/*", "s3:ListBucketVersions": bucket.ARN(),
	} {
		if action != without {
			c.reader.AllowOn(action, on)
		}
	}
	if without != "sts:AssumeRole" {
		cloud.Service.AllowOn("sts:AssumeRole", c.reader.ARN())
	}
	return c
}

// withCompanies configures accounts beside the first.
func withCompanies(companies ...*company) func(*server.Config) {
	return func(cfg *server.Config) {
		for _, c := range companies {
			cfg.AWS.Accounts = append(cfg.AWS.Accounts, server.AWSAccountConf{
				ID: c.id, Regions: []string{testenv.AWSRegion}, CodeBuildProjects: []string{testenv.AWSProject},
				ReaderRoleARN: c.reader.ARN(), ExternalID: "external-id-" + c.id, AllowedRoles: []string{"auditor"},
			})
		}
	}
}

func (c *company) running() *awstest.Build { return phase(c.project, cbtypes.BuildPhaseTypeBuild) }

func phase(p *awstest.BuildProject, to cbtypes.BuildPhaseType) *awstest.Build {
	b := p.StartBuild(awstest.StartBuild{})
	b.Advance(to)
	return b
}

// TestBuildClaimed: who signs as a role is one build and no other, while it runs its
// own commands, and where the configuration has its account, region and project.
func TestBuildClaimed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	p := newTrap(cloud)
	twin := newCompany(cloud, "222233334444", "")
	l := w.start(t, withTrap(cloud, p), withCompanies(twin))
	project := func(region, name string) *awstest.BuildProject {
		made := cloud.Account.Project(region, awstest.Project{Name: name, ServiceRole: cloud.BuildRole})
		cloud.Reader.AllowOn("codebuild:BatchGetBuilds", made.ARN)
		cloud.Reader.AllowOn("codebuild:BatchGetProjects", made.ARN)
		return made
	}
	ended := func(status cbtypes.StatusType) *awstest.Build { b := cloud.RunningBuild(); b.Finish(status); return b }
	own := func(b *awstest.Build) claim { return claim{creds: b.Credentials(), build: b.ID} }
	edited := func(change func(*cbtypes.Build)) claim {
		b := cloud.RunningBuild()
		c := own(b)
		b.Edit(change)
		return c
	}
	as := func(r *awstest.Role, b *awstest.Build) claim {
		return claim{creds: r.Session("AWSCodeBuild-" + b.UUID), build: b.ID}
	}
	running := cloud.RunningBuild()
	abroad := phase(project("eu-west-1", testenv.AWSProject), cbtypes.BuildPhaseTypeBuild)
	onlyCodeBuild := awstest.TrustService("codebuild.amazonaws.com")
	foreign := cloud.World.Account(stranger).Role("codebuild-app", onlyCodeBuild)
	theirs := cloud.World.Account(stranger).Project(testenv.AWSRegion, awstest.Project{Name: testenv.AWSProject, ServiceRole: foreign})
	china := cloud.World.AccountIn("aws-cn", "555566667777").Role("codebuild-app", awstest.TrustService("codebuild.amazonaws.com"))

	for _, at := range []cbtypes.BuildPhaseType{cbtypes.BuildPhaseTypeInstall, cbtypes.BuildPhaseTypePreBuild, cbtypes.BuildPhaseTypeBuild, cbtypes.BuildPhaseTypePostBuild} {
		if _, err := l.claims(t, own(phase(cloud.Project, at))); err != nil {
			t.Fatalf("in phase %s: %v", at, err)
		}
	}
	if _, err := l.claims(t, claim{creds: running.Credentials(), build: running.ARN}); err != nil {
		t.Fatalf("by its ARN: %v", err)
	}
	if _, err := l.claims(t, claim{creds: abroad.Credentials(), build: abroad.ID, region: "eu-west-1"}); err != nil {
		t.Fatalf("in the second region: %v", err)
	}
	if _, err := l.claims(t, own(twin.running())); err != nil {
		t.Fatalf("in the second account: %v", err)
	}

	const unauthenticated, denied = codes.Unauthenticated, codes.PermissionDenied
	inARN := func(old, with string) claim {
		return claim{creds: running.Credentials(), build: strings.Replace(running.ARN, old, with, 1)}
	}
	type hostile struct {
		claim  claim
		code   codes.Code
		reason string
	}
	cases := map[string]hostile{
		"another build of the role":     {claim{creds: running.Credentials(), build: cloud.RunningBuild().ID}, unauthenticated, "CODEBUILD_SESSION_MISMATCH"},
		"session with more behind":      {claim{creds: cloud.BuildRole.Session("AWSCodeBuild-" + running.UUID + "x"), build: running.ID}, unauthenticated, "CODEBUILD_SESSION_MISMATCH"},
		"session with more before":      {claim{creds: cloud.BuildRole.Session("xAWSCodeBuild-" + running.UUID), build: running.ID}, unauthenticated, "CODEBUILD_SESSION_MISMATCH"},
		"session in capitals":           {claim{creds: cloud.BuildRole.Session("AWSCODEBUILD-" + running.UUID), build: running.ID}, unauthenticated, "CODEBUILD_SESSION_MISMATCH"},
		"session of the id alone":       {claim{creds: cloud.BuildRole.Session(running.UUID), build: running.ID}, unauthenticated, "CODEBUILD_SESSION_MISMATCH"},
		"id in capitals":                {claim{creds: cloud.BuildRole.Session("AWSCodeBuild-" + strings.ToUpper(running.UUID)), build: "app:" + strings.ToUpper(running.UUID)}, codes.InvalidArgument, "CODEBUILD_BUILD_ID_INVALID"},
		"id without a project":          {claim{creds: running.Credentials(), build: running.UUID}, codes.InvalidArgument, "CODEBUILD_BUILD_ID_INVALID"},
		"a batch":                       {claim{creds: running.Credentials(), build: strings.Replace(running.ARN, ":build/", ":build-batch/", 1)}, codes.InvalidArgument, "CODEBUILD_BUILD_ID_INVALID"},
		"ARN of another account":        {inARN(testenv.AWSAccount, twin.id), codes.InvalidArgument, "CODEBUILD_BUILD_ID_INVALID"},
		"ARN of another region":         {inARN(testenv.AWSRegion, "eu-west-1"), codes.InvalidArgument, "CODEBUILD_BUILD_ID_INVALID"},
		"ARN of another partition":      {inARN("arn:aws:", "arn:aws-cn:"), codes.InvalidArgument, "CODEBUILD_BUILD_ID_INVALID"},
		"no such build":                 {as(cloud.BuildRole, &awstest.Build{UUID: "00000000-0000-4000-8000-000000000000", ID: "app:00000000-0000-4000-8000-000000000000"}), codes.NotFound, "CODEBUILD_BUILD_NOT_FOUND"},
		"build of another region":       {claim{creds: abroad.Credentials(), build: abroad.ID}, codes.NotFound, "CODEBUILD_BUILD_NOT_FOUND"},
		"region that the account lacks": {claim{creds: twin.running().Credentials(), build: "app:" + running.UUID, region: "eu-west-1"}, denied, "AWS_REGION_NOT_ALLOWED"},
		"account that is not ours":      {own(phase(theirs, cbtypes.BuildPhaseTypeBuild)), denied, "AWS_ACCOUNT_NOT_ALLOWED"},
		// The trust policies of these names are believed by now, in both accounts.
		"our build, from a stranger's account": {as(foreign, running), denied, "AWS_ACCOUNT_NOT_ALLOWED"},
		"our build, from another of ours":      {as(twin.buildRole, running), codes.NotFound, "CODEBUILD_BUILD_NOT_FOUND"},
		"another account's role in the record": {edited(func(b *cbtypes.Build) { b.ServiceRole = aws.String(twin.buildRole.ARN()) }), unauthenticated, "CODEBUILD_ROLE_MISMATCH"},
		"another role of the account":          {as(cloud.Account.Role("codebuild-other", onlyCodeBuild), running), unauthenticated, "CODEBUILD_ROLE_MISMATCH"},
		"role with a letter more":              {as(cloud.Account.Role("codebuild-app2", onlyCodeBuild), running), unauthenticated, "CODEBUILD_ROLE_MISMATCH"},
		"role with a letter before":            {as(cloud.Account.Role("xcodebuild-app", onlyCodeBuild), running), unauthenticated, "CODEBUILD_ROLE_MISMATCH"},
		"role in capitals":                     {as(cloud.Account.Role("CODEBUILD-APP", onlyCodeBuild), running), unauthenticated, "CODEBUILD_ROLE_MISMATCH"},
		"role of another path": {edited(func(b *cbtypes.Build) {
			b.ServiceRole = aws.String("arn:aws:iam::111122223333:role/admin/codebuild-app")
		}), unauthenticated, "CODEBUILD_ROLE_MISMATCH"},
		"role of another partition": {claim{creds: china.Session("AWSCodeBuild-" + running.UUID), build: running.ID}, unauthenticated, "AWS_STS_REFUSED"},
		"build that succeeded":      {own(ended(cbtypes.StatusTypeSucceeded)), unauthenticated, "CODEBUILD_NOT_RUNNING"},
		"build that was stopped":    {own(ended(cbtypes.StatusTypeStopped)), unauthenticated, "CODEBUILD_NOT_RUNNING"},
		"build that failed":         {own(ended(cbtypes.StatusTypeFailed)), unauthenticated, "CODEBUILD_NOT_RUNNING"},
		"build that was at fault":   {own(ended(cbtypes.StatusTypeFault)), unauthenticated, "CODEBUILD_NOT_RUNNING"},
		"build that took too long":  {own(ended(cbtypes.StatusTypeTimedOut)), unauthenticated, "CODEBUILD_NOT_RUNNING"},
		"complete, by one field":    {edited(func(b *cbtypes.Build) { b.BuildComplete = true }), unauthenticated, "CODEBUILD_NOT_RUNNING"},
		"ended, by one field":       {edited(func(b *cbtypes.Build) { b.EndTime = aws.Time(w.now()) }), unauthenticated, "CODEBUILD_NOT_RUNNING"},
		"phases that contradict": {edited(func(b *cbtypes.Build) {
			b.Phases = append(b.Phases, cbtypes.BuildPhase{PhaseType: cbtypes.BuildPhaseTypeFinalizing})
		}), unauthenticated, "CODEBUILD_PHASE_NOT_ALLOWED"},
		"no phase":                  {edited(func(b *cbtypes.Build) { b.CurrentPhase = nil }), unauthenticated, "CODEBUILD_PHASE_NOT_ALLOWED"},
		"started later than signed": {edited(func(b *cbtypes.Build) { b.StartTime = aws.Time(w.now().Add(50 * time.Second)) }), unauthenticated, "CODEBUILD_TIME_MISMATCH"},
		"started days ago":          {edited(func(b *cbtypes.Build) { b.StartTime = aws.Time(w.now().Add(-50 * time.Hour)) }), unauthenticated, "CODEBUILD_TIME_MISMATCH"},
		"no start":                  {edited(func(b *cbtypes.Build) { b.StartTime = nil }), codes.FailedPrecondition, "CODEBUILD_RECORD_INVALID"},
		"record of another build":   {edited(func(b *cbtypes.Build) { b.Arn = &running.ARN }), codes.FailedPrecondition, "CODEBUILD_RECORD_INVALID"},
		"record with another id":    {edited(func(b *cbtypes.Build) { b.Id = &running.ID }), codes.FailedPrecondition, "CODEBUILD_RECORD_INVALID"},
		"record of another project": {edited(func(b *cbtypes.Build) { b.ProjectName = aws.String("app2") }), codes.FailedPrecondition, "CODEBUILD_RECORD_INVALID"},
	}
	cases["started later than signed"] = func(h hostile) hostile { h.claim.off = -50 * time.Second; return h }(cases["started later than signed"])
	for _, at := range []cbtypes.BuildPhaseType{
		cbtypes.BuildPhaseTypeQueued, cbtypes.BuildPhaseTypeProvisioning, cbtypes.BuildPhaseTypeDownloadSource,
		cbtypes.BuildPhaseTypeUploadArtifacts, cbtypes.BuildPhaseTypeFinalizing,
	} {
		cases["in phase "+string(at)] = hostile{own(phase(cloud.Project, at)), unauthenticated, "CODEBUILD_PHASE_NOT_ALLOWED"}
	}
	// CodeBreach: a name that contains an allowed one is another name.
	for _, name := range []string{"app2", "xapp", "app-", "App", "ap", "app_app", "other"} {
		b := phase(project(testenv.AWSRegion, name), cbtypes.BuildPhaseTypeBuild)
		cases["of project "+name] = hostile{own(b), denied, "CODEBUILD_PROJECT_NOT_ALLOWED"}
		cases["of project "+name+", claimed for app"] = hostile{claim{creds: b.Credentials(), build: "app:" + b.UUID}, codes.NotFound, "CODEBUILD_BUILD_NOT_FOUND"}
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			before := l.kept(t)
			_, err := l.claims(t, tt.claim)
			wantReason(t, err, tt.code, tt.reason)
			l.unchanged(t, before)
		})
	}
	p.sprung(t)
}

// assumed is a session that a person of the account starts at STS, under a name of
// her choice.
func assumed(t testing.TB, cloud *testenv.AWS, who aws.Credentials, role *awstest.Role, session string) (aws.Credentials, error) {
	t.Helper()
	out, err := sts.NewFromConfig(cloud.World.AWSConfig(who, testenv.AWSRegion)).AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: aws.String(role.ARN()), RoleSessionName: &session,
	})
	if err != nil {
		return aws.Credentials{}, err
	}
	c := out.Credentials
	return aws.Credentials{AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken}, nil
}

// TestChosenSessionName: whoever may assume a build's role can name the session as
// CodeBuild would. So a role that anybody else may assume makes nobody a build: not
// the person, and not the build either.
func TestChosenSessionName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withTrap(cloud, newTrap(cloud)))
	alice := cloud.Account.User("alice")
	cloud.Account.AllowUser("alice", "sts:AssumeRole")
	wide := awstest.TrustPolicy(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"Service":"codebuild.amazonaws.com"},"Action":"sts:AssumeRole"},
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"sts:AssumeRole"}]}`)
	b := cloud.RunningBuild()
	if _, err := assumed(t, cloud, alice, cloud.BuildRole, "AWSCodeBuild-"+b.UUID); err == nil {
		t.Fatal("the stand-in lets anybody assume the role; the test tests nothing")
	}
	l.buildSession(t, b) // from now on the role is believed, for five minutes
	answered := func() (n int) {
		for _, r := range cloud.World.Requests("iam", "GetRole") { // but for those that were signed by the old clock
			n += oneIf(r.Status == http.StatusOK)
		}
		return n
	}
	reads := answered()

	cloud.Account.Role(cloud.BuildRole.Name(), wide)
	creds, err := assumed(t, cloud, alice, cloud.BuildRole, "AWSCodeBuild-"+b.UUID)
	if err != nil {
		t.Fatal(err)
	}
	w.advance(5*time.Minute + time.Second)
	before := l.kept(t)
	for name, c := range map[string]aws.Credentials{"the person": creds, "the build itself": b.Credentials()} {
		_, err := l.claims(t, claim{creds: c, build: b.ID})
		if wantReason(t, err, codes.PermissionDenied, "CODEBUILD_ROLE_TRUST_TOO_WIDE"); t.Failed() {
			t.Error(name)
		}
	}
	l.unchanged(t, before)
	if n := answered() - reads; n != 2 {
		t.Errorf("the trust policy was read %d times for two refusals: a refusal must not be believed", n)
	}
	// Mended, it counts at once.
	cloud.Account.Role(cloud.BuildRole.Name(), awstest.TrustService("codebuild.amazonaws.com"))
	if _, err := l.claims(t, claim{creds: b.Credentials(), build: b.ID}); err != nil {
		t.Errorf("once the role is mended: %v", err)
	}
}

// TestTrustPolicies: every way to let somebody else in is found in the policy.
func TestTrustPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withAWS(cloud))
	const wide, invalid = "CODEBUILD_ROLE_TRUST_TOO_WIDE", "CODEBUILD_ROLE_TRUST_INVALID"
	codeBuild := `{"Effect":"Allow","Principal":{"Service":"codebuild.amazonaws.com"},"Action":"sts:AssumeRole"}`
	for name, tt := range map[string][2]string{
		"everybody":           {`{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}`, wide},
		"every account":       {`{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}`, wide},
		"a user":              {`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/alice"},"Action":"sts:AssumeRole"}`, wide},
		"under a condition":   {`{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}}`, wide},
		"a second service":    {`{"Effect":"Allow","Principal":{"Service":["codebuild.amazonaws.com","lambda.amazonaws.com"]},"Action":"sts:AssumeRole"}`, wide},
		"a look-alike":        {`{"Effect":"Allow","Principal":{"Service":"codebuild.amazonaws.com.evil.example"},"Action":"sts:AssumeRole"}`, wide},
		"web identity":        {`{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com"},"Action":"sts:AssumeRoleWithWebIdentity"}`, wide},
		"all but one":         {`{"Effect":"Allow","NotPrincipal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}`, wide},
		"all actions but one": {`{"Effect":"Allow","Principal":{"Service":"codebuild.amazonaws.com"},"NotAction":"s3:*"}`, wide},
		"any action":          {`{"Effect":"Allow","Principal":{"Service":"codebuild.amazonaws.com"},"Action":"sts:*"}`, wide},
		"unknown element":     {`{"Effect":"Allow","Principal":{"Service":"codebuild.amazonaws.com"},"Action":"sts:AssumeRole","Who":"me"}`, invalid},
		"element twice":       {`{"Effect":"Allow","Effect":"Deny","Principal":{"Service":"codebuild.amazonaws.com"},"Action":"sts:AssumeRole"}`, invalid},
	} {
		t.Run(name, func(t *testing.T) {
			role := cloud.Account.Role("role-"+strings.ReplaceAll(name, " ", "-"), awstest.TrustPolicy(`{"Version":"2012-10-17","Statement":[`+codeBuild+`,`+tt[0]+`]}`))
			cloud.Reader.AllowOn("iam:GetRole", role.ARN())
			b := cloud.RunningBuild()
			b.Edit(func(r *cbtypes.Build) { r.ServiceRole = aws.String(role.ARN()) })
			before := l.kept(t)
			_, err := l.claims(t, claim{creds: role.Session("AWSCodeBuild-" + b.UUID), build: b.ID})
			wantReason(t, err, codes.PermissionDenied, tt[1])
			l.unchanged(t, before)
		})
	}
}

// TestSameNameElsewhere: CVE-2025-11621, CVE-2025-59048. What is believed of a role
// is believed of that role: not of one of its name in another account, and not of one
// that was given its name later.
func TestSameNameElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	twin := newCompany(cloud, "222233334444", "")
	l := w.start(t, withTrap(cloud, newTrap(cloud)), withCompanies(twin))
	everybody := awstest.TrustPolicy(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*","Service":"codebuild.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)
	l.buildSession(t, cloud.RunningBuild()) // believes codebuild-app of the first account

	cloud.World.Account(twin.id).Role("codebuild-app", everybody)
	b := twin.running()
	before := l.kept(t)
	_, err := l.claims(t, claim{creds: twin.buildRole.Session("AWSCodeBuild-" + b.UUID), build: b.ID})
	wantReason(t, err, codes.PermissionDenied, "CODEBUILD_ROLE_TRUST_TOO_WIDE")

	// The role is deleted, and somebody makes another of its name.
	ours := cloud.RunningBuild()
	gone := ours.Credentials()
	cloud.Account.DeleteRole("codebuild-app")
	again := cloud.Account.Role("codebuild-app", everybody)
	if again.UniqueID() == cloud.BuildRole.UniqueID() {
		t.Fatal("the stand-in gave the same id twice; the test tests nothing")
	}
	_, err = l.claims(t, claim{creds: again.Session("AWSCodeBuild-" + ours.UUID), build: ours.ID})
	wantReason(t, err, codes.PermissionDenied, "CODEBUILD_ROLE_TRUST_TOO_WIDE")
	w.advance(5*time.Minute + time.Second)
	_, err = l.claims(t, claim{creds: gone, build: ours.ID})
	wantReason(t, err, codes.Unauthenticated, "AWS_STS_REFUSED")
	// AWS takes a while until it has forgotten a role everywhere.
	cloud.World.Fail(awstest.Fault{
		Service: "sts", Action: "GetCallerIdentity", Times: 1, Header: http.Header{"Content-Type": {"application/json"}},
		Body: []byte(identityAnswer(testenv.AWSAccount, "codebuild-app", "AWSCodeBuild-"+ours.UUID, cloud.BuildRole.UniqueID())),
	})
	_, err = l.claims(t, claim{creds: gone, build: ours.ID})
	wantReason(t, err, codes.Unauthenticated, "CODEBUILD_ROLE_MISMATCH")
	l.unchanged(t, before)

	// A later role that is as narrow as the first is believed for itself.
	cloud.Account.Role("codebuild-app", awstest.TrustService("codebuild.amazonaws.com"))
	if _, err := l.claims(t, claim{creds: again.Session("AWSCodeBuild-" + ours.UUID), build: ours.ID}); err != nil {
		t.Errorf("the later role, made narrow: %v", err)
	}
}

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
				wantReason(t, call.err, codes.Unavailable, "CODEBUILD_READER_DENIED")
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
