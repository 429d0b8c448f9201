package codebuild

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/codebuild"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

func TestInJob(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	b := e.start(awstest.StartBuild{StartBuildInput: sdk.StartBuildInput{SourceVersion: aws.String("main")}, Initiator: "codepipeline/app"})
	r := e.New(t)
	for _, id := range []string{b.ID, b.ARN} {
		p := e.proof(b)
		p.BuildID = id
		got, err := r.InJob(ctx(t), p)
		if err != nil {
			t.Fatal(err)
		}
		if got.ARN != b.ARN || got.UUID != b.UUID || got.Project != "app" || got.Account != testAccount || got.ServiceRole != e.role.ARN() ||
			got.Initiator != "codepipeline/app" || got.Source.Commit == "" || got.ProjectChanged || !got.FinishedAt.IsZero() {
			t.Errorf("%+v", got)
		}
		if f := fields(got.Overrides); !slices.Equal(f, []string{"sourceVersion"}) {
			t.Errorf("overrides %v", f)
		}
	}
	// The service reads with the reader role and nothing else, which it assumes by
	// its external id.
	for _, req := range e.world.Requests("codebuild", "") {
		if req.Principal != "arn:aws:sts::"+testAccount+":assumed-role/assay-reader/assay" || req.Host != "codebuild.eu-west-1.amazonaws.com" {
			t.Errorf("%s asked as %s at %s", req.Action, req.Principal, req.Host)
		}
	}
	if n := len(e.world.Requests("iam", "GetRole")); n != 1 {
		t.Errorf("the trust policy was read %d times", n)
	}
	if n := len(e.world.Requests("sts", "AssumeRole")); n != 1 {
		t.Errorf("the reader role was assumed %d times", n)
	}
	quiet(t, "the log", e.log.String(), testExternalID)
}

