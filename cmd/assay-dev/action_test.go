package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"go.yaml.in/yaml/v3"
)

const repository = "../.."

// action is action.yml, as far as GitHub would run it.
type action struct {
	Inputs map[string]struct {
		Description string
		Required    bool
		Default     string
	}
	Outputs map[string]struct{ Value string }
	Runs    struct {
		Using string
		Steps []struct {
			ID, Name, Shell, Run string
			Env                  map[string]string
			If, Uses             string
		}
	}
}

func readAction(t testing.TB) *action {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var a action
	if err := yaml.Unmarshal(text, &a); err != nil {
		t.Fatal(err)
	}
	return &a
}

// job is a job of GitHub Actions, that runs the action in a work tree of its own.
type job struct {
	work, temp string
	env        []string // of the job; what a step sets comes on top
	client     string   // for a run without the step that gets one
}

func newJob(t testing.TB, env ...string) *job {
	t.Helper()
	path, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	j := &job{work: t.TempDir(), temp: t.TempDir()}
	j.env = append(env, "GITHUB_ACTION_PATH="+path, "RUNNER_TEMP="+j.temp, "GITHUB_STEP_SUMMARY="+filepath.Join(j.temp, "summary"))
	for _, name := range []string{"PATH", "HOME", "GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS", "GOTOOLCHAIN"} {
		if v, ok := os.LookupEnv(name); ok {
			j.env = append(j.env, name+"="+v)
		}
	}
	return j
}

