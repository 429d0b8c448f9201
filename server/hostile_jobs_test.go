package server_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/aws/aws-sdk-go-v2/aws"
	cbtypes "github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// mixedJob is one of many jobs of several platforms. What is in its marks is its
// own: no other job's answer, statement or row may hold one of them.
type mixedJob struct {
	name       string
	builder    string // path
	source     string // beginning of the source URI
	commit     string
	invocation string
	subject    string
	sha256     string
	// open returns the context of the job's session.
	open func(t testing.TB) (context.Context, error)
	// attest attests the job's own subject.
	attest func(ctx context.Context) (*assayv1.AttestResult, error)
	made   *assayv1.Attestation
}

func (j *mixedJob) marks() []string { return []string{j.invocation, j.commit, j.subject, j.sha256} }

// mixture makes the jobs of a test, all of one life.
type mixture struct {
	l     *life
	cloud *testenv.AWS
	jobs  []*mixedJob
}

func commitOf(n int) string { return sha256Hex(fmt.Append(nil, "commit ", n))[:40] }

// add completes a job that brings its own way to open a session, and attests by
// upload or by digest, in turn.
func (m *mixture) add(j *mixedJob) {
	n := len(m.jobs)
	content := fmt.Appendf(nil, "artifact of job %03d", n)
	if j.subject == "" {
		j.subject, j.sha256 = fmt.Sprintf("dist/artifact-%03d.bin", n), sha256Hex(content)
	}
	if j.attest == nil {
		j.attest = func(ctx context.Context) (*assayv1.AttestResult, error) {
			if n%2 == 0 {
				return uploadAll(ctx, m.l.conn, append([]*assayv1.AttestRequest{headerMessage(1)}, artifactMessages(j.subject, content)...))
			}
			resp, err := assayv1.NewAttestationServiceClient(m.l.conn).AttestDigests(ctx, &assayv1.AttestDigestsRequest{Subjects: digests(j.subject, j.sha256)})
			return resp.GetResult(), err
		}
	}
	m.jobs = append(m.jobs, j)
}

func (m *mixture) token(mint func() string) func(testing.TB) (context.Context, error) {
	return func(t testing.TB) (context.Context, error) {
		resp, err := m.l.exchange(t.Context(), mint())
		return bearing(t.Context(), resp.GetSessionToken()), err
	}
}

func (m *mixture) gitHub(w *world) {
	n := len(m.jobs)
	repo := fmt.Sprintf("octo-org/app-%d", n%7)
	workflow := repo + "/.github/workflows/release.yml@refs/heads/main"
	run := fmt.Sprint(12345678901234000 + n)
	claims := oidctest.Claims{
		"repository": repo, "repository_id": fmt.Sprint(476830000 + n%7), "workflow_ref": workflow, "job_workflow_ref": workflow,
		"run_id": run, "sha": commitOf(n),
	}
	m.add(&mixedJob{
		name: "github " + run, builder: "/builders/github-actions/github-hosted", source: "git+https://github.com/" + repo + "@refs/heads/main", commit: commitOf(n),
		invocation: "https://github.com/" + repo + "/actions/runs/" + run + "/attempts/1",
		open:       m.token(func() string { return w.issuer.Mint(w.instance, claims) }),
	})
}

func (m *mixture) gitLab(w *world, i *oidctest.Issuer) {
	n := len(m.jobs)
	project, job := fmt.Sprintf("octo-group/app-%d", n%5), fmt.Sprint(22345678901234000+n)
	claims := oidctest.Claims{"project_path": project, "project_id": fmt.Sprint(20 + n%5), "job_id": job, "sha": commitOf(n), "ci_config_sha": commitOf(n)}
	m.add(&mixedJob{
		name: "gitlab " + job, builder: "/builders/gitlab/hosted", source: "git+" + gitLabURL + "/" + project + "@refs/heads/main", commit: commitOf(n),
		invocation: gitLabURL + "/" + project + "/-/jobs/" + job,
		open:       m.token(func() string { return i.Mint(w.instance, claims) }),
	})
}

