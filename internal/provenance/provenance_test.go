package provenance

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	slsapb "github.com/in-toto/attestation/go/predicates/provenance/v1"
	statementpb "github.com/in-toto/attestation/go/v1"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

var update = flag.Bool("update", false, "rewrite the golden files and the generated parts of docs")

var buildTypeDocs = filepath.Join("..", "..", "docs", "buildtypes")

type golden struct {
	name       string
	caller     func() *identity.Caller
	trusting   bool
	schema     string // the build type's own, "" for GitHub's
	builder    string
	level      int
	downgrades []string
}

func goldens() []golden {
	const codeBuild, job, principal = "codebuild-v1", "ci-job-v1", "principal-v1"
	return []golden{
		{name: "github-direct", caller: direct, trusting: true, builder: "github-actions/github-hosted", level: 2},
		{name: "github-reusable", caller: caller, builder: "github-actions/github-hosted", level: 2},
		{name: "github-trusted-reusable", caller: caller, trusting: true, builder: "github-actions/trusted-workflow", level: 3},
		{name: "github-pull-request-self-hosted", caller: pullRequest, trusting: true, builder: "github-actions/self-hosted", level: 1},
		{name: "sandbox", caller: func() *identity.Caller { return sandboxed(caller()) }, trusting: true, builder: "dev"},
		{name: "codebuild-in-job", caller: inJob, schema: codeBuild, builder: "codebuild/in-job", level: 2},
		{name: "codebuild-post-build", caller: postBuild, schema: codeBuild, builder: "codebuild/post-build", level: 3},
		{name: "codebuild-batch", caller: batch, schema: codeBuild, builder: "codebuild/post-build", level: 3},
		{name: "codebuild-every-override", caller: everyOverride, schema: codeBuild, builder: "codebuild/post-build", level: 1, downgrades: []string{
			DowngradeDigestUnconfirmed, DowngradeCache, DowngradeDebugSession, DowngradeDockerServer, DowngradeFileSystems, DowngradeInsecureSSL,
			DowngradePrivilegedOverride, DowngradeProjectChanged, DowngradeReservedCapacity, DowngradeServiceRoleOverride, DowngradeVariablesRedacted,
		}},
		{name: "codebuild-sandbox", caller: func() *identity.Caller { return sandboxed(inJob()) }, schema: codeBuild, builder: "dev"},
		{name: "gitlab", caller: gitLab, schema: job, builder: "gitlab/hosted", level: 2},
		{name: "buildkite", caller: buildkite, schema: job, builder: "buildkite/self-hosted", level: 1},
		{name: "workload", caller: workload, schema: job, builder: "workload", level: 1},
		{name: "aws-role", caller: awsRole, schema: principal, builder: "aws-role"},
		{name: "x509", caller: x509, schema: principal, builder: "x509"},
		{name: "workload-principal", caller: func() *identity.Caller {
			c := workload()
			c.Workload = &identity.Workload{Platform: "kubernetes", Subject: "system:serviceaccount:ci:builder", Account: "ci", Properties: []string{"cluster=a"}}
			return c
		}, schema: principal, builder: "workload-principal"},
	}
}

func (g golden) writer(t testing.TB) *Writer {
	if g.trusting {
		return trustingWriter(t)
	}
	return writer(t)
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for _, g := range goldens() {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			w := g.writer(t)
			payload := statement(t, w, g.caller())
			compare(t, filepath.Join("testdata", g.name+".json"), indent(t, payload))
			checkInToto(t, payload)
			if g.schema != "" {
				if err := compileSchema(t, g.schema).Validate(parse(t, payload)); err != nil {
					t.Error(err)
				}
			}
			b, err := w.Builder(g.caller())
			want := Builder{ID: instance + "/builders/" + g.builder, Level: g.level, Note: w.pages["/builders/"+g.builder].Why, Downgrades: g.downgrades}
			if err != nil || !cmp.Equal(b, want) {
				t.Errorf("%v\n%s", err, cmp.Diff(want, b))
			}
			checkStated(t, payload, b, g.caller().Sandbox)
		})
	}
}

// checkStated compares what the statement says with what Builder says.
func checkStated(t *testing.T, payload []byte, b Builder, sandbox bool) {
	t.Helper()
	var st struct {
		Predicate struct {
			BuildDefinition struct {
				InternalParameters struct {
					Assay assayParameters `json:"assay"`
				} `json:"internalParameters"`
			} `json:"buildDefinition"`
			RunDetails struct {
				Builder struct {
					ID string `json:"id"`
				} `json:"builder"`
			} `json:"runDetails"`
		} `json:"predicate"`
	}
	if err := json.Unmarshal(payload, &st); err != nil {
		t.Fatal(err)
	}
	if got := st.Predicate.RunDetails.Builder.ID; got != b.ID {
		t.Errorf("builder.id %s, want %s", got, b.ID)
	}
	want := assayParameters{Level: b.Level, Downgrades: b.Downgrades, Sandbox: sandbox}
	if got := st.Predicate.BuildDefinition.InternalParameters.Assay; !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
}

