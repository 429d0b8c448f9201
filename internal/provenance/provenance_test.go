package provenance

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	slsapb "github.com/in-toto/attestation/go/predicates/provenance/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	instance = "https://assay.example.com"
	sha      = "c27d339ee6075c1f744c5d4b200f7901aad2c369"
	otherSHA = "0123456789abcdef0123456789abcdef01234567"
)

func caller() *identity.Caller {
	return &identity.Caller{
		Kind:        identity.KindGitHubActions,
		Issuer:      "https://token.actions.githubusercontent.com",
		DisplayName: "octocat/hello-world@refs/heads/main run 1536140711/2",
		GitHub: &identity.GitHubActions{
			Repository: "octocat/hello-world", RepositoryID: 9007199254740993, RepositoryOwner: "octocat", RepositoryOwnerID: 583231,
			WorkflowRef:    "octocat/hello-world/.github/workflows/release.yml@refs/heads/main",
			WorkflowSHA:    sha,
			JobWorkflowRef: "octo-org/builders/.github/workflows/build.yml@refs/tags/v2",
			JobWorkflowSHA: otherSHA,
			Ref:            "refs/heads/main", RefType: "branch", SHA: sha, EventName: "push", RunnerEnvironment: "github-hosted",
			RunID: 1536140711, RunNumber: 12, RunAttempt: 2, Actor: "octocat", ActorID: 583231,
			ServerURL: "https://github.com",
		},
	}
}

func subjects() []attest.Subject {
	hex := func(digit string, n int) string { return strings.Repeat(digit, n) }
	return []attest.Subject{
		{Name: "dist/app.tar.gz", Digest: map[string]string{"sha256": hex("a", 64), "sha512": hex("b", 128)}},
		{Name: "app-image", Digest: map[string]string{"sha256": hex("c", 64)},
			Annotations: map[string]string{AnnotationDigestOrigin: OriginClaimed}},
	}
}

func statement(t testing.TB, c *identity.Caller) []byte {
	t.Helper()
	st, err := GitHubActions(instance, c, subjects())
	if err != nil {
		t.Fatal(err)
	}
	payload, err := st.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestGolden(t *testing.T) {
	sandbox := caller()
	sandbox.Sandbox = true
	pull := caller()
	pull.GitHub.Ref, pull.GitHub.EventName = "refs/pull/7/merge", "pull_request"
	pull.GitHub.WorkflowRef = "octocat/hello-world/.github/workflows/release.yml@refs/pull/7/merge"
	pull.GitHub.WorkflowSHA, pull.GitHub.JobWorkflowSHA = "", ""
	pull.GitHub.RunnerEnvironment = "self-hosted"
	for name, c := range map[string]*identity.Caller{"github-hosted": caller(), "sandbox": sandbox, "pull-request-self-hosted": pull} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := json.Indent(&got, statement(t, c), "", "  "); err != nil {
				t.Fatal(err)
			}
			got.WriteByte('\n')
			path := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		})
	}
}