// TestInJobProof: proofs that are true of somebody, and not of the build named.
func TestInJobProof(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	other := e.account.Project(testRegion, awstest.Project{Name: "other", ServiceRole: e.role}).StartBuild(awstest.StartBuild{})
	other.Advance(types.BuildPhaseTypeBuild)
	b, second := e.start(), e.start()
	e.account.Role("admin", awstest.TrustService(codeBuildService))
	r := e.New(t)
	id := func(s string) func(*Proof) { return func(p *Proof) { p.BuildID = s } }
	for name, c := range map[string]struct {
		edit func(*Proof)
		want refusal.Code
	}{
		"another build of the role": {id(second.ID), CodeSessionMismatch},
		"chosen session name":       {func(p *Proof) { p.SessionName = "alice" }, CodeSessionMismatch},
		"session of a prefix":       {func(p *Proof) { p.SessionName = "AWSCodeBuild-" + b.UUID[:35] }, CodeSessionMismatch},
		"session with more":         {func(p *Proof) { p.SessionName += "x" }, CodeSessionMismatch},
		"session in other case":     {func(p *Proof) { p.SessionName = strings.ToLower(p.SessionName) }, CodeSessionMismatch},
		"no session":                {func(p *Proof) { p.SessionName = "" }, CodeSessionMismatch},
		"another project":           {func(p *Proof) { p.BuildID, p.SessionName = other.ID, "AWSCodeBuild-"+other.UUID }, CodeProjectNotAllowed},
		"no such project":           {id("nope:" + b.UUID), CodeProjectNotAllowed},
		"uuid of another project":   {func(p *Proof) { p.BuildID, p.SessionName = "app:"+other.UUID, "AWSCodeBuild-"+other.UUID }, CodeBuildNotFound},
		"project in other case":     {id("App:" + b.UUID), CodeProjectNotAllowed},
		"project, traversing":       {id("../app:" + b.UUID), CodeBuildIDInvalid},
		"project, wildcard":         {id("*:" + b.UUID), CodeBuildIDInvalid},
		"two ids":                   {id(b.ID + "," + second.ID), CodeBuildIDInvalid},
		"id with line end":          {id(b.ID + "\n"), CodeBuildIDInvalid},
		"no id":                     {id(""), CodeBuildIDInvalid},
		"id of a batch":             {id(strings.Replace(b.ARN, ":build/", ":build-batch/", 1)), CodeBuildIDInvalid},
		"ARN of another account":    {id(strings.Replace(b.ARN, testAccount, otherAccount, 1)), CodeBuildIDInvalid},
		"ARN of another region":     {id(strings.Replace(b.ARN, testRegion, "us-east-1", 1)), CodeBuildIDInvalid},
		"ARN of another partition":  {id(strings.Replace(strings.Replace(b.ARN, "arn:aws:", "arn:aws-cn:", 1), testRegion, "cn-north-1", 1)), CodeBuildIDInvalid},
		"another account":           {func(p *Proof) { p.Account = otherAccount }, CodeAccountNotAllowed},
		"another partition":         {func(p *Proof) { p.Partition = "aws-cn" }, CodeAccountNotAllowed},
		"no account":                {func(p *Proof) { p.Account = "" }, CodeAccountNotAllowed},
		"another region":            {func(p *Proof) { p.Region = "us-east-1" }, CodeBuildNotFound},
		"region not allowed":        {func(p *Proof) { p.Region = "us-west-2" }, CodeRegionNotAllowed},
		"another role":              {func(p *Proof) { p.RoleName = "admin" }, CodeRoleMismatch},
		"role in other case":        {func(p *Proof) { p.RoleName = "CodeBuild-App" }, CodeRoleMismatch},
		"role of the same name":     {func(p *Proof) { p.UniqueID = "AROAZZZZZZZZZZZZZZZZZ" }, CodeRoleMismatch},
		"a user":                    {func(p *Proof) { p.UniqueID = "AIDAZZZZZZZZZZZZZZZZZ" }, CodeRoleMismatch},
		"no unique id":              {func(p *Proof) { p.UniqueID = "" }, CodeRoleMismatch},
		"role, traversing":          {func(p *Proof) { p.RoleName = "../codebuild-app" }, CodeRoleMismatch},
		"signed before the start":   {func(p *Proof) { p.SignedAt = p.SignedAt.Add(-3 * time.Minute) }, CodeTimeMismatch},
		"signed in the future":      {func(p *Proof) { p.SignedAt = p.SignedAt.Add(3 * time.Minute) }, CodeTimeMismatch},
		"never signed":              {func(p *Proof) { p.SignedAt = time.Time{} }, CodeTimeMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := e.proof(b)
			c.edit(&p)
			got, err := r.InJob(ctx(t), p)
			wantCode(t, err, c.want)
			if got != nil {
				t.Error("a refusal comes with a build")
			}
		})
	}
}