func (m *mixture) buildkite(w *world, i *oidctest.Issuer) {
	n := len(m.jobs)
	pipeline, build := fmt.Sprintf("pipeline-%d", n%5), fmt.Sprint(32345678901234000+n)
	claims := oidctest.Claims{
		"jti": nil, "pipeline_slug": pipeline, "pipeline_id": fmt.Sprintf("0184990a-4782-42b5-afc1-16715b10b1a%d", n%5), "build_number": build, "build_commit": commitOf(n),
	}
	m.add(&mixedJob{
		name: "buildkite " + build, builder: "/builders/buildkite/hosted", commit: commitOf(n),
		invocation: "https://buildkite.com/acme-inc/" + pipeline + "/builds/" + build + "#0184990a-477b-4fa8-9968-496074483cee",
		open:       m.token(func() string { return i.Mint(w.instance, claims) }),
	})
}

func (m *mixture) build(p *awstest.BuildProject) *awstest.Build {
	in := awstest.StartBuild{Commit: commitOf(len(m.jobs))}
	in.SourceVersion = aws.String("refs/heads/main")
	b := p.StartBuild(in)
	b.Advance(cbtypes.BuildPhaseTypeBuild)
	return b
}

func (m *mixture) inJob(p *awstest.BuildProject) {
	b := m.build(p)
	m.add(&mixedJob{
		name: "codebuild " + b.ID, builder: "/builders/codebuild/in-job", source: "git+https://github.com/acme/" + p.Name + "@refs/heads/main",
		commit: commitOf(len(m.jobs)), invocation: b.ARN,
		open: func(t testing.TB) (context.Context, error) {
			resp, err := m.l.claims(t, claim{creds: b.Credentials(), build: b.ID})
			return bearing(t.Context(), resp.GetSessionToken()), err
		},
	})
}

func (m *mixture) postBuild(p *awstest.BuildProject, asker context.Context) {
	n := len(m.jobs)
	b := m.build(p)
	up := b.Upload("app", fmt.Appendf(nil, "artifact of job %03d", n))[0]
	b.Finish(cbtypes.StatusTypeSucceeded)
	m.add(&mixedJob{
		name: "finished " + b.ID, builder: "/builders/codebuild/post-build", source: "git+https://github.com/acme/" + p.Name + "@refs/heads/main",
		commit: commitOf(n), invocation: b.ARN, subject: up.Bucket + "/" + up.Key, sha256: up.SHA256,
		open: func(testing.TB) (context.Context, error) { return asker, nil },
		attest: func(ctx context.Context) (*assayv1.AttestResult, error) {
			resp, err := assayv1.NewAttestationServiceClient(m.l.conn).AttestBuild(ctx, &assayv1.AttestBuildRequest{BuildArn: b.ARN})
			return resp.GetResult(), err
		},
	})
}

// check holds one attestation, as an answer or a row of a list, against its job.
func (j *mixedJob) check(t *testing.T, where, instance string, a *assayv1.Attestation) {
	t.Helper()
	st := statementOf(t, a.GetBundle())
	switch {
	case a.GetBuilderId() != instance+j.builder, a.GetInvocationId() != j.invocation, a.GetSourceUri() != j.source, a.GetSourceDigest()["gitCommit"] != j.commit,
		len(a.GetSubjects()) != 1, a.GetSubjects()[0].GetName() != j.subject, a.GetSubjects()[0].GetDigest()["sha256"] != j.sha256:
		t.Errorf("%s, %s: %v", j.name, where, a)
	case len(st.Subjects) != 1 || st.Subjects[0].Name != j.subject || st.Subjects[0].Digest["sha256"] != j.sha256:
		t.Errorf("%s, %s: the statement is about %v", j.name, where, st.Subjects)
	}
	for _, mark := range []string{instance + j.builder, j.invocation, j.commit, j.source} {
		if !strings.Contains(string(st.Predicate), mark) {
			t.Errorf("%s, %s: the predicate lacks %q", j.name, where, mark)
		}
	}
}

