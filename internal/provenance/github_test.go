package provenance

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

// What actions/attest would emit for the same token, and what we add to it.
func TestFieldsOfGitHub(t *testing.T) {
	st, err := attest.ParseStatement(statement(t, writer(t), caller()))
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
	if diff := cmp.Diff(map[string]any{"slsaBuildLevel": json.Number("2")}, internal["assay"]); diff != "" {
		t.Errorf("assay (-want +got):\n%s", diff)
	}
	delete(internal, "assay")
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
	for i, text := range [][]byte{data, statement(t, writer(t), caller())} {
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
	onlyOurs = append(onlyOurs, definition+".internalParameters.assay.slsaBuildLevel")
	for _, key := range []string{"repository_id", "repository_owner_id", "runner_environment", "workflow_ref", "workflow_sha", "job_workflow_ref", "job_workflow_sha"} {
		onlyOurs = append(onlyOurs, definition+".internalParameters.github."+key)
	}
	slices.Sort(onlyOurs)
	if diff := cmp.Diff(onlyOurs, without(shapes[1], shapes[0])); diff != "" {
		t.Errorf("only in ours (-want +got):\n%s", diff)
	}
}

func TestGitHubActionsRefusals(t *testing.T) {
	t.Parallel()
	w := writer(t)
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
			_, err := w.Statement(c, subjects())
			if got := refusal.CodeOf(err); got != tt.want {
				t.Errorf("code = %q, want %q (%v)", got, tt.want, err)
			}
		})
	}
	if _, err := w.Statement(nil, subjects()); refusal.CodeOf(err) != CodeBuilderUnknown {
		t.Errorf("no caller: %v", err)
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

// A job counts as trusted only where every part of what was reviewed is exact.
func TestTrustedWorkflow(t *testing.T) {
	t.Parallel()
	const trusted, hosted = "/builders/github-actions/trusted-workflow", "/builders/github-actions/github-hosted"
	const workflow = "octo-org/builders/.github/workflows/build.yml"
	tests := []struct {
		name   string
		list   TrustedWorkflow
		change func(*identity.GitHubActions)
		want   string
	}{
		{"as reviewed", TrustedWorkflow{}, func(*identity.GitHubActions) {}, trusted},
		{"any ref at the commit", TrustedWorkflow{}, func(g *identity.GitHubActions) { g.JobWorkflowRef = workflow + "@refs/heads/main" }, trusted},
		{"called by its commit", TrustedWorkflow{}, func(g *identity.GitHubActions) { g.JobWorkflowRef = workflow + "@" + otherSHA }, trusted},
		{"the exact ref", TrustedWorkflow{Ref: "refs/tags/v2"}, func(*identity.GitHubActions) {}, trusted},
		{"another ref", TrustedWorkflow{Ref: "refs/tags/v2"}, func(g *identity.GitHubActions) { g.JobWorkflowRef = workflow + "@refs/tags/v2.1" }, hosted},
		{"a moved tag", TrustedWorkflow{Ref: "refs/tags/v2"}, func(g *identity.GitHubActions) { g.JobWorkflowSHA = sha }, hosted},
		{"no commit in the token", TrustedWorkflow{}, func(g *identity.GitHubActions) { g.JobWorkflowSHA = "" }, hosted},
		{"self-hosted", TrustedWorkflow{}, func(g *identity.GitHubActions) { g.RunnerEnvironment = "self-hosted" }, "/builders/github-actions/self-hosted"},
		{"another server", TrustedWorkflow{}, func(g *identity.GitHubActions) { g.ServerURL = "https://ghe.example.com" }, hosted},
		{"a listed server", TrustedWorkflow{Server: "https://ghe.example.com"}, func(g *identity.GitHubActions) { g.ServerURL = "https://ghe.example.com" }, trusted},
		{"listed for another server", TrustedWorkflow{Server: "https://ghe.example.com"}, func(*identity.GitHubActions) {}, hosted},
		{"its own repository", TrustedWorkflow{}, func(g *identity.GitHubActions) {
			g.Repository, g.WorkflowRef = "octo-org/builders", "octo-org/builders/.github/workflows/release.yml@refs/heads/main"
		}, hosted},
		{"its own repository in other case", TrustedWorkflow{}, func(g *identity.GitHubActions) {
			g.Repository, g.WorkflowRef = "Octo-Org/Builders", "Octo-Org/Builders/.github/workflows/release.yml@refs/heads/main"
		}, hosted},
		{"a name before", TrustedWorkflow{}, func(g *identity.GitHubActions) { g.JobWorkflowRef = "x" + g.JobWorkflowRef }, hosted},
		{"a name that goes on", TrustedWorkflow{}, func(g *identity.GitHubActions) { g.JobWorkflowRef = workflow + ".yml@refs/tags/v2" }, hosted},
		{"a file name with our name in it", TrustedWorkflow{}, func(g *identity.GitHubActions) { g.JobWorkflowRef = workflow + "@evil.yml@refs/tags/v2" }, hosted},
		{"a short ref", TrustedWorkflow{}, func(g *identity.GitHubActions) { g.JobWorkflowRef = workflow + "@v2" }, hosted},
		{"no ref", TrustedWorkflow{}, func(g *identity.GitHubActions) { g.JobWorkflowRef = workflow }, hosted},
		{"other case", TrustedWorkflow{}, func(g *identity.GitHubActions) {
			g.JobWorkflowRef = "Octo-org/builders/.github/workflows/build.yml@refs/tags/v2"
		}, hosted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.list.Workflow, tt.list.SHA = workflow, otherSHA
			w, err := New(Config{Instance: instance, TrustedWorkflows: []TrustedWorkflow{
				{Workflow: "octo-org/builders/.github/workflows/other.yml", SHA: sha}, tt.list,
			}})
			if err != nil {
				t.Fatal(err)
			}
			c := caller()
			tt.change(c.GitHub)
			b, err := w.Builder(c)
			if err != nil || b.ID != instance+tt.want || b.Level != w.Levels()[b.ID] {
				t.Errorf("%+v, %v; want %s", b, err, tt.want)
			}
			c.Sandbox = true
			if b, err := w.Builder(c); err != nil || b.ID != instance+"/builders/dev" || b.Level != 0 {
				t.Errorf("in the sandbox: %+v, %v", b, err)
			}
		})
	}
}