func (j *job) write(t testing.TB, name, content string) {
	t.Helper()
	path := filepath.Join(j.work, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// ran is how an action ended.
type ran struct {
	code            int
	output, summary string
	outputs         map[string]string
}

var expression = regexp.MustCompile(`\$\{\{ *([^}]*?) *\}\}`)

// use runs the steps of action.yml as a runner does: expressions are replaced in
// env alone, since there are none elsewhere, and a step that fails ends it. only,
// where given, is the one step to run.
func (j *job) use(t testing.TB, with map[string]string, only ...string) ran {
	t.Helper()
	a := readAction(t)
	inputs := map[string]string{}
	for name, in := range a.Inputs {
		inputs[name] = in.Default
	}
	for name, v := range with {
		if _, ok := inputs[name]; !ok {
			t.Fatalf("the action has no input %s", name)
		}
		inputs[name] = v
	}
	r := ran{outputs: map[string]string{}}
	values := map[string]string{"steps.client.outputs.client": j.client}
	for name, v := range inputs {
		values["inputs."+name] = v
	}
	for _, step := range a.Runs.Steps {
		if len(only) > 0 && !slices.Contains(only, step.ID) {
			continue
		}
		env := slices.Clone(j.env)
		for name, v := range step.Env {
			env = append(env, name+"="+expression.ReplaceAllStringFunc(v, func(m string) string {
				v, ok := values[expression.FindStringSubmatch(m)[1]]
				if !ok {
					t.Errorf("nothing stands for %s", m)
				}
				return v
			}))
		}
		written := j.step(t, &r, step.Run, env)
		for name, v := range written {
			values["steps."+step.ID+".outputs."+name] = v
		}
		if r.code != 0 {
			break
		}
	}
	for name, out := range a.Outputs {
		r.outputs[name] = expression.ReplaceAllStringFunc(out.Value, func(m string) string { return values[expression.FindStringSubmatch(m)[1]] })
	}
	summary, _ := os.ReadFile(filepath.Join(j.temp, "summary"))
	r.summary = string(summary)
	return r
}

// step runs a script with the bash options of GitHub's runner, and returns what it
// wrote to GITHUB_OUTPUT.
func (j *job) step(t testing.TB, r *ran, script string, env []string) map[string]string {
	t.Helper()
	file, written := filepath.Join(j.temp, "step.sh"), filepath.Join(j.temp, "output")
	for path, text := range map[string]string{file: script, written: ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", file)
	cmd.Dir, cmd.Env = j.work, append(env, "GITHUB_OUTPUT="+written)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	r.code, r.output = cmd.ProcessState.ExitCode(), r.output+string(out)
	text, err := os.ReadFile(written)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if _, twice := values[name]; !ok || twice {
			t.Errorf("GITHUB_OUTPUT has a line %q", line)
		}
		values[name] = v
	}
	return values
}

// TestActionInjection: what a workflow says reaches the scripts by the environment
// only. An expression in a script's text is how actions are taken over.
func TestActionInjection(t *testing.T) {
	t.Parallel()
	a := readAction(t)
	if a.Runs.Using != "composite" || len(a.Runs.Steps) != 2 {
		t.Fatalf("%+v", a.Runs)
	}
	used := map[string]bool{}
	for _, step := range a.Runs.Steps {
		if strings.Contains(step.Run, "${{") || step.Uses != "" || step.If != "" || step.Shell != "bash" {
			t.Errorf("step %s: %+v", step.ID, step)
		}
		for _, v := range step.Env {
			for _, m := range expression.FindAllStringSubmatch(v, -1) {
				used[m[1]] = true
				if !strings.HasPrefix(m[1], "inputs.") && !strings.HasPrefix(m[1], "steps.") {
					t.Errorf("step %s reads %s", step.ID, m[1])
				}
			}
		}
	}
	for name, in := range a.Inputs {
		if !used["inputs."+name] || in.Description == "" || in.Required && in.Default != "" {
			t.Errorf("input %s: %+v", name, in)
		}
	}
	if info, err := os.Stat(filepath.Join(repository, ".ci/action")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("the script cannot be run: %v", err)
	}
}

// buildClient builds the client as go test has built its packages already, which
// is quicker than the action's way of it.
func buildClient(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "assay")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/assay")
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// TestAction: a job attests what it made, and asks before a deploy.
func TestAction(t *testing.T) {
	t.Parallel()
	s := testenv.New(t)
	j := newJob(t, s.Env()...)
	j.client = buildClient(t)
	j.write(t, "dist/app", "the application")
	j.write(t, "dist/a library", "a library")
	j.write(t, "dist/-rf", "a file")
	j.write(t, "dist/[1].txt", "another")
	with := map[string]string{"server": s.Server, "artifacts": "  dist/*  \r\n\n"}
	r := j.use(t, with, "run")
	if r.code != 0 || r.outputs["bundle-dir"] != "assay-bundles" || !strings.Contains(r.summary, "a library") {
		t.Fatalf("exit %d, outputs %v, summary %q\n%s", r.code, r.outputs, r.summary, r.output)
	}
	for _, name := range []string{"app", "a library", "-rf", "[1].txt"} {
		if b, err := os.ReadFile(filepath.Join(j.work, "assay-bundles", name+".sigstore.json")); err != nil || !bytes.Contains(b, []byte("dsseEnvelope")) {
			t.Errorf("the bundle of %s: %v", name, err)
		}
	}
	image := "registry.example.com/app@sha256:" + strings.Repeat("ab", 32)
	with["artifacts"] = "dist/app\n" + image
	if r := j.use(t, with, "run"); r.code != 0 {
		t.Fatalf("an image: exit %d\n%s", r.code, r.output)
	}
	with["artifacts"], with["command"], with["environment"] = "dist/*", "verify", "dev"
	check := func(what string, code int, text string) {
		t.Helper()
		if r := j.use(t, with, "run"); r.code != code || !strings.Contains(r.output, text) {
			t.Errorf("%s: exit %d, want %d\n%s", what, r.code, code, r.output)
		}
	}
	check("what was attested", 0, "ALLOW")
	with["environment"] = "prod"
	check("a sandbox build in prod", 1, "DENY")
	with["environment"] = "dev"
	// A file that is called like the digest of something good is no such thing.
	sum := sha256.Sum256([]byte("the application"))
	j.write(t, "dist/app@sha256:"+hex.EncodeToString(sum[:]), "malware")
	check("a file called like a digest", 1, "DENY")
	if err := os.Remove(filepath.Join(j.work, "dist/app@sha256:"+hex.EncodeToString(sum[:]))); err != nil {
		t.Fatal(err)
	}
	// Nor does a file that is called like the pattern stand for all others.
	j.write(t, "dist/evil", "malware")
	j.write(t, "dist/*", "the application")
	check("a file called like the pattern", 1, "DENY")
	with["artifacts"] = "sha256:" + hex.EncodeToString(sum[:])
	check("a digest", 0, "ALLOW")
	with["server"] = ""
	check("no server", 2, "server")
}

// TestActionArtifacts: what the lines of artifacts name, to the byte, as the client
// gets it.
func TestActionArtifacts(t *testing.T) {
	t.Parallel()
	const digest = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	files := []string{
		"app", "b c", "-x", "--help", "*", "[a].txt", "a.txt", "d/e", "d/-y", "d/.hidden", "x" + digest, "sha256:1", "$(touch pwned)", "`touch pwned`", "q'uote\"", "back\\slash", "ünï", "~",
	}
	for name, c := range map[string]struct {
		artifacts string
		want      []string // after the --
		refused   string
	}{
		"a path":                   {"app", []string{"app"}, ""},
		"lines":                    {"\n  app\t\r\n\nb c\n", []string{"app", "b c"}, ""},
		"once":                     {"app\napp\napp*", []string{"app"}, ""},
		"a dash":                   {"-x\n--help", []string{"-x", "--help"}, ""},
		"a pattern of dashes":      {"-*", []string{"--help", "-x"}, ""},
		"a pattern":                {"d/*", []string{"d/-y", "d/e"}, ""},
		"spaces in a pattern":      {"b c*", []string{"b c"}, ""},
		"a set":                    {"[ab]*", []string{"a.txt", "app", "b c", "back\\slash"}, ""},
		"a pattern that is a file": {"[a].txt", nil, "is a file and also a pattern"},
		"everything":               {"*.txt", []string{"[a].txt", "a.txt"}, ""},
		"no pattern after all":     {"ap*\n\\*", nil, `no file is named \*`},
		"shell":                    {"$(touch pwned)\n`touch pwned`\n$HOME\n~", []string{"$(touch pwned)", "`touch pwned`", "$HOME", "~"}, ""},
		"shell in a pattern":       {"$(touch *\n`touch*", []string{"$(touch pwned)", "`touch pwned`"}, ""},
		"quotes":                   {"q'uote\"\nback\\slash\nünï", []string{"q'uote\"", "back\\slash", "ünï"}, ""},
		"braces":                   {"{app,d/e}", []string{"{app,d/e}"}, ""},
		"an image":                 {"r.example/app" + digest, []string{"r.example/app" + digest}, ""},
		"a bare digest":            {digest[1:], []string{digest[1:]}, ""},
		"a file like an image":     {"./x" + digest, []string{"./x" + digest}, ""},
		"a pattern of such":        {"x@*\nsh*", []string{"./x" + digest, "./sha256:1"}, ""},
		"paths, then digests":      {"r" + digest + "\napp", []string{"app", "r" + digest}, ""},
		"nothing":                  {" \n\t\n", nil, "names nothing"},
		"no such file":             {"nothing-*", nil, "no file is named nothing-*"},
		"a runner's command":       {"::set-output name=x::*", nil, "::error::no file is named ::set-output name=x::*"},
		"a runner's escapes":       {"%0A::add-mask::x*", nil, "::error::no file is named %250A::add-mask::x*"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJob(t)
			for _, f := range files {
				j.write(t, f, "x")
			}
			args := j.record(t)
			r := j.use(t, map[string]string{"artifacts": c.artifacts, "command": "verify", "environment": "$(touch pwned) -x"}, "run")
			if c.refused != "" {
				if r.code != 2 || !strings.Contains(r.output, c.refused) || !strings.HasPrefix(r.output, "::error::") || strings.Count(r.output, "\n") != 1 || len(args()) != 0 {
					t.Errorf("exit %d, %q, the client got %q", r.code, r.output, args())
				}
			} else if want := append([]string{"verify", "--env=$(touch pwned) -x", "--"}, c.want...); r.code != 0 || !slices.Equal(args(), want) {
				t.Errorf("exit %d, %q, the client got %q, want %q", r.code, r.output, args(), want)
			}
			if _, err := os.Stat(filepath.Join(j.work, "pwned")); err == nil {
				t.Error("a shell ran what an input says")
			}
		})
	}
}

// record makes the job's client a program that notes its arguments, and returns
// what reads them.
func (j *job) record(t testing.TB) func() []string {
	t.Helper()
	notes := filepath.Join(j.temp, "arguments")
	j.client = filepath.Join(j.temp, "client")
	script := "#!/bin/sh\nprintf '%s\\0' \"$@\" >>'" + notes + "'\n"
	if err := os.WriteFile(j.client, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return func() []string {
		b, _ := os.ReadFile(notes)
		if len(b) == 0 {
			return nil
		}
		return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	}
}

// TestActionAttest: files and images are two statements; nothing that an input says
// becomes an option, or an output of its own.
func TestActionAttest(t *testing.T) {
	t.Parallel()
	const image = "r.example/app@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for name, c := range map[string]struct {
		with map[string]string
		want []string
		code int
		text string
	}{
		"files":            {map[string]string{"artifacts": "app"}, []string{"attest", "--bundle-dir=assay-bundles", "--", "app"}, 0, ""},
		"images":           {map[string]string{"artifacts": image}, []string{"attest", "--bundle-dir=assay-bundles", "--digest=" + image}, 0, ""},
		"both":             {map[string]string{"artifacts": image + "\napp"}, []string{"attest", "--bundle-dir=assay-bundles", "--", "app", "attest", "--bundle-dir=assay-bundles", "--digest=" + image}, 0, ""},
		"a directory":      {map[string]string{"artifacts": "app", "bundle-dir": "--digest=x y"}, []string{"attest", "--bundle-dir=--digest=x y", "--", "app"}, 0, ""},
		"an output":        {map[string]string{"artifacts": "app", "bundle-dir": "x\nclient=/tmp/evil"}, nil, 2, "line break"},
		"another command":  {map[string]string{"artifacts": "app", "command": "version"}, nil, 2, "neither attest nor verify"},
		"no environment":   {map[string]string{"artifacts": "app", "command": "verify"}, nil, 2, "verify needs environment"},
		"a broken name":    {map[string]string{"artifacts": "new*"}, nil, 2, "has a line break: new%0A::warning::line"},
		"a broken literal": {map[string]string{"artifacts": "?ew*"}, nil, 2, "line break"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJob(t)
			j.write(t, "app", "x")
			j.write(t, "new\n::warning::line", "x")
			args := j.record(t)
			r := j.use(t, c.with, "run")
			if r.code != c.code || !strings.Contains(r.output, c.text) || !slices.Equal(args(), c.want) || c.code != 0 && strings.Count(r.output, "\n") != 1 {
				t.Errorf("exit %d, %q, the client got %q, want %q", r.code, r.output, args(), c.want)
			}
			if got := r.outputs["bundle-dir"]; (got != "") != (c.code == 0) {
				t.Errorf("output bundle-dir %q", got)
			}
		})
	}
}