// TestInJobState: builds that do not run, or not their own commands.
func TestInJobState(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	r := e.New(t)
	at := func(phase types.BuildPhaseType) func(*awstest.Build) {
		return func(b *awstest.Build) { b.Advance(phase) }
	}
	edit := func(f func(*types.Build)) func(*awstest.Build) {
		return func(b *awstest.Build) { b.Advance(types.BuildPhaseTypeBuild); b.Edit(f) }
	}
	for name, c := range map[string]struct {
		do   func(*awstest.Build)
		want refusal.Code
	}{
		"queued":           {func(*awstest.Build) {}, CodePhaseNotAllowed},
		"provisioning":     {at(types.BuildPhaseTypeProvisioning), CodePhaseNotAllowed},
		"fetching":         {at(types.BuildPhaseTypeDownloadSource), CodePhaseNotAllowed},
		"install":          {at(types.BuildPhaseTypeInstall), ""},
		"pre_build":        {at(types.BuildPhaseTypePreBuild), ""},
		"build":            {at(types.BuildPhaseTypeBuild), ""},
		"post_build":       {at(types.BuildPhaseTypePostBuild), ""},
		"uploading":        {at(types.BuildPhaseTypeUploadArtifacts), CodePhaseNotAllowed},
		"finalizing":       {at(types.BuildPhaseTypeFinalizing), CodePhaseNotAllowed},
		"succeeded":        {at(types.BuildPhaseTypeCompleted), CodeNotRunning},
		"failed":           {func(b *awstest.Build) { b.Advance(types.BuildPhaseTypeBuild); b.Finish(types.StatusTypeFailed) }, CodeNotRunning},
		"complete, yet on": {edit(func(b *types.Build) { b.BuildComplete = true }), CodeNotRunning},
		"ended, yet on":    {edit(func(b *types.Build) { b.EndTime = b.StartTime }), CodeNotRunning},
		"no status":        {edit(func(b *types.Build) { b.BuildStatus = "" }), CodeNotRunning},
		"phase unknown":    {edit(func(b *types.Build) { b.CurrentPhase = aws.String("build") }), CodePhaseNotAllowed},
		"no phase":         {edit(func(b *types.Build) { b.CurrentPhase = nil }), CodePhaseNotAllowed},
		"phase gone by": {edit(func(b *types.Build) {
			b.Phases = append(b.Phases, types.BuildPhase{PhaseType: types.BuildPhaseTypeUploadArtifacts})
		}), CodePhaseNotAllowed},
		"no start":      {edit(func(b *types.Build) { b.StartTime = nil }), CodeRecordInvalid},
		"start to come": {edit(func(b *types.Build) { b.StartTime = aws.Time(b.StartTime.Add(time.Hour)) }), CodeRecordInvalid},
		"days old":      {edit(func(b *types.Build) { b.StartTime = aws.Time(b.StartTime.Add(-49 * time.Hour)) }), CodeTimeMismatch},
		"role elsewhere": {edit(func(b *types.Build) {
			b.ServiceRole = aws.String(strings.Replace(*b.ServiceRole, testAccount, otherAccount, 1))
		}), CodeRoleMismatch},
		"role by name":     {edit(func(b *types.Build) { b.ServiceRole = aws.String("codebuild-app") }), ""},
		"role, other path": {edit(func(b *types.Build) { b.ServiceRole = aws.String("arn:aws:iam::111122223333:role/codebuild-app") }), CodeRoleMismatch},
		"no role":          {edit(func(b *types.Build) { b.ServiceRole = nil }), CodeRoleMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			b := e.project.StartBuild(awstest.StartBuild{})
			c.do(b)
			got, err := r.InJob(ctx(t), e.proof(b))
			wantCode(t, err, c.want)
			if err == nil && got.ServiceRole != e.role.ARN() {
				t.Errorf("role %s", got.ServiceRole)
			}
			// A tag names the build as well as a session does, and its state counts as much.
			want := c.want
			if name == "role, other path" { // a token does not tell the path, and IAM is not asked
				want = ""
			}
			_, err = r.Tagged(ctx(t), Tagged{"aws", testAccount, "codebuild-app", b.ARN})
			wantCode(t, err, want)
		})
	}
}

// TestRoleTrust: the humans and services who could have chosen the session name.
func TestRoleTrust(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	r := e.New(t)
	for name, c := range map[string]struct {
		option awstest.RoleOption
		want   refusal.Code
	}{
		"a human may assume it":   {awstest.TrustAWS("", "arn:aws:iam::"+testAccount+":root"), CodeRoleTrustTooWide},
		"another service may":     {awstest.TrustService(codeBuildService, "lambda.amazonaws.com"), CodeRoleTrustTooWide},
		"nobody may":              {awstest.TrustPolicy(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"sts:AssumeRole"}]}`), CodeRoleTrustInvalid},
		"only CodeBuild, of here": {awstest.TrustPolicy(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"codebuild.amazonaws.com"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"aws:SourceAccount":"111122223333"}}}]}`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			role := e.account.Role("role-"+strings.ReplaceAll(name, " ", "-")[:6], c.option)
			b := e.start(awstest.StartBuild{StartBuildInput: sdk.StartBuildInput{ServiceRoleOverride: aws.String(role.ARN())}})
			p := e.proof(b)
			p.RoleName, p.UniqueID = role.Name(), role.UniqueID()
			for range 2 { // a refusal is no more remembered than it is forgiven
				got, err := r.InJob(ctx(t), p)
				wantCode(t, err, c.want)
				if err == nil && !slices.Contains(fields(got.Overrides), "serviceRole") {
					t.Errorf("overrides %v", fields(got.Overrides))
				}
			}
		})
	}
}

