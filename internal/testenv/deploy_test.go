package testenv_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/stsproof"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/aws/aws-sdk-go-v2/aws"
	cbtypes "github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	deployDir     = "../../docs/deploy"
	serviceID     = "999988887777"
	deployRegion  = "eu-central-1"
	readerDenied  = "CODEBUILD_READER_DENIED"
	attesterRole  = "assay-attest-build"
	serviceRole   = "assayd"
	readerRole    = "assay-reader"
	artifactsOf   = "acme-%s-artifacts"
	buildRoleOf   = "codebuild-%s"
	inJob, atRest = "in the job", "after the build"
)

// deployment is what docs/deploy says, done on a stand-in for AWS: the roles may do
// what its policies say and nothing else, and the server has its configuration.
type deployment struct {
	world           *awstest.World
	service, reader *awstest.Role
	attester        *awstest.Role
	projects        map[string]*awstest.BuildProject
	server          *testenv.Env
	conn            *grpc.ClientConn
}

// readme returns the configuration of docs/deploy/README.md that has a key.
func readme(t testing.TB, key string) *server.Config {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployDir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range strings.Split(string(text), "```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if !strings.Contains(block, "\n"+key+":") {
			continue
		}
		path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.yaml", i))
		if err := os.WriteFile(path, []byte(block), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := server.LoadConfig(path)
		if err != nil {
			t.Fatalf("the README's %s: %v", key, err)
		}
		return c
	}
	t.Fatalf("the README has no configuration with %s", key)
	return nil
}

