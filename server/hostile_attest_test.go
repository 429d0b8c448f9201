package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	"github.com/assay-build/assay/internal/verify"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// provenancePredicate is what these tests read of a predicate.
type provenancePredicate struct {
	BuildDefinition struct {
		ExternalParameters struct {
			Workflow struct{ Ref, Repository, Path string } `json:"workflow"`
		} `json:"externalParameters"`
		InternalParameters struct {
			GitHub map[string]any `json:"github"`
		} `json:"internalParameters"`
		ResolvedDependencies []struct {
			URI    string            `json:"uri"`
			Digest map[string]string `json:"digest"`
		} `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder  struct{ ID string } `json:"builder"`
		Metadata struct {
			InvocationID string `json:"invocationId"`
		} `json:"metadata"`
	} `json:"runDetails"`
}

func predicateOf(t testing.TB, st *attest.Statement) provenancePredicate {
	t.Helper()
	var p provenancePredicate
	if err := json.Unmarshal(st.Predicate, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// job is one of many CI jobs that attest at the same time.
type job struct {
	n        int
	subjects map[string][]byte // name → content
	upload   bool
}

func (j *job) repository() string { return fmt.Sprintf("octo-org/app-%d", j.n%7) }
func (j *job) sha() string        { return fmt.Sprintf("%040x", 0xabc000+j.n) }

func (j *job) claims() oidctest.Claims {
	workflow := j.repository() + "/.github/workflows/release.yml@refs/heads/main"
	return runClaims(j.n).With(oidctest.Claims{
		"repository": j.repository(), "repository_id": strconv.Itoa(1000 + j.n%7), "sha": j.sha(),
		"workflow_ref": workflow, "job_workflow_ref": workflow, "run_attempt": strconv.Itoa(1 + j.n%3),
	})
}

// newJob gives each job artifacts of its own, under names that all jobs share,
// and one artifact that all jobs have.
func newJob(n int) *job {
	j := &job{n: n, upload: n%2 == 0, subjects: map[string][]byte{"dist/same.txt": []byte("the same bytes in every job")}}
	for i := range 1 + n%3 {
		j.subjects[fmt.Sprintf("dist/app-%d", i)] = bytes.Repeat(fmt.Appendf(nil, "job %d artifact %d\n", n, i), 40)
	}
	return j
}

func (j *job) run(t *testing.T, l *life) *assayv1.AttestResult {
	t.Helper()
	ctx := l.session(t, l.Issuer.Mint(l.world.instance, j.claims()))
	names := slices.Sorted(maps.Keys(j.subjects))
	if !j.upload {
		var subjects []*assayv1.Subject
		for _, name := range names {
			subjects = append(subjects, subject(name, string(j.subjects[name])))
		}
		return l.digests(t, ctx, subjects...)
	}
	messages := []*assayv1.AttestRequest{headerMessage(len(names))}
	for _, name := range names {
		messages = append(messages, artifactMessages(name, j.subjects[name])...)
	}
	result, err := uploadAll(ctx, l.conn, messages)
	if err != nil {
		t.Errorf("job %d: %v", j.n, err)
		return nil
	}
	return result
}

// check compares everything a statement says with the one job it is about.
func (j *job) check(t *testing.T, v *verify.Verifier, a *assayv1.Attestation) {
	t.Helper()
	ev, err := v.VerifyOwn(a.GetBundle())
	if err != nil {
		t.Errorf("job %d: the bundle does not verify: %v", j.n, err)
		return
	}
	p := predicateOf(t, ev.Statement())
	repository := "https://github.com/" + j.repository()
	github := p.BuildDefinition.InternalParameters.GitHub
	for what, pair := range map[string][2]string{
		"invocation": {p.RunDetails.Metadata.InvocationID, fmt.Sprintf("%s/actions/runs/%d/attempts/%d", repository, 12345678901234000+j.n, 1+j.n%3)},
		"repository": {p.BuildDefinition.ExternalParameters.Workflow.Repository, repository},
		"id":         {fmt.Sprint(github["repository_id"]), strconv.Itoa(1000 + j.n%7)},
		"source":     {p.BuildDefinition.ResolvedDependencies[0].URI, "git+" + repository + "@refs/heads/main"},
		"commit":     {p.BuildDefinition.ResolvedDependencies[0].Digest["gitCommit"], j.sha()},
		"index":      {a.GetInvocationId(), p.RunDetails.Metadata.InvocationID},
		"id of it":   {a.GetAttestationId(), sha256Hex(ev.Payload())},
	} {
		if pair[0] != pair[1] {
			t.Errorf("job %d: %s is %q; want %q", j.n, what, pair[0], pair[1])
		}
	}
	if got := len(ev.Statement().Subjects); got != len(j.subjects) {
		t.Errorf("job %d: %d subjects; want %d", j.n, got, len(j.subjects))
	}
	for _, s := range ev.Statement().Subjects {
		content, mine := j.subjects[s.Name]
		if !mine || s.Digest["sha256"] != sha256Hex(content) {
			t.Errorf("job %d: subject %q %s is not its own", j.n, s.Name, s.Digest["sha256"])
		}
		if claimed := s.Annotations["assay.build/digestOrigin"] == "claimed"; claimed == j.upload || (s.Digest["sha512"] != "") != j.upload {
			t.Errorf("job %d: subject %q claimed %t, upload %t, digests %v", j.n, s.Name, claimed, j.upload, s.Digest)
		}
	}
}

// TestAttestInterleaved: a hundred jobs attest at the same time, by upload and by
// digest; each statement is about its own job and its own artifacts.
func TestAttestInterleaved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t)
	v := l.verifier(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	indexes := make(map[int64]int)
	for n := range 100 {
		wg.Go(func() {
			j := newJob(n)
			result := j.run(t, l)
			if result == nil {
				return
			}
			j.check(t, v, result.GetAttestation())
			mu.Lock()
			defer mu.Unlock()
			indexes[result.GetAttestation().GetLogIndex()]++
		})
	}
	wg.Wait()
	if len(indexes) != 100 {
		t.Errorf("100 attestations have %d places in the log", len(indexes))
	}
	shared := l.login(t, runClaims(200)).decide(t, "dev", subject("dist/same.txt", "the same bytes in every job"), "ALLOWED")
	if len(shared.GetAttestationIds()) != 1 {
		t.Errorf("the decision rests on %d attestations; want one, unmixed", len(shared.GetAttestationIds()))
	}
	if left, err := os.ReadDir(filepath.Join(w.data, "spool")); err != nil || len(left) != 0 {
		t.Errorf("%d entries in the spool (%v)", len(left), err)
	}
}

// TestAttestRepeated: the same attest again, at the same time or later, is the
// same attestation and one log entry.
func TestAttestRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	subjects := []*assayv1.Subject{subject("b", "b"), subject("a", "a")}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var results []*assayv1.AttestResult
	start := make(chan struct{})
	for i := range 20 {
		ctx := l.session(t, w.issuer.Mint(w.instance)) // another session of the same run
		wg.Go(func() {
			<-start
			ask := slices.Clone(subjects)
			if i%2 == 1 {
				slices.Reverse(ask) // order says nothing
			}
			r := l.digests(t, ctx, ask...)
			mu.Lock()
			defer mu.Unlock()
			results = append(results, r)
		})
	}
	close(start)
	wg.Wait()
	results = append(results, l.digests(t, l.ctx, subjects...))
	fresh, first := 0, results[0].GetAttestation()
	for _, r := range results {
		a := r.GetAttestation()
		if !r.GetRepeated() {
			fresh++
		}
		if a.GetAttestationId() != first.GetAttestationId() || !bytes.Equal(a.GetBundle(), first.GetBundle()) || a.GetLogIndex() != first.GetLogIndex() {
			t.Errorf("a second attestation: %s at %d", a.GetAttestationId(), a.GetLogIndex())
		}
	}
	if fresh != 1 {
		t.Errorf("%d of 21 answers say that theirs was the first; want 1", fresh)
	}
	if _, metrics := httpGet(t, l.Server+"/metrics"); !strings.Contains(metrics, "\nassay_attestations_total 1\n") {
		t.Error("/metrics does not count one attestation")
	}
	next := l.digests(t, l.ctx, subject("a", "a")).GetAttestation()
	if next.GetLogIndex() != first.GetLogIndex()+1 {
		t.Errorf("the next attestation has log index %d after %d", next.GetLogIndex(), first.GetLogIndex())
	}
	if n := l.count(t, "attestations"); n != 2 {
		t.Errorf("%d rows; want 2", n)
	}
	// Another attempt of the run is another build.
	again := l.login(t, oidctest.Claims{"run_attempt": "2"}).digests(t, l.ctx, subjects...)
	if again.GetRepeated() || again.GetAttestation().GetAttestationId() == first.GetAttestationId() {
		t.Error("a re-run was taken for the run before it")
	}
}

// TestAttestTwoRuns: two runs that made the same artifact give two attestations,
// and a decision has looked at both.
func TestAttestTwoRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	s := subject("app", "reproducible")
	want := []string{l.digests(t, l.ctx, s).GetAttestation().GetAttestationId()}
	l.login(t, runClaims(1))
	want = append(want, l.digests(t, l.ctx, s).GetAttestation().GetAttestationId())
	if want[0] == want[1] {
		t.Fatal("two runs share an attestation")
	}
	d := l.decide(t, "dev", s, "ALLOWED")
	var looked []string
	for _, in := range summaryOf(t, d).InputAttestations {
		looked = append(looked, strings.TrimPrefix(in.URI, w.instance+"/v1/attestations/"))
	}
	slices.Sort(looked)
	slices.Sort(want)
	if !slices.Equal(looked, want) {
		t.Errorf("the decision looked at %v; stored are %v", looked, want)
	}
}

// TestAttestEdges: nothing at all, and as much as is allowed.
func TestAttestEdges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	v := l.verifier(t)
	empty, err := uploadAll(l.ctx, l.conn, append([]*assayv1.AttestRequest{headerMessage(1)}, artifactMessages("empty", nil)...))
	if err != nil {
		t.Fatal(err)
	}
	ev, err := v.VerifyOwn(empty.GetAttestation().GetBundle())
	if err != nil || !ev.HasDigest("sha256", sha256Hex(nil)) {
		t.Errorf("an empty artifact: %v", err)
	}
	// 1024 names of 512 bytes, each of which grows when it is written as JSON.
	subjects := make([]*assayv1.Subject, attest.MaxSubjects)
	for i := range subjects {
		subjects[i] = subject(fmt.Sprintf("%04d%s", i, strings.Repeat(`"`, 508)), fmt.Sprint(i))
	}
	large := l.digests(t, l.ctx, subjects...)
	if ev, err = v.VerifyOwn(large.GetAttestation().GetBundle()); err != nil {
		t.Fatal(err)
	}
	for i, s := range ev.Statement().Subjects {
		if s.Name != subjects[i].GetName() || s.Digest["sha256"] != subjects[i].GetDigest()["sha256"] {
			t.Fatalf("subject %d is %q", i, s.Name)
		}
	}
	l.decide(t, "dev", subjects[777], "ALLOWED")
	uploads := attest.MaxSubjects
	if testing.Short() || raced { // each is a process
		uploads = 64
	}
	messages := []*assayv1.AttestRequest{headerMessage(uploads)}
	for i := range uploads {
		messages = append(messages, artifactMessages(fmt.Sprintf("f/%04d", i), fmt.Append(nil, "up", i))...)
	}
	many, err := uploadAll(l.ctx, l.conn, messages)
	if err != nil {
		t.Fatal(err)
	}
	if ev, err = v.VerifyOwn(many.GetAttestation().GetBundle()); err != nil || len(ev.Statement().Subjects) != uploads || len(many.GetSboms()) != uploads {
		t.Errorf("%d uploads: %v", uploads, err)
	}
}