// TestTrustRemembered: trust lasts as long as it is configured to, ends with the
// role, and is never another role's of the same name (CVE-2025-11621, CVE-2025-59048).
func TestTrustRemembered(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	r := e.New(t, func(c *Config) { c.TrustTTL = time.Minute })
	asked := func() int { return len(e.world.Requests("iam", "GetRole")) }
	b := e.start()
	inJob := func(want refusal.Code) {
		t.Helper()
		p := e.proof(b)
		p.UniqueID = e.role.UniqueID()
		_, err := r.InJob(ctx(t), p)
		wantCode(t, err, want)
	}
	inJob("")
	inJob("")
	if asked() != 1 {
		t.Errorf("IAM was asked %d times", asked())
	}
	e.clock.Advance(time.Minute)
	inJob("")
	if asked() != 2 {
		t.Errorf("IAM was asked %d times; trust outlives its time", asked())
	}
	e.clock.Advance(-30 * time.Second) // a clock set back makes nothing younger
	inJob("")
	if asked() != 3 {
		t.Errorf("IAM was asked %d times", asked())
	}
	e.clock.Advance(30 * time.Second)

	// The role is deleted, and made again so that anybody may assume it.
	old := e.proof(b)
	e.account.DeleteRole(e.role.Name())
	e.role = e.account.Role("codebuild-app", awstest.TrustAWS("", "*"), awstest.Path("/service-role/"))
	inJob(CodeRoleTrustTooWide)
	e.clock.Advance(time.Minute)
	old.SignedAt = e.clock.Now()
	_, err := r.InJob(ctx(t), old)
	wantCode(t, err, CodeRoleMismatch)
	e.account.DeleteRole(e.role.Name())
	_, err = r.InJob(ctx(t), old)
	wantCode(t, err, CodeRoleMismatch)
}

// TestSameNames: an account, a project, a role and a build of the same names in
// another configured account have nothing to do with each other.
func TestSameNames(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	twin := e.world.Account(otherAccount)
	reader := e.newReader(twin)
	e.service.AllowOn("sts:AssumeRole", reader.ARN())
	role := twin.Role("codebuild-app", awstest.TrustAWS("", "*"), awstest.Path("/service-role/"))
	project := twin.Project(testRegion, awstest.Project{Name: "app", ServiceRole: role})
	r := e.New(t, func(c *Config) {
		c.Accounts = append(c.Accounts, Account{ID: otherAccount, Regions: []string{testRegion}, Projects: []string{"*"}, ReaderRoleARN: reader.ARN(), ExternalID: testExternalID})
	})
	b := e.start()
	if _, err := r.InJob(ctx(t), e.proof(b)); err != nil {
		t.Fatal(err)
	}
	// Its trust policy was never accepted, though that of its namesake was.
	theirs := project.StartBuild(awstest.StartBuild{})
	theirs.Advance(types.BuildPhaseTypeBuild)
	p := e.proof(theirs)
	p.Account, p.UniqueID = otherAccount, role.UniqueID()
	_, err := r.InJob(ctx(t), p)
	wantCode(t, err, CodeRoleTrustTooWide)
	// Nor can it borrow the unique id that was, not even where CodeBuild gives the
	// role by its name only.
	theirs.Edit(func(b *types.Build) { b.ServiceRole = aws.String("codebuild-app") })
	p.UniqueID = e.role.UniqueID()
	_, err = r.InJob(ctx(t), p)
	wantCode(t, err, CodeRoleMismatch)
	// Nor claim the other's build.
	p.BuildID, p.SessionName = b.ID, "AWSCodeBuild-"+b.UUID
	_, err = r.InJob(ctx(t), p)
	wantCode(t, err, CodeBuildNotFound)
}