// What actions/attest would emit for the same token, and what we add to it.
func TestFieldsOfGitHub(t *testing.T) {
	st, err := attest.ParseStatement(statement(t, caller()))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := attest.DecodeStrict(st.Predicate, 1<<20, &got); err != nil {
		t.Fatal(err)
	}
	internal := got["buildDefinition"].(map[string]any)["internalParameters"].(map[string]any)
	ours := map[string]any{}
	for _, key := range []string{"workflow_ref", "workflow_sha", "job_workflow_ref", "job_workflow_sha"} {
		github := internal["github"].(map[string]any)
		ours[key] = github[key]
		delete(github, key)
	}
	wantOurs := map[string]any{
		"workflow_ref": caller().GitHub.WorkflowRef, "workflow_sha": sha,
		"job_workflow_ref": caller().GitHub.JobWorkflowRef, "job_workflow_sha": otherSHA,
	}
	if diff := cmp.Diff(wantOurs, ours); diff != "" {
		t.Errorf("our own fields (-want +got):\n%s", diff)
	}
	theirs := map[string]any{
		"buildDefinition": map[string]any{
			"buildType": "https://actions.github.io/buildtypes/workflow/v1",
			"externalParameters": map[string]any{"workflow": map[string]any{
				"ref": "refs/heads/main", "repository": "https://github.com/octocat/hello-world", "path": ".github/workflows/release.yml",
			}},
			"internalParameters": map[string]any{"github": map[string]any{
				"event_name": "push", "repository_id": "9007199254740993", "repository_owner_id": "583231", "runner_environment": "github-hosted",
			}},
			"resolvedDependencies": []any{map[string]any{
				"uri": "git+https://github.com/octocat/hello-world@refs/heads/main", "digest": map[string]any{"gitCommit": sha},
			}},
		},
		"runDetails": map[string]any{
			// Theirs is https://github.com/ + job_workflow_ref: the job speaks for itself.
			"builder":  map[string]any{"id": instance + "/builders/github-actions/github-hosted"},
			"metadata": map[string]any{"invocationId": "https://github.com/octocat/hello-world/actions/runs/1536140711/attempts/2"},
		},
	}
	if diff := cmp.Diff(theirs, got); diff != "" {
		t.Errorf("GitHub's fields (-want +got):\n%s", diff)
	}
	// The in-toto project's own types read it.
	var pb slsapb.Provenance
	if err := protojson.Unmarshal(st.Predicate, &pb); err != nil {
		t.Fatal(err)
	}
	if err := pb.Validate(); err != nil {
		t.Error(err)
	}
}

// shape lists the paths of a JSON value with the kind of each, array elements as one.
func shape(v any, path string, into map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			shape(value, path+"."+key, into)
		}
	case []any:
		for _, value := range v {
			shape(value, path+"[]", into)
		}
	default:
		into[path] = fmt.Sprintf("%T", v)
	}
}

// The community's build type for GitHub has the same structure; the differences
// are known by name.
func TestStructureOfExample(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(vectors.Dir(t, "slsa-gha-buildtype"), "workflow", "v1", "example.json"))
	if err != nil {
		t.Fatal(err)
	}
	shapes := [2]map[string]string{{}, {}}
	for i, text := range [][]byte{data, statement(t, caller())} {
		var v any
		if err := attest.DecodeStrict(text, 1<<20, &v); err != nil {
			t.Fatal(err)
		}
		shape(v, "", shapes[i])
	}
	for path, kind := range shapes[0] {
		if other, both := shapes[1][path]; both && other != kind {
			t.Errorf("%s is %s in the example and %s in ours", path, kind, other)
		}
	}
	without := func(a, b map[string]string) []string {
		left := maps.Clone(a)
		maps.DeleteFunc(left, func(path, _ string) bool { _, both := b[path]; return both })
		return slices.Sorted(maps.Keys(left))
	}
	const definition = ".predicate.buildDefinition"
	onlyTheirs := []string{
		// The token has neither inputs nor variables, the run's start nor the image.
		definition + ".externalParameters.inputs.build_id",
		definition + ".externalParameters.inputs.deploy_target",
		definition + ".externalParameters.inputs.perform_deploy",
		definition + ".externalParameters.vars.MASCOT",
		definition + ".internalParameters.github.actor_id",
		".predicate.runDetails.metadata.startedOn",
	}
	slices.Sort(onlyTheirs)
	if diff := cmp.Diff(onlyTheirs, without(shapes[0], shapes[1])); diff != "" {
		t.Errorf("only in the example (-want +got):\n%s", diff)
	}
	onlyOurs := []string{
		`.subject[].annotations.assay.build/digestOrigin`,
		`.subject[].digest.sha512`,
	}
	for _, key := range []string{"repository_id", "repository_owner_id", "runner_environment", "workflow_ref", "workflow_sha", "job_workflow_ref", "job_workflow_sha"} {
		onlyOurs = append(onlyOurs, definition+".internalParameters.github."+key)
	}
	slices.Sort(onlyOurs)
	if diff := cmp.Diff(onlyOurs, without(shapes[1], shapes[0])); diff != "" {
		t.Errorf("only in ours (-want +got):\n%s", diff)
	}
}