// TestAttestNames: names that are odd and allowed come out as they went in.
func TestAttestNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	names := []string{
		"dist/app", "a b", "ünïcödé/名前", `quo"te`, "<script>alert(1)</script>", "&amp;", "'; DROP TABLE attestations; --",
		"%s%n%d", "{{.}}", "=1+1", "pkg:npm/%40scope/name@1.0", "ghcr.io/octo-org/app", "a..b", "...hidden", "-rf", "CON", "e\u0301",
	}
	var subjects []*assayv1.Subject
	for _, n := range names {
		subjects = append(subjects, subject(n, n))
	}
	a := l.digests(t, l.ctx, subjects...).GetAttestation()
	got := make(map[string]string)
	for _, s := range statementOf(t, a.GetBundle()).Subjects {
		got[s.Name] = s.Digest["sha256"]
	}
	for _, n := range names {
		if got[n] != sha256Hex([]byte(n)) {
			t.Errorf("%q is not in the statement as it was sent", n)
		}
	}
	if len(got) != len(names) {
		t.Errorf("%d names; want %d", len(got), len(names))
	}
}

// TestAttestHearsay: nothing a client says, but names and digests, enters what is
// signed or the index over it; what the token says does.
func TestAttestHearsay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t)
	l.login(t, oidctest.Claims{
		"event_name": "pull_request", "ref": "refs/pull/7/merge", "head_ref": "feature", "base_ref": "main",
		"workflow_ref":       "octo-org/octo-app/.github/workflows/release.yml@refs/pull/7/merge",
		"job_workflow_ref":   "octo-org/builders/.github/workflows/build.yml@refs/tags/v2",
		"runner_environment": "self-hosted", "unheard_of": "hearsay-claim",
	})
	conn, err := grpc.NewClient("passthrough:"+l.addr(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent("hearsay-agent"), grpc.WithAuthority("hearsay-authority.example"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(l.ctx, "x-builder-id", "hearsay-builder", "x-forwarded-for", "hearsay-peer",
		"github-run-id", "hearsay-run", "baggage", "repository=hearsay-baggage", "traceparent", "00-hearsay-01")
	said := subject("app", "app")
	said.Origin, said.Size = assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED, 123456789
	resp, err := assayv1.NewAttestationServiceClient(conn).AttestDigests(ctx, &assayv1.AttestDigestsRequest{Subjects: []*assayv1.Subject{said}})
	if err != nil {
		t.Fatal(err)
	}
	header := headerMessage(1)
	header.GetHeader().TotalSize = 987654321
	up, err := uploadAll(ctx, conn, append([]*assayv1.AttestRequest{header}, artifactMessages("up", []byte("up"))...))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []*assayv1.Attestation{resp.GetResult().GetAttestation(), up.GetAttestation()} {
		st := statementOf(t, a.GetBundle())
		payload, err := st.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		record := a.String()
		for _, word := range []string{"hearsay", "123456789", "987654321"} {
			if bytes.Contains(payload, []byte(word)) || strings.Contains(record, word) {
				t.Errorf("what the client said is in the attestation: %q\n%s", word, payload)
			}
		}
		p := predicateOf(t, st)
		github := p.BuildDefinition.InternalParameters.GitHub
		if github["event_name"] != "pull_request" || github["job_workflow_ref"] != "octo-org/builders/.github/workflows/build.yml@refs/tags/v2" ||
			p.BuildDefinition.ExternalParameters.Workflow.Ref != "refs/pull/7/merge" ||
			p.RunDetails.Builder.ID != w.instance+"/builders/github-actions/self-hosted" {
			t.Errorf("what the token said is not in the statement: %s", payload)
		}
	}
	if s := resp.GetResult().GetAttestation().GetSubjects()[0]; s.GetOrigin() != assayv1.DigestOrigin_DIGEST_ORIGIN_CLAIMED || s.GetSize() != 0 {
		t.Errorf("a claimed digest is recorded as %v", s)
	}
	d := l.decide(t, "prod", subject("app", "app"), "DENIED_BY_RULE")
	if d.GetFacts()["provenance.eventName"] != "pull_request" || d.GetFacts()["provenance.subjectOrigin"] != "claimed" {
		t.Errorf("facts %v", d.GetFacts())
	}
	// A workflow of another repository cannot be written down as if it lay in this one.
	l.login(t, oidctest.Claims{"workflow_ref": "octo-org/policies/.github/workflows/required.yml@refs/heads/main"})
	_, err = assayv1.NewAttestationServiceClient(l.conn).AttestDigests(l.ctx, &assayv1.AttestDigestsRequest{Subjects: digests("a", okDigest)})
	wantReason(t, err, codes.PermissionDenied, "WORKFLOW_REF_INVALID")
}