// TestJobsInterleaved: a hundred jobs of five platforms open sessions and attest at
// the same time; no subject, source or build id of one is ever found with another,
// be it in answers, statements, lists or the database.
func TestJobsInterleaved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	twin := newCompany(cloud, "222233334444", "")
	idp, gitLab, buildkite := people(t, w), platform(t, w, oidctest.GitLabJob()), platform(t, w, oidctest.BuildkiteJob())
	projects := []*awstest.BuildProject{cloud.Project, twin.project}
	for i := range 3 {
		p := cloud.Account.Project(testenv.AWSRegion, awstest.Project{
			Name: fmt.Sprintf("app-%d", i), ServiceRole: cloud.BuildRole, Artifacts: *cloud.Project.Record().Artifacts,
		})
		cloud.Reader.AllowOn("codebuild:BatchGetBuilds", p.ARN)
		cloud.Reader.AllowOn("codebuild:BatchGetProjects", p.ARN)
		projects = append(projects, p)
	}
	l := w.start(t, withTrap(cloud, newTrap(cloud)), withCompanies(twin), withPeople(idp), withGitLab(gitLab), withBuildkite(buildkite), func(c *server.Config) {
		c.AWS.Accounts[0].CodeBuildProjects = []string{"*"}
		c.AWS.MaxConcurrentProofs = 128
		c.Identity.Issuers[0].AllowedRepositoryIDs = nil
	})
	attestor := l.session(t, person(idp, "a", "attestor"))
	m := &mixture{l: l, cloud: cloud}
	for n := range 20 {
		m.gitHub(w)
		m.gitLab(w, gitLab)
		m.buildkite(w, buildkite)
		m.inJob(projects[n%len(projects)])
		m.postBuild(projects[n%len(projects)], attestor)
	}
	if len(m.jobs) != 100 {
		t.Fatalf("%d jobs", len(m.jobs))
	}

	sessions := make([]context.Context, len(m.jobs))
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i, j := range m.jobs {
		wg.Go(func() {
			<-start
			ctx, err := j.open(t)
			if err != nil {
				t.Errorf("%s: %v", j.name, err)
				return
			}
			sessions[i] = ctx
			result, err := j.attest(ctx)
			if err != nil {
				t.Errorf("%s: %v", j.name, err)
				return
			}
			j.made = result.GetAttestation()
		})
	}
	close(start)
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}

	byID := map[string]*mixedJob{}
	for i, j := range m.jobs {
		byID[j.made.GetAttestationId()] = j
		j.check(t, "the answer", w.instance, j.made)
		who, err := assayv1.NewIdentityServiceClient(l.conn).WhoAmI(sessions[i], &assayv1.WhoAmIRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if c := who.GetCaller(); j.builder != "/builders/codebuild/post-build" && (c.GetBuilderId() != w.instance+j.builder || !strings.Contains(protojson.Format(c), lastWord(j.invocation))) {
			t.Errorf("%s is %v", j.name, c)
		}
	}
	if len(byID) != len(m.jobs) {
		t.Fatalf("%d attestations of %d jobs", len(byID), len(m.jobs))
	}
	m.rows(t, byID, l.session(t, person(idp, "b", "auditor")))
}

// lastWord is the part of an invocation by which the session's facts name it.
func lastWord(invocation string) string {
	word := strings.TrimSuffix(invocation, "/attempts/1")
	return word[strings.LastIndexAny(word, "/:")+1:]
}