// Attesting the same again must give the same bytes, whatever the order.
func TestDeterministic(t *testing.T) {
	want := statement(t, caller())
	for range 20 {
		reversed := subjects()
		slices.Reverse(reversed)
		before := slices.Clone(reversed)
		st, err := GitHubActions(instance, caller(), reversed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := st.Marshal()
		if err != nil || !bytes.Equal(want, got) {
			t.Fatalf("(%v)\n%s\n%s", err, want, got)
		}
		if !cmp.Equal(before, reversed) {
			t.Fatal("the caller's subjects were reordered")
		}
	}
}

// Each fact that tells two builds apart must tell their statements apart.
func TestEveryFactCounts(t *testing.T) {
	seen := map[string]string{string(statement(t, caller())): "unchanged"}
	for name, change := range map[string]func(*identity.Caller){
		"repository": func(c *identity.Caller) {
			c.GitHub.Repository = "octocat/other"
			c.GitHub.WorkflowRef = "octocat/other/.github/workflows/release.yml@refs/heads/main"
		},
		"repository_id":       func(c *identity.Caller) { c.GitHub.RepositoryID-- },
		"repository_owner_id": func(c *identity.Caller) { c.GitHub.RepositoryOwnerID++ },
		"workflow_ref": func(c *identity.Caller) {
			c.GitHub.WorkflowRef = "octocat/hello-world/.github/workflows/test.yml@refs/heads/main"
		},
		"workflow_sha":       func(c *identity.Caller) { c.GitHub.WorkflowSHA = otherSHA },
		"job_workflow_ref":   func(c *identity.Caller) { c.GitHub.JobWorkflowRef = c.GitHub.WorkflowRef },
		"job_workflow_sha":   func(c *identity.Caller) { c.GitHub.JobWorkflowSHA = sha },
		"ref":                func(c *identity.Caller) { c.GitHub.Ref = "refs/heads/dev" },
		"sha":                func(c *identity.Caller) { c.GitHub.SHA = otherSHA },
		"event_name":         func(c *identity.Caller) { c.GitHub.EventName = "pull_request_target" },
		"runner_environment": func(c *identity.Caller) { c.GitHub.RunnerEnvironment = "self-hosted" },
		"run_id":             func(c *identity.Caller) { c.GitHub.RunID++ },
		"run_attempt":        func(c *identity.Caller) { c.GitHub.RunAttempt++ },
		"server_url":         func(c *identity.Caller) { c.GitHub.ServerURL = "https://ghe.example.com" },
		"sandbox":            func(c *identity.Caller) { c.Sandbox = true },
	} {
		c := caller()
		change(c)
		got := string(statement(t, c))
		if other, found := seen[got]; found {
			t.Errorf("%s and %s give the same statement", name, other)
		}
		seen[got] = name
	}
}

func TestGitHubActionsRefusals(t *testing.T) {
	tests := []struct {
		name   string
		change func(*identity.Caller)
		want   refusal.Code
	}{
		{"nothing wrong", func(*identity.Caller) {}, ""},
		{"no kind", func(c *identity.Caller) { c.Kind = 0 }, CodeBuilderUnknown},
		{"another kind", func(c *identity.Caller) { c.Kind = 99 }, CodeBuilderUnknown},
		{"no facts", func(c *identity.Caller) { c.GitHub = nil }, CodeBuilderUnknown},
		{"no runner environment", func(c *identity.Caller) { c.GitHub.RunnerEnvironment = "" }, CodeBuilderUnknown},
		{"unknown runner environment", func(c *identity.Caller) { c.GitHub.RunnerEnvironment = "GitHub-hosted" }, CodeBuilderUnknown},
		{"unknown runner environment in the sandbox", func(c *identity.Caller) { c.GitHub.RunnerEnvironment, c.Sandbox = "x", true }, CodeBuilderUnknown},
		{"no server", func(c *identity.Caller) { c.GitHub.ServerURL = "" }, CodeFactMissing},
		{"no repository", func(c *identity.Caller) { c.GitHub.Repository = "" }, CodeFactMissing},
		{"no repository id", func(c *identity.Caller) { c.GitHub.RepositoryID = 0 }, CodeFactMissing},
		{"no owner id", func(c *identity.Caller) { c.GitHub.RepositoryOwnerID = 0 }, CodeFactMissing},
		{"no workflow", func(c *identity.Caller) { c.GitHub.WorkflowRef = "" }, CodeFactMissing},
		{"no job workflow", func(c *identity.Caller) { c.GitHub.JobWorkflowRef = "" }, CodeFactMissing},
		{"no ref", func(c *identity.Caller) { c.GitHub.Ref = "" }, CodeFactMissing},
		{"no commit", func(c *identity.Caller) { c.GitHub.SHA = "" }, CodeFactMissing},
		{"no event", func(c *identity.Caller) { c.GitHub.EventName = "" }, CodeFactMissing},
		{"no run", func(c *identity.Caller) { c.GitHub.RunID = 0 }, CodeFactMissing},
		{"no attempt", func(c *identity.Caller) { c.GitHub.RunAttempt = 0 }, CodeFactMissing},
		{"workflow of another repository", func(c *identity.Caller) {
			c.GitHub.WorkflowRef = "octocat/hello-world2/.github/workflows/release.yml@refs/heads/main"
		}, CodeWorkflowRefInvalid},
		{"workflow without ref", func(c *identity.Caller) {
			c.GitHub.WorkflowRef = "octocat/hello-world/.github/workflows/release.yml"
		}, CodeWorkflowRefInvalid},
		{"workflow without path", func(c *identity.Caller) { c.GitHub.WorkflowRef = "octocat/hello-world/@refs/heads/main" }, CodeWorkflowRefInvalid},
		{"a fact that is not UTF-8", func(c *identity.Caller) { c.GitHub.EventName = "\xff" }, attest.CodeStatementPredicateInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := caller()
			tt.change(c)
			_, err := GitHubActions(instance, c, subjects())
			if got := refusal.CodeOf(err); got != tt.want {
				t.Errorf("code = %q, want %q (%v)", got, tt.want, err)
			}
		})
	}
	if _, err := GitHubActions(instance, nil, subjects()); refusal.CodeOf(err) != CodeBuilderUnknown {
		t.Errorf("no caller: %v", err)
	}
	for _, instance := range []string{"", "https://assay.example.com/"} {
		if _, err := GitHubActions(instance, caller(), subjects()); refusal.CodeOf(err) != CodeBuilderUnknown {
			t.Errorf("instance %q: %v", instance, err)
		}
	}
}

