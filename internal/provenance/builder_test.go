package provenance

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

// The levels of the builders are a promise to whoever wrote a policy.
func TestLevels(t *testing.T) {
	t.Parallel()
	want := map[string]int{
		"github-actions/trusted-workflow": 3, "github-actions/github-hosted": 2, "github-actions/self-hosted": 1,
		"codebuild/post-build": 3, "codebuild/in-job": 2,
		"gitlab/hosted": 2, "gitlab/self-hosted": 1, "buildkite/hosted": 2, "buildkite/self-hosted": 1,
		"workload": 1, "workload-principal": 0, "aws-role": 0, "x509": 0, "dev": 0,
	}
	full := map[string]int{}
	for path, level := range want {
		full[instance+"/builders/"+path] = level
	}
	if diff := cmp.Diff(full, writer(t).Levels()); diff != "" {
		t.Error(diff)
	}
}

// Each page must say something of each requirement, and reach the level that the
// requirements it meets give it and no other.
func TestBuilders(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, p := range writer(t).Builders() {
		if seen[p.ID] || p.ID != instance+p.Path || p.Title == "" || p.Why == "" || len(p.Tenant) == 0 || (p.BuildType == "") != (p.Path == pathDev) {
			t.Errorf("%+v", p)
		}
		seen[p.ID] = true
		met := map[string]bool{}
		for _, r := range p.Requirements {
			if r.How == "" {
				t.Errorf("%s says nothing of %s", p.Path, r.Name)
			}
			met[r.Name] = r.Met
		}
		if len(met) != 5 || len(p.Requirements) != 5 {
			t.Errorf("%s has %d requirements", p.Path, len(p.Requirements))
		}
		// The table of the specification, written out.
		want := 0
		if met[requirementExists] {
			want = 1
			if met[requirementAuthentic] && met[requirementHosted] {
				want = 2
				if met[requirementUnforgeable] && met[requirementIsolated] {
					want = 3
				}
			}
		}
		if p.Level != want {
			t.Errorf("%s is level %d and meets the requirements of %d", p.Path, p.Level, want)
		}
	}
}

func TestBuilderRefusals(t *testing.T) {
	t.Parallel()
	w := writer(t)
	for name, tt := range map[string]struct {
		caller *identity.Caller
		change func(*identity.Caller)
		want   refusal.Code
	}{
		"nobody":                     {nil, nil, CodeBuilderUnknown},
		"a person":                   {&identity.Caller{Kind: identity.KindHuman, Human: &identity.Human{Subject: "1"}}, nil, CodeBuilderUnknown},
		"a build without facts":      {inJob(), func(c *identity.Caller) { c.CodeBuild = nil }, CodeBuilderUnknown},
		"a build without a record":   {inJob(), func(c *identity.Caller) { c.CodeBuild.Build = nil }, CodeBuilderUnknown},
		"a build without a mode":     {inJob(), func(c *identity.Caller) { c.CodeBuild.Mode = "" }, CodeBuilderUnknown},
		"a build in another mode":    {inJob(), func(c *identity.Caller) { c.CodeBuild.Mode = "Post-Build" }, CodeBuilderUnknown},
		"a role without facts":       {awsRole(), func(c *identity.Caller) { c.AWSRole = nil }, CodeBuilderUnknown},
		"a workload without facts":   {workload(), func(c *identity.Caller) { c.Workload = nil }, CodeBuilderUnknown},
		"GitLab without a runner":    {gitLab(), func(c *identity.Caller) { c.Workload.Runner = "" }, CodeBuilderUnknown},
		"GitLab's own word":          {gitLab(), func(c *identity.Caller) { c.Workload.Runner = "gitlab-hosted" }, CodeBuilderUnknown},
		"GitLab without a run":       {gitLab(), func(c *identity.Caller) { c.Workload.InvocationID = "" }, CodeFactMissing},
		"Buildkite without a runner": {buildkite(), func(c *identity.Caller) { c.Workload.Runner = "" }, CodeBuilderUnknown},
		"Buildkite without a run":    {buildkite(), func(c *identity.Caller) { c.Workload.InvocationID = "" }, CodeFactMissing},
		"facts of another kind":      {gitLab(), func(c *identity.Caller) { c.Kind = identity.KindGitHubActions }, CodeBuilderUnknown},
	} {
		for _, sandbox := range []bool{false, true} {
			if tt.caller != nil {
				tt.caller.Sandbox = sandbox
			}
			if tt.change != nil {
				tt.change(tt.caller)
			}
			if b, err := w.Builder(tt.caller); refusal.CodeOf(err) != tt.want {
				t.Errorf("%s, sandbox %v: %+v, %v; want %s", name, sandbox, b, err, tt.want)
			}
			if _, err := w.Statement(tt.caller, subjects()); refusal.CodeOf(err) != tt.want {
				t.Errorf("%s, sandbox %v: statement: %v; want %s", name, sandbox, err, tt.want)
			}
			if _, err := w.Describe(tt.caller); refusal.CodeOf(err) != tt.want {
				t.Errorf("%s, sandbox %v: description: %v; want %s", name, sandbox, err, tt.want)
			}
		}
	}
}