// TestActionDownload: a client that was downloaded is run only if it is the one
// whose digest the workflow names.
func TestActionDownload(t *testing.T) {
	t.Parallel()
	program := []byte("#!/bin/sh\nexit 0\n")
	sum := sha256.Sum256(program)
	good := hex.EncodeToString(sum[:])
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(program) }))
	t.Cleanup(plain.Close)
	asked := make(chan string, 100)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		switch r.URL.Path {
		case "/assay", "/[1-2]{a,b}":
			_, _ = w.Write(program)
		case "/moved":
			http.Redirect(w, r, "/assay", http.StatusFound)
		case "/downgrade":
			http.Redirect(w, r, plain.URL+"/assay", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // a client that does not trust it
	srv.StartTLS()
	t.Cleanup(srv.Close)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	trust := "CURL_CA_BUNDLE=" + bundle
	for name, c := range map[string]struct {
		url, sum, env, refused string
		unasked                bool
	}{
		"right":             {srv.URL + "/assay", good, trust, "", false},
		"moved":             {srv.URL + "/moved", good, trust, "", false},
		"no globs of curl":  {srv.URL + "/[1-2]{a,b}", good, trust, "", false},
		"no checksum":       {srv.URL + "/assay", "", trust, "client-sha256 must be 64", true},
		"a short checksum":  {srv.URL + "/assay", good[:40], trust, "client-sha256 must be 64", true},
		"in capitals":       {srv.URL + "/assay", strings.ToUpper(good), trust, "client-sha256 must be 64", true},
		"two checksums":     {srv.URL + "/assay", good + "\n" + good, trust, "client-sha256 must be 64", true},
		"another checksum":  {srv.URL + "/assay", strings.Repeat("0", 64), trust, "has another SHA-256", false},
		"not there":         {srv.URL + "/nothing", good, trust, "could not be downloaded", false},
		"not trusted":       {srv.URL + "/assay", good, "X=", "could not be downloaded", true},
		"plain":             {plain.URL + "/assay", good, trust, "must begin with https://", true},
		"moved to plain":    {srv.URL + "/downgrade", good, trust, "could not be downloaded", false},
		"a file":            {"file:///bin/sh", good, trust, "must begin with https://", true},
		"an option":         {"-ohttps://x", good, trust, "must begin with https://", true},
		"two addresses":     {srv.URL + "/assay " + srv.URL + "/moved", good, trust, "must begin with https://", true},
		"a checksum, alone": {"", good, trust, "client-sha256 is there without client-url", true},
	} {
		t.Run(name, func(t *testing.T) {
			for len(asked) > 0 {
				<-asked
			}
			j := newJob(t, c.env)
			r := j.use(t, map[string]string{"client-url": c.url, "client-sha256": c.sum}, "client")
			got, err := os.ReadFile(filepath.Join(j.temp, "assay-client", "assay"))
			if c.refused == "" {
				if r.code != 0 || !bytes.Equal(got, program) {
					t.Errorf("exit %d, %q, %v", r.code, r.output, err)
				}
				return
			}
			if r.code != 2 || !strings.Contains(r.output, "::error::") || !strings.Contains(r.output, c.refused) || err == nil {
				t.Errorf("exit %d, %q, %q", r.code, r.output, got)
			}
			if _, err := os.Stat(filepath.Join(j.temp, "assay-client", "assay.part")); err == nil && !strings.Contains(c.refused, "download") {
				t.Error("what was refused is still there")
			}
			if c.unasked && len(asked) != 0 {
				t.Errorf("asked for %s", <-asked)
			}
		})
	}
}

// TestActionBuildsClient: both steps as a workflow has them, with a client that is
// built from the source of the action.
func TestActionBuildsClient(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compiles the client with other flags than the tests; the run without -short does")
	}
	s := testenv.New(t)
	j := newJob(t, s.Env()...)
	j.write(t, "app", "the application")
	r := j.use(t, map[string]string{"server": s.Server, "artifacts": "app"})
	if r.code != 0 || !strings.Contains(r.summary, "app") {
		t.Errorf("exit %d, summary %q\n%s", r.code, r.summary, r.output)
	}
}