func TestTagged(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	b := e.start()
	r := e.New(t)
	good := Tagged{"aws", testAccount, "codebuild-app", b.ARN}
	got, err := r.Tagged(ctx(t), good)
	if err != nil || got.ARN != b.ARN || got.ServiceRole != e.role.ARN() {
		t.Fatalf("%+v, %v", got, err)
	}
	if n := len(e.world.Requests("iam", "")); n != 0 {
		t.Errorf("IAM was asked %d times", n)
	}
	for name, c := range map[string]struct {
		edit func(*Tagged)
		want refusal.Code
	}{
		"another account":   {func(g *Tagged) { g.Account = otherAccount }, CodeBuildIDInvalid},
		"another partition": {func(g *Tagged) { g.Partition = "aws-cn" }, CodeBuildIDInvalid},
		"another role":      {func(g *Tagged) { g.RoleName = "admin" }, CodeRoleMismatch},
		"no role":           {func(g *Tagged) { g.RoleName = "" }, CodeRoleMismatch},
		"only an id":        {func(g *Tagged) { g.BuildARN = b.ID }, CodeBuildIDInvalid},
		"a batch":           {func(g *Tagged) { g.BuildARN = strings.Replace(b.ARN, ":build/", ":build-batch/", 1) }, CodeBuildIDInvalid},
		"another region":    {func(g *Tagged) { g.BuildARN = strings.Replace(b.ARN, testRegion, "us-east-1", 1) }, CodeBuildNotFound},
		"foreign region":    {func(g *Tagged) { g.BuildARN = strings.Replace(b.ARN, testRegion, "us-west-2", 1) }, CodeRegionNotAllowed},
		"another project":   {func(g *Tagged) { g.BuildARN = strings.Replace(b.ARN, "/app:", "/other:", 1) }, CodeProjectNotAllowed},
		"nothing":           {func(g *Tagged) { g.BuildARN = "" }, CodeBuildIDInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := good
			c.edit(&g)
			_, err := r.Tagged(ctx(t), g)
			wantCode(t, err, c.want)
		})
	}
}

// TestOverridden: what StartBuild can do to a project is in the record.
func TestOverridden(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.project.Edit(func(p *types.Project) {
		p.Environment.EnvironmentVariables = []types.EnvironmentVariable{{Name: aws.String("STAGE"), Value: aws.String("prod"), Type: types.EnvironmentVariableTypePlaintext}}
	})
	b := e.start(awstest.StartBuild{Batch: "11111111-2222-4333-8444-555555555555", StartBuildInput: sdk.StartBuildInput{
		BuildspecOverride: aws.String("version: 0.2\nphases: {build: {commands: [\"echo canary\"]}}\n"),
		ImageOverride:     aws.String("evil/image:latest"), PrivilegedModeOverride: aws.Bool(true), InsecureSslOverride: aws.Bool(true),
		SourceLocationOverride: aws.String("https://x:canary@github.com/evil/app.git"), DebugSessionEnabled: aws.Bool(true),
		CacheOverride: &types.ProjectCache{Type: types.CacheTypeLocal, Modes: []types.CacheMode{types.CacheModeLocalCustomCache}},
		EnvironmentVariablesOverride: []types.EnvironmentVariable{
			{Name: aws.String("STAGE"), Value: aws.String("dev")}, {Name: aws.String("API_TOKEN"), Value: aws.String("canary")}, {Name: aws.String("PLAIN"), Value: aws.String("canary")},
		},
	}})
	e.clock.Advance(time.Second)
	e.project.Update(func(p *types.Project) { p.Description = aws.String("changed") })
	got, err := e.New(t).InJob(ctx(t), e.proof(b))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"cache.modes", "cache.type", "debugSession.sessionEnabled", "environment.environmentVariables.API_TOKEN", "environment.environmentVariables.PLAIN",
		"environment.environmentVariables.STAGE", "environment.image", "environment.privilegedMode", "source.buildspec", "source.insecureSsl", "source.location"}
	if !slices.Equal(fields(got.Overrides), want) {
		t.Errorf("overrides %v", fields(got.Overrides))
	}
	if !got.DebugSession || !got.Source.InsecureSSL || !got.Environment.PrivilegedMode || got.CacheType != "LOCAL" || !got.ProjectChanged ||
		got.Source.Location != "https://github.com/evil/app.git" || got.Source.BuildspecSHA256 == "" || !strings.HasSuffix(got.BatchARN, ":build-batch/app:11111111-2222-4333-8444-555555555555") {
		t.Errorf("%+v", got)
	}
	quiet(t, "the record", fmt.Sprintf("%+v", got), "canary")
	quiet(t, "the log", e.log.String(), "canary")
}