// faults are changes to a faultless build, each with the word and the level it
// must lead to.
func faults() map[string]struct {
	level int
	apply func(*identity.CodeBuild)
} {
	override := func(field string) func(*identity.CodeBuild) {
		return func(c *identity.CodeBuild) {
			c.Build.Overrides = append(c.Build.Overrides, codebuild.Override{Field: field})
		}
	}
	return map[string]struct {
		level int
		apply func(*identity.CodeBuild)
	}{
		DowngradeDebugSession:        {1, func(c *identity.CodeBuild) { c.Build.DebugSession = true }},
		DowngradeInsecureSSL:         {1, func(c *identity.CodeBuild) { c.Build.Source.InsecureSSL = true }},
		DowngradeServiceRoleOverride: {1, override("serviceRole")},
		DowngradeFileSystems:         {1, func(c *identity.CodeBuild) { c.Build.FileSystems = []string{"fs-1"} }},
		DowngradeCache:               {1, func(c *identity.CodeBuild) { c.Build.CacheType = "S3" }},
		DowngradeDockerServer:        {1, func(c *identity.CodeBuild) { c.Build.Environment.DockerServer = &codebuild.DockerServer{} }},
		DowngradeReservedCapacity:    {2, func(c *identity.CodeBuild) { c.Build.Fleet = "arn:aws:codebuild:eu-west-1:111122223333:fleet/f:1" }},
		DowngradePrivilegedOverride: {2, func(c *identity.CodeBuild) {
			c.Build.Environment.PrivilegedMode = true
			override("environment.privilegedMode")(c)
		}},
		DowngradeDigestUnconfirmed: {2, func(c *identity.CodeBuild) { c.Confirmed = false }},
		DowngradeProjectChanged:    {2, func(c *identity.CodeBuild) { c.Build.ProjectChanged = true }},
		DowngradeVariablesRedacted: {2, func(c *identity.CodeBuild) {
			c.Build.Environment.Variables = append(c.Build.Environment.Variables, codebuild.Variable{Name: "X", Type: "PLAINTEXT", Redacted: true})
		}},
	}
}

func TestDowngrades(t *testing.T) {
	t.Parallel()
	w := writer(t)
	for word, f := range faults() {
		c := postBuild()
		f.apply(c.CodeBuild)
		b, err := w.Builder(c)
		if err != nil || b.Level != f.level || !slices.Equal(b.Downgrades, []string{word}) {
			t.Errorf("%s: %+v, %v; want level %d", word, b, err, f.level)
		}
	}
	for name, change := range map[string]func(*identity.CodeBuild){
		"a cache that is none":         func(c *identity.CodeBuild) { c.Build.CacheType = "NO_CACHE" },
		"privileged as the project is": func(c *identity.CodeBuild) { c.Build.Environment.PrivilegedMode = true },
		"no longer privileged": func(c *identity.CodeBuild) {
			c.Build.Overrides = []codebuild.Override{{Field: "environment.privilegedMode", Project: "true", Build: "false"}}
		},
		"another image": func(c *identity.CodeBuild) { c.Build.Overrides = []codebuild.Override{{Field: "environment.image"}} },
	} {
		c := postBuild()
		change(c.CodeBuild)
		if b, err := w.Builder(c); err != nil || b.Level != 3 || b.Downgrades != nil {
			t.Errorf("%s: %+v, %v; want level 3", name, b, err)
		}
	}
	c := batch()
	c.CodeBuild.Build.SecondarySources[1].InsecureSSL = true
	if b, err := w.Builder(c); err != nil || !slices.Equal(b.Downgrades, []string{DowngradeInsecureSSL}) {
		t.Errorf("insecure secondary source: %+v, %v", b, err)
	}
	c = postBuild()
	c.CodeBuild.Build.Overrides = []codebuild.Override{{Field: "environment.dockerServer.computeType", Project: "BUILD_GENERAL1_SMALL"}}
	if b, err := w.Builder(c); err != nil || b.Level != 1 || !slices.Equal(b.Downgrades, []string{DowngradeDockerServer}) {
		t.Errorf("the project's docker server: %+v, %v", b, err)
	}
	job := workload()
	job.Workload.Repository = ""
	if b, err := w.Builder(job); err != nil || b.Level != 0 || !slices.Equal(b.Downgrades, []string{DowngradeSourceUnknown}) {
		t.Errorf("a job of an unknown source: %+v, %v", b, err)
	}
	if levelCap("a word nobody knows") != 0 {
		t.Error("an unknown word must lower to 0")
	}
}

// However faults meet, the level is the lowest that any of them allows, and one
// more never raises it.
func TestDowngradesProperty(t *testing.T) {
	t.Parallel()
	w, all := writer(t), faults()
	words := slices.Sorted(maps.Keys(all))
	rapid.Check(t, func(t *rapid.T) {
		c := postBuild()
		want := 3
		if rapid.Bool().Draw(t, "in job") {
			c.CodeBuild.Mode, want = identity.ModeInJob, 2
		}
		var expected []string
		for _, word := range rapid.SliceOfDistinct(rapid.SampledFrom(words), rapid.ID[string]).Draw(t, "faults") {
			before, err := w.Builder(c)
			if err != nil {
				t.Fatal(err)
			}
			all[word].apply(c.CodeBuild)
			after, err := w.Builder(c)
			if err != nil || after.Level > before.Level || after.ID != before.ID {
				t.Fatalf("%s: %+v, then %+v (%v)", word, before, after, err)
			}
			// A running build has no digest to confirm yet.
			if word == DowngradeDigestUnconfirmed && c.CodeBuild.Mode == identity.ModeInJob {
				continue
			}
			want, expected = min(want, all[word].level), append(expected, word)
		}
		slices.Sort(expected)
		b, err := w.Builder(c)
		if err != nil || b.Level != want || !slices.Equal(b.Downgrades, expected) {
			t.Fatalf("%+v, %v; want level %d for %v", b, err, want, expected)
		}
	})
}