// checkInToto reads the payload with our own strict parser and with the in-toto
// project's types.
func checkInToto(t *testing.T, payload []byte) {
	t.Helper()
	st, err := attest.ParseStatement(payload)
	if err != nil {
		t.Fatal(err)
	}
	var statement statementpb.Statement
	if err := protojson.Unmarshal(payload, &statement); err != nil {
		t.Fatal(err)
	}
	if err := statement.Validate(); err != nil {
		t.Error(err)
	}
	var predicate slsapb.Provenance
	if err := protojson.Unmarshal(st.Predicate, &predicate); err != nil {
		t.Fatal(err)
	}
	if err := predicate.Validate(); err != nil {
		t.Error(err)
	}
}

func compileSchema(t testing.TB, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.DefaultDraft(jsonschema.Draft2020)
	s, err := c.Compile(filepath.Join(buildTypeDocs, name+".schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parse(t testing.TB, data []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func indent(t testing.TB, payload []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, payload, "", "  "); err != nil {
		t.Fatal(err)
	}
	out.WriteByte('\n')
	return out.Bytes()
}

func compare(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// A schema that takes anything would say nothing: each member of each golden file
// is taken away, renamed or given another type in turn, and schemas must notice
// the strangers and the types.
func TestSchemasRefuse(t *testing.T) {
	t.Parallel()
	for _, g := range goldens() {
		if g.schema == "" {
			continue
		}
		schema, payload := compileSchema(t, g.schema), statement(t, g.writer(t), g.caller())
		for _, path := range objectPaths(parse(t, payload), nil) {
			// Two maps of in-toto take any member.
			if last := path[max(0, len(path)-1):]; len(last) == 1 && (last[0] == "annotations" || last[0] == "digest") && path[0] == "subject" {
				continue
			}
			v := parse(t, payload)
			object(v, path)["stranger"] = "x"
			if schema.Validate(v) == nil {
				t.Errorf("%s: a stranger in %v is accepted", g.name, path)
			}
		}
		for _, level := range []any{-1, 4, "2", nil} {
			v := parse(t, payload)
			object(v, []any{"predicate", "buildDefinition", "internalParameters", "assay"})["slsaBuildLevel"] = level
			if schema.Validate(v) == nil {
				t.Errorf("%s: level %v is accepted", g.name, level)
			}
		}
		v := parse(t, payload)
		object(v, []any{"predicate", "buildDefinition"})["buildType"] = BuildTypeGitHubActions
		if schema.Validate(v) == nil {
			t.Errorf("%s: another build type is accepted", g.name)
		}
	}
}

func objectPaths(v any, at []any) [][]any {
	var out [][]any
	switch v := v.(type) {
	case map[string]any:
		out = append(out, slices.Clone(at))
		for key, value := range v {
			out = append(out, objectPaths(value, append(slices.Clone(at), key))...)
		}
	case []any:
		for i, value := range v {
			out = append(out, objectPaths(value, append(slices.Clone(at), i))...)
		}
	}
	return out
}

func object(v any, path []any) map[string]any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			v = v.(map[string]any)[step]
		case int:
			v = v.([]any)[step]
		}
	}
	return v.(map[string]any)
}