// TestBuildspecs runs the commands of the buildspecs of docs/deploy in the
// environment of a build, on the stand-in.
func TestBuildspecs(t *testing.T) {
	t.Parallel()
	s := testenv.New(t)
	client := buildClient(t)
	run := func(file, phase string, env ...string) ran {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(repository, "docs/deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		var spec struct {
			Version string
			Env     struct{ Variables map[string]string }
			Phases  map[string]struct{ Commands []string }
		}
		if err := yaml.Unmarshal(text, &spec); err != nil || spec.Version != "0.2" || len(spec.Phases[phase].Commands) == 0 {
			t.Fatalf("%s: %+v, %v", file, spec, err)
		}
		j := newJob(t)
		j.env = []string{"PATH=" + filepath.Dir(client) + ":" + os.Getenv("PATH"), "HOME=" + j.temp}
		for name, v := range spec.Env.Variables {
			j.env = append(j.env, name+"="+v)
		}
		j.env = append(append(j.env, "ASSAY_SERVER="+s.Server), env...)
		j.write(t, "dist/app", "the application")
		j.write(t, "dist/-a library", "a library")
		var r ran
		j.step(t, &r, strings.Join(spec.Phases[phase].Commands, "\n"), j.env)
		bundles, _ := filepath.Glob(filepath.Join(j.work, "bundles", "*"))
		r.outputs = map[string]string{"bundles": fmt.Sprint(len(bundles))}
		return r
	}
	b := s.AWS.RunningBuild()
	if r := run("buildspec.yml", "post_build", b.Env()...); r.code != 0 || r.outputs["bundles"] != "2" || !strings.Contains(r.output, "git+https://github.com/acme/app\n") {
		t.Errorf("exit %d, %v\n%s", r.code, r.outputs, r.output)
	}
	if r := run("buildspec.yml", "post_build", append(b.Env(), "CODEBUILD_BUILD_SUCCEEDING=0")...); r.code != 1 || r.outputs["bundles"] != "0" {
		t.Errorf("a build that failed: exit %d, %v\n%s", r.code, r.outputs, r.output)
	}
	// The project that asks is a build too, and yet known by its role alone.
	finished := s.AWS.FinishedBuild(map[string][]byte{"app": []byte("the application")})
	asker := s.AWS.Account.Project(testenv.AWSRegion, awstest.Project{Name: "assay-attest-build", ServiceRole: s.AWS.Deploy}).StartBuild(awstest.StartBuild{})
	if r := run("buildspec-attest-build.yml", "build", append(asker.Env(), "FINISHED_BUILD="+finished.ARN)...); r.code != 0 || !strings.Contains(r.output, "app.zip") {
		t.Errorf("exit %d\n%s", r.code, r.output)
	}
	if r := run("buildspec-attest-build.yml", "build", append(asker.Env(), "FINISHED_BUILD=--help")...); r.code != 2 {
		t.Errorf("a build that is no ARN: exit %d\n%s", r.code, r.output)
	}
	if r := run("buildspec-attest-build.yml", "install"); r.code != 0 {
		t.Errorf("with the client there: exit %d\n%s", r.code, r.output)
	}
}
