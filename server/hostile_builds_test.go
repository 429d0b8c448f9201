package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
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