// Attesting the same again must give the same bytes, whatever the order.
func TestDeterministic(t *testing.T) {
	t.Parallel()
	for _, g := range goldens() {
		w := g.writer(t)
		want := statement(t, w, g.caller())
		for range 5 {
			reversed := subjectsOf(g.caller())
			slices.Reverse(reversed)
			before := slices.Clone(reversed)
			st, err := w.Statement(g.caller(), reversed)
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
}

// The index must say what the statement says.
func TestDescribe(t *testing.T) {
	t.Parallel()
	const run = "https://github.com/octocat/hello-world/actions/runs/1536140711/attempts/2"
	const main = "git+https://github.com/octocat/hello-world@refs/heads/main"
	tests := map[string]Description{
		"github-direct":                   {BuildTypeGitHubActions, run, main, sha},
		"github-trusted-reusable":         {BuildTypeGitHubActions, run, main, sha},
		"github-pull-request-self-hosted": {BuildTypeGitHubActions, run, "git+https://github.com/octocat/hello-world@refs/pull/7/merge", sha},
		"codebuild-in-job":                {BuildTypeCodeBuild, buildARN, "git+https://github.com/acme/app@refs/heads/main", sha},
		"codebuild-batch":                 {BuildTypeCodeBuild, buildARN, "git+https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/app", sha},
		"codebuild-every-override":        {BuildTypeCodeBuild, buildARN, "git+https://ghe.example.com/mallory/app@pr/7", otherSHA},
		"gitlab": {BuildTypeCIJob, "https://gitlab.com/acme/tools/app/-/jobs/12345678901234567",
			"git+https://gitlab.com/acme/tools/app@refs/heads/main", sha},
		"buildkite": {BuildTypeCIJob, "https://buildkite.com/acme/app/builds/12#0184990a-477b-4fa8-9968-496074483cef", "", sha},
		"workload":  {BuildTypeCIJob, "https://ci.example.com/job/app/7", "git+https://git.example.com:8443/app@refs/tags/v1%232", ""},
		"aws-role":  {BuildType: BuildTypePrincipal},
		"x509":      {BuildType: BuildTypePrincipal},
	}
	tested := 0
	for _, g := range goldens() {
		want, ok := tests[g.name]
		if !ok {
			continue
		}
		tested++
		w := g.writer(t)
		got, err := w.Describe(g.caller())
		if err != nil || got != want {
			t.Errorf("%s: %v\n%s", g.name, err, cmp.Diff(want, got))
		}
		payload := string(statement(t, w, g.caller()))
		for _, text := range []string{got.BuildType, got.InvocationID, got.SourceURI, got.SourceCommit} {
			if !strings.Contains(payload, text) {
				t.Errorf("%s: %q is not in the statement", g.name, text)
			}
		}
	}
	if tested != len(tests) {
		t.Errorf("%d of %d were tested", tested, len(tests))
	}
}

func TestNewRefusals(t *testing.T) {
	t.Parallel()
	good := TrustedWorkflow{Workflow: "octo-org/builders/.github/workflows/build.yml", SHA: otherSHA}
	for name, change := range map[string]func(*Config){
		"no instance":             func(c *Config) { c.Instance = "" },
		"a slash at the end":      func(c *Config) { c.Instance += "/" },
		"no scheme":               func(c *Config) { c.Instance = "assay.example.com" },
		"another scheme":          func(c *Config) { c.Instance = "ftp://assay.example.com" },
		"user information":        func(c *Config) { c.Instance = "https://u:p@assay.example.com" },
		"no commit":               func(c *Config) { c.TrustedWorkflows[0].SHA = "" },
		"a short commit":          func(c *Config) { c.TrustedWorkflows[0].SHA = otherSHA[:12] },
		"a commit in upper case":  func(c *Config) { c.TrustedWorkflows[0].SHA = strings.ToUpper(otherSHA) },
		"no workflow":             func(c *Config) { c.TrustedWorkflows[0].Workflow = "" },
		"a workflow with its ref": func(c *Config) { c.TrustedWorkflows[0].Workflow += "@refs/heads/main" },
		"a pattern":               func(c *Config) { c.TrustedWorkflows[0].Workflow = "octo-org/*/.github/workflows/build.yml" },
		"a workflow elsewhere":    func(c *Config) { c.TrustedWorkflows[0].Workflow = "octo-org/builders/build.yml" },
		"a workflow in a folder":  func(c *Config) { c.TrustedWorkflows[0].Workflow = "octo-org/builders/.github/workflows/a/build.yml" },
		"a short ref":             func(c *Config) { c.TrustedWorkflows[0].Ref = "v2" },
		"a server with a path":    func(c *Config) { c.TrustedWorkflows[0].Server = "https://ghe.example.com/" },
		"a plaintext server":      func(c *Config) { c.TrustedWorkflows[0].Server = "http://ghe.example.com" },
	} {
		cfg := Config{Instance: instance, TrustedWorkflows: []TrustedWorkflow{good}}
		if _, err := New(cfg); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if _, err := New(cfg); refusal.CodeOf(err) != CodeConfigInvalid {
			t.Errorf("%s: %v, want %s", name, err, CodeConfigInvalid)
		}
	}
}

func BenchmarkStatement(b *testing.B) {
	for _, g := range goldens() {
		if g.name != "github-trusted-reusable" && g.name != "codebuild-every-override" {
			continue
		}
		b.Run(g.name, func(b *testing.B) {
			w, c, s := g.writer(b), g.caller(), subjectsOf(g.caller())
			b.ReportAllocs()
			for b.Loop() {
				st, err := w.Statement(c, s)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := st.Marshal(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