// rows compares what an auditor is told, and what is stored, with the jobs.
func (m *mixture) rows(t *testing.T, byID map[string]*mixedJob, auditor context.Context) {
	t.Helper()
	l := m.l
	audit := assayv1.NewAuditServiceClient(l.conn)
	seen := 0
	for token := ""; ; {
		resp, err := audit.ListAttestations(auditor, &assayv1.ListAttestationsRequest{
			PageToken: token, PageSize: 40, IncludeBundles: true, Filter: `predicate_type = "https://slsa.dev/provenance/v1"`,
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range resp.GetAttestations() {
			j := byID[a.GetAttestationId()]
			if j == nil {
				t.Fatalf("an attestation of nobody: %v", a)
			}
			seen++
			j.check(t, "the list", l.world.instance, a)
			m.onlyOwn(t, j, "the list", protojson.Format(a)+string(statementOf(t, a.GetBundle()).Predicate))
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if seen != len(byID) {
		t.Errorf("%d of %d are listed", seen, len(byID))
	}
	db := database(t, l.world.data)
	rows, err := db.QueryContext(t.Context(), "SELECT lower(hex(id)), invocation_id, source_uri, source_commit, subjects, caller, bundle FROM attestations JOIN bundles ON attestation = seq WHERE predicate_type LIKE '%/provenance/v1'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, invocation, source, commit string
		var subjects, caller, bundle []byte
		if err := rows.Scan(&id, &invocation, &source, &commit, &subjects, &caller, &bundle); err != nil {
			t.Fatal(err)
		}
		j := byID[id]
		if j == nil || invocation != j.invocation || source != j.source || commit != j.commit {
			t.Errorf("row %s: %s of %s at %s", id, invocation, source, commit)
			continue
		}
		m.onlyOwn(t, j, "the database", invocation+source+commit+string(subjects)+hex.EncodeToString(subjects)+string(caller)+string(bundle))
	}
	if err := rows.Err(); err != nil {
		t.Error(err)
	}
}

// onlyOwn fails if a text that is about j holds a mark of another job.
func (m *mixture) onlyOwn(t *testing.T, j *mixedJob, where, text string) {
	t.Helper()
	own := j.marks()
	for _, other := range m.jobs {
		for _, mark := range other.marks() {
			if other != j && !slices.Contains(own, mark) && strings.Contains(text, mark) {
				t.Errorf("%s of %s tells %q, which is %s's", where, j.name, mark, other.name)
			}
		}
	}
}

// TestSessionsApart: calls that go over one connection and at one time, each with
// its own session, are each answered as the session's caller, before and after a
// restart; a call with two sessions is nobody's.
func TestSessionsApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	idp, gitLab := people(t, w), platform(t, w, oidctest.GitLabJob())
	config := []func(*server.Config){withAWS(cloud), withPeople(idp), withGitLab(gitLab)}
	l := w.start(t, config...)
	ids := assayv1.NewIdentityServiceClient(l.conn)
	type who struct {
		session context.Context
		mark    string
	}
	all := []who{
		{bearing(t.Context(), l.roleSession(t, cloud.Deploy.Session("deploy-unlike-others"))), "deploy-unlike-others"},
		{l.session(t, person(idp, "nina", "auditor")), "nina"},
		{l.session(t, gitLab.Mint(w.instance, oidctest.Claims{"job_id": "9007199254740993"})), "9007199254740993"},
	}
	for n := range 10 {
		run := fmt.Sprint(12345678901234000 + n)
		all = append(all, who{l.session(t, w.issuer.Mint(w.instance, oidctest.Claims{"run_id": run})), run})
		b := cloud.RunningBuild()
		all = append(all, who{bearing(t.Context(), l.buildSession(t, b)), b.UUID})
	}
	var wg sync.WaitGroup
	for i, a := range all {
		wg.Go(func() {
			for range 10 {
				resp, err := ids.WhoAmI(a.session, &assayv1.WhoAmIRequest{})
				if err != nil || !strings.Contains(protojson.Format(resp.GetCaller()), a.mark) {
					t.Errorf("%s is %v, %v", a.mark, resp.GetCaller(), err)
				}
				for k, other := range all {
					if k != i && strings.Contains(protojson.Format(resp.GetCaller()), other.mark) {
						t.Errorf("%s is told of %s", a.mark, other.mark)
					}
				}
			}
		})
	}
	wg.Wait()
	before := make([]*assayv1.Caller, len(all))
	for i, a := range all {
		resp, err := ids.WhoAmI(a.session, &assayv1.WhoAmIRequest{})
		if err != nil {
			t.Fatal(err)
		}
		before[i] = resp.GetCaller()
	}
	l.stop()
	ids = assayv1.NewIdentityServiceClient(w.start(t, config...).conn)
	for i, a := range all {
		if resp, err := ids.WhoAmI(a.session, &assayv1.WhoAmIRequest{}); err != nil || !proto.Equal(resp.GetCaller(), before[i]) {
			t.Errorf("%s was %v and is %v, %v after a restart", a.mark, before[i], resp.GetCaller(), err)
		}
	}
	two := metadata.AppendToOutgoingContext(all[0].session, "authorization", bearerOf(all[1].session))
	if resp, err := ids.WhoAmI(two, &assayv1.WhoAmIRequest{}); err == nil {
		t.Errorf("a call with two sessions is %v", resp.GetCaller())
	}
}
