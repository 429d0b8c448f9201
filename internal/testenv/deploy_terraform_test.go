package testenv_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// moduleText is the text of a Terraform module, all files of it.
func moduleText(t testing.TB, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.tf"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v", dir, err)
	}
	var text strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(b)
	}
	return text.String()
}

var templateCall = regexp.MustCompile(`(?s)templatefile\("\$\{[^}]+\}(?:/\.\./\.\./policies)?/([^"]+)", \{\n(.*?)\n  \}\)`)

// names are the first groups of the matches, each once and sorted.
func names(pattern, text string) []string {
	out := map[string]bool{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		out[m[1]] = true
	}
	return slices.Sorted(maps.Keys(out))
}

func modules(t testing.TB) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(deployDir, "terraform", "*"))
	if err != nil || len(dirs) < 5 {
		t.Fatalf("modules %q, %v", dirs, err)
	}
	return dirs
}

// TestModules holds the modules and the templates to each other, which terraform
// validate would do if it had the provider: every variable is declared, documented
// and used, every template is filled in by somebody, with what it wants.
func TestModules(t *testing.T) {
	t.Parallel()
	filled := map[string]bool{}
	for _, dir := range modules(t) {
		text := moduleText(t, dir)
		for _, c := range []struct{ declared, used string }{
			{`(?m)^variable "(\w+)"`, `\bvar\.(\w+)`},
			{`(?m)^  (\w+) +=`, `\blocal\.(\w+)`},
			{`(?m)^data "(\w+)" "current"`, `\bdata\.(\w+)\.current`},
		} {
			declared, used := text, names(c.used, text)
			if strings.Contains(c.used, "local") {
				_, declared, _ = strings.Cut(text, "\nlocals {\n")
				declared, _, _ = strings.Cut(declared, "\n}\n")
			}
			if want := names(c.declared, declared); !slices.Equal(want, used) {
				t.Errorf("%s declares %q and uses %q", dir, want, used)
			}
		}
		for _, ref := range regexp.MustCompile(`\b(aws_\w+)\.(\w+)\.\w+`).FindAllStringSubmatch(strings.ReplaceAll(text, "data.", "data_"), -1) {
			if !strings.Contains(text, `resource "`+ref[1]+`" "`+ref[2]+`"`) {
				t.Errorf("%s has no %s", dir, ref[0])
			}
		}
		for _, m := range regexp.MustCompile(`(?m)^(?:variable|output) "(\w+)" \{\n  description = ".+"$`).FindAllStringSubmatch(text, -1) {
			text = strings.Replace(text, m[0], "", 1)
		}
		if left := names(`(?m)^(?:variable|output) "(\w+)"`, text); len(left) != 0 {
			t.Errorf("%s does not say what %q are", dir, left)
		}
		// can(regex(…)) takes an expression that does not compile for one that never matches.
		for _, re := range names(`regex\("([^"]+)"`, text) {
			if _, err := regexp.Compile(re); err != nil {
				t.Errorf("%s: %v", dir, err)
			}
		}
		calls := templateCall.FindAllStringSubmatch(text, -1)
		if len(calls) != strings.Count(text, "templatefile(") {
			t.Errorf("%s: a templatefile of another form", dir)
		}
		for _, call := range calls {
			// Where a variable chooses the template, it is any of them.
			templates, err := filepath.Glob(filepath.Join(deployDir, "policies", placeholder.ReplaceAllString(call[1], "*")))
			if err != nil || len(templates) == 0 {
				t.Fatalf("%s: %s, %v", dir, call[1], err)
			}
			given, wanted := names(`(?m)^ +(\w+) +=`, call[2]), []string{}
			for _, template := range templates {
				b, err := os.ReadFile(template)
				if err != nil {
					t.Fatal(err)
				}
				filled[filepath.Base(template)] = true
				wanted = append(wanted, names(`(?:^|[^$])\$\{(\w+)\}`, string(b))...)
			}
			slices.Sort(wanted)
			if wanted = slices.Compact(wanted); !slices.Equal(given, wanted) {
				t.Errorf("%s gives %q to %s, which wants %q", dir, given, call[1], wanted)
			}
		}
	}
	templates, err := filepath.Glob(filepath.Join(deployDir, "policies", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, template := range templates {
		if !filled[filepath.Base(template)] {
			t.Errorf("no module fills in %s", template)
		}
	}
}

// TestEvents: what the rule hands to the project that asks is what its buildspec
// reads, and it may do no more than the policies say.
func TestEvents(t *testing.T) {
	t.Parallel()
	text := moduleText(t, filepath.Join(deployDir, "terraform", "events"))
	m := regexp.MustCompile(`input_template = (".*")\n`).FindStringSubmatch(text)
	if m == nil {
		t.Fatal("no input_template")
	}
	var template string
	if err := json.Unmarshal([]byte(m[1]), &template); err != nil {
		t.Fatal(err)
	}
	// EventBridge puts JSON in: a string with its quotes.
	var input struct {
		EnvironmentVariablesOverride []struct{ Name, Type, Value string }
	}
	if err := json.Unmarshal([]byte(strings.Replace(template, "<build>", `"`+ownBuild+`"`, 1)), &input); err != nil {
		t.Fatalf("%s: %v", template, err)
	}
	if v := input.EnvironmentVariablesOverride; len(v) != 1 || v[0].Name != "FINISHED_BUILD" || v[0].Type != "PLAINTEXT" || v[0].Value != ownBuild {
		t.Errorf("%+v", v)
	}
	b, err := os.ReadFile(filepath.Join(deployDir, "buildspec-attest-build.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var spec struct {
		Phases struct{ Build struct{ Commands []string } }
	}
	if err := yaml.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	if c := spec.Phases.Build.Commands; len(c) != 1 || c[0] != `assay attest-build -- "$FINISHED_BUILD"` {
		t.Errorf("%q", c)
	}
	project := "arn:aws:codebuild:eu-central-1:111122223333:project/" + attesterRole
	start := parsePolicy(t, "events.json", map[string]any{"project_arn": project})
	log := parsePolicy(t, "attester.json", map[string]any{"log_group_arn": "arn:aws:logs:eu-central-1:111122223333:log-group:/assay/x"})
	if want := `{"Version":"2012-10-17","Statement":[{"Sid":"StartTheProjectThatAsks","Effect":"Allow","Action":["codebuild:StartBuild"],"Resource":["` + project + `"]}]}`; start.String() != want {
		t.Errorf("%s", start)
	}
	if got := log.Statement[0].Resource; len(log.Statement) != 1 || !slices.Equal(got, []string{"arn:aws:logs:eu-central-1:111122223333:log-group:/assay/x:*"}) {
		t.Errorf("%s", log)
	}
}

// TestReadmeConfiguration: the other configuration of the README is one that a
// server starts with.
func TestReadmeConfiguration(t *testing.T) {
	t.Parallel()
	c := readme(t, "identity")
	if i := c.Identity.Issuers; len(i) != 1 || i[0].Type != "aws-web-identity" || i[0].BuildTag != tag {
		t.Errorf("%+v", i)
	}
}