// deploy applies the policies, each as edit leaves it.
func deploy(t testing.TB, edit func(template string, doc *iamPolicy)) *deployment {
	t.Helper()
	account := readme(t, "aws").AWS.Accounts[0]
	w, err := awstest.New(awstest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	home, away := w.Account(serviceID), w.Account(account.ID)
	policy := func(template string, vars map[string]any) *iamPolicy {
		doc := parsePolicy(t, template, vars)
		if edit != nil {
			edit(template, doc)
		}
		return doc
	}
	d := &deployment{world: w, projects: map[string]*awstest.BuildProject{}}
	d.service = home.Role(serviceRole, trusting(policy("service-trust-ecs.json", map[string]any{"partition": "aws", "account_id": serviceID})))
	d.reader = away.Role(readerRole, trusting(policy("reader-trust.json", map[string]any{
		"service_role_arn": d.service.ARN(), "external_id": account.ExternalID,
	})))
	if d.reader.ARN() != account.ReaderRoleARN {
		t.Fatalf("the README's reader is %s, Terraform's %s", account.ReaderRoleARN, d.reader.ARN())
	}
	var projects, roles, buckets, objects []string
	for _, name := range account.CodeBuildProjects {
		arn := fmt.Sprintf("arn:aws:codebuild:%s:%s:project/%s", deployRegion, account.ID, name)
		role := away.Role(fmt.Sprintf(buildRoleOf, name), trusting(policy("codebuild-trust.json", map[string]any{
			"account_id": account.ID, "project_arns": []string{arn},
		})))
		bucket := away.Bucket(deployRegion, fmt.Sprintf(artifactsOf, name), awstest.Versioned(true))
		d.projects[name] = away.Project(deployRegion, awstest.Project{Name: name, ServiceRole: role, Artifacts: cbtypes.ProjectArtifacts{
			Type: cbtypes.ArtifactsTypeS3, Location: aws.String(bucket.Name()), Name: aws.String("app.zip"),
			Packaging: cbtypes.ArtifactPackagingZip, NamespaceType: cbtypes.ArtifactNamespaceBuildId,
		}})
		if d.projects[name].ARN != arn {
			t.Fatalf("the project is %s, Terraform's %s", d.projects[name].ARN, arn)
		}
		projects, roles, buckets, objects = append(projects, arn), append(roles, role.ARN()), append(buckets, bucket.ARN()), append(objects, bucket.ARN()+"/*")
	}
	d.attester = away.Role(attesterRole, awstest.TrustService("codebuild.amazonaws.com"))
	grant(t, d.service, policy("service.json", map[string]any{"reader_role_arns": []string{d.reader.ARN()}}))
	grant(t, d.reader, policy("reader-builds.json", map[string]any{"project_arns": projects}))
	grant(t, d.reader, policy("reader-roles.json", map[string]any{"build_role_arns": roles}))
	grant(t, d.reader, policy("reader-artifacts.json", map[string]any{"bucket_arns": buckets, "object_arns": objects}))
	d.serve(t, readme(t, "aws").AWS)
	return d
}

func trusting(doc *iamPolicy) awstest.RoleOption { return awstest.TrustPolicy(doc.String()) }

// grant allows what a policy without conditions allows.
func grant(t testing.TB, role *awstest.Role, doc *iamPolicy) {
	t.Helper()
	for _, s := range doc.Statement {
		if s.Effect != "Allow" || s.Condition != nil || s.Principal != nil {
			t.Fatalf("statement %s cannot be given to a role of the stand-in", s.Sid)
		}
		for _, action := range s.Action {
			role.AllowOn(action, s.Resource...)
		}
	}
}

func (d *deployment) serve(t testing.TB, conf server.AWSConf) {
	t.Helper()
	d.server = testenv.New(t, func(c *server.Config) {
		clients := d.world.AWSConfig(d.service.Session("task"), deployRegion)
		c.AWS, c.AWSClients, c.AWSTransport, c.SandboxAWS = conf, &clients, d.world.Transport(), false
		c.Log.CheckpointInterval = 100 * time.Millisecond
	})
	conn, err := grpc.NewClient("passthrough:"+strings.TrimPrefix(d.server.Server, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	d.conn = conn
}

// prove opens a session by an STS proof.
func (d *deployment) prove(t testing.TB, creds aws.Credentials, build string) (*assayv1.ExchangeResponse, error) {
	t.Helper()
	ids := assayv1.NewIdentityServiceClient(d.conn)
	ch, err := ids.Challenge(t.Context(), &assayv1.ChallengeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := stsproof.Sign(t.Context(), creds, deployRegion, ch.GetAudience(), ch.GetNonce(), build, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ids.Exchange(t.Context(), &assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_StsProof{StsProof: &assayv1.StsProof{
		AccessKeyId: p.AccessKeyID, Region: p.Region, Date: p.Date, SessionToken: p.SessionToken,
		Signature: p.Signature, Nonce: p.Nonce, BuildId: p.BuildID,
	}}})
}

// steps takes every step that the policies are for, with a build of each project,
// and returns the reason codes of those that were refused, empty for the others.
func (d *deployment) steps(t testing.TB) map[string]string {
	t.Helper()
	got := map[string]string{}
	asker, err := d.prove(t, d.attester.Session("build"), "")
	if err != nil {
		t.Fatalf("a role that is allowed by name needs no permission: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+asker.GetSessionToken())
	for name, p := range d.projects {
		running := p.StartBuild(awstest.StartBuild{})
		running.Advance(cbtypes.BuildPhaseTypeBuild)
		resp, err := d.prove(t, running.Credentials(), running.ID)
		got[name+" "+inJob] = reasonOf(t, err)
		if c := resp.GetCaller(); err == nil && (c.GetCodebuild().GetBuildArn() != running.ARN || c.GetSlsaBuildLevel() != 2) {
			t.Errorf("caller %v", c)
		}
		ended := p.StartBuild(awstest.StartBuild{})
		up := ended.Upload("app", []byte("the app"))[0]
		ended.Finish(cbtypes.StatusTypeSucceeded)
		got[name+" "+atRest] = d.attestBuild(t, ctx, ended, up)
	}
	return got
}

func (d *deployment) attestBuild(t testing.TB, ctx context.Context, b *awstest.Build, up awstest.Uploaded) string {
	t.Helper()
	resp, err := assayv1.NewAttestationServiceClient(d.conn).AttestBuild(ctx, &assayv1.AttestBuildRequest{BuildArn: b.ARN})
	if a := resp.GetResult().GetAttestation(); err == nil &&
		(len(a.GetSubjects()) != 1 || a.GetSubjects()[0].GetDigest()["sha256"] != up.SHA256 || a.GetSlsaBuildLevel() != 3) {
		t.Errorf("attestation %v", a)
	}
	return reasonOf(t, err)
}

func reasonOf(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	t.Fatalf("a refusal without a reason: %v", err)
	return ""
}

// needs says which steps each permission of docs/deploy/policies is for.
func needs() map[string][]string {
	both := []string{inJob, atRest}
	return map[string][]string{
		"sts:AssumeRole":             both,
		"codebuild:BatchGetBuilds":   both,
		"codebuild:BatchGetProjects": both,
		"iam:GetRole":                {inJob},
		"s3:ListBucketVersions":      {atRest},
		"s3:GetObjectVersion":        {atRest},
	}
}

// TestDeployment: with the permissions of docs/deploy everything works, and each
// action, and each resource, is needed for what its table says and for nothing else.
func TestDeployment(t *testing.T) {
	t.Parallel()
	type removal struct{ template, action, resource string }
	var removals []removal
	whole := deploy(t, func(template string, doc *iamPolicy) {
		for _, s := range doc.Statement {
			if s.Principal != nil {
				continue
			}
			for _, action := range s.Action {
				removals = append(removals, removal{template: template, action: action})
			}
			for _, resource := range s.Resource {
				removals = append(removals, removal{template, strings.Join(s.Action, " "), resource})
			}
		}
	})
	for step, reason := range whole.steps(t) {
		if reason != "" {
			t.Errorf("%s: %s", step, reason)
		}
	}
	// Nothing but these was asked of AWS: a call that is not in the policies would
	// have failed, and one that failed unnoticed would be here.
	for _, r := range whole.world.Requests("", "") {
		if r.Status != 200 {
			t.Errorf("%s %s was answered with %d %s", r.Service, r.Action, r.Status, r.Code)
		}
	}
	if want := len(needs()) + 1 + 4*len(whole.projects); len(removals) != want {
		t.Errorf("%d actions and resources, want %d", len(removals), want)
	}
	for _, r := range removals {
		t.Run(strings.TrimSpace(r.action+" "+r.resource), func(t *testing.T) {
			t.Parallel()
			action := strings.Fields(r.action)[0]
			if needs()[action] == nil {
				t.Fatal("this is for no step")
			}
			got := deploy(t, func(template string, doc *iamPolicy) {
				if template == r.template {
					doc.without(r.action, r.resource)
				}
			}).steps(t)
			for step, reason := range got {
				project, kind, _ := strings.Cut(step, " ")
				affected := r.resource == "" || strings.HasSuffix(r.resource, ":project/"+project) ||
					strings.HasSuffix(r.resource, fmt.Sprintf(":role/"+buildRoleOf, project)) ||
					strings.Contains(r.resource, fmt.Sprintf(":::"+artifactsOf, project)) || strings.HasSuffix(r.resource, ":role/"+readerRole)
				want := ""
				if affected && slices.Contains(needs()[action], kind) {
					want = readerDenied
				}
				if reason != want {
					t.Errorf("%s: reason %q, want %q", step, reason, want)
				}
			}
		})
	}
}

// TestReaderTrust: nobody becomes the reader but the service, and the service not
// without the account's external id.
func TestReaderTrust(t *testing.T) {
	t.Parallel()
	d := deploy(t, nil)
	id := readme(t, "aws").AWS.Accounts[0].ExternalID
	home, away := d.service.Account(), d.reader.Account()
	other := home.Role("other", awstest.TrustService("ecs-tasks.amazonaws.com"))
	neighbour := away.Role("neighbour", awstest.TrustService("ecs-tasks.amazonaws.com"))
	elsewhere := d.world.Account("222233334444").Role(serviceRole, awstest.TrustService("ecs-tasks.amazonaws.com"))
	for _, r := range []*awstest.Role{other, neighbour, elsewhere} {
		r.Allow("sts:AssumeRole")
	}
	home.AllowUser("alice", "sts:AssumeRole")
	service := d.service.Session("task")
	for name, c := range map[string]struct {
		creds aws.Credentials
		id    *string
		want  bool
	}{
		"the service":               {service, &id, true},
		"no external id":            {service, nil, false},
		"another external id":       {service, aws.String(id[:len(id)-1] + "0"), false},
		"it in capitals":            {service, aws.String(strings.ToUpper(id)), false},
		"more than it":              {service, aws.String(id + "x"), false},
		"a pattern":                 {service, aws.String(id[:8] + "="), false},
		"a role beside it":          {other.Session("x"), &id, false},
		"a role of the builds":      {neighbour.Session("x"), &id, false},
		"its namesake":              {elsewhere.Session("task"), &id, false},
		"a user of its account":     {home.User("alice"), &id, false},
		"the root of its account":   {home.Root(), &id, false},
		"the root of the account":   {away.Root(), &id, false},
		"somebody who is federated": {home.Federated("assayd"), &id, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sts.NewFromConfig(d.world.AWSConfig(c.creds, deployRegion)).AssumeRole(t.Context(), &sts.AssumeRoleInput{
				RoleArn: aws.String(d.reader.ARN()), RoleSessionName: aws.String("assay"), ExternalId: c.id,
			})
			if (err == nil) != c.want || err != nil && !strings.Contains(err.Error(), "AccessDenied") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestServiceTrusts: the services that hand out the other roles may do so for what
// the policies name, and for nothing else. CodeBuild's is accepted by Assay itself
// in TestDeployment.
func TestServiceTrusts(t *testing.T) {
	t.Parallel()
	w, err := awstest.New(awstest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	const (
		project = "arn:aws:codebuild:eu-central-1:111122223333:project/app"
		rule    = "arn:aws:events:eu-central-1:111122223333:rule/assay-attest-build"
		task    = "arn:aws:ecs:eu-central-1:111122223333:task/x/1"
	)
	here := func(arn string) awstest.ServiceContext {
		return awstest.ServiceContext{SourceAccount: testenv.AWSAccount, SourceARN: arn}
	}
	for template, c := range map[string]struct {
		vars    map[string]any
		service string
		source  awstest.ServiceContext
		refused []awstest.ServiceContext
	}{
		"codebuild-trust.json": {map[string]any{"account_id": testenv.AWSAccount, "project_arns": []string{project, project + "2"}}, "codebuild.amazonaws.com", here(project),
			[]awstest.ServiceContext{{}, here(""), here(project + "3"), here(strings.Replace(project, "eu-central-1", "us-east-1", 1)), {SourceAccount: serviceID, SourceARN: project}}},
		"events-trust.json": {map[string]any{"account_id": testenv.AWSAccount, "rule_arn": rule}, "events.amazonaws.com", here(rule),
			[]awstest.ServiceContext{{}, here(""), here(rule + "2"), {SourceAccount: serviceID, SourceARN: rule}}},
		"service-trust-ecs.json": {map[string]any{"account_id": testenv.AWSAccount, "partition": "aws"}, "ecs-tasks.amazonaws.com", here(task),
			[]awstest.ServiceContext{{}, here(""), here(strings.Replace(task, testenv.AWSAccount, serviceID, 1)), {SourceAccount: serviceID, SourceARN: task}}},
		"service-trust-ec2.json": {map[string]any{}, "ec2.amazonaws.com", awstest.ServiceContext{}, nil},
	} {
		t.Run(template, func(t *testing.T) {
			role := w.Account(testenv.AWSAccount).Role(template, trusting(parsePolicy(t, template, c.vars)))
			if _, err := role.AssumeByService(c.service, "s", c.source); err != nil {
				t.Error(err)
			}
			for _, about := range c.refused {
				if _, err := role.AssumeByService(c.service, "s", about); err == nil {
					t.Errorf("%s assumed it for %+v", c.service, about)
				}
			}
			for _, other := range []string{"codebuild.amazonaws.com", "events.amazonaws.com", "ecs-tasks.amazonaws.com", "ec2.amazonaws.com", "lambda.amazonaws.com"} {
				if _, err := role.AssumeByService(other, "s", c.source); err == nil && other != c.service {
					t.Errorf("%s assumed it", other)
				}
			}
			_, err := sts.NewFromConfig(w.AWSConfig(w.Account(testenv.AWSAccount).User("alice"), deployRegion)).AssumeRole(t.Context(), &sts.AssumeRoleInput{
				RoleArn: aws.String(role.ARN()), RoleSessionName: aws.String("AWSCodeBuild-x"),
			})
			if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
				t.Errorf("a person: %v", err)
			}
		})
	}
}