func TestFinished(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	r := e.New(t)
	done := func(f func(*types.Build)) func(*awstest.Build) {
		return func(b *awstest.Build) { b.Finish(types.StatusTypeSucceeded); b.Edit(f) }
	}
	for name, c := range map[string]struct {
		do   func(*awstest.Build)
		want refusal.Code
	}{
		"succeeded":       {func(b *awstest.Build) { b.Finish(types.StatusTypeSucceeded) }, ""},
		"running":         {func(*awstest.Build) {}, CodeNotFinished},
		"failed":          {func(b *awstest.Build) { b.Finish(types.StatusTypeFailed) }, CodeNotSucceeded},
		"stopped":         {func(b *awstest.Build) { b.Finish(types.StatusTypeStopped) }, CodeNotSucceeded},
		"timed out":       {func(b *awstest.Build) { b.Finish(types.StatusTypeTimedOut) }, CodeNotSucceeded},
		"status unknown":  {done(func(b *types.Build) { b.BuildStatus = "succeeded" }), CodeNotSucceeded},
		"not complete":    {done(func(b *types.Build) { b.BuildComplete = false }), CodeNotFinished},
		"no end":          {done(func(b *types.Build) { b.EndTime = nil }), CodeRecordInvalid},
		"end before":      {done(func(b *types.Build) { b.EndTime = aws.Time(b.StartTime.Add(-time.Second)) }), CodeRecordInvalid},
		"end to come":     {done(func(b *types.Build) { b.EndTime = aws.Time(b.StartTime.Add(time.Hour)) }), CodeRecordInvalid},
		"role elsewhere":  {done(func(b *types.Build) { b.ServiceRole = aws.String("arn:aws:iam::444455556666:role/x") }), CodeRecordInvalid},
		"another project": {done(func(b *types.Build) { b.ProjectName = aws.String("other") }), CodeRecordInvalid},
		"another id":      {done(func(b *types.Build) { b.Id = aws.String("app:" + testUUID) }), CodeRecordInvalid},
		"another ARN":     {done(func(b *types.Build) { b.Arn = aws.String(testARN.String()) }), CodeRecordInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			b := e.start()
			c.do(b)
			got, err := r.Finished(ctx(t), b.ARN)
			wantCode(t, err, c.want)
			if err == nil && (got.FinishedAt.IsZero() || got.ServiceRole != e.role.ARN() || len(got.Overrides) != 0) {
				t.Errorf("%+v", got)
			}
		})
	}
	for s, want := range map[string]refusal.Code{
		"app:" + testUUID: CodeBuildIDInvalid,
		testARN.String():  CodeBuildNotFound,
		strings.Replace(testARN.String(), testAccount, otherAccount, 1): CodeAccountNotAllowed,
		strings.Replace(testARN.String(), testRegion, "us-west-2", 1):   CodeRegionNotAllowed,
		strings.Replace(testARN.String(), "/app:", "/other:", 1):        CodeProjectNotAllowed,
	} {
		_, err := r.Finished(ctx(t), s)
		wantCode(t, err, want)
	}
}