func TestWorkflowPath(t *testing.T) {
	const repository = "o/r"
	tests := []struct{ workflowRef, ref, want string }{
		{"o/r/.github/workflows/x.yml@refs/heads/main", "refs/heads/main", ".github/workflows/x.yml"},
		{"o/r/.github/workflows/x.yml@refs/tags/v1@2", "refs/tags/v1@2", ".github/workflows/x.yml"},
		{"o/r/.github/workflows/a@b.yml@refs/heads/main", "refs/heads/main", ".github/workflows/a@b.yml"},
		{"o/r/.github/workflows/x.yml@refs/heads/a@refs/heads/b", "refs/heads/a@refs/heads/b", ".github/workflows/x.yml"},
		// The workflow was read from another ref than the one that is built.
		{"o/r/.github/workflows/a@b.yml@refs/heads/main", "refs/tags/v1", ".github/workflows/a@b.yml"},
		{"o/r/.github/workflows/x.yml@refs/heads/a@refs/heads/b", "refs/tags/v1", ".github/workflows/x.yml"},
		{"o/r/o/r/x.yml@refs/heads/main", "refs/heads/main", "o/r/x.yml"},
		{"o/r/.github/workflows/x.yml@main", "refs/heads/main", ""},
		{"x/o/r/.github/workflows/x.yml@refs/heads/main", "refs/heads/main", ""},
		{"o/r2/.github/workflows/x.yml@refs/heads/main", "refs/heads/main", ""},
	}
	for _, tt := range tests {
		got, err := workflowPath(&identity.GitHubActions{Repository: repository, WorkflowRef: tt.workflowRef, Ref: tt.ref})
		var want refusal.Code
		if tt.want == "" {
			want = CodeWorkflowRefInvalid
		}
		if got != tt.want || refusal.CodeOf(err) != want {
			t.Errorf("%s at %s: %q, %v; want %q", tt.workflowRef, tt.ref, got, err, tt.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		file := rapid.StringMatching(`[a-z@.]{1,12}\.ya?ml`).Draw(t, "file")
		ref := "refs/heads/" + rapid.StringMatching(`[a-z@/.]{1,20}`).Draw(t, "ref")
		path, err := workflowPath(&identity.GitHubActions{
			Repository: repository, Ref: ref, WorkflowRef: repository + "/.github/workflows/" + file + "@" + ref,
		})
		if err != nil || path != ".github/workflows/"+file {
			t.Fatalf("%q, %v", path, err)
		}
	})
}

func TestBuilderOf(t *testing.T) {
	tests := []struct {
		environment string
		sandbox     bool
		want        string
		level       int
	}{
		{"github-hosted", false, "https://assay.example.com/builders/github-actions/github-hosted", 2},
		{"self-hosted", false, "https://assay.example.com/builders/github-actions/self-hosted", 1},
		{"github-hosted", true, "https://assay.example.com/builders/dev", 0},
		{"self-hosted", true, "https://assay.example.com/builders/dev", 0},
	}
	levels := BuilderLevels(instance)
	for _, tt := range tests {
		c := caller()
		c.GitHub.RunnerEnvironment, c.Sandbox = tt.environment, tt.sandbox
		got, err := BuilderOf(instance, c)
		if err != nil || got.ID != tt.want || got.Level != tt.level || got.Note == "" {
			t.Errorf("%s, sandbox %v: %+v, %v; want %s, level %d", tt.environment, tt.sandbox, got, err, tt.want, tt.level)
		}
		if level, known := levels[got.ID]; !known || level != got.Level {
			t.Errorf("BuilderLevels says %d, %v for %s", level, known, got.ID)
		}
	}
	if len(levels) != 3 {
		t.Errorf("%d builders, want 3: %v", len(levels), levels)
	}
}

func TestSourceAndInvocation(t *testing.T) {
	c := caller()
	c.GitHub.ServerURL = "https://ghe.example.com"
	if got, want := SourceURI(c), "git+https://ghe.example.com/octocat/hello-world@refs/heads/main"; got != want {
		t.Errorf("source %q, want %q", got, want)
	}
	if got, want := InvocationID(c), "https://ghe.example.com/octocat/hello-world/actions/runs/1536140711/attempts/2"; got != want {
		t.Errorf("invocation %q, want %q", got, want)
	}
}

func BenchmarkGitHubActions(b *testing.B) {
	c, s := caller(), subjects()
	b.ReportAllocs()
	for b.Loop() {
		st, err := GitHubActions(instance, c, s)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := st.Marshal(); err != nil {
			b.Fatal(err)
		}
	}
}
